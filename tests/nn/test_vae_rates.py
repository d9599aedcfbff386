"""Rates of the graph VAE: the decoder's shares at the posterior, their spread over draws, and the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse, special

torch = pytest.importorskip("torch", reason="needs smeld[deep]")
pytest.importorskip("torch_geometric", reason="needs smeld[deep]")

from smeld.kernels import smooth  # noqa: E402
from smeld.kernels.graph import spatial_graph  # noqa: E402
from smeld.nn import _vae, _vae_fit, _vae_rates  # noqa: E402

SIDE, GENES = 14, 24


@pytest.fixture(scope="module")
def inputs() -> _vae_fit.Inputs:
    """A lattice in two halves, of two sections."""
    draws = np.random.default_rng(0)
    x, y = (a.ravel() * 100.0 for a in np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    half = np.where(x < 650, 1.0, -1.0)
    rate = 2.0 * np.exp(0.8 * np.outer(half, np.arange(GENES) < 12))
    counts = sparse.csr_matrix(draws.poisson(rate).astype(np.float64))
    xy = np.column_stack([x, y])
    weights = smooth.sme_weights(spatial_graph(xy).distances, sigma_um=100.0)
    return _vae_fit.Inputs(counts, weights, half[:, None], (y > 600).astype(np.intp), xy, 3.0)


@pytest.fixture(scope="module")
def made(inputs: _vae_fit.Inputs) -> tuple[_vae.GraphVAE, _vae_rates.Rates]:
    model, epochs = _vae_rates.trained(inputs, seed=1, epochs=12, device="cpu")
    assert epochs == 12
    return model, _vae_rates.Rates(model, inputs, seed=1, device="cpu")


def decoded(model: _vae.GraphVAE, z: np.ndarray, section: np.ndarray) -> np.ndarray:
    """The decoder written with numpy."""
    w = {name: value.double().numpy() for name, value in model.state_dict().items()}
    bent = z @ w["bend.weight"].T + w["bend.bias"]
    bent = np.where(bent > 0, bent, np.expm1(np.minimum(bent, 0)))
    logits = bent @ w["out.weight"].T + w["out.bias"] + z @ w["straight.weight"].T + w["section.weight"][section]
    return special.softmax(logits, axis=1)


def test_shares_and_their_spread_are_those_of_a_decoder_in_numpy(
    inputs: _vae_fit.Inputs, made: tuple[_vae.GraphVAE, _vae_rates.Rates]
) -> None:
    model, rates = made
    rows = np.array([3, 50, 51, 190])
    section = inputs.section[rows]
    middle = decoded(model, rates.mean[rows], section)
    np.testing.assert_allclose(rates.share(rows), middle, rtol=1e-4)
    drawn = [decoded(model, rates.mean[rows] + rates.sd[rows] * e[rows], section) for e in rates.noise]
    spread = np.mean([(np.log(d) - np.log(middle)) ** 2 for d in drawn], axis=0)
    np.testing.assert_allclose(rates.variance(rows), spread, rtol=2e-2, atol=1e-7)


def test_what_is_asked_for_beside_a_spot_changes_nothing(made: tuple[_vae.GraphVAE, _vae_rates.Rates]) -> None:
    _, rates = made
    whole, some = np.arange(SIDE**2), np.array([7, 100])
    np.testing.assert_allclose(rates.share(whole)[some], rates.share(some), rtol=1e-5)
    np.testing.assert_allclose(rates.variance(whole)[some], rates.variance(some), rtol=1e-3, atol=1e-8)


def test_the_same_seed_gives_the_same_bits(
    inputs: _vae_fit.Inputs, made: tuple[_vae.GraphVAE, _vae_rates.Rates]
) -> None:
    model, _ = _vae_rates.trained(inputs, seed=1, epochs=12, device="cpu")
    rates, rows = _vae_rates.Rates(model, inputs, seed=1, device="cpu"), np.arange(SIDE**2)
    assert np.array_equal(rates.share(rows), made[1].share(rows))
    assert np.array_equal(rates.variance(rows), made[1].variance(rows))


def test_rates_are_nearer_the_truth_than_the_mean_profile(
    inputs: _vae_fit.Inputs, made: tuple[_vae.GraphVAE, _vae_rates.Rates]
) -> None:
    half = np.where(inputs.xy_um[:, 0] < 650, 1.0, -1.0)
    truth = np.exp(0.8 * np.outer(half, np.arange(GENES) < 12))
    truth /= truth.sum(axis=1, keepdims=True)
    mean = np.asarray(inputs.counts.sum(axis=0)).ravel() / inputs.counts.sum()
    off = np.abs(made[1].share(np.arange(SIDE**2)) - truth).mean()
    assert off < 0.6 * np.abs(mean - truth).mean()


def test_without_sections_all_have_the_mean_effect(inputs: _vae_fit.Inputs) -> None:
    model = _vae_fit.new_model(inputs, 0, seed=0)
    with torch.no_grad():
        model.section.weight.copy_(torch.arange(2.0 * GENES).reshape(2, GENES))
    _vae_rates.without_sections(model)
    assert np.array_equal(model.section.weight.detach().numpy(), np.tile(np.arange(GENES) + GENES / 2, (2, 1)))


def test_fewer_counts_are_less_sure(inputs: _vae_fit.Inputs, made: tuple[_vae.GraphVAE, _vae_rates.Rates]) -> None:
    """The posterior is of the counts that are given, not of those that were trained on."""
    few = replace(inputs, counts=sparse.csr_matrix((inputs.counts > 2).astype(np.float64)))
    other = _vae_rates.Rates(made[0], few, seed=1, device="cpu")
    assert not np.allclose(other.mean, made[1].mean)
