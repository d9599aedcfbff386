"""Figures of an order show what is stored: where, which way, how sure, in which tree, with which genes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.quiver import Quiver
from scipy import sparse

import smeld as sm
import stored_section
from smeld import _keys
from smeld.pl import _colors
from smeld.pl._save import render
from smeld.pl.gene_courses import BLOCKS, N_FINE, courses, peak_order, transition_table
from smeld.pl.trajectory_tree import _lanes, size_in, stored_tree

#: parents, medians and sizes of the groups of the hand-made tree: 1 -> 2, then 3 and 4 from 2
PARENTS, MIDDLES = ("none", "1", "2", "2"), (0.1, 0.4, 0.7, 0.9)


def axes(width: float = 6.0, height: float = 5.0):
    with sm.pl.style():
        return Figure(figsize=(width, height), layout="compressed").subplots()


def grid(rows: int, columns: int):
    with sm.pl.style():
        return Figure(figsize=(9, 6), layout="compressed").subplots(rows, columns)


def tables(adata, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    xy, label = adata.obsm["spatial_um"], adata.obs["domain"].astype(str).to_numpy()
    called = dict(zip("1234", names), none="none")
    nodes = pd.DataFrame(
        {
            "level": "group",
            "node": names,
            "n_cells": [int((label == name).sum()) for name in names],
            "pseudotime": MIDDLES,
            "pseudotime_10": np.array(MIDDLES) - 0.08,
            "pseudotime_90": np.array(MIDDLES) + 0.08,
            "parent": [called[p] for p in PARENTS],
            "support": [np.nan, 1.0, 0.8, 0.55],
            "branch": ["trunk", "trunk", f"branch {names[2]}", f"branch {names[3]}"],
            "root": [True, False, False, False],
            "terminal": [False, False, True, True],
            "x_um": [xy[label == name, 0].mean() for name in names],
            "y_um": [xy[label == name, 1].mean() for name in names],
        }
    )
    rows = [("1", "2", 1.0, True), ("2", "3", 0.8, True), ("2", "4", 0.55, True), ("3", "4", 0.45, False)]
    rows += [("1", "4", 0.02, False), ("1", "3", 0.0, False)]
    edges = pd.DataFrame(
        [("group", called[a], called[b], 0.5, s, t) for a, b, s, t in rows],
        columns=["level", "from", "to", "flow", "support", "in_tree"],
    )
    pieces = [t.assign(level="piece") for t in (nodes, edges)]
    return tuple(pd.concat(both, ignore_index=True) for both in zip((nodes, edges), pieces))  # type: ignore[return-value]


def make(names: list[str] | None = None, **options):
    """Pseudotime grows to the right by rank; the left sixth is the root; the last ten spots have no order."""
    adata = stored_section.make(**options)
    names = names or list("1234")
    adata.obs["domain"] = adata.obs["domain"].cat.rename_categories(names)
    x = adata.obsm["spatial_um"][:, 0]
    order = x.argsort(kind="stable").argsort() / (adata.n_obs - 1)
    order[-10:] = np.nan
    adata.obs["pseudotime"] = order
    adata.obs["pseudotime_low"] = np.clip(order - 0.05 - 0.2 * order, 0, 1)
    adata.obs["pseudotime_high"] = np.clip(order + 0.05, 0, 1)
    adata.obs["pseudotime_root"] = order < 1 / 6
    adata.obs["pseudotime_branch"] = pd.Categorical(np.where(np.isnan(order), None, "trunk"))
    adata.obsm["pseudotime_direction"] = np.where(np.isnan(order)[:, None], 0.0, [1e-3, 0.0])
    end = np.clip(order, 0, 1)
    chances = pd.DataFrame({names[2]: 1 - end, names[3]: end + 1e-12}, index=adata.obs_names)
    adata.obsm["pseudotime_fates"] = chances
    adata.uns["pseudotime_nodes"], adata.uns["pseudotime_edges"] = tables(adata, names)
    inputs = {"groups": "domain"}
    _keys.record(adata, "pseudotime", function="sm.tl.trajectory", params={"within": "none"}, inputs=inputs)
    return adata


def discs(ax) -> np.ndarray:
    return next(c for c in ax.collections if isinstance(c, EllipseCollection)).get_facecolor()


def quiver(ax) -> Quiver | None:
    return next((c for c in ax.collections if isinstance(c, Quiver)), None)


def said(ax) -> str:
    legend = ax.get_legend()
    words = [ax.get_title(loc="left"), *(t.get_text() for t in ax.texts)]
    return "\n".join(words + ([t.get_text() for t in legend.get_texts()] if legend is not None else []))


# -- maps -----------------------------------------------------------------------------------------------------


def test_colours_are_the_order_and_grey_where_there_is_none():
    adata = make()
    ax = sm.pl.pseudotime(adata, ax=axes())
    order = adata.obs["pseudotime"].to_numpy()
    known = np.isfinite(order)
    np.testing.assert_allclose(discs(ax)[known], _colors.colormap("viridis")(order[known]), atol=1e-6)
    assert {to_hex(c).upper() for c in discs(ax)[~known]} == {_colors.MISSING}
    n_root = int(adata.obs["pseudotime_root"].sum())
    assert f"outlined: the root ({n_root} spots); grey: 10 spots not ordered" in said(ax)


def test_uncertainty_is_the_width_and_bright_is_sure():
    adata = make()
    ax = sm.pl.pseudotime(adata, uncertainty=True, arrows=False, ax=axes())
    width = (adata.obs["pseudotime_high"] - adata.obs["pseudotime_low"]).to_numpy()
    bright = discs(ax)[:, :3].mean(axis=1)
    known = np.isfinite(width)
    assert bright[known][width[known].argmin()] > bright[known][width[known].argmax()] + 0.2
    assert quiver(ax) is None and "how unsure" in said(ax)


def test_arrows_point_where_the_order_rises():
    arrows = quiver(sm.pl.pseudotime(make(rows=30, columns=30), ax=axes()))
    assert arrows is not None and 40 < len(arrows.U) < 500
    assert (arrows.U > 0).all() and np.abs(arrows.V).max() < 1e-9


def test_no_arrow_where_the_cells_of_a_square_disagree():
    adata = make(rows=60, columns=60)
    rng = np.random.default_rng(0)
    left = adata.obsm["spatial_um"][:, 0] < np.median(adata.obsm["spatial_um"][:, 0])
    turn = np.array([1.0, -1.0])[np.arange(adata.n_obs) % 2]
    adata.obsm["pseudotime_direction"][left, 0] *= turn[left] * rng.uniform(0.99, 1.01, int(left.sum()))
    arrows = quiver(sm.pl.pseudotime(adata, ax=axes()))
    middle = np.median(adata.obsm["spatial_um"][:, 0])
    assert (arrows.XY[:, 0] > middle).sum() > 2 * (arrows.XY[:, 0] < middle).sum()


def test_one_cell_with_a_huge_gradient_does_not_rule():
    adata = make(rows=30, columns=30)
    adata.obsm["pseudotime_direction"][400] = [0.0, 50.0]
    arrows = quiver(sm.pl.pseudotime(adata, ax=axes()))
    assert (np.hypot(arrows.U, arrows.V) > 0.5 * np.hypot(arrows.U, arrows.V).max()).mean() > 0.9


def test_the_outline_runs_round_the_root():
    adata = make(rows=20, columns=20)
    ax = sm.pl.pseudotime(adata, arrows=False, ax=axes())
    lines = [p.vertices for c in ax.collections if hasattr(c, "levels") for p in c.get_paths() if len(p.vertices)]
    x = np.vstack(lines)[:, 0]
    edge = adata.obsm["spatial_um"][adata.obs["pseudotime_root"].to_numpy(), 0].max()
    assert edge - 10 < x.max() < edge + 1.2 * stored_section.PITCH_UM


def test_a_root_of_one_cell_is_ringed():
    adata = make()
    adata.obs["pseudotime_root"] = np.arange(adata.n_obs) == 5
    ax = sm.pl.pseudotime(adata, arrows=False, ax=axes())
    np.testing.assert_allclose(ax.collections[-1].get_offsets(), adata.obsm["spatial_um"][[5]])
    assert "the root (1 spot)" in said(ax)


def test_local_map_shows_the_part_with_its_cells():
    adata = make()
    inside = (adata.obs["domain"] == "2").to_numpy()
    y = adata.obsm["spatial_um"][:, 1]
    adata.obs["pseudotime_2"] = np.where(inside, y / y.max(), np.nan)
    adata.obsm["pseudotime_2_direction"] = np.tile([0.0, 1e-3], (adata.n_obs, 1))
    ax = sm.pl.local_pseudotime(adata, "2", ax=axes())
    low, high = (f(adata.obsm["spatial_um"][inside, 0]) for f in (np.min, np.max))
    left, right = ax.get_xlim()
    assert low - 300 < left < low and high < right < high + 300
    assert "Pseudotime within 2" in said(ax)
    with pytest.raises(sm.InputError, match=r"pseudotime_3.*within='3'"):
        sm.pl.local_pseudotime(adata, "3", ax=axes())


def test_fates_are_a_map_a_terminal():
    adata = make()
    panels = sm.pl.fates(adata, axes=grid(1, 2))
    chances = np.clip(adata.obsm["pseudotime_fates"].to_numpy(), 0, 1)
    known = np.isfinite(chances[:, 0])
    for ax, column in zip(panels, chances.T):
        np.testing.assert_allclose(discs(ax)[known], _colors.colormap("viridis")(column[known]), atol=1e-6)
    assert [ax.get_title(loc="left") for ax in panels] == ["Ends in 3", "Ends in 4"]
    with pytest.raises(sm.InputError, match="needs 2 axes"):
        sm.pl.fates(adata, axes=grid(1, 3))


# -- the tree -------------------------------------------------------------------------------------------------


def arrows_of(ax) -> list[FancyArrowPatch]:
    return [p for p in ax.patches if isinstance(p, FancyArrowPatch) and p.get_gid() == "edge"]


def nodes_of(ax) -> np.ndarray:
    return np.array([line.get_xydata()[0] for line in ax.lines if line.get_gid() == "node"])


def test_tree_nodes_lie_at_their_medians_and_ends_in_lanes_of_their_own():
    ax = sm.pl.trajectory_tree(make(), ax=axes(8, 3))
    np.testing.assert_allclose(nodes_of(ax)[:, 0], MIDDLES)
    lanes = nodes_of(ax)[:, 1]
    assert lanes[2] != lanes[3] and lanes[1] == pytest.approx((lanes[2] + lanes[3]) / 2) and lanes[0] == lanes[1]
    sizes = [line.get_markersize() for line in ax.lines if line.get_gid() == "node"]
    n = make().uns["pseudotime_nodes"]["n_cells"][:4].to_numpy()
    np.testing.assert_allclose(np.square(sizes) / np.square(sizes).max(), n / n.max(), rtol=1e-6)


@pytest.mark.parametrize("on_section", [False, True])
def test_tree_edges_say_their_support_and_others_are_dashed(on_section):
    ax = sm.pl.trajectory_tree(make(), on_section=on_section, ax=axes(8, 5))
    drawn = arrows_of(ax)
    dashed = [p for p in drawn if p.get_linestyle() not in ("solid", "-")]
    assert len(drawn) == 4 and len(dashed) == 1, "what hardly any bootstrap has is left out"
    assert {"100 %", "80 %", "55 %", "45 %"} <= set(said(ax).split("\n"))
    widths = [p.get_linewidth() for p in drawn if p not in dashed]
    assert widths == sorted(widths, reverse=True) and widths[0] > 1.5 * widths[2]
    assert "not in the tree" in said(ax) and {"1", "2", "3", "4"} <= set(said(ax).split("\n"))


def test_tree_over_the_section_lies_where_the_groups_are():
    adata = make(rows=20, columns=40)
    nodes = nodes_of(sm.pl.trajectory_tree(adata, on_section=True, level="piece", ax=axes(9, 6)))
    table = adata.uns["pseudotime_nodes"].iloc[4:]
    np.testing.assert_allclose(nodes, table[["x_um", "y_um"]].to_numpy(), atol=60)


def test_lanes_of_a_long_chain_and_of_nodes_at_one_time():
    n = 1500
    chain = pd.DataFrame({"node": [str(i) for i in range(n)], "parent": ["none", *(str(i) for i in range(n - 1))]})
    lanes = _lanes(chain.assign(pseudotime=np.linspace(0, 100, n)))
    assert (lanes == 0).all()
    close = chain.head(3).assign(pseudotime=[0.1, 0.11, 0.5])
    assert abs(np.diff(_lanes(close)[:2])[0]) >= 0.45


def test_a_single_group_and_groups_without_order():
    adata = make()
    nodes = adata.uns["pseudotime_nodes"]
    adata.uns["pseudotime_nodes"] = nodes.head(1)
    adata.uns["pseudotime_edges"] = adata.uns["pseudotime_edges"].head(0)
    assert len(nodes_of(sm.pl.trajectory_tree(adata, ax=axes()))) == 1
    adata.uns["pseudotime_nodes"] = nodes.head(4).assign(pseudotime=[0.1, np.nan, 0.6, 0.9], parent="none")
    assert len(nodes_of(sm.pl.trajectory_tree(adata, ax=axes()))) == 3
    assert len(nodes_of(sm.pl.trajectory_tree(adata, on_section=True, ax=axes()))) == 4
    assert size_in(adata.uns["pseudotime_nodes"])[1] >= 2.3


# -- genes ----------------------------------------------------------------------------------------------------


def slow_course(adata, values, n_bins):
    """Weighted means and standard errors, point by point and block by block."""
    order, xy = adata.obs["pseudotime"].to_numpy(), adata.obsm["spatial_um"]
    known = np.isfinite(order)
    side = np.ptp(xy, axis=0).max() / BLOCKS
    block = [tuple(np.floor((p - xy.min(axis=0)) / side)) for p in xy]
    low, high = order[known].min(), order[known].max()
    bins = np.minimum(np.floor(N_FINE * (order - low) / (high - low)), N_FINE - 1)
    middle = low + (high - low) * (bins + 0.5) / N_FINE
    found = []
    for t in np.linspace(low, high, 80):
        w = np.where(known, np.exp(-0.5 * ((middle - t) / ((high - low) / (2 * n_bins))) ** 2), 0.0)
        mean = np.nansum(w * values) / np.nansum(w)
        sums, sizes = {}, {}
        for i in np.flatnonzero(known):
            sums[block[i]] = sums.get(block[i], 0.0) + w[i] * (values[i] - mean)
            sizes[block[i]] = sizes.get(block[i], 0.0) + w[i]
        many = sum(sizes.values()) ** 2 / sum(s * s for s in sizes.values())
        found.append((mean, np.sqrt(sum(s * s for s in sums.values()) * many / (many - 1)) / sum(sizes.values())))
    return np.array(found).T


def test_course_is_the_slow_one():
    adata = make()
    values = np.random.default_rng(1).normal(size=(adata.n_obs, 1))
    known = np.isfinite(adata.obs["pseudotime"].to_numpy())
    _, mean, error = courses(adata, "pseudotime", values, known, 6)
    slow_mean, slow_error = slow_course(adata, values[:, 0], 6)
    np.testing.assert_allclose(mean[:, 0], slow_mean, rtol=1e-9)
    np.testing.assert_allclose(error[:, 0], slow_error, rtol=1e-9)


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_bands_cover_the_truth_also_where_neighbours_are_alike(shared):
    """Noise of single cells, or one value for each square of tissue: 1.96 errors cover about 95 %."""
    adata = make(rows=60, columns=60)
    rng = np.random.default_rng(2)
    order, xy = adata.obs["pseudotime"].to_numpy(), adata.obsm["spatial_um"]
    known, covered = np.isfinite(order), []
    side = np.ptp(xy, axis=0).max() / BLOCKS
    block = np.unique(np.floor((xy - xy.min(axis=0)) / side), axis=0, return_inverse=True)[1].ravel()
    noise = rng.normal(size=(adata.n_obs, 20)) + shared * rng.normal(size=(block.max() + 1, 20))[block]
    _, mean, error = courses(adata, "pseudotime", 2.0 + noise, known, 8)
    covered = np.abs(mean - 2.0) <= 1.96 * error
    assert 0.88 <= covered.mean() <= 0.99


def test_two_branches_are_two_lines_over_their_own_cells():
    adata = make()
    label = adata.obs["domain"].astype(str).to_numpy()
    adata.layers["v"] = sparse.csr_matrix(np.tile((label == "3")[:, None] + 0.5, (1, adata.n_vars)))
    panels = sm.pl.gene_courses(adata, ["g0", "g1"], branch=("3", "4"), layer="v", axes=grid(1, 2))
    ends = [line.get_ydata() for line in panels[0].get_lines()]
    assert len(ends) == 2
    assert np.nanmax(ends[0]) > 1.3 and np.nanmax(ends[1]) == pytest.approx(0.5)
    assert [t.get_text() for t in panels[1].get_legend().get_texts()] == ["to 3", "to 4"]
    (alone,) = sm.pl.gene_courses(adata, "g0", path=["1", "2"], layer="v", axes=axes())[0].get_lines()
    assert np.nanmax(alone.get_xdata()) < adata.obs["pseudotime"][label == "3"].max()


def test_counts_are_shown_by_library_size_and_other_values_as_they_are():
    adata = make()
    adata.X = sparse.csr_matrix(np.tile(1 + np.arange(adata.n_obs)[:, None] % 7, (1, adata.n_vars)).astype(np.float32))
    (line,) = sm.pl.gene_courses(adata, "g0", axes=axes())[0].get_lines()
    np.testing.assert_allclose(line.get_ydata(), np.log1p(4.0), rtol=1e-5)
    adata.layers["scaled"] = np.full(adata.shape, -0.5)
    ax = sm.pl.gene_courses(adata, "g0", layer="scaled", axes=axes())[0]
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), -0.5)
    assert ax.get_ylabel() == "scaled"


def with_peaks(peaks):
    adata = make(rows=30, columns=30)
    order = np.nan_to_num(adata.obs["pseudotime"].to_numpy())
    values = np.zeros(adata.shape)
    for g, peak in enumerate(peaks):
        values[:, g] = np.exp(-0.5 * ((order - peak) / 0.15) ** 2)
    adata.layers["v"] = values
    adata.uns["transition_genes"] = pd.DataFrame(
        {"gene": [f"g{i}" for i in range(len(peaks))], "effect": 0.1, "zscore": 3.0,
         "pvalue": np.arange(len(peaks)) / 40, "qvalue": np.arange(len(peaks)) / 40}
    )  # fmt: skip
    return adata


def test_genes_are_ordered_by_their_peak():
    peaks = [0.5, 0.9, 0.1, 0.7, 0.3]
    adata = with_peaks(peaks)
    ax = sm.pl.gene_order(adata, layer="v", ax=axes())
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"g{i}" for i in np.argsort(peaks)]
    shown = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(shown.mean(axis=1), 0, atol=1e-9)
    np.testing.assert_allclose(shown.argmax(axis=1) / 79, sorted(peaks), atol=0.06)
    assert "3 of these 5 have q ≤ 0.05" in said(ax)
    two = sm.pl.gene_order(adata, n_genes=2, layer="v", ax=axes())
    assert [t.get_text() for t in two.get_yticklabels()] == ["g0", "g1"]
    flat = sm.pl.gene_order(adata, ["g0", "g9"], layer="v", ax=axes())
    assert np.isfinite(np.asarray(flat.images[0].get_array())).all(), "a gene that does not change is white"


def test_order_of_genes_that_peak_together_follows_what_is_above_their_mean():
    z = np.array([[2.0, 2.0, -1.0], [1.0, -1.0, 2.0], [-3.0, -1.0, -1.0]])
    assert list(peak_order(z)) == [1, 0, 2]


def test_the_table_is_read_most_significant_first():
    adata = with_peaks([0.5, 0.9, 0.1])
    table = adata.uns["transition_genes"].assign(pvalue=[0.5, 0.01, 0.01], effect=[1.0, 0.1, -0.7])
    adata.uns["transition_genes"] = table
    assert list(transition_table(adata)["gene"]) == ["g2", "g1", "g0"]


# -- what is not there, and what must not happen --------------------------------------------------------------

PLOTS = {
    "pseudotime": lambda a: sm.pl.pseudotime(a, ax=axes()),
    "uncertainty": lambda a: sm.pl.pseudotime(a, uncertainty=True, ax=axes()),
    "tree": lambda a: sm.pl.trajectory_tree(a, ax=axes()),
    "tree on section": lambda a: sm.pl.trajectory_tree(a, on_section=True, ax=axes()),
    "fates": lambda a: sm.pl.fates(a, axes=grid(1, 2)),
    "courses": lambda a: sm.pl.gene_courses(a, list(a.var_names[:2]), axes=grid(1, 2)),
    "order": lambda a: sm.pl.gene_order(a, list(a.var_names[:4]), ax=axes()),
}


@pytest.mark.parametrize("name", PLOTS)
def test_without_a_trajectory_the_cure_is_named(name):
    with pytest.raises(sm.InputError, match=r"run sm\.tl\.trajectory\(adata, root\)"):
        PLOTS[name](stored_section.make())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: sm.pl.trajectory_tree(a, level="leaf", ax=axes()), "unknown level 'leaf'"),
        (lambda a: sm.pl.gene_courses(a, "nothing", axes=axes()), "unknown gene 'nothing'"),
        (lambda a: sm.pl.gene_courses(a, [], axes=axes()), "1 to 40 genes"),
        (lambda a: sm.pl.gene_courses(a, "g0", branch=("3", "9"), axes=axes()), "unknown group '9'"),
        (lambda a: sm.pl.gene_courses(a, "g0", path="3", branch=("3", "4"), axes=axes()), "cannot both"),
        (lambda a: sm.pl.gene_courses(a, "g0", path=["none of these"], axes=axes()), "no ordered cell"),
        (lambda a: sm.pl.gene_courses(a, "g0", n_bins=0, axes=axes()), "n_bins must be at least 1"),
        (lambda a: sm.pl.gene_courses(a, "g0", layer="no", axes=axes()), r"layers\['no'\] is missing"),
        (lambda a: sm.pl.gene_courses(a, ["g0", "g1"], axes=axes()), "needs 2 axes"),
        (lambda a: sm.pl.gene_order(a, ax=axes()), r"transition_genes.*or name genes="),
        (lambda a: sm.pl.gene_order(a, [], ax=axes()), "nothing to show"),
        (lambda a: sm.pl.pseudotime(a, "domain", ax=axes()), r"obs\['domain'\] is no order of cells; found: category"),
        (lambda a: stored_tree(a, "emt", "group"), r"emt_nodes.*run sm\.tl\.trajectory"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(sm.InputError, match=words):
        call(make([*"1234"]))


def test_a_table_that_lacks_a_column_or_orders_nothing():
    adata = make()
    adata.uns["pseudotime_nodes"] = adata.uns["pseudotime_nodes"].drop(columns="branch")
    with pytest.raises(sm.InputError, match="lacks branch"):
        sm.pl.trajectory_tree(adata, ax=axes())
    adata.obs["pseudotime"] = np.nan
    with pytest.raises(sm.InputError, match="orders no cell"):
        sm.pl.pseudotime(adata, ax=axes())
    adata.uns["transition_genes"] = pd.DataFrame({"gene": [], "effect": [], "pvalue": [], "qvalue": []})
    with pytest.raises(sm.InputError, match="holds no gene"):
        transition_table(adata)


@pytest.mark.parametrize("name", PLOTS)
def test_hostile_names_are_drawn_as_they_are_and_nothing_is_written(name):
    adata = make(stored_section.HOSTILE[:4])
    adata.var_names = [stored_section.HOSTILE[i] if i < 8 else f"g{i}" for i in range(adata.n_vars)]
    before = adata.copy()
    plot = np.asarray(PLOTS[name](adata), dtype=object).ravel()[0]
    assert b"<script" not in render(plot.get_figure(root=True), "svg", dpi=40)
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert set(adata.obsm) == set(before.obsm) and set(adata.uns) == set(before.uns)


def test_same_bytes_again():
    def drawn() -> bytes:
        return render(sm.pl.trajectory_tree(make(), on_section=True, ax=axes()).get_figure(root=True), "svg", dpi=60)

    assert drawn() == drawn()


def test_figures_of_their_own(monkeypatch):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    adata = make()
    for plot in (sm.pl.pseudotime, sm.pl.trajectory_tree, sm.pl.fates):
        figure = np.asarray(plot(adata), dtype=object).ravel()[0].figure
        assert figure.get_size_inches().min() > 1.5
    assert len(sm.pl.gene_courses(adata, [f"g{i}" for i in range(5)])[0].figure.axes) == 5
    assert sm.pl.gene_order(adata, ["g0", "g1"]).figure.get_size_inches()[1] > 2
    plt.close("all")
