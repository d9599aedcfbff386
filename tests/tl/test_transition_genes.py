"""Genes along a trajectory, between its branches, and two sections compared: from the user's side."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numba
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import sparse, stats
from threadpoolctl import threadpool_limits

import smeld as sm
from smeld import _keys
from smeld._check import InputError, SmeldWarning
from smeld.kernels import alongpath
from smeld.tl import _compare_transitions, _split_order

COURSE = ["gene", "effect", "zscore", "pvalue", "qvalue", "shape", "peak", "n_effective"]
SIDES = ["effect", "zscore", "pvalue", "qvalue", "shape", "peak", "n_effective"]


@pytest.fixture(scope="module")
def ordered() -> ad.AnnData:
    adata = sm.datasets.simulate(360, 120, image=False, n_domains=4, mean_counts=400.0, seed=101)
    sm.fuse(adata, evidence=False)
    sm.tl.trajectory(adata, "label:D1", groups="truth_domain", balance=0.25, n_bootstraps=2)
    return adata


@pytest.fixture(autouse=True)
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel has its own tests; here it may look less closely."""
    monkeypatch.setattr(alongpath, "N_PATCHES", 120)
    monkeypatch.setattr(alongpath, "N_RANGES", 4)


def forked(seed: int = 0, side: int = 20) -> ad.AnnData:
    """A trunk that parts into left and right, ordered by hand; genes that follow left, right, both, both in opposite
    directions, the trunk's hump, or nothing."""
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() for a in np.mgrid[:side, :side])
    time = y / (side - 1)
    group = np.where(y < side // 3, "trunk", np.where(x < side // 2, "left", "right"))
    after = np.maximum(time - 1 / 3, 0.0)
    left, right = after * (group == "left"), after * (group == "right")
    course = [left, right, after, left - right, np.zeros_like(time)]
    rate = np.exp(np.repeat(3.0 * np.stack(course), 4, axis=0).T)
    names = [f"{n}{k}" for n in ("LEFT", "RIGHT", "BOTH", "OPPOSITE", "NOISE") for k in range(4)]
    x_all = sparse.csr_matrix(np.hstack([rng.poisson(rate), rng.poisson(4.0, (side**2, 60))]).astype(np.float32))
    obs = pd.DataFrame({"time": time, "group": pd.Categorical(group)}, index=[f"s{i}" for i in range(side**2)])
    adata = ad.AnnData(x_all, obs=obs, var=pd.DataFrame(index=[*names, *(f"FILL{i}" for i in range(60))]))
    adata.obsm["spatial_um"] = 100.0 * np.c_[x, y].astype(float)
    adata.uns["time_nodes"] = pd.DataFrame(
        {
            "level": "group",
            "node": ["left", "right", "trunk"],
            "parent": ["trunk", "trunk", "none"],
            "root": [False, False, True],
        }
    )
    _keys.record(adata, "time", function="sm.tl.trajectory", params={}, inputs={"groups": "group"})
    return adata


def quietly(adata: Any, **options: Any) -> sm.tl.TransitionGenes:
    """Where the order cannot be made again, which another test looks at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.tl.transition_genes(adata, **options)


def by_gene(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index("gene").sort_index()


# ------------------------------------------------------------------------------------------------- along an order


def test_an_order_from_all_counts_is_the_stored_one(ordered: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_split_order, "LEAST_WEIGHT", 0.0)
    found = _split_order.stored(ordered, "pseudotime")
    made = _split_order.splitter(ordered, found, sparse.csr_matrix(ordered.X[found.order]))
    assert made is not None
    assert made.ordered(made.counts) == pytest.approx(found.time, abs=0.01)


def test_no_count_is_in_the_order_and_in_the_gene(ordered: ad.AnnData, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _split_order.stored(ordered, "pseudotime")
    made = _split_order.splitter(ordered, found, sparse.csr_matrix(ordered.X[found.order]))
    assert made is not None
    seen: list[sparse.csr_matrix] = []

    def noted(self: _split_order.Splitter, counts: sparse.csr_matrix) -> NDArray[np.float64]:
        seen.append(counts)
        return np.zeros(counts.shape[0])

    monkeypatch.setattr(_split_order.Splitter, "ordered", noted)
    halves = list(made.halves(2, 0))
    assert len(halves) == 4
    total = np.asarray(made.counts.sum(axis=1)).ravel()
    for used, half in zip(seen, halves):
        assert np.asarray(used.sum(axis=1)).ravel() + half.library == pytest.approx(total)
        rest = made.counts - used
        assert rest.min() >= 0 and ((rest > 0) != (half.genes > 0)).nnz == 0
    assert abs(seen[0] - seen[2]).sum() > 0  # the second split is another one
    assert ((seen[0] + seen[1]) != made.counts).nnz == 0


def test_genes_that_follow_are_found_with_their_sign_and_shape(ordered: ad.AnnData) -> None:
    found = sm.tl.transition_genes(ordered)
    table = found.table
    assert list(table) == COURSE and found.n_cells == 360 and found.groups == ((),) and found.agreement > 0.8
    assert table["pvalue"].is_monotonic_increasing
    truth = ordered.var["truth_trajectory"].astype(str)
    by = by_gene(table)
    rising, falling, humps = (by.loc[truth.index[truth == s]] for s in ("rising", "falling", "transient"))
    assert (rising["effect"] > 0).all() and (falling["effect"] < 0).all()
    assert (rising["shape"] == "rises").all() and (falling["shape"] == "falls").all()
    assert rising["peak"].mean() > 0.8 and falling["peak"].mean() < 0.2 and 0.3 < humps["peak"].mean() < 0.7
    noise = by.loc[ordered.var_names[ordered.var["truth_role"] == "noise"].intersection(by.index)]
    assert (noise["pvalue"] < 0.05).mean() < 0.12
    assert max(rising["pvalue"].median(), falling["pvalue"].median()) < 0.15 < 0.3 < noise["pvalue"].median()
    assert table["qvalue"].to_numpy() == pytest.approx(stats.false_discovery_control(table["pvalue"]))
    assert table["zscore"].abs().to_numpy() == pytest.approx(stats.norm.isf(table["pvalue"] / 2), abs=1e-6)
    record = ordered.uns["smeld"]["transition_genes"]
    assert record["params"]["n_splits"] == 2 and record["params"]["n_tested"] + found.n_rare == 120


def test_an_order_of_another_making_is_tested_as_it_is() -> None:
    adata = forked()
    with pytest.warns(SmeldWarning, match="may confirm it"):
        found = sm.tl.transition_genes(adata, key="time", path=["trunk", "left"])
    assert np.isnan(found.agreement)
    order = np.argsort(adata.obs_names.to_numpy(dtype=str), kind="stable")
    rows = order[np.isin(adata.obs["group"].to_numpy(dtype=str)[order], ["trunk", "left"])]
    counts = adata.X.toarray().astype(float)
    library = counts.sum(axis=1)
    logged = np.log1p(counts / library[:, None] * np.median(library))[rows]
    design = np.c_[np.ones(len(rows)), np.log1p(library[rows])]

    def beside(columns: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(columns - design @ np.linalg.lstsq(design, columns, rcond=None)[0])

    time = adata.obs["time"].to_numpy()[rows]
    genes = beside(logged).T
    columns = [beside(time[:, None]).T, beside(alongpath.curves(time).T).T]
    alone = alongpath.test(adata.obsm["spatial_um"][rows], lambda i: genes[i], genes.shape[0], columns)
    table = found.table.set_index("gene").loc[adata.var_names]
    assert table["pvalue"].to_numpy() == pytest.approx(alongpath.cauchy(alone.pvalue), rel=1e-4)
    assert table["effect"].to_numpy() == pytest.approx([np.corrcoef(g, columns[0][0])[0, 1] for g in genes], abs=1e-6)
    assert table["n_effective"].to_numpy() == pytest.approx(alone.n_effective[0], rel=1e-4)


def test_bits_do_not_depend_on_order_or_threads(ordered: ad.AnnData) -> None:
    options: dict[str, Any] = {"n_splits": 1, "genes": list(ordered.var_names[:40])}
    first = sm.tl.transition_genes(ordered, **options).table
    threads = numba.get_num_threads()
    with threadpool_limits(1):
        numba.set_num_threads(1)
        again = sm.tl.transition_genes(ordered, **options).table
        numba.set_num_threads(threads)
    pd.testing.assert_frame_equal(first, again)
    permuted = ordered[np.random.default_rng(0).permutation(ordered.n_obs)].copy()
    pd.testing.assert_frame_equal(first, sm.tl.transition_genes(permuted, **options).table)
    other = sm.tl.transition_genes(ordered, **options, seed=1).table
    assert not np.array_equal(by_gene(first)["pvalue"], by_gene(other)["pvalue"])


def test_a_path_takes_its_groups(ordered: ad.AnnData) -> None:
    nodes = ordered.uns["pseudotime_nodes"]
    nodes = nodes[nodes["level"] == "group"].set_index("node")
    last = str(nodes.index[nodes["terminal"]][0])
    options: dict[str, Any] = {"n_splits": 1, "genes": list(ordered.var_names[-40:]), "min_cells": 5}
    named = sm.tl.transition_genes(ordered, path=last, **options)
    way = [last]
    while nodes.loc[way[0], "parent"] != "none":
        way.insert(0, str(nodes.loc[way[0], "parent"]))
    assert named.groups == (tuple(way),)
    assert named.n_cells == ordered.obs["truth_domain"].isin(way).sum()
    listed = sm.tl.transition_genes(ordered, path=way, **options)
    pd.testing.assert_frame_equal(named.table, listed.table)


def test_rare_genes_are_left_out_and_counted(ordered: ad.AnnData) -> None:
    genes = list(ordered.var_names[:30])
    seen = np.asarray((ordered[:, genes].X > 0).sum(axis=0)).ravel()
    least = int(np.median(seen)) + 1
    found = quietly(ordered, genes=genes, min_cells=least, n_splits=1)
    assert set(found.table["gene"]) == set(np.array(genes)[seen >= least]) and found.n_rare == (seen < least).sum()


@pytest.mark.parametrize("change", ["logged", "no loadings", "no record", "of another embedding"])
def test_where_counts_cannot_be_split_it_says_so(ordered: ad.AnnData, change: str) -> None:
    adata = ordered.copy()
    if change == "logged":
        adata.X = adata.X.log1p()
    elif change == "no loadings":
        del adata.varm["PCs"]
    elif change == "no record":
        del adata.uns["smeld"]["pseudotime"]
    else:
        adata.obsm["fused_sme"] = adata.obsm["fused_sme"] + 1.0
    with pytest.warns(SmeldWarning, match="cannot be made again"):
        found = sm.tl.transition_genes(adata, genes=list(adata.var_names[-5:]))
    assert len(found.table) and adata.uns["smeld"]["transition_genes"]["params"]["n_splits"] == 0


def test_nothing_is_left_of_an_order_that_is_regressed_out() -> None:
    adata = forked()
    adata.obs["again"] = adata.obs["time"] * 3.0
    table = quietly(adata, key="time", adjust=["again"], genes=["BOTH0", "NOISE0"]).table
    assert (table["effect"].abs() < 1e-6).all()
    adata.X = sparse.csr_matrix(np.ones(adata.shape, dtype=np.float32))
    table = quietly(adata, key="time").table
    assert (table["pvalue"] > 1 - 1e-9).all() and (table["effect"] == 0).all()


def test_cells_without_pseudotime_and_two_sections() -> None:
    a, b = forked(0), forked(1)
    b.obs_names = [f"t{i}" for i in range(b.n_obs)]
    both = ad.concat([a, b], label="slide", keys=["1", "2"], uns_merge="first")
    _keys.record(both, "time", function="sm.tl.trajectory", params={}, inputs={"groups": "group", "batch_key": "slide"})
    both.obs.loc[both.obs_names[:7], "time"] = np.nan
    found = quietly(both, key="time", genes=["BOTH0", "NOISE0"])
    assert found.n_cells == 793 and by_gene(found.table).loc["BOTH0", "pvalue"] < 1e-4
    assert both.uns["smeld"]["transition_genes"]["inputs"]["batch_key"] == "slide"


def test_it_can_be_stored(ordered: ad.AnnData, tmp_path: Path) -> None:
    adata = ordered.copy()
    sm.tl.transition_genes(adata, n_splits=1, genes=list(adata.var_names[:20]))
    sm.write(adata, tmp_path / "a.h5ad")
    back = sm.read(tmp_path / "a.h5ad")
    kept = adata.uns["transition_genes"]
    pd.testing.assert_frame_equal(back.uns["transition_genes"], kept, check_dtype=False)
    pd.testing.assert_frame_equal(
        sm.tl.transition_genes(back, n_splits=1, genes=list(adata.var_names[:20])).table, kept
    )


# ---------------------------------------------------------------------------------------------------- two branches


def test_branches_share_genes_and_have_their_own() -> None:
    adata = forked()
    found = quietly(adata, key="time", branch=("left", "right"))
    assert found.groups == (("trunk", "left"), ("trunk", "right")) and found.n_cells == adata.n_obs
    table = by_gene(found.table)
    kinds = {k: table.loc[[f"{k}{i}" for i in range(4)]] for k in ("LEFT", "RIGHT", "BOTH", "OPPOSITE", "NOISE")}
    assert (kinds["LEFT"]["pattern"] == "private to left").all()
    assert (kinds["RIGHT"]["pattern"] == "private to right").all()
    assert (kinds["BOTH"]["pattern"] == "shared").all()
    assert kinds["OPPOSITE"]["pattern"].isin(["opposite", "undecided"]).all()
    assert (kinds["OPPOSITE"]["pattern"] == "opposite").sum() >= 3
    assert (table["pattern"] == "neither").sum() >= 60
    assert (kinds["LEFT"]["effect"] > 0).all() and (kinds["RIGHT"]["effect"] < 0).all()
    assert (kinds["LEFT"]["qvalue"] < 0.05).all() and (kinds["BOTH"]["pvalue"] > 0.001).all()
    assert (kinds["OPPOSITE"]["effect_first"] > 0).all() and (kinds["OPPOSITE"]["effect_second"] < 0).all()
    assert (kinds["LEFT"]["shape_first"] == "rises").all()


def test_branches_the_other_way_round() -> None:
    adata = forked()
    genes = ["LEFT0", "RIGHT0", "BOTH0", "OPPOSITE0", "NOISE0"]
    one = by_gene(quietly(adata, key="time", branch=("left", "right"), genes=genes).table)
    two = by_gene(quietly(adata, key="time", branch=("right", "left"), genes=genes).table)
    assert one["effect"].to_numpy() == pytest.approx(-two["effect"].to_numpy())
    assert one["pvalue"].to_numpy() == pytest.approx(two["pvalue"].to_numpy(), rel=1e-6)
    assert one["pattern"].tolist() == two["pattern"].tolist()
    assert one["effect_first"].to_numpy() == pytest.approx(two["effect_second"].to_numpy())


def test_branches_of_a_trajectory_are_split(ordered: ad.AnnData) -> None:
    adata = ordered.copy()
    nodes = adata.uns["pseudotime_nodes"]
    nodes.loc[nodes["node"].isin(["D2", "D3"]), "parent"] = "D1"
    found = sm.tl.transition_genes(adata, branch=("D2", "D3"), n_splits=1, genes=list(adata.var_names[:10]))
    assert np.isfinite(found.agreement) and "n_effective_second" in found.table
    assert np.isfinite(found.table.select_dtypes("number").to_numpy()).all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "nowhere"}, "unknown node"),
        ({"path": ["trunk", "nowhere"]}, "unknown label"),
        ({"path": []}, "too few cells"),
        ({"branch": ("left", "trunk")}, "do not part"),
        ({"branch": ("left", "left")}, "do not part"),
        ({"branch": ("left", "up")}, "unknown node"),
        ({"branch": "left"}, "two branches"),
        ({"branch": ("left", "right"), "path": "left"}, "two branches"),
        ({"key": "pseudotime"}, "sm.tl.trajectory"),
        ({"key": "group"}, "no numbers"),
        ({"genes": ["ABSENT"]}, "unknown gene"),
        ({"genes": []}, "no gene to test"),
        ({"min_cells": 1000}, "lower min_cells"),
        ({"n_splits": 0}, "n_splits"),
        ({"adjust": ["absent"]}, "absent"),
        ({"layer": "absent"}, "absent"),
    ],
)
def test_what_is_wrong_is_said(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        quietly(forked(), **({"key": "time"} | options))


def test_ways_that_do_not_begin_at_the_root() -> None:
    adata = forked()
    adata.uns["time_nodes"].loc[0, "parent"] = "none"
    with pytest.raises(InputError, match="no way leads"):
        quietly(adata, key="time", path="left")
    adata.obs["time"] = np.where(adata.obs["group"] == "left", np.nan, adata.obs["time"])
    with pytest.raises(InputError, match="too few cells"):
        quietly(adata, key="time", path=["left"])
    del adata.obs["group"]
    with pytest.raises(InputError, match="group"):
        quietly(adata, key="time", path="right")


# ------------------------------------------------------------------------------------------------------ comparison


def course(rows: dict[str, tuple[float, float, str]], n: float = 200.0) -> pd.DataFrame:
    """A table of genes: effect, p (and q), shape."""
    table = pd.DataFrame(
        [{"gene": g, "effect": e, "pvalue": p, "qvalue": p, "shape": s} for g, (e, p, s) in rows.items()]
    )
    table["zscore"], table["peak"], table["n_effective"] = np.sign(table["effect"]), 0.5, n
    return table[COURSE]


FIRST = {
    "shared": (0.5, 1e-6, "rises"), "private": (0.5, 1e-6, "rises"), "unclear": (0.2, 0.01, "rises"),
    "against": (0.5, 1e-6, "rises"), "nothing": (0.0, 0.9, "rises"), "hump": (0.01, 1e-6, "peaks"),
    "silent": (0.3, 1e-3, "rises"), "missing": (0.5, 1e-6, "rises"),
}  # fmt: skip
SECOND = {
    "shared": (0.4, 1e-4, "rises"), "private": (0.0, 0.3, "falls"), "unclear": (0.1, 0.2, "rises"),
    "against": (-0.5, 1e-6, "falls"), "nothing": (0.05, 0.6, "rises"), "hump": (0.02, 1e-6, "dips"),
    "silent": (0.15, 0.7, "rises"),
}  # fmt: skip
PATTERN = {
    "shared": "shared", "private": "private to first", "unclear": "undecided", "against": "opposite",
    "nothing": "neither", "hump": "opposite", "silent": "private to first", "missing": "not in second",
}  # fmt: skip


def test_patterns() -> None:
    table = by_gene(sm.tl.compare_transitions(course(FIRST), course(SECOND)))
    assert table["pattern"].to_dict() == PATTERN
    assert list(table)[:4] == ["pattern", "difference", "pvalue_difference", "qvalue_difference"]
    turned = by_gene(sm.tl.compare_transitions(course(SECOND), course(FIRST)))
    swapped = {"first": "second", "second": "first"}
    expected = {g: " ".join(swapped.get(w, w) for w in p.split()) for g, p in PATTERN.items()}
    assert turned["pattern"].to_dict() == expected
    assert turned["difference"].to_numpy() == pytest.approx(-table["difference"].to_numpy(), nan_ok=True)


def test_differences_are_those_of_fisher() -> None:
    table = by_gene(sm.tl.compare_transitions(course(FIRST, 200.0), course(SECOND, 80.0)))
    for gene, (a, _, _) in FIRST.items():
        if gene not in SECOND:
            assert np.isnan(table.loc[gene, "difference"])
            continue
        b = SECOND[gene][0]
        left = [(n - 1) * (1 - r**2) + 1 - 3 for n, r in ((200.0, a), (80.0, b))]
        z = (np.arctanh(a) - np.arctanh(b)) / np.sqrt(sum(1 / x for x in left))
        assert table.loc[gene, "difference"] == pytest.approx(z)
        assert table.loc[gene, "pvalue_difference"] == pytest.approx(2 * stats.norm.sf(abs(z)))
    asked = table["pattern"].isin(["neither", "not in second"])
    assert table.loc[asked, "qvalue_difference"].isna().all()
    rest = table[~asked]
    assert rest["qvalue_difference"].to_numpy() == pytest.approx(
        stats.false_discovery_control(rest["pvalue_difference"])
    )


def test_effects_of_equal_genes_differ_as_seldom_as_they_should() -> None:
    """Correlations with a fixed covariate, and the number of cells that the kernel would give them."""
    rng = np.random.default_rng(100)
    time = np.linspace(-1, 1, 150)
    p = []
    for load in (0.0, 0.5, 1.5):
        sides = []
        for _ in range(2):
            genes = load * time + rng.normal(size=(400, 150))
            centred = genes - genes.mean(axis=1, keepdims=True)
            r = centred @ time / np.linalg.norm(centred, axis=1) / np.linalg.norm(time)
            error = (1 - r**2) / 148
            table = course({f"g{i}": (x, 0.001, "rises") for i, x in enumerate(r)})
            table["n_effective"] = 1 + 1 / error
            sides.append(table)
        p.append((sm.tl.compare_transitions(*sides)["pvalue_difference"] < 0.05).mean())
    assert max(p) < 0.08 and min(p) > 0.01


def test_what_is_compared(ordered: ad.AnnData) -> None:
    result = sm.tl.transition_genes(ordered, n_splits=1, genes=list(ordered.var_names[:20]))
    for given in (result, result.table, ordered):
        table = sm.tl.compare_transitions(given, result)
        assert set(table["pattern"]) <= {"shared", "neither"} and (table["difference"] == 0).all()
    with pytest.raises(InputError, match="without branch"):
        sm.tl.compare_transitions(result.table.drop(columns="shape"), result)
    with pytest.raises(InputError, match="transition_genes"):
        sm.tl.compare_transitions(ad.AnnData(np.ones((2, 2))), result)
    with pytest.raises(InputError, match="between 0 and 1"):
        sm.tl.compare_transitions(result, result, q=1.0)
    few = course(FIRST, 4.0)
    assert sm.tl.compare_transitions(few, few)["pvalue_difference"].isna().all()
    assert _compare_transitions.COURSE == SIDES
