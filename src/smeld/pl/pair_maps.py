"""Maps of one ligand-receptor pair: where it lies together, where its partners are, and which way it points."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _colors, _places, _stored_pairs, maps
from smeld.pl._stored_pairs import Pair
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]

# Corners of the two-dimensional scale: neither, ligand only, receptor only, both. Vermilion and blue are the pair of
# Okabe & Ito's palette that stays furthest apart for every eye: the nine colours of a 3 x 3 scale made of these four
# differ by at least 15 CIEDE2000 in normal sight and in the simulations of Machado et al. (2009); magenta and green,
# custom in microscopy, fell to 4 to 10 for deuteranopes on a light ground, whichever tones were tried.
NEITHER, LIGAND, RECEPTOR, BOTH = "#EBEBEB", "#D55E00", "#0072B2", "#141414"
#: spots in which a pair is significant, beneath dark arrows
TINT, ARROW, RIM = "#F3C483", "#1B2A49", "#222222"
#: spots as few as this fraction of all stand out, and are at least so wide, points
FEW, LEAST_PT = 0.05, 3.2
#: arrows that a section's longer side has room for, and the length of a long one in squares
MOST_ARROWS, LONG = 40, 1.5


def interaction_map(
    adata: AnnData,
    pair: Pair | None = None,
    *,
    key: str = _keys.INTERACTIONS,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """Where a pair lies together: its score, and a rim around the spots in which it is significant.

    The score, receptor times ligand around it, is 0 in grey spots. A spot is significant where its score is more than
    chance would give two maps that have nothing to do with each other; of a pair that covers a tenth of the section
    no single spot is.

    Parameters
    ----------
    adata
        With ``uns["interactions"]``, ``obsm["interactions_score"]`` and ``obsm["interactions_local"]``, as
        ``sm.tl.interactions`` writes them.
    pair
        ``(ligand, receptor)``, ``"LIGAND_RECEPTOR"``, or a row of the table, counted from 0; None for the first.
    key
        Key of the table in ``uns`` and prefix in ``obsm``.
    image, alpha
        Draw the image beneath (where one is stored), opacity of the spots (0..1).
    ax, title, library_id
        As in :func:`section`.

    Raises
    ------
    InputError
        The table or the pair is not there, or the pair has no values in single spots.
    """
    table = _adapt.table(adata)
    values, significant, name = _local(table, pair, key)
    found = int(significant.sum())
    ax = maps.continuous(
        table,
        values,
        ax=ax,
        image=image,
        alpha=alpha,
        title="",
        library_id=library_id,
        label="receptor × ligand around it",
    )
    with _canvas.style():
        if 0 < found <= FEW * table.n_obs:
            _stand_out(ax, table, significant, library_id)
        _titled(ax, title, name)
        _places.note(ax, f"significant in {found:,} of {_stored_pairs.noun_of(table, table.n_obs)}")
    return ax


def _stand_out(ax: Axes, table: AnnData, where: NDArray[np.bool_], library_id: str | None) -> None:
    """The few significant spots once more, with a rim, or widened until they can be seen."""
    colors = np.asarray(ax.collections[-1].get_facecolor())[where].tolist()
    (left, right), width_pt = ax.get_xlim(), 72 * _places.extent_in(ax)[0]
    diameter = _canvas.diameter_um(table, library_id) / abs(right - left) * width_pt
    rim = 0.4 if diameter >= LEAST_PT else 0.0  # widened spots overlap: their rims would hide them
    size = max(diameter, LEAST_PT) ** 2
    x, y = _adapt.xy_um(table)[where].T
    ax.scatter(x, y, s=size, c=colors, edgecolors=RIM, linewidths=rim, zorder=2.5)


def _local(table: AnnData, pair: Pair | None, key: str) -> tuple[Float, NDArray[np.bool_], str]:
    rows = _stored_pairs.pair_table(table, key)
    row = _stored_pairs.row_of(rows, pair, f"uns[{key!r}]")
    entry = rows.iloc[row]
    return *_stored_pairs.local_values(table, row, key), _stored_pairs.joined(entry["ligand"], entry["receptor"])


def _titled(ax: Axes, title: str | None, default: str) -> None:
    """``default`` is escaped already."""
    ax.set_title(default if title is None else shown(title, most=60) if title else "")


def colocation(
    adata: AnnData,
    pair: Pair | None = None,
    *,
    layer: str | None = None,
    key: str = _keys.INTERACTIONS,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """Ligand and receptor in one map: orange where the ligand is, blue where the receptor is, black where both are.

    Parameters
    ----------
    adata
        With ``obsm["spatial_um"]`` and counts. A complex (subunits joined by ``+``) counts as its scarcest subunit.
    pair
        Any two genes or complexes as ``(ligand, receptor)``; or, if ``uns["interactions"]`` is there,
        ``"LIGAND_RECEPTOR"`` or a row of it, counted from 0; None for the first.
    layer
        Layer that holds the values; ``X`` by default. Shown as log(1 + value), unless some are below zero.
    key
        Key of the table in ``uns``.
    image, alpha
        As in :func:`interaction_map`.
    ax, title, library_id
        As in :func:`section`.

    Each partner's scale ends at the 99.5th percentile of the spots, as in :func:`gene`. The colours stay apart for
    colour-blind readers.

    Raises
    ------
    InputError
        A gene, the layer or the pair is not there.
    """
    table = _adapt.table(adata)
    names = _stored_pairs.names_of(table, pair, key)
    found = [_stored_pairs.expression(table, name, layer) for name in names]
    limits = [maps._limits(values) for values, _ in found]
    shares = [(values - low) / (high - low) for (values, _), (low, high) in zip(found, limits, strict=True)]
    with _canvas.style():
        ax = _canvas.prepare(table, ax, library_id=library_id, beside=1.6)
        beneath = image and _canvas.add_image(table, ax, library_id, pale=True)
        rgba = _mixed(*shares)
        _canvas.add_spots(table, ax, rgba, alpha=alpha, touching=not beneath, library_id=library_id)
        _square(ax, names, limits, found[0][1])
        _titled(ax, title, _stored_pairs.joined(*names))
    return ax


def _mixed(ligand: Float, receptor: Float) -> Float:
    """Colours of two shares (0..1), bilinear between the four corners, float64 [..., 4]; NaN is grey."""
    a, b = (np.clip(np.nan_to_num(share), 0.0, 1.0)[..., None] for share in (ligand, receptor))
    none, first, second, both = (np.array(to_rgb(c)) for c in (NEITHER, LIGAND, RECEPTOR, BOTH))
    rgb = (1 - a) * (1 - b) * none + a * (1 - b) * first + (1 - a) * b * second + a * b * both
    rgb = np.where(np.isfinite(ligand + receptor)[..., None], rgb, to_rgb(_colors.MISSING))
    return np.concatenate([rgb, np.ones((*rgb.shape[:-1], 1))], axis=-1)


def _square(ax: Axes, names: tuple[str, str], limits: list[tuple[float, float]], label: str) -> None:
    """The key: a square of all mixtures, the ligand to the right, the receptor upwards."""
    width, height = _places.extent_in(ax)
    side = 0.8  # inches
    place = ax.inset_axes((1.0 + 0.55 / width, 0.92 - side / height, side / width, side / height))
    step = np.linspace(0.0, 1.0, 32)
    place.imshow(_mixed(*np.meshgrid(step, step)), origin="lower", extent=(0, 1, 0, 1), aspect="auto")
    place.set_xticks([0, 1], [f"{v:.2g}" for v in limits[0]])
    place.set_yticks([0, 1], [f"{v:.2g}" for v in limits[1]])
    place.tick_params(length=2, labelsize=7)
    place.spines[:].set_visible(False)
    place.set_xlabel(shown(names[0], most=14), color="#A84A00", style="italic", labelpad=1)
    place.set_ylabel(shown(names[1], most=14), color=RECEPTOR, style="italic", labelpad=1)
    place.set_title(label, fontsize=8, weight="normal", loc="left")


def interaction_arrows(
    adata: AnnData,
    pair: Pair | None = None,
    *,
    bin_um: float | None = None,
    layer: str | None = None,
    key: str = _keys.INTERACTIONS,
    ax: Axes | None = None,
    image: bool = True,
    alpha: float = 1.0,
    title: str | None = None,
    library_id: str | None = None,
) -> Axes:
    """Arrows from where the ligand comes from to the spots that receive it; significant spots are tinted.

    The direction is the mean over a spot's neighbours of the way from them to it, weighted by their ligand; the length
    is the score, the less the more evenly the ligand lies around the spot (far longer arrows than most are cut). An
    arrow's tip is the receiver.

    Parameters
    ----------
    adata
        As for :func:`interaction_map`, and with neighbours in ``obsp["spatial_connectivities"]``.
    pair
        As in :func:`interaction_map`.
    bin_um
        Spots in a square of this side, micrometres, share one arrow, the mean of theirs. None: one arrow a spot, or as
        many as 40 along the section's longer side.
    layer
        Layer that holds the ligand's values; ``X`` by default, as in :func:`colocation`.
    key, image, alpha
        As in :func:`interaction_map`.
    ax, title, library_id
        As in :func:`section`.

    Raises
    ------
    InputError
        Neighbours, the table or the pair are not there, or the pair has no values in single spots.
    """
    table = _adapt.table(adata)
    values, significant, name = _local(table, pair, key)
    ligand = _stored_pairs.names_of(table, pair, key)[0]
    _check.require(table.obsp, _keys.CONNECTIVITIES, "obsp", "run sm.fuse(adata), or sq.gr.spatial_neighbors(adata)")
    score = np.nan_to_num(values)
    where = np.flatnonzero(score)
    xy = _adapt.xy_um(table)
    sent = _stored_pairs.expression(table, ligand, layer)[0]
    arrows = score[where, None] * _towards(xy, table.obsp[_keys.CONNECTIVITIES], np.clip(sent, 0, None), where)
    with _canvas.style():
        ax = _canvas.prepare(table, ax, library_id=library_id, beside=1.6)
        beneath = image and _canvas.add_image(table, ax, library_id, pale=True)
        rgba = np.where(significant[:, None], to_rgba(TINT), to_rgba(_colors.MISSING))
        _canvas.add_spots(table, ax, rgba, alpha=alpha, touching=not beneath, library_id=library_id)
        side = _side(ax, table, library_id) if bin_um is None else bin_um
        if not side > 0:
            raise _check.problem("bin_um must be above 0", found=f"{side}", cure="give micrometres, or None")
        _key_of_spots(ax, table)
        if where.size:
            _draw(ax, *_thinned(xy[where], arrows, side), side=side)
        _titled(ax, title, name)
        _places.note(ax, f"significant in {int(significant.sum()):,} of {_stored_pairs.noun_of(table, table.n_obs)}")
    return ax


def _towards(xy: Float, graph: sparse.spmatrix, ligand: Float, where: NDArray[np.intp]) -> Float:
    """Mean unit vector from the neighbours of each spot in ``where`` to it, weighted by their ligand; 0 without any."""
    edges = sparse.coo_matrix(sparse.csr_matrix(graph)[where])
    step = xy[where][edges.row] - xy[edges.col]
    length = np.hypot(step[:, 0], step[:, 1])
    weight = edges.data * np.nan_to_num(ligand)[edges.col] * (length > 0)
    unit = step / np.where(length > 0, length, 1.0)[:, None]
    total = np.bincount(edges.row, weight, len(where))
    parts = [np.bincount(edges.row, weight * unit[:, i], len(where)) for i in (0, 1)]
    return np.column_stack(parts) / np.where(total > 0, total, 1.0)[:, None]


def _side(ax: Axes, table: AnnData, library_id: str | None) -> float:
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    longer = max(abs(right - left), abs(top - bottom))
    return max(_canvas.touching_um(table, library_id), longer / MOST_ARROWS)


def _thinned(xy: Float, arrows: Float, side: float) -> tuple[Float, Float]:
    """Mean position and mean arrow in each square of this side that holds spots."""
    square = np.floor((xy - xy.min(axis=0)) / side).astype(np.int64)
    _, place, number = np.unique(square, axis=0, return_inverse=True, return_counts=True)
    place = place.ravel()  # some versions of numpy give it a second dimension

    def mean(values: Float) -> Float:
        return np.column_stack([np.bincount(place, values[:, i]) for i in (0, 1)]) / number[:, None]

    return mean(xy), mean(arrows)


def _draw(ax: Axes, tips: Float, arrows: Float, *, side: float) -> None:
    """The arrows and their key: the 90th percentile is LONG sides long, and none is longer than 1.2 times that."""
    length = np.hypot(arrows[:, 0], arrows[:, 1])
    if not length.any():
        return  # ligand in the spots themselves only, or evenly around them
    largest = float(np.quantile(length[length > 0], 0.9))
    arrows = arrows * np.minimum(1.0, 1.2 * largest / np.where(length > 0, length, 1.0))[:, None]
    um_per_score = LONG * side / largest
    style: dict[str, Any] = {
        "angles": "xy", "scale_units": "xy", "scale": 1.0, "units": "xy", "width": 0.13 * side, "color": ARROW,
        "headwidth": 3.6, "headlength": 3.6, "headaxislength": 3.2, "minlength": 0.6,
    }  # fmt: skip
    shafts = ax.quiver(*tips.T, *(um_per_score * arrows).T, pivot="tip", zorder=3, **style)
    shafts.set_gid("arrows")
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    shown_score = _canvas.round_length(1.5 * largest)
    at = (right + 0.02 * (right - left), top + 0.22 * (bottom - top))
    key = ax.quiver(*at, um_per_score * shown_score, 0.0, pivot="tail", clip_on=False, zorder=3, **style)
    key.set_gid("arrow_key")
    ax.annotate(
        f"score {shown_score:g},\nfrom one side",
        xy=at,
        xytext=(0, -7),
        textcoords="offset points",
        va="top",
        annotation_clip=False,
    )


def _key_of_spots(ax: Axes, table: AnnData) -> None:
    ax.legend(
        [Line2D([], [], ls="", marker="o", ms=6.5, mfc=TINT, mec="#00000055", mew=0.5)],
        [f"significant {_canvas.noun(table)}"],
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        handletextpad=0.2,
    )
