"""Statistics of tiles against slow oracles, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.feature import graycomatrix, graycoprops

from smeld.kernels import texture as tx


def maps(n: int = 4, side: int = 21, seed: int = 0) -> np.ndarray:
    rough = np.random.default_rng(seed).random((n, side, side))
    return ndimage.gaussian_filter(rough, (0, 1, 1)).astype(np.float32)


def test_disk_is_round_and_symmetric():
    for side in (3, 7, 21):
        member = np.zeros(side * side, dtype=bool)
        member[tx.disk(side)] = True
        square = member.reshape(side, side)
        assert np.array_equal(square, np.rot90(square)) and np.array_equal(square, square.T)
        assert abs(square.mean() - np.pi / 4) < 0.7 / side


def test_cooccurrence_agrees_with_skimage_where_the_disk_does_not_matter(monkeypatch):
    stack = maps(3, 15)
    top = 1.0
    monkeypatch.setattr(tx, "disk", lambda side: np.arange(side * side))
    joint = tx.cooccurrence(stack, top=top, lag_px=3)
    contrast, homogeneity, entropy = tx.haralick(joint)
    for i, one in enumerate(stack):
        grey = np.clip(one * tx.GREY_LEVELS / top, 0, tx.GREY_LEVELS - 1).astype(np.uint8)
        counts = graycomatrix(grey, [3], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], tx.GREY_LEVELS, symmetric=True)
        pooled = counts.sum(axis=3, keepdims=True)
        assert contrast[i] == pytest.approx(graycoprops(pooled, "contrast")[0, 0])
        assert homogeneity[i] == pytest.approx(graycoprops(pooled, "homogeneity")[0, 0])
        p = pooled[..., 0, 0] / pooled.sum()
        assert entropy[i] == pytest.approx(-(p[p > 0] * np.log2(p[p > 0])).sum())


def test_cooccurrence_of_a_loop_over_pixels():
    stack = maps(1, 9)
    joint = tx.cooccurrence(stack, top=0.8, lag_px=2)[0]
    grey = np.clip(stack[0] * tx.GREY_LEVELS / np.float32(0.8), 0, tx.GREY_LEVELS - 1).astype(int)
    inside = set(tx.disk(9).tolist())
    oracle = np.zeros((tx.GREY_LEVELS, tx.GREY_LEVELS))
    for down, right in ((0, 2), (2, 0), (1, 1), (1, -1)):  # 2 / sqrt(2) rounds to 1
        for row in range(9):
            for col in range(9):
                mate = (row + down, col + right)
                if 0 <= mate[0] < 9 and 0 <= mate[1] < 9 and {row * 9 + col, mate[0] * 9 + mate[1]} <= inside:
                    oracle[grey[row, col], grey[mate]] += 1
                    oracle[grey[mate], grey[row, col]] += 1
    assert joint == pytest.approx(oracle / oracle.sum())


def test_coherence_of_stripes_noise_and_flat():
    at = np.arange(41)
    for angle in (0, 0.4, np.pi / 4, 1.2):
        stripes = np.sin(at[:, None] * np.sin(angle) + at[None, :] * np.cos(angle))[None].astype(np.float32)
        assert tx.coherence(stripes)[0] > 0.97
    assert tx.coherence(np.random.default_rng(0).random((5, 41, 41)).astype(np.float32)).max() < 0.2
    assert tx.coherence(np.full((1, 9, 9), 0.3, np.float32))[0] == 0


def test_gradient_energy_of_a_ramp_is_its_slope():
    at = np.arange(15, dtype=np.float32)
    ramp = (0.3 * at[:, None] + 0.4 * at[None, :])[None]
    assert tx.gradient_energy(ramp) == pytest.approx([0.5], rel=1e-5)


def test_percentiles_are_observed_values():
    values = np.random.default_rng(0).random((6, 101)).astype(np.float32)
    assert tx.percentiles(values, (10, 50, 90)) == pytest.approx(np.percentile(values, (10, 50, 90), axis=1).T)


def test_thirds_are_block_means():
    stack = maps(2, 9)
    assert tx.thirds(stack) == pytest.approx(stack.reshape(2, 3, 3, 3, 3).mean(axis=(2, 4)), abs=1e-6)
    assert tx.thirds(maps(2, 11)).shape == (2, 3, 3)


def test_blobs_are_counted():
    rng = np.random.default_rng(0)
    centres = np.array([[10, 12], [30, 14], [18, 40], [44, 44], [50, 20]])
    canvas = np.zeros((1, 63, 63), dtype=np.float32)
    rows, cols = np.mgrid[:63, :63]
    for y, x in centres:
        canvas[0][(rows - y) ** 2 + (cols - x) ** 2 <= 9] = 1
    canvas += rng.normal(0, 0.02, canvas.shape).astype(np.float32)
    peaks = tx.blobs(tx.smooth(canvas, 2.0), above=0.3, sigma_px=2.0, sharpness=0.05)
    found = np.argwhere(peaks[0]) + 2
    assert len(found) == len(centres)
    gap = np.abs(found[:, None] - centres[None]).sum(axis=2).min(axis=0)
    assert gap.max() <= 1
    assert not tx.blobs(np.full((1, 21, 21), 0.5, np.float32), above=0.3, sigma_px=2.0, sharpness=0.05).any()


STATISTICS = {
    "gradient": tx.gradient_energy,
    "coherence": tx.coherence,
    "sd": lambda m: tx.sd(tx.pool(m)),
    "p90": lambda m: tx.percentiles(tx.pool(m), (90,))[:, 0],
    "smooth": lambda m: tx.mean(tx.pool(tx.smooth(m, 1.5))),
    "contrast": lambda m: tx.haralick(tx.cooccurrence(m, top=1.0, lag_px=3))[0],
    "entropy": lambda m: tx.haralick(tx.cooccurrence(m, top=1.0, lag_px=3))[2],
    "blobs": lambda m: tx.mean(tx.pool(tx.blobs(m, above=0.4, sigma_px=1.0, sharpness=0.01))),
    "thirds": lambda m: tx.sd(tx.pool(tx.thirds(m))),
}


@pytest.mark.parametrize("name", STATISTICS)
@given(seed=st.integers(0, 999), turns=st.integers(1, 3))
def test_turning_a_tile_changes_nothing(name, seed, turns):
    stack = maps(3, 21, seed)
    here = STATISTICS[name](stack)
    there = STATISTICS[name](np.ascontiguousarray(np.rot90(stack, turns, axes=(1, 2))))
    assert here == pytest.approx(there, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_tile_does_not_see_its_neighbours_in_the_batch(name):
    stack = maps(7, 21)
    whole = STATISTICS[name](stack)
    alone = np.concatenate([STATISTICS[name](stack[i : i + 1]) for i in range(7)])
    assert np.array_equal(whole, alone)
