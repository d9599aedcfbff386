"""The image handle: sizes and limits from headers, decoding, previews, and windows read tile by tile."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from smeld import _image, _image_pixels
from smeld._check import InputError


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels == 1 else (height, width, channels)
    return rng.integers(0, 256, shape, dtype=np.uint8)


def huge_png(path: Path, width: int, height: int) -> None:
    """A PNG whose header promises width x height pixels, and nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


TIFFS = {
    "tiled": {"photometric": "rgb", "tile": (64, 48)},
    "tiled deflate": {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"},
    "tiled predictor": {"photometric": "rgb", "tile": (64, 64), "compression": "zlib", "predictor": False},
    "strips": {"photometric": "rgb", "rowsperstrip": 8},
    "one strip": {"photometric": "rgb"},
    "planes": {"photometric": "rgb", "planarconfig": "separate", "tile": (64, 64)},
}


@pytest.mark.parametrize("form", TIFFS)
def test_every_tiff_gives_its_pixels(tmp_path: Path, form: str) -> None:
    pixels = noise(230, 310)
    stored = np.moveaxis(pixels, -1, 0) if form == "planes" else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, **TIFFS[form])
    image = _image.open_image(tmp_path / "a.tif", scale=1, um_per_px=0.5)
    assert image.shape == (230, 310)
    assert np.array_equal(image.pixels(), pixels)
    assert np.array_equal(image.window(100, 20, 90, 250), pixels[100:190, 20:270])


@given(
    top=st.integers(-80, 260), left=st.integers(-80, 340),
    height=st.integers(1, 150), width=st.integers(1, 150),
    form=st.sampled_from(["tiled", "tiled deflate", "strips"]), channels=st.sampled_from([1, 3, 4]),
)  # fmt: skip
def test_windows_read_by_tiles_equal_those_of_the_whole(
    tmp_path_factory, top, left, height, width, form, channels
) -> None:
    path = tmp_path_factory.mktemp("tiles") / "a.tif"
    options = TIFFS[form] | ({"photometric": "minisblack"} if channels == 1 else {})
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    tifffile.imwrite(path, noise(230, 310, channels), **options, **extra)
    by_tiles = _image.open_image(path, scale=1, um_per_px=1)
    whole = _image.from_array(by_tiles.pixels(), scale=1, um_per_px=1)
    assert by_tiles._part is not None
    assert np.array_equal(by_tiles.window(top, left, height, width), whole.window(top, left, height, width))


def test_windows_decode_only_the_tiles_under_them(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(640, 640), photometric="rgb", tile=(64, 64), compression="zlib")
    image = _image.open_image(tmp_path / "a.tif", scale=1, um_per_px=1)
    image.window(100, 100, 50, 50)
    assert isinstance(image._part, _image_pixels.Chunks)
    assert len(image._part.kept) == 4


def test_tile_cache_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(640, 640), photometric="rgb", tile=(64, 64))
    monkeypatch.setattr(_image_pixels, "CACHE_BYTES", 10 * 64 * 64 * 3)
    image = _image.open_image(tmp_path / "a.tif", scale=1, um_per_px=1)
    assert np.array_equal(image.window(0, 0, 640, 640), noise(640, 640))
    assert isinstance(image._part, _image_pixels.Chunks)
    assert len(image._part.kept) == 10


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_adobe_deflate"])
def test_compressions_that_tifffile_alone_cannot_read(tmp_path: Path, compression: str) -> None:
    pixels = np.repeat(np.repeat(noise(12, 10), 16, axis=0), 16, axis=1)
    PILImage.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    read = _image.load(tmp_path / "a.tif")
    assert np.abs(read.astype(int) - pixels).mean() < (6 if compression == "jpeg" else 1e-9)
    window = _image.open_image(tmp_path / "a.tif", scale=1, um_per_px=1).window(3, 5, 20, 20)
    assert np.array_equal(window, read[3:23, 5:25])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "tiled.tif", "strips.tif", "lzw.tif"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_truncated_images(tmp_path: Path, name: str, share: float) -> None:
    path, pixels = tmp_path / name, noise(300, 400)
    if name == "lzw.tif":
        PILImage.fromarray(pixels).save(path, compression="tiff_lzw")
    elif name.endswith("tif"):
        tifffile.imwrite(path, pixels, **TIFFS[name[:-4]])
    else:
        PILImage.fromarray(pixels).save(path)
    assert _image.load(path).shape == (300, 400, 3)  # the good twin
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match=rf"{name} cannot be decoded"):
        _image.load(path)
    with pytest.raises(InputError, match=rf"{name} cannot be decoded"):
        _image.preview(path, longest=50)
    with pytest.raises(InputError, match=rf"{name} cannot be decoded"):
        _image.open_image(path, scale=1, um_per_px=1).window(250, 0, 50, 400)


def test_limit_is_ours_and_is_raised_by_option(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    huge_png(path, 20_000, 20_000)  # 400 megapixels: Pillow alone refuses from 179
    assert _image.image_size(path) == (20_000, 20_000)
    huge_png(path, 30_000, 20_000)
    with pytest.raises(InputError, match="over the limit of 500 megapixels; found: 30000 x 20000"):
        _image.image_size(path)
    assert _image.image_size(path, max_megapixels=700) == (20_000, 30_000)
    huge_png(path, 200_000, 200_000)
    with pytest.raises(InputError, match=r"over the limit.*--max-megapixels"):
        _image.load(path)
    assert PILImage.MAX_IMAGE_PIXELS == 89_478_485  # Pillow's own limit is as it was


def test_tiff_limit(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(200, 300), photometric="rgb")
    with pytest.raises(InputError, match="over the limit"):
        _image.open_image(tmp_path / "a.tif", scale=1, um_per_px=1, max_megapixels=0.05)
    assert _image.load(tmp_path / "a.tif", max_megapixels=0.06).shape == (200, 300, 3)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif"])
def test_preview_is_the_area_mean(tmp_path: Path, name: str) -> None:
    small = noise(30, 40)
    pixels = np.repeat(np.repeat(small, 16, axis=0), 16, axis=1)
    options = {"quality": 98, "subsampling": 0} if name.endswith("jpg") else {}
    PILImage.fromarray(pixels).save(tmp_path / name, **options)
    preview = _image.preview(tmp_path / name, longest=40)
    assert preview.shape == (30, 40, 3)
    assert np.abs(preview.astype(int) - small).mean() < 3
    assert _image.preview(tmp_path / name, longest=5000).shape == pixels.shape


def test_alpha_is_laid_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[:4, :, 3] = 255  # the upper half is black, the lower half clear
    PILImage.fromarray(rgba).save(tmp_path / "a.png")
    read = _image.load(tmp_path / "a.png")
    assert (read[:4] == 0).all()
    assert (read[4:] == 255).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.uint8])
def test_grey_of_any_type_becomes_rgb8(dtype: type) -> None:
    grey = np.linspace(0, 1, 12).reshape(3, 4)
    stored = (grey * {np.uint16: 65535, np.uint8: 255}.get(dtype, 1)).astype(dtype)
    rgb = _image.to_rgb8(stored)
    assert rgb.shape == (3, 4, 3)
    assert np.abs(rgb[..., 0] - grey * 255).max() <= 1.01


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        _image.image_size(tmp_path / "no.png")
    with pytest.raises(InputError, match="is missing"):
        _image.image_size(tmp_path / "no.tif")
