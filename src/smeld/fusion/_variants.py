"""The fused embedding again, from thinned counts and at other strengths of smoothing: what a consensus is made over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.kernels import expression, smooth, split
from smeld.kernels.graph import permuted

Float = NDArray[np.float64]
#: makes an embedding: of a large section few are held at a time, and made again when they are asked for again
Variant = Callable[[], Float]

#: strengths of smoothing, in multiples of the one that fused
SCALES = (0.5, 1.0, 2.0)
#: share of the counts that a split keeps
KEPT_COUNTS = 0.8
#: larger sections are perturbed by the starts' samples of spots alone: at that size a split changes little
MOST_SPLIT = 20_000


def variants(adata: Any, rep: str, *, n_splits: int, scales: bool, seed: np.random.SeedSequence) -> list[Variant]:
    """Embeddings like ``obsm[rep]``, the stored one first, spots in canonical order; that one alone where what it was
    made of is not stored.

    Every split thins the counts beta-binomially (``kernels.split``), projects them on the stored loadings and smooths
    along the stored weights; the thinned components get each section's mean of the full ones. Where a network learned
    something beyond the smooth (method "vae"), each is there twice, with it and without: a consensus of the two has
    agreed with annotation better than either (DLPFC, training seeds 100 to 103: .635 against .630 and .629).
    """
    order = _adapt.canonical_order(adata)
    stored = _adapt.ordered(adata.obsm[rep], order)
    facts = adata.uns.get(_keys.RECORD, {}).get(rep, {})
    made_of, loadings = (rep, _keys.TYPE_LOADINGS) if rep == _keys.TYPE_PCA else (_keys.PCA, _keys.LOADINGS)
    alpha = facts.get("params", {}).get("alpha")
    if alpha is None or made_of not in adata.obsm or _keys.SME_WEIGHTS not in adata.obsp:
        return [lambda: stored]
    weights = permuted(adata.obsp[_keys.SME_WEIGHTS].tocsr(), order)
    full = _adapt.ordered(adata.obsm[made_of], order)
    d = full.shape[1]
    beside = stored[:, d:]  # components of morphology: no counts are in them
    if d + int(facts["params"].get("n_morphology", 0)) != stored.shape[1]:
        return [lambda: stored]
    beyond = smooth.smooth(weights, full, float(alpha))
    np.subtract(stored[:, :d], beyond, out=beyond)
    if not _of_this_fusion(beyond, facts["params"]):
        return [lambda: stored]
    # without a network nothing but rounding lies beyond the smooth
    learned = (beyond, None) if facts["params"].get("method") == "vae" else (None,)
    del beyond
    bases = [full]
    if n_splits:
        bases += _thinned(adata, facts.get("inputs", {}), order, full, weights, loadings, n_splits, seed)

    def variant(base: Float, strength: float, part: Float | None) -> Variant:
        def made() -> Float:
            smoothed = smooth.smooth(weights, base, strength)
            if part is not None:
                smoothed += part
            return np.hstack([smoothed, beside]) if beside.shape[1] else smoothed

        return made if adata.n_obs > MOST_SPLIT else _kept(made())

    made: list[Variant] = [lambda: stored]
    for i, base in enumerate(bases):
        for scale in SCALES if scales else (1.0,):
            made += [
                variant(base, float(alpha) * scale, part)
                for part in learned
                if i or scale != 1.0 or part is not learned[0]  # the stored one is there already
            ]
    return made


def _kept(embedding: Float) -> Variant:
    return lambda: embedding


def _of_this_fusion(learned: Float, params: Any) -> bool:
    """True if the embedding is the smooth of the stored components, plus what a network learned where one did."""
    if params.get("method") == "vae":
        return bool(np.isclose(learned.std(), float(params.get("correction_sd", np.nan)), rtol=1e-3, atol=1e-6))
    return bool(max(learned.max(initial=0.0), -learned.min(initial=0.0)) <= 1e-5)


def _thinned(
    adata: Any,
    inputs: Any,
    order: NDArray[np.intp],
    full: Float,
    weights: Any,
    loadings_key: str,
    n_splits: int,
    seed: np.random.SeedSequence,
) -> list[Float]:
    if adata.n_obs > MOST_SPLIT:  # before the counts are looked at: they may not fit into memory
        return []
    layer, batch_key = str(inputs.get("layer", "X")), str(inputs.get("batch_key", "none"))
    try:
        counts = _adapt.counts(adata, None if layer == "X" else layer)[order]
        section, _ = _adapt.sections(adata, None if batch_key == "none" else batch_key)
    except _check.InputError:  # scaled or dropped since: what is stored must do
        return []
    loadings = adata.varm.get(loadings_key)
    fits = loadings is not None and loadings.shape[1] == full.shape[1]
    if not fits or not _adapt.are_counts(counts):
        return []
    used = np.flatnonzero(np.abs(loadings).sum(axis=1) > 0)
    dispersion = split.local_dispersion(counts, weights)
    made = []
    for child in seed.spawn(n_splits):
        part, _ = split.thin(counts, KEPT_COUNTS, dispersion, np.random.default_rng(child))
        scaled = expression.scale_columns(expression.log_normalise(part)[:, used])
        made.append(recentred(np.asarray(scaled @ loadings[used]), full, section[order]))
    return made


def recentred(x: Float, like: Float, section: NDArray[np.intp]) -> Float:
    """``x`` with each section's mean of ``like``."""
    size = np.maximum(np.bincount(section), 1)
    shift = np.stack([np.bincount(section, c) / size for c in (like - x).T], axis=1)
    return np.asarray(x + shift[section])
