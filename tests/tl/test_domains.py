"""Domains: what is written, that the truth of simulated sections is recovered, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import smeld as sm
from smeld import _keys


def blobs(n: int = 120, k: int = 3, *, seed: int = 0, apart: float = 9.0) -> AnnData:
    """Spots with a ready representation of ``k`` clusters of clearly different size."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(k), np.diff(np.round(np.linspace(0, np.sqrt(n), k + 1) ** 2).astype(int)))
    adata = AnnData(sparse.csr_matrix(rng.poisson(2.0, (n, 5)).astype(np.float32)))
    adata.obs_names = [f"s{i:03d}" for i in rng.permutation(n)]
    adata.obsm["spatial_um"] = rng.uniform(0, 1000, (n, 2))
    adata.obsm["rep"] = apart * np.eye(k)[truth] + rng.normal(size=(n, k))
    adata.obs["truth"] = truth
    return adata


def check_written(adata: AnnData, k: int, key: str = "domain") -> None:
    labels, prob = adata.obs[key], adata.obsm[f"{key}_prob"]
    names = [str(i + 1) for i in range(k)]
    assert isinstance(labels.dtype, pd.CategoricalDtype) and list(labels.cat.categories) == names
    assert isinstance(prob, pd.DataFrame) and list(prob.columns) == names
    assert prob.index.equals(adata.obs_names)
    values = prob.to_numpy()
    assert (values >= 0).all() and values.sum(axis=1) == pytest.approx(np.ones(adata.n_obs))
    confidence = adata.obs[f"{key}_confidence"].to_numpy()
    assert ((confidence >= 0) & (confidence <= 1 + 1e-12)).all()
    assert confidence == pytest.approx(values.max(axis=1))
    assert labels.astype(str).tolist() == [names[i] for i in values.argmax(axis=1)]
    sizes = labels.value_counts()[names].to_numpy()
    assert (np.diff(sizes) <= 0).all()  # "1" is the largest
    assert labels.notna().all()


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_a_given_number_of_domains(k: int) -> None:
    adata = blobs()
    kept = adata.copy()
    made = sm.tl.domains(adata, k, use_rep="rep")
    check_written(adata, k)
    assert made.n_domains == k and made.selection is None
    assert made.labels.tolist() == adata.obs["domain"].tolist()
    assert np.array_equal(made.prob, adata.obsm["domain_prob"])
    assert abs(adata.X - kept.X).nnz == 0 and np.array_equal(adata.obsm["rep"], kept.obsm["rep"])
    record = adata.uns[_keys.RECORD]["domain"]
    assert record["params"]["n_domains"] == k and record["inputs"]["use_rep"] == "rep"


@pytest.mark.parametrize("seed", range(3))
def test_separate_clusters_are_found_with_confidence(seed: int) -> None:
    adata = blobs(seed=seed)
    sm.tl.domains(adata, 3, use_rep="rep", seed=seed)
    assert adjusted_rand_score(adata.obs["truth"], adata.obs["domain"]) == 1.0
    assert adata.obs["domain_confidence"].min() > 0.9
    assert adata.obs["domain"].value_counts().tolist() == sorted(adata.obs["truth"].value_counts(), reverse=True)


def test_spots_between_clusters_are_less_certain() -> None:
    adata = blobs(apart=12.0)
    rep = adata.obsm["rep"].copy()
    rep[0] = (rep[adata.obs["truth"] == 1].mean(axis=0) + rep[adata.obs["truth"] == 2].mean(axis=0)) / 2
    adata.obsm["rep"] = rep
    sm.tl.domains(adata, 3, use_rep="rep")
    confidence = adata.obs["domain_confidence"].to_numpy()
    assert confidence[0] <= np.quantile(confidence, 0.03)


def test_the_number_is_chosen_and_the_criterion_shown() -> None:
    adata = blobs(240, 4)
    made = sm.tl.domains(adata, use_rep="rep", max_domains=8)
    check_written(adata, made.n_domains)
    assert made.n_domains == 4
    assert made.selection is not None and made.selection["n_domains"].max() <= 8
    assert list(made.selection.columns) == ["n_domains", "bic", "stability"]
    assert made.selection["stability"].between(-1, 1).all()
    assert "domain_selection" in adata.uns


def test_the_criterion_of_an_earlier_choice_does_not_stay() -> None:
    adata = blobs()
    sm.tl.domains(adata, use_rep="rep", max_domains=5)
    sm.tl.domains(adata, 2, use_rep="rep")
    assert "domain_selection" not in adata.uns


def test_key_added_names_all_that_is_written() -> None:
    adata = blobs()
    sm.tl.domains(adata, 3, use_rep="rep", key_added="region")
    check_written(adata, 3, "region")
    assert "domain" not in adata.obs and "region" in adata.uns[_keys.RECORD]


def test_the_same_seed_gives_the_same_domains() -> None:
    one, two = blobs(apart=3.0), blobs(apart=3.0)
    for a in (one, two):
        sm.tl.domains(a, 4, use_rep="rep", seed=7)
    assert np.array_equal(one.obsm["domain_prob"], two.obsm["domain_prob"])


def test_a_table_of_features_serves_as_representation() -> None:
    one, two = blobs(), blobs()
    two.obsm["rep"] = pd.DataFrame(two.obsm["rep"], index=two.obs_names, columns=list("abc"))
    for a in (one, two):
        sm.tl.domains(a, 3, use_rep="rep")
    assert one.obs["domain"].tolist() == two.obs["domain"].tolist()


def test_stretching_the_representation_changes_nothing() -> None:
    one, two = blobs(apart=6.0), blobs(apart=6.0)
    two.obsm["rep"] = two.obsm["rep"] * [1e-3, 1, 100] + 50
    for a in (one, two):
        sm.tl.domains(a, 3, use_rep="rep")
    assert adjusted_rand_score(one.obs["domain"], two.obs["domain"]) == 1.0


def test_duplicated_spots_share_their_domain() -> None:
    adata = blobs(60)
    both = ad.concat([adata, adata], index_unique="-")
    sm.tl.domains(both, 3, use_rep="rep")
    check_written(both, 3)
    label = both.obs["domain"].astype(str).to_numpy()
    assert (label[:60] == label[60:]).all()


def test_results_survive_a_file(tmp_path: Path) -> None:
    adata = blobs()
    sm.tl.domains(adata, use_rep="rep", max_domains=4)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    check_written(again, adata.uns[_keys.RECORD]["domain"]["params"]["n_domains"])
    assert again.obs["domain"].tolist() == adata.obs["domain"].tolist()
    assert again.uns["domain_selection"].shape == adata.uns["domain_selection"].shape


# ---------------------------------------------------------------------------------------------- simulated sections


def pca_kmeans(adata: AnnData, k: int) -> np.ndarray:
    plain = AnnData(adata.X.copy())
    sc.pp.normalize_total(plain)
    sc.pp.log1p(plain)
    sc.pp.pca(plain, n_comps=20)
    return KMeans(k, n_init=5, random_state=0).fit_predict(plain.obsm["X_pca"])


@pytest.mark.parametrize(("tissue", "seed"), [("layered", 1), ("nested", 0), ("branched", 2)])
def test_simulated_domains_are_found_far_better_than_by_pca_and_kmeans(tissue: Any, seed: int) -> None:
    adata = sm.datasets.simulate(n_obs=1500, n_genes=600, seed=seed, tissue=tissue, image=False)
    k = adata.obs["truth_domain"].nunique()
    sm.tl.domains(adata, k)  # fuses first
    check_written(adata, k)
    assert "fused_sme" in adata.obsm
    ours = adjusted_rand_score(adata.obs["truth_domain"], adata.obs["domain"])
    theirs = adjusted_rand_score(adata.obs["truth_domain"], pca_kmeans(adata, k))
    assert ours > 0.35 and ours > theirs + 0.15


def test_confident_spots_are_right_more_often() -> None:
    adata = sm.datasets.simulate(n_obs=1000, n_genes=300, seed=0, image=False)
    sm.tl.domains(adata, 7)
    sure = (adata.obs["domain_confidence"] >= adata.obs["domain_confidence"].median()).to_numpy()
    score = [adjusted_rand_score(adata.obs["truth_domain"][s], adata.obs["domain"][s]) for s in (sure, ~sure)]
    assert score[0] > score[1]


# ---------------------------------------------------------------------------------------------------- bounds and errors


@pytest.mark.parametrize("n", [2, 3, 5])
def test_tiny_sections_may_have_a_domain_for_each_spot(n: int) -> None:
    adata = blobs()[:n].copy()
    made = sm.tl.domains(adata, n)
    check_written(adata, n)
    assert made.n_domains == n
    chosen = sm.tl.domains(adata)
    assert 1 <= chosen.n_domains <= n


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_domains": 121}, "120 spots, 121 domains"),
        ({"n_domains": 0}, "at least 1"),
        ({"n_domains": -3}, "at least 1"),
        ({"n_domains": 2.5}, "whole number"),
        ({"n_domains": "3"}, "whole number"),
        ({"n_domains": 3, "n_starts": 0}, "n_starts"),
        ({"n_domains": 3, "n_splits": -1}, "n_splits"),
        ({"n_domains": 3, "mode": "cells"}, "mode.*cells"),
        ({"n_domains": 3, "unsure": 1.5}, "unsure"),
        ({"n_domains": 3, "use_rep": None, "batch_key": "slide"}, "slide.*missing"),
        ({"n_domains": 3, "batch_key": "slide"}, "slide.*missing"),
        ({"max_domains": 0}, "max_domains"),
        ({"max_domains": -1}, "max_domains"),
        ({"n_domains": 3, "use_rep": "fused_sm"}, "fused_sm.*missing.*rep"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    adata = blobs()
    with pytest.raises(sm.InputError, match=message):
        sm.tl.domains(adata, **{"use_rep": "rep", **settings})
    assert "domain" not in adata.obs


@pytest.mark.parametrize("n_domains", [3, np.int64(3)])
def test_whole_numbers_of_any_kind_are_taken(n_domains: Any) -> None:
    adata = blobs()
    assert sm.tl.domains(adata, n_domains, use_rep="rep").n_domains == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_representation_must_be_finite(bad: float) -> None:
    adata = blobs()
    adata.obsm["rep"][4, 1] = bad
    with pytest.raises(sm.InputError, match=r"rep.*finite"):
        sm.tl.domains(adata, 3, use_rep="rep")


@pytest.mark.parametrize(
    ("bic", "expected"),
    [([100.0, 20.0, 10.0, 0.0], 3), ([0.0, 10.0, 20.0], 1), ([100.0, 50.0, 0.0, 30.0], 3), ([5.0], 1)],
)
def test_the_number_is_the_fewest_that_reach_most_of_the_fall(bic: list[float], expected: int) -> None:
    from smeld.tl._domains import fewest

    assert fewest(pd.DataFrame({"n_domains": range(1, len(bic) + 1), "bic": bic})) == expected


@pytest.mark.parametrize(
    ("bic", "stability", "expected"),
    [
        ([100.0, 20.0, 10.0, 0.0], [1.0, 0.95, 0.8, 0.6], 2),  # one less is clearly more stable
        ([100.0, 20.0, 10.0, 0.0], [1.0, 0.82, 0.8, 0.81], 3),  # as stable: the fewest that reach the fall stays
        ([100.0, 20.0, 10.0, 0.0], [1.0, 0.5, 0.6, 0.9], 4),
        ([100.0, 20.0, 10.0, 9.0, 0.0], [1.0, 0.5, 0.6, 0.7, 0.99], 4),  # two more is too far
        ([100.0, 0.0, 0.0], [1.0, 0.5, 0.4], 2),  # one domain is always stable, and no rival
        ([0.0, 10.0, 20.0], [1.0, 0.9, 0.9], 1),
        ([5.0], [1.0], 1),
    ],
)
def test_near_the_fewest_the_most_stable_number_is_taken(
    bic: list[float], stability: list[float], expected: int
) -> None:
    from smeld.tl._domains import most_stable

    table = pd.DataFrame({"n_domains": range(1, len(bic) + 1), "bic": bic, "stability": stability})
    assert most_stable(table) == expected


@pytest.mark.parametrize(("scales", "made_of"), [(True, 2), (True, 0), (False, 2), (False, 0)])
def test_the_number_is_judged_without_the_other_strengths_of_smoothing(scales: bool, made_of: int) -> None:
    """``made_of`` splits could be made (none of large sections, or of values that are no counts)."""
    from smeld.tl._domains import _unscaled

    order = [1.0]
    for i in range(1 + made_of):
        order += [s for s in ((0.5, 1.0, 2.0) if scales else (1.0,)) if i or s != 1.0]
    assert [float(v[0, 0]) for v in _unscaled([np.full((1, 1), s) for s in order], scales)] == [1.0] * (1 + made_of)


# ------------------------------------------------------------------------------- consensus, cell types, sections


def simulated(n_obs: int = 400, **settings: Any) -> AnnData:
    return sm.datasets.simulate(**{"n_obs": n_obs, "n_genes": 150, "seed": 0, "image": False, **settings})


@pytest.fixture(scope="module")
def plain() -> AnnData:
    """A simulated section, fused and divided."""
    adata = simulated()
    sm.tl.domains(adata, 5, unsure=0.6, seed=3)
    return adata


def test_stability_and_unsure_spots_are_told(plain: AnnData) -> None:
    adata = plain.copy()
    unsure = adata.obs["domain_unsure"]
    assert unsure.dtype == bool and np.array_equal(unsure, adata.obs["domain_confidence"] < 0.6)
    assert 0 < unsure.mean() < 1
    params = adata.uns[_keys.RECORD]["domain"]["params"]
    assert params["n_variants"] == 9 and params["mode"] == "domain"  # stored, 2 scales, 2 splits at 3 scales
    made = sm.tl.domains(adata, 5, seed=3)
    assert made.stability == params["stability"] and 0 < made.stability <= 1
    assert "domain_unsure" not in adata.obs  # that of the earlier run does not stay
    assert np.array_equal(made.prob, plain.obsm["domain_prob"])  # the same seed gives the same result


def test_permuting_spots_of_counts_permutes_the_partition(plain: AnnData) -> None:
    other = simulated()
    other = other[np.random.default_rng(5).permutation(other.n_obs)].copy()
    sm.tl.domains(other, 5, seed=3)
    back = other[plain.obs_names]
    assert back.obs["domain"].tolist() == plain.obs["domain"].tolist()
    assert back.obsm["domain_prob"].to_numpy() == pytest.approx(plain.obsm["domain_prob"].to_numpy(), abs=1e-9)


def test_two_threads_give_the_bits_of_one(plain: AnnData) -> None:
    import numba
    from threadpoolctl import threadpool_limits

    before = numba.get_num_threads()
    made = []
    try:
        for n in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(n)
            adata = simulated()
            with threadpool_limits(n):
                sm.tl.domains(adata, 5, seed=3)
            made.append(adata.obsm["domain_prob"].to_numpy())
    finally:
        numba.set_num_threads(before)
    assert np.array_equal(made[0], made[1]) and np.array_equal(made[0], plain.obsm["domain_prob"])


@pytest.mark.parametrize(("angle", "unit"), [(0.7, 1.0), (0.0, 1e-3)])
def test_turning_the_section_or_changing_the_unit_changes_nothing(plain: AnnData, angle: float, unit: float) -> None:
    adata = simulated()
    c, s = np.cos(angle), np.sin(angle)
    adata.obsm["spatial_um"] = adata.obsm["spatial_um"] @ np.array([[c, s], [-s, c]]) * unit
    sm.fuse(adata)
    sm.tl.domains(adata, 5, seed=3)
    assert adjusted_rand_score(plain.obs["domain"], adata.obs["domain"]) >= 0.99


def test_cell_types_are_found_better_than_by_domains() -> None:
    adata = simulated(800, layout="cells", mean_counts=1000, cell_type_effect=2.0)
    sm.tl.domains(adata, 8)
    made = sm.tl.domains(adata, 8, mode="cell_type", unsure=0.5)
    check_written(adata, 8, "cell_type")
    assert "cell_type_unsure" in adata.obs and 0 < made.stability <= 1
    record = adata.uns[_keys.RECORD]["cell_type"]
    assert record["inputs"]["use_rep"] == "X_types" and record["params"]["mode"] == "cell_type"
    truth = adata.obs["truth_cell_type"]
    score = {key: adjusted_rand_score(truth, adata.obs[key]) for key in ("domain", "cell_type")}
    assert score["cell_type"] > score["domain"] + 0.1


@pytest.fixture(scope="module")
def sections() -> AnnData:
    """Two sections of one organ on the same positions, the second with a batch effect, divided together."""
    parts = [simulated(500, n_genes=300, section=s, batch_effect=0.5 * s) for s in (0, 1)]
    both = ad.concat(parts, index_unique="-")
    sm.tl.domains(both, 7, batch_key="section")
    return both


def test_domains_of_two_sections_are_as_right_as_those_of_each_alone(sections: AnnData) -> None:
    single = []
    for s in sections.obs["section"].unique():
        alone = AnnData(sections[sections.obs["section"] == s].X.copy())
        here = sections[sections.obs["section"] == s]
        alone.obs_names, alone.obsm["spatial_um"] = here.obs_names, here.obsm["spatial_um"].copy()
        sm.tl.domains(alone, 7)
        single.append(adjusted_rand_score(here.obs["truth_domain"], alone.obs["domain"]))
    shared = adjusted_rand_score(sections.obs["truth_domain"], sections.obs["domain"])
    assert shared >= np.mean(single) - 0.05
    assert adjusted_rand_score(sections.obs["section"], sections.obs["domain"]) < 0.1


def test_sections_share_no_edge_and_the_record_names_them(sections: AnnData) -> None:
    number = sections.obs["section"].astype(str).to_numpy()
    for key in ("spatial_connectivities", "spatial_distances", "sme_weights"):
        edges = sections.obsp[key].tocoo()
        assert (number[edges.row] == number[edges.col]).all()
    record = sections.uns[_keys.RECORD]
    assert record["fused_sme"]["inputs"]["batch_key"] == record["domain"]["inputs"]["batch_key"] == "section"
    kept = sections.obsm["fused_sme"].copy()
    again = sections.copy()
    sm.tl.domains(again, 3, batch_key="section")
    assert np.array_equal(again.obsm["fused_sme"], kept)  # fused for these sections already


def test_a_section_fused_as_one_is_fused_again_for_several() -> None:
    adata = simulated(200)
    sm.fuse(adata)
    adata.obs["half"] = np.where(adata.obsm["spatial_um"][:, 0] < np.median(adata.obsm["spatial_um"][:, 0]), "l", "r")
    sm.tl.domains(adata, 3, batch_key="half", n_splits=0)
    edges = adata.obsp["spatial_distances"].tocoo()
    half = adata.obs["half"].to_numpy()
    assert (half[edges.row] == half[edges.col]).all()


def test_spots_without_a_section_are_refused() -> None:
    adata = simulated(100)
    adata.obs["slide"] = pd.Categorical(["a", None] * 50)
    with pytest.raises(sm.InputError, match="50 missing"):
        sm.tl.domains(adata, 3, batch_key="slide")


@pytest.mark.parametrize("what", ["none", "scaled", "logged"])
def test_a_fused_section_is_divided_whatever_became_of_its_counts(plain: AnnData, what: str) -> None:
    """As is usual after fusing: X scaled or logged for plots, or dropped. Then no counts are there to be split."""
    adata = plain.copy()
    dense = adata.X.toarray()
    adata.X = {"none": None, "scaled": dense - dense.mean(axis=0), "logged": np.log1p(dense / 3)}[what]
    made = sm.tl.domains(adata, 5)
    assert adjusted_rand_score(plain.obs["domain"], made.labels) > 0.5
    assert adata.uns[_keys.RECORD]["domain"]["params"]["n_variants"] == 3


def test_an_embedding_is_varied_with_its_own_strength_or_not_at_all(plain: AnnData) -> None:
    """Of two embeddings the stored components and weights belong to the last: the first is taken as it stands."""
    from smeld.fusion import _variants

    adata = simulated()
    sm.fuse(adata, key_added="fused_first", alpha=2.0)
    sm.fuse(adata, key_added="fused_second", alpha=2.0, eta=2.0)
    assert adata.obsm["fused_first"].shape == adata.obsm["X_pca"].shape
    assert np.abs(adata.obsm["fused_first"] - adata.obsm["fused_second"]).max() > 0.01
    settings: dict[str, Any] = {"n_splits": 0, "scales": True, "seed": np.random.SeedSequence(0)}
    assert len(_variants.variants(adata, "fused_second", **settings)) == 3
    assert len(_variants.variants(adata, "fused_first", **settings)) == 1
