"""The canvas: where things are drawn, how large, and that nothing else changes."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import smeld as sm
import stored_section
from smeld.pl import _canvas
from smeld.pl._save import render
from smeld.pl._text import shown


def own_axes(width: float = 6.0, height: float = 5.0):
    with sm.pl.style():
        return Figure(figsize=(width, height), layout="compressed").subplots()


def pixels_of(ax, dpi: int = 100) -> np.ndarray:
    """The figure as RGB, drawn without cropping."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = ax.get_figure()
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def test_frame_has_y_downwards_equal_aspect_and_holds_all_spots():
    adata = stored_section.make()
    ax = sm.pl.domains(adata, ax=own_axes())
    assert ax.yaxis_inverted() and not ax.xaxis_inverted()
    assert ax.get_aspect() == 1.0
    xy, radius = adata.obsm["spatial_um"], stored_section.SPOT_UM / 2
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    assert left < xy[:, 0].min() - radius and right > xy[:, 0].max() + radius
    assert top < xy[:, 1].min() - radius and bottom > xy[:, 1].max() + radius


@pytest.mark.parametrize(("um_per_unit", "scale"), [(0.5, 0.1), (2.0, 0.4), (0.5, 0.5)])
def test_image_lies_under_its_spots(um_per_unit, scale):
    adata = stored_section.make(um_per_unit=um_per_unit, image_scale=scale)
    entry = adata.uns["spatial"]["slice"]
    spot = 37
    px = (adata.obsm["spatial"][spot] * scale).round().astype(int)
    entry["images"]["hires"][px[1] - 1 : px[1] + 2, px[0] - 1 : px[0] + 2] = (0, 255, 0)
    ax = sm.pl.section(adata, ax=own_axes())
    drawn = ax.images[0]
    left, right, bottom, top = drawn.get_extent()
    array = np.asarray(drawn.get_array())
    x, y = adata.obsm["spatial_um"][spot]
    column = int((x - left) / (right - left) * array.shape[1])
    row = int((y - top) / (bottom - top) * array.shape[0])
    assert tuple(array[row, column]) == (0, 255, 0)


def test_image_is_cut_to_the_spots():
    adata = stored_section.make(um_per_unit=0.5, image_scale=0.5)
    entry = adata.uns["spatial"]["slice"]
    large = np.full((4000, 4000, 3), 200, np.uint8)
    entry["images"]["hires"] = large
    ax = sm.pl.section(adata, ax=own_axes())
    width_um = ax.get_xlim()[1] - ax.get_xlim()[0]
    assert abs(np.asarray(ax.images[0].get_array()).shape[1] - width_um) <= 3  # 1 um per pixel


def test_without_um_per_unit_the_image_is_placed_by_the_two_coordinate_systems():
    adata = stored_section.make()
    with_facts = sm.pl.section(adata, ax=own_axes()).images[0].get_extent()
    del adata.uns["spatial"]["slice"]["metadata"]["um_per_unit"]
    without = sm.pl.section(adata, ax=own_axes()).images[0].get_extent()
    np.testing.assert_allclose(with_facts, without, rtol=1e-9)


def test_spots_have_their_true_size():
    adata = stored_section.make(rows=2, columns=4)
    adata.uns["spatial"]["slice"]["metadata"]["spot_diameter_um"] = 60.0
    ax = own_axes()
    _canvas.prepare(adata, ax, library_id=None)
    black = np.tile([0.0, 0.0, 0.0, 1.0], (adata.n_obs, 1))
    _canvas.add_spots(adata, ax, black)
    for extra in [*ax.texts, *ax.lines, *ax.artists]:
        extra.remove()
    dark = (pixels_of(ax, 200).mean(axis=2) < 128).sum()
    px_per_um = ax.get_window_extent().width / (ax.get_xlim()[1] - ax.get_xlim()[0])
    expected = adata.n_obs * np.pi / 4 * (60.0 * px_per_um) ** 2
    assert dark == pytest.approx(expected, rel=0.03)


def test_diameter_of_cells_comes_from_their_distances():
    adata = stored_section.make()
    assert _canvas.diameter_um(adata) == stored_section.SPOT_UM
    del adata.uns["spatial"]
    assert _canvas.diameter_um(adata) == pytest.approx(0.9 * stored_section.PITCH_UM)


@given(st.floats(1e-6, 1e9))
def test_scale_bar_has_a_round_length(most):
    length = _canvas.round_length(most)
    assert most / 2.5000001 <= length <= most * (1 + 1e-9)
    first = float(f"{length:.6e}".split("e")[0])
    assert first in (1.0, 2.0, 5.0)


def test_scale_bar_says_its_length():
    ax = sm.pl.section(stored_section.make(), ax=own_axes())
    bar = next(a for a in ax.get_children() if a.get_gid() == "scale_bar")
    length = np.ptp(bar.get_xdata())
    assert ax.texts[0].get_text() == f"{length:,.0f} µm"


@pytest.mark.parametrize("n", [1, 4, 25, 70])
def test_legend_lies_outside_the_axes_and_inside_the_figure(n):
    adata = stored_section.make(columns=70)
    adata.obs["domain"] = [f"domain number {i % n}" for i in range(adata.n_obs)]
    ax = sm.pl.domains(adata, ax=own_axes(14, 5))
    pixels_of(ax)
    box, legend = ax.get_window_extent(), ax.get_legend().get_window_extent()
    figure = ax.get_figure().bbox
    assert legend.x0 >= box.x1
    assert legend.x1 <= figure.x1 + 1 and legend.y0 >= figure.y0 - 1
    texts = [t.get_window_extent() for t in ax.get_legend().get_texts()]
    assert len(texts) == min(n, _canvas.MOST_ENTRIES + 1)
    for i, one in enumerate(texts):
        assert not any(one.overlaps(other) for other in texts[i + 1 :])


def test_hostile_names_are_drawn_as_they_are():
    adata = stored_section.hostile()
    ax = sm.pl.domains(adata, ax=own_axes())
    svg = render(ax.get_figure(), "svg").decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in svg and "<script" not in svg
    assert r"$\frac$" in svg and "_hidden" in svg
    for name in stored_section.HOSTILE:
        ax = sm.pl.gene(adata, name, ax=own_axes())
        svg = render(ax.get_figure(), "svg").decode()
        assert "\x00" not in svg and "\u202e" not in svg


@given(st.text(max_size=60))
def test_any_name_is_shown_literally(name):
    from matplotlib.text import Text

    text, is_math = Text(text=shown(name))._preprocess_math(shown(name))
    assert is_math is False
    wanted = "".join(c if c.isprintable() else "\ufffd" for c in name) or "(no name)"
    assert text == (wanted if len(wanted) <= 28 else wanted[:27] + "…")


def global_settings() -> dict[str, object]:
    """All of matplotlib's but the backend, which is chosen as soon as one looks at it."""
    return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}


PLOTS = ["section", "domains", "confidence", "embedding", "markers"]


@pytest.mark.parametrize("name", PLOTS)
def test_nothing_is_written_and_nothing_global_changes(name):
    adata = stored_section.make()
    before, settings = adata.copy(), global_settings()
    ax = own_axes()
    assert getattr(sm.pl, name)(adata, ax=ax) is ax
    pixels_of(ax)
    assert global_settings() == settings
    assert list(adata.uns) == list(before.uns) and list(adata.obsm) == list(before.obsm)
    assert list(adata.obs) == list(before.obs) and (adata.X != before.X).nnz == 0


@pytest.mark.parametrize("name", PLOTS)
def test_without_ax_a_pyplot_figure_is_made(name):
    from matplotlib import pyplot as plt

    plt.close("all")
    with mpl.rc_context({"backend": "agg"}):
        ax = getattr(sm.pl, name)(stored_section.make())
    assert plt.get_fignums() == [ax.get_figure().number]
    plt.close("all")
    getattr(sm.pl, name)(stored_section.make(), ax=own_axes())
    assert plt.get_fignums() == []


@pytest.mark.parametrize("image", [True, False])
def test_order_of_spots_does_not_matter(image):
    adata = stored_section.make(image=image)
    mixed = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    one = pixels_of(sm.pl.domains(adata, ax=own_axes())).astype(int)
    two = pixels_of(sm.pl.domains(mixed, ax=own_axes())).astype(int)
    # the rims of touching discs blend in drawing order
    assert (np.abs(one - two).max(axis=2) > 8).mean() < (1e-3 if not image else 1e-9)


def test_unit_of_the_coordinates_does_not_matter():
    one = pixels_of(sm.pl.domains(stored_section.make(um_per_unit=0.5, image_scale=0.1), ax=own_axes()))
    two = pixels_of(sm.pl.domains(stored_section.make(um_per_unit=5.0, image_scale=1.0), ax=own_axes()))
    np.testing.assert_array_equal(one, two)


def test_many_spots_are_pixels_and_few_are_vectors():
    few, many = stored_section.make(rows=5, columns=5), stored_section.make(rows=50, columns=50)
    svg_few = render(sm.pl.domains(few, ax=own_axes(), image=False).get_figure(), "svg")
    svg_many = render(sm.pl.domains(many, ax=own_axes(), image=False).get_figure(), "svg")
    assert svg_few.count(b"<image") == 0 and svg_many.count(b"<image") == 1
    assert b">domain</text>" in svg_many.replace(b"\n", b"")  # words stay words


def test_a_hundred_thousand_cells_are_drawn_quickly():
    import time

    adata = stored_section.make(rows=320, columns=320, image=False)
    start = time.perf_counter()
    render(sm.pl.domains(adata, ax=own_axes()).get_figure(), "png")
    assert time.perf_counter() - start < 10  # about 0.5 s alone on one core


def test_one_of_several_sections_is_named():
    adata = stored_section.make()
    adata.uns["spatial"]["other"] = adata.uns["spatial"]["slice"]
    with pytest.raises(sm.InputError, match="library_id"):
        sm.pl.section(adata, ax=own_axes())
    assert sm.pl.section(adata, ax=own_axes(), library_id="other").images


def test_missing_coordinates_name_the_cure():
    adata = stored_section.make()
    del adata.obsm["spatial_um"]
    with pytest.raises(sm.InputError, match="spatial_um"):
        sm.pl.section(adata, ax=own_axes())


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_spots_can_be_drawn(n):
    adata = stored_section.make()[:n].copy()
    assert np.isfinite(sm.pl.domains(adata, ax=own_axes()).get_xlim()).all()
