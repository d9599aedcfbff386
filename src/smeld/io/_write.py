"""``sm.write``: an AnnData as h5ad, safely and the same bytes each time; stores of AnnData and SpatialData."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _backed, _check
from smeld.io import _elements
from smeld.io._safe import refuse_foreign, replacing, replacing_folder
from smeld.kernels.rows import ROWS

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["refuse_foreign", "replacing", "replacing_folder", "write"]

_PARTS = ("layers", "obsm", "varm", "obsp", "varp", "uns")
_GROUPS = ("X", "obs", "var", "raw", *_PARTS)
_ELEMENTS = ("images", "labels", "points", "shapes", "tables")
#: values of an array that are compared together
PIECE = 4_000_000
#: files at the root of a store, of zarr 3 and of zarr 2
_STORE_MARKS = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata", "zmetadata")


def write(data: Any, path: str | Path) -> None:
    """Write an AnnData to an ``.h5ad`` file or a ``.zarr`` folder, a SpatialData to a ``.zarr`` folder, always whole.

    It is written to a temporary sibling, flushed to the disk, reopened and compared with ``data`` (shape,
    names of spots and genes, every key, every value of ``X``; elements), then put in the place of ``path``. Killed at
    any moment, the old or the new opens. ``data`` itself is not changed, and the same content gives the same bytes of
    ``.h5ad``. A folder is replaced only if it is such a store.

    Parameters
    ----------
    data
        An AnnData or a SpatialData; everything in ``uns`` must be storable in HDF5.
    path
        The file or folder; folders above it are made. Must end in ``.h5ad`` or ``.zarr``; in ``.zarr`` for a
        SpatialData.

    Raises
    ------
    InputError
        If ``path`` does not end so or cannot be written, or if a folder in its place is something else.
    OSError
        If the disk is full or fails.

    Examples
    --------
    >>> import smeld as sm, tempfile, pathlib
    >>> adata = sm.datasets.simulate(n_obs=200, n_genes=50, seed=0)  # doctest: +SKIP
    >>> sm.write(adata, pathlib.Path(tempfile.mkdtemp()) / "section.h5ad")  # doctest: +SKIP
    """
    target = Path(path)
    whole = not hasattr(data, "tables")
    adata = _adapt.table(data) if whole else None
    if target.suffix == ".zarr":
        _write_store(data, target)
    elif target.suffix == ".h5ad" and adata is not None:
        _write_h5ad(adata, target)
    elif target.suffix == ".h5ad":
        cure = f"name it {target.stem or 'result'}.zarr, or give its table: sdata.tables[...]"
        raise _check.problem("a SpatialData is written as .zarr", found=target.name, cure=cure)
    else:
        cure = f"name it {target.stem or 'result'}{'.h5ad' if whole else '.zarr'}"
        kinds = ".h5ad or .zarr" if whole else ".zarr"
        raise _check.problem(f"results are written as {kinds}", found=target.name, cure=cure)


def _write_h5ad(adata: AnnData, target: Path) -> None:
    import h5py
    from anndata.io import write_elem

    compression = {"compression": "gzip", "compression_opts": 1}
    with (
        replacing(target, check=lambda temporary: _verify(temporary, adata)) as temporary,
        warnings.catch_warnings(),
        # Without a cache of chunks: HDF5 else gives a chunk its place in the file when the last reference to its
        # dataset goes, which is later where another thread looks at this one (dask's profiler does): other bytes.
        # adata.write_h5ad has no way to say so; the elements are those that it writes, in its order.
        h5py.File(temporary, "w", rdcc_nbytes=0) as file,
    ):
        warnings.simplefilter("ignore", FutureWarning)
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for name in ("X", "raw", "obs", "var"):
            if (element := getattr(adata, name)) is not None:
                write_elem(file, name, element, dataset_kwargs=compression)
        for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
            write_elem(file, name, dict(getattr(adata, name)), dataset_kwargs=compression)


def _write_store(data: Any, target: Path) -> None:
    """A ``.zarr`` folder."""
    if hasattr(data, "tables"):
        _refuse_own(data, target)
    marker = next((mark for mark in _STORE_MARKS if (target / mark).is_file()), _STORE_MARKS[0])
    known = [*_STORE_MARKS, *(_ELEMENTS if hasattr(data, "tables") else _GROUPS)]
    with (
        replacing_folder(target, known=known, marker=marker, check=lambda made: _verify_store(made, data)) as temporary,
        _elements.quiet(),
    ):
        if hasattr(data, "tables"):
            import zarr

            temporary.rmdir()  # spatialdata makes it
            # its own way to consolidate would open the store that the data come from
            data.write(temporary, consolidate_metadata=False, update_sdata_path=False)
            zarr.consolidate_metadata(str(temporary))
        else:
            data.write_zarr(temporary, convert_strings_to_categoricals=False)


def _refuse_own(data: Any, target: Path) -> None:
    """A SpatialData reads images, labels and points from its store when they are looked at: that must stay."""
    from spatialdata import get_dask_backing_files

    folder = target.expanduser().resolve()
    if any(Path(file).resolve().is_relative_to(folder) for file in get_dask_backing_files(data)):
        raise _check.problem(
            f"{target.name} cannot be replaced",
            found="the SpatialData still reads its images, labels or points from it",
            cure="give another name",
        )


def _verify_store(folder: Path, data: Any) -> None:
    """Reopen a store and compare it with what should be there."""
    with _elements.quiet():
        if not hasattr(data, "tables"):
            import anndata

            same = _same(anndata.read_zarr(folder), data)
        else:
            import spatialdata

            written = spatialdata.read_zarr(folder)
            same = all(set(getattr(written, part)) == set(getattr(data, part)) for part in _ELEMENTS)
            same = same and all(_same(written.tables[name], data.tables[name]) for name in data.tables)
    _require_same(same, folder)


def _verify(path: Path, adata: AnnData) -> None:
    """Reopen what was written and compare it with what should be there."""
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = anndata.read_h5ad(path, backed="r")
    try:
        same = _same(written, adata)
    finally:
        written.file.close()
    _require_same(same, path)


def _require_same(same: bool, path: Path) -> None:
    if not same:
        raise OSError(f"{path.name} does not read back as it was written: is the disk failing?")


def _same(written: AnnData, adata: AnnData) -> bool:
    same = written.shape == adata.shape
    same = same and written.obs_names.equals(adata.obs_names) and written.var_names.equals(adata.var_names)
    same = same and list(written.obs.columns) == list(adata.obs.columns)
    same = same and all(set(getattr(written, part)) == set(getattr(adata, part)) for part in _PARTS)
    return bool(same and _same_matrix(written.X, adata.X))


def _same_matrix(written: Any, matrix: Any) -> bool:
    if matrix is None or written is None:
        return matrix is None and written is None
    if isinstance(matrix, sparse.csr_matrix | sparse.csr_array) and hasattr(written, "group"):
        return all(_same_values(written.group[part], getattr(matrix, part)) for part in ("indptr", "indices", "data"))
    if sparse.issparse(matrix) or _backed.is_backed(matrix):
        return all(_same_rows(written, matrix, start) for start in range(0, matrix.shape[0], ROWS))
    read = written[:] if not hasattr(written, "to_memory") else written.to_memory()
    return np.array_equal(np.asarray(read), np.asarray(matrix), equal_nan=True)


def _same_values(written: Any, values: NDArray[Any]) -> bool:
    """An array in a file and one in memory, piece by piece: rows of a table would be decompressed many times."""
    if written.shape != values.shape:
        return False
    equal_nan = values.dtype.kind == "f"
    pieces = (slice(start, start + PIECE) for start in range(0, len(values), PIECE))
    return all(np.array_equal(written[piece], values[piece], equal_nan=equal_nan) for piece in pieces)


def _same_rows(written: Any, matrix: Any, start: int) -> bool:
    """A block of rows: neither table need be in memory."""
    blocks = (written[start : start + ROWS], matrix[start : start + ROWS])
    a, b = (block.compute(scheduler="synchronous") if _backed.is_backed(block) else block for block in blocks)
    if not sparse.issparse(b):
        return np.array_equal(a, b, equal_nan=True)
    return all(
        np.array_equal(getattr(a, p), getattr(b, p), equal_nan=p == "data") for p in ("data", "indices", "indptr")
    )
