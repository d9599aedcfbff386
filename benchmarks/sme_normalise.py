"""stLearn's SME normalisation beside ``sm.fuse``: the same simulated section, this machine, one thread each.

stLearn gets random features where those of its CNN would be: its ResNet weights are a download, and the time of the
normalisation does not depend on their values. Neither side's time holds image work or reading. ``sm.fuse`` computes
its own components; stLearn's normalisation reads those of its ``run_pca``, whose time is given apart.
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
from _datasets import write_npz
from peers import _envs

N_OBS, GENES, REPEATS = 4000, (2000, 8000), 3


def _fuse(path: Path, n_genes: int) -> dict[str, Any]:
    """Seconds of ``sm.fuse`` with the image's features; the first run compiles and is told apart."""
    import smeld as sm

    warnings.simplefilter("ignore")
    whole = sm.datasets.simulate(N_OBS, n_genes)
    write_npz(whole, path)
    sm.morph.embed(whole, quiet=True)
    seconds = []
    for _ in range(REPEATS + 1):
        adata = whole.copy()
        started = time.perf_counter()
        sm.fuse(adata)
        seconds.append(time.perf_counter() - started)
    return {"first": seconds[0], "seconds": sorted(seconds[1:])[REPEATS // 2]}


def measure() -> list[dict[str, Any]]:
    """Both in turn at each number of genes; each in a process of its own."""
    rows = []
    for n_genes in GENES:
        with tempfile.TemporaryDirectory() as folder:
            rows += _both(n_genes, Path(folder))
    return rows


def _both(n_genes: int, folder: Path) -> list[dict[str, Any]]:
    path = folder / "section.npz"
    ours, run = _measure.run_json("sme_normalise.py", [str(path), str(n_genes)], folder, threads=1)
    size = {"spots": N_OBS, "genes": n_genes}
    fused = {"method": "sm.fuse", **size, **ours, "of which PCA": None, "peak MB": run.peak_mb, "times sm.fuse": 1.0}
    try:
        theirs, peak_mb = _stlearn(path)
    except _measure.Failed as error:
        return [fused, {"method": "stLearn", **size, "note": f"not measured: {error}"}]
    name = f"stLearn {theirs.pop('version')} "
    pca = theirs.pop("pca")
    alone = {"method": name + "sme_normalize", **size, **theirs, "peak MB": peak_mb}
    both = {
        "method": name + "run_pca + sme_normalize",
        **size,
        "first": theirs["first"] + pca,
        "seconds": theirs["seconds"] + pca,
        "of which PCA": pca,
        "peak MB": peak_mb,
    }
    return [fused, *({**row, "times sm.fuse": row["seconds"] / ours["seconds"]} for row in (alone, both))]


def _stlearn(path: Path) -> tuple[dict[str, Any], float]:
    env = _envs.ready("stlearn")
    if env.python is None:
        raise _measure.Failed(env.reason)
    out = path.with_name("out.json")
    script = str(_measure.HERE / "peers" / "peer_stlearn_sme.py")
    command = [str(env.python), script, str(path), str(out), str(REPEATS)]
    run = _measure.run(command, path.parent, threads=1, timeout=1800)
    return json.loads(out.read_text()), run.peak_mb


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("n_genes", type=int)
    options = parser.parse_args(argv)
    json.dump(_fuse(options.path, options.n_genes), sys.stdout)


if __name__ == "__main__":
    main()
