"""``statistic="matched"`` beside stLearn's ligand-receptor test: the same values, pairs and neighbours, one machine.

Both get log-normalised values and two threads, one after the other. stLearn takes seconds a pair, so it is run over a
few pairs, and a pair of it costs the median time between the starts of two pairs, without what it prepares for all.
smeld's seconds a pair are those of a run of many pairs, all that it prepares included. Both compile before the clock
starts, and of repeated runs the fastest counts. stLearn draws 1,000 null pairs of two sets of 63 genes; smeld counts
all pairs of these sets.
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
import numpy as np
from _datasets import SECTIONS, write_npz
from peers import _envs
from scipy import sparse

N_OBS, N_GENES, N_NULL, THREADS, REPEATS = 4096, 15000, 1000, 2, 5
#: pairs given to both, and pairs of smeld's run of many
COMPARED, MANY = 12, 300
#: partners and other genes are seen in so many spots
MIN_SPOTS = 20
DATA = ("simulated", "dlpfc_151673")
#: neighbours of a lattice lie within this many of its spacings
REACH = 1.3


def _section(name: str) -> tuple[Any, np.ndarray]:
    """AnnData of log-normalised values, genes seen in few spots left out, and pairs of its columns, rare ones first."""
    import smeld as sm
    from smeld.kernels import expression

    if name == "simulated":
        adata = sm.datasets.simulate(N_OBS, N_GENES, image=False)
        pairs = np.random.default_rng(0).permutation(N_GENES)[: 2 * MANY].reshape(MANY, 2)
        wanted = [tuple(adata.var_names[p]) for p in pairs]
    else:
        adata = SECTIONS[name].read()
        table = sm.lr.pairs()
        wanted = list(zip(table["ligand"], table["receptor"]))
    adata.var_names_make_unique()
    adata.X = sparse.csr_matrix(expression.log_normalise(adata.X), dtype=np.float32)
    adata = adata[:, np.diff(adata.X.tocsc().indptr) >= MIN_SPOTS].copy()
    column = {gene: i for i, gene in enumerate(adata.var_names)}
    pairs = np.array([(column[a], column[b]) for a, b in wanted if a in column and b in column and a != b])
    seen = np.diff(adata.X.tocsc().indptr)[pairs].min(axis=1)
    adata.var_names = [f"g{i}" for i in range(adata.n_vars)]  # stLearn allows no "_" in names
    return adata, pairs[np.argsort(seen, kind="stable")][-MANY:]


def _ours(name: str, folder: Path) -> dict[str, Any]:
    """Scores, p and seconds; leaves in ``folder`` what stLearn is to read."""
    from smeld.tl import _lr_inputs

    warnings.simplefilter("ignore")
    adata, many = _section(name)
    few = many[np.linspace(0, len(many) - 1, COMPARED).round().astype(int)]
    few = np.random.default_rng(0).permutation(few)
    xy = np.asarray(adata.obsm["spatial_um"], dtype=float)
    weights = _lr_inputs.averages(xy, None, False)
    write_npz(adata, folder / "section.npz")
    asked = {"pairs": [[f"g{a}", f"g{b}"] for a, b in few], "distance_um": REACH * _pitch(xy)}
    (folder / "asked.json").write_text(json.dumps({**asked, "n_null": N_NULL, "threads": THREADS}))
    values = sparse.csc_matrix(adata.X)
    seconds = {n: _fastest(*_given(values, pairs), weights) for n, pairs in (("few", few), ("many", many))}
    score, pvalue = _spots(*_given(values, few), weights)
    np.savez(folder / "ours.npz", score=score, pvalue=pvalue)
    return {"spots": adata.n_obs, "genes": adata.n_vars, "n_many": len(many), **seconds}


def _pitch(xy: np.ndarray) -> float:
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(xy).query(xy, k=2)[0][:, 1]))


def _given(values: sparse.csc_matrix, pairs: np.ndarray) -> tuple[sparse.csc_matrix, np.ndarray, sparse.csc_matrix]:
    """Partners, pairs of their columns, and the genes in none of these pairs."""
    used, at = np.unique(pairs, return_inverse=True)
    return values[:, used], at.reshape(pairs.shape), values[:, np.setdiff1d(np.arange(values.shape[1]), used)]


def _fastest(genes: Any, pairs: np.ndarray, background: Any, weights: Any) -> float:
    """Seconds of the whole statistic; the first run compiles."""
    from smeld.lr import lr_stats

    seconds = []
    for _ in range(REPEATS + 1):
        started = time.perf_counter()
        lr_stats["matched"](genes, pairs, weights, None, background=background)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _spots(genes: Any, pairs: np.ndarray, background: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scores and p before adjustment, [n_pairs, n_obs]."""
    from smeld.kernels import matched

    sets = matched.like(genes, background, n_null=N_NULL)
    number = matched.null_pairs(sets, pairs)
    found = list(matched.blocks(sets, pairs, weights, matched.no_sums(sets, pairs)))
    return np.hstack([b.score for b in found]), np.hstack([matched.spot_pvalues(b, number) for b in found])


def measure() -> dict[str, list[dict[str, Any]]]:
    """A row a section; each side in a process of its own, one after the other."""
    rows = []
    for name in DATA:
        if name in SECTIONS and SECTIONS[name].absent:
            rows.append({"data": name, "note": "the section is not here"})
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows.append(_row(name, Path(folder)))
    return {"matched": rows}


def _row(name: str, folder: Path) -> dict[str, Any]:
    ours, run = _measure.run_json("matched.py", [name, str(folder)], folder, threads=THREADS, timeout=1800)
    a_pair = ours["many"] / ours["n_many"]
    row = {"data": name, "spots": ours["spots"], "genes": ours["genes"], "pairs": COMPARED, "smeld s a pair": a_pair}
    try:
        theirs, peak_mb = _stlearn(folder)
    except _measure.Failed as error:
        return {**row, "note": f"stLearn not measured: {error}"}
    whole = float(theirs["seconds"])
    return {
        **row,
        f"stLearn {theirs['version']} s a pair": float(theirs["seconds_a_pair"]),
        "times": float(theirs["seconds_a_pair"]) / a_pair,
        "smeld s these pairs": ours["few"],
        "stLearn s these pairs": whole,
        "times, these pairs": whole / ours["few"],
        **_agreement(np.load(folder / "ours.npz"), theirs),
        "peak MB": run.peak_mb,
        "stLearn peak MB": peak_mb,
    }


def _agreement(ours: Any, theirs: Any) -> dict[str, Any]:
    """Scores in all spots; p before adjustment, in the spots where the score is above 0, all pairs together."""
    score, pvalue = ours["score"][theirs["pairs"]].T, ours["pvalue"][theirs["pairs"]].T
    at = theirs["score"] > 0
    p, q = pvalue[at], theirs["pvalue"][at]
    each = [np.corrcoef(pvalue[k, i], theirs["pvalue"][k, i])[0, 1] for i, k in enumerate(at.T)]
    return {
        "pairs that stLearn tests": len(theirs["pairs"]),
        "score: largest difference": float(np.abs(score - theirs["score"]).max()),
        "p compared": int(at.sum()),
        "p: correlation": float(np.corrcoef(p, q)[0, 1]),
        "p: correlation, worst pair": float(np.min(each)),
        "p < .05 in both, of either": float(((p < 0.05) & (q < 0.05)).sum() / max(((p < 0.05) | (q < 0.05)).sum(), 1)),
    }


def _stlearn(folder: Path) -> tuple[Any, float]:
    env = _envs.ready("stlearn")
    if env.python is None:
        raise _measure.Failed(env.reason)
    script = str(_measure.HERE / "peers" / "peer_stlearn_lr.py")
    files = [str(folder / name) for name in ("section.npz", "asked.json", "theirs.npz")]
    run = _measure.run([str(env.python), script, *files], folder, threads=THREADS, timeout=1800)
    return np.load(folder / "theirs.npz"), run.peak_mb


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=DATA)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(argv)
    json.dump(_ours(options.name, options.folder), sys.stdout)


if __name__ == "__main__":
    main()
