"""Pairs made independent on purpose, their smoothness kept: does a test of this section hold what it promises?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.spatial import cKDTree

from smeld.kernels import crosscov

Float = NDArray[np.float64]

#: a turned spot further from its nearest spot than this many spacings falls outside the section
REACH = 1.5
N_TURNS = 16
#: about how many tests lambda is the median of (a quarter of it on more than ``LARGE`` spots), for a standard error of
#: .06 (.12) if they were independent, and the share of spots that must still lie on the section
MOST, LARGE, LEAST_INSIDE = 1500, 20_000, 0.25


def turns(xy_um: Float, n: int, rng: np.random.Generator) -> list[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """``n`` turns (half of them mirrored) of the section about its middle: for every spot the spot whose value it gets,
    and whether one lies there."""
    tree = cKDTree(xy_um)
    spacing = float(np.median(tree.query(xy_um, k=2)[0][:, 1]))
    middle = (xy_um.min(axis=0) + xy_um.max(axis=0)) / 2
    found = []
    for i, angle in enumerate(rng.uniform(np.pi / 6, 2 * np.pi - np.pi / 6, n)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s], [s, c]]) @ (np.diag([-1.0, 1.0]) if i % 2 else np.eye(2))
        distance, nearest = tree.query((xy_um - middle) @ turn.T + middle)
        found.append((np.asarray(nearest, dtype=np.intp), distance <= REACH * max(spacing, 1e-9)))
    return found


def inflation(
    fields: Callable[[NDArray[np.intp]], Float],
    pairs: NDArray[np.intp],
    weights: sparse.csr_matrix,
    xy_um: Float,
    *,
    seed: int,
) -> float:
    """Median chi-square of pairs whose receptor's map is turned about the section, over the expected one, .455.

    1 where the test is calibrated (lambda of Devlin & Roeder 1999). The map keeps its smoothness and loses its place;
    where the section as a whole has a middle or a gradient that the maps share, lambda says so. ``fields(columns)``
    gives fields as they are tested, [n_columns, n_obs]; of ``pairs`` (ligand, receptor) a number are drawn, or each is
    turned several times. NaN where no turned pair could be tested.
    """
    rng = np.random.default_rng(seed)
    most = MOST if len(xy_um) <= LARGE else MOST // 4
    chosen = pairs if len(pairs) <= most else pairs[np.sort(rng.choice(len(pairs), most, replace=False))]
    per_pair = max(1, most // len(chosen))
    pvalues = []
    for i, (nearest, inside) in enumerate(turns(xy_um, N_TURNS, rng)):
        mine = np.concatenate([chosen[(i + shift) % N_TURNS :: N_TURNS] for shift in range(min(per_pair, N_TURNS))])
        if not len(mine) or inside.sum() < LEAST_INSIDE * len(xy_um):
            continue
        rows = np.flatnonzero(inside)
        own = fields(mine[:, 1])[:, nearest[rows]]
        beside = crosscov.around(weights, fields(mine[:, 0]))[:, rows]
        own, beside = (f - f.mean(axis=1, keepdims=True) for f in (own, beside))
        pvalues.append(_pvalues(own, beside, xy_um[rows]))
    p = np.concatenate(pvalues) if pvalues else np.zeros(0)
    return float(np.median(stats.norm.isf(p) ** 2) / stats.chi2.median(1)) if len(p) else float("nan")


def _pvalues(own: Float, beside: Float, xy_um: Float) -> Float:
    where = crosscov.lags(xy_um)
    first = crosscov.correlograms(where, lambda rows: own[rows], len(own))
    second = crosscov.correlograms(where, lambda rows: beside[rows], len(own))
    varies = (first[:, 0] > 0) & (second[:, 0] > 0)
    return crosscov.test((own * beside).sum(axis=1), first, second, len(xy_um)).pvalue[varies]
