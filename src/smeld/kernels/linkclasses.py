"""Sums over pairs of links, by bin, for fields that are 1 on the links of one class and 0 elsewhere: of all classes in
one pass, where :mod:`smeld.kernels.linksums` needs one for each field.

With t the indicator of a class and m its mean, f = w (t - m) and

    sum f_k f_l = sum w_k w_l t_k t_l - sum w_k w_l (t_k m_l + t_l m_k) + sum w_k w_l m_k m_l.

The first sum is over pairs of one class, the second over the pairs that a link of the class is in, the third over all:
a link is of one class alone, so that each pair adds to a few numbers whatever classes there are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from smeld.kernels import crosscov, linksums
from smeld.kernels._threads import workers
from smeld.kernels.linksums import MEETING, N_ANGLES, N_MEETING, Links, bin_of_two

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: links of other classes that weigh less than this share of a stratum are rounding
ROUNDING = 1e-12


@dataclass(frozen=True)
class Classes:
    """``of_link`` int [m] the class of each link, -1 for none; the fields' ``mean`` by stratum [2, n_classes]."""

    of_link: Int
    mean: Float


def totals(where: Links, of_link: Int, n_classes: int) -> Float:
    """Weight of the links of each class by stratum, [2, n_classes]."""
    known = of_link >= 0
    at = where.loop[known] * n_classes + of_link[known]
    return np.bincount(at, where.weight[known], 2 * n_classes).reshape(2, n_classes).astype(np.float64)


def by_bin(where: Links, classes: Classes) -> Float:
    """Sum over ordered pairs of links of f_k f_l by bin, [n_classes, n_bins], as :func:`linksums.by_bin` has it."""
    by_distance = _by_distance(where, classes)
    first = np.stack([_squares(where, classes), _ways_back(where, classes)])
    met = 2.0 * _met(where, classes, min(where.n_near, len(by_distance)))
    return linksums.together(first, met, by_distance)


def _squares(where: Links, classes: Classes) -> Float:
    """Sum of f^2, [n_classes]; nothing is subtracted: what does not vary is exactly 0."""
    squares = np.bincount(where.loop, where.weight**2, 2)[:, None]
    own = np.zeros_like(classes.mean)
    known = classes.of_link >= 0
    np.add.at(own, (where.loop[known], classes.of_link[known]), where.weight[known] ** 2)
    rest = np.where(squares - own > ROUNDING * squares, squares - own, 0.0)
    return np.asarray((own * (1 - classes.mean) ** 2 + rest * classes.mean**2).sum(axis=0))


@dataclass(frozen=True)
class _Sums:
    """Sums of w_k w_l by bin: ``same`` [n_bins, n_classes] over pairs of one class, ``one`` [n_bins, 2, n_classes] over
    links of the class and the other link's stratum, ``every`` [n_bins, 2, 2] by both strata."""

    same: Float
    one: Float
    every: Float


def _empty(n_bins: int, n_classes: int) -> _Sums:
    return _Sums(np.zeros((n_bins, n_classes)), np.zeros((n_bins, 2, n_classes)), np.zeros((n_bins, 2, 2)))


def _of_fields(sums: _Sums, mean: Float) -> Float:
    """Sum of f_k f_l by bin and class."""
    every = np.einsum("bst,sc,tc->bc", sums.every, mean, mean)
    return np.asarray(sums.same - (sums.one * mean).sum(axis=1) + every)


def _ways_back(where: Links, classes: Classes) -> Float:
    """Sum over links of the product with the way back, [n_classes]."""
    here = np.flatnonzero(where.back >= 0)
    other = where.back[here]
    product = where.weight[here] * where.weight[other]
    a, b = classes.of_link[here], classes.of_link[other]
    n_classes = classes.mean.shape[1]
    sums = _empty(1, n_classes)  # links between cells alone have ways back
    alike = (a == b) & (a >= 0)
    sums.same[0] = np.bincount(a[alike], product[alike], n_classes)
    for of_link in (a, b):
        sums.one[0, 0] += np.bincount(of_link[of_link >= 0], product[of_link >= 0], n_classes)
    sums.every[0, 0, 0] = product.sum()
    return np.asarray(_of_fields(sums, classes.mean)[0])


@njit(nogil=True, cache=True)
def _meetings(
    weight: Float,
    stratum: Int,
    of_link: Int,
    of_ends: tuple[Int, Int, Int],
    back: Int,
    at: Int,
    towards: Float,
    bins: tuple[Int, Int, int, int],
    sums: tuple[Float, Float, Float],
    start: int,
    stop: int,
) -> None:
    """Products w_k w_l of unordered pairs of links that meet at the cells from ``start`` on."""
    link, end, first = of_ends
    same, one, every = sums
    for v in range(start, stop):
        low = first[v]
        for p in range(first[v + 1] - low):
            k = link[low + p]
            a, s = of_link[k], stratum[k]
            for q in range(p):
                l = link[low + q]  # noqa: E741
                if back[k] == l:
                    continue
                cosine = towards[k, 0] * towards[l, 0] + towards[k, 1] * towards[l, 1]
                down, right = at[k, 0] - at[l, 0], at[k, 1] - at[l, 1]
                b = bin_of_two(bins, cosine, end[low + p], end[low + q], down, right)
                product = weight[k] * weight[l]
                other, t = of_link[l], stratum[l]
                if a >= 0:
                    one[b, t, a] += product
                    if a == other:
                        same[b, a] += product
                if other >= 0:
                    one[b, s, other] += product
                every[b, s, t] += product


def _met(where: Links, classes: Classes, n_bins: int) -> Float:
    """Products of unordered pairs of links that meet, [what, bin, n_classes]."""
    n_classes = classes.mean.shape[1]

    def of_part(start: int, stop: int) -> Float:
        sums = _empty(N_MEETING * N_ANGLES * n_bins, n_classes)
        _meetings(
            where.weight, where.loop, classes.of_link, (where.link, where.end, where.first), where.back, where.at,
            where.towards, (where.bin, MEETING, N_ANGLES, n_bins), (sums.same, sums.one, sums.every), start, stop,
        )  # fmt: skip
        return _of_fields(sums, classes.mean)

    made = linksums.in_parts(where, len(where.first) - 1, of_part)
    return np.asarray(made.reshape(-1, n_bins, n_classes))


def _by_distance(where: Links, classes: Classes) -> Float:
    """Sum over all ordered pairs of links of f_k f_l by the distance of their midpoints, [n_bins, n_classes]."""
    n_classes, pixel = classes.mean.shape[1], where.pixel
    order = np.argsort(classes.of_link, kind="stable")
    edge = np.searchsorted(classes.of_link[order], np.arange(n_classes + 1))

    def of_class(c: int) -> Float:
        mine = order[edge[c] : edge[c + 1]]
        raster = crosscov.binned(pixel[mine], where.weight[mine], where.in_pixel.shape[1])
        return linksums.autocorrelated(where, raster, classes.mean[:, c])

    with ThreadPoolExecutor(workers()) as pool:
        return np.stack(list(pool.map(of_class, range(n_classes))), axis=1)
