"""Pixels of one stored resolution: decoded chunk by chunk, the last ones kept, handed out as 8-bit RGB."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from smeld import _check

UInt8 = NDArray[np.uint8]
Raw = NDArray[Any]

#: decoded chunks of one resolution that are kept for neighbouring windows
CACHE_BYTES = 128e6
#: brightness of grey images with more than 8 bits is fitted to about this many pixels
FITTED_PX = 1 << 22
#: these percentiles become black and white
DARK, BRIGHT = 1.0, 99.8
_pillow_lock = threading.RLock()


@dataclass(frozen=True)
class Stored:
    """One stored resolution of an image, made of chunks that can be decoded alone.

    ``shape`` is (height, width), ``chunk`` the same of a chunk; ``decode(row, column)`` gives the chunk in that place
    of the grid as [h, w] or [h, w, channels], in the type of the file. ``reduction``: pixels of the finest resolution
    on a side of one of these.
    """

    shape: tuple[int, int]
    chunk: tuple[int, int]
    decode: Callable[[int, int], Raw]
    reduction: float = 1.0

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of chunks."""
        return -(-self.shape[0] // self.chunk[0]), -(-self.shape[1] // self.chunk[1])

    def cut(self, row: int, column: int) -> Raw:
        """The chunk in that place without what lies outside the image."""
        pixels = self.decode(row, column)
        height, width = self.shape[0] - row * self.chunk[0], self.shape[1] - column * self.chunk[1]
        return pixels[:height, :width]


def reduction(full: tuple[int, int], small: tuple[int, int]) -> float | None:
    """How many times smaller ``small`` is on a side; None where it is no reduced copy of ``full``.

    Writers round sizes up, down or off: a whole number is taken where it explains both sides.
    """
    if min(small) < 1 or small[0] > full[0] or small[1] > full[1]:
        return None
    ratio = max(full) / max(small)
    whole = round(ratio)
    if all(n // whole <= m <= -(-n // whole) for n, m in zip(full, small)):
        return float(whole)
    fits = all(abs(n / ratio - m) <= 1.0 for n, m in zip(full, small))
    return ratio if fits else None


def pyramid(levels: list[Stored]) -> list[Stored]:
    """The finest level and its reduced copies, finest first, each with its ``reduction``; others are left out."""
    first, kept = levels[0], [levels[0]]
    for level in levels[1:]:
        by = reduction(first.shape, level.shape)
        if by is not None and by > kept[-1].reduction * 1.01:
            kept.append(Stored(level.shape, level.chunk, level.decode, by))
    return kept


class EightBit:
    """Any pixels to 8-bit RGB, all parts of an image alike.

    Grey of more than 8 bits, as fluorescence has, is scaled linearly from percentiles of the coarsest resolution;
    colour of 16 bits keeps its high byte.
    """

    def __init__(self, coarsest: Stored) -> None:
        self.coarsest = coarsest
        self.limits: tuple[float, float] | None = None
        self.lock = threading.Lock()

    def __call__(self, raw: Raw) -> UInt8:
        if raw.dtype == np.uint8:
            return to_rgb8(raw)
        with self.lock:
            if self.limits is None:
                self.limits = self._fit()
        low, high = self.limits
        scaled = (np.nan_to_num(raw.astype(np.float32)) - low) * (255.0 / (high - low))
        return to_rgb8(scaled.round().clip(0, 255).astype(np.uint8))

    def _fit(self) -> tuple[float, float]:
        """(value that becomes 0, value that becomes 255), from chunks spread evenly over the coarsest resolution."""
        rows, columns = self.coarsest.grid
        every = max(1, round(rows * columns * np.prod(self.coarsest.chunk) / FITTED_PX))
        chosen = [self.coarsest.cut(*divmod(i, columns)) for i in range(0, rows * columns, every)]
        if chosen[0].ndim == 3:
            top = max(float(np.nanmax(part)) for part in chosen)
            return 0.0, next(full for full in (1.0, 255.0, 65535.0, max(top, 65536.0)) if top <= full + 1e-6)
        values = np.concatenate([part.ravel() for part in chosen])
        values = values[np.isfinite(values)]
        low, high = np.percentile(values, [DARK, BRIGHT]) if values.size else (0.0, 1.0)
        return float(low), float(high) if high > low else float(low) + 1.0


class Chunks:
    """Parts of one stored resolution: the chunks under a window are decoded, the last ones are kept."""

    def __init__(self, path: Path, stored: Stored, to_8bit: EightBit) -> None:
        self.path, self.stored, self.to_8bit = path, stored, to_8bit
        self.kept: OrderedDict[tuple[int, int], UInt8] = OrderedDict()
        self.kept_bytes = 0
        self.lock = threading.Lock()

    def __call__(self, y0: int, x0: int, y1: int, x1: int) -> UInt8:
        """uint8 [y1 - y0, x1 - x0, 3] of a window inside the image."""
        out = np.empty((y1 - y0, x1 - x0, 3), dtype=np.uint8)
        height, width = self.stored.chunk
        for row in range(y0 // height, (y1 - 1) // height + 1):
            for column in range(x0 // width, (x1 - 1) // width + 1):
                top, left = row * height, column * width
                chunk = self._chunk((row, column))
                a, b = max(y0, top), min(y1, top + chunk.shape[0])
                c, d = max(x0, left), min(x1, left + chunk.shape[1])
                out[a - y0 : b - y0, c - x0 : d - x0] = chunk[a - top : b - top, c - left : d - left]
        return out

    def _chunk(self, place: tuple[int, int]) -> UInt8:
        with self.lock:
            if place in self.kept:
                self.kept.move_to_end(place)
                return self.kept[place]
        try:
            chunk = self.to_8bit(self.stored.cut(*place))
        except Exception as error:  # decoders raise many kinds; all mean: not a readable image
            raise unreadable(self.path, error) from error
        with self.lock:
            if place not in self.kept:
                self.kept[place] = chunk
                self.kept_bytes += chunk.nbytes
            while self.kept_bytes > CACHE_BYTES and len(self.kept) > 1:
                self.kept_bytes -= self.kept.popitem(last=False)[1].nbytes
        return chunk


@contextmanager
def pillow(source: Path | BinaryIO, max_px: int) -> Iterator[Any]:
    """An opened Pillow image; Pillow's own limit is ``max_px`` meanwhile (it raises above twice as many)."""
    from PIL import Image as PILImage

    with _pillow_lock:
        before = PILImage.MAX_IMAGE_PIXELS
        PILImage.MAX_IMAGE_PIXELS = max(1, max_px)
        try:
            with warnings.catch_warnings():
                # just over the limit: checked by callers
                warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
                with PILImage.open(source) as opened:
                    yield opened
        finally:
            PILImage.MAX_IMAGE_PIXELS = before


def unreadable(path: Path, error: Exception) -> _check.InputError:
    """The error of a file that cannot be decoded, whatever the decoder said."""
    if isinstance(error, _check.InputError):
        return error
    size = f"{path.stat().st_size} bytes, " if path.is_file() else ""
    return _check.problem(
        f"image {path.name} cannot be decoded",
        found=f"{size}{type(error).__name__}: {str(error)[:120]}",
        cure="copy the file again (it may be truncated), or run without it",
    )


def too_large(path: Path, max_megapixels: float, found: str) -> _check.InputError:
    """The error of an image with more pixels than the user accepts."""
    return _check.problem(
        f"image {path.name} is over the limit of {max_megapixels:g} megapixels",
        found=found,
        cure="raise the limit with --max-megapixels (max_megapixels=) if you trust the file",
    )


def to_rgb8(pixels: Raw) -> UInt8:
    """uint8 [H, W, 3]: grey is repeated, alpha laid over white, floats 0..1 and 16-bit values scaled."""
    a = np.asarray(pixels)
    if a.dtype.kind == "f":
        top = 1.0 if a.size == 0 or np.nanmax(a) <= 1.0 + 1e-6 else 255.0
        a = np.clip(np.nan_to_num(a) * (255.0 / top), 0, 255).round().astype(np.uint8)
    elif a.dtype == np.uint16:
        a = (a >> 8).astype(np.uint8) if a.max(initial=0) > 255 else a.astype(np.uint8)
    elif a.dtype != np.uint8:
        a = np.clip(a, 0, 255).astype(np.uint8)
    if a.ndim == 2:
        return np.repeat(a[:, :, None], 3, axis=2)
    if a.shape[2] == 4:
        alpha = a[:, :, 3:].astype(np.float32) / 255.0
        laid: UInt8 = (a[:, :, :3] * alpha + 255.0 * (1 - alpha)).round().astype(np.uint8)
        return laid
    return np.ascontiguousarray(a[:, :, :3])
