"""What all commands share: the program, its options, and how much it says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

app = typer.Typer(
    name="smeld",
    help="Spatial transcriptomics that melds Space, tissue Morphology and gene Expression.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(stderr=True, highlight=False, soft_wrap=True)
state = {"quiet": False, "verbose": False}

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print each step's time, and tracebacks of failures.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results; replaced as a whole if it is smeld's.")]


def verbosity(quiet: bool, verbose: bool) -> None:
    from smeld import _progress

    state.update(quiet=quiet, verbose=verbose)
    _progress.set_quiet(quiet)


def new_say() -> Any:
    """A function that tells the user each step; with --verbose also how long the last one took."""
    import time

    last: dict[str, Any] = {}

    def say(message: str) -> None:
        now = time.perf_counter()
        if state["verbose"] and last:
            console.print(f"  {last['message']}: {now - last['at']:.1f} s", style="dim", markup=False)
        last.update(message=message, at=now)
        if not state["quiet"]:
            console.print(f"smeld: {message}", markup=False)

    return say
