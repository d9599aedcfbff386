"""The smoother equals a direct sparse solve; edge weights equal their formula in plain numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import spsolve

from smeld.kernels import smooth
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads cost more than they gain on such small graphs; one test below sets their number itself."""
    had = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(had)


def random_weights(n: int, seed: int, *, lone: int = 0, parts: int = 1) -> sparse.csr_matrix:
    """Symmetric positive weights of very different size on a few edges per node, as ``parts`` components."""
    rng = np.random.default_rng(seed)
    made = sparse.random(n, n, density=min(1.0, 6 / n), random_state=rng, format="csr")
    made.data = 10 ** rng.uniform(-3, 1, made.nnz)
    made = sparse.lil_matrix(made + made.T)
    made.setdiag(0)
    part = np.arange(n) % parts
    same = sparse.csr_matrix(made).multiply(part[:, None] == part)
    made = sparse.lil_matrix(same)
    for i in range(lone):
        made[i, :] = 0
        made[:, i] = 0
    out = sparse.csr_matrix(made)
    out.eliminate_zeros()
    return out


def laplacian(weights: sparse.csr_matrix) -> sparse.csc_matrix:
    return sparse.csc_matrix(sparse.diags(np.asarray(weights.sum(axis=1)).ravel()) - weights)


@given(
    st.integers(2, 120),
    st.sampled_from([0.0, 0.1, 1.0, 9.0, 100.0]),
    st.integers(0, 1000),
    st.integers(0, 2),
    st.integers(1, 3),
)
def test_smooth_equals_the_direct_solve(n: int, alpha: float, seed: int, lone: int, parts: int) -> None:
    weights = random_weights(n, seed, lone=lone, parts=parts)
    x = np.random.default_rng(seed).normal(size=(n, 3)) * [1, 100, 0.01]
    exact = spsolve(sparse.csc_matrix(sparse.eye(n) + alpha * laplacian(weights)), x).reshape(x.shape)
    found = smooth.smooth(weights, x, alpha)
    assert np.abs(found - exact).max(axis=0) == pytest.approx(np.zeros(3), abs=1e-5 * np.abs(x).max())
    assert (np.abs(found - exact).max(axis=0) <= 1e-5 * np.abs(x).max(axis=0)).all()


def test_tolerance_is_met_and_a_finer_one_is_finer() -> None:
    weights = random_weights(300, 1)
    x = np.random.default_rng(0).normal(size=(300, 2))
    exact = spsolve(sparse.csc_matrix(sparse.eye(300) + 9 * laplacian(weights)), x)
    error = [np.abs(smooth.smooth(weights, x, 9.0, tolerance=t) - exact).max() for t in (1e-2, 1e-5, 1e-10)]
    assert error[0] < 0.05 and error[1] < 5e-5 and error[2] < 1e-9


def test_constants_are_kept_and_sums_too() -> None:
    weights = random_weights(80, 2, lone=2)
    assert smooth.smooth(weights, np.full((80, 2), [3.0, -7.0]), 20.0) == pytest.approx(
        np.full((80, 2), [3.0, -7.0]), rel=1e-12
    )
    x = np.random.default_rng(0).normal(size=80)
    assert smooth.smooth(weights, x, 20.0, tolerance=1e-10).sum() == pytest.approx(x.sum(), abs=1e-7)


@given(st.integers(0, 200), st.floats(0.01, 100))
def test_smoothing_stays_within_the_range_and_shrinks_the_variance(seed: int, alpha: float) -> None:
    x = np.random.default_rng(seed).normal(size=60)
    z = smooth.smooth(random_weights(60, seed), x, alpha)
    assert z.min() >= x.min() - 1e-4 and z.max() <= x.max() + 1e-4
    assert z.std() <= x.std() + 1e-6


def test_more_alpha_smooths_more_and_none_not_at_all() -> None:
    weights = random_weights(100, 4)
    x = np.random.default_rng(0).normal(size=100)
    rough = [float(z @ (laplacian(weights) @ z)) for z in (smooth.smooth(weights, x, a) for a in (0, 0.5, 3, 30))]
    assert rough == sorted(rough, reverse=True) and rough[-1] < 0.05 * rough[0]
    unchanged = smooth.smooth(weights, x, 0.0)
    assert np.array_equal(unchanged, x) and unchanged is not x


def test_smoothing_is_linear() -> None:
    weights = random_weights(90, 5)
    a, b = np.random.default_rng(0).normal(size=(2, 90, 2))
    together = smooth.smooth(weights, 2 * a - 3 * b, 7.0)
    apart = 2 * smooth.smooth(weights, a, 7.0) - 3 * smooth.smooth(weights, b, 7.0)
    assert together == pytest.approx(apart, abs=1e-10)


def test_a_vector_is_smoothed_like_a_column_and_the_input_is_left_alone() -> None:
    weights = random_weights(50, 6)
    x = np.random.default_rng(0).normal(size=(50, 1)).astype(np.float32)
    kept = x.copy()
    assert np.array_equal(smooth.smooth(weights, x[:, 0], 3.0), smooth.smooth(weights, x, 3.0)[:, 0])
    assert np.array_equal(x, kept)


def test_lone_spots_and_graphs_without_edges_stay_as_they_are() -> None:
    x = np.random.default_rng(0).normal(size=(40, 2))
    assert np.array_equal(smooth.smooth(sparse.csr_matrix((40, 40)), x, 9.0), x)
    assert smooth.smooth(random_weights(40, 7, lone=3), x, 9.0)[:3] == pytest.approx(x[:3], abs=1e-14)


def test_one_and_two_threads_give_the_same_bits() -> None:
    weights = random_weights(500, 8)
    x = np.random.default_rng(0).normal(size=(500, 7))
    had, results = numba.get_num_threads(), []
    try:
        for n in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(n)
            results.append((smooth.smooth(weights, x, 9.0), smooth.edge_similarity(x, weights)))
    finally:
        numba.set_num_threads(had)
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


@given(st.integers(0, 100))
def test_permuting_nodes_permutes_the_result(seed: int) -> None:
    weights = random_weights(70, seed)
    x = np.random.default_rng(seed).normal(size=(70, 2))
    order = np.random.default_rng(seed + 1).permutation(70)
    other = smooth.smooth(sparse.csr_matrix(weights[order][:, order]), x[order], 9.0)
    assert other == pytest.approx(smooth.smooth(weights, x, 9.0)[order], abs=1e-12)


# ---------------------------------------------------------------------------------------------------- weights


def section(n: int = 120, seed: int = 0) -> tuple[sparse.csr_matrix, Float]:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 500, (n, 2))
    return spatial_graph(xy).distances, np.column_stack([np.sin(xy[:, 0] / 90), rng.normal(size=n)])


def test_edge_similarity_equals_numpy() -> None:
    distances, f = section()
    rows = np.repeat(np.arange(len(f)), np.diff(distances.indptr))
    squared = ((f[rows] - f[distances.indices]) ** 2).sum(axis=1)
    expected = np.exp(-squared / (2 * np.median(squared)))
    found = smooth.edge_similarity(f, distances)
    assert found == pytest.approx(expected, rel=1e-12)
    assert (found > 0).all() and (found <= 1).all()
    as_matrix = sparse.csr_matrix((found, distances.indices, distances.indptr))
    assert abs(as_matrix - as_matrix.T).nnz == 0
    assert np.median(found) == pytest.approx(np.exp(-0.5))


@given(st.floats(1e-6, 1e6), st.floats(-1e3, 1e3), st.floats(0, 6))
def test_edge_similarity_has_no_unit_origin_or_axes(scale: float, shift: float, angle: float) -> None:
    distances, f = section()
    c, s = np.cos(angle), np.sin(angle)
    moved = (f @ [[c, s], [-s, c]] + shift) * scale
    assert smooth.edge_similarity(moved, distances) == pytest.approx(smooth.edge_similarity(f, distances), rel=1e-6)


def test_edge_similarity_of_equal_features_is_one() -> None:
    distances, f = section()
    assert (smooth.edge_similarity(np.full_like(f, 2.5), distances) == 1).all()
    assert len(smooth.edge_similarity(f[:1], sparse.csr_matrix((1, 1)))) == 0


def test_edges_across_the_border_of_two_uniform_halves_are_weaker() -> None:
    """More than half of the edges join equal ends; the few that do not must still be told apart."""
    xy = np.column_stack([a.ravel() for a in np.mgrid[:10, :10]]) * 100.0
    distances = spatial_graph(xy).distances
    half = (xy[:, :1] > 450).astype(float)
    rows = np.repeat(np.arange(100), np.diff(distances.indptr))
    crosses = half[rows, 0] != half[distances.indices, 0]
    found = smooth.edge_similarity(half, distances)
    assert (found[~crosses] == 1).all()
    assert (found[crosses] < 0.9).all()


@given(st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.0, 1.0]), st.floats(20, 500))
def test_sme_weights_equal_their_formula(gamma: float, eta: float, sigma: float) -> None:
    distances, f = section()
    m, e = smooth.edge_similarity(f[:, :1], distances), smooth.edge_similarity(f[:, 1:], distances)
    kept = distances.copy()
    made = smooth.sme_weights(distances, sigma_um=sigma, morphology=m, expression=e, gamma=gamma, eta=eta)
    plain = np.exp(-(distances.data**2) / (2 * sigma**2)) * m**gamma * e**eta
    assert made.data == pytest.approx(plain * len(f) / plain.sum())
    assert made.sum() / len(f) == pytest.approx(1.0)  # the mean degree
    assert abs(made - made.T).max() <= 1e-15
    assert np.array_equal(made.indices, distances.indices)
    assert abs(distances - kept).nnz == 0


def test_weights_without_edges_are_empty() -> None:
    assert smooth.sme_weights(sparse.csr_matrix((5, 5)), sigma_um=10.0).nnz == 0


@pytest.mark.parametrize("alpha", [0.5, 9.0, 40.0])
def test_effective_size_is_near_the_exact_trace(alpha: float) -> None:
    distances, _ = section(600)
    weights = smooth.sme_weights(distances, sigma_um=40.0)
    exact = np.trace(np.linalg.inv(np.eye(600) + alpha * laplacian(weights).toarray()))
    assert smooth.effective_size(weights, alpha) == pytest.approx(exact, rel=0.06)
    assert smooth.effective_size(weights, alpha) == smooth.effective_size(weights, alpha)


def test_effective_size_without_smoothing_is_the_number_of_spots() -> None:
    assert smooth.effective_size(random_weights(30, 0), 0.0) == pytest.approx(30)
    assert smooth.effective_size(sparse.csr_matrix((30, 30)), 9.0) == pytest.approx(30)


@given(st.integers(2, 60), st.integers(0, 99), st.integers(1, 5))
def test_parts_and_the_order_in_memory_leave_every_bit(n: int, seed: int, columns: int) -> None:
    weights = random_weights(n, seed, lone=1)
    x = np.random.default_rng(seed).normal(size=(weights.shape[0], columns))
    plain = smooth.smooth(weights, x, 3.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smooth, "MOST_VALUES", 2 * len(x))
        assert np.array_equal(smooth.smooth(weights, x, 3.0), plain)
        patch.setattr(smooth, "FAR_FROM", 0)
        patch.setattr(smooth, "FAR", -1.0)
        assert np.array_equal(smooth.smooth(weights, x, 3.0), plain)
        order = smooth._near_order(weights)
        assert (order is None) == (weights.nnz == 0)
        if order is not None:
            assert sorted(order) == list(range(len(x)))


def test_neighbours_far_apart_in_memory_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = sparse.diags([np.ones(999), np.ones(999)], [-1, 1]).tocsr()
    assert smooth._near_order(chain) is None
    shuffled = np.random.default_rng(0).permutation(1000)
    mixed = sparse.csr_matrix(chain[shuffled][:, shuffled])
    order = smooth._near_order(mixed)
    assert order is not None
    again = smooth._relabelled(mixed, order).tocoo()
    assert np.abs(again.row - again.col).max() <= 2
