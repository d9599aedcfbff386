"""Contiguity: regions and scattered types are told apart, on simulated sections and on real ones."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import smeld as sm
from smeld.kernels import contiguity as kernel
from smeld.kernels.graph import spatial_graph

COLUMNS = ["label", "n_spots", "same_label_edges", "expected", "assortativity", "se", "zscore", "pvalue", "kind"]


def section(n: int = 600, *, seed: int = 0) -> AnnData:
    """Three stripes, and a scattered label of the same shares."""
    rng = np.random.default_rng(seed)
    adata = AnnData(np.ones((n, 1), dtype=np.float32))
    adata.obs_names = [f"s{i:04d}" for i in rng.permutation(n)]
    adata.obsm["spatial_um"] = rng.uniform(0, 1000, (n, 2))
    stripe = np.digitize(adata.obsm["spatial_um"][:, 0], [500, 800])
    adata.obs["domain"] = pd.Categorical(np.array(["a", "b", "c"])[stripe])
    adata.obs["scattered"] = rng.permutation(adata.obs["domain"].astype(str))
    return adata


@pytest.mark.parametrize("tissue", ["layered", "nested", "branched"])
@pytest.mark.parametrize("layout", ["lattice", "cells"])
def test_simulated_truth_is_told_apart(tissue: str, layout: str) -> None:
    adata = sm.datasets.simulate(n_obs=1500, n_genes=30, tissue=tissue, layout=layout, image=False, seed=3)  # type: ignore[arg-type]
    regions, types = sm.tl.contiguity(adata, "truth_domain"), sm.tl.contiguity(adata, "truth_cell_type")
    assert regions.recommended == "domain" and regions.assortativity > 0.55
    assert types.recommended == "cell_type" and types.certain and types.assortativity < 0.1
    assert set(types.table["kind"]) == {"cell_type"}
    assert regions.zscore > types.zscore


def test_one_scattered_label_among_regions_is_seen() -> None:
    adata = section()
    mixed = adata.obs["domain"].astype(str).to_numpy()
    mixed[np.random.default_rng(0).random(len(mixed)) < 0.15] = "immune"
    adata.obs["domain"] = mixed
    kind = sm.tl.contiguity(adata).table.set_index("label")["kind"]
    assert kind.to_dict() == {"a": "domain", "b": "domain", "c": "domain", "immune": "cell_type"}


def test_the_table_holds_what_the_kernel_counts() -> None:
    adata = section()
    made = sm.tl.contiguity(adata)
    table = made.table
    assert list(table.columns) == COLUMNS and table.equals(adata.uns["domain_contiguity"])
    graph = spatial_graph(adata.obsm["spatial_um"]).connectivities
    joins = kernel.join_counts(adata.obs["domain"].cat.codes.to_numpy().astype(np.intp), graph)
    assert table["same_label_edges"].tolist() == joins.observed[:-1].tolist()
    assert table["expected"].to_numpy() == pytest.approx(joins.expected[:-1])
    assert table["n_spots"].tolist() == adata.obs["domain"].value_counts()[["a", "b", "c"]].tolist()
    assert made.same_share == joins.observed[-1] / joins.edges[-1] and made.n_edges == graph.nnz / 2
    assert made.assortativity == pytest.approx((made.same_share - made.expected_share) / (1 - made.expected_share))


def test_random_labels_are_of_no_effect() -> None:
    made = [sm.tl.contiguity(section(seed=s), "scattered") for s in range(20)]
    assert all(m.recommended == "cell_type" and m.certain for m in made)
    assert max(abs(m.assortativity) for m in made) < 0.06
    assert sum(m.pvalue < 0.05 for m in made) <= 4


def test_the_order_of_the_table_does_not_matter() -> None:
    adata = section()
    other = adata[np.random.default_rng(1).permutation(adata.n_obs)].copy()
    assert sm.tl.contiguity(adata).table.equals(sm.tl.contiguity(other).table)


def test_turning_moving_and_rescaling_leave_it_alone() -> None:
    adata, other = section(), section()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    other.obsm["spatial_um"] = 3.0 * other.obsm["spatial_um"] @ turn.T + 500
    one, two = sm.tl.contiguity(adata).table, sm.tl.contiguity(other).table
    assert one[["label", "same_label_edges", "kind"]].equals(two[["label", "same_label_edges", "kind"]])
    assert two["se"].to_numpy() == pytest.approx(one["se"].to_numpy())


def test_missing_labels_are_left_out() -> None:
    adata = section()
    gone = np.random.default_rng(0).random(adata.n_obs) < 0.3
    adata.obs["domain"] = (
        adata.obs["domain"].astype(object).where(~gone, np.where(np.arange(adata.n_obs) % 2, "", None))
    )
    made = sm.tl.contiguity(adata)
    assert made.n_spots == (~gone).sum() and made.table["label"].tolist() == ["a", "b", "c"]
    assert made.recommended == "domain"


def test_sections_are_reckoned_apart() -> None:
    """Each section has labels of its own: taken together they look contiguous, within each they are scattered."""
    one, two = section(seed=1), section(seed=2)
    two.obsm["spatial_um"] = two.obsm["spatial_um"] + 5000
    two.obs["scattered"] = "other " + two.obs["scattered"].astype(str)
    both = ad.concat({"x": one, "y": two}, label="slide", index_unique="-")
    together, apart = sm.tl.contiguity(both, "scattered"), sm.tl.contiguity(both, "scattered", batch_key="slide")
    assert together.assortativity > 0.2 and together.pvalue < 1e-10
    assert abs(apart.assortativity) < 0.06 and apart.pvalue > 0.001
    two.obsm["spatial_um"] = two.obsm["spatial_um"] - 5000
    over = ad.concat({"x": one, "y": two}, label="slide", index_unique="-")  # in the same place
    again = sm.tl.contiguity(over, "scattered", batch_key="slide")
    assert again.table["same_label_edges"].equals(apart.table["same_label_edges"])


def test_what_is_written_is_storable_and_said(tmp_path: Path) -> None:
    adata = section()
    adata.obs.loc[adata.obs_names[0], "scattered"] = "alone"
    made = sm.tl.contiguity(adata, "scattered", key_added="mine")
    lone = made.table.set_index("label").loc["alone"]
    assert lone["kind"] == "unknown" and np.isnan(lone[["assortativity", "zscore", "pvalue"]].astype(float)).all()
    noted = adata.uns["smeld"]["mine"]
    assert noted["function"] == "sm.tl.contiguity" and noted["params"]["recommended"] == "cell_type"
    assert noted["params"]["assortativity"] == made.assortativity and noted["params"]["threshold"] == 0.5
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad").uns["mine"]
    assert again["kind"].tolist() == made.table["kind"].tolist()


def test_errors_say_what_helps() -> None:
    adata = section(40)
    adata.obs["same"] = "x"
    adata.obs["two"] = [None] * 40
    xy = adata.obsm["spatial_um"]
    far = int(np.linalg.norm(xy - xy[0], axis=1).argmax())
    adata.obs.iloc[[0, far], adata.obs.columns.get_loc("two")] = ["a", "b"]
    with pytest.raises(sm.InputError, match=r"obs\['domian'\] is missing.*sm.tl.domains"):
        sm.tl.contiguity(adata, "domian")
    with pytest.raises(sm.InputError, match="at least two labels; found: only 'x'"):
        sm.tl.contiguity(adata, "same")
    with pytest.raises(sm.InputError, match=r"no two spots with labels.*2 labelled spots"):
        sm.tl.contiguity(adata, "two")


def test_real_labels_are_told_apart(shared_data: Path) -> None:
    """STARmap cortex: manual domains against cell types of the same cells."""
    path = shared_data / "starmap_mpfc" / "20180417_BZ5_control.h5ad"
    if not path.exists():
        pytest.skip("no STARmap section")
    adata = sm.read(path)
    regions, types = sm.tl.contiguity(adata, "domain"), sm.tl.contiguity(adata, "cell_type")
    assert (regions.recommended, types.recommended) == ("domain", "cell_type")
    assert regions.certain and types.certain and regions.assortativity > 0.8 > 0.3 > types.assortativity
