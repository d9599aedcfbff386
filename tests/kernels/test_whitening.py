"""Fields with their smoothness taken off, and what of a spot's own value comes back to it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import crosscov, whitening
from smeld.kernels.graph import row_normalise, spatial_graph
from smooth_section import averages, positions, smooth_fields

Float = NDArray[np.float64]


def neighbour_correlation(xy: Float, fields: Float) -> Float:
    weights = averages(xy)
    beside = np.asarray(weights @ fields.T).T
    return (fields * beside).sum(axis=1) / (fields**2).sum(axis=1)


def test_smooth_fields_become_rough_and_noise_stays_noise() -> None:
    rng = np.random.default_rng(0)
    xy = positions()
    made = whitening.whitener(crosscov.lags(xy))
    for width, most in ((0.0, 0.15), (4.0, 0.9)):
        fields = smooth_fields(20, width, rng)
        filtered, weights, power = whitening.whitened(made, fields)
        assert filtered.shape == fields.shape and np.abs(filtered.mean(axis=1)).max() < 1e-9
        assert weights.shape[1] == made.response.shape[1] and (power >= 0).all()
        assert np.abs(neighbour_correlation(xy, filtered)).mean() < most
    # patches are worth more of them: the correlogram of two fields falls off sooner
    smooth = smooth_fields(20, 6.0, rng)
    first = [
        crosscov.cross_correlograms(made.where, [f], [(0, 0)])[:, 0]
        for f in (smooth, whitening.whitened(made, smooth)[0])
    ]
    spread = [((c[:, 1:] ** 2).sum(axis=1) / c[:, 0] ** 2).mean() for c in first]
    assert spread[1] < spread[0] / 2


def test_the_filter_is_the_sum_of_means_that_its_weights_say() -> None:
    """And so the trace of the filter, its neighbours' average in between, is what ``leaks`` says."""
    xy = positions(14, 2)
    n = len(xy)
    made = whitening.whitener(crosscov.lags(xy))
    weights = averages(xy)
    operators = [
        np.eye(n),
        *(np.stack(whitening._means(made, np.eye(n)[i : i + 7])[0], axis=0) for i in range(0, n, 7)),
    ]
    gaussians = np.concatenate(operators[1:], axis=1)  # [n_widths, n, n]: row j, what spot i gets of j
    bases = [operators[0], *(g.T for g in gaussians)]
    dense = weights.toarray()
    centre = np.eye(n) - 1 / n
    exact = np.array([[np.trace(centre @ a.T @ dense @ b @ centre) / n for b in bases] for a in bases])
    assert whitening.leaks(made, weights) == pytest.approx(exact, abs=1e-9)
    field = np.random.default_rng(1).normal(size=(1, n))
    field -= field.mean()
    filtered, found, _ = whitening.whitened(made, field)
    by_hand = sum(w * (b @ field[0]) for w, b in zip(found[0], bases))
    assert filtered[0] == pytest.approx(by_hand - by_hand.mean(), abs=1e-9)


def test_constant_fields_and_tiny_sections_pass() -> None:
    for n in (1, 2, 5):
        xy = 100.0 * np.arange(2 * n, dtype=float).reshape(n, 2)
        made = whitening.whitener(crosscov.lags(xy))
        filtered, _, power = whitening.whitened(made, np.zeros((2, n)))
        assert np.isfinite(filtered).all() and np.isfinite(power).all()


def test_what_averaging_leaves_falls_with_frequency() -> None:
    xy = positions()
    made = whitening.whitener(crosscov.lags(xy))
    passed = whitening.passed_by(made, averages(xy))
    used = np.flatnonzero(made.ring_size > 20)
    assert passed[used[0]] > 0.8 and passed[used[-1]] < 0.3


def test_single_precision_changes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = positions(30)
    fields = smooth_fields(5, 2.0, np.random.default_rng(0), 30)
    exact = whitening.whitened(whitening.whitener(crosscov.lags(xy)), fields)[0]
    monkeypatch.setattr(crosscov, "LARGE", 10)
    rough = whitening.whitened(whitening.whitener(crosscov.lags(xy)), fields)[0]
    assert rough == pytest.approx(exact, abs=2e-3 * np.abs(exact).max())


def test_a_graph_of_any_kind_gives_a_leak() -> None:
    xy = positions(12)
    edges = spatial_graph(xy, kind="radius", radius_um=120.0).connectivities
    made = whitening.whitener(crosscov.lags(xy))
    leak = whitening.leaks(made, sparse.csr_matrix(row_normalise(edges)))
    assert np.isfinite(leak).all() and abs(leak[0, 0] + 1 / 144) < 1e-3


def test_random_signs_say_what_every_spot_does(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = positions(16)
    weights, where = averages(xy), crosscov.lags(xy)
    exact = whitening.whitener(where)
    monkeypatch.setattr(whitening, "PROBED", 50_000)
    monkeypatch.setattr(whitening, "MOST_PROBES", 195)
    rough = whitening.whitener(where)
    used = exact.ring_size > 10
    assert rough.noise[used] == pytest.approx(exact.noise[used], rel=0.25)
    found = whitening.leaks(rough, weights)
    monkeypatch.undo()
    assert found == pytest.approx(whitening.leaks(exact, weights), abs=0.01)
