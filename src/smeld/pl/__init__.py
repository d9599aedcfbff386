"""Plots of stored results: data and ``ax`` in, ``Axes`` out. Nothing is computed or written to the data.

Without ``ax`` a figure is made with pyplot, so that a notebook displays it; with ``ax`` pyplot is not
touched. Global settings of matplotlib are left alone: figures are made, and saved by :func:`save`, under
smeld's own (:func:`style`).
"""

from __future__ import annotations

from smeld.pl._canvas import style
from smeld.pl._colors import palette
from smeld.pl._save import save
from smeld.pl.calibration import qq
from smeld.pl.celltype_pairs import celltype_heatmap
from smeld.pl.distributions import quality_control
from smeld.pl.dots import markers
from smeld.pl.gene_courses import gene_courses, gene_order
from smeld.pl.given_types import confusion
from smeld.pl.maps import confidence, domains, gene, section
from smeld.pl.niche_types import niche_heatmap
from smeld.pl.pair_maps import colocation, interaction_arrows, interaction_map
from smeld.pl.pairs import interactions
from smeld.pl.reliability import reliability, risk_coverage
from smeld.pl.scatter import embedding
from smeld.pl.trajectory_maps import fates, local_pseudotime, pseudotime
from smeld.pl.trajectory_tree import trajectory_tree
from smeld.pl.type_network import celltype_network
from smeld.pl.type_shares import proportions

__all__ = [
    "celltype_heatmap",
    "celltype_network",
    "colocation",
    "confidence",
    "confusion",
    "domains",
    "embedding",
    "fates",
    "gene",
    "gene_courses",
    "gene_order",
    "interaction_arrows",
    "interaction_map",
    "interactions",
    "local_pseudotime",
    "markers",
    "niche_heatmap",
    "palette",
    "proportions",
    "pseudotime",
    "qq",
    "quality_control",
    "reliability",
    "risk_coverage",
    "save",
    "section",
    "style",
    "trajectory_tree",
]
