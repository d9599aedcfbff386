"""Micrometres from the spots' lattice: how many micrometres a pixel is, from where lattice positions lie in
pixels.

Spots are printed at a known pitch, so pixel = A @ lattice_um + t holds for a 2 x 2 matrix A (turned, flipped
or transposed images included); 1 / sqrt(|det A|) is the size of a pixel. ``spot_diameter_fullres`` is not
used: it stands for 55 um in some files and for 65 um in others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smeld import _check

F64 = NDArray[np.float64]

#: 10x Genomics: centres of neighbouring Visium spots are 100 um apart, spots 55 um wide
VISIUM_PITCH_UM = 100.0
VISIUM_SPOT_UM = 55.0
#: Stahl et al. 2016: 200 um between centres, spots 100 um wide
LEGACY_PITCH_UM = 200.0
LEGACY_SPOT_UM = 100.0
#: the two axes of an image may differ by this share before the user is told (real sections: 0.2-0.9 %)
MAX_ANISOTROPY = 0.02
#: a user's scale may differ from the lattice's by this share before the user is told
MAX_SCALE_DIFFERENCE = 0.05


@dataclass(frozen=True)
class LatticeFit:
    """``um_per_unit``: micrometres per pixel; ``anisotropy``: longer over shorter axis, minus 1; ``rms_um``:
    misfit of the spots that fit (micrometres); ``n_outliers``: spots that lie elsewhere than their lattice
    position says."""

    um_per_unit: float
    anisotropy: float
    rms_um: float
    n_outliers: int


def hexagonal_um(array_row: ArrayLike, array_col: ArrayLike) -> F64:
    """Visium lattice positions in micrometres, [n, 2]: columns count half pitches, rows are sqrt(3)/2 pitches
    apart."""
    row, col = np.asarray(array_row, dtype=np.float64), np.asarray(array_col, dtype=np.float64)
    return np.column_stack([col * VISIUM_PITCH_UM / 2, row * VISIUM_PITCH_UM * np.sqrt(3) / 2])


def square_um(x: ArrayLike, y: ArrayLike, pitch_um: float = LEGACY_PITCH_UM) -> F64:
    """Square lattice positions in micrometres, [n, 2]."""
    return np.column_stack([np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)]) * pitch_um


def fit(lattice_um: F64, pixels: F64) -> LatticeFit:
    """Regress pixels [n, 2] on lattice positions [n, 2] (micrometres), robustly against misplaced spots.

    Least absolute deviations by iteratively reweighted least squares (Schlossmacher 1973), then least squares
    on the spots within five robust standard deviations. The result does not depend on the order of spots.
    """
    lattice_um, pixels = _ordered(lattice_um, pixels)
    if len(pixels) < 2 or np.ptp(lattice_um, axis=0).max() == 0 or np.ptp(pixels, axis=0).max() == 0:
        raise _check.problem(
            "micrometres cannot be taken from the lattice",
            found=f"{len(pixels)} spots, all at one place" if len(pixels) else "no spot with finite coordinates",
            cure="give --um-per-unit (um_per_unit=), or the whole positions file",
        )
    design = np.column_stack([lattice_um - lattice_um.mean(axis=0), np.ones(len(pixels))])
    if np.linalg.matrix_rank(design) < 3:
        return _fit_line(lattice_um, pixels)
    keep = _inliers(design, pixels)
    if np.linalg.matrix_rank(design[keep]) < 3:
        keep[:] = True
    coefficients = np.linalg.lstsq(design[keep], pixels[keep], rcond=None)[0]
    long, short = np.linalg.svd(coefficients[:2], compute_uv=False)
    if short <= 1e-9 * long:
        return _fit_line(lattice_um, pixels)
    um = 1.0 / float(np.sqrt(long * short))
    residual = (pixels - design @ coefficients)[keep]
    rms = float(np.sqrt((residual**2).sum(axis=1).mean())) * um
    return LatticeFit(um, float(long / short - 1), rms, int((~keep).sum()))


def _ordered(lattice_um: F64, pixels: F64) -> tuple[F64, F64]:
    """Finite rows in one canonical order, so that sums do not depend on the order of the file."""
    finite = np.isfinite(lattice_um).all(axis=1) & np.isfinite(pixels).all(axis=1)
    lattice_um, pixels = lattice_um[finite], pixels[finite]
    order = np.lexsort((pixels[:, 1], pixels[:, 0], lattice_um[:, 1], lattice_um[:, 0]))
    return lattice_um[order], pixels[order]


def _inliers(design: F64, pixels: F64, n_iterations: int = 30) -> NDArray[np.bool_]:
    size = np.ones(len(pixels))
    floor = 1e-6 * float(np.ptp(pixels))
    for _ in range(n_iterations):
        root = np.sqrt(1.0 / np.maximum(size, floor))[:, None]
        coefficients = np.linalg.lstsq(design * root, pixels * root, rcond=None)[0]
        size = np.linalg.norm(pixels - design @ coefficients, axis=1)
    # a tenth of the pitch is never an outlier: legacy spots are located by hand, Space Ranger's are rounded
    pitch = float(np.linalg.norm(coefficients[:2])) * VISIUM_PITCH_UM / np.sqrt(2)
    near: NDArray[np.bool_] = size <= max(5 * 1.4826 * float(np.median(size)), pitch / 10)
    return near


def _fit_line(lattice_um: F64, pixels: F64) -> LatticeFit:
    """One row of spots fixes one direction only: the ratio of spreads, the other axis taken as equal."""
    spread = [float(np.sqrt(((a - a.mean(axis=0)) ** 2).sum())) for a in (lattice_um, pixels)]
    return LatticeFit(spread[0] / spread[1], 0.0, 0.0, 0)


def choose(found: LatticeFit, said: float | None) -> tuple[float, list[str]]:
    """Micrometres per pixel, the user's word before the lattice's, and what the user should be told about the
    fit."""
    messages = []
    if found.anisotropy > MAX_ANISOTROPY:
        messages.append(
            f"the two axes of the spot lattice differ by {found.anisotropy:.1%} in pixels: the image may be"
            " stretched, or rows and columns exchanged; one mean scale is used"
        )
    if found.n_outliers:
        messages.append(
            f"{found.n_outliers} spots do not lie where their lattice position says; the scale was taken from"
            " the others"
        )
    if said is None:
        return found.um_per_unit, messages
    if abs(said / found.um_per_unit - 1) > MAX_SCALE_DIFFERENCE:
        messages.append(
            f"um_per_unit {said:g} was given, but the spot lattice says {found.um_per_unit:.4g}: the given"
            " value is used"
        )
    return said, messages
