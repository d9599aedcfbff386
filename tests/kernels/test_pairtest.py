"""The test of pairs: against its own formula written out, on independent fields, and on noise shared within spots."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import crosscov, pairtest, whitening
from smooth_section import SIDE, averages, plain_test, positions, smooth_fields

Float = NDArray[np.float64]


def run(xy: Float, x: Float, y: Float, weights: sparse.csr_matrix | None = None) -> crosscov.Test:
    """Pair i is (ligand y[i], receptor x[i])."""
    made = pairtest.section(xy, averages(xy) if weights is None else weights)
    fields = np.concatenate([y, x])
    n = len(x)
    return pairtest.test(made, lambda columns: fields[columns], np.c_[np.arange(n), n + np.arange(n)])


def test_the_statistic_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    xy = positions(20)
    x, y = (smooth_fields(3, 2.0, rng, 20) for _ in range(2))
    weights = averages(xy)
    made = pairtest.section(xy, weights)
    (fx, ax, px), (fy, ay, py) = (whitening.whitened(made.filter, f) for f in (x, y))
    beside = crosscov.around(weights, fy)
    for i in range(3):
        c = ax[i] @ made.leak @ ay[i]
        rows = [
            [
                crosscov.cross_correlograms(where, [a[[i]], b[[i]]], [(0, 1)])[0, 0]
                for where, a, b in zip((made.where, made.whole, made.whole), (f, f, p), (f, p, p))
            ]
            for f, p in ((fx, x), (beside, y))
        ]
        first, second = rows
        variance = first[0] @ second[0] - 2 * c * first[1] @ second[1] + c**2 * first[2] @ second[2]
        waves, power = whitening.modes(made.filter), px[i] * py[i] * made.averaged
        expected = crosscov.judged(
            np.array([fx[i] @ beside[i] - c * (x[i] @ y[i])]),
            np.array([variance]),
            np.array([(fx[i] ** 2).sum() * (beside[i] ** 2).sum()]),
            400,
            np.array([(power @ waves) ** 2 / (power**2 @ waves)]),
        )
        found = run(xy, x[[i]], y[[i]])
        assert found.zscore[0] == pytest.approx(expected.zscore[0], rel=1e-4)
        assert found.pvalue[0] == pytest.approx(expected.pvalue[0], rel=1e-3)
        around = crosscov.around(weights, y)[i]
        assert found.effect[0] == pytest.approx(np.corrcoef(x[i], around)[0, 1], abs=1e-5)


@pytest.mark.parametrize("width", [0.0, 2.0, 6.0])
def test_independent_fields_pass_as_often_as_they_should(width: float) -> None:
    rng = np.random.default_rng(int(width) + 1)
    p = run(positions(), *(smooth_fields(600, width, rng) for _ in range(2))).pvalue
    assert 0.02 <= (p < 0.05).mean() <= 0.08  # 600 pairs: two standard errors about .035 to .065
    assert (p < 0.01).mean() <= 0.025


def test_noise_shared_within_spots_is_no_interaction() -> None:
    rng = np.random.default_rng(5)
    xy = positions()
    common = rng.normal(size=(300, SIDE**2))
    x, y = (np.log1p(rng.poisson(np.exp(common))).astype(float) for _ in range(2))
    x, y = (f - f.mean(axis=1, keepdims=True) for f in (x, y))
    assert np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(x, y)]) > 0.5
    assert (run(xy, x, y).pvalue < 0.05).mean() <= 0.1
    # unless the spot counts as a neighbour of its own
    edges = averages(xy) * 6 + sparse.identity(SIDE**2)
    assert (run(xy, x, y, sparse.csr_matrix(edges / 7)).pvalue < 0.05).mean() > 0.9


def test_more_is_found_than_without_the_filter() -> None:
    rng = np.random.default_rng(3)
    xy = positions()
    common, *own = (smooth_fields(200, 4.0, rng) for _ in range(3))
    x, y = (common + 1.2 * o for o in own)
    weights, where = averages(xy), crosscov.lags(xy)
    beside = crosscov.around(weights, y)
    plain = plain_test(where, x, beside).pvalue
    assert (run(xy, x, y).pvalue < 0.01).mean() > (plain < 0.01).mean() + 0.05


def test_a_test_of_many_pairs_is_that_of_each() -> None:
    rng = np.random.default_rng(4)
    xy = positions(16)
    fields = smooth_fields(6, 1.0, rng, 16)
    made = pairtest.section(xy, averages(xy))
    pairs = np.array([[0, 1], [2, 1], [0, 3], [4, 5], [5, 4]])
    whole = pairtest.test(made, lambda c: fields[c], pairs)
    one = np.concatenate([pairtest.test(made, lambda c: fields[c], pairs[[i]]).pvalue for i in range(5)])
    assert whole.pvalue == pytest.approx(one, rel=1e-5)


def test_the_bits_do_not_depend_on_the_number_of_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of fields are shared out over as many threads."""
    rng = np.random.default_rng(6)
    xy = positions(60)
    fields = rng.normal(size=(24, 3600))
    fields -= fields.mean(axis=1, keepdims=True)
    pairs = np.arange(24).reshape(12, 2)
    monkeypatch.setattr(crosscov, "WORTH_SHARES", 1)
    made = pairtest.section(xy, averages(xy))
    found = []
    for n in (1, 2, 3, 8, 16):
        monkeypatch.setattr(crosscov.os, "cpu_count", lambda n=n: n)
        found.append(pairtest.test(made, lambda c: fields[c], pairs))
    for other in found[1:]:
        assert np.array_equal(other.pvalue, found[0].pvalue) and np.array_equal(other.zscore, found[0].zscore)
