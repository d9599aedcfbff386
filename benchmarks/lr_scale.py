"""Time and memory of ``sm.tl.interactions`` on many cells: as many of smeld's own pairs as asked for."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _measure

#: cells, pairs
CASES = ((100_000, 1500), (1_000_000, 100))


def run(n_obs: int, n_pairs: int) -> dict[str, Any]:
    """Cells are simulated with the genes of the pairs alone; seconds are those of the test."""
    import smeld as sm

    pairs = sm.lr.pairs()
    single = ~(pairs["ligand"].str.contains("+", regex=False) | pairs["receptor"].str.contains("+", regex=False))
    pairs = pairs[single & (pairs["ligand"] != pairs["receptor"])].head(n_pairs)
    names = sorted({*pairs["ligand"], *pairs["receptor"]})
    adata = sm.datasets.simulate(n_obs, len(names), layout="cells", image=False, seed=0)
    adata.var_names = names
    started = time.perf_counter()
    found = sm.tl.interactions(adata, pairs, adjust=())
    seconds = time.perf_counter() - started
    return {
        "cells": n_obs, "genes": len(names), "pairs": len(found.table), "seconds": seconds,
        "significant": int((found.table["qvalue"] <= 0.05).sum()), "lambda on surrogates": found.lambda_surrogate,
        "lambda on decoys": found.lambda_decoy,
    }  # fmt: skip


def measure(*, slow: bool) -> dict[str, list[dict[str, Any]]]:
    """Each case in a process of its own, for its peak memory (the simulation's included)."""
    rows = []
    for n_obs, n_pairs in CASES if slow else CASES[:1]:
        with tempfile.TemporaryDirectory() as folder:
            found, done = _measure.run_json("lr_scale.py", [str(n_obs), str(n_pairs)], Path(folder), timeout=3600)
        rows.append({**found, "peak MB": done.peak_mb})
    return {"lr_scale": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cells", type=int)
    parser.add_argument("pairs", type=int)
    asked = parser.parse_args(argv)
    json.dump(run(asked.cells, asked.pairs), sys.stdout)


if __name__ == "__main__":
    main()
