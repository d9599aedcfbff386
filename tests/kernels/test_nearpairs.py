"""Pairs of near spots: every pair once, in the group that its distance says, and their products."""

from __future__ import annotations

import numpy as np
import pytest

from smeld.kernels import nearpairs


def section(n: int = 150) -> tuple[np.ndarray, np.ndarray]:
    xy = np.random.default_rng(2).uniform(0, np.sqrt(n), (n, 2))
    return np.floor(xy + 0.25).astype(np.intp), xy


def test_every_pair_lies_in_the_group_of_its_distances() -> None:
    at, xy = section()
    found = nearpairs.near(at, xy)
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    expected = np.argwhere(np.triu(distance <= nearpairs.NEAR, 1))
    assert sorted(zip(found.i.tolist(), found.j.tolist())) == [tuple(p) for p in expected.tolist()]
    group = np.repeat(np.arange(len(found.fine)), np.diff(found.first))
    fine = np.minimum(np.rint(distance[found.i, found.j] * nearpairs.PER_SPACING), nearpairs.N_FINE - 1)
    coarse = np.rint(np.hypot(*(at[found.i] - at[found.j]).T))
    np.testing.assert_array_equal(found.fine[group], fine)
    np.testing.assert_array_equal(found.coarse[group], coarse)
    assert coarse.max() < nearpairs.N_COARSE


def test_parts_divide_groups_and_lose_no_pair() -> None:
    whole = nearpairs.near(*section())
    part = np.random.default_rng(3).integers(0, 2, 150)
    found = nearpairs.divided(whole, part)
    assert sorted(zip(found.i, found.j)) == sorted(zip(whole.i, whole.j))
    of_pair = np.repeat(found.part, np.diff(found.first))
    same = part[found.i] == part[found.j]
    np.testing.assert_array_equal(of_pair, np.where(same, part[found.i] + 1, 0))


def test_the_pairs_of_some_spots_are_those_of_a_section_of_them() -> None:
    at, xy = section()
    inside = np.random.default_rng(4).random(150) < 0.7
    found = nearpairs.among(nearpairs.near(at, xy), inside)
    alone = nearpairs.near(at[inside], xy[inside])
    assert sorted(zip(found.i, found.j)) == sorted(zip(alone.i, alone.j))
    assert int(found.first[-1]) == len(found)


@pytest.mark.parametrize("many", [False, True])
def test_products_go_from_the_raster_bin_to_their_own(many: bool) -> None:
    found = nearpairs.near(*section())
    rng = np.random.default_rng(5)
    f, g = rng.normal(size=(2, 3, 150))
    sums = np.zeros((3, 2, 20 + nearpairs.N_FINE))
    nearpairs.move(found, 20, [f, g], [(0, 1), (1, 1)], sums, many)
    expected = np.zeros_like(sums)
    into, out_of = (np.repeat(b, np.diff(found.first)) for b in found.bins(20))
    for w, (a, b) in enumerate([(f, g), (g, g)]):
        product = a[:, found.i] * b[:, found.j] + b[:, found.i] * a[:, found.j]
        for k in range(3):
            np.add.at(expected[k, w], into, product[k])
            np.add.at(expected[k, w], out_of, -product[k])
    np.testing.assert_allclose(sums, expected, rtol=1e-10, atol=1e-10)


def test_spots_with_very_many_neighbours_have_no_pairs() -> None:
    xy = np.zeros((250, 2))
    assert len(nearpairs.near(np.zeros((250, 2), dtype=np.intp), xy)) == 0
