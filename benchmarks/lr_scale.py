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


def simulate(n_obs: int, n_pairs: int, folder: Path) -> None:
    """Cells with the genes of the pairs alone."""
    import smeld as sm

    pairs = sm.lr.pairs()
    single = ~(pairs["ligand"].str.contains("+", regex=False) | pairs["receptor"].str.contains("+", regex=False))
    pairs = pairs[single & (pairs["ligand"] != pairs["receptor"])].head(n_pairs)
    names = sorted({*pairs["ligand"], *pairs["receptor"]})
    adata = sm.datasets.simulate(n_obs, len(names), layout="cells", image=False, seed=0)
    adata.var_names = names
    sm.write(adata, folder / "cells.h5ad")
    pairs.to_csv(folder / "pairs.csv", index=False)


def run(folder: Path) -> dict[str, Any]:
    """Seconds of the test, after reading."""
    import pandas as pd

    import smeld as sm

    adata, pairs = sm.read(folder / "cells.h5ad"), pd.read_csv(folder / "pairs.csv")
    started = time.perf_counter()
    found = sm.tl.interactions(adata, pairs, adjust=())
    seconds = time.perf_counter() - started
    return {
        "cells": adata.n_obs, "genes": adata.n_vars, "pairs": len(found.table), "seconds": seconds,
        "significant": int((found.table["qvalue"] <= 0.05).sum()), "lambda on surrogates": found.lambda_surrogate,
    }  # fmt: skip


def measure(*, slow: bool) -> dict[str, list[dict[str, Any]]]:
    """Each case in a process of its own, for its peak memory (reading included)."""
    rows = []
    for n_obs, n_pairs in CASES if slow else CASES[:1]:
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            _measure.run_json("lr_scale.py", [str(where), "--simulate", str(n_obs), str(n_pairs)], where, timeout=3600)
            found, done = _measure.run_json("lr_scale.py", [str(where)], where, timeout=3600)
        rows.append({**found, "peak MB": done.peak_mb})
    return {"lr_scale": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--simulate", type=int, nargs=2, metavar=("CELLS", "PAIRS"))
    asked = parser.parse_args(argv)
    if asked.simulate:
        simulate(*asked.simulate, asked.folder)
    json.dump({} if asked.simulate else run(asked.folder), sys.stdout)


if __name__ == "__main__":
    main()
