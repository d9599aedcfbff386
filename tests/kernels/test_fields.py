"""Smooth fields have the correlation they claim; neighbourhood means equal the plain definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeld.kernels import fields


def _seeds(seed: int, n: int) -> list[np.random.SeedSequence]:
    return np.random.SeedSequence(seed).spawn(n)


@pytest.mark.parametrize("length_um", [60.0, 150.0])
def test_field_has_unit_variance_and_the_stated_correlogram(length_um: float) -> None:
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 1000, (1500, 2))
    turn = rng.uniform(0, 2 * np.pi, 1500)
    for lag in (0.0, 0.5, 1.0, 2.0, 3.5):
        step = lag * length_um * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        both = fields.fields_at(np.concatenate([start, start + step]), length_um, _seeds(1, 60))
        product = (both[:1500] * both[1500:]).mean(axis=0)  # known mean 0: nothing is estimated but this
        error = product.std(ddof=1) / np.sqrt(60)
        assert product.mean() == pytest.approx(np.exp(-(lag**2) / 2), abs=4 * error + 0.015)


def test_field_is_stationary_up_to_the_border() -> None:
    xy = np.stack([np.linspace(0, 900, 7), np.full(7, 0.0)], axis=1)  # along one border
    values = fields.fields_at(np.concatenate([xy, [[450.0, 900.0]]]), 80.0, _seeds(2, 800))
    assert values.var(axis=1) == pytest.approx(np.ones(8), abs=0.22)
    assert np.abs(values.mean(axis=1)).max() < 4 / np.sqrt(800)


def test_fields_do_not_depend_on_threads_and_differ_by_seed() -> None:
    xy = np.random.default_rng(0).uniform(0, 500, (200, 2))
    one, four = (fields.fields_at(xy, 50.0, _seeds(3, 5), n_jobs=n) for n in (1, 4))
    assert np.array_equal(one, four)
    assert np.abs(np.corrcoef(one.T) - np.eye(5)).max() < 0.8


@given(st.integers(0, 100), st.floats(30, 120))
def test_local_mean_equals_the_dense_gaussian_mean(seed: int, sd_um: float) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 600, (300, 2))
    values = rng.lognormal(size=300).astype(np.float32)
    squared = ((xy[:, None] - xy) ** 2).sum(axis=2)
    weight = np.exp(-squared / (2 * sd_um**2))
    expected = weight @ values / weight.sum(axis=1)
    found = fields.local_mean(values, xy, sd_um)
    inner = weight.sum(axis=1) > 5  # a lone point's binning shows most
    assert np.corrcoef(found[inner], expected[inner])[0, 1] > 0.98
    assert np.abs(found - expected)[inner].mean() < 0.08 * expected.mean()


def test_local_mean_of_a_constant_is_that_constant() -> None:
    xy = np.random.default_rng(0).uniform(0, 1000, (50, 2))
    assert fields.local_mean(np.full(50, 3.0, np.float32), xy, 40.0) == pytest.approx(np.full(50, 3.0), rel=1e-5)


@given(st.integers(0, 100), st.booleans())
def test_neighbour_mean_equals_the_loop(seed: int, own: bool) -> None:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 100, (60, 2))
    values = rng.normal(size=60).astype(np.float32)
    found = fields.neighbour_mean(values, fields.nearest(xy, 14.0), own=own)
    for i in range(60):
        away = np.hypot(*(xy - xy[i]).T)
        others = [j for j in np.argsort(away) if j != i and away[j] < 14.0][:6]
        members = [*others, i] if own or not others else others
        assert found[i] == pytest.approx(values[members].mean(), abs=1e-5)
