"""Pairs made independent on purpose, their smoothness kept: does a test of this section hold what it promises?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from smeld.kernels import _share, crosscov, pairtest
from smeld.kernels._threads import one_thread, workers
from smeld.kernels.pairtest import Fields, Section, Side

Float = NDArray[np.float64]

#: a turned spot further from its nearest spot than this many spacings falls outside the section
REACH = 1.5
#: turns, and receptors and ligands that are tested with one another after each; on sections of more than ``LARGE``
#: spots the second numbers
N_TURNS, N_TURNS_OF_LARGE, EACH, EACH_OF_LARGE, LARGE = 16, 8, 9, 8, 20_000
#: share of spots that must still lie on the section
LEAST_INSIDE = 0.25


def turns(
    xy_um: Float, n: int, rng: np.random.Generator, section: NDArray[np.intp] | None = None
) -> list[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """``n`` turns (half of them mirrored) of the section about its middle: for every spot the spot whose value it gets,
    and whether one lies there. Each ``section`` (int [n_obs]) is turned by itself."""
    parts = [np.arange(len(xy_um))]
    if section is not None:
        parts = [np.flatnonzero(section == s) for s in np.unique(section)]
    pieces = [_Piece(rows, xy_um[rows]) for rows in parts]
    found = []
    for i, angle in enumerate(rng.uniform(np.pi / 6, 2 * np.pi - np.pi / 6, n)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s], [s, c]]) @ (np.diag([-1.0, 1.0]) if i % 2 else np.eye(2))
        nearest, inside = np.arange(len(xy_um)), np.zeros(len(xy_um), dtype=bool)
        for piece in pieces:
            at, there = piece.turned(turn)
            if there.mean() < LEAST_INSIDE:  # long and thin: turned over instead
                at, there = piece.turned(piece.flips[i % len(piece.flips)])
            nearest[piece.rows], inside[piece.rows] = piece.rows[at], there
        found.append((nearest, inside))
    return found


class _Piece:
    """A section by itself: where the values of its spots go when it is turned about its middle."""

    def __init__(self, rows: NDArray[np.intp], xy: Float) -> None:
        self.rows, self.xy = rows, xy
        self.tree, self.spacing = cKDTree(xy), crosscov.spacing(xy)
        low, high = np.quantile(xy, [0.01, 0.99], axis=0)  # a stray spot does not move the middle
        self.middle = (low + high) / 2
        axes = np.linalg.svd(np.cov((xy - self.middle).T) if len(xy) > 1 else np.eye(2))[0]
        self.flips = [axes @ np.diag(signs) @ axes.T for signs in ((-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0))]

    def turned(self, turn: Float) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """(spot whose value each spot gets, whether one lies there)."""
        distance, at = self.tree.query((self.xy - self.middle) @ turn.T + self.middle, workers=workers())
        return np.asarray(at, dtype=np.intp), np.asarray(distance <= REACH * self.spacing)


def pvalues(
    made: Section,
    fields: Fields,
    pairs: NDArray[np.intp],
    xy_um: Float,
    *,
    seed: int,
    section: NDArray[np.intp] | None = None,
) -> Float:
    """p-values of receptors whose maps are turned about the section, with ligands that stay.

    A turned map keeps its smoothness and loses its place: whatever ligand it then meets, the two have nothing to do
    with each other, unless the section as a whole has a middle or a gradient that maps share. After each turn some
    receptors are tested with some ligands, each with each: float64 [n_turns, n_tests], NaN where a field does not vary.
    No rows where nothing could be turned.
    """
    rng = np.random.default_rng(seed)
    each, n_turns = (EACH, N_TURNS) if len(xy_um) <= LARGE else (EACH_OF_LARGE, N_TURNS_OF_LARGE)
    sides = [rng.permutation(np.unique(pairs[:, k])) for k in (1, 0)]
    turned = [_Turn(i, *found) for i, found in enumerate(turns(xy_um, n_turns, rng, section))]
    enough = [t for t in turned if t.inside.sum() >= max(LEAST_INSIDE * len(xy_um), 3)]
    with _share.workers() as share:
        out = list(share.each(_of_turn, _Given(made, fields, sides, each), enough))
    return np.stack(out) if out else np.zeros((0, 0))


@dataclass(frozen=True)
class _Turn:
    """One of :func:`turns` and its number."""

    number: int
    nearest: NDArray[np.intp]
    inside: NDArray[np.bool_]


@dataclass(frozen=True)
class _Given:
    """What all turns share; ``sides`` receptors and ligands in a random order, of which ``each`` are taken a turn."""

    made: Section
    fields: Fields
    sides: list[NDArray[np.intp]]
    each: int


def _of_turn(given: _Given) -> Callable[[_Turn], Float]:
    """The p-values of a turn, [n_tests]."""
    made, n = given.made, given.each

    def work(turn: _Turn) -> Float:
        rows, first = np.flatnonzero(turn.inside), turn.number * n
        right, left = (np.take(s, np.arange(first, first + min(n, len(s))), mode="wrap") for s in given.sides)
        whole = crosscov.among(made.whole, rows)
        where = crosscov.apart(whole, None if made.where.part is None else made.where.part[rows])
        own = _kept(where, whole, pairtest.receptors(made, given.fields(right), correlated=False), turn.nearest[rows])
        beside = _kept(where, whole, pairtest.ligands(made, given.fields(left), correlated=False), rows)
        varies = (own.correlogram[:, 0] > 0)[:, None] & (beside.correlogram[:, 0] > 0)
        with one_thread():
            cross, zero = own.filtered @ beside.filtered.T, own.plain @ beside.plain.T
        at = np.nonzero(varies)
        found = np.full(varies.shape, np.nan)
        found[at] = pairtest.compare(made, own, beside, cross[at], zero[at], (at[0], at[1])).pvalue
        return found.ravel()

    return work


def _kept(where: crosscov.Lags, whole: crosscov.Lags, side: Side, rows: NDArray[np.intp]) -> Side:
    """The side on some spots."""
    both = np.stack([side.filtered, side.plain], axis=1)[:, :, rows]
    both -= both.mean(axis=2, keepdims=True)
    empty = np.zeros((len(both), 0))

    def sided(maps: Float) -> Side:
        return pairtest.sided(where, whole, maps[:, 0], maps[:, 1], empty[: len(maps)], empty[: len(maps)])

    found = pairtest.together(crosscov.in_threads(sided, both))
    return replace(found, weights=side.weights, power=side.power)


def inflation(pvalue: Float) -> float:
    """Median chi-square of one-sided p-values over the expected one, .455: 1 where the test is calibrated (lambda of
    Devlin & Roeder 1999), NaN without any."""
    known = pvalue[np.isfinite(pvalue)]
    return float(np.median(stats.norm.isf(known) ** 2) / stats.chi2.median(1)) if len(known) else float("nan")


def standard_error(pvalue: Float) -> float:
    """Of lambda, from p-values [n_turns, n_tests] with a turn left out at a time; NaN for fewer than two turns."""
    n = len(pvalue)
    if n < 2:
        return float("nan")
    left = np.array([inflation(np.delete(pvalue, i, axis=0)) for i in range(n)])
    return float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))
