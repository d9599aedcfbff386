"""Where things are: positions of the observations, and the domains, branches and gradient of the tissue.

Positions are taken relative to the section, z = (xy - centre) / side in about -0.5..0.5, and are shifted by a
smooth random displacement first. That one step makes every boundary wobble; the shapes below are ideal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smeld import _check
from smeld.datasets._plan import Plan
from smeld.kernels.fields import Bounds, GridField, gaussian_field

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

#: (standard deviation, correlation length) of the displacement's coarse and fine part, in sides
_WOBBLE = ((0.024, 0.12), (0.007, 0.035))
#: where the root of a branched tissue lies, which is where tissue usually ends; half the angle of its fan
_ROOT_Y, _FAN = 0.44, 0.9
#: positions beyond the square into which the outline may bulge, in sides
_ROOM = 0.07
#: empty slide around all positions, in pitches
_MARGIN_PITCHES = 3.0
#: how much of the displacement a further section has of its own
_WOBBLE_OWN = 0.3


@dataclass(frozen=True)
class Shape:
    """An ideal tissue. ``locate`` maps z [n, 2] to depth, branch, and domain (None where depth decides)."""

    locate: Callable[[Doubles], tuple[Doubles, Ints, Ints | None]]
    branches: tuple[str, ...]
    parents: tuple[int, ...]  # by domain: the domain it grows from, -1 for the root


@dataclass(frozen=True)
class Place:
    """What the tissue is at n positions."""

    domain: Ints  # [n], 0..n_domains-1
    branch: Ints  # [n], 0..len(branches)-1
    pseudotime: Doubles  # [n], 0..1


@dataclass(frozen=True)
class Tissue:
    """A section's map, which can be asked at any position; and where its observations lie."""

    shape: Shape
    centre_um: Doubles
    side_um: float
    bounds: Bounds
    wobble: tuple[tuple[GridField, GridField], ...]  # displacement in x and y, part by part
    outline: float  # level of ``edge`` at which the tissue ends
    cuts: Doubles  # depths between domains, ascending
    depth_range: tuple[float, float]

    def relative(self, xy_um: Doubles) -> Doubles:
        """Displaced positions in sides of the section, [n, 2]."""
        z = (xy_um - self.centre_um) / self.side_um
        for part in self.wobble:
            z += np.stack([field.at(xy_um) for field in part], axis=1)
        return z

    def at(self, xy_um: Doubles) -> Place:
        """Domain, branch and pseudotime at positions float64 [n, 2] in micrometres."""
        depth, branch, domain = self.shape.locate(self.relative(xy_um))
        if domain is None:
            domain = np.searchsorted(self.cuts, depth).astype(np.int32)
        low, high = self.depth_range
        return Place(domain, branch, np.clip((depth - low) / (high - low), 0.0, 1.0))

    def kinship(self) -> NDArray[np.bool_]:
        """Which domains grow out of one another, symmetric [n_domains, n_domains]."""
        n = len(self.shape.parents)
        out = np.zeros((n, n), dtype=np.bool_)
        for child, parent in enumerate(self.shape.parents):
            if parent >= 0:
                out[child, parent] = out[parent, child] = True
        return out


def edge(z: Doubles) -> Doubles:
    """Distance from the middle in the norm of a rounded square, [n]; the tissue is where it is small."""
    return np.asarray((np.abs(z) ** 3).sum(axis=1) ** (1 / 3))


# ---------------------------------------------------------------------------------------------- ideal shapes


def layered(n_domains: int, rng: np.random.Generator) -> Shape:
    """Bands around a far centre, as the layers of cortex; depth grows from the surface inwards."""
    middle = np.array([rng.uniform(-0.2, 0.2), rng.uniform(0.9, 1.3)])

    def locate(z: Doubles) -> tuple[Doubles, Ints, None]:
        depth = 2.0 - np.hypot(*(z - middle).T)
        return depth, np.zeros(len(z), dtype=np.int32), None

    return Shape(locate, ("trunk",), _chain(n_domains))


def nested(n_domains: int, rng: np.random.Generator) -> Shape:
    """Rings around two or three tumour nests of unequal size; depth grows from core to stroma."""
    n_nests = int(rng.integers(2, 4))
    turn = rng.uniform(0, 2 * np.pi) + np.arange(n_nests) * 2 * np.pi / n_nests
    nests = 0.24 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    radius = rng.permutation(np.linspace(0.8, 1.2, n_nests))

    def locate(z: Doubles) -> tuple[Doubles, Ints, None]:
        away = np.hypot(z[:, None, 0] - nests[:, 0], z[:, None, 1] - nests[:, 1]) / radius
        return away.min(axis=1), away.argmin(axis=1).astype(np.int32), None

    return Shape(locate, tuple(f"nest{k + 1}" for k in range(n_nests)), _chain(n_domains))


def branched(n_domains: int, rng: np.random.Generator) -> Shape:
    """A tree from somewhere on the border: each limb is a domain, every point belongs to the nearest limb."""
    start, end, parents = _tree(n_domains, rng)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    start, end = start @ rotation, end @ rotation
    along = np.linalg.norm(end - start, axis=1)
    before = np.zeros(n_domains)
    limb = np.zeros(n_domains, dtype=np.int32)
    for k in range(1, n_domains):
        before[k] = before[parents[k]] + along[parents[k]]
        limb[k] = k if parents[k] == 0 else limb[parents[k]]

    def locate(z: Doubles) -> tuple[Doubles, Ints, Ints]:
        step = ((z[:, None, :] - start) * (end - start)).sum(axis=2) / along**2
        step = np.clip(step, 0.0, 1.0)
        gap = np.linalg.norm(z[:, None, :] - (start + step[:, :, None] * (end - start)), axis=2)
        domain = gap.argmin(axis=1).astype(np.int32)
        depth = before[domain] + step[np.arange(len(z)), domain] * along[domain]
        return depth, limb[domain], domain

    names = ("trunk", *(f"branch{k}" for k in range(1, int(limb.max()) + 1)))
    return Shape(locate, names, tuple(parents))


def folded(n_domains: int, rng: np.random.Generator) -> Shape:
    """A band laid in two or three folds that touch, as a gut or a gyrus cut across; depth grows along the band.

    What lies side by side across a fold may be early and late: distance in space misleads there.
    """
    n_folds = int(rng.integers(2, 4))
    row = (np.arange(n_folds) + 0.5) / n_folds - 0.5
    end = 0.5 - 0.5 / n_folds  # the band is as wide at its turns as along a fold
    side = np.where(np.arange(2 * n_folds) // 2 % 2 == np.arange(2 * n_folds) % 2, -end, end)
    corners = np.stack([side, np.repeat(row, 2)], axis=1)
    corners[0, 0], corners[-1, 0] = np.sign(corners[[0, -1], 0]) * 0.6  # its two ends lie beyond the tissue's border
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    start, way = corners[:-1] @ rotation, np.diff(corners, axis=0) @ rotation
    along = np.linalg.norm(way, axis=1)
    before = np.concatenate([[0.0], np.cumsum(along)[:-1]])

    def locate(z: Doubles) -> tuple[Doubles, Ints, None]:
        step = np.clip(((z[:, None, :] - start) * way).sum(axis=2) / along**2, 0.0, 1.0)
        gap = np.linalg.norm(z[:, None, :] - (start + step[:, :, None] * way), axis=2)
        limb = gap.argmin(axis=1)
        depth = before[limb] + step[np.arange(len(z)), limb] * along[limb]
        return depth, np.zeros(len(z), dtype=np.int32), None

    return Shape(locate, ("trunk",), _chain(n_domains))


SHAPES = {"layered": layered, "nested": nested, "branched": branched, "folded": folded}


def _chain(n: int) -> tuple[int, ...]:
    return tuple(range(-1, n - 1))


def _tree(n_limbs: int, rng: np.random.Generator) -> tuple[Doubles, Doubles, list[int]]:
    """Starts and ends [n_limbs, 2] and parents of a binary tree, fanned out from the lower border.

    Each node lies on a ray from the root, as far out as its level says of the way to the tissue's border. The
    rays of the leaves are spread evenly, the others lie in the middle of their leaves': no limbs cross.
    """
    parents = [-1, *((k - 1) // 2 for k in range(1, n_limbs))]
    leaves = _leaves(n_limbs)
    fan = np.linspace(-_FAN, _FAN, len(leaves[0])) if len(leaves[0]) > 1 else np.zeros(1)
    fan = fan + rng.uniform(-0.1, 0.1, len(fan)) * 2 * _FAN / len(fan)
    rank = {leaf: r for r, leaf in enumerate(leaves[0])}
    levels = np.floor(np.log2(np.arange(n_limbs) + 1)) + 1
    root, end = np.array([0.0, _ROOT_Y]), np.empty((n_limbs, 2))
    for k in range(n_limbs):
        angle = np.mean([fan[rank[leaf]] for leaf in leaves[k]])
        ray = np.array([np.sin(angle), -np.cos(angle)])
        end[k] = root + 0.9 * levels[k] / levels.max() * _way_out(root, ray) * ray
    start = np.array([root if p < 0 else end[p] for p in parents])
    return start, end, parents


def _leaves(n_limbs: int) -> list[list[int]]:
    """The leaves beyond each limb of the tree, from left to right."""
    out: list[list[int]] = [[] for _ in range(n_limbs)]
    for k in reversed(range(n_limbs)):
        children = [c for c in (2 * k + 1, 2 * k + 2) if c < n_limbs]
        out[k] = [leaf for c in children for leaf in out[c]] or [k]
    return out


def _way_out(root: Doubles, ray: Doubles) -> float:
    """How far it is from the root to the tissue's usual border along a ray, in sides."""
    reach = np.linspace(0.0, 1.5, 300)
    return float(reach[edge(root + reach[:, None] * ray) <= _ROOT_Y].max())


# ------------------------------------------------------------------------------------------------ the section


def build(plan: Plan) -> tuple[Tissue, Doubles, Ints]:
    """The tissue, its observations' positions float64 [n_obs, 2] in um, lattice indices [n_obs, 2]."""
    span = (1 + 2 * _ROOM) * plan.side_um + 2 * _MARGIN_PITCHES * plan.layout.pitch_um
    bounds = Bounds(0.0, 0.0, span, span)
    rng = plan.rng("tissue")
    shape = SHAPES[plan.tissue](plan.n_domains, rng)
    shares = rng.uniform(0.6, 1.4, plan.n_domains)
    draft = Tissue(
        shape=shape,
        centre_um=np.full(2, span / 2),
        side_um=plan.side_um,
        bounds=bounds,
        wobble=_wobble(plan, bounds, rng),
        outline=np.inf,
        cuts=np.empty(0),
        depth_range=(0.0, 1.0),
    )
    xy, index, outline = _positions(plan, draft)
    depth, _, _ = shape.locate(draft.relative(xy))
    cuts = np.quantile(depth, np.cumsum(shares / shares.sum())[:-1])
    tissue = Tissue(
        **{
            **vars(draft),
            "outline": outline,
            "cuts": cuts,
            "depth_range": (float(depth.min()), float(depth.max())),
        }
    )
    found = len(np.unique(tissue.at(xy).domain))
    if found < plan.n_domains:
        raise _check.problem(
            f"{plan.n_obs} observations are too few for {plan.n_domains} domains",
            found=f"{found} domains that hold any",
            cure="raise n_obs= or lower n_domains=",
        )
    return tissue, xy, index


def _wobble(plan: Plan, bounds: Bounds, shared: np.random.Generator) -> tuple[tuple[GridField, GridField], ...]:
    """Displacement in sides of the section; most of it is the organ's, some of it the section's own."""
    own = plan.rng("wobble")

    def one(sd: float, length_um: float) -> GridField:
        common, extra = gaussian_field(bounds, length_um, shared), gaussian_field(bounds, length_um, own)
        values = (common.values + _WOBBLE_OWN * extra.values) * np.float32(sd)
        return GridField(values, bounds, common.step_um)

    return tuple((one(sd, length * plan.side_um), one(sd, length * plan.side_um)) for sd, length in _WOBBLE)


def _positions(plan: Plan, tissue: Tissue) -> tuple[Doubles, Ints, float]:
    """The ``n_obs`` occupied positions nearest the middle, in rows; their indices; the outline's level."""
    rng, layout = plan.rng("positions"), plan.layout
    step_x, step_y = layout.pitch_um / 2, layout.pitch_um * np.sqrt(0.75)
    span = (1 + 2 * _ROOM) * plan.side_um
    rows, columns = int(span / step_y) + 1, int(span / layout.pitch_um) + 1
    row, half = (a.ravel() for a in np.mgrid[0:rows, 0:columns].astype(np.int32))
    index = np.stack([row, 2 * half + row % 2], axis=1)
    if layout.kept < 1:
        index = index[rng.random(len(index)) < layout.kept]
    xy = index[:, ::-1] * np.array([step_x, step_y]) + _MARGIN_PITCHES * layout.pitch_um
    xy += rng.normal(0.0, layout.jitter * layout.pitch_um, xy.shape) if layout.jitter else 0.0
    away = edge(tissue.relative(xy))
    inside = np.sort(np.argsort(away, kind="stable")[: plan.n_obs])
    return xy[inside], index[inside], float(away[inside].max())
