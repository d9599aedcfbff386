"""Tables with a row a cell, as imaging platforms deliver them: csv (gzipped or not) and parquet, of any size."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _arrow, _delimited

if TYPE_CHECKING:
    import pandas as pd

#: rows of a wide table that are dense at a time
BLOCK_ROWS = 4096
#: what pandas names columns without a name, also when it writes them
_UNNAMED = re.compile(r"(Unnamed: \d+[\w.]*)?")


@dataclass(frozen=True)
class WideCounts:
    """``counts`` float32 CSR [n_cells, n_genes], ``genes``, the other columns (identifiers, words) as text,
    and ``notes`` for the user."""

    counts: sparse.csr_matrix
    genes: list[str]
    ids: pd.DataFrame
    notes: tuple[str, ...] = ()


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files that fit, by name, without hidden ones such as the ``._*`` that macOS leaves beside every file."""
    return sorted(p for p in folder.glob(pattern) if not p.name.startswith("."))


def one_file(folder: Path, patterns: Sequence[str], what: str, *, optional: bool = False) -> Path | None:
    """The one file that fits the first pattern which any file fits; several, or none, are an error (none: None where
    ``optional``)."""
    for pattern in patterns:
        found = visible(folder, pattern)
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


def header(path: Path) -> list[str]:
    """The names of a csv's columns, as written; "" for those without a name, and for those that pandas named so."""
    with readable(path), _wide_text(path) as file:
        return _header(file)


def _header(file: IO[str]) -> list[str]:
    names = [name.strip() for name in next(csv.reader([file.readline()]), [])]
    if not names:
        raise ValueError("the table is empty")
    return ["" if _UNNAMED.fullmatch(name) else name for name in names]


def wide_counts(
    path: Path, *, ids: Sequence[str], words: Sequence[str] = (), drop: str | None = None, gaps: bool = False
) -> WideCounts:
    """A table of cells x genes, read in blocks and never dense as a whole.

    ``ids`` columns are identifiers, which no row may lack; an unnamed first column counts as named ``ids[0]`` where no
    other is. ``words`` are further columns that are no genes. Columns that the pattern ``drop`` matches, or that have
    no name, are left out, the latter with a note. Empty cells, as of a copy that was broken off, are an error; with
    ``gaps`` NaN. So are rows that have more or fewer cells than there are names; one more in all of them, as R writes
    them, is the rows' names.
    """
    import pandas as pd

    with readable(path), _wide_text(path) as file:
        names = _header(file)
        lines = _filled(file)
        first = next(lines, "")
        names = _fit(names, first, gaps=gaps)
        if not names[0] and ids[0] not in names:
            if names[1:2] == [""]:
                raise ValueError("the first two columns have no name: which one holds the identifiers is not known")
            names[0] = ids[0]
        text = [*ids, *words]
        missing = [c for c in text if c not in names]
        if missing:
            raise _check.problem(
                f"{path.name} lacks the columns {_check.listed(missing)}",
                found=_check.listed(names, 8),
                cure="give the platform's own table of counts",
            )
        twice = [c for c in text if names.count(c) > 1]
        if twice:
            raise ValueError(f"column {twice[0]!r} comes twice")
        at_text = [names.index(c) for c in text]
        kept = [i for i, c in enumerate(names) if c and c not in text and not (drop and re.search(drop, c))]
        types: dict[int, Any] = dict.fromkeys(kept, np.float32) | dict.fromkeys(at_text, str)
        blocks, labels, n_rows = [], [], 0
        for part in _parts(chain([first], lines) if first else iter(()), len(names)):
            chunk = pd.read_csv(
                io.StringIO(part), header=None, usecols=sorted(types), dtype=types, keep_default_na=False,
                na_values=[""], index_col=False, skip_blank_lines=False,
            )  # fmt: skip
            known = chunk[at_text].set_axis(text, axis=1)
            blocks.append(_numbers_of(chunk[kept], known, ids, after=n_rows, gaps=gaps))
            labels.append(known)
            n_rows += len(chunk)
        if not blocks:
            raise ValueError("the table has no rows")
        return WideCounts(
            sparse.vstack(blocks, format="csr"), [names[i] for i in kept], pd.concat(labels, ignore_index=True),
            _notes(path, names),
        )  # fmt: skip


def _wide_text(path: Path) -> IO[str]:
    """Text of a file, gzipped or not whatever its name says."""
    if is_gzipped(path):
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _filled(file: IO[str]) -> Iterator[str]:
    """The lines that hold something."""
    return (line for line in file if line.strip())


def _n_cells(line: str) -> int:
    return len(next(csv.reader([line]))) if '"' in line else line.count(",") + 1


def _fit(names: list[str], first: str, *, gaps: bool) -> list[str]:
    """The columns' names, with one more where every row has a cell more."""
    if not first or _n_cells(first) != len(names) + 1:
        return names
    if not first.rstrip("\r\n").endswith(","):
        return ["", *names]  # the rows' names, to which R gives none
    if gaps:
        raise ValueError(f"rows of {len(names) + 1} cells for {len(names)} names, the last of them empty")
    return [*names, ""]  # a comma at the end of every row


def _parts(lines: Iterator[str], width: int) -> Iterator[str]:
    """Blocks of lines, all of ``width`` cells."""
    number = 0
    while part := list(islice(lines, BLOCK_ROWS)):
        for line in part:
            number += 1
            if _n_cells(line) != width:
                raise ValueError(f"row {number} ({line[:30].strip()}) has {_n_cells(line)} cells for {width} names")
        yield "".join(part)


def _numbers_of(
    values: pd.DataFrame, known: pd.DataFrame, ids: Sequence[str], *, after: int, gaps: bool
) -> sparse.csr_matrix:
    """The numbers of a block of rows, ``after`` so many others."""
    for column in ids:
        lacking = np.flatnonzero(known[column].isna() | (known[column].str.strip() == ""))
        if len(lacking):
            raise ValueError(f"row {after + int(lacking[0]) + 1} has no {column}")
    numbers = values.to_numpy(dtype=np.float32)
    if not gaps and (empty := np.flatnonzero(np.isnan(numbers).any(axis=1))).size:
        row = int(empty[0])
        name = " ".join(str(known[column].iloc[row]) for column in ids)
        raise ValueError(f"row {after + row + 1} ({name[:40]}) has empty cells")
    return sparse.csr_matrix(numbers)


def _notes(path: Path, names: list[str]) -> tuple[str, ...]:
    bare = [i + 1 for i, name in enumerate(names) if not name]
    if not bare:
        return ()
    return (f"columns of {path.name} without a name were left out: {_check.listed([f'number {i}' for i in bare], 3)}",)


def _csv(path: Path, *, text: Sequence[str], only: Sequence[str] | None) -> pd.DataFrame:
    import pandas as pd

    with readable(path):
        wanted = None if only is None else (lambda name: name in set(only))
        read = partial(
            pd.read_csv,
            path,
            sep="\t" if path.name.removesuffix(".gz").endswith(".tsv") else ",",
            dtype=dict.fromkeys(text, str),
            usecols=wanted,
            low_memory=False,
            compression="gzip" if is_gzipped(path) else None,
        )
        frame = read()
        # rows with a cell more than there are names: of names of their own, as R writes them, or a comma at the end
        if not isinstance(frame.index, pd.RangeIndex) and frame.iloc[:, -1].isna().all():
            frame = read(index_col=False)
        if not len(frame):
            raise ValueError("the table has no rows")
        return frame.rename(columns={"Unnamed: 0": ""})


def _parquet(path: Path, only: Sequence[str] | None) -> pd.DataFrame:
    with readable(path):
        frame = _arrow.table(path, only).to_pandas()
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
    except (
        OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, csv.Error, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise _check.problem(
            f"{path.name} cannot be read as a table",
            found=f"{_delimited.size_of(path)}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error
