"""Tables and .h5ad files: orientation, join by identifier, units, and bad input."""

from __future__ import annotations

from pathlib import Path

import _make
import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning

# tables


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
@pytest.mark.parametrize("ending", ["csv", "tsv", "tsv.gz"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("header", [False, True])
def test_orientation_and_order_are_found(tmp_path: Path, ending: str, transposed: bool, header: bool) -> None:
    truth = _make.tables(tmp_path / "t", transposed=transposed, header=header, ending=ending)
    adata = sm.read(tmp_path / "t", um_per_unit=0.5)
    truth = truth.loc[adata.obs_names]
    assert adata.shape == (30, 5)
    assert np.array_equal(adata.X.toarray(), truth[list("ABCDE")])
    assert np.allclose(adata.obsm["spatial"], truth[["x", "y"]])
    assert np.allclose(adata.obsm["spatial_um"], truth[["x", "y"]] * 0.5)
    if header:
        assert adata.obs["kind"].tolist() == truth["kind"].tolist()


def test_unknown_unit_is_assumed_with_a_warning(tmp_path: Path) -> None:
    _make.tables(tmp_path / "t")
    with pytest.warns(SmeldWarning, match="--um-per-unit"):
        adata = sm.read(tmp_path / "t")
    assert np.array_equal(adata.obsm["spatial_um"], adata.obsm["spatial"])


def test_columns_in_um_need_no_unit(tmp_path: Path) -> None:
    _make.tables(tmp_path / "t")
    file = tmp_path / "t/coordinates.csv"
    file.write_text(file.read_text().replace("id,x,y", "id,x_um,y_um"))
    with pytest.warns(SmeldWarning) as caught:
        sm.read(tmp_path / "t")
    assert not any("unit" in str(w.message) for w in caught)


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
def test_partial_overlap_is_said(tmp_path: Path) -> None:
    _make.tables(tmp_path / "t")
    places = tmp_path / "t/coordinates.csv"
    places.write_text("\n".join(places.read_text().splitlines()[:-4]))
    adata = sm.read(tmp_path / "t", um_per_unit=1)
    assert adata.n_obs == 26
    assert "4 spots with counts have no coordinates: they were left out" in _keys.kept_warnings(adata)


def _swap(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


BAD = {
    "no coordinates": (lambda f: (f / "coordinates.csv").unlink(), "no section that smeld knows"),
    "two counts": (lambda f: (f / "counts.tsv").write_text("a"), "one table of counts"),
    "no x": (lambda f: _swap(f / "coordinates.csv", "id,x,y", "id,a,b"), "x and y are missing"),
    "foreign names": (lambda f: _swap(f / "coordinates.csv", "cell", "spot"), "do not match"),
    "repeated names": (lambda f: _swap(f / "coordinates.csv", "cell11,", "cell10,"), "must be unique"),
    "words": (lambda f: _swap(f / "counts.csv", "cell3,", "cell3,many"), "holds words"),
    "ragged": (lambda f: _swap(f / "counts.csv", "cell3,", "cell3,1,1,1,"), "cannot be read as a table"),
    "empty": (lambda f: (f / "counts.csv").write_text(" \n"), "the file is empty"),
}


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
@pytest.mark.parametrize("name", BAD)
def test_bad_tables(tmp_path: Path, name: str) -> None:
    _make.tables(tmp_path / "t")
    assert sm.read(tmp_path / "t").n_obs == 30  # the good twin
    damage, message = BAD[name]
    damage(tmp_path / "t")
    with pytest.raises(InputError) as error:
        sm.read(tmp_path / "t")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# h5ad


def table(n: int = 20, *, genes: int = 6, seed: int = 0) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(
        X=sparse.csr_matrix(rng.poisson(2, (n, genes)) + 1.0),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(genes)]),
    )
    adata.obsm["spatial"] = rng.uniform(0, 300, (n, 2))
    return adata


def saved(adata: anndata.AnnData, folder: Path) -> Path:
    adata.write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_h5ad_matrix_forms(tmp_path: Path, form) -> None:
    truth = table()
    truth.X = form(truth.X.toarray().astype(np.int64))
    adata = sm.read(saved(truth, tmp_path), um_per_unit=3)
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    assert np.array_equal(adata.X.toarray(), table().X.toarray())
    assert np.allclose(adata.obsm["spatial_um"], truth.obsm["spatial"] * 3)
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == 3


def test_h5ad_unit_unknown(tmp_path: Path) -> None:
    with pytest.warns(SmeldWarning, match="1 um is assumed"):
        adata = sm.read(saved(table(), tmp_path))
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == 1


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning:.*")
def test_what_smeld_wrote_is_read_back(tmp_path: Path) -> None:
    sec = _make.section()
    one = sm.read(_make.spaceranger(tmp_path / "s", sec))
    sm.write(one, tmp_path / "one.h5ad")
    two = sm.read(tmp_path / "one.h5ad")
    assert (one.X != two.X).nnz == 0
    assert np.allclose(one.obsm["spatial_um"], two.obsm["spatial_um"], rtol=1e-12)
    assert list(two.uns["spatial"]) == ["s"]
    assert np.array_equal(one.uns["spatial"]["s"]["images"]["hires"], two.uns["spatial"]["s"]["images"]["hires"])
    assert _adapt.metadata(two)[_keys.META_PLATFORM] == "visium"


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
def test_scanpy_visium_is_regressed_on_the_lattice(tmp_path: Path) -> None:
    sec = _make.section(um_per_px=0.37, angle=1.0)
    one = sm.read(_make.spaceranger(tmp_path / "s", sec))
    del one.obsm["spatial_um"], one.uns["spatial"]["s"]["metadata"], one.uns["smeld"]
    two = sm.read(saved(one, tmp_path))
    assert _adapt.metadata(two)[_keys.META_UM_PER_UNIT] == pytest.approx(0.37)


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
def test_a_lattice_that_does_not_fit_is_not_believed(tmp_path: Path) -> None:
    adata = table()
    adata.obs["array_row"], adata.obs["array_col"] = np.arange(20), np.arange(20)[::-1] % 7
    assert _adapt.metadata(sm.read(saved(adata, tmp_path)))[_keys.META_UM_PER_UNIT] == 1


def test_three_dimensions(tmp_path: Path) -> None:
    adata = table()
    adata.obsm["spatial"] = np.column_stack([adata.obsm["spatial"], np.arange(20)])
    with pytest.warns(SmeldWarning, match="3 columns"):
        read = sm.read(saved(adata, tmp_path), um_per_unit=2)
    assert read.obsm["spatial"].shape == (20, 3)
    assert np.allclose(read.obsm["spatial_um"], adata.obsm["spatial"][:, :2] * 2)


def test_notes_beside_the_section_are_left_alone(tmp_path: Path) -> None:
    adata = table()
    adata.uns["spatial"] = {"is_single": True, "lib": {"images": {}, "scalefactors": {}}}
    read = sm.read(saved(adata, tmp_path), um_per_unit=2)
    assert _adapt.metadata(read)[_keys.META_UM_PER_UNIT] == 2
    assert bool(read.uns["spatial"]["is_single"])


def test_pixel_limit_is_the_readers_not_the_files(tmp_path: Path) -> None:
    adata = table()
    meta = {"image_path": "/nowhere/image.tif", "max_megapixels": 1e9, "um_per_unit": 1.0}
    adata.uns["spatial"] = {"lib": {"images": {}, "scalefactors": {}, "metadata": meta}}
    with pytest.warns(SmeldWarning, match="not where it was"):
        read = sm.read(saved(adata, tmp_path), um_per_unit=1)
    assert _adapt.metadata(read)[_keys.META_MAX_MEGAPIXELS] == 500


def test_repeated_genes_and_non_counts_go_on(tmp_path: Path) -> None:
    adata = table()
    adata.var_names = ["a", "a", "b", "c", "d", "e"]
    adata.X = adata.X * 0.3
    with pytest.warns(SmeldWarning) as caught:
        read = sm.read(saved(adata, tmp_path), um_per_unit=1)
    said = " ".join(str(w.message) for w in caught)
    assert "more than once" in said
    assert "not whole numbers" in said
    assert read.var_names[1] == "a-1"


def _with_nan(adata: anndata.AnnData) -> None:
    adata.obsm["spatial"][3, 1] = np.nan


def _negative(adata: anndata.AnnData) -> None:
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X - sparse.csr_matrix(np.full(adata.shape, 3.0))


def _two_sections(adata: anndata.AnnData) -> None:
    adata.uns["spatial"] = {"a": {"images": {}}, "b": {"images": {}}}


def _bad_factor(adata: anndata.AnnData) -> None:
    adata.uns["spatial"] = {
        "a": {"images": {"hires": np.zeros((4, 4, 3))}, "scalefactors": {"tissue_hires_scalef": 0.0}}
    }


def _no_factor(adata: anndata.AnnData) -> None:
    adata.uns["spatial"] = {"a": {"images": {"hires": np.zeros((4, 4, 3))}}}


def _other_um(adata: anndata.AnnData) -> None:
    adata.obsm["spatial_um"] = adata.obsm["spatial"] ** 2


def _zeros(adata: anndata.AnnData) -> None:
    adata.X = adata.X * 0


BAD_H5AD = {
    "no spatial": (lambda a: a.obsm.pop("spatial"), 'obsm["spatial"] is missing'),
    "one column": (lambda a: a.obsm.__setitem__("spatial", a.obsm["spatial"][:, :1]), "too few columns"),
    "NaN": (_with_nan, "1 of 20 spots NaN"),
    "negative": (_negative, "perhaps the counts are in layers['counts']"),
    "repeated names": (lambda a: setattr(a, "obs_names", ["c0", *a.obs_names[:-1]]), "must be unique"),
    "two sections": (_two_sections, "one section at a time"),
    "bad factor": (_bad_factor, "must be a positive number"),
    "no factor": (_no_factor, "tissue_hires_scalef is missing"),
    "other um": (_other_um, "does not follow from"),
    "zeros": (_zeros, "nothing but zeros"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", BAD_H5AD)
def test_bad_h5ad(tmp_path: Path, name: str) -> None:
    adata = table()
    assert sm.read(saved(adata, tmp_path)).n_obs == 20  # the good twin
    damage, message = BAD_H5AD[name]
    damage(adata)
    with pytest.raises(InputError) as error:
        sm.read(saved(adata, tmp_path))
    assert message in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no hdf5 at all", None])
def test_broken_h5ad_files(tmp_path: Path, content: bytes | None) -> None:
    file = saved(table(), tmp_path)
    file.write_bytes(file.read_bytes()[:3000] if content is None else content)
    with pytest.raises(InputError, match=r"cannot be read as .h5ad") as error:
        sm.read(file)
    assert "\n" not in str(error.value)


def test_single_cell_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 2 spots"):
        sm.read(saved(table(1), tmp_path), um_per_unit=1)
