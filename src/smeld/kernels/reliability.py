"""Whether stated probabilities come true: bins, calibration error, Brier score, risk against coverage.

A forecast is a probability ``stated`` [n] with what came of it, ``hit`` [n] (0 or 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import linear_sum_assignment

Float = NDArray[np.float64]
Int = NDArray[np.intp]


# ------------------------------------------------------------------------------------------------------------- bins


def equal_width(stated: Float, n_bins: int) -> Int:
    """Bin of every probability, 0..n_bins - 1: [b / n_bins, (b + 1) / n_bins), 1 in the last."""
    return np.asarray(np.clip((stated * n_bins).astype(np.intp), 0, n_bins - 1))


def equal_mass(stated: Float, n_bins: int) -> Int:
    """Bin of every probability so that bins hold about as many; equal probabilities share the bin of their middle."""
    middle = stats.rankdata(stated, method="average") - 0.5
    return np.asarray(np.clip((middle * n_bins / len(stated)).astype(np.intp), 0, n_bins - 1))


@dataclass(frozen=True)
class Bins:
    """By bin, [n_bins]: ``n`` forecasts, the mean ``stated`` and the share ``observed`` (NaN where ``n`` is 0)."""

    n: Int
    stated: Float
    observed: Float

    @property
    def calibration_error(self) -> float:
        """Mean distance of stated and observed over the forecasts (Naeini et al. 2015)."""
        used = self.n > 0
        return float((self.n * np.abs(self.stated - self.observed))[used].sum() / self.n.sum())


def binned(stated: Float, hit: Float, index: Int, n_bins: int) -> Bins:
    """Means of ``stated`` and ``hit`` by bin."""
    n = np.bincount(index, minlength=n_bins)
    sums = [np.bincount(index, values, minlength=n_bins) for values in (stated, hit)]
    means = [np.divide(s, n, out=np.full(n_bins, np.nan), where=n > 0) for s in sums]
    return Bins(n, means[0], means[1])


def calibration_error(stated: Float, hit: Float, *, n_bins: int = 10, mass: bool = False) -> float:
    """Expected calibration error over bins of equal width, or of equal ``mass``."""
    index = (equal_mass if mass else equal_width)(stated, n_bins)
    return binned(stated, hit, index, n_bins).calibration_error


# ------------------------------------------------------------------------------------------------------ Brier score


@dataclass(frozen=True)
class Brier:
    """``score`` = ``reliability`` - ``resolution`` + ``uncertainty`` + ``within``.

    ``uncertainty`` is the score of the best constant; ``within`` is what bins hide: the spread of forecasts inside
    them (Stephenson, Coelho & Jolliffe 2008).
    """

    score: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def brier(stated: Float, hit: Float, *, n_bins: int = 10) -> Brier:
    """Mean squared difference of forecast and outcome, and its parts (Murphy 1973) over bins of equal width."""
    made = binned(stated, hit, equal_width(stated, n_bins), n_bins)
    used = made.n > 0
    share, observed, mean = made.n[used] / len(hit), made.observed[used], made.stated[used]
    base = float(hit.mean())
    score = float(((stated - hit) ** 2).mean())
    reliability = float((share * (mean - observed) ** 2).sum())
    resolution = float((share * (observed - base) ** 2).sum())
    uncertainty = base * (1 - base)
    return Brier(score, reliability, resolution, uncertainty, score - reliability + resolution - uncertainty)


def brier_classes(prob: Float, truth: Int) -> float:
    """Brier score over classes, in [0, 2]: mean over rows of sum_c (p_c - [c is true])^2; ``prob`` [n, n_classes]."""
    of_true = prob[np.arange(len(truth)), truth]
    return float(((prob**2).sum(axis=1) - 2 * of_true + 1).mean())


# ------------------------------------------------------------------------------------------------- risk and coverage


def risk_coverage(confidence: Float, loss: Float) -> Float:
    """Mean loss of the 1, 2, ... n most confident, [n]. Equal confidence: the mean over their orders."""
    level = np.unique(-confidence, return_inverse=True)[1].ravel()
    n = np.bincount(level)
    mean = np.bincount(level, loss) / n
    return np.asarray(np.cumsum(np.repeat(mean, n)) / np.arange(1, len(loss) + 1))


def best_risk(loss: Float) -> Float:
    """The same curve where confidence knows the losses, [n]: no order lies below it."""
    return np.asarray(np.cumsum(np.sort(loss)) / np.arange(1, len(loss) + 1))


# ------------------------------------------------------------------------------------------------------------ matching


def match(truth: Int, found: Int, n_truth: int, n_found: int) -> Int:
    """True label of each found one, [n_found], so that most agree, one to one (Kuhn 1955); -1 without one."""
    table = np.bincount(truth * n_found + found, minlength=n_truth * n_found).reshape(n_truth, n_found)
    rows, columns = linear_sum_assignment(-table)
    out = np.full(n_found, -1, dtype=np.intp)
    shared = table[rows, columns] > 0
    out[columns[shared]] = rows[shared]
    return out


def balanced_pairs(label: Int, n_pairs: int, rng: np.random.Generator) -> tuple[Int, Int]:
    """Rows of ``n_pairs`` random pairs of like label, and of as many of unlike label, [n_pairs, 2] each.

    Every such pair is as likely as every other, and may be drawn twice. Needs two labels, one of them twice.
    """
    order = np.argsort(label, kind="stable")
    size = np.bincount(label)
    start = np.cumsum(size) - size
    own = size[label[order]]
    sets = []
    for like in (True, False):
        partners = own - 1 if like else len(label) - own
        ends = np.cumsum(partners)
        first = np.searchsorted(ends, rng.integers(0, ends[-1], n_pairs), side="right")
        begin, n, step = start[label[order[first]]], own[first], rng.integers(0, partners[first])
        # of like label: further along in one's own block of the order; of unlike label: past its end, both in circles
        second = begin + (first - begin + 1 + step) % n if like else (begin + n + step) % len(label)
        sets.append(np.column_stack([order[first], order[second]]))
    return sets[0], sets[1]


# ----------------------------------------------------------------------------------------------------------- intervals


def wilson(share: Float, n: Float, z: Float | float) -> tuple[Float, Float]:
    """Interval of a share seen among ``n`` independent witnesses (Wilson 1927); ``n`` need not be whole."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - reach, 0.0, 1.0), np.clip(middle + reach, 0.0, 1.0)


@dataclass(frozen=True)
class Interval:
    """By bin, [n_bins]: the interval of the observed share, and the independent witnesses it is worth."""

    low: Float
    high: Float
    n_effective: Float


def interval(hit: Float, index: Int, block: Int, n_bins: int, *, level: float = 0.9) -> Interval:
    """Interval of the share of hits in every bin, where forecasts that share a block are no independent witnesses.

    ``block`` int [n, 1], or [n, 2] for pairs, whose two ends may lie in two blocks; -1 for none. The correlation of
    two outcomes of one bin and block is estimated over all bins; with it follows how many independent witnesses a
    bin is worth (the design effect: Kish 1965), and Wilson's interval is taken for these, with Student's t by the
    number of blocks.
    """
    n, mean = np.bincount(index, minlength=n_bins), np.full(n_bins, np.nan)
    np.divide(np.bincount(index, hit, minlength=n_bins), n, out=mean, where=n > 0)
    variance = np.nan_to_num(mean * (1 - mean)) * n / np.maximum(n - 1, 1)
    n_blocks, shared, rho = _correlation(hit - mean[index], variance, index, block)
    effective = np.maximum(n / (1 + rho * shared / np.maximum(n, 1)), np.minimum(n, 1))
    degrees = np.where(rho > 0, np.maximum(n_blocks - 1, 1), np.maximum(n - 1, 1))
    low, high = wilson(mean, np.maximum(effective, 1e-9), stats.t.ppf((1 + level) / 2, degrees))
    return Interval(np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan), effective)


def _correlation(rest: Float, variance: Float, index: Int, block: Int) -> tuple[Int, Float, float]:
    """(blocks of each bin, ordered couples in each that share one, correlation of such couples) from residuals.

    By moments: the squared sum of a block of m outcomes is expected to be variance * (m + rho m (m - 1)), less what
    the mean of the bin, to which the block itself adds, takes away.
    """
    row, end = np.nonzero(block >= 0)
    shape = (len(variance), int(block.max(initial=0)) + 1)
    cell = index[row] * shape[1] + block[row, end]
    count, total = (np.bincount(cell, w, minlength=shape[0] * shape[1]).reshape(shape) for w in (None, rest[row]))
    n_blocks, couples = (count > 0).sum(axis=1), count * (count - 1.0)
    part = count / np.maximum(count.sum(axis=1, keepdims=True), 1)
    left = 1 - 2 * part + (part**2).sum(axis=1, keepdims=True)
    beyond = (total**2).sum(axis=1) - variance * (count * left).sum(axis=1)
    possible = variance * (couples * left).sum(axis=1)
    several = n_blocks > 1  # about the mean of one block its residuals say nothing
    whole = float(possible[several].sum())
    rho = float(np.clip(beyond[several].sum() / whole, 0.0, 1.0)) if whole > 0 else 0.0
    return n_blocks, couples.sum(axis=1), rho
