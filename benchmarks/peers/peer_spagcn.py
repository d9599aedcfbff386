"""SpaGCN (Hu et al. 2021) without histology, as its guide runs it, with its refinement."""

from __future__ import annotations

import random
from typing import Any

import _peer
import numpy as np
import scanpy as sc
import SpaGCN as spg
import torch

options = _peer.parser().parse_args()


def divide(adata: Any, k: int, seed: int) -> Any:
    torch.set_num_threads(1)
    x, y = (list(column) for column in adata.obsm["spatial"].T)
    adjacency = spg.calculate_adj_matrix(x=x, y=y, histology=False)
    spg.prefilter_genes(adata, min_cells=3)
    spg.prefilter_specialgenes(adata)
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    adata.X = adata.X.toarray()
    length = spg.search_l(0.5, adjacency, start=0.01, end=1000, tol=0.01, max_run=100)
    seeds = {"r_seed": seed, "t_seed": seed, "n_seed": seed}
    resolution = spg.search_res(
        adata, adjacency, length, k, start=0.7, step=0.1, tol=5e-3, lr=0.05, max_epochs=20, **seeds
    )
    model = spg.SpaGCN()
    model.set_l(length)
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  SpaGCN draws from numpy's global state
    model.train(adata, adjacency, init_spa=True, init="louvain", res=resolution, tol=5e-3, lr=0.05, max_epochs=200)
    found, _ = model.predict()
    hexagonal = "array_row" in adata.obs
    return spg.refine(
        sample_id=list(adata.obs_names),
        pred=list(found),
        dis=adjacency,
        shape="hexagon" if hexagonal else "square",
    )


_peer.main(options, divide, ("SpaGCN", "torch", "scanpy"))
