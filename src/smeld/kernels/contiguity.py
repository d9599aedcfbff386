"""How contiguous labels are on a spatial graph: join counts, and their exact moments under random labelling.

Two figures answer two questions. The z-score asks whether like lies beside like more often than by chance, which in
tissue it always does, cell types included. The assortativity asks how much more often, and that tells regions from
scattered types.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from smeld.kernels import evidence

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: blocks for standard errors, shared among the sections (at least FEWEST_BLOCKS each): a power of two, as many as
#: kernels.evidence's users take
N_BLOCKS, FEWEST_BLOCKS = 32, 4
#: joins expected of a label, below which their number is nearer to Poisson than to normal (Cliff & Ord 1981, ch. 2)
RARE = 5.0


@dataclass(frozen=True)
class Joins:
    """Edges that join like with like, and their moments when labels are permuted within sections.

    Arrays [n_labels + 1]: one entry a label, the last for all labels together. ``n_spots`` are the labelled spots,
    ``edges`` the edges that touch the label, each end counted half (together: all edges).
    """

    n_spots: Int
    edges: Float
    observed: Float
    expected: Float
    variance: Float

    @property
    def zscore(self) -> Float:
        """(observed - expected) / sd; NaN where nothing can vary, as for a label of a single spot."""
        sd = np.sqrt(self.variance)
        return np.divide(self.observed - self.expected, sd, out=np.full_like(sd, np.nan), where=sd > 0)

    @property
    def pvalue(self) -> Float:
        """One-sided (more joins than by chance): normal, Poisson where fewer than ``RARE`` joins are expected.

        Never below the smallest normal number, so that its logarithm is finite.
        """
        z = self.zscore
        p = np.where(self.expected < RARE, _poisson_tail(self.observed, self.expected), special.ndtr(-z))
        return np.where(np.isnan(z), np.nan, np.maximum(p, np.finfo(np.float64).tiny))


def _poisson_tail(observed: Float, expected: Float) -> Float:
    """Probability of at least ``observed`` where ``expected`` are expected."""
    return np.where(observed > 0, special.pdtrc(np.maximum(observed - 1, 0), expected), 1.0)


def _falling(n: Float | float, k: int) -> Float:
    """n (n - 1) ... (n - k + 1)."""
    return np.asarray(np.prod([np.asarray(n) - i for i in range(k)], axis=0), dtype=np.float64)


def _over(values: Float, whole: Float) -> Float:
    """values / whole, 0 where there is no whole: fewer spots than must be drawn."""
    return values / whole if whole > 0 else np.zeros_like(values)


def permutation_moments(n_spots: Float, degree: Float) -> tuple[Float, Float]:
    """(mean, variance) [n_labels + 1] of the join counts when labels are permuted over the spots of one graph.

    ``n_spots`` [n_labels] spots by label, ``degree`` [n] neighbours of each spot (sum of ``n_spots``). Ordered pairs of
    edges are the same edge (m), share one spot (sum d (d - 1)) or none; the probability that both join like with like
    depends on nothing else. Cliff & Ord, Spatial Processes (1981), chapter 2 (nonfree sampling).
    """
    n, m = float(n_spots.sum()), float(degree.sum()) / 2
    touching = float((degree * (degree - 1)).sum())
    two, three, four = (_over(_falling(n_spots, k), _falling(n, k)) for k in (2, 3, 4))
    pairs = _falling(n_spots, 2)
    # two edges apart may also join like with like in two different labels
    across = _over(pairs.sum() ** 2 - (pairs**2).sum(), _falling(n, 4))
    two, three = np.append(two, two.sum()), np.append(three, three.sum())
    four = np.append(four, four.sum() + across)
    mean = m * two
    variance = m * two + touching * three + (m * m - m - touching) * four - mean**2
    return mean, np.maximum(variance, 0.0)


@dataclass(frozen=True)
class _Spots:
    """The labelled spots: label, section, number of neighbours and of like neighbours; ``n_labels`` in all."""

    label: Int
    section: Int
    degree: Float
    like: Float
    n_labels: int

    def tally(self, values: Float | None, extra: Int, n_extra: int) -> Float:
        """Sums (counts, for None) by ``extra``, section and label: [n_extra, n_sections, n_labels]."""
        n_sections = int(self.section.max(initial=0)) + 1
        cell = (extra * n_sections + self.section) * self.n_labels + self.label
        summed = np.bincount(cell, values, n_extra * n_sections * self.n_labels)
        return summed.astype(np.float64).reshape(n_extra, n_sections, self.n_labels)


def _spots(labels: Int, graph: sparse.csr_matrix, section: Int | None) -> tuple[_Spots, NDArray[np.bool_]]:
    """What is needed of every labelled spot; edges to unlabelled spots or between sections count for nothing."""
    if graph.shape != (len(labels), len(labels)):
        raise ValueError(f"{len(labels)} labels do not fit a graph of {graph.shape[0]} x {graph.shape[1]} spots")
    within = np.zeros(len(labels), dtype=np.intp) if section is None else section
    known = labels >= 0
    edges = sparse.coo_matrix(graph)
    i, j = edges.row, edges.col
    keep = (edges.data != 0) & (i != j) & known[i] & known[j] & (within[i] == within[j])
    i, j = i[keep], j[keep]
    degree = np.bincount(i, minlength=len(labels)).astype(np.float64)
    like = np.bincount(i[labels[i] == labels[j]], minlength=len(labels)).astype(np.float64)
    n_labels = int(labels.max(initial=-1)) + 1
    return _Spots(labels[known], within[known], degree[known], like[known], n_labels), known


def join_counts(labels: Int, graph: sparse.csr_matrix, *, section: Int | None = None) -> Joins:
    """Join counts of ``labels`` int [n_obs] (-1: unknown, left out) on a symmetric ``graph`` CSR [n_obs, n_obs].

    Edges count once whatever their weight. With ``section`` int [n_obs], edges between sections are dropped and labels
    are permuted within sections only. Linear in spots and edges.
    """
    spots, _ = _spots(labels, graph, section)
    zero = np.zeros(len(spots.label), dtype=np.intp)
    count = spots.tally(None, zero, 1)[0]
    ends, like = (spots.tally(v, zero, 1)[0].sum(axis=0) for v in (spots.degree, spots.like))
    expected, variance = np.zeros(spots.n_labels + 1), np.zeros(spots.n_labels + 1)
    for s, by_label in enumerate(count):
        mean, var = permutation_moments(by_label, spots.degree[spots.section == s])
        expected += mean
        variance += var
    n_spots = count.sum(axis=0).astype(np.intp)
    both = [np.append(v, v.sum()) for v in (n_spots, ends / 2, like / 2)]
    return Joins(both[0], both[1], both[2], expected, variance)


def _effect(count: Float, ends: Float, like: Float) -> Float:
    """Assortativity [n_labels + 1] from sums [n_sections, n_labels]."""
    n = count.sum(axis=1, keepdims=True)
    others = np.maximum(count - 1, 0) / np.maximum(n - 1, 1)  # chance that another spot of the section is alike
    chance = np.append(
        (ends * others).sum(axis=0), (ends.sum(axis=1, keepdims=True) * count * others / np.maximum(n, 1)).sum()
    )
    total = np.append(ends.sum(axis=0), ends.sum())
    found = np.append(like.sum(axis=0), like.sum())
    room = total - chance
    effect = np.divide(found - chance, room, out=np.full_like(room, np.nan), where=room > 1e-9 * np.maximum(total, 1))
    effect[:-1][count.sum(axis=0) < 2] = np.nan
    return np.asarray(np.maximum(effect, -1.0))


def assortativity(
    labels: Int, graph: sparse.csr_matrix, xy_um: Float, *, section: Int | None = None
) -> tuple[Float, Float]:
    """(assortativity, its standard error), each [n_labels + 1]: by label, the last for all labels together.

    (o - e) / (1 - e): o is the share of a label's neighbours (for all: of edges) that are alike, e that share under
    random labelling within the section. 1: like beside like only; 0: at random; below 0: labels shun themselves (cut at
    -1, which only graphs of very unequal degree pass). The kappa of Cohen (1960) and the assortativity of Newman
    (2003), with the expectation of permutation. NaN for labels of one spot, and where all spots are alike.

    The standard error is the jackknife's over compact blocks of neighbouring spots, for labels of neighbours are not
    independent; NaN where leaving out a block leaves fewer than two spots of the label.
    """
    spots, known = _spots(labels, graph, section)
    block = spatial_blocks(xy_um[known], spots.section)
    n_blocks = int(block.max(initial=0)) + 1
    parts = [spots.tally(v, block, n_blocks) for v in (None, spots.degree, spots.like)]
    whole = [p.sum(axis=0) for p in parts]
    without = np.stack([_effect(*(w - p[b] for w, p in zip(whole, parts))) for b in range(n_blocks)])
    spread = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    se = np.sqrt((n_blocks - 1) / n_blocks * spread)
    return _effect(*whole), se if n_blocks > 1 else np.full_like(se, np.nan)


def spatial_blocks(xy_um: Float, section: Int) -> Int:
    """Block of every spot, int [n]: ``N_BLOCKS`` shared among the sections, no block in two of them."""
    n_sections = int(section.max(initial=0)) + 1
    each = max(FEWEST_BLOCKS, N_BLOCKS // n_sections)
    block, first = np.zeros(len(section), dtype=np.intp), 0
    for s in range(n_sections):
        here = np.flatnonzero(section == s)
        if len(here):
            block[here] = first + evidence.blocks(xy_um[here], each)
            first = int(block[here].max()) + 1
    return block
