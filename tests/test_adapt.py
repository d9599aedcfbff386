"""AnnData or SpatialData in; table, coordinates, counts and image out, refused where they are no good."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import anndata
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from smeld import _adapt, _keys
from smeld._check import InputError


@dataclass
class Spatial:
    """As much of a SpatialData as smeld looks at."""

    tables: dict[str, anndata.AnnData] = field(default_factory=dict)


def small(n: int = 4, **obsm: Any) -> anndata.AnnData:
    adata = anndata.AnnData(sparse.csr_matrix(np.arange(n * 3).reshape(n, 3).astype(np.float32)))
    adata.obs_names = [f"s{i}" for i in range(n)]
    adata.obsm["spatial"] = np.column_stack([np.arange(n) * 2.0, np.ones(n)])
    adata.obsm["spatial_um"] = adata.obsm["spatial"] * 0.5
    for key, value in obsm.items():
        adata.obsm[key] = value
    return adata


# -- the table -----------------------------------------------------------------------------------------------


def test_table_of_either_kind() -> None:
    adata = small()
    assert _adapt.table(adata) is adata
    assert _adapt.table(Spatial({"a": adata})) is adata


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Spatial({}), "0 tables"),
        (Spatial({"a": small(), "b": small()}), r"2 tables: a, b.*sdata\.tables"),
        (np.ones((2, 2)), "found: ndarray; cure: read one with sm.read"),
        ("section.h5ad", "found: str"),
        (None, "found: NoneType"),
    ],
)
def test_no_table(data: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _adapt.table(data)


# -- coordinates ---------------------------------------------------------------------------------------------


def test_xy_um() -> None:
    adata = small(spatial_um=np.arange(12).reshape(4, 3))
    xy = _adapt.xy_um(adata)
    assert xy.dtype == np.float64
    np.testing.assert_array_equal(xy, np.arange(12).reshape(4, 3)[:, :2])
    np.testing.assert_array_equal(_adapt.xy_um(Spatial({"a": adata})), xy)


def test_xy_um_missing() -> None:
    adata = small()
    del adata.obsm["spatial_um"]
    with pytest.raises(InputError, match=r"obsm\['spatial_um'\] is missing.*obsm has spatial; cure: read"):
        _adapt.xy_um(adata)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_xy_um_not_finite(bad: float) -> None:
    adata = small()
    adata.obsm["spatial_um"][2, 1] = bad
    with pytest.raises(InputError, match="1 of 4 NaN or infinite"):
        _adapt.xy_um(adata)


# -- counts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array],
    ids=["dense", "csr", "csc", "csr_array"],
)
@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.float32])
def test_counts_of_any_form(form: Any, dtype: Any) -> None:
    values = np.array([[0, 2, 1], [3, 0, 0]], dtype=dtype)
    adata = anndata.AnnData(form(values))
    got = _adapt.counts(adata)
    assert isinstance(got, sparse.csr_matrix)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got.toarray(), values)
    assert _adapt.are_counts(got)


def test_counts_of_a_layer() -> None:
    adata = small()
    adata.layers["raw"] = adata.X * 2
    assert (_adapt.counts(adata, "raw") != adata.X * 2).nnz == 0
    with pytest.raises(InputError, match=r"layers\['rwa'\] is missing.*layers has raw"):
        _adapt.counts(adata, "rwa")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, -1], [0, 0]], "negative; found: smallest value -1"),
        ([[1, np.nan], [0, 0]], "must be finite"),
        ([[1, np.inf], [0, 0]], "must be finite"),
        ([[0, 0], [0, 0]], "nothing but zeros"),
        ([[1, 2]], "at least 2 spots.*1 spots x 2 genes"),
        (np.ones((2, 0)), "2 spots x 0 genes"),
        (np.ones((0, 2)), "0 spots x 2 genes"),
    ],
)
def test_no_counts(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _adapt.counts(anndata.AnnData(np.asarray(values, dtype=np.float32)))


def test_explicit_zeros_are_zeros() -> None:
    matrix = sparse.csr_matrix((np.zeros(2, np.float32), ([0, 1], [0, 1])), shape=(2, 2))
    with pytest.raises(InputError, match="nothing but zeros"):
        _adapt.check_counts(matrix)


def test_no_matrix_at_all() -> None:
    with pytest.raises(InputError, match="no matrix X"):
        _adapt.counts(anndata.AnnData(shape=(3, 2)))


@pytest.mark.parametrize(("values", "whole"), [([1, 2.5], False), ([1, 2], True), ([1e6, 3], True), ([1e-9, 1], False)])
def test_are_counts(values: list[float], whole: bool) -> None:
    assert _adapt.are_counts(sparse.csr_matrix(np.asarray([values], dtype=np.float32))) is whole


# -- the image -----------------------------------------------------------------------------------------------


def entry(**more: Any) -> dict[str, Any]:
    pixels = np.full((40, 60, 3), 200, dtype=np.uint8)
    return {
        "images": {"hires": pixels, "lowres": pixels[::4, ::4]},
        "scalefactors": {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.125},
        "metadata": {"um_per_unit": 2.0, **more},
    }


def with_image(**more: Any) -> anndata.AnnData:
    adata = small()
    adata.uns["spatial"] = {"a": entry(**more)}
    return adata


def test_image_takes_the_finest_stored() -> None:
    adata = with_image()
    picture = _adapt.image(adata)
    assert picture is not None
    assert picture.shape[:2] == (40, 60)
    assert picture.scale == 0.5
    assert picture.um_per_px == pytest.approx(4.0), "2 um a unit, half a pixel a unit"
    np.testing.assert_allclose(_adapt.xy_px(adata, picture), adata.obsm["spatial"] * 0.5)
    del adata.uns["spatial"]["a"]["images"]["hires"]
    picture = _adapt.image(adata)
    assert picture is not None
    assert picture.shape[:2] == (10, 15)
    assert picture.um_per_px == pytest.approx(16.0)


def test_image_file_before_the_stored_one_but_not_for_plots(tmp_path) -> None:
    path = tmp_path / "full.png"
    Image.new("RGB", (120, 80), (10, 20, 30)).save(path)
    adata = with_image(image_path=str(path), image_scale=1.0)
    picture, preview = _adapt.image(adata), _adapt.image(adata, preview=True)
    assert picture is not None
    assert preview is not None
    assert (picture.shape[:2], picture.um_per_px) == ((80, 120), 2.0)
    assert preview.shape[:2] == (40, 60)
    path.unlink()
    gone = _adapt.image(adata)
    assert gone is not None
    assert gone.shape[:2] == (40, 60), "a file that is gone: the stored one"


def test_pixel_limit_of_the_file_holds(tmp_path) -> None:
    path = tmp_path / "full.png"
    Image.new("RGB", (120, 80)).save(path)
    adata = with_image(image_path=str(path), image_scale=1.0, max_megapixels=0.001)
    with pytest.raises(InputError, match="over the limit"):
        _adapt.image(adata)


@pytest.mark.parametrize("spatial", [None, {}, {"is_single": True}, {"a": {"images": {}, "scalefactors": {}}}, "words"])
def test_no_image(spatial: Any) -> None:
    adata = small()
    if spatial is not None:
        adata.uns["spatial"] = spatial
    assert _adapt.image(adata) is None
    assert isinstance(_adapt.metadata(adata), dict)


def test_several_sections_must_be_named() -> None:
    adata = small()
    adata.uns["spatial"] = {"a": entry(), "b": entry(um_per_unit=3.0), "is_single": np.True_}
    with pytest.raises(InputError, match="several sections are stored; found: a, b; cure"):
        _adapt.image(adata)
    assert _adapt.metadata(adata, "b")["um_per_unit"] == 3.0
    with pytest.raises(InputError, match=r"\['c'\] is missing"):
        _adapt.image(adata, "c")
    del adata.uns["spatial"]["b"]
    found = _adapt.library(adata)
    assert found is not None
    assert found[0] == "a", "a note beside the one section does no harm"


def test_metadata_is_a_copy() -> None:
    adata = with_image()
    _adapt.metadata(adata)["um_per_unit"] = 7
    assert _adapt.metadata(adata)["um_per_unit"] == 2.0


# -- the canonical order -------------------------------------------------------------------------------------


@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=12, unique=True), st.randoms())
def test_the_order_does_not_depend_on_the_order(names: list[str], random: Any) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)
    sorted_names = []
    for given_names in (names, shuffled):
        adata = small(len(names))
        adata.obs_names = given_names
        order = _adapt.canonical_order(adata)
        assert sorted(order) == list(range(len(names)))
        sorted_names.append([given_names[i] for i in order])
    assert sorted_names[0] == sorted_names[1]


def test_the_order_does_not_depend_on_positions() -> None:
    one, other = small(), small()
    other.obsm["spatial_um"] = -3 * other.obsm["spatial_um"][:, ::-1]
    np.testing.assert_array_equal(_adapt.canonical_order(one), _adapt.canonical_order(other))


def test_repeated_identifiers_have_no_order() -> None:
    adata = small()
    adata.obs_names = ["a", "b", "a", "b"]
    with pytest.raises(InputError, match=r"must be unique; found: repeated: a, b; cure: adata\.obs_names_make"):
        _adapt.canonical_order(adata)


def test_keys_have_the_names_of_the_design() -> None:
    assert (_keys.SPATIAL, _keys.SPATIAL_UM, _keys.PCA) == ("spatial", "spatial_um", "X_pca")
    assert (_keys.CONNECTIVITIES, _keys.DISTANCES) == ("spatial_connectivities", "spatial_distances")
    assert (_keys.SME_WEIGHTS, _keys.SME, _keys.RECORD) == ("sme_weights", "sme", "smeld")
