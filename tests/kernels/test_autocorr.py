"""Moran's I equals the dense formula, whatever form the sparse matrix comes in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels.autocorr import morans_i
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]


def dense_moran(x: Float, w: Float) -> Float:
    z = x - x.mean(axis=0)
    return len(x) / w.sum() * np.einsum("ig,ij,jg->g", z, w, z) / (z**2).sum(axis=0)


def weights(n: int, seed: int = 0) -> sparse.csr_matrix:
    made = spatial_graph(np.random.default_rng(seed).uniform(0, 100, (n, 2)), n_neighbors=5).distances.copy()
    made.data = 1 / made.data
    return made


@given(st.integers(4, 60), st.integers(0, 500), st.floats(0.1, 5))
def test_equals_the_dense_formula(n: int, seed: int, mean: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.poisson(mean, (n, 6)).astype(float)
    x[0], x[1] = 1, 2  # no constant columns here
    w = weights(n, seed)
    assert morans_i(sparse.csr_matrix(x), w) == pytest.approx(dense_moran(x, w.toarray()), abs=1e-10)


def test_negative_values_work_too() -> None:
    x = np.random.default_rng(0).normal(size=(80, 4)) + np.array([0, 5, -5, 100])
    w = weights(80)
    assert morans_i(sparse.csr_matrix(x), w) == pytest.approx(dense_moran(x, w.toarray()), abs=1e-8)


def test_expectation_under_permutation_is_minus_one_over_n_minus_one() -> None:
    rng = np.random.default_rng(1)
    n, draws = 40, 3000
    values = rng.gamma(0.7, size=n)
    shuffled = np.stack([rng.permutation(values) for _ in range(draws)], axis=1)
    found = morans_i(sparse.csr_matrix(shuffled), weights(n))
    assert found.mean() == pytest.approx(-1 / (n - 1), abs=4 * found.std() / np.sqrt(draws))


def test_chequerboard_is_minus_one_and_halves_are_near_one() -> None:
    i, j = (a.ravel() for a in np.mgrid[:12, :12])
    near = (np.abs(i[:, None] - i) + np.abs(j[:, None] - j) == 1).astype(float)
    x = np.column_stack([(i + j) % 2, i >= 6]).astype(float)
    board, halves = morans_i(sparse.csr_matrix(x), sparse.csr_matrix(near))
    assert board == pytest.approx(-1.0)
    assert halves > 0.85


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1000.3, 1e-9, 1e9 / 3])
def test_constant_columns_give_zero(value: float) -> None:
    x = np.column_stack([np.full(500, value), np.random.default_rng(0).normal(size=500)])
    found = morans_i(sparse.csr_matrix(x), weights(500))
    assert found[0] == 0.0 and found[1] != 0.0


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e6])
def test_the_unit_does_not_matter(scale: float) -> None:
    x = np.random.default_rng(0).normal(size=(100, 3))
    w = weights(100)
    assert morans_i(sparse.csr_matrix(x * scale), w) == pytest.approx(morans_i(sparse.csr_matrix(x), w))
    assert morans_i(sparse.csr_matrix(x), w * scale) == pytest.approx(morans_i(sparse.csr_matrix(x), w))


def test_explicit_zeros_and_single_precision_change_nothing() -> None:
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (60, 5)).astype(np.float32))
    full = sparse.csr_matrix((x.toarray().ravel(), np.tile(np.arange(5), 60), np.arange(0, 301, 5)), shape=(60, 5))
    assert full.nnz == 300 > x.nnz
    assert morans_i(full, weights(60)) == pytest.approx(morans_i(x.astype(np.float64), weights(60)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unsorted_rows_are_read_aright_and_left_as_they_are(dtype: type) -> None:
    x = sparse.csr_matrix(np.random.default_rng(0).poisson(1.5, (60, 8)).astype(dtype))
    mixed = x.copy()
    for i in range(60):
        row = slice(x.indptr[i], x.indptr[i + 1])
        mixed.indices[row], mixed.data[row] = x.indices[row][::-1], x.data[row][::-1]
    mixed.has_sorted_indices = False
    w = weights(60)
    assert morans_i(mixed, w) == pytest.approx(morans_i(x, w))
    assert np.array_equal(mixed.toarray(), x.toarray())  # the caller's matrix is not touched


def test_entries_stored_in_two_parts_are_added() -> None:
    split = sparse.csr_matrix(
        (np.array([1.0, 1, 3, 4, 2]), np.array([0, 0, 1, 0, 1]), np.array([0, 2, 4, 5])), shape=(3, 2)
    )
    w = sparse.csr_matrix(np.ones((3, 3)) - np.eye(3))
    assert morans_i(split, w) == pytest.approx(dense_moran(split.toarray(), w.toarray()))


def test_no_edges_give_zero() -> None:
    assert np.array_equal(morans_i(sparse.csr_matrix(np.eye(4)), sparse.csr_matrix((4, 4))), np.zeros(4))
