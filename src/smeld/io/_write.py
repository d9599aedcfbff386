"""``sm.write``: an AnnData as h5ad, safely and the same bytes each time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from smeld import _check
from smeld.io._safe import refuse_foreign, replacing, replacing_folder

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["refuse_foreign", "replacing", "replacing_folder", "write"]

_PARTS = ("layers", "obsm", "varm", "obsp", "varp", "uns")


def write(adata: AnnData, path: str | Path) -> None:
    """Write an AnnData to an ``.h5ad`` file that is always whole.

    It is written to a temporary sibling, flushed to the disk, reopened and compared with ``adata`` (shape,
    names of spots and genes, every key, every value of ``X``), then renamed over ``path``. Killed at any
    moment, the old or the new file opens. ``adata`` itself is not changed, and the same content gives the
    same bytes.

    Parameters
    ----------
    adata
        What to write; everything in ``uns`` must be storable in HDF5.
    path
        The file; folders above it are made. Must end in ``.h5ad``.

    Raises
    ------
    InputError
        If ``path`` does not end in ``.h5ad`` or cannot be written.
    OSError
        If the disk is full or fails.

    Examples
    --------
    >>> import smeld as sm, tempfile, pathlib
    >>> adata = sm.datasets.simulate(n_obs=200, n_genes=50, seed=0)  # doctest: +SKIP
    >>> sm.write(adata, pathlib.Path(tempfile.mkdtemp()) / "section.h5ad")  # doctest: +SKIP
    """
    target = Path(path)
    if target.suffix != ".h5ad":
        raise _check.problem(
            "results are written as .h5ad", found=target.name, cure=f"name it {target.stem or 'result'}.h5ad"
        )
    with (
        replacing(target, check=lambda temporary: _verify(temporary, adata)) as temporary,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", FutureWarning)
        # strings stay strings: anndata would else turn them into categories in the caller's own table
        adata.write_h5ad(temporary, compression="gzip", compression_opts=1, convert_strings_to_categoricals=False)


def _verify(path: Path, adata: AnnData) -> None:
    """Reopen what was written and compare it with what should be there."""
    import anndata

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        written = anndata.read_h5ad(path, backed="r")
    try:
        same = written.shape == adata.shape
        same = same and written.obs_names.equals(adata.obs_names) and written.var_names.equals(adata.var_names)
        same = same and list(written.obs.columns) == list(adata.obs.columns)
        same = same and all(set(getattr(written, part)) == set(getattr(adata, part)) for part in _PARTS)
        same = same and _same_matrix(written.X, adata.X)
    finally:
        written.file.close()
    if not same:
        raise OSError(f"{path.name} does not read back as it was written: is the disk failing?")


def _same_matrix(written: Any, matrix: Any) -> bool:
    if matrix is None or written is None:
        return matrix is None and written is None
    read = written[:] if not hasattr(written, "to_memory") else written.to_memory()
    if sparse.issparse(matrix):
        parts = ("data", "indices", "indptr")
        return all(np.array_equal(getattr(read, p), getattr(matrix, p), equal_nan=p == "data") for p in parts)
    return np.array_equal(np.asarray(read), np.asarray(matrix), equal_nan=True)
