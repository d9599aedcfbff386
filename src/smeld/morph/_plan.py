"""Which tiles to cut: from which level of the image, how large, and what is known of the whole section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _image, _keys
from smeld.kernels import stain, tiles
from smeld.morph._encoders import Section, TileSpec

#: a tile shows the spot and its rim: twice the spot's diameter (on Visium 110 um, spots being 100 um apart)
SPOTS_PER_TILE = 2.0
#: bounds on that, and the side where the diameter is unknown
TILE_UM_MIN, TILE_UM_MAX, TILE_UM_UNKNOWN = 50.0, 200.0, 100.0
#: at most this many spots are looked at for the section's colours
COLOUR_SPOTS = 1000
#: black pixels are taken for blacked-out surroundings from this share of the image on; fewer are dirt
VOID_SHARE = 0.001
#: surroundings are looked at in about this many pixels across
CONTEXT_PX = 100
#: neighbours are at most this many times as far apart as points and their nearest are: a lattice's diagonals, too
NEIGHBOUR_REACH = 1.5
#: a reduced copy serves where at least this many of its pixels lie across one of the tiles'. On H&E at 0.27 um texture
#: then correlates with that of the finest pixels at .99 or more, feature by feature (.96 with 1.5 of them)
COPY_PX = 3.0
#: pixels of tiles held at a time
BATCH_PX = 1 << 21


@dataclass(frozen=True)
class Cut:
    """Tiles of one size: from which level of the image, cut at ``side_px``, delivered as ``spec`` says."""

    level: tiles.Level
    side_px: int
    spec: TileSpec
    prefix: str

    @property
    def batch_size(self) -> int:
        """Tiles that make about two megapixels."""
        return max(1, BATCH_PX // max(self.side_px, self.spec.tile_px) ** 2)


def find_image(data: Any, library_id: str | None) -> _image.Image:
    """The section's image with pixels of a known size, or an ``InputError``."""
    image = _adapt.image(data, library_id)
    if image is None:
        raise _check.problem(
            "there is no image to take morphology from",
            found='no image in uns["spatial"]',
            cure="read the section with its image (sm.read), or leave morphology out",
        )
    if not (np.isfinite(image.um_per_px) and image.um_per_px > 0):
        raise _check.problem(
            "the size of the image's pixels is unknown",
            found=f"{image.um_per_px} um per pixel",
            cure='read the section with sm.read, or set "um_per_unit" in its metadata in uns["spatial"]',
        )
    return image


def check_positions(image: _image.Image, xy_px: NDArray[np.float64]) -> None:
    """Refuse positions that are not finite, and those of which most lie outside the image."""
    if not np.isfinite(xy_px).all():
        bad = int((~np.isfinite(xy_px).all(axis=1)).sum())
        raise _check.problem(
            "coordinates must be finite",
            found=f"{bad} of {len(xy_px)} NaN or infinite",
            cure="drop those spots",
        )
    height, width = image.shape
    outside = ((xy_px < -0.5) | (xy_px > [width - 0.5, height - 0.5])).any(axis=1)
    if outside.mean() > 0.5:
        low, high = xy_px.min(axis=0), xy_px.max(axis=0)
        raise _check.problem(
            "most spots lie outside the image",
            found=f"{outside.sum()} of {len(xy_px)}: image {width} x {height} pixels, "
            f"spots at x {low[0]:.0f} to {high[0]:.0f}, y {low[1]:.0f} to {high[1]:.0f}",
            cure="give the scale between image and coordinates with --image-scale (image_scale=)",
        )


def sides_um(facts: Mapping[str, Any], tile_um: float | Sequence[float] | None, meta: Mapping[str, Any]) -> list[float]:
    """Sides of the tiles in micrometres: as asked, or the encoder's own, or by the size of the spots."""
    if tile_um is not None:
        given = np.atleast_1d(np.asarray(tile_um, dtype=np.float64))
        if given.size == 0 or not np.isfinite(given).all() or (given <= 0).any():
            raise _check.problem("tile_um must be above 0", found=f"{tile_um}", cure="give um, for example 110")
        if len(np.unique(np.round(given))) < given.size:
            raise _check.problem("sides in tile_um must differ", found=f"{tile_um}", cure="give each size once")
        return [float(side) for side in given]
    if facts.get("um_per_px"):
        first = float(facts["um_per_px"]) * float(facts["tile_px"])
    else:
        spot_um = float(meta.get(_keys.META_SPOT_UM, np.nan))
        first = float(np.clip(SPOTS_PER_TILE * spot_um, TILE_UM_MIN, TILE_UM_MAX))
        first = first if spot_um > 0 else TILE_UM_UNKNOWN
    return [first * share for share in facts.get("context", (1.0,))]


def plan(
    image: _image.Image, sides: Sequence[float], facts: Mapping[str, Any], *, device: str, brightfield: bool
) -> list[Cut]:
    """One ``Cut`` per side in micrometres. Blacked-out parts of brightfield images become background."""
    background, void = tiles.background_colour(overview(image, tiles.MAX_COUNTED))
    replace_void = brightfield and void > VOID_SHARE
    levels: dict[tuple[float, int], tiles.Level] = {}
    cuts: list[Cut] = []
    for side in sides:
        fixed_px = int(facts.get("tile_px") or 0)
        target = side / fixed_px if fixed_px else _useful_um_per_px(facts, side, first=sides[0])
        stored, factor = _stored(image, target, at_most=bool(fixed_px))
        key = stored.reduction, factor
        if key not in levels:
            levels[key] = _level(image, stored, factor, background, replace_void, in_copy=bool(fixed_px))
        um_per_px = (stored if fixed_px else image).um_per_px * factor
        side_px = _odd_px(side / um_per_px)
        spec = TileSpec(fixed_px or side_px, side / fixed_px if fixed_px else um_per_px, device)
        cuts.append(Cut(levels[key], side_px, spec, f"context{side:.0f}um_" if cuts else ""))
    return cuts


def overview(image: _image.Image, n_px: int) -> _image.Image:
    """The coarsest stored resolution that has ``n_px`` pixels, to look at the whole section."""
    return image.at(max(1.0, float(np.sqrt(image.shape[0] * image.shape[1] / n_px))))


def _stored(image: _image.Image, target: float, *, at_most: bool) -> tuple[_image.Image, int]:
    """The stored resolution to read, and the odd number of pixels that make one: of that resolution's where pixels may
    be no larger than ``target`` micrometres, else of the image's own, as for an image without others."""
    if at_most:
        stored = image.at(target / image.um_per_px)
        return stored, tiles.odd_factor(stored.um_per_px, target, at_most=True)
    factor = tiles.odd_factor(image.um_per_px, target)
    return image.at(factor / COPY_PX), factor


def _level(
    image: _image.Image,
    stored: _image.Image,
    factor: int,
    background: NDArray[np.uint8],
    replace_void: bool,
    *,
    in_copy: bool,
) -> tiles.Level:
    if in_copy or stored.reduction == 1.0:
        return tiles.make_level(
            stored, factor, background=background, replace_void=replace_void, reduction=stored.reduction
        )
    return tiles.level_from_copy(
        stored, stored.reduction, image.shape, factor, background=background, replace_void=replace_void
    )


def _useful_um_per_px(facts: Mapping[str, Any], side: float, *, first: float) -> float:
    """The first tile as fine as helps the encoder; surroundings coarser, in about 100 pixels."""
    finest = float(facts.get("finest_um_per_px", 1.0)) * side / first
    return finest if side == first else max(finest, side / CONTEXT_PX)


def _odd_px(side: float) -> int:
    """The nearest odd number: the tile is symmetric about one pixel. From 24 on an odd multiple of 3, too.

    Then its 3 x 3 blocks are symmetric as well, for encoders that look at several scales.
    """
    step = 6 if side >= 24 else 2
    middle = step // 2
    return max(3, step * round((side - middle) / step - 1e-9) + middle)


def section_colours(cut: Cut, xy_px: NDArray[np.float64], order: NDArray[np.intp]) -> Section:
    """The section's colours, from tiles of up to 1,000 spots spread evenly over the canonical order."""
    chosen = order[:: max(1, -(-len(order) // COLOUR_SPOTS))]
    whole = tiles.coverage(cut.level, xy_px[chosen], cut.side_px) >= 1.0
    chosen = chosen[whole] if whole.any() else chosen
    colours = np.zeros(1 << 3 * stain.BITS, dtype=np.int64)
    for _, batch in tiles.batches(cut.level, xy_px[chosen], cut.side_px, batch_size=cut.batch_size):
        colours += stain.colour_counts(batch)
    return Section(cut.level.background, colours)


def sampler(cut: Cut, xy_px: NDArray[np.float64], order: NDArray[np.intp]) -> Callable[[int], NDArray[np.uint8]]:
    """``sample(n)``: at most n tiles around spots, evenly over the canonical order; where spots are fewer, also tiles
    half-way between neighbours. The same tiles, to the last bit, in whatever order the spots come and however image and
    spots are turned by right angles or mirrored."""

    def sample(n: int) -> NDArray[np.uint8]:
        places = xy_px[order]
        if len(places) < n:
            places = np.concatenate([places, evenly(between_neighbours(places), n - len(places))])
        places = evenly(places, n)
        whole = tiles.coverage(cut.level, places, cut.side_px) >= 1.0
        places = places[whole] if whole.any() else places
        lie = lies(xy_px[order])
        parts = []
        for _, batch in tiles.batches(cut.level, places, cut.side_px, batch_size=cut.batch_size):
            parts.append(tiles.resized(upright(batch, lie), cut.spec.tile_px))  # the resizing rounds, and is no mirror
        return np.concatenate(parts)

    return sample


def lies(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """A direction [2] that turns with the section: from the first spots to the last, in canonical order."""
    rank = np.arange(len(xy)) - (len(xy) - 1) / 2
    return np.asarray((rank[:, None] * (xy - xy.mean(axis=0))).sum(axis=0))


def upright(batch: NDArray[np.uint8], direction: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Tiles [n, H, W, 3] turned or mirrored as brings ``direction`` (x, y) between right and half-way below right."""
    x, y = direction
    turns = 0
    while not -x < y <= x and turns < 3:
        x, y, turns = y, -x, turns + 1  # counterclockwise, where y points down
    batch = np.rot90(batch, turns, axes=(1, 2))
    return np.ascontiguousarray(batch[:, ::-1] if y < 0 else batch)


def evenly(values: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """At most ``n`` rows of ``values``, spread evenly."""
    return values if len(values) <= n else values[np.arange(n) * len(values) // n]


def between_neighbours(xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places half-way between each two points not much further apart than a typical one and its nearest, once each."""
    from scipy.spatial import cKDTree

    if len(xy) < 2:
        return xy[:0]
    tree = cKDTree(xy)
    nearest = float(np.median(tree.query(xy, k=2)[0][:, 1]))
    pairs = tree.query_pairs(NEIGHBOUR_REACH * nearest, output_type="ndarray")
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    middle = (xy[pairs[:, 0]] + xy[pairs[:, 1]]) / 2
    # the two diagonals of a square meet in one place
    same = cKDTree(middle).query_pairs(nearest / 4, output_type="ndarray") if len(middle) else pairs[:0]
    return np.asarray(np.delete(middle, np.unique(same.max(axis=1)), axis=0)) if len(same) else middle
