"""Stereo-seq's molecules, a row each: ``.gem`` text, and their sums over square bins or cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables

if TYPE_CHECKING:
    import pandas as pd

    from smeld.io._platforms import ReadOptions

F64 = NDArray[np.float64]
DEFAULT_BIN = 50
#: molecules that are in memory at a time
BLOCK_ROWS = 5_000_000
PITCH_UM = 0.5
#: what versions of the software call the columns
_GENE = ("geneID", "gene", "GeneID")
_COUNT = ("MIDCount", "MIDCounts", "UMICount", "count", "counts")
_CELL = ("CellID", "cell", "label", "cell_id")
#: columns of a mask's labels, in which 0 is the background; CellID counts from 0 (geftools)
_BACKGROUND = ("cell", "label", "cell_id")


@dataclass(frozen=True)
class Molecules:
    """Sums of molecules: ``counts`` CSR [n, n_genes], ``xy`` [n, 2] in DNB, by bin of ``size`` DNB or by cell."""

    counts: sparse.csr_matrix
    names: list[str]
    xy: F64
    genes: list[str]
    gene_ids: list[str] | None
    um_per_unit: float
    size: int
    cells: bool = False


def summed(
    slices: Sequence[Callable[[], Any]],
    *,
    size: int,
    names: list[str],
    ids: list[str] | None,
    um_per_unit: float,
    region_um: tuple[float, float, float, float] | None,
) -> Molecules:
    """Molecules summed over bins of ``size`` DNB, each slice (x, y, count, gene) read twice and never all at once.

    A bin is named after its lower corner, ``x_y``, and lies at its centre.
    """
    half = (size - 1) / 2
    keys = np.zeros(0, dtype=np.int64)
    for read in slices:
        keys = np.union1d(keys, np.unique(_key(read(), size)))
    x, y = (keys >> 32) * size, (keys & 0xFFFFFFFF) * size
    xy = np.column_stack([x, y]) + half
    if region_um is not None:
        um = xy * um_per_unit
        inside = ((um >= region_um[:2]) & (um <= region_um[2:])).all(axis=1)
        keys, xy, x, y = keys[inside], xy[inside], x[inside], y[inside]
        if not len(keys):
            raise _check.problem("nothing lies in region_um", found=f"bins up to {um.max(axis=0).round().tolist()} um")
    total = sparse.csr_matrix((len(keys), len(names)), dtype=np.float32)
    for read in slices:
        part = read()
        at = _key(part, size)
        row = np.minimum(np.searchsorted(keys, at), len(keys) - 1)
        real = keys[row] == at
        total = total + sparse.csr_matrix((part.count[real], (row[real], part.gene[real])), shape=total.shape)
    return Molecules(
        sparse.csr_matrix(total), [f"{a}_{b}" for a, b in zip(x, y)], xy, names, ids, um_per_unit, size
    )  # fmt: skip


def _key(part: Any, size: int) -> NDArray[np.int64]:
    if len(part.x) and min(part.x.min(), part.y.min()) < 0:
        raise ValueError("coordinates below 0")
    key: NDArray[np.int64] = ((part.x // size) << 32) | (part.y // size)
    return key


@dataclass(frozen=True)
class _Rows:
    x: NDArray[np.int64]
    y: NDArray[np.int64]
    count: NDArray[np.float32]
    gene: NDArray[np.int64]


def read(path: Path, wanted: int | str | None, options: ReadOptions) -> Molecules:
    """A ``.gem`` file (gzipped or not): lines ``#key=value``, a header, a row a gene and DNB."""
    facts, columns = _header(path)
    cell = next((c for c in _CELL if c in columns), None)
    if wanted == "cells" and cell is None:
        raise _check.problem(
            f"{path.name} names no cells",
            found=f"columns {_check.listed(columns)}",
            cure="give a cellbin .gem, or bins",
        )
    stored = int(facts["BinSize"]) if facts.get("BinSize", "").isdigit() else 1
    size = wanted if isinstance(wanted, int) else max(DEFAULT_BIN, stored)
    if size % stored:
        raise _check.problem(f"bin{size} cannot be made of bin{stored}", cure=f"choose a multiple of {stored}")
    um = options.um_per_unit or PITCH_UM
    parts, genes, ids = _rows(path, columns, cell)
    if cell is not None and not isinstance(wanted, int):
        return _by_cell(parts, genes, ids, um, background=cell in _BACKGROUND)
    slices = [lambda part=part: part[0] for part in parts]
    return summed(slices, size=size, names=genes, ids=ids, um_per_unit=um, region_um=options.region_um)


def _header(path: Path) -> tuple[dict[str, str], list[str]]:
    from smeld.io._wide import open_text

    facts = {}
    with _cell_tables.readable(path), open_text(path) as file:
        line = file.readline()
        while line.startswith("#"):
            key, _, value = line[1:].strip().partition("=")
            facts[key] = value
            line = file.readline()
    columns = line.rstrip("\r\n").split("\t")
    missing = [names[0] for names in (_GENE, ("x",), ("y",), _COUNT) if not set(names) & set(columns)]
    if missing:
        raise _check.problem(
            f"{path.name} lacks the columns {_check.listed(missing)}",
            found=_check.listed(columns, 8),
            cure="give SAW's own .gem; a newer version may have renamed them",
        )
    return facts, columns


def _rows(
    path: Path, columns: list[str], cell: str | None
) -> tuple[list[tuple[_Rows, Any]], list[str], list[str] | None]:
    """The molecules in parts (each with its cells, where there are any), the genes' names and identifiers."""
    import pandas as pd

    gene = next(c for c in _GENE if c in columns)
    count = next(c for c in _COUNT if c in columns)
    used = [gene, "x", "y", count] + [c for c in (cell, "geneName") if c in columns]
    types: Any = {gene: str, "geneName": str, "x": np.int64, "y": np.int64, count: np.float32}
    known: dict[str, int] = {}
    symbols: dict[str, str] = {}
    parts = []
    with _cell_tables.readable(path):
        reader = pd.read_csv(
            path, sep="\t", comment="#", usecols=used, dtype=types, chunksize=BLOCK_ROWS, keep_default_na=False,
            compression="gzip" if path.name.endswith(".gz") else None,
        )  # fmt: skip
        for chunk in reader:
            for name in pd.unique(chunk[gene]):
                known.setdefault(str(name), len(known))
            if "geneName" in used:
                symbols |= dict(zip(chunk[gene], chunk["geneName"]))
            rows = _Rows(
                chunk["x"].to_numpy(),
                chunk["y"].to_numpy(),
                chunk[count].to_numpy(dtype=np.float32),
                chunk[gene].map(known).to_numpy(dtype=np.int64),
            )
            parts.append((rows, None if cell is None else _cell_numbers(chunk, cell)))
        if not parts:
            raise ValueError("the file has no molecules")
    names = [symbols.get(name) or name for name in known]
    return parts, names, list(known) if symbols else None


def _cell_numbers(chunk: pd.DataFrame, cell: str) -> NDArray[np.int64]:
    """-1 where a molecule lies in no cell."""
    import pandas as pd

    values = pd.to_numeric(chunk[cell], errors="coerce").fillna(-1)
    return np.asarray(values.to_numpy(dtype=np.int64))


def _by_cell(
    parts: list[tuple[_Rows, Any]], genes: list[str], ids: list[str] | None, um: float, *, background: bool
) -> Molecules:
    """Sums by cell, which lies at the mean place of its molecules."""
    lowest = 1 if background else 0
    cells = np.unique(np.concatenate([np.unique(number[number >= lowest]) for _, number in parts]))
    if not len(cells):
        raise _check.problem("no molecule lies in a cell", cure="give a cellbin .gem, or ask for bins")
    total = sparse.csr_matrix((len(cells), len(genes)), dtype=np.float32)
    weight, sums = np.zeros(len(cells)), np.zeros((len(cells), 2))
    for rows, number in parts:
        real = number >= lowest
        row = np.searchsorted(cells, number[real])
        count = rows.count[real]
        total = total + sparse.csr_matrix((count, (row, rows.gene[real])), shape=total.shape)
        weight += np.bincount(row, count, len(cells))
        for k, place in enumerate((rows.x[real], rows.y[real])):
            sums[:, k] += np.bincount(row, count * place, len(cells))
    xy = sums / np.maximum(weight, 1)[:, None]
    names = [str(c) for c in cells]
    return Molecules(sparse.csr_matrix(total), names, xy, genes, ids, um, 1, cells=True)
