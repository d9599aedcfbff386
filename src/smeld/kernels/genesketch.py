"""Genes summed into few groups that tell types apart (almost) as well as the genes themselves.

Two Poisson counts whose means stand in the same ratio for every type may be summed without loss: the sum is sufficient
for the amounts of the types. Genes are therefore grouped by the shape of their profile, and each is weighted by how
far its counts can be trusted, so that a weighted sum has about its mean for variance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: groups are added until they keep this share of the information on types
KEPT = 0.98
N_SWAPS = 6
#: rows of a table that are looked at together
ROWS = 50_000


@dataclass(frozen=True)
class Sketch:
    """``group`` of each gene [n_genes], ``weight`` of its counts [n_genes], ``n_groups`` and the share of the
    information on types that the groups keep."""

    group: Int
    weight: Float
    n_groups: int
    kept: float

    def profiles(self, profile: Float) -> Float:
        """Weighted sums over groups, [..., n_types, n_genes] to [..., n_groups, n_types]."""
        n_genes = profile.shape[-1]
        made = np.asarray(self._matrix().T @ profile.reshape(-1, n_genes).T)
        return np.ascontiguousarray(np.swapaxes(made.T.reshape(*profile.shape[:-1], self.n_groups), -1, -2))

    def noise(self, mean: Float, dispersion: Float) -> Float:
        """[n_groups, 2]: a sum of mean mu has variance mu (1 + first + second mu), at counts of mean ``mean`` [n_genes]
        and variance mean + dispersion mean^2 that go up and down together."""
        total = np.bincount(self.group, self.weight * mean)
        one = np.bincount(self.group, self.weight**2 * mean)
        two = np.bincount(self.group, self.weight**2 * dispersion * mean**2)
        total = np.maximum(total, 1e-300)
        return np.stack([one / total - 1, two / total**2], axis=1)

    def counts(self, counts: sparse.csr_matrix, genes: Int, order: Int | None = None) -> NDArray[np.float32]:
        """Weighted sums of the columns ``genes`` by spot, float32 [n_obs, n_groups]; rows in ``order``."""
        wide = np.full(counts.shape[1], -1, dtype=np.intp)
        wide[genes] = np.arange(len(genes))
        at = np.flatnonzero(wide >= 0)
        matrix = sparse.csr_matrix(
            (self.weight[wide[at]].astype(np.float32), (at, self.group[wide[at]])),
            shape=(counts.shape[1], self.n_groups),
        )
        order = np.arange(counts.shape[0]) if order is None else order
        out = np.empty((len(order), self.n_groups), dtype=np.float32)
        for start in range(0, len(order), ROWS):
            rows = counts[order[start : start + ROWS]]
            rows.sort_indices()  # sums must not depend on how the table was stored
            out[start : start + ROWS] = (rows @ matrix).toarray()
        return out

    def _matrix(self) -> sparse.csr_matrix:
        rows = np.arange(len(self.group))
        return sparse.csr_matrix((self.weight, (rows, self.group)), shape=(len(rows), self.n_groups))


def information(profile: Float, share: Float) -> Float:
    """What a count of each gene says of the types at composition ``share`` [n_types], times its mean; [n_genes].

    The variance over types of the gene's mean, over its mean: Fisher information of Poisson counts in the amounts.
    """
    mean = np.maximum(share @ profile, 1e-300)
    return np.asarray((share[:, None] * (profile - mean) ** 2).sum(axis=0) / mean)


def sketch(profile: Float, share: Float, weight: Float, most: int) -> Sketch:
    """Groups of genes: the largest is halved along its principal axis until enough is kept, then genes swap groups.

    ``profile`` [n_types, n_genes]: mean counts; ``share`` [n_types] the section's composition; ``weight`` [n_genes].
    """
    mean = np.maximum(share @ profile, 1e-300)
    shape = np.sqrt(np.maximum(share, 1e-3))[None] * (profile / mean).T  # [n_genes, n_types]
    mass = np.maximum(weight * mean, 1e-12)
    centre = np.average(shape, axis=0, weights=mass)
    total = float((mass[:, None] * (shape - centre) ** 2).sum())
    if len(mass) <= most:
        return Sketch(np.arange(len(mass)), weight, len(mass), 1.0)
    group = _halved(shape, mass, most, (1 - KEPT) * total)
    for _ in range(N_SWAPS):
        centres = _centres(shape, mass, group)
        near = (centres**2).sum(axis=1)[None] - 2 * np.einsum("gk,ck->gc", shape, centres)
        group = np.unique(near.argmin(axis=1), return_inverse=True)[1].astype(np.intp)
    left = float((mass[:, None] * (shape - _centres(shape, mass, group)[group]) ** 2).sum())
    return Sketch(group, weight, int(group.max()) + 1, 1 - left / max(total, 1e-300))


def _centres(shape: Float, mass: Float, group: Int) -> Float:
    total = np.bincount(group, mass)
    return np.stack([np.bincount(group, mass * column) / total for column in shape.T], axis=1)


def _halved(shape: Float, mass: Float, most: int, enough: float) -> Int:
    group = np.zeros(len(mass), dtype=np.intp)
    loss = [np.inf]
    while len(loss) < most and sum(loss) > enough:
        worst = int(np.argmax(loss))
        members = np.flatnonzero(group == worst)
        upper = _upper_half(shape[members], mass[members])
        group[members[upper]] = len(loss)
        loss[worst] = _scatter(shape[members[~upper]], mass[members[~upper]])
        loss.append(_scatter(shape[members[upper]], mass[members[upper]]))
    return group


def _upper_half(shape: Float, mass: Float) -> NDArray[np.bool_]:
    """Members beyond the weighted mean along the axis of largest scatter; never none, never all."""
    centred = shape - np.average(shape, axis=0, weights=mass)
    scatter = np.einsum("gk,gl->kl", centred * mass[:, None], centred)
    axis = np.linalg.eigh(scatter)[1][:, -1]
    along = np.einsum("gk,k->g", centred, axis * np.sign(axis[np.abs(axis).argmax()]))
    upper = along > 0
    if upper.all() or not upper.any():
        upper = np.arange(len(mass)) >= len(mass) // 2
    return np.asarray(upper)


def _scatter(shape: Float, mass: Float) -> float:
    if len(mass) < 2:
        return 0.0
    return float((mass[:, None] * (shape - np.average(shape, axis=0, weights=mass)) ** 2).sum())
