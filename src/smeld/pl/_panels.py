"""Figures of several small maps or curves: as many axes as there are, in rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld.pl import _canvas
from smeld.pl.trajectory_maps import checked


def panels(axes: Any, n: int, what: str, *, size: tuple[float, float], shape: tuple[int, int]) -> NDArray[Any]:
    """The ``n`` axes that were given, checked; or those of a new figure: ``size`` inches, ``shape`` (rows, columns)."""
    if axes is not None:
        return checked(axes, n, what)
    from matplotlib import pyplot as plt

    with _canvas.style():
        _, made = plt.subplots(*shape, figsize=size, layout="compressed", squeeze=False)
    for ax in made.ravel()[n:]:
        ax.remove()
    return np.asarray(made.ravel()[:n], dtype=object)
