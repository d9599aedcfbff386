"""Whether two spots share a domain: the sum over memberships, by name or number, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import smeld as sm


def table(n: int = 30, k: int = 4, seed: int = 0, key: str = "domain") -> AnnData:
    rng = np.random.default_rng(seed)
    adata = AnnData(sparse.csr_matrix(rng.poisson(2.0, (n, 3)).astype(np.float32)))
    adata.obs_names = [f"s{i}" for i in rng.permutation(n)]
    prob = rng.dirichlet(np.full(k, 0.3), n)
    adata.obsm[f"{key}_prob"] = pd.DataFrame(prob, index=adata.obs_names, columns=[str(i + 1) for i in range(k)])
    return adata


def by_hand(adata: AnnData, pairs: Any, balanced: bool) -> list[float]:
    p = adata.obsm["domain_prob"].to_numpy()
    n = len(p)
    base = sum(float(p[i] @ p[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    out = []
    for i, j in pairs:
        t = float(p[i] @ p[j])
        odds = t / (1 - t) / (base / (1 - base))
        out.append(odds / (1 + odds) if balanced else t)
    return out


@given(st.integers(2, 20), st.integers(2, 5), st.integers(0, 50), st.booleans())
def test_probabilities_equal_those_made_by_hand(n: int, k: int, seed: int, balanced: bool) -> None:
    adata = table(n, k, seed)
    pairs = np.random.default_rng(seed).integers(0, n, (15, 2))
    made = sm.tl.same_domain(adata, pairs, balanced=balanced)
    assert made.shape == (15,) and made.dtype == np.float64
    assert made == pytest.approx(by_hand(adata, pairs, balanced))
    assert np.array_equal(made, sm.tl.same_domain(adata, pairs[:, ::-1], balanced=balanced))


@pytest.mark.parametrize("balanced", [False, True])
def test_names_and_numbers_mean_the_same(balanced: bool) -> None:
    adata = table()
    number = np.random.default_rng(1).integers(0, 30, (20, 2))
    name = [(adata.obs_names[i], adata.obs_names[j]) for i, j in number]
    expected = sm.tl.same_domain(adata, number, balanced=balanced)
    for pairs in (name, np.asarray(name, dtype=object), pd.DataFrame(name), number.astype(np.uint16), number.tolist()):
        assert np.array_equal(sm.tl.same_domain(adata, pairs, balanced=balanced), expected)


def test_permuting_the_spots_leaves_named_pairs_alone() -> None:
    adata = table()
    other = adata[np.random.default_rng(2).permutation(30)].copy()
    pairs = [("s1", "s9"), ("s3", "s3"), ("s29", "s0")]
    for balanced in (False, True):
        made = sm.tl.same_domain(other, pairs, balanced=balanced)
        assert made == pytest.approx(sm.tl.same_domain(adata, pairs, balanced=balanced), rel=1e-12)


def test_another_key_and_nothing_is_written() -> None:
    adata = table(key="region")
    before = (set(adata.obs), set(adata.obsm), set(adata.uns))
    assert sm.tl.same_domain(adata, [(0, 1)], key="region").shape == (1,)
    assert (set(adata.obs), set(adata.obsm), set(adata.uns)) == before
    assert sm.tl.same_domain(adata, np.empty((0, 2), dtype=int), key="region").shape == (0,)


def test_one_domain_holds_every_pair() -> None:
    assert sm.tl.same_domain(table(k=1), [(0, 1), (2, 29)]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([(0, 30)], "30"),
        ([(-1, 3)], "-1"),
        ([("s0", "nowhere")], "nowhere"),
        ([0, 1], "two columns"),
        ([(0, 1, 2)], "two columns"),
        ([(0.0, 1.0)], "not all spots"),
    ],
)
def test_bad_pairs_are_refused(pairs: Any, message: str) -> None:
    with pytest.raises(sm.InputError, match=message):
        sm.tl.same_domain(table(), pairs)


def test_without_domains_it_says_what_to_run() -> None:
    adata = table()
    with pytest.raises(sm.InputError, match=r"region_prob(.|\n)*sm\.tl\.domains"):
        sm.tl.same_domain(adata, [(0, 1)], key="region")
