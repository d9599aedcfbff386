"""Weights from evidence: what is informative gets a say, what is not gets none."""

from __future__ import annotations

import numpy as np
import pytest

import smeld as sm
from smeld.fusion import _weights


@pytest.fixture(scope="module")
def section():
    return sm.datasets.simulate(900, 200, seed=3, image=False)


def _borders(adata, *, seed: int, informative: bool) -> np.ndarray:
    """Features that mark the domains, or as smooth stripes that do not follow them."""
    rng = np.random.default_rng(seed)
    domain = adata.obs["truth_domain"].cat.codes.to_numpy()
    if not informative:
        xy = adata.obsm["spatial_um"] / 1000
        domain = np.floor(3 * np.sin(xy @ rng.normal(size=2)) + 3)
    marks = domain[:, None] == np.unique(domain)
    return marks * 3.0 + rng.normal(size=marks.shape)


def test_the_evidence_is_a_labelled_table_and_is_stored(section) -> None:
    adata = section.copy()
    fusion = sm.fuse(adata, evidence=True)
    table = adata.uns["fusion_evidence"]
    assert list(table.columns) == _weights.COLUMNS
    assert table["what"].tolist() == ["space", "bandwidth", "expression", "used for domains"]
    assert table["score"].between(0, 1).all() and (table["se"] > 0).all()
    assert fusion.facts["alpha"] >= fusion.facts["alpha_best"] or fusion.facts["alpha"] == _weights.STRONGEST
    assert fusion.facts["alpha"] <= _weights.STRONGEST


def test_the_strength_kept_for_domains_costs_little(section) -> None:
    adata = section.copy()
    sm.fuse(adata)
    table = adata.uns["fusion_evidence"].set_index("what")
    assert table.loc["used for domains", "score"] >= _weights.KEPT_SHARE * table.loc["space", "score"] - 1e-9


def test_morphology_that_tells_nothing_gets_no_say(section) -> None:
    let_in = 0
    for seed in range(5):
        adata = section.copy()
        adata.obsm["morph_made"] = _borders(adata, seed=seed, informative=False)
        facts = sm.fuse(adata, evidence=True, eta=0.0, sigma_um=100.0, seed=seed).facts
        let_in += facts["gamma"] > 0 or facts["n_morphology"] > 0
    assert let_in <= 1


@pytest.mark.slow
def test_morphology_that_draws_the_domains_helps_to_define_them() -> None:
    adata = sm.datasets.simulate(1000, 400, tissue="layered", seed=2, image=False)
    adata.obsm["morph_made"] = _borders(adata, seed=0, informative=True)
    fusion = sm.fuse(adata)
    facts = fusion.facts
    assert facts["n_morphology"] > 0
    assert fusion.embedding.shape[1] == facts["n_components"] + facts["n_morphology"]
    row = fusion.evidence.set_index("what").loc["morphology alone"]
    assert row["chosen"] and "agreement" in row["setting"]
    # the other readers of the result know which columns are expression's
    assert adata.obsm["X_pca"].shape[1] == adata.varm["PCs"].shape[1] == facts["n_components"]
    found = sm.tl.domains(adata, 4)
    assert adata.uns["smeld"]["domain"]["params"]["n_variants"] == 9  # consensus over splits and scales, as without
    assert found.stability > 0


def test_the_number_of_components_can_be_given(section) -> None:
    adata = section.copy()
    adata.obsm["morph_made"] = _borders(adata, seed=0, informative=False)
    assert sm.fuse(adata, n_morphology=2).facts["n_morphology"] == 2
    assert sm.fuse(adata, n_morphology=2, evidence=False).facts["n_morphology"] == 2
    assert sm.fuse(adata, n_morphology=0).facts["n_morphology"] == 0


def test_what_shapes_the_smoothing_must_gain_more_than_regions_show(section) -> None:
    table = sm.fuse(section.copy()).evidence.set_index("what")
    for what in ("bandwidth", "expression"):
        if table.loc[what, "chosen"]:
            assert table.loc[what, "gain"] > (1 - _weights.KEPT_SHARE) * (
                table.loc[what, "score"] - table.loc[what, "gain"]
            )


def test_an_offset_between_sections_is_no_evidence() -> None:
    """Two sections that differ in every count by their depth of one gene: not structure that space predicts."""
    one, two = (sm.datasets.simulate(300, 100, seed=s, image=False) for s in (0, 1))
    two.X = two.X.copy()
    two.X[:, :10] = two.X[:, :10] * 8
    import anndata as ad

    both = ad.concat([one, two], label="section", keys=["a", "b"], index_unique="-")
    together = sm.fuse(both, batch_key="section").evidence.set_index("what").loc["space", "score"]
    apart = [sm.fuse(x).evidence.set_index("what").loc["space", "score"] for x in (one, two)]
    assert together < max(apart) + 0.1


def test_what_is_given_is_used(section) -> None:
    adata = section.copy()
    facts = sm.fuse(adata, evidence=True, alpha=3.0, sigma_um=80.0, gamma=0.0).facts
    assert (facts["alpha"], facts["sigma_um"], facts["gamma"]) == (3.0, 80.0, 0.0)


def test_permuting_the_spots_leaves_the_weights_alone(section) -> None:
    order = np.random.default_rng(0).permutation(section.n_obs)
    one, other = section.copy(), section[order].copy()
    a, b = sm.fuse(one, evidence=True), sm.fuse(other, evidence=True)
    assert a.facts == b.facts
    assert np.array_equal(a.embedding[order], b.embedding)


def test_fixed_weights_on_request(section) -> None:
    fusion = sm.fuse(section.copy(), evidence=False)
    assert fusion.evidence is None
    assert fusion.facts["alpha"] == _weights.STRONGEST


def test_values_that_are_no_counts_get_the_defaults(section) -> None:
    adata = section.copy()
    adata.X = adata.X * 0.5
    with pytest.warns(sm.SmeldWarning, match="whole numbers"):
        fusion = sm.fuse(adata, evidence=True)
    assert fusion.evidence is None
    assert fusion.facts["alpha"] == _weights.STRONGEST


def test_large_sections_are_judged_on_a_part_of_them(section, monkeypatch) -> None:
    from smeld.kernels.graph import spatial_graph

    monkeypatch.setattr(_weights, "MOST_SPOTS", 300)
    rng = np.random.default_rng(0)
    rows = _weights._sample(spatial_graph(rng.uniform(0, 1e4, size=(9000, 2))))
    assert 200 <= len(rows) <= 1500
    assert len(np.unique(rows)) == len(rows)
