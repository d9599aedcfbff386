"""``smeld interactions RESULT``: a folder beside the result, complete or not there, and the result untouched."""

from __future__ import annotations

import tomllib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import command_line
import smeld as sm
import stored_section
from smeld import _followup

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A stored result in which g0 and g1 lie together."""
    adata = stored_section.make(rows=20, columns=20)
    rng = np.random.default_rng(0)
    y, x = np.divmod(np.arange(adata.n_obs), 20)
    patch = 4.0 * ((x // 3 + y // 3) % 3 == 0)
    counts = adata.X.toarray()
    counts[:, :2] = rng.poisson(patch[:, None] + 0.2, (adata.n_obs, 2))
    adata.X = counts
    sm.write(adata, tmp_path / "r" / "result.h5ad")
    return tmp_path / "r"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and the page have tests of their own."""
    monkeypatch.setattr(_followup, "save_figures", lambda adata, folder: [])
    monkeypatch.setattr(_followup, "write_report", lambda adata, path, **_: path.write_text("page"))


@pytest.mark.parametrize(
    "table", ["ligand,receptor\ng0,g1\ng2,g3\n", "a\tb\ng0\tg1\ng2\tg3\n", "ligand;receptor\ng0;g1\n"]
)
def test_a_folder_with_tables_and_report(result: Path, tmp_path: Path, capsys: Capture, table: str) -> None:
    pairs = tmp_path / "pairs.txt"
    pairs.write_text(table)
    before = (result / "result.h5ad").read_bytes()
    called = command_line.call(capsys, "interactions", str(result), "--out", str(tmp_path / "o"), "--pairs", str(pairs))
    assert called.code == 0, called.err
    assert called.out.strip() == str(tmp_path / "o" / "report.html")
    found = pd.read_csv(tmp_path / "o" / "tables" / "interactions.csv")
    assert found.loc[0, ["ligand", "receptor"]].tolist() == ["g0", "g1"] and found.loc[0, "qvalue"] < 0.01
    assert (tmp_path / "o" / "tables" / "celltype_interactions.csv").is_file()
    assert ad.read_h5ad(tmp_path / "o" / "result.h5ad").uns["interactions"].shape[0] == len(found)
    assert (result / "result.h5ad").read_bytes() == before
    made = tomllib.loads((tmp_path / "o" / _followup.SETTINGS).read_text())
    assert made["interactions"]["pairs"] == str(pairs) and "smeld" in made["versions"]
    again = command_line.call(capsys, "interactions", str(result), "--out", str(tmp_path / "o"), "--pairs", str(pairs))
    assert again.code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--pairs", "absent.csv"], "cannot be read"),
        (["--groups", "nowhere"], "nowhere"),
        (["--statistic", "spatal"], "did you mean 'spatial'"),
        (["--adjust", "library,nowhere"], "nowhere"),
        (["--organism", "yeast"], "organism"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(
    result: Path, tmp_path: Path, capsys: Capture, options: list[str], said: str
) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("ligand,receptor\ng0,g1\n")
    given = options if "--pairs" in options else [*options, "--pairs", str(pairs)]
    called = command_line.call(capsys, "interactions", str(result), "--out", str(tmp_path / "o"), *given)
    line = called.err.splitlines()[-1]
    assert called.code == 2 and line.startswith("smeld: error:") and said in line
    assert not (tmp_path / "o").exists()


def test_a_single_column_is_no_table_of_pairs(result: Path, tmp_path: Path, capsys: Capture) -> None:
    pairs = tmp_path / "pairs.csv"
    for text in ("ligand\nCXCL12\n", "", "ligand,receptor\n,\n"):
        pairs.write_text(text)
        out = str(tmp_path / "o")
        called = command_line.call(capsys, "interactions", str(result), "--out", out, "--pairs", str(pairs))
        line = called.err.splitlines()[-1]
        assert called.code == 2 and ("two columns" in line or "cannot be read" in line)


def test_without_a_header_the_first_row_is_a_pair(result: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("\ufeffg0,g1\ng2,g3\n", encoding="utf-8")
    assert len(_followup._table(pairs, [f"g{i}" for i in range(20)])) == 2


def test_neither_the_result_nor_a_foreign_folder_is_replaced(result: Path, tmp_path: Path, capsys: Capture) -> None:
    for out in (result, tmp_path / "mine"):
        out.mkdir(exist_ok=True)
        (out / "notes.txt").write_text("mine")
        called = command_line.call(capsys, "interactions", str(result), "--out", str(out))
        assert called.code == 2 and (out / "notes.txt").read_text() == "mine"


def test_options_are_settings() -> None:
    """The command's options are the fields of the settings, and these are parameters of the two tasks."""
    import inspect

    from smeld import cli

    options = set(inspect.signature(cli.interactions_command).parameters) - {"result", "out", "quiet", "verbose"}
    assert options == set(_followup.PairSettings.__dataclass_fields__)
    assert options - {"groups"} <= set(inspect.signature(sm.tl.interactions).parameters)
