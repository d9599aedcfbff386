"""NanoString (Bruker) CosMx: the flat files of AtoMx and of the early public releases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _pictures, _section
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

F64 = NDArray[np.float64]
# File names and columns: NanoString BioStats, "Comparing AtoMx SIP flat files with the legacy format" (July 2024).
_COUNTS = ("*exprMat_file.csv", "*exprMat_file.csv.gz")
_CELLS = ("*metadata_file.csv", "*metadata_file.csv.gz")
_FRAMES = ("*fov_positions_file.csv", "*fov_positions_file.csv.gz")
_POLYGONS = ("*-polygons.csv", "*-polygons.csv.gz", "*_polygons.csv", "*_polygons.csv.gz")
_XY = ("CenterX_global_px", "CenterY_global_px")
#: micrometres per pixel of the commercial instrument (ImPixel_nm: 120.280945 in a run's expt.config.txt)
_COMMERCIAL_UM = 0.120280945
#: of the prototype behind the first release (lung, He et al. 2022), whose frames have 5472 x 3648 pixels; NanoString's
#: README of that release. Alpha instruments had .169 (CosMx-Analysis-Scratch-Space, issue 108).
_PROTOTYPE_UM = 0.18
#: frames of the commercial instrument are 4256 pixels wide
_COMMERCIAL_FRAME_PX = 4300
#: pixel sizes beyond these are a mistake in the files
_PLAUSIBLE_UM = (0.05, 1.0)
_SIZE_UNKNOWN = (
    "the pixel size is in none of the files: {um:.5g} um, that of {whose}, was taken; instruments had .12028"
    " (commercial), .169 (alpha) or .18 um (first release): give --um-per-unit (um_per_unit=) if not"
)


@platforms.add(
    "cosmx",
    marks=("*exprMat_file.csv*|*metadata_file.csv*",),
    uses=("outlines",),
    looks_for="a folder with *_exprMat_file.csv and *_metadata_file.csv (gzipped or not)",
)
def cosmx(path: Path, options: ReadOptions) -> AnnData:
    """Cells of a CosMx slide from its flat files, joined by field of view and cell number.

    Cell 0 of each field of view, the molecules outside cells, is left out. Negative probes and system controls go to
    ``obsm``. Writes ``obs["fov"]``, ``obs["cell_area_um2"]``, the stains' means and AtoMx's clusters. Positions are
    global pixels as delivered: their y axis points upwards, as in NanoString's own plots. Micrometres come from the
    fields of view in mm, from ``Area.um2``, else from the instrument's pixel size, with a warning.
    """
    counts_file = _cell_tables.needed_file(path, _COUNTS, "the table of counts (exprMat_file)")
    wide = _cell_tables.wide_counts(counts_file, ids=("fov", "cell_ID"), drop="^cell(_id)?$")
    cells_file = _cell_tables.needed_file(path, _CELLS, "the table of cells (metadata_file)")
    cells = _cell_tables.table(
        cells_file, needed=("fov", "cell_ID", *_XY), text=("fov", "cell_ID", "cell", "cell_id", "slide_ID")
    )
    um_per_px, message = _um_per_px(path, cells, cells_file.name, options)
    is_cell = (wide.ids["cell_ID"].str.strip() != "0").to_numpy()
    obs = _obs(cells, cells_file.name, um_per_px)
    adata = _cells.assemble(
        sparse.csr_matrix(wide.counts[np.flatnonzero(is_cell)]), _names(wide.ids[is_cell], "cell_ID"), wide.genes,
        _names(cells, "cell_ID"),
        np.column_stack([_cell_tables.numbers(cells, c, where=cells_file.name) for c in _XY]),
        um_per_unit=um_per_px, platform="cosmx", library=_section.library_name(path.name),
        types=[_type(gene) for gene in wide.genes], obs=obs,
        files=(counts_file.name, cells_file.name), notes=wide.notes,
    )  # fmt: skip
    if message:
        _check.warn(message, adata)
    if options.outlines:
        _add_outlines(adata, path, um_per_px)
    _pictures.attach_given(adata, options)
    if "cell" in adata.obs:  # AtoMx's own name, c_<slide>_<fov>_<cell>, holds across slides
        adata.obs_names = adata.obs["cell"].astype(str)
        adata.obs_names.name = None
        del adata.obs["cell"]
    return adata


def _names(table: pd.DataFrame, column: str) -> list[str]:
    """Cells by field of view and number: the number alone comes again in every field of view."""
    return [f"{str(fov).strip()}_{str(number).strip()}" for fov, number in zip(table["fov"], table[column])]


def _type(feature: str) -> str:
    """What a column of the counts measures; NegPrb are the negative probes of the early releases."""
    if feature.startswith(("Negative", "NegPrb", "NegProbe", "NegControl")):
        return "Negative Probe"
    if feature.startswith(("SystemControl", "FalseCode")):
        return "System Control"
    return _cells.EXPRESSION


def _um_per_px(path: Path, cells: pd.DataFrame, where: str, options: ReadOptions) -> tuple[float, str]:
    """Micrometres per pixel, and what the user should hear about them ("" where a file says so)."""
    if options.um_per_unit is not None:
        return options.um_per_unit, ""
    found = _from_frames(path) or _from_areas(cells, where)
    if found:
        if not _PLAUSIBLE_UM[0] < found < _PLAUSIBLE_UM[1]:
            raise _check.problem(
                "the files give no plausible pixel size",
                found=f"{found:.4g} um per pixel",
                cure="give --um-per-unit (um_per_unit=), .12028 for the commercial instrument",
            )
        near = abs(found / _COMMERCIAL_UM - 1) < 5e-3  # the files round to whole pixels
        return (_COMMERCIAL_UM if near else found), ""
    local = "CenterX_local_px"
    if local in cells and _cell_tables.numbers(cells, local, where=where).max() > _COMMERCIAL_FRAME_PX:
        whose = f"the prototype with frames above {_COMMERCIAL_FRAME_PX} pixels"
        return _PROTOTYPE_UM, _SIZE_UNKNOWN.format(um=_PROTOTYPE_UM, whose=whose)
    return _COMMERCIAL_UM, _SIZE_UNKNOWN.format(um=_COMMERCIAL_UM, whose="the commercial instrument")


def _from_frames(path: Path) -> float | None:
    """From fields of view whose positions are given both in pixels and in mm (AtoMx 1.3 and later)."""
    file = _cell_tables.one_file(path, _FRAMES, "the fields of view", optional=True)
    if file is None:
        return None
    frames = _cell_tables.table(file, needed=())
    sizes = []
    for axis in "xy":
        px, mm = f"{axis}_global_px", f"{axis}_global_mm"
        if px in frames and mm in frames:
            wide_px, wide_mm = (np.ptp(_cell_tables.numbers(frames, c, where=file.name)) for c in (px, mm))
            if wide_px > 0 and wide_mm > 0:
                sizes.append((float(wide_px), float(wide_mm) * 1000 / float(wide_px)))
    return max(sizes)[1] if sizes else None


def _from_areas(cells: pd.DataFrame, where: str) -> float | None:
    if not {"Area", "Area.um2"} <= set(cells.columns):
        return None
    px, um2 = (_cell_tables.numbers(cells, c, where=where) for c in ("Area", "Area.um2"))
    known = (px > 0) & (um2 > 0)
    return float(np.sqrt(np.median(um2[known] / px[known]))) if known.any() else None


def _obs(cells: pd.DataFrame, where: str, um_per_px: float) -> dict[str, ArrayLike]:
    """Columns of use: identifiers, area, the stains' means, what AtoMx found."""
    columns: dict[str, ArrayLike] = {"fov": _fovs(cells, where)}
    for name in ("cell", "cell_id"):
        if name in cells and "cell" not in columns:
            columns["cell"] = cells[name].to_numpy(dtype=object)
    if "Area.um2" in cells:
        columns["cell_area_um2"] = _cell_tables.numbers(cells, "Area.um2", where=where)
    elif "Area" in cells:
        columns["cell_area_um2"] = _cell_tables.numbers(cells, "Area", where=where) * um_per_px**2
    for name in cells.columns:
        if name.startswith("Mean."):
            columns[_section.library_name(name)] = _cell_tables.numbers(cells, name, where=where)
        elif name in ("slide_ID", "Run_Tissue_name", "assay_type") or name.endswith(("_clusters", "_niche")):
            columns[_section.library_name(name)] = cells[name].fillna("").astype(str).to_numpy(dtype=object)
    return columns


def _fovs(cells: pd.DataFrame, where: str) -> NDArray[np.int64]:
    numbers = _cell_tables.numbers(cells, "fov", where=where)
    if not np.isfinite(numbers).all():
        raise _check.problem(
            f"column 'fov' of {where} must name a field of view in every row",
            found=f"{int((~np.isfinite(numbers)).sum())} rows without",
            cure="copy the file again",
        )
    return numbers.astype(np.int64)


def _add_outlines(adata: AnnData, path: Path, um_per_px: float) -> None:
    file = _cell_tables.one_file(path, _POLYGONS, "the outlines of cells", optional=True)
    if file is None:
        _check.warn("no outlines of cells were found (expected *-polygons.csv): early releases have none", adata)
        return
    number = ("cellID", "cell_ID", "cell_id")
    xy = ("x_global_px", "y_global_px")
    vertices = _cell_tables.table(file, needed=("fov", *xy), text=("fov", *number), only=("fov", *number, *xy))
    column = _first(number, vertices.columns.tolist(), file.name)
    px = np.column_stack([_cell_tables.numbers(vertices, c, where=file.name) for c in xy])
    _cells.add_outlines(adata, np.asarray(_names(vertices, column), dtype=str), px * um_per_px)


def _first(wanted: Sequence[str], columns: Sequence[str], where: str) -> str:
    for name in wanted:
        if name in columns:
            return name
    raise _check.problem(
        f"{where} lacks the column {wanted[0]}",
        found=_check.listed(columns),
        cure="give the platform's own file; a newer version may have renamed it",
    )
