"""Parquet files as Arrow tables, in which words take a third of the memory that they have in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smeld import _check
from smeld.io import _delimited


def table(path: Path, columns: Sequence[str] | None = None) -> Any:
    """The Arrow table of a parquet file, of these ``columns`` alone where given (those that are there)."""
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise _check.problem(
            f"{path.name} needs the package pyarrow", cure="pip install pyarrow (or smeld[spatialdata])"
        ) from None
    try:
        file = parquet.ParquetFile(path)
        wanted = None if columns is None else [c for c in file.schema_arrow.names if c in columns]
        return file.read(columns=wanted)
    except Exception as error:  # pyarrow raises many kinds; all mean: not a readable parquet file
        raise _check.problem(
            f"{path.name} cannot be read as parquet",
            found=f"{_delimited.size_of(path)}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error
