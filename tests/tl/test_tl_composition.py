"""Neighbourhood composition against a slow count by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy.spatial.distance import cdist

import smeld as sm
from smeld._check import InputError


def cells(n: int = 200, seed: int = 0) -> AnnData:
    rng = np.random.default_rng(seed)
    adata = AnnData(np.ones((n, 1), dtype=np.float32))
    adata.obs_names = [f"c{i:03d}" for i in rng.permutation(n)]
    adata.obsm["spatial_um"] = rng.uniform(0, 300, (n, 2))
    adata.obs["cell_type"] = pd.Categorical(rng.choice(["B", "T", "stroma"], n))
    return adata


@pytest.mark.parametrize("include_self", [False, True])
def test_counts_are_those_by_hand(include_self: bool) -> None:
    adata = cells()
    adata.obs.loc[adata.obs_names[:20], "cell_type"] = np.nan
    made = sm.tl.neighborhood_composition(adata, radius_um=40, include_self=include_self)
    near = cdist(adata.obsm["spatial_um"], adata.obsm["spatial_um"]) <= 40
    if not include_self:
        np.fill_diagonal(near, False)
    for i in range(adata.n_obs):
        around = adata.obs["cell_type"][near[i]].dropna()
        assert made.n_neighbors[i] == len(around)
        for name in ("B", "T", "stroma"):
            share = (around == name).mean() if len(around) else np.nan
            assert made.table.iloc[i][name] == pytest.approx(share, nan_ok=True)


def test_sections_are_kept_apart_and_soft_labels_are_averaged() -> None:
    one = cells(80)
    adata = AnnData(np.ones((160, 1), dtype=np.float32))
    adata.obs_names = [f"{s}{n}" for s in "ab" for n in one.obs_names]
    adata.obsm["spatial_um"] = np.vstack([one.obsm["spatial_um"]] * 2)  # the sections lie over each other
    adata.obs["section"] = ["a"] * 80 + ["b"] * 80
    adata.obs["cell_type"] = ["B"] * 80 + ["T"] * 80
    adata.obsm["cell_type_prob"] = pd.DataFrame(
        np.repeat([[0.75, 0.25], [0.0, 1.0]], 80, axis=0), index=adata.obs_names, columns=["B", "T"]
    )
    hard = sm.tl.neighborhood_composition(adata, batch_key="section")
    assert (hard.table["B"].to_numpy() == np.repeat([1.0, 0.0], 80)).all()
    soft = sm.tl.neighborhood_composition(adata, batch_key="section", soft=True)
    assert soft.table["B"].to_numpy() == pytest.approx(np.repeat([0.75, 0.0], 80))


def test_what_is_missing_is_said() -> None:
    adata = cells()
    with pytest.raises(InputError, match="kind"):
        sm.tl.neighborhood_composition(adata, "kind")
    with pytest.raises(InputError, match="larger radius_um"):
        sm.tl.neighborhood_composition(adata, radius_um=1e-6)
    with pytest.raises(InputError, match="no probabilities"):
        sm.tl.neighborhood_composition(adata, soft=True)
    with pytest.raises(InputError, match="radius_um must be a positive number"):
        sm.tl.neighborhood_composition(adata, radius_um=-1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius_um": "x"}, "radius_um must be a positive number"),
        ({"radius_um": float("nan")}, "radius_um must be a positive number"),
        ({"n_neighbors": 2.5}, "n_neighbors must be a whole number"),
        ({"n_neighbors": 0}, "n_neighbors must be a whole number"),
        ({"key_added": "spatial_um"}, "key_added cannot be 'spatial_um'"),
        ({"key_added": "a/b"}, "key_added cannot be 'a/b'"),
        ({"soft": True}, "must hold probabilities"),
    ],
)
def test_settings_that_are_none(options: dict, message: str) -> None:
    adata = cells(30)
    adata.obsm["cell_type_prob"] = pd.DataFrame(-np.ones((30, 2)), adata.obs_names, ["B", "T"])
    with pytest.raises(InputError, match=message):
        sm.tl.neighborhood_composition(adata, **options)
