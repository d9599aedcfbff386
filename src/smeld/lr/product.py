"""The mean product of receptor and surrounding ligand, against permuted spots: for comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.lr._permuted import permuted
from smeld.lr._statistic import LRResult, lr_stats

Float = NDArray[np.float64]


@lr_stats.add("product", cite="as in Efremova et al. 2020 (CellPhoneDB), doi:10.1038/s41596-020-0292-x, on spots")
def product(
    genes: sparse.csc_matrix, pairs: NDArray[np.intp], weights: sparse.csr_matrix, xy_um: Float, *, seed: int = 0
) -> LRResult:
    """Mean over spots of the receptor times the ligand around it; 100 permutations of the spots.

    Permuted spots are not smooth: independent smooth genes pass far too often. For comparison with other tools.
    """
    return permuted(lambda own, around: own @ around / len(own), genes, pairs, weights, seed)
