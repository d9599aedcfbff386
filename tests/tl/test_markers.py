"""Marker genes against scanpy's own ranking, and on simulated sections against the truth."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import smeld as sm
from smeld import _keys

COLUMNS = ["domain", "gene", "score", "log2_fold_change", "pvalue", "qvalue", "pct_in", "pct_out"]


def section(n: int = 90, g: int = 20, *, seed: int = 0) -> AnnData:
    """Three groups; genes 0-2, 3-5 and 6-8 are theirs."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 3
    mean = np.full((n, g), 1.0)
    for k in range(3):
        mean[group == k, 3 * k : 3 * k + 3] = 6.0
    adata = AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))
    adata.obs_names, adata.var_names = [f"s{i}" for i in range(n)], [f"g{i}" for i in range(g)]
    adata.obs["domain"] = pd.Categorical([str(k + 1) for k in group])
    return adata


def of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    return table[table["domain"] == name].reset_index(drop=True)


def test_the_best_genes_are_those_that_are_higher() -> None:
    adata = section()
    table = sm.tl.markers(adata, n_genes=3)
    assert list(table.columns) == COLUMNS
    for k in range(3):
        found = of(table, str(k + 1)).head(3)
        assert set(found["gene"]) == {f"g{3 * k + i}" for i in range(3)}
        assert (found["log2_fold_change"] > 1).all() and (found["qvalue"] < 1e-6).all()
        assert (np.diff(found["score"]) <= 0).all()
    assert table.equals(adata.uns["domain_markers"])


def test_numbers_equal_scanpys() -> None:
    adata = section()
    table = sm.tl.markers(adata, n_genes=5)
    plain = adata.copy()
    sc.pp.normalize_total(plain)
    sc.pp.log1p(plain)
    sc.tl.rank_genes_groups(plain, "domain", method="t-test_overestim_var")
    for name in "123":
        ours = of(table, name)
        theirs = sc.get.rank_genes_groups_df(plain, group=name).set_index("names").loc[ours["gene"]]
        assert ours["score"].to_numpy() == pytest.approx(theirs["scores"].to_numpy(), rel=1e-3)
        assert ours["log2_fold_change"].to_numpy() == pytest.approx(theirs["logfoldchanges"].to_numpy(), rel=1e-3)
        assert np.log(ours["pvalue"]).to_numpy() == pytest.approx(np.log(theirs["pvals"]).to_numpy(), rel=1e-2)
        assert np.log(ours["qvalue"]).to_numpy() == pytest.approx(np.log(theirs["pvals_adj"]).to_numpy(), rel=1e-2)


def test_shares_of_spots_equal_plain_counting() -> None:
    adata = section()
    adata.X[0, 0] = 0  # an explicit zero is no count
    x, label = adata.X.toarray() > 0, adata.obs["domain"].to_numpy()
    for row in sm.tl.markers(adata, n_genes=4).itertuples():
        gene, inside = adata.var_names.get_loc(row.gene), label == row.domain
        assert row.pct_in == pytest.approx(x[inside, gene].mean())
        assert row.pct_out == pytest.approx(x[~inside, gene].mean())


@pytest.mark.parametrize("seed", [0, 3])
def test_simulated_marker_genes_are_found(seed: int) -> None:
    adata = sm.datasets.simulate(n_obs=800, n_genes=300, seed=seed, image=False)
    table = sm.tl.markers(adata, "truth_domain", n_genes=5)
    assert len(table["domain"].unique()) == adata.obs["truth_domain"].nunique()
    best = table.groupby("domain").head(5)
    follows = adata.var["truth_role"].isin(["marker", "trajectory"])  # the gradient runs through the domains too
    assert follows[best["gene"]].mean() > 3 * follows.mean()
    best = best[(adata.var.loc[best["gene"], "truth_role"] == "marker").to_numpy()]
    assert len(best) >= 5
    own = adata.varm["truth_domain_effect"]
    right = [own.loc[row.gene, row.domain] > 0 for row in best.itertuples()]
    assert np.mean(right) >= 0.8


def test_more_genes_than_there_are() -> None:
    adata = section(g=10)
    table = sm.tl.markers(adata, n_genes=500)
    assert len(table) and len(table) <= 30
    assert not table.duplicated(["domain", "gene"]).any()


def test_groups_of_one_spot_are_left_out() -> None:
    adata = section()
    label = adata.obs["domain"].astype(str).to_numpy()
    label[0] = "lone"
    adata.obs["domain"] = pd.Categorical(label, categories=["1", "2", "3", "lone", "nobody"])
    assert set(sm.tl.markers(adata)["domain"]) == {"1", "2", "3"}


@pytest.mark.parametrize("labels", [["1"] * 90, ["1"] * 89 + ["2"], [str(i) for i in range(90)]])
def test_fewer_than_two_groups_give_an_empty_table_and_a_warning(labels: list[str], tmp_path: Path) -> None:
    adata = section()
    adata.obs["domain"] = pd.Categorical(labels)
    with pytest.warns(sm.SmeldWarning, match="two groups"):
        table = sm.tl.markers(adata)
    assert list(table.columns) == COLUMNS and table.empty
    assert any("two groups" in w for w in _keys.kept_warnings(adata))
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["domain_markers"].empty


@pytest.mark.parametrize("kind", ["strings", "integers", "booleans", "missing"])
def test_labels_of_any_kind(kind: str) -> None:
    adata = section()
    number = np.arange(90) % 3
    adata.obs["domain"] = {
        "strings": [f"group {k}" for k in number],
        "integers": number,
        "booleans": number == 0,
        "missing": pd.Categorical(np.where(np.arange(90) < 9, None, number.astype(str))),
    }[kind]
    table = sm.tl.markers(adata, n_genes=3)
    assert table["domain"].nunique() == (2 if kind == "booleans" else 3)
    assert "nan" not in set(table["domain"])


def test_a_layer_and_another_key() -> None:
    adata = section()
    adata.layers["counts"] = adata.X.copy()
    adata.obs["half"] = np.where(np.arange(90) < 45, "a", "b")
    expected = sm.tl.markers(adata.copy())
    adata.X = sparse.csr_matrix(np.ones(adata.shape, dtype=np.float32))
    assert sm.tl.markers(adata, layer="counts", key_added="mine").equals(expected)
    assert "mine" in adata.uns and "domain_markers" not in adata.uns
    assert adata.uns[_keys.RECORD]["mine"]["params"]["layer"] == "counts"


def test_counts_that_are_not_whole_are_normalised_as_fuse_does() -> None:
    """Counts after ambient correction: scaled by one factor, all is as before."""
    adata, scaled = section(), section()
    scaled.X = scaled.X * np.float32(37.3)
    expected, found = sm.tl.markers(adata, n_genes=3), sm.tl.markers(scaled, n_genes=3)
    for name in "123":
        one, two = of(expected, name).head(3), of(found, name).head(3)
        assert set(one["gene"]) == set(two["gene"])
        assert two["log2_fold_change"].max() < 2 * one["log2_fold_change"].max()


def test_x_is_not_changed_and_the_table_is_storable(tmp_path: Path) -> None:
    adata = section()
    before = adata.copy()
    sm.tl.markers(adata)
    assert abs(adata.X - before.X).nnz == 0 and "log1p" not in adata.uns and "rank_genes_groups" not in adata.uns
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["domain_markers"]
    assert again["gene"].tolist() == adata.uns["domain_markers"]["gene"].tolist()


def test_labels_must_be_there() -> None:
    with pytest.raises(sm.InputError, match=r"obs\['dmain'\] is missing.*domain"):
        sm.tl.markers(section(), "dmain")
