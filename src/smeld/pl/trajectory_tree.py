"""The tree of groups along an order: by itself, pseudotime to the right, or over the section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _colors, _places, type_network
from smeld.pl._text import shown
from smeld.pl.trajectory_maps import CURE

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]

NODE_COLUMNS = (
    *("level", "node", "n_cells", "pseudotime", "pseudotime_10", "pseudotime_90", "parent", "branch", "x_um", "y_um"),
)
EDGE_COLUMNS = ("level", "from", "to", "support", "in_tree")
LEVELS = ("group", "piece")
TRUNK, OTHER = "#4D4D4D", "#8A8A8A"
#: radius of the largest and of the smallest node, points
LARGEST_PT, SMALLEST_PT = 8.0, 3.2
#: width of an edge that every bootstrap has, and of one that few have, points
WIDEST_PT, NARROWEST_PT = 3.4, 0.8
#: edges outside the tree are drawn from this support on, the best supported ones and no more than there are nodes
LEAST_SUPPORT = 0.05
#: nodes of one lane nearer in pseudotime than this get out of each other's way
NEAR = 0.06
APART_PT, BEND = 42.0, 0.22
#: distance of its support from an edge, points
BESIDE_PT = 7.5
FAINT = 0.3


def trajectory_tree(
    adata: AnnData,
    key: str = _keys.PSEUDOTIME,
    *,
    level: str = "group",
    on_section: bool = False,
    ax: Axes | None = None,
    image: bool = True,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """The tree that groups of cells form along the order, by itself or over the section.

    A node is a group: its area says how many cells it has, its colour which branch it is on. By itself, it lies at the
    median of its cells, with a band from their 10th to their 90th percentile. An edge is as wide as its support, the
    share of bootstraps that have it, which stands beside it. Dashed: not in the tree, but in 5 % of the bootstraps or
    more (of many, as many as there are nodes).

    Parameters
    ----------
    adata
        With ``uns[f"{key}_nodes"]`` and ``uns[f"{key}_edges"]``, as ``sm.tl.trajectory`` writes them.
    key
        Prefix of the two tables.
    level
        ``"group"``, or ``"piece"`` for the connected pieces of the groups.
    on_section
        Draw it over the section, nodes in the middle of their cells (nodes too near to each other are moved apart).
    image
        Over the section: draw the image beneath, where one is stored.
    ax, title, library_id
        As in :func:`section`. Names are placed at the size that the axes have now: draw this panel last.

    Raises
    ------
    InputError
        The tables are missing or lack a column, or ``level`` is none of the two.
    """
    table = _adapt.table(adata)
    nodes, edges = stored_tree(table, key, level)
    nodes = nodes if on_section else nodes[np.isfinite(nodes["pseudotime"])].reset_index(drop=True)
    edges = _drawn(nodes, edges)
    colors = _branch_colors(nodes)
    with _canvas.style():
        if on_section:
            ax = _canvas.prepare(table, ax, library_id=library_id, beside=1.7)
            beneath = image and _canvas.add_image(table, ax, library_id, pale=True)
            rgba = _cells(table, key, level, colors)
            _canvas.add_spots(table, ax, rgba, alpha=FAINT, touching=not beneath, library_id=library_id)
        else:
            ax = ax if ax is not None else _canvas.new_axes(size_in(nodes))
            lanes = _lanes(nodes)
            _frame(ax, lanes)
        _legend(ax, colors, edges)
        ax.set_title(shown("Tree of groups" if title is None else title, most=60) if title != "" else "")
        where = nodes[["x_um", "y_um"]]
        if on_section:
            _places.note(ax, "%: share of bootstraps; area: cells")
        else:
            where = nodes[["pseudotime"]].assign(lane=lanes)
            _bands(ax, nodes, lanes, colors)
        _draw(ax, nodes, edges, where.to_numpy(dtype=np.float64), colors, moved=on_section)
    return ax


def size_in(nodes: pd.DataFrame) -> tuple[float, float]:
    """Size in inches of a figure of the tree by itself."""
    lanes = _lanes(nodes[np.isfinite(nodes["pseudotime"])].reset_index(drop=True))
    return 8.0, float(np.clip(1.5 + 0.62 * np.ptp(lanes, axis=0) if len(lanes) else 0.0, 2.3, 9.0))


def stored_tree(table: AnnData, key: str, level: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(nodes, edges) of one level, names as text."""
    if level not in LEVELS:
        raise _check.unknown("level", level, LEVELS)
    found = []
    for name, columns in ((f"{key}_nodes", NODE_COLUMNS), (f"{key}_edges", EDGE_COLUMNS)):
        _check.require(table.uns, name, "uns", CURE)
        stored = table.uns[name]
        lacking = [c for c in columns if c not in getattr(stored, "columns", ())]
        if lacking:
            has = _check.listed(getattr(stored, "columns", [type(stored).__name__]))
            raise _check.problem(f"uns[{name!r}] lacks {_check.listed(lacking)}", found=has, cure=CURE)
        chosen = stored[stored["level"].astype(str) == level].reset_index(drop=True)
        words = [c for c in ("node", "parent", "branch", "from", "to") if c in columns]
        found.append(chosen.astype(dict.fromkeys(words, str)))
    if found[0].empty:
        raise _check.problem(f"the tree has no {level}s", found=f"an empty uns[{key + '_nodes'!r}]", cure=CURE)
    return found[0], found[1]


def _drawn(nodes: pd.DataFrame, edges: pd.DataFrame) -> pd.DataFrame:
    """The edges of the tree, and the best supported others."""
    inside = edges["in_tree"].astype(bool).to_numpy()
    known = edges["from"].isin(nodes["node"]) & edges["to"].isin(nodes["node"]) & (edges["from"] != edges["to"])
    others = edges[known & ~inside & (edges["support"] >= LEAST_SUPPORT)]
    others = others.sort_values("support", ascending=False, kind="stable").head(len(nodes))
    return pd.concat([edges[known & inside], others], ignore_index=True)


def _branch_colors(nodes: pd.DataFrame) -> dict[str, str]:
    """Colour by branch, along pseudotime; the trunk is grey."""
    names = list(dict.fromkeys(nodes.sort_values("pseudotime", kind="stable")["branch"]))
    others = [name for name in names if name not in ("trunk", "none")]
    colors = dict(zip(others, _colors.palette(len(others)), strict=True))
    return {name: colors.get(name, TRUNK if name == "trunk" else OTHER) for name in names}


def _cells(table: AnnData, key: str, level: str, colors: dict[str, str]) -> Float:
    """Colour of every cell: its branch's, where it has one of those that are drawn."""
    from matplotlib.colors import to_rgba

    column = f"{key}_branch"
    names = table.obs[column].astype(str) if level == "group" and column in table.obs.columns else [""] * table.n_obs
    return np.array([to_rgba(colors.get(name, _colors.MISSING)) for name in names])


def _legend(ax: Axes, colors: dict[str, str], edges: pd.DataFrame) -> None:
    entries: list[tuple[str, Line2D]] = [(name, _canvas._dot(color)) for name, color in colors.items()]
    if not edges["in_tree"].astype(bool).all():
        entries.append(("not in the tree", Line2D([], [], color=OTHER, lw=1.2, ls=(0, (3, 2)))))
    type_network._legend(ax, entries)


# ------------------------------------------------------------------------------------------------- by itself


def _lanes(nodes: pd.DataFrame) -> Float:
    """Height of every node: ends lie below each other, a parent in the middle of its children."""
    names = list(nodes["node"])
    at = {name: i for i, name in enumerate(names)}
    children: dict[int, list[int]] = {i: [] for i in range(len(names))}
    roots: list[int] = []
    for i in np.argsort(nodes["pseudotime"].to_numpy(dtype=np.float64), kind="stable"):
        parent = at.get(nodes["parent"][i])
        (roots if parent is None else children[parent]).append(int(i))
    seen, waiting = [], roots[::-1]
    while waiting:
        seen.append(waiting.pop())
        waiting += children[seen[-1]][::-1]
    lane, free = np.zeros(len(names)), 0
    for i in seen:
        if not children[i]:
            lane[i], free = free, free + 1
    for i in reversed(seen):
        if children[i]:
            lane[i] = float(np.mean(lane[children[i]]))
    return _cleared(nodes["pseudotime"].to_numpy(dtype=np.float64), lane)


def _cleared(order: Float, lane: Float) -> Float:
    """Nodes that would lie on each other move half a lane down, the later ones."""
    out = lane.copy()
    done: list[int] = []
    for i in np.argsort(order, kind="stable"):
        while any(abs(order[i] - order[j]) < NEAR and abs(out[i] - out[j]) < 0.45 for j in done):
            out[i] += 0.5
        done.append(int(i))
    return out


def _frame(ax: Axes, lanes: Float) -> None:
    ax.set(xlim=(-0.06, 1.06), ylim=(float(lanes.max()) + 0.8, float(lanes.min()) - 0.8), yticks=[])
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_xlabel("pseudotime (0 root, 1 end); %: share of bootstraps; area: cells; band: 10th to 90th percentile")
    ax.spines[["left", "top", "right"]].set_visible(False)


def _bands(ax: Axes, nodes: pd.DataFrame, lanes: Float, colors: dict[str, str]) -> None:
    for low, high, lane, branch in zip(nodes["pseudotime_10"], nodes["pseudotime_90"], lanes, nodes["branch"]):
        ax.plot([low, high], [lane, lane], lw=7, color=colors[branch], alpha=0.22, solid_capstyle="round", zorder=1)


# ------------------------------------------------------------------------------------------------- both


def _draw(
    ax: Axes, nodes: pd.DataFrame, edges: pd.DataFrame, where: Float, colors: dict[str, str], *, moved: bool
) -> None:
    """Nodes, edges, their support and the names, placed in points; ``moved``: nodes push each other apart."""
    scale = _places.settle(ax)
    to_pt = ax.transData + Affine2D().scale(scale)
    corners = np.column_stack([ax.get_xlim(), ax.get_ylim()])
    low, high = np.sort(to_pt.transform(corners), axis=0)
    points = np.asarray(to_pt.transform(where))
    if moved:
        points = _places.apart(points, APART_PT, low + LARGEST_PT, high - LARGEST_PT)
    places = np.asarray(to_pt.inverted().transform(points))
    size = np.sqrt(nodes["n_cells"].to_numpy(dtype=np.float64) / max(float(nodes["n_cells"].max()), 1.0))
    radius = np.maximum(LARGEST_PT * size, SMALLEST_PT)
    at = {name: i for i, name in enumerate(nodes["node"])}
    busy = []
    for edge in edges.to_dict("records"):
        a, b, inside = at[edge["from"]], at[edge["to"]], bool(edge["in_tree"])
        color = colors[nodes["branch"][b]] if inside else OTHER
        bend = BEND if moved or not inside else 0.0
        _edge(ax, places[[a, b]], radius[[a, b]], color, float(edge["support"]), bend=bend, dashed=not inside)
        curve = _curve(points[a], points[b], bend)
        busy += [curve, _support(ax, to_pt, curve, float(edge["support"]), color)]
    for place, r, branch in zip(places, radius, nodes["branch"]):
        rim: dict[str, Any] = {"mec": "white", "mew": 0.9, "zorder": 6, "gid": "node"}
        ax.plot(*place, "o", ms=2 * r, mfc=colors[branch], clip_on=False, **rim)
    type_network._name(ax, list(nodes["node"]), places, points, busy, (low, high), scale)


def _edge(ax: Axes, ends: Float, radius: Float, color: str, support: float, *, bend: float, dashed: bool) -> None:
    lw = NARROWEST_PT + (WIDEST_PT - NARROWEST_PT) * support
    look: dict[str, Any] = {"ls": (0, (3, 2)), "lw": 1.2, "zorder": 4} if dashed else {"lw": lw, "zorder": 5}
    length, width = (4.0, 2.2) if dashed else (3.5 + 0.9 * lw, 1.5 + 0.8 * lw)
    head = f"-|>,head_length={length},head_width={width}"
    ax.add_patch(
        FancyArrowPatch(
            tuple(ends[0]), tuple(ends[1]), arrowstyle=head, mutation_scale=1.0, color=color, gid="edge",
            connectionstyle=f"arc3,rad={bend}", shrinkA=radius[0] + 1, shrinkB=radius[1] + 1, clip_on=False,
            joinstyle="miter", capstyle="butt", **look,
        )
    )  # fmt: skip


def _curve(start: Float, end: Float, bend: float) -> Float:
    """Points along an edge, as matplotlib's "arc3" bends it."""
    step = end - start
    control = (start + end) / 2 + bend * np.array([step[1], -step[0]])
    return type_network._bezier(np.array([start, control, end]), 24)


def _support(ax: Axes, to_pt: Any, curve: Float, support: float, color: str) -> Float:
    """The share of bootstraps beside the middle of an edge; the points that it covers."""
    step = curve[-1] - curve[0]
    across = np.array([-step[1], step[0]]) / max(float(np.hypot(*step)), 1e-9)
    bulge = float((curve[len(curve) // 2] - (curve[0] + curve[-1]) / 2) @ across)
    outwards = bulge if abs(bulge) > 1e-6 else across[1]  # of a straight edge: above it
    away = BESIDE_PT + 5.0 * abs(across[0])  # words are wider than high
    middle = curve[len(curve) // 2] + (1.0 if outwards >= 0 else -1.0) * away * across
    ax.annotate(
        f"{100 * support:.0f} %",
        xy=tuple(to_pt.inverted().transform(middle)),
        ha="center",
        va="center",
        fontsize=7,
        color=color,
        zorder=6.5,
        annotation_clip=False,
        bbox={"boxstyle": "round,pad=0.08", "fc": "#FFFFFFB0", "ec": "none"},
    )
    covered = np.stack(np.meshgrid(np.linspace(-11, 11, 8), np.linspace(-4, 4, 3)), axis=-1).reshape(-1, 2)
    return np.asarray(middle + covered)
