"""An H&E-like picture of the section: nuclei, fibres, vacuoles and two stains, told of the domains or not.

Each domain has its own histology. At ``image_information`` w the picture at a place shows
w * histology[domain] + (1 - w) * histology[decoy], where the decoy is a map of patches that is independent of
the domains: at 0 the picture is as lively as at 1 and says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from smeld.datasets._plan import Plan
from smeld.datasets._tissue import Tissue, edge
from smeld.kernels.draws import stamp_ellipses
from smeld.kernels.fields import Bounds, gaussian_field

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
UInt8 = NDArray[np.uint8]

#: longest side of the picture, pixels
_LONG_PX = 2200
#: long side of the stored preview, pixels (Space Ranger's lowres)
_LOW_PX = 600
#: optical density of the two stains in red, green, blue (between the pure stains of Ruifrok & Johnston 2001
#: and those of scanned slides, whose eosin is less magenta), and the colour of the empty slide
_HAEMATOXYLIN, _EOSIN = np.array([0.62, 0.71, 0.33]), np.array([0.12, 0.92, 0.36])
_SLIDE = np.array([242.0, 240.0, 243.0])
#: what differs between domains, from its lowest to its highest level
_HISTOLOGY = {
    "density_mm2": (900.0, 4200.0),
    "radius_um": (2.7, 4.6),
    "stretch": (1.05, 2.2),
    "darkness": (0.62, 0.92),
    "eosin": (0.22, 0.62),
    "fibre": (0.05, 0.42),
    "grain": (0.04, 0.22),
    "vacuoles_mm2": (0.0, 130.0),
}
#: correlation length of the decoy map, in sides: many patches, so that none sides with a domain by chance
_DECOY_LENGTH = 0.055
#: how much each property drifts within a domain, in its range, and the drift's correlation length in sides
_DRIFT_SD, _DRIFT_LENGTH = 0.10, 0.04
#: nuclei are never nearer than this many pixels: bounds their number where a pixel is large
_LEAST_GAP_PX = 2.5
#: the maps of histology are drawn on a grid this many pixels wide and interpolated
_MAP_PX = 6


@dataclass(frozen=True)
class Picture:
    """uint8 RGB [H, W, 3] at two sizes. Pixel (0, 0) lies at the origin of the section's coordinates."""

    hires: UInt8
    lowres: UInt8
    um_per_px: float
    lowres_scale: float  # pixels of lowres per pixel of hires


def um_per_px(plan: Plan, bounds: Bounds) -> float:
    """Size of a pixel: as fine as the layout asks for, coarser where the picture would be too large."""
    return max(plan.layout.finest_um_per_px, max(bounds.x1, bounds.y1) / _LONG_PX)


def render(plan: Plan, tissue: Tissue, xy_um: Doubles) -> Picture:
    """The picture of a section; for single cells the nuclei lie where the cells are."""
    seeds = plan.seeds("image").spawn(4)
    px = um_per_px(plan, tissue.bounds)
    look = _Look(plan, tissue, px, np.random.default_rng(seeds[0]))
    nuclei = _nuclei(plan, look, xy_um, np.random.default_rng(seeds[1]))
    rng = np.random.default_rng(seeds[2])
    solid = look.solid() * (1 - _vacuoles(look, np.random.default_rng(seeds[3])))
    fibres, grain, slow = _fibres(look, rng), _grain(look.shape, rng), _stain_variation(look, rng)
    pattern = 1 + look.map("fibre") * fibres + look.map("grain") * grain
    eosin = look.map("eosin") * np.clip(pattern, 0.25, 2.2) * (1 + 0.10 * slow[0]) * (1 - 0.55 * nuclei)
    haematoxylin = (0.05 + 0.03 * grain + 0.95 * nuclei * (1 + 0.18 * grain)) * (1 + 0.10 * slow[1])
    hires = _colours(np.clip(haematoxylin, 0, None) * solid, eosin * solid, rng)
    lowres, scale = _reduced(hires)
    return Picture(hires, lowres, px, scale)


def _reduced(hires: UInt8) -> tuple[UInt8, float]:
    step = max(1, int(np.ceil(max(hires.shape[:2]) / _LOW_PX)))
    height, width = (s // step * step for s in hires.shape[:2])
    blocks = hires[:height, :width].reshape(height // step, step, width // step, step, 3)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8), 1.0 / step


def _colours(haematoxylin: Floats, eosin: Floats, rng: np.random.Generator) -> UInt8:
    """Beer-Lambert: light that passes both stains, whose colours vary a little from section to section."""
    stains = [np.clip(v + rng.normal(0, 0.015, 3), 0.02, None) for v in (_HAEMATOXYLIN, _EOSIN)]
    out = np.empty((*eosin.shape, 3), dtype=np.uint8)
    for c in range(3):
        density = np.float32(1.9 * stains[0][c]) * haematoxylin + np.float32(stains[1][c]) * eosin
        out[:, :, c] = np.clip(np.float32(_SLIDE[c]) * np.exp(-density), 0, 255)
    return out


class _Look:
    """The histology of every place: ``at`` for positions, ``map`` for the whole picture."""

    def __init__(self, plan: Plan, tissue: Tissue, px: float, rng: np.random.Generator) -> None:
        self.tissue, self.px, self.weight = tissue, px, np.float32(plan.image_information)
        self.pitch_um = plan.layout.pitch_um
        self.shape = int(np.ceil(tissue.bounds.y1 / px)), int(np.ceil(tissue.bounds.x1 / px))
        n = plan.n_domains
        self.table = {name: rng.permutation(np.linspace(*span, n)) for name, span in _HISTOLOGY.items()}
        self.decoy = gaussian_field(tissue.bounds, _DECOY_LENGTH * tissue.side_um, rng)
        self.decoy_cuts = np.quantile(self.decoy.values, np.arange(1, n) / n)
        length = _DRIFT_LENGTH * tissue.side_um
        self.drift = {name: gaussian_field(tissue.bounds, length, rng) for name in _HISTOLOGY}
        self.coarse_um = _MAP_PX * px
        rows, columns = (s // _MAP_PX + 2 for s in self.shape)
        row, column = np.mgrid[0:rows, 0:columns]
        self.grid = np.stack([column.ravel(), row.ravel()], axis=1) * self.coarse_um
        self.coarse = (rows, columns)
        self._domains = tissue.at(self.grid).domain, self._decoys(self.grid)

    def _decoys(self, xy_um: Doubles) -> Ints:
        return np.searchsorted(self.decoy_cuts, self.decoy.at(xy_um)).astype(np.int32)

    def _blend(self, name: str, xy_um: Doubles, domain: Ints, decoy: Ints) -> Floats:
        levels = self.table[name].astype(np.float32)
        low, high = _HISTOLOGY[name]
        drift = np.float32(_DRIFT_SD * (high - low)) * self.drift[name].at(xy_um)
        blend = self.weight * levels[domain] + (1 - self.weight) * levels[decoy]
        return np.asarray(np.clip(blend + drift, low, high), dtype=np.float32)

    def at(self, name: str, xy_um: Doubles) -> Floats:
        """One property at positions in um, [n]."""
        return self._blend(name, xy_um, self.tissue.at(xy_um).domain, self._decoys(xy_um))

    def map(self, name: str) -> Floats:
        """One property over the picture, [H, W]; borders between domains are soft."""
        coarse = self._blend(name, self.grid, *self._domains).reshape(self.coarse)
        blur = max(1.0, 0.4 * self.pitch_um / self.coarse_um)
        return self.enlarged(ndimage.gaussian_filter(coarse, min(blur, 3.0)))

    def enlarged(self, coarse: Floats) -> Floats:
        """A map on the coarse grid, interpolated to the picture."""
        height, width = self.shape
        rows = _lerp(coarse, _fractions(height))
        return np.ascontiguousarray(_lerp(rows.T, _fractions(width)).T)

    def solid(self) -> Floats:
        """1 in the tissue, 0 beside it, [H, W]; it reaches past the outermost observations."""
        margin = 1.3 * self.pitch_um / self.tissue.side_um
        inside = self.tissue.outline + margin - edge(self.tissue.relative(self.grid))
        soft = np.clip(inside * self.tissue.side_um / (4 * self.px) + 0.5, 0, 1)
        return self.enlarged(soft.astype(np.float32).reshape(self.coarse))


def _fractions(n: int) -> Floats:
    """Where the picture's n rows or columns lie on the coarse grid."""
    return np.arange(n, dtype=np.float32) / np.float32(_MAP_PX)


def _lerp(values: Floats, where: Floats) -> Floats:
    """Rows of ``values`` at fractional row numbers."""
    low = np.minimum(where.astype(np.intp), len(values) - 2)
    part = (where - low)[:, None].astype(np.float32)
    return np.asarray(values[low] * (1 - part) + values[low + 1] * part, dtype=np.float32)


def _nuclei(plan: Plan, look: _Look, xy_um: Doubles, rng: np.random.Generator) -> Floats:
    """Coverage by nuclei, [H, W]; spots' nuclei are scattered at the density of the place."""
    if plan.layout.cells > 1:
        xy_um = _scattered(look, rng)
    n = len(xy_um)
    radius = look.at("radius_um", xy_um) * rng.lognormal(0, 0.16, n) / look.px
    stretch = np.sqrt(look.at("stretch", xy_um) * rng.lognormal(0, 0.12, n))
    lean = gaussian_field(look.tissue.bounds, 0.08 * look.tissue.side_um, rng).at(xy_um)
    return stamp_ellipses(
        look.shape,
        x=xy_um[:, 0] / look.px,
        y=xy_um[:, 1] / look.px,
        long_px=radius * stretch,
        short_px=radius / stretch,
        angle=2.0 * lean + rng.normal(0, 0.5, n),
        opacity=np.clip(look.at("darkness", xy_um) * rng.normal(1, 0.12, n), 0.2, 1.0),
    )


def _scattered(look: _Look, rng: np.random.Generator) -> Doubles:
    """Jittered positions over the picture, thinned to the density of the place."""
    densest = _HISTOLOGY["density_mm2"][1]
    gap = max(1000.0 / np.sqrt(densest), _LEAST_GAP_PX * look.px)
    height, width = (int(s * look.px / gap) for s in look.shape)
    row, column = np.mgrid[0:height, 0:width].astype(np.float64)
    xy = np.stack([column.ravel(), row.ravel()], axis=1) + rng.uniform(0.08, 0.92, (height * width, 2))
    xy *= gap
    return xy[rng.random(len(xy)) < look.at("density_mm2", xy) / densest]


def _vacuoles(look: _Look, rng: np.random.Generator) -> Floats:
    """Coverage by empty round spaces, [H, W]."""
    bounds, most = look.tissue.bounds, _HISTOLOGY["vacuoles_mm2"][1]
    area_mm2 = bounds.x1 * bounds.y1 / 1e6
    xy = rng.uniform(0, 1, (min(int(most * area_mm2), 100_000), 2)) * [bounds.x1, bounds.y1]
    xy = xy[rng.random(len(xy)) < look.at("vacuoles_mm2", xy) / most]
    radius = rng.lognormal(np.log(11.0), 0.45, len(xy)) / look.px
    squeeze = rng.uniform(0.75, 1.0, len(xy))
    return stamp_ellipses(
        look.shape,
        x=xy[:, 0] / look.px,
        y=xy[:, 1] / look.px,
        long_px=radius,
        short_px=radius * squeeze,
        angle=rng.uniform(0, np.pi, len(xy)),
        opacity=np.full(len(xy), 0.97),
    )


def _fibres(look: _Look, rng: np.random.Generator) -> Floats:
    """Wavy strands, about standard normal, [H, W]: long streaks of noise read along bent coordinates."""
    height, width = look.shape
    width_px = max(1.0, 3.0 / look.px)
    noise = rng.standard_normal((height // 2 + 1, width // 2 + 1), dtype=np.float32)
    streaks = ndimage.gaussian_filter(noise, (width_px / 2, 7 * width_px), mode="wrap")
    streaks /= streaks.std()
    length = 0.1 * look.tissue.side_um
    bend = [gaussian_field(look.tissue.bounds, length, rng).at(look.grid) for _ in range(2)]
    shift = [look.enlarged((b * (0.5 * length / look.px)).reshape(look.coarse)) for b in bend]
    row, column = np.ogrid[0:height, 0:width]
    where = np.stack([row + shift[0], column + shift[1]]).astype(np.float32) / 2
    fibres = ndimage.map_coordinates(streaks, where, order=1, mode="grid-wrap", prefilter=False)
    return np.asarray(fibres, dtype=np.float32)


def _grain(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Fine mottle of cytoplasm and chromatin, about standard normal, [H, W]."""
    smooth = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 0.8)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)


def _stain_variation(look: _Look, rng: np.random.Generator) -> list[Floats]:
    """Slow unevenness of the two stains over the slide, standard normal, [H, W] each."""
    length = 0.25 * look.tissue.side_um
    slow = [gaussian_field(look.tissue.bounds, length, rng).at(look.grid) for _ in range(2)]
    return [look.enlarged(s.reshape(look.coarse)) for s in slow]
