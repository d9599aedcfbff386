"""Pairs whose effect is on genes downstream: does ``gnn`` find them where ``spatial`` cannot? What else does it call?

Simulated sections of 10 pairs and 10 decoys with 4 genes downstream of each: ligand and receptor know nothing of each
other. ``smooth ligand`` pairs a gene of a smooth programme that many genes follow with a decoy's receptor: nothing
interacts, but neighbours' "ligand" does say something of other genes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _measure
import numpy as np

SECTIONS = {
    "spots": {"layout": "lattice", "n_obs": 1500, "n_genes": 600, "n_downstream": 4},
    "cells": {"layout": "cells", "n_obs": 3000, "n_genes": 600, "n_downstream": 8, "mean_counts": 600},
    "spots, 3,000": {"layout": "lattice", "n_obs": 3000, "n_genes": 1000, "n_downstream": 4},
}
N_PAIRS, N_SMOOTH = 10, 6
#: how a section's statistics are called here, and their options
STATISTICS: dict[str, tuple[str, dict[str, Any]]] = {
    "gnn": ("gnn", {}),
    "gnn, no network": ("gnn", {"network": False}),
    "spatial": ("spatial", {"surrogates": False}),
    "product": ("product", {}),
    "moran": ("moran", {}),
}


def measure_case(case: dict[str, Any]) -> dict[str, Any]:
    """By statistic, p and z of pairs, decoys and smooth ligands of one section, in this process."""
    import smeld as sm
    from smeld import _adapt
    from smeld.lr import lr_stats
    from smeld.tl import _links, _lr_inputs

    adata = sm.datasets.simulate(seed=case["seed"], image=False, n_pairs=N_PAIRS, **SECTIONS[case["section"]])
    adata.obs["domain"], adata.obs["cell_type"] = adata.obs["truth_domain"], adata.obs["truth_cell_type"]
    order = _adapt.canonical_order(adata)
    values = _lr_inputs.expressed(adata, None, order)
    truth = adata.uns["truth_pairs"]
    pairs = list(zip(truth["ligand"], truth["receptor"]))
    pairs += [(f"SMOOTH{k + 1}", f"DECR{k + 1}") for k in range(N_SMOOTH)]
    number = {name: i for i, name in enumerate(adata.var_names)}
    index = np.array([[number[a], number[b]] for a, b in pairs])
    xy = _adapt.xy_um(adata)[order]
    one = np.zeros(len(xy), dtype=np.intp)
    weights = _links.links(xy, one, radius_um=None, within_spot=False, barrier=None)["unknown"]
    outside = np.setdiff1d(np.arange(adata.n_vars), index)
    found = {}
    for name in case["statistics"]:
        statistic, options = STATISTICS[name]
        card = lr_stats[statistic]
        more = _lr_inputs.more(adata, card.facts, values, order, outside).options
        started = time.perf_counter()
        result = card.func(values.genes, index, weights, xy, seed=0, **options, **more)
        seconds = time.perf_counter() - started
        found[name] = {"p": result.pvalue.tolist(), "z": result.zscore.tolist(), "seconds": seconds}
    return found


def precision_recall(truth: np.ndarray, score: np.ndarray) -> float:
    """Area under the curve (average precision), ties in the worst order."""
    order = np.lexsort((truth, -score))
    hit = truth[order]
    return float((np.cumsum(hit) / np.arange(1, len(hit) + 1))[hit].mean())


def measure(*, seeds: int = 10, more_seeds: int = 20) -> dict[str, list[dict[str, Any]]]:
    """Area under the precision-recall curve, power, and false positives; ``more_seeds`` for those of ``gnn`` alone."""
    rows = []
    for section, n, names in (
        ("spots", seeds, list(STATISTICS)),
        ("cells", seeds, list(STATISTICS)),
        ("spots, 3,000", 1, ["gnn", "gnn, no network"]),
    ):
        with tempfile.TemporaryDirectory() as folder:
            found = [_asked(section, seed, names, Path(folder)) for seed in range(n)]
            if section == "spots":
                only = [_asked(section, seed, ["gnn"], Path(folder)) for seed in range(n, more_seeds)]
        for name in names:
            runs = found + (only if section == "spots" and name == "gnn" else [])
            rows.append({"section": section, "statistic": name, **_figures([r[name] for r in runs], n)})
    return {"gnn": rows}


def _asked(section: str, seed: int, names: list[str], folder: Path) -> dict[str, Any]:
    asked = json.dumps({"section": section, "seed": seed, "statistics": names})
    found: dict[str, Any] = _measure.run_json("gnn.py", [asked], folder, timeout=3600)[0]
    return found


def _figures(runs: list[dict[str, Any]], n: int) -> dict[str, Any]:
    """Over sections: the first ``n`` for all, every one for false positives."""
    truth = np.arange(2 * N_PAIRS) < N_PAIRS
    area = [precision_recall(truth, np.array(r["z"])[: 2 * N_PAIRS]) for r in runs[:n]]
    p = np.array([r["p"] for r in runs])
    decoys = p[:, N_PAIRS : 2 * N_PAIRS]
    return {
        "sections": len(runs),
        "AUPRC": float(np.mean(area)),
        "AUPRC worst": float(np.min(area)),
        "power at .05": float((p[:n, :N_PAIRS] < 0.05).mean()),
        "decoys p < .05": float((decoys < 0.05).mean()),
        "decoys p < .01": float((decoys < 0.01).mean()),
        "smooth ligands p < .05": float((p[:, 2 * N_PAIRS :] < 0.05).mean()),
        "seconds": float(np.median([r["seconds"] for r in runs[:n]])),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="one case as JSON")
    json.dump(measure_case(json.loads(parser.parse_args(argv).case)), sys.stdout)


if __name__ == "__main__":
    main()
