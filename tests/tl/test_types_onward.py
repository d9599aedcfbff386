"""Types and proportions feed the other tasks: who speaks to whom, orders of cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.ndimage import gaussian_filter

import smeld as sm
from smeld.kernels import edgefields
from smeld.kernels.graph import row_normalise, spatial_graph
from smeld.tl._celltype_interactions import sending_groups

#: small sections warn that little can be said of them
pytestmark = pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")


@pytest.fixture(scope="module")
def cells():
    adata = sm.datasets.simulate(
        300, 60, layout="cells", seed=100, image=False, n_cell_types=3, cell_type_effect=2.5, mean_counts=120
    )
    sm.tl.annotate(adata, sm.datasets.simulate_reference(adata, 30, seed=100), spatial=False)
    sm.fuse(adata, evidence=False)
    return adata


@pytest.fixture(scope="module")
def spots():
    adata = sm.datasets.simulate(150, 60, seed=100, image=False, n_cell_types=3, mean_counts=300)
    sm.tl.deconvolve(adata, sm.datasets.simulate_reference(adata, 30, seed=100), reach=0)
    return adata


def test_annotated_types_speak_to_each_other(cells) -> None:
    pair = (cells.var_names[0], cells.var_names[1])
    found = sm.tl.celltype_interactions(cells, pairs=[pair], min_cells=5)
    named = set(cells.obs["cell_type"].astype(str))
    assert set(found.table["sender"]) | set(found.table["receiver"]) <= named
    assert found.n_groups + found.n_small == len(named)


def test_of_proportions_sums_are_expected_ones(spots) -> None:
    """Against the mean over spots whose one cell is drawn by the proportions."""
    genes = list(spots.var_names[:2])
    found = sm.tl.celltype_interactions(spots, "cell_type_proportions", pairs=[tuple(genes)], min_cells=1).table
    share = spots.obsm["cell_type_proportions"]
    rng, drawn = np.random.default_rng(0), []
    copy = spots.copy()
    for _ in range(60):
        u = rng.random((spots.n_obs, 1))
        number = (u > share.to_numpy().cumsum(axis=1)[:, :-1]).sum(axis=1)
        copy.obs["drawn"] = pd.Categorical.from_codes(number, share.columns)
        table = sm.tl.celltype_interactions(copy, "drawn", pairs=[tuple(genes)], min_cells=1).table
        drawn.append(table.set_index(["sender", "receiver"])["observed"])
    mean, error = pd.concat(drawn, axis=1).mean(axis=1), pd.concat(drawn, axis=1).std(axis=1) / np.sqrt(60)
    away = (found.set_index(["sender", "receiver"])["observed"] - mean) / error
    assert away.abs().max() < 4.5


def _field(side: int, width: float, rng: np.random.Generator) -> np.ndarray:
    pad = int(4 * width) + 1
    z = gaussian_filter(rng.normal(size=(side + 2 * pad,) * 2), width) * 2 * np.sqrt(np.pi) * width
    return z[pad:-pad, pad:-pad].ravel()


@pytest.mark.parametrize("within_spot", [False, True])
def test_shares_that_know_nothing_of_the_pair_pass_as_often_as_they_should(within_spot: bool) -> None:
    """Smooth and rough shares at once, a third of them exactly 0, as deconvolved spots have."""
    side, n, p = 24, 10, []
    y, x = np.mgrid[:side, :side]
    xy = 100.0 * np.c_[x.ravel(), y.ravel()]
    edges = spatial_graph(xy, kind="knn", n_neighbors=4).connectivities
    weights = row_normalise(sparse.csr_matrix(edges + within_spot * sparse.identity(len(xy))))
    weights.sort_indices()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        share = np.exp(1.5 * np.stack([_field(side, 2.0, rng) + rng.normal(size=side**2) for _ in range(3)], axis=1))
        share /= share.sum(axis=1, keepdims=True)
        share = np.where(share < 0.1, 0.0, share)
        share /= share.sum(axis=1, keepdims=True)
        genes = np.stack([rng.poisson(np.exp(_field(side, 2.0, rng) - 0.5)) for _ in range(2 * n)], axis=1)
        pairs = np.arange(2 * n).reshape(n, 2)
        p.append(edgefields.by_types(sparse.csc_matrix(np.log1p(genes)), pairs, weights, xy, share).pvalue.ravel())
    rate = (np.concatenate(p) < 0.05).mean()
    assert 0.03 < rate < 0.075


def test_who_sends_where_nobody_says(cells, spots) -> None:
    assert sending_groups(cells) == "cell_type" and sending_groups(spots) == "cell_type_proportions"
    other = spots.copy()
    other.obs["domain"] = pd.Categorical(["1", "2"] * (other.n_obs // 2))
    assert sending_groups(other) == "cell_type_proportions"
    del other.obsm["cell_type_proportions"]
    assert sending_groups(other) == "domain"
    other.obsm["cell_type_proportions"] = np.ones((other.n_obs, 3))  # no names of types
    assert sending_groups(other) == "domain"
    other.obs["domain"] = "1"
    assert sending_groups(other) is None


def test_an_order_has_types_as_its_nodes(cells) -> None:
    adata = cells.copy()
    found = sm.tl.trajectory(adata, "T1", groups="cell_type", n_bootstraps=2)
    nodes = adata.uns["pseudotime_nodes"]
    groups = nodes[nodes["level"] == "group"]
    assert set(groups["node"]) == set(adata.obs["cell_type"].astype(str))
    assert groups.loc[groups["root"], "node"].tolist() == ["T1"]
    assert found is not None
    root = adata.obs["pseudotime_root"].to_numpy()
    assert root.any() and (adata.obs.loc[root, "cell_type"] == "T1").all()


def test_one_type_is_ordered_by_itself(cells) -> None:
    adata = cells.copy()
    inside = (adata.obs["cell_type"] == "T2").to_numpy()
    first = np.zeros(adata.n_obs, dtype=bool)
    first[np.flatnonzero(inside)[0]] = True
    sm.tl.trajectory(adata, first, groups="cell_type", within="T2", n_bootstraps=2)
    order = adata.obs["pseudotime_T2"].to_numpy()
    assert np.isfinite(order[inside]).any() and not np.isfinite(order[~inside]).any()
