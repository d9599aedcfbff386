"""How many threads: one for linear algebra, whose sums must not depend on their number; all for what is done item by
item (Fourier transforms, searches for neighbours), except where others keep the processors busy."""

from __future__ import annotations

import os
import threading
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


_in_thread = threading.local()


def workers() -> int:
    """Threads of Fourier transforms and of searches for neighbours. Each transform and search is done by one of them:
    the bits do not depend on their number. One after :func:`alone`."""
    return 1 if getattr(_in_thread, "here", False) else os.cpu_count() or 1


def alone() -> None:
    """From here on this thread starts no others: there are as many processes or threads as processors."""
    _in_thread.here = True
