"""Offsets of sections are found although the sections hold their groups in different shares."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from smeld.kernels.sections import offsets

Float = NDArray[np.float64]

MILD = ((0.5, 0.3, 0.2), (0.2, 0.3, 0.5))
STRONG = ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7))


class Made(NamedTuple):
    x: Float
    section: NDArray[np.intp]
    truth: Float  # what sections are shifted by, its mean over spots 0
    plain: Float  # what centring every section would take away


def made(shares: Any = MILD, *, seed: int = 0, shift: float = 1.0, n: int = 300, apart: float = 4.0) -> Made:
    """Three groups, 4 dimensions, unit noise; ``n`` spots a section."""
    rng = np.random.default_rng(seed)
    d, n_sections = 4, len(shares)
    means, shifts = apart * rng.normal(size=(3, d)), shift * rng.normal(size=(n_sections, d))
    section = np.repeat(np.arange(n_sections), n)
    group = np.concatenate([rng.choice(3, n, p=p) for p in shares])
    x = means[group] + shifts[section] + rng.normal(size=(n * n_sections, d))
    plain = np.stack([x[section == s].mean(axis=0) for s in range(n_sections)]) - x.mean(axis=0)
    return Made(x, section, shifts - shifts.mean(axis=0), plain)


def found(m: Made, seed: int = 0) -> Float:
    return offsets(m.x, m.section, seed=np.random.SeedSequence(seed))


@pytest.mark.parametrize("seed", range(3))
def test_known_shifts_are_found_where_centring_mistakes_shares_for_shifts(seed: int) -> None:
    m = made(seed=seed)
    assert np.abs(m.plain - m.truth).max() > 0.5
    assert np.abs(found(m) - m.truth).max() < 0.25


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_known_shifts_are_found_where_shares_differ_much(shift: float) -> None:
    m = made(STRONG, seed=0, shift=shift)
    assert np.abs(m.plain - m.truth).max() > 1.0
    assert np.abs(found(m) - m.truth).max() < 0.5 * np.abs(m.plain - m.truth).max()


def test_three_sections() -> None:
    m = made((*MILD, (0.3, 0.4, 0.3)), seed=4)
    assert np.abs(found(m) - m.truth).max() < 0.3 < np.abs(m.plain - m.truth).max()


@pytest.mark.parametrize("seed", range(2))
def test_sections_alike_get_next_to_no_offset(seed: int) -> None:
    shares = ((0.3, 0.3, 0.4),) * 2
    m = made(shares, seed=seed, shift=0.0)
    assert np.abs(found(m)).max() < 0.2  # noise 1 / sqrt(300) on either side, groups 4 apart
    twice = np.concatenate([m.x[:300], m.x[:300]])
    assert offsets(twice, m.section, seed=np.random.SeedSequence(0)) == pytest.approx(np.zeros((2, 4)), abs=0.02)


def test_one_section_has_no_offset() -> None:
    m = made()
    single = offsets(m.x, np.zeros(len(m.x), dtype=int), seed=np.random.SeedSequence(0))
    assert single == pytest.approx(np.zeros((1, 4)), abs=1e-9)


@settings(max_examples=6)
@given(st.integers(0, 50), st.floats(0, 5))
def test_the_mean_over_all_spots_stays_where_it_was(seed: int, shift: float) -> None:
    m = made(seed=seed, shift=shift, n=40)
    kept = m.x.copy()
    uneven = m.section.copy()
    uneven[:25] = 1
    out = offsets(m.x, uneven, seed=np.random.SeedSequence(0))
    assert (m.x - out[uneven]).mean(axis=0) == pytest.approx(m.x.mean(axis=0), abs=1e-9)
    assert np.array_equal(m.x, kept)


def test_the_same_seed_gives_the_same_offsets() -> None:
    m = made(n=100)
    assert np.array_equal(found(m, 3), found(m, 3))


def test_naming_the_sections_otherwise_permutes_the_offsets() -> None:
    m = made((*MILD, (0.3, 0.4, 0.3)), n=100)
    order = np.array([2, 0, 1])
    renamed = offsets(m.x, order[m.section], seed=np.random.SeedSequence(0))
    assert renamed[order] == pytest.approx(found(m), abs=1e-6)


def test_the_order_of_the_spots_matters_no_more_than_the_noise() -> None:
    m = made()
    order = np.random.default_rng(0).permutation(len(m.x))
    other = offsets(m.x[order], m.section[order], seed=np.random.SeedSequence(0))
    assert other == pytest.approx(found(m), abs=0.15)


def test_moving_and_stretching_the_embedding_moves_and_stretches_nothing_else() -> None:
    m = made(n=100)
    stretch = np.array([1e-2, 1.0, 10.0, 100.0])
    other = offsets(m.x * stretch + 7.0, m.section, seed=np.random.SeedSequence(0))
    assert other / stretch == pytest.approx(found(m), abs=0.02)


def test_columns_without_variance_get_no_offset() -> None:
    m = made(n=60)
    x = np.column_stack([m.x, np.full(len(m.x), 3.0)])
    out = offsets(x, m.section, seed=np.random.SeedSequence(0))
    assert np.isfinite(out).all() and out[:, -1] == pytest.approx(0.0, abs=1e-9)


def test_sections_of_very_few_spots() -> None:
    x = np.random.default_rng(0).normal(size=(5, 2))
    out = offsets(x, np.array([0, 0, 0, 1, 2]), seed=np.random.SeedSequence(0))
    assert out.shape == (3, 2) and np.isfinite(out).all()
