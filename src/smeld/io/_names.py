"""Names that a file brings and that cannot be written again: mended when they are read, for writing comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smeld import _check
from smeld.io import _section

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

#: HDF5 and zarr end a word here
_NUL = "\0"


def mend(adata: AnnData) -> None:
    """Refuse names of cells and genes with a NUL in them; rename columns of ``obs``, ``var`` and of tables in ``obsm``
    that HDF5 does not take, and take NULs out of the words in ``obs`` and ``var``, both with a warning."""
    for names, what in ((adata.obs_names, "cells"), (adata.var_names, "genes")):
        bad = [repr(name)[:40] for name in names if _NUL in str(name)]
        if bad:
            raise _check.problem(
                f"names of {what} hold a NUL character", found=_check.listed(bad, 3), cure="copy the file again"
            )
    tables = {f"obsm[{key!r}]": value for key, value in adata.obsm.items() if hasattr(value, "columns")}
    for where, frame in ({"obs": adata.obs, "var": adata.var} | tables).items():
        _mend_columns(adata, frame, where)
        _mend_words(adata, frame, where)


def _mend_columns(adata: AnnData, frame: pd.DataFrame, where: str) -> None:
    renamed: dict[Any, str] = {}
    for name in frame.columns:
        text = str(name)
        # anndata keeps the row names under _index
        mended = "index" if text == "_index" else _section.library_name(text)
        if "/" in text or _NUL in text or text == "_index":
            renamed[name] = mended
    if not renamed:
        return
    taken = {str(name) for name in frame.columns}
    for name, wanted in renamed.items():
        mended, number = wanted, 1
        while mended in taken:
            mended, number = f"{wanted}-{number}", number + 1
        taken.add(mended)
        renamed[name] = mended
    frame.rename(columns=renamed, inplace=True)
    _check.warn(
        f"columns of {where} that cannot be written as they are named were renamed:"
        f" {_check.listed([f'{old!r} to {new!r}' for old, new in renamed.items()], 3)}",
        adata,
    )


def _mend_words(adata: AnnData, frame: pd.DataFrame, where: str) -> None:
    for name in frame.columns if frame.columns.is_unique else ():
        if frame[name].dtype.kind != "O":
            continue
        has = [isinstance(value, str) and _NUL in value for value in frame[name]]
        if any(has):
            frame[name] = [value.replace(_NUL, "_") if bad else value for value, bad in zip(frame[name], has)]
            _check.warn(f"{sum(has)} words of {where}[{name!r}] held a NUL character: _ is in its place", adata)
