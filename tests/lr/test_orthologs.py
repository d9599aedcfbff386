"""Mouse orthologs of the pairs that ship with smeld."""

from __future__ import annotations

import re

import pandas as pd
import pytest

import smeld as sm
from smeld.lr import _orthologs


def _genes(pairs: pd.DataFrame) -> set[str]:
    return {gene for column in ("ligand", "receptor") for name in pairs[column] for gene in name.split("+")}


def _pairs(*rows: tuple[str, str]) -> pd.DataFrame:
    made = pd.DataFrame(rows, columns=["ligand", "receptor"])
    return made.assign(range="secreted", source=[f"row {i}" for i in range(len(rows))])


def _mouse(*rows: tuple[str, str]) -> list[tuple[str, str]]:
    made, _ = _orthologs.to_mouse(_pairs(*rows))
    return list(zip(made["ligand"], made["receptor"]))


def test_the_table_has_every_gene_of_the_pairs_once_in_order() -> None:
    table = _orthologs.orthologs()
    assert list(table.columns) == ["human", "mouse", "source"]
    assert table["human"].is_monotonic_increasing
    assert table["human"].is_unique
    assert set(table["human"]) == _genes(sm.lr.pairs())


def test_every_ortholog_is_a_mouse_symbol_with_a_source() -> None:
    table = _orthologs.orthologs()
    symbol = re.compile(r"^([A-Z][A-Za-z0-9-]*[a-z0-9]|a)$")  # a: nonagouti
    mapped = table[table["mouse"] != ""]
    for mouse in mapped["mouse"]:
        several = mouse.split("|")
        assert all(symbol.match(name) for name in several), mouse
        assert len(set(several)) == len(several)
        assert not any(name.isupper() and len(name) > 3 for name in several if not name.startswith("H2-")), mouse
    assert set(mapped["source"]) == set(sm.lr.card()["orthologs"]["sources"])
    assert set(table.loc[table["mouse"] == "", "source"]) <= {"", "hand"}
    assert len(mapped) / len(table) > 0.95


@pytest.mark.parametrize(
    ("human", "mouse"),
    [
        ("CXCL12", "Cxcl12"),
        ("KITLG", "Kitl"),
        ("FASLG", "Fasl"),
        ("FLT3LG", "Flt3l"),
        ("ICOSLG", "Icosl"),
        ("IL6R", "Il6ra"),
        ("IL4R", "Il4ra"),
        ("IL11RA", "Il11ra1|Il11ra2"),
        ("TF", "Trf"),
        ("C5", "Hc"),
        ("FGF19", "Fgf15"),
        ("TAC3", "Tac2"),
        ("CD24", "Cd24a"),
        ("CXCL6", "Cxcl5"),
        ("CCL21", "Ccl21a|Ccl21b|Ccl21d"),
        ("INS", "Ins2|Ins1"),
        ("TNFRSF10A", "Tnfrsf10b"),
        ("CXADR", "Cxadr"),
        ("CXCL8", ""),
        ("HLA-A", ""),
        ("CD58", ""),
        ("CCL18", ""),
        ("TNFRSF6B", ""),
    ],
)
def test_well_known_orthologs(human: str, mouse: str) -> None:
    table = _orthologs.orthologs().set_index("human")["mouse"]
    assert table[human] == mouse


def test_a_complex_takes_the_first_ortholog_of_each_subunit() -> None:
    assert _mouse(("IL6", "IL6R+IL6ST"), ("IL11", "IL11RA+IL6ST")) == [
        ("Il6", "Il6ra+Il6st"),
        ("Il11", "Il11ra1+Il6st"),
    ]


def test_subunits_that_become_the_same_gene_count_once() -> None:
    assert _mouse(("CXCL12", "TNFRSF10A+TNFRSF10B")) == [("Cxcl12", "Tnfrsf10b")]


def test_several_orthologs_give_a_pair_each() -> None:
    assert _mouse(("CCL21", "CCR7")) == [("Ccl21a", "Ccr7"), ("Ccl21b", "Ccr7"), ("Ccl21d", "Ccr7")]
    assert _mouse(("AGT", "AGTR1")) == [("Agt", "Agtr1a"), ("Agt", "Agtr1b")]
    assert len(_mouse(("CCL21", "AGTR1"))) == 6


def test_pairs_without_ortholog_fall_out_and_are_counted() -> None:
    made, n_without = _orthologs.to_mouse(
        _pairs(("CXCL8", "CXCR2"), ("CXCL12", "CXCR4"), ("IL6", "IL6R+CXCL8"), ("Nosuchgene", "CXCR4"))
    )
    assert n_without == 3
    assert made.to_dict("records") == [
        {"ligand": "Cxcl12", "receptor": "Cxcr4", "range": "secreted", "source": "row 1"}
    ]


def test_of_equal_pairs_the_first_stays_and_the_order_is_kept() -> None:
    made, n_without = _orthologs.to_mouse(_pairs(("XCL2", "XCR1"), ("CXCL12", "CXCR4"), ("XCL1", "XCR1")))
    assert n_without == 0
    assert made["source"].tolist() == ["row 0", "row 1"]
    assert made["ligand"].tolist() == ["Xcl1", "Cxcl12"]


def test_nothing_of_nothing() -> None:
    made, n_without = _orthologs.to_mouse(_pairs())
    assert (len(made), n_without) == (0, 0)
    assert list(made.columns) == ["ligand", "receptor", "range", "source"]


def test_what_is_given_is_not_changed() -> None:
    given = _pairs(("CCL21", "CCR7"))
    before = given.copy()
    _orthologs.to_mouse(given)
    pd.testing.assert_frame_equal(given, before)


def test_all_pairs_in_mouse_genes() -> None:
    human = sm.lr.pairs()
    mouse, n_without = _orthologs.to_mouse(human)
    assert list(mouse.columns) == list(human.columns)
    assert not mouse.duplicated(["ligand", "receptor"]).any()
    assert mouse.index.tolist() == list(range(len(mouse)))
    assert n_without / len(human) < 0.06
    assert len(mouse) >= 2300
    for column in ("ligand", "receptor"):
        subunits = mouse[column].str.split("+")
        assert all(all(parts) and len(set(parts)) == len(parts) for parts in subunits)
    table = _orthologs.orthologs()
    known = {name for names in table["mouse"] if names for name in names.split("|")}
    assert _genes(mouse) <= known
    none = set(table.loc[table["mouse"] == "", "human"])
    lost = [bool(none & {*a.split("+"), *b.split("+")}) for a, b in zip(human["ligand"], human["receptor"])]
    assert n_without == sum(lost)


def test_orthologs_find_pairs_that_capitalising_misses() -> None:
    human = sm.lr.pairs()
    capital = {
        tuple("+".join(gene.capitalize() for gene in name.split("+")) for name in pair)
        for pair in zip(human["ligand"], human["receptor"])
    }
    mouse, _ = _orthologs.to_mouse(human)
    gained = [pair for pair in zip(mouse["ligand"], mouse["receptor"]) if pair not in capital]
    assert ("Kitl", "Kit") in gained
    assert len(gained) >= 150
