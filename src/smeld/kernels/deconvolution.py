"""Proportions of cell types in spots: a posterior with a point mass at zero, its prior from the neighbours.

A spot's grouped counts y_q have mean t sum_k p_k a_qk and about that variance. Around the fit the likelihood of p is
Gaussian, with precision H and slope c. A type is absent (p_k = 0) or present, and then p_k is normal, cut at zero, with
the moments of a handful of cells that are drawn from a mixture m_k, the mean of the surroundings. Coordinates are
drawn in turn (Gibbs) in every one of several worlds, which differ in platform shifts and reference profiles as far as
these are unknown. Spots depend on their neighbours through m of the previous round alone: the order of spots and the
number of threads do not matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import special

from smeld.kernels.spotdraws import between, cut_normal, log_normal_cdf, normal, uniform

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: bins of a proportion's draws, even in its square root
N_BINS = 128
#: steps of the fit in the first world, in the others, which start from there; and sweeps in each
N_FIT_STEPS, N_STEPS_ON, N_SWEEPS_IN_FIT = 3, 1, 4
#: sweeps of a chain that are not counted
N_WARM = 4
#: bounds of the probability above an interval; and of presence, where an interval does not touch zero
LEAST_TAIL, MOST_TAIL, SURELY_PRESENT = 0.005, 0.5, 0.95
#: least mean of a prior: no type is impossible anywhere
LEAST_MEAN = 1e-4

_ROOT2 = math.sqrt(2.0)
# parent of a normal law cut at zero, by the ratio of its standard deviation to its mean: x = parent mean / parent sd
_X = np.linspace(-12.0, 12.0, 481)
_HAZARD = np.exp(-0.5 * _X**2 - 0.5 * math.log(2 * math.pi) - special.log_ndtr(_X))
_MEAN = _X + _HAZARD
_RATIO = np.sqrt(np.maximum(1 - _HAZARD * _MEAN, 1e-12)) / _MEAN  # falls with x


@dataclass(frozen=True)
class Prior:
    """How proportions scatter about the surroundings' mean m: ``concentration`` [n_types] of their variance,
    m (1 - m) / concentration, and ``n_cells`` [n_obs] that make a type absent with probability (1 - m)^n_cells."""

    concentration: Float
    n_cells: Float


@dataclass(frozen=True)
class Posterior:
    """``mean``, ``square`` (second moment), ``present`` (probability) [n_obs, n_types]; ``low`` and ``high`` of the
    proportion where present; ``amount`` [n_obs]."""

    mean: Float32
    square: Float32
    present: Float32
    low: Float32
    high: Float32
    amount: Float


def posterior(
    counts: Float32,
    profiles: Float,
    noise: Float,
    mean: Float32,
    tilt: Float,
    prior: Prior,
    *,
    n_draws: int,
    upper: float = 0.0,
    lower: float = 0.05,
    uneven: Float | None = None,
    seed: int = 0,
    first: int = 0,
) -> Posterior:
    """Posterior of the proportions of every spot.

    Parameters
    ----------
    counts
        Weighted sums of counts, float32 [n_obs, n_groups].
    profiles
        Their means by type, float64 [n_worlds, n_groups, n_types].
    noise
        float64 [n_groups, 2]: a sum of mean mu has variance mu (1 + first + second mu).
    mean
        Prior mean from the surroundings, float32 [n_obs, n_types].
    tilt
        What each world multiplies it by, float64 [n_worlds, n_types]; made to sum to 1 again.
    n_draws
        Draws in each world.
    upper, lower
        Probability above an interval, given presence: ``upper`` times the standard deviation over the probability of
        presence, for a wide interval of what is hardly there buys little (see ``tail_scale``); and below it.
    uneven
        Variance of the content of one cell over its squared mean, by type [n_types]: intervals, and ``square``, are
        then those of shares of cells, of which a spot has ``prior.n_cells``. None: of contents.
    seed, first
        Draws depend on the seed and on ``first`` plus the number of the row.
    """
    share, square, present, low, high = (np.zeros(mean.shape, dtype=np.float32) for _ in range(5))
    found = Posterior(share, square, present, low, high, np.zeros(len(mean)))
    _posterior(
        _to_fours(counts, 1),
        _to_fours(profiles, 1),
        _to_fours(noise, 0),
        np.ascontiguousarray(mean),
        np.ascontiguousarray(tilt),
        prior.concentration,
        prior.n_cells,
        n_draws,
        upper,
        lower,
        np.zeros(mean.shape[1]) if uneven is None else uneven,
        np.uint64(seed),
        np.uint64(first),
        _RATIO[::-1].copy(),
        _X[::-1].copy(),
        _MEAN[::-1].copy(),
        found.mean,
        found.square,
        found.present,
        found.low,
        found.high,
        found.amount,
    )
    return found


def _to_fours(values: NDArray[np.floating], axis: int) -> NDArray[np.floating]:
    """Zeros added until there is a whole number of fours of groups."""
    lacks = -values.shape[axis] % 4
    return np.ascontiguousarray(np.pad(values, [(0, lacks if a == axis else 0) for a in range(values.ndim)]))


def tail_scale(found: Posterior, level: float, lower: float) -> float:
    """The ``upper`` at which the intervals hold ``level`` of what is present, at the least total width.

    Width is best spent where a step of it meets most probability: the density at the upper end, probability of presence
    included, is to be the same everywhere. Where tails fall off exponentially that density is the probability above
    over the standard deviation.
    """
    present = np.maximum(found.present.astype(np.float64), 1e-9)
    where = found.mean / present
    spread = np.sqrt(np.maximum(found.square / present - where**2, 1e-8))
    cost = spread / present
    below = np.where(present > SURELY_PRESENT, lower, 0.0)
    low, high = 1e-6, 10.0
    for _ in range(50):
        middle = float(np.sqrt(low * high))
        above = np.clip(middle * cost, LEAST_TAIL, MOST_TAIL)
        covered = float((present * (1 - above - below)).sum() / present.sum())
        low, high = (middle, high) if covered > level else (low, middle)
    return low


@njit(cache=True)
def _prior_of(m, concentration, n_cells, ratios, xs, means, out):  # type: ignore[no-untyped-def]
    """(log odds of presence, mean and precision of the normal law that is cut at zero) of one type."""
    absent = math.exp(n_cells * math.log1p(-m)) if m < 1 else 0.0
    present = max(1.0 - absent, 1e-9)
    where = m / present
    variance = (m * (1 - m) / concentration + m * m) / present - where * where
    sd = math.sqrt(max(variance, 0.0625 * where * where))
    x = between(sd / where, ratios, xs)
    parent = where / between(sd / where, ratios, means)
    out[0] = math.log(present) - math.log(max(absent, 1e-12))
    out[1] = x * parent
    out[2] = 1.0 / (parent * parent)


@njit(cache=True)
def _normal_equations(y, a, noise, p, m, amount, square, slope, scaled):  # type: ignore[no-untyped-def]
    """Precision and slope of the proportions at p; the variance is that of nine parts p and one part prior.

    Four groups are added at a time: fewer passes over the precision. ``a`` has a whole number of fours (padded by 0).
    """
    n_groups, n_types = a.shape
    square[:] = 0.0
    slope[:] = 0.0
    for q in range(n_groups):
        mu = 0.0
        for k in range(n_types):
            mu += a[q, k] * (0.9 * p[k] + 0.1 * m[k])
        mu = max(mu * amount, 1e-6)
        variance = mu * (1.0 + noise[q, 0] + noise[q, 1] * mu)
        scaled[q] = amount * amount / variance
        right = amount * y[q] / variance
        for k in range(n_types):
            slope[k] += right * a[q, k]
    for q in range(0, n_groups, 4):
        for k in range(n_types):
            one, two = scaled[q] * a[q, k], scaled[q + 1] * a[q + 1, k]
            three, four = scaled[q + 2] * a[q + 2, k], scaled[q + 3] * a[q + 3, k]
            for other in range(n_types):
                square[k, other] += (one * a[q, other] + two * a[q + 1, other]) + (
                    three * a[q + 2, other] + four * a[q + 3, other]
                )


@njit(cache=True)
def _descend(square, slope, m, concentration, p):  # type: ignore[no-untyped-def]
    """Sweeps of coordinate descent, each proportion kept from falling below zero."""
    for _ in range(N_SWEEPS_IN_FIT):
        for k in range(p.size):
            ridge = concentration[k] / max(m[k] * (1 - m[k]), 1e-8)
            left = slope[k] + ridge * m[k]
            for other in range(p.size):
                if other != k:
                    left -= square[k, other] * p[other]
            p[k] = max(left / (square[k, k] + ridge), 0.0)


@njit(cache=True)
def _fit(y, a, noise, m, concentration, n_steps, square, slope, scaled, p):  # type: ignore[no-untyped-def]
    """Non-negative ridge regression towards m by coordinate descent from p, the variance renewed; the amount."""
    n_groups, n_types = a.shape
    seen, expected = 0.0, 0.0
    for q in range(n_groups):
        seen += y[q]
        for k in range(n_types):
            expected += a[q, k] * p[k]
    amount = seen / max(expected, 1e-300)
    if amount <= 0:
        return 0.0
    for _ in range(n_steps):
        _normal_equations(y, a, noise, p, m, amount, square, slope, scaled)
        _descend(square, slope, m, concentration, p)
        total = p.sum()
        if total > 0:
            amount *= total
            p /= total
        else:
            p[:] = m
    return amount


@njit(cache=True)
def _terms_of(square, laws, terms):  # type: ignore[no-untyped-def]
    """What stays the same in all sweeps of a world, by type: precision, standard deviation, log odds at 0."""
    for k in range(laws.shape[0]):
        log_odds, where, precise = laws[k, 0], laws[k, 1], laws[k, 2]
        terms[k, 0] = square[k, k] + precise
        terms[k, 1] = 1.0 / math.sqrt(terms[k, 0])
        terms[k, 2] = log_odds + 0.5 * (math.log(precise / terms[k, 0]) - precise * where * where)
        terms[k, 2] -= log_normal_cdf(where * math.sqrt(precise))


@njit(cache=True)
def _sweep(square, slope, laws, terms, p, shown, odds, state):  # type: ignore[no-untyped-def]
    """One round of draws of all types given the others; ``shown`` are draws as if present, ``odds`` their weight.

    ``slope`` is kept as the slope that is left at p.
    """
    n_types = p.size
    for k in range(n_types):
        sd = terms[k, 1]
        middle = (slope[k] + square[k, k] * p[k] + laws[k, 2] * laws[k, 1]) * sd * sd
        log_odds = terms[k, 2] + 0.5 * terms[k, 0] * middle * middle + log_normal_cdf(middle / sd)
        odds[k] = 1.0 / (1.0 + math.exp(-min(max(log_odds, -700.0), 700.0)))
        shown[k] = cut_normal(middle, sd, state)
        drawn = shown[k] if uniform(state) < odds[k] else 0.0
        change = drawn - p[k]
        p[k] = drawn
        if change != 0.0:
            for other in range(n_types):
                slope[other] -= square[k, other] * change


@njit(cache=True)
def _left(square, slope, p):  # type: ignore[no-untyped-def]
    """Take what p explains off the slope."""
    for k in range(p.size):
        slope -= square[k] * p[k]


@njit(cache=True)
def _quantile(bins, share):  # type: ignore[no-untyped-def]
    total = bins.sum()
    if total <= 0:
        return 0.0
    below, target = 0.0, share * total
    for b in range(bins.size):
        if below + bins[b] >= target and bins[b] > 0:
            root = (b + (target - below) / bins[b]) / bins.size
            return root * root
        below += bins[b]
    return 1.0


@njit(cache=True)
def _cells_of(p, uneven, n_cells, cells, state):  # type: ignore[no-untyped-def]
    """Cells a unit of content, by type: a few cells have more or less than their type's mean, which is what a content
    is told in."""
    total = p.sum()
    for k in range(p.size):
        cells[k] = 1.0
        if uneven[k] > 0:
            wide = math.log(1.0 + uneven[k] / max(n_cells * p[k] / max(total, 1e-300), 1.0))
            cells[k] = math.exp(0.5 * wide - math.sqrt(wide) * normal(state))


@njit(cache=True)
def _keep(p, shown, odds, cells, bins, moments):  # type: ignore[no-untyped-def]
    """Add one round of draws, as shares of their sum, to moments [n_types, 4] and bins [n_types, N_BINS].

    Means are of contents; spreads and bins of cells.
    """
    contents, number = 0.0, 0.0
    for k in range(p.size):
        contents += p[k]
        number += p[k] * cells[k]
    for k in range(p.size):
        rest, own = number - p[k] * cells[k], shown[k] * cells[k]
        share = own / max(rest + own, 1e-300)
        at = min(int(math.sqrt(share) * bins.shape[1]), bins.shape[1] - 1)
        bins[k, at] += odds[k]
        moments[k, 0] += odds[k] * shown[k] / max(contents - p[k] + shown[k], 1e-300)
        moments[k, 1] += odds[k] * share * share
        moments[k, 2] += odds[k]
        moments[k, 3] += odds[k] * share


@njit(cache=True, parallel=True)
def _posterior(  # type: ignore[no-untyped-def]
    counts, profiles, noise, prior_mean, tilt, concentration, n_cells, n_draws, upper, lower, uneven, seed, first,
    ratios, xs, means, mean, square_mean, present, low, high, amounts,
):  # fmt: skip
    n_obs, n_types = prior_mean.shape
    n_worlds, n_groups = profiles.shape[0], profiles.shape[1]
    for i in prange(n_obs):
        y = counts[i].astype(np.float64)
        m = np.zeros(n_types)
        fitted, p = np.zeros(n_types), np.zeros(n_types)
        shown, odds, cells = np.zeros(n_types), np.zeros(n_types), np.ones(n_types)
        square, slope = np.zeros((n_types, n_types)), np.zeros(n_types)
        laws, terms, scaled = np.zeros((n_types, 3)), np.zeros((n_types, 3)), np.zeros(n_groups)
        bins, moments = np.zeros((n_types, N_BINS)), np.zeros((n_types, 4))
        state = np.zeros(1, dtype=np.uint64)
        state[0] = (first + np.uint64(i + 1)) * np.uint64(0xD1342543DE82EF95) + seed * np.uint64(0x2545F4914F6CDD1D)
        for world in range(n_worlds):
            total = 0.0
            for k in range(n_types):
                m[k] = prior_mean[i, k] * tilt[world, k]
                total += m[k]
            for k in range(n_types):
                m[k] /= total
                _prior_of(m[k], concentration[k], n_cells[i], ratios, xs, means, laws[k])
            if world == 0:
                fitted[:] = m
            steps = N_FIT_STEPS if world == 0 else N_STEPS_ON
            amount = _fit(y, profiles[world], noise, m, concentration, steps, square, slope, scaled, fitted)
            amounts[i] += amount / n_worlds
            _normal_equations(y, profiles[world], noise, fitted, m, amount, square, slope, scaled)
            _terms_of(square, laws, terms)
            p[:] = fitted
            _left(square, slope, p)
            for s in range(N_WARM + n_draws):
                _sweep(square, slope, laws, terms, p, shown, odds, state)
                if s >= N_WARM:
                    _cells_of(shown, uneven, n_cells[i], cells, state)
                    _keep(p, shown, odds, cells, bins, moments)
        total = moments[:, 0].sum()
        n_all = float(n_worlds * n_draws)
        for k in range(n_types):
            mean[i, k] = moments[k, 0] / max(total, 1e-300)
            square_mean[i, k] = moments[k, 1] / n_all
            present[i, k] = moments[k, 2] / n_all
            seen = max(moments[k, 2], 1e-300)
            where = moments[k, 3] / seen
            spread = math.sqrt(max(moments[k, 1] / seen - where * where, 1e-8))
            above = min(max(upper * spread * n_all / seen, LEAST_TAIL), MOST_TAIL)
            high[i, k] = _quantile(bins[k], 1 - above)
            low[i, k] = _quantile(bins[k], lower) if present[i, k] > SURELY_PRESENT else 0.0
