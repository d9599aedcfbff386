"""The graph VAE that ``sm.tl.denoise`` asks: trained on the section, or loaded from a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys, nn
from smeld.kernels import denoise as kernel
from smeld.kernels.denoise import Settings

if TYPE_CHECKING:
    from smeld.nn._vae_rates import Rates

Float = NDArray[np.float64]
Index = NDArray[np.intp]

#: up to this many genes the decoder has all of them, else this many of the most dispersed
ALL_GENES, N_GENES = 3000, 2000
#: what a training takes
OPTIONS = ("epochs", "learning_rate", "patience", "n_genes", "device", "folder", "tile")
#: strength of the field of the VAE, as deterministic fusions of cortex and simulated sections choose it
ALPHA = 9.0


@dataclass(frozen=True)
class How:
    """What was asked for: the method, the probability of intervals, a saved model, options of the training."""

    method: str = "sme"
    interval: float | None = None
    model: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    zeros_only: bool = False


@dataclass(frozen=True)
class Section:
    """Arrays in canonical order: ``counts``, ``weights`` of mean degree 1, ``size`` of libraries, ``q`` on ``axes``."""

    counts: sparse.csr_matrix
    weights: sparse.csr_matrix
    size: Float
    axes: kernel.Axes
    settings: Settings

    def scores(self, counts: sparse.csr_matrix, size: Float) -> Float:
        """The smoothed scores of these counts, on the section's axes."""
        r = kernel.differences(counts, size, kernel.gene_moments(counts, size), self.axes)
        return kernel.posterior(self.weights, size, r, self.settings)


@dataclass(frozen=True)
class Network:
    """A trained ``model``: its genes are columns ``genes`` of the table, ``columns`` of the decoder; ``prior_of`` makes
    the prior's mean of counts."""

    model: Any
    inputs: Any
    genes: Index
    columns: Index
    prior_of: Callable[[sparse.csr_matrix], Float]
    epochs: int
    device: str
    seed: int

    def rates(self, counts: sparse.csr_matrix) -> Rates:
        """The posterior from these counts."""
        from smeld.nn import _vae_rates

        inputs = replace(self.inputs, counts=self.table(counts), prior=self.prior_of(counts))
        return _vae_rates.Rates(self.model, inputs, seed=self.seed, device=self.device)

    def table(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        picked = sparse.csr_matrix(counts[:, self.genes]).tocoo()
        shape = (counts.shape[0], self.model.shape.n_genes)
        table = sparse.csr_matrix((picked.data, (picked.row, self.columns[picked.col])), shape=shape)
        table.sort_indices()
        return table


def require() -> None:
    """``InputError`` without torch."""
    nn.require("method='vae'", "torch", "torch_geometric", "safetensors", instead="use method='sme'")


def batches(adata: Any, order: Index) -> Index:
    """Numbers of the sections that the fusion's graph was made of."""
    made = adata.uns.get(_keys.RECORD, {}).get(_keys.DISTANCES, {}).get("params", {})
    key = str(made.get("batch_key", "none"))
    return np.asarray(_adapt.sections(adata, None if key == "none" else key)[0][order], dtype=np.intp)


def train(
    section: Section,
    counts: sparse.csr_matrix,
    xy_um: Float,
    batch: Index,
    *,
    seed: int,
    n_genes: int | None = None,
    device: str = "auto",
    **options: Any,
) -> Network | None:
    """A network trained on these counts of the section, its prior's mean their smoothed scores; None where all spots
    are alike."""
    from smeld.nn import _vae_fit, _vae_rates

    gene = kernel.gene_moments(section.counts, section.size)
    n_all = section.counts.shape[1]
    most = n_genes or (n_all if n_all <= ALL_GENES else N_GENES)
    genes = np.flatnonzero(gene.total > 0)
    if most < len(genes):
        genes = kernel.axis_genes(gene, section.size, most)
    size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    scale = float(section.scores(counts, size).std(axis=0).max(initial=0.0))
    if scale <= 0 or len(genes) < 2:
        return None

    def prior_of(counts: sparse.csr_matrix) -> Float:
        size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        return section.scores(counts, size) / scale

    table = sparse.csr_matrix(counts[:, genes])
    inputs = _vae_fit.Inputs(table, section.weights, prior_of(counts), batch, xy_um, ALPHA)
    model, epochs = _vae_rates.trained(inputs, seed=seed, device=device, **options)
    return Network(model, inputs, genes, np.arange(len(genes)), prior_of, epochs, device, seed)


def load(
    folder: str, section: Section, names: Sequence[str], graph: sparse.csr_matrix, xy_um: Float, *,
    seed: int, device: str = "auto",
) -> Network:  # fmt: skip
    """A network that ``sm.fuse(method="vae", save_model=folder)`` saved; nothing is trained. ``graph`` the fusion's
    weights as they are."""
    from smeld.fusion import _vae_model
    from smeld.kernels import smooth
    from smeld.nn import _store, _vae, _vae_fit, _vae_rates

    config, state = _store.load(folder, _vae_model.KIND)
    recipe, shape = _vae_model.Recipe(**config["recipe"]), _vae.Shape(**config["shape"])
    axes = state.pop("axes").numpy().astype(np.float64)
    called = [str(name) for name in names]
    position = {name: i for i, name in enumerate(called)}
    table, columns = _vae_model._matched(section.counts, called, config["genes"])

    def prior_of(counts: sparse.csr_matrix) -> Float:
        projected, _ = _vae_model._matched(counts, called, config["axes_genes"])
        found = _vae_model._scores(counts, projected, graph, recipe, axes)
        return (found if recipe.basis == "profiles" else smooth.smooth(graph, found, recipe.alpha)) / recipe.scale

    model = _vae.GraphVAE(shape, np.ones(shape.n_genes), np.ones(shape.n_genes))
    model.load_state_dict(state)
    model.scale[~np.isin(np.arange(shape.n_genes), columns)] = _vae_model.ABSENT
    _vae_rates.without_sections(model)
    one = np.zeros(len(xy_um), dtype=np.intp)
    inputs = _vae_fit.Inputs(table, graph, prior_of(section.counts), one, xy_um, recipe.alpha)
    genes = np.array([position[config["genes"][g]] for g in columns], dtype=np.intp)
    return Network(model, inputs, genes, columns, prior_of, 0, device, seed)


def check(how: How, noise: str) -> None:
    """``InputError`` for an interval out of range, noise that intervals do not know, or options without a network."""
    interval, options = how.interval, how.options
    if interval is not None and not 0 < interval < 1:
        raise _check.problem("interval is a probability between 0 and 1", found=f"{interval:g}", cure="interval=0.9")
    if how.method != "vae" and (how.model is not None or options):
        found = _check.listed(options or ["model"])
        raise _check.problem("options of a network, but none is asked for", found=found, cure="method='vae'")
    known = OPTIONS if how.model is None else ("device",)
    for name in options:
        if name not in known:
            raise _check.unknown("option", name, known)
    if noise == "overdispersed" and (how.method == "vae" or interval is not None):
        raise _check.problem(
            "method='vae' and intervals are of the spot's own rate, without noise beside Poisson's",
            found="noise='overdispersed'",
            cure="noise='poisson', or method='sme' without interval",
        )
