"""Tissue images behind one small handle: windows are read on demand and the number of pixels is always
limited."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
#: decoded tiles of a TIFF that are kept for neighbouring windows
_TILE_CACHE_BYTES = 64e6
_BAND_PX = 512
_pillow_lock = threading.RLock()


@dataclass(frozen=True)
class Image:
    """An RGB image of which windows can be read.

    ``shape`` is (height, width) in pixels; ``scale`` the pixels per unit of ``obsm["spatial"]``;
    ``um_per_px`` the size of a pixel in micrometres (NaN if unknown).
    """

    shape: tuple[int, int]
    scale: float
    um_per_px: float
    _read: Callable[[], UInt8]
    _part: Callable[[int, int, int, int], UInt8] | None = None  # (y0, x0, y1, x1) inside the image, where that is cheap

    def pixels(self) -> UInt8:
        """The whole image, uint8 [height, width, 3]; decoded once and kept."""
        return self._read()

    def window(self, top: int, left: int, height: int, width: int, fill: int = 255) -> UInt8:
        """uint8 [height, width, 3]; what lies outside the image is ``fill``."""
        out = np.full((height, width, 3), fill, dtype=np.uint8)
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + height, self.shape[0]), min(left + width, self.shape[1])
        if y1 > y0 and x1 > x0:
            part = self._part(y0, x0, y1, x1) if self._part is not None else self.pixels()[y0:y1, x0:x1]
            out[y0 - top : y1 - top, x0 - left : x1 - left] = part
        return out


def from_array(pixels: NDArray[Any], *, scale: float, um_per_px: float) -> Image:
    """An ``Image`` over an array in memory: [H, W], [H, W, 3] or [H, W, 4]; floats are taken as 0..1
    (scanpy's form)."""
    rgb = to_rgb8(pixels)
    return Image((rgb.shape[0], rgb.shape[1]), scale, um_per_px, lambda: rgb)


def open_image(path: Path, *, scale: float, um_per_px: float, max_megapixels: float = MAX_MEGAPIXELS) -> Image:
    """An ``Image`` over a file. The header is read and its size checked now; pixels are decoded on first use.

    Of a tiled TIFF only the tiles under a window are decoded; other files are decoded once, whole.
    """
    shape = image_size(path, max_megapixels=max_megapixels)
    kept: list[UInt8] = []

    def read() -> UInt8:
        if not kept:
            kept.append(load(path, max_megapixels=max_megapixels))
        return kept[0]

    return Image(shape, scale, um_per_px, read, _tile_reader(path))


def image_size(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(height, width) from the header alone; raises for a file that is no image or is over the pixel
    limit."""
    try:
        if path.suffix.lower() in _TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tif:
                height, width = _tiff_plane(tif.series[0].shape)
        else:
            with _pillow(path, max_megapixels) as opened:
                width, height = opened.size
    except _check.InputError:
        raise
    except FileNotFoundError:
        raise _check.problem(f"image {path} is missing", cure="give the path of an existing image") from None
    except Exception as error:  # decoders raise many kinds; all mean: not a readable image
        raise _unreadable(path, error) from error
    if height * width > max_megapixels * 1e6:
        raise _too_large(path, max_megapixels, f"{width} x {height} = {height * width / 1e6:.3g} megapixels")
    return height, width


def load(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8:
    """The decoded image, uint8 [height, width, 3]."""
    image_size(path, max_megapixels=max_megapixels)
    try:
        if path.suffix.lower() in _TIFF:
            return _load_tiff(path, max_megapixels)
        with _pillow(path, max_megapixels) as opened:
            return _pillow_rgb(opened)
    except Exception as error:  # see image_size
        raise _unreadable(path, error) from error


def preview(path: Path, *, longest: int, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8:
    """The image reduced so that its long side has at most ``longest`` pixels, uint8 [height, width, 3]."""
    from PIL import Image as PILImage

    height, width = image_size(path, max_megapixels=max_megapixels)
    factor = min(1.0, longest / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    try:
        if path.suffix.lower() in _TIFF:
            pixels = _load_tiff(path, max_megapixels)
        else:
            with _pillow(path, max_megapixels) as opened:
                opened.draft(
                    "RGB", size
                )  # JPEG: decoded at a half, a quarter or an eighth, still above the size wanted
                pixels = _pillow_rgb(opened)
    except Exception as error:  # see image_size
        raise _unreadable(path, error) from error
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(PILImage.fromarray(pixels).resize(size, PILImage.Resampling.BOX))


@contextmanager
def _pillow(path: Path, max_megapixels: float) -> Iterator[Any]:
    """An opened Pillow image, with our pixel limit in place of Pillow's own (which refuses 179 megapixels and
    more)."""
    from PIL import Image as PILImage

    with _pillow_lock:
        before = PILImage.MAX_IMAGE_PIXELS
        PILImage.MAX_IMAGE_PIXELS = max(1, int(max_megapixels * 1e6))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", PILImage.DecompressionBombWarning
                )  # just over the limit: checked by callers
                with PILImage.open(path) as opened:
                    yield opened
        except PILImage.DecompressionBombError:
            raise _too_large(path, max_megapixels, "more than twice as many") from None
        finally:
            PILImage.MAX_IMAGE_PIXELS = before


def _pillow_rgb(opened: Any) -> UInt8:
    if opened.mode in ("I;16", "I", "F"):
        return to_rgb8(np.asarray(opened))
    mode = "RGBA" if opened.has_transparency_data else "RGB"
    opened.load()
    width, height = opened.size
    out = np.empty((height, width, 3), dtype=np.uint8)
    for y in range(0, height, _BAND_PX):  # by bands: converting a whole scan at once holds it three times over
        band = opened.crop((0, y, width, min(y + _BAND_PX, height)))
        out[y : y + _BAND_PX] = to_rgb8(np.asarray(band.convert(mode)))
    return out


def _load_tiff(path: Path, max_megapixels: float) -> UInt8:
    import tifffile

    with tifffile.TiffFile(path) as tif:
        page = tif.series[0].keyframe
        if page is not None and page.compression.name not in ("NONE", "ADOBE_DEFLATE", "DEFLATE") and not _has_codecs():
            # LZW and JPEG need the package imagecodecs in tifffile; Pillow's libtiff has them built in
            with _pillow(path, max_megapixels) as opened:
                return _pillow_rgb(opened)
        short = (
            page is not None and max(o + n for o, n in zip(page.dataoffsets, page.databytecounts)) > path.stat().st_size
        )
        if short:
            raise ValueError("the file ends before its pixels do")
        return to_rgb8(_channels_last(tif.series[0].asarray()))


def _has_codecs() -> bool:
    from importlib.util import find_spec

    return find_spec("imagecodecs") is not None


def _tile_reader(path: Path) -> Callable[[int, int, int, int], UInt8] | None:
    """A reader of parts of a TIFF whose 8-bit pixels lie in tiles or narrow strips; None for other files."""
    if path.suffix.lower() not in _TIFF:
        return None
    import tifffile

    with tifffile.TiffFile(path) as tif:
        page = tif.series[0].keyframe
        plain = page.dtype == np.uint8 and page.imagedepth == 1 and page.ndim in (2, 3) and page.planarconfig == 1
        small = len(page.dataoffsets) >= 16 and page.photometric.name in ("RGB", "MINISBLACK")
        known = page.compression.name in ("NONE", "ADOBE_DEFLATE", "DEFLATE") or _has_codecs()
        if not (plain and small and known and len(tif.series[0].pages) == 1 and page.samplesperpixel in (1, 3, 4)):
            return None
        places = list(zip(page.dataoffsets, page.databytecounts))
        return _Tiles(path, page, places)


class _Tiles:
    """Parts of a tiled TIFF: the tiles under a window are decoded, the last ones are kept."""

    def __init__(self, path: Path, page: Any, places: list[tuple[int, int]]) -> None:
        self.path, self.page, self.places = path, page, places
        self.tile_height, self.tile_width = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        )
        self.n_across = -(-page.imagewidth // self.tile_width)
        self.kept: OrderedDict[int, UInt8] = OrderedDict()
        self.lock = threading.Lock()

    def __call__(self, y0: int, x0: int, y1: int, x1: int) -> UInt8:
        out = np.empty((y1 - y0, x1 - x0, 3), dtype=np.uint8)
        for row in range(y0 // self.tile_height, (y1 - 1) // self.tile_height + 1):
            for column in range(x0 // self.tile_width, (x1 - 1) // self.tile_width + 1):
                top, left = row * self.tile_height, column * self.tile_width
                tile = self._tile(row * self.n_across + column)
                a, b = max(y0, top), min(y1, top + tile.shape[0])
                c, d = max(x0, left), min(x1, left + tile.shape[1])
                out[a - y0 : b - y0, c - x0 : d - x0] = tile[a - top : b - top, c - left : d - left]
        return out

    def _tile(self, index: int) -> UInt8:
        with self.lock:
            if index in self.kept:
                self.kept.move_to_end(index)
                return self.kept[index]
        try:
            tile = self._decode(index)
        except Exception as error:  # see image_size
            raise _unreadable(self.path, error) from error
        with self.lock:
            self.kept[index] = tile
            while len(self.kept) * tile.nbytes > _TILE_CACHE_BYTES and len(self.kept) > 1:
                self.kept.popitem(last=False)
        return tile

    def _decode(self, index: int) -> UInt8:
        offset, n_bytes = self.places[index]
        with self.path.open("rb") as file:
            file.seek(offset)
            raw = file.read(n_bytes)
        if len(raw) < n_bytes:
            raise ValueError("the file ends before its pixels do")
        pixels, _, shape = self.page.decode(raw if n_bytes else None, index, jpegtables=self.page.jpegtables)
        if pixels is None:  # an empty tile, as sparse TIFFs have
            return np.full((*shape[1:3], 3), self.page.nodata, dtype=np.uint8)
        tile = pixels[0, : shape[1], : shape[2]]
        return to_rgb8(tile[..., 0] if tile.shape[-1] == 1 else tile)


def _too_large(path: Path, max_megapixels: float, found: str) -> _check.InputError:
    return _check.problem(
        f"image {path.name} is over the limit of {max_megapixels:g} megapixels",
        found=found,
        cure="raise the limit with --max-megapixels (max_megapixels=) if you trust the file",
    )


def _unreadable(path: Path, error: Exception) -> _check.InputError:
    if isinstance(error, _check.InputError):
        return error
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
        laid: UInt8 = (a[:, :, :3] * alpha + 255.0 * (1 - alpha)).round().astype(np.uint8)
        return laid
    return np.ascontiguousarray(a[:, :, :3])
