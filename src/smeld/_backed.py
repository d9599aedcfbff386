"""Counts that stay on disk: dask arrays of sparse blocks, by blocks of rows, and in an order of their own."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.kernels.rows import MOST_VALUES, ROWS, Rows, in_memory

Int = NDArray[np.intp]

#: files into which rows are sorted, at most: a process may have about a thousand open, four for each of these
MOST_BUCKETS = 200
PARTS = {"row": np.int64, "size": np.int64, "indices": np.int32, "data": np.float32}


def is_backed(x: Any) -> bool:
    """True for a dask array."""
    return type(x).__module__.startswith("dask.")


#: what was seen of tables that are still there, by the number of the object
_seen: dict[int, tuple[weakref.ref[Any], tuple[bool | None, float]]] = {}


def once(x: Any, look: Callable[[], Rows]) -> tuple[bool | None, float]:
    """(whether all values are whole numbers, the largest) of a dask array: it is looked through the first time only."""
    found = _seen.get(id(x))
    if found is None or found[0]() is not x:
        made, number = look(), id(x)
        _seen[number] = weakref.ref(x, lambda _: _seen.pop(number, None)), (made.whole_numbers, made.largest)
    return _seen[id(x)][1]


def in_memory_matrix(x: Any) -> Any:
    """What a dask array holds; anything else as it is."""
    return x.compute(scheduler="synchronous") if is_backed(x) else x


def rows_of(x: Any, order: Int | None = None) -> Rows:
    """The table by blocks of rows; in ``order`` (row numbers) where that is given.

    Rows that do not lie in this order on disk are sorted into a copy in a temporary folder, which goes with the result:
    else every block would have to be sought all over the table.
    """
    stored = Rows(x.shape, lambda start, stop: _read(x[start:stop]), lambda rows: _read(x[rows]))
    return stored if order is None else _sorted(stored, order)


def _read(part: Any) -> sparse.csr_matrix:
    block = sparse.csr_matrix(part.compute(scheduler="synchronous"), dtype=np.float32)
    inside = not block.nnz or 0 <= block.indices.min() <= block.indices.max() < block.shape[1]
    made = in_memory(block).fetch(0, block.shape[0]) if inside else block
    # zeros may be stored and are dropped; a value that comes twice is what missing chunks read as
    if not inside or made.nnz < np.count_nonzero(block.data):
        raise _check.problem(
            "the stored counts are not whole",
            found="entries that come twice, or a column beyond the last gene",
            cure="copy the data again: files of it may be missing; or read it without backed",
        )
    return made


class _Files:
    """Arrays of several kinds, appended to files of a folder and read back in part."""

    def __init__(self, folder: Path, name: str, stack: ExitStack) -> None:
        self.paths = {part: folder / f"{name}.{part}" for part in PARTS}
        self.files = {part: stack.enter_context(path.open("wb")) for part, path in self.paths.items()}

    def append(self, row: Int, block: sparse.csr_matrix) -> None:
        values = {"row": row, "size": np.diff(block.indptr), "indices": block.indices, "data": block.data}
        for part, dtype in PARTS.items():
            self.files[part].write(np.ascontiguousarray(values[part], dtype=dtype).data)

    def read(self, part: str, start: int = 0, count: int = -1) -> NDArray[Any]:
        dtype = np.dtype(PARTS[part])
        return np.fromfile(self.paths[part], dtype=dtype, count=count, offset=start * dtype.itemsize)


def _sorted(stored: Rows, order: Int) -> Rows:
    """Rows go to a file for each range of places, and each file is sorted by itself: two passes, little memory."""
    folder = tempfile.TemporaryDirectory(prefix="smeld-rows-")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    width = _bucket_width(stored)
    with ExitStack() as stack:
        buckets = [_Files(Path(folder.name), str(i), stack) for i in range(-(-len(order) // width))]
        for start, block in stored.blocks():
            for number, rows in _by_bucket(place[start : start + block.shape[0]] // width):
                buckets[number].append(place[start + rows], block[rows])
    indptr = np.zeros(len(order) + 1, dtype=np.int64)
    with ExitStack() as stack:
        out = _Files(Path(folder.name), "sorted", stack)
        for bucket in buckets:
            row, block = _loaded(bucket, stored.shape[1])
            here = np.argsort(row)
            indptr[row[here] + 1] = np.diff(block.indptr)[here]
            out.append(row[here], block[here])
            for path in bucket.paths.values():
                path.unlink()
    np.cumsum(indptr, out=indptr)

    def fetch(start: int, stop: int) -> sparse.csr_matrix:
        # the folder is named here, so that it lives as long as this function
        first, last = (int(indptr[i]) for i in (start, stop))
        values = [_Kept(Path(folder.name)).read(part, first, last - first) for part in ("data", "indices")]
        return sparse.csr_matrix((*values, indptr[start : stop + 1] - first), shape=(stop - start, stored.shape[1]))

    return Rows(stored.shape, fetch, lambda rows: _taken(fetch, rows, stored.shape))


class _Kept(_Files):
    """The sorted table's files, which are there already."""

    def __init__(self, folder: Path) -> None:
        self.paths = {part: folder / f"sorted.{part}" for part in PARTS}


def _bucket_width(stored: Rows) -> int:
    """Rows of a bucket: it is sorted in memory."""
    first = stored.fetch(0, min(ROWS, len(stored)))
    typical = first.nnz / max(first.shape[0], 1)
    return int(max(MOST_VALUES / max(typical, 1), len(stored) / MOST_BUCKETS, 1))


def _by_bucket(bucket: Int) -> Iterator[tuple[int, Int]]:
    """(bucket, rows that go there)."""
    rows = np.argsort(bucket, kind="stable")
    ends = np.flatnonzero(np.diff(bucket[rows])) + 1
    for part in np.split(rows, ends):
        yield int(bucket[part[0]]), part


def _loaded(bucket: _Files, n_genes: int) -> tuple[Int, sparse.csr_matrix]:
    row, size = bucket.read("row"), bucket.read("size")
    indptr = np.concatenate([[0], np.cumsum(size)])
    shape = (len(row), n_genes)
    return row, sparse.csr_matrix((bucket.read("data"), bucket.read("indices"), indptr), shape=shape)


def _taken(fetch: Any, rows: Int, shape: tuple[int, int]) -> sparse.csr_matrix:
    """Some rows, increasing: blocks that hold none are not read."""
    parts = []
    for start in np.unique(np.asarray(rows) // ROWS) * ROWS:
        stop = min(int(start) + ROWS, shape[0])
        here = rows[(rows >= start) & (rows < stop)]
        parts.append(fetch(int(start), stop)[here - start])
    empty = sparse.csr_matrix((0, shape[1]), dtype=np.float32)
    return sparse.csr_matrix(sparse.vstack([empty, *parts], format="csr"))
