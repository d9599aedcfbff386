"""``fuse``: fetch arrays from the table, call a fusion method, write its results."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.fusion._fusion import Fusion, fusions
from smeld.kernels.graph import (
    GraphKind,
    SpatialGraph,
    from_distances,
    ones,
    permuted,
    sectioned_graph,
    spatial_graph,
)
from smeld.kernels.rows import Rows


def fuse(
    data: Any,
    method: str = "sme",
    *,
    morphology: str | None = "auto",
    graph: GraphKind = "auto",
    n_neighbors: int = 10,
    radius_um: float | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    key_added: str | None = None,
    seed: int = 0,
    **options: Any,
) -> Fusion:
    """Weigh space, morphology and expression into one graph and one embedding. Works in place.

    Parameters
    ----------
    data
        AnnData (or SpatialData with one table) with counts in ``X`` and ``obsm["spatial_um"]``.
    method
        A name in ``sm.fusions``.
    morphology
        Key in ``obsm`` (``"morph_texture"``), ``"auto"`` for the one that is there, or None for none.
    graph, n_neighbors, radius_um
        Spatial neighbours: ``"auto"`` (one lattice ring on a lattice, else the 10 nearest neighbours), ``"lattice"``,
        ``"knn"``, ``"radius"`` (with ``radius_um`` in micrometres). A stored ``obsp["spatial_distances"]`` (in
        micrometres, made by smeld) is used again unless one of these is set.
    layer
        Layer that holds the counts; ``X`` by default.
    batch_key
        Column of ``obs`` that names each spot's section. Neighbours are then sought within sections only (positions
        of different sections may overlap), and what sets sections apart but not their domains is removed from the
        embedding. None: one section.
    key_added
        Name of the embedding in ``obsm``; ``"fused_<method>"`` by default.
    seed
        Seed of the principal components' starting vector; nothing else is random here.
    options
        Passed to the method; for ``"sme"``: ``evidence`` (True: weights that are not given are chosen on held-out
        counts; False: the fixed defaults, in a quarter of the time), ``alpha`` (strength of smoothing), ``gamma`` and
        ``eta`` (the say of morphology and expression in an edge), ``sigma_um`` (bandwidth), ``n_morphology``
        (components of morphology in the embedding), ``n_genes``, ``n_components`` (of expression, before those without
        spatial structure are dropped).

    Writes
    ------
    ``obsm["fused_<method>"]`` float64 [n_obs, d], components of expression and then those of morphology;
    ``obsm["X_pca"]`` and ``varm["PCs"]`` where the method has components; ``obsp["sme_weights"]``,
    ``obsp["spatial_connectivities"]``, ``obsp["spatial_distances"]`` (CSR, micrometres);
    ``uns["fusion_evidence"]`` where the method gives evidence (DataFrame, a row a choice: what was looked at, its best
    setting, the share of held-out variance predicted, the gain over what was chosen before, their standard errors over
    blocks of the section, and whether it was taken); the record ``uns["smeld"]["fused_<method>"]``.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> sm.fuse(adata).embedding.shape[0]
    400
    """
    adata = _adapt.table(data)
    card = fusions[method]
    order = _adapt.canonical_order(adata)
    counts = _adapt.rows(adata, layer, order)
    section, names = _adapt.sections(adata, batch_key)
    section = section[order]
    neighbours = _neighbours(
        adata, section, batch_key, order, graph=graph, n_neighbors=n_neighbors, radius_um=radius_um
    )
    morph_key = _morphology_key(adata, morphology)
    features = None if morph_key is None else standardised(np.asarray(adata.obsm[morph_key], dtype=np.float64)[order])
    if method in ("sme", "vae"):
        options.setdefault("log_transform", _needs_log(adata, counts))
    more = {"names": list(adata.var_names)} if card.facts.get("named") else {}
    try:
        fusion = card.func(
            counts if card.facts.get("streams") else counts.whole(),
            features,
            neighbours,
            batch=section if len(names) > 1 else None,
            seed=seed,
            **options,
            **more,
        )
    except TypeError as error:
        raise _option_error(method, options, error) from error
    fusion, key = _restored(fusion, order), key_added or _keys.FUSED_PREFIX + method
    _write(adata, fusion, _restored_graph(neighbours, order), key, batch_key)
    _keys.record(
        adata,
        key,
        function="sm.fuse",
        params={"method": method, "graph": neighbours.kind, **options, **fusion.facts},
        seed=seed,
        inputs={"morphology": morph_key, "layer": layer or "X", "batch_key": batch_key},
    )
    return fusion


def _option_error(method: str, options: dict[str, Any], error: TypeError) -> Exception:
    """An unknown option is the user's; any other TypeError is ours and passes through."""
    if "unexpected keyword" not in str(error):
        return error
    return _check.problem(
        f"fusion method {method!r} does not take all the options given",
        found=_check.listed(options),
        cure=f"see help(sm.fusions[{method!r}].func)",
    )


def _neighbours(
    adata: Any,
    section: NDArray[np.intp],
    batch_key: str | None,
    order: NDArray[np.intp],
    *,
    graph: GraphKind,
    n_neighbors: int,
    radius_um: float | None,
) -> SpatialGraph:
    """Neighbours of the spots in ``order``, in which ``section`` is."""
    xy = _adapt.xy_um(adata)[order]
    stored = adata.obsp.get(_keys.DISTANCES)
    made = adata.uns.get(_keys.RECORD, {}).get(_keys.DISTANCES)
    made_here = made is not None and str(made["params"].get("batch_key", "none")) == (batch_key or "none")
    if radius_um is not None and graph != "radius":
        raise _check.problem(
            "radius_um has no meaning for this graph", found=f"graph={graph!r}", cure="pass graph='radius' too"
        )
    asked = graph != "auto" or radius_um is not None or n_neighbors != 10
    if stored is not None and made_here and not asked:
        distances = permuted(sparse.csr_matrix(stored), order)
        if _adapt.within_sections(distances, xy, section):
            return from_distances(distances, xy)
    if graph not in ("auto", "lattice", "knn", "radius"):
        raise _check.unknown("graph", graph, ("auto", "lattice", "knn", "radius"))
    try:
        settings: dict[str, Any] = {"kind": graph, "n_neighbors": n_neighbors, "radius_um": radius_um}
        return sectioned_graph(xy, section, **settings) if section.any() else spatial_graph(xy, **settings)
    except ValueError as error:
        raise _check.problem(str(error)) from error


def _morphology_key(adata: Any, morphology: str | None) -> str | None:
    if morphology is None:
        return None
    if morphology == "auto":
        found = [key for key in adata.obsm if key.startswith(_keys.MORPH_PREFIX)]
        if len(found) > 1:
            raise _check.problem(
                "several morphology embeddings are stored",
                found=_check.listed(found),
                cure="name one with morphology=",
            )
        return found[0] if found else None
    _check.require(adata.obsm, morphology, "obsm", "run sm.morph.embed(adata), or pass morphology=None")
    return morphology


def standardised(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns to mean 0 and standard deviation 1, cut at 5 (stains have artefacts); constant columns to 0."""
    if not np.isfinite(features).all():
        raise _check.problem("morphology features must be finite", cure="run sm.morph.embed(adata) again")
    sd = features.std(axis=0)
    return np.asarray(np.clip((features - features.mean(axis=0)) / np.where(sd > 1e-12, sd, 1.0), -5.0, 5.0))


def _needs_log(adata: Any, counts: Rows) -> bool:
    """False for values that look like logarithms already; warns, for the statistics then rest on less."""
    if _adapt.are_counts(counts):
        return True
    logged = _adapt.look_logged(counts)
    done = "taken as log-normalised already" if logged else "normalised by their sum and logged, as counts are"
    _check.warn(
        f"X holds values that are not whole numbers: they are {done}; what rests on count statistics "
        "(count splitting, dispersion) does not apply. Give raw counts if you have them.",
        adata,
        stacklevel=4,
    )
    return not logged


def _restored_graph(graph: SpatialGraph, order: NDArray[np.intp]) -> SpatialGraph:
    """The graph in the order of the table."""
    back = np.argsort(order)
    distances = permuted(graph.distances, back)
    return replace(graph, connectivities=ones(distances), distances=distances, xy_um=graph.xy_um[back])


def _restored(fusion: Fusion, order: NDArray[np.intp]) -> Fusion:
    """The result in the order of the table."""
    if (order == np.arange(len(order))).all():
        return fusion
    back = np.argsort(order)
    return Fusion(
        fusion.embedding[back],
        permuted(fusion.weights, back),
        fusion.evidence,
        None if fusion.posterior_sd is None else fusion.posterior_sd[back],
        None if fusion.expression is None else fusion.expression[back],
        fusion.loadings,
        fusion.facts,
    )


def _write(adata: Any, fusion: Fusion, graph: SpatialGraph, key: str, batch_key: str | None) -> None:
    adata.obsm[key] = fusion.embedding
    adata.obsm.pop(_keys.SD_PREFIX + key, None)
    if fusion.posterior_sd is not None:
        adata.obsm[_keys.SD_PREFIX + key] = fusion.posterior_sd
    if fusion.expression is not None:
        adata.obsm[_keys.PCA] = fusion.expression
    if fusion.loadings is not None:
        adata.varm[_keys.LOADINGS] = fusion.loadings
    adata.obsp[_keys.SME_WEIGHTS] = fusion.weights
    adata.obsp[_keys.CONNECTIVITIES] = graph.connectivities
    adata.obsp[_keys.DISTANCES] = graph.distances
    if fusion.evidence is not None:
        adata.uns["fusion_evidence"] = fusion.evidence
    if graph.kind != "stored":
        _keys.record(
            adata,
            _keys.DISTANCES,
            function="sm.fuse",
            params={
                "graph": graph.kind,
                "pitch_um": graph.pitch_um,
                "edges": graph.connectivities.nnz // 2,
                "batch_key": batch_key,
            },
        )
