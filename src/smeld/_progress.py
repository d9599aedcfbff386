"""Progress bars for what lasts more than a few seconds: on standard error, on a terminal, never otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_quiet: ContextVar[bool] = ContextVar("smeld_quiet", default=False)


def set_quiet(quiet: bool) -> None:
    """Silence (True) or allow (False) progress bars from here on."""
    _quiet.set(quiet)


@contextmanager
def silenced(quiet: bool = True) -> Iterator[None]:
    """Silence progress within a block; ``silenced(False)`` leaves what was set before as it is."""
    token = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(token)


def shown() -> bool:
    """True if a bar would be drawn now: not quiet, and standard error is a terminal."""
    return not _quiet.get() and sys.stderr is not None and sys.stderr.isatty()


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield from ``iterable`` with a progress bar on standard error; yield only, where no bar is wanted.

    ``total`` is the number of items, taken from ``len(iterable)`` where there is one. The bar vanishes when
    the loop ends, however it ends, so that logs and error messages stay clean.
    """
    if not shown():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import track as rich_track

    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    yield from rich_track(iterable, description, total, console=Console(file=sys.stderr), transient=True)


def tell(message: str) -> None:
    """A line on standard error where bars would be drawn."""
    if shown():
        sys.stderr.write(f"smeld: {message}\n")


def available_gb() -> float | None:
    """Memory that can be had now, gigabytes; None where the system does not say."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            found = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, IndexError):
        return None
    return int(found) * 1024 / 1e9
