"""GraphST (Long et al. 2023): graph self-supervised embedding, then a mixture with one shared covariance.

The authors cluster with R's mclust and its model EEE, which is that mixture; scikit-learn's stands in for it here.
"""

from __future__ import annotations

from typing import Any

import _peer
import torch
from GraphST import GraphST
from GraphST.utils import refine_label
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

options = _peer.parser().parse_args()


def divide(adata: Any, k: int, seed: int) -> Any:
    torch.set_num_threads(1)
    model = GraphST.GraphST(adata, device=torch.device("cpu"), random_seed=seed)
    # the same products with the zeros left out: dense, an epoch on cortex takes 5 s on one core
    model.adj = model.adj.to_sparse_csr()
    made = model.train()
    z = PCA(20, random_state=42).fit_transform(made.obsm["emb"])
    mixture = GaussianMixture(k, covariance_type="tied", n_init=5, random_state=seed)
    made.obs["found"] = mixture.fit_predict(z).astype(str)
    return refine_label(made, radius=50, key="found")


_peer.main(options, divide, ("GraphST", "torch", "scanpy"))
