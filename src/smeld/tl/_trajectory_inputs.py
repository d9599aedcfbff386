"""What ``sm.tl.trajectory`` reads of a section: its arrays, the root, what that reaches, and points to stand for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph

from smeld import _adapt, _check, _keys
from smeld.kernels import coarse, ordering, ordering_evidence
from smeld.kernels.ordering_evidence import Points
from smeld.tl._root import Root, Start, start

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: neighbours in expression by which it is decided what the root reaches
N_NEIGHBORS = 30
#: points that stand for a larger section
N_POINTS = 2048
#: blocks along the longer side of a section, that a bootstrap draws
N_BLOCKS = 8


@dataclass(frozen=True)
class Section:
    """Arrays of the table, cells in canonical ``order``: positions, numbers of sections, S x M x E ``weights`` and
    ``alpha``, ``values`` [n, d] before smoothing, ``features`` [n, d + e] as fused."""

    order: Int
    xy_um: Float
    section: Int
    weights: sparse.csr_matrix
    alpha: float
    values: Float
    features: Float

    def weights_of(self, rows: Int) -> sparse.csr_matrix:
        """The graph of some cells."""
        made = sparse.csr_matrix(self.weights[rows][:, rows])
        made.sort_indices()
        return made


def section(adata: Any, use_rep: str | None, batch_key: str | None, seed: int) -> Section:
    from smeld.tl._domains import _made

    rep = use_rep or _made(adata, "domain", batch_key, seed)
    _check.require(adata.obsm, rep, "obsm", "name an existing representation, or run sm.fuse(adata)")
    if _keys.SME_WEIGHTS not in adata.obsp:
        _made(adata, "domain", batch_key, seed)
    _check.require(adata.obsp, _keys.SME_WEIGHTS, "obsp", "run sm.fuse(adata) first")
    order = _adapt.canonical_order(adata)
    section, _ = _adapt.sections(adata, batch_key)
    features = np.asarray(adata.obsm[rep], dtype=np.float64)[order]
    if not np.isfinite(features).all():
        raise _check.problem(f"obsm[{rep!r}] must be finite", found="NaN or infinite values", cure="make it again")
    weights = sparse.csr_matrix(adata.obsp[_keys.SME_WEIGHTS], dtype=np.float64)[order][:, order].tocsr()
    weights = _within_sections(weights, section[order])
    params = adata.uns.get(_keys.RECORD, {}).get(rep, {}).get("params", {})
    values, alpha = features, 1.0
    if "alpha" in params and _keys.PCA in adata.obsm and adata.obsm[_keys.PCA].shape[1] <= features.shape[1]:
        values, alpha = np.asarray(adata.obsm[_keys.PCA], dtype=np.float64)[order], float(params["alpha"])
    return Section(order, _adapt.xy_um(adata)[order], section[order], weights, alpha, values, features)


def _within_sections(weights: sparse.csr_matrix, number: Int) -> sparse.csr_matrix:
    """Edges that leave a section are dropped: a graph made for all of them as one knows none."""
    edges = weights.tocoo()
    inside = number[edges.row] == number[edges.col]
    made = sparse.csr_matrix((edges.data[inside], (edges.row[inside], edges.col[inside])), shape=weights.shape)
    made.sort_indices()
    return made


def within(adata: Any, section: Section, groups: str, within: str | None) -> NDArray[np.bool_]:
    """Cells that are ordered, in canonical order."""
    if within is None:
        return np.ones(len(section.order), dtype=bool)
    label, names = _adapt.numbered(adata.obs[groups])
    return np.asarray(label[section.order] == names.index(within))


def begin(adata: Any, root: Root, groups: str, within: str | None, section: Section, layer: str | None) -> Start:
    """The root, its cells in canonical order; within a group those of it that touch a root elsewhere."""
    begins = start(adata, root, groups, section.weights, layer, section.order)
    if within is None:
        return begins
    label, names = _adapt.numbered(adata.obs[groups])
    inside = np.asarray(label[section.order] == names.index(within))
    if not (begins.cells & inside).any():
        touching = inside & (np.asarray(section.weights @ begins.cells.astype(np.float64)) > 0)
        if not touching.any():
            raise _check.problem(
                f"the root lies outside {within} and does not touch it",
                found=begins.words,
                cure="name a neighbouring label, a gene, or cells inside",
            )
        begins = replace(begins, cells=touching, words=f"cells of {within} that touch {begins.words}")
    return replace(begins, cells=begins.cells & inside)


@dataclass(frozen=True)
class Part:
    """What the root reaches: ``rows`` (canonical) of its cells, those ``lost``, the points that stand for them, and
    the way ``back`` from points to cells."""

    rows: Int
    lost: Int
    made: coarse.Coarse
    points: Points
    back: sparse.csr_matrix


def part(section: Section, chosen: NDArray[np.bool_], begins: Start) -> Part:
    rows = np.flatnonzero(chosen)
    if len(rows) < 8:
        raise _check.problem("too few cells to order", found=str(len(rows)), cure="give at least 8")
    if begins.cells[rows].all():
        raise _check.problem(
            "the root is all there is: nothing is left to order", found=begins.words, cure="give a smaller root"
        )
    made, points = _points(section, rows, begins.cells)
    walk = ordering.expression_walk(points.features(points.size), N_NEIGHBORS)
    _, label = csgraph.connected_components(walk + points.space, directed=False)
    reached = np.isin(label, np.unique(label[points.root]))
    if not reached.all():
        kept = reached[made.leaf]
        lost, rows = rows[~kept], rows[kept]
        if len(rows) < 8:
            raise _check.problem(
                "the root reaches hardly any cell", found=f"{len(rows)} cells", cure="choose a root in the main part"
            )
        made, points = _points(section, rows, begins.cells)
    else:
        lost = np.empty(0, dtype=np.intp)
    return Part(
        rows,
        lost,
        made,
        points,
        coarse.extension(made, section.xy_um[rows], section.section[rows], section.features[rows]),
    )


def _points(section: Section, rows: Int, root: NDArray[np.bool_]) -> tuple[coarse.Coarse, Points]:
    xy, number = section.xy_um[rows], section.section[rows]
    number = np.unique(number, return_inverse=True)[1].ravel()
    made = coarse.coarsened(xy, number, section.weights_of(rows), N_POINTS)
    values, features = made.mean(section.values[rows]), section.features[rows][made.at]
    d = values.shape[1]
    begins = np.bincount(made.leaf, root[rows], len(made.at)) > made.size / 2
    if not begins.any():  # a root smaller than what a point stands for
        begins[made.leaf[root[rows]]] = True
    bare = Points(
        values,
        features[:, d:],
        made.weights,
        section.alpha,
        ordering.even(made.weights),
        begins,
        made.size,
        _blocks(xy[made.at], number[made.at]),
        np.zeros_like(values),
    )
    smoothed = ordering_evidence.smoothed(made.weights, values, section.alpha, made.size)
    return made, replace(bare, shift=features[:, :d] - smoothed)


def _blocks(xy_um: Float, section: Int) -> Int:
    """Number of the square block of every point, of about ``N_BLOCKS`` along the longest section."""
    low = np.stack([xy_um[section == s].min(axis=0) for s in range(section.max() + 1)])[section]
    side = max(float((xy_um - low).max()), 1e-9) / N_BLOCKS
    # a little more, for rows of a lattice lie on borders, where rounding decides
    at = np.minimum(np.floor((xy_um - low) / side + 1e-6), N_BLOCKS - 1).astype(np.intp)
    return np.asarray(np.unique(np.c_[section, at], axis=0, return_inverse=True)[1].ravel(), dtype=np.intp)
