"""Stereo-seq: bins and cells of ``.gef`` files (HDF5), ``.gem`` text, and the folders of SAW that hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _gem, _pictures, _section
from smeld.io._gem import DEFAULT_BIN, Molecules, Rows
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
#: DNA nanoballs lie 500 nm apart (Chen et al. 2022); files state it as ``resolution``, in nm
PITCH_NM = 500.0
#: version of the layout that SAW 8 writes (geftools, ``version``)
NEWEST_VERSION = 4
#: end of an outline with fewer than 32 points (geftools: SHRT_MAX)
NO_POINT = 32767
_SUBFOLDERS = (
    "", "outs/feature_expression", "feature_expression", "GeneExpMatrix", "result/GeneExpMatrix",
    "041.cellcut", "04.tissuecut", "02.count",
)  # fmt: skip
_CELLS = ("*.adjusted.cellbin.gef", "*.cellbin.gef", "*cellcut*.gef")
_BINS = ("*.tissue.gef", "*.gef", "*.raw.gef", "*.gem.gz", "*.gem", "*.gem.txt")
_IMAGES = ("outs/image/*_regist.tif", "image/*_regist.tif", "03.register/*_regist.tif")


@platforms.add(
    "stereoseq",
    uses=("resolution", "outlines"),
    marks=("|".join(f"{folder}/*.ge[fm]*".lstrip("/") for folder in _SUBFOLDERS),),
    looks_for="SAW's output folder with *.tissue.gef or *.cellbin.gef (Stereo-seq)",
)
def stereoseq(path: Path, options: ReadOptions) -> AnnData:
    """Cells or bins of Stereo-seq from a folder of SAW: ``outs/`` of version 8, the numbered folders before it.

    ``options.resolution``: "cells" (the default where there are any) or "bin1" ... "bin200" (bin50).
    """
    wanted = _wanted(options)
    cells = None if isinstance(wanted, int) else _first(path, _CELLS)
    if cells is None and wanted == "cells":
        raise _missing(path, "cells", _CELLS)
    file = cells or _first(path, _BINS)
    if file is None:
        raise _missing(path, "bins", _BINS)
    adata = stereoseq_file(file, options)
    if file.name.endswith(".raw.gef"):
        _check.warn(f"only {file.name} was found: bins beside the tissue are in it too", adata)
    _add_image(adata, path, options)
    return adata


@platforms.add(
    "stereoseq_file",
    uses=("resolution", "outlines"),
    marks=("*.gef|*.gem|*.gem.gz|*.gem.txt",),
    is_file=True,
    looks_for="a .gef or .gem file of Stereo-seq",
)
def stereoseq_file(path: Path, options: ReadOptions) -> AnnData:
    """One ``.gef`` or ``.gem`` file of Stereo-seq.

    Positions are DNB coordinates (500 nm), bins at their centres. Bins that are not stored are summed from bin1.
    Cells bring ``obs["cell_area_um2"]`` and, with ``options.outlines``, their outlines.
    """
    wanted = _wanted(options)
    library = _section.library_name(path.name.split(".")[0])
    if ".gef" not in path.name:
        return _finish(_gem.read(path, wanted, options), options, library)
    with _gef(path) as file:
        if "cellBin" in file:
            if isinstance(wanted, int):
                raise _check.problem(
                    f"{path.name} holds cells, no bins", cure=f"give the .tissue.gef for bin{wanted}, or leave it out"
                )
            return _read_cells(file, path, options, library)
        if wanted == "cells":
            raise _check.problem(f"{path.name} holds bins, no cells", cure="give the .cellbin.gef")
        if "geneExp" not in file:
            raise _check.problem(
                f"{path.name} has neither the group geneExp nor cellBin",
                found=f"{_check.listed(file)}, version {_version(file)}",
                cure="give a .gef of SAW; a newer version may have another layout",
            )
        size = wanted if isinstance(wanted, int) else DEFAULT_BIN
        molecules = _bins(file, size, options)
        version = _version(file)
    adata = _finish(molecules, options, library)
    _warn_version(adata, path, version)
    return adata


def _wanted(options: ReadOptions) -> int | str | None:
    """A bin size, "cells", or None."""
    said = options.resolution
    if said is None or said == "cells":
        return said
    match = re.fullmatch(r"(?:bin)?([1-9]\d{0,3})", said)
    if match is None:
        raise _check.problem(f"unknown resolution {said!r}", cure='give "cells", or a bin size such as "bin50"')
    return int(match[1])


def _first(folder: Path, patterns: Sequence[str]) -> Path | None:
    """The file of the first pattern that fits anywhere; ``*.gef`` stands for bins, so that it takes no cells."""
    for pattern in patterns:
        for place in (folder / name for name in _SUBFOLDERS):
            found = [p for p in _cell_tables.visible(place, pattern) if ".protein." not in p.name]
            if pattern == "*.gef":
                found = [p for p in found if not re.search(r"cellbin|cellcut|\.raw\.gef$", p.name)]
            if pattern == "*.cellbin.gef":
                found = [p for p in found if ".adjusted." not in p.name]
            if len(found) > 1:
                raise _check.problem(
                    "cannot tell which file to read", found=_check.listed(p.name for p in found), cure="give one itself"
                )
            if found:
                return found[0]
    return None


def _missing(folder: Path, what: str, patterns: Sequence[str]) -> _check.InputError:
    files = [p for name in _SUBFOLDERS for p in _cell_tables.visible(folder / name, "*.ge[fm]*")]
    inside = sorted(p.relative_to(folder).as_posix() for p in files)
    return _check.problem(
        f"no file with {what}: expected {' or '.join(patterns[:3])}",
        found=_check.listed(inside or sorted(p.name for p in folder.iterdir())),
        cure="copy the file from SAW's outs/feature_expression, or leave out --resolution (resolution=)",
    )


@contextmanager
def _gef(path: Path) -> Iterator[Any]:
    import h5py

    with _cell_tables.readable(path), h5py.File(path, "r") as file:
        yield file


def _version(file: Any) -> int:
    return int(np.ravel(file.attrs.get("version", 0))[0])


def _warn_version(adata: AnnData, path: Path, version: int) -> None:
    if version > NEWEST_VERSION:
        _check.warn(
            f"{path.name} has version {version} of the format, newer than the {NEWEST_VERSION} that is known", adata
        )


def _um(attributes: Any, options: ReadOptions) -> float:
    nm = float(np.ravel(attributes.get("resolution", PITCH_NM))[0])
    return options.um_per_unit or (nm if nm > 0 else PITCH_NM) / 1000


def _text(values: Any) -> list[str]:
    return [v.decode("utf-8", "replace").rstrip("\0") if isinstance(v, bytes) else str(v) for v in values]


def _genes(dataset: Any, fields: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Names, and identifiers from version 4 on; before it there is one column."""
    kept = dataset.dtype.names or ()
    if "geneName" in kept and "geneID" in kept:
        return _text(dataset["geneName"]), _text(dataset["geneID"])
    for field in fields:
        if field in kept:
            return _text(dataset[field]), None
    raise _check.problem(f"the table of genes lacks {' or '.join(fields)}", found=_check.listed(kept))


def _bins(file: Any, size: int, options: ReadOptions) -> Molecules:
    stored = list(file["geneExp"])
    name = f"bin{size}"
    if name not in stored and "bin1" not in stored:
        raise _check.problem(f"{name} is not in the file", found=_check.listed(stored), cure="choose one of these")
    group = file["geneExp"][name if name in stored else "bin1"]
    genes = group["gene"][:]
    names, ids = _genes(genes, ("gene", "geneName", "geneID"))
    expression = group["expression"]
    if int(genes["count"].sum()) != len(expression):
        raise ValueError(f"{len(expression)} values for {int(genes['count'].sum())} that the genes say")
    number = np.repeat(np.arange(len(genes)), genes["count"].astype(np.int64))
    um = _um(expression.attrs, options)
    slices = _slices(expression, number, in_bins=name in stored and size > 1, size=size)
    return _gem.summed(slices, size=size, names=names, ids=ids, um_per_unit=um, region_um=options.region_um)


def _slices(expression: Any, gene: NDArray[np.int64], *, in_bins: bool, size: int) -> list[Callable[[], Rows]]:
    """Functions that read one stretch each; places of stored bins are DNB coordinates or, in older files, numbers of
    bins."""

    def read(start: int) -> Rows:
        rows = expression[start : start + _gem.BLOCK_ROWS]
        x, y = rows["x"].astype(np.int64), rows["y"].astype(np.int64)
        scale = size if numbered else 1
        return Rows(x * scale, y * scale, rows["count"].astype(np.float32), gene[start : start + len(rows)])

    numbered = False
    if in_bins:
        head = expression[: min(len(expression), 10_000)]
        numbered = bool((head["x"] % size).any() or (head["y"] % size).any())
    return [partial(read, start) for start in range(0, len(expression), _gem.BLOCK_ROWS)]


def _finish(found: Molecules, options: ReadOptions, library: str) -> AnnData:
    adata = _cells.assemble(
        found.counts, found.names, found.genes, found.names, found.xy, um_per_unit=found.um_per_unit,
        platform="stereoseq", library=library, unit="cells" if found.cells else "bins", gene_ids=found.gene_ids,
        diameter_um=None if found.cells else found.size * found.um_per_unit,
    )  # fmt: skip
    for note in found.notes:
        _check.warn(note, adata)
    if options.outlines:
        _check.warn("outlines are in .cellbin.gef files alone: none were read", adata)
    return adata


def _read_cells(file: Any, path: Path, options: ReadOptions, library: str) -> AnnData:
    group = file["cellBin"]
    for needed in ("cell", "gene", "cellExp"):
        if needed not in group:
            raise _check.problem(
                f"{path.name} lacks cellBin/{needed}", found=_check.listed(group), cure="give SAW's own .cellbin.gef"
            )
    cell = group["cell"][:]
    names, ids = _genes(group["gene"][:], ("geneName", "gene", "geneID"))
    um = _um(file.attrs, options)
    cells = [str(number) for number in cell["id"]]
    xy = np.column_stack([cell["x"], cell["y"]]).astype(np.float64)
    obs = {"cell_area_um2": cell["area"].astype(np.float64) * um**2} if "area" in (cell.dtype.names or ()) else {}
    adata = _cells.assemble(
        _cell_counts(group["cellExp"][:], cell, len(names)), cells, names, cells, xy, um_per_unit=um,
        platform="stereoseq", library=library, gene_ids=ids, obs=obs,
    )  # fmt: skip
    _warn_version(adata, path, _version(file))
    if options.outlines:
        _add_outlines(adata, group, cells, xy, um)
    return adata


def _cell_counts(values: Any, cell: Any, n_genes: int) -> sparse.csr_matrix:
    """CSR [n_cells, n_genes]; a cell's values are ``geneCount`` ones from ``offset`` on."""
    size, start = cell["geneCount"].astype(np.int64), cell["offset"].astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(size)])
    at = np.repeat(start - indptr[:-1], size) + np.arange(indptr[-1])
    if len(at) and (at.max() >= len(values) or values["geneID"].max() >= n_genes):
        raise ValueError(f"cells point at value {int(at.max())} of {len(values)}, or genes beyond {n_genes}")
    picked = values[at]
    counts = sparse.csr_matrix(
        (picked["count"].astype(np.float32), picked["geneID"].astype(np.int64), indptr), shape=(len(cell), n_genes)
    )
    counts.sum_duplicates()
    return counts


def _add_outlines(adata: AnnData, group: Any, cells: list[str], xy: F64, um: float) -> None:
    """``cellBorder`` [n_cells, 32, 2]: offsets from the centre, ended by 32767."""
    if "cellBorder" not in group:
        _check.warn("the file has no cellBorder: no outlines were read", adata)
        return
    border = group["cellBorder"][:].astype(np.int64)
    real = ~(border == NO_POINT).all(axis=2)
    row = np.repeat(np.arange(len(border)), real.sum(axis=1))
    _cells.add_outlines(adata, np.asarray(cells, dtype=str)[row], (border[real] + xy[row]) * um)


def _add_image(adata: AnnData, folder: Path, options: ReadOptions) -> None:
    """The image the user gives, or SAW's registered one, a pixel a DNB."""
    found = sorted(p for pattern in _IMAGES for p in _cell_tables.visible(folder, pattern))
    path = options.image or (found[0] if found else None)
    if path is None:
        return
    entry = next(iter(adata.uns["spatial"].values()))
    try:
        _pictures.attach(adata, entry, path, options=options)
    except _check.InputError as error:
        if options.image is not None:
            raise
        _check.warn(f"the image {path.name} was left out: {error}", adata)
