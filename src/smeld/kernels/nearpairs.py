"""Pairs of spots that lie near each other, sorted by distance bin: their products, bin by bin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: pairs nearer than this, in spacings, have bins of their own, so many a spacing, where a spot has at most so many
NEAR, PER_SPACING, MOST_NEAR = 2.5, 4, 100
N_FINE = int(NEAR * PER_SPACING) + 1
#: bins of the raster that near pairs lie in, at most: pixels are rounded positions
N_COARSE = int(NEAR + 1.5) + 2


@dataclass(frozen=True)
class Near:
    """``i`` and ``j`` int32 [n] the spots of each pair, i < j, group after group, those of group g from ``first[g]``
    on; of each group the bin ``fine`` (from 0), the bin ``coarse`` on the raster, and ``part``: 0 for pairs across
    parts, p + 1 for those within part p."""

    i: NDArray[np.int32]
    j: NDArray[np.int32]
    first: Int
    fine: Int
    coarse: Int
    part: Int

    def __len__(self) -> int:
        return len(self.i)

    def bins(self, n_bins: int) -> tuple[Int, Int]:
        """Each group's bin, and its bin on the raster: part by part ``n_bins`` of the raster and then the fine ones."""
        start = self.part * (n_bins + N_FINE)
        return start + n_bins + self.fine, start + self.coarse


def near(at: Int, xy: Float) -> Near:
    """Pairs of spots less than ``NEAR`` spacings apart, positions ``xy`` and pixels ``at`` [n_obs, 2] in spacings; none
    where spots have very many."""
    tree, n = cKDTree(xy), len(xy)
    i = j = np.zeros(0, dtype=np.int64)
    if tree.count_neighbors(tree, NEAR) <= MOST_NEAR * n:
        i, j = np.ascontiguousarray(tree.query_pairs(NEAR, output_type="ndarray").T)
        order = np.argsort(i * n + j)  # so that spots of a pair, and of the next, lie near in memory
        i, j = i[order], j[order]
    fine = np.minimum(np.rint(np.hypot(*(xy[i] - xy[j]).T) * PER_SPACING), N_FINE - 1).astype(np.int16)
    coarse = np.rint(np.hypot(*(at[i] - at[j]).T)).astype(np.int16)
    return _grouped(i, j, fine * N_COARSE + coarse)


def _grouped(i: NDArray[np.integer], j: NDArray[np.integer], group: NDArray[np.int16]) -> Near:
    """Pairs by (part, fine, coarse), a number each, in the order in which they come."""
    order = np.argsort(group, kind="stable")
    number = np.flatnonzero(np.bincount(group)) if len(group) else np.zeros(0, dtype=np.intp)
    first = np.searchsorted(group[order], number)
    part, left = np.divmod(number, N_FINE * N_COARSE)
    fine, coarse = np.divmod(left, N_COARSE)
    first = np.append(first, len(i)).astype(np.intp)
    return Near(i[order].astype(np.int32), j[order].astype(np.int32), first, fine, coarse, part)


def divided(pairs: Near, part: Int) -> Near:
    """The same with pairs across ``part`` (int [n_obs] from 0 on) and within each apart."""
    here = part[pairs.i]
    inside = np.where(here == part[pairs.j], here + 1, 0) * (N_FINE * N_COARSE)
    group = np.repeat(pairs.fine * N_COARSE + pairs.coarse, np.diff(pairs.first))
    return _grouped(pairs.i, pairs.j, (inside + group).astype(np.int16 if part.max() < 300 else np.int64))


def among(pairs: Near, inside: NDArray[np.bool_]) -> Near:
    """The pairs of some spots, in their own numbers, bool [n_obs]."""
    new = np.cumsum(inside, dtype=np.int32) - np.int32(1)
    kept = inside[pairs.i] & inside[pairs.j]
    first = np.concatenate([[0], np.cumsum(kept)])[pairs.first]
    return replace(pairs, i=new[pairs.i[kept]], j=new[pairs.j[kept]], first=first.astype(np.intp))


def _moved(
    i: NDArray[np.int32],
    j: NDArray[np.int32],
    first: Int,
    bins: tuple[Int, Int],
    fields: Float,
    wanted: Int,
    sums: Float,
) -> None:
    """Sums by group are made where they are needed most, in one register."""
    into, out_of = bins
    for field in prange(fields.shape[1]):
        for w in range(len(wanted)):
            x, y = fields[wanted[w, 0], field], fields[wanted[w, 1], field]
            for g in range(len(into)):
                total = 0.0
                for k in range(first[g], first[g + 1]):
                    total += x[i[k]] * y[j[k]] + y[i[k]] * x[j[k]]
                sums[field, w, into[g]] += total
                sums[field, w, out_of[g]] -= total


#: each field is done by one thread; for few products the threads cost more than they save
_by_one = njit(cache=True, nogil=True)(_moved)
_by_all = njit(cache=True, parallel=True)(_moved)


def move(pairs: Near, n_bins: int, fields: list[Float], wanted: list[tuple[int, int]], sums: Float, many: bool) -> None:
    """Takes products of near pairs, f_i g_j + f_j g_i, out of their bins on the raster and puts them into their own, in
    ``sums`` [n_fields, n_wanted, all bins]; ``fields`` are [n_fields, n_obs] each, ``many`` asks for threads."""
    work = _by_all if many else _by_one
    work(pairs.i, pairs.j, pairs.first, pairs.bins(n_bins), np.stack(fields), np.array(wanted, dtype=np.intp), sums)
