"""Pyramids: TIFF with SubIFDs, reduced pages or planes, OME-Zarr; what is decoded, and how channels are shown."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from scipy import ndimage

import smeld as sm
from smeld import _image, _image_pixels, _image_tiff
from smeld._check import InputError
from smeld.kernels import tiles
from smeld.morph import _plan

RGB = {"photometric": "rgb", "tile": (64, 64)}


def smooth(height: int, width: int, seed: int = 100) -> np.ndarray:
    """Blurred noise over the whole range of values, uint8 [height, width, 3]."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3))
    field = ndimage.gaussian_filter(noise, (3, 3, 0))
    return np.clip(127 + 300 * field / field.std() / 6, 0, 255).astype(np.uint8)


def boxed(pixels: np.ndarray, by: int) -> np.ndarray:
    """Block means; rows and columns that make no whole block are left out, as writers of pyramids do."""
    rows, columns = pixels.shape[0] // by, pixels.shape[1] // by
    cut = pixels[: rows * by, : columns * by].astype(float)
    mean = cut.reshape(rows, by, columns, by, *pixels.shape[2:]).mean(axis=(1, 3))
    return mean.round().astype(pixels.dtype)


def write_subifds(path: Path, pixels: np.ndarray, by: tuple[int, ...] = (2, 4, 8)) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(pixels, subifds=len(by), compression="zlib", **RGB)
        for n in by:
            tif.write(boxed(pixels, n), subfiletype=1, compression="zlib", **RGB)


def write_pages(path: Path, pixels: np.ndarray, by: tuple[int, ...] = (2, 4, 8)) -> None:
    with tifffile.TiffWriter(path) as tif:
        for n in (1, *by):
            tif.write(boxed(pixels, n), subfiletype=int(n > 1), **RGB)


def write_ome_planes(path: Path, pixels: np.ndarray, by: tuple[int, ...] = (2, 4, 8)) -> None:
    """Red, green and blue as pages of their own, as OME-TIFF writers like them."""
    with tifffile.TiffWriter(path, ome=True) as tif:
        planes = np.moveaxis(pixels, -1, 0)
        form = {"photometric": "minisblack", "tile": (64, 64)}
        tif.write(planes, subifds=len(by), metadata={"axes": "CYX"}, **form)
        for n in by:
            tif.write(np.moveaxis(boxed(pixels, n), -1, 0), subfiletype=1, **form)


def write_zarr(path: Path, pixels: np.ndarray, by: tuple[int, ...] = (2, 4, 8), *, version: str = "0.4") -> None:
    """[c, y, x] with one array for each resolution."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for i, n in enumerate((1, *by)):
        values = np.ascontiguousarray(np.moveaxis(boxed(pixels, n), -1, 0))
        group.create_array(str(i), data=values, chunks=(3, 128, 128))
        scale = [{"type": "scale", "scale": [1, n, n]}]
        datasets.append({"path": str(i), "coordinateTransformations": scale})
    axes = [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"]
    entry = {"axes": axes, "datasets": datasets, "name": "he"}
    if version == "0.4":
        group.attrs["multiscales"] = [entry | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [entry]}


WRITERS: dict[str, tuple[str, Callable[..., None]]] = {
    "SubIFDs of a BigTIFF": ("a.tif", write_subifds),
    "reduced pages": ("a.tif", write_pages),
    "OME planes": ("a.ome.tif", write_ome_planes),
    "OME-Zarr 0.4": ("a.zarr", write_zarr),
    "OME-Zarr 0.5": ("a.zarr", lambda path, pixels: write_zarr(path, pixels, version="0.5")),
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return smooth(261, 330)


@pytest.fixture(scope="module", params=WRITERS)
def pyramid(request: pytest.FixtureRequest, pixels: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, write = WRITERS[request.param]
    path = tmp_path_factory.mktemp("pyramids") / name
    write(path, pixels)
    return path


def opened(path: Path, **options: float) -> _image.Image:
    return _image.open_image(path, scale=2.0, um_per_px=0.25, **options)


@given(
    top=st.integers(-40, 240), left=st.integers(-40, 300), height=st.integers(16, 100), width=st.integers(16, 100),
    reduce=st.floats(1, 12),
)  # fmt: skip
def test_a_reduced_window_is_the_block_mean_of_the_full_one(
    pyramid: Path, pixels: np.ndarray, top: int, left: int, height: int, width: int, reduce: float
) -> None:
    image = opened(pyramid)
    assert image.levels == (1, 2, 4, 8)
    assert np.array_equal(image.window(10, 20, 50, 60), pixels[10:60, 20:80])
    level = image.at(reduce)
    by = int(level.reduction)
    assert by <= reduce * 1.01 < 2 * by or by == 8
    assert (level.scale, level.um_per_px) == (2.0 / by, 0.25 * by)
    # windows that lie on the grid of the reduced copy, the image being whole there
    top, left, height, width = (v // 8 * 8 for v in (top, left, height, width))
    full = image.window(top, left, height, width)
    small = image.window(top, left, height, width, reduce=reduce)
    assert small.shape == (height // by, width // by, 3)
    inside = np.s_[max(0, -top // by) : (256 - top) // by, max(0, -left // by) : (328 - left) // by]
    difference = boxed(full, by)[inside].astype(int) - small[inside]
    assert np.abs(difference).max(initial=0) <= 1


def test_places_of_the_levels_are_those_of_the_blocks(pyramid: Path) -> None:
    level = opened(pyramid).at(4)
    # the first block of 4 pixels has its middle at 1.5; positions are half as many units as pixels
    assert np.allclose(level.place([[0.75, 0.75], [2.75, 4.75]]), [[0, 0], [1, 2]])


class Count:
    """How many pixels are decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.px = 0
        before = _image_pixels.Stored.cut

        def cut(stored: _image_pixels.Stored, row: int, column: int) -> np.ndarray:
            pixels = before(stored, row, column)
            self.px += pixels.shape[0] * pixels.shape[1]
            return pixels

        monkeypatch.setattr(_image_pixels.Stored, "cut", cut)


def test_the_whole_plane_is_never_read(pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Count(monkeypatch)
    image = opened(pyramid)
    assert count.px == 0
    image.window(100, 100, 20, 20)
    assert count.px == (128 if pyramid.suffix == ".zarr" else 64) ** 2
    count.px = 0
    small = _image.preview(pyramid, longest=40)
    assert max(small.shape) == 40
    assert count.px == (261 // 8) * (330 // 8)


def test_preview_is_the_reduced_image(pyramid: Path, pixels: np.ndarray) -> None:
    small = _image.preview(pyramid, longest=82)
    assert np.array_equal(small, boxed(pixels, 4))
    assert _image.preview(pyramid, longest=33).shape == (26, 33, 3)


def test_the_limit_counts_what_is_decoded(pyramid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_image, "OVERVIEW_PX", 150)
    image = opened(pyramid, max_megapixels=0.05)  # the file holds 0.086 megapixels, its copy by 2 has 0.021
    assert image.shape == (261, 330)
    assert image.at(4).pixels().shape == (65, 82, 3)
    with pytest.raises(InputError, match="over the limit"):
        image.pixels()
    with pytest.raises(InputError, match="over the limit"):
        _image.load(pyramid, max_megapixels=0.05)
    with pytest.raises(InputError, match="over the limit"):
        opened(pyramid, max_megapixels=0.01)
    with pytest.raises(InputError, match="over the limit"):
        _image.preview(pyramid, longest=300, max_megapixels=0.05)


def test_a_thousand_megapixels_open(tmp_path: Path) -> None:
    """A header that promises 40,000 x 25,000 pixels in empty tiles, and a small copy."""
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as tif:
        form = {"dtype": np.uint8, "photometric": "rgb", "compression": "zlib"}
        empty = itertools.repeat(b"", 25 * 40)
        tif.write(empty, shape=(25_000, 40_000, 3), tile=(1024, 1024), subifds=1, **form)
        tif.write(np.zeros((1562, 2500, 3), np.uint8), subfiletype=1, **RGB)
    image = opened(tmp_path / "a.tif")
    assert image.shape == (25_000, 40_000)
    assert image.levels == (1, 16)
    assert image.window(20_000, 30_000, 64, 64).shape == (64, 64, 3)
    assert _image.preview(tmp_path / "a.tif", longest=2000).shape == (1250, 2000, 3)


def test_large_planes_are_reduced_band_by_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = smooth(640, 600)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=16, compression="zlib")
    once = _image.preview(tmp_path / "a.tif", longest=64)
    monkeypatch.setattr(_image, "_BANDS_ABOVE_PX", 1000)
    largest: list[int] = []
    before = _image_pixels.Chunks.__call__

    def call(self: _image_pixels.Chunks, y0: int, x0: int, y1: int, x1: int) -> np.ndarray:
        largest.append((y1 - y0) * (x1 - x0))
        return before(self, y0, x0, y1, x1)

    monkeypatch.setattr(_image_pixels.Chunks, "__call__", call)
    monkeypatch.setattr(_image, "_BAND_PX", 64)
    banded = _image.preview(tmp_path / "a.tif", longest=64)
    assert max(largest) <= 64 * 600
    assert np.abs(banded.astype(int) - once).max() <= 2  # rounded twice


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
def test_tiles_that_need_pillow(tmp_path: Path, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of a file that Pillow wrote are decoded one by one, as the whole is."""
    pixels = smooth(400, 300)
    PILImage.fromarray(pixels).save(tmp_path / "a.tif", compression=compression)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert len(tif.pages[0].dataoffsets) > 4
    with PILImage.open(tmp_path / "a.tif") as whole:
        expected = np.asarray(whole.convert("RGB"))
    count = Count(monkeypatch)
    assert np.array_equal(opened(tmp_path / "a.tif").window(200, 20, 8, 200), expected[200:208, 20:220])
    assert count.px <= pixels[..., 0].size / 2


def test_jpeg_2000_tiles_as_xenium_writes_them(tmp_path: Path) -> None:
    """16-bit grey JPEG 2000, of which tifffile alone can write and read none."""
    grey = (smooth(200, 180)[..., 0].astype(np.uint16)) * 9
    tiles = []
    for y, x in np.ndindex(4, 3):
        tile = np.zeros((64, 64), dtype=np.uint16)
        part = grey[y * 64 : y * 64 + 64, x * 64 : x * 64 + 64]
        tile[: part.shape[0], : part.shape[1]] = part
        buffer = io.BytesIO()
        PILImage.fromarray(tile).save(buffer, format="JPEG2000", no_jp2=True, irreversible=False)
        tiles.append(buffer.getvalue())
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        # the writer takes encoded tiles; the name of the compression is put in their place afterwards
        form = {"shape": grey.shape, "dtype": grey.dtype, "tile": (64, 64), "photometric": "minisblack"}
        tif.write(iter(tiles), compression="zlib", **form)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as tif:
        tif.pages[0].tags["Compression"].overwrite(34712)
    image = opened(tmp_path / "a.tif")
    shown = image.pixels()[..., 0].astype(float)
    assert np.corrcoef(shown.ravel(), grey.ravel())[0, 1] > 0.999
    assert (shown.min(), shown.max()) == (0, 255)


def test_grey_of_16_bits_is_scaled_alike_in_all_windows(tmp_path: Path) -> None:
    """Percentiles of the coarsest copy set the scale; a window without a bright cell is no brighter for it."""
    rng = np.random.default_rng(101)
    grey = rng.integers(80, 120, (256, 256)).astype(np.uint16)
    grey[128:, 128:] += 4000
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tif:
        form = {"photometric": "minisblack", "tile": (64, 64)}
        tif.write(grey, subifds=2, metadata={"axes": "YX"}, **form)
        tif.write(boxed(grey, 2), subfiletype=1, **form)
        tif.write(boxed(grey, 4), subfiletype=1, **form)
    image = opened(tmp_path / "a.ome.tif")
    whole = image.pixels()
    assert whole[:128].max() < 5
    assert whole[130:, 130:].min() > 240
    assert np.array_equal(image.window(10, 10, 100, 100), whole[10:110, 10:110])
    assert np.abs(image.at(4).pixels().astype(int) - boxed(whole, 4)).max() <= 2


@pytest.mark.parametrize(("axes", "shown"), [("ZYX", 2), ("CYX", 0)])
def test_depths_show_the_middle_and_channels_the_first(tmp_path: Path, axes: str, shown: int) -> None:
    planes = np.stack([np.full((96, 80), 10 + i, dtype=np.uint8) for i in range(5)])
    options = {"photometric": "minisblack", "tile": (32, 32), "metadata": {"axes": axes}}
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, ome=True, **options)
    assert (opened(tmp_path / "a.ome.tif").pixels() == 10 + shown).all()
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("s0", data=planes, chunks=(1, 32, 32))
    named = [{"name": name} for name in axes.lower()]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": named, "datasets": [{"path": "s0"}]}]}
    assert (opened(tmp_path / "a.zarr").pixels() == 10 + shown).all()


def test_a_folder_of_channels_stands_for_its_nuclear_stain(tmp_path: Path) -> None:
    for i, name in enumerate(["ch0000_boundary.ome.tif", "ch0001_dapi.ome.tif"]):
        tifffile.imwrite(tmp_path / name, np.full((40, 30), 50 + i, np.uint8), photometric="minisblack", ome=True)
    assert (opened(tmp_path).pixels() == 51).all()
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        _image.image_size(tmp_path / "empty")


def test_a_set_of_files_shows_the_one_that_is_named(tmp_path: Path) -> None:
    """OME metadata may name the other files of a set, which may be missing."""
    uuid = "urn:uuid:00000000-0000-0000-0000-00000000000{}"
    data = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="ch{c}.ome.tif">{uuid.format(c)}</UUID>'
        "</TiffData>"
        for c in range(2)
    )
    pixel = 'DimensionOrder="XYZCT" Type="uint8" SizeX="48" SizeY="64" SizeZ="1" SizeC="2" SizeT="1"'
    ome = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid.format(1)}"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" {pixel}><Channel ID="Channel:0:0"/><Channel ID="Channel:0:1"/>{data}</Pixels>'
        "</Image></OME>"
    )
    values = np.full((64, 48), 77, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "ch1.ome.tif", values, photometric="minisblack", description=ome, metadata=None)
    assert (opened(tmp_path / "ch1.ome.tif").pixels() == 77).all()


@pytest.mark.parametrize("share", [0.1, 0.6, 0.98])
def test_truncated_pyramids(tmp_path: Path, pixels: np.ndarray, share: float) -> None:
    path = tmp_path / "a.tif"
    write_subifds(path, pixels)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match=r"a\.tif cannot be decoded"):
        _image.preview(path, longest=50)


def hostile(folder: Path, **changes: object) -> None:
    entry = {"axes": list("yx"), "datasets": [{"path": "0"}]} | changes
    group = zarr.open_group(str(folder), mode="w", zarr_format=2)
    group.create_array("0", data=np.zeros((8, 8), np.uint8))
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [entry]}))


@pytest.mark.parametrize(
    "changes",
    [{"datasets": [{"path": "../secret"}]}, {"datasets": [{"path": "gone"}]}, {"axes": list("zyx")}, {"datasets": []}],
)
def test_hostile_metadata_of_a_zarr(tmp_path: Path, changes: dict[str, object]) -> None:
    hostile(tmp_path / "good.zarr")
    assert opened(tmp_path / "good.zarr").shape == (8, 8)
    hostile(tmp_path / "secret")
    hostile(tmp_path / "a.zarr", **changes)
    with pytest.raises(InputError, match=r"a\.zarr cannot be decoded"):
        opened(tmp_path / "a.zarr")


def test_chunks_that_are_lost_or_broken(tmp_path: Path, pixels: np.ndarray) -> None:
    write_zarr(tmp_path / "a.zarr", pixels)
    next((tmp_path / "a.zarr/0").rglob("0.1.1")).write_bytes(b"no chunk")
    with pytest.raises(InputError, match=r"a\.zarr cannot be decoded"):
        opened(tmp_path / "a.zarr").window(130, 130, 8, 8)


def test_a_huge_tile_is_over_the_limit(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as tif:
        form = {"dtype": np.uint8, "photometric": "rgb", "compression": "zlib"}
        tif.write(iter([b""]), shape=(40_000, 40_000, 3), tile=(40_000, 40_000), subifds=1, **form)
        tif.write(np.zeros((2000, 2000, 3), np.uint8), subfiletype=1, **RGB)
    with pytest.raises(InputError, match="over the limit of 500 megapixels"):
        opened(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("small", "by"), [((210, 265), 2), ((211, 265), 2), ((105, 133), 4), ((132, 132), None), ((84, 106), 5)]
)
def test_what_counts_as_a_reduced_copy(small: tuple[int, int], by: int | None) -> None:
    found = _image_pixels.reduction((421, 530), small)
    assert found == (None if by is None else pytest.approx(by, rel=1e-3))


REAL = ("xenium/crop_v1/morphology_focus.ome.tif", "xenium/crop_v1/morphology_mip.ome.tif")


@pytest.mark.parametrize("name", [*REAL, "merscope/images/mosaic_DAPI_z3.tif", "merscope/images/mosaic_PolyT_z2.tif"])
def test_real_fluorescence_opens(shared_data: Path, name: str) -> None:
    path = shared_data / "vendor_fixtures" / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    small = _image.preview(path, longest=200)
    assert max(small.shape) == 200
    assert small.std() > 5
    assert len(np.unique(small)) > 50
    assert _image_tiff.levels(path) is not None


@pytest.mark.parametrize("store", ["blobs.zarr", "blobs_v3.zarr"])
def test_real_images_of_spatialdata_open(shared_data: Path, store: str) -> None:
    folder = shared_data / "vendor_fixtures/spatialdata" / store / "images/blobs_multiscale_image"
    if not folder.exists():
        pytest.skip(f"{store} is not there")
    image = opened(folder)
    assert len(image.levels) == 3
    assert image.levels == (1, 2, 4)
    whole, small = image.pixels(), image.at(4).pixels()
    assert whole.std() > 10
    assert np.corrcoef(boxed(whole, 4).ravel(), small.ravel())[0, 1] > 0.9


def stained(side: int) -> np.ndarray:
    """H&E-like: dark blue nuclei on pink that varies, uint8 [side, side, 3]."""
    rng = np.random.default_rng(102)
    rows = np.linspace(0.3, 1.7, side)[:, None]
    nuclei = ndimage.gaussian_filter((rng.random((side, side)) < 0.0006 * rows).astype(float), 8) * 300
    eosin = 0.35 + 2.5 * ndimage.gaussian_filter(rng.normal(size=(side, side)), 20)
    dye = np.clip(nuclei, 0, 1.5)[..., None] * [0.65, 0.70, 0.29] + np.clip(eosin, 0, 1)[..., None] * [0.07, 0.99, 0.11]
    return (245 * 10**-dye).astype(np.uint8)


def spots_on(path: Path, side: int, um_per_px: float) -> ad.AnnData:
    adata = ad.AnnData(np.ones((40, 2), dtype=np.float32))
    adata.obsm["spatial"] = np.random.default_rng(103).uniform(0.2 * side, 0.8 * side, (40, 2))
    metadata = {"um_per_unit": um_per_px, "spot_diameter_um": 30.0, "image_path": str(path), "image_scale": 1.0}
    adata.uns["spatial"] = {"s": {"images": {}, "scalefactors": {}, "metadata": metadata}}
    return adata


def test_texture_of_a_pyramid_is_that_of_its_finest_pixels(tmp_path: Path) -> None:
    """Surroundings are cut from a copy; columns and pixel sizes are the same, values within the stated tolerance."""
    pixels = stained(900)
    write_subifds(tmp_path / "pyramid.tif", pixels)
    write_subifds(tmp_path / "plain.tif", pixels, by=())
    sections = [spots_on(tmp_path / f"{name}.tif", 900, 0.27) for name in ("plain", "pyramid")]
    found = [sm.morph.embed(adata, tile_um=[60, 150], quiet=True) for adata in sections]
    plain, pyramid = (each.features for each in found)
    assert found[0].um_per_px == found[1].um_per_px
    assert list(plain) == list(pyramid)
    r = np.array([np.corrcoef(plain[name], pyramid[name])[0, 1] for name in plain if plain[name].std() > 1e-6])
    assert np.quantile(r, 0.05) > 0.99
    assert np.median(r) > 0.999


def test_tiles_of_a_fixed_size_come_from_the_copy_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = stained(900)
    write_subifds(tmp_path / "a.tif", pixels)
    image = _image.open_image(tmp_path / "a.tif", scale=1, um_per_px=0.25)
    places = np.random.default_rng(104).uniform(150, 750, (9, 2))
    facts = {"um_per_px": 0.5, "tile_px": 32}
    count = Count(monkeypatch)
    (cut,) = _plan.plan(image, [16.0], facts, device="cpu", brightfield=True)
    count.px = 0
    made = np.concatenate([batch for _, batch in tiles.batches(cut.level, places, cut.side_px, out_px=32)])
    assert count.px <= 9 * 4 * 64 * 64
    assert cut.spec.um_per_px == 0.5
    assert cut.level.reduction == 2
    flat = _image.from_array(pixels, scale=1, um_per_px=0.25)
    (full,) = _plan.plan(flat, [16.0], facts, device="cpu", brightfield=True)
    expected = np.concatenate([batch for _, batch in tiles.batches(full.level, places, full.side_px, out_px=32)])
    for a, b in zip(made, expected):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


@given(
    factor=st.sampled_from([3, 5, 9, 15]), by=st.sampled_from([2, 4]),
    height=st.integers(40, 90), width=st.integers(40, 90),
)  # fmt: skip
def test_a_level_from_a_copy_is_the_level_of_the_image(factor: int, by: int, height: int, width: int) -> None:
    """Same grid; where the picture is smooth on the scale of a pixel, the same values."""
    rows, columns = np.mgrid[:height, :width]
    picture = (np.stack([rows, columns, rows + columns], axis=-1) * 1.3 + 5).astype(np.uint8)
    wanted = {"background": np.full(3, 255, np.uint8), "replace_void": False}
    image = _image.from_array(picture, scale=1, um_per_px=1)
    copy = _image.from_array(boxed(picture, by), scale=1, um_per_px=1)
    full = tiles.make_level(image, factor, **wanted)
    made = tiles.level_from_copy(copy, by, picture.shape[:2], factor, **wanted)
    assert (made.source.shape, made.factor, made.pad) == (full.source.shape, full.factor, full.pad)
    size = full.source.shape
    difference = full.source.window(0, 0, *size).astype(int) - made.source.window(0, 0, *size)
    # at the rim the copy lacks rows that made no whole block, and the image's edge is repeated
    assert np.abs(difference[1:-1, 1:-1]).max(initial=0) <= 2


def test_void_is_replaced_in_windows_as_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = stained(120)
    picture[:50, 40:] = 3
    wanted = {"background": np.full(3, 240, np.uint8), "replace_void": True}
    image = _image.from_array(picture, scale=1, um_per_px=1)
    held = tiles.make_level(image, 1, **wanted)
    monkeypatch.setattr(tiles, "LAZY_ABOVE_PX", 1000)
    lazy = tiles.make_level(image, 1, **wanted)
    places = np.random.default_rng(105).uniform(0, 120, (30, 2))
    assert np.array_equal(tiles.cut(held, places, 21), tiles.cut(lazy, places, 21))
