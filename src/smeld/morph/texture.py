"""The ``texture`` encoder: named, interpretable features of H&E tiles; no weights, no torch.

Stains are separated (``kernels.stain``), then summarised over the disk inscribed in the tile, so that turning
the section changes nothing. Which features there are depends on the size of a pixel:

- always: mean, standard deviation, 10th and 90th percentile of haematoxylin and eosin (optical density),
  share of haematoxylin, saturation, tissue fraction (spread and percentiles need 9 pixels in the disk)
- pixels up to 1.75 um: nuclei per mm2 (peaks of the Laplacian of Gaussian of haematoxylin), their mean area
  and density of haematoxylin; pixels up to 4 um: share of the area that is nuclear
- texture at two scales s of the ladder 4, 12, 36, 108 um, the finest of at least two pixels and the next,
  where the tile is at least 4 s wide: gradient (OD per um) and standard deviation of haematoxylin and eosin
  after a Gaussian of s/2, contrast, homogeneity and entropy of haematoxylin at lag s (Haralick et al. 1973),
  coherence of orientation
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smeld.kernels import nuclei, stain
from smeld.kernels import texture as tx
from smeld.morph._encoders import Encoder, TileSpec, encoders

Maps = NDArray[np.float32]
Columns = dict[str, NDArray[np.float64]]

#: scales in micrometres; each is 3 times the one before, so that it is the same filter on maps reduced by 3
LADDER_UM = (4.0, 12.0, 36.0, 108.0)
#: a scale needs pixels of at most half, and tiles of at least four times, its size
PX_PER_SCALE, SCALES_PER_TILE = 2.0, 4.0
#: nuclei still darken single pixels at this size
NUCLEAR_AREA_UM_PER_PX = 4.0
#: blur before peaks are sought, the same for all: a feature of tiles, while ``sm.morph.nuclei`` counts at several sizes
NUCLEUS_SIGMA_UM = nuclei.SIGMAS_UM[0]
#: the blur leaves about this share of a small nucleus's density at its peak
PEAK_SHARE = 0.7
#: peaks need this share of the section's dark haematoxylin as scale-normalised curvature
SHARPNESS = 0.05
#: weight of one nucleus of this area (8 um across) joins each tile's mean, so that tiles with no nucleus have
#: one
TYPICAL_NUCLEUS_UM2 = 50.0
#: smallest disk for which spread and percentiles are given
MIN_PIXELS = 9
#: tiles are worked through in blocks of about this many pixels, which stay in the processor's cache
BLOCK_PX = 1 << 18


@encoders.add(
    "texture",
    license="BSD-3-Clause",
    gated=False,
    um_per_px=None,
    tile_px=None,
    finest_um_per_px=1.0,
    context=(1.0, 3.0),
    dim=None,
    cite="Ruifrok & Johnston 2001; Macenko et al. 2009; Haralick et al. 1973; Lindeberg 1998",
)
def texture(spec: TileSpec) -> Encoder:
    """Stains, nuclei and texture of H&E at the image's own resolution; needs no weights."""
    section = spec.section
    stains = stain.estimate(
        None if section is None else section.colours,
        np.full(3, 255, np.uint8) if section is None else section.background,
    )
    blank = np.full((1, spec.tile_px, spec.tile_px, 3), 255, dtype=np.uint8)
    names = tuple(_features(blank, spec, stains))

    def encode(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        block = max(1, BLOCK_PX // spec.tile_px**2)
        parts = [_features(tiles[i : i + block], spec, stains) for i in range(0, len(tiles), block)]
        rows = [np.stack(list(part.values()), axis=1).astype(np.float32) for part in parts]
        return np.concatenate(rows) if rows else np.empty((0, len(names)), dtype=np.float32)

    return Encoder(encode, names, _left_out(spec))


def scales_um(spec: TileSpec) -> tuple[float, ...]:
    """The scales of texture, at most two, that pixels and tiles of these sizes support."""
    fine = [s for s in LADDER_UM if s >= PX_PER_SCALE * spec.um_per_px][:2]
    return tuple(s for s in fine if s * SCALES_PER_TILE <= spec.tile_um)


def _left_out(spec: TileSpec) -> str:
    """What this resolution cannot support, in words; empty where nothing is missing."""
    missing = []
    if len(tx.disk(spec.tile_px)) < MIN_PIXELS:
        missing.append("spread of intensity")
    if spec.um_per_px > NUCLEAR_AREA_UM_PER_PX:
        missing.append("nuclear area")
    if spec.um_per_px > nuclei.LARGEST_UM_PER_PX:
        missing.append("density and size of nuclei")
    if len(scales_um(spec)) < 2:
        missing.append("texture" if not scales_um(spec) else "texture at a second scale")
    return ", ".join(missing)


def _features(tiles: NDArray[np.uint8], spec: TileSpec, stains: stain.Stains) -> Columns:
    haematoxylin, eosin = stain.separate(tiles, stains)
    columns = _intensity(tiles, haematoxylin, eosin)
    if spec.um_per_px <= NUCLEAR_AREA_UM_PER_PX:
        nuclear = tx.pool(haematoxylin > stains.nuclear_threshold)
        columns["nuclear_fraction"] = tx.mean(nuclear)
    fine_um = next((s for s in LADDER_UM if s >= PX_PER_SCALE * spec.um_per_px), LADDER_UM[-1])
    um_per_px = spec.um_per_px
    for scale_um in scales_um(spec):
        if scale_um > fine_um:
            haematoxylin, eosin, um_per_px = tx.thirds(haematoxylin), tx.thirds(eosin), um_per_px * 3
        sigma_px = scale_um / 2 / um_per_px
        smooth_h, smooth_e = tx.smooth(haematoxylin, sigma_px), tx.smooth(eosin, sigma_px)
        if scale_um == LADDER_UM[0] and spec.um_per_px <= nuclei.LARGEST_UM_PER_PX:
            columns |= _nuclei(haematoxylin, smooth_h, um_per_px, stains)
        columns |= _texture(smooth_h, smooth_e, um_per_px, scale_um, stains)
    return columns


def _intensity(tiles: NDArray[np.uint8], haematoxylin: Maps, eosin: Maps) -> Columns:
    inside = tx.disk(tiles.shape[1])
    columns: Columns = {}
    for name, maps in (("haematoxylin", haematoxylin), ("eosin", eosin)):
        values = tx.pool(maps, inside)
        columns[f"{name}_mean"] = tx.mean(values)
        if len(inside) >= MIN_PIXELS:
            columns[f"{name}_sd"] = tx.sd(values)
            low, high = tx.percentiles(values, (10, 90)).T
            columns[f"{name}_p10"], columns[f"{name}_p90"] = low, high
    h, e = columns["haematoxylin_mean"], columns["eosin_mean"]
    columns["haematoxylin_share"] = (h + 0.005) / (h + e + 0.01)  # one half where there is neither
    red, green, blue = (tx.pool(tiles[..., channel], inside) for channel in range(3))
    most = np.maximum(np.maximum(red, green), blue)
    spread = most - np.minimum(np.minimum(red, green), blue)
    columns["saturation_mean"] = tx.mean(spread / np.maximum(most, 1).astype(np.float32))
    columns["tissue_fraction"] = tx.mean(tx.pool(haematoxylin + eosin > stain.EMPTY_OD, inside))
    return columns


def _nuclei(haematoxylin: Maps, smoothed: Maps, um_per_px: float, stains: stain.Stains) -> Columns:
    """Ratio estimates over the tile: nuclei cut by its edge then bias neither density nor area."""
    sigma_px = NUCLEUS_SIGMA_UM / um_per_px
    above, sharpness = PEAK_SHARE * stains.nuclear_threshold, SHARPNESS * stains.dark
    peaks = tx.blobs(smoothed, above=above, sigma_px=sigma_px, sharpness=sharpness)
    inside = tx.disk(peaks.shape[1])
    um2 = len(inside) * um_per_px**2
    count = tx.mean(tx.pool(peaks, inside)) * len(inside)
    values = tx.pool(haematoxylin[:, 2:-2, 2:-2], inside)
    dark = values > stains.nuclear_threshold
    share = tx.mean(dark)
    chromatin = tx.mean(values * dark)
    one_px = 1.0 / len(inside)
    return {
        "nuclear_density_per_mm2": count / um2 * 1e6,
        "nuclear_area_um2": (share * um2 + TYPICAL_NUCLEUS_UM2) / (count + 1),
        "nuclear_haematoxylin": (chromatin + one_px * stains.nuclear_threshold) / (share + one_px),
    }


def _texture(h: Maps, e: Maps, um_per_px: float, scale_um: float, stains: stain.Stains) -> Columns:
    scale = f"{scale_um:g}um"
    columns: Columns = {}
    for name, maps in (("haematoxylin", h), ("eosin", e)):
        columns[f"{name}_gradient_{scale}"] = tx.gradient_energy(maps) / um_per_px
        columns[f"{name}_sd_{scale}"] = tx.sd(tx.pool(maps))
    joint = tx.cooccurrence(h, top=stains.dark, lag_px=max(1, round(scale_um / um_per_px)))
    contrast, homogeneity, entropy = tx.haralick(joint)
    columns[f"haematoxylin_contrast_{scale}"] = contrast
    columns[f"haematoxylin_homogeneity_{scale}"] = homogeneity
    columns[f"haematoxylin_entropy_{scale}"] = entropy
    columns[f"orientation_coherence_{scale}"] = tx.coherence(h + e)
    return columns
