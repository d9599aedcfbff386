"""From counts to a low-dimensional expression embedding; sparse throughout."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from smeld.kernels.autocorr import morans_i
from smeld.kernels.rows import MOST_VALUES, ROWS, Rows, Sums, as_rows, column_parts, column_sums, row_sums

#: scaled expression is cut here, as is usual in the field, so that single outliers do not make a component
MAX_SCALED = 10.0
MIN_SPOTS = 3
#: components with less spatial autocorrelation are left out of the embedding
MIN_MORAN = 0.1
SPOTS_PER_COMPONENT = 30
#: from this many spots components come from the genes' covariance, summed over blocks of rows: no scaled copy of the
#: table is made, and the time does not depend on how the spectrum falls
LARGE = 10_000
#: and with so few genes, for then that is quickest whatever the number of spots
FEW_GENES = 1_000

Table: TypeAlias = sparse.csr_matrix | Rows


class Embedding(NamedTuple):
    """``scores`` float64 [n_obs, d]; the ``genes`` used (indices); their ``loadings`` [d, n_used]; variance shares."""

    scores: NDArray[np.float64]
    genes: NDArray[np.intp]
    loadings: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]


def log_normalise(counts: sparse.csr_matrix, *, target: float | None = None) -> sparse.csr_matrix:
    """log(1 + counts / library size * target), float64 CSR; ``target`` is the median library size by default."""
    return _logged(sparse.csr_matrix(counts, dtype=np.float64, copy=True), _size_factors(row_sums(counts), target))


def log_rows(counts: Rows, *, target: float | None = None) -> Rows:
    """:func:`log_normalise` of a table that is never there as a whole: blocks are logged when they are asked for."""
    scale = _size_factors(row_sums(counts), target)
    return counts.mapped(lambda block, rows: _logged(block.astype(np.float64), scale[rows]))


def _size_factors(size: NDArray[np.float64], target: float | None) -> NDArray[np.float64]:
    if target is None:
        target = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
    return np.asarray(np.divide(target, size, out=np.zeros_like(size), where=size > 0))


def _logged(matrix: sparse.csr_matrix, scale: NDArray[np.float64]) -> sparse.csr_matrix:
    """log(1 + values times their row's ``scale``), in place."""
    matrix.data = np.log1p(matrix.data * np.repeat(scale, np.diff(matrix.indptr)))
    return matrix


def mean_and_sd(x: Table, sums: Sums | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of every column; ``sums`` of the columns, where they are known."""
    _, total, square = column_sums(x) if sums is None else sums
    mean = total / x.shape[0]
    return mean, np.sqrt(np.maximum(square / x.shape[0] - mean**2, 0))


def spatially_variable(
    x: Table, weights: sparse.csr_matrix, *, n_genes: int, sums: Sums | None = None
) -> NDArray[np.intp]:
    """Indices of the ``n_genes`` genes with the highest Moran's I, in the order of the table; ``sums`` those of its
    columns, where they are known.

    Genes seen in fewer than 3 spots are left out. Equal scores go to the gene that stands first.
    """
    rows = as_rows(x)
    n_seen = (column_sums(rows) if sums is None else sums)[0]
    seen = n_seen >= min(MIN_SPOTS, x.shape[0])
    candidates = np.flatnonzero(seen) if seen.any() else np.arange(x.shape[1])
    if len(candidates) <= n_genes:
        return candidates
    parts = column_parts(n_seen, candidates)
    score = np.concatenate([morans_i(rows.columns(part).whole(), weights) for part in parts])
    return np.sort(candidates[np.argsort(-score, kind="stable")[:n_genes]])


def _scale(x: Table, sums: Sums | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(where columns are cut, what they are divided by)."""
    mean, sd = mean_and_sd(x, sums)
    # relative: rounding leaves a constant column a standard deviation of about 1e-8 of its mean
    sd = np.where(sd > 1e-6 * np.abs(mean), sd, 1.0)
    return mean + MAX_SCALED * sd, sd


def scale_columns(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Columns divided by their standard deviation and cut at mean + 10 sd; not centred, so that zeros stay zeros."""
    top, sd = _scale(x)
    scaled = sparse.csr_matrix(x, copy=True)
    scaled.data = np.minimum(scaled.data, top[scaled.indices]) / sd[scaled.indices]
    return scaled


Components = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def scaled_pca(x: Table, n_components: int, *, seed: int, sums: Sums | None = None) -> Components:
    """``pca`` of ``scale_columns(x)``; ``sums`` of the columns, where they are known."""
    rows = as_rows(x)
    if x.shape[0] < LARGE and x.shape[1] > FEW_GENES:
        return pca(scale_columns(rows.whole()), n_components, seed=seed)
    top, sd = _scale(rows, sums)

    def block(start: int) -> NDArray[np.float64]:
        dense = rows.fetch(start, min(start + ROWS, x.shape[0])).toarray()
        np.minimum(dense, top, out=dense)
        dense /= sd
        return np.asarray(dense)

    return _pca_of_blocks(block, x.shape, n_components)


def _pca_of_blocks(
    block: Callable[[int], NDArray[np.float64]], shape: tuple[int, int], n_components: int
) -> Components:
    """Components of a matrix whose rows from ``start`` on ``block(start)`` gives, by its covariance.

    Blocks are worked on side by side and summed in order: the same bits for any number of threads.
    """

    def moments(start: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = block(start)
        return rows.sum(axis=0), rows.T @ rows

    n, p = shape
    workers = os.cpu_count() or 1
    total, second = np.zeros(p), np.zeros((p, p))
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        starts = range(0, n, ROWS)
        for i in range(0, len(starts), workers):  # few at a time: each holds p x p
            for first, square in pool.map(moments, starts[i : i + workers]):
                total += first
                second += square
        mean = total / n
        second -= n * np.outer(mean, mean)
        second /= n - 1
        d = min(n_components, p)
        variance, vectors = eigh(second, subset_by_index=[p - d, p - 1], overwrite_a=True, check_finite=False)
        variance, vectors = np.maximum(variance[::-1], 0.0), vectors[:, ::-1]
        # the sign of an eigenvector is arbitrary: its largest entry is made positive
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(d)])
        scores = np.empty((n, d))

        def project(start: int) -> None:
            scores[start : start + ROWS] = block(start) @ vectors

        list(pool.map(project, starts))
    scores -= mean @ vectors
    whole = float(np.trace(second))
    return scores, np.ascontiguousarray(vectors.T), variance / whole if whole > 0 else np.ones(d) / d


def pca(x: sparse.csr_matrix, n_components: int, *, seed: int) -> Components:
    """(scores [n_obs, d], loadings [d, n_genes], variance ratio [d]) of a sparse matrix, centred implicitly."""
    from sklearn.decomposition import PCA

    mean, sd = mean_and_sd(x)
    if not (sd > 1e-7 * np.abs(mean)).any():  # all spots are the same
        return np.zeros((x.shape[0], 1)), np.eye(1, x.shape[1]), np.ones(1)
    d = min(n_components, x.shape[0] - 1, x.shape[1])
    with threadpool_limits(1):
        if d < min(x.shape):
            model = PCA(d, svd_solver="arpack", random_state=seed)
            scores = model.fit_transform(x)
        else:  # every direction of a few genes is wanted: Lanczos iteration cannot give the last
            model = PCA(d, svd_solver="full")
            scores = model.fit_transform(x.toarray())
    return scores, model.components_, model.explained_variance_ratio_


def spatial_components(scores: NDArray[np.float64], weights: sparse.csr_matrix) -> NDArray[np.intp]:
    """Indices of the components that vary in space: Moran's I of at least ``MIN_MORAN``, the first always.

    Components without spatial structure carry no regions; kept, they are blown up as soon as a mixture whitens the
    embedding. At most one component for every ``SPOTS_PER_COMPONENT`` spots, the highest I first: a covariance needs
    spots to be estimated from.
    """
    width = max(1, MOST_VALUES // len(scores))
    parts = range(0, scores.shape[1], width)
    moran = np.concatenate([morans_i(sparse.csr_matrix(scores[:, i : i + width]), weights) for i in parts])
    keep = np.flatnonzero(moran >= MIN_MORAN)
    most = max(2, len(scores) // SPOTS_PER_COMPONENT)
    keep = keep[np.argsort(-moran[keep], kind="stable")[:most]]
    return np.union1d(keep, [0])


def embed(log_counts: Table, weights: sparse.csr_matrix, *, n_genes: int, n_components: int, seed: int) -> Embedding:
    """Principal components of the scaled expression of the spatially variable genes, those that vary in space."""
    rows = as_rows(log_counts)
    sums = column_sums(rows)
    genes = spatially_variable(rows, weights, n_genes=n_genes, sums=sums)
    of_genes = (sums[0][genes], sums[1][genes], sums[2][genes])
    scores, loadings, ratio = scaled_pca(rows.columns(genes), n_components, seed=seed, sums=of_genes)
    keep = spatial_components(scores, weights)
    if len(keep) == scores.shape[1]:
        return Embedding(scores, genes, loadings, ratio)
    return Embedding(scores[:, keep], genes, loadings[keep], ratio[keep])
