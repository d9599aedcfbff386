"""Every public task on every kind of input: the same results to the last bit.

Counts are whole numbers, so that each kind holds the same values exactly; what a task writes may not depend on how they
are stored, nor on whether the table came alone or inside a SpatialData.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import smeld as sm
from smeld import _adapt

mpl.use("Agg")
AnnData = anndata.AnnData
N_OBS, N_GENES, SEED = 200, 50, 100
BESIDE = ("L", "R")  # a pair that surely lies together
LISTED = [BESIDE, ("LIG1", "REC1"), ("LIG2", "REC2")]
PAIRS = np.array([[0, 1], [5, 100], [17, 199]])

#: the tasks in the order of an analysis: (data, options for those that take them) -> what they return
TASKS: dict[str, Callable[..., Any]] = {
    "quality_control": lambda d, **o: sm.tl.quality_control(d, **o),
    "embed": lambda d: sm.morph.embed(d, "texture", quiet=True),
    "fuse": lambda d, **o: sm.fuse(d, seed=0, **o),
    "domains": lambda d: sm.tl.domains(d, 3, seed=0, n_starts=2, n_splits=1),
    "markers": lambda d, **o: sm.tl.markers(d, **o),
    "denoise": lambda d, **o: sm.tl.denoise(d, **o),
    "impute": lambda d, **o: sm.tl.impute(d, key_added="imputed", **o),
    "interactions": lambda d, **o: sm.tl.interactions(d, LISTED, seed=0, **o),
    "celltype_interactions": lambda d, **o: sm.tl.celltype_interactions(d, "truth_cell_type", min_cells=5, **o),
    "neighborhood_composition": lambda d: sm.tl.neighborhood_composition(d, "truth_cell_type"),
    "trajectory": lambda d, **o: sm.tl.trajectory(d, seed=0, n_bootstraps=4, **o),
    "transition_genes": lambda d, **o: sm.tl.transition_genes(d, seed=0, n_splits=1, **o),
    "transition_matrix": lambda d: sm.tl.transition_matrix(d),
    "contiguity": lambda d: sm.tl.contiguity(d),
    "pieces": lambda d: sm.tl.pieces(d),
    "calibration": lambda d: sm.tl.calibration(d, "truth_domain"),
    "same_domain": lambda d: sm.tl.same_domain(d, PAIRS),
    "compare_transitions": lambda d: sm.tl.compare_transitions(d, d),
}
WITH_LAYER = {
    "quality_control", "fuse", "markers", "denoise", "impute", "interactions", "celltype_interactions", "trajectory",
    "transition_genes",
}  # fmt: skip
#: plots of what the tasks left
PLOTS: dict[str, Callable[[Any], Any]] = {
    "celltype_heatmap": lambda d: sm.pl.celltype_heatmap(d),
    "celltype_network": lambda d: sm.pl.celltype_network(d),
    "colocation": lambda d: sm.pl.colocation(d),
    "confidence": lambda d: sm.pl.confidence(d),
    "confusion": lambda d: sm.pl.confusion(d, "truth_domain", "domain"),
    "domains": lambda d: sm.pl.domains(d),
    "embedding": lambda d: sm.pl.embedding(d),
    "fates": lambda d: sm.pl.fates(d),
    "gene": lambda d: sm.pl.gene(d, str(_table(d).var_names[0])),
    "gene_courses": lambda d: sm.pl.gene_courses(d, str(_table(d).var_names[0])),
    "gene_order": lambda d: sm.pl.gene_order(d),
    "interaction_arrows": lambda d: sm.pl.interaction_arrows(d, BESIDE),
    "interaction_map": lambda d: sm.pl.interaction_map(d, BESIDE),
    "interactions": lambda d: sm.pl.interactions(d),
    "local_pseudotime": lambda d: sm.pl.local_pseudotime(d, "1", key="pseudotime"),
    "markers": lambda d: sm.pl.markers(d),
    "pseudotime": lambda d: sm.pl.pseudotime(d),
    "qq": lambda d: sm.pl.qq(d),
    "quality_control": lambda d: sm.pl.quality_control(d),
    "reliability": lambda d: sm.pl.reliability(d),
    "risk_coverage": lambda d: sm.pl.risk_coverage(d),
    "section": lambda d: sm.pl.section(d),
    "trajectory_tree": lambda d: sm.pl.trajectory_tree(d),
}
#: what takes data and is tested elsewhere: files, the report, another package's object, what needs a reference, types,
#: or an image that shows nuclei
ELSEWHERE = {
    "write", "report", "view", "cellrank_kernel", "annotate", "deconvolve", "niches", "niche_states", "compare_niches",
    "niche_heatmap", "proportions", "nuclei",
}  # fmt: skip


def _table(data: Any) -> AnnData:
    return data if isinstance(data, AnnData) else data.tables["table"]


def _spatialdata(adata: AnnData) -> Any:
    spatialdata = pytest.importorskip("spatialdata", reason="needs smeld[spatialdata]")
    return spatialdata.SpatialData(tables={"table": spatialdata.models.TableModel.parse(adata)})


def _with(adata: AnnData, x: Any) -> AnnData:
    adata.X = x
    return adata


def _view(adata: AnnData) -> AnnData:
    """Every spot and gene of the section, of a table with more of both."""
    more = anndata.concat([adata, adata[:7].copy()], index_unique="-", merge="first", uns_merge="first")
    more.obs_names = [*adata.obs_names, *(f"other{i}" for i in range(7))]
    view = more[: adata.n_obs]
    assert view.is_view
    return view


def _layer(adata: AnnData) -> AnnData:
    adata.layers["counts"] = adata.X.copy()
    adata.X = sparse.csr_matrix(np.log1p(adata.X.toarray()[:, ::-1]).astype(np.float32))
    return adata


def _on_disk(adata: AnnData) -> AnnData:
    """Blocks of 64 rows behind dask, as ``sm.read(..., backed=True)`` gives them."""
    array = pytest.importorskip("dask.array", reason="needs smeld[cluster]")
    return _with(adata, array.from_array(adata.X, chunks=(64, adata.n_vars), asarray=False))


#: by kind: the section as it is stored there
KINDS: dict[str, Callable[[AnnData], Any]] = {
    "csc, float64": lambda a: _with(a, sparse.csc_matrix(a.X, dtype=np.float64)),
    "csr array, int64": lambda a: _with(a, sparse.csr_array(a.X, dtype=np.int64)),
    "dense, Fortran order, float64": lambda a: _with(a, np.asfortranarray(a.X.toarray().astype(np.float64))),
    "view": _view,
    "layer": _layer,
    "SpatialData": _spatialdata,
    "on disk": _on_disk,
}


def _analysed(data: Any, layer: str | None) -> dict[str, Any]:
    """What the tasks return; their results are in ``data``."""
    returned = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, task in TASKS.items():
            options = {"layer": layer} if layer is not None and name in WITH_LAYER else {}
            returned[name] = task(data, **options)
    return returned


@pytest.fixture(scope="module")
def section() -> AnnData:
    adata = sm.datasets.simulate(N_OBS, N_GENES, seed=SEED, n_pairs=4)
    # two genes of one small patch
    away = np.linalg.norm(adata.obsm["spatial_um"] - np.median(adata.obsm["spatial_um"], axis=0), axis=1)
    rng = np.random.default_rng(SEED)
    x = adata.X.toarray()
    for column in (0, 1):
        x[:, column] = rng.poisson(0.2 + 8 * np.exp(-((away / 150) ** 2)))
    adata.X = sparse.csr_matrix(x)
    adata.var_names = [*BESIDE, *adata.var_names[2:]]
    return adata


@pytest.fixture(scope="module")
def plain(section: AnnData) -> tuple[AnnData, dict[str, Any]]:
    """Results on CSR float32."""
    adata = section.copy()
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    return adata, _analysed(adata, None)


def _differences(one: Any, other: Any, at: str) -> Iterator[str]:
    """Where two results are not the same, NaN being equal to NaN."""
    if isinstance(one, pd.DataFrame | pd.Series | pd.Index):
        same = type(one) is type(other) and one.equals(other)
    elif sparse.issparse(one):
        same = sparse.issparse(other) and one.shape == other.shape and (one != other).nnz == 0
    elif hasattr(one, "keys"):
        if set(one) != set(other):
            yield f"{at}: {sorted(map(str, set(one) ^ set(other)))} in only one"
        for key in set(one) & set(other):
            yield from _differences(one[key], other[key], f"{at}[{key!r}]")
        return
    elif isinstance(one, str | None | bool):
        same = one == other
    else:
        a, b = np.asarray(one), np.asarray(other)
        same = a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if not same:
        yield at


@pytest.mark.parametrize("kind", KINDS)
def test_results_are_the_same(section: AnnData, plain: tuple[AnnData, dict[str, Any]], kind: str) -> None:
    layer = "counts" if kind == "layer" else None
    data = KINDS[kind](section.copy())
    returned = _analysed(data, layer)
    expected, expected_returned = plain
    found = _table(data)
    assert _adapt.table(data) is found
    different = [*_differences(expected.obs, found.obs, "obs"), *_differences(expected.var, found.var, "var")]
    for part in ("obsm", "obsp", "varm", "layers"):
        left = {k: v for k, v in getattr(found, part).items() if (part, k) != ("layers", "counts")}
        different += _differences(dict(getattr(expected, part)), left, part)
    notes = ({k: v for k, v in a.uns.items() if k not in ("smeld", "spatialdata_attrs")} for a in (expected, found))
    different += _differences(*notes, "uns")
    for name in ("transition_matrix", "same_domain", "compare_transitions"):
        different += _differences(expected_returned[name], returned[name], name)
    assert different == []


def test_the_input_itself_is_left_as_it_was(section: AnnData) -> None:
    for kind in ("dense, Fortran order, float64", "csr array, int64"):
        data = KINDS[kind](section.copy())
        before = data.X.copy()
        _ = sm.tl.quality_control(data), sm.fuse(data, seed=0), sm.tl.denoise(data)
        assert type(data.X) is type(before)
        assert data.X.dtype == before.dtype
        assert (before != data.X).sum() == 0


def _picture(drawn: Any) -> np.ndarray:
    import matplotlib.pyplot as plt

    figure = np.ravel(np.asarray(drawn, dtype=object))[0].figure
    figure.set_dpi(30)
    figure.canvas.draw()
    picture = np.asarray(figure.canvas.buffer_rgba()).copy()
    plt.close(figure)
    return picture


@pytest.mark.parametrize("name", PLOTS)
def test_plots_are_the_same(plain: tuple[AnnData, dict[str, Any]], name: str) -> None:
    adata, _ = plain
    alone, inside = _picture(PLOTS[name](adata)), _picture(PLOTS[name](_spatialdata(adata)))
    assert np.array_equal(alone, inside)
    assert len(np.unique(alone.reshape(-1, 4), axis=0)) > 5  # something was drawn


@pytest.mark.parametrize("name", ["gene", "gene_courses", "gene_order", "interaction_map", "markers"])
def test_plots_of_genes_are_the_same_where_counts_are_on_disk(plain: tuple[AnnData, dict[str, Any]], name: str) -> None:
    adata, _ = plain
    assert np.array_equal(_picture(PLOTS[name](adata)), _picture(PLOTS[name](_on_disk(adata.copy()))))


def test_a_table_named_in_the_attributes_is_used(section: AnnData) -> None:
    spatialdata = pytest.importorskip("spatialdata", reason="needs smeld[spatialdata]")
    tables = {name: spatialdata.models.TableModel.parse(section.copy()) for name in ("cells", "bins")}
    sdata = spatialdata.SpatialData(tables=tables)
    with pytest.raises(sm.InputError, match=r"2 tables: .*sdata\.attrs\[.smeld_table.\]"):
        sm.tl.quality_control(sdata)
    sdata.attrs["smeld_table"] = "cells"
    sm.tl.quality_control(sdata)
    assert "total_counts" in sdata.tables["cells"].obs
    assert "total_counts" not in sdata.tables["bins"].obs


def _takes_data(module: ModuleType) -> set[str]:
    names = set()
    for name in module.__all__:
        function = getattr(module, name)
        if inspect.isfunction(function):
            first = next(iter(inspect.signature(function).parameters), "")
            names |= {name} & ({name} if first in ("data", "adata", "first") else set())
    return names


def test_every_public_function_is_here() -> None:
    tasks = _takes_data(sm) | _takes_data(sm.tl) | _takes_data(sm.morph)
    assert tasks - ELSEWHERE == set(TASKS)
    assert _takes_data(sm.pl) - ELSEWHERE == set(PLOTS)
    by_name = {name: getattr(module, name) for module in (sm.tl, sm) for name in TASKS if hasattr(module, name)}
    assert {n for n, f in by_name.items() if "layer" in inspect.signature(f).parameters} == WITH_LAYER
