"""Quality control: how much was measured, spot by spot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from smeld import _adapt, _check
from smeld.pl import _canvas, maps

if TYPE_CHECKING:
    from anndata import AnnData

#: obs column -> (heading, axis label)
MEASURES = {
    "total_counts": ("Counts", "counts per {noun}"),
    "n_genes_by_counts": ("Genes", "genes per {noun}"),
    "pct_counts_mt": ("Mitochondrial", "% of counts from mt genes"),
}
_CURE = "run sm.tl.quality_control(adata)"
#: bars of a histogram
BINS = 40
#: an axis is logarithmic where the values span more than this factor
LOG_ABOVE = 30.0


def quality_control(
    adata: AnnData, *, axes: NDArray[Any] | None = None, image: bool = False, library_id: str | None = None
) -> NDArray[Any]:
    """Histograms of counts, genes and mitochondrial share per spot, and a map of the counts.

    Parameters
    ----------
    adata
        With ``obs["total_counts"]``, ``obs["n_genes_by_counts"]`` and, where the panel has mitochondrial
        genes, ``obs["pct_counts_mt"]`` (percent, 0..100).
    axes
        As many axes as panels (the measures present, and one for the map); None makes a figure with pyplot.
    image, library_id
        Passed to the map, see :func:`domains`.

    Returns
    -------
    The axes, an object array [n_panels]; the map is the last. It shows the first measure present, from its
    1st to its 99th percentile.

    Raises
    ------
    InputError
        None of the measures is stored, or the number of axes is wrong.
    """
    table = _adapt.table(adata)
    present = measures(table)
    noun = _canvas.noun(table, library_id)
    with _canvas.style():
        if axes is None:
            from matplotlib import pyplot as plt

            size, widths = layout(table, len(present), library_id)
            _, axes = plt.subplots(1, len(widths), figsize=size, layout="compressed", width_ratios=widths)
        panels = np.asarray(axes, dtype=object).ravel()
        if len(panels) != len(present) + 1:
            raise _check.problem(
                f"quality_control needs {len(present) + 1} axes",
                found=f"{len(panels)}",
                cure="leave axes= out, or give as many",
            )
        for ax, name in zip(panels, present, strict=False):
            _histogram(ax, np.asarray(table.obs[name], dtype=np.float64))
            ax.set_title(MEASURES[name][0])
            ax.set(xlabel=MEASURES[name][1].format(noun=noun), ylabel=f"{noun}s")
        values = np.asarray(table.obs[present[0]], dtype=np.float64)
        low, high = (float(v) for v in np.nanquantile(values, [0.01, 0.99]))
        maps.continuous(
            table,
            values,
            ax=panels[-1],
            image=image,
            library_id=library_id,
            title=f"{MEASURES[present[0]][0]} on the section",
            label=MEASURES[present[0]][1].format(noun=noun),
            limits=(low, high if high > low else low + 1.0),
        )
    return panels


def measures(table: AnnData) -> list[str]:
    """The measures that are stored, in the order of the panels."""
    present = [name for name in MEASURES if name in table.obs.columns]
    if not present:
        raise _check.problem(
            "no quality measures are stored", found=f"obs has {_check.listed(table.obs.columns)}", cure=_CURE
        )
    return present


def layout(table: AnnData, n_measures: int, library_id: str | None = None) -> tuple[tuple[float, float], list[float]]:
    """((width, height) in inches, relative widths) of a figure with the panels in a row."""
    width, height = _canvas.size_in(table, library_id, beside=0.9)
    widths = [2.5] * n_measures + [float(np.clip(width * 2.6 / height, 2.2, 4.5))]
    return (sum(widths), 2.7), widths


def _histogram(ax: Axes, values: NDArray[np.float64]) -> None:
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    log = positive.size > 1 and float(positive.max() / np.quantile(positive, 0.01)) > LOG_ABOVE
    drawn = positive if log else finite
    ax.hist(drawn, bins=_bins(drawn, log).tolist(), color="#56B4E9", edgecolor="white", linewidth=0.3)
    if log:
        ax.set_xscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(EngFormatter(sep=""))
    median = float(np.median(finite)) if finite.size else 0.0
    ax.axvline(median, ymax=0.88, color="#333333", lw=1.2, ls="--")
    notes = [f"median {median:,.0f}" if median >= 10 or median == 0 else f"median {median:.2g}"]
    if len(drawn) < len(values):
        notes.append(f"{len(values) - len(drawn):,} at zero not shown")
    ax.set_ylim(top=ax.get_ylim()[1] * (1.05 + 0.13 * len(notes)))  # room for the notes above the bars
    ax.annotate(
        "\n".join(notes),
        (1.0, 1.0),
        xycoords="axes fraction",
        ha="right",
        va="top",
        fontsize=8,
    )


def _bins(values: NDArray[np.float64], log: bool) -> NDArray[np.float64]:
    """Edges of the bars; whole numbers get bars of whole width, so that none is empty by chance."""
    if not values.size:
        return np.array([0.0, 1.0])
    low, high = float(values.min()), float(values.max())
    if log:
        return np.asarray(np.geomspace(low, high, BINS + 1), dtype=np.float64)
    if high > 1 and np.equal(np.mod(values, 1), 0).all():
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        return np.arange(low - 0.5, high + 0.5 + step, step)
    return np.linspace(low, high if high > low else low + 1.0, BINS + 1)
