"""OME-Zarr folders, versions 0.4 and 0.5, as a pyramid of chunks.

Of several channels the first is shown (three 8-bit ones are red, green and blue), of several depths the middle one.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from smeld._image_pixels import Raw, Stored, pyramid

#: files of which a zarr group has one
MARKS = (".zattrs", "zarr.json", ".zgroup")


def is_group(path: Path) -> bool:
    """True for a folder that holds a zarr group."""
    return path.is_dir() and any((path / mark).is_file() for mark in MARKS)


def levels(path: Path) -> list[Stored]:
    """The resolutions of an OME-Zarr image, finest first. Raises ``ValueError`` for what is none."""
    import zarr

    group = zarr.open_group(str(path), mode="r")
    found = _multiscales(group)
    if found is None and "0" in group:  # one image of several, as converters from microscopes write them
        group = group["0"]
        found = _multiscales(group)
    if found is None:
        raise ValueError("the folder has no multiscales metadata: it is no OME-Zarr image")
    axes = [str(a["name"] if isinstance(a, dict) else a) for a in found.get("axes", [])]
    arrays = [_array(group, str(entry["path"])) for entry in found["datasets"]]
    return pyramid([_stored(array, axes or list("tczyx")[-array.ndim :]) for array in arrays])


def _multiscales(group: Any) -> dict[str, Any] | None:
    attributes = dict(group.attrs)
    entries = dict(attributes.get("ome", attributes)).get("multiscales")
    return dict(entries[0]) if entries else None


def _array(group: Any, path: str) -> Any:
    if ".." in PurePosixPath(path).parts or path.startswith("/"):
        raise ValueError(f"the metadata name an array outside the folder: {path!r}")
    array = group[path]
    if not hasattr(array, "chunks"):
        raise ValueError(f"{path!r} is no array")
    return array


def _stored(array: Any, axes: list[str]) -> Stored:
    if len(axes) != array.ndim or not {"y", "x"} <= set(axes):
        raise ValueError(f"axes {axes} do not fit an array of {array.ndim} dimensions")
    if array.dtype.kind not in "uif":
        raise ValueError(f"pixels of type {array.dtype}")
    y, x = axes.index("y"), axes.index("x")
    shape = int(array.shape[y]), int(array.shape[x])
    chunk = min(int(array.chunks[y]), shape[0]), min(int(array.chunks[x]), shape[1])
    if min(*shape, *chunk) < 1:
        raise ValueError(f"an empty array: {array.shape}")
    return Stored(shape, chunk, partial(_chunk, array, axes, chunk))


def _chunk(array: Any, axes: list[str], chunk: tuple[int, int], row: int, column: int) -> Raw:
    """[h, w] or, of three 8-bit channels, [h, w, 3]."""
    places: list[slice | int] = []
    kept = []
    for axis, n in zip(axes, array.shape):
        if axis in "yx":
            first, size = (row, chunk[0]) if axis == "y" else (column, chunk[1])
            places.append(slice(first * size, min((first + 1) * size, n)))
            kept.append(axis)
        elif axis == "c" and array.dtype == np.uint8 and n in (3, 4):
            places.append(slice(0, 3))
            kept.append(axis)
        else:
            places.append(n // 2 if axis == "z" else 0)
    pixels = np.asarray(array[tuple(places)])
    return np.ascontiguousarray(pixels.transpose([kept.index(axis) for axis in "yxc" if axis in kept]))
