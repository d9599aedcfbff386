"""Normalisation against scanpy, components against scikit-learn, choice of genes against known truth."""

from __future__ import annotations

import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA

import smeld as sm
from smeld.kernels import expression
from smeld.kernels.autocorr import morans_i
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]


def counts(n: int = 80, g: int = 30, seed: int = 0) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.random.default_rng(seed).poisson(1.5, (n, g)).astype(np.float32))


def edges(n: int, seed: int = 0) -> sparse.csr_matrix:
    return spatial_graph(np.random.default_rng(seed).uniform(0, 100, (n, 2))).connectivities


@given(st.integers(2, 60), st.integers(1, 20), st.integers(0, 300), st.booleans())
def test_log_normalise_equals_scanpy(n: int, g: int, seed: int, empty_spot: bool) -> None:
    x = counts(n, g, seed).toarray() + np.eye(n, g, dtype=np.float32)
    x[:, 0] += 1
    if empty_spot:
        x[-1] = 0
    theirs = AnnData(sparse.csr_matrix(x.astype(np.float64)))
    size = x.sum(axis=1)
    sc.pp.normalize_total(theirs, target_sum=float(np.median(size[size > 0])))
    sc.pp.log1p(theirs)
    ours = expression.log_normalise(sparse.csr_matrix(x))
    assert ours.dtype == np.float64
    assert ours.toarray() == pytest.approx(theirs.X.toarray(), rel=1e-10)


def test_log_normalise_keeps_its_input_and_takes_a_target() -> None:
    x = counts()
    kept = x.copy()
    made = expression.log_normalise(x, target=1e4)
    assert abs(x - kept).nnz == 0 and x.dtype == np.float32
    assert np.expm1(made.toarray()).sum(axis=1) == pytest.approx(np.full(80, 1e4))
    assert expression.log_normalise(sparse.csr_matrix((3, 4))).nnz == 0


def test_mean_and_sd_equal_numpy() -> None:
    x = counts()
    mean, sd = expression.mean_and_sd(x.astype(np.float64))
    assert mean == pytest.approx(x.toarray().mean(axis=0)) and sd == pytest.approx(x.toarray().std(axis=0))


def test_scale_columns_equals_numpy() -> None:
    x = expression.log_normalise(counts(400, 6)).tolil()
    x[:, 4] = 0
    x[7, 4] = 50.0  # one outlier: far beyond mean + 10 sd
    x[:, 5] = 2.0  # a constant
    x = sparse.csr_matrix(x)
    dense, kept = x.toarray(), x.copy()
    mean, sd = dense.mean(axis=0), dense.std(axis=0)
    sd = np.where(sd > 1e-12, sd, 1)
    expected = np.minimum(dense, mean + 10 * sd) / sd
    made = expression.scale_columns(x)
    assert made.toarray() == pytest.approx(expected)
    assert made[7, 4] < dense[7, 4] / sd[4]
    assert made.nnz == x.nnz and abs(x - kept).nnz == 0


# ---------------------------------------------------------------------------------------------------------- PCA


@pytest.mark.parametrize(("n", "g", "d"), [(80, 30, 5), (30, 80, 10), (50, 40, 39), (60, 4, 10), (60, 2, 10)])
def test_pca_equals_dense_pca(n: int, g: int, d: int) -> None:
    x = expression.log_normalise(counts(n, g))
    scores, loadings, ratio = expression.pca(x, d, seed=0)
    k = min(d, n - 1, g)
    theirs = PCA(k, svd_solver="full").fit(x.toarray())
    assert scores.shape == (n, k) and loadings.shape == (k, g)
    assert scores == pytest.approx(theirs.transform(x.toarray()), abs=1e-6)
    assert ratio == pytest.approx(theirs.explained_variance_ratio_)
    assert scores == pytest.approx((x.toarray() - x.toarray().mean(axis=0)) @ loadings.T, abs=1e-8)


def test_pca_of_one_gene_is_that_gene_centred() -> None:
    x = expression.log_normalise(counts(20, 2))[:, :1]
    scores, loadings, ratio = expression.pca(sparse.csr_matrix(x), 10, seed=0)
    assert np.abs(scores[:, 0]) == pytest.approx(np.abs(x.toarray()[:, 0] - x.mean()))
    assert np.abs(loadings).tolist() == [[1.0]] and ratio == pytest.approx([1.0])


def test_pca_of_two_spots_is_their_difference() -> None:
    x = expression.log_normalise(counts(2, 12))
    scores = expression.pca(x, 10, seed=0)[0]
    assert scores.shape == (2, 1)
    assert np.ptp(scores) == pytest.approx(np.linalg.norm(x[0].toarray() - x[1].toarray()))


@pytest.mark.parametrize("shape", [(20, 12), (2, 5), (20, 1), (20, 2)])
def test_pca_of_spots_that_are_all_the_same_is_zero(shape: tuple[int, int]) -> None:
    scores, loadings, ratio = expression.pca(sparse.csr_matrix(np.full(shape, 2.0)), 5, seed=0)
    assert np.abs(scores).max() < 1e-9 and len(scores) == shape[0]
    assert np.isfinite(loadings).all() and np.isfinite(ratio).all()


def test_pca_is_the_same_for_the_same_seed() -> None:
    x = expression.log_normalise(counts(200, 100))
    first, second = (expression.pca(x, 8, seed=3)[0] for _ in range(2))
    assert np.array_equal(first, second)


# ------------------------------------------------------------------------------------------------- what varies in space


def test_spatially_variable_genes_are_the_simulated_ones() -> None:
    adata = sm.datasets.simulate(n_obs=600, n_genes=300, seed=1, image=False)
    graph = spatial_graph(adata.obsm["spatial_um"])
    log = expression.log_normalise(adata.X)
    found = expression.spatially_variable(log, graph.connectivities, n_genes=40)
    assert len(found) == 40 and (np.diff(found) > 0).all()
    noise = (adata.var["truth_role"] == "noise").to_numpy()
    assert noise[found].mean() < 0.25 * noise.mean()


def test_spatially_variable_equals_ranking_by_moran() -> None:
    x, w = expression.log_normalise(counts(100, 40)), edges(100)
    score = morans_i(x, w)
    assert set(expression.spatially_variable(x, w, n_genes=7)) == set(np.argsort(-score)[:7])


def test_genes_seen_in_fewer_than_three_spots_are_left_out() -> None:
    x = counts(50, 10).toarray()
    x[:, [2, 5]] = 0
    x[:2, 2] = 9
    x[:3, 5] = 9
    found = expression.spatially_variable(sparse.csr_matrix(x), edges(50), n_genes=100)
    assert found.tolist() == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    rare = sparse.csr_matrix(np.eye(50, 10))  # nothing but such genes: better these than none
    assert len(expression.spatially_variable(rare, edges(50), n_genes=100)) == 10


def test_equal_scores_go_to_the_first_gene() -> None:
    x = expression.log_normalise(counts(60, 1))
    same = sparse.csr_matrix(sparse.hstack([x] * 6))
    assert expression.spatially_variable(same, edges(60), n_genes=2).tolist() == [0, 1]


def smooth_and_noise(n: int = 400) -> tuple[Float, sparse.csr_matrix]:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (n, 2))
    columns = [rng.normal(size=n), np.sin(xy[:, 0] / 20), rng.normal(size=n), np.cos(xy[:, 1] / 15)]
    return np.column_stack(columns), spatial_graph(xy).connectivities


def test_components_without_spatial_structure_are_dropped_but_the_first() -> None:
    scores, w = smooth_and_noise()
    assert expression.spatial_components(scores, w).tolist() == [0, 1, 3]
    assert expression.spatial_components(scores[:, [0, 2]], w).tolist() == [0]
    assert expression.spatial_components(scores * 1e-8, w).tolist() == [0, 1, 3]


def test_few_spots_carry_few_components() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (40, 2))
    scores = np.column_stack([np.sin(xy[:, 0] / s) for s in (20, 25, 30, 35, 40)])
    assert len(expression.spatial_components(scores, spatial_graph(xy).connectivities)) <= 3


def test_embed_states_the_genes_and_loadings_behind_the_scores() -> None:
    adata = sm.datasets.simulate(n_obs=400, n_genes=120, seed=0, image=False)
    w = spatial_graph(adata.obsm["spatial_um"]).connectivities
    log = expression.log_normalise(adata.X)
    made = expression.embed(log, w, n_genes=50, n_components=10, seed=0)
    assert len(made.genes) == 50
    d = made.scores.shape[1]
    assert 1 <= d <= 10 and made.loadings.shape == (d, 50) and made.variance_ratio.shape == (d,)
    scaled = expression.scale_columns(log[:, made.genes]).toarray()
    assert made.scores == pytest.approx((scaled - scaled.mean(axis=0)) @ made.loadings.T, abs=1e-6)


@pytest.mark.parametrize("case", ["empty spots", "one gene", "two spots", "all the same"])
def test_embed_of_hardly_anything_is_finite(case: str) -> None:
    x = counts(40, 12).toarray()
    if case == "empty spots":
        x[5:9] = 0
    x = {"one gene": x[:, :1], "two spots": x[:2], "all the same": np.ones_like(x)}.get(case, x)
    log = expression.log_normalise(sparse.csr_matrix(x))
    made = expression.embed(log, edges(len(x)), n_genes=100, n_components=30, seed=0)
    assert made.scores.shape[0] == len(x) and made.scores.shape[1] >= 1
    assert np.isfinite(made.scores).all()


def test_components_of_large_sections_are_those_of_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summed over blocks of rows, with a last block that is not full."""
    x = expression.log_normalise(counts(230, 40))
    scores, loadings, ratio = expression.scaled_pca(x, 6, seed=0)
    monkeypatch.setattr(expression, "LARGE", 1)
    monkeypatch.setattr(expression, "ROWS", 64)
    large = expression.scaled_pca(x, 6, seed=0)
    sign = np.sign((loadings * large[1]).sum(axis=1))
    assert large[0] * sign == pytest.approx(scores, abs=1e-8)
    assert large[1] * sign[:, None] == pytest.approx(loadings, abs=1e-8)
    assert large[2] == pytest.approx(ratio, abs=1e-10)


@pytest.mark.parametrize("x", [np.full((70, 4), 2.0), np.zeros((70, 3))])
def test_large_sections_whose_spots_are_all_the_same(x: Float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "LARGE", 1)
    scores, loadings, ratio = expression.scaled_pca(sparse.csr_matrix(x), 5, seed=0)
    assert np.abs(scores).max() < 1e-9 and np.isfinite(loadings).all() and np.isfinite(ratio).all()


def test_large_sections_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expression, "LARGE", 1)
    monkeypatch.setattr(expression, "ROWS", 64)
    x = expression.log_normalise(counts(500, 40))
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(expression.os, "cpu_count", lambda cores=cores: cores)
        found.append(expression.scaled_pca(x, 6, seed=0)[0])
    assert np.array_equal(*found)
