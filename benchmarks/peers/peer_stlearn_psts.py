"""``python peer_stlearn_psts.py SECTION.h5ad --root CELL --groups COLUMN --out OUT.json``: stLearn's PSTS.

The steps and settings of its guide to trajectories, with the groups given. A cell's order is its ``dpt_pseudotime``:
diffusion pseudotime on a graph of 25 neighbours in the components of scaled logs. ``--space pca`` (its guide's way)
takes the components after each cell's have been added to the mean of its surroundings; ``--space diffmap`` does that
to the diffusion map (its ``use_sme``); ``--space none`` leaves space out. Its guide weighs the surroundings by
features that a network finds in the picture; no weights can be had offline, so all features are one here.

OUT has what peer_dpt.py writes, ``edges`` as [group, group, cost] of its arborescence over pieces of groups (a pair of
groups may come more than once), ``eps`` and, where it built no arborescence, ``edges_note``.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import _stlearn
import networkx as nx
import numpy as np
import pandas as pd
import peer_dpt
from scipy.spatial import cKDTree

#: in distances between spots: its guide's 50 pixels, for eps and radius both, on the 10x breast cancer section, whose
#: spots lie 22 pixels apart in the picture that it reads (diameter 177 pixels for 65 of 100 um, scale factor .0825)
REACH = 2.2
NEIGHBORS, USE = 25, "groups_as_numbers"


def parsed() -> Any:
    parser = peer_dpt.parser()
    parser.add_argument("--groups", required=True, help="column of obs")
    parser.add_argument("--space", choices=("none", "pca", "diffmap"), default="pca")
    parser.add_argument("--eps", type=float, help='in units of obsm["spatial"]; default 2.2 distances between spots')
    parser.add_argument("--model", choices=("spatial", "mixed", "gene_expression"), default="spatial")
    return parser.parse_args()


options = parsed()
st = _stlearn.load()


def order(adata: Any) -> dict[str, Any]:
    xy = np.asarray(adata.obsm["spatial"], dtype=float)
    adata.obs["imagecol"], adata.obs["imagerow"] = xy[:, 0], xy[:, 1]
    adata.obsm["X_morphology"] = np.ones((adata.n_obs, 2))
    eps = REACH * pitch(xy) if options.eps is None else options.eps
    # it calls int() on labels and, for its paths, takes them for positions: only "0", "1", ... in order will do;
    # its lists of pieces have no place for cells without a group
    groups = pd.Categorical(adata.obs[options.groups]).remove_unused_categories()
    if (groups.codes < 0).any():
        raise SystemExit("each cell needs a group")
    numbers = [str(i) for i in range(len(groups.categories))]
    adata.obs[USE] = pd.Categorical.from_codes(groups.codes, numbers)
    with contextlib.redirect_stdout(io.StringIO()):
        prepare(adata, eps)
        # since 1.4 use_rep is read only where run_knn is set: the graph is that of prepare(), as in its guide
        st.spatial.trajectory.pseudotime(
            adata, use_label=USE, eps=eps, radius=eps, use_rep="X_pca", use_sme=options.space == "diffmap"
        )
        found = arborescence(adata, list(groups.categories))
    return {**found, "eps": eps}


def pitch(xy: np.ndarray) -> float:
    """Median distance to the nearest other place."""
    apart = cKDTree(np.unique(xy, axis=0)).query(np.unique(xy, axis=0), k=2)[0]
    return float(np.median(apart[:, 1]))


def prepare(adata: Any, radius: float) -> None:
    """Components and graph, in the order of its guide."""
    st.pp.filter_genes(adata, min_cells=3)
    st.pp.normalize_total(adata)
    st.pp.log1p(adata)
    st.pp.scale(adata)
    st.em.run_pca(adata, n_comps=peer_dpt.components(adata), random_state=0)
    rep = "X_pca"
    if options.space == "pca":
        st.spatial.morphology.adjust(adata, use_data=rep, radius=radius, method="mean")
        rep = "X_pca_morphology"
    st.pp.neighbors(adata, n_neighbors=NEIGHBORS, use_rep=rep, random_state=0)


def arborescence(adata: Any, names: list[Any]) -> dict[str, Any]:
    """Edges of PTS_graph between pieces, each piece by its group's name.

    It joins only groups that follow one another by median pseudotime, and fails where PAGA has no edge between two
    such or a group has no piece of more than five cells; its default costs are distances in space alone.
    """
    try:
        st.spatial.trajectory.pseudotimespace_global(adata, use_label=USE, model=options.model)
    except (LookupError, ValueError, nx.NetworkXException) as error:  # the order of cells stands without it
        return {"edges": [], "edges_note": f"{type(error).__name__}: {error}"}
    graph = adata.uns["PTS_graph"]
    pairs = zip(adata.obs["sub_cluster_labels"], adata.obs[USE], strict=True)
    piece_group = {int(piece): str(names[int(code)]) for piece, code in pairs}
    made = graph["graph"].tocoo()
    pieces = [[int(graph["node_dict"][i]) for i in ends] for ends in (made.row, made.col)]
    return {
        "edges": [
            [piece_group[a], piece_group[b], float(cost)]
            for a, b, cost in zip(*pieces, made.data, strict=True)
            if a in piece_group and b in piece_group  # 9999 is a root that it adds
        ]
    }


if __name__ == "__main__":
    peer_dpt.main(options, order, ("stlearn", "scanpy", "numpy"))
