"""Whether stated confidence comes true: reliability diagrams, and risk against coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _colors
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

KEY = f"{_keys.DOMAIN}_calibration"
CURE = "run sm.tl.calibration(adata, truth)"
BINS = ("question", "low", "high", "n", "stated", "observed", "observed_low", "observed_high")
CURVE = ("question", "coverage", "risk", "risk_best", "risk_random")
#: questions in the order in which they are drawn: (name, words, marker)
QUESTIONS = (
    ("label", "is the label right?", "o"),
    ("pair", "do two share a label?", "s"),
    ("interval", "truth lies within", "o"),
)
GREY = "#666666"


def reliability(adata: AnnData, *, key: str = KEY, ax: Axes | None = None, title: str | None = None) -> Axes:
    """How often what was stated comes true; below, how often it was stated.

    On the diagonal confidence means what it says; below it, it says too much. Bars are 90 % ranges that take
    neighbouring spots for what they are: no independent witnesses. Of intervals: how often the truth lies in them, by
    tenth of the order, against the 90 % that ought to.

    Parameters
    ----------
    adata
        With ``uns["domain_calibration"]``, as ``sm.tl.calibration`` writes it.
    key
        Key in ``uns``.
    ax, title
        As in :func:`domains`.

    Raises
    ------
    InputError
        The tables are missing or empty.
    """
    rows = _stored(adata, key, "reliability", BINS)
    ranges = bool((rows["question"] == "interval").all())
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes((6.2, 4.4))
        below = ax.inset_axes((0.0, -0.27, 1.0, 0.22), sharex=ax)
        if ranges:
            ax.axhline(float(rows["stated"].iloc[0]), color=GREY, lw=1.0, zorder=1, label="as many ought to")
        else:
            ax.plot([0, 1], [0, 1], color=GREY, lw=1.0, zorder=1, label="as stated")
        summary = _adapt.table(adata).uns[key].get("summary")
        for (name, words, marker), color in zip(QUESTIONS, _colors.palette(3), strict=True):
            part = rows[rows["question"] == name]
            if len(part):
                _points(ax, part, color, marker, f"{words}{_figure(summary, name)}", ranges)
                _often(below, part, color)
        ax.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that holds the truth" if ranges else "observed share")
        ax.tick_params(labelbottom=False)
        below.set(xlabel="order" if ranges else "stated probability", ylabel="share of\nforecasts", ylim=(0, None))
        below.yaxis.set_major_locator(MaxNLocator(2))
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), borderaxespad=0.0)
        words = "Do intervals hold the truth?" if ranges else "Does confidence mean what it says?"
        ax.set_title(shown(words if title is None else title, most=60) if title != "" else "")
    return ax


def risk_coverage(adata: AnnData, *, key: str = KEY, ax: Axes | None = None, title: str | None = None) -> Axes:
    """Error among the most confident, from few of them to all.

    A curve that rises from the left says that the confident are right more often. The best possible curve knows which
    are wrong; the flat line is that of a confidence that knows nothing.

    Parameters
    ----------
    adata
        With ``uns["domain_calibration"]``, as ``sm.tl.calibration`` writes it.
    key
        Key in ``uns``.
    ax, title
        As in :func:`domains`.

    Raises
    ------
    InputError
        The tables are missing or empty.
    """
    rows = _stored(adata, key, "risk_coverage", CURVE)
    ranges = bool((rows["question"] == "interval").all())
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes((4.6, 3.6))
        coverage = rows["coverage"].to_numpy()
        drawn = (("risk_random", "no knowledge", GREY, (0, (4, 3))), ("risk_best", "best possible", GREY, "-"),
                 ("risk", "as stated", _colors.palette(1)[0], "-"))  # fmt: skip
        for column, words, color, line in drawn:
            strong = column == "risk"
            ax.plot(coverage, rows[column], color=color, ls=line, lw=2.0 if strong else 1.0, label=words)
        ax.fill_between(coverage, rows["risk_best"], rows["risk"], color=drawn[-1][2], alpha=0.12, lw=0)
        highest = float(np.nanmax(rows[["risk", "risk_random"]].to_numpy()))
        ax.set(xlim=(0, 1), ylim=(0, max(highest * 1.08, 1e-3)), xlabel="share of spots, most confident first")
        ax.set_ylabel("mean distance from the truth" if ranges else "share that is wrong")
        handles, labels = ax.get_legend_handles_labels()
        ax.legend(handles[::-1], labels[::-1], loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)
        words = "Are the confident right?" if title is None else title
        ax.set_title(shown(words, most=60) if title != "" else "")
    return ax


def _stored(adata: AnnData, key: str, part: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """One of the tables, checked for its columns."""
    table = _adapt.table(adata)
    _check.require(table.uns, key, "uns", CURE)
    rows: Any = table.uns[key].get(part) if hasattr(table.uns[key], "get") else None
    lacking = [c for c in columns if c not in getattr(rows, "columns", ())]
    if lacking or not len(rows):
        found = f"no column {_check.listed(lacking)}" if lacking else "no row"
        raise _check.problem(f"uns[{key!r}] has nothing to show as {part}", found=found, cure=CURE)
    return pd.DataFrame(rows)


def _points(ax: Axes, part: pd.DataFrame, color: str, marker: str, label: str, ranges: bool) -> None:
    at = part[["low", "high"]].mean(axis=1) if ranges else part["stated"]
    ax.vlines(at, part["observed_low"], part["observed_high"], color=color, lw=1.4, alpha=0.6, zorder=2)
    line = "none" if ranges else "-"
    ax.plot(at, part["observed"], marker=marker, ls=line, lw=0.8, ms=5.0, color=color, mec="white", mew=0.5,
            label=label, zorder=3, clip_on=False)  # fmt: skip


def _often(below: Axes, part: pd.DataFrame, color: str) -> None:
    """How the forecasts spread over the bins."""
    width = (part["high"] - part["low"]).to_numpy()
    share = part["n"].to_numpy() / part["n"].sum()
    below.bar(part["low"], share, width, align="edge", facecolor=color, edgecolor=color, alpha=0.35, lw=0.8)


def _figure(summary: Any, name: str) -> str:
    """ " (ECE 0.03)", or the coverage of intervals; nothing where it is not stored."""
    column, words = ("coverage", "") if name == "interval" else ("ece", "ECE ")
    if column not in getattr(summary, "columns", ()):
        return ""
    values = summary.loc[summary["question"].astype(str) == name, column].to_numpy(dtype=np.float64)
    return f" ({words}{values[0]:.2f})" if len(values) and np.isfinite(values[0]) else ""
