"""A given truth against the labels that were found: which types are taken for which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.pl import _canvas, _colors, _matrix, maps

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]
Int = NDArray[np.intp]

CURE = "run sm.tl.annotate(adata, reference)"
SET_SUFFIX = "_set"
#: columns of room between the labels and what is shown apart
GAP = 0.4
SEVERAL, HELD = "several", "truth in set"
SHARES = "Blues"


@dataclass(frozen=True)
class Counted:
    """Cells by true label (rows) and found label (columns): ``number`` [n, m] of those with one type alone in their
    set, ``several`` [n] with more, ``held`` [n] whose set holds the truth (-1: not a type of the sets)."""

    down: list[str]
    across: list[str]
    number: Int
    several: Int | None
    held: Int | None
    n_without: int

    @property
    def size(self) -> Int:
        """Cells by true label [n]."""
        more = 0 if self.several is None else self.several
        return np.asarray(self.number.sum(axis=1) + more, dtype=np.intp)


def confusion(
    adata: AnnData,
    truth: str,
    key: str = _keys.CELL_TYPE,
    *,
    sets: bool | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Given labels (rows) against those that were found (columns): shares of each row, numbers of cells written.

    Parameters
    ----------
    adata
        With ``obs[key]``, as ``sm.tl.annotate`` writes it.
    truth
        Column of ``obs`` with the given labels. Cells without one are left out.
    key
        Column of ``obs`` with the labels that were found, and prefix of ``obsm[f"{key}_set"]``.
    sets
        Show cells whose set has more than one type apart, as "several", and beside them the percentage of cells whose
        set holds the truth. Rows then sum to 1 over labels and "several". None: where sets are stored.
    ax, title
        As in :func:`domains`.

    Raises
    ------
    InputError
        A column or the sets are missing, or no cell has a given label.
    """
    table = _adapt.table(adata)
    found = counted(table, truth, key, sets)
    share = found.number / np.maximum(found.size, 1)[:, None]
    down = [f"{name} ({n:,})" for name, n in zip(found.down, found.size)]
    extra = [] if found.several is None else [SEVERAL, HELD]
    norm = Normalize(0.0, 1.0)
    with _canvas.style():
        if ax is None:
            ax = _canvas.new_axes(size_in(found))
        _matrix.draw(ax, share, [[_matrix.number(n) for n in row] for row in found.number], norm, SHARES)
        at = [float(j) for j in range(len(found.across))]
        if found.several is not None and found.held is not None:
            _apart(ax, found, found.several, found.held, norm)
            at += [len(found.across) + GAP, len(found.across) + GAP + 1]
        _matrix.name_axes(ax, down, [*found.across, *extra], at)
        ax.set(xlabel=f"found ({key})", ylabel=f"given ({truth})")
        _matrix.key(ax, norm, SHARES, "share of the row")
        maps._title(ax, title, "Given and found types")
        if found.n_without:
            ax.set_xlabel(f"found ({key}); {found.n_without:,} without a given label left out")
    return ax


def size_in(found: Counted) -> tuple[float, float]:
    """Size in inches of a figure of its own."""
    down = [f"{name} (1,000)" for name in found.down]
    extra = 0.0 if found.several is None else GAP + 2
    return _matrix.size_in(down, [*found.across, HELD], extra=extra)


def counted(table: AnnData, truth: str, key: str, sets: bool | None) -> Counted:
    """The numbers that are shown; rows in natural order, columns of the same names first, then the other types."""
    _check.require(table.obs.columns, truth, "obs", "name the column with the labels that are known")
    _check.require(table.obs.columns, key, "obs", CURE)
    given, found = _colors.categories(table, truth), _colors.categories(table, key)
    known = (given.codes >= 0) & (found.codes >= 0)
    if not known.any():
        raise _check.problem(f"no cell has a label in obs[{truth!r}] and in obs[{key!r}]", found="missing values")
    down = [given.names[c] for c in np.unique(given.codes[known])]
    across = [name for name in down if name in found.names] + [n for n in found.names if n not in down]
    row = pd.Index(down).get_indexer(np.asarray(given.names, dtype=object)[given.codes])
    column = pd.Index(across).get_indexer(np.asarray(found.names, dtype=object)[found.codes])
    member = _sets(table, key, sets)
    number = np.zeros((len(down), len(across)), dtype=np.intp)
    if member is None:
        np.add.at(number, (row[known], column[known]), 1)
        return Counted(down, across, number, None, None, int((~known).sum()))
    several = known & (member.sum(axis=1).to_numpy() > 1)
    np.add.at(number, (row[known & ~several], column[known & ~several]), 1)
    right = np.zeros(table.n_obs, dtype=bool)
    for i, name in enumerate(down):
        if name in member:
            right |= (row == i) & member[name].to_numpy(dtype=bool)
    held = np.bincount(row[known & right], minlength=len(down))
    held = np.where([name in member for name in down], held, -1)
    return Counted(down, across, number, np.bincount(row[several], minlength=len(down)), held, int((~known).sum()))


def _sets(table: AnnData, key: str, wanted: bool | None) -> pd.DataFrame | None:
    name = key + SET_SUFFIX
    if wanted is False or (wanted is None and name not in table.obsm):
        return None
    _check.require(table.obsm, name, "obsm", CURE)
    stored = table.obsm[name]
    if not isinstance(stored, pd.DataFrame):
        raise _check.problem(f"obsm[{name!r}] has no named columns", found=type(stored).__name__, cure=CURE)
    return stored.set_axis([str(c) for c in stored.columns], axis=1).astype(bool)


def _apart(ax: Axes, found: Counted, several: Int, held: Int, norm: Normalize) -> None:
    """Cells of several types, and how many sets hold the truth, right of the others."""
    size = np.maximum(found.size, 1)
    at = len(found.across) + GAP
    _matrix.draw(ax, (several / size)[:, None], [[_matrix.number(n)] for n in several], norm, SHARES, at=at)
    share = np.where(held < 0, np.nan, held / size)
    text = [["-" if h < 0 else f"{100 * s:.0f} %"] for h, s in zip(held, share)]
    _matrix.draw(ax, share[:, None], text, norm, "Greens", at=at + 1)
