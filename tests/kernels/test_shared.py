"""Does morphology know the regions of expression? What it says by itself, in regions not seen, beside expression."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA

from smeld.kernels import evidence, graph, shared, smooth

Float = NDArray[np.float64]
SIDE = 40


def _lattice() -> graph.SpatialGraph:
    y, x = np.mgrid[:SIDE, :SIDE]
    return graph.spatial_graph(100.0 * np.c_[x.ravel(), y.ravel()])


def _smooth_map(seed: int, width: float = 3.0) -> Float:
    """A smooth map with ups and downs all over the section, ``width`` in spacings, [n_obs, 1], standardised."""
    padded = np.random.default_rng(seed).normal(size=(SIDE + 40, SIDE + 40))
    x = gaussian_filter(padded, width)[20:-20, 20:-20].reshape(-1, 1)
    return np.asarray((x - x.mean()) / x.std())


def _trials(truth: Float, seed: int, *, noise: float = 1.0, d: int = 3) -> list[evidence.Trial]:
    """Two halves that see the same truth, each with noise of its own."""
    rng = np.random.default_rng(seed)
    loud = truth @ rng.normal(size=(truth.shape[1], d))
    halves = [loud + noise * rng.normal(size=loud.shape) for _ in range(2)]
    return [evidence.Trial(*(h - h.mean(axis=0) for h in halves))]


def test_components_are_those_of_sklearn_scaled_by_the_first() -> None:
    made = _lattice()
    weights = smooth.sme_weights(made.distances, sigma_um=100.0)
    features = np.random.default_rng(0).normal(size=(SIDE**2, 6)) * np.arange(1, 7)
    found = shared.components(weights, features, 4.0, 3)
    expected = PCA(3).fit_transform(smooth.smooth(weights, features, 4.0))
    expected = expected / expected[:, 0].std()
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-6)


@pytest.mark.parametrize("features", [np.ones((SIDE**2, 3)), np.zeros((SIDE**2, 2))])
def test_features_that_do_not_differ_give_no_component(features: Float) -> None:
    weights = smooth.sme_weights(_lattice().distances, sigma_um=100.0)
    assert shared.components(weights, features, 9.0, 3).shape == (SIDE**2, 0)


def test_a_common_cause_transfers_to_regions_not_seen() -> None:
    truth = np.hstack([_smooth_map(s) for s in (1, 2)])
    block = evidence.blocks(_lattice().xy_um, 32)
    gain, se = shared.transfer(truth, _trials(truth, 0), block).gain_over(evidence.Score(np.zeros(32)))
    assert gain > 0.1 and gain > 3 * se


def test_as_smooth_a_map_of_no_common_cause_rarely_transfers() -> None:
    """The null that counts: both maps vary smoothly over the section, so that plain regression finds them related."""
    block = evidence.blocks(_lattice().xy_um, 32)
    passed = 0
    for seed in range(40):
        truth, other = (np.hstack([_smooth_map(1000 * i + 10 * seed + j) for j in range(3)]) for i in (0, 1))
        gain, se = shared.transfer(other, _trials(truth, seed), block).gain_over(evidence.Score(np.zeros(32)))
        passed += gain > 1.645 * se
    assert passed <= 3


def test_agreement_is_high_for_a_good_witness_and_low_for_none() -> None:
    weights = smooth.sme_weights(_lattice().distances, sigma_um=100.0)
    truth = np.hstack([_smooth_map(s, 5.0) for s in (1, 2, 3)])
    seed = np.random.SeedSequence(0)
    by_expression = shared.regions(_trials(truth, 0), weights, 9.0, seed=seed)
    witness, itself = shared.agreement(truth, by_expression, seed=seed)
    nothing, same = shared.agreement(np.hstack([_smooth_map(s, 5.0) for s in (4, 5, 6)]), by_expression, seed=seed)
    assert itself == same
    assert witness > 0.5 * itself > nothing


def test_many_spots_are_compared_on_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "MOST_COMPARED", 500)
    weights = smooth.sme_weights(_lattice().distances, sigma_um=100.0)
    found = shared.regions(_trials(_smooth_map(1), 0), weights, 9.0, seed=np.random.SeedSequence(0))
    assert len(found[0][0][0]) == 400
