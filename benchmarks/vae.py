"""The graph VAE beside the deterministic fusion: domains of whole sections, of small panels, and with morphology.

One configuration, the default; labels score and give the true number of domains. Small panels are 200 genes drawn at
random; draws and seeds 0, 1, 2 and so on (100 and up were used to develop).
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
from _datasets import SECTIONS, scored, true_number
from sklearn.metrics import adjusted_rand_score

SEEDS, DRAWS, PANEL = 20, 5, 200
WHOLE = ("dlpfc_151673", "dlpfc_151674")
PICTURED = "her2st_A1"
METHODS = ("sme", "vae")


def _one(adata: Any, method: str, seed: int) -> dict[str, Any]:
    """ARI of one fusion and division, and its seconds."""
    import smeld as sm

    other = adata.copy()
    started = time.perf_counter()
    found = sm.fuse(other, method, seed=seed)
    fused = time.perf_counter() - started
    sm.tl.domains(other, true_number(other), use_rep=f"fused_{method}", seed=seed)
    known = scored(other)
    labels = other.obs["domain"].astype(str)[known]
    ari = float(adjusted_rand_score(other.obs["truth"].astype(str)[known], labels))
    return {"method": method, "ari": ari, "seconds": fused, "epochs": found.facts.get("epochs", np.nan)}


def measure(*, seeds: int = SEEDS) -> dict[str, list[dict[str, Any]]]:
    """Mean, 5th percentile and worst ARI by case and method."""
    import smeld as sm

    warnings.simplefilter("ignore")
    rows: list[dict[str, Any]] = []
    for name in WHOLE:
        whole = SECTIONS[name].read()
        for seed in range(seeds):
            rows += [{"case": name, **_one(whole, method, seed)} for method in METHODS]
        for draw in range(DRAWS):
            genes = np.random.default_rng(draw).choice(whole.n_vars, PANEL, replace=False)
            panel = whole[:, np.sort(genes)].copy()
            rows += [{"case": f"{name}, {PANEL} genes", **_one(panel, method, draw)} for method in METHODS]
    plain = SECTIONS[PICTURED].read()
    pictured = plain.copy()
    sm.morph.embed(pictured, quiet=True)
    for seed in range(min(seeds, 5)):
        for image, adata in (("with image", pictured), ("without", plain)):
            rows += [{"case": f"{PICTURED}, {image}", **_one(adata, method, seed)} for method in METHODS]
    table = pd.DataFrame(rows)
    summary = []
    for (case, method), part in table.groupby(["case", "method"], sort=False):
        ari = part["ari"]
        figures = {"mean ARI": ari.mean(), "p5": ari.quantile(0.05), "worst": ari.min()}
        timed = {"seconds": part["seconds"].median(), "epochs": part["epochs"].median()}
        summary.append({"case": case, "method": method, "runs": len(part), **figures, **timed})
    return {"vae": summary}
