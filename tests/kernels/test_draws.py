"""Counts follow the negative binomial; ellipses cover the area they should."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from smeld.kernels import draws


def _column(mean: float, dispersion: float, n: int = 20_000) -> np.ndarray:
    """n draws of one gene whose mean is made of all four factors."""
    data, _, nnz = draws.negative_binomial_rows(
        np.random.default_rng(1),
        size=np.full(n, mean / 3.0),
        group=np.zeros(n, dtype=np.int32),
        shares=np.tile([0.25, 0.75], (n, 1)),
        covariates=np.full((n, 1), 2.0, dtype=np.float32),
        group_mean=np.array([[1.5]]),
        share_fold=np.array([[2.0], [2.0]]),
        column=np.array([0], dtype=np.int32),
        load=np.array([0.0]),
        dispersion=np.array([dispersion]),
    )
    out = np.zeros(n)
    out[nnz > 0] = data
    return out


@pytest.mark.parametrize("dispersion", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("mean", [0.05, 1.3, 40.0])
def test_counts_follow_the_distribution_of_scipy(mean: float, dispersion: float) -> None:
    counts = _column(mean, dispersion)
    theta = 1 / dispersion if dispersion else np.inf
    law = stats.nbinom(theta, theta / (theta + mean)) if dispersion else stats.poisson(mean)
    edges = np.unique(law.ppf(np.linspace(0.02, 0.98, 12)))
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]])) * len(counts)
    observed = np.histogram(counts, np.concatenate([[-np.inf], edges + 0.5, [np.inf]]))[0]
    keep = expected > 5
    chi2 = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    assert stats.chi2.sf(chi2, keep.sum() - 1) > 1e-4


@pytest.mark.parametrize("dispersion", [0.0, 0.001, 0.5])
def test_large_means_do_not_underflow(dispersion: float) -> None:
    counts = _column(5000.0, dispersion)
    variance = 5000 + dispersion * 5000**2
    assert counts.mean() == pytest.approx(5000, abs=4 * np.sqrt(variance / len(counts)))
    assert counts.var() == pytest.approx(variance, rel=0.06)
    assert (counts == counts.round()).all()


def test_covariate_and_group_enter_the_mean() -> None:
    n = 40_000
    covariate = np.random.default_rng(0).choice([-1.0, 1.0], n).astype(np.float32)
    group = (np.arange(n) % 2).astype(np.int32)
    data, _, nnz = draws.negative_binomial_rows(
        np.random.default_rng(2),
        size=np.ones(n),
        group=group,
        shares=np.ones((n, 1)),
        covariates=covariate[:, None],
        group_mean=np.array([[2.0], [5.0]]),
        share_fold=np.array([[1.0]]),
        column=np.array([0], dtype=np.int32),
        load=np.array([0.4]),
        dispersion=np.array([0.1]),
    )
    counts = np.zeros(n)
    counts[nnz > 0] = data
    for g, base in enumerate((2.0, 5.0)):
        for c in (-1.0, 1.0):
            expected = base * np.exp(0.4 * c)
            assert counts[(group == g) & (covariate == c)].mean() == pytest.approx(expected, rel=0.05)


def test_ellipses_cover_their_area_and_small_ones_fade() -> None:
    one = {"x": np.array([40.0]), "y": np.array([30.0]), "angle": np.array([0.7]), "opacity": np.array([0.8])}
    large = draws.stamp_ellipses((64, 80), long_px=np.array([15.0]), short_px=np.array([6.0]), **one)
    assert large.sum() == pytest.approx(0.8 * np.pi * 15 * 6, rel=0.03)
    assert large.max() == pytest.approx(0.8)
    small = draws.stamp_ellipses((64, 80), long_px=np.array([0.2]), short_px=np.array([0.2]), **one)
    assert 0 < small.sum() < 0.3
    none = draws.stamp_ellipses((8, 8), long_px=np.array([3.0]), short_px=np.array([3.0]), **one)
    assert none.sum() == 0
