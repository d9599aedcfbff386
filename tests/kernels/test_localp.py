"""Local scores against the product of two independent fields."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smeld.kernels import localp


def _fields(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.log1p(rng.poisson(1.0, n)), np.log1p(rng.poisson(0.7, (n, 6))).mean(axis=1)


@given(st.integers(0, 50))
def test_close_to_all_pairs_and_never_below(seed: int) -> None:
    first, second = _fields(seed)
    found = localp.product_pvalues(first, second)
    products = np.sort(np.outer(first, second).ravel())
    score = first * second
    exact = (len(products) - np.searchsorted(products, score * (1 - 1e-9))) / len(products)
    positive = score > 0
    assert (found[~positive] == 1).all()
    assert (found[positive] >= exact[positive] - 1e-12).all()
    assert (found[positive] <= exact[positive] * 1.1 + 0.01).all()


def test_independent_fields_pass_no_more_often_than_they_should() -> None:
    p = np.concatenate([localp.product_pvalues(*_fields(seed)) for seed in range(40)])
    assert (p <= 0.05).mean() <= 0.055
    assert (p > 0).all() and (p <= 1).all()


def test_nothing_there_is_nothing_significant() -> None:
    assert (localp.product_pvalues(np.zeros(10), np.ones(10)) == 1).all()
    assert localp.product_pvalues(np.ones(10), np.ones(10)) == pytest.approx(np.ones(10))


def test_adjusted_is_benjamini_and_hochberg() -> None:
    assert localp.adjusted(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert len(localp.adjusted(np.zeros(0))) == 0
