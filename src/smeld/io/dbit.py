"""DBiT-seq and spatial CITE-seq: a square lattice of crossed channels, genes and perhaps proteins, as tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smeld import _check
from smeld.io import _cell_tables, _cells, _pictures, _section, _wide
from smeld.io._platforms import ReadOptions, platforms
from smeld.io._wide import NamedCounts

if TYPE_CHECKING:
    from anndata import AnnData

_ENDINGS = ("tsv.gz", "tsv", "csv.gz", "csv", "txt.gz", "txt")
_RNA = ("RNA", "rna", "mRNA")
_PROTEIN = ("protein", "proteins", "Protein", "ADT", "adt")
_SPOT = re.compile(r"^X?(\d+)x(\d+)$")
#: reads that no gene or protein was found for have a column of their own
_NO_FEATURE = ("unmapped", "no_feature")
_WIDTH = re.compile(r"(?<![\d.])(\d{1,3})[ _-]?(?:um|µm|μm|micron)", re.IGNORECASE)


def _patterns(stems: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"*_{stem}.{e}" for stem in stems for e in _ENDINGS) + tuple(
        f"{stem}.{e}" for stem in stems for e in _ENDINGS
    )


@platforms.add(
    "dbit",
    marks=("|".join(_patterns(_RNA)),),
    looks_for="a folder with *_RNA.tsv.gz, and perhaps *_protein.tsv.gz, whose spots are named 12x34 (DBiT-seq)",
)
def dbit(path: Path, options: ReadOptions) -> AnnData:
    """Spots where channels cross, named ``XxY``, with genes in ``X`` and proteins in ``obsm["protein"]``.

    ``obsm["spatial"]`` counts channels. ``options.um_per_unit`` is the distance of their middles; without it twice a
    channel width that stands in a name ("25um"): channels lie as far apart as they are wide (Liu et al. 2020).
    """
    file = _cell_tables.needed_file(path, _patterns(_RNA), "the table of genes")
    rna = _by_spot(file)
    protein_file = _cell_tables.one_file(path, _patterns(_PROTEIN), "the table of proteins", optional=True)
    xy = np.asarray([_place(name) for name in rna.rows], dtype=np.float64)
    um_per_unit, message = _pitch(path, file, options)
    adata = _cells.assemble(
        rna.counts, rna.rows, rna.columns, rna.rows, xy, um_per_unit=um_per_unit, platform="dbit",
        library=_section.library_name(path.name), unit="spots",
        obs={"array_row": xy[:, 1].astype(int), "array_col": xy[:, 0].astype(int)},
        diameter_um=um_per_unit / 2,
    )  # fmt: skip
    if message:
        _check.warn(message, adata)
    if protein_file is not None:
        _add_proteins(adata, _by_spot(protein_file), protein_file.name)
    if options.image is not None:
        entry = adata.uns["spatial"][_section.library_name(path.name)]
        _pictures.attach(adata, entry, options.image, options=options)
    return adata


def _by_spot(path: Path) -> NamedCounts:
    """Spots x features, whichever way the table lies."""
    found = _wide.named_counts(path)
    if not found.rows or _SPOT.match(found.rows[0]) is None:
        if not found.columns or _SPOT.match(found.columns[0]) is None:
            raise _check.problem(
                f"the spots of {path.name} must be named by their channels, such as 12x34",
                found=f"{_check.listed(found.rows, 2)} / {_check.listed(found.columns, 2)}",
                cure="give a table of spots x genes or genes x spots",
            )
        found = found.transposed()
    rows = ["x".join(str(k) for k in _place(name)) for name in found.rows]
    _section.refuse_repeated(rows, f"spots of {path.name}")
    kept = np.asarray([name not in _NO_FEATURE for name in found.columns])
    return NamedCounts(found.counts[:, kept], rows, [name for name, k in zip(found.columns, kept) if k])


def _place(name: str) -> tuple[int, int]:
    match = _SPOT.match(name)
    if match is None:
        raise _check.problem(
            "spots must be named by their channels, such as 12x34", found=repr(name[:40]), cure="mend the table"
        )
    return int(match[1]), int(match[2])


def _pitch(folder: Path, file: Path, options: ReadOptions) -> tuple[float, str | None]:
    """Micrometres between the middles of channels, and what the user should hear."""
    if options.um_per_unit is not None:
        return options.um_per_unit, None
    for text in (file.name, folder.name):
        match = _WIDTH.search(text)
        if match and int(match[1]) > 0:
            return 2.0 * int(match[1]), (
                f"{match[0]} in {text} is taken for the width of a channel, and channels for as far apart as they are"
                f" wide: {2 * int(match[1])} um from spot to spot; give --um-per-unit (um_per_unit=) if not"
            )
    return 1.0, f"{_section.UNIT_UNKNOWN}, the distance from spot to spot (20, 50 or 100 um in published sections)"


def _add_proteins(adata: AnnData, protein: NamedCounts, where: str) -> None:
    import pandas as pd

    at = _section.joined(adata.obs_names.tolist(), protein.rows)
    n_without = int((at < 0).sum())
    if n_without == adata.n_obs:
        raise _check.problem(
            f"spots of the genes and of {where} do not match",
            found=f"none of {adata.n_obs} in common, such as {adata.obs_names[0]} and {protein.rows[0]}",
            cure="give both tables of the same section",
        )
    values = protein.counts[np.maximum(at, 0)].toarray().astype(np.float64)
    values[at < 0] = np.nan
    labels, _ = _section.unique_genes(pd.Index(protein.columns, dtype=object))
    adata.obsm["protein"] = pd.DataFrame(values, index=adata.obs_names, columns=labels)
    _check.warn(f"{len(labels)} proteins are kept in obsm['protein'], apart from the genes", adata)
    if n_without:
        _check.warn(f"{n_without} spots have no proteins: their values are NaN", adata)
