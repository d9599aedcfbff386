"""Orders from a root against dense algebra, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import kendalltau, rankdata

from smeld.kernels import ordering
from smeld.kernels.ordering import Candidate

Float = np.ndarray
CANDIDATES = [Candidate(k, share) for k in (10, 25) for share in (0.25, 0.75)]


def cloud(n: int, d: int = 4, seed: int = 0) -> Float:
    return np.random.default_rng(seed).normal(size=(n, d))


def walk_of(n: int, *, seed: int = 0) -> sparse.csr_matrix:
    return ordering.expression_walk(cloud(n, seed=seed), 8)


def band(n: int = 300, seed: int = 0) -> tuple[Float, Float, sparse.csr_matrix]:
    """Where on a band each point lies, features that follow it, and a walk between neighbours in space."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 1, n))
    features = np.c_[np.cos(3 * t), np.sin(3 * t), t] + rng.normal(0, 0.03, (n, 3))
    return t, features, ordering.expression_walk(np.c_[8 * t, rng.uniform(0, 1, n)], 6)


def some(n: int, *cells: int) -> Float:
    out = np.zeros(n, dtype=bool)
    out[list(cells)] = True
    return out


def transitions(walk: sparse.csr_matrix) -> Float:
    dense = walk.toarray()
    return dense / dense.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------------------ the walks


def slow_walk(features: Float, k: int) -> Float:
    n = len(features)
    away = np.linalg.norm(features[:, None] - features[None], axis=2)
    near = np.array([[j for j in np.argsort(row) if j != i][:k] for i, row in enumerate(away)])
    width = np.array([away[i, near[i, -1]] for i in range(n)])
    made = np.zeros((n, n))
    for i in range(n):
        for j in near[i]:
            made[i, j] = np.exp(-(away[i, j] ** 2) / (width[i] * width[j]))
    return slow_even(np.maximum(made, made.T))


def slow_even(weights: Float) -> Float:
    made = weights.copy()
    np.fill_diagonal(made, 0.0)
    degree = made.sum(axis=1)
    made = np.array([[w / (a * b) if w else 0.0 for w, b in zip(row, degree)] for row, a in zip(made, degree)])
    return made * len(made) / made.sum()


@pytest.mark.parametrize("rows", [1024, 17])
def test_expression_walk_against_loops(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordering, "ROWS", rows)
    features = cloud(70)
    found = ordering.expression_walk(features, 9)
    assert found.toarray() == pytest.approx(slow_walk(features, 9))
    assert abs(found - found.T).max() < 1e-15 and not found.diagonal().any()
    assert found.sum() == pytest.approx(70) and found.has_sorted_indices


def test_even_divides_by_both_degrees_and_leaves_lone_points_alone() -> None:
    rng = np.random.default_rng(0)
    weights = np.triu(rng.uniform(size=(30, 30)) * (rng.uniform(size=(30, 30)) < 0.3))
    weights = weights + weights.T
    weights[4] = weights[:, 4] = 0.0
    before = weights.copy()
    given = sparse.csr_matrix(weights)
    assert ordering.even(given).toarray() == pytest.approx(slow_even(weights))
    assert given.toarray() == pytest.approx(before), "what is given is not changed"
    assert ordering.even(sparse.csr_matrix((5, 5))).nnz == 0


def test_more_neighbours_than_there_are_points() -> None:
    found = ordering.expression_walk(cloud(10), 60)
    assert (found.getnnz(axis=1) == 9).all()


def test_points_all_alike_are_all_joined_as_well_as_any() -> None:
    found = ordering.expression_walk(np.ones((40, 3)), 8)
    assert np.isfinite(found.data).all() and (found.getnnz(axis=1) >= 8).all()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_walk_does_not_depend_on_scale_place_or_turn(scale: float) -> None:
    features = cloud(80)
    turn = np.linalg.qr(cloud(4, 4, seed=5))[0]
    moved = scale * (features @ turn) + 100 * scale
    assert ordering.expression_walk(moved, 10).toarray() == pytest.approx(
        ordering.expression_walk(features, 10).toarray(), rel=1e-6, abs=1e-9
    )


def test_walk_of_points_far_from_the_origin() -> None:
    features = cloud(80)
    moved = ordering.expression_walk(features + 1e8, 10).toarray()
    assert moved == pytest.approx(ordering.expression_walk(features, 10).toarray(), rel=1e-4, abs=1e-6)


# -------------------------------------------------------------------------------------------------- the resolvent


@pytest.mark.parametrize("steps", [3.0, 15.0, 300.0])
@pytest.mark.parametrize("cells", [(0,), (3, 9, 40)])
def test_resolvent_against_a_dense_solve(steps: float, cells: tuple[int, ...]) -> None:
    walk, root = walk_of(60), some(60, *cells)
    p = transitions(walk)
    expected = np.linalg.solve(np.eye(60) + steps * (np.eye(60) - p), root.astype(float))
    assert np.exp(-ordering.resolvent(walk, root, steps)) == pytest.approx(expected, rel=1e-9)


def test_resolvent_is_where_walks_of_random_length_end() -> None:
    walk, root, steps = walk_of(40), some(40, 2, 5), 4.0
    p, at, expected = transitions(walk), root.astype(float), np.zeros(40)
    for k in range(400):
        expected += (1 / (1 + steps)) * (steps / (1 + steps)) ** k * at
        at = p @ at
    assert np.exp(-ordering.resolvent(walk, root, steps)) == pytest.approx(expected, rel=1e-9)


def test_resolvent_along_a_path_grows_with_every_step() -> None:
    path = sparse.diags([np.ones(49), np.ones(49)], [1, -1], format="csr")
    found = ordering.resolvent(path, some(50, 0), 20.0)
    assert (np.diff(found) > 0).all()
    assert ordering.resolvent(7.5 * path, some(50, 0), 20.0) == pytest.approx(found), "weights matter by their ratio"


def test_what_no_walk_reaches_is_furthest() -> None:
    walk = sparse.block_diag([walk_of(40), walk_of(30)], format="csr")
    found = ordering.resolvent(walk, some(70, 0), 5.0)
    assert np.isfinite(found).all() and found[40:].min() > found[:40].max()


@given(st.integers(2, 5000), st.sampled_from([0.0, 0.25, 0.98, 1.0]))
def test_walks_are_as_long_as_the_section_asks(n: int, share: float) -> None:
    made = Candidate(10, share)
    assert made.steps(n) >= ordering.FEWEST_STEPS
    assert made.steps(3 * n) >= made.steps(n), "longer where there are more points"
    if n > ordering.STEPS_ALONE * ordering.FEWEST_STEPS:
        per = ordering.STEPS_ALONE if share == 1 else ordering.STEPS
        assert made.steps(n) == pytest.approx(n / per)
        assert made.steps(3 * n) == pytest.approx(3 * made.steps(n))
        assert Candidate(10, 1.0).steps(n) < Candidate(10, 0.98).steps(n), "by space alone short"
    assert Candidate(60, share, 0.3).steps(n) == made.steps(n), "neighbours and smoothing have no say in it"


# ---------------------------------------------------------------------------------------------- ranks and orders


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 5)), min_size=2, max_size=30))
def test_ranks_are_those_of_the_cells_that_points_stand_for(points: list[tuple[int, int]]) -> None:
    values, size = np.array(points, dtype=float).T
    found = ordering.ranks(values, size)
    cells = rankdata(np.repeat(values, size.astype(int)), method="average")
    if cells.max() == cells.min():
        assert (found == 0.5).all()
    else:
        expected = (cells - cells.min()) / (cells.max() - cells.min())
        assert np.repeat(found, size.astype(int)) == pytest.approx(expected)
    assert ordering.ranks(np.exp(values), size) == pytest.approx(found), "only the order matters"
    assert ordering.ranks(-values, size) == pytest.approx(1 - found)


def test_orders_recover_a_band_and_agree_with_their_parts() -> None:
    t, features, space = band()
    root, size = t < 0.05, np.ones(len(t))
    found = ordering.orders({1.0: features}, space, root, size, CANDIDATES)
    for order in found:
        assert kendalltau(order, t)[0] > 0.9
        assert order.min() == 0 and order.max() == 1
    mixed = sparse.csr_matrix(0.75 * ordering.expression_walk(features, 10) + 0.25 * space)
    assert (found[0] == ordering.ranks(ordering.resolvent(mixed, root, CANDIDATES[0].steps(len(t))), size)).all()
    mixed = sparse.csr_matrix(0.25 * ordering.expression_walk(features, 25) + 0.75 * space)
    assert (found[3] == ordering.ranks(ordering.resolvent(mixed, root, CANDIDATES[3].steps(len(t))), size)).all()


def test_renumbering_points_renumbers_orders() -> None:
    t, features, space = band(150)
    root, size = t < 0.1, np.random.default_rng(1).integers(1, 5, len(t)).astype(float)
    p = np.random.default_rng(2).permutation(len(t))
    found = ordering.orders({1.0: features}, space, root, size, CANDIDATES)
    again = ordering.orders({1.0: features[p]}, sparse.csr_matrix(space[p][:, p]), root[p], size[p], CANDIDATES)
    assert np.abs(again - found[:, p]).max() < 0.01


def test_orders_do_not_depend_on_the_scale_place_or_turn_of_features() -> None:
    t, features, space = band(150)
    root, size = t < 0.1, np.ones(len(t))
    turn = np.linalg.qr(cloud(3, 3))[0]
    found = ordering.orders({1.0: features}, space, root, size, CANDIDATES)
    again = ordering.orders({1.0: 5 * features @ turn + 100}, space, root, size, CANDIDATES)
    assert np.abs(again - found).max() < 0.01


def test_the_share_of_space_decides_whose_neighbours_count() -> None:
    rng = np.random.default_rng(0)
    n = 200
    here, alike = rng.permutation(n) / n, rng.permutation(n) / n  # two orders that know nothing of each other
    space = ordering.expression_walk(here[:, None], 6)
    for truth, good, bad in ((here, 1.0, 0.0), (alike, 0.0, 1.0)):
        by = [Candidate(6, share) for share in (good, bad)]
        found = ordering.orders({1.0: alike[:, None]}, space, truth < 0.1, np.ones(n), by)
        right, wrong = (kendalltau(order, truth)[0] for order in found)
        assert right > 0.9 > 0.3 > wrong


def test_features_by_smoothing_and_space_by_itself() -> None:
    t, features, space = band(150)
    root, size = t < 0.1, np.ones(len(t))
    half, less = Candidate(10, 0.5), Candidate(10, 0.5, 0.5)
    blurred = ordering.orders({1.0: features, 0.5: features[::-1]}, space, root, size, [half])
    assert (blurred == ordering.orders({1.0: features}, space, root, size, [half])).all()
    other = ordering.orders({1.0: features[::-1], 0.5: features}, space, root, size, [less])
    assert (blurred == other).all(), "each candidate has the features of its smoothing"
    both = ordering.orders({1.0: features, 0.5: features[::-1]}, space, root, size, [less, half])
    assert (both[1] == blurred[0]).all() and (both[0] != blurred[0]).any()
    alone = ordering.orders({}, space, root, size, [Candidate(10, 1.0)])[0]
    assert (alone == ordering.ranks(ordering.resolvent(space, root, Candidate(10, 1.0).steps(len(t))), size)).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_dense_and_sparse_solves_say_the_same(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    walk, root = walk_of(90), some(90, 1, 2)
    p = transitions(walk)
    expected = -np.log(np.linalg.solve(np.eye(90) + 30 * (np.eye(90) - p), root.astype(float)))
    monkeypatch.setattr(ordering, "DENSE", share)
    assert ordering.resolvent(walk, root, 30.0) == pytest.approx(expected, rel=1e-9)
