"""Does a gene follow a given covariate of the cells, such as a pseudotime, more than a gene as smooth would by chance?

A pseudotime is about as smooth as a map can be, and a smooth gene has few independent patches beside it: correlation
over cells proves nothing. The gene is regressed on the covariate by generalised least squares, x = mean + gamma c +
field + noise, with a covariance that the gene itself tells.

1. Cells are pooled into a few hundred patches. What the covariate does within them is given up: at short range it
   hardly varies, and there genes would have to be modelled that need not be.
2. The covariance is noise plus a field of some shape and range, ``ratio`` times as strong. Every one of a grid is
   fitted by restricted likelihood (REML, Patterson & Thompson 1971): what lies along the covariate does not count, so
   that a gene that follows it is not taken for a smooth one.
3. p is the mean over the grid of the p-values of F tests, each weighted by its likelihood: a range that is not known
   well makes p large, where the best fit alone would make it small.

Under a field as long as the section a gradient is nothing special, and p is that of few patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from scipy.spatial.distance import cdist

from smeld.kernels import crosscov
from smeld.kernels._threads import one_thread

Float = NDArray[np.float64]
#: fields by number, centred, float64 [n, n_obs]
Fields = Callable[[NDArray[np.intp]], Float]
Track = Callable[[list[slice], str], Iterable[slice]]

#: patches that are aimed at, and the share by which there may be more
N_PATCHES, MORE = 400, 1.25
#: correlation by distance over range: smooth fields, and rougher ones, as tissue with borders has (Matern 3/2, 1/2)
SHAPES: tuple[Callable[[Float], Float], ...] = (
    lambda d: np.exp(-0.5 * d**2),
    lambda d: (1 + np.sqrt(3) * d) * np.exp(-np.sqrt(3) * d),
    lambda d: np.exp(-d),
)
#: ranges: from so many widths of a patch to that share of the longer side, and how many
SHORTEST, LONGEST, N_RANGES = 0.6, 0.5, 8
#: power of the field over that of the noise in a patch
RATIOS = np.geomspace(1 / 16, 2048, 16)
#: how likely fields are beforehand goes with these powers of ratio and range. Chosen on simulated fields a third of the
#: section long: with 0 and 0 one in eleven of them passes at .05
TILT, LEAN = 0.25, 0.5
#: weight of no field at all beside that of all fields. With more, faint fields that a gene shares with its library's
#: size are not believed in, and pass
NO_FIELD = 0.01
#: models of less weight do not count
NEGLIGIBLE = 1e-15
#: values of fields that are in memory together, and genes that are tested together
BLOCK, GENES = 2**24, 256
#: sum of squares, of all, below which nothing varies
NOTHING = 1e-10


@dataclass(frozen=True)
class Along:
    """By covariate and gene, float64 [n_covariates, n_genes]: ``effect`` the correlation over cells (multiple
    correlation for a covariate of several columns); ``pvalue`` two-sided; ``zscore`` the normal deviate of that p with
    the sign of the slope (0 or more for several columns); ``n_effective`` how many independent cells the gene is worth
    beside this covariate. ``share`` [n_covariates] of the covariate's variance lies between patches, and is seen."""

    effect: Float
    zscore: Float
    pvalue: Float
    n_effective: Float
    share: Float


@dataclass(frozen=True)
class Patches:
    """Cells pooled: ``order`` int [n_obs] the cells patch by patch, ``start`` int [m] where each patch begins there,
    ``count`` cells by patch, their ``centre`` float64 [m, 2] in um, ``section`` int [m] from 0 on, ``width`` of a
    patch and ``extent`` of the longest section, um."""

    order: NDArray[np.intp]
    start: NDArray[np.intp]
    count: Float
    centre: Float
    section: NDArray[np.intp]
    width: float
    extent: float

    def pooled(self, fields: Float) -> Float:
        """Sums over patches over the roots of their sizes, [n, m]: noise of cells then has one variance everywhere."""
        return np.add.reduceat(fields[:, self.order], self.start, axis=1) / np.sqrt(self.count)

    def means(self) -> Float:
        """Orthonormal basis [n_sections, m] of what the mean of a section may be."""
        root = np.where(self.section == np.arange(self.section.max() + 1)[:, None], np.sqrt(self.count), 0.0)
        return np.asarray(root / np.linalg.norm(root, axis=1, keepdims=True))


def patches(xy_um: Float, section: NDArray[np.intp] | None = None) -> Patches:
    """Squares that hold the cells ``xy_um`` [n_obs, 2], each ``section`` (int [n_obs]) by itself."""
    n = len(xy_um)
    part = np.zeros(n, dtype=np.intp) if section is None else np.unique(section, return_inverse=True)[1].ravel()
    sections = [xy_um[part == s] for s in range(part.max() + 1)]
    area = sum(len(xy) * crosscov.spacing(xy) ** 2 for xy in sections)
    width, label = np.sqrt(area / min(n, N_PATCHES)), np.arange(n)
    if n > N_PATCHES:
        label = _squares(xy_um, part, width)
        while label.max() >= MORE * N_PATCHES + part.max():  # ragged outlines cut squares in parts
            width *= max(np.sqrt(label.max() / (N_PATCHES + part.max())), 1.05)
            label = _squares(xy_um, part, width)
    order = np.argsort(label, kind="stable")
    start = np.flatnonzero(np.diff(label[order], prepend=-1))
    count = np.diff(start, append=n).astype(np.float64)
    centre = np.add.reduceat(xy_um[order], start, axis=0) / count[:, None]
    # a stray cell does not make a section long
    sides = [np.ptp(np.quantile(xy, [0.02, 0.98], axis=0), axis=0).max() for xy in sections]
    return Patches(order, start, count, centre, part[order][start], float(width), float(max(sides) / 0.96 + width))


def _squares(xy_um: Float, part: NDArray[np.intp], width: float) -> NDArray[np.intp]:
    """Number of the square of every cell, from 0 on."""
    low = np.stack([xy_um[part == s].min(axis=0) for s in range(part.max() + 1)])
    # a quarter off, for rows of a lattice would lie on the borders, where rounding decides
    at = np.floor((xy_um - low[part]) / width + 0.25).astype(np.intp)
    return np.asarray(np.unique(np.c_[part, at], axis=0, return_inverse=True)[1].ravel(), dtype=np.intp)


@dataclass(frozen=True)
class Model:
    """Fields of one shape and range over the patches: ``power`` [m] of its independent components and these,
    ``waves`` [m, m] (columns), such that their mean power is 1 beside the means of sections; ``ratios`` [n_ratios] of
    field to noise, and the logarithm of how likely they are beforehand."""

    power: Float
    waves: Float
    ratios: Float
    prior: Float


def models(made: Patches) -> Iterator[Model]:
    """Noise alone, and all shapes and ranges."""
    yield Model(np.zeros(len(made.count)), np.eye(len(made.count)), np.ones(1), np.log(np.full(1, NO_FIELD)))
    distance = cdist(made.centre, made.centre)
    distance[made.section[:, None] != made.section] = np.inf
    root, means = np.sqrt(made.count), made.means()
    longest = max(LONGEST * made.extent, 2 * SHORTEST * made.width)
    ranges = np.geomspace(SHORTEST * made.width, longest, N_RANGES)
    prior = np.log(np.outer(ranges**LEAN / (ranges**LEAN).sum(), RATIOS**TILT / (RATIOS**TILT).sum()) / len(SHAPES))
    for shape in SHAPES:
        for reach, likely in zip(ranges, prior):
            with np.errstate(invalid="ignore"):  # infinitely far: 0 times infinity
                covariance = root[:, None] * np.nan_to_num(shape(distance / reach)) * root
            beside = np.trace(covariance) - np.einsum("si,ij,sj->", means, covariance, means)
            if beside <= NOTHING * np.trace(covariance):  # all in one place: such a field is a mean
                continue
            power, waves = np.linalg.eigh(covariance * (len(root) - len(means)) / beside)
            yield Model(np.maximum(power, 0.0), waves, RATIOS, likely)


def test(
    xy_um: Float,
    fields: Fields,
    n_genes: int,
    covariates: Sequence[Float],
    *,
    section: NDArray[np.intp] | None = None,
    track: Track | None = None,
) -> Along:
    """Tests of genes against covariates, each covariate by itself.

    ``xy_um`` [n_obs, 2] in um; ``fields(numbers)`` gives genes [n, n_obs], ``n_genes`` in all; ``covariates`` are
    values [n_obs], or [k, n_obs] where k columns are tested at once, as those of :func:`curves`; ``section`` int
    [n_obs] where there are several: they share slopes and covariance, and neither means nor fields. ``track`` may show
    how far blocks of genes are done. Where a gene or a covariate does not vary, or cells are too few: p = 1, effect 0.
    """
    made = patches(xy_um, section)
    with one_thread():
        centred = [_centred(made, np.atleast_2d(np.asarray(c, dtype=np.float64))) for c in covariates]
        genes, effect, square = _pooled(made, fields, n_genes, centred, track or _untracked)
        within = [made.pooled(c) for c in centred]
        total = np.array([float((c**2).sum()) for c in centred])
        seen = np.array([float((w**2).sum()) for w in within])
        share = np.divide(seen, total, out=np.zeros(len(total)), where=total > 0)
        found = _tested(made, genes, within, square)
    return Along(effect, *found, share)


def _untracked(blocks: list[slice], what: str) -> Iterable[slice]:
    return blocks


def _centred(made: Patches, columns: Float) -> Float:
    """Orthonormal basis [k or fewer, n_obs] of columns less their means by section; one column keeps its sign."""
    section = np.empty(len(made.order), dtype=np.intp)
    section[made.order] = np.repeat(made.section, made.count.astype(np.intp))
    size = np.bincount(section)
    less = np.stack([c - (np.bincount(section, c) / size)[section] for c in columns])
    norm, before = np.linalg.norm(less, axis=1), np.linalg.norm(columns, axis=1)
    less = less[norm > np.sqrt(NOTHING) * before] / norm[norm > np.sqrt(NOTHING) * before, None]
    if len(less) < 2:
        return np.asarray(less)
    _, scale, right = np.linalg.svd(less, full_matrices=False)
    return np.asarray(right[scale > np.sqrt(NOTHING) * scale[0]])


def _pooled(
    made: Patches, fields: Fields, n_genes: int, centred: list[Float], track: Track
) -> tuple[Float, Float, Float]:
    """Genes by patch [n_genes, m], their correlations with covariates [n_covariates, n_genes], and sums of squares
    [n_genes], of what lies beside the means of sections."""
    size = int(np.clip(BLOCK // max(len(made.order), 1), 1, GENES))
    genes, square = np.zeros((n_genes, len(made.count))), np.zeros(n_genes)
    effect, means = np.zeros((len(centred), n_genes)), made.means()
    blocks = [slice(i, min(i + size, n_genes)) for i in range(0, n_genes, size)]
    for rows in track(blocks, "genes"):
        block = fields(np.arange(rows.start, rows.stop))
        genes[rows] = made.pooled(block)
        of_means = genes[rows] @ means.T
        whole = np.einsum("gi,gi->g", block, block)
        square[rows] = np.maximum(whole - (of_means**2).sum(axis=1), 0.0)
        square[rows][square[rows] <= NOTHING * whole] = 0.0
        genes[rows] -= of_means @ means
        norm = np.sqrt(np.where(square[rows] > 0, square[rows], np.inf))
        for k, c in enumerate(centred):
            along = block @ c.T
            effect[k, rows] = (along[:, 0] if len(c) == 1 else np.linalg.norm(along, axis=1)) / norm
    return genes, effect, square


def _tested(made: Patches, genes: Float, within: list[Float], square: Float) -> tuple[Float, Float, Float]:
    """zscore, pvalue and n_effective."""
    n_cells, means = len(made.order), made.means()
    z, p, n = (np.full((len(within), len(genes)), start) for start in (0.0, 1.0, float(n_cells)))
    varies = np.flatnonzero((square > 0) & ((genes**2).sum(axis=1) > NOTHING * square))
    testable = [k for k, c in enumerate(within) if _testable(c, len(means))]
    if not len(varies) or not testable:
        return z, p, n
    grid = list(models(made))
    for start in range(0, len(varies), GENES):
        columns = varies[start : start + GENES]
        for k, found in zip(testable, _judged(grid, genes[columns], means, [within[k] for k in testable])):
            pvalue = np.clip(found.pvalue, 1e-300, 1.0)
            sign = np.sign(found.slope) if len(within[k]) == 1 else 1.0
            p[k, columns], z[k, columns] = pvalue, sign * np.abs(special.ndtri(pvalue / 2))
            n_effective = 1 + square[columns] / np.maximum(found.variance, 1e-300)
            n[k, columns] = np.clip(n_effective, min(3, n_cells), n_cells)
    return z, p, n


def _testable(columns: Float, n_means: int) -> bool:
    """Whether columns [k, m] by patch differ from one another, and leave patches to learn the covariance from."""
    k, m = columns.shape
    return 0 < k < m - n_means and float(np.linalg.svd(columns, compute_uv=False)[-1] ** 2) > NOTHING


@dataclass(frozen=True)
class _Fits:
    """Fits of genes [n, n_models], or their means over models [n]: log likelihood, p, slope of the first column, and
    mean variance of slopes."""

    likelihood: Float
    pvalue: Float
    slope: Float
    variance: Float


def _judged(grid: list[Model], genes: Float, means: Float, within: list[Float]) -> Iterator[_Fits]:
    """Means over models, for each covariate; ``genes`` [n, m]."""
    fits = [_fitted(model, genes, means, within) for model in grid]
    for k, columns in enumerate(within):
        likelihood, unexplained, slope, variance = (np.concatenate([f[k][i] for f in fits], axis=1) for i in range(4))
        weight = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
        weight /= weight.sum(axis=1, keepdims=True)
        counts = weight > NEGLIGIBLE
        freedom = len(means[0]) - len(means) - len(columns)
        pvalue = np.zeros_like(weight)
        pvalue[counts] = special.betainc(freedom / 2, len(columns) / 2, unexplained[counts])
        yield _Fits(likelihood, *((weight * v).sum(axis=1) for v in (pvalue, slope, variance)))


def _fitted(model: Model, genes: Float, means: Float, within: list[Float]) -> list[tuple[Float, Float, Float, Float]]:
    """By covariate: log likelihood with the prior, share of the sum of squares that the covariate leaves, slope and
    its variance, each [n, n_ratios]."""
    rotated = genes @ model.waves
    inverse = 1 / (1 + model.ratios[:, None] * model.power)
    square = rotated**2 @ inverse.T
    half = model.prior + 0.5 * np.log(inverse).sum(axis=1)
    out = []
    for columns in within:
        design = np.concatenate([means, columns]) @ model.waves
        weighted = inverse[:, None] * design
        gram = weighted @ design.T
        cross = (rotated @ weighted.reshape(-1, len(model.power)).T).reshape(len(genes), *gram.shape[:2])
        solved = np.linalg.inv(gram)
        slopes = np.einsum("grq,rqs->grs", cross, solved)
        left = np.maximum(square - (cross * slopes).sum(axis=-1), NOTHING * square)
        free, along = len(model.power) - len(design), slopes[..., len(means) :]
        spread = solved[:, len(means) :, len(means) :]
        explained = np.einsum("grq,rqs,grs->gr", along, np.linalg.inv(spread), along)
        likelihood = half - 0.5 * np.linalg.slogdet(gram)[1] - 0.5 * free * np.log(left)
        variance = left / free * np.trace(spread, axis1=1, axis2=2) / len(columns)
        out.append((likelihood, left / (left + explained), along[..., 0], variance))
    return out


def curves(values: Float, n: int = 5) -> Float:
    """Columns [n, n_obs] for any smooth course along ``values`` [n_obs]: cosines of their ranks."""
    rank = (stats.rankdata(values) - 0.5) / max(len(values), 1)
    return np.asarray(np.cos(np.pi * np.arange(1, n + 1)[:, None] * rank))


def cauchy(pvalue: Float) -> Float:
    """One p-value [n] of several ``pvalue`` [k, n] that may depend on one another (Liu & Xie 2020)."""
    p = np.clip(pvalue, 1e-300, 1 - 1e-15)
    small = p < 1e-15  # where the tangent is all cancellation
    score = np.where(small, 1 / (np.pi * p), 1 / np.tan(np.pi * np.where(small, 0.5, p))).mean(axis=0)
    return np.asarray(np.where(score > 1e15, 1 / (np.pi * np.maximum(score, 1)), 0.5 - np.arctan(score) / np.pi))
