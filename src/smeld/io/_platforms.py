"""The registry of platforms, and the options that every reader receives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

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
    ``backed``: a reader that can leaves the counts on disk (``read`` puts away what the others read).
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
    backed: bool = False

    def __post_init__(self) -> None:
        for name in ("image_scale", "um_per_unit", "max_megapixels"):
            value = getattr(self, name)
            if value is not None and not (is_number(value) and value > 0):
                raise _check.problem(
                    f"{name} must be a positive number",
                    found=repr(value)[:80],
                    cure=f"give --{name.replace('_', '-')} above 0",
                )
        for name in ("resolution", "table"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise _check.problem(f"{name} must be a word", found=repr(value)[:80], cure=f"give {name}='{value}'")
        if not isinstance(self.outlines, bool):
            raise _check.problem("outlines must be True or False", found=repr(self.outlines)[:80], cure="give one")
        if self.region_um is not None:
            rectangle(self.region_um)


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(value)


def rectangle(region: Any) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 as floats, or an ``InputError`` that says what is wrong with them."""
    try:
        values = [] if isinstance(region, str) else list(region)
    except TypeError:
        values = []
    if len(values) == 4 and all(map(is_number, values)):
        x0, y0, x1, y1 = map(float, values)
        if x0 < x1 and y0 < y1:
            return x0, y0, x1, y1
    raise _check.problem(
        "region_um must be x0, y0, x1, y1 with x0 < x1 and y0 < y1",
        found=str(region)[:80],
        cure="give four numbers in micrometres, such as (0, 0, 1000, 500)",
    )


#: options that every reader heeds by itself, or that ``read`` sees to
COMMON = ("image_scale", "um_per_unit", "image", "max_megapixels", "image_alignment", "region_um", "backed")


def refuse_unused(name: str, uses: Sequence[str], options: ReadOptions) -> None:
    """Refuse an option that was given to a platform which has no use for it: it would silently do nothing."""
    for option in fields(options):
        given = getattr(options, option.name) != option.default
        if given and option.name not in (*COMMON, *uses):
            flag = f"--{option.name.replace('_', '-')} ({option.name}=)"
            raise _check.problem(
                f"the platform {name} has no use for {option.name}",
                found=f"{option.name}={getattr(options, option.name)!r}",
                cure=f"leave out {flag}",
            )
    if options.image_alignment is not None and options.image is None and "image_alignment" not in uses:
        raise _check.problem(
            "image_alignment is given, but no image that it could be of",
            found=f"alignment {options.image_alignment.name} for the platform {name}",
            cure="give the image too, with --image (image=)",
        )


#: a reader: (path, options) -> AnnData (or SpatialData) with ``obsm["spatial"]`` and ``obsm["spatial_um"]``
Reader = Callable[[Path, ReadOptions], Any]

#: platforms by name. A card's ``marks`` are glob patterns: all must be found in the folder; within one, ``|``
#: separates alternatives. ``is_file=True``: the platform is one file, which the marks name. ``looks_for``
#: says the same to a user. ``generic=True`` gives way to others that fit too. ``uses`` names the options beyond
#: ``COMMON`` that the reader heeds ("resolution", "table", "outlines"; "image_alignment" where it may be of an image
#: beside the counts); others are refused when given.
platforms: Registry[Reader] = Registry("platform", "smeld.io", "smeld.platforms")
