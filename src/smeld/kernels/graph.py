"""Sparse spatial graphs from positions in micrometres: lattice rings, nearest neighbours, or a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from smeld.kernels import _backend
from smeld.kernels._threads import workers

GraphKind = Literal["auto", "lattice", "knn", "radius"]

#: share of spots whose nearest neighbour must lie within LATTICE_TOLERANCE of the median for a lattice: 0.87 and more
#: on hand-adjusted legacy arrays, 0.6 among packed cells, 0.2 among scattered ones
LATTICE_SHARE, LATTICE_TOLERANCE = 0.8, 0.12
#: neighbours whose distances differ by less than this (relative) are equally near
TIE = 1e-6
#: micrometres between spots that coincide, so that their edge is kept
NEAREST = 1e-6
#: spots whose neighbours are sought at a time
SEARCHED = 500_000


@dataclass(frozen=True)
class SpatialGraph:
    """Neighbours of every spot: two symmetric CSR matrices [n_obs, n_obs] of one sparsity pattern, empty diagonal.

    ``connectivities`` holds 1 per edge, ``distances`` micrometres (coinciding spots: a tiny positive number, so
    that the edge is kept). ``kind`` is what was built, ``pitch_um`` the lattice constant or None, ``xy_um`` [n_obs, 2]
    the positions.
    """

    connectivities: sparse.csr_matrix
    distances: sparse.csr_matrix
    kind: str
    pitch_um: float | None
    xy_um: NDArray[np.float64]


def lattice_pitch(xy_um: NDArray[np.float64]) -> float | None:
    """Distance between lattice centres, or None where the positions form no lattice.

    A lattice is recognised by nearest-neighbour distances that are nearly all the same. The tolerance admits the
    hand-adjusted positions of legacy arrays. The pitch is the median over all neighbours of the first shell: the
    nearest of four or six jittered neighbours is nearer than the pitch.
    """
    if len(xy_um) < 4:
        return None
    near = _nearest_distances(xy_um)
    typical = float(np.median(near[:, 0]))
    if typical <= 0:
        return None
    regular = np.abs(near[:, 0] - typical) <= LATTICE_TOLERANCE * typical
    return float(np.median(near[near < 1.3 * typical])) if regular.mean() >= LATTICE_SHARE else None


def is_square(xy_um: NDArray[np.float64], pitch_um: float) -> bool:
    """True where a lattice has neighbours across the diagonal (1.41 pitches away; a hexagonal one has none there)."""
    near = _nearest_distances(xy_um) / pitch_um
    return bool(((near >= 1.2) & (near < 1.57)).sum() > 0.4 * (near < 1.2).sum())


def _nearest_distances(xy_um: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances to the 8 nearest others, nearest first, infinite where there are fewer."""
    tree, parts = cKDTree(xy_um), range(0, len(xy_um), SEARCHED)
    return np.concatenate([tree.query(xy_um[i : i + SEARCHED], k=9, workers=workers())[0][:, 1:] for i in parts])


def ring_radius(pitch_um: float, n_rings: int, *, square: bool = False) -> float:
    """Radius that takes in ``n_rings`` rings of a hexagonal (6, 18, ...) or square (8, 20, ...) lattice.

    The thresholds lie midway between the last shell inside and the first outside, so that neither rounding, nor
    rotation, nor the jitter of legacy arrays moves an edge across them: square 1.41 | 2, then 2.24 | 2.83; hexagonal
    1 | 1.73, then 2 | 2.65.
    """
    first, second = (1.71, 2.53) if square else (1.37, 2.32)
    return pitch_um * (first if n_rings == 1 else second + n_rings - 2)


def spatial_graph(
    xy_um: NDArray[np.float64],
    *,
    kind: GraphKind = "auto",
    n_neighbors: int = 10,
    radius_um: float | None = None,
    n_rings: int = 1,
) -> SpatialGraph:
    """The spatial graph of positions ``xy_um`` float64 [n_obs, 2].

    ``auto`` takes ``n_rings`` lattice rings where the positions form a lattice and the ``n_neighbors`` nearest
    neighbours (made symmetric: an edge if either names the other) elsewhere. Raises ValueError for settings that
    do not fit the positions.
    """
    if kind in ("auto", "knn") and n_neighbors < 1:
        raise ValueError(f"n_neighbors must be at least 1, not {n_neighbors}")
    pitch = lattice_pitch(xy_um) if kind in ("auto", "lattice") else None
    if kind == "lattice" and pitch is None:
        raise ValueError("the positions form no lattice: use kind='knn' or kind='radius'")
    if kind == "radius" and not (radius_um and radius_um > 0):
        raise ValueError("kind='radius' needs radius_um > 0 (micrometres)")
    if pitch is not None:
        radius = ring_radius(pitch, n_rings, square=is_square(xy_um, pitch))
        distances = _from_pairs(xy_um, cKDTree(xy_um).query_pairs(radius, output_type="ndarray"))
        built = "lattice"
    elif kind == "radius":
        distances = _from_pairs(xy_um, cKDTree(xy_um).query_pairs(radius_um, output_type="ndarray"))
        built = "radius"
    else:
        distances = _knn_distances(xy_um, n_neighbors)
        built = "knn"
    return SpatialGraph(ones(distances), distances, built, pitch, xy_um)


def sectioned_graph(xy_um: NDArray[np.float64], section: NDArray[np.integer], **settings: Any) -> SpatialGraph:
    """The spatial graphs of several sections as one: neighbours are sought within each ``section`` (int [n_obs]).

    Settings as for ``spatial_graph``. ``kind`` names all kinds that were built, ``pitch_um`` is the sections' common
    lattice constant or None. Sections of a single spot have no neighbours.
    """
    rows, columns, lengths, kinds, pitches = [], [], [], set(), []
    for s in np.unique(section):
        here = np.flatnonzero(section == s)
        if len(here) < 2:
            continue
        made = spatial_graph(xy_um[here], **settings)
        edges = made.distances.tocoo()
        rows.append(here[edges.row])
        columns.append(here[edges.col])
        lengths.append(edges.data)
        kinds.add(made.kind)
        pitches.append(made.pitch_um)
    n = len(xy_um)
    i, j = (np.concatenate([*part, np.empty(0, dtype=np.intp)]) for part in (rows, columns))
    distances = sparse.csr_matrix((np.concatenate([*lengths, np.empty(0)]), (i, j)), shape=(n, n))
    distances.sort_indices()
    connectivities = ones(distances)
    known = [p for p in pitches if p is not None]
    pitch = float(np.median(known)) if known and len(known) == len(pitches) else None
    return SpatialGraph(connectivities, distances, " and ".join(sorted(kinds)) or "no neighbours", pitch, xy_um)


def _knn_distances(xy_um: NDArray[np.float64], n_neighbors: int) -> sparse.csr_matrix:
    """Distances to the nearest neighbours, made symmetric: an edge if either end names the other.

    All that are as near as the k-th are taken: on a lattice, which of them a search finds first hangs on the order of
    the rows and on rounding.
    """
    n = len(xy_um)
    k = min(n_neighbors, n - 1)
    found = _backend.elsewhere("nearest", n, xy_um, k, TIE)
    indptr, near = _nearest(xy_um, k) if found is None else _as_lists(found, n)
    size = np.bincount(near, minlength=n) + np.diff(indptr)  # of a row, at most: two ends may name each other
    start = np.concatenate([[0], np.cumsum(size)])
    columns = np.empty(start[-1], dtype=np.int32)
    kept = _both_ways(indptr, near, start, columns)
    out = np.concatenate([[0], np.cumsum(kept)])
    indices, data = np.empty(out[-1], dtype=np.int32), np.empty(out[-1])
    _lengths(start, columns, out, xy_um, indices, data)
    narrow = out.astype(np.int32) if out[-1] < 2**31 else out
    return sparse.csr_matrix((data, indices, narrow), shape=(n, n))


def _nearest(xy_um: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Lists (indptr, members) of the ``k`` nearest of every spot, or as near as the k-th; itself may be among them."""
    n = len(xy_um)
    tree = cKDTree(xy_um)
    members, sizes = [], []
    for start in range(0, n, SEARCHED):  # what a search returns is several times what is kept of it
        here = xy_um[start : start + SEARCHED]
        away, near = tree.query(here, k=[*range(1, k + 2), min(k + 2, n)], workers=workers())
        reach = away[:, k] * (1 + TIE)
        tied = np.flatnonzero((away[:, -1] <= reach) & (reach > 0)) if n > k + 1 else np.empty(0, dtype=np.intp)
        lists = near[:, : k + 1].astype(np.int32)
        size = np.full(len(here), k + 1)
        if tied.size:
            also = tree.query_ball_point(here[tied], reach[tied], workers=workers())
            whole = [*lists]
            for i, found in zip(tied, also):
                whole[i] = np.union1d(lists[i], np.asarray(found, dtype=np.int32))
                size[i] = len(whole[i])
            members.append(np.concatenate(whole))
        else:
            members.append(lists.ravel())
        sizes.append(size)
    return np.concatenate([[0], np.cumsum(np.concatenate(sizes))]), np.concatenate(members)


def _as_lists(pairs: tuple[NDArray[np.intp], NDArray[np.intp]], n: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Pairs (i, j) as lists of every i's members, each once."""
    lists = sparse.csr_matrix((np.ones(len(pairs[0]), dtype=np.int8), pairs), shape=(n, n))
    return lists.indptr.astype(np.int64), lists.indices.astype(np.int32)


@njit(cache=True)
def _both_ways(indptr, near, start, columns):  # type: ignore[no-untyped-def]
    """Writes every edge at both ends, from ``start`` on, sorted and once; their number by row."""
    n = indptr.size - 1
    filled = np.zeros(n, dtype=np.int64)
    for i in range(n):
        for e in range(indptr[i], indptr[i + 1]):
            j = near[e]
            if j != i:
                columns[start[i] + filled[i]] = j
                filled[i] += 1
                columns[start[j] + filled[j]] = i
                filled[j] += 1
    for i in range(n):
        row = np.sort(columns[start[i] : start[i] + filled[i]])
        kept = 0
        for e in range(row.size):
            if e == 0 or row[e] != row[e - 1]:
                columns[start[i] + kept] = row[e]
                kept += 1
        filled[i] = kept
    return filled


@njit(cache=True)
def _lengths(start, columns, out, xy, indices, data):  # type: ignore[no-untyped-def]
    for i in range(out.size - 1):
        for e in range(out[i + 1] - out[i]):
            j = columns[start[i] + e]
            indices[out[i] + e] = j
            away = np.hypot(xy[i, 0] - xy[j, 0], xy[i, 1] - xy[j, 1])
            data[out[i] + e] = max(away, NEAREST)


def _from_pairs(xy_um: NDArray[np.float64], pairs: NDArray[np.intp]) -> sparse.csr_matrix:
    n = len(xy_um)
    i, j = pairs[:, 0], pairs[:, 1]
    d = np.hypot(xy_um[i, 0] - xy_um[j, 0], xy_um[i, 1] - xy_um[j, 1])
    d = np.maximum(d, NEAREST)
    rows, cols = np.concatenate([i, j]), np.concatenate([j, i])
    distances = sparse.csr_matrix((np.concatenate([d, d]), (rows, cols)), shape=(n, n))
    distances.sort_indices()
    return distances


def ones(distances: sparse.csr_matrix) -> sparse.csr_matrix:
    """1 for every edge; the pattern is shared, not copied."""
    ones = np.ones_like(distances.data)
    return sparse.csr_matrix((ones, distances.indices, distances.indptr), shape=distances.shape)


def from_distances(distances: sparse.csr_matrix, xy_um: NDArray[np.float64]) -> SpatialGraph:
    """The graph of a stored distance matrix (as in ``obsp["spatial_distances"]``)."""
    stored = sparse.csr_matrix(distances, dtype=np.float64, copy=True)
    stored.setdiag(0)
    stored.eliminate_zeros()
    stored.sort_indices()
    return SpatialGraph(ones(stored), stored, "stored", None, xy_um)


def row_normalise(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row divided by its sum; rows without edges stay empty."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ weights)


def permuted(matrix: sparse.csr_matrix, order: NDArray[np.intp]) -> sparse.csr_matrix:
    """Rows and columns in ``order``, indices sorted; the matrix itself where they lie so."""
    if bool((order == np.arange(len(order))).all()):
        return matrix
    out = sparse.csr_matrix(matrix[order][:, order])
    out.sort_indices()
    return out
