"""Points that stand for a section: a partition, weights that are sums, and a way back that mixes only what is alike."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial import cKDTree

from smeld.kernels import coarse

Float = np.ndarray


def section(n: int, *, seed: int = 0, n_sections: int = 1) -> tuple[Float, np.ndarray, sparse.csr_matrix]:
    """Positions, sections in turn, and random symmetric weights between the near within each."""
    rng = np.random.default_rng(seed)
    xy, number = rng.uniform(0, 1000, (n, 2)), np.arange(n) % n_sections
    near = cKDTree(np.c_[xy, 1e6 * number]).query(np.c_[xy, 1e6 * number], k=min(6, n))[1]
    made = sparse.csr_matrix((rng.uniform(0.1, 1, near.size), (np.repeat(np.arange(n), near.shape[1]), near.ravel())))
    made.setdiag(0)
    made = sparse.csr_matrix(made.maximum(made.T))
    made.eliminate_zeros()
    made.sort_indices()
    return xy, number, made


def test_enough_points_leave_the_section_as_it_is() -> None:
    xy, number, weights = section(50)
    made = coarse.coarsened(xy, number, weights, 50)
    assert (made.leaf == np.arange(50)).all() and (made.at == np.arange(50)).all() and (made.size == 1).all()
    assert (made.weights != weights).nnz == 0
    back = coarse.extension(made, xy, number, xy)
    assert (back != sparse.identity(50)).nnz == 0


@given(st.integers(20, 400), st.integers(3, 60), st.integers(1, 3), st.integers(0, 5))
def test_parts_are_a_partition_of_every_section_by_itself(n: int, most: int, n_sections: int, seed: int) -> None:
    xy, number, weights = section(n, seed=seed, n_sections=n_sections)
    made = coarse.coarsened(xy, number, weights, most)
    n_points = len(made.at)
    assert n_points <= max(most, n_sections)
    assert (np.bincount(made.leaf, minlength=n_points) == made.size).all() and made.size.sum() == n
    assert (made.leaf[made.at] == np.arange(n_points)).all(), "the cell that stands for a part lies in it"
    if n > most:
        assert n_points > most / 4, "as many points as there may be, to within halvings"
        assert (number[made.at][made.leaf] == number).all(), "no part reaches over two sections"
        for s in range(n_sections):
            sizes = made.size[number[made.at] == s]
            assert sizes.max() - sizes.min() <= 1, "halving leaves parts of equal size"


@pytest.mark.parametrize("n_sections", [1, 2])
def test_weights_are_those_of_the_cells_summed(n_sections: int) -> None:
    xy, number, weights = section(150, n_sections=n_sections)
    made = coarse.coarsened(xy, number, weights, 20)
    n_points = len(made.at)
    member = np.zeros((150, n_points))
    member[np.arange(150), made.leaf] = 1.0
    expected = member.T @ weights.toarray() @ member
    np.fill_diagonal(expected, 0.0)
    assert made.weights.toarray() == pytest.approx(expected)
    assert (made.weights != made.weights.T).nnz == 0 or abs(made.weights - made.weights.T).max() < 1e-12
    assert made.weights.has_sorted_indices and (made.weights.data > 0).all()


def test_means_and_middles_by_hand() -> None:
    xy, number, weights = section(100)
    made = coarse.coarsened(xy, number, weights, 10)
    values = np.random.default_rng(0).normal(size=(100, 3))
    means = made.mean(values)
    for k in range(len(made.at)):
        mine = np.flatnonzero(made.leaf == k)
        assert means[k] == pytest.approx(values[mine].mean(axis=0))
        away = np.linalg.norm(xy[mine] - xy[mine].mean(axis=0), axis=1)
        assert made.at[k] == mine[away.argmin()]


def test_the_longer_side_is_halved() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1, (64, 2)) * [1000.0, 10.0]
    made = coarse.coarsened(xy, np.zeros(64, dtype=int), sparse.csr_matrix((64, 64)), 8)
    ranges = sorted((xy[made.leaf == k, 0].min(), xy[made.leaf == k, 0].max()) for k in range(8))
    assert all(a[1] < b[0] for a, b in pairwise(ranges)), "eight stretches one after the other"


@pytest.mark.parametrize("move", [lambda xy: xy + 500.0, lambda xy: 7.0 * xy, lambda xy: xy[:, ::-1]])
def test_parts_do_not_depend_on_where_or_how_large_the_section_is(move) -> None:
    xy, number, weights = section(200)
    first, second = coarse.coarsened(xy, number, weights, 30), coarse.coarsened(move(xy), number, weights, 30)
    assert (first.leaf == second.leaf).all() and (first.at == second.at).all()
    features = np.random.default_rng(1).normal(size=(200, 4))
    back = [coarse.extension(made, at, number, features) for made, at in ((first, xy), (second, move(xy)))]
    assert abs(back[0] - back[1]).max() < 1e-9


@pytest.mark.parametrize("n_sections", [1, 2])
def test_the_way_back_against_loops(n_sections: int) -> None:
    xy, number, weights = section(120, n_sections=n_sections, seed=3)
    features = np.random.default_rng(2).normal(size=(120, 3))
    made = coarse.coarsened(xy, number, weights, 40)
    found = coarse.extension(made, xy, number, features).toarray()
    expected = np.zeros_like(found)
    near, unlike = {}, {}
    for i in range(120):
        points = [p for p in range(len(made.at)) if number[made.at[p]] == number[i]]
        points.sort(key=lambda p: np.linalg.norm(xy[made.at[p]] - xy[i]))
        near[i] = points[: coarse.NEAREST]
        unlike[i] = [((features[made.at[p]] - features[i]) ** 2).sum() for p in near[i]]
    for i in range(120):
        typical = np.median([unlike[j] for j in range(120) if number[j] == number[i]])
        away = np.array([np.linalg.norm(xy[made.at[p]] - xy[i]) for p in near[i]])
        share = np.exp(-2 * (away / away[len(away) // 2]) ** 2 - np.array(unlike[i]) / typical)
        expected[i, near[i]] = share / share.sum()
    assert found == pytest.approx(expected)


def test_the_way_back_keeps_constants_and_does_not_mix_across_a_fold() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, (800, 2))
    side = (xy[:, 1] > 500).astype(float)  # two layers that touch, alike in nothing
    features = np.c_[6 * side, xy[:, 0] / 500] + rng.normal(0, 0.1, (800, 2))
    made = coarse.coarsened(xy, np.zeros(800, dtype=int), sparse.csr_matrix((800, 800)), 128)
    back = coarse.extension(made, xy, np.zeros(800, dtype=int), features)
    assert np.asarray(back.sum(axis=1)).ravel() == pytest.approx(np.ones(800))
    assert back @ np.full(len(made.at), 3.7) == pytest.approx(np.full(800, 3.7))
    assert np.abs(back @ side[made.at] - side).max() < 0.05
    assert np.mean(np.abs(back @ xy[made.at, 0] - xy[:, 0])) < 40, "a smooth field survives, a twelfth of a part's side"


def test_a_cell_unlike_all_others_still_has_points() -> None:
    xy, number, weights = section(300)
    features = np.random.default_rng(0).normal(size=(300, 4))
    features[7] = 500.0
    made = coarse.coarsened(xy, number, weights, 64)
    total = np.asarray(coarse.extension(made, xy, number, features).sum(axis=1)).ravel()
    assert total == pytest.approx(np.ones(300)), "a row of zeros would put the cell first of all"


def test_cells_on_top_of_one_another() -> None:
    xy, number = np.zeros((100, 2)), np.zeros(100, dtype=int)
    made = coarse.coarsened(xy, number, sparse.csr_matrix((100, 100)), 16)
    assert len(made.at) == 16 and made.size.sum() == 100
    back = coarse.extension(made, xy, number, np.zeros((100, 2)))
    assert np.asarray(back.sum(axis=1)).ravel() == pytest.approx(np.ones(100))
