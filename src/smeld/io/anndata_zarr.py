"""``.zarr`` folders that AnnData wrote, with positions in ``obsm["spatial"]``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from smeld import _check
from smeld.io import _chunks, _on_disk, _stored
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData


@platforms.add(
    "anndata_zarr",
    marks=(".zattrs|.zgroup|zarr.json", "obs", "var"),
    looks_for='a .zarr folder that AnnData wrote, with obsm["spatial"]',
)
def anndata_zarr(path: Path, options: ReadOptions) -> AnnData:
    """An AnnData with ``obsm["spatial"]``, as from ``AnnData.write_zarr``; treated as an ``.h5ad`` is."""
    import anndata
    import zarr

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata's, about names and old layouts
            group = zarr.open_group(str(path), mode="r")
            _chunks.refuse_torn_table(group)
            found = _on_disk.opened(group) if options.backed else None
            adata = anndata.read_zarr(path) if found is None else found
    except Exception as error:  # zarr and anndata raise many kinds; all mean: not a readable store
        raise _check.problem(
            f"{path.name} cannot be read as AnnData's zarr",
            found=f"{type(error).__name__}: {str(error)[:100]}",
            cure="copy the folder again (it may not be whole), or write it with a current anndata",
        ) from error
    if found is None:
        _chunks.refuse_torn_matrix(adata.X, path.name)
    return _stored.finish(adata, path.stem, "anndata_zarr", options)
