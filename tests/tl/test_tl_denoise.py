"""``sm.tl.denoise`` and ``sm.tl.impute``: what is written, what it hangs on, whether it is better than the counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

import smeld as sm
from smeld.kernels import split

pytestmark = pytest.mark.filterwarnings("error::smeld.SmeldWarning")


def section(n: int = 300, g: int = 80, *, seed: int = 0) -> AnnData:
    """A simulated section; identifiers in no order."""
    adata = sm.datasets.simulate(n_obs=n, n_genes=g, seed=seed, image=False)
    adata.obs_names = [f"s{k:04d}" for k in np.random.default_rng(seed).permutation(n)]
    return adata


@pytest.fixture(scope="module")
def fused() -> AnnData:
    adata = section()
    sm.fuse(adata)
    return adata


# ------------------------------------------------------------------------------------------------- what is written


def test_the_layer_is_written_and_nothing_else_is_changed(fused: AnnData) -> None:
    adata = fused.copy()
    made = sm.tl.denoise(adata, seed=3)
    assert (made.slot, made.key) == ("layers", "sme")
    layer = adata.layers["sme"]
    assert layer.dtype == np.float32 and layer.shape == adata.shape
    assert np.isfinite(layer).all() and (layer >= 0).all()
    assert abs(adata.X - fused.X).nnz == 0 and set(adata.obsm) == set(fused.obsm) and adata.obs.equals(fused.obs)
    record = adata.uns["smeld"]["sme"]
    assert record["function"] == "sm.tl.denoise" and record["seed"] == 3
    assert record["params"]["n_components"] == made.settings.rank > 0
    assert record["params"]["settings_from"] == "held-out counts"


def test_values_are_on_the_scale_of_the_spots_own_counts(fused: AnnData) -> None:
    adata = fused.copy()
    sm.tl.denoise(adata)
    size = np.asarray(adata.X.sum(axis=1)).ravel()
    assert adata.layers["sme"].sum(axis=1) == pytest.approx(size, rel=0.15)
    share = np.asarray(adata.X.sum(axis=0)).ravel() / size.sum()
    assert adata.layers["sme"].sum(axis=0) / size.sum() == pytest.approx(share, rel=0.2, abs=2e-3)


def test_the_table_names_its_methods_and_smeld_is_best(fused: AnnData) -> None:
    scores = sm.tl.denoise(fused.copy()).scores
    assert scores is not None
    assert list(scores.columns) == ["deviance", "log_error"]
    assert list(scores.index) == ["section mean", "measured", "mean of spot and neighbours", "rank-limited", "smeld"]
    assert scores["deviance"].idxmin() == "smeld" and scores["log_error"].idxmin() == "smeld"


def test_fusion_is_run_where_there_is_none() -> None:
    adata = section(150, 40)
    sm.tl.denoise(adata)
    assert {"sme_weights", "spatial_distances"} <= set(adata.obsp) and "fused_sme" in adata.uns["smeld"]


def test_the_result_can_be_stored(fused: AnnData, tmp_path: Path) -> None:
    adata = fused.copy()
    sm.tl.denoise(adata)
    sm.tl.impute(adata, genes=list(adata.var_names[:3]))
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert np.array_equal(again.layers["sme"], adata.layers["sme"])
    assert list(again.obsm["imputed"].columns) == list(adata.var_names[:3])


def test_some_genes_are_those_of_the_whole(fused: AnnData) -> None:
    adata = fused.copy()
    how = sm.tl.denoise(adata).settings
    names = list(adata.var_names[[7, 3, 50]])
    made = sm.tl.denoise(adata, genes=names, key_added="some", settings=how)
    assert (made.slot, made.scores) == ("obsm", None) and "some" not in adata.layers
    frame = adata.obsm["some"]
    assert list(frame.columns) == names and list(frame.index) == list(adata.obs_names)
    assert frame.to_numpy() == pytest.approx(adata.layers["sme"][:, [7, 3, 50]], rel=1e-4, abs=1e-5)


def test_settings_of_an_earlier_result_give_the_same_without_choosing(
    fused: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    adata = fused.copy()
    how = sm.tl.denoise(adata).settings
    monkeypatch.setattr("smeld.kernels.denoise_choice.choose", None)
    sm.tl.denoise(adata, settings=how, key_added="again")
    assert np.array_equal(adata.layers["again"], adata.layers["sme"])
    assert adata.uns["smeld"]["again"]["params"]["settings_from"] == "given"


def test_a_layer_of_counts_is_used(fused: AnnData) -> None:
    adata = fused.copy()
    adata.layers["counts"] = adata.X.copy()
    sm.tl.denoise(adata)
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))
    sm.tl.denoise(adata, layer="counts", key_added="from_layer")
    assert np.array_equal(adata.layers["from_layer"], adata.layers["sme"])


def test_small_sections_use_fixed_settings() -> None:
    adata = section(150, 40)[:50].copy()
    made = sm.tl.denoise(adata)
    assert adata.uns["smeld"]["sme"]["params"]["settings_from"] == "fixed"
    assert made.scores is None and np.isfinite(adata.layers["sme"]).all()


# ------------------------------------------------------------------------------------------------- what it hangs on


def test_permuting_spots_permutes_the_result(fused: AnnData) -> None:
    adata, turned = fused.copy(), fused[np.random.default_rng(5).permutation(fused.n_obs)].copy()
    one, two = sm.tl.denoise(adata), sm.tl.denoise(turned)
    assert one.settings == two.settings
    at = turned.obs_names.get_indexer(adata.obs_names)
    assert np.array_equal(adata.layers["sme"], turned.layers["sme"][at])


@pytest.mark.parametrize("form", [np.asarray, sparse.csc_matrix, lambda x: sparse.csr_matrix(x).astype(np.int64)])
def test_the_form_of_the_matrix_does_not_matter(fused: AnnData, form: Callable[[Any], Any]) -> None:
    adata, other = fused.copy(), fused.copy()
    other.X = form(other.X.toarray())
    sm.tl.denoise(adata)
    sm.tl.denoise(other)
    assert np.array_equal(adata.layers["sme"], other.layers["sme"])


def test_the_scale_of_the_weights_does_not_matter(fused: AnnData) -> None:
    adata, other = fused.copy(), fused.copy()
    other.obsp["sme_weights"] = other.obsp["sme_weights"] * 4.0
    sm.tl.denoise(adata)
    sm.tl.denoise(other)
    assert other.layers["sme"] == pytest.approx(adata.layers["sme"], rel=1e-5)


def test_the_seed_moves_the_split_only(fused: AnnData) -> None:
    adata = fused.copy()
    one, two = sm.tl.denoise(adata, seed=1), sm.tl.denoise(adata, seed=2, key_added="b")
    assert one.scores is not None and two.scores is not None and not one.scores.equals(two.scores)
    assert np.corrcoef(adata.layers["sme"].ravel(), adata.layers["b"].ravel())[0, 1] > 0.98


# ---------------------------------------------------------------------------------------------------- is it better


def halves(seed: int) -> tuple[AnnData, NDArray[np.float64]]:
    whole = section(400, 100, seed=seed)
    counts = sparse.csr_matrix(whole.X, dtype=np.float64)
    one, rest = split.thin(counts, 0.5, np.zeros(whole.n_vars), np.random.default_rng(seed))
    whole.X = one.astype(np.float32)
    return whole, rest.toarray()


@pytest.mark.parametrize("seed", [0, 4])
def test_held_out_counts_are_predicted_better_than_by_the_counts_and_by_plain_smoothing(seed: int) -> None:
    adata, rest = halves(seed)
    sm.tl.denoise(adata)
    x = adata.X.toarray()
    linked = adata.obsp["spatial_connectivities"] + sparse.identity(adata.n_obs)
    plain = (linked @ x) / (linked @ x.sum(axis=1))[:, None]
    mean = x.sum(axis=0) / x.sum()

    def deviance(rate: NDArray[np.floating]) -> float:
        rate = rate / rate.sum(axis=1, keepdims=True)
        best = []
        for w in (0.02, 0.1, 0.3, 0.6, 0.9):  # the best share of the mean for each: none is hurt by its zeros
            expected = ((1 - w) * rate + w * mean) * rest.sum(axis=1, keepdims=True)
            log_ratio = np.log(np.where(rest > 0, rest, 1) / np.maximum(expected, 1e-12))
            best.append(2 * (rest * log_ratio).sum() / rest.sum())
        return float(min(best))

    ours = deviance(adata.layers["sme"])
    assert ours < deviance(plain) and ours < deviance(x)


def test_imputing_fills_zeros_only(fused: AnnData) -> None:
    adata = fused.copy()
    made = sm.tl.impute(adata)
    sm.tl.denoise(adata, settings=made.settings)
    x, filled = adata.X.toarray(), adata.layers["imputed"]
    assert np.array_equal(filled[x > 0], x[x > 0])
    assert (filled[x == 0] >= 0).all() and filled[x == 0].any()
    assert np.array_equal(filled[x == 0], adata.layers["sme"][x == 0])
    assert adata.uns["smeld"]["imputed"]["function"] == "sm.tl.impute"


def test_imputed_zeros_are_higher_where_the_held_out_half_has_counts() -> None:
    adata, rest = halves(1)
    sm.tl.impute(adata)
    zero, filled = adata.X.toarray() == 0, adata.layers["imputed"]
    assert filled[zero & (rest > 0)].mean() > 1.5 * filled[zero & (rest == 0)].mean()


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("noise", ["poisson", "overdispersed"])
def test_both_kinds_of_noise(fused: AnnData, noise: Any) -> None:
    made = sm.tl.denoise(fused.copy(), noise=noise)
    assert made.settings.rank > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "magic"}, "unknown denoising method"),
        ({"noise": "gaussian"}, "unknown noise"),
        ({"genes": ["nope"]}, "nope"),
        ({"genes": []}, "nothing"),
        ({"n_components": 0}, "at least 1"),
        ({"settings": {"own": 1}}, "earlier result"),
        ({"max_gib": 1e-6}, "genes="),
        ({"layer": "missing"}, "missing"),
    ],
)
def test_what_is_refused(fused: AnnData, options: dict[str, Any], says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        sm.tl.denoise(fused.copy(), **options)


def test_logarithms_are_refused_with_the_cure(fused: AnnData) -> None:
    adata = fused.copy()
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()))
    with pytest.raises(sm.InputError, match=r"whole numbers are needed.*raw counts"):
        sm.tl.denoise(adata)
    with pytest.raises(sm.InputError, match="whole numbers"):
        sm.tl.impute(adata)


def test_the_counts_own_layer_is_never_replaced(fused: AnnData) -> None:
    adata = fused.copy()
    adata.layers["sme"] = adata.X.copy()
    with pytest.raises(sm.InputError, match="would be replaced"):
        sm.tl.denoise(adata, layer="sme")
