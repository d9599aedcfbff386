"""Maps of an order of cells: over the section with its directions, within one domain, and where cells may end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.spatial import KDTree

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _places, _stored_pairs, maps, pair_maps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

CURE = "run sm.tl.trajectory(adata, root)"
#: arrows that a section's longer side has room for, and the longest in squares
MOST_ARROWS, LONG = 22, 0.95
#: a square's arrow is drawn where its cells' directions agree at least so far: of 9 at random, one time in ten
LEAST_AGREED = 0.5
ARROW = "#10182A"
#: an outline needs so many cells; fewer are ringed one by one
LEAST_OUTLINED = 8
#: narrow intervals are bright, as sure domains are
WIDTHS = "cividis_r"
MOST_NAME = 18
#: room around the cells of one domain, as a fraction of their extent
ROOM = 0.04


def pseudotime(
    adata: AnnData,
    key: str = _keys.PSEUDOTIME,
    *,
    arrows: bool = True,
    uncertainty: bool = False,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """The order of the cells over the section, and the way it goes; the root is outlined.

    Parameters
    ----------
    adata
        With ``obs[key]`` and ``obsm[f"{key}_direction"]``, as ``sm.tl.trajectory`` writes them.
    key
        Column of ``obs`` with the order (0 = root, 1 = end). Cells without one are grey.
    arrows
        Draw the mean direction of the cells in each of some squares. An arrow is long where the order changes fast and
        its cells agree; where they do not agree there is none.
    uncertainty
        Colour by the width of the interval (``obs[f"{key}_high"]`` less ``obs[f"{key}_low"]``) instead; bright is sure.
    image, alpha
        Draw the image beneath (where one is stored), opacity of the spots (0..1).
    ax, title, library_id
        As in :func:`section`.

    Raises
    ------
    InputError
        The order, its interval or its directions are not there.
    """
    table = _adapt.table(adata)
    order = stored_order(table, key)
    values, label, limits, colors = order, "pseudotime (0 root, 1 end)", (0.0, 1.0), "viridis"
    if uncertainty:
        values, label, colors = _widths(table, key), "width of the 90 % interval", WIDTHS
        limits = (0.0, maps._limits(values)[1])
    way = _directions(table, key) if arrows else None
    look: dict[str, Any] = {"image": image, "alpha": alpha, "library_id": library_id}
    ax = maps.continuous(table, values, ax=ax, title="", label=label, limits=limits, colors=colors, **look)
    with _canvas.style():
        if way is not None:
            _field(ax, _adapt.xy_um(table), way, np.isfinite(order), _canvas.touching_um(table, library_id))
        maps._title(ax, title, _heading(key) + (", how unsure" if uncertainty else ""))
        _places.note(ax, _said(table, key, order, _outlined_root(ax, table, key, library_id)))
    return ax


def local_pseudotime(
    adata: AnnData,
    label: str,
    *,
    key: str | None = None,
    arrows: bool = True,
    uncertainty: bool = False,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """The order within one group, as :func:`pseudotime` shows it, on the part of the section where its cells lie.

    Parameters
    ----------
    adata
        As ``sm.tl.trajectory(adata, root, within=label)`` leaves it.
    label
        The group that was ordered.
    key
        Column of ``obs`` with the order; ``f"pseudotime_{label}"`` by default.
    arrows, uncertainty, image, alpha
        As in :func:`pseudotime`.
    ax, title, library_id
        As in :func:`section`.

    Raises
    ------
    InputError
        The group was not ordered.
    """
    table = _adapt.table(adata)
    name = key or f"{_keys.PSEUDOTIME}_{label}"
    cure = f"run sm.tl.trajectory(adata, root, within={str(label)[:80]!r})"
    order = stored_order(table, name, cure=cure)
    xy = _adapt.xy_um(table)
    low, high = xy[np.isfinite(order)].min(axis=0), xy[np.isfinite(order)].max(axis=0)
    room = ROOM * float((high - low).max()) + _canvas.touching_um(table, library_id)
    # a view of the cells in the box, so that frame, image and scale bar follow from them as in any map
    near = table[((xy >= low - room) & (xy <= high + room)).all(axis=1)]
    return pseudotime(
        near,
        name,
        arrows=arrows,
        uncertainty=uncertainty,
        ax=ax,
        image=image,
        alpha=alpha,
        title=f"Pseudotime within {label}" if title is None else title,
        library_id=library_id,
    )


def fates(
    adata: AnnData,
    key: str = _keys.PSEUDOTIME,
    *,
    axes: NDArray[Any] | None = None,
    image: bool = False,
    library_id: str | None = None,
) -> NDArray[Any]:
    """Small maps of the chance that a cell ends in each terminal group, colours always from 0 to 1.

    Parameters
    ----------
    adata
        With ``obsm[f"{key}_fates"]``, as ``sm.tl.trajectory`` writes it.
    key
        Column of ``obs`` with the order.
    axes
        As many axes as terminals; None makes a figure with pyplot, with up to three in a row.
    image, library_id
        Passed to the maps, see :func:`domains`.

    Returns
    -------
    The axes, an object array [n_terminals]. The terminal itself is outlined.

    Raises
    ------
    InputError
        The chances are not stored, or the number of axes is wrong.
    """
    table = _adapt.table(adata)
    chances = stored_fates(table, key)
    with _canvas.style():
        if axes is None:
            from matplotlib import pyplot as plt

            size, shape = fates_layout(table, chances.shape[1], library_id)
            _, axes = plt.subplots(*shape, figsize=size, layout="compressed", squeeze=False)
            unused = axes.ravel()[chances.shape[1] :]
            for ax in unused:
                ax.remove()
            axes = axes.ravel()[: chances.shape[1]]
        panels = checked(axes, chances.shape[1], "fates")
        names = group_names(table, key)
        for ax, name in zip(panels, chances.columns):
            values = np.clip(chances[name].to_numpy(dtype=np.float64), 0.0, 1.0)  # solved for, up to rounding
            maps.continuous(
                table, values, ax=ax, image=image, library_id=library_id, label="chance", limits=(0.0, 1.0),
                title="Ends in " + _cut(name),
            )  # fmt: skip
            if names is not None:
                outline(ax, table, names == str(name), library_id)
    return panels


def fates_layout(table: AnnData, n: int, library_id: str | None = None) -> tuple[tuple[float, float], tuple[int, int]]:
    """((width, height) in inches, (rows, columns)) of a figure of ``n`` maps."""
    width, height = _canvas.size_in(table, library_id, beside=0.9)
    columns = min(n, 3)
    rows = -(-n // columns)
    return (0.72 * width * columns, 0.72 * height * rows), (rows, columns)


# ------------------------------------------------------------------------------------------------- what is stored


def stored_order(table: AnnData, key: str, *, cure: str = CURE) -> Float:
    """``obs[key]``, float64 [n_obs]; NaN where there is none."""
    _check.require(table.obs.columns, key, "obs", cure)
    column = table.obs[key]
    if column.dtype.kind not in "fiu":
        raise _check.problem(f"obs[{key!r}] is no order of cells", found=f"{column.dtype}, not numbers", cure=cure)
    order = np.asarray(column, dtype=np.float64)
    if not np.isfinite(order).any():
        raise _check.problem(f"obs[{key!r}] orders no cell", found="NaN alone", cure=cure)
    return order


def stored_fates(table: AnnData, key: str) -> pd.DataFrame:
    """``obsm[f"{key}_fates"]``, a column by terminal."""
    name = f"{key}_fates"
    _check.require(table.obsm, name, "obsm", CURE)
    found = table.obsm[name]
    if not hasattr(found, "columns") or not len(found.columns):
        raise _check.problem(f"obsm[{name!r}] has no named columns", found=type(found).__name__, cure=CURE)
    return found


def group_column(table: AnnData, key: str) -> str:
    """The column of ``obs`` whose labels are the nodes."""
    entry = table.uns.get(_keys.RECORD, {}).get(key, {})
    return str(entry.get("inputs", {}).get("groups", _keys.DOMAIN))


def group_names(table: AnnData, key: str) -> NDArray[Any] | None:
    """The node of every cell by name, "" where it has none; None where the labels are gone."""
    column = group_column(table, key)
    if column not in table.obs.columns:
        return None
    number, names = _adapt.numbered(table.obs[column])
    return np.array([*names, ""], dtype=object)[number]


def checked(axes: Any, n: int, what: str) -> NDArray[Any]:
    """The axes as an array of ``n``."""
    panels = np.asarray(axes, dtype=object).ravel()
    if len(panels) != n:
        raise _check.problem(f"{what} needs {n} axes", found=f"{len(panels)}", cure="leave axes= out, or give as many")
    return panels


def _widths(table: AnnData, key: str) -> Float:
    for end in ("low", "high"):
        _check.require(table.obs.columns, f"{key}_{end}", "obs", CURE)
    return np.asarray(table.obs[f"{key}_high"] - table.obs[f"{key}_low"], dtype=np.float64)


def _directions(table: AnnData, key: str) -> Float:
    name = f"{key}_direction"
    _check.require(table.obsm, name, "obsm", f"{CURE}, or leave them out with arrows=False")
    return np.nan_to_num(np.asarray(table.obsm[name], dtype=np.float64)[:, :2])


def _cut(name: object) -> str:
    """What a small map's heading has room for."""
    text = str(name)
    return text if len(text) <= MOST_NAME else text[: MOST_NAME - 1] + "…"


def _heading(key: str) -> str:
    return "Pseudotime" if key == _keys.PSEUDOTIME else key


def _said(table: AnnData, key: str, order: Float, n_root: int) -> str:
    words = [f"outlined: the root ({_stored_pairs.noun_of(table, n_root)})"] if n_root else []
    lost = int((~np.isfinite(order)).sum())
    if lost:
        words.append(f"grey: {_stored_pairs.noun_of(table, lost)} not ordered")
    return "; ".join(words)


# ------------------------------------------------------------------------------------------------- what is drawn


def _field(ax: Axes, xy: Float, way: Float, known: Bool, touching_um: float) -> None:
    """Mean direction by square; a cell's own counts no more than nearly all others' do, so that none rules alone."""
    length = np.hypot(*way.T)
    known = known & (length > 0)
    if not known.any():
        return
    most = float(np.quantile(length[known], 0.9))
    way = way[known] * np.minimum(1.0, most / length[known])[:, None] / most
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    side = max(1.5 * touching_um, max(abs(right - left), abs(top - bottom)) / MOST_ARROWS)
    at, mean = pair_maps._thinned(xy[known], way, side)
    fast = pair_maps._thinned(xy[known], np.repeat(np.hypot(*way.T)[:, None], 2, axis=1), side)[1][:, 0]
    reach = np.hypot(*mean.T)
    agree = reach >= LEAST_AGREED * np.maximum(fast, 1e-12)
    # square roots: slow stretches keep an arrow that can be read
    arrows = LONG * side * mean * (np.sqrt(np.minimum(reach, 1.0)) / np.maximum(reach, 1e-12))[:, None]
    drawn = ax.quiver(
        *at[agree].T, *arrows[agree].T, pivot="mid", angles="xy", scale_units="xy", scale=1.0, units="xy",
        width=0.11 * side, color=ARROW, edgecolor="white", linewidth=0.5, headwidth=3.8, headlength=4.0,
        headaxislength=3.6, minlength=0.3, zorder=4,
    )  # fmt: skip
    drawn.set_gid("arrows")


def _outlined_root(ax: Axes, table: AnnData, key: str, library_id: str | None) -> int:
    """Outline the root; the number of its cells."""
    name = f"{key}_root"
    if name not in table.obs.columns:
        return 0
    root = np.asarray(table.obs[name], dtype=bool)
    outline(ax, table, root, library_id)
    return int(root.sum())


def outline(ax: Axes, table: AnnData, inside: Bool, library_id: str | None) -> None:
    """A line around the cells ``inside`` [n_obs]: dark with a light rim, seen on every colour."""
    if not inside.any():
        return
    xy, pitch = _adapt.xy_um(table), _canvas.touching_um(table, library_id)
    grid = _share(xy, inside, pitch) if int(inside.sum()) >= LEAST_OUTLINED else None
    if grid is None or grid[2].max() <= 0.5:
        for width, color in ((2.6, "white"), (1.2, ARROW)):
            ax.scatter(
                xy[inside, 0], xy[inside, 1], s=50, facecolors="none", edgecolors=color, linewidths=width, zorder=3
            )
        return
    for width, color in ((2.6, "white"), (1.2, ARROW)):
        ax.contour(*grid, levels=[0.5], colors=color, linewidths=width, zorder=3)


def _share(xy: Float, inside: Bool, pitch: float) -> tuple[Float, Float, Float]:
    """(x, y, share of the nearest cells that are ``inside``) on a grid around them, 0 off the tissue."""
    low, high = xy[inside].min(axis=0) - 2 * pitch, xy[inside].max(axis=0) + 2 * pitch
    step = max(pitch / 3, float((high - low).max()) / 300)
    x, y = (np.arange(a, b + step, step) for a, b in zip(low, high))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    away, nearest = KDTree(xy).query(points, k=min(4, len(xy)))
    away, nearest = away.reshape(len(points), -1), nearest.reshape(len(points), -1)
    weight = 1.0 / (away + 0.1 * pitch) ** 2
    share = (weight * inside[nearest]).sum(axis=1) / weight.sum(axis=1) * (away[:, 0] < pitch)
    return x, y, share.reshape(len(y), len(x))
