"""Scores against permuted spots: the null of exchangeable spots that other tools use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.lr._statistic import LRResult

Float = NDArray[np.float64]
N_PERMUTATIONS = 100


def permuted(
    score: Callable[[Float, Float], Float],
    genes: sparse.csc_matrix,
    pairs: NDArray[np.intp],
    weights: sparse.csr_matrix,
    seed: int,
) -> LRResult:
    """``score(receptor values [n_obs], ligand around it [n_obs, m])`` -> [m], against receptors dealt out at random.

    p = (1 + permuted scores at least as large) / (1 + permutations), never 0; z from their mean and spread.
    """
    rng = np.random.default_rng(seed)
    orders = np.stack([rng.permutation(genes.shape[0]) for _ in range(N_PERMUTATIONS)])
    effect, z, p = (np.zeros(len(pairs)) for _ in range(3))
    for i, (ligand, receptor) in enumerate(pairs):
        around = np.asarray(weights @ genes[:, [ligand]].toarray())
        own = genes[:, [receptor]].toarray().ravel()
        effect[i] = score(own, around)[0]
        null = score(own, around[orders, 0].T)
        spread = float(null.std())
        z[i] = (effect[i] - null.mean()) / spread if spread > 0 else 0.0
        p[i] = (1 + (null >= effect[i]).sum()) / (1 + N_PERMUTATIONS)
    return LRResult(effect, z, p)
