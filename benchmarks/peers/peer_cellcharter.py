"""CellCharter (Varrone et al. 2024): components of a spot and of its neighbourhood's layers, Gaussian mixture."""

from __future__ import annotations

from typing import Any

import _peer
import cellcharter as cc
import squidpy as sq

options = _peer.parser().parse_args()
#: rings around a spot; 4 is the number its authors use for Visium
LAYERS = 4


def divide(adata: Any, k: int, seed: int) -> Any:
    made = _peer.recipe(adata, seed)
    lattice = "array_row" in made.obs
    sq.gr.spatial_neighbors(made, coord_type="generic", n_neighs=6, delaunay=not lattice)
    cc.gr.aggregate_neighbors(made, n_layers=LAYERS if lattice else 3, use_rep="X_pca")
    trainer = {"accelerator": "cpu", "enable_progress_bar": False}
    model = cc.tl.Cluster(n_clusters=k, random_state=seed, trainer_params=trainer)
    model.fit(made, use_rep="X_cellcharter")
    return model.predict(made, use_rep="X_cellcharter")


_peer.main(options, divide, ("cellcharter", "torch", "scanpy"))
