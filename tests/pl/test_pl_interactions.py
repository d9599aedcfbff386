"""Figures of pairs show what is stored: where, which way, between which types; and nothing else."""

from __future__ import annotations

import itertools
import time

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon
from scipy import sparse
from skimage.color import deltaE_ciede2000, rgb2lab

import smeld as sm
import stored_section
from smeld import _keys
from smeld.kernels.graph import spatial_graph
from smeld.pl import _colors, _places, pair_maps, type_network
from smeld.pl._save import render

PAIRS = [("g0", "g1"), ("g1", "g2+g3"), ("g4", "g5"), ("g6", "g_7")]
#: the plots that are called with the data alone
PLOTS = [
    "interactions",
    "interaction_map",
    "colocation",
    "interaction_arrows",
    "celltype_network",
    "celltype_heatmap",
    "qq",
]


def axes(width: float = 6.0, height: float = 5.0):
    with sm.pl.style():
        return Figure(figsize=(width, height), layout="compressed").subplots()


def celltype_rows(types: list[str], pairs: list[tuple[str, str]], seed: int = 0) -> pd.DataFrame:
    """Every pair from every type to every other, a third of them significant."""
    rng = np.random.default_rng(seed)
    rows = []
    for (ligand, receptor), sender, receiver in itertools.product(pairs, types, types):
        z = float(rng.normal() + 8 * (rng.random() < 1 / 3))
        rows.append((f"{ligand}_{receptor}", ligand, receptor, sender, receiver, 1.0, 0.5, z))
    columns = ["pair", "ligand", "receptor", "sender", "receiver", "observed", "expected", "zscore"]
    table = pd.DataFrame(rows, columns=columns)
    table["pvalue"] = 10.0 ** -np.clip(table["zscore"], 0, None)
    table["qvalue"] = np.minimum(1.0, 2 * table["pvalue"])
    return table.sort_values("pvalue", ignore_index=True)


def quantiles() -> pd.DataFrame:
    expected = -np.log10((np.arange(50) + 0.5) / 50)
    parts = [
        pd.DataFrame({"set": name, "expected": expected, "observed": expected * factor})
        for name, factor in (("pairs", 6.0), ("surrogates", 1.0), ("decoys", 1.3))
    ]
    return pd.concat(parts, ignore_index=True)


def make(section=None, pairs=PAIRS, **options):
    """The stored section with pairs: three significant, of which two have values in the left and the upper half."""
    adata = stored_section.make(**options) if section is None else section
    xy = adata.obsm["spatial_um"]
    adata.uns["interactions"] = pd.DataFrame(
        {
            "ligand": [a for a, _ in pairs],
            "receptor": [b for _, b in pairs],
            "range": ["secreted", "contact", "other", "unknown"],
            "effect": 0.1,
            "zscore": [5.0, 4.0, 3.0, 0.5],
            "pvalue": [1e-6, 1e-5, 1e-3, 0.3],
            "qvalue": [1e-5, 1e-4, 0.01, 0.3],
            "n_spots_significant": [0, 0, 0, 0],
        }
    )
    middle = np.median(xy, axis=0)
    local = np.zeros((adata.n_obs, 3))
    local[:, 0] = np.where(xy[:, 0] < middle[0], 1 + xy[:, 1] / xy[:, 1].max(), 0)
    local[:, 1] = np.where(xy[:, 1] < middle[1], 2.0, 0)
    adata.obsm["interactions_local"] = sparse.csr_matrix(local)
    adata.obsp["spatial_connectivities"] = spatial_graph(xy).connectivities
    params = {"local": "significant", "lambda_surrogate": 1.02, "lambda_decoy": 1.31}
    _keys.record(adata, "interactions", function="sm.tl.interactions", params=params, seed=0)
    adata.uns["interactions_qq"] = quantiles()
    adata.obs["cell_type"] = adata.obs["domain"]
    adata.uns["celltype_interactions"] = celltype_rows(list(adata.obs["cell_type"].cat.categories), pairs)
    return adata


def said(ax) -> str:
    """All words in and beside the axes."""
    legend = ax.get_legend()
    words = [ax.get_title(), ax.get_title(loc="left"), *(t.get_text() for t in ax.texts)]
    if legend is not None:
        words += [t.get_text() for t in legend.get_texts()] + [legend.get_title().get_text()]
    return "\n".join(words)


# -- where a pair lies together -------------------------------------------------------------------------------


def test_map_shows_the_score_where_significant_and_grey_elsewhere():
    adata = make()
    ax = sm.pl.interaction_map(adata, ax=axes())
    colors = np.asarray(ax.collections[0].get_facecolor())
    score = adata.obsm["interactions_local"].toarray()[:, 0]
    assert {to_hex(c).upper() for c in colors[score == 0]} == {_colors.MISSING}
    wanted = _colors.colormap("viridis")(np.clip(score / np.quantile(score[score > 0], 0.995), 0, 1))
    np.testing.assert_allclose(colors[score > 0], wanted[score > 0], atol=1e-6)
    assert f"significant in {(score > 0).sum()} of 168 spots" in said(ax) and "g0 – g1" in said(ax)


@pytest.mark.parametrize("pair", [("g1", "g2+g3"), ["g1", "g2+g3"], "g1_g2+g3", 1, np.int64(1)])
def test_a_pair_is_named_in_several_ways(pair):
    assert "g1 – g2+g3" in said(sm.pl.interaction_map(make(), pair, ax=axes()))


def test_a_name_with_the_mark_between_names_in_it():
    adata = make()
    adata.uns["interactions"].loc[3, "qvalue"] = 0.04
    adata.obsm["interactions_local"] = sparse.csr_matrix(np.ones((adata.n_obs, 4)))
    assert "g6 – g_7" in said(sm.pl.interaction_map(adata, "g6_g_7", ax=axes()))


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("g1_g2+g4", r"did you mean 'g1_g2\+g3'"),
        (("g1", "g0"), r"other way round.*\('g0', 'g1'\)"),
        (4, "rows 0 to 3"),
        (-1, "no row -1"),
        (True, "LIGAND_RECEPTOR"),
        (("g0",), "LIGAND_RECEPTOR"),
        (1.5, "LIGAND_RECEPTOR"),
    ],
)
def test_a_pair_that_is_not_there(pair, words):
    with pytest.raises(sm.InputError, match=words):
        sm.pl.interaction_map(make(), pair, ax=axes())


def test_a_pair_without_values_in_spots_says_why():
    adata = make()
    with pytest.raises(sm.InputError, match=r"q = 0\.3: they are kept for significant pairs only"):
        sm.pl.interaction_map(adata, 3, ax=axes())
    del adata.obsm["interactions_local"]
    adata.uns["smeld"]["interactions"]["params"]["local"] = "none"
    for plot in (sm.pl.interaction_map, sm.pl.interaction_arrows):
        with pytest.raises(sm.InputError, match=r"local='none'.*run sm\.tl\.interactions\(adata, local='significant'"):
            plot(adata, ax=axes())
    del adata.uns["smeld"]
    with pytest.raises(sm.InputError, match="0 of 4 pairs have such values"):
        sm.pl.interaction_map(adata, ax=axes())
    adata.uns["interactions"] = adata.uns["interactions"].iloc[:0]
    with pytest.raises(sm.InputError, match=r"no pair.*run sm\.tl\.interactions"):
        sm.pl.interaction_map(adata, ax=axes())


def test_a_significant_pair_may_have_no_significant_spot():
    adata = make()
    ax = sm.pl.interaction_map(adata, 2, ax=axes())
    assert {to_hex(c).upper() for c in ax.collections[0].get_facecolor()} == {_colors.MISSING}
    assert "significant in 0 of 168 spots" in said(ax)
    assert "significant in 0 of 168 spots" in said(sm.pl.interaction_arrows(adata, 2, ax=axes()))


def test_a_few_spots_among_many_are_wide_enough_to_be_seen():
    adata = make(rows=60, columns=60)
    local = np.zeros((adata.n_obs, 1))
    local[[7, 1800]] = 1.0
    adata.obsm["interactions_local"] = sparse.csr_matrix(local)
    ax = sm.pl.interaction_map(adata, ax=axes())
    above = ax.collections[-1]
    np.testing.assert_allclose(above.get_offsets(), adata.obsm["spatial_um"][[7, 1800]])
    assert above.get_sizes()[0] >= pair_maps.LEAST_PT**2


# -- ligand and receptor in one map ---------------------------------------------------------------------------


def test_colours_of_the_two_partners():
    adata = make()
    counts = np.zeros((adata.n_obs, adata.n_vars), dtype=np.float32)
    third = adata.n_obs // 4
    counts[third : 3 * third, 0] = 5  # the ligand
    counts[2 * third :, 1] = 3
    adata.X = sparse.csr_matrix(counts)
    colors = [
        to_hex(c).upper() for c in sm.pl.colocation(adata, ("g0", "g1"), ax=axes()).collections[0].get_facecolor()
    ]
    wanted = [pair_maps.NEITHER, pair_maps.LIGAND, pair_maps.BOTH, pair_maps.RECEPTOR]
    assert [colors[i * third + 3] for i in range(4)] == wanted


def test_a_complex_is_its_scarcest_subunit():
    adata = make()
    adata.X = sparse.csr_matrix(adata.X.toarray())
    least = np.minimum(adata[:, "g2"].X.toarray(), adata[:, "g3"].X.toarray()).ravel()
    whole = sm.pl.colocation(adata, "g1_g2+g3", ax=axes()).collections[0].get_facecolor()
    adata.X = sparse.csr_matrix(np.column_stack([adata.X.toarray()[:, :2], least, adata.X.toarray()[:, 3:]]))
    np.testing.assert_allclose(whole, sm.pl.colocation(adata, ("g1", "g2"), ax=axes()).collections[0].get_facecolor())


def test_the_square_of_colours_says_what_its_sides_are():
    adata = make()
    square = sm.pl.colocation(adata, 0, ax=axes()).child_axes[0]
    assert (square.get_xlabel(), square.get_ylabel()) == ("g0", "g1")
    most = np.quantile(np.log1p(adata[:, "g0"].X.toarray()), 0.995)
    assert square.get_xticklabels()[1].get_text() == f"{most:.2g}"
    adata.layers["scaled"] = -adata.X.toarray()
    assert sm.pl.colocation(adata, 0, layer="scaled", ax=axes()).child_axes[0].get_title(loc="left") == "scaled"


def test_colocation_needs_no_table_for_two_genes():
    adata = stored_section.make()
    assert sm.pl.colocation(adata, ("g0", "g1"), ax=axes())
    with pytest.raises(sm.InputError, match=r"run sm\.tl\.interactions"):
        sm.pl.colocation(adata, "g0_g1", ax=axes())
    with pytest.raises(sm.InputError, match=r"unknown gene 'G0'.*did you mean 'g0'"):
        sm.pl.colocation(adata, ("G0", "g1"), ax=axes())
    with pytest.raises(sm.InputError, match="layers"):
        sm.pl.colocation(adata, ("g0", "g1"), layer="nothing", ax=axes())


def test_missing_values_are_grey():
    adata = make()
    adata.layers["part"] = adata.X.toarray()
    adata.layers["part"][5, 0] = np.nan
    ax = sm.pl.colocation(adata, 0, layer="part", ax=axes())
    assert to_hex(ax.collections[0].get_facecolor()[5]).upper() == _colors.MISSING


# protanopia, deuteranopia, tritanopia: Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB
EYES = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("eye", EYES)
def test_mixtures_of_the_two_partners_are_distinct(eye):
    rgb = pair_maps._mixed(*np.meshgrid([0.0, 0.5, 1.0], [0.0, 0.5, 1.0])).reshape(-1, 4)[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(EYES[eye]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    found = deltaE_ciede2000(lab[:, None], lab[None])
    assert found[~np.eye(9, dtype=bool)].min() > 15


# -- which way it points --------------------------------------------------------------------------------------


def arrows_of(ax):
    return next(c for c in ax.collections if c.get_gid() == "arrows")


def with_ligand(where) -> object:
    """The first pair's ligand in some spots only; all spots significant."""
    adata = make(rows=10, columns=10)
    xy = adata.obsm["spatial_um"]
    counts = adata.X.toarray()
    counts[:, 0] = np.where(where(xy - xy.mean(axis=0)), 9, 0)
    adata.X = sparse.csr_matrix(counts)
    adata.obsm["interactions_local"] = sparse.csr_matrix(np.full((adata.n_obs, 1), 2.0))
    return adata


def test_arrows_point_away_from_the_ligand_to_the_receiver():
    for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1)):
        adata = with_ligand(lambda xy, axis=axis, sign=sign: sign * xy[:, axis] > 0)
        arrows = arrows_of(sm.pl.interaction_arrows(adata, ax=axes(), bin_um=1.0))
        way = np.column_stack([arrows.U, arrows.V])
        edge = np.abs(adata.obsm["spatial_um"] - adata.obsm["spatial_um"].mean(axis=0))[:, axis] < 60
        drawn = arrows.XY  # the tips: the receivers, in the order of their squares
        near = np.abs(drawn - adata.obsm["spatial_um"].mean(axis=0))[:, axis] < 60
        assert near.sum() == edge.sum() > 5
        receiving = near & (sign * (drawn - adata.obsm["spatial_um"].mean(axis=0))[:, axis] <= 0)
        assert (sign * way[receiving, axis] < 0).all()


def test_an_arrow_is_as_long_as_its_score_and_as_its_ligand_is_one_sided():
    adata = with_ligand(lambda xy: xy[:, 0] > -1e9)
    xy = adata.obsm["spatial_um"]
    where = np.arange(adata.n_obs)
    way = pair_maps._towards(xy, adata.obsp["spatial_connectivities"], np.ones(adata.n_obs), where)
    inner = np.asarray(adata.obsp["spatial_connectivities"].sum(axis=1)).ravel() == 6
    assert np.hypot(*way[inner].T).max() < 1e-9  # from all sides
    one = np.zeros(adata.n_obs)
    sender = int(np.flatnonzero(inner)[0])
    one[sender] = 3.0
    way = pair_maps._towards(xy, adata.obsp["spatial_connectivities"], one, where)
    receivers = adata.obsp["spatial_connectivities"][sender].indices
    np.testing.assert_allclose(way[receivers], (xy[receivers] - xy[sender]) / 100.0, atol=1e-6)
    assert np.hypot(*way.T).sum() == pytest.approx(6.0)  # no arrow elsewhere


def test_spots_in_a_square_share_an_arrow():
    adata = make(rows=40, columns=40)
    every = arrows_of(sm.pl.interaction_arrows(adata, ax=axes(), bin_um=1.0))
    score = adata.obsm["interactions_local"].toarray()[:, 0]
    assert len(every.XY) == (score > 0).sum()
    few = arrows_of(sm.pl.interaction_arrows(adata, ax=axes(), bin_um=500.0))
    assert 20 < len(few.XY) < len(every.XY) / 15
    xy, mean = np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]]), np.array([[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]])
    tips, arrows = pair_maps._thinned(xy, mean, 5.0)
    np.testing.assert_allclose(tips, [[0.5, 0.5], [9, 9]])
    np.testing.assert_allclose(arrows, [[1, 2], [1, 1]])


def test_arrows_that_cannot_be_drawn():
    adata = make()
    with pytest.raises(sm.InputError, match="bin_um must be above 0"):
        sm.pl.interaction_arrows(adata, ax=axes(), bin_um=0.0)
    nothing = adata.copy()
    nothing.X = sparse.csr_matrix(np.zeros(nothing.shape, dtype=np.float32))
    assert not [c for c in sm.pl.interaction_arrows(nothing, ax=axes()).collections if c.get_gid() == "arrows"]
    del adata.obsp["spatial_connectivities"]
    with pytest.raises(sm.InputError, match=r"spatial_connectivities.*sm\.fuse"):
        sm.pl.interaction_arrows(adata, ax=axes())


# -- who sends to whom ----------------------------------------------------------------------------------------


def with_types(n: int, *, letters: int = 12, n_obs: int = 900):
    """Patches of ``n`` types."""
    side = int(np.sqrt(n_obs))
    adata = stored_section.make(rows=side, columns=side)
    xy = adata.obsm["spatial_um"]
    centres = xy[np.random.default_rng(n).choice(len(xy), n, replace=False)]
    nearest = ((xy[:, None] - centres[None]) ** 2).sum(axis=2).argmin(axis=1)
    names = [f"type {i} {'x' * letters}"[:letters] for i in range(n)]
    adata.obs["cell_type"] = pd.Categorical.from_codes(nearest, names)
    adata.uns["celltype_interactions"] = celltype_rows(names, PAIRS)
    return adata


def arrows_between(ax) -> tuple[list[FancyArrowPatch], list[Polygon]]:
    between = [p for p in ax.patches if p.get_gid() == "arrow"]
    own = [p for p in ax.patches if p.get_gid() == "self"]
    return between, own


def test_network_draws_what_is_significant():
    adata = make()
    rows = adata.uns["celltype_interactions"]
    found = rows[rows["qvalue"] <= 0.05].groupby(["sender", "receiver"]).size()
    own = sum(a == b for a, b in found.index)
    between, loops = arrows_between(sm.pl.celltype_network(adata, ax=axes()))
    assert len(loops) == own > 0 and len(between) == len(found) - own > 0
    widest = sm.pl.celltype_network(adata, ax=axes(), n_arrows=3)
    assert sum(map(len, arrows_between(widest))) == 3
    assert f"the widest 3 of {len(found)} arrows" in said(widest)
    with pytest.raises(sm.InputError, match="n_arrows=0"):
        sm.pl.celltype_network(adata, ax=axes(), n_arrows=0)


def test_network_of_one_pair():
    adata = make()
    rows = adata.uns["celltype_interactions"]
    rows = rows[(rows["pair"] == "g4_g5") & (rows["qvalue"] <= 0.05)]
    ax = sm.pl.celltype_network(adata, ("g4", "g5"), ax=axes())
    assert sum(map(len, arrows_between(ax))) == len(rows) > 0
    assert "g4 – g5" in said(ax) and "z-score" in said(ax)
    assert f"{rows['zscore'].max():.3g}" in said(ax)
    with pytest.raises(sm.InputError, match=r"unknown pair 'g4_g6'"):
        sm.pl.celltype_network(adata, "g4_g6", ax=axes())


def test_arrows_are_as_wide_as_their_number_of_pairs():
    adata = make()
    rows = adata.uns["celltype_interactions"]
    rows["qvalue"] = 1.0
    rows.loc[(rows["sender"] == "1") & (rows["receiver"] == "2"), "qvalue"] = 0.01
    rows.loc[(rows["sender"] == "3") & (rows["receiver"] == "1") & (rows["pair"] == "g0_g1"), "qvalue"] = 0.01
    between, _ = arrows_between(sm.pl.celltype_network(adata, ax=axes()))
    widths = {to_hex(p.get_facecolor()).upper(): p.get_arrowstyle().tail_width for p in between}
    colors = sm.pl.palette(4)
    expected = type_network._widths(np.array([4.0, 1.0]), 4.0)
    assert widths[colors[0]] == pytest.approx(expected[0])
    assert widths[colors[2]] == pytest.approx(expected[1])


def test_a_type_stands_where_it_is_dense():
    ring = np.column_stack([np.cos(np.linspace(0, 6.28, 400)), np.sin(np.linspace(0, 6.28, 400))]) * 500
    place = _places.middle(ring, 1000.0)
    assert np.hypot(*(ring - place).T).min() == 0 and np.hypot(*place) > 400
    rng = np.random.default_rng(0)
    small, large = rng.normal(0, 20, (60, 2)), rng.normal(0, 40, (300, 2)) + 800
    both = np.vstack([small, large])
    assert np.hypot(*(_places.middle(both, 1000.0) - 800)) < 40
    mixed = both[rng.permutation(len(both))]
    np.testing.assert_array_equal(_places.middle(mixed, 1000.0), _places.middle(both, 1000.0))
    assert _places.middle(small[:1], 1000.0).tolist() == small[0].tolist()
    assert _places.middle(np.zeros((5, 2)), 0.0).tolist() == [0, 0]


def test_nodes_keep_apart_and_inside():
    points = np.array([[50.0, 50.0]] * 12 + [[0.0, 0.0]])
    low, high = np.zeros(2), np.full(2, 200.0)
    out = _places.apart(points, 30.0, low, high)
    distance = np.hypot(*(out[:, None] - out[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 28 and (out >= low).all() and (out <= high).all()


@pytest.mark.parametrize("n", [1, 4, 12, 18])
def test_no_name_lies_over_another_or_over_a_node(n):
    ax = sm.pl.celltype_network(with_types(n, letters=16), ax=axes())
    ax.get_figure().draw_without_rendering()
    names = [t for t in ax.texts if t.get_text().startswith("type")]
    boxes = [t.get_window_extent() for t in names]
    assert len(boxes) == n
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    nodes = [line.get_window_extent() for line in ax.lines if line.get_gid() == "node"]
    centres = [((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2) for b in nodes]
    assert len(centres) == n
    assert not any(box.contains(*centre) for box in boxes for centre in centres)
    frame = ax.get_window_extent()
    assert all(box.x0 >= frame.x0 - 2 and box.x1 <= frame.x1 + 2 for box in boxes)


def test_many_types_are_numbered_and_named_in_the_legend():
    ax = sm.pl.celltype_network(with_types(30, letters=60), ax=axes(12, 5))
    numbers = [t.get_text() for t in ax.texts if t.get_text().isdigit()]
    assert numbers == [str(i) for i in range(1, 31)]
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words[0].startswith("1  type 0") and words[29].startswith("30  type 29") and "significant pairs" in words


def test_network_does_not_depend_on_the_order_of_cells():
    adata = make()
    mixed = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()

    def nodes(data):
        ax = sm.pl.celltype_network(data, ax=axes())
        return [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines if line.get_gid() == "node"]

    np.testing.assert_allclose(nodes(adata), nodes(mixed))


def test_nothing_significant_between_types_is_said():
    adata = make()
    adata.uns["celltype_interactions"]["qvalue"] = 0.7
    ax = sm.pl.celltype_network(adata, ax=axes())
    assert arrows_between(ax) == ([], []) and "nothing significant" in said(ax)
    assert "none with q" in heat_words(sm.pl.celltype_heatmap(adata, ax=axes()))


def test_labels_of_the_cells():
    adata = make()
    del adata.obs["cell_type"]
    with pytest.raises(sm.InputError, match="cell_type"):
        sm.pl.celltype_network(adata, ax=axes())
    by_name = sm.pl.celltype_network(adata, ax=axes(), groups="domain")
    _keys.record(adata, "celltype_interactions", function="f", params={"groups": "domain"})
    by_record = sm.pl.celltype_network(adata, ax=axes())
    shares = sm.pl.celltype_network(adata, ax=axes(), groups="domain_prob")
    for ax in (by_record, shares):
        assert list(map(len, arrows_between(ax))) == list(map(len, arrows_between(by_name)))
    adata.obs["other"] = pd.Categorical(["x"] * adata.n_obs)
    with pytest.raises(sm.InputError, match=r"labels x.*made with: groups="):
        sm.pl.celltype_network(adata, ax=axes(), groups="other")
    with pytest.raises(sm.InputError, match="names of types"):
        sm.pl.celltype_network(adata, ax=axes(), groups="X_pca")
    adata.obs.loc[adata.obs_names[:50], "domain"] = np.nan
    assert sm.pl.celltype_network(adata, ax=axes())


# -- types x types x pairs ------------------------------------------------------------------------------------


def heat_words(ax) -> str:
    return "\n".join(t.get_text() for t in ax.child_axes[0].texts)


def test_heatmap_holds_the_z_scores_where_they_belong():
    adata = make()
    ax = sm.pl.celltype_heatmap(adata, ax=axes(), n_pairs=3, n_links=6)
    pairs = [t.get_text() for t in ax.get_yticklabels()]
    links = [t.get_text() for t in ax.get_xticklabels()]
    rows = adata.uns["celltype_interactions"]
    assert len(pairs) == 3 and len(links) == 6
    assert pairs[0] == "{ligand} – {receptor}".format(**rows.iloc[0])  # most significant on top
    assert links == sorted(links)
    z = np.asarray(ax.collections[0].get_array()).reshape(3, 6)
    table = rows.set_index(["ligand", "receptor", "sender", "receiver"])
    dots = {(int(x), int(y)) for x, y in ax.collections[1].get_offsets()}
    for (i, pair), (j, link) in itertools.product(enumerate(pairs), enumerate(links)):
        row = table.loc[(*pair.split(" – "), *link.split(" → "))]
        assert z[i, j] == pytest.approx(row["zscore"])
        assert ((j, i) in dots) == (row["qvalue"] <= 0.05)


def test_what_was_not_tested_is_white():
    adata = make()
    rows = adata.uns["celltype_interactions"]
    gone = (rows["sender"] == "1") & (rows["receiver"] == "2") & (rows["pair"] == "g0_g1")
    adata.uns["celltype_interactions"] = rows[~gone]
    mesh = sm.pl.celltype_heatmap(adata, ax=axes()).collections[0]
    assert np.ma.getmaskarray(mesh.get_array()).sum() == 1
    assert to_rgba(mesh.get_cmap().get_bad()) == (1.0, 1.0, 1.0, 1.0)


def test_columns_follow_the_order_of_the_labels():
    adata = make()
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.reorder_categories(["4", "2", "1", "3"])
    links = [t.get_text() for t in sm.pl.celltype_heatmap(adata, ax=axes(), n_links=16).get_xticklabels()]
    assert [link[0] for link in links] == [*"4444", *"2222", *"1111", *"3333"]
    del adata.obs["cell_type"]
    links = [t.get_text() for t in sm.pl.celltype_heatmap(adata, ax=axes(), n_links=16).get_xticklabels()]
    assert links[0] == "1 → 1"
    with pytest.raises(sm.InputError, match="nowhere"):
        sm.pl.celltype_heatmap(adata, ax=axes(), groups="nowhere")


@pytest.mark.parametrize(("n_types", "n_pairs"), [(1, 1), (12, 30)])
def test_names_of_a_heatmap_do_not_touch(n_types, n_pairs):
    names = [f"LIGAND{i}" for i in range(n_pairs)]
    adata = with_types(n_types, letters=40)
    types = list(adata.obs["cell_type"].cat.categories)
    pairs = [(name, "RECEPTOR1+RECEPTOR2") for name in names]
    adata.uns["celltype_interactions"] = celltype_rows(types, pairs)
    with mpl.rc_context({"backend": "agg"}):
        ax = sm.pl.celltype_heatmap(adata, n_pairs=30)
    figure = ax.get_figure()
    figure.draw_without_rendering()
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        boxes = [t.get_window_extent() for t in labels]
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
        assert all(b.x0 >= -1 and b.y0 >= -1 for b in boxes)
    cell = ax.get_window_extent().width / len(ax.get_xticklabels()) / figure.dpi
    assert cell > 0.15  # inches
    from matplotlib import pyplot as plt

    plt.close("all")


def test_heatmap_without_anything_to_show():
    adata = make()
    with pytest.raises(sm.InputError, match="n_pairs=0"):
        sm.pl.celltype_heatmap(adata, n_pairs=0, ax=axes())
    adata.uns["celltype_interactions"] = adata.uns["celltype_interactions"].drop(columns="sender")
    for plot in (sm.pl.celltype_heatmap, sm.pl.celltype_network):
        with pytest.raises(sm.InputError, match=r"no column sender.*run sm\.tl\.celltype_interactions"):
            plot(adata, ax=axes())
    adata.uns["celltype_interactions"] = adata.uns["celltype_interactions"].iloc[:0]
    with pytest.raises(sm.InputError, match="nothing to show"):
        sm.pl.celltype_heatmap(adata, ax=axes())
    del adata.uns["celltype_interactions"]
    with pytest.raises(sm.InputError, match=r"run sm\.tl\.celltype_interactions"):
        sm.pl.celltype_heatmap(adata, ax=axes())


# -- whether the test holds -----------------------------------------------------------------------------------


def test_quantiles_are_drawn_as_stored():
    adata = make()
    ax = sm.pl.qq(adata, ax=axes())
    rows = adata.uns["interactions_qq"]
    lines = {line.get_label().split(" ")[0]: line for line in ax.lines}
    for name in ("pairs", "surrogates", "decoys"):
        part = rows[rows["set"] == name]
        np.testing.assert_allclose(lines[name].get_xdata(), part["expected"])
        np.testing.assert_allclose(lines[name].get_ydata(), part["observed"])
    words = [t.get_text() for t in ax.get_legend().get_texts()]
    assert words == ["pairs", "surrogates (λ 1.02)", "decoys (λ 1.31)"]
    diagonal = next(line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_xdata()[0] == 0)
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert ax.get_yscale() == "symlog" and "logarithmic above 2" in said(ax)


def test_quantiles_without_lambdas_sets_or_finite_values():
    adata = make()
    params = adata.uns["smeld"]["interactions"]["params"]
    params["lambda_surrogate"] = float("nan")
    params["lambda_decoy"] = "none"
    words = [t.get_text() for t in sm.pl.qq(adata, ax=axes()).get_legend().get_texts()]
    assert words == ["pairs", "surrogates", "decoys"]
    rows = adata.uns["interactions_qq"]
    adata.uns["interactions_qq"] = rows[rows["set"] == "surrogates"]
    ax = sm.pl.qq(adata, ax=axes())
    assert ax.get_yscale() == "linear" and len(ax.get_legend().get_texts()) == 1
    rows = rows.assign(observed=rows["observed"].where(rows.index != 0, np.inf).where(rows.index != 1, np.nan))
    adata.uns["interactions_qq"] = rows
    ax = sm.pl.qq(adata, ax=axes())
    pairs = next(line for line in ax.lines if line.get_label() == "pairs")
    assert np.isfinite(pairs.get_ydata()).all() and len(pairs.get_ydata()) == 49
    del adata.uns["smeld"]
    assert sm.pl.qq(adata, ax=axes())
    adata.uns["interactions_qq"] = rows.iloc[:0]
    with pytest.raises(sm.InputError, match="nothing to show"):
        sm.pl.qq(adata, ax=axes())
    del adata.uns["interactions_qq"]
    with pytest.raises(sm.InputError, match=r"interactions_qq.*run sm\.tl\.interactions"):
        sm.pl.qq(adata, ax=axes())


# -- all of them ----------------------------------------------------------------------------------------------


def settings() -> dict[str, object]:
    return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_written_and_nothing_global_changes(name):
    adata = make()
    before, global_settings = adata.copy(), settings()
    tables = ("interactions", "celltype_interactions", "interactions_qq")
    ax = axes()
    assert getattr(sm.pl, name)(adata, ax=ax) is ax
    render(ax.get_figure(), "png")
    assert settings() == global_settings
    assert list(adata.uns) == list(before.uns) and list(adata.obsm) == list(before.obsm)
    assert list(adata.obs) == list(before.obs) and (adata.X != before.X).nnz == 0
    for table in tables:
        pd.testing.assert_frame_equal(adata.uns[table], before.uns[table])
    local = adata.obsm["interactions_local"] != before.obsm["interactions_local"]
    assert local.nnz == 0


@pytest.mark.parametrize("name", PLOTS)
def test_without_ax_a_pyplot_figure_is_made(name):
    from matplotlib import pyplot as plt

    plt.close("all")
    with mpl.rc_context({"backend": "agg"}):
        ax = getattr(sm.pl, name)(make())
    assert plt.get_fignums() == [ax.get_figure().number]
    plt.close("all")
    getattr(sm.pl, name)(make(image=False), ax=axes())
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", ["interaction_map", "colocation", "interaction_arrows", "celltype_network"])
@pytest.mark.parametrize("image", [True, False])
def test_maps_with_and_without_an_image(name, image):
    ax = getattr(sm.pl, name)(make(), ax=axes(), image=image)
    assert bool(ax.images) == image
    assert ax.yaxis_inverted() and ax.get_aspect() == 1.0
    assert not getattr(sm.pl, name)(make(image=False), ax=axes()).images


@pytest.mark.parametrize("name", PLOTS)
def test_a_title_is_changed_or_left_out(name):
    for title in ("$x$ <b>", ""):
        ax = getattr(sm.pl, name)(make(), ax=axes(), title=title)
        assert (ax.get_title() + ax.get_title(loc="left")).replace("\\", "") == title


@pytest.mark.parametrize("name", PLOTS)
def test_hostile_names_are_drawn_as_they_are(name):
    hostile = stored_section.HOSTILE
    pairs = list(zip(hostile[:4], hostile[4:]))
    adata = make(stored_section.hostile(), pairs)
    adata.uns["interactions_qq"].loc[:3, "set"] = hostile[0]
    options = {} if name in ("interactions", "celltype_network", "celltype_heatmap", "qq") else {"pair": pairs[1]}
    if name == "celltype_network":
        options = {"pair": 2}
    svg = render(getattr(sm.pl, name)(adata, ax=axes(9, 7), **options).get_figure(), "svg").decode()
    assert "<script" not in svg and "<img" not in svg
    assert "\x00" not in svg and "\u202e" not in svg
    if name != "qq":
        assert r"$\frac$" in svg


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", ["interaction_map", "colocation", "interaction_arrows", "celltype_network"])
def test_one_or_two_spots_can_be_drawn(name, n):
    render(getattr(sm.pl, name)(make()[:n].copy(), ax=axes()).get_figure(), "png")


@pytest.mark.parametrize("name", ["interaction_map", "interaction_arrows", "colocation", "celltype_network"])
def test_a_hundred_thousand_cells_are_drawn_quickly(name):
    adata = make(rows=320, columns=320, image=False)
    start = time.perf_counter()
    render(getattr(sm.pl, name)(adata, ax=axes()).get_figure(), "png")
    assert time.perf_counter() - start < 10  # 1 to 3 s alone on one core
