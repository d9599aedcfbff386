"""Small tables of colours with their numbers written in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from smeld.pl import _colors, _places
from smeld.pl._text import shown

Float = NDArray[np.float64]

#: width and height of a cell, inches: a number of five digits fits
CELL_IN = (0.42, 0.3)
#: a letter of a name, and the room for the colour bar, inches
LETTER_IN, BAR_IN = 0.075, 1.0
#: relative luminance below which writing is white
DARK = 0.42
MOST_NAME = 18


def size_in(down: Sequence[str], across: Sequence[str], *, extra: float = 0.0) -> tuple[float, float]:
    """Size in inches of a table with these names, and ``extra`` columns of room."""
    beside, below = (LETTER_IN * min(max(map(len, names), default=1), 40) for names in (down, across))
    width = CELL_IN[0] * (len(across) + extra) + beside + BAR_IN
    return max(width, 3.0), max(CELL_IN[1] * len(down), 1.2) + below + 0.8


def draw(
    ax: Axes, values: Float, text: Sequence[Sequence[str]], norm: Normalize, colors: str, *, at: float = 0
) -> None:
    """The cells of ``values`` [n, m] from column ``at`` on, and the ``text`` of each; NaN is left white."""
    n, m = values.shape
    edges = np.arange(m + 1) + at
    scale = _colors.colormap(colors).with_extremes(bad="white")
    ax.pcolormesh(
        edges, np.arange(n + 1), np.ma.masked_invalid(values), cmap=scale, norm=norm, edgecolors="white", linewidth=0.6
    )
    rgb = np.asarray(scale(norm(np.ma.masked_invalid(values))))[..., :3]
    luminance = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    for i in range(n):
        for j in range(m):
            color = "white" if luminance[i, j] < DARK**2 else "#1A1A1A"
            ax.text(at + j + 0.5, i + 0.5, text[i][j], ha="center", va="center", fontsize=7, color=color)


def name_axes(ax: Axes, down: Sequence[str], across: Sequence[str], at: Sequence[float]) -> None:
    """Names of rows and columns, these at ``at``; the first row on top."""
    cut = [shown(name, most=MOST_NAME) for name in across]
    turned = max(map(len, cut), default=0) > 4
    ax.set_xticks([x + 0.5 for x in at], cut, rotation=90 if turned else 0)
    ax.set_yticks(np.arange(len(down)) + 0.5, [shown(name, most=40) for name in down])
    ax.set(xlim=(0, max(at, default=0) + 1), ylim=(len(down), 0))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def key(ax: Axes, norm: Normalize, colors: str, label: str, *, extend: str = "neither") -> None:
    """The colour bar, long enough to be read beside few rows."""
    _places.settle(ax)
    width, height = _places.extent_in(ax)
    high = float(np.clip(0.8 * height, 1.0, 2.4))
    place = ax.inset_axes((1.0 + 0.15 / width, 1.0 - high / height, 0.13 / width, high / height))
    bar = ax.figure.colorbar(ScalarMappable(norm, _colors.colormap(colors)), cax=place, label=label, extend=extend)
    bar.outline.set_visible(False)


def number(n: int) -> str:
    """A count that fits a cell; nothing for 0."""
    return "" if n == 0 else str(n) if n < 10_000 else f"{n / 1000:.0f}k"


def percent(share: float) -> str:
    """Whole percent for a cell; nothing for 0 and for what is not known."""
    if not np.isfinite(share) or share <= 0:
        return ""
    return "<1" if share < 0.005 else f"{100 * share:.0f}"
