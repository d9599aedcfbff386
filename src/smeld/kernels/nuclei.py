"""Centres of nuclei: dark blobs of a nuclear stain over several sizes, one a nucleus.

A nucleus is a peak of -sigma^2 x Laplacian of the stain after a Gaussian blur (Lindeberg 1998), at any of a few sizes.
It mostly has several such peaks, of several sizes, of its chromatin, or along it. Of two that lie within the larger
one's core the weaker is dropped, and of two further apart where the stain does not thin out between them. Each pair is
judged alone, so that a nucleus is found or not by what lies within :func:`reach_px` of it, wherever an image is cut.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from smeld.kernels import texture as tx

UInt8 = NDArray[np.uint8]
Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: a nucleus (7 um and more across) is at least 4 pixels wide at this size of a pixel
LARGEST_UM_PER_PX = 1.75
#: blurs before peaks are sought: blobs of radius sigma sqrt(2) answer best, nuclei 5.7, 7.9 and 11.3 um across. With
#: smaller ones grains of chromatin are counted
SIGMAS_UM = (2.0, 2.8, 4.0)
#: peaks need this share of the threshold of nuclei after the smallest blur, which takes half of a thin nucleus's stain
ABOVE = 0.5
#: and this share of the section's dark stain as scale-normalised curvature
SHARPNESS = 0.08
#: share of a blob's radius within which there is no other nucleus: two that touch overlap a little as they are seen
CORE = 0.8
#: peaks up to this far apart are of one nucleus where, between them, the curvature stays above a share of the weaker's
LONG_UM, DIP = 8.0, 0.85
#: places between two peaks at which that is looked at
BETWEEN = (0.35, 0.5, 0.65)
#: widths of the Gaussian at which it is cut off (as :func:`texture.smooth` does)
TRUNCATE = 3.0


def reach_px(um_per_px: float) -> int:
    """How far around a nucleus, in pixels, the image says whether it is counted."""
    return math.ceil((TRUNCATE * max(SIGMAS_UM) + LONG_UM) / um_per_px) + 4


def centres(stain: Float32, um_per_px: float, *, above: float, sharpness: float) -> Float:
    """Centres (x, y) [n, 2] of nuclei in a map [H, W] of a nuclear stain, in pixels, in no particular order.

    ``above``: least stain at a centre after the smallest blur; ``sharpness``: least curvature, both in the map's units.
    """
    smoothed = [tx.smooth(stain[None], sigma / um_per_px)[0] for sigma in SIGMAS_UM]
    curved = [_curvature(s, sigma / um_per_px) for s, sigma in zip(smoothed, SIGMAS_UM)]
    dark = smoothed[0] > above
    found = [_peaks(one, dark, sharpness) for one in curved]
    rowcol, strength = (np.concatenate([part[i] for part in found]) for i in (0, 1))
    radius = np.repeat(np.asarray(SIGMAS_UM) * (CORE * math.sqrt(2) / um_per_px), [len(part[1]) for part in found])
    kept = _one_each(rowcol, strength, radius, curved[0], LONG_UM / um_per_px)
    return np.ascontiguousarray(rowcol[kept][:, ::-1])


def _curvature(smoothed: Float32, sigma_px: float) -> Float32:
    """:func:`texture.curvature` of a map [H, W] whose edge is repeated, [H, W]."""
    return np.asarray(tx.curvature(np.pad(smoothed, 1, mode="edge")[None], sigma_px)[0])


def _peaks(here: Float32, dark: NDArray[np.bool_], sharpness: float) -> tuple[Float, Float]:
    """(places (row, column) [n, 2], curvature [n]) of the peaks of one size; pixels that tie side by side are one."""
    peak = dark & (here > sharpness) & (here == ndimage.maximum_filter(here, 3, mode="nearest"))
    label, n = ndimage.label(peak, np.ones((3, 3)))
    if n == 0:
        return np.empty((0, 2)), np.empty(0)
    row, column = np.nonzero(label)
    which = label[row, column] - 1
    number = np.bincount(which, minlength=n)
    places = np.stack([np.bincount(which, at, n) / number for at in (row, column)], axis=1)
    strength = np.zeros(n)
    strength[which] = here[row, column]
    return places, strength


def _one_each(rowcol: Float, strength: Float, radius: Float, curved: Float32, long_px: float) -> NDArray[np.bool_]:
    """Which peaks stay: those with no stronger peak of the same nucleus near. ``radius`` [n]: of their cores; ties go
    by place."""
    kept = np.ones(len(rowcol), dtype=bool)
    if len(rowcol) < 2:
        return kept
    pairs = cKDTree(rowcol).query_pairs(max(long_px, float(radius.max())), output_type="ndarray")
    one, other = pairs.T
    distance = np.sqrt(((rowcol[one] - rowcol[other]) ** 2).sum(axis=1))
    same = distance < np.maximum(radius[one], radius[other])
    same |= (distance < long_px) & _joined(rowcol[one], rowcol[other], curved)
    rank = np.empty(len(rowcol), dtype=np.intp)
    rank[np.lexsort((rowcol[:, 1], rowcol[:, 0], -strength))] = np.arange(len(rowcol))
    kept[np.where(rank[one] > rank[other], one, other)[same]] = False
    return kept


def _joined(one: Float, other: Float, curved: Float32) -> NDArray[np.bool_]:
    """Where the curvature does not sink between two places [n, 2]."""

    def at(where: Float) -> Float32:
        return np.asarray(ndimage.map_coordinates(curved, where.T, order=1, mode="nearest"))

    ends = np.minimum(at(one), at(other))
    between = np.min([at(one + share * (other - one)) for share in BETWEEN], axis=0)
    return np.asarray(between > DIP * ends)


def counted(xy: Float, radius: float, nuclei: Float) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """(nuclei within ``radius`` of each place [n_places], whether a nucleus is within it of any place [n_nuclei])."""
    if len(nuclei) == 0 or len(xy) == 0:
        return np.zeros(len(xy), dtype=np.intp), np.zeros(len(nuclei), dtype=bool)
    tree = cKDTree(nuclei)
    number = np.asarray(tree.query_ball_point(xy, radius, return_length=True), dtype=np.intp)
    return number, cKDTree(xy).query(nuclei)[0] <= radius
