"""Quality control: totals, genes seen, mitochondrial share; spots without counts are dropped, with a warning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.kernels import rows

#: mitochondrial genes by symbol, human and mouse
MITOCHONDRIAL = ("MT-", "mt-", "Mt-")
#: a spot is marked low where log counts lie this many robust standard deviations below the median, as is usual
LOW_MADS = 3.0


@dataclass(frozen=True)
class QualityControl:
    """Counts of spots and genes before and after, and how many spots are marked as low."""

    n_obs_before: int
    n_obs: int
    n_vars: int
    n_empty: int
    n_low: int


def quality_control(data: Any, *, min_counts: float = 1, layer: str | None = None) -> QualityControl:
    """Measure quality and drop spots with fewer than ``min_counts`` counts. Works in place.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table.
    min_counts
        Spots with fewer counts are dropped; 1 drops only empty ones.
    layer
        Layer that holds the counts; ``X`` by default.

    Writes
    ------
    ``obs["total_counts"]``, ``obs["n_genes_by_counts"]``, ``obs["pct_counts_mt"]`` (where mitochondrial genes are in
    the table), ``obs["low_counts"]`` (log counts more than 3 robust standard deviations below the median: marked, not
    dropped), ``var["total_counts"]``, ``var["n_cells_by_counts"]`` - scanpy's names.

    Raises
    ------
    InputError
        If fewer than 2 spots are left, or values are negative or not finite.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> sm.tl.quality_control(adata).n_obs
    400
    """
    adata = _adapt.table(data)
    counts = _adapt.rows(adata, layer)
    before = adata.n_obs
    mitochondrial = np.asarray(adata.var_names.str.startswith(MITOCHONDRIAL))
    total, n_genes, share, (n_seen, by_gene, _) = _sums(counts, mitochondrial, min_counts)
    keep = total >= min_counts
    if keep.sum() < 2:
        raise _check.problem(
            "fewer than 2 spots have enough counts",
            found=f"{int(keep.sum())} with >= {min_counts:g}",
            cure="lower min_counts",
        )
    if not keep.all():
        dropped = int((~keep).sum())
        adata._inplace_subset_obs(keep)
        total, n_genes, share = total[keep], n_genes[keep], share[keep]
        what = "without counts" if min_counts <= 1 else f"with fewer than {min_counts:g} counts"
        _check.warn(f"{dropped} of {before} spots {what} were dropped.", adata)
    adata.obs["total_counts"] = total
    adata.obs["n_genes_by_counts"] = n_genes
    if mitochondrial.any():
        adata.obs["pct_counts_mt"] = 100 * share / np.maximum(total, 1e-12)
    logged = np.log1p(total)
    centre = np.median(logged)
    spread = 1.4826 * np.median(np.abs(logged - centre))
    low = logged < centre - LOW_MADS * spread
    adata.obs["low_counts"] = low
    adata.var["total_counts"] = by_gene[0]
    adata.var["n_cells_by_counts"] = n_seen[0]
    _keys.record(
        adata,
        "quality_control",
        function="sm.tl.quality_control",
        params={"min_counts": min_counts, "layer": layer},
    )
    return QualityControl(before, adata.n_obs, adata.n_vars, before - adata.n_obs, int(low.sum()))


def _sums(
    counts: rows.Rows, mitochondrial: NDArray[np.bool_], min_counts: float
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64], rows.Sums]:
    """(counts, genes seen, counts of mitochondrial genes) of every spot, float64, exact beyond 2^24; and the sums of
    every gene over the spots that are kept. The table is gone through once."""
    n = len(counts)
    total, n_genes, share = np.empty(n), np.empty(n, dtype=np.int32), np.empty(n)
    by_gene = rows.no_sums(1, counts.shape[1])
    for start, block in counts.blocks():
        here = slice(start, start + block.shape[0])
        total[here] = rows.row_sums(block)
        n_genes[here] = np.diff(block.indptr)
        share[here] = block.astype(np.float64) @ mitochondrial
        rows.add_rows(by_gene, block, (total[here] >= min_counts).astype(np.int64) - 1)
    return total, n_genes, share, by_gene
