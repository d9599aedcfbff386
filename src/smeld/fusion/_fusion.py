"""What a fusion method takes and returns, and the registry of methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld._registry import Registry

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Fusion:
    """Result of a fusion method.

    ``embedding`` float64 [n_obs, d]; ``weights`` symmetric CSR [n_obs, n_obs], the S x M x E edges; ``evidence`` a
    labelled table of what each modality adds, or None where the method has none; ``posterior_sd`` [n_obs, d] or
    None; ``expression`` [n_obs, d] the components before smoothing; ``loadings`` [n_genes, d] of the components, 0
    for genes that were not used; ``facts`` what was used, for the record.
    """

    embedding: NDArray[np.float64]
    weights: sparse.csr_matrix
    evidence: pd.DataFrame | None = None
    posterior_sd: NDArray[np.float64] | None = None
    expression: NDArray[np.float64] | None = None
    loadings: NDArray[np.float64] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


#: (counts, morphology or None, graph, *, batch, seed, **options) -> Fusion
FusionMethod = Callable[..., Fusion]
fusions: Registry[FusionMethod] = Registry("fusion method", "smeld.fusion", "smeld.fusions")
