"""Counts made of a table with a row a transcript, read in blocks: what is left where a section has no matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _arrow, _cell_tables

if TYPE_CHECKING:
    import pandas as pd

#: rows that are in memory at a time
BLOCK_ROWS = 500_000


@dataclass(frozen=True)
class Counted:
    """``counts`` float32 CSR [n_cells, n_genes]; ``cells`` and ``genes`` in the order of the alphabet."""

    counts: sparse.csr_matrix
    cells: list[str]
    genes: list[str]


def count(
    path: Path, *, cell: str, gene: str, more: Sequence[str], keep: Callable[[pd.DataFrame], NDArray[np.bool_]]
) -> Counted:
    """Cells x genes of a csv (gzipped or not) or parquet file with the columns ``cell``, ``gene`` and ``more``.

    ``keep`` says which rows of a block count.
    """
    import pandas as pd

    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    pairs: list[NDArray[np.int64]] = []
    numbers: list[NDArray[np.int64]] = []
    for block in _blocks(path, text=(cell, gene), more=more):
        chosen = block[keep(block)]
        codes = []
        for name, known in ((cell, rows), (gene, columns)):
            code, words = pd.factorize(chosen[name])
            place = np.asarray([known.setdefault(str(w), len(known)) for w in words], dtype=np.int64)
            codes.append(place[code] if len(place) else np.zeros(0, dtype=np.int64))
        pair, number = np.unique((codes[0] << 32) | codes[1], return_counts=True)
        pairs.append(pair)
        numbers.append(number)
    if not rows:
        raise _check.problem(
            f"no transcript of {path.name} lies in a cell", cure="give the transcripts of this section"
        )
    pair = np.concatenate(pairs)
    shape = (len(rows), len(columns))
    counts = sparse.coo_matrix(
        (np.concatenate(numbers).astype(np.float32), (pair >> 32, pair & 0xFFFFFFFF)), shape=shape
    ).tocsr()
    cells, genes = sorted(rows), sorted(columns)
    ordered = counts[[rows[c] for c in cells]][:, [columns[g] for g in genes]]
    return Counted(sparse.csr_matrix(ordered), cells, genes)


def _blocks(path: Path, *, text: Sequence[str], more: Sequence[str]) -> Iterator[pd.DataFrame]:
    import pandas as pd

    wanted = [*text, *more]
    if path.suffix == ".parquet":
        import pyarrow as pa

        table = _arrow.table(path, wanted)
        _refuse_missing(path, wanted, table.column_names)
        for name in text:  # bytes in some versions, numbers in others
            at = table.column_names.index(name)
            table = table.set_column(at, name, table.column(name).cast(pa.string()))
        for batch in table.to_batches(max_chunksize=BLOCK_ROWS):
            yield batch.to_pandas()
        return
    with _cell_tables.readable(path):
        _refuse_missing(path, wanted, [str(c) for c in pd.read_csv(path, nrows=0).columns])
        types = dict.fromkeys(text, str)
        yield from pd.read_csv(path, usecols=wanted, dtype=types, chunksize=BLOCK_ROWS, keep_default_na=False)


def _refuse_missing(path: Path, wanted: Sequence[str], columns: Sequence[str]) -> None:
    missing = [c for c in wanted if c not in columns]
    if missing:
        raise _check.problem(
            f"{path.name} lacks the columns {_check.listed(missing)}",
            found=_check.listed(columns),
            cure="give the platform's own table of transcripts",
        )
