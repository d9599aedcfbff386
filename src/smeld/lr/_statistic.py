"""What a ligand-receptor statistic takes and returns, and the registry of statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld._registry import Registry

Float = NDArray[np.float64]


@dataclass(frozen=True)
class LRResult:
    """By pair, float64 [n_pairs]: ``effect`` (a correlation or a score, as the statistic says), ``zscore``, and the
    one-sided ``pvalue`` (more together than chance). ``lambda_surrogate`` how far the statistic holds on pairs of this
    section made independent on purpose (1: it does), and ``surrogates`` their p-values [n_turns, n_tests] (NaN: none),
    where the statistic looks at that. ``local`` CSR [n_obs, n_pairs], the score in those spots that are significant,
    where the statistic has a rule of its own."""

    effect: Float
    zscore: Float
    pvalue: Float
    lambda_surrogate: float | None = None
    surrogates: Float | None = None
    local: sparse.csr_matrix | None = None


#: (genes CSC [n_obs, n_units], pairs int [n_pairs, 2] of columns (ligand, receptor), weights CSR [n_obs, n_obs] whose
#: row i averages over the neighbours of spot i, xy_um [n_obs, 2], *, seed) -> LRResult. A statistic registered with
#: ``background=True`` is also given ``background``, CSC [n_obs, n_genes], the genes that are in no pair; one with
#: ``state=True`` also ``state`` [n_obs, k] (log library, then labels), ``types`` [n_obs, n_types], ``section`` [n_obs]
LRStatistic = Callable[..., LRResult]
lr_stats: Registry[LRStatistic] = Registry("interaction statistic", "smeld.lr", "smeld.lr_stats")
