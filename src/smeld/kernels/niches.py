"""What lies around each cell: shares of types in its surroundings, whether types go together, groups of sections.

Shares are averaged over the cell and its neighbours, and averaged again: near cells count more than far ones. They are
not transformed, so that a niche that differs in one type is a point that lies elsewhere, with the scatter of counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats

from smeld.kernels import alongpath, consensus, mixture
from smeld.kernels._threads import one_thread
from smeld.kernels.graph import row_normalise

Float = NDArray[np.float64]
Int = NDArray[np.intp]
Bool = NDArray[np.bool_]

#: averages of averages: the niches' own scale, and half and twice its variance
SCALES = (2, 1, 4)
#: share of the cells that a thinned section keeps
KEPT_CELLS = 0.8
#: correlation between two halves of the cells that a component of the surroundings needs; set on simulated sections of
#: seeds 100 and up, where components of niches have .7 and more, and others lie within .12 of 0
AGREE = 0.3
#: variance, of the largest, below which a component is rounding
NOTHING = 1e-9
#: up to so many types are left out one at a time; of more, a sixth at a time
FEW_TYPES, N_FOLDS = 12, 6
#: starts of niches that are made without a type, and cells they are fitted to
N_STARTS, MOST_FITTED = 4, 5000
#: permutations of sections are enumerated up to this number, and drawn above
MOST_PERMUTATIONS = 20_000


def averaging(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Operator [n_obs, n_obs] whose rows average a cell and its neighbours in ``graph`` (CSR, 1 for every edge)."""
    return row_normalise(sparse.csr_matrix(graph + sparse.identity(graph.shape[0], format="csr")))


def averaged(operator: sparse.csr_matrix, values: Float, times: int) -> Float:
    """``values`` [n_obs, d] averaged over the surroundings, ``times`` over."""
    for _ in range(times):
        values = np.asarray(operator @ values)
    return values


def closed(around: Float) -> Float:
    """Rows [n_obs, n_types] over their sums; where nothing is around, the shares of all rows."""
    total = around.sum(axis=1, keepdims=True)
    mean = around.sum(axis=0) / max(float(around.sum()), 1e-300)
    out = np.broadcast_to(mean, around.shape).copy()
    return np.asarray(np.divide(around, total, out=out, where=total > 1e-12))


def shares(operator: sparse.csr_matrix, membership: Float, times: int) -> Float:
    """Shares of the types around every cell [n_obs, n_types], of sum 1.

    ``membership`` [n_obs, n_types] has rows of sum 1, or 0 for a cell without a label, which counts for nothing.
    """
    return closed(averaged(operator, membership, times))


def independent(operator: sparse.csr_matrix) -> float:
    """How many independent surroundings there are: degrees of freedom of averaging twice (Hastie & Tibshirani 1990)."""
    return float(operator.multiply(operator.T).sum())


def reliable(full: Float, first: Float, second: Float) -> Float:
    """Principal axes [d, r] of surroundings ``full`` [n_obs, d] on which those seen by either half of the cells,
    ``first`` and ``second``, agree; r >= 1.

    Types that are scattered at random make axes too, which the halves do not share.
    """
    with one_thread():
        centred = full - full.mean(axis=0)
        variance, axes = np.linalg.eigh(centred.T @ centred)
        axes, variance = axes[:, ::-1], variance[::-1]
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(len(variance))])
        axes = axes[:, variance > NOTHING * max(float(variance[0]), 1e-300)]
        if not axes.shape[1]:  # nothing varies
            return np.eye(full.shape[1])[:, :1]
        agree = np.array([_correlation(a, b) for a, b in zip((first @ axes).T, (second @ axes).T)])
    kept = np.flatnonzero(agree >= AGREE)
    return np.asarray(axes[:, kept if len(kept) else [0]])


def _correlation(a: Float, b: Float) -> float:
    spread = float(a.std() * b.std())
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 1e-15 else 0.0


# ---------------------------------------------------------------------------------------------- do types go together?


@dataclass(frozen=True)
class Seen:
    """Types around every cell, not yet shares [n_obs, n_types]: as ``all`` cells see them, and two halves of them."""

    all: Float
    first: Float
    second: Float

    def without(self, types: Int, rows: Int) -> tuple[Float, Float, Float]:
        """Shares among the other types, of the cells ``rows``."""
        first, second, whole = (closed(np.delete(v[rows], types, axis=1)) for v in (self.first, self.second, self.all))
        return whole, first, second


def seen(operator: sparse.csr_matrix, membership: Float, rng: np.random.Generator) -> Seen:
    """Averages over the surroundings of all cells and of two random halves."""
    half = rng.random((len(membership), 1)) < 0.5
    return Seen(*(averaged(operator, membership * kept, SCALES[0]) for kept in (np.ones_like(half), half, ~half)))


@dataclass(frozen=True)
class Kind:
    """The type ``number`` that is to be split: the cells ``rows`` around it, of other types, and the ``types`` that are
    asked about; ``reference`` [n_rows, k], what membership of those cells is to be lined up with."""

    number: int
    rows: Int
    types: Int
    reference: Float


@dataclass(frozen=True)
class Together:
    """``pvalue`` [n_types]: a type against the niches made without it (NaN: not tested); ``of_niche`` [n_types, k] the
    same for each niche against the rest; ``effect`` [n_types, k], the correlation with membership."""

    pvalue: Float
    of_niche: Float
    effect: Float


def together(
    xy_um: Float, membership: Float, around: Seen, kind: Kind, *, section: Int, seed: np.random.SeedSequence
) -> Together:
    """Does each type follow the niches made without it, more than patches as smooth would by chance?

    Asked of the cells around the type ``kind``: is a cell of the type, regressed on membership of the niches, with the
    smoothness of the type's own patches estimated beside (``kernels.alongpath``). A cell counts once, for its own label
    alone, so that surroundings that overlap are no repeated evidence. Niches are fitted anew without the type that is
    asked about, which so has no say in where they lie, and without ``kind``: all cells asked are of other types, and
    a niche rich in it would hold fewer of each.
    """
    n_types, k = membership.shape[1], kind.reference.shape[1]
    made = Together(np.full(n_types, np.nan), np.full((n_types, k), np.nan), np.zeros((n_types, k)))
    folds = _folds(np.setdiff1d(np.flatnonzero(membership.any(axis=0)), [kind.number]), kind.types)
    if not folds:
        return made
    columns: list[Float] = []
    for fold, child in zip(folds, seed.spawn(len(folds))):
        prob = _left_out(around, np.append(fold, kind.number), kind, child)
        columns += [prob[:, 1:].T, *prob.T]
    labels = membership[kind.rows][:, kind.types].T
    labels = labels - labels.mean(axis=1, keepdims=True)
    found = alongpath.test(
        xy_um[kind.rows], lambda rows: labels[rows], len(labels), columns, section=section[kind.rows]
    )
    for f, fold in enumerate(folds):
        at = np.flatnonzero(np.isin(kind.types, fold))
        here, own = f * (k + 1), kind.types[at]
        made.pvalue[own] = found.pvalue[here, at]
        made.of_niche[own] = found.pvalue[here + 1 : here + 1 + k, at].T
        made.effect[own] = found.effect[here + 1 : here + 1 + k, at].T
    return made


def _folds(others: Int, asked: Int) -> list[Int]:
    """Sets of the ``others`` that are left out in turn, those with types ``asked`` about; two types or more stay."""
    n_folds = len(others) if len(others) <= FEW_TYPES else N_FOLDS
    folds = [others[f::n_folds] for f in range(n_folds)]
    return [fold for fold in folds if np.isin(fold, asked).any() and len(others) - len(fold) >= 2]


def _left_out(around: Seen, types: Int, kind: Kind, seed: np.random.SeedSequence) -> Float:
    """Membership [n_rows, k] in niches made without ``types``."""
    sample_seed, fit_seed = seed.spawn(2)
    whole, first, second = around.without(types, kind.rows)
    kept = reliable(whole, first, second)
    with one_thread():
        x = whole @ kept
    some = np.arange(len(x))
    if len(x) > MOST_FITTED:
        some = np.sort(np.random.default_rng(sample_seed).choice(len(x), MOST_FITTED, replace=False))
    k = kind.reference.shape[1]
    prob = mixture.fit(x[some], k, seed=fit_seed, n_starts=N_STARTS)[0].predict_proba(x)
    return consensus.aligned(kind.reference, prob)


def combined(pvalue: Float) -> float:
    """One p of several, however they depend on one another (Benjamini & Yekutieli 2001); NaN without any.

    Cauchy's combination called 8 to 11 % of simulated nulls at .05: p of niches made from nearly the same types are
    not independent.
    """
    known = pvalue[np.isfinite(pvalue)]
    return float(stats.false_discovery_control(known, method="by").min()) if len(known) else float("nan")


# ------------------------------------------------------------------------------------------------ groups of sections


@dataclass(frozen=True)
class Compared:
    """By part: ``difference`` of mean log-ratios, second group less first, with the bounds of its 95 % interval
    ``low`` and ``high``, and ``pvalue``; NaN where sections are too few."""

    difference: Float
    low: Float
    high: Float
    pvalue: Float


def log_ratios(number: Float) -> Float:
    """Centred log-ratios [n_sections, n_parts] of numbers of cells: logarithms of numbers + .5, less the median over
    the parts of a section.

    The median, for one part that grows must not make all others shrink (Aitchison 1986 takes the mean).
    """
    logged = np.log(number + 0.5)
    return np.asarray(logged - np.median(logged, axis=1, keepdims=True))


def compared(ratio: Float, second: Bool, *, permute: bool, seed: int) -> Compared:
    """Two groups of sections, ``ratio`` [n_sections, n_parts] and ``second`` bool [n_sections]; a section counts once.

    Welch's t, or with ``permute`` the share of all ways to part the sections whose Welch t is at least as large.
    """
    n_parts = ratio.shape[1]
    if min(int(second.sum()), int((~second).sum())) < 2:
        nothing = np.full(n_parts, np.nan)
        means = [ratio[g].mean(axis=0) if g.any() else nothing for g in (second, ~second)]
        return Compared(means[0] - means[1], nothing, nothing, nothing)
    difference, error, freedom = _welch(ratio, second)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(error > 0, difference / error, np.where(difference == 0, 0.0, np.inf))
    reach = stats.t.ppf(0.975, freedom) * error
    pvalue = 2 * special.stdtr(freedom, -np.abs(t))
    if permute:
        pvalue = _permuted(ratio, second, np.abs(t), seed)
    return Compared(difference, difference - reach, difference + reach, pvalue)


def _welch(ratio: Float, second: Bool) -> tuple[Float, Float, Float]:
    """(difference of means, its standard error, degrees of freedom)."""
    a, b = ratio[second], ratio[~second]
    va, vb = a.var(axis=0, ddof=1) / len(a), b.var(axis=0, ddof=1) / len(b)
    spread = va**2 / (len(a) - 1) + vb**2 / (len(b) - 1)
    freedom = np.divide((va + vb) ** 2, spread, out=np.ones_like(va), where=spread > 1e-300)
    return a.mean(axis=0) - b.mean(axis=0), np.sqrt(va + vb), freedom


def least_pvalue(n_first: int, n_second: int) -> float:
    """The smallest p that permuting sections can give: both halves of an even parting say the same."""
    ways = comb(n_first + n_second, n_first)
    return (2 if n_first == n_second else 1) / ways


def _permuted(ratio: Float, second: Bool, t: Float, seed: int) -> Float:
    n, size = len(second), int(second.sum())
    if comb(n, size) <= MOST_PERMUTATIONS:
        ways, added = [np.array(w) for w in combinations(range(n), size)], 0
    else:
        rng = np.random.default_rng(seed)
        ways, added = [rng.permutation(n)[:size] for _ in range(MOST_PERMUTATIONS - 1)], 1
    above = np.full(ratio.shape[1], float(added))
    for way in ways:
        difference, error, _ = _welch(ratio, np.isin(np.arange(n), way))
        at = np.divide(np.abs(difference), error, out=np.where(difference == 0, 0.0, np.inf), where=error > 0)
        above += at >= t * (1 - 1e-9)
    return np.asarray(above / (len(ways) + added))
