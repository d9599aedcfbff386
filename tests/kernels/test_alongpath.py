"""Genes along a covariate: against its own formula written out, on genes that do not follow it, and on some that do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from threadpoolctl import threadpool_limits

from smeld.kernels import alongpath
from smooth_section import SIDE, positions, smooth_fields

Float = NDArray[np.float64]


def run(
    xy: Float, genes: Float, covariates: Sequence[Float], section: NDArray[np.intp] | None = None
) -> alongpath.Along:
    return alongpath.test(xy, lambda rows: genes[rows], len(genes), covariates, section=section)


def followers(course: Float, n: int, rng: np.random.Generator, load: float = 0.45) -> Float:
    """Counts whose logarithm goes with ``course``, dispersion .5; centred logarithms [n, n_obs]."""
    z = (course - course.mean()) / course.std()
    rate = rng.uniform(0.5, 3.0, (n, 1)) * np.exp(load * z) * rng.gamma(2.0, 0.5, (n, len(z)))
    x = np.log1p(rng.poisson(rate))
    return np.asarray(x - x.mean(axis=1, keepdims=True))


def written_out(xy: Float, gene: Float, columns: Float) -> tuple[float, float]:
    """p and the mean variance of slopes of one gene in cells that are patches of their own, by dense algebra."""
    n, k = len(xy), len(columns)
    made = alongpath.patches(xy)
    distance = np.array([[np.hypot(*(a - b)) for b in xy] for a in xy])
    less = columns - columns.mean(axis=1, keepdims=True)
    c = np.linalg.svd(less, full_matrices=False)[2] if k > 1 else less / np.linalg.norm(less)
    design = np.c_[np.ones(n), c.T]
    contrasts = np.linalg.svd(design)[0][:, k + 1 :]  # what the covariate and the mean do not touch
    ranges = np.geomspace(alongpath.SHORTEST * made.width, alongpath.LONGEST * made.extent, alongpath.N_RANGES)
    weighed = []
    for shape in alongpath.SHAPES:
        for reach in ranges:
            covariance = shape(distance / reach)
            covariance = covariance * (n - 1) / (np.trace(covariance) - covariance.sum() / n)
            for ratio in alongpath.RATIOS:
                prior = reach**alongpath.LEAN / (ranges**alongpath.LEAN).sum() / len(alongpath.SHAPES)
                prior *= ratio**alongpath.TILT / (alongpath.RATIOS**alongpath.TILT).sum()
                weighed.append((prior, np.eye(n) + ratio * covariance))
    weighed.append((alongpath.NO_FIELD, np.eye(n)))
    log, p, variance = [], [], []
    for prior, v in weighed:
        inverse = np.linalg.inv(v)
        estimator = np.linalg.inv(design.T @ inverse @ design) @ design.T @ inverse
        beta = estimator @ gene
        noise = float((gene - design @ beta) @ inverse @ (gene - design @ beta)) / (n - k - 1)
        spread = np.zeros((k, k))
        for i in range(n):
            for j in range(n):
                spread += np.outer(estimator[1:, i], estimator[1:, j]) * v[i, j]
        f = float(beta[1:] @ np.linalg.inv(spread) @ beta[1:]) / k / noise
        p.append(stats.f.sf(f, k, n - k - 1))
        variance.append(noise * np.trace(spread) / k)
        rest, within = contrasts.T @ gene, contrasts.T @ v @ contrasts
        log.append(
            np.log(prior)
            - 0.5 * np.linalg.slogdet(within)[1]
            - 0.5 * (n - k - 1) * np.log(rest @ np.linalg.inv(within) @ rest)
        )
    weight = np.exp(np.array(log) - max(log))
    weight /= weight.sum()
    return float(weight @ np.array(p)), float(weight @ np.array(variance))


@pytest.mark.parametrize("k", [1, 2])
def test_p_and_variance_are_those_of_the_formula(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alongpath, "N_RANGES", 3)
    monkeypatch.setattr(alongpath, "RATIOS", np.array([0.1, 1.0, 20.0]))
    rng = np.random.default_rng(k)
    xy = rng.uniform(0, 500, (24, 2))
    columns = np.stack([xy[:, 0], xy[:, 1] ** 2])[:k]
    genes = 0.004 * xy[:, 0] + rng.normal(size=(2, 24))
    genes -= genes.mean(axis=1, keepdims=True)
    found = run(xy, genes, [columns])
    for i, gene in enumerate(genes):
        p, variance = written_out(xy, gene, columns)
        assert found.pvalue[0, i] == pytest.approx(p, rel=1e-6)
        assert found.n_effective[0, i] == pytest.approx(min(1 + gene @ gene / variance, 24), rel=1e-6)
        fit = np.linalg.lstsq(np.c_[np.ones(24), columns.T], gene, rcond=None)[0]
        explained = np.var(np.c_[np.ones(24), columns.T] @ fit) / np.var(gene)
        assert abs(found.effect[0, i]) == pytest.approx(np.sqrt(explained), rel=1e-6)


def test_patches_hold_every_cell_once_and_sections_apart() -> None:
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, (3000, 2))
    section = rng.integers(0, 3, 3000)
    made = alongpath.patches(xy, section)
    assert np.array_equal(np.sort(made.order), np.arange(3000)) and made.count.sum() == 3000
    assert 200 < len(made.count) < alongpath.MORE * alongpath.N_PATCHES + 3
    field = rng.normal(size=(1, 3000))
    for i, cells in enumerate(np.split(made.order, made.start[1:])):
        assert set(section[cells]) == {made.section[i]}
        assert made.pooled(field)[0, i] == pytest.approx(field[0, cells].sum() / np.sqrt(len(cells)))
        assert np.ptp(xy[cells], axis=0).max() <= made.width


@pytest.mark.parametrize("width", [0.0, 3.0, 10.0])
def test_genes_that_do_not_follow_pass_as_often_as_they_should(width: float) -> None:
    rng = np.random.default_rng(int(width) + 1)
    xy = positions()
    genes = smooth_fields(500, width, rng)
    radial = np.hypot(*(xy - xy.mean(axis=0)).T)
    found = run(xy, genes, [xy @ [0.8, 0.6], radial, alongpath.curves(xy[:, 0])])
    assert (found.pvalue < 0.05).mean(axis=1).max() <= 0.085  # 500 genes: two standard errors more than .065
    assert (found.pvalue < 0.001).mean() <= 0.005
    if width:  # where correlation over cells finds nearly all of them
        n = SIDE**2
        naive = 2 * stats.t.sf(np.abs(found.effect[0]) * np.sqrt(n - 2), n - 2)
        assert (naive < 0.05).mean() > 0.6


def test_genes_that_follow_are_found_among_smooth_ones() -> None:
    rng = np.random.default_rng(4)
    xy = positions(50)
    time = xy @ [0.8, 0.6]
    hump = np.exp(-0.5 * ((stats.rankdata(time) / len(time) - 0.4) / 0.15) ** 2)
    genes = np.concatenate([followers(time, 25, rng), followers(hump, 25, rng), smooth_fields(250, 5.0, rng, 50)])
    p = run(xy, genes, [time, alongpath.curves(time)]).pvalue
    found = stats.false_discovery_control(alongpath.cauchy(p)) < 0.05
    assert found[:25].mean() > 0.8 and found[25:50].mean() > 0.8
    assert found[50:].sum() <= 0.1 * found.sum()
    assert (p[0, 25:50] < 0.05).mean() < 0.3  # a hump is no trend


def test_a_branch_contrast_keeps_its_sign() -> None:
    rng = np.random.default_rng(5)
    xy = positions(30)
    contrast = np.where(xy[:, 0] + 100 * np.sin(xy[:, 1] / 200) > xy[:, 0].mean(), 1.0, -1.0)
    found = run(xy, np.concatenate([followers(s * contrast, 20, rng) for s in (1, -1)]), [contrast, -3 * contrast + 2])
    assert (found.zscore[0, :20] > 0).all() and (found.zscore[0, 20:] < 0).all()
    assert (found.effect[0, :20] > 0).all() and (found.pvalue[0] < 0.05).mean() > 0.9
    assert found.zscore[1] == pytest.approx(-found.zscore[0]) and found.effect[1] == pytest.approx(-found.effect[0])
    assert found.pvalue[0] == pytest.approx(2 * stats.norm.sf(np.abs(found.zscore[0])))


@settings(max_examples=5, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 100))
def test_order_unit_and_scale_do_not_matter(unit: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    xy = positions(21, seed)  # more cells than patches
    genes = smooth_fields(3, 2.0, rng, 21)
    time = xy[:, 0] + 0.3 * xy[:, 1]
    before = run(xy, genes, [time])
    order = rng.permutation(len(xy))
    after = run(unit * xy[order] + 5.0, 7.0 * genes[:, order], [unit * time[order] - 2.0])
    for name in ("pvalue", "zscore", "effect", "n_effective"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-3, abs=1e-4), name


def test_turning_the_section_changes_little() -> None:
    rng = np.random.default_rng(6)
    xy = positions(30)
    genes = np.concatenate([smooth_fields(20, 3.0, rng, 30), followers(xy[:, 0], 10, rng)])
    c, s = np.cos(0.7), np.sin(0.7)
    turned = run(xy @ np.array([[c, -s], [s, c]]), genes, [xy[:, 0]])
    before = run(xy, genes, [xy[:, 0]])
    assert turned.effect == pytest.approx(before.effect)
    assert np.abs(turned.zscore - before.zscore).mean() < 0.25  # other squares, other patches


def test_sections_share_slopes_and_neither_means_nor_places() -> None:
    rng = np.random.default_rng(7)
    xy = positions(30)
    half = (xy[:, 1] > np.median(xy[:, 1])).astype(np.intp)
    genes = np.concatenate([smooth_fields(5, 3.0, rng, 30), followers(xy[:, 0], 5, rng)])
    before = run(xy, genes, [xy[:, 0], half.astype(float)], half)
    moved = xy + np.where(half[:, None] == 1, [[3000.0, -50_000.0]], 0.0)
    after = run(moved, genes + 2.0 * half, [xy[:, 0] + 400.0 * half, half.astype(float)], half)
    assert after.pvalue == pytest.approx(before.pvalue, rel=1e-6)
    assert after.effect == pytest.approx(before.effect, abs=1e-9)
    assert (before.pvalue[1] == 1).all() and (before.effect[1] == 0).all()  # nothing beside the means of sections


def test_what_does_not_vary_is_never_significant() -> None:
    rng = np.random.default_rng(8)
    xy = positions(22)
    n = len(xy)
    genes = np.stack([np.zeros(n), np.full(n, 0.1), rng.normal(size=n)])
    for found in (run(xy, genes, [np.ones(n)]), run(np.zeros((n, 2)), genes, [xy[:, 0]])):
        assert (found.pvalue == 1).all() and (found.zscore == 0).all()
    found = run(xy, genes, [xy[:, 0], alongpath.curves(np.ones(n))])
    assert (found.pvalue[:, :2] == 1).all() and (found.effect[:, :2] == 0).all() and found.pvalue[0, 2] < 1
    assert found.pvalue[1, 2] == 1 and found.share[0] > 0.9


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 12])
def test_a_handful_of_cells(n: int) -> None:
    rng = np.random.default_rng(n)
    genes = rng.normal(size=(3, n))
    genes -= genes.mean(axis=1, keepdims=True)
    for xy in (rng.uniform(0, 100, (n, 2)), np.zeros((n, 2))):
        found = run(xy, genes, [np.arange(float(n)), alongpath.curves(np.arange(float(n))), np.ones(n)])
        for values in (found.effect, found.zscore, found.pvalue, found.n_effective, found.share):
            assert np.isfinite(values).all()
        assert (found.pvalue > 1e-4).all() and (n > 2 or (found.pvalue == 1).all())


def test_a_stray_cell_changes_little() -> None:
    rng = np.random.default_rng(9)
    xy = positions(30)
    genes = smooth_fields(20, 2.0, rng, 30)
    stray = run(np.vstack([xy, [[1e7, -1e7]]]), np.c_[genes, np.zeros(20)], [np.r_[xy[:, 0], xy[:, 0].mean()]])
    assert np.abs(stray.zscore - run(xy, genes, [xy[:, 0]]).zscore).mean() < 0.15  # the squares begin elsewhere


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    rng = np.random.default_rng(10)
    xy = positions(30)
    genes = smooth_fields(40, 2.0, rng, 30)
    found = []
    for n in (1, 2):
        with threadpool_limits(n):
            found.append(run(xy, genes, [xy[:, 0], alongpath.curves(xy[:, 1])]))
    assert np.array_equal(found[0].pvalue, found[1].pvalue) and np.array_equal(found[0].effect, found[1].effect)


def test_blocks_of_genes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(11)
    xy = positions(24)
    genes = smooth_fields(23, 2.0, rng, 24)
    whole = run(xy, genes, [xy[:, 0]])
    monkeypatch.setattr(alongpath, "GENES", 5)
    assert run(xy, genes, [xy[:, 0]]).pvalue == pytest.approx(whole.pvalue, rel=1e-8)


def test_cauchy_is_that_of_the_formula() -> None:
    rng = np.random.default_rng(12)
    p = rng.uniform(size=(3, 50))
    assert alongpath.cauchy(p) == pytest.approx(0.5 - np.arctan(np.tan((0.5 - p) * np.pi).mean(axis=0)) / np.pi)
    for one in (1e-250, 1e-17, 0.3, 1.0):
        assert alongpath.cauchy(np.full((4, 1), one))[0] == pytest.approx(one)
    assert alongpath.cauchy(np.array([[1e-40], [0.9]]))[0] == pytest.approx(2e-40)
    assert alongpath.cauchy(np.array([[0.0], [1.0]]))[0] < 1e-200


def test_curves_are_of_ranks_alone() -> None:
    rng = np.random.default_rng(13)
    values = rng.normal(size=200)
    made = alongpath.curves(values, 4)
    assert made == pytest.approx(alongpath.curves(np.exp(values), 4))
    assert made @ made.T / 100 == pytest.approx(np.eye(4), abs=1e-9)
    assert stats.spearmanr(made[0], values)[0] == pytest.approx(-1)
