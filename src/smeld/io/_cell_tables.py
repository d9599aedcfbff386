"""Tables with a row a cell, as imaging platforms deliver them: csv (gzipped or not) and parquet, of any size."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check

if TYPE_CHECKING:
    import pandas as pd

#: rows of a wide table that are dense at a time
BLOCK_ROWS = 4096


@dataclass(frozen=True)
class WideCounts:
    """``counts`` float32 CSR [n_cells, n_genes], ``genes``, and the other columns (identifiers) as text."""

    counts: sparse.csr_matrix
    genes: list[str]
    ids: pd.DataFrame


def one_file(folder: Path, patterns: Sequence[str], what: str, *, optional: bool = False) -> Path | None:
    """The one file that fits the first pattern which any file fits; several, or none, are an error (none: None where
    ``optional``)."""
    for pattern in patterns:
        found = sorted(p for p in folder.glob(pattern) if not p.name.startswith("."))
        if len(found) == 1:
            return found[0]
        if found:
            raise _check.problem(
                f"cannot tell which file holds {what}",
                found=_check.listed(p.name for p in found),
                cure="keep one section a folder",
            )
    if optional:
        return None
    raise _check.problem(
        f"{what} not found: expected {' or '.join(patterns)}",
        found=_check.listed(sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir()), 12),
        cure="copy the file from the platform's output folder",
    )


def needed_file(folder: Path, patterns: Sequence[str], what: str) -> Path:
    """:func:`one_file` that must be there."""
    found = one_file(folder, patterns, what)
    if found is None:
        raise _check.problem(f"{what} not found", cure="copy the file from the platform's output folder")
    return found


def table(path: Path, *, needed: Sequence[str], text: Sequence[str] = (), only: Sequence[str] | None = None) -> Any:
    """A DataFrame of a csv, tsv or parquet file.

    ``needed`` columns must be there; those of ``text`` stay words (identifiers that look like numbers keep all their
    digits); ``only`` these columns are loaded where given. An index of a parquet file without that name is a column.
    """
    frame = _parquet(path, only) if path.suffix == ".parquet" else _csv(path, text=text, only=only)
    missing = [c for c in needed if c not in frame.columns]
    if missing:
        raise _check.problem(
            f"{path.name} lacks the columns {_check.listed(missing)}",
            found=_check.listed([str(c) for c in frame.columns], 12),
            cure="give the platform's own file; a newer version may have renamed them",
        )
    for column in set(text) & set(frame.columns):
        frame[column] = [_word(v) for v in frame[column].tolist()]
    return frame


def numbers(frame: pd.DataFrame, column: str, *, where: str) -> NDArray[np.float64]:
    """A column as float64; words are an error, empty cells NaN."""
    import pandas as pd

    values = pd.to_numeric(frame[column], errors="coerce")
    bad = values.isna() & frame[column].notna()
    if bad.any():
        raise _check.problem(
            f"column {column!r} of {where} must hold numbers",
            found=_check.listed([str(v) for v in frame[column][bad]], 3),
            cure="copy the file again",
        )
    return np.asarray(values.to_numpy(dtype=np.float64, na_value=np.nan))


def wide_counts(path: Path, *, ids: Sequence[str], drop: str | None = None, gaps: bool = False) -> WideCounts:
    """A table of cells x genes, read in blocks and never dense as a whole.

    ``ids`` columns are identifiers; an unnamed first column counts as named ``ids[0]``. Columns that the pattern
    ``drop`` matches are left out. Empty cells, as of a copy that was broken off, are an error; with ``gaps`` NaN.
    """
    import pandas as pd

    with readable(path):
        header = pd.read_csv(path, nrows=0)
        names = [str(c) for c in header.columns]
        first_unnamed = bool(names) and (names[0].startswith("Unnamed: ") or names[0] == "")
        if first_unnamed and ids[0] not in names:
            names[0] = ids[0]
        missing = [c for c in ids if c not in names]
        if missing:
            raise _check.problem(
                f"{path.name} lacks the columns {_check.listed(missing)}",
                found=_check.listed(names, 8),
                cure="give the platform's own table of counts",
            )
        kept = [c for c in names if c not in ids and not (drop and re.search(drop, c))]
        types: dict[str, Any] = dict.fromkeys(kept, np.float32) | dict.fromkeys(ids, str)
        reader = pd.read_csv(
            path, header=0, names=names, usecols=[*ids, *kept], dtype=types, chunksize=BLOCK_ROWS,
            keep_default_na=False, na_values=[""],
        )  # fmt: skip
        blocks, labels = [], []
        for chunk in reader:
            values = chunk[kept].to_numpy(dtype=np.float32)
            if not gaps and np.isnan(values).any():
                short = chunk[ids[-1]].iloc[int(np.flatnonzero(np.isnan(values).any(axis=1))[0])]
                raise ValueError(f"row {short!r} has empty cells")
            blocks.append(sparse.csr_matrix(values))
            labels.append(chunk[list(ids)])
        if not blocks:
            raise ValueError("the table has no rows")
        return WideCounts(sparse.vstack(blocks, format="csr"), kept, pd.concat(labels, ignore_index=True))


def _csv(path: Path, *, text: Sequence[str], only: Sequence[str] | None) -> pd.DataFrame:
    import pandas as pd

    with readable(path):
        wanted = None if only is None else (lambda name: name in set(only))
        frame = pd.read_csv(
            path,
            sep="\t" if path.name.removesuffix(".gz").endswith(".tsv") else ",",
            dtype=dict.fromkeys(text, str),
            usecols=wanted,
            low_memory=False,
        )
        if not len(frame):
            raise ValueError("the table has no rows")
        return frame.rename(columns={"Unnamed: 0": ""})


def _parquet(path: Path, only: Sequence[str] | None) -> pd.DataFrame:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise _check.problem(
            f"{path.name} needs the package pyarrow", cure="pip install pyarrow (or smeld[spatialdata])"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        wanted = None if only is None else [c for c in file.schema_arrow.names if c in set(only)]
        frame = file.read(columns=wanted).to_pandas()
    except Exception as error:  # pyarrow raises many kinds; all mean: not a readable parquet file
        raise _check.problem(
            f"{path.name} cannot be read as parquet",
            found=f"{path.stat().st_size} bytes, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error
    # an index that stands for rows says nothing
    return frame if frame.index.name is None else frame.reset_index()


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """What reading a table can raise, as one line for the user (pandas' own errors are ValueErrors)."""
    try:
        yield
    except _check.InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, KeyError, csv.Error, OverflowError) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise _check.problem(
            f"{path.name} cannot be read as a table",
            found=f"{size}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error
