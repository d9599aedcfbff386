"""What an AnnData that comes from a file of AnnData's own (h5ad, zarr) is checked for, and given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _backed, _check, _image, _keys
from smeld.io import _lattice, _pictures, _section
from smeld.io._platforms import ReadOptions

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
#: a lattice in the file is believed if its spots lie this close to it (real Visium: below 1 um)
_MAX_MISFIT_UM = 10.0


def finish(adata: AnnData, stem: str, platform: str, options: ReadOptions) -> AnnData:
    """Micrometres and the section's entry in ``uns["spatial"]``, for a table with ``obsm["spatial"]``.

    Micrometres, first of these: ``options.um_per_unit``; ``obsm["spatial_um"]`` of a file that smeld wrote;
    the Visium lattice in ``obs["array_row"]``, ``obs["array_col"]``; what stereopy (Stereo-seq) or spacemake (Open-ST)
    noted in ``uns``; else 1 is assumed, with a warning.
    """
    check_table(adata)
    xy = _positions(adata)
    adata.obsm[_keys.SPATIAL_UM] = xy * (um_per_unit := um_per_unit_of(adata, xy, options))
    entry = _section.add_library(adata, library_of(adata, stem), platform=platform, um_per_unit=um_per_unit)
    needed = tuple(f"tissue_{k}_scalef" for k in ("hires", "lowres") if k in entry["images"])
    entry["scalefactors"].update(_pictures.check_factors(entry["scalefactors"], needed, where='uns["spatial"]'))
    _check_image_file(adata, entry["metadata"], options)
    if options.image is not None:
        _pictures.attach(adata, entry, options.image, options=options)
    return adata


def check_table(adata: AnnData) -> None:
    """Refuse tables without rows and negative values; make the names of genes unique."""
    if not adata.n_obs:
        raise _check.problem(
            "at least 2 spots and 1 gene are needed",
            found=f"0 spots x {adata.n_vars} genes",
            cure="give the whole section",
        )
    first = adata.var_names[:2].astype(str).tolist()
    if len(first) > 1 and len(set(adata.var_names)) == 1:  # what a chunk that is missing from a zarr store reads as
        raise _check.problem(
            "the names of the genes are missing",
            found=f"{adata.n_vars} times {first[0]!r}",
            cure="copy the data again: files of it may be missing",
        )
    adata.var_names, n_repeated = _section.unique_genes(adata.var_names)
    _section.warn_repeated(adata, n_repeated)
    _refuse_negative(adata)


def _positions(adata: AnnData) -> F64:
    cure = 'store x, y in obsm["spatial"]'
    if _keys.SPATIAL not in adata.obsm:
        raise _check.problem('obsm["spatial"] is missing', found=f"obsm has {_check.listed(adata.obsm)}", cure=cure)
    try:
        xy = np.asarray(adata.obsm[_keys.SPATIAL], dtype=np.float64)
    except (TypeError, ValueError):
        raise _check.problem('obsm["spatial"] must hold numbers', found="words", cure=cure) from None
    if xy.ndim != 2 or xy.shape[1] < 2:
        raise _check.problem('obsm["spatial"] has too few columns', found=f"shape {xy.shape}", cure=cure)
    if xy.shape[1] > 2:
        _check.warn(f'obsm["spatial"] has {xy.shape[1]} columns: the first two are taken as x and y', adata)
    _section.check_xy(xy[:, :2])
    return np.ascontiguousarray(xy[:, :2])


def _refuse_negative(adata: AnnData) -> None:
    """Centred or scaled values cannot be analysed; where the file holds counts elsewhere, say where."""
    if adata.X is None:
        raise _check.problem(
            "the table has no matrix X",
            found=f"layers {_check.listed(adata.layers)}",
            cure="store the counts in X",
        )
    if _backed.is_backed(adata.X):  # looked through by blocks, once the section is read
        return
    values = adata.X.data if sparse.issparse(adata.X) else np.asarray(adata.X)
    if values.size and np.nanmin(values) < 0:
        places = [f"layers[{k!r}]" for k in adata.layers] + (["raw.X"] if adata.raw is not None else [])
        raise _check.problem(
            "counts cannot be negative",
            found=f"smallest value {np.nanmin(values):g} in X"
            + (f"; perhaps the counts are in {_check.listed(places, 3)}" if places else ""),
            cure="store raw counts in X",
        )


def um_per_unit_of(adata: AnnData, xy: F64, options: ReadOptions) -> float:
    if options.um_per_unit is not None:
        return options.um_per_unit
    if _keys.SPATIAL_UM in adata.obsm:
        return _factor(np.asarray(adata.obsm[_keys.SPATIAL_UM], dtype=np.float64), xy)
    if {"array_row", "array_col"} <= set(adata.obs.columns):
        found = _lattice_of(adata, xy)
        if found is not None:
            return found
    noted = _noted(adata)
    if noted is not None:
        return noted
    _check.warn(_section.UNIT_UNKNOWN, adata)
    return 1.0


def _noted(adata: AnnData) -> float | None:
    """Micrometres per unit that a platform's own software left in ``uns``: stereopy the pitch of Stereo-seq in nm,
    spacemake (Open-ST) the units per um of what it places."""
    if str(adata.uns.get("bin_type")) in ("bins", "cell_bins"):
        nm = _number(adata.uns.get("resolution"))
        return nm / 1000 if 0 < nm < 1e6 else None
    # openst keeps the notes of spacemake's tiles, but places cells in pixels of an image whose pixel size it leaves out
    if any(str(column).lower().startswith("cell_id") for column in adata.obs.columns):
        return None
    notes = [note for note in (adata.uns, *adata.uns.values()) if isinstance(note, Mapping)]
    pucks = [note["puck_variables"] for note in notes if isinstance(note.get("puck_variables"), Mapping)]
    per_um = [number for puck in pucks if (number := _number(puck.get("coord_by_um"))) > 0]
    return 1.0 / float(np.median(per_um)) if per_um else None


def _number(value: Any) -> float:
    """A number, or 0 where it is none."""
    try:
        return float(np.ravel(value)[0])
    except (TypeError, ValueError, IndexError):
        return 0.0


def _factor(um: F64, xy: F64) -> float:
    """The factor between ``spatial`` and the ``spatial_um`` that the file brings."""
    um = um[:, :2]
    _section.check_xy(um)
    factor = float((um * xy).sum() / max((xy * xy).sum(), 1e-300))
    if not factor > 0 or not np.allclose(xy * factor, um, rtol=1e-6, atol=1e-6 * float(np.abs(um).max())):
        raise _check.problem(
            'obsm["spatial_um"] does not follow from obsm["spatial"]',
            found="no one factor between the two",
            cure="give --um-per-unit (um_per_unit=)",
        )
    return factor


def _lattice_of(adata: AnnData, xy: F64) -> float | None:
    """Micrometres per unit if the file's rows and columns are Visium's hexagonal lattice, else None."""
    try:
        row, col = (adata.obs[c].to_numpy(dtype=np.float64) for c in ("array_row", "array_col"))
        found = _lattice.fit(_lattice.hexagonal_um(row, col), xy)
    except ValueError:  # words, or spots all in one place
        return None
    if found.rms_um > _MAX_MISFIT_UM or found.anisotropy > _lattice.MAX_ANISOTROPY or found.n_outliers > 0.05 * len(xy):
        return None
    return found.um_per_unit


def library_of(adata: AnnData, stem: str) -> str:
    """The one section's name; ``uns["spatial"]`` may hold other notes beside it (CELLxGENE's
    ``is_single``)."""
    stored: Any = adata.uns.get(_keys.IMAGES)
    if not isinstance(stored, Mapping):
        adata.uns[_keys.IMAGES] = stored = {}
    sections = [str(name) for name, entry in stored.items() if isinstance(entry, Mapping)]
    if len(sections) > 1:
        raise _check.problem(
            "one section at a time can be read",
            found=f"{len(sections)}: {_check.listed(sections)}",
            cure="split the file by section",
        )
    return sections[0] if sections else _section.library_name(stem)


def _check_image_file(adata: AnnData, meta: dict[str, Any], options: ReadOptions) -> None:
    """The file named in the metadata may be gone; the pixel limit is this user's, not the file's."""
    if _keys.META_IMAGE_PATH not in meta:
        return
    meta[_keys.META_MAX_MEGAPIXELS] = float(options.max_megapixels)
    if not _image.is_image(Path(str(meta[_keys.META_IMAGE_PATH]))):
        _check.warn(
            "the full-resolution image is not where it was: the stored one is used; give --image (image=)",
            adata,
        )
