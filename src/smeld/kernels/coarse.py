"""A section on fewer points: representatives spread evenly over it, the graph between them, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: points near a cell that say what it has, and how many of them
NEAREST = 12


@dataclass(frozen=True)
class Coarse:
    """``leaf`` int [n_obs] the point that stands for each cell; ``at`` int [n_points] the cell that each point is;
    ``size`` [n_points] cells by point; ``weights`` CSR [n_points, n_points] the sums of edges between their cells."""

    leaf: Int
    at: Int
    size: Float
    weights: sparse.csr_matrix

    def mean(self, values: Float) -> Float:
        """Mean over the cells of each point, [n_points, d]."""
        columns = [np.bincount(self.leaf, column, len(self.at)) for column in values.T]
        return np.asarray(np.stack(columns, axis=1) / self.size[:, None])


def coarsened(xy_um: Float, section: Int, weights: sparse.csr_matrix, most: int) -> Coarse:
    """At most ``most`` points for cells at ``xy_um`` [n_obs, 2]; every cell is its own point where that is enough.

    Cells are halved at the median of their longer side, section by section, until there are enough parts of equal
    size; the cell nearest to the middle of a part stands for it. Edges between parts are the sums of those between
    their cells (a Galerkin projection of the graph).
    """
    n = len(xy_um)
    if n <= most:
        every = np.arange(n)
        return Coarse(every, every, np.ones(n), weights)
    depth = int(np.floor(np.log2(most / max(int(section.max()) + 1, 1)))) if most > section.max() + 1 else 0
    leaf, at = np.empty(n, dtype=np.intp), []
    parts = [np.flatnonzero(section == s) for s in range(int(section.max()) + 1)]
    for _ in range(depth):
        parts = [half for part in parts for half in _halved(xy_um, part)]
    for k, part in enumerate(parts):
        leaf[part] = k
        away = ((xy_um[part] - xy_um[part].mean(axis=0)) ** 2).sum(axis=1)
        at.append(part[int(away.argmin())])
    size = np.bincount(leaf).astype(np.float64)
    member = sparse.csr_matrix((np.ones(n), (leaf, np.arange(n))), shape=(len(parts), n))
    between = sparse.csr_matrix(member @ weights @ member.T)
    between.setdiag(0)
    between.eliminate_zeros()
    between.sort_indices()
    return Coarse(leaf, np.array(at, dtype=np.intp), size, between)


def _halved(xy_um: Float, part: Int) -> list[Int]:
    """Two halves of the cells ``part``, or these alone where there is one."""
    if len(part) < 2:
        return [part]
    long_side = int(np.ptp(xy_um[part], axis=0).argmax())
    order = part[np.argsort(xy_um[part, long_side], kind="stable")]
    return [order[: len(order) // 2], order[len(order) // 2 :]]


def extension(made: Coarse, xy_um: Float, section: Int, features: Float) -> sparse.csr_matrix:
    """Rows that average over points near a cell, alike in ``features`` [n_obs, d]: CSR [n_obs, n_points].

    Of the ``NEAREST`` points of a cell's section those count that resemble it: what lies side by side across a fold
    is not mixed.
    """
    n, n_points = len(xy_um), len(made.at)
    if n == n_points:
        return sparse.identity(n, format="csr")
    rows, columns, values = [], [], []
    for s in range(int(section.max()) + 1):
        here, points = np.flatnonzero(section == s), np.flatnonzero(section[made.at] == s)
        k = min(NEAREST, len(points))
        away, near = cKDTree(xy_um[made.at[points]]).query(xy_um[here], k=k)
        near = points[near.reshape(len(here), k)]
        unlike = _unlike(features, here, made.at[near])
        away = away.reshape(len(here), k)
        scale = np.maximum(away[:, k // 2 : k // 2 + 1], 1e-9), np.maximum(np.median(unlike), 1e-12)
        cost = 2 * (away / scale[0]) ** 2 + unlike / scale[1]
        share = np.exp(cost.min(axis=1, keepdims=True) - cost)  # a cell unlike all has its nearest
        rows.append(np.repeat(here, k))
        columns.append(near.ravel())
        values.append((share / share.sum(axis=1, keepdims=True)).ravel())
    made_of = (np.concatenate(rows), np.concatenate(columns))
    out = sparse.csr_matrix((np.concatenate(values), made_of), shape=(n, n_points))
    out.sort_indices()
    return out


def _unlike(features: Float, rows: Int, beside: Int) -> Float:
    """Squared distances [n_rows, k] between cells and k others each."""
    out = np.empty(beside.shape)
    for k in range(beside.shape[1]):
        out[:, k] = ((features[rows] - features[beside[:, k]]) ** 2).sum(axis=1)
    return out
