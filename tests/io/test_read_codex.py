"""Protein imaging: tables of MCMICRO, steinbock, the CODEX processor and QuPath, and what is refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import _make_cells_c as make
import numpy as np
import pandas as pd
import pytest
import tifffile

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning

SEC = make.truth(7, apart=12.0)


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


def agrees(adata, *, at: list[int] | None = None) -> None:
    """Markers and places by identifier, here numbered from 1."""
    at = [int(name) - 1 for name in adata.obs_names] if at is None else at
    assert adata.var_names.tolist() == make.GENES
    assert np.allclose(adata.X.toarray(), SEC.counts[at] + 0.25)
    assert np.allclose(adata.obsm["spatial_um"], SEC.um[at])


def test_mcmicro(tmp_path: Path) -> None:
    folder = make.mcmicro(tmp_path / "d", SEC)
    adata = quiet(folder, um_per_unit=0.65)
    agrees(adata)
    assert set(adata.obs.columns) == {"Area", "MajorAxisLength", "Eccentricity", "cell_area_um2"}
    assert adata.obs["cell_area_um2"].to_numpy() == pytest.approx(120 * 0.65**2)
    with pytest.warns(SmeldWarning, match="unit of the coordinates is not known"):
        unknown = sm.read(folder)
    assert "cell_area_um2" not in unknown.obs
    assert any("not whole numbers" in text for text in _keys.kept_warnings(unknown))
    agrees(quiet(folder / "quantification/exemplar--unmicst_cell.csv", um_per_unit=0.65))


def test_mcmicros_pixel_size_stands_in_its_image(tmp_path: Path) -> None:
    folder = make.mcmicro(tmp_path / "d", SEC)
    (folder / "registration").mkdir()
    image = folder / "registration/exemplar.ome.tif"
    pixels = np.zeros((8, 8), np.uint8)
    for size, unit, um in (
        (0.65, "µm", 0.65), (650.0, "nm", 0.65), (1.0, "µm", 1.0), (0.5, "pixel", 1.0), (3.0, "inch", 1.0),
    ):  # fmt: skip
        metadata = {"PhysicalSizeX": size, "PhysicalSizeXUnit": unit}
        tifffile.imwrite(image, pixels, ome=True, metadata=metadata)
        adata = quiet(folder)
        assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == pytest.approx(um)
        # 1 um is what programs write that do not know; nor does a length in pixels say anything
        assert any("unit of the coordinates" in text for text in _keys.kept_warnings(adata)) == (um == 1.0)


@pytest.mark.parametrize("axis", ["axis_major_length", "major_axis_length"])
def test_steinbock(tmp_path: Path, axis: str) -> None:
    with pytest.warns(SmeldWarning, match="steinbock's pixels were taken as 1 um"):
        adata = sm.read(make.steinbock(tmp_path / "d", SEC, axis=axis))
    agrees(adata)
    assert adata.obs["cell_area_um2"].tolist() == [60.0] * adata.n_obs
    assert adata.obs[axis].tolist() == [9.0] * adata.n_obs


def test_steinbocks_images_are_read_one_at_a_time_and_cells_of_one_side_left_out(tmp_path: Path) -> None:
    folder = make.steinbock(tmp_path / "d", SEC, images=("roi_1", "roi_2"))
    with pytest.raises(InputError, match=r"intensities/ holds 2 tables.*roi_1, roi_2.*--table"):
        quiet(folder)
    agrees(quiet(folder, table="roi_2"))
    shapes = folder / "regionprops/roi_1.csv"
    shapes.write_text("\n".join(shapes.read_text().splitlines()[:-3]))
    with pytest.warns(SmeldWarning, match="3 cells are in one of roi_1.csv and its shapes alone"):
        agrees(sm.read(folder, table="roi_1"))


def test_the_codex_processor(tmp_path: Path) -> None:
    file = make.codex_processor(tmp_path / "reg001_compensated.csv", SEC)
    with pytest.warns(SmeldWarning, match=r"1 intensities \(0.3%\) below 0 were set to 0"):
        adata = sm.read(file, um_per_unit=1.0)
    assert adata.X[0, 0] == 0
    agrees(adata[1:])
    assert "size:size" in adata.obs


def test_qupath_says_its_unit_and_holds_several_images(tmp_path: Path) -> None:
    file = make.qupath(tmp_path / "cells_CODEX.csv", SEC, images=("a.tif", "b.tif"))
    with pytest.raises(InputError, match=r"holds 2 images.*Image: a.tif, b.tif.*--table"):
        quiet(file)
    adata = quiet(file, table="b.tif")
    assert not any("unit of the coordinates" in text for text in _keys.kept_warnings(adata))
    agrees(adata, at=[SEC.names.index(name.removeprefix("b.tif-")) for name in adata.obs_names])


def test_a_table_of_any_name_is_read_when_it_is_said_what_it_is(tmp_path: Path) -> None:
    table = pd.DataFrame(make.intensities(SEC)).assign(x=SEC.um[:, 0], y=SEC.um[:, 1])
    table.to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(InputError, match="no section that smeld knows"):
        quiet(tmp_path / "mine.csv")
    agrees(quiet(tmp_path / "mine.csv", platform="codex_file", um_per_unit=1.0))


def test_order_does_not_matter(tmp_path: Path) -> None:
    table = make.mcmicro_table(SEC)
    table.to_csv(tmp_path / "a--x.csv", index=False)
    table.sample(frac=1, random_state=4).to_csv(tmp_path / "b--x.csv", index=False)
    one, two = (quiet(tmp_path / f"{name}--x.csv", um_per_unit=0.65) for name in "ab")
    two = two[one.obs_names]
    assert np.array_equal(one.obsm["spatial_um"], two.obsm["spatial_um"])
    assert (one.X != two.X).nnz == 0


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


TABLE, SHAPES = "intensities/roi_1.csv", "regionprops/roi_1.csv"
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "shapes missing": (lambda p: (p / SHAPES).rename(p / "regionprops/roi_9.csv"), "regionprops/roi_1.csv is missing"),
    "columns renamed": (edit(SHAPES, "centroid", "middle"), "no columns with the cells' places.*rename the columns"),
    "no identifiers": (edit(TABLE, "Object", "Cell"), "roi_1.csv lacks the columns Object.*newer version"),
    "truncated": (lambda p: (p / TABLE).write_text(""), "roi_1.csv cannot be read.*copy the file again"),
    "cut short": (
        lambda p: (p / TABLE).write_text((p / TABLE).read_text()[:-9]),
        "roi_1.csv cannot be read.*the last row has 6 cells for 7 names",
    ),
    "other image": (
        lambda p: pd.read_csv(p / TABLE).assign(Object=lambda t: t.Object + 500).to_csv(p / TABLE, index=False),
        "cells of the intensities and of the shapes do not match.*same image",
    ),
    "empty cell": (edit(TABLE, "1.25", ""), "intensities must be numbers.*cells with empty ones"),
    "one object twice": (edit(TABLE, "\n2,", "\n1,"), r"intensities/roi_1.csv must be unique.*1 repeated: 1"),
    "one shape twice": (edit(SHAPES, "\n2,", "\n1,"), r"Objects of regionprops/roi_1.csv must be unique.*1 rep"),
    "words": (edit(TABLE, "0.25", "low"), "must hold numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    folder = make.steinbock(tmp_path / "d", SEC)
    spoil, words = REFUSED[name]
    spoil(folder)
    with pytest.raises(InputError, match=words):
        quiet(folder)


def test_the_same_cell_twice(tmp_path: Path) -> None:
    table = make.mcmicro_table(SEC)
    table.loc[1, "CellID"] = 1
    table.to_csv(tmp_path / "a--x.csv", index=False)
    with pytest.raises(InputError, match=r"must be unique.*1 repeated: 1"):
        quiet(tmp_path / "a--x.csv")


NO_MARKERS = (
    "X_um", "Y_um", "xcentroid", "UMAP_1", "UMAP2", "X_umap", "tSNE1", "PC1", "leiden", "leiden_0.5", "louvain",
    "cluster", "cluster_index", "kmeans_cluster", "n_counts", "total_counts", "sample_id", "fov", "Distance_to_tumour",
    "Nucleus: Centroid Y", "Cell: Area", "Unnamed: 7",
)  # fmt: skip


@pytest.mark.parametrize("name", NO_MARKERS)
def test_what_is_no_marker(tmp_path: Path, name: str) -> None:
    table = make.mcmicro_table(SEC).assign(Clusterin=7.5, **{name: 1.5})
    table.to_csv(tmp_path / "a--x.csv", index=False)
    with pytest.warns(SmeldWarning, match="columns of a--x.csv that were taken for markers: Gene0, .*, Clusterin$"):
        adata = sm.read(tmp_path / "a--x.csv")
    assert adata.var_names.tolist() == [*make.GENES, "Clusterin"]


def test_markers_of_known_programs_are_not_listed(tmp_path: Path) -> None:
    paths = [make.mcmicro(tmp_path / "d", SEC), make.codex_processor(tmp_path / "reg001_compensated.csv", SEC)]
    for path in [*paths, make.steinbock(tmp_path / "e", SEC)]:
        assert not any("taken for markers" in text for text in _keys.kept_warnings(quiet(path)))


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
@pytest.mark.parametrize("n_lost", [1, 9])
def test_a_table_that_ends_in_mid_row(tmp_path: Path, ending: str, n_lost: int) -> None:
    text = make.mcmicro_table(SEC).to_csv(index=False).rstrip("\n")
    make.written(tmp_path / f"a--x.{ending}", text.rsplit(",", n_lost)[0])
    with pytest.raises(
        InputError, match=rf"the last row has {12 - n_lost} cells for 12 names: the file ends too early"
    ):
        quiet(tmp_path / f"a--x.{ending}")


def test_an_empty_last_cell_is_no_broken_copy(tmp_path: Path) -> None:
    make.mcmicro_table(SEC).assign(note=np.nan).to_csv(tmp_path / "a--x.csv", index=False)
    agrees(quiet(tmp_path / "a--x.csv", um_per_unit=0.65))


def test_steinbocks_tables_with_a_saved_index_and_a_marker_that_is_called_as_a_shape(tmp_path: Path) -> None:
    folder = make.steinbock(tmp_path / "d", SEC)
    pd.read_csv(folder / TABLE).assign(area=5.0).to_csv(folder / TABLE)
    pd.read_csv(folder / SHAPES).to_csv(folder / SHAPES)
    adata = quiet(folder)
    assert adata.var_names.tolist() == [*make.GENES, "area"]
    assert set(adata[:, "area"].X.toarray().ravel()) == {5.0}
    assert adata.obs["cell_area_um2"].tolist() == [60.0] * adata.n_obs
    agrees(adata[:, make.GENES])


def test_hidden_files_are_no_tables(tmp_path: Path) -> None:
    for folder, inside in ((make.steinbock(tmp_path / "d", SEC), TABLE), (make.mcmicro(tmp_path / "e", SEC), "")):
        hidden = folder / (inside or "quantification/x.csv")
        hidden.with_name("._a.csv").write_bytes(b"\0\5\x16\7")
        agrees(quiet(folder, um_per_unit=1.0 if inside else 0.65))
