"""Real sections: known facts, plausible images, and clear refusals of what cannot be read yet."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial import cKDTree

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


def neighbour_um(adata, *, square: bool = False) -> np.ndarray:
    """Distances (um) between spots that are next to each other by their lattice names."""
    row, col = adata.obs["array_row"].to_numpy(float), adata.obs["array_col"].to_numpy(float)
    place = np.column_stack([col, row]) if square else np.column_stack([col / 2, row * np.sqrt(3) / 2])
    pairs = cKDTree(place).query_pairs(1.01, output_type="ndarray")
    xy = adata.obsm["spatial_um"]
    return np.linalg.norm(xy[pairs[:, 0]] - xy[pairs[:, 1]], axis=1)


@pytest.mark.parametrize(("name", "n_spots", "n_genes"), [("151673", 3639, 8474), ("151674", 3673, 5000)])
def test_dlpfc(shared_data: Path, name: str, n_spots: int, n_genes: int) -> None:
    folder = shared_data / f"visium_dlpfc_{name}"
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmeldWarning)
        adata = sm.read(folder)
    assert adata.shape == (n_spots, n_genes)
    assert (adata.obs["in_tissue"] == 1).all()
    d = neighbour_um(adata)
    assert len(d) > 2.8 * n_spots
    assert d.mean() == pytest.approx(100, abs=0.1)
    assert np.abs(d - 100).max() < 1.5  # pixels are whole numbers, 0.72 um wide; the two axes differ by 0.46 %
    # an independent join: the table of truth and the positions file, by barcode
    truth = pd.read_csv(folder / "truth.tsv", sep="\t", index_col=0)
    assert set(adata.obs_names) == set(truth.index)
    place = pd.read_csv(folder / "spatial/tissue_positions_list.csv", header=None, index_col=0).loc[adata.obs_names]
    assert np.array_equal(adata.obsm["spatial"], place[[5, 4]])
    # depth of the variable genes follows that of the whole transcriptome
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    assert np.corrcoef(depth, truth.loc[adata.obs_names, "sum_umi"])[0, 1] > 0.98


def darkness_ratio(adata) -> float:
    """How much darker the image is under spots than elsewhere: wrong axes or scales bring it near 1."""
    image = _adapt.image(adata, preview=True)
    assert image is not None
    grey = 255.0 - image.pixels().mean(axis=2)
    px = _adapt.xy_px(adata, image).astype(int)
    return float(grey[px[:, 1], px[:, 0]].mean() / grey.mean())


def test_dlpfc_image_lies_under_the_spots(shared_data: Path) -> None:
    adata = quiet(shared_data / "visium_dlpfc_151673")
    right = darkness_ratio(adata)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    assert right > darkness_ratio(adata)
    assert right > 1.2


#: spots with counts and a position; micrometres per pixel of the coordinates
HER2ST = {
    "A1": (346, 0.916), "A2": (325, 0.919), "B1": (295, 0.688), "C2": (187, 0.689),
    "C3": (180, 0.686), "D1": (306, 0.688), "G2": (467, 0.687),
}  # fmt: skip


@pytest.mark.parametrize("name", HER2ST)
def test_her2st(shared_data: Path, name: str) -> None:
    folder = shared_data / "her2st" / name
    n_spots, um_per_px = HER2ST[name]
    if name in ("A1", "A2"):
        with pytest.raises(InputError, match="--image-scale"):
            quiet(folder)
    adata = quiet(folder, image_scale=2000 / 6954 if name in ("A1", "A2") else None)
    assert adata.n_obs == n_spots
    meta = _adapt.metadata(adata)
    assert meta[_keys.META_UM_PER_UNIT] == pytest.approx(um_per_px, rel=2e-3)
    assert neighbour_um(adata, square=True).mean() == pytest.approx(200, rel=2e-3)
    assert ("label" in adata.obs) == (name in ("A1", "B1", "D1", "G2"))
    image = _adapt.image(adata)
    assert (image is not None) == (name in ("A1", "A2", "C2", "C3"))
    if image is not None:
        assert image.um_per_px == pytest.approx(3.18 if name in ("A1", "A2") else 0.69, rel=0.02)
        preview = adata.uns["spatial"][name]["images"]["hires"]
        assert max(preview.shape) <= 2000


def test_her2st_a1_labels_are_the_pathologists(shared_data: Path) -> None:
    adata = quiet(shared_data / "her2st/A1", image_scale=0.2876)
    assert adata.obs["label"].isna().sum() == 0
    assert (adata.obs["label"] == "invasive cancer").sum() in range(280, 285)


def test_vendor_fixtures(shared_data: Path) -> None:
    vendor = shared_data / "vendor_fixtures"
    first = quiet(vendor / "visium_versions/1.0.0")
    assert first.shape == (100, 100)
    assert _adapt.metadata(first)[_keys.META_UM_PER_UNIT] == pytest.approx(0.7252, rel=1e-3)
    for section in ("section1", "section2"):
        with pytest.warns(SmeldWarning, match="raw matrix"):
            one = sm.read(vendor / "visium_raw" / section)
        assert one.shape == (22, 49)
        assert (one.obs["in_tissue"] == 1).all()
        two = quiet(vendor / "visium_raw" / section / "outs")
        assert (one.X != two.X).nnz == 0


REFUSED = {
    "visium_versions/2.1.0": "counts probes, not genes",
    "visium_hd_binned_outputs": "nothing but zeros",
    "visium_hd_binned_outputs/square_002um": "nothing but zeros",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_said(shared_data: Path, name: str) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        quiet(shared_data / "vendor_fixtures" / name)


H5AD = {
    "visium_breast_blockA/blockA_s1_3000genes.h5ad": (3168, 0.3654),
    "starmap_mpfc/20180417_BZ5_control.h5ad": (1049, 1.0),
    "merfish_hypothalamus/banksy_animal1.h5ad": (11162, 1.0),
    "slideseq/hippocampus_1052.h5ad": (1052, 1.0),
    "breast_visium_xenium_pair/visium_eevee.h5ad": (709, 1.0),
    "seqfish_embryo/embryo1_20pct.h5ad": (3848, 1.0),
}


@pytest.mark.parametrize("name", H5AD)
def test_h5ad(shared_data: Path, name: str, tmp_path: Path) -> None:
    n_obs, um = H5AD[name]
    adata = quiet(shared_data / name)
    assert adata.n_obs == n_obs
    assert _adapt.metadata(adata)[_keys.META_UM_PER_UNIT] == pytest.approx(um, rel=1e-3)
    assert any("unit of the coordinates" in m for m in _keys.kept_warnings(adata)) == (um == 1.0)
    sm.write(adata, tmp_path / "x.h5ad")
    again = quiet(tmp_path / "x.h5ad")
    assert np.allclose(again.obsm["spatial_um"], adata.obsm["spatial_um"])
    if "breast_blockA" in name:
        assert neighbour_um(adata).mean() == pytest.approx(100, abs=0.1)
