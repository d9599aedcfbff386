"""Images of a section: do they fit the coordinates, what is stored as a preview, what is read from the file
later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check, _image, _keys

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld.io._platforms import ReadOptions

F64 = NDArray[np.float64]

#: long side of the stored preview, as Space Ranger's hires image
PREVIEW_PX = 2000
#: up to this share of spots may lie outside the image (tissue at the border of a crop)
MAX_OUTSIDE = 0.01
#: spots that fill less than this share of the image's width and of its height are taken as a wrong scale
MIN_FILLED = 0.1


def attach(adata: AnnData, entry: dict[str, Any], path: Path, *, options: ReadOptions) -> None:
    """Add an image file to ``uns["spatial"][library]``: a preview where none is stored, the path where it is
    finer.

    Its scale is ``options.image_scale``, or 1 (pixels are the unit of the coordinates) if the spots then fit.
    """
    height, width = _image.image_size(path, max_megapixels=options.max_megapixels)
    scale = options.image_scale or 1.0
    _check_fit(adata, (height, width), scale=scale, name=path.name, said=options.image_scale is not None)
    stored = [float(entry["scalefactors"][f"tissue_{k}_scalef"]) for k in entry["images"]]
    preview_scale = max(stored, default=0.0)
    if "hires" not in entry["images"] and preview_scale < scale:
        preview = _image.preview(path, longest=PREVIEW_PX, max_megapixels=options.max_megapixels)
        preview_scale = scale * max(preview.shape[:2]) / max(height, width)
        entry["images"]["hires"] = preview
        entry["scalefactors"]["tissue_hires_scalef"] = preview_scale
    if scale > preview_scale * (1 + 1e-9):
        meta = entry["metadata"]
        meta[_keys.META_IMAGE_PATH] = str(path.resolve())
        meta[_keys.META_IMAGE_SCALE] = float(scale)
        meta[_keys.META_MAX_MEGAPIXELS] = float(options.max_megapixels)


def store(adata: AnnData, entry: dict[str, Any], files: Mapping[str, Path], *, options: ReadOptions) -> None:
    """Load Space Ranger's hires and lowres images; their scales are those of the scale factors."""
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]
    for key, path in files.items():
        pixels = _image.load(path, max_megapixels=options.max_megapixels)
        scale = float(entry["scalefactors"][f"tissue_{key}_scalef"])
        cure = (
            f"check tissue_{key}_scalef in scalefactors_json.json, or remove the image and give the right one"
            " with --image (image=) and --image-scale (image_scale=)"
        )
        _check_outside(adata, xy * scale, pixels.shape[:2], name=path.name, cure=cure)
        entry["images"][key] = pixels


def check_factors(factors: Mapping[str, Any], needed: tuple[str, ...], *, where: str) -> dict[str, float]:
    """Scale factors as positive numbers; every ``needed`` one must be there, others (not numbers) are left
    out."""
    checked = {}
    for key in sorted({*factors, *needed}):
        if key not in factors:
            raise _check.problem(
                f"{key} is missing in {where}",
                found=_check.listed(factors),
                cure="copy Space Ranger's own file, or remove the image",
            )
        wanted = key in needed or key.endswith(("_scalef", "_fullres"))
        if wanted:
            checked[key] = _positive(factors[key], key, where)
    return checked


def _positive(value: Any, key: str, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise _check.problem(
            f"{key} in {where} must be a positive number",
            found=repr(value)[:40],
            cure="copy Space Ranger's own file",
        )
    return number


def _check_fit(adata: AnnData, size: tuple[int, int], *, scale: float, name: str, said: bool) -> None:
    """Refuse an image that spots do not lie on, or whose scale was not said and is most unlikely to be 1."""
    height, width = size
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]
    at_most = min(size[1] / max(xy[:, 0].max(), 1e-9), size[0] / max(xy[:, 1].max(), 1e-9))
    cure = (
        f"give --image-scale (image_scale=), pixels of this image per unit of the coordinates: its width,"
        f" {width}, divided by the width of the image in which the coordinates were measured (at most"
        f" {at_most:.4g} here)"
    )
    _check_outside(adata, xy * scale, size, name=name, cure=cure)
    filled = np.ptp(xy, axis=0) * scale / np.array([width, height])
    if not said and filled.max() < MIN_FILLED:
        raise _check.problem(
            f"the scale of image {name} is not known",
            found=f"the spots fill only {filled[0]:.1%} of its width and {filled[1]:.1%} of its height",
            cure=cure + ", or --image-scale 1 if it is right as it is",
        )


def _check_outside(adata: AnnData, px: F64, size: tuple[int, ...], *, name: str, cure: str) -> None:
    height, width = size[:2]
    outside = (px < 0).any(axis=1) | (px[:, 0] > width) | (px[:, 1] > height)
    if outside.mean() > MAX_OUTSIDE:
        raise _check.problem(
            f"image {name} is smaller than the coordinates",
            found=f"{int(outside.sum())} of {len(px)} spots outside its {width} x {height} pixels (x"
            f" {px[:, 0].min():.0f} to {px[:, 0].max():.0f}, y {px[:, 1].min():.0f} to {px[:, 1].max():.0f})",
            cure=cure,
        )
    if outside.any():
        _check.warn(f"{int(outside.sum())} spots lie outside the image {name}", adata)
