"""Shapes that a user drew: checked as they come from outside, as GeoJSON, and which cells lie inside.

A shape is closed rings in micrometres; what lies inside an odd number of them lies inside the shape.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check

F64 = NDArray[np.float64]
Shape = dict[str, Any]

KINDS = ("lasso", "polygon", "brush")
#: what is taken at most
MOST_SHAPES, MOST_VERTICES, MOST_CATEGORIES, MOST_NAME = 5_000, 400_000, 200, 200
FARTHEST_UM = 1e9
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")


def bad(what: str, found: object = None) -> _check.InputError:
    """The line for what was sent and cannot be taken."""
    return _check.problem(what, found=None if found is None else str(found)[:80], cure="nothing was saved")


def parsed(body: bytes) -> dict[str, Any]:
    """A JSON object; numbers that are none, and depths that no annotation has, are refused."""
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError, MemoryError) as error:
        raise bad("that is no JSON", error) from None
    if not isinstance(content, dict):
        raise bad("an object is needed", f"a {type(content).__name__}")
    return content


def _no_number(name: str) -> float:
    raise bad("numbers must be finite", name)


def name_of(value: Any, what: str, most: int = MOST_NAME) -> str:
    """A text that is not empty and not too long."""
    if not isinstance(value, str) or not value.strip() or len(value) > most:
        raise bad(f"{what} must be a text of 1 to {most} characters", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad(f"{what} holds half a character") from None
    return value.replace("\x00", "\ufffd")


def listed(value: Any, what: str, most: int) -> list[Any]:
    """A list that is not too long."""
    if not isinstance(value, list) or len(value) > most:
        raise bad(f"{what} must be a list of at most {most:,}", type(value).__name__)
    return value


def categories(value: Any) -> list[dict[str, str]]:
    """Names, each once, and colours."""
    found: dict[str, dict[str, str]] = {}
    for entry in listed(value, "categories", MOST_CATEGORIES):
        if not isinstance(entry, dict):
            raise bad("a category must be an object", entry)
        name, color = name_of(entry.get("name"), "a category's name"), entry.get("color")
        if not isinstance(color, str) or not _COLOR.fullmatch(color):
            raise bad("a colour must be #RRGGBB", color)
        if name in found:
            raise bad("two categories have the same name", name)
        found[name] = {"name": name, "color": color.upper()}
    return list(found.values())


def shapes(value: Any, known: Iterable[str]) -> list[Shape]:
    """Shapes of known categories; author and time are not taken from outside."""
    names, found, n_vertices = set(known), [], 0
    for entry in listed(value, "shapes", MOST_SHAPES):
        if not isinstance(entry, dict):
            raise bad("a shape must be an object", entry)
        category = name_of(entry.get("category"), "a shape's category")
        if category not in names:
            raise bad("a shape's category is not in the list", category)
        kind = entry.get("kind")
        if kind not in KINDS:
            raise bad(f"a shape is one of {', '.join(KINDS)}", kind)
        rings = rings_of(entry.get("rings_um"))
        n_vertices += sum(len(ring) for ring in rings)
        if n_vertices > MOST_VERTICES:
            raise bad(f"at most {MOST_VERTICES:,} vertices are taken")
        found.append(
            {"id": name_of(entry.get("id"), "a shape's id"), "category": category, "kind": kind, "rings_um": rings}
        )
    if len({shape["id"] for shape in found}) < len(found):
        raise bad("two shapes have the same id")
    return found


def rings_of(value: Any) -> list[list[list[float]]]:
    """Rings of at least three vertices, not closed (the last is not the first)."""
    found = []
    for ring in listed(value, "rings", MOST_SHAPES):
        points = [_point(point) for point in listed(ring, "a ring", MOST_VERTICES)]
        if len(points) > 3 and points[0] == points[-1]:
            points.pop()
        if len(points) < 3:
            raise bad("a ring has at least three vertices", len(points))
        found.append(points)
    if not found:
        raise bad("a shape has at least one ring")
    return found


def _point(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) < 2:
        raise bad("a vertex is a pair of numbers", value)
    for part in value[:2]:
        if isinstance(part, bool) or not isinstance(part, int | float) or not abs(part) < FARTHEST_UM:
            raise bad("a vertex is a pair of numbers", part)
    return [float(value[0]), float(value[1])]


# -- inside --------------------------------------------------------------------------------------------------


def inside(rings: list[list[list[float]]], xy: F64) -> NDArray[np.bool_]:
    """Which of the points [n, 2] lie inside an odd number of the rings: how often a ray to the right meets an edge."""
    order = np.argsort(xy[:, 1], kind="stable")
    x, y = xy[order, 0], xy[order, 1]
    odd = np.zeros(len(xy), dtype=bool)
    for ring in rings:
        ends = np.asarray(ring, dtype=np.float64)
        starts = np.roll(ends, 1, axis=0)
        low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
        first, last = np.searchsorted(y, low, side="left"), np.searchsorted(y, high, side="left")
        for k in np.flatnonzero(last > first):
            here = slice(first[k], last[k])
            (x0, y0), (x1, y1) = starts[k], ends[k]
            odd[here] ^= x[here] < x0 + (y[here] - y0) * ((x1 - x0) / (y1 - y0))
    out = np.empty(len(xy), dtype=bool)
    out[order] = odd
    return out


# -- GeoJSON -------------------------------------------------------------------------------------------------


def feature(shape: Shape, color: str, section: str) -> dict[str, Any]:
    """A shape as GeoJSON, with the properties that QuPath reads, too."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "type": "Feature",
        "id": shape["id"],
        "geometry": _geometry(shape["rings_um"]),
        "properties": {
            "objectType": "annotation",
            "classification": {"name": shape["category"], "color": [red, green, blue]},
            "kind": shape["kind"],
            "author": shape["author"],
            "time": shape["time"],
            "section": section,
            "unit": "micrometre",
        },
    }


def _geometry(rings: list[list[list[float]]]) -> dict[str, Any]:
    """Outer rings with the holes that lie in them: a ring in an odd number of others is a hole."""
    closed = [[*ring, ring[0]] for ring in rings]
    first = np.asarray([ring[0] for ring in rings], dtype=np.float64)
    within = np.array([inside([ring], first) for ring in rings]).reshape(len(rings), len(rings))
    np.fill_diagonal(within, False)
    depth = within.sum(axis=0)
    outer = [k for k in range(len(rings)) if depth[k] % 2 == 0]
    polygons = {k: [closed[k]] for k in outer}
    for k in set(range(len(rings))) - set(outer):
        around = [o for o in outer if within[o, k]]
        polygons[max(around, key=lambda o: int(depth[o]))].append(closed[k])
    if len(outer) == 1:
        return {"type": "Polygon", "coordinates": polygons[outer[0]]}
    return {"type": "MultiPolygon", "coordinates": [polygons[k] for k in outer]}


def from_geojson(content: dict[str, Any]) -> list[tuple[str, str | None, list[list[list[float]]]]]:
    """(category, its colour or None, rings) of each polygon of a Feature or a FeatureCollection."""
    if content.get("type") == "Feature":
        content = {"type": "FeatureCollection", "features": [content]}
    if content.get("type") != "FeatureCollection":
        raise bad("that is no GeoJSON with features", content.get("type"))
    found, n_vertices = [], 0
    for entry in listed(content.get("features"), "features", MOST_SHAPES):
        rings = _polygon_rings(entry.get("geometry") if isinstance(entry, dict) else None)
        n_vertices += sum(len(ring) for ring in rings)
        if n_vertices > MOST_VERTICES:
            raise bad(f"at most {MOST_VERTICES:,} vertices are taken")
        found.append((*_classified(entry.get("properties")), rings))
    if not found:
        raise bad("the file holds no shape")
    return found


def _polygon_rings(geometry: Any) -> list[list[list[float]]]:
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind not in ("Polygon", "MultiPolygon"):
        raise bad("only polygons are taken", kind)
    parts = listed(geometry.get("coordinates"), "coordinates", MOST_SHAPES)
    rings = parts if kind == "Polygon" else [ring for part in parts for ring in listed(part, "a polygon", MOST_SHAPES)]
    return rings_of(rings)


def _classified(properties: Any) -> tuple[str, str | None]:
    given = properties if isinstance(properties, dict) else {}
    known = given.get("classification")
    named = known if isinstance(known, dict) else {"name": known or given.get("category") or given.get("name")}
    color = named.get("color", given.get("color"))
    if isinstance(color, list) and len(color) == 3 and all(isinstance(c, int) and 0 <= c <= 255 for c in color):
        color = "#{:02X}{:02X}{:02X}".format(*color)
    usable = isinstance(color, str) and _COLOR.fullmatch(color)
    return name_of(named.get("name") or "unnamed", "a category's name"), str(color).upper() if usable else None


def whole(value: Any, what: str) -> int:
    """A whole number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise bad(
            f"{what} must be a whole number", value if not isinstance(value, float) or math.isfinite(value) else "?"
        )
    return value
