"""The calibrated cross-product: independent genes that vary smoothly over the section are not called interacting."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld._progress import track
from smeld.kernels import pairtest
from smeld.kernels import surrogates as turned
from smeld.lr._statistic import LRResult, lr_stats

Float = NDArray[np.float64]


#: no value counts for more than the one of this rank from the top: a spot or two that have very much of a rare gene
#: would else carry any pair
MOST = 5


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
    part: NDArray[np.intp] | None = None,
    section: NDArray[np.intp] | None = None,
    surrogates: bool = True,
    made: pairtest.Section | None = None,
    seed: int = 0,
) -> LRResult:
    """Receptor times ligand around it, tested against independent fields of the same smoothness.

    Both maps have their smoothness taken off first, as far as it stands out of noise, and what the two share within a
    spot is left out (unless ``weights`` name the spot itself as a neighbour). No value counts for more than
    the gene's fifth largest. The statistic is sum_i x_i (W y)_i, x the
    receptor and y the ligand; its variance in closed form from the correlograms of x and W y. ``effect`` is the
    correlation of the receptor with the ligand around it. ``basis`` [n_obs, q], orthonormal, is what is regressed out
    of both (library size, domains); None: the mean alone. ``part`` (int [n_obs]) names regions whose correlograms are
    kept apart, ``section`` sections that are turned one by one for ``surrogates``; ``seed`` draws these and nothing
    else. ``made`` is :func:`pairtest.section` of these neighbours and regions, where there is one already.
    """
    made = made or pairtest.section(xy_um, weights, part)
    fields = pairtest.Genes(_capped(genes), basis)
    found = pairtest.test(made, fields, pairs, track=track)
    null = turned.pvalues(made, fields, pairs, xy_um, seed=seed, section=section) if surrogates else None
    lambda_ = None if null is None else turned.inflation(null)
    return LRResult(found.effect, found.zscore, found.pvalue, lambda_, null)


def _capped(genes: sparse.csc_matrix) -> sparse.csc_matrix:
    """Values of every column at most its ``MOST``-th largest one."""
    data = genes.data.copy()
    for start, stop in zip(genes.indptr, genes.indptr[1:]):
        if stop - start > MOST:
            column = data[start:stop]
            np.minimum(column, np.partition(column, -MOST)[-MOST], out=column)
    return sparse.csc_matrix((data, genes.indices, genes.indptr), shape=genes.shape)
