"""The denoiser's kernels against slow dense numpy, and what they must find in counts of a known truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from smeld.kernels import denoise, graph
from smeld.kernels import denoise_choice as choice

Float = NDArray[np.float64]


class Case(NamedTuple):
    """Counts of two smooth programmes on a lattice, and the rates they were drawn from."""

    counts: sparse.csr_matrix
    weights: sparse.csr_matrix
    size: Float
    rate: Float
    xy: Float


def case(side: int = 20, n_genes: int = 60, depth: float = 150.0, phi: float = 0.0, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() for a in np.mgrid[:side, :side])
    field = np.column_stack([np.sin(3 * x / side), np.cos(4 * y / side)])
    share = rng.dirichlet(np.full(n_genes, 2.0))
    profile = share * np.clip(1 + field @ rng.normal(0, 0.5, (2, n_genes)), 0.05, None)
    library = rng.gamma(4.0, depth / 4, len(x))
    rate = library[:, None] * profile / profile.sum(axis=1, keepdims=True)
    drawn = rate if phi == 0 else rng.gamma(1 / phi, rate * phi)
    counts = sparse.csr_matrix(rng.poisson(drawn).astype(np.float32))
    xy = 100.0 * np.column_stack([x, y])
    weights = graph.spatial_graph(xy).connectivities
    weights = sparse.csr_matrix(weights * (weights.shape[0] / weights.sum()))
    return Case(counts, weights, np.asarray(counts.sum(axis=1), dtype=float).ravel(), rate, xy)


def settings(d: int = 5, size: float = 150.0) -> denoise.Settings:
    return denoise.Settings(tuple([2.0 * size] * d), tuple([0.2 / size] * d), ridge=2.0, own=1.0)


def run(c: Case, how: denoise.Settings) -> NDArray[np.float32]:
    gene = denoise.gene_moments(c.counts, c.size)
    on = denoise.axes(c.counts, c.size, c.weights, gene, n_components=len(how.smoothing))
    q = denoise.posterior(c.weights, c.size, denoise.differences(c.counts, c.size, gene, on), how)
    made = denoise.prior(c.counts, c.size, gene, q, ridge=how.ridge)
    own = how.own * denoise.own_dispersion(c.counts, c.size, made)
    return denoise.expected(c.counts, c.size, made, own, trust=how.trust)


# ------------------------------------------------------------------------------------------------ against dense numpy


def test_moments_of_genes() -> None:
    c = case()
    x = c.counts.toarray().astype(float)
    gene = denoise.gene_moments(c.counts, c.size)
    share = (x.sum(axis=0) + 0.5) / (x.sum() + 0.5 * x.shape[1])
    expected = np.outer(c.size, share)
    dispersion = ((x - expected) ** 2 - x).sum(axis=0) / (expected**2).sum(axis=0)
    assert gene.share == pytest.approx(share, rel=1e-12)
    assert gene.total == pytest.approx(x.sum(axis=0))
    assert gene.dispersion == pytest.approx(np.clip(dispersion, 0, 50), rel=1e-6, abs=1e-9)


def test_axes_and_scores_are_those_of_the_dense_residuals() -> None:
    c = case()
    gene = denoise.gene_moments(c.counts, c.size)
    on = denoise.axes(c.counts, c.size, c.weights, gene, n_components=3)
    x, share = c.counts.toarray()[:, on.genes].astype(float), gene.share[on.genes]
    deviation = np.sqrt(share * (1 + gene.dispersion[on.genes] * c.size.mean() * share))
    residual = x - np.outer(c.size, share)
    r = np.clip(residual / np.sqrt(c.size)[:, None] / deviation, -20, 20)
    value, vector = np.linalg.eigh(r.T @ r + r.T @ c.weights.toarray() @ r)
    for k in range(2):  # the two programmes: well apart from the rest
        ours = on.weights[:, k] * deviation
        assert abs(ours @ vector[:, -1 - k]) == pytest.approx(1.0, abs=1e-4)
    dense = residual @ on.weights
    assert denoise.scores(c.counts, c.size, gene, on) == pytest.approx(dense, abs=1e-4 * np.abs(dense).max())
    assert value[-2] > 2 * value[-3]


@pytest.mark.parametrize("tau", [0.5, 40.0, 900.0])
def test_smoothing_solves_the_weighted_system(tau: float) -> None:
    c = case(side=9)
    r = np.random.default_rng(1).normal(size=(81, 2))
    taus = np.array([tau, 3 * tau])
    found = denoise.smooth_scores(c.weights, c.size, r, taus, tolerance=1e-8)
    laplacian = np.diag(np.asarray(c.weights.sum(axis=1)).ravel()) - c.weights.toarray()
    for k, t in enumerate(taus):
        system = np.diag(c.size) + t * (denoise.KAPPA * np.eye(81) + laplacian)
        exact = np.linalg.solve(system, c.size * r[:, k])
        assert found[:, k] == pytest.approx(exact, abs=1e-5 * np.abs(exact).max())


def test_a_spot_with_few_counts_listens_to_its_neighbours() -> None:
    c = case(side=9)
    size = np.full(81, 100.0)
    size[40] = 1.0
    r = np.zeros((81, 1))
    r[40] = 1.0
    quiet = denoise.smooth_scores(c.weights, size, r, np.array([100.0]))[40, 0]
    loud = denoise.smooth_scores(c.weights, np.full(81, 100.0), r, np.array([100.0]))[40, 0]
    assert quiet < 0.05 < 0.3 < loud


def test_the_estimate_equals_its_formula_written_densely() -> None:
    c, how = case(), settings()
    gene = denoise.gene_moments(c.counts, c.size)
    on = denoise.axes(c.counts, c.size, c.weights, gene, n_components=5)
    q = denoise.posterior(c.weights, c.size, denoise.differences(c.counts, c.size, gene, on), how)
    made = denoise.prior(c.counts, c.size, gene, q, ridge=how.ridge)
    phi = denoise.own_dispersion(c.counts, c.size, made)
    # loadings: ridge of every gene on the centred, turned scores
    n, share, x = c.size, gene.share, c.counts.toarray().astype(float)
    z = q - n @ q / n.sum()
    spread, turn = np.linalg.eigh(z.T @ (n[:, None] * z))
    z = z @ turn
    b = (x.T @ z) / spread / share[:, None]
    noise = (1 + gene.dispersion * n.mean() * share)[:, None] / (spread * share[:, None])
    signal = np.maximum((b**2 * share[:, None]).sum(axis=0) / share.sum() - len(b) / (spread * share.sum()), 1e-9)
    b *= signal / (signal + how.ridge * noise)
    rate = share * (1 + z @ b.T)
    rate /= np.maximum(1 - share.sum() + rate.sum(axis=1, keepdims=True), 0.05)
    rate = 0.95 * np.maximum(rate, 0.05 * share) + 0.05 * share
    odds = n[:, None] * (how.own * phi * (0.7 * rate + 0.3 * share) + 1e-3)
    exact = (n[:, None] * rate + odds * x) / (1 + odds)
    found = denoise.expected(c.counts, c.size, made, how.own * phi, trust=1e-3)
    assert found == pytest.approx(exact, rel=2e-3, abs=1e-3)
    moments = ((x - n[:, None] * rate) ** 2 - x).sum(axis=0) / ((n[:, None] * rate) ** 2).sum(axis=0)
    assert phi[phi > 0] == pytest.approx(moments[phi > 0], rel=1e-2)


def test_some_genes_and_rows_are_those_of_the_whole() -> None:
    c = case()
    gene = denoise.gene_moments(c.counts, c.size)
    q = np.random.default_rng(0).normal(0, 0.3, (400, 3))
    made = denoise.prior(c.counts, c.size, gene, q, ridge=1.0)
    own = np.full(60, 0.2)
    whole = denoise.expected(c.counts, c.size, made, own)
    genes, rows = np.array([5, 2, 40]), np.array([7, 300, 12])
    part = denoise.expected(c.counts, c.size, made, own, genes=genes, rows=rows, place=np.array([2, 0, 1]))
    assert part == pytest.approx(whole[np.array([300, 12, 7])][:, genes], rel=1e-5)
    filled = denoise.expected(c.counts, c.size, made, own, zeros_only=True)
    x = c.counts.toarray()
    assert np.array_equal(filled[x > 0], x[x > 0])
    assert np.array_equal(filled[x == 0], whole[x == 0])


def test_errors_are_those_of_plain_numpy() -> None:
    c = case(side=12)
    trial = choice._trial(c.counts, c.weights, np.zeros(60), 4, np.random.SeedSequence(0))
    value = np.random.default_rng(0).gamma(2.0, 1.0, trial.one.shape).astype(np.float32)
    x, scale = trial.rest.toarray().astype(float), (trial.size_rest / trial.size)[:, None]
    rate = scale * np.maximum(value, 0.02 * np.outer(trial.size, trial.gene.share))
    log_ratio = np.log(np.where(x > 0, x, 1) / rate)
    deviance = 2 * (np.where(x > 0, x * log_ratio - x, 0) + scale * value).sum() / x.sum()
    target = np.median(trial.size_rest)
    seen, guess = np.log1p(x / trial.size_rest[:, None] * target), np.log1p(value / trial.size[:, None] * target)
    found = choice.errors(value, trial)
    assert found == pytest.approx((deviance, ((seen - guess) ** 2).mean()), rel=2e-3)


# ----------------------------------------------------------------------------------------------------- what it finds


def test_estimates_are_nearer_the_truth_than_counts_and_than_neighbours_means() -> None:
    c = case()
    how = choice.choose(c.counts, c.weights, n_components=10, overdispersed=False, seed=np.random.SeedSequence(0))
    found = run(c, how.settings)
    linked = c.weights.copy()
    linked.data[:] = 1
    linked = linked + sparse.identity(400)
    plain = (linked @ c.counts).toarray() / (linked @ c.size)[:, None] * c.size[:, None]

    def error(value: NDArray[np.floating]) -> float:
        return float(((np.sqrt(value) - np.sqrt(c.rate)) ** 2).mean())

    assert error(found) < 0.5 * error(plain) < 0.5 * error(c.counts.toarray())
    assert how.errors["smeld"][0] < min(how.errors[k][0] for k in ("measured", "mean of spot and neighbours"))


@pytest.mark.parametrize("depth", [80.0, 320.0])
def test_what_is_chosen_hardly_hangs_on_depth(depth: float) -> None:
    """Settings from a section of another depth serve as well as its own: the depth enters through N alone."""
    c, other = case(depth=depth, seed=1), case(depth=160.0, seed=1)
    seed = np.random.SeedSequence(0)
    mine, theirs = (
        choice.choose(x.counts, x.weights, n_components=6, overdispersed=False, seed=seed).settings for x in (c, other)
    )
    errors = [float(((np.sqrt(run(c, how)) - np.sqrt(c.rate)) ** 2).mean()) for how in (mine, theirs)]
    assert errors[1] < 1.25 * errors[0]


def test_own_dispersion_is_kept_as_signal_or_split_away() -> None:
    c = case(phi=1.0, depth=600.0)
    seed = np.random.SeedSequence(0)
    keep = choice.choose(c.counts, c.weights, n_components=6, overdispersed=False, seed=seed).settings
    drop = choice.choose(c.counts, c.weights, n_components=6, overdispersed=True, seed=seed).settings
    assert keep.own >= 0.3 and drop.own <= 0.1 and drop.trust == 0
    still, made = run(c, drop), run(c, keep)
    assert np.abs(still - c.rate).mean() < np.abs(made - c.rate).mean()  # here the smooth rate is the truth


def test_poisson_counts_have_no_own_dispersion() -> None:
    c = case(depth=600.0)
    gene = denoise.gene_moments(c.counts, c.size)
    truth = denoise.Prior(np.ones((400, 1), np.float32), gene.share[None].astype(np.float32), gene.share)
    flat = sparse.csr_matrix(np.random.default_rng(0).poisson(np.outer(c.size, gene.share)).astype(np.float32))
    assert (denoise.own_dispersion(flat, c.size, truth) == 0).mean() > 0.9
    assert (denoise.own_dispersion(case(depth=600.0, phi=1.0).counts, c.size, truth) > 0.2).mean() > 0.9


def test_one_thread_or_two_give_the_same_bits() -> None:
    c, how = case(), settings()
    with threadpool_limits(1):
        one = run(c, how)
    with threadpool_limits(2):
        two = run(c, how)
    assert np.array_equal(one, two)


def test_spots_without_counts_and_without_neighbours() -> None:
    c = case(side=12)
    x = c.counts.tolil()
    x[5] = 0
    weights = c.weights.tolil()
    weights[7], weights[:, 7] = 0, 0
    size = np.asarray(x.sum(axis=1), dtype=float).ravel()
    found = run(Case(x.tocsr(), weights.tocsr(), size, c.rate, c.xy), settings())
    assert np.isfinite(found).all() and (found >= 0).all() and not found[5].any() and found[7].any()


def test_samples_are_compact_pieces() -> None:
    y, x = (a.ravel() for a in np.mgrid[:100, :100])
    xy = np.column_stack([x, y]).astype(float)
    rows = choice.sample(xy)
    assert 500 <= len(rows) <= 2000 and len(np.unique(rows)) == len(rows)
    linked = graph.spatial_graph(xy[rows], kind="radius", radius_um=1.1).connectivities
    assert linked.nnz / len(rows) > 3.4  # of 4: few spots lie on a piece's edge
    assert np.array_equal(choice.sample(xy[:900]), np.arange(900))
