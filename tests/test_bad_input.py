"""Bad input through the command line: exit code 2, one clear line, an earlier result untouched, no litter.

Each damage is done to a section that runs as it is (``test_good_twin``). What goes on with a warning says so
in the report.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from PIL import Image

import command_line
from command_line import make
from smeld import pipeline

Damage = Callable[[Path], Any]

# -- good sections: where they lie, and how they are called --------------------------------------------------


def _visium(folder: Path) -> Path:
    return command_line.visium(folder / "section")


def _h5ad(folder: Path) -> Path:
    command_line.h5ad(folder / "section.h5ad")
    return folder / "section.h5ad"


def _tables(folder: Path) -> Path:
    make.tables(folder / "section")
    return folder / "section"


def _legacy(folder: Path) -> Path:
    make.legacy(folder / "section", without_counts=0)
    return folder / "section"


BASES: dict[str, Callable[[Path], Path]] = {
    "visium": _visium,
    "h5ad": _h5ad,
    "tables": _tables,
    "legacy": _legacy,
}

# -- damages -------------------------------------------------------------------------------------------------


def _matrix(folder: Path) -> Path:
    return folder / "filtered_feature_bc_matrix.h5"


def _positions(folder: Path) -> Path:
    return folder / "spatial/tissue_positions.csv"


def _truncate(path: Path, share: float = 0.5) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def _lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())))


def _last_cell(value: str) -> Damage:
    """The last column of the fifth line of the positions becomes ``value``."""

    def damage(folder: Path) -> None:
        _lines(_positions(folder), lambda ls: [*ls[:4], ls[4].rpartition(",")[0] + f",{value}", *ls[5:]])

    return damage


def _section(**changed: Any) -> Damage:
    """The matrix written again with other counts, barcodes or tissue."""

    def damage(folder: Path) -> None:
        section = command_line.halves(make.section())
        new = {k: v(getattr(section, k)) for k, v in changed.items()}
        make.write_matrix(folder, make.replace(section, **new))

    return damage


def _only(n: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda in_tissue: (np.arange(len(in_tissue)) < n).astype(int)


def _factors(text: str | None = None, **changed: Any) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "spatial/scalefactors_json.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed) if text is None else text)

    return damage


def _adata(change: Callable[[anndata.AnnData], anndata.AnnData | None]) -> Damage:
    """A changed .h5ad; ``change`` may return another AnnData."""

    def damage(path: Path) -> None:
        adata = anndata.read_h5ad(path)
        other = change(adata)
        (adata if other is None else other).write_h5ad(path)

    return damage


def _set(adata: anndata.AnnData, row: int, value: float) -> None:
    for key in ("spatial", "spatial_um"):
        adata.obsm[key][row, 0] = value


def _repeated_names(adata: anndata.AnnData) -> None:
    adata.obs_names = ["cell0", "cell0", *adata.obs_names[2:]]


def _scaled(adata: anndata.AnnData) -> None:
    adata.X = adata.X - adata.X.mean(axis=0)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _small_image(folder: Path) -> None:
    Image.new("RGB", (20, 20), "white").save(folder / "spatial/tissue_hires_image.png")


def _half_image(folder: Path) -> None:
    path = folder / "S1_HE.png"
    with Image.open(path) as picture:
        half = picture.resize((picture.width // 2, picture.height // 2))
    half.save(path)


def _nothing(path: Path) -> None:
    """The section is good; the call is not."""


#: name -> (good section, damage, further arguments, what the line must say)
BAD: dict[str, tuple[str, Damage, list[str], list[str]]] = {
    "missing folder": ("visium", shutil.rmtree, [], ["does not exist", "check the path"]),
    "missing file": ("h5ad", Path.unlink, [], ["does not exist"]),
    "empty folder": ("visium", _empty, [], ["is empty"]),
    "no matrix": ("visium", lambda p: _matrix(p).unlink(), [], ["no matrix", "spatial", "copy"]),
    "no matrix (legacy)": ("legacy", lambda p: (p / "S1.tsv.gz").unlink(), [], ["no matrix", "S1"]),
    "no matrix (tables)": ("tables", lambda p: (p / "counts.csv").unlink(), [], ["coordinates.csv"]),
    "truncated h5": ("visium", lambda p: _truncate(_matrix(p)), [], ["feature_bc_matrix.h5", "bytes"]),
    "h5 is text": ("visium", lambda p: _matrix(p).write_text("no"), [], ["feature_bc_matrix.h5", "2 bytes"]),
    "h5 has no byte": ("visium", lambda p: _matrix(p).write_bytes(b""), [], ["0 bytes"]),
    "truncated h5ad": ("h5ad", _truncate, [], ["cannot be read as .h5ad", "truncated"]),
    "h5ad is text": ("h5ad", lambda p: p.write_text("no"), [], ["cannot be read as .h5ad", "2 bytes"]),
    "truncated gzip": ("legacy", lambda p: _truncate(p / "S1.tsv.gz"), [], ["S1.tsv.gz", "truncated"]),
    "few columns": (
        "visium",
        lambda p: _lines(_positions(p), lambda ls: [",".join(x.split(",")[:4]) for x in ls]),
        [],
        ["too few columns", "pxl_row_in_fullres", "4 columns"],
    ),
    "few columns (legacy)": (
        "legacy",
        lambda p: _lines(p / "S1_selection.tsv", lambda ls: ["\t".join(x.split("\t")[:4]) for x in ls]),
        [],
        ["too few columns", "pixel_x"],
    ),
    "few columns (h5ad)": (
        "h5ad",
        _adata(lambda a: a.obsm.update(spatial=a.obsm["spatial"][:, :1])),
        [],
        ["too few columns", "(60, 1)"],
    ),
    "no coordinates": ("h5ad", _adata(lambda a: a.obsm.clear()), [], ['obsm["spatial"] is missing']),
    "barcodes match none": (
        "visium",
        lambda p: _lines(_positions(p), lambda ls: [ls[0], *("X" + x for x in ls[1:])]),
        [],
        ["do not match", "none of 50"],
    ),
    "identifiers match none": (
        "tables",
        lambda p: _lines(p / "coordinates.csv", lambda ls: [ls[0], *("X" + x for x in ls[1:])]),
        [],
        ["do not match"],
    ),
    "NaN coordinate": ("visium", _last_cell("nan"), [], ["must be finite", "1 of 50"]),
    "infinite coordinate": ("visium", _last_cell("inf"), [], ["must be finite", "1 of 50"]),
    "no coordinate": ("visium", _last_cell(""), [], ["must be finite", "1 of 50"]),
    "NaN coordinate (h5ad)": ("h5ad", _adata(lambda a: _set(a, 3, np.nan)), [], ["finite", "1 of 60"]),
    "infinite coordinate (h5ad)": ("h5ad", _adata(lambda a: _set(a, 3, -np.inf)), [], ["finite", "1 of 60"]),
    "duplicated barcodes": (
        "visium",
        _section(barcodes=lambda b: [b[1], *b[1:]]),
        [],
        ["barcodes of the matrix must be unique", "1 repeated"],
    ),
    "duplicated positions": (
        "visium",
        lambda p: _lines(_positions(p), lambda ls: [*ls, ls[5]]),
        [],
        ["barcodes of the positions file must be unique", "1 repeated"],
    ),
    "duplicated names (h5ad)": ("h5ad", _adata(_repeated_names), [], ["unique", "cell0"]),
    "negative counts": ("visium", _section(counts=lambda c: c - 2), [], ["negative", "-2", "raw counts"]),
    "negative counts (h5ad)": ("h5ad", _adata(_scaled), [], ["negative", "smallest value -"]),
    "NaN counts": (
        "h5ad",
        _adata(lambda a: a.X.__setitem__((0, 0), np.nan)),
        [],
        ["counts must be finite"],
    ),
    "all zero": ("visium", _section(counts=lambda c: c * 0), [], ["nothing but zeros"]),
    "all zero (h5ad)": ("h5ad", _adata(lambda a: setattr(a, "X", a.X * 0)), [], ["nothing but zeros"]),
    "no spot": ("visium", _section(in_tissue=_only(0)), [], ["matrix is empty", "0 barcodes"]),
    "no spot (h5ad)": ("h5ad", _adata(lambda a: a[:0].copy()), [], ["at least 2 spots", "0 spots"]),
    "no gene (h5ad)": ("h5ad", _adata(lambda a: a[:, :0].copy()), [], ["1 gene", "0 genes"]),
    "a single spot": ("visium", _section(in_tissue=_only(1)), [], ["at least 2 spots", "1 spots"]),
    "a single spot (h5ad)": ("h5ad", _adata(lambda a: a[:1].copy()), [], ["at least 2 spots", "1 spots"]),
    "fewer spots than domains": (
        "h5ad",
        _nothing,
        ["--n-domains", "61"],
        ["fewer spots than domains", "60 spots, 61 domains", "at most 60"],
    ),
    "truncated image": (
        "visium",
        lambda p: _truncate(p / "spatial/tissue_hires_image.png"),
        [],
        ["tissue_hires_image.png cannot be decoded", "truncated"],
    ),
    "image is text": (
        "visium",
        lambda p: (p / "spatial/tissue_lowres_image.png").write_text("no"),
        [],
        ["tissue_lowres_image.png cannot be decoded"],
    ),
    "image over the limit": (
        "visium",
        _nothing,
        ["--max-megapixels", "0.01"],
        ["over the limit of 0.01 megapixels", "--max-megapixels"],
    ),
    "image too small": ("visium", _small_image, [], ["smaller than the coordinates", "20 x 20"]),
    "image too small (legacy)": ("legacy", _half_image, [], ["smaller than the coor", "--image-scale"]),
    "no such image": ("visium", _nothing, ["--image", "no.tif"], ["no.tif does not exist"]),
    "scale factors not JSON": ("visium", _factors("{"), [], ["scalefactors_json.json is not JSON"]),
    "scale factors a list": ("visium", _factors("[1]"), [], ["holds no scale factors", "list"]),
    "scale factors empty": ("visium", _factors("{}"), [], ["tissue_hires_scalef is missing"]),
    "scale factor zero": ("visium", _factors(tissue_hires_scalef=0), [], ["positive number", "0"]),
    "scale factor NaN": ("visium", _factors(tissue_lowres_scalef=float("nan")), [], ["positive number"]),
    "scale factor a word": ("visium", _factors(tissue_hires_scalef="big"), [], ["positive number", "big"]),
    "unknown encoder": ("visium", _nothing, ["--encoder", "textur"], ["did you mean 'texture'?"]),
    "unknown method": ("visium", _nothing, ["--method", "smee"], ["did you mean 'sme'?"]),
    "unknown platform": ("visium", _nothing, ["--platform", "visum"], ["did you mean 'visium'?"]),
    "unlike any encoder": ("visium", _nothing, ["--encoder", "zzz"], ["encoder 'zzz'", "texture"]),
    "another platform": ("h5ad", _nothing, ["--platform", "visium"], ["read from a folder"]),
    "image scale 0": ("visium", _nothing, ["--image-scale", "0"], ["image_scale", "greater than 0"]),
    "image scale NaN": ("visium", _nothing, ["--image-scale", "nan"], ["image_scale"]),
    "limit switched off": ("visium", _nothing, ["--max-megapixels", "inf"], ["max_megapixels"]),
    "no domains": ("visium", _nothing, ["--n-domains", "0"], ["n_domains"]),
    "negative seed": ("visium", _nothing, ["--seed", "-1"], ["seed"]),
    "min counts drops all": ("visium", _nothing, ["--min-counts", "1e9"], ["fewer than 2 spots", "0 with"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    base, damage, arguments, words = BAD[name]
    path = BASES[base](tmp_path)
    damage(path)
    out = tmp_path / "out"
    before = command_line.old_result(out)
    beside = sorted(tmp_path.iterdir())
    called = command_line.call(capsys, "run", path, "--out", out, "--quiet", *arguments)
    assert called.code == 2, called.err
    assert called.err.count("\n") == 1, called.err
    assert called.out == ""
    for word in words:
        assert word in called.error
    assert "; cure: " in called.error
    assert called.error.isprintable()
    assert command_line.tree(out) == before
    assert sorted(tmp_path.iterdir()) == beside, "nothing is left beside the result"


def test_what_is_said_before_the_error_is_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    called = command_line.call(capsys, "run", tmp_path / "no", "--out", tmp_path / "out")
    assert called.code == 2
    assert called.err.splitlines() == ["smeld: reading", called.error]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line.skip_pictures(monkeypatch)


def _version_one(path: Path) -> Path:
    shutil.rmtree(path)
    return command_line.visium(path, version=1)


def _full_size_again(path: Path) -> Path:
    _half_image(path)
    return path


def _off_tissue_nan(path: Path) -> Path:
    _lines(_positions(path), lambda ls: [*ls[:-1], ls[-1].rpartition(",")[0] + ",nan"])
    return path


def _two_spots(path: Path) -> Path:
    _adata(lambda a: a[[0, 20]].copy())(path)
    return path


#: good sections that differ little from bad ones: base, change, further arguments
GOOD: dict[str, tuple[str, Callable[[Path], Path] | None, list[str]]] = {
    "visium": ("visium", None, ["--n-domains", "2"]),
    "positions without header": ("visium", _version_one, ["--n-domains", "2"]),
    "NaN beside the tissue": ("visium", _off_tissue_nan, ["--n-domains", "2"]),
    "within the limit": ("visium", None, ["--max-megapixels", "0.5", "--n-domains", "2"]),
    "no encoder": ("visium", None, ["--encoder", "none", "--n-domains", "2"]),
    "h5ad": ("h5ad", None, ["--n-domains", "2", "--method", "sme"]),
    "as many spots as domains": ("h5ad", None, ["--n-domains", "60"]),
    "two spots": ("h5ad", _two_spots, ["--n-domains", "2"]),
    "tables": ("tables", None, ["--um-per-unit", "1", "--platform", "tables"]),
    "legacy": ("legacy", None, ["--n-domains", "2"]),
    "smaller image with its scale": (
        "legacy",
        _full_size_again,
        ["--image-scale", "0.5", "--n-domains", "2"],
    ),
}


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("name", GOOD)
def test_good_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    base, change, arguments = GOOD[name]
    path = BASES[base](tmp_path)
    path = change(path) if change else path
    out = tmp_path / "out"
    before = command_line.old_result(out)
    called = command_line.call(capsys, "run", path, "--out", out, "--quiet", *arguments)
    assert (called.code, called.out, called.err) == (0, "", "")
    after = command_line.tree(out)
    assert not set(before.items()) & set(after.items()) - {("tables", "folder"), ("figures", "folder")}
    assert {"result.h5ad", "report.html", "run.toml"} <= set(after)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"out", path.name})


# -- places that cannot be written ---------------------------------------------------------------------------


def _run(capsys: pytest.CaptureFixture[str], path: Path, out: Path) -> str:
    called = command_line.call(capsys, "run", path, "--out", out, "--quiet", "--n-domains", "2")
    assert called.code == 2, called.err
    assert called.err.count("\n") == 1
    assert "cure: give" in called.error
    return called.error


@pytest.mark.usefixtures("without_pictures")
class TestOutput:
    def test_a_file_in_its_place(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = _h5ad(tmp_path)
        (tmp_path / "out").write_text("mine")
        assert "is not a folder" in _run(capsys, path, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"

    def test_below_a_file(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = _h5ad(tmp_path)
        (tmp_path / "file").write_text("mine")
        assert "cannot be written" in _run(capsys, path, tmp_path / "file" / "out")
        assert (tmp_path / "file").read_text() == "mine"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_read_only(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = _h5ad(tmp_path)
        (tmp_path / "locked").mkdir(mode=0o555)
        assert "cannot be written" in _run(capsys, path, tmp_path / "locked" / "out")
        assert not list((tmp_path / "locked").iterdir())

    def test_no_file_system_for_writing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        if not Path("/proc/self").is_dir():
            pytest.skip("needs a folder in which even root cannot write")
        assert "cannot be written" in _run(capsys, _h5ad(tmp_path), Path("/proc/out"))

    def test_it_is_found_out_before_the_work(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "analyse", lambda *_, **__: pytest.fail("the work was begun"))
        (tmp_path / "file").write_text("mine")
        _run(capsys, _h5ad(tmp_path), tmp_path / "file" / "out")

    @pytest.mark.parametrize("foreign", ["notes.txt", "tables/mine.xlsx", "figures/sub/a.png"])
    def test_files_that_smeld_did_not_write(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], foreign: str
    ) -> None:
        path, out = _h5ad(tmp_path), tmp_path / "out"
        command_line.old_result(out)
        (out / foreign).parent.mkdir(exist_ok=True)
        (out / foreign).write_text("mine")
        before = command_line.tree(out)
        assert foreign in _run(capsys, path, out)
        assert command_line.tree(out) == before

    def test_a_folder_that_is_not_smelds(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path, out = _h5ad(tmp_path), tmp_path / "out"
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
        assert "no run.toml" in _run(capsys, path, out)
        assert command_line.tree(out).keys() == {"thesis.tex"}

    def test_the_section_itself(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = _visium(tmp_path)
        before = command_line.tree(path)
        _run(capsys, path, path)
        assert command_line.tree(path) == before

    def test_an_empty_folder_is_fine(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path, out = _h5ad(tmp_path), tmp_path / "new" / "deep" / "out"
        out.mkdir(parents=True)
        assert command_line.call(capsys, "run", path, "--out", out, "-q", "--n-domains", "2").code == 0
        assert (out / "report.html").is_file()


# -- what goes on, with a warning ----------------------------------------------------------------------------


def _not_whole(path: Path) -> None:
    make.write_matrix(path, make.replace(command_line.halves(make.section()), counts=make.section().counts * 0.5))


def _same_genes(path: Path) -> None:
    section = command_line.halves(make.section())
    make.write_matrix(path, make.replace(section, genes=[*section.genes[:11], section.genes[0]]))


def _without_images(path: Path) -> None:
    for picture in (path / "spatial").glob("*.png"):
        picture.unlink()


def _empty_spots(path: Path) -> None:
    section = command_line.halves(make.section())
    counts = section.counts.copy()
    counts[[3, 11, 20]] = 0
    make.write_matrix(path, make.replace(section, counts=counts))


#: name -> (damage, what the report and standard error say)
GOES_ON: dict[str, tuple[Damage, list[str]]] = {
    "non-integer counts": (_not_whole, ["not whole numbers", "approximate"]),
    "duplicated genes": (_same_genes, ["1 gene names occur more than once", "made unique"]),
    "no image": (_without_images, ["no image was found", "morphology is left out"]),
    "empty spots": (_empty_spots, ["3 of 50 spots without counts were dropped"]),
}


@pytest.mark.parametrize("name", GOES_ON)
def test_goes_on_with_a_warning_in_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    damage, words = GOES_ON[name]
    if name != "no image":  # the one whose figures differ
        monkeypatch.setattr(pipeline, "save_figures", lambda adata, folder: [])
    path, out = _visium(tmp_path), tmp_path / "out"
    damage(path)
    called = command_line.call(capsys, "run", path, "--out", out, "--n-domains", "2")
    assert called.code == 0, called.err
    page = (out / "report.html").read_text()
    adata = anndata.read_h5ad(out / "result.h5ad")
    kept = " ".join(adata.uns["smeld"]["warnings"])
    for word in words:
        assert word in page
        assert word in kept
        assert word in called.err
    assert "smeld: warning: " in called.err


def test_a_good_section_has_none_of_these_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    called = command_line.call(capsys, "run", _visium(tmp_path), "--out", out, "--n-domains", "2")
    assert called.code == 0
    page = (out / "report.html").read_text()
    for _, words in GOES_ON.values():
        assert not any(word in page or word in called.err for word in words)
