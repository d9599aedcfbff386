"""Who can reach whom: averages over neighbours, by range of the ligand, cut where tissue bars the way."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from smeld import _check, _keys, _progress
from smeld.kernels.graph import SpatialGraph, row_normalise, sectioned_graph
from smeld.lr._resource import RANGES

Float = NDArray[np.float64]
#: None, micrometres, micrometres by range, or "range": see ``sm.tl.interactions``
Radius = float | Mapping[str, float] | str | None

#: how far a secreted ligand reaches with radius_um="range": 100 to 200 micrometres in tissue, of which the middle
#: (Francis & Palsson 1997, doi:10.1073/pnas.94.23.12258, estimate up to 250)
SECRETED_UM = 150.0
#: a link weaker than this share of an open one is cut
CUT = 0.05
#: rows of the shortest paths that are held together
ROWS = 256


def links(
    xy: Float,
    section: NDArray[np.intp],
    *,
    radius_um: Radius,
    within_spot: bool,
    barrier: sparse.csr_matrix | None,
) -> dict[str, sparse.csr_matrix]:
    """By range of the ligand, the CSR matrix whose row i averages over what reaches spot i.

    Ranges that have the same reach share one matrix. Links never leave a section.
    """
    radii = _radii(radius_um)
    made: dict[tuple[float | None, bool], sparse.csr_matrix] = {}
    out = {}
    for name in RANGES:
        fades = name == "secreted" and not isinstance(radius_um, Real) and radii[name] is not None
        key = (radii[name], fades)
        if key not in made:
            made[key] = _averages(_graph(xy, section, radii[name]), fades, within_spot, barrier)
        out[name] = made[key]
    return out


def store(adata: Any, xy: Float, section: NDArray[np.intp], order: NDArray[np.intp]) -> None:
    """The default neighbours in obsp where the section has none, for plots and other packages."""
    if _keys.CONNECTIVITIES not in adata.obsp:
        graph, back = _graph(xy, section, None), np.argsort(order)
        adata.obsp[_keys.CONNECTIVITIES] = graph.connectivities[back][:, back]
        adata.obsp[_keys.DISTANCES] = graph.distances[back][:, back]


def _radii(radius_um: Radius) -> dict[str, float | None]:
    """Micrometres by range; None is the default graph."""
    if radius_um is None or isinstance(radius_um, Real):
        return dict.fromkeys(RANGES, None if radius_um is None else float(radius_um))
    if isinstance(radius_um, str):
        if radius_um != "range":
            raise _check.unknown("reach", radius_um, ("range",))
        radius_um = {"secreted": SECRETED_UM}
    if not isinstance(radius_um, Mapping):
        raise _check.problem(
            "radius_um must be micrometres, 'range', or micrometres by range", found=type(radius_um).__name__
        )
    for name, value in radius_um.items():
        if name not in RANGES:
            raise _check.unknown("range", name, RANGES)
        if not (isinstance(value, Real) and np.isfinite(value) and value > 0):
            raise _check.problem("a radius must be above 0 micrometres", found=f"{name}: {value}")
    return {name: None if name not in radius_um else float(radius_um[name]) for name in RANGES}


def _graph(xy: Float, section: NDArray[np.intp], radius: float | None) -> SpatialGraph:
    settings: dict[str, Any] = {} if radius is None else {"kind": "radius", "radius_um": radius}
    if radius is not None and radius > 0:
        tree = cKDTree(xy)
        needed, there = 5e-8 * float(tree.count_neighbors(tree, radius)), _progress.available_gb()
        if there is not None and needed > there:
            raise _check.problem(
                f"links as far as {radius:g} um need about {needed:.0f} GB of memory",
                found=f"{there:.1f} GB to be had",
                cure="give a smaller radius_um; coordinates must be in micrometres",
            )
    try:
        return sectioned_graph(xy, section, **settings)
    except ValueError as error:
        raise _check.problem(str(error)) from error


def _averages(
    graph: SpatialGraph, fades: bool, within_spot: bool, barrier: sparse.csr_matrix | None
) -> sparse.csr_matrix:
    """Rows of spots without neighbours are empty."""
    edges = graph.connectivities.copy()
    if fades:
        radius = float(graph.distances.data.max(initial=1.0))
        edges.data = np.exp(-2 * (graph.distances.data / radius) ** 2)  # a Gaussian of half the radius
    if barrier is not None:
        edges = _barred(graph, edges, barrier)
    if within_spot:
        edges = sparse.csr_matrix(edges + sparse.identity(edges.shape[0], format="csr"))
    made = row_normalise(edges)
    made.sort_indices()  # or else the first operation that sorts them would change the order of later sums
    return made


def openness(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """How open each edge of a weighted graph is: its weight over the median, at most 1, the same both ways."""
    both = sparse.csr_matrix(weights, dtype=np.float64).maximum(weights.T).tocsr()
    both.setdiag(0)
    both.eliminate_zeros()
    both.sort_indices()
    typical = float(np.median(both.data)) if both.nnz else 1.0
    both.data = np.minimum(both.data / max(typical, 1e-300), 1.0)
    return both


def _barred(graph: SpatialGraph, edges: sparse.csr_matrix, open_: sparse.csr_matrix) -> sparse.csr_matrix:
    """Links times the openness of the best way between their ends, along edges of ``open_``; below ``CUT`` none.

    A detour weakens, too: one as long as the longest link cuts it. The way costs -log of the openness of its edges and
    its length, of which the cost of the shortest way without barriers is taken off.
    """
    per_um = -np.log(CUT) / max(float(graph.distances.data.max(initial=0.0)), 1e-9)
    ways = sparse.coo_matrix(open_)
    length = np.linalg.norm(graph.xy_um[ways.row] - graph.xy_um[ways.col], axis=1) * per_um + 1e-9  # 0 would be no edge
    free, barred = (
        sparse.csr_matrix((cost, (ways.row, ways.col)), shape=open_.shape)
        for cost in (length, length - np.log(np.maximum(ways.data, 1e-12)))
    )
    out, limit = edges.copy(), -4 * np.log(CUT)
    for start in _progress.track(range(0, edges.shape[0], ROWS), "barriers"):
        rows = np.arange(start, min(start + ROWS, edges.shape[0]))
        shortest, best = (csgraph.dijkstra(c, directed=False, indices=rows, limit=limit) for c in (free, barred))
        for k, row in enumerate(rows):
            here = slice(edges.indptr[row], edges.indptr[row + 1])
            ends = edges.indices[here]
            known = np.isfinite(best[k, ends])
            more = np.where(known, best[k, ends] - np.where(known, shortest[k, ends], 0.0), np.inf)
            out.data[here] *= np.where(np.exp(-more) >= CUT, np.exp(-more), 0.0)
    out.eliminate_zeros()
    return out


def barrier(adata: Any, name: str | None, order: NDArray[np.intp]) -> sparse.csr_matrix | None:
    """Openness of the edges that ``name`` asks for: ``"sme"`` for the weights of ``sm.fuse``, or a key of obsp."""
    if name is None:
        return None
    key = _keys.SME_WEIGHTS if name == "sme" else name
    _check.require(adata.obsp, key, "obsp", "run sm.fuse(adata) first, or leave barrier out")
    weights = sparse.csr_matrix(adata.obsp[key], dtype=np.float64)[order][:, order]
    if not (weights.data >= 0).all():
        raise _check.problem(f"obsp[{key!r}] must hold weights of at least 0", found="negative or missing ones")
    if name == "sme" and not _knows_more_than_space(adata):
        _check.warn(
            "the fusion gave neither morphology nor expression a say in its edges: barrier='sme' weakens links by "
            "distance alone. sm.fuse(adata, gamma=1.0) weighs edges by morphology.",
            adata,
            stacklevel=5,
        )
    return openness(weights)


def _knows_more_than_space(adata: Any) -> bool:
    records = [r for k, r in adata.uns.get(_keys.RECORD, {}).items() if k.startswith(_keys.FUSED_PREFIX)]
    used = [float(r.get("params", {}).get(p, 0) or 0) for r in records for p in ("gamma", "eta") if _is_number(r, p)]
    return not records or any(value > 0 for value in used)


def _is_number(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get("params", {}).get(name), int | float | np.number)
