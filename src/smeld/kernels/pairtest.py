"""Do ligand and receptor lie together more than independent genes as smooth would? The test behind ``spatial``.

x the receptor, y the ligand, x' and y' the same with their smoothness taken off (``kernels.whitening``), W the averages
over neighbours. T = sum_i x'_i (W y')_i - c sum_i x_i y_i, where c (``whitening.leaks``) is how much of a spot's own
product the filters let back in: what two genes share in one spot says nothing of neighbours. T is a sum of products of
two fields, so its variance under independence follows from correlograms (``kernels.crosscov``): with A of x', M of x'
and x, P of x, and the same of the ligand's side, Var T = A_x.A_y - 2 c M_x.M_y + c^2 P_x.P_y.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import _share, crosscov, whitening
from smeld.kernels._threads import one_thread, workers

Float = NDArray[np.float64]
#: fields by number, centred, float64 [n, n_obs]
Fields = Callable[[NDArray[np.intp]], Float]
#: (results, what they are, how many) -> the same results
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]

#: the edge of a section is where the widest Gaussian of at most this share of its shorter side sees less than the next
#: share of what it sees inside; it is kept apart where it and the inside have this many spots
EDGE_WIDTH, EDGE_COVERED, FEWEST = 1 / 12, 0.7, 100
#: spots beyond which lags of more than half the section do not count
WHOLE = 20_000
#: fields of a large section that are worked on side by side, at most: each has rasters of an eighth of a gigabyte
MOST_TOGETHER = 4
#: of the two fields of a side (filtered, plain) these are correlated, too
MIXED = [(0, 1), (1, 1)]


@dataclass(frozen=True)
class Section:
    """What tests of a section share: its bins, with and without regions apart, its filter, the averages over
    neighbours, c's matrix (0 where the spot itself counts as a neighbour), and by ring of frequency the power that
    averaging leaves."""

    where: crosscov.Lags
    whole: crosscov.Lags
    filter: whitening.Whitener
    weights: sparse.csr_matrix
    leak: Float
    averaged: Float


@dataclass(frozen=True)
class Side:
    """Fields of one side: ``filtered`` and ``plain`` [n, n_obs], the filter's ``weights`` [n, 1 + n_widths], the
    correlogram of ``filtered`` [n, 1 + n_bins], with regions apart, those of ``MIXED`` [n, 2, 1 + n_bins] without, and
    the power of ``filtered`` by ring of frequency [n, n_rings]."""

    filtered: NDArray[np.floating]
    plain: NDArray[np.floating]
    weights: Float
    correlogram: Float
    mixed: Float
    power: Float


def section(xy_um: Float, weights: sparse.csr_matrix, part: NDArray[np.intp] | None = None) -> Section:
    """``xy_um`` [n_obs, 2]; row i of ``weights`` averages over the neighbours of i; ``part`` as in ``crosscov``, by
    default the section's edge and its inside."""
    whole = crosscov.lags(xy_um, half=len(xy_um) > WHOLE)
    made = whitening.whitener(whole)
    where = crosscov.apart(whole, _edge(made) if part is None else part)
    leak = whitening.leaks(made, weights) * (not weights.diagonal().any())
    return Section(where, whole, made, weights, leak, whitening.passed_by(made, weights) ** 2)


def _edge(made: whitening.Whitener) -> NDArray[np.intp] | None:
    """1 for spots near the edge, 0 for those inside, None where there are few of either.

    Near the edge means are taken over fewer spots, so that filtered fields vary more there, all alike: with edge and
    inside taken for one, the variance comes out up to a tenth too small.
    """
    number = max(sum(w <= EDGE_WIDTH * made.side for w in made.widths) - 1, 0)
    coverage = made.coverages[number][made.where.pixel]
    edge = coverage < EDGE_COVERED * np.quantile(coverage, 0.9)
    return edge.astype(np.intp) if min(edge.sum(), (~edge).sum()) >= FEWEST else None


def receptors(made: Section, fields: Float, *, correlated: bool = True) -> Side:
    """The side of fields as they are, [n, n_obs]; with no correlograms (they have no bins) where maps are all that is
    wanted."""

    def side(rows: Float) -> Side:
        filtered, weights, power = whitening.whitened(made.filter, rows)
        return _side(made, filtered, rows, weights, power, correlated)

    return together(crosscov.in_threads(side, fields))


def ligands(made: Section, fields: Float, *, correlated: bool = True) -> Side:
    """The side of what neighbours say; ``plain`` is the field of the spot itself."""

    def side(rows: Float) -> Side:
        filtered, weights, power = whitening.whitened(made.filter, rows)
        around = crosscov.around(made.weights, filtered)
        return _side(made, around, rows, weights, power * made.averaged, correlated)

    return together(crosscov.in_threads(side, fields))


def _side(made: Section, filtered: Float, plain: Float, weights: Float, power: Float, correlated: bool) -> Side:
    if not correlated:
        return Side(filtered, plain, weights, np.zeros((len(plain), 0)), np.zeros((len(plain), 2, 0)), power)
    return sided(made.where, made.whole, filtered, plain, weights, power)


def sided(
    where: crosscov.Lags, whole: crosscov.Lags, filtered: Float, plain: Float, weights: Float, power: Float
) -> Side:
    """The side of maps, with its correlograms."""
    own = crosscov.cross_correlograms(where, [filtered], [(0, 0)])[:, 0]
    return Side(filtered, plain, weights, own, crosscov.cross_correlograms(whole, [filtered, plain], MIXED), power)


def together(sides: list[Side]) -> Side:
    """Sides as one."""
    if len(sides) == 1:
        return sides[0]
    return Side(*(np.concatenate([getattr(s, f.name) for s in sides]) for f in dataclass_fields(Side)))


@dataclass(frozen=True)
class Genes:
    """Fields of genes: ``values`` [n_obs, n_genes] less their means, or less what ``basis`` [n_obs, q], orthonormal,
    explains. Unlike a function of one's own, it goes to workers once."""

    values: sparse.csc_matrix
    basis: Float | None = None

    def __call__(self, columns: NDArray[np.intp]) -> Float:
        return crosscov.residuals(self.values, columns, self.basis)


@dataclass(frozen=True)
class _Given:
    """What all blocks of a test need; ``own`` the side of receptors, once there is one, ``at`` = (numbers of ``right``,
    numbers of ``left``) of the pairs."""

    made: Section
    fields: Fields
    left: NDArray[np.intp]
    right: NDArray[np.intp]
    at: tuple[NDArray[np.intp], NDArray[np.intp]]
    own: Side | None = None


def _kept(given: _Given, share: _share.Share, track: Track) -> Side:
    """The side of many receptors, which are kept together: their maps in single precision."""
    shape = len(given.right), given.made.where.n_obs
    filtered, plain = (share.empty(shape, np.float32) for _ in range(2))
    small, blocks = [], list(_blocks(given.made, len(given.right)))
    for side, rows in zip(track(share.each(_of_receptors, given, blocks), "receptors", len(blocks)), blocks):
        filtered[rows], plain[rows] = side.filtered, side.plain
        small.append(replace(side, filtered=filtered[:0], plain=plain[:0]))
    return replace(together(small), filtered=filtered, plain=plain)


def _of_receptors(given: _Given) -> Callable[[slice], Side]:
    """The side of a block of receptors, its maps in single precision."""

    def work(rows: slice) -> Side:
        with one_thread():
            side = receptors(given.made, given.fields(given.right[rows]))
        return replace(side, filtered=side.filtered.astype(np.float32), plain=side.plain.astype(np.float32))

    return work


def compare(
    made: Section, own: Side, beside: Side, cross: Float, zero: Float, at: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> crosscov.Test:
    """Tests of pairs ``at`` = (numbers of ``own``, numbers of ``beside``), given sum_i x'_i (W y')_i and
    sum_i x_i y_i by pair.

    The variance is a sum over waves of powers that are each known from one wave: its degrees of freedom are those of
    Satterthwaite, (sum P_x P_y)^2 / sum (P_x P_y)^2.
    """
    first, second = own.correlogram[at[0]], beside.correlogram[at[1]]
    waves, power = whitening.modes(made.filter), own.power[at[0]] * beside.power[at[1]]
    n_obs = own.filtered.shape[1]
    waves = waves * n_obs / made.where.n_obs  # fewer on a part of the section
    c = (own.weights[at[0]][:, :, None] * made.leak * beside.weights[at[1]][:, None, :]).sum(axis=(1, 2))
    freedom = (power * waves).sum(axis=1) ** 2 / np.maximum((power**2 * waves).sum(axis=1), 1e-300)
    mixed = (own.mixed[at[0]] * beside.mixed[at[1]]).sum(axis=-1)
    variance = (first * second).sum(axis=-1) - 2 * c * mixed[:, 0] + c**2 * mixed[:, 1]
    return crosscov.judged(cross - c * zero, variance, first[:, 0] * second[:, 0] * n_obs, n_obs, freedom)


def _untracked(results: Iterable[Any], what: str, total: int) -> Iterable[Any]:
    return results


def test(made: Section, fields: Fields, pairs: NDArray[np.intp], *, track: Track = _untracked) -> crosscov.Test:
    """Tests of ``pairs`` [n_pairs, 2] of fields (ligand, receptor). ``effect`` is the correlation of the receptor with
    what the neighbours say of the ligand, both as they are. ``track`` may show how far blocks of fields are done;
    where there are workers, the blocks are shared out among them."""
    right, at_right = np.unique(pairs[:, 1], return_inverse=True)
    left, at_left = np.unique(pairs[:, 0], return_inverse=True)
    given = _Given(made, fields, left, right, (at_right, at_left))
    blocks = list(_blocks(made, len(left)))
    effect, z, p, n = (np.zeros(len(pairs)) for _ in range(4))
    with _share.workers() as share:
        given = replace(given, own=_kept(given, share, track))
        results = share.each(_of_pairs, given, blocks)
        for found, rows in zip(track(results, "pairs of ligand and receptor", len(blocks)), blocks):
            mine = _mine(given, rows)
            effect[mine], z[mine], p[mine], n[mine] = found.effect, found.zscore, found.pvalue, found.n_effective
    return crosscov.Test(effect, z, p, n)


def _mine(given: _Given, rows: slice) -> NDArray[np.intp]:
    """The pairs whose ligands are those of a block."""
    return np.flatnonzero((given.at[1] >= rows.start) & (given.at[1] < rows.stop))


def _of_pairs(given: _Given) -> Callable[[slice], crosscov.Test]:
    """The tests of the pairs of a block of ligands."""
    made, own = given.made, given.own
    if own is None:
        raise ValueError("receptors come first")
    length = np.sqrt(own.mixed[:, 1, 0] * np.sqrt(made.where.n_obs))  # of the maps as they are

    def work(rows: slice) -> crosscov.Test:
        mine = _mine(given, rows)
        i, j = given.at[0][mine], given.at[1][mine] - rows.start
        with one_thread():
            block = ligands(made, given.fields(given.left[rows]))
            around = crosscov.around(made.weights, block.plain)
            norm = np.sqrt((around**2).sum(axis=1))
            cross, zero, raw = (
                np.array([float(a[k] @ b[m]) for k, m in zip(i, j)])
                for a, b in ((own.filtered, block.filtered), (own.plain, block.plain), (own.plain, around))
            )
            found = compare(made, own, block, cross, zero, (i, j))
        scale = length[i] * norm[j]
        return replace(found, effect=np.divide(raw, scale, out=np.zeros(len(mine)), where=scale > 0))

    return work


def _blocks(made: Section, n: int) -> Iterator[slice]:
    # rasters of large sections come one by one: a few together keep as many threads busy
    size = max(whitening.batch(made.filter), min(workers(), MOST_TOGETHER))
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def gigabytes(n_obs: int, n_receptors: int) -> float:
    """What a test keeps in memory, about: two maps of every receptor, and the rasters of a block."""
    return 8e-9 * n_obs * n_receptors + 0.5
