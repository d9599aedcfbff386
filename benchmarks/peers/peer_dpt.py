"""``python peer_dpt.py SECTION.h5ad --root CELL --out OUT.json``: scanpy's diffusion pseudotime from one cell.

Counts lie in X. As scanpy's guides to preparation and to trajectories do it: counts to their median sum, log, the 2,000
most variable genes (all where there are fewer), 50 components, 15 neighbours, diffusion map, dpt. OUT has ``names``,
``pseudotime`` (null where the root does not reach), ``seconds`` (with what numba compiles in them) and ``versions``;
the peak of memory is the caller's to measure. What peers for trajectories share lies here too.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scanpy as sc

COMPONENTS, NEIGHBORS, VARIABLE = 50, 15, 2000


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("section", type=Path)
    made.add_argument("--root", required=True, help="name of the cell that pseudotime starts from")
    made.add_argument("--out", type=Path, required=True)
    return made


def components(adata: Any) -> int:
    """50, or as many as the section allows."""
    return int(min(COMPONENTS, adata.n_vars - 1, adata.n_obs - 1))


def main(options: argparse.Namespace, order: Callable[[Any], dict[str, Any]], packages: tuple[str, ...]) -> None:
    """Run ``order(adata)``, which writes ``obs["dpt_pseudotime"]`` and may return more to write; time it."""
    warnings.simplefilter("ignore")
    adata = sc.read_h5ad(options.section)
    adata.uns["iroot"] = int(adata.obs_names.get_loc(options.root))
    started = time.perf_counter()
    more = order(adata)
    seconds = time.perf_counter() - started
    found = adata.obs["dpt_pseudotime"].to_numpy(dtype=float)
    written = {
        "names": list(adata.obs_names),
        "pseudotime": [float(value) if np.isfinite(value) else None for value in found],
        "seconds": seconds,
        "versions": {name: version(name) for name in packages},
        **more,
    }
    options.out.write_text(json.dumps(written))


def dpt(adata: Any) -> dict[str, Any]:
    made = adata.copy()
    sc.pp.filter_genes(made, min_cells=3)
    sc.pp.normalize_total(made)
    sc.pp.log1p(made)
    if made.n_vars > VARIABLE:
        sc.pp.highly_variable_genes(made, n_top_genes=VARIABLE, subset=True)
    sc.pp.pca(made, n_comps=components(made), random_state=0)
    sc.pp.neighbors(made, n_neighbors=NEIGHBORS, random_state=0)
    sc.tl.diffmap(made, random_state=0)
    sc.tl.dpt(made)
    adata.obs["dpt_pseudotime"] = made.obs["dpt_pseudotime"]
    return {}


if __name__ == "__main__":
    main(parser().parse_args(), dpt, ("scanpy", "numpy"))
