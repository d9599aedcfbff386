"""UNI2-h: ViT-H/14 trained on 350,000 slides in two stains.

681M parameters, eight register tokens. Weights ``MahmoodLab/UNI2-h`` (timm), CC-BY-NC-ND 4.0 for academic use, behind
a login that an institution's address is needed for. The features are the class token; ImageNet's means and spreads.
The repository has held pickled weights: see docs/morphology.md for how to convert them once.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "uni2_h",
    license="CC-BY-NC-ND-4.0",
    gated=True,
    um_per_px=0.5,
    tile_px=224,
    dim=1536,
    repo="MahmoodLab/UNI2-h",
    architecture="vit_giant_patch14_224",
    arguments={
        "img_size": 224,
        "patch_size": 14,
        "depth": 24,
        "num_heads": 24,
        "init_values": 1e-5,
        "embed_dim": 1536,
        "mlp_ratio": 2.66667 * 2,
        "no_embed_class": True,
        "mlp_layer": "timm.layers.SwiGLUPacked",
        "act_layer": "torch.nn.SiLU",
        "reg_tokens": 8,
        "dynamic_img_size": True,
    },
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    prepare=prepare,
    cite="Chen et al. 2024, doi:10.1038/s41591-024-02857-3",
)
def uni2_h(spec: TileSpec) -> Encoder:
    """UNI2-h, ViT-H/14 trained on 350,000 slides: 1,536 features, for academic use behind a login."""
    return encoder(spec, "uni2_h")
