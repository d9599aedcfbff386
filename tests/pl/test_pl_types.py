"""Figures of cell types show what is stored: proportions as maps and pies, confusion with a truth, types in niches."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import smeld as sm
import stored_section
from smeld.pl import _colors, _matrix, given_types, niche_types, type_shares
from smeld.pl._save import render

TYPES = ["A", "B", "$\\frac$", "D"]


def axes(n: int = 1):
    with sm.pl.style():
        return Figure(figsize=(6, 5), layout="compressed").subplots(1, n)


def spots(n_types: int = 4, *, absent: bool = True, **options):
    adata = stored_section.make(**options)
    rng = np.random.default_rng(3)
    share = rng.dirichlet(np.full(n_types, 0.7), adata.n_obs)
    names = [*TYPES, *(f"E{k}" for k in range(n_types))][:n_types]
    frame = pd.DataFrame(share, index=adata.obs_names, columns=names)
    adata.obsm["cell_type_proportions"] = frame
    adata.obsm["cell_type_proportions_low"] = frame * 0.5
    adata.obsm["cell_type_proportions_high"] = np.minimum(frame * 1.5, 1.0)
    if absent:
        adata.obsm["cell_type_proportions_absent"] = (frame < 0.02).astype(float) * 0.9
    return adata


def cells():
    """Labels, truth and sets by hand: of 168 cells every third has two types in its set."""
    adata = stored_section.make()
    rng = np.random.default_rng(5)
    truth = np.array(["A", "B", "C"])[rng.integers(0, 3, adata.n_obs)].astype(object)
    found = np.where(rng.random(adata.n_obs) < 0.2, "B", np.where(truth == "C", "unknown", truth))
    truth[:5] = None
    adata.obs["mine"] = truth
    adata.obs["cell_type"] = pd.Categorical(found, categories=["A", "B", "unknown"])
    member = np.array(["A", "B", "unknown"])[None] == found[:, None]
    member[::3] = [True, True, False]
    adata.obsm["cell_type_set"] = pd.DataFrame(member, index=adata.obs_names, columns=["A", "B", "unknown"])
    return adata


def faces(ax) -> np.ndarray:
    return np.asarray(ax.collections[0].get_facecolor())


@pytest.mark.parametrize(("show", "colors"), [("share", "viridis"), ("width", "cividis_r"), ("absent", "viridis")])
def test_maps_have_the_colours_of_the_stored_values(show: str, colors: str) -> None:
    adata = spots()
    made = sm.pl.proportions(adata, ["B", "A"], show=show, axes=axes(2))
    stored = adata.obsm["cell_type_proportions"]
    wanted = {"share": stored, "width": adata.obsm["cell_type_proportions_high"] - 0.5 * stored,
              "absent": adata.obsm["cell_type_proportions_absent"]}[show]  # fmt: skip
    for ax, name in zip(made, ["B", "A"]):
        top = 1.0 if show == "absent" else np.quantile(wanted[name], 0.995)
        np.testing.assert_allclose(faces(ax), _colors.colormap(colors)(np.clip(wanted[name] / top, 0, 1)), atol=1e-6)
        assert ax.get_title(loc="left") == name


def test_maps_to_be_compared_have_one_scale() -> None:
    adata = spots()
    for ax, name in zip(sm.pl.proportions(adata, ["B", "A"], vmax=0.4, axes=axes(2)), ["B", "A"]):
        share = adata.obsm["cell_type_proportions"][name]
        np.testing.assert_allclose(faces(ax), _colors.colormap("viridis")(np.clip(share / 0.4, 0, 1)), atol=1e-6)
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(sm.InputError, match="vmax must be a number above 0"):
            sm.pl.proportions(adata, vmax=wrong)


def test_the_largest_types_are_shown_where_none_are_named() -> None:
    adata = spots(12)
    mean = adata.obsm["cell_type_proportions"].mean()
    kept = type_shares.chosen(adata.obsm["cell_type_proportions"], None, 9)
    assert set(kept) == set(mean.nlargest(9).index) and kept == [n for n in mean.index if n in kept]


def test_a_region_holds_its_spots_only() -> None:
    adata = spots()
    x, y = adata.obsm["spatial_um"].T
    inside = (x >= 300) & (x <= 800) & (y >= 200) & (y <= 700)
    (ax,) = sm.pl.proportions(adata, ["A"], region_um=(800, 200, 300, 700), axes=axes())
    np.testing.assert_allclose(ax.collections[0].get_offsets(), adata.obsm["spatial_um"][inside])


def _areas(ax) -> dict[str, float]:
    """Area of the slices by colour, of polygons of many corners."""
    out: dict[str, float] = {}
    for path, color in zip(ax.collections[0].get_paths(), ax.collections[0].get_facecolor()):
        x, y = path.vertices[:-1].T
        area = 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))
        out[to_hex(color)] = out.get(to_hex(color), 0.0) + area
    return out


def test_slices_are_as_large_as_shares_and_likely_absent_types_are_grey() -> None:
    adata = spots(absent=True)
    (ax,) = sm.pl.proportions(adata, kind="pie", axes=axes())
    areas, share = _areas(ax), adata.obsm["cell_type_proportions"].to_numpy()
    whole = sum(areas.values())
    palette = [c.lower() for c in _colors.palette(4)]
    drawn = np.where(share < 0.02, 0.0, share)
    for k, color in enumerate(palette):
        assert areas[color] / whole == pytest.approx(drawn[:, k].sum() / adata.n_obs, abs=0.004)
    assert areas[type_shares.OTHER.lower()] / whole == pytest.approx((share - drawn).sum() / adata.n_obs, abs=0.004)
    names = [t.get_text() for t in ax.get_legend().get_texts()]
    assert names[:2] == ["A", "B"] and names[-1] == "likely absent"


def test_types_without_a_name_are_one_slice() -> None:
    adata = spots(absent=False)
    (ax,) = sm.pl.proportions(adata, ["B"], kind="pie", axes=axes())
    areas = _areas(ax)
    share = adata.obsm["cell_type_proportions"]["B"].mean()
    assert areas[_colors.palette(2)[1].lower()] / sum(areas.values()) == pytest.approx(share, abs=0.004)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["B", "3 others"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda x: sum(x) > 1e-3))
def test_a_pie_begins_at_the_top_and_is_whole(shares: list[float]) -> None:
    slices = np.array([shares]) / sum(shares)
    made = type_shares.wedges(np.array([[5.0, 7.0]]), slices, 2.0, ["red"] * len(shares))
    corners = np.vstack([p.vertices for p in made.get_paths()])
    away = np.hypot(*(corners - [5.0, 7.0]).T)
    assert away.max() == pytest.approx(2.0)
    assert ((away > 2 - 1e-9) | (away < 1e-9)).all()
    assert np.abs(corners - [5.0, 5.0]).max(axis=1).min() < 1e-6  # straight up: y points down


def test_more_pies_than_can_be_read_are_a_part_that_is_outlined() -> None:
    adata = spots(rows=20, columns=25)
    (ax,) = sm.pl.proportions(adata, kind="pie", axes=axes())
    drawn = type_shares._readable(adata, np.ones(adata.n_obs, dtype=bool))
    assert 150 <= drawn.sum() <= type_shares.MOST_PIES
    frame = ax.child_axes[-1].patches[0]
    low, high = (f(adata.obsm["spatial_um"][drawn], axis=0) for f in (np.min, np.max))
    np.testing.assert_allclose([*frame.get_xy(), frame.get_width(), frame.get_height()], [*low, *(high - low)])
    with pytest.raises(sm.InputError, match="cannot be read"):
        sm.pl.proportions(adata, kind="pie", region_um=(0, 0, 1e4, 1e4), axes=axes())


def test_confusion_counts_what_pandas_counts() -> None:
    adata = cells()
    found = given_types.counted(adata, "mine", "cell_type", False)
    wanted = pd.crosstab(adata.obs["mine"], adata.obs["cell_type"])
    assert found.down == list(wanted.index) and found.across == list(wanted.columns)
    np.testing.assert_array_equal(found.number, wanted)
    assert found.n_without == 5 and found.several is None


def test_cells_with_several_types_stand_apart_and_rows_are_whole() -> None:
    adata = cells()
    found = given_types.counted(adata, "mine", "cell_type", None)
    part = adata[5:]
    several = part.obsm["cell_type_set"].sum(axis=1) > 1
    assert found.down == ["A", "B", "C"] and found.across == ["A", "B", "unknown"]
    for i, name in enumerate(found.down):
        mine = (part.obs["mine"] == name).to_numpy()
        assert found.several[i] == (mine & several).sum() and found.size[i] == mine.sum()
        held = part.obsm["cell_type_set"][name][mine].sum() if name != "C" else -1
        assert found.held[i] == held
    ax = sm.pl.confusion(adata, "mine", ax=axes())
    first = ax.collections[0].get_array().reshape(3, 3)
    apart = ax.collections[1].get_array().ravel()
    np.testing.assert_allclose(first.sum(axis=1) + apart, 1.0)
    written = [t.get_text() for t in ax.texts]
    assert str(found.number[0, 0]) in written and "-" in written
    assert "5 without a given label" in ax.get_xlabel()


def niched(n: int = 3):
    adata = stored_section.make()
    rng = np.random.default_rng(1)
    shares = pd.DataFrame(rng.dirichlet(np.ones(4), n), index=[f"N{k + 1}" for k in range(n)], columns=TYPES)
    adata.obs["niche"] = pd.Categorical.from_codes(rng.integers(0, n, adata.n_obs), shares.index)
    adata.uns["niche_composition"] = shares
    adata.uns["niche_enrichment"] = np.log2(shares / shares.mean())
    return adata


def test_niches_with_their_sizes_and_numbers() -> None:
    adata = niched()
    ax = sm.pl.niche_heatmap(adata, ax=axes())
    np.testing.assert_allclose(ax.collections[0].get_array(), 100 * adata.uns["niche_composition"])
    sizes = adata.obs["niche"].value_counts()
    assert [t.get_text().split(";")[0] for t in ax.get_yticklabels()] == [
        f"{k} ({sizes[k]}" for k in ("N1", "N2", "N3")
    ]
    first = 100 * adata.uns["niche_composition"].iloc[0, 0]
    assert ax.texts[0].get_text() == f"{first:.0f}"
    ax = sm.pl.niche_heatmap(adata, show="enrichment", ax=axes())
    np.testing.assert_allclose(ax.collections[0].get_array(), adata.uns["niche_enrichment"])
    assert ax.texts[0].get_text() == f"{adata.uns['niche_enrichment'].iloc[0, 0]:+.1f}"


def test_what_is_written_in_a_cell() -> None:
    assert [_matrix.number(n) for n in (0, 7, 9999, 123456)] == ["", "7", "9999", "123k"]
    assert [_matrix.percent(s) for s in (0.0, 0.001, 0.126, 1.0, np.nan)] == ["", "<1", "13", "100", ""]


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda a: sm.pl.proportions(a, key="nothing"), "sm.tl.deconvolve"),
        (lambda a: sm.pl.proportions(a, ["Z"]), "'Z'"),
        (lambda a: sm.pl.proportions(a, []), "nothing to show"),
        (lambda a: sm.pl.proportions(a, kind="cake"), "cake"),
        (lambda a: sm.pl.proportions(a, show="all"), "all"),
        (lambda a: sm.pl.proportions(a, kind="pie", show="width"), "pies show shares"),
        (lambda a: sm.pl.proportions(a, region_um=(-9, -9, -8, -8)), "no spot lies"),
        (lambda a: sm.pl.proportions(a, ["A"], axes=axes(2)), "needs 1 axes"),
        (lambda a: sm.pl.confusion(a, "mine"), "mine"),
        (lambda a: sm.pl.confusion(a, "domain"), "sm.tl.annotate"),
        (lambda a: sm.pl.confusion(a, "domain", "domain", sets=True), "domain_set"),
        (lambda a: sm.pl.niche_heatmap(a), "sm.tl.niches"),
        (lambda a: sm.pl.niche_heatmap(a, show="all"), "all"),
    ],
)
def test_what_is_missing_is_said(draw, said: str) -> None:
    with pytest.raises(sm.InputError, match=said):
        draw(spots())


@pytest.mark.parametrize("kind", ["map", "pie", "confusion", "niches"])
def test_figures_are_the_same_bytes_and_names_are_literal(kind: str) -> None:
    def drawn() -> bytes:
        figure = Figure(figsize=(6, 4), layout="compressed")
        with sm.pl.style():
            ax = figure.subplots()
            if kind in ("map", "pie"):
                sm.pl.proportions(spots(), TYPES[2:3], kind=kind, axes=ax)
            elif kind == "confusion":
                sm.pl.confusion(cells(), "mine", ax=ax)
            else:
                sm.pl.niche_heatmap(niched(), ax=ax)
        return render(figure, "svg", dpi=50)

    one = drawn()
    assert one == drawn()
    if kind != "confusion":
        assert rb"$\frac$" in one


def test_sizes_of_figures_follow_what_is_in_them() -> None:
    wide, high = given_types.size_in(given_types.counted(cells(), "mine", "cell_type", None))
    assert wide > 3 and high > 1.5
    assert niche_types.size_in(niched(6))[1] > niche_types.size_in(niched(3))[1] + 0.5


def test_pies_of_neighbours_do_not_overlap_where_spots_are_missing() -> None:
    adata = spots(rows=16, columns=16)
    part = adata[np.random.default_rng(0).random(adata.n_obs) < 0.4].copy()
    (ax,) = sm.pl.proportions(part, kind="pie", axes=axes())
    xy = part.obsm["spatial_um"]
    reach = max(np.hypot(*(p.vertices[:, None] - xy[None]).T).min(axis=0).max() for p in ax.collections[0].get_paths())
    assert reach <= 0.5 * stored_section.PITCH_UM
