"""Legacy ST folders: join on rounded lattice positions, labels, image scale, and bad input."""

from __future__ import annotations

import gzip
from pathlib import Path

import _make
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning


def test_positions_counts_and_labels_are_joined_by_name(tmp_path: Path) -> None:
    frame = _make.legacy(tmp_path / "s")
    counts = pd.read_csv(tmp_path / "s/S1.tsv.gz", sep="\t", index_col=0)
    with pytest.warns(SmeldWarning, match="1 selected spots have no row of counts"):
        adata = sm.read(tmp_path / "s")
    truth = frame.loc[adata.obs_names]
    assert np.array_equal(adata.X.toarray(), counts.loc[adata.obs_names])
    assert np.allclose(adata.obsm["spatial"], truth[["pixel_x", "pixel_y"]])
    d = np.linalg.norm(adata.obsm["spatial_um"][:, None] - adata.obsm["spatial_um"][None], axis=2)
    lattice = truth[["x", "y"]].to_numpy() * 200.0
    assert np.allclose(d, np.linalg.norm(lattice[:, None] - lattice[None], axis=2))
    assert adata.obs["label"].cat.categories.tolist() == ["left", "right"]
    assert (adata.obs["label"][truth["x"].to_numpy() < 8].dropna() == "left").all()
    assert adata.obs["label"].isna().sum() == 1  # two labels are missing, one of those spots has no counts
    meta = _adapt.metadata(adata)
    assert meta[_keys.META_SPOT_UM] == 100
    assert meta[_keys.META_UM_PER_UNIT] == pytest.approx(2.0)
    assert "image_path" not in meta  # the stored preview is as fine as the file


@given(seed=st.integers(0, 1000))
def test_order_of_rows_changes_nothing_but_order(tmp_path_factory, seed: int) -> None:
    folder = tmp_path_factory.mktemp("legacy")
    _make.legacy(folder, without_counts=0)
    one = sm.read(folder)
    for name in ("S1_selection.tsv", "S1.tsv.gz"):
        frame = pd.read_csv(folder / name, sep="\t", index_col=0 if name.endswith("gz") else None)
        frame.sample(frac=1, random_state=seed).to_csv(folder / name, sep="\t", index=name.endswith("gz"))
    two = sm.read(folder)[one.obs_names].copy()
    assert (one.X != two.X).nnz == 0
    assert np.array_equal(one.obsm["spatial_um"], two.obsm["spatial_um"])
    assert one.obs["label"].equals(two.obs["label"])


def test_names_with_decimals_are_rounded(tmp_path: Path) -> None:
    _make.legacy(tmp_path / "s", without_counts=0)
    file = tmp_path / "s/S1.tsv.gz"
    one = sm.read(tmp_path / "s")
    counts = pd.read_csv(file, sep="\t", index_col=0)
    counts.index = [f"{float(x) + 0.021:.3f}x{float(y) - 0.03:.3f}" for x, y in (n.split("x") for n in counts.index)]
    counts.to_csv(file, sep="\t")
    two = sm.read(tmp_path / "s")
    assert one.obs_names.equals(two.obs_names)
    assert (one.X != two.X).nnz == 0


def test_an_empty_labels_file_means_none(tmp_path: Path) -> None:
    _make.legacy(tmp_path / "s", labels=False, without_counts=0)
    assert "label" not in sm.read(tmp_path / "s").obs


def test_reduced_image_needs_image_scale(tmp_path: Path) -> None:
    _make.legacy(tmp_path / "s", image_size=(250, 225), without_counts=0)  # a quarter
    with pytest.raises(InputError, match=r"smaller than the coordinates.*--image-scale.*divided by"):
        sm.read(tmp_path / "s")
    with pytest.raises(InputError, match="smaller than the coordinates"):
        sm.read(tmp_path / "s", image_scale=0.6)
    image = _adapt.image(sm.read(tmp_path / "s", image_scale=0.25))
    assert image is not None
    assert image.um_per_px == pytest.approx(8.0)


def test_image_far_larger_than_the_spots_needs_image_scale(tmp_path: Path) -> None:
    _make.legacy(tmp_path / "s", n=2, image_size=(2500, 2400), without_counts=0)
    with pytest.raises(InputError, match=r"scale of image S1_HE.png is not known.*--image-scale 1"):
        sm.read(tmp_path / "s")
    assert sm.read(tmp_path / "s", image_scale=1).n_obs == 4


def test_large_image_is_kept_as_path_with_a_preview(tmp_path: Path) -> None:
    _make.legacy(tmp_path / "s", image_size=(2600, 1300), without_counts=0)
    adata = sm.read(tmp_path / "s")
    entry = adata.uns["spatial"]["S1"]
    assert entry["images"]["hires"].shape == (1000, 2000, 3)
    assert entry["scalefactors"]["tissue_hires_scalef"] == pytest.approx(2000 / 2600)
    image = _adapt.image(adata)
    assert image is not None
    assert image.shape == (1300, 2600)
    assert image.um_per_px == pytest.approx(2.0)


def _cut(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])


def _rewrite(path: Path, change) -> None:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    text = change(text)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


BAD = {
    "no counts": (lambda f: (f / "S1.tsv.gz").unlink(), "no matrix of counts"),
    "truncated counts": (lambda f: _cut(f / "S1.tsv.gz"), "cannot be read as a table"),
    "counts are words": (
        lambda f: _rewrite(f / "S1.tsv.gz", lambda t: t.replace("\t4", "\tfour", 1)),
        "holds words",
    ),
    "counts transposed": (
        lambda f: _rewrite(f / "S1.tsv.gz", lambda t: t.replace("5x5", "GENE")),
        "lattice position",
    ),
    "negative": (
        lambda f: _rewrite(f / "S1.tsv.gz", lambda t: t.replace("\t4", "\t-4", 1)),
        "cannot be negative",
    ),
    "missing count": (
        lambda f: _rewrite(f / "S1.tsv.gz", lambda t: t.replace("\t4", "\t", 1)),
        "must be finite",
    ),
    "other section": (
        lambda f: _rewrite(f / "S1.tsv.gz", lambda t: t.replace("x", "0x")),
        "do not match; found: none of 36",
    ),
    "repeated spot": (
        lambda f: _rewrite(f / "S1.tsv.gz", lambda t: t.replace("\n6x5", "\n5x5")),
        "must be unique",
    ),
    "no pixels": (
        lambda f: _rewrite(f / "S1_selection.tsv", lambda t: t.replace("pixel_x", "px")),
        "pixel_x missing",
    ),
    "NaN": (
        lambda f: _rewrite(f / "S1_selection.tsv", lambda t: t.replace("\t150.0\t", "\tnan\t", 1)),
        "must be finite",
    ),
    "empty selection": (lambda f: (f / "S1_selection.tsv").write_text(""), "file is empty"),
    "two sections": (lambda f: (f / "S2_selection.tsv").write_text("x"), "one section a folder"),
    "truncated image": (lambda f: _cut(f / "S1_HE.png"), "cannot be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(tmp_path: Path, name: str) -> None:
    _make.legacy(tmp_path / "s", without_counts=0)
    assert sm.read(tmp_path / "s").n_obs == 36  # the good twin
    damage, message = BAD[name]
    damage(tmp_path / "s")
    with pytest.raises(InputError) as error:
        sm.read(tmp_path / "s")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
