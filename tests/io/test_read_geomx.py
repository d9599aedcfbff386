"""GeoMx DSP tables: endings, scans, negative probes, and what is refused."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

import _make_cells_c as make
import numpy as np
import pytest

import smeld as sm
from smeld import _keys
from smeld._check import InputError, SmeldWarning

SEC = make.truth(5, apart=600.0)


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


@pytest.mark.parametrize("ending", ["csv", "tsv", "txt.gz"])
def test_counts_places_and_probes(tmp_path: Path, ending: str) -> None:
    adata = quiet(make.geomx(tmp_path / "d", SEC, ending=ending), um_per_unit=0.4)
    at = [SEC.names.index(name) for name in adata.obs_names]
    assert np.array_equal(adata[:, make.GENES].X.toarray(), SEC.counts[at])
    assert adata.var_names.tolist() == make.GENES
    assert adata.obsm["negative_probe"]["NegProbe-WTX"].tolist() == [i % 5 for i in at]
    assert np.allclose(adata.obsm["spatial_um"], SEC.um[at])
    assert adata.obs["cell_area_um2"].tolist() == [31_000.5] * adata.n_obs
    assert adata.obs["roi"].tolist() == [f"{i + 1:03d}" for i in at]
    other = quiet(make.geomx(tmp_path / "e", SEC.permuted(), ending=ending), um_per_unit=0.4)
    assert np.array_equal(other[adata.obs_names].obsm["spatial_um"], adata.obsm["spatial_um"])
    assert (other[adata.obs_names].X != adata.X).nnz == 0


def test_the_unit_is_not_stated(tmp_path: Path) -> None:
    with pytest.warns(SmeldWarning, match="unit of the coordinates is not known"):
        sm.read(make.geomx(tmp_path / "d", SEC))


def test_one_scan_at_a_time(tmp_path: Path) -> None:
    folder = make.geomx(tmp_path / "d", SEC, scans=2)
    with pytest.raises(InputError, match=r"holds 2 scans.*found: scan 0, scan 1.*--table"):
        quiet(folder)
    with pytest.raises(InputError, match="no scan 'scan 7'"):
        quiet(folder, table="scan 7")
    adata = quiet(folder, table="scan 1", um_per_unit=0.4)
    assert sorted(adata.obs_names) == sorted(SEC.names[1::2])
    assert not any("left out" in text for text in _keys.kept_warnings(adata) if "segments" in text)


def test_segments_of_one_region_are_said_to_share_its_place(tmp_path: Path) -> None:
    same = make.Truth(SEC.names, SEC.counts, SEC.um.copy())
    same.um[1] = same.um[0]
    with pytest.warns(SmeldWarning, match="1 segments share the coordinates"):
        sm.read(make.geomx(tmp_path / "d", same))


COUNTS, SEGMENTS = "Export_TargetCountMatrix.csv", "Export_SegmentProperties.csv"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "counts missing": (lambda p: (p / COUNTS).unlink(), r"TargetCountMatrix not found: expected \*TargetCountMatrix"),
    "segments renamed": (
        lambda p: (p / SEGMENTS).rename(p / "annotation.csv"), "SegmentProperties not found.*annotation.csv.*copy",
    ),
    "counts truncated": (
        lambda p: (p / COUNTS).write_text((p / COUNTS).read_text()[:-30]), "TargetCountMatrix.csv cannot be read.*copy",
    ),
    "newer columns": (
        lambda p: (p / SEGMENTS).write_text((p / SEGMENTS).read_text().replace("ROICoordinate", "RoiCenter")),
        "lacks the columns ROICoordinateX, ROICoordinateY; found: .*export the segment properties again",
    ),
    "other slide": (
        lambda p: (p / SEGMENTS).write_text((p / SEGMENTS).read_text().replace("A", "N")),
        "segments of the counts and of the positions do not match|lacks the columns",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    folder = make.geomx(tmp_path / "d", SEC)
    spoil, words = REFUSED[name]
    spoil(folder)
    with pytest.raises(InputError, match=words):
        quiet(folder)


def test_a_workbook(tmp_path: Path) -> None:
    file = tmp_path / "export.xlsx"
    file.write_bytes(b"PK")
    words = (
        "cannot be read as a workbook" if importlib.util.find_spec("openpyxl") else "needs the package openpyxl.*csv"
    )
    with pytest.raises(InputError, match=words):
        quiet(file)


@pytest.mark.parametrize("scans", [1, 2])
def test_segments_without_properties(tmp_path: Path, scans: int) -> None:
    folder = make.geomx(tmp_path / "d", SEC, scans=scans)
    table = "scan 0" if scans > 1 else None
    lines = (folder / SEGMENTS).read_text().splitlines()
    (folder / SEGMENTS).write_text("\n".join(lines[:-5]) + "\n")
    with pytest.warns(SmeldWarning, match="5 segments with counts have no position: they were left out"):
        adata = sm.read(folder, table=table)
    assert 0 < adata.n_obs <= len(SEC.names) - 5
    (folder / SEGMENTS).write_text("\n".join(lines[:9]) + "\n")
    with pytest.raises(InputError, match=r"most segments of the counts are not in Export.*found: 17 of 25 without"):
        quiet(folder, table=table)


def test_hidden_files_are_no_tables(tmp_path: Path) -> None:
    folder = make.geomx(tmp_path / "d", SEC)
    (folder / f"._{COUNTS}").write_bytes(b"\0")
    assert quiet(folder).n_obs == len(SEC.names)
