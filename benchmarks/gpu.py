"""The kernels that a GPU takes over, on the CPU and there: seconds, and how far the results differ.

    python benchmarks/gpu.py [--slow] [--device torch:cpu]

Copies to the GPU and back are counted; loading torch and starting the GPU are not, they have a row of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES, SLOW = (10_000, 100_000), (1_000_000,)
NEIGHBOURS, COLUMNS, FIELDS, SPACING_UM = 10, 50, 8, 10.0
REPEATS = 3


def kernels(n: int) -> dict[str, Callable[[], Any]]:
    """Name -> the kernel on ``n`` scattered cells."""
    from smeld.kernels import crosscov, graph, smooth

    draws = np.random.default_rng(0)
    xy = draws.uniform(0, SPACING_UM * np.sqrt(n), (n, 2))
    weights = smooth.sme_weights(
        graph.spatial_graph(xy, kind="knn", n_neighbors=NEIGHBOURS).distances, sigma_um=SPACING_UM
    )
    values = draws.normal(size=(n, COLUMNS))
    fields = np.ascontiguousarray(values.T[:FIELDS])
    where = crosscov.lags(xy, half=True)
    return {
        "neighbours": lambda: np.stack(graph._knn_distances(xy, NEIGHBOURS).nonzero(), axis=1),
        f"smoothing, {COLUMNS} columns": lambda: smooth.smooth(weights, values, 5.0),
        f"correlograms, {FIELDS} genes": lambda: crosscov.cross_correlograms(where, [fields], [(0, 0)]),
    }


def timed(kernel: Callable[[], Any], n: int) -> tuple[float, Any]:
    """(Seconds of the best repeat, result) after a first call that is not counted."""
    kernel()
    best, made = np.inf, None
    for _ in range(REPEATS if n < SLOW[0] else 1):
        started = time.perf_counter()
        made = kernel()
        best = min(best, time.perf_counter() - started)
    return best, made


def gpu() -> str | None:
    """The device that "auto" takes on a large section."""
    from smeld.kernels import _backend

    found = _backend.switch.found(_backend.LEAST_ROWS)
    return None if found is None else found[0]


def difference(first: Any, second: Any) -> float:
    """Largest difference as a share of the largest value; infinite for other numbers of edges."""
    if first.shape != second.shape:
        return float("inf")
    return float(np.abs(first - second).max() / np.abs(first).max())


def measure(*, slow: bool, device: str | None = None) -> list[dict[str, Any]]:
    """A row a kernel and size; where there is no GPU, the CPU's seconds alone."""
    import smeld as sm

    started = time.perf_counter()
    there = device or gpu()
    if there is not None:
        with sm.device(there):
            kernels(1000)["neighbours"]()
    start = time.perf_counter() - started
    rows: list[dict[str, Any]] = []
    if there is not None:
        rows.append({"kernel": "loading torch, starting", "rows": 1000, "device": there, "device_s": start})
    for n in SIZES + (SLOW if slow else ()):
        with sm.device("cpu"):
            made = kernels(n)
        for name, kernel in made.items():
            with sm.device("cpu"):
                seconds, ours = timed(kernel, n)
            row = {"kernel": name, "rows": n, "cpu_s": seconds, "device": there or "no GPU"}
            if there is not None:
                with sm.device(there):
                    row["device_s"], theirs = timed(kernel, n)
                row |= {"times faster": seconds / row["device_s"], "difference": f"{difference(ours, theirs):.0e}"}
            rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slow", action="store_true", help="also a million rows")
    parser.add_argument("--device", help="this one in place of the GPU")
    asked = parser.parse_args(argv)
    json.dump(measure(slow=asked.slow, device=asked.device), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
