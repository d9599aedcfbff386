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
RANGES = ("secreted", "contact", "other", "unknown")


def pairs(organism: str = "human") -> pd.DataFrame:
    """Pairs that come with smeld: ``ligand``, ``receptor`` (subunits joined by ``+``), ``range``, ``source``.

    ``organism`` is ``"human"``; for mouse genes ``sm.tl.interactions`` falls back on capitalisation and says so.
    ``sm.lr.card()`` names sources and licence. Nothing is downloaded.

    Examples
    --------
    >>> import smeld as sm
    >>> len(sm.lr.pairs()) > 1500
    True
    """
    import pandas as pd

    _known(organism)
    with resources.files("smeld.lr").joinpath(f"{organism}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


def card(organism: str = "human") -> dict[str, Any]:
    """Version, sources and licence of the pairs that come with smeld.

    Examples
    --------
    >>> import smeld as sm
    >>> sm.lr.card()["organism"]
    'human'
    """
    _known(organism)
    found: dict[str, Any] = json.loads(resources.files("smeld.lr").joinpath(f"{organism}.json").read_text("utf-8"))
    return found


def _known(organism: str) -> None:
    if organism != "human":
        raise _check.unknown("organism", organism, ("human",))


def checked(given: Any) -> pd.DataFrame:
    """A user's table as ours: its first two columns (or ``ligand`` and ``receptor``), ``range`` where it has one."""
    import pandas as pd

    frame = given if isinstance(given, pd.DataFrame) else pd.DataFrame([list(pair) for pair in given])
    if frame.shape[1] < 2 or not len(frame):
        raise _check.problem(
            "pairs need two columns, ligand and receptor",
            found=f"{len(frame)} rows, {frame.shape[1]} columns",
            cure="give a DataFrame or a list of (ligand, receptor)",
        )
    named = {"ligand", "receptor"} <= set(frame.columns)
    ligand, receptor = (frame[c] for c in (("ligand", "receptor") if named else frame.columns[:2]))
    kind = frame["range"] if "range" in frame.columns else pd.Series("unknown", index=frame.index)
    out = pd.DataFrame({"ligand": ligand, "receptor": receptor, "range": kind}).astype(str)
    for column in out:
        out[column] = out[column].str.strip()
    return out.drop_duplicates(["ligand", "receptor"]).reset_index(drop=True)
