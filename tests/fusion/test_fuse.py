"""``sm.fuse`` equals its formula written densely, hangs on no order, orientation or unit, and says what is wrong."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import smeld as sm
from smeld import _keys

pytestmark = pytest.mark.filterwarnings("error::smeld.SmeldWarning")


def section(n_rows: int = 8, n_columns: int = 9, n_genes: int = 30, *, seed: int = 0, morph: bool = True) -> AnnData:
    """Two halves of a hexagonal lattice that differ in expression and in morphology; names in no order."""
    rng = np.random.default_rng(seed)
    i, j = (a.ravel() for a in np.mgrid[:n_rows, :n_columns])
    xy = np.column_stack([(j + 0.5 * (i % 2)) * 100.0, i * 100.0 * np.sqrt(3) / 2])
    half = j >= n_columns // 2
    mean = np.full((len(xy), n_genes), 3.0)
    mean[half, : n_genes // 3 + 1] *= 4
    adata = AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))
    adata.obs_names = [f"s{k:03d}" for k in rng.permutation(len(xy))]
    adata.var_names = [f"g{k}" for k in range(n_genes)]
    adata.obsm["spatial"] = xy / 0.5
    adata.obsm["spatial_um"] = xy
    if morph:
        values = rng.normal(size=(len(xy), 4)) + 3 * half[:, None]
        adata.obsm["morph_texture"] = pd.DataFrame(values, index=adata.obs_names, columns=list("abcd"))
    return adata


@cache
def fused() -> Any:
    """That section with its defaults, once for all tests that hold others against it."""
    return sm.fuse(section())


def moved(adata: AnnData, *, angle: float = 0.0, shift: float = 0.0, unit: float = 1.0) -> AnnData:
    """The section turned and moved, its delivered coordinates in another unit; micrometres remain micrometres."""
    out = adata.copy()
    c, s = np.cos(angle), np.sin(angle)
    xy = adata.obsm["spatial_um"] @ np.array([[c, s], [-s, c]]) + shift
    out.obsm["spatial_um"], out.obsm["spatial"] = xy, xy * unit
    return out


def same_up_to_sign(a: NDArray[np.float64], b: NDArray[np.float64], tolerance: float) -> bool:
    signs = np.sign((a * b).sum(axis=0))
    return a.shape == b.shape and bool(np.allclose(a, b * signs, atol=tolerance * np.abs(a).max()))


# -------------------------------------------------------------------------------------------------- the formula


@pytest.mark.parametrize(
    ("gamma", "eta", "sigma"), [(0.0, 0.0, None), (0.5, 0.0, None), (1.0, 0.7, 150.0), (0.0, 1.0, 60.0)]
)
def test_equals_the_dense_formula(gamma: float, eta: float, sigma: float | None) -> None:
    adata = section()
    made = sm.fuse(adata, alpha=5.0, gamma=gamma, eta=eta, sigma_um=sigma, evidence=False)
    xy = np.asarray(adata.obsm["spatial_um"])
    away = np.sqrt(((xy[:, None] - xy) ** 2).sum(axis=2))
    linked = (away > 0) & (away < 120)
    bandwidth = sigma or float(np.median(away[linked]))
    weight = np.where(linked, np.exp(-(away**2) / (2 * bandwidth**2)), 0.0)
    m = np.asarray(adata.obsm["morph_texture"], dtype=float)
    m = np.clip((m - m.mean(axis=0)) / m.std(axis=0), -5, 5)
    assert made.expression is not None
    around = (weight / weight.sum(axis=1, keepdims=True)) @ made.expression
    for features, power in ((m, gamma), (around, eta)):
        squared = ((features[:, None] - features) ** 2).sum(axis=2)
        weight *= np.exp(-squared / (2 * np.median(squared[linked]))) ** power
    weight *= len(xy) / weight.sum()
    assert made.weights.toarray() == pytest.approx(weight, abs=1e-10)
    laplacian = np.diag(weight.sum(axis=1)) - weight
    exact = np.linalg.solve(np.eye(len(xy)) + 5.0 * laplacian, made.expression)
    assert made.embedding == pytest.approx(exact, abs=1e-5 * np.abs(exact).max())
    assert np.array_equal(adata.obsm["X_pca"], made.expression)


def test_the_components_are_those_of_scaled_log_counts() -> None:
    adata = section(morph=False)
    made = sm.fuse(adata, n_genes=1000)
    x = adata.X.toarray().astype(float)
    size = x.sum(axis=1)
    log = np.log1p(x / size[:, None] * np.median(size))
    scaled = np.minimum(log, log.mean(axis=0) + 10 * log.std(axis=0)) / log.std(axis=0)
    left, value, _ = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    assert made.expression is not None
    first = made.expression[:, :1]  # the first is always kept
    assert same_up_to_sign(first, (left * value)[:, :1], 1e-6)


# ------------------------------------------------------------------------------------------------- what is written


def test_everything_is_written_and_nothing_else_is_changed() -> None:
    adata = section()
    before = adata.copy()
    made = sm.fuse(adata, seed=5)
    assert np.array_equal(adata.obsm["fused_sme"], made.embedding) and made.embedding.dtype == np.float64
    assert {"fused_sme", "X_pca"} <= set(adata.obsm)
    assert {"sme_weights", "spatial_connectivities", "spatial_distances"} <= set(adata.obsp)
    for key in ("sme_weights", "spatial_connectivities", "spatial_distances"):
        matrix = adata.obsp[key]
        assert sparse.issparse(matrix) and matrix.shape == (72, 72) and abs(matrix - matrix.T).max() < 1e-12
    assert adata.obsp["spatial_distances"].data == pytest.approx(100.0)
    assert set(adata.obsp["spatial_connectivities"].data) == {1.0}
    assert adata.X.dtype == before.X.dtype and abs(adata.X - before.X).nnz == 0
    for key in before.obsm:
        assert np.array_equal(np.asarray(adata.obsm[key]), np.asarray(before.obsm[key]))
    assert adata.obs.equals(before.obs) and adata.var.equals(before.var)


def test_the_record_says_what_was_done() -> None:
    adata = section()
    sm.fuse(adata, alpha=4.0, gamma=0.25, seed=5)
    record = adata.uns[_keys.RECORD]["fused_sme"]
    assert set(record) == {"function", "params", "seed", "version", "inputs"}
    assert record["function"] == "sm.fuse" and record["seed"] == 5 and record["version"] == sm.__version__
    assert record["inputs"] == {"morphology": "morph_texture", "layer": "X", "batch_key": "none"}
    params = record["params"]
    assert params["method"] == "sme" and params["alpha"] == 4.0 and params["gamma"] == 0.25
    assert params["graph"] == "lattice"
    assert _keys.DISTANCES in adata.uns[_keys.RECORD]


def test_results_survive_a_file(tmp_path: Path) -> None:
    adata = section()
    sm.fuse(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    for key in ("fused_sme", "X_pca"):
        assert np.array_equal(again.obsm[key], adata.obsm[key])
    for key in adata.obsp:
        assert abs(again.obsp[key] - adata.obsp[key]).nnz == 0
    assert set(again.uns[_keys.RECORD]) == set(adata.uns[_keys.RECORD])
    assert again.uns[_keys.RECORD]["fused_sme"]["inputs"]["morphology"] == "morph_texture"
    second = sm.fuse(again)  # the stored graph serves again
    assert second.embedding == pytest.approx(adata.obsm["fused_sme"], abs=1e-12)


def test_key_added_names_embedding_and_record() -> None:
    adata = section()
    sm.fuse(adata, key_added="fused_mine")
    assert "fused_mine" in adata.obsm and "fused_sme" not in adata.obsm
    assert "fused_mine" in adata.uns[_keys.RECORD]


def test_twice_is_the_same_to_the_bit() -> None:
    adata = section()
    first = sm.fuse(adata).embedding
    assert np.array_equal(first, fused().embedding)
    assert np.array_equal(first, sm.fuse(adata).embedding)  # in place, with the stored graph


# ------------------------------------------------------------------------------------------------------ invariances


@settings(max_examples=5)
@given(st.integers(0, 1000))
def test_permuting_spots_permutes_the_embedding(seed: int) -> None:
    adata = section()
    order = np.random.default_rng(seed).permutation(adata.n_obs)
    plain, permuted = fused(), sm.fuse(adata[order].copy())
    assert permuted.embedding == pytest.approx(plain.embedding[order], abs=1e-8)
    assert abs(permuted.weights - plain.weights[order][:, order]).max() < 1e-12


@pytest.mark.parametrize("graph", ["auto", "knn"])
def test_permuting_spots_permutes_the_domains_exactly(graph: Any) -> None:
    adata = sm.datasets.simulate(n_obs=300, n_genes=120, seed=2, image=False)
    order = np.random.default_rng(0).permutation(300)
    other = adata[order].copy()
    for a in (adata, other):
        sm.fuse(a, graph=graph)
        sm.tl.domains(a, 5)
    assert (other.obs["domain"].astype(str) == adata.obs["domain"].astype(str).iloc[order]).all()


@settings(max_examples=5)
@given(st.floats(0, 6.28), st.floats(-1e5, 1e5), st.sampled_from([1e-3, 1.0, 1000.0]))
def test_turning_moving_and_other_units_change_nothing(angle: float, shift: float, unit: float) -> None:
    other = sm.fuse(moved(section(), angle=angle, shift=shift, unit=unit))
    assert other.embedding == pytest.approx(fused().embedding, abs=1e-6)


def test_turning_a_simulated_section_keeps_its_domains() -> None:
    adata = sm.datasets.simulate(n_obs=300, n_genes=120, seed=2, layout="cells", image=False)
    other = moved(adata, angle=0.7, shift=5e4, unit=1000.0)
    for a in (adata, other):
        sm.tl.domains(a, 5)
    assert adjusted_rand_score(adata.obs["domain"], other.obs["domain"]) >= 0.99


def test_all_lengths_in_another_unit_change_nothing() -> None:
    """Even where micrometres are wrong by a factor, the default bandwidth comes from the positions."""
    other = section()
    other.obsm["spatial_um"] = other.obsm["spatial_um"] * 1000
    assert sm.fuse(other).embedding == pytest.approx(fused().embedding, abs=1e-8)


def test_permuting_genes_changes_nothing_but_signs() -> None:
    adata = section()
    order = np.random.default_rng(0).permutation(adata.n_vars)
    assert same_up_to_sign(fused().embedding, sm.fuse(adata[:, order].copy()).embedding, 1e-5)


@pytest.mark.parametrize("form", ["dense", "csc", "float64", "int64", "unsorted", "explicit zeros"])
def test_the_form_of_the_matrix_does_not_matter(form: str) -> None:
    other = section()
    x = other.X
    if form == "unsorted":
        x = sparse.csr_matrix(sparse.csc_matrix(x).T.tocsc().T)
        for i in range(x.shape[0]):
            row = slice(x.indptr[i], x.indptr[i + 1])
            x.indices[row], x.data[row] = x.indices[row][::-1].copy(), x.data[row][::-1].copy()
        x.has_sorted_indices = False
    elif form == "explicit zeros":
        dense = x.toarray()
        indices, indptr = np.tile(np.arange(30), 72), np.arange(0, 72 * 30 + 1, 30)
        x = sparse.csr_matrix((dense.ravel(), indices, indptr), shape=dense.shape)
    else:
        x = {"dense": x.toarray, "csc": x.tocsc}.get(form, lambda: x.astype(form))()
    other.X = x
    kept = x.copy()
    assert sm.fuse(other).embedding == pytest.approx(fused().embedding, abs=1e-8)
    assert type(other.X) is type(kept) and other.X.dtype == kept.dtype
    assert np.array_equal(np.asarray(kept == other.X).all() if form == "dense" else (kept != other.X).nnz == 0, True)


def test_layer_is_used_instead_of_x() -> None:
    plain, other = section(), section()
    other.layers["counts"] = other.X.copy()
    other.X = sparse.csr_matrix(np.full(other.shape, 7.0, dtype=np.float32))
    assert np.array_equal(sm.fuse(other, layer="counts").embedding, sm.fuse(plain).embedding)
    assert other.uns[_keys.RECORD]["fused_sme"]["inputs"]["layer"] == "counts"


# ------------------------------------------------------------------------------------------------------- morphology


def test_morphology_weakens_edges_across_its_border() -> None:
    adata = section()
    sm.fuse(adata, gamma=2.0)
    j = np.round(adata.obsm["spatial_um"][:, 0] / 100 - 0.01).astype(int)
    right = j >= 4
    weights = adata.obsp["sme_weights"].tocoo()
    crosses = right[weights.row] != right[weights.col]
    assert weights.data[crosses].mean() < 0.5 * weights.data[~crosses].mean()


def test_without_morphology_it_still_works() -> None:
    with_it, without = section(), section(morph=False)
    left_out, absent = sm.fuse(with_it, morphology=None), sm.fuse(without)
    assert np.array_equal(left_out.embedding, absent.embedding)
    assert with_it.uns[_keys.RECORD]["fused_sme"]["inputs"]["morphology"] == "none"


def test_constant_morphology_is_like_none() -> None:
    adata = section()
    adata.obsm["morph_texture"] = np.full((adata.n_obs, 3), 4.2)
    same = sm.fuse(adata, gamma=1.0).embedding
    assert same == pytest.approx(sm.fuse(section(morph=False)).embedding, abs=1e-8)


def test_several_morphologies_must_be_told_apart() -> None:
    adata = section()
    adata.obsm["morph_other"] = np.random.default_rng(0).normal(size=(adata.n_obs, 3))
    with pytest.raises(sm.InputError, match=r"morph_texture, morph_other.*morphology="):
        sm.fuse(adata)
    sm.fuse(adata, morphology="morph_other")
    assert adata.uns[_keys.RECORD]["fused_sme"]["inputs"]["morphology"] == "morph_other"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_morphology_must_be_finite(bad: float) -> None:
    adata = section()
    adata.obsm["morph_texture"].iloc[3, 1] = bad
    with pytest.raises(sm.InputError, match="finite"):
        sm.fuse(adata)


# ------------------------------------------------------------------------------------------------------ stored graph


def test_a_stored_graph_serves_again_unless_other_settings_are_asked_for() -> None:
    adata = section()
    sm.fuse(adata, graph="radius", radius_um=210.0)
    wide = adata.obsp["spatial_distances"].nnz
    sm.fuse(adata)
    assert adata.obsp["spatial_distances"].nnz == wide
    others: list[dict[str, Any]] = [
        {"graph": "lattice"},
        {"graph": "knn", "n_neighbors": 3},
        {"graph": "radius", "radius_um": 110.0},
    ]
    for asked in others:
        sm.fuse(adata, **asked)
        assert adata.obsp["spatial_distances"].nnz != wide
        assert adata.uns[_keys.RECORD]["fused_sme"]["params"]["graph"] == asked["graph"]


def test_a_graph_that_others_made_is_not_taken_for_micrometres() -> None:
    adata = section()
    adata.obsp["spatial_distances"] = sparse.csr_matrix(np.ones((72, 72)))
    sm.fuse(adata)
    assert adata.obsp["spatial_distances"].data == pytest.approx(100.0)


def test_a_stored_graph_is_made_anew_when_positions_have_changed() -> None:
    adata, fresh = section(), section()
    sm.fuse(adata)
    for a in (adata, fresh):
        a.obsm["spatial_um"] = np.asarray(a.obsm["spatial_um"])[::-1].copy() * [1.0, 3.0]
    sm.fuse(adata)
    sm.fuse(fresh)
    assert abs(adata.obsp["spatial_distances"] - fresh.obsp["spatial_distances"]).nnz == 0


# ---------------------------------------------------------------------------------------------------------- hardly any


def test_lone_spots_keep_their_expression() -> None:
    adata = section()
    adata.obsm["spatial_um"] = adata.obsm["spatial_um"].copy()
    adata.obsm["spatial_um"][:2] = [[5e4, 5e4], [9e4, -9e4]]
    made = sm.fuse(adata)
    assert made.expression is not None
    assert made.weights[:2].nnz == 0
    assert np.allclose(made.embedding[:2], made.expression[:2])
    assert np.isfinite(made.embedding).all()


@pytest.mark.parametrize(("n", "g"), [(2, 1), (2, 30), (3, 2), (5, 30), (72, 1), (72, 2)])
def test_very_small_sections(n: int, g: int) -> None:
    adata = section(n_genes=g)[:n].copy()
    made = sm.fuse(adata)
    assert made.embedding.shape[0] == n and made.embedding.shape[1] >= 1
    assert np.isfinite(made.embedding).all() and made.embedding.shape[1] <= max(g, 1)


def test_coinciding_spots_and_empty_spots() -> None:
    adata = section()
    xy = adata.obsm["spatial_um"].copy()
    xy[5] = xy[6]
    adata.obsm["spatial_um"] = xy
    x = adata.X.toarray()
    x[10] = 0
    adata.X = sparse.csr_matrix(x)
    assert np.isfinite(sm.fuse(adata).embedding).all()


def test_spots_that_are_all_the_same_give_an_embedding_of_zeros() -> None:
    adata = section()
    adata.X = sparse.csr_matrix(np.full(adata.shape, 2.0, dtype=np.float32))
    assert np.abs(sm.fuse(adata).embedding).max() < 1e-6


# ------------------------------------------------------------------------------------------------------------ bad input


def test_values_that_are_no_counts_are_used_with_a_warning() -> None:
    logged, plain = section(), section()
    size = np.asarray(plain.X.sum(axis=1)).ravel()
    x = sparse.csr_matrix(sparse.diags(np.median(size) / size) @ plain.X)
    x.data = np.log1p(x.data).astype(np.float32)
    logged.X = x
    with pytest.warns(sm.SmeldWarning, match="log-normalised already"):
        made = sm.fuse(logged)
    assert made.embedding == pytest.approx(sm.fuse(plain, evidence=False).embedding, abs=1e-3)
    assert any("whole numbers" in w for w in _keys.kept_warnings(logged))
    corrected = section()
    corrected.X = corrected.X * np.float32(7.3)
    with pytest.warns(sm.SmeldWarning, match="normalised by their sum"):
        made = sm.fuse(corrected)
    assert len(made.embedding) == 72 and np.isfinite(made.embedding).all()


def test_whole_counts_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sm.fuse(section())


def bad_section(name: str) -> AnnData:
    adata = section()
    xy = np.asarray(adata.obsm["spatial_um"]).copy()
    if name == "no positions":
        del adata.obsm["spatial_um"]
    elif name in ("NaN positions", "infinite positions"):
        xy[3, 1] = np.nan if name.startswith("NaN") else np.inf
        adata.obsm["spatial_um"] = xy
    elif name == "negative counts":
        adata.X[0, 0] = -1
    elif name == "NaN counts":
        adata.X[0, 0] = np.nan
    elif name == "no counts":
        adata.X = sparse.csr_matrix(adata.shape, dtype=np.float32)
    elif name == "one spot":
        return adata[:1].copy()
    elif name == "repeated names":
        adata.obs_names = ["s1"] * adata.n_obs
    return adata


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no positions", r"spatial_um.*missing.*sm\.read"),
        ("NaN positions", "coordinates must be finite.*1 of 72"),
        ("infinite positions", "coordinates must be finite.*1 of 72"),
        ("negative counts", "negative.*-1"),
        ("NaN counts", "finite"),
        ("no counts", "nothing but zeros"),
        ("one spot", "at least 2 spots"),
        ("repeated names", "unique"),
    ],
)
def test_bad_sections_are_refused_and_left_alone(name: str, message: str) -> None:
    adata = bad_section(name)
    keys = (set(adata.obsm), set(adata.obsp), set(adata.uns))
    with pytest.raises(sm.InputError, match=message):
        sm.fuse(adata)
    assert keys == (set(adata.obsm), set(adata.obsp), set(adata.uns))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "smee"}, "did you mean 'sme'"),
        ({"alhpa": 3.0}, "alhpa"),
        ({"layer": "raw"}, "layers.*raw"),
        ({"morphology": "morph_uni"}, "morph_uni.*missing.*morph_texture"),
        ({"graph": "latice"}, "did you mean 'lattice'"),
        ({"graph": "radius"}, "radius_um"),
        ({"graph": "radius", "radius_um": -5.0}, "radius_um"),
        ({"radius_um": 150.0}, "radius"),  # without graph="radius" it would be ignored
        ({"graph": "knn", "n_neighbors": 0}, "n_neighbors"),
        ({"graph": "knn", "n_neighbors": -2}, "n_neighbors"),
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"gamma": -0.5}, "gamma"),
        ({"eta": -0.5}, "eta"),
        ({"sigma_um": 0.0}, "sigma_um"),
        ({"sigma_um": -3.0}, "sigma_um"),
        ({"n_components": 0}, "n_components"),
        ({"n_genes": 0}, "n_genes"),
        ({"n_genes": -5}, "n_genes"),
    ],
)
def test_bad_settings_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sm.InputError, match=message):
        sm.fuse(section(), **options)


def test_a_lattice_cannot_be_had_from_scattered_cells() -> None:
    adata = section()
    adata.obsm["spatial_um"] = np.random.default_rng(0).uniform(0, 1000, (72, 2))
    with pytest.raises(sm.InputError, match="no lattice"):
        sm.fuse(adata, graph="lattice")
    sm.fuse(adata)
    assert adata.uns[_keys.RECORD]["fused_sme"]["params"]["graph"] == "knn"


def test_a_table_is_needed() -> None:
    with pytest.raises(sm.InputError, match="AnnData"):
        sm.fuse({"X": 1})
