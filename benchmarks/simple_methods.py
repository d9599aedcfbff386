"""Simpler methods on the same sections, under the same protocol: true K, all spots in training, labels only to score.

Each starts from the same 30 principal components (2,000 most variable genes of scanpy's recipe). Leiden needs a
package that smeld does not depend on: it is measured among the peers, and read from there into the comparison.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _measure
import _scores
import numpy as np
from _datasets import SECTIONS, Section, scored, true_number
from numpy.typing import NDArray

F64 = NDArray[np.float64]
N_COMPONENTS = 30
#: share of the neighbourhood in BANKSY's matrix: .8 is its authors' choice for domains
BANKSY_LAMBDA = 0.8


def components(adata: Any, seed: int) -> F64:
    """scanpy's recipe: counts to their median sum, log, variable genes, scale, PCA."""
    import scanpy as sc

    made = adata.copy()
    sc.pp.normalize_total(made)
    sc.pp.log1p(made)
    if made.n_vars > 2000:
        sc.pp.highly_variable_genes(made, n_top_genes=2000, subset=True)
    sc.pp.scale(made, max_value=10)
    sc.pp.pca(made, n_comps=min(N_COMPONENTS, made.n_vars - 1, made.n_obs - 1), random_state=seed)
    return np.asarray(made.obsm["X_pca"], dtype=float)


def neighbours(xy_um: F64, n: int) -> NDArray[np.intp]:
    """The n nearest others of each spot [n_obs, n]."""
    from sklearn.neighbors import NearestNeighbors

    return np.asarray(NearestNeighbors(n_neighbors=n).fit(xy_um).kneighbors(return_distance=False))


def kmeans_pca(pcs: F64, near: NDArray[np.intp], k: int, seed: int) -> NDArray[np.intp]:
    """KMeans on the principal components; space is not used."""
    return _kmeans(pcs, k, seed)


def smoothed_mixture(pcs: F64, near: NDArray[np.intp], k: int, seed: int) -> NDArray[np.intp]:
    """Three rounds of averaging each spot with its 6 neighbours, then a mixture with one shared covariance."""
    z = pcs
    for _ in range(3):
        z = (z + z[near].sum(axis=1)) / (1 + near.shape[1])
    return _mixture(z, k, seed)


def banksy_kmeans(pcs: F64, near: NDArray[np.intp], k: int, seed: int) -> NDArray[np.intp]:
    """Own components beside the neighbours' mean, weighed as BANKSY weighs them, then KMeans."""
    return _kmeans(_banksy(pcs, near), k, seed)


def banksy_mixture(pcs: F64, near: NDArray[np.intp], k: int, seed: int) -> NDArray[np.intp]:
    """The same, then a mixture with one shared covariance."""
    return _mixture(_banksy(pcs, near), k, seed)


METHODS: dict[str, Callable[[F64, NDArray[np.intp], int, int], NDArray[np.intp]]] = {
    "KMeans on PCA": kmeans_pca,
    "smoothing + mixture": smoothed_mixture,
    "BANKSY-like, KMeans": banksy_kmeans,
    "BANKSY-like, mixture": banksy_mixture,
}


def _banksy(pcs: F64, near: NDArray[np.intp]) -> F64:
    return np.hstack([np.sqrt(1 - BANKSY_LAMBDA) * pcs, np.sqrt(BANKSY_LAMBDA) * pcs[near].mean(axis=1)])


def _kmeans(z: F64, k: int, seed: int) -> NDArray[np.intp]:
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(k, n_init=10, random_state=seed).fit_predict(z))


def _mixture(z: F64, k: int, seed: int) -> NDArray[np.intp]:
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(k, covariance_type="tied", n_init=5, random_state=seed, reg_covar=1e-4)
    return np.asarray(model.fit_predict(z))


def measure_section(section: Section, seeds: int) -> list[dict[str, Any]]:
    """ARI and seconds of every method and seed on one section, in this process."""
    warnings.simplefilter("ignore")
    adata = section.read()
    keep, k = scored(adata), true_number(adata)
    truth = adata.obs["truth"].to_numpy()[keep]
    near = neighbours(np.asarray(adata.obsm["spatial_um"]), 6)
    found = []
    for seed in range(seeds):
        started = time.perf_counter()
        pcs = components(adata, seed)
        preparation = time.perf_counter() - started
        for name, method in METHODS.items():
            started = time.perf_counter()
            labels = method(pcs, near, k, seed)
            seconds = preparation + time.perf_counter() - started
            found.append({"method": name, "ari": _scores.ari(truth, labels[keep]), "seconds": seconds})
    return found


def measure(names: list[str], *, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Mean ARI by section for each method; and the mean over sections of each group."""
    rows: list[dict[str, Any]] = []
    for name in names:
        if SECTIONS[name].absent:
            continue
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--one", name, "--seeds", str(seeds)]
            found, _ = _measure.run_json("simple_methods.py", arguments, Path(folder), threads=1, timeout=3600)
        for method in METHODS:
            mine = [f for f in found if f["method"] == method]
            rows.append(
                {
                    "section": name,
                    "method": method,
                    "seeds": len(mine),
                    **_scores.summary([f["ari"] for f in mine]),
                    "seconds": _scores.summary([f["seconds"] for f in mine])["median"],
                }
            )
    return {"simple_methods": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", required=True, help="name of the section")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    json.dump(measure_section(SECTIONS[options.one], options.seeds), sys.stdout)


if __name__ == "__main__":
    main()
