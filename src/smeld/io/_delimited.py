"""Delimited text: csv, tsv and txt, gzipped or not, with errors that say what is wrong with the file."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smeld import _check

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class NamedMatrix:
    """A table of numbers: float32 [n_rows, n_columns] with the names of its rows and columns, as written."""

    rows: list[str]
    columns: list[str]
    values: NDArray[np.float32]


def matrix(path: Path) -> NamedMatrix:
    """Read a table whose first line names the columns and whose first column names the rows.

    The corner may be empty or absent (as R writes it). Empty cells become NaN; repeated names are kept as
    they are.
    """
    import pandas as pd

    with _readable(path):
        text = _text(path)
        separator = _separator(path, text)
        header = next(csv.reader([text.partition("\n")[0].rstrip("\r")], delimiter=separator), [])
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, header=None, skiprows=1, index_col=False,
            dtype={0: str}, na_values=[""], keep_default_na=False, low_memory=False,
        )  # fmt: skip
        if frame.shape[1] < 2:
            raise ValueError(f"{frame.shape[1]} columns")
        columns = header if len(header) == frame.shape[1] - 1 else header[1:]
        if len(columns) != frame.shape[1] - 1:
            raise ValueError(f"{len(header)} names for {frame.shape[1]} columns")
        values = _numbers(frame.iloc[:, 1:], columns)
    return NamedMatrix([str(r) for r in frame[0]], [c.strip() for c in columns], values)


def table(path: Path, *, header: bool | None = True) -> pd.DataFrame:
    """Read a table as strings. ``header=None`` finds out from the content: a first line with numbers is
    data."""
    import pandas as pd

    with _readable(path):
        text = _text(path)
        separator = _separator(path, text)
        first = next(csv.reader([text.partition("\n")[0]], delimiter=separator), [])
        if header is None:
            header = not any(_is_number(cell) for cell in first[1:])
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, header=0 if header else None, index_col=False,
            dtype=str, na_values=[""], keep_default_na=False,
        )  # fmt: skip
    frame.columns = [str(c).strip() for c in frame.columns]
    frame.attrs["header"] = header
    return frame


def numeric(frame: pd.DataFrame, column: str, *, where: str) -> NDArray[np.float64]:
    """A column of strings as float64; empty cells and the word nan become NaN, other words are an error."""
    import pandas as pd

    text = frame[column].astype("string").str.strip()
    values: NDArray[np.float64] = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    words = text[
        np.isnan(values) & text.notna().to_numpy() & ~text.str.lower().isin(["", "nan", "na"]).fillna(True).to_numpy()
    ]
    if len(words):
        raise _check.problem(
            f"column {column!r} of {where} must hold numbers",
            found=repr(str(words.iloc[0])[:40]),
            cure="mend the file",
        )
    return values


def size_of(path: Path) -> str:
    """How large a file is, in words; also of one that is not there, or a link to nothing."""
    return f"{path.stat().st_size} bytes" if path.is_file() else "no file"


def _text(path: Path) -> str:
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        raw = gzip.decompress(raw)
    text = raw.decode("utf-8-sig")
    if not text.strip():
        raise ValueError("the file is empty")
    return text


def _separator(path: Path, text: str) -> str:
    names = path.name.lower().removesuffix(".gz")
    if names.endswith(".tsv"):
        return "\t"
    line = text.partition("\n")[0]
    # csv files with semicolons or tabs are common where the comma is the decimal sign
    return max(",\t;", key=line.count) if names.endswith((".csv", ".txt")) else ","


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(frame: pd.DataFrame, columns: list[str]) -> NDArray[np.float32]:
    for name, (_, dtype) in zip(columns, frame.dtypes.items()):
        if dtype.kind not in "iufb":
            raise ValueError(f"column {name[:40]!r} holds words")
    values: NDArray[np.float32] = frame.to_numpy(dtype=np.float32)
    return values


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What reading text can raise, as one line for the user (pandas' own errors are ValueErrors)."""
    try:
        yield
    except _check.InputError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
        raise _check.problem(
            f"{path.name} cannot be read as a table",
            found=f"{size_of(path)}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated), or mend it",
        ) from error
