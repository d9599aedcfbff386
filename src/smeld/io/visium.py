"""10x Genomics Visium: a Space Ranger output folder, versions 1 to 4."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from smeld import _check
from smeld.io import _lattice, _positions, _section, _spaceranger
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    from anndata import AnnData


@platforms.add(
    "visium",
    marks=(
        "spatial/tissue_positions*|outs/spatial/tissue_positions*|*feature_bc_matrix*|outs/*feature_bc_matrix*"
        "|*probe_bc_matrix.h5|outs/*probe_bc_matrix.h5",
    ),
    looks_for="a Space Ranger folder with *_feature_bc_matrix.h5 and spatial/tissue_positions*",
)
def visium(path: Path, options: ReadOptions) -> AnnData:
    """Visium spots (55 um wide, 100 um apart), their counts and H&E images from a Space Ranger folder.

    Joined by barcode. Genes go to ``X`` and ``var["gene_ids"]``; antibodies to ``obsm["protein"]``. Writes
    ``obs["in_tissue"]``, ``obs["array_row"]``, ``obs["array_col"]``; micrometres come from the hexagonal
    lattice. One folder of Visium HD bins is laid out in the same way: it is read as such.
    """
    outs = _spaceranger.outs(path)
    if _spaceranger.holds_bins(outs):
        from smeld.io.visium_hd import visium_hd

        return visium_hd(outs, options)
    matrix, raw = _spaceranger.read_matrix(outs)
    positions = _positions.read(outs / "spatial")
    _section.refuse_repeated(matrix.barcodes.tolist(), "barcodes of the matrix")
    _section.refuse_repeated(positions.barcodes, "barcodes of the positions file")
    rows = _section.joined(matrix.barcodes.tolist(), positions.barcodes)
    if not (rows >= 0).any():
        raise _spaceranger.strangers(matrix.barcodes.tolist(), positions.barcodes)
    keep = _spaceranger.under_tissue(rows, positions.in_tissue, raw=raw)
    # the lattice is fitted on all positions, off the tissue too
    lattice = _lattice.hexagonal_um(positions.array_row, positions.array_col)
    um_per_unit, messages = _lattice.choose(_lattice.fit(lattice, positions.xy), options.um_per_unit)
    columns = {c: getattr(positions, c) for c in ("in_tissue", "array_row", "array_col")}
    name, at = _spaceranger.library(path), rows[keep]
    adata = _spaceranger.table(
        matrix, keep, positions.xy[at], um_per_unit=um_per_unit, obs=_spaceranger.whole_numbers(columns, at),
        name=name, platform="visium", spot_um=_lattice.VISIUM_SPOT_UM,
    )  # fmt: skip
    for message in messages:
        _check.warn(message, adata)
    _spaceranger.warn_dropped(adata, n_strangers=int((rows < 0).sum()), raw=raw)
    _spaceranger.add_images(adata, outs, options, name=name)
    return adata
