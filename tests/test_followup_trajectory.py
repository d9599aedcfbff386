"""``smeld trajectory RESULT`` and ``smeld run --trajectory``: what is written, and what bad input says."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path

import anndata as ad
import pandas as pd
import pytest

import command_line
import smeld as sm
from smeld import _followup, _optional, cli

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stored, fused section with its true domains as domains."""
    adata = sm.datasets.simulate(300, 80, image=False, seed=3)
    sm.fuse(adata, evidence=False)
    adata.obs["domain"] = adata.obs["truth_domain"]
    folder = tmp_path_factory.mktemp("r")
    sm.write(adata, folder / "result.h5ad")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and the page have tests of their own."""
    monkeypatch.setattr(_followup, "save_figures", lambda adata, folder: [])
    monkeypatch.setattr(_followup, "write_report", lambda adata, path, **_: path.write_text("page"))


def test_a_folder_with_tables_and_report(result: Path, tmp_path: Path, capsys: Capture) -> None:
    before = (result / "result.h5ad").read_bytes()
    given = ["--root", "D1", "--n-bootstraps", "2", "--path", "D7"]
    called = command_line.call(capsys, "trajectory", str(result), "--out", str(tmp_path / "o"), *given)
    assert called.code == 0, called.err
    assert called.out.strip() == str(tmp_path / "o" / "report.html")
    stored = ad.read_h5ad(tmp_path / "o" / "result.h5ad")
    nodes = pd.read_csv(tmp_path / "o" / "tables" / "pseudotime_nodes.csv")
    assert nodes.loc[nodes["root"], "node"].iloc[0] == "D1"
    genes = pd.read_csv(tmp_path / "o" / "tables" / "transition_genes.csv")
    assert genes["gene"].tolist() == stored.uns["transition_genes"]["gene"].tolist()
    assert stored.obs.groupby("domain", observed=True)["pseudotime"].mean().idxmin() == "D1"
    made = tomllib.loads((tmp_path / "o" / _followup.ORDERED).read_text())
    assert made["trajectory"]["root"] == "D1" and made["trajectory"]["path"] == "D7"
    assert (result / "result.h5ad").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--root", "nowhere"], "neither a label"),
        (["--groups", "nowhere"], "nowhere"),
        (["--root", "D1", "--within", "D9"], "D9"),
        (["--root", "D1", "--n-bootstraps", "1"], "at least 2"),
        (["--root", "D1", "--n-bootstraps", "2", "--branch", "D3"], "two branches"),
    ],
)
def test_bad_input_is_a_line_and_leaves_nothing(
    result: Path, tmp_path: Path, capsys: Capture, options: list[str], said: str
) -> None:
    called = command_line.call(capsys, "trajectory", str(result), "--out", str(tmp_path / "o"), *options)
    line = called.err.splitlines()[-1]
    assert called.code == 2 and line.startswith("smeld: error:") and said in line
    assert not (tmp_path / "o").exists()


def test_options_are_settings() -> None:
    """The command's options are the fields of the settings, and these are parameters of the two tasks."""
    options = set(inspect.signature(cli.trajectory_command).parameters) - {"result", "out", "quiet", "verbose"}
    assert options == set(_followup.TrajectorySettings.__dataclass_fields__)
    assert options - {"path", "branch"} <= set(inspect.signature(sm.tl.trajectory).parameters)
    assert {"path", "branch"} <= set(inspect.signature(sm.tl.transition_genes).parameters)


def test_the_main_job_keeps_its_results_where_the_root_is_not_there(result: Path) -> None:
    adata = sm.read(result / "result.h5ad")
    with pytest.warns(sm.SmeldWarning, match="the trajectory is not complete"):
        _optional.trajectory(adata, "nowhere", 0)
    assert "pseudotime" not in adata.obs
