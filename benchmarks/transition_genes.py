"""False positives and power of ``sm.tl.transition_genes`` on simulated tissues: genes that have nothing to do with
development, most of them noise, a tenth smooth fields of their own, against those that follow it.

Markers of domains follow development and are made for something else: they count neither as true nor as false. The root
is the true root domain, and so are the groups: what is measured is the test, not the domains.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

TISSUES = ("layered", "branched", "folded")
N_OBS, N_GENES = 3000, 600


def _branch(found: pd.DataFrame, adata: Any, seed: int) -> list[dict[str, Any]]:
    """Genes that rise along one branch of two, in a test of their difference."""
    import smeld as sm

    ends = found[(found["level"] == "group") & found["terminal"]]
    truth = adata.obs.groupby("truth_domain", observed=True)["truth_branch"].agg(lambda b: b.mode().iloc[0])
    ends = ends.assign(branch=[truth[n] for n in ends["node"]]).drop_duplicates("branch")
    ends = ends[ends["branch"] != "trunk"]
    if len(ends) < 2:
        return []
    pair = (str(ends["node"].iloc[0]), str(ends["node"].iloc[1]))
    table = sm.tl.transition_genes(adata, branch=pair, n_splits=1, seed=seed).table.set_index("gene")
    role, target = adata.var["truth_role"].reindex(table.index), adata.var["truth_trajectory"].reindex(table.index)
    null = role.isin(["noise", "smooth"]).to_numpy()
    p, q = (table[c].to_numpy() for c in ("pvalue", "qvalue"))
    true = target.isin(ends["branch"].iloc[:2]).to_numpy()
    return [_row("branched, between two branches", p, q, null, true, {"branch genes": true})]


def _row(tissue: str, p: Any, q: Any, null: Any, true: Any, kinds: dict[str, Any]) -> dict[str, Any]:
    called = q <= 0.05
    false = int((called & null).sum())
    return {
        "tissue": tissue,
        "p <= .05": float((p[null] <= 0.05).mean()),
        "false": false,
        "called": int((called & (null | true)).sum()),
        **{f"found, {name}": float(called[at].mean()) if at.any() else np.nan for name, at in kinds.items()},
    }


def measure(*, seeds: int = 4) -> dict[str, list[dict[str, Any]]]:
    """Seeds 0 .. ``seeds`` - 1 of each tissue."""
    import smeld as sm

    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for tissue in TISSUES:
        for seed in range(seeds):
            adata = sm.datasets.simulate(N_OBS, N_GENES, tissue=tissue, seed=seed, image=False)
            tree = adata.uns["truth_domain_tree"]
            root = str(tree.loc[tree["parent"] == "none", "domain"].iloc[0])
            found = sm.tl.trajectory(adata, f"label:{root}", groups="truth_domain", n_bootstraps=10)
            table = sm.tl.transition_genes(adata, n_splits=1, seed=seed).table.set_index("gene")
            role, course = (adata.var[c].reindex(table.index).astype(str) for c in ("truth_role", "truth_trajectory"))
            kinds = {k: (course == k).to_numpy() for k in ("rising", "falling", "transient")}
            null, smooth = role.isin(["noise", "smooth"]).to_numpy(), (role == "smooth").to_numpy()
            p, q = (table[c].to_numpy() for c in ("pvalue", "qvalue"))
            row = _row(tissue, p, q, null, (role == "trajectory").to_numpy(), kinds)
            rows.append({**row, "smooth alone, p <= .05": float((p[smooth] <= 0.05).mean())})
            rows += _branch(found.nodes, adata, seed) if tissue == "branched" else []
    table = pd.DataFrame(rows)
    summary = []
    for tissue, part in table.groupby("tissue", sort=False):
        figures = part.drop(columns=["tissue", "false", "called"]).mean().dropna().to_dict()
        by_section = (part["false"] / part["called"].clip(lower=1)).mean()
        pooled = part["false"].sum() / max(part["called"].sum(), 1)
        summary.append({"tissue": tissue, "sections": len(part), **figures, "FDR": by_section, "FDR, pooled": pooled})
    return {"transition_genes": summary}
