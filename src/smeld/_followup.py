"""Further tasks on a stored result: read it, work on it, write a folder beside it. The result itself is not touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smeld import _check, _keys, io, pipeline, tl
from smeld._report import report, save_figures
from smeld.io._safe import replacing_folder
from smeld.tl._celltype_interactions import sending_groups

if TYPE_CHECKING:
    from anndata import AnnData

#: marks a folder of ours, and says how it was made
SETTINGS = "interactions.toml"
WRITTEN = (pipeline.RESULT, pipeline.REPORT, SETTINGS, "tables/*.csv", "figures/*.png", "figures/*.svg")


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


def interactions(
    result: Path, out: Path, settings: PairSettings, *, say: Callable[[str], None] = lambda message: None
) -> Path:
    """Test the pairs of a stored result; the folder ``out`` holds it all and appears when everything is complete."""
    stored = result / pipeline.RESULT if result.is_dir() else result
    if out.resolve() in (result.resolve(), stored.resolve().parent):
        raise _check.problem(
            "the result lies in the output folder, which would be replaced",
            found=out.name,
            cure="give another folder with --out",
        )
    say("reading")
    adata = io.read(stored, "h5ad")
    table = None if settings.pairs is None else _table(Path(settings.pairs), adata.var_names)
    with replacing_folder(out, known=WRITTEN, marker=SETTINGS) as temporary:
        _test(adata, table, settings, say)
        say("writing tables, figures and report")
        _write(adata, temporary, settings, stored)
    return out / pipeline.REPORT


def _adjusted(said: str) -> Any:
    """ "auto", nothing ("none"), or names with commas between."""
    names = [name.strip() for name in said.split(",") if name.strip()]
    return "auto" if names == ["auto"] else () if names in (["none"], []) else names


def _table(path: Path, genes: Any) -> Any:
    """A table of pairs; without a header its first row is one, too."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as lines:
            first = lines.readline()
        # not guessed by pandas, which would divide a single column by one of its letters
        separator = next((c for c in "\t;," if c in first), r"\s+" if " " in first.strip() else ",")
        table = pd.read_csv(path, sep=separator, keep_default_na=False, encoding="utf-8-sig")
        if set(table.columns[:2].astype(str)) <= set(genes):
            table = pd.read_csv(path, sep=separator, keep_default_na=False, encoding="utf-8-sig", header=None)
        return table
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, ValueError) as error:
        raise _check.problem(
            f"the pairs in {path.name} cannot be read",
            found=str(error)[:120],
            cure="give a table with the columns ligand and receptor, commas or tabs between",
        ) from error


def _test(adata: AnnData, table: Any, settings: PairSettings, say: Callable[[str], None]) -> None:
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


def _write(adata: AnnData, folder: Path, settings: PairSettings, stored: Path) -> None:
    io.write(adata, folder / pipeline.RESULT)
    names = (_keys.INTERACTIONS, _keys.CELLTYPE_INTERACTIONS, _keys.INTERACTIONS_QQ)
    pipeline.write_tables({name: adata.uns[name] for name in names if name in adata.uns}, folder / pipeline.TABLES)
    save_figures(adata, folder / pipeline.FIGURES)
    report(adata, folder / pipeline.REPORT, title=stored.name)
    given = {k: v for k, v in vars(settings).items() if v not in (None, False)}
    inputs = {stored.name: pipeline.file_hash(stored)}
    record = {"interactions": given, "versions": pipeline.versions(), "inputs": inputs}
    (folder / SETTINGS).write_text(pipeline.to_toml(record), encoding="utf-8")
