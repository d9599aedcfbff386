"""``python peer_stlearn_lr.py SECTION.npz ASKED.json OUT.npz``: stLearn's ligand-receptor test of some pairs.

The section's values are log-normalised already. ASKED: ``pairs`` as [ligand, receptor], ``distance_um`` that makes
neighbours, ``n_null``, ``threads``. A pair takes the time from the start of its background to the next pair's, the
faster of two runs: what stLearn prepares for all pairs is not in it; of the pairs the median. A run of two pairs
before compiles what it compiles.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import _peer
import _stlearn
import numpy as np

warnings.simplefilter("ignore")
st = _stlearn.load()
permutation = sys.modules["stlearn.tl.cci.permutation"]
background, starts = permutation.get_lr_bg, []
asked = json.loads(Path(sys.argv[2]).read_text())
names = [f"{ligand}_{receptor}" for ligand, receptor in asked["pairs"]]
whole = _peer.load(Path(sys.argv[1]))
whole.obs["imagecol"], whole.obs["imagerow"] = np.asarray(whole.obsm["spatial"]).T


def timed(*args: Any, **options: Any) -> Any:
    starts.append(time.perf_counter())
    return background(*args, **options)


def run(pairs: list[str]) -> tuple[Any, float]:
    adata = whole.copy()
    starts.clear()
    started = time.perf_counter()
    st.tl.cci.run(
        adata,
        np.array(pairs),
        distance=asked["distance_um"],
        n_pairs=asked["n_null"],
        n_cpus=asked["threads"],
        verbose=False,
    )
    return adata, time.perf_counter() - started


permutation.get_lr_bg = timed
run(names[:2])
runs = []
for _ in range(2):
    adata, seconds = run(names)
    runs.append((seconds, np.diff(starts)))
tested = list(adata.uns["lr_summary"].index)
np.savez(
    sys.argv[3],
    pairs=[names.index(name) for name in tested],
    score=adata.obsm["lr_scores"],
    pvalue=adata.obsm["p_vals"],
    seconds=min(seconds for seconds, _ in runs),
    seconds_a_pair=np.median(np.min([each for _, each in runs], axis=0)),
    version=st.__version__,
)
