"""Markdown tables and the page that holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def cell(value: Any) -> str:
    """A value as text: numbers with three figures, no trailing noise."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    return str(value).replace("|", "/").replace("\n", " ")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size < 1 or value != round(value) else f"{value:.0f}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table whose columns are the keys of all rows, in the order they first appear."""
    if not rows:
        return "(no rows)\n"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {c: all(isinstance(r.get(c), int | float | None) for r in rows) for c in columns}
    lines = ["| " + " | ".join(columns) + " |"]
    lines.append("|" + "|".join(" ---: " if numeric[c] else " --- " for c in columns) + "|")
    lines += ["| " + " | ".join(cell(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines) + "\n"
