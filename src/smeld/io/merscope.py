"""Vizgen MERSCOPE: a region's output folder, or that of Vizgen's post-processing tool."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smeld import _check, _keys
from smeld.io import _alignment, _cell_tables, _cells, _delimited, _mosaics, _pictures, _section, _wkb
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

F64 = NDArray[np.float64]
# File formats: Vizgen's post-processing documentation, "Output data formats" (vpt 1.3). A region of the instrument has
# the plain names; published data and the tool put words before or after them.
_COUNTS = ("cell_by_gene.csv", "*cell_by_gene.csv", "*cell_by_gene*.csv*")
_CELLS = ("cell_metadata.csv", "*cell_metadata.csv", "*cell_metadata*.csv*")
_OUTLINES = ("cell_boundaries.parquet", "*cell_boundaries*.parquet", "*micron_space.parquet")
_TRANSFORM = "micron_to_mosaic_pixel_transform.csv"
_MOSAIC = re.compile(r"mosaic_(?P<stain>.+)_z(?P<z>\d+)\.tiff?")
#: the name of the column of identifiers: EntityID since 2022, before it "cell", or none
_ID = ("EntityID", "cell", "")


@platforms.add(
    "merscope",
    # not NanoString's *_cell_metadata_file.csv
    marks=("*cell_by_gene*.csv*|*cell_metadata.csv*|*cell_metadata[_ -][!f]*.csv*",),
    uses=("outlines",),
    looks_for="a region's folder with cell_by_gene.csv and cell_metadata.csv",
)
def merscope(path: Path, options: ReadOptions) -> AnnData:
    """Cells of a MERSCOPE region, joined by EntityID; centres are in micrometres.

    Blank barcodes go to ``obsm["blank"]``. Writes ``obs["volume_um3"]``, ``obs["fov"]``. Outlines are those of the
    plane nearest to the middle of the stack in which the cell was seen; with them ``obs["cell_area_um2"]``. The image
    is the DAPI mosaic of the middle plane, registered by the instrument's own transform.
    """
    counts_file = _cell_tables.needed_file(path, _COUNTS, "the table of counts (cell_by_gene)")
    cells_file = _cell_tables.needed_file(path, _CELLS, "the table of cells (cell_metadata)")
    wide = _cell_tables.wide_counts(counts_file, ids=(_id_column(counts_file),))
    cells = _cell_tables.table(cells_file, needed=("center_x", "center_y"), text=(*_ID, "Unnamed: 0"))
    where = cells_file.name
    adata = _cells.assemble(
        wide.counts, _texts(wide.ids.iloc[:, 0]), wide.genes, _texts(cells[_id_of(cells, where)]),
        np.column_stack([_cell_tables.numbers(cells, c, where=where) for c in ("center_x", "center_y")]),
        um_per_unit=options.um_per_unit or 1.0, platform="merscope", library=_section.library_name(path.name),
        types=["Blank" if g.lower().startswith("blank") else _cells.EXPRESSION for g in wide.genes],
        obs=_obs(cells, where), files=(counts_file.name, where), notes=wide.notes,
    )  # fmt: skip
    _cells.refuse_foreign(adata, "transcript_count", where=where)
    if options.outlines:
        _add_outlines(adata, path)
    _add_image(adata, path / "images", options)
    return adata


def _id_column(path: Path) -> str:
    """The name by which the counts' column of identifiers is read; one without a name is called EntityID."""
    names = _cell_tables.header(path)
    return next((n for n in _ID if n and n in names), _ID[0])


def _id_of(cells: pd.DataFrame, where: str) -> str:
    for name in _ID:
        if name in cells.columns:
            return name
    raise _check.problem(
        f"{where} lacks the column EntityID",
        found=_check.listed(cells.columns),
        cure="give the region's own cell_metadata.csv",
    )


def _texts(column: pd.Series) -> list[str]:
    return [str(value).strip() for value in column]


def _obs(cells: pd.DataFrame, where: str) -> dict[str, ArrayLike]:
    columns: dict[str, ArrayLike] = {}
    for name, key in (("volume", "volume_um3"), ("fov", "fov"), ("transcript_count", "transcript_count")):
        if name in cells and cells[name].notna().any():  # the tool leaves fov empty
            columns[key] = _cell_tables.numbers(cells, name, where=where)
    for name in cells.columns:
        if name.endswith("_raw"):  # a stain's intensity in the cell
            columns[_section.library_name(name)] = _cell_tables.numbers(cells, name, where=where)
    return columns


def _add_outlines(adata: AnnData, path: Path) -> None:
    file = _cell_tables.one_file(path, _OUTLINES, "the outlines of cells", optional=True)
    folder = path / "cell_boundaries"
    if file is not None:
        rings = dict(_from_parquet(file))
    elif folder.is_dir():
        rings = {}
        for part in _cell_tables.visible(folder, "*.hdf5"):
            rings.update(_from_hdf5(part))
    else:
        _check.warn("no outlines of cells were found (expected cell_boundaries.parquet or cell_boundaries/)", adata)
        return
    rings = {name: ring for name, ring in rings.items() if len(ring)}
    if not rings:
        _check.warn("the file of outlines holds none", adata)
        return
    names = np.repeat(np.asarray(list(rings), dtype=str), [len(r) for r in rings.values()])
    xy = np.concatenate(list(rings.values())) * _um_per_unit(adata)
    _cells.add_outlines(adata, names, xy)
    outlined, _, area = _cells.centroids(names, xy)
    known = dict(zip(outlined, area))
    adata.obs["cell_area_um2"] = [known.get(name, np.nan) for name in adata.obs_names]


def _um_per_unit(adata: AnnData) -> float:
    (entry,) = adata.uns[_keys.IMAGES].values()
    return float(entry["metadata"][_keys.META_UM_PER_UNIT])


def _from_parquet(path: Path) -> Iterator[tuple[str, F64]]:
    """Each cell's outline in its plane nearest to the middle of the stack."""
    needed = ("EntityID", "ZIndex", "Geometry")
    rows = _cell_tables.table(path, needed=needed, text=("EntityID",), only=(*needed, "Type"))
    if "Type" in rows:
        rows = rows[rows["Type"].fillna("cell").str.lower() == "cell"]  # not nuclei
    planes = rows["ZIndex"].to_numpy(dtype=np.float64)
    rows = rows.assign(_off=np.abs(planes - np.median(np.unique(planes)))) if len(rows) else rows.assign(_off=planes)
    nearest = rows.sort_values(["_off", "ZIndex"], kind="stable").drop_duplicates("EntityID")
    try:
        for name, blob in zip(nearest["EntityID"], nearest["Geometry"]):
            yield name, _wkb.outline(bytes(blob)) if blob is not None else np.zeros((0, 2))
    except (TypeError, ValueError) as error:
        raise _check.problem(
            f"{path.name} holds geometries that cannot be read",
            found=str(error)[:100],
            cure="copy the file again; outlines must be WKB polygons",
        ) from error


def _from_hdf5(path: Path) -> Iterator[tuple[str, F64]]:
    """Outlines of older versions: featuredata/<EntityID>/zIndex_<plane>/p_<part>/coordinates [1, n, 2], um."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            for name, cell in file["featuredata"].items():
                yield str(name), _middle_plane(cell)
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise _check.problem(
            f"{path.parent.name}/{path.name} cannot be read",
            found=f"{_delimited.size_of(path)}, {type(error).__name__}: {str(error)[:80]}",
            cure="copy the folder again (a file may be truncated)",
        ) from error


def _middle_plane(cell: object) -> F64:
    """The largest part of the plane nearest to the middle of those in which a cell has an outline."""
    planes = {}
    for name, parts in cell.items():  # type: ignore[attr-defined]
        if name.startswith("zIndex_"):
            rings = [np.asarray(p["coordinates"], dtype=np.float64).reshape(-1, 2) for p in parts.values()]
            if rings:
                planes[int(name.removeprefix("zIndex_"))] = max(rings, key=len)
    if not planes:
        return np.zeros((0, 2))
    ring = planes[min(planes, key=lambda z: (abs(z - float(np.median(list(planes)))), z))]
    return ring[:-1] if len(ring) > 1 and (ring[0] == ring[-1]).all() else ring


def _add_image(adata: AnnData, images: Path, options: ReadOptions) -> None:
    _pictures.attach_given(adata, options)
    file = None if options.image is not None else _mosaic(images)
    if file is not None:
        _mosaics.attach(adata, file, options=options, affine=lambda size: _micron_to_pixel(images, size))


def _mosaic(images: Path) -> Path | None:
    """The DAPI mosaic (else the first stain by name) of the middle plane."""
    found = [(m["stain"], int(m["z"]), p) for p in images.glob("mosaic_*") if (m := _MOSAIC.fullmatch(p.name))]
    if not found:
        return None
    stains = sorted({stain for stain, _, _ in found}, key=lambda s: (s.upper() != "DAPI", s))
    planes = {z: p for stain, z, p in found if stain == stains[0]}
    middle = float(np.median(list(planes)))
    return planes[min(planes, key=lambda z: (abs(z - middle), z))]


def _micron_to_pixel(images: Path, size: tuple[int, int]) -> F64:
    """[2, 3]: micrometres (x, y, 1) to pixels of a mosaic of ``size`` (height, width)."""
    file, manifest = images / _TRANSFORM, images / "manifest.json"
    if file.is_file():
        with _cell_tables.readable(file):
            text = file.read_text(encoding="utf-8-sig")
            if not text.strip():
                raise ValueError("the file is empty")
            matrix = np.loadtxt(text.splitlines(), dtype=np.float64, delimiter="," if "," in text else None, ndmin=2)
        return _alignment.checked(matrix, name=file.name)[:2]
    if not manifest.is_file():
        raise _check.problem(f"images/{_TRANSFORM}, which places it, was not found", cure="copy it from the region")
    with _cell_tables.readable(manifest):
        x0, y0, x1, y1 = (float(v) for v in json.loads(manifest.read_text(encoding="utf-8-sig"))["bbox_microns"])
        if not (x1 > x0 and y1 > y0):
            raise ValueError(f"bbox_microns {[x0, y0, x1, y1]} has no area")
    # from the mosaic's own size: it may have been reduced since microns_per_pixel was written
    along_x, along_y = size[1] / (x1 - x0), size[0] / (y1 - y0)
    matrix = np.array([[along_x, 0.0, -x0 * along_x], [0.0, along_y, -y0 * along_y]])
    return _alignment.checked(matrix, name=manifest.name)[:2]
