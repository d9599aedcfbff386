"""Commands for cell types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smeld._cli_base import Out, Quiet, Verbose, new_say, verbosity
from smeld._cli_followup import finish

Section = Annotated[
    Path, typer.Argument(help="A result.h5ad, the folder that holds one, or a section that smeld run takes.")
]
Label = Annotated[str, typer.Option(help="Column of the reference with its cell types.")]
Layer = Annotated[str | None, typer.Option(help="Layer of the section with its counts; X if not given.")]
ReferenceLayer = Annotated[str | None, typer.Option(help="Layer of the reference with its counts; X if not given.")]
Niches = Annotated[bool, typer.Option("--niches", help="Also find niches, and states of types that differ by niche.")]
NNiches = Annotated[int | None, typer.Option(help="Number of niches; chosen from the data if not given.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
REFERENCE = (
    "Single cells with raw counts and types: an .h5ad, a table with a row a cell, or a folder with either or with"
    " 10x files and a table of types."
)


def annotate_command(
    result: Section,
    out: Out,
    reference: Annotated[Path | None, typer.Option(help=REFERENCE)] = None,
    label: Label = "cell_type",
    markers: Annotated[
        Path | None,
        typer.Option(
            help="In place of a reference: table with the columns type and gene (or alike), or a column a type."
        ),
    ] = None,
    spatial: Annotated[str, typer.Option(help="Types around a cell as prior: auto (if they help), yes, no.")] = "auto",
    unknown: Annotated[
        bool, typer.Option("--unknown/--no-unknown", help="Cells may be of a type that the reference lacks.")
    ] = True,
    level: Annotated[float, typer.Option(help="Nominal coverage of the sets of types, 0.5 to 0.99.")] = 0.9,
    layer: Layer = None,
    reference_layer: ReferenceLayer = None,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with the section of each cell.")] = None,
    niches: Niches = False,
    n_niches: NNiches = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Name the type of every cell, by a single-cell reference or by markers, with a set of types that it may be."""
    from smeld import _followup_types

    verbosity(quiet, verbose)
    say = new_say()
    settings = _followup_types.AnnotateSettings(
        reference=None if reference is None else str(reference),
        label=label,
        markers=None if markers is None else str(markers),
        spatial=spatial,
        unknown=unknown,
        level=level,
        layer=layer,
        reference_layer=reference_layer,
        batch_key=batch_key,
        niches=niches,
        n_niches=n_niches,
        seed=seed,
    )
    finish(_followup_types.annotate(result, out, settings, say=say), say)


def deconvolve_command(
    result: Section,
    out: Out,
    reference: Annotated[Path, typer.Option(help=REFERENCE)],
    label: Label = "cell_type",
    layer: Layer = None,
    reference_layer: ReferenceLayer = None,
    of: Annotated[str, typer.Option(help="Shares of cells, or of counts.")] = "cells",
    composition: Annotated[
        str,
        typer.Option(help="The section's mean: estimate, or reference where its cells are those of the same tissue."),
    ] = "estimate",
    n_cells: Annotated[
        str | None, typer.Option(help="Column of obs with the number of cells of each spot; estimated if not given.")
    ] = None,
    nuclei: Annotated[
        bool | None,
        typer.Option(
            "--nuclei/--no-nuclei",
            help="Count nuclei in the image, for numbers of cells by type; where it shows them if not given.",
        ),
    ] = None,
    reach: Annotated[
        int | None, typer.Option(help="Hops over which surroundings are averaged; by held-out counts if not given.")
    ] = None,
    level: Annotated[float, typer.Option(help="Nominal coverage of intervals.")] = 0.9,
    niches: Niches = False,
    n_niches: NNiches = None,
    seed: Seed = 0,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Estimate the proportions of cell types in every spot, by a single-cell reference, with intervals and absences."""
    from smeld import _followup_types

    verbosity(quiet, verbose)
    say = new_say()
    settings = _followup_types.DeconvolveSettings(
        reference=str(reference),
        label=label,
        layer=layer,
        reference_layer=reference_layer,
        of=of,
        composition=composition,
        n_cells=n_cells,
        nuclei=nuclei,
        reach=reach,
        level=level,
        niches=niches,
        n_niches=n_niches,
        seed=seed,
    )
    finish(_followup_types.deconvolve(result, out, settings, say=say), say)
