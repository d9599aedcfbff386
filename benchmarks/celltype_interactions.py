"""Cell-type interactions: false positives with labels that lie in patches, power, time.

Generator: that of interactions.py for positions and genes (the ligand's and the receptor's field are independent);
labels are the largest of as many smooth fields as there are types, or their softmax (proportions). Neighbours: the 10
nearest, made symmetric. On each section every pair is tested with every ordered pair of types.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _measure
import interactions
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

F64 = NDArray[np.float64]
SMALL, SMALLER, LARGE = 48, 32, 316
LABEL_RANGES, GENE_RANGES = (2, 4, 8), (0, 1, 2, 4, 8)
#: mean log rate of a gene's counts: most cells have it, or one in ten
COMMON, SPARSE = -0.5, -2.0
MIN_CELLS = 20
#: what log rates gain: the ligand's in cells of the sender that lie beside the receiver ("beside"), or the ligand's in
#: all cells of the sender and the receptor's in all of the receiver ("marker")
GAINS, SENDER, RECEIVER = (0.5, 1.0), 0, 1


def labels(side: int, width: float, n_types: int, rng: np.random.Generator, *, soft: bool = False) -> F64:
    """Types in patches [n_cells, n_types]: one-hot, or proportions."""
    z = np.stack([interactions.field(side, width, rng) for _ in range(n_types)], axis=1)
    if soft:
        share = np.exp(2 * z)
        return np.asarray(share / share.sum(axis=1, keepdims=True))
    return np.eye(n_types)[z.argmax(axis=1)]


def gene(side: int, width: float, level: float | F64, rng: np.random.Generator, *, spikes: bool = False) -> F64:
    """Logarithms of counts; or, with ``spikes``, values of which few cells have most."""
    if spikes:
        return np.log1p(0.05 * np.exp(1.5 * interactions.field(side, width, rng)))
    return np.log1p(rng.poisson(np.exp(level + interactions.field(side, width, rng))).astype(float))


def section(case: dict[str, Any], number: int) -> dict[str, NDArray[Any]]:
    """p-values [n_pairs, n_type_pairs] of one section by sender and receiver, and the types there are."""
    from smeld.kernels import edgefields
    from smeld.tl import _lr_inputs

    rng = np.random.default_rng([case["seed"], number])
    side, n = case["side"], case["pairs"]
    xy = interactions.positions(side, rng)
    weights = _lr_inputs.averages(xy, None, False)
    types = labels(side, case["label range"], case["types"], rng, soft=case["soft"])
    large = np.flatnonzero(types.sum(axis=0) >= MIN_CELLS)
    up = np.zeros((2, len(xy)))
    if case["gain"]:
        touches = (weights @ types[:, RECEIVER] > 0) & (types[:, SENDER] > 0)
        up[0] = case["gain"] * (touches if case["how"] == "beside" else types[:, SENDER])
        up[1] = case["gain"] * (0.0 if case["how"] == "beside" else types[:, RECEIVER])
    columns = [
        gene(side, case["gene range"], case["level"] + up[k % 2], rng, spikes=case["spikes"]) for k in range(2 * n)
    ]
    genes, pairs = sparse.csc_matrix(np.stack(columns, axis=1)), np.arange(2 * n).reshape(n, 2)
    started = time.perf_counter()
    found = edgefields.by_types(genes, pairs, weights, xy, np.ascontiguousarray(types[:, large]))
    seconds = time.perf_counter() - started
    return {
        "p": found.pvalue, "sender": large[found.senders], "receiver": large[found.receivers],
        "seconds": np.array([seconds]),
    }  # fmt: skip


def measure_case(case: dict[str, Any]) -> dict[str, Any]:
    """One case in this process: shares of rows that pass."""
    made = [section(case, number) for number in range(case["sections"])]
    p = np.concatenate([m["p"].ravel() for m in made])
    sender, receiver = (
        np.concatenate([np.broadcast_to(m[c], m["p"].shape).ravel() for m in made]) for c in ("sender", "receiver")
    )
    figures: dict[str, Any] = {"rows": len(p)}
    if case["gain"]:
        there = (sender == SENDER) & (receiver == RECEIVER)
        back = (sender == RECEIVER) & (receiver == SENDER)
        others = ~np.isin(sender, (SENDER, RECEIVER)) & ~np.isin(receiver, (SENDER, RECEIVER))
        for name, rows in (("sender to receiver", there), ("receiver to sender", back), ("other types", others)):
            figures[f"p < .05, {name}"] = float((p[rows] < 0.05).mean()) if rows.any() else float("nan")
        return figures
    for level in (0.05, 0.01, 0.001):
        figures[f"p < {level:g}".replace("0.", ".")] = float((p < level).mean())
    figures["p < .05, a type with itself"] = float((p[sender == receiver] < 0.05).mean())
    figures["seconds"] = float(sum(m["seconds"][0] for m in made))
    return figures


def cases(runs: int) -> list[dict[str, Any]]:
    base = {"side": SMALL, "types": 5, "sections": runs, "pairs": 16, "gene range": 2, "label range": 4,
            "level": COMMON, "spikes": False, "soft": False, "gain": 0.0, "how": "none"}  # fmt: skip
    ranges = list(itertools.product(LABEL_RANGES, GENE_RANGES))
    made = [{**base, "label range": a, "gene range": b} for a, b in ranges]
    made += [{**base, "label range": a, "gene range": b, "level": SPARSE} for a, b in ranges]
    made += [{**base, "types": n, "label range": a} for n in (3, 8) for a in LABEL_RANGES]
    made += [{**base, "side": SMALLER, "label range": a, "level": v} for a in LABEL_RANGES for v in (COMMON, SPARSE)]
    made += [{**base, "side": s, "label range": a, "soft": True} for s in (SMALL, SMALLER) for a in LABEL_RANGES]
    made += [{**base, "label range": a, "spikes": True} for a in LABEL_RANGES]
    made += [
        {**base, "label range": a, "gain": g, "how": how}
        for how in ("beside", "marker")
        for a in LABEL_RANGES
        for g in GAINS
    ]
    large = {"side": LARGE, "types": 12, "sections": 1, "pairs": 200, "gene range": 4, "level": SPARSE}
    return [*made, {**base, **large}]


def measure(*, runs: int = 20) -> dict[str, list[dict[str, Any]]]:
    """False positives and power at 1,024 and 2,304 cells by ranges, time and memory at 100k cells and 200 pairs."""
    rows = []
    for seed, case in enumerate(cases(runs)):
        with tempfile.TemporaryDirectory() as folder:
            asked = json.dumps({**case, "seed": seed})
            figures, run = _measure.run_json("celltype_interactions.py", [asked], Path(folder), timeout=3600)
        kind = "proportions" if case["soft"] else "labels"
        facts = {"cells": case["side"] ** 2, "groups": kind} | {
            name: case[name]
            for name in ("types", "label range", "gene range", "level", "spikes", "gain", "how", "pairs")
        }
        rows.append({**facts, **figures, "peak MB": run.peak_mb})
    return {"celltype_interactions": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="one case as JSON")
    json.dump(measure_case(json.loads(parser.parse_args(argv).case)), sys.stdout)


if __name__ == "__main__":
    main()
