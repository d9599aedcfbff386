"""The calibrated statistic: a single spot does not carry a pair."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from smeld.kernels.graph import row_normalise, spatial_graph
from smeld.lr.spatial import spatial

SIDE = 20


def test_one_extreme_spot_does_not_carry_a_pair() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    xy = 100.0 * np.c_[x.ravel(), y.ravel()]
    weights = sparse.csr_matrix(row_normalise(spatial_graph(xy).connectivities))
    genes = np.log1p(rng.poisson(0.08, (SIDE**2, 2))).astype(float)
    middle = SIDE * SIDE // 2 + SIDE // 2
    genes[middle, 1], genes[middle + 1, 0] = 9.0, 9.0  # receptor, and ligand beside it: nothing else is unusual
    found = spatial(sparse.csc_matrix(genes), np.array([[0, 1]]), weights, xy, surrogates=False)
    assert found.pvalue[0] > 1e-3
