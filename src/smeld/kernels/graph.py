"""Sparse spatial graphs from positions in micrometres: lattice rings, nearest neighbours, or a radius."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

GraphKind = Literal["auto", "lattice", "knn", "radius"]

#: share of spots whose nearest neighbour must lie within LATTICE_TOLERANCE of the median for a lattice
LATTICE_SHARE, LATTICE_TOLERANCE = 0.9, 0.12


@dataclass(frozen=True)
class SpatialGraph:
    """Neighbours of every spot: two symmetric CSR matrices [n_obs, n_obs] of one sparsity pattern, empty diagonal.

    ``connectivities`` holds 1 per edge, ``distances`` micrometres (coinciding spots: a tiny positive number, so
    that the edge is kept). ``kind`` is what was built, ``pitch_um`` the lattice constant or None.
    """

    connectivities: sparse.csr_matrix
    distances: sparse.csr_matrix
    kind: str
    pitch_um: float | None


def lattice_pitch(xy_um: NDArray[np.float64]) -> float | None:
    """Distance between lattice centres, or None where the positions form no lattice.

    A lattice is recognised by nearest-neighbour distances that are nearly all the same. The tolerance admits the
    hand-adjusted positions of legacy arrays.
    """
    if len(xy_um) < 4:
        return None
    nearest = cKDTree(xy_um).query(xy_um, k=2)[0][:, 1]
    pitch = float(np.median(nearest))
    if pitch <= 0:
        return None
    regular = np.abs(nearest - pitch) <= LATTICE_TOLERANCE * pitch
    return pitch if regular.mean() >= LATTICE_SHARE else None


def ring_radius(pitch_um: float, n_rings: int) -> float:
    """Radius that takes in ``n_rings`` rings of a hexagonal (6, 18, ...) or square (8, 20, ...) lattice.

    The thresholds lie midway between shells of both lattices, so that rounding or rotation never moves an edge
    across them.
    """
    return pitch_um * (1.5 if n_rings == 1 else n_rings + 0.3)


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
    pitch = lattice_pitch(xy_um) if kind in ("auto", "lattice") else None
    if kind == "lattice" and pitch is None:
        raise ValueError("the positions form no lattice: use kind='knn' or kind='radius'")
    if kind == "radius" and not (radius_um and radius_um > 0):
        raise ValueError("kind='radius' needs radius_um > 0 (micrometres)")
    if pitch is not None:
        pairs = cKDTree(xy_um).query_pairs(ring_radius(pitch, n_rings), output_type="ndarray")
        built = "lattice"
    elif kind == "radius":
        pairs = cKDTree(xy_um).query_pairs(radius_um, output_type="ndarray")
        built = "radius"
    else:
        pairs = _knn_pairs(xy_um, n_neighbors)
        built = "knn"
    return _from_pairs(xy_um, pairs, built, pitch)


def _knn_pairs(xy_um: NDArray[np.float64], n_neighbors: int) -> NDArray[np.intp]:
    """Unordered neighbour pairs [n_pairs, 2], i < j, each once."""
    n = len(xy_um)
    k = min(n_neighbors, n - 1)
    near = cKDTree(xy_um).query(xy_um, k=k + 1)[1]
    i = np.repeat(np.arange(n), k + 1)
    j = near.ravel()
    keep = i != j
    i, j = i[keep], j[keep]
    low, high = np.minimum(i, j), np.maximum(i, j)
    code = np.unique(low.astype(np.int64) * n + high)
    return np.stack([code // n, code % n], axis=1)


def _from_pairs(xy_um: NDArray[np.float64], pairs: NDArray[np.intp], kind: str, pitch: float | None) -> SpatialGraph:
    n = len(xy_um)
    i, j = pairs[:, 0], pairs[:, 1]
    d = np.hypot(xy_um[i, 0] - xy_um[j, 0], xy_um[i, 1] - xy_um[j, 1])
    d = np.maximum(d, 1e-6)
    rows, cols = np.concatenate([i, j]), np.concatenate([j, i])
    distances = sparse.csr_matrix((np.concatenate([d, d]), (rows, cols)), shape=(n, n))
    distances.sort_indices()
    connectivities = distances.copy()
    connectivities.data = np.ones_like(connectivities.data)
    return SpatialGraph(connectivities, distances, kind, pitch)


def from_distances(distances: sparse.csr_matrix) -> SpatialGraph:
    """The graph of a stored distance matrix (as in ``obsp["spatial_distances"]``)."""
    stored = sparse.csr_matrix(distances, dtype=np.float64, copy=True)
    stored.setdiag(0)
    stored.eliminate_zeros()
    stored.sort_indices()
    connectivities = stored.copy()
    connectivities.data = np.ones_like(connectivities.data)
    return SpatialGraph(connectivities, stored, "stored", None)


def row_normalise(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each row divided by its sum; rows without edges stay empty."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ weights)
