"""Decoys are alike and in no pair; curves of p-values are those expected."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from smeld.kernels.graph import row_normalise, spatial_graph
from smeld.tl import _self_check

SIDE = 24


def genes(n: int, seed: int) -> tuple[sparse.csc_matrix, sparse.csr_matrix]:
    """Genes of many means, every other one smooth."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    xy = 100.0 * np.c_[x.ravel(), y.ravel()]
    columns = []
    for i in range(n):
        wave = np.sin(x / 3 + rng.uniform(0, 6)) * np.sin(y / 3 + rng.uniform(0, 6)) * 1.5 * (i % 2)
        columns.append(np.log1p(rng.poisson(np.exp(rng.uniform(-2, 1) + wave.ravel()))))
    weights = sparse.csr_matrix(row_normalise(spatial_graph(xy).connectivities))
    return sparse.csc_matrix(np.stack(columns, axis=1).astype(float)), weights


def test_decoys_are_as_abundant_and_as_smooth() -> None:
    real, weights = genes(40, 0)
    background, _ = genes(400, 1)
    pairs = np.arange(40).reshape(20, 2)
    made = _self_check.decoys(real, pairs, background, np.arange(400), weights, 0)
    assert made is not None
    fake, at = made
    assert at.shape == (20, 2) and (at[:, 0] != at[:, 1]).all()
    abundance, smooth = (
        [measure(m[:, i.ravel()])[:, 0] for m, i in ((real, pairs), (fake, at))]
        for measure in (_self_check._abundance, lambda m: _self_check._smoothness(m, np.arange(m.shape[1]), weights))
    )
    assert np.corrcoef(*abundance)[0, 1] > 0.95
    assert np.corrcoef(*smooth)[0, 1] > 0.9


def test_without_other_genes_there_are_no_decoys() -> None:
    real, weights = genes(4, 0)
    assert _self_check.decoys(real, np.array([[0, 1]]), genes(10, 1)[0], np.arange(10), weights, 0) is None


def test_curves_of_uniform_pvalues_lie_on_the_diagonal() -> None:
    p = (np.arange(5000) + 0.5) / 5000
    made = _self_check.curves({"pairs": p, "surrogates": None, "decoys": np.zeros(0)})
    assert set(made["set"]) == {"pairs"} and len(made) <= 200
    assert np.abs(made["expected"] - made["observed"]).max() < 1e-9
    assert made["observed"].max() > 3.9
