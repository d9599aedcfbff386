"""Safe writing: whole or not at all, also when killed; others' files untouched; the same bytes each time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any

import _make
import anndata
import numpy as np
import pandas as pd
import pytest

import smeld as sm
from smeld._check import InputError
from smeld.io import _safe, _write, replacing, replacing_folder

DEAD_PID = 2**22 + 1  # above Linux' highest


@pytest.fixture
def adata(tmp_path: Path) -> anndata.AnnData:
    read = sm.read(_make.spaceranger(tmp_path / "section", _make.section()))
    read.obs["word"] = ["a", "b"] * 25
    read.obs["kind"] = pd.Categorical(["x", None] * 25)
    read.obsm["morph_t"] = pd.DataFrame(np.arange(100.0).reshape(50, 2), index=read.obs_names, columns=["f", "g"])
    return read


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
@pytest.mark.parametrize("kind", ["h5ad", "folder", "two-step"])
def test_killed_at_any_moment_old_or_new_is_whole(tmp_path: Path, kind: str) -> None:
    script = Path(__file__).with_name("_kill.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), kind, "0"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    kills, news = (int(word) for word in done.stdout.split() if word.isdigit())
    assert kills > 40
    assert news >= 1  # some came after the swap: the new one was there, whole


def test_write_and_read_back(tmp_path: Path, adata: anndata.AnnData) -> None:
    before = adata.copy()
    sm.write(adata, tmp_path / "deep/er/x.h5ad")
    read = anndata.read_h5ad(tmp_path / "deep/er/x.h5ad")
    assert (read.X != adata.X).nnz == 0
    assert read.obs["word"].tolist() == adata.obs["word"].tolist()
    assert read.obsm["morph_t"].equals(adata.obsm["morph_t"])
    assert adata.obs.dtypes.equals(before.obs.dtypes)  # strings were not turned into categories
    assert leftovers(tmp_path / "deep/er") == []


def test_same_content_same_bytes(tmp_path: Path, adata: anndata.AnnData) -> None:
    sm.write(adata, tmp_path / "a.h5ad")
    sm.write(adata.copy(), tmp_path / "b.h5ad")
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


def test_same_bytes_while_another_thread_looks_on(tmp_path: Path, adata: anndata.AnnData) -> None:
    """What looks at frames (a profiler) keeps their objects alive for a moment: the file must not hang on that."""
    sm.write(adata, tmp_path / "alone.h5ad")
    stop = threading.Event()

    def look() -> None:
        seen: deque[Any] = deque(maxlen=3)
        while not stop.wait(5e-4):
            seen.append(list(sys._current_frames().values()))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for i in range(4):
            sm.write(adata, tmp_path / f"{i}.h5ad")
    finally:
        stop.set()
        thread.join()
    assert {path.read_bytes() for path in tmp_path.glob("*.h5ad")} == {(tmp_path / "alone.h5ad").read_bytes()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(error), replacing(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert leftovers(tmp_path) == []


def test_what_does_not_read_back_does_not_replace(
    tmp_path: Path, adata: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "x.h5ad"
    sm.write(adata, target)
    old = target.read_bytes()
    real = anndata.io.write_elem

    def damaged(group: Any, name: str, element: Any, **options: Any) -> None:
        if name == "X":
            element = element.copy()
            element.data[7] += 1
        real(group, name, element, **options)

    monkeypatch.setattr(anndata.io, "write_elem", damaged)
    with pytest.raises(OSError, match="does not read back"):
        sm.write(adata, target)
    assert target.read_bytes() == old
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("part", ["obs", "uns", "obsm", "layers"])
def test_every_part_is_checked(tmp_path: Path, adata: anndata.AnnData, part: str) -> None:
    adata.layers["l"] = adata.X.copy()
    sm.write(adata, tmp_path / "x.h5ad")
    for key in list(getattr(adata, part)):
        other = adata.copy()
        del getattr(other, part)[key]
        with pytest.raises(OSError, match="does not read back"):
            _write._verify(tmp_path / "x.h5ad", other)


def test_places_that_cannot_be_written(tmp_path: Path, adata: anndata.AnnData) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        sm.write(adata, tmp_path / "file" / "x.h5ad")
    (tmp_path / "folder.h5ad").mkdir()
    with pytest.raises(InputError, match="a folder of that name"):
        sm.write(adata, tmp_path / "folder.h5ad")
    with pytest.raises(InputError, match=r"name it x.h5ad"):
        sm.write(adata, tmp_path / "x.csv")
    with pytest.raises(InputError, match="cannot be written"), replacing_folder(tmp_path / "file" / "out"):
        pass
    with pytest.raises(InputError, match="is not a folder"), replacing_folder(tmp_path / "file"):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_read_only_parent(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot be written"), replacing(tmp_path / "locked" / "x"):
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x.txt").write_text("old")
    (tmp_path / "x.txt").symlink_to(tmp_path / "real/x.txt")
    with replacing(tmp_path / "x.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "x.txt").is_symlink()
    assert (tmp_path / "real/x.txt").read_text() == "new"


def test_long_names(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 120 + ".txt")  # 244 bytes
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


# leftovers


def test_only_leftovers_of_dead_processes_are_removed(tmp_path: Path) -> None:
    def name(pid: int, host: str = _safe._HOST, target: str = "x.txt") -> Path:
        return tmp_path / f".{target}.tmp-{host}-{pid}-0123abcd"

    dead, alive, far, others = (
        name(DEAD_PID),
        name(os.getppid()),
        name(DEAD_PID, "otherhst"),
        name(DEAD_PID, target="y"),
    )
    own = name(os.getpid())
    for path in (dead, alive, far, others, own):
        path.write_text("half")
    unlike = tmp_path / ".x.txt.tmp-notes"
    unlike.write_text("mine")
    with replacing(tmp_path / "x.txt") as temporary:
        temporary.write_text("new")
        with replacing(tmp_path / "x.txt") as inner:  # does not remove the one in use
            inner.write_text("newer")
        assert temporary.exists()
    assert not dead.exists()
    assert not own.exists()
    assert all(p.exists() for p in (alive, far, others, unlike))


# folders

KNOWN = ("result.h5ad", "tables/*.csv", "figures")


def fill(folder: Path, text: str) -> None:
    for name in ("run.toml", "result.h5ad", "tables/a.csv", "figures/deep/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("swap", ["exchange", "two renames"])
@pytest.mark.parametrize("existing", ["none", "empty", "old"])
def test_folder_is_swapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: str, swap: str) -> None:
    if swap == "two renames":
        monkeypatch.setattr(_safe, "_exchange", lambda one, other: False)
    target = tmp_path / "out"
    if existing != "none":
        target.mkdir()
    if existing == "old":
        fill(target, "old")
        (target / "tables/gone.csv").write_text("old")
    with replacing_folder(target, known=KNOWN) as temporary:
        fill(temporary, "new")
    assert {p.read_text() for p in target.rglob("*") if p.is_file()} == {"new"}
    assert not (target / "tables/gone.csv").exists()
    assert leftovers(tmp_path) == []


FOREIGN = {
    "no marker": lambda f: (f / "run.toml").unlink(),
    "a file": lambda f: (f / "thesis.docx").write_text("years"),
    "a file in a known folder": lambda f: (f / "tables/notes.txt").write_text("x"),
    "a folder": lambda f: ((f / "data").mkdir(), (f / "data/raw.h5").write_text("x")),
    "a link": lambda f: (f / "data").symlink_to(f.parent),
    "hidden": lambda f: (f / ".git").write_text("x"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_never_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / "out"
    fill(target, "old")
    with replacing_folder(target, known=KNOWN) as temporary:  # the good twin
        fill(temporary, "old")
    FOREIGN[name](target)
    before = sorted(target.rglob("*"))
    with pytest.raises(InputError, match="--out"), replacing_folder(target, known=KNOWN) as temporary:
        fill(temporary, "new")
    assert sorted(target.rglob("*")) == before
    assert leftovers(tmp_path) == []


def test_foreign_file_that_comes_while_we_write(tmp_path: Path) -> None:
    target = tmp_path / "out"
    fill(target, "old")
    with pytest.raises(InputError, match="thesis"), replacing_folder(target, known=KNOWN) as temporary:
        fill(temporary, "new")
        (target / "thesis.docx").write_text("years")
    assert (target / "thesis.docx").read_text() == "years"
    assert (target / "run.toml").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_exception_leaves_the_old_folder(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    fill(target, "old")
    with pytest.raises(error), replacing_folder(target, known=KNOWN) as temporary:
        fill(temporary, "new")
        raise error
    assert (target / "run.toml").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_failed_second_rename_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    fill(target, "old")
    real = Path.rename

    def rename(self: Path, other: Path) -> Path:
        if ".tmp-" in self.name:
            raise OSError(5, "Input/output error")
        return real(self, other)

    monkeypatch.setattr(_safe, "_exchange", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"), replacing_folder(target, known=KNOWN) as temporary:
        fill(temporary, "new")
    assert (target / "run.toml").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_the_folder_one_works_in_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", "old")
    monkeypatch.chdir(tmp_path / "out" / "tables")
    with pytest.raises(InputError, match="current folder"), replacing_folder(tmp_path / "out", known=KNOWN):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux'")
def test_exchange_is_one_step_on_linux(tmp_path: Path) -> None:
    fill(tmp_path / "a", "a")
    fill(tmp_path / "b", "b")
    assert _safe._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/run.toml").read_text() == "b"
