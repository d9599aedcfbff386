"""Slide-seq (versions 1 and 2) and its commercial form, Curio Seeker: beads 10 um wide, their counts and places."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from smeld import _check
from smeld.io import _cell_tables, _cells, _delimited, _pictures, _section, _wide
from smeld.io._platforms import ReadOptions, platforms
from smeld.io._wide import NamedCounts

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
BEAD_UM = 10.0
#: Slide-seq: pucks are photographed at 6,030 x 6,030 pixels (Stickels et al. 2021, Methods); beads 10 um wide that
#: touch lie 15.3 pixels apart (median over the nearest neighbours in a hippocampus puck), so a pixel is .65 um
SLIDESEQ_UM = 0.65
#: beads lie side by side where the middle half of the distances to the nearest bead spans at most this share of the
#: median (pucks: .12; places at random: .77)
MAX_SPREAD = 0.25
#: from the known pixel the beads' distance may differ by this share
MAX_DIFFERENCE = 0.2
#: tables of genes x beads, and sparse matrices with their names in files of their own
_TABLES = ("*MappedDGEForR.csv*", "*digital_expression.txt*")
_MATRICES = ("*MoleculesPerMatchedBead.mtx*", "*digital_expression_matrix.mtx*")
#: places by barcode; then places and barcodes, line by line
_PLACES = (
    "*BeadLocationsForR.csv*", "*MatchedBeadLocation.csv*", "*_barcode_xy.txt*", "barcode_matching/*_barcode_xy.txt*",
    "*_bead_locations.csv*", "*_barcode_matching.txt*", "barcode_matching/*_barcode_matching.txt*",
)  # fmt: skip
#: names of places that users of other platforms may also give are no sign of Slide-seq: the counts beside them are
_MARKS = (*_TABLES, *_MATRICES, *(p for p in _PLACES if "bead_locations" not in p))
_LINES = ("*matched_bead_locations.txt*", "*matched_bead_barcodes.txt*")


@dataclass(frozen=True)
class _Places:
    """``barcodes`` and ``xy`` [n, 2] of beads; ``curio``: written by Curio's software."""

    barcodes: list[str]
    xy: F64
    curio: bool


@platforms.add(
    "slideseq",
    marks=("|".join(_MARKS),),
    looks_for="a folder with MappedDGEForR.csv and BeadLocationsForR.csv (Slide-seq), or *_MoleculesPerMatchedBead.mtx"
    " and *_MatchedBeadLocation.csv (Curio Seeker)",
)
def slideseq(path: Path, options: ReadOptions) -> AnnData:
    """Beads 10 um wide of Slide-seq or Curio Seeker, counts joined with places by barcode.

    Micrometres: Slide-seq's pixels are .65 um; Curio's files do not name a unit, so it is taken from beads that touch,
    with a warning. ``*_cluster_assignment.txt`` gives ``obs["cluster"]``.
    """
    places = _places(path)
    beads, gene_ids = _counts(path)
    um_per_unit, messages = _unit(places, options.um_per_unit)
    adata = _cells.assemble(
        beads.counts, beads.rows, beads.columns, places.barcodes, places.xy, um_per_unit=um_per_unit,
        platform="curio" if places.curio else "slideseq", library=_section.library_name(path.name), unit="beads",
        gene_ids=gene_ids, diameter_um=BEAD_UM,
    )  # fmt: skip
    for message in messages:
        _check.warn(message, adata)
    _add_clusters(adata, path)
    if options.image is not None:
        entry = adata.uns["spatial"][_section.library_name(path.name)]
        _pictures.attach(adata, entry, options.image, options=options)
    return adata


def _counts(folder: Path) -> tuple[NamedCounts, list[str] | None]:
    """Beads x genes, and the genes' identifiers where their names stand beside them."""
    matrix = _cell_tables.one_file(folder, _MATRICES, "the matrix of counts", optional=True)
    if matrix is None:
        return _wide.named_counts(_cell_tables.needed_file(folder, _TABLES, "the table of counts")).transposed(), None
    barcodes = _cell_tables.needed_file(folder, ("*barcodes.tsv*",), "the barcodes of the matrix")
    genes = _cell_tables.needed_file(folder, ("*genes.tsv*", "*features.tsv*"), "the genes of the matrix")
    ids, symbols = _wide.names(genes), _wide.names(genes, 1)
    found = _wide.matrix_market(matrix, symbols, _wide.names(barcodes), sides="genes and beads")
    return found.transposed(), None if ids == symbols else ids


def _places(folder: Path) -> _Places:
    file = _cell_tables.one_file(folder, _PLACES, "the places of the beads", optional=True)
    if file is None:
        return _places_by_line(folder)
    frame = _delimited.table(file, header=None)
    # sequenced barcode, bead barcode, x, y: the bead stands once for each barcode that was read for it
    first = 1 if "barcode_matching" in file.name else 0
    if frame.shape[1] != first + 3:
        raise _check.problem(
            f"{file.name} must have the columns {'sequenced barcode, ' * first}barcode, x, y",
            found=f"{frame.shape[1]} columns: {_check.listed(frame.columns, 6)}",
            cure="give the platform's own file; a newer version may write others",
        )
    if first:
        frame = frame.drop_duplicates(subset=frame.columns[1])
    names, x, y = (str(c) for c in frame.columns[first:])
    xy = np.column_stack([_delimited.numeric(frame, c, where=file.name) for c in (x, y)])
    return _Places(frame[names].astype(str).str.strip().tolist(), xy, "MatchedBeadLocation" in file.name)


def _places_by_line(folder: Path) -> _Places:
    """``*_matched_bead_locations.txt`` (mismatches, x, y) names no beads: their barcodes stand, line by line, in the
    file that was written with it."""
    what = "the places of the beads"
    found = _cell_tables.one_file(folder, (_LINES[0],), what, optional=True)
    if found is None:
        found = _cell_tables.needed_file(folder, _PLACES, what)
    barcodes = _wide.names(_cell_tables.needed_file(folder, (_LINES[1],), "the barcodes of the places"))
    frame = _delimited.table(found, header=False)
    if frame.shape[1] != 3 or len(frame) != len(barcodes):
        raise _check.problem(
            f"{found.name} must have the columns mismatches, x, y and a line for each of the {len(barcodes)} barcodes",
            found=f"{len(frame)} lines, {frame.shape[1]} columns",
            cure="copy both files again, from one puck",
        )
    columns = [_delimited.numeric(frame, str(c), where=found.name) for c in frame.columns[1:]]
    return _Places(barcodes, np.column_stack(columns), False)


def _unit(places: _Places, said: float | None) -> tuple[float, list[str]]:
    """Micrometres per unit, the user's word first, and what the user should hear."""
    if said is not None:
        return said, []
    apart = _apart(places.xy)
    measured = None if apart is None else BEAD_UM / apart
    if not places.curio:
        if measured is None or abs(measured / SLIDESEQ_UM - 1) <= MAX_DIFFERENCE:
            return SLIDESEQ_UM, []
        why = f"Slide-seq's pixels are {SLIDESEQ_UM} um, but the beads lie {apart:.3g} apart"
    else:
        why = "the unit of Curio's coordinates is not stated"
    if measured is None:
        return 1.0, [_section.UNIT_UNKNOWN]
    return measured, [
        f"{why}: {measured:.3g} um per unit were taken from beads that touch, which are {BEAD_UM:g} um wide;"
        " give --um-per-unit (um_per_unit=) if you know it"
    ]


def _apart(xy: F64) -> float | None:
    """Distance of beads that touch, in units of the coordinates; None where most beads have no neighbour that does."""
    xy = np.unique(xy[np.isfinite(xy).all(axis=1)], axis=0)
    if len(xy) < 50:
        return None
    nearest = cKDTree(xy).query(xy, k=2)[0][:, 1]
    low, middle, high = np.percentile(nearest, [25, 50, 75])
    return float(middle) if high - low <= MAX_SPREAD * middle else None


def _add_clusters(adata: AnnData, folder: Path) -> None:
    import pandas as pd

    file = _cell_tables.one_file(folder, ("*_cluster_assignment.txt",), "clusters", optional=True)
    if file is None:
        return
    found = dict(zip(_wide.names(file), _wide.names(file, 1)))
    adata.obs["cluster"] = pd.Categorical([found.get(name) for name in adata.obs_names])
