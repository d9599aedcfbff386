"""Partitions that name the same groups differently become one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from smeld.kernels.consensus import (
    agreement,
    agreements,
    aligned,
    balanced,
    base_rate,
    consensus,
    permutation,
    same_domain,
)

Float = NDArray[np.float64]


def membership(n: int, k: int, seed: int, *, sharp: float = 0.2) -> Float:
    return np.random.default_rng(seed).dirichlet(np.full(k, sharp), n)


@given(st.integers(2, 7), st.integers(0, 200))
def test_aligned_undoes_a_permutation_of_columns(k: int, seed: int) -> None:
    p = membership(80, k, seed)
    order = np.random.default_rng(seed).permutation(k)
    assert np.array_equal(aligned(p, p[:, order]), p)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 200))
def test_consensus_of_one_partition_under_many_names_is_that_partition(k: int, n: int, seed: int) -> None:
    p, rng = membership(60, k, seed), np.random.default_rng(seed)
    members = [p, *(p[:, rng.permutation(k)] for _ in range(n))]
    made = consensus(members)
    assert made.prob == pytest.approx(p, abs=1e-12)
    assert made.stability == pytest.approx(1.0)
    assert len(made.order) == len(members)
    assert all(m[:, o] == pytest.approx(p, abs=1e-12) for m, o in zip(members, made.order, strict=True))


@given(st.integers(2, 6), st.integers(1, 6), st.integers(0, 200))
def test_rows_sum_to_one_and_members_are_left_alone(k: int, n: int, seed: int) -> None:
    members = [membership(50, k, seed + i) for i in range(n)]
    kept = [m.copy() for m in members]
    made = consensus(members).prob
    assert made.shape == (50, k)
    assert (made >= 0).all()
    assert made.sum(axis=1) == pytest.approx(np.ones(50))
    assert all(np.array_equal(a, b) for a, b in zip(members, kept, strict=True))


def test_spots_on_which_members_disagree_get_less_certain() -> None:
    first = np.eye(3)[np.repeat([0, 1, 2], 20)]
    second = first.copy()
    second[:5] = [0, 1, 0]
    made = consensus([first, second[:, [2, 0, 1]]]).prob
    assert made[:5].max(axis=1) == pytest.approx(0.5)
    assert made[5:].max(axis=1) == pytest.approx(1.0)


# ------------------------------------------------------------------------------------------------ agreement, medoid


def noisy(n: int, k: int, seed: int, *, wrong: float = 0.1) -> Float:
    """A hard partition of ``n`` spots into ``k`` groups, the share ``wrong`` of the spots put anywhere."""
    rng = np.random.default_rng(seed)
    label = np.where(rng.random(n) < wrong, rng.integers(0, k, n), np.arange(n) % k)
    return np.eye(k)[label]


@given(st.integers(1, 8), st.integers(1, 120), st.integers(0, 300))
def test_agreement_equals_the_adjusted_rand_index_of_sklearn(k: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, k, n)
    b = np.where(rng.random(n) < rng.random(), rng.permutation(k)[a], rng.integers(0, k, n))
    assert agreement(a, b, k) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)
    assert agreement(a, b, k) == agreement(b, a, k)


@pytest.mark.parametrize(
    ("a", "b"),
    [([0], [0]), ([0, 0], [0, 0]), ([0, 0], [0, 1]), ([0, 1, 2], [2, 1, 0]), ([0, 0, 0, 0], [0, 1, 2, 3])],
)
def test_agreement_of_partitions_without_structure_is_that_of_sklearn(a: list[int], b: list[int]) -> None:
    assert agreement(np.array(a), np.array(b), 4) == pytest.approx(adjusted_rand_score(a, b))


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 100))
def test_stability_is_the_mean_agreement_of_two_members(k: int, n: int, seed: int) -> None:
    members = [membership(70, k, seed + i) for i in range(n)]
    label = [m.argmax(axis=1) for m in members]
    pairs = [adjusted_rand_score(label[i], label[j]) for i in range(n) for j in range(i)]
    assert consensus(members).stability == pytest.approx(np.mean(pairs), abs=1e-12)
    table = agreements(members)
    assert np.array_equal(table, table.T) and (np.diag(table) == 1).all()
    assert table[np.tril_indices(n, -1)] == pytest.approx(pairs, abs=1e-12)


def test_one_member_is_its_own_consensus() -> None:
    p = membership(40, 4, 0)
    made = consensus([p])
    assert np.array_equal(made.prob[:, np.argsort(made.order[0])], p) and made.stability == 1.0


@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_peculiar_member_does_not_decide(place: int) -> None:
    """The columns follow the medoid, so the outlier's names and groups stay its own, wherever it stands."""
    k, n = 4, 200
    rng = np.random.default_rng(1)
    alike = [noisy(n, k, seed)[:, rng.permutation(k)] for seed in range(4)]
    outlier = np.eye(k)[rng.integers(0, k, n)]
    members = [*alike[:place], outlier, *alike[place:]]
    made, without = consensus(members), consensus(alike)
    truth = np.arange(n) % k
    assert adjusted_rand_score(truth, made.prob.argmax(axis=1)) > 0.95
    assert adjusted_rand_score(without.prob.argmax(axis=1), made.prob.argmax(axis=1)) > 0.95
    assert made.stability < without.stability
    assert agreements(members).sum(axis=1).argmin() == place


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 100))
def test_the_consensus_is_the_mean_of_the_members_in_their_stated_order(k: int, n: int, seed: int) -> None:
    members = [noisy(60, k, seed + i, wrong=0.3) for i in range(n)]
    made = consensus(members)
    assert all(sorted(o) == list(range(k)) for o in made.order)
    mean = np.mean([m[:, o] for m, o in zip(members, made.order, strict=True)], axis=0)
    assert made.prob == pytest.approx(mean, abs=1e-12)


@given(st.integers(1, 5), st.integers(0, 100))
def test_the_order_of_columns_overlaps_most_of_all_orders(k: int, seed: int) -> None:
    from itertools import permutations

    reference, member = membership(30, k, seed), membership(30, k, seed + 1)
    overlap = [float((reference * member[:, list(o)]).sum()) for o in permutations(range(k))]
    found = permutation(reference, member)
    assert float((reference * member[:, found]).sum()) == pytest.approx(max(overlap))


# ------------------------------------------------------------------------------------------------ pairs of spots


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 100))
def test_base_rate_equals_the_mean_over_all_pairs(n: int, k: int, seed: int) -> None:
    p = membership(n, k, seed)
    every = p @ p.T
    brute = every[~np.eye(n, dtype=bool)].mean() if n > 1 else 0.0
    assert base_rate(p) == pytest.approx(brute, abs=1e-12)
    assert -1e-12 <= base_rate(p) <= 1 + 1e-12


@given(st.integers(1, 6), st.integers(0, 100))
def test_same_domain_equals_the_sum_over_domains(k: int, seed: int) -> None:
    p, q = membership(20, k, seed), membership(20, k, seed + 1)
    made = same_domain(p, q)
    assert made == pytest.approx([sum(a * b for a, b in zip(x, y, strict=True)) for x, y in zip(p, q, strict=True)])
    assert np.array_equal(made, same_domain(q, p)) and (made >= 0).all() and (made <= 1).all()
    assert np.array_equal(same_domain(p, q, base=0.3), balanced(made, 0.3))


@given(st.floats(0.02, 0.98))
def test_balanced_pairs_are_as_by_bayes_a_matter_of_weights(base: float) -> None:
    """Pairs of each stated probability, those together weighed so that they are half of all: the share together."""
    stated = np.linspace(0.01, 0.99, 25)
    # a distribution of the stated probabilities whose mean is the base rate
    low, high = np.full(25, stated[stated <= base].mean() if base >= 0.01 else 0.01), stated
    lam = np.clip((base - low) / np.where(high > low, high - low, 1), 0, 1)
    mass = np.zeros(25)
    mass[(stated <= base)] += (1 - lam).mean() / (stated <= base).sum()
    mass += lam / 25
    together, apart = mass * stated, mass * (1 - stated)
    rate = together.sum() / (together.sum() + apart.sum())
    w, v = 0.5 / rate, 0.5 / (1 - rate)
    expected = w * together / (w * together + v * apart)
    assert balanced(stated, float(rate)) == pytest.approx(expected)


@given(st.floats(0.01, 0.99))
def test_balancing_keeps_order_and_certainty_and_moves_the_base_rate_to_one_half(base: float) -> None:
    p = np.linspace(0, 1, 101)
    made = balanced(p, base)
    assert (np.diff(made) > 0).all() and made[0] == 0 and made[-1] == 1
    assert balanced(np.array([base]), base) == pytest.approx(0.5)
    assert balanced(p, 0.5) == pytest.approx(p)


@pytest.mark.parametrize("base", [0.0, 1.0])
def test_no_base_rate_ends_in_a_division_by_nothing(base: float) -> None:
    with np.errstate(all="raise"):
        made = balanced(np.array([0.0, 0.4, 1.0]), base)
    assert np.isfinite(made).all() and (made >= 0).all() and (made <= 1).all()


def test_calibrated_memberships_give_calibrated_pairs_of_either_kind() -> None:
    """Domains drawn from the memberships: stated and true shares agree, for pairs as they come and for balanced."""
    rng = np.random.default_rng(0)
    n, k, n_pairs = 3000, 6, 400_000
    p = rng.dirichlet(np.full(k, 0.3), n)
    truth = (rng.random(n)[:, None] > p.cumsum(axis=1)).sum(axis=1).clip(0, k - 1)
    i, j = rng.integers(0, n, (2, n_pairs))
    i, j = i[i != j], j[i != j]
    together = truth[i] == truth[j]
    base = base_rate(p)
    assert together.mean() == pytest.approx(base, abs=0.01)
    half = int(together.sum())
    chosen = np.concatenate([np.flatnonzero(together), rng.choice(np.flatnonzero(~together), half, replace=False)])
    plain = same_domain(p[i], p[j])
    assert largest_gap(plain, together) < 0.03
    assert largest_gap(same_domain(p[i[chosen]], p[j[chosen]], base=base), together[chosen]) < 0.03
    assert largest_gap(plain[chosen], together[chosen]) > 0.1  # without the change of base rate they would not be


def largest_gap(stated: Float, true: NDArray[np.bool_]) -> float:
    """Largest difference of the stated from the true share over ten bins of the stated one."""
    bins = np.minimum((stated * 10).astype(int), 9)
    return max(abs(stated[bins == b].mean() - true[bins == b].mean()) for b in range(10) if (bins == b).sum() > 500)
