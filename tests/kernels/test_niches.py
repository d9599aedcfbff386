"""Surroundings, types that go together, and groups of sections."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from smeld.kernels import alongpath, niches
from smeld.kernels.fields import Bounds, gaussian_field
from smeld.kernels.graph import spatial_graph


@pytest.fixture(scope="module", autouse=True)
def few_patches() -> Iterator[None]:
    """Half the patches, for small sections: an eighth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alongpath, "N_PATCHES", 200)
        yield


def section(seed: int, n: int, n_types: int, log_odds: np.ndarray) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix]:
    """Positions, one-hot types drawn by ``log_odds(xy)``, averaging operator."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, np.sqrt(n / 2.5e-3), (n, 2))
    kind = (log_odds(xy) + rng.gumbel(size=(n, n_types))).argmax(axis=1)
    operator = niches.averaging(spatial_graph(xy, kind="knn", n_neighbors=15).connectivities)
    return xy, np.eye(n_types)[kind], operator


def pvalue(xy: np.ndarray, member: np.ndarray, operator: sparse.csr_matrix, reference: np.ndarray) -> niches.Together:
    """Type 0 split by the niches in ``reference``."""
    rows = np.flatnonzero(member[:, 0] == 0)
    around = niches.seen(operator, member, np.random.default_rng(0))
    kind = niches.Kind(0, rows, np.arange(1, member.shape[1]), reference[rows])
    where = np.zeros(len(xy), dtype=np.intp)
    return niches.together(xy, member, around, kind, section=where, seed=np.random.SeedSequence(0))


def test_shares_are_those_by_hand_and_cells_without_a_type_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 100, (40, 2))
    member = np.eye(3)[rng.integers(0, 3, 40)]
    member[:5] = 0
    graph = spatial_graph(xy, kind="knn", n_neighbors=4).connectivities
    dense = graph.toarray() + np.eye(40)
    dense /= dense.sum(axis=1, keepdims=True)
    by_hand = dense @ dense @ member
    found = niches.shares(niches.averaging(graph), member, 2)
    np.testing.assert_allclose(found, by_hand / by_hand.sum(axis=1, keepdims=True), rtol=1e-12)
    assert niches.independent(niches.averaging(graph)) == pytest.approx(np.trace(dense @ dense))


def test_surroundings_without_a_label_get_the_mean_of_all() -> None:
    found = niches.closed(np.array([[2.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))
    np.testing.assert_allclose(found, [[1, 0], [0.75, 0.25], [0.5, 0.5]])


def test_reliable_axes_hold_what_both_halves_see() -> None:
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((500, 1)) @ np.array([[1.0, -1.0, 0.0, 0.0]])
    first, second = (signal + rng.standard_normal((500, 4)) * [0.5, 0.5, 3, 1.5] for _ in range(2))
    axes = niches.reliable((first + second) / 2, first, second)
    assert axes.shape == (4, 1)
    assert abs(axes[:, 0] @ np.array([1, -1, 0, 0]) / np.sqrt(2)) > 0.9


def test_types_that_go_together_are_found() -> None:
    def log_odds(xy: np.ndarray) -> np.ndarray:
        left = np.sin(xy[:, 0] / 90) + np.sin(xy[:, 1] / 90) > 0
        apart = np.where(left[:, None], [0, 1.0, 1.0, 0, 0], [0, 0, 0, 1.0, 1.0])
        return apart

    xy, member, operator = section(3, 1500, 5, log_odds)
    left = (np.sin(xy[:, 0] / 90) + np.sin(xy[:, 1] / 90) > 0).astype(float)
    found = pvalue(xy, member, operator, np.stack([left, 1 - left], axis=1))
    assert np.isnan(found.pvalue[0])  # the type itself is not asked about
    assert niches.combined(found.pvalue) < 1e-4
    # the niches made without a type are lined up with those given
    np.testing.assert_array_equal(np.sign(found.effect[1:, 0]), [1, 1, -1, -1])
    np.testing.assert_allclose(found.effect[1:, 0], -found.effect[1:, 1], atol=1e-9)


def test_more_than_twelve_types_are_left_out_a_sixth_at_a_time() -> None:
    folds = niches._folds(np.arange(1, 15), np.arange(1, 15))
    assert len(folds) == niches.N_FOLDS
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(1, 15))
    assert [len(fold) for fold in niches._folds(np.arange(1, 13), np.arange(1, 13))] == [1] * 12

    def log_odds(xy: np.ndarray) -> np.ndarray:
        left = (np.sin(xy[:, 0] / 90) + np.sin(xy[:, 1] / 90) > 0)[:, None]
        return np.where(left, np.r_[2, [2.0] * 7, [0.0] * 7], np.r_[2, [0.0] * 7, [2.0] * 7])

    xy, member, operator = section(4, 900, 15, log_odds)
    left = (np.sin(xy[:, 0] / 90) + np.sin(xy[:, 1] / 90) > 0).astype(float)
    found = pvalue(xy, member, operator, np.stack([left, 1 - left], axis=1))
    assert np.isfinite(found.pvalue[1:]).all()
    assert niches.combined(found.pvalue) < 1e-3
    np.testing.assert_array_equal(np.sign(found.effect[1:, 0]), [1] * 7 + [-1] * 7)


def test_one_p_of_several_is_that_of_benjamini_and_yekutieli() -> None:
    p = np.array([0.02, 0.001, np.nan, 0.5])
    assert niches.combined(p) == pytest.approx(0.001 * 3 * (1 + 1 / 2 + 1 / 3))
    assert np.isnan(niches.combined(np.full(2, np.nan)))


def test_types_with_patches_of_their_own_are_not_taken_for_niches() -> None:
    """Smooth fields, independent of each other: niches can be drawn, and mean nothing. Seeds 300 to 302."""
    called = []
    for seed in range(300, 303):

        def log_odds(xy: np.ndarray, seed: int = seed) -> np.ndarray:
            bounds = Bounds.around(xy)
            fields = [gaussian_field(bounds, 100.0, np.random.default_rng([seed, u])).at(xy) for u in range(5)]
            return np.stack(fields, axis=1)

        xy, member, operator = section(seed, 400, 5, log_odds)
        around = niches.shares(operator, member, 2)
        # the niche that cuts best: where the type of the most uneven shares is common
        most = around[:, 1 + around[:, 1:].var(axis=0).argmax()]
        common = (most > np.median(most)).astype(float)
        found = pvalue(xy, member, operator, np.stack([common, 1 - common], axis=1))
        called.append(niches.combined(found.pvalue))
    assert min(called) > 0.01


def test_the_answer_does_not_hang_on_the_order_of_types_that_are_not_there() -> None:
    xy, member, operator = section(5, 200, 4, lambda xy: np.zeros((len(xy), 4)))
    wider = np.hstack([member, np.zeros((200, 2))])
    reference = np.eye(2)[(xy[:, 0] > 140).astype(int)]
    rows = np.flatnonzero(member[:, 0] == 0)
    where = np.zeros(200, dtype=np.intp)
    got = []
    for table in (member, wider):
        around = niches.seen(operator, table, np.random.default_rng(0))
        kind = niches.Kind(0, rows, np.arange(1, 4), reference[rows])
        got.append(niches.together(xy, table, around, kind, section=where, seed=np.random.SeedSequence(0)).pvalue[1:4])
    np.testing.assert_allclose(got[0], got[1], rtol=1e-6)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_welch_is_that_of_scipy(n_first: int, n_second: int, seed: int) -> None:
    ratio = np.random.default_rng(seed).standard_normal((n_first + n_second, 3))
    second = np.arange(n_first + n_second) >= n_first
    found = niches.compared(ratio, second, permute=False, seed=0)
    oracle = stats.ttest_ind(ratio[second], ratio[~second], equal_var=False)
    interval = oracle.confidence_interval()
    np.testing.assert_allclose(found.pvalue, oracle.pvalue, rtol=1e-9)
    np.testing.assert_allclose([found.low, found.high], [interval.low, interval.high], rtol=1e-9)


def test_permutation_is_the_share_of_all_partings() -> None:
    ratio = np.random.default_rng(2).standard_normal((7, 2)) + np.arange(7)[:, None] * [0.5, 0.0]
    second = np.arange(7) >= 4
    oracle = []
    for column in ratio.T:
        t = [
            abs(stats.ttest_ind(column[list(c)], np.delete(column, c), equal_var=False).statistic)
            for c in combinations(range(7), 3)
        ]
        observed = abs(stats.ttest_ind(column[second], column[~second], equal_var=False).statistic)
        oracle.append(np.mean(np.array(t) >= observed - 1e-9))
    found = niches.compared(ratio, second, permute=True, seed=0)
    np.testing.assert_allclose(found.pvalue, oracle)
    assert niches.least_pvalue(3, 3) == pytest.approx(0.1)
    assert niches.least_pvalue(3, 4) == pytest.approx(1 / 35)


def test_groups_of_one_section_have_no_p() -> None:
    found = niches.compared(
        np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]), np.array([False, True, True]), permute=False, seed=0
    )
    assert np.isnan(found.pvalue).all()
    np.testing.assert_allclose(found.difference, [0.75, -0.75])


@given(st.floats(0.1, 10), st.integers(0, 100))
@settings(max_examples=25, deadline=None)
def test_log_ratios_do_not_change_with_the_number_of_cells(times: float, seed: int) -> None:
    number = np.random.default_rng(seed).uniform(1e4, 1e6, (4, 5))
    np.testing.assert_allclose(niches.log_ratios(number), niches.log_ratios(number * times), atol=1e-3)


def test_one_type_that_grows_leaves_the_others_where_they_were() -> None:
    number = np.tile([500.0, 400, 300, 200, 100], (2, 1))
    number[1, 0] *= 10
    first, second = niches.log_ratios(number)
    np.testing.assert_allclose(second - first, [np.log(5000.5 / 500.5), 0, 0, 0, 0], atol=1e-12)
