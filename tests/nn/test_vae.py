"""The graph VAE against slow oracles: likelihood, tiles with a halo, the field's divergence; and that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import sparse, stats

torch = pytest.importorskip("torch", reason="needs smeld[deep]")
pytest.importorskip("torch_geometric", reason="needs smeld[deep]")

from smeld.kernels import smooth  # noqa: E402
from smeld.kernels.graph import spatial_graph  # noqa: E402
from smeld.nn import _pieces, _train, _vae, _vae_fit  # noqa: E402

N_SIDE, N_GENES = 20, 40


@pytest.fixture(scope="module")
def inputs() -> _vae_fit.Inputs:
    """A lattice in two halves, with a stripe that the prior does not know."""
    draws = np.random.default_rng(0)
    x, y = (a.ravel() * 100.0 for a in np.meshgrid(np.arange(N_SIDE), np.arange(N_SIDE)))
    half, stripe = np.where(x < 950, 1.0, -1.0), np.where((y > 500) & (y < 1100), 1.0, -1.0)
    rate = np.exp(0.7 * np.outer(half, np.arange(N_GENES) < 8) + 0.7 * np.outer(stripe, np.arange(N_GENES) >= 30))
    counts = sparse.csr_matrix(draws.poisson(1.5 * rate).astype(np.float64))
    xy = np.column_stack([x, y])
    weights = smooth.sme_weights(spatial_graph(xy).distances, sigma_um=100.0)
    prior = smooth.smooth(weights, half, 3.0)[:, None]
    return _vae_fit.Inputs(counts, weights, prior / prior.std(), np.zeros(len(x), dtype=np.intp), xy, 3.0)


@pytest.fixture(scope="module")
def trainer(inputs: _vae_fit.Inputs) -> _vae_fit.Trainer:
    model = _vae_fit.new_model(inputs, 2, seed=0, hidden=16, heads=2)
    return _vae_fit.Trainer(model, inputs, torch.device("cpu"), seed=0)


def test_likelihood_of_counts_is_that_of_scipy() -> None:
    draws = np.random.default_rng(1)
    x = draws.poisson(1.0, (30, 7)).astype(np.float64)
    mean, theta = draws.gamma(2.0, 1.0, (30, 7)), draws.gamma(2.0, 1.0, 7)
    expected = stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum(axis=1)
    found = _vae.negative_binomial(*(torch.as_tensor(v) for v in (x, np.log(mean), np.log(theta))))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("most", [7, 50, 399, 1000])
def test_tiles_hold_every_spot_once(inputs: _vae_fit.Inputs, most: int) -> None:
    tiles = _pieces.tiles(inputs.xy_um, most)
    assert max(len(t) for t in tiles) <= most
    assert np.array_equal(np.sort(np.concatenate(tiles)), np.arange(N_SIDE**2))


def test_halo_is_what_lies_within_so_many_edges(inputs: _vae_fit.Inputs) -> None:
    reach = (inputs.weights > 0).astype(int) + sparse.identity(N_SIDE**2, dtype=int, format="csr")
    rows = np.array([0, 210])
    for hops in (0, 1, 3):
        expected = np.flatnonzero(np.asarray((reach**hops)[rows].sum(axis=0)).ravel()) if hops else rows
        assert np.array_equal(_pieces.halo(inputs.weights, rows, hops), expected)


def test_tiles_change_neither_posterior_nor_gradient(inputs: _vae_fit.Inputs, trainer: _vae_fit.Trainer) -> None:
    """Exact in exact arithmetic: the halo is as deep as the network reaches."""
    tiled = _vae_fit.Trainer(trainer.model, inputs, torch.device("cpu"), seed=0, tile=60)
    assert len(tiled.pieces) > 4
    whole, parts = (t._encode(inputs.counts, t._all_tiles) for t in (trainer, tiled))
    for one, other in zip(whole, parts):
        np.testing.assert_allclose(one, other, atol=1e-5)
    counts = torch.as_tensor(inputs.counts.toarray(), dtype=torch.float32)

    def gradient(of: _vae_fit.Trainer) -> Any:
        """Of likelihood and divergence at the posterior's mean, summed over pieces."""
        of.model.zero_grad()
        for piece in of.pieces:
            x = counts[torch.as_tensor(piece.rows)]
            delta, log_sd = of.model.encode(x, piece)
            rough, spread = _vae.roughness(delta, log_sd, piece, inputs.alpha)
            log_mean = of.model.decode((piece.prior + delta)[piece.core], piece.section[piece.core])
            fit = _vae.negative_binomial(x[piece.core], log_mean + np.log(60.0), of.model.log_theta).sum()
            (_vae.divergence(rough, spread, of.model.variance) - fit).backward()
        return torch.cat([p.grad.ravel() for p in of.model.parameters() if p.grad is not None]).numpy()

    whole, parts = gradient(trainer), gradient(tiled)
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())


def test_roughness_is_the_quadratic_form_of_the_field(inputs: _vae_fit.Inputs, trainer: _vae_fit.Trainer) -> None:
    delta = np.random.default_rng(2).normal(size=(N_SIDE**2, 3))
    sd = np.random.default_rng(3).gamma(2.0, 0.1, size=(N_SIDE**2, 3))
    degree = np.asarray(inputs.weights.sum(axis=1)).ravel()
    precision = sparse.identity(N_SIDE**2) + inputs.alpha * (sparse.diags(degree) - inputs.weights)
    expected = ((precision @ delta) * delta).sum(0) + (precision.diagonal()[:, None] * sd**2).sum(0)
    piece = trainer.pieces[0]
    given = (torch.as_tensor(v, dtype=torch.float32) for v in (delta, np.log(sd)))
    found, spread = _vae.roughness(*given, piece, inputs.alpha)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    assert float(spread) == pytest.approx(np.log(sd).sum(), rel=1e-4)


def test_it_learns_what_the_prior_does_not_know(inputs: _vae_fit.Inputs) -> None:
    model = _vae_fit.new_model(inputs, 2, seed=0, hidden=32, heads=2)
    schedule = _train.Schedule(epochs=80, learning_rate=5e-3, patience=20)
    posterior, history, _ = _vae_fit.train(model, inputs, schedule, seed=0, device="cpu")
    assert history.held_out[history.best] < history.held_out[0] - 0.02
    assert (posterior.sd > 0).all() and np.isfinite(posterior.delta).all()
    y = inputs.xy_um[:, 1]
    stripe = (y > 500) & (y < 1100)
    z = np.hstack([inputs.prior, np.zeros((len(y), 2))]) + posterior.delta
    predicted = (
        np.column_stack([np.ones(len(y)), z])
        @ np.linalg.lstsq(np.column_stack([np.ones(len(y)), z]), stripe.astype(float), rcond=None)[0]
    )
    assert np.corrcoef(predicted, stripe)[0, 1] > 0.8


def test_a_shuffled_section_teaches_it_nothing(inputs: _vae_fit.Inputs) -> None:
    """Counts of independent genes: the held-out score stays near that of the mean profile."""
    draws = np.random.default_rng(5)
    flat = sparse.csr_matrix(draws.poisson(1.5, inputs.counts.shape).astype(np.float64))
    other = replace(inputs, counts=flat, prior=draws.normal(size=inputs.prior.shape))
    model = _vae_fit.new_model(other, 0, seed=0, hidden=16, heads=2)
    trainer = _vae_fit.Trainer(model, other, torch.device("cpu"), seed=0)
    total = np.asarray(trainer.train.sum(axis=0)).ravel()
    held = np.asarray(trainer.held.sum(axis=0)).ravel()
    plain = -float(held @ np.log(total / total.sum())) / held.sum()
    schedule = _train.Schedule(epochs=30, learning_rate=5e-3, patience=10)
    _, history, _ = _vae_fit.train(model, other, schedule, seed=0, device="cpu")
    assert history.held_out[history.best] == pytest.approx(plain, abs=0.01)


def test_the_same_seed_gives_the_same_posterior(inputs: _vae_fit.Inputs) -> None:
    def once(seed: int) -> Any:
        model = _vae_fit.new_model(inputs, 1, seed=seed, hidden=16, heads=2)
        return _vae_fit.train(model, inputs, _train.Schedule(epochs=4), seed=seed, device="cpu")[0].delta

    assert np.array_equal(once(0), once(0))
    assert not np.array_equal(once(0), once(1))


def test_of_many_tiles_an_epoch_sees_a_few_and_all_spots_get_a_posterior(inputs: _vae_fit.Inputs) -> None:
    model = _vae_fit.new_model(inputs, 2, seed=0, hidden=16, heads=2)
    trainer = _vae_fit.Trainer(model, inputs, torch.device("cpu"), seed=0, tile=60)
    assert len(trainer.tiles) > _vae_fit.MOST_TILES
    seen: set[int] = set()
    for epoch in range(12):
        batches = list(trainer.batches(epoch))
        assert len(batches) == _vae_fit.MOST_TILES
        for piece, encoded, rest, _ in batches:
            # thinned parts of the right spots: together they are the counts of training
            together = (encoded + rest).numpy()
            assert np.array_equal(together, trainer.train[piece.rows].toarray())
            trainer.loss((piece, encoded, rest, 0.5))
            seen |= set(piece.rows[piece.core.numpy()].tolist())
        drawn = trainer._drawn(epoch)
        assert len(set(drawn.tolist())) == _vae_fit.MOST_TILES
    assert len(seen) > 0.9 * len(inputs.prior)
    assert np.isfinite(trainer.score())
    assert np.isfinite(trainer.posterior().sd).all() and (trainer.posterior().sd > 0).all()
