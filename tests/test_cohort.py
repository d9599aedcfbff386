"""Many samples: the sheet, resuming, what fails and what goes on, the summary."""

from __future__ import annotations

import csv
import errno
import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import command_line
import smeld
from smeld import _cohort, _cohort_sheet, _estimate, pipeline

Capture = pytest.CaptureFixture[str]


def write_sheet(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def summary(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open(encoding="utf-8", newline="") as lines:
        return {row["sample"]: row for row in csv.DictReader(lines)}


@pytest.fixture
def sections(tmp_path: Path) -> Path:
    """Three good sections, ``s0.h5ad`` to ``s2.h5ad``, in a folder of their own."""
    folder = tmp_path / "sections"
    folder.mkdir()
    for k in range(3):
        command_line.h5ad(folder / f"s{k}.h5ad", seed=k)
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The main job without its analyses; the sections that were run, in order."""
    seen: list[str] = []

    def write(adata: Any, folder: Path, config: pipeline.RunConfig) -> None:
        smeld.write(adata, folder / pipeline.RESULT)
        (folder / pipeline.TABLES).mkdir()
        (folder / pipeline.TABLES / "domains.csv").write_text("domain\n" + "1\n" * (config.n_domains or 1))

    def analyse(adata: Any, config: pipeline.RunConfig, **_: Any) -> None:
        seen.append(Path(config.path).stem)

    monkeypatch.setattr(pipeline, "analyse", analyse)
    monkeypatch.setattr(pipeline, "_write_results", write)
    yield seen


# -- the sheet -----------------------------------------------------------------------------------------------


def test_rows_become_configurations(sections: Path, tmp_path: Path) -> None:
    """Cells before settings, settings before defaults; paths from the sheet; other columns are notes."""
    sheet = write_sheet(
        sections / "sheet.csv",
        "sample,group,path,n_domains,evidence,region_um",
        "A,tumour,s0.h5ad,3,no,0 0 200 300",
        "",
        f"B,,{sections / 's1.h5ad'},,,",
    )
    a, b = _cohort.read_sheet(sheet, tmp_path / "out", {"n_domains": 7, "seed": 2})
    path = str(sections / "s0.h5ad")
    expected = pipeline.configure(path=path, n_domains=3, seed=2, evidence=False, region_um=(0, 0, 200, 300))
    assert (a.name, a.config, a.notes) == ("A", expected, {"group": "tumour"})
    assert b.config == pipeline.configure(path=str(sections / "s1.h5ad"), n_domains=7, seed=2)


@pytest.mark.parametrize(("name", "mark"), [("s.tsv", "\t"), ("s.csv", ";")])
def test_tabs_and_semicolons(sections: Path, tmp_path: Path, name: str, mark: str) -> None:
    sheet = write_sheet(sections / name, f"\ufeffsample{mark}path", f"A{mark}s0.h5ad")
    assert _cohort.is_sheet(sheet)
    assert [s.name for s in _cohort.read_sheet(sheet, tmp_path / "out", {})] == ["A"]


def test_what_is_no_sheet(tmp_path: Path) -> None:
    """A table of cells of some platform is a section, as before."""
    assert not _cohort.is_sheet(write_sheet(tmp_path / "a_codex.csv", "sample,x,y,CD3", "1,2,3,4"))
    assert not _cohort.is_sheet(tmp_path)
    assert not _cohort.is_sheet(tmp_path / "absent.csv")


def test_all_faults_are_said_at_once_and_nothing_is_run(sections: Path, tmp_path: Path, capsys: Capture) -> None:
    sheet = write_sheet(
        sections / "sheet.csv",
        "sample,path,n_domain,encoder,seed,error",
        "A,s0.h5ad,,,,",
        "a,s1.h5ad,,,,",
        "B,absent.h5ad,,,,",
        "../C,s0.h5ad,,,,",
        "D,s0.h5ad,,textur,,",
        "E,s0.h5ad,,,minus,",
        "F,,,,,",
        "G,s0.h5ad",
    )
    called = command_line.call(capsys, "run", sheet, "--out", tmp_path / "out")
    assert called.code == 2
    for said in (
        "sheet.csv has 9 faults",
        "unknown setting 'n_domain': did you mean 'n_domains'?",
        "column 'error' cannot be kept",
        "sample 'a' is there 2 times",
        "path of sample 'B' does not exist",
        "sample '../C' cannot be a folder's name",
        "did you mean 'texture'?",
        "setting 'seed' is not valid",
        "sample 'F' has no path",
        "line 9 has 2 cells, the header 6",
    ):
        assert said in called.error
    assert not (tmp_path / "out").exists()


def test_an_input_among_the_results_is_refused(sections: Path) -> None:
    sheet = write_sheet(sections / "sheet.csv", "sample,path", "A,s0.h5ad", "s1.h5ad,s0.h5ad", "B,s1.h5ad")
    with pytest.raises(smeld.InputError, match="path of sample 'B' lies in the results of a sample"):
        _cohort.read_sheet(sheet, sections, {})


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_a_name_stays_in_the_folder(name: str) -> None:
    out = Path("/results")
    try:
        _cohort_sheet._check_name(name)
    except smeld.InputError:
        return
    assert (out / name).parent == out
    assert Path(name).name == name not in ("summary.csv", "summary.html")


# -- runs ----------------------------------------------------------------------------------------------------


def test_a_sample_has_the_bytes_of_its_own_run(
    sections: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unreadable section between two good ones: these are as if run alone, and the summary says why."""
    command_line.skip_pictures(monkeypatch)
    (sections / "bad.h5ad").write_text("no file")
    sheet = write_sheet(sections / "sheet.csv", "sample,path,n_domains", "A,s0.h5ad,2", "X,bad.h5ad,", "B,s1.h5ad,3")
    out = tmp_path / "out"
    called = command_line.call(capsys, "run", sheet, "--out", out, "--no-evidence", "-q")
    assert called.code == 1
    assert [p.name for p in sorted(out.iterdir())] == ["A", "B", "summary.csv", "summary.html"]
    alone = ("run", sections / "s1.h5ad", "--out", tmp_path / "alone", "--no-evidence", "--n-domains", "3", "-q")
    assert command_line.call(capsys, *alone).code == 0
    records = [tomllib.loads((folder / "run.toml").read_text()) for folder in (out / "B", tmp_path / "alone")]
    for part in ("config", "versions", "inputs", "results"):
        assert records[0][part] == records[1][part]
    rows = summary(out)
    assert [rows[n]["state"] for n in ("A", "X", "B")] == ["done", "refused", "done"]
    assert "bad.h5ad cannot be read" in rows["X"]["error"] and rows["X"]["seconds"] == ""
    assert (rows["B"]["n_spots"], rows["B"]["n_genes"], rows["B"]["n_domains"]) == ("60", "15", "3")
    assert 50 < float(rows["B"]["peak_mb"]) < 5000


def test_what_is_finished_is_not_done_again(sections: Path, tmp_path: Path, capsys: Capture, quick: list[str]) -> None:
    def run(*rows: str, code: int = 0) -> dict[str, str]:
        quick.clear()
        sheet = write_sheet(sections / "sheet.csv", "sample,path,n_domains", *rows)
        assert command_line.call(capsys, "run", sheet, "--out", tmp_path / "out", "-q").code == code
        return {name: row["ran"] for name, row in summary(tmp_path / "out").items()}

    assert run("A,s0.h5ad,2", "B,s1.h5ad,2") == {"A": "now", "B": "now"}
    first, peak = command_line.tree(tmp_path / "out" / "A"), summary(tmp_path / "out")["A"]["peak_mb"]
    assert run("A,s0.h5ad,2", "B,s1.h5ad,2") == {"A": "before", "B": "before"} and quick == []
    assert command_line.tree(tmp_path / "out" / "A") == first
    assert summary(tmp_path / "out")["A"]["peak_mb"] == peak
    assert run("A,s0.h5ad,2", "B,s1.h5ad,3", "C,s2.h5ad,2") == {"A": "before", "B": "now", "C": "now"}
    command_line.h5ad(sections / "s0.h5ad", seed=9)
    (tmp_path / "out" / "C" / "tables" / "domains.csv").write_text("cut sho")
    assert run("A,s0.h5ad,2", "B,s1.h5ad,3", "C,s2.h5ad,2") == {"A": "now", "B": "before", "C": "now"}
    assert quick == ["s0", "s2"]
    # annotations were written into the stored section
    (tmp_path / "out" / "B" / "annotations.geojson").write_text("{}")
    with (tmp_path / "out" / "B" / "result.h5ad").open("ab") as file:
        file.write(b"annotated")
    assert run("A,s0.h5ad,2", "B,s1.h5ad,3") == {"A": "before", "B": "before"} and quick == []


def test_other_versions_are_done_again(
    sections: Path, tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pipeline.configure(path=str(sections / "s0.h5ad"))
    pipeline.run(config, tmp_path / "A")
    assert _cohort.finished(tmp_path / "A", config)
    monkeypatch.setattr(_cohort, "versions", lambda: {"smeld": "9"})
    assert not _cohort.finished(tmp_path / "A", config)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), MemoryError("no\nmemory")])
def test_a_full_disk_or_memory_ends_one_sample_only(
    sections: Path, tmp_path: Path, capsys: Capture, quick: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write = pipeline._write_results

    def fails(adata: Any, folder: Path, config: pipeline.RunConfig) -> None:
        if config.path.endswith("s1.h5ad"):
            raise error
        write(adata, folder, config)

    monkeypatch.setattr(pipeline, "_write_results", fails)
    sheet = write_sheet(sections / "sheet.csv", "sample,path", *(f"{'ABC'[k]},s{k}.h5ad" for k in range(3)))
    called = command_line.call(capsys, "run", sheet, "--out", tmp_path / "out")
    assert called.code == 1
    rows = summary(tmp_path / "out")
    assert [row["state"] for row in rows.values()] == ["done", "failed", "done"]
    assert rows["B"]["error"].startswith(type(error).__name__) and "\n" not in rows["B"]["error"]
    assert not (tmp_path / "out" / "B").exists()
    assert "2 of 3: B failed" in called.err


def test_interrupted_it_goes_on(
    sections: Path, tmp_path: Path, capsys: Capture, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = write_sheet(sections / "sheet.csv", "sample,path", *(f"{'ABC'[k]},s{k}.h5ad" for k in range(3)))
    analyse = pipeline.analyse

    def stops(adata: Any, config: pipeline.RunConfig, **options: Any) -> None:
        if config.path.endswith("s1.h5ad"):
            raise KeyboardInterrupt
        analyse(adata, config, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "analyse", stops)
        called = command_line.call(capsys, "run", sheet, "--out", tmp_path / "out")
    assert called.code == 1 and "the same command goes on" in called.err
    assert list(summary(tmp_path / "out")) == ["A"]
    assert command_line.call(capsys, "run", sheet, "--out", tmp_path / "out").code == 0
    assert [row["ran"] for row in summary(tmp_path / "out").values()] == ["before", "now", "now"]
    assert quick == ["s0", "s1", "s2"]


def test_a_summary_that_cannot_be_written_stops_nothing(
    sections: Path, tmp_path: Path, capsys: Capture, quick: list[str]
) -> None:
    (tmp_path / "out" / "summary.csv").mkdir(parents=True)
    sheet = write_sheet(sections / "sheet.csv", "sample,path", "A,s0.h5ad", "B,s1.h5ad")
    called = command_line.call(capsys, "run", sheet, "--out", tmp_path / "out")
    assert called.code == 2 and "the summary could not be written" in called.err
    assert quick == ["s0", "s1"]


def test_no_more_workers_than_memory_holds(sections: Path, tmp_path: Path) -> None:
    sheet = write_sheet(sections / "sheet.csv", "sample,path", "A,s0.h5ad", "B,s1.h5ad")
    samples = _cohort.read_sheet(sheet, tmp_path / "out", {})
    peak = _cohort._expected(samples[0], 10**12)
    assert peak is not None
    said: list[str] = []
    assert [_cohort._fitting(samples, 4, int(peak * k), said.append) for k in (0.5, 1.5, 2.5, 9)] == [4, 1, 2, 4]
    assert "1 in place of 4 workers" in said[0]


def test_samples_that_stay_on_disk_count_among_the_workers(
    sections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = write_sheet(tmp_path / "sheet.csv", "sample,path", f"A,{sections / 's0.h5ad'}")
    samples = _cohort.read_sheet(sheet, tmp_path / "out", {})
    needed = {False: 10e9, True: 3e9}
    made = lambda size, config, backed=False: _estimate.Estimate(1.0, needed[backed])  # noqa: E731
    monkeypatch.setattr(_estimate, "estimate", made)
    said: list[str] = []
    # 10 GB in memory do not fit into 8, 3 GB on disk do: twice, not four times
    assert _cohort._fitting(samples, 4, int(8e9), said.append) == 2
    assert "2 in place of 4 workers: each may need 3.0 GB" in said[0]


def test_each_sample_begins_ends_and_says_how_long_the_rest_takes(
    sections: Path, tmp_path: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sheet = write_sheet(sections / "sheet.csv", "sample,path", *(f"{'ABC'[k]},s{k}.h5ad" for k in range(3)))
    samples = _cohort.read_sheet(sheet, tmp_path / "out", {})
    pipeline.run(samples[0].config, tmp_path / "out" / "A")
    clock = iter([0.0, 1.0, 60.0, 61.0])
    monkeypatch.setattr(_cohort, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    said: list[str] = []
    _cohort.run(samples, tmp_path / "out", say=said.append)
    assert [re.sub(r"in \d s", "in 0 s", m) for m in said if m.endswith(" begins") or " of 3: " in m] == [
        "A begins",
        "1 of 3: A was finished already",
        "B begins",
        "2 of 3: B done in 0 s; the rest in about 60 s",
        "C begins",
        "3 of 3: C done in 0 s",
    ]


# -- the summary ---------------------------------------------------------------------------------------------


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path, sections: Path) -> None:
    config = pipeline.configure(path=str(sections / "s0.h5ad"))
    samples = [_cohort.Sample("a'&b c", config, {"group": "=1+1"}), _cohort.Sample("B", config, {"group": "<b>"})]
    outcomes = {0: _cohort.Outcome("a'&b c", "done", n_spots=5), 1: _cohort.Outcome("B", "failed", error="<script>")}
    _cohort.write_summary(samples, outcomes, tmp_path)
    rows = summary(tmp_path)
    assert rows["a'&b c"]["group"] == "'=1+1" and rows["a'&b c"]["n_spots"] == "5"
    page = (tmp_path / "summary.html").read_text()
    assert "<script>" not in page and "<b>" not in page and "1 done, 1 failed, of 2 samples" in page
    assert 'href="a%27%26b%20c/report.html"' in page


def test_columns_of_the_summary_are_reserved() -> None:
    assert _cohort_sheet._wrong_columns(["sample", "path", *(f.name for f in fields(_cohort.Outcome)[1:])])
