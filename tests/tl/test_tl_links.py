"""Who can reach whom: reach by range, and ways that tissue bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import smeld as sm
from smeld.tl import _links

SIDE = 12
N = SIDE**2


def lattice() -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE]
    return 50.0 * np.c_[x.ravel(), y.ravel()].astype(float)


def made(
    radius_um: Any = None,
    *,
    within_spot: bool = False,
    barrier: sparse.csr_matrix | None = None,
    section: np.ndarray | None = None,
) -> dict[str, sparse.csr_matrix]:
    one = np.zeros(N, dtype=np.intp) if section is None else section
    return _links.links(lattice(), one, radius_um=radius_um, within_spot=within_spot, barrier=barrier)


def test_rows_average_and_all_ranges_share_one_matrix() -> None:
    found = made()
    assert len({id(m) for m in found.values()}) == 1
    assert np.asarray(found["secreted"].sum(axis=1)).ravel() == pytest.approx(1.0)
    assert found["secreted"].diagonal().max() == 0
    assert made(within_spot=True)["contact"].diagonal().min() > 0


def test_reach_by_range_in_micrometres() -> None:
    found = made(radius_um="range")
    far = np.linalg.norm(lattice()[:, None] - lattice()[None], axis=-1)
    reached = {k: far[m.nonzero()].max() for k, m in found.items()}
    assert reached["contact"] < 80 < reached["secreted"] <= _links.SECRETED_UM
    # what is secreted fades: a Gaussian of half the radius
    middle = N // 2 + SIDE // 2
    row = found["secreted"][[middle]]
    ratio = row[0, middle + 2] / row[0, middle + 1]
    assert ratio == pytest.approx(np.exp(-2 * (100**2 - 50**2) / 150**2))
    given = made(radius_um={"contact": 60.0, "secreted": 120.0})
    assert far[given["contact"].nonzero()].max() <= 60 < far[given["secreted"].nonzero()].max() <= 120
    assert given["contact"].data.std() < 0.1 < 1  # contact does not fade: rows differ at the edge only
    flat = made(radius_um=120.0)
    assert len({id(m) for m in flat.values()}) == 1


def test_links_never_leave_a_section() -> None:
    section = (np.arange(N) % SIDE >= 6).astype(np.intp)
    rows, columns = made(section=section, radius_um=200.0)["contact"].nonzero()
    assert (section[rows] == section[columns]).all()


def walled(openness: float) -> sparse.csr_matrix:
    """Edges of the lattice, those across the middle column as open as said."""
    edges = made()["contact"].copy()
    rows, columns = edges.nonzero()
    left = np.arange(N) % SIDE < 6
    edges.data = np.where(left[rows] != left[columns], openness, 1.0)
    return edges


def test_a_wall_cuts_and_a_half_open_door_weakens() -> None:
    left = np.arange(N) % SIDE < 6
    for openness, lowest, highest in ((1e-6, 0.0, 0.0), (0.5, 1e-3, 1.0)):
        found = made(radius_um=120.0, barrier=_links.openness(walled(openness)))["contact"]
        across = found[left][:, ~left]
        assert lowest <= across.sum() <= highest * made(radius_um=120.0)["contact"][left][:, ~left].sum()
    # a way around the wall: a link takes the most open one, if it is not too long
    door = walled(1e-6).tolil()
    door[5, 6] = door[6, 5] = 1.0
    found = made(radius_um=120.0, barrier=_links.openness(sparse.csr_matrix(door)))["contact"]
    assert found[5, 6] > found[5 + SIDE, 6 + SIDE] and found[5 + SIDE * 6, 6 + SIDE * 6] == 0


@pytest.mark.parametrize(
    ("radius", "said"),
    [
        ("far", "did you mean|choose one"),
        ({"secretd": 10.0}, "secreted"),
        ({"contact": -1.0}, "above 0"),
        (-5.0, "radius"),
    ],
)
def test_errors_help(radius: object, said: str) -> None:
    with pytest.raises(sm.InputError, match=said):
        made(radius_um=radius)


def test_the_weights_of_the_fusion_bar_the_way_and_space_alone_is_said() -> None:
    adata = sm.datasets.simulate(400, 80, seed=0)
    pair = [(adata.var_names[0], adata.var_names[1])]
    with pytest.raises(sm.InputError, match=r"sme_weights.*sm\.fuse"):
        sm.tl.interactions(adata, pair, barrier="sme")
    with pytest.warns(sm.SmeldWarning):
        sm.morph.embed(adata)
    sm.fuse(adata, evidence=False, gamma=0.0, eta=0.0)
    with pytest.warns(sm.SmeldWarning, match="distance alone"):
        sm.tl.interactions(adata, pair, barrier="sme", decoys=False)
    sm.fuse(adata, evidence=False, gamma=2.0)
    plain = sm.tl.interactions(adata, pair, adjust=(), decoys=False).table
    barred = sm.tl.interactions(adata, pair, adjust=(), barrier="sme", decoys=False).table
    assert plain["effect"].iloc[0] != barred["effect"].iloc[0]
    assert adata.uns["smeld"]["interactions"]["params"]["barrier"] == "sme"
