"""The one canvas: a section in micrometres, y downwards as in images, over its H&E, with a scale bar.

Every figure of a section is made here, so that all of them have the same frame, margin and scale. Nothing in
this package changes matplotlib's global settings or shows a figure.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import Collection, EllipseCollection, PolyCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.transforms import AffineDeltaTransform, ScaledTranslation
from numpy.typing import NDArray

from smeld import _adapt, _keys
from smeld.pl import _colors
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld._image import Image

Float = NDArray[np.float64]

#: text stays text in SVG and PDF, so that it can be searched and edited; names are never given to TeX
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "smeld",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "text.usetex": False,
    "text.parse_math": True,  # log axes need it; names are escaped, see _text
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
}
#: longer side of a section in a figure of its own, inches
SIDE_IN = 4.6
#: spots beyond which a vector file would be slow to open: they are drawn as pixels, the text around them is
#: not
RASTER_ABOVE = 2000
#: a spot narrower than this fraction of the section's longer side would not be seen
LEAST_DIAMETER = 1 / 500
#: entries a legend may have
MOST_ENTRIES = 60
#: words in a platform's name that say: these are cells
CELL_PLATFORMS = ("cell", "xenium", "cosmx", "merscope", "merfish", "seqfish", "starmap", "codex")
#: platforms whose spots are squares side by side
SQUARE_PLATFORMS = ("visium_hd",)
#: bins that the direction of their rows is taken from
MOST_FITTED = 20_000
#: under spots the image keeps this much of its colour and goes this far to white, so that pink is a domain's
#: colour and not the stain's
KEPT_COLOUR, FADE = 0.4, 0.5
#: room around the outermost spots, as a fraction of the section's longer side
MARGIN = 0.03


def style() -> AbstractContextManager[None]:
    """The settings of smeld's figures, for the length of a ``with`` block."""
    return mpl.rc_context(STYLE)


def new_axes(size_in: tuple[float, float]) -> Axes:
    """Axes of a figure of their own, made with pyplot so that a notebook displays it."""
    from matplotlib import pyplot as plt

    _, ax = plt.subplots(figsize=size_in, layout="compressed")
    return ax


def noun(adata: AnnData, library_id: str | None = None) -> str:
    """ "cell" for platforms that measure cells, else "spot"."""
    platform = str(_adapt.metadata(adata, library_id).get(_keys.META_PLATFORM, "")).lower()
    return "cell" if any(word in platform for word in CELL_PLATFORMS) else "spot"


def diameter_um(adata: AnnData, library_id: str | None = None) -> float:
    """Diameter of a spot in micrometres: as stated, else 0.9 of the median distance between neighbours."""
    stated = float(_adapt.metadata(adata, library_id).get(_keys.META_SPOT_UM, np.nan))
    if np.isfinite(stated) and stated > 0:
        return stated
    return 0.9 * _spacing_um(adata, 1)


def touching_um(adata: AnnData, library_id: str | None = None) -> float:
    """Diameter in micrometres at which discs just meet their four neighbours."""
    return max(diameter_um(adata, library_id), 0.98 * _spacing_um(adata, 4))


def _spacing_um(adata: AnnData, k: int) -> float:
    """Median over the spots of the mean distance to the ``k`` nearest others, micrometres; 1 if undefined."""
    from scipy.spatial import KDTree

    xy = _adapt.xy_um(adata)
    # the median needs no more than a sample; every k-th spot keeps it free of random draws
    some = xy[:: max(1, len(xy) // 20_000)]
    if len(xy) <= k:
        return 1.0
    nearest = KDTree(xy).query(some, k=k + 1)[0][:, 1:].mean(axis=1)
    nearest = nearest[nearest > 0]
    return float(np.median(nearest)) if nearest.size else 1.0


def frame(adata: AnnData, library_id: str | None = None) -> tuple[float, float, float, float]:
    """(left, right, top, bottom) in micrometres: the spots and a margin."""
    xy = _adapt.xy_um(adata)
    low, high = xy.min(axis=0), xy.max(axis=0)
    room = MARGIN * float((high - low).max()) + diameter_um(adata, library_id)
    return float(low[0] - room), float(high[0] + room), float(low[1] - room), float(high[1] + room)


def size_in(adata: AnnData, library_id: str | None = None, *, beside: float = 1.2) -> tuple[float, float]:
    """Size in inches of a figure that holds the section and ``beside`` inches for its legend."""
    left, right, top, bottom = frame(adata, library_id)
    ratio = float(np.clip((right - left) / (bottom - top), 0.25, 4.0))
    width, height = (SIDE_IN, SIDE_IN / ratio) if ratio >= 1 else (SIDE_IN * ratio, SIDE_IN)
    return max(width, 1.6) + beside, max(height, 1.4) + 0.6


def prepare(adata: AnnData, ax: Axes | None, *, library_id: str | None, beside: float = 1.2) -> Axes:
    """The axes to draw on, framed: equal aspect, y downwards, no ticks."""
    left, right, top, bottom = frame(adata, library_id)
    if ax is None:
        ax = new_axes(size_in(adata, library_id, beside=beside))
    ax.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    scale_bar(ax)
    return ax


def add_image(adata: AnnData, ax: Axes, library_id: str | None = None, *, pale: bool = False) -> bool:
    """Draw the stored image, cut to the frame, in its own colours or ``pale``; False where none is stored."""
    picture = _adapt.image(adata, library_id, preview=True)
    if picture is None:
        return False
    um = _um_per_px(adata, picture)
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x0, y0 = max(int(left / um), 0), max(int(top / um), 0)
    x1, y1 = min(int(right / um) + 2, picture.shape[1]), min(int(bottom / um) + 2, picture.shape[0])
    if x1 <= x0 or y1 <= y0:
        return False
    pixels = picture.window(y0, x0, y1 - y0, x1 - x0)
    if pale:
        pixels = _paler(pixels)
    # the centre of pixel (0, 0) lies at the origin
    extent = ((x0 - 0.5) * um, (x1 - 0.5) * um, (y1 - 0.5) * um, (y0 - 0.5) * um)
    limits = ax.axis()
    ax.imshow(pixels, extent=extent, origin="upper", zorder=0)
    ax.axis(limits)
    return True


def _paler(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    grey = pixels.mean(axis=2, keepdims=True, dtype=np.float32)
    dull = grey + KEPT_COLOUR * (pixels - grey)
    return np.asarray((255 - (255 - dull) * (1 - FADE)).round().clip(0, 255), dtype=np.uint8)


def _um_per_px(adata: AnnData, picture: Image) -> float:
    if np.isfinite(picture.um_per_px) and picture.um_per_px > 0:
        return picture.um_per_px
    # one isotropic factor leads from obsm["spatial"] to micrometres: read it off the two
    raw = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2]
    spread = float(np.ptp(raw, axis=0).max())
    return (
        float(np.ptp(_adapt.xy_um(adata), axis=0).max()) / spread / picture.scale if spread > 0 else 1.0 / picture.scale
    )


def add_spots(
    adata: AnnData,
    ax: Axes,
    rgba: Float,
    *,
    alpha: float = 1.0,
    touching: bool = False,
    library_id: str | None = None,
) -> Collection:
    """Draw the spots as one collection of discs, or of squares where they are bins; ``rgba`` is float [n_obs, 4].

    They have their true size, which leaves the image visible between discs; ``touching`` widens those until
    neighbours meet.
    """
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    least = LEAST_DIAMETER * max(abs(right - left), abs(top - bottom))
    wanted = touching_um(adata, library_id) if touching else diameter_um(adata, library_id)
    common: dict[str, Any] = {
        "offsets": _adapt.xy_um(adata),
        "offset_transform": ax.transData,
        "facecolors": np.column_stack([rgba[:, :3], rgba[:, 3] * alpha]),
        "edgecolors": "none",
        "linewidths": 0,
        "rasterized": len(rgba) > RASTER_ABOVE,
        "zorder": 2,
    }
    spots = _squares(adata, ax, diameter_um(adata, library_id), least, common) if is_binned(adata, library_id) else None
    if spots is None:
        diameter = np.array([max(wanted, least)])
        spots = EllipseCollection(diameter, diameter, np.zeros(1), units="xy", **common)
    ax.add_collection(spots, autolim=False)
    return spots


def is_binned(adata: AnnData, library_id: str | None = None) -> bool:
    """True where spots are square bins whose rows and columns are known."""
    platform = str(_adapt.metadata(adata, library_id).get(_keys.META_PLATFORM, ""))
    return platform in SQUARE_PLATFORMS and {"array_row", "array_col"} <= set(adata.obs.columns)


def _squares(adata: AnnData, ax: Axes, side: float, least: float, common: dict[str, Any]) -> Collection | None:
    """Squares turned as the slide lies in the image; None for bins in one line, which say nothing of that."""
    step = max(1, adata.n_obs // MOST_FITTED)
    place = adata.obs[["array_col", "array_row"]].to_numpy(dtype=np.float64)[::step]
    design = np.column_stack([place, np.ones(len(place))])
    if np.linalg.matrix_rank(design) < 3:
        return None
    along = np.linalg.lstsq(design, _adapt.xy_um(adata)[::step], rcond=None)[0][0]
    along = np.round(along / max(float(np.hypot(*along)), 1e-12), 6)  # whatever the order of the bins
    corners = 0.5 * max(side, least) * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    turned = corners @ np.array([[along[0], along[1]], [-along[1], along[0]]])
    # blended edges would show as a lattice of pale lines between bins that meet
    squares = PolyCollection([turned], antialiaseds=False, **common)
    squares.set_transform(AffineDeltaTransform(ax.transData))  # type: ignore[arg-type]
    return squares


def round_length(most: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most ``most``.

    >>> round_length(730.0), round_length(0.4)
    (500.0, 0.2)
    """
    power = 10.0 ** np.floor(np.log10(most))
    return float(max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9)))


def scale_bar(ax: Axes) -> None:
    """A bar of round length in micrometres below the section, where it hides no spot."""
    left, right = ax.get_xlim()
    length = round_length(abs(right - left) / 4)
    below = ax.get_xaxis_transform() + ScaledTranslation(0, -6 / 72, ax.figure.dpi_scale_trans)
    start = left + 0.01 * (right - left)
    bar = Line2D([start, start + length], [0, 0], transform=below, color="black", lw=2.5, solid_capstyle="butt")
    bar.set_clip_on(False)
    bar.set_gid("scale_bar")
    ax.add_artist(bar)
    ax.annotate(
        f"{length:,.10g} µm",
        xy=(start, 0),
        xycoords=below,
        xytext=(0, -3),
        textcoords="offset points",
        va="top",
        fontsize=8,
        annotation_clip=False,
    )


def legend(ax: Axes, found: _colors.Categories, *, title: str = "") -> None:
    """Names and colours to the right of the axes, in as many columns as their height asks for."""
    entries = [(found.names[c], found.colors[c]) for c in found.used]
    hidden = len(entries) - MOST_ENTRIES
    if hidden > 0:
        entries = [*entries[:MOST_ENTRIES], (f"and {hidden} more", "none")]
    if found.incomplete:
        entries.append(("not assigned", _colors.MISSING))
    rows = max(6, int(ax.get_window_extent().height / ax.figure.dpi * 72 / 14))
    box = ax.legend(
        [_dot(color) for _, color in entries],
        ["-"] * len(entries),  # a label that begins with "_" would be left out: the texts are set below
        title=shown(title) if title else None,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        handletextpad=0.2,
        columnspacing=1.0,
        ncols=-(-len(entries) // rows) if entries else 1,
        alignment="left",
    )
    for text, (name, _) in zip(box.get_texts(), entries, strict=True):
        text.set_text(shown(name))


def _dot(color: str) -> Line2D:
    edge = "none" if color == "none" else "#00000055"
    return Line2D([], [], ls="", marker="o", ms=6.5, mfc=color, mec=edge, mew=0.5)


def color_bar(
    ax: Axes, norm: Normalize, name: str, *, label: str, extend: str = "neither", beside_in: float = 0.0
) -> None:
    """A colour bar to the right of the axes, ``beside_in`` inches away; it takes no room from them."""
    width_in = ax.get_window_extent().width / ax.figure.dpi
    place = ax.inset_axes((1.02 + beside_in / width_in, 0.1, 0.13 / width_in, 0.8))
    mappable = ScalarMappable(norm, _colors.colormap(name))
    bar = ax.figure.colorbar(mappable, cax=place, extend=extend, label=label)
    bar.outline.set_visible(False)
