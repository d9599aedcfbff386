"""Xenium of every version: counts and places by identifier, in micrometres, and each bad input in one clear line."""

from __future__ import annotations

import json
import warnings
import zipfile
from functools import partial
from itertools import pairwise
from pathlib import Path

import _make_cells_a as make
import numpy as np
import pandas as pd
import pytest
import tifffile

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning
from smeld.io import _pictures, _transcripts, _xenium_zarr


def quiet(path: Path, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, *args, **options)


FORMS = [
    {"version": 1}, {"version": 2}, {"version": 4}, {"version": 1, "zarr_only": True}, {"version": 2, "zarr_only": True}
]  # fmt: skip


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_version_gives_the_same_cells(tmp_path: Path, form: dict) -> None:
    truth = make.xenium(tmp_path / "s", **form)
    adata = quiet(tmp_path / "s", outlines=True)
    assert adata.uns["smeld"]["read"]["inputs"]["platform"] == "xenium"
    assert adata.obs_names.tolist() == truth.names
    assert adata.var_names.tolist() == make.XENIUM_GENES[:6]
    assert adata.var["gene_ids"].iloc[1] == "ENSG00000000001"
    assert np.array_equal(adata.X.toarray(), truth.counts[:, :6])
    assert adata[truth.names[7], "GENE3"].X.toarray().item() == truth.counts[7, 3]
    assert np.allclose(adata.obsm["spatial_um"], truth.um)
    apart = np.linalg.norm(np.subtract(*adata.obsm["spatial_um"][[0, 41]]))
    assert apart == pytest.approx(np.linalg.norm(np.subtract(*truth.um[[0, 41]])))
    assert np.allclose(adata.obs["cell_area_um2"], truth.area)
    assert np.allclose(adata.obs["nucleus_area_um2"], truth.area / 4)
    assert np.array_equal(adata.obsm["negative_control_probe"].to_numpy()[:, 0], truth.counts[:, 6])
    assert np.array_equal(adata.obsm["unassigned_codeword"].to_numpy()[:, 0], truth.counts[:, 7])
    for key, share in ((_keys.OUTLINES, 1.0), (_keys.NUCLEI, 0.5)):
        start, xy = adata.uns[key]["start"], adata.uns[key]["xy_um"]
        assert len(start) == adata.n_obs + 1
        for cell in (0, 17, 41):
            radius = np.linalg.norm(xy[start[cell] : start[cell + 1]] - truth.um[cell], axis=1)
            assert np.allclose(radius, share * truth.r_um[cell], atol=1e-4)


def test_columns_and_proteins_of_later_versions(tmp_path: Path) -> None:
    make.xenium(tmp_path / "two", version=2)
    two = quiet(tmp_path / "two")
    assert (two.obs["segmentation_method"] == "Segmented by nucleus expansion of 5.0um").all()
    assert (two.obs["nucleus_count"] == 1).all()
    make.xenium(tmp_path / "four", version=4)
    four = quiet(tmp_path / "four")
    assert np.allclose(four.obsm["protein"]["CD45"], np.linspace(0.5, 90.5, four.n_obs))
    assert "CD45" not in four.var_names


@pytest.mark.parametrize("kept", ["parquet", "csv.gz"])
def test_tables_of_either_kind_and_in_any_order(tmp_path: Path, kept: str) -> None:
    order = np.random.default_rng(100).permutation(42)
    truth = make.xenium(tmp_path / "s", order=order)
    other = "csv.gz" if kept == "parquet" else "parquet"
    for path in (tmp_path / "s").glob(f"*.{other}"):
        path.unlink()
    adata = quiet(tmp_path / "s", outlines=True)
    assert np.allclose(adata[truth.names].obsm["spatial_um"], truth.um)
    assert np.allclose(adata[truth.names].obs["cell_area_um2"], truth.area)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ending", ["csv.gz", "csv", "parquet"])
def test_counts_of_transcripts_and_places_of_outlines(tmp_path: Path, version: int, ending: str) -> None:
    folder = tmp_path / "s"
    truth = make.xenium(folder, version=version)
    for path in [folder / "cell_feature_matrix.h5", *folder.glob("cells.*")]:
        path.unlink()
    make.transcripts(folder / f"transcripts.{ending}", truth)
    with pytest.warns(SmeldWarning) as caught:
        adata = sm.read(folder)
    said = " ".join(str(w.message) for w in caught)
    assert f"counts were made of transcripts.{ending} (quality 20 and more)" in said
    assert "positions and areas were taken from the outlines in cell_boundaries" in said
    adata = adata[truth.names]
    assert np.array_equal(adata[:, make.XENIUM_GENES[:6]].X.toarray(), truth.counts[:, :6])
    assert np.array_equal(adata.obsm["unassigned_codeword"].to_numpy()[:, 0], truth.counts[:, 7])
    assert np.allclose(adata.obsm["spatial_um"], truth.um)
    assert np.allclose(adata.obs["cell_area_um2"], truth.area)


def test_transcripts_are_counted_the_same_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = make.xenium_cells()
    make.transcripts(tmp_path / "t.csv", truth)
    known = {"cell": "cell_id", "gene": "feature_name", "more": ("qv",)}
    one = _transcripts.count(tmp_path / "t.csv", **known, keep=lambda b: (b["qv"] >= 0).to_numpy())
    monkeypatch.setattr(_transcripts, "BLOCK_ROWS", 17)
    two = _transcripts.count(tmp_path / "t.csv", **known, keep=lambda b: (b["qv"] >= 0).to_numpy())
    assert one.cells == two.cells
    assert one.genes == two.genes
    assert (one.counts != two.counts).nnz == 0
    assert one.counts.sum() == 3 * truth.counts.sum()


def test_names_of_cells_are_those_of_the_vendor() -> None:
    """The example of 10x's page on zarr files: 1437536272, 1 is ffkpbaba-1."""
    pairs = np.array([[1437536272, 1], [0, 2], [2**32 - 1, 1]], dtype=np.uint32)
    assert _xenium_zarr.cell_names(pairs) == ["ffkpbaba-1", "aaaaaaaa-2", "pppppppp-1"]
    assert _xenium_zarr.cell_names(np.array([7, 12])) == ["7", "12"]


def test_region_keeps_cells_and_their_outlines(tmp_path: Path) -> None:
    truth = make.xenium(tmp_path / "s")
    part = quiet(tmp_path / "s", outlines=True, region_um=(0, 0, 40, 60))
    inside = (truth.um <= (40, 60)).all(axis=1)
    assert part.obs_names.tolist() == [n for n, k in zip(truth.names, inside) if k]
    start, xy = part.uns[_keys.OUTLINES]["start"], part.uns[_keys.OUTLINES]["xy_um"]
    assert np.allclose(xy[start[3] : start[4] - 1].mean(axis=0), truth.um[inside][3], atol=1e-4)


@pytest.mark.parametrize("version", [1, 2, 4])
def test_fluorescence_is_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    monkeypatch.setattr(_pictures, "PREVIEW_PX", 100)  # so that the file itself is finer than what is stored
    make.xenium(tmp_path / "s", version=version)
    adata = quiet(tmp_path / "s")
    image = _adapt.image(adata)
    assert image.shape == (560, 480)
    assert image.um_per_px == pytest.approx(make.PIXEL_UM)
    assert np.allclose(_adapt.xy_px(adata, image), adata.obsm["spatial_um"] / make.PIXEL_UM, atol=1)


def test_he_image_is_used_through_its_alignment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pictures, "PREVIEW_PX", 150)
    make.xenium(tmp_path / "s")
    matrix = make.registered(tmp_path / "s")
    adata = quiet(tmp_path / "s")
    image = _adapt.image(adata)
    assert image.shape == (240, 280)
    assert image.um_per_px == pytest.approx(2 * make.PIXEL_UM)
    back = np.column_stack([_adapt.xy_px(adata, image), np.ones(adata.n_obs)]) @ matrix.T
    assert np.allclose(back[:, :2] * make.PIXEL_UM, adata.obsm["spatial_um"], atol=make.PIXEL_UM)
    shown = _adapt.image(adata, preview=True)  # in the frame of the coordinates
    x, y = (np.array([30.0, 40.0]) * shown.scale).astype(int)
    assert shown.pixels()[y, x].mean() < 60
    assert np.median(shown.pixels()) > 200


def test_he_image_of_ones_own(tmp_path: Path) -> None:
    make.xenium(tmp_path / "s", image=False)
    (tmp_path / "he").mkdir()
    make.registered(tmp_path / "he")
    scan = tmp_path / "he/S_he_image.ome.tif"
    beside = quiet(tmp_path / "s", image=scan)
    table = (tmp_path / "he/S_he_imagealignment.csv").rename(tmp_path / "he/mine.csv")
    named = quiet(tmp_path / "s", image=scan, image_alignment=table)
    for adata in (beside, named):
        assert _adapt.image(adata).um_per_px == pytest.approx(2 * make.PIXEL_UM)
    _one_line(tmp_path / "s", "where image S_he_image.ome.tif lies on the section is not known", image=scan)
    tifffile.imwrite(tmp_path / "he/same.tif", np.zeros((120, 100, 3), dtype=np.uint8), photometric="rgb")
    scaled = quiet(tmp_path / "s", image=tmp_path / "he/same.tif", image_scale=1.0)
    assert _adapt.image(scaled).um_per_px == pytest.approx(1.0)


def test_images_that_do_not_lie_under_the_cells(tmp_path: Path) -> None:
    make.xenium(tmp_path / "s")
    tifffile.imwrite(tmp_path / "s/morphology_focus/morphology_focus_0000.ome.tif", np.zeros((60, 60), np.uint16))
    with pytest.warns(SmeldWarning, match="the background was left out: image morphology_focus_0000"):
        assert _adapt.image(sm.read(tmp_path / "s")) is None
    matrix = make.registered(tmp_path / "s")
    matrix[0, 2] += 5000
    np.savetxt(tmp_path / "s/S_he_imagealignment.csv", matrix, delimiter=",")
    _one_line(tmp_path / "s", "image S_he_image.ome.tif does not lie under the coordinates")
    (tmp_path / "s/S_he_imagealignment.csv").unlink()
    with pytest.warns(SmeldWarning, match="has no alignment beside it"):
        sm.read(tmp_path / "s")


def test_outs_folder_and_sections_without_experiment_file(tmp_path: Path) -> None:
    truth = make.xenium(tmp_path / "sample/outs")
    for path in (tmp_path / "sample", tmp_path / "sample/outs"):
        assert list(quiet(path).uns["spatial"]) == ["sample"]
    (tmp_path / "sample/outs/experiment.xenium").unlink()
    assert np.allclose(quiet(tmp_path / "sample/outs").obsm["spatial_um"], truth.um)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"analysis_sw_version": "xenium-5.1.0"}, "version xenium-5.1.0 is newer than what smeld knows"),
        ({"xenium_ranger": {"version": "xenium-7.0.1.1"}}, "version xenium-7.0.1.1 is newer"),
        ({"num_cells": 50}, "speaks of 50 cells, but 42 were found"),
    ],
)
def test_newer_versions_and_lacking_cells_are_said(tmp_path: Path, changed: dict, message: str) -> None:
    make.xenium(tmp_path / "s")
    path = tmp_path / "s/experiment.xenium"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.warns(SmeldWarning, match=message):
        assert sm.read(tmp_path / "s").n_obs == 42


def test_cells_that_only_one_file_has(tmp_path: Path) -> None:
    make.xenium(tmp_path / "s", version=1)
    _cells(tmp_path / "s", lambda c: c.iloc[5:])
    with pytest.warns(SmeldWarning, match="5 cells with counts have no position"):
        assert sm.read(tmp_path / "s").n_obs == 37


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _cells(folder: Path, change) -> None:
    path = folder / "cells.csv.gz"
    change(pd.read_csv(path)).to_csv(path, index=False)


def _one_line(path: Path, message: str, **options) -> None:
    with pytest.raises(InputError) as error:
        quiet(path, **options)
    text = str(error.value)
    assert message in text
    assert "\n" not in text
    assert "cure:" in text


BAD = {
    "no matrix": (
        lambda f: (f / "cell_feature_matrix.h5").unlink(),
        "no matrix of counts: cell_feature_matrix.h5",
    ),
    "packed matrix": (
        lambda f: (f / "cell_feature_matrix.h5").rename(f / "cell_feature_matrix.tar.gz"),
        "cure: unpack cell_feature_matrix.tar.gz",
    ),
    "truncated matrix": (lambda f: _truncate(f / "cell_feature_matrix.h5"), "cell_feature_matrix.h5 cannot be read"),
    "no cells": (
        lambda f: [p.unlink() for p in (f / "cells.csv.gz", f / "cell_boundaries.csv.gz")],
        "no positions of the cells: expected cells.csv.gz",
    ),
    "renamed cells": (
        lambda f: [(f / "cells.csv.gz").rename(f / "my.csv.gz"), (f / "cell_boundaries.csv.gz").unlink()],
        "my.csv.gz",
    ),
    "truncated cells": (lambda f: _truncate(f / "cells.csv.gz"), "cells.csv.gz cannot be read as a table"),
    "newer: renamed column": (
        lambda f: _cells(f, lambda c: c.rename(columns={"x_centroid": "centroid_x"})),
        "cells.csv.gz lacks the columns x_centroid",
    ),
    "words": (lambda f: _cells(f, lambda c: c.assign(x_centroid="left")), "'x_centroid' of cells.csv.gz must hold"),
    "NaN": (lambda f: _cells(f, lambda c: c.assign(x_centroid=np.nan)), "coordinates must be finite"),
    "other cells": (
        lambda f: _cells(f, lambda c: c.assign(cell_id=c["cell_id"] + 1000)),
        "and of the positions (cells.csv.gz) do not match; found: none of 42",
    ),
    "repeated": (lambda f: _cells(f, lambda c: pd.concat([c, c[:2]])), "positions (cells.csv.gz) must be unique"),
    "experiment cut": (lambda f: _truncate(f / "experiment.xenium"), "experiment.xenium cannot be read"),
    "pixel of nothing": (
        lambda f: (f / "experiment.xenium").write_text('{"pixel_size": 0}'),
        "pixel_size of experiment.xenium must be micrometres",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path: Path, name: str) -> None:
    make.xenium(tmp_path / "s", version=1, image=False)
    damage, message = BAD[name]
    damage(tmp_path / "s")
    _one_line(tmp_path / "s", message)


def _lose(folder: Path, *, name: str, key: str) -> None:
    """Leave out the chunks of an array, not what describes it."""
    path = folder / f"{name}.zarr.zip"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(folder / "new.zip", "w") as new:
        for item in old.namelist():
            if not item.startswith(f"{key}/") or item.rpartition("/")[2].startswith(".z"):
                new.writestr(item, old.read(item))
    (folder / "new.zip").replace(path)


BAD_ZARR = {
    "truncated": (lambda f: _truncate(f / "cells.zarr.zip"), "cells.zarr.zip cannot be read as Xenium's zarr"),
    "no matrix": (lambda f: (f / "cell_feature_matrix.zarr.zip").unlink(), "no matrix of counts"),
    **{
        f"no chunks of {key}": (partial(_lose, name=name, key=key), "are missing")
        for name, key in (
            ("cells", "cell_id"), ("cells", "cell_summary"), ("cell_feature_matrix", "cell_features/data"),
            ("cell_feature_matrix", "cell_features/indices"), ("cell_feature_matrix", "cell_features/cell_id"),
            ("cells", "polygon_sets/1/vertices"),
        )
    },
    "another file": (
        lambda f: (f / "cell_feature_matrix.zarr.zip").write_bytes((f / "cells.zarr.zip").read_bytes()),
        "cell_feature_matrix.zarr.zip cannot be read as Xenium's zarr",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ZARR)
def test_bad_zarr_is_one_clear_line(tmp_path: Path, name: str) -> None:
    make.xenium(tmp_path / "s", zarr_only=True, image=False)
    damage, message = BAD_ZARR[name]
    damage(tmp_path / "s")
    _one_line(tmp_path / "s", message, outlines=True)


def test_transcripts_without_a_column(tmp_path: Path) -> None:
    truth = make.xenium(tmp_path / "s", version=1, image=False)
    (tmp_path / "s/cell_feature_matrix.h5").unlink()
    make.transcripts(tmp_path / "s/transcripts.csv", truth)
    path = tmp_path / "s/transcripts.csv"
    path.write_text(path.read_text().replace("feature_name", "target"))
    _one_line(tmp_path / "s", "transcripts.csv lacks the columns feature_name")


@pytest.mark.parametrize("without_cells", [False, True])
def test_outlines_in_pieces_and_without_a_number(tmp_path: Path, without_cells: bool) -> None:
    make.xenium(tmp_path / "s", version=1, image=False)
    if without_cells:
        (tmp_path / "s/cells.csv.gz").unlink()
    truth = quiet(tmp_path / "s", outlines=True)
    path = tmp_path / "s/cell_boundaries.csv.gz"
    frame = pd.read_csv(path)
    again = frame[:9].assign(vertex_x=lambda f: f["vertex_x"] + 300)  # the first cell has a second piece far away
    pd.concat([frame, again]).to_csv(path, index=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adata = sm.read(tmp_path / "s", outlines=True)
    assert any("1 cells" in str(w.message) and "several pieces" in str(w.message) for w in caught)
    assert np.allclose(adata.obsm["spatial_um"], truth.obsm["spatial_um"])
    for key in ("xy_um", "start"):
        assert np.array_equal(adata.uns[_keys.OUTLINES][key], truth.uns[_keys.OUTLINES][key])
    if not without_cells:
        frame.loc[3, "vertex_x"] = np.nan
        frame.to_csv(path, index=False)
        with pytest.warns(SmeldWarning, match="1 vertices of outlines are NaN"):
            adata = sm.read(tmp_path / "s", outlines=True)
        assert np.isfinite(adata.uns[_keys.OUTLINES]["xy_um"]).all()


def test_cells_of_another_section_with_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make.xenium(tmp_path / "s", version=1, image=False)
    monkeypatch.setattr("smeld.io._cells.MIN_COMPARED", 20)
    sums = made.counts[:, : len(quiet(tmp_path / "s").var_names)].sum(axis=1)
    order = np.argsort(np.random.default_rng(0).random(len(sums)))
    _cells(tmp_path / "s", lambda c: c.assign(transcript_counts=sums[order]))
    _one_line(tmp_path / "s", "the cells of cells.csv.gz are those of another section")


def test_an_alignment_of_no_image(tmp_path: Path) -> None:
    make.xenium(tmp_path / "s", image=False)
    (tmp_path / "m.csv").write_text("1,0,0\n0,1,0\n0,0,1\n")
    _one_line(tmp_path / "s", "no image that it could be of", image_alignment=tmp_path / "m.csv")


def test_real_crop(shared_data: Path) -> None:
    folder = shared_data / "vendor_fixtures/xenium/crop_v1"
    if not folder.is_dir():
        pytest.skip("no real section")
    adata = quiet(folder, outlines=True)
    assert adata.shape == (526, 27)
    # an independent join, and the vendor's own sums and areas
    table = pd.read_csv(folder / "cells.csv.gz", index_col="cell_id").loc[adata.obs_names]
    assert np.allclose(adata.obsm["spatial_um"], table[["x_centroid", "y_centroid"]], atol=1e-3)
    # the matrix holds 30 features of the panel, the sums are of all
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    assert (depth <= table["transcript_counts"]).all()
    assert np.corrcoef(depth, table["transcript_counts"])[0, 1] > 0.8
    assert (adata.obsm["negative_control_probe"].sum(axis=1) <= table["control_probe_counts"]).all()
    start, xy = adata.uns[_keys.OUTLINES]["start"], adata.uns[_keys.OUTLINES]["xy_um"]
    x, y = xy.astype(float).T
    ends = pairwise(start)
    area = [abs(np.dot(x[a : b - 1], y[a + 1 : b]) - np.dot(y[a : b - 1], x[a + 1 : b])) / 2 for a, b in ends]
    assert np.corrcoef(area, table["cell_area"])[0, 1] > 0.98  # outlines are simplified masks


def test_real_sections_without_matrix(shared_data: Path) -> None:
    folder = shared_data / "vendor_fixtures/xenium/mouse_brain_v1"
    if not folder.is_dir():
        pytest.skip("no real section")
    for name, n_cells in (("sample1", 5), ("sample2", 9)):
        adata = quiet(folder / name)
        assert adata.n_obs == n_cells
        read = pd.read_csv(folder / name / "transcripts.csv", dtype={"cell_id": str})
        read = read[(read["qv"] >= 20) & (read["cell_id"] == adata.obs_names[2])]
        gene = read["feature_name"].value_counts().index[0]
        assert adata[adata.obs_names[2], gene].X.toarray().item() == (read["feature_name"] == gene).sum()
        middle = pd.read_csv(folder / name / "transcripts.csv").groupby("cell_id")[["x_location", "y_location"]].mean()
        near = middle.loc[adata.obs_names.astype(int)].to_numpy() - adata.obsm["spatial_um"]
        # molecules of a cell lie around its centroid (a few of them were kept)
        assert np.median(np.linalg.norm(near, axis=1)) < 6
        assert np.linalg.norm(near, axis=1).max() < 15
