"""Small sections on disk, and the command line called within this process, for the tests of both."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from smeld import _progress, cli, pipeline


def _load_make() -> Any:
    """The generator of the reader's tests, wherever pytest was started."""
    if "_make" not in sys.modules:
        path = Path(__file__).parent / "io" / "_make.py"
        spec = importlib.util.spec_from_file_location("_make", path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules["_make"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["_make"]


make = _load_make()


@dataclass(frozen=True)
class Called:
    """What one call of the command line did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of standard error that an error ends in."""
        lines = [line for line in self.err.splitlines() if line.startswith("smeld: error:")]
        assert len(lines) == 1, self.err
        assert self.err.splitlines()[-1] == lines[0], "the error comes last"
        return lines[0]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Called:
    """Run ``smeld arguments`` here; what it sets for its process is undone afterwards."""
    capsys.readouterr()
    state = dict(cli._state)
    try:
        code = cli.main([str(a) for a in arguments])
    finally:
        cli._state.update(state)
        _progress.set_quiet(False)
    said = capsys.readouterr()
    return Called(code, said.out, said.err)


def halves(section: Any, *, extra: int = 12) -> Any:
    """A copy of a made-up section whose left and right halves express different genes."""
    rng = np.random.default_rng(5)
    left = section.col < np.median(section.col)
    counts = section.counts.copy()
    counts[np.ix_(left, range(4))] += rng.poisson(extra, (int(left.sum()), 4))
    counts[np.ix_(~left, range(4, 8))] += rng.poisson(extra, (int((~left).sum()), 4))
    return replace(section, counts=counts)


def visium(folder: Path, **options: Any) -> Path:
    """A good Space Ranger folder: 50 spots under tissue in two halves, 12 genes, two images."""
    return Path(make.spaceranger(folder, halves(make.section()), **options))


def h5ad(path: Path, *, n: int = 60, seed: int = 0) -> anndata.AnnData:
    """A good .h5ad without image: ``n`` cells in a square of 500 um, two halves; also returned."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 500, (n, 2))
    counts = rng.poisson(2.0, (n, 15)).astype(np.float32) + np.eye(1, 15, dtype=np.float32)
    left = xy[:, 0] < 250
    counts[np.ix_(left, range(5))] += rng.poisson(10, (int(left.sum()), 5))
    counts[np.ix_(~left, range(5, 10))] += rng.poisson(10, (int((~left).sum()), 5))
    adata = anndata.AnnData(counts)
    adata.obs_names = [f"cell{i:03d}" for i in range(n)]
    adata.var_names = [f"G{i}" for i in range(15)]
    adata.obsm["spatial"] = xy
    adata.obsm["spatial_um"] = xy.copy()
    adata.write_h5ad(path)
    return adata


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder by relative path; folders stand as such."""
    return {
        p.relative_to(folder).as_posix(): "folder" if p.is_dir() else hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
    }


def old_result(folder: Path) -> dict[str, str]:
    """Something that stands for an earlier result of smeld, as far as smeld can tell; its ``tree``."""
    (folder / "tables").mkdir(parents=True)
    (folder / "figures").mkdir()
    for name in ("result.h5ad", "report.html", "run.toml", "tables/spots.csv", "figures/domains.png"):
        (folder / name).write_bytes(b"old " + name.encode())
    return tree(folder)


def skip_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out figures and the report's page: most of the time of a small run, with tests of their own."""
    monkeypatch.setattr(pipeline, "save_figures", lambda adata, folder: [])
    monkeypatch.setattr(pipeline, "write_report", lambda adata, path, **_: path.write_text("page"))


_AS_A_TERMINAL_STARTS_IT = """
import os, signal, sys
for name in ("SIGINT", "SIGHUP"):
    if hasattr(signal, name):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


def from_a_terminal(command: list[str]) -> list[str]:
    """The command with the signals that a terminal sends, which are ignored where the tests run in the background."""
    return [sys.executable, "-I", "-S", "-c", _AS_A_TERMINAL_STARTS_IT, *command]
