"""The pairs that come with smeld, and tables of the user's own."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING, Any

from smeld import _check

if TYPE_CHECKING:
    import pandas as pd

#: joins the subunits of a complex
JOIN = "+"
ORGANISMS = ("human", "mouse")
RANGES = ("secreted", "contact", "other", "unknown")


def pairs(organism: str = "human") -> pd.DataFrame:
    """Pairs that come with smeld: ``ligand``, ``receptor`` (subunits joined by ``+``), ``range``, ``source``.

    ``organism`` is ``"human"``, or ``"mouse"`` for the same pairs in the names of mouse orthologs (pairs with a gene
    that mice lack are left out). ``sm.lr.card()`` names sources and licence. Nothing is downloaded.

    Examples
    --------
    >>> import smeld as sm
    >>> len(sm.lr.pairs()) > 1500
    True
    """
    import pandas as pd

    _known(organism)
    with resources.files("smeld.lr").joinpath("human.csv").open(encoding="utf-8") as file:
        human = pd.read_csv(file, keep_default_na=False)
    if organism == "human":
        return human
    from smeld.lr import _orthologs

    return _orthologs.to_mouse(human)[0]


def everything() -> pd.DataFrame:
    """The pairs of all organisms."""
    import pandas as pd

    return pd.concat([pairs(name) for name in ORGANISMS], ignore_index=True)


def card(organism: str = "human") -> dict[str, Any]:
    """Version, sources and licence of the pairs that come with smeld.

    Examples
    --------
    >>> import smeld as sm
    >>> sm.lr.card()["organism"]
    'human'
    """
    _known(organism)
    found: dict[str, Any] = json.loads(resources.files("smeld.lr").joinpath("human.json").read_text("utf-8"))
    return {**found, "organism": organism}


def _known(organism: str) -> None:
    if organism not in ORGANISMS:
        raise _check.unknown("organism", organism, ORGANISMS)


def checked(given: Any) -> pd.DataFrame:
    """A user's table as ours: its first two columns (or ``ligand`` and ``receptor``), ``range`` where it has one."""
    import pandas as pd

    if not isinstance(given, pd.DataFrame):
        given = list(given)
        if any(isinstance(pair, str) for pair in given):
            raise _check.problem(
                "pairs must be (ligand, receptor) each",
                found=f"{next(p for p in given if isinstance(p, str))[:40]!r}",
                cure='give a list such as [("CXCL12", "CXCR4")]',
            )
        given = pd.DataFrame([list(pair) for pair in given])
    frame = given.loc[:, ~given.columns.duplicated()]
    if frame.shape[1] < 2 or not len(frame):
        raise _check.problem(
            "pairs need two columns, ligand and receptor",
            found=f"{len(frame)} rows, {frame.shape[1]} columns",
            cure="give a DataFrame or a list of (ligand, receptor)",
        )
    named = {"ligand", "receptor"} <= set(frame.columns)
    ligand, receptor = (frame[c] for c in (("ligand", "receptor") if named else frame.columns[:2]))
    kind = frame["range"] if "range" in frame.columns else pd.Series("unknown", index=frame.index)
    known = ligand.notna() & receptor.notna()
    out = pd.DataFrame({"ligand": ligand, "receptor": receptor, "range": kind})[known].astype(str)
    for column in out:
        out[column] = out[column].str.strip().str.replace(r"\s*\+\s*", JOIN, regex=True)
    out["range"] = out["range"].str.lower().where(out["range"].str.lower().isin(RANGES), "unknown")
    out = out[(out["ligand"] != "") & (out["receptor"] != "")]
    if not len(out):
        raise _check.problem(
            "pairs need two columns, ligand and receptor",
            found=f"{len(frame)} rows, none with both",
            cure="name both partners in a row",
        )
    return out.drop_duplicates(["ligand", "receptor"]).reset_index(drop=True)
