"""Proportions of cell types: a map for each type, how unsure they are, where types are absent; or pies at the spots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from smeld import _adapt, _check
from smeld.pl import _canvas, _colors, _panels, _places, maps, trajectory_maps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Float = NDArray[np.float64]

KEY = "cell_type_proportions"
CURE = "run sm.tl.deconvolve(adata, reference)"
#: maps side by side, and types in pies, where none are named: those with the largest shares
MOST_MAPS, MOST_SLICES = 9, 10
#: pies that a figure has room for, each large enough to be read
MOST_PIES = 250
#: points of a full circle
ROUND = 40
OTHER = "#C9C9C9"
#: what maps can show: (words of the scale, colour map)
SHOWN = {
    "share": ("share", _colors.SEQUENTIAL),
    "width": ("interval's width", trajectory_maps.WIDTHS),
    "absent": ("chance of absence", _colors.SEQUENTIAL),
}


def proportions(
    adata: AnnData,
    types: Sequence[str] | None = None,
    *,
    kind: str = "map",
    show: str = "share",
    key: str = KEY,
    region_um: tuple[float, float, float, float] | None = None,
    vmax: float | None = None,
    axes: NDArray[Any] | Axes | None = None,
    image: bool = False,
    title: str | None = None,
    library_id: str | None = None,
) -> NDArray[Any]:
    """How much of each cell type the spots hold: a small map a type, or pies at the spots.

    Parameters
    ----------
    adata
        With ``obsm[key]``, as ``sm.tl.deconvolve`` writes it.
    types
        Types to show, by name. None: those with the largest mean shares, nine in maps and ten in pies. The others are
        one grey slice, together with what types have that are likelier absent from the spot than not.
    kind
        ``"map"`` or ``"pie"``. Pies must be large to be read: of more than 250 spots those in the middle of the section
        are drawn, unless ``region_um`` says which; a small outline shows where they lie.
    show
        Of maps: ``"share"``; ``"width"`` of the interval (``obsm[f"{key}_high"]`` less ``obsm[f"{key}_low"]``; bright
        is sure); or ``"absent"``, the chance that the type is not there.
    key
        Key in ``obsm``.
    region_um
        x0, y0, x1, y1 in micrometres: only spots in it are drawn.
    vmax
        Of maps: where their colours end, for maps that are to be compared; greater values have the last colour.
    axes
        As many axes as maps, one for pies; None makes a figure with pyplot, with up to three maps in a row.
    image
        Draw the image beneath (where one is stored).
    title
        Heading of pies; None says what is shown, "" shows none. Maps have the names of their types.
    library_id
        As in :func:`section`.

    Colours of maps run from 0 to ``vmax``, else to the 99.5th percentile of the type's own spots: compare them by their
    scales then. Those of ``"absent"`` run from 0 to 1.

    Returns
    -------
    The axes, an object array [n_types]; of pies [1].

    Raises
    ------
    InputError
        Proportions or types are not there, a region holds no spot or too many pies, ``vmax`` is not above 0, or the
        number of axes is wrong.
    """
    table = _adapt.table(adata)
    if kind not in ("map", "pie"):
        raise _check.unknown("kind", kind, ("map", "pie"))
    if show not in SHOWN:
        raise _check.unknown("show", show, SHOWN)
    shares = stored_proportions(table, key)
    names = chosen(shares, types, MOST_MAPS if kind == "map" else MOST_SLICES)
    if kind == "pie" and show != "share":
        raise _check.problem("pies show shares", found=f"show={show!r}", cure='leave show= out, or give kind="map"')
    if vmax is not None and not vmax > 0:
        raise _check.problem("vmax must be a number above 0", found=repr(vmax))
    inside = _inside(table, region_um)
    if kind == "pie":
        slices, kinds = _slices(shares, names, _likely_absent(table, key))
        return _pies(table, slices, kinds, inside, region_um, axes, image, title, library_id)
    part = table if inside.all() else table[inside]
    values = _values(table, key, show)[inside]
    size, shape = layout(part, len(names), library_id)
    made = _panels.panels(axes, len(names), "proportions", size=size, shape=shape)
    for ax, name in zip(made, names):
        _map(part, values[name].to_numpy(dtype=np.float64), name, show, vmax, ax, image, library_id)
        # many maps are many spots: all together they are to open as fast as one
        if part.n_obs * len(names) > _canvas.RASTER_ABOVE:
            ax.collections[0].set(rasterized=True, antialiased=False)
    return made


def layout(table: AnnData, n: int, library_id: str | None = None) -> tuple[tuple[float, float], tuple[int, int]]:
    """((width, height) in inches, (rows, columns)) of a figure of ``n`` maps."""
    return trajectory_maps.fates_layout(table, n, library_id)


def pie_size_in(table: AnnData, key: str = KEY, library_id: str | None = None) -> tuple[float, float]:
    """Size in inches of a figure of pies, without a region."""
    return _canvas.size_in(table[_readable(table, np.ones(table.n_obs, dtype=bool))], library_id, beside=1.7)


# ------------------------------------------------------------------------------------------------- what is stored


def stored_proportions(table: AnnData, key: str = KEY) -> pd.DataFrame:
    """``obsm[key]``, a column a type."""
    _check.require(table.obsm, key, "obsm", CURE)
    found = table.obsm[key]
    if not hasattr(found, "columns") or not len(found.columns):
        raise _check.problem(f"obsm[{key!r}] has no named columns", found=type(found).__name__, cure=CURE)
    return found.set_axis([str(c) for c in found.columns], axis=1)


def chosen(shares: pd.DataFrame, types: Sequence[str] | None, most: int) -> list[str]:
    """The types that are named, or the ``most`` with the largest mean shares, in the table's order."""
    known = list(shares.columns)
    if types is not None:
        asked = [types] if isinstance(types, str) else [str(name) for name in types]
        for name in asked:
            if name not in known:
                raise _check.unknown("type", name, known)
        if not asked:
            raise _check.problem("there is nothing to show", found="no type", cure="name at least one")
        return list(dict.fromkeys(asked))
    mean = shares.mean(axis=0).to_numpy(dtype=np.float64)
    kept = set(np.argsort(-np.nan_to_num(mean), kind="stable")[:most])
    return [name for i, name in enumerate(known) if i in kept]


def _values(table: AnnData, key: str, show: str) -> pd.DataFrame:
    if show == "share":
        return stored_proportions(table, key)
    if show == "absent":
        return stored_proportions(table, f"{key}_absent")
    return stored_proportions(table, f"{key}_high") - stored_proportions(table, f"{key}_low")


def _inside(table: AnnData, region_um: Any) -> NDArray[np.bool_]:
    if region_um is None:
        return np.ones(table.n_obs, dtype=bool)
    xy = _adapt.xy_um(table)
    x0, y0, x1, y1 = (float(v) for v in region_um)
    inside = (xy >= [min(x0, x1), min(y0, y1)]).all(axis=1) & (xy <= [max(x0, x1), max(y0, y1)]).all(axis=1)
    if not inside.any():
        ends = np.concatenate([xy.min(axis=0), xy.max(axis=0)])
        found = "spots from {:g}, {:g} to {:g}, {:g} um".format(*ends)
        raise _check.problem("no spot lies in region_um", found=found, cure="give x0, y0, x1, y1 in micrometres")
    return np.asarray(inside)


def _readable(table: AnnData, inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The spots in a square about the middle one, no more than can be read."""
    if int(inside.sum()) <= MOST_PIES:
        return inside
    xy = _adapt.xy_um(table)
    middle = xy[np.abs(xy - np.median(xy, axis=0)).max(axis=1).argmin()]
    away = np.abs(xy - middle).max(axis=1)
    return np.asarray(away < np.sort(away)[MOST_PIES])


# ---------------------------------------------------------------------------------------------------- what is drawn


def _map(
    part: AnnData,
    values: Float,
    name: str,
    show: str,
    vmax: float | None,
    ax: Axes,
    image: bool,
    library_id: str | None,
) -> None:
    words, colors = SHOWN[show]
    limits = (0.0, 1.0 if show == "absent" else vmax or maps._limits(values)[1])
    maps.continuous(
        part, values, ax=ax, image=image, library_id=library_id, label=words, limits=limits, colors=colors,
        title=trajectory_maps._cut(name),
    )  # fmt: skip


def _pies(
    table: AnnData,
    slices: Float,
    kinds: _colors.Categories,
    inside: NDArray[np.bool_],
    region_um: Any,
    axes: Any,
    image: bool,
    title: str | None,
    library_id: str | None,
) -> NDArray[Any]:
    if region_um is not None and int(inside.sum()) > MOST_PIES:
        found = f"{int(inside.sum()):,} spots in region_um"
        raise _check.problem("so many pies cannot be read", found=found, cure=f"give a region with {MOST_PIES} or less")
    drawn = _readable(table, inside)
    part = table if drawn.all() else table[drawn]
    size = _canvas.size_in(part, library_id, beside=1.7)
    (ax,) = made = _panels.panels(axes, 1, "pies", size=size, shape=(1, 1))
    with _canvas.style():
        _canvas.prepare(part, ax, library_id=library_id)
        if image:
            _canvas.add_image(part, ax, library_id, pale=True)
        radius = 0.48 * _canvas._spacing_um(table, 1)  # of the whole section, where spots have all their neighbours
        ax.add_collection(wedges(_adapt.xy_um(part), slices[drawn], radius, kinds.colors), autolim=False)
        _canvas.legend(ax, kinds, title="cell type")
        maps._title(ax, title, "Cell types")
        if not drawn.all():
            _places.note(ax, f"{int(drawn.sum()):,} of {table.n_obs:,} {_canvas.noun(table, library_id)}s")
            _where(ax, table, part)
    return made


def _likely_absent(table: AnnData, key: str) -> NDArray[np.bool_] | None:
    """Where types are more likely absent than present [n_obs, n_types]; None where that is not stored."""
    if f"{key}_absent" not in table.obsm:
        return None
    return np.asarray(stored_proportions(table, f"{key}_absent").to_numpy(dtype=np.float64) > 0.5)


def _slices(
    shares: pd.DataFrame, names: list[str], absent: NDArray[np.bool_] | None
) -> tuple[Float, _colors.Categories]:
    """(shares [n_obs, n slices] whose rows sum to 1, names and colours); the last slice, grey, is what was not named
    and what types have that are likely ``absent``."""
    palette = dict(zip(shares.columns, _colors.palette(shares.shape[1])))
    values = np.clip(np.nan_to_num(shares.to_numpy(dtype=np.float64)), 0.0, None)
    at = [list(shares.columns).index(name) for name in names]
    total = values.sum(axis=1, keepdims=True)
    values = np.divide(values, total, out=np.zeros_like(values), where=total > 0)
    made, colors, words = values[:, at], [palette[name] for name in names], list(names)
    if absent is not None:
        made = np.where(absent[:, at], 0.0, made)
    others = values.shape[1] - len(at)
    if others or absent is not None:
        made = np.column_stack([made, np.clip(values.sum(axis=1) - made.sum(axis=1), 0.0, 1.0)])
        parts = [f"{others} other{'s' * (others > 1)}"] * (others > 0) + ["likely absent"] * (absent is not None)
        words.append(", ".join(parts))
        colors.append(OTHER)
    return made, _colors.Categories(np.arange(len(words)), words, colors)


def wedges(xy: Float, slices: Float, radius_um: float, colors: list[str]) -> PolyCollection:
    """Pies at ``xy`` [n, 2] of ``slices`` [n, k], clockwise from the top."""
    ends = np.cumsum(slices, axis=1)
    outlines, fill = [], []
    for i, k in zip(*np.nonzero(slices > 1e-6)):
        low, high = ends[i, k] - slices[i, k], ends[i, k]
        turn = 2 * np.pi * np.linspace(low, high, 2 + int(ROUND * (high - low)))
        rim = xy[i] + radius_um * np.column_stack([np.sin(turn), -np.cos(turn)])  # y points down
        outlines.append(rim if high - low > 1 - 1e-6 else np.vstack([xy[i], rim]))
        fill.append(colors[k])
    return PolyCollection(outlines, facecolors=fill, edgecolors="white", linewidths=0.25, zorder=2)


def _where(ax: Axes, table: AnnData, part: AnnData) -> None:
    """Below the legend: all spots as grey dots, and a frame around those that are drawn."""
    xy, near = _adapt.xy_um(table), _adapt.xy_um(part)
    width_in = ax.get_window_extent().width / ax.figure.dpi
    inset = ax.inset_axes((1.02, 0.0, 0.9 / width_in, 0.9 / width_in), anchor="SW")
    some = xy[:: -(-len(xy) // 4000)]
    inset.scatter(some[:, 0], some[:, 1], s=0.6, c=OTHER, linewidths=0, rasterized=True)
    low, high = near.min(axis=0), near.max(axis=0)
    inset.add_patch(Rectangle((float(low[0]), float(low[1])), *(high - low), fill=False, ec="#10182A", lw=1.0))
    inset.set_aspect("equal")
    inset.invert_yaxis()
    inset.set_axis_off()
