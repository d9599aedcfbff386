"""Tiles: cut where they should be, reduced without aliasing, symmetric, filled with the right colour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeld import _image
from smeld.kernels import tiles

WHITE = np.array([240, 241, 242], dtype=np.uint8)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(30, 255, (height, width, 3), dtype=np.uint8)


def level(array: np.ndarray, factor: int = 1, *, replace_void: bool = False) -> tiles.Level:
    source = _image.from_array(array, scale=1.0, um_per_px=1.0)
    return tiles.make_level(source, factor, background=WHITE, replace_void=replace_void)


def turned(xy: np.ndarray, height: int, width: int) -> np.ndarray:
    """Positions after np.rot90 of an image of this size (pixel centres at whole numbers)."""
    return np.stack([xy[:, 1], width - 1 - xy[:, 0]], axis=1)


def test_a_tile_is_the_window_around_its_pixel():
    array = picture(40, 50)
    cut = tiles.cut(level(array), np.array([[20.0, 10.0], [20.4, 9.6]]), 7)
    assert np.array_equal(cut[0], array[7:14, 17:24])
    assert np.array_equal(cut[1], cut[0])


def test_outside_is_background_and_coverage_says_how_much():
    array = picture(40, 50)
    xy = np.array([[0.0, 0.0], [49.0, 20.0], [-100.0, 5.0], [25.0, 20.0]])
    made = level(array)
    cut = tiles.cut(made, xy, 5)
    assert np.array_equal(cut[0][2:, 2:], array[:3, :3])
    assert (cut[0][:2] == WHITE).all() and (cut[0][:, :2] == WHITE).all()
    assert (cut[2] == WHITE).all()
    assert tiles.coverage(made, xy, 5) == pytest.approx([9 / 25, 15 / 25, 0, 1])


def test_an_even_side_is_refused():
    with pytest.raises(ValueError, match="odd"):
        tiles.cut(level(picture(9, 9)), np.zeros((1, 2)), 4)


@pytest.mark.parametrize("factor", [3, 5])
def test_reduction_is_the_mean_over_blocks(factor):
    array = picture(6 * factor, 4 * factor)
    made = level(array, factor)
    got = made.source.window(0, 0, *made.source.shape)
    oracle = array.astype(float).reshape(6, factor, 4, factor, 3).mean(axis=(1, 3))
    assert np.abs(got - oracle).max() <= 0.5 + 1e-9


def test_reduction_does_not_alias():
    stripes = np.zeros((90, 90, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    reduced = level(stripes, 5).source.window(0, 0, 18, 18)
    assert abs(int(reduced[5:-5, 5:-5].mean()) - 100) <= 2
    assert np.ptp(reduced[5:-5, 5:-5].astype(int)) <= 40  # against 200 when every fifth pixel is taken


def test_strips_do_not_show(monkeypatch):
    array = picture(101, 37)
    array[40:60, 10:30] = 3
    whole = level(array, 3, replace_void=True).source.window(0, 0, 34, 13)
    monkeypatch.setattr(tiles, "STRIP_ROWS", 4)
    assert np.array_equal(level(array, 3, replace_void=True).source.window(0, 0, 34, 13), whole)


@given(
    height=st.integers(20, 40),
    width=st.integers(20, 40),
    factor=st.sampled_from([1, 3, 5]),
    side=st.sampled_from([3, 5, 9]),
    seed=st.integers(0, 99),
)
def test_turning_image_and_positions_turns_the_tiles(height, width, factor, side, seed):
    array = picture(height, width, seed)
    xy = np.random.default_rng(seed).uniform(0, [width - 1, height - 1], (6, 2))
    xy[:3] = np.floor(xy[:3])  # whole pixels are common
    here = tiles.cut(level(array, factor), xy, side)
    there = tiles.cut(level(np.rot90(array), factor), turned(xy, height, width), side)
    assert np.array_equal(np.rot90(here, axes=(1, 2)), there)


@given(seed=st.integers(0, 99), shift=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_moving_image_and_positions_changes_nothing(seed, shift):
    array = picture(30, 30, seed)
    moved = np.full((45, 45, 3), WHITE, dtype=np.uint8)
    moved[shift[1] : shift[1] + 30, shift[0] : shift[0] + 30] = array
    xy = np.random.default_rng(seed).uniform(0, 29, (5, 2))
    assert np.array_equal(tiles.cut(level(array), xy, 7), tiles.cut(level(moved), xy + shift, 7))


@given(batch=st.integers(1, 12))
def test_batches_are_the_whole_in_order(batch):
    made = level(picture(40, 40))
    xy = np.random.default_rng(0).uniform(0, 39, (10, 2))
    got = list(tiles.batches(made, xy, 5, batch_size=batch))
    assert max(len(b) for _, b in got) <= batch
    assert [r.start for r, _ in got] == list(range(0, 10, batch))
    assert np.array_equal(np.concatenate([b for _, b in got]), tiles.cut(made, xy, 5))


def test_tiles_are_delivered_at_the_encoders_size():
    ramp = np.repeat(np.arange(60, dtype=np.uint8)[None, :, None] * 4, 60, axis=0).repeat(3, axis=2)
    (_, got), *_ = tiles.batches(level(ramp), np.array([[30.0, 30.0]]), 21, out_px=7)
    assert got.shape == (1, 7, 7, 3)
    assert np.abs(np.diff(got[0, 3, 1:-1, 0].astype(int)) - 12).max() <= 1
    assert int(got[0, 3, 3, 0]) == pytest.approx(120, abs=1)


@pytest.mark.parametrize(
    ("um_per_px", "target", "nearest", "at_most"),
    [
        (0.25, 1.0, 5, 3),
        (0.3, 1.0, 3, 3),
        (1.0, 1.0, 1, 1),
        (3.2, 1.0, 1, 1),
        (0.5, 1.5, 3, 3),
        (0.69, 1.0, 1, 1),
    ],
)
def test_factor(um_per_px, target, nearest, at_most):
    assert tiles.odd_factor(um_per_px, target) == nearest
    assert tiles.odd_factor(um_per_px, target, at_most=True) == at_most
    assert tiles.odd_factor(um_per_px * (1 + 1e-13), target) == nearest


def test_background_is_the_empty_slides_colour():
    array = np.full((60, 60, 3), (231, 219, 236), dtype=np.uint8)
    array[5:40, 5:40] = picture(35, 35).clip(0, 200)
    colour, void = tiles.background_colour(_image.from_array(array, scale=1, um_per_px=1))
    assert colour.tolist() == [231, 219, 236] and void == 0


def test_background_ignores_black_surroundings():
    array = np.zeros((60, 60, 3), dtype=np.uint8)
    array[20:50, 20:50] = (231, 219, 236)
    colour, void = tiles.background_colour(_image.from_array(array, scale=1, um_per_px=1))
    assert colour.tolist() == [231, 219, 236] and void == pytest.approx(0.75)
    nothing, all_void = tiles.background_colour(_image.from_array(array * 0, scale=1, um_per_px=1))
    assert nothing.tolist() == [255, 255, 255] and all_void == 1


def test_large_images_are_counted_on_a_grid(monkeypatch):
    array = np.full((200, 150, 3), (231, 219, 236), dtype=np.uint8)
    array[:50] = 0
    monkeypatch.setattr(tiles, "MAX_COUNTED", 1000)
    colour, void = tiles.background_colour(_image.from_array(array, scale=1, um_per_px=1))
    assert colour.tolist() == [231, 219, 236] and void == pytest.approx(0.25, abs=0.03)


def test_void_is_replaced_with_its_rim():
    array = np.full((40, 40, 3), 150, dtype=np.uint8)
    array[:, 20:] = 2
    array[:, 19] = 70  # a blend of tissue and black, as resampling leaves it
    made = level(array, replace_void=True).source.window(0, 0, 40, 40)
    assert (made[:, :18] == 150).all() and (made[:, 18:] == WHITE).all()


def test_void_fraction_looks_at_the_positions_inside():
    array = np.full((20, 20, 3), 150, dtype=np.uint8)
    array[:, 10:] = 0
    xy = np.array([[2.0, 2], [3, 3], [15, 5], [99, 99]])
    image = _image.from_array(array, scale=1, um_per_px=1)
    assert tiles.void_fraction(image, xy) == pytest.approx(1 / 3)
    assert tiles.void_fraction(image, xy[3:]) == 0
