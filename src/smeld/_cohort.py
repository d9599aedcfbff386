"""Many samples: a folder of results for each, none done twice, and a summary that names what failed and why."""

from __future__ import annotations

import csv
import html
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from smeld import _check, _cluster, _estimate, pipeline
from smeld._cohort_sheet import PAGE, SAMPLE, SUMMARY, Outcome, Sample, is_sheet, read_sheet
from smeld._run_record import RUN, file_hash, input_hashes, load_run, versions
from smeld.io._safe import replacing

__all__ = ["DONE", "FAILED", "PAGE", "REFUSED", "SUMMARY", "Outcome", "Sample", "is_sheet", "read_sheet", "run"]

DONE, FAILED, REFUSED = "done", "failed", "refused"
BEFORE = "before"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """What a worker is given: what to run, where to, and whether it is to be refused for its size."""

    name: str
    config: pipeline.RunConfig
    folder: str
    limit_bytes: int | None = None


# -- one sample ----------------------------------------------------------------------------------------------


def do(task: Task, say: Say = lambda message: None) -> Outcome:
    """Run a sample unless it is finished; whatever happens to it is its outcome."""
    folder = Path(task.folder)
    try:
        if finished(folder, task.config):
            return replace(_facts(folder, task.name), ran=BEFORE)
        backed = task.limit_bytes is not None and _estimate.fit(task.config, task.limit_bytes).backed
        with _estimate.peak() as peak_mb:
            pipeline.run(task.config, folder, backed=backed, say=say)
        return replace(_facts(folder, task.name), peak_mb=peak_mb())
    except _check.InputError as error:
        return Outcome(task.name, REFUSED, error=str(error))
    except Exception as error:  # noqa: BLE001  the other samples go on, and the summary says what this one met
        return Outcome(task.name, FAILED, error=_line(f"{type(error).__name__}: {error}"))


def finished(folder: Path, config: pipeline.RunConfig) -> bool:
    """Whether the results there are those of this configuration, these versions and inputs, and whole."""
    if not (folder / RUN).is_file():
        return False
    try:
        record = load_run(folder / RUN)
        same = pipeline.configure(**record["config"]) == config and record["versions"] == versions()
        return same and record["inputs"] == input_hashes(config) and _whole(folder, record["results"])
    except (_check.InputError, OSError, TypeError):
        return False  # of another version, or unreadable: the run itself says what is wrong


def _whole(folder: Path, results: Mapping[str, str]) -> bool:
    """Whether the results are as they were written; annotations (``smeld view --annotate``) are written into the stored
    section, and are no reason to make it anew."""
    kept = {pipeline.RESULT} if any(folder.glob("annotations*.geojson")) else set()
    return all(
        (folder / name).is_file() and (name in kept or file_hash(folder / name) == value)
        for name, value in results.items()
    )


def _facts(folder: Path, name: str) -> Outcome:
    """What the summary says of finished results, read from them."""
    n_spots, n_genes = _estimate.shape_of_h5ad(folder / pipeline.RESULT)
    with (folder / pipeline.TABLES / "domains.csv").open(encoding="utf-8", newline="") as lines:
        n_domains = sum(1 for _ in csv.reader(lines)) - 1
    seconds = load_run(folder / RUN).get("run", {}).get("seconds")
    return Outcome(name, DONE, n_spots=n_spots, n_genes=n_genes, n_domains=n_domains, seconds=seconds)


def _line(message: str) -> str:
    """One printable line of it."""
    return str(_check.problem(str(message)))[:500]


# -- all samples ---------------------------------------------------------------------------------------------


def run(
    samples: Sequence[Sample],
    out: Path,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    memory_bytes: int | None = None,
    say: Say = lambda message: None,
) -> list[Outcome]:
    """Run every sample that is not finished; ``out/<sample>/`` and the summary, which is written anew after each.

    Parameters
    ----------
    samples
        From :func:`read_sheet`.
    out
        Folder of the results.
    jobs
        Worker processes; 1 is this process.
    scheduler
        Address of a scheduler of dask.distributed in place of own workers.
    memory_bytes
        What all workers may take together (with ``scheduler``: each sample). Samples expected to need more are refused,
        and ``jobs`` is lowered until the workers fit.
    say
        Told each sample's beginning and end, and how long the rest will take; without workers also its steps.

    Returns
    -------
    list of Outcome
        One a sample, in the order of the sheet.

    Raises
    ------
    InputError, OSError
        Where the summary cannot be written in the end; the samples' results are there all the same.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = _earlier_peaks(out / SUMMARY)
    if memory_bytes is not None and scheduler is None and jobs > 1:
        jobs = _fitting(samples, jobs, memory_bytes, say)
    serial = scheduler is None and jobs == 1
    tasks = [Task(s.name, s.config, str((out / s.name).absolute()), memory_bytes) for s in samples]
    outcomes: dict[int, Outcome] = {}
    task = partial(_told, say=say) if serial else do
    started = time.perf_counter()
    results = _cluster.each(
        task,
        tasks,
        jobs=jobs,
        scheduler=scheduler,
        memory_bytes=memory_bytes,
        begun=lambda index: say(f"{samples[index].name} begins"),
    )
    for index, result in results:
        outcome = _outcome(samples[index].name, result)
        if outcome.ran == BEFORE:
            outcome = replace(outcome, peak_mb=earlier.get(outcome.sample))
        outcomes[index] = outcome
        rest = _rest(outcomes.values(), len(samples), time.perf_counter() - started)
        say(f"{len(outcomes)} of {len(samples)}: {outcome.sample} {_ending(outcome)}{rest}")
        _try_summary(samples, outcomes, out, say)
    write_summary(samples, outcomes, out)
    return [outcomes[i] for i in range(len(samples))]


def _told(task: Task, say: Say) -> Outcome:
    return do(task, lambda message: say(f"{task.name}: {message}"))


def _outcome(name: str, result: Any) -> Outcome:
    if isinstance(result, _cluster.Lost):
        return Outcome(name, FAILED, error=_line(result.reason))
    return result if isinstance(result, Outcome) else Outcome(name, FAILED, error="the worker returned no outcome")


def _ending(outcome: Outcome) -> str:
    if outcome.state != DONE:
        return f"{outcome.state}: {outcome.error}"
    return "was finished already" if outcome.ran == BEFORE else f"done in {outcome.seconds or 0:.0f} s"


def _rest(outcomes: Collection[Outcome], n_samples: int, seconds: float) -> str:
    """How long the others will take, if they take as long as those that were done; empty where nothing tells."""
    n_done = sum(outcome.state == DONE and outcome.ran != BEFORE for outcome in outcomes)
    n_left = n_samples - len(outcomes)
    return f"; the rest in about {_estimate.duration(seconds / n_done * n_left)}" if n_done and n_left else ""


def _fitting(samples: Sequence[Sample], jobs: int, memory_bytes: int, say: Say) -> int:
    """As many workers as fit, were they all to run the largest sample that fits at all, in memory or on disk."""
    peaks = [peak for s in samples if (peak := _expected(s, memory_bytes)) is not None]
    fit = max(1, min(jobs, int(memory_bytes // max(peaks, default=1))))
    if fit < jobs:
        say(f"{fit} in place of {jobs} workers: each may need {max(peaks) / 1e9:.1f} GB")
    return fit


def _expected(sample: Sample, memory_bytes: int) -> float | None:
    try:
        return _estimate.fit(sample.config, memory_bytes).peak_bytes
    except Exception:  # noqa: BLE001  too large or unreadable: its run says so
        return None


# -- the summary ---------------------------------------------------------------------------------------------


def _try_summary(samples: Sequence[Sample], outcomes: Mapping[int, Outcome], out: Path, say: Say) -> None:
    """A full disk must not end the other samples."""
    try:
        write_summary(samples, outcomes, out)
    except (OSError, _check.InputError) as error:
        say(f"the summary could not be written: {error}")


def write_summary(samples: Sequence[Sample], outcomes: Mapping[int, Outcome], out: Path) -> None:
    """``summary.csv`` and ``summary.html``: a row for each sample that has an outcome, in the order of the sheet."""
    import pandas as pd

    rows = [_texts(samples[i].notes | asdict(outcomes[i])) for i in sorted(outcomes)]
    columns = [SAMPLE, *samples[0].notes, *(f.name for f in fields(Outcome) if f.name != SAMPLE)]
    table = pd.DataFrame(rows, columns=columns)
    with replacing(out / SUMMARY) as temporary:
        pipeline.safe_csv(table).to_csv(temporary, index=False, lineterminator="\n")
    with replacing(out / PAGE) as temporary:
        temporary.write_text(_page(columns, rows, total=len(samples)), encoding="utf-8")


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Whole numbers stay whole, and what is not known is empty: a table of numbers would make both a fraction."""
    return {name: "" if value is None else str(value) for name, value in row.items()}


def _page(columns: Sequence[str], rows: Sequence[Mapping[str, str]], *, total: int) -> str:
    """A plain page with the table; finished samples link to their reports."""
    states = Counter(row["state"] for row in rows)
    said = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) + f", of {total} samples"
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "\n".join(f'<tr class="{row["state"]}">{_cells(columns, row)}</tr>' for row in rows)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Samples</title><style>'
        "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:4px 8px;text-align:left}.failed,.refused{background:#fde8e4}"
        f"</style></head><body><h1>Samples</h1><p>{said}</p>\n"
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></body></html>\n"
    )


def _cells(columns: Sequence[str], row: Mapping[str, str]) -> str:
    texts = {name: html.escape(row[name]) for name in columns}
    if row["state"] == DONE:
        target = html.escape(f"{_encoded(row[SAMPLE])}/{pipeline.REPORT}")
        texts[SAMPLE] = f'<a href="{target}">{texts[SAMPLE]}</a>'
    return "".join(f"<td>{texts[name]}</td>" for name in columns)


def _encoded(name: str) -> str:
    """The name as a part of an address."""
    return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in name.encode())


def _earlier_peaks(path: Path) -> dict[str, float]:
    """Peak memory of samples that an earlier call ran: nothing else keeps it."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return {row[SAMPLE]: float(row["peak_mb"]) for row in csv.DictReader(lines) if row.get("peak_mb")}
    except (OSError, ValueError, KeyError, csv.Error):
        return {}
