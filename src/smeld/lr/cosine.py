"""The cosine of receptor and surrounding ligand, against permuted spots, as LIANA+ has it: for comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.lr._permuted import permuted
from smeld.lr._statistic import LRResult, lr_stats

Float = NDArray[np.float64]


def _cosine(own: Float, around: Float) -> Float:
    length = np.sqrt((own**2).sum()) * np.sqrt((around**2).sum(axis=0))
    return np.asarray(np.divide(own @ around, length, out=np.zeros(around.shape[1]), where=length > 0))


@lr_stats.add("cosine", cite="Dimitrov et al. 2024 (LIANA+), doi:10.1038/s41556-024-01469-w")
def cosine(
    genes: sparse.csc_matrix, pairs: NDArray[np.intp], weights: sparse.csr_matrix, xy_um: Float, *, seed: int = 0
) -> LRResult:
    """Cosine of the receptor and the ligand around it; 100 permutations of the spots.

    Permuted spots are not smooth: independent smooth genes pass far too often. For comparison with other tools.
    """
    return permuted(_cosine, genes, pairs, weights, seed)
