"""The graph of groups along an order: parents, support, branches, terminals and the chance to end in each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _keys
from smeld.kernels import coarse, lineage, ordering, pieces
from smeld.kernels.ordering_evidence import Points

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: a step loses this much of its weight by e: those that leap ahead, as across a fold, count little
LEAP = 0.05
#: pieces of a group with fewer cells than this, or than this share of all, are no nodes of their own
FEWEST, SHARE = 10, 0.005
#: flows below this are not listed
LEAST_FLOW = 0.02
LEVELS = ("group", "piece")


@dataclass(frozen=True)
class Grown:
    """Tables of ``nodes`` and ``edges`` (both levels); ``branch`` by cell and their names; ``fates`` by point
    [n_points, n_terminals]; ``terminals`` by name; ``groups`` the column, its names, and the ``flow`` between them."""

    nodes: pd.DataFrame
    edges: pd.DataFrame
    branch: list[str | None]
    branch_names: list[str]
    fates: Float
    terminals: list[str]
    groups: str
    names: list[str]
    flow: Float
    parent: Int


class Tree:
    """Groups of the cells ``rows`` (canonical numbers), as seen from the points that stand for them."""

    def __init__(
        self, adata: Any, groups: str, rows: Int, made: coarse.Coarse, points: Points, weights: sparse.csr_matrix
    ) -> None:
        order = _adapt.canonical_order(adata)
        number, self.names = _adapt.numbered(adata.obs[groups])
        self.groups, self.made, self.points = groups, made, points
        self.label = number[order][rows]
        self.xy = _adapt.xy_um(adata)[order][rows]
        rank = pieces.connected_pieces(self.label, weights)
        self.piece, self.piece_names = self._pieces(rank)

    def _pieces(self, rank: Int) -> tuple[Int, list[str]]:
        """Number of the piece of every cell, -1 in small ones, and their names."""
        least = max(FEWEST, SHARE * len(rank))
        out = np.full(len(rank), -1, dtype=np.intp)
        names: list[str] = []
        for k, name in enumerate(self.names):
            mine = self.label == k
            large = np.flatnonzero(np.bincount(rank[mine]) >= least).tolist()
            for r in large or ([0] if mine.any() else []):
                out[mine & (rank == r)] = len(names)
                names.append(f"{name}.{r + 1}")
        return out, names

    def grown(self, order: Float, draws: Float) -> Grown:
        """The tree along ``order`` (by point), its support from ``draws`` [n_draws, n_points]."""
        import pandas as pd

        levels = {"group": (self.label, self.names), "piece": (self.piece, self.piece_names)}
        tables = [self._level(level, *levels[level], order, draws) for level in LEVELS]
        nodes = pd.concat([t[0] for t in tables], ignore_index=True)
        edges = pd.concat([t[1] for t in tables if len(t[1])] or [tables[0][1]], ignore_index=True)
        flow, parent, stretch, ends = tables[0][2]
        names = _branch_names(stretch, self.names)
        branch = [names[stretch[k]] if k >= 0 and stretch[k] >= 0 else None for k in self.label]
        terminal = np.full(len(self.points.size), -1, dtype=np.intp)
        at = self.label[self.made.at]
        for i, k in enumerate(ends):
            terminal[at == k] = i
        fates = lineage.fates(self._walk(order), order, terminal, max(len(ends), 1))
        terminals = [self.names[k] for k in ends] or [self.names[0]]
        kept = [n for k, n in names.items() if (stretch == k).any()]
        return Grown(nodes, edges, branch, kept, fates, terminals, self.groups, self.names, flow, parent)

    def _walk(self, order: Float) -> sparse.csr_matrix:
        edges = self.points.space.tocoo()
        leap = np.exp(-np.abs(order[edges.row] - order[edges.col]) / LEAP)
        made = sparse.csr_matrix((edges.data * leap, (edges.row, edges.col)), shape=edges.shape)
        made.sort_indices()
        return made

    def _one(self, node: Int, n_nodes: int, order: Float) -> tuple[Float, Float, Int, Int]:
        """(flow, middle of every node, parents, the nodes that the root makes up)."""
        size = self.points.size
        flow = lineage.flows(self._walk(order), order, node, size, n_nodes)
        middle = np.array([np.median(order[node == k]) if (node == k).any() else np.nan for k in range(n_nodes)])
        inside = node[self.points.root]
        held = np.bincount(inside[inside >= 0], size[self.points.root][inside >= 0], n_nodes)
        size_of = np.bincount(node[node >= 0], size[node >= 0], n_nodes)
        starts = np.flatnonzero((held > size_of / 2) & (size_of > 0))
        if not len(starts):  # a root smaller than any node
            starts = np.array([held.argmax() if held.any() else np.nanargmin(middle)], dtype=np.intp)
        return flow, middle, lineage.arborescence(flow, middle, starts), starts

    def _level(self, level: str, cell: Int, names: list[str], order: Float, draws: Float) -> tuple[Any, Any, Any]:
        import pandas as pd

        node, n = cell[self.made.at], len(names)
        flow, middle, _, starts = self._one(node, n, order)
        support = np.zeros((n, n))
        for draw in draws:
            found = self._one(node, n, draw)[2]
            support[found[found >= 0], np.flatnonzero(found >= 0)] += 1 / len(draws)
        # the parent that most draws agree on; of equals the one of larger flow
        parent = lineage.arborescence(support.T + 1e-6 * flow, middle, starts)
        stretch, ends = lineage.branches(parent, starts)
        called = _branch_names(stretch, names)
        rows = []
        for k, name in enumerate(names):
            here = cell == k
            if not here.any():
                continue
            spread = order[node == k]
            low, high = np.quantile(spread, [0.1, 0.9]) if len(spread) else (np.nan, np.nan)
            rows.append(
                {
                    "level": level,
                    "node": name,
                    "n_cells": int(here.sum()),
                    "pseudotime": float(middle[k]),
                    "pseudotime_10": float(low),
                    "pseudotime_90": float(high),
                    "parent": names[parent[k]] if parent[k] >= 0 else "none",
                    "support": float(support[parent[k], k]) if parent[k] >= 0 else np.nan,
                    "branch": called.get(int(stretch[k]), "none"),
                    "root": k in starts,
                    "terminal": k in ends,
                    "x_um": float(self.xy[here, 0].mean()),
                    "y_um": float(self.xy[here, 1].mean()),
                }
            )
        links = [
            {
                "level": level,
                "from": names[a],
                "to": names[b],
                "flow": float(flow[b, a]),
                "support": float(support[a, b]),
                "in_tree": bool(parent[b] == a),
            }
            for b in range(n)
            for a in range(n)
            if flow[b, a] >= LEAST_FLOW or support[a, b] > 0 or parent[b] == a
        ]
        columns = ["level", "from", "to", "flow", "support", "in_tree"]
        return pd.DataFrame(rows), pd.DataFrame(links, columns=columns), (flow, parent, stretch, ends)


def _branch_names(stretch: Int, names: list[str]) -> dict[int, str]:
    """The trunk, and each further stretch by the groups on it."""
    out = {}
    for k in sorted(set(stretch[stretch >= 0].tolist())):
        out[k] = "trunk" if k == 0 else "branch " + "-".join(names[i] for i in np.flatnonzero(stretch == k))
    return out


def for_scanpy(adata: Any, tree: Grown) -> None:
    """What scanpy's plots look for, where nothing of another's is in the way."""
    made = adata.uns.get(_keys.RECORD, {})
    if "dpt_pseudotime" not in adata.obs or "dpt_pseudotime" in made:
        adata.obs["dpt_pseudotime"] = adata.obs[_keys.PSEUDOTIME].to_numpy()
        _keys.record(adata, "dpt_pseudotime", function="sm.tl.trajectory", params={"copy_of": _keys.PSEUDOTIME})
    if "paga" in adata.uns and not adata.uns["paga"].get("smeld"):
        return
    n = len(tree.names)
    parents = np.flatnonzero(tree.parent >= 0)
    grown = sparse.csr_matrix((np.ones(len(parents)), (tree.parent[parents], parents)), shape=(n, n))
    both = np.maximum(tree.flow, tree.flow.T)
    adata.uns["paga"] = {
        "connectivities": sparse.csr_matrix(both),
        "connectivities_tree": sparse.csr_matrix(grown + grown.T),
        "transitions_confidence": sparse.csr_matrix(tree.flow),
        "groups": tree.groups,
        "smeld": True,
    }


def transition_matrix(data: Any, *, key: str = _keys.PSEUDOTIME, leap: float = 0.1) -> sparse.csr_matrix:
    """Chances to step from each cell to its neighbours in the S x M x E graph, forward along pseudotime. Computes only.

    Steps back are not forbidden but lose weight, exp(-drop / ``leap``), so that a walk forgets no cell.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, after ``sm.tl.trajectory``.
    key
        Column of ``obs`` with the order.
    leap
        Drop in pseudotime at which the weight of a step back falls by e.

    Returns
    -------
    CSR [n_obs, n_obs], rows sum to 1; cells without pseudotime, and those without neighbours, stay where they are.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, image=False, seed=1)
    >>> found = sm.tl.trajectory(adata, "D1", groups="truth_domain", n_bootstraps=4)
    >>> steps = sm.tl.transition_matrix(adata)
    >>> bool(abs(steps.sum(axis=1) - 1).max() < 1e-9)
    True

    References
    ----------
    Pseudotime-directed kernels: Lange et al. 2022, doi:10.1038/s41592-021-01346-6.
    """
    from smeld import _check

    adata = _adapt.table(data)
    _check.require(adata.obs, key, "obs", "run sm.tl.trajectory(adata, root) first")
    _check.require(adata.obsp, _keys.SME_WEIGHTS, "obsp", "run sm.fuse(adata) first")
    if adata.obs[key].dtype.kind not in "fiu":
        raise _check.problem(f"obs[{key!r}] holds no numbers", cure="name a column that sm.tl.trajectory wrote")
    if not leap > 0:
        raise _check.problem("leap must be above 0", found=str(leap))
    order = np.asarray(adata.obs[key], dtype=np.float64)
    edges = ordering.even(adata.obsp[_keys.SME_WEIGHTS]).tocoo()
    gain = order[edges.col] - order[edges.row]
    share = np.where(np.isfinite(gain), edges.data * np.exp(np.minimum(gain, 0.0) / leap), 0.0)
    made = sparse.csr_matrix((share, (edges.row, edges.col)), shape=edges.shape)
    total = np.asarray(made.sum(axis=1)).ravel()
    made = sparse.diags(np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)) @ made
    made = sparse.csr_matrix(made + sparse.diags((total <= 0).astype(np.float64)))
    made.eliminate_zeros()
    made.sort_indices()
    return made


def cellrank_kernel(data: Any, *, key: str = _keys.PSEUDOTIME) -> Any:
    """The steps of :func:`transition_matrix` as a kernel that CellRank takes. Needs ``pip install 'smeld[cellrank]'``.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, after ``sm.tl.trajectory``.
    key
        Column of ``obs`` with the order.

    Returns
    -------
    ``cellrank.kernels.PrecomputedKernel``.

    Raises
    ------
    InputError
        Where CellRank is not installed.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, image=False, seed=1)
    >>> found = sm.tl.trajectory(adata, "D1", groups="truth_domain", n_bootstraps=4)
    >>> kernel = sm.tl.cellrank_kernel(adata)  # doctest: +SKIP
    """
    from smeld import _check

    try:
        kernels = importlib.import_module("cellrank.kernels")
    except ImportError as error:
        raise _check.problem("CellRank is not installed", cure="pip install 'smeld[cellrank]'") from error
    return kernels.PrecomputedKernel(transition_matrix(data, key=key), adata=_adapt.table(data))
