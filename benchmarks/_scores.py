"""How good a division is, and whether its confidence means what it says. Plain numpy; truth is only read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import comb

N_BINS = 10
#: rows of pairs held at a time
_BLOCK = 1000


def codes(labels: ArrayLike) -> tuple[NDArray[np.intp], list[str]]:
    """Labels as numbers 0..K-1, and their names in sorted order."""
    names, numbers = np.unique(np.asarray(labels).astype(str), return_inverse=True)
    return numbers.ravel(), [str(n) for n in names]


def contingency(truth: ArrayLike, found: ArrayLike) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Counts [n_truth, n_found] with the names of rows and columns."""
    t, t_names = codes(truth)
    f, f_names = codes(found)
    table = np.zeros((len(t_names), len(f_names)), dtype=np.int64)
    np.add.at(table, (t, f), 1)
    return table, t_names, f_names


def ari(truth: ArrayLike, found: ArrayLike) -> float:
    """Adjusted Rand index (Hubert and Arabie 1985)."""
    table, _, _ = contingency(truth, found)
    together = float(comb(table, 2).sum())
    rows = float(comb(table.sum(axis=1), 2).sum())
    columns = float(comb(table.sum(axis=0), 2).sum())
    pairs = float(comb(table.sum(), 2))
    expected = rows * columns / pairs if pairs else 0.0
    largest = (rows + columns) / 2
    return 1.0 if largest == expected else (together - expected) / (largest - expected)


def match(truth: ArrayLike, found: ArrayLike) -> dict[str, str]:
    """One found label to at most one true label, so that most spots agree (Hungarian method)."""
    table, t_names, f_names = contingency(truth, found)
    rows, columns = linear_sum_assignment(-table)
    return {f_names[c]: t_names[r] for r, c in zip(rows, columns)}


def recall(truth: ArrayLike, found: ArrayLike) -> dict[str, float]:
    """Share of each true label's spots that lie in the domain matched to it; 0 for a label without one."""
    table, t_names, _ = contingency(truth, found)
    rows, columns = linear_sum_assignment(-table)
    hits = dict(zip(rows.tolist(), table[rows, columns].tolist()))
    return {name: hits.get(i, 0) / int(table[i].sum()) for i, name in enumerate(t_names)}


def errors(truth: ArrayLike, found: ArrayLike) -> NDArray[np.bool_]:
    """True where a spot's domain, after one-to-one matching, is not its true label."""
    given = match(truth, found)
    named = np.array([given.get(str(f), "") for f in np.asarray(found).astype(str)])
    return np.asarray(named != np.asarray(truth).astype(str))


def risk_coverage(truth: ArrayLike, found: ArrayLike, confidence: ArrayLike) -> dict[str, float]:
    """Error overall and among the most confident half (ties in the order given); ``ratio`` of the two."""
    wrong = errors(truth, found)
    order = np.argsort(-np.asarray(confidence, dtype=float), kind="stable")
    half = float(wrong[order[: max(1, len(order) // 2)]].mean())
    overall = float(wrong.mean())
    return {
        "error": overall,
        "error_confident_half": half,
        "ratio": half / overall if overall else float("nan"),
    }


@dataclass(frozen=True)
class Reliability:
    """Co-membership of pairs, balanced so that pairs that belong together and apart each weigh one half.

    ``bins``: for each tenth of probability its weight, mean probability, and share together in truth.
    """

    bins: list[dict[str, float]]
    calibration_error: float
    brier: float
    brier_constant: float


def base_rate(prob: ArrayLike) -> float:
    """Share of all pairs that lie together, by the stated memberships alone; no truth enters."""
    p = np.asarray(prob, dtype=float)
    return float(((p.sum(axis=0) ** 2).sum() - (p**2).sum()) / (len(p) * (len(p) - 1)))


def carried(together: NDArray[np.float64], base: float) -> NDArray[np.float64]:
    """Probabilities stated for pairs with this base rate, for pairs of which half lie together (Bayes)."""
    yes, no = together * (1 - base), (1 - together) * base
    return np.asarray(np.divide(yes, yes + no, out=np.full_like(yes, 0.5), where=yes + no > 0))


def comembership(truth: ArrayLike, prob: ArrayLike, *, carry: bool = True, n_bins: int = N_BINS) -> Reliability:
    """Reliability of p_ij = sum_k p_ik p_jk over all pairs i < j against "same true label", exactly, block by block.

    Pairs are weighted so that half lie together. p_ij is stated for pairs as they come in the tissue; ``carry`` takes
    its odds to that base rate, with the base rate that the memberships themselves state.
    """
    t, _ = codes(truth)
    p = np.asarray(prob, dtype=float)
    base = base_rate(p)
    total = np.zeros((2, 4, n_bins))  # [same?][count, sum p, sum p^2, unused][bin]
    for start in range(0, len(t), _BLOCK):
        rows = slice(start, start + _BLOCK)
        together = np.clip(p[rows] @ p[start:].T, 0.0, 1.0)
        together = carried(together, base) if carry else together
        same = t[rows, None] == t[None, start:]
        upper = np.triu(np.ones(together.shape, dtype=bool), k=1)
        for flag in (0, 1):
            values = together[upper & (same == bool(flag))]
            index = np.minimum((values * n_bins).astype(int), n_bins - 1)
            for power in range(3):
                total[flag, power] += np.bincount(index, weights=values**power, minlength=n_bins)
    return _reliability(total)


def _reliability(total: NDArray[np.float64]) -> Reliability:
    n = total[:, 0].sum(axis=1)
    if not n.all():
        return Reliability([], float("nan"), float("nan"), 0.25)
    share = total / (2 * n[:, None, None])  # each side weighs one half
    weight, together = share[:, 0].sum(axis=0), share[1, 0]
    mean_p = share[:, 1].sum(axis=0)
    used = weight > 0
    gap = float(np.abs(mean_p - together)[used].sum())
    brier = float(share[0, 2].sum() + (share[1, 0] - 2 * share[1, 1] + share[1, 2]).sum())
    bins = [
        {
            "weight": float(weight[b]),
            "probability": float(mean_p[b] / weight[b]),
            "together": float(together[b] / weight[b]),
        }
        for b in np.flatnonzero(used)
    ]
    return Reliability(bins, gap, brier, 0.25)


def summary(values: ArrayLike) -> dict[str, float]:
    """Mean, median, 5th percentile and worst."""
    v = np.asarray(values, dtype=float)
    return {
        "mean": float(v.mean()),
        "median": float(np.median(v)),
        "p5": float(np.percentile(v, 5)),
        "worst": float(v.min()),
    }


def score(truth: ArrayLike, found: ArrayLike) -> dict[str, Any]:
    """ARI and recalls of one division."""
    return {"ari": ari(truth, found), "recall": recall(truth, found)}
