"""Elements of a SpatialData store: where cells lie, and where an image lies under them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smeld import _check

F64 = NDArray[np.float64]
#: the coordinate system that SpatialData gives an element where none is named
GLOBAL = "global"
_XY = ("x", "y")


@contextmanager
def quiet() -> Iterator[None]:
    """Without what spatialdata and its parts say about old layouts: what is read is checked by smeld."""
    logger = logging.getLogger("ome_zarr")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def systems(element: Any) -> dict[str, F64]:
    """Coordinate systems of an element by name: [3, 3], (x, y, 1) of the element's own to the system's."""
    from spatialdata.transformations import get_transformation

    found = {}
    for name, transformation in get_transformation(element, get_all=True).items():
        try:
            matrix = np.asarray(transformation.to_affine_matrix(_XY, _XY), dtype=np.float64)
        except (ValueError, NotImplementedError):  # of three dimensions, or not affine
            continue
        if np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0:
            found[str(name)] = matrix
    return found


def preferred(names: Mapping[str, F64], common: set[str]) -> str | None:
    """The coordinate system to use of those in ``common``: the global one, one equal to the element's own, the
    first."""
    usable = [name for name in names if name in common]
    same = [name for name in usable if np.array_equal(names[name], np.eye(3))]
    return GLOBAL if GLOBAL in usable else next(iter([*same, *usable]), None)


def moved(matrix: F64, xy: ArrayLike) -> F64:
    """Positions [n, 2] under an affine map [2 or 3, 3]; by hand, for sums of a matrix product depend on the machine."""
    given = np.asarray(xy, dtype=np.float64)
    x, y = given[:, 0], given[:, 1]
    (a, b, c), (d, e, f) = matrix[:2]
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)


def centroids(element: Any) -> tuple[NDArray[Any], F64]:
    """(instances, centres [n, 2]) of shapes or labels in the element's own coordinates; x, y."""
    return _of_shapes(element) if hasattr(element, "geometry") else _of_labels(finest(element))


def _of_shapes(shapes: Any) -> tuple[NDArray[Any], F64]:
    import shapely

    geometry = np.asarray(shapes.geometry.values, dtype=object)
    return np.asarray(shapes.index), np.asarray(shapely.get_coordinates(shapely.centroid(geometry)), dtype=np.float64)


def finest(raster: Any) -> Any:
    """The DataArray of an image or of labels at full resolution."""
    if hasattr(raster, "data_vars") or hasattr(raster, "children"):  # a pyramid
        return next(iter(next(iter(raster.children.values())).data_vars.values()))
    return raster


def _of_labels(labels: Any) -> tuple[NDArray[Any], F64]:
    """Block by block, for a slide's labels do not fit in memory. The centre of the first pixel is at 0.5, 0.5."""
    if labels.dims != ("y", "x"):
        raise _check.problem("labels of two dimensions are needed", found=f"dimensions {_check.listed(labels.dims)}")
    blocks = labels.data
    parts = []
    top = 0
    for i, height in enumerate(blocks.chunks[0]):
        left = 0
        for j, width in enumerate(blocks.chunks[1]):
            parts.append(_sums(np.asarray(blocks.blocks[i, j]), top, left))
            left += width
        top += height
    names, at = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
    sums = np.stack([np.bincount(at, np.concatenate([p[k] for p in parts]), len(names)) for k in (1, 2, 3)])
    xy = (sums[:2] / sums[2]).T + 0.5
    return names[names != 0], xy[names != 0]


def _sums(block: NDArray[Any], top: int, left: int) -> tuple[NDArray[Any], F64, F64, F64]:
    """(labels, sum of x, sum of y, pixels) of a block; whole numbers, so that their order does not matter."""
    names, at = np.unique(block, return_inverse=True)
    at = at.reshape(block.shape)
    n = np.bincount(at.ravel(), minlength=len(names)).astype(np.float64)
    x, y = np.zeros(len(names)), np.zeros(len(names))
    for row in range(block.shape[0]):  # row by row: no arrays of positions as large as the block
        in_row = np.bincount(at[row], minlength=len(names))
        y += in_row * float(top + row)
        x += np.bincount(at[row], weights=np.arange(left, left + block.shape[1]), minlength=len(names))
    return names, x, y, n


def outlines(shapes: Any) -> tuple[NDArray[np.intp], F64]:
    """(row of each vertex, vertices [n, 2]) of polygons; of several parts the largest, holes left out."""
    import shapely

    parts, row = shapely.get_parts(np.asarray(shapes.geometry.values, dtype=object), return_index=True)
    order = np.lexsort((-shapely.area(parts), row))
    first = order[np.r_[True, np.diff(row[order]) > 0]] if len(order) else order
    xy, of = shapely.get_coordinates(shapely.get_exterior_ring(parts[first]), return_index=True)
    return np.asarray(row[first][of], dtype=np.intp), np.asarray(xy, dtype=np.float64)


def joined(wanted: NDArray[Any], available: NDArray[Any]) -> NDArray[np.intp]:
    """For each instance its row in the element, -1 where it is not there; numbers may be stored as words."""
    import pandas as pd

    index = pd.Index(available)
    if not index.is_unique:
        raise _check.problem("instances must be unique", found=_check.listed(index[index.duplicated()].unique(), 3))
    rows = np.asarray(index.get_indexer(pd.Index(wanted)), dtype=np.intp)
    if (rows < 0).all():
        rows = np.asarray(pd.Index(available.astype(str)).get_indexer(pd.Index(wanted.astype(str))), dtype=np.intp)
    return rows
