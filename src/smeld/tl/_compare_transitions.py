"""Genes along two branches, or in two sections, side by side: what they share, and what is private to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from smeld import _adapt, _check, _keys

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: what a table of genes along one path says of a gene
COURSE = ["effect", "zscore", "pvalue", "qvalue", "shape", "peak", "n_effective"]
#: a gene is private to one side if its p on the other is at least the first of these, or the effects differ and it is
#: at least the second
NO_SIGN, NO_CLEAR_SIGN = 0.5, 0.05
#: a direction is clear from so many standard errors on
CLEAR = 1.96
#: fewest independent cells that an effect's error can be told from
FEWEST = 5.0
BENT = {"peaks", "dips"}


def compare_transitions(first: Any, second: Any, *, q: float = 0.05) -> pd.DataFrame:
    """Compare genes along two paths, or in two sections: shared, private to one, opposite. Computes only.

    A gene that follows only one of two orders at a given false discovery rate need not be private to it: it may have
    been missed in the other. So it is called private only where the two effects differ significantly and p in the other
    is at least 0.05, or where nothing at all speaks for the gene there (p of at least 0.5; weak evidence where that one
    has few cells); else it is undecided. Effects are correlations, and lower in sections with fewer counts.

    Parameters
    ----------
    first, second
        Results, or tables, of ``sm.tl.transition_genes`` without ``branch``; or AnnData with such a table in
        ``uns["transition_genes"]``.
    q
        False discovery rate at which a gene follows an order, and at which two effects differ; above 0, below 1.

    Returns
    -------
    A row a gene of either table, those that differ most first: ``gene``; ``pattern``: ``shared``, ``private to
    first``, ``private to second``, ``opposite`` (follows both, in opposite directions), ``neither``, ``undecided``, or
    ``not in first``, ``not in second``; ``difference``, the standard score of Fisher-transformed effects, first less
    second, by their numbers of independent cells, ``pvalue_difference``, and ``qvalue_difference``
    (Benjamini-Hochberg over genes that follow one at least); and the columns of both tables, ``effect_first`` to
    ``n_effective_second``.

    Raises
    ------
    InputError
        Where there is no such table, or ``q`` is out of range.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, tissue="branched", n_domains=3, image=False, seed=1)
    >>> found = sm.tl.trajectory(adata, "D1", groups="truth_domain", n_bootstraps=4)
    >>> one = sm.tl.transition_genes(adata, path=["D1", "D2"], n_splits=1)
    >>> two = sm.tl.transition_genes(adata, path=["D1", "D3"], n_splits=1)
    >>> sm.tl.compare_transitions(one, two).columns[1]
    'pattern'

    References
    ----------
    Fisher, Metron 1 (1921) 3 (difference of correlations).
    """
    if not 0 < q < 1:
        raise _check.problem("q must lie between 0 and 1", found=str(q))
    one, two = _table(first, "first"), _table(second, "second")
    both = one.join(two, how="outer", lsuffix="_first", rsuffix="_second")
    sides = [both[[f"{c}_{s}" for c in COURSE]].set_axis(COURSE, axis=1) for s in ("first", "second")]
    made = patterns(sides[0], sides[1], q, ("first", "second")).join(both)
    made.insert(0, "gene", made.index.astype(str))
    rank = np.lexsort((made["gene"], -made["difference"].abs().fillna(0.0), made["pvalue_difference"].fillna(2.0)))
    return made.iloc[rank].reset_index(drop=True)


def _table(given: Any, which: str) -> pd.DataFrame:
    """The table of one side by gene."""
    import pandas as pd

    table = getattr(given, "table", given)
    if not isinstance(table, pd.DataFrame):
        adata = _adapt.table(table)
        _check.require(adata.uns, _keys.TRANSITION_GENES, "uns", "run sm.tl.transition_genes(adata) first")
        table = adata.uns[_keys.TRANSITION_GENES]
    missing = [name for name in ["gene", *COURSE] if name not in table]
    if missing:
        raise _check.problem(
            f"the {which} table is not of genes along one path",
            found=f"no column {_check.listed(missing)}",
            cure="give a table of sm.tl.transition_genes without branch=",
        )
    return table.drop_duplicates("gene").set_index("gene")[COURSE]


def patterns(first: pd.DataFrame, second: pd.DataFrame, q: float, names: tuple[str, str]) -> pd.DataFrame:
    """``pattern``, ``difference``, ``pvalue_difference`` and ``qvalue_difference`` of genes, a row each in both."""
    import pandas as pd

    follows = [np.asarray(side["qvalue"] <= q) for side in (first, second)]
    there = [np.asarray(side["qvalue"].notna()) for side in (first, second)]
    difference, pvalue = _difference(first, second)
    qvalue = np.full(len(first), np.nan)
    asked = (follows[0] | follows[1]) & np.isfinite(pvalue)
    if asked.any():
        qvalue[asked] = stats.false_discovery_control(pvalue[asked])
    out = np.full(len(first), "neither", dtype=object)
    for i, name in enumerate(names):
        only, p = follows[i] & ~follows[1 - i], np.asarray((first, second)[1 - i]["pvalue"])
        clear = (p >= NO_SIGN) | ((qvalue <= q) & (p >= NO_CLEAR_SIGN))
        out[only] = np.where(clear[only], f"private to {name}", "undecided")
    both = follows[0] & follows[1]
    out[both] = np.where(_opposite(first, second)[both], "opposite", "shared")
    for name, known in zip(names, there):
        out[~known] = f"not in {name}"
    made = {"pattern": out, "difference": difference, "pvalue_difference": pvalue, "qvalue_difference": qvalue}
    return pd.DataFrame(made, index=first.index)


def _difference(first: pd.DataFrame, second: pd.DataFrame) -> tuple[Float, Float]:
    """(standard score, p) of the difference of two effects; NaN where one is missing or of too few cells."""
    value, variance = np.zeros(len(first)), np.zeros(len(first))
    for side, sign in ((first, 1.0), (second, -1.0)):
        effect, n = (np.asarray(side[name], dtype=np.float64) for name in ("effect", "n_effective"))
        value += sign * np.arctanh(np.clip(effect, -0.9999, 0.9999))
        variance += _variance(effect, n)
    z = value / np.sqrt(variance)
    return z, 2 * stats.norm.sf(np.abs(z))


def _variance(effect: Float, n: Float) -> Float:
    """Variance of a Fisher-transformed effect. The number of independent cells is that of the whole variation over the
    error of the slope: what the covariate explains is in it, and is taken out."""
    independent = (n - 1) * (1 - np.minimum(effect**2, 0.9999)) + 1
    return np.where(independent >= FEWEST, 1 / np.maximum(independent - 3, 1.0), np.nan)


def _opposite(first: pd.DataFrame, second: pd.DataFrame) -> NDArray[np.bool_]:
    """Clear trends that go opposite ways, or a peak on the one and a dip on the other side."""
    score = []
    for side in (first, second):
        effect, n = (np.asarray(side[name], dtype=np.float64) for name in ("effect", "n_effective"))
        score.append(np.arctanh(np.clip(effect, -0.9999, 0.9999)) / np.sqrt(_variance(effect, n)))
    trends = (np.minimum(np.abs(score[0]), np.abs(score[1])) >= CLEAR) & (score[0] * score[1] < 0)
    bent = [np.asarray(side["shape"].isin(BENT)) for side in (first, second)]
    return np.asarray(trends | (bent[0] & bent[1] & np.asarray(first["shape"] != second["shape"])))
