"""Spatial graphs equal brute force over all distances, and do not depend on order, orientation or unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

import smeld as sm
from smeld.kernels import graph
from smeld.kernels.graph import SpatialGraph, sectioned_graph, spatial_graph

XY = NDArray[np.float64]


def hexagonal(rows: int, columns: int, pitch: float = 100.0) -> XY:
    i, j = (a.ravel() for a in np.mgrid[:rows, :columns])
    return np.column_stack([(j + 0.5 * (i % 2)) * pitch, i * pitch * np.sqrt(3) / 2])


def square(rows: int, columns: int, pitch: float = 200.0) -> XY:
    i, j = (a.ravel() for a in np.mgrid[:rows, :columns])
    return np.column_stack([j, i]) * pitch


def cells(n: int, seed: int = 0) -> XY:
    return np.random.default_rng(seed).uniform(0, 1000, (n, 2))


def all_distances(xy: XY) -> XY:
    return np.sqrt(((xy[:, None] - xy) ** 2).sum(axis=2))


def turned(xy: XY, angle: float, shift: tuple[float, float] = (0.0, 0.0), unit: float = 1.0) -> XY:
    c, s = np.cos(angle), np.sin(angle)
    return (xy @ np.array([[c, s], [-s, c]]) + shift) * unit


def pattern(made: SpatialGraph) -> NDArray[np.bool_]:
    return made.connectivities.toarray() > 0


def is_well_formed(made: SpatialGraph) -> bool:
    c, d = made.connectivities, made.distances
    return bool(
        np.array_equal(c.indptr, d.indptr)
        and np.array_equal(c.indices, d.indices)
        and (c.data == 1).all()
        and (d.data > 0).all()
        and c.diagonal().sum() == 0
        and abs(d - d.T).nnz == 0
        and d.has_sorted_indices
    )


# ------------------------------------------------------------------------------------------------ lattices


@pytest.mark.parametrize(
    ("xy", "pitch", "rings", "neighbours"),
    [
        (hexagonal(13, 13), 100.0, 1, 6),
        (hexagonal(13, 13), 100.0, 2, 18),
        (square(13, 13), 200.0, 1, 8),
        (square(13, 13), 200.0, 2, 20),
    ],
)
def test_lattice_rings_equal_all_spots_within_the_shell(xy: XY, pitch: float, rings: int, neighbours: int) -> None:
    made = spatial_graph(xy, n_rings=rings)
    far = {6: 1.1, 18: 2.05, 8: 1.45, 20: 2.25}[neighbours] * pitch
    away = all_distances(xy)
    expected = (away < far) & (away > 0)
    assert made.kind == "lattice" and made.pitch_um == pytest.approx(pitch)
    assert is_well_formed(made)
    assert np.array_equal(pattern(made), expected)
    assert made.distances.toarray() == pytest.approx(np.where(expected, away, 0.0))
    middle = int(np.argmin(((xy - xy.mean(axis=0)) ** 2).sum(axis=1)))
    assert made.connectivities[middle].nnz == neighbours


@pytest.mark.parametrize("jitter", [0.01, 0.03, 0.05])
def test_hand_adjusted_square_array_keeps_all_eight_neighbours(jitter: float) -> None:
    xy = square(20, 20)
    moved = xy + np.random.default_rng(0).normal(size=xy.shape) * jitter * 200
    made = spatial_graph(moved)
    assert made.kind == "lattice"
    assert made.pitch_um == pytest.approx(200, rel=0.02)
    assert np.array_equal(pattern(made), pattern(spatial_graph(xy)))


def test_slightly_distorted_hexagonal_array_keeps_its_six_neighbours() -> None:
    xy = hexagonal(20, 20)
    moved = xy + np.random.default_rng(1).normal(size=xy.shape) * 3
    assert np.array_equal(pattern(spatial_graph(moved)), pattern(spatial_graph(xy)))


@pytest.mark.parametrize("name", ["B1", "C3", "G2"])
def test_real_legacy_arrays_have_their_lattice_neighbours(shared_data: Path, name: str) -> None:
    folder = shared_data / "her2st" / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not among the real sections")
    adata = sm.read(folder)
    made = spatial_graph(np.asarray(adata.obsm["spatial_um"]))
    assert made.kind == "lattice"
    away = all_distances(adata.obs[["array_row", "array_col"]].to_numpy(dtype=float))
    expected = (away < 1.5) & (away > 0)
    assert (pattern(made) != expected).sum() <= 0.01 * expected.sum()


@pytest.mark.parametrize("seed", range(3))
def test_scattered_cells_form_no_lattice(seed: int) -> None:
    assert graph.lattice_pitch(cells(500, seed)) is None
    assert spatial_graph(cells(500, seed)).kind == "knn"
    with pytest.raises(ValueError, match="no lattice"):
        spatial_graph(cells(500, seed), kind="lattice")


def test_packed_cells_that_keep_their_distance_form_no_lattice() -> None:
    xy = sm.datasets.simulate(n_obs=600, n_genes=20, layout="cells", image=False).obsm["spatial_um"]
    assert graph.lattice_pitch(np.asarray(xy)) is None


def test_lattice_with_holes_and_lone_spots_is_still_a_lattice() -> None:
    xy = hexagonal(15, 15)
    kept = np.random.default_rng(0).random(len(xy)) < 0.8
    made = spatial_graph(np.concatenate([xy[kept], [[9000.0, 9000.0]]]))
    away = all_distances(xy[kept])
    assert made.kind == "lattice"
    assert np.array_equal(pattern(made)[:-1, :-1], (away < 110) & (away > 0))
    assert made.connectivities[-1].nnz == 0


@given(st.floats(0, 2 * np.pi), st.sampled_from([1e-3, 0.28, 1.0, 1000.0]), st.sampled_from(["hex", "square"]))
def test_rotating_moving_or_rescaling_a_lattice_keeps_its_edges(angle: float, unit: float, kind: str) -> None:
    xy = hexagonal(9, 8) if kind == "hex" else square(9, 8)
    plain, other = spatial_graph(xy), spatial_graph(turned(xy, angle, (1234.5, -77.7), unit))
    assert np.array_equal(pattern(plain), pattern(other))
    assert other.distances.data == pytest.approx(plain.distances.data * unit, rel=1e-9)
    assert other.pitch_um == pytest.approx((plain.pitch_um or 0) * unit)


# ------------------------------------------------------------------------------------ nearest neighbours, radius


@given(st.integers(2, 60), st.integers(1, 12), st.integers(0, 50))
def test_nearest_neighbours_equal_sklearn_made_symmetric(n: int, k: int, seed: int) -> None:
    xy = cells(n, seed)
    made = spatial_graph(xy, kind="knn", n_neighbors=k)
    near = NearestNeighbors(n_neighbors=min(k, n - 1)).fit(xy).kneighbors_graph()
    expected = (near + near.T).toarray() > 0
    assert is_well_formed(made)
    assert np.array_equal(pattern(made), expected)
    assert made.distances.toarray() == pytest.approx(np.where(expected, all_distances(xy), 0.0))


@given(st.integers(1, 80), st.floats(10, 400), st.integers(0, 50))
def test_radius_graph_equals_all_pairs_within_it(n: int, radius: float, seed: int) -> None:
    xy = cells(n, seed)
    made = spatial_graph(xy, kind="radius", radius_um=radius)
    away = all_distances(xy)
    expected = (away <= radius) & ~np.eye(n, dtype=bool)
    assert is_well_formed(made)
    assert np.array_equal(pattern(made), expected)


@pytest.mark.parametrize(
    "settings", [{"kind": "knn", "n_neighbors": 6}, {"kind": "radius", "radius_um": 90.0}, {"kind": "auto"}]
)
@pytest.mark.parametrize("layout", ["cells", "lattice"])
def test_permuting_positions_permutes_the_graph(settings: dict[str, object], layout: str) -> None:
    xy = cells(150) if layout == "cells" else hexagonal(10, 12)
    order = np.random.default_rng(3).permutation(len(xy))
    plain, other = spatial_graph(xy, **settings), spatial_graph(xy[order], **settings)
    assert np.array_equal(pattern(plain)[order][:, order], pattern(other))
    assert abs(plain.distances[order][:, order] - other.distances).nnz == 0


def test_equally_near_neighbours_do_not_hang_on_the_order_or_the_orientation() -> None:
    """On a lattice 10 neighbours are 6 and 4 of 12 equally near ones: which 4 must not be chance."""
    xy = hexagonal(10, 10)
    plain = pattern(spatial_graph(xy, kind="knn", n_neighbors=10))
    for angle in (0.3, 1.1, 2.0):
        assert np.array_equal(plain, pattern(spatial_graph(turned(xy, angle, (5e4, 3e3)), kind="knn", n_neighbors=10)))


@given(st.floats(0, 2 * np.pi), st.sampled_from([1e-3, 1.0, 1000.0]))
def test_rotating_moving_or_rescaling_cells_keeps_the_nearest(angle: float, unit: float) -> None:
    xy = cells(200, 5)
    plain, other = spatial_graph(xy), spatial_graph(turned(xy, angle, (50.0, -3.0), unit))
    assert np.array_equal(pattern(plain), pattern(other))
    assert other.distances.data == pytest.approx(plain.distances.data * unit, rel=1e-9)


# ------------------------------------------------------------------------------------------------- odd input


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", ["auto", "knn", "radius"])
def test_very_small_sections(n: int, kind: graph.GraphKind) -> None:
    made = spatial_graph(cells(n), kind=kind, radius_um=1e6)
    assert is_well_formed(made)
    assert made.connectivities.shape == (n, n)
    assert made.connectivities.nnz == n * (n - 1)


def test_coinciding_spots_keep_their_edge_with_a_tiny_distance() -> None:
    xy = np.concatenate([cells(30), cells(30)[:3]])
    for made in (
        spatial_graph(xy, n_neighbors=4),
        spatial_graph(xy, kind="radius", radius_um=5.0),
        spatial_graph(np.zeros((20, 2)), n_neighbors=3),
    ):
        assert is_well_formed(made)
    made = spatial_graph(xy, kind="radius", radius_um=5.0)
    assert made.connectivities[0, 30] == 1 and 0 < made.distances[0, 30] < 1e-3


def test_two_sections_far_apart_stay_apart() -> None:
    both = np.concatenate([hexagonal(8, 8), hexagonal(8, 8) + 1e5])
    n, part = sparse.csgraph.connected_components(spatial_graph(both).connectivities)
    assert n == 2 and len(set(part[:64])) == 1


@pytest.mark.parametrize("radius", [None, 0.0, -1.0, float("nan")])
def test_radius_needs_a_length(radius: float | None) -> None:
    with pytest.raises(ValueError, match="radius_um"):
        spatial_graph(cells(10), kind="radius", radius_um=radius)


@pytest.mark.parametrize("n_neighbors", [0, -1])
def test_nearest_neighbours_need_a_positive_number(n_neighbors: int) -> None:
    with pytest.raises(ValueError, match="n_neighbors"):
        spatial_graph(cells(10), kind="knn", n_neighbors=n_neighbors)


def test_stored_distances_give_the_graph_back() -> None:
    made = spatial_graph(cells(40))
    again = graph.from_distances(made.distances, made.xy_um)
    assert again.kind == "stored" and is_well_formed(again)
    assert np.array_equal(again.distances.toarray(), made.distances.toarray())
    assert np.array_equal(again.connectivities.toarray(), made.connectivities.toarray())
    with_diagonal = sparse.csr_matrix(made.distances + sparse.eye(40))
    kept = with_diagonal.copy()
    assert is_well_formed(graph.from_distances(with_diagonal, np.zeros((with_diagonal.shape[0], 2))))
    assert abs(with_diagonal - kept).nnz == 0  # the stored matrix is not changed


def test_row_normalise_gives_rows_of_sum_one_and_leaves_lone_spots_empty() -> None:
    made = spatial_graph(np.concatenate([cells(30), [[9e5, 9e5]]]), kind="radius", radius_um=300)
    total = np.asarray(graph.row_normalise(made.distances).sum(axis=1)).ravel()
    linked = made.connectivities.getnnz(axis=1) > 0
    assert total[linked] == pytest.approx(1.0)
    assert not linked[-1] and total[-1] == 0


# ------------------------------------------------------------------------------------------------ several sections


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.sampled_from(["auto", "knn", "radius"]))
def test_the_graph_of_sections_is_block_diagonal(sizes: list[int], kind: graph.GraphKind) -> None:
    parts = [cells(n, seed) for seed, n in enumerate(sizes)]
    section = np.repeat(np.arange(len(sizes)), sizes)
    made = sectioned_graph(np.concatenate(parts), section, kind=kind, n_neighbors=5, radius_um=250.0)
    single = [spatial_graph(xy, kind=kind, n_neighbors=5, radius_um=250.0) for xy in parts]
    assert is_well_formed(made) and made.connectivities.shape == (sum(sizes), sum(sizes))
    assert np.array_equal(made.distances.toarray(), sparse.block_diag([s.distances for s in single]).toarray())
    assert np.array_equal(pattern(made), sparse.block_diag([s.connectivities for s in single]).toarray() > 0)


@given(st.integers(0, 50), st.sampled_from(["cells", "lattice"]))
def test_sections_may_come_mixed_and_lie_on_one_another(seed: int, layout: str) -> None:
    xy = cells(80, seed) if layout == "cells" else hexagonal(9, 9)
    order = np.random.default_rng(seed).permutation(2 * len(xy))
    both, section = np.concatenate([xy, xy])[order], np.repeat([0, 1], len(xy))[order]
    made, single = sectioned_graph(both, section), spatial_graph(xy)
    assert is_well_formed(made) and np.array_equal(made.xy_um, both)
    edges = made.connectivities.tocoo()
    assert (section[edges.row] == section[edges.col]).all()
    for s in (0, 1):
        here = np.flatnonzero(section == s)
        place = order[here] % len(xy)
        assert np.array_equal(pattern(made)[here][:, here], pattern(single)[place][:, place])
    assert made.kind == single.kind and made.pitch_um == single.pitch_um


def test_one_section_is_the_plain_graph() -> None:
    xy = hexagonal(8, 8)
    made, plain = sectioned_graph(xy, np.zeros(64, dtype=int)), spatial_graph(xy)
    assert np.array_equal(made.distances.toarray(), plain.distances.toarray())
    assert (made.kind, made.pitch_um) == (plain.kind, plain.pitch_um)


def test_sections_of_a_single_spot_have_no_neighbours() -> None:
    xy = np.concatenate([cells(20), [[500.0, 500.0]]])
    made = sectioned_graph(xy, np.array([0] * 20 + [1]))
    assert is_well_formed(made) and made.connectivities[20].nnz == 0
    assert np.array_equal(pattern(made)[:20, :20], pattern(spatial_graph(xy[:20])))
    alone = sectioned_graph(xy[:3], np.arange(3))
    assert is_well_formed(alone) and alone.connectivities.shape == (3, 3) and alone.connectivities.nnz == 0
    assert alone.kind == "no neighbours" and alone.pitch_um is None


def test_sections_of_different_kinds_name_both_and_share_no_pitch() -> None:
    made = sectioned_graph(np.concatenate([hexagonal(9, 9), cells(80)]), np.repeat([0, 1], [81, 80]))
    assert made.kind == "knn and lattice" and made.pitch_um is None
