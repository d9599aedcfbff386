"""Counts that stay on disk: files of AnnData opened without reading X, and tables put away into a store."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import sparse

from smeld import _check
from smeld.kernels.rows import ROWS

if TYPE_CHECKING:
    from anndata import AnnData

#: values of a stored chunk: a block of rows touches few of them, and each is read whole
CHUNK = 2**18
PARTS = ("obs", "var", "obsm", "varm", "obsp", "varp", "uns")


def require_dask() -> None:
    """Raise InputError unless dask is installed."""
    if find_spec("dask") is None:
        raise _check.problem(
            "counts that stay on disk need the extra smeld[cluster]",
            found="no dask",
            cure="pip install 'smeld[cluster]', or leave backed out",
        )


def opened(group: Any) -> AnnData | None:
    """The AnnData of an open h5ad file or zarr group, X and layers left on disk; None where X is not stored by rows."""
    import anndata as ad

    x = group["X"]
    if str(x.attrs.get("encoding-type")) not in ("csr_matrix", "array"):
        return None
    parts = {name: ad.io.read_elem(group[name]) for name in PARTS if name in group}
    adata = ad.AnnData(**parts)
    adata.X = lazy(x)
    if "raw" in group and hasattr(group["raw"], "keys"):  # zarr keeps an empty array where there is none
        adata.raw = ad.AnnData(ad.io.read_elem(group["raw"]["X"]), adata.obs[[]], ad.io.read_elem(group["raw"]["var"]))
    layers = group["layers"] if "layers" in group else {}  # noqa: SIM401  h5py's get differs from zarr's
    for name in layers:
        layer = layers[name]
        by_rows = str(layer.attrs.get("encoding-type")) in ("csr_matrix", "array")
        adata.layers[name] = lazy(layer) if by_rows else ad.io.read_elem(layer)
    return adata


def lazy(stored: Any) -> Any:
    """A stored matrix as a dask array, a block of rows a chunk."""
    from anndata.experimental import read_elem_lazy

    shape = stored.attrs["shape"] if hasattr(stored, "keys") else stored.shape  # a group if it is sparse
    return read_elem_lazy(stored, chunks=(min(ROWS, int(shape[0])), int(shape[1])))


def put_away(adata: AnnData, folder: str | Path | None) -> None:
    """X goes to a zarr store, which takes its place. None: one in a temporary folder, which is there as long as the
    table, a copy or a part of it reads from it."""
    import zarr

    table = sparse.csr_matrix(adata.X)
    if folder is None:
        place = Path(tempfile.mkdtemp(prefix="smeld-counts-"))
    else:
        place = Path(folder).expanduser()
        _refuse_existing(place)
    group = zarr.open_group(str(place), mode="w")
    if folder is None:
        weakref.finalize(group.store, shutil.rmtree, place, ignore_errors=True)
    write_csr(group, table)
    adata.X = lazy(group["X"])


def write_csr(group: Any, table: sparse.csr_matrix) -> None:
    """AnnData's layout of a CSR matrix, in chunks that suit blocks of rows."""
    made = group.create_group("X")
    made.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": list(table.shape)})
    for name in ("data", "indices", "indptr"):
        values = getattr(table, name)
        array = made.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(min(CHUNK, len(values)) or 1,))
        array[:] = values
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _refuse_existing(place: Path) -> None:
    if place.exists():
        raise _check.problem(
            f"{place.name} exists already", found="a folder or file in its place", cure="give another with backed="
        )
