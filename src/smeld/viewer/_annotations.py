"""Annotations of a result: kept beside it at every change, and written into it on request and at the end.

Beside ``result.h5ad`` lies ``annotations.geojson``: the shapes, who drew them when, and which cells are in which
category. It is replaced as a whole. ``annotations.csv`` (cell, category) and the result's own column are made from it.
"""

from __future__ import annotations

import base64
import binascii
import csv
import getpass
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check
from smeld._inert import inert
from smeld._palette import palette
from smeld.viewer import _shapes, _stored, _wire
from smeld.viewer._source import RESULT, File, Result, Section

Rows = NDArray[np.uint32]

KEY = "annotations"  # in uns
SMELD = "smeld"  # the member of the GeoJSON that holds what GeoJSON has no place for


@dataclass(frozen=True)
class State:
    """Annotations of a section: ``cells`` are row numbers of the section by category; later categories win."""

    revision: int = 0
    categories: list[dict[str, str]] = field(default_factory=list)
    shapes: list[_shapes.Shape] = field(default_factory=list)
    cells: Mapping[str, Rows] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """As the page gets and sends it."""
        cells = {name: base64.b64encode(rows.astype("<u4").tobytes()).decode() for name, rows in self.cells.items()}
        return {"revision": self.revision, "categories": self.categories, "shapes": self.shapes, "cells": cells}


def now() -> str:
    """The time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def system_user() -> str:
    """The name that the system knows the user by."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "unknown"


def rows_of(value: Any, n_obs: int) -> Rows:
    """Row numbers from base64 of uint32, or from runs [start, length, ...]; sorted, each once, below ``n_obs``."""
    if isinstance(value, str):
        try:
            raw = base64.b64decode(value.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise _shapes.bad("cells must be base64") from None
        if len(raw) % 4:
            raise _shapes.bad("cells must be uint32")
        rows = np.frombuffer(raw, dtype="<u4")
    elif isinstance(value, dict):
        rows = _unrun(_shapes.listed(value.get("runs"), "runs", 2 * n_obs), n_obs)
    else:
        raise _shapes.bad("cells must be base64 or runs", type(value).__name__)
    if len(rows) and int(rows.max()) >= n_obs:
        raise _shapes.bad("there is no such cell", int(rows.max()))
    return np.unique(rows).astype(np.uint32)


def _unrun(runs: list[Any], n_obs: int) -> NDArray[Any]:
    numbers = np.array([_shapes.whole(v, "a run") for v in runs], dtype=np.int64)
    starts, sizes = numbers[::2], numbers[1::2]
    if len(starts) != len(sizes) or (numbers > n_obs).any() or sizes.sum() > n_obs or (starts + sizes > n_obs).any():
        raise _shapes.bad("the runs do not fit the cells")
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(int(sizes.sum()))


def _runs(rows: Rows) -> dict[str, list[int]]:
    """Row numbers as runs, shorter in a text."""
    first = np.flatnonzero(np.diff(rows.astype(np.int64), prepend=-2) != 1)
    sizes = np.diff(np.append(first, len(rows)))
    return {"runs": np.stack([rows[first], sizes], axis=1).ravel().tolist()}


class Books:
    """Annotations of all sections of a result."""

    def __init__(self, result: Result, column: str, author: str | None) -> None:
        _check_column(column)
        by_file = {file: Book(file, column, author or system_user()) for file in result.files}
        self.books = list(by_file.values())
        self.sections = [SectionBook(by_file[section.file], section) for section in result.sections]
        for section in self.sections:
            section.book.sections[section.section.name] = section
        if len(self.books) == 1:
            self.books[0].load()

    def close(self) -> tuple[list[str], dict[str, str]]:
        """Write what changed into the results: names of those written, and what went wrong with others."""
        written, failed = [], {}
        for book in (book for book in self.books if book.changed):
            name = book.path.name if len(self.books) == 1 else f"{book.path.parent.name}/{book.path.name}"
            try:
                book.fold()
                written.append(name)
            except (OSError, _check.InputError) as error:  # the others are written
                failed[name] = str(getattr(error, "strerror", None) or error)
        return written, failed


def _check_column(name: str) -> None:
    usable = name.replace("_", "").replace("-", "").isalnum() and name.isascii() and len(name) <= 60
    if not usable:
        cure = "give letters, digits, - and _, at most 60"
        raise _check.problem("annotations need a column with a plain name", found=name[:60], cure=cure)


class Book:
    """Annotations of a file: read when they are first asked for."""

    def __init__(self, file: File, column: str, author: str) -> None:
        if file.path is None or file.path.suffix != ".h5ad":
            cure = "save it as .h5ad: sm.write(adata, 'result.h5ad')"
            raise _check.problem("annotations are saved into .h5ad files", found="another kind of data", cure=cure)
        self.file, self.column, self.author = file, column, author
        self.path: Path = file.path
        self.lock = threading.RLock()
        self.sections: dict[str, SectionBook] = {}
        self.changed = False
        self._seen: tuple[int, ...] | None = None
        self._loaded = False

    def side(self, ending: str) -> Path:
        """A file beside the result."""
        stem = "annotations" if self.column == "annotation" else f"annotations-{self.column}"
        before = "" if self.path.name == RESULT else f"{self.path.stem}."
        found = self.path.with_name(f"{before}{stem}{ending}")
        if found.is_symlink():  # a result from elsewhere could have a file of the user's written over
            raise _check.problem(f"{found.name} is a link", cure="move it away, or put the file itself there")
        return found

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = self.side(".geojson").stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    # -- reading ---------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Read what lies beside the result, else what is in it; again if another viewer wrote it since."""
        with self.lock:
            stamp = self._stamp()
            if self._loaded and stamp == self._seen:
                return
            content = self._stored_text() if stamp is None else self.side(".geojson").read_bytes()
            if content is None:
                self._from_column()
            else:
                self._take(content)
            self._seen, self._loaded = stamp, True

    def _stored_text(self) -> bytes | None:
        node = _stored.at(self.file.root, "uns", KEY, "geojson")
        column = _stored.at(self.file.root, "uns", KEY, "column")
        same = column is not None and str(_stored.scalar(column)) == self.column
        return str(_stored.scalar(node)).encode() if node is not None and same else None

    def _take(self, content: bytes) -> None:
        try:
            given = _shapes.parsed(content)
            for name, section in self.sections.items():
                section.current = _from_geojson(given, name, section.section.n_obs)
        except (_check.InputError, KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            name = self.side(".geojson").name
            raise _check.problem(f"{name} cannot be read", found=str(error)[:120], cure="move it away") from error

    def _from_column(self) -> None:
        """A column of that name that was there before: its labels are the first annotations."""
        obs = self.file.root["obs"]
        found = _stored.shown_column(obs, self.column) if self.column in obs else None
        if not isinstance(found, _stored.Labels) or len(found.names) > _shapes.MOST_CATEGORIES:
            return
        names = [{"name": n, "color": color} for n, color in zip(found.names, palette(len(found.names)))]
        for section in self.sections.values():
            codes = section.section.taken(found).codes
            cells = {n: np.flatnonzero(codes == i).astype(np.uint32) for i, n in enumerate(found.names)}
            section.current = State(0, names, [], cells)

    # -- writing ---------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Replace the file beside the result."""
        from smeld.io._safe import replacing

        with self.lock:
            content = self.as_geojson()
            with replacing(self.side(".geojson")) as temporary:
                temporary.write_bytes(content)
            self._seen, self.changed = self._stamp(), True

    def as_geojson(self) -> bytes:
        """All sections' shapes, and in a member of our own their cells."""
        features, facts = [], {}
        for name, section in self.sections.items():
            features += section.features()
            state = section.current
            cells = {category: _runs(rows) for category, rows in state.cells.items()}
            facts[name] = {"revision": state.revision, "categories": state.categories, "cells": cells}
        return _wire.to_json({"type": "FeatureCollection", "features": features, SMELD: {"sections": facts}})

    def fold(self) -> None:
        """Write the column and the shapes into the result, and the table beside it."""
        from smeld.viewer import _fold

        with self.lock:
            codes, names, colors = self._labels()
            facts = {"geojson": self.as_geojson().decode(), "author": self.author, "time": now(), "column": self.column}
            cells = _stored.names(self.file.root["obs"])
            _fold.write(self.path, self.column, _fold.Labels(codes, names, colors, cells), KEY, facts)
            self._write_table(cells, codes, names)
            self.changed = False

    def _labels(self) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Code of every cell of the file (-1 = none), the categories of all sections, their colours."""
        colors: dict[str, str] = {}
        for section in self.sections.values():
            for category in section.current.categories:
                colors.setdefault(category["name"], category["color"])
        names = list(colors)
        codes = np.full(self.file.n_obs, -1, dtype=np.int64)
        for section in self.sections.values():
            place = np.arange(self.file.n_obs) if section.section.rows is None else section.section.rows
            for category in section.current.categories:
                rows = section.current.cells.get(category["name"])
                if rows is not None:
                    codes[place[rows]] = names.index(category["name"])
        return codes, names, list(colors.values())

    def _write_table(self, cells: list[str], codes: NDArray[np.int64], names: list[str]) -> None:
        from smeld.io._safe import replacing

        with replacing(self.side(".csv")) as temporary, temporary.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow(["cell", self.column])
            writer.writerows([inert(cells[i]), inert(names[codes[i]])] for i in np.flatnonzero(codes >= 0))


def _from_geojson(content: dict[str, Any], name: str, n_obs: int) -> State:
    facts = content[SMELD]["sections"].get(name)
    if facts is None:
        return State()
    categories = _shapes.categories(facts["categories"])
    known = {c["name"] for c in categories}
    found = []
    for entry in content["features"]:
        about = entry["properties"]
        if about["section"] == name:
            category, _, rings = _shapes.from_geojson(entry)[0]
            kept = {key: _shapes.name_of(about[key], f"a shape's {key}") for key in ("kind", "author", "time")}
            found.append({"id": str(entry["id"]), "category": category, "rings_um": rings, **kept})
    found = [{**shape, **checked} for shape, checked in zip(found, _shapes.shapes(found, known), strict=True)]
    if not set(facts["cells"]) <= known:
        raise _shapes.bad("cells must be those of the categories in the list")
    cells = {category: rows_of(rows, n_obs) for category, rows in facts["cells"].items()}
    return State(_shapes.whole(facts["revision"], "the revision"), categories, found, cells)


class SectionBook:
    """Annotations of one section: what the page asks for and sends."""

    def __init__(self, book: Book, section: Section) -> None:
        self.book, self.section = book, section
        self.current = State()

    def features(self) -> list[dict[str, Any]]:
        """Shapes as GeoJSON."""
        colors = {c["name"]: c["color"] for c in self.current.categories}
        return [_shapes.feature(s, colors[s["category"]], self.section.name) for s in self.current.shapes]

    def state(self) -> bytes:
        """``annotations.json``."""
        with self.book.lock:
            self.book.load()
            return _wire.to_json(self.current.as_json())

    def geojson(self) -> bytes:
        """``annotations.geojson``."""
        with self.book.lock:
            self.book.load()
            return _wire.to_json({"type": "FeatureCollection", "features": self.features()})

    def put(self, body: bytes) -> tuple[int, bytes]:
        """Take the page's state in place of the current one, unless that has changed since the page saw it."""
        with self.book.lock:
            self.book.load()
            given = _shapes.parsed(body)
            if _shapes.whole(given.get("revision"), "the revision") != self.current.revision:
                return 409, self.state()
            categories = _shapes.categories(given.get("categories"))
            names = [c["name"] for c in categories]
            cells = given.get("cells")
            if not isinstance(cells, dict) or not set(cells) <= set(names):
                raise _shapes.bad("cells must be an object of the categories in the list")
            rows = {name: rows_of(cells[name], self.section.n_obs) for name in names if name in cells}
            found = self._signed(_shapes.shapes(given.get("shapes"), names))
            return self._taken(State(self.current.revision + 1, categories, found, rows))

    def _taken(self, state: State) -> tuple[int, bytes]:
        """Keep a state once it is on disk."""
        before, self.current = self.current, state
        try:
            self.book.save()
        except BaseException:
            self.current = before
            raise
        return 200, _wire.to_json({"revision": state.revision, "author": self.book.author})

    def _signed(self, found: list[_shapes.Shape]) -> list[_shapes.Shape]:
        """Shapes as they were keep their author and time; new and changed ones get those of now."""
        before = {s["id"]: s for s in self.current.shapes}
        signed = []
        for shape in found:
            old = before.get(shape["id"])
            same = old is not None and all(old[key] == value for key, value in shape.items())
            who = old if same and old is not None else {"author": self.book.author, "time": now()}
            signed.append({**shape, "author": who["author"], "time": who["time"]})
        return signed

    def imported(self, body: bytes) -> tuple[int, bytes]:
        """Add shapes from GeoJSON, and the cells inside them; answers with the whole state."""
        with self.book.lock:
            self.book.load()
            read = _shapes.from_geojson(_shapes.parsed(body))
            state = self.current
            categories, cells, shapes = list(state.categories), dict(state.cells), list(state.shapes)
            colors = {name: color for name, color, _ in read}
            for name in dict.fromkeys(name for name, _, _ in read):
                if name not in {c["name"] for c in categories}:
                    color = colors[name] or palette(len(categories) + 1)[-1]
                    categories.append({"name": name, "color": color})
            ids = (f"import-{state.revision + 1}-{k + 1}" for k in range(len(read)))
            for name, _, rings in read:
                about = {"author": self.book.author, "time": now()}
                shapes.append({"id": next(ids), "category": name, "kind": "polygon", "rings_um": rings, **about})
                rows = np.flatnonzero(_shapes.inside(rings, self.section.xy_um)).astype(np.uint32)
                cells[name] = np.union1d(cells.get(name, np.zeros(0, dtype=np.uint32)), rows)
            _shapes.listed(shapes, "shapes", _shapes.MOST_SHAPES)
            _shapes.listed(categories, "categories", _shapes.MOST_CATEGORIES)
            self._taken(replace(state, revision=state.revision + 1, categories=categories, shapes=shapes, cells=cells))
            return 200, self.state()

    def fold(self) -> tuple[int, bytes]:
        """Write the annotations into the result now."""
        with self.book.lock:
            self.book.load()
            self.book.fold()
            return 200, _wire.to_json({"saved": self.book.path.name, "column": self.book.column})
