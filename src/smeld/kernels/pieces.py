"""Connected pieces of labels on a spatial graph, and how large they are in micrometres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import ConvexHull, QhullError, cKDTree

from smeld.kernels import graph as spatial

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: neighbours by which the density of scattered cells is measured: about one shell, so that a piece's density is its own
N_NEAR = 6
#: a spot stands for at most this many times the section's median area: one cell in empty space is no large piece
LARGEST_SHARE = 4.0
#: pieces up to this size are measured pair by pair, larger ones over their convex hull
PAIRWISE = 64


@dataclass(frozen=True)
class Pieces:
    """One entry a piece, by label and then size: ``label`` and ``rank`` (0 the largest) as given, ``first`` its first
    spot, ``n_spots``, ``area_um2``, ``diameter_um`` (of a circle of that area), ``centroid_um`` [n_pieces, 2],
    ``extent_um`` (largest distance between two of its spots)."""

    label: Int
    rank: Int
    first: Int
    n_spots: Int
    area_um2: Float
    diameter_um: Float
    centroid_um: Float
    extent_um: Float


def connected_pieces(labels: Int, graph: sparse.csr_matrix) -> Int:
    """Piece of every spot, int [n_obs]: 0 is the largest of its label, then 1, 2 ...; -1 where the label is -1.

    Two spots lie in one piece if a path of edges of the symmetric ``graph`` CSR [n_obs, n_obs] joins them through
    spots of their own label ``labels`` int [n_obs]. Of pieces of equal size, that with the first spot (smallest index)
    comes first. Linear in spots and edges.
    """
    if graph.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels do not fit a graph of {graph.shape[0]} x {graph.shape[1]} spots")
    edges = sparse.coo_matrix(graph)
    alike = (edges.data != 0) & (labels[edges.row] == labels[edges.col])
    same = sparse.csr_matrix((np.ones(alike.sum()), (edges.row[alike], edges.col[alike])), shape=graph.shape)
    component = csgraph.connected_components(same, directed=False)[1]
    _, first, size = np.unique(component, return_index=True, return_counts=True)
    order = np.lexsort((first, -size, labels[first]))
    _, start = np.unique(labels[first][order], return_index=True)
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order)) - np.repeat(start, np.diff([*start, len(order)]))
    return np.asarray(np.where(labels >= 0, rank[component], -1))


def spot_areas(xy_um: Float) -> Float:
    """Area for which each spot stands, um^2 [n_obs].

    On a lattice the cell of a spot: pitch^2, times sqrt(3) / 2 on a hexagonal one. Elsewhere pi r^2 / (k - 1/3), r the
    distance to the k-th nearest other, k = 6: the square of r is a gamma variable of shape k where cells lie at random,
    and its median is k - 1/3 of its scale. At most 4 times the section's median. NaN for a lone spot.
    """
    n = len(xy_um)
    pitch = spatial.lattice_pitch(xy_um)
    if pitch is not None:
        return np.full(n, pitch**2 * (1.0 if spatial.is_square(xy_um, pitch) else np.sqrt(0.75)))
    k = min(N_NEAR, n - 1)
    if k < 1:
        return np.full(n, np.nan)
    reach = cKDTree(xy_um).query(xy_um, k=[k + 1])[0][:, 0]
    area = np.pi * reach**2 / (k - 1 / 3)
    return np.asarray(np.minimum(area, LARGEST_SHARE * np.median(area)))


def measure(labels: Int, piece: Int, xy_um: Float, area_um2: Float) -> Pieces:
    """Figures of every piece of :func:`connected_pieces`; ``area_um2`` [n_obs] as :func:`spot_areas` gives it.

    A piece's area is its number of spots times the median area of its spots: dense and sparse tissue are each measured
    by their own density, and no cell at a border counts for much.
    """
    known = np.flatnonzero(piece >= 0)
    order = known[np.lexsort((area_um2[known], piece[known], labels[known]))]
    change = np.diff(labels[order], prepend=-1) != 0
    change |= np.diff(piece[order], prepend=-1) != 0
    start = np.flatnonzero(change)
    end = np.append(start[1:], len(order))
    n = end - start
    sorted_area, xy = area_um2[order], xy_um[order]
    if not len(start):
        none, nothing = np.empty(0, dtype=np.intp), np.empty(0)
        return Pieces(none, none, none, none, nothing, nothing, np.empty((0, 2)), nothing)
    area = n * (sorted_area[start + (n - 1) // 2] + sorted_area[start + n // 2]) / 2
    centroid = np.add.reduceat(xy, start, axis=0) / n[:, None]
    first = np.minimum.reduceat(order, start)
    extent = _extents(xy, start, end)
    return Pieces(
        labels[order[start]], piece[order[start]], first, n, area, 2 * np.sqrt(area / np.pi), centroid, extent
    )


def _extents(xy: Float, start: Int, end: Int) -> Float:
    """Largest distance between two points of each run of rows start:end."""
    extent: Float = _small_extents(xy, start, end, PAIRWISE)
    for p in np.flatnonzero(end - start > PAIRWISE):
        corners = _hull(xy[start[p] : end[p]])
        extent[p] = _small_extents(corners, np.array([0]), np.array([len(corners)]), len(corners))[0]
    return extent


def _hull(xy: Float) -> Float:
    """The corners of the convex hull, among which the two points farthest apart are."""
    try:
        return np.asarray(xy[ConvexHull(xy).vertices])
    except QhullError:  # all on one line: the two ends
        centred = xy - xy.mean(axis=0)
        along = centred @ np.linalg.eigh(centred.T @ centred)[1][:, 1]
        return np.asarray(xy[[along.argmin(), along.argmax()]])


@njit(cache=True)
def _small_extents(xy, start, end, largest):  # type: ignore[no-untyped-def]
    out = np.zeros(start.size)
    for p in range(start.size):
        if end[p] - start[p] > largest:
            continue
        for i in range(start[p], end[p]):
            for j in range(i + 1, end[p]):
                square = (xy[i, 0] - xy[j, 0]) ** 2 + (xy[i, 1] - xy[j, 1]) ** 2
                out[p] = max(out[p], square)
    return np.sqrt(out)
