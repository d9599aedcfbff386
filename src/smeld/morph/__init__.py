"""Morphology: what the tissue looks like around each spot or cell.

``embed`` cuts tiles from the image and writes one row of features per spot; ``encoders`` holds the encoders
by name, one file each in this folder (files that begin with ``_`` are machinery).
"""

from __future__ import annotations

from smeld.morph._embed import Morphology, embed
from smeld.morph._encoders import Encoder, Options, Section, TileSpec, encoders

__all__ = ["Encoder", "Morphology", "Options", "Section", "TileSpec", "embed", "encoders"]
