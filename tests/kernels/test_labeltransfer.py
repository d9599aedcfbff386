"""Label transfer against scipy's negative binomial, against known truth, and against what must not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats
from scipy.special import logsumexp

from smeld.kernels import celltypes, labelprior, labelsets
from smeld.kernels import labeltransfer as kernel
from smeld.kernels.graph import spatial_graph
from smeld.kernels.smooth import sme_weights


def drawn(rate: np.ndarray, label: np.ndarray, depth: float, phi: float, seed: int) -> sparse.csr_matrix:
    """Negative-binomial cells of the given types."""
    rng = np.random.default_rng(seed)
    size = depth * np.exp(0.3 * rng.standard_normal(len(label)))
    mean = size[:, None] * rate[label]
    return sparse.csr_matrix(rng.poisson(mean * rng.gamma(1 / phi, phi, mean.shape)).astype(np.float32))


def types(n_types: int = 4, n_genes: int = 80, seed: int = 0) -> np.ndarray:
    """Profiles that differ in five genes a type."""
    rng = np.random.default_rng(seed)
    rate = np.tile(np.exp(rng.standard_normal(n_genes)), (n_types, 1))
    for k in range(n_types):
        rate[k, 5 * k : 5 * k + 5] *= 5
    return rate / rate.sum(axis=1, keepdims=True)


@given(st.integers(0, 10_000))
def test_differences_of_likelihoods_are_those_of_the_negative_binomial(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rate = rng.dirichlet(np.ones(12), 3)
    phi = rng.uniform(0.05, 3, (1, 12)).repeat(3, axis=0)
    counts = sparse.csr_matrix(rng.poisson(rng.uniform(0, 40, (6, 1)) * rate[0] * rng.gamma(1, 1, (6, 12))))
    size = kernel.totals(counts)
    found = kernel.log_likelihood(counts, size, rate, phi)
    mean = np.maximum(size, 1)[:, None, None] * rate
    by_gene = stats.nbinom.logpmf(counts.toarray()[:, None], 1 / phi, 1 / (1 + phi * mean))
    slow = by_gene.sum(axis=2)
    assert found - found[:, :1] == pytest.approx(slow - slow[:, :1], abs=2e-3)


def test_dispersion_that_differs_between_types_counts_too() -> None:
    rng = np.random.default_rng(0)
    rate, phi = rng.dirichlet(np.ones(8), 2), np.array([[0.1] * 8, [2.0] * 8])
    counts = sparse.csr_matrix(rng.poisson(60 * rate[0] * rng.gamma(0.5, 2, (20, 8))))
    size = kernel.totals(counts)
    found = kernel.log_likelihood(counts, size, rate, phi)
    mean = size[:, None, None] * rate
    slow = stats.nbinom.logpmf(counts.toarray()[:, None], 1 / phi, 1 / (1 + phi * mean)).sum(axis=2)
    assert found[:, 1] - found[:, 0] == pytest.approx(slow[:, 1] - slow[:, 0], abs=1e-2)


def test_dispersion_is_the_one_drawn_with() -> None:
    rate, label = types(), np.arange(8000) % 4
    for phi in (0.2, 1.0):
        counts = drawn(rate, label, 800, phi, 1)
        s = kernel.sums(counts, kernel.one_hot(label, 4), kernel.totals(counts), kernel.squares(counts))
        found = kernel.dispersion(s, s.counts[0] / s.counts[0].sum(axis=1, keepdims=True))
        assert np.median(found) == pytest.approx(phi, rel=0.15)


def test_profiles_of_types_that_do_not_differ_are_alike() -> None:
    rate, label = types(), np.repeat(np.arange(4), 60)
    counts = drawn(rate, label, 200, 0.5, 2)
    raw = np.stack([np.asarray(counts[label == k].sum(axis=0)).ravel() + 0.5 for k in range(4)])
    raw /= raw.sum(axis=1, keepdims=True)
    made = kernel.profiles(counts, label, 4).rate
    wrong = [np.square(np.log(p / rate))[:, 20:].mean() for p in (made, raw)]
    markers = [np.square(np.log(p / rate))[:, :20].mean() for p in (made, raw)]
    assert wrong[0] < 0.7 * wrong[1] and markers[0] < markers[1]
    spread = [np.std(np.log(p / rate)[:, 20:], axis=0).mean() for p in (made, raw)]
    assert spread[0] < 0.3 * spread[1]


def test_shrinking_values_that_are_noise_gives_nothing_and_large_ones_are_kept() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4, 500)) * 0.3
    noise[0, :10] += 3
    mean, left = kernel.shrink(noise, np.full(noise.shape, 0.09))
    assert np.abs(mean[1:]).max() < 0.25 and np.abs(mean[0, :10] - noise[0, :10]).max() < 0.4
    assert (left[0, :10] > left[1:].mean()).all()


def test_the_platforms_factors_are_found_without_labels() -> None:
    rate, rng = types(seed=3), np.random.default_rng(5)
    reference = np.repeat(np.arange(4), 200)
    label = rng.choice(4, 2000, p=[0.55, 0.25, 0.15, 0.05])  # other shares than the reference's
    shift = rng.standard_normal(80)
    moved = rate * np.exp(shift)
    known = kernel.profiles(drawn(rate, reference, 400, 0.3, 6), reference, 4)
    counts = drawn(moved / moved.sum(axis=1, keepdims=True), label, 150, 0.3, 7)
    made = kernel.fit(counts, known)
    assert np.corrcoef(made.shift, shift)[0, 1] > 0.985
    assert made.share == pytest.approx(np.bincount(label) / 2000, abs=0.03)
    prob = kernel.posterior(
        kernel.log_likelihood(counts, kernel.totals(counts), made.rate, made.phi), np.log(made.share)
    )
    assert (prob.argmax(axis=1) == label).mean() > 0.85
    assert prob.max(axis=1).mean() == pytest.approx((prob.argmax(axis=1) == label).mean(), abs=0.04)


# ------------------------------------------------------------------------------------------------------------- sets


def test_thresholds_cover_overall_and_by_type() -> None:
    rng = np.random.default_rng(0)
    label = rng.choice(4, 6000, p=[0.6, 0.25, 0.1, 0.05])
    logits = rng.standard_normal((6000, 4)) + 1.2 * kernel.one_hot(label, 4) + np.log([0.6, 0.25, 0.1, 0.05])
    prob = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    half, rest = slice(0, 3000), slice(3000, None)
    least = labelsets.thresholds(prob[half], label[half], np.ones(3000), 0.9)
    held = labelsets.sets(prob[rest], least)[np.arange(3000), label[rest]]
    assert held.mean() == pytest.approx(0.9, abs=0.02)
    assert min(held[label[rest] == k].mean() for k in range(4)) > 0.8
    size = labelsets.sets(prob[rest], least).sum(axis=1)
    assert size.min() == 1 and size.mean() < 3


def test_replicas_on_the_same_platform_are_thinned_cells() -> None:
    rate, label = types(), np.repeat(np.arange(4), 150)
    counts = drawn(rate, label, 400, 0.3, 1)
    known = kernel.profiles(counts, label, 4)
    there = labelsets.Platform(known.rate, known.phi, np.zeros(80), 0.0)
    rng = np.random.default_rng(0)
    made = labelsets.replicas(counts.toarray().astype(float), label, np.full(600, 100.0), known, there, rng)
    assert (made <= counts.toarray()).all()
    assert made.sum(axis=1).mean() == pytest.approx(100, rel=0.03)
    deeper = labelsets.replicas(counts.toarray().astype(float), label, np.full(600, 1e6), known, there, rng)
    assert deeper.sum() == pytest.approx(counts.sum(), rel=0.03)  # never deeper than measured


def test_replicas_have_the_platforms_means() -> None:
    rate, label = types(), np.repeat(np.arange(4), 400)
    counts = drawn(rate, label, 400, 0.3, 1)
    known = kernel.profiles(counts, label, 4)
    moved = kernel.shifted(known.rate, np.random.default_rng(1).standard_normal(80))
    there = labelsets.Platform(moved, known.phi, np.zeros(80), 0.0)
    made = labelsets.replicas(
        counts.toarray().astype(float), label, np.full(1600, 300.0), known, there, np.random.default_rng(2)
    )
    for k in range(4):
        mean = made[label == k].mean(axis=0)
        assert np.corrcoef(np.log(mean + 0.01), np.log(moved[k] * 300 + 0.01))[0, 1] > 0.99


def test_two_scores_are_weighed_by_what_they_know() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 3000)
    good = 2.0 * kernel.one_hot(label, 3) + rng.standard_normal((3000, 3))  # the log odds of this are 2 times it
    factor = labelsets.weigh(good, rng.standard_normal((3000, 3)), label, np.log(np.full(3, 1 / 3)), np.ones(3000))
    assert factor[0] == pytest.approx(2.0, abs=0.2) and factor[1] < 0.1


# ------------------------------------------------------------------------------------------------------ surroundings


@pytest.mark.parametrize("patchy", [True, False])
def test_surroundings_count_where_types_lie_in_patches_only(patchy: bool) -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, (1500, 2))
    label = (xy[:, 0] > 500).astype(int) if patchy else rng.integers(0, 2, 1500)
    label = np.where(rng.random(1500) < 0.1, 1 - label, label)
    scores = 1.5 * kernel.one_hot(label, 2) + rng.standard_normal((1500, 2))
    graph = spatial_graph(xy)
    weights = sme_weights(graph.distances, sigma_um=30)
    block = (xy // 125).astype(int) @ np.array([8, 1])
    made = labelprior.surroundings(scores, np.full(2, 0.5), weights, block, force=False)
    assert made.used == patchy
    before = kernel.posterior(scores, np.log(np.full(2, 0.5)))
    after = kernel.posterior(scores, made.log_prior)
    right = [(p.argmax(axis=1) == label).mean() for p in (before, after)]
    assert right[1] > right[0] + 0.03 if patchy else right[1] == right[0]


def test_surroundings_are_refused_where_neighbours_share_more_than_their_type() -> None:
    """Patches of two types; the scores of whole patches err together, as states of tissue make them."""
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 1000, (1600, 2))
    patch = (xy // 125).astype(int) @ np.array([8, 1])
    label = np.where(rng.random(1600) < 0.15, rng.integers(0, 2, 1600), rng.integers(0, 2, 64)[patch])
    common = rng.standard_normal((64, 2))[patch]
    noise = rng.standard_normal((1600, 2)) + common  # of variance 2: differences of scores are log odds
    own = np.repeat([0, 1], 300)
    known = 2.0 * kernel.one_hot(own, 2) + np.sqrt(2) * rng.standard_normal((600, 2))
    theirs = celltypes.Scored(own, known, np.ones(600))
    weights = sme_weights(spatial_graph(xy).distances, sigma_um=30)
    scores, share = 2.0 * kernel.one_hot(label, 2) + noise, np.full(2, 0.5)
    around = celltypes.Places(weights, patch, force=False)
    _, _, near = celltypes.calibrated(scores, share, np.ones(1600), theirs, around, 0.9, np.random.default_rng(2))
    assert near.gain > 5 * near.error and near.excess > 3 * near.excess_error
    assert not near.used and len(near.log_prior) == 1


# ------------------------------------------------------------------------------------------------------------- whole


def test_a_type_that_the_reference_lacks_is_found_and_none_is_made_up() -> None:
    rate, rng = types(5, 100, seed=4), np.random.default_rng(0)
    label = rng.choice(5, 1500, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    section = drawn(rate, label, 150, 0.4, 1)
    own = np.repeat(np.arange(5), 80)
    reference = drawn(rate, own, 300, 0.4, 2)
    whole = celltypes.transfer(section, reference, own, 5, places=None, level=0.9, unknown=True, seed=0)
    assert (whole.prob.argmax(axis=1) == 5).mean() < 0.02
    assert whole.sets[np.arange(1500), label].mean() >= 0.88
    part = celltypes.transfer(
        section, reference[own < 4], own[own < 4], 4, places=None, level=0.9, unknown=True, seed=0
    )
    missing = label == 4
    said = (part.prob.argmax(axis=1) == 4) | (part.sets.sum(axis=1) > 1)
    assert said[missing].mean() >= 0.8
    assert (part.prob.argmax(axis=1) == 4)[~missing].mean() < 0.03
