"""Pairs made independent on purpose."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from smeld.kernels import pairtest, surrogates
from smeld.kernels.graph import spatial_graph


def _section(side: int = 36) -> tuple[np.ndarray, sparse.csr_matrix]:
    y, x = np.mgrid[:side, :side]
    xy = 50.0 * (np.c_[x.ravel(), y.ravel()] + np.random.default_rng(0).uniform(-0.3, 0.3, (side**2, 2)))
    edges = spatial_graph(xy, kind="knn", n_neighbors=6).connectivities
    return xy, sparse.csr_matrix(sparse.diags(1 / np.asarray(edges.sum(axis=1)).ravel()) @ edges)


def test_turns_stay_within_the_section() -> None:
    xy, _ = _section()
    for nearest, inside in surrogates.turns(xy, 6, np.random.default_rng(0)):
        assert nearest.min() >= 0 and nearest.max() < len(xy)
        assert 0.6 < inside.mean() <= 1.0
        # neighbours stay neighbours: the map keeps its smoothness
        rows = np.flatnonzero(inside[:-1] & inside[1:] & (np.abs(np.diff(xy[:, 0])) < 100))
        moved = np.linalg.norm(xy[nearest[rows]] - xy[nearest[rows + 1]], axis=1)
        assert np.median(moved) < 100


def test_lambda_is_one_for_noise_and_far_above_for_a_shared_middle() -> None:
    xy, weights = _section()
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(80, len(xy)))
    pairs, made = np.arange(80).reshape(40, 2), pairtest.section(xy, weights)

    def lambda_(fields: np.ndarray) -> float:
        fields = fields - fields.mean(axis=1, keepdims=True)
        return surrogates.inflation(surrogates.pvalues(made, lambda c: fields[c], pairs, xy, seed=0))

    assert 0.8 < lambda_(noise) < 1.2
    middle = np.exp(-(((xy - xy.mean(axis=0)) / 500) ** 2).sum(axis=1))
    assert lambda_(noise + 4 * middle) > 1.5


def test_the_same_seed_gives_the_same_lambda() -> None:
    xy, weights = _section(12)
    fields = np.random.default_rng(2).normal(size=(4, len(xy)))
    pairs = np.array([[0, 1], [2, 3]])
    made = pairtest.section(xy, weights)
    one, other = (surrogates.pvalues(made, lambda c: fields[c], pairs, xy, seed=5) for _ in range(2))
    assert np.array_equal(one, other)


def test_sections_are_turned_one_by_one() -> None:
    xy, _ = _section(14)
    both = np.vstack([xy, xy + np.array([5000.0, 0.0])])
    section = np.repeat([0, 1], len(xy))
    for nearest, inside in surrogates.turns(both, 4, np.random.default_rng(0), section):
        assert (section[nearest] == section).all() and inside.mean() > 0.6


def test_a_long_strip_is_turned_over_and_a_stray_spot_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    strip = np.c_[rng.uniform(0, 30_000, 900), rng.uniform(0, 500, 900)] @ np.array([[0.8, 0.6], [-0.6, 0.8]])
    whole, _ = _section(20)
    for xy in (strip, np.vstack([whole, [[40_000.0, 0.0]]])):
        for _, inside in surrogates.turns(xy, 6, np.random.default_rng(1)):
            assert inside.mean() > 0.3


def test_the_error_of_lambda_is_about_its_spread() -> None:
    rng = np.random.default_rng(0)
    many = [rng.uniform(size=(16, 81)) for _ in range(60)]
    spread = np.std([surrogates.inflation(p) for p in many])
    assert np.mean([surrogates.standard_error(p) for p in many]) == pytest.approx(spread, rel=0.4)
    assert np.isnan(surrogates.standard_error(many[0][:1])) and np.isnan(surrogates.inflation(np.zeros((0, 0))))
