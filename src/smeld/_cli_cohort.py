"""``smeld run`` on a sample sheet, and what a run is expected to cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from smeld import _check
from smeld._cli_base import console, new_say, state

#: what a worker was seen to need at most, as a share of what the process that has the section is expected to
WORKER_SHARE = 0.6


@dataclass(frozen=True)
class Where:
    """The options of ``smeld run`` that say where and within what it runs; none of them decides a result."""

    jobs: int = 1
    scheduler: str | None = None
    memory: str | None = None
    dry_run: bool = False

    def limit_bytes(self) -> int | None:
        """What ``--memory`` allows."""
        from smeld import _estimate

        return None if self.memory is None else _estimate.memory_bytes(self.memory)


def required(out: Path | None, dry_run: bool) -> Path:
    """``--out``, which only a dry run may leave out."""
    if out is None and not dry_run:
        raise typer.BadParameter("it says where the results go", param_hint="--out")
    return Path() if out is None else out


def is_sheet(path: Path) -> bool:
    """Whether ``smeld run`` was given a sample sheet."""
    from smeld import _cohort

    return path.suffix.lower() in (".csv", ".tsv") and _cohort.is_sheet(path)


def run_sheet(path: Path, out: Path, settings: Mapping[str, Any], where: Where) -> None:
    """All samples of a sheet; exit code 1 if one of them is not done."""
    from smeld import _cluster, _cohort

    limit = where.limit_bytes()
    if where.jobs > 1 or where.scheduler is not None:
        _cluster.require_distributed()
    samples = _cohort.read_sheet(path, out, settings)
    say = new_say()
    if where.dry_run:
        _show_estimates([(sample.name, sample.config) for sample in samples], limit)
        return
    say(f"{len(samples)} samples")
    try:
        outcomes = _cohort.run(samples, out, jobs=where.jobs, scheduler=where.scheduler, memory_bytes=limit, say=say)
    except KeyboardInterrupt:
        console.print("smeld: interrupted; finished samples are kept, the same command goes on", markup=False)
        raise typer.Exit(1) from None
    _finish_sheet(outcomes, out)


def _finish_sheet(outcomes: Any, out: Path) -> None:
    from smeld import _cohort

    states = Counter(outcome.state for outcome in outcomes)
    if not state["quiet"]:
        said = ", ".join(f"{n} {name}" for name, n in sorted(states.items()))
        console.print(f"smeld: {said}", markup=False)
        typer.echo((out / _cohort.SUMMARY).resolve())
    if states[_cohort.DONE] < len(outcomes):
        raise typer.Exit(1)


@dataclass(frozen=True)
class Plan:
    """How one section is run: with how many workers, and whether its counts stay on disk."""

    workers: int
    backed: bool = False


def before_section(config: Any, where: Where) -> Plan | None:
    """What is to be done before one section is run; None if that was all."""
    limit = where.limit_bytes()
    if where.dry_run:
        _show_estimates([(Path(config.path).name, config)], limit)
        return None
    if limit is None:
        return Plan(where.jobs)
    from smeld import _estimate

    fit = _estimate.fit(config, limit)
    if fit.backed:
        new_say()("the counts stay on disk: in memory they would need more than is allowed")
    if where.scheduler is not None:
        return Plan(where.jobs, fit.backed)
    return Plan(_fitting(where.jobs, limit - fit.peak_bytes, WORKER_SHARE * fit.peak_bytes), fit.backed)


def _fitting(jobs: int, free: float, of_worker: float) -> int:
    """As many workers as fit beside the process that has the section; 1 means that there are none."""
    fit = max(1, min(jobs, int(free // of_worker)))
    if fit < jobs:
        new_say()(f"{fit} in place of {jobs} workers: each may need {of_worker / 1e9:.1f} GB more")
    return fit


def section_workers(out: Path, jobs: int, scheduler: str | None) -> AbstractContextManager[None]:
    """The workers that share the tiles and pairs of one section. What a scheduler's workers exchange lies beside the
    results, where all of them see it."""
    from smeld import _cluster

    scratch = None
    if scheduler is not None:
        scratch = out.expanduser().absolute().parent
        scratch.mkdir(parents=True, exist_ok=True)
    return _cluster.cluster(jobs, scheduler, scratch=scratch)


def _show_estimates(configs: list[tuple[str, Any]], limit_bytes: int | None) -> None:
    """A line for each; exit code 2 where one is over the limit."""
    from smeld import _estimate

    over = 0
    for name, config in configs:
        try:
            size = _estimate.size_of(config)
            backed = limit_bytes is not None and _estimate.fit(config, limit_bytes).backed
            line = _estimate.sentence(size, _estimate.estimate(size, config, backed=backed))
            typer.echo(f"{name}: {line}{'; the counts stay on disk' * backed}")
        except _check.InputError as error:
            typer.echo(f"{name}: {error}")
            over += 1
    if over:
        raise typer.Exit(2)
