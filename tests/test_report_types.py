"""What the report says of cell types: what was matched, how sure, what is absent, niches and states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import smeld as sm
import stored_section
from smeld import _keys, _report
from smeld import _report_types as types

#: small sections and references warn, which is what is looked at
pytestmark = pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")


@pytest.fixture(autouse=True)
def coarse(monkeypatch) -> None:
    """Pixels cost time, and no test looks at them."""
    monkeypatch.setattr(_report, "DPI", 30.0)


@pytest.fixture(scope="module")
def cells():
    adata = sm.datasets.simulate(
        220, 60, layout="cells", seed=100, image=False, n_cell_types=4, cell_type_effect=2.5, mean_counts=120
    )
    reference = sm.datasets.simulate_reference(adata, {"T1": 30, "T2": 30, "T3": 30, "T4": 6}, seed=100)
    sm.tl.annotate(adata, reference, spatial=False)
    sm.tl.niches(adata, n_niches=2, n_starts=2, n_splits=1)
    return adata


@pytest.fixture(scope="module")
def spots():
    adata = sm.datasets.simulate(150, 60, seed=100, image=False, n_cell_types=3, mean_counts=300)
    sm.tl.deconvolve(adata, sm.datasets.simulate_reference(adata, 30, seed=100), reach=0)
    return adata


def text(part) -> str:
    assert part is not None
    return "\n".join(part["lines"])


def column(part, name: str, table: str = "table") -> list[str]:
    at = part[table]["columns"].index(name)
    return [row[at] for row in part[table]["rows"]]


def test_what_was_matched_and_few_cells_are_said(cells) -> None:
    found = types.content(cells, "cell")
    assert found is not None and found["proportions"] is None
    said = text(found["labels"])
    assert "Reference: 96 cells of 4 types; 60 genes are shared, of 60 in the section and 60 in the reference." in said
    assert "Read with care:" in said and "unreliable: T4 (6)" in said
    assert "had no say" in said


def test_sets_and_unknown_are_counted(cells) -> None:
    said = text(types.content(cells, "cell")["labels"])
    size = cells.obsm["cell_type_set"].sum(axis=1)
    assert f"{size.mean():.2f} on average" in said and "for 90 % of the cells" in said
    other = cells.copy()
    other.obs["cell_type"] = pd.Categorical(["unknown"] * 55 + ["T1"] * 165, categories=["T1", "unknown"])
    assert "25 % of the cells are likeliest of a type that the reference lacks" in text(
        types.content(other, "cell")["labels"]
    )


def test_the_table_of_types_counts_cells(cells) -> None:
    part = types.content(cells, "cell")["labels"]
    number = cells.obs["cell_type"].value_counts()
    assert column(part, "cells") == [str(number[name]) for name in column(part, "type")]
    single = cells.obsm["cell_type_set"].sum(axis=1).to_numpy() == 1
    first = column(part, "type")[0]
    share = single[(cells.obs["cell_type"] == first).to_numpy()].mean()
    assert column(part, "set of one type")[0] == types.facts.percent(float(share))


def test_absences_and_widths_are_those_stored(spots) -> None:
    part = types.content(spots, "spot")["proportions"]
    said = text(part)
    assert "Reference: 90 cells of 3 types" in said and "on real tissue they have held far less" in said
    assert f"{spots.uns['smeld']['cell_type_proportions']['params']['cells_a_spot']:.1f} cells" in said
    absent = spots.obsm["cell_type_proportions_absent"].to_numpy()
    lack = [types.facts.percent(float(v)) for v in (absent > 0.95).mean(axis=0)]
    assert column(part, "spots that surely lack it") == lack
    width = spots.obsm["cell_type_proportions_high"] - spots.obsm["cell_type_proportions_low"]
    assert column(part, "median width of the interval") == [f"{v:.2f}" for v in width.median()]


def test_nuclei_are_said_where_numbers_of_cells_were_made_of_them(spots) -> None:
    assert "Nuclei" not in text(types.content(spots, "spot")["proportions"])
    other = spots.copy()
    other.obs["n_nuclei"] = np.r_[np.nan, np.full(other.n_obs - 1, 7.0)]
    other.uns["smeld"]["cell_type_proportions"]["inputs"]["nuclei"] = "n_nuclei"
    said = text(types.content(other, "spot")["proportions"])
    assert (
        "Nuclei counted under a spot: 7 in the median, 7 to 7 in 90 % of the spots, 1,043 in all; unknown for 1 "
        in said
    )
    del other.obs["n_nuclei"]
    assert "Nuclei" not in text(types.content(other, "spot")["proportions"])


def _with_states(adata, split: list[bool]):
    made = adata.copy()
    table = pd.DataFrame({"cell_type": ["T1", "T2"], "n_cells": [9, 8], "n_states": [2, 1], "states": ["N1,N2", "N1"],
                          "pvalue": [0.0123, np.nan], "qvalue": [0.0246, np.nan], "split": split})  # fmt: skip
    made.uns["niche_states"] = table
    made.obs["niche_state"] = "T1"
    _keys.record(made, "niche_state", function="sm.tl.niche_states", params={}, inputs={})
    return made


def test_niches_and_their_states(cells) -> None:
    part = types.content(cells, "cell")["niches"]
    assert "2 niches (number: given)" in text(part) and part["states"] is None
    one = cells.copy()
    sm.tl.niches(one, n_niches=1, n_starts=2, n_splits=1)
    said = text(types.content(one, "cell")["niches"])
    assert "1 niche (number: given)" in said and "A single one" in said and "Rand index" not in said
    part = types.content(_with_states(cells, [True, False]), "cell")["niches"]
    assert "Split into states by niche: T1." in text(part) and "not been measured" in text(part)
    assert column(part, "pvalue", "states") == ["0.012", "not tested"]
    assert column(part, "split", "states") == ["yes", "no"]
    part = types.content(_with_states(cells, [False, False]), "cell")["niches"]
    assert "No type is split" in text(part)


def test_labels_that_types_were_held_against_are_shown(cells) -> None:
    assert "cell_type_confusion" not in types.shown(cells, types.content(cells, "cell"))
    other = cells.copy()
    sm.tl.calibration(other, "truth_cell_type", key="cell_type")
    assert "cell_type_confusion" in types.shown(other, types.content(other, "cell"))
    ax = types.FIGURES["cell_type_confusion"](other, "domain", None).axes[0]
    assert "truth_cell_type" in ax.get_ylabel()


def test_page_and_figures_have_what_is_stored(cells, spots, tmp_path: Path) -> None:
    for adata, n in ((cells, 4), (spots, 4)):
        page = sm.report(adata, tmp_path / "r.html").read_text(encoding="utf-8")
        section = page[page.index('<section id="types"') : page.index('<section id="morphology"')]
        assert 'href="#types"' in page and section.count("<figure>") == n and "Not computed" not in section
    saved = {path.stem for path in _report.save_figures(cells, tmp_path)}
    assert saved & set(types.FIGURES) == {"cell_types", "cell_type_confidence", "niches", "niche_heatmap"}


def test_a_report_of_types_alone_has_no_empty_parts(cells, tmp_path: Path) -> None:
    """What was not asked for is named in a line; the main job's report says of each part why it is not there."""
    page = sm.report(cells, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Not computed" not in page and "genes: cell types; domains were not computed." in page
    assert "not asked for: quality control, domains, how sure they are, embedding, marker genes, what each" in page
    for name in ("quality", "domains", "sure", "embedding", "markers", "evidence"):
        assert f'"#{name}"' not in page and f'id="{name}"' not in page
    whole = cells.copy()
    whole.obs["domain"] = whole.obs["truth_domain"]
    main = sm.report(whole, tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'id="domains"' in main and "not asked for" not in main


def test_nothing_is_said_where_nothing_is_stored(tmp_path: Path) -> None:
    bare = stored_section.make()
    assert types.content(bare, "spot") is None and types.shown(bare, None) == ()
    assert 'id="types"' not in sm.report(bare, tmp_path / "r.html").read_text(encoding="utf-8")
    for draw in types.FIGURES.values():
        with pytest.raises(sm.InputError):
            draw(bare, "domain", None)


def test_a_record_whose_results_are_gone_is_no_result(cells, spots) -> None:
    other = spots.copy()
    del other.obsm["cell_type_proportions"]
    assert types.content(other, "spot") is None
    other = cells.copy()
    del other.obsm["cell_type_set"], other.obs["cell_type_confidence"], other.uns["niche_composition"]
    found = types.content(other, "cell")
    assert found["niches"] is None and "set of one type" not in found["labels"]["table"]["columns"]


def test_markers_have_no_reference() -> None:
    adata = stored_section.make()
    sm.tl.annotate(adata, markers={"A": ["g0"], "B": ["g1"], "C": ["g2"]}, spatial=False)
    assert "By marker genes: 3 genes for 3 types, no reference." in text(types.content(adata, "spot")["labels"])
