"""Count splitting: one table of counts into two that are independent given the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float = NDArray[np.float64]

#: dispersion below which a gene is taken as Poisson
LEAST_DISPERSION = 1e-3


def local_dispersion(counts: sparse.csr_matrix, weights: sparse.csr_matrix) -> Float:
    """Negative-binomial dispersion of every gene, float64 [n_genes]: variance = mean + dispersion * mean^2.

    By moments, from differences between neighbouring spots, so that what varies smoothly over the tissue is not taken
    for noise. Library sizes are divided out. With y_i = x_i / s_i (s the library size over its mean), neighbours of
    equal mean m have E (y_i - y_j)^2 = m (1/s_i + 1/s_j) + 2 phi m^2.
    """
    x = sparse.csr_matrix(counts, dtype=np.float64)
    size = np.asarray(x.sum(axis=1)).ravel()
    size = np.maximum(size / max(size.mean(), 1e-12), 1e-6)
    inverse = 1.0 / size
    y = sparse.csr_matrix(sparse.diags(inverse) @ x)
    edges = sparse.csr_matrix(weights)
    edges = sparse.csr_matrix((np.ones(edges.nnz), edges.indices, edges.indptr), shape=edges.shape)
    degree = np.asarray(edges.sum(axis=1)).ravel()
    total = degree.sum()
    if total == 0:
        return np.zeros(x.shape[1])
    neighbours = edges @ y
    product = np.asarray(y.multiply(neighbours).sum(axis=0)).ravel()  # sum over ordered pairs of y_i y_j
    square = np.asarray(y.multiply(y).T @ degree).ravel()
    difference = (2 * square - 2 * product) / total
    mean = np.asarray(y.T @ degree).ravel() / total
    poisson = mean * 2 * float(degree @ inverse) / total
    squared_mean = np.maximum(product / total, 1e-12)
    phi = (difference - poisson) / (2 * squared_mean)
    return np.asarray(np.where(mean > 0, np.clip(phi, 0.0, 10.0), 0.0))


def thin(
    counts: sparse.csr_matrix, fraction: float, dispersion: Float, rng: np.random.Generator
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Split whole counts into a part that holds ``fraction`` of them and the rest.

    Beta-binomial by gene: the two parts of a negative-binomial count of size theta = 1 / dispersion are then
    independent, of sizes theta * fraction and theta * (1 - fraction) (Neufeld et al. 2024 give the family of such
    decompositions); genes without dispersion are split binomially, which does the same for Poisson counts.
    """
    x = sparse.csr_matrix(counts)
    whole = x.data.astype(np.int64)
    phi = dispersion[x.indices]
    spread = phi > LEAST_DISPERSION
    p = np.full(len(whole), fraction)
    theta = 1.0 / phi[spread]
    p[spread] = rng.beta(fraction * theta, (1 - fraction) * theta)
    part = rng.binomial(whole, p).astype(np.float64)
    shape = x.shape
    one = sparse.csr_matrix((part, x.indices.copy(), x.indptr.copy()), shape=shape)
    rest = sparse.csr_matrix((whole - part, x.indices.copy(), x.indptr.copy()), shape=shape)
    one.eliminate_zeros()
    rest.eliminate_zeros()
    return one, rest
