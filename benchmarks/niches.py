"""Niches and niche states on simulated sections, and whether the tests hold what they promise.

*States*: cells of a type that is at home in all niches and has one expression; truth is the niche. Beside it KMeans on
that type's expression, and KMeans on the shares of types among the 30 nearest. *Nulls*: types follow smooth fields of
their own, of a given length and strength, independent of each other (or lie at random): every split is false. Genes of
one type follow smooth fields that have nothing to do with niches; some are planted. *Groups of sections*: proportions
drawn with scatter between sections, with and without a change.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
SETTINGS: dict[str, dict[str, Any]] = {
    "contrast .7 (default)": {},
    "contrast .5": {"contrast": 0.5},
    "contrast .9": {"contrast": 0.9},
    "5 niches, 15 types": {"n_niches": 5, "n_cell_types": 15},
    "wide patches": {"field_um": 200.0},
}
#: (length of the fields in um, their standard deviation in natural logarithms of the odds)
NULLS = {"at random": (120.0, 0.0), "60 um": (60.0, 1.0), "120 um": (120.0, 1.0), "250 um": (250.0, 1.0)}
NULLS |= {"120 um, strong": (120.0, 2.0)}


def _ari(a: Any, b: Any) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(a, b))


def _kmeans(x: Float, k: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(k, n_init=10, random_state=0).fit_predict(x))


def one_state_row(name: str, seed: int, n_obs: int = 4000) -> dict[str, Any]:
    """ARI of the states of T1 (and of all cells' niches) with the truth, of niches and of simple ways."""
    from scipy.spatial import cKDTree

    import smeld as sm
    from smeld.kernels import expression

    warnings.simplefilter("ignore")
    cells = sm.datasets.simulate_niches(n_obs, 300, seed=seed, **SETTINGS[name])
    truth, kind = cells.obs["truth_niche"], cells.obs["truth_cell_type"]
    own, k = (kind == "T1").to_numpy(), truth.nunique()
    logged = expression.log_normalise(cells.X)
    nearest = cKDTree(cells.obsm["spatial_um"]).query(cells.obsm["spatial_um"], k=31)[1][:, 1:]
    around = np.eye(len(kind.cat.categories))[kind.cat.codes.to_numpy()][nearest].mean(axis=1)
    row = {
        "setting": name,
        "seed": seed,
        "expression": _ari(truth[own], _kmeans(expression.pca(logged[own], 20, seed=0)[0], k)),
        "KMeans of shares": _ari(truth[own], _kmeans(around, k)[own]),
    }
    found = sm.tl.niches(cells, "truth_cell_type", n_niches=k)
    states = sm.tl.niche_states(cells, genes=False)
    confidence = cells.obs["niche_confidence"].to_numpy()
    matched = sum(truth[(cells.obs["niche"] == n).to_numpy()].value_counts().max() for n in found.composition.index)
    row["states"] = _ari(cells.obs["truth_state"][own], cells.obs["niche_state"][own])
    row["niches"] = _ari(truth, cells.obs["niche"])
    row |= {"confidence": float(confidence.mean()), "right": float(matched / len(cells))}
    row["T1 split"] = bool(states.table.set_index("cell_type").loc["T1", "split"])
    row["number chosen"] = sm.tl.niches(cells, "truth_cell_type").n_niches
    return row


def null_cells(seed: int, length_um: float, sd: float, *, n_obs: int = 3000, n_types: int = 8) -> Any:
    """Cells whose types follow smooth fields of their own; T1 has 30 % of the cells. Two genes, which say nothing."""
    import anndata as ad
    import pandas as pd

    from smeld.kernels.fields import Bounds, gaussian_field

    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.sqrt(n_obs / 2.5e-3), (n_obs, 2))
    logit = np.tile(np.log([0.3, *np.full(n_types - 1, 0.7 / (n_types - 1))]), (n_obs, 1))
    if sd > 0:
        bounds = Bounds.around(xy)
        for u in range(n_types):
            logit[:, u] += sd * gaussian_field(bounds, length_um, np.random.default_rng([seed, u])).at(xy)
    kind = (logit + rng.gumbel(size=logit.shape)).argmax(axis=1)
    obs = pd.DataFrame(
        {"cell_type": pd.Categorical([f"T{t + 1}" for t in kind])}, index=[f"c{i}" for i in range(n_obs)]
    )
    adata = ad.AnnData(np.ones((n_obs, 2), dtype=np.float32), obs=obs)
    adata.obsm["spatial_um"] = xy
    return adata


def null_pvalues(name: str, seed: int, n_niches: int = 3) -> list[float]:
    """p of every type that lies in several niches, where types have nothing to do with one another."""
    import smeld as sm

    warnings.simplefilter("ignore")
    adata = null_cells(seed, *NULLS[name])
    sm.tl.niches(adata, n_niches=n_niches)
    table = sm.tl.niche_states(adata, genes=False).table
    return [float(p) for p in table["pvalue"] if np.isfinite(p)]


def null_row(name: str, runs: int, first: int = 0) -> dict[str, Any]:
    """Share of types called at .05 and .01, and of sections with any type split at a false discovery rate of .05."""
    from scipy import stats

    each = [null_pvalues(name, seed) for seed in range(first, first + runs)]
    p = np.concatenate(each)
    split = [bool(len(e)) and bool((stats.false_discovery_control(e) <= 0.05).any()) for e in each]
    row = {"fields": name, "sections": runs, "types tested": len(p), "at .05": float((p < 0.05).mean())}
    return {**row, "at .01": float((p < 0.01).mean()), "sections with a split": float(np.mean(split))}


def gene_row(seed: int, length_um: float = 120.0, sd: float = 0.5, fold: float = 2.0) -> dict[str, Any]:
    """Genes of T1 beside its niches: 100 follow fields of their own, 100 nothing, 20 are ``fold`` higher in a niche."""
    from scipy import sparse

    import smeld as sm
    from smeld.kernels.fields import Bounds, gaussian_field

    warnings.simplefilter("ignore")
    cells = sm.datasets.simulate_niches(4000, 220, seed=seed, dispersion=0.0)
    rng, xy = np.random.default_rng([seed, 1]), cells.obsm["spatial_um"]
    rate = np.full(cells.shape, 1.0) * cells.obs["truth_size_factor"].to_numpy()[:, None]
    bounds = Bounds.around(xy)
    for g in range(100):
        rate[:, g] *= np.exp(sd * gaussian_field(bounds, length_um, np.random.default_rng([seed, 2, g])).at(xy))
    niche = cells.obs["truth_niche"].cat.codes.to_numpy()
    for g in range(200, 220):
        rate[:, g] *= np.where(niche == g % 3, fold, 1.0)
    cells.X = sparse.csr_matrix(rng.poisson(rate).astype(np.float32))
    sm.tl.niches(cells, "truth_cell_type", n_niches=3)
    table = sm.tl.niche_states(cells, n_genes=cells.n_vars).genes
    table = table[table["cell_type"] == "T1"]
    number = cells.var_names.get_indexer(table["gene"])
    smooth, plain, planted = number < 100, (number >= 100) & (number < 200), number >= 200
    found = table["qvalue"].to_numpy() <= 0.05
    row = {"seed": seed, "smooth at .05": float((table["pvalue"][smooth] < 0.05).mean())}
    row["plain at .05"] = float((table["pvalue"][plain] < 0.05).mean())
    row["planted found"] = float(np.isin(np.arange(200, 220), number[planted & found]).mean())
    return {**row, "false of found": float((found & ~planted).sum() / max(found.sum(), 1))}


def group_row(sections: int, change: float, scatter: float, runs: int, *, test: str = "welch") -> dict[str, Any]:
    """Share of parts called at .05: 8 types, of which the first grows ``change``-fold, over ``runs`` comparisons."""
    from smeld.kernels import niches

    called, others = [], []
    for seed in range(runs):
        rng = np.random.default_rng([seed, sections])
        second = np.arange(2 * sections) >= sections
        logit = np.log(rng.dirichlet(np.full(8, 5.0))) + scatter * rng.standard_normal((2 * sections, 8))
        logit[:, 0] += np.log(change) * second
        share = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
        number = np.stack([rng.multinomial(5000, p) for p in share]).astype(float)
        found = niches.compared(niches.log_ratios(number), second, permute=test == "permutation", seed=seed)
        called.append(found.pvalue[0] < 0.05)
        others.append((found.pvalue[1:] < 0.05).mean())
    row = {"sections a group": sections, "scatter": scatter, "fold": change, "test": test, "runs": runs}
    return {**row, "changed type called": float(np.mean(called)), "others called": float(np.mean(others))}


def speed_row(n_obs: int = 100_000, n_types: int = 20) -> dict[str, Any]:
    """Seconds for a section of many cells, the number of niches given, and chosen."""
    import smeld as sm

    warnings.simplefilter("ignore")
    cells = sm.datasets.simulate_niches(n_obs, 300, n_niches=5, n_cell_types=n_types, seed=0)
    row: dict[str, Any] = {"cells": n_obs, "types": n_types}
    steps = {
        "niches, 5": lambda: sm.tl.niches(cells, "truth_cell_type", n_niches=5),
        "states": lambda: sm.tl.niche_states(cells, genes=False),
        "states with genes": lambda: sm.tl.niche_states(cells),
        "niches, chosen": lambda: sm.tl.niches(cells, "truth_cell_type"),
    }
    for name, step in steps.items():
        wall, processor = time.perf_counter(), time.process_time()
        step()
        row[name] = time.perf_counter() - wall
        row[f"{name} (processor)"] = time.process_time() - processor
    return row


def measure(*, seeds: int = 20, slow: bool = False) -> dict[str, list[dict[str, Any]]]:
    """All tables."""
    tables = {
        "niche_states": [one_state_row(name, seed) for name in SETTINGS for seed in range(min(seeds, 5))],
        "niche_nulls": [null_row(name, seeds) for name in NULLS],
        "niche_genes": [gene_row(seed) for seed in range(min(seeds, 5))],
        "niche_groups": [
            group_row(n, change, 0.3, 50 * seeds, test=test)
            for n in (3, 5, 8)
            for change in (1.0, 2.0)
            for test in ("welch", "permutation")
            if test == "welch" or n == 5
        ],
    }
    return tables | ({"niche_speed": [speed_row()]} if slow else {})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow", action="store_true", help="also 100,000 cells")
    options = parser.parse_args(argv)
    json.dump(measure(seeds=options.seeds, slow=options.slow), sys.stdout)


if __name__ == "__main__":
    main()
