"""Tests of genes along an order and between its branches, half by half of the counts, and the table they make."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special, stats

from smeld import _adapt
from smeld._progress import track
from smeld.kernels import alongpath
from smeld.kernels._threads import one_thread
from smeld.tl import _compare_transitions, _lr_inputs
from smeld.tl._compare_transitions import COURSE
from smeld.tl._split_order import Half

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: bins of equal size that a course is drawn over, and how many cosines it is smoothed to
N_BINS, N_COSINES = 20, 4
#: cosines that a branch may follow beside its trend
N_OWN = 3
#: a course peaks (or dips) if it stands out beyond both ends by this share of its range
STANDS_OUT = 0.3
#: share of a sum of squares below which nothing is left of it
NOTHING = 1e-10
#: false discovery rate at which a gene follows a branch
FDR = 0.05


@dataclass(frozen=True)
class Tests:
    """By gene: ``effect``, ``pvalue``, ``n_effective``, and its ``course`` [n_genes, n_bins] over bins that lie at
    ``time`` [n_bins]; no bins for a difference."""

    effect: Float
    pvalue: Float
    n_effective: Float
    course: Float
    time: Float


@dataclass(frozen=True)
class Task:
    """What all tests of one call share: cells in canonical ``order`` and their ``section``, what is regressed out, the
    numbers of the ``genes``, and those of the ``cells`` of one path, or of two."""

    adata: Any
    order: Int
    section: Int
    adjust: tuple[str, ...]
    genes: Int
    cells: list[Int]

    def over(self, halves: Iterable[Half], n_halves: int, stored: Float) -> tuple[list[Tests], float]:
        """Tests along every path and between two, over all halves; and the lowest Spearman correlation of their orders
        with the ``stored`` one (NaN where that itself is tested)."""
        found: list[list[Tests]] = []
        agreement = [np.inf]
        every = np.unique(np.concatenate(self.cells))
        for half in track(halves, "halves of the counts", n_halves):
            found.append([self.along(half, self.cells[0])] if len(self.cells) == 1 else self.branches(half))
            if half.time is not stored:
                known = every[np.isfinite(half.time[every])]
                agreement.append(float(stats.spearmanr(half.time[known], stored[known])[0]))
        lowest = min(agreement) if len(agreement) > 1 else np.nan
        return [_merged(tests) for tests in zip(*found)], float(lowest)

    def along(self, half: Half, rows: Int) -> Tests:
        """Trend and any smooth course along pseudotime."""
        rows = rows[np.isfinite(half.time[rows])]
        time = half.time[rows]
        genes, basis = self._genes(half, rows), self._basis(half, rows)
        with one_thread():
            found = self._test(rows, genes, basis, [time[None], alongpath.curves(time)])
            course, middle = _course(time, genes, basis, _n_bins(self.cells[0]))
        return Tests(found.effect[0], alongpath.cauchy(found.pvalue), found.n_effective[0], course, middle)

    def branches(self, half: Half) -> list[Tests]:
        """Tests along either branch and of their difference.

        A gene is tested along a branch in the cells of both ways, with a course of its own along the other branch: few
        patches of a branch alone tell a trend from a smooth field, while both, and the level where they part, do.
        """
        rows = np.unique(np.concatenate(self.cells))
        rows = rows[np.isfinite(half.time[rows])]
        ways = [np.isin(rows, cells) for cells in self.cells]
        alone = [ways[0] & ~ways[1], ways[1] & ~ways[0]]
        shared = half.time[rows[ways[0] & ways[1]]]
        parting = float(np.median(shared)) if len(shared) else float(half.time[rows].min())
        own = [_own(half.time[rows], mine, parting) for mine in alone]
        sides = [self._side(half, rows, own[i], own[1 - i], self.cells[i]) for i in range(2)]
        return [*sides, self._between(half, rows, alone, own)]

    def _side(self, half: Half, rows: Int, mine: Float, other: Float, way: Int) -> Tests:
        with one_thread():
            basis = _joined(self._basis(half, rows), other)
            found = self._test(rows, self._genes(half, rows), basis, [mine[:1], mine[1:]])
            there = way[np.isfinite(half.time[way])]
            genes, basis = self._genes(half, there), self._basis(half, there)
            drawn = _course(half.time[there], genes, basis, _n_bins(way))
        return Tests(found.effect[0], alongpath.cauchy(found.pvalue), found.n_effective[0], *drawn)

    def _between(self, half: Half, rows: Int, alone: list[NDArray[np.bool_]], own: list[Float]) -> Tests:
        """Difference of level, and of trend, beside a course that both branches share."""
        level = np.where(alone[0], 1.0, np.where(alone[1], -1.0, 0.0))
        both = np.vstack([alongpath.curves(half.time[rows]), own[0] + own[1]])
        with one_thread():
            basis = _joined(self._basis(half, rows), both)
            found = self._test(rows, self._genes(half, rows), basis, [level[None], (own[0] - own[1])[:1]])
        pvalue, none = alongpath.cauchy(found.pvalue), np.empty((len(self.genes), 0))
        return Tests(found.effect[0], pvalue, found.n_effective[0], none, np.empty(0))

    def _genes(self, half: Half, rows: Int) -> sparse.csc_matrix:
        return half.genes[rows][:, self.genes].tocsc()

    def _basis(self, half: Half, rows: Int) -> Float:
        """Orthonormal columns that are regressed out, means of sections among them."""
        found = _lr_inputs.basis(self.adata, self.adjust, half.library[rows], self.order[rows], self.section[rows])
        return np.full((len(rows), 1), len(rows) ** -0.5) if found is None else found

    def _test(self, rows: Int, genes: sparse.csc_matrix, basis: Float, covariates: list[Float]) -> alongpath.Along:
        return alongpath.test(
            _adapt.xy_um(self.adata)[self.order[rows]],
            lambda numbers: _beside(genes[:, numbers].toarray().T, basis),
            genes.shape[1],
            [_beside(c, basis) for c in covariates],
            section=self.section[rows],
        )

    def table(self, tests: list[Tests], branch: tuple[str, str] | None) -> pd.DataFrame:
        """A row a gene, most significant first."""
        import pandas as pd

        names = np.asarray(self.adata.var_names, dtype=str)[self.genes]
        columns = [_columns(t) for t in tests]
        made = {"gene": names.astype(object), **columns[-1]}
        if branch is not None:
            first, second = (pd.DataFrame(c) for c in columns[:2])
            made["pattern"] = _compare_transitions.patterns(first, second, FDR, branch)["pattern"].to_numpy()
            for side, column in zip(("first", "second"), columns):
                made |= {f"{name}_{side}": column[name] for name in COURSE}
        table = pd.DataFrame(made)
        rank = np.lexsort((names, -table["zscore"].abs(), table["pvalue"]))
        return table.iloc[rank].reset_index(drop=True)


def _merged(tests: tuple[Tests, ...]) -> Tests:
    mean = {n: np.mean([getattr(t, n) for t in tests], axis=0) for n in ("effect", "n_effective", "course", "time")}
    return Tests(pvalue=alongpath.cauchy(np.stack([t.pvalue for t in tests])), **mean)


def _own(time: Float, mine: NDArray[np.bool_], parting: float) -> Float:
    """Trend from the parting on, and smooth courses, of one branch's cells, [1 + N_OWN, n]; 0 in others."""
    return np.where(mine, np.vstack([np.maximum(time - parting, 0.0), alongpath.curves(time, N_OWN)]), 0.0)


def _joined(basis: Float, rows: Float) -> Float:
    """Orthonormal columns of both."""
    left, singular, _ = np.linalg.svd(np.hstack([basis, rows.T]), full_matrices=False)
    return np.asarray(left[:, singular > singular.max() * 1e-8])


def _beside(fields: Float, basis: Float) -> Float:
    """Rows [n, n_obs] without what the basis explains; 0 where that is all but rounding."""
    left = fields - (fields @ basis) @ basis.T
    left[(left**2).sum(axis=1) <= NOTHING * (fields**2).sum(axis=1)] = 0.0
    return np.asarray(left)


def _course(time: Float, genes: sparse.csc_matrix, basis: Float, n_bins: int) -> tuple[Float, Float]:
    """Smooth course of every gene [n_genes, n_bins] over bins of equal size, and the pseudotime of these."""
    bins = (np.argsort(np.argsort(time, kind="stable"), kind="stable") * n_bins) // max(len(time), 1)
    size = np.maximum(np.bincount(bins, minlength=n_bins), 1)
    mean = sparse.csr_matrix((1.0 / size[bins], (bins, np.arange(len(time)))), shape=(n_bins, len(time)))
    course = (mean @ genes).toarray().T - (genes.T @ basis) @ (mean @ basis).T
    cosines = np.vstack([np.ones(n_bins), alongpath.curves(np.arange(float(n_bins)), N_COSINES)])
    return course @ np.linalg.pinv(cosines) @ cosines, np.asarray(mean @ time)


def _n_bins(cells: Int) -> int:
    return min(N_BINS, len(cells) // 4)


def _columns(tests: Tests) -> dict[str, Any]:
    sign = np.sign(tests.effect)
    made = {
        "effect": tests.effect,
        "zscore": sign * np.abs(special.ndtri(np.clip(tests.pvalue, 1e-300, 1.0) / 2)),
        "pvalue": tests.pvalue,
        "qvalue": stats.false_discovery_control(tests.pvalue),
        "n_effective": tests.n_effective,
    }
    if not tests.course.shape[1]:
        return made
    made["shape"] = _shapes(tests.course)
    made["peak"] = tests.time[tests.course.argmax(axis=1)]
    return {name: made[name] for name in COURSE}


def _shapes(course: Float) -> Any:
    """``peaks`` or ``dips`` where a course stands out beyond both its ends, else ``rises`` or ``falls``."""
    first, last = course[:, 0], course[:, -1]
    up, down = course.max(axis=1) - np.maximum(first, last), np.minimum(first, last) - course.min(axis=1)
    out = np.where(last >= first, "rises", "falls").astype(object)
    bent = np.maximum(up, down) > STANDS_OUT * np.ptp(course, axis=1)
    out[bent] = np.where(up >= down, "peaks", "dips")[bent]
    return out
