"""MERFISH tables: one csv with the positions of cells and their genes, as Moffitt et al. published it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _cell_tables, _cells, _pictures, _section, _sections
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData

# Moffitt et al. 2018, Science 362, eaau5324; table in Dryad, doi:10.5061/dryad.8t8s248: columns Cell_ID, Animal_ID,
# Animal_sex, Behavior, Bregma (mm), Cell_class, Neuron_cluster_ID, Centroid_X and Centroid_Y (um), then the genes and
# Blank_1 to Blank_5. Expression is divided by the volume of the cell; genes that an animal lacks are empty.
_ID = ("Cell_ID", "Cell_name", "cell_id")
_XY = ("Centroid_X", "Centroid_Y")
_SECTION = ("Animal_ID", "Bregma")
_WORDS = ("Animal_sex", "Behavior", "Cell_class", "Neuron_cluster_ID")
_FILES = "*[Mm][Ee][Rr][Ff][Ii][Ss][Hh]*.csv"


@platforms.add(
    "merfish",
    marks=(f"{_FILES}|{_FILES}.gz",),
    is_file=True,
    uses=("table",),
    looks_for="a *merfish*.csv with Cell_ID, Centroid_X, Centroid_Y and genes",
)
def merfish(path: Path, options: ReadOptions) -> AnnData:
    """Cells of a MERFISH table; positions are in micrometres.

    A table of several sections (animals and distances from bregma) needs ``options.table``: a section ("1/0.26"), an
    animal ("1") or "all". Writes ``obs["section"]`` for ``batch_key``, the classes of cells, and blank barcodes to
    ``obsm["blank"]``. Genes that were not measured in all the cells read are left out.
    """
    file = _csv(path)
    names = _cell_tables.header(file)
    id_column = next((n for n in _ID if n in names), "")
    missing = [n for n in (id_column or _ID[0], *_XY) if n not in names]
    if missing:
        raise _check.problem(
            f"{file.name} lacks the columns {_check.listed(missing)}",
            found=_check.listed(names, 12),
            cure="give a table with a cell a row; or counts.csv and coordinates.csv in a folder (platform tables)",
        )
    words = [n for n in (*_SECTION, *_WORDS) if n in names]
    wide = _cell_tables.wide_counts(file, ids=(id_column,), words=(*_XY, *words), gaps=True)
    sections = _sections.names(
        [wide.ids[n].fillna("").tolist() for n in _SECTION if n in names] or [[""] * len(wide.ids)]
    )
    mask = _sections.chosen(sections, options.table, where=file.name)
    ids, counts = wide.ids[mask].reset_index(drop=True), wide.counts[np.flatnonzero(mask)]
    read = [s for s, m in zip(sections, mask) if m]
    measured = _measured(counts, read, where=file.name)
    genes = [g for g, m in zip(wide.genes, measured) if m]
    cells = ids[id_column].tolist()
    obs: dict[str, ArrayLike] = {n: ids[n].fillna("").to_numpy(dtype=object) for n in words}
    if any(n in names for n in _SECTION):
        obs["section"] = np.asarray(read, dtype=object)
    adata = _cells.assemble(
        sparse.csr_matrix(counts[:, np.flatnonzero(measured)]), cells, genes, cells,
        np.column_stack([_cell_tables.numbers(ids, c, where=file.name) for c in _XY]),
        um_per_unit=options.um_per_unit or 1.0, platform="merfish",
        library=_section.library_name(file.name.removesuffix(".gz").removesuffix(".csv")), obs=obs,
        types=["Blank" if g.lower().startswith("blank") else _cells.EXPRESSION for g in genes],
        files=(file.name, file.name), notes=wide.notes,
    )  # fmt: skip
    _warn(adata, [g for g, m in zip(wide.genes, measured) if not m], sections=obs.get("section"))
    _pictures.attach_given(adata, options)
    return adata


def _csv(path: Path) -> Path:
    if path.is_file():
        return path
    found = [*_cell_tables.visible(path, "*.csv"), *_cell_tables.visible(path, "*.csv.gz")]
    if len(found) != 1:
        raise _check.problem(
            f"one table is needed in {path.name}",
            found=_check.listed([p.name for p in found], 3),
            cure="give the csv file itself",
        )
    return found[0]


def _measured(counts: sparse.csr_matrix, sections: Sequence[str], *, where: str) -> NDArray[np.bool_]:
    """Genes with a number in every cell; one that a section lacks must be empty in all its cells."""
    measured = np.ones(counts.shape[1], dtype=bool)
    names = np.asarray(sections, dtype=str)
    for section in np.unique(names):
        part = counts[np.flatnonzero(names == section)]
        n_empty = np.bincount(part.indices[np.isnan(part.data)], minlength=counts.shape[1])
        if ((n_empty > 0) & (n_empty < part.shape[0])).any():
            raise _check.problem(
                f"{where} has rows with empty cells",
                found=f"{int(n_empty[n_empty < part.shape[0]].max())} in a column of section {str(section)!r}",
                cure="copy the file again (it may be truncated)",
            )
        measured &= n_empty == 0
    return measured


def _warn(adata: AnnData, unmeasured: list[str], *, sections: ArrayLike | None) -> None:
    if unmeasured:
        _check.warn(
            f"{len(unmeasured)} genes were not measured in all the cells and were left out:"
            f" {_check.listed(unmeasured, 5)}",
            adata,
        )
    n_sections = 0 if sections is None else len(set(np.asarray(sections).tolist()))
    if n_sections > 1:
        _check.warn(f'{n_sections} sections lie on one another: give batch_key="section" to keep them apart', adata)
