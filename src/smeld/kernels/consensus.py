"""Many soft partitions of the same spots into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

Float = NDArray[np.float64]


def aligned(reference: Float, member: Float) -> Float:
    """The columns of ``member`` [n_obs, k] permuted to overlap ``reference`` [n_obs, k] most (Kuhn 1955)."""
    with threadpool_limits(1):
        overlap = reference.T @ member
    return np.asarray(member[:, linear_sum_assignment(-overlap)[1]])


def consensus(members: Sequence[Float]) -> Float:
    """Mean membership over ``members`` (float64 [n_obs, k] each), aligned to the first and then to their mean."""
    mean = members[0]
    for _ in range(3):
        mean = sum((aligned(mean, m) for m in members), start=np.zeros_like(mean)) / len(members)
    return mean
