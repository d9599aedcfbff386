"""Tissue images behind one small handle: windows are read on demand and the number of pixels is always limited."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check

#: default pixel limit; a full Visium scan has 100-400 megapixels. Raised by option, never switched off.
MAX_MEGAPIXELS = 500.0

UInt8 = NDArray[np.uint8]
_TIFF = {".tif", ".tiff", ".btf", ".svs", ".ndpi"}


@dataclass(frozen=True)
class Image:
    """An RGB image of which windows can be read.

    ``shape`` is (height, width) in pixels; ``scale`` the pixels per unit of ``obsm["spatial"]``; ``um_per_px``
    the size of a pixel in micrometres (NaN if unknown).
    """

    shape: tuple[int, int]
    scale: float
    um_per_px: float
    _read: Callable[[], UInt8]

    def pixels(self) -> UInt8:
        """The whole image, uint8 [height, width, 3]; decoded once and kept."""
        return self._read()

    def window(self, top: int, left: int, height: int, width: int, fill: int = 255) -> UInt8:
        """uint8 [height, width, 3]; what lies outside the image is ``fill``."""
        full = self.pixels()
        out = np.full((height, width, 3), fill, dtype=np.uint8)
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + height, full.shape[0]), min(left + width, full.shape[1])
        if y1 > y0 and x1 > x0:
            out[y0 - top : y1 - top, x0 - left : x1 - left] = full[y0:y1, x0:x1]
        return out


def from_array(pixels: NDArray[Any], *, scale: float, um_per_px: float) -> Image:
    """An ``Image`` over an array in memory: [H, W], [H, W, 3] or [H, W, 4]; floats are taken as 0..1 (scanpy's form)."""
    rgb = to_rgb8(pixels)
    return Image((rgb.shape[0], rgb.shape[1]), scale, um_per_px, lambda: rgb)


def open_image(path: Path, *, scale: float, um_per_px: float, max_megapixels: float = MAX_MEGAPIXELS) -> Image:
    """An ``Image`` over a file. The header is read and its size checked now; pixels are decoded on first use."""
    shape = image_size(path, max_megapixels=max_megapixels)
    kept: list[UInt8] = []

    def read() -> UInt8:
        if not kept:
            kept.append(load(path, max_megapixels=max_megapixels))
        return kept[0]

    return Image(shape, scale, um_per_px, read)


def image_size(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(height, width) from the header alone; raises for a file that is no image or is over the pixel limit."""
    try:
        if path.suffix.lower() in _TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tif:
                height, width = _tiff_plane(tif.series[0].shape)
        else:
            from PIL import Image as PILImage

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # our own limit, checked below, replaces Pillow's warning
                with PILImage.open(path) as opened:
                    width, height = opened.size
    except FileNotFoundError:
        raise _check.problem(f"image {path} is missing", cure="give the path of an existing image") from None
    except Exception as error:  # noqa: BLE001  decoders raise many kinds; all mean: not a readable image
        raise _unreadable(path, error) from error
    if height * width > max_megapixels * 1e6:
        raise _check.problem(
            f"image {path.name} is over the limit of {max_megapixels:g} megapixels",
            found=f"{width} x {height} = {height * width / 1e6:.0f} megapixels",
            cure="raise the limit with --max-megapixels (max_megapixels=) if you trust the file",
        )
    return height, width


def load(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8:
    """The decoded image, uint8 [height, width, 3]."""
    image_size(path, max_megapixels=max_megapixels)
    try:
        if path.suffix.lower() in _TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tif:
                return to_rgb8(_channels_last(tif.series[0].asarray()))
        from PIL import Image as PILImage

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PILImage.DecompressionBombWarning)
            with PILImage.open(path) as opened:
                if opened.mode in ("I;16", "I", "F"):
                    return to_rgb8(np.asarray(opened))
                return np.asarray(opened.convert("RGB"))
    except Exception as error:  # noqa: BLE001  see image_size
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> _check.InputError:
    return _check.problem(
        f"image {path.name} cannot be decoded",
        found=f"{path.stat().st_size} bytes, {type(error).__name__}: {str(error)[:120]}",
        cure="copy the file again (it may be truncated), or run without it",
    )


def _tiff_plane(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) of a TIFF series whose channels may come first, last or not at all."""
    sizes = [int(s) for s in shape]
    if len(sizes) == 2:
        return sizes[0], sizes[1]
    return (sizes[-3], sizes[-2]) if sizes[-1] in (3, 4) else (sizes[-2], sizes[-1])


def _channels_last(pixels: NDArray[Any]) -> NDArray[Any]:
    while pixels.ndim > 3:
        pixels = pixels[0]
    if pixels.ndim == 3 and pixels.shape[-1] not in (3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
        if pixels.shape[-1] not in (3, 4):
            pixels = pixels[..., 0]
    return pixels


def to_rgb8(pixels: NDArray[Any]) -> UInt8:
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
        return (a[:, :, :3] * alpha + 255.0 * (1 - alpha)).round().astype(np.uint8)
    return np.ascontiguousarray(a[:, :, :3])
