"""Stereo-seq's molecules, a row each: ``.gem`` text, and their sums over square bins or cells."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
#: two coordinates share a key of 64 bits
MAX_DNB = 2**31 - 1
#: whole numbers beyond it are no longer all told apart where a column is read as floating point
MAX_CELL = 2**53
_NO_NUMBER = -(2**62)


@dataclass(frozen=True)
class Molecules:
    """Sums of molecules: ``counts`` CSR [n, n_genes], ``xy`` [n, 2] in DNB, by bin of ``size`` DNB or by cell, and
    ``notes`` for the user."""

    counts: sparse.csr_matrix
    names: list[str]
    xy: F64
    genes: list[str]
    gene_ids: list[str] | None
    um_per_unit: float
    size: int
    cells: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """One stretch of molecules: places ``x``, ``y`` in DNB, ``count`` and the numbers of their genes."""

    x: NDArray[np.int64]
    y: NDArray[np.int64]
    count: NDArray[np.float32]
    gene: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, places in (("x", self.x), ("y", self.y)):
            if len(places) and not 0 <= places.min() <= places.max() <= MAX_DNB:
                raise ValueError(f"{name} from {places.min()} to {places.max()}, not within 0 to {MAX_DNB}")
        if not ((self.count >= 0) & (self.count < np.inf)).all():
            raise ValueError("counts below 0 or without an end")


def summed(
    slices: Sequence[Callable[[], Rows]],
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


def _key(part: Rows, size: int) -> NDArray[np.int64]:
    key: NDArray[np.int64] = ((part.x // size) << 32) | (part.y // size)
    return key


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
    by_cell = cell is not None and not isinstance(wanted, int)
    stored = _bin_size(path, facts.get("BinSize", "1"))
    size = wanted if isinstance(wanted, int) else max(DEFAULT_BIN, stored)
    if size % stored:
        raise _check.problem(f"bin{size} cannot be made of bin{stored}", cure=f"choose a multiple of {stored}")
    um = options.um_per_unit or PITCH_UM
    parts, genes, ids = _rows(path, columns, cell if by_cell else None, _offset(path, facts))
    if by_cell:
        return _by_cell(parts, genes, ids, um, background=cell in _BACKGROUND)
    slices = [lambda part=part: part[0] for part in parts]
    return summed(slices, size=size, names=genes, ids=ids, um_per_unit=um, region_um=options.region_um)


def _bin_size(path: Path, text: str) -> int:
    """Of a cellbin .gem it is a word."""
    if re.fullmatch(r"[1-9][0-9]{0,3}", text):
        return int(text)
    if re.fullmatch(r"[A-Za-z]*", text):
        return 1
    raise _check.problem(
        f"BinSize in the header of {path.name} must be a whole number from 1 to 9999",
        found=repr(text[:20]),
        cure="mend the header",
    )


def _offset(path: Path, facts: dict[str, str]) -> tuple[int, int]:
    """What was taken off the chip's coordinates: SAW's maintainers say that it is to be added again to x and y
    (github.com/STOmics/SAW, issues 142 and 175)."""
    texts = [facts.get(f"Offset{axis}", "0") for axis in "XY"]
    if all(re.fullmatch(r"[0-9]{1,9}", text) for text in texts):
        return int(texts[0]), int(texts[1])
    raise _check.problem(
        f"OffsetX and OffsetY in the header of {path.name} must be whole numbers, 0 or more",
        found=_check.listed(repr(text[:20]) for text in texts),
        cure="mend the header",
    )


def _header(path: Path) -> tuple[dict[str, str], list[str]]:
    from smeld.io._wide import open_text

    facts = {}
    with _cell_tables.readable(path), open_text(path) as file:
        line = file.readline()
        while line.startswith("#"):
            key, _, value = line[1:].strip().partition("=")
            facts[key.strip()] = value.strip()
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
    path: Path, columns: list[str], cell: str | None, offset: tuple[int, int]
) -> tuple[list[tuple[Rows, Any]], list[str], list[str] | None]:
    """The molecules in parts (each with its cells, where there are any) on the chip, the genes' names and
    identifiers."""
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
            rows = Rows(
                chunk["x"].to_numpy(),
                chunk["y"].to_numpy(),
                chunk[count].to_numpy(dtype=np.float32),
                chunk[gene].map(known).to_numpy(dtype=np.int64),
            )
            rows = replace(rows, x=rows.x + offset[0], y=rows.y + offset[1])
            parts.append((rows, None if cell is None else _cell_numbers(chunk, cell)))
        if not parts:
            raise ValueError("the file has no molecules")
    names = [symbols.get(name) or name for name in known]
    return parts, names, list(known) if symbols else None


def _cell_numbers(chunk: pd.DataFrame, cell: str) -> NDArray[np.int64]:
    """The number of each molecule's cell; ``_NO_NUMBER`` where there is none, as of an empty one or a word."""
    import pandas as pd

    if chunk[cell].dtype.kind == "i":
        return np.asarray(chunk[cell].to_numpy(dtype=np.int64))
    values = pd.to_numeric(chunk[cell], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    whole = (np.abs(values) < MAX_CELL) & (values == np.round(values))
    return np.where(whole, values, _NO_NUMBER).astype(np.int64)


def _by_cell(
    parts: list[tuple[Rows, Any]], genes: list[str], ids: list[str] | None, um: float, *, background: bool
) -> Molecules:
    """Sums by cell, which lies at the mean place of its molecules."""
    lowest = 1 if background else 0
    cells, notes = _cells_of([number for _, number in parts], lowest)
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
    return Molecules(sparse.csr_matrix(total), names, xy, genes, ids, um, 1, cells=True, notes=notes)


def _cells_of(numbers: list[NDArray[np.int64]], lowest: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The cells in order, and what the user should hear of rows that name none."""
    n_rows = sum(len(number) for number in numbers)
    n_words = sum(int((number == _NO_NUMBER).sum()) for number in numbers)
    if n_words == n_rows:
        raise _check.problem(
            "the cells of the molecules must be whole numbers",
            found="words, or nothing, in every row",
            cure="give a cellbin .gem of SAW, or ask for bins",
        )
    cells = np.unique(np.concatenate([np.unique(number[number >= lowest]) for number in numbers]))
    if not len(cells):
        raise _check.problem("no molecule lies in a cell", cure="give a cellbin .gem, or ask for bins")
    if not n_words:
        return cells, ()
    return cells, (f"{n_words} of {n_rows} rows name their cell by a word, or not at all: they were left out",)
