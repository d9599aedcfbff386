"""Outlines in WKB, the binary form of geometries in GeoParquet."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
_POLYGON, _MULTIPOLYGON = 3, 6


def outline(blob: bytes) -> F64:
    """The outer ring [n, 2] of a polygon, of the largest one of several; its last vertex is not the first again.

    Raises ValueError for what is no polygon, or is cut short. Layout: OGC 06-103r4, section 8; the flags of PostGIS'
    EWKB (Z, M, SRID) are understood, and further coordinates than x and y left out.
    """
    try:
        rings, _ = _rings(memoryview(blob), 0)
    except struct.error as error:
        raise ValueError(f"a geometry of {len(blob)} bytes is cut short") from error
    if not rings:
        return np.zeros((0, 2))
    ring = max(rings, key=_area)
    closed = len(ring) > 1 and bool((ring[0] == ring[-1]).all())
    return ring[:-1] if closed else ring


def _rings(blob: memoryview, at: int) -> tuple[list[F64], int]:
    """The outer rings of the geometry that begins at byte ``at``, and the byte after it."""
    order = "<" if bytes(blob[at : at + 1]) == b"\x01" else ">"
    (code,) = struct.unpack_from(order + "I", blob, at + 1)
    at += 5 + (4 if code & 0x20000000 else 0)  # an SRID follows
    flags = bool(code & 0x80000000) + bool(code & 0x40000000)
    kind, iso = code & 0xFF if code > 0xFFFF else code % 1000, (code & 0xFFFF) // 1000
    n_axes = 2 + flags + (0, 1, 1, 2)[min(iso, 3)]
    (n_parts,) = struct.unpack_from(order + "I", blob, at)
    at += 4
    if kind == _MULTIPOLYGON:
        rings: list[F64] = []
        for _ in range(n_parts):
            part, at = _rings(blob, at)
            rings += part
        return rings, at
    if kind != _POLYGON:
        raise ValueError(f"a geometry of type {kind} is no polygon")
    outer: list[F64] = []
    for k in range(n_parts):
        (n_points,) = struct.unpack_from(order + "I", blob, at)
        end = at + 4 + 8 * n_axes * n_points
        if end > len(blob):
            raise ValueError(f"a geometry of {len(blob)} bytes is cut short")
        if k == 0:  # further rings are holes
            flat = np.frombuffer(blob, order + "f8", n_axes * n_points, at + 4)
            outer.append(flat.reshape(n_points, n_axes)[:, :2].astype(np.float64))
        at = end
    return outer, at


def _area(ring: F64) -> float:
    x, y = (ring - ring.mean(axis=0)).T
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2
