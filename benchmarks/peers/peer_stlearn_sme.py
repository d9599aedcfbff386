"""``python peer_stlearn_sme.py SECTION.npz OUT.json REPEATS``: seconds of stLearn's SME normalisation alone."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import _peer
import _stlearn

warnings.simplefilter("ignore")
st = _stlearn.load()
whole = _stlearn.prepare(_peer.load(Path(sys.argv[1])), seed=0)
st.pp.normalize_total(whole)
st.pp.log1p(whole)
started = time.perf_counter()
st.em.run_pca(whole, n_comps=50, random_state=0)
pca = time.perf_counter() - started
repeats = int(sys.argv[3])
seconds = []
for _ in range(repeats):
    adata = whole.copy()
    started = time.perf_counter()
    st.spatial.sme.sme_normalize(adata, use_data="raw", weights="weights_matrix_all")
    seconds.append(time.perf_counter() - started)
found = {"first": seconds[0], "pca": pca, "seconds": sorted(seconds)[repeats // 2], "version": st.__version__}
Path(sys.argv[2]).write_text(json.dumps(found))
