"""``deconvolve`` on simulated spots with a platform shift: against truth and NNLS, and what must not matter."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from scipy.optimize import nnls

import smeld as sm
from smeld import _adapt, _check, _keys
from smeld.kernels import platformshift, spotmodel, typeprofiles
from smeld.kernels.graph import spatial_graph
from smeld.tl import _deconvolve, _reference

SEED = 107


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    spots = sm.datasets.simulate(
        300, 240, seed=SEED, image=False, n_cell_types=5, cell_type_effect=2.0, mean_counts=500
    )
    cells = sm.datasets.simulate_reference(spots, 60, seed=SEED, platform_sd=1.0)
    spots.obsp[_keys.SME_WEIGHTS] = spatial_graph(spots.obsm[_keys.SPATIAL_UM]).connectivities
    return spots, cells


@pytest.fixture(scope="module")
def found(pair: tuple[Any, Any]) -> Any:
    spots = pair[0].copy()
    return _deconvolve.deconvolve(spots, pair[1], reach=1), spots


def test_error_is_well_below_that_of_nnls_and_intervals_hold_the_truth(pair: tuple[Any, Any], found: Any) -> None:
    spots, cells = pair
    truth, result = spots.obsm["truth_proportions"].to_numpy(), found[0]
    label = cells.obs["cell_type"].to_numpy()
    profile = np.array([cells.X[label == t].toarray().mean(axis=0) for t in result.proportions.columns])
    plain = np.array([nnls(profile.T, y)[0] for y in spots.X.toarray()])
    plain /= plain.sum(axis=1, keepdims=True)
    error = [np.sqrt(((x - truth) ** 2).mean()) for x in (result.proportions.to_numpy(), plain)]
    assert error[0] < 0.8 * error[1]
    inside = (truth <= result.high.to_numpy() + 1e-6) & (truth >= result.low.to_numpy() - 1e-6)
    assert inside[truth > 0].mean() > 0.8
    assert (result.low.to_numpy()[truth == 0] == 0).mean() > 0.88  # what is asked of intervals at 90 %
    shift = -cells.var["truth_platform_shift"].reindex(result.platform.index)
    assert np.corrcoef(result.platform, shift)[0, 1] > 0.9


def test_what_is_written(found: Any) -> None:
    result, spots = found
    share = spots.obsm["cell_type_proportions"]
    assert list(share.columns) == ["T1", "T2", "T3", "T4", "T5"]
    np.testing.assert_allclose(share.sum(axis=1), 1, atol=1e-5)
    low, high = spots.obsm["cell_type_proportions_low"], spots.obsm["cell_type_proportions_high"]
    assert (low.to_numpy() <= high.to_numpy()).all()
    absent = spots.obsm["cell_type_proportions_absent"].to_numpy()
    assert (low.to_numpy()[absent > 0.06] == 0).all()
    assert spots.uns["smeld"]["cell_type_proportions"]["params"]["reach"] == 1
    assert result.proportions is share


def test_order_of_spots_and_threads_do_not_matter(pair: tuple[Any, Any], found: Any) -> None:
    spots, cells = pair
    turned = spots[np.random.default_rng(0).permutation(spots.n_obs)].copy()
    before = numba.get_num_threads()
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    try:
        _deconvolve.deconvolve(turned, cells, reach=1)
    finally:
        numba.set_num_threads(before)
    for key in ("", "_low", "_high", "_absent"):
        name = "cell_type_proportions" + key
        np.testing.assert_array_equal(
            turned.obsm[name].loc[spots.obs_names].to_numpy(), found[1].obsm[name].to_numpy(), err_msg=name
        )


def test_known_numbers_of_cells_make_absences_surer(pair: tuple[Any, Any], found: Any) -> None:
    spots = pair[0].copy()
    spots.obs["one"] = 1.0
    result = _deconvolve.deconvolve(spots, pair[1], reach=1, n_cells="one")
    assert result.absent.to_numpy().mean() > found[0].absent.to_numpy().mean() + 0.1


def test_numbers_of_cells_are_nuclei_times_shares(pair: tuple[Any, Any], found: Any) -> None:
    """Proportions stay as they are; without nuclei, or for shares of counts, nothing is left of an earlier call."""
    spots = pair[0].copy()
    assert found[0].counts is None and "cell_type_counts" not in found[1].obsm
    number = np.random.default_rng(0).integers(0, 20, spots.n_obs).astype(float)
    number[:2] = [0, np.nan]
    spots.obs["n_nuclei"] = number
    result = _deconvolve.deconvolve(spots, pair[1], reach=1)
    for key in ("", "_low", "_high"):
        share = found[1].obsm["cell_type_proportions" + key].to_numpy()
        np.testing.assert_array_equal(spots.obsm["cell_type_proportions" + key].to_numpy(), share)
        made = spots.obsm["cell_type_counts" + key].to_numpy()
        np.testing.assert_allclose(made[2:], (share * number[:, None])[2:], rtol=1e-6)
        assert (made[0] == 0).all() and np.isnan(made[1]).all()
    assert result.counts is spots.obsm["cell_type_counts"]
    np.testing.assert_allclose(result.counts.sum(axis=1)[2:], number[2:], rtol=1e-4)
    assert spots.uns["smeld"]["cell_type_proportions"]["inputs"]["nuclei"] == "n_nuclei"
    _deconvolve.deconvolve(spots, pair[1], reach=1, of="counts")
    assert not [key for key in spots.obsm if key.startswith("cell_type_counts")]
    assert spots.uns["smeld"]["cell_type_proportions"]["inputs"]["nuclei"] == "none"


def test_expected_cells_are_nearer_the_truth_than_those_of_a_mean_spot_or_of_mean_shares(
    pair: tuple[Any, Any], found: Any
) -> None:
    spots, share = pair[0], found[0].proportions.to_numpy()
    n_cells = spots.obs["truth_n_cells"].to_numpy()[:, None]
    truth = spots.obsm["truth_proportions"].to_numpy() * n_cells
    made, mean_spot, mean_share = (
        np.sqrt(((cells - truth) ** 2).mean())
        for cells in (share * n_cells, share * n_cells.mean(), share.mean(axis=0) * n_cells)
    )
    assert made < 0.95 * mean_spot
    assert made < 0.9 * mean_share


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"nuclei": "nowhere"}, "sm.morph.nuclei"),
        ({"of": "litres"}, "unknown meaning"),
        ({"reach": -1}, "reach"),
        ({"level": 1.5}, "level"),
        ({"n_cells": "nowhere"}, "nowhere"),
        ({"label": "nothing"}, "nothing"),
    ],
)
def test_settings_that_do_not_fit_are_refused(pair: tuple[Any, Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(_check.InputError, match=says):
        _deconvolve.deconvolve(pair[0].copy(), pair[1], **options)


def test_values_that_are_no_counts_are_refused(pair: tuple[Any, Any]) -> None:
    spots = pair[0].copy()
    spots.X = spots.X * 0.37
    with pytest.raises(_check.InputError, match="needs counts"):
        _deconvolve.deconvolve(spots, pair[1])


def test_a_given_composition_is_what_the_sections_sum_is_taken_to_hold(pair: tuple[Any, Any]) -> None:
    """With profiles scaled as the composition asks, the estimate from the section's sums is that composition, whatever
    share of its counts a type lost in the reference; and proportions move towards it."""
    spots, cells = pair[0].copy(), pair[1].copy()
    lost = (cells.obs["cell_type"] == "T1").to_numpy()
    kept = cells.X.toarray()
    kept[lost] = np.random.default_rng(0).binomial(kept[lost].astype(int), 0.25)
    cells.X = kept
    asked = np.array([0.1, 0.4, 0.2, 0.1, 0.2])
    ref = _reference.checked(spots, cells, "cell_type")
    counts = _adapt.counts(spots)
    scale = spotmodel.type_scales(counts, ref.genes, ref.counts, ref.label, asked)
    profile = typeprofiles.means(ref.counts, ref.label, 5) * scale[:, None]
    pooled = np.asarray(counts.sum(axis=0), dtype=float)[:, ref.genes]
    np.testing.assert_allclose(platformshift.estimate(pooled, profile).shares[0], asked, atol=0.02)
    given = dict(zip(ref.names, asked))
    plain, told = (
        _deconvolve.deconvolve(spots, cells, reach=1, composition=c).proportions.mean() for c in ("estimate", given)
    )
    off = [float(np.abs(found.to_numpy() - asked).sum()) for found in (plain, told)]
    assert off[1] < 0.6 * off[0]
    assert spots.uns["smeld"]["cell_type_proportions"]["params"]["composition"] == "given"


def test_a_composition_that_lacks_a_type_is_refused(pair: tuple[Any, Any]) -> None:
    with pytest.raises(_check.InputError, match="none for T2"):
        _deconvolve.deconvolve(pair[0], pair[1], composition={"T1": 1.0, "T3": 1.0, "T4": 1.0, "T5": 1.0})
    with pytest.raises(_check.InputError, match="reference"):
        _deconvolve.deconvolve(pair[0], pair[1], composition="referenc")  # type: ignore[arg-type]
