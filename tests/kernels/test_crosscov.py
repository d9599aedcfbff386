"""The variance of a cross-product under independence: against brute force, and against fields that are independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import crosscov, nearpairs
from smooth_section import averages, plain_test, positions, row, smooth_fields

Float = NDArray[np.float64]


def pvalues(xy: Float, x: Float, y: Float) -> Float:
    weights, where = averages(xy), crosscov.lags(xy)
    beside = crosscov.around(weights, y)
    return plain_test(where, x, beside).pvalue


def test_the_variance_is_that_of_all_pairs_by_distance() -> None:
    xy = positions(9, 3)
    x, v = np.random.default_rng(0).normal(size=(2, 1, 81))
    for part, half in ((None, False), ((np.arange(81) % 9 > 3).astype(np.intp), False), (None, True)):
        where = crosscov.lags(xy, part, half=half)
        label = _bins_written_out(xy, where, part)
        expected = float((x**2).sum() * (v**2).sum() / 81)
        apart = ~np.eye(81, dtype=bool)
        if half:  # lags of more than half the section do not count, unless near
            at = np.stack(np.divmod(where.pixel, where.shape[1]))
            far = np.abs(at[:, :, None] - at[:, None, :]) > ((at.max(axis=1) + 1) // 2)[:, None, None]
            apart &= ~(far.any(axis=0) & (label < 1000))
        for b in np.unique(label):
            here = apart & (label == b)
            if here.any():
                expected += float((np.outer(x, x)[here].sum() * np.outer(v, v)[here].sum()) / here.sum())
        first, second = (row(where, f) for f in (x, v))
        assert float((first * second).sum()) == pytest.approx(expected, rel=1e-8)


def _bins_written_out(xy: Float, where: crosscov.Lags, part: NDArray[np.intp] | None) -> NDArray[np.intp]:
    """A number for the bin of every pair: by distance, near pairs finer, pairs within each part apart."""
    row, column = where.pixel // where.shape[1], where.pixel % where.shape[1]
    label = np.rint(np.hypot(row[:, None] - row, column[:, None] - column)).astype(int)
    exact = np.linalg.norm(xy[:, None] - xy[None], axis=-1) / crosscov.spacing(xy)
    near = exact < nearpairs.NEAR
    label[near] = 1000 + np.rint(exact[near] * nearpairs.PER_SPACING).astype(int)
    if part is not None:
        label += 10_000 * np.where(part[:, None] == part, part[:, None] + 1, 0)
    return label


@pytest.mark.parametrize("half", [False, True])
def test_sums_among_some_spots_are_those_of_all_with_the_others_at_zero(half: bool) -> None:
    xy = positions(40)
    rng = np.random.default_rng(1)
    rows = np.flatnonzero(rng.random(len(xy)) < 0.6)
    where = crosscov.lags(xy, half=half)
    some = crosscov.among(where, rows)
    fields = np.zeros((2, len(xy)))
    fields[:, rows] = rng.normal(size=(2, len(rows)))
    expected = crosscov._products(where, [fields], [(0, 0)])
    np.testing.assert_allclose(crosscov._products(some, [fields[:, rows]], [(0, 0)]), expected, atol=1e-9)
    ones = np.zeros((1, len(xy)))
    ones[:, rows] = 1.0
    counted = np.maximum(np.rint(crosscov._products(where, [ones], [(0, 0)])[0, 0]), 0.0)
    np.testing.assert_array_equal(some.n_pairs, counted * (where.n_pairs > 0))


def test_sums_by_bin_have_the_bits_of_numpys() -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 50, 5000)
    for kind in (np.float32, np.float64):
        values = rng.normal(size=5000).astype(kind)
        np.testing.assert_array_equal(crosscov.binned(index, values, 60), np.bincount(index, values, 60))


def test_nothing_wraps_around() -> None:
    where = crosscov.lags(positions(12))
    assert where.n_pairs.sum() == pytest.approx(144 * 143)
    assert where.n_pairs[int(np.hypot(12, 12)) + 2 : -crosscov.N_FINE].sum() == 0


@pytest.mark.parametrize("width", [0.0, 2.0, 4.0])
def test_independent_smooth_fields_pass_as_often_as_they_should(width: float) -> None:
    rng = np.random.default_rng(int(width))
    xy = positions()
    p = np.concatenate([pvalues(xy, *(smooth_fields(300, width, rng) for _ in range(2))) for _ in range(2)])
    assert 0.02 <= (p < 0.05).mean() <= 0.085  # 600 pairs: two standard errors and more about .035 to .065
    assert (p < 0.01).mean() <= 0.03


def test_fields_that_lie_together_are_found() -> None:
    rng = np.random.default_rng(0)
    common = smooth_fields(60, 2.0, rng)
    x, y = (common + smooth_fields(60, 2.0, rng) for _ in range(2))
    assert (pvalues(positions(), x, y) < 0.05).mean() > 0.9


@given(st.floats(1e-3, 1e3), st.floats(-1e4, 1e4), st.integers(0, 20))
def test_unit_place_and_scale_do_not_matter(unit: float, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy = positions(12, seed)
    x, y = rng.normal(size=(2, 2, 144))
    x, y = (f - f.mean(axis=1, keepdims=True) for f in (x, y))
    moved = pvalues(unit * xy + unit * shift * np.array([1.0, -1.0]), 3.0 * x, 0.1 * y)
    assert moved == pytest.approx(pvalues(xy, x, y), abs=2e-2)


def test_a_stray_cell_and_a_wide_gap_change_little() -> None:
    rng = np.random.default_rng(0)
    xy = positions(30)
    x, y = smooth_fields(40, 2.0, rng, 30), smooth_fields(40, 2.0, rng, 30)
    whole = pvalues(xy, x, y)
    stray = np.vstack([xy, [[1e9, -1e9]]])
    x, y = (np.hstack([f, np.zeros((40, 1))]) for f in (x, y))
    assert pvalues(stray, x, y) == pytest.approx(whole, abs=0.1)
    assert max(crosscov.lags(stray).shape) < 400


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_spots_and_coinciding_ones(n: int) -> None:
    for xy in (np.zeros((n, 2)), 100.0 * np.arange(2 * n, dtype=float).reshape(n, 2)):
        where = crosscov.lags(xy)
        assert where.n_pairs.sum() == n * (n - 1)


def test_the_spacing_is_that_of_the_area_a_spot_has() -> None:
    rng = np.random.default_rng(0)
    assert crosscov.spacing(positions(20, jitter=0.0)) == pytest.approx(50, rel=0.01)
    assert crosscov.spacing(rng.uniform(0, 1000, (2000, 2))) == pytest.approx(1000 / np.sqrt(2000), rel=0.15)


def test_fields_that_do_not_vary_are_never_significant() -> None:
    xy = positions(10)
    assert (pvalues(xy, np.zeros((1, 100)), np.random.default_rng(0).normal(size=(1, 100))) > 0.4).all()


def test_cross_products_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    xy = positions(10)
    weights = averages(xy)
    genes = sparse.csc_matrix(rng.poisson(0.5, (100, 5)).astype(float))
    basis = np.linalg.qr(np.c_[np.ones(100), rng.normal(size=100)])[0]
    pairs = np.array([[0, 1], [3, 2], [0, 4], [2, 2]])
    for b in (None, basis):
        found = crosscov.cross_products(lambda c, b=b: crosscov.residuals(genes, c, b), pairs, weights)
        q = np.full((100, 1), 0.1) if b is None else b
        clean = genes.toarray() - q @ (q.T @ genes.toarray())
        beside = weights @ clean
        beside -= beside.mean(axis=0)
        assert found == pytest.approx([clean[:, r] @ beside[:, l] for l, r in pairs])  # noqa: E741
