"""Wide tables whose first column names the rows (genes x beads, targets x segments, spots x genes), and sparse
matrices with the names of their sides in files of their own."""

from __future__ import annotations

import csv
import gzip
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables

#: characters of a line: a gene's counts in 10 million cells take 20 million and more
MAX_LINE = 256_000_000


@dataclass(frozen=True)
class NamedCounts:
    """``counts`` float32 CSR [n_rows, n_columns] with the names of both sides, as written."""

    counts: sparse.csr_matrix
    rows: list[str]
    columns: list[str]

    def transposed(self) -> NamedCounts:
        return NamedCounts(sparse.csr_matrix(self.counts.T), self.columns, self.rows)


def named_counts(path: Path) -> NamedCounts:
    """A table whose first line names the columns and whose first column names the rows, read row by row and
    never dense as a whole. The corner may be absent (as R writes it); lines before the first that begin with # are
    skipped; the separator is what the first line has most of."""
    with _cell_tables.readable(path), open_text(path) as file:
        lines = _lines(file)
        line = next((line for line in lines if not line.startswith("#")), "")
        if not line.strip():
            raise ValueError("the table is empty")
        separator = max(",\t;", key=line.count)
        header = [name.strip() for name in next(csv.reader([line.rstrip("\r\n")], delimiter=separator))]
        return _rows(lines, header, separator)


def open_text(path: Path) -> IO[str]:
    """Text of a file, gzipped or not."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8-sig") if zipped else path.open(encoding="utf-8-sig", newline="")


def _lines(file: IO[str]) -> Iterator[str]:
    """The lines of a file; one without an end, as of a file that is no table, is not held in memory."""
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line of {MAX_LINE} characters or more")
        yield line


def cells_of_ends(path: Path, separator: str) -> tuple[int, int]:
    """How many cells the first line of a table has, and the last that holds something."""
    with open_text(path) as file:
        filled = (line for line in _lines(file) if line.strip())
        first = next(filled, "")
        last = max(deque(filled, maxlen=1), default="")
    n_first, n_last = (len(next(csv.reader([line], delimiter=separator), [])) for line in (first, last))
    return n_first, n_last


def _rows(lines: Iterator[str], header: list[str], separator: str) -> NamedCounts:
    """Row by row: tables of 100,000 columns are no matter of columns, as parsers of tables see them."""
    rows: list[str] = []
    data, indices, size = [], [], [0]
    width = 0
    for line in lines:
        if not line.strip():
            continue
        name, cells = _first_cell(line.rstrip("\r\n"), separator)
        width = width or _width(header, len(cells))
        if len(cells) != width:
            raise ValueError(f"row {name!r} has {len(cells)} numbers for {width} columns")
        # most cells are 0, and the others alone are worth the time it takes to make numbers of them
        at = [i for i, cell in enumerate(cells) if cell != "0"]
        rows.append(name)
        data.append(_numbers([cells[i] for i in at], name))
        indices.append(np.asarray(at, dtype=np.int64))
        size.append(len(at))
    if not rows:
        raise ValueError("the table has no rows")
    parts = (np.concatenate(data), np.concatenate(indices), np.cumsum(size))
    counts = sparse.csr_matrix(parts, shape=(len(rows), width))
    counts.eliminate_zeros()  # written as 0.0
    return NamedCounts(counts, rows, header[len(header) - width :])


def _first_cell(line: str, separator: str) -> tuple[str, list[str]]:
    """The row's name, and its other cells."""
    if line.startswith('"'):
        name, _, rest = line[1:].partition('"')
        rest = rest.removeprefix(separator)
    else:
        name, _, rest = line.partition(separator)
    return name.strip(), rest.split(separator)


def _numbers(cells: list[str], name: str) -> NDArray[np.float32]:
    try:
        return np.asarray([float(cell) for cell in cells], dtype=np.float32)
    except ValueError:
        raise ValueError(f"row {name!r} has empty cells or words") from None


def _width(header: list[str], n_values: int) -> int:
    if n_values not in (len(header), len(header) - 1) or n_values == 0:
        raise ValueError(f"{len(header)} names for {n_values + 1} columns, or a row with words")
    return n_values


def matrix_market(path: Path, rows: list[str], columns: list[str], *, sides: str) -> NamedCounts:
    """A ``.mtx`` (gzipped or not) with the names of its ``rows`` and ``columns``; ``sides`` names both in messages."""
    from scipy.io import mmread

    with _cell_tables.readable(path):
        counts = sparse.csr_matrix(sparse.csr_matrix(mmread(path)), dtype=np.float32)
    if counts.shape != (len(rows), len(columns)):
        raise _check.problem(
            f"{path.name} does not fit the names of its {sides}",
            found=f"{counts.shape[0]} x {counts.shape[1]} values for {len(rows)} x {len(columns)} names",
            cure="copy all files of the section again",
        )
    return NamedCounts(counts, rows, columns)


def names(path: Path, column: int = 0) -> list[str]:
    """One column of a table without a header (the last one where there are fewer): identifiers, a line each."""
    with _cell_tables.readable(path), open_text(path) as file:
        lines = [line.rstrip("\r\n") for line in _lines(file) if line.strip()]
        if not lines:
            raise ValueError("the file is empty")
        split = [line.split("\t") for line in lines]
        return [cells[min(column, len(cells) - 1)].strip().strip('"') for cells in split]
