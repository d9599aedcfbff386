"""Sums over links and over pairs of links that :mod:`smeld.kernels.edgefields` needs, by what sorts them into bins.

Fields on links are not held: they are made, from what cells have, where they are added up.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft, sparse

from smeld.kernels import crosscov
from smeld.kernels._threads import workers

Float = NDArray[np.float64]
Int = NDArray[np.integer]

#: links beyond which they are gone through in so many parts, side by side; sums depend on their number
MANY, PARTS = 500_000, 8
#: links beyond which rasters are of single precision, as in ``crosscov.precision``: twice as fast, and the noise of the
#: sums is larger than its rounding
LARGE = 500_000
#: ends of a link at a cell; what two links that meet there share; bins by the cosine of the angle between them
OUT, IN, LOOP = 0, 1, 2
MEETING = np.array([[0, 2, 3], [2, 1, 4], [3, 4, 4]])
N_MEETING, N_ANGLES = 5, 4
#: bins before those by distance: a link and itself, a link and its way back, links that meet
SELF, BACK, MET = 0, 1, 2
N_FIRST = MET + N_MEETING * N_ANGLES


@dataclass(frozen=True)
class Links:
    """Directed links of one section and what sorts pairs of them into bins.

    ``sender``, ``receiver`` int [m], ``weight`` [m]; ``loop`` 1 where a cell is its own neighbour (a stratum with means
    of its own); ``back`` the link the other way, -1 where there is none. ``at`` int [m, 2] the pixel of the midpoint on
    a raster of ``shape`` that holds ``bin`` for every lag; ``towards`` [m, 2] unit vectors. Links by cell: ``link`` and
    ``end``, those of cell v from ``first[v]`` on; links that meet have midpoints in the first ``n_near`` bins.
    ``in_pixel`` [2, n_pixels] is the weight in every pixel by stratum, ``n_pairs`` [n_bins] sum w_k w_l by bin. Links
    are sorted by receiver.
    """

    sender: Int
    receiver: Int
    weight: Float
    loop: Int
    back: Int
    at: Int
    shape: tuple[int, int]
    bin: NDArray[np.intp]
    towards: Float
    link: Int
    end: Int
    first: Int
    n_near: int
    in_pixel: Float
    n_pairs: Float

    @property
    def pixel(self) -> NDArray[np.intp]:
        """The flat pixel of each link's midpoint, int [m]."""
        return np.asarray(self.at[:, 0].astype(np.intp) * self.shape[1] + self.at[:, 1], dtype=np.intp)

    @property
    def of_links(self) -> tuple[Int, Int, Float, Int]:
        """Sender, receiver, weight and stratum."""
        return self.sender, self.receiver, self.weight, self.loop


def links(weights: sparse.csr_matrix, xy_um: Float) -> Links:
    """Links of an averaging matrix (row: receiver) between cells at ``xy_um`` [n_obs, 2]; a raster of one spacing."""
    edges = weights.tocoo()
    sender, receiver = edges.col.astype(np.int32), edges.row.astype(np.int32)
    loop = sender == receiver
    cells = crosscov.lags(xy_um)
    pixel = np.stack(np.divmod(cells.pixel, cells.shape[1]), axis=1).astype(np.int32)
    step = xy_um[receiver] - xy_um[sender]
    towards = step / np.maximum(np.hypot(*step.T), np.finfo(np.float64).tiny)[:, None]
    apart, loops = (np.flatnonzero(x).astype(np.int32) for x in (~loop, loop))
    link = np.concatenate([apart, apart, loops])
    cell = np.concatenate([sender[apart], receiver[apart], sender[loops]])
    end = np.repeat(np.array([OUT, IN, LOOP], dtype=np.int8), [len(apart), len(apart), len(loops)])
    order = np.argsort(cell, kind="stable")
    made = Links(
        sender=sender,
        receiver=receiver,
        weight=edges.data.astype(np.float64),
        loop=loop.astype(np.intp),
        back=_ways_back(sender, receiver, len(xy_um)),
        at=(pixel[sender] + pixel[receiver]) // 2,  # the same for both ways
        shape=cells.shape,
        bin=cells.bin,
        towards=towards,
        link=link[order],
        end=end[order],
        first=np.searchsorted(cell[order], np.arange(len(xy_um) + 1)).astype(np.intp),
        in_pixel=np.zeros((2, 0)),
        n_near=int(np.hypot(*(np.abs(pixel[sender] - pixel[receiver]).max(axis=0, initial=0) + 1))) + 2,
        n_pairs=np.zeros(0),
    )
    size = cells.shape[0] * cells.shape[1]
    in_pixel = [crosscov.binned(made.pixel, made.weight * (made.loop == s), size) for s in (0, 1)]
    made = replace(made, in_pixel=np.stack(in_pixel[: 2 if len(loops) else 1]))
    ones = np.ones((len(xy_um), 1))
    n_pairs = by_bin(made, Fields(ones, ones, np.zeros((2, 1))))[0]
    # what transforms leave where no pair is
    return replace(made, n_pairs=np.where(n_pairs > 1e-9 * n_pairs.max(initial=0.0), n_pairs, 0.0))


def _ways_back(sender: Int, receiver: Int, n: int) -> Int:
    one, two = sender.astype(np.int64), receiver.astype(np.int64)
    code, other = one * n + two, two * n + one
    order = np.argsort(code)
    found = order[np.minimum(np.searchsorted(code[order], other), max(len(code) - 1, 0))] if len(code) else order
    return np.where((code[found] == other) & (sender != receiver), found, -1).astype(np.int32)


@dataclass(frozen=True)
class Fields:
    """Fields on links i -> j, w_ij (s_i r_j - mean of the stratum), of which none is held: ``of_sender``,
    ``of_receiver`` [n_obs, n] and ``mean`` [2, n]."""

    of_sender: Float
    of_receiver: Float
    mean: Float

    @property
    def both(self) -> tuple[Float, Float, Float]:
        """Of senders, of receivers, and the mean."""
        return self.of_sender, self.of_receiver, self.mean


@njit(nogil=True, cache=True)
def bin_of_two(bins: tuple[Int, Int, int, int], cosine: float, end: int, other: int, down: int, right: int) -> int:
    """The bin of two links that meet: by their ends there, the angle between them and the lag of their midpoints;
    ``bins`` the bin of every lag, ``MEETING``, and numbers of angles and of bins of lags."""
    by_lag, meeting, n_angles, n_lags = bins
    angle = min(int((cosine + 1.0) * 0.5 * n_angles), n_angles - 1)
    lag = by_lag[np.uint64(abs(down)), np.uint64(abs(right))]
    return int((meeting[np.uint64(end), np.uint64(other)] * n_angles + angle) * n_lags + lag)


@njit(nogil=True, cache=True)
def _meetings(
    of_links: tuple[Int, Int, Float, Int],
    of_ends: tuple[Int, Int, Int],
    back: Int,
    at: Int,
    towards: Float,
    bins: tuple[Int, Int, int, int],
    fields: tuple[Float, Float, Float],
    out: Float,
    start: int,
    stop: int,
) -> None:
    """Products f_k f_l of unordered pairs of links that meet at the cells from ``start`` on, by what they share, angle
    and lag, into ``out`` [n_bins * n], flat, with a last bin for pairs that do not count.

    For every link first the bins of its pairs, then their products: the second loop has nothing but sums of vectors.
    """
    sender, receiver, weight, stratum = of_links
    link, end, first = of_ends
    of_sender, of_receiver, mean = fields
    n, most = of_sender.shape[1], 0
    for v in range(start, stop):
        most = max(most, first[v + 1] - first[v])
    width, none = np.uint64(n), np.uint64(len(out) // n - 1)
    # of the links of one cell: they stay in the fastest memory
    f, bin_of, met = np.empty(most * n), np.empty(most, dtype=np.uint64), np.empty((4, most), dtype=np.intp)
    x, y = np.empty(most), np.empty(most)
    for v in range(start, stop):
        low = first[v]
        for p in range(first[v + 1] - low):
            k = link[low + p]
            f_p = f[p * n : (p + 1) * n]
            s, r, m, w = of_sender[sender[k]], of_receiver[receiver[k]], mean[stratum[k]], weight[k]
            for i in range(n):
                f_p[i] = w * (s[i] * r[i] - m[i])
            row, column, x_p, y_p = at[k, 0], at[k, 1], towards[k, 0], towards[k, 1]
            end_p, back_p = end[low + p], back[k]
            met[0, p], met[1, p], met[2, p], met[3, p], x[p], y[p] = k, end_p, row, column, x_p, y_p
            for q in range(p):
                b = bin_of_two(bins, x_p * x[q] + y_p * y[q], end_p, met[1, q], row - met[2, q], column - met[3, q])
                bin_of[q] = none if met[0, q] == back_p else np.uint64(b)
            for q in range(p):
                into, other = bin_of[q] * width, np.uint64(q) * width
                for i in range(n):
                    out[into + np.uint64(i)] += f_p[i] * f[other + np.uint64(i)]


def in_parts(where: Links, n: int, work: Callable[[int, int], Float]) -> Float:
    """Sum of ``work(start, stop)`` over parts of 0 to ``n``, in order, whatever threads there are."""
    edges = np.linspace(0, n, (PARTS if len(where.sender) > MANY else 1) + 1).astype(np.intp)
    with ThreadPoolExecutor(workers()) as pool:
        return np.asarray(sum(pool.map(work, edges[:-1], edges[1:])))


def _met(where: Links, fields: Fields, n_bins: int) -> Float:
    """Products of unordered pairs of links that meet, [what, bin, n]."""
    n = fields.of_sender.shape[1]

    def of_part(start: int, stop: int) -> Float:
        out = np.zeros((N_MEETING * N_ANGLES * n_bins + 1) * n)
        _meetings(
            where.of_links, (where.link, where.end, where.first), where.back, where.at, where.towards,
            (where.bin, MEETING, N_ANGLES, n_bins), fields.both, out, start, stop,
        )  # fmt: skip
        return out[:-n]

    return in_parts(where, len(where.first) - 1, of_part).reshape(-1, n_bins, n)


@njit(nogil=True, cache=True)
def _on_raster(
    pixel: Int, of_links: tuple[Int, Int, Float, Int], into: Int, of_sender: Float, of_receiver: Float, out: Float
) -> None:
    """Adds w s_i r_j up by pixel; most genes are not seen in most cells, whose links are passed over."""
    sender, _, weight, _ = of_links
    for j in range(len(into) - 1):
        r = of_receiver[j]
        if r != 0.0:
            for k in range(into[j], into[j + 1]):
                out[pixel[k]] += weight[k] * (of_sender[sender[k]] * r)


def _by_distance(where: Links, fields: Fields) -> Float:
    """Sum over all ordered pairs of links of f_k f_l by the distance of their midpoints, [n_bins, n]."""
    pixel, into = where.pixel, np.searchsorted(where.receiver, np.arange(len(where.first)))

    def of_field(i: int) -> Float:
        raster = np.zeros(where.shape[0] * where.shape[1])
        ends = (np.ascontiguousarray(end[:, i]) for end in (fields.of_sender, fields.of_receiver))
        _on_raster(pixel, where.of_links, into, *ends, raster)
        return autocorrelated(where, raster, fields.mean[:, i])

    with ThreadPoolExecutor(workers()) as pool:
        return np.stack(list(pool.map(of_field, range(fields.of_sender.shape[1]))), axis=1)


def autocorrelated(where: Links, raster: Float, mean: Float) -> Float:
    """Products of all ordered pairs of pixels by their distance, [n_bins], of what lies in pixels (flat; changed) less
    the ``mean`` of links [2] by stratum."""
    for m, weight in zip(mean, where.in_pixel):
        if m:
            raster -= m * weight
    spectrum = fft.rfft2(raster.reshape(where.shape).astype(np.float32 if len(where.sender) > LARGE else np.float64))
    sums = fft.irfft2(spectrum.real**2 + spectrum.imag**2, where.shape, overwrite_x=True)
    return crosscov.binned(where.bin.ravel(), sums.ravel(), int(where.bin.max()) + 1)


def by_bin(where: Links, fields: Fields) -> Float:
    """Sum over ordered pairs of links of f_k f_l by bin, [n, n_bins]."""
    by_distance = _by_distance(where, fields)
    n = fields.of_sender.shape[1]

    def by_itself(start: int, stop: int) -> Float:
        out = np.zeros((MET, n))
        _by_itself(where.back, where.of_links, fields.both, out, start, stop)
        return out

    first = in_parts(where, len(where.sender), by_itself)
    return together(first, 2.0 * _met(where, fields, min(where.n_near, len(by_distance))), by_distance)


def together(first: Float, met: Float, by_distance: Float) -> Float:
    """All bins, [n, n_bins], from sums over links and themselves and over both ways [2, n], over links that meet
    [what, bin, n], and over all pairs by distance [bin, n], from which the others are taken."""
    by_distance[: met.shape[1]] -= met.sum(axis=0)
    by_distance[0] -= first.sum(axis=0)  # both ways lie in one pixel
    return np.concatenate([first, met.sum(axis=1), by_distance]).T


@njit(nogil=True, cache=True)
def _by_itself(
    back: Int,
    of_links: tuple[Int, Int, Float, Int],
    fields: tuple[Float, Float, Float],
    out: Float,
    start: int,
    stop: int,
) -> None:
    """Products of links with themselves and with their ways back into ``out`` [2, n]."""
    sender, receiver, weight, stratum = of_links
    of_sender, of_receiver, mean = fields
    for k in range(start, stop):
        for i in range(out.shape[1]):
            value = weight[k] * (of_sender[sender[k], i] * of_receiver[receiver[k], i] - mean[stratum[k], i])
            out[0, i] += value**2
            if back[k] >= 0:
                other = of_sender[receiver[k], i] * of_receiver[sender[k], i] - mean[stratum[k], i]
                out[1, i] += value * (weight[back[k]] * other)


@njit(nogil=True, cache=True)
def _sums(
    of_links: tuple[Int, Int, Float, Int], of_sender: Float, of_receiver: Float, out: Float, start: int, stop: int
) -> None:
    """Into ``out`` [5, n]: weighted sums of s_i r_j by stratum, and those of its powers 1 to 3."""
    sender, receiver, weight, stratum = of_links
    for k in range(start, stop):
        for i in range(out.shape[1]):
            value = of_sender[sender[k], i] * of_receiver[receiver[k], i]
            out[stratum[k], i] += weight[k] * value
            out[2, i] += weight[k] * value
            out[3, i] += weight[k] * (value * value)
            out[4, i] += weight[k] * (value * value * value)


def sums_and_powers(where: Links, of_sender: Float, of_receiver: Float) -> tuple[Float, Float]:
    def of_part(start: int, stop: int) -> Float:
        out = np.zeros((5, of_sender.shape[1]))
        _sums(where.of_links, of_sender, of_receiver, out, start, stop)
        return out

    made = in_parts(where, len(where.sender), of_part)
    return made[:2], made[2:]


@njit(nogil=True, cache=True)
def _by_label(
    of_links: tuple[Int, Int, Float, Int],
    of_sender: Float,
    of_receiver: Float,
    label: Int,
    out: Float,
    start: int,
    stop: int,
) -> None:
    """Sums of w s_i r_j by sender's and receiver's label (-1: none) into ``out`` [n_types, n_types, n]."""
    sender, receiver, weight, _ = of_links
    for k in range(start, stop):
        a, b = label[sender[k]], label[receiver[k]]
        if a >= 0 and b >= 0:
            for i in range(out.shape[2]):
                out[a, b, i] += weight[k] * of_sender[sender[k], i] * of_receiver[receiver[k], i]


def by_label(where: Links, of_sender: Float, of_receiver: Float, label: Int) -> Float:
    """Sums of w s_i r_j by sender's and receiver's ``label`` [n_obs] (-1: none), [n, n_labels, n_labels]."""
    n_labels, n = int(label.max(initial=-1)) + 1, of_sender.shape[1]

    def of_part(start: int, stop: int) -> Float:
        out = np.zeros((n_labels, n_labels, n))
        _by_label(where.of_links, of_sender, of_receiver, label, out, start, stop)
        return out

    return np.moveaxis(in_parts(where, len(where.sender), of_part), 2, 0)
