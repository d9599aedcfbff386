"""From counts to a low-dimensional expression embedding; sparse throughout."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from smeld.kernels.autocorr import morans_i

#: scaled expression is cut here, as is usual in the field, so that single outliers do not make a component
MAX_SCALED = 10.0
MIN_SPOTS = 3
#: components with less spatial autocorrelation are left out of the embedding
MIN_MORAN = 0.1
SPOTS_PER_COMPONENT = 30


class Embedding(NamedTuple):
    """``scores`` float64 [n_obs, d]; the ``genes`` used (indices); their ``loadings`` [d, n_used]; variance shares."""

    scores: NDArray[np.float64]
    genes: NDArray[np.intp]
    loadings: NDArray[np.float64]
    variance_ratio: NDArray[np.float64]


def log_normalise(counts: sparse.csr_matrix, *, target: float | None = None) -> sparse.csr_matrix:
    """log(1 + counts / library size * target), float64 CSR; ``target`` is the median library size by default."""
    matrix = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    size = np.asarray(matrix.sum(axis=1)).ravel()
    if target is None:
        target = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
    scale = np.divide(target, size, out=np.zeros_like(size), where=size > 0)
    matrix.data = np.log1p(matrix.data * np.repeat(scale, np.diff(matrix.indptr)))
    return matrix


def mean_and_sd(x: sparse.csr_matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation of every column."""
    mean = np.asarray(x.mean(axis=0)).ravel()
    square = np.asarray(x.multiply(x).mean(axis=0)).ravel()
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def spatially_variable(x: sparse.csr_matrix, weights: sparse.csr_matrix, *, n_genes: int) -> NDArray[np.intp]:
    """Indices of the ``n_genes`` genes with the highest Moran's I, in the order of the table.

    Genes seen in fewer than 3 spots are left out. Equal scores go to the gene that stands first.
    """
    seen = np.asarray((x > 0).sum(axis=0)).ravel() >= min(MIN_SPOTS, x.shape[0])
    candidates = np.flatnonzero(seen) if seen.any() else np.arange(x.shape[1])
    if len(candidates) <= n_genes:
        return candidates
    score = morans_i(x[:, candidates], weights)
    return np.sort(candidates[np.argsort(-score, kind="stable")[:n_genes]])


def scale_columns(x: sparse.csr_matrix) -> sparse.csr_matrix:
    """Columns divided by their standard deviation and cut at mean + 10 sd; not centred, so that zeros stay zeros."""
    mean, sd = mean_and_sd(x)
    # relative: rounding leaves a constant column a standard deviation of about 1e-8 of its mean
    sd = np.where(sd > 1e-6 * np.abs(mean), sd, 1.0)
    scaled = sparse.csr_matrix(x, copy=True)
    top = (mean + MAX_SCALED * sd)[scaled.indices]
    scaled.data = np.minimum(scaled.data, top) / sd[scaled.indices]
    return scaled


def pca(
    x: sparse.csr_matrix, n_components: int, *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
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
    moran = morans_i(sparse.csr_matrix(scores), weights)
    keep = np.flatnonzero(moran >= MIN_MORAN)
    most = max(2, len(scores) // SPOTS_PER_COMPONENT)
    keep = keep[np.argsort(-moran[keep], kind="stable")[:most]]
    return np.union1d(keep, [0])


def embed(
    log_counts: sparse.csr_matrix, weights: sparse.csr_matrix, *, n_genes: int, n_components: int, seed: int
) -> Embedding:
    """Principal components of the scaled expression of the spatially variable genes, those that vary in space."""
    genes = spatially_variable(log_counts, weights, n_genes=n_genes)
    scores, loadings, ratio = pca(scale_columns(log_counts[:, genes]), n_components, seed=seed)
    keep = spatial_components(scores, weights)
    return Embedding(scores[:, keep], genes, loadings[keep], ratio[keep])
