"""STARmap (2018) and STARmap PLUS (2023): tables of counts and the places of cells."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _delimited, _pictures, _section, _wide
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
# STARmap (Wang et al. 2018), starmapresources.com/data: cell_barcode_count.csv (cells x genes, no header),
# cell_barcode_names.csv (index, colour sequence, gene: the columns of the counts), genes.csv (gene, sequence),
# labels.npz (segmentation). centroids.tsv (y, x, no header) is what Seurat's LoadSTARmap takes beside them.
_COUNTS_2018 = "cell_barcode_count.csv"
#: labels of the segmentation that are cells have more and fewer pixels than these (weallen/STARmap, GetQHulls)
_CELL_PX = (1000, 100_000)
# STARmap PLUS (Shi et al. 2023, Nature 622, 552; zenodo 8327576): <well>raw_expression_pd.csv (genes x cells) and
# <well>_spatial.csv (NAME, X, Y, Z, annotations; the second line names types), in voxels of 194 x 194 x 345 nm.
_COUNTS_PLUS = ("*raw_expression_pd.csv", "*raw_expression_pd.csv.gz")
_PLACES_PLUS = ("*spatial.csv", "*spatial.csv.gz")
_PLUS_UM = 0.194


@platforms.add(
    "starmap",
    marks=(f"{_COUNTS_2018}|*raw_expression_pd.csv*",),
    looks_for="a folder with cell_barcode_count.csv and centroids.tsv (or labels.npz), or with *raw_expression_pd.csv"
    " and *spatial.csv",
)
def starmap(path: Path, options: ReadOptions) -> AnnData:
    """Cells of a STARmap section, or of a well of STARmap PLUS.

    STARmap PLUS is joined by name; X and Y are voxels of .194 um. The release of 2018 has no names: a cell is its row
    in the counts and in ``centroids.tsv``, whose numbers must agree; without that file places are the centres of
    ``labels.npz``. It says no unit: 1 um is assumed, with a warning, unless ``options.um_per_unit`` says more.
    """
    adata = _first_release(path, options) if (path / _COUNTS_2018).is_file() else _plus(path, options)
    _pictures.attach_given(adata, options)
    return adata


def _first_release(path: Path, options: ReadOptions) -> AnnData:
    counts = _unnamed_counts(path / _COUNTS_2018)
    genes = _gene_names(path)
    if len(genes) != counts.shape[1]:
        raise _check.problem(
            "the names of genes do not fit the counts",
            found=f"{len(genes)} names for {counts.shape[1]} columns of {_COUNTS_2018}",
            cure="give cell_barcode_names.csv of the same experiment",
        )
    xy, where = _centres(path, counts.shape[0])
    if len(xy) != counts.shape[0]:
        raise _check.problem(
            f"cells of {_COUNTS_2018} and of {where} do not match",
            found=f"{counts.shape[0]} rows of counts, {len(xy)} cells in {where}",
            cure="give both files of the same section",
        )
    cells = [f"cell_{i + 1}" for i in range(counts.shape[0])]
    adata = _cells.assemble(
        counts, cells, genes, cells, xy,
        um_per_unit=options.um_per_unit or 1.0, platform="starmap", library=_section.library_name(path.name),
        files=(_COUNTS_2018, where),
        notes=(f"cells of {_COUNTS_2018} and of {where} have no names: they were joined by their order",),
    )  # fmt: skip
    if options.um_per_unit is None:
        _check.warn(_section.UNIT_UNKNOWN, adata)
    return adata


def _unnamed_counts(path: Path) -> sparse.csr_matrix:
    import pandas as pd

    with _cell_tables.readable(path):
        reader = pd.read_csv(path, header=None, dtype=np.float32, chunksize=_cell_tables.BLOCK_ROWS)
        return sparse.vstack([sparse.csr_matrix(chunk.to_numpy()) for chunk in reader], format="csr")


def _gene_names(path: Path) -> list[str]:
    """The last column of cell_barcode_names.csv, which is in the order of the counts; genes.csv is in an order of its
    own."""
    import pandas as pd

    file = path / "cell_barcode_names.csv"
    if not file.is_file():
        raise _check.problem(
            "the genes of the columns of counts are not known: cell_barcode_names.csv is missing",
            found="genes.csv, whose order need not be that of the counts" if (path / "genes.csv").is_file() else None,
            cure="give cell_barcode_names.csv of the same experiment",
        )
    with _cell_tables.readable(file):
        names = pd.read_csv(file, header=None, dtype=str, keep_default_na=False)
        return [str(v).strip() for v in names.iloc[:, -1]]


def _centres(path: Path, n_cells: int) -> tuple[F64, str]:
    """x, y [n, 2] in pixels and the file they come from."""
    import pandas as pd

    file = _cell_tables.needed_file(path, ("centroids.tsv", "labels.npz"), "the places of cells")
    if file.name == "labels.npz":
        return _centres_of_labels(file, n_cells), file.name
    with _cell_tables.readable(file):
        yx = pd.read_csv(file, sep="\t", header=None, dtype=np.float64).to_numpy()
        if yx.shape[1] != 2:
            raise ValueError(f"{yx.shape[1]} columns; two are needed, y and x, without a header")
    return np.ascontiguousarray(yx[:, ::-1]), file.name


def _centres_of_labels(file: Path, n_cells: int) -> F64:
    """Centres of the labels that the authors' code takes for cells, in ascending order."""
    try:
        with np.load(file, allow_pickle=False) as content:  # a pickle could run code
            labels = np.asarray(content["labels"])
        if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size or labels.min() < 0:
            raise ValueError(f"labels of type {labels.dtype} and shape {labels.shape}")
        if labels.max() > labels.size:
            raise ValueError(f"label {labels.max()} in an image of {labels.size} pixels")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _check.problem(
            f"{file.name} cannot be read",
            found=f"{_delimited.size_of(file)}, {type(error).__name__}: {str(error)[:80]}",
            cure="copy the file again, or give centroids.tsv (y and x of every cell, tab between)",
        ) from error
    flat = labels.ravel().astype(np.int64)
    size = np.bincount(flat)
    is_cell = (size > _CELL_PX[0]) & (size < _CELL_PX[1])
    is_cell[0] = False  # background
    ids = np.flatnonzero(is_cell)
    if len(ids) == n_cells + 1 and ids[-1] == len(size) - 1:
        ids = ids[:-1]  # the authors' loop ends before the highest label
    height, width = labels.shape
    axes = (np.tile(np.arange(width), height), np.repeat(np.arange(height), width))
    return np.column_stack([np.bincount(flat, axis)[ids] / size[ids] for axis in axes])


def _plus(path: Path, options: ReadOptions) -> AnnData:
    counts_file = _cell_tables.needed_file(path, _COUNTS_PLUS, "the table of counts")
    places_file = _cell_tables.needed_file(path, _PLACES_PLUS, "the table of positions")
    where = places_file.name
    places = _cell_tables.table(places_file, needed=("NAME", "X", "Y"), text=("NAME",))
    places = places[places["NAME"] != "TYPE"].reset_index(drop=True)
    counts = _wide.named_counts(counts_file).transposed()
    obs: dict[str, ArrayLike] = {}
    for name in places.columns:
        if name == "Z":
            obs["z"] = _cell_tables.numbers(places, name, where=where)
        elif name not in ("NAME", "X", "Y", ""):
            obs[_section.library_name(name)] = places[name].fillna("").astype(str).to_numpy(dtype=object)
    return _cells.assemble(
        counts.counts, counts.rows, counts.columns, places["NAME"].tolist(),
        np.column_stack([_cell_tables.numbers(places, c, where=where) for c in ("X", "Y")]),
        um_per_unit=options.um_per_unit or _PLUS_UM, platform="starmap", library=_section.library_name(path.name),
        obs=obs, files=(counts_file.name, where),
    )  # fmt: skip
