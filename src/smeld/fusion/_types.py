"""Components for cell types: of the most variable genes, neither chosen for space nor smoothed over it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _keys
from smeld.kernels import expression, sections

N_GENES, N_COMPONENTS = 2000, 20


def components(adata: Any, fused: str, seed: int) -> str:
    """Write ``obsm["X_types"]`` [n_obs, d] of the section that ``fused`` was made of, and return that key.

    Types lie scattered, so that what varies smoothly in space is the wrong choice of genes and components: taken are
    scanpy's highly variable genes and the leading components whatever their autocorrelation. Offsets between sections
    are removed as in ``sm.fuse``.
    """
    inputs = adata.uns.get(_keys.RECORD, {}).get(fused, {}).get("inputs", {})
    layer, batch_key = str(inputs.get("layer", "X")), str(inputs.get("batch_key", "none"))
    order = _adapt.canonical_order(adata)
    counts = _adapt.counts(adata, None if layer == "X" else layer)[order]
    logged = counts.astype(np.float64) if _adapt.look_logged(counts) else expression.log_normalise(counts)
    genes = _variable(logged)
    scores, loadings, _ = expression.scaled_pca(logged[:, genes], N_COMPONENTS, seed=seed)
    section, names = _adapt.sections(adata, None if batch_key == "none" else batch_key)
    if len(names) > 1:
        scores = scores - sections.offsets(scores, section[order], seed=np.random.SeedSequence(seed))[section[order]]
    adata.obsm[_keys.TYPE_PCA] = scores[np.argsort(order)]
    whole = np.zeros((adata.n_vars, scores.shape[1]))
    whole[genes] = loadings.T
    adata.varm[_keys.TYPE_LOADINGS] = whole
    params = {"alpha": 0.0, "n_genes": len(genes), "n_components": scores.shape[1]}
    _keys.record(adata, _keys.TYPE_PCA, function="sm.tl.domains", params=params, seed=seed, inputs=dict(inputs))
    return _keys.TYPE_PCA


def _variable(logged: Any) -> NDArray[np.intp]:
    import anndata as ad
    import scanpy as sc

    if logged.shape[1] <= N_GENES:
        seen = np.asarray((logged > 0).sum(axis=0)).ravel() >= min(expression.MIN_SPOTS, logged.shape[0])
        return np.flatnonzero(seen) if seen.any() else np.arange(logged.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sc.pp.highly_variable_genes(ad.AnnData(logged), n_top_genes=N_GENES, inplace=False)
    return np.flatnonzero(found["highly_variable"].to_numpy())
