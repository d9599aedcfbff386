"""The calibrated cross-product: independent genes that vary smoothly over the section are not called interacting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import crosscov, surrogates
from smeld.lr._statistic import LRResult, lr_stats

Float = NDArray[np.float64]


@lr_stats.add(
    "spatial", cite="Clifford, Richardson & Hemon 1989, doi:10.2307/2532039; Dutilleul 1993, doi:10.2307/2532625"
)
def spatial(
    genes: sparse.csc_matrix,
    pairs: NDArray[np.intp],
    weights: sparse.csr_matrix,
    xy_um: Float,
    *,
    basis: Float | None = None,
    seed: int = 0,
) -> LRResult:
    """Receptor times ligand around it, tested against independent fields of the same smoothness.

    T = sum_i x_i (W y)_i of centred values, x the receptor and y the ligand; its variance in closed form from the
    correlograms of x and W y. ``effect`` is the correlation of the two. ``basis`` [n_obs, q], orthonormal, is what is
    regressed out of both (library size, domains); None: the mean alone. ``seed`` draws the surrogates of
    ``lambda_surrogate`` and nothing else.
    """
    where = crosscov.lags(xy_um)

    def own(columns: NDArray[np.intp]) -> Float:
        return crosscov.residuals(genes, columns, basis)

    def beside(columns: NDArray[np.intp]) -> Float:
        return crosscov.around(weights, own(columns))

    ligands, at_ligand = np.unique(pairs[:, 0], return_inverse=True)
    receptors, at_receptor = np.unique(pairs[:, 1], return_inverse=True)
    first = crosscov.correlograms(where, lambda rows: own(receptors[rows]), len(receptors))
    second = crosscov.correlograms(where, lambda rows: beside(ligands[rows]), len(ligands))
    cross = crosscov.cross_products(own, pairs, weights)
    found = crosscov.test(cross, first[at_receptor], second[at_ligand], len(xy_um))
    lambda_ = surrogates.inflation(own, pairs, weights, xy_um, seed=seed)
    return LRResult(found.effect, found.zscore, found.pvalue, lambda_)
