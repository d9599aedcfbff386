"""seqFISH: Spatial Genomics' tables of cells, and Lohoff et al.'s mouse embryos as csv."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _mosaics, _pictures, _section, _sections, _wide
from smeld.io._platforms import ReadOptions, platforms
from smeld.io._wide import NamedCounts

if TYPE_CHECKING:
    from anndata import AnnData

# Spatial Genomics, first release of data: <prefix>_CxG_section<k>.csv, <prefix>_CellCoordinates_section<k>.csv
# (label, area, center_x, center_y; pixels); gen 2: <region>_CellxGene.csv, <region>_CellCoordinates.csv. After
# spatialdata-io's reader (version 0.1.5) and SpatialExperimentIO, issue 3.
_COORDINATES = re.compile(r"(.*?)_?CellCoordinates_?(.*?)\.csv(\.gz)?")
_COUNTS = ("CxG", "CellxGene")
_XY = ("center_x", "center_y")
#: Lohoff et al. 2022: metadata with these positions, whose unit is not said
_EMBRYO_XY = ("x_global_affine", "y_global_affine")


@platforms.add(
    "seqfish",
    marks=("*CellCoordinates*.csv*|*_CxG*.csv*|*CellxGene*.csv*",),
    uses=("table",),
    looks_for="a folder with *_CxG_*.csv (or *_CellxGene.csv) and *_CellCoordinates*.csv",
)
def seqfish(path: Path, options: ReadOptions) -> AnnData:
    """Cells of one section, joined by label; with several sections ``options.table`` names one.

    Writes ``obs["cell_area_um2"]``. Micrometres come from the OME-XML of the DAPI image; without it 1 um a pixel is
    assumed, with a warning. Also (platform named) ``counts.csv`` and ``metadata.csv`` of Lohoff et al.'s embryos.
    """
    if not _cell_tables.visible(path, "*CellCoordinates*") and (path / "metadata.csv").is_file():
        return _embryo(path, options)
    section, places_file = _one_section(path, options.table)
    counts_file = _partner(path, places_file, section)
    wide = _cell_tables.wide_counts(counts_file, ids=("label",))
    cells = _cell_tables.table(places_file, needed=("label", *_XY), text=("label",))
    dapi = _dapi(path, places_file)
    um_per_px = options.um_per_unit or (_mosaics.ome_um_per_px(dapi) if dapi else None)
    obs: dict[str, ArrayLike] = {}
    if "area" in cells:
        obs["cell_area_um2"] = _cell_tables.numbers(cells, "area", where=places_file.name) * (um_per_px or 1.0) ** 2
    adata = _cells.assemble(
        wide.counts, wide.ids["label"].str.strip().tolist(), wide.genes, cells["label"].str.strip().tolist(),
        np.column_stack([_cell_tables.numbers(cells, c, where=places_file.name) for c in _XY]),
        um_per_unit=um_per_px or 1.0, platform="seqfish", library=_section.library_name(section), obs=obs,
        files=(counts_file.name, places_file.name), notes=wide.notes,
    )  # fmt: skip
    if um_per_px is None:
        _check.warn(_section.UNIT_UNKNOWN, adata)
    _pictures.attach_given(adata, options)
    if options.image is None and dapi is not None:
        _mosaics.attach(adata, dapi, options=options)
    return adata


def _one_section(path: Path, table: str | None) -> tuple[str, Path]:
    """(name, file of coordinates) of the section that is meant."""
    found = {}
    for file in _cell_tables.visible(path, "*CellCoordinates*.csv*"):
        match = _COORDINATES.fullmatch(file.name)
        if match:
            found["_".join(part for part in match.group(1, 2) if part) or path.name] = file
    if not found:
        raise _check.problem(
            "the table of positions not found: expected *_CellCoordinates*.csv",
            found=_check.listed(sorted(p.name for p in path.iterdir())),
            cure="copy it from the platform's output folder",
        )
    names = list(found)
    if table is not None:  # "section2" will do for "Run_section2"
        names = [n for n in names if n == table or n.endswith(f"_{table}")]
        if not names:
            raise _check.unknown("section", table, found)
    if len(names) > 1:
        raise _check.problem(
            f"{path.name} holds {len(names)} sections",
            found=_check.listed(names),
            cure=f"name one with --table (table=), such as {names[0]!r}",
        )
    return names[0], found[names[0]]


def _partner(path: Path, places: Path, section: str) -> Path:
    for kind in _COUNTS:
        file = places.with_name(places.name.replace("CellCoordinates", kind))
        if file.is_file():
            return file
    wanted = [places.name.replace("CellCoordinates", kind) for kind in _COUNTS]
    raise _check.problem(
        f"the table of counts of {section} not found: expected {' or '.join(wanted)}",
        found=_check.listed(sorted(p.name for p in path.iterdir())),
        cure="copy it from the platform's output folder",
    )


def _dapi(path: Path, places: Path) -> Path | None:
    stem = places.name.replace("CellCoordinates", "DAPI").removesuffix(".gz").removesuffix(".csv")
    return next((f for end in ("ome.tiff", "ome.tif", "tiff", "tif") if (f := path / f"{stem}.{end}").is_file()), None)


def _embryo(path: Path, options: ReadOptions) -> AnnData:
    """counts.csv (genes x cells, or cells x genes) and metadata.csv (uniqueID, embryo, z, positions, cell types)."""
    file = path / "metadata.csv"
    cells = _cell_tables.table(file, needed=("uniqueID", *_EMBRYO_XY), text=("uniqueID", "embryo", "z"))
    counts_file = _cell_tables.needed_file(path, ("counts.csv", "counts.csv.gz"), "the table of counts")
    known = set(cells["uniqueID"])
    counts = _counts(counts_file, known)
    keys = [c for c in ("embryo", "z") if c in cells] or ["embryo"]
    sections = _sections.names([cells[c].tolist() if c in cells else [""] * len(cells) for c in keys])
    mask = _sections.chosen(sections, options.table, where=file.name)
    meant = set(cells["uniqueID"][mask])
    keep = [i for i, name in enumerate(counts.rows) if name in meant or name not in known]
    cells = cells[mask].reset_index(drop=True)
    obs: dict[str, ArrayLike] = {"section": np.asarray([s for s, m in zip(sections, mask) if m], dtype=object)}
    for name in cells.columns:
        if "celltype" in name.lower():
            obs[_section.library_name(name)] = cells[name].fillna("").astype(str).to_numpy(dtype=object)
    adata = _cells.assemble(
        sparse.csr_matrix(counts.counts[keep]), [counts.rows[i] for i in keep], counts.columns,
        cells["uniqueID"].tolist(),
        np.column_stack([_cell_tables.numbers(cells, c, where=file.name) for c in _EMBRYO_XY]),
        um_per_unit=options.um_per_unit or 1.0, platform="seqfish", library=_section.library_name(path.name), obs=obs,
        files=(counts_file.name, file.name),
    )  # fmt: skip
    if options.um_per_unit is None:
        _check.warn(_section.UNIT_UNKNOWN, adata)
    return adata


def _counts(file: Path, cells: set[str]) -> NamedCounts:
    """Cells as rows, whichever way round the table is."""
    counts = _wide.named_counts(file)
    return counts if cells.intersection(counts.rows) else counts.transposed()
