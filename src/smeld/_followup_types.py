"""``smeld annotate`` and ``smeld deconvolve``: cell types by a reference, on a stored result or on a section."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smeld import _check, _keys, morph, pipeline, tl
from smeld import _followup as shared
from smeld.io import _matrix10x, h5ad
from smeld.io._safe import replacing_folder
from smeld.tl._deconvolve import ABSENT, HIGH, LOW, PROPORTIONS, counts_key
from smeld.tl._niches import NICHE

if TYPE_CHECKING:
    from anndata import AnnData

    from smeld._followup import Say

#: tables of niches and of states in ``uns``
NICHE_TABLES = (
    *(f"{NICHE}_{name}" for name in ("composition", "enrichment", "selection", "states")),
    *(f"{NICHE}_state_{name}" for name in ("neighbors", "genes")),
)
#: words of ``--spatial`` as the task takes them
SPATIAL: dict[str, Any] = {"auto": "auto", "yes": True, "no": False}
TABLES, MATRICES = ("*.csv", "*.tsv", "*.csv.gz", "*.tsv.gz"), ("matrix.mtx", "matrix.mtx.gz")
REFERENCE = "an .h5ad with raw counts and labels, a table with a row a cell, or a folder with either or with 10x files"


@dataclass(frozen=True)
class AnnotateSettings:
    """Settings of ``smeld annotate``: those of ``sm.tl.annotate`` with paths for ``reference`` and ``markers``, and
    ``niches``, ``n_niches`` for ``sm.tl.niches``."""

    reference: str | None = None
    label: str = _keys.CELL_TYPE
    markers: str | None = None
    spatial: str = "auto"
    unknown: bool = True
    level: float = 0.9
    layer: str | None = None
    reference_layer: str | None = None
    batch_key: str | None = None
    niches: bool = False
    n_niches: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class DeconvolveSettings:
    """Settings of ``smeld deconvolve``: those of ``sm.tl.deconvolve``, and niches as in :class:`AnnotateSettings`.
    ``nuclei``: True counts them first, False does without; None counts where the section has no counts and an image
    that shows nuclei."""

    reference: str
    label: str = _keys.CELL_TYPE
    layer: str | None = None
    reference_layer: str | None = None
    of: str = "cells"
    composition: str = "estimate"
    n_cells: str | None = None
    nuclei: bool | None = None
    reach: int | None = None
    level: float = 0.9
    niches: bool = False
    n_niches: int | None = None
    seed: int = 0


def annotate(result: Path, out: Path, settings: AnnotateSettings, *, say: Say = lambda message: None) -> Path:
    """Name the cells of a section; the folder ``out`` holds it all and appears when everything is complete."""
    stored, adata = shared.read_result(result, out, say, any_section=True)
    if settings.spatial not in SPATIAL:
        raise _check.unknown("--spatial", settings.spatial, list(SPATIAL))
    reference, markers = (None if path is None else Path(path) for path in (settings.reference, settings.markers))
    given = None if reference is None else read_reference(reference, settings.label, adata)
    listed = None if markers is None else _markers(markers)
    with replacing_folder(out, known=shared.WRITTEN, marker=shared.ANNOTATED) as temporary:
        say("naming cells")
        found = tl.annotate(
            adata,
            given,
            settings.label,
            markers=listed,
            spatial=SPATIAL[settings.spatial],
            unknown=settings.unknown,
            level=settings.level,
            layer=settings.layer,
            reference_layer=settings.reference_layer,
            batch_key=settings.batch_key,
            seed=settings.seed,
        )
        _niches(adata, settings, settings.batch_key, say)
        say("writing tables, figures and report")
        tables = {"cell_types": _cell_table(adata, found), "cell_type_probabilities": _by_name(adata, found.prob)}
        tables |= _niche_tables(adata)
        inputs = {stored.name: stored, **_inputs({"--reference": reference, "--markers": markers})}
        shared.write_folder(adata, temporary, settings, inputs, shared.ANNOTATED, tables)
    return out / pipeline.REPORT


def deconvolve(result: Path, out: Path, settings: DeconvolveSettings, *, say: Say = lambda message: None) -> Path:
    """Estimate how much of each cell type the spots hold; ``out`` as with :func:`annotate`."""
    stored, adata = shared.read_result(result, out, say, any_section=True)
    reference = read_reference(Path(settings.reference), settings.label, adata)
    with replacing_folder(out, known=shared.WRITTEN, marker=shared.DECONVOLVED) as temporary:
        _count_nuclei(adata, settings.nuclei, say)
        say("proportions of cell types")
        found = tl.deconvolve(
            adata,
            reference,
            settings.label,
            layer=settings.layer,
            reference_layer=settings.reference_layer,
            of=settings.of,  # type: ignore[arg-type]  # checked there
            composition=settings.composition,  # type: ignore[arg-type]  # checked there
            n_cells=settings.n_cells,
            nuclei=None if settings.nuclei is False else _keys.N_NUCLEI,
            reach=settings.reach,
            level=settings.level,
            seed=settings.seed,
        )
        _niches(adata, settings, None, say)
        say("writing tables, figures and report")
        keys = [PROPORTIONS + suffix for suffix in ("", LOW, HIGH, ABSENT)]
        keys += [counts_key(PROPORTIONS) + suffix for suffix in ("", LOW, HIGH)]
        frames = {key: adata.obsm[key] for key in keys if key in adata.obsm}
        tables = {name: _by_name(adata, frame) for name, frame in frames.items()}
        tables["platform_shifts"] = found.platform.rename_axis("gene").reset_index()
        tables |= _niche_tables(adata)
        inputs = {stored.name: stored, **_inputs({"--reference": Path(settings.reference)})}
        shared.write_folder(adata, temporary, settings, inputs, shared.DECONVOLVED, tables)
    return out / pipeline.REPORT


def _count_nuclei(adata: AnnData, wanted: bool | None, say: Say) -> None:
    """Nuclei under each spot; where nobody asked for them, only of an image that shows them."""
    if wanted is False or (wanted is None and (_keys.N_NUCLEI in adata.obs or _keys.IMAGES not in adata.uns)):
        return
    say("nuclei")
    try:
        morph.nuclei(adata)
    except _check.InputError as error:
        if wanted:
            raise
        say(f"nuclei are not counted: {error}")


def _inputs(given: dict[str, Path | None]) -> dict[str, Path]:
    return {name: path for name, path in given.items() if path is not None}


def _niches(adata: AnnData, settings: Any, batch_key: str | None, say: Say) -> None:
    """Niches where they are asked for; states of single types only where cells have one type each."""
    if not settings.niches:
        if settings.n_niches is not None:
            raise _check.problem("no niches were asked for", found="--n-niches alone", cure="give --niches, too")
        return
    say("niches")
    tl.niches(adata, _keys.CELL_TYPE, n_niches=settings.n_niches, batch_key=batch_key, seed=settings.seed)
    if PROPORTIONS not in adata.obsm:
        say("states of types by niche")
        tl.niche_states(adata, layer=settings.layer, seed=settings.seed)


# ------------------------------------------------------------------------------------------------- what is read


def read_reference(path: Path, label: str, section: AnnData) -> Any:
    """A reference from disk, as ``sm.tl.annotate`` and ``sm.tl.deconvolve`` take it.

    Parameters
    ----------
    path
        An ``.h5ad``; a table (csv, tsv, gzipped or not) with a row a cell, the column ``label`` and a column a gene; or
        a folder with a ``result.h5ad``, with one ``.h5ad``, or with 10x files (matrix.mtx, barcodes.tsv, features.tsv)
        and one table with names of cells in its first column and the column ``label``.
    label
        Column with the cell types.
    section
        The section that it is for: of 10x files it says whether genes go by identifier or by name.

    Returns
    -------
    AnnData or DataFrame, not checked any further.

    Raises
    ------
    InputError
        If the file is missing, cannot be read, or is none of these.
    """
    if not path.exists():
        raise _check.problem("the reference is missing", found=f"no {path.name} there", cure=f"give {REFERENCE}")
    if path.is_dir():
        return _from_folder(path, label, section)
    if path.suffix == ".h5ad":
        return h5ad._load(path, False)
    if any(path.match(pattern) for pattern in (*TABLES, "*.txt")):
        return shared.read_frame(path, "the reference", f"give {REFERENCE}", dtype={label: str}, low_memory=False)
    raise _check.problem("the reference has an ending that is not known", found=path.name, cure=f"give {REFERENCE}")


def _from_folder(folder: Path, label: str, section: AnnData) -> Any:
    stored = folder / pipeline.RESULT
    files = [stored] if stored.is_file() else sorted(folder.glob("*.h5ad"))
    if len(files) == 1:
        return h5ad._load(files[0], False)
    if not any((folder / name).is_file() for name in MATRICES):
        here = _check.listed(sorted(p.name for p in folder.iterdir()), 4)
        raise _check.problem(f"{folder.name} holds no reference", found=here, cure=f"give {REFERENCE}")
    return _from_10x(folder, label, section)


def _from_10x(folder: Path, label: str, section: AnnData) -> AnnData:
    """Cells of 10x files by name of the barcode, with the labels of the table beside them."""
    import anndata
    import pandas as pd

    parts = ("barcodes.tsv", "features.tsv", "genes.tsv")
    known = {name + ending for name in parts for ending in ("", ".gz")}
    tables = sorted(p for pattern in TABLES for p in folder.glob(pattern) if p.name not in known)
    cure = f"put one table beside the 10x files, with names of cells in its first column and a column {label!r}"
    if len(tables) != 1:
        found = _check.listed((p.name for p in tables), 3)
        raise _check.problem("one table of labels is needed beside the 10x files", found=found, cure=cure)
    labels = shared.labels_by_name(tables[0], label, cure)
    matrix = _matrix10x.read_mtx(folder)
    cells = pd.Index([str(name) for name in matrix.barcodes])
    if not cells.isin(labels.index).any():
        found = f"{_check.listed(cells, 2)} in the matrix, {_check.listed(labels.index, 2)} in {tables[0].name}"
        raise _check.problem("no cell of the matrix has a label", found=found, cure=cure)
    ids, names = (pd.Index([str(g) for g in side], dtype=object) for side in (matrix.ids, matrix.names))
    ours = section.var_names.astype(str)
    genes = ids if ids.isin(ours).sum() > names.isin(ours).sum() else names
    obs = pd.DataFrame({label: labels.reindex(cells).to_numpy(dtype=object)}, index=cells)
    return anndata.AnnData(matrix.counts, obs=obs, var=pd.DataFrame(index=genes))


def _markers(path: Path) -> Any:
    cure = "give a table with the columns type and gene, or a column a type that lists genes"
    return shared.read_frame(path, "the markers", cure, dtype=str)


# ---------------------------------------------------------------------------------------------- what is written


def _by_name(adata: AnnData, frame: Any) -> Any:
    """A table with a row a cell or spot, its name first; a column called so already keeps its place beside it."""
    made = frame.copy()
    made.insert(0, "spot", list(adata.obs_names), allow_duplicates=True)
    return made


def _cell_table(adata: AnnData, found: Any) -> Any:
    """A row a cell: its type, how sure, and the set of types that it may be of."""
    import numpy as np
    import pandas as pd

    member = found.sets.to_numpy(dtype=bool)
    names = np.asarray(found.sets.columns.astype(str), dtype=object)
    columns = {
        "spot": list(adata.obs_names),
        _keys.CELL_TYPE: found.labels.astype(str).to_numpy(),
        _keys.CELL_TYPE + _keys.CONFIDENCE_SUFFIX: found.confidence.to_numpy(),
        "set_size": member.sum(axis=1),
        "set": ["; ".join(names[row]) for row in member],
    }
    return pd.DataFrame(columns)


def _niche_tables(adata: AnnData) -> dict[str, Any]:
    """Tables of niches; those with a row a niche begin with its name."""
    found = shared.stored_tables(adata, NICHE_TABLES)
    named = {f"{NICHE}_composition", f"{NICHE}_enrichment"}
    return {name: table.rename_axis(NICHE).reset_index() if name in named else table for name, table in found.items()}
