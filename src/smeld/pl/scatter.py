"""The spots in two dimensions of an embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _colors
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

#: points a figure shows at most; a denser cloud looks the same and takes longer
MOST_POINTS = 100_000


def embedding(
    adata: AnnData,
    key: str = _keys.DOMAIN,
    *,
    basis: str | None = None,
    ax: Axes | None = None,
    legend: bool = True,
    title: str | None = None,
) -> Axes:
    """The first two dimensions of a stored embedding, coloured by ``obs[key]``; the axes are named after it.

    Parameters
    ----------
    key
        Column of labels, coloured as in :func:`domains`.
    basis
        Name in ``obsm`` (``"umap"`` finds ``"X_umap"``). None takes what is stored, in this order:
        ``X_umap``, the first ``fused_<method>``, ``X_pca``. Nothing is computed.
    ax, legend, title
        As in :func:`domains`.

    Above 100,000 points an even sample of them is drawn, and the title says so. Points are drawn in a fixed
    mixed order, so that no domain covers the others for being last.

    Raises
    ------
    InputError
        No embedding is stored, ``basis`` is unknown, or it has fewer than two dimensions.
    """
    table = _adapt.table(adata)
    found = _colors.categories(table, key)
    name = _basis(table, basis)
    xy, axis_names = _plane(table, name)
    # fixed and mixed: part of the drawing, not of the analysis
    order = np.random.default_rng(0).permutation(len(xy))[:MOST_POINTS]
    heading = f"Embedding ({_label(name)})" if title is None else title
    if len(xy) > MOST_POINTS and heading:
        heading += f", {MOST_POINTS:,} of {len(xy):,} points"
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes((5.6 if legend else 4.4, 4.2))
        size = float(np.clip(40_000 / max(len(order), 1), 1.5, 24.0))
        ax.scatter(
            xy[order, 0],
            xy[order, 1],
            s=size,
            c=found.rgba()[order],
            linewidths=0,
            rasterized=len(order) > _canvas.RASTER_ABOVE,
        )
        ax.set(xlabel=shown(axis_names[0]), ylabel=shown(axis_names[1]), xticks=[], yticks=[])
        ax.set_title(shown(heading, most=60) if heading else "")
        if legend:
            _canvas.legend(ax, found, title=key)
    return ax


def _basis(table: AnnData, basis: str | None) -> str:
    fused = sorted(k for k in table.obsm if k.startswith(_keys.FUSED_PREFIX))
    wanted = ["X_umap", *fused, _keys.PCA] if basis is None else [basis, f"X_{basis}", f"{_keys.FUSED_PREFIX}{basis}"]
    for name in wanted:
        if name in table.obsm:
            return name
    if basis is None:
        raise _check.problem(
            "no embedding is stored",
            found=f"obsm has {_check.listed(table.obsm)}",
            cure="run sm.fuse(adata), or sc.tl.umap(adata)",
        )
    raise _check.unknown("embedding", basis, [str(k) for k in table.obsm])


def _label(name: str) -> str:
    known = {"X_umap": "UMAP", "X_pca": "PCA"}
    return known.get(name, name)


def _plane(table: AnnData, name: str) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Two columns, float64 [n_obs, 2], and their names."""
    stored = table.obsm[name]
    width = stored.shape[1] if getattr(stored, "ndim", 0) == 2 else 0
    if width < 2:
        raise _check.problem(
            f"obsm[{name!r}] has fewer than two dimensions",
            found=f"{width}",
            cure="name another embedding with basis=",
        )
    if isinstance(stored, pd.DataFrame):
        columns = [str(c) for c in stored.columns[:2]]
        return stored.iloc[:, :2].to_numpy(dtype=np.float64), (
            f"{_label(name)}: {columns[0]}",
            f"{_label(name)}: {columns[1]}",
        )
    return np.asarray(stored[:, :2], dtype=np.float64), (f"{_label(name)} 1", f"{_label(name)} 2")
