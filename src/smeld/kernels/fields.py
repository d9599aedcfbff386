"""Smooth random fields and neighbourhood averages for any number of positions; nothing here is n x n."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Floats = NDArray[np.float32]
XY = NDArray[np.float64]

#: grid points per correlation length: linear interpolation between them then loses about 1 % of the variance
_PER_LENGTH = 6.0
#: grid points per standard deviation of a smoothing kernel
_PER_SD = 3.0
_TRUNCATE = 5.0


@dataclass(frozen=True)
class Bounds:
    """A rectangle in micrometres, from (x0, y0) to (x1, y1)."""

    x0: float
    y0: float
    x1: float
    y1: float

    @classmethod
    def around(cls, xy_um: XY, margin_um: float = 0.0) -> Bounds:
        """The smallest rectangle that holds the positions float64 [n, 2], widened by a margin."""
        low, high = xy_um.min(axis=0) - margin_um, xy_um.max(axis=0) + margin_um
        return cls(float(low[0]), float(low[1]), float(high[0]), float(high[1]))

    def grid(self, step_um: float) -> tuple[int, int]:
        """(rows, columns) of a grid of that step which covers the rectangle."""
        rows = int(np.ceil((self.y1 - self.y0) / step_um)) + 2
        return rows, int(np.ceil((self.x1 - self.x0) / step_um)) + 2


@dataclass(frozen=True)
class GridField:
    """Values on a regular grid that can be read anywhere by linear interpolation."""

    values: Floats
    bounds: Bounds
    step_um: float

    def at(self, xy_um: XY) -> Floats:
        """Values float32 [n] at positions float64 [n, 2] (x, y); beyond the grid its border goes on."""
        where = np.stack([xy_um[:, 1] - self.bounds.y0, xy_um[:, 0] - self.bounds.x0]) / self.step_um
        out: Floats = ndimage.map_coordinates(self.values, where, order=1, mode="nearest", prefilter=False)
        return out


def gaussian_field(bounds: Bounds, length_um: float, rng: np.random.Generator) -> GridField:
    """A stationary Gaussian field: mean 0, variance 1, correlation exp(-d^2 / (2 length_um^2)).

    White noise under a Gaussian filter of standard deviation length / sqrt(2). The noise reaches beyond the
    rectangle by the filter's width, so that the field is stationary up to the border, and the scale is the
    filter's own norm rather than the sample's: a realisation may have any mean and variance.
    """
    step = length_um / _PER_LENGTH
    sd = _PER_LENGTH / np.sqrt(2.0)
    rows, columns = bounds.grid(step)
    reach = int(np.ceil(_TRUNCATE * sd))
    noise = rng.standard_normal((rows + 2 * reach, columns + 2 * reach), dtype=np.float32)
    smooth = ndimage.gaussian_filter(noise, sd, truncate=_TRUNCATE, mode="constant")
    inner = smooth[reach : reach + rows, reach : reach + columns]
    return GridField(np.ascontiguousarray(inner / _filter_norm(sd, reach)), bounds, step)


def _filter_norm(sd: float, reach: int) -> np.float32:
    """Standard deviation that the 2-D Gaussian filter leaves of white noise of variance 1."""
    impulse = np.zeros(2 * reach + 1)
    impulse[reach] = 1.0
    return np.float32((ndimage.gaussian_filter1d(impulse, sd, truncate=_TRUNCATE) ** 2).sum())


def fields_at(xy_um: XY, length_um: float, seeds: Sequence[np.random.SeedSequence], *, n_jobs: int = 1) -> Floats:
    """Independent Gaussian fields read at the positions, float32 [n, len(seeds)]; one seed a field.

    The result depends on the seeds alone, not on ``n_jobs``.
    """
    bounds = Bounds.around(xy_um)
    out = np.empty((len(xy_um), len(seeds)), dtype=np.float32)

    def fill(k: int) -> None:
        out[:, k] = gaussian_field(bounds, length_um, np.random.default_rng(seeds[k])).at(xy_um)

    with ThreadPoolExecutor(max(1, n_jobs)) as pool:
        list(pool.map(fill, range(len(seeds))))
    return out


def local_mean(values: Floats, xy_um: XY, sd_um: float) -> Floats:
    """Gaussian-weighted mean of ``values`` [n] around each position, itself included, float32 [n].

    Positions are binned on a grid of a third of ``sd_um``: linear in the number of positions at any range.
    """
    step = sd_um / _PER_SD
    bounds = Bounds.around(xy_um, step)
    shape = bounds.grid(step)
    column = np.rint((xy_um[:, 0] - bounds.x0) / step).astype(np.intp)
    row = np.rint((xy_um[:, 1] - bounds.y0) / step).astype(np.intp)
    cell = row * shape[1] + column
    total, weight = (
        GridField(_blurred(np.bincount(cell, amounts, shape[0] * shape[1]), shape), bounds, step)
        for amounts in (values.astype(np.float64), np.ones(len(values)))
    )
    return total.at(xy_um) / weight.at(xy_um)


def _blurred(flat: NDArray[Any], shape: tuple[int, int]) -> Floats:
    blurred = ndimage.gaussian_filter(flat.reshape(shape), _PER_SD, truncate=4.0, mode="constant")
    return np.asarray(blurred, dtype=np.float32)


def nearest(xy_um: XY, within_um: float, *, n_neighbors: int = 6, n_jobs: int = 1) -> NDArray[np.int32]:
    """Indices int32 [n, n_neighbors] of the nearest others within a distance; ``n`` where there are fewer."""
    tree = cKDTree(xy_um)
    _, index = tree.query(xy_um, k=n_neighbors + 1, distance_upper_bound=within_um, workers=max(1, n_jobs))
    return np.asarray(index[:, 1:], dtype=np.int32)


def neighbour_mean(values: Floats, neighbours: NDArray[np.int32], *, own: bool) -> Floats:
    """Mean of ``values`` [n] over each row of ``nearest``, with the position's own value or without it.

    A position that has no neighbour keeps its own value.
    """
    padded = np.append(values, np.float32(0))
    count = (neighbours < len(values)).sum(axis=1, dtype=np.float32)
    total = padded[neighbours].sum(axis=1)
    if own:
        return np.asarray((total + values) / (count + 1), dtype=np.float32)
    return np.where(count > 0, total / np.maximum(count, 1), values).astype(np.float32)
