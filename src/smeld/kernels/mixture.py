"""Gaussian mixture with one shared covariance: many starts, the same bits for any number of threads.

On tissue embeddings the tied mixture is by far the best of the simple models: it does not change when the embedding is
stretched or rotated, where KMeans and Leiden live off the (arbitrary) scale of principal components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from threadpoolctl import threadpool_limits

Float = NDArray[np.float64]

#: above this many spots the starts compete on a sample and only the winner sees all of them
MAX_START_SAMPLE = 20_000
#: and above this many also the winner sees a sample: means and one covariance are known from these many to three digits
MAX_FITTED = 200_000
#: spots whose membership is computed at a time
BLOCK = 2**18
RIDGE = 1e-6


@dataclass(frozen=True)
class Mixture:
    """``means`` [k, d]; ``precision_root`` [d, r] (x @ root has unit covariance within a component) and the log of
    its determinant; ``weights`` [k]; mean ``log_likelihood`` of the data it was fitted to."""

    means: Float
    precision_root: Float
    log_det: float
    weights: Float
    log_likelihood: float

    def log_prob(self, x: Float) -> Float:
        """log of weight times density, float64 [n_obs, k]."""
        d = self.precision_root.shape[1]
        white, centres = x @ self.precision_root, self.means @ self.precision_root
        squared = (white**2).sum(1)[:, None] - 2 * white @ centres.T + (centres**2).sum(1)
        log_weights = np.log(np.maximum(self.weights, 1e-300))
        return np.asarray(-0.5 * (d * np.log(2 * np.pi) + np.maximum(squared, 0)) + self.log_det + log_weights)

    def predict_proba(self, x: Float) -> Float:
        """Posterior membership, float64 [n_obs, k], rows sum to 1."""
        data = np.asarray(x, dtype=np.float64)
        with threadpool_limits(1):
            if len(data) <= BLOCK:
                return _softmax(self.log_prob(data))[0]
            out = np.empty((len(data), len(self.weights)))
            for start in range(0, len(data), BLOCK):
                out[start : start + BLOCK] = _softmax(self.log_prob(data[start : start + BLOCK]))[0]
            return out


def _softmax(log_prob: Float) -> tuple[Float, float]:
    """(rows normalised to probabilities, mean log of the row sums)."""
    top = log_prob.max(axis=1, keepdims=True)
    p = np.exp(log_prob - top)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    return p, float((top[:, 0] + np.log(total[:, 0])).mean())


def _maximise(x: Float, second_moment: Float, p: Float) -> Mixture:
    """M-step. The shared covariance is the total second moment less that of the means: O(n d k), not O(n d^2)."""
    size = p.sum(axis=0) + 1e-10
    means = (p.T @ x) / size[:, None]
    covariance = second_moment - (means * (size / len(x))[:, None]).T @ means
    covariance[np.diag_indices_from(covariance)] += RIDGE
    root = cholesky(covariance, lower=True)
    precision_root = solve_triangular(root, np.eye(len(root)), lower=True).T
    log_det = -float(np.log(np.diag(root)).sum())
    return Mixture(means, np.ascontiguousarray(precision_root), log_det, size / size.sum(), -np.inf)


def _run_em(x: Float, start: Mixture, *, max_steps: int, tolerance: float) -> Mixture:
    second_moment = x.T @ x / len(x)
    model, last = start, -np.inf
    for _ in range(max_steps):
        p, log_likelihood = _softmax(model.log_prob(x))
        model = replace(model, log_likelihood=log_likelihood)
        if log_likelihood - last < tolerance:
            break
        last = log_likelihood
        model = replace(_maximise(x, second_moment, p), log_likelihood=log_likelihood)
    return model


def _seed_means(x: Float, k: int, rng: np.random.Generator) -> Float:
    """k-means++ (Arthur & Vassilvitskii 2007), then a few Lloyd steps."""
    centres = np.empty((k, x.shape[1]))
    centres[0] = x[rng.integers(len(x))]
    nearest = ((x - centres[0]) ** 2).sum(1)
    for c in range(1, k):
        cumulative = np.cumsum(nearest)
        pick = np.searchsorted(cumulative, rng.random() * cumulative[-1]) if cumulative[-1] > 0 else 0
        centres[c] = x[min(int(pick), len(x) - 1)]
        nearest = np.minimum(nearest, ((x - centres[c]) ** 2).sum(1))
    for _ in range(5):
        label = ((centres**2).sum(1) - 2 * x @ centres.T).argmin(1)
        for c in range(k):
            members = label == c
            if members.any():
                centres[c] = x[members].mean(0)
    return centres


def _one_start(x: Float, k: int, rng: np.random.Generator, *, max_steps: int, tolerance: float) -> Mixture:
    centres = _seed_means(x, k, rng)
    p = np.eye(k)[((centres**2).sum(1) - 2 * x @ centres.T).argmin(1)]
    return _run_em(x, _maximise(x, x.T @ x / len(x), p), max_steps=max_steps, tolerance=tolerance)


def bic(model: Mixture, n_effective: float) -> float:
    """Schwarz's criterion of a fitted mixture, lower is better; the shared covariance is common to all and left out.

    ``n_effective`` stands for the number of observations: smoothed spots are not independent, and with the number of
    spots in its place the criterion asks for ever more components.
    """
    k, d = model.means.shape
    return float(-2.0 * n_effective * model.log_likelihood + k * (d + 1) * np.log(max(n_effective, 2.0)))


def fit(
    x: NDArray[np.floating],
    n_components: int,
    *,
    seed: np.random.SeedSequence,
    n_starts: int = 20,
    max_steps: int = 300,
    tolerance: float = 1e-5,
) -> list[Mixture]:
    """Tied-covariance mixtures of ``x`` [n_obs, d] from ``n_starts`` starts, the best likelihood first.

    Starts have seeds of their own (spawned, not per thread). BLAS is held to one thread: the choice of the best
    start is discrete, and the last bits of a parallel sum would change it.
    """
    data = np.ascontiguousarray(x, dtype=np.float64)
    rng_sample, *rng_starts = (np.random.default_rng(s) for s in seed.spawn(n_starts + 1))
    if len(data) > MAX_FITTED:
        data = data[np.sort(rng_sample.choice(len(data), MAX_FITTED, replace=False))]
    with threadpool_limits(1):
        # an overall whitening makes starts and ridge independent of the scale of the embedding
        mean, unmix = data.mean(0), _whitening(data)
        white = (data - mean) @ unmix
        sample = white
        if len(white) > MAX_START_SAMPLE:
            sample = white[np.sort(rng_sample.choice(len(white), MAX_START_SAMPLE, replace=False))]
        models = [_one_start(sample, n_components, r, max_steps=max_steps, tolerance=tolerance) for r in rng_starts]
        models.sort(key=lambda m: -m.log_likelihood)
        if sample is not white:
            models[0] = _run_em(white, models[0], max_steps=50, tolerance=1e-4)
        mix = np.asarray(np.linalg.pinv(unmix), dtype=np.float64)
        return [_unwhiten(m, mean, unmix, mix) for m in models]


def _whitening(x: Float) -> Float:
    """[d, r] matrix that turns the centred data to unit covariance; directions without variance are dropped."""
    # columns first come to one scale: the threshold below must not drop a column for its unit
    scale = x.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(x).max(axis=0), scale, np.inf)
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov((x / scale).T)))
    keep = values > max(values.max(initial=0.0), 1e-300) * 1e-10
    # the sign of an eigenvector is arbitrary: fix it, so that the starts do not depend on the LAPACK build
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(values))])
    return np.asarray(vectors[:, keep] / np.sqrt(values[keep]) / scale[:, None])


def _unwhiten(model: Mixture, mean: Float, unmix: Float, mix: Float) -> Mixture:
    """The mixture in the coordinates of the data."""
    rank = unmix.shape[1]
    log_det = model.log_det + 0.5 * float(np.linalg.slogdet(unmix.T @ unmix)[1]) if rank else model.log_det
    return replace(
        model,
        means=model.means @ mix + mean,
        precision_root=unmix @ model.precision_root,
        log_det=log_det,
        log_likelihood=model.log_likelihood + log_det - model.log_det,
    )
