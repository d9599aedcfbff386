"""A trained graph VAE on disk, and what it says of another section."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.fusion import sme as deterministic
from smeld.fusion._fusion import Fusion
from smeld.kernels import expression, profiles, smooth
from smeld.kernels.graph import SpatialGraph

Float = NDArray[np.float64]

KIND = "graph_vae"
#: share of the model's genes that another section must have
LEAST_GENES = 0.8
#: standard deviation given to genes that are not there: their residuals are then 0
ABSENT = 1e12


@dataclass(frozen=True)
class Recipe:
    """How the prior's mean is made of counts: ``basis`` "components" or "profiles"; ``alpha``, ``gamma``, ``eta`` of
    the fusion; ``scale`` of the prior."""

    basis: str
    alpha: float
    gamma: float
    eta: float
    scale: float


def save(folder: str, model: Any, recipe: Recipe, genes: list[str], axes: Float, axes_genes: list[str]) -> None:
    """``genes`` of the decoder; ``axes`` [n_axes_genes, d] that expression is projected on, and the genes of these."""
    import torch

    from smeld.nn import _store

    state = {**model.state_dict(), "axes": torch.as_tensor(axes)}
    config = {"genes": genes, "axes_genes": axes_genes, "recipe": asdict(recipe), "shape": asdict(model.shape)}
    _store.save(folder, KIND, config, state)


def apply(
    folder: str,
    counts: sparse.csr_matrix,
    names: list[str],
    graph: SpatialGraph,
    morphology: Float | None,
    *,
    batch: NDArray[Any] | None,
    seed: int,
    device: str,
    tile: int,
) -> Fusion:
    """The posterior of a section that the model has not seen; nothing is trained.

    Components are scaled by the section's own genes and centred, as they were in training; a section effect of the
    decoder does not carry over, and is not needed for the posterior.
    """
    from smeld.nn import _device, _store, _vae, _vae_fit

    config, state = _store.load(folder, KIND)
    recipe, shape = Recipe(**config["recipe"]), _vae.Shape(**config["shape"])
    axes = state.pop("axes").numpy().astype(np.float64)
    table, found = _matched(counts, names, config["genes"])
    edges = {"alpha": recipe.alpha, "gamma": recipe.gamma if morphology is not None else 0.0, "eta": recipe.eta}
    base = deterministic.sme(counts, morphology, graph, batch=batch, seed=seed, evidence=False, n_morphology=0, **edges)
    projected, known = _matched(counts, names, config["axes_genes"])
    scores = _scores(counts, projected, base.weights, recipe, axes)
    smoothed = scores if recipe.basis == "profiles" else smooth.smooth(base.weights, scores, recipe.alpha)
    section = np.zeros(len(scores), dtype=np.intp)
    inputs = _vae_fit.Inputs(table, base.weights, smoothed / recipe.scale, section, graph.xy_um, recipe.alpha)
    model = _vae.GraphVAE(shape, np.ones(shape.n_genes), np.ones(shape.n_genes))
    model.load_state_dict(state)
    model.scale[~np.isin(np.arange(shape.n_genes), found)] = ABSENT
    posterior = _vae_fit.Trainer(model, inputs, _device.resolve(device), seed=seed, tile=tile).posterior()
    correction = posterior.delta * recipe.scale
    prior = np.hstack([smoothed, np.zeros((len(smoothed), shape.n_extra))])
    facts = {**base.facts, "basis": recipe.basis, "n_components": scores.shape[1], "n_model_genes": len(found)}
    facts["correction_sd"] = float(correction[:, : shape.n_prior].std())
    loadings = np.zeros((counts.shape[1], axes.shape[1]))
    position = {name: i for i, name in enumerate(names)}
    loadings[[position[config["axes_genes"][g]] for g in known]] = axes[known]
    return Fusion(
        prior + correction,
        base.weights,
        posterior_sd=posterior.sd * recipe.scale,
        expression=scores,
        loadings=loadings,
        facts=facts,
    )


def _scores(
    counts: sparse.csr_matrix, table: sparse.csr_matrix, weights: sparse.csr_matrix, recipe: Recipe, axes: Float
) -> Float:
    """Components [n_obs, d] of ``table``, the genes of ``axes``, at the library sizes of all ``counts``."""
    if recipe.basis == "profiles":
        return np.asarray(profiles.log_profiles(table, weights, recipe.alpha) @ axes)
    size = np.asarray(counts.sum(axis=1)).ravel()
    scale = np.divide(np.median(size[size > 0]), size, out=np.zeros_like(size, dtype=np.float64), where=size > 0)
    logged = sparse.csr_matrix(sparse.diags(scale) @ table.astype(np.float64))
    logged.data = np.log1p(logged.data)
    scores = np.asarray(expression.scale_columns(logged) @ axes)
    return np.asarray(scores - scores.mean(axis=0))


def _matched(
    counts: sparse.csr_matrix, names: list[str], genes: list[str]
) -> tuple[sparse.csr_matrix, NDArray[np.intp]]:
    """(counts of the model's genes, 0 where a gene is not there; numbers of the genes that are)."""
    position = {name: i for i, name in enumerate(names)}
    found = np.array([g for g, name in enumerate(genes) if name in position], dtype=np.intp)
    if len(found) < LEAST_GENES * len(genes):
        absent = [name for name in genes if name not in position]
        raise _check.problem(
            f"the model needs {LEAST_GENES:.0%} of its {len(genes)} genes",
            found=f"{len(found)} of them; absent: {_check.listed(absent, 5)}",
            cure="name genes as the section was named that the model was trained on",
        )
    picked = sparse.csr_matrix(counts[:, [position[genes[g]] for g in found]]).tocoo()
    table = sparse.csr_matrix((picked.data, (picked.row, found[picked.col])), shape=(counts.shape[0], len(genes)))
    table.sort_indices()
    return table, found
