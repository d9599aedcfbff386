"""Denoised expression and imputed zeros, from the graph of the last fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import denoise as kernel
from smeld.kernels import denoise_choice as choice
from smeld.kernels.denoise import Settings
from smeld.tl import _denoise_network as network
from smeld.tl import _denoise_vae as bayes
from smeld.tl._denoise_network import How

if TYPE_CHECKING:
    import pandas as pd

Noise = Literal["poisson", "overdispersed"]
METHODS, NOISES = ("sme", "vae"), ("poisson", "overdispersed")
N_COMPONENTS = 30
#: fewer spots than this are too few to choose settings from
FEWEST_SPOTS = 64
#: spots that the axes are found on
MOST_FOR_AXES = 20_000


@dataclass(frozen=True)
class Denoised:
    """``slot`` and ``key`` of what was written; ``settings`` used, which may be given to another call; ``scores``: a
    table by method of the errors on held-out counts (None where settings were given or the section is too small)."""

    slot: str
    key: str
    settings: Settings
    scores: pd.DataFrame | None


@dataclass(frozen=True)
class _Input:
    """Arrays in canonical order."""

    counts: sparse.csr_matrix
    weights: sparse.csr_matrix
    size: NDArray[np.float64]
    xy_um: NDArray[np.float64]
    order: NDArray[np.intp]
    graph: sparse.csr_matrix  # the fusion's weights as they are

    @property
    def splittable(self) -> bool:
        """True where there are enough spots to choose settings from."""
        return len(self.size) >= FEWEST_SPOTS


def denoise(
    data: Any,
    *,
    layer: str | None = None,
    key_added: str | None = None,
    genes: Sequence[str] | None = None,
    method: str = "sme",
    noise: Noise = "poisson",
    settings: Settings | None = None,
    n_components: int = N_COMPONENTS,
    max_gib: float = 4.0,
    seed: int = 0,
    interval: float | None = None,
    model: str | None = None,
    **options: Any,
) -> Denoised:
    """Expected counts of every spot, from its own counts and those of spots alike. Works in place; X is not changed.

    Runs ``sm.fuse`` first if nothing is fused yet. Counts are taken as Poisson draws from rates of low rank whose
    scores vary smoothly along the fused graph; a spot with few counts listens to its neighbours more. A gene's own
    excess over that is kept as far as its dispersion says that it is signal. How smooth each component is, how many
    are used, and how much of the spot's own is kept is chosen, without labels, by how well one half of the counts
    predicts the other (on about 800 spots of a large section). What is chosen are variances of the truth: they hold
    at any depth, so what half the counts taught is used with all of them.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table; whole counts.
    layer
        Layer that holds the counts; ``X`` by default.
    key_added
        Name of what is written; the method's by default.
    genes
        Names of genes; all by default. The others take part in the estimate, but are not written.
    method
        ``"sme"``: along the graph weighed by space, morphology and expression. ``"vae"`` (needs ``smeld[deep]``): the
        rates of that are blended with those of a graph VAE as far as hidden counts say; genes that its decoder does
        not have (of more than 3,000 it has the 2,000 most dispersed) keep the others' rates. A spot's own count joins
        by the gene's dispersion about the blend. Only with ``noise="poisson"``, as intervals.
    noise
        ``"poisson"``: what a spot's counts say beyond sampling noise is the spot's own expression. ``"overdispersed"``:
        what neighbours do not share counts as noise too (counts are split beta-binomially, with the dispersion of
        differences between neighbours): for maps of regions, not for single cells of many types.
    settings
        ``settings`` of an earlier result: nothing is chosen then, which saves most of the time.
    n_components
        Most components of the prior, those without held-out gain are left out; 30 as in ``sm.fuse``.
    max_gib
        Largest output in GiB (4 bytes a value); more is refused.
    seed
        Seed of the count splits, and of the network.
    interval
        Probability of an interval for each value (0.9); None for none. It is of the spot's own rate, and as wide as
        hidden counts say that it must be.
    model
        ``"vae"``: folder of a model that ``sm.fuse(method="vae", save_model=folder)`` wrote; None trains one.
    options
        ``"vae"``: ``epochs``, ``learning_rate``, ``patience``, ``n_genes``, ``folder``, ``tile``, ``device``, as in
        ``sm.fuse(method="vae")``.

    Writes
    ------
    ``layers["sme"]`` float32 [n_obs, n_vars], expected counts at the spot's own library size; with ``genes``,
    ``obsm["sme"]`` (DataFrame [n_obs, n_genes]) instead; ``"vae"`` for that method. With ``interval`` the bounds too,
    ``"sme_low"`` and ``"sme_high"``, likewise. The record ``uns["smeld"]["sme"]``.

    Returns
    -------
    :class:`Denoised`, with the table of errors on held-out counts: Poisson deviance per count, and squared error of
    log-normalised values. For ``"vae"`` they are of a fifth of the counts that no
    network saw.

    Raises
    ------
    InputError
        For values that are not whole counts, unknown genes, or an output larger than ``max_gib``; for
        ``"vae"`` without torch, or with a model of other genes.

    Notes
    -----
    Count splitting: Neufeld et al. 2024, doi:10.1093/biostatistics/kxac047; own part: Huang et al. 2018 (SAVER),
    doi:10.1038/s41592-018-0033-z; S x M x E weights after Pham et al. 2023, doi:10.1038/s41467-023-43120-6.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0, image=False)
    >>> made = sm.tl.denoise(adata)
    >>> adata.layers["sme"].shape
    (400, 100)
    >>> bool(made.scores.loc["smeld", "deviance"] < made.scores.loc["measured", "deviance"])
    True
    """
    if method not in METHODS:
        raise _check.unknown("denoising method", method, METHODS)
    how = How(method, interval, model, options)
    network.check(how, noise)
    key = key_added if key_added is not None else method
    return _run(data, "sm.tl.denoise", layer, key, genes, noise, settings, n_components, max_gib, seed, how)


def impute(
    data: Any,
    *,
    layer: str | None = None,
    key_added: str = "imputed",
    genes: Sequence[str] | None = None,
    noise: Noise = "poisson",
    settings: Settings | None = None,
    n_components: int = N_COMPONENTS,
    max_gib: float = 4.0,
    seed: int = 0,
) -> Denoised:
    """Fill zeros with expected counts; measured counts stay as they are. Works in place; X is not changed.

    The expected count of a zero is that of :func:`denoise`: the chance that the gene was there and not drawn, given
    the zero itself. Row sums grow by what is filled in.

    Parameters
    ----------
    data, layer, genes, noise, settings, n_components, max_gib, seed
        As in :func:`denoise`.
    key_added
        Name of what is written.

    Writes
    ------
    ``layers["imputed"]`` float32 [n_obs, n_vars]; with ``genes``, ``obsm["imputed"]`` (DataFrame) instead.

    Returns
    -------
    :class:`Denoised`.

    Raises
    ------
    InputError
        As in :func:`denoise`.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0, image=False)
    >>> sm.tl.impute(adata).key
    'imputed'
    """
    how = How(zeros_only=True)
    return _run(data, "sm.tl.impute", layer, key_added, genes, noise, settings, n_components, max_gib, seed, how)


def _run(
    data: Any,
    function: str,
    layer: str | None,
    key: str,
    genes: Sequence[str] | None,
    noise: str,
    settings: Settings | None,
    n_components: int,
    max_gib: float,
    seed: int,
    how: How,
) -> Denoised:
    adata = _adapt.table(data)
    _check_options(noise, n_components, settings, key, layer)
    columns = _columns(adata, genes)
    _check_size(adata.n_obs, len(columns) * (1 if how.interval is None else 3), max_gib)
    found = _arrays(adata, layer, seed)
    origin = "given" if settings is not None else "held-out counts" if found.splittable else "fixed"
    settings, scores = _settings(found, settings, noise, n_components, seed)
    section = _section(found, settings)
    facts: dict[str, Any] = {}
    made = {"": _expected(section, columns, found.order, how.zeros_only)} if how.method == "sme" else {}
    if how.method == "vae" or how.interval is not None:
        posterior = bayes.estimate(
            section, adata, how, graph=found.graph, xy_um=found.xy_um, columns=columns, place=found.order, seed=seed,
            mean=made.get(""),
        )  # fmt: skip
        made = {k: v for k, v in posterior.values.items() if v is not None}
        scores = posterior.fit.scores if how.method == "vae" else scores
        facts = {"method": how.method, "interval": how.interval, "model": how.model, **posterior.facts}
    for suffix, values in made.items():
        slot = _write(adata, key + suffix, values, columns, whole=genes is None)
    params = {"noise": noise, "n_components": settings.rank, "ridge": settings.ridge, "own": settings.own,
              "trust": settings.trust, "settings_from": origin, **facts}  # fmt: skip
    inputs = {"layer": layer or "X", "weights": _keys.SME_WEIGHTS}
    _keys.record(adata, key, function=function, params=params, seed=seed, inputs=inputs)
    return Denoised(slot, key, settings, scores)


def _check_options(noise: str, n_components: int, settings: object, key: str, layer: str | None) -> None:
    if noise not in NOISES:
        raise _check.unknown("noise", noise, NOISES)
    if n_components < 1:
        raise _check.problem("n_components must be at least 1", found=str(n_components))
    if settings is not None and not isinstance(settings, Settings):
        raise _check.problem(
            "settings must be those of an earlier result",
            found=type(settings).__name__,
            cure="pass sm.tl.denoise(other).settings, or leave it out",
        )
    if layer is not None and key == layer:
        raise _check.problem(
            "the counts' own layer would be replaced", found=f"key_added={key!r}", cure="choose another key_added"
        )


def _columns(adata: Any, genes: Sequence[str] | None) -> NDArray[np.intp]:
    if genes is None:
        return np.arange(adata.n_vars)
    names = [genes] if isinstance(genes, str) else list(genes)
    at = np.asarray(adata.var_names.get_indexer(names) if adata.var_names.is_unique else [-1] * len(names))
    missing = [name for name, i in zip(names, at) if i < 0]
    if missing or not names:
        cure = "name genes of adata.var_names" if adata.var_names.is_unique else "adata.var_names_make_unique()"
        raise _check.problem("genes that are not in the table", found=_check.listed(missing), cure=cure)
    return at.astype(np.intp)


def _check_size(n_obs: int, n_genes: int, max_gib: float) -> None:
    gib = 4 * n_obs * n_genes / 2**30
    if gib > max_gib:
        raise _check.problem(
            f"the denoised table would take {gib:.1f} GiB, more than max_gib={max_gib:g}",
            found=f"{n_obs} spots x {n_genes} genes",
            cure="pass genes=[...] with the genes you need, or a larger max_gib",
        )


def _arrays(adata: Any, layer: str | None, seed: int) -> _Input:
    counts = _adapt.counts(adata, layer)
    if not kernel.whole(counts.data):
        raise _check.problem(
            "denoising rests on the noise of counts: whole numbers are needed",
            found=f"values such as {float(counts.data[np.mod(counts.data, 1) != 0][0]):.4g}",
            cure="give raw counts, in X or with layer=",
        )
    xy = _adapt.xy_um(adata)
    if _keys.SME_WEIGHTS not in adata.obsp:
        from smeld.fusion import fuse

        fuse(adata, layer=layer, seed=seed)
    order = _adapt.canonical_order(adata)
    weights = sparse.csr_matrix(adata.obsp[_keys.SME_WEIGHTS], dtype=np.float64)
    if not np.array_equal(order, np.arange(len(order))):
        counts, weights = sparse.csr_matrix(counts[order]), sparse.csr_matrix(weights[order][:, order])
    counts, weights = _tidy(counts), _tidy(weights)
    graph = weights
    total = float(weights.data.sum())
    # the mean degree is made 1: settings then mean the same whatever the fusion's own scale is
    weights = sparse.csr_matrix(weights * (weights.shape[0] / total if total > 0 else 1.0))
    size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    return _Input(counts, weights, size, xy[order], order, graph)


def _tidy(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sorted, without duplicates; never the caller's own arrays changed."""
    if matrix.has_canonical_format:
        return matrix
    matrix = matrix.copy()
    matrix.sum_duplicates()
    return matrix


def _settings(
    found: _Input, settings: Settings | None, noise: str, n_components: int, seed: int
) -> tuple[Settings, pd.DataFrame | None]:
    """The settings given, else those that predict held-out counts best, with the table of errors."""
    if settings is not None:
        return settings, None
    if not found.splittable:
        return choice.fixed(n_components, float(found.size.mean())), None
    rows = choice.sample(found.xy_um)
    made = choice.choose(
        found.counts[rows],
        _within(found.weights, rows),
        n_components=n_components,
        overdispersed=noise == "overdispersed",
        seed=np.random.SeedSequence(seed),
    )
    return made.settings, _table(made)


def _within(weights: sparse.csr_matrix, rows: NDArray[np.intp]) -> sparse.csr_matrix:
    return sparse.csr_matrix(weights[rows][:, rows])


def _table(made: choice.Choice) -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame(made.errors, index=["deviance", "log_error"]).T
    return table.rename_axis("method")


def _section(found: _Input, settings: Settings) -> network.Section:
    """With its axes, which are found on compact pieces of a very large section."""
    rows = choice.sample(found.xy_um, MOST_FOR_AXES)
    gene = kernel.gene_moments(found.counts, found.size)
    counts, size, weights = found.counts, found.size, found.weights
    if len(rows) < len(found.size):
        counts, size, weights = counts[rows], size[rows], _within(weights, rows)
    on = kernel.axes(counts, size, weights, gene, n_components=len(settings.smoothing))
    return network.Section(found.counts, found.weights, found.size, on, settings)


def _expected(
    section: network.Section, columns: NDArray[np.intp], order: NDArray[np.intp], zeros_only: bool
) -> NDArray[np.float32]:
    counts, size, settings = section.counts, section.size, section.settings
    made = kernel.prior(
        counts, size, kernel.gene_moments(counts, size), section.scores(counts, size), ridge=settings.ridge
    )
    own = settings.own * kernel.own_dispersion(counts, size, made)
    return kernel.expected(
        counts, size, made, own, trust=settings.trust, genes=columns, place=order, zeros_only=zeros_only
    )


def _write(adata: Any, key: str, values: NDArray[np.float32], columns: NDArray[np.intp], *, whole: bool) -> str:
    import pandas as pd

    if whole:
        adata.layers[key] = values
        return "layers"
    adata.obsm[key] = pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names[columns])
    return "obsm"
