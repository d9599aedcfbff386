"""What follows from what, given an order: walks that never go back, where they end, and the tree of groups.

Steps are allowed from earlier to later points only, so that the graph has no cycles: chances of absorption come from
one sweep over its edges, exactly, and no path is ever enumerated.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import sparse

Float = NDArray[np.float64]
Int = NDArray[np.intp]


@njit(cache=True)
def _absorbed(indptr, indices, data, order, sequence, end, out):  # type: ignore[no-untyped-def]
    for i in sequence:  # latest first
        if end[i] >= 0:
            out[i, :] = 0.0
            out[i, end[i]] = 1.0
            continue
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if order[j] > order[i]:
                for k in range(out.shape[1]):
                    out[i, k] += data[e] * out[j, k]
                    total += data[e] * out[j, k]
        if total > 0:
            for k in range(out.shape[1]):
                out[i, k] /= total


def fates(walk: sparse.csr_matrix, order: Float, end: Int, n_ends: int) -> Float:
    """Chance of every point to end in each terminal, [n, n_ends]; ``end`` int [n] the terminal a point is in, or -1.

    Steps go to later neighbours, by weight.
    """
    out = np.zeros((len(order), n_ends))
    sequence = np.argsort(-order, kind="stable")
    _absorbed(walk.indptr, walk.indices, walk.data, order, sequence, end, out)
    return _borrowed(walk, out)


def _borrowed(walk: sparse.csr_matrix, out: Float) -> Float:
    """Points from which no terminal is reached get what their neighbours have, ring by ring; NaN where none has any."""
    while (missing := out.sum(axis=1) == 0).any():
        found = np.asarray(walk[missing] @ out)
        total = found.sum(axis=1, keepdims=True)
        if not (total > 0).any():
            break
        out[missing] = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
    out[out.sum(axis=1) == 0] = np.nan
    return out


@njit(cache=True)
def _entered(indptr, indices, data, order, sequence, node, out):  # type: ignore[no-untyped-def]
    for i in sequence:  # earliest first
        total = 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            if order[j] >= order[i]:
                continue
            total += data[e]
            if node[j] >= 0 and node[j] != node[i]:
                out[i, node[j]] += data[e]
            else:
                for k in range(out.shape[1]):
                    out[i, k] += data[e] * out[j, k]
        if total > 0:
            for k in range(out.shape[1]):
                out[i, k] /= total


def flows(walk: sparse.csr_matrix, order: Float, node: Int, size: Float, n_nodes: int) -> Float:
    """Share of each node's cells whose past leads to each other node first, [n_nodes, n_nodes], row: where it came to.

    A walk back in time from every point to earlier neighbours ends in the first other node it meets. Points of node -1
    are passed through.
    """
    entered = np.zeros((len(order), n_nodes))
    _entered(walk.indptr, walk.indices, walk.data, order, np.argsort(order, kind="stable"), node, entered)
    out = np.zeros((n_nodes, n_nodes))
    for b in range(n_nodes):
        here = node == b
        if here.any():
            out[b] = (size[here, None] * entered[here]).sum(axis=0) / size[here].sum()
            out[b, b] = 0.0  # left and come back through points of no node
    return out


def arborescence(flow: Float, middle: Float, starts: Int) -> Int:
    """Parent of every node, int [n_nodes]; -1 for ``starts`` and for nodes that nothing leads to.

    Of the earlier nodes (by ``middle``, the starts before all) the one that most of a node's past comes from. Parents
    are earlier than children, so that choosing each by itself gives the spanning arborescence of largest flow. Nodes
    that only a later one leads to are joined last.
    """
    rank = np.where(np.isfinite(middle), middle, np.inf)
    rank[starts] = -np.inf
    parent = np.full(len(flow), -1, dtype=np.intp)
    for b in np.setdiff1d(np.arange(len(flow)), starts):
        earlier = (rank < rank[b]) & (flow[b] > 0)
        if earlier.any():
            parent[b] = int(np.where(earlier, flow[b], -1.0).argmax())
    while True:  # groups whose only way in is a later one, by largest flow
        inside = np.isin(np.arange(len(flow)), starts)
        for _ in range(len(flow)):
            inside = inside | (inside[parent] & (parent >= 0))
        into = np.where(~inside[:, None] & inside[None], flow, 0.0)
        if not into.any():
            return parent
        b = int(into.max(axis=1).argmax())
        parent[b] = int(into[b].argmax())


def branches(parent: Int, starts: Int) -> tuple[Int, Int]:
    """(number of the unbranched stretch of every node, the nodes that have no child); -1 for nodes without a root.

    Stretch 0 begins at ``starts``; where two or more children leave, each begins a new one.
    """
    n = len(parent)
    children = [np.flatnonzero(parent == k) for k in range(n)]
    out = np.full(n, -1, dtype=np.intp)
    out[starts], latest, queue = 0, 0, [int(k) for k in starts]
    alone = len(queue) == 1
    while queue:
        node = queue.pop(0)
        for child in children[node]:
            if len(children[node]) == 1 and (alone or out[node] > 0):
                out[child] = out[node]
            else:
                latest += 1
                out[child] = latest
            queue.append(int(child))
    ends = [k for k in range(n) if out[k] >= 0 and not len(children[k])]
    return out, np.array(ends, dtype=np.intp)


def path_to(parent: Int, node: int) -> list[int]:
    """Nodes from the root of the tree to ``node``."""
    out = [int(node)]
    while parent[out[-1]] >= 0:
        out.append(int(parent[out[-1]]))
    return out[::-1]


@njit(cache=True, parallel=True)
def _slopes(indptr, indices, data, xy, order, out):  # type: ignore[no-untyped-def]
    for i in prange(indptr.size - 1):
        xx, xy_, yy, xt, yt = 0.0, 0.0, 0.0, 0.0, 0.0
        for e in range(indptr[i], indptr[i + 1]):
            j = indices[e]
            dt = order[j] - order[i]
            if not np.isfinite(dt):
                continue
            dx, dy, w = xy[j, 0] - xy[i, 0], xy[j, 1] - xy[i, 1], data[e]
            xx += w * dx * dx
            xy_ += w * dx * dy
            yy += w * dy * dy
            xt += w * dx * dt
            yt += w * dy * dt
        ridge = 1e-3 * (xx + yy)  # neighbours on one line say nothing of the other direction
        det = (xx + ridge) * (yy + ridge) - xy_ * xy_
        if det > 0:
            out[i, 0] = ((yy + ridge) * xt - xy_ * yt) / det
            out[i, 1] = ((xx + ridge) * yt - xy_ * xt) / det


def slopes(weights: sparse.csr_matrix, xy_um: Float, order: Float) -> Float:
    """Gradient of an order over space, per um, [n, 2]: a plane fitted to each cell's neighbours, by their weights."""
    out = np.zeros((len(order), 2))
    _slopes(weights.indptr, weights.indices, weights.data, np.ascontiguousarray(xy_um), order, out)
    return out
