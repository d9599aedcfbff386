"""Colour deconvolution of haematoxylin and eosin (Ruifrok & Johnston 2001, Macenko et al. 2009).

Light through a stained section falls off exponentially (Beer-Lambert), so optical density OD = -log10(I / I0)
adds up over stains: OD = c_H v_H + c_E v_E. The two colour vectors are estimated per section from a histogram
of its colours: counts of pixels are integers, hence the estimate is the same in whatever order or orientation
they come.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: bits kept of each channel in the histogram of colours
BITS = 6
#: haematoxylin and eosin in optical density (R, G, B), Ruifrok & Johnston 2001; normalised below
RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
#: optical density below which a pixel counts as empty slide, Macenko et al. 2009 (their beta)
EMPTY_OD = 0.15
#: extreme percentiles of the angle within the plane of stains, Macenko et al. 2009 (their alpha)
ANGLE_PERCENTILE = 1.0
#: an estimate is refused when a vector is further than this cosine from Ruifrok's, or the two are too near
MIN_COSINE, MIN_ANGLE = 0.80, np.deg2rad(8.0)
#: tissue with at most this share of coloured pixels is grey; darker than this in half of its pixels, fluorescence
GREY_SHARE, DARK_LEVEL = 0.01, 64
#: of a fluorescent nuclear stain the percentile that counts as its dark stain, as of haematoxylin
BRIGHT = 0.99


@dataclass(frozen=True)
class Stains:
    """The stains of one section.

    ``vectors`` float64 [2, 3]: unit vectors of haematoxylin and eosin in optical density; ``background``
    uint8 [3]: the empty slide (I0); ``estimated``: from this section (True) or Ruifrok's (False);
    ``nuclear_threshold``: the haematoxylin density that parts nuclei from the rest (Otsu); ``dark``: its 99th
    percentile in tissue.
    """

    vectors: Float
    background: UInt8
    estimated: bool
    nuclear_threshold: float
    dark: float


def colour_counts(tiles: UInt8) -> NDArray[np.int64]:
    """Pixels per colour, int64 [64**3], 6 bits a channel (red the most significant), of uint8 [..., 3]."""
    drop = 8 - BITS
    flat = tiles.reshape(-1, 3)
    code = flat[:, 0].astype(np.int32) >> drop
    for channel in (1, 2):
        code <<= BITS
        code |= flat[:, channel] >> drop
    return np.bincount(code, minlength=1 << 3 * BITS)


def _colours(counts: NDArray[np.int64]) -> tuple[Float, Float]:
    """(RGB at the middle of each bin in use, [m, 3]; its pixels [m])."""
    used = np.flatnonzero(counts)
    mask, drop = (1 << BITS) - 1, 8 - BITS
    bins = np.stack([(used >> 2 * BITS) & mask, (used >> BITS) & mask, used & mask], axis=1)
    return bins * float(1 << drop) + ((1 << drop) - 1) / 2, counts[used].astype(np.float64)


def density(rgb: Float, background: UInt8) -> Float:
    """Optical density [..., 3] >= 0 of 8-bit intensities; 1 is added to both so that black stays finite."""
    od: Float = np.maximum(-np.log10((rgb + 1.0) / (background.astype(np.float64) + 1.0)), 0.0)
    return od


def estimate(counts: NDArray[np.int64] | None, background: UInt8) -> Stains:
    """Stain vectors and thresholds of a section from its ``colour_counts`` [64**3].

    Ruifrok's vectors where there are too few colours, or where the estimate is not plausible.
    """
    known = RUIFROK / np.linalg.norm(RUIFROK, axis=1, keepdims=True)
    if counts is None or not counts.any():
        return Stains(known, background, False, 0.35, 1.0)
    rgb, weight = _colours(counts)
    od = density(rgb, background)
    tissue = np.linalg.norm(od, axis=1) > EMPTY_OD
    found = _macenko(od[tissue], weight[tissue]) if tissue.sum() > 2 else None
    vectors = known if found is None or not _plausible(found, known) else found
    if not tissue.any():
        return Stains(known, background, False, 0.35, 1.0)
    haematoxylin = np.maximum(od[tissue] @ np.linalg.pinv(vectors)[:, 0], 0.0)
    threshold = _otsu(haematoxylin, weight[tissue])
    dark = max(float(_quantile(haematoxylin, weight[tissue], 0.99)), 0.1)
    return Stains(vectors, background, vectors is not known, threshold, dark)


def _macenko(od: Float, weight: Float) -> Float | None:
    """Unit vectors [haematoxylin, eosin]: extremes of angle in the plane of the first two eigenvectors."""
    second_moment = (od * weight[:, None]).T @ od / weight.sum()
    values, axes = np.linalg.eigh(second_moment)
    if values[1] <= 1e-9 * max(values[2], 1e-12):
        return None
    plane = axes[:, [2, 1]]
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    angle = np.arctan2(od @ plane[:, 1], od @ plane[:, 0])
    ends = [_quantile(angle, weight, q / 100) for q in (ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE)]
    pair = np.stack([plane @ np.array([np.cos(a), np.sin(a)]) for a in ends])
    pair = np.maximum(pair, 0.0)
    pair /= np.maximum(np.linalg.norm(pair, axis=1, keepdims=True), 1e-12)
    # haematoxylin is the one that takes more of the red light
    ordered: Float = pair[np.argsort(-pair[:, 0], kind="stable")]
    return ordered


def _plausible(pair: Float, known: Float) -> bool:
    near = np.einsum("ij,ij->i", pair, known)
    apart = np.arccos(np.clip(pair[0] @ pair[1], -1.0, 1.0))
    return bool((near >= MIN_COSINE).all() and apart >= MIN_ANGLE)


def _quantile(values: Float, weight: Float, q: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    at = int(np.searchsorted(reached, q * reached[-1]))
    return float(values[order[min(at, len(order) - 1)]])


def _otsu(values: Float, weight: Float, bins: int = 128) -> float:
    """Threshold that maximises the variance between two classes (Otsu 1979), of weighted values."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return high + 1e-3  # one colour: nothing stands out from it
    counts, edges = np.histogram(values, bins=bins, range=(low, high), weights=weight)
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts), np.cumsum(counts * centres)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (moment / below - (moment[-1] - moment) / above) ** 2
    # between clusters that leave a gap all thresholds do equally well: the middle one is the safest
    best = np.flatnonzero(between[:-1] >= np.nanmax(between[:-1]) * (1 - 1e-9))
    return float((edges[1 + best[0]] + edges[1 + best[-1]]) / 2)


def separate(tiles: UInt8, stains: Stains) -> tuple[Float32, Float32]:
    """Haematoxylin and eosin, float32 [n, H, W] each in optical density >= 0, of uint8 [n, H, W, 3].

    Least squares on the two vectors. The sums are written out: a matrix product may round differently for
    different numbers of tiles.
    """
    unmix = np.linalg.pinv(stains.vectors).astype(np.float32)  # [3, 2]
    table = density(np.arange(256, dtype=np.float64)[:, None], stains.background).astype(np.float32)
    maps = []
    for stain in (0, 1):
        out: Float32 = (table[:, 0] * unmix[0, stain])[tiles[..., 0]]
        for channel in (1, 2):
            out += (table[:, channel] * unmix[channel, stain])[tiles[..., channel]]
        maps.append(np.maximum(out, 0.0, out=out))
    return maps[0], maps[1]


def look(colours: NDArray[np.int64], background: NDArray[np.uint8]) -> tuple[bool, bool]:
    """(whether what is not empty slide is grey, whether it is mostly dark), of :func:`colour_counts`."""
    rgb, number = _colours(colours)
    seen = np.linalg.norm(density(rgb, background), axis=1) > EMPTY_OD
    rgb, number = rgb[seen], number[seen]
    if not len(rgb):
        return False, False
    most = rgb.max(axis=1)
    coloured, dark = (float(number[where].sum()) for where in (most > rgb.min(axis=1), most < DARK_LEVEL))
    return coloured <= GREY_SHARE * number.sum(), dark > number.sum() / 2


def bright(colours: NDArray[np.int64]) -> tuple[float, float]:
    """(the nuclear stain's high intensity, its threshold), 0..1."""
    rgb, number = _colours(colours)
    values = rgb[:, 0] / 255.0
    return max(_quantile(values, number, BRIGHT), 0.1), _otsu(values, number)
