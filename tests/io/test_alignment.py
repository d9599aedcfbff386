"""Registered images: matrices of platforms and users, and a section whose image is turned, scaled and shifted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import warp

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning
from smeld.io import _alignment, _pictures
from smeld.io._platforms import ReadOptions

#: the matrix that 10x shows in its knowledge base: H&E pixels to DAPI pixels, turned by 90 degrees
TENX = """0.011071028838929093,1.2895790134339569,807.9788953065927
-1.2895790134339569,0.011071028838929093,73097.655174759
0,0,1
"""


def written(folder: Path, text: str, name: str = "he_imagealignment.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_convention_is_that_of_10x(tmp_path: Path) -> None:
    """The corner of the H&E lies at x 807.98, y 73097.66 of the DAPI image; micrometres are .2125 times as many."""
    matrix = _alignment.read(written(tmp_path, TENX))
    dapi = np.array([807.9788953065927, 73097.655174759, 1.0])
    assert np.allclose(matrix @ [0, 0, 1], dapi)
    assert np.allclose(_alignment.to_image(matrix, 1.0) @ dapi, 0, atol=1e-6)
    um = np.append(dapi[:2] * 0.2125, 1.0)
    affine = _alignment.to_image(matrix, _alignment.XENIUM_UM_PER_PX)
    assert np.allclose(affine @ um, 0, atol=1e-6)
    # a step of 1000 pixels to the right in the H&E goes up in the section, nearly straight
    moved = (matrix @ [1000, 0, 1])[:2] * 0.2125
    assert np.allclose(affine @ np.append(moved, 1), [1000, 0], atol=1e-6)
    assert moved[1] < um[1] - 250
    # the H&E has 0.274 um per pixel, as 40-fold scans have
    assert 1 / np.sqrt(abs(np.linalg.det(affine[:, :2]))) == pytest.approx(0.2741, abs=1e-4)


@given(
    angle=st.floats(0, 6.28), scale=st.floats(0.05, 20), shift=st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    flip=st.booleans(), units=st.floats(0.1, 1),
)  # fmt: skip
def test_what_is_written_is_read(tmp_path_factory, angle, scale, shift, flip, units) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn @ np.diag([1, -1 if flip else 1])
    matrix[:2, 2] = shift
    folder = tmp_path_factory.mktemp("matrix")
    rows = matrix.tolist()
    texts = {
        "a.csv": "\n".join(",".join(map(repr, row)) for row in rows),
        "b.csv": "\n".join(" ".join(map(repr, row)) for row in rows) + "\n\n",
        "c.csv": "a,b,c\n" + "\n".join(";".join(map(repr, row)) for row in rows),
        "d.json": json.dumps(rows),
        "e.json": json.dumps({"matrix": rows[:2], "unit": "pixel"}),
    }
    for name, text in texts.items():
        assert np.array_equal(_alignment.read(written(folder, text, name)), matrix)
    point = np.array([12.0, -34.0, 1.0])
    section = (matrix @ point)[:2] * units
    assert np.allclose(_alignment.to_image(matrix, units) @ np.append(section, 1), point[:2], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no affine matrix"),
        ("1,0,0\n0,1\n0,0,1", "no affine matrix"),
        ("1,0\n0,1", "shape"),
        ("1,0,0\n0,nan,0\n0,0,1", "NaN"),
        ("1,0,0\n0,inf,0\n0,0,1", "NaN or infinite"),
        ("1,2,0\n2,4,0\n0,0,1", "without an inverse"),
        ("1,0,0\n0,1,0\n0.1,0,1", "last row"),
        ("1e6,0,0\n0,1e6,0\n0,0,1", "scales"),
        ("1,0,0\n0,5,0\n0,0,1", "scales of 1 and 5"),
        ("one,0,0\n0,1,0\n0,0,1", "could not convert"),
        ("1,0,0\n" * 9, "shape"),
    ],
)
def test_what_is_no_alignment_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _alignment.read(written(tmp_path, text))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        _alignment.read(tmp_path / "no.csv")
    for text in ("{", "[" * 100_000, '{"a": 1}', '"x"', '{"matrix": [[1, 0, 0], [0, 1, {}]]}'):
        with pytest.raises(InputError, match="no affine matrix"):
            _alignment.read(written(tmp_path, text, "a.json"))
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00" * 10)
    with pytest.raises(InputError, match="no affine matrix"):
        _alignment.read(tmp_path / "b.csv")
    (tmp_path / "c.csv").write_text("1," * 600_000)
    with pytest.raises(InputError, match="bytes"):
        _alignment.read(tmp_path / "c.csv")


@dataclass(frozen=True)
class Turned:
    """A made-up section twice: with its own image, and with that image turned by 30 degrees, 1.3 times as large, in a
    file of its own; ``affine`` takes positions to pixels of the latter."""

    upright: ad.AnnData
    bare: ad.AnnData
    file: Path
    affine: np.ndarray
    matrix: np.ndarray


def subifds(path: Path, pixels: np.ndarray) -> None:
    half = pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2].astype(float)
    half = half.reshape(half.shape[0] // 2, 2, half.shape[1] // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(pixels, photometric="rgb", tile=(256, 256), subifds=1)
        tif.write(half, photometric="rgb", tile=(256, 256), subfiletype=1)


def section() -> ad.AnnData:
    """60 spots on an H&E-like picture of 600 um at 1 um per pixel: nuclei, denser and darker to the lower right."""
    rng = np.random.default_rng(100)
    rows, columns = np.mgrid[:600, :600]
    density = ndimage.gaussian_filter(rng.normal(size=(600, 600)), 40)
    chance = 0.006 * (1 + np.clip(density / density.std(), -0.9, 3)) * (0.3 + (rows + columns) / 800)
    nuclei = ndimage.gaussian_filter((rng.random((600, 600)) < chance).astype(float), 2.0) * 20
    eosin = 0.3 + 0.15 * ndimage.gaussian_filter(rng.normal(size=(600, 600)), 6) * 20
    dye = np.clip(nuclei, 0, 1.5)[..., None] * [0.65, 0.70, 0.29] + np.clip(eosin, 0, 1)[..., None] * [0.07, 0.99, 0.11]
    adata = ad.AnnData(np.ones((60, 2), dtype=np.float32))
    adata.obs_names = [f"spot{i:02d}" for i in range(60)]
    adata.obsm["spatial"] = rng.uniform(80, 520, (60, 2)) / 2  # units of 2 um
    adata.obsm["spatial_um"] = adata.obsm["spatial"] * 2
    metadata = {"um_per_unit": 2.0, "spot_diameter_um": 55.0}
    images, factors = {"hires": (245 * 10**-dye).astype(np.uint8)}, {"tissue_hires_scalef": 2.0}
    adata.uns["spatial"] = {"s": {"images": images, "scalefactors": factors, "metadata": metadata}}
    return adata


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Turned:
    upright = section()
    picture = _adapt.image(upright)
    assert picture is not None
    pixels = picture.pixels()
    height, width = picture.shape
    angle, scale = np.deg2rad(30), 1.3
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]]) @ turn.T
    shift = 5.0 - corners.min(axis=0)
    size = np.ceil(corners.max(axis=0) + shift + 5).astype(int)
    forward = np.eye(3)
    forward[:2, :2], forward[:2, 2] = turn, shift
    made = warp(pixels, np.linalg.inv(forward), output_shape=(size[1], size[0]), order=3, cval=255, preserve_range=True)
    file = tmp_path_factory.mktemp("turned") / "he.tif"
    subifds(file, made.round().clip(0, 255).astype(np.uint8))
    affine = forward[:2].copy()
    affine[:, :2] *= picture.scale
    bare = upright.copy()
    entry = next(iter(bare.uns["spatial"].values()))
    entry["images"], entry["scalefactors"] = {}, {}
    # as Xenium Explorer writes it: from the image's pixels to the section's, here those of the upright image
    return Turned(upright, bare, file, affine, np.linalg.inv(forward))


@pytest.fixture(scope="module")
def registered(turned: Turned) -> ad.AnnData:
    adata = turned.bare.copy()
    entry = next(iter(adata.uns["spatial"].values()))
    _pictures.attach(adata, entry, turned.file, options=ReadOptions(), affine=turned.affine)
    return adata


def test_matrix_of_a_file_gives_the_affine(turned: Turned, tmp_path: Path) -> None:
    text = "\n".join(",".join(map(repr, row)) for row in turned.matrix.tolist())
    picture = _adapt.image(turned.upright)
    assert picture is not None
    found = _alignment.to_image(_alignment.read(written(tmp_path, text)), 1 / picture.scale)
    assert np.allclose(found, turned.affine)


def test_spots_lie_on_the_same_tissue(turned: Turned, registered: ad.AnnData) -> None:
    before, after = _adapt.image(turned.upright), _adapt.image(registered)
    assert before is not None
    assert after is not None
    assert after.um_per_px == pytest.approx(before.um_per_px / 1.3)
    assert after.levels == (1, 2)
    colours = []
    for image in (before, after, after.at(2)):
        px = np.rint(_adapt.xy_px(turned.upright, image)).astype(int)
        side = round(8 / image.um_per_px)
        colours.append([image.window(y - side, x - side, 2 * side + 1, 2 * side + 1).mean() for x, y in px])
    assert np.corrcoef(colours)[0, 1:].min() > 0.99


def test_the_preview_lies_in_the_frame_of_the_coordinates(turned: Turned, registered: ad.AnnData) -> None:
    """Mean colours under the spots agree, and the preview has a scale like any other."""
    means = []
    for adata in (turned.upright, registered):
        image = _adapt.image(adata, preview=True)
        assert image is not None
        assert image.affine is None
        radius = round(15 / image.um_per_px)
        px = np.rint(_adapt.xy_px(adata, image)).astype(int)
        means.append([image.window(y - radius, x - radius, 2 * radius + 1, 2 * radius + 1).mean((0, 1)) for x, y in px])
    upright, warped = np.array(means)
    assert np.abs(upright - warped).mean() < 2
    assert np.corrcoef(upright.ravel(), warped.ravel())[0, 1] > 0.99
    entry = next(iter(registered.uns["spatial"].values()))
    beyond = np.array(entry["images"]["hires"].shape[1::-1]) / entry["scalefactors"]["tissue_hires_scalef"]
    assert (beyond > registered.obsm["spatial"].max(axis=0)).all()


def test_texture_is_that_of_the_upright_image(turned: Turned, registered: ad.AnnData) -> None:
    """Tiles come from the turned file; what is not described alike are directions, of which texture has none."""
    tile_um = 110.0
    before = sm.morph.embed(turned.upright.copy(), tile_um=tile_um, quiet=True).features
    after = sm.morph.embed(registered.copy(), tile_um=tile_um, quiet=True).features
    shared = [name for name in before if name in after and before[name].std() > 0]
    assert len(shared) > 0.8 * before.shape[1]
    r = np.array([np.corrcoef(before[name], after[name])[0, 1] for name in shared])
    assert r.min() > 0.9
    assert (r > 0.95).mean() > 0.95


def test_registration_survives_a_file(registered: ad.AnnData, tmp_path: Path) -> None:
    registered.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    image, same = _adapt.image(registered), _adapt.image(again)
    assert image is not None
    assert same is not None
    assert np.array_equal(_adapt.xy_px(registered, image), _adapt.xy_px(again, same))


def test_an_affine_that_is_a_scale_means_the_scale(turned: Turned, tmp_path: Path) -> None:
    """One path: a matrix without a turn gives the tiles that image_scale gives."""
    picture = _adapt.image(turned.upright)
    assert picture is not None
    subifds(tmp_path / "he.tif", picture.pixels())
    made = []
    for options, affine in (
        (ReadOptions(image_scale=picture.scale), None),
        (ReadOptions(), np.array([[picture.scale, 0, 0], [0, picture.scale, 0]])),
    ):
        adata = turned.bare.copy()
        entry = next(iter(adata.uns["spatial"].values()))
        entry["images"] = {"lowres": np.zeros((10, 10, 3), np.uint8)}
        entry["scalefactors"]["tissue_lowres_scalef"] = 1e-6
        _pictures.attach(adata, entry, tmp_path / "he.tif", options=options, affine=affine)
        made.append(_adapt.image(adata))
    assert np.allclose(made[0].place(turned.bare.obsm["spatial"]), made[1].place(turned.bare.obsm["spatial"]))
    assert made[0].um_per_px == pytest.approx(made[1].um_per_px)


def test_a_wrong_alignment_is_refused(turned: Turned) -> None:
    adata = turned.bare.copy()
    entry = next(iter(adata.uns["spatial"].values()))
    wrong = turned.affine.copy()
    wrong[:, 2] += 2000
    with pytest.raises(InputError, match=r"does not lie under the coordinates.*image-alignment"):
        _pictures.attach(adata, entry, turned.file, options=ReadOptions(), affine=wrong)
    with pytest.raises(InputError, match="both a scale and an alignment"):
        _pictures.attach(adata, entry, turned.file, options=ReadOptions(image_scale=1.0), affine=turned.affine)
    assert not entry["images"]
    entry["metadata"][_keys.META_IMAGE_PATH] = str(turned.file)
    entry["metadata"][_keys.META_IMAGE_AFFINE] = np.zeros((2, 3))
    with pytest.raises(InputError, match="no affine map"):
        _adapt.image(adata)


def test_negative_coordinates_are_said(turned: Turned) -> None:
    adata = turned.bare.copy()
    entry = next(iter(adata.uns["spatial"].values()))
    half = adata.obsm["spatial"].mean(axis=0)
    adata.obsm["spatial"] = adata.obsm["spatial"] - half
    affine = turned.affine.copy()
    affine[:, 2] += affine[:, :2] @ half
    with pytest.warns(SmeldWarning, match="negative coordinates"):
        _pictures.attach(adata, entry, turned.file, options=ReadOptions(), affine=affine)
