"""What is to be simulated: the checked options, the sizes that follow from them, and the seeds."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from smeld import _check


@dataclass(frozen=True)
class Layout:
    """How observations lie: distance between neighbours, how regular, and what one of them measures."""

    pitch_um: float
    jitter: float  # standard deviation of the displacement, in pitches
    kept: float  # share of the lattice's positions that are occupied
    contact_um: float  # how far touching reaches
    field_um: float  # default correlation length of the smooth fields
    counts_per_gene: float  # default depth
    cells: float  # mean number of cells in one observation
    finest_um_per_px: float


#: lattice: 10x Visium (100 um between centres, 55 um spots); cells: about 2,700 cells per square millimetre
LAYOUTS = {
    "lattice": Layout(100.0, 0.0, 1.0, 100.0, 300.0, 1.5, 7.0, 2.0),
    "cells": Layout(17.5, 0.13, 0.75, 30.0, 100.0, 0.6, 1.0, 0.5),
}
#: default number of domains by kind of tissue
TISSUES = {"layered": 7, "nested": 6, "branched": 7, "folded": 7}
SPOT_UM = 55.0
#: distance within which most of a secreted ligand acts (methods: about 100-200 um)
SECRETED_UM = 150.0
MAX_DOMAINS = 15

#: parts that draw random numbers. Append only: a part's numbers depend on its place here and on nothing else
_PARTS = (
    "positions",
    "tissue",
    "wobble",
    "mixtures",
    "types",
    "genes",
    "library",
    "programs",
    "pairs",
    "counts",
    "image",
    "batch",
    "niches",
)
#: parts that all sections of a seed share: the organ and its genes
_SHARED = {"tissue", "mixtures", "genes"}


@dataclass(frozen=True)
class Plan:
    """All options of ``simulate``, checked and with defaults filled in."""

    n_obs: int
    n_genes: int
    seed: int
    section: int
    layout_name: str
    tissue: str
    image: bool
    image_information: float
    n_domains: int
    n_cell_types: int
    n_pairs: int
    n_downstream: int
    mean_counts: float
    dispersion: float
    domain_effect: float
    cell_type_effect: float
    library_sd: float
    batch_effect: float
    field_um: float
    n_jobs: int
    n_subtype_pairs: int
    n_subtype_genes: int

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.layout_name]

    @property
    def side_um(self) -> float:
        """Side of the square in which the tissue lies; the tissue fills about 3/4 of it."""
        return side_um(self.n_obs, self.layout)

    def seeds(self, part: str) -> np.random.SeedSequence:
        """The seed of one part. Parts are independent: changing the image leaves the counts alone."""
        section = 0 if part in _SHARED else self.section
        return np.random.SeedSequence(self.seed, spawn_key=(_PARTS.index(part), section))

    def rng(self, part: str) -> np.random.Generator:
        return np.random.default_rng(self.seeds(part))


def side_um(n_obs: int, layout: Layout) -> float:
    """Side of a square that holds ``n_obs`` occupied positions in 3/4 of its area, in micrometres."""
    area = n_obs * layout.pitch_um**2 * math.sqrt(0.75) / layout.kept
    return math.sqrt(area / 0.75)


def _at_least(name: str, value: float, low: float, high: float = math.inf) -> None:
    if isinstance(value, bool) or not (math.isfinite(value) and low <= value <= high):
        span = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise _check.problem(f"{name} must be {span}", found=f"{name}={value!r}", cure=f"change {name}=")


def _whole(name: str, value: int, low: int, high: float = math.inf) -> int:
    if isinstance(value, bool) or int(value) != value:
        raise _check.problem(f"{name} must be a whole number", found=f"{name}={value!r}", cure=f"change {name}=")
    _at_least(name, value, low, high)
    return int(value)


def _pairs(n_pairs: int | None, n_genes: int, n_downstream: int) -> int:
    """Interacting pairs (there are as many decoys); four genes a pair and its decoy, and the genes that each has
    downstream, half of all at most."""
    take = 4 + 2 * n_downstream
    room = n_genes // (2 * take)
    if n_pairs is None:
        return min(10, n_genes // (10 * take))
    if _whole("n_pairs", n_pairs, 0) > room:
        raise _check.problem(
            "too few genes for the pairs asked for",
            found=f"n_pairs={n_pairs}, n_genes={n_genes}; a pair and its decoy take {take} genes",
            cure=f"n_pairs={room} at most, or n_genes={2 * take * n_pairs}",
        )
    return int(n_pairs)


def plan(
    *,
    n_obs: int,
    n_genes: int,
    seed: int,
    section: int,
    layout: str,
    tissue: str,
    image: bool,
    image_information: float,
    n_domains: int | None,
    n_cell_types: int,
    n_pairs: int | None,
    n_downstream: int,
    mean_counts: float | None,
    dispersion: float,
    domain_effect: float,
    cell_type_effect: float,
    library_sd: float,
    batch_effect: float,
    field_um: float | None,
    n_jobs: int | None,
    n_subtype_pairs: int = 0,
    n_subtype_genes: int = 3,
) -> Plan:
    """Check every option and fill in the defaults; see ``simulate`` for their meaning."""
    if layout not in LAYOUTS:
        raise _check.unknown("layout", layout, LAYOUTS)
    if tissue not in TISSUES:
        raise _check.unknown("tissue", tissue, TISSUES)
    kind = LAYOUTS[layout]
    n_domains = _whole("n_domains", TISSUES[tissue] if n_domains is None else n_domains, 2, MAX_DOMAINS)
    _whole("n_obs", n_obs, 10 * n_domains)
    _whole("n_genes", n_genes, 20)
    n_downstream = _whole("n_downstream", n_downstream, 0)
    mean_counts = kind.counts_per_gene * n_genes if mean_counts is None else mean_counts
    field_um = kind.field_um if field_um is None else field_um
    _at_least("mean_counts", mean_counts, 1.0)
    _at_least("image_information", image_information, 0.0, 1.0)
    for name, value in {
        "dispersion": dispersion,
        "domain_effect": domain_effect,
        "library_sd": library_sd,
    }.items():
        _at_least(name, value, 0.0, 10.0)
    _at_least("cell_type_effect", cell_type_effect, 0.0, 10.0)
    _at_least("batch_effect", batch_effect, 0.0, 10.0)
    # a grid of six points a length then stays under about 6,000 x 6,000
    _at_least("field_um", field_um, side_um(n_obs, kind) / 1000)
    jobs = min(os.cpu_count() or 1, 8) if n_jobs is None else _whole("n_jobs", n_jobs, 1)
    return Plan(
        n_obs=int(n_obs),
        n_genes=int(n_genes),
        seed=_whole("seed", seed, 0),
        section=_whole("section", section, 0),
        layout_name=layout,
        tissue=tissue,
        image=bool(image),
        image_information=float(image_information),
        n_domains=n_domains,
        n_cell_types=_whole("n_cell_types", n_cell_types, 1, 100),
        n_pairs=_pairs(n_pairs, n_genes, n_downstream),
        n_downstream=n_downstream,
        mean_counts=float(mean_counts),
        dispersion=float(dispersion),
        domain_effect=float(domain_effect),
        cell_type_effect=float(cell_type_effect),
        library_sd=float(library_sd),
        batch_effect=float(batch_effect),
        field_um=float(field_um),
        n_jobs=jobs,
        n_subtype_pairs=_whole("n_subtype_pairs", n_subtype_pairs, 0, n_cell_types // 2),
        n_subtype_genes=_whole("n_subtype_genes", n_subtype_genes, 0),
    )
