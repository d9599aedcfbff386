"""S x M x E fusion by a sparse solve: expression components smoothed along edges that space, morphology and
expression weigh together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.fusion._fusion import Fusion, fusions
from smeld.kernels import expression, smooth
from smeld.kernels.graph import SpatialGraph

#: Defaults until they are chosen from the data (`choose_weights`). `ALPHA` is in units of the mean degree: on a
#: hexagonal lattice 9 is 1.5 per neighbour, inside the 1.5-6 over which results on cortex do not change.
ALPHA, GAMMA, ETA = 9.0, 0.5, 0.0
N_GENES, N_COMPONENTS = 3000, 30


def choose_weights(**given: float | None) -> dict[str, float]:
    """The weights to use: what was given, else the fixed defaults. The place where evidence from the data comes in."""
    defaults = {"alpha": ALPHA, "gamma": GAMMA, "eta": ETA}
    return {name: defaults[name] if given.get(name) is None else float(given[name] or 0.0) for name in defaults}


def _check_options(**given: float | None) -> None:
    """Refuse numbers that mean nothing: each would be ignored, or end in an error far from its cause."""
    for name, value in given.items():
        lowest = {"n_genes": 1.0, "n_components": 1.0, "sigma_um": np.nextafter(0.0, 1.0)}.get(name, 0.0)
        if value is not None and not (np.isfinite(value) and value >= lowest):
            asked = f"at least {lowest:g}" if lowest in (0.0, 1.0) else "above 0"
            raise _check.problem(f"{name} must be {asked}", found=str(value), cure="leave it out for the default")


@fusions.add("sme", cite="smeld; S x M x E normalisation after Pham et al. 2023, doi:10.1038/s41467-023-43120-6")
def sme(
    counts: sparse.csr_matrix,
    morphology: NDArray[np.floating] | None,
    graph: SpatialGraph,
    *,
    batch: NDArray[Any] | None = None,
    seed: int = 0,
    alpha: float | None = None,
    gamma: float | None = None,
    eta: float | None = None,
    sigma_um: float | None = None,
    n_genes: int = N_GENES,
    n_components: int = N_COMPONENTS,
    log_transform: bool = True,
) -> Fusion:
    """Evidence-weighted S x M x E fusion.

    ``counts`` CSR [n_obs, n_genes]; ``morphology`` [n_obs, n_features], already standardised, or None; ``graph``
    the spatial neighbours. ``alpha`` smoothing strength, ``gamma`` and ``eta`` the say of morphology and expression
    in an edge's weight, ``sigma_um`` the spatial bandwidth (default: the median distance of neighbours).
    """
    _check_options(alpha=alpha, gamma=gamma, eta=eta, sigma_um=sigma_um, n_genes=n_genes, n_components=n_components)
    log_counts = expression.log_normalise(counts) if log_transform else counts.astype(np.float64)
    embedded = expression.embed(log_counts, graph.connectivities, n_genes=n_genes, n_components=n_components, seed=seed)
    use = choose_weights(alpha=alpha, gamma=gamma, eta=eta)
    if morphology is None:
        use["gamma"] = 0.0
    sigma = sigma_um or (float(np.median(graph.distances.data)) if graph.distances.nnz else 1.0)
    similar_m = None
    if morphology is not None and use["gamma"] > 0:
        similar_m = smooth.edge_similarity(morphology, graph.distances)
    similar_e = smooth.edge_similarity(embedded.scores, graph.distances) if use["eta"] > 0 else None
    weights = smooth.sme_weights(
        graph.distances,
        sigma_um=sigma,
        morphology=similar_m,
        expression=similar_e,
        gamma=use["gamma"],
        eta=use["eta"],
    )
    fused = smooth.smooth(weights, embedded.scores, use["alpha"])
    facts = {
        **use,
        "sigma_um": sigma,
        "n_genes": len(embedded.genes),
        "n_components": fused.shape[1],
        "n_effective": smooth.effective_size(weights, use["alpha"]),
    }
    return Fusion(fused, weights, expression=embedded.scores, facts=facts)
