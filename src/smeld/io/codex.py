"""Multiplexed imaging of proteins (CODEX/PhenoCycler, IMC, MIBI, CyCIF): a row a cell, its place and its markers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _mosaics, _pictures, _section, _wide
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

F64 = NDArray[np.float64]
#: names of columns as programs write them, lower case, without what is not a letter or digit
_ID = ("cellid", "objectid", "object", "objectnumber", "cell", "label", "cellidcellid", "id")
#: x and y, first that is there; then whether they are micrometres (QuPath writes the unit into the name)
_XY = (
    ("centroidxum", "centroidyum", True), ("xum", "yum", True), ("xcentroid", "ycentroid", False),
    ("centroid1", "centroid0", False), ("centroidx", "centroidy", False), ("xx", "yy", False), ("x", "y", False),
    ("xcenter", "ycenter", False), ("centerx", "centery", False), ("xposition", "yposition", False),
    ("locationcenterx", "locationcentery", False), ("posx", "posy", False),
)  # fmt: skip
#: several images or fields of view in one table have coordinates of their own
_IMAGE = ("image", "imageid", "imagename", "fov", "sampleid", "sample", "roi", "acquisition", "filename")
_AREA = ("area", "cellarea", "cellsize", "sizesize", "size", "areaum2", "cellareaum2")
#: shapes, places and clusters: numbers that no antibody made
_NO_MARKER = re.compile(
    r"^(?:(?:axis)?(?:major|minor)(?:axislength)?|axismajorlength|axisminorlength|eccentricity|solidity|extent|"
    r"orientation|perimeter\w*|convexarea|areaconvex|circularity|roundness|compactness|diameter\w*|equivalentdiameter|"
    r"bbox\w*|\w*centroid\w*|tile\w*|reg|region\w*|z|zz|zposition|zcenter|xtile|ytile|phenotype\w*|celltype\w*|"
    r"euler\w*|feret\w*|[xy](?:min|max)|nucleusarea|nucleus\w*area|edgedistance\w*|index|unnamed\w*|profile\w*|"
    r"parent|class\w*|name|timepoint|batch|patient\w*|donor\w*|age|row|col|column|width|height|filled\w*|areafilled|"
    r"numconcavities\w*|convexhullresid\w*|perimsquareoverarea\w*|ncratio|majoraxisequivdiamratio\w*|"
    r"\w*cluster(?!in(?!d))\w*|\w*umap\w*|tsne\w*|pca?\d+|leiden\w*|louvain\w*|phenograph\w*|flowsom\w*|kmeans\w*|"
    r"n?(?:counts?|genes)|ngenes\w*|ncounts?\w*|nfeatures\w*|totalcounts\w*|logcounts|\w*distance\w*|sample\w*|"
    r"niche\w*|neighbou?r\w*|community\w*|"
    r"(?:area|cellsize|size|label)nuclear|(?:major|minor)axislengthnuclear|eccentricitynuclear)$"
)
#: names that no column of a marker has
_TAKEN = {*_ID, *_IMAGE, *_AREA, *(name for x, y, _ in _XY for name in (x, y))}
#: tables are recognised by names that the programs or their users give; any other .csv could be anything
_FILES = (
    "*[Cc][Oo][Dd][Ee][Xx]*", "*[Pp]heno[Cc]ycler*", "*_compensated", "objects", "*--*", "*cell_table*",
    "*[Mm][Ii][Bb][Ii]*", "*[Ii][Mm][Cc]*", "*quantification*",
)  # fmt: skip
#: MCMICRO writes the markers between these two
_MCMICRO = ("CellID", "X_centroid")
_CODEX = re.compile(r"^cyc\d+_ch\d+[:_](?P<marker>.+)$", re.IGNORECASE)
#: an imaging mass cytometer ablates a square of 1 um (Giesen et al. 2014; steinbock works on its pixels)
IMC_UM = 1.0
#: panels have up to about 60 markers
MAX_LISTED = 60


@dataclass(frozen=True)
class _Table:
    """A row a cell: ``frame`` as delivered, columns by their short names."""

    frame: pd.DataFrame
    short: dict[str, str]
    where: str

    def column(self, wanted: Sequence[str]) -> str | None:
        return next((self.short[name] for name in wanted if name in self.short), None)


@platforms.add(
    "codex",
    uses=("table",),
    marks=("intensities/*.csv|quantification/*.csv", "regionprops/*.csv|quantification/*.csv"),
    looks_for="a folder of steinbock (intensities/, regionprops/) or MCMICRO (quantification/)",
)
def codex(path: Path, options: ReadOptions) -> AnnData:
    """Cells and markers from a folder of steinbock (IMC) or MCMICRO; ``options.table`` names the image of several.

    Intensities are no counts: they are kept as they are. Micrometres: steinbock's pixels are taken as 1 um; MCMICRO's
    pixel size stands in ``registration/*.ome.tif``.
    """
    folder = path / "quantification"
    if folder.is_dir():
        file = _named(folder, options.table)
        return _read(file, options, _pixel_size(path, file.name.split("--")[0]))
    return _steinbock(path, options)


@platforms.add(
    "codex_file",
    uses=("table",),
    marks=("|".join(f"{name}.csv{end}" for name in _FILES for end in ("", ".gz")),),
    is_file=True,
    looks_for="a .csv with a row a cell, its x and y and a column a marker: *codex*.csv, objects.csv (steinbock),"
    " *--*.csv (MCMICRO), *cell_table*.csv (MIBI), *imc*.csv",
)
def codex_file(path: Path, options: ReadOptions) -> AnnData:
    """A table with a row a cell: columns of x and y, of markers, and of shapes (which go to ``obs``).

    A table of another name than the usual ones is read with ``platform="codex_file"``.
    The unit of the coordinates is known where their names say it ("Centroid X um"), else give ``um_per_unit``.
    """
    return _read(path, options, None)


def _read(path: Path, options: ReadOptions, pixel_um: float | None) -> AnnData:
    found = _one_image(_table(path), options.table)
    return _assemble(found, options, pixel_um, _section.library_name(path.name.split(".")[0]))


def _table(path: Path, index: str | None = None) -> _Table:
    frame = _cell_tables.table(path, needed=() if index is None else (index,), text=() if index is None else (index,))
    _refuse_cut(path, frame)
    short: dict[str, str] = {}
    for column in frame.columns:
        short.setdefault(_short(column), str(column))
    return _Table(frame, short, path.name)


def _refuse_cut(path: Path, frame: pd.DataFrame) -> None:
    """A copy that was broken off ends in mid-row: the cells that are missing would be missed by nobody."""
    if path.suffix == ".parquet" or not frame.iloc[-1:, -1].isna().any():
        return
    with _cell_tables.readable(path):
        n_names, n_last = _wide.cells_of_ends(path, "\t" if ".tsv" in path.suffixes else ",")
        if n_last < n_names:
            raise ValueError(f"the last row has {n_last} cells for {n_names} names: the file ends too early")


def _short(name: object) -> str:
    text = re.sub(r"\(px\)|pixels?", "", str(name).lower().replace("µ", "u").replace("μ", "u").replace("^2", "2"))
    return re.sub(r"[^a-z0-9]", "", text)


def _one_image(found: _Table, wanted: str | None) -> _Table:
    column = found.column(_IMAGE)
    images = [] if column is None else sorted(set(found.frame[column].astype(str)))
    if column is None or (wanted is None and len(images) <= 1) or len(images) == len(found.frame):
        return found
    if wanted not in images:
        raise _check.problem(
            f"{found.where} holds {len(images)} images, and one at a time can be read"
            if wanted is None
            else f"there is no image {wanted!r} in {found.where}",
            found=f"{column}: {_check.listed(images, 6)}",
            cure="name one with --table (table=)",
        )
    kept = found.frame[found.frame[column].astype(str) == wanted].reset_index(drop=True)
    return _Table(kept, found.short, found.where)


def _named(folder: Path, wanted: str | None) -> Path:
    files = every = _cell_tables.visible(folder, "*.csv")
    if wanted is not None:
        files = [p for p in files if wanted in (p.name, p.stem, p.name.split("--")[0])]
    if len(files) == 1:
        return files[0]
    raise _check.problem(
        f"{folder.name}/ holds {len(files)} tables, and one at a time can be read"
        if wanted is None
        else f"there is no table {wanted!r} in {folder.name}/",
        found=_check.listed(p.stem for p in every),
        cure="name one with --table (table=)",
    )


def _steinbock(path: Path, options: ReadOptions) -> AnnData:
    """Intensities and shapes of one image, joined by ``Object``."""
    for needed in ("intensities", "regionprops"):
        if not _cell_tables.visible(path / needed, "*.csv"):
            raise _check.problem(
                f"{needed}/ with a table an image is missing",
                found=_check.listed(sorted(p.name for p in path.iterdir())),
                cure=f"run steinbock measure {needed}",
            )
    file = _named(path / "intensities", options.table)
    shapes_file = path / "regionprops" / file.name
    if not shapes_file.is_file():
        raise _check.problem(f"regionprops/{file.name} is missing", cure="run steinbock measure regionprops")
    markers, shapes = _of_steinbock(file), _of_steinbock(shapes_file)
    # a marker may be called as a shape is
    renamed = {c: f"{c} (shape)" for c in shapes.frame.columns if c != "Object" and c in markers.frame}
    frame = markers.frame.merge(shapes.frame.rename(columns=renamed), on="Object", how="outer", indicator=True)
    n_lost = int((frame["_merge"] != "both").sum())
    kept = frame[frame["_merge"] == "both"].drop(columns="_merge").reset_index(drop=True)
    if not len(kept):
        raise _check.problem(
            "cells of the intensities and of the shapes do not match",
            found="no Object in common",
            cure="give both tables of the same image",
        )
    of_shapes = {short: renamed.get(name, name) for short, name in shapes.short.items()}
    joined = _Table(kept, {**markers.short, **of_shapes}, file.name)
    is_marker = [c for c in markers.frame.columns if c != "Object"]
    adata = _assemble(joined, options, IMC_UM, _section.library_name(file.stem), is_marker)
    if n_lost:
        _check.warn(f"{n_lost} cells are in one of {file.name} and its shapes alone: they were left out", adata)
    if options.um_per_unit is None:
        _check.warn(
            f"steinbock's pixels were taken as {IMC_UM:g} um, as imaging mass cytometry has them; give --um-per-unit"
            " (um_per_unit=) if not",
            adata,
        )
    return adata


def _of_steinbock(file: Path) -> _Table:
    """A row an ``Object``; a saved index, which has no name, is dropped."""
    found = _table(file, "Object")
    _section.refuse_repeated(found.frame["Object"].tolist(), f"the Objects of {file.parent.name}/{file.name}")
    short = {key: name for key, name in found.short.items() if name}
    return _Table(found.frame.drop(columns="", errors="ignore"), short, file.name)


def _assemble(
    found: _Table, options: ReadOptions, pixel_um: float | None, library: str, markers: list[str] | None = None
) -> AnnData:
    x, y, in_um = _places(found)
    guessed = markers is None
    if markers is None:
        markers, guessed = _markers(found)
    ids = _ids(found)
    um_per_unit, message = options.um_per_unit or (1.0 if in_um else pixel_um), None
    if um_per_unit is None:
        um_per_unit, message = 1.0, _section.UNIT_UNKNOWN
    values = np.column_stack([_cell_tables.numbers(found.frame, c, where=found.where) for c in markers])
    values, messages = _not_negative(values)
    adata = _cells.assemble(
        sparse.csr_matrix(values, dtype=np.float32), ids, [_marker_name(c) for c in markers], ids,
        np.column_stack([_cell_tables.numbers(found.frame, c, where=found.where) for c in (x, y)]),
        um_per_unit=um_per_unit, platform="codex", library=library, obs=_obs(found, {x, y, *markers}),
    )  # fmt: skip
    area = found.column(_AREA)
    if area is not None and (message is None or "um2" in _short(area)):
        scale = 1.0 if in_um or "um2" in _short(area) else um_per_unit**2
        adata.obs["cell_area_um2"] = _cell_tables.numbers(found.frame, area, where=found.where) * scale
    if guessed:
        messages.append(f"columns of {found.where} that were taken for markers: {_check.listed(markers, MAX_LISTED)}")
    for text in (message, *messages):
        if text:
            _check.warn(text, adata)
    if options.image is not None:
        _pictures.attach(adata, next(iter(adata.uns["spatial"].values())), options.image, options=options)
    return adata


def _places(found: _Table) -> tuple[str, str, bool]:
    for x, y, in_um in _XY:
        if x in found.short and y in found.short:
            return found.short[x], found.short[y], in_um
    raise _check.problem(
        f"{found.where} has no columns with the cells' places, such as X_centroid and Y_centroid",
        found=_check.listed([str(c) for c in found.frame.columns], 12),
        cure="give a table with a row a cell, or rename the columns to x and y",
    )


def _ids(found: _Table) -> list[str]:
    """Identifiers of the cells; numbers 1, 2, ... where no column names them."""
    column = found.column(_ID) or (found.short.get("") if found.short.get("") in found.frame.columns else None)
    if column is None:
        return [str(i + 1) for i in range(len(found.frame))]
    values = found.frame[column].tolist()
    return [str(int(v)) if isinstance(v, float) and v.is_integer() else str(v) for v in values]


def _markers(found: _Table) -> tuple[list[str], bool]:
    """Columns of markers, and whether they were guessed: ``cyc001_ch002:CD4`` of the CODEX processor, what lies between
    the first columns and the places (MCMICRO), else every number that is no shape or place."""
    columns = [str(c) for c in found.frame.columns]
    of_codex = [c for c in columns if _CODEX.match(c)]
    if of_codex:
        return of_codex, False
    is_number = {c: found.frame[c].dtype.kind in "iuf" and found.frame[c].notna().any() for c in columns}
    markers = [c for c in columns if is_number[c] and _may_be_marker(_short(c))]
    first, last = _MCMICRO
    of_mcmicro = columns[columns.index(first) + 1 : columns.index(last)] if {first, last} <= set(columns) else []
    if markers:
        return markers, markers != of_mcmicro
    raise _check.problem(
        f"{found.where} has no columns of markers",
        found=_check.listed(columns, 12),
        cure="give the table of intensities",
    )


def _may_be_marker(short: str) -> bool:
    return short not in {"", *_TAKEN} and not _NO_MARKER.match(short)


def _marker_name(column: str) -> str:
    match = _CODEX.match(column)
    return match["marker"] if match else column


def _not_negative(values: F64) -> tuple[F64, list[str]]:
    """Background that was taken off leaves values below 0, which count as none."""
    messages = []
    if np.isnan(values).any():
        raise _check.problem(
            "intensities must be numbers",
            found=f"{int(np.isnan(values).any(axis=1).sum())} cells with empty ones",
            cure="remove those cells",
        )
    below = int((values < 0).sum())
    if below:
        messages.append(f"{below} intensities ({below / values.size:.1%}) below 0 were set to 0")
    return np.maximum(values, 0), messages


def _obs(found: _Table, used: set[str]) -> dict[str, Any]:
    """What is neither a place nor a marker."""
    dropped = used | {found.column(_ID) or "", found.short.get("", "")}
    return {
        _section.library_name(str(c)): found.frame[c].to_numpy()
        if found.frame[c].dtype.kind in "iufb"
        else found.frame[c].astype("string").fillna("").to_numpy(dtype=object)
        for c in found.frame.columns
        if str(c) not in dropped
    }


def _pixel_size(folder: Path, sample: str) -> float | None:
    """Micrometres per pixel of MCMICRO's registered image (OME-XML), None where there is none or it does not say."""
    images = _cell_tables.visible(folder, "registration/*.ome.tif*")
    images = [p for p in images if p.name.startswith(sample)] or images
    um = _mosaics.ome_um_per_px(images[0]) if len(images) == 1 else None
    # 1 um is what writers put where they do not know
    return None if um == 1.0 else um
