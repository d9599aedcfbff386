"""Annotation on simulated cells, from markers, on real sections; and what is refused."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import smeld as sm
from smeld._check import InputError, SmeldWarning
from smeld.tl._annotate import annotate


@pytest.fixture(scope="module")
def cells() -> AnnData:
    return sm.datasets.simulate(
        700, 120, seed=100, layout="cells", image=False, n_cell_types=5, cell_type_effect=2.0, mean_counts=150
    )


@pytest.fixture(scope="module")
def reference(cells: AnnData) -> AnnData:
    return sm.datasets.simulate_reference(cells, 80, seed=100)


def right(adata: AnnData, key: str = "cell_type") -> float:
    return float((adata.obs[key].astype(str) == adata.obs["truth_cell_type"].astype(str)).mean())


def test_types_are_found_under_another_platform(cells: AnnData, reference: AnnData) -> None:
    adata = cells.copy()
    made = annotate(adata, reference)
    assert right(adata) > 0.8
    assert made.confidence.mean() == pytest.approx(right(adata), abs=0.05)
    truth = adata.obs["truth_cell_type"].astype(str)
    held = np.array([made.sets.loc[c, t] for c, t in truth.items()])
    assert held.mean() >= 0.88
    assert list(made.prob.columns) == [*sorted(reference.obs["cell_type"].unique()), "unknown"]
    assert made.prob.sum(axis=1).to_numpy() == pytest.approx(1)
    called = np.array([made.sets.loc[c, t] for c, t in made.labels.astype(str).items() if t != "unknown"])
    assert called.all()  # what is said is in the set
    record = adata.uns["smeld"]["cell_type"]
    assert record["params"]["platform_sd"] == pytest.approx(1.0, abs=0.2)
    assert record["params"]["n_genes"] == 120


def test_order_of_cells_and_form_of_the_reference_do_not_matter(cells: AnnData, reference: AnnData) -> None:
    part = cells[:300].copy()
    one = annotate(part.copy(), reference, unknown=False)
    turned = part[np.random.default_rng(0).permutation(300)].copy()
    two = annotate(turned, reference, unknown=False)
    assert two.prob.loc[one.prob.index].equals(one.prob) and two.sets.loc[one.sets.index].equals(one.sets)
    frame = reference.to_df()
    frame["cell_type"] = reference.obs["cell_type"].to_numpy()
    assert annotate(part.copy(), frame, unknown=False).prob.equals(one.prob)


def test_threads_do_not_matter(cells: AnnData, reference: AnnData) -> None:
    import numba
    from threadpoolctl import threadpool_limits

    part, before = cells[:300].copy(), numba.get_num_threads()
    with threadpool_limits(1):
        one = annotate(part.copy(), reference, unknown=False)
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    try:
        with threadpool_limits(2):
            two = annotate(part.copy(), reference, unknown=False)
    finally:
        numba.set_num_threads(before)
    assert one.prob.equals(two.prob)


def test_sections_are_annotated_one_by_one(cells: AnnData, reference: AnnData) -> None:
    adata = cells.copy()
    adata.obs["section"] = np.where(np.arange(adata.n_obs) % 2, "a", "b")
    made = annotate(adata, reference, batch_key="section", unknown=False)
    alone = adata[adata.obs["section"] == "a"].copy()
    assert annotate(alone, reference, unknown=False).prob.equals(made.prob.loc[alone.obs_names])
    assert set(made.facts) == {"a", "b"}


def test_markers_do(cells: AnnData) -> None:
    adata = cells.copy()
    effect = adata.varm["truth_type_effect"]
    markers = {t: list(adata.var_names[effect[t].to_numpy() > 0.5]) for t in effect.columns}
    made = annotate(adata, markers=markers, key_added="by_markers")
    assert right(adata, "by_markers") > 0.7
    table = pd.DataFrame([(t, g) for t, genes in markers.items() for g in genes], columns=["type", "gene"])
    assert annotate(adata, markers=table, key_added="again").prob.equals(made.prob)
    for names in (
        ["Cell type", " Official gene symbol "],
        ["group", "names"],
        ["cluster", "marker"],
        ["cell.name", "Symbol"],
    ):
        assert annotate(adata, markers=table.set_axis(names, axis=1), key_added="again").prob.equals(made.prob)
    wide = pd.DataFrame({t: pd.Series(genes, dtype=object) for t, genes in markers.items()})
    assert annotate(adata, markers=wide, key_added="again").prob.equals(made.prob)


def test_cells_of_nobodys_markers_are_unknown() -> None:
    rng = np.random.default_rng(0)
    rate = np.ones((3, 30))
    rate[0, :8], rate[1, 8:16] = 8, 8
    label = rng.integers(0, 3, 600)
    counts = rng.poisson(rate[label] / rate[label].sum(axis=1, keepdims=True) * 120).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(counts))
    adata.var_names = [f"g{i}" for i in range(30)]
    markers = {"one": [f"g{i}" for i in range(8)], "two": [f"g{i}" for i in range(8, 16)]}
    with pytest.warns(SmeldWarning, match="absent"), pytest.warns(SmeldWarning, match="3.% of the cells are of none"):
        found = annotate(adata, markers={**markers, "two": [*markers["two"], "absent"]}).labels.astype(str).to_numpy()
    truth = np.array(["one", "two", "unknown"])[label]
    assert (found == truth).mean() > 0.95


def test_types_without_a_measured_marker_are_left_out(cells: AnnData) -> None:
    part = cells[:100].copy()
    genes = {"a": [part.var_names[0]], "b": [part.var_names[1]]}
    with pytest.warns(SmeldWarning, match="no marker was measured are left out: ghost"):
        found = annotate(part, markers={**genes, "ghost": ["nothing"]}, key_added="with")
    assert found.prob.equals(annotate(part, markers=genes).prob)


def test_what_is_wrong_is_said(cells: AnnData, reference: AnnData) -> None:
    part = cells[:100].copy()
    with pytest.raises(InputError, match="neither"):
        annotate(part)
    with pytest.raises(InputError, match="both"):
        annotate(part, reference, markers={"a": ["x"], "b": ["y"]})
    with pytest.raises(InputError, match=r"level.*0\.5"):
        annotate(part, reference, level=1.0)
    with pytest.raises(InputError, match="spatial"):
        annotate(part, reference, spatial="maybe")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="two types"):
        annotate(part, markers={"a": [part.var_names[0]]})
    with pytest.raises(InputError, match=r"no marker of b.*spell"):
        annotate(part, markers={"a": [part.var_names[0]], "b": ["nothing"]})
    with pytest.raises(InputError, match="list genes"):
        annotate(part, markers={"a": "CD3D", "b": "CD19"})
    logged = part.copy()
    logged.X = logged.X.log1p()
    with pytest.raises(InputError, match="section must hold counts"):
        annotate(logged, reference)
    named = reference.copy()
    named.obs["cell_type"] = named.obs["cell_type"].cat.rename_categories({"T1": "unknown"})
    with pytest.raises(InputError, match="'unknown'"):
        annotate(part, named)
    nowhere = part.copy()
    del nowhere.obsm["spatial_um"]
    with pytest.raises(InputError, match="spatial_um"):
        annotate(nowhere, reference, spatial=True)


def test_labels_of_the_user_are_kept(cells: AnnData, reference: AnnData) -> None:
    part = cells[:200].copy()
    part.obs["cell_type"] = "mine"
    with pytest.warns(SmeldWarning, match="cell_type_given"):
        annotate(part, reference, unknown=False, spatial=False)
    assert (part.obs["cell_type_given"] == "mine").all()


def test_one_section_of_cortex_labels_the_other(shared_data: Path) -> None:
    """Labels of the section itself, learnt across folds by a regression, are right in .75 of cells: two hands."""
    folder = shared_data / "starmap_mpfc"
    if not folder.exists():
        pytest.skip("no STARmap sections")
    reference = ad.read_h5ad(folder / "20180417_BZ5_control.h5ad")
    adata = ad.read_h5ad(folder / "20180419_BZ9_control.h5ad")
    truth = adata.obs.pop("cell_type").astype(str)
    adata.obsm["spatial_um"] = adata.obs[["x", "y"]].to_numpy(float)
    made = annotate(adata, reference)
    assert (made.labels.astype(str) == truth).mean() > 0.62
    assert np.mean([made.sets.loc[c, t] for c, t in truth.items()]) >= 0.85
    facts = adata.uns["smeld"]["cell_type"]["params"]
    assert facts["spatial_gain"] > 5 * facts["spatial_gain_error"]  # neighbours predict counts well,
    assert facts["spatial_excess"] > 3 * facts["spatial_excess_error"]  # but better than their types explain
    assert not facts["spatial"]


def test_one_side_of_an_embryo_names_the_other_although_types_are_unevenly_spread(shared_data: Path) -> None:
    """A type that is common there and rare here is no effect of the platform: counts are the same embryo's."""
    file = shared_data / "seqfish_embryo" / "embryo1_20pct.h5ad"
    if not file.exists():
        pytest.skip("no seqFISH embryo")
    adata = ad.read_h5ad(file)
    number = adata.obs["celltype"].value_counts()
    common = adata.obs["celltype"].isin(number.index[number >= 20]) & (adata.obs["celltype"] != "Low quality")
    adata = adata[common.to_numpy()].copy()
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    step = np.array([row.data.min() if row.nnz else 1.0 for row in adata.X])
    adata.X.data = np.rint(np.expm1(adata.X.data) / np.repeat(np.expm1(step), np.diff(adata.X.indptr)))
    adata.obs["cell_type"] = adata.obs.pop("celltype").astype(str)
    x = np.asarray(adata.obsm["spatial"])[:, 0]
    left, right_side = (adata[side].copy() for side in (x < np.median(x), x >= np.median(x)))
    truth = left.obs.pop("cell_type").to_numpy()
    left.obsm["spatial_um"] = np.asarray(left.obsm["spatial"], dtype=float)
    made = annotate(left, right_side, spatial=False, unknown=False)
    assert (made.labels.astype(str).to_numpy() == truth).mean() > 0.65
