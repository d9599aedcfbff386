"""Components of smoothed profiles: counts are smoothed first and logged then, for sections of few genes or few counts.

A spot of thirty counts has no profile worth a logarithm, and components of log-normalised spots are noise there. The
profile of a spot and what surrounds it does. How many components are kept is what two halves of the counts agree on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from smeld.kernels import smooth, split
from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]

#: correlation of a component between the two halves of the counts that is asked for; set on DLPFC sections of 200 genes
AGREE = 0.7
MOST = 30
#: profiles are scaled to this sum before the logarithm
TARGET = 1e3


def log_profiles(counts: sparse.csr_matrix, weights: sparse.csr_matrix, alpha: float) -> Float:
    """log(1 + share x 1,000) of counts smoothed along ``weights``, float64 [n_obs, n_genes], columns centred."""
    smoothed = np.maximum(smooth.smooth(weights, counts.toarray(), alpha, tolerance=1e-4), 0.0)
    total = smoothed.sum(axis=1, keepdims=True)
    shares = np.divide(smoothed, total, out=np.zeros_like(smoothed), where=total > 0)
    values = np.log1p(shares * TARGET)
    return np.asarray(values - values.mean(axis=0))


def reliable(counts: sparse.csr_matrix, weights: sparse.csr_matrix, alpha: float, *, seed: int) -> tuple[Float, Float]:
    """Leading components of smoothed profiles on which two halves of the counts agree: (scores float64 [n_obs, d],
    axes [n_genes, d]), d >= 1.

    ``counts`` whole, CSR [n_obs, n_genes]. Of the first 30, those before the first whose correlation between halves
    (split beta-binomially, with the dispersion of differences between neighbours) is below .7.
    """
    values = log_profiles(counts, weights, alpha)
    halves = split.thin(counts, 0.5, split.local_dispersion(counts, weights), np.random.default_rng(seed))
    with one_thread():
        axes = _axes(values)
        first, second = (log_profiles(half, weights, alpha) @ axes for half in halves)
        agree = np.array([_correlation(a, b) for a, b in zip(first.T, second.T)])
        below = np.flatnonzero(agree < AGREE)
        kept = axes[:, : max(1, int(below[0]) if len(below) else axes.shape[1])]
        return np.asarray(values @ kept), kept


def _axes(values: Float) -> Float:
    """Leading axes [n_genes, d] by the covariance of genes; the largest entry of each is positive."""
    p = values.shape[1]
    d = min(MOST, p, len(values) - 1)
    vectors = linalg.eigh(values.T @ values, subset_by_index=(p - d, p - 1))[1][:, ::-1]
    return np.asarray(vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(d)]))


def _correlation(a: Float, b: Float) -> float:
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 1e-15 else 0.0
