"""Settings of the denoiser from held-out counts: no labels, and no depth in what is chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import denoise, evidence, split
from smeld.kernels.denoise import Float, Settings

#: share of the counts that is fitted; the other half is predicted
FRACTION = 0.5
#: smoothing and nuggets looked at, in units of the mean library of the fitted part (its inverse for nuggets)
SMOOTHING = (0.1, 0.4, 1.5, 6.0, 25.0, 100.0)
NUGGETS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 50.0)
RIDGES = (1.0, 2.0, 4.0, 8.0)
OWN = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
TRUST = (0.0, 1.0, 2.0, 4.0, 8.0)
#: spots looked at: compact pieces of larger sections, several splits of smaller ones
MOST_SPOTS, PIECE, MOST_SPLITS = 800, 400, 3
#: genes that are scored: some of the axes, and more evenly from the table
SCORED_OF_AXES, SCORED_OF_ALL = 150, 250


@dataclass(frozen=True)
class Choice:
    """``settings``, and by method the ``errors`` on held-out counts of the spots and genes looked at."""

    settings: Settings
    errors: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class _Trial:
    """One split: the fitted counts of all genes, both parts of the genes that are scored, sizes, axes, estimates."""

    one: sparse.csr_matrix
    rest: sparse.csr_matrix
    weights: sparse.csr_matrix
    size: Float
    size_rest: Float
    gene: denoise.Gene
    seen: Float
    target: Float

    def settled(self, settings: Settings) -> Float:
        """Scores under these settings."""
        return denoise.posterior(self.weights, self.size, self.seen, settings)

    def fitted(self, q: Float, ridge: float) -> tuple[denoise.Prior, Float]:
        """The prior of the scored genes, and their own dispersion about it."""
        made = denoise.prior(self.one, self.size, self.gene, q, ridge=ridge)
        return made, denoise.own_dispersion(self.one, self.size, made)


def fixed(n_components: int, typical: float) -> Settings:
    """Settings where nothing can be held out: what cortex and tumour sections chose, ``typical`` the mean library."""
    k = np.arange(n_components)
    smoothing = np.minimum(1.0 + k, 25.0) * typical / 2
    nugget = np.where(k < 5, 0.3, 0.1) * 2 / typical
    return Settings(tuple(map(float, smoothing)), tuple(map(float, nugget)))


def sample(xy_um: Float, most: int = MOST_SPOTS) -> NDArray[np.intp]:
    """All spots, or about ``most`` of them in compact pieces spread over the section."""
    n = len(xy_um)
    if n <= 1.5 * most:  # a little more than asked for is better than pieces with edges
        return np.arange(n)
    piece = evidence.blocks(xy_um, 2 ** int(np.ceil(np.log2(n / PIECE))))
    n_pieces = int(piece.max()) + 1
    take = max(1, round(most * n_pieces / n))
    chosen = np.unique(np.linspace(0, n_pieces - 1, take + 2)[1:-1].round().astype(int))
    return np.flatnonzero(np.isin(piece, chosen))


def choose(
    counts: sparse.csr_matrix,
    weights: sparse.csr_matrix,
    *,
    n_components: int,
    overdispersed: bool,
    seed: np.random.SeedSequence,
) -> Choice:
    """Settings that predict held-out counts best: smoothing and nugget of each component by squared error on its axis,
    then ridge, own and trust by the product of deviance and squared log error (where counts are many and not Poisson,
    the first alone fears a zero too many, the second alone keeps the counts as they are; elsewhere they agree).

    ``overdispersed``: what neighbours do not share is noise, and counts are split beta-binomially; else binomially.
    """
    n_splits = int(np.clip(MOST_SPOTS // max(counts.shape[0], 1), 1, MOST_SPLITS))
    dispersion = split.local_dispersion(counts, weights) if overdispersed else np.zeros(counts.shape[1])
    made = [_trial(counts, weights, dispersion, n_components, s) for s in seed.spawn(n_splits)]
    settings = _components(made)
    scores = [t.settled(settings) for t in made]

    def by_ridge(at: tuple[int, ...]) -> Float:
        return _mean_errors([(t, t.fitted(q, RIDGES[at[0]]), 1.0, 0.0) for t, q in zip(made, scores)])

    (ridge,), _ = _climb(by_ridge, (RIDGES.index(4.0),), (len(RIDGES),))
    fits = [t.fitted(q, RIDGES[ridge]) for t, q in zip(made, scores)]

    def by_own(at: tuple[int, ...]) -> Float:
        return _mean_errors([(t, f, OWN[at[0]], TRUST[at[1]]) for t, f in zip(made, fits)])

    (own, trust), with_own = _climb(by_own, (OWN.index(1.0), 0), (len(OWN), len(TRUST)))
    typical = float(np.mean([t.size.mean() for t in made]))
    settings = replace(settings, ridge=RIDGES[ridge], own=OWN[own], trust=TRUST[trust] / typical)
    found = {**_simple(made), "rank-limited": by_own((0, 0)), "smeld": with_own}
    return Choice(settings, {name: (float(e[0]), float(e[1])) for name, e in found.items()})


def _climb(
    score: Callable[[tuple[int, ...]], Float], start: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], Float]:
    """Downhill on a grid, one coordinate at a time, until no neighbour has a lower product of errors."""
    seen = {start: score(start)}
    best, moved = start, True
    while moved:
        moved = False
        for axis, step in ((a, s) for a in range(len(shape)) for s in (1, -1)):
            there = tuple(v + step * (a == axis) for a, v in enumerate(best))
            if not 0 <= there[axis] < shape[axis]:
                continue
            if there not in seen:
                seen[there] = score(there)
            if np.prod(seen[there]) < np.prod(seen[best]):
                best, moved = there, True
    return best, seen[best]


def _trial(
    counts: sparse.csr_matrix,
    weights: sparse.csr_matrix,
    dispersion: Float,
    n_components: int,
    seed: np.random.SeedSequence,
) -> _Trial:
    """One split of the genes that matter; the others are drawn as one, for they count in the library sizes only."""
    rng = np.random.default_rng(seed)
    whole = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    # which genes span the axes is read from all counts: that a gene varies says nothing of which half shows it
    axis = denoise.axis_genes(denoise.gene_moments(counts, whole), whole)
    scored = np.union1d(_evenly(axis, SCORED_OF_AXES), _evenly(np.arange(counts.shape[1]), SCORED_OF_ALL))
    taken = np.union1d(axis, scored)
    some = sparse.csr_matrix(counts[:, taken])
    one, rest = split.thin(some, FRACTION, dispersion[taken], rng)
    others = np.maximum(np.rint(whole - np.asarray(some.sum(axis=1, dtype=np.float64)).ravel()), 0).astype(np.int64)
    drawn = rng.binomial(others, FRACTION)
    size = np.asarray(one.sum(axis=1)).ravel() + drawn
    size_rest = np.asarray(rest.sum(axis=1)).ravel() + (others - drawn)
    gene = denoise.gene_moments(one, size)
    on = denoise.axes(one, size, weights, gene, n_components=n_components, genes=np.searchsorted(taken, axis))
    target = denoise.scores(rest, size_rest, gene, on)
    target -= np.outer(size_rest, target.sum(axis=0) / max(float(size_rest.sum()), 1e-12))
    seen = denoise.differences(one, size, gene, on)
    at = np.searchsorted(taken, scored)
    few = denoise.Gene(gene.share[at], gene.total[at], gene.dispersion[at])
    return _Trial(_columns(one, at), _columns(rest, at), weights, size, size_rest, few, seen, target)


def _evenly(genes: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    return genes[np.unique(np.linspace(0, len(genes) - 1, most).astype(np.intp))]


def _columns(x: sparse.csr_matrix, genes: NDArray[np.intp]) -> sparse.csr_matrix:
    return sparse.csr_matrix(x[:, genes], dtype=np.float32)


def _components(made: list[_Trial]) -> Settings:
    """Smoothing and nugget by component: the least sum of N (r - q)^2 over held-out spots, less that of q = 0."""
    d = min(t.seen.shape[1] for t in made)
    error = np.zeros((len(SMOOTHING), len(NUGGETS), d))
    for t in made:
        typical = float(t.size.mean())
        for i, tau in enumerate(SMOOTHING):
            own = t.seen[:, :d]
            smooth = denoise.smooth_scores(t.weights, t.size, own, np.full(d, tau * typical), tolerance=1e-2)
            for j, nugget in enumerate(NUGGETS):
                q = smooth + denoise.nugget_share(t.size, nugget / typical) * (own - smooth)
                error[i, j] += ((t.size_rest[:, None] * q - 2 * t.target[:, :d]) * q).sum(axis=0)
    typical = float(np.mean([t.size.mean() for t in made]))
    flat = error.reshape(-1, d)
    i, j = np.unravel_index(flat.argmin(axis=0), error.shape[:2])
    gains = flat.min(axis=0) < 0
    smoothing = np.where(gains, np.asarray(SMOOTHING)[i] * typical, np.inf)
    return Settings(tuple(map(float, smoothing)), tuple(map(float, np.asarray(NUGGETS)[j] / typical)))


def _mean_errors(cases: list[tuple[_Trial, tuple[denoise.Prior, Float], float, float]]) -> Float:
    """Mean of ``errors`` over the trials, each with its fit, own and trust."""
    found = []
    for t, (made, dispersion), own, trust in cases:
        value = denoise.expected(t.one, t.size, made, own * dispersion, trust=trust / float(t.size.mean()))
        found.append(errors(value, t))
    return np.mean(found, axis=0)  # type: ignore[no-any-return]


@njit(cache=True, error_model="numpy")
def _log1p(x):  # type: ignore[no-untyped-def]
    """log(1 + x) by the series of 8 artanh((v - 1) / (v + 1)), v the fourth root of 1 + x: within .003 up to x = 100;
    unlike the library's it is worked out for several values at a time."""
    v = np.sqrt(np.sqrt(np.float32(1) + x))
    z = (v - np.float32(1)) / (v + np.float32(1))
    y = z * z
    return (
        np.float32(8)
        * z
        * (
            np.float32(1)
            + y * (np.float32(1 / 3) + y * (np.float32(1 / 5) + y * (np.float32(1 / 7) + y * np.float32(1 / 9))))
        )
    )


@njit(cache=True, error_model="numpy")
def _errors(value, share, size, other, target, indptr, indices, data):  # type: ignore[no-untyped-def]
    poisson, log, total = 0.0, 0.0, 0.0
    guess = np.empty(value.shape[1], dtype=np.float32)
    for i in range(value.shape[0]):
        if size[i] <= 0 or other[i] <= 0:
            continue
        scale, unit = other[i] / size[i], np.float32(target / size[i])
        for g in range(value.shape[1]):
            guess[g] = _log1p(unit * value[i, g])
        for g in range(value.shape[1]):
            poisson += scale * value[i, g]
            log += guess[g] * guess[g]
        for e in range(indptr[i], indptr[i + 1]):
            g, x = indices[e], float(data[e])
            if x > 0:
                total += x
                poisson += x * np.log(x / (scale * max(value[i, g], 0.02 * size[i] * share[g]))) - x
                seen = np.log1p(target / other[i] * x)
                log += seen * (seen - 2 * guess[g])
    return 2 * poisson / max(total, 1e-12), log / value.size


def errors(value: NDArray[np.float32], t: _Trial) -> tuple[float, float]:
    """Poisson deviance per held-out count and squared error of held-out log-normalised values, of expected counts at
    the fitted part's library sizes.

    For the deviance, rates are not below .02 of the section's mean: the same floor for all methods.
    """
    x, target = t.rest, float(np.median(t.size_rest))
    found = _errors(value, t.gene.share, t.size, t.size_rest, target, x.indptr, x.indices, x.data)
    return float(found[0]), float(found[1])


def _simple(made: list[_Trial]) -> dict[str, Float]:
    """The same errors of what needs no model."""
    found: dict[str, list[tuple[float, float]]] = {
        "section mean": [],
        "measured": [],
        "mean of spot and neighbours": [],
    }
    for t in made:
        linked = t.weights.copy()
        linked.data = np.ones_like(linked.data)
        linked = sparse.csr_matrix(linked + sparse.identity(linked.shape[0]))
        rate = (linked @ t.one).toarray() / np.maximum(linked @ t.size, 1e-12)[:, None]
        values = (np.outer(t.size, t.gene.share), t.one.toarray(), rate * t.size[:, None])
        for kept, value in zip(found.values(), values):
            kept.append(errors(value.astype(np.float32), t))
    return {name: np.mean(values, axis=0) for name, values in found.items()}
