"""Elements of an AnnData file (h5ad) by name: only what is asked for is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from smeld import _check

Array: TypeAlias = NDArray[Any]

#: text columns of more rows are left out: they are read string by string, and are names rather than labels
MOST_TEXT_ROWS = 300_000
#: labels of a column; more are names of single cells
MOST_CATEGORIES = 65_534
#: labels of a column of text that is not stored as categories
MOST_WORDS = 1_000


@dataclass(frozen=True)
class Labels:
    """A column of labels: ``codes`` int [n] (-1 = none) and ``names`` by code."""

    codes: NDArray[np.int64]
    names: list[str]


def attribute(node: Any, name: str) -> str:
    """An attribute as text; empty where there is none."""
    found = node.attrs.get(name, "")
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


def encoding(node: Any) -> str:
    """What anndata says that an element is."""
    return attribute(node, "encoding-type")


def is_group(node: Any) -> bool:
    """True for a folder of elements."""
    return not hasattr(node, "shape")


def text(node: Any) -> list[str]:
    """An array of text."""
    values = node.asstr(errors="replace")[()] if node.dtype.kind == "O" else node[()]
    return [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in np.atleast_1d(values)]


def scalar(node: Any) -> Any:
    """A single value: text, or a number."""
    value = node[()]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def is_frame(node: Any) -> bool:
    """True for a table with named columns."""
    return is_group(node) and encoding(node) == "dataframe"


def columns(frame: Any) -> list[str]:
    """Names of a table's columns, in order; the index is none."""
    order = frame.attrs.get("column-order", ())
    names = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in np.atleast_1d(order)]
    return [name for name in names if name in frame]


def index(frame: Any) -> Any:
    """The element with the names of a table's rows."""
    return frame[attribute(frame, "_index") or "_index"]


def length(frame: Any) -> int:
    """Rows of a table."""
    node = index(frame)
    return len(node["codes"] if is_group(node) and "codes" in node else node["values"] if is_group(node) else node)


def names(frame: Any) -> list[str]:
    """Names of a table's rows."""
    node = index(frame)
    return words(node)


def words(node: Any) -> list[str]:
    """Any column as text; missing is empty."""
    found = column(node)
    if isinstance(found, Labels):
        return [found.names[c] if c >= 0 else "" for c in found.codes]
    return [str(v) for v in found]


def column(node: Any) -> Labels | Array | list[str]:
    """A column of a table: labels, numbers (NaN = missing), or text."""
    kind = encoding(node)
    if kind == "categorical" or (is_group(node) and "codes" in node):
        return _categorical(node)
    if is_group(node):
        return _nullable(node, kind)
    if node.dtype.kind in "OSU" or kind == "string-array":
        return text(node)
    values = node[()]
    if values.dtype.kind == "b":
        return Labels(values.astype(np.int64), ["False", "True"])
    return np.asarray(values)


def _categorical(node: Any) -> Labels:
    stored = node["categories"]
    found = column(stored)
    named = found.names if isinstance(found, Labels) else [_said(v) for v in found]
    return Labels(np.asarray(node["codes"][()], dtype=np.int64), named)


def _said(value: Any) -> str:
    number = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if number else str(value)


def _nullable(node: Any, kind: str) -> Labels | Array | list[str]:
    missing = np.asarray(node["mask"][()], dtype=bool)
    if kind == "nullable-string-array":
        return ["" if gone else word for word, gone in zip(text(node["values"]), missing, strict=True)]
    values = node["values"][()]
    if kind == "nullable-boolean":
        return Labels(np.where(missing, -1, values.astype(np.int64)), ["False", "True"])
    return np.where(missing, np.nan, values.astype(np.float64))


def labelled(found: Labels | Array | list[str]) -> Labels | Array | None:
    """A column as it can be shown: labels or float32; None for names of single rows and for what is neither."""
    if isinstance(found, Labels):
        return found if len(found.names) <= MOST_CATEGORIES else None
    if isinstance(found, list):
        return _from_words(found)
    return found.astype(np.float32) if found.ndim == 1 and found.dtype.kind in "iuf" else None


def _from_words(found: list[str]) -> Labels | None:
    import re

    known = set(found) - {"", "nan"}
    if not known or len(known) > MOST_WORDS or (len(known) == len(found) > 2):
        return None
    # "10" follows "9"
    order = sorted(known, key=lambda word: [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", word)])
    number = {word: code for code, word in enumerate(order)}
    return Labels(np.array([number.get(word, -1) for word in found], dtype=np.int64), order)


def shown_column(frame: Any, name: str) -> Labels | Array | None:
    """A table's column as it can be shown, else None."""
    node = frame[name]
    long_text = not is_group(node) and node.dtype.kind in "OSU" and node.shape[0] > MOST_TEXT_ROWS
    return None if long_text else labelled(column(node))


def at(root: Any, *path: str) -> Any:
    """The element below these names, None where there is none."""
    for name in path:
        if root is None or not is_group(root) or name not in root:
            return None
        root = root[name]
    return root


def mapping(node: Any) -> dict[str, Any]:
    """Text and numbers of a dictionary; arrays as such."""
    out: dict[str, Any] = {}
    for name, part in ({} if node is None else dict(node)).items():
        if is_group(part):
            continue
        out[str(name)] = scalar(part) if part.shape == () else (text(part) if part.dtype.kind == "O" else part[()])
    return out


def open_file(path: Any) -> Any:
    """An h5ad file, to be read."""
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise _check.problem(
            f"{path.name} cannot be read",
            found=str(error)[:120],
            cure="give a result.h5ad, or its folder",
        ) from error


def from_memory(parts: Mapping[str, Any]) -> Any:
    """A file in memory that holds these elements (of an AnnData): the one way of reading then serves both."""
    import secrets

    import h5py
    from anndata.io import write_elem

    root = h5py.File(secrets.token_hex(8), "w", driver="core", backing_store=False)
    for name, part in parts.items():
        if not isinstance(part, Mapping) or hasattr(part, "columns"):
            write_elem(root, name, part)
            continue
        group = root.require_group(name)
        for key, value in part.items():
            try:
                write_elem(group, str(key).replace("/", "_"), value)
            except Exception:  # noqa: BLE001  what cannot be stored cannot be shown; the rest can
                group.pop(str(key).replace("/", "_"), None)
    return root
