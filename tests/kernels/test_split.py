"""Count splitting: independent parts, the right share, the right dispersion."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from smeld.kernels import graph, split


def _counts(phi: float, n: int = 4000, genes: int = 40, seed: int = 0) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    mean = np.full((n, genes), 2.0)
    rate = mean if phi == 0 else rng.gamma(1 / phi, mean * phi)
    return sparse.csr_matrix(rng.poisson(rate).astype(float))


def _lattice(n: int) -> sparse.csr_matrix:
    side = int(np.sqrt(n))
    y, x = np.mgrid[:side, : n // side]
    return graph.spatial_graph(100.0 * np.c_[x.ravel(), y.ravel()]).connectivities


@pytest.mark.parametrize("phi", [0.0, 0.5])
def test_the_parts_of_negative_binomial_counts_are_uncorrelated(phi: float) -> None:
    counts = _counts(phi)
    one, rest = split.thin(counts, 0.5, np.full(40, phi), np.random.default_rng(1))
    a, b = one.toarray(), rest.toarray()
    correlation = np.mean([np.corrcoef(a[:, g], b[:, g])[0, 1] for g in range(40)])
    assert abs(correlation) < 4 / np.sqrt(4000 * 40)


def test_a_binomial_split_of_overdispersed_counts_is_correlated() -> None:
    # the twin: why the dispersion is needed
    one, rest = split.thin(_counts(0.5), 0.5, np.zeros(40), np.random.default_rng(1))
    a, b = one.toarray(), rest.toarray()
    # mean 2, theta 2: variance of a half 1 + .5, covariance .5
    assert np.mean([np.corrcoef(a[:, g], b[:, g])[0, 1] for g in range(40)]) == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9])
def test_the_parts_add_up_and_hold_the_asked_share(fraction: float) -> None:
    counts = _counts(0.5)
    one, rest = split.thin(counts, fraction, np.full(40, 0.5), np.random.default_rng(0))
    assert (one + rest != counts).nnz == 0
    assert one.sum() / counts.sum() == pytest.approx(fraction, abs=0.01)


@pytest.mark.parametrize("phi", [0.0, 0.2, 1.0])
def test_dispersion_is_found_from_neighbours_though_the_mean_drifts(phi: float) -> None:
    n = 3600
    rng = np.random.default_rng(3)
    drift = 2.0 + np.sin(np.arange(n) % 60 / 60 * np.pi)[:, None] * np.ones((1, 200))
    rate = drift if phi == 0 else rng.gamma(1 / phi, drift * phi)
    found = split.local_dispersion(sparse.csr_matrix(rng.poisson(rate).astype(float)), _lattice(n))
    assert np.median(found) == pytest.approx(phi, abs=0.03 + 0.07 * phi)


def test_genes_without_counts_and_graphs_without_edges_have_no_dispersion() -> None:
    counts = sparse.csr_matrix((9, 3))
    assert (split.local_dispersion(counts, _lattice(9)) == 0).all()
    assert (split.local_dispersion(_counts(0.5, n=9, genes=3), sparse.csr_matrix((9, 9))) == 0).all()
