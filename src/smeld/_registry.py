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
        self._families: dict[str, tuple[Callable[[str], F], Mapping[str, Any]]] = {}
        self._loaded = False

    def add(self, name: str, **facts: Any) -> Callable[[F], F]:
        """Decorator that registers a function under ``name`` with the facts of its card."""

        def register(func: F) -> F:
            if name in self._cards and self._cards[name].func is not func:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._cards[name] = Card(name, func, MappingProxyType(dict(facts)))
            return func

        return register

    def add_family(self, prefix: str, **facts: Any) -> Callable[[Callable[[str], F]], Callable[[str], F]]:
        """Decorator for plug-ins that are made on demand: ``prefix:rest`` is what the function makes of ``rest``.

        They are looked up like others and stand in no list, for there is no end to their names.
        """

        def register(make: Callable[[str], F]) -> Callable[[str], F]:
            if prefix in self._families and self._families[prefix][0] is not make:
                raise ValueError(f"{self.kind} family {prefix!r} is registered twice")
            self._families[prefix] = (make, MappingProxyType(dict(facts)))
            return make

        return register

    @property
    def families(self) -> list[str]:
        """The prefixes of plug-ins that are made on demand."""
        self._load()
        return sorted(self._families)

    def _made(self, name: object) -> Card[F] | None:
        """The card of ``prefix:rest``; None for other names."""
        prefix, _, rest = str(name).partition(":")
        if not rest or prefix not in self._families:
            return None
        make, facts = self._families[prefix]
        return Card(str(name), make(rest), facts)

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
        made = self._made(name)
        if made is not None:
            return made
        if name not in self._cards:
            raise _check.unknown(self.kind, name, [*self._cards, *(f"{prefix}:..." for prefix in self._families)])
        return self._cards[name]

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._cards or self._made(name) is not None

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._cards))

    def __len__(self) -> int:
        self._load()
        return len(self._cards)
