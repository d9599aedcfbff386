"""The command line: one command per task. Exit codes: 0 done, 1 failure, 2 bad input or usage."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from smeld import _check
from smeld._cli_base import Out, Quiet, Verbose, app, console, new_say, verbosity
from smeld._cli_base import state as _state
from smeld._cli_cohort import Where, before_section, is_sheet, required, run_sheet, section_workers
from smeld._cli_encoders import encoders_command
from smeld._cli_followup import calibrate_command, interactions_command, trajectory_command
from smeld._cli_types import annotate_command, deconvolve_command
from smeld._cli_view import export_command, view_command

#: the class of all usage errors: typer's own since 0.26 or so, click's before; both are above BadParameter
_UsageError: Any = typer.BadParameter.__base__


def _version(show: bool) -> None:
    if show:
        from smeld import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of all commands."""


@app.command()
def run(
    path: Annotated[
        Path,
        typer.Argument(
            help="Section: a platform's output folder, an .h5ad, a SpatialData .zarr, a folder of tables."
            " Or a sample sheet: a .csv or .tsv with the columns sample and path, and settings as further ones."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the results; replaced as a whole if it is smeld's. Of a sheet:"
            " a folder for each sample, and summary.csv.",
        ),
    ] = None,
    platform: Annotated[str, typer.Option(help="Platform by name, or auto to recognise it.")] = "auto",
    n_domains: Annotated[int | None, typer.Option(help="Number of domains; chosen from the data if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    image: Annotated[Path | None, typer.Option(help="H&E image to use in place of the one beside the counts.")] = None,
    image_scale: Annotated[float | None, typer.Option(help="Image pixels per unit of the coordinates.")] = None,
    um_per_unit: Annotated[float | None, typer.Option(help="Micrometres per unit of the coordinates.")] = None,
    max_megapixels: Annotated[float, typer.Option(help="Largest image that is opened.")] = 500.0,
    image_alignment: Annotated[
        Path | None, typer.Option(help="Matrix (csv, json) that takes pixels of --image to the section's own.")
    ] = None,
    resolution: Annotated[str | None, typer.Option(help="Which bins or cells: 2um, 8um, bin50, cells.")] = None,
    table: Annotated[str | None, typer.Option(help="Which table, of stores with several.")] = None,
    outlines: Annotated[bool, typer.Option("--outlines", help="Read the outlines of cells too.")] = False,
    region_um: Annotated[
        tuple[float, float, float, float] | None, typer.Option(help="Only what lies in x0 y0 x1 y1, micrometres.")
    ] = None,
    min_counts: Annotated[float, typer.Option(help="Spots with fewer counts are dropped.")] = 1.0,
    encoder: Annotated[
        str, typer.Option(help="Morphology encoder, or none; smeld encoders lists them, and timm:NAME, hf:REPOSITORY.")
    ] = "texture",
    weights: Annotated[
        Path | None, typer.Option(help="Folder or file of the encoder's weights; looked for if not given.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch weights that are missing; without it the network is not used.")
    ] = False,
    encoder_cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps an encoder's work, to go on from after an interruption.")
    ] = None,
    method: Annotated[str, typer.Option(help="Fusion method: sme, or vae (a network).")] = "sme",
    device: Annotated[str, typer.Option(help="Where networks run: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Choose the fusion weights from held-out counts.")
    ] = True,
    interactions: Annotated[bool, typer.Option("--interactions", help="Also test ligand-receptor pairs.")] = False,
    trajectory: Annotated[bool, typer.Option("--trajectory", help="Also order the spots from a root.")] = False,
    root: Annotated[str, typer.Option(help="Where the trajectory begins: a domain, a gene, a spot, or auto.")] = "auto",
    jobs: Annotated[
        int, typer.Option(min=1, help="Worker processes that share a sheet's samples, or a section's tiles and pairs.")
    ] = 1,
    scheduler: Annotated[
        str | None, typer.Option(help="Scheduler of dask.distributed, tcp://HOST:PORT, whose workers do so.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="What may be used, such as 8GB: counts stay on disk, or the section is refused.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it is expected to cost.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read a section, fuse space, morphology and expression, find domains and their markers, write a report."""
    from smeld import pipeline

    verbosity(quiet, verbose)
    where, folder = Where(jobs, scheduler, memory, dry_run), required(out, dry_run)
    settings: dict[str, Any] = {
        "platform": platform,
        "n_domains": n_domains,
        "seed": seed,
        "image": None if image is None else str(image),
        "image_scale": image_scale,
        "um_per_unit": um_per_unit,
        "max_megapixels": max_megapixels,
        "image_alignment": None if image_alignment is None else str(image_alignment),
        "resolution": resolution,
        "table": table,
        "outlines": outlines,
        "region_um": region_um,
        "min_counts": min_counts,
        "encoder": encoder,
        "weights": None if weights is None else str(weights),
        "download": download,
        "encoder_cache": None if encoder_cache is None else str(encoder_cache),
        "method": method,
        "device": device,
        "evidence": evidence,
        "interactions": interactions,
        "trajectory": trajectory,
        "root": root,
    }
    if is_sheet(path):
        run_sheet(path, folder, settings, where)
        return
    config = pipeline.configure(path=str(path), **settings)
    plan = before_section(config, where)
    if plan is None:
        return
    say = new_say()
    with section_workers(folder, plan.workers, scheduler):
        result = pipeline.run(config, folder, backed=plan.backed, say=say)
    _finish(result, say)


def _finish(result: Any, say: Any) -> None:
    say("done")
    if not _state["quiet"]:
        adata = result.adata
        domains = adata.obs["domain"].nunique()
        console.print(f"smeld: {adata.n_obs:,} spots in {domains} domain{'s' * (domains != 1)}", markup=False)
        typer.echo(result.report.resolve())


@app.command()
def replay(
    run_toml: Annotated[Path, typer.Argument(help="The run.toml of an earlier run, or its folder.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the repeated results [<folder>-replay].")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Repeat a run exactly, and say where inputs, versions or results differ (exit code 1 if results do)."""
    from smeld import pipeline

    verbosity(quiet, verbose)
    say = new_say()
    done = pipeline.replay(run_toml, out, say=say)
    for what, names in (
        ("input", done.changed_inputs),
        ("version", done.changed_versions),
        ("result", done.changed_results),
    ):
        for name in names:
            console.print(f"smeld: {what} differs: {name}", markup=False, style="yellow")
    if done.identical and not _state["quiet"]:
        console.print("smeld: identical: every result file is the same, byte for byte", markup=False)
    _finish(done.result, say)
    if not done.identical:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Out = Path("demo"),
    n_obs: Annotated[int, typer.Option(help="Spots to simulate.")] = 4000,
    n_genes: Annotated[int, typer.Option(help="Genes to simulate.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Simulate a tissue section with known truth and run the whole main job on it. Needs no download."""
    from smeld import datasets, io, pipeline

    verbosity(quiet, verbose)
    say = new_say()
    say(f"simulating {n_obs} spots x {n_genes} genes")
    section = out / "section.h5ad"
    io.write(datasets.simulate(n_obs, n_genes, seed=seed), section)
    config = pipeline.configure(path=str(section), seed=seed)
    _finish(pipeline.run(config, out / "results", say=say), say)


@app.command("report")
def report_command(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    quiet: Quiet = False,
) -> None:
    """Write the report of a stored result again."""
    from smeld import _report, io

    verbosity(quiet, False)
    where = result / "result.h5ad" if result.is_dir() else result
    written = _report.report(io.read(where, "h5ad"), out)
    if not quiet:
        typer.echo(written)


for _name, _command in (
    ("interactions", interactions_command),
    ("trajectory", trajectory_command),
    ("calibrate", calibrate_command),
    ("annotate", annotate_command),
    ("deconvolve", deconvolve_command),
    ("view", view_command),
    ("export", export_command),
    ("encoders", encoders_command),
):
    app.command(_name)(_command)


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    """smeld's own warnings as one line each; those of other packages only with --verbose."""
    if _state["quiet"] or not (issubclass(category, _check.SmeldWarning) or _state["verbose"]):
        return
    console.print(f"smeld: warning: {message}", style="yellow", markup=False)


def _fail(message: str, code: int) -> int:
    line = "".join(c if c.isprintable() else " " for c in message)
    sys.stderr.write(f"smeld: error: {line}\n")
    return code


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Returns the exit code: every error ends in one line on standard error."""
    warnings.showwarning = _show_warning
    # not app(): that one turns Ctrl-C into an exit code of its own (130), and an EOFError into "aborted"
    command = typer.main.get_command(app)
    try:
        with command.make_context("smeld", list(sys.argv[1:] if arguments is None else arguments)) as context:
            command.invoke(context)
        return 0
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted; nothing was written", 1)
    except _UsageError as error:
        return _fail((error.format_message() or "a command is needed") + " (see smeld --help)", 2)
    except _check.InputError as error:
        if _state["verbose"]:
            console.print_exception()
        return _fail(str(error), 2)
    except Exception as error:  # noqa: BLE001  the last resort: a line, not a traceback, unless asked for
        if _state["verbose"]:
            console.print_exception()
        hint = "" if _state["verbose"] else " (--verbose shows where)"
        return _fail(f"{type(error).__name__}: {error}{hint}", 1)


def entry() -> None:
    """Console script."""
    sys.exit(main())
