"""Linear algebra by one thread: sums whose bits must not depend on how many there are."""

from __future__ import annotations

from functools import cache
from typing import Any

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    """Looking for the libraries takes a hundredth of a second: it is done once."""
    return ThreadpoolController()


def one_thread() -> Any:
    """Context in which numpy's and scipy's linear algebra uses one thread."""
    return _controller().limit(limits=1)
