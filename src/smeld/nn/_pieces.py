"""A section cut into tiles of spots, each with a halo as deep as the network reaches: batching changes nothing."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from smeld.nn._vae import Piece, averaging

Int = NDArray[np.intp]


def tiles(xy_um: NDArray[np.float64], most: int) -> list[Int]:
    """Numbers of the spots of each tile, at most ``most``: halved at the median of the longer side until they fit."""
    done: list[Int] = []
    waiting = [np.arange(len(xy_um))]
    while waiting:
        rows = waiting.pop()
        if len(rows) <= most:
            done.append(rows)
            continue
        xy = xy_um[rows]
        side = int(np.argmax(np.ptp(xy, axis=0)))
        order = np.lexsort((rows, xy[:, side]))
        waiting += [np.sort(rows[order[len(rows) // 2 :]]), np.sort(rows[order[: len(rows) // 2]])]
    return done


def halo(weights: sparse.csr_matrix, rows: Int, hops: int) -> Int:
    """``rows`` and all spots within ``hops`` edges of them, sorted."""
    inside = np.zeros(weights.shape[0], dtype=bool)
    inside[rows] = True
    edge = rows
    for _ in range(hops):
        near = np.unique(weights[edge].indices)
        edge = near[~inside[near]]
        inside[edge] = True
    return np.flatnonzero(inside)


class Section:
    """Graph, prior mean and sections of all spots, from which pieces are made.

    ``weights`` symmetric CSR [n, n]; ``prior`` [n, n_latent]; ``section`` int [n].
    """

    def __init__(
        self, weights: sparse.csr_matrix, prior: NDArray[np.float64], section: NDArray[np.integer], device: torch.device
    ) -> None:
        self.weights, self.device = sparse.csr_matrix(weights), device
        self.prior = np.asarray(prior, dtype=np.float32)
        self.section = np.asarray(section, dtype=np.int64)
        self.average = averaging(self.weights)
        self.degree = np.asarray(self.weights.sum(axis=1)).ravel()
        self.typical = float(self.weights.data.mean()) if self.weights.nnz else 1.0

    def piece(self, rows: Int, hops: int) -> Piece:
        """The spots ``rows`` with what their posterior depends on."""
        seen = halo(self.weights, rows, hops)
        inner = np.isin(seen, rows, assume_unique=True)
        local = self.weights[seen][:, seen].tocoo()
        own = np.arange(len(seen))
        index = np.vstack([np.r_[local.col, own], np.r_[local.row, own]])
        value = np.log(np.r_[local.data / self.typical, np.ones(len(seen))] + 1e-6)
        # an edge counts in the piece of its first end, so that tiles add up to the section
        first = inner[local.row] & (seen[local.row] < seen[local.col])
        average = self.average[seen][:, seen].tocsr()
        return Piece(
            rows=seen,
            core=self._tensor(inner, torch.bool),
            average=_sparse(average).to(self.device),
            edge_index=self._tensor(index, torch.int64),
            edge_weight=self._tensor(value[:, None], torch.float32),
            pairs=self._tensor(np.vstack([local.row[first], local.col[first]]), torch.int64),
            pair_weight=self._tensor(local.data[first], torch.float32),
            degree=self._tensor(self.degree[seen][:, None], torch.float32),
            prior=self._tensor(self.prior[seen], torch.float32),
            section=self._tensor(self.section[seen], torch.int64),
        )

    def _tensor(self, values: NDArray[np.generic], dtype: torch.dtype) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=self.device)


def _sparse(matrix: sparse.csr_matrix) -> torch.Tensor:
    parts = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "beta state": the product used here is tested
        return torch.sparse_csr_tensor(*(torch.as_tensor(part) for part in parts), size=matrix.shape)
