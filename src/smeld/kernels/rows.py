"""A table of counts by blocks of rows, wherever it lies: what is larger than memory is never there as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

Csr: TypeAlias = sparse.csr_matrix
Int = NDArray[np.intp]
Sums: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]

#: rows of a block
ROWS = 4096
#: values of a part of the columns that are held at a time, about 0.4 GB
MOST_VALUES = 32_000_000


@dataclass(frozen=True)
class Rows:
    """``shape`` [n_obs, n_genes]; ``fetch(start, stop)`` gives rows as CSR, sorted and without stored zeros;
    ``take(rows)`` the rows of those numbers (increasing), likewise; ``whole_numbers`` whether all values are (None: not
    looked at yet), ``largest`` the largest of them."""

    shape: tuple[int, int]
    fetch: Callable[[int, int], Csr]
    take: Callable[[Int], Csr]
    whole_numbers: bool | None = None
    largest: float = float("nan")

    def __len__(self) -> int:
        return self.shape[0]

    def blocks(self, size: int = ROWS) -> Iterator[tuple[int, Csr]]:
        """(number of the first row, block) one after the other."""
        for start in range(0, self.shape[0], size):
            yield start, self.fetch(start, min(start + size, self.shape[0]))

    def mapped(self, function: Callable[[Csr, Int], Csr], n_genes: int | None = None) -> Rows:
        """The table with ``function(block, numbers of its rows)`` in place of every block."""
        fetch, take = self.fetch, self.take
        return Rows(
            (self.shape[0], self.shape[1] if n_genes is None else n_genes),
            lambda start, stop: function(fetch(start, stop), np.arange(start, stop)),
            lambda rows: function(take(rows), rows),
        )

    def columns(self, genes: Int) -> Rows:
        """Some of the columns."""
        if len(genes) == self.shape[1] and (genes == np.arange(len(genes))).all():
            return self
        return self.mapped(lambda block, _: block[:, genes], len(genes))

    def hold_counts(self) -> bool:
        """True if all values are whole numbers."""
        if self.whole_numbers is not None:
            return self.whole_numbers
        return all(bool(np.equal(np.mod(block.data, 1), 0).all()) for _, block in self.blocks())

    def whole(self) -> Csr:
        """All in memory."""
        return stacked([block for _, block in self.blocks()], self.shape)


def stacked(blocks: list[Csr], shape: tuple[int, int]) -> Csr:
    """Blocks of rows as one table; they are given up one by one."""
    nnz = sum(block.nnz for block in blocks)
    dtype = blocks[0].dtype if blocks else np.float32
    data, indices = np.empty(nnz, dtype=dtype), np.empty(nnz, dtype=np.int32 if nnz < 2**31 else np.int64)
    indptr, row, at = np.zeros(shape[0] + 1, dtype=indices.dtype), 0, 0
    for block in _popped(blocks):
        n, size = block.shape[0], block.nnz
        data[at : at + size], indices[at : at + size] = block.data, block.indices
        indptr[row + 1 : row + n + 1] = at + block.indptr[1:]
        row, at = row + n, at + size
    return Csr((data, indices, indptr), shape=shape)


def _popped(blocks: list[Csr]) -> Iterator[Csr]:
    """Each block in order, without keeping it."""
    blocks.reverse()
    while blocks:
        yield blocks.pop()


def in_memory(table: Csr, order: Int | None = None) -> Rows:
    """A CSR table as it is, or with its rows in ``order``; no copy is made of it."""

    if table.indptr.dtype != table.indices.dtype:  # scipy would convert all indices anew for every block
        kind = np.int32 if table.nnz < 2**31 else np.int64
        pattern = (table.data, table.indices.astype(kind, copy=False), table.indptr.astype(kind, copy=False))
        table = Csr(pattern, shape=table.shape)

    def clean(block: Csr) -> Csr:
        block.sum_duplicates()  # sorts
        if block.data.size and not block.data.all():
            block.eliminate_zeros()
        return block

    if order is None:
        return Rows(table.shape, lambda start, stop: clean(table[start:stop]), lambda rows: clean(table[rows]))
    return Rows(table.shape, lambda a, b: clean(table[order[a:b]]), lambda rows: clean(table[order[rows]]))


def as_rows(table: Csr | Rows) -> Rows:
    """The table itself, or a CSR in memory as one."""
    return table if isinstance(table, Rows) else in_memory(sparse.csr_matrix(table))


@njit(cache=True)
def _add_columns(indices, data, seen, total, square):  # type: ignore[no-untyped-def]
    for e in range(indices.size):
        seen[indices[e]] += data[e] > 0
        total[indices[e]] += data[e]
        square[indices[e]] += data[e] * data[e]


def column_sums(table: Csr | Rows) -> Sums:
    """(values above 0, sum, sum of squares) of every column, added row by row: the same bits for any blocks."""
    n_genes = table.shape[1]
    seen, total, square = np.zeros(n_genes, dtype=np.int64), np.zeros(n_genes), np.zeros(n_genes)
    parts = (block for _, block in table.blocks()) if isinstance(table, Rows) else (table,)
    for part in parts:
        _add_columns(part.indices, part.data.astype(np.float64, copy=False), seen, total, square)
    return seen, total, square


def row_sums(table: Csr | Rows) -> NDArray[np.float64]:
    """The sum of every row, float64 whatever the values are."""
    if not isinstance(table, Rows):
        return np.asarray(table.sum(axis=1, dtype=np.float64)).ravel()
    out = np.empty(table.shape[0])
    for start, block in table.blocks():
        out[start : start + block.shape[0]] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
    return out


def column_parts(seen: NDArray[np.integer], genes: Int) -> list[Int]:
    """``genes`` (column numbers) in groups of at most ``MOST_VALUES`` values; ``seen`` values by column."""
    parts: list[Int] = []
    start, held = 0, 0
    for i, gene in enumerate(genes):
        if held + int(seen[gene]) > MOST_VALUES and i > start:
            parts.append(genes[start:i])
            start, held = i, 0
        held += int(seen[gene])
    return [*parts, genes[start:]]


@njit(cache=True)
def _add_groups(indptr, indices, data, label, seen, total, square):  # type: ignore[no-untyped-def]
    for i in range(indptr.size - 1):
        g = label[i]
        if g >= 0:
            for e in range(indptr[i], indptr[i + 1]):
                seen[g, indices[e]] += data[e] > 0
                total[g, indices[e]] += data[e]
                square[g, indices[e]] += data[e] * data[e]


def no_sums(n_groups: int, n_genes: int) -> Sums:
    """Where :func:`add_rows` begins: (values above 0, sum, sum of squares), each [n_groups, n_genes]."""
    shape = (n_groups, n_genes)
    return np.zeros(shape, dtype=np.int64), np.zeros(shape), np.zeros(shape)


def add_rows(sums: Sums, block: Csr, label: NDArray[np.integer]) -> None:
    """Adds each row to the sums of its group; rows of a negative ``label`` are left out."""
    _add_groups(block.indptr, block.indices, block.data.astype(np.float64, copy=False), label, *sums)


def grouped_sums(table: Rows, label: NDArray[np.integer], n_groups: int) -> Sums:
    """:func:`column_sums` of the rows of each group, [n_groups, n_genes]; rows of a negative ``label`` are left out."""
    sums = no_sums(n_groups, table.shape[1])
    for start, block in table.blocks():
        add_rows(sums, block, label[start : start + block.shape[0]])
    return sums


@njit(cache=True)
def _fill(indptr, indices, data, first, at, rows, values):  # type: ignore[no-untyped-def]
    for i in range(indptr.size - 1):
        for e in range(indptr[i], indptr[i + 1]):
            slot = at[indices[e]]
            if slot >= 0:
                rows[slot] = first + i
                values[slot] = data[e]
                at[indices[e]] += 1


def to_columns(table: Rows, seen: NDArray[np.integer], genes: Int) -> sparse.csc_matrix:
    """The table by columns, float32, those of other genes than ``genes`` empty; ``seen`` the values of every column.

    Each value is put where it belongs at once: nothing else of the table's size is held.
    """
    held = np.zeros(table.shape[1], dtype=np.int64)
    held[genes] = seen[genes]
    indptr = np.concatenate([[0], np.cumsum(held)])
    at = np.where(held > 0, indptr[:-1], -1)
    rows, values = np.empty(indptr[-1], dtype=np.int32), np.empty(indptr[-1], dtype=np.float32)
    for start, block in table.blocks():
        _fill(block.indptr, block.indices, block.data, start, at, rows, values)
    narrow = indptr.astype(np.int32) if indptr[-1] < 2**31 else indptr
    return sparse.csc_matrix((values, rows, narrow), shape=table.shape)


def only_columns(table: sparse.csc_matrix, genes: Int) -> sparse.csc_matrix:
    """The table with the columns of other genes than ``genes`` empty."""
    size = np.diff(table.indptr)
    kept = np.zeros(len(size), dtype=bool)
    kept[genes] = True
    values = np.repeat(kept, size)
    indptr = np.concatenate([[0], np.cumsum(size * kept)]).astype(table.indptr.dtype)
    return sparse.csc_matrix((table.data[values], table.indices[values], indptr), shape=table.shape)
