"""A platform's own fluorescence images, which may be too large to look at and are then left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check, _image, _keys
from smeld.io import _pictures

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld.io._platforms import ReadOptions

_SIZE = re.compile(r'\bPhysicalSizeX="([^"]*)"')
_UNIT = re.compile(r'\bPhysicalSizeXUnit="([^"]*)"')
#: an image with fewer of the cells than this is of another section, or its registration is wrong
MIN_INSIDE = 0.5
#: OME-XML's default unit is the micrometre
_IN_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "&#181;m": 1.0, "&#956;m": 1.0, "nm": 1e-3, "mm": 1e3}


def size(adata: AnnData, path: Path, options: ReadOptions) -> tuple[int, int] | None:
    """(height, width) of an image nobody asked for; None, with a warning, where it cannot be used.

    Mosaics of whole slides have thousands of megapixels and no reduced copies: no reason to refuse the section.
    """
    try:
        return _image.image_size(path, max_megapixels=options.max_megapixels)
    except _check.InputError as error:
        _check.warn(f"the platform's own image was left out: {error}", adata)
        return None


def attach(
    adata: AnnData,
    entry: dict[str, Any],
    path: Path,
    size: tuple[int, int],
    *,
    options: ReadOptions,
    affine: NDArray[np.float64] | None = None,
) -> None:
    """Attach the platform's own image of ``size`` (height, width). One that shows most of the cells but not all, as of
    a crop, is left out with a warning; one that lies elsewhere is refused."""
    try:
        _pictures.attach(adata, entry, path, options=options, affine=affine)
    except _check.InputError as error:
        xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)
        px = xy if affine is None else xy @ affine[:, :2].T + affine[:, 2]
        inside = ((px >= 0) & (px <= [size[1], size[0]])).all(axis=1).mean()
        if inside < MIN_INSIDE:
            raise
        _check.warn(f"the platform's own image was left out: {error}", adata)


def ome_um_per_px(path: Path) -> float | None:
    """Micrometres per pixel in the OME-XML of a TIFF; None where it says nothing."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            text = tif.ome_metadata or ""
        found, unit = _SIZE.search(text), _UNIT.search(text)
        um = float(found[1]) * _IN_UM[unit[1] if unit else "um"] if found else 0.0
    except (OSError, ValueError, KeyError, tifffile.TiffFileError):
        return None
    return um if 0 < um < 1e3 else None
