"""Tables by blocks of rows against the same table in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from smeld.kernels import rows


def table(n: int, g: int, *, seed: int = 0, density: float = 0.4) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(2.0, (n, g)) * (rng.random((n, g)) < density)
    return sparse.csr_matrix(dense.astype(np.float32))


def untidy(x: sparse.csr_matrix, rng: np.random.Generator) -> sparse.csr_matrix:
    """The same values, columns of a row shuffled, with stored zeros."""
    coo = x.tocoo()
    keep = rng.permutation(coo.nnz)
    at = np.concatenate([coo.row[keep], np.arange(x.shape[0])])
    gene = np.concatenate([coo.col[keep], np.full(x.shape[0], x.shape[1] - 1)])
    value = np.concatenate([coo.data[keep], np.zeros(x.shape[0], dtype=np.float32)])
    order = np.argsort(at, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=x.shape[0]))])
    return sparse.csr_matrix((value[order], gene[order], indptr), shape=x.shape)


def blocked(x: sparse.csr_matrix, size: int) -> rows.Rows:
    """Blocks of another size than the default's."""
    made = rows.in_memory(x)
    parts = [(start, made.fetch(start, min(start + size, len(made)))) for start in range(0, len(made), size)]

    class Small(rows.Rows):
        def blocks(self, size: int = 0):
            yield from parts

    return Small(made.shape, made.fetch, made.take)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_sums_are_numpys_and_do_not_depend_on_blocks(n: int, g: int, size: int, seed: int) -> None:
    x = table(n, g, seed=seed)
    dense = x.toarray().astype(np.float64)
    for given_table in (x, rows.in_memory(x), blocked(x, size)):
        seen, total, square = rows.column_sums(given_table)
        np.testing.assert_array_equal(seen, (dense > 0).sum(axis=0))
        np.testing.assert_array_equal(total, dense.sum(axis=0))
        np.testing.assert_array_equal(square, (dense**2).sum(axis=0))
        np.testing.assert_array_equal(rows.row_sums(given_table), dense.sum(axis=1))


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_sums_by_group_leave_out_negative_labels(n: int, g: int, size: int, seed: int) -> None:
    x, rng = table(n, g, seed=seed), np.random.default_rng(seed)
    label = rng.integers(-1, 3, n)
    seen, total, square = rows.grouped_sums(blocked(x, size), label, 3)
    dense = x.toarray().astype(np.float64)
    for k in range(3):
        mine = dense[label == k]
        np.testing.assert_array_equal(seen[k], (mine > 0).sum(axis=0))
        np.testing.assert_array_equal(total[k], mine.sum(axis=0))
        np.testing.assert_array_equal(square[k], (mine**2).sum(axis=0))


@given(st.integers(2, 40), st.integers(1, 9), st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_by_columns_is_scipys_with_other_genes_empty(n: int, g: int, size: int, seed: int) -> None:
    x, rng = table(n, g, seed=seed), np.random.default_rng(seed)
    wanted = np.flatnonzero(rng.random(g) < 0.6)
    made = rows.to_columns(blocked(x, size), rows.column_sums(x)[0], wanted)
    expected = np.zeros_like(x.toarray())
    expected[:, wanted] = x.toarray()[:, wanted]
    np.testing.assert_array_equal(made.toarray(), expected)
    assert made.has_sorted_indices and made.nnz == np.count_nonzero(expected)


def test_in_memory_tidies_blocks_and_leaves_the_callers_table_alone() -> None:
    rng = np.random.default_rng(1)
    x = table(30, 7)
    given_table = untidy(x, rng)
    before = [a.copy() for a in (given_table.data, given_table.indices, given_table.indptr)]
    order = rng.permutation(30)
    made = rows.in_memory(given_table, order)
    whole = made.whole()
    np.testing.assert_array_equal(whole.toarray(), x[order].toarray())
    assert whole.has_sorted_indices and whole.data.all()
    chosen = np.array([2, 3, 11, 29])
    np.testing.assert_array_equal(made.take(chosen).toarray(), x[order[chosen]].toarray())
    for a, b in zip(before, (given_table.data, given_table.indices, given_table.indptr)):
        np.testing.assert_array_equal(a, b)


def test_mapped_functions_are_told_their_rows() -> None:
    x = table(20, 5)
    scale = np.arange(20.0)
    made = rows.in_memory(x).mapped(lambda block, at: sparse.csr_matrix(sparse.diags(scale[at]) @ block))
    expected = scale[:, None] * x.toarray()
    np.testing.assert_array_equal(made.whole().toarray(), expected)
    np.testing.assert_array_equal(made.fetch(7, 12).toarray(), expected[7:12])
    np.testing.assert_array_equal(made.take(np.array([3, 19])).toarray(), expected[[3, 19]])
    genes = np.array([1, 4])
    np.testing.assert_array_equal(made.columns(genes).whole().toarray(), expected[:, genes])


def test_columns_in_parts_hold_no_more_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_VALUES", 10)
    seen = np.array([4, 5, 3, 12, 1, 0, 9])
    genes = np.array([0, 1, 2, 3, 4, 6])
    parts = rows.column_parts(seen, genes)
    np.testing.assert_array_equal(np.concatenate(parts), genes)
    assert all(seen[part].sum() <= 10 or len(part) == 1 for part in parts) and len(parts) == 4


@pytest.mark.parametrize(("values", "whole"), [([1.0, 3.0], True), ([1.0, 2.5], False)])
def test_whole_numbers_are_recognised(values: list[float], whole: bool) -> None:
    x = sparse.csr_matrix(np.array([values], dtype=np.float32))
    assert rows.in_memory(x).hold_counts() is whole


def test_blocks_of_a_table_with_two_kinds_of_indices_cost_what_they_hold() -> None:
    """As anndata reads them from zarr: scipy would go through the whole table for every block."""
    x = table(30, 5)
    mixed = sparse.csr_matrix(x)
    mixed.indptr = x.indptr.astype(np.int64)
    made = rows.in_memory(mixed)
    block = made.fetch(3, 9)
    assert block.indptr.dtype == block.indices.dtype == np.int32
    np.testing.assert_array_equal(made.whole().toarray(), x.toarray())
    assert mixed.indptr.dtype == np.int64


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_only_some_columns_keep_their_values(n: int, g: int, seed: int) -> None:
    x, rng = table(n, g, seed=seed), np.random.default_rng(seed)
    wanted = np.flatnonzero(rng.random(g) < 0.5)
    made = rows.only_columns(sparse.csc_matrix(x), wanted)
    expected = np.zeros_like(x.toarray())
    expected[:, wanted] = x.toarray()[:, wanted]
    np.testing.assert_array_equal(made.toarray(), expected)
    assert made.nnz == np.count_nonzero(expected)
