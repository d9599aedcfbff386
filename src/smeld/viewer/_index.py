"""Genes by column: the table is turned over in the background; until then a gene is sought in all of it."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld.viewer import _stored

Array = NDArray[Any]

#: entries that are read at a time
SLAB = 2_000_000
#: an index of more bytes lies in a temporary file
MOST_IN_MEMORY = 512 * 2**20
_EACH = 8  # bytes of an entry: its row and its value


@dataclass(frozen=True)
class Turned:
    """The table by column: entries ``start[i]`` to ``start[i + 1]`` are those of gene ``i``."""

    start: NDArray[np.int64]
    rows: Array
    values: Array


class Genes:
    """Columns of a table that lies on disk or in memory: CSR, CSC or dense, [n_obs, n_genes].

    ``names`` are those of the genes, and after them those of ``complexes``, each a name and the numbers of
    its subunits; its value is that of the scarcest.
    """

    def __init__(self, matrix: Any, names: list[str], complexes: dict[str, list[int]] | None = None) -> None:
        self.matrix = matrix
        self.n_genes = 0 if matrix is None else len(names)
        self._subunits = list((complexes or {}).values()) if self.n_genes else []
        self.names = [*names, *(complexes or {})] if self.n_genes else []
        self._turned: Turned | None = None
        self._stop = threading.Event()
        self.done = 1.0 if matrix is None or self._by_column() else 0.0

    def _by_column(self) -> bool:
        m = self.matrix
        return _stored.encoding(m) == "csc_matrix" if hasattr(m, "attrs") else getattr(m, "format", "") == "csc"

    @property
    def dense(self) -> bool:
        """True where every value is stored."""
        return not hasattr(self._part("indptr"), "shape")

    def _part(self, name: str) -> Any:
        if hasattr(self.matrix, "attrs"):
            return self.matrix[name] if _stored.is_group(self.matrix) else None
        return getattr(self.matrix, name, None)

    def column(self, gene: int) -> tuple[Array, Array]:
        """(rows, values float32) of a gene, or of a complex, where it is not 0."""
        if gene >= self.n_genes:
            return self._scarcest(self._subunits[gene - self.n_genes])
        turned = self._turned
        if turned is not None:
            return _slice(turned.start, turned.rows, turned.values, gene)
        if self._by_column():
            return _slice(self._part("indptr"), self._part("indices"), self._part("data"), gene)
        if self.dense:
            values = np.asarray(self.matrix[:, gene], dtype=np.float32)
            rows = np.flatnonzero(values)
            return rows, values[rows]
        return self._sought(gene)

    def _scarcest(self, subunits: list[int]) -> tuple[Array, Array]:
        parts = [self.column(gene) for gene in subunits]
        n = 1 + max((int(rows.max()) for rows, _ in parts if len(rows)), default=0)
        full = np.zeros((len(parts), n), dtype=np.float32)
        for k, (rows, values) in enumerate(parts):
            full[k, rows] = values
        least = full.min(axis=0)
        index = np.flatnonzero(least)
        return index, least[index]

    def _sought(self, gene: int) -> tuple[Array, Array]:
        indptr, rows, values = np.asarray(self._part("indptr")[:]), [], []
        indices, data = self._part("indices"), self._part("data")
        for start in range(0, int(indptr[-1]), SLAB):
            stop = min(start + SLAB, int(indptr[-1]))
            here = np.flatnonzero(indices[start:stop] == gene)
            if len(here):
                values.append(np.asarray(data[start:stop])[here])
                rows.append(np.searchsorted(indptr, here + start, side="right") - 1)
        empty = np.zeros(0, dtype=np.int64)
        return np.concatenate([empty, *rows]), np.concatenate([empty.astype(np.float32), *values]).astype(np.float32)

    # -- the index -------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Turn the table over; what is too large for memory and disk is left as it is."""
        if self.matrix is None or self.done == 1.0:
            return
        try:
            self._turned = self._made()
        finally:
            self.done = 1.0

    def stop(self) -> None:
        """End the work in the background soon."""
        self._stop.set()

    def _made(self) -> Turned | None:
        counts = np.zeros(self.n_genes, dtype=np.int64)
        for block, done in self._blocks():
            counts += np.bincount(block.indices, minlength=self.n_genes)
            self.done = 0.4 * done
        start = np.concatenate([[0], np.cumsum(counts)])
        room = None if self._stop.is_set() else _room(int(start[-1]))
        if room is None:
            return None
        made = Turned(start, *room)
        cursor = start[:-1].copy()
        for (block, done), first in zip(self._blocks(), self._starts(), strict=False):
            turned = block.tocsc()
            sizes = np.diff(turned.indptr)
            place = np.repeat(cursor - turned.indptr[:-1], sizes) + np.arange(turned.nnz)
            made.rows[place] = turned.indices + first
            made.values[place] = turned.data
            cursor += sizes
            self.done = 0.4 + 0.59 * done
        return None if self._stop.is_set() else made

    def _edges(self) -> list[int]:
        """Rows at which blocks begin, and the end."""
        n = int(self.matrix.shape[0]) if self.dense else len(self._part("indptr")) - 1
        if self.dense:
            return [*range(0, n, max(1, SLAB // max(self.n_genes, 1))), n]
        indptr = np.asarray(self._part("indptr")[:])
        wanted = np.searchsorted(indptr, np.arange(0, int(indptr[-1]) + 1, SLAB), side="left")
        return sorted({0, *wanted.tolist(), n})

    def _starts(self) -> list[int]:
        return self._edges()[:-1]

    def _blocks(self) -> Iterator[tuple[Any, float]]:
        """(rows as CSR float32, share done)."""
        from scipy import sparse

        edges = self._edges()
        indptr = None if self.dense else np.asarray(self._part("indptr")[:])
        for first, last in pairwise(edges):
            if self._stop.is_set():
                return
            shape = (last - first, self.n_genes)
            if indptr is None:
                block = sparse.csr_matrix(np.asarray(self.matrix[first:last], dtype=np.float32))
            else:
                a, b = int(indptr[first]), int(indptr[last])
                parts = (self._part("data")[a:b].astype(np.float32), self._part("indices")[a:b])
                block = sparse.csr_matrix((*parts, indptr[first : last + 1] - a), shape=shape)
            yield block, last / max(edges[-1], 1)


def _slice(start: Any, rows: Any, values: Any, gene: int) -> tuple[Array, Array]:
    a, b = int(start[gene]), int(start[gene + 1])
    return np.asarray(rows[a:b]), np.asarray(values[a:b], dtype=np.float32)


def _room(n: int) -> tuple[Array, Array] | None:
    """Arrays for rows and values of ``n`` entries, in memory or in a file without a name; None where there is no
    room."""
    if n * _EACH <= MOST_IN_MEMORY:
        return np.empty(n, dtype=np.uint32), np.empty(n, dtype=np.float32)
    if shutil.disk_usage(tempfile.gettempdir()).free < 2 * n * _EACH:
        return None
    with tempfile.TemporaryFile(prefix="smeld-genes-") as rows, tempfile.TemporaryFile(prefix="smeld-genes-") as values:
        return np.memmap(rows, np.uint32, "w+", shape=(n,)), np.memmap(values, np.float32, "w+", shape=(n,))
