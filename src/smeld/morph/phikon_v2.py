"""Phikon-v2: ViT-L/16 trained on public histology, open for research.

Self-supervised (DINOv2) on 460 million tiles of TCGA, CPTAC, GTEx and other public slides at 20x; 303M parameters.
Weights ``owkin/phikon-v2`` (transformers, safetensors) under Owkin's non-commercial licence. The features are the
class token; pixels are scaled as its own image processor says.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "phikon_v2",
    license="Owkin non-commercial",
    gated=False,
    um_per_px=0.5,
    tile_px=224,
    dim=1024,
    repo="owkin/phikon-v2",
    pool="cls",
    prepare=prepare,
    cite="Filiot et al. 2024, arXiv:2409.09173",
)
def phikon_v2(spec: TileSpec) -> Encoder:
    """Phikon-v2, ViT-L/16 trained on public histology: 1,024 features, open for research."""
    return encoder(spec, "phikon_v2")
