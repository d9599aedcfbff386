"""The tasks: each fetches arrays, calls kernels, writes under ``key_added``, and returns a small frozen result."""

from smeld.tl._annotate import Annotation, annotate
from smeld.tl._calibration import Calibration, calibration
from smeld.tl._celltype_interactions import CelltypeInteractions, celltype_interactions
from smeld.tl._compare_niches import compare_niches
from smeld.tl._compare_transitions import compare_transitions
from smeld.tl._composition import Composition, neighborhood_composition
from smeld.tl._contiguity import Contiguity, contiguity
from smeld.tl._deconvolve import Deconvolution, deconvolve
from smeld.tl._denoise import Denoised, denoise, impute
from smeld.tl._domains import Domains, domains
from smeld.tl._interactions import Interactions, interactions
from smeld.tl._lineage import cellrank_kernel, transition_matrix
from smeld.tl._markers import markers
from smeld.tl._niche_tests import niche_states
from smeld.tl._niches import Niches, niches
from smeld.tl._pieces import Pieces, pieces
from smeld.tl._quality import QualityControl, quality_control
from smeld.tl._same_domain import same_domain
from smeld.tl._trajectory import Trajectory, trajectory
from smeld.tl._transition_genes import TransitionGenes, transition_genes

__all__ = [
    "Annotation",
    "Calibration",
    "CelltypeInteractions",
    "Composition",
    "Contiguity",
    "Deconvolution",
    "Denoised",
    "Domains",
    "Interactions",
    "Niches",
    "Pieces",
    "QualityControl",
    "Trajectory",
    "TransitionGenes",
    "annotate",
    "calibration",
    "cellrank_kernel",
    "celltype_interactions",
    "compare_niches",
    "compare_transitions",
    "contiguity",
    "deconvolve",
    "denoise",
    "domains",
    "impute",
    "interactions",
    "markers",
    "neighborhood_composition",
    "niche_states",
    "niches",
    "pieces",
    "quality_control",
    "same_domain",
    "trajectory",
    "transition_genes",
    "transition_matrix",
]
