"""Fields with their smoothness taken off, as far as it is signal: many small patches in place of a few large ones.

Two smooth fields have few independent patches, and little can be said of them. A field is a smooth signal of spectrum S
in the noise N of single spots; a filter sqrt(S) / (S + N) brings all frequencies in which signal stands out to equal
power and drops the rest, which is the best that a cross-product can do (prewhitening, Haugh 1976, taken to maps).

The filter is a sum of the field and its means under Gaussians of several widths. Such means are linear in the values,
so it is known how much of a spot's own value comes back to it: what two genes share in one spot, as the depth of its
library, can be told from what they share with neighbours, and taken off (:func:`leaks`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from smeld.kernels import crosscov
from smeld.kernels._threads import workers
from smeld.kernels.crosscov import Lags

Float = NDArray[np.float64]

#: widths of the Gaussians, spacings; those used are at most this share of the shorter side. With wider ones fields of
#: long range vary more near the edge of large sections, and more independent ones pass
WIDTHS, WIDEST = (1.0, 2.0, 4.0, 8.0, 16.0), 0.4
#: coverage at which the mean of a pixel without spots is half believed
COVERED = 0.1
#: rings of frequency, evenly spaced in the logarithm, and how far, in rings, the spectrum is smoothed over them
N_RINGS, RING_WIDTH = 24, 1.5
#: frequency, per spacing, beyond which a field is taken for noise
NOISE_FROM = 0.35
#: power that is taken for signal stands out from noise by so many of its standard errors
CLEAR = 2.0
#: share of the noise's power that passes where there is no signal: fields that are noise alone must be tested, too
FLOOR = 0.05
#: values of random noise that its own spectrum is learnt from, and the fewest and most fields of it
PROBED, FEWEST_PROBES, MOST_PROBES = 200_000, 4, 100
#: how strongly the sum of Gaussians is held small, of its mean square
RIDGE = 1e-4


@dataclass(frozen=True)
class Whitener:
    """What does not depend on the field: ``where`` the raster; ``side`` pixels of the section's shorter side; ``count``
    spots by pixel; the Gaussians' ``widths`` and transforms, and what they find of spots (``coverages``); the ``ring``
    of every frequency and the rings' sizes; ``response`` [n_rings, 1 + n_widths] of the field itself and of its means;
    ``noise`` [n_rings] the power that unit noise at the spots has on this raster, and ``error`` the relative standard
    error of the power in a ring."""

    where: Lags
    side: int
    count: Float
    widths: tuple[float, ...]
    gaussians: tuple[Float, ...]
    coverages: tuple[Float, ...]
    ring: NDArray[np.intp]
    ring_size: Float
    ring_frequency: Float
    smoothing: Float
    response: Float
    noise: Float
    error: Float


def whitener(where: Lags) -> Whitener:
    """The filter of a section. Spots are unevenly spread over the pixels, so what noise looks like there is tried."""
    shape = where.shape
    side = min(int(where.pixel.max() // shape[1]), int((where.pixel % shape[1]).max())) + 1
    widths = [w for w in WIDTHS if w <= WIDEST * side] or [WIDTHS[0]]
    exact = crosscov.precision(where.n_obs)
    squared = fft.fftfreq(shape[0])[:, None] ** 2 + fft.rfftfreq(shape[1])[None, :] ** 2
    gaussians = tuple(np.exp(-2 * np.pi**2 * w**2 * squared).astype(exact) for w in widths)
    count = np.bincount(where.pixel, minlength=shape[0] * shape[1]).astype(exact)
    transformed = fft.rfft2(count.reshape(shape))
    coverages = tuple(np.maximum(fft.irfft2(transformed * g, shape), 1e-6).ravel() for g in gaussians)
    edges = np.concatenate([[0.0], np.geomspace(1.5 / max(shape), np.sqrt(0.5), N_RINGS)])
    frequency = np.sqrt(squared).ravel()
    ring = np.clip(np.searchsorted(edges, frequency, side="right") - 1, 0, N_RINGS - 1)
    size = np.bincount(ring, minlength=N_RINGS).astype(np.float64)
    mean = np.bincount(ring, frequency, N_RINGS) / np.maximum(size, 1)
    near = np.exp(-0.5 * ((np.arange(N_RINGS)[:, None] - np.arange(N_RINGS)) / RING_WIDTH) ** 2) * size
    smoothing = near / near.sum(axis=1, keepdims=True)
    modes = np.maximum(
        size * where.n_obs / count.size, 1e-3
    )  # independent ones, for the section fills the raster in part
    error = np.sqrt((smoothing**2 / modes).sum(axis=1))
    response = np.stack([np.ones(N_RINGS), *(np.exp(-2 * np.pi**2 * w**2 * mean**2) for w in widths)], axis=1)
    bare = Whitener(
        where, side, count, tuple(widths), gaussians, coverages, np.asarray(ring, dtype=np.intp), size, mean, smoothing,
        response, np.ones(N_RINGS), error,
    )  # fmt: skip
    noise = np.concatenate([_power(bare, _means(bare, block)[1]) for block in _probes(bare)]).mean(axis=0)
    return replace(bare, noise=np.where(size > 0, np.maximum(noise, 1e-12), 1.0))


def _probes(made: Whitener) -> Iterator[Float]:
    """Random signs at the spots less their mean, in blocks, the same for every section of this size; for few spots
    every spot by itself."""
    n, size = made.where.n_obs, batch(made)
    rng = np.random.default_rng(0)
    n_probes = n if n * n <= PROBED else int(np.clip(PROBED // n, FEWEST_PROBES, MOST_PROBES))
    for start in range(0, n_probes, size):
        rows = np.arange(start, min(start + size, n_probes))
        if n_probes == n:
            block = np.sqrt(n) * (rows[:, None] == np.arange(n))
        else:
            block = rng.choice([-1.0, 1.0], (len(rows), n))
        yield block - block.mean(axis=1, keepdims=True)


def batch(made: Whitener) -> int:
    """Fields that are filtered together: those whose rasters take about a quarter of a gigabyte."""
    return int(np.clip(2**25 // (made.count.size * (len(made.gaussians) + 4)), 1, crosscov.BATCH))


def whitened(made: Whitener, fields: Float) -> tuple[Float, Float, Float]:
    """Filtered ``fields`` (centred, [n_fields, n_obs]) at the spots, less their means; the weights
    [n_fields, 1 + n_widths] of the field itself and of its means under the Gaussians; and the power [n_fields, n_rings]
    that the filtered field has by frequency."""
    means, spectrum = _means(made, fields)
    power = _power(made, spectrum) / made.noise
    high = (made.ring_frequency > NOISE_FROM) & (made.ring_size > 0)
    size = made.ring_size[high]
    level = ((power[:, high] * size).sum(axis=1) / max(size.sum(), 1.0))[:, None]
    level = np.maximum(level, 1e-12 * power.max(axis=1, initial=0.0, keepdims=True))
    ratio = power / np.where(level > 0, level, 1.0)
    smooth = np.exp(_product(np.log(np.maximum(ratio, 1e-9)), made.smoothing))
    signal = np.maximum(smooth - 1 - CLEAR * made.error, 0.0)
    weights = _weights(made, np.sqrt(signal + FLOOR) / (signal + 1), signal + 1)
    out = fields * weights[:, :1]
    for i, mean in enumerate(means, start=1):
        out += weights[:, i : i + 1] * mean
    passed = ratio * _product(weights, made.response) ** 2
    return out - out.mean(axis=1, keepdims=True), weights, passed


def _product(first: Float, second: Float) -> Float:
    """first @ second.T, each row by itself: linear algebra's bits depend on how many rows are multiplied together."""
    return np.asarray((first[:, None, :] * second[None]).sum(axis=-1))


def _weights(made: Whitener, gain: Float, power: Float) -> Float:
    """Weights whose response is nearest to ``gain``, by ring and by the power that it passes."""
    used = (made.ring_size > 0) & (made.ring_frequency <= 0.5)
    out = np.empty((len(gain), made.response.shape[1]))
    for row, g, p in zip(out, gain, power):
        scale = np.sqrt(made.ring_size[used] * p[used])[:, None]
        design = made.response[used] * scale
        square = design.T @ design  # of one shape, whatever the number of fields
        square[np.diag_indices_from(square)] += RIDGE * np.trace(square) / len(square)
        row[:] = np.linalg.solve(square, design.T @ (g[used] * scale[:, 0]))
    return out


def _means(made: Whitener, fields: Float) -> tuple[list[Float], NDArray[np.complex128]]:
    """Means under each Gaussian at the spots, and the spectrum of the field carried beyond the section's edge.

    Pixels without spots get the mean under the narrowest Gaussian that still sees some: or else the edge would be the
    sharpest thing in the field.
    """
    shape, n = made.where.shape, len(fields)
    raster = np.empty((n, made.count.size), dtype=made.coverages[0].dtype)
    for row, field in zip(raster, fields):
        row[:] = crosscov.binned(made.where.pixel, field, made.count.size)
    spectrum = fft.rfft2(raster.reshape(n, *shape), workers=workers())
    means, beyond = [], np.zeros_like(raster)
    for gaussian, coverage in zip(made.gaussians[::-1], made.coverages[::-1]):
        mean = fft.irfft2(spectrum * gaussian, shape, workers=workers()).reshape(n, -1) / coverage
        means.append(mean[:, made.where.pixel])
        mean -= beyond
        mean *= coverage / (coverage + COVERED)  # how far it is believed
        beyond += mean
    extended = np.where(made.count > 0, raster / np.maximum(made.count, 1), beyond)
    return means[::-1], fft.rfft2(extended.reshape(n, *shape), workers=workers())


def _power(made: Whitener, spectrum: NDArray[np.complex128]) -> Float:
    """Mean power by ring, [n_fields, n_rings]."""
    power = (spectrum.real**2 + spectrum.imag**2).reshape(len(spectrum), -1)
    return np.stack([crosscov.binned(made.ring, p, N_RINGS) for p in power]) / np.maximum(made.ring_size, 1.0)


def modes(made: Whitener) -> Float:
    """Independent waves on the section by ring of frequency, [n_rings]."""
    return 2 * made.ring_size * made.where.n_obs / made.count.size


def passed_by(made: Whitener, weights: sparse.csr_matrix) -> Float:
    """Share of the amplitude that averaging over neighbours leaves, by ring of frequency, [n_rings]."""
    shape, links = made.where.shape, weights.tocoo()
    row, column = np.divmod(made.where.pixel, shape[1])
    lag = (row[links.row] - row[links.col]) % shape[0] * shape[1] + (column[links.row] - column[links.col]) % shape[1]
    kernel = np.bincount(lag, links.data, made.count.size).reshape(shape) / made.where.n_obs
    amplitude = fft.rfft2(kernel).real.ravel()
    return np.bincount(made.ring, amplitude, N_RINGS) / np.maximum(made.ring_size, 1.0)


def leaks(made: Whitener, weights: sparse.csr_matrix) -> Float:
    """How much of sum_i x_i y_i there is in sum_i x'_i (W y')_i, mean by spot, for fields filtered with weights a and
    b: a @ leaks @ b. float64 [1 + n_widths, 1 + n_widths]: traces of G_k' W G_l, from random signs (Hutchinson)."""
    total, n = np.zeros((made.response.shape[1],) * 2), 0
    for block in _probes(made):
        basis = [block, *_means(made, block)[0]]
        beside = [np.asarray(weights @ f.T).T for f in basis]
        total += [[float((f * b).sum()) for b in beside] for f in basis]
        n += len(block)
    return total / (n * made.where.n_obs)
