"""One registry for all plug-ins: a decorator, discovery of a folder, entry points, and "did you mean"."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from smeld import _check

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Card(Generic[F]):
    """What a registry knows of one plug-in: its function and the facts given to ``add``."""

    name: str
    func: F
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)

    @property
    def summary(self) -> str:
        """First line of the plug-in's docstring."""
        return (self.func.__doc__ or "").strip().partition("\n")[0]


class Registry(Mapping[str, "Card[F]"]):
    """Plug-ins of one kind by name.

    The folder ``package`` is imported on the first look-up (files that begin with ``_`` are not plug-ins); then the
    entry points of ``group``, so that another distribution adds a plug-in in the same way::

        @encoders.add("mean", license="BSD-3-Clause", gated=False, um_per_px=None, tile_px=16, dim=3)
        def mean(device): ...
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._cards: dict[str, Card[F]] = {}
        self._loaded = False

    def add(self, name: str, **facts: Any) -> Callable[[F], F]:
        """Decorator that registers a function under ``name`` with the facts of its card."""

        def register(func: F) -> F:
            if name in self._cards and self._cards[name].func is not func:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._cards[name] = Card(name, func, MappingProxyType(dict(facts)))
            return func

        return register

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # set before, for a plug-in may look into the registry while it is imported
        try:
            folder = importlib.import_module(self.package)
            for module in pkgutil.iter_modules(folder.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{self.package}.{module.name}")
            for point in entry_points(group=self.group):
                point.load()
        except BaseException:
            self._loaded = False  # half a registry would call what is missing "unknown"
            raise

    def __getitem__(self, name: str) -> Card[F]:
        self._load()
        if name not in self._cards:
            raise _check.unknown(self.kind, name, self._cards)
        return self._cards[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._cards

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._cards))

    def __len__(self) -> int:
        self._load()
        return len(self._cards)
