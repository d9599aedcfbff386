"""stLearn without torch: its package imports torch for the CNN, which is not run here."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import MagicMock


def load() -> Any:
    """The stlearn module; stand-ins for torch and torchvision are there only while it is imported."""
    names = ("torch", "torch.nn", "torchvision", "torchvision.models", "torchvision.transforms")
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        stand_in = MagicMock(name=name)
        stand_in.__spec__ = None
        for inner in ("Tensor", "Module", "device", "dtype"):  # other packages ask isinstance and issubclass of these
            setattr(stand_in, inner, type(inner, (), {}))
        sys.modules[name] = stand_in
    try:
        import stlearn
    finally:
        for name in absent:
            del sys.modules[name]
    return stlearn


def prepare(adata: Any, seed: int, n_features: int = 50) -> Any:
    """What stLearn's SME normalisation reads: pixel columns, and features where its CNN's would be."""
    import numpy as np

    x, y = np.asarray(adata.obsm["spatial"]).T
    adata.obs["imagecol"], adata.obs["imagerow"] = x, y
    rng = np.random.default_rng(seed)
    # the CNN's features are reduced to 50 components before use; ours are random: no weights can be had offline
    adata.obsm["X_morphology"] = rng.standard_normal((adata.n_obs, n_features))
    return adata
