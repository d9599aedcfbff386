"""10x Genomics Xenium: the output folder of Xenium Onboard Analysis 1.0 to 4.0, or of Xenium Ranger."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check, _keys
from smeld.io import (
    _alignment,
    _cell_tables,
    _cells,
    _delimited,
    _matrix10x,
    _pictures,
    _section,
    _transcripts,
    _xenium_zarr,
)
from smeld.io._cells import EXPRESSION
from smeld.io._platforms import ReadOptions, platforms

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

F64 = NDArray[np.float64]

#: the newest version of Xenium Onboard Analysis whose files are known
NEWEST = 4
#: transcripts of this quality and more are counted, as in the platform's own matrix (phred: 1 in 100 wrong)
MIN_QV = 20.0
#: names of "no cell" in tables of transcripts, by version
_NO_CELL = ("-1", "UNASSIGNED", "")
_RENAMED = {"cell_area": "cell_area_um2", "nucleus_area": "nucleus_area_um2"}
_KEPT = (
    "transcript_counts", "control_probe_counts", "genomic_control_counts", "control_codeword_counts",
    "unassigned_codeword_counts", "deprecated_codeword_counts", "total_counts", "segmentation_method", "z_level",
    "nucleus_count",
)  # fmt: skip
#: what the names of features that are no genes begin with, for sections without a matrix
_CONTROLS = (
    (("NegControlProbe", "antisense_"), "Negative Control Probe"),
    (("NegControlCodeword",), "Negative Control Codeword"),
    (("UnassignedCodeword", "BLANK_"), "Unassigned Codeword"),
    (("DeprecatedCodeword",), "Deprecated Codeword"),
    (("Intergenic_Region",), "Genomic Control"),
)
_HE_IMAGES = ("*he_image.ome.tif", "*he_image.ome.tiff", "*he_image.tif")
#: fluorescence, nuclei first: a folder from version 2 on, named channels from version 4 on
_FOCUS = (
    "morphology_focus/ch0000_*.ome.tif", "morphology_focus/morphology_focus_0000.ome.tif",
    "morphology_focus.ome.tif", "morphology_mip.ome.tif",
)  # fmt: skip


@dataclass(frozen=True)
class _Facts:
    """Of ``experiment.xenium``: ``um_per_px`` of its images, ``n_cells`` where said."""

    um_per_px: float = _alignment.XENIUM_UM_PER_PX
    n_cells: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Counts:
    """``counts`` CSR [n_cells, n_features] with the names of both sides."""

    counts: sparse.csr_matrix
    cells: list[str]
    genes: list[str]
    types: list[str]
    ids: list[str] | None = None
    notes: tuple[str, ...] = ()
    where: str = "cell_feature_matrix"


@dataclass(frozen=True)
class _Places:
    """``xy`` [n, 2] in micrometres of the ``cells``, and columns for ``obs``."""

    cells: list[str]
    xy: F64
    obs: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    where: str = ""


@platforms.add(
    "xenium",
    marks=(
        "experiment.xenium|outs/experiment.xenium|cell_feature_matrix*",
        "experiment.xenium|outs/experiment.xenium|cells.csv*|cells.parquet|cells.zarr*",
    ),
    uses=("outlines", "image_alignment"),
    looks_for="a Xenium folder with experiment.xenium, or cells.* and cell_feature_matrix*",
)
def xenium(path: Path, options: ReadOptions) -> AnnData:
    """Xenium cells: counts of high-quality transcripts at the centroids of the cells, in micrometres.

    Joined by ``cell_id``. Controls and proteins go to ``obsm`` by type; areas to ``obs["cell_area_um2"]``,
    ``obs["nucleus_area_um2"]``. Without a matrix counts are made of the transcripts (quality 20 and more), without
    ``cells.*`` positions of the outlines; both with a warning. The H&E image is used where its alignment lies beside
    it, else the fluorescence of the nuclei.
    """
    folder = path / "outs" if (path / "outs/experiment.xenium").is_file() else path
    facts, counts, places = _facts(folder), _counts(folder), _places(folder)
    name = _section.library_name(path.parent.name if path.name == "outs" else path.name)
    adata = _cells.assemble(
        counts.counts, counts.cells, counts.genes, places.cells, places.xy,
        um_per_unit=options.um_per_unit or 1.0, platform="xenium", library=name, types=counts.types,
        gene_ids=counts.ids, obs=places.obs, files=(counts.where, places.where),
    )  # fmt: skip
    _cells.refuse_foreign(adata, "transcript_counts", where=places.where)
    notes = [*facts.notes, *counts.notes, *places.notes]
    if facts.n_cells is not None and facts.n_cells != len(places.cells):
        notes.append(f"experiment.xenium speaks of {facts.n_cells} cells, but {len(places.cells)} were found")
    if options.um_per_unit not in (None, 1.0):
        notes.append(f"um_per_unit {options.um_per_unit:g} is used, though Xenium's coordinates are micrometres")
    for note in notes:
        _check.warn(note, adata)
    if options.outlines:
        _add_outlines(adata, folder, options.um_per_unit or 1.0)
    _add_image(adata, folder, facts, options, name=name)
    return adata


def _facts(folder: Path) -> _Facts:
    """Size of a pixel and version; sections without the file have pixels of the size that all versions have."""
    path = folder / "experiment.xenium"
    if not path.is_file():
        return _Facts()
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8-sig")))
        um, n = float(content.get("pixel_size", _alignment.XENIUM_UM_PER_PX)), content.get("num_cells")
        n_cells = None if n is None else int(n)
    except (OSError, ValueError, TypeError) as error:
        raise _check.problem(
            "experiment.xenium cannot be read",
            found=f"{_delimited.size_of(path)}, {type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated)",
        ) from error
    if not 0.01 < um < 100:
        raise _check.problem(
            "pixel_size of experiment.xenium must be micrometres", found=f"{um:g}", cure="copy the file again"
        )
    return _Facts(um, n_cells, _version_note(content))


def _version_note(content: Mapping[str, Any]) -> tuple[str, ...]:
    # Xenium Ranger, which segments anew, writes the files of its own version
    ranger = content.get("xenium_ranger")
    said = str((ranger if isinstance(ranger, Mapping) else {}).get("version") or content.get("analysis_sw_version", ""))
    match = re.search(r"(\d+)\.\d+", said)
    if match and int(match[1]) > NEWEST:
        return (f"version {said} is newer than what smeld knows ({NEWEST}): check counts and positions",)
    return ()


def _tables(stem: str) -> tuple[str, ...]:
    """Names of a table, parquet first where it can be read."""
    text = (f"{stem}.csv.gz", f"{stem}.csv")
    return (f"{stem}.parquet", *text) if find_spec("pyarrow") else (*text, f"{stem}.parquet")


def _found(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / n for n in names if (folder / n).exists()), None)


def _zarr(folder: Path, stem: str) -> Path | None:
    return _found(folder, (f"{stem}.zarr.zip", f"{stem}.zarr"))


def _counts(folder: Path) -> _Counts:
    h5, inner = folder / "cell_feature_matrix.h5", folder / "cell_feature_matrix"
    stored = _zarr(folder, "cell_feature_matrix")
    if h5.is_file():
        matrix = _matrix10x.read_h5(h5)
    elif any(inner.glob("matrix.mtx*")):
        matrix = _matrix10x.read_mtx(inner)
    elif stored is not None:
        matrix = _xenium_zarr.matrix(stored, _zarr(folder, "cells"))
    else:
        return _of_transcripts(folder)
    names = np.where(matrix.names == "", matrix.ids, matrix.names)
    return _Counts(matrix.counts, matrix.barcodes.tolist(), names.tolist(), matrix.types.tolist(), matrix.ids.tolist())


def _of_transcripts(folder: Path) -> _Counts:
    path = _found(folder, _tables("transcripts"))
    if path is None:
        inside = _check.listed(sorted(p.name for p in folder.iterdir()))
        packed = (folder / "cell_feature_matrix.tar.gz").is_file()
        raise _check.problem(
            "no matrix of counts: cell_feature_matrix.h5 (or its folder, or .zarr.zip), and no transcripts to count",
            found=inside,
            cure="unpack cell_feature_matrix.tar.gz" if packed else "copy it from Xenium's output folder",
        )
    found = _transcripts.count(
        path, cell="cell_id", gene="feature_name", more=("qv",), keep=lambda block: _is_counted(block, path.name)
    )
    note = f"there is no cell_feature_matrix: counts were made of {path.name} (quality {MIN_QV:g} and more)"
    return _Counts(
        found.counts, found.cells, found.genes, [_type(g) for g in found.genes], notes=(note,), where=path.name
    )


def _is_counted(block: pd.DataFrame, name: str) -> NDArray[np.bool_]:
    good = _cell_tables.numbers(block, "qv", where=name) >= MIN_QV
    return np.asarray(good & ~block["cell_id"].isin(_NO_CELL).to_numpy())


def _type(gene: str) -> str:
    return next((kind for beginnings, kind in _CONTROLS if gene.startswith(beginnings)), EXPRESSION)


def _places(folder: Path) -> _Places:
    import pandas as pd

    path = _found(folder, _tables("cells"))
    if path is not None:
        frame = _cell_tables.table(path, needed=("cell_id", "x_centroid", "y_centroid"), text=("cell_id",))
        xy = np.column_stack([_cell_tables.numbers(frame, f"{k}_centroid", where=path.name) for k in "xy"])
        return _Places(
            frame["cell_id"].tolist(), xy, _obs(lambda c: frame[c].to_numpy(), frame.columns), where=path.name
        )
    stored = _zarr(folder, "cells")
    if stored is not None:
        names, columns = _xenium_zarr.cells(stored)
        missing = [c for c in ("cell_centroid_x", "cell_centroid_y") if c not in columns]
        if missing:
            raise _check.problem(
                f"{stored.name} lacks the columns {_check.listed(missing)}",
                found=_check.listed(columns),
                cure="add cells.csv.gz or cells.parquet",
            )
        xy = np.column_stack([columns["cell_centroid_x"], columns["cell_centroid_y"]])
        return _Places(names, xy, _obs(columns.__getitem__, columns), where=stored.name)
    outlines = _found(folder, _tables("cell_boundaries"))
    if outlines is None:
        raise _check.problem(
            "no positions of the cells: expected cells.csv.gz, cells.parquet or cells.zarr.zip (or cell_boundaries.*)",
            found=_check.listed(sorted(p.name for p in folder.iterdir())),
            cure="copy it from Xenium's output folder",
        )
    owner, xy, _ = _vertices(outlines)
    whole, n_cells = _cells.first_pieces(pd.factorize(owner)[0])
    names, centres, area = _cells.centroids(owner[whole], xy[whole])
    notes = [f"there is no cells.*: positions and areas were taken from the outlines in {outlines.name}"]
    if n_cells:
        notes.append(f"{n_cells} cells of {outlines.name} have outlines in several pieces: the first one was taken")
    return _Places(names, centres, {"cell_area_um2": area}, tuple(notes), outlines.name)


def _obs(column: Callable[[str], Any], available: Any) -> dict[str, Any]:
    wanted = {c: _RENAMED.get(c, c) for c in (*_RENAMED, *_KEPT)}
    return {name: column(c) for c, name in wanted.items() if c in available}


def _vertices(path: Path) -> tuple[NDArray[Any], F64, int]:
    """(cell of each vertex, vertices [n, 2] in micrometres, number of outlines left out).

    From version 2 on a cell may have several nuclei, told apart by ``label_id``; the first of them stands for it.
    """
    needed = ("cell_id", "vertex_x", "vertex_y")
    frame = _cell_tables.table(path, needed=needed, text=("cell_id",), only=(*needed, "label_id"))
    n_left_out = 0
    if "label_id" in frame.columns:
        first = frame["label_id"] == frame.groupby("cell_id", sort=False)["label_id"].transform("first")
        n_left_out = int(frame["label_id"][~first].nunique())
        frame = frame[first]
    xy = np.column_stack([_cell_tables.numbers(frame, f"vertex_{k}", where=path.name) for k in "xy"])
    return frame["cell_id"].to_numpy(), xy, n_left_out


def _add_outlines(adata: AnnData, folder: Path, um: float) -> None:
    for stem, key, which in (
        ("cell_boundaries", _keys.OUTLINES, _xenium_zarr.CELL),
        ("nucleus_boundaries", _keys.NUCLEI, _xenium_zarr.NUCLEUS),
    ):
        path, stored = _found(folder, _tables(stem)), _zarr(folder, "cells")
        if path is not None:
            names, xy, n_left_out = _vertices(path)
            if n_left_out:
                _check.warn(f"{n_left_out} further nuclei of cells with several are not in their outlines", adata)
        elif stored is not None:
            names, xy = _xenium_zarr.outlines(stored, which)
        else:
            _check.warn(f"there is no {stem}.csv.gz or .parquet: those outlines were not read", adata)
            continue
        _cells.add_outlines(adata, names, xy * um, key=key)


def _add_image(adata: AnnData, folder: Path, facts: _Facts, options: ReadOptions, *, name: str) -> None:
    um = facts.um_per_px / (options.um_per_unit or 1.0)
    own = _alignment.to_image(np.eye(3), um)
    image = options.image
    alignment = options.image_alignment
    if image is None:
        image = _cell_tables.one_file(folder, _HE_IMAGES, "the H&E image", optional=True)
        if image is not None and (alignment := alignment or _beside(image)) is None:
            _check.warn(f"{image.name} has no alignment beside it (*_imagealignment.csv): it is not used", adata)
            image = None
    elif alignment is None:
        alignment = _beside(image)
        if alignment is None and options.image_scale is None and not image.name.startswith("morphology"):
            raise _check.problem(
                f"where image {image.name} lies on the section is not known",
                found="no *_imagealignment.csv beside it",
                cure="give --image-alignment (image_alignment=), as Xenium Explorer exports it, or --image-scale"
                " (image_scale=), pixels of the image a micrometre, where it needs no turning",
            )
    entry = adata.uns[_keys.IMAGES][name]
    if image is None:
        if options.image_alignment is not None:
            raise _check.problem(
                "image_alignment is given, but no image that it could be of",
                found=f"alignment {options.image_alignment.name}, and no *he_image.ome.tif in {folder.name}",
                cure="give the image too, with --image (image=)",
            )
        _add_fluorescence(adata, entry, folder, own, options)
        return
    if alignment is not None:
        own = _alignment.to_image(_alignment.read(alignment), um)
    is_scaled = alignment is None and options.image_scale is not None
    _pictures.attach(adata, entry, image, options=options, affine=None if is_scaled else own)


def _add_fluorescence(adata: AnnData, entry: dict[str, Any], folder: Path, affine: F64, options: ReadOptions) -> None:
    """The nuclei as a background; one that does not fit (cut out of another) or is broken does no harm."""
    image = next((found[0] for p in _FOCUS if (found := sorted(folder.glob(p)))), None)
    if image is None:
        return
    try:
        _pictures.attach(adata, entry, image, options=options, affine=affine)
    except _check.InputError as error:
        _check.warn(f"the background was left out: {error}", adata)


def _beside(image: Path) -> Path | None:
    """The alignment that Xenium's data sets have beside ``*_he_image.ome.tif``."""
    stem = re.sub(r"(\.ome)?\.[a-z]+$", "", image.name, flags=re.IGNORECASE)
    return _found(image.parent, (f"{stem}alignment.csv", f"{stem}_alignment.csv", f"{stem}alignment.json"))
