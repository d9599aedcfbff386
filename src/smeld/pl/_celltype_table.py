"""What figures of cell-type interactions read: the checked table, and the labels of the cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from smeld import _check, _keys
from smeld.pl import _colors, _stored_pairs
from smeld.pl._stored_pairs import FDR, Pair

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS = ("ligand", "receptor", "sender", "receiver", "zscore", "pvalue", "qvalue")


def celltype_table(adata: AnnData, key: str) -> pd.DataFrame:
    """The table of ``sm.tl.celltype_interactions``, most significant first; ``place`` numbers its pairs in order."""
    rows = _stored_pairs.stored_table(adata, key, COLUMNS, "run sm.tl.celltype_interactions(adata)")
    names = {c: rows[c].astype(str) for c in ("ligand", "receptor", "sender", "receiver")}
    rows = rows.assign(**names).sort_values(["pvalue", "zscore"], ascending=[True, False], kind="stable")
    return rows.assign(
        place=rows.groupby(["ligand", "receptor"], sort=False).ngroup(), found=rows["qvalue"] <= FDR
    ).reset_index(drop=True)


def of_pair(rows: pd.DataFrame, pair: Pair, key: str) -> pd.DataFrame:
    """The rows of one pair; a number counts the table's pairs, most significant first."""
    pairs = rows.drop_duplicates("place").reset_index(drop=True)
    return rows[rows["place"] == _stored_pairs.row_of(pairs, pair, f"uns[{key!r}]")]


def groups_of(adata: AnnData, groups: str | None, key: str) -> str:
    """The labels that are meant: as named, as the table was made with, or ``cell_type``."""
    if groups is not None:
        return groups
    made = _stored_pairs.parameters(adata, key).get("groups", _keys.CELL_TYPE)
    return str(made)


def types(adata: AnnData, groups: str) -> _colors.Categories:
    """Labels of the cells: a column of ``obs``, or the largest share in a table of proportions in ``obsm``."""
    if groups in adata.obs.columns or groups not in adata.obsm:
        return _colors.categories(adata, groups)
    shares = adata.obsm[groups]
    if not isinstance(shares, pd.DataFrame):
        raise _check.problem(
            f"obsm[{groups!r}] has no names of types", found=type(shares).__name__, cure="store a DataFrame"
        )
    values = shares.to_numpy(dtype=np.float64)
    codes = np.where(np.nansum(values, axis=1) > 0, np.nan_to_num(values, nan=-1.0).argmax(axis=1), -1)
    names = [str(c) for c in shares.columns]
    return _colors.Categories(codes.astype(np.intp), names, _colors.of_labels(names))
