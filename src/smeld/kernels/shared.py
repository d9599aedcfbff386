"""Does morphology know the regions that expression shows? Asked before its components may help to define them.

Prediction of a spot from its surroundings cannot tell: where neighbours say almost all there is to say, morphology adds
nothing to them even if it draws the same regions more sharply. Asked instead is what morphology says by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from smeld.kernels import consensus, mixture, smooth
from smeld.kernels.evidence import Score, Trial

Float = NDArray[np.float64]

#: groups of blocks, each predicted from the others
N_FOLDS = 8
#: numbers of regions over which agreement is averaged: the true number is not known when a section is fused
NUMBERS = (4, 7, 10)
N_STARTS = 4
#: partitions are compared on at most so many spots
MOST_COMPARED = 2_000
RIDGE = 1e-3


def components(weights: sparse.csr_matrix, features: Float, alpha: float, n_components: int) -> Float:
    """Leading principal components of ``features`` [n_obs, p] smoothed along ``weights``, float64 [n_obs, d].

    Scaled together so that the first has variance 1; d is smaller than ``n_components`` where there are no more.
    """
    smoothed = smooth.smooth(weights, features, alpha)
    smoothed -= smoothed.mean(axis=0)
    with threadpool_limits(1):
        values, vectors = np.linalg.eigh(smoothed.T @ smoothed / len(smoothed))
        values, vectors = values[::-1][:n_components], vectors[:, ::-1][:, :n_components]
        keep = values > max(values.max(initial=0.0), 1e-300) * 1e-8
        if not keep.any() or values[0] <= 1e-12:
            return np.zeros((len(features), 0))
        vectors = vectors[:, keep]
        # the sign of an eigenvector is arbitrary: its largest entry is made positive
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
        return np.asarray(smoothed @ vectors / np.sqrt(values[0]))


def transfer(found: Float, trials: Sequence[Trial], block: NDArray[np.intp]) -> Score:
    """Share of the held-out variance that morphology alone predicts in regions that the regression has not seen.

    ``found`` [n_obs, d] components of morphology, ``block`` [n_obs] compact groups of spots. A fit to one part of each
    trial's counts in all but a group of blocks is scored on the other part in that group. Two smooth maps of no common
    cause are often correlated, but what one teaches about the other here does not hold there: below 0.
    """
    n_blocks = int(block.max()) + 1
    fold = block * N_FOLDS // n_blocks
    design = np.column_stack([np.ones(len(found)), found])
    explained, total = np.zeros(n_blocks), np.zeros(n_blocks)
    for trial in trials:
        predicted = np.empty_like(trial.target)
        for f in np.unique(fold):
            inside = fold == f
            with threadpool_limits(1):
                x = design[~inside]
                gram = x.T @ x
                gram[np.diag_indices(len(gram))] += RIDGE * np.trace(gram) / len(gram)
                predicted[inside] = design[inside] @ np.linalg.solve(gram, x.T @ trial.scores[~inside])
        whole = (trial.target**2).sum(axis=1)
        explained += np.bincount(block, whole - ((trial.target - predicted) ** 2).sum(axis=1), n_blocks)
        total += np.bincount(block, whole, n_blocks)
    return Score(explained * n_blocks / max(float(total.sum()), 1e-300))


Partitions = list[NDArray[np.intp]]


def regions(
    trials: Sequence[Trial], weights: sparse.csr_matrix, alpha: float, *, seed: np.random.SeedSequence
) -> list[tuple[Partitions, Partitions]]:
    """Regions drawn by each half of every trial's counts, smoothed along ``weights``: one partition a number of
    ``NUMBERS``, on every n-th spot where there are many."""
    found = []
    for trial in trials:
        d = trial.scores.shape[1]
        both = smooth.smooth(weights, np.hstack([trial.scores, trial.target]), alpha)[:: _step(len(trial.scores))]
        found.append((_partitions(both[:, :d], seed), _partitions(both[:, d:], seed)))
    return found


def agreement(
    found: Float, by_expression: Sequence[tuple[Partitions, Partitions]], *, seed: np.random.SeedSequence
) -> tuple[float, float]:
    """Adjusted Rand index of regions drawn by morphology with those drawn by half the counts; and of those drawn by the
    two halves with each other: what an independent look at expression would give.

    Mean over trials, halves and ``NUMBERS`` of regions. The ratio of the two says how good a witness morphology is
    beside expression (Spearman 1904, on the correlation of measurements with a common cause).
    """
    by_morphology = _partitions(found[:: _step(len(found))], seed)
    with_morphology, with_itself = [], []
    for first, second in by_expression:
        with_itself += _agree(first, second)
        with_morphology += _agree(first, by_morphology) + _agree(second, by_morphology)
    return float(np.mean(with_morphology)), float(np.mean(with_itself))


def _step(n: int) -> int:
    return max(1, -(-n // MOST_COMPARED))


def _partitions(x: Float, seed: np.random.SeedSequence) -> Partitions:
    found = []
    for k in NUMBERS:
        models = mixture.fit(x, min(k, len(x)), seed=seed, n_starts=N_STARTS)
        found.append(np.asarray(models[0].predict_proba(x).argmax(axis=1), dtype=np.intp))
    return found


def _agree(one: Partitions, other: Partitions) -> list[float]:
    return [consensus.agreement(a, b, k) for a, b, k in zip(one, other, NUMBERS)]
