"""From counts and a reference to what the posterior of proportions needs; and the rounds over the section.

Genes that tell types apart are chosen, their platform shifts estimated on pooled patches, their noise about the model
on a sample of spots, and their counts summed into groups. Worlds stand for what shifts and profiles may be as well.
Then neighbours are asked in rounds: each spot's prior is the mean of its surroundings in the round before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import deconvolution, genesketch, graph, platformshift, split, typeprofiles

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Int = NDArray[np.intp]

MOST_GENES, MOST_GROUPS = 2000, 192
#: counts below which a gene is left out, in the section and in the reference
LEAST_COUNT = 5
N_WORLDS, WORLD_STEPS = 12, 3
#: spots that the noise of genes is estimated on
NOISE_SPOTS = 1500
START_DISPERSION, MOST_DISPERSION = 0.3, 10.0
#: share of the section's mean in every prior mean
SHARE_OF_ALL = 0.05
START_CONCENTRATION, START_CELLS = 4.0, 7.0
MOST_CONCENTRATION, MOST_CELLS = 200.0, 200.0
#: types' worth of the common concentration that each type's own is shrunk by
PRIOR_TYPES = 0.2
N_ROUNDS, ROUND_DRAWS, DRAWS = 5, 16, 16
#: of what an interval leaves out by its level, the share that the model itself may leave out: the rest is for what is
#: wrong with the model; and spots that tails are shared out on
SHARE_OUTSIDE, TAIL_SPOTS = 0.35, 1000
#: steps to the scales of types that a composition asks for, and the least share that an estimate is taken for there
SCALE_STEPS, LEAST_SHARE = 8, 1e-3
#: hops over which the surroundings' mean is taken; 0 is the whole section
REACHES = (0, 1, 2, 4, 8)


@dataclass(frozen=True)
class Model:
    """The same for all spots: ``profiles`` [n_worlds, n_groups, n_types] (the first is the estimate itself) with their
    ``tilt`` of prior means [n_worlds, n_types], the ``noise`` of groups, the ``sketch`` of ``genes``; and of the
    section: composition of ``patches`` [n_patches, n_types], ``log_shift`` by gene and its ``width``."""

    genes: Int
    sketch: genesketch.Sketch
    profiles: Float
    tilt: Float
    noise: Float
    patches: Float
    log_shift: Float
    width: float


@dataclass(frozen=True)
class Fitted:
    """``posterior``, the ``prior`` and the prior ``mean`` it was made with, and the settings that were chosen."""

    posterior: deconvolution.Posterior
    prior: deconvolution.Prior
    reach: int


def prepare(
    counts: sparse.csr_matrix,
    genes: Int,
    reference: sparse.csr_matrix,
    label: Int,
    patch: Int,
    *,
    seed: np.random.SeedSequence,
    n_worlds: int = N_WORLDS,
) -> Model:
    """The model of a section. ``counts`` CSR [n_obs, all genes], of which the columns ``genes`` are those of the
    ``reference`` [n_cells, n_genes]; ``label`` [n_cells] types; ``patch`` [n_obs] compact groups of spots."""
    n_types = int(label.max()) + 1
    keep = _informative(counts, genes, reference, label, n_types)
    genes, reference = genes[keep], sparse.csr_matrix(reference[:, keep])
    profile = typeprofiles.means(reference, label, n_types)
    pooled = _pooled(counts, genes, patch)
    found = platformshift.estimate(pooled, profile)
    amounts = found.shares
    share = np.average(amounts, axis=0, weights=np.bincount(patch))
    scaled = profile * np.exp(found.log_shift)
    level = float(pooled.sum()) / counts.shape[0]
    mean = share @ scaled
    mean = mean * (level / mean.sum())
    rng = np.random.default_rng(seed)
    start = _sketched(scaled, share, mean, np.full(len(mean), START_DISPERSION))
    dispersion = _dispersion(counts, genes, scaled, start, amounts[patch], mean)
    made, noise = _sketched(scaled, share, mean, dispersion)
    worlds, tilt = [scaled], [np.ones(n_types)]
    for _ in range(n_worlds):
        world, ratio = _world(rng, reference, label, found, pooled)
        worlds.append(world)
        tilt.append(ratio)
    return Model(
        genes, made, made.profiles(np.stack(worlds)), np.stack(tilt), noise, amounts, found.log_shift, found.width
    )


def type_scales(
    counts: sparse.csr_matrix, genes: Int, reference: sparse.csr_matrix, label: Int, composition: Float
) -> Float:
    """By how much the section measures each type better than the reference, [n_types], mean 1: with profiles that are
    scaled so the section's ``composition`` (shares of cells) is estimated as given."""
    keep = _informative(counts, genes, reference, label, len(composition))
    profile = typeprofiles.means(sparse.csr_matrix(reference[:, keep]), label, len(composition))
    pooled = _pooled(counts, genes[keep], np.zeros(counts.shape[0], dtype=np.intp))
    scale = np.ones(len(composition))
    for _ in range(SCALE_STEPS):
        share = platformshift.estimate(pooled, profile * scale[:, None]).shares[0]
        scale *= np.maximum(share, LEAST_SHARE) / composition
        scale /= composition @ scale
    return scale


def _informative(counts: sparse.csr_matrix, genes: Int, reference: sparse.csr_matrix, label: Int, n_types: int) -> Int:
    """Numbers of the genes that say most of types, ascending; all that are counted at all where there are few."""
    seen = np.asarray(counts.sum(axis=0)).ravel()[genes]
    known = np.asarray(reference.sum(axis=0)).ravel()
    profile = typeprofiles.means(reference, label, n_types)
    share = np.full(n_types, 1 / n_types)
    mean = seen / counts.shape[0]
    # the section's own level with the reference's ratios between types
    told = genesketch.information(profile / np.maximum(share @ profile, 1e-300), share)
    told = told * mean / (1 + START_DISPERSION * mean)
    usable = (seen >= LEAST_COUNT) & (known >= LEAST_COUNT)
    if usable.sum() < min(n_types, len(genes)):
        usable = known > 0
    told[~usable] = -1.0
    best = np.argsort(-told, kind="stable")[: min(MOST_GENES, int(usable.sum()))]
    return np.sort(best)


def _pooled(counts: sparse.csr_matrix, genes: Int, patch: Int) -> Float:
    member = sparse.csr_matrix((np.ones(len(patch)), (patch, np.arange(len(patch)))))
    total = np.zeros((member.shape[0], counts.shape[1]))
    for start in range(0, len(patch), genesketch.ROWS):
        part = slice(start, start + genesketch.ROWS)
        total += np.asarray((member[:, part] @ counts[part]).todense())
    return total[:, genes]


def _sketched(scaled: Float, share: Float, mean: Float, dispersion: Float) -> tuple[genesketch.Sketch, Float]:
    weight = 1 / (1 + dispersion * mean)
    made = genesketch.sketch(scaled, share, weight, MOST_GROUPS)
    return made, made.noise(mean, dispersion)


def _dispersion(
    counts: sparse.csr_matrix,
    genes: Int,
    scaled: Float,
    start: tuple[genesketch.Sketch, Float],
    mean: Float,
    level: Float,
) -> Float:
    """Dispersion of each gene about the model, from a sample of spots; shrunk to the median where counts are few."""
    made, noise = start
    rows = np.unique(np.linspace(0, len(mean) - 1, min(NOISE_SPOTS, len(mean))).astype(int))
    prior = deconvolution.Prior(np.full(len(scaled), START_CONCENTRATION), np.full(len(rows), START_CELLS))
    found = deconvolution.posterior(
        made.counts(counts, genes, rows),
        made.profiles(scaled[None]),
        noise,
        blended(mean[rows], mean.mean(axis=0)),
        np.ones((1, len(scaled))),
        prior,
        n_draws=ROUND_DRAWS,
    )
    expected = (found.amount[:, None] * found.mean) @ scaled
    seen = counts[rows][:, genes].toarray().astype(np.float64)
    square = (expected**2).sum(axis=0)
    excess = ((seen - expected) ** 2 - expected).sum(axis=0)
    # information on the dispersion: squares of Poisson counts scatter by about their own mean
    own = np.clip(excess / np.maximum(square, 1e-12), 0.0, MOST_DISPERSION)
    common = float(np.average(own, weights=square / (1 + square)))
    sure = square / (square + 50.0)
    return np.asarray(sure * own + (1 - sure) * common)


def _world(
    rng: np.random.Generator,
    reference: sparse.csr_matrix,
    label: Int,
    found: platformshift.Shift,
    pooled: Float,
) -> tuple[Float, Float]:
    """(profiles, ratio of the section's composition) with other cells of the reference and other shifts."""
    n_types = found.amounts.shape[1]
    other = typeprofiles.means(reference, label, n_types, rng.exponential(size=len(label)))
    moved = platformshift.again(pooled, other, found, rng, WORLD_STEPS)
    now, was = moved.shares.mean(axis=0), found.shares.mean(axis=0)
    return other * np.exp(moved.log_shift), np.clip(now / np.maximum(was, 1e-6), 0.05, 20.0)


# ---------------------------------------------------------------------------------------------------------- rounds


@dataclass(frozen=True)
class Surroundings:
    """Means over neighbours without the spot itself: ``step`` one hop (rows sum to 1), ``returns`` the share of a walk
    of 1 to 4 hops that is back at its start."""

    step: sparse.csr_matrix
    returns: tuple[Float, ...]

    def mean(self, share: Float32, reach: int) -> Float32:
        """Prior mean [n_obs, n_types] from the shares of the round before."""
        whole = share.mean(axis=0, dtype=np.float64)
        total, walked = np.zeros_like(share), share
        for hop in range(1, reach + 1):
            walked = self.step @ walked
            back = self.returns[min(hop, len(self.returns)) - 1]
            back = back if hop <= len(self.returns) else back * len(self.returns) / hop
            total += (walked - back[:, None].astype(np.float32) * share) / (1 - back[:, None]).astype(np.float32)
        mean = total / np.float32(max(reach, 1))
        alone = np.diff(self.step.indptr) == 0
        mean[alone] = whole
        if reach == 0:
            mean[:] = whole
        return blended(np.maximum(mean, 0), whole)


def blended(mean: NDArray[np.floating], whole: Float) -> Float32:
    """A little of the section's mean in each prior mean."""
    made = (1 - SHARE_OF_ALL) * mean + SHARE_OF_ALL * whole
    made = np.maximum(made, deconvolution.LEAST_MEAN)
    return np.asarray(made / made.sum(axis=1, keepdims=True), dtype=np.float32)


def surroundings(weights: sparse.csr_matrix) -> Surroundings:
    """Of a symmetric graph with an empty diagonal."""
    step = graph.row_normalise(sparse.csr_matrix(weights, dtype=np.float32))
    step.sort_indices()
    back = [np.zeros(step.shape[0]) for _ in range(4)]
    turned = sparse.csr_matrix(step.T)
    for start in range(0, step.shape[0], genesketch.ROWS):
        part = slice(start, start + genesketch.ROWS)
        two = step[part] @ step
        back[1][part] = np.asarray(step[part].multiply(turned[part]).sum(axis=1)).ravel()
        back[2][part] = np.asarray(two.multiply(turned[part]).sum(axis=1)).ravel()
        back[3][part] = np.asarray(two.multiply(turned[part] @ turned).sum(axis=1)).ravel()
    return Surroundings(step, tuple(np.clip(b, 0.0, 0.9) for b in back))


def rounds(
    counts: Float32,
    model: Model,
    around: Surroundings,
    start: Float32,
    reach: int,
    *,
    n_cells: Float | None,
    n_rounds: int = N_ROUNDS,
    seed: int = 0,
) -> tuple[deconvolution.Posterior, deconvolution.Prior]:
    """The last round's posterior at the estimated profiles, and the prior that it speaks for."""
    n_types = start.shape[1]
    cells = np.full(len(counts), START_CELLS) if n_cells is None else n_cells
    prior = deconvolution.Prior(np.full(n_types, START_CONCENTRATION), cells)
    share = start
    for turn in range(n_rounds):
        mean = around.mean(share, reach)
        found = deconvolution.posterior(
            counts, model.profiles[:1], model.noise, mean, model.tilt[:1], prior, n_draws=ROUND_DRAWS, seed=seed + turn
        )
        prior = _renewed(prior, found, mean, n_cells is None)
        share = found.mean
    return found, prior


def _renewed(
    prior: deconvolution.Prior, found: deconvolution.Posterior, mean: Float32, cells: bool
) -> deconvolution.Prior:
    """Concentration by type and number of cells by which the posterior's own scatter and absences are expected."""
    wide = (mean * (1 - mean)).sum(axis=0, dtype=np.float64)
    scatter = (found.square - 2 * mean * found.mean + mean * mean).sum(axis=0, dtype=np.float64)
    weight = wide / wide.sum()
    common = scatter.sum() / wide.sum()
    ratio = (scatter / wide * weight + PRIOR_TYPES * common) / (weight + PRIOR_TYPES)
    concentration = np.clip(1 / np.maximum(ratio, 1e-9), 1.0, MOST_CONCENTRATION)
    if not cells:
        return replace(prior, concentration=concentration)
    return deconvolution.Prior(concentration, np.full(len(mean), _cells(mean, float(found.present.sum(dtype=float)))))


def _cells(mean: Float32, present: float) -> float:
    """Number of cells n at which 1 - (1 - m)^n adds up to the types that are present."""
    log = np.log1p(-np.minimum(mean, 1 - 1e-6).astype(np.float64))
    low, high = 1.0, MOST_CELLS
    for _ in range(30):
        middle = float(np.sqrt(low * high))
        if float(-np.expm1(middle * log).sum()) < present:
            low = middle
        else:
            high = middle
    return low


def fit(
    counts: Float32,
    model: Model,
    around: Surroundings,
    start: Float32,
    reach: int,
    *,
    n_cells: Float | None = None,
    uneven: Float | None = None,
    level: float = 0.9,
    seed: int = 0,
) -> Fitted:
    """The rounds, and then the posterior over all worlds. ``uneven`` as for :func:`deconvolution.posterior`."""
    found, prior = rounds(counts, model, around, start, reach, n_cells=n_cells, seed=seed)
    mean = around.mean(found.mean, reach)
    inside = 1 - (1 - level) * SHARE_OUTSIDE
    lower = (1 - inside) / 2
    every = max(1, len(counts) // TAIL_SPOTS)
    sample = deconvolution.posterior(
        counts[::every], model.profiles[1:], model.noise, mean[::every], model.tilt[1:],
        replace(prior, n_cells=prior.n_cells[::every]), n_draws=DRAWS, lower=lower, uneven=uneven, seed=seed,
    )  # fmt: skip
    upper = deconvolution.tail_scale(sample, inside, lower)
    last = deconvolution.posterior(
        counts, model.profiles[1:], model.noise, mean, model.tilt[1:], prior, n_draws=DRAWS, upper=upper, lower=lower,
        uneven=uneven, seed=seed + N_ROUNDS,
    )  # fmt: skip
    return Fitted(last, prior, reach)


def choose_reach(
    counts: sparse.csr_matrix,
    model: Model,
    around: Surroundings,
    start: Float32,
    *,
    n_cells: Float | None,
    seed: np.random.SeedSequence,
) -> tuple[int, Float]:
    """(reach whose posterior means predict held-out counts best, the loss of every reach).

    Half of each count is held out (binomially: the noise of single genes is the spot's own, and is shared by all
    reaches). The loss is the deviance of the held-out groups.
    """
    everywhere = np.zeros(counts.shape[1])
    train, rest = split.thin(counts, 0.5, everywhere, np.random.default_rng(seed))
    y, held = (model.sketch.counts(part, model.genes) for part in (train, rest))
    loss = []
    for reach in REACHES:
        found = rounds(y, model, around, start, reach, n_cells=n_cells, n_rounds=3)[0]
        expected = np.einsum("nk,qk->nq", found.mean, model.profiles[0])
        expected *= (found.amount)[:, None]
        expected = np.maximum(expected, 1e-6)
        loss.append(float((expected - held * np.log(expected)).sum() / held.sum()))
    return REACHES[int(np.argmin(loss))], np.asarray(loss)
