"""Denoised expression from the graph VAE: held-out half of the counts beside ``"sme"`` and scVI; cover of intervals.

Every method gets the same binomial half of the counts and predicts the other at the spots' own library sizes there.
Its profile is mixed with .01 of the section's mean, so that no zero decides. Scores: log likelihood per held-out count
under Poisson counts, and under negative-binomial counts whose dispersion by gene is fitted, for each method, to the
half that it was given. Cover: of the simulator's rates, both those that each count was drawn from (given mean and
count, they are gamma: one is drawn) and their means, by the 90 % intervals of smeld.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _measure
import numpy as np
from _datasets import SECTIONS, write_npz
from numpy.typing import NDArray
from peers import _envs
from scipy import sparse, special

F64 = NDArray[np.float64]
WHOLE, N_GENES, MOST_SEEDS = ("dlpfc_151673", "dlpfc_151674"), 2000, 3
SIMULATED, COVERED, MIX = (0, 1), (0, 1, 2, 3, 4), 0.01
SHAPE = {"n_obs": 800, "n_genes": 300, "image": False}
METHODS, PEER, LIMIT_S = ("sme", "vae"), "scVI", 3600
#: dispersions that are tried for every gene
TRIED = np.concatenate([[1e-6], np.geomspace(1e-3, 10, 25)])


def variable(adata: Any) -> Any:
    """The genes whose log-normalised values vary most."""
    from smeld.kernels.expression import log_normalise

    logged = sparse.csr_matrix(log_normalise(sparse.csr_matrix(adata.X, dtype=np.float64)))
    variance = np.asarray(logged.multiply(logged).mean(axis=0) - np.square(logged.mean(axis=0))).ravel()
    return adata[:, np.sort(np.argsort(-variance, kind="stable")[:N_GENES])].copy()


def smeld(method: str, half: Any, seed: int) -> tuple[F64, dict[str, Any]]:
    """Profiles of ``sm.tl.denoise``, everything made of this half."""
    import smeld as sm

    adata = half.copy()
    found = sm.tl.denoise(adata, method=method, seed=seed)
    facts = adata.uns["smeld"][found.key]["params"]
    return adata.layers[found.key].astype(np.float64), {k: facts[k] for k in ("blend", "epochs") if k in facts}


def scvi(half: Any, seed: int) -> tuple[F64 | None, dict[str, Any]]:
    """Profiles of scVI, in its own environment; or why there are none."""
    env = _envs.ready("scvi")
    if env.python is None:
        return None, {"note": f"not measured: {env.reason}"}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "half.npz", Path(folder) / "share.npz"
        write_npz(half, source)
        command = [str(env.python), str(_measure.HERE / "peers" / "peer_scvi.py"), str(source), str(out), str(seed)]
        try:
            _measure.run(command, Path(folder), threads=1, timeout=LIMIT_S)
        except _measure.Failed as error:
            return None, {"note": f"failed: {error}"}
        found = np.load(out)
        return found["share"].astype(np.float64), {"note": f"scvi-tools {found['version']}"}


def log_likelihood(x: F64, mean: F64, dispersion: F64 | float) -> F64:
    """Summed over spots; variance = mean + dispersion mean^2."""
    k = 1 / np.asarray(dispersion)
    found = special.gammaln(x + k) - special.gammaln(k) - special.gammaln(x + 1)
    return (found - (x + k) * np.log1p(mean / k) + x * np.log(mean / k)).sum(axis=0)


def scores(profile: F64, train: F64, rest: F64) -> dict[str, float]:
    """Log likelihood per held-out count: negative binomial with dispersions fitted to ``train``, and Poisson."""
    mean = (train.sum(axis=0) + 0.5) / (train.sum() + 0.5 * train.shape[1])
    share = (1 - MIX) * profile / np.maximum(profile.sum(axis=1, keepdims=True), 1e-12) + MIX * mean
    before, after = share * train.sum(axis=1, keepdims=True), share * rest.sum(axis=1, keepdims=True)
    seen = np.stack([log_likelihood(train, before, d) for d in TRIED])
    fitted = TRIED[seen.argmax(axis=0)]
    total = rest.sum()
    poisson = special.xlogy(rest, after) - after - special.gammaln(rest + 1)
    return {
        "NB log likelihood": float(log_likelihood(rest, after, fitted).sum() / total),
        "Poisson log likelihood": float(poisson.sum() / total),
    }


def held_out(adata: Any, name: str, seed: int) -> list[dict[str, Any]]:
    """A row for each method, on one split."""
    from smeld.kernels import split

    counts = sparse.csr_matrix(adata.X, dtype=np.float64)
    train, rest = split.thin(counts, 0.5, np.zeros(counts.shape[1]), np.random.default_rng(seed))
    seen = (np.asarray(train.sum(axis=1)).ravel() > 0) & (np.asarray(rest.sum(axis=1)).ravel() > 0)
    half = adata[seen].copy()
    half.X = sparse.csr_matrix(train[seen], dtype=np.float32)
    one, other = train[seen].toarray(), rest[seen].toarray()
    runs: dict[str, Callable[[], tuple[F64 | None, dict[str, Any]]]] = {
        "section mean": lambda: (np.ones((len(one), 1)) * one.sum(axis=0), {}),
        **{f"sm.tl.denoise, {m}": lambda m=m: smeld(m, half, seed) for m in METHODS},
        PEER: lambda: scvi(half, seed),
    }
    rows = []
    for method, run in runs.items():
        started = time.perf_counter()
        profile, facts = run()
        row: dict[str, Any] = {"section": name, "method": method, "seed": seed}
        row |= scores(profile, one, other) if profile is not None else {}
        rows.append({**row, "seconds": time.perf_counter() - started, **facts})
    return rows


def truth(**options: Any) -> tuple[Any, F64, F64]:
    """(simulated section, mean of every count, dispersion by gene), from what the simulator gives its sampler."""
    import smeld as sm
    from smeld.datasets import _expression

    draw, means, dispersion = _expression.negative_binomial_rows, [], []

    def watched(rng: Any, **given: Any) -> Any:
        column, covariates = given["column"], given["covariates"]
        follow = np.where(column >= 0, covariates[:, np.maximum(column, 0)], 0.0) if covariates.shape[1] else 0.0
        fold = given["group_mean"][given["group"]] * (given["shares"] @ given["share_fold"])
        means.append(given["size"][:, None] * fold * np.exp(given["load"] * follow))
        dispersion.append(given["dispersion"])
        return draw(rng, **given)

    _expression.negative_binomial_rows = watched
    try:
        adata = sm.datasets.simulate(**options, n_jobs=1)
    finally:
        _expression.negative_binomial_rows = draw
    return adata, np.vstack(means), dispersion[0]


def cover(seed: int) -> list[dict[str, Any]]:
    """Share of true rates in their 90 % intervals."""
    import smeld as sm

    adata, mean, dispersion = truth(**SHAPE, seed=seed)
    x, shape = adata.X.toarray(), 1 / np.maximum(dispersion, 1e-9)
    rate = np.random.default_rng(seed).gamma(shape + x, mean / (shape + mean))
    rows = []
    for method in METHODS:
        sm.tl.denoise(adata, method=method, interval=0.9, seed=seed)
        low, high = adata.layers[f"{method}_low"], adata.layers[f"{method}_high"]
        inside = {name: (low <= t) & (t <= high) for name, t in (("rates", rate), ("means", mean))}
        few = mean.mean(axis=0) < np.median(mean.mean(axis=0))
        row = {"seed": seed, "method": method, **{f"cover of {n}": float(v.mean()) for n, v in inside.items()}}
        row |= {"of rare genes' rates": float(inside["rates"][:, few].mean()), "below": float((rate < low).mean())}
        rows.append({**row, "above": float((rate > high).mean()), "mean width": float((high - low).mean())})
    return rows


def _means(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Of all numbers, by ``keys``, with the number of runs."""
    import pandas as pd

    out = []
    for key, part in pd.DataFrame(rows).groupby(list(keys), sort=False):
        figures = part.drop(columns=["seed", *keys]).mean(numeric_only=True).dropna().to_dict()
        notes = {"note": part["note"].dropna().iloc[0]} if "note" in part and part["note"].notna().any() else {}
        out.append({**dict(zip(keys, key)), "runs": len(part), **figures, **notes})
    return out


def measure(*, seeds: int = MOST_SEEDS) -> dict[str, list[dict[str, Any]]]:
    """Held-out log likelihood by section and method, and cover by method and seed."""
    import smeld as sm

    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for name in WHOLE:
        if SECTIONS[name].absent:
            continue
        adata = variable(SECTIONS[name].read())
        for seed in range(min(seeds, MOST_SEEDS)):
            rows += held_out(adata, name, seed)
    for seed in SIMULATED[:seeds]:
        rows += held_out(sm.datasets.simulate(**SHAPE, seed=seed), "simulated", seed)
    covered = [row for seed in COVERED for row in cover(seed)]
    return {"denoise_vae": _means(rows, ("section", "method")), "denoise_cover": covered}


if __name__ == "__main__":
    print(json.dumps(measure(seeds=1), indent=1))
