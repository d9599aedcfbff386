"""What Visium and Visium HD share: where Space Ranger's files lie, its matrices, scale factors and images."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.io import _cells, _matrix10x, _pictures, _section
from smeld.io._cells import EXPRESSION
from smeld.io._matrix10x import Matrix10x
from smeld.io._platforms import ReadOptions

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld._check import InputError

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
Rows = NDArray[np.intp]

FACTORS = "scalefactors_json.json"
#: numbers that only Visium HD has
HD_FACTORS = ("microns_per_pixel", "bin_size_um")
#: a folder of Visium HD bins; its number is their side in micrometres
BIN_FOLDER = re.compile(r"square_0*(\d+)um")
_IMAGE_TYPES = ("png", "jpg", "jpeg", "tif", "tiff", "btf")
#: folders that say nothing about which section they hold
_PLAIN_NAMES = re.compile(r"outs|binned_outputs|segmented_outputs|" + BIN_FOLDER.pattern)


def outs(path: Path) -> Path:
    """The folder with the matrix: ``path`` itself or its ``outs/``."""
    inner = path / "outs"
    here = (path / "spatial").is_dir() or any(path.glob("*_bc_matrix*"))
    return inner if inner.is_dir() and not here else path


def library(path: Path) -> str:
    """The section's name: that of the first folder upwards which is not one of Space Ranger's own."""
    named = next((p.name for p in (path, *path.parents) if p.name and not _PLAIN_NAMES.fullmatch(p.name)), path.name)
    return _section.library_name(named)


def holds_bins(folder: Path) -> bool:
    """True for a folder of Visium HD bins, also a renamed one: its scale factors say how wide a bin is."""
    if BIN_FOLDER.fullmatch(folder.name):
        return True
    try:
        content = json.loads((folder / "spatial" / FACTORS).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(content, Mapping) and HD_FACTORS[1] in content


def read_matrix(folder: Path, stem: str = "feature_bc_matrix") -> tuple[Matrix10x, bool]:
    """The matrix, filtered before raw and h5 before mtx, and whether it is the raw one."""
    for kind in ("filtered", "raw"):
        files = sorted(folder.glob(f"*{kind}_{stem}.h5"))
        if len(files) > 1:
            raise _check.problem(
                "cannot tell which matrix to read",
                found=_check.listed(f.name for f in files),
                cure="keep one section a folder",
            )
        inner = folder / f"{kind}_{stem}"
        if files or any(inner.glob("matrix.mtx*")):
            matrix = _matrix10x.read_h5(files[0]) if files else _matrix10x.read_mtx(inner)
            if not len(matrix.barcodes):
                raise _check.problem(
                    "the matrix is empty", found="0 barcodes", cure="give the matrix of a whole section"
                )
            return matrix, kind == "raw"
    inside = sorted(p.name for p in folder.iterdir())
    probes = "; *_probe_bc_matrix.h5 counts probes, not genes" if any("probe_bc" in n for n in inside) else ""
    raise _check.problem(
        f"no matrix of counts: filtered_{stem}.h5 (or its mtx folder, or the raw one)",
        found=_check.listed(inside) + probes,
        cure="copy the matrix from Space Ranger's outs/ into the folder",
    )


def strangers(counted: Sequence[str], placed: Sequence[str]) -> InputError:
    """The error for a matrix and a positions file without a barcode in common."""
    examples = [str(names[0])[:40] if len(names) else "nothing" for names in (counted, placed)]
    return _check.problem(
        "barcodes of the matrix and of the positions file do not match",
        found=f"none of {len(counted)} in common, such as {examples[0]} and {examples[1]}",
        cure="give matrix and spatial/ of the same section",
    )


def under_tissue(rows: Rows, in_tissue: F64, *, raw: bool, unit: str = "spot") -> Bool:
    """Which barcodes of a matrix to keep: those with a position, of a raw matrix those under the tissue."""
    keep: Bool = rows >= 0
    if raw:
        keep &= np.where(keep, in_tissue[rows] == 1, False)
        if not keep.any():
            raise _check.problem(
                f"no {unit} lies under tissue",
                found="in_tissue is 1 nowhere in the positions file",
                cure="give the filtered matrix",
            )
    return keep


def table(
    matrix: Matrix10x,
    keep: Bool,
    xy: F64,
    *,
    um_per_unit: float,
    obs: Mapping[str, NDArray[Any]],
    name: str,
    platform: str,
    spot_um: float,
) -> AnnData:
    """The AnnData of the kept barcodes at ``xy`` [n_kept, 2]; what is no gene goes to ``obsm``."""
    genes = matrix.types == EXPRESSION
    if not genes.any():
        kinds = _check.listed(sorted(set(matrix.types.tolist())))
        raise _check.problem(
            "the matrix holds no gene expression", found=f"features: {kinds}", cure="give the matrix of genes"
        )
    _section.check_xy(xy)
    # a slice is a copy: a whole slide of 2 um bins should not be held twice
    is_whole = bool(keep.all())
    kept = matrix.counts if is_whole else sparse.csr_matrix(matrix.counts[keep])
    counts = kept if genes.all() else sparse.csr_matrix(kept[:, genes])
    _adapt.check_counts(counts)
    symbols = np.where(matrix.names == "", matrix.ids, matrix.names)[genes]
    adata = _section.assemble(
        counts, xy, um_per_unit=um_per_unit, spots=(matrix.barcodes if is_whole else matrix.barcodes[keep]).tolist(),
        genes=symbols.tolist(), gene_ids=matrix.ids[genes].tolist(), obs=obs,
    )  # fmt: skip
    _section.add_library(adata, name, platform=platform, um_per_unit=um_per_unit, spot_um=spot_um)
    _cells.add_features(adata, kept, matrix.names.tolist(), matrix.types)
    return adata


def whole_numbers(columns: Mapping[str, NDArray[Any]], at: Rows) -> dict[str, NDArray[np.int64]]:
    """Columns of the positions file at the kept spots, as whole numbers."""
    found = {}
    for name, column in columns.items():
        values = column[at]
        if not np.isfinite(values).all():
            raise _check.problem(
                f"column {name!r} of the positions file must hold numbers",
                found="empty cells or NaN",
                cure="copy the file again",
            )
        found[name] = values.astype(np.int64)
    return found


def warn_dropped(adata: AnnData, *, n_strangers: int, raw: bool, unit: str = "spots") -> None:
    """Say how many barcodes have no position, and that the raw matrix was used."""
    if n_strangers:
        _check.warn(f"{n_strangers} barcodes of the matrix are not in the positions file: they were left out", adata)
    if raw:
        _check.warn(f"only the raw matrix was found: the {unit} under tissue (in_tissue = 1) were taken from it", adata)


def add_images(adata: AnnData, folder: Path, options: ReadOptions, *, name: str) -> None:
    """The hires and lowres images of ``folder/spatial``, and a full-resolution one where there is one."""
    entry = adata.uns[_keys.IMAGES][name]
    spatial = folder / "spatial"
    files = {k: found[0] for k in ("hires", "lowres") if (found := _images(spatial, f"tissue_{k}_image"))}
    entry["scalefactors"].update(scale_factors(spatial / FACTORS, tuple(f"tissue_{k}_scalef" for k in files)))
    _pictures.store(adata, entry, files, options=options)
    full = (
        [options.image]
        if options.image
        else _images(spatial, "tissue_fullres_image") + _images(folder, "tissue_fullres_image")
    )
    if full:
        _pictures.attach(adata, entry, full[0], options=options)
    elif options.image_scale is not None:
        _check.warn("image_scale is not used: the folder's images have their own scale factors", adata)


def _images(folder: Path, stem: str) -> list[Path]:
    return [p for kind in _IMAGE_TYPES if (p := folder / f"{stem}.{kind}").is_file()]


def scale_factors(path: Path, needed: tuple[str, ...]) -> dict[str, float]:
    """The numbers of a ``scalefactors_json.json``; every ``needed`` one must be there."""
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
    present = tuple(k for k in HD_FACTORS if k in content)
    return _pictures.check_factors(content, (*needed, *present), where=path.name)
