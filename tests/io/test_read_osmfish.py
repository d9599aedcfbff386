"""osmFISH, and other loom files with positions."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from _cell_checks import assert_refused, assert_same, assert_true, quiet, warned
from _make_cells_b import GENES, osmfish, truncate

from smeld.io import osmfish as reader


def test_counts_positions_and_attributes_are_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = osmfish(tmp_path / "d")
    monkeypatch.setattr(reader, "_BLOCK_CELLS", 7)  # several blocks
    adata, text = warned(tmp_path / "d/cortex.loom")
    assert_true(adata, truth, GENES)
    assert set(adata.obs["ClusterName"]) == {"Astro"}
    assert "_tSNE" not in adata.obs
    assert "unit of the coordinates is not known" in text
    assert_true(quiet(tmp_path / "d/cortex.loom", um_per_unit=0.065), truth, GENES, um=0.065)
    osmfish(tmp_path / "e", order=2)
    assert_same(adata, quiet(tmp_path / "e/cortex.loom"))
    assert quiet(tmp_path / "d", platform="osmfish").n_obs == 40


def change(path: Path, *, drop: str = "", **add: object) -> None:
    with h5py.File(path, "r+") as file:
        if drop:
            del file[drop]
        for name, values in add.items():
            key = name.replace("__", "/")
            if key in file:
                del file[key]
            file[key] = values


def test_cells_that_the_authors_left_out_are_named(tmp_path: Path) -> None:
    osmfish(tmp_path)
    change(tmp_path / "cortex.loom", col_attrs__Valid=np.r_[np.zeros(5, dtype=int), np.ones(35, dtype=int)])
    adata, text = warned(tmp_path / "cortex.loom")
    assert adata.n_obs == 40
    assert "5 cells that the authors left out" in text


REFUSED = {
    "no positions": (
        lambda f: change(f, drop="col_attrs/X"),
        ("lacks col_attrs/X", "ClusterName", "positions of cells"),
    ),
    "no names": (lambda f: change(f, drop="col_attrs/CellID"), ("lacks col_attrs/CellID",)),
    "no genes": (lambda f: change(f, drop="row_attrs/Gene"), ("lacks row_attrs/Gene",)),
    "another file": (lambda f: change(f, drop="matrix"), ("no loom file", "matrix")),
    "a group for the matrix": (lambda f: change(f, drop="matrix", matrix__x=1), ("does not fit together", "a group")),
    "truncated": (truncate, ("cortex.loom", "truncated")),
    "cells twice": (lambda f: change(f, col_attrs__CellID=np.ones(40)), ("must be unique",)),
    "does not fit": (lambda f: change(f, row_attrs__Gene=np.asarray(["A"], dtype="S")), ("does not fit together",)),
    "no number": (lambda f: change(f, col_attrs__Y=np.full(40, np.nan)), ("must be finite",)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    osmfish(tmp_path / "d")
    spoil, words = REFUSED[name]
    assert_refused(tmp_path / "d/cortex.loom", spoil, *words)


def test_several_files(tmp_path: Path) -> None:
    osmfish(tmp_path / "d")
    (tmp_path / "d/other.loom").touch()
    assert_refused(tmp_path / "d", lambda d: d, "one .loom file is needed", "other.loom", platform="osmfish")


def test_groups_among_the_attributes_and_folders_of_one_file(tmp_path: Path) -> None:
    truth = osmfish(tmp_path / "d")
    change(tmp_path / "d/cortex.loom", col_attrs__sub__a=np.zeros(40))
    assert_true(quiet(tmp_path / "d/cortex.loom"), truth, GENES)
    assert_refused(tmp_path / "d", lambda d: d, "give the file itself, d/cortex.loom")
