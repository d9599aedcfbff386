"""Errors and warnings: what is missing, what was found, and the cure. Messages are made here and nowhere else."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData

#: how many names an error lists before it stops
MAX_LISTED = 12


class InputError(ValueError):
    """The user's input or a setting is at fault; the command line exits with 2."""


class SmeldWarning(UserWarning):
    """Something the user should know; the run goes on and the report repeats it."""


def listed(names: Iterable[object], most: int = MAX_LISTED) -> str:
    """Names as one readable line, cut after ``most``.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    items = [str(name) for name in names]
    if not items:
        return "nothing"
    if len(items) <= most:
        return ", ".join(items)
    return ", ".join(items[:most]) + f" and {len(items) - most} more"


def problem(missing: str, *, found: str | None = None, cure: str | None = None) -> InputError:
    """One line with the three things a user needs: what is missing, what was found, the cure."""
    parts = [missing.rstrip(".")]
    if found:
        parts.append(f"found: {found.rstrip('.')}")
    if cure:
        parts.append(f"cure: {cure.rstrip('.')}")
    # file content ends up in messages: keep them to one printable line
    line = "; ".join(parts) + "."
    return InputError("".join(c if c.isprintable() else " " for c in line))


def unknown(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that a registry or a table does not have, with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(str(name).lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    spelled = next((k for k in known if near and k.lower() == near[0]), None)
    cure = f"did you mean {spelled!r}?" if spelled else f"choose one of: {listed(known)}"
    return problem(f"unknown {kind} {str(name)[:80]!r}", found=f"{kind}s {listed(known)}", cure=cure)


def require(container: Iterable[str], name: str, where: str, cure: str) -> None:
    """Raise unless ``name`` is in ``container`` (for example ``adata.obsm``)."""
    names = list(container)
    if name not in names:
        raise problem(f"{where}[{name!r}] is missing", found=f"{where} has {listed(names)}", cure=cure)


def warn(message: str, adata: AnnData | None = None, *, stacklevel: int = 3) -> None:
    """Warn now, and keep the message in ``uns["smeld"]`` so that the report repeats it."""
    warnings.warn(message, SmeldWarning, stacklevel=stacklevel)
    if adata is not None:
        from smeld import _keys

        _keys.keep_warning(adata, message)
