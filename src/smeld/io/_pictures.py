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
from smeld.io import _alignment

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld.io._platforms import ReadOptions

F64 = NDArray[np.float64]

#: long side of the stored preview, as Space Ranger's hires image
PREVIEW_PX = 2000
#: a registered preview reaches this share of the section's size beyond the last spot
FRAME_MARGIN = 0.1
#: an image with a darker median is fluorescence: what lies around it is shown black
DARK_LEVEL = 60
#: up to this share of spots may lie outside the image (tissue at the border of a crop)
MAX_OUTSIDE = 0.01
#: cells whose centres lie this little beyond a registered image are cut by its border, not elsewhere (micrometres)
BORDER_UM = 15.0
#: spots that fill less than this share of the image's width and of its height are taken as a wrong scale
MIN_FILLED = 0.1


def attach(
    adata: AnnData, entry: dict[str, Any], path: Path, *, options: ReadOptions, affine: F64 | None = None
) -> None:
    """Add an image to ``uns["spatial"][library]``: a preview where none is stored, the path where it is finer.

    Its scale is ``options.image_scale``, or 1 (pixels are the unit of the coordinates) if the spots then fit. Of the
    user's own image without ``affine``, ``options.image_alignment`` takes pixels to units of ``obsm["spatial"]``. With
    ``affine`` [2, 3], which takes (x, y, 1) in units of ``obsm["spatial"]`` to pixels of the image (see
    ``_alignment.to_image``), the preview is the image brought into the frame of the coordinates, so that it has a scale
    like any other; tiles are cut from the image as it is.
    """
    if affine is None and options.image_alignment is not None and path == options.image:
        affine = _alignment.to_image(_alignment.read(options.image_alignment), 1.0)
    path = _image.image_file(path)
    height, width = _image.image_size(path, max_megapixels=options.max_megapixels)
    if affine is None:
        scale = options.image_scale or 1.0
        _check_fit(adata, (height, width), scale=scale, name=path.name, said=options.image_scale is not None)
    else:
        scale = _check_registered(adata, (height, width), affine, path.name, options)
    stored = [float(entry["scalefactors"][f"tissue_{k}_scalef"]) for k in entry["images"]]
    preview_scale = max(stored, default=0.0)
    if "hires" not in entry["images"] and preview_scale < scale:
        if affine is None:
            preview = _image.preview(path, longest=PREVIEW_PX, max_megapixels=options.max_megapixels)
            preview_scale = scale * max(preview.shape[:2]) / max(height, width)
        else:
            preview, preview_scale = _in_frame(adata, path, affine, scale, options.max_megapixels)
        entry["images"]["hires"] = preview
        entry["scalefactors"]["tissue_hires_scalef"] = preview_scale
    if affine is not None or scale > preview_scale * (1 + 1e-9):
        meta = entry["metadata"]
        meta[_keys.META_IMAGE_PATH] = str(path.resolve())
        meta[_keys.META_IMAGE_SCALE] = float(scale)
        meta[_keys.META_MAX_MEGAPIXELS] = float(options.max_megapixels)
        if affine is not None:
            meta[_keys.META_IMAGE_AFFINE] = np.asarray(affine, dtype=np.float64)


def attach_given(adata: AnnData, options: ReadOptions) -> None:
    """Add the image that the user gave, if any, to the one section of ``adata``."""
    if options.image is not None:
        (entry,) = adata.uns[_keys.IMAGES].values()
        attach(adata, entry, options.image, options=options)


def _check_registered(adata: AnnData, size: tuple[int, int], affine: F64, name: str, options: ReadOptions) -> float:
    """Pixels of a registered image per unit of the coordinates; refused where the spots do not lie on it."""
    if options.image_scale is not None:
        raise _check.problem(
            f"image {name} has both a scale and an alignment",
            found=f"image_scale {options.image_scale:g} and a matrix",
            cure="leave out --image-scale (image_scale=)",
        )
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]
    cure = (
        "give the alignment of this image, from its pixels at full resolution to those of the section, with"
        " --image-alignment (image_alignment=)"
    )
    scale = math.sqrt(abs(affine[0, 0] * affine[1, 1] - affine[0, 1] * affine[1, 0]))
    place = _image.Image(size, scale, math.nan, _nothing, affine=affine).place
    um_per_unit = float(
        np.ptp(adata.obsm[_keys.SPATIAL_UM], axis=0).max() / max(float(np.ptp(xy, axis=0).max()), 1e-12)
    )
    margin_px = BORDER_UM * scale / um_per_unit if um_per_unit > 0 else 0.0
    _check_outside(
        adata, place(xy), size, name=name, cure=cure, problem="does not lie under the coordinates", margin_px=margin_px
    )
    n_negative = int((xy < 0).any(axis=1).sum())
    if n_negative:
        _check.warn(f"{n_negative} spots have negative coordinates: the preview of {name} does not show them", adata)
    return scale


def _nothing() -> NDArray[np.uint8]:
    return np.zeros((0, 0, 3), dtype=np.uint8)


def _in_frame(
    adata: AnnData, path: Path, affine: F64, scale: float, max_megapixels: float
) -> tuple[NDArray[np.uint8], float]:
    """(the image in the frame of the coordinates, from their origin to beyond the last spot; its pixels per unit)."""
    from skimage.transform import warp

    height, width = _image.image_size(path, max_megapixels=max_megapixels)
    xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]
    end = xy.max(axis=0) + FRAME_MARGIN * np.ptp(xy, axis=0).max()
    out_scale = min(scale, PREVIEW_PX / float(end.max()))
    size = [max(1, round(float(n) * out_scale)) for n in end]
    longest = max(1, math.ceil(max(height, width) * out_scale / scale))
    pixels = _image.preview(path, longest=longest, max_megapixels=max_megapixels)
    # output pixel -> units -> pixel of the file -> pixel of its reduced copy; centres lie at whole numbers
    by = np.array([pixels.shape[1] / width, pixels.shape[0] / height])
    to_copy = np.vstack([affine * by[:, None], [0.0, 0.0, 1.0]])
    to_copy[:2, 2] += (by - 1) / 2
    to_copy[:, :2] /= out_scale
    dark = np.median(pixels) < DARK_LEVEL
    made = warp(pixels, to_copy, output_shape=(size[1], size[0]), order=1, cval=0 if dark else 255, preserve_range=True)
    return np.asarray(made).round().clip(0, 255).astype(np.uint8), out_scale


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


def _check_outside(
    adata: AnnData,
    px: F64,
    size: tuple[int, ...],
    *,
    name: str,
    cure: str,
    problem: str = "is smaller than the coordinates",
    margin_px: float = 0.0,
) -> None:
    height, width = size[:2]
    outside = (px < -margin_px).any(axis=1) | (px > np.array([width, height]) + margin_px).any(axis=1)
    if outside.mean() > MAX_OUTSIDE:
        raise _check.problem(
            f"image {name} {problem}",
            found=f"{int(outside.sum())} of {len(px)} spots outside its {width} x {height} pixels (x"
            f" {px[:, 0].min():.0f} to {px[:, 0].max():.0f}, y {px[:, 1].min():.0f} to {px[:, 1].max():.0f})",
            cure=cure,
        )
    if outside.any():
        _check.warn(f"{int(outside.sum())} spots lie outside the image {name}", adata)
