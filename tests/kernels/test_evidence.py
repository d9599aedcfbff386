"""Held-out scores: leaving a spot out, blocks, ridge, and whether the right strength wins."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from smeld.kernels import evidence, graph, smooth


def _section(n: int = 400, seed: int = 0) -> tuple[graph.SpatialGraph, sparse.csr_matrix]:
    side = int(np.sqrt(n))
    y, x = np.mgrid[:side, :side]
    made = graph.spatial_graph(100.0 * np.c_[x.ravel(), y.ravel()])
    return made, smooth.sme_weights(made.distances, sigma_um=100.0)


@pytest.mark.parametrize("alpha", [0.5, 4.0, 16.0])
def test_leaving_out_agrees_with_refitting_without_the_spot(alpha: float) -> None:
    _, weights = _section(100)
    x = np.random.default_rng(0).normal(size=(100, 2))
    n = len(x)
    laplacian = np.diag(np.asarray(weights.sum(1)).ravel()) - weights.toarray()
    expected = np.empty_like(x)
    for i in range(n):
        fidelity = np.ones(n)
        fidelity[i] = 0.0  # the spot's own value counts for nothing
        expected[i] = np.linalg.solve(np.diag(fidelity) + alpha * laplacian, fidelity[:, None] * x)[i]
    expected -= expected.mean(axis=0)
    found = evidence.left_out(evidence.smoother(weights, alpha), x, connected=np.ones(n, dtype=bool))
    # the diagonal is estimated: agreement, not identity
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97


def test_spots_without_neighbours_are_predicted_by_the_mean() -> None:
    x = np.arange(4.0)[:, None]
    found = evidence.left_out(lambda v: v, x, connected=np.zeros(4, dtype=bool))
    assert (found == 0).all()


def test_blocks_are_compact_equal_and_turn_with_the_section() -> None:
    made, _ = _section(400)
    stretched = made.xy_um * [1.0, 1.7]
    label = evidence.blocks(stretched, 16)
    assert np.bincount(label).tolist() == [25] * 16
    within = np.mean([stretched[label == b].std(axis=0).mean() for b in range(16)])
    assert within < 0.4 * stretched.std(axis=0).mean()


def test_ridge_is_the_ridge_of_sklearn_at_its_penalty() -> None:
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 12))
    x = features[:, :3] @ rng.normal(size=(3, 4)) + rng.normal(size=(200, 4))
    ours = evidence.ridge(features, x)(x)
    theirs = RidgeCV(alphas=np.geomspace(1e-1, 1e6, 22)).fit(features, x).predict(features)
    assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999


def test_the_score_prefers_smoothing_that_fits_the_field() -> None:
    made, weights = _section(900)
    rng = np.random.default_rng(1)
    field = smooth.smooth(weights, rng.normal(size=(900, 1)), 30.0)
    field /= field.std()
    trial = evidence.Trial(field + rng.normal(size=field.shape), field + rng.normal(size=field.shape))
    block = evidence.blocks(made.xy_um, 32)

    def score(alpha: float) -> evidence.Score:
        operator = evidence.smoother(weights, alpha)
        predicted = evidence.left_out(operator, trial.scores, connected=np.ones(900, dtype=bool))
        return evidence.score([predicted], [trial], block)

    scores = {alpha: score(alpha) for alpha in (0.25, 4.0, 1000.0)}
    assert max(scores, key=lambda a: scores[a].mean) == 4.0
    gain, se = scores[4.0].gain_over(scores[1000.0])
    assert gain > 2 * se > 0
    # at best half of the target's variance is field, the rest is noise
    assert 0.3 < scores[4.0].mean < 0.6


def test_pure_noise_scores_nothing() -> None:
    made, weights = _section(900)
    rng = np.random.default_rng(2)
    trial = evidence.Trial(rng.normal(size=(900, 5)), rng.normal(size=(900, 5)))
    predicted = evidence.left_out(evidence.smoother(weights, 4.0), trial.scores, connected=np.ones(900, dtype=bool))
    assert abs(evidence.score([predicted], [trial], evidence.blocks(made.xy_um, 32)).mean) < 0.01
