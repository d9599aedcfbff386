"""Outlines of cells in GeoJSON (RFC 7946), one polygon after the other: files of a slide have a gigabyte and more
when all of it becomes objects of Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check
from smeld.io import _delimited

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Outlines:
    """``names`` [n_vertices], the cell of each vertex, and ``xy`` [n_vertices, 2] in the unit of the file;
    ``n_repeated`` outlines of cells that had one already were left out."""

    names: NDArray[Any]
    xy: F64
    n_repeated: int = 0


def outlines(path: Path, *, name: Callable[[dict[str, Any]], str]) -> Outlines:
    """The outer rings of the polygons of a ``FeatureCollection``; ``name`` makes the cell's name of its properties.

    Of a cell in several pieces the one with most vertices counts, of outlines with the same name the first.
    """
    rings: dict[str, F64] = {}
    n_repeated = 0
    try:
        for feature in _features(path.read_text(encoding="utf-8-sig")):
            ring = _ring(feature["geometry"])
            if ring is not None:
                known = rings.setdefault(name(feature.get("properties") or {}), ring)
                n_repeated += known is not ring
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, RecursionError) as error:
        raise _check.problem(
            f"{path.name} cannot be read as outlines of cells",
            found=f"{_delimited.size_of(path)}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error
    if not rings:
        raise _check.problem(
            f"{path.name} holds no outline", found="no polygon", cure="give the file with the cells' polygons"
        )
    # one word a cell, not one a vertex
    names = np.repeat(np.asarray(list(rings), dtype=object), [len(ring) for ring in rings.values()])
    return Outlines(names, np.concatenate(list(rings.values())), n_repeated)


def _features(text: str) -> Iterator[dict[str, Any]]:
    key = text.find('"features"')
    start = text.find("[", key)
    if key < 0 or start < 0:
        raise ValueError("no list of features")
    decode, at = json.JSONDecoder().raw_decode, start + 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return
        feature, at = decode(text, at)
        yield feature


def _ring(geometry: dict[str, Any] | None) -> F64 | None:
    """The outer ring [n, 2]; None where there is no polygon."""
    if not geometry or not geometry.get("coordinates"):
        return None
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind == "MultiPolygon":
        coordinates = max(coordinates, key=lambda polygon: len(polygon[0]))
    elif kind != "Polygon":
        raise ValueError(f"a {kind} in place of a polygon")
    ring = np.array([point[:2] for point in coordinates[0]], dtype=np.float64)
    if ring.ndim != 2 or ring.shape[1] != 2 or not np.isfinite(ring).all():
        raise ValueError("vertices must be pairs of numbers")
    return ring
