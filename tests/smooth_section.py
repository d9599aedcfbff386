"""Lattices with jitter, and independent smooth fields on them, for tests of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import gaussian_filter

from smeld.kernels import crosscov
from smeld.kernels.graph import spatial_graph

Float = NDArray[np.float64]
SIDE = 40


def positions(side: int = SIDE, seed: int = 0, *, jitter: float = 0.3) -> Float:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    return 50.0 * (np.c_[x.ravel(), y.ravel()] + rng.uniform(-jitter, jitter, (side**2, 2)))


def smooth_fields(n: int, width: float, rng: np.random.Generator, side: int = SIDE) -> Float:
    """Counts of independent fields: Gaussian noise smoothed over ``width`` spacings, [n, n_obs], centred logarithms."""
    pad = int(4 * width) + 1
    out = np.empty((n, side**2))
    for row in out:
        z = rng.normal(size=(side + 2 * pad,) * 2)
        z = gaussian_filter(z, width) * 2 * np.sqrt(np.pi) * width if width else z
        row[:] = np.log1p(rng.poisson(np.exp(z[pad:-pad, pad:-pad] - 0.5))).ravel()
    return out - out.mean(axis=1, keepdims=True)


def averages(xy: Float) -> sparse.csr_matrix:
    edges = spatial_graph(xy, kind="knn", n_neighbors=6).connectivities
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(edges.sum(axis=1)).ravel()) @ edges)


def row(where: crosscov.Lags, field: Float) -> Float:
    """What the variance needs of fields [n, n_obs] by themselves."""
    return crosscov.cross_correlograms(where, [field], [(0, 0)])[:, 0]


def plain_test(where: crosscov.Lags, x: Float, beside: Float) -> crosscov.Test:
    """Cross-products of two sets of fields as they are."""
    first, second = row(where, x), row(where, beside)
    n = x.shape[1]
    return crosscov.judged((x * beside).sum(axis=1), (first * second).sum(axis=1), first[:, 0] * second[:, 0] * n, n)
