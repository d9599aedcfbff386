"""MERFISH tables as Moffitt et al. published them: one csv, many sections."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from _cell_checks import assert_refused, assert_same, assert_true, edit, quiet, warned
from _make_cells_b import GENES, merfish, truncate

NAME = "moffitt_merfish_cells.csv"


def test_one_section_is_read_as_it_is(tmp_path: Path) -> None:
    truth = merfish(tmp_path / "d")
    adata, text = warned(tmp_path / "d" / NAME)
    assert_true(adata, truth, GENES, share=0.5)  # expression by volume
    assert "not whole numbers" in text
    assert list(adata.var_names) == GENES  # without Fos, which animal 1 lacks
    assert "1 genes were not measured in all the cells and were left out: Fos" in text
    assert (adata.obsm["blank"]["Blank_1"] == 0.5).all()
    assert set(adata.obs["Cell_class"]) == {"Inhibitory", "Excitatory"}
    assert set(adata.obs["section"]) == {"1/0.26"}
    merfish(tmp_path / "e", order=3)
    assert_same(adata, quiet(tmp_path / "e" / NAME))
    assert quiet(tmp_path / "d", platform="merfish").n_obs == 40  # the folder will do where it is named


def test_sections_are_told_apart(tmp_path: Path) -> None:
    truth = merfish(tmp_path / "d", sections=4, order=1)
    file = tmp_path / "d" / NAME
    assert_refused(file, lambda f: f, "holds 4 sections", "1/0.26", "1/-0.04", "2/0.26", "--table", "batch_key")
    one = quiet(file, table="2/-0.04")
    assert_true(one, truth[(truth["Animal_ID"] == 2) & (truth["Bregma"] == -0.04)], [*GENES], share=0.5)
    assert "Fos" in one.var_names  # animal 2 has it
    animal, text = warned(file, table="1")
    assert set(animal.obs["section"]) == {"1/0.26", "1/-0.04"}
    assert '2 sections lie on one another: give batch_key="section"' in text
    everything = quiet(file, table="all")
    assert everything.n_obs == 160
    assert "Fos" not in everything.var_names
    assert_refused(file, lambda f: f, "unknown section '1/0.2'", "did you mean '1/0.26'", table="1/0.2")


def cut_in_a_row(file: Path) -> None:
    """A copy that was broken off: genes of its last row have no number, which must not become zeros unseen."""
    file.write_text(file.read_text().rsplit("\n", 2)[0].rsplit(",", 4)[0])


REFUSED = {
    "columns renamed": (
        lambda f: edit(f, lambda t: t.rename(columns={"Centroid_X": "center_x"})), ("Centroid_X", "counts.csv")
    ),
    "no identifiers": (lambda f: edit(f, lambda t: t.drop(columns="Cell_ID")), ("Cell_ID", NAME)),
    "truncated": (cut_in_a_row, (NAME, "names", "truncated")),
    "empty": (lambda f: truncate(f, 0.0), (NAME, "truncated")),
    "cells twice": (lambda f: edit(f, lambda t: pd.concat([t, t])), ("must be unique",)),
    "words for genes": (lambda f: edit(f, lambda t: t.assign(Gene1="many")), (NAME, "cannot be read")),
    "a cell without a name": (lambda f: edit(f, lambda t: t.assign(Cell_ID="")), (NAME, "row 1 has no Cell_ID")),
    "no position": (lambda f: edit(f, lambda t: t.assign(Centroid_Y="")), ("must be finite",)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    merfish(tmp_path / "d")
    spoil, words = REFUSED[name]
    assert_refused(tmp_path / "d" / NAME, spoil, *words)


def test_missing_and_several_tables(tmp_path: Path) -> None:
    merfish(tmp_path / "d")
    (tmp_path / "d" / "other.csv").write_text("x\n1\n")
    assert_refused(tmp_path / "d", lambda d: d, "one table is needed", "other.csv", platform="merfish")


def test_a_folder_with_the_table_alone_says_which_file_to_give(tmp_path: Path) -> None:
    merfish(tmp_path / "d")
    assert_refused(tmp_path / "d", lambda d: d, f"give the file itself, d/{NAME}")
