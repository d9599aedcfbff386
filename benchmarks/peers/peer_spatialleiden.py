"""SpatialLeiden (Mueller-Boetticher et al. 2025): a Leiden partition of two graphs at once."""

from __future__ import annotations

from typing import Any

import _peer
import scanpy as sc
import spatialleiden as sl
import squidpy as sq

options = _peer.parser().parse_args()


def divide(adata: Any, k: int, seed: int) -> Any:
    made = _peer.recipe(adata, seed)
    sc.pp.neighbors(made, random_state=seed)
    sq.gr.spatial_neighbors(made, coord_type="generic", n_neighs=6)
    made.obsp["spatial_connectivities"] = sl.distance2connectivity(made.obsp["spatial_distances"])
    settings = {"random_state": seed}
    # its ratio of 1.8 and the search over both resolutions are those of its guide
    found = sl.search_resolution(made, k, latent_kwargs=settings, spatial_kwargs={"layer_ratio": 1.8, **settings})
    sl.spatialleiden(made, resolution=found, layer_ratio=1.8, random_state=seed)
    return made.obs["spatialleiden"].to_numpy()


_peer.main(options, divide, ("spatialleiden", "squidpy", "scanpy", "leidenalg"))
