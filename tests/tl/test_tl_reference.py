"""References: what is matched, what is dropped and said, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import smeld as sm
from smeld import _check
from smeld.tl import _reference

GENES = [f"Gene{k}" for k in range(40)]


def section(names: list[str] | None = None) -> anndata.AnnData:
    names = GENES if names is None else names
    return anndata.AnnData(np.ones((5, len(names)), dtype=np.float32), var=pd.DataFrame(index=names))


def reference(n: int = 60, *, genes: list[str] | None = None, seed: int = 0, types: str = "ABC") -> anndata.AnnData:
    rng, genes = np.random.default_rng(seed), GENES if genes is None else genes
    x = rng.poisson(2.0, (n, len(genes))).astype(np.float32)
    obs = pd.DataFrame({"cell_type": [types[k % len(types)] for k in range(n)]}, index=[f"c{k}" for k in range(n)])
    return anndata.AnnData(sparse.csr_matrix(x), obs=obs, var=pd.DataFrame(index=genes))


def quietly(*args: Any, **options: Any) -> _reference.Reference:
    with warnings.catch_warnings():
        warnings.simplefilter("error", _check.SmeldWarning)
        return _reference.checked(*args, **options)


def test_genes_come_in_the_sections_order_with_the_right_counts() -> None:
    here = section([*GENES[::-1][:30], "only here"])
    there = reference(genes=[*GENES[5:], "only there"])
    found = quietly(here, there)
    names = here.var_names[found.genes]
    assert list(names) == [g for g in here.var_names if g in set(there.var_names)]
    assert found.counts.dtype == np.float32
    assert found.counts.has_canonical_format
    assert np.array_equal(found.counts.toarray(), there[:, names].X.toarray())
    assert [found.names[k] for k in found.label] == there.obs["cell_type"].tolist()
    assert found.few == []
    assert _reference.facts(found) == {
        "n_genes": 30, "n_genes_section": 31, "n_genes_reference": 36, "n_cells": 60, "types": ["A", "B", "C"],
    }  # fmt: skip


def test_a_table_is_read_as_an_anndata_is() -> None:
    there = reference()
    table = pd.DataFrame(there.X.toarray(), index=there.obs_names, columns=GENES)
    table.insert(3, "cell_type", there.obs["cell_type"])
    table["donor"], table["n_counts"], table["pct"] = "d1", 7, 0.5  # neither genes nor looked at
    ours, theirs = quietly(section(), there), quietly(section(), table.astype({"Gene3": "Int64"}))
    assert (ours.counts != theirs.counts).nnz == 0
    assert np.array_equal(ours.label, theirs.label)
    assert np.array_equal(ours.genes, theirs.genes)
    assert ours.names == theirs.names


@given(st.permutations(range(40)), st.permutations(range(30)))
def test_the_order_of_the_reference_does_not_matter(columns: list[int], rows: list[int]) -> None:
    there = reference(30)
    ours, theirs = quietly(section(), there), quietly(section(), there[rows, columns].copy())
    assert np.array_equal(ours.counts.toarray()[rows], theirs.counts.toarray())
    assert np.array_equal(ours.label[rows], theirs.label)


def test_cells_without_label_or_counts_are_dropped_and_said() -> None:
    here, there = section(), _with_values(lambda x: np.where(np.arange(60)[:, None] == 9, 0, x))
    there.obs["cell_type"] = there.obs["cell_type"].astype("category").cat.add_categories(["unused"])
    there.obs.iloc[[0, 7], 0] = np.nan
    with pytest.warns(_check.SmeldWarning) as said:
        found = _reference.checked(here, there)
    texts = [str(w.message) for w in said]
    assert any("2 of 60 reference cells have no 'cell_type'" in t for t in texts)
    assert any("1 reference cells have no counts in the shared genes" in t for t in texts)
    kept = np.setdiff1d(np.arange(60), [0, 7, 9])
    assert np.array_equal(found.counts.toarray(), there.X.toarray()[kept])
    assert [found.names[k] for k in found.label] == there.obs["cell_type"].astype(str).iloc[kept].tolist()
    assert len(here.uns["smeld"]["warnings"]) == 2


def test_types_of_few_cells_are_named() -> None:
    there = reference(45)
    there.obs.iloc[:4, 0] = "rare"
    with pytest.warns(_check.SmeldWarning, match=r"unreliable: rare \(4\)"):
        found = _reference.checked(section(), there)
    assert found.few == ["rare"]
    assert found.names == ["A", "B", "C", "rare"]


def test_of_genes_that_occur_twice_the_first_is_taken() -> None:
    there = reference(genes=[*GENES, "Gene3"])
    here = section([*GENES, "Gene5"])
    with pytest.warns(_check.SmeldWarning) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("always", _check.SmeldWarning)
        found = _reference.checked(here, there)
    texts = " ".join(str(w.message) for w in said)
    assert "more than once in the section, the first is taken: Gene5" in texts
    assert "more than once in the reference, the first is taken: Gene3" in texts
    assert np.array_equal(found.counts.toarray(), there.X.toarray()[:, :40])
    assert np.array_equal(found.genes, np.arange(40))


def test_the_users_reference_is_left_alone() -> None:
    there = reference()
    there.layers["raw"] = there.X.copy()
    before = there.copy()
    quietly(section(), there)
    found = quietly(section(), there, layer="raw")
    found.counts.data[:] = 0
    assert (there.layers["raw"] != before.layers["raw"]).nnz == 0
    assert (there.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(there.obs, before.obs)


def test_small_panels_need_not_share_twenty_genes() -> None:
    assert len(quietly(section(GENES[:10]), reference(200)).genes) == 10
    with pytest.raises(sm.InputError, match="share 9 genes, which is too few"):
        _reference.checked(section([*GENES[:9], "x", "y"]), reference())


def test_hardly_any_genes_of_large_panels_are_warned_of() -> None:
    here = section([*GENES[:20], *(f"HERE{k}" for k in range(300))])
    there = reference(genes=[*GENES, *(f"here{k}" for k in range(300))])
    with pytest.warns(_check.SmeldWarning, match="only 20 genes are shared.*320 match up to upper and lower case"):
        _reference.checked(here, there)


ENSEMBL = [f"ENSMUSG{k:011d}" for k in range(40)]


@pytest.mark.parametrize(
    ("here", "there", "says"),
    [
        (GENES, [f"Other{k}" for k in range(40)], "Gene0, Gene1, Gene2 and 37 more in the section; Other0, Other1"),
        (GENES, [g.upper() for g in GENES], "40 match up to upper and lower case.*same species"),
        (GENES, ENSEMBL, "names of the reference look like Ensembl ids, those of the section like symbols"),
        (ENSEMBL, GENES, "names of the section look like Ensembl ids, those of the reference like symbols"),
        (ENSEMBL, [f"{g}.4" for g in ENSEMBL], "match up to the version after the dot.*drop the versions"),
        (GENES[:22], [*GENES[:15], *(f"o{k}" for k in range(20))], "share 15 genes, which is too few"),
    ],
)
def test_genes_that_do_not_match_say_why(here: list[str], there: list[str], says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        _reference.checked(section(here), reference(genes=there))


def test_a_column_with_the_right_names_is_pointed_out() -> None:
    there = reference(genes=ENSEMBL)
    there.var["n"] = 1
    there.var["feature_name"] = pd.Categorical(GENES)
    with pytest.raises(sm.InputError, match=r"reference.var_names = reference.var\['feature_name'\]"):
        _reference.checked(section(), there)
    here = section()
    here.var["gene_ids"] = ENSEMBL
    with pytest.raises(sm.InputError, match=r"adata.var_names = adata.var\['gene_ids'\]"):
        _reference.checked(here, reference(genes=ENSEMBL))


def _with_labels(labels: Any) -> anndata.AnnData:
    there = reference()
    there.obs["cell_type"] = labels
    return there


def _with_values(change: Any) -> anndata.AnnData:
    there = reference()
    x = there.X.toarray()
    there.X = sparse.csr_matrix(change(x).astype(np.float32))
    return there


def _logged(x: np.ndarray) -> np.ndarray:
    return np.log1p(1e4 * x / x.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("reference.h5ad", "must be an AnnData or a DataFrame.*found: str.*anndata.read_h5ad"),
        (reference().X, "must be an AnnData or a DataFrame"),
        (anndata.AnnData(reference().X), r"reference.obs\['cell_type'\] is missing"),
        (pd.DataFrame(1, index=range(5), columns=GENES), r"reference\['cell_type'\] is missing.*label="),
        (_with_labels(np.nan), "tells no cell types apart; found: no value in any of 60 cells"),
        (_with_labels(""), "no value in any of 60 cells"),
        (_with_labels("A"), "tells no cell types apart; found: 'A' only"),
        (_with_labels([f"t{k}" for k in range(60)]), "one cell of each of 60 types"),
        (_with_values(lambda x: x - 1), "in the reference, counts cannot be negative; found: smallest value -1"),
        (_with_values(lambda x: np.where(x == 3, np.nan, x)), "in the reference, counts must be finite"),
        (_with_values(lambda x: np.where(x == 3, np.inf, x)), "in the reference, counts must be finite"),
        (_with_values(np.zeros_like), "in the reference, the matrix holds nothing but zeros"),
        (_with_values(_logged), "must hold counts; found: normalised logarithms such as"),
        (_with_values(lambda x: 1000.5 * x), "must hold counts; found: normalised values such as"),
    ],
)
def test_bad_references_are_refused_with_the_cure(there: Any, says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        _reference.checked(section(), there)


def test_tables_with_words_for_counts_and_ambiguous_labels() -> None:
    table = pd.DataFrame(reference().X.toarray(), columns=GENES)
    table["cell_type"] = reference().obs["cell_type"].to_numpy()
    with pytest.raises(sm.InputError, match="something else in Gene4"):
        _reference.checked(section(), table.assign(Gene4="many"))
    with pytest.raises(sm.InputError, match="a table has no layers"):
        _reference.checked(section(), table, layer="counts")
    with pytest.raises(sm.InputError, match="labels are ambiguous; found: 2 columns 'cell_type'"):
        _reference.checked(section(), pd.concat([table, table[["cell_type"]]], axis=1))


def test_tables_whose_genes_do_not_fit() -> None:
    def table(genes: list[str]) -> pd.DataFrame:
        return pd.DataFrame(reference().X.toarray(), columns=genes).assign(cell_type=reference().obs["cell_type"].array)

    ids = [f"ENSG{k:011d}" for k in range(len(GENES))]
    with pytest.raises(sm.InputError, match=r"share no genes.*reference look like Ensembl ids"):
        _reference.checked(section(), table(ids))
    here = section()
    here.var["id"] = ids
    with pytest.raises(sm.InputError, match=r"adata.var\['id'\] fits"):
        _reference.checked(here, table(ids))
    here = section([*GENES, *(f"X{k}" for k in range(960))])
    there = reference(genes=[*GENES[:30], *(f"Y{k}" for k in range(970))])
    frame = pd.DataFrame(there.X.toarray(), columns=there.var_names).assign(cell_type=there.obs["cell_type"].array)
    with pytest.warns(_check.SmeldWarning, match="only 30 genes are shared"):
        _reference.checked(here, frame)


def test_where_counts_lie_is_pointed_out() -> None:
    there = _with_values(_logged)
    there.raw = reference()
    with pytest.raises(sm.InputError, match=r"reference.raw.to_adata\(\) holds counts"):
        _reference.checked(section(), there)
    there.layers["scaled"], there.layers["umis"] = there.X / 2, reference().X
    with pytest.raises(sm.InputError, match=r"layer 'umis' holds counts: reference_layer= \(--reference-layer\)"):
        _reference.checked(section(), there)
    assert (quietly(section(), there, layer="umis").counts != reference().X).nnz == 0
    with pytest.raises(sm.InputError, match=r"reference.layers\['counts'\] is missing"):
        _reference.checked(section(), there, layer="counts")
    there.X = None
    with pytest.raises(sm.InputError, match="the reference has no matrix X"):
        _reference.checked(section(), there)


def test_a_type_without_counts_in_the_shared_genes_is_gone() -> None:
    is_b = (reference().obs["cell_type"] == "B").to_numpy()
    there = _with_values(lambda x: np.where(is_b[:, None], 0, x))
    with pytest.warns(_check.SmeldWarning, match="20 reference cells have no counts"):
        found = _reference.checked(section(), there)
    assert found.names == ["A", "C"]
    assert [found.names[k] for k in found.label] == ["A", "C"] * 20


def test_real_lymph_node(shared_data: Path) -> None:
    folder = shared_data / "deconvolution"
    here, there = (anndata.read_h5ad(folder / f"lymph_node_{name}.h5ad") for name in ("visium", "reference"))
    found = _reference.checked(here, there)
    assert found.names == there.obs["cell_type"].cat.categories.tolist()
    assert np.bincount(found.label).sum() == 330
    names = here.var_names[found.genes]
    assert set(names) == set(here.var_names) & set(there.var_names)
    assert found.counts.sum() == there[:, names].X.sum()
