"""The main job: a validated configuration in, a results folder out, replayable to the last bit."""

from __future__ import annotations

import hashlib
import json
import math
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smeld import _adapt, _check, _keys, _optional, fusion, io, morph, tl
from smeld._image import MAX_MEGAPIXELS
from smeld._report import report, save_figures
from smeld.io._safe import refuse_foreign, replacing_folder

if TYPE_CHECKING:
    from anndata import AnnData

RESULT, REPORT, RUN, TABLES, FIGURES = "result.h5ad", "report.html", "run.toml", "tables", "figures"
#: what smeld writes into a results folder; anything else there is the user's and is never removed
WRITTEN = (RESULT, REPORT, f"{TABLES}/*.csv", f"{FIGURES}/*.png", f"{FIGURES}/*.svg")
#: packages whose version can change a result
VERSIONED = (
    "numpy",
    "scipy",
    "pandas",
    "numba",
    "scikit-learn",
    "scikit-image",
    "anndata",
    "scanpy",
    "pillow",
    "tifffile",
)
#: by-products of Space Ranger that no reader opens and that may have tens of gigabytes: not hashed
NOT_INPUT = (".bam", ".bai", ".csi", ".cloupe", ".fastq.gz", "molecule_info.h5")
NO_ENCODER = "none"

Say = Callable[[str], None]


class RunConfig(BaseModel):
    """Everything that decides a run's result. Unknown names are refused; so are values out of range."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    platform: str = "auto"
    n_domains: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    image: str | None = None
    image_scale: float | None = Field(None, gt=0)
    um_per_unit: float | None = Field(None, gt=0)
    max_megapixels: float = Field(MAX_MEGAPIXELS, gt=0)
    min_counts: float = Field(1.0, ge=0)
    encoder: str = "texture"
    method: str = "sme"
    evidence: bool = True
    interactions: bool = False
    trajectory: bool = False
    root: str = "auto"


@dataclass(frozen=True)
class RunResult:
    """Where a run's results lie, and the annotated section itself."""

    folder: Path
    adata: AnnData

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.folder / REPORT


def configure(**settings: Any) -> RunConfig:
    """A checked configuration; settings out of range and unknown plug-ins raise InputError.

    Paths are made absolute, so that a replay from another folder finds the same section.
    """
    try:
        config = RunConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise _check.problem(
            f"setting {name!r} is not valid: {first['msg']}",
            found=str(first.get("input"))[:80],
            cure="see smeld run --help",
        ) from error
    paths = {
        name: str(Path(getattr(config, name)).expanduser().absolute())
        for name in ("path", "image")
        if getattr(config, name)
    }
    config = config.model_copy(update=paths)
    if config.encoder != NO_ENCODER:
        morph.encoders[config.encoder]
    fusion.fusions[config.method]
    if config.platform != "auto":
        io.platforms[config.platform]
    return config


def run(config: RunConfig, out: str | Path, *, say: Say = lambda message: None) -> RunResult:
    """The whole main job. ``out`` appears, or is replaced, only when everything in it is complete.

    Steps: read, quality control, morphology, fusion, domains and their pieces, markers, then tables, figures,
    report. ``say`` is told each step as it begins. Raises InputError for bad input; ``out`` is then untouched.
    """
    folder = Path(out)
    refuse_foreign(folder, known=WRITTEN, marker=RUN)
    _refuse_own_input(folder, config)
    started = time.perf_counter()
    say("reading")
    adata = _read(config)
    inputs = input_hashes(config)
    # the folder is begun before the long part: a place that cannot be written is found out at once
    with replacing_folder(folder, known=WRITTEN, marker=RUN) as temporary:
        analyse(adata, config, say=say)
        say("writing tables, figures and report")
        _write_results(adata, temporary, config)
        _write_run(temporary, config, inputs, seconds=time.perf_counter() - started)
    return RunResult(folder, adata)


def _refuse_own_input(folder: Path, config: RunConfig) -> None:
    """A result that is read must not be replaced by what is made of it: it could not be made again."""
    for given in (config.path, config.image):
        if given and Path(given).resolve().is_relative_to(folder.resolve()):
            raise _check.problem(
                "the input lies in the output folder, which would be replaced",
                found=Path(given).name,
                cure="give another folder with --out",
            )


def _read(config: RunConfig) -> AnnData:
    return io.read(
        config.path,
        config.platform,
        image_scale=config.image_scale,
        um_per_unit=config.um_per_unit,
        image=config.image,
        max_megapixels=config.max_megapixels,
    )


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
        morphology = morph.embed(adata, config.encoder).key
    say(f"fusing space, morphology and expression ({config.method})")
    # named, for the section may bring embeddings of its own
    options: dict[str, Any] = {} if config.evidence else {"evidence": False}  # not every method has any
    fusion.fuse(adata, config.method, morphology=morphology, seed=config.seed, **options)
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
    report(adata, folder / REPORT, title=Path(config.path).name or None)


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

    def inert(value: Any) -> Any:
        if isinstance(value, str):
            value = value.replace("\x00", "")
            if value.startswith(("=", "+", "-", "@", "\t", "\r")):
                return "'" + value
        return value

    table = table.copy()
    for column in table.columns:
        if table[column].dtype.kind not in "biufc":
            table[column] = [inert(v) for v in table[column].astype(object)]
    return table


def file_hash(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    with path.open("rb") as handle:
        return "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()


def input_hashes(config: RunConfig) -> dict[str, str]:
    """Hashes of the files a section consists of, by path relative to it; hidden files and smeld's results left out."""
    root = Path(config.path).expanduser().resolve()
    found = {root.name: root} if root.is_file() else {}
    if root.is_dir():
        found = {p.relative_to(root).as_posix(): p for p in _section_files(root)}
    if config.image:
        found["--image"] = Path(config.image).expanduser().resolve()
    return {name: file_hash(path) for name, path in sorted(found.items())}


def _section_files(root: Path, depth: int = 3) -> list[Path]:
    """Files down to ``depth`` levels; a folder with a run.toml is an earlier result, not input."""
    files: list[Path] = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            if not entry.name.endswith(NOT_INPUT):
                files.append(entry)
        elif entry.is_dir() and depth > 1 and not (entry / RUN).is_file():
            files.extend(_section_files(entry, depth - 1))
    return files


def versions() -> dict[str, str]:
    """Versions of smeld, Python and the packages that can change a result."""
    import platform

    from smeld import __version__

    found = {"smeld": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


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


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of scalars as TOML. JSON's strings and finite numbers are TOML's too."""
    lines = ["# What made these results."]
    if "config" in sections:
        lines[0] += " Repeat the run with: smeld replay run.toml"
    for name, content in sections.items():
        lines += ["", f"[{name}]"]
        lines += [f"{_toml_value(key)} = {_toml_value(value)}" for key, value in content.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        # file names may hold bytes that are no Unicode
        value = value.encode("utf-8", "backslashreplace").decode()
    # not ASCII only: JSON writes an emoji as two escapes, which TOML refuses. DEL is the reverse
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
    record = _load_run(record_path)
    config = configure(**record["config"])
    folder = (
        Path(out)
        if out is not None
        else record_path.resolve().parent.with_name(record_path.resolve().parent.name + "-replay")
    )
    result = run(config, folder, say=say)
    again = _load_run(folder / RUN)
    return Replay(
        result,
        changed_inputs=_differences(record["inputs"], again["inputs"]),
        changed_versions=_differences(record["versions"], again["versions"]),
        changed_results=_differences(record["results"], again["results"]),
    )


def _load_run(path: Path) -> dict[str, Any]:
    cure = "give the run.toml that smeld run wrote"
    if not path.is_file():
        raise _check.problem(f"{path} is missing", cure=cure)
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _check.problem(f"{path.name} is not TOML", found=str(error)[:120], cure=cure) from error
    for section in ("config", "versions", "inputs", "results"):
        if not isinstance(record.get(section), dict):
            raise _check.problem(f"{path.name} has no [{section}]", found=_check.listed(record), cure=cure)
    return record


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names whose value differs or that only one side has, each with both values."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "absent"), after.get(name, "absent")
        if old != new:
            lines.append(
                name if str(old).startswith("sha256:") and str(new).startswith("sha256:") else f"{name}: {old} -> {new}"
            )
    return lines
