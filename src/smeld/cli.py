"""The command line: one command per task. Exit codes: 0 done, 1 failure, 2 bad input or usage."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from smeld import _check

app = typer.Typer(
    name="smeld",
    help="Spatial transcriptomics that melds Space, tissue Morphology and gene Expression.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(stderr=True, highlight=False, soft_wrap=True)
_state = {"quiet": False, "verbose": False}
#: the class of all usage errors: typer's own since 0.26 or so, click's before; both are above BadParameter
_UsageError: Any = typer.BadParameter.__base__

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print each step's time, and tracebacks of failures.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; replaced as a whole if it is smeld's.")]


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


def _verbosity(quiet: bool, verbose: bool) -> None:
    from smeld import _progress

    _state.update(quiet=quiet, verbose=verbose)
    _progress.set_quiet(quiet)


def _say() -> Any:
    """A function that tells the user each step; with --verbose also how long the last one took."""
    import time

    last: dict[str, Any] = {}

    def say(message: str) -> None:
        now = time.perf_counter()
        if _state["verbose"] and last:
            _console.print(f"  {last['message']}: {now - last['at']:.1f} s", style="dim", markup=False)
        last.update(message=message, at=now)
        if not _state["quiet"]:
            _console.print(f"smeld: {message}", markup=False)

    return say


@app.command()
def run(
    path: Annotated[
        Path,
        typer.Argument(help="Section: a Space Ranger or legacy ST folder, an .h5ad, a folder of tables."),
    ],
    out: Out,
    platform: Annotated[str, typer.Option(help="Platform by name, or auto to recognise it.")] = "auto",
    n_domains: Annotated[int | None, typer.Option(help="Number of domains; chosen from the data if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    image: Annotated[Path | None, typer.Option(help="H&E image to use in place of the one beside the counts.")] = None,
    image_scale: Annotated[float | None, typer.Option(help="Image pixels per unit of the coordinates.")] = None,
    um_per_unit: Annotated[float | None, typer.Option(help="Micrometres per unit of the coordinates.")] = None,
    max_megapixels: Annotated[float, typer.Option(help="Largest image that is opened.")] = 500.0,
    min_counts: Annotated[float, typer.Option(help="Spots with fewer counts are dropped.")] = 1.0,
    encoder: Annotated[str, typer.Option(help="Morphology encoder, or none.")] = "texture",
    method: Annotated[str, typer.Option(help="Fusion method.")] = "sme",
    evidence: Annotated[
        bool, typer.Option("--evidence/--no-evidence", help="Choose the fusion weights from held-out counts.")
    ] = True,
    interactions: Annotated[bool, typer.Option("--interactions", help="Also test ligand-receptor pairs.")] = False,
    trajectory: Annotated[bool, typer.Option("--trajectory", help="Also order the spots from a root.")] = False,
    root: Annotated[str, typer.Option(help="Where the trajectory begins: a domain, a gene, a spot, or auto.")] = "auto",
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read a section, fuse space, morphology and expression, find domains and their markers, write a report."""
    from smeld import pipeline

    _verbosity(quiet, verbose)
    config = pipeline.configure(
        path=str(path),
        platform=platform,
        n_domains=n_domains,
        seed=seed,
        image=None if image is None else str(image),
        image_scale=image_scale,
        um_per_unit=um_per_unit,
        max_megapixels=max_megapixels,
        min_counts=min_counts,
        encoder=encoder,
        method=method,
        evidence=evidence,
        interactions=interactions,
        trajectory=trajectory,
        root=root,
    )
    say = _say()
    _finish(pipeline.run(config, out, say=say), say)


def _finish(result: Any, say: Any) -> None:
    say("done")
    if not _state["quiet"]:
        adata = result.adata
        domains = adata.obs["domain"].nunique()
        _console.print(f"smeld: {adata.n_obs:,} spots in {domains} domain{'s' * (domains != 1)}", markup=False)
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

    _verbosity(quiet, verbose)
    say = _say()
    done = pipeline.replay(run_toml, out, say=say)
    for what, names in (
        ("input", done.changed_inputs),
        ("version", done.changed_versions),
        ("result", done.changed_results),
    ):
        for name in names:
            _console.print(f"smeld: {what} differs: {name}", markup=False, style="yellow")
    if done.identical and not _state["quiet"]:
        _console.print("smeld: identical: every result file is the same, byte for byte", markup=False)
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

    _verbosity(quiet, verbose)
    say = _say()
    say(f"simulating {n_obs} spots x {n_genes} genes")
    section = out / "section.h5ad"
    io.write(datasets.simulate(n_obs, n_genes, seed=seed), section)
    config = pipeline.configure(path=str(section), seed=seed)
    _finish(pipeline.run(config, out / "results", say=say), say)


@app.command("interactions")
def interactions_command(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    out: Out,
    pairs: Annotated[
        Path | None, typer.Option(help="Table with the columns ligand and receptor; smeld's own pairs if not given.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Column of obs with who sends and receives [cell_type, else domain].")
    ] = None,
    statistic: Annotated[str, typer.Option(help="Statistic by name.")] = "spatial",
    radius_um: Annotated[
        float | None, typer.Option(help="Neighbours are all spots this near, micrometres; the nearest if not given.")
    ] = None,
    within_spot: Annotated[bool, typer.Option("--within-spot", help="Ligand in the spot itself counts, too.")] = False,
    barrier: Annotated[
        str | None, typer.Option(help="sme: weaken links where the fused weights say that tissue changes.")
    ] = None,
    adjust: Annotated[
        str, typer.Option(help="What to regress out, commas between: library and columns of obs; none; or auto.")
    ] = "auto",
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with the section of each spot.")] = None,
    organism: Annotated[str, typer.Option(help="human, mouse, or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Test the ligand-receptor pairs of a stored result, and who sends to whom."""
    from smeld import _followup

    _verbosity(quiet, verbose)
    say = _say()
    settings = _followup.PairSettings(
        pairs=None if pairs is None else str(pairs),
        groups=groups,
        statistic=statistic,
        radius_um=radius_um,
        within_spot=within_spot,
        barrier=barrier,
        adjust=adjust,
        batch_key=batch_key,
        organism=organism,
        seed=seed,
    )
    written = _followup.interactions(result, out, settings, say=say)
    say("done")
    if not quiet:
        typer.echo(written.resolve())


@app.command("trajectory")
def trajectory_command(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    out: Out,
    root: Annotated[str, typer.Option(help="Where it begins: a label of --groups, a gene, a spot, or auto.")] = "auto",
    groups: Annotated[str, typer.Option(help="Column of obs with the nodes of the tree.")] = "domain",
    within: Annotated[str | None, typer.Option(help="Order the spots of this label only.")] = None,
    balance: Annotated[
        float | None, typer.Option(help="Share of steps in space, 0 to 1; chosen by evidence if not given.")
    ] = None,
    n_bootstraps: Annotated[int, typer.Option(help="Draws for intervals and support.")] = 40,
    path: Annotated[
        str | None, typer.Option(help="Test genes on the way to this label; all spots if not given.")
    ] = None,
    branch: Annotated[str | None, typer.Option(help="Two labels, a comma between: genes that set them apart.")] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with the section of each spot.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Order the spots of a stored result from a root, and test the genes along it."""
    from smeld import _followup

    _verbosity(quiet, verbose)
    say = _say()
    settings = _followup.TrajectorySettings(
        root=root,
        groups=groups,
        within=within,
        balance=balance,
        n_bootstraps=n_bootstraps,
        path=path,
        branch=branch,
        batch_key=batch_key,
        seed=seed,
    )
    written = _followup.trajectory(result, out, settings, say=say)
    say("done")
    if not quiet:
        typer.echo(written.resolve())


@app.command("report")
def report_command(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    quiet: Quiet = False,
) -> None:
    """Write the report of a stored result again."""
    from smeld import _report, io

    _verbosity(quiet, False)
    where = result / "result.h5ad" if result.is_dir() else result
    written = _report.report(io.read(where, "h5ad"), out)
    if not quiet:
        typer.echo(written)


def _show_warning(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
    """smeld's own warnings as one line each; those of other packages only with --verbose."""
    if _state["quiet"] or not (issubclass(category, _check.SmeldWarning) or _state["verbose"]):
        return
    _console.print(f"smeld: warning: {message}", style="yellow", markup=False)


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
            _console.print_exception()
        return _fail(str(error), 2)
    except Exception as error:  # noqa: BLE001  the last resort: a line, not a traceback, unless asked for
        if _state["verbose"]:
            _console.print_exception()
        hint = "" if _state["verbose"] else " (--verbose shows where)"
        return _fail(f"{type(error).__name__}: {error}{hint}", 1)


def entry() -> None:
    """Console script."""
    sys.exit(main())
