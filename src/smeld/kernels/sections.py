"""Several sections in one embedding: what sets sections apart, but not the groups within them, is taken out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smeld.kernels import mixture
from smeld.kernels.mixture import Mixture

Float = NDArray[np.float64]

#: groups that stand for what a section holds; it need not be the number of domains
N_GROUPS = 10
#: spots of a section on which shifts are compared, shifts that are refined, and rounds of each
N_COMPARED, N_REFINED, N_ROUGH, N_FINE = 1000, 5, 5, 30
#: log likelihood a spot by which a shift must beat that of the means: where groups hardly stand apart, chance decides
CLEARLY = 0.5
#: rounds in which shifts and groups settle; they end when no shift moves by more than this share of an sd
N_ROUNDS, TOLERANCE = 10, 1e-3


def offsets(x: Float, section: NDArray[np.integer], *, seed: np.random.SeedSequence) -> Float:
    """Shift of each section in the embedding ``x`` [n_obs, d], float64 [n_sections, d].

    The model is x_i = mean of i's group + offset of i's section + noise, the groups' shares free in every section:
    plain centring would take away what differs because one section holds more of a group. A mixture with one shared
    covariance (``kernels.mixture``) is fitted to the largest section; every other section gets the shift under which
    that mixture, its weights fitted anew, makes the section most likely. Looked at are no shift, that of the means,
    and those that bring any group of the section upon any of the largest one; the best are refined by expectation
    maximisation. Where none is clearly better than the shift of the means, groups hardly stand apart: shifts and a
    mixture of all sections are then fitted in turn. Groups that the largest section lacks are taken for near ones.
    Subtracting the offsets leaves the mean over all spots where it was.
    """
    n_sections = int(section.max()) + 1
    size = np.bincount(section, minlength=n_sections)
    # of equals the one further along the axes: neither the order of the spots nor the names of sections decide
    far = [float(x[section == s].sum()) for s in range(n_sections)]
    largest = max(range(n_sections), key=lambda s: (size[s], far[s]))
    state = seed.generate_state(4).tolist()  # the same draws for every section, whatever its number
    model = _groups(x[section == largest], np.random.SeedSequence(state))
    mean = x[section == largest].mean(axis=0)
    total, clear = np.zeros((n_sections, x.shape[1])), False
    for s in range(n_sections):
        if s != largest and size[s] > 0:
            total[s], sure = _shift(x[section == s], model, mean, np.random.SeedSequence(state))
            clear = clear or sure
    if not clear:
        total = _settled(x, section, total, np.random.SeedSequence(state))
    return np.asarray(total - (size[:, None] / len(x) * total).sum(axis=0))


def _settled(x: Float, section: NDArray[np.integer], total: Float, seed: np.random.SeedSequence) -> Float:
    """Shifts and a mixture of all sections fitted in turn, from ``total`` on."""
    size = np.maximum(np.bincount(section, minlength=len(total)), 1)[:, None].astype(np.float64)
    scale = np.maximum(x.std(axis=0), 1e-12)
    for child in seed.spawn(N_ROUNDS):
        shifted = x - total[section]
        model = mixture.fit(shifted, min(N_GROUPS, max(2, len(x) // 30)), seed=child, n_starts=3)[0]
        unexplained = shifted - model.predict_proba(shifted) @ model.means
        step = np.zeros_like(total)
        np.add.at(step, section, unexplained)
        total = total + step / size
        if (np.abs(step / size) / scale).max() < TOLERANCE:
            break
    return total


def _groups(x: Float, seed: np.random.SeedSequence) -> Mixture:
    k = min(N_GROUPS, max(1, len(x) // 30))
    return mixture.fit(x, k, seed=seed, n_starts=5)[0]


def _shift(x: Float, model: Mixture, mean: Float, seed: np.random.SeedSequence) -> tuple[Float, bool]:
    """(shift, whether it is clearly better than that of the means)."""
    seed_sample, seed_groups = seed.spawn(2)
    rows = np.arange(len(x))
    if len(x) > N_COMPARED:
        rows = np.sort(np.random.default_rng(seed_sample).choice(len(x), N_COMPARED, replace=False))
    own = _groups(x, seed_groups).means
    upon = (own[:, None] - model.means[None]).reshape(-1, x.shape[1])
    candidates = np.vstack([np.zeros_like(mean), x.mean(axis=0) - mean, upon])
    rough = [_likelihood(x[rows], model, c, rounds=N_ROUGH, move=False)[0] for c in candidates]
    best = np.argsort(-np.asarray(rough), kind="stable")[:N_REFINED]
    fine = [_likelihood(x, model, candidates[i], rounds=N_FINE, move=True) for i in best]
    value, shift = max(fine, key=lambda f: f[0])
    clear = value > rough[1] + CLEARLY
    return (shift, True) if clear else (candidates[1], False)


def _likelihood(x: Float, model: Mixture, shift: Float, *, rounds: int, move: bool) -> tuple[float, Float]:
    """(mean log likelihood, shift) of the shifted section, the groups' weights (and the shift, to ``move`` it) fitted
    and their means and covariance held."""
    fitted, value = model, -np.inf
    for _ in range(rounds):
        log_prob = fitted.log_prob(x - shift)
        top = log_prob.max(axis=1, keepdims=True)
        p = np.exp(log_prob - top)
        sums = p.sum(axis=1, keepdims=True)
        value = float((top + np.log(sums)).mean())
        p /= sums
        fitted = replace(fitted, weights=p.mean(axis=0))
        if move:
            shift = x.mean(axis=0) - p.mean(axis=0) @ model.means
    return value, shift
