"""What the report says of an order: the root, what speaks for it and what does not, the tree, its genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import smeld as sm
from smeld import _report
from smeld import _report_trajectory as trajectory

#: a section as small as this one need not have expression that says more than space
pytestmark = pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")


@pytest.fixture(autouse=True)
def coarse(monkeypatch) -> None:
    """Pixels cost time, and no test looks at them."""
    monkeypatch.setattr(_report, "DPI", 30.0)


@pytest.fixture(scope="module")
def ordered():
    adata = sm.datasets.simulate(400, 100, tissue="branched", seed=103, image=False)
    first = str(adata.obs["truth_domain"].iloc[int(adata.obs["truth_pseudotime"].argmin())])
    sm.tl.trajectory(adata, first, groups="truth_domain", n_bootstraps=6)
    genes = [f"TRAJ{i}" for i in range(1, 6)]
    q = np.array([1e-9, 1e-5, 0.01, 0.2, 0.9])
    shape = ["rises", "falls", "peaks", "rises", "dips"]
    adata.uns["transition_genes"] = pd.DataFrame(
        {"gene": genes, "effect": 0.3, "zscore": 4.0, "pvalue": q / 2, "qvalue": q, "shape": shape}
    )
    return adata


def lines(adata) -> str:
    found = trajectory.content(adata, "spot")
    assert found is not None
    return "\n".join(found["lines"])


def changed(adata, key: str = "pseudotime", **params):
    """A copy whose record says otherwise."""
    other = adata.copy()
    other.uns["smeld"][key]["params"] |= params
    return other


def test_root_evidence_intervals_tree_ends_and_genes(ordered) -> None:
    text = lines(changed(ordered, helps=True, gain_of_expression=0.05, gain_standard_error=0.011, root="D1 (label)"))
    assert f"Root: D1 (label) ({int(ordered.obs['pseudotime_root'].sum()):,} spots)." in text
    assert "Expression helps" in text and "(+5.0 % of the variation, standard error 1.1)" in text
    assert "order in time does not follow" in text
    width = (ordered.obs["pseudotime_high"] - ordered.obs["pseudotime_low"]).median()
    assert f"interval of a spot is {width:.2f} wide" in text
    assert "Tree of groups:" in text and "of 6 bootstraps" in text
    assert all(str(name) in text for name in ordered.obsm["pseudotime_fates"].columns)
    assert "3 of 5 genes change along it" in text


def test_when_expression_adds_nothing_it_says_so(ordered) -> None:
    text = lines(changed(ordered, helps=False, gain_of_expression=0.004, gain_standard_error=0.006))
    assert "Expression adds nothing" in text and "(+0.4 % of the variation, standard error 0.6;" in text
    assert "Expression helps" not in text and "by space alone" in text


def test_when_the_share_of_space_was_given_nothing_was_weighed(ordered) -> None:
    text = lines(changed(ordered, balance=0.5, helps=False, gain_of_expression=0.0, gain_standard_error=0.0))
    assert "was given (50 %)" in text and "adds nothing" not in text


def test_the_least_sure_edge_is_that_of_the_table(ordered) -> None:
    other = ordered.copy()
    edges = other.uns["pseudotime_edges"]
    at = edges.index[(edges["level"] == "group") & edges["in_tree"]][-1]
    edges["support"] = np.where(edges.index == at, 0.17, np.where(edges["in_tree"], 0.9, 0.1))
    said = f"{edges.loc[at, 'from']} → {edges.loc[at, 'to']} (17 % of 6 bootstraps)"
    assert said in lines(other)


def test_cells_without_order_and_undecided_ones_are_counted(ordered) -> None:
    other = ordered.copy()
    other.obs.loc[other.obs_names[:7], "pseudotime"] = np.nan
    chances = other.obsm["pseudotime_fates"]
    chances.iloc[:] = 0.0
    chances.iloc[:, 0] = 1.0
    chances.iloc[:11] = 1 / chances.shape[1]
    text = lines(other)
    assert "7 spots are joined to the root neither" in text
    if chances.shape[1] > 1:
        assert f"{chances.columns[0]} ({other.n_obs - 11:,} spots" in text and "11 spots are undecided" in text


def test_genes_of_a_path_and_of_two_branches(ordered) -> None:
    other = ordered.copy()
    groups = np.array(["D1", "D2"], dtype=object)
    record = {"function": "sm.tl.transition_genes", "inputs": {}, "seed": 0, "version": "0"}
    other.uns["smeld"]["transition_genes"] = record | {"params": {"path": groups, "branch": "none"}}
    assert "change along it, in D1, D2" in lines(other)
    other.uns["smeld"]["transition_genes"] = record | {"params": {"path": "none", "branch": groups}}
    assert "differ between the branches to D1 and D2" in lines(other)
    axes = trajectory.FIGURES["gene_courses"](other, "domain", None).axes
    assert len(axes[0].get_lines()) == 2


def test_every_figure_is_drawn_and_saved(ordered, tmp_path: Path) -> None:
    other = ordered.copy()
    label = str(other.obs["truth_domain"].value_counts().index[0])
    root = np.zeros(other.n_obs, dtype=bool)
    root[int(np.flatnonzero(other.obs["truth_domain"] == label)[0])] = True
    sm.tl.trajectory(other, root, groups="truth_domain", within=label, n_bootstraps=3)
    found = trajectory.content(other, "spot")
    assert found is not None and found["local"] == [label]
    saved = {path.stem for path in _report.save_figures(other, tmp_path)}
    assert set(trajectory.FIGURES) <= saved

    alone = other.copy()
    for name in [n for n in alone.uns if n in ("pseudotime_nodes", "pseudotime_edges", "pseudotime_evidence")]:
        del alone.uns[name]
    found = trajectory.content(alone, "spot")
    assert found is not None and found["lines"][0] == f"Only spots of {label} are ordered."
    assert trajectory.FIGURES["trajectory"](alone, "domain", None).axes
    assert not found["is_tree"] and "no tree" in "\n".join(found["lines"])


def test_nothing_is_said_where_nothing_is_stored(ordered, tmp_path: Path) -> None:
    bare = sm.datasets.simulate(100, 20, seed=0, image=False)
    assert trajectory.content(bare, "spot") is None
    for name, draw in trajectory.FIGURES.items():
        with pytest.raises(sm.InputError):
            draw(bare, "domain", None)
        assert name
    old = ordered.copy()
    del old.uns["smeld"], old.uns["transition_genes"], old.uns["pseudotime_evidence"], old.obsm["pseudotime_fates"]
    assert "Expression" not in lines(old) and "genes" not in lines(old)


def test_the_page_has_the_section_only_with_an_order_and_says_how_to_get_genes(ordered, tmp_path: Path) -> None:
    page = sm.report(ordered, tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'id="trajectory"' in page and 'href="#trajectory"' in page
    section = page[page.index('<section id="trajectory"') : page.index('<section id="morphology"')]
    assert section.count("<figure>") == 7 and "Not computed" not in section
    assert "TRAJ1" in section and "Groups and edges of the tree" in section
    bare = sm.datasets.simulate(100, 20, seed=0, image=False)
    assert 'id="trajectory"' not in sm.report(bare, tmp_path / "b.html").read_text(encoding="utf-8")
    other = ordered.copy()
    del other.uns["transition_genes"]
    page = sm.report(other, tmp_path / "g.html").read_text(encoding="utf-8")
    assert "run sm.tl.transition_genes(adata)" in page
