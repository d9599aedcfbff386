"""Micrometres from the lattice: known pitch, robustness, independence of order and orientation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeld._check import InputError
from smeld.io import _lattice


def lattice(n_rows: int = 12, n_cols: int = 10) -> np.ndarray:
    row, k = (a.ravel() for a in np.mgrid[:n_rows, :n_cols])
    return _lattice.hexagonal_um(row, 2 * k + row % 2)


def test_neighbours_are_100_um_apart() -> None:
    um = lattice()
    distance = np.linalg.norm(um[:, None] - um[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert np.allclose(distance.min(axis=1), 100)


@given(
    um_per_px=st.floats(0.05, 20),
    angle=st.floats(0, 2 * np.pi),
    flip=st.booleans(),
    shift=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    seed=st.integers(0, 100),
)
def test_any_turn_flip_shift_and_order(um_per_px, angle, flip, shift, seed) -> None:
    um = lattice()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ (
        np.array([[0, 1], [1, 0]]) if flip else np.eye(2)
    )
    px = um @ turn.T / um_per_px + shift
    found = _lattice.fit(um, px)
    assert found.um_per_unit == pytest.approx(um_per_px, rel=1e-6)
    assert found.anisotropy < 1e-6
    assert found.n_outliers == 0
    order = np.random.default_rng(seed).permutation(len(um))
    assert _lattice.fit(um[order], px[order]) == found  # to the last bit


@given(share=st.floats(0.0, 0.3), seed=st.integers(0, 1000))
def test_misplaced_spots_do_not_move_the_scale(share, seed) -> None:
    rng = np.random.default_rng(seed)
    um = lattice()
    px = um / 0.7 + rng.uniform(-0.5, 0.5, um.shape)
    wrong = rng.random(len(um)) < share
    px[wrong] += rng.normal(0, 3000, (int(wrong.sum()), 2))
    px[0] = np.nan
    found = _lattice.fit(um, px)
    assert found.um_per_unit == pytest.approx(0.7, rel=2e-3)
    far = np.linalg.norm(px - um / 0.7, axis=1) > 40
    assert abs(found.n_outliers - int(far.sum())) <= 3


def test_least_squares_oracle() -> None:
    rng = np.random.default_rng(0)
    um = lattice()
    px = um @ np.array([[1.2, 0.1], [-0.1, 1.21]]) + rng.normal(0, 1, um.shape)
    a = np.linalg.lstsq(np.column_stack([um, np.ones(len(um))]), px, rcond=None)[0][:2]
    found = _lattice.fit(um, px)
    assert found.um_per_unit == pytest.approx(1 / np.sqrt(abs(np.linalg.det(a))), rel=1e-9)
    long, short = np.linalg.svd(a, compute_uv=False)
    assert found.anisotropy == pytest.approx(long / short - 1, rel=1e-6)


def test_a_stretched_image_is_said() -> None:
    um = lattice()
    _, messages = _lattice.choose(_lattice.fit(um, um * [2.0, 2.2]), None)
    assert "differ by 10.0%" in messages[0]
    assert not _lattice.choose(_lattice.fit(um, um * [2.0, 2.01]), None)[1]


def test_one_row_of_spots_gives_the_scale_too() -> None:
    um = _lattice.hexagonal_um(np.zeros(6), 2 * np.arange(6))
    assert _lattice.fit(um, um / 0.25 + 7).um_per_unit == pytest.approx(0.25)


def test_user_scale_wins_and_a_contradiction_is_said() -> None:
    um = lattice()
    found = _lattice.fit(um, um / 0.5)
    assert _lattice.choose(found, 0.51) == (0.51, [])
    value, messages = _lattice.choose(found, 0.8)
    assert value == 0.8
    assert "lattice says 0.5" in messages[0]


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_spots(n: int) -> None:
    with pytest.raises(InputError, match="um-per-unit"):
        _lattice.fit(np.zeros((n, 2)), np.zeros((n, 2)))
