"""``python -m smeld.viewer RESULT``: the viewer without the rest of the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from smeld.viewer import _server


def main(
    result: Annotated[Path, typer.Argument(help="A result.h5ad, or the folder that holds one.")],
    port: Annotated[int, typer.Option(help="Port; any that is free if 0.")] = 0,
    token: Annotated[str | None, typer.Option(help="Token, for tests.")] = None,
    annotate: Annotated[bool, typer.Option("--annotate", help="Allow annotations.")] = False,
    name: Annotated[str, typer.Option(help="Column that annotations go to.")] = "annotation",
    author: Annotated[str | None, typer.Option(help="Who annotates.")] = None,
) -> None:
    """Serve a result until Ctrl-C; the address comes first."""
    options = _server.Options(port, token, name if annotate else None, author)
    viewer = _server.Viewer(result, options)
    sys.stdout.write(viewer.address + "\n")
    sys.stdout.flush()
    _server.run(viewer)


if __name__ == "__main__":
    typer.run(main)
