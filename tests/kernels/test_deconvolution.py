"""The posterior of proportions, its prior, the grouped genes, and platform shifts: against slow or closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, sparse, stats

from smeld.kernels import deconvolution, genesketch, platformshift, spotdraws, spotmodel, typeprofiles


def _simple(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    profile = rng.lognormal(0, 1, (3, 40))
    return profile, rng.dirichlet(np.ones(3), n)


def test_means_of_spots_without_counts_are_those_of_the_prior() -> None:
    mean = np.tile(np.float32([0.6, 0.3, 0.1]), (400, 1))
    prior = deconvolution.Prior(np.full(3, 5.0), np.full(400, 7.0))
    found = deconvolution.posterior(
        np.zeros((400, 4), dtype=np.float32),
        np.ones((1, 4, 3)),
        np.zeros((4, 2)),
        mean,
        np.ones((1, 3)),
        prior,
        n_draws=60,
    )
    # independent draws, divided by their sum: near the prior, and absent as often as seven cells would leave a type out
    np.testing.assert_allclose(found.present.mean(axis=0), 1 - (1 - mean[0]) ** 7, atol=0.02)
    np.testing.assert_allclose(found.mean.mean(axis=0), mean[0], atol=0.06)
    np.testing.assert_allclose(found.mean.sum(axis=1), 1, atol=1e-5)


def test_deep_counts_give_the_proportions_back_and_narrow_intervals() -> None:
    profile, share = _simple(60)
    rng = np.random.default_rng(1)
    counts = rng.poisson(20_000 * share @ (profile / profile.sum(axis=1).mean()))
    prior = deconvolution.Prior(np.full(3, 2.0), np.full(60, 50.0))
    found = deconvolution.posterior(
        counts.astype(np.float32),
        profile.T[None],
        np.zeros((40, 2)),
        np.full((60, 3), 1 / 3, dtype=np.float32),
        np.ones((1, 3)),
        prior,
        n_draws=100,
        upper=0.05,
    )
    assert np.abs(found.mean - share).max() < 0.03
    assert (found.high - found.low).max() < 0.12


def test_intervals_of_shares_of_cells_hold_where_cells_of_a_type_differ_in_content() -> None:
    profile = np.random.default_rng(0).lognormal(0, 1, (3, 40))
    rng, n, n_cells, spread = np.random.default_rng(1), 400, 8, 0.5
    kind = rng.choice(3, (n, n_cells), p=[0.5, 0.3, 0.2])
    content = rng.gamma(1 / spread**2, spread**2, (n, n_cells))
    share, held = np.zeros((2, n, 3))
    for k in range(3):
        share[:, k], held[:, k] = (kind == k).mean(axis=1), (content * (kind == k)).sum(axis=1) / n_cells
    counts = rng.poisson(5_000 * held @ (profile / profile.sum(axis=1).mean())).astype(np.float32)
    covered = []
    for uneven in (None, np.full(3, spread**2)):
        found = deconvolution.posterior(
            counts,
            profile.T[None],
            np.zeros((40, 2)),
            np.tile(np.float32([0.5, 0.3, 0.2]), (n, 1)),
            np.ones((1, 3)),
            deconvolution.Prior(np.full(3, 8.0), np.full(n, float(n_cells))),
            n_draws=200,
            upper=0.1,
            uneven=uneven,
        )
        covered.append(((found.low <= share + 1e-6) & (share <= found.high + 1e-6))[share > 0].mean())
    assert covered[0] < 0.4  # contents are known all but exactly, shares of cells are not
    assert 0.85 < covered[1] < 0.97


def test_unevenness_is_what_cells_of_a_type_differ_in_content_by() -> None:
    rng = np.random.default_rng(2)
    label = np.repeat([0, 1], 4000)
    sizes = np.where(label == 0, rng.gamma(4, 1 / 4, 8000), rng.gamma(25, 1 / 25, 8000))
    counts = rng.poisson(sizes[:, None] * rng.lognormal(0, 1, 30) * np.where(label == 0, 1.0, 3.0)[:, None])
    found = typeprofiles.unevenness(sparse.csr_matrix(counts), label, 2)
    np.testing.assert_allclose(found, [0.25, 0.04], atol=0.02)
    alike = rng.poisson(np.full((8000, 30), 2.0))
    assert (typeprofiles.unevenness(sparse.csr_matrix(alike), label, 2) < 0.005).all()
    few = np.r_[np.flatnonzero(label == 0), 4000]  # a single cell of the other type
    assert typeprofiles.unevenness(sparse.csr_matrix(counts[few]), label[few], 2)[1] > 0.2


@given(st.floats(0.01, 0.9), st.floats(1.5, 30.0), st.floats(1.0, 20.0))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_prior_law_has_the_moments_that_are_asked_for(m: float, concentration: float, cells: float) -> None:
    out = np.zeros(3)
    grid = (deconvolution._RATIO[::-1].copy(), deconvolution._X[::-1].copy(), deconvolution._MEAN[::-1].copy())
    deconvolution._prior_of(m, concentration, cells, *grid, out)
    sd = 1 / np.sqrt(out[2])
    law = stats.truncnorm(-out[1] / sd, np.inf, loc=out[1], scale=sd)
    present = 1 - (1 - m) ** cells
    assert 1 / (1 + np.exp(-out[0])) == pytest.approx(present, abs=1e-6)
    variance = (m * (1 - m) / concentration + m**2) / present - (m / present) ** 2
    sd_asked = np.sqrt(max(variance, (m / present) ** 2 / 16))
    if 0.26 < sd_asked / (m / present) < 0.95:  # what a normal law cut at zero can have
        assert law.mean() == pytest.approx(m / present, rel=2e-2)
        assert law.std() == pytest.approx(sd_asked, rel=2e-2)


def test_draws_of_a_cut_normal_follow_it() -> None:
    state = np.array([7], dtype=np.uint64)
    for mean, sd in ((1.0, 0.5), (-1.0, 0.4), (0.1, 1.0)):
        drawn = [spotdraws.cut_normal(mean, sd, state) for _ in range(4000)]
        law = stats.truncnorm(-mean / sd, np.inf, loc=mean, scale=sd)
        assert stats.kstest(drawn, law.cdf).pvalue > 1e-3


def test_odds_of_presence_are_those_of_numerical_integration() -> None:
    laws = np.array([[0.3, 0.15, 1 / 0.1**2]])
    square, slope = np.array([[400.0]]), np.array([30.0])
    p, shown, odds = np.zeros(1), np.zeros(1), np.zeros(1)
    terms = np.zeros((1, 3))
    deconvolution._terms_of(square, laws, terms)
    deconvolution._sweep(square, slope, laws, terms, p, shown, odds, np.array([3], dtype=np.uint64))
    law = stats.truncnorm(-1.5, np.inf, loc=0.15, scale=0.1)
    evidence = integrate.quad(lambda x: law.pdf(x) * np.exp(-200 * x * x + 30 * x), 0, 2)[0]
    expected = np.exp(0.3) * evidence / (1 + np.exp(0.3) * evidence)
    assert odds[0] == pytest.approx(expected, rel=1e-5)


def test_genes_in_proportion_are_summed_without_loss() -> None:
    rng = np.random.default_rng(0)
    shapes = rng.lognormal(0, 1, (4, 6))
    profile = np.concatenate([shapes * s for s in rng.lognormal(0, 1, (50, 1, 1))], axis=1)
    made = genesketch.sketch(profile, np.full(4, 0.25), np.ones(300), most=20)
    assert made.n_groups <= 20
    assert made.kept > 0.999
    counts = sparse.csr_matrix(rng.poisson(profile * 3).astype(np.float32))
    by_hand = [[counts.toarray()[i, made.group == q].sum() for q in range(made.n_groups)] for i in range(4)]
    np.testing.assert_allclose(made.counts(counts, np.arange(300)), by_hand)


def test_shifts_are_found_and_the_solution_is_the_dense_one() -> None:
    profile, share = _simple(24, seed=3)
    profile = np.concatenate([profile, _simple(1, seed=4)[0], _simple(1, seed=5)[0]], axis=1)
    shift = np.random.default_rng(2).normal(0, 1, profile.shape[1])
    pooled = np.random.default_rng(3).poisson(200 * share @ (profile * np.exp(shift))).astype(float)
    found = platformshift.estimate(pooled, profile)
    assert np.corrcoef(found.log_shift, shift)[0, 1] > 0.97
    assert np.sqrt(((found.shares - share) ** 2).mean()) < 0.12
    rng = np.random.default_rng(5)
    stacked, precision, right = rng.normal(0, 0.1, (6, 30)), np.full(30, 2.0), rng.normal(size=30)
    x, diagonal = platformshift._solved(precision, stacked, right, np.ones(30))
    dense = np.linalg.inv(np.diag(precision) - stacked.T @ stacked)
    np.testing.assert_allclose(x, dense @ right, rtol=1e-6)
    np.testing.assert_allclose(diagonal, np.diag(dense), rtol=1e-6)


def test_surroundings_leave_the_spot_itself_out() -> None:
    n = 30
    ring = sparse.csr_matrix((np.ones(n), (np.arange(n), (np.arange(n) + 1) % n)), shape=(n, n))
    around = spotmodel.surroundings(sparse.csr_matrix(ring + ring.T))
    share = np.zeros((n, 2), dtype=np.float32)
    share[:, 1] = 1
    share[7] = [1, 0]
    for reach in (1, 2, 4):
        mean = around.mean(share, reach)
        least = (1 - spotmodel.SHARE_OF_ALL) * 0 + spotmodel.SHARE_OF_ALL / n
        assert mean[7, 0] == pytest.approx(least, abs=1e-5)
    assert around.mean(share, 1)[8, 0] == pytest.approx(0.95 * 0.5 + 0.05 / n, abs=1e-5)


def test_tails_hold_what_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    present = rng.uniform(0.05, 0.94, (500, 4)).astype(np.float32)
    where, spread = rng.uniform(0.05, 0.4, (500, 4)), rng.uniform(0.02, 0.1, (500, 4))
    found = deconvolution.Posterior(
        mean=(present * where).astype(np.float32),
        square=(present * (where**2 + spread**2)).astype(np.float32),
        present=present,
        low=present,
        high=present,
        amount=np.ones(500),
    )
    scale = deconvolution.tail_scale(found, 0.9, 0.05)
    above = np.clip(scale * spread / present, deconvolution.LEAST_TAIL, deconvolution.MOST_TAIL)
    assert float((present * (1 - above)).sum() / present.sum()) == pytest.approx(0.9, abs=2e-3)
