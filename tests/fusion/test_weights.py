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
    """A feature that follows the domains, or one as smooth that does not."""
    rng = np.random.default_rng(seed)
    domain = adata.obs["truth_domain"].cat.codes.to_numpy()
    if not informative:
        xy = adata.obsm["spatial_um"] / 1000
        domain = np.floor(3 * np.sin(xy @ rng.normal(size=2)) + 3)
    return domain[:, None] * 3.0 + rng.normal(size=(adata.n_obs, 2))


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
    sm.fuse(adata, evidence=True)
    table = adata.uns["fusion_evidence"].set_index("what")
    assert table.loc["used for domains", "score"] >= _weights.KEPT_SHARE * table.loc["space", "score"] - 1e-9


def test_morphology_that_tells_nothing_gets_no_say(section) -> None:
    let_in = 0
    for seed in range(5):
        adata = section.copy()
        adata.obsm["morph_made"] = _borders(adata, seed=seed, informative=False)
        let_in += sm.fuse(adata, evidence=True, eta=0.0, sigma_um=100.0, seed=seed).facts["gamma"] > 0
    assert let_in <= 1


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
