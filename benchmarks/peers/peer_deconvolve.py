"""``python peer_deconvolve.py METHOD SPOTS.h5ad REFERENCE.h5ad OUT.npz SEED``: proportions of cell types in spots.

``tangram`` (Biancalani et al. 2021): cells mapped with its defaults on all shared genes, annotations projected and
made shares. ``stereoscope`` (Andersson et al. 2020): scvi-tools' version with its defaults. ``cell2location``
(Kleshchevnikov et al. 2022): seven cells a location, as smeld starts from, ``C2L_EPOCHS`` of its 30,000 steps; means of
its posterior. ``rctd`` (Cable et al. 2022): rctd-py in full mode, without its least numbers of counts; the table of
probabilities that it fetches when it is first run is made here, by its own definition. ``flashdeconv``: its defaults.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

warnings.simplefilter("ignore")
LABEL = "cell_type"
C2L_CELLS, C2L_EPOCHS = 7, 10_000
#: counts that RCTD's table goes up to, and how it integrates over the logarithm of a rate
RCTD_MOST, RCTD_HALF, RCTD_STEP = 1000, 5000, 4e-3


def tangram(spots: Any, cells: Any, seed: int) -> tuple[pd.DataFrame, str]:
    import scanpy as sc
    import tangram as tg

    sc.pp.normalize_total(cells)
    tg.pp_adatas(cells, spots)
    mapped = tg.map_cells_to_space(cells, spots, device="cpu", random_state=seed)
    tg.project_cell_annotations(mapped, spots, annotation=LABEL)
    return spots.obsm["tangram_ct_pred"], version("tangram-sc")


def stereoscope(spots: Any, cells: Any, seed: int) -> tuple[pd.DataFrame, str]:
    import scvi
    from scvi.external import RNAStereoscope, SpatialStereoscope

    scvi.settings.seed = seed
    shared = cells.var_names.intersection(spots.var_names)
    cells, spots = cells[:, shared].copy(), spots[:, shared].copy()
    RNAStereoscope.setup_anndata(cells, labels_key=LABEL)
    of_cells = RNAStereoscope(cells)
    of_cells.train(accelerator="cpu", enable_progress_bar=False)
    SpatialStereoscope.setup_anndata(spots)
    of_spots = SpatialStereoscope.from_rna_model(spots, of_cells)
    of_spots.train(accelerator="cpu", enable_progress_bar=False)
    return of_spots.get_proportions(), version("scvi-tools")


def cell2location(spots: Any, cells: Any, seed: int) -> tuple[pd.DataFrame, str]:
    import scvi
    from cell2location.models import Cell2location, RegressionModel

    scvi.settings.seed = seed
    quiet = {"accelerator": "cpu", "enable_progress_bar": False}
    RegressionModel.setup_anndata(cells, labels_key=LABEL)
    of_cells = RegressionModel(cells)
    of_cells.train(**quiet)
    names = list(cells.obs[LABEL].cat.categories)
    made = of_cells.export_posterior(cells, sample_kwargs={"accelerator": "cpu"}).varm["means_per_cluster_mu_fg"]
    profile = made[[f"means_per_cluster_mu_fg_{name}" for name in names]].set_axis(names, axis=1)
    Cell2location.setup_anndata(spots)
    of_spots = Cell2location(spots, cell_state_df=profile, N_cells_per_location=C2L_CELLS, detection_alpha=20)
    of_spots.train(max_epochs=C2L_EPOCHS, **quiet)
    spots = of_spots.export_posterior(spots, sample_kwargs={"accelerator": "cpu"})
    found = spots.obsm["means_cell_abundance_w_sf"]
    return found.set_axis(names, axis=1), version("cell2location")


def rctd(spots: Any, cells: Any, seed: int) -> tuple[pd.DataFrame, str]:
    import rctd as rctd_py

    every = rctd_py.Reference(cells, cell_type_col=LABEL, cell_min=2, min_UMI=1)
    config = rctd_py.RCTDConfig(UMI_min=1, counts_MIN=1, device="cpu")
    found = rctd_py.run_rctd(spots, every, mode="full", config=config)
    names = list(found.cell_type_names)
    share = np.full((spots.n_obs, len(names)), 1 / len(names))
    share[slice(None) if found.pixel_mask is None else found.pixel_mask] = found.weights
    return pd.DataFrame(share, columns=names), version("rctd-py")


def _rctd_table(path: Path) -> Path:
    """Logarithms of the probabilities of counts given rates and ``sigma``, as ``rctd._likelihood.compute_q_matrix``
    has them, for all that it may choose from; the Poisson part, which all of them share, is evaluated once."""
    from rctd import _likelihood, _sigma
    from scipy.special import gammaln

    if path.exists():
        return path
    rates = _likelihood.build_x_vals()
    by = np.arange(-RCTD_HALF, RCTD_HALF + 1) * RCTD_STEP
    sigmas = [int(s) for s in _sigma.SIGMA_ALL]
    law = np.stack([_likelihood._ht_pdf_norm(by / (s / 100)) / (s / 100) for s in sigmas], axis=1)
    log_mean = np.log(rates)[:, None] + by
    mean = np.exp(log_mean)
    table = np.empty((len(sigmas), RCTD_MOST + 3, len(rates)))
    for k in range(table.shape[1]):
        chance = np.exp(k * log_mean - mean - gammaln(k + 1)) @ law * RCTD_STEP
        table[:, k] = np.log(np.maximum(chance, 1e-300)).T
    _check_table(table, sigmas, rates)
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        np.savez(file, X_vals=rates, **{f"Q_{s}": q for s, q in zip(sigmas, table)})
    return beside.replace(path)


def _check_table(table: Any, sigmas: list[int], rates: Any) -> None:
    """Its own function, which would take hours for all, gives the same."""
    from rctd import _likelihood

    for s, k in ((10, 0), (100, 7), (200, 90)):
        own = np.log(np.maximum(_likelihood._get_q_single(rates, k, s / 100), 1e-300))
        np.testing.assert_allclose(table[sigmas.index(s), k], own, rtol=1e-6, atol=1e-9)


def flashdeconv(spots: Any, cells: Any, seed: int) -> tuple[pd.DataFrame, str]:
    import flashdeconv as fd

    fd.tl.deconvolve(spots, cells, cell_type_key=LABEL, random_state=seed)
    return spots.obsm["flashdeconv"], version("flashdeconv")


#: the names that the first argument may have
METHODS = {f.__name__: f for f in (tangram, stereoscope, cell2location, rctd, flashdeconv)}


def main() -> None:
    method, source, reference, out, seed = sys.argv[1], *map(Path, sys.argv[2:5]), int(sys.argv[5])
    if method != "flashdeconv":
        import torch

        torch.set_num_threads(2)
    spots, cells = anndata.read_h5ad(source), anndata.read_h5ad(reference)
    cells.obs[LABEL] = cells.obs[LABEL].astype(str).astype("category")
    if method == "rctd":  # once an environment, as its download would be
        os.environ["RCTD_Q_MATRICES"] = str(_rctd_table(Path(sys.prefix) / "q_matrices.npz"))
    started = time.perf_counter()
    found, released = METHODS[method](spots, cells, seed)
    seconds = time.perf_counter() - started
    share = found.to_numpy(dtype=float)
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    with out.open("wb") as file:
        np.savez(file, share=share, types=np.array(found.columns, dtype=str), seconds=seconds, version=released)


if __name__ == "__main__":
    main()
