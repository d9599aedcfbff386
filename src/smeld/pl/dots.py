"""Marker genes of each domain as a table of dots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _colors
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = ("domain", "gene", "score", "log2_fold_change", "pct_in")
#: area in square points of the dot of a gene found in every spot
FULL_DOT = 90.0


def markers(
    adata: AnnData, *, n: int = 5, key: str = _keys.DOMAIN, ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Dots of domain x gene: size, the share of spots with the gene; colour, its log2 fold change.

    Parameters
    ----------
    adata
        With ``uns[f"{key}_markers"]``, a table with the columns domain, gene, score, log2_fold_change and
        pct_in.
    n
        Genes of each domain, by score (default 5, as many as fit beside seven domains on a page).
    key
        Labels whose markers are meant.
    ax, title
        As in :func:`domains`.

    A pair of domain and gene that the table does not hold stays empty: nothing is computed.

    Raises
    ------
    InputError
        The table is missing or lacks a column.
    """
    table = marker_table(_adapt.table(adata), key)
    rows = list(pd.unique(table["domain"]))
    chosen = top(table, n)
    genes = list(dict.fromkeys(chosen["gene"]))
    size_of = dots_shown(table, genes)
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes(size_in(len(rows), len(genes)))
        reach = _reach(chosen)
        norm = Normalize(-reach, reach)
        ax.scatter(
            [genes.index(g) for g in size_of["gene"]],
            [rows.index(d) for d in size_of["domain"]],
            s=FULL_DOT * size_of["share"].to_numpy(),
            c=_colors.colormap(_colors.DIVERGING)(norm(size_of["log2_fold_change"].to_numpy(dtype=np.float64))),
            edgecolors="#555555",
            linewidths=0.4,
            zorder=2,
        )
        ax.set_xticks(range(len(genes)), [shown(g, most=16) for g in genes], rotation=90, style="italic")
        ax.set_yticks(range(len(rows)), [shown(d) for d in rows])
        ax.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(rows) - 0.4, -0.6), ylabel=shown(key))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.grid(color="#EBEBEB", lw=0.6, zorder=0)
        ax.set_axisbelow(True)
        ax.set_title(shown("Marker genes" if title is None else title, most=60) if title != "" else "")
        _keys_of(ax, norm, title=f"{_canvas.noun(_adapt.table(adata))}s with gene")
    return ax


def size_in(n_rows: int, n_genes: int) -> tuple[float, float]:
    """Size in inches of a figure of its own."""
    return 0.23 * max(n_genes, 4) + 2.4, max(0.24 * n_rows, 1.5) + 1.3


def marker_table(adata: AnnData, key: str = _keys.DOMAIN) -> pd.DataFrame:
    """``uns[f"{key}_markers"]``, checked; rows in the order of the domains, best score first."""
    name = f"{key}_markers"
    _check.require(adata.uns, name, "uns", "run sm.tl.markers(adata)")
    table = adata.uns[name]
    lacking = [c for c in COLUMNS if c not in getattr(table, "columns", ())]
    if lacking:
        raise _check.problem(
            f"uns[{name!r}] lacks {_check.listed(lacking)}",
            found=_check.listed(getattr(table, "columns", [type(table).__name__])),
            cure="run sm.tl.markers(adata) again",
        )
    if table.empty:
        raise _check.problem(f"uns[{name!r}] is empty", cure="markers need two domains of at least 2 spots each")
    table = table.assign(domain=table["domain"].astype(str), gene=table["gene"].astype(str))
    order = _colors.natural_order(table["domain"])
    if key in adata.obs.columns:
        names = _colors.categories(adata, key).names
        order = [d for d in names if d in set(order)] + [d for d in order if d not in set(names)]
    rank = table["domain"].map({d: i for i, d in enumerate(order)})
    table = table.assign(_rank=rank).sort_values(["_rank", "score"], ascending=[True, False], kind="stable")
    return table.drop(columns="_rank").reset_index(drop=True)


def top(table: pd.DataFrame, n: int) -> pd.DataFrame:
    """The ``n`` best genes of each domain that are higher in it than elsewhere, in the order of ``table``."""
    return table[table["log2_fold_change"] > 0].groupby("domain", sort=False).head(n)


def _reach(chosen: pd.DataFrame) -> float:
    """Where the colours end: at most of the markers' own changes; a gene absent elsewhere has a huge one."""
    changes = chosen["log2_fold_change"].to_numpy(dtype=np.float64)
    changes = changes[np.isfinite(changes)]
    return max(1.0, float(np.quantile(changes, 0.9))) if changes.size else 1.0


def dots_shown(table: pd.DataFrame, genes: list[str]) -> pd.DataFrame:
    """The rows of ``genes``, with ``share`` (0..1) of the domain's spots that have the gene."""
    chosen = table[table["gene"].isin(set(genes))]
    share = chosen["pct_in"].to_numpy(dtype=np.float64) / (100.0 if in_percent(table) else 1.0)
    return chosen.assign(share=np.clip(np.nan_to_num(share), 0.0, 1.0))


def in_percent(table: pd.DataFrame) -> bool:
    """True if ``pct_in`` goes to 100, False if it goes to 1 (as scanpy's does)."""
    return bool(table["pct_in"].max() > 1.0)


def _keys_of(ax: Axes, norm: Normalize, *, title: str) -> None:
    """The two keys to the right: dot sizes, and the colour bar beneath them."""
    shares = (0.25, 0.5, 1.0)
    dots = [
        Line2D([], [], ls="", marker="o", ms=np.sqrt(FULL_DOT * s), mfc="#BBBBBB", mec="#555555", mew=0.4)
        for s in shares
    ]
    ax.legend(
        dots,
        [f"{100 * s:.0f} %" for s in shares],
        title=title,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.02),
        borderaxespad=0.0,
        alignment="left",
        handletextpad=0.4,
    )
    _canvas.color_bar(ax, norm, _colors.DIVERGING, label="log2 fold change", extend="both", beside_in=1.3)
