"""Tables of a result as the page shows them: markers, pairs, genes along the order, and what else there is."""

from __future__ import annotations

import math
from typing import Any

from smeld import _keys
from smeld.viewer import _stored

#: tables that come first, and what they are called
TITLES = {
    _keys.MARKERS: "Markers",
    _keys.INTERACTIONS: "Interactions",
    _keys.CELLTYPE_INTERACTIONS: "Who sends to whom",
    _keys.TRANSITION_GENES: "Genes along the order",
    "niche_composition": "Niches",
    "domain_pieces": "Pieces of domains",
    "fusion_evidence": "What each modality adds",
}
#: rows that are sent, and tables that are offered
MOST_ROWS, MOST_TABLES = 5_000, 40
GENE_COLUMNS = ("gene",)


def listed(root: Any) -> list[dict[str, Any]]:
    """Name, title and number of rows of every table in ``uns``."""
    uns = _stored.at(root, "uns")
    keys = [] if uns is None else [key for key in uns if _stored.is_frame(uns[key]) and _stored.columns(uns[key])]
    order = [key for key in TITLES if key in keys] + sorted(key for key in keys if key not in TITLES)
    return [{"name": k, "title": TITLES.get(k, k), "n_rows": _stored.length(uns[k])} for k in order[:MOST_TABLES]]


def table(root: Any, name: str) -> dict[str, Any]:
    """The table's columns and first rows; which columns name genes, and which two a ligand and its receptor."""
    frame = root["uns"][name]
    names = _stored.columns(frame)
    cells = [_cells(_stored.column(frame[column])) for column in names]
    if not _counted(frame):
        names, cells = ["", *names], [_cells(_stored.column(_stored.index(frame))), *cells]
    pair = [names.index(c) for c in ("ligand", "receptor") if c in names]
    return {
        "title": TITLES.get(name, name),
        "columns": names,
        "rows": [list(row) for row in zip(*cells, strict=True)],
        "genes": [i for i, column in enumerate(names) if column in GENE_COLUMNS],
        "pairs": pair if len(pair) == 2 else [],
    }


def _counted(frame: Any) -> bool:
    """True where the rows have no names of their own."""
    node = _stored.index(frame)
    if _stored.is_group(node):
        return False
    return node.dtype.kind in "iu" or (n := node.shape[0]) == 0 or _stored.text(node) == [str(i) for i in range(n)]


def _cells(found: Any) -> list[str | float | int | None]:
    if isinstance(found, _stored.Labels):
        return [found.names[c] if c >= 0 else None for c in found.codes[:MOST_ROWS]]
    values = found[:MOST_ROWS]
    return [_cell(v) for v in (values if isinstance(values, list) else values.tolist())]


def _cell(value: Any) -> str | float | int | None:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str) else str(value)
