"""Pieces of domains: names, sizes and what is written, for one section and several."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import smeld as sm
from smeld import _keys
from smeld.kernels.graph import spatial_graph

COLUMNS = ["piece", "label", "n_spots", "area_um2", "equivalent_diameter_um", "x_um", "y_um", "extent_um"]


def section(rows: list[str], *, seed: int = 0) -> AnnData:
    """A square lattice of 100 um drawn as text, its rows of the table in random order."""
    y, x = (a.ravel() for a in np.mgrid[: len(rows), : len(rows[0])])
    letters = np.array([c for row in rows for c in row])
    names = [f"s{i:03d}" for i in range(len(letters))]
    order = np.random.default_rng(seed).permutation(len(letters))
    adata = AnnData(sparse.csr_matrix(np.ones((len(letters), 2), dtype=np.float32)))
    adata.obs_names = np.array(names)[order]
    adata.obsm["spatial_um"] = 100.0 * np.c_[x, y][order]
    adata.obs["domain"] = pd.Categorical([None if c == "." else c for c in letters[order]])
    return adata


#: A: a block of 6 and two of 2; B: the rest; one spot without a label
DRAWN = section(["AABBBBB", "AABBBBA", "AABBBBA", "BBBBBBB", "BBAABBB", "BBBBBB."])


def test_pieces_are_numbered_by_size_and_then_by_identifier() -> None:
    adata = DRAWN.copy()
    made = sm.tl.pieces(adata)
    table = made.table
    assert table["piece"].tolist() == ["A.1", "A.2", "A.3", "B.1"]
    assert table["n_spots"].tolist() == [6, 2, 2, 31]
    by_name = adata.obs["domain_piece"].astype(object)
    assert by_name["s013"] == by_name["s020"] == "A.2"  # before the piece in the fifth row
    assert by_name["s030"] == by_name["s031"] == "A.3"
    assert pd.isna(by_name["s041"])
    assert made.n_pieces == 4 and made.n_left_out == 0
    assert made.labels.equals(adata.obs["domain_piece"])


def test_sizes_are_micrometres() -> None:
    table = sm.tl.pieces(DRAWN.copy()).table.set_index("piece")
    assert list(table.reset_index().columns) == COLUMNS
    block = table.loc["A.1"]
    assert block["area_um2"] == pytest.approx(6 * 1e4)
    assert block["equivalent_diameter_um"] == pytest.approx(np.sqrt(4 * 6e4 / np.pi))
    assert (block["x_um"], block["y_um"]) == pytest.approx((50.0, 100.0))
    assert block["extent_um"] == pytest.approx(np.hypot(100, 200))
    assert table["area_um2"].sum() == pytest.approx(41 * 1e4)


def test_small_pieces_are_left_out_and_the_others_keep_their_numbers() -> None:
    adata = DRAWN.copy()
    all_of_them = sm.tl.pieces(adata.copy()).table
    made = sm.tl.pieces(adata, min_spots=3)
    assert made.table.equals(all_of_them[all_of_them["n_spots"] >= 3].reset_index(drop=True))
    assert list(adata.obs["domain_piece"].cat.categories) == ["A.1", "B.1"]
    assert adata.obs["domain_piece"].isna().sum() == 5 and made.n_left_out == 4
    with pytest.warns(sm.SmeldWarning, match="no piece of obs\\['domain'\\] has 99 spots"):
        assert sm.tl.pieces(adata, min_spots=99).table.empty
    assert list(adata.uns["domain_pieces"].columns) == COLUMNS


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_table_does_not_matter(seed: int) -> None:
    adata = DRAWN.copy()
    other = adata[np.random.default_rng(seed).permutation(adata.n_obs)].copy()
    one, two = sm.tl.pieces(adata), sm.tl.pieces(other)
    assert two.table.equals(one.table)
    assert two.labels.loc[adata.obs_names].equals(one.labels)


def test_pieces_never_join_sections() -> None:
    """Two sections in the same place, each with its own positions."""
    one, two = DRAWN.copy(), section(["AAAA", "BBBB", "AAAA", "BBBB"])
    both = ad.concat({"first": one, "second": two}, label="slide", index_unique="-")
    table = sm.tl.pieces(both, batch_key="slide").table
    for name, alone in (("first", one), ("second", two)):
        own = table[table["section"] == name]
        expected = sm.tl.pieces(alone).table
        assert sorted(own["n_spots"]) == sorted(expected["n_spots"])
        assert np.sort(own["area_um2"]) == pytest.approx(np.sort(expected["area_um2"]))
        assert set(both.obs.loc[both.obs["domain_piece"].isin(own["piece"]), "slide"]) == {name}
    assert table["piece"].is_unique
    assert table.loc[table["label"] == "A", "n_spots"].tolist() == [6, 4, 4, 2, 2]


def test_a_stored_graph_is_used_where_it_fits() -> None:
    adata = DRAWN.copy()
    xy = adata.obsm["spatial_um"]
    adata.obsp["spatial_distances"] = spatial_graph(xy, kind="radius", radius_um=450.0).distances
    sm.tl.pieces(adata)  # not smeld's own
    assert adata.uns["domain_pieces"]["n_spots"].tolist() == [6, 2, 2, 31]
    _keys.record(adata, _keys.DISTANCES, function="sm.fuse", params={})
    sm.tl.pieces(adata)  # all of A is within reach
    assert adata.uns["domain_pieces"]["n_spots"].tolist() == [10, 31]
    assert adata.uns["smeld"]["domain_piece"]["params"]["graph"] == "stored"
    adata.obs["half"] = np.where(xy[:, 1] < 250, "above", "below")
    assert sm.tl.pieces(adata, batch_key="half").n_pieces == 5  # the stored graph joins the halves
    adata.obsm["spatial_um"] = xy * 2  # of other positions
    assert sm.tl.pieces(adata).n_pieces == 4


def test_the_graph_of_fuse_is_taken_and_gives_the_same() -> None:
    adata = sm.datasets.simulate(n_obs=400, n_genes=60, image=False)
    before = sm.tl.pieces(adata, "truth_domain").table
    sm.fuse(adata)
    assert sm.tl.pieces(adata, "truth_domain").table.equals(before)
    assert adata.uns["smeld"]["truth_domain_piece"]["params"]["graph"] == "stored"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 1, 2, 2], ["1.1", "2.1"]),
        ([2.0, 2.0, 10.0, np.nan], ["2.1", "10.1"]),
        (["b", "b", "", None], ["b.1"]),
        ([True, True, False, False], ["False.1", "True.1"]),
        (pd.Categorical(["z", "z", "a", "a"], categories=["z", "unused", "a"]), ["z.1", "a.1"]),
    ],
)
def test_labels_of_any_kind(values: object, names: list[str]) -> None:
    adata = AnnData(np.ones((4, 1), dtype=np.float32))
    adata.obs_names = list("abcd")
    adata.obsm["spatial_um"] = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0]])
    adata.obs["kind"] = values
    made = sm.tl.pieces(adata, "kind")
    assert made.table["piece"].tolist() == names
    assert list(adata.obs["kind_piece"].cat.categories) == names


def test_nests_of_the_simulator_are_found() -> None:
    adata = sm.datasets.simulate(n_obs=2500, n_genes=30, tissue="nested", layout="cells", image=False, seed=2)
    table = sm.tl.pieces(adata, "truth_domain", min_spots=10).table
    core = adata.obs["truth_domain"] == "D1"
    assert (table["label"] == "D1").sum() == adata.obs.loc[core, "truth_branch"].nunique()
    whole = np.prod(np.ptp(adata.obsm["spatial_um"], axis=0))
    assert table["area_um2"].sum() == pytest.approx(whole, rel=0.25)


def test_what_is_written_is_storable_and_said(tmp_path: Path) -> None:
    adata = DRAWN.copy()
    made = sm.tl.pieces(adata, key_added="part", min_spots=2)
    assert "domain_piece" not in adata.obs and "domain_pieces" not in adata.uns
    noted = adata.uns["smeld"]["part"]
    assert noted["function"] == "sm.tl.pieces" and noted["params"]["min_spots"] == 2
    assert noted["inputs"]["groups"] == "domain"
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert again.uns["parts"]["piece"].tolist() == made.table["piece"].tolist()
    assert again.obs["part"].equals(adata.obs["part"])
    with pytest.raises(AttributeError):
        made.n_pieces = 3  # type: ignore[misc]


def test_errors_say_what_helps() -> None:
    adata = DRAWN.copy()
    adata.obs["slide"] = [None, *["a"] * (adata.n_obs - 1)]
    adata.obs["nothing"] = pd.Categorical([None] * adata.n_obs)
    with pytest.raises(sm.InputError, match=r"obs\['domian'\] is missing.*sm.tl.domains"):
        sm.tl.pieces(adata, "domian")
    with pytest.raises(sm.InputError, match="holds no labels"):
        sm.tl.pieces(adata, "nothing")
    with pytest.raises(sm.InputError, match=r"every spot needs a section; found: 1 missing in obs\['slide'\]"):
        sm.tl.pieces(adata, batch_key="slide")
    with pytest.raises(sm.InputError, match=r"obs\['batch'\] is missing"):
        sm.tl.pieces(adata, batch_key="batch")
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(sm.InputError, match="min_spots must be a whole number"):
            sm.tl.pieces(adata, min_spots=wrong)  # type: ignore[arg-type]
    del adata.obsm["spatial_um"]
    with pytest.raises(sm.InputError, match="spatial_um"):
        sm.tl.pieces(adata)


def test_a_lone_spot_is_a_piece_of_unknown_area() -> None:
    adata = DRAWN[:1].copy()
    table = sm.tl.pieces(adata).table
    assert table["n_spots"].tolist() == [1] and table["area_um2"].isna().all() and table["extent_um"].tolist() == [0.0]
