"""``python peer_liana.py SECTION.npz PAIRS.csv OUT.json N_PERMS REPEATS``: seconds of LIANA+'s bivariate statistics.

PAIRS.csv has ligand and receptor, subunits joined by "_" as LIANA+ wants them. Each call is made once with two
permutations first (``first``), so that nothing is imported or compiled while it is timed.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import _peer
import liana as li
import pandas as pd
import scanpy as sc

#: of the Gaussian that weighs neighbours: with the cutoff of .1, two rings of Visium's lattice
BANDWIDTH_UM = 100.0

warnings.simplefilter("ignore")
section = _peer.load(Path(sys.argv[1]))
pairs = pd.read_csv(sys.argv[2], keep_default_na=False)
n_perms, repeats = int(sys.argv[4]), int(sys.argv[5])
sc.pp.normalize_total(section)
sc.pp.log1p(section)


def timed(permutations: int, options: dict[str, Any]) -> tuple[float, float, int]:
    """Weights of neighbours and the statistic: seconds, of the processor too; how many pairs came out."""
    adata = section.copy()
    started, worked = time.perf_counter(), time.process_time()
    li.ut.spatial_neighbors(adata, bandwidth=BANDWIDTH_UM, cutoff=0.1, kernel="gaussian", set_diag=True)
    found = li.mt.bivariate(adata, use_raw=False, n_perms=permutations, seed=0, verbose=False, **options)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    return seconds, cpu, len(found) if isinstance(found, pd.DataFrame) else found.n_vars


# nz_prop=0: the pairs are chosen already, and both tools are to test the same
ours = {"resource": pairs, "nz_prop": 0.0}
both = {"local_name": "cosine", "global_name": "morans"}
CASES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    (f"cosine, Moran's R over the section ({n_perms} permutations)", n_perms, {**both, **ours}),
    (f"Moran's R over the section only ({n_perms} permutations)", n_perms,
     {"local_name": None, "global_name": "morans", **ours}),
    ("Moran's R, local and over the section (analytical)", 0,
     {"local_name": "morans", "global_name": "morans", **ours}),
    (f"cosine, Moran's R over the section ({n_perms} permutations), its own consensus pairs", n_perms,
     {**both, "resource_name": "consensus"}),
)  # fmt: skip
rows = []
for statistic, permutations, options in CASES:
    first, _, n_pairs = timed(min(permutations, 2), options)
    runs = sorted(timed(permutations, options)[:2] for _ in range(repeats))
    seconds, cpu = runs[repeats // 2]
    rows.append({"statistic": statistic, "pairs": n_pairs, "first": first, "seconds": seconds, "cpu seconds": cpu})
found = {"rows": rows, "version": version("liana")}
Path(sys.argv[3]).write_text(json.dumps(found))
