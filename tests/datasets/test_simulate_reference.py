"""The simulated reference is what it says of its section, subtypes are alike, and niches show in neighbours alone."""

from __future__ import annotations

import doctest
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from threadpoolctl import threadpool_limits

import smeld as sm
from smeld.datasets import _reference
from smeld.tl import _reference as matching

HARD: dict[str, Any] = {
    "n_cell_types": 10, "n_subtype_pairs": 2, "cell_type_effect": 2.0, "mean_counts": 600, "image": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def spots() -> anndata.AnnData:
    """Poisson counts, so that their variance is known."""
    return sm.datasets.simulate(800, 600, seed=3, dispersion=0.0, **HARD)


@pytest.fixture(scope="module")
def niches() -> anndata.AnnData:
    return sm.datasets.simulate_niches(3000, 200, seed=3)


def _squares(x: np.ndarray, mean: np.ndarray) -> tuple[float, float]:
    """Mean and mean square of (x - mean) / sqrt(mean): 0 and 1 for Poisson counts of that mean."""
    z = (x - mean) / np.sqrt(mean)
    return float(z.mean()), float((z**2).mean())


# ------------------------------------------------------------------------------------------- the section's truth


def test_proportions_and_profiles_are_what_made_the_counts(spots: anndata.AnnData) -> None:
    genes = spots.var["truth_role"].isin(["marker", "cell_type", "noise"]).to_numpy()  # those without a covariate
    x = spots.X.toarray()[:, genes]
    shares = spots.obsm["truth_proportions"].to_numpy()
    assert shares.sum(axis=1) == pytest.approx(np.ones(800))
    fold = np.exp(spots.varm["truth_domain_effect"].to_numpy().T)[spots.obs["truth_domain"].cat.codes]
    common = (spots.obs["truth_size_factor"].to_numpy()[:, None] * fold)[:, genes]
    profile = spots.varm["truth_type_profile"].to_numpy().T[:, genes]
    centre, spread = _squares(x, common * (shares @ profile))
    assert abs(centre) < 4 / np.sqrt(x.size)
    assert spread == pytest.approx(1.0, abs=0.03)
    assert _squares(x, common * (np.roll(shares, 1, axis=0) @ profile))[1] > 1.15
    whole = spots.varm["truth_type_profile"].to_numpy() @ shares.mean(axis=0)
    alone = spots.var["truth_role"].isin(["cell_type", "noise"]).to_numpy()
    assert whole[alone] == pytest.approx(spots.var["truth_mean"].to_numpy()[alone])


def test_profiles_hold_the_sections_batch() -> None:
    first, second = (sm.datasets.simulate(100, 40, section=s, batch_effect=0.7, image=False) for s in (0, 1))
    moved = np.log(second.varm["truth_type_profile"]["T1"] / first.varm["truth_type_profile"]["T1"])
    assert moved.std() == pytest.approx(0.7, rel=0.35)


def test_subtypes_are_alike_and_nothing_else_changes(spots: anndata.AnnData) -> None:
    plain = sm.datasets.simulate(800, 600, seed=3, dispersion=0.0, **{**HARD, "n_subtype_pairs": 0})
    log = np.log1p(1e4 * spots.varm["truth_type_profile"] / spots.varm["truth_type_profile"].sum())
    alike = log.corr()
    before, after = plain.varm["truth_type_effect"], spots.varm["truth_type_effect"]
    for first, second in (("T1", "T2"), ("T3", "T4")):
        assert alike.loc[first, second] > 0.97
        assert alike.loc[first, second] > alike.loc[first].drop([first, second]).max() + 0.01
        assert (after[first] != after[second]).sum() == 6
        own = after[[first, second]][after[first] != after[second]]
        assert ((own > 0).sum() == 3).all()
        raised = (before[[first, second]] > 0).any(axis=1)
        assert (after[[first, second]].max(axis=1) == before[[first, second]].max(axis=1)).all()
        assert not after.loc[~raised, [first, second]].to_numpy().any()
    others = [f"T{k}" for k in range(5, 11)]
    pd.testing.assert_frame_equal(before[others], after[others])
    pd.testing.assert_frame_equal(plain.obs, spots.obs)
    pd.testing.assert_frame_equal(plain.var, spots.var)
    pd.testing.assert_frame_equal(plain.obsm["truth_proportions"], spots.obsm["truth_proportions"])
    assert np.array_equal(plain.obsm["spatial_um"], spots.obsm["spatial_um"])


# -------------------------------------------------------------------------------------------------- the reference


def test_counts_of_the_reference_have_the_stated_means(spots: anndata.AnnData) -> None:
    reference = sm.datasets.simulate_reference(spots, 150, seed=5, mean_counts=1500)
    assert reference.X.dtype == np.float32
    assert reference.X.has_sorted_indices
    assert list(reference.var_names) == list(spots.var_names)
    profile = spots.varm["truth_type_profile"].to_numpy().T[reference.obs["cell_type"].cat.codes]
    fold = np.exp(spots.varm["truth_domain_effect"].to_numpy().T)[reference.obs["truth_domain"].cat.codes]
    shift = np.exp(reference.var["truth_platform_shift"].to_numpy())
    mean = reference.obs["truth_size_factor"].to_numpy()[:, None] * profile * fold * shift
    x = reference.X.toarray()
    mean *= x.sum() / mean.sum()  # the depth, which mean_counts sets
    centre, spread = _squares(x, mean)
    assert abs(centre) < 4 / np.sqrt(x.size)
    assert spread == pytest.approx(1.0, abs=0.05)
    assert x.sum() / len(x) == pytest.approx(1500, rel=0.06)
    assert np.log(reference.obs["truth_size_factor"]).std() == pytest.approx(0.5, rel=0.1)
    assert reference.obs["truth_size_factor"].mean() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("sd", [0.0, 0.4, 1.0])
def test_the_platforms_shift_has_the_stated_spread(sd: float) -> None:
    cells = sm.datasets.simulate(200, 1500, layout="cells", dispersion=0.0, image=False, domain_effect=0.0)
    reference = sm.datasets.simulate_reference(cells, 60, seed=7, platform_sd=sd, mean_counts=20_000)
    shift = reference.var["truth_platform_shift"]
    assert shift.std() == pytest.approx(sd, rel=0.06)
    assert shift.mean() == pytest.approx(0.0, abs=4 * sd / np.sqrt(1500) + 1e-12)
    # and it is what sets the platforms apart: the same for all types
    for name in ("T1", "T5"):
        total = np.asarray(reference[reference.obs["cell_type"] == name].X.sum(axis=0)).ravel()
        seen = total > 50
        found = np.log(total[seen] / cells.varm["truth_type_profile"][name].to_numpy()[seen])
        assert seen.sum() > 1200
        assert (found - shift[seen]).std() < 0.08


def test_dispersion_is_the_sections() -> None:
    cells = sm.datasets.simulate(200, 60, layout="cells", dispersion=0.8, domain_effect=0.0, image=False)
    reference = sm.datasets.simulate_reference(cells, {"T1": 4000}, library_sd=0.0, mean_counts=600)
    x = reference[reference.obs["cell_type"] == "T1"].X.toarray().astype(float)
    mean = x.mean(axis=0)
    phi = (x.var(axis=0) - mean) / mean**2
    clear = mean > 1
    assert clear.sum() > 30
    assert phi[clear] == pytest.approx(cells.var["truth_dispersion"].to_numpy()[clear], rel=0.35)


def test_cells_come_from_the_domains_that_hold_their_type(spots: anndata.AnnData) -> None:
    reference = sm.datasets.simulate_reference(spots, {"T5": 4000, "T6": 4000}, seed=1)
    area = spots.obs["truth_domain"].value_counts(sort=False)
    for name in ("T5", "T6"):
        found = reference.obs.loc[reference.obs["cell_type"] == name, "truth_domain"].value_counts(
            normalize=True, sort=False
        )
        expected = area * spots.uns["truth_mixtures"][name]
        assert np.abs(found - expected / expected.sum()).max() < 0.035


def test_types_are_withheld_or_rare_and_the_others_stay_as_they_are(spots: anndata.AnnData) -> None:
    whole = sm.datasets.simulate_reference(spots, 20, seed=2)
    part = sm.datasets.simulate_reference(spots, {f"T{k}": 20 if k != 3 else 4 for k in range(1, 11)}, seed=2,
                                          withheld=["T4", "T9"])  # fmt: skip
    number = part.obs["cell_type"].value_counts(sort=False)
    assert dict(number) == {f"T{k}": 4 if k == 3 else 20 for k in (1, 2, 3, 5, 6, 7, 8, 10)}
    same = ~whole.obs["cell_type"].isin(["T3", "T4", "T9"])
    kept = part[part.obs["cell_type"] != "T3"]
    assert (kept.X != whole[same].X).nnz == 0
    assert list(kept.obs_names) == list(whole.obs_names[same])
    assert sm.datasets.simulate_reference(spots, 5, withheld="T10").obs["cell_type"].nunique() == 9


@given(st.integers(0, 1000))
def test_the_seed_alone_decides(seed: int) -> None:
    section = sm.datasets.simulate(80, 30, image=False, seed=seed % 3)
    before = section.copy()
    one, two, other = (sm.datasets.simulate_reference(section, 6, seed=s) for s in (seed, seed, seed + 1))
    assert one.X.data.tobytes() == two.X.data.tobytes()
    pd.testing.assert_frame_equal(one.obs, two.obs)
    pd.testing.assert_frame_equal(one.var, two.var)
    assert (one.X != other.X).nnz > 0
    assert (one.var["truth_platform_shift"] != other.var["truth_platform_shift"]).all()
    assert (section.X != before.X).nnz == 0
    assert set(section.uns) == set(before.uns)


def test_blocks_of_rows_leave_the_law_alone(spots: anndata.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sm.datasets.simulate_reference(spots, 30)
    monkeypatch.setattr("smeld.datasets._expression._BLOCK", 4_000)
    assert (sm.datasets.simulate_reference(spots, 30).X != whole.X).nnz == 0  # no count here is drawn apart


def test_a_part_of_a_section_or_a_stored_one_will_do(spots: anndata.AnnData, tmp_path: Path) -> None:
    part = spots[::2, spots.var["truth_role"] != "noise"].copy()
    part.write_h5ad(tmp_path / "part.h5ad")
    reference = sm.datasets.simulate_reference(anndata.read_h5ad(tmp_path / "part.h5ad"), 12, seed=1)
    again = sm.datasets.simulate_reference(part, 12, seed=1)
    assert (reference.X != again.X).nnz == 0
    assert list(reference.var_names) == list(part.var_names)
    reference.write_h5ad(tmp_path / "reference.h5ad")
    stored = anndata.read_h5ad(tmp_path / "reference.h5ad")
    assert stored.obs["cell_type"].tolist() == reference.obs["cell_type"].tolist()
    assert stored.uns["smeld"]["simulate"]["function"] == "smeld.datasets.simulate_reference"


def test_it_passes_as_a_reference(spots: anndata.AnnData) -> None:
    reference = sm.datasets.simulate_reference(spots, 15)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = matching.checked(spots, reference)
    assert found.names == [f"T{k}" for k in range(1, 11)]
    assert len(found.genes) == 600


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"withheld": ["T11"]}, "unknown cell type 'T11'"),
        ({"cells_per_type": {"B": 3}}, "unknown cell type 'B'"),
        ({"cells_per_type": 2.5}, "cells_per_type must be a whole number"),
        ({"cells_per_type": -1}, "cells_per_type"),
        ({"withheld": [f"T{k}" for k in range(1, 11)]}, "no cell type is left"),
        ({"platform_sd": -1.0}, "platform_sd"),
        ({"library_sd": float("nan")}, "library_sd"),
        ({"mean_counts": 0.0}, "mean_counts"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_options_of_the_reference_are_refused(spots: anndata.AnnData, bad: dict[str, Any], says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        sm.datasets.simulate_reference(spots, **bad)


def test_a_section_that_was_not_simulated_is_refused() -> None:
    with pytest.raises(sm.InputError, match=r"truth_type_profile.*sm\.datasets\.simulate"):
        sm.datasets.simulate_reference(anndata.AnnData(np.ones((3, 3), dtype=np.float32)))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"n_subtype_pairs": 5}, "n_subtype_pairs must be between 0 and 4"),
        ({"n_subtype_pairs": 1, "n_subtype_genes": 3}, "too few markers to tell subtypes apart.*2 markers a cell type"),
        ({"n_subtype_genes": -1}, "n_subtype_genes"),
    ],
)
def test_bad_subtypes_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        sm.datasets.simulate(**{"n_obs": 100, "n_genes": 80, "n_cell_types": 8, "image": False, **bad})


# ---------------------------------------------------------------------------------------------------- the niches


def _clusters(values: np.ndarray, n: int) -> np.ndarray:
    with threadpool_limits(1):
        return np.asarray(KMeans(n, n_init=4, random_state=0).fit_predict(values))


def test_niches_show_in_neighbours_and_not_in_expression(niches: anndata.AnnData) -> None:
    truth, kind = (niches.obs[f"truth_{name}"].cat.codes.to_numpy() for name in ("niche", "cell_type"))
    first = kind == 0
    x = niches.X.toarray()
    x = np.log1p(x / np.maximum(x.sum(axis=1, keepdims=True), 1) * np.median(x.sum(axis=1)))
    assert adjusted_rand_score(truth[first], _clusters(x[first], 3)) < 0.03
    assert adjusted_rand_score(truth, _clusters(x, 3)) < 0.15
    near = cKDTree(niches.obsm["spatial_um"]).query(niches.obsm["spatial_um"], k=31)[1][:, 1:]
    around = _clusters(np.eye(8)[kind][near].mean(axis=1), 3)
    assert adjusted_rand_score(truth[first], around[first]) > 0.65
    assert adjusted_rand_score(truth, around) > 0.65


def test_expression_of_the_shared_type_has_one_law(niches: anndata.AnnData) -> None:
    """By niche, a gene's mean per unit of library size: no more apart than chance has it."""
    a = niches[niches.obs["truth_cell_type"] == "T1"]
    size, niche = a.obs["truth_size_factor"].to_numpy(), a.obs["truth_niche"].cat.codes.to_numpy()
    x = a.X.toarray().astype(float)
    mean = a.varm["truth_type_profile"]["T1"].to_numpy()
    spread = mean * size[:, None] + a.var["truth_dispersion"].to_numpy() * (mean * size[:, None]) ** 2
    z = np.stack(
        [(x - mean * size[:, None])[niche == k].sum(axis=0) / np.sqrt(spread[niche == k].sum(axis=0)) for k in range(3)]
    )
    assert (z**2).mean() == pytest.approx(1.0, abs=0.2)
    assert (a.var["truth_role"].isin(["noise", "cell_type", "mitochondrial"])).all()


def test_mixtures_and_shares_are_met(niches: anndata.AnnData) -> None:
    mixture = niches.uns["truth_mixtures"]
    assert mixture.sum(axis=1).to_numpy() == pytest.approx(np.ones(3))
    assert (mixture["T1"] == 0.3).all()
    met = pd.crosstab(niches.obs["truth_niche"], niches.obs["truth_cell_type"], normalize="index")
    assert np.abs(met.loc[mixture.index, mixture.columns].to_numpy() - mixture.to_numpy()).max() < 0.05
    assert niches.obs["truth_niche"].value_counts(normalize=True).to_numpy() == pytest.approx(
        np.full(3, 1 / 3), abs=0.01
    )
    uneven = sm.datasets.simulate_niches(2000, 30, seed=4, niche_shares=(4, 1, 2, 1), n_niches=4, section=2)
    shares = uneven.obs["truth_niche"].value_counts(normalize=True, sort=False).to_numpy()
    assert shares == pytest.approx(np.array([4, 1, 2, 1]) / 8, abs=0.015)
    state = uneven.obs.groupby("truth_cell_type", observed=True)["truth_state"].nunique()
    assert state["T1"] == 4
    assert (state.drop("T1") == 1).all()


def test_niches_at_contrast_zero_are_alike_and_at_one_apart() -> None:
    alike, apart = (sm.datasets.simulate_niches(400, 30, contrast=c).uns["truth_mixtures"] for c in (0.0, 1.0))
    assert np.ptp(alike.to_numpy(), axis=0) == pytest.approx(np.zeros(8))
    assert ((apart.drop(columns="T1") > 0).sum() == 1).all()
    assert ((apart > 0).sum(axis=1) >= 3).all()


def test_patches_are_as_wide_as_asked() -> None:
    share = []
    for field_um in (60.0, 240.0):
        a = sm.datasets.simulate_niches(3000, 20, seed=1, field_um=field_um)
        code = a.obs["truth_niche"].cat.codes.to_numpy()
        near = cKDTree(a.obsm["spatial_um"]).query(a.obsm["spatial_um"], k=7)[1][:, 1:]
        share.append((code[near] == code[:, None]).mean())
    # what crosses a border is inversely proportional to the fields' length
    assert (1 - share[0]) / (1 - share[1]) == pytest.approx(4, rel=0.35)


def test_sections_share_the_organ_and_not_the_patches() -> None:
    first, second = (sm.datasets.simulate_niches(2000, 60, field_um=60, section=s) for s in (0, 1))
    pd.testing.assert_frame_equal(first.var, second.var)
    pd.testing.assert_frame_equal(first.varm["truth_type_effect"], second.varm["truth_type_effect"])
    pd.testing.assert_frame_equal(first.uns["truth_mixtures"], second.uns["truth_mixtures"])
    nearest = cKDTree(first.obsm["spatial_um"]).query(second.obsm["spatial_um"])[1]
    agree = adjusted_rand_score(first.obs["truth_niche"].to_numpy()[nearest], second.obs["truth_niche"])
    assert abs(agree) < 0.1
    one, two = (sm.datasets.simulate_niches(300, 60, n_jobs=n) for n in (1, 2))
    assert one.X.data.tobytes() == two.X.data.tobytes()
    pd.testing.assert_frame_equal(one.obs, two.obs)


def test_the_picture_follows_the_niches_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    plain, told = (sm.datasets.simulate_niches(400, 40, seed=2, image=i) for i in (False, True))
    assert (plain.X != told.X).nnz == 0
    pd.testing.assert_frame_equal(plain.obs, told.obs)
    picture = told.uns["spatial"]["simulated"]["images"]["hires"].astype(float).mean(axis=2)
    px = told.obsm["spatial"]
    tone = np.array([picture[int(y) - 12 : int(y) + 13, int(x) - 12 : int(x) + 13].mean() for x, y in px])
    niche = told.obs["truth_niche"].cat.codes.to_numpy()
    between = np.var(np.array([tone[niche == k].mean() for k in range(3)])[niche])
    shuffled = np.random.default_rng(0).permutation(niche)
    chance = np.var(np.array([tone[shuffled == k].mean() for k in range(3)])[shuffled])
    assert between > 0.1 * tone.var() > 3 * chance
    told.write_h5ad(tmp_path / "niches.h5ad")
    assert anndata.read_h5ad(tmp_path / "niches.h5ad").uns["smeld"]["simulate"]["params"]["contrast"] == 0.7


def test_a_reference_of_niches_has_no_domains(niches: anndata.AnnData) -> None:
    reference = sm.datasets.simulate_reference(niches, 12)
    assert reference.shape == (96, 200)
    assert "truth_domain" not in reference.obs


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ({"n_niches": 1}, "n_niches must be between 2 and 15"),
        ({"n_cell_types": 3}, "every niche needs a type of its own.*n_cell_types=4 or more"),
        ({"n_shared": 0}, "n_shared"),
        ({"contrast": 1.5}, "contrast must be between 0 and 1"),
        ({"niche_shares": (0.5, 0.5)}, "niche_shares must be 3 numbers"),
        ({"niche_shares": (0.5, 0.5, 0.0)}, "niche_shares must be 3 numbers"),
        ({"field_um": 0.0}, "field_um"),
    ],
)
def test_bad_options_of_niches_are_refused(bad: dict[str, Any], says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        sm.datasets.simulate_niches(400, 40, **bad)


def test_docstrings_run() -> None:
    found = doctest.testmod(_reference)
    assert found.attempted > 5
    assert found.failed == 0
