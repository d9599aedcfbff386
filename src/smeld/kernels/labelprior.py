"""What neighbours say of a cell's type: shares of types around it, kept only if they predict the cells themselves,
and do so through types alone.

On real tissue neighbours have more in common than their types: states, counts that spill over. Then a cell's counts
agree with its surroundings more than its type explains, errors come in patches, and the prior makes labels too sure of
themselves. Replicas of reference cells tell: put in the place of a section's cell, they have its surroundings and
share nothing else with them. Where the section's cells gain more from their surroundings than replicas in the same
places do, the prior is not to be believed.

The test errs towards no prior: shares from uncertain labels are too even, replicas are then put in wrong places more
often than the section's cells lie there, and gain less for that alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logsumexp

from smeld.kernels import labeltransfer, smooth

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: strengths of smoothing that are tried
ALPHAS = (10.0, 30.0, 100.0, 300.0)
#: the share of the section's own composition in the prior. Neighbours have more in common than their types (states,
#: counts that spill over), and err together: on real tissue a larger say of theirs made labels too sure of themselves
MIXED = 0.25
#: random signs for the smoother's diagonal
N_PROBES = 16
#: gain in standard errors from which the surroundings are believed (one-sided 5 %)
LEAST_GAIN = 1.645
#: excess in standard errors over replicas in the same places from which they are not (one-sided 1 %)
MOST_EXCESS = 2.326
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Surroundings:
    """``log_prior`` [n_obs, n_types] from neighbours, or [1, n_types] the section's shares where they do not help;
    ``gain`` in mean log probability of a cell's counts, and its standard ``error`` over spatial blocks; ``used``;
    ``excess`` of the gain over that of replicas in the same places, and its standard error."""

    log_prior: Float
    gain: float
    error: float
    used: bool
    alpha: float
    excess: float = 0.0
    excess_error: float = 0.0


@dataclass(frozen=True)
class _Field:
    """Shares around each cell without the cell itself, by a smoother whose diagonal is known."""

    weights: sparse.csr_matrix
    alpha: float
    diagonal: Float

    def __call__(self, member: Float) -> Float:
        own = self.diagonal * member
        rest = (smooth.smooth(self.weights, member, self.alpha, tolerance=TOLERANCE) - own) / (1 - self.diagonal)
        rest = np.maximum(rest, 0.0)
        total = rest.sum(axis=1, keepdims=True)
        even = np.full_like(rest, 1 / rest.shape[1])
        return np.asarray(np.divide(rest, total, out=even, where=total > 1e-9))


def _field(weights: sparse.csr_matrix, alpha: float) -> _Field:
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(weights.shape[0], N_PROBES))
    image = smooth.smooth(weights, signs, alpha, tolerance=TOLERANCE)
    return _Field(weights, alpha, np.clip((image * signs).mean(axis=1, keepdims=True), 0.0, 0.95))


def surroundings(scores: Float, share: Float, weights: sparse.csr_matrix, block: Int, *, force: bool) -> Surroundings:
    """Shares of types around every cell, and what they are worth.

    ``scores`` [n_obs, n_types] are log-likelihoods; ``weights`` the graph; ``block`` [n_obs] spatial blocks. A cell's
    neighbours, labelled without any prior of place, give shares; log sum_k share_k exp(score_k) says how well these
    predict the cell's own counts, which they have not seen. The smoothing is the one that predicts best.
    """
    flat = np.log(share)[None]
    member = labeltransfer.posterior(scores, flat)
    base = logsumexp(scores + flat, axis=1)
    best, prior, alpha = np.full(len(scores), -np.inf), flat, 0.0
    for strength in ALPHAS:
        tried = _mix(_field(weights, strength)(member), share)
        gain = logsumexp(scores + tried, axis=1) - base
        if gain.mean() <= best.mean():
            break  # stronger smoothing than the last predicts worse
        best, prior, alpha = gain, tried, strength
    mean, error = float(best.mean()), _error(best, block)
    used = force or mean > LEAST_GAIN * error
    return Surroundings(prior if used else flat, mean, error, used, alpha)


def excess(
    ours: tuple[Float, Float], theirs: Float, log_prior: Float, place: Int, weight: Float, block: Int
) -> tuple[float, float]:
    """How much more the section's cells gain from their surroundings than replicas in their places, and its standard
    error over blocks.

    ``ours`` are the section's log-likelihoods [n_obs, n_types] and log shares [1, n_types]; ``theirs`` those of the
    replicas [n, n_types], ``place`` [n] the cells whose surroundings they have, ``weight`` [n].
    """
    scores, flat = ours
    prior = log_prior[place]
    gain = logsumexp(scores + log_prior, axis=1) - logsumexp(scores + flat, axis=1)
    difference = gain[place] - logsumexp(theirs + prior, axis=1) + logsumexp(theirs + flat, axis=1)
    size = np.bincount(block[place], weight)
    mean = float((weight * difference).sum() / weight.sum())
    left = np.bincount(block[place], weight * difference) - mean * size
    n = int((size > 0).sum())
    error = float(np.sqrt((left**2).sum() * n / (n - 1)) / weight.sum()) if n > 1 else float("inf")
    return mean, error


def _mix(around: Float, share: Float) -> Float:
    return np.asarray(np.log((1 - MIXED) * around + MIXED * share))


def _error(gain: Float, block: Int) -> float:
    """Standard error of the mean over blocks."""
    size = np.bincount(block)
    mean = np.bincount(block, gain) / np.maximum(size, 1)
    mean = mean[size > 0]
    return float(mean.std(ddof=1) / np.sqrt(len(mean))) if len(mean) > 1 else float("inf")
