"""Components of smoothed profiles: an oracle, and how many two halves of the counts agree on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from smeld.kernels import profiles, smooth
from smeld.kernels.graph import spatial_graph


def made(
    n_side: int = 24, depth: float = 0.5, *, structured: bool = True
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    draws = np.random.default_rng(0)
    x, y = (a.ravel() * 100.0 for a in np.meshgrid(np.arange(n_side), np.arange(n_side)))
    field = np.sin(x / 700.0)[:, None] * (np.arange(60) < 15) + np.cos(y / 900.0)[:, None] * (np.arange(60) >= 45)
    rate = depth * np.exp(1.2 * field if structured else 0.0 * field)
    weights = smooth.sme_weights(spatial_graph(np.column_stack([x, y])).distances, sigma_um=100.0)
    return sparse.csr_matrix(draws.poisson(rate).astype(np.float64)), weights


def test_profiles_are_those_of_a_dense_solve() -> None:
    counts, weights = made(8)
    laplacian = np.diag(np.asarray(weights.sum(axis=1)).ravel()) - weights.toarray()
    smoothed = np.linalg.solve(np.eye(64) + 3.0 * laplacian, counts.toarray())
    values = np.log1p(smoothed / smoothed.sum(axis=1, keepdims=True) * profiles.TARGET)
    np.testing.assert_allclose(profiles.log_profiles(counts, weights, 3.0), values - values.mean(axis=0), atol=0.05)


def test_as_many_components_as_there_are_fields() -> None:
    counts, weights = made()
    found, axes = profiles.reliable(counts, weights, 3.0, seed=0)
    assert found.shape[1] == 2
    assert np.array_equal(found, profiles.reliable(counts, weights, 3.0, seed=0)[0])
    np.testing.assert_allclose(profiles.log_profiles(counts, weights, 3.0) @ axes, found)


def test_one_component_where_there_is_nothing() -> None:
    counts, weights = made(structured=False)
    assert profiles.reliable(counts, weights, 3.0, seed=0)[0].shape[1] == 1


@pytest.mark.parametrize("empty", [0, 5])
def test_spots_without_counts_stay_finite(empty: int) -> None:
    counts, weights = made(8)
    counts = sparse.csr_matrix(sparse.diags((np.arange(64) >= empty).astype(float)) @ counts)
    assert np.isfinite(profiles.reliable(counts, weights, 3.0, seed=0)[0]).all()
