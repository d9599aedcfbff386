"""``embed``: named finite features, invariances, what the resolution leaves out, bad input."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sections import he_image, section, spots

import smeld as sm
from smeld import _check, _keys
from smeld.morph import TileSpec, encoders

HEIGHT, WIDTH = 240, 300
IMAGE = he_image(HEIGHT, WIDTH)
XY = spots(24, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    return sm.morph.embed(section(IMAGE, XY)).features


def same(a: pd.DataFrame, b: pd.DataFrame, *, share: float = 1e-4) -> bool:
    """Equal to within a share of each feature's spread over the section (float32 sums in another order)."""
    assert list(a.columns) == list(b.columns)
    spread = np.maximum(a.std(axis=0).to_numpy(), 1e-3 * np.abs(a.to_numpy()).max(axis=0)) + 1e-7
    return bool((np.abs(a.to_numpy() - b.to_numpy()) / spread).max() < share)


def test_what_is_written():
    adata = section(IMAGE, XY)
    adata.obsm["before"] = XY.copy()
    result = sm.morph.embed(adata)
    stored = adata.obsm["morph_texture"]
    assert isinstance(stored, pd.DataFrame) and result.key == "morph_texture"
    assert (stored.dtypes == np.float32).all() and np.isfinite(stored.to_numpy()).all()
    assert stored.columns.is_unique and (stored.index == adata.obs_names).all()
    assert np.array_equal(adata.obsm["spatial"], XY)
    record = adata.uns["smeld"]["morph_texture"]
    assert record["function"] == "smeld.morph.embed" and record["params"]["encoder"] == "texture"
    assert list(record["params"]["um_per_px_used"]) == ["1", "3"]
    assert _keys.kept_warnings(adata) == []
    with pytest.raises(AttributeError):
        result.key = "other"  # type: ignore[misc]


def test_stored_result_survives_h5ad(tmp_path):
    adata = section(IMAGE, XY)
    sm.morph.embed(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.obsm["morph_texture"], adata.obsm["morph_texture"])


def test_features_mean_what_they_say(features):
    left = XY[:, 0] < WIDTH / 2 - 30
    right = XY[:, 0] > WIDTH / 2 + 30
    density = features["nuclear_density_per_mm2"]
    assert 1.4 < density[left].mean() / density[right].mean() < 3.0  # twice as many were drawn
    assert density[left].mean() == pytest.approx(5000, rel=0.3)  # one per 200 um2; some overlap
    assert features["nuclear_area_um2"].median() == pytest.approx(np.pi * 3.0**2, rel=0.35)
    assert (features["haematoxylin_mean"][left].mean()) > features["haematoxylin_mean"][right].mean()
    assert features["tissue_fraction"].between(0, 1).all() and features["tissue_fraction"].median() > 0.9


def test_permuting_spots_permutes_features(features):
    order = np.random.default_rng(0).permutation(len(XY))
    again = sm.morph.embed(section(IMAGE, XY)[order].copy()).features
    pd.testing.assert_frame_equal(again, features.iloc[order])


@given(unit=st.sampled_from([0.25, 0.3, 1 / 3, 2.0, 7.3]))
@settings(max_examples=5)
def test_another_unit_changes_nothing(features, unit):
    again = sm.morph.embed(section(IMAGE, XY, px_per_unit=unit)).features
    assert same(features, again, share=1e-6)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_batches_do_not_show(features, size):
    pd.testing.assert_frame_equal(sm.morph.embed(section(IMAGE, XY), batch_size=size).features, features)


@pytest.mark.filterwarnings("ignore:.*cannot show|.*gets the median")
@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("um_per_px", [1.0, 0.3])
def test_turning_section_and_image_changes_nothing(turns, um_per_px):
    sides = (51.0, 150.0) if um_per_px == 1.0 else (24.0, 60.0)
    here = sm.morph.embed(section(IMAGE, XY, um_per_px=um_per_px), tile_um=sides)
    image, xy = IMAGE, XY
    for _ in range(turns):
        xy = np.stack([xy[:, 1], image.shape[1] - 1 - xy[:, 0]], axis=1)
        image = np.rot90(image)
    there = sm.morph.embed(section(image, xy, um_per_px=um_per_px), tile_um=sides)
    assert same(here.features, there.features)


def test_turning_by_any_angle_changes_little():
    from scipy import ndimage

    image = he_image(300, 300)
    image[:45, :45] = he_image(45, 45, seed=9)  # no corner that leaves the frame
    xy = spots(20, 300, 300, margin=105)
    angle = 33.0
    turned = ndimage.rotate(image, angle, reshape=False, order=1, mode="reflect", axes=(1, 0))
    a = np.deg2rad(angle)
    middle = np.array([149.5, 149.5])
    back = (xy - middle) @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) + middle
    one, two = (sm.morph.embed(section(i, p), tile_um=51).features for i, p in ((image, xy), (turned, back)))
    names = [
        "haematoxylin_mean",
        "eosin_mean",
        "nuclear_fraction",
        "nuclear_density_per_mm2",
        "saturation_mean",
    ]
    for name in [*names, "haematoxylin_gradient_12um", "haematoxylin_entropy_12um", "haematoxylin_sd"]:
        assert np.corrcoef(one[name], two[name])[0, 1] > 0.85, name  # interpolation blurs the turned image


def test_moving_section_and_image_changes_nothing():
    canvas = np.full((HEIGHT + 60, WIDTH + 60, 3), 245, dtype=np.uint8)
    here, there = canvas.copy(), canvas.copy()
    here[:HEIGHT, :WIDTH] = IMAGE
    there[48:288, 24:324] = IMAGE  # whole blocks of 3, which the reduced surroundings are made of
    one = sm.morph.embed(section(here, XY)).features
    two = sm.morph.embed(section(there, XY + np.array([24, 48]))).features
    assert same(one, two)


@pytest.mark.parametrize("value", [255, 128, 40, 0])
def test_constant_images_give_finite_constants(value):
    image = np.full((200, 200, 3), value, dtype=np.uint8)
    adata = section(image, spots(10, 200, 200))
    if value == 0:
        with pytest.warns(sm.SmeldWarning, match="nearly black"):
            features = sm.morph.embed(adata).features
    else:
        features = sm.morph.embed(adata).features
    assert np.isfinite(features.to_numpy()).all()
    own = [name for name in features if not name.startswith("context")]  # surroundings reach over the edge
    assert np.ptp(features[own].to_numpy(), axis=0).max() < 1e-5


def test_what_the_resolution_cannot_support_is_left_out_and_said():
    coarse = section(IMAGE, XY, um_per_px=14.0, spot_um=55.0)
    with pytest.warns(sm.SmeldWarning, match="cannot show .*nuclei, texture"):
        result = sm.morph.embed(coarse, tile_um=110)
    names = set(result.features)
    assert "haematoxylin_mean" in names
    assert not any("nuclear" in name or name.endswith("um") for name in names)
    assert "texture" in result.left_out[0] and "texture" in str(coarse.uns["smeld"][result.key]["params"]["left_out"])
    assert any("cannot show" in warning for warning in _keys.kept_warnings(coarse))
    with pytest.warns(sm.SmeldWarning, match="density and size of nuclei"):
        middling = sm.morph.embed(section(IMAGE, XY, um_per_px=3.2), tile_um=160).features
    assert {"nuclear_fraction", "haematoxylin_contrast_12um", "haematoxylin_contrast_36um"} <= set(middling)
    assert "nuclear_density_per_mm2" not in middling


def test_a_finer_image_is_reduced_to_what_helps():
    fine = np.repeat(np.repeat(IMAGE, 3, axis=0), 3, axis=1)
    adata = section(fine, XY * 3 + 1, um_per_px=1 / 3)
    assert sm.morph.embed(adata).um_per_px[0] == pytest.approx(1.0)
    assert same(sm.morph.embed(section(IMAGE, XY)).features, adata.obsm["morph_texture"])


def test_several_sides_are_told_apart():
    features = sm.morph.embed(section(IMAGE, XY), tile_um=(51, 99)).features
    surroundings = [name for name in features if name.startswith("context99um_")]
    assert surroundings and "haematoxylin_mean" in features and len(features.columns) > len(surroundings)


def test_black_surroundings_are_taken_for_empty_slide():
    blackened, whitened = IMAGE.copy(), IMAGE.copy()
    background = np.percentile(IMAGE.reshape(-1, 3), 99, axis=0, method="lower")
    blackened[:, 240:], whitened[:, 240:] = 0, background
    edge = np.array([[236.0, y] for y in range(40, 200, 20)])
    one, two = (sm.morph.embed(section(i, edge)).features for i in (blackened, whitened))
    for name in ("haematoxylin_mean", "tissue_fraction", "haematoxylin_p90"):
        assert np.abs(one[name] - two[name]).max() < 0.05, name


def test_spots_half_outside_take_the_median_with_a_warning():
    xy = np.vstack([XY, [[-0.4, -0.4]]])
    adata = section(IMAGE, xy)
    with pytest.warns(sm.SmeldWarning, match="1 of 25 spots have less than half of their 51 um tile"):
        features = sm.morph.embed(adata, tile_um=51).features
    assert features.iloc[-1].to_numpy() == pytest.approx(features.iloc[:-1].median().to_numpy())
    assert np.isfinite(features.to_numpy()).all()
    inner = sm.morph.embed(section(IMAGE, np.vstack([XY, [[30.0, 30.0]]])), tile_um=51).features
    assert not np.allclose(inner.iloc[-1], inner.iloc[:-1].median())


def without_image() -> ad.AnnData:
    adata = section(IMAGE, XY)
    del adata.uns["spatial"]
    return adata


def without_scale() -> ad.AnnData:
    adata = section(IMAGE, XY)
    del adata.uns["spatial"]["s"]["metadata"]
    return adata


def with_nan() -> ad.AnnData:
    xy = XY.copy()
    xy[3, 0] = np.nan
    return section(IMAGE, xy)


@pytest.mark.parametrize(
    ("adata", "options", "message"),
    [
        (without_image, {}, "no image.*leave morphology out"),
        (without_scale, {}, "size of the image's pixels is unknown"),
        (with_nan, {}, "coordinates must be finite; found: 1 of 24"),
        (lambda: section(IMAGE, XY * 3.5), {}, "most spots lie outside the image.*--image-scale"),
        (
            lambda: section(IMAGE, XY),
            {"encoder": "textur"},
            "unknown encoder 'textur'.*did you mean 'texture'",
        ),
        (lambda: section(IMAGE, XY), {"tile_um": -5}, "tile_um must be above 0"),
        (lambda: section(IMAGE, XY), {"tile_um": float("nan")}, "tile_um must be above 0"),
        (lambda: section(IMAGE, XY), {"tile_um": (50, 50)}, "must differ"),
        (lambda: section(IMAGE, XY), {"batch_size": 0}, "batch_size must be at least 1"),
        (lambda: section(IMAGE, XY), {"library_id": "t"}, "'t'.*is missing"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(adata, options, message):
    made = adata()
    with pytest.raises(sm.InputError, match=message) as caught:
        sm.morph.embed(made, **options)
    assert "\n" not in str(caught.value)
    assert "morph_texture" not in made.obsm and _keys.RECORD not in made.uns


def test_a_fixed_size_encoder_gets_its_tiles(monkeypatch):
    seen: list[TileSpec] = []

    def mean_colour(spec: TileSpec):
        """Mean colour."""
        seen.append(spec)
        return lambda tiles: tiles.mean(axis=(1, 2)).astype(np.float32)

    encoders["texture"]  # the folder is loaded before the patch
    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_cards", dict(encoders._cards))
        encoders.add("mean", license="BSD-3-Clause", gated=False, um_per_px=2.0, tile_px=32, dim=3)(mean_colour)
        adata = section(IMAGE, XY)
        result = sm.morph.embed(adata, "mean", device="cpu")
        with pytest.warns(sm.SmeldWarning, match="made for 2"):
            sm.morph.embed(section(IMAGE, XY, um_per_px=5.0), "mean", tile_um=64)
    assert (seen[0].tile_px, seen[0].um_per_px, seen[0].device) == (32, 2.0, "cpu")
    assert list(result.features) == ["mean_0", "mean_1", "mean_2"] and "morph_mean" in adata.obsm
    x, y = np.round(XY[0]).astype(int)
    direct = IMAGE[y - 31 : y + 32, x - 31 : x + 32].reshape(-1, 3).mean(axis=0)
    assert result.features.iloc[0].to_numpy() == pytest.approx(direct, abs=1.0)
    assert seen[0].section is not None and seen[0].section.colours.sum() > 0


def test_an_encoder_that_breaks_its_contract_is_named(monkeypatch):
    encoders["texture"]
    monkeypatch.setattr(encoders, "_cards", dict(encoders._cards))
    encoders.add("bad", license="x", gated=False, um_per_px=1.0, tile_px=9, dim=1)(
        lambda spec: lambda tiles: np.full((len(tiles), 1), np.nan, dtype=np.float32)
    )
    with pytest.raises(RuntimeError, match="'bad' broke its contract"):
        sm.morph.embed(section(IMAGE, XY), "bad")


def test_unknown_spot_size_has_a_default():
    with pytest.warns(_check.SmeldWarning, match="it gets the median"):
        result = sm.morph.embed(section(IMAGE, np.vstack([XY, [[5.0, 5.0]]]), spot_um=None))
    assert result.tile_um[0] == pytest.approx(100, abs=3)


def test_real_section_is_sensible(shared_data):
    folder = shared_data / "her2st" / "A1"
    picked = pd.read_csv(folder / "A1_selection.tsv", sep="\t")
    picked = picked[picked["selected"] == 1]
    slope = np.polyfit(picked["new_x"], picked["pixel_x"], 1)[0]
    from smeld import _image

    scale = 2000 / 6954
    adata = section(
        _image.load(folder / "A1_HE.png"),
        picked[["pixel_x", "pixel_y"]].to_numpy() * scale,
        um_per_px=200 / slope / scale,
        spot_um=100.0,
    )
    with pytest.warns(sm.SmeldWarning, match="density and size of nuclei"):
        features = sm.morph.embed(adata).features
    places = {f"{x}x{y}": i for i, (x, y) in enumerate(picked[["x", "y"]].to_numpy())}
    truth = pd.read_csv(folder / "A1_labeled_coordinates.tsv", sep="\t").dropna(subset=["x", "y"])
    region = np.full(len(picked), "", dtype=object)
    for x, y, label in zip(truth["x"], truth["y"], truth["label"]):
        at = places.get(f"{round(x)}x{round(y)}")
        if at is not None:
            region[at] = label
    mean = features.groupby(region)["nuclear_fraction"].mean()
    assert mean["cancer in situ"] > mean["invasive cancer"] > 2 * mean["adipose tissue"]
