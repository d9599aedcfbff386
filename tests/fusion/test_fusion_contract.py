"""Every registered fusion method keeps the contract; a new one needs no edit here.

Methods are called as ``sm.fuse`` calls them, and through ``sm.fuse`` itself. A method whose card says
``needs_morphology=True`` is not run without.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import smeld as sm
from smeld import _keys
from smeld.fusion import Fusion, fusions
from smeld.kernels.graph import spatial_graph
from smeld.nn import available

#: methods whose extra is not installed cannot be run
METHODS = [m for m in sorted(fusions) if all(available(p) for p in fusions[m].facts.get("needs", ()))]
N_SIDE = 12
#: options that keep a method quick here, where it is the contract that counts and not how good it is
QUICK: dict[str, dict[str, Any]] = {"vae": {"epochs": 12}}
#: targeted panels (Xenium, MERSCOPE) have that many genes
PANEL = 166


def section(n_genes: int = PANEL, *, morphology: bool = True, isolated: bool = False, seed: int = 0) -> anndata.AnnData:
    """A square lattice of 144 spots, 100 um apart, in two halves that differ in genes and in morphology."""
    rng = np.random.default_rng(seed)
    x, y = (a.ravel() * 100.0 for a in np.meshgrid(np.arange(N_SIDE), np.arange(N_SIDE)))
    left = x < 550
    rate = rng.gamma(2.0, 0.5, n_genes) * np.ones((len(x), 1))
    marked = max(1, n_genes // 8)
    rate[np.ix_(left, range(marked))] *= 3
    rate[np.ix_(~left, range(marked, 2 * marked))] *= 3
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    adata.obs_names = [f"spot{i:03d}" for i in rng.permutation(len(x))]
    adata.var_names = [f"g{i}" for i in range(n_genes)]
    adata.obs["left"] = left
    xy = np.column_stack([x, y])
    if isolated:
        xy[7] = (9000.0, 9000.0)
    adata.obsm["spatial"] = xy
    adata.obsm["spatial_um"] = xy.copy()
    if morphology:
        values = rng.normal(size=(len(x), 5)) + 2 * left[:, None]
        adata.obsm["morph_texture"] = pd.DataFrame(
            values.astype(np.float32), index=adata.obs_names, columns=[f"m{i}" for i in range(5)]
        )
    return adata


def needs_morphology(method: str) -> bool:
    return bool(fusions[method].facts.get("needs_morphology", False))


def situations(method: str) -> list[dict[str, Any]]:
    all_of_them: list[dict[str, Any]] = [
        {"morphology": True},
        {"morphology": False},
        {"morphology": True, "isolated": True},
        {"n_genes": 12},
    ]
    return [s for s in all_of_them if s.get("morphology", True) or not needs_morphology(method)]


CASES = [(method, kind) for method in METHODS for kind in situations(method)]
IDS = [f"{method}-{'-'.join(f'{k}={v}' for k, v in kind.items())}" for method, kind in CASES]


def assert_kept(fusion: Fusion, n: int) -> None:
    assert isinstance(fusion, Fusion)
    assert fusion.embedding.dtype == np.float64
    assert fusion.embedding.shape[0] == n
    assert fusion.embedding.shape[1] >= 1
    assert np.isfinite(fusion.embedding).all()
    assert np.ptp(fusion.embedding, axis=0).max() > 0, "spots differ"
    weights = fusion.weights
    assert isinstance(weights, sparse.csr_matrix)
    assert weights.shape == (n, n)
    assert np.isfinite(weights.data).all()
    assert (weights.data >= 0).all()
    assert weights.diagonal().max() == 0, "no spot is its own neighbour"
    assert abs(weights - weights.T).max() <= 1e-12 * max(weights.data.max(initial=0), 1)
    assert weights.nnz < 0.5 * n * n, "sparse"
    if fusion.posterior_sd is not None:
        assert fusion.posterior_sd.shape == fusion.embedding.shape
        assert (fusion.posterior_sd >= 0).all()
    if fusion.expression is not None:
        assert fusion.expression.shape[0] == n
        assert np.isfinite(fusion.expression).all()
    if fusion.evidence is not None:
        assert isinstance(fusion.evidence, pd.DataFrame)
        assert len(fusion.evidence)


def test_the_folder_was_found() -> None:
    assert "sme" in METHODS


@pytest.mark.parametrize("method", METHODS)
def test_card(method: str) -> None:
    card = fusions[method]
    assert isinstance(card.facts["cite"], str)
    assert card.facts["cite"]
    assert card.summary, "a docstring whose first line says what it is"


def test_the_result_is_frozen() -> None:
    names = [f.name for f in fields(Fusion)]
    assert names[:4] == ["embedding", "weights", "evidence", "posterior_sd"]
    with pytest.raises(AttributeError):
        Fusion(np.zeros((1, 1)), sparse.csr_matrix((1, 1))).embedding = None  # type: ignore[misc, assignment]


@pytest.mark.parametrize(("method", "kind"), CASES, ids=IDS)
def test_shape_and_content(method: str, kind: dict[str, Any]) -> None:
    adata = section(**kind)
    assert_kept(sm.fuse(adata, method, **QUICK.get(method, {})), adata.n_obs)


@pytest.mark.parametrize("method", METHODS)
def test_called_as_it_is_registered(method: str) -> None:
    """Arrays in, a Fusion out; what was given is left as it was."""
    adata = section()
    counts, features = adata.X.copy(), adata.obsm["morph_texture"].to_numpy(dtype=np.float64)
    kept = features.copy()
    graph = spatial_graph(adata.obsm["spatial_um"])
    distances = graph.distances.copy()
    fusion = fusions[method].func(counts, features, graph, batch=None, seed=0, **QUICK.get(method, {}))
    assert_kept(fusion, adata.n_obs)
    assert (counts != adata.X).nnz == 0
    np.testing.assert_array_equal(features, kept)
    assert (graph.distances != distances).nnz == 0


@pytest.mark.parametrize(("method", "kind"), CASES, ids=IDS)
def test_deterministic(method: str, kind: dict[str, Any]) -> None:
    one, other = (sm.fuse(section(**kind), method, **QUICK.get(method, {}), seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.embedding, other.embedding)
    assert (one.weights != other.weights).nnz == 0


@pytest.mark.parametrize(("method", "kind"), CASES, ids=IDS)
def test_permuting_spots_permutes_the_result(method: str, kind: dict[str, Any]) -> None:
    adata = section(**kind)
    order = np.random.default_rng(3).permutation(adata.n_obs)
    shuffled = adata[order].copy()
    straight, permuted = (
        sm.fuse(adata, method, **QUICK.get(method, {})),
        sm.fuse(shuffled, method, **QUICK.get(method, {})),
    )
    np.testing.assert_array_equal(permuted.embedding, straight.embedding[order])
    assert (permuted.weights != straight.weights[order][:, order]).nnz == 0
    if straight.posterior_sd is not None and permuted.posterior_sd is not None:
        np.testing.assert_array_equal(permuted.posterior_sd, straight.posterior_sd[order])


def _distances(embedding: np.ndarray) -> np.ndarray:
    return np.linalg.norm(embedding[:, None] - embedding[None], axis=2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("angle", "scale", "shift"), [(0.7, 1.0, 0.0), (0.0, 1.0, -5e4), (2.0, 1.0, 300.0)])
def test_turning_and_moving_changes_nothing(method: str, angle: float, scale: float, shift: float) -> None:
    adata, turned = section(), section()
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turned.obsm["spatial_um"] = turned.obsm["spatial_um"] @ turn.T * scale + shift
    one, other = sm.fuse(adata, method, **QUICK.get(method, {})), sm.fuse(turned, method, **QUICK.get(method, {}))
    np.testing.assert_allclose(_distances(other.embedding), _distances(one.embedding), rtol=1e-4, atol=1e-4)
    assert abs(one.weights - other.weights).max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_order_of_genes_hardly_matters(method: str) -> None:
    adata = section()
    other = adata[:, ::-1].copy()
    one, two = sm.fuse(adata, method, **QUICK.get(method, {})), sm.fuse(other, method, **QUICK.get(method, {}))
    np.testing.assert_allclose(_distances(two.embedding), _distances(one.embedding), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_an_isolated_spot_has_no_edge_and_a_place(method: str) -> None:
    adata = section(isolated=True)
    fusion = sm.fuse(adata, method, **QUICK.get(method, {}), graph="lattice")
    assert fusion.weights[7].nnz == 0
    assert np.isfinite(fusion.embedding[7]).all()


@pytest.mark.parametrize("method", METHODS)
def test_neighbours_become_alike_and_halves_stay_apart(method: str) -> None:
    """What fusion is for: along edges values draw near, and the two halves can be told apart."""
    adata = section()
    fusion = sm.fuse(adata, method, **QUICK.get(method, {}))
    left = adata.obs["left"].to_numpy()
    centres = [fusion.embedding[left].mean(0), fusion.embedding[~left].mean(0)]
    nearer = np.linalg.norm(fusion.embedding - centres[0], axis=1) < np.linalg.norm(
        fusion.embedding - centres[1], axis=1
    )
    assert (nearer == left).mean() > 0.95
    edges = sparse.coo_matrix(adata.obsp["spatial_connectivities"])
    distance = _distances(fusion.embedding)
    assert distance[edges.row, edges.col].mean() < 0.8 * distance.mean()


@pytest.mark.parametrize("method", METHODS)
def test_what_fuse_writes(method: str, tmp_path) -> None:
    adata = section()
    before = adata.X.copy()
    fusion = sm.fuse(adata, method, **QUICK.get(method, {}), seed=2)
    np.testing.assert_array_equal(adata.obsm[f"fused_{method}"], fusion.embedding)
    assert (adata.obsp["sme_weights"] != fusion.weights).nnz == 0
    distances = adata.obsp["spatial_distances"]
    assert np.allclose(distances.data[distances.data < 120], 100.0), "micrometres"
    assert (before != adata.X).nnz == 0
    kept = adata.uns["smeld"][f"fused_{method}"]
    assert kept["params"]["method"] == method
    assert int(kept["seed"]) == 2
    assert kept["inputs"]["morphology"] == "morph_texture"
    assert _keys.kept_warnings(adata) == []
    sm.write(adata, tmp_path / "a.h5ad")
    again = anndata.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm[f"fused_{method}"], fusion.embedding)


@pytest.mark.parametrize("method", METHODS)
def test_another_key(method: str) -> None:
    adata = section()
    sm.fuse(adata, method, **QUICK.get(method, {}), key_added="mine")
    assert "mine" in adata.obsm
    assert f"fused_{method}" not in adata.obsm
    assert "mine" in adata.uns["smeld"]


@pytest.mark.parametrize("method", METHODS)
def test_an_option_it_does_not_take(method: str) -> None:
    with pytest.raises(sm.InputError, match=r"does not take.*alhpa.*help"):
        sm.fuse(section(), method, alhpa=3)
