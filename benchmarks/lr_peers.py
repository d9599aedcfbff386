"""LIANA+'s bivariate statistics beside ``sm.tl.interactions``: the same section, the same pairs, the same threads.

A time holds the weights of neighbours and the statistic; ours holds the normalisation too, LIANA+ is given logs of the
same library size. Both have run once before they are timed; ``first`` is that run of ours, in which numba compiles or
loads what it has compiled before.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import _measure
from _datasets import SECTIONS, write_npz
from peers import _envs

SECTION, N_PERMS, REPEATS = "dlpfc_151673", 100, 3
#: our calls that are timed, by the name of the row; "bar" is what LIANA+ is held against
OURS: dict[str, dict[str, Any]] = {
    "spatial, decoys=False": {"decoys": False},
    "spatial": {},
    "spatial, adjust=(), local='none', decoys=False": {"adjust": (), "local": "none", "decoys": False},
    "moran": {"statistic": "moran"},
    "cosine": {"statistic": "cosine"},
}
BAR = "spatial, decoys=False"


def _ours(folder: Path) -> list[dict[str, Any]]:
    """Seconds of each call on the pairs that have enough spots here; the section and the pairs written for peers."""
    import smeld as sm

    warnings.simplefilter("ignore")
    adata = SECTIONS[SECTION].read()
    write_npz(adata, folder / "section.npz")
    started = time.perf_counter()
    sm.tl.interactions(adata)
    cold = time.perf_counter() - started
    pairs = adata.uns["interactions"][["ligand", "receptor"]].sort_values(["ligand", "receptor"])
    for_peers = pairs.apply(lambda column: column.str.replace("+", "_", regex=False))
    for_peers.to_csv(folder / "pairs.csv", index=False)
    rows = []
    for name, options in OURS.items():
        runs = []
        for _ in range(REPEATS):
            copy = adata.copy()
            started, worked = time.perf_counter(), time.process_time()
            found = sm.tl.interactions(copy, pairs, **options)
            runs.append((time.perf_counter() - started, time.process_time() - worked))
        seconds, cpu = sorted(runs)[REPEATS // 2]
        figures = {"pairs": len(found.table), "seconds": seconds, "cpu seconds": cpu}
        rows.append({"tool": "smeld", "statistic": name, **figures})
    rows[0]["first"] = cold
    return rows


def measure(*, threads: int = 1) -> dict[str, list[dict[str, Any]]]:
    """Both in turn, each in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, run = _measure.run_json("lr_peers.py", [name], folder, threads=threads, timeout=1800)
        rows = [{**row, "peak MB": run.peak_mb} for row in ours]
        bar = next(row for row in ours if row["statistic"] == BAR)
        try:
            rows += _liana(folder, threads)
        except _measure.Failed as error:
            rows.append({"tool": "LIANA+", "note": f"not measured: {error}"})
    return {"lr_peers": [{"section": SECTION, "threads": threads, **_per_pair(row, bar)} for row in rows]}


def _per_pair(row: dict[str, Any], bar: dict[str, Any]) -> dict[str, Any]:
    """With the seconds per pair, and how many times those of ``spatial`` they are (of the processor's time too, which
    other work on this machine sways less)."""
    if "seconds" not in row:
        return row
    each = row["seconds"] / row["pairs"]
    share = row["pairs"] / bar["pairs"]
    ratios = {
        name: row[column] / bar[column] / share for name, column in (("ratio", "seconds"), ("cpu ratio", "cpu seconds"))
    }
    return {**row, "seconds per pair": each, **ratios}


def _liana(folder: Path, threads: int) -> list[dict[str, Any]]:
    env = _envs.ready("liana")
    if env.python is None:
        raise _measure.Failed(env.reason)
    out = folder / "out.json"
    script = str(_measure.HERE / "peers" / "peer_liana.py")
    given = [str(folder / "section.npz"), str(folder / "pairs.csv"), str(out), str(N_PERMS), str(REPEATS)]
    run = _measure.run([str(env.python), script, *given], folder, threads=threads, timeout=7200)
    found = json.loads(out.read_text())
    tool = f"LIANA+ {found['version']}"
    return [{"tool": tool, **row, "peak MB": run.peak_mb} for row in found["rows"]]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    json.dump(_ours(parser.parse_args(argv).folder), sys.stdout)


if __name__ == "__main__":
    main()
