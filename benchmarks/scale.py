"""Time and memory of fusion and domains by number of cells, on the simulator, with the default number of threads."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import _measure
import _scores

#: cells, genes; the last only with --slow
SIZES = ((10_000, 2000), (100_000, 2000), (10_000, 500))
SLOW = ((1_000_000, 500),)


def simulate(n_obs: int, n_genes: int, path: Path) -> None:
    """A section of cells without a picture, stored: the simulator's own memory must not count as the fusion's."""
    import smeld as sm

    warnings.simplefilter("ignore")
    sm.write(sm.datasets.simulate(n_obs, n_genes, layout="cells", image=False), path)


def fuse_and_divide(path: Path) -> dict[str, Any]:
    """Seconds of each step and the ARI; compiled code and imports are warmed up on a small section first."""
    import smeld as sm

    warnings.simplefilter("ignore")
    small = sm.datasets.simulate(500, 100, image=False)
    sm.tl.domains(small, 3)
    adata = sm.read(path)
    truth = adata.obs["truth_domain"].astype(str).to_numpy()
    started = time.perf_counter()
    sm.fuse(adata)
    fused = time.perf_counter()
    sm.tl.domains(adata, len(set(truth)))
    done = time.perf_counter()
    ari = _scores.ari(truth, adata.obs["domain"].astype(str).to_numpy())
    return {"fuse": fused - started, "domains": done - fused, "ari": ari}


def measure(*, slow: bool = False) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for n_obs, n_genes in (*SIZES, *(SLOW if slow else ())):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_one(n_obs, n_genes, Path(folder)))
    rows += _growth(rows)
    if not slow:
        rows.append({"cells": "1,000,000", "genes": 500, "note": "not measured: asked for with --slow"})
    return rows


def _one(n_obs: int, n_genes: int, folder: Path) -> dict[str, Any]:
    size = {"cells": f"{n_obs:,}", "genes": n_genes}
    path = str(folder / "section.h5ad")
    script = [sys.executable, str(_measure.HERE / "scale.py")]
    try:
        _measure.run([*script, path, "--simulate", str(n_obs), str(n_genes)], folder, timeout=3600)
        found = _measure.run([*script, path], folder, timeout=3600)
    except _measure.Failed as error:
        return {**size, "note": f"failed: {error}"}
    facts = json.loads(found.stdout)
    total = facts["fuse"] + facts["domains"]
    return {
        **size,
        "fuse, s": facts["fuse"],
        "domains, s": facts["domains"],
        "total, s": total,
        "peak MB": found.peak_mb,
        "ARI": facts["ari"],
    }


def _growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponent b of seconds ~ n^b between the smallest and the largest section of equal genes."""
    found = []
    for genes in sorted({r["genes"] for r in rows}, reverse=True):
        mine = [r for r in rows if r["genes"] == genes and "total, s" in r]
        if len(mine) > 1:
            few, many = (int(mine[i]["cells"].replace(",", "")) for i in (0, -1))
            exponent = math.log(mine[-1]["total, s"] / mine[0]["total, s"]) / math.log(many / few)
            found.append(
                {
                    "cells": f"growth {few:,} to {many:,}",
                    "genes": genes,
                    "note": f"seconds ~ n^{exponent:.2f}",
                }
            )
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--simulate", type=int, nargs=2, metavar=("CELLS", "GENES"))
    options = parser.parse_args(argv)
    if options.simulate:
        simulate(*options.simulate, options.path)
    else:
        json.dump(fuse_and_divide(options.path), sys.stdout)


if __name__ == "__main__":
    main()
