"""Statistics of stacks of small maps [n, S, S]: pooled over the inscribed disk, one row per tile.

Every tile is treated alone and in the same order of operations, so that results do not depend on how tiles
are batched; operators are isotropic or sums over a set of directions that turning by 90 degrees maps onto
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Float32 = NDArray[np.float32]
Float = NDArray[np.float64]
Index = NDArray[np.intp]

#: grey levels of the co-occurrence matrix (Haralick et al. 1973 leave the number free)
GREY_LEVELS = 8


def disk(side: int) -> Index:
    """Flat indices of the pixels of a side x side tile whose centres lie in the inscribed circle."""
    at = np.arange(side) - (side - 1) / 2
    return np.flatnonzero(at[:, None] ** 2 + at[None, :] ** 2 <= (side / 2) ** 2)


def pool(maps: NDArray[Any], inside: Index | None = None) -> NDArray[Any]:
    """The pixels in the disk, [n, p], C-contiguous."""
    side = maps.shape[1]
    return np.take(maps.reshape(len(maps), -1), disk(side) if inside is None else inside, axis=1)


def mean(values: NDArray[Any]) -> Float:
    """Row means in double precision."""
    # rows are cast first: casting inside the sum goes by buffers, which could depend on the number of rows
    out: Float = values.astype(np.float64).mean(axis=1)
    return out


def sd(values: NDArray[Any]) -> Float:
    """Row standard deviations in double precision."""
    out: Float = values.astype(np.float64).std(axis=1)
    return out


def percentiles(values: Float32, q: Sequence[float]) -> Float:
    """Row percentiles [n, len(q)], each an observed value (nearest rank)."""
    ranks = [round((values.shape[1] - 1) * p / 100) for p in q]
    ordered = np.partition(values, sorted(set(ranks)), axis=1)
    return ordered[:, ranks].astype(np.float64)


def smooth(maps: Float32, sigma_px: float) -> Float32:
    """Gaussian blur of each map alone."""
    out: Float32 = ndimage.gaussian_filter(maps, sigma=(0, sigma_px, sigma_px), mode="reflect", truncate=3.0)
    return out


def thirds(maps: Float32) -> Float32:
    """Mean over 3 x 3 blocks: [n, S, S] -> [n, S // 3, S // 3], cut at the margin where need be."""
    n, side, first = len(maps), maps.shape[1] // 3, maps.shape[1] % 3 // 2
    maps = np.ascontiguousarray(maps[:, first : first + 3 * side, first : first + 3 * side])
    blocks: Float32 = maps.reshape(n, side, 3, side, 3).mean(axis=(2, 4), dtype=np.float32)
    return blocks


def gradient(maps: Float32) -> tuple[Float32, Float32]:
    """Central differences along columns and rows, without the outermost ring: two [n, S-2, S-2]."""
    half = np.float32(0.5)
    along: Float32 = (maps[:, 1:-1, 2:] - maps[:, 1:-1, :-2]) * half
    down: Float32 = (maps[:, 2:, 1:-1] - maps[:, :-2, 1:-1]) * half
    return along, down


def gradient_energy(maps: Float32) -> Float:
    """Root mean square of the gradient's length, per pixel, [n]."""
    gx, gy = gradient(maps)
    return np.sqrt(mean(pool(gx * gx + gy * gy)))


def coherence(maps: Float32, *, floor: float = 1e-6) -> Float:
    """How much one orientation prevails, 0 (none) to 1 (parallel stripes), [n].

    From the structure tensor pooled over the disk: sqrt((Jxx - Jyy)^2 + 4 Jxy^2) / (Jxx + Jyy), which no
    rotation changes (Bigun & Granlund 1987). ``floor`` (squared gradient) makes flat tiles 0.
    """
    gx, gy = gradient(maps)
    inside = disk(gx.shape[1])
    xx, yy, xy = (mean(pool(p, inside)) for p in (gx * gx, gy * gy, gx * gy))
    return np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + floor)


def cooccurrence(maps: Float32, *, top: float, lag_px: int) -> Float:
    """Grey-level co-occurrence [n, L, L], each summing to 1, over pairs ``lag_px`` apart in the disk.

    Grey levels divide 0..top evenly. Four axes (two straight, two diagonal, the diagonal lag rounded to the
    same length) and both directions of each, so that turning by 90 degrees changes nothing.
    """
    n, side = len(maps), maps.shape[1]
    grey = np.clip(maps * np.float32(GREY_LEVELS / top), 0, GREY_LEVELS - 1).astype(np.uint8).reshape(n, -1)
    member = np.zeros(side * side, dtype=bool)
    member[disk(side)] = True
    slant = max(1, round(lag_px / np.sqrt(2)))
    counts = np.zeros(n * GREY_LEVELS**2, dtype=np.int64)
    offset = np.arange(n, dtype=np.int32)[:, None] * GREY_LEVELS**2
    for down, right in ((0, lag_px), (lag_px, 0), (slant, slant), (slant, -slant)):
        first, second = _pairs(member.reshape(side, side), down, right)
        code = np.take(grey, first, axis=1) * np.uint8(GREY_LEVELS) + np.take(grey, second, axis=1)
        counts += np.bincount((code + offset).ravel(), minlength=counts.size)
    both = counts.reshape(n, GREY_LEVELS, GREY_LEVELS)
    both = both + both.transpose(0, 2, 1)
    joint: Float = both / np.maximum(both.sum(axis=(1, 2), keepdims=True), 1)
    return joint


def _pairs(member: NDArray[np.bool_], down: int, right: int) -> tuple[Index, Index]:
    """Flat indices of pixels and of their partners (down, right) away, both in the disk."""
    side = len(member)
    row, col = np.nonzero(member)
    partner = (row + down, col + right)
    kept = (partner[0] < side) & (partner[1] >= 0) & (partner[1] < side)
    row, col, mate_row, mate_col = row[kept], col[kept], partner[0][kept], partner[1][kept]
    both = member[mate_row, mate_col]
    return (row * side + col)[both], (mate_row * side + mate_col)[both]


def haralick(joint: Float) -> tuple[Float, Float, Float]:
    """(contrast in squared grey levels, homogeneity 0..1, entropy in bits) of co-occurrences [n, L, L]."""
    level = np.arange(joint.shape[1])
    gap = (level[:, None] - level[None, :]) ** 2
    contrast = (joint * gap).sum(axis=(1, 2))
    homogeneity = (joint / (1 + gap)).sum(axis=(1, 2))
    entropy = -(joint * np.log2(np.where(joint > 0, joint, 1.0))).sum(axis=(1, 2))
    return contrast, homogeneity, np.maximum(entropy, 0.0)


def curvature(s: Float32, sigma_px: float) -> Float32:
    """-sigma^2 x Laplacian of maps [n, H, W], [n, H-2, W-2]; sums in pairs, so that turning by 90 degrees changes no
    bit."""
    around = s[:, :-2, 1:-1] + s[:, 2:, 1:-1] + (s[:, 1:-1, :-2] + s[:, 1:-1, 2:])
    return np.asarray((4 * s[:, 1:-1, 1:-1] - around) * np.float32(sigma_px**2))


def blobs(smoothed: Float32, *, above: float, sigma_px: float, sharpness: float) -> NDArray[np.bool_]:
    """Centres of dark blobs [n, S-4, S-4]: peaks of -sigma^2 x Laplacian (Lindeberg 1998) of a smoothed map.

    A peak counts if the smoothed map there is over ``above`` and the scale-normalised Laplacian over
    ``sharpness``. The two outermost rings, where neighbours are missing, are left out.
    """
    s, response = smoothed, curvature(smoothed, sigma_px)
    centre = response[:, 1:-1, 1:-1]
    size = response.shape[1]
    peak: NDArray[np.bool_] = (centre > sharpness) & (s[:, 2:-2, 2:-2] > above)
    for down in (0, 1, 2):
        for right in (0, 1, 2):
            if (down, right) != (1, 1):
                peak &= centre >= response[:, down : size - 2 + down, right : size - 2 + right]
    return peak
