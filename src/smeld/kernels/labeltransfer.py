"""Cells against profiles of known types: counts as negative binomials, the platform's effect on each gene estimated.

A cell i of type k with ``size`` n_i (its total count) has counts y_ig of mean n_i p_kg and variance mean + phi mean^2,
with p_kg proportional to r_kg exp(d_g): r from the reference, d_g what the section's platform does to gene g. Types
differ in few genes: differences between their profiles are shrunk by a scale mixture of normals that is fitted to all
of them (Stephens 2017), so that the noise of the many others does not add up. d, the types' shares and phi come from
the section's own cells by expectation and maximisation, without labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logsumexp

from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: standard deviations of log differences between types, from none to far apart
SCALES = np.array([0.01, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
#: dispersion before the data speak, and how many squared expected counts that is worth
PHI, PHI_WEIGHT = 0.5, 10.0
LEAST_PHI, MOST_PHI = 1e-4, 20.0
#: counts of a cell up to which the normalising product is summed term by term
_SUMMED = 24
#: grid of sizes on which what zeros say is tabulated
_N_GRID = 200


@njit(cache=True, nogil=True)
def _rising(y: float, phi: float) -> float:
    """log of prod_{j < y} (1 + j phi)."""
    if y > _SUMMED:
        theta = 1.0 / phi
        return math.lgamma(y + theta) - math.lgamma(theta) + y * math.log(phi)
    total = 0.0
    for j in range(1, int(y)):
        total += math.log1p(j * phi)
    return total


@njit(cache=True, nogil=True)
def _add_counts(indptr, indices, data, log_size, log_rate, rate, phi, start, step, zeros, out):  # type: ignore[no-untyped-def]
    # rate and phi [n_genes, n_types]: what the innermost loop reads lies side by side
    n_types = rate.shape[1]
    for i in range(indptr.size - 1):
        at = (log_size[i] - start) / step
        b = min(max(int(at), 0), zeros.shape[1] - 2)
        f = at - b
        for k in range(n_types):
            out[i, k] = (1.0 - f) * zeros[k, b] + f * zeros[k, b + 1]
        size = math.exp(log_size[i])
        for e in range(indptr[i], indptr[i + 1]):
            g, y = indices[e], data[e]
            for k in range(n_types):
                mean = size * rate[g, k]
                out[i, k] += y * (log_size[i] + log_rate[g, k] - math.log1p(phi[g, k] * mean))
                if y > 1.0:
                    out[i, k] += _rising(y, phi[g, k])


def log_likelihood(counts: sparse.csr_matrix, size: Float, rate: Float, phi: Float) -> Float:
    """log P(counts of i | type k) up to a term of the cell alone, float64 [n_obs, n_types].

    ``rate`` and ``phi`` [n_types, n_genes]. What zeros say is a smooth function of the size: it is interpolated, so
    that the cost is one logarithm a stored count and type.
    """
    log_size = np.log(np.maximum(size, 1.0))
    phi = np.maximum(phi, LEAST_PHI)
    start, stop = float(log_size.min()) - 1e-6, float(log_size.max()) + 1e-6
    grid = np.linspace(start, stop, _N_GRID)
    zeros = np.stack([-(np.log1p(f * np.exp(grid)[:, None] * r) / f).sum(axis=1) for r, f in zip(rate, phi)])
    out = np.empty((counts.shape[0], len(rate)))
    data = counts.data.astype(np.float64)
    step = float(grid[1] - grid[0])
    by_gene = [np.ascontiguousarray(x.T) for x in (np.log(rate), rate, phi)]
    _add_counts(counts.indptr, counts.indices, data, log_size, *by_gene, start, step, zeros, out)
    return out


def totals(counts: sparse.csr_matrix) -> Float:
    """Total count of every cell, float64."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def one_hot(label: Int, n_types: int) -> Float:
    out = np.zeros((len(label), n_types))
    out[np.arange(len(label)), label] = 1.0
    return out


# ------------------------------------------------------------------------------------------------------- dispersion


@dataclass(frozen=True)
class Sums:
    """What of soft groups is needed, computed once a step: ``counts`` [n_types, n_genes], ``size`` and
    ``square_size`` [n_types] the sums of sizes and their squares, ``square`` [n_genes] that of squared counts."""

    counts: Float
    size: Float
    square_size: Float
    square: Float


def sums(counts: sparse.csr_matrix, member: Float, size: Float, square: Float) -> Sums:
    with one_thread():
        weighted = member * size[:, None]
        by_type = np.asarray((counts.T @ member).T)
        sized = np.asarray((counts.T @ weighted).T)
    return Sums(np.stack([by_type, sized]), weighted.sum(axis=0), (weighted * size[:, None]).sum(axis=0), square)


def squares(counts: sparse.csr_matrix) -> Float:
    """Sum of squared counts of every gene."""
    values = counts.data.astype(np.float64) ** 2
    return np.asarray(np.bincount(counts.indices, values, minlength=counts.shape[1]), dtype=np.float64)


def dispersion(s: Sums, rate: Float) -> Float:
    """phi of every gene within groups, by moments, drawn towards ``PHI`` where there are few counts; [n_genes]."""
    expected = (s.square_size[:, None] * rate**2).sum(axis=0)
    left = s.square - 2 * (s.counts[1] * rate).sum(axis=0) + expected - (s.size[:, None] * rate).sum(axis=0)
    return np.asarray(np.clip((left + PHI * PHI_WEIGHT) / (expected + PHI_WEIGHT), LEAST_PHI, MOST_PHI))


# --------------------------------------------------------------------------------------------------------- profiles


@dataclass(frozen=True)
class Profiles:
    """``rate`` [n_types, n_genes], rows sum to 1; ``variance`` of their logarithms; ``phi`` [n_genes] within types."""

    rate: Float
    variance: Float
    phi: Float


def profiles(counts: sparse.csr_matrix, label: Int, n_types: int) -> Profiles:
    """Profiles of labelled cells, differences between types shrunk."""
    size, member = totals(counts), one_hot(label, n_types)
    s = sums(counts, member, size, squares(counts))
    overall = s.counts[0].sum(axis=0) + 0.5
    raw = s.counts[0] + overall / overall.sum()
    raw = raw / raw.sum(axis=1, keepdims=True)
    phi = dispersion(s, raw)
    centre = raw.mean(axis=0)
    z = np.log((s.counts[0] + 0.5) / (s.size[:, None] * centre + 0.5))
    variance = 1 / (s.counts[0] + 0.5) + phi * (s.square_size / np.maximum(s.size, 1.0) ** 2)[:, None]
    shift = _common(z, variance)
    mean, left = shrink(z - shift, variance)
    rate = centre * np.exp(shift + mean)
    return Profiles(rate / rate.sum(axis=1, keepdims=True), left, phi)


def _common(z: Float, variance: Float) -> Float:
    """Where most types agree, [n_genes]: a mean in which those that differ count little (Cauchy weights)."""
    centre = np.zeros(z.shape[1])
    for _ in range(10):
        weight = 1 / (variance + 0.04 + (z - centre) ** 2)
        centre = (weight * z).sum(axis=0) / weight.sum(axis=0)
    return np.asarray(centre)


def shrink(z: Float, variance: Float) -> tuple[Float, Float]:
    """Posterior (mean, variance) of values seen as ``z`` with known ``variance``, under a mixture of centred normals
    of ``SCALES``, its shares fitted to all values by expectation and maximisation (Stephens 2017)."""
    flat, noise = z.ravel(), variance.ravel()
    spread = SCALES[:, None] ** 2 + noise
    log = -0.5 * np.log(spread) - 0.5 * flat**2 / spread
    share = np.full(len(SCALES), 1 / len(SCALES))
    for _ in range(100):
        weight = log + np.log(share)[:, None]
        weight = np.exp(weight - weight.max(axis=0))
        weight /= weight.sum(axis=0)
        share = np.maximum(weight.sum(axis=1) + 10.0 * (np.arange(len(SCALES)) == 0), 1e-8)  # the null is preferred
        share /= share.sum()
    keep = SCALES[:, None] ** 2 / spread
    mean = (weight * keep * flat).sum(axis=0)
    left = (weight * (keep * noise + (keep * flat) ** 2)).sum(axis=0) - mean**2
    return mean.reshape(z.shape), np.maximum(left, 0.0).reshape(z.shape)


# -------------------------------------------------------------------------------------------------------------- fit


@dataclass(frozen=True)
class Fit:
    """The section's model: ``rate`` and ``phi`` [n_types, n_genes], ``share`` of types, ``shift`` [n_genes], the log
    factor of every gene against the reference, ``error`` [n_genes] its standard error, the mean ``log_evidence``."""

    rate: Float
    phi: Float
    share: Float
    shift: Float
    error: Float
    log_evidence: float


def posterior(log_lik: Float, log_prior: Float) -> Float:
    """Probabilities of types, rows sum to 1."""
    log = log_lik + log_prior
    log -= log.max(axis=1, keepdims=True)
    out = np.exp(log)
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def shifted(rate: Float, shift: Float) -> Float:
    moved = rate * np.exp(shift)
    return np.asarray(moved / moved.sum(axis=1, keepdims=True))


def fit(counts: sparse.csr_matrix, known: Profiles, *, n_steps: int = 40, tolerance: float = 1e-4) -> Fit:
    """The shift of every gene, the types' shares and the dispersion, from a section's counts CSR [n_obs, n_genes].

    Begun from no shift and from that of the mean profile: the likelier end is taken.
    """
    total = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    whole = np.log((total + 0.5) / (total.sum() * known.rate.mean(axis=0) + 0.5))
    ends = [_fit(counts, known, start, n_steps, tolerance) for start in (np.zeros_like(whole), whole)]
    return max(ends, key=lambda end: end.log_evidence)


def _fit(counts: sparse.csr_matrix, known: Profiles, shift: Float, n_steps: int, tolerance: float) -> Fit:
    size, square = totals(counts), squares(counts)
    n_types = len(known.rate)
    share = np.full(n_types, 1.0 / n_types)
    total = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    phi, before, error = known.phi, -np.inf, np.zeros_like(shift)
    for _ in range(n_steps):
        rate = shifted(known.rate, shift)
        wide = phi + known.variance
        log_lik = log_likelihood(counts, size, rate, wide)
        evidence = float(logsumexp(log_lik + np.log(share), axis=1).mean())
        member = posterior(log_lik, np.log(share))
        if abs(evidence - before) < tolerance:
            break
        before = evidence
        share = (member.sum(axis=0) + 1.0) / (len(member) + n_types)
        s = sums(counts, member, size, square)
        shift, error = gene_shift(known.rate, shift, s, total, phi)
        phi = dispersion(s, shifted(known.rate, shift))
    return Fit(shifted(known.rate, shift), phi + known.variance, share, shift, error, evidence)


def gene_shift(rate: Float, shift: Float, s: Sums, total: Float, phi: Float) -> tuple[Float, Float]:
    """(log factors, drawn towards 0 by as much as they vary; their standard errors), given who is of what type."""
    for _ in range(3):  # the factors' sum over a profile depends on themselves
        scale = (rate * np.exp(shift)).sum(axis=1)
        expected = (s.size / scale) @ rate
        weight = 1 / max(float(np.average(shift**2, weights=total)), 0.05)
        shift = np.log((total + weight) / (expected + weight))
        shift -= np.average(shift, weights=total)
    squared = (s.square_size[:, None] * shifted(rate, shift) ** 2).sum(axis=0)
    error = np.sqrt(total + phi * squared + 1.0) / (total + weight)
    return shift, np.asarray(error)


def with_free(model: Fit, rate: Float, phi: Float, share: float) -> Fit:
    """The model with one more type, whose profile the section itself gave."""
    rest = model.share * (1 - share)
    return replace(
        model,
        rate=np.vstack([model.rate, rate]),
        phi=np.vstack([model.phi, phi]),
        share=np.append(rest, share),
    )
