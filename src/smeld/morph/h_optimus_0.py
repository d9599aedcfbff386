"""H-optimus-0: ViT-g/14 trained on half a million slides.

1.1 billion parameters, four register tokens. Weights ``bioptimus/H-optimus-0`` (timm), Apache-2.0; the conditions on
the hub must be accepted. Made for 224 pixels of 0.5 um, with means and spreads of its own; the features are the class
token. The repository has held pickled weights: see docs/morphology.md for how to convert them once.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "h_optimus_0",
    license="Apache-2.0",
    gated=True,
    um_per_px=0.5,
    tile_px=224,
    dim=1536,
    repo="bioptimus/H-optimus-0",
    architecture="vit_giant_patch14_reg4_dinov2",
    arguments={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False},
    mean=(0.707223, 0.578729, 0.703617),
    std=(0.211883, 0.230117, 0.177517),
    prepare=prepare,
    cite="Saillard et al. 2024, H-optimus-0, github.com/bioptimus/releases",
)
def h_optimus_0(spec: TileSpec) -> Encoder:
    """H-optimus-0, ViT-g/14 trained on 500,000 slides: 1,536 features, Apache-2.0 behind a login."""
    return encoder(spec, "h_optimus_0")
