"""Order from a root along a graph in which space and expression both have a say.

Two walks over the same points: one steps between neighbours in space along the S x M x E weights, one between points
alike in expression. Their mixture, a random walk P, gives an order by one sparse solve: u = (I + t (I - P))^-1 1_root
is the chance that a walk of t steps on average ends in the root. -log u is a soft shortest path (Varadhan 1967), and a
set of cells is a root as good as one. Hitting times of a single cell, in contrast, come to depend on that cell's degree
alone in large graphs (von Luxburg, Radl & Hein 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse
from scipy.sparse.linalg import splu
from scipy.stats import rankdata

from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: mean length of the walks, in points over this: far enough to see the section as a whole, across a fold and out of a
#: blind alley; by space alone short, for there a long walk says where the root is broad rather than where it is near
STEPS, STEPS_ALONE, FEWEST_STEPS = 20, 60, 3.0
#: rows of a table of distances held together
ROWS = 1024
#: share of entries from which a sparse factor would fill up
DENSE = 0.02


@dataclass(frozen=True)
class Candidate:
    """One way to order: ``n_neighbors`` in expression, ``space`` the share of steps that go along space, and
    ``smoothing``, in multiples of what the fusion chose."""

    n_neighbors: int
    space: float
    smoothing: float = 1.0

    def steps(self, n: int) -> float:
        """Mean length of the walk among ``n`` points."""
        return max(n / (STEPS if self.space < 1 else STEPS_ALONE), FEWEST_STEPS)


def expression_walk(features: Float, n_neighbors: int) -> sparse.csr_matrix:
    """Weights between points alike in ``features`` [n, d], symmetric, of mean row sum 1.

    Gaussian, its width the distance to the k-th neighbour at either end (Zelnik-Manor & Perona 2004), densities
    divided out (Coifman & Lafon 2006).
    """
    near, away = _nearest(features, n_neighbors)
    n, k = near.shape
    width = np.maximum(away[:, -1], 1e-12)
    scale = width[:, None] * width[near]
    made = sparse.csr_matrix((np.exp(-(away**2) / scale).ravel(), (np.repeat(np.arange(n), k), near.ravel())), (n, n))
    return even(made.maximum(made.T).tocsr())


def even(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Weights without a diagonal, divided by the degree of both ends, scaled to a mean row sum of 1, indices sorted."""
    made = sparse.csr_matrix(weights, dtype=np.float64, copy=True)
    made.setdiag(0)
    made.eliminate_zeros()
    degree = np.asarray(made.sum(axis=1)).ravel()
    inverse = sparse.diags(np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0))
    made = sparse.csr_matrix(inverse @ made @ inverse)
    total = float(made.sum())
    made *= made.shape[0] / total if total > 0 else 1.0
    made.sort_indices()
    return made


def _nearest(features: Float, n_neighbors: int) -> tuple[NDArray[np.intp], Float]:
    """(numbers, distances) of the nearest others of every point, nearest first, [n, k]; exact, in blocks of rows."""
    n = len(features)
    k = min(n_neighbors, n - 1)
    features = features - features.mean(axis=0)  # digits are lost far from the origin
    square = (features**2).sum(axis=1)
    near, away = np.empty((n, k), dtype=np.intp), np.empty((n, k))
    with one_thread():
        for start in range(0, n, ROWS):
            rows = np.arange(start, min(start + ROWS, n))
            table = np.maximum(square[rows, None] + square - 2 * (features[rows] @ features.T), 0.0)
            table[np.arange(len(rows)), rows] = np.inf
            some = np.argpartition(table, k - 1, axis=1)[:, :k]
            found = np.take_along_axis(table, some, axis=1)
            order = np.lexsort((some, found), axis=1)
            near[rows] = np.take_along_axis(some, order, axis=1)
            away[rows] = np.sqrt(np.take_along_axis(found, order, axis=1))
    return near, away


def resolvent(walk: sparse.csr_matrix, root: Bool, steps: float) -> Float:
    """-log of the chance to end in ``root``, [n]: small in the middle of the root, large far away."""
    degree = np.asarray(walk.sum(axis=1)).ravel()
    system = sparse.diags(degree * (1 + steps)) - steps * walk
    with one_thread():
        if walk.nnz > DENSE * walk.shape[0] ** 2:
            chance = linalg.solve(system.toarray(), degree * root, assume_a="pos")
        else:
            chance = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A").solve(degree * root)
    return np.asarray(-np.log(np.maximum(chance, 1e-300)))


def ranks(values: Float, size: Float) -> Float:
    """Ranks scaled to [0, 1] of points that stand for ``size`` cells each; ties get the middle of theirs."""
    whole = rankdata(values, method="dense").astype(np.intp) - 1
    cells = np.bincount(whole, size)
    middle = np.cumsum(cells) - cells / 2
    low, high = middle[0], middle[-1]
    return np.asarray((middle[whole] - low) / (high - low) if high > low else np.full(len(values), 0.5))


def orders(
    features: dict[float, Float], space: sparse.csr_matrix, root: Bool, size: Float, candidates: list[Candidate]
) -> Float:
    """Rank-scaled order of the points by every candidate, [n_candidates, n]; ``features`` by smoothing."""
    wanted = sorted({(c.smoothing, c.n_neighbors) for c in candidates if c.space < 1})
    walks = {(a, k): expression_walk(features[a], k) for a, k in wanted}
    out = []
    for c in candidates:
        walk = space
        if c.space < 1:
            walk = sparse.csr_matrix((1 - c.space) * walks[c.smoothing, c.n_neighbors] + c.space * space)
        out.append(ranks(resolvent(walk, root, c.steps(len(root))), size))
    return np.stack(out)
