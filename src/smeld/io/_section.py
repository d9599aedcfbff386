"""What every reader ends with: one checked AnnData in micrometres, and the section's entry in
``uns["spatial"]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

F64 = NDArray[np.float64]

UNIT_UNKNOWN = "the unit of the coordinates is not known: 1 um is assumed; give --um-per-unit (um_per_unit=) if not"


def assemble(
    counts: sparse.csr_matrix,
    xy: F64,
    *,
    spots: Sequence[str],
    genes: Sequence[str],
    um_per_unit: float,
    obs: Mapping[str, ArrayLike] | None = None,
    gene_ids: Sequence[str] | None = None,
) -> AnnData:
    """An AnnData of counts [n_obs, n_vars] and positions [n_obs, 2] (x, y as delivered), checked on the
    way."""
    import pandas as pd
    from anndata import AnnData

    refuse_repeated(spots, "spot identifiers")
    _adapt.check_counts(counts)
    check_xy(xy)
    index, n_repeated = unique_genes(pd.Index(genes, dtype=object))
    adata = AnnData(
        X=counts,
        obs=pd.DataFrame(dict(obs or {}), index=pd.Index(list(spots), dtype=object)),
        var=pd.DataFrame({} if gene_ids is None else {"gene_ids": list(gene_ids)}, index=index),
    )
    warn_repeated(adata, n_repeated)
    adata.obsm[_keys.SPATIAL] = np.asarray(xy, dtype=np.float64)
    adata.obsm[_keys.SPATIAL_UM] = np.asarray(xy, dtype=np.float64) * um_per_unit
    return adata


def refuse_repeated(names: Sequence[str], what: str) -> None:
    """Joins by identifier need each identifier once."""
    import pandas as pd

    index = pd.Index(list(names), dtype=object)
    repeated = [] if index.is_unique else sorted(map(str, index[index.duplicated()].unique()))
    if repeated:
        raise _check.problem(
            f"{what} must be unique",
            found=f"{len(repeated)} repeated: {_check.listed(repeated, 3)}",
            cure="remove or rename the repeated rows",
        )


def check_xy(xy: F64) -> None:
    """Refuse NaN and infinite coordinates."""
    bad = int((~np.isfinite(xy).all(axis=1)).sum())
    if bad:
        raise _check.problem(
            "coordinates must be finite",
            found=f"{bad} of {len(xy)} spots NaN or infinite",
            cure="mend or remove those spots",
        )


def unique_genes(names: pd.Index) -> tuple[pd.Index, int]:
    """Gene names made unique (``-1``, ``-2`` ... appended, scanpy's way), and how many needed it."""
    from anndata.utils import make_index_unique

    n_repeated = int(names.duplicated().sum())
    return (make_index_unique(names) if n_repeated else names), n_repeated


def warn_repeated(adata: AnnData, n_repeated: int) -> None:
    if n_repeated:
        _check.warn(
            f"{n_repeated} gene names occur more than once: they were made unique (NAME-1, NAME-2, ...)",
            adata,
        )


def add_library(
    adata: AnnData,
    name: str,
    *,
    platform: str,
    um_per_unit: float,
    spot_um: float | None = None,
    scalefactors: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Make (or complete) ``uns["spatial"][name]`` in scanpy's form with smeld's metadata, and return it."""
    libraries = adata.uns.setdefault(_keys.IMAGES, {})
    entry: dict[str, Any] = libraries.setdefault(name, {})
    entry.setdefault("images", {})
    factors = entry.setdefault("scalefactors", {})
    factors.update(scalefactors or {})
    if spot_um is not None:
        factors.setdefault("spot_diameter_fullres", spot_um / um_per_unit)
    meta = entry.setdefault("metadata", {})
    meta.setdefault(_keys.META_PLATFORM, platform)
    meta[_keys.META_UM_PER_UNIT] = float(um_per_unit)
    if spot_um is not None:
        meta.setdefault(_keys.META_SPOT_UM, float(spot_um))
    return entry


def library_name(text: str) -> str:
    """A name that HDF5 and zarr take as a key: no slash, no leading dot, not empty."""
    name = "".join("_" if c in "/\\" or not c.isprintable() else c for c in text).lstrip(".").strip()
    return name or "section"


def joined(wanted: Sequence[str], available: Sequence[str]) -> NDArray[np.intp]:
    """For each wanted identifier its row among the available ones, -1 where it is not there."""
    rows = {name: row for row, name in enumerate(available)}
    return np.asarray([rows.get(name, -1) for name in wanted], dtype=np.intp)
