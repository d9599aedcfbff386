"""10x Genomics' matrices: the HDF5 file and the folder of matrix.mtx, barcodes and features."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io._cells import EXPRESSION

Names = NDArray[np.str_]


@dataclass(frozen=True)
class Matrix10x:
    """``counts`` float32 CSR [n_barcodes, n_features] and the names of both sides."""

    counts: sparse.csr_matrix
    barcodes: Names
    ids: Names
    names: Names
    types: Names


def read_h5(path: Path) -> Matrix10x:
    """Read a ``*_feature_bc_matrix.h5`` of Space Ranger (layout of version 3 and later)."""
    import h5py

    with _readable(path), h5py.File(path, "r") as file:
        if "matrix" not in file:
            raise _check.problem(
                f"{path.name} holds no group 'matrix'",
                found=_check.listed(file),
                cure="give Space Ranger's own file",
            )
        group = file["matrix"]
        features = group["features"]
        n_features, n_barcodes = (int(n) for n in group["shape"][:])
        barcodes, ids, names = _text(group["barcodes"]), _text(features["id"]), _text(features["name"])
        types = _text(features["feature_type"]) if "feature_type" in features else np.full(len(ids), EXPRESSION)
        # converted while they are read: a slide of 2 um bins has 10^8 values, and 8 bytes each are too many
        index = np.int32 if n_features < 2**31 and group["data"].shape[0] < 2**31 else np.int64
        parts = (
            group["data"].astype(np.float32)[:],
            group["indices"].astype(index)[:],
            group["indptr"].astype(index)[:],
        )
        counts = sparse.csr_matrix(parts, shape=(n_barcodes, n_features))
        counts.check_format(full_check=True)
        return _checked(Matrix10x(counts, barcodes, ids, names, types))


def read_mtx(folder: Path) -> Matrix10x:
    """Read a folder with ``matrix.mtx``, ``barcodes.tsv`` and ``features.tsv`` (each gzipped or not)."""
    from scipy.io import mmread

    files = {}
    for stem in ("matrix.mtx", "barcodes.tsv", "features.tsv"):
        found = [folder / name for name in (stem, f"{stem}.gz") if (folder / name).is_file()]
        if not found:
            raise _check.problem(
                f"{stem}(.gz) is missing in {folder.name}",
                found=_check.listed(sorted(p.name for p in folder.iterdir())),
                cure="copy the whole folder",
            )
        files[stem] = found[0]
    with _readable(files["matrix.mtx"]):
        counts = sparse.csr_matrix(sparse.csr_matrix(mmread(files["matrix.mtx"])).T, dtype=np.float32)
    barcodes = np.asarray([row[0] for row in _rows(files["barcodes.tsv"])], dtype=str)
    features = _rows(files["features.tsv"])
    columns = [[row[min(k, len(row) - 1)] for row in features] for k in range(2)]
    types = [row[2] if len(row) > 2 else EXPRESSION for row in features]
    with _readable(files["matrix.mtx"]):
        return _checked(Matrix10x(counts, barcodes, *(np.asarray(c, dtype=str) for c in (*columns, types))))


def _checked(matrix: Matrix10x) -> Matrix10x:
    if matrix.counts.shape != (len(matrix.barcodes), len(matrix.ids)) or len(matrix.names) != len(matrix.ids):
        sides = f"{len(matrix.barcodes)} barcodes x {len(matrix.ids)} features"
        raise ValueError(f"{matrix.counts.shape[0]} x {matrix.counts.shape[1]} values for {sides}")
    matrix.counts.sum_duplicates()
    return matrix


def _text(dataset: Any) -> Names:
    values = dataset[:]
    try:
        return np.asarray(values.astype("U"), dtype=str) if values.dtype.kind == "S" else _words(values)
    except UnicodeDecodeError:  # numpy takes bytes as ASCII
        return _words(values)


def _words(values: Any) -> Names:
    return np.asarray([v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in values], dtype=str)


def _rows(path: Path) -> list[list[str]]:
    with _readable(path):
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    return [line.split("\t") for line in text.splitlines() if line]


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What truncated or foreign files raise in h5py, scipy and gzip, as one line for the user."""
    try:
        yield
    except _check.InputError:
        raise
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        OverflowError,
    ) as error:
        size = f"{path.stat().st_size} bytes" if path.is_file() else "no file"
        raise _check.problem(
            f"{path.name} cannot be read as a matrix of counts",
            found=f"{size}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated), or give Space Ranger's own file",
        ) from error
