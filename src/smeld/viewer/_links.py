"""Pairs of a ligand and a receptor in single spots, arrows from senders to receivers, the way of an order, outlines."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _keys
from smeld.viewer import _columns, _stored, _wire
from smeld.viewer._source import Section

Array = NDArray[Any]

#: arrows that are sent, kinds of arrows that are offered, vertices of outlines
MOST_ARROWS, MOST_KINDS, MOST_VERTICES = 2_000, 12, 20_000
#: squares along the longer side in which the directions of an order are averaged
SQUARES = 44
FLOW = "direction of the order"
#: false discovery rate up to which a pair gets arrows, as in the plots
FDR = 0.05


def pair(section: Section, ligand: int, receptor: int) -> bytes:
    """The stored score of a pair in every spot, or sqrt(ligand times the mean of the receptor among the neighbours)."""
    names = section.file.genes.names
    row = _row(section, names[ligand], names[receptor])
    score = _columns.scores(section)
    if row is not None and score is not None and row < int(score.attrs["shape"][1]):
        values, stored = section.taken(_columns.score_column(score, row)), True
    else:
        around = _mean(section.neighbours, section.gene_values(receptor))
        values, stored = np.sqrt(np.maximum(section.gene_values(ligand) * around, 0.0)), False
    index = np.flatnonzero(values)
    return _wire.values(index, values[index], section.n_obs, stored=stored)


def _mean(links: sparse.csr_matrix, values: Array) -> NDArray[np.float64]:
    near = np.diff(links.indptr)
    total = np.bincount(np.repeat(np.arange(len(near)), near), values[links.indices].astype(np.float64), len(near))
    return np.asarray(total / np.maximum(near, 1))


def _row(section: Section, ligand: str, receptor: str) -> int | None:
    """The pair's row in the table of pairs."""
    table = _stored.at(section.file.root, "uns", _keys.INTERACTIONS)
    if table is None or not {"ligand", "receptor"} <= set(_stored.columns(table)):
        return None
    said = zip(_stored.words(table["ligand"]), _stored.words(table["receptor"]), strict=True)
    return next((i for i, found in enumerate(said) if found == (ligand, receptor)), None)


# -- arrows --------------------------------------------------------------------------------------------------


def listed(section: Section) -> list[dict[str, Any]]:
    """Kinds of arrows: the order's direction, then who sends to whom, or the pairs, as far as significant."""
    found = [{"name": FLOW, "title": FLOW, "n": MOST_ARROWS}] if _direction(section) is not None else []
    for row in _senders(section):
        who = f"{row['sender']} → {row['receiver']}: " if "sender" in row else ""
        title = f"{who}{row['ligand']}–{row['receptor']}"
        found.append({"name": title, "title": title, "n": MOST_ARROWS})
    return found[:MOST_KINDS]


def _direction(section: Section) -> Any:
    return _stored.at(section.file.root, "obsm", f"{_keys.PSEUDOTIME}_direction")


def _senders(section: Section) -> list[dict[str, str]]:
    """The significant rows of the table of who sends to whom, else of the pairs, whose genes are in the table."""
    known = set(section.file.genes.names)
    for key in (_keys.CELLTYPE_INTERACTIONS, _keys.INTERACTIONS):
        table = _stored.at(section.file.root, "uns", key)
        names = [] if table is None else _stored.columns(table)
        if not {"ligand", "receptor", "qvalue"} <= set(names):
            continue
        used: list[str] = [n for n in ("ligand", "receptor", "sender", "receiver") if n in names]
        found = np.flatnonzero(np.asarray(table["qvalue"][()], dtype=np.float64) <= FDR)
        columns = {n: _stored.words(table[n]) for n in used}
        rows = [{n: columns[n][i] for n in used} for i in found]
        rows = [row for row in rows if {row["ligand"], row["receptor"]} <= known]
        if rows:
            return rows[:MOST_KINDS]
    return []


def arrows(section: Section, number: int) -> bytes | None:
    """Ends and weights of one kind of arrows; None where there is no such kind."""
    kinds = listed(section)
    if number >= len(kinds):
        return None
    flows = kinds[0]["name"] == FLOW
    made = _flow(section) if flows and number == 0 else _sent(section, _senders(section)[number - flows])
    start, end, weight = made
    order = np.argsort(-weight, kind="stable")[:MOST_ARROWS]
    top = float(weight[order[0]]) if len(order) else 1.0
    parts = {"from": start[order], "to": end[order], "weight": weight[order] / max(top, 1e-300)}
    return _wire.pack({name: np.asarray(values, dtype=np.float32) for name, values in parts.items()})


def _sent(section: Section, row: dict[str, str]) -> tuple[Array, Array, Array]:
    """From each sender to each neighbour that receives: ligand times receptor."""
    names = section.file.genes.names
    ligand, receptor = (section.gene_values(names.index(row[n])) for n in ("ligand", "receptor"))
    sends, receives = (_is(section, row.get(n)) for n in ("sender", "receiver"))
    edges = sparse.coo_matrix(section.neighbours)
    weight = np.where(sends[edges.col] & receives[edges.row], ligand[edges.col] * receptor[edges.row], 0.0)
    kept = np.flatnonzero(weight > 0)
    xy = section.relative
    return xy[edges.col[kept]], xy[edges.row[kept]], weight[kept]


def _is(section: Section, label: str | None) -> NDArray[np.bool_]:
    """Spots with a label, in the column that knows it; all where none is given."""
    obs = section.file.root["obs"]
    for name in () if label is None else (_keys.CELL_TYPE, _keys.DOMAIN):
        found = _stored.shown_column(obs, name) if name in obs else None
        if isinstance(found, _stored.Labels) and label in found.names:
            return np.asarray(section.taken(found).codes == found.names.index(label))
    return np.ones(section.n_obs, dtype=bool)


def _flow(section: Section) -> tuple[Array, Array, Array]:
    """The mean direction in each square; its length says how far the spots agree."""
    way = np.nan_to_num(section.taken(np.asarray(_direction(section)[:, :2], dtype=np.float64)))
    length = np.hypot(way[:, 0], way[:, 1])
    unit = way / np.where(length > 0, length, 1.0)[:, None]
    xy = section.relative.astype(np.float64)
    side = max(float(xy.max()) / SQUARES, 1e-6)
    square = np.floor(xy / side).astype(np.int64)
    _, place, n = np.unique(square[:, 0] * 1_000_003 + square[:, 1], return_inverse=True, return_counts=True)

    def mean(values: Array) -> Array:
        total = [np.bincount(place.ravel(), values[:, i]) for i in (0, 1)]
        return np.asarray(np.column_stack(total) / n[:, None])

    centre, direction = mean(xy), mean(unit)
    half = direction * side * 0.45
    return centre - half, centre + half, np.hypot(direction[:, 0], direction[:, 1])


# -- outlines ------------------------------------------------------------------------------------------------


def outlines(section: Section, box: tuple[float, float, float, float]) -> bytes:
    """Outlines of the cells whose centres lie in a box (micrometres from the lowest x and y); none where there are too
    many (``complete`` is then false)."""
    node = _stored.at(section.file.root, "uns", _keys.OUTLINES)
    xy = section.relative
    inside = (xy[:, 0] >= box[0]) & (xy[:, 1] >= box[1]) & (xy[:, 0] <= box[2]) & (xy[:, 1] <= box[3])
    cells = np.flatnonzero(inside)
    start = np.zeros(1, dtype=np.int64) if node is None else np.asarray(node["start"][()])
    rows = cells if section.rows is None else section.rows[cells]
    size = start[rows + 1] - start[rows] if node is not None else np.zeros(len(rows), dtype=np.int64)
    complete = int(size.sum()) <= MOST_VERTICES
    cells, rows, size = (part[size > 0] if complete else part[:0] for part in (cells, rows, size))
    ends = np.concatenate([[0], np.cumsum(size)])
    vertices = [np.asarray(node["xy_um"][start[r] : start[r + 1]]) for r in rows]
    empty = np.zeros((0, 2))
    found = np.concatenate([empty, *vertices]) - np.asarray(section.bounds_um[:2])
    arrays = {"start": ends.astype(np.uint32), "cell": cells.astype(np.uint32), "xy": found.astype(np.float32)}
    return _wire.pack(arrays, complete=complete)
