"""A table of counts and a table of coordinates in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _delimited, _pictures, _section
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

F64 = NDArray[np.float64]
_ENDINGS = ("csv", "tsv", "txt", "csv.gz", "tsv.gz", "txt.gz")
_COUNTS = ("counts", "*_counts", "expression", "*_expression")
_PLACES = ("coordinates", "positions", "locations", "spatial", "coords")
#: names of the columns of x and y, first that fits; those of micrometres need no unit
_XY_UM = (("x_um", "y_um"),)
_XY = (
    ("x", "y"), ("pixel_x", "pixel_y"), ("x_pixel", "y_pixel"), ("pxl_col_in_fullres", "pxl_row_in_fullres"),
    ("imagecol", "imagerow"), ("x_centroid", "y_centroid"), ("center_x", "center_y"), ("xcoord", "ycoord"),
    ("x_coord", "y_coord"),
)  # fmt: skip


def _marks(stems: tuple[str, ...]) -> str:
    return "|".join(f"{stem}.{ending}" for stem in stems for ending in _ENDINGS)


@platforms.add(
    "tables",
    marks=(_marks(_COUNTS), _marks((*_PLACES, *(f"*_{p}" for p in _PLACES)))),
    generic=True,
    looks_for="a folder with a table of counts (counts.csv) and one of coordinates (coordinates.csv)",
)
def tables(path: Path, options: ReadOptions) -> AnnData:
    """Counts (spots x genes or genes x spots) joined by identifier with coordinates; csv or tsv, gzipped or
    not.

    The coordinates' columns may be named x, y (or x_um, y_um: micrometres); further columns go to ``obs``.
    The unit is ``options.um_per_unit``; without it 1 is assumed, with a warning.
    """
    counts = _delimited.matrix(_one(path, _COUNTS, "counts"))
    places_file = _one(path, (*_PLACES, *(f"*_{p}" for p in _PLACES)), "coordinates")
    places = _delimited.table(places_file, header=None)
    x, y = _xy_columns(places, places_file.name)
    xy = np.column_stack([_delimited.numeric(places, c, where=places_file.name) for c in (x, y)])
    ids, on_rows = _identifiers(places, counts, exclude=(x, y))
    names = places[ids].astype("string").fillna("").str.strip().tolist()
    _section.refuse_repeated(names, f"identifiers of {places_file.name}")
    spots, genes, values = _oriented(counts, on_rows=on_rows)
    _section.refuse_repeated(spots, "spots of the counts")
    rows = _section.joined(spots, names)
    keep = rows >= 0
    um_per_unit = options.um_per_unit or 1.0
    adata = _section.assemble(
        sparse.csr_matrix(values[keep]), xy[rows[keep]], um_per_unit=um_per_unit,
        spots=[s for s, k in zip(spots, keep) if k], genes=genes,
        obs=_obs(places, rows[keep], exclude=(ids, x, y)),
    )  # fmt: skip
    entry = _section.add_library(adata, _section.library_name(path.name), platform="tables", um_per_unit=um_per_unit)
    _warn(
        adata,
        unit_known=options.um_per_unit is not None or (x, y) in _XY_UM,
        n_left=int((~keep).sum()),
        n_missing=len(names) - int(keep.sum()),
    )
    if options.image is not None:
        _pictures.attach(adata, entry, options.image, options=options)
    return adata


def _one(folder: Path, stems: tuple[str, ...], what: str) -> Path:
    found = sorted({p for stem in stems for ending in _ENDINGS for p in folder.glob(f"{stem}.{ending}")})
    if len(found) != 1:
        raise _check.problem(
            f"one table of {what} is needed",
            found=_check.listed(p.name for p in found),
            cure=f"name it {what}.csv" if not found else "give each section a folder of its own",
        )
    return found[0]


def _xy_columns(places: pd.DataFrame, where: str) -> tuple[str, str]:
    if not places.attrs["header"]:
        if places.shape[1] != 3:
            raise _check.problem(
                f"{where} must have a header, or the three columns identifier, x, y",
                found=f"{places.shape[1]} columns",
                cure="name the columns in the first line",
            )
        return str(places.columns[1]), str(places.columns[2])
    by_lower = {str(c).lower(): str(c) for c in places.columns}
    for x, y in (*_XY_UM, *_XY):
        if x in by_lower and y in by_lower:
            return by_lower[x], by_lower[y]
    raise _check.problem(
        f"{where} has too few columns: x and y are missing",
        found=_check.listed(places.columns),
        cure="name the columns of positions x and y",
    )


def _identifiers(places: pd.DataFrame, counts: _delimited.NamedMatrix, *, exclude: tuple[str, str]) -> tuple[str, bool]:
    """The column of ``places`` that names spots, and whether spots are the rows of the counts: most matches
    win."""
    best: tuple[int, str, bool] = (0, "", True)
    for column in (c for c in places.columns if c not in exclude):
        names = set(places[column].dropna().str.strip())
        for on_rows, side in ((True, counts.rows), (False, counts.columns)):
            n_common = len(names.intersection(side))
            if n_common > best[0]:
                best = (n_common, str(column), on_rows)
    if not best[0]:
        first = places.columns[0]
        raise _check.problem(
            "identifiers of counts and coordinates do not match",
            found=f"{_check.listed(counts.rows, 2)} / {_check.listed(counts.columns, 2)} in the counts,"
            f" {_check.listed(places[first], 2)} in the coordinates",
            cure="use the same identifiers in both tables",
        )
    return best[1], best[2]


def _oriented(counts: _delimited.NamedMatrix, *, on_rows: bool) -> tuple[list[str], list[str], NDArray[np.float32]]:
    if on_rows:
        return [r.strip() for r in counts.rows], counts.columns, counts.values
    return counts.columns, counts.rows, counts.values.T


def _obs(places: pd.DataFrame, rows: NDArray[np.intp], *, exclude: tuple[str, ...]) -> dict[str, NDArray[np.object_]]:
    """Further named columns: numbers where all cells are numbers, else words."""
    import pandas as pd

    columns = {}
    for name in (c for c in places.columns if c not in exclude and places.attrs["header"] and str(c).strip()):
        text = places[name].iloc[rows]
        numbers = pd.to_numeric(text, errors="coerce")
        is_number = numbers.notna().all()
        columns[_section.library_name(str(name))] = (
            numbers.to_numpy() if is_number else text.fillna("").to_numpy(dtype=object)
        )
    return columns


def _warn(adata: AnnData, *, unit_known: bool, n_left: int, n_missing: int) -> None:
    if not unit_known:
        _check.warn(_section.UNIT_UNKNOWN, adata)
    if n_left:
        _check.warn(f"{n_left} spots with counts have no coordinates: they were left out", adata)
    if n_missing:
        _check.warn(f"{n_missing} positions have no counts: they were left out", adata)
