"""Any network by name: ``timm:NAME`` and ``hf:REPOSITORY`` or ``hf:FOLDER``.

Tiles have the side that the network's own configuration asks for, at 0.5 um per pixel (what networks trained on
histology were shown; ``tile_um`` for another), and its own means and spreads. Models of transformers give their class
token, others their own pooling. Code that lies in a repository is never run.
"""

from __future__ import annotations

from smeld.morph._encoders import Encoder, Factory, TileSpec, encoders
from smeld.morph._pretrained import encoder, prepare


@encoders.add_family(
    "timm", license="see the network's card", gated=False, um_per_px=None, tile_px=None, dim=None, prepare=prepare
)
def timm(name: str) -> Factory:
    """A network of timm (PyTorch image models) by its name."""

    def made(spec: TileSpec) -> Encoder:
        """A network of timm (PyTorch image models) by its name."""
        return encoder(spec, f"timm:{name}")

    return made


@encoders.add_family(
    "hf", license="see the repository", gated=False, um_per_px=None, tile_px=None, dim=None, prepare=prepare
)
def hf(name: str) -> Factory:
    """A network of the hub by its repository, or of a local folder in the hub's form."""

    def made(spec: TileSpec) -> Encoder:
        """A network of the hub by its repository, or of a local folder in the hub's form."""
        return encoder(spec, f"hf:{name}")

    return made
