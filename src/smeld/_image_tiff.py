"""TIFF as a pyramid of chunks: tiles and strips, SubIFDs, reduced pages, OME-TIFF, planes of channels and depths.

Of several channels the first is shown (three 8-bit ones are red, green and blue), of several depths the middle one.
tifffile reads the structure; LZW, JPEG and JPEG 2000, for which it needs another package, are decoded by Pillow.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from smeld._image_pixels import Raw, Stored, pillow, pyramid, reduction

SUFFIXES = {".tif", ".tiff", ".btf", ".svs", ".ndpi"}
#: compressions that tifffile decodes alone
_OWN = {"NONE", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA"}
#: compressions that libtiff, built into Pillow, decodes
_LIBTIFF = {"LZW", "JPEG"}
_JPEG2000 = {"JPEG2000", "APERIO_JP2000_YCBC", "APERIO_JP2000_RGB"}
#: uncompressed rows are read in pieces of about this many bytes
_PIECE_BYTES = 1 << 20


def levels(path: Path) -> list[Stored] | None:
    """The resolutions of a TIFF, finest first; None for kinds that Pillow has to read whole (palettes, ink ...).

    Raises what tifffile raises for a broken file, ``ValueError`` for one that ends before its pixels do.
    """
    import tifffile

    # the planes of a set of files are those of this file alone
    with tifffile.TiffFile(path, _multifile=False) as tif:
        series = tif.series[0]
        index, n_planes = _plane(series)
        found = [_pages(level, index, n_planes) for level in series.levels]
        if len(found) == 1:
            found += [_pages(s, index, n_planes) for s in tif.series[1:] if _is_reduced(s, series)]
    if any(not _is_plain(page) for pages in found for page in pages):
        return None
    for pages in found:
        _check_ends(pages, path.stat().st_size)
    return pyramid([_stored(path, pages) for pages in found])


def _plane(series: Any) -> tuple[int, int]:
    """(number of the page to show, how many make its colours)."""
    leading = [(a, int(n)) for a, n in zip(series.axes, series.shape) if a not in "YXS"]
    key = series.keyframe
    n_pages = math.prod(n for _, n in leading)
    is_grey = "S" not in series.axes and key.samplesperpixel == 1
    if is_grey and n_pages == 3 and key.dtype == np.uint8 and not {a for a, n in leading if n > 1} & {"Z", "T"}:
        return 0, 3
    index = 0
    for axis, n in leading:
        index = index * n + (n // 2 if axis == "Z" else 0)
    return index, 1


def _pages(series: Any, index: int, n: int) -> list[Any]:
    """``n`` pages from ``index`` on; those of other files of a set are not there."""
    pages = list(series.pages)
    chosen = pages[index : index + n] if index + n <= len(pages) else pages[:n]
    if len(chosen) < n or any(page is None for page in chosen):
        chosen = [page for page in pages if page is not None][:1]
    if not chosen:
        raise ValueError("no page of this file holds the image")
    return chosen


def _is_reduced(series: Any, of: Any) -> bool:
    """True for a smaller copy of the first series, stored as pages of its own."""
    if series.axes != of.axes or series.dtype != of.dtype or series.keyframe is None:
        return False
    small, full = series.keyframe, of.keyframe
    by = reduction((full.imagelength, full.imagewidth), (small.imagelength, small.imagewidth))
    return by is not None and by > 1.5 and small.samplesperpixel == full.samplesperpixel


def _is_plain(page: Any) -> bool:
    key = page.keyframe
    known = key.photometric.name in ("RGB", "MINISBLACK") or (
        key.photometric.name == "YCBCR" and key.compression.name == "JPEG"
    )
    deep = key.imagedepth == 1 and key.dtype is not None and key.dtype.kind in "uif" and key.bitspersample >= 8
    return bool(known and deep)


def _check_ends(pages: Sequence[Any], size: int) -> None:
    for page in pages:
        if max((o + n for o, n in zip(page.dataoffsets, page.databytecounts)), default=0) > size:
            raise ValueError("the file ends before its pixels do")


def _stored(path: Path, pages: Sequence[Any]) -> Stored:
    key = pages[0].keyframe
    shape = (int(key.imagelength), int(key.imagewidth))
    if _has_plain_rows(pages):
        n_rows = max(1, min(_PIECE_BYTES // (shape[1] * key.samplesperpixel * key.dtype.itemsize), shape[0]))
        return Stored(shape, (n_rows, shape[1]), _stacked([partial(_rows, path, page, n_rows) for page in pages]))
    chunk = (key.tilelength, key.tilewidth) if key.is_tiled else (min(key.rowsperstrip, shape[0]), shape[1])
    return Stored(shape, (int(chunk[0]), int(chunk[1])), _stacked([partial(_segment, path, page) for page in pages]))


def _stacked(planes: list[Callable[[int, int], Raw]]) -> Callable[[int, int], Raw]:
    if len(planes) == 1:
        return planes[0]
    return lambda row, column: np.stack([plane(row, column) for plane in planes], axis=-1)


def _has_plain_rows(pages: Sequence[Any]) -> bool:
    """True for uncompressed rows that lie one after the other."""
    key = pages[0].keyframe
    whole = key.compression.name == "NONE" and not key.is_tiled and key.predictor == 1 and key.fillorder == 1
    single = key.planarconfig == 1 or key.samplesperpixel == 1
    joined = all(
        o + n == later
        for page in pages
        for o, n, later in zip(page.dataoffsets, page.databytecounts, page.dataoffsets[1:])
    )
    return whole and single and joined and key.bitspersample == key.dtype.itemsize * 8


def _rows(path: Path, page: Any, n_rows: int, row: int, _: int) -> Raw:
    key = page.keyframe
    n = min(n_rows, key.imagelength - row * n_rows)
    per_row = key.imagewidth * key.samplesperpixel * key.dtype.itemsize
    raw = _read(path, page.dataoffsets[0] + row * n_rows * per_row, n * per_row)
    pixels = np.frombuffer(raw, dtype=key.dtype.newbyteorder(key.parent.byteorder))
    pixels = pixels.reshape(n, key.imagewidth, key.samplesperpixel).astype(key.dtype, copy=False)
    return _colours(pixels, key)


def _read(path: Path, offset: int, n_bytes: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(n_bytes)
    if len(raw) < n_bytes:
        raise ValueError("the file ends before its pixels do")
    return raw


def _segment(path: Path, page: Any, row: int, column: int) -> Raw:
    """One tile or strip; of planes stored apart, all that make the colour."""
    key = page.keyframe
    across = -(-key.imagewidth // key.tilewidth) if key.is_tiled else 1
    down = -(-key.imagelength // (key.tilelength if key.is_tiled else key.rowsperstrip))
    apart = key.planarconfig == 2 and key.samplesperpixel > 1
    planes = range(key.samplesperpixel if apart and key.photometric.name == "RGB" else 1)
    parts = [_decoded(path, page, plane * across * down + row * across + column) for plane in planes]
    pixels = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return _colours(pixels, key)


def _colours(pixels: Raw, key: Any) -> Raw:
    """[h, w, 3 or 4] of colours, [h, w] of the first of other channels."""
    coloured = pixels.shape[-1] in (3, 4) and key.photometric.name in ("RGB", "YCBCR")
    return pixels if coloured else pixels[..., 0]


def _decoded(path: Path, page: Any, index: int) -> Raw:
    """[h, w, samples] of a segment, by tifffile or by Pillow."""
    key = page.keyframe
    raw = _read(path, page.dataoffsets[index], page.databytecounts[index])
    if not raw:  # an empty tile, as sparse TIFFs have
        height = key.tilelength if key.is_tiled else min(key.rowsperstrip, key.imagelength)
        width = key.tilewidth if key.is_tiled else key.imagewidth
        return np.full((height, width, key.samplesperpixel if key.planarconfig == 1 else 1), key.nodata, key.dtype)
    name = key.compression.name
    if name in _JPEG2000:
        return _by_pillow(raw, key)
    if name in _LIBTIFF or (name not in _OWN and find_spec("imagecodecs") is None):
        return _by_pillow(_one_segment(key, raw, index), key)
    pixels, _, shape = key.decode(raw, index, jpegtables=page.jpegtables)
    return np.asarray(pixels[0, : shape[1], : shape[2]])


def _by_pillow(raw: bytes, key: Any) -> Raw:
    height, width = (key.tilelength, key.tilewidth) if key.is_tiled else (key.rowsperstrip, key.imagewidth)
    with pillow(io.BytesIO(raw), int(height) * int(width)) as opened:
        if key.compression.name == "APERIO_JP2000_YCBC" and opened.mode == "RGB":
            return _from_luma(np.asarray(opened))
        pixels = np.asarray(opened)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _from_luma(pixels: Raw) -> Raw:
    """Luma and two chromas, which the codestream does not name, as RGB."""
    from PIL import Image as PILImage

    planes = [PILImage.fromarray(np.ascontiguousarray(pixels[..., k])) for k in range(3)]
    return np.asarray(PILImage.merge("YCbCr", planes).convert("RGB"))


def _one_segment(key: Any, raw: bytes, index: int) -> bytes:
    """A TIFF of this one tile or strip, as compressed as it is."""
    if key.is_tiled:
        height, width = key.tilelength, key.tilewidth
    else:
        n_strips = -(-key.imagelength // key.rowsperstrip)
        height = min(key.rowsperstrip, key.imagelength - index % n_strips * key.rowsperstrip)
        width = key.imagewidth
    samples = key.samplesperpixel if key.planarconfig == 1 else 1
    photometric = int(key.photometric) if samples > 1 else 1
    tags: dict[int, tuple[str, list[int] | bytes]] = {
        256: ("I", [width]), 257: ("I", [height]), 258: ("H", [key.bitspersample] * samples),
        259: ("H", [int(key.compression)]), 262: ("H", [photometric]), 277: ("H", [samples]), 278: ("I", [height]),
        279: ("I", [len(raw)]), 284: ("H", [1]), 317: ("H", [int(key.predictor)]),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[key.dtype.kind]] * samples),
    }  # fmt: skip
    if samples == 4:
        tags[338] = ("H", [int(v) for v in key.extrasamples] or [0])
    if key.jpegtables:
        tags[347] = ("B", bytes(key.jpegtables))
    if photometric == 6:
        tags[530] = ("H", [int(v) for v in key.subsampling or (2, 2)])
    return _tiff(tags, raw, key.parent.byteorder)


def _tiff(tags: dict[int, tuple[str, list[int] | bytes]], raw: bytes, order: str) -> bytes:
    """A TIFF of one strip: header, directory, long values, pixels (of which tag 273 is added here)."""
    kinds = {"B": 7, "H": 3, "I": 4}
    tags = tags | {273: ("I", [0])}
    packed = {
        code: (kind, len(v), bytes(v) if isinstance(v, bytes) else struct.pack(f"{order}{len(v)}{kind}", *v))
        for code, (kind, v) in tags.items()
    }
    end = 8 + 2 + 12 * len(packed) + 4
    extra = b""
    places: dict[int, bytes] = {}
    for code, (_, _, value) in packed.items():
        if len(value) > 4:
            places[code] = struct.pack(order + "I", end + len(extra))
            extra += value + b"\0" * (len(value) % 2)
        else:
            places[code] = value.ljust(4, b"\0")
    places[273] = struct.pack(order + "I", end + len(extra))
    entries = b"".join(
        struct.pack(order + "HHI", code, kinds[packed[code][0]], packed[code][1]) + places[code]
        for code in sorted(packed)
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return head + struct.pack(order + "H", len(packed)) + entries + b"\0\0\0\0" + extra + raw
