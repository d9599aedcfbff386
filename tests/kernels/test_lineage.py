"""Fates and flows against dense solves, trees against what trees are, slopes on a plane."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from smeld.kernels import lineage, ordering

Float = np.ndarray


def walk_of(n: int, seed: int = 0, k: int = 6) -> sparse.csr_matrix:
    return ordering.expression_walk(np.random.default_rng(seed).normal(size=(n, 2)), k)


def order_of(n: int, seed: int = 0, *, ties: bool = False) -> Float:
    values = np.random.default_rng(100 + seed).uniform(size=n)
    return np.round(values, 1) if ties else values


# ---------------------------------------------------------------------------------------------------------- fates


def slow_fates(walk: Float, order: Float, end: np.ndarray, n_ends: int) -> Float:
    """The absorbing chain of steps to later points from which an end can be reached, as one dense solve."""
    n = len(order)
    forward = np.where(order[None] > order[:, None], walk, 0.0)
    forward[end >= 0] = 0.0
    alive = end >= 0
    for _ in range(n):
        alive = alive | (forward[:, alive].sum(axis=1) > 0)
    forward[:, ~alive] = 0.0
    total = forward.sum(axis=1)
    step = forward / np.where(total > 0, total, 1.0)[:, None]
    reward = np.zeros((n, n_ends))
    reward[np.flatnonzero(end >= 0), end[end >= 0]] = 1.0
    out = np.linalg.solve(np.eye(n) - step, reward)
    out[~alive] = np.nan
    return out


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_ends", [1, 3])
def test_fates_against_a_dense_solve(n_ends: int, ties: bool) -> None:
    walk, order = walk_of(80), order_of(80, ties=ties)
    end = np.full(80, -1)
    late = np.argsort(order)[-3 * n_ends :]
    end[late] = np.arange(3 * n_ends) % n_ends
    found = lineage.fates(walk, order, end, n_ends)
    expected = slow_fates(walk.toarray(), order, end, n_ends)
    known = np.isfinite(expected[:, 0])
    assert known.sum() > 40 and found[known] == pytest.approx(expected[known])
    assert found.sum(axis=1) == pytest.approx(np.ones(80)), "all points are joined: each has neighbours that know"


def slow_borrowed(walk: Float, known: Float) -> Float:
    """Ring by ring: a point without gets the mean, by weight, of its neighbours that had any in the ring before."""
    out = known.copy()
    while True:
        has = np.isfinite(out[:, 0])
        new = [i for i in np.flatnonzero(~has) if (walk[i, has] > 0).any()]
        if not new:
            return out
        rows = {i: np.average(out[has], axis=0, weights=walk[i, has]) for i in new}
        for i, row in rows.items():
            out[i] = row


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_points_that_lead_nowhere_borrow_from_their_neighbours(seed: int) -> None:
    parts = [walk_of(60, seed, 4), walk_of(30, 50 + seed, 4)]  # in the second part there is no terminal
    walk, order = sparse.block_diag(parts, format="csr"), order_of(90, seed)
    end = np.full(90, -1)
    early = np.argsort(order[:60])
    end[early[15:21]] = np.arange(6) % 3  # what lies after them leads nowhere
    found = lineage.fates(walk, order, end, 3)
    known = slow_fates(walk.toarray(), order, end, 3)
    lost = np.isnan(known[:60, 0])
    assert 20 < lost.sum() < 60
    assert found == pytest.approx(slow_borrowed(walk.toarray(), known), nan_ok=True)
    assert found[:60].sum(axis=1) == pytest.approx(np.ones(60)) and found[:60].min() >= 0
    assert np.isnan(found[60:]).all(), "no chain of neighbours knows any"


def test_what_is_borrowed_comes_from_many_rings_away() -> None:
    line = sparse.diags([np.ones(59), np.ones(59)], [1, -1], format="csr")
    end = np.full(60, -1)
    end[:2] = 0, 1
    found = lineage.fates(line, np.linspace(0, 1, 60), end, 2)
    assert found == pytest.approx(np.vstack([[1, 0], np.tile([0, 1], (59, 1))]))


def test_fates_of_a_fork_by_hand() -> None:
    #  0 - 1 - 2 (end A), 1 - 3 (end B) three times as heavy; 4 hangs on 0 and leads nowhere, 5 has no neighbour
    edges = {(0, 1): 1.0, (1, 2): 1.0, (1, 3): 3.0, (0, 4): 5.0}
    dense = np.zeros((6, 6))
    for (a, b), w in edges.items():
        dense[a, b] = dense[b, a] = w
    order, end = np.array([0.0, 0.3, 0.6, 0.7, 0.9, 0.5]), np.array([-1, -1, 0, 1, -1, -1])
    found = lineage.fates(sparse.csr_matrix(dense), order, end, 2)
    assert found[:4] == pytest.approx(np.array([[0.25, 0.75], [0.25, 0.75], [1, 0], [0, 1]]))
    assert found[4] == pytest.approx(found[0]), "it has what its neighbour has"
    assert np.isnan(found[5]).all()


def test_fates_of_renumbered_points() -> None:
    walk, order = walk_of(60), order_of(60)
    end = np.where(order > 0.9, 0, np.where((order > 0.8), 1, -1))
    p = np.random.default_rng(0).permutation(60)
    moved = sparse.csr_matrix(walk[p][:, p])
    moved.sort_indices()
    found = lineage.fates(walk, order, end, 2)
    assert lineage.fates(moved, order[p], end[p], 2) == pytest.approx(found[p], nan_ok=True)
    assert lineage.fates(walk, np.exp(3 * order), end, 2) == pytest.approx(found, nan_ok=True), "only the order matters"
    assert lineage.fates(9 * walk, order, end, 2) == pytest.approx(found, nan_ok=True)


# ---------------------------------------------------------------------------------------------------------- flows


def slow_flows(walk: Float, order: Float, node: np.ndarray, size: Float, n_nodes: int) -> Float:
    """For each point, the chain of steps to earlier points that stops at its own first step into another node."""
    n = len(order)
    back = np.where(order[None] < order[:, None], walk, 0.0)
    total = back.sum(axis=1)
    step = back / np.where(total > 0, total, 1.0)[:, None]
    out, weight = np.zeros((n_nodes, n_nodes)), np.zeros(n_nodes)
    for b in range(n_nodes):
        mine = np.flatnonzero(node == b)
        weight[b] = size[mine].sum()
        stops = (node >= 0) & (node != b)  # for a walk that is still in b, or in no node
        # what was left for points of no node and reached b again is not told apart: it ends there
        free = np.where(stops, False, True)
        again = np.zeros((n, n))  # from no node into b: an end, counted as b's own and dropped
        inside = node == b
        again[np.ix_(~inside & free, inside)] = step[np.ix_(~inside & free, inside)]
        go = step * free[:, None] * free[None] - again
        into = np.zeros((n, n_nodes))
        for k in range(n_nodes):
            into[:, k] = (step * free[:, None])[:, stops & (node == k)].sum(axis=1)
        ends = np.linalg.solve(np.eye(n) - go, into)
        if len(mine):
            out[b] = (size[mine, None] * ends[mine]).sum(axis=0) / weight[b]
    return out


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_flows_against_a_dense_solve(gaps: bool, seed: int) -> None:
    walk, order = walk_of(90, seed), order_of(90, seed)
    rng = np.random.default_rng(seed)
    node = np.minimum((order * 4).astype(int), 3)
    node[rng.uniform(size=90) < 0.2] = 2
    if gaps:
        node[rng.uniform(size=90) < 0.3] = -1
    size = rng.integers(1, 5, 90).astype(float)
    found = lineage.flows(walk, order, node, size, 5)
    assert found == pytest.approx(slow_flows(walk.toarray(), order, node, size, 5))
    assert (found >= 0).all() and (found.sum(axis=1) <= 1 + 1e-12).all() and not found.diagonal().any()
    assert not found[4].any(), "a node without points"


def test_flows_of_a_chain_lead_from_each_to_the_next() -> None:
    line = sparse.diags([np.ones(29), np.ones(29)], [1, -1], format="csr")
    order, node = np.linspace(0, 1, 30), np.repeat([0, 1, 2], 10)
    found = lineage.flows(line, order, node, np.ones(30), 3)
    assert found == pytest.approx(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    node[8:14] = -1  # passed through: node 1 is entered from 0 by way of points of no node
    assert lineage.flows(line, order, node, np.ones(30), 3) == pytest.approx(found)


# ---------------------------------------------------------------------------------------------------------- trees


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Float, Float, np.ndarray]:
    n = draw(st.integers(1, 8))
    cells = st.sampled_from([0.0, 0.0, 0.1, 0.4, 0.9])
    flow = np.array(draw(st.lists(st.lists(cells, min_size=n, max_size=n), min_size=n, max_size=n)))
    np.fill_diagonal(flow, 0.0)
    middle = np.array(draw(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.8, np.nan]), min_size=n, max_size=n)))
    starts = draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=3))
    return flow, middle, np.array(sorted(starts))


def reached(parent: np.ndarray, starts: np.ndarray) -> set[int]:
    found, more = set(starts.tolist()), True
    while more:
        grown = {k for k in range(len(parent)) if parent[k] in found} | found
        more, found = len(grown) > len(found), grown
    return found


@given(graphs())
def test_arborescence_has_no_cycle_and_follows_flows(given_: tuple[Float, Float, np.ndarray]) -> None:
    flow, middle, starts = given_
    parent = lineage.arborescence(flow, middle, starts)
    assert (parent[starts] == -1).all(), "nothing leads to a root"
    for k, p in enumerate(parent):
        if p >= 0:
            assert flow[k, p] > 0
        seen, at = set(), k
        while parent[at] >= 0:
            assert at not in seen, "a cycle"
            seen.add(at)
            at = int(parent[at])


@given(st.integers(2, 9), st.integers(0, 30))
def test_parents_of_largest_flow_where_all_is_in_order(n: int, seed: int) -> None:
    """Each node has flow from some earlier one: the tree of largest total flow, by trying all."""
    rng = np.random.default_rng(seed)
    middle = rng.permutation(n) / n
    starts = np.array([middle.argmin()])
    flow = np.where(middle[None] < middle[:, None], rng.uniform(0.05, 1, (n, n)), 0.0)
    parent = lineage.arborescence(flow, middle, starts)
    for b in range(n):
        if b not in starts:
            assert flow[b, parent[b]] == flow[b].max()
    assert reached(parent, starts) == set(range(n))


@given(graphs())
def test_arborescence_spans_whatever_flows_reach(given_: tuple[Float, Float, np.ndarray]) -> None:
    flow, middle, starts = given_
    could, more = set(starts.tolist()), True
    while more:
        grown = could | {b for b in range(len(flow)) for a in could if flow[b, a] > 0}
        more, could = len(grown) > len(could), grown
    assert reached(lineage.arborescence(flow, middle, starts), starts) == could


def test_a_node_entered_from_a_later_one_is_in_the_tree() -> None:
    flow = np.zeros((3, 3))
    flow[2, 0], flow[1, 2] = 0.6, 0.4  # 0 leads to 2, 2 leads to 1; the median of 1 lies before that of 2
    assert lineage.arborescence(flow, np.array([0.0, 0.5, 0.6]), np.array([0])).tolist() == [-1, 2, 0]


def test_of_two_roots_each_has_what_comes_from_it() -> None:
    flow = np.zeros((5, 5))
    flow[1, 0], flow[1, 3], flow[2, 3], flow[3, 0], flow[4, 2] = 0.6, 0.3, 0.5, 0.9, 0.2
    parent = lineage.arborescence(flow, np.array([0.0, 0.4, 0.5, 0.2, 0.8]), np.array([0, 3]))
    assert parent.tolist() == [-1, 0, 3, -1, 2]


@pytest.mark.parametrize(
    ("parent", "starts", "stretch", "ends"),
    [
        ([-1, 0, 1], [0], [0, 0, 0], [2]),
        ([-1, 0, 0, 1, 1], [0], [0, 1, 2, 3, 4], [2, 3, 4]),
        ([-1, 0, 1, 1, 2, 3], [0], [0, 0, 1, 2, 1, 2], [4, 5]),
        ([1, -1, 0, -1], [1], [0, 0, 0, -1], [2]),
        ([-1], [0], [0], [0]),
        ([-1, 0, 3, -1, 2], [0, 3], [0, 1, 2, 0, 2], [1, 4]),
    ],
)
def test_branches_by_hand(parent: list[int], starts: list[int], stretch: list[int], ends: list[int]) -> None:
    found, last = lineage.branches(np.array(parent), np.array(starts))
    assert found.tolist() == stretch and last.tolist() == ends


@given(graphs())
def test_branches_are_unbranched(given_: tuple[Float, Float, np.ndarray]) -> None:
    flow, middle, starts = given_
    parent = lineage.arborescence(flow, middle, starts)
    stretch, ends = lineage.branches(parent, starts)
    inside, first = reached(parent, starts), set(starts.tolist())
    assert {k for k in range(len(parent)) if stretch[k] >= 0} == inside
    assert not stretch[starts].any()
    for k in inside - first:
        siblings = int((parent == parent[k]).sum())
        parting = len(first) > 1 and parent[k] in first  # what leaves one of many roots is a branch
        assert (stretch[k] == stretch[parent[k]]) == (siblings == 1 and not parting)
    assert set(ends.tolist()) == {k for k in inside if not (parent == k).any()}
    for k in ends:
        path = lineage.path_to(parent, int(k))
        assert path[0] in first and path[-1] == k
        assert all(parent[b] == a for a, b in pairwise(path))


# --------------------------------------------------------------------------------------------------------- slopes


def test_slopes_on_a_plane() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, (200, 2))
    found = lineage.slopes(ordering.expression_walk(xy, 8), xy, 0.002 * xy[:, 0] - 0.001 * xy[:, 1])
    expected = np.tile([0.002, -0.001], (200, 1))
    assert np.median(np.abs(found - expected)) < 1e-5
    assert np.abs(found - expected).max() < 2e-4, "but for a little ridge"


def test_slopes_against_least_squares() -> None:
    rng = np.random.default_rng(1)
    xy, order = rng.uniform(0, 100, (80, 2)), rng.uniform(size=80)
    weights = ordering.expression_walk(xy, 7)
    found = lineage.slopes(weights, xy, order)
    dense = weights.toarray()
    for i in range(80):
        near = np.flatnonzero(dense[i])
        d, t, w = xy[near] - xy[i], order[near] - order[i], dense[i, near]
        square = (w[:, None] * d).T @ d
        square[np.diag_indices(2)] += 1e-3 * np.trace(square)
        assert found[i] == pytest.approx(np.linalg.solve(square, (w[:, None] * d).T @ t), rel=1e-6, abs=1e-12)


def test_slopes_turn_with_the_section_and_know_its_unit() -> None:
    rng = np.random.default_rng(2)
    xy, order = rng.uniform(0, 100, (80, 2)), rng.uniform(size=80)
    weights = ordering.expression_walk(xy, 7)
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]])
    found = lineage.slopes(weights, xy, order)
    assert lineage.slopes(weights, 5 * xy @ turn.T + 300, order) == pytest.approx(
        found @ turn.T / 5, rel=1e-6, abs=1e-12
    )


def test_slopes_beside_cells_of_no_order_and_of_lone_cells() -> None:
    xy = np.array([[0.0, 0.0], [1, 0], [0, 1], [1, 1], [50, 50]])
    weights = np.ones((5, 5)) - np.eye(5)
    weights[4] = weights[:, 4] = 0.0
    order = np.array([0.0, 0.1, np.nan, 0.1, 0.5])
    found = lineage.slopes(sparse.csr_matrix(weights), xy, order)
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx([0.1, 0.0], abs=5e-3)
    assert not found[2].any() and not found[4].any()
    line = np.c_[np.arange(6.0), np.zeros(6)]  # all on one line: nothing is said of the other direction
    path = sparse.diags([np.ones(5), np.ones(5)], [1, -1], format="csr")
    assert lineage.slopes(path, line, 0.1 * np.arange(6)) == pytest.approx(np.tile([0.1, 0.0], (6, 1)), abs=1e-3)
