"""``python peer_scvi.py COUNTS.npz OUT.npz SEED``: shares of genes that scVI (Lopez et al. 2018) expects of every spot.

Negative-binomial likelihood, otherwise its defaults, with its early stopping; 25 samples of the posterior.
"""

from __future__ import annotations

import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import _peer
import numpy as np
import scvi
import torch

warnings.simplefilter("ignore")
torch.set_num_threads(1)
seed = int(sys.argv[3])
adata = _peer.load(Path(sys.argv[1]))
scvi.settings.seed = seed
started = time.perf_counter()
scvi.model.SCVI.setup_anndata(adata)
model = scvi.model.SCVI(adata, gene_likelihood="nb")
model.train(accelerator="cpu", early_stopping=True, enable_progress_bar=False)
share = model.get_normalized_expression(library_size=1, n_samples=25, return_mean=True, return_numpy=True)
seconds = time.perf_counter() - started
with Path(sys.argv[2]).open("wb") as out:
    np.savez(out, share=share.astype(np.float32), seconds=seconds, version=version("scvi-tools"))
