"""The few kernels that another device may take over, and what was chosen.

A kernel asks ``elsewhere(name, rows, ...)`` first and computes by itself where the answer is None: on the CPU, always.
What other devices can do is not known here. It is looked up by the name of its module, as plug-ins are, and only when a
kernel is asked for more rows than ``LEAST_ROWS`` or a device was named.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any

#: module whose ``functions(device)`` gives what runs there: (name of the device, kernels by name), None for the CPU
PROVIDER = "smeld.nn._switch"
VARIABLE = "SMELD_DEVICE"
#: rows from which "auto" looks for a GPU. An estimate, not measured: loading torch and starting a GPU takes some
#: seconds, which is what a fusion or the tests of a hundred pairs take on one core at about this size; copies (40 MB of
#: 50 columns at 100,000 rows) take milliseconds
LEAST_ROWS = 50_000

Found = tuple[str, Mapping[str, Callable[..., Any]]]


class Switch:
    """What is asked for (None: the environment variable, or else "auto") and the devices used since it was last read.

    One for the process: kernels share their work out over threads, which must all do the same.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self._used: set[str] = set()
        self._reader: str | None = None

    def name(self) -> str:
        """The device that is asked for."""
        return self.asked or os.environ.get(VARIABLE, "").strip() or "auto"

    def found(self, rows: int) -> Found | None:
        """Where kernels of so many rows run and what runs there; None: on the CPU, as they are."""
        name = self.name()
        if name == "cpu" or (name == "auto" and rows < LEAST_ROWS):
            return None
        made: Found | None = importlib.import_module(PROVIDER).functions(name)
        return made

    def start(self) -> None:
        """A kernel is called: what was read before belongs to another task."""
        if self._reader is not None:
            self._used, self._reader = set(), None

    def use(self, device: str) -> None:
        """Note that a device was used."""
        self._used.add(device)

    def taken(self, function: str = "") -> str | None:
        """The devices used by the kernels of the task ``function``, with commas between; None: the CPU alone.

        A task may ask more than once; once it has, other tasks and later kernels start afresh.
        """
        if self._reader not in (None, function):
            self._used = set()
        self._reader = function
        return ", ".join(sorted(self._used)) or None


switch = Switch()


def elsewhere(name: str, rows: int, *arguments: Any) -> Any:
    """What the chosen device makes of kernel ``name``; None where there is no other, or it can't do this one."""
    switch.start()
    found = switch.found(rows)
    if found is None or name not in found[1]:
        return None
    made = found[1][name](*arguments)
    if made is not None:
        switch.use(found[0])
    return made
