"""Colours: a palette for categories that colour-blind readers can tell apart, and the colours of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, is_color_like, to_rgba
from numpy.typing import NDArray

from smeld import _check
from smeld._palette import PALETTE as PALETTE
from smeld._palette import of_labels as of_labels
from smeld._palette import palette as palette

if TYPE_CHECKING:
    from anndata import AnnData

#: spots without a value
MISSING = "#D9D9D9"
#: sequential colour maps, both readable without colour vision
SEQUENTIAL = "viridis"
CONFIDENCE = "cividis"
#: symmetrical about zero
DIVERGING = "RdBu_r"


@dataclass(frozen=True)
class Categories:
    """A column of labels: ``codes`` int [n_obs] (-1 = none), ``names`` and ``colors`` by code."""

    codes: NDArray[np.intp]
    names: list[str]
    colors: list[str]

    @property
    def used(self) -> list[int]:
        """The codes that occur."""
        return [int(c) for c in np.unique(self.codes) if c >= 0]

    @property
    def incomplete(self) -> bool:
        """True if some spots have no label."""
        return bool((self.codes < 0).any())

    def rgba(self) -> NDArray[np.float64]:
        """Colour of every spot, float64 [n_obs, 4]."""
        table = np.array([to_rgba(c) for c in [*self.colors, MISSING]])
        return np.asarray(table[self.codes], dtype=np.float64)


def natural_order(names: Iterable[object]) -> list[str]:
    """The different names, sorted so that "10" follows "9"."""

    def parts(text: str) -> list[tuple[int, str]]:
        return [(int(part) if i % 2 else -1, part) for i, part in enumerate(re.split(r"([0-9]+)", text))]

    return sorted({str(name) for name in names}, key=parts)


def categories(adata: AnnData, key: str) -> Categories:
    """The labels in ``obs[key]`` and their colours: ``uns[f"{key}_colors"]`` if it fits, else the palette.

    Nothing is written: the colours follow from the order of the categories alone, so they agree in every
    figure.
    """
    _check.require(adata.obs.columns, key, "obs", "run sm.tl.domains(adata), or name a column of labels")
    column = adata.obs[key]
    if not isinstance(column.dtype, pd.CategoricalDtype):
        if pd.api.types.is_float_dtype(column.dtype):
            raise _check.problem(
                f"obs[{key!r}] is not a column of labels",
                found=f"numbers ({column.dtype})",
                cure="name a categorical column",
            )
        text = column.astype(str).where(column.notna())
        column = pd.Series(pd.Categorical(text, categories=natural_order(text.dropna())))
    names = [str(c) for c in column.cat.categories]
    return Categories(
        np.asarray(column.cat.codes, dtype=np.intp),
        names,
        _stored(adata, key, len(names)) or of_labels(names),
    )


def _stored(adata: AnnData, key: str, n: int) -> list[str] | None:
    found = adata.uns.get(f"{key}_colors")
    if found is None or isinstance(found, str) or not isinstance(found, Iterable):
        return None
    colors = [str(c) for c in found]
    return colors[:n] if len(colors) >= n and all(is_color_like(c) for c in colors) else None


def colormap(name: str) -> Colormap:
    """A colour map in which missing values are grey."""
    return mpl.colormaps[name].with_extremes(bad=MISSING)
