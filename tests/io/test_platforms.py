"""Recognition, the registry's errors, and the contract that every platform, also a third party's, keeps."""

from __future__ import annotations

from pathlib import Path

import _make
import _make_cells_a
import _make_cells_b
import _make_cells_c
import numpy as np
import pandas as pd
import pytest

import smeld as sm
from smeld import _adapt
from smeld._check import InputError, SmeldWarning
from smeld.io import ReadOptions, _names, _platforms

WRITERS = {
    "visium": lambda p: _make.spaceranger(p / "d", _make.section()),
    "legacy_st": lambda p: (_make.legacy(p / "d", without_counts=0), p / "d")[1],
    "tables": lambda p: (_make.tables(p / "d"), p / "d")[1],
    "h5ad": lambda p: _h5ad(p),
    **_make_cells_a.WRITERS,
    **_make_cells_b.WRITERS,
    **_make_cells_c.WRITERS,
}


def _h5ad(folder: Path) -> Path:
    sm.write(sm.read(_make.spaceranger(folder / "d", _make.section())), folder / "x.h5ad")
    return folder / "x.h5ad"


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
@pytest.mark.parametrize("name", WRITERS)
def test_each_platform_is_recognised_and_keeps_the_contract(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path)
    adata = sm.read(path)
    assert adata.uns["smeld"]["read"]["inputs"]["platform"] == name
    named = sm.read(path, name)
    assert np.array_equal(adata.obsm["spatial_um"], named.obsm["spatial_um"])
    assert adata.obsm["spatial_um"].dtype == np.float64
    assert adata.obsm["spatial_um"].shape == (adata.n_obs, 2)
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique
    picture = _adapt.image(adata)
    if picture is not None:  # spots lie on it
        px = _adapt.xy_px(adata, picture)
        assert ((px >= 0) & (px <= [picture.shape[1], picture.shape[0]])).all(axis=1).mean() > 0.98
    sm.write(adata, tmp_path / "again.h5ad")  # all of it can be stored


def test_every_registered_platform_has_a_writer_here_and_a_card() -> None:
    for name, card in sm.io.platforms.items():
        assert card.summary, name
        assert card.facts["marks"], name
        assert card.facts["looks_for"], name
    assert set(WRITERS) <= set(sm.io.platforms)


def test_unrecognised_folder_says_what_is_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError) as error:
        sm.read(tmp_path)
    text = str(error.value)
    for word in ("visium: a Space Ranger folder", "legacy_st:", "tables:", "h5ad:", "notes.txt"):
        assert word in text


def test_folder_of_h5ad_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").write_text("x")
    with pytest.raises(InputError, match=r"give the file itself.*a.h5ad"):
        sm.read(tmp_path)


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        sm.read(tmp_path / "no" / "where")
    with pytest.raises(InputError, match="is empty"):
        sm.read(tmp_path)


@pytest.mark.parametrize(("name", "near"), [("visum", "visium"), ("Visium", "visium"), ("h5da", "h5ad")])
def test_unknown_platform_did_you_mean(tmp_path: Path, name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{near}'"):
        sm.read(tmp_path, name)


def test_two_platforms_in_one_folder_must_be_named(tmp_path: Path) -> None:
    folder = _make.spaceranger(tmp_path / "d", _make.section())
    _make.legacy(folder, without_counts=0)
    with pytest.raises(InputError, match=r"signs of legacy_st, visium.*--platform"):
        sm.read(folder)
    assert sm.read(folder, "visium").n_obs == 50
    assert sm.read(folder, "legacy_st").n_obs == 36


def test_a_file_of_a_folder_platform(tmp_path: Path) -> None:
    folder = _make.spaceranger(tmp_path / "d", _make.section())
    with pytest.raises(InputError, match="read from a folder"):
        sm.read(folder / "filtered_feature_bc_matrix.h5", "visium")
    with pytest.raises(InputError, match="give the folder it lies in"):
        sm.read(folder / "filtered_feature_bc_matrix.h5")
    with pytest.raises(InputError, match="is a folder"):
        sm.read(folder, "h5ad")


def test_a_third_partys_platform_is_one_decorator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(_platforms.platforms)
    monkeypatch.setattr(_platforms.platforms, "_cards", dict(_platforms.platforms._cards))
    good = sm.read(_make.spaceranger(tmp_path / "d", _make.section()))

    @sm.io.platforms.add("mine", marks=("mine.txt",))
    def mine(path: Path, options: ReadOptions):
        """Mine."""
        adata = good.copy()
        if options.um_per_unit == 2:
            del adata.obsm["spatial_um"]
        if options.um_per_unit == 3:
            adata.obsm["spatial_um"] = adata.obsm["spatial_um"].astype(np.float32)
        return adata

    @sm.io.platforms.add("yours", marks=("yours.txt",), uses=("table",))
    def yours(path: Path, options: ReadOptions):
        """Yours."""
        return good[good.obs_names != options.table].copy()

    for name in "ef":
        (tmp_path / name).mkdir()
    (tmp_path / "e/mine.txt").write_text("x")
    (tmp_path / "f/yours.txt").write_text("x")
    with pytest.raises(InputError, match="the platform mine has no use for table"):
        sm.read(tmp_path / "e", table="a")
    assert sm.read(tmp_path / "f", table=good.obs_names[0]).n_obs == 49
    assert sm.read(tmp_path / "e").n_obs == 50
    with pytest.raises(InputError, match=r"spatial_um.*missing"):
        sm.read(tmp_path / "e", um_per_unit=2)
    with pytest.raises(InputError, match="must be float64"):
        sm.read(tmp_path / "e", um_per_unit=3)


@pytest.fixture(scope="module")
def visium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("v")
    (folder / "m.csv").write_text("1,0,0\n0,1,0\n0,0,1\n")
    return _make.spaceranger(folder / "d", _make.section())


WRONG = [
    ({"resolution": "8um"}, "the platform visium has no use for resolution"),
    ({"table": "a"}, "no use for table"),
    ({"outlines": True}, "no use for outlines"),
    ({"image_alignment": "m.csv"}, "no image that it could be of"),
    ({"resolution": 5}, "resolution must be a word"),
    ({"table": 5}, "table must be a word"),
    ({"outlines": "yes"}, "outlines must be True or False"),
    ({"um_per_unit": "x"}, "um_per_unit must be a positive number"),
    ({"um_per_unit": True}, "um_per_unit must be a positive number"),
    ({"image_scale": float("inf")}, "image_scale must be a positive number"),
    ({"region_um": (0, 0, "x", 5)}, "region_um must be x0, y0, x1, y1"),
    ({"region_um": 5}, "region_um must be"),
    ({"region_um": "0 0 1 1"}, "region_um must be"),
    ({"region_um": (0, 0, 1)}, "region_um must be"),
    ({"region_um": (0, 0, float("nan"), 1)}, "region_um must be"),
    ({"region_um": (1e6, 1e6, 2e6, 2e6)}, "nothing lies in region_um"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_options_that_would_do_nothing_or_are_wrong(visium: Path, options: dict, message: str) -> None:
    if "image_alignment" in options:
        options = {"image_alignment": visium.parent / "m.csv"}
    with pytest.raises(InputError, match=message) as error:
        sm.read(visium, **options)
    assert "cure:" in str(error.value)


def test_names_that_cannot_be_written_are_mended(tmp_path: Path) -> None:
    good = sm.read(_make.spaceranger(tmp_path / "d", _make.section()))
    good.obs["a/b"], good.obs["_index"], good.obs["word"] = 1, 2, ["x\0y"] * good.n_obs
    good.obsm["control"] = pd.DataFrame(1.0, good.obs_names, ["n/1", "n_1"])
    with pytest.warns(SmeldWarning, match="were renamed: 'a/b' to 'a_b', '_index' to 'index'"):
        _names.mend(good)
    assert list(good.obsm["control"].columns) == ["n_1-1", "n_1"]
    assert set(good.obs["word"]) == {"x_y"}
    sm.write(good, tmp_path / "w.h5ad")
    assert sm.read(tmp_path / "w.h5ad").n_obs == good.n_obs
    for axis in ("obs_names", "var_names"):
        bad = good.copy()
        setattr(bad, axis, [f"{name}\0" for name in getattr(bad, axis)])
        with pytest.raises(InputError, match="hold a NUL character"):
            _names.mend(bad)
