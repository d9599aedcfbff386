"""``python _viewer_section.py FILE.h5ad N``: a result of N cells to look at: domains, types, genes, an embedding.

Nothing is computed by smeld: what is measured is the viewer, and a viewer does not care how true its numbers are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

#: micrometres between cells, genes, cells of each gene that express it
PITCH_UM, GENES, SHARE = 10.0, 60, 0.15


def make(n: int, seed: int = 0) -> AnnData:
    """Cells scattered over a square, in 12 bands of domains with 25 cell types."""
    rng = np.random.default_rng(seed)
    side = PITCH_UM * np.sqrt(n)
    xy = rng.uniform(0, side, (n, 2))
    wave = xy[:, 1] / side + 0.06 * np.sin(6 * xy[:, 0] / side)
    domain = np.clip((wave * 12).astype(int), 0, 11)
    cell_type = (domain * 2 + rng.integers(0, 3, n)) % 25
    columns = rng.integers(0, GENES, int(n * GENES * SHARE)).astype(np.int32)
    starts = np.linspace(0, len(columns), n + 1).astype(np.int64)
    counts = sparse.csr_matrix((rng.poisson(3, len(columns)).astype(np.float32), columns, starts), shape=(n, GENES))
    counts.sum_duplicates()
    adata = AnnData(counts)
    adata.var_names = [f"gene{i}" for i in range(GENES)]
    adata.obsm["spatial"] = adata.obsm["spatial_um"] = xy
    adata.obs["domain"] = pd.Categorical.from_codes(domain, [str(k + 1) for k in range(12)])
    adata.obs["cell_type"] = pd.Categorical.from_codes(cell_type, [f"type {k + 1}" for k in range(25)])
    adata.obs["domain_confidence"] = rng.beta(8, 2, n)
    angle = 2 * np.pi * cell_type / 25
    centre = 8 * np.column_stack([np.cos(angle), np.sin(angle)])
    adata.obsm["X_umap"] = (centre + rng.normal(size=(n, 2))).astype(np.float32)
    return adata


if __name__ == "__main__":
    make(int(sys.argv[2])).write_h5ad(Path(sys.argv[1]))
