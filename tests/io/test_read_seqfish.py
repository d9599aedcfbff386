"""seqFISH: Spatial Genomics' tables, and the embryos of Lohoff et al. as csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _cell_checks import assert_refused, assert_same, assert_true, edit, quiet, warned
from _make_cells_b import GENES, embryo, seqfish, truncate

from smeld import _adapt, _keys

COUNTS, PLACES = "Run_CxG_section1.csv", "Run_CellCoordinates_section1.csv"


@pytest.mark.parametrize("version", [1, 2])
def test_counts_positions_and_image_are_true(tmp_path: Path, version: int) -> None:
    truth = seqfish(tmp_path / "d", version=version)
    adata = quiet(tmp_path / "d")
    assert_true(adata, truth, GENES)
    assert np.allclose(adata.obsm["spatial"] * 0.25, adata.obsm["spatial_um"])
    assert np.allclose(adata.obs["cell_area_um2"], 800 * 0.25**2)
    image = _adapt.image(adata)
    assert image is not None
    assert image.um_per_px == pytest.approx(0.25)
    seqfish(tmp_path / "e", version=version, order=2)
    assert_same(adata, quiet(tmp_path / "e"))


def test_without_an_image_the_pixel_size_is_not_known(tmp_path: Path) -> None:
    truth = seqfish(tmp_path / "d", ome=False)
    adata, text = warned(tmp_path / "d")
    assert "unit of the coordinates is not known" in text
    assert_true(adata, truth, GENES, um=4)
    assert_true(quiet(tmp_path / "d", um_per_unit=0.25), truth, GENES)


@pytest.mark.parametrize(("version", "names"), [(1, ["Run_section1", "section2"]), (2, ["Roi1", "Roi2"])])
def test_one_of_several_sections(tmp_path: Path, version: int, names: list[str]) -> None:
    truth = seqfish(tmp_path / "d", version=version, sections=2)
    assert_refused(tmp_path / "d", lambda d: d, "holds 2 sections", names[0], "--table")
    assert_true(quiet(tmp_path / "d", table=names[1]), truth, GENES)
    assert quiet(tmp_path / "d", table=names[0]).n_obs == 40
    assert_refused(tmp_path / "d", lambda d: d, "unknown section 'Roi9'", names[0], table="Roi9")


REFUSED = {
    "counts missing": (lambda d: (d / COUNTS).unlink(), (f"expected {COUNTS}", "copy it")),
    "places missing": (lambda d: (d / PLACES).unlink(), ("expected *_CellCoordinates*.csv", COUNTS)),
    "counts renamed": (lambda d: (d / COUNTS).rename(d / "Run_CxG_s1.csv"), (f"expected {COUNTS}", "Run_CxG_s1.csv")),
    "empty": (lambda d: truncate(d / PLACES, 0.0), (PLACES, "truncated")),
    "truncated": (lambda d: truncate(d / COUNTS, 0.48), (COUNTS, "cells for 9 names", "truncated")),
    "newer version": (
        lambda d: edit(d / PLACES, lambda f: f.rename(columns={"center_x": "x"})), ("center_x", "newer version")
    ),
    "ids do not match": (
        lambda d: edit(d / PLACES, lambda f: f.assign(label="c" + f["label"])), ("do not match", "same section")
    ),
    "cells twice": (lambda d: edit(d / PLACES, lambda f: pd.concat([f, f])), ("must be unique",)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    seqfish(tmp_path / "d")
    spoil, words = REFUSED[name]
    assert_refused(tmp_path / "d", spoil, *words)


@pytest.mark.parametrize("cells_in_rows", [False, True])
def test_embryos_as_csv(tmp_path: Path, cells_in_rows: bool) -> None:
    truth = embryo(tmp_path / "d", cells_in_rows=cells_in_rows)
    assert_refused(tmp_path / "d", lambda d: d, "2 sections", "embryo1/2", platform="seqfish")
    adata, text = warned(tmp_path / "d", platform="seqfish", table="embryo2")
    assert_true(adata, truth[truth.index.str.startswith("embryo2")], GENES)
    assert "have no position" not in text
    assert set(adata.obs["celltype_mapped_refined"]) == {"Gut tube"}
    assert "unit of the coordinates is not known" in text
    meta = _adapt.metadata(quiet(tmp_path / "d", platform="seqfish", table="all", um_per_unit=150.0))
    assert meta[_keys.META_UM_PER_UNIT] == 150


def test_an_image_elsewhere_is_left_out(tmp_path: Path) -> None:
    seqfish(tmp_path / "d")
    edit(tmp_path / "d" / PLACES, lambda f: f.assign(center_x=f["center_x"].astype(float) + 9000))
    (tmp_path / "d" / f"._{PLACES}").write_bytes(b"\x00\x05")
    adata, text = warned(tmp_path / "d")
    assert "own image was left out" in text
    assert _adapt.image(adata) is None


def test_an_index_beside_identifiers_without_a_name(tmp_path: Path) -> None:
    """Numbers of rows must not be taken for labels, which are numbers too."""
    seqfish(tmp_path / "d")
    lines = (tmp_path / "d" / COUNTS).read_text().splitlines()
    shifted = "".join(f"{'' if i == 0 else i - 1},{line}\n" for i, line in enumerate(lines))
    spoil = (tmp_path / "d" / COUNTS).write_text
    assert_refused(tmp_path / "d", lambda d: spoil(shifted), COUNTS, "the first two columns have no name")


def test_names_of_rows_as_r_writes_them(tmp_path: Path) -> None:
    truth = seqfish(tmp_path / "d")
    file = tmp_path / "d" / COUNTS
    names, *rows = file.read_text().splitlines()
    file.write_text("\n".join([names.partition(",")[2], *rows]) + "\n")
    assert_true(quiet(tmp_path / "d"), truth, GENES)
