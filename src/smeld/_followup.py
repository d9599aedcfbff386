"""Further tasks on a stored result: read it, work on it, write a folder beside it. The result itself is not touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smeld import _check, _keys, _optional, _run_record, io, pipeline, tl
from smeld._report import save_figures, write_report
from smeld.io._safe import replacing_folder
from smeld.tl._celltype_interactions import sending_groups

if TYPE_CHECKING:
    from anndata import AnnData

#: mark a folder of ours, and say how it was made
SETTINGS, ORDERED, SCORED = "interactions.toml", "trajectory.toml", "calibration.toml"
ANNOTATED, DECONVOLVED = "annotation.toml", "deconvolution.toml"
FOLDERS = ("tables/*.csv", "figures/*.png", "figures/*.svg")
WRITTEN = (pipeline.RESULT, pipeline.REPORT, SETTINGS, ORDERED, SCORED, ANNOTATED, DECONVOLVED, *FOLDERS)

#: tables of interactions
PAIR_TABLES = (_keys.INTERACTIONS, _keys.CELLTYPE_INTERACTIONS)

Say = Callable[[str], None]


@dataclass(frozen=True)
class PairSettings:
    """Settings of ``smeld interactions``: those of ``sm.tl.interactions``, and ``groups`` of
    ``sm.tl.celltype_interactions``; ``pairs`` is a table with two columns."""

    pairs: str | None = None
    groups: str | None = None
    statistic: str = "spatial"
    radius_um: float | None = None
    within_spot: bool = False
    barrier: str | None = None
    adjust: str = "auto"
    batch_key: str | None = None
    organism: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class TrajectorySettings:
    """Settings of ``smeld trajectory``: those of ``sm.tl.trajectory``, and ``path`` and ``branch`` (two names with a
    comma between) of ``sm.tl.transition_genes``."""

    root: str = "auto"
    groups: str = _keys.DOMAIN
    within: str | None = None
    balance: float | None = None
    n_bootstraps: int = 40
    path: str | None = None
    branch: str | None = None
    batch_key: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class CalibrationSettings:
    """Settings of ``smeld calibrate``: ``label`` and ``prediction`` are ``truth`` and ``key`` of ``sm.tl.calibration``;
    ``table`` is a file with names of spots and the labels."""

    label: str
    table: str | None = None
    prediction: str = _keys.DOMAIN
    match: bool | None = None
    batch_key: str | None = None
    seed: int = 0


def interactions(result: Path, out: Path, settings: PairSettings, *, say: Say = lambda message: None) -> Path:
    """Test the pairs of a stored result; the folder ``out`` holds it all and appears when everything is complete."""
    stored, adata = read_result(result, out, say)
    table = None if settings.pairs is None else _table(Path(settings.pairs), adata.var_names)
    with replacing_folder(out, known=WRITTEN, marker=SETTINGS) as temporary:
        _test(adata, table, settings, say)
        say("writing tables, figures and report")
        write_folder(adata, temporary, settings, {stored.name: stored}, SETTINGS, _pair_tables(adata))
    return out / pipeline.REPORT


def trajectory(result: Path, out: Path, settings: TrajectorySettings, *, say: Say = lambda message: None) -> Path:
    """Order the cells of a stored result from a root; ``out`` as with :func:`interactions`."""
    stored, adata = read_result(result, out, say)
    with replacing_folder(out, known=WRITTEN, marker=ORDERED) as temporary:
        _order(adata, settings, say)
        say("writing tables, figures and report")
        write_folder(adata, temporary, settings, {stored.name: stored}, ORDERED, _order_tables(adata))
    return out / pipeline.REPORT


def calibrate(result: Path, out: Path, settings: CalibrationSettings, *, say: Say = lambda message: None) -> Path:
    """Hold a stored result against labels; ``out`` as with :func:`interactions`."""
    stored, adata = read_result(result, out, say)
    if settings.table is not None:
        _add_labels(adata, Path(settings.table), settings.label)
    with replacing_folder(out, known=WRITTEN, marker=SCORED) as temporary:
        say(f"calibration ({settings.prediction} against {settings.label})")
        tl.calibration(
            adata,
            settings.label,
            key=settings.prediction,
            match=settings.match,
            batch_key=settings.batch_key,
            seed=settings.seed,
        )
        say("writing tables, figures and report")
        write_folder(adata, temporary, settings, {stored.name: stored}, SCORED, _scores(adata, settings))
    return out / pipeline.REPORT


def read_result(result: Path, out: Path, say: Say, *, any_section: bool = False) -> tuple[Path, AnnData]:
    """(the file or folder that was read, what it holds); ``any_section`` also takes what ``sm.read`` does."""
    inside = result / pipeline.RESULT
    stored = inside if result.is_dir() and (inside.is_file() or not any_section) else result
    if out.resolve() in (result.resolve(), (stored if stored.is_dir() else stored.parent).resolve()):
        raise _check.problem(
            "the result lies in the output folder, which would be replaced",
            found=out.name,
            cure="give another folder with --out",
        )
    say("reading")
    return stored, io.read(stored, None if any_section else "h5ad")


def _order(adata: AnnData, settings: TrajectorySettings, say: Say) -> None:
    say(f"trajectory (root {settings.root})")
    tl.trajectory(
        adata,
        settings.root,
        groups=settings.groups,
        within=settings.within,
        balance=settings.balance,
        n_bootstraps=settings.n_bootstraps,
        batch_key=settings.batch_key,
        seed=settings.seed,
    )
    say("genes along it")
    between = None if settings.branch is None else [name.strip() for name in settings.branch.split(",")]
    if between is not None and len(between) != 2:
        raise _check.problem("two branches are compared", found=str(settings.branch), cure='give --branch "X,Y"')
    key = _keys.PSEUDOTIME if settings.within is None else f"{_keys.PSEUDOTIME}_{settings.within}"
    pair = None if between is None else (between[0], between[1])
    tl.transition_genes(
        adata, path=settings.path, branch=pair, key=key, batch_key=settings.batch_key, seed=settings.seed
    )


def _adjusted(said: str) -> Any:
    """ "auto", nothing ("none"), or names with commas between."""
    names = [name.strip() for name in said.split(",") if name.strip()]
    return "auto" if names == ["auto"] else () if names in (["none"], []) else names


def _table(path: Path, genes: Any) -> Any:
    """A table of pairs; without a header its first row is one, too."""
    what, cure = "the pairs", "give a table with the columns ligand and receptor, commas or tabs between"
    table = read_frame(path, what, cure, keep_default_na=False)
    if set(table.columns[:2].astype(str)) <= set(genes):
        table = read_frame(path, what, cure, keep_default_na=False, header=None)
    return table


def read_frame(path: Path, what: str, cure: str, **options: Any) -> Any:
    """A delimited table as pandas reads it; ``what`` it holds and the ``cure`` are said where it cannot be read."""
    import pandas as pd

    try:
        return pd.read_csv(path, sep=_separator(path), encoding="utf-8-sig", **options)
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, ValueError) as error:
        raise _check.problem(f"{what} in {path.name} cannot be read", found=str(error)[:120], cure=cure) from error


def _separator(path: Path) -> str:
    """What stands between columns, by the first line: pandas would divide a single column by one of its letters."""
    import gzip

    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8-sig") as lines:
        first = str(lines.readline())
    return next((c for c in "\t;," if c in first), r"\s+" if " " in first.strip() else ",")


def _add_labels(adata: AnnData, path: Path, label: str) -> None:
    """Write the table's column ``label`` into ``obs``, by the names of spots in its first column."""
    cure = f"give a table with names of spots in its first column, and a column {label!r}"
    labels = labels_by_name(path, label, cure)
    known = labels.index.intersection(adata.obs_names)
    if known.empty:
        found = f"{_check.listed(labels.index, 3)}; the result has {_check.listed(adata.obs_names, 3)}"
        raise _check.problem(f"{path.name} names no spot of the result", found=found, cure=cure)
    adata.obs[label] = labels.reindex(adata.obs_names)


def labels_by_name(path: Path, label: str, cure: str) -> Any:
    """The table's column ``label`` by the names in its first column, each of them once."""
    table = read_frame(path, "the labels", cure, dtype={0: str})
    _check.require(list(table.columns[1:].astype(str)), label, path.name, cure)
    labels = table.set_index(table.columns[0])[label]
    if labels.index.has_duplicates:
        twice = _check.listed(labels.index[labels.index.duplicated()].unique(), 3)
        raise _check.problem(f"{path.name} has names more than once", found=twice, cure="keep one row a name")
    return labels


def _test(adata: AnnData, table: Any, settings: PairSettings, say: Say) -> None:
    say(f"ligand-receptor pairs ({settings.statistic})")
    tl.interactions(
        adata,
        table,
        statistic=settings.statistic,
        radius_um=settings.radius_um,
        within_spot=settings.within_spot,
        barrier=settings.barrier,
        adjust=_adjusted(settings.adjust),
        batch_key=settings.batch_key,
        organism=settings.organism,
        seed=settings.seed,
    )
    groups = settings.groups or sending_groups(adata)
    if groups is not None and len(adata.uns[_keys.INTERACTIONS]):
        say(f"who sends to whom ({groups})")
        tl.celltype_interactions(adata, groups)


def write_folder(
    adata: AnnData, folder: Path, settings: Any, inputs: Mapping[str, Path], record: str, tables: Mapping[str, Any]
) -> None:
    """Result, tables, figures, report, and the ``record`` of settings and of the files that were read, ``inputs``."""
    io.write(adata, folder / pipeline.RESULT)
    pipeline.write_tables(tables, folder / pipeline.TABLES)
    figures = folder / pipeline.FIGURES
    save_figures(adata, figures)
    write_report(adata, folder / pipeline.REPORT, title=next(iter(inputs)), figures=figures)
    given = {k: v for k, v in vars(settings).items() if v is not None}
    files = {name: path for given, path in inputs.items() for name, path in _files(given, path).items()}
    hashes = {name: pipeline.file_hash(path) for name, path in files.items()}
    made = {record.removesuffix(".toml"): given, "versions": pipeline.versions(), "inputs": hashes}
    (folder / record).write_text(pipeline.to_toml(made), encoding="utf-8")


def _files(name: str, path: Path) -> dict[str, Path]:
    """The file, or the files of a section's folder."""
    if path.is_file():
        return {name: path}
    return {f"{name}/{p.relative_to(path).as_posix()}": p for p in _run_record._section_files(path)}


def _scores(adata: AnnData, settings: CalibrationSettings) -> dict[str, Any]:
    name = f"{settings.prediction}_calibration"
    return {f"{name}_{part}": table for part, table in adata.uns[name].items()}


def _pair_tables(adata: AnnData) -> dict[str, Any]:
    return stored_tables(adata, [*PAIR_TABLES, _keys.INTERACTIONS_QQ])


def _order_tables(adata: AnnData) -> dict[str, Any]:
    named = [n for n in _optional.TABLES if n not in PAIR_TABLES]
    return stored_tables(adata, [*named, *(n for n in adata.uns if str(n).startswith(_keys.PSEUDOTIME))])


def stored_tables(adata: AnnData, names: Iterable[str]) -> dict[str, Any]:
    """The tables in ``uns`` that are there, by the name of their file; what is no table is another task's."""
    return {name: adata.uns[name] for name in dict.fromkeys(names) if hasattr(adata.uns.get(name), "columns")}
