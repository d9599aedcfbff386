"""The GPU's kernels, run on torch's CPU, equal those of numba and scipy; the same on a GPU where there is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

import smeld as sm
from smeld.kernels import _backend, crosscov, graph, smooth
from smeld.nn import _switch

torch = pytest.importorskip("torch", reason="needs smeld[deep]")

from smeld.nn import _accelerate  # noqa: E402

XY = NDArray[np.float64]
NO_GPU = not torch.cuda.is_available()
#: where the kernels run; a GPU's rows run where there is a GPU
PLACES = ["torch:cpu", pytest.param("cuda", marks=pytest.mark.skipif(NO_GPU, reason="torch finds no CUDA GPU"))]


def edges(distances: sparse.csr_matrix) -> np.ndarray:
    """Both ends of every edge, [n_edges, 2]."""
    found = distances.tocoo()
    return np.stack([found.row, found.col], axis=1)


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(_backend.VARIABLE, raising=False)
    _backend.switch.taken()
    yield
    assert _backend.switch.asked is None, "a test leaves a device behind"


def both(place: str, kernel: Callable[[], Any]) -> tuple[Any, Any]:
    """What the CPU makes and what ``place`` makes, which must not have left it to the CPU."""
    ours = kernel()
    assert _backend.switch.taken() is None
    with sm.device(place):
        theirs = kernel()
    assert _backend.switch.taken() == place
    return ours, theirs


def lattice(rows: int, columns: int, *, square: bool) -> XY:
    i, j = (a.ravel().astype(np.float64) for a in np.mgrid[:rows, :columns])
    return (
        np.column_stack([j, i]) * 200 if square else np.column_stack([(j + 0.5 * (i % 2)) * 100, i * 50 * np.sqrt(3)])
    )


def weights(n: int, seed: int) -> sparse.csr_matrix:
    """Weights of a graph with rows of many different lengths, one of them empty."""
    draws = np.random.default_rng(seed)
    xy = np.vstack([draws.normal(0, 20, (n // 2, 2)), draws.uniform(-200, 200, (n - n // 2 - 1, 2)), [[5e3, 5e3]]])
    made = graph.spatial_graph(xy, kind="radius", radius_um=25.0)
    return smooth.sme_weights(made.distances, sigma_um=15.0)


# -- smoothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("alpha", "d"), [(0.5, 1), (3.0, 7), (60.0, 3)])
def test_smoothing_is_that_of_the_cpu(place: str, alpha: float, d: int) -> None:
    w, x = weights(400, 1), np.random.default_rng(2).normal(size=(400, d))
    ours, theirs = both(place, lambda: smooth.smooth(w, x, alpha))
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-8 * np.abs(ours).max())
    exact = sparse.linalg.spsolve((sparse.eye(400) + alpha * sparse.csgraph.laplacian(w)).tocsc(), x).reshape(x.shape)
    assert np.abs(theirs - exact).max() < 1e-5 * np.abs(x).max()


@pytest.mark.parametrize("place", PLACES)
def test_one_column_stays_one(place: str) -> None:
    ours, theirs = both(place, lambda: smooth.smooth(weights(100, 3), np.arange(100.0), 2.0))
    assert theirs.shape == ours.shape == (100,)


# -- nearest neighbours --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 300), k=st.integers(1, 12), clusters=st.booleans())
def test_neighbours_of_scattered_spots(place: str, seed: int, n: int, k: int, clusters: bool) -> None:
    draws = np.random.default_rng(seed)
    xy = draws.uniform(-1e3, 1e3, (n, 2))
    if clusters:  # also an empty half, and spots far out
        xy[: n // 2] = xy[: n // 2] / 50 + 300
        xy[0] = 2e4
    ours, theirs = both(place, lambda: edges(graph._knn_distances(xy, k)))
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("place", PLACES)
@given(
    rows=st.integers(2, 14), columns=st.integers(2, 14), k=st.integers(1, 14), square=st.booleans(),
    angle=st.sampled_from([0.0, 0.3, np.pi / 4]), doubled=st.booleans(),
)  # fmt: skip
def test_neighbours_on_lattices_where_ties_abound(
    place: str, rows: int, columns: int, k: int, square: bool, angle: float, doubled: bool
) -> None:
    c, s = np.cos(angle), np.sin(angle)
    xy = lattice(rows, columns, square=square) @ np.array([[c, s], [-s, c]]) + 1e4
    if doubled and k > 1:
        xy = np.repeat(xy, 2, axis=0)
    ours, theirs = both(place, lambda: edges(graph._knn_distances(xy, k)))
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize(
    "xy",
    [np.zeros((30, 2)), np.vstack([np.zeros((12, 2)), np.random.default_rng(0).uniform(0, 50, (40, 2))])],
    ids=["all on one place", "more than k on one place"],
)
def test_what_has_no_order_is_left_to_the_cpu(xy: XY) -> None:
    """Which of many coinciding spots are the nearest is for the tree to say."""
    ours = edges(graph._knn_distances(xy, 5))
    with sm.device("torch:cpu"):
        np.testing.assert_array_equal(edges(graph._knn_distances(xy, 5)), ours)
    assert _backend.switch.taken() is None


def test_crowded_spots_are_left_to_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_accelerate, "MOST_CANDIDATES", 50)
    xy = np.vstack([np.random.default_rng(1).normal(0, 1, (500, 2)), [[1e4, 1e4]]])
    ours = edges(graph._knn_distances(xy, 5))
    with sm.device("torch:cpu"):
        np.testing.assert_array_equal(edges(graph._knn_distances(xy, 5)), ours)
    assert _backend.switch.taken() is None


def test_small_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = np.random.default_rng(4).uniform(0, 1e3, (400, 2))
    ours = edges(graph._knn_distances(xy, 6))
    monkeypatch.setattr(_accelerate, "CANDIDATES", 300)
    with sm.device("torch:cpu"):
        np.testing.assert_array_equal(edges(graph._knn_distances(xy, 6)), ours)


# -- correlograms and interactions ---------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), n=st.integers(1, 3000), n_groups=st.integers(1, 40))
def test_sums_by_group(seed: int, n: int, n_groups: int) -> None:
    draws = np.random.default_rng(seed)
    group = np.minimum(draws.geometric(0.3, n) - 1, n_groups - 1)
    values = draws.normal(size=(3, n))
    made = _accelerate.groups(group, n_groups, torch.device("cpu")).sums(torch.as_tensor(values))
    expected = np.stack([np.bincount(group, v, n_groups) for v in values])
    np.testing.assert_allclose(made.numpy(), expected, rtol=0, atol=1e-12 * n)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_correlograms_are_those_of_the_cpu(place: str, parts: bool, half: bool) -> None:
    draws = np.random.default_rng(5)
    xy = draws.uniform(0, 600, (500, 2))
    xy[:3] = xy[3]  # several spots in a pixel
    part = (xy[:, 0] > 250).astype(np.intp) if parts else None
    fields = [draws.normal(size=(4, 500)), draws.normal(size=(4, 500)).astype(np.float32)]

    def made() -> Any:
        return crosscov.cross_correlograms(crosscov.lags(xy, part, half=half), fields, [(0, 1), (1, 1)])

    ours, theirs = both(place, made)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-10 * np.abs(ours).max())


@pytest.fixture(scope="module")
def section() -> Any:
    return sm.datasets.simulate(300, 40, seed=100, image=False, layout="cells")


def pairs_of(adata: Any, n: int = 4) -> list[tuple[str, str]]:
    names = list(adata.var_names)
    return list(zip(names[:n], names[n : 2 * n]))


@pytest.mark.parametrize("place", PLACES)
def test_interactions_are_those_of_the_cpu(place: str, section: Any) -> None:
    found = []
    for where in ("cpu", place):
        with sm.device(where):
            adata = section.copy()
            found.append(sm.tl.interactions(adata, pairs_of(section), adjust=(), decoys=False))
        used = adata.uns["smeld"]["interactions"]["params"].get("device")
        assert used == (None if where == "cpu" else place)
    ours, theirs = found
    assert theirs.table["ligand"].tolist() == ours.table["ligand"].tolist()
    for column in ("effect", "zscore", "pvalue", "qvalue"):
        np.testing.assert_allclose(theirs.table[column], ours.table[column], rtol=1e-9, atol=1e-12)
    assert theirs.table["n_spots_significant"].tolist() == ours.table["n_spots_significant"].tolist()
    assert theirs.lambda_surrogate == pytest.approx(ours.lambda_surrogate, abs=1e-9)


def test_rasters_of_single_precision_agree_within_theirs() -> None:
    """Above 2,000 spots the CPU's rasters are of single precision, the GPU's are not."""
    draws = np.random.default_rng(6)
    xy = draws.uniform(0, 1400, (crosscov.LARGE + 100, 2))
    field = draws.normal(size=(2, len(xy))) + np.sin(xy[:, 0] / 200)
    field -= field.mean(axis=1, keepdims=True)
    ours, theirs = both("torch:cpu", lambda: crosscov.cross_correlograms(crosscov.lags(xy), [field], [(0, 0)]))
    variance = [(c[0] * c[1]).sum() for c in (ours, theirs)]
    assert variance[1] == pytest.approx(variance[0], rel=1e-5)


# -- whole tasks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_fusion_and_domains_agree(place: str, section: Any) -> None:
    made = {}
    for where in ("cpu", place):
        made[where] = section.copy()
        with sm.device(where):
            sm.fuse(made[where])
        sm.tl.domains(made[where], 4, n_starts=2)
    ours, theirs = made["cpu"], made[place]
    assert "device" not in ours.uns["smeld"]["fused_sme"]["params"]
    assert theirs.uns["smeld"]["fused_sme"]["params"]["device"] == place
    assert "device" not in theirs.uns["smeld"]["domain"]["params"], "it ran on the CPU"
    assert adjusted_rand_score(ours.obs["domain"], theirs.obs["domain"]) >= 0.99
    a, b = (x.obsm["fused_sme"] for x in (ours, theirs))
    assert np.abs(a - b).max() <= 1e-6 * np.abs(a).max()


@pytest.mark.parametrize("place", PLACES)
def test_twice_the_same_bytes(place: str, section: Any) -> None:
    """With another number of torch's threads, too."""
    w, x, xy = weights(300, 7), np.random.default_rng(8).normal(size=(300, 5)), section.obsm["spatial_um"]
    field = np.random.default_rng(9).normal(size=(3, len(xy)))
    before = torch.get_num_threads()

    def run(threads: int) -> tuple[bytes, ...]:
        torch.set_num_threads(threads)
        with sm.device(place):
            correlogram = crosscov.cross_correlograms(crosscov.lags(xy), [field], [(0, 0)])
            return tuple(
                a.tobytes() for a in (smooth.smooth(w, x, 4.0), edges(graph._knn_distances(xy, 8)), correlogram)
            )

    try:
        assert run(1) == run(1) == run(2)
    finally:
        torch.set_num_threads(before)


# -- the switch ----------------------------------------------------------------------------------------------


def test_the_switch_as_setter_and_as_context() -> None:
    chosen = sm.device("torch:cpu")
    assert _backend.switch.name() == "torch:cpu"
    with sm.device("cpu"):
        assert _backend.switch.name() == "cpu"
    assert _backend.switch.name() == "torch:cpu"
    with chosen:
        pass
    assert _backend.switch.name() == "auto"
    assert repr(chosen) == "smeld.device('torch:cpu')"


def test_the_environment_stands_in_for_auto_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    w, x = weights(60, 0), np.ones(60)
    monkeypatch.setenv(_backend.VARIABLE, "torch:cpu")
    smooth.smooth(w, x, 1.0)
    assert _backend.switch.taken() == "torch:cpu"
    with sm.device("cpu"):
        smooth.smooth(w, x, 1.0)
    assert _backend.switch.taken() is None
    monkeypatch.setenv(_backend.VARIABLE, "abacus")
    with pytest.raises(sm.InputError, match="unknown device 'abacus'"):
        smooth.smooth(w, x, 1.0)


@pytest.mark.parametrize(
    ("name", "says"), [("mps", "no double precision"), ("abacus", "unknown device"), ("cuda:97", "not there")]
)
def test_a_device_that_is_not_there_is_said_at_once(name: str, says: str) -> None:
    with pytest.raises(sm.InputError, match=says):
        sm.device(name)


def test_auto_looks_for_a_gpu_on_large_sections_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(_switch, "functions", lambda name: asked.append(name))
    assert _backend.elsewhere("smooth", _backend.LEAST_ROWS - 1) is None
    assert asked == []
    assert _backend.elsewhere("smooth", _backend.LEAST_ROWS) is None
    assert asked == ["auto"]


def test_a_gpu_is_taken_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """What "auto" does with a GPU, played on the CPU."""
    monkeypatch.setattr(_switch, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(_accelerate, "has_cuda", lambda: True)
    monkeypatch.setattr(_accelerate._device, "resolve", lambda name: torch.device("cpu"))
    monkeypatch.setattr(_backend, "LEAST_ROWS", 50)
    _switch._ready.cache_clear()
    try:
        smooth.smooth(weights(60, 0), np.ones(60), 1.0)
        assert _backend.switch.taken() == "cuda:0"
        smooth.smooth(weights(40, 0), np.ones(40), 1.0)
        assert _backend.switch.taken() is None
    finally:
        _switch._ready.cache_clear()


def test_what_does_not_fit_into_memory_is_left_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("full")

    assert _accelerate._or_none(full, torch.device("cpu")) is None


def test_torch_stays_away_from_small_sections() -> None:
    code = """
import sys, numpy as np, smeld as sm
from smeld.kernels import graph, smooth
sm.device("cpu")
sm.device()
made = graph.spatial_graph(np.random.default_rng(0).uniform(0, 100, (50, 2)))
smooth.smooth(smooth.sme_weights(made.distances, sigma_um=10.0), np.ones(50), 1.0)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_networks_follow_the_choice_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    from smeld.nn import _device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert str(_device.resolve()) == "cuda:0"
    with sm.device("cpu"):
        assert str(_device.resolve()) == "cpu"
        assert str(_device.resolve("cuda:0")) == "cuda:0"
    monkeypatch.setenv("SMELD_DEVICE", "cpu")
    assert str(_device.resolve()) == "cpu"
