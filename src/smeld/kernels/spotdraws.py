"""Random numbers and laws that compiled loops over spots draw from: a state of one number a spot."""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True)
def uniform(state):  # type: ignore[no-untyped-def]
    """Uniform in (0, 1) by splitmix64 (Steele, Lea & Flood 2014); the state is one number a spot."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (float(z >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def log_normal_cdf(x):  # type: ignore[no-untyped-def]
    if x > -6.0:
        return math.log(0.5 * math.erfc(-x / 1.4142135623730951))
    # asymptotic series of the tail
    return -0.5 * x * x - math.log(-x) - 0.9189385332046727 + math.log1p(-1 / (x * x) + 3 / (x * x * x * x))


@njit(cache=True)
def normal(state):  # type: ignore[no-untyped-def]
    """A draw of the standard normal law (Box & Muller 1958)."""
    return math.sqrt(-2 * math.log(uniform(state))) * math.cos(6.283185307179586 * uniform(state))


@njit(cache=True)
def cut_normal(mean, sd, state):  # type: ignore[no-untyped-def]
    """A draw of a normal law cut at zero (Robert 1995)."""
    lower = -mean / sd
    if lower < 0.45:
        while True:
            z = normal(state)
            if z > lower:
                return mean + sd * z
    rate = 0.5 * (lower + math.sqrt(lower * lower + 4))
    while True:
        z = lower - math.log(uniform(state)) / rate
        if math.log(uniform(state)) <= -0.5 * (z - rate) ** 2:
            return mean + sd * z


@njit(cache=True)
def between(value, grid, values):  # type: ignore[no-untyped-def]
    """Linear interpolation on an ascending grid, held at its ends."""
    if value <= grid[0]:
        return values[0]
    if value >= grid[-1]:
        return values[-1]
    lo = np.searchsorted(grid, value) - 1
    part = (value - grid[lo]) / (grid[lo + 1] - grid[lo])
    return values[lo] + part * (values[lo + 1] - values[lo])
