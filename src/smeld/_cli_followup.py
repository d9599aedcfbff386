"""Commands that go on from a stored result."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smeld._cli_base import Out, Quiet, Verbose, new_say, state, verbosity


def interactions_command(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    out: Out,
    pairs: Annotated[
        Path | None, typer.Option(help="Table with the columns ligand and receptor; smeld's own pairs if not given.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(help="Who sends and receives: a column, or proportions [cell_type, its proportions, domain]."),
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

    verbosity(quiet, verbose)
    say = new_say()
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
    finish(written, say)


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

    verbosity(quiet, verbose)
    say = new_say()
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
    finish(written, say)


def calibrate_command(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    out: Out,
    label: Annotated[str, typer.Option(help="Column with your own labels, or with numbers that order the spots.")],
    table: Annotated[
        Path | None,
        typer.Option(help="Table with that column, names of spots in its first one; the result's obs if not given."),
    ] = None,
    prediction: Annotated[
        str, typer.Option(help="What is scored: domain, another set of memberships, or pseudotime.")
    ] = "domain",
    match: Annotated[
        bool | None,
        typer.Option("--match/--by-name", help="Match classes to labels, or compare names; chosen if not given."),
    ] = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with the section of each spot.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Hold the confidence of a stored result against labels of your own: is it worth its name?"""
    from smeld import _followup

    verbosity(quiet, verbose)
    say = new_say()
    settings = _followup.CalibrationSettings(
        label=label,
        table=None if table is None else str(table),
        prediction=prediction,
        match=match,
        batch_key=batch_key,
        seed=seed,
    )
    finish(_followup.calibrate(result, out, settings, say=say), say)


def finish(written: Path, say: Any) -> None:
    say("done")
    if not state["quiet"]:
        typer.echo(written.resolve())
