"""Profiles of few cells, and what they make of small sharp patches of one type: against the truth of a simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from smeld.kernels import spotmodel, typeprofiles

N_TYPES, N_GENES, SIDE = 8, 240, 18


def _profiles(rng: np.random.Generator) -> np.ndarray:
    """Mean counts a cell [n_types, n_genes]: types differ by much in few genes, and by a little in all."""
    base = rng.lognormal(-1.2, 1.0, N_GENES)
    marked = rng.random((N_TYPES, N_GENES)) < 0.04
    return base * np.exp(rng.normal(0, 0.3, (N_TYPES, N_GENES)) + 1.5 * marked)


def _cells(profile: np.ndarray, n: int, rng: np.random.Generator) -> tuple[sparse.csr_matrix, np.ndarray]:
    label = np.repeat(np.arange(len(profile)), n)
    mean = profile[label] * rng.gamma(4, 0.25, (len(label), 1)) * rng.gamma(2, 0.5, (len(label), profile.shape[1]))
    return sparse.csr_matrix(rng.poisson(mean).astype(np.float32)), label


@pytest.mark.parametrize("seed", [101, 105])
def test_small_sharp_patches_stand_out_with_few_cells_in_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    profile = _profiles(rng)
    reference, label = _cells(profile, 25, rng)
    x, y = np.divmod(np.arange(SIDE * SIDE), SIDE)
    patch = ((x % 9 < 3) & (y % 9 < 3)).astype(float)  # one spot in nine is in a patch
    mean = np.where(np.arange(N_TYPES) == 0, 0.15 + 0.45 * patch[:, None], (0.85 - 0.45 * patch[:, None]) / 7)
    truth = np.array([rng.multinomial(10, m) for m in mean]) / 10
    expected = truth @ (profile * np.exp(rng.normal(0, 0.5, N_GENES)))
    counts = sparse.csr_matrix(rng.poisson(expected * 700 / expected.sum(axis=1).mean()).astype(np.float32))
    near = (np.abs(x[:, None] - x) + np.abs(y[:, None] - y) == 1).astype(float)
    model = spotmodel.prepare(
        counts, np.arange(N_GENES), reference, label, np.zeros(len(x), dtype=np.intp), seed=np.random.SeedSequence(0)
    )
    start = np.tile(model.patches.astype(np.float32), (len(x), 1))
    around = spotmodel.surroundings(sparse.csr_matrix(near))
    found = spotmodel.fit(model.sketch.counts(counts, model.genes), model, around, start, 0).posterior.mean[:, 0]
    inside = patch > 0
    assert np.corrcoef(found, truth[:, 0])[0, 1] > 0.8
    kept = (found[inside].mean() - found[~inside].mean()) / (truth[inside, 0].mean() - truth[~inside, 0].mean())
    assert kept > 0.75, kept


def test_profiles_of_few_cells_are_nearer_to_the_truth_and_no_wider_than_it() -> None:
    rng = np.random.default_rng(102)
    profile = _profiles(rng)
    reference, label = _cells(profile, 12, rng)
    raw = np.array([np.asarray(reference[label == k].mean(axis=0)).ravel() for k in range(N_TYPES)])
    found = typeprofiles.means(reference, label, N_TYPES)
    np.testing.assert_allclose(found.sum(axis=1), raw.sum(axis=1), rtol=1e-5)  # types' totals are kept

    def told(values: np.ndarray) -> np.ndarray:
        share = values / values.sum(axis=1, keepdims=True)
        return share / share.mean(axis=0) - 1

    true, plain, now = told(profile), told(raw), told(found)
    assert ((now - true) ** 2).mean() < 0.6 * ((plain - true) ** 2).mean()
    # regression of the truth on what was found: differences are as large as they look
    assert 0.85 < (now * true).sum() / (now**2).sum() < 1.15
    assert (plain * true).sum() / (plain**2).sum() < 0.75
    # a type that is measured better by a constant has a profile that is higher by it, and the others stay as they are
    scale = np.where(np.arange(N_TYPES) == 2, 3.0, 1.0)
    scaled = sparse.csr_matrix(sparse.diags(scale[label]) @ reference)
    np.testing.assert_allclose(typeprofiles.means(scaled, label, N_TYPES), found * scale[:, None], rtol=1e-9)


def test_many_cells_leave_profiles_as_they_are() -> None:
    rng = np.random.default_rng(103)
    reference, label = _cells(_profiles(rng), 1500, rng)
    raw = np.array([np.asarray(reference[label == k].mean(axis=0)).ravel() for k in range(N_TYPES)])
    found = typeprofiles.means(reference, label, N_TYPES)
    assert np.abs(np.log(found / raw)).mean() < 0.02
