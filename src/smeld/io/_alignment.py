"""The registration of an image that a platform ships or a user made: a matrix in a small file.

Xenium Explorer writes a CSV of three rows of three numbers. It takes (x, y, 1) in pixels of the added image (such as an
H&E scan) at full resolution to pixels of the section's own image; those times ``pixel_size`` of ``experiment.xenium``
(0.2125 um) are the micrometres of cells and transcripts. Source: 10x Genomics knowledge base, "How can I convert
coordinates between H&E image and Xenium data?".
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check

F64 = NDArray[np.float64]

#: Xenium's own images: micrometres per pixel
XENIUM_UM_PER_PX = 0.2125
#: an alignment file holds a dozen numbers
MAX_BYTES = 1_000_000
#: pixels of microscopes lie between 0.02 and 20 um: two images differ by no more than this
MAX_SCALE = 1000.0
#: the two axes may be stretched unlike each other by this factor at most
MAX_STRETCH = 2.0
_CURE = (
    "give the CSV that Xenium Explorer exports (3 x 3 numbers, image pixels to the section's pixels), or a .json of"
    " the same as nested lists"
)


def read(path: Path) -> F64:
    """The matrix [3, 3] of a ``.csv`` or ``.json`` (2 x 3 is completed): (x, y, 1) in pixels of the image to (x, y, 1)
    in pixels of the section. Refused: what is no invertible affine map of a plausible scale."""
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise _problem(path.name, f"{path.stat().st_size} bytes")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _json(text) if path.suffix.lower() == ".json" else _table(text)
        matrix = np.array(rows, dtype=np.float64)
    except FileNotFoundError:
        raise _check.problem(f"alignment {path} is missing", cure="give the path of an existing file") from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _problem(path.name, str(error)[:120]) from error
    return checked(matrix, name=path.name)


def _table(text: str) -> list[list[float]]:
    """Rows of numbers between commas, semicolons or blanks (Vizgen's matrix from micrometres to pixels)."""
    rows = [line.replace(",", " ").replace(";", " ").split() for line in text.splitlines()]
    rows = [row for row in rows if row]
    if len(rows) == 4:  # a line of names first
        rows = rows[1:]
    return [[float(cell) for cell in row] for row in rows]


def _json(text: str) -> Any:
    found = json.loads(text)
    if isinstance(found, dict):
        named = [v for k, v in found.items() if k.lower() in ("matrix", "affine", "transform", "transformation")]
        return named[0] if len(named) == 1 else []
    return found


def checked(matrix: F64, *, name: str) -> F64:
    """``matrix`` [2, 3] or [3, 3] as float64 [3, 3], or an ``InputError`` that says what is wrong with it."""
    if matrix.shape == (2, 3):
        matrix = np.vstack([matrix, [0.0, 0.0, 1.0]])
    if matrix.shape != (3, 3):
        raise _problem(name, f"an array of shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise _problem(name, "NaN or infinite numbers")
    if not np.allclose(matrix[2], [0, 0, 1], rtol=0, atol=1e-9):
        raise _problem(name, f"last row {matrix[2].tolist()} in place of 0, 0, 1")
    low, high = _stretches(matrix)
    if low < 1e-12 * max(high, 1.0):
        raise _problem(name, "a matrix without an inverse")
    if not (low >= 1 / MAX_SCALE and high <= MAX_SCALE and high <= MAX_STRETCH * low):
        raise _problem(name, f"scales of {low:.3g} and {high:.3g} along its two axes")
    return matrix


def _stretches(matrix: F64) -> tuple[float, float]:
    """The smallest and the largest factor by which lengths change."""
    (a, b), (c, d) = matrix[:2, :2]
    half = math.hypot(a + d, c - b) / 2, math.hypot(a - d, c + b) / 2
    return abs(half[0] - half[1]), half[0] + half[1]


def to_image(matrix: F64, units_per_px: float) -> F64:
    """[2, 3]: (x, y, 1) in units of ``obsm["spatial"]`` to pixels (x, y) of the image.

    ``matrix`` is what ``read`` gives; ``units_per_px`` the size of the section's own pixels in those units, on Xenium
    ``XENIUM_UM_PER_PX`` where positions are micrometres, 1 where they are pixels.
    """
    inverse = np.linalg.inv(matrix)
    inverse[:, :2] /= units_per_px
    return np.ascontiguousarray(inverse[:2])


def _problem(name: str, found: str) -> _check.InputError:
    return _check.problem(f"alignment {name} is no affine matrix", found=found, cure=_CURE)
