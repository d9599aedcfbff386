"""Roots of trajectories: every kind, what is refused, and what is said of the choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import smeld as sm

GROUPS = "truth_domain"
pytestmark = pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")


@pytest.fixture(scope="module")
def fused() -> AnnData:
    adata = sm.datasets.simulate(n_obs=300, n_genes=150, image=False, seed=101)
    sm.fuse(adata)
    return adata


@pytest.fixture
def adata(fused: AnnData) -> AnnData:
    return fused.copy()


def ordered(adata: AnnData, root: Any, **settings: Any) -> Any:
    return sm.tl.trajectory(adata, root, **{"groups": GROUPS, "n_bootstraps": 2, **settings})


def cells(adata: AnnData) -> np.ndarray:
    return adata.obs["pseudotime_root"].to_numpy()


def refused(adata: AnnData, root: Any, match: str, **settings: Any) -> str:
    before = set(adata.obs), set(adata.obsm), set(adata.uns)
    with pytest.raises(sm.InputError, match=match) as error:
        ordered(adata, root, **settings)
    assert (set(adata.obs), set(adata.obsm), set(adata.uns)) == before, "nothing is written"
    return str(error.value)


@pytest.mark.parametrize("root", ["D1", "label:D1"])
def test_a_label(adata: AnnData, root: str) -> None:
    found = ordered(adata, root)
    inside = (adata.obs[GROUPS] == "D1").to_numpy()
    assert (cells(adata) == inside).all() and "D1" in found.root
    order = adata.obs["pseudotime"].to_numpy()
    assert order[inside].mean() < order[~inside].mean() - 0.3
    params = adata.uns["smeld"]["pseudotime"]["params"]
    assert params["n_root"] == inside.sum() and params["root"] == found.root


@pytest.mark.parametrize("prefix", ["", "gene:"])
def test_a_gene(adata: AnnData, prefix: str) -> None:
    found = ordered(adata, f"{prefix}DOM4_1")
    assert cells(adata).sum() == round(0.05 * adata.n_obs) and "DOM4_1" in found.root
    level = adata[:, "DOM4_1"].X.toarray().ravel()
    assert level[cells(adata)].mean() > 1.5 * level.mean()
    assert adata.obs["pseudotime"][cells(adata)].mean() < 0.3


@pytest.mark.parametrize("prefix", ["", "cell:"])
def test_a_cell(adata: AnnData, prefix: str) -> None:
    name = adata.obs_names[7]
    found = ordered(adata, prefix + name)
    assert np.flatnonzero(cells(adata)).tolist() == [7] and name in found.root
    assert adata.obs["pseudotime"].iloc[7] < 0.05


@pytest.mark.parametrize("kind", [list, tuple, pd.Index, np.array, pd.Series])
def test_a_list_of_cells(adata: AnnData, kind: Any) -> None:
    ordered(adata, kind(list(adata.obs_names[[3, 7, 5]])))
    assert np.flatnonzero(cells(adata)).tolist() == [3, 5, 7]


@pytest.mark.parametrize("kind", [np.array, list, pd.Series, lambda m: pd.Series(m, dtype="boolean")])
def test_a_mask_is_as_good_as_the_label(adata: AnnData, fused: AnnData, kind: Any) -> None:
    ordered(adata, kind((adata.obs[GROUPS] == "D2").to_numpy()))
    other = fused.copy()
    ordered(other, "D2")
    assert (cells(adata) == cells(other)).all() and (adata.obs["pseudotime"] == other.obs["pseudotime"]).all()


def test_the_choice_by_potency_and_why(adata: AnnData) -> None:
    """The group in which genes are switched on beyond what its library explains."""
    rng = np.random.default_rng(0)
    counts = adata.X.toarray()
    potent = (adata.obs[GROUPS] == "D3").to_numpy()
    total = counts.sum(axis=1)
    for i in np.flatnonzero(potent):  # the same totals, spread over more genes
        counts[i] = rng.multinomial(int(total[i]), np.full(adata.n_vars, 1 / adata.n_vars))
    adata.layers["spread"] = counts
    found = ordered(adata, "auto", layer="spread")
    assert (cells(adata) == potent).all() and found.root.startswith("D3 ") and "library size" in found.root
    table = adata.uns["pseudotime_potency"]
    assert table["group"].iloc[0] == "D3" and table["potency"].is_monotonic_decreasing
    assert table["n_cells"].sum() == adata.n_obs
    ordered(adata, "D1")
    assert "pseudotime_potency" not in adata.uns, "of an earlier run"


def test_a_name_that_means_two_things_is_refused_with_both(adata: AnnData) -> None:
    adata.var_names = ["D1", *adata.var_names[1:]]
    said = refused(adata, "D1", "two things")
    assert "label" in said and "gene" in said and "label:D1" in said and "gene:D1" in said
    ordered(adata, "label:D1")
    assert (cells(adata) == (adata.obs[GROUPS] == "D1")).all()
    ordered(adata, "gene:D1")
    assert cells(adata).sum() == round(0.05 * adata.n_obs)


def test_a_label_that_is_called_auto(adata: AnnData) -> None:
    adata.obs[GROUPS] = adata.obs[GROUPS].cat.rename_categories({"D2": "auto"})
    assert "label:auto" in refused(adata, "auto", "two things")
    ordered(adata, "label:auto")
    assert (cells(adata) == (adata.obs[GROUPS] == "auto")).all()


def test_labels_with_colons(adata: AnnData) -> None:
    adata.obs[GROUPS] = adata.obs[GROUPS].cat.rename_categories({"D2": "T cell: CD8", "D3": "cell:x"})
    ordered(adata, "T cell: CD8")
    assert (cells(adata) == (adata.obs[GROUPS] == "T cell: CD8")).all()
    ordered(adata, "label:cell:x")
    assert (cells(adata) == (adata.obs[GROUPS] == "cell:x")).all()


@pytest.mark.parametrize("root", ["zz", "", "label:", "Gene:DOM4_1"])
def test_a_root_that_is_nothing_says_what_there_is(adata: AnnData, root: str) -> None:
    said = refused(adata, root, "neither a label")
    assert "D1, D2, D3" in said and adata.var_names[0] in said and "auto" in said


@pytest.mark.parametrize(
    ("root", "match"),
    [
        ("label:D91", "did you mean 'D1'"),
        ("gene:zz", "unknown gene"),
        ("cell:zz", "zz"),
        (["spot001", "zz"], "zz"),
        ([], "no cell"),
        (np.zeros(300, dtype=bool), "no cell"),
        (np.ones(3, dtype=bool), "3 values, 300 cells"),
        (np.ones(300, dtype=bool), "nothing is left to order"),
        ([0, 1, 2], "not here"),
        (None, "not here"),
    ],
)
def test_roots_that_are_refused(adata: AnnData, root: Any, match: str) -> None:
    refused(adata, root, match)


def test_a_label_that_is_the_whole_section(adata: AnnData) -> None:
    adata.obs["own"] = "all"
    refused(adata, "all", "nothing is left to order", groups="own")
    refused(adata, "auto", "nothing is left to order", groups="own")
    ordered(adata, adata.obs_names[0], groups="own")
    assert adata.obs["pseudotime"].notna().all()


def test_a_gene_that_does_not_vary(adata: AnnData) -> None:
    adata.layers["flat"] = np.ones(adata.shape, dtype=np.float32)
    refused(adata, "DOM4_1", "does not vary", layer="flat")
    refused(adata, "auto", "nothing to choose by", layer="flat")


def test_a_choice_that_is_close_or_not_by_counts_is_said(adata: AnnData) -> None:
    rng = np.random.default_rng(0)
    adata.layers["alike"] = rng.poisson(1.0, adata.shape).astype(np.float32)
    with pytest.warns(sm.SmeldWarning, match="name the root if you know it"):
        ordered(adata, "auto", layer="alike")
    adata.layers["logged"] = np.log1p(adata.layers["alike"])
    with pytest.warns(sm.SmeldWarning, match="values are no counts"):
        ordered(adata, "auto", layer="logged")


def test_groups_that_are_not_there(adata: AnnData) -> None:
    assert GROUPS in refused(adata, "D1", "nothere", groups="nothere")


def test_a_root_of_a_point_that_stands_for_more(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    from smeld.tl import _trajectory_inputs

    monkeypatch.setattr(_trajectory_inputs, "N_POINTS", 64)
    ordered(adata, adata.obs_names[7])
    assert np.flatnonzero(cells(adata)).tolist() == [7]
    assert adata.obs["pseudotime"].iloc[7] < 0.1
