"""Colours: distinct to every eye, and the same in every figure."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from skimage.color import deltaE_ciede2000, rgb2lab

import smeld as sm
import stored_section
from smeld.pl import _colors

# Machado, Oliveira & Fernandes 2009, severity 1, on linear RGB
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def distances(colors: list[str], vision: str) -> np.ndarray:
    """CIEDE2000 between all pairs as this eye sees them."""
    rgb = np.array([to_rgb(c) for c in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(VISION[vision]).T, 0, 1)
    lab = rgb2lab(np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055))
    return deltaE_ciede2000(lab[:, None], lab[None])


@pytest.mark.parametrize("vision", VISION)
def test_palette_is_distinct(vision):
    found = distances(sm.pl.palette(24), vision)
    assert np.diag(found, 1).min() > 13  # neighbours in a legend
    np.fill_diagonal(found, np.inf)
    assert found[:12, :12].min() > 10
    assert found.min() > 7  # 2.3 is what an eye just notices


def test_palette_grows_without_changing():
    assert sm.pl.palette(5) == sm.pl.palette(60)[:5]
    assert len(set(sm.pl.palette(60))) == 60
    assert sm.pl.palette(0) == []


@pytest.mark.parametrize("vision", VISION)
def test_cells_of_no_known_type_are_grey_and_told_from_those_without_a_label(vision):
    adata = stored_section.make()
    adata.obs["cell_type"] = pd.Categorical.from_codes(np.arange(adata.n_obs) % 4 - 1, ["B cell", "T cell", "unknown"])
    found = _colors.categories(adata, "cell_type").colors
    assert found[:2] == sm.pl.palette(2) and len(set(to_rgb(found[2]))) == 1
    apart = distances([found[2], _colors.MISSING, *sm.pl.palette(12)], vision)[0]
    assert apart[1:].min() > 7


def test_stored_colours_are_used_and_nonsense_is_not():
    adata = stored_section.make()
    adata.uns["domain_colors"] = ["#111111", "#222222", "#333333", "#444444"]
    assert _colors.categories(adata, "domain").colors[2] == "#333333"
    for bad in (["#111111"], ["javascript:alert(1)"] * 4, "red", 7):
        adata.uns["domain_colors"] = bad
        assert _colors.categories(adata, "domain").colors == sm.pl.palette(4)


def test_a_domain_has_one_colour_in_all_figures():
    adata = stored_section.make()
    subset = adata[adata.obs["domain"].isin(["2", "4"])].copy()
    subset.obs["domain"] = subset.obs["domain"].cat.set_categories(["1", "2", "3", "4"])
    for table in (adata, subset):
        for plot in (sm.pl.domains, sm.pl.embedding):
            ax = plot(table, ax=Figure().subplots())
            legend = ax.get_legend()
            dots = {
                t.get_text(): to_hex(h.get_markerfacecolor()).upper()
                for t, h in zip(legend.get_texts(), legend.legend_handles)
            }
            assert all(dots[name] == sm.pl.palette(4)[int(name) - 1] for name in dots)
            assert "2" in dots and "4" in dots


def test_spots_take_the_colour_of_their_label():
    adata = stored_section.make()
    adata.obs.loc[adata.obs_names[3], "domain"] = np.nan
    found = _colors.categories(adata, "domain")
    rgba = found.rgba()
    assert found.incomplete and to_hex(rgba[3]).upper() == _colors.MISSING
    for i in (0, 5, 13):
        assert to_hex(rgba[i]).upper() == sm.pl.palette(4)[int(adata.obs["domain"].iloc[i]) - 1]


def test_plain_labels_are_sorted_as_people_do():
    adata = stored_section.make()
    adata.obs["plain"] = [str(i % 12) for i in range(adata.n_obs)]
    assert _colors.categories(adata, "plain").names == [str(i) for i in range(12)]
    adata.obs["holes"] = pd.Series(["b", None] * (adata.n_obs // 2), index=adata.obs_names, dtype=object)
    assert _colors.categories(adata, "holes").names == ["b"]


def test_numbers_are_no_labels():
    adata = stored_section.make()
    with pytest.raises(sm.InputError, match="labels"):
        sm.pl.domains(adata, "domain_confidence", ax=Figure().subplots())
    with pytest.raises(sm.InputError, match=r"obs\['nothing'\] is missing"):
        sm.pl.domains(adata, "nothing", ax=Figure().subplots())
