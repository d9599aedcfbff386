"""Midnight-12k: the strongest network here whose licence allows everything.

ViT-g/14 trained on the 12,000 slides of TCGA (DINOv2, refined); 1.1 billion parameters. Weights ``kaiko-ai/midnight``
(transformers, safetensors), MIT. The features are the class token beside the mean of the patch tokens; means and
spreads are one half.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "midnight_12k",
    license="MIT",
    gated=False,
    um_per_px=0.5,
    tile_px=224,
    dim=3072,
    repo="kaiko-ai/midnight",
    pool="cls+mean",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    prepare=prepare,
    cite="Karasikov et al. 2025, arXiv:2504.05186",
)
def midnight_12k(spec: TileSpec) -> Encoder:
    """Midnight-12k, ViT-g/14 trained on TCGA: 3,072 features, free for every use."""
    return encoder(spec, "midnight_12k")
