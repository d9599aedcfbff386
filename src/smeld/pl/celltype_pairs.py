"""Cell-type interactions as a table of colours: pairs down, sender to receiver across."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _celltype_table, _colors, _places, _stored_pairs
from smeld.pl._stored_pairs import FDR
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]

#: side of a cell of the table, inches
CELL_IN = 0.21
#: room for a letter of a name, and for the colour bar, inches
LETTER_IN, KEY_IN = 0.072, 1.1
MOST_TYPE = 16


def celltype_heatmap(
    adata: AnnData,
    *,
    n_pairs: int = 20,
    n_links: int = 24,
    groups: str | None = None,
    key: str = _keys.CELLTYPE_INTERACTIONS,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """The most significant pairs against the most significant senders and receivers: z-score, a dot where q <= .05.

    Parameters
    ----------
    adata
        With ``uns["celltype_interactions"]``, as ``sm.tl.celltype_interactions`` writes it.
    n_pairs
        Rows: pairs, most significant on top (default 20, as many as fit on a page).
    n_links
        Columns: sender and receiver, those with the most significant pairs (default 24).
    groups
        Labels of the cells, whose order the columns follow; None for those the table was made with. They need not be
        there.
    key
        Key of the table in ``uns``.
    ax, title
        As in :func:`domains`.

    White squares were not tested.

    Raises
    ------
    InputError
        The table is missing, empty or lacks a column.
    """
    if n_pairs < 1 or n_links < 1:
        raise _check.problem(
            "there is nothing to show", found=f"n_pairs={n_pairs}, n_links={n_links}", cure="show at least one"
        )
    table = _adapt.table(adata)
    rows = _celltype_table.celltype_table(table, key)
    rows = rows[rows["place"] < n_pairs]
    links = _links(rows, _order(table, rows, groups, key), n_links)
    names = rows.drop_duplicates("place")
    z, found = _grids(rows, links, len(names))
    across = [
        f"{shown(a, most=MOST_TYPE)} → {shown(b, most=MOST_TYPE)}" for a, b in zip(links["sender"], links["receiver"])
    ]
    down = [_stored_pairs.joined(a, b) for a, b in zip(names["ligand"], names["receptor"])]
    with _canvas.style():
        if ax is None:
            letters = (max(map(len, down)), max(map(len, across)))
            ax = _canvas.new_axes(size_in(len(down), len(across), letters=letters))
        norm = Normalize(-_reach(z), _reach(z))
        colors = _colors.colormap(_colors.DIVERGING).with_extremes(bad="white")
        ax.pcolormesh(np.ma.masked_invalid(z), cmap=colors, norm=norm, edgecolors="#E4E4E4", linewidth=0.5)
        _dots(ax, found, np.asarray(norm(z)))
        _axes_of(ax, down, across, links["sender"].to_numpy())
        ax.set_title(shown("Pairs between cell types" if title is None else title, most=60) if title != "" else "")
        _key(ax, norm, z, f"dot: q ≤ {FDR:g}" if found.any() else f"none with q ≤ {FDR:g}")
    return ax


def size_in(n_pairs: int, n_links: int, *, letters: tuple[int, int] = (24, 24)) -> tuple[float, float]:
    """Size in inches of a figure of its own; ``letters`` of the longest names beside and below the table."""
    beside, below = (LETTER_IN * n for n in letters)
    return CELL_IN * n_links + beside + KEY_IN, max(CELL_IN * n_pairs + below, 1.6) + 0.5


def _order(table: AnnData, rows: pd.DataFrame, groups: str | None, key: str) -> list[str]:
    """The types in the order of their labels, the others after them."""
    named = _colors.natural_order([*rows["sender"], *rows["receiver"]])
    wanted = _celltype_table.groups_of(table, groups, key)
    if groups is None and wanted not in table.obs.columns and wanted not in table.obsm:
        return named
    known = [n for n in _celltype_table.types(table, wanted).names if n in set(named)]
    return known + [n for n in named if n not in set(known)]


def _links(rows: pd.DataFrame, order: list[str], n: int) -> pd.DataFrame:
    """``sender`` and ``receiver`` of the ``n`` columns, by sender."""
    best = rows.groupby(["sender", "receiver"], sort=False).agg(found=("found", "sum"), pvalue=("pvalue", "min"))
    best = best.sort_values(["found", "pvalue"], ascending=[False, True], kind="stable").head(n).reset_index()
    at = {name: i for i, name in enumerate(order)}
    place = np.lexsort((best["receiver"].map(at), best["sender"].map(at)))
    return best.iloc[place].reset_index(drop=True)


def _grids(rows: pd.DataFrame, links: pd.DataFrame, n: int) -> tuple[Float, NDArray[np.bool_]]:
    """z-scores (NaN where nothing was tested) and what is significant, [n pairs, n links]."""
    column = {link: i for i, link in enumerate(zip(links["sender"], links["receiver"]))}
    at = np.array([column.get(link, -1) for link in zip(rows["sender"], rows["receiver"])], dtype=np.intp)
    z, found = np.full((n, len(links)), np.nan), np.zeros((n, len(links)), dtype=bool)
    place = rows["place"].to_numpy()[at >= 0], at[at >= 0]
    z[place] = rows["zscore"].to_numpy(dtype=np.float64)[at >= 0]
    found[place] = rows["found"].to_numpy()[at >= 0]
    return z, found


def _reach(z: Float) -> float:
    """Where the colours end: a few huge z-scores would leave all others pale."""
    size = np.abs(z[np.isfinite(z)])
    return max(2.0, float(np.quantile(size, 0.97))) if size.size else 2.0


def _beyond(z: Float, norm: Normalize) -> str:
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    over, under = bool((z > high).any()), bool((z < low).any())
    return "both" if over and under else "max" if over else "min" if under else "neither"


def _dots(ax: Axes, found: NDArray[np.bool_], share: Float) -> None:
    """A dot in each significant square, dark on pale and white on dark ones."""
    y, x = np.nonzero(found)
    dark = np.abs(np.asarray(share)[y, x] - 0.5) > 0.33
    ax.scatter(x + 0.5, y + 0.5, s=9.0, c=np.where(dark, "white", "#222222").tolist(), linewidths=0, zorder=3)


def _axes_of(ax: Axes, down: list[str], across: list[str], senders: NDArray[np.object_]) -> None:
    ax.set_xticks(np.arange(len(across)) + 0.5, across, rotation=90)
    ax.set_yticks(np.arange(len(down)) + 0.5, down)
    ax.set(xlim=(0, len(across)), ylim=(len(down), 0))
    ax.set_aspect("equal")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    for x in np.flatnonzero(senders[1:] != senders[:-1]) + 1:
        ax.axvline(float(x), color="#555555", lw=0.8, zorder=2)


def _key(ax: Axes, norm: Normalize, z: Float, said: str) -> None:
    """The colour bar, long enough to be read beside few rows, and what a dot is beneath it."""
    # squares are square: the room they take is known only once the names have theirs
    _places.settle(ax)
    width, height = _places.extent_in(ax)
    high = float(np.clip(0.7 * height, 1.2, 2.4))
    place = ax.inset_axes((1.0 + 0.15 / width, 1.0 - (high + 0.1) / height, 0.13 / width, high / height))
    mappable = ScalarMappable(norm, _colors.colormap(_colors.DIVERGING))
    bar = ax.figure.colorbar(mappable, cax=place, extend=_beyond(z, norm), label="z-score")
    bar.outline.set_visible(False)
    lowest = float(np.nanmin(z, initial=0.0))
    place.set_ylim(bottom=max(float(norm.vmin or 0.0), lowest))  # the half that nothing is in says nothing
    place.annotate(
        said, xy=(0, 0), xycoords="axes fraction", xytext=(0, -18), textcoords="offset points", va="top", fontsize=8
    )
