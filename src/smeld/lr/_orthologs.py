"""Pairs in mouse genes, by orthologs: capitalising a human symbol misses those of other names."""

from __future__ import annotations

from functools import cache
from importlib import resources
from itertools import product
from typing import TYPE_CHECKING

from smeld.lr._resource import JOIN

if TYPE_CHECKING:
    import pandas as pd

#: parts several mouse genes of one human gene in the file
SEVERAL = "|"


def orthologs() -> pd.DataFrame:
    """The table: ``human``, ``mouse`` (several joined by ``|``, the first stands for them in complexes; empty where
    there is none), ``source``."""
    import pandas as pd

    with resources.files("smeld.lr").joinpath("mouse_orthologs.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


def to_mouse(pairs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Human pairs in mouse genes, and how many fell out since a gene has no mouse ortholog.

    A human gene that mice have several of gives a pair for each (CCL21: Ccl21a, Ccl21b, Ccl21d); in a complex the first
    of them stands for it, or else its subunits would multiply. Other columns go along; of pairs that become the same
    the first stays. The order is that of ``pairs``.

    Examples
    --------
    >>> import smeld as sm
    >>> from smeld.lr._orthologs import to_mouse
    >>> mouse, n_without = to_mouse(sm.lr.pairs())
    >>> "Cxcl12" in set(mouse["ligand"])
    True
    """
    rows, mouse, n_without = [], [], 0
    for i, (ligand, receptor) in enumerate(zip(pairs["ligand"], pairs["receptor"])):
        made = list(product(_named(ligand), _named(receptor)))
        n_without += not made
        rows += [i] * len(made)
        mouse += made
    out = pairs.iloc[rows].copy()
    out["ligand"], out["receptor"] = [pair[0] for pair in mouse], [pair[1] for pair in mouse]
    return out.drop_duplicates(["ligand", "receptor"]).reset_index(drop=True), n_without


def _named(name: str) -> list[str]:
    """Mouse names of a human gene or complex; none if a subunit has none."""
    parts = [_table().get(gene, ()) for gene in name.split(JOIN)]
    if len(parts) == 1:
        return list(parts[0])
    return [JOIN.join(dict.fromkeys(part[0] for part in parts))] if all(parts) else []


@cache
def _table() -> dict[str, tuple[str, ...]]:
    found = orthologs()
    return {human: tuple(mouse.split(SEVERAL)) if mouse else () for human, mouse in zip(found["human"], found["mouse"])}
