"""Each plot shows the numbers that are stored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import smeld as sm
import stored_section
from smeld.pl import _colors, scatter


def axes():
    return Figure(layout="compressed").subplots()


def face_colors(ax) -> np.ndarray:
    return np.asarray(ax.collections[0].get_facecolor())


def test_gene_colours_follow_the_counts():
    adata = stored_section.make()
    ax = sm.pl.gene(adata, "g1", ax=axes())
    values = np.log1p(adata[:, "g1"].X.toarray().ravel())
    wanted = _colors.colormap("viridis")(np.clip(values / np.quantile(values, 0.995), 0, 1))
    np.testing.assert_allclose(face_colors(ax), wanted, atol=1e-6)
    assert ax.get_title(loc="left") == "g1"


def test_gene_of_a_layer_without_logarithm():
    adata = stored_section.make()
    adata.layers["sme"] = -adata.X.toarray()
    ax = sm.pl.gene(adata, "g1", layer="sme", ax=axes())
    assert ax.child_axes[0].get_ylabel() == "sme"  # values below zero: no logarithm
    ax = sm.pl.gene(adata, "g1", log=False, ax=axes())
    assert ax.child_axes[0].get_ylabel() == "counts"


def test_unknown_gene_and_layer_name_the_nearest():
    adata = stored_section.make()
    adata.var_names = ["PCP4", *adata.var_names[1:]]
    with pytest.raises(sm.InputError, match="did you mean 'PCP4'"):
        sm.pl.gene(adata, "PCP-4", ax=axes())
    with pytest.raises(sm.InputError, match="layers"):
        sm.pl.gene(adata, "PCP4", layer="nothing", ax=axes())
    assert sm.pl.gene(adata, "PCP4", ax=axes())


@pytest.mark.parametrize("value", [0.0, 3.0, np.nan])
def test_constant_or_missing_values_can_be_drawn(value):
    from smeld.pl.maps import continuous

    adata = stored_section.make()
    ax = continuous(adata, np.full(adata.n_obs, value), ax=axes())
    colors = face_colors(ax)
    assert (colors == colors[0]).all()
    assert (to_hex(colors[0]).upper() == _colors.MISSING) == bool(np.isnan(value))


def test_confidence_scale_is_always_zero_to_one():
    adata = stored_section.make()
    ax = sm.pl.confidence(adata, ax=axes())
    assert ax.child_axes[0].get_ylim() == (0.0, 1.0)
    wanted = _colors.colormap("cividis")(adata.obs["domain_confidence"].to_numpy())
    np.testing.assert_allclose(face_colors(ax), wanted, atol=1e-6)
    del adata.obs["domain_confidence"]
    with pytest.raises(sm.InputError, match=r"sm\.tl\.domains"):
        sm.pl.confidence(adata, ax=axes())


def test_embedding_says_what_it_shows():
    adata = stored_section.make()
    ax = sm.pl.embedding(adata, ax=axes())
    assert ax.get_xlabel() == "fused_sme 1"
    drawn = np.asarray(ax.collections[0].get_offsets())
    wanted = adata.obsm["fused_sme"][:, :2]
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], wanted[np.lexsort(wanted.T)])
    adata.obsm["X_umap"] = adata.obsm["X_pca"][:, :2] * 2
    assert sm.pl.embedding(adata, ax=axes()).get_ylabel() == "UMAP 2"
    assert sm.pl.embedding(adata, basis="pca", ax=axes()).get_xlabel() == "PCA 1"
    frame = pd.DataFrame(adata.obsm["X_pca"], index=adata.obs_names, columns=[f"f{i}" for i in range(6)])
    adata.obsm["fused_b"] = frame
    assert sm.pl.embedding(adata, basis="b", ax=axes()).get_xlabel() == "fused_b: f0"


def test_embedding_that_is_not_there():
    adata = stored_section.make()
    with pytest.raises(sm.InputError, match="did you mean 'fused_sme'"):
        sm.pl.embedding(adata, basis="fused_smee", ax=axes())
    adata.obsm["thin"] = np.zeros((adata.n_obs, 1))
    with pytest.raises(sm.InputError, match="two dimensions"):
        sm.pl.embedding(adata, basis="thin", ax=axes())
    del adata.obsm["fused_sme"], adata.obsm["X_pca"]
    with pytest.raises(sm.InputError, match="no embedding is stored"):
        sm.pl.embedding(adata, ax=axes())


def test_large_embeddings_are_sampled_and_say_so(monkeypatch):
    monkeypatch.setattr(scatter, "MOST_POINTS", 50)
    ax = sm.pl.embedding(stored_section.make(), ax=axes())
    assert len(ax.collections[0].get_offsets()) == 50
    assert "50 of 168 points" in ax.get_title(loc="left") + ax.get_title()


def test_quality_control_counts_every_spot_and_marks_the_median():
    adata = stored_section.make()
    panels = sm.pl.quality_control(adata, axes=Figure().subplots(1, 3))
    for ax, name in zip(panels, ["total_counts", "n_genes_by_counts"]):
        assert sum(bar.get_height() for bar in ax.patches) == adata.n_obs
        assert ax.lines[0].get_xdata()[0] == np.median(adata.obs[name])
    adata.obs["pct_counts_mt"] = 5.0
    assert len(sm.pl.quality_control(adata, axes=Figure().subplots(1, 4))) == 4
    with pytest.raises(sm.InputError, match="4 axes"):
        sm.pl.quality_control(adata, axes=Figure().subplots(1, 3))


def test_quality_control_says_what_a_logarithmic_axis_leaves_out():
    adata = stored_section.make()
    counts = np.geomspace(1, 5000, adata.n_obs).round()
    counts[:7] = 0
    adata.obs["total_counts"] = counts
    ax = sm.pl.quality_control(adata, axes=Figure().subplots(1, 3))[0]
    assert ax.get_xscale() == "log"
    assert sum(bar.get_height() for bar in ax.patches) == adata.n_obs - 7
    assert "7 at zero" in ax.texts[0].get_text()


def test_quality_control_without_measures():
    adata = stored_section.make()
    del adata.obs["total_counts"], adata.obs["n_genes_by_counts"]
    with pytest.raises(sm.InputError, match="quality_control"):
        sm.pl.quality_control(adata)


def test_marker_dots_are_where_and_as_large_as_the_table_says():
    adata = stored_section.make()
    ax = sm.pl.markers(adata, n=2, ax=axes())
    genes = [t.get_text() for t in ax.get_xticklabels()]
    rows = [t.get_text() for t in ax.get_yticklabels()]
    assert rows == ["1", "2", "3", "4"] and genes[0] == "g0" and "g3" in genes
    table = adata.uns["domain_markers"].set_index(["domain", "gene"])
    dots = ax.collections[0]
    assert len(dots.get_offsets()) == len(rows) * len(genes)
    for (x, y), size in zip(dots.get_offsets(), dots.get_sizes()):
        assert size == pytest.approx(90 * table.loc[(rows[int(y)], genes[int(x)]), "pct_in"])


def test_percentages_and_fractions_look_the_same():
    adata = stored_section.make()
    one = sm.pl.markers(adata, ax=axes()).collections[0].get_sizes()
    adata.uns["domain_markers"]["pct_in"] *= 100
    np.testing.assert_allclose(sm.pl.markers(adata, ax=axes()).collections[0].get_sizes(), one)


def test_marker_table_that_lacks_something():
    adata = stored_section.make()
    adata.uns["domain_markers"] = adata.uns["domain_markers"].drop(columns="score")
    with pytest.raises(sm.InputError, match="lacks score"):
        sm.pl.markers(adata, ax=axes())
    adata.uns["domain_markers"] = stored_section.make().uns["domain_markers"].iloc[:0]
    with pytest.raises(sm.InputError, match="is empty"):
        sm.pl.markers(adata, ax=axes())
    del adata.uns["domain_markers"]
    with pytest.raises(sm.InputError, match="domain_markers"):
        sm.pl.markers(adata, ax=axes())


def test_spatialdata_and_other_things_are_told_apart():
    with pytest.raises(sm.InputError, match="AnnData or SpatialData"):
        sm.pl.domains("section.h5ad", ax=axes())


def _with_pairs(n: int = 4):
    adata = stored_section.make()
    rows = {
        "ligand": [f"L{i}" for i in range(n)],
        "receptor": ["R$1$", *(f"R{i}" for i in range(1, n))],
        "range": ["secreted", "contact", "unknown", "strange"][:n],
        "zscore": [5.0, 3.0, -1.0, 4.0][:n],
        "pvalue": [1e-6, 1e-3, 0.8, 1e-4][:n],
        "qvalue": [1e-5, 0.02, 0.9, 0.001][:n],
    }
    adata.uns["interactions"] = pd.DataFrame(rows)
    return adata


def test_pairs_stand_most_significant_on_top():
    ax = sm.pl.interactions(_with_pairs(), n=3, ax=axes())
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert [name[:2] for name in names] == ["L0", "L3", "L1"]
    offsets = ax.collections[-1].get_offsets()
    assert offsets[:, 0].tolist() == [5.0, 4.0, 3.0]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_pairs_that_are_not_significant_are_open():
    ax = sm.pl.interactions(_with_pairs(), ax=axes())
    faces = ax.collections[-1].get_facecolors()
    assert (faces[-1] == 1).all() and not (faces[0] == 1).all()
    assert any("q >" in t.get_text() for t in ax.get_legend().get_texts())


def test_pairs_that_are_not_there():
    adata = stored_section.make()
    with pytest.raises(sm.InputError, match=r"run sm\.tl\.interactions"):
        sm.pl.interactions(adata, ax=axes())
    adata.uns["interactions"] = pd.DataFrame({"ligand": ["A"]})
    with pytest.raises(sm.InputError, match="no column"):
        sm.pl.interactions(adata, ax=axes())
    adata.uns["interactions"] = _with_pairs().uns["interactions"].iloc[:0]
    with pytest.raises(sm.InputError, match="no pair"):
        sm.pl.interactions(adata, ax=axes())
