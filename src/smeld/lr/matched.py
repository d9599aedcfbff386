"""stLearn's score against pairs of genes of like distribution: for comparison."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.kernels import matched as kernel
from smeld.lr._statistic import LRResult, lr_stats

Float = NDArray[np.float64]

#: false discovery rate over the pairs of a spot
FDR = 0.05
#: genes of which null pairs can be made at all
MIN_BACKGROUND = 20


@lr_stats.add("matched", cite="Pham et al. 2023 (stLearn), doi:10.1038/s41467-023-43120-6", background=True)
def matched(
    genes: sparse.csc_matrix,
    pairs: NDArray[np.intp],
    weights: sparse.csr_matrix,
    xy_um: Float,
    *,
    background: sparse.csc_matrix,
    seed: int = 0,
) -> LRResult:
    """Score of partners here and around, against pairs of other genes that are distributed alike over the spots.

    Genes of like distribution need not be as smooth: this null leaves 62 to 100 % of *independent* smooth pairs with
    ten or more "significant" spots (13 to 20 % where a hundred pairs are tested together and all other genes are as
    smooth as they). It is for comparison with stLearn; ``"spatial"`` is calibrated.

    ``effect`` is the mean score over the spots; ``zscore`` and ``pvalue`` place it among the mean scores of the null
    pairs. ``local`` holds the score of spots whose own p, adjusted over the pairs of the spot, is at most .05. Null
    pairs are all pairs of the two sets of genes, about four times as many as stLearn draws, so nothing is drawn:
    ``seed`` changes nothing. Not stLearn's: p is (b + 1) / (N + 1).

    Raises
    ------
    InputError
        If fewer than 20 genes outside all pairs are seen here.
    """
    n_seen = int((background.max(axis=0).toarray() > 0).sum())
    if n_seen < MIN_BACKGROUND:
        raise _check.problem(
            f"statistic='matched' compares with genes that are in no pair and needs {MIN_BACKGROUND} of them",
            found=f"{n_seen} genes outside the pairs",
            cure="statistic='spatial' needs no background",
        )
    pairs = np.asarray(pairs, dtype=np.intp)
    sets = kernel.like(genes, background)
    n_null, sums = kernel.null_pairs(sets, pairs), kernel.no_sums(sets, pairs)
    total, local = np.zeros(len(pairs)), []
    for block in kernel.blocks(sets, pairs, weights, sums):
        total += block.score.sum(axis=1)
        called = kernel.significant(kernel.spot_pvalues(block, n_null), block.score > 0, FDR)
        local.append(sparse.csr_matrix(np.where(called, block.score, 0.0).T))
    found = kernel.means(total / genes.shape[0], sets, pairs, sums)
    whole = sparse.csr_matrix(sparse.vstack(local, format="csr"))
    return LRResult(found.effect, found.zscore, found.pvalue, local=whole)
