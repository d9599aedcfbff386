"""stLearn 1.4.1 as its guide to clustering runs it: PCA, SME normalisation, scale, PCA, KMeans."""

from __future__ import annotations

from typing import Any

import _peer
import _stlearn

parser = _peer.parser()
parser.add_argument("--weights", default="weights_matrix_pd_gd")
options = parser.parse_args()
st = _stlearn.load()


def divide(adata: Any, k: int, seed: int) -> Any:
    _stlearn.prepare(adata, seed)
    st.pp.filter_genes(adata, min_cells=1)
    st.pp.normalize_total(adata)
    st.pp.log1p(adata)
    st.em.run_pca(adata, n_comps=50, random_state=seed)
    made = adata.copy()
    st.spatial.sme.sme_normalize(made, use_data="raw", weights=options.weights)
    made.X = made.obsm["raw_SME_normalized"]
    st.pp.scale(made)
    st.em.run_pca(made, n_comps=50, random_state=seed)
    st.tl.clustering.kmeans(made, n_clusters=k, use_data="X_pca", key_added="found", random_state=seed)
    return made.obs["found"].to_numpy()


_peer.main(options, divide, ("stlearn", "scanpy", "numpy"))
