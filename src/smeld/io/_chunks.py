"""Zarr stores of which files are missing: what they held reads as zeros, without a word from zarr."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check


def whole(array: Any) -> NDArray[Any]:
    """The content of a zarr array all of whose chunks must be there; ``ValueError`` otherwise.

    A chunk of nothing but zeros may rightly be absent, for zarr need not write it: this is for identifiers, places,
    and the entries and indices of sparse matrices, of which no chunk is all zeros. Where columns are chunks of their
    own, or most values are 0, only the content can tell.
    """
    refuse_missing(array)
    return np.asarray(array[...])


def refuse_missing(array: Any) -> None:
    """``ValueError`` where chunks of a zarr array are missing."""
    if array.size and array.nchunks_initialized < array.nchunks:
        n = array.nchunks - array.nchunks_initialized
        raise ValueError(f"{n} of {array.nchunks} chunks of {array.path} are missing")


def refuse_torn_table(group: Any) -> None:
    """``ValueError`` where chunks are missing in a zarr group of AnnData's: names of rows and columns, positions, and
    the parts of a sparse X. Of a dense X, and of columns in ``obs``, chunks of zeros alone may rightly be absent."""
    names = [f"{axis}/{group[axis].attrs.get('_index', '_index')}" for axis in ("obs", "var") if axis in group]
    parts = [f"X/{part}" for part in ("data", "indices", "indptr")] if _is_group(group.get("X")) else []
    if parts and int(np.ravel(group["X"].attrs.get("shape", [0, 0]))[1]) == 1:
        parts.remove("X/indices")  # of one gene they are all 0
    for key in (*names, *parts, "obsm/spatial", "obsm/spatial_um"):
        found = group.get(key)
        if _is_group(found):  # words that may be absent, or sparse positions
            found = found.get("values")
        if found is not None:
            refuse_missing(found)


def _is_group(found: Any) -> bool:
    return found is not None and not hasattr(found, "nchunks")


def is_whole(matrix: Any) -> bool:
    """Whether a sparse matrix is as it was written: one of which chunks are missing has cells whose genes come twice,
    or rows that end before they begin."""
    ends = np.asarray(matrix.indptr)
    fits = ends[0] == 0 and (np.diff(ends) >= 0).all() and ends[-1] == len(matrix.indices) == len(matrix.data)
    return bool(fits) and _is_unique(matrix)


def _is_unique(matrix: Any) -> bool:
    copy = matrix.__class__((np.ones(len(matrix.indices), dtype=np.int8), matrix.indices.copy(), matrix.indptr.copy()))
    copy.sort_indices()
    same = np.diff(copy.indices) == 0
    same[np.asarray(copy.indptr[1:-1])[(copy.indptr[1:-1] > 0) & (copy.indptr[1:-1] < len(copy.indices))] - 1] = False
    return not same.any()


def refuse_torn_matrix(matrix: Any, what: str) -> None:
    """Refuse a sparse matrix that is not whole; ``what`` names it."""
    if sparse.issparse(matrix) and matrix.format in ("csr", "csc") and not is_whole(matrix):
        raise _check.problem(
            f"the matrix of {what} is not whole",
            found="entries that come twice, or rows that do not end",
            cure="copy the store again: files of it are missing",
        )
