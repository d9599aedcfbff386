"""Tables that hold several sections: which one is meant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smeld import _check

ALL = "all"


def names(columns: Sequence[Sequence[str]]) -> list[str]:
    """The section of every row: the values of its columns, such as an animal and a plane, joined by "/"."""
    return ["/".join(values) for values in zip(*columns)]


def chosen(sections: Sequence[str], table: str | None, *, where: str) -> NDArray[np.bool_]:
    """The rows that are meant: those of the one section there is, or of the section, the animal or "all" that
    ``table`` names."""
    known = list(dict.fromkeys(sections))
    if table is None and len(known) > 1:
        whole = known[0].partition("/")
        one = f", or {whole[0]!r} for all that begin with it" if whole[1] else ""
        raise _check.problem(
            f"{where} holds {len(known)} sections, whose positions overlap",
            found=_check.listed(known),
            cure=f"name one with --table (table=), such as {known[0]!r}{one}; or {ALL!r},"
            ' and give batch_key="section" afterwards',
        )
    if table in (None, ALL):
        return np.ones(len(sections), dtype=bool)
    mask = np.asarray([s == table or s.startswith(f"{table}/") for s in sections], dtype=bool)
    if not mask.any():
        raise _check.unknown("section", table, known)
    return mask
