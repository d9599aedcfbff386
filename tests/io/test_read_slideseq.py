"""Slide-seq and Curio Seeker: layouts, join by barcode, the unit from beads that touch, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import _make_cells_c as make
import numpy as np
import pytest
from scipy.spatial import cKDTree

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning

SEC = make.truth()


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


def agrees(adata, *, um_per_unit: float) -> None:
    """Counts and places by identifier; and beads that touch lie 10 um apart."""
    assert sorted(adata.obs_names) == sorted(SEC.names)
    at = [SEC.names.index(name) for name in adata.obs_names]
    assert np.array_equal(adata[:, make.GENES].X.toarray(), SEC.counts[at])
    assert np.allclose(adata.obsm["spatial"], SEC.um[at] / um_per_unit)
    nearest = cKDTree(adata.obsm["spatial_um"]).query(adata.obsm["spatial_um"], k=2)[0][:, 1]
    assert np.median(nearest) == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("layout", ["puck", "tools", "matched", "mtx"])
def test_slideseq_layouts(tmp_path: Path, layout: str) -> None:
    adata = quiet(make.slideseq(tmp_path / "d", SEC, layout=layout), platform="slideseq")
    agrees(adata, um_per_unit=0.65)
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == 0.65
    assert ("gene_ids" in adata.var) == (layout == "mtx")
    other = quiet(make.slideseq(tmp_path / "e", SEC.permuted(), layout=layout), platform="slideseq")
    assert np.array_equal(other[adata.obs_names].obsm["spatial_um"], adata.obsm["spatial_um"])
    assert (other[adata.obs_names].X != adata.X).nnz == 0


def test_tables_as_r_writes_them(tmp_path: Path) -> None:
    folder = make.slideseq(tmp_path / "d", SEC)
    table = folder / "MappedDGEForR.csv"
    lines = table.read_text().removeprefix("Row,").splitlines()  # no corner, quoted names
    table.write_text("\n".join([lines[0], *('"' + line.replace(",", '",', 1) for line in lines[1:])]) + "\n")
    agrees(quiet(folder), um_per_unit=0.65)


def test_curio_takes_its_unit_from_beads_that_touch(tmp_path: Path) -> None:
    folder = make.curio(tmp_path / "d", SEC)
    with pytest.warns(SmeldWarning, match="the unit of Curio's coordinates is not stated"):
        adata = sm.read(folder)
    agrees(adata, um_per_unit=0.73)
    assert adata.obs["cluster"].tolist() == [str(SEC.names.index(n) % 3) for n in adata.obs_names]
    assert _adapt.metadata(quiet(folder, um_per_unit=2.0))[_keys.META_UM_PER_UNIT] == 2.0


def test_coordinates_of_another_unit_are_noticed(tmp_path: Path) -> None:
    with pytest.warns(SmeldWarning, match=r"but the beads lie 9.9\d apart"):
        adata = sm.read(make.slideseq(tmp_path / "d", SEC, um_per_px=1.0))
    agrees(adata, um_per_unit=1.0)


def test_places_at_random_say_nothing_of_the_unit(tmp_path: Path) -> None:
    sparse = make.Truth(SEC.names, SEC.counts, np.random.default_rng(0).uniform(0, 900, SEC.um.shape))
    assert _adapt.metadata(quiet(make.slideseq(tmp_path / "d", sparse)))[_keys.META_UM_PER_UNIT] == 0.65
    with pytest.warns(SmeldWarning, match="unit of the coordinates is not known"):
        sm.read(make.curio(tmp_path / "e", sparse))


def test_beads_of_one_side_are_left_out_with_their_number(tmp_path: Path) -> None:
    folder = make.slideseq(tmp_path / "d", SEC)
    places = folder / "BeadLocationsForR.csv"
    places.write_text("\n".join(places.read_text().splitlines()[:-4]) + "\nTTTT,1,1\n")
    with pytest.warns(SmeldWarning, match="4 beads with counts have no position"):
        adata = sm.read(folder)
    assert adata.n_obs == len(SEC.names) - 4
    assert "1 beads with a position have no counts: they were left out" in _keys.kept_warnings(adata)


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(change((folder / name).read_text()))  # type: ignore[func-returns-value]


PLACES, COUNTS = "BeadLocationsForR.csv", "MappedDGEForR.csv"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "places missing": (lambda p: (p / PLACES).unlink(), r"places of the beads not found.*BeadLocationsForR.*copy"),
    "counts renamed": (lambda p: (p / COUNTS).rename(p / "dge.csv"), r"table of counts not found.*MappedDGEForR.*dge"),
    "counts truncated": (
        edit(COUNTS, lambda t: t[: len(t) - 60]), r"MappedDGEForR.csv cannot be read.*copy the file again"
    ),
    "places truncated": (edit(PLACES, lambda t: t.splitlines()[0]), r"BeadLocationsForR|do not match"),
    "newer columns": (
        edit(PLACES, lambda t: "\n".join(f"{line},0" for line in t.splitlines())),
        r"must have the columns barcode, x, y; found: 4 columns.*newer version",
    ),
    "other puck": (
        edit(PLACES, lambda t: t.replace("A", "N")), r"beads of the counts and of the positions do not match.*same sec"
    ),
    "twice the same bead": (
        edit(PLACES, lambda t: t + t.splitlines()[1] + "\n"), r"beads of the positions must be unique.*1 repeated"
    ),
    "words for places": (edit(PLACES, lambda t: t.replace("\n", "\nXX,a,b\n", 1)), r"must hold numbers|do not match"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    folder = make.slideseq(tmp_path / "d", SEC)
    spoil, words = REFUSED[name]
    spoil(folder)
    with pytest.raises(InputError, match=words):
        quiet(folder)


def test_lines_without_names_need_their_barcodes(tmp_path: Path) -> None:
    folder = make.slideseq(tmp_path / "d", SEC, layout="matched")
    barcodes = folder / "Puck_1_matched_bead_barcodes.txt"
    barcodes.write_text("\n".join(barcodes.read_text().splitlines()[1:]))
    with pytest.raises(InputError, match="a line for each of the 80 barcodes; found: 81 lines"):
        quiet(folder, platform="slideseq")
    barcodes.unlink()
    with pytest.raises(InputError, match="barcodes of the places not found"):
        quiet(folder, platform="slideseq")


def test_a_matrix_that_does_not_fit_its_names(tmp_path: Path) -> None:
    folder = make.curio(tmp_path / "d", SEC)
    (folder / "s_genes.tsv").write_text("Gene0\n")
    with pytest.raises(
        InputError, match="does not fit the names of its genes and beads; found: 6 x 81 values for 1 x 81"
    ):
        quiet(folder)


def test_tables_of_other_beads_are_not_taken_for_slideseq(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    make.csv(folder / "counts.csv", SEC.frame(), index_label="bead")
    make.csv(folder / "a_bead_locations.csv", SEC.frame().iloc[:, :0].assign(x=SEC.um[:, 0], y=SEC.um[:, 1]))
    assert quiet(folder).uns["smeld"]["read"]["inputs"]["platform"] == "tables"


def test_a_line_without_an_end_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smeld.io._wide.MAX_LINE", 100)
    with pytest.raises(InputError, match=r"MappedDGEForR.csv cannot be read.*a line of 100 characters or more"):
        quiet(make.slideseq(tmp_path / "d", SEC))


def test_hidden_files_are_no_tables(tmp_path: Path) -> None:
    folder = make.slideseq(tmp_path / "d", SEC)
    (folder / f"._{COUNTS}").write_bytes(b"\0")
    agrees(quiet(folder), um_per_unit=0.65)
