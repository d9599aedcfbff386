"""S x M x E fusion by a sparse solve: expression components smoothed along edges that space, morphology and
expression weigh together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.fusion import _weights
from smeld.fusion._fusion import Fusion, fusions
from smeld.kernels import expression, sections, shared, smooth
from smeld.kernels.graph import SpatialGraph
from smeld.kernels.rows import Rows, as_rows

N_GENES, N_COMPONENTS = 3000, 30
#: fewer spots than this cannot be divided into blocks for an error of the evidence
FEWEST_SPOTS = 64


def _check_options(**given: float | None) -> None:
    """Refuse numbers that mean nothing: each would be ignored, or end in an error far from its cause."""
    for name, value in given.items():
        lowest = {"n_genes": 1.0, "n_components": 1.0, "sigma_um": np.nextafter(0.0, 1.0)}.get(name, 0.0)
        if value is not None and not (np.isfinite(value) and value >= lowest):
            asked = f"at least {lowest:g}" if lowest in (0.0, 1.0) else "above 0"
            raise _check.problem(f"{name} must be {asked}", found=str(value), cure="leave it out for the default")


@fusions.add(
    "sme", streams=True, cite="smeld; S x M x E normalisation after Pham et al. 2023, doi:10.1038/s41467-023-43120-6"
)
def sme(
    counts: sparse.csr_matrix | Rows,
    morphology: NDArray[np.float64] | None,
    graph: SpatialGraph,
    *,
    batch: NDArray[Any] | None = None,
    seed: int = 0,
    alpha: float | None = None,
    gamma: float | None = None,
    eta: float | None = None,
    sigma_um: float | None = None,
    n_morphology: int | None = None,
    evidence: bool = True,
    n_genes: int = N_GENES,
    n_components: int = N_COMPONENTS,
    log_transform: bool = True,
) -> Fusion:
    """Evidence-weighted S x M x E fusion.

    ``counts`` CSR [n_obs, n_genes], or such a table by blocks of rows; ``morphology`` [n_obs, n_features], already
    standardised, or None; ``graph`` the spatial neighbours; ``batch`` int [n_obs] the section of each spot, whose
    offsets are removed, or None.
    ``alpha`` smoothing strength, ``sigma_um`` spatial bandwidth, ``gamma`` and ``eta`` the say of morphology and
    expression in an edge's weight, ``n_morphology`` components of smoothed morphology beside those of expression in
    the embedding: what is None is chosen on held-out counts, or, with ``evidence=False``, gets the fixed default.
    Values that are not counts cannot be split, nor can fewer than 64 spots be judged: they get the fixed ones.
    """
    _check_options(alpha=alpha, gamma=gamma, eta=eta, sigma_um=sigma_um, n_genes=n_genes, n_components=n_components)
    _check_options(n_morphology=n_morphology)
    rows = as_rows(counts)
    logged = expression.log_rows(rows) if log_transform else rows.mapped(lambda block, _: block.astype(np.float64))
    size = {"n_genes": n_genes, "n_components": n_components}
    embedded = expression.embed(logged, graph.connectivities, seed=seed, **size)
    if batch is not None:
        embedded = _without_batch(embedded, batch, graph, seed=seed)
    given = _weights.Given(alpha, sigma_um, gamma, eta, n_morphology)
    table = None
    if evidence and not given.all and _can_split(rows, graph):
        judge = _weights.Judge(rows, morphology, graph, batch=batch, seed=seed, **size)
        use, table = _weights.choose(judge, given, graph, morphology=morphology is not None)
    else:
        use = _weights.fixed(given, graph, morphology=morphology is not None)
    weights = edge_weights(use, embedded.scores, morphology, graph)
    fused = smooth.smooth(weights, embedded.scores, use.alpha)
    expression_only = fused.shape[1]
    if use.n_morphology and morphology is not None:
        fused = np.hstack([fused, _morphology_components(use, morphology, batch, graph, seed=seed)])
    facts = {
        **asdict(use),
        "n_morphology": fused.shape[1] - expression_only,
        "n_genes": len(embedded.genes),
        "n_components": expression_only,
        "n_effective": smooth.effective_size(weights, use.alpha),
    }
    loadings = np.zeros((counts.shape[1], expression_only))
    loadings[embedded.genes] = embedded.loadings.T
    return Fusion(fused, weights, evidence=table, expression=embedded.scores, loadings=loadings, facts=facts)


def _without_batch(
    embedded: expression.Embedding, batch: NDArray[np.integer], graph: SpatialGraph, *, seed: int
) -> expression.Embedding:
    """Components without the sections' offsets; those that then no longer vary in space are dropped."""
    weights = smooth.sme_weights(graph.distances, sigma_um=_weights.neighbour_distance(graph))
    smoothed = smooth.smooth(weights, embedded.scores, _weights.STRONGEST)
    offset = sections.offsets(smoothed, batch, seed=np.random.SeedSequence(seed))
    scores = embedded.scores - offset[batch]
    keep = expression.spatial_components(scores, graph.connectivities)
    return expression.Embedding(scores[:, keep], embedded.genes, embedded.loadings[keep], embedded.variance_ratio[keep])


def _morphology_components(
    use: _weights.Weights,
    morphology: NDArray[np.float64],
    batch: NDArray[np.integer] | None,
    graph: SpatialGraph,
    *,
    seed: int,
) -> NDArray[np.float64]:
    """Components of morphology smoothed in space alone; without what sets sections apart (their stains) if several."""
    weights = smooth.sme_weights(graph.distances, sigma_um=use.sigma_um)
    found = shared.components(weights, morphology, _weights.STRONGEST, use.n_morphology)
    if batch is None or not found.shape[1]:
        return found
    return np.asarray(found - sections.offsets(found, batch, seed=np.random.SeedSequence(seed))[batch])


def _can_split(counts: Rows, graph: SpatialGraph) -> bool:
    return counts.hold_counts() and counts.shape[0] >= FEWEST_SPOTS and graph.distances.nnz > 0


def edge_weights(
    use: _weights.Weights,
    scores: NDArray[np.float64],
    morphology: NDArray[np.floating] | None,
    graph: SpatialGraph,
) -> sparse.csr_matrix:
    """The S x M x E weights of the graph's edges; expression speaks through what surrounds the two ends."""
    similar_m = (
        smooth.edge_similarity(morphology, graph.distances) if morphology is not None and use.gamma > 0 else None
    )
    similar_e = None
    if use.eta > 0:
        space = smooth.sme_weights(graph.distances, sigma_um=use.sigma_um)
        similar_e = smooth.edge_similarity(smooth.surroundings(space, scores), graph.distances)
    return smooth.sme_weights(
        graph.distances,
        sigma_um=use.sigma_um,
        morphology=similar_m,
        expression=similar_e,
        gamma=use.gamma,
        eta=use.eta,
    )
