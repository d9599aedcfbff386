"""``.h5ad`` files of any platform, with positions in ``obsm["spatial"]``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from smeld import _check
from smeld.io import _on_disk, _stored
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData


@platforms.add("h5ad", marks=("*.h5ad",), is_file=True, looks_for='a .h5ad file with obsm["spatial"]')
def h5ad(path: Path, options: ReadOptions) -> AnnData:
    """An AnnData with ``obsm["spatial"]``; ``X`` stays as delivered (CSR float32).

    Micrometres, first of these: ``options.um_per_unit``; ``obsm["spatial_um"]`` of a file that smeld wrote;
    the Visium lattice in ``obs["array_row"]``, ``obs["array_col"]``; else 1 is assumed, with a warning.
    Images in ``uns["spatial"]`` are kept.
    """
    if not path.is_file():
        found = sorted(p.name for p in path.glob("*.h5ad"))
        raise _check.problem(
            f"{path.name} is a folder", found=_check.listed(found, 3), cure="give one .h5ad file in it"
        )
    return _stored.finish(_load(path, options.backed), path.stem, "h5ad", options)


def _load(path: Path, backed: bool) -> AnnData:
    import anndata
    import h5py

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata's, about names and old layouts: both are dealt with here
            if backed:
                with h5py.File(path, "r") as file:
                    found = _on_disk.opened(file)
                if found is not None:
                    return found
            return anndata.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds; all mean: not a readable h5ad
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise _check.problem(
            f"{path.name} cannot be read as .h5ad",
            found=f"{path.stat().st_size} bytes, {reason}",
            cure="copy the file again (it may be truncated), or write it with a current anndata",
        ) from error
