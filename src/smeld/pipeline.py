"""The main job: a validated configuration in, a results folder out, replayable to the last bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smeld import _adapt, _check, _estimate, _keys, _optional, fusion, io, morph, tl
from smeld._inert import inert
from smeld._report import save_figures, write_report
from smeld._run_config import (
    NO_ENCODER,
    RunConfig,
    configure,
    encoder_options,
    fusion_options,
    prepare,
    refuse_own_input,
)
from smeld._run_record import RUN, differences, file_hash, input_hashes, load_run, to_toml, versions
from smeld.io._safe import refuse_foreign, replacing_folder

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = [
    "Replay",
    "RunConfig",
    "RunResult",
    "analyse",
    "configure",
    "file_hash",
    "input_hashes",
    "replay",
    "result_tables",
    "run",
    "safe_csv",
    "to_toml",
    "versions",
    "write_tables",
]

RESULT, REPORT, TABLES, FIGURES = "result.h5ad", "report.html", "tables", "figures"
#: what smeld writes into a results folder; anything else there is the user's and is never removed
WRITTEN = (RESULT, REPORT, f"{TABLES}/*.csv", f"{FIGURES}/*.png", f"{FIGURES}/*.svg")

#: runs that are expected to take longer say so, and how long
LONG_SECONDS = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class RunResult:
    """Where a run's results lie, and the annotated section itself."""

    folder: Path
    adata: AnnData

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / REPORT


def run(config: RunConfig, out: str | Path, *, backed: bool = False, say: Say = lambda message: None) -> RunResult:
    """The whole main job. ``out`` appears, or is replaced, only when everything in it is complete.

    Steps: read, quality control, morphology, fusion, domains and their pieces, markers, then tables, figures,
    report. ``backed`` leaves the counts on disk: less memory, more time, the same results. ``say`` is told each step
    as it begins. Raises InputError for bad input; ``out`` is then untouched.
    """
    folder = Path(out)
    refuse_foreign(folder, known=WRITTEN, marker=RUN)
    refuse_own_input(folder, config)
    prepare(config)
    started = time.perf_counter()
    say("reading")
    adata = _read(config, backed)
    _say_long(adata, config, backed, say)
    inputs = input_hashes(config)
    # the folder is begun before the long part: a place that cannot be written is found out at once
    with replacing_folder(folder, known=WRITTEN, marker=RUN) as temporary:
        analyse(adata, config, say=say)
        say("writing tables, figures and report")
        _write_results(adata, temporary, config)
        _write_run(temporary, config, inputs, seconds=time.perf_counter() - started)
    return RunResult(folder, adata)


def _say_long(adata: AnnData, config: RunConfig, backed: bool, say: Say) -> None:
    """What is to be expected, where the run will be long."""
    in_memory = hasattr(adata.X, "nnz")
    size = _estimate.size_in_memory(adata, config) if in_memory else _estimate.size_of(config)
    expected = _estimate.estimate(size, config, backed=backed)
    if expected.seconds > LONG_SECONDS:
        say(_estimate.sentence(size, expected))


def _read(config: RunConfig, backed: bool) -> AnnData:
    data = io.read(
        config.path,
        config.platform,
        image_scale=config.image_scale,
        um_per_unit=config.um_per_unit,
        image=config.image,
        max_megapixels=config.max_megapixels,
        image_alignment=config.image_alignment,
        resolution=config.resolution,
        table=config.table,
        outlines=config.outlines,
        region_um=config.region_um,
        backed=backed,
    )
    return _adapt.table(data)


def analyse(adata: AnnData, config: RunConfig, *, say: Say = lambda message: None) -> None:
    """All analyses of the main job on a section in memory, in place."""
    say("quality control")
    tl.quality_control(adata, min_counts=config.min_counts)
    if config.n_domains is not None and config.n_domains > adata.n_obs:
        raise _check.problem(
            "there are fewer spots than domains",
            found=f"{adata.n_obs} spots, {config.n_domains} domains",
            cure=f"ask for at most {adata.n_obs} domains with --n-domains",
        )
    morphology = None
    if config.encoder != NO_ENCODER and _adapt.image(adata) is not None:
        say(f"morphology ({config.encoder})")
        morphology = morph.embed(adata, config.encoder, **encoder_options(config)).key
    say(f"fusing space, morphology and expression ({config.method})")
    # named, for the section may bring embeddings of its own
    fusion.fuse(adata, config.method, morphology=morphology, seed=config.seed, **fusion_options(config))
    say("domains")
    tl.domains(adata, config.n_domains, use_rep=_keys.FUSED_PREFIX + config.method, seed=config.seed)
    tl.pieces(adata)
    say("marker genes")
    tl.markers(adata)
    if config.interactions:
        say("ligand-receptor pairs")
        _optional.interactions(adata, config.seed)
    if config.trajectory:
        say(f"trajectory (root {config.root})")
        _optional.trajectory(adata, config.root, config.seed)


def _write_results(adata: AnnData, folder: Path, config: RunConfig) -> None:
    io.write(adata, folder / RESULT)
    write_tables(result_tables(adata), folder / TABLES)
    figures = folder / FIGURES
    figures.mkdir()
    save_figures(adata, figures)
    write_report(adata, folder / REPORT, title=Path(config.path).name or None, figures=figures)


def write_tables(tables: Mapping[str, Any], folder: Path) -> None:
    """Each table as a .csv in a new folder."""
    folder.mkdir()
    for name, table in tables.items():
        safe_csv(table).to_csv(folder / f"{name}.csv", index=False, float_format="%.9g", lineterminator="\n")


def result_tables(adata: AnnData) -> dict[str, Any]:
    """The results as labelled tables: one row a spot, a domain, a marker, a quality figure."""
    import pandas as pd

    xy = _adapt.xy_um(adata)
    names = [_keys.DOMAIN, _keys.DOMAIN + _keys.CONFIDENCE_SUFFIX, _keys.PIECE]
    quality = [c for c in ("total_counts", "n_genes_by_counts", "pct_counts_mt", "low_counts") if c in adata.obs]
    spots = pd.DataFrame({"spot": adata.obs_names, "x_um": xy[:, 0], "y_um": xy[:, 1]})
    ordered = [
        c for c in (_keys.PSEUDOTIME, *(f"{_keys.PSEUDOTIME}_{e}" for e in ("low", "high", "branch"))) if c in adata.obs
    ]
    for column in [*names, *quality, *ordered]:
        spots[column] = adata.obs[column].to_numpy()
    grouped = spots.groupby(_keys.DOMAIN, observed=True)
    summary = grouped.agg(
        n_spots=("spot", "size"),
        mean_confidence=(names[1], "mean"),
        median_counts=("total_counts", "median"),
        median_genes=("n_genes_by_counts", "median"),
    ).reset_index()
    tables = {
        "spots": spots,
        "domains": summary,
        "markers": adata.uns[_keys.MARKERS],
        "domain_pieces": adata.uns[_keys.PIECE + "s"],
    }
    for key in ("fusion_evidence", f"{_keys.DOMAIN}_selection", *_optional.TABLES):
        if key in adata.uns:
            tables[key] = adata.uns[key]
    return tables


def safe_csv(table: Any) -> Any:
    """The table with text that a spreadsheet would take for a formula made inert by a leading apostrophe."""

    table = table.copy()
    for column in table.columns:
        if table[column].dtype.kind not in "biufc":
            table[column] = [inert(v) if isinstance(v, str) else v for v in table[column].astype(object)]
    return table


def _write_run(folder: Path, config: RunConfig, inputs: Mapping[str, str], *, seconds: float) -> None:
    written = sorted(p for p in folder.rglob("*") if p.is_file())
    settings = {k: v for k, v in config.model_dump().items() if v is not None}
    sections: dict[str, Mapping[str, Any]] = {
        "run": {"finished": datetime.now(UTC).isoformat(timespec="seconds"), "seconds": round(seconds, 1)},
        "config": settings,
        "versions": versions(),
        "inputs": inputs,
        "results": {p.relative_to(folder).as_posix(): file_hash(p) for p in written},
    }
    (folder / RUN).write_text(to_toml(sections), encoding="utf-8")


@dataclass(frozen=True)
class Replay:
    """A repeated run: what differs in the inputs and versions, and which result files differ."""

    result: RunResult
    changed_inputs: list[str]
    changed_versions: list[str]
    changed_results: list[str]

    @property
    def identical(self) -> bool:
        """True if every file came out the same, byte for byte."""
        return not self.changed_results


def replay(run_toml: str | Path, out: str | Path | None = None, *, say: Say = lambda message: None) -> Replay:
    """Repeat a run from its ``run.toml`` and compare. ``out`` is ``<results folder>-replay`` by default."""
    record_path = Path(run_toml)
    if record_path.is_dir():
        record_path = record_path / RUN
    record = load_run(record_path)
    config = configure(**record["config"])
    folder = (
        Path(out)
        if out is not None
        else record_path.resolve().parent.with_name(record_path.resolve().parent.name + "-replay")
    )
    result = run(config, folder, say=say)
    again = load_run(folder / RUN)
    return Replay(
        result,
        changed_inputs=differences(record["inputs"], again["inputs"]),
        changed_versions=differences(record["versions"], again["versions"]),
        changed_results=differences(record["results"], again["results"]),
    )
