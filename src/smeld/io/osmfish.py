"""osmFISH, and any other loom file of cells with positions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _delimited, _pictures, _section
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData

# Loom file format, version 3 (linnarssonlab): matrix [genes, cells], row_attrs, col_attrs. Columns of the osmFISH file:
# Codeluppi et al. 2018, osmFISH_SScortex_mouse_all_cells.loom.
_CELL = ("CellID", "obs_names", "cell_id", "CellId")
_GENE = ("Gene", "var_names", "gene", "GeneName")
_X, _Y = ("X", "x"), ("Y", "y")
#: cells that are dense at a time
_BLOCK_CELLS = 4096


@platforms.add(
    "osmfish",
    marks=("*.loom",),
    is_file=True,
    looks_for="a .loom file with col_attrs X, Y and CellID",
)
def osmfish(path: Path, options: ReadOptions) -> AnnData:
    """Cells of a loom file with positions in ``col_attrs``; further attributes of cells go to ``obs``.

    The osmFISH release gives positions in pixels and no size of them: 1 um is assumed, with a warning, unless
    ``options.um_per_unit`` says more.
    """
    import h5py

    file = _loom(path)
    try:
        with h5py.File(file, "r") as loom:
            missing = [n for n in ("matrix", "row_attrs", "col_attrs") if n not in loom]
            if missing:
                raise _check.problem(
                    f"{file.name} is no loom file: {_check.listed(missing)} missing",
                    found=_check.listed(loom),
                    cure="give a loom file of version 2 or 3",
                )
            return _table(loom, file, options)
    except _check.InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _check.problem(
            f"{file.name} cannot be read as a loom file",
            found=f"{_delimited.size_of(file)}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error


def _loom(path: Path) -> Path:
    if path.is_file():
        return path
    found = _cell_tables.visible(path, "*.loom")
    if len(found) != 1:
        raise _check.problem(
            f"one .loom file is needed in {path.name}",
            found=_check.listed([p.name for p in found], 3),
            cure="give the file itself",
        )
    return found[0]


def _table(loom: Any, file: Path, options: ReadOptions) -> AnnData:
    cells, genes = loom["col_attrs"], loom["row_attrs"]
    name, gene = _one(cells, _CELL, "col_attrs", file), _one(genes, _GENE, "row_attrs", file)
    axes = [_one(cells, axis, "col_attrs", file) for axis in (_X, _Y)]
    names = _values(cells[name]).astype(str)
    shape = (len(_values(genes[gene])), len(names))
    found = getattr(loom["matrix"], "shape", "that is a group")
    if found != shape:
        raise _check.problem(
            f"{file.name} does not fit together",
            found=f"a matrix {found} for {shape[0]} genes and {shape[1]} cells",
            cure="copy the file again",
        )
    obs: dict[str, ArrayLike] = {}
    for key in cells:
        is_column = getattr(cells[key], "shape", None) == (len(names),)  # a group has none
        values = _values(cells[key]) if is_column else None
        if key not in (name, *axes) and values is not None:
            obs[_section.library_name(key)] = values
    adata = _cells.assemble(
        _counts(loom["matrix"]), names.tolist(), _values(genes[gene]).astype(str).tolist(), names.tolist(),
        np.column_stack([np.asarray(cells[axis], dtype=np.float64) for axis in axes]),
        um_per_unit=options.um_per_unit or 1.0, platform="osmfish", library=_section.library_name(file.stem), obs=obs,
        files=(file.name, file.name),
    )  # fmt: skip
    if options.um_per_unit is None:
        _check.warn(_section.UNIT_UNKNOWN, adata)
    if "Valid" in obs and (n_invalid := int((np.asarray(obs["Valid"]) == 0).sum())):
        _check.warn(f'{n_invalid} cells that the authors left out (obs["Valid"] = 0) are among the cells read', adata)
    _pictures.attach_given(adata, options)
    return adata


def _one(group: Any, wanted: tuple[str, ...], where: str, file: Path) -> str:
    for name in wanted:
        if name in group:
            return name
    raise _check.problem(
        f"{file.name} lacks {where}/{wanted[0]}",
        found=f"{where} {_check.listed(group)}",
        cure="give a loom file with the positions of cells (col_attrs X, Y) and names (CellID, Gene)",
    )


def _values(data: Any) -> NDArray[Any]:
    """Numbers, or words as str."""
    values = np.asarray(data).reshape(-1)
    if values.dtype.kind in "biuf":
        return values
    words = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]
    return np.asarray(words, dtype=object)


def _counts(matrix: Any) -> sparse.csr_matrix:
    """[cells, genes] of a loom's [genes, cells], a block of cells at a time."""
    blocks = [
        sparse.csr_matrix(matrix[:, start : start + _BLOCK_CELLS].T.astype(np.float32))
        for start in range(0, matrix.shape[1], _BLOCK_CELLS)
    ]
    return sparse.vstack(blocks, format="csr")
