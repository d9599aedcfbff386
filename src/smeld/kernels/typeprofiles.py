"""What a reference's cells of one type have in common, and how far they differ: profiles and contents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: cells of the average profile that are added to each type's: no gene is impossible in a type
PRIOR_CELLS = 0.2
#: a gene's variance over types: types' worth that it is shrunk by to what is common, and the least of that (of mean^2)
PRIOR_SPREADS, LEAST_SPREAD = 4.0, 1e-3
#: the most that cells of a type are taken to differ in content by (variance over squared mean): doublets and torn
#: cells are no cells of the tissue
MOST_UNEVEN = 1.0
#: cells' worth that a type's own unevenness is shrunk by to what is common: one cell says nothing of it
PRIOR_CONTENTS = 10.0


def means(counts: sparse.csr_matrix, label: Int, n_types: int, weight: Float | None = None) -> Float:
    """Mean counts a cell by type [n_types, n_genes], as far as they are known; types' totals are kept.

    Few cells make types look more different than they are, and spots then too alike. So each gene's differences between
    types are shrunk by what cells of one type differ by, and a fifth of a cell of the mean type is added.
    """
    weight = np.ones(len(label)) if weight is None else weight
    counts = sparse.csr_matrix(counts, dtype=np.float64)
    member = sparse.csr_matrix((weight, (label, np.arange(len(label)))), shape=(n_types, len(label)))
    size = np.bincount(label, weight, n_types)[:, None]
    total = np.asarray((member @ counts).todense())
    level = np.maximum((total / size).sum(axis=1, keepdims=True), 1e-12)
    share = total / size / level
    square = np.asarray((member @ counts.multiply(counts).tocsr()).todense()) / level**2
    n_cells = size**2 / np.bincount(label, weight**2, n_types)[:, None]  # as many cells of equal weight
    centre = share.mean(axis=0)
    kept = _kept(share, np.maximum(square / size - share**2, 0.0), n_cells)
    share = (size * (centre + kept * (share - centre)) + PRIOR_CELLS * centre) / (size + PRIOR_CELLS)
    return np.asarray(level * share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300))


def _kept(share: Float, within: Float, n_cells: Float) -> Float:
    """Part of the differences between types that is not chance, [n_types, n_genes] (James and Stein): from ``share``
    of a type's counts, their variance ``within`` types' cells, and numbers of cells [n_types, 1]."""
    n_types = len(share)
    centre = np.maximum(share.mean(axis=0), 1e-15)
    one = (n_cells * within).sum(axis=0) / max(float((n_cells - 1).sum()), 1.0)
    chance = one / n_cells
    excess = share.var(axis=0, ddof=1) - chance.mean(axis=0)
    common = max(float((excess / centre).sum() / centre.sum()), LEAST_SPREAD)
    own = (n_types - 1) * excess / centre**2
    spread = np.maximum((own + PRIOR_SPREADS * common) / (n_types - 1 + PRIOR_SPREADS), 0.0) * centre**2
    return np.asarray(spread / np.maximum(spread + chance, 1e-300))


def unevenness(counts: sparse.csr_matrix, label: Int, n_types: int) -> Float:
    """Variance of a cell's content over its squared mean, [n_types]: what total counts vary by beyond counting.
    Of types with few cells it is near that of the others.

    Part of it is how well each cell was measured, which cannot be told from how large it was.
    """
    total = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    number = np.bincount(label, minlength=n_types)
    mean = np.bincount(label, total, n_types) / np.maximum(number, 1)
    free = np.maximum(number - 1, 0)
    square = np.bincount(label, (total - mean[label]) ** 2, n_types)
    own = free * np.clip((square / np.maximum(free, 1) - mean) / np.maximum(mean, 1e-12) ** 2, 0.0, MOST_UNEVEN)
    common = own.sum() / max(float(free.sum()), 1.0)
    return np.asarray((own + PRIOR_CONTENTS * common) / (free + PRIOR_CONTENTS))
