"""``python peer_deconvolve.py METHOD SPOTS.h5ad REFERENCE.h5ad OUT.npz SEED``: proportions of cell types in spots.

``tangram`` (Biancalani et al. 2021): cells mapped with its defaults on all shared genes, annotations projected and made
shares. ``stereoscope`` (Andersson et al. 2020): scvi-tools' version with its defaults.
"""

from __future__ import annotations

import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import torch

warnings.simplefilter("ignore")
LABEL = "cell_type"


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


def main() -> None:
    method, source, reference, out, seed = sys.argv[1], *map(Path, sys.argv[2:5]), int(sys.argv[5])
    torch.set_num_threads(1)
    spots, cells = anndata.read_h5ad(source), anndata.read_h5ad(reference)
    cells.obs[LABEL] = cells.obs[LABEL].astype(str).astype("category")
    started = time.perf_counter()
    found, released = {"tangram": tangram, "stereoscope": stereoscope}[method](spots, cells, seed)
    seconds = time.perf_counter() - started
    share = found.to_numpy(dtype=float)
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-12)
    with out.open("wb") as file:
        np.savez(file, share=share, types=np.array(found.columns, dtype=str), seconds=seconds, version=released)


if __name__ == "__main__":
    main()
