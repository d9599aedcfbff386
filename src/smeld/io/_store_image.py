"""An image inside a SpatialData store, registered under the cells of a table and read where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _image, _keys
from smeld.io import _elements, _pictures
from smeld.io._platforms import ReadOptions

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
#: a map is a mere scale if its other numbers are below this share of it; shifts below a pixel are none
_NEGLIGIBLE = 1e-6


def forget_missing(adata: AnnData) -> None:
    """Drop the path of an image that is gone: the store has its own."""
    found = _adapt.library(adata)
    meta = found[1].get("metadata", {}) if found else {}
    if not _image.is_image(Path(str(meta.get(_keys.META_IMAGE_PATH, "")))):
        for key in (_keys.META_IMAGE_PATH, _keys.META_IMAGE_SCALE, _keys.META_IMAGE_AFFINE):
            meta.pop(key, None)


def attach(
    adata: AnnData, sdata: Any, path: Path, regions: Sequence[tuple[dict[str, F64], F64]], options: ReadOptions
) -> None:
    """Register the best image of the store at ``path`` that lies under the cells, if there is any.

    ``regions``: of each element that the table describes its coordinate systems, and the map [3, 3] from its own
    coordinates to those of ``obsm["spatial"]``.
    """
    found = _adapt.library(adata)
    if found is None or _keys.META_IMAGE_PATH in found[1]["metadata"]:
        return
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]
    fitting = []
    for name in sdata.images:
        pixels = _elements.finest(sdata.images[name])
        to_pixels = _to_pixels(_elements.systems(sdata.images[name]), regions)
        if to_pixels is not None and _lies_under(to_pixels, xy, pixels.sizes):
            colour = pixels.dtype == np.uint8 and pixels.sizes.get("c") in (3, 4)
            fitting.append((colour, pixels.sizes["y"] * pixels.sizes["x"], str(name), to_pixels))
    if not fitting:
        if len(sdata.images):
            _check.warn(f"no image of the store lies under the cells ({_check.listed(sdata.images)})", adata)
        return
    _, _, name, to_pixels = max(fitting, key=lambda one: one[:3])
    folder = path / "images" / name
    scale = _plain_scale(to_pixels)
    if scale is not None:
        _pictures.attach(adata, found[1], folder, options=replace(options, image_scale=scale))
    else:
        _pictures.attach(adata, found[1], folder, options=replace(options, image_scale=None), affine=to_pixels)


def _to_pixels(systems: dict[str, F64], regions: Sequence[tuple[dict[str, F64], F64]]) -> F64 | None:
    """[2, 3] from ``obsm["spatial"]`` to pixels of an image, whose first one has its centre at 0, 0; None where it
    shares no coordinate system with the cells, or lies under each region in another way."""
    found = []
    for known, frame in regions:
        shared = _elements.preferred(known, set(systems))
        if shared is None:
            return None
        found.append(np.linalg.inv(systems[shared]) @ known[shared] @ np.linalg.inv(frame))
    same = all(np.allclose(matrix, found[0], rtol=1e-9, atol=1e-6) for matrix in found)
    return found[0][:2] - [[0, 0, 0.5], [0, 0, 0.5]] if same else None


def _lies_under(to_pixels: F64, xy: F64, sizes: Any) -> bool:
    px = _elements.moved(to_pixels, xy)
    inside = (px >= -0.5).all(axis=1) & (px[:, 0] <= sizes["x"]) & (px[:, 1] <= sizes["y"])
    return float(inside.mean()) >= 1 - _pictures.MAX_OUTSIDE


def _plain_scale(to_pixels: F64) -> float | None:
    (a, b, c), (d, e, f) = to_pixels
    small = _NEGLIGIBLE * abs(a)
    plain = a > 0 and max(abs(a - e), abs(b), abs(d)) <= small and max(abs(c), abs(f)) < 1
    return float(a) if plain else None
