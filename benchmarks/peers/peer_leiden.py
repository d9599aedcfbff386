"""scanpy's Leiden on expression; with ``--joint`` on a weighted sum of expression and squidpy's spatial graph."""

from __future__ import annotations

from typing import Any

import _peer
import scanpy as sc

parser = _peer.parser()
parser.add_argument("--joint", action="store_true")
options = parser.parse_args()
#: squidpy's guide adds one part of space to four of expression
SPACE = 0.2


def divide(adata: Any, k: int, seed: int) -> Any:
    made = _peer.recipe(adata, seed)
    sc.pp.neighbors(made, random_state=seed)
    graph = made.obsp["connectivities"]
    if options.joint:
        import squidpy as sq

        sq.gr.spatial_neighbors(made, coord_type="generic", n_neighs=6)
        graph = (1 - SPACE) * graph + SPACE * made.obsp["spatial_connectivities"]

    def leiden(resolution: float) -> Any:
        sc.tl.leiden(
            made,
            resolution=resolution,
            adjacency=graph,
            random_state=seed,
            flavor="igraph",
            n_iterations=2,
            directed=False,
        )
        return made.obs["leiden"].to_numpy()

    return _peer.search(leiden, k)


_peer.main(options, divide, ("scanpy", "igraph", *(["squidpy"] if options.joint else [])))
