"""Checks that the tests of all readers of cells share."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import smeld as sm
from smeld._check import InputError, SmeldWarning


def quiet(path: Path, **options: Any) -> AnnData:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


def warned(path: Path, **options: Any) -> tuple[AnnData, str]:
    """The section and all warnings, as one text."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SmeldWarning)
        adata = sm.read(path, **options)
    return adata, "\n".join(str(w.message) for w in caught)


def assert_true(adata: AnnData, truth: pd.DataFrame, genes: list[str], *, um: float = 1.0, share: float = 1.0) -> None:
    """Counts and micrometres equal the truth, cell by cell and gene by gene, and distances do."""
    assert set(adata.obs_names) == set(truth.index)
    table = pd.DataFrame(adata.X.toarray(), adata.obs_names, adata.var_names)
    pd.testing.assert_frame_equal(table.loc[truth.index, genes], truth[genes] * share, check_dtype=False)
    xy = pd.DataFrame(adata.obsm["spatial_um"], adata.obs_names).loc[truth.index].to_numpy()
    assert np.allclose(xy, truth[["x", "y"]] * um, atol=1e-6)
    first, last = xy[0], xy[-1]
    apart = truth[["x", "y"]].iloc[[0, -1]].diff().iloc[1] * um
    assert np.hypot(*(last - first)) == pytest.approx(np.hypot(*apart), rel=1e-9)


def assert_same(one: AnnData, other: AnnData) -> None:
    """The same table, in any order of its rows."""
    other = other[one.obs_names].copy()
    assert (one.X != other.X).nnz == 0
    assert np.array_equal(one.obsm["spatial_um"], other.obsm["spatial_um"])
    for key in (k for k in one.obsm if isinstance(one.obsm[k], pd.DataFrame)):
        pd.testing.assert_frame_equal(one.obsm[key], other.obsm[key])


def assert_refused(path: Path, spoil: Callable[[Path], Any], *words: str, **options: Any) -> None:
    """Reading fails in one line that holds all the words, once the folder has been spoilt."""
    spoil(path)
    with pytest.raises(InputError) as error:
        quiet(path, **options)
    text = str(error.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def edit(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], **options: Any) -> None:
    """Rewrite a csv after a change."""
    change(pd.read_csv(path, dtype=str, keep_default_na=False, **options)).to_csv(path, index=False)
