"""``sm.read``: recognise what lies in front of us, read it, and check what every later step relies on."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from smeld import _adapt, _backed, _check, _keys
from smeld._image import MAX_MEGAPIXELS
from smeld.io import _cells, _names, _on_disk, _section
from smeld.io._platforms import ReadOptions, platforms, rectangle, refuse_unused

if TYPE_CHECKING:
    from anndata import AnnData


def read(
    path: str | Path,
    platform: str | None = None,
    *,
    image_scale: float | None = None,
    um_per_unit: float | None = None,
    image: str | Path | None = None,
    max_megapixels: float = MAX_MEGAPIXELS,
    image_alignment: str | Path | None = None,
    resolution: str | None = None,
    table: str | None = None,
    outlines: bool = False,
    region_um: tuple[float, float, float, float] | None = None,
    backed: bool | str | Path = False,
) -> AnnData:
    """Read a section of any platform; its positions are known in micrometres afterwards.

    Parameters
    ----------
    path
        The output folder of a platform (docs/platforms.md lists them and the files each needs), a ``.h5ad`` with
        ``obsm["spatial"]``, a SpatialData ``.zarr``, or a folder with a table of counts and one of coordinates.
    platform
        A name in ``sm.io.platforms``; None or "auto" recognises it by the files found.
    image_scale
        Pixels of the image per unit of ``obsm["spatial"]``, for an image of another resolution than
        that of the coordinates. Default: 1 for full-resolution images, the folder's scale factors for
        Space Ranger's own.
    um_per_unit
        Micrometres per unit of ``obsm["spatial"]``. Default: from the spot lattice (Visium: 100 um between
        centres; legacy ST: 200 um); where there is none 1 is assumed, with a warning.
    image
        An H&E image (TIFF, PNG, JPEG) to use in place of the one beside the counts. Default: what lies there.
    max_megapixels
        Images with more pixels are refused. Default: 500, above any Visium scan we know of (100-400). Of images with
        tiles or reduced copies this bounds what is decoded at a time.
    image_alignment
        A file (csv, json) with the 3 x 3 matrix that takes pixels of ``image`` to units of ``obsm["spatial"]``; on
        Xenium to pixels of the section's DAPI image, as Xenium Explorer writes it. Default: on Xenium one beside the
        image whose name fits; else pixels times ``image_scale``.
    resolution
        Which bins or cells, of platforms that deliver several: Visium HD ``"2um"``, ``"8um"``, ``"16um"``, ``"cells"``;
        Stereo-seq ``"bin50"``, ``"cells"``; upper or lower case. Default: the platform's own advice (8 um; cells where
        there are any).
    table
        Which table, section or image, of files that hold several (SpatialData stores, tables of seqFISH and MERFISH).
    outlines
        Read the outlines of cells (and nuclei) into ``uns["cell_outlines"]``, where the platform delivers them.
    region_um
        x0, y0, x1, y1: cells and spots outside are left out.
    backed
        True: counts stay on disk, and ``X`` is a dask array of blocks of rows; quality control, fusion, domains,
        markers and interactions then need little more memory than their results. ``.h5ad`` and ``.zarr`` files with
        counts by rows are opened in place; what other platforms deliver is read once and put into a temporary store,
        or into one at the path that is given here. Needs ``smeld[cluster]``.

    Returns
    -------
    AnnData
        ``X`` counts [n_obs, n_vars], CSR float32, as delivered; ``obsm["spatial"]`` [n_obs, 2] x, y as
        delivered; ``obsm["spatial_um"]`` [n_obs, 2] micrometres, one factor times ``spatial``;
        ``uns["spatial"][section]`` images, scale factors (scanpy's form) and metadata; ``uns["smeld"]`` what
        was read, and warnings.
        A plug-in may also return a SpatialData whose table holds these.

    Raises
    ------
    InputError
        In one line, what is missing or wrong, what was found, and the cure. Also for an option that the platform has
        no use for.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.read("section/outs")  # doctest: +SKIP
    >>> adata.obsm["spatial_um"].shape  # doctest: +SKIP
    (3639, 2)
    """
    options = ReadOptions(
        image_scale,
        um_per_unit,
        None if image is None else _existing(image, "image"),
        max_megapixels,
        None if image_alignment is None else _existing(image_alignment, "alignment"),
        resolution.strip().lower() if isinstance(resolution, str) else resolution,
        table,
        outlines,
        None if region_um is None else rectangle(region_um),
        _wanted_backed(backed),
    )
    if platform not in (None, "auto"):
        card = platforms[str(platform)]
        where = _existing(path, "input")
    else:
        where = _existing(path, "input")
        card = platforms[_recognise(where)]
    if where.is_file() and not card.facts.get("is_file", False):
        raise _check.problem(
            f"{card.name} is read from a folder", found=f"the file {where.name}", cure=f"give {where.parent}"
        )
    refuse_unused(card.name, card.facts.get("uses", ()), options)
    data = card(where, options)
    if options.region_um is not None:
        data = _within(data, options.region_um)
    _finish(_adapt.table(data), card.name)
    if options.backed and not _backed.is_backed(_adapt.table(data).X):
        _on_disk.put_away(_adapt.table(data), None if backed is True else str(backed))
    params = {
        "image_scale": image_scale,
        "um_per_unit": um_per_unit,
        "image": image,
        "max_megapixels": max_megapixels,
        "image_alignment": image_alignment,
        "resolution": resolution,
        "table": table,
        "outlines": outlines,
        "region_um": options.region_um,
    }
    inputs = {"path": str(path), "platform": card.name}
    _keys.record(_adapt.table(data), "read", function="smeld.read", params=params, inputs=inputs)
    return data


def _wanted_backed(backed: Any) -> bool:
    if not isinstance(backed, bool | str | Path):
        raise _check.problem("backed must be True, False or a path", found=repr(backed)[:80], cure="give one of these")
    if backed is not False:
        _on_disk.require_dask()
    return backed is not False


def _within(data: Any, region_um: tuple[float, float, float, float]) -> AnnData:
    """The cells and spots in a rectangle, with their outlines."""
    adata = _adapt.table(data)
    if adata is not data:
        raise _check.problem("region_um is for tables", found="a SpatialData", cure="use its bounding_box_query")
    xy = np.asarray(adata.obsm[_keys.SPATIAL_UM])
    inside = np.asarray(((xy >= region_um[:2]) & (xy <= region_um[2:])).all(axis=1))
    if not inside.any():
        (x0, y0), (x1, y1) = xy.min(axis=0), xy.max(axis=0)
        raise _check.problem(
            "nothing lies in region_um",
            found=f"positions from {x0:.0f}, {y0:.0f} to {x1:.0f}, {y1:.0f} um",
            cure="give --region-um (region_um=) within these",
        )
    part = adata[inside].copy()
    for key in (_keys.OUTLINES, _keys.NUCLEI):
        if key in part.uns:
            _cells.keep_outlines(part, key, inside)
    return part


def _existing(path: str | Path, what: str) -> Path:
    found = Path(path).expanduser()
    if not found.exists():
        nearest = next((p for p in found.absolute().parents if p.exists()), Path("/"))
        raise _check.problem(f"{what} {path} does not exist", found=f"{nearest} exists", cure="check the path")
    if found.is_dir() and not any(found.iterdir()):
        raise _check.problem(f"{what} folder {path} is empty", cure="give the folder with the section's files")
    return found.resolve()


def _matches(path: Path, mark: str) -> bool:
    """Whether one of the mark's alternatives lies in the folder, or is the file itself."""
    patterns = mark.split("|")
    if path.is_dir():
        # hidden files, such as the ._* that macOS leaves beside every file, are no sign of anything
        return any(
            any(not p.name.startswith(".") or pattern.startswith(".") for p in path.glob(pattern))
            for pattern in patterns
        )
    return any(fnmatch(path.name, pattern) for pattern in patterns)


def _recognise(path: Path) -> str:
    """The one platform all of whose marks are found."""
    fitting = []
    for name, card in platforms.items():
        marks = card.facts.get("marks", ())
        # a folder that merely holds .h5ad files is not one section; a file is only taken by marks for files
        if marks and all(_matches(path, mark) for mark in marks) and _right_kind(path, card.facts):
            fitting.append(name)
    if len(fitting) > 1:  # names of plain tables are the weakest sign
        fitting = [name for name in fitting if not platforms[name].facts.get("generic", False)] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _check.problem(
            f"cannot tell which platform {path.name} is",
            found=f"signs of {_check.listed(fitting)}",
            cure="name it with --platform (platform=)",
        )
    raise _unrecognised(path)


def _right_kind(path: Path, facts: Any) -> bool:
    return path.is_dir() == (not facts.get("is_file", False))


def _is_section(file: Path) -> bool:
    """Whether a file is a section by itself, such as a .h5ad."""
    marks = [card.facts.get("marks", ()) for card in platforms.values() if card.facts.get("is_file", False)]
    return not file.name.startswith(".") and any(m and all(_matches(file, mark) for mark in m) for m in marks)


def _unrecognised(path: Path) -> _check.InputError:
    looks = "; ".join(
        f"{name}: {card.facts.get('looks_for') or ' and '.join(card.facts.get('marks', ()))}"
        for name, card in platforms.items()
    )
    if path.is_dir():
        inside = sorted(p.name + ("/" if p.is_dir() else "") for p in path.iterdir())
        files = [p.name for p in sorted(path.iterdir()) if p.is_file() and _is_section(p)]
        cure = (
            f"give the file itself, {path.name}/{files[0]}"
            if files
            else "give such a folder or file, or name it with --platform"
        )
        return _check.problem(
            f"{path.name} is no section that smeld knows ({looks})", found=_check.listed(inside), cure=cure
        )
    return _check.problem(
        f"{path.name} is no section that smeld knows ({looks})",
        found=f"a file of {path.stat().st_size} bytes",
        cure="give the folder it lies in",
    )


def _finish(adata: AnnData, platform: str) -> None:
    """What every platform, also a third party's, must deliver; and what the user should hear about it."""
    for key in (_keys.SPATIAL, _keys.SPATIAL_UM):
        _check.require(adata.obsm, key, "obsm", f"the reader {platform!r} must set it")
    _section.refuse_repeated(adata.obs_names.tolist(), "spot identifiers")
    _names.mend(adata)
    if not adata.var_names.is_unique:
        adata.var_names, n_repeated = _section.unique_genes(adata.var_names)
        _section.warn_repeated(adata, n_repeated)
    counts = _adapt.rows(adata)
    lazy = _backed.is_backed(adata.X)
    if not lazy and not (isinstance(adata.X, sparse.csr_matrix) and adata.X.dtype == np.float32):
        adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    xy = np.asarray(adata.obsm[_keys.SPATIAL_UM])
    if xy.dtype != np.float64 or xy.shape != (adata.n_obs, 2):
        raise _check.problem(
            f'obsm["spatial_um"] of the reader {platform!r} must be float64 [{adata.n_obs}, 2]',
            found=f"{xy.dtype} {list(xy.shape)}",
        )
    _section.check_xy(xy)
    if not _adapt.are_counts(counts):
        _check.warn(
            "X holds values that are not whole numbers, so they are no raw counts: they are used as they are;"
            " normalisation, markers and confidence assume counts and are approximate",
            adata,
        )
    if _adapt.image(adata, preview=True) is None:
        _check.warn("no image was found: morphology is left out", adata)
