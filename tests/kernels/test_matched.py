"""Scores against pairs of genes of like distribution: against slow numpy, on one thread and two, in any order."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.distance import canberra

from smeld.kernels import localp, matched
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]
SIDE, N = 9, 81
PAIRS = np.array([[0, 1], [1, 0], [2, 3], [0, 3], [4, 2], [1, 4]])


@dataclass(frozen=True)
class Section:
    genes: sparse.csc_matrix
    background: sparse.csc_matrix
    weights: sparse.csr_matrix


def section(seed: int = 0, *, counts: bool = False) -> Section:
    """Five partners (the last is never seen) and 40 other genes; ``counts``: whole numbers, full of ties."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    xy = 100.0 * np.c_[x.ravel(), y.ravel()]
    rates = rng.uniform(0.1, 1.5, 45) * np.exp(rng.normal(0, 0.6, (N, 45)))
    values = rng.poisson(rates).astype(float)
    values[:, 4] = 0.0
    if not counts:
        values = np.log1p(values / rng.uniform(0.5, 2.0, (N, 1)))
    edges = spatial_graph(xy).connectivities.tolil()
    edges[0] = 0  # a spot without neighbours
    edges = edges.tocsr()
    degree = np.maximum(np.asarray(edges.sum(axis=1)).ravel(), 1)
    weights = sparse.csr_matrix(sparse.diags(1 / degree) @ edges)
    weights.sort_indices()
    return Section(sparse.csc_matrix(values[:, :5]), sparse.csc_matrix(values[:, 5:]), weights)


def slow_score(a: Float, b: Float, weights: sparse.csr_matrix) -> Float:
    m_a, m_b = weights @ a, weights @ b
    return 0.5 * ((a * (m_b > 0) + (a > 0) * m_b) + (b * (m_a > 0) + (b > 0) * m_a))


def run(s: Section, n_null: int = 36) -> tuple[matched.Sets, Float, NDArray[np.int64], matched.Means]:
    sets = matched.like(s.genes, s.background, n_null=n_null)
    sums = matched.no_sums(sets, PAIRS)
    found = list(matched.blocks(sets, PAIRS, s.weights, sums))
    score, at_least = np.hstack([b.score for b in found]), np.hstack([b.at_least for b in found])
    return sets, score, at_least, matched.means(score.mean(axis=1), sets, PAIRS, sums)


@pytest.mark.parametrize("n", [2, 3, 10, 41, 1000])
def test_quantiles_are_numpys_nearest(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.poisson(rng.uniform(0, 2, 7), (n, 7)) * rng.uniform(1, 2, (n, 7))
    expected = np.quantile(values, matched.QUANTILES, axis=0, method="nearest").T
    assert np.array_equal(matched.quantiles(sparse.csc_matrix(values)), expected.astype(np.float32))


def test_sets_are_the_nearest_in_canberra_distance() -> None:
    s = section()
    offered = matched.quantiles(s.background)
    sets = matched.like(s.genes, s.background, n_null=36)
    assert sets.members.shape == (5, 12) and (sets.sizes == 12).all()
    for unit, wanted in enumerate(matched.quantiles(s.genes)):
        distance = [canberra(wanted, row) for row in offered]
        expected = s.background[:, np.sort(np.argsort(distance, kind="stable")[:12])]
        assert (sets.columns[:, sets.members[unit]] != expected).nnz == 0
    assert np.array_equal(np.unique(sets.members), np.arange(5, sets.columns.shape[1])), "columns that no set needs"


def test_a_gene_of_the_same_distribution_is_left_out() -> None:
    """At distance 0, as stLearn has it: such genes are most often counted in the same spots."""
    s = section()
    twin = sparse.csc_matrix(sparse.hstack([s.genes[:, [0]], s.background]))
    one, two = (matched.like(s.genes, b, n_null=36) for b in (s.background, twin))
    assert (one.columns[:, one.members[0]] != two.columns[:, two.members[0]]).nnz == 0


def test_where_all_are_alike_or_none_is_left() -> None:
    """Genes at distance 0 are dropped, of genes at one distance the first are taken."""
    one = np.zeros((20, 1))
    one[3] = 1.0
    sets = matched.like(sparse.csc_matrix(one), sparse.csc_matrix(np.tile(one, 6)), n_null=4)
    assert sets.sizes[0] == 0
    ties = matched.like(sparse.csc_matrix(one), sparse.csc_matrix(2 * np.tile(one, 6)), n_null=4)
    assert ties.sizes[0] == 4 and np.array_equal(ties.members[0], [1, 2, 3, 4])
    pairs = np.array([[0, 0]])
    sums = matched.no_sums(sets, pairs)
    weights = sparse.identity(20, format="csr")
    block = next(matched.blocks(sets, pairs, weights, sums))
    assert (matched.spot_pvalues(block, matched.null_pairs(sets, pairs)) == 1).all()
    assert matched.means(block.score.mean(axis=1), sets, pairs, sums).pvalue == [1.0]


@pytest.mark.parametrize("counts", [False, True])
def test_scores_counts_and_means_are_those_of_every_pair(counts: bool) -> None:
    s = section(counts=counts)
    sets, score, at_least, means = run(s)
    columns = sets.columns.toarray()
    for i, (ligand, receptor) in enumerate(PAIRS):
        observed = slow_score(columns[:, ligand], columns[:, receptor], s.weights)
        assert score[i] == pytest.approx(observed, abs=1e-12)
        null = np.array(
            [
                slow_score(columns[:, a], columns[:, b], s.weights)
                for a in sets.members[ligand]
                for b in sets.members[receptor]
                if a != b
            ]
        )
        assert matched.null_pairs(sets, PAIRS)[i] == len(null) == means.n_null[i]
        larger = (null >= observed - 1e-10).sum(axis=0)
        assert np.array_equal(at_least[i], np.where(observed > 0, larger, 0))
        average = null.mean(axis=1)
        rank = (average >= observed.mean() - 1e-10).sum()
        assert means.pvalue[i] == pytest.approx((rank + 1) / (len(null) + 1), rel=1e-12)
        assert means.zscore[i] == pytest.approx((observed.mean() - average.mean()) / average.std(), rel=1e-9)
    assert (means.n_null < 144).any(), "sets that share genes were tried"
    assert (means.effect[4:] == 0).all() and (means.pvalue[4:] == 1).all()


def test_spots_in_another_order_or_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    s = section(counts=True)
    _, score, at_least, means = run(s)
    order = np.random.default_rng(3).permutation(N)
    turned = Section(s.genes[order], s.background[order], s.weights[order][:, order].tocsr())
    _, score_2, at_least_2, means_2 = run(turned)
    assert score_2 == pytest.approx(score[:, order], rel=1e-12)
    assert np.array_equal(at_least_2, at_least[:, order])
    assert np.array_equal(means_2.pvalue, means.pvalue)
    monkeypatch.setattr(matched, "BLOCK_VALUES", 1)
    _, score_3, at_least_3, means_3 = run(s)
    assert np.array_equal(score_3, score) and np.array_equal(at_least_3, at_least)
    assert np.array_equal(means_3.zscore, means.zscore)


def test_one_thread_and_two_give_the_same_bits() -> None:
    had, results = numba.get_num_threads(), []
    try:
        for n in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(n)
            _, score, at_least, means = run(section())
            results.append([p.tobytes() for p in (score, at_least, means.effect, means.zscore, means.pvalue)])
    finally:
        numba.set_num_threads(had)
    assert results[0] == results[1]


def test_significant_spots_are_those_of_benjamini_and_hochberg() -> None:
    rng = np.random.default_rng(0)
    p = np.ceil(rng.uniform(0, 1, (30, 60)) ** 3 * 100) / 100
    tested = rng.random((30, 60)) < 0.6
    tested[:, 0] = False
    found = matched.significant(p, tested, 0.05)
    assert found.any() and not found[~tested].any()
    for spot in range(60):
        expected = localp.adjusted(p[tested[:, spot], spot]) <= 0.05 + 1e-12
        assert np.array_equal(found[tested[:, spot], spot], expected)
