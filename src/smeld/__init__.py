"""smeld: spatial transcriptomics that melds Space, tissue Morphology and gene Expression.

The facade. Everything is loaded on first use (PEP 562), so ``import smeld`` is quick and pulls in neither
torch, nor matplotlib, nor spatialdata.

>>> import smeld as sm
>>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
>>> sorted(adata.obsm)[0]
'spatial'
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# OpenMP's threads sleep while they wait, which they learn when they are first started. Its default is to spin: with
# another process on the same cores a loop then waits for threads that have no core (2 cores: a fusion of 72 spots took
# 1.8 s beside one other process, .05 s so).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

#: public name -> (module, attribute); attribute None means the module itself
_LAZY: dict[str, tuple[str, str | None]] = {
    "read": ("smeld.io", "read"),
    "write": ("smeld.io", "write"),
    "io": ("smeld.io", None),
    "morph": ("smeld.morph", None),
    "fuse": ("smeld.fusion", "fuse"),
    "fusions": ("smeld.fusion", "fusions"),
    "tl": ("smeld.tl", None),
    "pl": ("smeld.pl", None),
    "report": ("smeld._report", "report"),
    "view": ("smeld.viewer._notebook", "view"),
    "lr": ("smeld.lr", None),
    "datasets": ("smeld.datasets", None),
    "device": ("smeld.nn._switch", "device"),
    "cluster": ("smeld._cluster", "cluster"),
    "InputError": ("smeld._check", "InputError"),
    "SmeldWarning": ("smeld._check", "SmeldWarning"),
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'smeld' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    loaded = importlib.import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


if TYPE_CHECKING:
    from smeld import datasets, io, lr, morph, pl, tl
    from smeld._check import InputError, SmeldWarning
    from smeld._cluster import cluster
    from smeld._report import report
    from smeld.fusion import fuse, fusions
    from smeld.io import read, write
    from smeld.nn._switch import device
    from smeld.viewer._notebook import view
