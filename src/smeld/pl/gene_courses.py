"""Genes along an order of cells: smooth means with intervals, and a heat map by where they peak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _backed, _check, _keys
from smeld.kernels._threads import one_thread
from smeld.kernels.expression import log_normalise
from smeld.pl import _canvas, _colors, _panels, _places, trajectory_maps
from smeld.pl._text import shown
from smeld.pl.trajectory_tree import stored_tree

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]

#: points of a curve, and bins that cells are gathered in first
N_POINTS, N_FINE = 80, 200
#: squares along the section's longer side; cells of one square are no independent witnesses
BLOCKS = 12
#: a point of a curve stands for at least so many cells
LEAST_CELLS = 5.0
#: panels in a row, and size of one, inches
IN_A_ROW, PANEL_IN = 4, (2.35, 2.0)
MOST_PANELS = 40
#: colours of the heat map end at so many standard deviations of a gene's course
REACH = 2.0
#: q up to which a gene counts as found
FDR = 0.05
_TRANSITION_CURE = "run sm.tl.transition_genes(adata), or name genes="


def gene_courses(
    adata: AnnData,
    genes: str | Sequence[str],
    key: str = _keys.PSEUDOTIME,
    *,
    path: str | Sequence[str] | None = None,
    branch: Sequence[str] | None = None,
    n_bins: int = 12,
    layer: str | None = None,
    axes: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Expression along the order: a smooth mean and where it may lie, one panel a gene.

    Parameters
    ----------
    adata
        With ``obs[key]``, as ``sm.tl.trajectory`` writes it.
    genes
        One or several of ``var_names``, 40 at most.
    key
        Column of ``obs`` with the order.
    path
        A group of the tree: only cells of the groups from the root to it are shown; or the names of groups. None: all
        cells that are ordered.
    branch
        Some groups of the tree, usually two: a line for the way to each.
    n_bins
        Windows that would fit side by side along the order: each point of a curve is a mean of the cells near it
        (Gaussian weights, standard deviation half a window). Default 12; more follow the values closer.
    layer
        Layer that holds the values; ``X`` by default. Counts are shown as log(1 + counts at the median library size),
        other values as they are.
    axes
        As many axes as genes; None makes a figure with pyplot.

    Bands reach 1.96 standard errors to both sides. They are found from the spread between squares of tissue (a twelfth
    of the section's longer side), as neighbours are alike; they do not know how unsure the order is.

    Returns
    -------
    The axes, an object array [n_genes].

    Raises
    ------
    InputError
        A gene, a group or the order is not there, or the number of axes is wrong.
    """
    table = _adapt.table(adata)
    names = _few([genes] if isinstance(genes, str) else [str(g) for g in genes])
    lines = _lines(table, key, path, branch)
    values, label = _values(table, names, layer)
    with _canvas.style():
        size, shape = courses_layout(len(names))
        panels = _panels.panels(axes, len(names), "gene_courses", size=size, shape=shape)
        for color, (said, chosen) in zip(_colors.palette(len(lines)), lines.items()):
            grid, mean, error = courses(table, key, values, chosen, n_bins)
            for ax, m, e in zip(panels, mean.T, error.T):
                ax.fill_between(grid, m - 1.96 * e, m + 1.96 * e, color=color, alpha=0.22, lw=0)
                ax.plot(grid, m, color=color, lw=1.8, label=said)
        _dressed(panels, names, label, list(lines) if branch is not None else [])
    return panels


def gene_order(
    adata: AnnData,
    genes: Sequence[str] | None = None,
    key: str = _keys.PSEUDOTIME,
    *,
    n_genes: int = 30,
    path: str | Sequence[str] | None = None,
    n_bins: int = 12,
    layer: str | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Genes as rows, by where along the order they peak; colours from each gene's own mean.

    Parameters
    ----------
    adata
        With ``obs[key]``, as ``sm.tl.trajectory`` writes it.
    genes
        Some of ``var_names``; None: the most significant of ``uns["transition_genes"]``, from every third of the order.
    key
        Column of ``obs`` with the order.
    n_genes
        How many of the table are shown (default 30, as many as fit on a page).
    path, n_bins, layer
        As in :func:`gene_courses`.
    ax, title
        As in :func:`domains`.

    That a gene has a row says that it was chosen, not that it changes: noise has a peak, too.

    Raises
    ------
    InputError
        A gene, a group or the order is not there; no genes are given and none are stored.
    """
    table = _adapt.table(adata)
    trajectory_maps.stored_order(table, key)
    names, words = _chosen(table, genes, n_genes)
    chosen = _lines(table, key, path)[""]
    values, _ = _values(table, names, layer)
    grid, mean, _ = courses(table, key, values, chosen, n_bins)
    z = _standard(mean)
    rows = peak_order(z)
    with _canvas.style():
        ax = ax if ax is not None else _canvas.new_axes(order_size_in(len(names)))
        ax.imshow(
            z[:, rows].T, aspect="auto", cmap=_colors.colormap(_colors.DIVERGING), norm=Normalize(-REACH, REACH),
            interpolation="nearest", extent=(float(grid[0]), float(grid[-1]), len(names) - 0.5, -0.5),
        )  # fmt: skip
        ax.set_yticks(range(len(names)), [shown(names[i], most=18) for i in rows], style="italic")
        ax.tick_params(axis="y", length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(_along(path))
        ax.set_title(shown("Genes along pseudotime" if title is None else title, most=60) if title != "" else "")
        label = "SD from the gene's mean"
        _canvas.color_bar(ax, Normalize(-REACH, REACH), _colors.DIVERGING, label=label, extend="both")
        if words:
            _places.note(ax, words)
            ax.texts[-1].set_position((0, -32))
    return ax


def order_size_in(n_genes: int) -> tuple[float, float]:
    """Size in inches of a heat map of its own."""
    return 6.2, 1.2 + 0.17 * max(n_genes, 8)


def courses(table: AnnData, key: str, values: Float, chosen: Bool, n_bins: int) -> tuple[Float, Float, Float]:
    """(points along the order [m], means [m, n_genes], standard errors [m, n_genes]) of the ``chosen`` cells.

    NaN where too few cells lie near, or all of them in one square of tissue.
    """
    if n_bins < 1:
        raise _check.problem("n_bins must be at least 1", found=f"{n_bins}", cure="give 5 to 30")
    order = trajectory_maps.stored_order(table, key)[chosen]
    xy = _adapt.xy_um(table)
    square = np.floor((xy - xy.min(axis=0)) / max(float(np.ptp(xy, axis=0).max()) / BLOCKS, 1e-9)).astype(np.int64)
    block = np.unique(square[chosen], axis=0, return_inverse=True)[1].ravel()
    low, high = float(order.min()), float(order.max())
    span = max(high - low, 1e-9)
    fine = np.minimum((N_FINE * (order - low) / span).astype(np.int64), N_FINE - 1)
    grid = np.linspace(low, low + span, N_POINTS)
    middle = low + span * (np.arange(N_FINE) + 0.5) / N_FINE
    near = np.exp(-0.5 * ((grid[:, None] - middle) / (span / (2 * n_bins))) ** 2)
    found = [_one(values[chosen, g], block * N_FINE + fine, near) for g in range(values.shape[1])]
    return grid, np.stack([m for m, _ in found], axis=1), np.stack([e for _, e in found], axis=1)


def _one(values: Float, place: NDArray[np.int64], near: Float) -> tuple[Float, Float]:
    """(mean, standard error) at each point, from cells at ``place`` (block and bin in one number)."""
    shape = (int(place.max()) // N_FINE + 1, N_FINE)
    n, total = (np.bincount(place, w, shape[0] * N_FINE).reshape(shape) for w in (None, values))
    with one_thread():
        size, held = n @ near.T, total @ near.T  # [n_blocks, n_points]
    cells = size.sum(axis=0)
    mean = np.divide(held.sum(axis=0), cells, out=np.full(len(cells), np.nan), where=cells >= LEAST_CELLS)
    many = cells**2 / np.maximum((size**2).sum(axis=0), 1e-300)  # blocks that take part, as many equal ones
    spread = ((held - mean * size) ** 2).sum(axis=0)
    error = np.sqrt(spread * many / np.maximum(many - 1, 1e-9)) / np.maximum(cells, 1e-300)
    return mean, np.where(many >= 1.5, error, np.nan)


def _standard(mean: Float) -> Float:
    """Each column less its mean, over its standard deviation; 0 for one that does not change."""
    known = np.isfinite(mean).any(axis=1)
    out = np.full_like(mean, np.nan)
    part = mean[known]
    spread = np.nanstd(part, axis=0)
    out[known] = (part - np.nanmean(part, axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    return out


def peak_order(z: Float) -> NDArray[np.intp]:
    """Columns by where they peak; of those that peak together, by the middle of what lies above their mean."""
    filled = np.nan_to_num(z, nan=-np.inf)
    above = np.clip(np.nan_to_num(z), 0.0, None)
    middle = (above * np.arange(len(z))[:, None]).sum(axis=0) / np.maximum(above.sum(axis=0), 1e-12)
    return np.lexsort((middle, filled.argmax(axis=0)))


# ------------------------------------------------------------------------------------------------- what is asked for


def _few(names: list[str]) -> list[str]:
    if not 1 <= len(names) <= MOST_PANELS:
        raise _check.problem(
            f"a figure has room for 1 to {MOST_PANELS} genes",
            found=f"{len(names)}",
            cure="name fewer, or use gene_order",
        )
    return names


def _lines(
    table: AnnData, key: str, path: str | Sequence[str] | None, branch: Sequence[str] | None = None
) -> dict[str, Bool]:
    """By name of a line, the cells that it stands for."""
    known = np.isfinite(trajectory_maps.stored_order(table, key))
    if path is not None and branch is not None:
        raise _check.problem("path and branch cannot both be given", found="both", cure="leave one out")
    if branch is not None:
        ends = [branch] if isinstance(branch, str) else [str(b) for b in branch]
        return {f"to {end}": _of(table, key, known, groups_to(table, key, end)) for end in ends}
    if path is None:
        return {"": known}
    groups = groups_to(table, key, path) if isinstance(path, str) else [str(p) for p in path]
    return {"": _of(table, key, known, groups)}


def _of(table: AnnData, key: str, known: Bool, groups: list[str]) -> Bool:
    """The ordered cells of some groups."""
    names = trajectory_maps.group_names(table, key)
    if names is None:
        column = trajectory_maps.group_column(table, key)
        _check.require(table.obs.columns, column, "obs", "give back the labels that the tree was made with")
    chosen = known & np.isin(np.asarray(names), groups)
    if not chosen.any():
        found = f"groups {_check.listed(groups)[:120]}"
        raise _check.problem("no ordered cell lies on the path", found=found, cure="name a group of the tree")
    return chosen


def groups_to(table: AnnData, key: str, end: str) -> list[str]:
    """Names of the groups from the root to ``end``."""
    nodes = stored_tree(table, key, "group")[0]
    parent = dict(zip(nodes["node"], nodes["parent"]))
    if end not in parent:
        raise _check.unknown("group", end, parent)
    way = [end]
    while parent.get(way[-1], "none") in parent and parent[way[-1]] not in way:
        way.append(parent[way[-1]])
    return way[::-1]


def _chosen(table: AnnData, genes: Sequence[str] | None, n_genes: int) -> tuple[list[str], str]:
    """(genes to show, what is said of them)."""
    if genes is not None:
        names = list(dict.fromkeys([genes] if isinstance(genes, str) else [str(g) for g in genes]))
        if not names:
            raise _check.problem("there is nothing to show", found="no genes", cure="name at least one")
        return names, ""
    if n_genes < 1:
        raise _check.problem("there is nothing to show", found=f"n_genes={n_genes}", cure="show at least one")
    rows = _of_every_part(transition_table(table).drop_duplicates("gene"), n_genes)
    found = int((rows["qvalue"] <= FDR).sum())
    return list(rows["gene"]), f"{found} of these {len(rows)} have q ≤ {FDR:g} (transition genes)"


def _of_every_part(rows: pd.DataFrame, n_genes: int) -> pd.DataFrame:
    """The most significant genes of each third of the order, by where they peak, in turn: those of one sharp border
    would else take all places."""
    if "peak" not in rows:
        return rows.head(n_genes)
    good = rows[rows["qvalue"] <= FDR] if (rows["qvalue"] <= FDR).sum() >= n_genes else rows
    third = np.minimum(np.floor(good["peak"].fillna(0.0) * 3), 2)
    turn = good.groupby(third).cumcount()
    return good.assign(_turn=turn).sort_values(["_turn", "pvalue"], kind="stable").drop(columns="_turn").head(n_genes)


def transition_table(table: AnnData) -> pd.DataFrame:
    """``uns["transition_genes"]``, checked, most significant first."""
    name = _keys.TRANSITION_GENES
    _check.require(table.uns, name, "uns", _TRANSITION_CURE)
    stored = table.uns[name]
    lacking = [c for c in ("gene", "effect", "pvalue", "qvalue") if c not in getattr(stored, "columns", ())]
    if lacking or stored.empty:
        what = f"lacks {_check.listed(lacking)}" if lacking else "holds no gene"
        raise _check.problem(f"uns[{name!r}] {what}", found=f"{len(stored)} entries", cure=_TRANSITION_CURE)
    rows = stored.assign(gene=stored["gene"].astype(str), _size=-stored["effect"].abs())
    return rows.sort_values(["pvalue", "_size"], kind="stable").drop(columns="_size").reset_index(drop=True)


def _values(table: AnnData, names: list[str], layer: str | None) -> tuple[Float, str]:
    """(values [n_obs, n_genes] as they are shown, what they are)."""
    at = table.var_names.get_indexer(names) if table.var_names.is_unique else _first(table, names)
    if (at < 0).any():
        raise _check.unknown("gene", names[int(np.argmax(at < 0))], [str(v) for v in table.var_names])
    if layer is not None:
        _check.require(table.layers, layer, "layers", "name an existing layer, or leave it out to use X")
    stored = table.X if layer is None else table.layers[layer]
    if stored is None:
        raise _check.problem("the table has no matrix X", cure="name a layer")
    matrix = sparse.csr_matrix(_backed.in_memory_matrix(stored), dtype=np.float64)
    label = "X" if layer is None else shown(layer)
    if matrix.data.min(initial=0.0) >= 0 and _adapt.are_counts(matrix):
        matrix, label = log_normalise(matrix), "log(1 + counts)"
    return np.asarray(matrix[:, at].toarray(), dtype=np.float64), label


def _first(table: AnnData, names: list[str]) -> NDArray[np.intp]:
    place = {str(name): i for i, name in reversed(list(enumerate(table.var_names)))}
    return np.array([place.get(name, -1) for name in names], dtype=np.intp)


# ------------------------------------------------------------------------------------------------- panels


def courses_layout(n: int) -> tuple[tuple[float, float], tuple[int, int]]:
    """((width, height) in inches, (rows, columns)) of a figure of ``n`` genes."""
    columns = min(n, IN_A_ROW)
    rows = -(-n // columns)
    return (PANEL_IN[0] * columns + 0.9, PANEL_IN[1] * rows + 0.3), (rows, columns)


def _along(path: str | Sequence[str] | None) -> str:
    if path is None:
        return "pseudotime"
    return f"pseudotime, {'to ' + shown(path) if isinstance(path, str) else 'in ' + shown(', '.join(path))}"


def _dressed(panels: NDArray[Any], names: list[str], label: str, lines: list[str]) -> None:
    columns = min(len(panels), IN_A_ROW)
    for i, (ax, name) in enumerate(zip(panels, names)):
        ax.set_title(shown(name, most=22), style="italic")
        ax.set_xlim(-0.02, 1.02)
        if np.isfinite(ax.dataLim.ymin) and ax.get_ylim()[0] < 0 <= ax.dataLim.ymin:
            ax.set_ylim(bottom=0.0)
        if i >= len(panels) - columns:
            ax.set_xlabel("pseudotime")
        if i % columns == 0:
            ax.set_ylabel(label)
    if lines:
        handles = panels[columns - 1].get_lines()
        panels[columns - 1].legend(
            handles, [shown(line) for line in lines], loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0
        )
