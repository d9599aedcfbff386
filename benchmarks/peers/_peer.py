"""What every peer script shares. Runs in the peer's environment: numpy, scipy and anndata only, no smeld."""

from __future__ import annotations

import argparse
import json
import random
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

STEPS = 25


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--input", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--k", type=int, required=True)
    made.add_argument("--seeds", type=int, required=True)
    return made


def load(path: Path) -> Any:
    """AnnData with counts, ``obsm["spatial"]`` in micrometres and, on lattices, array_row and array_col."""
    import anndata
    import pandas as pd

    stored = np.load(path)
    x = sparse.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
    obs = pd.DataFrame(index=stored["spots"].astype(str))
    if len(stored["array"]):
        obs["array_row"], obs["array_col"] = stored["array"].T
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=stored["genes"].astype(str)))
    adata.obsm["spatial"] = np.asarray(stored["xy_um"])
    return adata


def recipe(adata: Any, seed: int, n_components: int = 30) -> Any:
    """scanpy's usual preparation: counts to their median sum, log, 2,000 variable genes, scale, PCA."""
    import scanpy as sc

    made = adata.copy()
    sc.pp.normalize_total(made)
    sc.pp.log1p(made)
    if made.n_vars > 2000:
        sc.pp.highly_variable_genes(made, n_top_genes=2000, subset=True)
    sc.pp.scale(made, max_value=10)
    sc.pp.pca(made, n_comps=min(n_components, made.n_vars - 1, made.n_obs - 1), random_state=seed)
    return made


def search(divide: Callable[[float], Any], k: int, low: float = 0.01, high: float = 5.0) -> Any:
    """Labels at the resolution that gives k clusters, found by halving; the nearest number where none does."""
    best: tuple[int, Any] | None = None
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        labels = np.asarray(divide(middle))
        n = len(np.unique(labels))
        if best is None or abs(n - k) < best[0]:
            best = (abs(n - k), labels)
        if n == k:
            break
        low, high = (middle, high) if n < k else (low, middle)
    assert best is not None
    return best[1]


def main(options: argparse.Namespace, divide: Callable[[Any, int, int], Any], packages: tuple[str, ...]) -> None:
    """Run ``divide(adata, k, seed)`` for each seed on a fresh copy; write labels, seconds and versions."""
    warnings.simplefilter("ignore")
    whole = load(options.input)
    runs = []
    for seed in range(options.seeds):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002  peers draw from numpy's global state
        adata = whole.copy()
        started = time.perf_counter()
        labels = [str(label) for label in divide(adata, options.k, seed)]
        runs.append({"seed": seed, "seconds": time.perf_counter() - started, "labels": labels})
    found = {name: version(name) for name in packages}
    options.out.write_text(json.dumps({"runs": runs, "versions": found}))
