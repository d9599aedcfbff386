"""Labels from lists of marker genes: a type's markers are raised in its cells, by how much the section itself says.

A cell i of type k has counts of mean size_i b_g, times exp(f_kg) for the markers of k; b and f come from the section by
expectation and maximisation (as CellAssign does: Zhang et al. 2019). One more type has no markers: such cells are
"unknown". Without labelled cells calibration rests on the model alone: probabilities and sets hold for cells drawn
from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import celltypes, labelsets
from smeld.kernels import labeltransfer as model

Float = NDArray[np.float64]

#: log factor by which a marker is raised before the data speak, what that is worth in counts, and its limits
RAISED, RAISED_WEIGHT = np.log(4.0), 2.0
LEAST_RAISED, MOST_RAISED = np.log(1.5), np.log(200.0)
N_STEPS = 60


@dataclass(frozen=True)
class _Fit:
    rate: Float
    phi: Float
    share: Float
    scores: Float


def transfer(
    counts: sparse.csr_matrix,
    table: NDArray[np.bool_],
    *,
    places: celltypes.Places | None,
    level: float,
    unknown: bool,
    seed: int,
) -> celltypes.Labels:
    """Labels of cells, CSR [n_obs, n_genes], from markers ``table`` bool [n_types, n_genes]."""
    rng = np.random.default_rng(seed)
    genes = np.flatnonzero(table.any(axis=0))
    size = np.maximum(model.totals(counts), 1.0)
    marked = np.vstack([table[:, genes], np.zeros((1, len(genes)), dtype=bool)] if unknown else [table[:, genes]])
    fitted = _fit(sparse.csr_matrix(counts[:, genes]), size, marked)
    prob = model.posterior(fitted.scores, np.log(fitted.share)[None])
    n_types = len(marked)
    label = np.repeat(np.arange(n_types), labelsets.MOST_OF_TYPE)
    place = labelsets.places(prob, label, np.zeros(len(label)), size, rng)
    mean = size[place][:, None] * fitted.rate[label]
    drawn = sparse.csr_matrix(rng.poisson(mean * rng.gamma(1 / fitted.phi, size=mean.shape) * fitted.phi))
    scores = model.log_likelihood(drawn, size[place], fitted.rate, np.tile(fitted.phi, (n_types, 1)))
    theirs = celltypes.Scored(label, scores, size[place])
    prob, least, nearby = celltypes.calibrated(fitted.scores, fitted.share, size, theirs, places, level, rng)
    member = labelsets.sets(prob, least)
    if not unknown:
        prob, member = (
            np.column_stack([prob, np.zeros(len(prob))]),
            np.column_stack([member, np.zeros(len(prob), bool)]),
        )
    facts = {
        **celltypes.of_surroundings(nearby),
        "share_unknown": float(fitted.share[-1]) if unknown else 0.0,
    }
    return celltypes.Labels(prob, member, facts)


def _fit(counts: sparse.csr_matrix, size: Float, marked: NDArray[np.bool_]) -> _Fit:
    n_types = len(marked)
    square, total = model.squares(counts), np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    overall = (total + 0.5) / size.sum()
    share = np.full(n_types, 1 / n_types)
    base = overall / (share @ np.where(marked, np.exp(RAISED), 1.0))
    raised, phi = np.where(marked, RAISED, 0.0), np.full(len(base), model.PHI)
    for _ in range(N_STEPS):
        rate = base * np.exp(raised)
        scores = model.log_likelihood(counts, size, rate, np.tile(phi, (n_types, 1)))
        member = model.posterior(scores, np.log(share))
        moved = (member.sum(axis=0) + 1.0) / (len(member) + n_types)
        s = model.sums(counts, member, size, square)
        base = _base(s, marked, raised, overall)
        expected = base * s.size[:, None]
        prior = RAISED_WEIGHT * np.exp(RAISED)
        log = np.log((s.counts[0] + prior) / (expected + RAISED_WEIGHT))
        raised = np.where(marked, np.clip(log, LEAST_RAISED, MOST_RAISED), 0.0)
        phi = model.dispersion(s, base * np.exp(raised))
        done = float(np.abs(moved - share).max()) < 1e-4
        share = moved
        if done:
            break
    return _Fit(rate, phi, share, scores)


def _base(s: model.Sums, marked: NDArray[np.bool_], raised: Float, overall: Float) -> Float:
    """Rate of every gene where it marks nothing; of one that marks all types, from all."""
    other = ~marked
    alone = ~other.any(axis=0)
    use = other | alone
    seen = (s.counts[0] * use).sum(axis=0)
    exposed = (s.size[:, None] * np.exp(raised) * use).sum(axis=0)
    weight = 5.0  # counts that the overall rate is worth
    return np.asarray((seen + weight * 0.5) / (exposed + weight / np.maximum(overall, 1e-12)))
