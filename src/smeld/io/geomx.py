"""GeoMx Digital Spatial Profiler: counts of areas of interest that a user drew, from the tables of an export."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _delimited, _pictures, _section, _wide
from smeld.io._platforms import ReadOptions, platforms
from smeld.io._wide import NamedCounts

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

_COUNTS, _SEGMENTS = "TargetCountMatrix", "SegmentProperties"
_ENDINGS = ("csv", "csv.gz", "tsv", "tsv.gz", "txt", "txt.gz")
_ID, _X, _Y, _AREA = "SegmentDisplayName", "ROICoordinateX", "ROICoordinateY", "AOISurfaceArea"
#: columns that name a slide, the first that is there
_SCANS = ("ScanLabel", "SlideName")
#: DSP names its negative controls so in every panel
_NEGATIVE = re.compile(r"^neg(?:ative)?[ _-]?prob", re.IGNORECASE)
#: properties that are kept, and their names in obs
_KEPT = {
    "ROILabel": "roi", "SegmentLabel": "segment", "AOINucleiCount": "n_nuclei", "SlideName": "slide",
    "ScanLabel": "scan",
}  # fmt: skip


@platforms.add(
    "geomx",
    uses=("table",),
    marks=("|".join(f"*{stem}*.{ending}" for stem in (_COUNTS, _SEGMENTS) for ending in _ENDINGS),),
    looks_for="a folder with TargetCountMatrix and SegmentProperties, as csv, tsv or txt (GeoMx DSP)",
)
def geomx(path: Path, options: ReadOptions) -> AnnData:
    """Areas of interest of one GeoMx scan, counts joined with their properties by ``SegmentDisplayName``.

    ``options.table`` names the scan where there are several. Negative probes go to ``obsm["negative_probe"]``. The
    export does not name the unit of the coordinates: give ``um_per_unit``.
    """
    counts_file = _cell_tables.needed_file(path, _patterns(_COUNTS), f"the counts, {_COUNTS}")
    segments_file = _cell_tables.needed_file(path, _patterns(_SEGMENTS), f"the segments, {_SEGMENTS}")
    segments = _delimited.table(segments_file)
    return _read(_wide.named_counts(counts_file), segments, segments_file.name, path.name, options)


@platforms.add(
    "geomx_file",
    uses=("table",),
    marks=("*.xlsx",),
    is_file=True,
    looks_for="the workbook that GeoMx DSP exports (needs openpyxl)",
)
def geomx_file(path: Path, options: ReadOptions) -> AnnData:
    """The workbook (.xlsx) that GeoMx DSP exports, with the sheets TargetCountMatrix and SegmentProperties."""
    sheets = _sheets(path)
    missing = [name for name in (_COUNTS, _SEGMENTS) if name not in sheets]
    if missing:
        raise _check.problem(
            f"{path.name} lacks the sheets {_check.listed(missing)}",
            found=_check.listed(sheets),
            cure="export the data set with target counts and segment properties",
        )
    counts, segments = sheets[_COUNTS], sheets[_SEGMENTS].astype(str)
    values = np.column_stack([_cell_tables.numbers(counts, c, where=_COUNTS) for c in counts.columns[1:]])
    found = NamedCounts(
        sparse.csr_matrix(values, dtype=np.float32),
        counts.iloc[:, 0].astype(str).tolist(),
        [str(c) for c in counts.columns[1:]],
    )
    return _read(found, segments, _SEGMENTS, path.stem, options)


def _patterns(stem: str) -> tuple[str, ...]:
    return tuple(f"*{stem}*.{ending}" for ending in _ENDINGS)


def _sheets(path: Path) -> dict[str, Any]:
    import pandas as pd

    if importlib.util.find_spec("openpyxl") is None:
        raise _check.problem(
            f"{path.name} needs the package openpyxl",
            cure=f"pip install openpyxl, or save the sheets {_COUNTS} and {_SEGMENTS} as csv and give their folder",
        )
    try:
        return dict(pd.read_excel(path, sheet_name=None, engine="openpyxl"))
    except Exception as error:  # openpyxl raises many kinds; all mean: not a readable workbook
        raise _check.problem(
            f"{path.name} cannot be read as a workbook",
            found=f"{path.stat().st_size} bytes, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error


def _read(targets: NamedCounts, segments: pd.DataFrame, where: str, name: str, options: ReadOptions) -> AnnData:
    missing = [c for c in (_ID, _X, _Y) if c not in segments.columns]
    if missing:
        raise _check.problem(
            f"{where} lacks the columns {_check.listed(missing)}",
            found=_check.listed(segments.columns, 8),
            cure="export the segment properties again, with the coordinates of the regions",
        )
    every_id = segments[_ID].astype(str).str.strip().tolist()
    segments = _one_scan(segments, where, options.table)
    xy = np.column_stack([_delimited.numeric(segments, c, where=where) for c in (_X, _Y)])
    obs = {new: segments[old].astype(str).to_numpy(dtype=object) for old, new in _KEPT.items() if old in segments}
    if _AREA in segments:  # um^2, as the export states
        obs["cell_area_um2"] = _delimited.numeric(segments, _AREA, where=where)
    if "n_nuclei" in obs:
        obs["n_nuclei"] = _delimited.numeric(segments, "AOINucleiCount", where=where)
    ids = segments[_ID].astype(str).str.strip().tolist()
    counted = _of_scan(targets.transposed(), ids, every_id, where)
    types = ["Negative Probe" if _NEGATIVE.match(target) else _cells.EXPRESSION for target in counted.columns]
    adata = _cells.assemble(
        counted.counts, counted.rows, counted.columns, ids, xy, um_per_unit=options.um_per_unit or 1.0,
        platform="geomx", library=_section.library_name(name), unit="segments", types=types, obs=obs,
    )  # fmt: skip
    if options.um_per_unit is None:
        _check.warn(_section.UNIT_UNKNOWN, adata)
    _warn_same_place(adata)
    if options.image is not None:
        _pictures.attach(adata, next(iter(adata.uns["spatial"].values())), options.image, options=options)
    return adata


def _one_scan(segments: pd.DataFrame, where: str, wanted: str | None) -> pd.DataFrame:
    """The segments of one slide: coordinates of different slides have nothing to do with each other."""
    column = next((c for c in _SCANS if c in segments.columns), None)
    scans = [] if column is None else sorted(set(segments[column].astype(str)))
    if wanted is None and len(scans) <= 1:
        return segments
    if wanted is None or column is None or wanted not in scans:
        raise _check.problem(
            f"{where} holds {len(scans)} scans, and one at a time can be read"
            if wanted is None
            else f"there is no scan {wanted!r}",
            found=_check.listed(scans),
            cure="name one with --table (table=)",
        )
    return segments[segments[column].astype(str) == wanted].reset_index(drop=True)


def _of_scan(counted: NamedCounts, ids: list[str], every_id: list[str], where: str) -> NamedCounts:
    """Without the segments of other scans, which are no loss; those that have no properties stay, to be warned of."""
    placed = np.isin(counted.rows, every_id)
    n_without = int((~placed).sum())
    if placed.any() and 2 * n_without > len(placed):
        lost = [name for name, there in zip(counted.rows, placed) if not there]
        raise _check.problem(
            f"most segments of the counts are not in {where}",
            found=f"{n_without} of {len(placed)} without properties: {_check.listed(lost, 3)}",
            cure="export counts and properties of the same segments",
        )
    kept = np.isin(counted.rows, ids) | ~placed
    return NamedCounts(counted.counts[kept], np.asarray(counted.rows, dtype=str)[kept].tolist(), counted.columns)


def _warn_same_place(adata: AnnData) -> None:
    n_places = len(np.unique(np.asarray(adata.obsm["spatial"]), axis=0))
    if n_places < adata.n_obs:
        _check.warn(
            f"{adata.n_obs - n_places} segments share the coordinates of another segment of their region: the export"
            " places regions, not segments",
            adata,
        )
