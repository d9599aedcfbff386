"""Space Ranger's positions of spots: csv with or without header, or parquet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smeld import _check
from smeld.io import _arrow, _delimited

if TYPE_CHECKING:
    import pandas as pd

F64 = NDArray[np.float64]
#: Space Ranger's columns, in the order of files without header
COLUMNS = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
FILES = ("tissue_positions.csv", "tissue_positions_list.csv", "tissue_positions.parquet")


@dataclass(frozen=True)
class Positions:
    """One row a spot: ``barcodes``; ``in_tissue``, ``array_row``, ``array_col`` [n]; ``xy`` [n, 2]
    full-resolution pixels."""

    barcodes: list[str]
    in_tissue: F64
    array_row: F64
    array_col: F64
    xy: F64


def read(spatial: Path) -> Positions:
    """Read the positions file of a ``spatial/`` folder, whichever of the three it has."""
    found = [spatial / name for name in FILES if (spatial / name).is_file()]
    if not found:
        inside = sorted(p.name for p in spatial.iterdir()) if spatial.is_dir() else []
        raise _check.problem(
            "the positions of the spots are missing: spatial/tissue_positions.csv, _list.csv or .parquet",
            found=f"spatial/ with {_check.listed(inside)}" if spatial.is_dir() else "no folder spatial/",
            cure="copy Space Ranger's spatial/ folder beside the matrix",
        )
    path = found[0]
    frame = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    numbers = {name: _delimited.numeric(frame, name, where=path.name) for name in COLUMNS[1:]}
    barcodes = frame["barcode"].astype("string").str.strip()
    if barcodes.isna().any():
        raise _check.problem(
            f"{path.name} has rows without a barcode",
            found=f"{int(barcodes.isna().sum())} rows",
            cure="mend the file",
        )
    return Positions(
        [str(b) for b in barcodes], numbers["in_tissue"], numbers["array_row"], numbers["array_col"],
        np.column_stack([numbers["pxl_col_in_fullres"], numbers["pxl_row_in_fullres"]]),
    )  # fmt: skip


def _csv(path: Path) -> pd.DataFrame:
    # "_list" files of version 1 have no header, later ones do; names are not to be trusted, content is
    frame = _delimited.table(path, header=None)
    if frame.attrs["header"]:
        frame.columns = [c.lower() for c in frame.columns]
    elif frame.shape[1] >= len(COLUMNS):
        frame.columns = [*COLUMNS, *(f"extra_{k}" for k in range(frame.shape[1] - len(COLUMNS)))]
    return _complete(frame, path)


def _parquet(path: Path) -> pd.DataFrame:
    frame = _arrow.table(path).to_pandas()
    return _complete(frame.reset_index() if "barcode" not in frame.columns else frame, path)


def _complete(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    refuse_incomplete([str(c) for c in frame.columns], len(frame), path)
    return frame


def refuse_incomplete(columns: list[str], n_rows: int, path: Path) -> None:
    """Raise for a positions file that lacks columns or rows."""
    missing = [name for name in COLUMNS if name not in columns]
    if missing:
        raise _check.problem(
            f"{path.name} has too few columns: {_check.listed(missing)} missing",
            found=f"{len(columns)} columns: {_check.listed(columns, 8)}",
            cure=f"give Space Ranger's own file ({', '.join(COLUMNS)})",
        )
    if not n_rows:
        raise _check.problem(f"{path.name} holds no spot", found="a header only", cure="copy the file again")
