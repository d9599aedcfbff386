"""Labels for a section's cells from a labelled reference: the parts of ``label*`` put together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import labelprior, labelsets, labelunknown
from smeld.kernels import labeltransfer as model

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: cells that the platform's effect is fitted to
MOST_FITTED = 6_000
#: places that each replica is put in to learn what surroundings are worth
N_PLACED = 4
#: genes that are looked at: those that tell types apart best
MOST_GENES = 2000


@dataclass(frozen=True)
class Places:
    """The section in space: edge ``weights``, spatial ``block`` of every cell, and whether surroundings count
    whatever the evidence says."""

    weights: sparse.csr_matrix
    block: Int
    force: bool


@dataclass(frozen=True)
class Labels:
    """``prob`` and ``sets`` [n_obs, n_types + 1], the last column for types that the reference lacks; ``facts``."""

    prob: Float
    sets: NDArray[np.bool_]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Cells of known types as the section would have measured them: ``label`` [n], ``scores`` [n, n_types] and
    ``depth`` [n]."""

    label: Int
    scores: Float
    depth: Float


@dataclass(frozen=True)
class _Reference:
    """Labelled cells with what is learnt from them once: whole, and with one fold left out."""

    counts: sparse.csr_matrix
    label: Int
    fold: Int
    known: model.Profiles
    without: list[model.Profiles]
    accuracy: float
    start: labelsets.Discriminant
    factor: Float


@dataclass(frozen=True)
class _Section:
    counts: sparse.csr_matrix
    size: Float
    logged: sparse.csr_matrix
    target: float


@dataclass(frozen=True)
class _Replicas:
    """Replicas with their scores by models that have not seen their cells."""

    counts: sparse.csr_matrix
    label: Int
    place: Int
    likelihood: Float
    linear: Float


def informative(reference: sparse.csr_matrix, label: Int, n_types: int, section: sparse.csr_matrix) -> Int:
    """Numbers of at most ``MOST_GENES`` genes that tell types apart best at the section's depth, ascending."""
    if section.shape[1] <= MOST_GENES:
        return np.arange(section.shape[1])
    rate = model.profiles(reference, label, n_types).rate
    spread = np.log(rate).std(axis=0)
    seen = np.asarray(section.sum(axis=0, dtype=np.float64)).ravel() / section.shape[0]
    worth = spread**2 * seen / (1 + model.PHI * seen)
    return np.sort(np.argsort(-worth, kind="stable")[:MOST_GENES])


def transfer(
    section: sparse.csr_matrix,
    reference: sparse.csr_matrix,
    label: Int,
    n_types: int,
    *,
    places: Places | None,
    level: float,
    unknown: bool,
    seed: int,
) -> Labels:
    """Labels, probabilities and sets for a section's cells, CSR [n_obs, n_genes], from labelled cells of the same
    genes."""
    rng = np.random.default_rng(seed)
    target = float(np.median(np.maximum(model.totals(section), 1.0)))
    logged = labelsets.normalised(section, target)
    here = _Section(section, model.totals(section), logged, target)
    known = _learn(reference, label, n_types, target, rng)
    fitted, member, share = _begin(here, known)
    there = _platform(here, known, fitted.shift, member)
    made = _replicate(here, known, there, member, share, rng)
    weight = balanced(made.label, share)
    factor = labelsets.weigh(made.likelihood, made.linear, made.label, np.log(share), weight)
    likelihood = model.log_likelihood(section, here.size, there.rate, there.phi + known.known.variance)
    linear = labelsets.discriminant(labelsets.normalised(made.counts, target), made.label, n_types, weight)
    scores = factor[0] * likelihood + factor[1] * linear.scores(logged)
    member, share = _settle(scores, share)
    theirs = Scored(made.label, factor[0] * made.likelihood + factor[1] * made.linear, model.totals(made.counts))
    prob, least, nearby = calibrated(scores, share, here.size, theirs, places, level, rng)
    weight = balanced(made.label, prob.mean(axis=0))
    found = _unknown(here, made, there, known, likelihood, (share, weight, level), rng) if unknown else None
    facts = _facts(known, there, fitted, factor, nearby, found)
    return _assembled(prob, least, found, facts)


def _learn(counts: sparse.csr_matrix, label: Int, n_types: int, target: float, rng: np.random.Generator) -> _Reference:
    fold = labelsets.folds(label, n_types, rng)
    known = model.profiles(counts, label, n_types)
    without = [model.profiles(counts[fold != f], label[fold != f], n_types) for f in range(labelsets.N_FOLDS)]
    rows = labelsets.chosen(label, n_types, rng)
    rows = np.unique(rows)
    part, own, size = counts[rows], label[rows], model.totals(counts[rows])
    logged, share = labelsets.normalised(part, target), np.bincount(label, minlength=n_types) / len(label)
    first, second, weight = np.empty((len(rows), n_types)), np.empty((len(rows), n_types)), balanced(own, share)
    for f in range(labelsets.N_FOLDS):
        out = fold[rows] == f
        wide = without[f].phi + without[f].variance
        first[out] = model.log_likelihood(part[out], size[out], without[f].rate, wide)
        second[out] = labelsets.discriminant(logged[~out], own[~out], n_types, weight[~out]).scores(logged[out])
    factor = labelsets.weigh(first, second, own, np.log(share), weight)
    prob = model.posterior(factor[0] * first + factor[1] * second, np.log(share))
    accuracy = float(np.average(prob.argmax(axis=1) == own, weights=weight))
    start = labelsets.discriminant(logged, own, n_types, weight)
    return _Reference(counts, label, fold, known, without, accuracy, start, factor)


def balanced(label: Int, share: Float) -> Float:
    """Weights under which types have the section's shares, mean about 1."""
    return np.asarray((share / np.maximum(np.bincount(label, minlength=len(share)), 1))[label] * len(label))


def _begin(here: _Section, known: _Reference) -> tuple[model.Fit, Float, Float]:
    rows = np.unique(np.linspace(0, len(here.size) - 1, MOST_FITTED).astype(int))
    fitted = model.fit(here.counts[rows], known.known)
    likelihood = model.log_likelihood(here.counts, here.size, fitted.rate, fitted.phi)
    a, b = known.factor
    n_types = len(fitted.share)
    return fitted, *_settle(a * likelihood + b * known.start.scores(here.logged), np.full(n_types, 1 / n_types))


def _settle(scores: Float, share: Float) -> tuple[Float, Float]:
    """(membership, shares) where shares are those of the membership."""
    for _ in range(30):
        member = model.posterior(scores, np.log(share))
        moved = (member.sum(axis=0) + 1.0) / (len(scores) + len(share))
        if np.abs(moved - share).max() < 1e-3:
            break
        share = 0.3 * share + 0.7 * moved
    return member, share


def _platform(here: _Section, known: _Reference, shift: Float, member: Float) -> labelsets.Platform:
    """The section's profiles, given soft labels; and how much types differ in their genes' factors."""
    s = model.sums(here.counts, member, here.size, model.squares(here.counts))
    total = np.asarray(here.counts.sum(axis=0, dtype=np.float64)).ravel()
    shift, error = model.gene_shift(known.known.rate, shift, s, total, known.known.phi)
    rate = model.shifted(known.known.rate, shift)
    phi = model.dispersion(s, rate)
    expected = s.size[:, None] * rate
    noise = 1 / (expected + 0.5) + phi * (s.square_size / np.maximum(s.size, 1.0) ** 2)[:, None]
    noise = noise + known.known.variance
    squared = np.minimum(np.log((s.counts[0] + 0.5) / (expected + 0.5)) ** 2, 1.0)
    clear = (expected > 20) & (s.size[:, None] > 0.01 * s.size.sum())
    weight = clear / (noise + 0.02) ** 2
    unlike = float((weight * (squared - noise)).sum() / max(float(weight.sum()), 1e-12))
    return labelsets.Platform(rate, phi, error, float(np.sqrt(max(unlike, 0.0))))


def _replicate(
    here: _Section, known: _Reference, there: labelsets.Platform, member: Float, share: Float, rng: np.random.Generator
) -> _Replicas:
    n_types = len(share)
    rows = labelsets.chosen(known.label, n_types, rng)
    own, depth = known.label[rows], model.totals(known.counts[rows])
    place = labelsets.places(member, own, depth, here.size, rng)
    made = np.zeros((len(rows), known.counts.shape[1]), dtype=np.float32)
    for f in range(labelsets.N_FOLDS):
        for half in (0, 1):  # what types differ in is drawn anew for each
            part = np.flatnonzero(known.fold[rows] == f)[half::2]
            if len(part):
                dense = known.counts[rows[part]].toarray().astype(np.float64)
                made[part] = labelsets.replicas(dense, own[part], here.size[place[part]], known.known, there, rng)
    some = made.sum(axis=1) > 0
    counts, own, place, fold = sparse.csr_matrix(made[some]), own[some], place[some], known.fold[rows[some]]
    likelihood, linear = _scored(counts, own, fold, known, there, here.target, share)
    return _Replicas(counts, own, place, likelihood, linear)


def _scored(
    counts: sparse.csr_matrix,
    label: Int,
    fold: Int,
    known: _Reference,
    there: labelsets.Platform,
    target: float,
    share: Float,
) -> tuple[Float, Float]:
    n_types, size, weight = len(share), model.totals(counts), balanced(label, share)
    logged = labelsets.normalised(counts, target)
    shift = np.log(there.rate[0] / known.known.rate[0])  # but for a constant, the same for all types
    first, second = np.empty((len(label), n_types)), np.empty((len(label), n_types))
    for f in range(labelsets.N_FOLDS):
        out, other = fold == f, known.without[f]
        if out.any():
            rate = model.shifted(other.rate, shift)
            first[out] = model.log_likelihood(counts[out], size[out], rate, there.phi + other.variance)
            learnt = labelsets.discriminant(logged[~out], label[~out], n_types, weight[~out])
            second[out] = learnt.scores(logged[out])
    return first, second


def calibrated(
    scores: Float,
    share: Float,
    size: Float,
    theirs: Scored,
    places: Places | None,
    level: float,
    rng: np.random.Generator,
) -> tuple[Float, Float, labelprior.Surroundings]:
    """(probabilities of types, thresholds of the sets, what surroundings say) of a section's cells.

    Surroundings are a prior if they predict the cells' counts, if replicas in the same places gain as much from them
    (see :mod:`smeld.kernels.labelprior`), and if the replicas' sets become smaller. Sets are then calibrated on
    replicas that have surroundings.
    """
    flat, rng = np.log(share)[None], rng.spawn(1)[0]
    plain = model.posterior(scores, flat)
    weight, stated = balanced(theirs.label, plain.mean(axis=0)), model.posterior(theirs.scores, flat)
    least = labelsets.thresholds(stated, theirs.label, weight, level)
    none = labelprior.Surroundings(flat, 0.0, 0.0, False, 0.0)
    if places is None:
        return plain, least, none
    near = labelprior.surroundings(scores, share, places.weights, places.block, force=places.force)
    if not near.used:
        return plain, least, near
    prob = model.posterior(scores, near.log_prior)
    place = [labelsets.places(prob, theirs.label, theirs.depth, size, rng) for _ in range(N_PLACED)]
    label, there, at = np.tile(theirs.label, N_PLACED), np.tile(theirs.scores, (N_PLACED, 1)), np.concatenate(place)
    own = balanced(label, prob.mean(axis=0))
    excess, error = labelprior.excess((scores, flat), there, near.log_prior, at, own, places.block)
    with_prior = model.posterior(there, near.log_prior[at])
    moved = labelsets.thresholds(with_prior, label, own, level)
    smaller = _mean_size(with_prior, moved, own) < _mean_size(stated, least, weight)
    near = replace(near, excess=excess, excess_error=error)
    if places.force or (smaller and excess <= labelprior.MOST_EXCESS * error):
        return prob, moved, near
    return plain, least, replace(near, used=False, log_prior=flat)


def _mean_size(prob: Float, least: Float, weight: Float) -> float:
    return float(np.average(labelsets.sets(prob, least).sum(axis=1), weights=weight))


def _unknown(
    here: _Section,
    made: _Replicas,
    there: labelsets.Platform,
    known: _Reference,
    likelihood: Float,
    settings: tuple[Float, Float, float],
    rng: np.random.Generator,
) -> labelunknown.Unknown:
    share, weight, level = settings
    nothing = np.zeros_like(made.likelihood)
    temper = float(labelsets.weigh(made.likelihood, nothing, made.label, np.log(share), weight)[0])
    temper = max(temper, 0.01)
    theirs = labelunknown.cells(made.counts, made.likelihood, share, temper, weight)
    ours = labelunknown.cells(here.counts, likelihood, share, temper, np.ones(len(here.size)))
    phi = there.phi + known.known.variance.mean(axis=0)
    types = labelunknown.Known(there.rate, there.phi + known.known.variance, phi, share, temper)
    return labelunknown.find(ours, theirs, types, level, rng)


def _assembled(prob: Float, least: Float, found: labelunknown.Unknown | None, facts: dict[str, Any]) -> Labels:
    """Probabilities and sets with one more column, for types that the reference lacks."""
    other = np.zeros(len(prob)) if found is None else found.prob
    possible = np.zeros(len(prob), dtype=bool) if found is None else found.possible
    stated = np.column_stack([prob * (1 - other)[:, None], other])
    return Labels(stated, np.column_stack([labelsets.sets(prob, least), possible]), facts)


def _facts(
    known: _Reference,
    there: labelsets.Platform,
    fitted: model.Fit,
    factor: Float,
    nearby: labelprior.Surroundings,
    found: labelunknown.Unknown | None,
) -> dict[str, Any]:
    return {
        "reference_accuracy": known.accuracy,
        "platform_sd": float(np.std(np.log(there.rate[0] / known.known.rate[0]))),
        "types_unlike": there.unlike,
        "weight_likelihood": float(factor[0]),
        "weight_linear": float(factor[1]),
        **of_surroundings(nearby),
        "share_unknown": 0.0 if found is None else found.share,
    }


def of_surroundings(nearby: labelprior.Surroundings) -> dict[str, Any]:
    return {
        "spatial": nearby.used,
        "spatial_gain": nearby.gain,
        "spatial_gain_error": nearby.error,
        "spatial_excess": nearby.excess,
        "spatial_excess_error": nearby.excess_error,
        "spatial_alpha": nearby.alpha,
    }
