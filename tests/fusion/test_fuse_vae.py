"""``sm.fuse(method="vae")``: what it writes, what domains make of it, small panels, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData

import smeld as sm
from smeld.fusion import _variants
from smeld.fusion import vae as graph_vae

pytest.importorskip("torch", reason="needs smeld[deep]")
pytest.importorskip("torch_geometric", reason="needs smeld[deep]")

FEW: dict[str, Any] = {"evidence": False, "epochs": 12}


@pytest.fixture(scope="module")
def section() -> AnnData:
    return sm.datasets.simulate(700, 300, seed=3, image=False)


@pytest.fixture(scope="module")
def fused(section: AnnData) -> AnnData:
    adata = section.copy()
    sm.fuse(adata, "vae", **FEW)
    return adata


def test_what_it_writes(fused: AnnData, tmp_path: Path) -> None:
    z, sd = fused.obsm["fused_vae"], fused.obsm["sd_fused_vae"]
    assert z.shape == sd.shape and np.isfinite(z).all() and (sd > 0).all()
    sm.write(fused, tmp_path / "x.h5ad")
    read = sm.read(tmp_path / "x.h5ad")
    assert np.array_equal(read.obsm["sd_fused_vae"], sd)
    assert float(read.uns["smeld"]["fused_vae"]["params"]["held_out"]) > 0


def test_domains_are_a_consensus_over_variants_with_and_without_what_was_learned(fused: AnnData) -> None:
    found = [
        make()
        for make in _variants.variants(fused, "fused_vae", n_splits=1, scales=True, seed=np.random.SeedSequence(0))
    ]
    assert len(found) > 1
    plain = fused.copy()
    sm.fuse(plain, evidence=False)
    alone = [
        make()
        for make in _variants.variants(plain, "fused_sme", n_splits=1, scales=True, seed=np.random.SeedSequence(0))
    ]
    learned = found[0] - alone[0]
    assert np.abs(learned).max() > 0
    # each strength and split twice: with the correction and without
    learned_twice = [np.abs(one - other).max() for one in found for other in alone]
    assert sum(value < 1e-8 for value in learned_twice) == len(alone)
    with_it = [np.abs(one - other - learned).max() for one in found for other in alone]
    assert sum(value < 1e-8 for value in with_it) == len(alone)
    other_components = fused.copy()
    other_components.obsm["X_pca"] = fused.obsm["X_pca"] * 1.5
    seed = np.random.SeedSequence(0)
    assert len(_variants.variants(other_components, "fused_vae", n_splits=0, scales=True, seed=seed)) == 1
    assert sm.tl.domains(fused.copy(), 4, use_rep="fused_vae").prob.shape == (fused.n_obs, 4)


def test_few_counts_take_components_of_smoothed_profiles(section: AnnData) -> None:
    adata = section[:, :60].copy()
    adata.X = adata.X.copy()
    adata.X.data = np.random.default_rng(0).binomial(adata.X.data.astype(int), 0.2).astype(np.float32)
    found = sm.fuse(adata, "vae", **FEW)
    assert found.facts["basis"] in ("components", "profiles")
    assert found.facts["n_components"] < 5, "this section is meant to be one whose components drown in noise"
    assert found.facts["basis"] == "profiles" or found.embedding.shape[1] == found.facts["n_components"]


def test_an_interrupted_training_goes_on(section: AnnData, tmp_path: Path) -> None:
    whole = sm.fuse(section.copy(), "vae", **FEW).embedding
    sm.fuse(section.copy(), "vae", evidence=False, epochs=6, folder=str(tmp_path / "state"))
    resumed = sm.fuse(section.copy(), "vae", **FEW, folder=str(tmp_path / "state")).embedding
    np.testing.assert_allclose(resumed, whole, atol=1e-6)


def test_an_ensemble_is_the_mean_of_single_runs_and_its_spread_both_spreads(
    section: AnnData, fused: AnnData, tmp_path: Path
) -> None:
    adata = section.copy()
    found = sm.fuse(adata, "vae", **FEW, n_members=2, folder=str(tmp_path / "state"))
    first, second = graph_vae.member_seeds(0, 2)
    assert first == 0
    other = section.copy()
    sm.fuse(other, "vae", **FEW, seed=second)
    means = np.stack([one.obsm["fused_vae"] for one in (fused, other)])
    spreads = np.stack([one.obsm["sd_fused_vae"] for one in (fused, other)])
    # the deterministic part is solved to within rounding from another start, networks magnify that
    close = 1e-3 * means.std()
    np.testing.assert_allclose(found.embedding, means.mean(axis=0), atol=close)
    whole = np.sqrt((spreads**2).mean(axis=0) + means.var(axis=0))
    np.testing.assert_allclose(adata.obsm["sd_fused_vae"], whole, atol=close)
    relative = np.sqrt(means.var(axis=0).mean() / found.embedding.var(axis=0).mean())
    assert found.facts["n_members"] == 2
    assert found.facts["ensemble_sd"] == pytest.approx(relative, rel=0.02) and relative > 1e-3
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["member_1", "member_2"]
    variants = _variants.variants(adata, "fused_vae", n_splits=0, scales=True, seed=np.random.SeedSequence(0))
    assert len(variants) > 1, "domains know the mean correction for what it is"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_members": 0}, "at least 1"),
        ({"n_members": 2, "n_extra": 3}, "n_extra=3.*axes beyond the prior's"),
        ({"n_members": 2, "save_model": "model"}, "save_model=model.*single network"),
        ({"n_members": 2, "load_model": "model"}, "load_model=model.*single network"),
    ],
)
def test_members_that_cannot_be_averaged_or_stored(section: AnnData, options: dict[str, Any], said: str) -> None:
    with pytest.raises(sm.InputError, match=said):
        sm.fuse(section.copy(), "vae", **FEW, **options)


def test_what_it_refuses(section: AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    logged = section.copy()
    logged.X = logged.X.copy()
    logged.X.data = np.log1p(logged.X.data)
    with pytest.raises(sm.InputError, match="models counts"), pytest.warns(sm.SmeldWarning):
        sm.fuse(logged, "vae")
    with pytest.raises(sm.InputError, match="device"):
        sm.fuse(section.copy(), "vae", **FEW, device="abacus")
    with pytest.raises(sm.InputError, match="does not take"):
        sm.fuse(section.copy(), "vae", alpa=3)
    monkeypatch.setattr("smeld.nn._extra.available", lambda *names: False)
    with pytest.raises(sm.InputError, match=r"smeld\[deep\]"):
        sm.fuse(section.copy(), "vae")


def test_spots_that_are_all_alike() -> None:
    adata = sm.datasets.simulate(200, 60, seed=0, image=False)
    adata.X = adata.X.copy()
    adata.X[:] = 1
    found = sm.fuse(adata, "vae", **FEW)
    assert np.isfinite(found.embedding).all()


def test_a_saved_model_says_the_same_of_its_own_section_and_fits_another(section: AnnData, tmp_path: Path) -> None:
    where = str(tmp_path / "model")
    own = sm.fuse(section.copy(), "vae", **FEW, save_model=where)
    again = sm.fuse(section[:, ::-1].copy(), "vae", load_model=where)
    np.testing.assert_allclose(again.embedding, own.embedding, atol=1e-3 * own.embedding.std())
    np.testing.assert_allclose(again.posterior_sd, own.posterior_sd, rtol=1e-3)
    other = sm.datasets.simulate(700, 300, seed=3, section=1, image=False)
    found = sm.fuse(other, "vae", load_model=where)
    assert found.embedding.shape == own.embedding.shape and np.isfinite(found.embedding).all()
    assert sm.tl.domains(other, 4, use_rep="fused_vae").labels.nunique() == 4
    few = section[:, :290].copy()
    assert sm.fuse(few, "vae", load_model=where).facts["n_model_genes"] <= 290
    with pytest.raises(sm.InputError, match="needs 80% of its"):
        sm.fuse(section[:, :100].copy(), "vae", load_model=where)
    with pytest.raises(sm.InputError, match="no saved model"):
        sm.fuse(section.copy(), "vae", load_model=str(tmp_path / "nothing"))
