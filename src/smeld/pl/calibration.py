"""Whether the test of pairs holds: their p-values, and those of pairs that have nothing to do with each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray

from smeld import _adapt, _keys
from smeld.pl import _canvas, _colors, _stored_pairs
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = ("set", "expected", "observed")
#: sets in the order in which they are drawn: (name, parameter that holds its lambda, marker)
SETS = (("decoys", "lambda_decoy", "^"), ("surrogates", "lambda_surrogate", "s"), ("pairs", "", "o"))


def qq(adata: AnnData, *, key: str = _keys.INTERACTIONS, ax: Axes | None = None, title: str | None = None) -> Axes:
    """P-values expected by chance against those found, of pairs, of surrogates and of decoys.

    Surrogates are pairs made independent on purpose: on the diagonal, the test is calibrated. Decoys are random genes
    that are in no pair: what they rise above it is structure that all genes share. Lambda is the median chi-square
    over the expected one; 1 is on the diagonal.

    Parameters
    ----------
    adata
        With ``uns["interactions_qq"]``, as ``sm.tl.interactions`` writes it: ``set``, ``expected`` and ``observed``,
        quantiles of -log10 p.
    key
        Key of the table of pairs in ``uns``; the quantiles are in ``uns[f"{key}_qq"]``.
    ax, title
        As in :func:`domains`.

    Raises
    ------
    InputError
        The quantiles are missing or empty.
    """
    table = _adapt.table(adata)
    rows = _stored_pairs.stored_table(table, f"{key}_qq", COLUMNS, "run sm.tl.interactions(adata)")
    params = _stored_pairs.parameters(table, key)
    known = dict(zip(("pairs", "surrogates", "decoys"), _colors.palette(3), strict=True))
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes((4.6, 3.8))
        ends, highest = [1.0], [1.0]
        for name, parameter, marker in SETS:
            part = _finite(rows[rows["set"].astype(str) == name])
            if not len(part):
                continue
            label = f"{name}{_lambda(params.get(parameter))}"
            ax.plot(
                *part.T, marker, ms=4.0, color=known[name], mec="white", mew=0.3, label=label, zorder=3, clip_on=False
            )
            ends.append(float(part[:, 0].max()))
            highest.append(float(part[:, 1].max()))
        most = max(ends)
        ax.plot([0, most], [0, most], color="#666666", lw=1.0, zorder=2)
        ax.set(xlabel="expected −log10 p", ylabel="observed −log10 p")
        ax.set_xlim(0, most * 1.03)
        _compress(ax, most, max(highest))
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        ax.set_title(shown("Is the test calibrated?" if title is None else title, most=60) if title != "" else "")
    return ax


def _compress(ax: Axes, most: float, highest: float) -> None:
    """Where pairs rise far above the diagonal: equal steps up to its end, logarithmic above, so that both are seen."""
    if highest <= 2.5 * most:
        ax.set_ylim(0, highest * 1.05)
        return
    split = float(np.ceil(most))
    ax.set_yscale("symlog", linthresh=split, linscale=2.2 * np.log10(highest / split))
    ax.set_ylim(0, highest * 1.15)
    ticks = [float(t) for t in range(int(split) + 1)]
    above = [step * 10.0**power for power in range(4) for step in (1, 2, 5)]
    ax.set_yticks([*ticks, *(t for t in above if 1.5 * split < t <= highest)])
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.axhline(split, color="#BBBBBB", lw=0.7, ls=(0, (4, 3)), zorder=1)
    words = f"logarithmic above {split:g}"
    ax.annotate(words, xy=(1.0, split), xycoords=("axes fraction", "data"), xytext=(0, 2), textcoords="offset points",
                ha="right", fontsize=7, color="#777777")  # fmt: skip


def _finite(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Expected and observed, float64 [n, 2]; a p-value of 0 is drawn as the smallest above it."""
    points = rows[["expected", "observed"]].to_numpy(dtype=np.float64)
    points = np.asarray(points[~np.isnan(points).any(axis=1)])
    for column in points.T:
        column[np.isinf(column)] = column[np.isfinite(column)].max(initial=1.0)
    return points


def _lambda(value: object) -> str:
    """ " (λ 1.02)", or nothing where it was not measured."""
    number = float(value) if isinstance(value, int | float | np.number) else np.nan
    return f" (λ {number:.2f})" if np.isfinite(number) else ""
