"""Made-up sections for the tests of morphology: an H&E-like image with nuclei, and spots on it."""

from __future__ import annotations

import anndata as ad
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

H = np.array([0.65, 0.70, 0.29])
E = np.array([0.07, 0.99, 0.11])


def he_image(height: int = 240, width: int = 240, *, um_per_px: float = 1.0, seed: int = 0) -> NDArray[np.uint8]:
    """Eosin all over, dark round nuclei, twice as many per area in the left half; a white corner."""
    rng = np.random.default_rng(seed)
    haematoxylin = np.zeros((height, width))
    rows, cols = np.mgrid[:height, :width]
    for _ in range(int(height * width * um_per_px**2 / 200)):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        if x > width / 2 and rng.random() < 0.5:
            continue
        radius = rng.uniform(2.5, 3.5) / um_per_px
        near = (slice(max(int(y - 9), 0), int(y + 10)), slice(max(int(x - 9), 0), int(x + 10)))
        haematoxylin[near] += (rows[near] - y) ** 2 + (cols[near] - x) ** 2 < radius**2
    haematoxylin = ndimage.gaussian_filter(np.minimum(haematoxylin, 1), 0.7)
    eosin = 0.35 + 0.1 * ndimage.gaussian_filter(rng.normal(size=(height, width)), 4) * 8
    density = haematoxylin[..., None] * H * 1.1 + np.clip(eosin, 0, 1)[..., None] * E
    image = 245 * 10**-density + rng.normal(0, 2, (height, width, 3))
    image[: height // 8, : width // 8] = 245
    return np.clip(image.round(), 0, 255).astype(np.uint8)


def section(
    image: NDArray[np.uint8],
    xy_px: NDArray[np.float64],
    *,
    um_per_px: float = 1.0,
    px_per_unit: float = 1.0,
    spot_um: float | None = 15.0,
) -> ad.AnnData:
    """Spots at pixel positions of the image, with coordinates in units of ``px_per_unit`` pixels."""
    adata = ad.AnnData(np.ones((len(xy_px), 2), dtype=np.float32))
    adata.obs_names = [f"spot{i:03d}" for i in range(len(xy_px))]
    adata.obsm["spatial"] = np.asarray(xy_px, dtype=np.float64) / px_per_unit
    adata.obsm["spatial_um"] = np.asarray(xy_px, dtype=np.float64) * um_per_px
    meta: dict[str, object] = {"um_per_unit": um_per_px * px_per_unit}
    if spot_um is not None:
        meta["spot_diameter_um"] = spot_um
    adata.uns["spatial"] = {
        "s": {
            "images": {"hires": image},
            "scalefactors": {"tissue_hires_scalef": px_per_unit, "spot_diameter_fullres": 15.0},
            "metadata": meta,
        }
    }
    return adata


def spots(n: int, height: int, width: int, *, margin: float = 30.0, seed: int = 1) -> NDArray[np.float64]:
    """Random positions (x, y) in pixels, away from the image's edge."""
    rng = np.random.default_rng(seed)
    return rng.uniform(margin, [width - margin, height - margin], (n, 2))
