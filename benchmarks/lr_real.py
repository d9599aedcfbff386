"""Does the test of pairs hold on real sections? Lambda on surrogates and decoys by what is regressed out; and pairs
that are independent, called in single spots."""

from __future__ import annotations

import time
import warnings
from typing import Any

import interactions as generator
import numpy as np
from _datasets import SECTIONS

NAMES = ("dlpfc_151673", "dlpfc_151674", "her2st_A1", "her2st_B1", "her2st_D1", "her2st_G2", "breast_block_a")
ADJUSTED: tuple[tuple[str, ...], ...] = ((), ("library",), ("library", "domain"))
#: independent pairs for local calls, by range, and significant spots that are too many
N_LOCAL, TOO_MANY = 1000, 10


def measure() -> dict[str, list[dict[str, Any]]]:
    """Lambda by section, and shares of independent pairs with ten significant spots or more."""
    warnings.simplefilter("ignore")
    return {"lr_real": _real(), "lr_local": _local()}


def _real() -> list[dict[str, Any]]:
    import smeld as sm

    rows = []
    for name in NAMES:
        adata = SECTIONS[name].read()
        sm.fuse(adata)
        sm.tl.domains(adata)
        for adjust in ADJUSTED:
            started = time.perf_counter()
            found = sm.tl.interactions(adata, adjust=adjust)
            rows.append(
                {
                    "section": name, "spots": adata.n_obs, "regressed out": ", ".join(adjust) or "nothing",
                    "pairs": len(found.table), "significant": int((found.table["qvalue"] <= 0.05).sum()),
                    "lambda on surrogates": found.lambda_surrogate, "lambda on decoys": found.lambda_decoy,
                    "seconds": time.perf_counter() - started,
                }
            )  # fmt: skip
    return rows


def _local() -> list[dict[str, Any]]:
    """Pairs of the generator of ``interactions.py``, as a user would test them (values are logarithms already)."""
    import anndata as ad
    import pandas as pd

    import smeld as sm

    rows = []
    for width in (2, 4, 8):
        rng = np.random.default_rng(100 + width)
        xy = generator.positions(generator.SMALL, rng)
        genes = generator.table(generator.SMALL, width, N_LOCAL, rng, rho=0.0, how="stationary")
        names = [f"g{i}" for i in range(2 * N_LOCAL)]
        adata = ad.AnnData(genes.tocsr(), var=pd.DataFrame(index=names))
        adata.obsm["spatial"] = adata.obsm["spatial_um"] = xy
        found = sm.tl.interactions(adata, list(zip(names[::2], names[1::2])), adjust=(), decoys=False)
        spots = found.table["n_spots_significant"]
        rows.append(
            {
                "cells": len(xy), "range": width, "pairs": len(spots),
                f"{TOO_MANY} significant spots or more": float((spots >= TOO_MANY).mean()),
                "any significant spot": float((spots > 0).mean()),
                "q <= .05": float((found.table["qvalue"] <= 0.05).mean()),
            }
        )  # fmt: skip
    return rows
