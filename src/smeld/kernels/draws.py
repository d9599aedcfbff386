"""Draws of the simulator: negative-binomial counts packed by row, and ellipses laid on a canvas."""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

#: below this log-probability of a zero count, recursion from zero would underflow; such means are drawn apart
_LOG_TINY = -600.0


@njit(nogil=True, cache=True)
def _count(u: float, mean: float, dispersion: float) -> float:
    """The count at which the negative-binomial distribution passes ``u``; minus the mean if it is too large.

    Variance = mean + dispersion mean^2; dispersion 0 is Poisson. P(k + 1) / P(k) = (1 + k phi) / (k + 1) * q.
    """
    if mean <= 0.0:
        return 0.0
    spread = dispersion * mean
    log_zero = -math.log1p(spread) / dispersion if dispersion > 0.0 else -mean
    if log_zero < _LOG_TINY:
        return -mean
    p = math.exp(log_zero)
    q = mean / (1.0 + spread)
    below = p
    k = 0
    while u > below:
        p *= (1.0 + k * dispersion) / (k + 1.0) * q
        k += 1
        if k > mean and p < 1e-18:  # what is left of the tail is less than rounding
            break
        below += p
    return float(k)


@njit(nogil=True, cache=True)
def _fill(
    uniform: Doubles,
    size: Doubles,
    group: NDArray[np.int32],
    shares: Doubles,
    covariates: NDArray[np.float32],
    group_mean: Doubles,
    share_fold: Doubles,
    column: NDArray[np.int32],
    load: Doubles,
    dispersion: Doubles,
    data: NDArray[np.float32],
    indices: NDArray[np.int32],
    row_nnz: NDArray[np.int64],
) -> int:
    """See ``negative_binomial_rows``; writes the packed rows and returns the number of values written."""
    n_rows, n_genes = uniform.shape
    written = 0
    for i in range(n_rows):
        start = written
        for g in range(n_genes):
            fold = 0.0
            for t in range(shares.shape[1]):
                if shares[i, t] > 0.0:
                    fold += shares[i, t] * share_fold[t, g]
            mean = size[i] * group_mean[group[i], g] * fold
            if column[g] >= 0:
                mean *= math.exp(load[g] * covariates[i, column[g]])
            count = _count(uniform[i, g], mean, dispersion[g])
            if count != 0.0:
                data[written] = count
                indices[written] = g
                written += 1
        row_nnz[i] = written - start
    return written


def negative_binomial_rows(
    rng: np.random.Generator,
    *,
    size: Doubles,
    group: NDArray[np.int32],
    shares: Doubles,
    covariates: NDArray[np.float32],
    group_mean: Doubles,
    share_fold: Doubles,
    column: NDArray[np.int32],
    load: Doubles,
    dispersion: Doubles,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
    """Counts of a block of rows as CSR parts: values float32 [nnz], columns int32 [nnz], row nnz int64 [n].

    The mean of row i and gene g is size_i * group_mean[group_i, g] * sum_t shares[i, t] share_fold[t, g]
    * exp(load_g covariates[i, column_g]), the last factor left out where column_g < 0; the variance is
    mean + dispersion_g mean^2.

    Parameters: ``size`` [n], ``group`` [n], ``shares`` [n, n_types], ``covariates`` [n, n_covariates],
    ``group_mean`` [n_groups, n_genes], ``share_fold`` [n_types, n_genes], the rest [n_genes].
    """
    n_rows, n_genes = len(size), len(dispersion)
    data = np.empty(n_rows * n_genes, dtype=np.float32)
    indices = np.empty(n_rows * n_genes, dtype=np.int32)
    row_nnz = np.empty(n_rows, dtype=np.int64)
    n = _fill(
        rng.random((n_rows, n_genes)),
        size,
        group,
        shares,
        covariates,
        group_mean,
        share_fold,
        column,
        load,
        dispersion,
        data,
        indices,
        row_nnz,
    )
    data, indices = data[:n].copy(), indices[:n].copy()
    _draw_large(rng, data, dispersion[indices[data < 0]])
    return data, indices, row_nnz


def _draw_large(rng: np.random.Generator, data: NDArray[np.float32], dispersion: Doubles) -> None:
    """Replace the entries that hold minus a large mean by gamma-Poisson draws, in place."""
    large = data < 0
    if not large.any():
        return
    mean = -data[large].astype(np.float64)
    phi = np.maximum(dispersion, 1e-12)
    rate = np.where(dispersion > 0, rng.gamma(1.0 / phi, mean * phi), mean)
    data[large] = rng.poisson(rate)


@njit(nogil=True, cache=True)
def _stamp(
    canvas: NDArray[np.float32],
    x: Doubles,
    y: Doubles,
    long_px: Doubles,
    short_px: Doubles,
    angle: Doubles,
    opacity: Doubles,
) -> None:
    height, width = canvas.shape
    for k in range(len(x)):
        a, b = max(long_px[k], 0.7), max(short_px[k], 0.7)
        # what is smaller than a pixel is drawn as large as one, and fainter
        strength = opacity[k] * min(1.0, long_px[k] * short_px[k] / (a * b))
        c, s = math.cos(angle[k]), math.sin(angle[k])
        reach = max(a, b) + 1.0
        for row in range(max(0, int(y[k] - reach)), min(height, int(y[k] + reach) + 2)):
            for col in range(max(0, int(x[k] - reach)), min(width, int(x[k] + reach) + 2)):
                dx, dy = col - x[k], row - y[k]
                along, across = (c * dx + s * dy) / a, (c * dy - s * dx) / b
                edge = (1.0 - math.sqrt(along * along + across * across)) * min(a, b) + 0.5
                cover = strength * min(1.0, max(0.0, edge))
                canvas[row, col] = 1.0 - (1.0 - canvas[row, col]) * (1.0 - cover)


def stamp_ellipses(
    shape: tuple[int, int],
    *,
    x: Doubles,
    y: Doubles,
    long_px: Doubles,
    short_px: Doubles,
    angle: Doubles,
    opacity: Doubles,
) -> NDArray[np.float32]:
    """A canvas float32 [height, width] in 0..1 with soft-edged ellipses; overlaps darken as filters do.

    All parameters [n]: centres and semi-axes in pixels, angle of the long axis in radians, opacity 0..1.
    """
    canvas = np.zeros(shape, dtype=np.float32)
    _stamp(canvas, x, y, long_px, short_px, angle, opacity)
    return canvas
