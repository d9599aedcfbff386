"""The truth holds: what the simulator says of its tissue can be measured in it."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

import smeld as sm
from smeld.datasets import _expression, _tissue
from smeld.datasets._plan import Plan, plan

TISSUES = ("layered", "nested", "branched", "folded")


@pytest.fixture(scope="module")
def spots() -> anndata.AnnData:
    return sm.datasets.simulate(3000, 500, seed=1, image=False)


@pytest.fixture(scope="module")
def cells() -> anndata.AnnData:
    return sm.datasets.simulate(6000, 300, seed=2, layout="cells", image=False)


def _plan(**options: Any) -> Plan:
    full: dict[str, Any] = {
        "n_obs": 400,
        "n_genes": 200,
        "seed": 0,
        "section": 0,
        "layout": "lattice",
        "tissue": "layered",
        "image": False,
        "image_information": 1.0,
        "n_domains": None,
        "n_cell_types": 8,
        "n_pairs": None,
        "n_downstream": 0,
        "mean_counts": None,
        "dispersion": 0.5,
        "domain_effect": 0.45,
        "cell_type_effect": 1.0,
        "library_sd": 0.4,
        "batch_effect": 0.0,
        "field_um": None,
        "n_jobs": 1,
    }
    return plan(**{**full, **options})


def _neighbours(a: anndata.AnnData, k: int = 6) -> np.ndarray:
    xy = a.obsm["spatial_um"]
    return cKDTree(xy).query(xy, k=k + 1)[1][:, 1:]


def _share_alike(codes: np.ndarray, neighbours: np.ndarray) -> float:
    return float((codes[neighbours] == codes[:, None]).mean())


# ------------------------------------------------------------------------------------------ domains and types


@pytest.mark.parametrize("tissue", TISSUES)
def test_domains_are_contiguous_and_none_is_tiny(tissue: Any) -> None:
    a = sm.datasets.simulate(3000, 40, tissue=tissue, seed=4, image=False)
    codes = a.obs["truth_domain"].cat.codes.to_numpy()
    assert _share_alike(codes, _neighbours(a)) > 0.78
    assert np.bincount(codes).min() / 3000 > 0.02


def test_cell_types_are_scattered_within_domains(cells: anndata.AnnData) -> None:
    """Join counts of neighbours in one domain are what independent draws from its mixture give."""
    types, domain = (cells.obs[k].cat.codes.to_numpy() for k in ("truth_cell_type", "truth_domain"))
    near = _neighbours(cells)
    inside = domain[near] == domain[:, None]
    alike = (types[near] == types[:, None])[inside].mean()
    mixture = cells.uns["truth_mixtures"].to_numpy()
    expected = (mixture**2).sum(axis=1)[domain][:, None].repeat(6, axis=1)[inside].mean()
    assert alike == pytest.approx(expected, abs=0.02)
    assert _share_alike(domain, near) > 0.85 > alike + 0.3


def test_mixtures_are_met_by_cells_and_spots(cells: anndata.AnnData, spots: anndata.AnnData) -> None:
    for a in (cells, spots):
        domain = a.obs["truth_domain"].to_numpy()
        mixture = a.uns["truth_mixtures"]
        if "truth_proportions" in a.obsm:
            met = a.obsm["truth_proportions"].groupby(domain).mean()
        else:
            met = a.obs["truth_cell_type"].astype(str).groupby(domain).value_counts(normalize=True).unstack()
            met = met.fillna(0)
        assert np.abs(met.loc[mixture.index, mixture.columns].to_numpy() - mixture.to_numpy()).max() < 0.06
    shares = spots.obsm["truth_proportions"].to_numpy()
    assert shares.sum(axis=1) == pytest.approx(np.ones(3000))
    whole = shares * spots.obs["truth_n_cells"].to_numpy()[:, None]
    assert whole == pytest.approx(whole.round())
    assert spots.obs["truth_n_cells"].mean() == pytest.approx(7, abs=0.2)
    assert (spots.obs["truth_cell_type"].cat.codes == shares.argmax(axis=1)).all()


# --------------------------------------------------------------------------------------------------- gradient


@pytest.mark.parametrize("tissue", TISSUES)
def test_pseudotime_is_a_smooth_gradient_that_follows_the_tree_of_domains(tissue: Any) -> None:
    a = sm.datasets.simulate(3000, 40, tissue=tissue, seed=5, image=False)
    t = a.obs["truth_pseudotime"].to_numpy()
    assert t.min() >= 0
    assert t.max() <= 1
    assert np.ptp(t) > 0.95
    step = np.abs(t[_neighbours(a)] - t[:, None])
    assert np.quantile(step, 0.9) < 0.08
    middle = a.obs.groupby("truth_domain", observed=True)["truth_pseudotime"].median()
    tree = a.uns["truth_domain_tree"].set_index("domain")["parent"]
    assert (tree == "none").sum() == 1
    for child, parent in tree[tree != "none"].items():
        assert middle[child] > middle[parent]
    branches = a.obs["truth_branch"].nunique()
    assert branches == 1 if tissue in ("layered", "folded") else branches >= 2


def test_trajectory_genes_rise_and_fall(spots: anndata.AnnData) -> None:
    t = spots.obs["truth_pseudotime"].to_numpy()
    x = spots.X.toarray() / spots.obs["truth_size_factor"].to_numpy()[:, None]
    ends = [x[(low <= t) & (t <= low + 0.2)].sum(axis=0) for low in (0.0, 0.4, 0.8)]
    kind = spots.var["truth_trajectory"].to_numpy()
    assert (np.log(ends[2] / ends[0])[kind == "rising"] > 0.4).all()
    assert (np.log(ends[2] / ends[0])[kind == "falling"] < -0.4).all()
    transient = np.log(2 * ends[1] / (ends[0] + ends[2]))[kind == "transient"]
    assert (transient > 0.3).all()


# ----------------------------------------------------------------------------------------------------- counts


def test_depth_and_library_sizes(spots: anndata.AnnData) -> None:
    assert spots.X.sum() / 3000 == pytest.approx(1.5 * 500, rel=0.15)
    wide = [sm.datasets.simulate(1500, 40, seed=s, image=False).obs["truth_size_factor"] for s in range(12)]
    log = np.log(np.stack(wide))
    assert np.exp(log).mean() == pytest.approx(1.0, abs=0.05)
    assert log.std() == pytest.approx(0.4, rel=0.1)


def test_library_size_is_partly_smooth() -> None:
    """Correlation of log sizes at distance d is 0.4 exp(-d^2 / 2 l^2), over seeds."""
    _, xy, _ = _tissue.build(_plan(n_obs=300))
    away = np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1))
    log = np.stack([np.log(_expression.library_sizes(_plan(n_obs=300, seed=s), xy)) for s in range(150)])
    product = np.einsum("si,sj->ij", (log + 0.08) / 0.4, (log + 0.08) / 0.4) / 150
    assert product[away == 0].mean() == pytest.approx(1.0, abs=0.06)
    for d in (100.0, 300.0, 600.0):  # standard error about 0.015
        expected = 0.4 * np.exp(-(d**2) / (2 * 300**2))
        assert product[np.abs(away - d) < 1].mean() == pytest.approx(expected, abs=0.055)


@pytest.mark.parametrize("dispersion", [0.0, 0.5])
def test_noise_genes_have_the_stated_dispersion(dispersion: float) -> None:
    a = sm.datasets.simulate(3000, 300, seed=7, image=False, dispersion=dispersion)
    noise = (a.var["truth_role"] == "noise").to_numpy()
    x = a.X[:, noise].toarray().astype(float)
    size = a.obs["truth_size_factor"].to_numpy()[:, None]
    mean = size * x.sum(axis=0) / size.sum()
    phi = (((x - mean) ** 2).sum(axis=0) - mean.sum(axis=0)) / (mean**2).sum(axis=0)
    clear = mean.mean(axis=0) > 0.5
    truth = a.var["truth_dispersion"].to_numpy()[noise]
    assert clear.sum() > 40
    assert (phi - truth)[clear].mean() == pytest.approx(0.0, abs=0.03)
    if dispersion:
        assert np.corrcoef(phi[clear], truth[clear])[0, 1] > 0.7
        assert a.var["truth_dispersion"].mean() == pytest.approx(dispersion, rel=0.1)


def test_gene_means_are_heavy_tailed_and_as_stated(spots: anndata.AnnData) -> None:
    noise = (spots.var["truth_role"] == "noise").to_numpy()
    size = spots.obs["truth_size_factor"].to_numpy()
    met = np.asarray(spots.X.sum(axis=0)).ravel() / size.sum()
    truth = spots.var["truth_mean"].to_numpy()
    assert np.log(met / truth)[truth > 0.3].std() < 0.2
    assert np.log(met / truth)[noise & (truth > 0.3)].mean() == pytest.approx(0, abs=0.02)
    assert np.log(truth[noise]).std() == pytest.approx(1.1, rel=0.15)


def test_markers_have_the_stated_fold_changes(spots: anndata.AnnData, cells: anndata.AnnData) -> None:
    size, domain = spots.obs["truth_size_factor"].to_numpy(), spots.obs["truth_domain"].to_numpy()
    effect = spots.varm["truth_domain_effect"]
    for d in effect.columns:
        own = spots.var_names[(spots.var["truth_role"] == "marker") & (spots.var["truth_target"] == d)]
        far = effect.columns[(effect.loc[own] == 0).all()]
        total = [spots[np.isin(domain, g), own].X.sum() / size[np.isin(domain, g)].sum() for g in ([d], far)]
        mean = spots.var.loc[own, "truth_mean"]
        expected = np.log(np.average(np.exp(effect.loc[own, d]), weights=mean))
        assert np.log(total[0] / total[1]) == pytest.approx(expected, abs=0.12)
    kind, size = cells.obs["truth_cell_type"].to_numpy(), cells.obs["truth_size_factor"].to_numpy()
    effect = cells.varm["truth_type_effect"]
    for t in effect.columns[np.bincount(cells.obs["truth_cell_type"].cat.codes) > 200]:
        own = cells.var_names[cells.var["truth_target"] == t]
        total = [cells[m, own].X.sum() / size[m].sum() for m in (kind == t, kind != t)]
        expected = np.log(np.average(np.exp(effect.loc[own, t]), weights=cells.var.loc[own, "truth_mean"]))
        assert np.log(total[0] / total[1]) == pytest.approx(expected, abs=0.3)


def test_smooth_genes_do_not_know_the_domains() -> None:
    """Over seeds the fields behind the smooth genes have mean 0 in every domain, and the right length."""
    met, product = [], []
    for seed in range(60):
        made = _plan(seed=seed, n_pairs=0)
        section, xy, _ = _tissue.build(made)
        follow = _expression.covariates(made, xy, section.at(xy), section.shape.branches)
        field = follow["smooth:P1"]
        met.append([field[section.at(xy).domain == d].mean() for d in range(7)])
        close = np.abs(np.hypot(*(xy[:, None] - xy).transpose(2, 0, 1)) - 300.0) < 1
        product.append(float((field[:, None] * field)[close].mean()))
    z = np.mean(met, axis=0) / (np.std(met, axis=0, ddof=1) / np.sqrt(60))
    assert np.abs(z).max() < 3.5
    error = np.std(product, ddof=1) / np.sqrt(60)
    assert np.mean(product) == pytest.approx(np.exp(-0.5), abs=4 * error)


# ------------------------------------------------------------------------------------------------------ pairs


def test_decoys_are_independent_and_pairs_are_not() -> None:
    """T = sum x y has variance sum_ij C_x(ij) C_y(ij) if x and y are independent (Clifford et al. 1989)."""
    _, xy, _ = _tissue.build(_plan(n_obs=250))
    draws = [_expression._interactions(_plan(n_obs=250, seed=s, n_pairs=4), xy) for s in range(100)]
    z = {}
    for k in range(8):
        x, y = (np.stack([d[f"{role}:{k}"] for d in draws]).astype(float) for role in ("ligand", "receptor"))
        variance = ((x.T @ x / 100) * (y.T @ y / 100)).sum()
        z[k] = (x * y).sum(axis=1) / np.sqrt(variance)
    decoys = np.concatenate([z[k] for k in range(4, 8)])
    pairs = np.concatenate([z[k] for k in range(4)])
    assert abs(decoys.mean()) < 3 / np.sqrt(400)
    assert decoys.std() == pytest.approx(1.0, abs=0.15)
    assert pairs.mean() > 3
    # both kinds have the same law, one gene at a time
    for role in ("ligand", "receptor"):
        spread = [np.std([d[f"{role}:{k}"] for d in draws]) for k in range(8)]
        assert max(spread) / min(spread) < 1.15


@pytest.mark.parametrize("layout", ["lattice", "cells"])
def test_interacting_receptors_answer_to_neighbours_ligands_in_the_counts(layout: Any) -> None:
    a = sm.datasets.simulate(3000, 400, layout=layout, seed=8, image=False, mean_counts=1200)
    table = a.uns["truth_pairs"]
    assert (table.groupby("interacting")["kind"].nunique() == 2).all()
    size = a.obs["truth_size_factor"].to_numpy()
    domain = a.obs["truth_domain"].cat.codes.to_numpy()
    tree = cKDTree(a.obsm["spatial_um"])
    found = []
    for row in table.itertuples():
        ligand, receptor = (np.log1p(a[:, g].X.toarray()[:, 0] / size) for g in (row.ligand, row.receptor))
        near = tree.query_ball_point(a.obsm["spatial_um"], row.range_um * 1.01)
        around = np.array([ligand[n].mean() for n in near])
        rest = [v - (np.bincount(domain, v) / np.bincount(domain))[domain] for v in (around, receptor)]
        found.append(np.corrcoef(*rest)[0, 1])
    found_by = table["interacting"].to_numpy()
    strength = np.array(found)
    assert strength[found_by].min() > 0.12
    assert abs(strength[~found_by].mean()) < 0.1
    assert strength[found_by].mean() > strength[~found_by].mean() + 0.2


def test_downstream_genes_answer_to_the_ligand_around_where_the_receptor_is_and_decoys_do_not() -> None:
    a = sm.datasets.simulate(3000, 400, seed=8, image=False, mean_counts=2000, n_pairs=5, n_downstream=4)
    size, xy = a.obs["truth_size_factor"].to_numpy(), a.obsm["spatial_um"]
    tree = cKDTree(xy)
    together, answers = [], []
    for name, row in a.uns["truth_pairs"].iterrows():
        ligand, receptor = (np.log1p(a[:, g].X.toarray()[:, 0] / size) for g in (row["ligand"], row["receptor"]))
        around = np.array([ligand[n].mean() for n in tree.query_ball_point(xy, row["range_um"] * 1.01)])
        together.append(np.corrcoef(around, receptor)[0, 1])
        down = a.var_names[(a.var["truth_target"] == name) & ~a.var_names.isin([row["ligand"], row["receptor"]])]
        assert (
            len(down) == 4
            and (a.var.loc[down, "truth_role"] == ("downstream" if row["interacting"] else "decoy")).all()
        )
        x = np.log1p(a[:, down].X.toarray() / size[:, None])
        has = receptor > np.median(receptor)
        answers.append([np.abs([np.corrcoef(around[m], g)[0, 1] for g in x[m].T]).mean() for m in (has, ~has)])
    interacting = a.uns["truth_pairs"]["interacting"].to_numpy()
    with_receptor, without = np.array(answers).T
    assert with_receptor[interacting].min() > 0.3 > 0.15 > with_receptor[~interacting].mean()
    assert (with_receptor > without + 0.05)[interacting].all()
    assert np.abs(together).mean() < 0.12  # the pair itself shows nothing
    assert (a.uns["truth_pairs"]["effect"] == "downstream").all()


# ------------------------------------------------------------------------------------------------- difficulty


def _smoothed(z: np.ndarray, near: np.ndarray, alpha: float) -> np.ndarray:
    n, k = near.shape
    w = sparse.csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), near.ravel())), (n, n))
    w = w.maximum(w.T)
    laplacian = sparse.diags(np.asarray(w.sum(axis=1)).ravel()) - w
    return splu((sparse.eye(n) + alpha / k * laplacian).tocsc()).solve(z)


@pytest.mark.parametrize(("layout", "tissue"), [("lattice", "layered"), ("lattice", "nested"), ("cells", "branched")])
def test_smoothing_and_mixture_clearly_beat_pca_with_kmeans(layout: Any, tissue: Any) -> None:
    a = sm.datasets.simulate(layout=layout, tissue=tissue, seed=0, image=False)
    x = a.X.toarray()
    x = np.log1p(x / np.maximum(x.sum(axis=1, keepdims=True), 1) * np.median(x.sum(axis=1)))
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    with threadpool_limits(1):
        z = PCA(20, svd_solver="randomized", random_state=0).fit_transform(x)
    truth = a.obs["truth_domain"]
    n = truth.nunique()
    near = _neighbours(a)
    with threadpool_limits(1):  # quicker than many threads at this size
        kmeans = KMeans(n, n_init=3, random_state=0).fit_predict(z)
        mixture = GaussianMixture(n, covariance_type="tied", n_init=3, random_state=0, reg_covar=1e-4)
        fitted = mixture.fit_predict(_smoothed(z, near, 4.0))
    plain, smooth = (adjusted_rand_score(truth, labels) for labels in (kmeans, fitted))
    assert 0.1 < plain < 0.55
    assert smooth > plain + 0.15
    assert 0.45 < smooth < 0.97
