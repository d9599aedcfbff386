"""Cells of types that a reference lacks: a profile that the section itself gives, held against cells of known types.

One more type, its profile free, is added to the known ones and fitted to the section. Any section has cells that such
a profile fits better by chance or because a known type varies; so replicas of reference cells, known to be of known
types, say how often. What the section has beyond that are cells of an unknown type.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit, logsumexp

from smeld.kernels import labeltransfer as model

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: steps of the first fit from every start, and of the last
N_FIRST, N_LAST = 5, 20
#: cells that a free profile is fitted to
MOST_CELLS = 3000
#: share of a type's cells, worst fitted, that a profile is begun from
WORST = 0.3
#: an unknown type must have this share of the cells, this many standard errors beyond what known types show, and be
#: more than this share of the cells where it is most
LEAST_SHARE, LEAST_Z, LEAST_PURITY = 0.008, 3.0, 0.4
MOST_UNKNOWN = 3
#: cells drawn from a free profile, to know how far such cells lie from known types
N_DRAWN = 1000


@dataclass(frozen=True)
class Cells:
    """Counts of cells with what known types say of them: ``known`` [n], log of the mixture's tempered likelihood."""

    counts: sparse.csr_matrix
    size: Float
    log_lik: Float
    known: Float
    weight: Float


@dataclass(frozen=True)
class Known:
    """Known types in the section: ``rate`` and ``wide`` (dispersion) [n_types, n_genes], ``phi`` [n_genes] of a free
    profile, the types' ``share`` [n_types], and ``temper``, the factor that makes log-likelihoods calibrated."""

    rate: Float
    wide: Float
    phi: Float
    share: Float
    temper: float


@dataclass(frozen=True)
class Unknown:
    """``rate`` [n_free, n_genes] of the free profiles; ``prob`` [n_obs] of being of an unknown type; whether that is
    ``possible`` [n_obs] (the level's share of cells of the free profiles look so); ``share`` of unknown cells."""

    rate: Float
    prob: Float
    possible: NDArray[np.bool_]
    share: float


def cells(counts: sparse.csr_matrix, log_lik: Float, share: Float, temper: float, weight: Float) -> Cells:
    """What is needed of a table of counts; ``log_lik`` [n, n_types], ``temper`` their factor."""
    known = logsumexp(temper * log_lik + np.log(share), axis=1)
    return Cells(counts, model.totals(counts), log_lik, known, weight)


def find(section: Cells, replicas: Cells, model_of_known: Known, level: float, rng: np.random.Generator) -> Unknown:
    """Free profiles that the section needs beside the known ones, one after the other."""
    n = len(section.size)
    found = np.zeros((0, model_of_known.rate.shape[1]))
    odds, null = np.full(n, -np.inf), np.full(len(replicas.size), -np.inf)
    reached = 0.0
    for _ in range(MOST_UNKNOWN):
        best = _best(section, replicas, model_of_known, (odds, null))
        if best is None or best[0] < reached + LEAST_SHARE:
            break
        reached, profile, odds, null = best
        found = np.vstack([found, profile])
    if not len(found):
        return Unknown(found, np.zeros(n), np.zeros(n, dtype=bool), 0.0)
    drawn = np.concatenate([_drawn(section.size, profile, found, model_of_known, rng) for profile in found])
    prob, share = _probability(odds, null, replicas.weight, drawn)
    return Unknown(found, prob, odds >= np.quantile(drawn, 1 - level), share)


def _drawn(size: Float, profile: Float, found: Float, known: Known, rng: np.random.Generator) -> Float:
    """Log odds of cells drawn from a free profile, at the section's depths."""
    mean = size[rng.integers(0, len(size), N_DRAWN)][:, None] * profile
    drawn = sparse.csr_matrix(rng.poisson(mean * rng.gamma(1 / known.phi, size=mean.shape) * known.phi))
    log_lik = model.log_likelihood(drawn, model.totals(drawn), known.rate, known.wide)
    made = cells(drawn, log_lik, known.share, known.temper, np.ones(N_DRAWN))
    return np.asarray(np.max([_log_odds(made, f, known.phi, known.temper) for f in found], axis=0))


def _best(
    section: Cells, replicas: Cells, known: Known, before: tuple[Float, Float]
) -> tuple[float, Float, Float, Float] | None:
    """(share beyond known types, profile, log odds of unknown in the section and in the replicas) of the best start."""
    rate, phi, temper = known.rate, known.phi, known.temper
    some = np.unique(np.linspace(0, len(section.size) - 1, MOST_CELLS).astype(int))
    part = Cells(section.counts[some], section.size[some], section.log_lik[some], section.known[some], section.weight)
    part_before = before[0][some]
    tried = []
    for start in _starts(part, temper):
        profile = _fitted(part, start, rate, phi, temper, part_before, N_FIRST)
        odds = _odds(part, replicas, profile, phi, temper, (part_before, before[1]))
        tried.append((_excess(*odds, replicas.weight)[1], profile))
    tried.sort(key=lambda t: -t[0])
    best = None
    for _, profile in tried[:3]:
        member = expit(_log_odds(part, profile, phi, temper))
        profile = _fitted(part, member, rate, phi, temper, part_before, N_LAST)
        odds = _odds(section, replicas, profile, phi, temper, before)
        excess, z, purity = _excess(*odds, replicas.weight)
        if z > LEAST_Z and purity > LEAST_PURITY and excess > LEAST_SHARE and (best is None or excess > best[0]):
            best = (excess, profile, *odds)
    return best


def _starts(part: Cells, temper: float) -> list[Float]:
    """Memberships to begin from: cells that known types fit worst for their size, over all and within each type."""
    fit = part.known / temper - part.log_lik.mean(axis=1)
    own = part.log_lik.argmax(axis=1)
    starts = [(fit <= np.quantile(fit, WORST / 2)).astype(float)]
    for k in range(part.log_lik.shape[1]):
        mine = own == k
        if mine.sum() >= 20:
            starts.append((mine & (fit <= np.quantile(fit[mine], WORST))).astype(float))
    return starts


def _log_odds(part: Cells, profile: Float, phi: Float, temper: float) -> Float:
    free = model.log_likelihood(part.counts, part.size, profile[None], phi[None])[:, 0]
    return np.asarray(temper * free - part.known)


def _odds(
    section: Cells, replicas: Cells, profile: Float, phi: Float, temper: float, before: tuple[Float, Float]
) -> tuple[Float, Float]:
    return (
        np.maximum(_log_odds(section, profile, phi, temper), before[0]),
        np.maximum(_log_odds(replicas, profile, phi, temper), before[1]),
    )


def _fitted(part: Cells, member: Float, rate: Float, phi: Float, temper: float, before: Float, n_steps: int) -> Float:
    """The free profile after some steps of expectation and maximisation from a membership."""
    centre, square = rate.mean(axis=0), model.squares(part.counts)
    profile = centre
    for _ in range(n_steps):
        s = model.sums(part.counts, member[:, None], part.size, square)
        z = np.log((s.counts[0, 0] + 0.5) / (s.size[0] * centre + 0.5))
        variance = 1 / (s.counts[0, 0] + 0.5) + phi * s.square_size[0] / max(s.size[0], 1.0) ** 2
        profile = centre * np.exp(model.shrink(z - np.median(z), variance)[0])
        profile /= profile.sum()
        share = np.clip(member.mean(), 1e-3, 0.5)
        odds = _log_odds(part, profile, phi, temper)
        member = expit(odds + np.log(share / (1 - share))) * (odds >= before)
        if member.sum() < 5:
            break
    return np.asarray(profile)


def _excess(odds: Float, null: Float, weight: Float) -> tuple[float, float, float]:
    """(share of the section beyond the null, its standard errors, purity of what lies there) at the clearest cut."""
    cuts = np.quantile(odds, np.linspace(0.3, 0.995, 60))
    seen = np.array([(odds >= c).mean() for c in cuts])
    whole = weight.sum()
    expected = np.array([weight[null >= c].sum() / whole for c in cuts])
    effective = whole**2 / (weight**2).sum()
    error = np.sqrt(seen * (1 - seen) / len(odds) + (expected * (1 - expected) + 1 / effective) / effective)
    z = (seen - expected) / error
    at = int(z.argmax())
    return float(seen[at] - expected[at]), float(z[at]), float((seen[at] - expected[at]) / seen[at])


def _probability(odds: Float, null: Float, weight: Float, alternative: Float) -> tuple[Float, float]:
    """(P(unknown | odds) [n_obs], share of unknown cells): the odds of replicas and those of cells drawn from the free
    profiles give the ratio of densities (a logistic curve); the share is the one under which the section is
    likeliest."""
    x = np.concatenate([null, alternative])
    y = np.concatenate([np.zeros(len(null)), np.ones(len(alternative))])
    w = np.concatenate([weight / weight.sum(), np.full(len(alternative), 1 / len(alternative))])
    slope, offset = _logistic(x, y, w)
    ratio = slope * odds + offset
    share = 0.1
    for _ in range(200):
        prob = expit(ratio + np.log(share / (1 - share)))
        moved = float(np.clip(prob.mean(), 1e-4, 0.9))
        if abs(moved - share) < 1e-6:
            break
        share = moved
    return np.asarray(prob), share


def _logistic(x: Float, y: Float, weight: Float) -> tuple[float, float]:
    """Slope and offset of a weighted logistic curve, by Newton's steps; a little ridge keeps it finite."""
    scale = max(float(x.std()), 1e-9)
    design = np.column_stack([x / scale, np.ones(len(x))])
    beta = np.zeros(2)
    for _ in range(50):
        p = expit(design @ beta)
        slope = design.T @ (weight * (y - p)) - 1e-4 * beta
        curve = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-4 * np.eye(2)
        step = np.clip(np.linalg.solve(curve, slope), -2, 2)
        beta += step
        if np.abs(step).max() < 1e-6:
            break
    return float(beta[0] / scale), float(beta[1])
