"""Square bins tile the tissue on a map: no gap, no overlap, turned as the slide lies."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import smeld as sm
from smeld import _keys

mpl.use("Agg")


def bins(angle: float, n: int = 12, side: float = 8.0, platform: str = "visium_hd") -> AnnData:
    row, col = (a.ravel() for a in np.mgrid[:n, :n])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    xy = (np.column_stack([col, row]) + 0.5) * side @ turn
    adata = AnnData(np.ones((n * n, 2), dtype=np.float32))
    adata.obs = pd.DataFrame({"array_row": row, "array_col": col}, index=adata.obs_names)
    adata.obs["domain"] = pd.Categorical((row % 2 + 2 * (col % 2)).astype(str))
    adata.obsm["spatial"] = adata.obsm["spatial_um"] = xy
    meta = {_keys.META_PLATFORM: platform, _keys.META_UM_PER_UNIT: 1.0, _keys.META_SPOT_UM: side}
    adata.uns["spatial"] = {"s": {"images": {}, "scalefactors": {}, "metadata": meta}}
    return adata


def drawn(adata: AnnData) -> tuple[np.ndarray, np.ndarray]:
    """(pixels [H, W, 3] of a map, positions of the bins in them)."""
    ax = sm.pl.domains(adata)
    ax.figure.canvas.draw()
    pixels = np.asarray(ax.figure.canvas.buffer_rgba())[..., :3]
    xy = ax.transData.transform(adata.obsm["spatial_um"])
    return pixels, np.column_stack([xy[:, 0], pixels.shape[0] - xy[:, 1]])


@pytest.mark.parametrize("angle", [0.0, 0.03, 0.5, np.pi / 2])
def test_bins_tile_without_gap_or_overlap(angle: float) -> None:
    adata = bins(angle)
    pixels, at = drawn(adata)
    side = np.linalg.norm(at[1] - at[0])
    white = (pixels > 250).all(axis=2)
    # between neighbours in every direction no white pixel
    for a, b in ((0, 143), (11, 132), (0, 132), (60, 71)):
        line = np.linspace(at[a], at[b], 400).astype(int)
        assert not white[line[:, 1], line[:, 0]].any()
    # of its own square each bin keeps all: nothing covers it
    colours = [pixels[y, x] for x, y in at.astype(int)]
    along, across = at[1] - at[0], at[12] - at[0]
    for i in np.flatnonzero((adata.obs["array_row"] % 5 == 1).to_numpy()):
        for du, dv in ((-0.42, -0.42), (0.42, -0.42), (0.42, 0.42), (-0.42, 0.42)):
            x, y = (at[i] + du * along + dv * across).astype(int)
            assert np.abs(pixels[y, x].astype(int) - colours[i]).max() < 30
    n_coloured = (np.ptp(pixels.astype(int), axis=2) > 40).sum()  # and the legend's dots
    assert n_coloured == pytest.approx(144 * side**2, rel=0.03)


def test_spots_of_other_platforms_stay_discs() -> None:
    pixels, at = drawn(bins(0.0, platform="visium"))
    x, y = ((at[0] + at[13]) / 2).astype(int)
    assert (pixels[y, x] > 250).all()
