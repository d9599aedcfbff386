"""Fields on links: against sums over all links and pairs of links, and against labels that are independent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.ndimage import gaussian_filter

from smeld.kernels import crosscov, edgefields, linksums
from smeld.kernels.graph import row_normalise, spatial_graph

Float = NDArray[np.float64]


def positions(side: int, seed: int = 0) -> Float:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    return 50.0 * (np.c_[x.ravel(), y.ravel()] + rng.uniform(-0.3, 0.3, (side**2, 2)))


def averages(xy: Float, *, loops: bool = False, one_way: bool = False) -> sparse.csr_matrix:
    edges = spatial_graph(xy, kind="knn", n_neighbors=4).connectivities
    if one_way:  # some links have no way back
        edges = sparse.csr_matrix(sparse.triu(edges) + sparse.tril(edges) @ sparse.diags(np.arange(len(xy)) % 2.0))
        edges.eliminate_zeros()
    made = row_normalise(sparse.csr_matrix(edges + sparse.identity(len(xy)) if loops else edges))
    made.sort_indices()
    return made


def smooth(side: int, width: float, rng: np.random.Generator) -> Float:
    pad = int(4 * width) + 1
    z = gaussian_filter(rng.normal(size=(side + 2 * pad,) * 2), width) * 2 * np.sqrt(np.pi) * width
    return z[pad:-pad, pad:-pad].ravel()


def patches(side: int, width: float, n: int, rng: np.random.Generator) -> Float:
    return np.eye(n)[np.argmax([smooth(side, width, rng) for _ in range(n)], axis=0)]


def shared(k: tuple[int, int], l: tuple[int, int]) -> str:  # noqa: E741
    """What two links have in common, by name."""
    if k == l:
        return "self"
    if k == l[::-1]:
        return "back"
    if not set(k) & set(l):
        return ""
    if k[0] == k[1] or l[0] == l[1]:
        loop, link = (k, l) if k[0] == k[1] else (l, k)
        return "loop of the sender" if link[0] == loop[0] else "loop of the receiver"
    return "sender" if k[0] == l[0] else "receiver" if k[1] == l[1] else "chain"


def double_sum(weights: sparse.csr_matrix, xy: Float, e: Float, t: Float) -> float:
    """The variance by visiting every pair of links; ``e`` and ``t`` by (sender, receiver)."""
    cells = crosscov.lags(xy)
    pixel = [divmod(int(p), cells.shape[1]) for p in cells.pixel]
    edges = [(int(i), int(j)) for j, i in zip(*weights.nonzero())]
    w = {(i, j): weights[j, i] for i, j in edges}
    centred = []
    for f in (e, t):
        mean = {
            loop: np.average([f[k] for k in edges if (k[0] == k[1]) == loop], weights=[w[k] for k in of])
            for loop in (False, True)
            if (of := [k for k in edges if (k[0] == k[1]) == loop])
        }
        centred.append({k: w[k] * (f[k] - mean[k[0] == k[1]]) for k in edges})
    middle = {k: [(a + b) // 2 for a, b in zip(pixel[k[0]], pixel[k[1]])] for k in edges}
    sums: dict[tuple[str, int], list[float]] = {}
    for k in edges:
        for l in edges:  # noqa: E741
            what, number = shared(k, l), 0
            if what not in ("self", "back"):
                steps = [0.0 if i == j else 1.0 for i, j in (k, l)]
                units = [
                    (xy[j] - xy[i]) / np.hypot(*(xy[j] - xy[i])) if s else np.zeros(2)
                    for s, (i, j) in zip(steps, (k, l))
                ]
                number = min(int((units[0] @ units[1] + 1) / 2 * 4), 3)
            if not what:
                number = round(float(np.hypot(*np.subtract(middle[k], middle[l]))))
            held = sums.setdefault((what, number), [0.0, 0.0, 0.0])
            for at, value in enumerate((w[k] * w[l], centred[0][k] * centred[0][l], centred[1][k] * centred[1][l])):
                held[at] += value
    return float(sum(a * b / n for n, a, b in sums.values()))


@pytest.mark.parametrize("form", ["both ways", "loops", "one way"])
def test_the_variance_is_that_of_all_pairs_of_links(form: str) -> None:
    rng = np.random.default_rng(0)
    xy = positions(6)
    weights = averages(xy, loops=form == "loops", one_way=form == "one way")
    s, r, a, b = rng.gamma(1.0, size=(4, len(xy)))
    where = edgefields.links(weights, xy)
    first = edgefields.moments(where, lambda _: (s[:, None], r[:, None]), 1)
    second = edgefields.moments(where, lambda _: (a[:, None], b[:, None]), 1)
    expected = double_sum(weights, xy, np.outer(s, r), np.outer(a, b))
    assert float(first.rows[0] @ second.rows[0]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loops", [False, True])
def test_observed_and_expected_are_those_of_the_formula(loops: bool) -> None:
    rng = np.random.default_rng(1)
    xy = positions(8)
    weights = averages(xy, loops=loops)
    genes = sparse.csc_matrix(rng.poisson(0.7, (64, 3)).astype(float))
    types = rng.dirichlet(np.ones(3), 64)
    pairs = np.array([[0, 1], [2, 1]])
    found = edgefields.by_types(genes, pairs, weights, xy, types)
    assert found.observed.shape == (2, 9)
    x, dense = genes.toarray(), weights.toarray()
    for p, (ligand, receptor) in enumerate(pairs):
        for c, (s, r) in enumerate(zip(found.senders, found.receivers)):
            observed, sums = 0.0, np.zeros((2, 3))
            for j in range(64):
                for i in range(64):
                    w, e, t = dense[j, i], x[i, ligand] * x[j, receptor], types[i, s] * types[j, r]
                    observed += w * e * t
                    sums[int(i == j)] += w, w * e, w * t
            expected = sum(e * t / w for w, e, t in sums if w > 0)
            assert found.observed[p, c] == pytest.approx(observed)
            assert found.expected[p, c] == pytest.approx(expected)


def test_p_is_that_of_the_gamma_distribution() -> None:
    rng = np.random.default_rng(2)
    xy = positions(12)
    genes = sparse.csc_matrix(rng.poisson(0.5, (144, 2)).astype(float))
    found = edgefields.by_types(genes, np.array([[0, 1]]), averages(xy), xy, patches(12, 2.0, 3, rng))
    seen = found.zscore != 0
    variance = ((found.observed - found.expected)[seen] / found.zscore[seen]) ** 2
    mean = found.expected[seen]
    p = stats.gamma.sf(found.observed[seen], mean**2 / variance, scale=variance / mean)
    assert found.pvalue[seen] == pytest.approx(p, rel=1e-9)


def test_p_is_that_of_a_skewed_gamma_distribution_where_few_links_have_most() -> None:
    mean, sd, skew = 2.0, 1.5, 6.0
    observed = np.array([0.0, 0.5, 2.0, 5.0, 10.0, 20.0])
    found = edgefields._upper(observed, np.full(6, mean), np.full(6, sd), np.full(6, skew))
    plain = stats.gamma.sf(observed, (mean / sd) ** 2, scale=sd**2 / mean)
    skewed = stats.pearson3.sf(observed, skew * sd / mean, loc=mean, scale=sd)
    assert found == pytest.approx(np.maximum(plain, skewed), rel=1e-9)
    assert found[0] == 1
    even = edgefields._upper(observed, np.full(6, mean), np.full(6, sd), np.full(6, 1.2))
    assert even == pytest.approx(plain, rel=1e-9)


def test_the_variance_is_never_below_that_of_unrelated_links() -> None:
    xy = positions(6)
    where = edgefields.links(averages(xy), xy)
    total, rows = np.array([[2.0, 0.0]]), np.zeros((1, len(where.n_pairs)))
    rows[0, :2] = 3.0, 2.0
    first = edgefields.Moments(total, rows, np.ones(1))
    second = edgefields.Moments(total, rows * np.r_[1.0, -1.0, np.zeros(rows.shape[1] - 2)], np.ones(1))
    found = edgefields.test(np.ones((1, 1)), first, second, where)
    assert found.zscore[0, 0] == pytest.approx((1.0 - found.expected[0, 0]) / 3.0)  # not the root of 9 - 4


def test_unevenness_is_that_of_the_weighted_values() -> None:
    rng = np.random.default_rng(6)
    xy = positions(8)
    weights = averages(xy, loops=True)
    s, r = np.exp(rng.normal(0, 1.5, (2, 64)))
    found = edgefields.moments(edgefields.links(weights, xy), lambda _: (s[:, None], r[:, None]), 1).uneven[0]
    w, e = weights.toarray(), np.outer(r, s)
    assert found == pytest.approx((w * e**3).sum() * (w * e).sum() / (w * e**2).sum() ** 2)
    assert found > 2


def test_pairs_that_few_cells_have_most_of_hold_far_out() -> None:
    """Values of heavy tails: with the plain gamma distribution several times too many pass at one in a thousand."""
    side, n, pvalue = 40, 16, []
    xy = positions(side)
    weights = averages(xy)
    for seed in range(25):
        rng = np.random.default_rng([9, seed])
        genes = np.log1p(0.05 * np.exp(1.7 * rng.normal(size=(side**2, 2 * n))))
        types = np.eye(6)[rng.choice(6, side**2, p=[0.4, 0.3, 0.15, 0.1, 0.03, 0.02])]
        pairs = np.arange(2 * n).reshape(n, 2)
        pvalue.append(edgefields.by_types(sparse.csc_matrix(genes), pairs, weights, xy, types).pvalue.ravel())
    p = np.concatenate(pvalue)
    assert (p < 0.05).mean() < 0.06
    assert (p < 0.001).mean() < 0.0015


def test_every_pair_of_links_is_in_one_bin() -> None:
    xy = positions(10)
    for loops in (False, True):
        weights = averages(xy, loops=loops)
        where = edgefields.links(weights, xy)
        assert where.n_pairs.sum() == pytest.approx(weights.sum() ** 2)
        assert (where.n_pairs >= 0).all()


@pytest.mark.parametrize("level", [-0.5, -2.0])
@pytest.mark.parametrize("width", [2.0, 4.0])
def test_labels_in_patches_that_know_nothing_of_the_pair_pass_as_often_as_they_should(
    level: float, width: float
) -> None:
    side, n, pvalue = 32, 12, []
    xy = positions(side)
    weights = averages(xy)
    for seed in range(15):
        rng = np.random.default_rng([seed, int(width)])
        rates = np.stack([np.exp(level + smooth(side, 2.0, rng)) for _ in range(2 * n)], axis=1)
        genes = sparse.csc_matrix(np.log1p(rng.poisson(rates)))
        pairs = np.arange(2 * n).reshape(n, 2)
        pvalue.append(edgefields.by_types(genes, pairs, weights, xy, patches(side, width, 4, rng)).pvalue.ravel())
    p = np.concatenate(pvalue)
    assert len(p) > 2500
    assert 0.03 < (p < 0.05).mean() < 0.075  # 180 pairs on 15 maps of labels: two standard errors and more about .05
    assert (p < 0.01).mean() < 0.018


def test_a_type_that_sends_to_its_neighbour_and_nothing_the_other_way() -> None:
    side = 24
    rng = np.random.default_rng(0)
    xy = positions(side)
    types = patches(side, 2.0, 4, rng)
    counts = rng.poisson(1.0, (side**2, 2)) * types[:, :2].astype(int)  # A has only L, B only R
    found = edgefields.by_types(sparse.csc_matrix(np.log1p(counts)), np.array([[0, 1]]), averages(xy), xy, types)
    there = (found.senders == 0) & (found.receivers == 1)
    assert found.pvalue[0, there] < 1e-4
    assert (found.observed[0, ~there] == 0).all()
    assert (found.pvalue[0, ~there] == 1).all()


def test_a_ligand_raised_beside_the_receiver_is_found() -> None:
    side, p = 32, []
    xy = positions(side)
    weights = averages(xy)
    for seed in range(12):
        rng = np.random.default_rng(seed)
        types = patches(side, 4.0, 4, rng)
        beside = (weights @ types[:, 1] > 0) * types[:, 0]
        counts = rng.poisson(
            np.exp(-1.0 + np.stack([1.5 * beside + smooth(side, 2.0, rng), smooth(side, 2.0, rng)], axis=1))
        )
        found = edgefields.by_types(sparse.csc_matrix(np.log1p(counts)), np.array([[0, 1]]), weights, xy, types)
        p += found.pvalue[0, (found.senders == 0) & (found.receivers == 1)].tolist()
    assert np.mean(np.array(p) < 0.05) > 0.5


@pytest.mark.parametrize("setting", [(edgefields, "BATCH", 3), (linksums, "MANY", 0)])
def test_blocks_and_parts_change_nothing(setting: tuple[Any, str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    xy = positions(12)
    genes = sparse.csc_matrix(rng.poisson(0.7, (144, 8)).astype(float))
    given = (genes, rng.integers(0, 8, (20, 2)), averages(xy), xy, patches(12, 2.0, 4, rng))
    whole = edgefields.by_types(*given)
    monkeypatch.setattr(*setting)
    parts = edgefields.by_types(*given)
    for name in ("observed", "expected", "zscore", "pvalue"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.3, 7.0])
def test_genes_and_labels_that_do_not_vary(value: float) -> None:
    xy = positions(10)
    rng = np.random.default_rng(0)
    genes = sparse.csc_matrix(np.c_[np.full((100, 2), value), rng.poisson(1.0, 100)])
    weights = averages(xy)
    found = edgefields.by_types(genes, np.array([[0, 1], [0, 2]]), weights, xy, patches(10, 2.0, 3, rng))
    assert (found.pvalue[0] == 1).all()
    assert (found.zscore[0] == 0).all()
    assert not len(edgefields.by_types(genes, np.array([[0, 2]]), weights, xy, np.full((100, 1), 0.7)).senders)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_cells_and_no_links_at_all(n: int) -> None:
    xy = 100.0 * np.arange(2 * n, dtype=float).reshape(n, 2)
    genes = sparse.csc_matrix(np.ones((n, 2)))
    types = np.eye(n, 2)
    for weights in (sparse.csr_matrix((n, n)), sparse.csr_matrix(np.full((n, n), 1 / n))):
        found = edgefields.by_types(genes, np.array([[0, 1]]), weights, xy, types)
        assert np.isfinite(found.pvalue).all()


def test_turning_and_scaling_the_section_changes_little() -> None:
    rng = np.random.default_rng(4)
    xy = positions(24)
    genes = sparse.csc_matrix(
        rng.poisson(np.exp(np.stack([smooth(24, 2.0, rng) for _ in range(2)], axis=1))).astype(float)
    )
    types = patches(24, 2.0, 3, rng)
    weights = averages(xy)
    plain = edgefields.by_types(genes, np.array([[0, 1]]), weights, xy, types)
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    turned = edgefields.by_types(genes, np.array([[0, 1]]), weights, 3.0 * xy @ turn + 1e4, types)
    assert turned.observed == pytest.approx(plain.observed)
    assert turned.zscore == pytest.approx(plain.zscore, abs=0.1, rel=0.1)


def test_by_label_is_the_product_of_matrices() -> None:
    """Cells of one type or of none, link by link; and the same by matrices, as cells of several types have it."""
    rng = np.random.default_rng(5)
    xy = positions(12)
    weights = averages(xy, loops=True)
    label = rng.integers(-1, 3, 144)
    types = (label[:, None] == np.arange(3)).astype(float)
    sent, received = rng.poisson(1.0, (2, 144, 4)).astype(float)
    where = linksums.links(weights, xy)
    found = edgefields._observed(where, weights, sent, received, types, label)
    expected = [edgefields.products(weights, *lr, types).ravel() for lr in zip(sent.T, received.T)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
