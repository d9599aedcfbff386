"""Nothing grows with the square of the number of spots."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import smeld as sm

N = 10_000
#: the smallest array with both sides N: one byte an entry. Far above what any task needs at this size
SQUARE = N * N


@pytest.fixture(scope="module")
def section() -> Iterator[Any]:
    adata = sm.datasets.simulate(N, 40, seed=0, image=False, layout="cells")
    adata.obsm["morph_made"] = np.random.default_rng(0).normal(size=(N, 6))
    yield adata


@pytest.fixture(scope="module")
def divided(section: Any) -> Any:
    adata = section.copy()
    sm.fuse(adata)
    sm.tl.domains(adata, 4, n_starts=2)
    return adata


def _peak(task: Callable[[], object]) -> int:
    """Most bytes that the task held at a time, numpy's arrays included, beyond those that were there before."""
    gc.collect()
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_measure_sees_a_square_array() -> None:
    assert _peak(lambda: np.ones((N, N), dtype=bool)) >= SQUARE


TASKS: dict[str, Callable[[Any], object]] = {
    "fuse": lambda a: sm.fuse(a),
    "domains": lambda a: sm.tl.domains(a, 4, n_starts=2),
    "cell types": lambda a: sm.tl.domains(a, 4, mode="cell_type", n_starts=2),
    "pieces": lambda a: sm.tl.pieces(a),
    "contiguity": lambda a: sm.tl.contiguity(a, "domain"),
    "markers": lambda a: sm.tl.markers(a),
    "denoise": lambda a: sm.tl.denoise(a),
    "same domain": lambda a: sm.tl.same_domain(a, np.column_stack([np.arange(N), np.roll(np.arange(N), 1)])),
}


@pytest.mark.parametrize("task", TASKS)
def test_no_array_has_both_sides_as_long_as_the_section(task: str, divided: Any) -> None:
    adata = divided.copy()
    assert _peak(lambda: TASKS[task](adata)) < SQUARE
    for slot in (adata.obsp, adata.layers, adata.obsm):
        for key, value in slot.items():
            dense = isinstance(value, np.ndarray)
            assert not (dense and min(value.shape) >= N), key
            if not dense and hasattr(value, "nnz"):
                assert value.nnz < 100 * N, key
