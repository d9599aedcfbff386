"""Lunit's ViT-S/8: the smallest network here that was trained on histology.

Self-supervised (DINO) on 33 million tiles of TCGA and other slides at 20x and 40x; 22M parameters. Weights
``1aurent/vit_small_patch8_224.lunit_dino`` (timm's form, safetensors) under Lunit's licence for research, not for
commerce. Means and spreads are those of its training tiles.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "lunit_vit_s8",
    license="Lunit non-commercial",
    gated=False,
    um_per_px=0.5,
    tile_px=224,
    dim=384,
    repo="1aurent/vit_small_patch8_224.lunit_dino",
    architecture="vit_small_patch8_224",
    mean=(0.70322989, 0.53606487, 0.66096631),
    std=(0.21716536, 0.26081574, 0.20723464),
    prepare=prepare,
    cite="Kang et al. 2023, arXiv:2212.04690",
)
def lunit_vit_s8(spec: TileSpec) -> Encoder:
    """Lunit's ViT-S/8 trained on histology (DINO): 384 features, small and open for research."""
    return encoder(spec, "lunit_vit_s8")
