"""MobileNet v1 trained on ImageNet's photographs: small enough for any machine.

Reads Google's weights as an ``.npz`` of arrays under Keras's names (``weights=FILE`` or ``$SMELD_WEIGHTS/mobilenet_v1``
with one such file); 0.75 of the full width has 768 features and 2.6M parameters. Pixels are scaled to -1..1. Made for
photographs, it has no resolution of its own; 0.5 um per pixel as for the others.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from smeld import _check, nn
from smeld.morph._encoders import Encoder, Options, TileSpec, encoders
from smeld.morph._pretrained import INSTEAD, of_network


def _weights(name: str, options: Options) -> Path:
    from smeld.nn._encoder_weights import FOLDER_VARIABLE, WITHOUT

    collection = os.environ.get(FOLDER_VARIABLE)
    found = options.weights or (Path(collection).expanduser() / name if collection else None)
    if found is None or not found.exists():
        raise _check.problem(
            f"the weights of encoder {name!r} are not here",
            found=f"no {found.name}" if found is not None else f"${FOLDER_VARIABLE} not set",
            cure=f"give the .npz file as weights=, or put it into ${FOLDER_VARIABLE}/{name}; {WITHOUT}",
        )
    return found


def _prepare(name: str, options: Options) -> dict[str, Any]:
    nn.require(f"encoder {name!r}", "torch", "safetensors", instead=INSTEAD)
    _weights(name, options)
    return {}


@encoders.add(
    "mobilenet_v1",
    license="Apache-2.0",
    gated=False,
    um_per_px=0.5,
    tile_px=224,
    dim=None,
    prepare=_prepare,
    cite="Howard et al. 2017, arXiv:1704.04861",
)
def mobilenet_v1(spec: TileSpec) -> Encoder:
    """MobileNet v1 trained on ImageNet: 768 features at 0.75 of the width, quick on any machine."""
    _prepare("mobilenet_v1", spec.options)
    from smeld.nn import _encoder_mobilenet

    network = _encoder_mobilenet.load(_weights("mobilenet_v1", spec.options))
    return of_network(network, spec, "mobilenet_v1", encoders["mobilenet_v1"].facts)
