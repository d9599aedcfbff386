"""What speaks for an ordering: expression of points that were hidden from it. And what a block bootstrap does to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import splu

from smeld.kernels import ordering
from smeld.kernels._threads import one_thread
from smeld.kernels.ordering import Bool, Candidate, Float

#: cubic splines along an order that expression is described with
N_SPLINES = 12
#: what a hidden point still counts, so that the solve stays well-posed
HIDDEN = 1e-6
#: candidates whose share of predicted variance lies this share of the best one's below it have 1/e of its weight, and
#: 1/e of its doubt. Of shares of space the largest that predicts within ``SLACK`` of the best is taken: what expression
#: does not clearly ask for is left to space. Set on simulated sections other than those of docs/benchmarks.md
FALL, DOUBT, SLACK = 0.01, 0.05, 0.05
#: fewer blocks tell no standard error
FEWEST_BLOCKS = 8
#: standard errors by which expression adds to what space alone predicts: from the first on it has a say, beyond the
#: last the whole say; it is said to help in the middle between them
FAINT, CLEAR = 2.5, 4.0


@dataclass(frozen=True)
class Evidence:
    """By candidate: ``predicted`` share of the hidden variance; ``error`` the standard error, over blocks, of its
    difference from ``space`` (the number of the best of those that go by space alone); ``weight`` in the consensus;
    ``doubt`` the same without regard to whether expression has a say, which is what a bootstrap draws by.
    ``gain``: what the best with expression adds to space alone, and its error."""

    predicted: Float
    error: Float
    weight: Float
    doubt: Float
    space: int
    gain: tuple[float, float]

    @property
    def helps(self) -> bool:
        """Whether expression predicts what space alone does not."""
        return self.gain[0] > (FAINT + CLEAR) / 2 * self.gain[1]


def smoothed(weights: sparse.csr_matrix, values: Float, alpha: float, say: Float) -> Float:
    """Solve (D + alpha L) Z = D X with D = ``say`` [n], how much each point's own values count; Z [n, d].

    Points of no say get what their neighbours have. A part of the graph of which nothing is known gets the mean.
    """
    degree = np.asarray(weights.sum(axis=1)).ravel()
    system = sparse.diags(say + alpha * degree) - alpha * weights
    mean = values.mean(axis=0)
    with one_thread():
        found = splu(system.tocsc(), permc_spec="MMD_AT_PLUS_A").solve(say[:, None] * (values - mean))
    return np.asarray(found + mean)


def splines(order: Float, n_splines: int = N_SPLINES) -> Float:
    """Cubic B-splines at an order in [0, 1], [n, n_splines]."""
    inner = np.linspace(0.0, 1.0, n_splines - 2)
    knots = np.concatenate([np.zeros(3), inner, np.ones(3)])
    return np.asarray(BSpline.design_matrix(np.clip(order, 0.0, 1 - 1e-9), knots, 3).toarray())


def unexplained(order: Float, values: Float, size: Float) -> Float:
    """Squared error of each point's ``values`` [n, d] against a smooth function of ``order``, [n], times its size."""
    root = np.sqrt(size)[:, None]
    design = splines(order)
    with one_thread():
        square = (root * design).T @ (root * design)
        square[np.diag_indices_from(square)] += 1e-8 * np.trace(square)
        fit = design @ np.linalg.solve(square, (root * design).T @ (root * values))
    return np.asarray(size * ((values - fit) ** 2).sum(axis=1))


@dataclass(frozen=True)
class Points:
    """What is ordered: ``values`` [n, d] as measured and ``beside`` [n, e] columns that are taken as they are
    (morphology); ``weights`` and ``alpha`` of the fusion; the walk in ``space``; ``root``; ``size`` cells by point;
    ``block`` int [n]; and ``shift`` [n, d], what the point's own smoothed values differ by from the coarse ones'."""

    values: Float
    beside: Float
    weights: sparse.csr_matrix
    alpha: float
    space: sparse.csr_matrix
    root: Bool
    size: Float
    block: NDArray[np.intp]
    shift: Float

    def features(self, say: Float, smoothing: float = 1.0) -> Float:
        """The fused embedding, with ``say`` [n] cells' worth of values at each point."""
        found = smoothed(self.weights, self.values, self.alpha * smoothing, say)
        return np.hstack([found + self.shift, self.beside])

    def orders(self, say: Float, candidates: list[Candidate]) -> Float:
        """Order of the points by every candidate, ranks, [n_candidates, n]."""
        features = {a: self.features(say, a) for a in sorted({c.smoothing for c in candidates})}
        return ordering.orders(features, self.space, self.root, self.size, candidates)


def weigh(points: Points, candidates: list[Candidate], rng: np.random.Generator) -> Evidence:
    """Half of the points are hidden, the order found from the others, and what it says of the hidden ones compared
    with their expression; then the other half.

    Neighbours alone say where a hidden point belongs. Expression that has no place in the tissue predicts nothing.
    """
    n = len(points.size)
    half = rng.permutation(n) % 2 == 0
    lost = np.zeros((len(candidates), n))
    for hidden in (half, ~half):
        found = points.orders(np.where(hidden, HIDDEN, points.size), candidates)
        for row, order in zip(lost, found):
            row[hidden] = unexplained(order[hidden], points.values[hidden], points.size[hidden])
    total = sum(_variation(points.values[part], points.size[part]) for part in (half, ~half))
    most = max(c.space for c in candidates)
    alone = np.array([c.space == most for c in candidates])
    predicted = 1 - lost.sum(axis=1) / max(total, 1e-300)
    space = int(np.flatnonzero(alone)[predicted[alone].argmax()])
    by_block = np.stack([np.bincount(points.block, row) for row in lost - lost[space]])
    n_blocks = by_block.shape[1]
    spread = by_block.var(axis=1, ddof=1) if n_blocks >= FEWEST_BLOCKS else np.full(len(candidates), np.inf)
    error = np.where(np.arange(len(candidates)) == space, 0.0, np.sqrt(n_blocks * spread) / max(total, 1e-300))
    best = int(np.where(alone, -np.inf, predicted).argmax()) if not alone.all() else space
    gain = (float(predicted[best] - predicted[space]), float(error[best]))
    doubt = _falling(predicted, DOUBT)
    say = float(np.clip((gain[0] / gain[1] - FAINT) / (CLEAR - FAINT), 0.0, 1.0)) if gain[1] > 0 else 0.0
    weight = np.where(alone, _falling(predicted, FALL), 0.0)
    weight *= (1 - say) / weight.sum()
    if say > 0:
        mixed = _chosen(predicted, candidates, alone)
        weight += say * mixed / mixed.sum()
    return Evidence(predicted, error, weight / weight.sum(), doubt / doubt.sum(), space, gain)


def _falling(predicted: Float, fall: float) -> Float:
    """What predicts nearly as well as the best counts nearly as much."""
    best = float(predicted.max())
    return np.asarray(np.exp(-(best - predicted) / (fall * max(best, 1e-12))))


def _chosen(predicted: Float, candidates: list[Candidate], alone: Bool) -> Float:
    """For each way to look at expression the largest share of space that predicts about as well as its best share."""
    weight = np.zeros(len(candidates))
    fall, slack = _falling(predicted, FALL), SLACK * float(predicted.max())
    for way in dict.fromkeys((c.n_neighbors, c.smoothing) for c in candidates):
        mine = np.array([(c.n_neighbors, c.smoothing) == way for c in candidates]) & ~alone
        best = float(predicted[mine].max(initial=-np.inf))
        good = np.flatnonzero(mine & (predicted >= best - slack))
        if len(good):
            weight[max(good, key=lambda i: candidates[i].space)] = fall[mine].max()
    return weight


def _variation(values: Float, size: Float) -> float:
    mean = (size[:, None] * values).sum(axis=0) / size.sum()
    return float((size[:, None] * (values - mean) ** 2).sum())


def drawn(points: Points, rng: np.random.Generator) -> Float:
    """Say of every point when blocks are drawn with replacement, [n]: its size times how often its block came."""
    n_blocks = int(points.block.max()) + 1
    times = np.bincount(rng.integers(0, n_blocks, n_blocks), minlength=n_blocks)
    return np.asarray(points.size * np.maximum(times, HIDDEN)[points.block])
