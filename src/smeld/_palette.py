"""Colours for categories that colour-blind readers can tell apart, for figures and for the viewer.

Without matplotlib: importing that takes longer than opening a result.
"""

from __future__ import annotations

from collections.abc import Sequence

from smeld._keys import UNKNOWN

# The first eight are Okabe & Ito's (2008). The others were found by farthest-point search in CIELAB: each is
# the colour whose CIEDE2000 distance to those before it is largest, in normal vision and in the simulations
# of protanopia, deuteranopia and tritanopia of Machado et al. (2009); neighbours in the list differ by at
# least 13 in each of the four.
PALETTE = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#333333"),
    *("#841E0E", "#0F1DB8", "#775864", "#3CE488", "#7C1668", "#746B44", "#737CF9", "#355538"),
    *("#26F7FD", "#F7A9B7", "#616A83", "#90A660", "#5F8680", "#A14500", "#D410B2", "#AEECDC"),
)

#: of cells of no known type: darker than the grey of cells without a value
UNKNOWN_COLOR = "#AAAAAA"


def palette(n: int) -> list[str]:
    """``n`` colours as hexadecimal strings; the same ``n`` always gives the same colours.

    The first 24 are distinct for normal and colour-blind sight; beyond them the palette repeats, a third
    lighter each round: no palette of that length is distinct, so read such figures with their labels.

    >>> palette(2)
    ['#0072B2', '#E69F00']
    """
    colors = []
    for i in range(n):
        turn, place = divmod(i, len(PALETTE))
        shares = (int(PALETTE[place][k : k + 2], 16) / 255 for k in (1, 3, 5))
        colors.append("#" + "".join(f"{round(255 * (1 - (2 / 3) ** turn * (1 - share))):02X}" for share in shares))
    return colors


def of_labels(names: Sequence[str]) -> list[str]:
    """A colour a label: those of :func:`palette` in order, and grey for "unknown", which says that nothing is known.

    >>> of_labels(["B cell", "unknown", "T cell"])
    ['#0072B2', '#AAAAAA', '#009E73']
    """
    return [UNKNOWN_COLOR if name == UNKNOWN else color for name, color in zip(names, palette(len(names)), strict=True)]
