"""Both ways: what smeld writes opens in plain anndata, scanpy and spatialdata, with the same values."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

import smeld as sm

mpl.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore")
AnnData = anndata.AnnData


@pytest.fixture(scope="module")
def results() -> AnnData:
    adata = sm.datasets.simulate(200, 50, seed=100)
    for key in [k for k in adata.uns if k.startswith("truth")]:
        del adata.uns[key]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sm.fuse(adata, seed=0)
        sm.tl.domains(adata, 3, seed=0, n_starts=2, n_splits=1)
        sm.tl.markers(adata)
        sm.tl.pieces(adata)
    return adata


@pytest.fixture(scope="module")
def opened(results: AnnData, tmp_path_factory: pytest.TempPathFactory) -> AnnData:
    """Written by smeld, opened by anndata."""
    path = tmp_path_factory.mktemp("h5ad") / "result.h5ad"
    sm.write(results, path)
    return anndata.read_h5ad(path)


def _same(one: AnnData, other: AnnData) -> None:
    assert (one.X != other.X).nnz == 0
    pd.testing.assert_frame_equal(one.obs, other.obs)
    for part in ("obsm", "obsp", "layers", "varm"):
        assert set(getattr(one, part)) == set(getattr(other, part))
        for key, value in getattr(one, part).items():
            read = getattr(other, part)[key]
            if sparse.issparse(value):
                assert (value != read).nnz == 0, key
            else:
                np.testing.assert_array_equal(np.asarray(value), np.asarray(read), err_msg=key)
    for key, value in one.uns.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, other.uns[key])


def test_anndata_has_the_same_values(results: AnnData, opened: AnnData) -> None:
    _same(results, opened)


def test_read_again_and_written_again(results: AnnData, tmp_path: Path) -> None:
    sm.write(results, tmp_path / "a.h5ad")
    again = sm.read(tmp_path / "a.h5ad")
    _same(results, again)
    assert set(results.uns["smeld"]) <= set(again.uns["smeld"])


def test_scanpy_works_on_the_results(opened: AnnData) -> None:
    import matplotlib.pyplot as plt
    import scanpy as sc

    adata = opened.copy()
    sc.pp.normalize_total(adata)
    sc.pp.log1p(adata)
    sc.tl.rank_genes_groups(adata, "domain", method="t-test")
    first = {str(g) for g in opened.uns["domain_markers"].groupby("domain", observed=True)["gene"].first()}
    ranked = {str(name) for row in adata.uns["rank_genes_groups"]["names"][:15] for name in row}
    assert first <= ranked  # smeld's best marker of each domain is among scanpy's best
    sc.tl.dendrogram(adata, "domain", use_rep="fused_sme")
    assert sorted(adata.uns["dendrogram_domain"]["categories_ordered"]) == list(opened.obs["domain"].cat.categories)
    axes = sc.pl.embedding(adata, "spatial", color="domain", show=False)
    drawn = np.concatenate([c.get_offsets() for c in axes.collections if len(c.get_offsets()) == adata.n_obs])
    np.testing.assert_allclose(np.sort(drawn[:, 0]), np.sort(adata.obsm["spatial"][:, 0]))
    plt.close(axes.figure)


def test_the_graph_is_where_squidpy_looks_for_it(opened: AnnData) -> None:
    """Squidpy reads obsp["spatial_connectivities"] (0 and 1) and obsp["spatial_distances"] of the same links."""
    links, lengths = opened.obsp["spatial_connectivities"], opened.obsp["spatial_distances"]
    assert sparse.issparse(links)
    assert set(np.unique(links.data)) == {1.0}
    assert (links != links.T).nnz == 0
    assert links.diagonal().sum() == 0
    row, column = links.nonzero()
    xy = opened.obsm["spatial_um"]
    np.testing.assert_allclose(np.asarray(lengths[row, column]).ravel(), cdist(xy, xy)[row, column], rtol=1e-9)
    assert lengths.nnz == links.nnz


def _spatialdata(adata: AnnData) -> Any:
    """The section as a SpatialData: spots as circles, the table annotates them."""
    spatialdata = pytest.importorskip("spatialdata", reason="needs smeld[spatialdata]")
    # a part of the results: a store is a file or more for each column
    table = AnnData(adata.X.copy(), obs=adata.obs[["domain", "domain_confidence"]].copy(), var=adata.var[[]].copy())
    table.obsm = {key: adata.obsm[key] for key in ("spatial", "spatial_um", "fused_sme", "domain_prob")}
    table.obsp["spatial_connectivities"] = adata.obsp["spatial_connectivities"]
    table.uns["domain_markers"] = adata.uns["domain_markers"].head(20)
    table.obs["region"] = pd.Categorical(["spots"] * table.n_obs)
    table.obs["spot"] = np.arange(table.n_obs)
    circles = spatialdata.models.ShapesModel.parse(adata.obsm["spatial"], geometry=0, radius=20.0)
    parsed = spatialdata.models.TableModel.parse(table, region="spots", region_key="region", instance_key="spot")
    return spatialdata.SpatialData(shapes={"spots": circles}, tables={"table": parsed})


def test_spatialdata_both_ways(results: AnnData, tmp_path: Path) -> None:
    sdata = _spatialdata(results)
    import spatialdata

    path = tmp_path / "result.zarr"
    sm.write(sdata, path)
    assert sdata.path is None  # the caller's own is as it was
    _same(sdata.tables["table"], spatialdata.read_zarr(path).tables["table"])
    again = sm.read(path)
    _same(sdata.tables["table"], again.tables["table"])
    sm.tl.contiguity(again)
    assert "domain_contiguity" in again.tables["table"].uns
    sm.write(again, path)  # nothing of it is read from there later
    assert "domain_contiguity" in spatialdata.read_zarr(path).tables["table"].uns


def test_spatialdata_is_written_as_zarr_only(results: AnnData, tmp_path: Path) -> None:
    sdata = _spatialdata(results)
    with pytest.raises(sm.InputError, match=r"a SpatialData is written as \.zarr.*name it x\.zarr.*sdata\.tables"):
        sm.write(sdata, tmp_path / "x.h5ad")
    (tmp_path / "y.zarr").mkdir()
    (tmp_path / "y.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(sm.InputError, match="not one of smeld"):
        sm.write(sdata, tmp_path / "y.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["y.zarr"]
    assert (tmp_path / "y.zarr" / "notes.txt").read_text() == "mine"


def test_a_store_that_is_still_read_from_stays(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata", reason="needs smeld[spatialdata]")
    image = spatialdata.models.Image2DModel.parse(np.full((3, 8, 8), 7, np.uint8), dims=("c", "y", "x"))
    path = tmp_path / "a.zarr"
    sm.write(spatialdata.SpatialData(images={"he": image}), path)
    lazy = spatialdata.read_zarr(path)
    with pytest.raises(sm.InputError, match="still reads its images"):
        sm.write(lazy, path)
    sm.write(lazy, tmp_path / "b.zarr")
    assert int(lazy.images["he"].max()) == int(spatialdata.read_zarr(tmp_path / "b.zarr").images["he"].min()) == 7
