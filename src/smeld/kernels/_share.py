"""Work of one section, shared out among worker processes where there are any, done in this process otherwise.

A kernel cuts its work into items and asks ``with workers() as share: share.each(make, given, items)``. ``make(given)``
gives the function of one item, once in each process. Results come in the order of the items, each the same wherever
it was made: so the whole has the same bits.

Large arrays are not sent: they lie in a scratch folder that all workers see, written once and mapped into memory, so
that the workers of one machine hold them once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

G = TypeVar("G")
T = TypeVar("T")
R = TypeVar("R")
#: what an item's function is made of, in each process that does some
Make = Callable[[G], Callable[[T], R]]

#: arrays of more bytes are files, smaller ones are sent
SENT_BYTES = 1 << 16


class Share(Protocol):
    """How items are done. ``here``: by this process; ``remote``: by machines whose processors it has no use of."""

    here: bool
    remote: bool

    def each(self, make: Make[G, T, R], given: G, items: Iterable[T]) -> Iterator[R]:
        """``make(given)(item)`` for each item, in their order. Items are asked for as they are begun."""

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array to be filled and then given to items, until the block ends."""


class Pool(Protocol):
    """Workers that may be had."""

    def share(self) -> AbstractContextManager[Share]:
        """A block of work, whose files are removed at its end."""


class _Here:
    here, remote = True, False

    def each(self, make: Make[G, T, R], given: G, items: Iterable[T]) -> Iterator[R]:
        work = make(given)
        for item in items:
            yield work(item)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        return np.empty(shape, dtype)


_pool: ContextVar[Pool | None] = ContextVar("smeld_workers", default=None)


@contextmanager
def using(pool: Pool) -> Iterator[None]:
    """Within the block, work is shared out among the workers of ``pool``."""
    token = _pool.set(pool)
    try:
        yield
    finally:
        _pool.reset(token)


@contextmanager
def workers() -> Iterator[Share]:
    """The workers that may be had, or this process alone."""
    pool = _pool.get()
    if pool is None:
        yield _Here()
        return
    with pool.share() as share:
        yield share


# -- large arrays as files -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """Stands for an array that lies in a file."""

    path: str

    def mapped(self) -> NDArray[Any]:
        """The array, read as far as it is looked at; what is written into it stays in this process."""
        return np.asarray(np.load(self.path, mmap_mode="c", allow_pickle=False))

    def taken(self) -> NDArray[Any]:
        """The array in memory; the file is removed."""
        array: NDArray[Any] = np.load(self.path, allow_pickle=False)
        Path(self.path).unlink(missing_ok=True)
        return array


@dataclass(frozen=True)
class _Compressed:
    """Stands for a sparse matrix, csr or csc, of the class ``kind``."""

    kind: type
    shape: tuple[int, int]
    parts: tuple[Any, Any, Any]


class Files:
    """The scratch folder of a block of work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # the arrays are held, so that their ids stay theirs
        self._known: dict[int, tuple[NDArray[Any], Stored]] = {}

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array whose memory is a file that others may map."""
        path = self._path()
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        self._known[id(array)] = (array, Stored(str(path)))
        return array

    def pack(self, value: Any) -> Any:
        """``value`` with every large array in it a file: in dataclasses, tuples, lists, dicts and sparse matrices. An
        array that is met again is not written again."""
        if isinstance(value, np.ndarray):
            return self._stored(value) if value.nbytes > SENT_BYTES and not value.dtype.hasobject else value
        if sparse.issparse(value) and value.format in ("csr", "csc"):
            return _Compressed(type(value), value.shape, self.pack((value.data, value.indices, value.indptr)))
        return _within(value, self.pack)

    def _stored(self, array: NDArray[Any]) -> Stored:
        if id(array) in self._known:
            if isinstance(array, np.memmap):
                array.flush()
            return self._known[id(array)][1]
        path = self._path()
        np.save(path, array, allow_pickle=False)
        self._known[id(array)] = array, Stored(str(path))
        return self._known[id(array)][1]

    def _path(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        return self.folder / f"{uuid.uuid4().hex}.npy"


def unpack(value: Any, load: Callable[[Stored], NDArray[Any]] = Stored.mapped) -> Any:
    """What was packed, its arrays ``mapped`` or ``taken``."""
    if isinstance(value, Stored):
        return load(value)
    if isinstance(value, _Compressed):
        return value.kind(unpack(value.parts, load), shape=value.shape, copy=False)
    return _within(value, lambda v: unpack(v, load))


def _within(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same with what it is made of changed; itself where nothing is."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        changed = {name: new for name, old in parts.items() if (new := change(old)) is not old}
        return replace(value, **changed) if changed else value
    if type(value) in (tuple, list):
        made = [change(v) for v in value]
        return value if all(a is b for a, b in zip(made, value)) else type(value)(made)
    if type(value) is dict:
        return {key: change(v) for key, v in value.items()}
    return value
