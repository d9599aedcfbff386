"""10x Genomics Visium: a Space Ranger output folder, versions 1 to 4."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.io import _lattice, _matrix10x, _pictures, _positions, _section
from smeld.io._matrix10x import EXPRESSION, Matrix10x
from smeld.io._platforms import ReadOptions, platforms
from smeld.io._positions import Positions

if TYPE_CHECKING:
    from anndata import AnnData

_FACTORS = "scalefactors_json.json"
_IMAGE_TYPES = ("png", "jpg", "jpeg", "tif", "tiff", "btf")


@platforms.add(
    "visium",
    marks=(
        "spatial/tissue_positions*|outs/spatial/tissue_positions*|*feature_bc_matrix*|outs/*feature_bc_matrix*"
        "|*probe_bc_matrix.h5|outs/*probe_bc_matrix.h5|binned_outputs|outs/binned_outputs|square_0*um",
    ),
    looks_for="a Space Ranger folder with *_feature_bc_matrix.h5 and spatial/tissue_positions*",
)
def visium(path: Path, options: ReadOptions) -> AnnData:
    """Visium spots (55 um wide, 100 um apart), their counts and H&E images from a Space Ranger folder.

    Joined by barcode. Genes go to ``X`` and ``var["gene_ids"]``; antibodies to ``obsm["protein"]``. Writes
    ``obs["in_tissue"]``, ``obs["array_row"]``, ``obs["array_col"]``; micrometres come from the hexagonal
    lattice.
    """
    outs = _outs(path)
    _refuse_hd(outs)
    matrix, raw = _read_matrix(outs)
    if not len(matrix.barcodes):
        raise _check.problem("the matrix is empty", found="0 barcodes", cure="give the matrix of a whole section")
    positions = _positions.read(outs / "spatial")
    _section.refuse_repeated(matrix.barcodes.tolist(), "barcodes of the matrix")
    _section.refuse_repeated(positions.barcodes, "barcodes of the positions file")
    rows = _section.joined(matrix.barcodes.tolist(), positions.barcodes)
    _refuse_strangers(matrix, positions, rows)
    keep = rows >= 0
    if raw:
        keep &= np.where(keep, positions.in_tissue[rows] == 1, False)
        if not keep.any():
            raise _check.problem(
                "no spot lies under tissue",
                found="in_tissue is 1 nowhere in the positions file",
                cure="give the filtered matrix",
            )
    name = _library(path)
    adata = _table(matrix, positions, keep=keep, rows=rows, options=options, name=name)
    _warn_dropped(adata, n_strangers=int((rows < 0).sum()), raw=raw)
    _add_proteins(adata, matrix, keep)
    _add_images(adata, outs, options, name=name)
    return adata


def _outs(path: Path) -> Path:
    """The folder with the matrix: ``path`` itself or its ``outs/``."""
    inner = path / "outs"
    here = (path / "spatial").is_dir() or any(path.glob("*_bc_matrix*"))
    return inner if inner.is_dir() and not here else path


def _library(path: Path) -> str:
    return _section.library_name(path.parent.name if path.name == "outs" else path.name)


def _refuse_hd(outs: Path) -> None:
    signs = [n for n in ("binned_outputs", "segmented_outputs") if (outs / n).is_dir()]
    signs += [p.name for p in outs.glob("square_0*um")]
    if re.fullmatch(r"square_\d+um", outs.name):
        signs.append(outs.name)
    if signs:
        raise _check.problem(
            "Visium HD is not read yet",
            found=_check.listed(signs),
            cure="give a Visium section with 55 um spots, or a .h5ad of the bins",
        )


def _read_matrix(outs: Path) -> tuple[Matrix10x, bool]:
    """The matrix, filtered before raw and h5 before mtx, and whether it is the raw one."""
    for kind in ("filtered", "raw"):
        files = sorted(outs.glob(f"*{kind}_feature_bc_matrix.h5"))
        if len(files) > 1:
            raise _check.problem(
                "cannot tell which matrix to read",
                found=_check.listed(f.name for f in files),
                cure="keep one section a folder",
            )
        folder = outs / f"{kind}_feature_bc_matrix"
        if files:
            return _matrix10x.read_h5(files[0]), kind == "raw"
        if any(folder.glob("matrix.mtx*")):
            return _matrix10x.read_mtx(folder), kind == "raw"
    inside = sorted(p.name for p in outs.iterdir())
    probes = "; *_probe_bc_matrix.h5 counts probes, not genes" if any("probe_bc" in n for n in inside) else ""
    raise _check.problem(
        "no matrix of counts: filtered_feature_bc_matrix.h5 (or its mtx folder, or the raw one)",
        found=_check.listed(inside) + probes,
        cure="copy the matrix from Space Ranger's outs/ into the folder",
    )


def _refuse_strangers(matrix: Matrix10x, positions: Positions, rows: NDArray[np.intp]) -> None:
    if not (rows >= 0).any():
        examples = [_check.listed(names, 1).split(" and ")[0] for names in (matrix.barcodes, positions.barcodes)]
        raise _check.problem(
            "barcodes of the matrix and of the positions file do not match",
            found=f"none of {len(rows)} in common, such as {examples[0]} and {examples[1]}",
            cure="give matrix and spatial/ of the same section",
        )


def _table(
    matrix: Matrix10x,
    positions: Positions,
    *,
    keep: NDArray[np.bool_],
    rows: NDArray[np.intp],
    options: ReadOptions,
    name: str,
) -> AnnData:
    """The AnnData of the kept barcodes; the lattice is fitted on all positions, off the tissue too."""
    genes = matrix.types == EXPRESSION
    if not genes.any():
        kinds = _check.listed(sorted(set(matrix.types.tolist())))
        raise _check.problem(
            "the matrix holds no gene expression", found=f"features: {kinds}", cure="give the matrix of genes"
        )
    at = rows[keep]
    counts = matrix.counts[keep][:, genes]
    _adapt.check_counts(counts)
    lattice = _lattice.hexagonal_um(positions.array_row, positions.array_col)
    _section.check_xy(positions.xy[at])
    um_per_unit, messages = _lattice.choose(_lattice.fit(lattice, positions.xy), options.um_per_unit)
    symbols = np.where(matrix.names == "", matrix.ids, matrix.names)[genes]
    adata = _section.assemble(
        counts, positions.xy[at], um_per_unit=um_per_unit, spots=matrix.barcodes[keep].tolist(),
        genes=symbols.tolist(), gene_ids=matrix.ids[genes].tolist(), obs=_whole_numbers(positions, at),
    )  # fmt: skip
    _section.add_library(adata, name, platform="visium", um_per_unit=um_per_unit, spot_um=_lattice.VISIUM_SPOT_UM)
    for message in messages:
        _check.warn(message, adata)
    return adata


def _whole_numbers(positions: Positions, at: NDArray[np.intp]) -> dict[str, NDArray[np.int64]]:
    columns = {}
    for name in ("in_tissue", "array_row", "array_col"):
        values = getattr(positions, name)[at]
        if not np.isfinite(values).all():
            raise _check.problem(
                f"column {name!r} of the positions file must hold numbers",
                found="empty cells or NaN",
                cure="copy the file again",
            )
        columns[name] = values.astype(np.int64)
    return columns


def _warn_dropped(adata: AnnData, *, n_strangers: int, raw: bool) -> None:
    if n_strangers:
        _check.warn(f"{n_strangers} barcodes of the matrix are not in the positions file: they were left out", adata)
    if raw:
        _check.warn("only the raw matrix was found: the spots under tissue (in_tissue = 1) were taken from it", adata)


def _add_proteins(adata: AnnData, matrix: Matrix10x, keep: NDArray[np.bool_]) -> None:
    """Features that are no genes become labelled tables in ``obsm`` ("protein" for antibodies)."""
    import pandas as pd

    for kind in sorted(set(matrix.types.tolist()) - {EXPRESSION}):
        columns = matrix.types == kind
        key = "protein" if kind == "Antibody Capture" else _section.library_name(kind.lower().replace(" ", "_"))
        labels, _ = _section.unique_genes(pd.Index(matrix.names[columns], dtype=object))
        values = matrix.counts[keep][:, columns].toarray()
        adata.obsm[key] = pd.DataFrame(values, index=adata.obs_names, columns=labels)
        _check.warn(
            f"{int(columns.sum())} features of type {kind!r} are kept in obsm[{key!r}], apart from the genes",
            adata,
        )


def _add_images(adata: AnnData, outs: Path, options: ReadOptions, *, name: str) -> None:
    entry = adata.uns[_keys.IMAGES][name]
    spatial = outs / "spatial"
    files = {k: found[0] for k in ("hires", "lowres") if (found := _images(spatial, f"tissue_{k}_image"))}
    entry["scalefactors"].update(_scale_factors(spatial / _FACTORS, tuple(f"tissue_{k}_scalef" for k in files)))
    _pictures.store(adata, entry, files, options=options)
    full = (
        [options.image]
        if options.image
        else _images(spatial, "tissue_fullres_image") + _images(outs, "tissue_fullres_image")
    )
    if full:
        _pictures.attach(adata, entry, full[0], options=options)
    elif options.image_scale is not None:
        _check.warn("image_scale is not used: the folder's images have their own scale factors", adata)


def _images(folder: Path, stem: str) -> list[Path]:
    return [p for kind in _IMAGE_TYPES if (p := folder / f"{stem}.{kind}").is_file()]


def _scale_factors(path: Path, needed: tuple[str, ...]) -> dict[str, float]:
    if not path.is_file():
        if not needed:
            return {}
        raise _check.problem(
            f"spatial/{path.name} is missing",
            found="images whose scale it would give",
            cure="copy it from Space Ranger's spatial/",
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise _check.problem(
            f"{path.name} is not JSON", found=str(error)[:100], cure="copy Space Ranger's own file"
        ) from error
    if not isinstance(content, Mapping):
        raise _check.problem(
            f"{path.name} holds no scale factors",
            found=type(content).__name__,
            cure="copy Space Ranger's own file",
        )
    return _pictures.check_factors(content, needed, where=path.name)
