"""Ligand-receptor scores spot by spot against pairs of genes of like distribution: stLearn's test, every pair counted.

Score of a pair (a, b) at a spot, x a gene's value there and m its mean over the neighbours: half the sum of
x_a + m_b where both are above 0 and of x_b + m_a where both are above 0. The null pairs of a ligand and a receptor are
all pairs of a gene like the one and a gene like the other (stLearn draws some of them; Pham et al. 2023,
doi:10.1038/s41467-023-43120-6). A spot costs one pass over the null pairs whose first gene is seen at or around it,
which counts scores and sums them at once: sorting would count in n log n, but the sums by null pair need the pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit, parallel_chunksize, prange
from numpy.typing import NDArray
from scipy import sparse

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Index = NDArray[np.intp]

#: what stands for a gene's distribution, zeros included: stLearn's
QUANTILES = (0.5, 0.75, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.9975, 0.999, 1.0)
#: null pairs that stLearn draws
N_NULL = 1000
#: scores that differ by less than this share are equal: sums of the same values in another order
TIE = 1e-9
#: spots of a block (no power of two: columns of a block would fall on each other in the cache), and values in one
BLOCK, BLOCK_VALUES = 264, 1_500_000


@dataclass(frozen=True)
class Sets:
    """``columns`` float64 CSR [n_obs, n_units + n_used]: the partners, then the background genes in some set.

    ``members`` int [n_units, size] the columns of the genes like each partner, ascending, the first ``sizes``
    [n_units] of each row.
    """

    columns: sparse.csr_matrix
    members: Index
    sizes: Index


@dataclass(frozen=True)
class Block:
    """``score`` [n_pairs, n] in the spots ``rows``; ``at_least`` int [n_pairs, n], the null pairs of N whose score is
    as large (0 where the score is 0: not tested)."""

    rows: slice
    score: Float
    at_least: NDArray[np.int64]


@dataclass(frozen=True)
class Means:
    """By pair: ``effect`` the mean score over all spots; ``zscore`` and ``pvalue`` of it among the null pairs' means;
    ``n_null`` the number of null pairs."""

    effect: Float
    zscore: Float
    pvalue: Float
    n_null: NDArray[np.int64]


def like(genes: sparse.csc_matrix, background: sparse.csc_matrix, *, n_null: int = N_NULL) -> Sets:
    """For every column of ``genes`` the round(2 sqrt(n_null)) of ``background`` that are distributed most like it.

    Distance is Canberra's between quantiles; genes at distance 0 are left out, as stLearn does, and genes that are
    never seen. The null pairs are all pairs of two sets: about 4 ``n_null``.
    """
    offered = quantiles(background)
    seen = np.flatnonzero(offered[:, -1] > 0)
    size = min(round(2 * np.sqrt(n_null)), len(seen))
    near, sizes = _nearest(quantiles(genes), offered[seen], size)
    there = np.arange(size) < sizes[:, None]
    used, at = np.unique(near[there], return_inverse=True)
    members = np.zeros_like(near)
    members[there] = genes.shape[1] + at
    columns = sparse.hstack([genes, background[:, seen[used]]], format="csc").tocsr()
    return Sets(sparse.csr_matrix(columns, dtype=np.float64), members, sizes)


def quantiles(genes: sparse.csc_matrix) -> Float32:
    """``QUANTILES`` of every column of values >= 0, the nearest observed value, float32 [n_genes, 12]."""
    n = genes.shape[0]
    rank = np.quantile(np.arange(n), QUANTILES, method="nearest").astype(np.intp)
    out = np.zeros((genes.shape[1], len(rank)), dtype=np.float32)
    for row, start, stop in zip(out, genes.indptr[:-1], genes.indptr[1:]):
        at = rank - (n - (stop - start))  # what is not stored comes first
        row[at >= 0] = np.sort(genes.data[start:stop].astype(np.float32))[at[at >= 0]]
    return out


@njit(parallel=True, cache=True, error_model="numpy")
def _nearest(wanted: Float32, offered: Float32, size: int) -> tuple[Index, Index]:
    """The ``size`` rows of ``offered`` nearest to each row of ``wanted``, ascending, and their number where fewer."""
    out, sizes = np.zeros((len(wanted), size), np.intp), np.zeros(len(wanted), np.intp)
    for i in prange(len(wanted)):
        distance = np.empty(len(offered))
        for j in range(len(offered)):
            total = 0.0
            for k in range(wanted.shape[1]):
                a, b = np.float64(wanted[i, k]), np.float64(offered[j, k])
                total += abs(a - b) / (a + b) if a + b > 0 else 0.0
            distance[j] = total if total > 0 else np.inf
        cut = np.partition(distance, size - 1)[size - 1]
        spare = size - (distance < cut).sum()  # of those just at the cut the first
        n = 0
        for j in range(len(offered)):
            ties = distance[j] == cut and cut < np.inf and spare > 0
            if distance[j] < cut or ties:
                spare -= ties
                out[i, n] = j
                n += 1
        sizes[i] = n
    return out, sizes


def blocks(sets: Sets, pairs: Index, weights: sparse.csr_matrix, sums: Float) -> Iterator[Block]:
    """Scores and counts of all pairs, some spots at a time.

    ``pairs`` int [n_pairs, 2] of units; row i of ``weights`` averages over the neighbours of spot i; ``sums``
    [n_pairs, size, size], zeros at first (``no_sums``), takes up twice the null scores by null pair.
    """
    n_obs, n_columns = sets.columns.shape
    step = int(np.clip(BLOCK_VALUES // max(n_columns, 1), 8, BLOCK))
    for start in range(0, n_obs, step):
        rows = slice(start, min(start + step, n_obs))
        own, beside = _dense(sets.columns, weights, rows)
        score = np.zeros((len(pairs), own.shape[1]))
        at_least = np.zeros(score.shape, dtype=np.int64)
        with parallel_chunksize(1):  # pairs that are seen in more spots take longer
            _pairs(own, beside, pairs, sets.members, sets.sizes, score, at_least, sums)
        yield Block(rows, score, at_least)


def _dense(columns: sparse.csr_matrix, weights: sparse.csr_matrix, rows: slice) -> tuple[Float, Float]:
    """Values of some spots and their neighbours' means, both [n_columns, n]; of all others only neighbours are read."""
    near = weights[rows]
    read, at = np.unique(near.indices, return_inverse=True)
    near = sparse.csr_matrix((near.data, at, near.indptr), shape=(near.shape[0], len(read)))
    beside = near @ columns[read].toarray()
    return np.ascontiguousarray(columns[rows].toarray().T), np.ascontiguousarray(beside.T)


def no_sums(sets: Sets, pairs: Index) -> Float:
    """Zeros by pair and null pair, for ``blocks`` to add to."""
    size = sets.members.shape[1]
    return np.zeros((len(pairs), size, size))


@njit(parallel=True, cache=True, error_model="numpy")
def _pairs(
    own: Float,
    beside: Float,
    pairs: Index,
    members: Index,
    sizes: Index,
    score: Float,
    at_least: NDArray[np.int64],
    sums: Float,
) -> None:
    """Each pair is one thread's, spots in their order: no sum depends on the number of threads."""
    for p in prange(len(pairs)):
        ligand, receptor = pairs[p, 0], pairs[p, 1]
        first, second = members[ligand, : sizes[ligand]], members[receptor, : sizes[receptor]]
        same = _is_in(first, second)
        base, has = np.empty((3, len(second))), np.empty((2, len(second)))
        for i in range(own.shape[1]):
            x_l, m_l, x_r, m_r = own[ligand, i], beside[ligand, i], own[receptor, i], beside[receptor, i]
            doubled = (x_l + m_r) * _has(x_l) * _has(m_r) + (m_l + x_r) * _has(m_l) * _has(x_r)
            score[p, i] = doubled / 2
            for b in range(len(second)):
                base[0, b], base[1, b] = beside[second[b], i], own[second[b], i]
            for b in range(len(second)):
                base[2, b] = base[0, b] + base[1, b]
                has[0, b], has[1, b] = _has(base[0, b]), _has(base[1, b])
            n, least = 0, doubled * (1 - TIE)
            for a in range(len(first)):
                x, m = own[first[a], i], beside[first[a], i]
                kind = int(x > 0) + 2 * int(m > 0) - 1
                if kind >= 0:
                    n += _row(x, m, base[kind], has[0], has[1], least, sums[p, a])
                if kind == 2 and same[a] and 2 * (x + m) >= least:
                    n -= 1
            at_least[p, i] = n if doubled > 0 else 0


@njit(cache=True)
def _is_in(first: Index, second: Index) -> NDArray[np.bool_]:
    out = np.zeros(len(first), np.bool_)
    for a in range(len(first)):
        for b in range(len(second)):
            out[a] |= first[a] == second[b]
    return out


@njit(cache=True)
def _has(value: float) -> float:
    return 1.0 if value > 0 else 0.0


@njit(cache=True, inline="always")  # a call for each gene takes half as long again
def _row(x_a: float, m_a: float, base: Float, has_m: Float, has_x: Float, least: float, sums: Float) -> int:
    """One gene with all genes of the other set: adds twice the scores to their sums, counts those of at least
    ``least``. ``base`` is the part that gene a, seen here, around, or both, lets the others have: their m, x, or both.
    No branch in the loop, so that the compiler takes several genes at a time."""
    n = 0
    for b in range(len(base)):
        doubled = base[b] + (x_a * has_m[b] + m_a * has_x[b])
        sums[b] += doubled
        n += doubled >= least
    return n


def null_pairs(sets: Sets, pairs: Index) -> NDArray[np.int64]:
    """Number of null pairs by pair: a gene is not paired with itself."""
    first, second = sets.sizes[pairs].T
    shared = [np.intersect1d(_set(sets, a), _set(sets, b)).size for a, b in pairs]
    return np.asarray(first * second - np.array(shared, dtype=np.int64), dtype=np.int64)


def _set(sets: Sets, unit: int) -> Index:
    return np.asarray(sets.members[unit, : sets.sizes[unit]])


def means(effect: Float, sets: Sets, pairs: Index, sums: Float) -> Means:
    """Mean scores ``effect`` among those of the null pairs: p = (b + 1) / (N + 1), b of N at least as large."""
    z, p, number = np.zeros(len(pairs)), np.ones(len(pairs)), np.zeros(len(pairs), dtype=np.int64)
    for i, (ligand, receptor) in enumerate(pairs):
        first, second = _set(sets, ligand), _set(sets, receptor)
        other = first[:, None] != second
        null = sums[i, : len(first), : len(second)][other] / (2 * sets.columns.shape[0])
        number[i] = len(null)
        spread = float(null.std()) if len(null) else 0.0
        z[i] = (effect[i] - null.mean()) / spread if spread > 0 else 0.0
        p[i] = (1 + (null >= effect[i] * (1 - TIE)).sum()) / (1 + len(null))
    return Means(effect, z, p, number)


def spot_pvalues(block: Block, n_null: NDArray[np.int64]) -> Float:
    """(b + 1) / (N + 1) by pair and spot, never 0; 1 where the score is 0."""
    p = (block.at_least + 1) / (n_null[:, None] + 1)
    return np.asarray(np.where(block.score > 0, p, 1.0))


def significant(pvalue: Float, tested: NDArray[np.bool_], fdr: float) -> NDArray[np.bool_]:
    """Benjamini & Hochberg 1995 within every spot (column), over its ``tested`` pairs."""
    ordered = np.sort(np.where(tested, pvalue, np.inf).T, axis=1)
    limit = fdr * np.arange(1, len(pvalue) + 1) / np.maximum(tested.sum(axis=0), 1)[:, None]
    cut = np.where(ordered <= limit, ordered, -np.inf).max(axis=1, initial=-np.inf)
    return np.asarray(tested & (pvalue <= cut))
