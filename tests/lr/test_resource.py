"""The pairs that ship with smeld, and tables of the user's own."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import smeld as sm
from smeld.lr import _resource


def test_the_table_is_large_clean_and_sourced() -> None:
    table = sm.lr.pairs()
    assert len(table) >= 1500
    assert list(table.columns) == ["ligand", "receptor", "range", "source"]
    assert not table.duplicated(["ligand", "receptor"]).any()
    assert set(table["range"]) <= set(_resource.RANGES)
    symbol = re.compile(r"^[A-Z0-9][A-Za-z0-9-]*(\+[A-Z0-9][A-Za-z0-9-]*)*$")
    for column in ("ligand", "receptor"):
        assert table[column].map(lambda name: bool(symbol.match(name))).all()
    assert table["receptor"].str.contains("+", regex=False).sum() >= 100
    assert set(table["source"]) == set(sm.lr.card()["sources"])


@pytest.mark.parametrize(
    ("ligand", "receptor", "kind"),
    [
        ("CXCL12", "CXCR4", "secreted"),
        ("DLL1", "NOTCH1", "contact"),
        ("TGFB1", "TGFBR1+TGFBR2", "secreted"),
        ("THBS1", "CD47", "secreted"),
        ("SHH", "PTCH1", "secreted"),
    ],
)
def test_well_known_pairs_are_there(ligand: str, receptor: str, kind: str) -> None:
    table = sm.lr.pairs()
    row = table[(table["ligand"] == ligand) & (table["receptor"] == receptor)]
    assert row["range"].tolist() == [kind]


def test_another_organism_is_refused_with_what_there_is() -> None:
    with pytest.raises(sm.InputError, match="human, mouse"):
        sm.lr.pairs("yeast")


def test_mouse_pairs_bear_the_names_of_orthologs() -> None:
    mouse = sm.lr.pairs("mouse")
    assert len(mouse) > 2000 and sm.lr.card("mouse")["organism"] == "mouse"
    named = set(zip(mouse["ligand"], mouse["receptor"]))
    assert {("Cxcl12", "Cxcr4"), ("Ccl21a", "Ccr7"), ("Il11", "Il11ra1")} <= named


def test_two_columns_suffice() -> None:
    made = _resource.checked(pd.DataFrame({"a": ["X ", "X"], "b": ["Y", "Y"]}))
    assert made.to_dict("records") == [{"ligand": "X", "receptor": "Y", "range": "unknown"}]
    turned = _resource.checked(pd.DataFrame({"receptor": ["R"], "ligand": ["L"], "range": ["contact"]}))
    assert turned.iloc[0].tolist() == ["L", "R", "contact"]
    assert len(_resource.checked([("A", "B"), ("C", "D+E")])) == 2


@pytest.mark.parametrize("bad", [[], pd.DataFrame({"ligand": ["A"]}), [("A",)]])
def test_a_table_without_pairs_is_refused(bad: object) -> None:
    with pytest.raises(sm.InputError, match="two columns"):
        _resource.checked(bad)
