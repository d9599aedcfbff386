"""``smeld encoders``: what can describe the tissue, under which licence, and whether it can be had on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from smeld._registry import Card

COLUMNS = ("encoder", "licence", "gated", "um/px", "dim", "packages", "weights")


def encoders_command() -> None:
    """List the encoders of morphology: licence, resolution, size, and what of them is on this machine."""
    from rich.console import Console

    from smeld import morph

    console = Console(highlight=False)
    console.print(table(morph.encoders.values()))
    families = " and ".join(f"{prefix}:NAME" for prefix in morph.encoders.families)
    typer.echo(
        f"Also {families}, any network of these collections. Gated: accept the conditions on the hub and log in.\n"
        "Missing weights: smeld run --download, --weights FOLDER, or a folder per encoder in $SMELD_WEIGHTS;\n"
        "missing packages: pip install 'smeld[deep]'. Nothing was fetched to make this list."
    )


def table(cards: Any) -> Table:
    """One row a card; a dash where there is nothing to have."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        made.add_column(name, no_wrap=name != "licence", overflow="fold")
    for card in cards:
        made.add_row(*row(card))
    return made


def row(card: Card[Any]) -> list[str]:
    """What ``COLUMNS`` say of one encoder, as text."""
    facts = card.facts
    size = "any" if facts.get("um_per_px") is None else f"{facts['um_per_px']:g}"
    dim = "varies" if facts.get("dim") is None else f"{facts['dim']:,}"
    return [card.name, str(facts["license"]), "yes" if facts["gated"] else "no", size, dim, *_here(card)]


def _here(card: Card[Any]) -> tuple[str, str]:
    """(packages, weights): "here", "missing", "-" for none needed, "?" where it cannot be told."""
    from smeld import _check, morph, nn
    from smeld._run_config import takes_weights

    if "prepare" not in card.facts:
        return "-", "-"
    needs_weights = takes_weights(card.name)
    try:
        with _nothing_fetched():
            card.facts["prepare"](card.name, morph.Options())
    except _check.InputError:
        if not nn.available():  # asked before weights are looked for
            return "missing", "?" if needs_weights else "-"
        return "here", "missing"
    return "here", "here" if needs_weights else "-"


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """A list must not fetch gigabytes, even where the user allowed it for runs."""
    from smeld.nn._encoder_weights import DOWNLOAD_VARIABLE

    before = os.environ.pop(DOWNLOAD_VARIABLE, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[DOWNLOAD_VARIABLE] = before
