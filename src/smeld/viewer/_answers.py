"""What each address of the viewer gives: the same bytes for a page that is served and for one that is exported."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from smeld import _keys
from smeld.viewer import _columns, _links, _stored, _tables, _tiles, _wire
from smeld.viewer._source import Result, Section

JSON, BINARY, JPEG = "application/json", "application/octet-stream", "image/jpeg"
#: columns of var with another name of each gene
ALSO = ("gene_symbols", "gene_symbol", "symbol", "gene_name", "gene_names", "gene_ids", "gene_id", "feature_id")


@dataclass(frozen=True)
class Answer:
    """Bytes, and what they are."""

    body: bytes
    media: str


class View:
    """What is known of one section; found out once."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self._lock = threading.Lock()

    @property
    def columns(self) -> list[_columns.Shown]:
        """Columns by which points can be coloured."""
        return self._described[0]

    @property
    def said(self) -> list[dict[str, Any]]:
        """What the page is told of them."""
        return self._described[1]

    @property
    def _described(self) -> tuple[list[_columns.Shown], list[dict[str, Any]]]:
        with self._lock:
            return self._once

    @cached_property
    def _once(self) -> tuple[list[_columns.Shown], list[dict[str, Any]]]:
        return _columns.described(self.section)

    @cached_property
    def tiles(self) -> _tiles.Tiles | None:
        """The image, None without one."""
        return _tiles.of(self.section)

    @cached_property
    def embeddings(self) -> list[str]:
        """Names of embeddings."""
        return _columns.embeddings(self.section)

    @cached_property
    def tables(self) -> list[dict[str, Any]]:
        """Tables, as they are listed."""
        return _tables.listed(self.section.file.root)

    def described(self) -> dict[str, Any]:
        """``section.json``."""
        section, root = self.section, self.section.file.root
        return {
            "name": section.name,
            "n_obs": section.n_obs,
            "unit": section.unit,
            "n_genes": section.file.genes.n_genes,
            "genes": section.file.genes.n_genes,
            "spot_um": section.spot_um,
            "bounds_um": section.bounds_um,
            "columns": self.said,
            "embeddings": [{"name": name} for name in self.embeddings],
            "tables": self.tables,
            "image": None if self.tiles is None else self.tiles.described(),
            "links": _links.listed(section),
            "default": _columns.default(self.said),
            "outlines": _stored.at(root, "uns", _keys.OUTLINES) is not None,
        }

    def genes(self) -> dict[str, Any]:
        """``genes.json``."""
        var = self.section.file.root["var"]
        also = next((name for name in ALSO if name in _stored.columns(var)), None)
        genes = self.section.file.genes
        if also is None or not genes.n_genes:
            return {"names": genes.names}
        return {"names": genes.names, "also": [*_stored.words(var[also]), *genes.names[genes.n_genes :]]}


class Answers:
    """All addresses of a result below ``api/<section>/``."""

    def __init__(self, result: Result) -> None:
        self.result = result
        self.views = [View(section) for section in result.sections]

    def get(self, address: str) -> Answer | None:
        """The answer to ``<section>/<name>``, None where there is none of the kind."""
        number, _, rest = address.partition("/")
        view = _nth(self.views, number) if number.isdecimal() else None
        if view is None:
            return None
        for pattern, make in _ADDRESSES:
            found = pattern.fullmatch(rest)
            if found:
                return make(view, *found.groups())
        return None


def _nth(items: list[Any], number: str) -> Any:
    """The item with this number, None beyond the last."""
    return items[int(number)] if len(number) < 9 and int(number) < len(items) else None


def _json(content: Any) -> Answer:
    return Answer(_wire.to_json(content), JSON)


def _binary(content: bytes | None) -> Answer | None:
    return None if content is None else Answer(content, BINARY)


def _section(view: View) -> Answer:
    return _json(view.described())


def _genes(view: View) -> Answer:
    return _json(view.genes())


def _xy(view: View) -> Answer | None:
    return _binary(_wire.pack({"values": view.section.relative}))


def _embedding(view: View, number: str) -> Answer | None:
    name = _nth(view.embeddings, number)
    return None if name is None else _binary(_wire.pack({"values": _columns.embedding(view.section, name)}))


def _column(view: View, number: str) -> Answer | None:
    column = _nth(view.columns, number)
    found = None if column is None else column.read()
    if isinstance(found, _stored.Labels):
        return _binary(_wire.pack({"values": _wire.codes(found.codes, len(found.names))}))
    return None if found is None else _binary(_wire.pack({"values": found.astype("float32")}))


def _gene(view: View, number: str) -> Answer | None:
    section = view.section
    if len(number) > 8 or int(number) >= len(section.file.genes.names):
        return None
    index, values = section.gene(int(number))
    return _binary(_wire.values(index, values, section.n_obs))


def _table(view: View, number: str) -> Answer | None:
    listed = _nth(view.tables, number)
    return None if listed is None else _json(_tables.table(view.section.file.root, listed["name"]))


def _pair(view: View, ligand: str, receptor: str) -> Answer | None:
    n = len(view.section.file.genes.names)
    if max(len(ligand), len(receptor)) > 8 or max(int(ligand), int(receptor)) >= n:
        return None
    return _binary(_links.pair(view.section, int(ligand), int(receptor)))


def _arrows(view: View, number: str) -> Answer | None:
    return None if len(number) > 8 else _binary(_links.arrows(view.section, int(number)))


def _tile(view: View, *place: str) -> Answer | None:
    if view.tiles is None or any(len(part) > 8 for part in place):
        return None
    level, column, row = (int(part) for part in place)
    body = view.tiles.jpeg(level, column, row)
    return None if body is None else Answer(body, JPEG)


def _outlines(view: View, *box: str) -> Answer | None:
    x0, y0, x1, y1 = (float(side) for side in box)
    return _binary(_links.outlines(view.section, (x0, y0, x1, y1)))


_NUMBER = r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_ADDRESSES: list[tuple[re.Pattern[str], Callable[..., Answer | None]]] = [
    (re.compile(pattern, re.ASCII), make)
    for pattern, make in (
        (r"section\.json", _section),
        (r"genes\.json", _genes),
        (r"xy\.bin", _xy),
        (r"embedding/(\d+)\.bin", _embedding),
        (r"column/(\d+)\.bin", _column),
        (r"gene/(\d+)\.bin", _gene),
        (r"table/(\d+)\.json", _table),
        (r"pair/(\d+)/(\d+)\.bin", _pair),
        (r"links/(\d+)\.bin", _arrows),
        (r"tile/(\d+)/(\d+)_(\d+)\.jpg", _tile),
        (rf"outlines/{_NUMBER}_{_NUMBER}_{_NUMBER}_{_NUMBER}\.bin", _outlines),
    )
]
