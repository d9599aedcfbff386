"""Where words go in a figure, and the nodes of a network: on the tissue, apart from each other, no name covered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import cdist

Float = NDArray[np.float64]

#: pixels along the longer side in which pieces are looked for
RASTER = 40
#: cells among which the middle one is looked for
MOST_CELLS = 1000
#: rounds in which nodes push each other apart
ROUNDS = 300


def extent_in(ax: Axes) -> tuple[float, float]:
    """Width and height of the axes in inches, their aspect allowed for."""
    ax.apply_aspect()
    box = ax.get_window_extent()
    return box.width / ax.figure.dpi, box.height / ax.figure.dpi


def note(ax: Axes, text: str) -> None:
    """A line of small print below a map, right of the scale bar, or beneath it where there is no room."""
    narrow = extent_in(ax)[0] < 0.062 * len(text) + 1.2
    ax.annotate(
        text,
        xy=(0.0 if narrow else 1.0, 0.0),
        xycoords="axes fraction",
        xytext=(0, -24 if narrow else -9),
        textcoords="offset points",
        ha="left" if narrow else "right",
        va="top",
        fontsize=8,
        color="#444444",
        annotation_clip=False,
    )


def settle(ax: Axes) -> float:
    """Lay the figure out now, so that what is placed next knows the size of the axes; returns points per pixel."""
    figure = cast(Figure, ax.get_figure(root=True))
    figure.draw_without_rendering()
    return 72.0 / figure.dpi


def middle(xy: Float, extent: float) -> Float:
    """The place [2] of a type with cells at ``xy``: the medoid of the largest piece in which it is dense.

    The mean of a ring or of two patches lies where none of its cells are; this always lies on one of them.
    """
    xy = xy[np.lexsort(xy.T)]  # nothing below depends on the order of the cells
    pixel = np.floor((xy - xy.min(axis=0)) / max(extent / RASTER, 1e-9)).astype(np.int64)
    number = np.zeros(pixel.max(axis=0) + 1)
    np.add.at(number, tuple(pixel.T), 1.0)
    smooth = ndimage.gaussian_filter(number, 1.0, mode="constant")
    label = ndimage.label(smooth >= 0.5 * np.quantile(smooth[number > 0], 0.9), structure=np.ones((3, 3)))[0]
    piece = label[tuple(pixel.T)]
    size = np.bincount(piece[piece > 0], minlength=1)
    largest = xy[piece == int(size.argmax())] if size.any() else xy
    some = largest[:: -(-len(largest) // MOST_CELLS)]
    return np.asarray(some[cdist(some, some).sum(axis=1).argmin()])


def apart(points: Float, least: float, low: Float, high: Float) -> Float:
    """``points`` [n, 2] pushed apart until none are nearer than ``least``, inside the box from ``low`` to ``high``."""
    out = np.clip(points, low, high)
    turn = np.arange(len(out)) * np.pi * (3 - np.sqrt(5))
    own = 1e-3 * least * np.column_stack([np.cos(turn), np.sin(turn)])
    for _ in range(ROUNDS):
        step = out[:, None] - out[None]
        step = np.where((step == 0).all(axis=2)[..., None], own[:, None] - own[None], step)  # two in one place
        distance = np.hypot(step[..., 0], step[..., 1])
        np.fill_diagonal(distance, np.inf)
        lacking = np.clip(least - distance, 0.0, None)
        if lacking.max(initial=0.0) <= 1e-6 * least:
            break
        out = np.clip(out + 0.5 * (step * (lacking / distance)[..., None]).sum(axis=1), low, high)
    return out


def labels(
    nodes: Float, sizes: Float, *, radius: float, avoid: Sequence[Float], low: Float, high: Float
) -> tuple[Float, NDArray[np.bool_]]:
    """Centres [n, 2] of labels of ``sizes`` [n, 2], each near its node and over no node or label; all in points.

    ``avoid`` holds points of each arrow: labels lie over as few as they can. Also says which labels lie so far off
    that they need a line to their node. What finds no free place inside the box goes where it covers least.
    """
    busy = np.vstack([nodes, *avoid]) if len(avoid) else nodes
    taken = np.column_stack([nodes - radius, nodes + radius])
    centres, far = np.zeros_like(nodes), np.zeros(len(nodes), dtype=bool)
    for i in np.argsort(-sizes[:, 0], kind="stable"):  # the longest first, while there is room
        offered, ring = _offered(sizes[i], radius, float(np.hypot(*(high - low))))
        tried = nodes[i] + offered
        box = np.column_stack([tried - sizes[i] / 2, tried + sizes[i] / 2])
        over = _overlap(box, taken).sum(axis=1)
        outside = np.clip(low - box[:, :2], 0, None).sum(axis=1) + np.clip(box[:, 2:] - high, 0, None).sum(axis=1)
        crossed = (
            (busy[None, :, 0] > box[:, None, 0] - 1)
            & (busy[None, :, 0] < box[:, None, 2] + 1)
            & (busy[None, :, 1] > box[:, None, 1] - 1)
            & (busy[None, :, 1] < box[:, None, 3] + 1)
        ).sum(axis=1)
        best = int((1e4 * over + 1e3 * outside + crossed + 3.0 * ring).argmin())
        centres[i], far[i] = tried[best], ring[best] > 1
        taken = np.vstack([taken, box[best] + np.array([-1.5, -0.5, 1.5, 0.5])])
    return centres, far


def _offered(size: Float, radius: float, reach: float) -> tuple[Float, Float]:
    """Offsets [m, 2] of a label's centre from its node, ring by ring, and the ring [m] of each."""
    turns = np.deg2rad([0, 180, 90, 270, 45, 315, 135, 225, 22, 338, 158, 202, 68, 292, 112, 248])
    rings = np.arange(0, max(reach / 9.0, 1.0))
    away = radius + 2.5 + 9.0 * rings
    direction = np.column_stack([np.cos(turns), np.sin(turns)])
    # beside a node the label's near edge keeps the distance, not its centre
    offsets = away[:, None, None] * direction[None] + direction[None] * size / 2
    return offsets.reshape(-1, 2), np.repeat(rings, len(turns))


def _overlap(one: Float, other: Float) -> Float:
    """Areas [m, k] that boxes (x0, y0, x1, y1) have in common."""
    width = np.minimum(one[:, None, 2], other[None, :, 2]) - np.maximum(one[:, None, 0], other[None, :, 0])
    height = np.minimum(one[:, None, 3], other[None, :, 3]) - np.maximum(one[:, None, 1], other[None, :, 1])
    return np.asarray(np.clip(width, 0, None) * np.clip(height, 0, None))
