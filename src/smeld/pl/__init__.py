"""Plots of stored results: data and ``ax`` in, ``Axes`` out. Nothing is computed or written to the data.

Without ``ax`` a figure is made with pyplot, so that a notebook displays it; with ``ax`` pyplot is not
touched. Global settings of matplotlib are left alone: figures are made, and saved by :func:`save`, under
smeld's own (:func:`style`).
"""

from __future__ import annotations

from smeld.pl._canvas import style
from smeld.pl._colors import palette
from smeld.pl._save import save
from smeld.pl.distributions import quality_control
from smeld.pl.dots import markers
from smeld.pl.maps import confidence, domains, gene, section
from smeld.pl.pairs import interactions
from smeld.pl.scatter import embedding

__all__ = [
    "confidence",
    "domains",
    "embedding",
    "gene",
    "interactions",
    "markers",
    "palette",
    "quality_control",
    "save",
    "section",
    "style",
]
