"""Virchow2: ViT-H/14 trained on 3.1 million slides at several magnifications.

632M parameters, four register tokens, which take no part. Weights ``paige-ai/Virchow2`` (timm, safetensors),
CC-BY-NC-ND 4.0, behind a login that an institution's address is needed for. The features are the class token beside
the mean of the patch tokens; ImageNet's means and spreads.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "virchow2",
    license="CC-BY-NC-ND-4.0",
    gated=True,
    um_per_px=0.5,
    tile_px=224,
    dim=2560,
    repo="paige-ai/Virchow2",
    architecture="vit_huge_patch14_224",
    arguments={
        "img_size": 224,
        "init_values": 1e-5,
        "mlp_ratio": 5.3375,
        "reg_tokens": 4,
        "global_pool": "",
        "mlp_layer": "timm.layers.SwiGLUPacked",
        "act_layer": "torch.nn.SiLU",
    },
    pool="cls+mean",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    prepare=prepare,
    cite="Zimmermann et al. 2024, arXiv:2408.00738",
)
def virchow2(spec: TileSpec) -> Encoder:
    """Virchow2, ViT-H/14 trained on 3.1 million slides: 2,560 features, not for commerce, behind a login."""
    return encoder(spec, "virchow2")
