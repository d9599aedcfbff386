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


@pytest.mark.parametrize("name", sorted(lr_stats))
def test_contract(name: str, section: tuple) -> None:
    genes, pairs, weights, xy = section
    kept = genes.copy()
    found = lr_stats[name].func(genes, pairs, weights, xy, seed=0)
    assert isinstance(found, LRResult)
    for values in (found.effect, found.zscore, found.pvalue):
        assert values.shape == (4,) and np.isfinite(values).all()
    assert (found.pvalue > 0).all() and (found.pvalue <= 1).all()
    assert found.pvalue[0] < 0.05 < found.pvalue[1]
    assert (found.pvalue[2:] >= 0.4).all()
    again = lr_stats[name].func(genes, pairs, weights, xy, seed=0)
    assert np.array_equal(found.pvalue, again.pvalue) and np.array_equal(found.effect, again.effect)
    assert (genes != kept).nnz == 0
    assert lr_stats[name].facts["cite"]


@pytest.mark.parametrize("name", sorted(lr_stats))
def test_pairs_do_not_depend_on_each_other(name: str, section: tuple) -> None:
    genes, pairs, weights, xy = section
    whole = lr_stats[name].func(genes, pairs, weights, xy, seed=0)
    turned = lr_stats[name].func(genes, pairs[::-1], weights, xy, seed=0)
    assert whole.pvalue == pytest.approx(turned.pvalue[::-1], rel=1e-9)


def test_an_unknown_statistic_is_named() -> None:
    adata = sm.datasets.simulate(100, 30, seed=0, image=False)
    with pytest.raises(sm.InputError, match=r"did you mean 'spatial'"):
        sm.tl.interactions(adata, [("a", "b")], statistic="spatal")
