"""The simulator's form: conventions, determinism, round trip, refusals."""

from __future__ import annotations

import doctest
import hashlib
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial import cKDTree

import smeld as sm
from smeld import _adapt
from smeld.datasets import _simulate

LAYOUTS, TISSUES = ("lattice", "cells"), ("layered", "nested", "branched", "folded")


def _same(a: anndata.AnnData, b: anndata.AnnData) -> None:
    assert (a.X != b.X).nnz == 0
    assert np.array_equal(a.X.indptr, b.X.indptr)
    pd.testing.assert_frame_equal(a.obs, b.obs, check_categorical=True)
    pd.testing.assert_frame_equal(a.var, b.var)
    for key in a.obsm:
        assert np.array_equal(np.asarray(a.obsm[key]), np.asarray(b.obsm[key]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tissue", TISSUES)
def test_looks_as_a_reader_would_give_it(layout: Any, tissue: Any) -> None:
    a = sm.datasets.simulate(400, 130, layout=layout, tissue=tissue, seed=3)
    assert a.shape == (400, 130)
    assert isinstance(a.X, sparse.csr_matrix | sparse.csr_array)
    assert a.X.dtype == np.float32
    assert a.X.has_sorted_indices
    _adapt.check_counts(_adapt.counts(a))
    assert _adapt.are_counts(a.X)
    assert (a.X.data > 0).all()
    assert a.obs_names.is_unique
    assert a.var_names.is_unique
    assert a.var_names.str.startswith("MT-").sum() == (a.var["truth_role"] == "mitochondrial").sum() > 0
    meta = _adapt.metadata(a)
    assert a.obsm["spatial"] * meta["um_per_unit"] == pytest.approx(a.obsm["spatial_um"])
    picture = _adapt.image(a)
    assert picture is not None
    assert picture.um_per_px == pytest.approx(meta["um_per_unit"])
    px = _adapt.xy_px(a, picture)
    assert (px > 0).all()
    assert (px < picture.shape[::-1]).all()
    preview = a.uns["spatial"]["simulated"]["images"]["lowres"]
    assert max(preview.shape[:2]) <= 600
    assert ("array_row" in a.obs) == ("truth_proportions" in a.obsm) == (layout == "lattice")


def test_lattice_is_visiums() -> None:
    a = sm.datasets.simulate(500, 40, image=False)
    col, row = a.obs["array_col"].to_numpy(), a.obs["array_row"].to_numpy()
    assert ((row + col) % 2 == 0).all()
    expected = np.stack([col * 50.0, row * 100 * np.sqrt(0.75)], axis=1)
    assert np.ptp(a.obsm["spatial_um"] - expected, axis=0) == pytest.approx([0, 0], abs=1e-6)
    nearest, _ = cKDTree(a.obsm["spatial_um"]).query(a.obsm["spatial_um"], k=2)
    assert nearest[:, 1] == pytest.approx(np.full(500, 100.0))


def test_cells_lie_apart_at_a_tissues_density() -> None:
    a = sm.datasets.simulate(2000, 40, layout="cells", image=False)
    xy = a.obsm["spatial_um"]
    away = cKDTree(xy).query(xy, k=2)[0][:, 1]
    assert 8 < np.median(away) < 20
    inside = np.hypot(*(xy - xy.mean(axis=0)).T) < 200
    assert 2200 < inside.sum() / (np.pi * 0.2**2) < 3400  # per square millimetre


@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_seed_same_bytes_on_any_number_of_threads(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smeld.datasets._expression._BLOCK", 20_000)  # several blocks
    one, three = (sm.datasets.simulate(300, 200, seed=5, layout=layout, n_jobs=n) for n in (1, 3))
    _same(one, three)
    assert one.X.data.tobytes() == three.X.data.tobytes()
    stored = [a.uns["spatial"]["simulated"]["images"]["hires"] for a in (one, three)]
    assert np.array_equal(*stored)
    other = sm.datasets.simulate(300, 200, seed=6, layout=layout, image=False)
    assert (one.X != other.X).nnz > 0


@given(st.sampled_from(TISSUES), st.floats(0, 1), st.integers(0, 50))
def test_the_picture_leaves_everything_else_alone(tissue: Any, information: float, seed: int) -> None:
    options: dict[str, Any] = {"tissue": tissue, "seed": seed}
    plain = sm.datasets.simulate(120, 40, image=False, **options)
    told = sm.datasets.simulate(120, 40, image=False, image_information=information, **options)
    _same(plain, told)


@pytest.mark.parametrize(
    ("options", "expected", "measured"),
    [
        ({}, "7f0cc9d39f902c90", (213.6542, 81.8344, 85.7483)),
        ({"layout": "cells", "tissue": "nested", "image": False}, "9081d31f854a7f8a", (0.0, 0.0, 0.0)),
    ],
)
def test_what_was_simulated_yesterday_is_simulated_today(
    options: dict[str, Any], expected: str, measured: tuple[float, ...]
) -> None:
    """New options leave what the old ones give alone: counts and places bit by bit, other numbers to nine digits and
    the image to a hundredth of a grey level, for exponentials have their last bits from the processor."""
    a = sm.datasets.simulate(300, 120, seed=3, **options)
    found = hashlib.sha256()
    for values in (a.X.data, a.X.indices, a.X.indptr, a.obsm["spatial_um"]):
        found.update(np.ascontiguousarray(values).tobytes())
    for table in (a.obs, a.uns["truth_pairs"], a.var):
        found.update(table.to_csv(float_format="%.9g").encode())
    assert found.hexdigest().startswith(expected)
    image = a.uns["spatial"]["simulated"]["images"].get("lowres", np.zeros((2, 2, 1))).astype(float)
    assert [image.mean(), *(np.ptp(image.mean(axis=k)) for k in (0, 1))] == pytest.approx(measured, abs=0.01)


def test_image_or_not_gives_the_same_counts() -> None:
    without = sm.datasets.simulate(200, 60, image=False)
    _same(without, sm.datasets.simulate(200, 60, image_information=0.0))
    assert _adapt.image(without) is None
    assert _adapt.metadata(without)["um_per_unit"] > 0


def test_sections_share_the_organ_and_nothing_else() -> None:
    first, second = (sm.datasets.simulate(900, 200, section=s, image=False) for s in (0, 1))
    pd.testing.assert_frame_equal(first.var, second.var)
    pd.testing.assert_frame_equal(first.uns["truth_mixtures"], second.uns["truth_mixtures"])
    assert (first.X != second.X).nnz > 0
    nearest = cKDTree(first.obsm["spatial_um"]).query(second.obsm["spatial_um"])[1]
    agree = first.obs["truth_domain"].to_numpy()[nearest] == second.obs["truth_domain"].to_numpy()
    assert 0.7 < agree.mean() < 1.0
    moved = sm.datasets.simulate(900, 200, section=1, image=False, batch_effect=0.5)
    ratio = np.log((moved.X.sum(axis=0) + 1) / (second.X.sum(axis=0) + 1))
    assert np.std(ratio) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("options", [{"layout": "lattice"}, {"layout": "cells", "tissue": "branched", "image": False}])
def test_survives_h5ad(options: dict[str, Any], tmp_path: Path) -> None:
    a = sm.datasets.simulate(200, 100, **options)
    a.write_h5ad(tmp_path / "a.h5ad")
    b = anndata.read_h5ad(tmp_path / "a.h5ad")
    _same(a, b)
    pd.testing.assert_frame_equal(a.uns["truth_pairs"], b.uns["truth_pairs"])
    pd.testing.assert_frame_equal(a.uns["truth_domain_tree"], b.uns["truth_domain_tree"])
    pd.testing.assert_frame_equal(a.varm["truth_domain_effect"], b.varm["truth_domain_effect"])
    assert b.uns["smeld"]["simulate"]["params"]["tissue"] == options.get("tissue", "layered")


GOOD: dict[str, Any] = {"n_obs": 100, "n_genes": 40, "image": False}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"layout": "latice"}, "did you mean 'lattice'"),
        ({"tissue": "layred"}, "did you mean 'layered'"),
        ({"n_obs": 60}, "n_obs must be at least 70"),
        ({"n_obs": 100.5}, "whole number"),
        ({"n_genes": 19}, "n_genes"),
        ({"n_domains": 1}, "n_domains"),
        ({"n_domains": 16, "n_obs": 1000}, "n_domains"),
        ({"n_cell_types": 0}, "n_cell_types"),
        ({"n_pairs": 6}, "n_pairs=5 at most"),
        ({"n_pairs": 2, "n_downstream": 8}, "n_pairs=1 at most"),
        ({"n_downstream": -1}, "n_downstream"),
        ({"image_information": 1.2}, "between 0 and 1"),
        ({"image_information": float("nan")}, "image_information"),
        ({"mean_counts": 0.0}, "mean_counts"),
        ({"dispersion": -0.1}, "dispersion"),
        ({"library_sd": float("inf")}, "library_sd"),
        ({"field_um": 0.1}, "field_um"),
        ({"seed": -1}, "seed"),
        ({"section": 1.5}, "section"),
        ({"n_jobs": 0}, "n_jobs"),
    ],
)
def test_bad_options_are_refused_with_the_cure(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        sm.datasets.simulate(**{**GOOD, **bad})


@pytest.mark.parametrize(
    "good",
    [
        {"n_obs": 70},
        {"n_genes": 20},
        {"n_domains": 2},
        {"n_domains": 15, "n_obs": 600, "tissue": "branched"},
        {"n_domains": 15, "n_obs": 600, "tissue": "nested"},
        {"n_cell_types": 1},
        {"n_pairs": 5},
        {"n_pairs": 0},
        {"dispersion": 0.0},
        {"library_sd": 0.0},
        {"image_information": 0},
        {"domain_effect": 0, "cell_type_effect": 0},
        {"n_obs": np.int64(100)},
    ],
)
def test_options_at_the_limit_work(good: dict[str, Any]) -> None:
    a = sm.datasets.simulate(**{**GOOD, **good})
    assert a.obs["truth_domain"].nunique() == good.get("n_domains", 6 if good.get("tissue") == "nested" else 7)
    assert len(a.uns["truth_pairs"]) == 2 * good.get("n_pairs", good.get("n_genes", 40) // 40)
    assert a.X.sum() > 0


def test_docstring_runs() -> None:
    found = doctest.testmod(_simulate)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.slow
def test_a_hundred_thousand_cells_in_seconds() -> None:
    sm.datasets.simulate(200, 60, image=False)  # compiled
    start = time.perf_counter()
    a = sm.datasets.simulate(100_000, 500, layout="cells")
    assert time.perf_counter() - start < 20
    assert a.shape == (100_000, 500)
