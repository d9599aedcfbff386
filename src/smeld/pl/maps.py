"""Maps of a section: its H&E alone, its domains, how sure they are, and a gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_rgba
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _backed, _check, _keys
from smeld.pl import _canvas, _colors
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData


def section(adata: AnnData, *, ax: Axes | None = None, title: str | None = None, library_id: str | None = None) -> Axes:
    """The stained section alone, cut to its spots; where no image is stored, the spots in grey.

    Parameters
    ----------
    adata
        With ``obsm["spatial_um"]`` (micrometres); the image stored in ``uns["spatial"]`` is used.
    ax
        Axes to draw on. None makes a figure with pyplot, so that notebooks display it; give axes of a
        ``matplotlib.figure.Figure`` to stay clear of pyplot. Figures of several axes should have
        ``layout="compressed"``, which leaves room for legends.
    title
        None says what is shown; "" shows no title.
    library_id
        Section in ``uns["spatial"]``; needed only where several are stored.
    """
    table = _adapt.table(adata)
    with _canvas.style():
        ax = _canvas.prepare(table, ax, library_id=library_id, beside=0.2)
        drawn = _canvas.add_image(table, ax, library_id)
        if not drawn:
            grey = np.tile(to_rgba("#8A8A8A"), (table.n_obs, 1))
            _canvas.add_spots(table, ax, grey, touching=True, library_id=library_id)
        _title(ax, title, "Section (H&E)" if drawn else "Section (no image)")
    return ax


def domains(
    adata: AnnData,
    key: str = _keys.DOMAIN,
    *,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    legend: bool = True,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """Each spot in the colour of its domain, over the section's image.

    Spots have their true size, so that the tissue shows between them; where no image lies beneath, they are
    widened until neighbours touch.

    Parameters
    ----------
    adata
        With ``obsm["spatial_um"]`` and labels in ``obs[key]``.
    key
        Column of labels. Colours are those of ``uns[f"{key}_colors"]``, else smeld's palette in the order of
        the categories; nothing is written. Spots without a label are grey.
    image, alpha, legend
        Draw the image beneath (where one is stored), opacity of the spots (0..1), draw the legend outside the
        axes.
    ax, title, library_id
        As in :func:`section`.

    Raises
    ------
    InputError
        ``obs[key]`` is missing or holds no labels.
    """
    table = _adapt.table(adata)
    found = _colors.categories(table, key)
    with _canvas.style():
        ax = _canvas.prepare(table, ax, library_id=library_id, beside=1.4 if legend else 0.2)
        beneath = image and _canvas.add_image(table, ax, library_id, pale=True)
        _canvas.add_spots(table, ax, found.rgba(), alpha=alpha, touching=not beneath, library_id=library_id)
        if legend:
            _canvas.legend(ax, found, title=key)
        _title(ax, title, "Domains" if key == _keys.DOMAIN else key)
    return ax


def confidence(
    adata: AnnData,
    key: str = _keys.DOMAIN,
    *,
    ax: Axes | None = None,
    image: bool = False,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """How sure the assignment of each spot is: ``obs[f"{key}_confidence"]``, colours always from 0 to 1.

    Parameters are those of :func:`domains`. The image is left out by default: it would compete with the
    colours.
    """
    table = _adapt.table(adata)
    column = f"{key}{_keys.CONFIDENCE_SUFFIX}"
    _check.require(table.obs.columns, column, "obs", "run sm.tl.domains(adata)")
    values = np.asarray(table.obs[column], dtype=np.float64)
    heading = "Confidence" if key == _keys.DOMAIN else column
    return continuous(
        table,
        values,
        ax=ax,
        image=image,
        alpha=alpha,
        title=heading if title is None else title,
        library_id=library_id,
        label="confidence",
        limits=(0.0, 1.0),
        colors=_colors.CONFIDENCE,
    )


def gene(
    adata: AnnData,
    gene: str,
    *,
    layer: str | None = None,
    log: bool = True,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """One gene over the section.

    Parameters
    ----------
    gene
        One of ``var_names``.
    layer
        Layer to take; None takes ``X``.
    log
        Show log(1 + value); values below zero are shown as they are.
    adata, ax, image, alpha, title, library_id
        As in :func:`domains`.

    The colour scale ends at the 99.5th percentile of the spots (or at the maximum, if that is zero); brighter
    spots are drawn in the last colour, and an arrow on the scale says so.

    Raises
    ------
    InputError
        The gene or the layer is unknown; the message names the nearest gene.
    """
    table = _adapt.table(adata)
    values = _column(table, gene, layer)
    label = "counts" if layer is None else shown(layer)
    if log and (not values.size or np.nanmin(values) >= 0):
        values, label = np.log1p(values), f"log(1 + {label})"
    return continuous(
        table,
        values,
        ax=ax,
        image=image,
        alpha=alpha,
        title=gene if title is None else title,
        library_id=library_id,
        label=label,
    )


def continuous(
    adata: AnnData,
    values: NDArray[np.float64],
    *,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str = "",
    library_id: str | None = None,
    label: str = "",
    limits: tuple[float, float] | None = None,
    colors: str = _colors.SEQUENTIAL,
) -> Axes:
    """Any number per spot, float [n_obs], as a map with a colour bar; NaN is grey; ``limits`` fix it."""
    low, high = limits or _limits(values)
    norm = Normalize(low, high)
    extend = _BEYOND[bool((values < low).any()), bool((values > high).any())]
    with _canvas.style():
        ax = _canvas.prepare(adata, ax, library_id=library_id, beside=1.0)
        beneath = image and _canvas.add_image(adata, ax, library_id, pale=True)
        rgba = _colors.colormap(colors)(norm(np.ma.masked_invalid(values)))
        discs = np.asarray(rgba, dtype=np.float64)
        _canvas.add_spots(adata, ax, discs, alpha=alpha, touching=not beneath, library_id=library_id)
        _canvas.color_bar(ax, norm, colors, label=label, extend=extend)
        _title(ax, title, "")
    return ax


#: (some below, some above) -> the arrows of the colour bar
_BEYOND = {
    (False, False): "neither",
    (True, False): "min",
    (False, True): "max",
    (True, True): "both",
}


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """From zero (or the minimum, if negative) to the 99.5th percentile, or else to the maximum."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low = min(float(finite.min()), 0.0)
    high = next((h for h in (float(np.quantile(finite, 0.995)), float(finite.max())) if h > low), low + 1.0)
    return low, high


def _column(table: AnnData, gene: str, layer: str | None) -> NDArray[np.float64]:
    place = np.flatnonzero(np.asarray(table.var_names == gene))
    if not place.size:
        raise _check.unknown("gene", gene, [str(name) for name in table.var_names])
    if layer is not None:
        _check.require(table.layers, layer, "layers", "name an existing layer, or leave it out to use X")
    matrix = table.X if layer is None else table.layers[layer]
    if matrix is None:
        raise _check.problem("the table has no matrix X", cure="name a layer")
    column = _backed.in_memory_matrix(matrix[:, [int(place[0])]])
    return np.asarray(column.toarray() if sparse.issparse(column) else column, dtype=np.float64).ravel()


def _title(ax: Axes, title: str | None, default: str) -> None:
    ax.set_title(shown(default if title is None else title, most=60) if title != "" else "")
