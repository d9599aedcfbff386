"""CosMx flat files, of AtoMx and of the early releases."""

from __future__ import annotations

import gzip
import itertools
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from _cell_checks import assert_refused, assert_same, assert_true, edit, quiet, warned
from _make_cells_b import COSMX_UM, GENES, cosmx, truncate

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import SmeldWarning


@pytest.mark.parametrize("version", ["atomx", "legacy"])
def test_counts_positions_and_controls_are_true(tmp_path: Path, version: str) -> None:
    truth = cosmx(tmp_path / "d", version=version)
    adata = quiet(tmp_path / "d")
    assert_true(adata, truth, GENES)
    assert list(adata.var_names) == GENES
    assert list(adata.obs["fov"]) == list(truth.loc[adata.obs_names, "fov"])
    assert np.allclose(adata.obs["cell_area_um2"], 2500 * COSMX_UM**2)
    assert list(adata.obs["Mean.DAPI"]) == list(5 + truth.loc[adata.obs_names, "fov"])
    assert adata.obsm["negative_probe"].shape == (len(truth), 2)
    assert ("system_control" in adata.obsm) == (version == "atomx")
    assert (adata.obsm["negative_probe"].index == adata.obs_names).all()
    again = quiet(tmp_path / "d", region_um=(0, 0, 200, 400))
    assert set(again.obs_names) == set(truth.index[truth["x"] <= 200])


@pytest.mark.parametrize("version", ["atomx", "legacy"])
def test_order_of_rows_and_compression_do_not_matter(tmp_path: Path, version: str) -> None:
    cosmx(tmp_path / "a", version=version)
    cosmx(tmp_path / "b", version=version, order=5, zipped=version == "legacy")
    assert_same(quiet(tmp_path / "a"), quiet(tmp_path / "b"))


def test_outlines_are_squares_around_the_cells(tmp_path: Path) -> None:
    cosmx(tmp_path / "d", order=3)
    adata = quiet(tmp_path / "d", outlines=True)
    outlines = adata.uns[_keys.OUTLINES]
    assert np.array_equal(np.diff(outlines["start"]), np.full(adata.n_obs, 4))
    centres = outlines["xy_um"].reshape(-1, 4, 2).mean(axis=1)
    assert np.allclose(centres, adata.obsm["spatial_um"], atol=1e-3)
    assert np.allclose(np.ptp(outlines["xy_um"].reshape(-1, 4, 2), axis=1), 50 * COSMX_UM, atol=1e-3)
    cosmx(tmp_path / "old", version="legacy")
    assert "no outlines" in warned(tmp_path / "old", outlines=True)[1]


def um_per_px(folder: Path, **options: float) -> tuple[float, bool]:
    """The pixel size taken, and whether it was a guess."""
    adata, text = warned(folder, **options)
    return _adapt.metadata(adata)[_keys.META_UM_PER_UNIT], "pixel size is in none" in text


def test_where_the_pixel_size_comes_from(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    cosmx(folder, zipped=False)
    assert um_per_px(folder) == (COSMX_UM, False)
    frames, meta = folder / "S1_fov_positions_file.csv", folder / "S1_metadata_file.csv"
    # the prototype's pixels, by its frames in mm
    edit(frames, lambda f: f.assign(x_global_mm=f["x_global_px"].astype(float) * 0.18 / 1000))
    assert um_per_px(folder) == (pytest.approx(0.18), False)
    frames.unlink()  # then by areas given twice
    edit(meta, lambda f: f.assign(**{"Area.um2": 2500 * 0.169**2}))
    assert um_per_px(folder) == (pytest.approx(0.169), False)
    edit(meta, lambda f: f.drop(columns="Area.um2"))
    assert um_per_px(folder) == (COSMX_UM, True)
    assert um_per_px(folder, um_per_unit=0.169) == (0.169, False)
    edit(meta, lambda f: f.assign(CenterX_local_px=5400))  # wider frames than the commercial camera takes
    assert um_per_px(folder) == (0.18, True)


def spoil_sizes(folder: Path) -> None:
    edit(folder / "S1_fov_positions_file.csv", lambda f: f.assign(x_global_mm=f["x_global_px"]))


REFUSED = {
    "counts missing": (lambda d: (d / "S1_exprMat_file.csv").unlink(), ("*exprMat_file.csv", "S1_metadata_file.csv")),
    "cells missing": (lambda d: (d / "S1_metadata_file.csv").unlink(), ("*metadata_file.csv", "copy the file")),
    "cells renamed": (
        lambda d: (d / "S1_metadata_file.csv").rename(d / "S1_cells.csv"), ("*metadata_file.csv", "S1_cells.csv")
    ),
    "two sections": (lambda d: (d / "S2_exprMat_file.csv").touch(), ("cannot tell which file", "one section a folder")),
    "empty": (lambda d: truncate(d / "S1_metadata_file.csv", 0.0), ("S1_metadata_file.csv", "truncated")),
    "truncated": (
        lambda d: truncate(d / "S1_exprMat_file.csv"), ("S1_exprMat_file.csv", "cells for 13 names", "truncated")
    ),
    "newer version": (
        lambda d: edit(d / "S1_metadata_file.csv", lambda f: f.rename(columns={"CenterX_global_px": "x_slide_mm"})),
        ("CenterX_global_px", "newer version"),
    ),
    "other section's counts": (
        lambda d: edit(d / "S1_exprMat_file.csv", lambda f: f.assign(fov="9" + f["fov"])),
        ("do not match", "none of 40 in common", "same section"),
    ),
    "cells twice": (
        lambda d: edit(d / "S1_exprMat_file.csv", lambda f: pd.concat([f, f])), ("must be unique", "repeated")
    ),
    "words": (
        lambda d: edit(d / "S1_metadata_file.csv", lambda f: f.assign(CenterY_global_px="up")),
        ("CenterY_global_px", "must hold numbers"),
    ),
    "no plausible pixel": (spoil_sizes, ("no plausible pixel size", "--um-per-unit")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    cosmx(tmp_path / "d", zipped=False)
    spoil, words = REFUSED[name]
    assert_refused(tmp_path / "d", spoil, *words)


def test_truncated_gzip_and_part_matches(tmp_path: Path) -> None:
    cosmx(tmp_path / "d")
    assert_refused(tmp_path / "d", lambda d: truncate(d / "S1_exprMat_file.csv.gz"), "exprMat_file.csv.gz", "truncated")
    cosmx(tmp_path / "e", zipped=False)
    edit(tmp_path / "e/S1_exprMat_file.csv", lambda f: f.iloc[3:])
    edit(tmp_path / "e/S1_metadata_file.csv", lambda f: f.iloc[:-2])
    adata, text = warned(tmp_path / "e")
    assert adata.n_obs == 35
    assert "2 cells with counts have no position" in text
    assert "3 cells with a position have no counts" in text


def test_real_flat_files(shared_data: Path) -> None:
    folder = shared_data / "vendor_fixtures/cosmx"
    if not folder.is_dir():
        pytest.skip("no real flat files")
    adata, text = warned(folder, outlines=True)
    assert adata.shape == (27, 950)  # a row for what lies outside cells is gone, ten negative probes are apart
    assert "pixel size is in none" in text
    counts = pd.read_csv(folder / "Run5642_S3_Quarter_exprMat_file.csv")
    one = counts[(counts["fov"] == 1) & (counts["cell_ID"] == 415)].iloc[0]
    assert adata["1_415", "Snap25"].X.toarray().item() == one["Snap25"] > 0
    meta = pd.read_csv(folder / "Run5642_S3_Quarter_metadata_file.csv").set_index("cell_ID")
    px = np.hypot(
        *(
            meta.loc[367, ["CenterX_global_px", "CenterY_global_px"]]
            - meta.loc[583, ["CenterX_global_px", "CenterY_global_px"]]
        )
    )
    apart = np.diff(adata[["1_367", "1_583"]].obsm["spatial_um"], axis=0)
    assert np.hypot(*apart[0]) == pytest.approx(px * COSMX_UM)
    # outlines hold what the segmentation counted
    start, xy = adata.uns[_keys.OUTLINES]["start"], adata.uns[_keys.OUTLINES]["xy_um"].astype(float)
    areas = [shoelace(xy[a:b]) for a, b in itertools.pairwise(start)]
    assert np.median(areas / adata.obs["cell_area_um2"]) == pytest.approx(1, abs=0.02)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        assert sm.read(folder, "cosmx", um_per_unit=0.18).obsm["spatial_um"][0, 0] == pytest.approx(171619 * 0.18)


def shoelace(ring: np.ndarray) -> float:
    x, y = (ring - ring[0]).T
    return abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2


def lines(path: Path, change) -> None:
    """Change the cells of every line; the first is that of the names."""
    rows = [line.split(",") for line in path.read_text().splitlines()]
    path.write_text("".join(",".join(change(i, row)) + "\n" for i, row in enumerate(rows)))


WIDE = {
    "a saved index": (lambda i, row: ["" if i == 0 else str(i - 1), *row], "without a name were left out: number 1"),
    "pandas' name of one": (lambda i, row: [*row[:1], "Unnamed: 0" if i == 0 else "3", *row[1:]], "number 2"),
    "names of rows, as R writes them": (lambda i, row: row if i == 0 else [f'"{i}"', *row], "number 1"),
    "a comma at the end": (lambda i, row: row if i == 0 else [*row, ""], "number 14"),
    "blanks": (lambda i, row: [f" {cell} " for cell in row], ""),
}


@pytest.mark.parametrize("name", WIDE)
def test_columns_without_a_name_are_no_genes(tmp_path: Path, name: str) -> None:
    cosmx(tmp_path / "d", zipped=False)
    truth = quiet(tmp_path / "d")
    change, message = WIDE[name]
    lines(tmp_path / "d/S1_exprMat_file.csv", change)
    adata, text = warned(tmp_path / "d")
    assert_same(truth, adata)
    assert adata.var_names.equals(truth.var_names)
    assert message in text


TORN = {
    "a cell more": (lambda i, row: [*row[:4], "9", *row[4:]] if i == 5 else row, "row 5 (2,"),
    "a cell less": (lambda i, row: row[:-1] if i == 5 else row, "has 12 cells for 13 names"),
    "no field of view": (lambda i, row: ["", *row[1:]] if i == 3 else row, "row 3 has no fov"),
    "fov twice": (lambda i, row: [*row, "fov" if i == 0 else "1"], "'fov' comes twice"),
    "an empty cell": (lambda i, row: [*row[:-1], ""] if i == 3 else row, "has empty cells"),
    "controls below 0": (lambda i, row: [*row[:-1], "-3"] if i == 3 else row, "'System Control' must be finite"),
}


@pytest.mark.parametrize("name", TORN)
def test_rows_unlike_the_names_are_refused(tmp_path: Path, name: str) -> None:
    cosmx(tmp_path / "d", zipped=False)
    change, message = TORN[name]
    file = "" if "below" in name else "S1_exprMat_file.csv"
    assert_refused(tmp_path / "d", lambda d: lines(d / "S1_exprMat_file.csv", change), file, message)


def test_repeated_genes_and_fields_of_view_without_a_number(tmp_path: Path) -> None:
    cosmx(tmp_path / "d", zipped=False)
    lines(tmp_path / "d/S1_exprMat_file.csv", lambda i, row: [*row[:3], "Gene0", *row[4:]] if i == 0 else row)
    adata, text = warned(tmp_path / "d")
    assert "1 gene names occur more than once" in text
    assert "Gene0-1" in adata.var_names
    spoil = partial(edit, change=lambda f: f.assign(fov=["", *f["fov"].tolist()[1:]]))
    assert_refused(tmp_path / "d", lambda d: spoil(d / "S1_metadata_file.csv"), "'fov' of S1_metadata_file.csv")


def test_gzip_is_told_by_content_and_hidden_files_are_none(tmp_path: Path) -> None:
    cosmx(tmp_path / "d", zipped=False)
    truth = quiet(tmp_path / "d")
    for name in ("exprMat", "metadata"):
        (tmp_path / f"d/S1_{name}_file.csv").rename(tmp_path / f"d/S1_{name}_file.csv.gz")
        (tmp_path / f"d/._S1_{name}_file.csv.gz").write_bytes(b"\x00\x05")
    assert_same(truth, quiet(tmp_path / "d"))
    for name in ("exprMat", "metadata"):
        plain = tmp_path / f"d/S1_{name}_file.csv.gz"
        plain.with_suffix("").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    assert_same(truth, quiet(tmp_path / "d"))


def test_a_comma_at_the_end_of_the_cells_rows(tmp_path: Path) -> None:
    cosmx(tmp_path / "d", zipped=False)
    truth = quiet(tmp_path / "d")
    lines(tmp_path / "d/S1_metadata_file.csv", lambda i, row: row if i == 0 else [*row, ""])
    assert_same(truth, quiet(tmp_path / "d"))


def test_a_name_that_merscope_has_too(tmp_path: Path) -> None:
    cosmx(tmp_path / "d")
    for name in ("exprMat", "metadata"):
        (tmp_path / f"d/S1_{name}_file.csv.gz").rename(tmp_path / f"d/S1_cell_{name}_file.csv.gz")
    assert quiet(tmp_path / "d").n_obs == 40


def test_an_image_through_its_alignment(tmp_path: Path) -> None:
    """Pixels of the image to units of the coordinates: a scan of half the resolution, moved and turned by a quarter."""
    cosmx(tmp_path / "d")
    matrix = np.array([[0.0, -2.0, 3500.0], [2.0, 0.0, -100.0], [0, 0, 1.0]])
    np.savetxt(tmp_path / "m.csv", matrix, delimiter=",")
    tifffile.imwrite(tmp_path / "he.tif", np.full((1900, 1900, 3), 200, dtype=np.uint8), photometric="rgb")
    adata = quiet(tmp_path / "d", image=tmp_path / "he.tif", image_alignment=tmp_path / "m.csv")
    image = _adapt.image(adata)
    assert image is not None
    px = np.column_stack([image.place(adata.obsm["spatial"]), np.ones(adata.n_obs)])
    assert np.allclose(px @ matrix[:2].T, adata.obsm["spatial"])
    assert image.um_per_px == pytest.approx(2 * COSMX_UM)
