"""S x M x E edge weights, and the sparse solve (I + alpha L) Z = X that smooths along them."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from smeld.kernels import _backend

Float = NDArray[np.float64]

#: values that are smoothed together, half a gigabyte: the iteration holds four copies of them
MOST_VALUES = 64_000_000
#: from so many spots on, neighbours whose values lie far from each other in memory (a larger share of the spots apart
#: than this) are brought together first: the iteration waits for little else
FAR_FROM, FAR = 500_000, 0.01


@njit(cache=True, parallel=True)
def _edge_squared_distance(indptr, indices, features):  # type: ignore[no-untyped-def]
    out = np.empty(indices.size, dtype=np.float64)
    for i in prange(indptr.size - 1):
        for e in range(indptr[i], indptr[i + 1]):
            total = 0.0
            for f in range(features.shape[1]):
                difference = features[i, f] - features[indices[e], f]
                total += difference * difference
            out[e] = total
    return out


def edge_similarity(features: NDArray[np.floating], graph: sparse.csr_matrix) -> Float:
    """Similarity in (0, 1] of the two ends of each stored edge, float64 [n_edges].

    exp(-|f_i - f_j|^2 / (2 s^2)), s^2 the median squared distance over the edges whose ends differ: unit-free, so that
    features may come on any scale. Features that do not differ at all give 1 everywhere.
    """
    squared = _edge_squared_distance(graph.indptr, graph.indices, np.ascontiguousarray(features, dtype=np.float64))
    differ = squared > 0
    if not differ.any():
        return np.ones_like(squared)
    scale = float(np.median(squared[differ]))
    return np.asarray(np.exp(-squared / (2 * scale)))


def sme_weights(
    distances: sparse.csr_matrix,
    *,
    sigma_um: float,
    morphology: Float | None = None,
    expression: Float | None = None,
    gamma: float = 0.0,
    eta: float = 0.0,
) -> sparse.csr_matrix:
    """w_ij = exp(-d_ij^2 / 2 sigma^2) g_M^gamma g_E^eta on the stored edges, scaled to a mean degree of 1.

    ``morphology`` and ``expression`` are edge similarities from ``edge_similarity``. The scaling makes the
    smoothing strength alpha mean the same on every graph. Symmetric CSR [n_obs, n_obs].
    """
    # the pattern is shared, not copied: only values differ
    weights = sparse.csr_matrix(
        (np.exp(-(distances.data**2) / (2 * sigma_um**2)), distances.indices, distances.indptr), shape=distances.shape
    )
    if morphology is not None and gamma > 0:
        weights.data = weights.data * morphology**gamma
    if expression is not None and eta > 0:
        weights.data = weights.data * expression**eta
    total = float(weights.data.sum())
    if total > 0:
        weights.data = weights.data * (weights.shape[0] / total)
    return weights


@njit(cache=True, parallel=True)
def _system_times(indptr, indices, data, degree, alpha, x, out):  # type: ignore[no-untyped-def]
    # rows are independent and each is summed in stored order: the same bits for any number of threads
    for i in prange(indptr.size - 1):
        for f in range(x.shape[1]):
            out[i, f] = (1.0 + alpha * degree[i]) * x[i, f]
        for e in range(indptr[i], indptr[i + 1]):
            w = alpha * data[e]
            j = indices[e]
            for f in range(x.shape[1]):
                out[i, f] -= w * x[j, f]


def smooth(weights: sparse.csr_matrix, values: NDArray[np.floating], alpha: float, *, tolerance: float = 1e-6) -> Float:
    """Solve (I + alpha L) Z = X, L the Laplacian of ``weights``; X and Z float64 [n_obs, d].

    Jacobi-preconditioned Chebyshev iteration: linear in the number of edges, no inner products (so the result
    does not depend on the number of threads), and a number of steps known beforehand: the preconditioned spectrum
    lies in [1 - r, 1 + r] with r = max_i alpha d_i / (1 + alpha d_i) by Gershgorin's theorem. The error is below
    ``tolerance`` times that of the starting point.
    """
    x = np.ascontiguousarray(values, dtype=np.float64)
    squeeze = x.ndim == 1
    x = x[:, None] if squeeze else x
    degree = np.asarray(weights.sum(axis=1)).ravel()
    rho = float(np.max(alpha * degree / (1 + alpha * degree), initial=0.0))
    if alpha <= 0 or rho == 0:
        return x[:, 0].copy() if squeeze else x.copy()
    rate = rho / (1 + np.sqrt(1 - rho**2))
    n_steps = int(np.ceil(np.log(tolerance / 2) / np.log(rate)))
    # three-term recurrence of the Chebyshev polynomials on [1 - rho, 1 + rho]
    omegas = [1.0, 1 / (1 - rho**2 / 2)][:n_steps]
    while len(omegas) < n_steps:
        omegas.append(1 / (1 - rho**2 * omegas[-1] / 4))
    z = _backend.elsewhere("smooth", len(x), weights, degree, float(alpha), omegas, x)
    z = np.asarray(_by_parts(weights, degree, float(alpha), omegas, x) if z is None else z)
    return z[:, 0] if squeeze else z


def _by_parts(weights: sparse.csr_matrix, degree: Float, alpha: float, omegas: list[float], x: Float) -> Float:
    """Few columns at a time, which know nothing of each other."""
    width = max(1, MOST_VALUES // len(x))
    order = _near_order(weights) if len(x) >= FAR_FROM else None
    if order is None and x.shape[1] <= width:
        return _iterated(weights, degree, alpha, omegas, x)
    rows = slice(None) if order is None else order
    edges = weights if order is None else _relabelled(weights, order)
    z = np.empty_like(x)
    for i in range(0, x.shape[1], width):
        part = np.ascontiguousarray(x[rows, i : i + width])
        z[rows, i : i + width] = _iterated(edges, degree[rows], alpha, omegas, part)
    return z


def _near_order(weights: sparse.csr_matrix) -> NDArray[np.intp] | None:
    """An order in which neighbours lie near each other (Cuthill & McKee 1969), or None where they do already."""
    some = np.linspace(0, weights.nnz - 1, 10_000).astype(np.int64) if weights.nnz else np.empty(0, dtype=np.int64)
    row = np.searchsorted(weights.indptr, some, side="right") - 1
    if not some.size or np.median(np.abs(weights.indices[some] - row)) <= FAR * weights.shape[0]:
        return None
    return np.asarray(csgraph.reverse_cuthill_mckee(weights, symmetric_mode=True), dtype=np.intp)


def _relabelled(weights: sparse.csr_matrix, order: NDArray[np.intp]) -> sparse.csr_matrix:
    """Rows and columns in ``order``, the edges of a row as they stood: their sum keeps its bits."""
    place = np.empty(len(order), dtype=weights.indices.dtype)
    place[order] = np.arange(len(order), dtype=place.dtype)
    indptr = np.concatenate([[0], np.cumsum(np.diff(weights.indptr)[order])]).astype(weights.indptr.dtype)
    indices, data = np.empty_like(weights.indices), np.empty_like(weights.data)
    _copy_rows(weights.indptr, weights.indices, weights.data, order, place, indptr, indices, data)
    return sparse.csr_matrix((data, indices, indptr), shape=weights.shape)


@njit(cache=True, parallel=True)
def _copy_rows(indptr, indices, data, order, place, to, new_indices, new_data):  # type: ignore[no-untyped-def]
    for i in prange(order.size):
        first = indptr[order[i]]
        for e in range(indptr[order[i] + 1] - first):
            new_indices[to[i] + e] = place[indices[first + e]]
            new_data[to[i] + e] = data[first + e]


def _iterated(weights: sparse.csr_matrix, degree: Float, alpha: float, omegas: list[float], x: Float) -> Float:
    """One step of the iteration an omega; x float64 [n_obs, d]."""
    z = x.copy()  # (I + alpha L) 1 = 1: the data themselves are the natural start
    inverse_diagonal = (1.0 / (1.0 + alpha * degree))[:, None]
    residual = np.empty_like(z)
    step = np.zeros_like(z)
    for omega in omegas:
        _system_times(weights.indptr, weights.indices, weights.data, degree, alpha, z, residual)
        np.subtract(x, residual, out=residual)
        residual *= inverse_diagonal
        step *= omega - 1
        step += omega * residual
        z += step
    return z


def surroundings(weights: sparse.csr_matrix, values: Float) -> Float:
    """Weighted mean of the neighbours' values without the spot itself, float64 [n_obs, d]; 0 where there is none."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(inverse[:, None] * (weights @ values))


def effective_size(weights: sparse.csr_matrix, alpha: float, *, n_probes: int = 20) -> float:
    """Degrees of freedom of the smoother, trace of (I + alpha L)^-1: how many independent spots are left after it.

    Hutchinson's estimate with fixed random signs (Hutchinson 1990), which is exact enough for model choice.
    """
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(weights.shape[0], n_probes))
    return float((signs * smooth(weights, signs, alpha, tolerance=1e-3)).sum() / n_probes)
