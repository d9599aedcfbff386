"""``smeld calibrate RESULT``: tables and report of confidence against labels, from obs or from a table."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import command_line
import smeld as sm
import stored_section
from smeld import _followup, cli

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored result with labels of its own for all spots but the first ten."""
    adata = stored_section.make(rows=20, columns=20, image=False)
    named = "L" + adata.obs["domain"].astype(str)
    adata.obs["mine"] = pd.Categorical(named.where(np.arange(adata.n_obs) >= 10))
    folder = tmp_path_factory.mktemp("r")
    sm.write(adata, folder / "result.h5ad")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and the page have tests of their own."""
    monkeypatch.setattr(_followup, "save_figures", lambda adata, folder: [])
    monkeypatch.setattr(_followup, "write_report", lambda adata, path, **_: path.write_text("page"))


def call(capsys: Capture, result: Path, out: Path, *options: object) -> command_line.Called:
    return command_line.call(capsys, "calibrate", result, "--out", out, *options)


def test_tables_record_and_result(result: Path, tmp_path: Path, capsys: Capture) -> None:
    before = (result / "result.h5ad").read_bytes()
    called = call(capsys, result, tmp_path / "o", "--label", "mine")
    assert called.code == 0, called.err
    assert called.out.strip() == str(tmp_path / "o" / "report.html")
    assert "10 of 400 spots have no label" in called.err
    summary = pd.read_csv(tmp_path / "o" / "tables" / "domain_calibration_summary.csv")
    adata = sm.read(result / "result.h5ad")
    with pytest.warns(sm.SmeldWarning, match="no label"):
        wanted = sm.tl.calibration(adata, "mine").summary
    pd.testing.assert_frame_equal(summary, wanted.reset_index(drop=True), rtol=1e-6, check_dtype=False)
    matching = pd.read_csv(tmp_path / "o" / "tables" / "domain_calibration_matching.csv", dtype=str)
    assert (matching["label"] == "L" + matching["class"]).all()
    stored = ad.read_h5ad(tmp_path / "o" / "result.h5ad")
    assert set(stored.uns["domain_calibration"]) == {"reliability", "risk_coverage", "summary", "matching"}
    made = tomllib.loads((tmp_path / "o" / _followup.SCORED).read_text())
    assert made["calibration"] == {"label": "mine", "prediction": "domain", "seed": 0}
    assert (result / "result.h5ad").read_bytes() == before
    assert call(capsys, result, tmp_path / "o", "--label", "mine", "--by-name").code == 0, "its own folder is replaced"
    made = tomllib.loads((tmp_path / "o" / _followup.SCORED).read_text())
    assert made["calibration"]["match"] is False


@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_labels_from_a_table_in_any_order(result: Path, tmp_path: Path, capsys: Capture, separator: str) -> None:
    adata = sm.read(result / "result.h5ad")
    part = adata.obs[["domain"]].rename(columns={"domain": "layer"}).sample(250, random_state=0)
    part.loc["elsewhere"] = "1"
    part.to_csv(tmp_path / "labels.txt", sep=separator, index_label="barcode")
    called = call(capsys, result, tmp_path / "o", "--label", "layer", "--table", tmp_path / "labels.txt")
    assert called.code == 0, called.err
    assert "150 of 400 spots have no label" in called.err
    matching = pd.read_csv(tmp_path / "o" / "tables" / "domain_calibration_matching.csv")
    assert matching["n_agree"].sum() == 250 and matching["n_class"].sum() == 250


def test_an_order(result: Path, tmp_path: Path, capsys: Capture) -> None:
    adata = sm.read(result / "result.h5ad")
    rank = (np.arange(adata.n_obs) + 0.5) / adata.n_obs
    adata.obs["pseudotime"], adata.obs["pseudotime_low"], adata.obs["pseudotime_high"] = rank, rank - 0.1, rank + 0.1
    adata.obs["age"] = np.arange(adata.n_obs)
    sm.write(adata, tmp_path / "result.h5ad")
    options = ("--label", "age", "--prediction", "pseudotime")
    called = call(capsys, tmp_path / "result.h5ad", tmp_path / "o", *options)
    assert called.code == 0, called.err
    names = {p.name for p in (tmp_path / "o" / "tables").iterdir()}
    assert names == {f"pseudotime_calibration_{part}.csv" for part in ("reliability", "risk_coverage", "summary")}


TABLES = {
    "no such table": (None, "cannot be read"),
    "column": ("spot,layer\nspot0000,a\n", "'mine'"),
    "strangers": ("spot,mine\nx,a\ny,b\n", "names no spot"),
    "twice": ("spot,mine\nspot0000,a\nspot0000,b\n", "more than once"),
    "one column": ("mine\na\n", "'mine'"),
    "empty": ("", "cannot be read"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_that_are_not_what_they_should_be(result: Path, tmp_path: Path, capsys: Capture, name: str) -> None:
    text, said = TABLES[name]
    if text is not None:
        (tmp_path / "labels.csv").write_text(text)
    called = call(capsys, result, tmp_path / "o", "--label", "mine", "--table", tmp_path / "labels.csv")
    assert called.code == 2 and said in called.error
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label", "nowhere"], "nowhere"),
        (["--label", "domain"], "another column than what is scored"),
        (["--label", "mine", "--prediction", "cell_type"], "cell_type_prob"),
        (["--label", "mine", "--batch-key", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(
    result: Path, tmp_path: Path, capsys: Capture, options: list[str], said: str
) -> None:
    called = call(capsys, result, tmp_path / "o", *options)
    assert called.code == 2 and said in called.error
    assert not (tmp_path / "o").exists()


def test_options_are_settings() -> None:
    """The command's options are the fields of the settings, and these are parameters of the task."""
    options = set(inspect.signature(cli.calibrate_command).parameters) - {"result", "out", "quiet", "verbose"}
    assert options == set(_followup.CalibrationSettings.__dataclass_fields__)
    known = set(inspect.signature(sm.tl.calibration).parameters)
    assert options - {"label", "table", "prediction"} <= known and {"truth", "key"} <= known
