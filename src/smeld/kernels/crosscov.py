"""Do two fields lie together more than independent fields of the same smoothness would? The variance of a
cross-product under independence, in closed form (Clifford, Richardson & Hemon 1989).

For independent stationary fields x and v of mean 0, Var(sum_i x_i v_i) = sum_ij Cov(x_i, x_j) Cov(v_i, v_j), and
covariances depend on the distance alone: sum over distance bins b of n_b C_x(b) C_v(b), n_b the ordered pairs in b and
C(b) their mean product. Nothing is permuted. The correlograms come from one Fourier transform a gene.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft, sparse, stats
from scipy.spatial import cKDTree

from smeld.kernels import _backend, nearpairs
from smeld.kernels._threads import alone, one_thread, workers
from smeld.kernels.nearpairs import N_FINE, Near

Float = NDArray[np.float64]
T = TypeVar("T")

#: spots beyond which rasters are of single precision; and values, and products, for which threads are started
LARGE, WORTH_SHARES, WORTH_THREADS = 2000, 200_000, 2_000_000
#: genes that are transformed together
BATCH = 16
#: empty stretches are cut at so many spacings; and the most pixels along a side
LONGEST_GAP, MOST_PIXELS = 64, 4096


@dataclass(frozen=True)
class Lags:
    """The distance bins of one section.

    ``pixel`` int [n_obs] the flat pixel of each spot on a raster of ``shape``, padded so that nothing wraps around;
    ``order`` int [n_obs] the spots by pixel; ``bin`` int [shape] the bin of each lag; ``n_pairs`` [n_bins] the ordered
    pairs of different spots by bin, the first bin those within a pixel, 0 in bins that do not count; ``n_obs`` spots.
    ``near`` are pairs whose bins are finer than a pixel, for correlograms are steep there: its spots are numbered along
    ``order``, so that those of a pair lie near in memory. With ``part`` (int [n_obs] from 0 on), pairs across parts and
    pairs within each part have bins of their own, one such set after the other.
    """

    pixel: NDArray[np.intp]
    order: NDArray[np.intp]
    shape: tuple[int, int]
    bin: NDArray[np.intp]
    n_pairs: Float
    n_obs: int
    near: Near
    part: NDArray[np.intp] | None = None


def lags(xy_um: Float, part: NDArray[np.intp] | None = None, *, half: bool = False) -> Lags:
    """Distance bins of positions [n_obs, 2], one spacing wide.

    Empty stretches between parts of the section are shortened: what lies that far apart is unrelated anyway, and a
    stray cell would else take all the raster. With ``half`` lags of more than half the section's width or height do not
    count, for which a smaller raster will do.
    """
    pixel_um = spacing(xy_um)
    near = np.stack([_without_gaps(x, LONGEST_GAP * pixel_um) for x in xy_um.T], axis=1)
    pixel_um = max(pixel_um, float(near.max(initial=0.0)) / MOST_PIXELS)
    # a quarter off, for rows of a lattice would lie on the borders of pixels, where rounding decides
    at = np.floor(near / pixel_um + 0.25).astype(np.intp)
    extent = at.max(axis=0) + 1
    reach = extent // 2 if half else extent
    shape = tuple(fft.next_fast_len(int(e + r), real=True) for e, r in zip(extent, reach))
    pixel = at[:, 0] * shape[1] + at[:, 1]
    lag = [np.minimum(np.arange(s), s - np.arange(s)) for s in shape]
    bins = np.rint(np.hypot(lag[0][:, None], lag[1][None, :])).astype(np.intp)
    far = (lag[0] > reach[0])[:, None] | (lag[1] > reach[1])[None, :]
    beyond = int(bins[~far].max()) + 1
    bins[far] = beyond
    order = np.argsort(pixel, kind="stable")
    pairs = nearpairs.near(at[order], near[order] / pixel_um)
    made = Lags(pixel, order, (shape[0], shape[1]), bins, np.zeros(0), len(xy_um), pairs)
    made = replace(made, n_pairs=_counted(made))
    if far.any():
        made.n_pairs[beyond] = 0.0
    return apart(made, part)


def apart(made: Lags, part: NDArray[np.intp] | None) -> Lags:
    """The same bins for pairs across ``part`` (int [n_obs] from 0 on) and within each; the same where it is None."""
    if part is None:
        return made
    divided = replace(made, near=nearpairs.divided(made.near, part[made.order]), part=part)
    counts = np.tile(made.n_pairs > 0, int(part.max()) + 2)
    return replace(divided, n_pairs=_counted(divided) * counts)


def among(made: Lags, rows: NDArray[np.intp]) -> Lags:
    """The bins of some spots (numbers that rise) of a section without parts, on the raster of all."""
    inside = np.zeros(made.n_obs, dtype=bool)
    inside[rows] = True
    along = inside[made.order]
    order = (np.cumsum(inside) - 1)[made.order[along]]
    near = nearpairs.among(made.near, along)
    found = replace(made, pixel=made.pixel[rows], order=order, near=near, n_obs=len(rows))
    return replace(found, n_pairs=_counted(found) * (made.n_pairs > 0))


def _counted(made: Lags) -> Float:
    """Ordered pairs of different spots by bin."""
    return np.asarray(np.maximum(np.rint(_products(made, [np.ones((1, made.n_obs))], [(0, 0)])[0, 0]), 0.0))


def _move_near(where: Lags, fields: list[Float], wanted: list[tuple[int, int]], sums: Float) -> None:
    """Takes products of near pairs out of their bins on the raster and puts them into their own, field by field."""
    many = len(where.near) * len(fields[0]) > WORTH_THREADS and workers() > 1
    ordered = [f[:, where.order] for f in fields]
    nearpairs.move(where.near, int(where.bin.max()) + 1, ordered, wanted, sums, many)


def spacing(xy_um: Float) -> float:
    """Median distance to the fourth nearest neighbour: within a tenth the root of the area that a spot has, on
    lattices and among scattered cells alike."""
    k = min(5, len(xy_um))
    distance = cKDTree(xy_um).query(xy_um, k=k, workers=workers())[0].reshape(len(xy_um), k)[:, -1]
    distance = distance[distance > 0]
    return float(np.median(distance)) if len(distance) else 1.0


def _without_gaps(x: Float, longest: float) -> Float:
    """Coordinates from 0 on, with steps between neighbouring values cut at ``longest``."""
    order = np.argsort(x, kind="stable")
    out = np.empty_like(x)
    out[order] = np.concatenate([[0.0], np.cumsum(np.minimum(np.diff(x[order]), longest))])
    return out


def precision(n_obs: int) -> type[np.floating]:
    """Rasters of large sections are of single precision, which is twice as fast and half as large: sums over that many
    spots are known to less than seven digits anyway."""
    return np.float32 if n_obs > LARGE else np.float64


def in_threads(work: Callable[[Float], T], fields: Float) -> list[T]:
    """``work`` on the rows of ``fields``, shared out over threads, each row done by one: results of the shares in
    order. What is done by field is the same however many there are."""
    shares = [s for s in np.array_split(np.arange(len(fields)), os.cpu_count() or 1) if len(s)]
    if len(shares) < 2 or workers() == 1 or fields.size < WORTH_SHARES:
        return [work(fields)]

    def by_itself(rows: NDArray[np.intp]) -> T:
        alone()
        return work(fields[rows[0] : rows[-1] + 1])

    with ThreadPoolExecutor(len(shares)) as pool:
        return list(pool.map(by_itself, shares))


@njit(cache=True, nogil=True)
def _add(index: NDArray[np.intp], values: NDArray[np.floating], out: Float) -> None:
    for i in range(len(index)):
        out[index[i]] += values[i]


def binned(index: NDArray[np.intp], values: NDArray[np.floating], n_bins: int) -> Float:
    """Sums of ``values`` by ``index``, float64 [n_bins]: the bits of ``np.bincount``, which stops other threads."""
    out = np.zeros(n_bins)
    _add(index, values, out)
    return out


def _products(where: Lags, fields: list[Float], wanted: list[tuple[int, int]]) -> Float:
    """Sums over ordered pairs of different spots of f_i g_j by bin, for the pairs (f, g) that are ``wanted`` of
    ``fields``, each [n_fields, n_obs]: [n_fields, n_wanted, n_bins]."""
    made = _backend.elsewhere("products", where.n_obs, where, fields, wanted)
    whole = _by_raster(where, fields, wanted) if made is None else made
    for k, (i, j) in enumerate(wanted):
        _take_selves(where, whole[:, k], fields[i] * fields[j])
    if made is None and len(where.near):
        _move_near(where, fields, wanted, whole)
    return whole


def _by_raster(where: Lags, fields: list[Float], wanted: list[tuple[int, int]]) -> Float:
    """The sums over all ordered pairs, those of a spot with itself included, near pairs in the raster's bins."""
    spectra = _spectra(where, fields)
    if where.part is None:
        return _sums(where, [s[0] for s in spectra], wanted)
    n_parts = len(spectra[0])
    within = [_sums(where, [s[p] for s in spectra], wanted) for p in range(n_parts)]
    whole = _sums(where, [np.sum(s, axis=0) for s in spectra], wanted)  # transforms of sums are sums of transforms
    return np.concatenate([whole - np.sum(within, axis=0), *within], axis=-1)


def _take_selves(where: Lags, sums: Float, squares: Float) -> None:
    """Takes a spot's product with itself out of the first bin."""
    if where.part is None:
        sums[:, 0] -= squares.sum(axis=1)
        return
    n_bins = int(where.bin.max()) + 1 + N_FINE
    for p in range(int(where.part.max()) + 1):
        sums[:, (p + 1) * n_bins] -= squares[:, where.part == p].sum(axis=1)


def _spectra(where: Lags, fields: list[Float]) -> list[list[NDArray[np.complexfloating]]]:
    """The transform of each field, by part."""
    masks = [np.arange(where.n_obs)]
    if where.part is not None:
        masks = [np.flatnonzero(where.part == p) for p in range(int(where.part.max()) + 1)]
    size = where.shape[0] * where.shape[1]
    out = []
    for field in fields:
        of_parts = []
        for rows in masks:
            raster = np.empty((len(field), size), dtype=precision(where.n_obs))
            for row, values in zip(raster, field[:, rows]):
                row[:] = binned(where.pixel[rows], values, size)
            of_parts.append(fft.rfft2(raster.reshape(-1, *where.shape), workers=workers()))
        out.append(of_parts)
    return out


def _sums(where: Lags, spectra: list[NDArray[np.complexfloating]], wanted: list[tuple[int, int]]) -> Float:
    """Sums of all products of the fields behind the spectra, by bin."""
    n_fields, size = len(spectra[0]), where.shape[0] * where.shape[1]
    flat, n_bins = where.bin.ravel(), int(where.bin.max()) + 1
    out = np.zeros((n_fields, len(wanted), n_bins + N_FINE))
    for k, (i, j) in enumerate(wanted):
        a, b = spectra[i], spectra[j]
        # lags of one length are summed up, so that the antisymmetric part, which is imaginary here, goes away
        power = a.real * b.real + a.imag * b.imag
        products = fft.irfft2(power, where.shape, workers=workers(), overwrite_x=True).reshape(n_fields, size)
        out[:, k, :n_bins] = [binned(flat, p, n_bins) for p in products]
    return out


def cross_correlograms(where: Lags, fields: list[Float], wanted: list[tuple[int, int]]) -> Float:
    """What the variance needs of the pairs of fields that are ``wanted``, [n_fields, n_wanted, 1 + n_bins].

    ``fields`` are centred, each [n_fields, n_obs]. The first column is the sum of products of a spot with itself over
    the root of n_obs (exact), the others the sum of products by bin over the root of its number of pairs: the scalar
    product of two rows is the variance under independence.
    """
    used = where.n_pairs > 0
    out = np.zeros((len(fields[0]), len(wanted), 1 + len(where.n_pairs)))
    for k, (i, j) in enumerate(wanted):
        out[:, k, 0] = (fields[i] * fields[j]).sum(axis=1) / np.sqrt(where.n_obs)
    out[..., 1:][..., used] = _products(where, fields, wanted)[..., used] / np.sqrt(where.n_pairs[used])
    return out


@dataclass(frozen=True)
class Test:
    """``effect`` the correlation of the two fields; ``zscore`` of the cross-product under independence; one-sided
    ``pvalue`` (more together than chance); ``n_effective`` how many independent spots the fields are worth."""

    effect: Float
    zscore: Float
    pvalue: Float
    n_effective: Float


def judged(cross: Float, variance: Float, scale: Float, n_obs: int, freedom: Float | None = None) -> Test:
    """Test of cross-products of a given ``variance`` under independence; ``scale`` [n_pairs] the product of the two
    sums of squares.

    p from Student's t with n_effective - 2 degrees of freedom (Dutilleul 1993), n_effective = 1 + 1 / Var(r): few
    independent patches have heavier tails than the normal distribution; or with ``freedom``, where fewer, those that
    the variance itself is known with. Fields that do not vary give p = 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(scale > 0, cross / np.sqrt(scale), 0.0)
        # a variance below that of unrelated spots comes from the noise of far bins
        var_r = np.where(scale > 0, np.maximum(variance / scale, 1.0 / n_obs), np.inf)
        n_effective = np.clip(1.0 + 1.0 / var_r, 3.0, max(n_obs, 3))
        t = r * np.sqrt((n_effective - 2) / np.maximum(1 - r**2, 1e-12))
    degrees = n_effective - 2 if freedom is None else np.minimum(n_effective - 2, np.maximum(freedom, 1.0))
    pvalue = stats.t.sf(t, degrees)
    return Test(r, np.where(np.isfinite(var_r), r / np.sqrt(var_r), 0.0), np.asarray(pvalue), n_effective)


def residuals(genes: sparse.csc_matrix, columns: NDArray[np.intp], basis: Float | None) -> Float:
    """Values of some genes less their means, or less what ``basis`` [n_obs, q], orthonormal, explains;
    float64 [n_columns, n_obs]."""
    values = np.asarray(genes[:, columns].toarray(), dtype=np.float64)
    if basis is None:
        values -= values.mean(axis=0)
    else:
        with one_thread():
            values -= basis @ (basis.T @ values)
    return np.ascontiguousarray(values.T)


def around(weights: sparse.csr_matrix, fields: NDArray[np.floating]) -> Float:
    """What the neighbours of every spot say, less its mean, float64 [n_fields, n_obs]."""
    made = np.ascontiguousarray(np.asarray(weights @ fields.T, dtype=np.float64).T)
    made -= made.mean(axis=1, keepdims=True)
    return made


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
