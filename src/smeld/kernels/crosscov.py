"""Do two fields lie together more than independent fields of the same smoothness would? The variance of a
cross-product under independence, in closed form (Clifford, Richardson & Hemon 1989).

For independent stationary fields x and v of mean 0, Var(sum_i x_i v_i) = sum_ij Cov(x_i, x_j) Cov(v_i, v_j), and
covariances depend on the distance alone: sum over distance bins b of n_b C_x(b) C_v(b), n_b the ordered pairs in b and
C(b) their mean product. Nothing is permuted. The correlograms come from one Fourier transform a gene.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse, stats
from scipy.spatial import cKDTree
from threadpoolctl import threadpool_limits

Float = NDArray[np.float64]

#: genes that are transformed together
BATCH = 16
#: empty stretches are cut at so many spacings; and the most pixels along a side
LONGEST_GAP, MOST_PIXELS = 64, 4096


@dataclass(frozen=True)
class Lags:
    """The distance bins of one section.

    ``pixel`` int [n_obs] the flat pixel of each spot on a raster of ``shape``, padded so that nothing wraps around;
    ``bin`` int [shape] the bin of each lag; ``n_pairs`` [n_bins] ordered pairs of different spots by bin, the first
    bin those within a pixel; ``n_obs`` spots.
    """

    pixel: NDArray[np.intp]
    shape: tuple[int, int]
    bin: NDArray[np.intp]
    n_pairs: Float
    n_obs: int


def lags(xy_um: Float) -> Lags:
    """Distance bins of positions [n_obs, 2], one spacing wide.

    Empty stretches between parts of the section are shortened: what lies that far apart is unrelated anyway, and a
    stray cell would else take all the raster.
    """
    pixel_um = _spacing(xy_um)
    near = np.stack([_without_gaps(x, LONGEST_GAP * pixel_um) for x in xy_um.T], axis=1)
    pixel_um = max(pixel_um, float(near.max(initial=0.0)) / MOST_PIXELS)
    at = np.floor(near / pixel_um).astype(np.intp)
    extent = at.max(axis=0) + 1
    shape = tuple(fft.next_fast_len(int(2 * e), real=True) for e in extent)
    pixel = at[:, 0] * shape[1] + at[:, 1]
    lag = [np.minimum(np.arange(s), s - np.arange(s)) for s in shape]
    bins = np.rint(np.hypot(lag[0][:, None], lag[1][None, :])).astype(np.intp)
    made = Lags(pixel, (shape[0], shape[1]), bins, np.zeros(0), len(xy_um))
    pairs = _by_bin(made, np.ones((1, len(xy_um))))[0]
    pairs[0] -= len(xy_um)
    return Lags(pixel, (shape[0], shape[1]), bins, np.maximum(np.rint(pairs), 0.0), len(xy_um))


def _spacing(xy_um: Float) -> float:
    """Median distance to the fourth nearest neighbour: within a tenth the root of the area that a spot has, on
    lattices and among scattered cells alike."""
    k = min(5, len(xy_um))
    distance = cKDTree(xy_um).query(xy_um, k=k)[0].reshape(len(xy_um), k)[:, -1]
    distance = distance[distance > 0]
    return float(np.median(distance)) if len(distance) else 1.0


def _without_gaps(x: Float, longest: float) -> Float:
    """Coordinates from 0 on, with steps between neighbouring values cut at ``longest``."""
    order = np.argsort(x, kind="stable")
    out = np.empty_like(x)
    out[order] = np.concatenate([[0.0], np.cumsum(np.minimum(np.diff(x[order]), longest))])
    return out


def _by_bin(where: Lags, fields: Float) -> Float:
    """Sum over ordered pairs of spots (i = j included) of f_i f_j by bin, [n_fields, n_bins]."""
    n_fields, size = len(fields), where.shape[0] * where.shape[1]
    raster = np.zeros((n_fields, size))
    for row, field in zip(raster, fields):
        row += np.bincount(where.pixel, field, size)
    workers = os.cpu_count() or 1  # each transform is done by one of them: the bits do not depend on their number
    spectrum = fft.rfft2(raster.reshape(n_fields, *where.shape), workers=workers)
    power = spectrum.real**2 + spectrum.imag**2
    products = fft.irfft2(power, where.shape, workers=workers).reshape(n_fields, size)
    flat, n_bins = where.bin.ravel(), int(where.bin.max()) + 1
    return np.stack([np.bincount(flat, p, n_bins) for p in products])


def correlograms(where: Lags, fields: Callable[[slice], Float], n_fields: int) -> Float:
    """What the variance needs of each field, [n_fields, 1 + n_bins].

    ``fields(rows)`` gives those fields [n, n_obs], centred. The first column is the sum of squares over
    the root of n_obs (self-pairs, exact), the others the sum of products by bin over the root of its number of pairs:
    the scalar product of two rows is the variance under independence.
    """
    used = where.n_pairs > 0
    out = np.zeros((n_fields, 1 + len(where.n_pairs)))
    for start in range(0, n_fields, BATCH):
        rows = slice(start, min(start + BATCH, n_fields))
        block = fields(rows)
        own = (block**2).sum(axis=1)
        products = _by_bin(where, block)
        products[:, 0] -= own
        out[rows, 0] = own / np.sqrt(where.n_obs)
        out[rows, 1:][:, used] = products[:, used] / np.sqrt(where.n_pairs[used])
    return out


@dataclass(frozen=True)
class Test:
    """``effect`` the correlation of the two fields; ``zscore`` of the cross-product under independence; one-sided
    ``pvalue`` (more together than chance); ``n_effective`` how many independent spots the fields are worth."""

    effect: Float
    zscore: Float
    pvalue: Float
    n_effective: Float


def test(cross: Float, first: Float, second: Float, n_obs: int) -> Test:
    """Test of cross-products ``cross`` [n_pairs] = sum_i x_i v_i, given the fields' rows of ``correlograms``.

    p from Student's t with n_effective - 2 degrees of freedom (Dutilleul 1993), n_effective = 1 + 1 / Var(r): few
    independent patches have heavier tails than the normal distribution. Fields that do not vary give p = 1.
    """
    variance = (first * second).sum(axis=1)
    scale = first[:, 0] * second[:, 0] * n_obs  # of sums of squares
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(scale > 0, cross / np.sqrt(scale), 0.0)
        # a variance below that of unrelated spots comes from the noise of far bins
        var_r = np.where(scale > 0, np.maximum(variance / scale, 1.0 / n_obs), np.inf)
        n_effective = np.clip(1.0 + 1.0 / var_r, 3.0, max(n_obs, 3))
        t = r * np.sqrt((n_effective - 2) / np.maximum(1 - r**2, 1e-12))
    pvalue = stats.t.sf(t, n_effective - 2)
    return Test(r, np.where(np.isfinite(var_r), r / np.sqrt(var_r), 0.0), np.asarray(pvalue), n_effective)


def residuals(genes: sparse.csc_matrix, columns: NDArray[np.intp], basis: Float | None) -> Float:
    """Values of some genes less their means, or less what ``basis`` [n_obs, q], orthonormal, explains;
    float64 [n_columns, n_obs]."""
    values = np.asarray(genes[:, columns].toarray(), dtype=np.float64)
    if basis is None:
        values -= values.mean(axis=0)
    else:
        with threadpool_limits(1):
            values -= basis @ (basis.T @ values)
    return np.ascontiguousarray(values.T)


def around(weights: sparse.csr_matrix, fields: NDArray[np.floating]) -> Float:
    """What the neighbours of every spot say, less its mean, float64 [n_fields, n_obs]."""
    made = np.asarray(weights @ fields.T, dtype=np.float64)
    return np.ascontiguousarray((made - made.mean(axis=0)).T)


def cross_products(
    fields: Callable[[NDArray[np.intp]], NDArray[np.floating]], pairs: NDArray[np.intp], weights: sparse.csr_matrix
) -> Float:
    """sum_i x_i (W y)_i by pair (ligand y, receptor x), ligand by ligand: W y is made once for all its receptors.

    ``fields(columns)`` gives those fields [n_columns, n_obs], centred.
    """
    out = np.zeros(len(pairs))
    order = np.argsort(pairs[:, 0], kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(pairs[order, 0])) + 1):
        beside = around(weights, fields(pairs[group[:1], 0]))[0]
        for start in range(0, len(group), BATCH):
            part = group[start : start + BATCH]
            out[part] = (fields(pairs[part, 1]) * beside).sum(axis=1)
    return out
