"""What niches are made of: types by niche, and how large each niche is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from smeld import _adapt, _check
from smeld.pl import _canvas, _colors, _matrix, maps

if TYPE_CHECKING:
    from anndata import AnnData

KEY = "niche"
CURE = "run sm.tl.niches(adata)"
#: what can be shown: (words of the scale, heading)
SHOWN = {
    "composition": ("% of the niche", "Types in niches"),
    "enrichment": ("log2 of the share over\nthat in all", "Types in niches, against all"),
}


def niche_heatmap(
    adata: AnnData,
    key: str = KEY,
    *,
    show: str = "composition",
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Niches (rows, with their sizes) by cell types (columns): shares of types, numbers written.

    Parameters
    ----------
    adata
        With ``uns[f"{key}_composition"]`` and ``obs[key]``, as ``sm.tl.niches`` writes them.
    key
        Prefix of the niches.
    show
        ``"composition"``: percent of the niche's cells. ``"enrichment"``: log2 of a type's share in the niche over its
        share in all cells (``uns[f"{key}_enrichment"]``).
    ax, title
        As in :func:`domains`.

    Raises
    ------
    InputError
        The tables or the niches are not there.
    """
    table = _adapt.table(adata)
    if show not in SHOWN:
        raise _check.unknown("show", show, SHOWN)
    rows, down = stored(table, key, show)
    values = rows.to_numpy(dtype=np.float64)
    across = [str(c) for c in rows.columns]
    label, heading = SHOWN[show]
    if show == "composition":
        colors, norm, extend = "Blues", Normalize(0.0, max(100 * float(values.max(initial=0.0)), 1.0)), "neither"
        values, text = 100 * values, [[_matrix.percent(v) for v in row] for row in values]
    else:
        reach = float(np.clip(np.quantile(np.abs(values), 0.97), 0.5, 3.0)) if values.size else 1.0
        colors, norm = _colors.DIVERGING, Normalize(-reach, reach)
        extend = maps._BEYOND[bool((values < -reach).any()), bool((values > reach).any())]
        text = [[f"{v:+.1f}" for v in row] for row in values]
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes(_matrix.size_in(down, across))
        _matrix.draw(ax, values, text, norm, colors)
        _matrix.name_axes(ax, down, across, list(map(float, range(len(across)))))
        _matrix.key(ax, norm, colors, label, extend=extend)
        maps._title(ax, title, heading)
    return ax


def size_in(table: AnnData, key: str = KEY) -> tuple[float, float]:
    """Size in inches of a figure of its own."""
    rows, down = stored(table, key, "composition")
    return _matrix.size_in(down, [str(c) for c in rows.columns])


def stored(table: AnnData, key: str, show: str) -> tuple[pd.DataFrame, list[str]]:
    """(the table by niche and type, names of niches with their sizes)."""
    name = f"{key}_{show}"
    _check.require(table.uns, name, "uns", CURE)
    _check.require(table.obs.columns, key, "obs", CURE)
    rows = table.uns[name]
    if not isinstance(rows, pd.DataFrame) or rows.empty:
        raise _check.problem(f"uns[{name!r}] is no table of niches", found=type(rows).__name__, cure=CURE)
    labels = table.obs[key].astype(str)
    size = labels.value_counts().reindex([str(n) for n in rows.index], fill_value=0)
    return rows, [f"{n} ({k:,}; {_matrix.percent(k / max(len(labels), 1)) or 0} %)" for n, k in size.items()]
