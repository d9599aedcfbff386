"""Proportions of cell types in spots: ``sm.tl.deconvolve`` beside non-negative least squares and its bootstrap.

*Hard mixtures*: simulated spots of a dozen types, three pairs of them nearly alike, 200 to 2,000 counts a spot, a
log-normal platform shift of standard deviation 1 between section and reference. *Pooled cells*: seqFISH+ cells pooled
into 72 spots; profiles of types come from the other spots (six folds, drawn five times), solved from their known
compositions. *Pooled Xenium cells*: those of the breast block under its Visium spots, cells by lineage, as they are and
thinned by a log-normal factor a gene of standard deviation 1; the reference's cells come from the other half of the
tissue. *Breast pair*: the Visium spots themselves, truth and reference as before; the two tables are registered by the
genes that both measure.

Intervals are scored where a type is present; true zeros apart, by whether the interval holds 0. NNLS solves raw counts
against mean counts a cell of each type; its bootstrap draws genes.

    python benchmarks/deconvolve.py --speed 100000
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import _measure
import numpy as np
import pandas as pd
from _datasets import FOLDER
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import nnls

Float = NDArray[np.float64]
DEPTHS = (200, 600, 2000)
N_SPOTS, N_GENES, N_TYPES, N_CELLS = 1500, 1000, 12, 200
N_BOOTSTRAP, LEVEL = 20, 0.9
#: other methods and their environments
PEERS = (
    ("Tangram", "tangram"),
    ("Stereoscope", "scvi"),
    ("cell2location", "cell2location"),
    ("RCTD", "rctd"),
    ("FlashDeconv", "flashdeconv"),
)
PEER = _measure.HERE / "peers" / "peer_deconvolve.py"
#: types with less of the section are not judged by themselves
COMMON = 0.02
#: folds of pooled spots, draws of them (72 spots are few: one draw says little), and cells that are drawn from each
#: type's profile
N_FOLDS, N_FOLDINGS, PSEUDO_CELLS = 6, 5, 30
#: peers take long: they are run on the first seed with so many counts a spot
PEER_DEPTH = 600
#: the reference's own composition, and that with the number of cells of every spot
OF_REFERENCE = {"composition": "reference"}
COUNTED = OF_REFERENCE | {"n_cells": "n_cells"}
#: draws of the platform's factors of genes, and the share of the genes that are not thinned
N_PLATFORMS, PLATFORM_SD, NOT_THINNED = 3, 1.0, 0.1
#: clusters of the Xenium section, counts a cell needs, and cells a spot needs for a truth
N_CLUSTERS, MIN_COUNTS, MIN_CELLS = 30, 20, 3
#: well-known markers of its lineages: clusters of one lineage are one type, as they are hard to tell apart in spots
LINEAGES = {
    "epithelial": "EPCAM KRT7 KRT8 CDH1 FOXA1 GATA3 ELF3",
    "myoepithelial": "KRT14 KRT5 ACTA2 MYLK KRT15 DST OXTR",
    "fibroblast": "LUM POSTN CCDC80 PDGFRA FBLN1 MMP2 CXCL12",
    "endothelial": "PECAM1 VWF KDR CD93 AQP1 CLEC14A ESM1",
    "T": "CD3E CD3D CD3G TRAC IL7R CD8A CD4 CCL5",
    "B": "MS4A1 CD79A CD79B MZB1 BANK1 TENT5C SLAMF7",
    "myeloid": "CD68 CD163 LYZ CD14 FCER1G AIF1 ITGAX FGL2",
}
#: shared-out work of the speed test: types, genes, counts a spot
SPEED_TYPES, SPEED_GENES, SPEED_COUNTS = 20, 2000, 600
#: the largest log fold change of its markers: without a bound a few genes would have all counts
MOST_EFFECT = 2.5


# ------------------------------------------------------------------------------------------------------- baselines


def least_squares(spots: Any, reference: Any) -> Float:
    """NNLS of each spot's counts on mean counts a cell of each type."""
    counts, profile = _matched(spots, reference)
    return _shares(counts, profile)


def bootstrap(spots: Any, reference: Any, seed: int) -> tuple[Float, Float]:
    """(low, high) of NNLS on genes drawn with replacement."""
    counts, profile = _matched(spots, reference)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(N_BOOTSTRAP):
        genes = rng.integers(0, counts.shape[1], counts.shape[1])
        drawn.append(_shares(counts[:, genes], profile[:, genes]))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return low, high


def _shares(counts: Float, profile: Float) -> Float:
    found = np.array([nnls(profile.T, y)[0] for y in counts])
    total = found.sum(axis=1, keepdims=True)
    return np.divide(found, total, out=np.full_like(found, 1 / len(profile)), where=total > 0)


def _matched(spots: Any, reference: Any) -> tuple[Float, Float]:
    shared = [g for g in spots.var_names if g in set(reference.var_names)]
    label = reference.obs["cell_type"].astype("category")
    cells = reference[:, shared].X.toarray()
    profile = np.array([cells[(label == name).to_numpy()].mean(axis=0) for name in label.cat.categories])
    return spots[:, shared].X.toarray().astype(float), profile.astype(float)


# ---------------------------------------------------------------------------------------------------------- scores


def scores(truth: Float, mean: Float, low: Float | None = None, high: Float | None = None) -> dict[str, float]:
    """Error, correlation over all spots and types; of intervals their cover and width."""
    found = {
        "RMSE": float(np.sqrt(((mean - truth) ** 2).mean())),
        "Pearson": float(np.corrcoef(mean.ravel(), truth.ravel())[0, 1]),
    }
    if low is None or high is None:
        return found
    inside, present = (truth >= low - 1e-6) & (truth <= high + 1e-6), truth > 0
    common = [inside[present[:, k], k].mean() for k in range(truth.shape[1]) if truth[:, k].mean() > COMMON]
    return found | {
        "cover, present": float(inside[present].mean()),
        "worst type": float(min(common)),
        "zeros held": float((low[~present] <= 1e-6).mean()) if (~present).any() else float("nan"),
        "width": float((high - low).mean()),
        "width, present": float((high - low)[present].mean()),
    }


def width_at(cover: float, truth: Float, mean: Float) -> float:
    """Mean width of intervals of one width about ``mean``, cut at 0 and 1, that hold ``cover`` of what is present."""
    half = float(np.quantile(np.abs(mean - truth)[truth > 0], cover))
    return float((np.minimum(mean + half, 1) - np.maximum(mean - half, 0)).mean())


def both(
    spots: Any,
    reference: Any,
    truth: pd.DataFrame,
    scored: NDArray[np.bool_],
    seed: int,
    told: Mapping[str, dict[str, Any]] | None = None,
    peers: bool = False,
) -> list[dict[str, Any]]:
    """Rows of smeld, NNLS and ``peers`` for one section; ``scored`` [n_obs]; ``told`` is what smeld is told besides."""
    from smeld.tl import _deconvolve

    known, rows = truth.to_numpy()[scored], []
    for what, settings in ({"": {}} | dict(told or {})).items():
        started = time.perf_counter()
        found = _deconvolve.deconvolve(spots, reference, seed=seed, **settings)
        seconds = time.perf_counter() - started
        parts = [f.reindex(columns=truth.columns, fill_value=0.0).to_numpy()[scored] for f in
                 (found.proportions, found.low, found.high)]  # fmt: skip
        rows.append({"method": "sm.tl.deconvolve" + what, **scores(known, *parts), "seconds": seconds})
    names = [name for name in truth.columns if name in found.proportions]
    started = time.perf_counter()
    plain = _of_all(least_squares(spots, reference), names, truth)[scored]
    seconds = time.perf_counter() - started
    low, high = (_of_all(b, names, truth)[scored] for b in bootstrap(spots, reference, seed))
    rows.append({"method": "NNLS, bootstrap of genes", **scores(known, plain, low, high), "seconds": seconds})
    rows[-1]["width at the first's cover"] = width_at(rows[0]["cover, present"], known, plain)
    for name, env in PEERS if peers else ():
        found, row = peer(name, env, spots, reference, seed)
        if found is not None:
            row |= scores(known, found.reindex(columns=truth.columns, fill_value=0.0).to_numpy()[scored])
        rows.insert(-1, {"method": name, **row})
    for row in rows:
        if "RMSE" not in row:
            continue
        row["of NNLS"] = row["RMSE"] / rows[-1]["RMSE"]
    return rows


def peer(name: str, env: str, spots: Any, reference: Any, seed: int) -> tuple[pd.DataFrame | None, dict[str, Any]]:
    """Proportions by another method, run in its own environment."""
    import anndata
    from peers import _envs

    ready = _envs.ready(env)
    if ready.python is None:
        return None, {"note": ready.reason}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{what}.h5ad" for what in ("spots", "reference")]
        bare = anndata.AnnData(spots.X, obs=spots.obs[[]], var=spots.var[[]])
        bare.obsm["spatial"] = np.asarray(spots.obsm["spatial_um"])
        bare.write_h5ad(files[0])
        anndata.AnnData(reference.X, obs=reference.obs[["cell_type"]], var=reference.var[[]]).write_h5ad(files[1])
        out = Path(folder) / "out.npz"
        command = [str(ready.python), str(PEER), name.lower(), *map(str, files), str(out), str(seed)]
        try:
            _measure.run(command, Path(folder), timeout=1800)
        except _measure.Failed as error:
            return None, {"note": f"failed: {error}"}
        made = np.load(out)
        share = pd.DataFrame(made["share"], columns=made["types"])
        return share, {"seconds": float(made["seconds"]), "note": f"version {made['version']}"}


def _of_all(values: Float, names: list[str], truth: pd.DataFrame) -> Float:
    """Columns of the reference's types (sorted) among those of the truth."""
    frame = pd.DataFrame(values, columns=sorted(names))
    return frame.reindex(columns=truth.columns, fill_value=0.0).to_numpy()


# ------------------------------------------------------------------------------------------------------------ data


def hard(seed: int, depth: int) -> tuple[Any, Any, pd.DataFrame]:
    """(spots, reference, truth) of the simulator."""
    import smeld as sm

    spots = sm.datasets.simulate(
        N_SPOTS,
        N_GENES,
        seed=seed,
        image=False,
        n_cell_types=N_TYPES,
        n_subtype_pairs=3,
        cell_type_effect=2.0,
        mean_counts=depth,
    )
    reference = sm.datasets.simulate_reference(spots, N_CELLS, seed=seed, platform_sd=1.0)
    return spots, reference, spots.obsm["truth_proportions"]


def pooled(fold: int, seed: int) -> tuple[Any, Any, pd.DataFrame, NDArray[np.bool_]]:
    """(spots, reference, truth, spots that are scored) of pooled seqFISH+ cells; profiles from the other spots."""
    import anndata

    from smeld.kernels.graph import spatial_graph

    spots = anndata.read_h5ad(FOLDER / "deconvolution/seqfishplus_sim.h5ad")
    spots.X = sparse.csr_matrix(spots.X, dtype=np.float32)
    truth = pd.DataFrame(spots.obsm["true_proportions"], index=spots.obs_names)
    held = np.random.default_rng(seed).permutation(spots.n_obs) % N_FOLDS == fold
    cells = truth.to_numpy() * spots.obs["n_cells_in_truth"].to_numpy()[:, None]
    known = cells[~held].sum(axis=0) > 0
    counts = spots.X[~held].toarray().astype(float)
    design = cells[~held][:, known]
    profile = np.array([nnls(design, counts[:, g])[0] for g in range(counts.shape[1])]).T
    drawn = np.random.default_rng(seed).poisson(np.repeat(profile, PSEUDO_CELLS, axis=0)).astype(np.float32)
    label = np.repeat(truth.columns[known].to_numpy(dtype=str), PSEUDO_CELLS)
    reference = anndata.AnnData(
        sparse.csr_matrix(drawn),
        obs=pd.DataFrame({"cell_type": label}, index=[f"cell{i}" for i in range(len(label))]),
        var=pd.DataFrame(index=spots.var_names),
    )
    del spots.obsm["true_proportions"]
    spots.obsm["spatial_um"] = np.asarray(spots.obsm["spatial"], dtype=float) * 100
    # plain neighbours: 72 spots are too few to weigh edges by
    spots.obsp["sme_weights"] = spatial_graph(spots.obsm["spatial_um"]).connectivities
    return spots, reference, truth, held


@dataclass(frozen=True)
class Block:
    """The breast block: Visium ``spots``, Xenium ``cells`` by lineage, the ``spot`` that each lies under (-1: none),
    the ``truth`` [n_spots, n_types], and which spots and cells are on the ``left``."""

    spots: Any
    cells: Any
    spot: NDArray[np.intp]
    truth: pd.DataFrame
    left: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    def half(self, half: int) -> tuple[Any, NDArray[np.bool_]]:
        """(reference from the other half, spots that are scored)."""
        scored = (self.left[0] == (half == 0)) & (self.spots.obs["n_cells"] >= MIN_CELLS).to_numpy()
        return self.cells[self.left[1] != (half == 0)].copy(), scored


@cache
def block() -> Block:
    import lr_platforms

    spots, cells = lr_platforms.read()
    cells = cells[np.asarray(cells.X.sum(axis=1)).ravel() >= MIN_COUNTS].copy()
    cells.obs["cell_type"] = label = lineages(cells)
    names = sorted(set(label))
    near = lr_platforms.nearest_spot(spots, cells)
    spot = near["spot"].where(near["um"] <= lr_platforms.SPOT_UM / 2, -1).to_numpy(dtype=np.intp)
    counted = np.zeros((spots.n_obs, len(names)))
    np.add.at(counted, (spot[spot >= 0], np.searchsorted(names, label[spot >= 0])), 1)
    spots.obs["n_cells"] = n_cells = counted.sum(axis=1)
    truth = pd.DataFrame(counted / np.maximum(n_cells, 1)[:, None], index=spots.obs_names, columns=names)
    middle = np.median(spots.obsm["spatial_um"][:, 0])
    left, cells_left = (x.obsm["spatial_um"][:, 0] < middle for x in (spots, cells))
    return Block(spots, cells, spot, truth, (left, cells_left))


def breast(half: int) -> tuple[Any, Any, pd.DataFrame, NDArray[np.bool_]]:
    """(spots, reference, truth, spots that are scored) of Visium."""
    import smeld as sm

    reference, scored = block().half(half)
    spots = block().spots.copy()
    sm.fuse(spots, seed=0)
    return spots, reference, block().truth, scored


def pooled_xenium(half: int, platform: int | None) -> tuple[Any, Any, pd.DataFrame, NDArray[np.bool_]]:
    """The same of Xenium's cells pooled under the spots; ``platform`` is the seed of factors of genes, None: none."""
    import anndata

    from smeld.kernels.graph import spatial_graph

    made = block()
    reference, scored = made.half(half)
    here = np.flatnonzero(made.spot >= 0)
    member = sparse.csr_matrix(
        (np.ones(len(here)), (made.spot[here], here)), shape=(made.spots.n_obs, made.cells.n_obs)
    )
    counts = sparse.coo_matrix(member @ made.cells.X)
    if platform is not None:
        rng = np.random.default_rng(platform)
        factor = np.exp(PLATFORM_SD * rng.standard_normal(counts.shape[1]))
        factor = np.minimum(factor / np.quantile(factor, 1 - NOT_THINNED), 1)
        counts.data = rng.binomial(counts.data.astype(int), factor[counts.col])
    has = (made.spots.obs["n_cells"] >= MIN_CELLS).to_numpy()
    spots = anndata.AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=made.spots.obs, var=made.cells.var[[]])
    spots.obsm["spatial"] = spots.obsm["spatial_um"] = np.asarray(made.spots.obsm["spatial_um"])
    spots = spots[has].copy()
    spots.obsp["sme_weights"] = spatial_graph(spots.obsm["spatial_um"]).connectivities
    return spots, reference, made.truth[has], scored[has]


def lineages(cells: Any) -> NDArray[Any]:
    """Type of each cell: k-means clusters, each named by the markers that it has most of among the clusters."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD

    total = np.asarray(cells.X.sum(axis=1)).ravel()
    log = sparse.csr_matrix(sparse.diags(100 / total) @ cells.X).log1p()
    reduced = TruncatedSVD(21, random_state=0).fit_transform(log)
    cluster = KMeans(N_CLUSTERS, n_init=1, random_state=0).fit_predict(reduced)
    mean = np.array([np.asarray(log[cluster == c].mean(axis=0)).ravel() for c in range(N_CLUSTERS)])
    standard = pd.DataFrame((mean - mean.mean(axis=0)) / mean.std(axis=0), columns=cells.var_names)
    score = np.array([standard[markers.split()].mean(axis=1) for markers in LINEAGES.values()])
    return np.array(list(LINEAGES))[score.argmax(axis=0)][cluster]


# -------------------------------------------------------------------------------------------------------- measures


def measure(*, seeds: int = 3, first: int = 0) -> dict[str, list[dict[str, Any]]]:
    """Tables: hard mixtures by depth, real sections."""
    warnings.simplefilter("ignore")
    rows = []
    for depth in DEPTHS:
        found = []
        for seed in range(first, first + seeds):
            spots, reference, truth = hard(seed, depth)
            every, peers = np.ones(spots.n_obs, dtype=bool), seed == first and depth == PEER_DEPTH
            found += both(spots, reference, truth, every, seed, peers=peers)
        rows += _means(found, {"counts a spot": depth, "seeds": seeds})
    return {"deconvolve": rows, "deconvolve_real": measure_real()}


def measure_real() -> list[dict[str, Any]]:
    rows = []
    if (FOLDER / "deconvolution").exists():
        draws = [(fold, seed) for seed in range(N_FOLDINGS) for fold in range(N_FOLDS)]
        found = [row for fold, seed in draws for row in both(*pooled(fold, seed), seed)]
        rows += _means(found, {"section": "seqFISH+ cells, pooled"})
    if (FOLDER / "breast_visium_xenium_pair").exists():
        for what, platforms in (("", (None,)), (", genes thinned", range(N_PLATFORMS))):
            told = {", told composition and cells": COUNTED}
            found = [row for p in platforms for half in (0, 1) for row in both(*pooled_xenium(half, p), p or 0, told)]
            rows += _means(found, {"section": "Xenium cells, pooled" + what})
        found = [row for half in (0, 1) for row in _breast_rows(*breast(half))]
        rows += _means(found, {"section": "breast, Visium with Xenium"})
    return rows


def _breast_rows(spots: Any, reference: Any, truth: pd.DataFrame, scored: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """And how far one comes who sees the truth: regression on panel genes, five folds of the scored spots."""
    return [
        *both(spots, reference, truth, scored, 0, {", told composition": OF_REFERENCE}),
        {
            "method": "ridge regression that sees the truth",
            **scores(truth.to_numpy()[scored], _seen(spots, reference, truth, scored)),
        },
    ]


def _seen(spots: Any, reference: Any, truth: pd.DataFrame, scored: NDArray[np.bool_]) -> Float:
    from sklearn.linear_model import RidgeCV

    shared = spots.var_names.isin(reference.var_names)
    total = np.maximum(np.asarray(spots.X.sum(axis=1)), 1)
    x = np.log1p(1e4 * spots.X[:, shared].toarray() / total)[scored]
    y = truth.to_numpy()[scored]
    fold = np.random.default_rng(0).permutation(len(x)) % 5
    made = np.empty_like(y)
    for k in range(5):
        made[fold == k] = RidgeCV(np.logspace(-1, 5, 20)).fit(x[fold != k], y[fold != k]).predict(x[fold == k])
    return np.maximum(made, 0)


def _means(found: list[dict[str, Any]], first: dict[str, Any]) -> list[dict[str, Any]]:
    table = pd.DataFrame(found)
    groups = table.groupby("method", sort=False)
    means, notes = groups.mean(numeric_only=True), groups["note"].first() if "note" in table else {}
    size, rows = groups.size(), []
    for name, row in means.iterrows():
        made = {**first, "method": name, **row.dropna().to_dict()}
        if "seeds" in made:
            made["seeds"] = int(made["seeds"] * size[name] / size.max())  # peers have fewer
        rows.append(made | ({"note": notes[name]} if notes.get(name) else {}))
    return rows


def measure_speed(sizes: tuple[int, ...] = (100_000,)) -> list[dict[str, Any]]:
    """Seconds and peak memory of one call, the graph made before, on this machine's cores."""
    rows = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found, run = _measure.run_json("deconvolve.py", ["--speed", str(n)], Path(folder), threads=2, timeout=3600)
        rows.append({**found, "GB": run.peak_mb / 1e3})
    return rows


def speed(n: int) -> dict[str, Any]:
    import anndata

    from smeld.kernels.graph import spatial_graph
    from smeld.tl import _deconvolve

    rng = np.random.default_rng(0)
    base = rng.lognormal(0, 1.1, SPEED_GENES)
    marked = rng.random((SPEED_TYPES, SPEED_GENES)) < 0.1
    profile = base * np.exp(marked * np.minimum(rng.exponential(1, SPEED_GENES), MOST_EFFECT))
    profile *= SPEED_COUNTS / profile.sum(axis=1).mean()
    side = int(np.ceil(np.sqrt(n)))
    at = np.arange(n)
    xy = np.column_stack([at % side + 0.5 * (at // side % 2), at // side * np.sqrt(3) / 2]) * 100.0
    shares = rng.dirichlet(np.full(SPEED_TYPES, 0.3), n).astype(np.float32)
    parts = [
        sparse.csr_matrix(rng.poisson(shares[i : i + 20_000] @ profile).astype(np.float32)) for i in range(0, n, 20_000)
    ]
    genes = [f"g{g}" for g in range(SPEED_GENES)]
    spots = anndata.AnnData(
        sparse.vstack(parts, format="csr"),
        obs=pd.DataFrame(index=[f"s{i:07d}" for i in range(n)]),
        var=pd.DataFrame(index=genes),
    )
    parts.clear()
    spots.obsm["spatial_um"] = xy
    spots.obsp["sme_weights"] = spatial_graph(xy).connectivities
    label = np.repeat([f"T{k:02d}" for k in range(SPEED_TYPES)], 50)
    cells = rng.poisson(np.repeat(profile, 50, axis=0) * np.exp(rng.normal(size=SPEED_GENES))).astype(np.float32)
    reference = anndata.AnnData(
        sparse.csr_matrix(cells),
        obs=pd.DataFrame({"cell_type": label}, index=[f"c{i}" for i in range(len(label))]),
        var=pd.DataFrame(index=genes),
    )
    started = time.perf_counter()
    found = _deconvolve.deconvolve(spots, reference)
    seconds = time.perf_counter() - started
    error = float(np.sqrt(((found.proportions.to_numpy() - shares) ** 2).mean()))
    stored = spots.X.nnz / n
    return {
        "spots": n, "types": SPEED_TYPES, "genes": SPEED_GENES, "genes seen in a spot": stored, "seconds": seconds,
        "RMSE": error,
    }  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--speed", type=int, help="number of spots")
    options = parser.parse_args(argv)
    json.dump(speed(options.speed) if options.speed else measure_real(), sys.stdout)


if __name__ == "__main__":
    main()
