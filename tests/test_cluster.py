"""Worker processes: the same results, tasks of dead workers done again, and given up in the end."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import smeld
from smeld import _cluster

needs_distributed = pytest.mark.skipif(find_spec("distributed") is None, reason="needs smeld[cluster]")
posix = pytest.mark.skipif(os.name != "posix", reason="kills by signal")


# Tasks: workers import them from this module.


def double(item: int) -> int:
    if item < 0:
        raise ValueError("negative\nnumber")
    return 2 * item


def dies_once(item: str) -> tuple[str, str | None]:
    """The first to come kills its worker, midway; the task is given out again."""
    mark = Path(item)
    if mark.name == "dies" and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name, os.environ.get("NUMBA_NUM_THREADS")


def always_dies(item: str) -> str:
    path = Path(item)
    if path.name == "dies":
        with path.open("a") as file:
            file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return path.name


def test_here_tasks_run_in_order_and_failures_are_results() -> None:
    found = list(_cluster.each(double, [3, -1, 4]))
    assert found == [(0, 6), (1, _cluster.Lost("ValueError: negative\nnumber")), (2, 8)]


def test_workers_that_are_slow_to_end_cost_nothing() -> None:
    class Slow:
        def close(self) -> None:
            raise TimeoutError

    _cluster._close(Slow())


def test_here_ctrl_c_is_no_result() -> None:
    def stop(item: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(_cluster.each(stop, [1]))


def test_here_tasks_come_one_by_one() -> None:
    """What is asked for is run, no more: a cohort writes its summary between samples."""
    seen: list[int] = []
    results = _cluster.each(seen.append, [1, 2, 3])
    next(results)
    assert seen == [1]


@pytest.mark.parametrize("options", [{"jobs": 2}, {"scheduler": "tcp://127.0.0.1:1"}])
def test_without_distributed_a_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    monkeypatch.setattr(_cluster, "find_spec", lambda name: None)
    with pytest.raises(smeld.InputError, match=r"pip install 'smeld\[cluster\]'"):
        next(_cluster.each(double, [1, 2], **options))


@needs_distributed
@posix
def test_a_dead_workers_task_is_done_again(tmp_path: Path) -> None:
    """Two processes, one killed midway: every result, once; one thread each."""
    items = [str(tmp_path / name) for name in ("a", "dies", "b", "c")]
    found = dict(_cluster.each(dies_once, items, jobs=2))
    assert found == {i: (Path(item).name, "1") for i, item in enumerate(items)}
    assert (tmp_path / "dies").exists()


@pytest.mark.slow
@needs_distributed
@posix
def test_a_task_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    items = [str(tmp_path / name) for name in ("a", "dies", "b")]
    found = dict(_cluster.each(always_dies, items, jobs=2))
    assert found == {0: "a", 1: _cluster.Lost("worker died (out of memory?)"), 2: "b"}
    assert (tmp_path / "dies").read_text() == "x" * 3


@pytest.mark.slow
@needs_distributed
def test_a_scheduler_elsewhere() -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0") as other:
        found = list(_cluster.each(double, [1, -2, 3], scheduler=other.scheduler_address))
    assert sorted(index for index, _ in found) == [0, 1, 2]
    assert dict(found)[2] == 6 and dict(found)[1] == _cluster.Lost("ValueError: negative\nnumber")


@pytest.mark.slow
@needs_distributed
def test_a_scheduler_that_is_not_there() -> None:
    with pytest.raises(smeld.InputError, match="no scheduler answers at tcp:"):
        next(_cluster.each(double, [1], scheduler="tcp://127.0.0.1:1"))


@pytest.mark.slow
@needs_distributed
@posix
def test_samples_on_workers_one_killed(tmp_path: Path) -> None:
    """The main job of six samples on four workers, one of them killed midway: the bytes of the serial run, no sample
    lost, none done twice."""
    import psutil

    import command_line
    from smeld import _cohort
    from smeld._run_record import load_run

    rows = ["sample,path,evidence"]
    for k in range(6):
        smeld.write(smeld.datasets.simulate(300, 60, seed=100 + k, image=False), tmp_path / f"s{k}.h5ad")
        rows.append(f"S{k},s{k}.h5ad,no")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("\n".join(rows) + "\n")
    killed: list[int] = []
    said: list[str] = []

    def say(message: str) -> None:
        """When the first sample is done, a worker that is busy with another is killed."""
        said.append(message)
        if " of 6: " in message and not killed:
            for child in psutil.Process().children(recursive=True):
                if "spawn_main" in " ".join(child.cmdline()) and child.is_running():
                    killed.append(child.pid)
                    os.kill(child.pid, signal.SIGKILL)
                    return

    samples = _cohort.read_sheet(sheet, tmp_path / "workers", {})
    outcomes = _cohort.run(samples, tmp_path / "workers", jobs=4, say=say)
    assert killed and [(o.sample, o.state, o.ran) for o in outcomes] == [(f"S{k}", "done", "now") for k in range(6)]
    assert [o.state for o in _cohort.run(samples, tmp_path / "serial")] == ["done"] * 6
    for sample in samples:
        folders = [tmp_path / which / sample.name for which in ("workers", "serial")]
        one, other = (load_run(folder / "run.toml")["results"] for folder in folders)
        assert one == other and len(one) > 8
        trees = [set(command_line.tree(folder)) for folder in folders]
        assert trees[0] == trees[1]
    ended = [message.split(" of 6: ")[1].split()[0] for message in said if " of 6: " in message]
    assert sorted(ended) == [f"S{k}" for k in range(6)]
    assert [m for m in said if m.endswith(" begins")] == [f"S{k} begins" for k in range(6)]
    assert [m.split(" of")[0] for m in said if " of 6: " in m] == list("123456") and "; the rest in about" in said[-2]
    left = [p.name for p in (tmp_path / "workers").iterdir() if p.name.startswith(".")]
    assert len(left) <= 1, "at most what the killed worker had begun, if its task was not given out again here"
    assert threading.active_count() < 50 and "distributed" in sys.modules


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """``folder`` on a disk with room for next to nothing."""
    folder.mkdir(parents=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small disk can only be made by root")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@needs_distributed
@posix
@pytest.mark.skipif(shutil.which("mount") is None, reason="needs mount")
def test_twenty_samples_of_which_three_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is unreadable, one takes its worker over its share of memory, the disk of one is full: the rest finish."""
    import anndata
    import numpy as np

    import command_line

    out = tmp_path / "out"
    for k in range(20):
        command_line.h5ad(tmp_path / f"s{k:02}.h5ad", seed=k)
    (tmp_path / "s04.h5ad").write_text("no file")
    large = anndata.read_h5ad(tmp_path / "s08.h5ad")
    large.obsm["large"] = np.zeros((large.n_obs, 6_000_000), dtype=np.float32)  # 1.4 GB, small on disk
    large.write_h5ad(tmp_path / "s08.h5ad", compression="gzip")
    del large
    rows = [f"S{k:02},s{k:02}.h5ad,no,none,2" for k in range(20)]
    (tmp_path / "sheet.csv").write_text("\n".join(["sample,path,evidence,encoder,n_domains", *rows]) + "\n")
    with full_disk(tmp_path / "full"):
        out.mkdir()
        (out / "S12").symlink_to(tmp_path / "full" / "S12")
        run = ("run", tmp_path / "sheet.csv", "--out", out, "--jobs", "2", "--memory", "1600MB")
        called = command_line.call(capsys, *run)
    assert called.code == 1 and "17 done, 2 failed, 1 refused" in called.err
    with (out / "summary.csv").open(encoding="utf-8", newline="") as lines:
        found = {row["sample"]: row for row in csv.DictReader(lines)}
    assert list(found) == [f"S{k:02}" for k in range(20)]
    failed = {name: row for name, row in found.items() if row["state"] != "done"}
    assert {name: row["state"] for name, row in failed.items()} == {"S04": "refused", "S08": "failed", "S12": "failed"}
    assert "s04.h5ad cannot be read" in failed["S04"]["error"]
    assert failed["S08"]["error"].startswith(_cluster.DIED)
    assert "No space left on device" in failed["S12"]["error"]
    page = (out / "summary.html").read_text()
    assert "17 done, 2 failed, 1 refused, of 20 samples" in page and "No space left on device" in page
