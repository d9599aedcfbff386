"""Nuclei at known places are found once each, wherever the image is cut and however it is turned."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from smeld.kernels import nuclei, tiles

ABOVE, SHARPNESS = 0.25, 0.08


def blobs(
    shape: tuple[int, int], xy: np.ndarray, long_um: np.ndarray, um: float, *, stretch: float = 1.0
) -> np.ndarray:
    """Ellipses of stain 1 with soft edges, their long axes along x, on a map of pixels of ``um``."""
    row, column = np.mgrid[: shape[0], : shape[1]] * um
    made = np.zeros(shape)
    for (x, y), a in zip(xy, long_um):
        far = np.sqrt(((column - x) / a) ** 2 + ((row - y) / (a / stretch)) ** 2)
        made = np.maximum(made, np.clip((1 - far) * a / um + 0.5, 0, 1))
    return made.astype(np.float32)


def spread(n_side: int, pitch_um: float, seed: int) -> np.ndarray:
    """Places (x, y) on a jittered lattice, never nearer than .7 of the pitch."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(np.arange(n_side), np.arange(n_side)), axis=-1).reshape(-1, 2) + 1.0
    return (lattice + rng.uniform(-0.15, 0.15, lattice.shape)) * pitch_um


def find(stain: np.ndarray, um: float) -> np.ndarray:
    return nuclei.centres(stain, um, above=ABOVE, sharpness=SHARPNESS) * um


@pytest.mark.parametrize("um", [0.4, 0.75, 1.0, 1.75])
@pytest.mark.parametrize("stretch", [1.0, 1.8])
def test_each_nucleus_is_found_once_at_its_place(um: float, stretch: float) -> None:
    xy = spread(6, 18.0, 100)
    radius = np.random.default_rng(100).uniform(3.0, 5.0, len(xy)) * np.sqrt(stretch)
    side = round(7 * 18.0 / um)
    found = find(blobs((side, side), xy, radius, um, stretch=stretch), um)
    apart = np.linalg.norm(found[:, None] - xy[None], axis=2)
    assert len(found) == len(xy)
    assert sorted(apart.argmin(axis=1)) == list(range(len(xy)))
    assert apart.min(axis=1).max() < (1.2 if stretch == 1 else 3.0)


def test_chromatin_makes_no_nuclei_and_touching_ones_stay_two() -> None:
    um, rng = 0.5, np.random.default_rng(101)
    grain = ndimage.gaussian_filter(rng.normal(size=(200, 200)), 1.0)
    one = blobs((200, 200), np.array([[50.0, 50.0]]), np.array([6.0]), um) * (1 + 0.2 * grain / grain.std())
    assert len(find(one.astype(np.float32), um)) == 1
    two = blobs((200, 200), np.array([[46.0, 50.0], [55.0, 50.0]]), np.array([4.5, 4.5]), um)
    assert len(find(two, um)) == 2
    long = blobs((200, 200), np.array([[50.0, 50.0]]), np.array([7.0]), um, stretch=2.2)
    assert len(find(long, um)) == 1


def test_nothing_is_found_where_there_is_nothing() -> None:
    for value in (0.0, 1.0):
        assert find(np.full((60, 70), value, np.float32), 0.75).shape == (0, 2)
    assert len(find(np.full((3, 3), 0.5, np.float32), 0.75)) == 0


def test_a_nucleus_between_pixels_is_one() -> None:
    for middle in ((20.5, 20.0), (20.5, 20.5)):
        assert len(find(blobs((41, 41), np.array([middle]), np.array([4.0]), 1.0), 1.0)) == 1


def noisy(seed: int) -> np.ndarray:
    rough = np.random.default_rng(seed).random((150, 170))
    return (ndimage.gaussian_filter(rough, 3.0) * 12 - 5.5).clip(0, 2).astype(np.float32)


def as_set(xy: np.ndarray) -> set[tuple[float, float]]:
    return {(round(float(x), 6), round(float(y), 6)) for x, y in xy}


@given(st.integers(0, 60), st.integers(0, 60), st.integers(100, 110))
@settings(max_examples=12, deadline=None)
def test_what_lies_far_away_does_not_matter(top: int, left: int, seed: int) -> None:
    stain, um = noisy(seed), 1.0
    reach = nuclei.reach_px(um)
    whole = nuclei.centres(stain, um, above=ABOVE, sharpness=SHARPNESS)
    part = nuclei.centres(stain[top : top + 90, left : left + 90], um, above=ABOVE, sharpness=SHARPNESS)
    part += np.array([left, top])

    def inner(xy: np.ndarray) -> set[tuple[float, float]]:
        low, high = np.array([left, top]) + reach, np.array([left, top]) + 90 - reach
        return as_set(xy[((xy >= low) & (xy < high)).all(axis=1)])

    assert inner(part) == inner(whole)
    assert len(whole) > 20


def test_turning_and_mirroring_turn_the_centres() -> None:
    stain = noisy(102)
    here = nuclei.centres(stain, 1.0, above=ABOVE, sharpness=SHARPNESS)
    turned = nuclei.centres(np.ascontiguousarray(np.rot90(stain)), 1.0, above=ABOVE, sharpness=SHARPNESS)
    assert as_set(np.stack([here[:, 1], stain.shape[1] - 1 - here[:, 0]], axis=1)) == as_set(turned)
    mirrored = nuclei.centres(np.ascontiguousarray(stain[:, ::-1]), 1.0, above=ABOVE, sharpness=SHARPNESS)
    assert as_set(np.stack([stain.shape[1] - 1 - here[:, 0], here[:, 1]], axis=1)) == as_set(mirrored)


def test_counts_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(103)
    places, found = rng.uniform(0, 100, (40, 2)), rng.uniform(0, 100, (60, 2))
    number, used = nuclei.counted(places, 9.0, found)
    near = np.linalg.norm(places[:, None] - found[None], axis=2) <= 9.0
    assert np.array_equal(number, near.sum(axis=1)) and np.array_equal(used, near.any(axis=0))
    assert nuclei.counted(places, 9.0, found[:0])[0].tolist() == [0] * 40


@given(st.sampled_from([1, 3, 5]), st.integers(0, 9), st.integers(0, 9), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_windows_reduced_on_the_fly_are_those_of_the_reduced_image(factor: int, top: int, left: int, size: int) -> None:
    pixels = np.random.default_rng(104).integers(0, 256, (53, 47, 3), dtype=np.uint8)
    white = np.full(3, 255, np.uint8)
    level = tiles.make_level(tiles._Array(pixels), factor, background=white, replace_void=False)
    reduced = tiles.Reduced(tiles._Array(pixels), factor)
    assert reduced.shape == level.source.shape and reduced.pad == level.pad
    height, width = min(size, reduced.shape[0] - top), min(size, reduced.shape[1] - left)
    if height > 0 and width > 0:
        expected = level.source.window(top, left, height, width)
        assert np.array_equal(reduced.window(top, left, height, width), expected)
