"""Arrays as they travel to the page: a short header in JSON, then the values, little-endian, 8-byte aligned."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAGIC = b"SMELD\x00\x01\x00"
DTYPES = ("float32", "uint8", "uint16", "uint32")
_STEP = 8


def pack(arrays: Mapping[str, NDArray[Any]], *, kind: str = "dense", **facts: Any) -> bytes:
    """Arrays of float32, uint8, uint16 or uint32 by name, and ``facts`` that JSON can hold, as bytes.

    The layout is: ``MAGIC``, the length of the header as uint32, the header padded with spaces so that the body begins
    at a multiple of 8 bytes, then the arrays, each at a multiple of 8 bytes from the start of the body.
    """
    parts, described, offset = [], [], 0
    for name, values in arrays.items():
        dtype = str(values.dtype)
        raw = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
        described.append({"name": name, "dtype": dtype, "shape": list(values.shape), "offset": offset})
        padded = raw + b"\x00" * (-len(raw) % _STEP)
        parts.append(padded)
        offset += len(padded)
    header = json.dumps({"kind": kind, "arrays": described, **facts}, allow_nan=False).encode()
    before = len(MAGIC) + 4
    header += b" " * (-(before + len(header)) % _STEP)
    return b"".join([MAGIC, len(header).to_bytes(4, "little"), header, *parts])


def unpack(content: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header, arrays by name) of what :func:`pack` made."""
    start = len(MAGIC) + 4
    size = int.from_bytes(content[len(MAGIC) : start], "little")
    header = json.loads(content[start : start + size])
    arrays = {}
    for array in header["arrays"]:
        dtype = np.dtype(array["dtype"]).newbyteorder("<")
        values = np.frombuffer(content, dtype, math.prod(array["shape"]), start + size + array["offset"])
        arrays[array["name"]] = values.reshape(array["shape"])
    return header, arrays


def codes(numbers: ArrayLike, n_categories: int) -> NDArray[Any]:
    """Codes of labels (-1 = none) as uint8 (255 = none) where there are at most 255 labels, else uint16 (65535)."""
    given = np.asarray(numbers)
    dtype = np.uint8 if n_categories <= np.iinfo(np.uint8).max else np.uint16
    return np.where(given < 0, np.iinfo(dtype).max, given).astype(dtype)


def values(index: NDArray[Any], found: NDArray[Any], n: int, **facts: Any) -> bytes:
    """Values at ``index`` of ``n``, the others 0: sparse where that takes fewer bytes and nothing is NaN."""
    kept = np.asarray(found, dtype=np.float32)
    if 2 * len(index) < n and not np.isnan(kept).any():
        order = np.argsort(index, kind="stable")
        return pack({"index": index[order].astype(np.uint32), "values": kept[order]}, kind="sparse", n=n, **facts)
    dense = np.zeros(n, dtype=np.float32)
    dense[index] = kept
    return pack({"values": dense}, **facts)


def to_json(content: Any) -> bytes:
    """JSON in ASCII, without numbers that JSON does not know."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")
