"""The heavy kernels in torch, for a GPU: smoothing, nearest neighbours, and the sums behind correlograms.

All in double precision and without a sum whose order is left to chance (no atomic additions): every sum is made in an
order that the data fix, so the same device gives the same bits. Nothing here draws random numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from smeld.kernels import crosscov, nearpairs
from smeld.nn import _device

Float = NDArray[np.float64]
Kernel = Callable[..., Any]

#: values of a sum that are added at once; the sums of these blocks are added in turn
BLOCK = 64
#: spots that a grid's cell holds on average, as a multiple of those that are sought
FILLED = 0.5
#: candidates looked at together, and the most that a spot may have on average: the tree of the CPU is better there
CANDIDATES, MOST_CANDIDATES = 2**24, 2000


def has_cuda() -> bool:
    """True where torch finds a CUDA (or ROCm) GPU."""
    return bool(torch.cuda.is_available())


def on(name: str) -> tuple[str, Mapping[str, Kernel]]:
    """(name, kernels by name) for a device, ``"torch:cpu"`` for torch's CPU. ``InputError`` where it is not there."""
    place = torch.device("cpu") if name == "torch:cpu" else _device.resolve(name)
    made: dict[str, Kernel] = {"smooth": smoothed, "nearest": nearest, "products": products}
    return name, {kind: partial(_or_none, kernel, place) for kind, kernel in made.items()}


def _or_none(kernel: Kernel, place: torch.device, *arguments: Any) -> Any:
    """What the kernel makes; None, for the CPU to do it, where it does not fit into the device's memory."""
    try:
        with torch.inference_mode():
            return kernel(place, *arguments)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


# -- smoothing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A sparse matrix, rows with most entries first: ``order`` [n_obs]; for k = 0, 1, .. the columns (in that order)
    and values of the k-th entry of all rows that have so many, which are the first ones."""

    order: Tensor
    entries: list[tuple[Tensor, Tensor]]


def _rows(matrix: sparse.csr_matrix, scale: float, place: torch.device) -> Rows:
    indptr, column, value = (torch.as_tensor(a, device=place) for a in (matrix.indptr, matrix.indices, matrix.data))
    count = (indptr[1:] - indptr[:-1]).long()
    order = torch.argsort(count, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=place)
    first, filled = indptr[:-1].long()[order], count[order].cpu().numpy()
    entries = []
    for k in range(int(filled[0]) if len(filled) else 0):
        at = first[: int(np.searchsorted(-filled, -k, side="left"))] + k  # rows of more than k entries
        entries.append((rank[column[at].long()], scale * value[at][:, None]))
    return Rows(order, entries)


def smoothed(
    place: torch.device, weights: sparse.csr_matrix, degree: Float, alpha: float, omegas: list[float], x: Float
) -> Float:
    """``kernels.smooth._iterated``: a Chebyshev step an omega; each row is summed in stored order."""
    rows = _rows(weights, alpha, place)
    start = torch.as_tensor(x, device=place)[rows.order]
    diagonal = 1.0 + alpha * torch.as_tensor(degree, device=place)[rows.order][:, None]
    inverse = 1.0 / diagonal
    z, step = start.clone(), torch.zeros_like(start)
    for omega in omegas:
        residual = start - diagonal * z
        for column, value in rows.entries:
            residual[: len(column)] += value * z[column]
        residual *= inverse
        step *= omega - 1
        step += omega * residual
        z += step
    out = torch.empty_like(z)
    out[rows.order] = z
    return np.asarray(out.cpu().numpy())


# -- nearest neighbours --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """Square cells of ``side`` over positions less their minimum: the spots cell by cell (``order``), the cell of each
    in that order, and cells along x and y."""

    side: float
    shape: tuple[int, int]
    order: Tensor
    cell: Tensor


def _grid(xy: Tensor, side: float) -> Grid:
    column, row = torch.floor(xy / side).long().unbind(1)
    n_x, n_y = int(column.max()) + 1, int(row.max()) + 1
    cell, order = torch.sort(row * n_x + column, stable=True)
    return Grid(side, (n_x, n_y), order, cell)


def nearest(place: torch.device, xy_um: Float, k: int, tie: float) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """``kernels.graph._nearest``: (i, j) for each j as near to i as its ``k``-th neighbour, or within ``tie`` of that.

    Exact: spots are looked for in the 3 x 3 cells about one's own, and taken if the k-th is nearer than what lies
    outside; for the other spots cells are made twice as wide. None where more than k spots coincide, or where most
    spots lie in few cells: a tree serves better there.
    """
    xy = torch.as_tensor(np.ascontiguousarray(xy_um - xy_um.min(axis=0, initial=np.inf)), device=place)
    n = len(xy)
    extent = xy_um.max(axis=0) - xy_um.min(axis=0) if n else np.zeros(2)
    per_cell = FILLED * (k + 1)
    side = max(float(np.sqrt(np.prod(extent) * per_cell / max(n, 1))), float(extent.max()) * per_cell / max(n, 1))
    if n < 2 or not np.isfinite(side) or side <= 0:
        return None
    made, rows = [], torch.arange(n, device=place)
    while len(rows):
        grid = _grid(xy, side)
        found = _within(grid, xy, rows, k, tie)
        if found is None:
            return None
        made.append(found[:2])
        rows, side = found[2], 2 * side
    i, j = (torch.cat(part).cpu().numpy() for part in zip(*made))
    return i, j


def _within(grid: Grid, xy: Tensor, rows: Tensor, k: int, tie: float) -> tuple[Tensor, Tensor, Tensor] | None:
    """(i, j, rows for which the cells are too small); None where spots are too crowded, or coincide."""
    start, stop = _ranges(grid, xy[rows])
    if len(rows) == len(xy) and float((stop - start).sum()) > MOST_CANDIDATES * len(rows):
        return None
    # rows of like cells together, so that all of a chunk have about as many candidates
    crowd = torch.argsort((stop - start).amax(1), stable=True)
    widest = (stop - start).amax(1)[crowd].cpu().numpy()
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    at = 0
    while at < len(crowd):
        end = at + _fitting(widest[at:])
        here = crowd[at:end]
        found = _chunk(grid, xy, rows[here], start[here], stop[here], k, tie)
        if found is None:
            return None
        kept.append(found)
        at = end
    of, to, left = (torch.cat(part) for part in zip(*kept))
    return of, to, left


def _fitting(widest: NDArray[Any]) -> int:
    """How many rows, whose widest stretch grows along them, are looked at together."""
    size = 3 * widest * np.arange(1, len(widest) + 1)
    return max(int(np.searchsorted(size, CANDIDATES, side="right")), 1)


def _ranges(grid: Grid, xy: Tensor) -> tuple[Tensor, Tensor]:
    """Where the spots of the three rows of cells about each position start and stop in ``grid.order``, [n, 3] each."""
    n_x, n_y = grid.shape
    column, row = torch.floor(xy / grid.side).long().unbind(1)
    beside = row[:, None] + torch.arange(-1, 2, device=xy.device)
    first = beside * n_x + (column - 1).clamp(min=0)[:, None]
    last = beside * n_x + (column + 1).clamp(max=n_x - 1)[:, None]
    start = torch.searchsorted(grid.cell, first)
    stop = torch.searchsorted(grid.cell, last, right=True)
    return start, torch.where((beside >= 0) & (beside < n_y), stop, start)


def _chunk(
    grid: Grid, xy: Tensor, rows: Tensor, start: Tensor, stop: Tensor, k: int, tie: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    here = xy[rows]
    along = torch.arange(int((stop - start).max()), device=xy.device)
    place = start[:, :, None] + along
    there = (place < stop[:, :, None]).reshape(len(rows), -1)
    other = grid.order[place.clamp(max=len(grid.order) - 1)].reshape(len(rows), -1)
    away = xy[other]
    away -= here[:, None]
    distance = torch.where(there, away.square_().sum(2).sqrt_(), torch.inf)
    if distance.shape[1] > k:
        reach = distance.topk(k + 1, largest=False).values[:, -1] * (1 + tie)
    else:
        reach = torch.full((len(rows),), torch.inf, dtype=xy.dtype, device=xy.device)
    if bool((reach == 0).any()):
        return None
    sure = reach < _margin(grid, here) * (1 - 1e-9)
    whole = _margin(grid, here).isinf()  # all there are have been looked at
    row, number = torch.nonzero((distance <= reach[:, None]) & there & (sure | whole)[:, None], as_tuple=True)
    return rows[row], other[row, number], rows[~(sure | whole)]


def _margin(grid: Grid, xy: Tensor) -> Tensor:
    """Distance to the nearest place outside the 3 x 3 cells where spots may lie; infinite where there is none."""
    at = torch.floor(xy / grid.side)
    last = torch.tensor(grid.shape, device=xy.device, dtype=xy.dtype) - 1
    below = torch.where(at > 1, xy - (at - 1) * grid.side, torch.inf)
    above = torch.where(at < last - 1, (at + 2) * grid.side - xy, torch.inf)
    return torch.minimum(below, above).amin(1)


# -- sums behind correlograms --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """Sums of values by group in a fixed order: each table [n_sums, at most ``BLOCK``] holds, by row, which values (of
    the table before) are added; the number of values stands for a 0. ``n`` values, ``n_groups`` groups."""

    n: int
    n_groups: int
    tables: list[Tensor]

    def sums(self, values: Tensor) -> Tensor:
        """[..., n] -> [..., n_groups]."""
        for table in self.tables:
            padded = torch.nn.functional.pad(values, (0, 1))
            values = padded[..., table].sum(-1)
        return values


def groups(group: NDArray[np.integer], n_groups: int, place: torch.device) -> Groups:
    """The order of sums by ``group`` (int [n], from 0 on): stored order within blocks, block by block."""
    tables, n = [], len(group)
    while True:
        size = np.bincount(group, minlength=n_groups)
        width = int(np.clip(4 * len(group) // max(int((size > 0).sum()), 1), 4, BLOCK))
        last = bool(size.max(initial=0) <= width)
        blocks = np.ones(n_groups, dtype=np.int64) if last else -(-size // width)
        tables.append(torch.as_tensor(_table(group, size, blocks, width), device=place))
        if last:
            return Groups(n, n_groups, tables)
        group = np.repeat(np.arange(n_groups), blocks)


def _table(
    group: NDArray[np.integer], size: NDArray[np.int64], blocks: NDArray[np.int64], width: int
) -> NDArray[np.int64]:
    """Values by block, [sum of ``blocks``, width]; ``size`` and ``blocks`` [n_groups] of each group."""
    small = np.uint16 if len(size) < 2**16 else np.int64  # sorted in linear time
    order = np.argsort(group.astype(small), kind="stable")
    within = np.arange(len(group)) - np.repeat(np.cumsum(size) - size, size)
    row = np.repeat(np.cumsum(blocks) - blocks, size) + within // width
    table = np.full((int(blocks.sum()), width), len(group), dtype=np.int64)
    table[row, within % width] = order
    return table


@dataclass(frozen=True)
class Raster:
    """What does not depend on the fields: by part the spots and the pixels that they have values in with the order of
    their sums, the lags' bins, and near pairs with their bins."""

    parts: list[tuple[Tensor, Tensor, Groups]]
    lags: Groups
    near: tuple[Tensor, Tensor, Groups, Groups] | None


_rasters: dict[tuple[int, str], tuple[weakref.ref[crosscov.Lags], Raster]] = {}


def _raster(where: crosscov.Lags, place: torch.device) -> Raster:
    """Made once for each ``where``, and dropped with it."""
    key = (id(where), str(place))
    known = _rasters.get(key)
    if known is not None and known[0]() is where:
        return known[1]
    made = _made(where, place)
    _rasters[key] = (weakref.ref(where, lambda _: _rasters.pop(key, None)), made)
    return made


def _made(where: crosscov.Lags, place: torch.device) -> Raster:
    part = np.zeros(where.n_obs, dtype=np.intp) if where.part is None else where.part
    parts = []
    for p in range(int(part.max(initial=0)) + 1):
        spots = np.flatnonzero(part == p)
        pixel, number = np.unique(where.pixel[spots], return_inverse=True)
        order = groups(number.ravel(), len(pixel), place)
        parts.append((torch.as_tensor(spots, device=place), torch.as_tensor(pixel, device=place), order))
    n_bins = int(where.bin.max()) + 1 + nearpairs.N_FINE
    n_all = n_bins * (1 if where.part is None else len(parts) + 1)
    near = None
    if len(where.near):
        first, second = (torch.as_tensor(where.order[i], device=place) for i in (where.near.i, where.near.j))
        bins = (np.repeat(b, np.diff(where.near.first)) for b in where.near.bins(n_bins - nearpairs.N_FINE))
        near = (first, second, *(groups(b, n_all, place) for b in bins))
    return Raster(parts, groups(where.bin.ravel(), n_bins, place), near)


def products(place: torch.device, where: crosscov.Lags, fields: list[Float], wanted: list[tuple[int, int]]) -> Float:
    """Sums over ordered pairs of spots (a spot with itself, too) of f_i g_j by bin, [n_fields, n_wanted, n_bins], near
    pairs in bins of their own: as ``kernels.crosscov`` makes them, but always in double precision."""
    raster = _raster(where, place)
    here = [torch.as_tensor(np.asarray(f, dtype=np.float64), device=place) for f in fields]
    spectra = [[_spectrum(where, f, part) for part in raster.parts] for f in here]
    out = []
    for i, j in wanted:
        within = [_by_bin(where, raster, a, b) for a, b in zip(spectra[i], spectra[j])]
        if where.part is None:
            sums = within[0]
        else:
            whole = _by_bin(where, raster, torch.stack(spectra[i]).sum(0), torch.stack(spectra[j]).sum(0))
            sums = torch.cat([whole - torch.stack(within).sum(0), *within], dim=-1)
        if raster.near is not None:
            a, b, fine, coarse = raster.near
            product = here[i][:, a] * here[j][:, b] + here[j][:, a] * here[i][:, b]
            sums = sums + fine.sums(product) - coarse.sums(product)
        out.append(sums)
    return np.asarray(torch.stack(out, dim=1).cpu().numpy())


def _spectrum(where: crosscov.Lags, field: Tensor, part: tuple[Tensor, Tensor, Groups]) -> Tensor:
    spots, pixel, order = part
    raster = torch.zeros((len(field), where.shape[0] * where.shape[1]), dtype=field.dtype, device=field.device)
    raster[:, pixel] = order.sums(field[:, spots])
    return torch.fft.rfft2(raster.reshape(-1, *where.shape))


def _by_bin(where: crosscov.Lags, raster: Raster, a: Tensor, b: Tensor) -> Tensor:
    power = a.real * b.real + a.imag * b.imag
    return raster.lags.sums(torch.fft.irfft2(power, where.shape).flatten(1))
