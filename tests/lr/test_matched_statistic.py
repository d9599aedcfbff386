"""stLearn's statistic: what is kept of spots, and what it says where it has nothing to compare with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.ndimage import gaussian_filter

import smeld as sm
from smeld.kernels import localp
from smeld.kernels import matched as kernel
from smeld.lr import lr_stats

SIDE, N = 14, 196
PAIRS = np.array([[0, 1], [2, 3], [0, 4], [3, 1]])


def averages(side: int) -> sparse.csr_matrix:
    """Over the four neighbours on a square lattice."""
    steps = [sparse.diags([1.0, 1.0], [-1, 1], shape=(side, side)), sparse.identity(side)]
    edges = sparse.csr_matrix(sparse.kron(*steps) + sparse.kron(*steps[::-1]))
    weights = sparse.csr_matrix(sparse.diags(1 / np.asarray(edges.sum(axis=1)).ravel()) @ edges)
    weights.sort_indices()
    return weights


@pytest.fixture(scope="module")
def section() -> tuple[sparse.csc_matrix, sparse.csc_matrix, sparse.csr_matrix]:
    """Genes 0 and 1 in the same few patches, 2 and 3 anywhere, 4 nowhere; 70 genes in patches of their own."""
    rng = np.random.default_rng(1)
    y, x = (g.ravel() for g in np.mgrid[:SIDE, :SIDE])

    def patch(a: int, b: int) -> np.ndarray:
        return rng.poisson(4.0 * ((x // 4 + a) % 3 == 0) * ((y // 4 + b) % 3 == 0) + 0.05)

    partners = [patch(0, 0), patch(0, 0), rng.poisson(0.4, N), rng.poisson(0.4, N), np.zeros(N)]
    other = [patch(*rng.integers(0, 3, 2)) for _ in range(40)] + [rng.poisson(0.4, N) for _ in range(30)]
    made = [sparse.csc_matrix(np.log1p(np.column_stack(part))) for part in (partners, other)]
    return made[0], made[1], averages(SIDE)


def test_spots_that_are_kept(section: tuple) -> None:
    genes, background, weights = section
    found = lr_stats["matched"].func(genes, PAIRS, weights, None, background=background)
    sets = kernel.like(genes, background)
    blocks = list(kernel.blocks(sets, PAIRS, weights, kernel.no_sums(sets, PAIRS)))
    score = np.hstack([b.score for b in blocks])
    p = np.hstack([kernel.spot_pvalues(b, kernel.null_pairs(sets, PAIRS)) for b in blocks])
    assert found.local is not None and found.local.format == "csr" and found.local.shape == (N, len(PAIRS))
    kept = np.zeros_like(score)
    for spot in range(N):
        tested = score[:, spot] > 0
        q = localp.adjusted(p[tested, spot])
        kept[tested, spot] = np.where(q <= 0.05, score[tested, spot], 0.0)
    assert np.array_equal(found.local.toarray(), kept.T)
    assert found.effect == pytest.approx(score.mean(axis=1), rel=1e-12)
    assert found.pvalue[0] < 0.05 and found.zscore[0] > 2
    assert (kept[0] > 0).sum() > 5


def test_a_pair_that_is_not_there(section: tuple) -> None:
    genes, background, weights = section
    found = lr_stats["matched"].func(genes, PAIRS, weights, None, background=background)
    assert found.effect[2] == 0 and found.pvalue[2] == 1 and found.zscore[2] <= 0
    assert found.local.getcol(2).nnz == 0


def test_the_seed_draws_nothing_and_the_input_is_left_alone(section: tuple) -> None:
    genes, background, weights = section
    kept = [m.copy() for m in section]
    one, two = (lr_stats["matched"].func(genes, PAIRS, weights, None, background=background, seed=s) for s in (0, 9))
    assert np.array_equal(one.zscore, two.zscore) and (one.local != two.local).nnz == 0
    assert all((a != b).nnz == 0 for a, b in zip(section, kept))


def test_genes_that_are_never_seen_are_no_background(section: tuple) -> None:
    genes, background, weights = section
    nowhere = sparse.csc_matrix(sparse.hstack([sparse.csc_matrix((N, 200)), background]))
    one, two = (lr_stats["matched"].func(genes, PAIRS, weights, None, background=b) for b in (background, nowhere))
    assert np.array_equal(one.pvalue, two.pvalue)
    with pytest.raises(sm.InputError, match=r"found: 19 genes outside the pairs; cure: statistic='spatial'"):
        lr_stats["matched"].func(genes, PAIRS, weights, None, background=nowhere[:, :219])
    lr_stats["matched"].func(genes, PAIRS, weights, None, background=nowhere[:, :220])


def test_independent_smooth_pairs_have_significant_spots_as_the_docstring_says() -> None:
    """Among genes that are less smooth; why this statistic is for comparison only."""
    rng, side = np.random.default_rng(0), 48

    def counts(width: float, n: int) -> sparse.csc_matrix:
        z = gaussian_filter(rng.normal(size=(n, 2 * side, 2 * side)), (0, width, width))[:, 24:-24, 24:-24]
        z = z.reshape(n, side**2) / z.std()
        return sparse.csc_matrix(np.log1p(rng.poisson(np.exp(z - 0.5)).T))

    pairs = np.arange(60).reshape(30, 2)
    found = lr_stats["matched"].func(counts(4.0, 60), pairs, averages(side), None, background=counts(0.0, 120))
    called = np.diff(found.local.tocsc().indptr) >= 10
    assert called.mean() >= 0.62


def test_nothing_to_test_and_nobody_around(section: tuple) -> None:
    genes, background, weights = section
    none = lr_stats["matched"].func(genes, PAIRS[:0], weights, None, background=background)
    assert none.pvalue.shape == (0,) and none.local.shape == (N, 0)
    lone = lr_stats["matched"].func(genes, PAIRS, 0 * weights, None, background=background)
    assert (lone.pvalue == 1).all() and lone.local.nnz == 0


def test_the_card_asks_for_a_background() -> None:
    assert lr_stats["matched"].facts["background"] is True
    assert "for comparison" in (lr_stats["matched"].func.__doc__ or "")
