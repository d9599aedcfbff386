"""Partitions that name the same groups differently become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from smeld.kernels.consensus import aligned, consensus

Float = NDArray[np.float64]


def membership(n: int, k: int, seed: int, *, sharp: float = 0.2) -> Float:
    return np.random.default_rng(seed).dirichlet(np.full(k, sharp), n)


@given(st.integers(2, 7), st.integers(0, 200))
def test_aligned_undoes_a_permutation_of_columns(k: int, seed: int) -> None:
    p = membership(80, k, seed)
    order = np.random.default_rng(seed).permutation(k)
    assert np.array_equal(aligned(p, p[:, order]), p)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 200))
def test_consensus_of_one_partition_under_many_names_is_that_partition(k: int, n: int, seed: int) -> None:
    p, rng = membership(60, k, seed), np.random.default_rng(seed)
    members = [p, *(p[:, rng.permutation(k)] for _ in range(n))]
    assert consensus(members) == pytest.approx(p, abs=1e-12)


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 200))
def test_rows_sum_to_one_and_members_are_left_alone(k: int, n: int, seed: int) -> None:
    members = [membership(50, k, seed + i) for i in range(n)]
    kept = [m.copy() for m in members]
    made = consensus(members)
    assert made.shape == (50, k)
    assert (made >= 0).all()
    assert made.sum(axis=1) == pytest.approx(np.ones(50))
    assert all(np.array_equal(a, b) for a, b in zip(members, kept, strict=True))


def test_spots_on_which_members_disagree_get_less_certain() -> None:
    first = np.eye(3)[np.repeat([0, 1, 2], 20)]
    second = first.copy()
    second[:5] = [0, 1, 0]
    made = consensus([first, second[:, [2, 0, 1]]])
    assert made[:5].max(axis=1) == pytest.approx(0.5)
    assert made[5:].max(axis=1) == pytest.approx(1.0)
