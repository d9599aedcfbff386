"""Niches, states and their comparison on tables: against the simulator's truth, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import smeld as sm
from smeld._check import InputError, SmeldWarning
from smeld.kernels import alongpath
from smeld.tl import _niches
from smeld.tl._compare_niches import compare_niches
from smeld.tl._niche_tests import niche_states
from smeld.tl._niches import niches

TYPE = "truth_cell_type"


@pytest.fixture(scope="module", autouse=True)
def few_patches() -> Iterator[None]:
    """Half the patches, for small sections: an eighth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alongpath, "N_PATCHES", 200)
        yield


@pytest.fixture(scope="module")
def cells() -> AnnData:
    made = sm.datasets.simulate_niches(
        500, 20, seed=120, n_niches=2, n_cell_types=5, contrast=0.9, field_um=70, dispersion=0.0
    )
    niches(made, TYPE, n_niches=2, n_splits=1)
    return made


@pytest.fixture(scope="module")
def split(cells: AnnData) -> AnnData:
    niche_states(cells, n_genes=5)
    return cells


def sections() -> AnnData:
    """Six sections of two groups, by hand: B has twice the T2 of A; niches N1 and N2."""
    rng, parts = np.random.default_rng(0), []
    for s in range(6):
        p = np.array([0.4, 0.2 if s < 3 else 0.4, 0.2, 0.2])
        kind = rng.choice(4, 400, p=p / p.sum())
        obs = pd.DataFrame(index=[f"s{s}_{i}" for i in range(400)])
        obs["cell_type"] = [f"T{k + 1}" for k in kind]
        obs["niche"] = np.where(rng.random(400) < 0.5, "N1", "N2")
        obs["section"], obs["group"] = f"s{s}", "A" if s < 3 else "B"
        parts.append(AnnData(np.ones((400, 2), dtype=np.float32), obs=obs))
    return ad.concat(parts)


def test_niches_are_the_true_ones_and_soft(cells: AnnData) -> None:
    assert adjusted_rand_score(cells.obs["truth_niche"], cells.obs["niche"]) > 0.6
    prob = cells.obsm["niche_prob"]
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-9)
    assert list(prob.columns[prob.to_numpy().argmax(axis=1)]) == list(cells.obs["niche"])
    np.testing.assert_allclose(prob.max(axis=1), cells.obs["niche_confidence"])
    size = cells.obs["niche"].value_counts()
    assert size["N1"] >= size["N2"]


def test_composition_is_that_of_the_niches_cells(cells: AnnData) -> None:
    prob, kind = cells.obsm["niche_prob"].to_numpy(), pd.get_dummies(cells.obs[TYPE]).to_numpy(dtype=float)
    number = prob.T @ kind
    np.testing.assert_allclose(cells.uns["niche_composition"], number / number.sum(axis=1, keepdims=True), rtol=1e-9)
    enriched = cells.uns["niche_enrichment"]
    assert enriched["T1"].abs().max() < 0.3  # at home in all niches
    assert (enriched.drop(columns="T1").max() > 0.5).all()


def test_order_of_cells_changes_nothing(cells: AnnData) -> None:
    mixed = cells[np.random.default_rng(0).permutation(cells.n_obs)].copy()
    found = niches(mixed, TYPE, n_niches=2, n_splits=1)
    np.testing.assert_array_equal(found.prob.loc[cells.obs_names], cells.obsm["niche_prob"])


def test_the_number_is_chosen() -> None:
    made = sm.datasets.simulate_niches(1000, 20, seed=121, contrast=0.9)
    found = niches(made, TYPE, max_niches=5, n_splits=1)
    assert found.n_niches == 3
    assert list(found.selection["n_niches"]) == [1, 2, 3, 4, 5]


def test_types_are_split_into_the_true_states(split: AnnData) -> None:
    own = (split.obs[TYPE] == "T1").to_numpy()
    assert adjusted_rand_score(split.obs["truth_state"][own], split.obs["niche_state"][own]) > 0.6
    table = split.uns["niche_states"].set_index("cell_type")
    assert table.loc["T1", "split"] and table.loc["T1", "pvalue"] < 1e-3
    assert table.loc["T1", "n_cells"] == own.sum()


def test_neighbours_of_states_are_those_of_the_niche(split: AnnData) -> None:
    table = split.uns["niche_state_neighbors"]
    table = table[(table["cell_type"] == "T1") & (table["qvalue"] < 0.01)]
    enriched = split.uns["niche_enrichment"]
    expected = [enriched.loc[state.split(":")[1], u] for state, u in zip(table["state"], table["neighbor"])]
    assert len(table) >= 4
    assert (np.sign(expected) == np.sign(table["log2_ratio"])).all()


def test_a_planted_gene_is_found_and_transcripts_of_neighbours_are_told(split: AnnData) -> None:
    """Gene 3 follows the niche in T1 alone; gene 4 is one of the other types of that niche, and leaks into T1."""
    assert (split.uns["niche_state_genes"]["qvalue"] > 0.01).all()
    made, rng = split.copy(), np.random.default_rng(0)
    own, here = (made.obs[TYPE] == "T1").to_numpy(), (made.obs["niche"] == "N1").to_numpy()
    dense = made.X.toarray()
    dense[:, 3] = rng.poisson(np.where(here & own, 4.0, 1.0))
    dense[:, 4] = rng.poisson(np.where(here, np.where(own, 4.0, 16.0), 0.7))
    made.X = dense
    genes = niche_states(made, n_genes=3).genes
    best = genes[genes["state"] == "T1:N1"].set_index("gene")
    planted, leaked = (best.loc[made.var_names[g]] for g in (3, 4))
    assert planted["qvalue"] < 0.01 and planted["mean"] > planted["mean_elsewhere"] and not planted["spill"]
    assert leaked["qvalue"] < 0.01 and leaked["spill"]


def test_nothing_is_split_where_types_lie_at_random() -> None:
    made = sm.datasets.simulate_niches(300, 20, seed=130, contrast=0.0, n_niches=2, n_cell_types=5)
    niches(made, TYPE, n_niches=2, n_splits=0)
    found = niche_states(made)
    assert not found.table["split"].any()
    assert list(found.labels) == list(made.obs[TYPE])
    assert found.genes.empty


def test_spots_have_niches_by_their_proportions() -> None:
    spots = sm.datasets.simulate(500, 30, seed=140, image=False, n_cell_types=6)
    spots.obsm["cell_type_proportions"] = spots.obsm["truth_proportions"]
    found = niches(spots, n_niches=3, n_splits=1)
    domain = spots.obs["truth_domain"]
    assert adjusted_rand_score(domain, found.labels) > 0.2
    with pytest.raises(InputError, match="states need one type a cell"):
        niche_states(spots)


def test_morphology_speaks_only_where_it_follows_niches(cells: AnnData) -> None:
    rng = np.random.default_rng(0)
    niche = pd.get_dummies(cells.obs["truth_niche"]).to_numpy(dtype=float)
    made = cells.copy()
    made.obsm["morph_noise"] = rng.standard_normal((cells.n_obs, 6))
    assert niches(made, TYPE, n_niches=2, n_splits=0).n_morphology == 0
    made.obsm["morph_told"] = niche @ rng.standard_normal((2, 6)) + 0.5 * rng.standard_normal((cells.n_obs, 6))
    found = niches(made, TYPE, n_niches=2, n_splits=0)
    assert found.n_morphology >= 1
    before = adjusted_rand_score(cells.obs["truth_niche"], cells.obs["niche"])
    assert adjusted_rand_score(cells.obs["truth_niche"], found.labels) > before


def test_groups_of_sections_are_compared() -> None:
    made = sections()
    found = compare_niches(made, "group", batch_key="section")
    table = found.table.set_index("part")
    assert table.loc["T2", "pvalue"] < 0.01 and table.loc["T2", "difference"] > 0.3
    assert table.loc["N1", "pvalue"] > 0.05
    assert set(table["kind"]) == {"type", "niche", "type in niche"}
    np.testing.assert_allclose(table.loc["T2", "share_first"], found.proportions["T2"][:3].mean())
    assert made.uns["niche_comparison"].equals(found.table)
    apart = [made[made.obs["section"] == s].copy() for s in made.obs["section"].unique()]
    pd.testing.assert_frame_equal(compare_niches(apart, "group").table, found.table)


def test_too_few_sections_are_said() -> None:
    made = sections()
    made = made[made.obs["section"].isin(["s0", "s1", "s4"])].copy()
    with pytest.warns(SmeldWarning, match="too few sections"):
        found = compare_niches(made, "group", batch_key="section")
    assert found.table["pvalue"].isna().all()
    with pytest.warns(SmeldWarning, match="cannot give p below 0.1"):
        compare_niches(sections(), "group", batch_key="section", test="permutation")


def test_niches_found_apart_are_not_compared(cells: AnnData) -> None:
    apart = [cells.copy(), cells.copy()]
    for made, group in zip(apart, "AB"):
        made.obs["group"] = group
    with (
        pytest.warns(SmeldWarning, match="too few sections"),
        pytest.warns(SmeldWarning, match="mean nothing across sections"),
    ):
        found = compare_niches(apart, "group", groups=TYPE)
    assert set(found.table["kind"]) == {"type"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": "none"}, "missing"),
        ({"n_niches": 0}, "n_niches must be"),
        ({"radius_um": -1.0}, "radius_um must be"),
        ({"radius_um": 1e-6}, "no cell has a neighbour"),
        ({"use_morphology": True}, "no features of morphology"),
        ({"use_morphology": "morph_x"}, "missing"),
        ({"batch_key": "none"}, "missing"),
        ({"max_niches": 0}, "max_niches must be"),
    ],
)
def test_what_is_wrong_is_said(cells: AnnData, change: dict, message: str) -> None:
    options = {"groups": TYPE, "n_niches": 2, **change}
    with pytest.raises(InputError, match=message):
        niches(cells.copy(), **options)


def test_one_type_and_no_niches_are_refused(cells: AnnData) -> None:
    made = cells.copy()
    made.obs["one"] = "T"
    with pytest.raises(InputError, match="at least two types"):
        niches(made, "one")
    with pytest.raises(InputError, match="there are no niches"):
        niche_states(made, "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"condition": "none"}, "missing"),
        ({"condition": "cell_type"}, "must lie in one group"),
        ({"condition": "section"}, "two groups"),
        ({"condition": "group", "pair": ("A", "C")}, "unknown group"),
        ({"condition": "group", "batch_key": None}, "no batch_key"),
        ({"condition": "group", "test": "t"}, "unknown test"),
    ],
)
def test_comparisons_that_cannot_be_made(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_niches(sections(), **{"batch_key": "section", **options})


def test_what_is_written_can_be_stored(split: AnnData, tmp_path) -> None:
    split.write_h5ad(tmp_path / "cells.h5ad")
    again = ad.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.uns["niche_composition"], split.uns["niche_composition"])
    found = niche_states(again, genes=False)  # settings of the niches are read from the record
    assert list(found.labels) == list(split.obs["niche_state"])
    assert _niches.NICHE in again.uns["smeld"]
