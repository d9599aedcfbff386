"""Calibration against scikit-learn and counting by hand; what intervals cover, and what overconfidence costs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.ndimage import gaussian_filter
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from smeld.kernels import evidence
from smeld.kernels import reliability as kernel


def forecasts(seed: int, n: int = 400, sharpness: float = 1.0):
    """Forecasts and outcomes; with sharpness 1 they come true as often as stated."""
    rng = np.random.default_rng(seed)
    stated = rng.beta(0.8, 0.8, n)
    odds = (stated / (1 - stated)) ** (1 / sharpness)
    return stated, (rng.random(n) < odds / (1 + odds)).astype(float)


@given(st.integers(0, 1000), st.integers(2, 15))
def test_bins_are_scikit_learns(seed: int, n_bins: int) -> None:
    stated, hit = forecasts(seed)
    made = kernel.binned(stated, hit, kernel.equal_width(stated, n_bins), n_bins)
    used = made.n > 0
    observed, mean = calibration_curve(hit, stated, n_bins=n_bins)
    assert made.observed[used] == pytest.approx(observed)
    assert made.stated[used] == pytest.approx(mean)
    by_hand = sum(n * abs(o - m) for n, o, m in zip(made.n[used], observed, mean)) / len(hit)
    assert kernel.calibration_error(stated, hit, n_bins=n_bins) == pytest.approx(by_hand)


@given(st.integers(0, 1000))
def test_bins_of_equal_mass_are_scikit_learns_quantiles(seed: int) -> None:
    stated, hit = forecasts(seed)
    made = kernel.binned(stated, hit, kernel.equal_mass(stated, 8), 8)
    assert made.n.tolist() == [50] * 8
    observed, mean = calibration_curve(hit, stated, n_bins=8, strategy="quantile")
    assert made.observed == pytest.approx(observed, abs=0.03)  # its bins may be one forecast off
    assert made.stated == pytest.approx(mean, abs=0.01)


def test_equal_forecasts_share_a_bin() -> None:
    stated = np.repeat([0.1, 0.5, 0.5, 0.9], 25)
    assert kernel.equal_mass(stated, 4).tolist() == np.repeat([0, 2, 2, 3], 25).tolist()
    assert kernel.equal_width(np.array([0.0, 0.1, 0.5, 1.0]), 10).tolist() == [0, 1, 5, 9]


@given(st.integers(0, 1000), st.floats(0.5, 4.0))
def test_brier_score_is_scikit_learns_and_its_parts_add_up(seed: int, sharpness: float) -> None:
    stated, hit = forecasts(seed, sharpness=sharpness)
    made = kernel.brier(stated, hit)
    assert made.score == pytest.approx(brier_score_loss(hit, stated))
    assert made.reliability - made.resolution + made.uncertainty + made.within == pytest.approx(made.score)
    assert min(made.reliability, made.resolution) >= 0
    # forecasts that are the same throughout a bin hide nothing in it
    coarse = (kernel.equal_width(stated, 10) + 0.5) / 10
    assert kernel.brier(coarse, hit).within == pytest.approx(0, abs=1e-12)
    assert kernel.brier(np.full(len(hit), hit.mean()), hit).score == pytest.approx(made.uncertainty)


def test_brier_score_over_classes_counts_every_class() -> None:
    rng = np.random.default_rng(3)
    prob, truth = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    by_hand = np.mean([sum((p[c] - (c == t)) ** 2 for c in range(4)) for p, t in zip(prob, truth)])
    assert kernel.brier_classes(prob, truth) == pytest.approx(by_hand)


@pytest.mark.parametrize("seed", range(100, 103))
def test_calibrated_forecasts_have_no_error_and_overconfident_ones_are_found(seed: int) -> None:
    good, bad = forecasts(seed, 20_000), forecasts(seed, 20_000, sharpness=3.0)
    odds = (bad[0] / (1 - bad[0])) ** (1 / 3)
    wanted = float(np.abs(bad[0] - odds / (1 + odds)).mean())
    for mass in (False, True):
        assert kernel.calibration_error(*good, mass=mass) < 0.015
        assert kernel.calibration_error(*bad, mass=mass) == pytest.approx(wanted, abs=0.01)
    assert kernel.brier(*bad).reliability > 20 * kernel.brier(*good).reliability


# -- risk and coverage


def test_risk_is_counted_by_hand_and_ties_are_averaged() -> None:
    confidence, loss = np.array([0.9, 0.5, 0.5, 0.1]), np.array([0.0, 1.0, 0.0, 1.0])
    orders = [[0, 1, 2, 3], [0, 2, 1, 3]]
    by_hand = np.mean([[loss[o[: k + 1]].mean() for k in range(4)] for o in orders], axis=0)
    assert kernel.risk_coverage(confidence, loss) == pytest.approx(by_hand)
    assert kernel.best_risk(loss).tolist() == pytest.approx([0, 0, 1 / 3, 0.5])


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=40))
def test_no_confidence_beats_the_one_that_knows_and_none_is_the_mean(rows: list[tuple[int, float]]) -> None:
    confidence, loss = (np.array(v, dtype=float) for v in zip(*rows))
    curve, best = kernel.risk_coverage(confidence, loss), kernel.best_risk(loss)
    assert (curve >= best - 1e-12).all()
    assert curve[-1] == pytest.approx(best[-1])
    assert kernel.risk_coverage(-loss, loss) == pytest.approx(best)
    assert kernel.risk_coverage(np.zeros(len(loss)), loss) == pytest.approx(np.full(len(loss), loss.mean()))


# -- matching and pairs


@given(st.integers(0, 1000), st.integers(2, 4), st.integers(1, 5))
def test_matching_is_the_best_of_all_one_to_one_matchings(seed: int, n_truth: int, n_found: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, n_truth, 40), rng.integers(0, n_found, 40)
    given_ = kernel.match(truth, found, n_truth, n_found)
    used = given_[given_ >= 0]
    assert len(np.unique(used)) == len(used)
    choices = itertools.permutations([*range(n_truth), *[-1] * n_found], n_found)
    assert (given_[found] == truth).sum() == max(int((np.array(c)[found] == truth).sum()) for c in choices)


def test_pairs_are_of_two_spots_like_and_unlike_and_every_one_as_likely() -> None:
    label = np.array([1, 0, 2, 0, 1, 0])
    like, unlike = kernel.balanced_pairs(label, 60_000, np.random.default_rng(0))
    for pairs, same in ((like, True), (unlike, False)):
        expected = {(i, j) for i in range(6) for j in range(6) if i != j and (label[i] == label[j]) == same}
        kinds, n = np.unique(pairs, axis=0, return_counts=True)
        assert {tuple(k) for k in kinds.tolist()} == expected
        assert stats.chisquare(n).pvalue > 1e-3


# -- intervals


def test_intervals_without_blocks_are_wilsons() -> None:
    hit = np.array([1.0] * 7 + [0.0] * 3 + [1.0] * 5)
    made = kernel.interval(hit, np.array([0] * 10 + [1] * 5), np.arange(15)[:, None], 3)
    z = stats.t.ppf(0.95, [9, 4])
    for b, share, n in ((0, 0.7, 10), (1, 1.0, 5)):
        # the ends are where the score test just does not refuse the share
        for end in (made.low[b], made.high[b]):
            if 0 < end < 1:
                assert abs(share - end) == pytest.approx(z[b] * np.sqrt(end * (1 - end) / n))
    assert made.n_effective.tolist() == [10, 5, 0]
    assert np.isnan(made.low[2])


def test_a_block_that_errs_together_is_one_witness() -> None:
    block = np.repeat(np.arange(30), 20)
    hit = (np.random.default_rng(1).random(30) < 0.6).astype(float)[block]
    made = kernel.interval(hit, np.zeros(600, dtype=int), block[:, None], 1)
    assert made.n_effective[0] == pytest.approx(30, rel=0.1)


def correlated(rng: np.random.Generator, side: int = 40):
    """Forecasts that come true as often as stated, outcomes that neighbours share; and spatial blocks."""
    field = gaussian_filter(rng.normal(size=(side, side)), 2.0, mode="wrap").ravel()
    stated = stats.norm.cdf(gaussian_filter(rng.normal(size=(side, side)), 2.0, mode="wrap").ravel() * 5.0)
    hit = (stats.norm.cdf(field / field.std()) < stated).astype(float)
    xy = np.argwhere(np.ones((side, side))).astype(float)
    return stated, hit, evidence.blocks(xy, 16)


def test_intervals_of_outcomes_that_neighbours_share_cover() -> None:
    rng = np.random.default_rng(104)
    covered, naive, cells = 0, 0, 0
    for _ in range(60):
        stated, hit, block = correlated(rng)
        index = kernel.equal_width(stated, 5)
        mean = kernel.binned(stated, hit, index, 5).stated
        for blocks in (block, np.arange(len(hit))):
            made = kernel.interval(hit, index, blocks[:, None], 5)
            inside = int(((made.low <= mean) & (mean <= made.high)).sum())
            covered, naive = (covered + inside, naive) if blocks is block else (covered, naive + inside)
        cells += 5
    assert 0.82 <= covered / cells <= 0.97
    assert naive / cells < 0.6


def test_intervals_of_pairs_cover_whose_ends_share_blocks() -> None:
    """Pairs agree by what their blocks are like: the spread of the share over data sets is within the interval."""
    rng = np.random.default_rng(105)
    shares, widths = [], []
    for _ in range(40):
        kind = rng.integers(0, 2, 32)  # one label to a block
        ends = rng.integers(0, 32, (4000, 2))
        hit = (kind[ends[:, 0]] == kind[ends[:, 1]]).astype(float)
        ends[ends[:, 0] == ends[:, 1], 1] = -1
        made = kernel.interval(hit, np.zeros(4000, dtype=int), ends, 1)
        shares.append(hit.mean())
        widths.append(made.high[0] - made.low[0])
    wanted = 2 * 1.645 * np.std(shares)
    assert 0.7 * wanted < np.median(widths) < 2.5 * wanted
