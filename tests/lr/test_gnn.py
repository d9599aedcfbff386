"""The graph model of interactions: moved copies of a section, gains by pair, sender, receiver and gene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from scipy import sparse, stats

import smeld as sm
from smeld.kernels.graph import row_normalise, spatial_graph
from smeld.lr import gnn, lr_stats

pytest.importorskip("torch", reason="needs smeld[deep]")

from smeld.nn import _gnn

SIDE = 24
N = SIDE**2
PITCH_UM = 100.0


def lattice() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return PITCH_UM * np.c_[x.ravel(), y.ravel()].astype(float)


@pytest.fixture(autouse=True)
def few_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than the 199 of a user, and little training: these tests are about what is computed, not how well."""
    monkeypatch.setattr(gnn, "N_MOVES", 39)
    monkeypatch.setattr(_gnn, "SCHEDULE", replace(_gnn.SCHEDULE, epochs=4))


@pytest.fixture(scope="module")
def section() -> dict[str, Any]:
    """Pair 0 acts from type 1 upon genes 0-5 of type 0; pair 1 on nothing. 40 genes mark types, 80 follow nothing."""
    rng = np.random.default_rng(0)
    xy = lattice()
    weights = row_normalise(spatial_graph(xy).connectivities)
    weights.sort_indices()
    types = rng.integers(0, 2, N)
    at = xy.astype(int) // int(PITCH_UM)
    patches = [((at[:, k] // 3 + 2 * (at[:, 1 - k] // 4)) % 4 == 0) * 8.0 + 0.1 for k in (0, 1)]
    amount, receptor = np.stack(patches, axis=1), rng.gamma(1.0, 3.0, (N, 2))
    amount[types == 0, 0] = 0.0
    answer = np.log1p(weights @ amount[:, 0]) * np.log1p(receptor[:, 0]) * (types == 0)
    marks = np.where(np.arange(40) % 2, 1.5, -1.5) * (types[:, None] - 0.5)
    rate = np.exp(0.4 + np.c_[np.tile(0.4 * answer[:, None], 6), marks, np.zeros((N, 80))])
    counts = rng.poisson(np.c_[amount, receptor])
    return {
        "genes": sparse.csc_matrix(np.log1p(counts).astype(float)),
        "pairs": np.array([[0, 2], [1, 3]]),
        "weights": weights,
        "xy_um": xy,
        "background": sparse.csc_matrix(np.log1p(rng.poisson(rate)).astype(float)),
        "types": (types[:, None] == np.arange(2)).astype(float),
    }


def test_moved_copies_keep_neighbours_and_hold_no_spot_in_place() -> None:
    xy = lattice()
    moves = gnn.moved(xy, 40, np.random.default_rng(1))
    near = np.sqrt(((xy[moves] - xy) ** 2).sum(axis=2))
    assert (np.median(near, axis=1) > 4 * PITCH_UM).all()
    assert (near < 1.5 * PITCH_UM).mean() < 0.05
    step = np.sqrt(((xy[moves[:, 1:]] - xy[moves[:, :-1]]) ** 2).sum(axis=2))
    inside = np.arange(N - 1) % SIDE != SIDE - 1  # not from the end of one row to the next
    assert np.quantile(step[:, inside], 0.9) < 2 * PITCH_UM


def test_moved_maps_are_as_smooth_as_they_were_and_of_one_distribution() -> None:
    rng = np.random.default_rng(2)
    xy = lattice()
    weights = row_normalise(spatial_graph(xy).connectivities)
    field = rng.normal(size=(N, 30))
    for _ in range(4):
        field = weights @ field
    moves = gnn.moved(xy, 20, rng)

    def moran(x: np.ndarray) -> float:
        x = x - x.mean(axis=0)
        return float(((weights @ x) * x).sum() / (x * x).sum())

    moved = [field[m] for m in moves]
    assert np.mean([moran(x) for x in moved]) == pytest.approx(moran(field), abs=0.03)
    assert np.mean([x.var() for x in moved]) == pytest.approx(field.var(), rel=0.1)


def test_sections_are_moved_one_by_one() -> None:
    xy, section = np.r_[lattice(), lattice() + 1e5], np.repeat([0, 1], N)
    moves = gnn.moved(xy, 6, np.random.default_rng(3), section)
    assert (section[moves] == section).all()


def test_pairs_that_act_on_other_genes_are_found_with_sender_receiver_and_genes(section: dict[str, Any]) -> None:
    found = lr_stats["gnn"].func(**section, network=False)
    assert found.pvalue[0] < 0.01 < 0.1 < found.pvalue[1]
    assert found.effect[0] > 0.02 > 0 > found.effect[1]
    assert set(found.best[0, :2]) <= set(range(6)) and (found.explained[0, :2] > 0.01).all()
    assert found.by_type.sum(axis=(1, 2)) == pytest.approx(found.effect, abs=1e-5)
    assert np.unravel_index(found.by_type[0].argmax(), (2, 2)) == (1, 0)


def test_gains_are_those_of_least_squares_in_blocks_left_out(section: dict[str, Any]) -> None:
    """Written out: residuals, one message a pair, a slope a gene from all other blocks, shrunk."""
    x = section["genes"].toarray()
    genes = section["background"].toarray()
    task = gnn._Task.of(
        section["genes"], section["pairs"], section["weights"], section["xy_um"], section["background"],
        None, section["types"], None,
    )  # fmt: skip
    found = lr_stats["gnn"].func(**section, network=False)
    y = (genes - task.known @ (task.known.T @ genes))[:, task.column]
    y /= y.std(axis=0)
    for p, (ligand, receptor) in enumerate(section["pairs"]):
        sent = (x[:, ligand] - x[:, ligand].mean()) / x[:, ligand].std()
        r = x[:, receptor] / x[:, receptor].mean()
        message = (r + section["weights"] @ r) * (section["weights"] @ sent)
        design = np.c_[task.known, r]
        message -= design @ np.linalg.lstsq(design, message, rcond=None)[0]
        square = (message @ y) ** 2 / (message @ message)
        excess = max(np.median(square) / stats.chi2.median(1), 1.0)
        gain = 0.0
        for b in range(9):
            out = task.block == b
            power = message[~out] @ message[~out]
            slope = message[~out] @ y[~out] / power
            slope *= np.maximum(1 - 4.0 * excess / (slope**2 * power), 0)
            gain += (y[out] ** 2).sum() - ((y[out] - np.outer(message[out], slope)) ** 2).sum()
        assert found.effect[p] == pytest.approx(gain / N, rel=1e-3, abs=1e-5)


def test_blocks_are_equal_and_parts_leave_the_other_half_alone() -> None:
    block = gnn._blocks(lattice(), None)
    assert np.bincount(block).min() > 0.8 * N / 9
    first, second = gnn._parts(block, 0), gnn._parts(block, 1)
    assert (np.sum(first + second, axis=0) == 1).all()


def test_independent_smooth_ligands_are_not_called() -> None:
    """All maps vary over five spots: shuffled spots would call nearly half of these."""
    rng = np.random.default_rng(4)
    xy = lattice()
    weights = row_normalise(spatial_graph(xy).connectivities)

    def fields(n: int) -> np.ndarray:
        z = rng.normal(size=(N, n))
        for _ in range(6):
            z = weights @ z
        return z / z.std(axis=0)

    q = 60
    genes = sparse.csc_matrix(np.log1p(rng.poisson(np.exp(fields(2 * q)))).astype(float))
    background = sparse.csc_matrix(np.log1p(rng.poisson(np.exp(0.5 + fields(60)))).astype(float))
    pairs = np.c_[np.arange(q), q + np.arange(q)]
    found = lr_stats["gnn"].func(genes, pairs, weights, xy, background=background, network=False)
    assert (found.pvalue < 0.05).sum() <= 8  # 3 expected; 8 or more of 60 have a chance of .9 %


def simulated() -> ad.AnnData:
    made = sm.datasets.simulate(1000, 400, seed=1, image=False, n_pairs=3, n_downstream=6, mean_counts=2000)
    made.obs["cell_type"] = made.obs["truth_cell_type"]
    return made


def test_from_the_users_side(tmp_path: Path) -> None:
    adata = simulated()
    truth = adata.uns["truth_pairs"]
    found = sm.tl.interactions(adata, truth[["ligand", "receptor"]], statistic="gnn")
    first = found.table.head(3)["ligand"].tolist()
    assert sum(name.startswith("LIG") for name in first) >= 2
    table = adata.uns["interactions_gnn"]
    assert list(table.columns) == ["ligand", "receptor", "sender", "receiver", "gain", "genes"]
    total = table.groupby("ligand")["gain"].sum()
    for row in found.table.itertuples():
        assert total[row.ligand] == pytest.approx(row.effect, abs=1e-5)
    own = table[table["ligand"] == first[0]]["genes"].iloc[0].split()
    assert sum(name.startswith("DOWN") for name in own) >= 3
    sm.write(adata, tmp_path / "a.h5ad")
    assert list(ad.read_h5ad(tmp_path / "a.h5ad").uns["interactions_gnn"]["gain"]) == list(table["gain"])
    sm.tl.interactions(adata, truth[["ligand", "receptor"]], local="none", decoys=False)
    assert "interactions_gnn" not in adata.uns


def test_permuting_the_spots_changes_nothing_and_reaches_are_joined() -> None:
    one = simulated()
    other = one[np.random.default_rng(1).permutation(one.n_obs)].copy()
    pairs = one.uns["truth_pairs"][["ligand", "receptor"]].assign(range=["secreted", "contact"] * 3)
    a, b = (
        sm.tl.interactions(s, pairs, statistic="gnn", radius_um={"secreted": 250.0}, local="none") for s in (one, other)
    )
    assert a.table.equals(b.table)
    assert one.uns["interactions_gnn"].equals(other.uns["interactions_gnn"])


def test_too_few_genes_outside_the_pairs_are_said() -> None:
    adata = simulated()
    few = adata[:, [g for g in adata.var_names if g.startswith(("LIG", "REC", "DOWN1"))]].copy()
    with pytest.raises(sm.InputError, match="needs 20 of them"):
        sm.tl.interactions(few, [("LIG1", "REC1")], statistic="gnn")


def test_without_torch_the_cure_is_said(monkeypatch: pytest.MonkeyPatch, section: dict[str, Any]) -> None:
    monkeypatch.setattr("smeld.nn._extra.available", lambda *names: False)
    with pytest.raises(sm.InputError, match=r"smeld\[deep\].*spatial"):
        lr_stats["gnn"].func(**section)
