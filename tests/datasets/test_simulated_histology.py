"""The picture tells as much of the domains as the dial says, and looks like H&E."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pytest
from scipy import ndimage
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import smeld as sm
from smeld import _adapt


def _features(a: anndata.AnnData, tile_um: float) -> np.ndarray:
    """Mean and standard deviation of each colour in a square tile around each observation, [n, 6]."""
    picture = _adapt.image(a)
    assert picture is not None
    where = np.rint(_adapt.xy_px(a, picture)[:, ::-1]).astype(int)
    side = max(3, round(tile_um / picture.um_per_px))
    out = []
    for c in range(3):
        plane = picture.pixels()[:, :, c].astype(np.float32)
        mean = ndimage.uniform_filter(plane, side)
        spread = np.sqrt(np.maximum(ndimage.uniform_filter(plane**2, side) - mean**2, 0))
        out += [m[where[:, 0], where[:, 1]] for m in (mean, spread)]
    return np.stack(out, axis=1)


@pytest.mark.parametrize(
    ("layout", "tissue", "tile_um", "clear"),
    [
        ("lattice", "layered", 100.0, 0.65),
        pytest.param("cells", "nested", 35.0, 0.55, marks=pytest.mark.slow),
        pytest.param("lattice", "branched", 100.0, 0.65, marks=pytest.mark.slow),
    ],
)
def test_the_dial_turns_information_on(layout: Any, tissue: Any, tile_um: float, clear: float) -> None:
    accuracy = []
    for information in (0.0, 0.5, 1.0):
        a = sm.datasets.simulate(1500, 40, layout=layout, tissue=tissue, seed=1, image_information=information)
        truth = a.obs["truth_domain"]
        model = make_pipeline(StandardScaler(), KNeighborsClassifier(25))
        accuracy.append(cross_val_score(model, _features(a, tile_um), truth.to_numpy(), cv=4).mean())
    chance = truth.value_counts(normalize=True).max()
    assert accuracy[0] < chance + 0.12
    assert accuracy[0] + 0.05 < accuracy[1] < accuracy[2] - 0.05
    assert accuracy[2] > clear


def test_the_picture_is_as_lively_without_information() -> None:
    told, untold = (
        sm.datasets.simulate(800, 40, seed=3, image_information=w).uns["spatial"]["simulated"]["images"]["hires"]
        for w in (1.0, 0.0)
    )
    assert told.shape == untold.shape
    for c in range(3):
        inner = [p[600:1600, 600:1600, c].astype(float) for p in (told, untold)]
        assert inner[0].mean() == pytest.approx(inner[1].mean(), abs=15)
        assert inner[0].std() == pytest.approx(inner[1].std(), rel=0.25)


def test_colours_are_those_of_haematoxylin_and_eosin() -> None:
    a = sm.datasets.simulate(600, 40, seed=2)
    picture = a.uns["spatial"]["simulated"]["images"]["hires"]
    assert picture.dtype == np.uint8
    assert (picture[:40, :40] > 225).all()  # empty slide around the tissue
    where = np.rint(a.obsm["spatial"][:, ::-1]).astype(int)
    tissue = picture[where[:, 0], where[:, 1]].astype(float)
    assert (np.median(tissue, axis=0)[[0, 2]] > np.median(tissue[:, 1])).all()  # pink and purple: least green
    dark = tissue[tissue.sum(axis=1) < np.quantile(tissue.sum(axis=1), 0.04)].mean(axis=0)
    assert dark[2] > dark[0]  # nuclei are blue rather than red


def test_nuclei_lie_where_the_cells_are() -> None:
    a = sm.datasets.simulate(800, 40, layout="cells", tissue="nested", seed=0)
    red = a.uns["spatial"]["simulated"]["images"]["hires"][:, :, 0].astype(float)
    where = np.rint(a.obsm["spatial"][:, ::-1]).astype(int)
    at = red[where[:, 0], where[:, 1]]
    beside = red[where[:, 0] + round(8 / 0.5), where[:, 1]]
    assert np.median(at) < np.median(beside) - 60


@pytest.mark.parametrize(("layout", "n"), [("lattice", 150), ("lattice", 20_000), ("cells", 150), ("cells", 50_000)])
def test_the_picture_is_bounded(layout: Any, n: int) -> None:
    a = sm.datasets.simulate(n, 20, layout=layout)
    picture = _adapt.image(a)
    assert picture is not None
    assert 100 < max(picture.shape) <= 2200
    assert picture.um_per_px >= (2.0 if layout == "lattice" else 0.5)
