"""Denoised expression with intervals: its parts against scipy, its cover against truth, what is written and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import sparse, stats

import smeld as sm
from smeld.tl import _denoise_vae as bayes

pytestmark = pytest.mark.filterwarnings("error::smeld.SmeldWarning")
FEW: dict[str, Any] = {"epochs": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def fused() -> AnnData:
    adata = sm.datasets.simulate(n_obs=200, n_genes=60, seed=100, image=False)
    adata.obs_names = [f"s{k:04d}" for k in np.random.default_rng(0).permutation(200)]
    sm.fuse(adata)
    return adata


# ------------------------------------------------------------------------------------------------------------ parts


def test_the_posterior_is_the_conjugate_one() -> None:
    """Against a grid of rates: gamma prior of this mean and dispersion, times the Poisson likelihood."""
    rate = np.linspace(1e-4, 60, 400_000)
    for mu, x, spread in ((2.0, 0, 0.5), (2.0, 7, 0.5), (0.3, 1, 1.5)):
        density = stats.gamma.pdf(rate, 1 / spread, scale=mu * spread) * stats.poisson.pmf(x, rate)
        mean, form = bayes.posterior(np.array(mu), np.array(x), np.array(spread))
        weight = density / density.sum()
        assert float(mean) == pytest.approx(float(weight @ rate), rel=2e-3)
        assert float(mean) ** 2 / float(form) == pytest.approx(float(weight @ (rate - mean) ** 2), rel=5e-3)


@pytest.mark.parametrize("p", [0.05, 0.25, 0.95])
def test_quantiles_are_those_of_scipy(p: float) -> None:
    shape = np.geomspace(0.1, 1e5, 300)
    np.testing.assert_allclose(bayes.quantile(p, shape), stats.gamma.ppf(p, shape) / shape, rtol=2e-3, atol=1e-12)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(some.floats(0.02, 1e4))
def test_quantiles_grow_with_probability(shape: float) -> None:
    found = [float(bayes.quantile(p, np.array(shape))) for p in (0.05, 0.25, 0.5, 0.75, 0.95)]
    assert found == sorted(set(found))


def test_likelihood_is_that_of_scipy() -> None:
    draws = np.random.default_rng(0)
    x, mean, d = (
        draws.poisson(2.0, (20, 5)).astype(float),
        draws.gamma(2.0, 1.0, (20, 5)),
        np.array([0.1, 0.5, 1, 2, 4]),
    )
    expected = stats.nbinom.logpmf(x, 1 / d, 1 / (1 + d * mean))
    np.testing.assert_allclose(bayes.negative_binomial(x, mean, d), expected, rtol=1e-9)


def test_dispersions_are_found_and_rare_genes_lean_on_the_others() -> None:
    draws = np.random.default_rng(0)
    mean = np.repeat([[4.0] * 20 + [0.02] * 20], 1500, axis=0)
    wanted = np.r_[np.full(10, 0.2), np.full(10, 0.8), np.full(20, 0.5)]
    x = draws.poisson(draws.gamma(1 / wanted, mean * wanted)).astype(float)
    found = bayes.dispersions(*bayes._moments(x, mean))
    assert found[:20] == pytest.approx(wanted[:20], rel=0.35)
    assert ((found[20:] > 0.1) & (found[20:] < 2.0)).all()
    alone = ((x - mean) ** 2 - x).sum(axis=0) / (mean**2).sum(axis=0)
    assert np.abs(found[20:] - 0.5).mean() < 0.5 * np.abs(alone[20:] - 0.5).mean()


# ---------------------------------------------------------------------------------------------------- without network


def test_intervals_hold_the_rates_that_counts_were_drawn_from() -> None:
    """Poisson counts of known rates: two halves, and a spread of every spot's own."""
    draws = np.random.default_rng(100)
    adata = sm.datasets.simulate(n_obs=300, n_genes=60, seed=100, image=False)
    side = np.where(adata.obsm["spatial_um"][:, 0] > np.median(adata.obsm["spatial_um"][:, 0]), 1.0, -1.0)
    rate = 3.0 * np.exp(0.7 * np.outer(side, np.arange(60) < 20)) * draws.gamma(2.5, 1 / 2.5, (300, 60))
    adata.X = sparse.csr_matrix(draws.poisson(rate).astype(np.float32))
    sm.tl.denoise(adata, interval=0.9)
    low, high = adata.layers["sme_low"], adata.layers["sme_high"]
    assert 0.85 < ((low <= rate) & (rate <= high)).mean() < 0.95
    assert (high - low).mean() < 0.95 * 2 * 1.645 * np.sqrt(rate).mean()  # narrower than the counts' own


def test_intervals_leave_the_layer_as_it_is_and_are_nested(fused: AnnData) -> None:
    plain, adata = fused.copy(), fused.copy()
    how = sm.tl.denoise(plain).settings
    sm.tl.denoise(adata, interval=0.9, settings=how)
    sm.tl.denoise(adata, interval=0.5, settings=how, key_added="half")
    assert np.array_equal(adata.layers["sme"], plain.layers["sme"])
    for inner, outer in ((adata.layers["sme_low"], adata.layers["half_low"]),
                         (adata.layers["half_high"], adata.layers["sme_high"])):  # fmt: skip
        assert (inner <= outer).all() and np.isfinite(outer).all()
    assert float(adata.uns["smeld"]["sme"]["params"]["interval"]) == 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"interval": 1.0}, "probability"),
        ({"interval": 0.9, "noise": "overdispersed"}, "own rate"),
        ({"epochs": 3}, "method='vae'"),
        ({"model": "x"}, "method='vae'"),
        ({"method": "vae", "epoch": 3}, "epochs"),
        ({"method": "vae", "noise": "overdispersed"}, "own rate"),
        ({"method": "vea"}, "vae"),
    ],
)
def test_what_is_refused(fused: AnnData, options: dict[str, Any], words: str) -> None:
    with pytest.raises(sm.InputError, match=words):
        sm.tl.denoise(fused.copy(), **options)


# -------------------------------------------------------------------------------------------------------- the network


def deep() -> None:
    pytest.importorskip("torch", reason="needs smeld[deep]")
    pytest.importorskip("torch_geometric", reason="needs smeld[deep]")


@pytest.fixture(scope="module")
def denoised(fused: AnnData) -> AnnData:
    deep()
    adata = fused.copy()
    scores = sm.tl.denoise(adata, method="vae", interval=0.9, **FEW).scores
    assert scores is not None
    assert list(scores.index) == ["section mean", "measured", "smeld", "vae"]
    assert scores.loc["vae", "deviance"] < scores.loc["section mean", "deviance"] < scores.loc["measured", "deviance"]
    return adata


def test_three_layers_on_the_scale_of_the_counts(fused: AnnData, denoised: AnnData) -> None:
    mean, low, high = (denoised.layers[key] for key in ("vae", "vae_low", "vae_high"))
    assert set(denoised.layers) == {"vae", "vae_low", "vae_high"} and mean.dtype == np.float32
    assert (low >= 0).all() and (low < high).all() and (mean > low).all() and np.isfinite(high).all()
    assert mean.sum(axis=1) == pytest.approx(np.asarray(fused.X.sum(axis=1)).ravel(), rel=0.2)
    record = denoised.uns["smeld"]["vae"]["params"]
    assert record["method"] == "vae" and record["epochs"] == 4 and 0 <= record["blend"] <= 1


def test_order_and_seed_decide_all(fused: AnnData, denoised: AnnData) -> None:
    deep()
    order = np.random.default_rng(1).permutation(fused.n_obs)
    other = fused[order].copy()
    sm.tl.denoise(other, method="vae", interval=0.9, **FEW)
    for key in ("vae", "vae_low", "vae_high"):
        assert np.array_equal(other.layers[key], denoised.layers[key][order])


def test_genes_that_the_decoder_does_not_have_are_given_too(fused: AnnData) -> None:
    deep()
    adata = fused.copy()
    names = list(adata.var_names[[5, 40, 12]])
    made = sm.tl.denoise(adata, method="vae", interval=0.9, genes=names, n_genes=20, **FEW)
    assert (made.slot, made.key) == ("obsm", "vae")
    for key in ("vae", "vae_low", "vae_high"):
        assert list(adata.obsm[key].columns) == names and np.isfinite(adata.obsm[key].to_numpy()).all()
    size = np.asarray(adata.X.sum(axis=1)).ravel()
    share = np.asarray(adata[:, names].X.sum(axis=0)).ravel() / size.sum()
    assert adata.obsm["vae"].to_numpy().sum(axis=0) / size.sum() == pytest.approx(share, rel=0.25)


def test_a_saved_model_is_applied_to_another_section(tmp_path: Path) -> None:
    deep()
    known = sm.datasets.simulate(n_obs=250, n_genes=60, seed=101, image=False)
    sm.fuse(known, "vae", save_model=str(tmp_path / "m"), evidence=False, n_morphology=0, epochs=4)
    other = sm.datasets.simulate(n_obs=200, n_genes=60, seed=101, section=1, image=False)
    sm.fuse(other, evidence=False)
    other = other[:, ::-1].copy()  # genes are matched by name
    scores = sm.tl.denoise(other, method="vae", model=str(tmp_path / "m"), device="cpu").scores
    assert scores is not None and scores.loc["vae", "deviance"] < scores.loc["section mean", "deviance"]
    record = other.uns["smeld"]["vae"]["params"]
    assert record["epochs"] == 0 and record["model"].endswith("m")
    with pytest.raises(sm.InputError, match="genes"):
        sm.tl.denoise(other[:, :20].copy(), method="vae", model=str(tmp_path / "m"))
