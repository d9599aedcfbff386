"""``sm.tl.trajectory`` on cortex: depth from white matter to the surface, which the annotated layers tell."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from _datasets import SECTIONS
from scipy.stats import spearmanr

DEPTH = {"WM": 0, "L6": 1, "L5": 2, "L4": 3, "L3": 4, "L2": 5, "L1": 6}


def _depth(label: str) -> float:
    return next((float(v) for k, v in DEPTH.items() if label.replace("Layer_", "L").replace("Layer", "L") == k), np.nan)


def measure() -> dict[str, list[dict[str, Any]]]:
    """Root: the domain richest in white matter, the only use of labels but for the score and the number of domains."""
    import smeld as sm

    warnings.simplefilter("ignore")
    rows = []
    for name in ("dlpfc_151673", "dlpfc_151674"):
        adata = SECTIONS[name].read()
        sm.tl.quality_control(adata)
        sm.morph.embed(adata)
        sm.fuse(adata)
        sm.tl.domains(adata, 7)
        truth = adata.obs["truth"].astype(str)
        depth = truth.map(_depth).to_numpy(dtype=float)
        root = pd.crosstab(adata.obs["domain"].astype(str), truth, normalize="index")["WM"].idxmax()
        started = time.perf_counter()
        found = sm.tl.trajectory(adata, f"label:{root}")
        seconds = time.perf_counter() - started
        order = found.pseudotime.to_numpy()
        known = np.isfinite(depth) & np.isfinite(order)
        record = adata.uns["smeld"]["pseudotime"]["params"]
        rows.append(
            {
                "section": name,
                "Spearman with depth": float(spearmanr(order[known], depth[known])[0]),
                "finite": float(np.isfinite(order).mean()),
                "gain of expression": float(record["gain_of_expression"]),
                "standard error": float(record["gain_standard_error"]),
                "space share": float(record["space_share"]),
                "seconds": seconds,
            }
        )
    return {"trajectory_real": rows}
