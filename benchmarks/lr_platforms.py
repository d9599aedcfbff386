"""Do two platforms agree on the pairs of one tissue? The same breast cancer block in Visium and in Xenium, one frame.

Every couple of genes is counted once (A-B and B-A are nearly one test). What agreement is worth is said by three nulls:
pairs shuffled; partners exchanged (each ligand with all receptors of the table); and maps of other pairs, or mirrored.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import _registration
import numpy as np
import pandas as pd
from _datasets import FOLDER
from scipy import sparse, stats
from scipy.spatial import cKDTree

VISIUM, XENIUM = (f"breast_visium_xenium_pair/{name}.h5ad" for name in ("visium_eevee", "xenium_pikachu"))
#: centres of Visium spots lie 100 um apart, and 16.9675 units in these files (median); spots measure 55 um
UM_PER_UNIT, SPOT_UM = 100 / 16.9675, 55.0
FDR, N_SHUFFLED, N_RANDOM = 0.05, 10_000, 300
#: z-scores whose signs are compared
CLEAR = 2
#: how Visium, and how Xenium, is tested
VISIUM_RUNS: dict[str, dict[str, Any]] = {"neighbours": {}, "neighbours and spot": {"within_spot": True}}
XENIUM_RUNS: dict[str, dict[str, Any]] = {
    "10 nearest cells": {},
    "cells within 50 um": {"radius_um": 50.0},
    "cells within 100 um": {"radius_um": 100.0},
}


@dataclass(frozen=True)
class Tested:
    """``table`` by pair; ``maps`` the scores of significant pairs, a row a Visium spot, a column a pair."""

    table: pd.DataFrame
    maps: pd.DataFrame


def measure() -> dict[str, list[dict[str, Any]]]:
    """Agreement by how each platform is tested, and that of pairs with exchanged partners and of any genes."""
    warnings.simplefilter("ignore")
    visium, xenium = read()
    pairs, nearest = shared(visium, xenium), nearest_spot(visium, xenium)
    pooled = {
        "counts pooled under the spots": pool(visium, xenium, nearest.where(nearest["um"] <= SPOT_UM / 2)),
        "counts pooled to the nearest spot": pool(visium, xenium, nearest),
    }
    cells = {name: run(xenium, pairs, spots=(visium, nearest), **given) for name, given in XENIUM_RUNS.items()}
    where = pd.DataFrame(visium.obsm["spatial_um"], index=visium.obs_names)
    rows = []
    for name, given in VISIUM_RUNS.items():
        one = run(visium, pairs, **given)
        others = cells | {other: run(adata, pairs, **given) for other, adata in pooled.items()}
        rows += [_row(("pairs of the table", name, other), one, two, where) for other, two in others.items()]
    for name, made in (("partners exchanged", exchanged(pairs)), ("random genes of the panel", _random(xenium))):
        one, two = (run(a, made, local="none") for a in (visium, xenium))
        rows.append(_row((name, "neighbours", "10 nearest cells"), one, two, where))
    return {"lr_platforms": rows}


def read() -> tuple[Any, Any]:
    """Visium and Xenium in the frame of Visium, micrometres."""
    visium, xenium = as_given()
    xenium.obsm["spatial_um"] = _places().copy()
    return visium, xenium


@cache
def _places() -> np.ndarray:
    return _registration.registered(*as_given())


def as_given() -> tuple[Any, Any]:
    """In the frame that the tables share, which is a rough one."""
    import smeld as sm

    visium, xenium = (sm.read(FOLDER / path, um_per_unit=UM_PER_UNIT) for path in (VISIUM, XENIUM))
    return visium, xenium


def shared(visium: Any, xenium: Any) -> pd.DataFrame:
    """Pairs that come with smeld whose genes both platforms measure, every couple once."""
    import smeld as sm

    here = set(visium.var_names) & set(xenium.var_names)
    pairs = sm.lr.pairs()
    kept = [set(f"{a}+{b}".split("+")) <= here and a != b for a, b in zip(pairs["ligand"], pairs["receptor"])]
    pairs = pairs[kept]
    couple = [tuple(sorted(pair)) for pair in zip(pairs["ligand"], pairs["receptor"])]
    return pairs[~pd.Series(couple, index=pairs.index).duplicated()].reset_index(drop=True)


def exchanged(pairs: pd.DataFrame) -> pd.DataFrame:
    """Every ligand with every receptor that is not its own."""
    known = set(zip(pairs["ligand"], pairs["receptor"])) | set(zip(pairs["receptor"], pairs["ligand"]))
    made = {tuple(sorted((a, b))): (a, b) for a in pairs["ligand"].unique() for b in pairs["receptor"].unique()}
    kept = [pair for pair in made.values() if pair not in known and pair[0] != pair[1]]
    return pd.DataFrame(kept, columns=["ligand", "receptor"])


def _random(xenium: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    names = np.asarray(xenium.var_names)
    made = {tuple(sorted(rng.choice(names, 2, replace=False))) for _ in range(N_RANDOM)}
    return pd.DataFrame(sorted(made), columns=["ligand", "receptor"])


def nearest_spot(visium: Any, xenium: Any) -> pd.DataFrame:
    """By cell the number of the nearest Visium spot, and how far its centre is."""
    away, spot = cKDTree(visium.obsm["spatial_um"]).query(xenium.obsm["spatial_um"])
    return pd.DataFrame({"spot": spot.astype(float), "um": away})


def _means(spot: np.ndarray, n_spots: int) -> sparse.csr_matrix:
    """Row i averages over the cells of spot i."""
    cells = np.flatnonzero(np.isfinite(spot))
    to = spot[cells].astype(int)
    weight = 1.0 / np.bincount(to, minlength=n_spots)[to]
    return sparse.csr_matrix((weight, (to, cells)), shape=(n_spots, len(spot)))


def pool(visium: Any, xenium: Any, nearest: pd.DataFrame) -> Any:
    """Counts of cells summed to the spots, those with no cell left out."""
    import anndata as ad

    sums = _means(nearest["spot"].to_numpy(), visium.n_obs).sign()
    kept = np.diff(sums.indptr) > 0
    made = ad.AnnData(sparse.csr_matrix(sums @ xenium.X), obs=visium.obs[[]].copy(), var=xenium.var.copy())
    for key in ("spatial", "spatial_um"):
        made.obsm[key] = np.asarray(visium.obsm[key]).copy()
    return made[kept].copy()


def run(adata: Any, pairs: pd.DataFrame, *, spots: tuple[Any, pd.DataFrame] | None = None, **options: Any) -> Tested:
    """Pairs tested, and the scores of significant ones; of cells the mean by Visium spot, ``spots`` = (Visium, nearest
    spot of each cell)."""
    import smeld as sm

    found = sm.tl.interactions(adata, pairs, decoys=False, **options)
    table = found.table.set_index(found.table["ligand"] + "_" + found.table["receptor"])
    score = adata.obsm.get("interactions_score", sparse.csr_matrix((adata.n_obs, 0)))
    names = adata.obs_names
    if spots is not None:
        score, names = _means(spots[1]["spot"].to_numpy(), spots[0].n_obs) @ score, spots[0].obs_names
    return Tested(table, pd.DataFrame(score.toarray(), index=names, columns=table.index[: score.shape[1]]))


def _row(named: tuple[str, str, str], one: Tested, two: Tested, where: pd.DataFrame) -> dict[str, Any]:
    both = one.table.index.intersection(two.table.index)
    a, b = one.table.loc[both], two.table.loc[both]
    rho, p = _agreement(a["zscore"].to_numpy(), b["zscore"].to_numpy())
    first, second = a["qvalue"] <= FDR, b["qvalue"] <= FDR
    n, k, m, common = len(both), int(first.sum()), int(second.sum()), int((first & second).sum())
    clear = (a["zscore"].abs() > CLEAR) & (b["zscore"].abs() > CLEAR)
    return {
        **dict(zip(("pairs", "Visium", "Xenium"), named)), "tested in both": n,
        "Spearman of z": rho, "p, pairs shuffled": p,
        "significant, Visium": k, "significant, Xenium": m, "in both": common, "expected": k * m / n,
        "p of the overlap": float(stats.hypergeom.sf(common - 1, n, k, m)),
        f"same sign, of those with abs z > {CLEAR}": f"{int((a['zscore'] * b['zscore'] > 0)[clear].sum())} of "
        f"{int(clear.sum())}",
        **_maps(one.maps, two.maps, where),
    }  # fmt: skip


def _agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Spearman's correlation, and the share of shuffled pairs with one at least as large."""
    first, second = _standard(a), _standard(b)
    rng = np.random.default_rng(0)
    shuffled = np.array([first @ rng.permutation(second) for _ in range(N_SHUFFLED)])
    return float(first @ second) / len(a), float((1 + (shuffled >= first @ second - 1e-9).sum()) / (1 + N_SHUFFLED))


def _standard(values: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and spread 1, column by column."""
    return np.asarray(stats.zscore(stats.rankdata(values, axis=0), axis=0))


def _maps(one: pd.DataFrame, two: pd.DataFrame, where: pd.DataFrame) -> dict[str, float | None]:
    """Spearman's correlation over spots of a pair's two maps (median over pairs), of maps of different pairs, with one
    section mirrored; the share of pairings of the maps at random that agree as well; and the first two of means over
    a spot and its ring."""
    from smeld.kernels.graph import spatial_graph

    names = one.columns.intersection(two.columns)
    spots = one.index.intersection(two.index)
    labels = (
        "maps, same pair",
        "other pairs",
        "mirrored",
        "p, maps shuffled",
        "rings, same pair",
        "rings, other pairs",
    )
    if len(names) < 2:
        return dict.fromkeys(labels)
    a, b, xy = one.loc[spots, names].to_numpy(), two.loc[spots, names].to_numpy(), where.loc[spots].to_numpy()
    rho = _standard(a).T @ _standard(b) / len(a)
    mirrored = [np.diag(_standard(a).T @ _standard(b[turned]) / len(a)) for turned in _mirrors(xy)]
    ring = spatial_graph(xy).connectivities + sparse.identity(len(xy), format="csr")
    smooth = _standard(ring @ a).T @ _standard(ring @ b) / len(a)
    rng, every = np.random.default_rng(0), np.arange(len(names))
    shuffled = np.array([rho[every, rng.permutation(every)].mean() for _ in range(N_SHUFFLED)])
    p = (1 + (shuffled >= np.diag(rho).mean() - 1e-9).sum()) / (1 + N_SHUFFLED)
    found = (*_same_and_other(rho), np.median(mirrored), p, *_same_and_other(smooth))
    return {label: float(value) for label, value in zip(labels, found)}


def _same_and_other(rho: np.ndarray) -> tuple[float, float]:
    return float(np.median(np.diag(rho))), float(np.median(rho[~np.eye(len(rho), dtype=bool)]))


def _mirrors(xy: np.ndarray) -> list[np.ndarray]:
    """The spot nearest to where each would lie were the section mirrored, upside down, or both."""
    both = xy.min(axis=0) + xy.max(axis=0)
    tree = cKDTree(xy)
    return [tree.query(np.where(axes, both - xy, xy))[1] for axes in ([True, False], [False, True], [True, True])]
