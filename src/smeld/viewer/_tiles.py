"""The section's image as tiles of 256 pixels, halved at each level, from the coarsest stored resolution that
suffices."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from smeld import _check, _image, _keys
from smeld.viewer import _stored
from smeld.viewer._source import Section

TILE = 256
QUALITY = 90
#: an overview of at most so many pixels on its long side is kept: the levels above are cut from it
OVERVIEW_PX = 2048


@dataclass(frozen=True, eq=False)
class Tiles:
    """An image and its levels: pixels of level ``k`` are those of the finest one by 2**k."""

    image: _image.Image
    um_per_unit: float
    _kept: dict[int, Any]
    _lock: threading.Lock

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each level, finest first, until one tile holds it all."""
        height, width = self.image.shape
        sizes = [(width, height)]
        while max(sizes[-1]) > TILE:
            sizes.append(tuple(-(-side // 2 ** len(sizes)) for side in (width, height)))
        return sizes

    def described(self) -> dict[str, Any]:
        """What the page is told: ``um_to_px`` takes (x, y, 1) in micrometres to pixels of level 0, whose first pixel
        reaches from 0, 0 to 1, 1."""
        levels = [{"width": w, "height": h} for w, h in self.sizes]
        return {"width": levels[0]["width"], "height": levels[0]["height"], "tile": TILE, "levels": levels,
                "um_to_px": self.um_to_px()}  # fmt: skip

    def um_to_px(self) -> list[list[float]]:
        """[2, 3]; found from three points, so that a scale and a registration are alike."""
        units = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) / self.um_per_unit
        origin, right, down = self.image.place(units) + 0.5
        return [[float(right[i] - origin[i]), float(down[i] - origin[i]), float(origin[i])] for i in (0, 1)]

    def jpeg(self, level: int, column: int, row: int) -> bytes | None:
        """A tile, smaller at the right and lower edge; None where the image has none."""
        from PIL import Image as PILImage

        sizes = self.sizes
        if not 0 <= level < len(sizes):
            return None
        width, height = sizes[level]
        left, top = column * TILE, row * TILE
        if left >= width or top >= height:
            return None
        size = min(TILE, width - left), min(TILE, height - top)
        out = BytesIO()
        PILImage.fromarray(self._pixels(level, left, top, size)).save(out, "JPEG", quality=QUALITY)
        return out.getvalue()

    def _pixels(self, level: int, left: int, top: int, size: tuple[int, int]) -> Any:
        first = next(k for k, side in enumerate(self.sizes) if max(side) <= OVERVIEW_PX)
        if level < first or first == 0 == level:
            return self._read(level, left, top, size)
        if level not in self._kept:
            with self._lock:
                if level not in self._kept:
                    self._keep(first, level)
        return np.ascontiguousarray(self._kept[level][top : top + size[1], left : left + size[0]])

    def _keep(self, first: int, level: int) -> None:
        """The overview, and the levels above it down to the one that is asked for."""
        from PIL import Image as PILImage

        if first not in self._kept:
            self._kept[first] = self._read(first, 0, 0, self.sizes[first])
        for k in range(first + 1, level + 1):
            if k not in self._kept:
                before = PILImage.fromarray(self._kept[k - 1])
                self._kept[k] = np.asarray(before.resize(self.sizes[k], PILImage.Resampling.BOX))

    def _read(self, level: int, left: int, top: int, size: tuple[int, int]) -> Any:
        """A part of a level, from the image itself."""
        from PIL import Image as PILImage

        by = 2**level
        window = self.image.window(top * by, left * by, size[1] * by, size[0] * by, reduce=by)
        if window.shape[:2] == (size[1], size[0]):
            return window
        return np.asarray(PILImage.fromarray(window).resize(size, PILImage.Resampling.BOX))


def of(section: Section) -> Tiles | None:
    """The tiles of a section, None where it has no image."""
    library, facts = section.library, section.metadata
    um_per_unit = facts.get(_keys.META_UM_PER_UNIT)
    if library is None or not isinstance(um_per_unit, int | float) or not um_per_unit > 0:
        return None
    try:
        image = _of_file(facts, float(um_per_unit))
    except _check.InputError:  # the file is there and cannot be read: what is stored is shown
        image = None
    image = image or _stored_image(library, float(um_per_unit))
    return None if image is None else Tiles(image, float(um_per_unit), {}, threading.Lock())


def _of_file(facts: dict[str, Any], um_per_unit: float) -> _image.Image | None:
    from smeld import _adapt

    path = facts.get(_keys.META_IMAGE_PATH)
    elsewhere = str(path).startswith(("\\\\", "//"))  # another machine's: a result must not make this one call it
    if not path or elsewhere or not _image.is_image(Path(str(path))):
        return None
    return _adapt._image_of_file(Path(str(path)), facts, um_per_unit)


def _stored_image(library: Any, um_per_unit: float) -> _image.Image | None:
    for name in ("hires", "lowres"):
        pixels = _stored.at(library, "images", name)
        if pixels is not None:
            scale = float(_stored.mapping(_stored.at(library, "scalefactors")).get(f"tissue_{name}_scalef", 1.0))
            return _image.from_array(pixels[()], scale=scale, um_per_px=um_per_unit / scale)
    return None
