"""The tasks: each fetches arrays, calls kernels, writes under ``key_added``, and returns a small frozen result."""

from smeld.tl._contiguity import Contiguity, contiguity
from smeld.tl._domains import Domains, domains
from smeld.tl._markers import markers
from smeld.tl._pieces import Pieces, pieces
from smeld.tl._quality import QualityControl, quality_control

__all__ = [
    "Contiguity",
    "Domains",
    "Pieces",
    "QualityControl",
    "contiguity",
    "domains",
    "markers",
    "pieces",
    "quality_control",
]
