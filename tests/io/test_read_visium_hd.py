"""Visium HD: bins of every size and cells, by identifier, in micrometres, and each bad input in one clear line."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import _make_cells_a as make
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.visium_hd(tmp_path_factory.mktemp("hd") / "sample" / "outs")


def quiet(path: Path, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, *args, **options)


def distances(xy: np.ndarray) -> np.ndarray:
    return np.linalg.norm(xy[:, None] - xy[None], axis=2)


@pytest.mark.parametrize("side", [2, 8, 16])
def test_bins_of_every_size(outs: Path, side: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adata = sm.read(outs, resolution=f"{side}um")
    truth = make.bins(side)
    keep = truth.um[:, 0] < 72
    assert adata.obs_names.tolist() == [b for b, k in zip(truth.barcodes, keep) if k]
    assert np.array_equal(adata.X.toarray(), truth.counts[keep])
    assert adata.X.indices.dtype == np.int32
    assert adata.X.dtype == np.float32
    assert adata[f"s_{side:03d}um_00002_00001-1", "GENE0"].X.toarray().item() == truth.counts[2 * (96 // side) + 1, 0]
    assert np.array_equal(adata.obsm["spatial"], truth.xy[keep])
    some = np.arange(0, keep.sum(), max(1, keep.sum() // 60))
    assert np.allclose(distances(adata.obsm["spatial_um"][some]), distances(truth.um[keep][some]))
    row, col = adata.obs["array_row"].to_numpy(), adata.obs["array_col"].to_numpy()
    beside = [np.flatnonzero((row == 3) & (col == c))[0] for c in (1, 2)]
    gap = np.linalg.norm(np.subtract(*adata.obsm["spatial_um"][beside]))
    assert gap == pytest.approx(side, rel=1e-6)  # the bins' own width, as 10x states it
    meta = _adapt.metadata(adata)
    assert list(adata.uns["spatial"]) == ["sample"]
    assert meta[_keys.META_PLATFORM] == "visium_hd"
    assert meta[_keys.META_SPOT_UM] == side
    assert meta[_keys.META_UM_PER_UNIT] == make.UM_PER_PX


def test_counts_of_large_bins_are_sums_of_small_ones(outs: Path) -> None:
    totals = [np.asarray(sm.read(outs, resolution=r).X.sum(axis=0)).ravel() for r in ("2um", "8um")]
    assert np.array_equal(*totals)


@pytest.mark.parametrize("said", ["8um", "8", "008um", "square_008um", "8 um", None])
def test_resolution_in_any_words_and_8_um_by_default(outs: Path, said: str | None) -> None:
    assert _adapt.metadata(sm.read(outs, resolution=said))[_keys.META_SPOT_UM] == 8


@pytest.mark.parametrize("inner", ["..", "binned_outputs", "binned_outputs/square_016um", "segmented_outputs"])
def test_inner_folders_may_be_given(outs: Path, inner: str) -> None:
    adata = quiet(outs / inner)
    by_name = quiet(outs / inner, "visium_hd")
    assert np.array_equal(adata.obsm["spatial_um"], by_name.obsm["spatial_um"])
    assert list(adata.uns["spatial"]) == ["sample"]
    meta = _adapt.metadata(adata)
    expected = {"..": 8, "binned_outputs": 8, "binned_outputs/square_016um": 16}
    assert meta.get(_keys.META_SPOT_UM) == expected.get(inner)
    assert meta[_keys.META_PLATFORM] == ("visium_hd_cells" if inner.startswith("seg") else "visium_hd")


def test_renamed_bin_folder_and_mtx_and_raw(tmp_path: Path) -> None:
    truth = make.square(tmp_path / "mine", 8, kind="raw_mtx")
    with pytest.warns(SmeldWarning, match="the bins under tissue"):
        adata = sm.read(tmp_path / "mine")
    keep = truth.um[:, 0] < 72
    assert set(adata.obs_names) == {b for b, k in zip(truth.barcodes, keep) if k}
    assert _adapt.metadata(adata)[_keys.META_SPOT_UM] == 8


def test_order_of_positions_does_not_matter(tmp_path: Path, outs: Path) -> None:
    n = len(make.bins(8).barcodes)
    make.square(tmp_path / "square_008um", 8, order=np.random.default_rng(100).permutation(n))
    one, two = sm.read(outs), sm.read(tmp_path / "square_008um")
    assert one.obs_names.equals(two.obs_names)
    assert one.obs.equals(two.obs)
    for key in ("spatial", "spatial_um"):
        assert np.array_equal(one.obsm[key], two.obsm[key])


def test_cells(outs: Path) -> None:
    with pytest.warns(SmeldWarning, match="1 cells with a position have no counts"):
        adata = sm.read(outs, resolution="cells", outlines=True)
    truth = make.segmented(outs.parent / "truth", seed=0)
    shutil.rmtree(outs.parent / "truth")
    keep = np.arange(30) != 4
    assert adata.obs_names.tolist() == [n for n, k in zip(truth.names, keep) if k]
    assert np.array_equal(adata.X.toarray(), truth.counts[keep])
    assert np.allclose(adata.obsm["spatial_um"], truth.um[keep])
    area = 2 * np.sqrt(2) * truth.r_um[keep] ** 2  # of a regular octagon
    assert np.allclose(adata.obs["cell_area_um2"], area)
    for key, share in ((_keys.OUTLINES, 1.0), (_keys.NUCLEI, 0.5)):
        start, xy = adata.uns[key]["start"], adata.uns[key]["xy_um"]
        for cell in (0, 4, 28):
            radius = np.linalg.norm(xy[start[cell] : start[cell + 1]] - truth.um[keep][cell], axis=1)
            assert np.allclose(radius, share * truth.r_um[keep][cell], atol=1e-3)


def test_outlines_may_be_indented_multipolygons_and_in_any_order(tmp_path: Path, outs: Path) -> None:
    make.segmented(tmp_path / "segmented_outputs", reverse=True)
    path = tmp_path / "segmented_outputs/cell_segmentations.geojson"
    content = json.loads(path.read_text())
    for feature in content["features"][:7]:
        ring = feature["geometry"]["coordinates"]
        feature["geometry"] = {"type": "MultiPolygon", "coordinates": [[[[0, 0], [1, 0], [0, 1], [0, 0]]], ring]}
    path.write_text(json.dumps(content, indent=2))
    one, two = quiet(outs / "segmented_outputs"), quiet(tmp_path)
    assert one.obs_names.equals(two.obs_names)
    assert np.allclose(one.obsm["spatial_um"], two.obsm["spatial_um"], atol=1e-9)


def test_region_keeps_cells_and_their_outlines(outs: Path) -> None:
    whole = quiet(outs, resolution="cells", outlines=True)
    part = quiet(outs, resolution="cells", outlines=True, region_um=(0, 0, 35, 200))
    inside = whole.obsm["spatial_um"][:, 0] <= 35
    assert part.obs_names.tolist() == whole.obs_names[inside].tolist()
    start = part.uns[_keys.OUTLINES]["start"]
    first = part.uns[_keys.OUTLINES]["xy_um"][: start[1]]
    assert np.allclose(first[:-1].mean(axis=0), part.obsm["spatial_um"][0], atol=0.01)


def test_image_lies_under_the_bins_and_a_scan_is_used(outs: Path, tmp_path: Path) -> None:
    adata = sm.read(outs)
    image = _adapt.image(adata, preview=True)
    px = _adapt.xy_px(adata, image)
    assert np.allclose(px, adata.obsm["spatial"] * 0.5)
    assert (px >= 0).all()
    assert (px <= image.shape[::-1]).all()
    Image.new("RGB", (520, 520)).save(tmp_path / "scan.png")
    full = _adapt.image(sm.read(outs, image=tmp_path / "scan.png"))
    assert full.um_per_px == pytest.approx(make.UM_PER_PX)
    Image.new("RGB", (60, 60)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match="smaller than the coordinates"):
        sm.read(outs, image=tmp_path / "small.png")


def test_a_scale_of_ones_own_is_used_and_the_lattice_speaks_up(outs: Path) -> None:
    with pytest.warns(SmeldWarning, match="the spot lattice says"):
        adata = sm.read(outs, um_per_unit=0.5)
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == 0.5


def test_without_scale_factors_the_lattice_gives_micrometres(tmp_path: Path) -> None:
    folder = tmp_path / "square_008um"
    make.square(folder, 8)
    for path in (folder / "spatial").glob("*.[jp]*[ng]"):
        path.unlink()
    adata = quiet(folder)
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == pytest.approx(make.UM_PER_PX, rel=1e-9)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _positions(folder: Path, change) -> None:
    path = folder / "spatial/tissue_positions.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)


def _factors(folder: Path, **changed) -> None:
    path = folder / "spatial/scalefactors_json.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


BAD_BINS = {
    "no matrix": (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), "no matrix of counts: filtered_feature_bc"),
    "renamed matrix": (
        lambda f: (f / "filtered_feature_bc_matrix.h5").rename(f / "matrix.h5"),
        "matrix.h5, spatial; cure: copy the matrix",
    ),
    "truncated matrix": (lambda f: _truncate(f / "filtered_feature_bc_matrix.h5"), "cannot be read as a matrix"),
    "no positions": (
        lambda f: (f / "spatial/tissue_positions.parquet").unlink(),
        "positions of the bins are missing: spatial/tissue_positions.parquet",
    ),
    "truncated positions": (
        lambda f: _truncate(f / "spatial/tissue_positions.parquet"),
        "tissue_positions.parquet cannot be read as parquet",
    ),
    "renamed column": (
        lambda f: _positions(f, lambda p: p.rename(columns={"array_row": "row"})),
        "too few columns: array_row missing",
    ),
    "words": (lambda f: _positions(f, lambda p: p.assign(array_row="a")), "'array_row' of tissue_positions.parquet"),
    "foreign barcodes": (
        lambda f: _positions(f, lambda p: p.assign(barcode="x" + p["barcode"])),
        "do not match; found: none of 108",
    ),
    "repeated barcode": (
        lambda f: _positions(f, lambda p: pd.concat([p, p[:1]])),
        "barcodes of the positions file must be unique; found: 1 repeated",
    ),
    "NaN": (lambda f: _positions(f, lambda p: p.assign(pxl_col_in_fullres=np.nan)), "cannot be taken from the lattice"),
    "other size": (lambda f: _factors(f, bin_size_um=2.0), "bins of another size than square_008um; found: bin_size"),
    "other image": (lambda f: _factors(f, microns_per_pixel=0.3), "lattice of the bins disagree; found: 0.3 and 0.27"),
}


@pytest.mark.parametrize("name", BAD_BINS)
def test_bad_bins_are_one_clear_line(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "square_008um"
    make.square(folder, 8)
    assert sm.read(folder).n_obs == 108  # the good twin
    damage, message = BAD_BINS[name]
    damage(folder)
    _one_line(tmp_path, message)


def _one_line(path: Path, message: str, **options) -> None:
    with pytest.raises(InputError) as error:
        quiet(path, **options)
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert "cure:" in text


def _geojson(folder: Path, change) -> None:
    path = folder / "cell_segmentations.geojson"
    content = json.loads(path.read_text())
    for feature in content["features"]:
        change(feature)
    path.write_text(json.dumps(content))


BAD_CELLS = {
    "no matrix": (lambda f: (f / "filtered_feature_cell_matrix.h5").unlink(), "filtered_feature_cell_matrix.h5"),
    "no outlines": (
        lambda f: (f / "cell_segmentations.geojson").rename(f / "cells.json"),
        "outlines of the cells are missing: cell_segmentations.geojson",
    ),
    "truncated": (lambda f: _truncate(f / "cell_segmentations.geojson"), "cannot be read as outlines of cells"),
    "newer: no ids": (lambda f: _geojson(f, lambda x: x.pop("properties")), "cannot be read as outlines of cells"),
    "points": (
        lambda f: _geojson(f, lambda x: x.update(geometry={"type": "Point", "coordinates": [1, 2]})),
        "a Point in place of a polygon",
    ),
    "other cells": (
        lambda f: _geojson(f, lambda x: x.update(properties={"cell_id": x["properties"]["cell_id"] + 100})),
        "and of the positions (cell_segmentations.geojson) do not match",
    ),
    "no pixel's size": (
        lambda f: (f / "spatial/scalefactors_json.json").write_text('{"microns_per_pixel": 1e308}'),
        "microns_per_pixel of scalefactors_json.json is no size of a pixel",
    ),
    "no scale": (
        lambda f: (f / "spatial/scalefactors_json.json").write_text('{"tissue_hires_scalef": 0.5}'),
        "microns_per_pixel is missing",
    ),
}


@pytest.mark.parametrize("name", BAD_CELLS)
def test_bad_cells_are_one_clear_line(tmp_path: Path, name: str) -> None:
    make.segmented(tmp_path / "segmented_outputs")
    damage, message = BAD_CELLS[name]
    damage(tmp_path / "segmented_outputs")
    _one_line(tmp_path, message)


def test_a_cell_outlined_twice_and_no_nuclei(tmp_path: Path) -> None:
    folder = tmp_path / "segmented_outputs"
    make.segmented(folder)
    truth = quiet(tmp_path)
    path = folder / "cell_segmentations.geojson"
    content = json.loads(path.read_text())
    again = json.loads(json.dumps(content["features"][3]))
    again["geometry"]["coordinates"] = [[[x + 300, y + 300] for x, y in again["geometry"]["coordinates"][0]]]
    content["features"].insert(4, again)
    path.write_text(json.dumps(content))
    (folder / "nucleus_segmentations.geojson").unlink(missing_ok=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adata = sm.read(tmp_path, outlines=True)
    text = "\n".join(str(w.message) for w in caught)
    assert "1 cells have outlines in several pieces" in text
    assert "there is no nucleus_segmentations.geojson" in text
    assert np.array_equal(adata.obsm["spatial_um"], truth.obsm["spatial_um"])


def test_bins_have_no_outlines(outs: Path) -> None:
    with pytest.warns(SmeldWarning, match="bins have no outlines"):
        sm.read(outs, outlines=True)


def test_resolutions_that_are_not_there(tmp_path: Path, outs: Path) -> None:
    _one_line(outs, "did you mean 'cells'", resolution="cell")
    make.square(tmp_path / "square_002um", 2)
    make.square(tmp_path / "square_016um", 16)
    _one_line(tmp_path, "resolution 8um is not in this folder; found: 2um, 16um", resolution="8um")
    _one_line(tmp_path, "cannot tell which resolution to read")
    shutil.rmtree(tmp_path / "square_002um")
    assert _adapt.metadata(sm.read(tmp_path))[_keys.META_SPOT_UM] == 16


def test_real_bins_of_2_um(shared_data: Path) -> None:
    """Ten bins of a real slide: the matrix is empty, but its lattice and 10x's own scale agree."""
    from smeld.io import _lattice, _positions

    folder = shared_data / "vendor_fixtures/visium_hd_binned_outputs/square_002um"
    if not folder.is_dir():
        pytest.skip("no real bins")
    for path in (folder, folder.parent):
        _one_line_of_empty(path)
    places = _positions.read(folder / "spatial")
    found = _lattice.fit(_lattice.square_um(places.array_col, places.array_row, 2.0), places.xy)
    stated = json.loads((folder / "spatial/scalefactors_json.json").read_text())["microns_per_pixel"]
    assert found.um_per_unit == pytest.approx(stated, rel=2e-3)
    assert found.rms_um < 1.0


def _one_line_of_empty(path: Path) -> None:
    with pytest.raises(InputError, match="nothing but zeros"):
        quiet(path)
