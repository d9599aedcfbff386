"""The ``self`` encoder: a small CNN that learns from the section's own tiles; no weights, no download.

Learns on up to 4,000 tiles by self-supervision (``smeld.nn._self``: VICReg with stain augmentation), then gives 128
features a tile, averaged over the tile's eight turns and mirror images. Features have no meaning by themselves, and
those of two sections can not be compared unless they were embedded together.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _check, nn
from smeld.kernels import stain
from smeld.morph._encoders import Encoder, Options, TileSpec, encoders
from smeld.morph._pretrained import INSTEAD

NAME = "self"
#: tiles that are learnt from, and the fewest
MOST, LEAST = 4000, 4


def _prepare(name: str, options: Options) -> dict[str, Any]:
    nn.require(f"encoder {name!r}", "torch", "safetensors", instead=INSTEAD)
    return {}


@encoders.add(
    NAME,
    license="BSD-3-Clause",
    gated=False,
    um_per_px=1.75,
    tile_px=64,
    dim=128,
    prepare=_prepare,
    random=True,
    cite="Bardes, Ponce & LeCun 2022, arXiv:2105.04906; Tellez et al. 2019, arXiv:1902.06543",
)
def self_supervised(spec: TileSpec) -> Encoder:
    """A small CNN that learns from the section's own tiles: 128 features, no weights to fetch."""
    _prepare(NAME, spec.options)
    if spec.sample is None or spec.section is None:
        raise _check.problem(
            f"encoder {NAME!r} learns from a section",
            found="no tiles to learn from (TileSpec.sample and TileSpec.section)",
            cure="call sm.morph.embed, or another encoder",
        )
    from smeld.nn import _encoder, _self

    stains = stain.estimate(spec.section.colours, spec.section.background)

    def maps(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack(stain.separate(tiles, stains), axis=1) / np.float32(stains.dark)

    shown = spec.sample(MOST)
    if len(shown) < LEAST:
        raise _check.problem(
            f"encoder {NAME!r} needs at least {LEAST} tiles", found=f"{len(shown)}", cure="use encoder 'texture'"
        )
    options = spec.options
    folder = None
    if options.cache is not None:
        folder = options.cache / f"self-{_key(shown, spec)}"
    model = _self.train(maps(shown), seed=options.seed, device=spec.device, folder=folder)

    def encode(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        return _self.features(model, maps(tiles))

    names = tuple(f"{NAME}_{i}" for i in range(_self.DIM))
    return Encoder(encode, names, fingerprint=lambda: _encoder.fingerprint(model, _key(shown, spec)))


def _key(shown: NDArray[np.uint8], spec: TileSpec) -> str:
    """What training depends on, in a word."""
    facts = (shown.shape, spec.tile_px, spec.um_per_px, spec.options.seed)
    found = hashlib.sha256(repr(facts).encode())
    if spec.section is not None:
        found.update(spec.section.colours.tobytes() + spec.section.background.tobytes())
    found.update(np.ascontiguousarray(shown).data)
    return found.hexdigest()[:24]
