"""Niches: parts of the tissue whose cells have the same surroundings, by cell types and morphology."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.fusion._variants import Variant
from smeld.kernels import alongpath
from smeld.kernels import niches as kernel
from smeld.kernels._threads import one_thread
from smeld.kernels.graph import sectioned_graph
from smeld.tl import _composition, _domains

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]

NICHE = "niche"
PROPORTIONS_SUFFIX = "_proportions"
MAX_NICHES, N_NEIGHBORS = 10, 15
#: larger sections are not thinned: there the starts see different samples of the cells
MOST_THINNED = 20_000
#: components of morphology that are looked at, and at which they must follow the niches that types make by themselves,
#: all together
MOST_COMPONENTS, FOLLOWS = 10, 0.01
#: principal components that features of morphology are first brought down to
REDUCED = 30


@dataclass(frozen=True)
class Niches:
    """``labels`` by cell ("N1" is the largest niche), ``prob`` [n_obs, n_niches], ``composition`` and ``enrichment``
    [n_niches, n_types], ``n_niches``, ``stability`` (mean adjusted Rand index between two members of the consensus),
    ``n_morphology`` components that were used, and ``selection``, where the number was chosen."""

    labels: pd.Series
    prob: pd.DataFrame
    composition: pd.DataFrame
    enrichment: pd.DataFrame
    n_niches: int
    stability: float
    n_morphology: int
    selection: pd.DataFrame | None


@dataclass(frozen=True)
class Around:
    """Cells in the canonical ``order``: positions, sections, ``membership`` [n_obs, n_types] in types ``names``, the
    ``graph`` of neighbours, the averaging ``operator`` of that graph, and components of ``morphology`` [n_obs, m]."""

    order: Int
    xy_um: Float
    section: Int
    membership: Float
    names: list[str]
    graph: sparse.csr_matrix
    operator: sparse.csr_matrix
    morphology: Float

    def shares(self, values: Float, times: int = kernel.SCALES[0]) -> Float:
        """Shares of types around every cell, by the membership ``values`` of those that are seen."""
        return kernel.shares(self.operator, values, times)

    def looks(self, values: Float, times: int = kernel.SCALES[0]) -> Float:
        """Mean morphology around every cell, of the cells whose ``values`` are not all 0."""
        seen = (np.abs(values).sum(axis=1, keepdims=True) > 0).astype(np.float64)
        total = kernel.averaged(self.operator, seen, times)
        around = kernel.averaged(self.operator, values, times)
        return np.divide(around, total, out=np.zeros_like(around), where=total > 1e-12)


def niches(
    data: Any,
    groups: str = _keys.CELL_TYPE,
    *,
    n_niches: int | None = None,
    radius_um: float | None = None,
    n_neighbors: int = N_NEIGHBORS,
    use_morphology: bool | str = "auto",
    batch_key: str | None = None,
    max_niches: int = MAX_NICHES,
    n_starts: int = _domains.N_STARTS,
    n_splits: int = _domains.N_SPLITS,
    key_added: str = NICHE,
    seed: int = 0,
) -> Niches:
    """Find niches: where in the tissue cells have like surroundings. Works in place.

    Shares of cell types (of spots: mean proportions) are averaged over each cell and its neighbours, and averaged
    again, so that near cells count more. Components on which two random halves of the cells agree go into Gaussian
    mixtures with one shared covariance; the consensus is over starts, half and twice that scale, and sections thinned
    to 80 % of the cells. Nothing of expression is used but the types.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, with ``obsm["spatial_um"]``; cells, spots or bins.
    groups
        Column of ``obs`` with types; or, where there is one, the table ``obsm["<groups>_proportions"]``. Cells without
        a type count for nothing and get a niche.
    n_niches
        Number of niches. None: chosen by BIC and stability, as in ``sm.tl.domains``.
    radius_um
        Neighbours are all others this near. None: one ring of a lattice, or the ``n_neighbors`` nearest elsewhere. As
        averages are taken twice, surroundings reach about twice as far.
    n_neighbors
        Number of neighbours where no radius is given.
    use_morphology
        True: components of ``obsm["morph_*"]`` (the last stored) on which two halves of the cells agree are used beside
        the types. ``"auto"``: those of them that follow the niches of types more than a map as smooth would by chance.
        A key in ``obsm``: as True, from there. False: none.
    batch_key
        Column of ``obs`` that names each cell's section: niches are shared by all, neighbours sought within sections.
    max_niches
        Largest number looked at when ``n_niches`` is not given.
    n_starts, n_splits
        Starts of the mixture on each variant, and thinned sections (none above 20,000 cells).
    key_added
        Prefix of what is written.
    seed
        Seed of starts, halves and thinning.

    Writes
    ------
    ``obs["niche"]`` (categorical, "N1" the largest), ``obs["niche_confidence"]`` in [0, 1], ``obsm["niche_prob"]``
    (DataFrame), ``uns["niche_composition"]`` (a row a niche, a column a type: share of the niche's cells) and
    ``uns["niche_enrichment"]`` (log2 of that over the share in all cells, half a cell added to each count),
    ``uns["niche_selection"]`` when the number was chosen here.

    Returns
    -------
    The same as a frozen :class:`Niches`.

    Raises
    ------
    InputError
        If types, positions, sections or features are missing, there is one type only, or numbers are out of range.

    Examples
    --------
    >>> import smeld as sm
    >>> cells = sm.datasets.simulate_niches(800, 40, seed=0)
    >>> found = sm.tl.niches(cells, "truth_cell_type", n_niches=3)
    >>> list(found.composition.index)
    ['N1', 'N2', 'N3']

    References
    ----------
    Windows of cell types as niches: Goltsev et al., Cell 174 (2018) 968; Schuerch et al., Cell 182 (2020) 1341.
    """
    import pandas as pd

    adata = _adapt.table(data)
    _check_settings(adata, n_niches, max_niches=max_niches, n_starts=n_starts, n_splits=n_splits)
    key = _morphology_key(adata, use_morphology)
    made = around(adata, groups, radius_um=radius_um, n_neighbors=n_neighbors, batch_key=batch_key, key_added=key_added)
    seeds = np.random.SeedSequence(seed).spawn(3)
    settings = (n_niches, max_niches, n_starts, n_splits)
    prob, stability, selection = _found(made, settings, seeds[0])
    told = _morphology(adata, made, key, use_morphology == "auto", prob, seeds[1])
    made = replace(made, morphology=told)
    if made.morphology.shape[1]:
        prob, stability, selection = _found(made, settings, seeds[2])
    _domains._keep_given(adata, key_added)
    names = [f"N{k + 1}" for k in range(prob.shape[1])]
    shown = np.empty_like(prob)
    shown[made.order] = prob
    frame = pd.DataFrame(shown, index=adata.obs_names, columns=names)
    adata.obs[key_added] = pd.Categorical.from_codes(shown.argmax(axis=1), categories=names)
    adata.obs[key_added + _keys.CONFIDENCE_SUFFIX] = shown.max(axis=1)
    adata.obsm[key_added + _keys.PROB_SUFFIX] = frame
    composition, enrichment = _tables(prob, made, names)
    adata.uns[f"{key_added}_composition"], adata.uns[f"{key_added}_enrichment"] = composition, enrichment
    adata.uns.pop(f"{key_added}_selection", None)  # of an earlier run
    if selection is not None:
        adata.uns[f"{key_added}_selection"] = selection
    params = {
        "n_niches": len(names), "n_niches_from": "given" if n_niches is not None else "BIC and stability",
        "radius_um": radius_um, "n_neighbors": n_neighbors, "n_morphology": made.morphology.shape[1],
        "n_starts": n_starts, "n_splits": n_splits, "stability": stability,
    }  # fmt: skip
    inputs = {"groups": groups, "batch_key": batch_key, "use_morphology": str(use_morphology)}
    _keys.record(adata, key_added, function="sm.tl.niches", params=params, seed=seed, inputs=inputs)
    return Niches(
        adata.obs[key_added], frame, composition, enrichment, len(names), stability, made.morphology.shape[1], selection
    )


def _check_settings(adata: Any, n_niches: int | None, **numbers: Any) -> None:
    if n_niches is not None and not (_is_whole(n_niches) and 1 <= n_niches <= adata.n_obs):
        raise _check.problem(
            "n_niches must be a whole number from 1 to the number of cells", found=repr(n_niches)[:80],
            cure="give another number, or leave it out",
        )  # fmt: skip
    for name, value in numbers.items():
        least = 0 if name == "n_splits" else 1
        if not _is_whole(value) or value < least:
            raise _check.problem(f"{name} must be a whole number of at least {least}", found=repr(value)[:80])


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def around(
    adata: Any, groups: str, *, radius_um: float | None, n_neighbors: int, batch_key: str | None, key_added: str
) -> Around:
    """Types and neighbours of all cells, checked, in canonical order; no morphology yet."""
    _composition._check_settings(radius_um, n_neighbors, key_added)
    membership, names = _composition._membership(adata, groups, soft=groups + PROPORTIONS_SUFFIX in adata.obsm)
    if len(names) < 2:
        raise _check.problem(
            "niches need at least two types", found=f"only {names[0]!r} in {groups!r}", cure="name a column with more"
        )
    order = _adapt.canonical_order(adata)
    section, _ = _adapt.sections(adata, batch_key)
    xy = _adapt.xy_um(adata)[order]
    settings: dict[str, Any] = {"kind": "auto", "n_neighbors": int(n_neighbors)}
    if radius_um is not None:
        settings = {"kind": "radius", "radius_um": radius_um}
    try:
        graph = sectioned_graph(xy, section[order], **settings).connectivities
    except ValueError as error:
        raise _check.problem(str(error)) from error
    if not graph.nnz:
        raise _check.problem(
            "no cell has a neighbour", found=f"none within {radius_um} um", cure="give a larger radius_um"
        )
    operator, nothing = kernel.averaging(graph), np.zeros((adata.n_obs, 0))
    return Around(order, xy, section[order], membership[order], names, graph, operator, nothing)


def _found(
    made: Around, settings: tuple[int | None, int, int, int], seed: np.random.SeedSequence
) -> tuple[Float, float, pd.DataFrame | None]:
    """(membership [n_obs, k], the largest niche first; stability; criteria of the number where it was chosen)."""
    chosen, most, n_starts, n_splits = settings
    seed_variants, seed_number, seed_fit = seed.spawn(3)
    variants = _variants(made, n_splits, seed_variants)
    n, selection = len(made.order), None
    if chosen is None:
        largest = min(most, max(2, n // 3))
        used = _domains._unscaled(variants, True)
        selection = _domains._selection(used, largest, kernel.independent(made.operator), seed_number)
        selection = selection.rename(columns={"n_domains": "n_niches"})
        chosen = _domains.most_stable(selection.rename(columns={"n_niches": "n_domains"}))
    prob, stability = _domains._membership(variants, n, chosen, n_starts, seed_fit)
    return _domains._by_size(prob), stability, selection


def _variants(made: Around, n_splits: int, seed: np.random.SeedSequence) -> list[Variant]:
    """Features of the surroundings: of all cells at three scales, and of thinned sections; in the order in which
    ``sm.tl.domains`` has its own."""
    seed_axes, *seeds = seed.spawn(1 + n_splits)
    n = len(made.order)
    around = kernel.seen(made.operator, made.membership, np.random.default_rng(seed_axes))
    axes = kernel.reliable(*around.without(np.empty(0, dtype=np.intp), np.arange(n)))
    masks = [np.ones(n)]
    if n <= MOST_THINNED:
        masks += [(np.random.default_rng(s).random(n) < kernel.KEPT_CELLS).astype(np.float64) for s in seeds]
    middle, half, twice = kernel.SCALES
    plan = [(masks[0], middle), (masks[0], half), (masks[0], twice)]
    plan += [(mask, times) for mask in masks[1:] for times in (half, middle, twice)]

    def variant(mask: Float, times: int) -> Variant:
        def features() -> Float:
            with one_thread():
                types = made.shares(made.membership * mask[:, None], times) @ axes
            return np.hstack([types, made.looks(made.morphology * mask[:, None], times)])

        return features

    return [variant(mask, times) for mask, times in plan]


def _morphology_key(adata: Any, how: bool | str) -> str | None:
    """Key of the features of morphology that are asked for; None for none."""
    stored: Sequence[str] = [key for key in adata.obsm if key.startswith(_keys.MORPH_PREFIX)]
    if how is False or (how == "auto" and not stored):
        return None
    if how is True and not stored:
        raise _check.problem(
            "no features of morphology are stored",
            found=f"obsm has {_check.listed(adata.obsm)}",
            cure="run sm.morph.embed(adata), or pass use_morphology='auto'",
        )
    key = stored[-1] if how is True or how == "auto" else str(how)
    _check.require(adata.obsm, key, "obsm", "name stored features, or run sm.morph.embed(adata)")
    return key


def _morphology(
    adata: Any, made: Around, key: str | None, tested: bool, prob: Float, seed: np.random.SeedSequence
) -> Float:
    """Components of morphology [n_obs, m] that may speak: those that follow niches ``prob`` where they are
    ``tested``."""
    if key is None or (tested and prob.shape[1] < 2):
        return made.morphology
    values = _adapt.ordered(adata.obsm[key], made.order)
    if not np.isfinite(values).all():
        raise _check.problem(f"obsm[{key!r}] must be finite", found="NaN or infinite values", cure="make it again")
    components = _components(made, values, seed)
    if not tested or not components.shape[1]:
        return components
    found = alongpath.test(
        made.xy_um, lambda rows: components.T[rows], components.shape[1], [prob[:, 1:].T], section=made.section
    )
    return np.asarray(components[:, found.pvalue[0] < FOLLOWS / components.shape[1]])


def _components(made: Around, values: Float, seed: np.random.SeedSequence) -> Float:
    """Reliable components of features, offsets of sections taken off; unit variance."""
    size = np.maximum(np.bincount(made.section), 1)
    values = values - np.stack([np.bincount(made.section, c) / size for c in values.T], axis=1)[made.section]
    spread = values.std(axis=0)
    values = values[:, spread > 1e-9] / spread[spread > 1e-9]
    if not values.shape[1]:
        return np.zeros((len(values), 0))
    with one_thread():
        axes = np.linalg.eigh(values.T @ values)[1][:, ::-1][:, :REDUCED]
        values = values @ (axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]))
        half = np.random.default_rng(seed).random((len(values), 1)) < 0.5
        looks = [made.looks(values * kept) for kept in (np.ones_like(half), half, ~half)]
        scores = values @ kernel.reliable(*looks)[:, :MOST_COMPONENTS]
    scores = scores - scores.mean(axis=0)
    return np.asarray(scores / np.maximum(scores.std(axis=0), 1e-12))


def _tables(prob: Float, made: Around, names: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shares of types among the cells of every niche, and their log2 over the shares in all cells."""
    import pandas as pd

    with one_thread():
        number = prob.T @ made.membership
    whole = number.sum(axis=0)

    def share(count: Float) -> Float:
        more = count + 0.5
        return np.asarray(more / more.sum(axis=-1, keepdims=True))

    total = number.sum(axis=1, keepdims=True)
    shares = np.divide(number, total, out=np.zeros_like(number), where=total > 0)
    enrichment = np.log2(share(number) / share(whole))
    return (pd.DataFrame(values, index=names, columns=made.names) for values in (shares, enrichment))  # type: ignore[return-value]
