"""Ligand-receptor pairs by how sure it is that they lie together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from smeld import _adapt, _keys
from smeld.pl import _canvas, _colors, _stored_pairs
from smeld.pl._stored_pairs import FDR
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = ("ligand", "receptor", "range", "zscore", "qvalue")
#: one colour a range, whichever are there
RANGES = ("secreted", "contact", "other", "unknown")


def interactions(
    adata: AnnData,
    *,
    n: int = 20,
    key: str = _keys.INTERACTIONS,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """The ``n`` most significant pairs, most significant on top: z-score, colour by range, full where q <= .05.

    Parameters
    ----------
    adata
        With ``uns["interactions"]``, the table of ``sm.tl.interactions``.
    n
        Pairs shown (default 20, as many as fit on a page).
    key
        Key of the table in ``uns``.
    ax, title
        As in :func:`domains`.

    Raises
    ------
    InputError
        The table is missing, empty or lacks a column.
    """
    rows = _stored_pairs.pair_table(_adapt.table(adata), key, COLUMNS)
    rows = rows.sort_values(["pvalue" if "pvalue" in rows else "qvalue", "zscore"], ascending=[True, False]).head(n)
    names = [_stored_pairs.joined(a, b) for a, b in zip(rows["ligand"], rows["receptor"])]
    color = dict(zip(RANGES, _colors.palette(len(RANGES)), strict=True))
    colors = np.array([color.get(str(r), color["unknown"]) for r in rows["range"]])
    significant = rows["qvalue"].to_numpy(dtype=float) <= FDR
    z = rows["zscore"].to_numpy(dtype=float)
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes((5.6, 0.9 + 0.24 * len(rows)))
        y = np.arange(len(rows))
        ax.hlines(y, 0, z, color="#D0D0D0", linewidth=1.0, zorder=1)
        ax.scatter(
            z,
            y,
            s=34,
            c=np.where(significant, colors, "#FFFFFF").tolist(),
            edgecolors=colors.tolist(),
            linewidths=1.2,
            zorder=2,
        )
        ax.set_yticks(y, names)
        ax.set(ylim=(len(rows) - 0.4, -0.6), xlabel="z-score against independent genes as smooth")
        ax.set_xlim(left=min(0.0, float(z.min()) * 1.1))
        present = [r for r in RANGES if r in set(rows["range"].astype(str))]
        handles = [Line2D([], [], marker="o", linestyle="", color=color[r], label=r) for r in present]
        if not significant.all():
            handles.append(
                Line2D(
                    [],
                    [],
                    marker="o",
                    linestyle="",
                    markerfacecolor="#FFFFFF",
                    markeredgecolor="#555555",
                    label=f"q > {FDR:g}",
                )
            )
        ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
        words = "Ligand – receptor pairs" if title is None else title
        if words:
            ax.set_title(shown(words, most=60), loc="left")
    return ax
