"""Tissue images behind one small handle: pyramids are never read whole, windows are read on demand, and the number of
pixels that are decoded is always limited."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smeld import _check, _image_tiff, _image_zarr
from smeld._image_pixels import Chunks, EightBit, Stored, UInt8, pillow, to_rgb8, too_large, unreadable

#: default pixel limit; a full Visium scan has 100-400 megapixels. Raised by option, never switched off.
MAX_MEGAPIXELS = 500.0
#: what is looked at to know a section has about this many pixels on its long side
OVERVIEW_PX = 2000
#: a stored resolution may be coarser than asked by this share: scanners' nominal pixel sizes are no more precise
TOLERANCE = 0.01
_BAND_PX = 512
#: planes with more pixels are reduced band by band
_BANDS_ABOVE_PX = 64e6

Part = Callable[[int, int, int, int], UInt8]  # (y0, x0, y1, x1) inside the image


@dataclass(frozen=True)
class Coarser:
    """A stored resolution: ``reduction`` pixels of the finest one make a pixel; ``shape`` is (height, width)."""

    reduction: float
    shape: tuple[int, int]
    part: Part


@dataclass(frozen=True, eq=False)
class Image:
    """An RGB image of which windows can be read.

    ``shape`` is (height, width) in pixels; ``scale`` the pixels per unit of ``obsm["spatial"]``; ``um_per_px`` the size
    of a pixel in micrometres (NaN if unknown). ``affine`` [2, 3] takes (x, y, 1) in units of ``obsm["spatial"]`` to
    pixels of the finest resolution where the image is registered by more than a scale. ``reduction``: pixels of the
    finest resolution on a side of a pixel of this handle.
    """

    shape: tuple[int, int]
    scale: float
    um_per_px: float
    _read: Callable[[], UInt8]
    _part: Part | None = None  # where that is cheap
    affine: NDArray[np.float64] | None = None
    reduction: float = 1.0
    _coarser: tuple[Coarser, ...] = ()
    _max_px: float = np.inf

    @property
    def levels(self) -> tuple[float, ...]:
        """The reductions that are stored, finest first."""
        return self.reduction, *(level.reduction for level in self._coarser)

    def at(self, reduce: float) -> Image:
        """The coarsest stored resolution that is at least as fine as ``reduce`` pixels of this one make."""
        fine = [level for level in self._coarser if level.reduction <= reduce * (1 + TOLERANCE)]
        if not fine:
            return self
        level = fine[-1]
        by, part, limit = level.reduction, level.part, self._max_px
        return Image(
            level.shape,
            self.scale / by,
            self.um_per_px * by,
            lambda: _whole(part, level.shape, limit),
            part,
            affine=self.affine,
            reduction=by,
            _max_px=limit,
        )

    def place(self, xy: ArrayLike) -> NDArray[np.float64]:
        """Positions [n, 2] (x, y) in units of ``obsm["spatial"]`` as pixels of this handle, whose first pixel has its
        centre at 0, 0."""
        given = np.asarray(xy, dtype=np.float64)
        if self.affine is None:
            full = given * (self.scale if self.reduction == 1.0 else self.scale * self.reduction)
        else:
            # by hand: sums of a matrix product depend on the machine
            (a, b, c), (d, e, f) = self.affine
            full = np.stack([a * given[:, 0] + b * given[:, 1] + c, d * given[:, 0] + e * given[:, 1] + f], axis=1)
        return self.reduced(full)

    def reduced(self, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixel positions [n, 2] of the finest resolution as pixels of this handle."""
        return xy_px if self.reduction == 1.0 else (xy_px + 0.5) / self.reduction - 0.5

    def pixels(self) -> UInt8:
        """The whole image, uint8 [height, width, 3]; decoded once and kept."""
        return self._read()

    def window(
        self, top: int, left: int, height: int, width: int, fill: int = 255, *, reduce: float | None = None
    ) -> UInt8:
        """uint8 [height, width, 3]; what lies outside the image is ``fill``.

        With ``reduce`` the window, still given in pixels of this handle, comes from the coarsest stored resolution that
        is at least as fine as that many of them make, and is that much smaller: see ``at(reduce).reduction``.
        """
        if reduce is not None:
            level = self.at(reduce)
            by = level.reduction / self.reduction
            sizes = max(1, round(height / by)), max(1, round(width / by))
            return level.window(round(top / by), round(left / by), *sizes, fill)
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


def open_image(
    path: Path,
    *,
    scale: float,
    um_per_px: float,
    max_megapixels: float = MAX_MEGAPIXELS,
    affine: NDArray[np.float64] | None = None,
) -> Image:
    """An ``Image`` over a file or an OME-Zarr folder. What it holds is read and checked now; pixels are decoded on use.

    Of TIFF and OME-Zarr only the tiles, strips or chunks under a window are decoded, at any stored resolution; other
    files are decoded once, whole.
    """
    path = image_file(path)
    found = _stored(path, max_megapixels)
    if found is None:
        shape = image_size(path, max_megapixels=max_megapixels)
        return Image(shape, scale, um_per_px, _once(lambda: load(path, max_megapixels=max_megapixels)), affine=affine)
    to_8bit = EightBit(found[-1])
    parts = [Chunks(path, level, to_8bit) for level in found]
    coarser = tuple(Coarser(s.reduction, s.shape, part) for s, part in zip(found[1:], parts[1:]))
    limit = max_megapixels * 1e6
    whole = _once(lambda: _whole(parts[0], found[0].shape, limit, path.name))
    return Image(found[0].shape, scale, um_per_px, whole, parts[0], affine, 1.0, coarser, limit)


def _once(read: Callable[[], UInt8]) -> Callable[[], UInt8]:
    kept: list[UInt8] = []

    def first() -> UInt8:
        if not kept:
            kept.append(read())
        return kept[0]

    return first


def _whole(part: Part, shape: tuple[int, int], limit: float, name: str = "") -> UInt8:
    if shape[0] * shape[1] > limit:
        raise too_large(Path(name), limit / 1e6, _megapixels(shape))
    return part(0, 0, *shape)


def image_file(path: Path) -> Path:
    """The image that a path stands for: a file, an OME-Zarr folder, or the nuclear stain in a folder of channels."""
    if not path.is_dir() or _image_zarr.is_group(path):
        return path
    files = sorted(p for p in path.iterdir() if p.suffix.lower() in _image_tiff.SUFFIXES)
    if not files:
        cure = "give an image file, an OME-Zarr folder, or a folder of TIFF channels"
        raise _check.problem(f"folder {path.name} holds no image", found=_check.listed(path.iterdir(), 3), cure=cure)
    return next((p for p in files if "dapi" in p.name.lower()), files[0])


def is_image(path: Path) -> bool:
    """True for an existing file or OME-Zarr folder; what is in it is not looked at."""
    return path.is_file() or _image_zarr.is_group(path)


def image_size(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(height, width) from the header alone; raises for what is no image or is over the pixel limit.

    The limit is on what has to be decoded: of files with several resolutions the one that an overview takes, and the
    largest tile; of others the whole.
    """
    path = image_file(path)
    found = _stored(path, max_megapixels)
    if found is not None:
        return found[0].shape
    try:
        with _pillow(path, max_megapixels) as opened:
            width, height = opened.size
    except _check.InputError:
        raise
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # decoders raise many kinds; all mean: not a readable image
        raise unreadable(path, error) from error
    if height * width > max_megapixels * 1e6:
        raise too_large(path, max_megapixels, _megapixels((height, width)))
    return height, width


def _megapixels(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]} = {shape[0] * shape[1] / 1e6:.3g} megapixels"


def _missing(path: Path) -> _check.InputError:
    return _check.problem(f"image {path} is missing", cure="give the path of an existing image")


def _stored(path: Path, max_megapixels: float) -> list[Stored] | None:
    """The resolutions of a file that can be read in parts, finest first; None for others."""
    try:
        if path.is_dir():
            found: list[Stored] | None = _image_zarr.levels(path)
        else:
            found = _image_tiff.levels(path) if path.suffix.lower() in _image_tiff.SUFFIXES else None
    except FileNotFoundError:
        raise _missing(path) from None
    except Exception as error:  # see image_size
        raise unreadable(path, error) from error
    if found is None:
        return None
    overview = _sufficient(found, OVERVIEW_PX)
    for shape in [overview.shape, *(level.chunk for level in found)]:
        if shape[0] * shape[1] > max_megapixels * 1e6:
            raise too_large(path, max_megapixels, _megapixels(shape))
    return found


def _sufficient(levels: list[Stored], longest: int) -> Stored:
    """The coarsest resolution whose long side has ``longest`` pixels; the finest where none has."""
    return next((level for level in reversed(levels) if max(level.shape) >= longest), levels[0])


def load(path: Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8:
    """The decoded image at its finest resolution, uint8 [height, width, 3]."""
    path = image_file(path)
    found = _stored(path, max_megapixels)
    if found is not None:
        return _whole(Chunks(path, found[0], EightBit(found[-1])), found[0].shape, max_megapixels * 1e6, path.name)
    image_size(path, max_megapixels=max_megapixels)
    try:
        with _pillow(path, max_megapixels) as opened:
            return _pillow_rgb(opened)
    except Exception as error:  # see image_size
        raise unreadable(path, error) from error


def preview(path: Path, *, longest: int, max_megapixels: float = MAX_MEGAPIXELS) -> UInt8:
    """The image reduced so that its long side has at most ``longest`` pixels, uint8 [height, width, 3], from the
    coarsest stored resolution that suffices."""
    from PIL import Image as PILImage

    path = image_file(path)
    height, width = image_size(path, max_megapixels=max_megapixels)
    factor = min(1.0, longest / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    found = _stored(path, max_megapixels)
    try:
        if found is not None:
            level = _sufficient(found, max(size))
            _check_decoded(path, level.shape, max_megapixels)
            pixels = _banded(Chunks(path, level, EightBit(found[-1])), level.shape, max(size))
        else:
            with _pillow(path, max_megapixels) as opened:
                # JPEG: decoded at a half, a quarter or an eighth, still above the size wanted
                opened.draft("RGB", size)
                pixels = _pillow_rgb(opened)
    except Exception as error:  # see image_size
        raise unreadable(path, error) from error
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    return np.asarray(PILImage.fromarray(pixels).resize(size, PILImage.Resampling.BOX))


def _check_decoded(path: Path, shape: tuple[int, int], max_megapixels: float) -> None:
    if shape[0] * shape[1] > max_megapixels * 1e6:
        raise too_large(path, max_megapixels, _megapixels(shape))


def _banded(part: Part, shape: tuple[int, int], longest: int) -> UInt8:
    """A plane, or, where it is large, its block means that still have twice ``longest`` pixels; band by band."""
    from PIL import Image as PILImage

    by = max(shape) // (2 * longest)
    if shape[0] * shape[1] <= _BANDS_ABOVE_PX or by < 2:
        return part(0, 0, *shape)
    step = by * max(1, _BAND_PX // by)
    bands = (part(y, 0, min(y + step, shape[0]), shape[1]) for y in range(0, shape[0], step))
    return np.concatenate([np.asarray(PILImage.fromarray(band).reduce(by)) for band in bands])


@contextmanager
def _pillow(path: Path, max_megapixels: float) -> Iterator[Any]:
    """An opened Pillow image, with our pixel limit in place of Pillow's own (which refuses 179 megapixels and
    more)."""
    from PIL import Image as PILImage

    try:
        with pillow(path, int(max_megapixels * 1e6)) as opened:
            yield opened
    except PILImage.DecompressionBombError:
        raise too_large(path, max_megapixels, "more than twice as many") from None


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
