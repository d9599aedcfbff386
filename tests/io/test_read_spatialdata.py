"""SpatialData and AnnData stores: positions from elements, images in place, and a clear refusal of each damage."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from scipy import sparse

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning
from smeld.io import _elements

sd = pytest.importorskip("spatialdata", reason="needs smeld[spatialdata]")
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel  # noqa: E402
from spatialdata.transformations import Affine, Identity, Scale  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
N_SIDE, N = 5, 25
#: pixels of the image to the coordinate system "global": turned by a right angle and shifted
TURNED = np.array([[0.0, -2.0, 210.0], [2.0, 0.0, 12.0], [0.0, 0.0, 1.0]])


def _places() -> np.ndarray:
    """Centres of the cells in "global", unlike in x and y."""
    y, x = np.mgrid[:N_SIDE, :N_SIDE]
    return np.column_stack([30.0 + 36 * x.ravel(), 40.0 + 28 * y.ravel()])


def _table(ids: Any, region: str, name: str = "c") -> anndata.AnnData:
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(2.0, (len(ids), 6)).astype(np.float32)))
    adata.obs_names = [f"{name}{i}" for i in ids]
    adata.obs["region"], adata.obs["cell"] = region, list(ids)
    adata.obs["region"] = adata.obs["region"].astype("category")
    return TableModel.parse(adata, region=region, region_key="region", instance_key="cell")


def _squares(xy: np.ndarray, half: float, ids: Any, transformations: dict[str, Any]) -> Any:
    import geopandas
    import shapely

    boxes = shapely.box(xy[:, 0] - half, xy[:, 1] - half, xy[:, 0] + half, xy[:, 1] + half)
    return ShapesModel.parse(geopandas.GeoDataFrame(geometry=boxes, index=list(ids)), transformations=transformations)


def _painted(shape: tuple[int, int], to_global: np.ndarray) -> np.ndarray:
    """uint8 [3, h, w]: cell i is 100 + i, the rest 0."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    where = _elements.moved(to_global, np.column_stack([x.ravel() + 0.5, y.ravel() + 0.5]))
    far = np.abs(where[:, None, :] - _places()[None]).max(axis=2)
    values = np.where(far.min(axis=1) <= 8, 100 + far.argmin(axis=1), 0)
    return np.repeat(values.reshape((1, *shape)).astype(np.uint8), 3, axis=0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cells as squares whose own coordinates are half of "global"; a turned image; the table has cells in another
    order, and no positions."""
    order = np.random.default_rng(1).permutation(N)
    affine = Affine(TURNED, input_axes=("x", "y"), output_axes=("x", "y"))
    image = Image2DModel.parse(_painted((100, 80), TURNED), dims=("c", "y", "x"), transformations={"global": affine})
    grey = Image2DModel.parse(np.zeros((1, 9, 9), np.uint8), dims=("c", "y", "x"), transformations={"far": Identity()})
    doubled = {"global": Scale([2.0, 2.0], axes=("x", "y"))}
    sdata = sd.SpatialData(
        images={"he": image, "elsewhere": grey},
        shapes={"cells": _squares(_places() / 2, 3.0, range(N), doubled)},
        tables={"table": _table(order, "cells")},
    )
    path = tmp_path_factory.mktemp("sd") / "section.zarr"
    sdata.write(path)
    return path


def test_cells_lie_where_their_shapes_are(store: Path) -> None:
    sdata = sm.read(store, um_per_unit=0.5)
    adata = sdata.tables["table"]
    assert adata.uns["smeld"]["read"]["inputs"]["platform"] == "spatialdata"
    np.testing.assert_allclose(adata.obsm["spatial"], _places()[adata.obs["cell"]], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(adata.obsm["spatial_um"], adata.obsm["spatial"] * 0.5)
    assert _adapt.table(sdata) is adata


def test_the_image_in_the_store_is_registered(store: Path) -> None:
    adata = sm.read(store, um_per_unit=0.5).tables["table"]
    meta = _adapt.metadata(adata)
    assert Path(meta[_keys.META_IMAGE_PATH]) == store / "images" / "he"
    picture = _adapt.image(adata)
    assert picture is not None
    assert picture.um_per_px == pytest.approx(1.0)  # 2 units of 0.5 um
    px = np.rint(_adapt.xy_px(adata, picture)).astype(int)
    seen = [int(picture.window(y, x, 1, 1)[0, 0, 0]) for x, y in px]
    np.testing.assert_array_equal(seen, 100 + adata.obs["cell"].to_numpy())
    # the preview that plots draw is not turned
    preview = _adapt.image(adata, preview=True)
    at = np.rint(adata.obsm["spatial"] * preview.scale).astype(int)
    np.testing.assert_array_equal(preview.pixels()[at[:, 1], at[:, 0], 0], seen)


def test_outlines_in_micrometres(store: Path) -> None:
    adata = sm.read(store, um_per_unit=0.5, outlines=True).tables["table"]
    kept = adata.uns["cell_outlines"]
    for i in (0, 7, N - 1):
        corners = kept["xy_um"][kept["start"][i] : kept["start"][i + 1]]
        assert np.ptp(corners, axis=0) == pytest.approx([6.0, 6.0])  # 6 of its own units are 12 of "global"
        assert (corners.min(axis=0) + corners.max(axis=0)) / 2 == pytest.approx(adata.obsm["spatial_um"][i])


def _small(path: Path, **obsm: Any) -> Path:
    """Shapes and a table alone, whose positions are given."""
    table = _table(range(N), "cells")
    for key, value in obsm.items():
        table.obsm[key] = value
    both = {"global": Scale([2.0, 2.0], axes=("x", "y"))}
    sd.SpatialData(shapes={"cells": _squares(_places() / 2, 3.0, range(N), both)}, tables={"table": table}).write(path)
    return path


def test_positions_of_the_table_stay_where_they_are_the_shapes_own(tmp_path: Path) -> None:
    """As of Xenium: micrometres in the table and of shapes, pixels in "global"."""
    given = _places() / 2 + np.random.default_rng(0).uniform(-0.3, 0.3, (N, 2))
    adata = sm.read(_small(tmp_path / "a.zarr", spatial=given), um_per_unit=1.0).tables["table"]
    np.testing.assert_array_equal(adata.obsm["spatial"], given)


def test_positions_of_other_cells_are_replaced_with_a_warning(tmp_path: Path) -> None:
    given = _places()[::-1].copy()
    path = _small(tmp_path / "a.zarr", spatial=given)
    with pytest.warns(SmeldWarning, match="are not the positions of cells"):
        adata = sm.read(path, um_per_unit=1.0).tables["table"]
    np.testing.assert_allclose(adata.obsm["spatial"], _places())
    np.testing.assert_array_equal(adata.obsm["spatial_delivered"], given)


def test_labels_block_by_block_as_spatialdata_has_them() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 40, (57, 43)).astype(np.int32)
    labels = Labels2DModel.parse(values, dims=("y", "x"), chunks=(16, 10))
    names, xy = _elements.centroids(labels)
    expected = sd.get_centroids(labels).compute()
    np.testing.assert_array_equal(names, expected.index)
    np.testing.assert_allclose(xy, expected[["x", "y"]].to_numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", ["blobs.zarr", "blobs_v3.zarr"])
def test_real_stores_of_zarr_2_and_3(shared_data: Path, name: str) -> None:
    path = shared_data / "vendor_fixtures" / "spatialdata" / name
    if not path.is_dir():
        pytest.skip(f"{name} is not there")
    with pytest.warns(SmeldWarning) as said:
        sdata = sm.read(path)
    assert {"unit of the coordinates", "not whole numbers"} <= {
        part for part in ("unit of the coordinates", "not whole numbers") if any(part in str(w.message) for w in said)
    }
    adata = sdata.tables["table"]
    expected = sd.get_centroids(sdata["blobs_labels"]).compute().loc[adata.obs["instance_id"], ["x", "y"]]
    np.testing.assert_allclose(adata.obsm["spatial"], expected.to_numpy(), rtol=1e-12)
    assert _adapt.image(adata, preview=True).shape == (64, 64)


# -- damages ---------------------------------------------------------------------------------------------------


def _attributes(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_text())


def _newer(path: Path) -> None:
    root = _attributes(path)
    root["attributes"]["spatialdata_attrs"] |= {"version": "0.9", "spatialdata_software_version": "1.2"}
    (path / "zarr.json").write_text(json.dumps(root))


def _cut(path: Path) -> None:
    chunk = max((p for p in (path / "tables/table/X").rglob("c/*") if p.is_file()), key=lambda p: p.stat().st_size)
    chunk.write_bytes(chunk.read_bytes()[:20])


def _no_metadata(path: Path) -> None:
    (path / "tables/table/obs/zarr.json").unlink()


def _torn(path: Path) -> None:
    shutil.rmtree(path / "tables/table/X/indices/c")


def _renamed(path: Path) -> None:
    (path / "shapes/cells").rename(path / "shapes/nuclei")
    _forget(path)


def _without_table(path: Path) -> None:
    shutil.rmtree(path / "tables/table")
    _forget(path)


def _forget(path: Path) -> None:
    """Metadata gathered at the root say what was there before."""
    for file in (path / "zarr.json", path / "shapes/zarr.json", path / "tables/zarr.json"):
        group = json.loads(file.read_text())
        group.pop("consolidated_metadata", None)
        file.write_text(json.dumps(group))


def _fewer_cells(path: Path) -> None:
    import geopandas

    file = path / "shapes/cells/shapes.parquet"
    geopandas.read_parquet(file).iloc[3:].to_parquet(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_newer, r"newer layout.*version 0\.9, written by spatialdata 1\.2.*cure: pip install --upgrade"),
        (_cut, r"section\.zarr cannot be read as a SpatialData store.*cure: copy the folder again"),
        (_no_metadata, r"cannot be read as a SpatialData store.*copy the folder again"),
        (_torn, r"matrix of table 'table' is not whole.*files of it are missing"),
        (_renamed, r"describes 'cells', which the store does not hold; found: shapes and labels nuclei"),
        (_without_table, r"no table of counts; found: elements cells"),
        (_fewer_cells, r"instances of table 'table' are not in 'cells'; found: 3 of 25.*match_element_to_table"),
    ],
)
def test_damaged_stores(store: Path, tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    path = tmp_path / "section.zarr"
    shutil.copytree(store, path)
    damage(path)
    with pytest.raises(InputError, match=message):
        sm.read(path)


def test_several_tables_need_a_name(tmp_path: Path) -> None:
    tables = {"table_cells": _table(range(N), "cells"), "table_bins": _table(range(N), "cells", "b")}
    shapes = {"cells": _squares(_places(), 3.0, range(N), {"global": Identity()})}
    path = tmp_path / "a.zarr"
    sd.SpatialData(shapes=shapes, tables=tables).write(path)
    with pytest.raises(InputError, match=r"several tables; found: 2: .*table_bins.*cure: name one with --table"):
        sm.read(path)
    with pytest.raises(InputError, match="did you mean 'table_bins'"):
        sm.read(path, table="table_bin")
    sdata = sm.read(path, table="table_bins", um_per_unit=1.0)
    assert set(sdata.tables) == set(tables)
    assert _adapt.table(sdata) is sdata.tables["table_bins"]


def test_without_the_package(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(InputError, match=r"needs the package spatialdata.*pip install 'smeld\[spatialdata\]'"):
        sm.read(store)


# -- AnnData's own stores --------------------------------------------------------------------------------------


def _plain() -> anndata.AnnData:
    rng = np.random.default_rng(0)
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(2.0, (N, 6)).astype(np.float32)))
    adata.obs["kind"] = ["a", "b"] * 12 + ["c"]
    adata.obsm["spatial"] = _places()
    adata.obsm["spatial_um"] = _places() * 0.5
    return adata


def test_anndata_zarr_is_read_as_h5ad_is(tmp_path: Path) -> None:
    sm.write(_plain(), tmp_path / "a.h5ad")
    sm.write(_plain(), tmp_path / "a.zarr")
    one, other = sm.read(tmp_path / "a.h5ad"), sm.read(tmp_path / "a.zarr")
    assert other.uns["smeld"]["read"]["inputs"]["platform"] == "anndata_zarr"
    assert (one.X != other.X).nnz == 0
    np.testing.assert_array_equal(other.obsm["spatial_um"], _places() * 0.5)
    assert one.obs.equals(other.obs)


def test_anndata_zarr_that_is_not_whole(tmp_path: Path) -> None:
    _plain().write_zarr(tmp_path / "a.zarr")
    data = max((tmp_path / "a.zarr/X/data").glob("[0-9]*"), key=lambda p: p.stat().st_size)
    whole = data.read_bytes()
    data.write_bytes(whole[:20])
    with pytest.raises(InputError, match=r"cannot be read as AnnData's zarr.*copy the folder again"):
        sm.read(tmp_path / "a.zarr")
    data.write_bytes(whole)
    shutil.rmtree(tmp_path / "a.zarr" / "var")
    (tmp_path / "a.zarr" / "var").mkdir()  # zarr says nothing, and would read six genes without a name
    with pytest.raises(InputError, match=r"chunks of var/_index are missing"):
        sm.read(tmp_path / "a.zarr")


@pytest.mark.parametrize("key", ["X/data", "X/indices", "X/indptr", "obsm/spatial", "obs/_index", "var/_index"])
def test_anndata_zarr_without_a_file(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.zarr"
    _plain().write_zarr(path)
    for file in (path / key).rglob("*"):
        if file.is_file() and file.name not in ("zarr.json", ".zarray", ".zattrs"):
            file.unlink()
    with pytest.raises(InputError, match=f"a.zarr cannot be read.*chunks of {key} are missing"):
        sm.read(path)
