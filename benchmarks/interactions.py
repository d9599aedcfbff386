"""Ligand-receptor tests on pairs that are independent, and on pairs that are not: false positives, power, time.

Generator: white noise smoothed by a Gaussian of a given range (in spacings) on a padded lattice with jittered
positions, cropped; counts Poisson(exp(-.5 + z)), log1p; 6-neighbour weights; one-sided.
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
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

F64 = NDArray[np.float64]
SMALL, LARGE = 48, 316
RANGES, LARGE_RANGES = (0, 2, 4, 8), (0, 4, 16, 40)
CORRELATION = 0.4
PITCH_UM = 50.0


def positions(side: int, rng: np.random.Generator) -> F64:
    y, x = np.mgrid[:side, :side]
    return PITCH_UM * (np.c_[x.ravel(), y.ravel()] + rng.uniform(-0.3, 0.3, (side**2, 2)))


def field(side: int, width: float, rng: np.random.Generator) -> F64:
    """Unit variance, smooth over ``width`` spacings, no wrap-around."""
    pad = int(4 * width) + 1
    z = rng.normal(size=(side + 2 * pad,) * 2)
    z = gaussian_filter(z, width) * 2 * np.sqrt(np.pi) * width if width else z
    return z[pad:-pad, pad:-pad].ravel()


def table(
    side: int, width: float, n_pairs: int, rng: np.random.Generator, *, rho: float, how: str
) -> sparse.csc_matrix:
    """Pairs in columns (2 i, 2 i + 1), log1p of counts; ``how`` "stationary", "drift" (a common gradient over the
    section) or "domains" (levels of three stripes, other for every gene)."""
    x = np.linspace(-1, 1, side)
    stripe = np.repeat(np.arange(side) * 3 // side, side)
    columns = []
    for _ in range(n_pairs):
        first, other = field(side, width, rng), field(side, width, rng)
        for z in (first, rho * first + np.sqrt(1 - rho**2) * other):
            level = {
                "stationary": 0.0,
                "drift": rng.normal(0, 0.7) * np.repeat(x, side) + rng.normal(0, 0.7) * np.tile(x, side),
                "domains": rng.normal(0, 0.7, 3)[stripe],
            }[how]
            columns.append(sparse.csc_matrix(np.log1p(rng.poisson(np.exp(-0.5 + z + level)))[:, None].astype(float)))
    return sparse.csc_matrix(sparse.hstack(columns))


def averages(xy: F64) -> sparse.csr_matrix:
    near = cKDTree(xy).query(xy, k=7)[1][:, 1:]
    rows = np.repeat(np.arange(len(xy)), 6)
    return sparse.csr_matrix((np.full(len(rows), 1 / 6), (rows, near.ravel())), shape=(len(xy),) * 2)


def measure_case(case: dict[str, Any]) -> dict[str, Any]:
    """p-values of one case by every statistic asked for, in this process."""
    from smeld.lr import lr_stats

    rng = np.random.default_rng(case["seed"])
    side, n = case["side"], case["pairs"]
    xy = positions(side, rng)
    weights = averages(xy)
    genes = table(side, case["range"], n, rng, rho=case["rho"], how=case["how"])
    pairs = np.arange(2 * n).reshape(n, 2)
    basis = _basis(xy, side, case["how"]) if case["how"] != "stationary" else None
    found = {}
    for name in case["statistics"]:
        options = {"basis": basis} if basis is not None and name == "spatial" else {}
        started = time.perf_counter()
        result = lr_stats[name].func(genes, pairs, weights, xy, seed=0, **options)
        seconds = time.perf_counter() - started
        p = result.pvalue
        found[name] = {
            "p < .05": float((p < 0.05).mean()),
            "p < .01": float((p < 0.01).mean()),
            "lambda on surrogates": result.lambda_surrogate,
            "seconds": seconds,
        }
    return found


def _basis(xy: F64, side: int, how: str) -> F64:
    """What a user would regress out: a plane over the section, or its domains."""
    stripe = np.repeat(np.arange(side) * 3 // side, side)
    columns = (
        np.c_[np.ones(len(xy)), xy - xy.mean(axis=0)] if how == "drift" else (stripe[:, None] == np.arange(3)) * 1.0
    )
    return np.linalg.qr(columns)[0]


def measure(*, pairs: int = 2000) -> dict[str, list[dict[str, Any]]]:
    """False positives and power at 2,304 cells, false positives and time at 100k."""
    cases = [{"side": SMALL, "range": r, "pairs": pairs, "rho": 0.0, "how": "stationary"} for r in RANGES]
    cases += [{"side": SMALL, "range": 2, "pairs": pairs, "rho": 0.0, "how": how} for how in ("drift", "domains")]
    cases += [
        {"side": SMALL, "range": r, "pairs": pairs // 4, "rho": CORRELATION, "how": "stationary"} for r in RANGES[1:]
    ]
    cases += [{"side": LARGE, "range": r, "pairs": pairs // 10, "rho": 0.0, "how": "stationary"} for r in LARGE_RANGES]
    rows = []
    for seed, case in enumerate(cases):
        names = ["spatial", "moran"] if case["side"] == SMALL else ["spatial"]
        with tempfile.TemporaryDirectory() as folder:
            asked = json.dumps({**case, "seed": seed, "statistics": names})
            found, run = _measure.run_json("interactions.py", [asked], Path(folder), timeout=3600)
        rows += [
            {
                "cells": case["side"] ** 2,
                "range": case["range"],
                "field correlation": case["rho"],
                "mean": case["how"],
                "pairs": case["pairs"],
                "statistic": name,
                **figures,
                "peak MB": run.peak_mb,
            }
            for name, figures in found.items()
        ]
    return {"interactions": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="one case as JSON")
    json.dump(measure_case(json.loads(parser.parse_args(argv).case)), sys.stdout)


if __name__ == "__main__":
    main()
