"""Space, morphology and expression weighed into one graph and one embedding: ``fuse`` and the registry of methods."""

from smeld.fusion._fuse import fuse
from smeld.fusion._fusion import Fusion, fusions

__all__ = ["Fusion", "fuse", "fusions"]
