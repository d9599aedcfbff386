"""The tied mixture against scikit-learn's, its invariances, and data on which mixtures break down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from smeld.kernels import mixture
from smeld.kernels.mixture import Mixture

Float = NDArray[np.float64]


def best(x: Float, k: int, seed: int = 0, n_starts: int = 8) -> Mixture:
    return mixture.fit(x, k, seed=np.random.SeedSequence(seed), n_starts=n_starts)[0]


def labels(model: Mixture, x: Float) -> NDArray[np.intp]:
    return np.asarray(model.predict_proba(x).argmax(axis=1))


def clusters(
    k: int = 4, d: int = 3, *, n: int = 400, apart: float = 8.0, seed: int = 0
) -> tuple[Float, NDArray[np.int64]]:
    """Clusters of unequal size with one skewed covariance."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    centres = rng.normal(size=(k, d))
    centres = apart * centres / np.linalg.norm(centres[:, None] - centres, axis=2)[~np.eye(k, dtype=bool)].min()
    return (centres[truth] + rng.normal(size=(n, d))) @ (np.eye(d) + 0.6 * rng.normal(size=(d, d))), truth


@pytest.mark.parametrize(("k", "d", "apart"), [(2, 1, 4.0), (3, 2, 2.0), (4, 3, 3.0), (5, 8, 2.0)])
def test_likelihood_is_at_least_as_good_as_sklearns(k: int, d: int, apart: float) -> None:
    x, _ = clusters(k, d, apart=apart)
    settings = {"covariance_type": "tied", "tol": 1e-4, "max_iter": 300}
    theirs = GaussianMixture(k, n_init=4, random_state=0, **settings).fit(x)
    ours = best(x, k)
    assert logsumexp(ours.log_prob(x), axis=1).mean() >= theirs.score(x) - 2e-3


def test_log_prob_equals_the_normal_density() -> None:
    x, _ = clusters()
    model = best(x, 4)
    covariance = np.linalg.inv(model.precision_root @ model.precision_root.T)
    expected = np.column_stack(
        [
            np.log(w) + multivariate_normal(m, covariance).logpdf(x)
            for w, m in zip(model.weights, model.means, strict=True)
        ]
    )
    assert model.log_prob(x) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_the_stated_likelihood_is_that_of_the_data() -> None:
    x, _ = clusters()
    model = best(x * [0.1, 1, 50], 4)
    assert model.log_likelihood == pytest.approx(logsumexp(model.log_prob(x * [0.1, 1, 50]), axis=1).mean(), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_separated_clusters_are_found(seed: int) -> None:
    x, truth = clusters(seed=seed)
    assert adjusted_rand_score(labels(best(x, 4, seed), x), truth) > 0.99


def test_models_come_best_first_one_for_each_start() -> None:
    x, _ = clusters(apart=2.0)
    models = mixture.fit(x, 4, seed=np.random.SeedSequence(0), n_starts=6)
    found = [m.log_likelihood for m in models]
    assert len(models) == 6 and found == sorted(found, reverse=True)
    assert all(m.weights.sum() == pytest.approx(1) and m.means.shape == (4, 3) for m in models)


@given(st.integers(0, 100), st.floats(-100, 100))
def test_the_partition_does_not_hang_on_axes_scale_or_origin(seed: int, shift: float) -> None:
    x, _ = clusters(apart=5.0, n=200)
    rng = np.random.default_rng(seed)
    left, right = np.linalg.qr(rng.normal(size=(2, 3, 3)))[0]
    turn = left @ np.diag([0.03, 1, 30]) @ right
    moved = x @ turn + shift
    plain = labels(best(x, 4, n_starts=4), x)
    assert adjusted_rand_score(plain, labels(best(moved, 4, n_starts=4), moved)) > 0.99


@pytest.mark.parametrize("unit", [1e-6, 1e6])
def test_one_column_in_another_unit_changes_nothing(unit: float) -> None:
    x, truth = clusters(apart=8.0)
    x = x * [1, 1, unit]
    assert adjusted_rand_score(labels(best(x, 4), x), truth) > 0.99


@given(st.integers(1, 6), st.integers(0, 100))
def test_memberships_sum_to_one_also_for_points_far_away(k: int, seed: int) -> None:
    x, _ = clusters(seed=seed, n=80)
    model = best(x, k, seed, n_starts=2)
    p = model.predict_proba(np.concatenate([x, x * 1e4, np.zeros((1, 3))]))
    assert p.shape == (161, k) and (p >= 0).all()
    assert p.sum(axis=1) == pytest.approx(np.ones(161))


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    x, _ = clusters(k=5, d=12, n=1500, apart=3.0)
    found = []
    for n in (1, 2):
        with threadpool_limits(n):
            found.append(best(x, 5, 3, 3))
    assert np.array_equal(found[0].means, found[1].means)
    assert np.array_equal(found[0].predict_proba(x), found[1].predict_proba(x))
    assert found[0].log_likelihood == found[1].log_likelihood


# ------------------------------------------------------------------------------------------------- degenerate data


def degenerate(name: str) -> tuple[Float, int]:
    rng = np.random.default_rng(0)
    return {
        "constant column": (np.column_stack([rng.normal(size=60), np.full(60, 7.0)]), 3),
        "two equal columns": (np.repeat(rng.normal(size=(60, 1)), 2, axis=1), 3),
        "all points equal": (np.ones((20, 3)), 2),
        "few distinct points": (np.repeat(rng.normal(size=(3, 2)), 20, axis=0), 5),
        "as many components as points": (rng.normal(size=(12, 3)), 12),
        "more columns than points": (rng.normal(size=(15, 40)), 3),
        "two points": (rng.normal(size=(2, 3)), 2),
        "one component": (rng.normal(size=(30, 2)), 1),
        "integers": (rng.integers(0, 4, (50, 3)), 3),
        "an outlier": (np.concatenate([rng.normal(size=(60, 2)), [[1e6, -1e6]]]), 3),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "constant column",
        "two equal columns",
        "all points equal",
        "few distinct points",
        "as many components as points",
        "more columns than points",
        "two points",
        "one component",
        "integers",
        "an outlier",
    ],
)
def test_degenerate_data_give_finite_memberships(name: str) -> None:
    x, k = degenerate(name)
    for model in mixture.fit(x, k, seed=np.random.SeedSequence(0), n_starts=3):
        p = model.predict_proba(x)
        assert np.isfinite(p).all() and p.sum(axis=1) == pytest.approx(np.ones(len(x)))
        assert np.isfinite(model.log_likelihood) and np.isfinite(model.means).all()
        assert np.isfinite(mixture.bic(model, len(x)))


def test_a_constant_column_changes_nothing() -> None:
    x, _ = clusters(apart=5.0)
    wide = np.column_stack([x, np.full(len(x), 3.0)])
    assert np.array_equal(labels(best(x, 4), x), labels(best(wide, 4), wide))


def test_equal_points_have_equal_memberships() -> None:
    x = np.repeat(clusters(n=60)[0], 3, axis=0)
    p = best(x, 4).predict_proba(x).reshape(60, 3, 4)
    assert np.abs(p - p[:, :1]).max() < 1e-12


def test_each_point_its_own_component() -> None:
    x, _ = degenerate("as many components as points")
    assert len(set(labels(best(x, 12, n_starts=20), x))) >= 10


# -------------------------------------------------------------------------------------------------- samples, BIC


def test_many_spots_compete_on_a_sample_and_the_winner_sees_all(monkeypatch: pytest.MonkeyPatch) -> None:
    x, truth = clusters(n=3000, apart=5.0)
    full = best(x, 4, n_starts=4)
    monkeypatch.setattr(mixture, "MAX_START_SAMPLE", 500)
    sampled = best(x, 4, n_starts=4)
    assert adjusted_rand_score(labels(sampled, x), truth) > 0.97
    of_all = [logsumexp(m.log_prob(x), axis=1).mean() for m in (full, sampled)]
    assert of_all[1] == pytest.approx(of_all[0], abs=5e-3)
    assert np.array_equal(sampled.means, best(x, 4, n_starts=4).means)


@pytest.mark.slow
def test_a_large_section_is_fitted_within_seconds() -> None:
    x, truth = clusters(k=6, d=10, n=60_000, apart=6.0)
    assert adjusted_rand_score(labels(best(x, 6, n_starts=5), x), truth) > 0.97


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_bic_is_lowest_at_the_true_number_of_independent_clusters(k: int) -> None:
    x, _ = clusters(max(k, 2), 3, n=500, apart=8.0, seed=k)
    if k == 1:
        x = np.random.default_rng(0).normal(size=(500, 3))
    found = [mixture.bic(best(x, c, n_starts=10), len(x)) for c in range(1, 8)]
    assert int(np.argmin(found)) + 1 == k


def test_bic_counts_each_further_component() -> None:
    x = np.random.default_rng(0).normal(size=(100, 2))
    one = best(x, 1)
    expected = -2 * 100 * one.log_likelihood + 3 * np.log(100)
    assert mixture.bic(one, 100) == pytest.approx(expected)


def test_many_spots_are_fitted_on_a_sample_and_seen_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(100)
    centres = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])
    x = centres[np.arange(3000) % 3] + rng.normal(size=(3000, 2))
    whole = mixture.fit(x, 3, seed=np.random.SeedSequence(0), n_starts=3)[0]
    monkeypatch.setattr(mixture, "MAX_FITTED", 1500)
    monkeypatch.setattr(mixture, "BLOCK", 700)
    part = mixture.fit(x, 3, seed=np.random.SeedSequence(0), n_starts=3)[0]
    order = np.array([np.linalg.norm(part.means - m, axis=1).argmin() for m in whole.means])
    assert np.abs(part.means[order] - whole.means).max() < 0.2
    np.testing.assert_allclose(part.predict_proba(x)[:, order], whole.predict_proba(x), atol=0.15)
    blocks = part.predict_proba(x)
    monkeypatch.setattr(mixture, "BLOCK", 2**18)
    np.testing.assert_allclose(blocks, part.predict_proba(x), rtol=1e-9, atol=1e-12)
