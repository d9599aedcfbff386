"""A stored order, made again from one half of the counts, beside the other half: what tests along it are made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.fusion import _variants
from smeld.kernels import expression, ordering, smooth, split
from smeld.kernels.ordering import Candidate
from smeld.tl import _trajectory_inputs
from smeld.tl._root import Start
from smeld.tl._trajectory_inputs import Section

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: ways to order of less weight than this, of the largest one's, are left out: the mean hardly shows them
LEAST_WEIGHT = 0.01
#: columns of the evidence that say how to order
WAYS = ("n_neighbors", "space_share", "smoothing")


@dataclass(frozen=True)
class Half:
    """``time`` [n_obs] from one half of the counts (NaN where the root does not lead); log-normalised ``genes`` CSR
    [n_obs, n_genes] and the ``library`` [n_obs] of the other half. Cells in canonical order."""

    time: Float
    genes: sparse.csr_matrix
    library: Float


@dataclass(frozen=True)
class Stored:
    """An order as it is in ``obs[key]``: ``order`` canonical, ``time`` [n_obs] in it (NaN where there is none), and
    the record of what ``made`` it (empty for a column of another's)."""

    key: str
    order: Int
    time: Float
    made: dict[str, Any]

    def input(self, name: str) -> str | None:
        """What the record says of an input."""
        said = str(self.made.get("inputs", {}).get(name, "none"))
        return None if said == "none" else said


def stored(adata: Any, key: str) -> Stored:
    """The order in ``obs[key]``."""
    _check.require(adata.obs, key, "obs", "run sm.tl.trajectory(adata, root) first")
    if adata.obs[key].dtype.kind not in "fiu":
        raise _check.problem(
            f"obs[{key!r}] holds no numbers", found=str(adata.obs[key].dtype), cure="name the column of a pseudotime"
        )
    order = _adapt.canonical_order(adata)
    time = np.asarray(adata.obs[key], dtype=np.float64)[order]
    made = dict(adata.uns.get(_keys.RECORD, {}).get(key, {}))
    return Stored(key, order, np.where(np.isfinite(time), time, np.nan), made)


@dataclass(frozen=True)
class Splitter:
    """All that is needed to make an order again: the ``section`` as fused, ``counts`` CSR of its cells, ``loadings``
    [n_genes, d] of its components, where it ``begins``, the cells ``reached``, and the ways to order with their
    weights."""

    section: Section
    counts: sparse.csr_matrix
    loadings: Float
    begins: Start
    reached: NDArray[np.bool_]
    candidates: list[Candidate]
    weight: Float

    def halves(self, n_splits: int, seed: int) -> Iterator[Half]:
        """Two by split: order from the one half of the counts, genes from the other, and the other way round."""
        dispersion = split.local_dispersion(self.counts, self.section.weights)
        for child in np.random.SeedSequence(seed).spawn(n_splits):
            first, second = split.thin(self.counts, 0.5, dispersion, np.random.default_rng(child))
            for seen, kept in ((first, second), (second, first)):
                yield whole(self.ordered(seen), kept)

    def ordered(self, counts: sparse.csr_matrix) -> Float:
        """The order [n_obs] from a part of the counts, by the weights of the stored one."""
        section = self._fused(counts)
        part = _trajectory_inputs.part(section, self.reached, self.begins)
        found = self.weight @ part.points.orders(part.points.size, self.candidates)
        time = np.full(len(section.order), np.nan)
        time[part.rows] = ordering.ranks(part.back @ found, np.ones(len(part.rows)))
        return time

    def _fused(self, counts: sparse.csr_matrix) -> Section:
        """The section with components of a part of its counts."""
        used = np.flatnonzero(np.abs(self.loadings).sum(axis=1) > 0)
        scaled = expression.scale_columns(expression.log_normalise(counts)[:, used])
        values = np.asarray(scaled @ self.loadings[used])
        values = _variants.recentred(values, self.section.values, self.section.section)
        beside = self.section.features[:, values.shape[1] :]
        smoothed = smooth.smooth(self.section.weights, values, self.section.alpha)
        return replace(self.section, values=values, features=np.hstack([smoothed, beside]))


def whole(time: Float, counts: sparse.csr_matrix, *, logged: bool = False) -> Half:
    """An order and the genes of ``counts``; ``logged`` where these are logarithms already."""
    library = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    genes = counts.astype(np.float64) if logged else expression.log_normalise(counts)
    return Half(time, sparse.csr_matrix(genes), library)


def splitter(adata: Any, found: Stored, counts: sparse.csr_matrix) -> Splitter | None:
    """None where the order cannot be made again: of another's making, values that are no counts, no loadings."""
    evidence, root = f"{found.key}_evidence", f"{found.key}_root"
    if not found.made or evidence not in adata.uns or root not in adata.obs or not _adapt.are_counts(counts):
        return None
    section = _trajectory_inputs.section(adata, found.input("use_rep"), found.input("batch_key"), 0)
    loadings = adata.varm.get(_keys.LOADINGS)
    if loadings is None or not _is_fused(section, loadings.shape[1]):
        return None
    table = adata.uns[evidence]
    if any(name not in table for name in (*WAYS, "weight")):  # of an earlier version
        return None
    weight = np.asarray(table["weight"], dtype=np.float64)
    kept = np.flatnonzero(weight >= LEAST_WEIGHT * weight.max())
    columns = [table[name].iloc[kept] for name in WAYS]
    return Splitter(
        section,
        counts,
        np.asarray(loadings, dtype=np.float64),
        Start(np.asarray(adata.obs[root], dtype=bool)[found.order], str(found.made["params"]["root"])),
        np.isfinite(found.time),
        [Candidate(int(k), float(s), float(a)) for k, s, a in zip(*columns)],
        weight[kept] / weight[kept].sum(),
    )


def _is_fused(section: Section, n_components: int) -> bool:
    """Whether the features are the smoothed values, and those of so many components."""
    values, features = section.values, section.features
    if values is features or values.shape[1] != n_components:
        return False
    smoothed = smooth.smooth(section.weights, values, section.alpha)
    return bool(np.allclose(smoothed, features[:, :n_components], atol=1e-6))
