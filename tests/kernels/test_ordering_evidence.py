"""Evidence for orders: smoothing and fits against dense algebra, shares of hidden variance against loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.stats import kendalltau

from smeld.kernels import ordering, ordering_evidence
from smeld.kernels.ordering import Candidate
from smeld.kernels.ordering_evidence import Points

Float = np.ndarray
N_BLOCKS = 16


def weights_of(xy: Float, k: int = 6) -> sparse.csr_matrix:
    return ordering.expression_walk(xy, k)


def points(n: int = 400, *, folded: bool = False, noise: float = 0.5, shuffled: bool = False, seed: int = 0) -> Points:
    """A band of tissue along which expression turns, straight or folded once so that early lies beside late."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0, 1, n)
    across = rng.uniform(0, 1, n)
    xy = np.c_[10 * t, across]
    if folded:
        xy = np.c_[np.where(t < 0.5, 10 * t, 10 * (1 - t)), np.where(t < 0.5, across, 2.05 - across)]
    values = np.c_[np.sin(3 * t), np.cos(3 * t), np.sin(6 * t)] + rng.normal(0, noise, (n, 3))
    values = values[rng.permutation(n)] if shuffled else values
    block = np.floor(xy[:, 0] / xy[:, 0].max() * (N_BLOCKS - 1e-9)).astype(int)
    weights = weights_of(xy)
    return Points(values, np.empty((n, 0)), weights, 3.0, weights, t < 0.08, np.ones(n), block, np.zeros_like(values))


CANDIDATES = [Candidate(k, share) for k in (20, 50) for share in (0.05, 1.0)]


# ------------------------------------------------------------------------------------------------------ smoothing


@pytest.mark.parametrize("alpha", [0.5, 9.0])
def test_smoothed_against_a_dense_solve(alpha: float) -> None:
    rng = np.random.default_rng(0)
    weights, values = weights_of(rng.normal(size=(60, 2))), rng.normal(size=(60, 4))
    say = rng.choice([ordering_evidence.HIDDEN, 1.0, 5.0], 60)
    dense = weights.toarray()
    laplacian = np.diag(dense.sum(axis=1)) - dense
    mean = values.mean(axis=0)
    expected = mean + np.linalg.solve(np.diag(say) + alpha * laplacian, say[:, None] * (values - mean))
    assert ordering_evidence.smoothed(weights, values, alpha, say) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_smoothed_keeps_constants_and_hidden_values_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    weights, values = weights_of(rng.normal(size=(80, 2))), rng.normal(size=(80, 3))
    say = np.where(np.arange(80) % 2, 1.0, ordering_evidence.HIDDEN)
    assert ordering_evidence.smoothed(weights, np.full((80, 2), 7.0), 3.0, say) == pytest.approx(np.full((80, 2), 7.0))
    other = values.copy()
    hidden = np.flatnonzero(say < 1)
    other[hidden] = other[rng.permutation(hidden)]  # of the same mean
    moved = ordering_evidence.smoothed(weights, other, 3.0, say) - ordering_evidence.smoothed(weights, values, 3.0, say)
    assert np.abs(moved).max() < 1e-4


def test_a_part_of_which_nothing_is_known_gets_the_mean() -> None:
    rng = np.random.default_rng(0)
    weights = sparse.block_diag([weights_of(rng.normal(size=(40, 2))) for _ in range(2)], format="csr")
    values = rng.normal(size=(80, 3))
    values[40:] -= values[40:].mean(axis=0) - values[:40].mean(axis=0)  # of the part's own mean nothing is known
    say = np.where(np.arange(80) < 40, 1.0, ordering_evidence.HIDDEN)
    found = ordering_evidence.smoothed(weights, values, 3.0, say)
    assert found[40:] == pytest.approx(np.tile(values.mean(axis=0), (40, 1)), abs=1e-3)


# ------------------------------------------------------------------------------------------------ fits along orders


def test_splines_share_out_one_and_hold_cubics() -> None:
    order = np.linspace(0, 1, 500)
    design = ordering_evidence.splines(order)
    assert design.shape == (500, ordering_evidence.N_SPLINES) and design.min() >= 0
    assert design.sum(axis=1) == pytest.approx(np.ones(500))
    assert ((design > 0).sum(axis=1) <= 4).all(), "each is local"
    cubic = 4 * order**3 - 3 * order**2 + order - 7
    fit = design @ np.linalg.lstsq(design, cubic, rcond=None)[0]
    assert fit == pytest.approx(cubic, abs=1e-6)
    assert (ordering_evidence.splines(np.array([-1.0, 2.0])) == ordering_evidence.splines(np.array([0.0, 1.0]))).all()


def test_splines_against_the_recursion() -> None:
    order = np.random.default_rng(0).uniform(0, 0.999, 40)
    n = 7
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, n - 2), np.ones(3)])
    found = ordering_evidence.splines(order, n)
    for k in range(n):
        one = BSpline.basis_element(knots[k : k + 5], extrapolate=False)
        expected = np.nan_to_num(one(order))
        assert found[:, k] == pytest.approx(expected, abs=1e-12)


def test_unexplained_is_what_least_squares_leave() -> None:
    rng = np.random.default_rng(0)
    order, values, size = rng.uniform(size=150), rng.normal(size=(150, 4)), rng.integers(1, 6, 150).astype(float)
    design = ordering_evidence.splines(order)
    root = np.sqrt(size)[:, None]
    fit = design @ np.linalg.lstsq(root * design, root * values, rcond=None)[0]
    expected = size * ((values - fit) ** 2).sum(axis=1)
    found = ordering_evidence.unexplained(order, values, size)
    assert found == pytest.approx(expected, rel=1e-4)
    repeated = np.repeat(np.arange(150), size.astype(int))
    cells = ordering_evidence.unexplained(order[repeated], values[repeated], np.ones(len(repeated)))
    assert np.bincount(repeated, cells) == pytest.approx(found, rel=1e-6), "a point of five is as good as five points"


def test_unexplained_of_a_smooth_course_is_nearly_nothing() -> None:
    order = np.random.default_rng(0).uniform(size=300)
    values = np.c_[np.sin(3 * order), order**2]
    assert ordering_evidence.unexplained(order, values, np.ones(300)).sum() < 1e-3 * values.var(axis=0).sum() * 300
    backwards = ordering_evidence.unexplained(1 - order, values, np.ones(300))
    assert backwards.sum() == pytest.approx(ordering_evidence.unexplained(order, values, np.ones(300)).sum(), rel=1e-6)


# ------------------------------------------------------------------------------------------------------- evidence


def test_evidence_against_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """With orders that are given, every figure by hand."""
    made = points(240)
    rng = np.random.default_rng(3)
    made = replace(made, size=rng.integers(1, 4, 240).astype(float))
    fixed = np.stack([np.linspace(0, 1, 240), rng.uniform(size=240), rng.uniform(size=240), made.values[:, 0]])
    fixed[3] = ordering.ranks(fixed[3], made.size)
    monkeypatch.setattr(ordering, "orders", lambda *_: fixed)
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(7))
    half = np.random.default_rng(7).permutation(240) % 2 == 0
    lost, total = np.zeros((4, 240)), 0.0
    for hidden in (half, ~half):
        for c in range(4):
            lost[c, hidden] = ordering_evidence.unexplained(fixed[c, hidden], made.values[hidden], made.size[hidden])
        mean = np.average(made.values[hidden], axis=0, weights=made.size[hidden])
        total += sum(s * ((v - mean) ** 2).sum() for s, v in zip(made.size[hidden], made.values[hidden]))
    predicted = 1 - lost.sum(axis=1) / total
    assert found.predicted == pytest.approx(predicted)
    space = [1, 3][int(predicted[[1, 3]].argmax())]  # those by space alone
    assert found.space == space
    assert found.gain[0] == pytest.approx(max(predicted[0], predicted[2]) - predicted[space])
    assert found.error[space] == 0
    for c in range(4):
        sums = np.array([(lost[c] - lost[space])[made.block == b].sum() for b in range(N_BLOCKS)])
        assert found.error[c] == pytest.approx(np.sqrt(N_BLOCKS) * sums.std() / total, rel=0.05)
    expected = np.exp(-(predicted.max() - predicted) / (ordering_evidence.DOUBT * predicted.max()))
    assert found.doubt == pytest.approx(expected / expected.sum())


def test_expression_has_a_say_where_the_tissue_is_folded() -> None:
    made = points(folded=True, noise=0.3)
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(0))
    assert found.gain[0] > ordering_evidence.CLEAR * found.gain[1] > 0
    assert CANDIDATES[int(found.weight.argmax())].space < 0.5
    assert found.weight.sum() == pytest.approx(1) and not found.weight[[1, 3]].any()
    assert found.doubt.sum() == pytest.approx(1) and (found.doubt > 0).all()


def test_of_shares_the_largest_that_predicts_as_well_as_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders of known merit: every way to look at expression gives its weight to one share of space."""
    made, t = points(noise=0.2), np.random.default_rng(0).uniform(0, 1, 400)
    rng, noise = np.random.default_rng(1), {}
    for way, blurs in {
        (20, 1.0): (0.02, 0.03, 0.3),
        (50, 1.0): (0.02, 0.03, 0.03),
        (50, 0.3): (0.3, 0.1, 0.02),
    }.items():
        noise.update({Candidate(way[0], share, way[1]): b for share, b in zip((0.05, 0.5, 0.9), blurs)})
    noise[Candidate(20, 1.0)] = 1.0
    fixed = np.stack([ordering.ranks(t + b * rng.normal(size=400), made.size) for b in noise.values()])
    monkeypatch.setattr(ordering, "orders", lambda *_: fixed)
    found = ordering_evidence.weigh(made, list(noise), np.random.default_rng(0))
    best, expected = found.predicted.max(), np.zeros(len(noise))
    for way in range(3):
        mine = found.predicted[3 * way : 3 * way + 3]
        largest = max(k for k in range(3) if mine[k] >= mine.max() - ordering_evidence.SLACK * best)
        expected[3 * way + largest] = np.exp(-(best - mine.max()) / (ordering_evidence.FALL * best))
    assert found.space == 9 and (expected > 0).nonzero()[0].tolist() == [1, 5, 8]
    assert found.weight == pytest.approx(expected / expected.sum())


def test_what_takes_the_place_of_space_alone_is_not_chosen_for_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where parts are joined by expression only, the last share is below 1, and counts as space alone still."""
    made, t = points(noise=0.2), np.random.default_rng(0).uniform(0, 1, 400)
    noise = np.random.default_rng(1).normal(size=400)
    fixed = np.stack([ordering.ranks(t + b * noise, made.size) for b in (0.02, 0.06)])
    monkeypatch.setattr(ordering, "orders", lambda *_: fixed)
    weight = []
    for most in (1.0, 0.98):
        found = ordering_evidence.weigh(made, [Candidate(20, 0.05), Candidate(20, most)], np.random.default_rng(0))
        assert found.gain[0] > ordering_evidence.CLEAR * found.gain[1] > 0
        weight.append(found.weight.tolist())
    assert weight[0] == weight[1] == [1.0, 0.0]


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_expression_that_has_no_place_has_no_say(seed: int) -> None:
    made = points(folded=True, noise=0.3, shuffled=True, seed=seed)
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(seed))
    assert found.gain[0] <= ordering_evidence.CLEAR * found.gain[1]
    assert found.predicted.max() < 0.15
    assert not found.weight[[0, 2]].any() and found.weight.sum() == pytest.approx(1)
    assert found.doubt[[0, 2]].any() and found.doubt.sum() == pytest.approx(1), "a bootstrap knows of the others"


def test_hidden_points_take_no_part_in_their_own_order() -> None:
    """Noise that only the point itself has must not predict it: expected share is that of the smooth part at most."""
    made = points(noise=2.0)
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(0))
    smooth = 1.5 / (1.5 + 12.0)  # variance of three sines against noise of variance 4 each
    assert found.predicted.max() < smooth + 0.12


def test_evidence_does_not_depend_on_the_unit_of_values() -> None:
    made = points()
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(0))
    again = ordering_evidence.weigh(replace(made, values=50 * made.values), CANDIDATES, np.random.default_rng(0))
    assert again.predicted == pytest.approx(found.predicted, abs=1e-3)
    assert again.weight == pytest.approx(found.weight, abs=0.02)


@pytest.mark.parametrize("n_blocks", [1, 2, ordering_evidence.FEWEST_BLOCKS - 1])
def test_of_a_section_in_few_blocks_nothing_is_clear(n_blocks: int) -> None:
    made = points(folded=True, noise=0.3)
    made = replace(made, block=made.block * n_blocks // N_BLOCKS)
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(0))
    others = np.arange(len(CANDIDATES)) != found.space
    assert np.isinf(found.error[others]).all() and found.error[found.space] == 0
    assert found.gain[0] > 0 and not found.gain[0] > ordering_evidence.CLEAR * found.gain[1]
    assert not found.weight[[0, 2]].any() and found.doubt[[0, 2]].any()


def test_with_enough_blocks_there_is_an_error_to_tell() -> None:
    made = points(folded=True, noise=0.3)
    made = replace(made, block=made.block * ordering_evidence.FEWEST_BLOCKS // N_BLOCKS)
    found = ordering_evidence.weigh(made, CANDIDATES, np.random.default_rng(0))
    assert np.isfinite(found.error).all() and found.gain[0] > ordering_evidence.CLEAR * found.gain[1] > 0


def test_orders_by_smoothing_have_the_features_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    made, given = points(120), {}
    monkeypatch.setattr(ordering, "orders", lambda features, *_: given.update(features))
    made.orders(made.size, [Candidate(10, 0.3, 1 / 3), Candidate(20, 0.3), Candidate(10, 1.0)])
    assert set(given) == {1 / 3, 1.0}
    for smoothing, features in given.items():
        assert (features == made.features(made.size, smoothing)).all()


# ------------------------------------------------------------------------------------------- features, the bootstrap


def test_features_are_smoothed_values_their_shift_and_what_lies_beside() -> None:
    rng = np.random.default_rng(0)
    made = replace(points(120), beside=rng.normal(size=(120, 2)), shift=rng.normal(size=(120, 3)))
    found = made.features(made.size)
    expected = ordering_evidence.smoothed(made.weights, made.values, made.alpha, made.size) + made.shift
    assert found[:, :3] == pytest.approx(expected) and (found[:, 3:] == made.beside).all()
    third = made.features(made.size, 1 / 3)
    expected = ordering_evidence.smoothed(made.weights, made.values, made.alpha / 3, made.size) + made.shift
    assert third[:, :3] == pytest.approx(expected)


def test_draws_count_how_often_a_block_came() -> None:
    made = replace(points(), size=np.random.default_rng(1).integers(1, 4, 400).astype(float))
    total = np.zeros(400)
    for seed in range(300):
        say = ordering_evidence.drawn(made, np.random.default_rng(seed))
        times = np.array([(say / made.size)[made.block == b][0] for b in range(N_BLOCKS)])
        assert np.ptp((say / made.size) - times[made.block]) == 0, "one number for the whole block"
        whole = np.where(times == ordering_evidence.HIDDEN, 0, times)
        assert (whole == whole.astype(int)).all() and whole.sum() == N_BLOCKS
        total += say
    assert total / 300 == pytest.approx(made.size, rel=0.25), "every cell counts once, on average"


def test_order_of_a_draw_is_close_to_the_order() -> None:
    made = points()
    whole = made.orders(made.size, CANDIDATES[:1])[0]
    drawn = made.orders(ordering_evidence.drawn(made, np.random.default_rng(0)), CANDIDATES[:1])[0]
    assert 0.6 < kendalltau(whole, drawn)[0] < 1
