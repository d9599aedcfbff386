"""Which cell types speak to which: from the user's side."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import smeld as sm
from smeld import _keys
from smeld.kernels import expression

SIDE = 24
N = SIDE**2
NAMES = ["LIG", "REC", "SUB", "NOISE", "RARE", "OTHER"]
PAIRS = [("LIG", "REC"), ("NOISE", "OTHER"), ("LIG", "REC+SUB"), ("LIG", "ABSENT"), ("RARE", "REC")]
COLUMNS = ["pair", "ligand", "receptor", "sender", "receiver", "observed", "expected", "zscore", "pvalue", "qvalue"]
FIGURES = ["observed", "expected", "zscore", "pvalue", "qvalue"]


def section(seed: int = 0) -> ad.AnnData:
    """Patches of A (has LIG), B (has REC and SUB) and C (has neither); NOISE and OTHER everywhere, RARE in 5 cells."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    kind = np.array(["A", "B", "C"])[((x // 3 + 2 * (y // 3)) % 5 % 3).ravel()]
    rates = np.c_[2.0 * (kind == "A"), np.tile(2.0 * (kind == "B"), (2, 1)).T, np.ones(N), np.zeros(N), np.ones(N)]
    counts = rng.poisson(rates)
    counts[:5, 4] = 1
    filler = rng.poisson(2.0, (N, 20))
    var = pd.DataFrame(index=[*NAMES, *(f"G{i}" for i in range(20))])
    obs = pd.DataFrame({"cell_type": pd.Categorical(kind)}, index=[f"s{i}" for i in range(N)])
    made = ad.AnnData(sparse.csr_matrix(np.hstack([counts, filler]).astype(np.float32)), var=var, obs=obs)
    xy = 10.0 * (np.c_[x.ravel(), y.ravel()] + rng.uniform(-0.3, 0.3, (N, 2)))
    made.obsm["spatial"], made.obsm["spatial_um"] = xy, xy.copy()
    return made


def stored(adata: ad.AnnData, pairs: list[tuple[str, str]], *, radius_um: object = None) -> ad.AnnData:
    """The section with what ``sm.tl.interactions`` leaves of its pairs and neighbours."""
    adata.uns["interactions"] = pd.DataFrame(pairs, columns=["ligand", "receptor"])
    params = {"radius_um": radius_um, "within_spot": False}
    _keys.record(adata, "interactions", function="sm.tl.interactions", params=params)
    return adata


def row(table: pd.DataFrame, pair: str, sender: str, receiver: str) -> pd.Series:
    found = table[(table["pair"] == pair) & (table["sender"] == sender) & (table["receiver"] == receiver)]
    assert len(found) == 1
    return found.iloc[0]


def test_the_sender_has_the_ligand_and_the_receiver_the_receptor() -> None:
    adata = section()
    found = sm.tl.celltype_interactions(adata, pairs=PAIRS)
    table = found.table
    assert list(table) == COLUMNS
    assert adata.uns["celltype_interactions"] is table
    for pair in ("LIG_REC", "LIG_REC+SUB"):
        assert row(table, pair, "A", "B")["qvalue"] < 1e-6
        back = row(table, pair, "B", "A")
        assert back["observed"] == 0
        assert back["pvalue"] == 1
    assert (table.loc[table["pair"] == "NOISE_OTHER", "pvalue"] > 0.001).all()
    assert table["pvalue"].is_monotonic_increasing
    assert table.iloc[0][["sender", "receiver"]].tolist() == ["A", "B"]
    assert (found.n_groups, found.n_pairs, found.n_missing, found.n_rare) == (3, 3, 1, 1)
    assert len(table) == found.n_pairs * (found.n_groups**2 - found.n_apart)


def test_what_was_done_is_recorded() -> None:
    adata = section()
    sm.tl.celltype_interactions(adata, pairs=PAIRS, radius_um=15.0, min_cells=10, key_added="mine")
    record = adata.uns["smeld"]["mine"]
    assert record["function"] == "sm.tl.celltype_interactions"
    wanted = {"groups": "cell_type", "radius_um": 15.0, "within_spot": False, "min_cells": 10, "n_missing": 1}
    assert wanted.items() <= record["params"].items()
    assert record["inputs"]["pairs"] == "given"


def test_pairs_and_neighbours_are_those_of_the_interactions() -> None:
    adata = section()
    sm.tl.interactions(adata, PAIRS[:3], radius_um=15.0, within_spot=True)
    read = sm.tl.celltype_interactions(adata).table
    given = sm.tl.celltype_interactions(section(), pairs=PAIRS[:3], radius_um=15.0, within_spot=True).table
    other = sm.tl.celltype_interactions(section(), pairs=PAIRS[:3]).table
    pd.testing.assert_frame_equal(read, given)
    assert set(read["pair"]) == {"LIG_REC", "NOISE_OTHER", "LIG_REC+SUB"}
    assert read["observed"].sum() != pytest.approx(other["observed"].sum(), rel=1e-3)
    own = sm.tl.celltype_interactions(adata, radius_um=25.0, within_spot=False).table
    wide = sm.tl.celltype_interactions(section(), pairs=PAIRS[:3], radius_um=25.0).table
    pd.testing.assert_frame_equal(own, wide)


@pytest.mark.parametrize("radius_um", [{"secreted": 100.0, "contact": 20.0}, "range"])
def test_reach_by_range_gives_way_to_the_nearest_neighbours(radius_um: object) -> None:
    adata = stored(section(), PAIRS[:1], radius_um=radius_um)
    with pytest.warns(sm.SmeldWarning, match="reach differently far"):
        found = sm.tl.celltype_interactions(adata).table
    plain = sm.tl.celltype_interactions(stored(section(), PAIRS[:1])).table
    pd.testing.assert_frame_equal(found, plain)
    assert len(sm.tl.celltype_interactions(adata, radius_um=15.0).table)


def test_several_sections_are_refused_and_one_of_them_is_not() -> None:
    adata = stored(section(), PAIRS[:1])
    adata.uns["smeld"]["interactions"]["inputs"] = {"batch_key": "slide"}
    adata.obs["slide"] = np.where(np.arange(N) < N // 2, "one", "two")
    with pytest.raises(sm.InputError, match="one section is needed"):
        sm.tl.celltype_interactions(adata)
    one = adata[adata.obs["slide"] == "one"].copy()
    assert len(sm.tl.celltype_interactions(one).table)


def test_one_hot_proportions_are_labels() -> None:
    adata = section()
    adata.obsm["prob"] = pd.get_dummies(adata.obs["cell_type"]).astype(float)
    labels = sm.tl.celltype_interactions(adata, pairs=PAIRS).table
    shares = sm.tl.celltype_interactions(adata, "prob", pairs=PAIRS).table
    pd.testing.assert_frame_equal(labels, shares)


def test_proportions_share_out_what_labels_have_whole() -> None:
    adata = section()
    hard = pd.get_dummies(adata.obs["cell_type"]).astype(float)
    adata.obsm["prob"] = 0.7 * hard + 0.1
    table = sm.tl.celltype_interactions(adata, "prob", pairs=PAIRS[:1]).table
    assert table.iloc[0][["sender", "receiver"]].tolist() == ["A", "B"]
    assert table["qvalue"].iloc[0] < 1e-4
    whole = sm.tl.celltype_interactions(adata, pairs=PAIRS[:1]).table
    assert table["observed"].sum() == pytest.approx(whole["observed"].sum())  # shares sum to one


def test_permuting_the_cells_changes_nothing() -> None:
    one = section()
    other = one[np.random.default_rng(1).permutation(N)].copy()
    a, b = (sm.tl.celltype_interactions(s, pairs=PAIRS).table for s in (one, other))
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_the_order_of_pairs_and_types_changes_nothing() -> None:
    one, other = section(), section()
    other.obs["cell_type"] = other.obs["cell_type"].cat.reorder_categories(["C", "A", "B"])
    a = sm.tl.celltype_interactions(one, pairs=PAIRS).table
    b = sm.tl.celltype_interactions(other, pairs=PAIRS[::-1]).table
    pd.testing.assert_frame_equal(a, b, rtol=1e-9)


def test_cells_without_a_label_are_of_no_type() -> None:
    adata = section()
    whole = sm.tl.celltype_interactions(adata, pairs=PAIRS[:1]).table
    adata.obs.loc[adata.obs["cell_type"] == "C", "cell_type"] = np.nan
    found = sm.tl.celltype_interactions(adata, pairs=PAIRS[:1])
    assert found.n_groups == 2
    kept = whole[(whole["sender"] != "C") & (whole["receiver"] != "C")]
    left = found.table.set_index(["sender", "receiver"])[FIGURES[:4]]
    pd.testing.assert_frame_equal(left, kept.set_index(["sender", "receiver"])[FIGURES[:4]])


def test_small_types_and_types_that_never_meet_are_counted() -> None:
    adata = section()
    kind = adata.obs["cell_type"].astype(str).to_numpy()
    x = adata.obsm["spatial_um"][:, 0] / 10
    kind[(x < 4) & (kind != "few")] = "left"
    kind[x > SIDE - 5] = "right"
    kind[N // 2 : N // 2 + 6] = "few"
    adata.obs["kind"] = kind
    found = sm.tl.celltype_interactions(adata, "kind", pairs=PAIRS[:1])
    assert (found.n_groups, found.n_small, found.n_apart) == (5, 1, 2)
    assert "few" not in set(found.table["sender"])
    assert len(found.table) == 23


def test_results_can_be_stored_and_read(tmp_path: Path) -> None:
    adata = stored(section(), PAIRS[:3], radius_um=15.0)
    sm.tl.celltype_interactions(adata)
    sm.write(adata, tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(
        back.uns["celltype_interactions"], adata.uns["celltype_interactions"], check_dtype=False
    )
    again = sm.tl.celltype_interactions(back).table  # with the stored pairs and their radius
    pd.testing.assert_frame_equal(again, adata.uns["celltype_interactions"], check_dtype=False)


def test_nothing_testable_is_an_empty_table() -> None:
    found = sm.tl.celltype_interactions(section(), pairs=[("RARE", "REC")])
    assert len(found.table) == 0
    assert list(found.table) == COLUMNS
    assert found.n_rare == 1


def test_cells_without_neighbours_and_without_counts() -> None:
    adata = section()
    adata.obsm["spatial_um"][:2] = [[9e4, 9e4], [-9e4, 9e4]]
    adata.X = sparse.csr_matrix(sparse.diags((np.arange(N) != 5).astype(np.float32)) @ adata.X)
    table = sm.tl.celltype_interactions(adata, pairs=PAIRS, radius_um=15.0).table
    assert np.isfinite(table[FIGURES].to_numpy()).all()


def test_logarithms_and_layers_are_taken_as_they_are() -> None:
    adata = section()
    plain = sm.tl.celltype_interactions(adata, pairs=PAIRS).table
    logged = section()
    logged.X = expression.log_normalise(logged.X)
    pd.testing.assert_frame_equal(sm.tl.celltype_interactions(logged, pairs=PAIRS).table, plain, rtol=1e-5)
    adata.layers["raw"], adata.X = adata.X, sparse.csr_matrix(np.ones(adata.shape, dtype=np.float32))
    pd.testing.assert_frame_equal(sm.tl.celltype_interactions(adata, pairs=PAIRS, layer="raw").table, plain)


def frame(value: float, names: tuple[str, ...] = ("a", "b")) -> pd.DataFrame:
    return pd.DataFrame(np.full((N, len(names)), value), index=[f"s{i}" for i in range(N)], columns=list(names))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pairs": [("A", "B")]}, "no pair has both partners"),
        ({}, "sm.tl.interactions"),
        ({"pairs": PAIRS, "groups": "nowhere"}, "nowhere"),
        ({"pairs": PAIRS, "groups": "one"}, "nothing to test"),
        ({"pairs": PAIRS, "groups": "none"}, "no labels"),
        ({"pairs": PAIRS, "min_cells": 1000}, "lower min_cells"),
        ({"pairs": PAIRS, "radius_um": -1.0}, "radius"),
        ({"pairs": PAIRS, "radius_um": 0.001}, "no cell has a neighbour"),
        ({"pairs": PAIRS, "groups": "spatial_um"}, "DataFrame"),
        ({"pairs": PAIRS, "groups": "even"}, "nothing to test"),
        ({"pairs": PAIRS, "groups": "negative"}, "0 or more"),
        ({"pairs": PAIRS, "groups": "twice"}, "names of their own"),
    ],
)
def test_errors_help_and_lose_nothing(options: dict, said: str) -> None:
    adata = section()
    adata.obs["one"], adata.obs["none"] = "A", np.nan
    adata.obsm["even"], adata.obsm["negative"], adata.obsm["twice"] = frame(0.5), frame(-0.5), frame(0.5, ("a", "a"))
    before = set(adata.uns) | set(adata.obsm)
    with pytest.raises(sm.InputError, match=said):
        sm.tl.celltype_interactions(adata, **options)
    assert set(adata.uns) | set(adata.obsm) == before


def test_one_type_beside_unlabelled_cells_can_be_tested() -> None:
    adata = section()
    adata.obs["cell_type"] = adata.obs["cell_type"].where(adata.obs["cell_type"] == "A")
    table = sm.tl.celltype_interactions(adata, pairs=PAIRS[:2]).table
    assert table[["sender", "receiver"]].drop_duplicates().to_numpy().tolist() == [["A", "A"]]
