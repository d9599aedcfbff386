"""How much better or worse a section measures each gene than its reference does, from counts pooled over patches.

Counts of patch p and gene g have mean exp(shift_g) sum_k amount_pk profile_kg. Shifts are draws of one normal
distribution, whose width is estimated; amounts are free but for a weak prior. Both are found together: the amounts of
each patch are few, so that they drop out of the normal equations (Schur complement), and what is left is one symmetric
system over genes. How sure all this is, is asked of other draws of genes, patches and reference cells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]

#: dispersion of pooled counts at the start, and the least: what no model of types explains
START_DISPERSION, LEAST_DISPERSION, MOST_DISPERSION = 0.3, 0.005, 5.0
#: patches' worth of the median dispersion that each gene's own is shrunk by
PRIOR_PATCHES = 20
#: width (log) of the shifts at the start, and the least
START_WIDTH, LEAST_WIDTH = 1.0, 0.02
N_STEPS, N_AMOUNT_STEPS, LARGEST_STEP = 20, 15, 1.5
#: shifts are found when none moves by more; amounts, relative to the largest
TOLERANCE, AMOUNT_TOLERANCE = 3e-3, 1e-5
#: prior of the section's composition: as if so many cells of each type had been seen
PRIOR_CELLS = 2.0


@dataclass(frozen=True)
class Shift:
    """``log_shift`` [n_genes], ``width`` the standard deviation of their law, ``amounts`` [n_patches, n_types],
    ``dispersion`` [n_genes] of pooled counts about the model, ``n_steps``."""

    log_shift: Float
    width: float
    amounts: Float
    dispersion: Float
    n_steps: int

    @property
    def shares(self) -> Float:
        """Compositions of the patches."""
        return np.asarray(self.amounts / self.amounts.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Weights:
    """How much patches [n_patches] and genes [n_genes] count, and the cells of each type [n_types] in the prior."""

    patch: Float
    gene: Float
    prior: Float


def estimate(pooled: Float, profile: Float) -> Shift:
    """Shifts of genes, from counts ``pooled`` [n_patches, n_genes] and mean counts ``profile`` [n_types, n_genes]."""
    n_types, n_genes = profile.shape
    amounts = np.repeat(pooled.sum(axis=1, keepdims=True) / profile.sum(), n_types, axis=1)
    start = Shift(np.zeros(n_genes), START_WIDTH, amounts, np.full(n_genes, START_DISPERSION), 0)
    return _iterated(pooled, profile, start, _even(pooled, profile), N_STEPS)


def _even(pooled: Float, profile: Float) -> Weights:
    n_types, n_genes = profile.shape
    return Weights(np.ones(len(pooled)), np.ones(n_genes), np.full(n_types, PRIOR_CELLS))


def again(pooled: Float, profile: Float, found: Shift, rng: np.random.Generator, n_steps: int) -> Shift:
    """The estimate with other weights of patches, genes and prior (Rubin's bootstrap 1981), from where it was found."""
    even = _even(pooled, profile)
    weights = Weights(*(w * (rng.exponential(size=len(w)) + 1e-3) for w in (even.patch, even.gene, even.prior)))
    return _iterated(pooled, profile, found, weights, n_steps)


def _iterated(pooled: Float, profile: Float, now: Shift, weights: Weights, n_steps: int) -> Shift:
    with one_thread():
        for step in range(1, n_steps + 1):
            now = _with_amounts(pooled, profile, now, weights)
            change, variance = _newton(pooled, profile, now, weights)
            shift = now.log_shift + np.clip(change, -LARGEST_STEP, LARGEST_STEP)
            width = max(float(np.sqrt(np.average(shift**2 + variance, weights=weights.gene))), LEAST_WIDTH)
            dispersion = _dispersion(pooled, np.exp(shift) * (now.amounts @ profile), len(profile))
            now = Shift(shift, width, now.amounts, dispersion, step)
            if step > 3 and np.abs(change).max() < TOLERANCE:
                break
        return _with_amounts(pooled, profile, now, weights)


def _with_amounts(pooled: Float, profile: Float, now: Shift, weights: Weights) -> Shift:
    """Amounts of types at given shifts, by Newton steps that go nine tenths of the way to zero at most.

    Weighted by 1 / (mean + dispersion mean^2), as a negative-binomial count is known.
    """
    amounts = np.maximum(now.amounts, 1e-12)
    for _ in range(N_AMOUNT_STEPS):
        now = replace(now, amounts=amounts)
        _, square, up = _equations(pooled, profile * np.exp(now.log_shift), now, weights)
        step = np.linalg.solve(square, up[:, :, None])[:, :, 0]
        moved = np.maximum(amounts + step, 0.1 * amounts)
        done = np.abs(moved - amounts).max() < AMOUNT_TOLERANCE * amounts.max()
        amounts = moved
        if done:
            break
    return replace(now, amounts=amounts)


def _equations(pooled: Float, scaled: Float, now: Shift, weights: Weights) -> tuple[Float, Float, Float]:
    """Of every patch: derivatives of the amounts' slopes by the shifts [n_patches, n_types, n_genes] (sign changed),
    their own precision [n_patches, n_types, n_types] and slopes [n_patches, n_types]."""
    amounts, n_types = now.amounts, len(scaled)
    mean = np.maximum(amounts @ scaled, 1e-12)
    shrunk = weights.gene / (1 + now.dispersion * mean)
    cross = scaled[None] * shrunk[:, None]
    square = (cross / mean[:, None]) @ scaled.T
    size = pooled.sum(axis=1, keepdims=True)
    pull = weights.prior * size / size.sum()  # each patch's share of the prior: as much as counts it has
    square[:, np.arange(n_types), np.arange(n_types)] += pull / amounts**2
    up = (shrunk * (pooled - mean) / mean) @ scaled.T
    up += pull / amounts - (pull.sum(axis=1) / amounts.sum(axis=1))[:, None]
    return cross, square, up


def _newton(pooled: Float, profile: Float, now: Shift, weights: Weights) -> tuple[Float, Float]:
    """(step of the shifts [n_genes], their variances), the amounts moving along."""
    scaled = profile * np.exp(now.log_shift)
    mean = np.maximum(now.amounts @ scaled, 1e-12)
    shrunk = weights.gene / (1 + now.dispersion * mean)
    prior = weights.gene / now.width**2
    precision = weights.patch @ (mean * shrunk) + prior
    slope = weights.patch @ (shrunk * (pooled - mean)) - prior * now.log_shift
    cross, square, up = _equations(pooled, scaled, now, weights)
    root = np.linalg.cholesky(square)
    often = np.sqrt(weights.patch)[:, None, None]
    stacked = (often * np.linalg.solve(root, cross)).reshape(-1, len(slope))
    right = (often * np.linalg.solve(root, up[:, :, None])).ravel()
    return _solved(precision, stacked, slope - stacked.T @ right, weights.gene)


def _solved(precision: Float, stacked: Float, right: Float, often: Float) -> tuple[Float, Float]:
    """(x, diagonal of the inverse times ``often``) of (diag(precision) - stacked' stacked) x = right, by Woodbury's
    identity: amounts are fewer than genes."""
    over = stacked / np.sqrt(precision)
    inner = np.eye(len(over)) * (1 + 1e-9) - over @ over.T
    root = linalg.cholesky(inner, lower=True)
    half = linalg.solve_triangular(root, stacked / precision, lower=True)
    return right / precision + half.T @ (half @ right), (1 / precision + (half**2).sum(axis=0)) * often


def _dispersion(pooled: Float, mean: Float, n_types: int) -> Float:
    """Dispersion of each gene's pooled counts about the model, by moments, shrunk to the genes' median."""
    n = len(pooled)
    kept = max(1 - n_types / pooled.shape[1] - 1 / n, 0.2)  # of the squares that are left after fitting
    excess = ((pooled - mean) ** 2 / kept - mean).sum(axis=0)
    own = np.clip(excess / np.maximum((mean**2).sum(axis=0), 1e-12), 0.0, MOST_DISPERSION)
    shrunk = (n * own + PRIOR_PATCHES * np.median(own)) / (n + PRIOR_PATCHES)
    return np.asarray(np.clip(shrunk, LEAST_DISPERSION, MOST_DISPERSION))
