"""10x Genomics Visium HD: bins of 2, 8 and 16 um (Space Ranger 3 and 4) and segmented cells (Space Ranger 4)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check, _keys
from smeld.io import _arrow, _cell_tables, _cells, _geojson, _lattice, _positions, _spaceranger
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
Rows = NDArray[np.intp]

CELLS = "cells"
RESOLUTIONS = ("2um", "8um", "16um", CELLS)
#: 10x Genomics' advice where several are there (Space Ranger documentation, "Visium HD outputs")
ADVISED = "8um"
#: bins that the lattice is fitted on: enough for seven digits
MAX_FITTED = 100_000
#: micrometres a pixel of slide scanners and microscopes, with room
PLAUSIBLE_UM = (0.01, 100.0)
#: micrometres a pixel of the scale factors and of the lattice of bins differ by rounding; more is a foreign file
MAX_DIFFERENCE = 0.02
_CELL_MATRIX = "feature_cell_matrix"


@dataclass(frozen=True)
class _Bins:
    """Bins in the order of the positions file: ``barcodes`` is an Arrow array, the others [n]."""

    barcodes: Any
    columns: dict[str, NDArray[Any]]
    xy: tuple[NDArray[Any], NDArray[Any]]


@platforms.add(
    "visium_hd",
    marks=(
        "binned_outputs|outs/binned_outputs|segmented_outputs|outs/segmented_outputs|square_0*um"
        f"|*{_CELL_MATRIX}*|cell_segmentations.geojson",
    ),
    uses=("resolution", "outlines"),
    looks_for="a Space Ranger folder with binned_outputs/square_008um or segmented_outputs",
)
def visium_hd(path: Path, options: ReadOptions) -> AnnData:
    """Visium HD: square bins without gaps between them, or cells, their counts and H&E images.

    ``options.resolution``: "2um", "8um", "16um" or "cells"; default 8 um, or the only one there. Bins are joined with
    ``tissue_positions.parquet`` by barcode; of cells the outlines (``cell_segmentations.geojson``) give position and
    ``obs["cell_area_um2"]``. Micrometres are those of ``microns_per_pixel``, for bins checked against their lattice.
    """
    resolution, folder = _chosen(_available(path), options.resolution)
    name = _spaceranger.library(path)
    adata = _cell_table(folder, options, name) if resolution == CELLS else _bin_table(folder, options, name)
    _spaceranger.add_images(adata, folder, options, name=name)
    return adata


def _available(path: Path) -> dict[str, Path]:
    """The folders of every resolution in ``path``, in its ``outs/``, or that ``path`` itself is."""
    found: dict[str, Path] = {}
    for root in (path, path / "outs", path / "binned_outputs", path / "outs/binned_outputs"):
        for folder in sorted(root.glob("square_*um")):
            match = _spaceranger.BIN_FOLDER.fullmatch(folder.name)
            if match and folder.is_dir():
                found.setdefault(f"{match[1]}um", folder)
        if (root / "segmented_outputs").is_dir():
            found.setdefault(CELLS, root / "segmented_outputs")
    if found:
        return found
    if _cell_tables.visible(path, f"*{_CELL_MATRIX}*") or (path / "cell_segmentations.geojson").is_file():
        return {CELLS: path}
    if _spaceranger.holds_bins(path):
        return {f"{_side_um(path):g}um": path}
    raise _check.problem(
        "no bins and no cells of Visium HD: expected binned_outputs/square_008um (or 002, 016) or segmented_outputs",
        found=_check.listed(sorted(p.name for p in path.iterdir())),
        cure="give the folder that holds binned_outputs (Space Ranger's outs), or one square_0*um of it",
    )


def _chosen(available: dict[str, Path], wanted: str | None) -> tuple[str, Path]:
    if wanted is not None:
        asked = wanted.strip().lower()
        match = _spaceranger.BIN_FOLDER.fullmatch(asked) or re.fullmatch(r"0*(\d+)(?: ?um)?", asked)
        asked = f"{match[1]}um" if match else asked
        if asked not in (*RESOLUTIONS, *available):
            raise _check.unknown("resolution", wanted, RESOLUTIONS)
        if asked not in available:
            raise _check.problem(
                f"resolution {asked} is not in this folder",
                found=_check.listed(available),
                cure="choose one of those, or copy the folder of that resolution too",
            )
        return asked, available[asked]
    if ADVISED in available:
        return ADVISED, available[ADVISED]
    if len(available) > 1:
        raise _check.problem(
            "cannot tell which resolution to read",
            found=_check.listed(available),
            cure="choose one with --resolution (resolution=)",
        )
    return next(iter(available.items()))


def _side_um(folder: Path) -> float:
    """How wide a bin is, from the folder's name and the scale factors, which must agree."""
    factors = _spaceranger.scale_factors(folder / "spatial" / _spaceranger.FACTORS, ())
    match = _spaceranger.BIN_FOLDER.fullmatch(folder.name)
    named = float(match[1]) if match else None
    said = factors.get("bin_size_um", named)
    if said is None:
        raise _check.problem(
            "the size of the bins is not known",
            found=f"no bin_size_um in spatial/{_spaceranger.FACTORS}, and a folder named {folder.name}",
            cure="name the folder square_008um (002, 016), as Space Ranger does",
        )
    if named is not None and said != named:
        raise _check.problem(
            f"the scale factors are of bins of another size than {folder.name}",
            found=f"bin_size_um {said:g}",
            cure="copy spatial/ and the matrix of the same square_0*um folder",
        )
    return said


def _bin_table(folder: Path, options: ReadOptions, name: str) -> AnnData:
    side = _side_um(folder)
    matrix, raw = _spaceranger.read_matrix(folder)
    bins = _positions_of_bins(folder / "spatial")
    rows = _joined(matrix.barcodes, bins.barcodes)
    keep = _spaceranger.under_tissue(rows, bins.columns["in_tissue"], raw=raw, unit="bin")
    um_per_unit, messages = _um_per_px(folder, bins, side, options.um_per_unit)
    at = rows[keep]
    xy = np.column_stack([axis[at] for axis in bins.xy]).astype(np.float64)
    adata = _spaceranger.table(
        matrix, keep, xy, um_per_unit=um_per_unit, obs=_spaceranger.whole_numbers(bins.columns, at),
        name=name, platform="visium_hd", spot_um=side,
    )  # fmt: skip
    if options.outlines:
        messages = [*messages, 'bins have no outlines: those of cells need --resolution cells (resolution="cells")']
    for message in messages:
        _check.warn(message, adata)
    _spaceranger.warn_dropped(adata, n_strangers=int((rows < 0).sum()), raw=raw, unit="bins")
    return adata


def _positions_of_bins(spatial: Path) -> _Bins:
    """``tissue_positions.parquet``, 11 million rows for bins of 2 um: no barcode becomes a word of Python."""
    path = spatial / "tissue_positions.parquet"
    if not path.is_file():
        inside = sorted(p.name for p in spatial.iterdir()) if spatial.is_dir() else []
        raise _check.problem(
            "the positions of the bins are missing: spatial/tissue_positions.parquet",
            found=f"spatial/ with {_check.listed(inside)}" if spatial.is_dir() else "no folder spatial/",
            cure="copy the spatial/ folder of the same square_0*um folder beside the matrix",
        )
    table = _arrow.table(path)
    _positions.refuse_incomplete(table.column_names, table.num_rows, path)
    import pyarrow as pa

    bad = [c for c in _positions.COLUMNS[1:] if not _is_number(pa, table.schema.field(c).type)]
    if bad:
        raise _check.problem(
            f"column {bad[0]!r} of {path.name} must hold numbers",
            found=str(table.schema.field(bad[0]).type),
            cure="copy the file again",
        )
    row, column = (table.column(f"pxl_{axis}_in_fullres").to_numpy() for axis in ("row", "col"))
    columns = {c: table.column(c).to_numpy() for c in ("in_tissue", "array_row", "array_col")}
    return _Bins(table.column("barcode").cast(pa.string()).combine_chunks(), columns, (column, row))


def _is_number(pa: Any, kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _joined(barcodes: NDArray[np.str_], placed: Any) -> Rows:
    """For each barcode of the matrix its row in the positions file, -1 where it is not there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    n_repeated = len(placed) - pc.count_distinct(placed, mode="all").as_py()
    if n_repeated:
        raise _check.problem(
            "barcodes of the positions file must be unique", found=f"{n_repeated} repeated", cure="copy the file again"
        )
    rows = np.asarray(
        pc.fill_null(pc.index_in(pa.array(barcodes, type=pa.string()), value_set=placed), -1), dtype=np.intp
    )
    if not (rows >= 0).any():
        raise _spaceranger.strangers(barcodes[:1].tolist() * len(barcodes), placed.slice(0, 1).to_pylist())
    return rows


def _um_per_px(folder: Path, bins: _Bins, side: float, said: float | None) -> tuple[float, list[str]]:
    """Micrometres a pixel: the user's word, or ``microns_per_pixel`` where the lattice of the bins says the same."""
    row, column = (np.asarray(bins.columns[c]) for c in ("array_row", "array_col"))
    step = max(1, int(np.ceil(np.sqrt(len(row) / MAX_FITTED))))
    # every so many rows and columns of the slide, whatever the order of the file
    some = np.flatnonzero((row % step == 0) & (column % step == 0)) if step > 1 else np.arange(len(row))
    lattice = _lattice.square_um(column[some], row[some], side)
    found = _lattice.fit(lattice, np.column_stack([axis[some] for axis in bins.xy]).astype(np.float64))
    path = folder / "spatial" / _spaceranger.FACTORS
    stated = _spaceranger.scale_factors(path, ()).get("microns_per_pixel")
    if said is not None or stated is None:
        return _lattice.choose(found, said)
    if abs(stated / found.um_per_unit - 1) > MAX_DIFFERENCE:
        raise _check.problem(
            f"microns_per_pixel of {path.name} and the lattice of the bins disagree",
            found=f"{stated:g} and {found.um_per_unit:.6g} um a pixel for bins of {side:g} um",
            cure="copy spatial/ of the same section, or give --um-per-unit (um_per_unit=)",
        )
    return stated, _lattice.choose(found, None)[1]


def _cell_table(folder: Path, options: ReadOptions, name: str) -> AnnData:
    """Segmented cells at the centroids of their outlines, which are in pixels of the full-resolution image."""
    matrix, raw = _spaceranger.read_matrix(folder, _CELL_MATRIX)
    outlines = folder / "cell_segmentations.geojson"
    if not outlines.is_file():
        raise _check.problem(
            "the outlines of the cells are missing: cell_segmentations.geojson",
            found=_check.listed(sorted(p.name for p in folder.iterdir())),
            cure="copy it from Space Ranger's segmented_outputs/; the positions of the cells are taken from it",
        )
    um = options.um_per_unit or _microns_per_pixel(folder)
    vertices = _geojson.outlines(outlines, name=_cell_name)
    cells, centres, area = _cells.centroids(vertices.names, vertices.xy)
    adata = _cells.assemble(
        matrix.counts, matrix.barcodes.tolist(), np.where(matrix.names == "", matrix.ids, matrix.names).tolist(),
        cells, centres, um_per_unit=um, platform="visium_hd_cells", library=name, types=matrix.types.tolist(),
        gene_ids=matrix.ids.tolist(), obs={"cell_area_um2": area * um * um},
        files=("the matrix of cells", outlines.name),
    )  # fmt: skip
    _cells.warn_pieces(adata, vertices.n_repeated)
    if raw:
        _check.warn("only the raw matrix of the cells was found: it was used", adata)
    if options.outlines:
        _cells.add_outlines(adata, vertices.names, vertices.xy * um)
        nuclei = folder / "nucleus_segmentations.geojson"
        if not nuclei.is_file():
            _check.warn(f"there is no {nuclei.name}: the outlines of nuclei were not read", adata)
            return adata
        inner = _geojson.outlines(nuclei, name=_cell_name)
        _cells.warn_pieces(adata, inner.n_repeated)
        _cells.add_outlines(adata, inner.names, inner.xy * um, key=_keys.NUCLEI)
    return adata


def _cell_name(properties: dict[str, Any]) -> str:
    """Space Ranger 4 numbers outlines (``cell_id`` 17) and names the matrix's rows ``cellid_000000017-1``."""
    number = properties.get("cell_id")
    if isinstance(number, str) and not number.isdigit():
        return number
    return f"cellid_{int(number):09d}-1"  # type: ignore[arg-type]


def _microns_per_pixel(folder: Path) -> float:
    """From the cells' own scale factors, or those of any bins beside them: one image, one scale."""
    places = [folder, *sorted(folder.parent.glob("binned_outputs/square_*um"))]
    for place in places:
        path = place / "spatial" / _spaceranger.FACTORS
        factors = _spaceranger.scale_factors(path, ())
        um = factors.get("microns_per_pixel")
        if um is not None and not PLAUSIBLE_UM[0] < um < PLAUSIBLE_UM[1]:
            raise _check.problem(
                f"microns_per_pixel of {path.name} is no size of a pixel",
                found=f"{um:g}",
                cure="copy Space Ranger's own file, or give --um-per-unit (um_per_unit=)",
            )
        if um is not None:
            return um
    raise _check.problem(
        "microns_per_pixel is missing, so micrometres are not known",
        found=f"no such number in spatial/{_spaceranger.FACTORS}",
        cure="copy Space Ranger's own file, or give --um-per-unit (um_per_unit=)",
    )
