"""How well a way of smoothing predicts counts it has not seen: the score by which fusion weights are chosen.

Counts are split in two independent parts. One part is embedded and smoothed *without the spot itself*; the other part,
projected on the same components, is what must be predicted. Leaving the spot out keeps what is the spot's alone (its
mix of cells) from speaking for less smoothing: asked for is what the surroundings know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from smeld.kernels import expression, smooth, split

Float = NDArray[np.float64]

#: random signs for the diagonal of a smoother (Hutchinson 1990; Bekas et al. 2007)
N_PROBES = 64
#: error of a solve, in terms of its start: far below what a score's standard error is
TOLERANCE = 1e-4
#: share of the counts that is embedded; the other half is predicted
FRACTION = 0.5


@dataclass(frozen=True)
class Trial:
    """One split: components ``scores`` [n_obs, d] of one part, ``target`` [n_obs, d] of the other on the same axes."""

    scores: Float
    target: Float


@dataclass(frozen=True)
class Score:
    """Share of the held-out variance that is predicted, in spatial blocks: the mean of ``by_block`` is the whole's."""

    by_block: Float

    @property
    def mean(self) -> float:
        """R^2 over the section."""
        return float(self.by_block.mean())

    def gain_over(self, other: Score) -> tuple[float, float]:
        """(difference of the means, its standard error over blocks)."""
        difference = self.by_block - other.by_block
        return float(difference.mean()), float(difference.std(ddof=1) / np.sqrt(len(difference)))


def trials(
    counts: sparse.csr_matrix,
    weights: sparse.csr_matrix,
    *,
    n_splits: int,
    n_genes: int,
    n_components: int,
    seed: np.random.SeedSequence,
) -> list[Trial]:
    """Count splits, embedded. Genes, scaling and loadings come from the embedded part alone."""
    dispersion = split.local_dispersion(counts, weights)
    made = []
    for child in seed.spawn(n_splits):
        first, second = split.thin(counts, FRACTION, dispersion, np.random.default_rng(child))
        logged = expression.log_normalise(first)
        embedded = expression.embed(logged, weights, n_genes=n_genes, n_components=n_components, seed=0)
        other = expression.scale_columns(expression.log_normalise(second)[:, embedded.genes])
        with threadpool_limits(1):
            target = np.asarray(other @ embedded.loadings.T)
        made.append(Trial(embedded.scores, target - target.mean(axis=0)))
    return made


def within_sections(trial: Trial, section: NDArray[np.integer]) -> Trial:
    """The trial with each section's mean taken off: offsets between sections must not pass for structure."""
    size = np.maximum(np.bincount(section), 1)

    def centred(x: Float) -> Float:
        mean = np.stack([np.bincount(section, column) / size for column in x.T], axis=1)
        return np.asarray(x - mean[section])

    return Trial(centred(trial.scores), centred(trial.target))


def left_out(operator: Callable[[Float], Float], x: Float, *, connected: NDArray[np.bool_]) -> Float:
    """What a linear smoother says of each spot when that spot is left out, [n_obs, d].

    (S x)_i - S_ii x_i over 1 - S_ii, exact for penalised least squares; the diagonal by random signs, averaged. Spots
    without neighbours get the mean, 0.
    """
    n, d = x.shape
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(n, N_PROBES))
    both = operator(np.concatenate([x, signs], axis=1))
    diagonal = np.clip((both[:, d:] * signs).mean(axis=1, keepdims=True), 0.0, 0.98)
    out = (both[:, :d] - diagonal * x) / (1.0 - diagonal)
    out[~connected] = 0.0
    return np.asarray(out - out.mean(axis=0))


def score(predictions: Sequence[Float], made: Sequence[Trial], block: NDArray[np.intp]) -> Score:
    """Predicted share of the held-out variance over all trials, by block.

    Each component's prediction is scaled by least squares first: normalising a thinner part shrinks it, which is no
    merit or fault of the smoothing.
    """
    n_blocks = int(block.max()) + 1
    explained, total = np.zeros(n_blocks), np.zeros(n_blocks)
    for prediction, trial in zip(predictions, made):
        square = (prediction**2).sum(axis=0)
        slope = np.divide((prediction * trial.target).sum(axis=0), square, out=np.zeros_like(square), where=square > 0)
        left = ((trial.target - np.maximum(slope, 0) * prediction) ** 2).sum(axis=1)
        whole = (trial.target**2).sum(axis=1)
        explained += np.bincount(block, whole - left, n_blocks)
        total += np.bincount(block, whole, n_blocks)
    return Score(explained * n_blocks / max(float(total.sum()), 1e-300))


def blocks(xy: Float, n_blocks: int) -> NDArray[np.intp]:
    """Compact groups of neighbouring spots of about equal size, by repeated halving along the longer side.

    ``n_blocks`` is rounded down to a power of two. Sections are turned to their principal axes first, so that the
    blocks turn with the section.
    """
    centred = xy - xy.mean(axis=0)
    axes = np.linalg.eigh(centred.T @ centred)[1]
    turned = centred @ axes
    groups = [np.arange(len(xy))]
    while 2 * len(groups) <= n_blocks and min(map(len, groups)) >= 4:
        halves = []
        for group in groups:
            along = turned[group][:, int(np.ptp(turned[group], axis=0).argmax())]
            ordered = group[np.argsort(along, kind="stable")]
            halves += [ordered[: len(ordered) // 2], ordered[len(ordered) // 2 :]]
        groups = halves
    label = np.empty(len(xy), dtype=np.intp)
    for i, group in enumerate(groups):
        label[group] = i
    return label


@dataclass(frozen=True)
class Ridge:
    """Ridge regression on morphology as a linear smoother: x -> U diag(shrink) U' x, plus the mean."""

    basis: Float
    shrink: Float

    def __call__(self, x: Float) -> Float:
        """What morphology predicts for ``x`` [n_obs, d]."""
        mean = x.mean(axis=0)
        with threadpool_limits(1):
            return np.asarray(mean + self.basis @ (self.shrink[:, None] * (self.basis.T @ (x - mean))))


def ridge(features: Float, x: Float) -> Ridge:
    """Ridge of ``x`` [n_obs, d] on ``features`` [n_obs, p], its penalty by generalised cross-validation.

    One penalty for all components (Golub, Heath & Wahba 1979).
    """
    with threadpool_limits(1):
        centred = features - features.mean(axis=0)
        basis, singular, _ = np.linalg.svd(centred, full_matrices=False)
        keep = singular > singular.max(initial=0.0) * 1e-8
        basis, singular = basis[:, keep], singular[keep]
        target = x - x.mean(axis=0)
        projected = basis.T @ target
        outside = float((target**2).sum() - (projected**2).sum())
    best, chosen = np.inf, np.zeros_like(singular)
    for penalty in np.geomspace(1e-1, 1e6, 22):
        shrink = singular**2 / (singular**2 + penalty)
        left = outside + float((((1 - shrink)[:, None] * projected) ** 2).sum())
        criterion = left / max(len(x) - 1 - shrink.sum(), 1.0) ** 2
        if criterion < best:
            best, chosen = criterion, shrink
    return Ridge(basis, chosen)


def smoother(
    weights: sparse.csr_matrix, alpha: float, *, regression: Ridge | None = None, beta: float = 0.0
) -> Callable[[Float], Float]:
    """x -> (I + alpha L)^-1 (x + beta R x) / (1 + beta), R the regression on morphology."""

    def apply(x: Float) -> Float:
        mixed = x if regression is None or beta == 0 else (x + beta * regression(x)) / (1 + beta)
        return smooth.smooth(weights, mixed, alpha, tolerance=TOLERANCE)

    return apply
