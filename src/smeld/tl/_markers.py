"""Marker genes of each domain: scanpy's ranking, from sums over blocks of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.kernels import expression, rows

if TYPE_CHECKING:
    import pandas as pd

#: best genes of each group whose figures are kept for all groups
SHARED = 5
#: added to means before they are divided, as in scanpy
TINY = 1e-9

Float = NDArray[np.float64]
COLUMNS = ["domain", "gene", "score", "log2_fold_change", "pvalue", "qvalue", "pct_in", "pct_out"]


def markers(
    data: Any,
    groups: str = "domain",
    *,
    n_genes: int = 50,
    layer: str | None = None,
    key_added: str | None = None,
) -> pd.DataFrame:
    """Genes that are higher in one group of spots than in the rest, best first.

    Ranked by the t-test with overestimated variance (scanpy's ``"t-test_overestim_var"``) on log-normalised counts.
    The domains were made from the same counts, so p-values rank genes; they do not test whether domains exist.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table.
    groups
        Column of ``obs``; groups with a single spot are left out.
    n_genes
        Genes kept for each group; the best 5 of every group are kept for all groups, so that they can be compared.
    layer
        Layer that holds the counts; ``X`` by default.
    key_added
        Key in ``uns``; ``"domain_markers"`` by default.

    Returns
    -------
    The table written to ``uns``: ``domain``, ``gene``, ``score``, ``log2_fold_change``, ``pvalue``, ``qvalue``
    (Benjamini-Hochberg within a group), ``pct_in`` and ``pct_out`` (share of spots with a count, 0 to 1).

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> table = sm.tl.markers(adata, "truth_domain", n_genes=3)
    >>> list(table.columns)[:3]
    ['domain', 'gene', 'score']
    """
    import pandas as pd

    adata = _adapt.table(data)
    _check.require(adata.obs, groups, "obs", "run sm.tl.domains(adata) first, or name a column of labels")
    label = adata.obs[groups].astype("category")
    size = label.value_counts()
    names = [name for name in label.cat.categories if size[name] >= 2]
    key = key_added or _keys.MARKERS
    if len(names) < 2:
        _check.warn(f"markers need two groups of at least 2 spots; obs[{groups!r}] has {len(names)}.", adata)
        table = pd.DataFrame(columns=COLUMNS)
    else:
        table = _ranked(adata, label, names, n_genes, layer)
    adata.uns[key] = table
    _keys.record(adata, key, function="sm.tl.markers", params={"groups": groups, "n_genes": n_genes, "layer": layer})
    return table


def _ranked(adata: Any, label: Any, names: list[Any], n_genes: int, layer: str | None) -> pd.DataFrame:
    import pandas as pd

    counts = _adapt.rows(adata, layer)
    logged = counts if _adapt.look_logged(counts) else expression.log_rows(counts)
    group = label.cat.codes.to_numpy()
    # a last group for what has no label: it is part of every rest
    group = np.where(group < 0, len(label.cat.categories), group)
    sums = rows.grouped_sums(logged, group, len(label.cat.categories) + 1)
    size = np.bincount(group, minlength=len(sums[0]))
    at = [list(label.cat.categories).index(name) for name in names]
    ranked = [_compared(k, size, *sums) for k in at]
    shared = np.unique(np.concatenate([r["order"][:SHARED] for r in ranked]))
    genes = adata.var_names.to_numpy(dtype=str)
    parts = []
    for name, found in zip(names, ranked):
        first = np.arange(len(genes)) < n_genes
        kept = found["order"][first | np.isin(found["order"], shared)]
        columns = {column: found[column][kept] for column in COLUMNS[2:]}
        parts.append(pd.DataFrame({"domain": str(name), "gene": genes[kept], **columns}))
    return pd.concat(parts, ignore_index=True)


def _compared(
    k: int, size: NDArray[np.integer], seen: NDArray[np.integer], total: Float, square: Float
) -> dict[str, NDArray[Any]]:
    """Every gene in group ``k`` against all other spots: Welch's test, the rest's variance taken as that of a mean of
    no more spots than the group has (scanpy's "t-test_overestim_var"); ``order`` the genes, highest score first."""
    from scipy import stats

    n, rest = int(size[k]), int(size.sum() - size[k])
    mean, sd = _moments(n, total[k], square[k])
    other, other_sd = _moments(rest, total.sum(axis=0) - total[k], square.sum(axis=0) - square[k])
    with np.errstate(divide="ignore", invalid="ignore"):
        score, pvalue = stats.ttest_ind_from_stats(mean, sd, n, other, other_sd, n, equal_var=False)
    score, pvalue = np.nan_to_num(score, nan=0.0), np.where(np.isnan(pvalue), 1.0, pvalue)
    inside = seen[k]
    return {
        "order": np.argsort(-score, kind="stable"),
        "score": score,
        "log2_fold_change": np.log2((np.expm1(mean) + TINY) / (np.expm1(other) + TINY)),
        "pvalue": pvalue,
        "qvalue": stats.false_discovery_control(pvalue),
        "pct_in": inside / n,
        "pct_out": (seen.sum(axis=0) - inside) / max(rest, 1),
    }


def _moments(n: int, total: Float, square: Float) -> tuple[Float, Float]:
    """Mean and sample standard deviation; what rounding leaves of a constant is none."""
    mean = total / max(n, 1)
    variance = (square - n * mean**2) / max(n - 1, 1)
    return mean, np.sqrt(np.where(variance > 1e-12 * mean**2, variance, 0.0))
