"""Which cell type sends to which: a network over the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Affine2D, Affine2DBase, ScaledTranslation
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _celltype_table, _colors, _places, _stored_pairs
from smeld.pl._stored_pairs import FDR, Pair
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]

#: radius of a node, and the least distance of two, points
NODE_PT, APART_PT = 5.5, 30.0
#: width of the widest and of the narrowest arrow, points
WIDEST_PT, NARROWEST_PT = 4.8, 0.7
#: radius of the ring of a type that sends to itself, points
LOOP_PT = 7.5
#: rim of nodes and arrows, which a yellow one needs on white
EDGE = "#33333399"
#: how far an arrow bends, as a fraction of its length
BEND = 0.22
#: opacity of the cells behind the network
FAINT = 0.28
#: how bright red, green and blue are
LUMA = (0.299, 0.587, 0.114)
MOST_NAME = 22
#: types up to which names stand beside the nodes; beyond, numbers stand in them and names in the legend
MOST_NAMED = 18


def celltype_network(
    adata: AnnData,
    pair: Pair | None = None,
    *,
    groups: str | None = None,
    n_arrows: int = 25,
    key: str = _keys.CELLTYPE_INTERACTIONS,
    ax: Axes | None = None,
    image: bool = False,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """Arrows from the cell types that send to those that receive, over the tissue where these types lie.

    A node stands in the middle of the largest piece of its type. An arrow has its sender's colour; it is as wide as
    the number of pairs that are significant from the one type to the other, or, with one ``pair``, as its z-score.

    Parameters
    ----------
    adata
        With ``uns["celltype_interactions"]``, as ``sm.tl.celltype_interactions`` writes it.
    pair
        ``(ligand, receptor)``, ``"LIGAND_RECEPTOR"``, or its number in the table, counted from 0; None for all pairs.
    groups
        Labels of the cells in ``obs``, or proportions in ``obsm``; None for those the table was made with, else
        ``"cell_type"``. Colours as in :func:`domains`.
    n_arrows
        The widest arrows are drawn, at most so many (default 25); how many there are is said.
    key
        Key of the table in ``uns``.
    image
        Draw the image beneath, where one is stored.
    ax, title, library_id
        As in :func:`section`.

    More than 18 types are numbered, and named in the legend. Names are placed so that none covers another at the size
    that the axes have now: in a figure of several panels, draw this one last.

    Raises
    ------
    InputError
        The table, the pair or the labels are not there, or no type of the table is among the labels.
    """
    if n_arrows < 1:
        raise _check.problem("there is nothing to show", found=f"n_arrows={n_arrows}", cure="show at least one")
    table = _adapt.table(adata)
    rows = _celltype_table.celltype_table(table, key)
    groups = _celltype_table.groups_of(table, groups, key)
    found = _celltype_table.types(table, groups)
    heading = "Who sends to whom"
    if pair is not None:
        rows = _celltype_table.of_pair(rows, pair, key)
        heading = _stored_pairs.joined(rows["ligand"].iloc[0], rows["receptor"].iloc[0])
    used = _nodes(rows, found, groups)
    links = _links(rows[rows["found"]], found, used, one=pair is not None)
    drawn = links.head(n_arrows)
    with _canvas.style():
        named = len(used) <= MOST_NAMED
        ax = _canvas.prepare(table, ax, library_id=library_id, beside=1.1 if named else 3.4)
        beneath = image and _canvas.add_image(table, ax, library_id, pale=True)
        widths = _key_of_widths(drawn["value"].to_numpy(), one=pair is not None)
        meaning = "z-score" if pair is not None else "significant pairs"
        if named:
            _legend(ax, widths, title=meaning if widths else "")
        else:
            _legend(ax, [*_numbered(found, used), *_headed(meaning, widths)])
        ax.set_title(heading if title is None else shown(title, most=60) if title else "")
        _places.note(ax, _said(len(links), len(drawn)))
        _network(ax, _adapt.xy_um(table), found, used, drawn)
        _canvas.add_spots(table, ax, found.rgba(), alpha=FAINT, touching=not beneath, library_id=library_id)
    return ax


def _nodes(rows: pd.DataFrame, found: _colors.Categories, groups: str) -> list[int]:
    """Codes of the types that the table has and that have cells."""
    named = {*rows["sender"], *rows["receiver"]}
    used = [c for c in found.used if found.names[c] in named]
    if not used:
        raise _check.problem(
            f"no type of the table is a label in {groups!r}",
            found=f"types {_check.listed(sorted(named), 4)}; labels {_check.listed(found.names, 4)}",
            cure="name the labels that the table was made with: groups=",
        )
    return used


def _links(rows: pd.DataFrame, found: _colors.Categories, used: list[int], *, one: bool) -> pd.DataFrame:
    """``sender`` and ``receiver`` (codes) and ``value`` (pairs, or z of the one pair), largest first."""
    code = {found.names[c]: c for c in used}
    rows = rows[rows["sender"].isin(code) & rows["receiver"].isin(code)]
    value = rows.assign(sender=rows["sender"].map(code), receiver=rows["receiver"].map(code)).groupby(
        ["sender", "receiver"]
    )["zscore"]
    # what is significant is above 1; a table made by others may hold anything
    links = (value.max().fillna(1.0).clip(lower=1.0) if one else value.size()).rename("value").reset_index()
    return links.sort_values(["value", "sender", "receiver"], ascending=[False, True, True]).reset_index(drop=True)


def _said(n: int, n_drawn: int) -> str:
    if not n:
        return f"nothing significant (q ≤ {FDR:g})"
    return f"q ≤ {FDR:g}" + (f"; the widest {n_drawn} of {n} arrows" if n_drawn < n else "")


def _widths(values: Float, largest: float) -> Float:
    return NARROWEST_PT + (WIDEST_PT - NARROWEST_PT) * values / largest


def _key_of_widths(values: Float, *, one: bool) -> list[tuple[str, Line2D]]:
    if not values.size:
        return []
    low, high = float(values.min()), float(values.max())
    steps = sorted({low, _canvas.round_length((low + high) / 2), high})
    steps = [s for s in steps if low <= s <= high]
    lines = [Line2D([], [], color="#777777", lw=w, solid_capstyle="butt") for w in _widths(np.array(steps), high)]
    words = [f"{s:.3g}" if one else f"{s:,.0f}" for s in steps]
    return list(zip(words, lines, strict=True))


def _headed(heading: str, entries: list[tuple[str, Line2D]]) -> list[tuple[str, Line2D]]:
    return [(heading, Line2D([], [], ls="")), *entries] if entries else []


def _numbered(found: _colors.Categories, used: list[int]) -> list[tuple[str, Line2D]]:
    return [(f"{i}  {found.names[c]}", _canvas._dot(found.colors[c])) for i, c in enumerate(used, start=1)]


def _legend(ax: Axes, entries: list[tuple[str, Line2D]], *, title: str = "") -> None:
    """Right of the axes, in as many columns as their height asks for."""
    if not entries:
        return
    rows = max(6, int(ax.get_window_extent().height / ax.figure.dpi * 72 / 14))
    ax.legend(
        [handle for _, handle in entries],
        [shown(name) for name, _ in entries],
        title=title or None,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        handletextpad=0.5,
        columnspacing=1.0,
        ncols=-(-len(entries) // rows),
        alignment="left",
    )


def _network(ax: Axes, xy: Float, found: _colors.Categories, used: list[int], links: pd.DataFrame) -> None:
    scale = _places.settle(ax)  # names are placed in points
    to_pt = ax.transData + Affine2D().scale(scale)
    extent = float(np.ptp(xy, axis=0).max())
    home = np.array([_places.middle(xy[found.codes == c], extent) for c in used])
    low, high = np.sort(to_pt.transform(np.column_stack([ax.get_xlim(), ax.get_ylim()])), axis=0)
    room = np.array([NODE_PT + 4.0, NODE_PT + 4.0])
    nodes = _places.apart(np.asarray(to_pt.transform(home)), APART_PT, low + room, high - room)
    places = to_pt.inverted().transform(nodes)
    at = {c: i for i, c in enumerate(used)}
    curves = []
    values = links["value"].to_numpy(dtype=np.float64)
    width = _widths(values, float(values.max(initial=1.0)))
    for sender, receiver, lw in zip(links["sender"], links["receiver"], width, strict=True):
        a, b = at[sender], at[receiver]
        _arrow(ax, places[a], places[b], found.colors[sender], float(lw), own=a == b)
        curves.append(nodes[a] + _ring_pt(WIDEST_PT) if a == b else _curve(nodes[a], nodes[b]))
    for place, c in zip(places, used):
        ax.plot(*place, "o", ms=2 * NODE_PT, mfc=found.colors[c], mec=EDGE, mew=0.8, zorder=6, gid="node")
    if len(used) <= MOST_NAMED:
        _name(ax, [found.names[c] for c in used], places, nodes, curves, (low, high), scale)
        return
    for i, place in enumerate(places, start=1):
        ink = "white" if np.dot(to_rgb(found.colors[used[i - 1]]), LUMA) < 0.5 else "black"
        ax.annotate(str(i), tuple(place), ha="center", va="center", fontsize=7, zorder=7, color=ink)


def _arrow(ax: Axes, start: Float, end: Float, color: str, lw: float, *, own: bool) -> None:
    look: dict[str, Any] = {
        "facecolor": color, "edgecolor": EDGE, "linewidth": 0.5, "zorder": 5.0 - 0.1 * lw, "clip_on": False,
        "path_effects": [withStroke(linewidth=2.2, foreground="white")],
    }  # fmt: skip
    if own:
        inch = Affine2D().scale(1 / 72.0) + ax.figure.dpi_scale_trans
        # transData is affine, which its type does not say
        place = ScaledTranslation(float(start[0]), float(start[1]), cast(Affine2DBase, ax.transData))
        ax.add_patch(Polygon(_ring_pt(lw), transform=inch + place, gid="self", **look))
        return
    gap, (length, head) = NODE_PT + 1.5, _head(lw)
    style = f"simple,head_length={length},head_width={head},tail_width={lw}"
    bend = f"arc3,rad={BEND}"
    ax.add_patch(
        FancyArrowPatch(
            tuple(start), tuple(end), arrowstyle=style, mutation_scale=1.0, connectionstyle=bend, shrinkA=gap,
            shrinkB=gap, gid="arrow", **look,
        )
    )  # fmt: skip


def _head(lw: float) -> tuple[float, float]:
    """Length and width of an arrow's head, points."""
    return 4.5 + 1.1 * lw, 5.0 + 1.6 * lw


def _ring_pt(lw: float) -> Float:
    """Outline of an arrow from a node to itself: a ring on top of it, points from the node's centre."""
    length, head = _head(0.8 * lw)
    radius = LOOP_PT
    foot = np.arcsin(0.75 * NODE_PT / radius)  # half the angle that the node covers
    first, last = 1.5 * np.pi - foot, -0.5 * np.pi + foot + 1.1 * length / radius
    turn = np.linspace(first, last, 40)
    spoke = np.column_stack([np.cos(turn), np.sin(turn)])
    back = np.array([np.cos(last), np.sin(last)])
    tip = back * radius + length * np.array([np.sin(last), -np.cos(last)])
    outer, inner = (radius + lw / 2) * spoke, (radius - lw / 2) * spoke
    barbs = back * (radius + head / 2), tip, back * (radius - head / 2)
    return np.asarray(np.vstack([outer, *barbs, inner[::-1]]) + np.array([0.0, NODE_PT + 0.8 * radius]))


def _curve(start: Float, end: Float) -> Float:
    """Points along the arrow between two nodes, as matplotlib's "arc3" bends it."""
    step = end - start
    control = (start + end) / 2 + BEND * np.array([step[1], -step[0]])
    return _bezier(np.array([start, control, end]), 24)


def _bezier(control: Float, n: int) -> Float:
    t = np.linspace(0.0, 1.0, n)[:, None]
    points: Float = np.hstack([(1 - t) ** 2, 2 * t * (1 - t), t**2]) @ control
    return points


def _name(
    ax: Axes,
    names: list[str],
    places: Float,
    nodes: Float,
    curves: list[Float],
    box: tuple[Float, Float],
    scale: float,
) -> None:
    """Names beside their nodes; ``nodes``, ``curves`` and ``box`` in points, ``scale`` points per pixel."""
    texts = [
        ax.annotate(
            shown(name, most=MOST_NAME),
            xy=tuple(place),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            zorder=7,
            annotation_clip=False,
            bbox={"boxstyle": "round,pad=0.1", "fc": "#FFFFFFB0", "ec": "none"},
        )
        for name, place in zip(names, places, strict=True)
    ]
    sizes = scale * np.array([text.get_window_extent().size for text in texts]) + 1.0
    centres, far = _places.labels(nodes, sizes, radius=NODE_PT, avoid=curves, low=box[0], high=box[1])
    for text, centre, node, place, distant in zip(texts, centres, nodes, places, far, strict=True):
        text.set_position(tuple(centre - node))
        if distant:
            ax.annotate(
                "",
                xy=tuple(place),
                xytext=tuple(centre - node),
                textcoords="offset points",
                zorder=4,
                arrowprops={"arrowstyle": "-", "lw": 0.7, "color": "#555555", "shrinkA": 3.0, "shrinkB": NODE_PT},
                annotation_clip=False,
            )
