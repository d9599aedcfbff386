"""stLearn's SME normalisation beside ``sm.tl.denoise``: the same simulated section, this machine, one thread each.

stLearn gets random features where those of its CNN would be: its ResNet weights are a download, and the time of the
normalisation does not depend on their values. Neither side's time holds image work or reading. Denoising starts from a
fused section as stLearn's normalisation starts from the components of its ``run_pca``; both are also given with the
step before them.
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


def _ours(path: Path, n_genes: int) -> list[dict[str, Any]]:
    """Seconds of denoising with the image's features, alone and with fusion; the first run, which compiles, apart."""
    import smeld as sm

    warnings.simplefilter("ignore")
    whole = sm.datasets.simulate(N_OBS, n_genes)
    write_npz(whole, path)
    sm.morph.embed(whole, quiet=True)
    seconds: dict[str, list[float]] = {}
    for _ in range(REPEATS + 1):
        for evidence in (False, True):
            adata = whole.copy()
            started = time.perf_counter()
            sm.fuse(adata, evidence=evidence)
            fused = time.perf_counter()
            sm.tl.denoise(adata)
            done = time.perf_counter()
            asked = "sm.fuse" if evidence else "sm.fuse(evidence=False)"
            seconds.setdefault(f"{asked} + sm.tl.denoise", []).append(done - started)
            if evidence:
                seconds.setdefault("sm.tl.denoise", []).append(done - fused)
    return [{"method": m, "first": s[0], "seconds": sorted(s[1:])[REPEATS // 2]} for m, s in seconds.items()]


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
    denoising = next(row["seconds"] for row in ours if row["method"] == "sm.tl.denoise")
    rows = [{**row, "peak MB": run.peak_mb} for row in ours]
    try:
        theirs, peak_mb = _stlearn(path)
    except _measure.Failed as error:
        return [{**size, **row} for row in rows] + [{"method": "stLearn", **size, "note": f"not measured: {error}"}]
    name, pca = f"stLearn {theirs.pop('version')} ", theirs.pop("pca")
    rows += [
        {"method": name + "sme_normalize", **theirs, "peak MB": peak_mb},
        {
            "method": name + "run_pca + sme_normalize",
            "first": theirs["first"] + pca,
            "seconds": theirs["seconds"] + pca,
            "peak MB": peak_mb,
        },
    ]
    return [{"method": row["method"], **size, **row, "times sm.tl.denoise": row["seconds"] / denoising} for row in rows]


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
    json.dump(_ours(options.path, options.n_genes), sys.stdout)


if __name__ == "__main__":
    main()
