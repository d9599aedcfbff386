"""Tiles and pairs of one section on worker processes: the bits of the serial run, whatever dies midway.

Workers import this module for their tasks: what loads slowly is imported within tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import smeld
from smeld import _cluster
from smeld.kernels import _backend, _share, pairtest

needs_workers = pytest.mark.skipif(
    find_spec("distributed") is None or os.name != "posix", reason="needs smeld[cluster]; kills by signal"
)


# -- arrays as files -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Thing:
    """Something that a task is given."""

    array: Any
    more: Any = None
    name: str = "x"


def same(a: Any, b: Any) -> bool:
    """Whether two things are equal to the last bit, types included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if sparse.issparse(a):
        return a.shape == b.shape and all(same(getattr(a, n), getattr(b, n)) for n in ("data", "indices", "indptr"))
    if isinstance(a, Thing):
        return all(same(getattr(a, n), getattr(b, n)) for n in ("array", "more", "name"))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


LEAVES = st.one_of(
    st.integers(),
    st.text(max_size=3),
    st.none(),
    st.builds(
        lambda n, dtype, seed: np.random.default_rng(seed).integers(0, 99, (n, 3)).astype(dtype),
        st.sampled_from([0, 1, 30_000]),
        st.sampled_from(["uint8", "float32", "int64"]),
        st.integers(0, 9),
    ),
    st.builds(
        lambda made, seed: made(sparse.random(300, 900, 0.1, random_state=seed)),
        st.sampled_from([sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]),
        st.integers(0, 9),
    ),
)
THINGS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=2), inner, max_size=2),
        st.builds(Thing, inner, inner),
    ),
    max_leaves=6,
)


def sent(value: Any) -> Iterator[int]:
    """Sizes of the arrays that are not files."""
    if isinstance(value, np.ndarray):
        yield value.nbytes
    parts = value if isinstance(value, tuple | list) else getattr(value, "__dict__", value)
    if isinstance(parts, dict):
        parts = list(parts.values())
    if isinstance(parts, tuple | list):
        for part in parts:
            yield from sent(part)


@given(THINGS)
def test_what_is_packed_comes_back(tmp_path_factory: pytest.TempPathFactory, thing: Any) -> None:
    """Mapped and taken; large arrays are not sent; no file is left by taking."""
    files = _share.Files(tmp_path_factory.mktemp("files"))
    packed = files.pack(thing)
    assert max(sent(packed), default=0) <= _share.SENT_BYTES
    assert same(_share.unpack(packed), thing)
    n_files = len(list(files.folder.iterdir()))
    assert files.pack(thing) == packed or any(True for _ in sent(packed))
    assert len(list(files.folder.iterdir())) == n_files, "an array is written once"
    if len({s.path for s in stored(packed)}) == len(list(stored(packed))):
        assert same(_share.unpack(packed, _share.Stored.taken), thing)
        assert not list(files.folder.iterdir())


def stored(value: Any) -> Iterator[_share.Stored]:
    if isinstance(value, _share.Stored):
        yield value
        return
    parts = value if isinstance(value, tuple | list) else getattr(value, "__dict__", value)
    for part in parts.values() if isinstance(parts, dict) else parts if isinstance(parts, tuple | list) else ():
        yield from stored(part)


def test_an_array_to_be_filled_is_a_file_from_the_start(tmp_path: Path) -> None:
    files = _share.Files(tmp_path)
    array = files.empty((300, 100), np.float32)
    array[:] = np.arange(100)
    packed = files.pack(Thing(array))
    assert len(list(tmp_path.iterdir())) == 1
    mapped = _share.unpack(packed).array
    assert np.array_equal(mapped, array) and mapped.flags.writeable
    mapped[0] = -1
    assert array[0, 5] == 5, "what a worker writes into it stays with it"


def test_without_workers_items_are_done_here_one_by_one() -> None:
    seen: list[int] = []

    def make(given: list[int]) -> Callable[[int], int]:
        return lambda item: given.append(item) or 2 * item  # type: ignore[func-returns-value]

    with _share.workers() as share:
        assert share.here
        results = share.each(make, seen, iter([1, 2, 3]))
        assert next(results) == 2 and seen == [1]
        assert list(results) == [4, 6]


# -- what is refused -----------------------------------------------------------------------------------------


def test_one_job_is_no_worker() -> None:
    with _cluster.cluster(jobs=1), _share.workers() as share:
        assert share.here


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"jobs": 0}, "jobs must be at least 1"),
        pytest.param({"scheduler": "tcp://127.0.0.1:1"}, "scratch", marks=needs_workers),
        pytest.param({"jobs": 2, "scratch": "/absent/folder"}, "scratch cannot be written", marks=needs_workers),
    ],
)
def test_what_cannot_be_is_refused(options: Any, said: str) -> None:
    with pytest.raises(smeld.InputError, match=said), _cluster.cluster(**options):
        raise AssertionError("the block is not entered")


# -- workers -------------------------------------------------------------------------------------------------
# Tasks: workers import them from this module.


@dataclass(frozen=True)
class Fields:
    """Fields that kill the first worker that asks for field ``at``."""

    values: NDArray[np.float64]
    mark: str
    owner: int
    at: int

    def __call__(self, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        mark = Path(self.mark)
        if os.getpid() != self.owner and self.at in columns and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.values[columns]


def refuses(given: str) -> Callable[[int], Any]:
    def work(item: int) -> tuple[int, str, NDArray[np.float64]]:
        if item == 3 and given == "refused":
            raise smeld.InputError("no such gene")
        if item == 3 and given == "broken":
            raise ValueError("a bug")
        return item, _backend.switch.name(), np.full(100_000, item, dtype=np.float64)

    return work


@needs_workers
def test_pairs_on_workers_one_killed_midway(tmp_path: Path) -> None:
    """The bits of the serial run; then, on the same workers, failures as they would be here, and nothing left over."""
    from smooth_section import averages, positions

    rng = np.random.default_rng(100)
    xy = positions(20)
    values = rng.normal(size=(90, 400))
    values -= values.mean(axis=1, keepdims=True)
    fields = Fields(values, str(tmp_path / "mark"), os.getpid(), 20)
    made, pairs = pairtest.section(xy, averages(xy)), rng.permutation(np.arange(90)).reshape(45, 2)
    serial = pairtest.test(made, fields, pairs)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with _cluster.cluster(jobs=2, scratch=scratch), smeld.device("cpu"):
        found = pairtest.test(made, fields, pairs)
        assert (tmp_path / "mark").exists(), "a worker was killed"
        for name in ("effect", "zscore", "pvalue", "n_effective"):
            assert same(getattr(found, name), getattr(serial, name))
        with _share.workers() as share:
            assert not share.here and not share.remote
            done = list(share.each(refuses, "fine", range(5)))
            assert [(k, name, len(a), a[0]) for k, name, a in done] == [(k, "cpu", 100_000, k) for k in range(5)]
            with pytest.raises(smeld.InputError, match="no such gene"):
                list(share.each(refuses, "refused", range(5)))
            with pytest.raises(RuntimeError, match="a task given to a worker failed: ValueError: a bug"):
                list(share.each(refuses, "broken", range(5)))
    assert not list(scratch.iterdir())


def kill_a_worker() -> int:
    import psutil

    for child in psutil.Process().children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
            return child.pid
    raise AssertionError("there is no worker")


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """When the first result has come, a worker that is busy with another is killed; its process's number."""
    seen: list[int] = []
    taken = _cluster._taken

    def kill_once(result: Any) -> Any:
        if not seen:
            seen.append(kill_a_worker())
        return taken(result)

    monkeypatch.setattr(_cluster, "_taken", kill_once)
    return seen


def windowed(adata: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The section's image as one that is read window by window."""
    from smeld import _adapt

    image = _adapt.image(adata)
    pixels = image.pixels()
    lazy = replace(image, _read=lambda: pixels, _part=lambda y0, x0, y1, x1: pixels[y0:y1, x0:x1])
    monkeypatch.setattr(_adapt, "image", lambda data, library_id=None: lazy)


@pytest.mark.slow
@needs_workers
@pytest.mark.parametrize("lazily", [False, True])
def test_tiles_on_workers_one_killed_midway(lazily: bool, killed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """An image in memory, of which workers cut their tiles, and one that is read by windows, whose tiles they get."""
    adata = smeld.datasets.simulate(400, 30, seed=100)
    if lazily:
        windowed(adata, monkeypatch)
    tile_um = 40.0 if lazily else None
    serial = smeld.morph.embed(adata, batch_size=30, tile_um=tile_um)
    with _cluster.cluster(jobs=4):
        found = smeld.morph.embed(adata, batch_size=30, tile_um=tile_um)
    assert killed
    assert same(found.features.to_numpy(), serial.features.to_numpy())
    assert list(found.features) == list(serial.features) and found.left_out == serial.left_out


def real_section(path: Path) -> None:
    """A section whose first genes are partners of known pairs."""
    adata = smeld.datasets.simulate(500, 80, seed=100)
    known = smeld.lr.pairs("human")
    names = [n for a, b in zip(known["ligand"], known["receptor"]) for n in (a, b) if "+" not in n]
    adata.var_names = list(dict.fromkeys(names))[:80]
    smeld.write(adata, path)


@pytest.mark.slow
@needs_workers
def test_a_section_on_four_workers_one_killed(
    tmp_path: Path, killed: list[int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``smeld run SECTION --jobs 4 --interactions``: every file as without workers."""
    import command_line
    from smeld._run_record import load_run

    command_line.skip_pictures(monkeypatch)
    real_section(tmp_path / "section.h5ad")
    run = ("run", tmp_path / "section.h5ad", "--no-evidence", "--n-domains", "4", "--interactions", "--quiet", "--out")
    assert command_line.call(capsys, *run, tmp_path / "serial").code == 0
    assert not killed
    assert command_line.call(capsys, *run, tmp_path / "workers", "--jobs", "4").code == 0
    assert killed
    one, other = (load_run(tmp_path / name / "run.toml") for name in ("serial", "workers"))
    assert one["results"] == other["results"] and "tables/interactions.csv" in one["results"]
    assert one["config"] == other["config"], "workers decide no result"


@pytest.mark.slow
@needs_workers
def test_workers_of_a_scheduler(tmp_path: Path) -> None:
    """What they exchange lies beside the results while they work, and is gone then."""
    from distributed import LocalCluster

    adata = smeld.datasets.simulate(200, 30, seed=100)
    serial = smeld.morph.embed(adata)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as other,
        _cluster.cluster(scheduler=other.scheduler_address, scratch=tmp_path),
    ):
        assert len(list(tmp_path.glob(".smeld-scratch-*"))) == 1
        with _share.workers() as share:
            assert share.remote
        found = smeld.morph.embed(adata)
    assert same(found.features.to_numpy(), serial.features.to_numpy())
    assert not list(tmp_path.iterdir())


def test_no_more_workers_than_memory_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import command_line
    from smeld import _cli_cohort, _estimate, pipeline

    command_line.h5ad(tmp_path / "s.h5ad")
    config = pipeline.configure(path=str(tmp_path / "s.h5ad"))
    peak = _estimate.estimate(_estimate.size_of(config), config).peak_bytes
    share = _cli_cohort.WORKER_SHARE

    def workers(memory: float) -> int:
        plan = _cli_cohort.before_section(config, _cli_cohort.Where(jobs=4, memory=f"{memory / 1e6:.0f}MB"))
        assert plan is not None
        assert not plan.backed
        return plan.workers

    assert [workers(peak * (1 + share * k)) for k in (0.5, 1.1, 2.1, 9)] == [1, 1, 2, 4]
    assert "2 in place of 4 workers" in capsys.readouterr().err
