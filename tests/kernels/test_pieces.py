"""Pieces of labels against a plain walk over the graph; their sizes against geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.distance import pdist

from smeld.kernels import pieces
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]
Int = NDArray[np.intp]


def scattered(n: int, k: int, seed: int) -> tuple[Int, sparse.csr_matrix, Float]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 1000, (n, 2))
    return rng.integers(-1, k, n), spatial_graph(xy, n_neighbors=3).connectivities, xy


def walked(labels: Int, graph: sparse.csr_matrix) -> list[int]:
    """The same by walking from spot to spot, label by label."""
    near = [set(graph[i].indices.tolist()) for i in range(len(labels))]
    found: dict[int, list[list[int]]] = {}
    seen: set[int] = set()
    for i in range(len(labels)):
        if i in seen or labels[i] < 0:
            continue
        members, front = {i}, [i]
        while front:
            here = front.pop()
            for j in near[here] - members:
                if labels[j] == labels[i]:
                    members.add(j)
                    front.append(j)
        seen |= members
        found.setdefault(int(labels[i]), []).append(sorted(members))
    out = [-1] * len(labels)
    for parts in found.values():
        for rank, part in enumerate(sorted(parts, key=lambda p: (-len(p), p[0]))):
            for i in part:
                out[i] = rank
    return out


@given(st.integers(3, 120), st.integers(1, 6), st.integers(0, 500))
def test_equals_a_plain_walk(n: int, k: int, seed: int) -> None:
    labels, graph, _ = scattered(n, k, seed)
    assert pieces.connected_pieces(labels, graph).tolist() == walked(labels, graph)


@given(st.integers(3, 120), st.integers(0, 500))
def test_names_of_labels_do_not_matter(n: int, seed: int) -> None:
    labels, graph, _ = scattered(n, 4, seed)
    other = np.where(labels >= 0, np.array([7, 0, 3, 12])[labels], -1)
    assert np.array_equal(pieces.connected_pieces(labels, graph), pieces.connected_pieces(other, graph))


@given(st.integers(3, 120), st.integers(0, 500))
def test_permuting_spots_permutes_the_sizes_of_pieces(n: int, seed: int) -> None:
    labels, graph, xy = scattered(n, 3, seed)
    order = np.random.default_rng(seed).permutation(n)
    area = pieces.spot_areas(xy)
    one = pieces.measure(labels, pieces.connected_pieces(labels, graph), xy, area)
    moved = pieces.connected_pieces(labels[order], sparse.csr_matrix(graph[order][:, order]))
    two = pieces.measure(labels[order], moved, xy[order], pieces.spot_areas(xy[order]))
    assert one.label.tolist() == two.label.tolist() and one.n_spots.tolist() == two.n_spots.tolist()
    assert np.sort(one.area_um2) == pytest.approx(np.sort(two.area_um2))
    assert np.sort(one.extent_um) == pytest.approx(np.sort(two.extent_um))


def test_edges_of_value_zero_join_nothing() -> None:
    graph = sparse.csr_matrix((np.array([0.0, 0.0, 2.0, 2.0]), ([0, 1, 1, 2], [1, 0, 2, 1])), shape=(3, 3))
    assert pieces.connected_pieces(np.zeros(3, dtype=np.intp), graph).tolist() == [1, 0, 0]


def test_a_graph_of_other_spots_is_refused() -> None:
    with pytest.raises(ValueError, match="3 labels do not fit a graph of 2 x 2"):
        pieces.connected_pieces(np.zeros(3, dtype=np.intp), sparse.csr_matrix((2, 2)))


def disk(radius: int) -> tuple[Float, NDArray[np.bool_]]:
    """A square lattice of pitch 100 um with a disk in it."""
    y, x = np.mgrid[-30:31, -30:31]
    xy = 100.0 * np.c_[x.ravel(), y.ravel()]
    return xy, np.hypot(*xy.T) <= 100.0 * radius


def test_a_disk_has_the_size_of_a_disk() -> None:
    xy, inside = disk(20)
    labels = inside.astype(np.intp)
    made = pieces.measure(
        labels, pieces.connected_pieces(labels, spatial_graph(xy).connectivities), xy, pieces.spot_areas(xy)
    )
    p = int(np.flatnonzero(made.label == 1)[0])
    assert made.n_spots[p] == inside.sum()
    assert made.area_um2[p] == pytest.approx(np.pi * 2000.0**2, rel=0.02)
    assert made.diameter_um[p] == pytest.approx(4000.0, rel=0.01)
    assert made.extent_um[p] == pytest.approx(4000.0)
    assert made.centroid_um[p] == pytest.approx([0.0, 0.0], abs=1e-9)


@given(st.floats(0, 6.28), st.floats(-1e5, 1e5))
def test_sizes_turn_and_move_with_the_section(angle: float, shift: float) -> None:
    labels, graph, xy = scattered(150, 2, 3)
    piece = pieces.connected_pieces(labels, graph)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = xy @ turn.T + shift
    one = pieces.measure(labels, piece, xy, pieces.spot_areas(xy))
    two = pieces.measure(labels, piece, moved, pieces.spot_areas(moved))
    assert two.area_um2 == pytest.approx(one.area_um2, rel=1e-6)
    assert two.extent_um == pytest.approx(one.extent_um, rel=1e-6, abs=1e-6)
    assert two.centroid_um == pytest.approx(one.centroid_um @ turn.T + shift, abs=1e-4)


def test_units() -> None:
    _, _, xy = scattered(100, 2, 0)
    assert pieces.spot_areas(xy * 1000) == pytest.approx(pieces.spot_areas(xy) * 1e6)


@pytest.mark.parametrize("square", [True, False])
def test_a_lattice_spot_stands_for_its_cell(square: bool) -> None:
    y, x = (a.ravel().astype(float) for a in np.mgrid[:40, :40])
    xy = 55.0 * np.c_[x, y] if square else 55.0 * np.c_[x + 0.5 * (y % 2), y * np.sqrt(0.75)]
    area = pieces.spot_areas(xy)
    assert area == pytest.approx(np.full(1600, 55.0**2 * (1 if square else np.sqrt(3) / 2)))


@pytest.mark.parametrize("seed", range(3))
def test_areas_of_scattered_cells_follow_the_density_of_the_piece(seed: int) -> None:
    """Dense on the left, sparse on the right: each half is 1 mm wide and 2 mm high."""
    rng = np.random.default_rng(seed)
    dense = rng.uniform([0, 0], [1000, 2000], (4000, 2))
    sparse_half = rng.uniform([1000, 0], [2000, 2000], (1000, 2))
    xy, labels = np.concatenate([dense, sparse_half]), np.repeat([0, 1], [4000, 1000])
    piece = pieces.connected_pieces(labels, spatial_graph(xy).connectivities)
    made = pieces.measure(labels, piece, xy, pieces.spot_areas(xy))
    assert made.area_um2[made.rank == 0] == pytest.approx([2e6, 2e6], rel=0.12)


def test_a_cell_in_empty_space_is_no_large_piece() -> None:
    xy = np.concatenate([np.random.default_rng(0).uniform(0, 100, (200, 2)), [[9000.0, 9000.0]]])
    area = pieces.spot_areas(xy)
    assert area[-1] == pytest.approx(4 * np.median(area))


@pytest.mark.parametrize("n", [2, 63, 64, 65, 300])
def test_extent_is_the_largest_distance(n: int) -> None:
    xy = np.random.default_rng(n).normal(size=(n, 2)) * [300, 40]
    one = np.zeros(n, dtype=np.intp)
    assert pieces.measure(one, one, xy, np.ones(n)).extent_um == pytest.approx([pdist(xy).max()])


def test_extent_of_spots_on_one_line_or_one_point() -> None:
    one = np.zeros(100, dtype=np.intp)
    line = np.outer(np.random.default_rng(0).permutation(100), [3.0, 4.0])
    assert pieces.measure(one, one, line, np.ones(100)).extent_um == pytest.approx([495.0])
    assert pieces.measure(one, one, np.ones((100, 2)), np.ones(100)).extent_um == pytest.approx([0.0], abs=1e-9)


def test_few_spots() -> None:
    assert np.isnan(pieces.spot_areas(np.zeros((1, 2)))).all()
    assert pieces.spot_areas(np.array([[0.0, 0], [30.0, 40]])) == pytest.approx(np.full(2, np.pi * 2500 / (2 / 3)))
    none = pieces.measure(np.array([-1, -1]), np.array([-1, -1]), np.zeros((2, 2)), np.ones(2))
    assert len(none.label) == 0 and none.centroid_um.shape == (0, 2)
