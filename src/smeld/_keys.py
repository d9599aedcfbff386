"""Every key name smeld reads or writes in an AnnData, and the provenance record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

# obsm
SPATIAL = "spatial"  # as delivered, never touched
SPATIAL_UM = "spatial_um"  # guaranteed, micrometres, float64 [n_obs, 2], x then y (y downwards, as in images)
PCA = "X_pca"
LOADINGS = "PCs"  # in varm, scanpy's name
TYPE_PCA = "X_types"  # components for cell types, not chosen for space
TYPE_LOADINGS = "types_loadings"  # in varm
MORPH_PREFIX = "morph_"  # + encoder
FUSED_PREFIX = "fused_"  # + method
SD_PREFIX = "sd_"  # + the embedding whose posterior standard deviation it is
# obsp
CONNECTIVITIES = "spatial_connectivities"
DISTANCES = "spatial_distances"
SME_WEIGHTS = "sme_weights"
# layers
SME = "sme"
# obs
DOMAIN = "domain"
CELL_TYPE = "cell_type"
UNKNOWN = "unknown"  # its label of cells of a type that the reference lacks
N_NUCLEI = "n_nuclei"  # nuclei counted under a spot
PIECE = "domain_piece"
PSEUDOTIME = "pseudotime"
CONFIDENCE_SUFFIX = "_confidence"
PROB_SUFFIX = "_prob"
# uns
RECORD = "smeld"
IMAGES = "spatial"
MARKERS = "domain_markers"
INTERACTIONS = "interactions"
INTERACTIONS_QQ = "interactions_qq"  # p-values of pairs, surrogates and decoys, as quantiles
CELLTYPE_INTERACTIONS = "celltype_interactions"
TRANSITION_GENES = "transition_genes"
WARNINGS = "warnings"
OUTLINES = "cell_outlines"  # {"xy_um" float32 [n_vertices, 2], "start" int64 [n_obs + 1]}
NUCLEI = "nucleus_outlines"

# uns["spatial"][library]["metadata"]: smeld's own facts about a section, beside scanpy's scale factors
META_PLATFORM = "platform"
META_UM_PER_UNIT = "um_per_unit"  # micrometres per unit of obsm["spatial"]
META_SPOT_UM = "spot_diameter_um"
META_IMAGE_PATH = "image_path"  # image file that is read tile by tile, where there is one
META_IMAGE_SCALE = "image_scale"  # pixels of that file per unit of obsm["spatial"]
META_IMAGE_AFFINE = "image_affine"  # [2, 3]: (x, y, 1) in units of obsm["spatial"] to pixels of that file (x, y)
META_MAX_MEGAPIXELS = "max_megapixels"  # pixel limit the user accepted for that file


#: facts that a part of the package adds to the parameters of every record, by the function that writes it
ALSO: list[Callable[[str], Mapping[str, Any]]] = []


def _storable(value: Any) -> Any:
    """A value that h5ad and zarr can hold: None becomes the word 'none', tuples become lists."""
    if value is None:
        return "none"
    if isinstance(value, bool | int | float | str | np.generic):
        return value
    if isinstance(value, Mapping):
        return {str(k): _storable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return np.asarray([str(v) for v in value], dtype=object) if len(value) else "none"
    return str(value)


def record(
    adata: AnnData,
    key: str,
    *,
    function: str,
    params: Mapping[str, Any],
    seed: int | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> None:
    """Write ``uns["smeld"][key] = {function, params, seed, version, inputs}``: what made ``key``, and from what."""
    from smeld import __version__

    store = adata.uns.setdefault(RECORD, {})
    added = {name: value for facts in ALSO for name, value in facts(function).items()}
    store[key] = {
        "function": function,
        "params": _storable({**params, **added}),
        "seed": _storable(seed),
        "version": __version__,
        "inputs": _storable(dict(inputs or {})),
    }


def keep_warning(adata: AnnData, message: str) -> None:
    """Append a warning to ``uns["smeld"]["warnings"]`` once."""
    store = adata.uns.setdefault(RECORD, {})
    kept = [str(m) for m in store.get(WARNINGS, [])]
    if message not in kept:
        store[WARNINGS] = np.asarray([*kept, message], dtype=object)


def kept_warnings(adata: AnnData) -> list[str]:
    """The warnings collected so far, oldest first."""
    return [str(m) for m in adata.uns.get(RECORD, {}).get(WARNINGS, [])]
