"""Quality control against scanpy's metrics; what is dropped is dropped everywhere."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import smeld as sm
from smeld import _keys


def section(
    n: int = 40, g: int = 15, *, seed: int = 0, mitochondrial: tuple[str, ...] = ("MT-ND1", "MT-CO1")
) -> AnnData:
    rng = np.random.default_rng(seed)
    adata = AnnData(sparse.csr_matrix(rng.poisson(1.2, (n, g)).astype(np.float32)))
    adata.obs_names = [f"s{i:02d}" for i in range(n)]
    names = [f"g{i}" for i in range(g)]
    names[: len(mitochondrial)] = mitochondrial
    adata.var_names = names
    return adata


def emptied(*rows: int) -> AnnData:
    """Spots without counts, with everything that can hang on a spot."""
    adata = section()
    x = adata.X.toarray()
    x[list(rows)] = 0
    adata.X = sparse.csr_matrix(x)
    n = adata.n_obs
    adata.obs["number"] = np.arange(n)
    adata.obsm["spatial_um"] = np.column_stack([np.arange(n), -np.arange(n)]).astype(float)
    adata.obsm["morph_texture"] = pd.DataFrame({"a": np.arange(n)}, index=adata.obs_names)
    adata.obsp["spatial_distances"] = sparse.csr_matrix(np.add.outer(np.arange(n), np.arange(n)).astype(float))
    adata.layers["raw"] = adata.X.copy()
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    adata.uns["spatial"] = {"lib": {"images": {"hires": pixels}, "scalefactors": {"tissue_hires_scalef": 1.0}}}
    return adata


@pytest.mark.parametrize("dense", [False, True])
def test_metrics_equal_scanpys(dense: bool) -> None:
    adata = section()
    if dense:
        adata.X = adata.X.toarray()
    plain = adata.copy()
    sm.tl.quality_control(adata)
    plain.var["mt"] = plain.var_names.str.startswith("MT-")
    sc.pp.calculate_qc_metrics(plain, qc_vars=["mt"], inplace=True, percent_top=None, log1p=False)
    for name in ("total_counts", "n_genes_by_counts", "pct_counts_mt"):
        assert adata.obs[name].to_numpy() == pytest.approx(plain.obs[name].to_numpy(), rel=1e-5)
    for name in ("total_counts", "n_cells_by_counts"):
        assert adata.var[name].to_numpy() == pytest.approx(plain.var[name].to_numpy(), rel=1e-5)


def test_explicit_zeros_are_no_genes() -> None:
    adata, plain = section(), section()
    adata.X.data[::7] = 0
    stored = adata.X.nnz
    plain.X = sparse.csr_matrix(adata.X.toarray())
    for a in (adata, plain):
        sm.tl.quality_control(a)
    assert adata.obs["n_genes_by_counts"].tolist() == plain.obs["n_genes_by_counts"].tolist()
    assert adata.X.nnz == stored  # the matrix itself is left alone


def test_totals_are_exact_beyond_single_precision() -> None:
    x = np.ones((40, 3), dtype=np.float32)
    x[0, 0] = 2**24
    adata = AnnData(sparse.csr_matrix(x))
    sm.tl.quality_control(adata)
    assert float(adata.var["total_counts"].iloc[0]) == 2**24 + 39
    assert float(adata.obs["total_counts"].iloc[0]) == 2**24 + 2


def test_spots_without_counts_are_dropped_everywhere_with_a_warning() -> None:
    adata = emptied(3, 17)
    kept = [i for i in range(40) if i not in (3, 17)]
    with pytest.warns(sm.SmeldWarning, match="2 of 40 spots without counts were dropped"):
        made = sm.tl.quality_control(adata)
    assert (made.n_obs_before, made.n_obs, made.n_vars, made.n_empty) == (40, 38, 15, 2)
    assert adata.obs["number"].tolist() == kept and adata.obs_names.tolist() == [f"s{i:02d}" for i in kept]
    assert adata.obsm["spatial_um"][:, 0].tolist() == kept
    assert adata.obsm["morph_texture"]["a"].tolist() == kept
    assert adata.obsm["morph_texture"].index.equals(adata.obs_names)
    assert np.array_equal(adata.obsp["spatial_distances"].toarray(), np.add.outer(kept, kept))
    assert adata.layers["raw"].shape == adata.X.shape == (38, 15)
    assert adata.uns["spatial"]["lib"]["images"]["hires"].shape == (4, 4, 3)
    assert (adata.obs["total_counts"] > 0).all()
    assert any("dropped" in w for w in _keys.kept_warnings(adata))
    assert adata.obs["total_counts"].to_numpy() == pytest.approx(np.asarray(adata.X.sum(axis=1)).ravel())


def test_nothing_is_dropped_or_warned_of_where_all_have_counts() -> None:
    adata = section(60)
    adata.X[:, 5] = 1
    before = adata.X.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error", sm.SmeldWarning)
        made = sm.tl.quality_control(adata)
    assert made.n_obs == made.n_obs_before == 60 and made.n_empty == 0
    assert abs(adata.X - before).nnz == 0
    assert adata.uns[_keys.RECORD]["quality_control"]["params"]["min_counts"] == 1


def test_a_higher_limit_drops_more() -> None:
    adata = section()
    total = np.asarray(adata.X.sum(axis=1)).ravel()
    limit = float(np.median(total))
    with pytest.warns(sm.SmeldWarning, match="with fewer than"):
        made = sm.tl.quality_control(adata, min_counts=limit)
    assert made.n_obs == (total >= limit).sum()


@pytest.mark.parametrize("left", [0, 1])
def test_fewer_than_two_spots_left_is_an_error_and_nothing_is_changed(left: int) -> None:
    adata = emptied(*range(40 - left)) if left else section()
    with pytest.raises(sm.InputError, match="fewer than 2 spots"):
        sm.tl.quality_control(adata, min_counts=1 if left else 1e9)
    assert adata.n_obs == 40 and "total_counts" not in adata.obs


@pytest.mark.parametrize(
    ("names", "found"),
    [(("MT-ND1",), True), (("mt-Nd1",), True), (("Mt-nd1",), True), (("MTOR", "METTL3"), False), ((), False)],
)
def test_mitochondrial_genes_of_human_and_mouse(names: tuple[str, ...], found: bool) -> None:
    adata = section(mitochondrial=names)
    adata.X[:, 5] = 1
    sm.tl.quality_control(adata)
    assert ("pct_counts_mt" in adata.obs) == found
    if found:
        share = adata.X.toarray()[:, 0] / adata.X.toarray().sum(axis=1)
        assert adata.obs["pct_counts_mt"].to_numpy() == pytest.approx(100 * share, rel=1e-5)


def test_spots_far_below_the_others_are_marked_not_dropped() -> None:
    rng = np.random.default_rng(0)
    x = rng.poisson(20.0, (50, 30))
    x[7] = 0
    x[7, 0] = 5
    adata = AnnData(sparse.csr_matrix(x.astype(np.float32)))
    made = sm.tl.quality_control(adata)
    total = np.log1p(x.sum(axis=1))
    mad = 1.4826 * np.median(np.abs(total - np.median(total)))
    assert adata.n_obs == 50 and adata.obs["low_counts"].dtype == bool
    assert np.array_equal(adata.obs["low_counts"], total < np.median(total) - 3 * mad)
    assert adata.obs["low_counts"].iloc[7] and made.n_low == adata.obs["low_counts"].sum()


def test_a_layer_is_measured_instead_of_x() -> None:
    adata = section()
    adata.layers["raw"] = adata.X * 2
    expected = np.asarray(adata.X.sum(axis=1)).ravel() * 2
    sm.tl.quality_control(adata, layer="raw", min_counts=0)
    assert adata.obs["total_counts"].to_numpy() == pytest.approx(expected)


@pytest.mark.parametrize(("value", "message"), [(-1.0, "negative"), (np.nan, "finite"), (np.inf, "finite")])
def test_impossible_counts_are_refused(value: float, message: str) -> None:
    adata = section()
    adata.X[0, 0] = value
    with pytest.raises(sm.InputError, match=message):
        sm.tl.quality_control(adata)


def test_a_view_is_measured_without_touching_what_it_was_cut_from() -> None:
    whole = section()
    whole.X[:, 5] = 1
    part = whole[:20]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata says that the view becomes a copy
        sm.tl.quality_control(part)
    assert "total_counts" in part.obs and "total_counts" not in whole.obs
