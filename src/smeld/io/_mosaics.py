"""A platform's own fluorescence images, which may be too large to look at and are then left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smeld import _check, _image, _keys
from smeld.io import _pictures

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld.io._platforms import ReadOptions

F64 = NDArray[np.float64]
_SIZE = re.compile(r'\bPhysicalSizeX="([^"]*)"')
_UNIT = re.compile(r'\bPhysicalSizeXUnit="([^"]*)"')
#: OME-XML's default unit is the micrometre
_IN_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "&#181;m": 1.0, "&#956;m": 1.0, "nm": 1e-3, "mm": 1e3}


def attach(
    adata: AnnData, path: Path, *, options: ReadOptions, affine: Callable[[tuple[int, int]], F64] | None = None
) -> None:
    """Attach the platform's own image, which nobody asked for: one that cannot be used, or lies elsewhere, is left out
    with a warning and does the section no harm. Mosaics of whole slides have thousands of megapixels and no reduced
    copies; crops show some of the cells. ``affine`` makes the registration of the image's size (height, width)."""
    (entry,) = adata.uns[_keys.IMAGES].values()
    try:
        size = _image.image_size(path, max_megapixels=options.max_megapixels)
        _pictures.attach(adata, entry, path, options=options, affine=None if affine is None else affine(size))
    except _check.InputError as error:
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
