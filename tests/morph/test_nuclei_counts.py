"""``nuclei``: counts against planted nuclei and known disks, what must not matter, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any
from unittest import mock

import anndata as ad
import numpy as np
import pytest
import tifffile
from scipy import ndimage
from scipy.spatial import cKDTree
from sections import E, H, he_image, section

import smeld as sm
from smeld import _check, _image, _keys
from smeld.datasets import _histology, _plan
from smeld.kernels import tiles

SIDE = 300


def planted(seed: int, tissue: str, um_per_px: float) -> tuple[ad.AnnData, np.ndarray]:
    """A simulated section whose picture has pixels of that size, and the nuclei that were drawn under each spot: those
    with their centre in the tissue, not in a vacuole."""
    drawn: list[tuple[dict[str, Any], np.ndarray]] = []
    stamp = _histology.stamp_ellipses

    def kept(shape: tuple[int, int], **ellipses: Any) -> np.ndarray:
        made = stamp(shape, **ellipses)
        drawn.append((ellipses, made))
        return made

    layouts = {"lattice": dataclasses.replace(_plan.LAYOUTS["lattice"], finest_um_per_px=um_per_px)}
    with (
        mock.patch.object(_histology, "stamp_ellipses", kept),
        mock.patch.object(_histology, "_LONG_PX", 100_000),
        mock.patch.dict(_plan.LAYOUTS, layouts),
    ):
        adata = sm.datasets.simulate(30, 20, seed=seed, tissue=tissue, n_domains=3, n_pairs=0)  # type: ignore[arg-type]
    (nuclei, _), (_, vacuoles) = drawn
    row, column = (np.clip(np.rint(nuclei[axis]).astype(int), 0, n - 1) for axis, n in zip(("y", "x"), vacuoles.shape))
    xy = np.stack([nuclei["x"], nuclei["y"]], axis=1)[vacuoles[row, column] < 0.5]
    um = adata.uns["spatial"]["simulated"]["metadata"]["um_per_unit"]
    assert um == um_per_px
    return adata, cKDTree(xy).query_ball_point(adata.obsm["spatial"], 55 / 2 / um, return_length=True)


@pytest.mark.parametrize(
    ("seed", "tissue", "um_per_px"),
    [(0, "layered", 0.6), (1, "nested", 1.0), (2, "branched", 1.75), (3, "folded", 0.7), (4, "nested", 1.7)],
)
def test_counts_are_those_planted(seed: int, tissue: str, um_per_px: float) -> None:
    adata, truth = planted(seed, tissue, um_per_px)
    found = sm.morph.nuclei(adata, quiet=True)
    assert found.diameter_um == 55
    assert np.corrcoef(found.counts, truth)[0, 1] > 0.9
    # some 180 nuclei, of which one in eight lies within 2 um of a rim
    assert found.counts.sum() == pytest.approx(truth.sum(), rel=0.12)


def disks(um: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """An H&E picture of dark disks 8 um across on pink tissue, and their places (x, y)."""
    rng = np.random.default_rng(100)
    lattice = np.stack(np.meshgrid(np.arange(1, 20), np.arange(1, 20)), axis=-1).reshape(-1, 2) * 15.0
    xy = (lattice + rng.uniform(-2, 2, lattice.shape)) / um
    xy = xy[rng.random(len(xy)) < 0.7]
    rows, columns = np.mgrid[: round(SIDE / um), : round(SIDE / um)]
    nuclei = np.zeros(rows.shape)
    for x, y in xy:
        nuclei = np.maximum(nuclei, (rows - y) ** 2 + (columns - x) ** 2 < (4 / um) ** 2)
    nuclei = ndimage.gaussian_filter(nuclei, 0.6)
    density = nuclei[..., None] * H * 1.1 + 0.4 * (1 - 0.5 * nuclei[..., None]) * E
    return np.clip(245 * 10**-density + rng.normal(0, 2, density.shape), 0, 255).round().astype(np.uint8), xy


PICTURE, NUCLEI = disks()
XY = np.random.default_rng(101).uniform(30, SIDE - 30, (40, 2))


def counted_by_hand(xy: np.ndarray, diameter: float) -> np.ndarray:
    return (np.linalg.norm(xy[:, None] - NUCLEI[None], axis=2) <= diameter / 2).sum(axis=1)


def test_disks_are_counted_where_their_centre_lies() -> None:
    adata = section(PICTURE, XY, spot_um=None)
    found = sm.morph.nuclei(adata, diameter_um=40)
    # of centres within a pixel of the rim it is a matter of chance
    low, high = (counted_by_hand(XY, d) for d in (38, 42))
    assert ((adata.obs["n_nuclei"] >= low) & (adata.obs["n_nuclei"] <= high)).all()
    assert adata.obs["n_nuclei"].dtype.kind == "i" and adata.obs["n_nuclei"].mean() > 3
    assert cKDTree(NUCLEI).query(found.xy_px)[0].max() < 1.0
    assert len(np.unique(found.xy_px, axis=0)) == len(found.xy_px)
    record = adata.uns["smeld"]["n_nuclei"]
    assert record["function"] == "smeld.morph.nuclei" and record["params"]["diameter_um"] == 40
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.key = "other"  # type: ignore[misc]


def counts(adata: ad.AnnData, **options: Any) -> np.ndarray:
    options.setdefault("diameter_um", 40.0)
    return sm.morph.nuclei(adata, quiet=True, **options).counts.to_numpy()


HE = he_image(SIDE, SIDE + 40, seed=102)


def test_blocks_unit_order_and_turning_change_nothing() -> None:
    here = sm.morph.nuclei(section(HE, XY), diameter_um=40)
    for block_px in (37, 150):
        other = sm.morph.nuclei(section(HE, XY), diameter_um=40, block_px=block_px)
        assert np.array_equal(other.counts, here.counts) and np.array_equal(other.xy_px, here.xy_px)
    assert np.array_equal(counts(section(HE, XY, px_per_unit=1 / 3)), here.counts)
    order = np.random.default_rng(0).permutation(len(XY))
    assert np.array_equal(counts(section(HE, XY)[order].copy()), here.counts.to_numpy()[order])
    turned = np.stack([XY[:, 1], HE.shape[1] - 1 - XY[:, 0]], axis=1)
    assert np.array_equal(counts(section(np.ascontiguousarray(np.rot90(HE)), turned)), here.counts)
    mirrored = np.stack([HE.shape[1] - 1 - XY[:, 0], XY[:, 1]], axis=1)
    assert np.array_equal(counts(section(np.ascontiguousarray(HE[:, ::-1]), mirrored)), here.counts)


def test_finer_pictures_are_reduced_and_count_the_same() -> None:
    """Three times as fine; its first pixel's centre lies a pixel before that of the coarse one."""
    fine = np.repeat(np.repeat(PICTURE, 3, axis=0), 3, axis=1)
    adata = section(fine, XY * 3 + 1, um_per_px=1 / 3)
    found = sm.morph.nuclei(adata, diameter_um=40)
    assert found.um_per_px == pytest.approx(1.0)
    plain = sm.morph.nuclei(section(PICTURE, XY), diameter_um=40)
    assert np.array_equal(found.counts, plain.counts)
    np.testing.assert_allclose(found.xy_px, plain.xy_px * 3 + 1)


def test_of_a_pyramid_the_copy_is_read_window_by_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fine = np.repeat(np.repeat(PICTURE, 4, axis=0), 4, axis=1)
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=True) as tif:
        form: dict[str, Any] = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
        tif.write(fine, subifds=2, **form)
        for by in (2, 4):
            tif.write(fine[::by, ::by], subfiletype=1, **form)
    adata = section(PICTURE, XY * 4 + 1.5, um_per_px=0.25)
    stored = adata.uns["spatial"]["s"]
    stored["images"] = {}
    stored["metadata"][_keys.META_IMAGE_PATH] = str(tmp_path / "a.tif")
    expected = counts(section(PICTURE, XY))
    sizes = []
    window = _image.Image.window

    def watched(self: _image.Image, top: int, left: int, height: int, width: int, *args: Any, **kwargs: Any) -> Any:
        sizes.append((self.reduction, height * width))
        return window(self, top, left, height, width, *args, **kwargs)

    monkeypatch.setattr(tiles, "MAX_COUNTED", SIDE**2)
    monkeypatch.setattr(_image.Image, "window", watched)
    monkeypatch.setattr(_image.Image, "pixels", lambda self: pytest.fail("the whole image was read"))
    found = sm.morph.nuclei(adata, diameter_um=40, block_px=64)
    assert np.array_equal(found.counts, expected)
    assert {reduction for reduction, _ in sizes} == {4.0}


def test_tissue_without_nuclei_and_empty_slide_have_none() -> None:
    rng = np.random.default_rng(103)
    grain = 0.4 + 0.05 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), 3)[..., None] * 8
    pink = np.clip(245 * 10 ** (-grain * E) + rng.normal(0, 2, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    assert counts(section(pink, XY)).sum() == 0
    assert counts(section(np.full((SIDE, SIDE, 3), 244, np.uint8), XY)).sum() == 0
    half = PICTURE.copy()
    half[:, : SIDE // 2] = pink[:, : SIDE // 2]
    number = counts(section(half, XY))
    assert number[XY[:, 0] < SIDE / 2 - 25].sum() == 0 and number[XY[:, 0] > SIDE / 2 + 25].min() > 0


def test_spots_off_the_image_are_unknown() -> None:
    xy = XY.copy()
    xy[:3] = [[5.0, 100.0], [-50.0, 100.0], [100.0, SIDE + 10.0]]
    adata = section(PICTURE, xy)
    with pytest.warns(sm.SmeldWarning, match="3 of 40 spots do not lie on the image"):
        number = counts(adata)
    assert np.isnan(number[:3]).all()
    assert np.array_equal(number[3:], counts(section(PICTURE, XY))[3:])


def test_a_nuclear_stain_alone_is_counted() -> None:
    rng = np.random.default_rng(104)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    bright = np.zeros((SIDE, SIDE))
    for x, y in NUCLEI:
        bright = np.maximum(bright, 150 * ((rows - y) ** 2 + (columns - x) ** 2 < 16))
    picture = np.clip(ndimage.gaussian_filter(bright, 0.6) + rng.normal(15, 3, bright.shape), 0, 255).astype(np.uint8)
    adata = section(picture, XY)
    number = counts(adata)
    low, high = (counted_by_hand(XY, d) for d in (38, 42))
    assert ((number >= low) & (number <= high)).all()
    assert adata.uns["smeld"]["n_nuclei"]["params"]["stain"] == "fluorescence"


def test_the_diameter_is_the_platforms_or_that_of_a_lattice() -> None:
    assert sm.morph.nuclei(section(PICTURE, XY, spot_um=25.0)).diameter_um == 25
    lattice = np.array([[100.0, 100.0], [200.0, 100.0], [150.0, 186.6], [100.0, 273.2 - 30]])
    assert sm.morph.nuclei(section(PICTURE, lattice[:3], spot_um=None)).diameter_um == 55
    with pytest.raises(sm.InputError, match=r"diameter of the spots is unknown.*diameter_um="):
        sm.morph.nuclei(section(PICTURE, XY, spot_um=None))


def _plain() -> ad.AnnData:
    return section(PICTURE, XY)


def _bare() -> ad.AnnData:
    adata = _plain()
    del adata.uns["spatial"]
    return adata


def _grey() -> ad.AnnData:
    return section(PICTURE.mean(axis=2).astype(np.uint8), XY)


def _composite() -> ad.AnnData:
    return section((PICTURE * np.array([0.1, 0.02, 0.2])).astype(np.uint8), XY)


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (_bare, {}, "there is no image"),
        (lambda: section(PICTURE, XY, um_per_px=2.0), {}, r"too large to see nuclei; found: 2 um.*image="),
        (lambda: section(PICTURE, XY * 9), {}, "most spots lie outside"),
        (_grey, {}, "a grey picture of stained tissue"),
        (_composite, {}, "a dark picture in colours"),
        (_plain, {"diameter_um": -1.0}, "diameter_um must be above 0"),
        (_plain, {"diameter_um": float("nan")}, "diameter_um must be above 0"),
        (_plain, {"block_px": 0}, "block_px must be at least 1"),
    ],
)
def test_what_cannot_be_counted_is_refused(make: Any, options: dict[str, Any], says: str) -> None:
    adata = make()
    with pytest.raises(_check.InputError, match=says):
        sm.morph.nuclei(adata, **options)
    assert "n_nuclei" not in adata.obs


def test_a_view_a_stored_file_and_spatialdata_say_the_same(tmp_path: Path) -> None:
    adata = _plain()
    expected = counts(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(back.obs["n_nuclei"], expected) and np.array_equal(counts(back), expected)
    spatialdata = pytest.importorskip("spatialdata", reason="needs smeld[spatialdata]")
    table = spatialdata.models.TableModel.parse(_plain())
    sdata = spatialdata.SpatialData(tables={"table": table})
    assert np.array_equal(sm.morph.nuclei(sdata, diameter_um=40).counts, expected)
    assert "n_nuclei" in sdata.tables["table"].obs
