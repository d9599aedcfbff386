"""STARmap: the release of 2018 without names of cells, and STARmap PLUS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from _cell_checks import assert_refused, assert_same, assert_true, edit, quiet, warned
from _make_cells_b import GENES, starmap, starmap_plus, truncate


@pytest.mark.parametrize("places", ["centroids", "labels"])
def test_first_release(tmp_path: Path, places: str) -> None:
    truth = starmap(tmp_path / "d", places=places)
    adata, text = warned(tmp_path / "d")
    assert_true(adata, truth, GENES)  # cell_barcode_names.csv has the counts' order, genes.csv here another
    assert "unit of the coordinates is not known" in text
    assert_true(quiet(tmp_path / "d", um_per_unit=0.5), truth, GENES, um=0.5)


def only_genes(folder: Path) -> None:
    (folder / "cell_barcode_names.csv").unlink()
    (folder / "genes.csv").write_text("".join(f"{g},ACGT\n" for g in GENES))


def huge_label(folder: Path) -> None:
    labels = np.zeros((50, 50), dtype=np.int64)
    labels[0, 0] = 2**40
    np.savez(folder / "labels.npz", labels=labels)
    (folder / "centroids.tsv").unlink()


def test_the_join_by_order_is_said_once(tmp_path: Path) -> None:
    starmap(tmp_path / "d")
    assert warned(tmp_path / "d")[1].count("joined by their order") == 1


def test_the_highest_label_may_have_no_counts(tmp_path: Path) -> None:
    """The authors' loop over labels ends one before the last."""
    truth = starmap(tmp_path / "d", places="labels")
    counts = pd.read_csv(tmp_path / "d/cell_barcode_count.csv", header=None)
    counts.iloc[:-1].to_csv(tmp_path / "d/cell_barcode_count.csv", header=False, index=False)
    assert_true(quiet(tmp_path / "d"), truth.iloc[:-1], GENES)


def fewer_cells(folder: Path) -> None:
    lines = (folder / "centroids.tsv").read_text().splitlines()
    (folder / "centroids.tsv").write_text("\n".join(lines[:-3]))


def pickled(folder: Path) -> None:
    (folder / "centroids.tsv").unlink()
    np.savez(folder / "labels.npz", labels=np.array([{"no": "code"}], dtype=object))


REFUSED = {
    "places missing": (lambda d: (d / "centroids.tsv").unlink(), ("centroids.tsv or labels.npz", "copy the file")),
    "genes missing": (
        lambda d: [(d / n).unlink() for n in ("genes.csv", "cell_barcode_names.csv")], ("cell_barcode_names.csv",)
    ),
    "renamed": (lambda d: (d / "centroids.tsv").rename(d / "centres.tsv"), ("centroids.tsv", "centres.tsv")),
    "truncated": (fewer_cells, ("do not match", "40 rows of counts, 37 cells in centroids.tsv")),
    "counts empty": (lambda d: truncate(d / "cell_barcode_count.csv", 0.0), ("cell_barcode_count.csv", "truncated")),
    "a header": (
        lambda d: (d / "centroids.tsv").write_text("y\tx\n" + (d / "centroids.tsv").read_text()), ("centroids.tsv",)
    ),
    "other genes": (
        lambda d: (d / "cell_barcode_names.csv").write_text("0,1234,Gene0\n"), ("names of genes", "1 names for 8")
    ),
    "genes in another order": (only_genes, ("whose order need not be", "give cell_barcode_names.csv")),
    "a huge label": (huge_label, ("labels.npz", "label 1099511627776 in an image of 2500 pixels")),
    "pickled labels": (pickled, ("labels.npz", "centroids.tsv")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_with_the_first_release_is_said(tmp_path: Path, name: str) -> None:
    starmap(tmp_path / "d")
    spoil, words = REFUSED[name]
    assert_refused(tmp_path / "d", spoil, *words)


def test_plus(tmp_path: Path) -> None:
    truth = starmap_plus(tmp_path / "d")
    adata = quiet(tmp_path / "d")
    assert_true(adata, truth, GENES)  # voxels of .194 um
    assert (adata.obs["z"] == 3).all()
    assert set(adata.obs["Main_molecular_cell_type"]) == {"N"}
    starmap_plus(tmp_path / "e", order=4)
    assert_same(adata, quiet(tmp_path / "e"))


COUNTS, PLACES = "well05raw_expression_pd.csv", "well05_spatial.csv"
REFUSED_PLUS = {
    "places missing": (lambda d: (d / PLACES).unlink(), ("*spatial.csv", COUNTS)),
    "truncated": (lambda d: truncate(d / COUNTS, 0.9), (COUNTS, "truncated")),
    "newer version": (lambda d: edit(d / PLACES, lambda f: f.rename(columns={"X": "x"})), (PLACES, "newer version")),
    "ids do not match": (
        lambda d: edit(d / PLACES, lambda f: f.assign(NAME=f["NAME"].str.replace("05", "06"))),
        ("do not match", "well05_0"),
    ),
    "cells twice": (lambda d: edit(d / PLACES, lambda f: pd.concat([f, f])), ("must be unique",)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_PLUS)
def test_what_is_wrong_with_plus_is_said(tmp_path: Path, name: str) -> None:
    starmap_plus(tmp_path / "d")
    spoil, words = REFUSED_PLUS[name]
    assert_refused(tmp_path / "d", spoil, *words)
