"""Time and memory of ``sm.tl.trajectory`` on many cells, fused beforehand."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _measure

#: cells, genes
CASES = ((100_000, 300), (1_000_000, 60))


def prepare(n_obs: int, n_genes: int, folder: Path) -> None:
    """A fused section of cells."""
    import smeld as sm

    adata = sm.datasets.simulate(n_obs, n_genes, layout="cells", tissue="branched", image=False, seed=0)
    sm.fuse(adata, evidence=False)
    sm.write(adata, folder / "cells.h5ad")


def run(folder: Path) -> dict[str, Any]:
    """Seconds of the ordering, after reading."""
    from scipy.stats import kendalltau

    import smeld as sm

    adata = sm.read(folder / "cells.h5ad")
    tree = adata.uns["truth_domain_tree"]
    root = str(tree.loc[tree["parent"] == "none", "domain"].iloc[0])
    started = time.perf_counter()
    found = sm.tl.trajectory(adata, f"label:{root}", groups="truth_domain")
    seconds = time.perf_counter() - started
    tau = float(kendalltau(found.pseudotime, adata.obs["truth_pseudotime"])[0])
    return {"cells": adata.n_obs, "genes": adata.n_vars, "seconds": seconds, "tau": tau}


def measure(*, slow: bool) -> dict[str, list[dict[str, Any]]]:
    """Each case in a process of its own, for its peak memory (reading included)."""
    rows = []
    for n_obs, n_genes in CASES if slow else CASES[:1]:
        with tempfile.TemporaryDirectory() as folder:
            where = Path(folder)
            given = [str(where), "--prepare", str(n_obs), str(n_genes)]
            _measure.run_json("trajectory_scale.py", given, where, timeout=3600)
            found, done = _measure.run_json("trajectory_scale.py", [str(where)], where, timeout=3600)
        rows.append({**found, "peak MB": done.peak_mb})
    return {"trajectory_scale": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prepare", type=int, nargs=2, metavar=("CELLS", "GENES"))
    options = parser.parse_args(argv)
    if options.prepare:
        prepare(*options.prepare, options.folder)
        json.dump({}, sys.stdout)
    else:
        json.dump(run(options.folder), sys.stdout)


if __name__ == "__main__":
    main()
