"""Marker genes of each domain, by scanpy's ranking."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from smeld import _adapt, _check, _keys
from smeld.kernels import expression

if TYPE_CHECKING:
    import pandas as pd

#: best genes of each group whose figures are kept for all groups
SHARED = 5
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

    Ranked by scanpy's t-test with overestimated variance on log-normalised counts. The domains were made from the same
    counts, so p-values rank genes; they do not test whether domains exist.

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
    import anndata as ad
    import pandas as pd
    import scanpy as sc

    counts = _adapt.counts(adata, layer)
    logged = counts if _adapt.look_logged(counts) else expression.log_normalise(counts)
    work = ad.AnnData(logged.astype(np.float32), obs=pd.DataFrame({"group": label.to_numpy()}, index=adata.obs_names))
    work.obs["group"] = work.obs["group"].astype(str).astype("category")
    work.var_names = adata.var_names
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas' note on fragmentation, scanpy's on names
        sc.tl.rank_genes_groups(work, "group", groups=[str(n) for n in names], method="t-test_overestim_var")
    ranked = {name: sc.get.rank_genes_groups_df(work, group=str(name)) for name in names}
    shared = {gene for table in ranked.values() for gene in table["names"].head(SHARED)}
    seen = counts > 0
    total, parts = np.asarray(seen.sum(axis=0)).ravel(), []
    for name, table in ranked.items():
        members = (label == name).to_numpy()
        inside = np.asarray(seen[members].sum(axis=0)).ravel()
        got = table[(np.arange(len(table)) < n_genes) | table["names"].isin(shared)]
        at = adata.var_names.get_indexer(got["names"])
        parts.append(
            pd.DataFrame(
                {
                    "domain": str(name),
                    "gene": got["names"].to_numpy(dtype=str),
                    "score": got["scores"].to_numpy(),
                    "log2_fold_change": got["logfoldchanges"].to_numpy(),
                    "pvalue": got["pvals"].to_numpy(),
                    "qvalue": got["pvals_adj"].to_numpy(),
                    "pct_in": inside[at] / members.sum(),
                    "pct_out": (total - inside)[at] / max((~members).sum(), 1),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)
