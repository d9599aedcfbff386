"""What an encoder is, and the registry of them.

An encoder is one file in this folder (or an entry point of the group ``smeld.encoders``)::

    from smeld.morph import TileSpec, encoders

    @encoders.add("uni2", license="CC-BY-NC-ND-4.0", gated=True, um_per_px=0.5, tile_px=224, dim=1536)
    def uni2(spec: TileSpec):
        '''UNI2-h, a vision transformer pretrained on 350k slides (Chen et al. 2024).'''
        model = ...                                # heavy imports and weights here, on first use
        def encode(tiles):                         # uint8 [n, 224, 224, 3]
            ...                                    # the one place where pixels are scaled
            return features                        # float32 [n, 1536]
        return encode

Facts on the card: ``license`` and ``gated`` (weights behind a login); ``um_per_px`` and ``tile_px``, the size
the encoder was made for, or both None for an encoder that takes the image's own resolution; then
``finest_um_per_px`` says at which pixel size more detail stops helping, and finer images are reduced to about
that. ``dim`` is the number of features, None where it depends on the resolution. ``context`` (default
``(1.0,)``) lists sides of the tiles relative to the first: ``(1.0, 3.0)`` adds features of the surroundings,
by the same encoder. ``prepare(name, options)`` is asked before any tile is cut: it raises where weights are missing,
and returns facts that only the weights' own configuration tells (``tile_px``, say).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smeld._registry import Registry

#: uint8 [n, H, W, 3] -> float32 [n, dim]
Encode = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Section:
    """What an encoder may know of the whole section: its colours, for encoders that adjust to the staining.

    ``background`` uint8 [3] is the colour of the empty slide; ``colours`` int64 [64**3] the pixels per colour
    in the tiles (``kernels.stain.colour_counts``). Both are the same in whatever order or orientation the
    spots come.
    """

    background: NDArray[np.uint8]
    colours: NDArray[np.int64]


@dataclass(frozen=True)
class Options:
    """What the user may say to an encoder; each takes what concerns it.

    ``weights``: folder or file of the weights, None for the places where they are looked for; ``download``: the
    network may be used to get them; ``autocast``: half precision where the device gains by it; ``seed`` of what is
    random; ``cache``: folder in which finished work is kept, to go on from after an interruption.
    """

    weights: Path | None = None
    download: bool = False
    autocast: bool = False
    seed: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class TileSpec:
    """The tiles an encoder is going to get: ``tile_px`` pixels of ``um_per_px`` micrometres a side.

    ``device`` is "auto", "cpu", "cuda" ...: for the encoder to resolve, and to ignore where it has no use for
    it. ``section`` is None where nothing is known of the whole section (as when tiles come from elsewhere);
    ``sample(n)`` gives at most n tiles of it, spread evenly, for encoders that learn from the section.
    """

    tile_px: int
    um_per_px: float
    device: str = "auto"
    section: Section | None = None
    options: Options = Options()
    sample: Callable[[int], NDArray[np.uint8]] | None = None

    @property
    def tile_um(self) -> float:
        """Side of the tile in micrometres."""
        return self.tile_px * self.um_per_px


@dataclass(frozen=True)
class Encoder:
    """An encoder whose features have names; ``left_out`` says what this resolution cannot support.

    ``fingerprint()`` stands for everything that the features of a tile depend on besides the tile; encoders that have
    one are slow enough for tiles to be read ahead and finished batches to be kept in ``Options.cache``.
    A factory may also return a bare function; its features are then called ``<encoder>_0`` and so on.
    """

    encode: Encode
    names: tuple[str, ...]
    left_out: str = ""
    fingerprint: Callable[[], str] | None = None

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.encode(tiles)


#: a factory: what tiles there will be -> what encodes them
Factory = Callable[[TileSpec], Encode | Encoder]


def slug(name: str) -> str:
    """An encoder's name as part of a key: ``timm:resnet18.a1_in1k`` becomes ``timm_resnet18_a1_in1k``.

    Of a local folder only its own name is taken: keys do not depend on where things lie.
    """
    prefix, colon, rest = name.partition(":")
    if colon and (rest.startswith((".", "/", "~")) or Path(rest).is_absolute()):
        rest = Path(rest).name
    return re.sub(r"[^A-Za-z0-9]+", "_", f"{prefix}{colon}{rest}").strip("_")


encoders: Registry[Factory] = Registry("encoder", "smeld.morph", "smeld.encoders")
