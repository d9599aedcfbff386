"""The command line: help, usage errors, how much it says, exit codes, and being interrupted."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import command_line
import smeld
from smeld import _run_config, cli, pipeline

Capture = pytest.CaptureFixture[str]
#: parameters of commands that decide nothing about results
ABOUT_OUTPUT = {"out", "quiet", "verbose", "jobs", "scheduler", "memory", "dry_run"}
STEPS = ("read", "quality_control", "embed", "fuse", "domains", "markers", "report")


def names_of_commands() -> list[str]:
    return sorted(c.name or c.callback.__name__ for c in cli.app.registered_commands)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return command_line.visium(tmp_path_factory.mktemp("cli") / "section")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line.skip_pictures(monkeypatch)


# -- help, version, usage ------------------------------------------------------------------------------------


def test_the_commands() -> None:
    assert names_of_commands() == [
        *("annotate", "calibrate", "deconvolve", "demo", "encoders", "export", "interactions", "replay", "report"),
        *("run", "trajectory", "view"),
    ]


@pytest.mark.parametrize("command", names_of_commands())
def test_help_of_every_command(capsys: Capture, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    called = command_line.call(capsys, command, "--help")
    assert (called.code, called.err) == (0, "")
    registered = {c.name or c.callback.__name__: c.callback for c in cli.app.registered_commands}  # type: ignore[union-attr]
    function = registered[command]
    assert function is not None
    assert (function.__doc__ or "").strip().split(".")[0] in called.out
    for name in inspect.signature(function).parameters:
        assert name in called.out.replace("-", "_"), f"{name} is not in the help"


def test_help_names_every_command(capsys: Capture) -> None:
    called = command_line.call(capsys, "--help")
    assert (called.code, called.err) == (0, "")
    for command in names_of_commands():
        assert re.search(rf"\b{command}\b", called.out)


def test_version(capsys: Capture) -> None:
    called = command_line.call(capsys, "--version")
    assert (called.code, called.out, called.err) == (0, smeld.__version__ + "\n", "")


def test_without_arguments_help_is_shown_and_the_exit_code_is_2(capsys: Capture) -> None:
    called = command_line.call(capsys)
    assert called.code == 2
    for command in names_of_commands():
        assert command in called.out + called.err


USAGE = {
    "unknown command": (["rum"], "rum"),
    "unknown option": (["run", "x", "--out", "y", "--n-domans", "3"], "--n-domans"),
    "no path": (["run", "--out", "y"], "path"),
    "no out": (["run", "x"], "out"),
    "not a number": (["run", "x", "--out", "y", "--n-domains", "seven"], "n_domains|n-domains|integer"),
    "option without value": (["run", "x", "--out"], "out"),
    "too many arguments": (["run", "x", "z", "--out", "y"], "z"),
    "replay without a file": (["replay"], "run_toml|RUN_TOML"),
    "demo of no spots": (["demo", "--n-obs", "many"], "n_obs|n-obs|integer"),
}


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors_are_one_line_and_2(
    capsys: Capture, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments, words = USAGE[name]
    called = command_line.call(capsys, *arguments)
    assert called.code == 2, called.err
    assert called.err.count("\n") == 1, called.err
    assert re.search(words, called.error)
    assert "--help" in called.error, "it says where help is"
    assert not list(tmp_path.iterdir())


def test_as_a_program(tmp_path: Path) -> None:
    """``python -m smeld`` and the console script go through ``entry``: exit codes reach the shell."""

    def code(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "smeld", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stderr

    assert code("--version") == (0, "")
    status, said = code("run", str(tmp_path / "no"), "--out", str(tmp_path / "out"), "-q")
    assert status == 2
    assert said.startswith("smeld: error:")
    assert said.count("\n") == 1


# -- the command line is the API -----------------------------------------------------------------------------


def test_options_of_run_are_the_fields_of_the_configuration() -> None:
    options = inspect.signature(cli.run).parameters
    fields = pipeline.RunConfig.model_fields
    assert set(options) - ABOUT_OUTPUT == set(fields)
    for name, field in fields.items():
        if not field.is_required():
            assert options[name].default == field.default, name
    assert options["path"].default is inspect.Parameter.empty


def test_every_option_reaches_the_configuration(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    given: dict[str, Any] = {
        "platform": "h5ad", "n_domains": 3, "seed": 4, "image": "/a.tif", "image_scale": 0.5,
        "um_per_unit": 2.5, "max_megapixels": 7.0, "min_counts": 9.0, "encoder": "mobilenet_v1", "method": "vae",
        "root": "MBP", "weights": "/w.npz", "encoder_cache": "/cache", "device": "cuda:1",
        "image_alignment": "/a.csv", "resolution": "8um", "table": "cells",
    }  # fmt: skip
    seen: list[pipeline.RunConfig] = []

    def run(config: pipeline.RunConfig, out: Path, **_: Any) -> None:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", run)
    options = [str(w) for name, value in given.items() for w in (f"--{name.replace('_', '-')}", value)]
    command_line.call(
        capsys, "run", "/section", "--out", "out", *options, "--no-evidence", "--interactions", "--trajectory",
        "--download", "--outlines", "--region-um", "0", "1", "20", "30.5",
    )  # fmt: skip
    assert seen[0].model_dump() == {
        "path": "/section",
        **given,
        "outlines": True,
        "region_um": (0.0, 1.0, 20.0, 30.5),
        "evidence": False,
        "interactions": True,
        "trajectory": True,
        "download": True,
    }


def test_options_of_reading_are_those_of_read() -> None:
    parameters = inspect.signature(smeld.read).parameters
    # where counts lie changes no result: it is no setting of a run, --memory decides
    assert set(parameters) - {"backed"} <= set(pipeline.RunConfig.model_fields)
    for name in ("image_scale", "um_per_unit", "image", "max_megapixels"):
        assert parameters[name].default == pipeline.RunConfig.model_fields[name].default


def test_configuration_is_checked_from_python_too() -> None:
    with pytest.raises(smeld.InputError, match="setting 'n_domain' is not valid"):
        pipeline.configure(path="x", n_domain=3)
    with pytest.raises(smeld.InputError, match="setting 'path' is not valid"):
        pipeline.configure()
    with pytest.raises(smeld.InputError, match="seed"):
        pipeline.configure(path="x", seed=1.5)


def test_settings_of_encoders_and_devices_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have the names of the arguments of ``embed``, and go to networks alone among fusion methods."""
    config = pipeline.configure(
        path="x", encoder="mobilenet_v1", weights="w", download=True, encoder_cache="c", device="cpu", seed=5
    )
    given = _run_config.encoder_options(config)
    parameters = inspect.signature(smeld.morph.embed).parameters
    assert set(given) <= set(parameters)
    here = Path.cwd()
    assert given == {"weights": str(here / "w"), "download": True, "cache": str(here / "c"), "device": "cpu", "seed": 5}
    assert _run_config.fusion_options(config) == {}
    other = pipeline.configure(path="x", method="vae", device="cuda", evidence=False)
    assert _run_config.fusion_options(other) == {"evidence": False, "device": "cuda"}


ENCODERS = {
    "unknown encoder": (["--encoder", "textur"], "did you mean 'texture'"),
    "weights of one without": (["--weights", "w"], "encoder 'texture' takes no weights"),
    "weights of none": (["--encoder", "none", "--weights", "w"], "encoder 'none' takes no weights"),
    "weights of the section's own": (["--encoder", "self", "--weights", "w"], "encoder 'self' takes no weights"),
    "unknown device": (["--device", "abacus"], "setting 'device' is not valid"),
    "a cache that would be replaced": (["--encoder-cache", "out/cache"], "cache lies in the output folder"),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_and_devices_that_cannot_be(
    section: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    options, said = ENCODERS[name]
    called = command_line.call(capsys, "run", section, "--out", "out", *options)
    assert called.code == 2 and said in called.error
    assert not list(tmp_path.iterdir())


def _without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def absent(repo: str, *, local_files_only: bool, **_: Any) -> str:
        assert local_files_only, "nothing is fetched unasked"
        raise OSError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    monkeypatch.delenv("SMELD_WEIGHTS", raising=False)


@pytest.mark.parametrize("encoder", ["resnet50", "mobilenet_v1"])
def test_missing_weights_are_a_line_before_anything_is_read(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, encoder: str
) -> None:
    pytest.importorskip("torch", reason="needs smeld[deep]")
    _without_weights(monkeypatch)
    called = command_line.call(capsys, "run", tmp_path / "no", "--out", tmp_path / "out", "--encoder", encoder)
    assert called.code == 2 and f"weights of encoder '{encoder}' are not here" in called.error
    assert "reading" not in called.err and not list(tmp_path.iterdir())


def test_without_the_packages_of_networks_a_line_says_what_to_install(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smeld.nn._extra.available", lambda *names: False)
    for options in (["--method", "vae"], ["--encoder", "virchow2"]):
        called = command_line.call(capsys, "run", tmp_path / "no", "--out", tmp_path / "out", *options)
        assert called.code == 2 and "pip install 'smeld[deep]'" in called.error
        assert "reading" not in called.err


def test_the_list_of_encoders(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the cards say, and what is here; even where downloads are allowed the list fetches nothing."""
    pytest.importorskip("torch", reason="needs smeld[deep]")
    _without_weights(monkeypatch)
    monkeypatch.setenv("SMELD_DOWNLOAD", "1")
    monkeypatch.setenv("COLUMNS", "160")
    (tmp_path / "mobilenet_v1").mkdir()
    monkeypatch.setenv("SMELD_WEIGHTS", str(tmp_path))
    called = command_line.call(capsys, "encoders")
    assert (called.code, called.err) == (0, "")
    assert os.environ["SMELD_DOWNLOAD"] == "1"
    rows = {line.split()[0]: line.split() for line in called.out.splitlines() if line.strip()}
    assert set(smeld.morph.encoders) <= set(rows)
    for name, card in smeld.morph.encoders.items():
        assert str(card.facts["license"]) in " ".join(rows[name])
        assert rows[name][-5] == ("yes" if card.facts["gated"] else "no")
    assert rows["virchow2"][-5:] == ["yes", "0.5", "2,560", "here", "missing"]
    assert rows["mobilenet_v1"][-2:] == ["here", "here"]
    assert rows["texture"][-2:] == ["-", "-"] and rows["self"][-2:] == ["here", "-"]


# -- how much is said ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick")
class TestTalk:
    def test_steps_and_the_report_by_default(self, section: Path, tmp_path: Path, capsys: Capture) -> None:
        called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--n-domains", "2")
        assert called.code == 0
        assert called.out == f"{(tmp_path / 'out' / 'report.html').resolve()}\n", "for $(smeld run ...)"
        said = [line for line in called.err.splitlines() if "warning" not in line]
        for step in ("reading", "quality control", "morphology", "fusing", "domains", "marker", "report"):
            assert any(step in line for line in said), step
        assert said[-1] == "smeld: 50 spots in 2 domains"
        assert not re.search(r"\d\.\d s$", called.err, re.MULTILINE)

    def test_quiet_says_nothing(self, section: Path, tmp_path: Path, capsys: Capture) -> None:
        for arguments in (
            ("run", section, "--out", tmp_path / "out", "--n-domains", "2", "--quiet"),
            ("replay", tmp_path / "out", "-q"),
            ("report", tmp_path / "out", "--out", tmp_path / "again.html", "-q"),
        ):
            called = command_line.call(capsys, *arguments)
            assert (called.code, called.out, called.err) == (0, "", ""), arguments

    def test_verbose_says_how_long(self, section: Path, tmp_path: Path, capsys: Capture) -> None:
        called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--n-domains", "2", "-v")
        assert called.code == 0
        timed = re.findall(r"^ +(.+): \d+\.\d s$", called.err, re.MULTILINE)
        said = re.findall(r"^smeld: (?!warning|done|\d)(.+)$", called.err, re.MULTILINE)
        assert len(said) >= 6
        assert timed == said, "every step, the last one too"

    def test_quiet_still_says_errors(self, tmp_path: Path, capsys: Capture) -> None:
        called = command_line.call(capsys, "run", tmp_path / "no", "--out", tmp_path / "out", "-q")
        assert (called.code, called.out) == (2, "")
        assert called.err.count("\n") == 1

    def test_names_with_markup_are_shown_as_they_are(self, tmp_path: Path, capsys: Capture) -> None:
        path = tmp_path / "[red]section[/red]"
        called = command_line.call(capsys, "run", path, "--out", tmp_path / "out")
        assert "[red]section[/red]" in called.error


def test_report_again(section: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert command_line.call(capsys, "run", section, "--out", out, "--n-domains", "2", "-q").code == 0
    page = tmp_path / "new.html"
    for given in (out, out / "result.h5ad"):
        called = command_line.call(capsys, "report", given, "--out", page)
        assert called.code == 0, called.err
        assert called.out.strip() == str(page)
        text = page.read_text()
        assert text.count("<svg") + text.count("data:image/svg+xml") >= 4
        page.unlink()
    assert command_line.call(capsys, "report", tmp_path / "no", "--out", page).code == 2
    assert not page.exists()


def test_demo(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "demo"
    arguments = ("demo", "--out", out, "--n-obs", "300", "--n-genes", "100")
    called = command_line.call(capsys, *arguments)
    assert called.code == 0, called.err
    assert called.out == f"{(out / 'results' / 'report.html').resolve()}\n"
    first = command_line.tree(out)
    assert {"section.h5ad", "results/report.html", "results/result.h5ad", "results/run.toml"} <= set(first)
    assert command_line.call(capsys, "demo", "--out", out, "--n-obs", "3", "-q").code == 2
    assert command_line.tree(out) == first


# -- interrupted and broken ----------------------------------------------------------------------------------


def _broken(monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException) -> None:
    """The step of the main job raises ``error`` when it is reached."""

    def fails(*_: Any, **__: Any) -> None:
        raise error

    homes: dict[str, Any] = {
        "read": (pipeline.io, "read"),
        "quality_control": (pipeline.tl, "quality_control"),
        "embed": (pipeline.morph, "embed"),
        "fuse": (pipeline.fusion, "fuse"),
        "domains": (pipeline.tl, "domains"),
        "markers": (pipeline.tl, "markers"),
        "report": (pipeline, "write_report"),
    }
    monkeypatch.setattr(*homes[step], fails)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("step", STEPS)
def test_ctrl_c_in_any_step_leaves_the_old_result(
    section: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    _broken(monkeypatch, step, KeyboardInterrupt())
    before = command_line.old_result(tmp_path / "out")
    called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--n-domains", "2", "-q")
    assert called.code == 1
    assert called.err.strip() == "smeld: error: interrupted; nothing was written"
    assert command_line.tree(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("error", [RuntimeError("two\nlines [/b]"), MemoryError(), OSError(28, "disk full")])
@pytest.mark.parametrize("step", ["fuse", "report"])
def test_an_unexpected_failure_is_one_line_and_1(
    section: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    error: Exception,
) -> None:
    _broken(monkeypatch, step, error)
    before = command_line.old_result(tmp_path / "out")
    arguments = ("run", section, "--out", tmp_path / "out", "--n-domains", "2")
    called = command_line.call(capsys, *arguments, "-q")
    assert called.code == 1
    assert called.err.count("\n") == 1
    assert type(error).__name__ in called.error
    assert "--verbose" in called.error
    told = command_line.call(capsys, *arguments, "-v")
    assert told.code == 1
    assert "Traceback" in told.err, "--verbose shows where"
    assert "--verbose" not in told.error
    assert command_line.tree(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


INTERRUPTED = """
import sys, time
from smeld import cli, pipeline
pipeline.save_figures = lambda adata, folder: []
{where} = lambda *a, **k: (print("HERE", flush=True), time.sleep(60))
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")
@pytest.mark.parametrize("where", ["pipeline.tl.domains", "pipeline.write_report"])
def test_a_real_ctrl_c(section: Path, tmp_path: Path, where: str) -> None:
    """SIGINT as a terminal sends it, in the midst of the analysis and of the writing."""
    before = command_line.old_result(tmp_path / "out")
    command = [sys.executable, "-c", INTERRUPTED.format(where=where), "run", str(section)]
    command += ["--out", str(tmp_path / "out"), "--n-domains", "2", "-q"]
    command = command_line.from_a_terminal(command)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "HERE\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said.strip() == "smeld: error: interrupted; nothing was written"
    assert command_line.tree(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_importing_the_command_line_is_quick() -> None:
    """Help and usage errors come without the analysis' imports."""
    code = "import sys, smeld.cli; print(sorted({'scanpy', 'anndata', 'matplotlib', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_state_of_a_call_is_its_own(section: Path, tmp_path: Path, capsys: Capture) -> None:
    """Quiet in one call does not silence the next one of the same process."""
    run: Callable[..., command_line.Called] = command_line.call
    missing = tmp_path / "no"
    run(capsys, "run", missing, "--out", tmp_path / "out", "-q")
    assert "reading" in run(capsys, "run", missing, "--out", tmp_path / "out").err


@pytest.mark.usefixtures("quick")
def test_one_domain_is_one_domain(section: Path, tmp_path: Path, capsys: Capture) -> None:
    called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--n-domains", "1")
    assert called.code == 0, called.err
    assert called.err.splitlines()[-1] == "smeld: 50 spots in 1 domain"
