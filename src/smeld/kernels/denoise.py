"""Expected counts from measured ones: rank-limited, smoothed over the graph, then given back what is the spot's own.

The model. Counts are x_ig ~ Poisson(N_i pi_g (1 + q_ig)): N the library size, pi the gene's share of the section, q how
the spot differs. q is of low rank: residuals are projected on a few axes, their scores smoothed along
the graph with the precision N_i of each spot, and the genes' loadings estimated again from the smoothed scores with
ridge (the prior). A gene's own excess over that prior is kept as far as its dispersion says that it is signal (gamma-
Poisson shrinkage, as SAVER, Huang et al. 2018). What is chosen from held-out counts are variances of the *truth*, not
of its estimate: the depth enters through N_i alone, so that what half the counts taught holds for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import linalg, sparse

from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: genes that span the axes: those whose dispersion stands out most; more gave no better held-out score
N_BASIS = 300
#: an axis gene needs this many counts, or its residuals are a few spikes
LEAST_COUNTS = 20
#: share of the section's mean in the prior, and of the mean in the odds of the gene's own count: a prior of nearly 0
#: must not overrule a count that was seen. Held-out scores of all real sections are flat around both.
MIX, OWN_MIX = 0.05, 0.3
#: lowest prior rate, in units of the section's mean
FLOOR = 0.05
#: penalty of a score itself, in units of the penalty of its differences: makes the system well posed
KAPPA = 0.02
#: rows that are held densely at a time
BLOCK = 64
#: spots that the genes' own dispersion is estimated from
MOST_FOR_DISPERSION = 600


@dataclass(frozen=True)
class Settings:
    """What the estimate depends on, none of it on the depth of sequencing.

    ``smoothing`` [d] precision of a component's differences between neighbours; ``nugget`` [d] variance of the spot's
    own part of a component; a component whose ``smoothing`` is infinite is left out. ``ridge`` multiplies the prior
    precision of loadings; ``own`` the gene's dispersion; ``trust`` is the weight of a gene's own count, per count of
    the library, whatever its dispersion.
    """

    smoothing: tuple[float, ...]
    nugget: tuple[float, ...]
    ridge: float = 4.0
    own: float = 1.0
    trust: float = 0.0

    @property
    def rank(self) -> int:
        """Components that are used."""
        return int(np.isfinite(self.smoothing).sum())


@dataclass(frozen=True)
class Gene:
    """Moments of every gene [n_genes]: ``share`` of all counts, ``total``, ``dispersion`` about the section's mean."""

    share: Float
    total: Float
    dispersion: Float


@dataclass(frozen=True)
class Axes:
    """``genes`` (indices) and their weights [n_axis_genes, d]: scores are (x - N pi) @ ``weights``."""

    genes: NDArray[np.intp]
    weights: Float


@dataclass(frozen=True)
class Prior:
    """``left`` float32 [n_obs, d + 1] times ``right`` float32 [d + 1, n_genes] is the prior rate of a count."""

    left: Float32
    right: Float32
    share: Float


@njit(cache=True)
def whole(data):  # type: ignore[no-untyped-def]
    """True if all values are whole numbers."""
    return not (data != np.floor(data)).any()


@njit(cache=True)
def _moments(indptr, indices, data, size, n_genes):  # type: ignore[no-untyped-def]
    total, square, with_size = np.zeros(n_genes), np.zeros(n_genes), np.zeros(n_genes)
    for i in range(indptr.size - 1):
        for e in range(indptr[i], indptr[i + 1]):
            x = float(data[e])
            total[indices[e]] += x
            square[indices[e]] += x * x
            with_size[indices[e]] += x * size[i]
    return total, square, with_size


def gene_moments(counts: sparse.csr_matrix, size: Float) -> Gene:
    """Share, total and dispersion (by moments: variance = mean + dispersion mean^2) of every gene.

    ``size`` may count genes that are not in the table. Half a count is added to each total: a gene that was not seen is
    rare, not absent.
    """
    total, square, with_size = _moments(counts.indptr, counts.indices, counts.data, size, counts.shape[1])
    share = (total + 0.5) / (float(size.sum()) + 0.5 * len(total))
    expected = float(size @ size) * share**2
    excess = square - 2 * share * with_size + expected - total
    return Gene(share, total, np.clip(excess / np.maximum(expected, 1e-12), 0.0, 50.0))


def axis_genes(gene: Gene, size: Float, n_genes: int = N_BASIS) -> NDArray[np.intp]:
    """Genes whose dispersion is furthest above Poisson, in standard errors; in the order of the table."""
    error = gene.dispersion * gene.share * np.sqrt(float(size @ size))
    enough = gene.total >= min(LEAST_COUNTS, float(gene.total.max()))
    candidates = np.flatnonzero(enough)
    return np.sort(candidates[np.argsort(-error[candidates], kind="stable")[:n_genes]])


@njit(cache=True)
def _dense_columns(indptr, indices, data, start, stop, place, out):  # type: ignore[no-untyped-def]
    for i in range(start, stop):
        for e in range(indptr[i], indptr[i + 1]):
            if place[indices[e]] >= 0:
                out[i - start, place[indices[e]]] = data[e]


def _residuals(counts: sparse.csr_matrix, size: Float, gene: Gene, genes: NDArray[np.intp], rows: slice) -> Float32:
    """x - N pi of some genes, float32 [n_rows, n_axis_genes]."""
    place = np.full(counts.shape[1], -1, dtype=np.intp)
    place[genes] = np.arange(len(genes))
    out = np.zeros((rows.stop - rows.start, len(genes)), dtype=np.float32)
    _dense_columns(counts.indptr, counts.indices, counts.data, rows.start, rows.stop, place, out)
    out -= np.outer(size[rows].astype(np.float32), gene.share[genes].astype(np.float32))
    return out


def _deviation(gene: Gene, genes: NDArray[np.intp], typical: float) -> Float:
    """Standard deviation of a count over sqrt(N): of Poisson counts for a steady gene, more for a dispersed one, so
    that no few genes of high dispersion make all the axes."""
    share = gene.share[genes]
    return np.asarray(np.sqrt(share * (1 + gene.dispersion[genes] * typical * share)))


def axes(
    counts: sparse.csr_matrix,
    size: Float,
    weights: sparse.csr_matrix,
    gene: Gene,
    *,
    n_components: int,
    genes: NDArray[np.intp] | None = None,
) -> Axes:
    """Leading axes of the residuals R (cut at sqrt(n), Lause et al. 2021): eigenvectors of R' (I + W) R.

    The part with the graph's weights W has no noise in its expectation, for the noise of two spots is independent; it
    favours what varies smoothly (as MULTISPATI does, Dray et al. 2008).
    """
    genes = axis_genes(gene, size) if genes is None else genes
    deviation = _deviation(gene, genes, float(size.mean()))
    root = np.sqrt(np.maximum(size, 1e-12))
    r = _residuals(counts, size, gene, genes, slice(0, len(size)))
    r *= (1 / deviation).astype(np.float32)
    r *= np.where(size > 0, 1 / root, 0.0).astype(np.float32)[:, None]
    cut = np.float32(np.sqrt(len(size)))
    np.clip(r, -cut, cut, out=r)
    d = min(n_components, len(genes), max(1, len(size) - 1))
    with one_thread():
        gram = (r.T @ (r + weights.astype(np.float32) @ r)).astype(np.float64)
        last = len(genes) - 1
        _, vectors = linalg.eigh((gram + gram.T) / 2, subset_by_index=(last - d + 1, last))
    return Axes(genes, vectors[:, ::-1] / deviation[:, None])


def scores(counts: sparse.csr_matrix, size: Float, gene: Gene, on: Axes) -> Float:
    """(x - N pi) on the axes, float64 [n_obs, d]: expectation N q, noise of variance at most N."""
    out = np.empty((len(size), on.weights.shape[1]))
    weights = on.weights.astype(np.float32)
    with one_thread():
        for start in range(0, len(size), 8192):
            rows = slice(start, min(start + 8192, len(size)))
            out[rows] = _residuals(counts, size, gene, on.genes, rows) @ weights
    return out


@njit(cache=True)
def _residual_step(indptr, indices, data, degree, size, tau, kappa, r, z, out):  # type: ignore[no-untyped-def]
    for i in range(indptr.size - 1):
        for k in range(z.shape[1]):
            out[i, k] = size[i] * r[i, k] - (size[i] + tau[k] * (kappa + degree[i])) * z[i, k]
        for e in range(indptr[i], indptr[i + 1]):
            for k in range(z.shape[1]):
                out[i, k] += tau[k] * data[e] * z[indices[e], k]
        for k in range(z.shape[1]):
            out[i, k] /= size[i] + tau[k] * (kappa + degree[i])


def smooth_scores(
    weights: sparse.csr_matrix, size: Float, values: Float, tau: Float, *, tolerance: float = 2e-3
) -> Float:
    """Solve (N + tau (kappa I + L)) u = N r for every column of ``values`` r [n_obs, d], each with its own ``tau``.

    The posterior mean of a smooth field seen with noise of variance 1 / N_i: a spot with few counts listens to its
    neighbours. Jacobi-preconditioned Chebyshev iteration, as in ``kernels.smooth``.
    """
    degree = np.asarray(weights.sum(axis=1), dtype=np.float64).ravel()
    n = np.maximum(size, 1e-9)
    off = np.outer(degree, tau)
    rho = np.max(off / (n[:, None] + KAPPA * tau + off), axis=0, initial=0.0)
    z = np.ascontiguousarray(values * (n[:, None] / (n[:, None] + KAPPA * tau)))
    worst = float(rho.max(initial=0.0))
    if worst <= 0:
        return z
    rate = worst / (1 + np.sqrt(1 - worst**2))
    step, residual, omega = np.zeros_like(z), np.empty_like(z), np.ones_like(rho)
    edges = weights.data.astype(np.float64)
    for k in range(max(2, int(np.ceil(np.log(tolerance / 2) / np.log(rate))))):
        _residual_step(weights.indptr, weights.indices, edges, degree, n, tau, KAPPA, values, z, residual)
        if k:
            omega = 1 / (1 - rho**2 / 2) if k == 1 else 1 / (1 - rho**2 * omega / 4)
        step *= omega - 1
        step += omega * residual
        z += step
    return z


def nugget_share(size: Float, nugget: Float | float) -> Float:
    """Weight of the spot's own part, v N / (1 + v N), [n_obs, d]."""
    odds = size[:, None] * nugget
    return np.asarray(odds / (1 + odds))


def differences(counts: sparse.csr_matrix, size: Float, gene: Gene, on: Axes) -> Float:
    """Unbiased estimate of q on the axes, [n_obs, d]; 0 where a spot has no counts."""
    return scores(counts, size, gene, on) / np.where(size > 0, size, np.inf)[:, None]


def posterior(weights: sparse.csr_matrix, size: Float, r: Float, settings: Settings) -> Float:
    """What is thought of q, [n_obs, rank]: the smooth part, and the spot's own as far as it is trusted."""
    used = np.isfinite(settings.smoothing)[: r.shape[1]]
    tau, nugget = (np.asarray(v)[: r.shape[1]][used] for v in (settings.smoothing, settings.nugget))
    own = np.ascontiguousarray(r[:, used])
    smooth = smooth_scores(weights, size, own, tau)
    return np.asarray(smooth + nugget_share(size, nugget) * (own - smooth))


def prior(counts: sparse.csr_matrix, size: Float, gene: Gene, q: Float, *, ridge: float) -> Prior:
    """Rates pi_g (1 + q_i b_g): loadings b by ridge regression of every gene's residuals on the scores.

    The scores are turned so that they are uncorrelated under the weights N; each direction's prior variance of b is
    found by moments (empirical Bayes), and rare genes are shrunk more, for theirs have more noise.
    """
    q, spread = turned(size, q)
    top = gather(counts, q)
    # centred scores: the gene's mean takes no part
    with np.errstate(divide="ignore", invalid="ignore"):
        b = np.where(spread > 0, top / spread, 0.0) / gene.share[:, None]
        noise = (1 + gene.dispersion * float(size.mean()) * gene.share)[:, None] / (spread * gene.share[:, None])
    seen = (b**2 * gene.share[:, None]).sum(axis=0) / gene.share.sum()
    chance = len(b) / (np.maximum(spread, 1e-300) * gene.share.sum())
    signal = np.maximum(seen - chance, 1e-9)
    shrunk = np.where(spread > 0, b * signal / (signal + ridge * noise), 0.0)
    right = np.vstack([np.ones(len(b)), shrunk.T]) * gene.share
    left = np.column_stack([np.ones(len(q)), q])
    # rates of all genes sum to 1; genes that are not among these are taken at their mean
    total = np.maximum(1 - gene.share.sum() + left @ right.sum(axis=1), 0.05)
    return Prior((left / total[:, None]).astype(np.float32), right.astype(np.float32), gene.share)


def gather(counts: sparse.csr_matrix, q: Float) -> Float:
    """counts' q, [n_genes, d]: block by block as dense products, which are quicker than a sparse one of half-full rows
    and cost no more than the reconstruction."""
    out = np.zeros((counts.shape[1], q.shape[1]))
    left, everywhere = q.astype(np.float32), np.arange(counts.shape[1])
    with one_thread():
        for start in range(0, len(q), BLOCK if q.shape[1] else len(q)):
            stop = min(start + BLOCK, len(q))
            dense = np.zeros((stop - start, counts.shape[1]), dtype=np.float32)
            _dense_columns(counts.indptr, counts.indices, counts.data, start, stop, everywhere, dense)
            out += (left[start:stop].T @ dense).T
    return out


def turned(size: Float, q: Float) -> tuple[Float, Float]:
    """Centred scores turned so that q' N q is diagonal, and the diagonal."""
    if not q.shape[1]:
        return q, np.zeros(0)
    with one_thread():
        centred = q - (size @ q) / max(float(size.sum()), 1e-12)
        spread, turn = np.linalg.eigh(centred.T @ (size[:, None] * centred))
        spread = np.where(spread > 1e-9 * max(float(spread.max()), 1e-300), spread, 0.0)
        return centred @ turn, spread


@njit(cache=True)
def _own_moments(rate, share, size, indptr, indices, data, rows, start, excess, square, error):  # type: ignore[no-untyped-def]
    for row in range(rate.shape[0]):
        i = rows[start + row]
        for g in range(rate.shape[1]):
            x = size[i] * ((1 - MIX) * max(rate[row, g], FLOOR * share[g]) + MIX * share[g])
            rate[row, g] = x
            excess[g] += x * x
            square[g] += x * x
            error[g] += 2 * x * x + x
        for e in range(indptr[i], indptr[i + 1]):
            x, g = float(data[e]), indices[e]
            excess[g] += x * x - x - 2 * x * rate[row, g]


def own_dispersion(counts: sparse.csr_matrix, size: Float, made: Prior) -> Float:
    """Dispersion of every gene about its prior, by moments; 0 where it is within two standard errors of 0."""
    rows = np.unique(np.linspace(0, len(size) - 1, min(len(size), MOST_FOR_DISPERSION)).astype(np.intp))
    share = made.share.astype(np.float32)
    excess, square, error = (np.zeros(counts.shape[1]) for _ in range(3))
    with one_thread():
        for start in range(0, len(rows), BLOCK):
            rate = made.left[rows[start : start + BLOCK]] @ made.right
            _own_moments(
                rate, share, size, counts.indptr, counts.indices, counts.data, rows, start, excess, square, error
            )
    return np.where(excess > 2 * np.sqrt(error), np.minimum(excess / np.maximum(square, 1e-12), 10.0), 0.0)


@njit(cache=True, error_model="numpy")
def _finish(rate, share, own, trust, size, indptr, indices, data, columns, rows, place, keep, out):  # type: ignore[no-untyped-def]
    # one pass for all the columns, without branches, then one for the counts
    rest, mix, own_rest, own_mix = np.float32(1 - MIX), np.float32(MIX), np.float32(1 - OWN_MIX), np.float32(OWN_MIX)
    floor, one = np.float32(FLOOR), np.float32(1)
    for row in range(rate.shape[0]):
        i = rows[row]
        n, add = np.float32(size[i]), np.float32(trust * size[i])
        mine, given = rate[row], out[place[row]]
        for g in range(rate.shape[1]):
            x = rest * max(mine[g], floor * share[g]) + mix * share[g]
            odds = n * own[g] * (own_rest * x + own_mix * share[g]) + add
            against = one / (one + odds)
            given[g] = n * x * against
            mine[g] = odds * against
        for e in range(indptr[i], indptr[i + 1]):
            g = columns[indices[e]]
            if g >= 0 and data[e] > 0:
                given[g] = data[e] if keep else given[g] + mine[g] * data[e]


def expected(
    counts: sparse.csr_matrix,
    size: Float,
    made: Prior,
    own: Float,
    *,
    trust: float = 0.0,
    genes: NDArray[np.intp] | None = None,
    rows: NDArray[np.intp] | None = None,
    place: NDArray[np.intp] | None = None,
    zeros_only: bool = False,
) -> Float32:
    """Expected counts at each spot's own library size, float32 [n_rows, n_genes].

    Prior N rate, and the measured count with the odds N (own prior + trust) against it. ``genes`` and ``rows`` pick
    columns and rows; row k goes to row ``place[k]`` of the output. ``zeros_only`` leaves measured counts as they are.
    """
    genes = np.arange(counts.shape[1]) if genes is None else genes
    rows = np.arange(len(size)) if rows is None else rows
    columns = np.full(counts.shape[1], -1, dtype=np.intp)
    columns[genes] = np.arange(len(genes))
    right = np.ascontiguousarray(made.right[:, genes])
    share, odds = made.share[genes].astype(np.float32), own[genes].astype(np.float32)
    place = np.arange(len(rows)) if place is None else place
    out = np.empty((len(rows), len(genes)), dtype=np.float32)
    with one_thread():
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            _finish(
                made.left[some] @ right, share, odds, float(trust), size, counts.indptr, counts.indices, counts.data,
                columns, some, place[start : start + BLOCK], zeros_only, out,
            )  # fmt: skip
    return out
