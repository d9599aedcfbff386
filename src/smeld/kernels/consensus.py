"""Many soft partitions of the same spots into one, and how far they agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from threadpoolctl import threadpool_limits

Float = NDArray[np.float64]
Int = NDArray[np.intp]


def permutation(reference: Float, member: Float) -> Int:
    """Columns of ``member`` [n_obs, k] in the order that overlaps ``reference`` [n_obs, k] most (Kuhn 1955)."""
    with threadpool_limits(1):
        overlap = reference.T @ member
    return np.asarray(linear_sum_assignment(-overlap)[1], dtype=np.intp)


def aligned(reference: Float, member: Float) -> Float:
    """The columns of ``member`` permuted to overlap ``reference`` most."""
    return np.asarray(member[:, permutation(reference, member)])


def agreement(a: Int, b: Int, k: int) -> float:
    """Adjusted Rand index of two hard partitions with labels 0..k-1 (Hubert & Arabie 1985)."""
    table = np.bincount(a * k + b, minlength=k * k).reshape(k, k).astype(np.float64)
    together, rows, columns = (float((t * (t - 1) / 2).sum()) for t in (table, table.sum(axis=1), table.sum(axis=0)))
    pairs = len(a) * (len(a) - 1) / 2
    expected = rows * columns / pairs if pairs else 0.0
    largest = (rows + columns) / 2
    return 1.0 if largest - expected < 1e-12 else (together - expected) / (largest - expected)


def agreements(members: Sequence[Float]) -> Float:
    """Agreement of every two members' hard partitions, symmetric [n_members, n_members]; 1 on the diagonal."""
    labels = [m.argmax(axis=1) for m in members]
    k = members[0].shape[1]
    out = np.eye(len(labels))
    for i in range(len(labels)):
        for j in range(i):
            out[i, j] = out[j, i] = agreement(labels[i], labels[j], k)
    return out


@dataclass(frozen=True)
class Consensus:
    """``prob`` [n_obs, k]; ``order`` the column order of each member that it averages; ``stability``, the mean
    agreement between two members."""

    prob: Float
    order: list[Int]
    stability: float


def consensus(members: Sequence[Float]) -> Consensus:
    """Mean membership over ``members`` (float64 [n_obs, k] each).

    Columns are aligned to the medoid, the member that agrees best with all others (a likelihood would choose the one
    with the most peculiar small group), and then, twice, to the mean.
    """
    agree = agreements(members)
    n = len(members)
    reference = members[int(agree.sum(axis=1).argmax())]
    order: list[Int] = []
    for _ in range(3):
        order = [permutation(reference, m) for m in members]
        reference = sum((m[:, o] for m, o in zip(members, order)), start=np.zeros_like(reference)) / n
    stability = float((agree.sum() - n) / (n * (n - 1))) if n > 1 else 1.0
    return Consensus(reference, order, stability)


def base_rate(prob: Float) -> float:
    """Probability that two different spots drawn at random share a domain, by their memberships."""
    n = len(prob)
    return float(((prob.sum(axis=0) ** 2).sum() - (prob**2).sum()) / max(n * (n - 1), 1))


def same_domain(first: Float, second: Float, *, base: float | None = None) -> Float:
    """Probability that the spots behind two sets of rows [n_pairs, k] share a domain.

    sum_k p_ik p_jk holds for pairs as they come in the tissue, of which the share ``base`` lies together. With
    ``base`` given, the odds are carried over to pairs of which half lie together (Bayes; Saerens et al. 2002).
    """
    together = np.clip((first * second).sum(axis=1), 0.0, 1.0)
    return together if base is None else balanced(together, base)


def balanced(together: Float, base: float) -> Float:
    """Probabilities of pairs with base rate ``base`` carried over to a base rate of one half."""
    yes, no = together * (1 - base), (1 - together) * base
    return np.asarray(np.divide(yes, yes + no, out=np.full_like(yes, 0.5), where=yes + no > 0))
