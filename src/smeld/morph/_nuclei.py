"""``nuclei``: how many nuclei the image shows under each spot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smeld import _adapt, _check, _image, _keys, _progress
from smeld.kernels import nuclei as kernel
from smeld.kernels import stain, tiles
from smeld.morph._encoders import TileSpec
from smeld.morph._plan import VOID_SHARE, Cut, check_positions, find_image, overview, section_colours, sides_um

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]

#: the image is looked at in pixels of about this size: on finer ones counts are the same and take longer
UM_PER_PX = 0.75
#: a stored reduced copy serves up to this size of a pixel
COPY_UM_PER_PX = 1.0
#: pixels on a side of what is looked at at a time
BLOCK_PX = 1024
#: spots this far apart that say nothing of their size are taken for Visium's, and how far the distance may be off
VISIUM_PITCH_UM, VISIUM_SPOT_UM, PITCH_SHARE = 100.0, 55.0, 0.05


@dataclass(frozen=True)
class Nuclei:
    """What ``nuclei`` found: ``counts`` by spot as in ``obs[key]``, and where the counted nuclei lie in the image.

    ``xy_px`` float64 [n_nuclei, 2]: centres (x, y) in pixels of the image's finest resolution, whose first pixel has
    its centre at 0, 0; ordered by y. ``um_per_px``: size of the pixels that were looked at; ``diameter_um`` of a spot.
    """

    key: str
    counts: pd.Series
    xy_px: Float
    diameter_um: float
    um_per_px: float


def nuclei(
    data: Any,
    *,
    diameter_um: float | None = None,
    key_added: str = _keys.N_NUCLEI,
    library_id: str | None = None,
    block_px: int = BLOCK_PX,
    quiet: bool = False,
) -> Nuclei:
    """Count the nuclei that the image shows under each spot.

    A nucleus is a dark blob of haematoxylin, 5 to 12 um across, or a bright one of a nuclear stain alone (DAPI, a grey
    image); it counts where its centre lies within the spot's disk.

    Parameters
    ----------
    data
        AnnData (or SpatialData with one table) with ``obsm["spatial"]`` and an image with pixels of at most 1.75 um.
    diameter_um
        Diameter of a spot, micrometres. Default: the platform's; 55 where that is unknown and spots are 100 um apart.
    key_added
        Column of ``obs``.
    library_id
        The section in ``uns["spatial"]``, where there are several.
    block_px
        Side in pixels (of about .75 um) of what is looked at at a time; results do not depend on it.
    quiet
        No progress bar.

    Returns
    -------
    Nuclei
        Frozen; with the centres of all nuclei that were counted, to look at them on the image.

    Writes
    ------
    ``obs["n_nuclei"]``: whole numbers [n_obs]; where spots do not lie on the image with all of their disk, floats with
    NaN for these, and a warning. ``uns["smeld"]["n_nuclei"]``: parameters, sizes of spot and pixel.

    Notes
    -----
    Windows of the image are read one after the other, of a pyramid at about .75 um a pixel, and only where spots are.
    Nuclei are not outlined: where they lie over each other, as in thick or dense tissue, they are counted too few, and
    pieces of very long or very large ones too many. Nuclei of cells that the section cut elsewhere are not seen:
    counts of RNA come from these cells, too.

    Raises
    ------
    InputError
        No image; pixels of unknown size, or too large to see nuclei; a diameter that is unknown or not above 0; most
        spots outside the image; a grey picture of stained tissue, or a fluorescence image of several colours.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(200, 50, seed=0, image=True, layout="cells")
    >>> found = sm.morph.nuclei(adata, diameter_um=55)
    >>> bool(adata.obs["n_nuclei"].median() > 3)
    True

    References
    ----------
    Peaks of the Laplacian of Gaussian over sizes: Lindeberg, Int. J. Comput. Vis. 30 (1998) 79. Stains: Macenko et al.,
    ISBI (2009) 1107. Threshold: Otsu, IEEE Trans. Syst. Man Cybern. 9 (1979) 62.
    """
    adata = _adapt.table(data)
    image = find_image(data, library_id)
    _check_pixels(image.um_per_px)
    meta = _adapt.metadata(data, library_id)
    diameter = _diameter_um(adata, meta, diameter_um)
    if block_px < 1:
        raise _check.problem("block_px must be at least 1", found=f"{block_px}", cure="leave it out")
    xy_px = _adapt.xy_px(data, image)
    check_positions(image, xy_px)
    with _progress.silenced(quiet):
        seen = _seen(image, xy_px, _adapt.canonical_order(data), sides_um({}, None, meta)[0])
        at = seen.level.to_level(xy_px)
        radius = diameter / 2 / seen.um_per_px
        number, found = kernel.counted(at, radius, places := _places(seen, at, radius, block_px))
    counts = _column(adata, number, at, radius, seen.level.source.shape)
    adata.obs[key_added] = counts
    made = Nuclei(key_added, counts, _native(seen.level, places[found]), diameter, seen.um_per_px)
    params = {"diameter_um": diameter, "um_per_px_used": f"{seen.um_per_px:.4g}", "stain": seen.stain}
    inputs = {"image_shape": f"{image.shape[0]} x {image.shape[1]}", "image_um_per_px": image.um_per_px}
    _keys.record(adata, key_added, function="smeld.morph.nuclei", params=params, inputs=inputs)
    return made


# ---------------------------------------------------------------------------------------------- what is looked at


@dataclass(frozen=True)
class _Seen:
    """The image as nuclei are sought in it: ``density`` makes a map of the nuclear stain [H, W] of a window of the
    ``level``; ``above`` and ``sharpness`` are in the map's units."""

    level: tiles.Level
    um_per_px: float
    stain: str
    density: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    above: float
    sharpness: float


def _check_pixels(um_per_px: float) -> None:
    if um_per_px > kernel.LARGEST_UM_PER_PX:
        raise _check.problem(
            "the image's pixels are too large to see nuclei",
            found=f"{um_per_px:.3g} um per pixel, {kernel.LARGEST_UM_PER_PX} at most",
            cure="read the section with the full-resolution image: sm.read(path, image=...), --image",
        )


def _diameter_um(adata: AnnData, meta: dict[str, Any], given: float | None) -> float:
    if given is not None:
        if isinstance(given, bool) or not (np.isfinite(given) and given > 0):
            raise _check.problem("diameter_um must be above 0", found=f"{given}", cure="give um, for example 55")
        return float(given)
    stated = float(meta.get(_keys.META_SPOT_UM, np.nan))
    if stated > 0:
        return stated
    apart = _pitch_um(_adapt.xy_um(adata))
    if abs(apart - VISIUM_PITCH_UM) <= PITCH_SHARE * VISIUM_PITCH_UM:
        return VISIUM_SPOT_UM
    found = f"spots {apart:.3g} um apart, no diameter in their metadata"
    raise _check.problem("the diameter of the spots is unknown", found=found, cure="give diameter_um=")


def _pitch_um(xy_um: Float) -> float:
    from scipy.spatial import cKDTree

    return float(np.median(cKDTree(xy_um).query(xy_um, k=2)[0][:, 1])) if len(xy_um) > 1 else float("nan")


def _seen(image: _image.Image, xy_px: Float, order: NDArray[np.intp], side_um: float) -> _Seen:
    """What the section's colours around spots say of its stain."""
    background, void = tiles.background_colour(overview(image, tiles.MAX_COUNTED))
    level, um_per_px = _level(image, background, replace_void=False)
    side = max(3, 2 * round(side_um / um_per_px / 2) + 1)
    cut = Cut(level, side, TileSpec(side, um_per_px, "cpu"), "")
    colours = section_colours(cut, xy_px, order).colours
    grey, dark = stain.look(colours, background)
    if grey and dark:
        top, above = stain.bright(colours)
        black = tiles.Level(level.source, level.factor, level.pad, np.zeros(3, np.uint8), level.reduction)
        return _Seen(black, um_per_px, "fluorescence", _intensity, kernel.ABOVE * above, kernel.SHARPNESS * top)
    if grey or dark:
        what = "a grey picture of stained tissue" if grey else "a dark picture in colours, as of fluorescence"
        cure = "give the H&E image in colours, or the nuclear stain (DAPI) alone as a grey image"
        raise _check.problem("nuclei cannot be told apart in this image", found=what, cure=cure)
    if void > VOID_SHARE:
        level, _ = _level(image, background, replace_void=True)
        colours = section_colours(Cut(level, side, cut.spec, ""), xy_px, order).colours
    stains = stain.estimate(colours, background)

    def haematoxylin(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        maps, _ = stain.separate(pixels[None], stains)
        return np.asarray(maps[0])

    above, sharpness = kernel.ABOVE * stains.nuclear_threshold, kernel.SHARPNESS * stains.dark
    return _Seen(level, um_per_px, "haematoxylin", haematoxylin, above, sharpness)


def _level(image: _image.Image, background: NDArray[np.uint8], *, replace_void: bool) -> tuple[tiles.Level, float]:
    """(the image in pixels of about .75 um, which are made as windows are read, their size in um)."""
    stored = image.at(COPY_UM_PER_PX / image.um_per_px)
    factor = tiles.odd_factor(stored.um_per_px, UM_PER_PX)
    source = tiles.Reduced(tiles.Cleaned(stored, background) if replace_void else stored, factor)
    return tiles.Level(source, factor, source.pad, background, stored.reduction), stored.um_per_px * factor


def _intensity(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(pixels[:, :, 0] / np.float32(255.0), dtype=np.float32)


# ---------------------------------------------------------------------------------------------------- the counting


def _places(seen: _Seen, at: Float, radius: float, block_px: int) -> Float:
    """Nuclei (x, y) [n, 2] of the blocks that spots ``at`` [n_obs, 2] reach into, in pixels of the level, by row."""
    height, width = seen.level.source.shape
    blocks = list(_blocks(at, radius, (height, width), block_px))
    halo = kernel.reach_px(seen.um_per_px)
    parts = [np.empty((0, 2))]
    for top, left in _progress.track(blocks, "Nuclei", len(blocks)):
        y0, x0 = max(top - halo, 0), max(left - halo, 0)
        y1, x1 = min(top + block_px + halo, height), min(left + block_px + halo, width)
        stained = seen.density(seen.level.source.window(y0, x0, y1 - y0, x1 - x0))
        found = kernel.centres(stained, seen.um_per_px, above=seen.above, sharpness=seen.sharpness)
        found = found + np.array([x0, y0])
        own = ((found >= [left, top]) & (found < [left + block_px, top + block_px])).all(axis=1)
        parts.append(found[own])
    made = np.concatenate(parts)
    return made[np.lexsort((made[:, 0], made[:, 1]))]


def _blocks(at: Float, radius: float, shape: tuple[int, int], block_px: int) -> Iterator[tuple[int, int]]:
    """Upper left corners (row, column) of the blocks that the disks' squares touch, row by row."""
    last = (np.array([shape[1], shape[0]]) - 1) // block_px
    low = np.clip(np.floor((at - radius) / block_px), 0, last).astype(np.intp)
    high = np.clip(np.floor((at + radius) / block_px), 0, last).astype(np.intp)
    across, down = (high - low).max(axis=0) + 1
    touched = np.zeros((last[1] + 1, last[0] + 1), dtype=bool)
    for right in range(across):
        for below in range(down):
            column, row = np.minimum(low + np.array([right, below]), high).T
            touched[row, column] = True
    for row, column in np.argwhere(touched):
        yield int(row) * block_px, int(column) * block_px


def _native(level: tiles.Level, xy: Float) -> Float:
    """Pixels of the level as pixels of the image's finest resolution: the inverse of ``level.to_level``."""
    stored = xy * level.factor - (np.array([level.pad[1], level.pad[0]]) - (level.factor - 1) / 2)
    return np.asarray((stored + 0.5) * level.reduction - 0.5)


def _column(adata: AnnData, number: NDArray[np.intp], at: Float, radius: float, shape: tuple[int, int]) -> pd.Series:
    """Counts by spot; NaN for those whose disk is not on the image, to within a pixel."""
    high = np.array([shape[1], shape[0]])
    off = np.asarray(((at - radius < -1.5) | (at + radius > high + 0.5)).any(axis=1))
    if not off.any():
        return pd.Series(number, index=adata.obs_names)
    message = (
        f"{int(off.sum())} of {len(off)} spots do not lie on the image with all of their disk: no nuclei are counted"
    )
    _check.warn(message, adata, stacklevel=4)
    return pd.Series(np.where(off, np.nan, number.astype(np.float64)), index=adata.obs_names)
