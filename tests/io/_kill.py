"""Run by test_safe_write in its own process: children are killed as they write; old or new must be whole.

Arguments: folder, kind (h5ad, folder, two-step), seed. Ends with 0 and one line of figures if all was well.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import anndata
import numpy as np
from scipy import sparse

from smeld.io import _safe, write

FILES = ("result.h5ad", "tables/a.csv", "run.toml")


def version(k: int) -> anndata.AnnData:
    rng = np.random.default_rng(k)
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(1.0, (60, 30)).astype(np.float32)))
    adata.obs_names = [f"v{k}_{i}" for i in range(60)]
    return adata


def write_h5ad(path: Path, k: int) -> None:
    write(version(k), path)


def read_h5ad(path: Path) -> int:
    adata = anndata.read_h5ad(path)
    k = int(adata.obs_names[0][1 : adata.obs_names[0].index("_")])
    assert (adata.X != version(k).X).nnz == 0
    assert adata.obs_names.equals(version(k).obs_names)
    return k


def write_folder(path: Path, k: int) -> None:
    with _safe.replacing_folder(path, known=FILES) as temporary:
        (temporary / "tables").mkdir()
        for name in FILES:
            (temporary / name).write_text(f"{k}\n" * 3000)


def read_folder(path: Path) -> int:
    texts = {(path / name).read_text() for name in FILES}
    assert len(texts) == 1
    text = texts.pop()
    k = int(text.split()[0])
    assert text == f"{k}\n" * 3000
    assert sorted(p.name for p in path.iterdir()) == ["result.h5ad", "run.toml", "tables"]
    return k


def kill_at_line(n: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that kills this very process at the n-th line run in smeld's writing modules."""
    seen = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal seen
        if not frame.f_code.co_filename.endswith(("_safe.py", "_write.py")):
            return None
        if event == "line":
            seen += 1
            if seen == n:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def child(job: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    return pid


def ended_well(pid: int) -> bool:
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or os.WEXITSTATUS(status) == 0, "the writer failed by itself"
    return not killed


def main(folder: Path, kind: str, seed: int) -> None:
    put, get = (write_h5ad, read_h5ad) if kind == "h5ad" else (write_folder, read_folder)
    target = folder / ("out.h5ad" if kind == "h5ad" else "out")
    if kind == "two-step":
        _safe._exchange = lambda one, other: False  # type: ignore[assignment]
    put(target, 0)
    state, n, kills, news = 0, 0, 0, 0

    def check(k: int) -> int:
        if kind == "two-step" and not target.exists():
            _safe._restore(target)  # as the next start does
        found = get(target)
        assert found in (state, k), (found, state, k)
        return found

    def traced(k: int, line: int) -> None:
        sys.settrace(kill_at_line(line))
        put(target, k)

    done = False
    while not done:  # a kill at every single line
        n += 1
        done = ended_well(child(partial(traced, n, n)))
        kills += not done
        found = check(n)
        news += found != state and not done
        state = found
    start = time.perf_counter()
    put(target, n + 1)
    state, span = n + 1, time.perf_counter() - start
    rng = random.Random(seed)
    for k in range(n + 2, n + 27):  # and at 25 moments in between
        pid = child(partial(put, target, k))
        time.sleep(rng.uniform(0, 1.3 * span))
        os.kill(pid, signal.SIGKILL)
        kills += not ended_well(pid)
        state = check(k)
    put(target, 10_000)
    assert get(target) == 10_000
    left = sorted(p.name for p in folder.iterdir())
    assert left == [target.name], left
    sys.stdout.write(f"{kills} kills, {news} after the swap\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
