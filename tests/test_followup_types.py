"""``smeld annotate`` and ``smeld deconvolve``: what they read, what they write, and what bad input says."""

from __future__ import annotations

import gzip
import inspect
import tomllib
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import typer
from scipy.io import mmwrite
from typer.testing import CliRunner

import smeld as sm
from smeld import _cli_types, _followup, _followup_types

app = typer.Typer()
app.command("annotate")(_cli_types.annotate_command)
app.command("deconvolve")(_cli_types.deconvolve_command)

#: small sections warn that little can be said of them
pytestmark = pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells in result.h5ad, and their reference as an .h5ad."""
    adata = sm.datasets.simulate(
        150, 60, layout="cells", seed=100, image=False, n_cell_types=3, cell_type_effect=2.5, mean_counts=150
    )
    folder = tmp_path_factory.mktemp("cells")
    sm.write(adata, folder / "result.h5ad")
    reference = sm.datasets.simulate_reference(adata, 30, seed=100)
    reference.obs = reference.obs[["cell_type"]]
    reference.write_h5ad(folder / "reference.h5ad")
    return folder


@pytest.fixture(scope="module")
def spots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with spots in section.h5ad, which no run has seen, and their reference."""
    adata = sm.datasets.simulate(120, 60, seed=100, image=False, n_cell_types=3, mean_counts=300)
    folder = tmp_path_factory.mktemp("spots")
    sm.write(adata, folder / "section.h5ad")
    sm.datasets.simulate_reference(adata, 30, seed=100).write_h5ad(folder / "reference.h5ad")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and the page have tests of their own."""
    monkeypatch.setattr(_followup, "save_figures", lambda adata, folder: [])
    monkeypatch.setattr(_followup, "write_report", lambda adata, path, **_: path.write_text("page"))


def test_annotate_writes_what_the_task_finds(cells: Path, tmp_path: Path) -> None:
    before = (cells / "result.h5ad").read_bytes()
    out = tmp_path / "o"
    called = call(
        "annotate", cells, "--out", out, "--reference", cells / "reference.h5ad", "--spatial", "no", "--seed", 4
    )
    assert called.exit_code == 0, called.exception
    assert called.stdout.strip().endswith(str(out / "report.html"))
    adata = sm.read(cells / "result.h5ad")
    found = sm.tl.annotate(adata, ad.read_h5ad(cells / "reference.h5ad"), spatial=False, seed=4)
    stored = ad.read_h5ad(out / "result.h5ad")
    assert stored.obs["cell_type"].astype(str).tolist() == found.labels.astype(str).tolist()
    table = pd.read_csv(out / "tables" / "cell_types.csv").set_index("spot")
    assert table["cell_type"].tolist() == found.labels.astype(str).tolist()
    sets = [set() if isinstance(s, float) else set(s.split("; ")) for s in table["set"]]
    assert sets == [set(found.sets.columns[row]) for row in found.sets.to_numpy()]
    np.testing.assert_array_equal(table["set_size"], found.sets.sum(axis=1))
    prob = pd.read_csv(out / "tables" / "cell_type_probabilities.csv", index_col=0)
    np.testing.assert_allclose(prob, found.prob, atol=1e-8)
    made = tomllib.loads((out / _followup.ANNOTATED).read_text())
    assert made["annotation"]["seed"] == 4 and set(made["inputs"]) == {"result.h5ad", "--reference"}
    assert (cells / "result.h5ad").read_bytes() == before


def test_annotate_with_niches_writes_their_tables(cells: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_followup_types.tl, "niche_states", lambda *_, **__: None)  # a test of its own, and slow
    options = ["--reference", cells / "reference.h5ad", "--spatial", "no", "--niches", "--n-niches", 2]
    called = call("annotate", cells, "--out", tmp_path / "o", *options)
    assert called.exit_code == 0, called.exception
    shares = pd.read_csv(tmp_path / "o" / "tables" / "niche_composition.csv").set_index("niche")
    assert list(shares.index) == ["N1", "N2"]
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_markers_in_either_form(cells: Path, tmp_path: Path) -> None:
    reference = ad.read_h5ad(cells / "reference.h5ad")
    mean = pd.DataFrame(reference.X.toarray()).groupby(reference.obs["cell_type"].astype(str).to_numpy()).mean()
    best = {
        t: list(reference.var_names[(row / mean.sum().clip(lower=1e-9)).to_numpy().argsort()[::-1][:4]])
        for t, row in mean.iterrows()
    }
    (tmp_path / "wide.csv").write_text(pd.DataFrame(best).to_csv(index=False))
    long = pd.DataFrame([(t, g) for t, genes in best.items() for g in genes], columns=["type", "gene"])
    (tmp_path / "long.tsv").write_text(long.to_csv(index=False, sep="\t"))
    tables = []
    for name in ("wide.csv", "long.tsv"):
        called = call("annotate", cells, "--out", tmp_path / "o", "--markers", tmp_path / name, "--spatial", "no")
        assert called.exit_code == 0, called.exception
        tables.append((tmp_path / "o" / "tables" / "cell_types.csv").read_text())
    assert tables[0] == tables[1]


def test_deconvolve_writes_what_the_task_finds_on_a_section(spots: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    options = ["--reference", spots / "reference.h5ad", "--reach", 0, "--niches", "--n-niches", 2]
    options += ["--composition", "reference"]
    called = call("deconvolve", spots / "section.h5ad", "--out", out, *options)
    assert called.exit_code == 0, called.exception
    adata = sm.read(spots / "section.h5ad")
    found = sm.tl.deconvolve(adata, ad.read_h5ad(spots / "reference.h5ad"), reach=0, composition="reference")
    for suffix, frame in (("", found.proportions), ("_low", found.low), ("_absent", found.absent)):
        table = pd.read_csv(out / "tables" / f"cell_type_proportions{suffix}.csv", index_col=0)
        assert list(table.index) == list(adata.obs_names)
        np.testing.assert_allclose(table, frame, atol=1e-7)
    shifts = pd.read_csv(out / "tables" / "platform_shifts.csv", index_col="gene")["log_shift"]
    np.testing.assert_allclose(shifts, found.platform, atol=1e-6)
    assert list(shifts.index) == list(found.platform.index)
    assert "niche_composition.csv" in [p.name for p in (out / "tables").iterdir()]


def test_deconvolve_counts_nuclei_where_the_image_shows_them(tmp_path: Path) -> None:
    adata = sm.datasets.simulate(120, 60, layout="cells", seed=100, n_cell_types=3, mean_counts=200)
    adata.uns["spatial"]["simulated"]["metadata"]["spot_diameter_um"] = 40.0
    sm.write(adata, tmp_path / "section.h5ad")
    sm.datasets.simulate_reference(adata, 30, seed=100).write_h5ad(tmp_path / "reference.h5ad")
    options = ["--reference", tmp_path / "reference.h5ad", "--reach", 0]
    called = call("deconvolve", tmp_path / "section.h5ad", "--out", tmp_path / "o", *options)
    assert called.exit_code == 0, called.exception
    stored = ad.read_h5ad(tmp_path / "o" / "result.h5ad")
    expected = sm.morph.nuclei(adata).counts
    np.testing.assert_array_equal(stored.obs["n_nuclei"], expected)
    table = pd.read_csv(tmp_path / "o" / "tables" / "cell_type_counts.csv", index_col=0)
    np.testing.assert_allclose(table.sum(axis=1), expected, rtol=1e-4)
    called = call("deconvolve", tmp_path / "section.h5ad", "--out", tmp_path / "p", *options, "--no-nuclei")
    assert called.exit_code == 0, called.exception
    assert "n_nuclei" not in ad.read_h5ad(tmp_path / "p" / "result.h5ad").obs
    assert not (tmp_path / "p" / "tables" / "cell_type_counts.csv").exists()


def test_nuclei_that_cannot_be_counted_are_an_error_only_where_they_are_asked_for(spots: Path) -> None:
    adata = sm.read(spots / "section.h5ad")
    adata.uns["spatial"]["simulated"]["images"] = {"hires": np.full((60, 60, 3), 240, np.uint8)}
    said: list[str] = []
    _followup_types._count_nuclei(adata, None, said.append)
    assert "nuclei are not counted: the image's pixels are too large" in said[-1]
    with pytest.raises(sm.InputError, match="too large"):
        _followup_types._count_nuclei(adata, True, said.append)
    adata.obs["n_nuclei"] = 5.0
    _followup_types._count_nuclei(adata, None, said.append)
    assert (adata.obs["n_nuclei"] == 5).all() and "n_nuclei" in adata.obs


def _as_table(reference: ad.AnnData, folder: Path) -> Path:
    frame = pd.DataFrame(reference.X.toarray().astype(int), index=reference.obs_names, columns=reference.var_names)
    frame.insert(0, "cell_type", reference.obs["cell_type"].to_numpy())
    frame.to_csv(folder / "cells.csv.gz")
    return folder / "cells.csv.gz"


def _as_10x(reference: ad.AnnData, folder: Path) -> Path:
    folder = folder / "tenx"
    folder.mkdir()
    mmwrite(folder / "matrix.mtx", reference.X.T.astype(int))
    (folder / "barcodes.tsv").write_text("\n".join(reference.obs_names) + "\n")
    rows = [f"{gene}\tSymbol{i}\tGene Expression" for i, gene in enumerate(reference.var_names)]
    with gzip.open(folder / "features.tsv.gz", "wt") as lines:
        lines.write("\n".join(rows) + "\n")
    reference.obs[["cell_type"]].iloc[::-1].to_csv(folder / "types.csv")
    return folder


@pytest.mark.parametrize("form", [_as_table, _as_10x], ids=["table", "10x"])
def test_every_form_of_the_reference_says_the_same(cells: Path, tmp_path: Path, form) -> None:
    reference = ad.read_h5ad(cells / "reference.h5ad")
    section = sm.read(cells / "result.h5ad")
    read = _followup_types.read_reference(form(reference, tmp_path), "cell_type", section)
    one, other = (sm.tl.annotate(section.copy(), given, spatial=False) for given in (reference, read))
    pd.testing.assert_frame_equal(one.prob, other.prob)
    assert isinstance(_followup_types.read_reference(cells, "cell_type", section), ad.AnnData)


def _section(folder: Path) -> Any:
    return sm.read(folder / "result.h5ad")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: f / "nowhere.h5ad", "the reference is missing"),
        (lambda f: _written(f / "cells.loom", "x"), "ending that is not known"),
        (lambda f: _written(f / "cells.h5ad", "x"), "cannot be read as .h5ad"),
        (lambda f: _written(f / "empty.csv", ""), "the reference in empty.csv cannot be read"),
        (lambda f: _written(f / "d" / "notes.md", "x").parent, "holds no reference"),
        (lambda f: _written(f / "d" / "matrix.mtx", "x").parent, "one table of labels is needed"),
    ],
)
def test_references_that_cannot_be_read(cells: Path, tmp_path: Path, make, said: str) -> None:
    with pytest.raises(sm.InputError, match=said):
        _followup_types.read_reference(make(tmp_path), "cell_type", _section(cells))


def test_labels_beside_10x_files_must_name_its_cells(cells: Path, tmp_path: Path) -> None:
    folder = _as_10x(ad.read_h5ad(cells / "reference.h5ad"), tmp_path)
    (folder / "types.csv").write_text("cell,cell_type\nsomebody,T1\n")
    with pytest.raises(sm.InputError, match="no cell of the matrix has a label"):
        _followup_types.read_reference(folder, "cell_type", _section(cells))
    (folder / "types.csv").write_text("cell,kind\nsomebody,T1\n")
    with pytest.raises(sm.InputError, match="cell_type"):
        _followup_types.read_reference(folder, "cell_type", _section(cells))


def _written(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reference", "REF", "--label", "kind"], "kind"),
        (["--reference", "REF", "--spatial", "perhaps"], "perhaps"),
        (["--reference", "REF", "--level", "2"], "level must lie"),
        (["--reference", "REF", "--spatial", "no", "--n-niches", "3"], "no niches were asked for"),
        ([], "give a reference or markers"),
    ],
)
def test_bad_input_leaves_nothing(cells: Path, tmp_path: Path, options: list[str], said: str) -> None:
    given = [str(cells / "reference.h5ad") if option == "REF" else option for option in options]
    called = call("annotate", cells, "--out", tmp_path / "o", *given)
    assert isinstance(called.exception, sm.InputError) and said in str(called.exception)
    assert not (tmp_path / "o").exists()


def test_the_result_is_not_replaced(cells: Path) -> None:
    called = call("annotate", cells, "--out", cells, "--reference", cells / "reference.h5ad")
    assert isinstance(called.exception, sm.InputError) and "would be replaced" in str(called.exception)


@pytest.mark.parametrize(
    ("command", "settings", "task", "own"),
    [
        (_cli_types.annotate_command, _followup_types.AnnotateSettings, sm.tl.annotate, {"niches"}),
        (_cli_types.deconvolve_command, _followup_types.DeconvolveSettings, sm.tl.deconvolve, {"niches"}),
    ],
)
def test_options_are_settings(command, settings, task, own: set[str]) -> None:
    """The options are the fields of the settings, with the same defaults, and these are parameters of the tasks."""
    options = dict(inspect.signature(command).parameters)
    for name in ("result", "out", "quiet", "verbose"):
        del options[name]
    fields = settings.__dataclass_fields__
    assert set(options) == set(fields)
    for name, parameter in options.items():
        assert name == "reference" or parameter.default == fields[name].default
    assert set(fields) - own - {"n_niches"} <= set(inspect.signature(task).parameters)
    assert set(inspect.signature(task).parameters) - set(fields) == {"data", "key_added"}, "all can be asked for"
    assert "n_niches" in inspect.signature(sm.tl.niches).parameters
