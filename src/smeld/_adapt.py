"""AnnData or SpatialData in; table, coordinates, counts and image out. The only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _backed, _check, _image, _keys
from smeld.kernels.rows import Rows, in_memory

if TYPE_CHECKING:
    from anndata import AnnData

#: values above this can hardly be logarithms of counts
LARGEST_LOG = 30.0
#: ``sdata.attrs`` entry that names the table to use of several
TABLE_ATTR = "smeld_table"


def table(data: Any) -> AnnData:
    """The AnnData itself, or the table of a SpatialData: its only one, or the one named in ``attrs["smeld_table"]``."""
    from anndata import AnnData

    if isinstance(data, AnnData):
        return data
    tables = getattr(data, "tables", None)
    if isinstance(tables, Mapping):
        if len(tables) == 1:
            return next(iter(tables.values()))
        named = getattr(data, "attrs", {}).get(TABLE_ATTR)
        if named in tables:
            return tables[named]
        raise _check.problem(
            "cannot tell which table to use",
            found=f"{len(tables)} tables: {_check.listed(tables)}",
            cure=f'pass one of them, sdata.tables["name"], or name it: sdata.attrs["{TABLE_ATTR}"] = "name"',
        )
    raise _check.problem(
        "an AnnData or SpatialData is needed", found=type(data).__name__, cure="read one with sm.read(path)"
    )


def xy_um(data: Any) -> NDArray[np.float64]:
    """Positions in micrometres, float64 [n_obs, 2] (x, y)."""
    adata = table(data)
    _check.require(
        adata.obsm,
        _keys.SPATIAL_UM,
        "obsm",
        "read the section with sm.read(path), or set obsm['spatial_um'] = obsm['spatial'] * um_per_unit",
    )
    xy = np.asarray(adata.obsm[_keys.SPATIAL_UM], dtype=np.float64)[:, :2]
    if not np.isfinite(xy).all():
        bad = int((~np.isfinite(xy).all(axis=1)).sum())
        raise _check.problem(
            "coordinates must be finite", found=f"{bad} of {len(xy)} NaN or infinite", cure="drop those spots"
        )
    return xy


def counts(data: Any, layer: str | None = None) -> sparse.csr_matrix:
    """The counts as float32 CSR [n_obs, n_var], from ``X`` or a layer; negative or non-finite values are refused."""
    adata = table(data)
    x = _matrix(adata, layer)
    if _backed.is_backed(x):
        matrix = rows(adata, layer).whole()
        check_counts(matrix)
        return matrix
    matrix = sparse.csr_matrix(x, dtype=np.float32)
    check_counts(matrix)
    return matrix


def _matrix(adata: AnnData, layer: str | None) -> Any:
    if layer is not None:
        _check.require(adata.layers, layer, "layers", "name an existing layer, or leave it out to use X")
    x = adata.X if layer is None else adata.layers[layer]
    if x is None:
        raise _check.problem("the table has no matrix X", cure="give the counts in X, or name their layer")
    return x


def rows(data: Any, layer: str | None = None, order: NDArray[np.intp] | None = None) -> Rows:
    """The counts by blocks of rows, in ``order`` where that is given: of a table in memory nothing is copied, one on
    disk stays there. Negative or non-finite values are refused."""
    adata = table(data)
    x = _matrix(adata, layer)
    if order is not None and bool((order == np.arange(len(order))).all()):
        order = None
    if not _backed.is_backed(x):
        return _checked(in_memory(sparse.csr_matrix(x, dtype=np.float32), order))
    seen = _backed.once(x, lambda: _checked(_backed.rows_of(x)))
    return replace(_backed.rows_of(x, order), whole_numbers=seen[0], largest=seen[1])


def _checked(made: Rows) -> Rows:
    """The table, once looked through."""
    whole, least, most, finite = True, np.inf, 0.0, True
    for _, block in made.blocks():
        if block.nnz:
            finite &= bool(np.isfinite(block.data).all())
            whole &= bool((block.data == np.floor(block.data)).all())
            least, most = min(least, float(block.data.min())), max(most, float(block.data.max()))
    _refuse(made.shape, finite=finite, least=least, most=most)
    return replace(made, whole_numbers=whole, largest=most)


def check_counts(matrix: sparse.csr_matrix) -> None:
    """Refuse what no count matrix can hold: negative, NaN or infinite values, nothing but zeros."""
    values = matrix.data
    finite = bool(np.isfinite(values).all())
    least, most = (float(values.min()), float(values.max())) if values.size and finite else (0.0, 0.0)
    _refuse(matrix.shape, finite=finite, least=least, most=most)


def _refuse(shape: tuple[int, int], *, finite: bool, least: float, most: float) -> None:
    if shape[0] < 2 or shape[1] < 1:
        raise _check.problem(
            "at least 2 spots and 1 gene are needed",
            found=f"{shape[0]} spots x {shape[1]} genes",
            cure="give the whole section",
        )
    if not finite:
        raise _check.problem(
            "counts must be finite", found="NaN or infinite values in the matrix", cure="give raw counts"
        )
    if least < 0:
        raise _check.problem(
            "counts cannot be negative",
            found=f"smallest value {least:g}",
            cure="give raw counts, not scaled or centred values",
        )
    if most <= 0:
        raise _check.problem("the matrix holds nothing but zeros", cure="give raw counts")


def are_counts(matrix: sparse.csr_matrix | Rows) -> bool:
    """True if all values are whole numbers."""
    if isinstance(matrix, Rows):
        return matrix.hold_counts()
    return bool(np.equal(np.mod(matrix.data, 1), 0).all())


def look_logged(matrix: sparse.csr_matrix | Rows) -> bool:
    """True for values that are not counts and small enough to be logarithms of such; ``matrix`` of :func:`counts` or
    :func:`rows`."""
    largest = matrix.largest if isinstance(matrix, Rows) else matrix.data.max(initial=0.0)
    return not are_counts(matrix) and bool(largest < LARGEST_LOG)


def library(data: Any, library_id: str | None = None) -> tuple[str, dict[str, Any]] | None:
    """(name, ``uns["spatial"][name]``) of the section, or None where nothing of the kind is stored."""
    adata = table(data)
    libraries = adata.uns.get(_keys.IMAGES)
    if not isinstance(libraries, Mapping):
        return None
    # notes may lie beside the sections, such as CELLxGENE's is_single
    libraries = {name: entry for name, entry in libraries.items() if isinstance(entry, Mapping)}
    if not libraries:
        return None
    if library_id is None:
        if len(libraries) > 1:
            raise _check.problem(
                "several sections are stored",
                found=_check.listed(libraries),
                cure="name one with library_id=",
            )
        library_id = next(iter(libraries))
    _check.require(libraries, library_id, 'uns["spatial"]', "name a stored section")
    return library_id, libraries[library_id]


def metadata(data: Any, library_id: str | None = None) -> dict[str, Any]:
    """smeld's own facts about the section (platform, um_per_unit, spot_diameter_um, image_path ...); may be empty."""
    found = library(data, library_id)
    return dict(found[1].get("metadata", {})) if found else {}


def image(data: Any, library_id: str | None = None, *, preview: bool = False) -> _image.Image | None:
    """The section's image with the finest resolution, or None.

    ``preview=True`` never opens a file: it returns the best image stored in the AnnData, for plots.
    """
    found = library(data, library_id)
    if found is None:
        return None
    stored = found[1]
    meta = stored.get("metadata", {})
    um_per_unit = float(meta.get(_keys.META_UM_PER_UNIT, np.nan))
    path = meta.get(_keys.META_IMAGE_PATH)
    if path and not preview and _image.is_image(Path(str(path))):
        return _image_of_file(Path(str(path)), meta, um_per_unit)
    for name in ("hires", "lowres"):
        pixels = stored.get("images", {}).get(name)
        if pixels is not None:
            scale = float(stored.get("scalefactors", {}).get(f"tissue_{name}_scalef", 1.0))
            return _image.from_array(pixels, scale=scale, um_per_px=um_per_unit / scale)
    return None


def _image_of_file(path: Path, meta: Mapping[str, Any], um_per_unit: float) -> _image.Image:
    """The file that the metadata name, with its scale or its registration."""
    affine = meta.get(_keys.META_IMAGE_AFFINE)
    if affine is None:
        scale = float(meta.get(_keys.META_IMAGE_SCALE, 1.0))
    else:
        affine = np.asarray(affine, dtype=np.float64).reshape(2, 3)
        scale = float(np.sqrt(abs(affine[0, 0] * affine[1, 1] - affine[0, 1] * affine[1, 0])))
        if not (np.isfinite(affine).all() and scale > 0):
            found = f"metadata[{_keys.META_IMAGE_AFFINE!r}] = {affine.tolist()}"
            raise _check.problem("the registration of the image is no affine map", found=found, cure="read it again")
    limit = float(meta.get(_keys.META_MAX_MEGAPIXELS, _image.MAX_MEGAPIXELS))
    um_per_px = um_per_unit / scale
    return _image.open_image(path, scale=scale, um_per_px=um_per_px, max_megapixels=limit, affine=affine)


def xy_px(data: Any, picture: _image.Image) -> NDArray[np.float64]:
    """Positions in pixels of ``picture``, float64 [n_obs, 2] (x, y)."""
    adata = table(data)
    _check.require(adata.obsm, _keys.SPATIAL, "obsm", "read the section with sm.read(path)")
    return picture.place(np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)[:, :2])


def canonical_order(data: Any) -> NDArray[np.intp]:
    """The order in which smeld looks at spots: by identifier.

    Random draws and sums are made in this order, so that permuting the input permutes the output and nothing else.
    It does not depend on positions: rotating, moving or rescaling a section leaves it alone.
    """
    names = table(data).obs_names
    if names.is_monotonic_increasing and names.is_unique:
        return np.arange(len(names))
    if not names.is_unique:
        repeated = names[names.duplicated()].unique()
        raise _check.problem(
            "spot identifiers must be unique",
            found=f"repeated: {_check.listed(repeated, 3)}",
            cure="adata.obs_names_make_unique()",
        )
    return np.argsort(np.asarray(names, dtype=str), kind="stable")


def ordered(values: Any, order: NDArray[np.intp]) -> NDArray[np.float64]:
    """Values [n_obs, d] in ``order``, float64; not copied where they lie so."""
    made = np.asarray(values, dtype=np.float64)
    return made if bool((order == np.arange(len(order))).all()) else np.asarray(made[order])


def sections(data: Any, batch_key: str | None) -> tuple[NDArray[np.intp], list[str]]:
    """(number of each spot's section, names of the sections); one section without a name where no key is given."""
    adata = table(data)
    if batch_key is None:
        return np.zeros(adata.n_obs, dtype=np.intp), [""]
    _check.require(adata.obs, batch_key, "obs", "name the column that holds the section of each spot")
    section, names = numbered(adata.obs[batch_key])
    if (section < 0).any():
        found = f"{int((section < 0).sum())} missing in obs[{batch_key!r}]"
        raise _check.problem("every spot needs a section", found=found, cure="name it, or drop those spots")
    return section, names


def numbered(column: Any) -> tuple[NDArray[np.intp], list[str]]:
    """(number by spot, names in the column's own order); missing and empty values are -1, unused names dropped."""
    import pandas as pd

    values = column.astype("category").cat
    # integers that a missing value made floats keep their names
    text = [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values.categories]
    codes = values.codes.to_numpy()
    used = set(codes[codes >= 0].tolist())
    names = list(dict.fromkeys(t for i, t in enumerate(text) if t.strip() and i in used))
    number = (
        pd.Index(names, dtype=object).get_indexer(pd.Index(text, dtype=object)) if names else np.full(len(text), -1)
    )
    return np.append(number, -1)[codes].astype(np.intp), names  # code -1 is the last


def within_sections(distances: sparse.csr_matrix, xy_um: NDArray[np.float64], section: NDArray[np.integer]) -> bool:
    """False where a stored graph is of other positions, as of a result that was read in another unit, or joins
    sections (whose positions then took each other's places)."""
    edges = sparse.coo_matrix(distances)
    length = np.linalg.norm(xy_um[edges.row] - xy_um[edges.col], axis=1)
    right = np.allclose(edges.data, length, rtol=1e-6, atol=1e-5)
    return bool(right and (section[edges.row] == section[edges.col]).all())
