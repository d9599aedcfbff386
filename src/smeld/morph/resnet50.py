"""ResNet50 trained on ImageNet's photographs: what stLearn takes morphology from, as a baseline.

Weights ``timm/resnet50.a1_in1k`` (Wightman et al. 2021), Apache-2.0, 25.6M parameters. Made for photographs, it has no
resolution of its own; 0.5 um per pixel and 224 pixels are what HEST-Benchmark measured it with.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add(
    "resnet50",
    license="Apache-2.0",
    gated=False,
    um_per_px=0.5,
    tile_px=224,
    dim=2048,
    repo="timm/resnet50.a1_in1k",
    architecture="resnet50",
    prepare=prepare,
    cite="He et al. 2016, doi:10.1109/CVPR.2016.90; Wightman et al. 2021, arXiv:2110.00476",
)
def resnet50(spec: TileSpec) -> Encoder:
    """ResNet50 trained on ImageNet: 2,048 features, a baseline that knows no histology."""
    return encoder(spec, "resnet50")
