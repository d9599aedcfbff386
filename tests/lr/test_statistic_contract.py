"""What every registered statistic must do."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import smeld as sm
from smeld.kernels.graph import spatial_graph
from smeld.lr import LRResult, lr_stats

N = 400


@pytest.fixture(scope="module")
def section() -> tuple[sparse.csc_matrix, np.ndarray, sparse.csr_matrix, np.ndarray]:
    """Gene 0 and 1 lie together in a corner, gene 2 and 3 are noise, gene 4 does not vary."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:20, :20]
    xy = 100.0 * np.c_[x.ravel(), y.ravel()]
    corner = 2.0 * ((x.ravel() // 3 + y.ravel() // 3) % 3 == 0)
    rates = np.c_[corner + 0.1, corner + 0.1, np.full((N, 2), 0.7)]
    genes = sparse.csc_matrix(np.c_[np.log1p(rng.poisson(rates)), np.zeros(N)])
    edges = spatial_graph(xy).connectivities
    weights = sparse.csr_matrix(sparse.diags(1 / np.asarray(edges.sum(axis=1)).ravel()) @ edges)
    weights.sort_indices()
    return genes, np.array([[0, 1], [2, 3], [0, 4], [4, 0]]), weights, xy


@pytest.fixture(scope="module")
def background(section: tuple) -> sparse.csc_matrix:
    """Genes in no pair: 80 like gene 0 whose corners lie anywhere, 80 of noise; 4 that answer to gene 0 around
    gene 1."""
    genes, _, weights, _ = section
    rng = np.random.default_rng(1)
    met = np.asarray(weights @ genes[:, [0]].toarray()).ravel() * genes[:, [1]].toarray().ravel()
    rates = (
        4 * [0.3 + 3 * met]
        + [rng.permutation(np.where(np.arange(N) % 3 == 0, 2.1, 0.1)) for _ in range(80)]
        + 80 * [np.full(N, 0.7)]
    )
    return sparse.csc_matrix(np.log1p(rng.poisson(np.column_stack(rates))))


def run(name: str, section: tuple, background: sparse.csc_matrix) -> LRResult:
    """Statistics whose card asks for the genes in no pair get them; those of networks need torch."""
    if name == "gnn":
        pytest.importorskip("torch", reason="needs smeld[deep]")
    options = {"background": background} if lr_stats[name].facts.get("background") else {}
    return lr_stats[name].func(*section, seed=0, **options)


@pytest.mark.parametrize("name", sorted(lr_stats))
def test_contract(name: str, section: tuple, background: sparse.csc_matrix) -> None:
    genes = section[0]
    kept, kept_background = genes.copy(), background.copy()
    found = run(name, section, background)
    assert isinstance(found, LRResult)
    for values in (found.effect, found.zscore, found.pvalue):
        assert values.shape == (4,) and np.isfinite(values).all()
    assert (found.pvalue > 0).all() and (found.pvalue <= 1).all()
    assert found.pvalue[0] < 0.05 < found.pvalue[1]
    assert (found.pvalue[2:] >= 0.4).all()
    assert found.local is None or (found.local.format == "csr" and found.local.shape == (N, 4))
    again = run(name, section, background)
    assert np.array_equal(found.pvalue, again.pvalue) and np.array_equal(found.effect, again.effect)
    assert (genes != kept).nnz == 0 and (background != kept_background).nnz == 0
    assert lr_stats[name].facts["cite"]


@pytest.mark.parametrize("name", sorted(lr_stats))
def test_pairs_do_not_depend_on_each_other(name: str, section: tuple, background: sparse.csc_matrix) -> None:
    genes, pairs, weights, xy = section
    whole = run(name, section, background)
    turned = run(name, (genes, pairs[::-1], weights, xy), background)
    assert whole.pvalue == pytest.approx(turned.pvalue[::-1], rel=1e-9)


def test_an_unknown_statistic_is_named() -> None:
    adata = sm.datasets.simulate(100, 30, seed=0, image=False)
    with pytest.raises(sm.InputError, match=r"did you mean 'spatial'"):
        sm.tl.interactions(adata, [("a", "b")], statistic="spatal")
