"""Stereo-seq: bins, cells and text, two versions of each, folders of SAW, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import _make_cells_c as make
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning

SEC = make.truth(6, apart=30.0)


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


def summed(size: int) -> pd.DataFrame:
    """The slow sum: molecules by bin, named after its corner."""
    molecules = make.dnb(SEC)
    name = [f"{x // size * size}_{y // size * size}" for x, y in zip(molecules.x, molecules.y)]
    table = molecules.assign(bin=name).pivot_table("count", "bin", "gene", "sum", 0).astype(int)
    return table.set_axis(make.GENES, axis=1)


def bins_agree(adata, size: int) -> None:
    truth = summed(size)
    assert sorted(adata.obs_names) == sorted(truth.index)
    assert np.array_equal(adata[:, make.GENES].X.toarray(), truth.loc[adata.obs_names])
    corner = np.asarray([name.split("_") for name in adata.obs_names], dtype=float)
    assert np.allclose(adata.obsm["spatial_um"], (corner + (size - 1) / 2) * 0.5)


@pytest.mark.parametrize("version", [2, 4])
@pytest.mark.parametrize("indices", [False, True])
def test_bins_that_are_stored(tmp_path: Path, version: int, indices: bool) -> None:
    adata = quiet(make.gef(tmp_path / "A1.tissue.gef", SEC, version=version, indices=indices))
    bins_agree(adata, 50)
    assert ("gene_ids" in adata.var) == (version == 4)
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == 0.5
    assert _adapt.metadata(adata)[_keys.META_SPOT_UM] == 25.0


@pytest.mark.parametrize(("resolution", "size"), [("bin20", 20), ("bin1", 1), ("30", 30), (None, 50)])
def test_other_bins_are_summed_from_bin1(tmp_path: Path, resolution: str | None, size: int) -> None:
    bins_agree(quiet(make.gef(tmp_path / "A1.gef", SEC, bins=(1,)), resolution=resolution), size)


def test_sums_do_not_depend_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = make.gef(tmp_path / "A1.gef", SEC, bins=(1,))
    whole = quiet(file)
    monkeypatch.setattr("smeld.io._gem.BLOCK_ROWS", 7)
    parts = quiet(file)
    assert parts.obs_names.tolist() == whole.obs_names.tolist()
    assert (parts.X != whole.X).nnz == 0


@pytest.mark.parametrize("version", [2, 4])
def test_cells_and_their_outlines(tmp_path: Path, version: int) -> None:
    file = make.cellbin(tmp_path / "A1.cellbin.gef", SEC, version=version)
    adata = quiet(file, outlines=True)
    at = [int(name) - 100 for name in adata.obs_names]
    assert np.array_equal(adata[:, make.GENES].X.toarray(), SEC.counts[at])
    assert np.abs(adata.obsm["spatial_um"] - SEC.um[at]).max() <= 0.25  # half a DNB
    assert adata.obs["cell_area_um2"].tolist() == [20.0] * adata.n_obs
    outline = adata.uns["cell_outlines"]
    assert np.array_equal(outline["start"], np.arange(adata.n_obs + 1) * 8)
    radius = np.linalg.norm(outline["xy_um"] - np.repeat(adata.obsm["spatial_um"], 8, axis=0), axis=1)
    assert np.abs(radius - 3).max() < 0.3
    x, y = adata.obsm["spatial_um"].min(axis=0)
    part = quiet(file, outlines=True, region_um=(x, y, x + 80, y + 80))
    assert part.obs_names.tolist() == [n for n in adata.obs_names if n in set(part.obs_names)]
    assert 0 < part.n_obs < adata.n_obs
    assert len(part.uns["cell_outlines"]["xy_um"]) == 8 * part.n_obs


def test_cells_whose_values_lie_in_another_order(tmp_path: Path) -> None:
    file = make.cellbin(tmp_path / "A1.cellbin.gef", SEC)
    with h5py.File(file, "r+") as store:
        cell = store["cellBin/cell"][:]
        store["cellBin/cell"][...] = cell[::-1]
    adata = quiet(file)
    assert np.array_equal(adata.X.toarray(), SEC.counts[[int(name) - 100 for name in adata.obs_names]])


@pytest.mark.parametrize("version", ["0.1", "0.2"])
@pytest.mark.parametrize("ending", ["gem", "gem.gz"])
def test_gem_bins(tmp_path: Path, version: str, ending: str) -> None:
    file = make.gem(tmp_path / f"A1.{ending}", SEC, version=version)
    bins_agree(quiet(file), 50)
    bins_agree(quiet(file, resolution="bin10"), 10)
    x, y = quiet(file).obsm["spatial_um"].min(axis=0)
    part = quiet(file, region_um=(x - 1, y - 1, x + 60, y + 60))
    assert set(part.obs_names) < set(quiet(file).obs_names)


def test_gem_cells_lie_at_the_mean_of_their_molecules(tmp_path: Path) -> None:
    adata = quiet(make.gem(tmp_path / "A1.cellbin.gem", SEC, cells=True))
    at = [int(name) for name in adata.obs_names]
    assert np.array_equal(adata[:, make.GENES].X.toarray(), SEC.counts[at])
    molecules = make.dnb(SEC)
    weight = molecules["count"]
    mean = [(molecules[c] * weight).groupby(molecules.cell).sum() / weight.groupby(molecules.cell).sum() for c in "xy"]
    assert np.allclose(adata.obsm["spatial_um"], np.column_stack(mean)[at] * 0.5)


@pytest.mark.parametrize(
    ("cells", "bins"),
    [
        ("outs/feature_expression/A1.cellbin.gef", "outs/feature_expression/A1.tissue.gef"),
        ("041.cellcut/A1.cellbin.gef", "04.tissuecut/A1.tissue.gef"),
    ],
)
def test_folders_of_saw(tmp_path: Path, cells: str, bins: str) -> None:
    make.gef(tmp_path / "d" / bins, SEC)
    make.gef(tmp_path / "d" / bins.replace("A1.", "A1.protein."), make.truth(3))  # of a section with proteins too
    bins_agree(quiet(tmp_path / "d"), 50)
    with pytest.raises(InputError, match=r"no file with cells: expected .*cellbin.gef.*leave out --resolution"):
        quiet(tmp_path / "d", resolution="cells")
    make.cellbin(tmp_path / "d" / cells, SEC)
    assert quiet(tmp_path / "d").n_obs == len(SEC.names)
    bins_agree(quiet(tmp_path / "d", resolution="bin20"), 20)


def test_adjusted_cells_go_before_and_the_raw_chip_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "d/outs/feature_expression"
    make.gef(folder / "A1.raw.gef", SEC, bins=(1,))
    with pytest.warns(SmeldWarning, match=r"only A1.raw.gef was found"):
        bins_agree(sm.read(tmp_path / "d"), 50)
    make.cellbin(folder / "A1.cellbin.gef", SEC)
    half = make.Truth(SEC.names[:9], SEC.counts[:9], SEC.um[:9])
    make.cellbin(folder / "A1.adjusted.cellbin.gef", half)
    assert quiet(tmp_path / "d").n_obs == 9


def test_the_registered_image_is_a_pixel_a_dnb(tmp_path: Path) -> None:
    make.gef(tmp_path / "d/outs/feature_expression/A1.tissue.gef", SEC)
    size = np.ceil(SEC.um.max(axis=0) * 2 + 60).astype(int)
    image = tmp_path / "d/outs/image/A1_HE_regist.tif"
    image.parent.mkdir()
    Image.fromarray(np.full((size[1], size[0], 3), 200, np.uint8)).save(image)
    found = _adapt.image(quiet(tmp_path / "d"))
    assert found is not None
    assert found.um_per_px == pytest.approx(0.5)
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(image)
    with pytest.warns(SmeldWarning, match="the image A1_HE_regist.tif was left out"):
        assert _adapt.image(sm.read(tmp_path / "d")) is None
    with pytest.raises(InputError, match="smaller than the coordinates"):
        quiet(tmp_path / "d", image=image)


def store(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return spoil


def short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_values(file: h5py.File) -> None:
    values = file["cellBin/cellExp"][:-5]
    del file["cellBin/cellExp"]
    file["cellBin/cellExp"] = values


def twice(file: h5py.File) -> None:
    cell = file["cellBin/cell"][:]
    cell["id"][1] = cell["id"][0]
    file["cellBin/cell"][...] = cell


def fewer(file: h5py.File) -> None:
    values = file["geneExp/bin50/expression"][:-5]
    del file["geneExp/bin50/expression"]
    file["geneExp/bin50/expression"] = values


REFUSED: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str]] = {
    "bins truncated": (lambda p: make.gef(p / "a.gef", SEC), short, "a.gef cannot be read.*copy the file again"),
    "bins cut": (lambda p: make.gef(p / "a.gef", SEC), store(fewer), "a.gef cannot be read.*that the genes say"),
    "newer layout": (
        lambda p: make.gef(p / "a.gef", SEC, version=9), store(lambda f: f.move("geneExp", "matrix")),
        "neither the group geneExp nor cellBin.*version 9.*newer version",
    ),
    "bin missing": (
        lambda p: make.gef(p / "a.gef", SEC, bins=(100,)), lambda p: None, "bin50 is not in the file; found: bin100",
    ),
    "cells missing": (
        lambda p: make.cellbin(p / "a.cellbin.gef", SEC), store(lambda f: f.pop("cellBin/cellExp")),
        "lacks cellBin/cellExp.*SAW's own",
    ),
    "cells cut": (
        lambda p: make.cellbin(p / "a.cellbin.gef", SEC), store(drop_values), "cannot be read.*cells point at value",
    ),
    "one cell twice": (
        lambda p: make.cellbin(p / "a.cellbin.gef", SEC), store(twice), "cells of the counts must be unique.*1 rep",
    ),
    "gem renamed": (
        lambda p: make.gem(p / "a.gem", SEC),
        lambda p: p.write_text(p.read_text().replace("MIDCount", "UMIs")),
        "lacks the columns MIDCount; found: geneID, x, y, UMIs.*newer version",
    ),
    "gem truncated": (lambda p: make.gem(p / "a.gem.gz", SEC), short, "a.gem.gz cannot be read.*truncated"),
    "no gef": (
        lambda p: make.gef(p / "a.gef", SEC), lambda p: p.write_text("x,y\n1,2\n"), "a.gef cannot be read.*copy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    write, spoil, words = REFUSED[name]
    path = write(tmp_path)
    spoil(path)
    with pytest.raises(InputError, match=words):
        quiet(path)


def test_a_newer_version_that_still_reads_is_said(tmp_path: Path) -> None:
    with pytest.warns(SmeldWarning, match="version 9 of the format, newer than the 4 that is known"):
        sm.read(make.cellbin(tmp_path / "a.cellbin.gef", SEC, version=9))


@pytest.mark.parametrize(
    ("resolution", "words"), [("8um", "unknown resolution '8um'"), ("cells", "holds bins, no cells")]
)
def test_resolutions_that_there_are_not(tmp_path: Path, resolution: str, words: str) -> None:
    file = make.gef(tmp_path / "a.gef", SEC)
    with pytest.raises(InputError, match=words):
        quiet(file, resolution=resolution)


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_the_offset_of_a_gem_is_added_again(tmp_path: Path, version: str) -> None:
    gef = make.gef(tmp_path / "A1.gef", SEC)
    gem = make.gem(tmp_path / "A1.gem", SEC, version=version, offset=(17, 63))
    for size in (50, 20):
        one, two = (quiet(file, resolution=f"BIN{size}") for file in (gef, gem))
        bins_agree(two, size)
        assert np.array_equal(one.obsm["spatial_um"], two[one.obs_names].obsm["spatial_um"])
    plain, moved = (
        quiet(make.gem(tmp_path / f"{o}.cellbin.gem", SEC, cells=True, offset=(o, 9)), resolution="Cells")
        for o in (0, 31)
    )
    assert np.array_equal(plain.obsm["spatial_um"], moved.obsm["spatial_um"])


def line(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


def last(column: int, value: str) -> Callable[[str], str]:
    """Another cell in the last row."""

    def change(text: str) -> str:
        head, _, row = text.rstrip("\n").rpartition("\n")
        cells = row.split("\t")
        cells[column] = value
        return head + "\n" + "\t".join(cells) + "\n"

    return change


SPOILED = {
    "x too large": (last(1, "99999999999999"), "a.gem cannot be read.*x from .* to 99999999999999, not within"),
    "x beyond 64 bits": (last(1, "9" * 30), "a.gem cannot be read"),
    "x below 0": (last(1, "-5"), "a.gem cannot be read.*x from -5 to"),
    "y too large": (last(2, str(2**31)), "y from .* to 2147483648, not within 0 to 2147483647"),
    "count below 0": (last(3, "-1"), "a.gem cannot be read.*counts below 0"),
    "count without an end": (last(3, "inf"), "a.gem cannot be read.*without an end"),
    "count no number": (last(3, "nan"), "a.gem cannot be read"),
    "bins of 0": (line("#BinSize=1", "#BinSize=0"), "BinSize in the header of a.gem must be .*found: '0'"),
    "bins of a power": (line("#BinSize=1", "#BinSize=²"), "BinSize in the header of a.gem must be"),
    "offset a word": (line("#OffsetX=0", "#OffsetX=left"), "OffsetX and OffsetY in the header of a.gem must be"),
    "offset below 0": (line("#OffsetY=0", "#OffsetY=-3"), "OffsetX and OffsetY in the header of a.gem must be"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_what_is_wrong_in_a_gem(tmp_path: Path, name: str) -> None:
    change, words = SPOILED[name]
    file = make.gem(tmp_path / "a.gem", SEC)
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=words):
        quiet(file)


@pytest.mark.parametrize("word", ["", "none", "1.5", "1e300"])
def test_molecules_whose_cell_is_no_number(tmp_path: Path, word: str) -> None:
    file = make.gem(tmp_path / "a.cellbin.gem", SEC, cells=True)
    whole = quiet(file)
    file.write_text(last(5 if "geneName" in file.read_text() else 4, word)(file.read_text()))
    with pytest.warns(SmeldWarning, match=r"1 of \d+ rows name their cell by a word, or not at all"):
        adata = sm.read(file)
    assert 0 < whole.X.sum() - adata[:, whole.var_names].X.sum() <= SEC.counts.max()
    assert not any("by a word" in text for text in _keys.kept_warnings(quiet(file, resolution="bin50")))


def test_cells_that_are_all_words(tmp_path: Path) -> None:
    file = make.gem(tmp_path / "a.cellbin.gem", SEC, cells=True)
    table = pd.read_csv(file, sep="\t", comment="#")
    table.assign(CellID="cell " + table["CellID"].astype(str)).to_csv(file, sep="\t", index=False)
    with pytest.raises(InputError, match="must be whole numbers; found: words, or nothing, in every row"):
        quiet(file)
    bins_agree(quiet(file, resolution="bin50"), 50)


def test_hidden_files_are_no_bins(tmp_path: Path) -> None:
    make.gef(tmp_path / "d/04.tissuecut/A1.tissue.gef", SEC)
    (tmp_path / "d/04.tissuecut/._A1.tissue.gef").write_bytes(b"\0")
    bins_agree(quiet(tmp_path / "d"), 50)
