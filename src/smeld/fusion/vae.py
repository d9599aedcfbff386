"""The graph VAE: what counts say beyond the deterministic fusion, learned by a network on the same graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check, nn
from smeld.fusion import _vae_model, _variants
from smeld.fusion import sme as deterministic
from smeld.fusion._fusion import Fusion, fusions
from smeld.kernels import profiles
from smeld.kernels.graph import SpatialGraph

Float = NDArray[np.float64]

NEEDS = ("torch", "torch_geometric", "safetensors")
#: genes of the decoder, those with most say in the components
N_GENES = 2000
#: with fewer components than this the deterministic fusion has lost the section's structure to noise (few genes, or
#: few counts a spot), and components of smoothed profiles are its prior; set on DLPFC sections of 200 genes (1 to 3
#: survive, whole panels keep 14), draws of seeds 100 and 101
FEWEST_COMPONENTS = 5
#: sets the seeds of further members apart from all others that are drawn from the same one
MEMBERS = 4


@fusions.add(
    "vae",
    cite="cf. Lopez et al. 2018, doi:10.1038/s41592-018-0229-2; Brody et al. 2022, arXiv:2105.14491",
    needs=NEEDS,
    named=True,
)
def vae(
    counts: sparse.csr_matrix,
    morphology: Float | None,
    graph: SpatialGraph,
    *,
    batch: NDArray[Any] | None = None,
    seed: int = 0,
    epochs: int = 120,
    learning_rate: float = 5e-3,
    patience: int = 15,
    n_genes: int = N_GENES,
    n_extra: int = 0,
    n_members: int = 1,
    device: str = "auto",
    folder: str | None = None,
    tile: int = 4096,
    save_model: str | None = None,
    load_model: str | None = None,
    names: Sequence[str] | None = None,
    **options: Any,
) -> Fusion:
    """Graph variational autoencoder around the deterministic fusion; needs ``smeld[deep]``.

    ``counts`` CSR [n_obs, n_genes] whole numbers, ``morphology``, ``graph``, ``batch`` and ``options`` as for
    ``"sme"``, which is run first: its embedding is the mean of the prior (components of smoothed profiles in its place
    where fewer than 5 of its components survive, as on small panels), its graph the prior's and the encoder's.
    Morphology speaks through the graph's edges and the prior. ``epochs`` at most, until the score on held-out counts (a
    tenth) has not improved for ``patience``; ``n_genes`` in the decoder, those with most say; ``n_extra`` components
    beyond the prior's; ``n_members`` networks, each trained from a seed of its own, whose embeddings are averaged and
    whose spread joins the posterior's (so many times the training); ``device`` as torch names it; ``folder`` keeps the
    state, to go on from after an interruption (of several members in a folder each); ``tile`` spots at a time (with a
    halo: the posterior does not depend on it). ``save_model`` writes the trained model to that folder
    (``model.safetensors``, ``model.json``); ``load_model`` applies such a model to this section,
    whose genes are matched by ``names``, and trains nothing. A model with components of morphology, which are those of
    its own section, is not saved.

    Raises
    ------
    InputError
        Without torch; for values that are not whole counts; if training diverges; for members with ``n_extra``,
        ``save_model`` or ``load_model``.
    """
    nn.require("method='vae'", *NEEDS, instead="use method='sme'")
    from smeld.nn import _vae_fit

    _check_members(n_members, {"n_extra": n_extra, "save_model": save_model, "load_model": load_model})
    if not np.equal(np.mod(counts.data, 1), 0).all():
        raise _check.problem("the graph VAE models counts", found="values that are not whole", cure="method='sme'")
    called = [str(i) for i in range(counts.shape[1])] if names is None else [str(name) for name in names]
    if load_model is not None:
        return _vae_model.apply(
            load_model, counts, called, graph, morphology, batch=batch, seed=seed, device=device, tile=tile
        )
    base = deterministic.sme(counts, morphology, graph, batch=batch, seed=seed, **options)
    d = int(base.facts["n_components"])
    chosen = _genes(base, n_genes)
    table = sparse.csr_matrix(counts[:, chosen])
    table.sort_indices()
    alpha = float(base.facts["alpha"])
    prior, basis = base.embedding, "components"
    if d < FEWEST_COMPONENTS:
        found, axes = profiles.reliable(table, base.weights, alpha, seed=seed)
        if found.shape[1] > d:
            if batch is not None:
                found = _variants.recentred(found, np.zeros_like(found), batch)
            prior, basis = np.hstack([found, base.embedding[:, d:]]), "profiles"
    scale = float(prior.std(axis=0).max())
    if scale <= 0:  # all spots are alike: there is nothing to learn
        return replace(base, posterior_sd=np.zeros_like(base.embedding))
    inputs = _vae_fit.Inputs(
        table,
        base.weights,
        prior / scale,
        np.zeros(len(prior), dtype=np.intp) if batch is None else np.asarray(batch),
        graph.xy_um,
        alpha,
    )
    sizes: dict[str, Any] = {"n_extra": n_extra, "device": device, "tile": tile}
    schedule = _vae_fit.schedule(epochs, learning_rate, patience, None)
    trained = [
        _train(inputs, replace(schedule, folder=where), seed=own, **sizes)
        for own, where in zip(member_seeds(seed, n_members), _folders(folder, n_members))
    ]
    if save_model is not None:
        _save(save_model, trained[0].model, base, prior, scale, (chosen, called), axes if basis == "profiles" else None)
    delta, sd, between = _combined(trained)
    correction = delta * scale
    embedding = np.hstack([prior, np.zeros((len(prior), n_extra))]) + correction
    facts = {
        **base.facts,
        "basis": basis,
        "epochs": max(len(one.held_out) for one in trained),
        "held_out": float(np.mean([one.best for one in trained])),
        "correction_sd": float(correction[:, :d].std()) if basis == "components" else float("nan"),
        "n_decoder_genes": len(chosen),
        "n_members": n_members,
    }
    if n_members > 1:
        facts["ensemble_sd"] = _rms(between * scale) / _rms(embedding.std(axis=0))
    return replace(base, embedding=embedding, posterior_sd=sd * scale, facts=facts)


@dataclass(frozen=True)
class _Trained:
    """One member: its network, its posterior as in ``nn._vae_fit``, the held-out score by epoch and the best one."""

    model: Any
    posterior: Any
    held_out: list[float]
    best: float


def _train(inputs: Any, schedule: Any, *, n_extra: int, seed: int, device: str, tile: int) -> _Trained:
    from smeld.nn import _vae_fit

    model = _vae_fit.new_model(inputs, n_extra, seed=seed)
    posterior, history, _ = _vae_fit.train(model, inputs, schedule, seed=seed, device=device, tile=tile)
    best = history.held_out[history.best] if history.held_out else float("nan")
    return _Trained(model, posterior, history.held_out, best)


def member_seeds(seed: int, n_members: int) -> list[int]:
    """The seed of each member: the first is that of a single run, so that an ensemble contains it."""
    from smeld.nn import _device

    return [seed, *(_device.seed_of(seed, MEMBERS, member) for member in range(1, n_members))]


def _folders(folder: str | None, n_members: int) -> list[Path | None]:
    if folder is None:
        return [None] * n_members
    return [Path(folder)] if n_members == 1 else [Path(folder) / f"member_{m + 1}" for m in range(n_members)]


def _combined(trained: list[_Trained]) -> tuple[Float, Float, Float]:
    """(mean correction, standard deviation of the mixture of all posteriors, that of the members' means alone), each
    [n_obs, d]. Members share the prior's axes, so that their corrections can be averaged as they are."""
    if len(trained) == 1:
        one = trained[0].posterior
        return one.delta, one.sd, np.zeros_like(one.sd)
    deltas = np.stack([one.posterior.delta for one in trained])
    within = np.mean([one.posterior.sd**2 for one in trained], axis=0)
    between = deltas.std(axis=0)
    return deltas.mean(axis=0), np.sqrt(within + between**2), between


def _rms(values: Float) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _check_members(n_members: int, others: dict[str, Any]) -> None:
    if n_members < 1:
        raise _check.problem("n_members must be at least 1", found=f"{n_members}", cure="leave it out")
    given = [f"{name}={value}" for name, value in others.items() if value]
    if n_members > 1 and given:
        why = {"n_extra": "axes beyond the prior's differ between networks and cannot be averaged"}
        reason = why.get(given[0].partition("=")[0], "a stored model is a single network")
        raise _check.problem(f"n_members > 1 does not go with {given[0]}: {reason}", found=f"n_members={n_members}",
                             cure="leave one of the two out")  # fmt: skip


def _save(
    folder: str,
    model: Any,
    base: Fusion,
    prior: Float,
    scale: float,
    genes: tuple[NDArray[np.intp], list[str]],
    axes: Float | None,
) -> None:
    """``genes``: numbers of those in the decoder, and all names; ``axes`` of smoothed profiles, None: the loadings'."""
    chosen, called = genes
    made_of = prior.shape[1] - int(base.facts["n_morphology"])
    if made_of != prior.shape[1]:
        raise _check.problem(
            "a model with components of morphology cannot be saved: they are those of its own section",
            found=f"{prior.shape[1] - made_of} components of morphology",
            cure="pass n_morphology=0",
        )
    loadings = np.zeros((len(called), 0)) if base.loadings is None else base.loadings
    rows = chosen if axes is not None else np.flatnonzero(np.abs(loadings).sum(axis=1) > 0)
    used = axes if axes is not None else loadings[rows]
    facts = {key: float(base.facts[key]) for key in ("alpha", "gamma", "eta")}
    recipe = _vae_model.Recipe("components" if axes is None else "profiles", scale=scale, **facts)
    _vae_model.save(folder, model, recipe, [called[g] for g in chosen], used, [called[g] for g in rows])


def _genes(base: Fusion, n_genes: int) -> NDArray[np.intp]:
    """Genes with most say in the components, that with most first: what is drawn must not depend on their order."""
    say = np.zeros(0) if base.loadings is None else (base.loadings**2).sum(axis=1)
    used = np.flatnonzero(say > 0)
    return np.asarray(used[np.argsort(-say[used], kind="stable")[:n_genes]])
