"""Units that a platform's own software notes in an .h5ad: stereopy's (Stereo-seq) and spacemake's (Open-ST)."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import _make_cells_c as make
import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import smeld as sm
from smeld import _adapt, _keys

SEC = make.truth(5)
TILE = {"width_um": 1200, "spot_diameter_um": 0.6, "coord_by_um": 12.0}
#: what lies in uns, a column of obs, and micrometres per unit (None: not known)
NOTED: dict[str, tuple[dict[str, Any], str | None, float | None]] = {
    "stereopy, bins": ({"bin_type": "bins", "bin_size": 50, "resolution": 500}, None, 0.5),
    "stereopy, cells": ({"bin_type": "cell_bins", "bin_size": 1, "resolution": np.array([500])}, None, 0.5),
    "stereopy without a pitch": ({"bin_type": "bins"}, None, None),
    "spacemake": ({"puck_variables": TILE}, None, 1 / 12),
    "openst, stitched tiles": ({"L2a_tile_2143": {"puck_variables": TILE}, "x": 1}, "tile_id", 1 / 12),
    "openst, cells in pixels": ({"L2a_tile_2143": {"puck_variables": TILE}}, "cell_ID", None),
    "a resolution of another kind": ({"resolution": 1.0}, None, None),
    "words": ({"puck_variables": {"coord_by_um": "?"}}, None, None),
}


@pytest.mark.parametrize("name", NOTED)
def test_units_that_are_noted(tmp_path: Path, name: str) -> None:
    uns, column, um = NOTED[name]
    obs = pd.DataFrame({} if column is None else {column: "a"}, index=SEC.names)
    adata = anndata.AnnData(sparse.csr_matrix(SEC.counts.astype(np.float32)), obs=obs, obsm={"spatial": SEC.um})
    adata.uns.update(uns)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sm.read(tmp_path / "a.h5ad")
    assert _adapt.metadata(found)[_keys.META_UM_PER_UNIT] == pytest.approx(um or 1.0)
    assert any("unit of the coordinates" in text for text in _keys.kept_warnings(found)) == (um is None)
