"""Morphology: what the tissue looks like around each spot or cell.

``embed`` cuts tiles from the image and writes one row of features per spot; ``nuclei`` counts what nuclei lie under it;
``encoders`` holds the encoders by name, one file each in this folder (files that begin with ``_`` are machinery).
"""

from __future__ import annotations

from smeld.morph._embed import Morphology, embed
from smeld.morph._encoders import Encoder, Options, Section, TileSpec, encoders
from smeld.morph._nuclei import Nuclei, nuclei

__all__ = ["Encoder", "Morphology", "Nuclei", "Options", "Section", "TileSpec", "embed", "encoders", "nuclei"]
