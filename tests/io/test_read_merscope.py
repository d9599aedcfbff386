"""MERSCOPE regions: outlines of both versions, the mosaic, and what is refused."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _cell_checks import assert_refused, assert_same, assert_true, edit, quiet, warned
from _make_cells_b import GENES, manifest, merscope, square, truncate, wkb

from smeld import _adapt, _keys
from smeld.io import _cells, _wkb

VERSIONS = ["parquet", "hdf5"]


@pytest.mark.parametrize("version", VERSIONS)
def test_counts_positions_and_blanks_are_true(tmp_path: Path, version: str) -> None:
    truth = merscope(tmp_path / "d", version=version)
    adata = quiet(tmp_path / "d")
    assert_true(adata, truth, GENES)
    assert list(adata.obsm["blank"].columns) == ["Blank-1", "Blank-2", "Blank-3"]
    assert (adata.obs["volume_um3"] == 500).all()
    assert (adata.obs["fov"] == 7).all()
    assert (adata.obs["DAPI_raw"] == 3.5).all()
    assert np.array_equal(adata.obsm["spatial"], adata.obsm["spatial_um"])
    merscope(tmp_path / "e", version=version, order=4)
    assert_same(adata, quiet(tmp_path / "e"))
    assert quiet(tmp_path / "d", region_um=(5000, 0, 5200, 400)).n_obs == int((truth["x"] <= 5200).sum())


@pytest.mark.parametrize("version", VERSIONS)
def test_outlines_are_of_the_middle_plane(tmp_path: Path, version: str) -> None:
    merscope(tmp_path / "d", version=version, order=2, image=False)
    adata = quiet(tmp_path / "d", outlines=True)
    rings = adata.uns[_keys.OUTLINES]["xy_um"].reshape(-1, 4, 2)
    assert np.allclose(rings.mean(axis=1), adata.obsm["spatial_um"], atol=2e-3)
    assert np.allclose(adata.obs["cell_area_um2"], 36, rtol=1e-3)  # 8 um wide in other planes
    assert _keys.OUTLINES not in quiet(tmp_path / "d").uns


def test_a_cell_that_misses_the_middle_plane_keeps_an_outline(tmp_path: Path) -> None:
    merscope(tmp_path / "d", image=False)
    file = tmp_path / "d/cell_boundaries.parquet"
    rows = pd.read_parquet(file)
    one = rows["EntityID"].iloc[0]
    rows[(rows["EntityID"] != one) | (rows["ZIndex"] == 6)].to_parquet(file)
    adata = quiet(tmp_path / "d", outlines=True)
    assert adata.obs.loc[str(one), "cell_area_um2"] == pytest.approx(64)


def brightness(adata) -> float:
    """Grey levels under cells over the darkest."""
    image = _adapt.image(adata)
    assert image is not None
    grey = image.pixels().mean(axis=2)
    px = np.round(_adapt.xy_px(adata, image)).astype(int)
    return float(grey[px[:, 1], px[:, 0]].min() - grey.min())


def test_the_mosaic_of_the_middle_plane_lies_under_the_cells(tmp_path: Path) -> None:
    merscope(tmp_path / "d")
    adata = quiet(tmp_path / "d")
    image = _adapt.image(adata)
    assert image is not None
    assert image.shape == (840, 820)
    assert image.um_per_px == pytest.approx(0.5)
    assert _adapt.metadata(adata)[_keys.META_IMAGE_PATH].endswith("mosaic_DAPI_z3.tif")
    first = adata.obsm["spatial"][0]
    assert np.allclose(_adapt.xy_px(adata, image)[0], [2 * first[0] - 9990, 2 * first[1] + 20])
    assert brightness(adata) > 100
    manifest(tmp_path / "d", [4995.0, -10.0, 5405.0, 410.0])
    again = quiet(tmp_path / "d")
    assert np.allclose(_adapt.xy_px(again, _adapt.image(again)), _adapt.xy_px(adata, image))


def test_a_mosaic_that_cannot_be_used_is_left_out_with_a_word(tmp_path: Path) -> None:
    merscope(tmp_path / "d")
    adata, text = warned(tmp_path / "d", max_megapixels=0.1)
    assert _adapt.image(adata) is None
    assert "image was left out" in text
    (tmp_path / "d/images/micron_to_mosaic_pixel_transform.csv").unlink()
    assert "micron_to_mosaic_pixel_transform.csv, which places it, was not found" in warned(tmp_path / "d")[1]


def move_mosaic(folder: Path) -> None:
    (folder / "images/micron_to_mosaic_pixel_transform.csv").write_text("2 0 90000\n0 2 90000\n0 0 1\n")


def spoil_geometry(folder: Path) -> None:
    rows = pd.read_parquet(folder / "cell_boundaries.parquet")
    rows["Geometry"] = [b"\x01\x01\x00\x00\x00" + b[5:21] for b in rows["Geometry"]]  # points
    rows.to_parquet(folder / "cell_boundaries.parquet")


REFUSED = {
    "counts missing": (lambda d: (d / "cell_by_gene.csv").unlink(), ("cell_by_gene.csv", "copy the file")),
    "cells missing": (lambda d: (d / "cell_metadata.csv").unlink(), ("cell_metadata.csv", "copy the file")),
    "cells renamed": (lambda d: (d / "cell_metadata.csv").rename(d / "cells.csv"), ("cell_metadata.csv", "cells.csv")),
    "counts truncated": (lambda d: truncate(d / "cell_by_gene.csv"), ("cell_by_gene.csv", "truncated")),
    "outlines truncated": (lambda d: truncate(d / "cell_boundaries.parquet"), ("cell_boundaries.parquet", "truncated")),
    "outlines of another kind": (spoil_geometry, ("cell_boundaries.parquet", "no polygon")),
    "newer version": (
        lambda d: edit(d / "cell_metadata.csv", lambda f: f.rename(columns={"center_x": "centroid_x"})),
        ("center_x", "newer version"),
    ),
    "ids do not match": (
        lambda d: edit(d / "cell_metadata.csv", lambda f: f.assign(EntityID=range(len(f)))),
        ("do not match", "112824700230101249", "same section"),
    ),
    "cells twice": (lambda d: edit(d / "cell_metadata.csv", lambda f: pd.concat([f, f])), ("must be unique",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    merscope(tmp_path / "d")
    spoil, words = REFUSED[name]
    assert_refused(tmp_path / "d", spoil, *words, outlines=True)


def test_truncated_hdf5_and_missing_outlines(tmp_path: Path) -> None:
    merscope(tmp_path / "d", version="hdf5", image=False)
    file = "cell_boundaries/feature_data_0.hdf5"
    assert_refused(tmp_path / "d", lambda d: truncate(d / file), "feature_data_0.hdf5", "truncated", outlines=True)
    (tmp_path / "d" / file).unlink()
    (tmp_path / "d/cell_boundaries").rmdir()
    assert "no outlines" in warned(tmp_path / "d", outlines=True)[1]


def manifest_alone(text: str):
    def spoil(folder: Path) -> None:
        (folder / "images/micron_to_mosaic_pixel_transform.csv").unlink()
        (folder / "images/manifest.json").write_text(text)

    return spoil


def transform(text: str):
    return lambda d: (d / "images/micron_to_mosaic_pixel_transform.csv").write_text(text)


WRONG_IMAGES = {
    "elsewhere": (move_mosaic, "mosaic_DAPI_z3.tif"),
    "a broken transform": (transform("2 0"), "is no affine matrix"),
    "a transform without an inverse": (transform("0 0 0\n0 0 0\n0 0 1\n"), "without an inverse"),
    "words": (transform("a b c\n"), "cannot be read as a table"),
    "a list": (manifest_alone("[]"), "manifest.json cannot be read"),
    "null": (manifest_alone('{"bbox_microns": [null, 1, 2, 3]}'), "manifest.json cannot be read"),
    "NaN": (manifest_alone('{"bbox_microns": [NaN, 1, 2, 3]}'), "has no area"),
    "infinite": (manifest_alone('{"bbox_microns": [0, 0, Infinity, Infinity]}'), "manifest.json"),
    "deep": (manifest_alone("[" * 100_000), "manifest.json cannot be read"),
}


@pytest.mark.parametrize("name", WRONG_IMAGES)
def test_an_image_nobody_asked_for_does_no_harm(tmp_path: Path, name: str) -> None:
    truth = merscope(tmp_path / "d")
    spoil, message = WRONG_IMAGES[name]
    spoil(tmp_path / "d")
    adata, text = warned(tmp_path / "d")
    assert_true(adata, truth, GENES)
    assert "own image was left out" in text
    assert message in text
    assert _adapt.image(adata) is None


def test_cells_of_another_section_with_the_same_identifiers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = merscope(tmp_path / "d", image=False)
    said = truth[GENES].sum(axis=1).to_numpy()
    edit(tmp_path / "d/cell_metadata.csv", lambda f: f.assign(transcript_count=said + np.arange(40) % 3))
    monkeypatch.setattr(_cells, "MIN_COMPARED", 20)
    assert quiet(tmp_path / "d").n_obs == 40
    other = np.random.default_rng(0).permutation(said)
    spoil = partial(edit, change=lambda f: f.assign(transcript_count=other))
    assert_refused(tmp_path / "d", lambda d: spoil(d / "cell_metadata.csv"), "cell_metadata.csv are those of another")
    monkeypatch.setattr(_cells, "MIN_COMPARED", 50)
    assert quiet(tmp_path / "d").n_obs == 40  # too few to tell


@pytest.mark.parametrize("name", ["cell_boundaries.parquet", "cell_metadata.csv"])
def test_links_to_nothing(tmp_path: Path, name: str) -> None:
    merscope(tmp_path / "d")

    def unlink(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "gone")

    assert_refused(tmp_path / "d", unlink, name, "no file", outlines=True)


@pytest.mark.parametrize("order", ["<", ">"])
def test_wkb_polygons(order: str) -> None:
    ring, small = square(1, 2, 3), square(50, 50, 1)
    assert np.array_equal(_wkb.outline(wkb(ring, order=order)), ring)
    parts = wkb(small, order=order) + wkb(ring, order=order)
    head = (b"\x01\x06\x00\x00\x00\x02\x00\x00\x00", b"\x00\x00\x00\x00\x06\x00\x00\x00\x02")[order == ">"]
    assert np.array_equal(_wkb.outline(head + parts), ring)  # the largest part
    assert _wkb.outline(b"\x01\x03\x00\x00\x00" + b"\x00" * 4).shape == (0, 2)
    for cut in (0, 4, 20, 60):
        with pytest.raises(ValueError, match="cut short"):
            _wkb.outline(wkb(ring, order=order)[:cut])


def test_real_region(shared_data: Path) -> None:
    folder = shared_data / "vendor_fixtures/merscope"
    if not folder.is_dir():
        pytest.skip("no real region")
    adata, text = warned(folder, outlines=True)
    assert adata.shape == (1058, 49)
    assert adata.obsm["blank"].shape == (1058, 39)
    counts = pd.read_csv(folder / "cell_by_gene.csv", dtype={"cell": str}).set_index("cell")
    name = counts["EGFR"].idxmax()
    assert adata[name, "EGFR"].X.toarray().item() == counts.loc[name, "EGFR"] > 0
    # parquet and hdf5 tell the same of the cells they share
    import h5py

    start, xy = adata.uns[_keys.OUTLINES]["start"], adata.uns[_keys.OUTLINES]["xy_um"]
    with h5py.File(folder / "cell_boundaries/feature_data_z2_z3_1.hdf5") as file:
        for cell in file["featuredata"]:
            row = adata.obs_names.get_loc(cell)
            ring = file[f"featuredata/{cell}/zIndex_3/p_0/coordinates"][0]
            assert np.allclose(xy[start[row] : start[row + 1]], ring[:-1], atol=1e-3)
    # the cell's own box holds its outline
    boxes = (
        pd.read_csv(folder / "cell_metadata.csv", dtype={"EntityID": str}).set_index("EntityID").loc[adata.obs_names]
    )
    inside = [
        (xy[a:b] > box[:2] - 1).all() and (xy[a:b] < box[2:] + 1).all()
        for a, b, box in zip(start, start[1:], boxes[["min_x", "min_y", "max_x", "max_y"]].to_numpy())
    ]
    assert np.mean(inside) > 0.99
    image = _adapt.image(adata)
    if image is None:  # it is a crop: cells at its edge have their centres outside
        assert "43 of 1058 spots outside" in text
        return
    # reduced four times; microns_per_pixel in the manifest is that of the mosaic before
    assert image.um_per_px == pytest.approx(300.2295 / 695, rel=1e-3)
    px = _adapt.xy_px(adata, image).astype(int)
    grey = image.pixels().mean(axis=2)
    held = ((px >= 0) & (px < 695)).all(axis=1)
    assert held.mean() > 0.95
    x, y = px[held].T
    assert grey[y, x].mean() > max(grey[x, y].mean(), grey[694 - y, x].mean())  # nuclei lie under cells
