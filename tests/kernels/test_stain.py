"""Stain separation: known amounts come back; estimates are robust and independent of order."""

from __future__ import annotations

import numpy as np
import pytest

from smeld.kernels import stain

BACKGROUND = np.array([245, 240, 243], dtype=np.uint8)
KNOWN = stain.RUIFROK / np.linalg.norm(stain.RUIFROK, axis=1, keepdims=True)


def painted(h: np.ndarray, e: np.ndarray, vectors: np.ndarray = KNOWN) -> np.ndarray:
    od = h[..., None] * vectors[0] + e[..., None] * vectors[1]
    return np.clip(((BACKGROUND + 1.0) * 10**-od - 1).round(), 0, 255).astype(np.uint8)


def mixture(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of stroma (eosin), nuclei (mostly haematoxylin) and everything between."""
    rng = np.random.default_rng(seed)
    nuclear = rng.random(n) < 0.3
    h = np.where(nuclear, rng.uniform(0.6, 1.2, n), rng.uniform(0, 0.15, n))
    e = np.where(nuclear, rng.uniform(0, 0.1, n), rng.uniform(0.2, 0.7, n))
    return h, e


def test_known_amounts_come_back():
    rng = np.random.default_rng(0)
    h, e = rng.uniform(0, 0.8, (2, 3, 9, 9))
    stains = stain.Stains(KNOWN, BACKGROUND, False, 0.3, 1.0)
    got_h, got_e = stain.separate(painted(h, e), stains)
    assert got_h.dtype == np.float32
    # a step of one in 8-bit intensity at OD 1.5 is 0.06 in density
    assert np.abs(got_h - h).max() < 0.06 and np.abs(got_e - e).max() < 0.06
    assert np.abs(got_h - h).mean() < 0.01


def test_vectors_are_estimated_from_the_section():
    own = np.array([[0.75, 0.58, 0.30], [0.35, 0.85, 0.40]])
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    h, e = mixture(20_000)
    found = stain.estimate(stain.colour_counts(painted(h, e, own)), BACKGROUND)
    assert found.estimated
    angle = np.rad2deg(np.arccos(np.clip((found.vectors * own).sum(axis=1), -1, 1)))
    assert (angle < 5).all()
    known = np.rad2deg(np.arccos(np.clip((KNOWN * own).sum(axis=1), -1, 1)))
    assert (angle < known).all()
    assert 0.2 < found.nuclear_threshold < 0.65
    assert found.dark == pytest.approx(np.quantile(h, 0.99), abs=0.15)


def test_estimate_depends_on_nothing_but_the_counts():
    h, e = mixture(5000)
    pixels = painted(h, e)
    shuffled = pixels[np.random.default_rng(1).permutation(len(pixels))]
    first = stain.estimate(stain.colour_counts(pixels), BACKGROUND)
    again = stain.estimate(stain.colour_counts(shuffled), BACKGROUND)
    assert np.array_equal(first.vectors, again.vectors)
    assert (first.nuclear_threshold, first.dark) == (again.nuclear_threshold, again.dark)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((50, 3), 255),
        np.full((50, 3), (200, 120, 160)),
        np.repeat(np.arange(256)[:, None], 3, axis=1),
        np.stack([np.zeros(200), np.arange(200), np.zeros(200)], axis=1),
        np.zeros((50, 3)),
    ],
    ids=["white", "one colour", "greys", "greens", "black"],
)
def test_implausible_stains_fall_back_to_the_published_ones(pixels):
    found = stain.estimate(stain.colour_counts(pixels.astype(np.uint8)), BACKGROUND)
    assert not found.estimated and np.array_equal(found.vectors, KNOWN)
    assert np.isfinite([found.nuclear_threshold, found.dark]).all() and found.dark > 0


def test_no_colours_known():
    assert np.array_equal(stain.estimate(None, BACKGROUND).vectors, KNOWN)


def test_colour_counts_are_exact_in_the_top_six_bits():
    pixels = np.random.default_rng(0).integers(0, 256, (500, 3), dtype=np.uint8)
    counts = stain.colour_counts(pixels)
    code = (pixels >> 2).astype(int) @ [64 * 64, 64, 1]
    assert counts.sum() == 500 and np.array_equal(np.flatnonzero(counts), np.unique(code))


def test_otsu_parts_two_clusters():
    from skimage.filters import threshold_otsu

    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.2, 0.1, 4000), rng.normal(0.6, 0.15, 1500)])
    ours = stain._otsu(values, np.ones(len(values)))
    oracle = threshold_otsu(values, nbins=128)
    width = np.ptp(values) / 128
    assert abs(ours - oracle) <= width * 1.01
    gap = stain._otsu(np.array([0.0, 0.1, 0.9, 1.0]), np.ones(4))
    assert gap == pytest.approx(0.5, abs=0.01)  # the middle of a gap, not its edge
