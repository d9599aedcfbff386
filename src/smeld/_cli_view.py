"""Commands that show a stored result: a local page, and the same page as files."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from smeld import _check
from smeld._cli_base import Quiet, Verbose, new_say, state, verbosity

Result = Annotated[Path, typer.Argument(help="A result.h5ad, the folder that holds one, or the folder of a cohort.")]


def view_command(
    result: Result,
    port: Annotated[int, typer.Option(help="Port of 127.0.0.1; any that is free if 0.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the address in the browser.")] = True,
    annotate: Annotated[bool, typer.Option("--annotate", help="Allow annotations, saved into the result.")] = False,
    column: Annotated[str, typer.Option(help="Column of obs that annotations go to.")] = "annotation",
    author: Annotated[
        str | None, typer.Option(help="Who annotates; the name that the system knows you by if not given.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show a result in the browser, from this machine only; Ctrl-C ends it. With --annotate one can draw and save."""
    verbosity(quiet, verbose)
    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise _check.problem(
            "the viewer needs the extra smeld[viewer]",
            found=f"no {_check.listed(missing)}",
            cure="pip install 'smeld[viewer]'",
        )
    from smeld.viewer import _server

    viewer = _server.Viewer(result, _server.Options(port, None, column if annotate else None, author), say=new_say())
    typer.echo(viewer.address)
    if browser:
        _open(viewer.address)
    _server.run(viewer)
    if viewer.error is not None:  # it was said when it happened
        raise typer.Exit(2)


def _open(address: str) -> None:
    """In the browser, where there is one: the address is printed in any case."""
    import threading
    import webbrowser

    # browsers that have to start take their time, and some block
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def export_command(
    result: Result,
    html: Annotated[Path, typer.Option("--html", help="Folder to write, or a file whose name ends in .html.")],
    genes: Annotated[
        str | None, typer.Option(help="Genes that go along, commas between; markers and tested pairs if not given.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="So many of the first markers in place of that.")] = None,
    single: Annotated[
        bool | None,
        typer.Option("--single/--folder", help="One file, or a folder; by the number of cells if not given."),
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write the viewer's page and its data as files that open anywhere, without a server or a network."""
    from smeld.viewer import _export

    verbosity(quiet, verbose)
    say = new_say()
    named = None if genes is None else tuple(name.strip() for name in genes.split(",") if name.strip())
    written = _export.export(result, html, _export.Choice(named, top, single), say=say)
    say("done")
    if not state["quiet"]:
        typer.echo(written.resolve())
