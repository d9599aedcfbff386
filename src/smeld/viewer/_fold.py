"""Annotations into an h5ad: a copy gets the column and the shapes and takes the file's place; all else stays."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import __version__, _check, _keys
from smeld.viewer import _stored


@dataclass(frozen=True)
class Labels:
    """Code of every cell (-1 = none), the categories, and their colours; names of the cells."""

    codes: NDArray[np.int64]
    names: list[str]
    colors: list[str]
    cells: list[str]


def write(path: Path, column: str, labels: Labels, key: str, facts: Mapping[str, str]) -> None:
    """Write ``obs[column]``, its colours, ``uns[key]`` and the record into an h5ad file.

    The file is copied, the copy changed, flushed and read back, and then renamed over the file: killed at any moment,
    the old or the new is there, whole. No other element is written again.
    """
    from smeld.io._safe import replacing

    with replacing(path, check=partial(_verify, column=column, labels=labels, key=key)) as temporary:
        shutil.copyfile(path, temporary)
        shutil.copymode(path, temporary)
        _change(temporary, column, labels, key, facts)


def _change(path: Path, column: str, labels: Labels, key: str, facts: Mapping[str, str]) -> None:
    import h5py

    with h5py.File(path, "r+") as root:
        obs, uns = root["obs"], root["uns"]
        if _stored.length(obs) != len(labels.codes) or _stored.names(obs) != labels.cells:
            raise _changed()
        _put(obs, column, labels)
        order = [*(name for name in _stored.columns(obs) if name != column), column]
        obs.attrs["column-order"] = np.asarray(order, dtype=h5py.string_dtype())
        _put(uns, f"{column}_colors", labels.colors)
        _put(uns, key, facts)
        made = {"function": "smeld view", "params": {"author": facts["author"]}, "seed": "none"}
        if _keys.RECORD not in uns:
            _put(uns, _keys.RECORD, {})
        _put(uns[_keys.RECORD], column, {**made, "version": __version__, "inputs": {}})


def _put(group: Any, name: str, value: Any) -> None:
    """An element as anndata writes it (importing anndata takes seconds, at the moment of Ctrl-C): labels, a list of
    text, text, or a dictionary of these."""
    import h5py

    if name in group:
        del group[name]
    if isinstance(value, Labels):
        made = _marked(group.create_group(name), "categorical")
        made.attrs["ordered"] = False
        codes = value.codes.astype(np.int8 if len(value.names) < 128 else np.int16)
        _marked(made.create_dataset("codes", data=codes, compression="gzip", compression_opts=1), "array")
        _put(made, "categories", value.names)
    elif isinstance(value, Mapping):
        made = _marked(group.create_group(name), "dict", "0.1.0")
        for inner, part in value.items():
            _put(made, inner, part)
    elif isinstance(value, str):
        _marked(group.create_dataset(name, data=value, dtype=h5py.string_dtype()), "string")
    else:
        words = np.asarray(value, dtype=object)
        _marked(group.create_dataset(name, data=words, dtype=h5py.string_dtype()), "string-array")


def _marked(node: Any, kind: str, version: str = "0.2.0") -> Any:
    node.attrs["encoding-type"] = kind
    node.attrs["encoding-version"] = version
    return node


def _changed() -> _check.InputError:
    return _check.problem(
        "the result is not the file that was opened",
        found="other cells",
        cure="open it again; the annotations lie beside it",
    )


def _verify(path: Path, *, column: str, labels: Labels, key: str) -> None:
    """Reopen what was written and compare it with what should be there."""
    from smeld.io._write import _require_same

    with _stored.open_file(path) as root:
        found = _stored.column(root["obs"][column])
        same = isinstance(found, _stored.Labels) and found.names == labels.names and key in root["uns"]
        _require_same(bool(same and np.array_equal(found.codes, labels.codes)), path)  # type: ignore[union-attr]
