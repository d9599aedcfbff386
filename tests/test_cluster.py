"""Worker processes: the same results, tasks of dead workers done again, and given up in the end."""

from __future__ import annotations

import os
import signal
import sys
import threading
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
    """The main job of four samples on two workers, one of them killed midway: the bytes of the serial run."""
    import psutil

    import command_line
    from smeld import _cohort
    from smeld._run_record import load_run

    rows = ["sample,path,evidence"]
    for k in range(4):
        smeld.write(smeld.datasets.simulate(300, 60, seed=100 + k, image=False), tmp_path / f"s{k}.h5ad")
        rows.append(f"S{k},s{k}.h5ad,no")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("\n".join(rows) + "\n")
    killed: list[int] = []

    def say(message: str) -> None:
        """When the first sample is done, a worker that is busy with another is killed."""
        if " of 4: " in message and not killed:
            for child in psutil.Process().children(recursive=True):
                if "spawn_main" in " ".join(child.cmdline()) and child.is_running():
                    killed.append(child.pid)
                    os.kill(child.pid, signal.SIGKILL)
                    return

    samples = _cohort.read_sheet(sheet, tmp_path / "workers", {})
    outcomes = _cohort.run(samples, tmp_path / "workers", jobs=2, say=say)
    assert killed and [o.state for o in outcomes] == ["done"] * 4
    assert [o.state for o in _cohort.run(samples, tmp_path / "serial")] == ["done"] * 4
    for sample in samples:
        folders = [tmp_path / which / sample.name for which in ("workers", "serial")]
        one, other = (load_run(folder / "run.toml")["results"] for folder in folders)
        assert one == other and len(one) > 8
        trees = [set(command_line.tree(folder)) for folder in folders]
        assert trees[0] == trees[1]
    left = [p.name for p in (tmp_path / "workers").iterdir() if p.name.startswith(".")]
    assert len(left) <= 1, "at most what the killed worker had begun, if its task was not given out again here"
    assert threading.active_count() < 50 and "distributed" in sys.modules
