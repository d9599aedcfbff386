"""Join counts and their moments against brute force; the test's errors; assortativity against Newman's and Cohen's."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse, stats

from smeld.kernels import contiguity
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]
Int = NDArray[np.intp]


def random_graph(n: int, share: float, rng: np.random.Generator) -> sparse.csr_matrix:
    upper = np.triu(rng.random((n, n)) < share, 1)
    return sparse.csr_matrix((upper | upper.T).astype(float))


def counted(labels: Int, graph: sparse.csr_matrix, k: int) -> Float:
    """Edges that join like with like, by label and together, one by one."""
    out = np.zeros(k + 1)
    for i, j in zip(*graph.nonzero()):
        if i < j and labels[i] == labels[j] >= 0:
            out[labels[i]] += 1
            out[k] += 1
    return out


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 3, 3], [0, 0, 0, 0, 0, 0]])
@pytest.mark.parametrize("seed", range(3))
def test_moments_equal_those_over_all_permutations(labels: list[int], seed: int) -> None:
    graph = random_graph(6, 0.5, np.random.default_rng(seed))
    k = max(labels) + 1
    every = np.stack([counted(np.asarray(p), graph, k) for p in set(permutations(labels))])
    found = contiguity.join_counts(np.asarray(labels, dtype=np.intp), graph)
    assert found.observed == pytest.approx(counted(np.asarray(labels), graph, k))
    assert found.expected == pytest.approx(every.mean(axis=0))
    assert found.variance == pytest.approx(every.var(axis=0), abs=1e-9)


@pytest.mark.parametrize(("n", "labels"), [(2, [0, 0]), (2, [0, 1]), (3, [0, 0, 1])])
def test_moments_of_very_few_spots(n: int, labels: list[int]) -> None:
    graph = sparse.csr_matrix(np.ones((n, n)) - np.eye(n))
    k = max(labels) + 1
    every = np.stack([counted(np.asarray(p), graph, k) for p in set(permutations(labels))])
    found = contiguity.join_counts(np.asarray(labels, dtype=np.intp), graph)
    assert found.expected == pytest.approx(every.mean(axis=0)) and found.variance == pytest.approx(every.var(axis=0))


def test_moments_within_sections_equal_simulated_ones() -> None:
    rng = np.random.default_rng(0)
    graph, section = random_graph(40, 0.2, rng), np.repeat([0, 1], [15, 25])
    labels = np.r_[rng.integers(0, 2, 15), rng.integers(0, 4, 25)].astype(np.intp)
    inside = sparse.csr_matrix(graph.multiply(section[:, None] == section))
    drawn = []
    for _ in range(4000):
        mixed = np.r_[rng.permutation(labels[:15]), rng.permutation(labels[15:])]
        drawn.append(np.asarray([((mixed == r) @ inside @ (mixed == r)) / 2 for r in range(4)]))
    each = np.column_stack([drawn, np.sum(drawn, axis=1)])
    found = contiguity.join_counts(labels, graph, section=section)
    assert found.observed == pytest.approx(counted(labels, inside, 4))
    assert np.abs(found.expected - each.mean(axis=0)).max() < 5 * np.sqrt(found.variance.max() / 4000)
    assert found.variance == pytest.approx(each.var(axis=0), rel=0.12)


@given(st.integers(4, 60), st.integers(0, 500))
def test_missing_labels_are_as_if_their_spots_were_not_there(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, graph = rng.integers(-1, 3, n), random_graph(n, 0.2, rng)
    labels[:3] = [0, 1, 2]
    known = labels >= 0
    xy = rng.uniform(0, 1, (n, 2))
    rest = sparse.csr_matrix(graph[known][:, known])
    one, two = contiguity.join_counts(labels, graph), contiguity.join_counts(labels[known], rest)
    assert one.observed.tolist() == two.observed.tolist() and one.variance.tolist() == two.variance.tolist()
    for a, b in zip(
        contiguity.assortativity(labels, graph, xy), contiguity.assortativity(labels[known], rest, xy[known])
    ):
        assert a == pytest.approx(b, nan_ok=True)


@given(st.integers(4, 80), st.integers(0, 500))
def test_permuting_spots_and_naming_labels_anew(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 100, (n, 2))
    labels, graph = rng.integers(0, 3, n), spatial_graph(xy, n_neighbors=4).connectivities
    labels[:3] = [0, 1, 2]
    order, named = rng.permutation(n), np.array([2, 0, 1])
    moved = sparse.csr_matrix(graph[order][:, order])
    back = np.append(named, 3)
    one, two = contiguity.join_counts(labels, graph), contiguity.join_counts(named[labels[order]], moved)
    assert two.observed[back].tolist() == one.observed.tolist()
    assert two.zscore[back] == pytest.approx(one.zscore, nan_ok=True)
    first = contiguity.assortativity(labels, graph, xy)
    second = contiguity.assortativity(named[labels[order]], moved, xy[order])
    for a, b in zip(first, second):
        assert b[back] == pytest.approx(a, nan_ok=True)


def test_weights_and_self_edges_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    graph, labels = random_graph(30, 0.3, rng), rng.integers(0, 3, 30)
    heavy = graph.copy()
    heavy.data = rng.uniform(1, 9, heavy.nnz)
    heavy = sparse.csr_matrix(heavy + sparse.eye(30))
    one, two = contiguity.join_counts(labels, graph), contiguity.join_counts(labels, heavy)
    assert one.observed.tolist() == two.observed.tolist() and one.expected.tolist() == two.expected.tolist()


def lattice(side: int) -> tuple[Float, sparse.csr_matrix]:
    y, x = np.mgrid[:side, :side]
    xy = 100.0 * np.c_[x.ravel() + 0.5 * (y.ravel() % 2), np.sqrt(0.75) * y.ravel()]
    return xy, spatial_graph(xy).connectivities


@pytest.mark.parametrize("share", [[0.25] * 4, [0.6, 0.3, 0.08, 0.02]])
def test_five_percent_of_random_labellings_are_called_contiguous(share: list[float]) -> None:
    rng = np.random.default_rng(0)
    _, graph = lattice(20)
    labels = rng.choice(4, 400, p=share)
    draws = [contiguity.join_counts(rng.permutation(labels), graph) for _ in range(1000)]
    z = np.stack([d.zscore for d in draws])
    called = (np.stack([d.pvalue for d in draws]) < 0.05).mean(axis=0)
    assert 0.035 < called[-1] < 0.07
    assert (called < 0.075).all()  # of rare labels fewer, for their joins are few whole numbers
    assert np.abs(z.mean(axis=0)).max() < 0.15 and z.std(axis=0) == pytest.approx(np.ones(5), abs=0.08)


def test_rare_labels_are_not_called_for_one_chance_neighbour() -> None:
    """Ten spots of 2,500: one join, which one random labelling in ten has, is a z-score of nearly 3."""
    rng = np.random.default_rng(1)
    _, graph = lattice(50)
    labels = np.r_[np.zeros(2490), np.ones(10)].astype(np.intp)
    found = [contiguity.join_counts(rng.permutation(labels), graph) for _ in range(600)]
    assert np.mean([d.zscore[1] > 1.65 for d in found]) > 0.08
    assert np.mean([d.pvalue[1] < 0.05 for d in found]) < 0.03


def test_pvalues() -> None:
    found = contiguity.Joins(
        np.array([50, 5, 1]), np.ones(3), np.array([130.0, 3, 0]), np.array([100.0, 1, 0]), np.array([100.0, 1, 0])
    )
    assert found.pvalue[:2] == pytest.approx([stats.norm.sf(3.0), stats.poisson.sf(2, 1.0)])
    assert np.isnan(found.zscore[2]) and np.isnan(found.pvalue[2])
    far = contiguity.Joins(np.array([9]), np.ones(1), np.array([1e4]), np.array([100.0]), np.array([100.0]))
    assert 0 < far.pvalue[0] < 1e-300


def test_assortativity_is_one_for_regions_apart_and_zero_at_random() -> None:
    xy, graph = lattice(40)
    apart = np.r_[np.zeros(50), np.ones(50)].astype(np.intp)
    two = sparse.block_diag([random_graph(50, 0.3, np.random.default_rng(s)) for s in (0, 1)], format="csr")
    assert contiguity.assortativity(apart, two, np.random.default_rng(0).normal(size=(100, 2)))[0] == pytest.approx(1)
    rng = np.random.default_rng(0)
    value, se = contiguity.assortativity(rng.integers(0, 4, 1600), graph, xy)
    assert np.abs(value).max() < 0.06 and (np.abs(value) < 4 * se).all()


def test_assortativity_agrees_with_newmans_where_degrees_are_equal() -> None:
    """(trace e - sum a^2) / (1 - sum a^2) of the mixing matrix e, on a torus; of permutation: up to 1 / n."""
    side = 30
    y, x = (a.ravel() for a in np.mgrid[:side, :side])
    right, down = y * side + (x + 1) % side, ((y + 1) % side) * side + x
    here = np.arange(side**2)
    graph = sparse.csr_matrix((np.ones(2 * side**2), (np.r_[here, here], np.r_[right, down])), shape=(side**2,) * 2)
    graph = sparse.csr_matrix(graph + graph.T)
    labels = ((x // 5) + (np.random.default_rng(0).random(side**2) < 0.2)) % 4
    one_hot = np.eye(4)[labels]
    e = one_hot.T @ graph @ one_hot / graph.sum()
    newman = (np.trace(e) - (e.sum(axis=0) ** 2).sum()) / (1 - (e.sum(axis=0) ** 2).sum())
    value, _ = contiguity.assortativity(labels.astype(np.intp), graph, np.c_[x, y].astype(float))
    assert value[-1] == pytest.approx(newman, abs=2 / side**2)


def test_assortativity_and_z_tell_the_same_counts() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1, (300, 2))
    graph = spatial_graph(xy).connectivities
    labels, section = (xy[:, 0] * 5).astype(np.intp), (xy[:, 1] > 0.4).astype(np.intp)
    joins = contiguity.join_counts(labels, graph, section=section)
    o, e = joins.observed[-1] / joins.edges[-1], joins.expected[-1] / joins.edges[-1]
    value, _ = contiguity.assortativity(labels, graph, xy, section=section)
    assert value[-1] == pytest.approx((o - e) / (1 - e))
    assert joins.edges[:-1].sum() == joins.edges[-1]


def test_a_chequerboard_shuns_itself() -> None:
    y, x = (a.ravel() for a in np.mgrid[:20, :20])
    near = sparse.csr_matrix((np.abs(x[:, None] - x) + np.abs(y[:, None] - y) == 1).astype(float))
    value, _ = contiguity.assortativity(((x + y) % 2).astype(np.intp), near, np.c_[x, y].astype(float))
    assert value == pytest.approx(-np.ones(3), abs=0.01)
    star = np.zeros((10, 10))
    star[0, 1:] = star[1:, 0] = 1
    labels = np.r_[0, np.ones(9)].astype(np.intp)
    value, _ = contiguity.assortativity(labels, sparse.csr_matrix(star), np.random.default_rng(0).normal(size=(10, 2)))
    assert value[-1] == -1.0


def test_what_has_no_assortativity() -> None:
    xy, graph = lattice(10)
    same, _ = contiguity.assortativity(np.zeros(100, dtype=np.intp), graph, xy)
    assert np.isnan(same).all()
    lone = np.r_[1, np.zeros(99)].astype(np.intp)
    assert np.isnan(contiguity.assortativity(lone, graph, xy)[0][1])
    nothing = contiguity.join_counts(np.full(100, -1), graph)
    assert nothing.edges.tolist() == [0.0] and np.isnan(nothing.zscore).all()


def test_standard_error_tells_the_spread_over_tissues() -> None:
    """Stripes of uneven width, drawn anew: the jackknife's standard error against the spread of the values."""
    xy, graph = lattice(40)
    values, errors = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        centres = rng.uniform(0, 4000, (30, 2)) * [1, 0.87]
        nearest = ((xy[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
        value, se = contiguity.assortativity(rng.integers(0, 4, 30)[nearest].astype(np.intp), graph, xy)
        values.append(value[-1])
        errors.append(se[-1])
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.4)


def test_blocks_lie_in_one_section_each() -> None:
    xy = np.random.default_rng(0).uniform(0, 1, (500, 2))
    section = np.repeat([0, 2, 3], [100, 300, 100])
    block = contiguity.spatial_blocks(xy, section)
    assert all(len(set(section[block == b])) == 1 for b in range(block.max() + 1))
    assert len(np.unique(block)) == block.max() + 1 >= 12


def test_a_graph_of_other_spots_is_refused() -> None:
    with pytest.raises(ValueError, match="3 labels do not fit a graph of 2 x 2"):
        contiguity.join_counts(np.zeros(3, dtype=np.intp), sparse.csr_matrix((2, 2)))
