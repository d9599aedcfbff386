"""Spatial autocorrelation of many genes at once, on sparse counts."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels.rows import column_sums


@njit(cache=True)
def _lagged_products(x_indptr, x_indices, x_data, w_indptr, w_indices, w_data, n_genes):  # type: ignore[no-untyped-def]
    """sum_ij w_ij x_ig x_jg per gene; rows of x sorted by gene, merged pairwise: nothing dense is made."""
    out = np.zeros(n_genes)
    for i in range(w_indptr.size - 1):
        for e in range(w_indptr[i], w_indptr[i + 1]):
            j = w_indices[e]
            if j <= i:  # symmetric: each pair once
                continue
            a, b = x_indptr[i], x_indptr[j]
            a_end, b_end = x_indptr[i + 1], x_indptr[j + 1]
            while a < a_end and b < b_end:
                ga, gb = x_indices[a], x_indices[b]
                if ga == gb:
                    out[ga] += 2.0 * w_data[e] * x_data[a] * x_data[b]
                    a += 1
                    b += 1
                elif ga < gb:
                    a += 1
                else:
                    b += 1
    return out


def morans_i(x: sparse.csr_matrix, weights: sparse.csr_matrix) -> NDArray[np.float64]:
    """Moran's I of every column of ``x`` [n_obs, n_genes] under symmetric ``weights``, float64 [n_genes].

    I = (n / sum w) * sum_ij w_ij (x_i - m)(x_j - m) / sum_i (x_i - m)^2 (Moran 1950), expanded so that ``x`` stays
    sparse. Columns that are constant, or nearly (coefficient of variation below 1e-5), give 0.
    """
    x = sparse.csr_matrix(x, dtype=np.float64, copy=True)  # sorted in place below: never the caller's
    x.sum_duplicates()
    n, n_genes = x.shape
    degree = np.asarray(weights.sum(axis=1)).ravel()
    total = float(degree.sum())
    _, sums, raw = column_sums(x)
    mean = sums / n
    edges = weights.data.astype(np.float64, copy=False)
    lagged = _lagged_products(x.indptr, x.indices, x.data, weights.indptr, weights.indices, edges, n_genes)
    centred = lagged - 2 * mean * np.asarray(x.T @ degree).ravel() + mean**2 * total
    squares = raw - n * mean**2
    # relative: what cancellation leaves of a constant grows with its square, and the unit of x is arbitrary
    varies = (squares > 1e-10 * raw) & (total > 0)
    return np.asarray(np.divide(n * centred, total * squares, out=np.zeros(n_genes), where=varies))
