"""Replicas of reference cells on the section's platform, and what they calibrate: probabilities and label sets.

Reference cells and a section's cells are not exchangeable. So every reference cell is measured again as the section
would have measured it: its counts thinned, or added to, by the estimated factor of each gene (which is moved by its
standard error, and by what types differ in their factors) and the depth of a section's cell of its type. What separates
types on these replicas, each scored by models that have not seen its cell, is what is said of the section.

Two scores are weighed against each other: the negative-binomial likelihood, best where genes are independent within
types, and a linear discriminant of normalised counts, best where they are not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import labeltransfer as model
from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]
Int = NDArray[np.intp]

N_FOLDS = 5
#: replicas of a type, and of all together
MOST_OF_TYPE, MOST_REPLICAS = 300, 9000
#: what is kept of covariances between genes; and how many cells the common mean is worth for a type's own
KEPT, COMMON = 0.5, 2.0
#: no type's own coverage lies further than this below the level
SLACK = 0.01


# ---------------------------------------------------------------------------------------------------- discriminant


def normalised(counts: sparse.csr_matrix, target: float) -> sparse.csr_matrix:
    """log(1 + counts / total * target), CSR float64."""
    size = np.maximum(model.totals(counts), 1.0)
    out = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    out.data = np.log1p(out.data * target / np.repeat(size, np.diff(out.indptr)))
    return out


@dataclass(frozen=True)
class Discriminant:
    """Linear scores x @ ``weight`` + ``offset`` [n_types]."""

    weight: Float
    offset: Float

    def scores(self, x: sparse.csr_matrix) -> Float:
        """Scores of rows, [n_obs, n_types]."""
        return np.asarray(x @ self.weight + self.offset)


def discriminant(x: sparse.csr_matrix, label: Int, n_types: int, weight: Float) -> Discriminant:
    """Linear discriminant with a shared covariance whose correlations are shrunk (Friedman 1989)."""
    dense, member = x.toarray(), model.one_hot(label, n_types)
    with one_thread():
        n, whole = member.sum(axis=0)[:, None] + COMMON, weight / weight.sum()
        mean = (member.T @ dense + COMMON * (whole @ dense)) / n
        dense -= mean[label]
        covariance = KEPT * (dense * whole[:, None]).T @ dense
        diagonal = np.einsum("ig,ig,i->g", dense, dense, whole)
        covariance[np.diag_indices_from(covariance)] = diagonal + 1e-4
        solved = np.linalg.solve(covariance, mean.T)
    return Discriminant(solved, -0.5 * (mean.T * solved).sum(axis=0))


# -------------------------------------------------------------------------------------------------- scores weighed


def weigh(first: Float, second: Float, label: Int, log_prior: Float, weight: Float) -> Float:
    """Factors [2], not negative, of two scores [n, n_types] under which known labels are likeliest (Newton's steps)."""
    scores = np.stack([s - s.mean(axis=1, keepdims=True) for s in (first, second)])
    rows, factor = np.arange(len(label)), np.array([0.3, 0.3])
    best = _loss(factor, scores, label, log_prior, weight)
    for _ in range(30):
        p = model.posterior(np.tensordot(factor, scores, 1), log_prior)
        centred = scores - (p * scores).sum(axis=2, keepdims=True)
        slope = (weight * centred[:, rows, label]).sum(axis=1)
        curve = np.einsum("n,nk,ank,bnk->ab", weight, p, centred, centred) + 1e-6 * np.eye(2)
        free = np.flatnonzero((factor > 0) | (slope > 0))
        step = np.zeros(2)
        step[free] = np.linalg.solve(curve[np.ix_(free, free)], slope[free])
        for length in 0.5 ** np.arange(12):
            moved = np.maximum(factor + length * step, 0.0)
            loss = _loss(moved, scores, label, log_prior, weight)
            if loss <= best:
                break
        else:
            return factor
        change, factor, best = float(np.abs(moved - factor).max()), moved, loss
        if change < 1e-4:
            break
    return np.asarray(factor)


def _loss(factor: Float, scores: Float, label: Int, log_prior: Float, weight: Float) -> float:
    p = model.posterior(np.tensordot(factor, scores, 1), log_prior)
    return float(-(weight * np.log(np.maximum(p[np.arange(len(label)), label], 1e-300))).sum())


# -------------------------------------------------------------------------------------------------------- replicas


@dataclass(frozen=True)
class Platform:
    """What the section does to reference cells: ``rate`` [n_types, n_genes] there, its dispersion ``phi`` [n_genes],
    the standard ``error`` of log factors [n_genes], and ``unlike``, the standard deviation of types' own factors."""

    rate: Float
    phi: Float
    error: Float
    unlike: float


def replicas(
    counts: Float, label: Int, size: Float, known: model.Profiles, there: Platform, rng: np.random.Generator
) -> Float:
    """Reference cells as the section would have measured them, float32 [n, n_genes].

    ``counts`` [n, n_genes] dense, ``size`` [n] the depths wished for; none gets deeper than it is, for what was not
    measured would have to be made up from its label. Where a gene's factor is below 1 its counts are thinned; where it
    is above, counts of the further exposure are added, at the cell's own rate as far as it is known (gamma posterior).
    """
    total = counts.sum(axis=1, keepdims=True)
    phi = np.maximum(known.phi, 1e-3)
    own = there.unlike * rng.standard_normal(known.rate.shape) + there.error * rng.standard_normal(known.rate.shape[1])
    factor = (there.rate / known.rate * np.exp(own - own.var() / 2))[label]
    wider = np.maximum((there.phi - phi) / (1 + phi), 1e-6)
    factor *= np.minimum(size[:, None] / total, 1.0) * rng.gamma(1 / wider, size=counts.shape) * wider
    kept = rng.binomial(counts.astype(np.int64), np.minimum(factor, 1.0))
    expected = total * known.rate[label]
    cell = expected * rng.gamma(1 / phi + counts) / (1 / phi + expected)
    added = rng.poisson(np.minimum(np.maximum(factor - 1, 0.0) * cell, 1e6))
    return np.asarray(kept + added, dtype=np.float32)


def folds(label: Int, n_types: int, rng: np.random.Generator) -> Int:
    """A fold 0..``N_FOLDS`` - 1 for every cell, types spread evenly."""
    out = np.empty(len(label), dtype=np.intp)
    for k in range(n_types):
        own = rng.permutation(np.flatnonzero(label == k))
        out[own] = np.arange(len(own)) % N_FOLDS
    return out


def chosen(label: Int, n_types: int, rng: np.random.Generator) -> Int:
    """Rows of the reference that are measured again: as many of each type, some repeated where there are few."""
    n = int(np.clip(MOST_REPLICAS // n_types, 30, MOST_OF_TYPE))
    return np.concatenate([np.resize(rng.permutation(np.flatnonzero(label == k)), n) for k in range(n_types)])


def places(member: Float, label: Int, depth: Float, size: Float, rng: np.random.Generator) -> Int:
    """A section's cell for every replica: one that may be of its type, deep cells to deep ones; [n] row numbers.

    P(cell | type) is proportional to its probability of being of the type: depths and surroundings of types are as in
    the section.
    """
    out = np.empty(len(label), dtype=np.intp)
    for k in range(member.shape[1]):
        own = np.flatnonzero(label == k)
        ends = np.cumsum(member[:, k])
        drawn = np.searchsorted(ends, rng.random(len(own)) * ends[-1], side="right").clip(0, len(member) - 1)
        by_size = drawn[np.argsort(size[drawn], kind="stable")]
        out[own[np.argsort(depth[own], kind="stable")]] = by_size
    return out


# ------------------------------------------------------------------------------------------------------------ sets


def thresholds(prob: Float, label: Int, weight: Float, level: float) -> Float:
    """The least probability with which a type is in the set, [n_types]: over all rows the sets, which always hold the
    likeliest type, hold the label in ``level`` of the weight, and of every type at least in ``level - SLACK``."""
    rows = np.arange(len(label))
    hit = prob.argmax(axis=1) == label
    score = np.where(hit, 1.0, prob[rows, label])
    own = np.array([_conformal(score[label == k], level - SLACK) for k in range(prob.shape[1])])
    steps = np.unique(score)
    covered = [float(np.average(score >= np.minimum(t, own)[label], weights=weight)) for t in _some(steps)]
    enough = [t for t, c in zip(_some(steps), covered) if c >= level]
    return np.asarray(np.minimum(max(enough, default=0.0), own))


def _some(steps: Float) -> Float:
    return np.asarray(steps[np.unique(np.linspace(0, len(steps) - 1, 400).astype(int))])


def _conformal(score: Float, level: float) -> float:
    """The score that a new one exceeds with probability ``level`` or more (Vovk, Gammerman & Shafer 2005)."""
    rank = int(np.floor((1 - level) * (len(score) + 1)))
    return float(np.sort(score)[rank - 1]) if rank >= 1 else 0.0


def sets(prob: Float, least: Float) -> NDArray[np.bool_]:
    """Types whose probability reaches their threshold, and always the likeliest; [n_obs, n_types]."""
    out = prob >= least
    out[np.arange(len(prob)), prob.argmax(axis=1)] = True
    return np.asarray(out)
