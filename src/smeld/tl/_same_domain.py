"""The probability that two spots share a domain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smeld import _adapt, _check, _keys
from smeld.kernels import consensus


def same_domain(data: Any, pairs: ArrayLike, *, key: str = _keys.DOMAIN, balanced: bool = False) -> NDArray[np.float64]:
    """Probability that the two spots of each pair lie in one domain, float64 [n_pairs].

    Made of the memberships of ``sm.tl.domains``: p_ij = sum_k p_ik p_jk. That holds for pairs as they come in the
    tissue, where most lie apart. For pairs chosen so that half lie together - as when a classifier of pairs is scored -
    the same evidence means more: ``balanced=True`` carries the odds over to that base rate. How far stated and true
    shares agree is measured in the project's benchmarks ("Is the confidence worth its name?").

    Parameters
    ----------
    data
        AnnData or SpatialData with one table.
    pairs
        Names of spots, or their numbers from 0, [n_pairs, 2].
    key
        Prefix of the domains, as ``key_added`` of ``sm.tl.domains``.
    balanced
        False: pairs as they come. True: pairs of which half lie together.

    Returns
    -------
    Probabilities in the order of ``pairs``. Nothing is written.

    Raises
    ------
    InputError
        If there are no memberships, or a spot is not there.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> found = sm.tl.domains(adata, 4)
    >>> sm.tl.same_domain(adata, [(0, 1), (0, 399)]).shape
    (2,)

    References
    ----------
    Change of base rate: Saerens, Latinne and Decaestecker, Neural Computation 14 (2002) 21.
    """
    adata = _adapt.table(data)
    name = key + _keys.PROB_SUFFIX
    _check.require(adata.obsm, name, "obsm", "run sm.tl.domains(adata) first")
    prob = np.asarray(adata.obsm[name], dtype=np.float64)
    index = _numbers(adata, np.asarray(pairs))
    base = consensus.base_rate(prob) if balanced else None
    return consensus.same_domain(prob[index[:, 0]], prob[index[:, 1]], base=base)


def _numbers(adata: Any, pairs: NDArray[Any]) -> NDArray[np.intp]:
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise _check.problem("pairs must have two columns", found=f"shape {pairs.shape}")
    if pairs.dtype.kind in "iu":
        number = pairs.astype(np.intp)
    else:
        number = adata.obs_names.get_indexer(pairs.ravel().astype(str)).reshape(pairs.shape)
    outside = (number < 0) | (number >= adata.n_obs)
    if outside.any():
        found = _check.listed(np.unique(pairs[outside].astype(str)), 3)
        raise _check.problem("not all spots of the pairs are there", found=found, cure="see adata.obs_names")
    return np.asarray(number)
