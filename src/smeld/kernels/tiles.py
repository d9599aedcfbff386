"""Square tiles around positions, straight from an image: reduced once, cut in batches, no temporary file.

Positions are pixel coordinates (x, y) in which pixel (row i, column j) has its centre at (j, i). Everything
is symmetric about the image's centre, so that turning image and positions together by 90 degrees turns each
tile and changes nothing else: tiles have an odd side when cut, reduction is by odd factors, and an image that
the factor does not divide is padded equally on opposite sides.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float64]

#: pixels with no channel above this are taken for "not scanned" (surroundings blackened by scanners and
#: editors)
VOID_LEVEL = 12
#: pixels this near to void ones are blends of the two
VOID_MARGIN_PX = 2
#: colours of an image are counted on a grid with at most this many pixels
MAX_COUNTED = 4_000_000
#: rows of the reduced image made at a time
STRIP_ROWS = 256
#: void is replaced in each tile rather than in the whole where more pixels would have to be held
LAZY_ABOVE_PX = 100_000_000


class Source(Protocol):
    """Anything with a size in pixels of which windows can be read."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""

    def window(self, top: int, left: int, height: int, width: int, fill: int = 255) -> UInt8:
        """uint8 [height, width, 3]."""


@dataclass(frozen=True)
class Level:
    """An image at one resolution, ready for tiles.

    ``factor`` (odd) pixels make one pixel; ``pad`` is the (rows, columns) of pixels added on each side;
    ``background`` is the RGB colour that fills what lies outside. Where the level was made from a stored reduced
    copy and in its grid, ``reduction`` native pixels make a pixel of that copy; ``factor`` and ``pad`` count those.
    """

    source: Source
    factor: int
    pad: tuple[int, int]
    background: UInt8
    reduction: float = 1.0

    def to_level(self, xy_px: Float) -> Float:
        """Native pixel coordinates [n, 2] in pixels of this level."""
        native = np.asarray(xy_px, dtype=np.float64)
        stored = native if self.reduction == 1.0 else (native + 0.5) / self.reduction - 0.5
        shift = np.array([self.pad[1], self.pad[0]]) - (self.factor - 1) / 2
        return (stored + shift) / self.factor


@dataclass(frozen=True)
class _Array:
    array: UInt8

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[0], self.array.shape[1]

    def window(self, top: int, left: int, height: int, width: int, fill: int = 255) -> UInt8:
        return self.array[max(top, 0) : top + height, max(left, 0) : left + width]


def odd_factor(um_per_px: float, target_um_per_px: float, *, at_most: bool = False) -> int:
    """The odd number of native pixels that make about one of the target size (``at_most``: not more)."""
    ratio = max(target_um_per_px / um_per_px, 1.0) - 1e-9  # ties do not hang on the last bit
    below = max(1, 2 * math.floor((ratio + 1) / 2 + 1e-8) - 1)
    if at_most or ratio * ratio < below * (below + 2):
        return below
    return below + 2


def background_colour(image: Source, *, percentile: float = 99.0) -> tuple[UInt8, float]:
    """(colour of the empty slide uint8 [3], share of void pixels).

    The colour is each channel's ``percentile`` over all pixels that are not void; white if all are. Images of
    more than 4 megapixels are counted on a regular grid of pixels.
    """
    height, width = image.shape
    step = max(1, math.ceil(math.sqrt(height * width / MAX_COUNTED)))
    counts = np.zeros((3, 256), dtype=np.int64)
    seen = 0
    for top in range(0, height, STRIP_ROWS * step):
        rows = image.window(top, 0, min(STRIP_ROWS * step, height - top), width)[::step, ::step]
        kept = rows[~_is_void(rows)]
        seen += rows.shape[0] * rows.shape[1]
        for channel in range(3):
            counts[channel] += np.bincount(kept[:, channel], minlength=256)
    total = int(counts[0].sum())
    if total == 0:
        return np.full(3, 255, dtype=np.uint8), 1.0
    reached = counts.cumsum(axis=1) >= total * percentile / 100
    return reached.argmax(axis=1).astype(np.uint8), 1.0 - total / seen


def void_fraction(image: Source, xy_px: Float) -> float:
    """Share of the positions inside the image whose pixel is void (near black)."""
    height, width = image.shape
    at = _rounded(xy_px)
    inside = (at >= 0).all(axis=1) & (at[:, 0] < width) & (at[:, 1] < height)
    if not inside.any():
        return 0.0
    levels = [int(image.window(y, x, 1, 1).max()) for x, y in at[inside]]
    return float(np.mean(np.asarray(levels) <= VOID_LEVEL))


def make_level(image: Source, factor: int, *, background: UInt8, replace_void: bool, reduction: float = 1.0) -> Level:
    """The image reduced by an odd ``factor`` (block means), void replaced by the background if asked.

    Reading goes in strips, so that only the result is held; where there is nothing to do, the image itself is
    used. ``reduction``: native pixels on a side of one of the image's, where it is a stored reduced copy; positions
    are native.
    """
    height, width = image.shape
    pad = _even_pad(height, factor), _even_pad(width, factor)
    if factor == 1:
        source = Cleaned(image, background) if replace_void and height * width > LAZY_ABOVE_PX else image
        if not replace_void or source is not image:
            return Level(source, 1, (0, 0), background, reduction)
    rows, cols = (height + 2 * pad[0]) // factor, (width + 2 * pad[1]) // factor
    out = np.empty((rows, cols, 3), dtype=np.uint8)
    for first in range(0, rows, STRIP_ROWS):
        last = min(first + STRIP_ROWS, rows)
        fill = background if replace_void else None
        strip = _strip(image, first * factor - pad[0], last * factor - pad[0], fill)
        strip = np.pad(strip, ((0, 0), (pad[1], pad[1]), (0, 0)), mode="edge") if pad[1] else strip
        out[first:last] = _block_mean(strip, factor)
    return Level(_Array(out), factor, pad, background, reduction)


def level_from_copy(
    copy: Source, reduction: float, shape: tuple[int, int], factor: int, *, background: UInt8, replace_void: bool
) -> Level:
    """What ``make_level`` makes of a native image of ``shape``, from its stored copy, ``reduction`` times smaller.

    The grid is that of ``make_level``; each pixel is the mean of the copy's pixels weighted by the area they share with
    it, which differs where ``reduction`` does not divide ``factor``: about as much as half a pixel of blur.
    """
    pad = _even_pad(shape[0], factor), _even_pad(shape[1], factor)
    down = _shares(shape[0], pad[0], factor, reduction, copy.shape[0])
    across = _shares(shape[1], pad[1], factor, reduction, copy.shape[1])
    out = np.empty((down.shape[0], across.shape[0], 3), dtype=np.uint8)
    for first in range(0, len(out), STRIP_ROWS):
        weights = down[first : first + STRIP_ROWS]
        low, high = int(weights.indices.min()), int(weights.indices.max()) + 1
        strip = _strip(copy, low, high, background if replace_void else None)
        rows = (weights[:, low:high] @ strip.reshape(high - low, -1).astype(np.float32)).reshape(-1, *strip.shape[1:])
        by_column = np.ascontiguousarray(rows.transpose(1, 0, 2)).reshape(strip.shape[1], -1)
        mean = (across @ by_column).reshape(len(out[0]), -1, 3).transpose(1, 0, 2)
        out[first : first + STRIP_ROWS] = np.floor(mean + 0.5).clip(0, 255)
    return Level(_Array(out), factor, pad, background)


def _shares(size: int, pad: int, factor: int, reduction: float, n_copy: int) -> sparse.csr_matrix:
    """[n_out, n_copy] float32: the share of each of the copy's pixels in each output pixel; rows sum to 1."""
    n_out = (size + 2 * pad) // factor
    edges = (np.arange(n_out + 1) * factor - pad) / reduction
    first = np.floor(edges[:-1]).astype(np.int64)
    at = first[:, None] + np.arange(math.ceil(factor / reduction) + 1)
    share = np.minimum(at + 1, edges[1:, None]) - np.maximum(at, edges[:-1, None])
    share = np.maximum(share, 0.0) * (reduction / factor)
    rows = np.repeat(np.arange(n_out), at.shape[1])
    places = (rows, np.clip(at, 0, n_copy - 1).ravel())  # edge pixels repeated outside
    return sparse.csr_matrix((share.ravel().astype(np.float32), places), shape=(n_out, n_copy))


@dataclass(frozen=True)
class Cleaned:
    """An image too large to be held, void replaced by the background in every window that is read."""

    image: Source
    background: UInt8

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape

    def window(self, top: int, left: int, height: int, width: int, fill: int = 255) -> UInt8:
        y0, x0 = max(top - VOID_MARGIN_PX, 0), max(left - VOID_MARGIN_PX, 0)
        y1, x1 = min(top + height + VOID_MARGIN_PX, self.shape[0]), min(left + width + VOID_MARGIN_PX, self.shape[1])
        clean = _without_void(self.image.window(y0, x0, y1 - y0, x1 - x0), self.background)
        return clean[top - y0 : top - y0 + height, left - x0 : left - x0 + width]


def _even_pad(size: int, factor: int) -> int:
    """Smallest p with size + 2 p divisible by the odd factor."""
    return next(p for p in range(factor) if (size + 2 * p) % factor == 0)


def _strip(image: Source, top: int, bottom: int, background: UInt8 | None) -> UInt8:
    """Rows [top, bottom), edge rows repeated outside the image, void replaced unless background is None."""
    height, width = image.shape
    margin = 0 if background is None else VOID_MARGIN_PX
    y0, y1 = max(top - margin, 0), min(bottom + margin, height)
    rows = image.window(y0, 0, y1 - y0, width)
    if background is not None:
        rows = _without_void(rows, background)
    if top >= 0 and bottom <= height:
        return rows[top - y0 : bottom - y0]
    return rows[np.clip(np.arange(top, bottom), 0, height - 1) - y0]


def _without_void(pixels: UInt8, background: UInt8) -> UInt8:
    """Pixels with void and its margin replaced by the background."""
    void = _is_void(pixels)
    if not void.any():
        return pixels
    from scipy import ndimage

    side = 2 * VOID_MARGIN_PX + 1
    pixels = pixels.copy()
    pixels[ndimage.binary_dilation(void, np.ones((side, side), dtype=bool))] = background
    return pixels


def _block_mean(pixels: UInt8, factor: int) -> UInt8:
    """Mean over factor x factor blocks, rounded half up; integer sums, hence the same in any orientation."""
    if factor == 1:
        return pixels
    area = factor * factor
    down = np.zeros((pixels.shape[0] // factor, *pixels.shape[1:]), dtype=np.uint32)
    for row in range(factor):
        down += pixels[row::factor]
    sums = np.full((down.shape[0], down.shape[1] // factor, 3), area // 2, dtype=np.uint32)
    for column in range(factor):
        sums += down[:, column::factor]
    sums //= area
    return sums.astype(np.uint8)


def _is_void(pixels: UInt8) -> NDArray[np.bool_]:
    """Near black in every channel, bool [height, width]."""
    dark = pixels <= VOID_LEVEL
    void: NDArray[np.bool_] = dark[..., 0] & dark[..., 1] & dark[..., 2]
    return void


def _rounded(xy: Float) -> NDArray[np.int64]:
    """Nearest pixel. The small shift makes ties fall the same way whatever unit the coordinates came from."""
    return np.floor(np.asarray(xy, dtype=np.float64) + 0.5 - 1e-6).astype(np.int64)


def corners(level: Level, xy_px: Float, side_px: int) -> NDArray[np.int64]:
    """Left-top corners (x, y) [n, 2], in pixels of the level, of odd tiles centred on native positions."""
    if side_px % 2 == 0:
        raise ValueError("side_px must be odd: a tile is symmetric about its centre pixel")
    return _rounded(level.to_level(xy_px)) - side_px // 2


def coverage(level: Level, xy_px: Float, side_px: int) -> Float:
    """Share of each tile that lies inside the image, float64 [n] in 0..1."""
    height, width = level.source.shape
    first = corners(level, xy_px, side_px)
    low = np.clip(first, 0, [width, height])
    high = np.clip(first + side_px, 0, [width, height])
    area: Float = np.prod(high - low, axis=1) / float(side_px * side_px)
    return area


def cut(level: Level, xy_px: Float, side_px: int) -> UInt8:
    """Tiles uint8 [n, side_px, side_px, 3] centred on native positions; outside is the background colour."""
    tiles = np.empty((len(xy_px), side_px, side_px, 3), dtype=np.uint8)
    height, width = level.source.shape
    for tile, (x, y) in zip(tiles, corners(level, xy_px, side_px)):
        x0, y0 = max(int(x), 0), max(int(y), 0)
        x1, y1 = min(int(x) + side_px, width), min(int(y) + side_px, height)
        if x1 - x0 < side_px or y1 - y0 < side_px:
            tile[:] = level.background
        if x1 > x0 and y1 > y0:
            tile[y0 - y : y1 - y, x0 - x : x1 - x] = level.source.window(y0, x0, y1 - y0, x1 - x0)
    return tiles


def resized(tiles: UInt8, out_px: int) -> UInt8:
    """Tiles uint8 [n, out_px, out_px, 3], bicubic with a kernel that widens when reducing (no aliasing)."""
    if tiles.shape[1] == out_px:
        return tiles
    from PIL import Image

    made = [Image.fromarray(tile).resize((out_px, out_px), Image.Resampling.BICUBIC) for tile in tiles]
    return np.stack([np.asarray(tile) for tile in made]) if made else np.empty((0, out_px, out_px, 3), np.uint8)


def batches(
    level: Level, xy_px: Float, side_px: int, *, out_px: int | None = None, batch_size: int = 256
) -> Iterator[tuple[slice, UInt8]]:
    """(rows, tiles uint8 [b, out_px, out_px, 3]) in the order of ``xy_px`` [n, 2]; one batch is held at a
    time."""
    for first in range(0, len(xy_px), batch_size):
        rows = slice(first, min(first + batch_size, len(xy_px)))
        tiles = cut(level, xy_px[rows], side_px)
        yield rows, tiles if out_px is None else resized(tiles, out_px)


@dataclass(frozen=True)
class Reduced:
    """An image in pixels ``factor`` (odd) times as large on a side, made window by window: nothing is held.

    The grid and the block means are those of :func:`make_level`, whose ``pad`` it has.
    """

    image: Source
    factor: int

    @property
    def pad(self) -> tuple[int, int]:
        """(rows, columns) of native pixels added on each side."""
        height, width = self.image.shape
        return _even_pad(height, self.factor), _even_pad(width, self.factor)

    @property
    def shape(self) -> tuple[int, int]:
        (height, width), (down, across) = self.image.shape, self.pad
        return (height + 2 * down) // self.factor, (width + 2 * across) // self.factor

    def window(self, top: int, left: int, height: int, width: int, fill: int = 255) -> UInt8:
        """uint8 [height, width, 3] of a window inside the image; edge pixels are repeated in the pad."""
        size = self.image.shape
        first = [at * self.factor - pad for at, pad in zip((top, left), self.pad)]
        last = [at + n * self.factor for at, n in zip(first, (height, width))]
        low = [max(at, 0) for at in first]
        high = [min(at, n) for at, n in zip(last, size)]
        pixels = self.image.window(low[0], low[1], high[0] - low[0], high[1] - low[1], fill)
        around = [(a - b, d - c) for a, b, c, d in zip(low, first, high, last)]
        if any(sum(pair) for pair in around):
            pixels = np.pad(pixels, (*around, (0, 0)), mode="edge")
        return _block_mean(pixels, self.factor)
