"""The registry of platforms, and the options that every reader receives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smeld import _check
from smeld._image import MAX_MEGAPIXELS
from smeld._registry import Registry


@dataclass(frozen=True)
class ReadOptions:
    """What the user may say about a section beyond its path; None means "not said".

    ``image_scale``: pixels of the image per unit of ``obsm["spatial"]``. ``um_per_unit``: micrometres per
    unit of ``obsm["spatial"]``. ``image``: an image file to use. ``image_alignment``: a file with the matrix that takes
    its pixels to the section's. ``max_megapixels``: pixel limit of images. ``resolution``: which bins or cells, of
    platforms that deliver several ("8um", "cells", "bin50"). ``table``: which table, of stores with several.
    ``outlines``: read the outlines of cells too. ``region_um``: only what lies in x0, y0, x1, y1.
    """

    image_scale: float | None = None
    um_per_unit: float | None = None
    image: Path | None = None
    max_megapixels: float = MAX_MEGAPIXELS
    image_alignment: Path | None = None
    resolution: str | None = None
    table: str | None = None
    outlines: bool = False
    region_um: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("image_scale", "um_per_unit", "max_megapixels"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise _check.problem(
                    f"{name} must be a positive number",
                    found=f"{value}",
                    cure=f"give --{name.replace('_', '-')} above 0",
                )
        region = self.region_um
        if region is not None and not (
            len(region) == 4 and all(map(math.isfinite, region)) and region[0] < region[2] and region[1] < region[3]
        ):
            raise _check.problem("region_um must be x0, y0, x1, y1 with x0 < x1 and y0 < y1", found=str(region)[:80])


#: a reader: (path, options) -> AnnData (or SpatialData) with ``obsm["spatial"]`` and ``obsm["spatial_um"]``
Reader = Callable[[Path, ReadOptions], Any]

#: platforms by name. A card's ``marks`` are glob patterns: all must be found in the folder; within one, ``|``
#: separates alternatives. ``is_file=True``: the platform is one file, which the marks name. ``looks_for``
#: says the same to a user.
platforms: Registry[Reader] = Registry("platform", "smeld.io", "smeld.platforms")
