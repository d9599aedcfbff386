"""``deconvolve``: how much of each cell type a spot holds, by a single-cell reference, with intervals and absences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import evidence, spotmodel, typeprofiles
from smeld.tl import _reference

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]
Of = Literal["cells", "counts"]
Composition = Literal["estimate", "reference"] | Mapping[str, float]

PROPORTIONS = "cell_type_proportions"
#: endings of the key of proportions and of that of numbers of cells
SHARES, COUNTS = "_proportions", "_counts"
LOW, HIGH, ABSENT = "_low", "_high", "_absent"
#: patches that platform shifts are estimated on. One, the whole section: how types vary between more patches would
#: be taken for evidence on their mean as well, and in real sections types differ from place to place themselves
N_PATCHES = 1
#: spots that the reach is chosen on
CHOICE_SPOTS = 2048


@dataclass(frozen=True)
class Deconvolution:
    """``proportions`` [n_obs, n_types], their ``low`` and ``high``, ``absent`` (probability that a type is not there),
    and ``platform``: by gene that was used the log of how much better the section measures it than the reference.
    ``counts`` [n_obs, n_types]: expected cells of each type where nuclei were counted, else None."""

    proportions: pd.DataFrame
    low: pd.DataFrame
    high: pd.DataFrame
    absent: pd.DataFrame
    platform: pd.Series
    counts: pd.DataFrame | None = None


def deconvolve(
    data: Any,
    reference: Any,
    label: str = "cell_type",
    *,
    layer: str | None = None,
    reference_layer: str | None = None,
    of: Of = "cells",
    composition: Composition = "estimate",
    n_cells: str | None = None,
    nuclei: str | None = _keys.N_NUCLEI,
    reach: int | None = None,
    level: float = 0.9,
    key_added: str = PROPORTIONS,
    seed: int = 0,
) -> Deconvolution:
    """Estimate the proportions of cell types in every spot. Works in place; runs ``sm.fuse`` if nothing is fused yet.

    Counts are sums over the types' profiles, times a platform shift of each gene: how much better or worse the section
    measures it than the reference does. Shifts are found on the section's summed counts together with its
    composition. A spot's proportions then have a prior from its surroundings in the S x M x E graph and may be zero;
    they are drawn (Gibbs) in a dozen worlds that differ in the shifts and profiles as far as these are unknown.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table: counts in ``X``, ``obsm["spatial_um"]``.
    reference
        AnnData with counts in ``X``, or DataFrame with a row a cell and a column a gene; see ``label``.
    label
        Column of the reference that names each cell's type.
    layer, reference_layer
        Layers that hold the counts of the section and of the reference; ``X`` by default.
    of
        ``"cells"``: shares of cells, each type with as many counts a cell as in the reference; intervals allow for
        cells of one type that differ in counts as they do there. ``"counts"``: shares of the spot's counts; for
        references in which cells of different types were not measured alike.
    composition
        What the section's mean proportions are: ``"estimate"`` finds them from the counts; ``"reference"`` takes the
        shares of types among the reference's cells, for references of the same tissue in which no type was enriched or
        lost; or a dict of shares by type. Types are then taken to be measured as much better or worse as it takes.
    n_cells
        Column of ``obs`` with the number of cells (or nuclei) in each spot, missing where unknown: the fewer cells, the
        likelier absences. Without it one number is estimated for the section.
    nuclei
        Column of ``obs`` with the nuclei counted in each spot (``sm.morph.nuclei``), which shares of cells are
        multiplied by; proportions do not depend on it. The default is used where it is there; None: do without.
    reach
        Hops of the graph over which a spot's surroundings are averaged; 0 takes the whole section for them. None: of
        0, 1, 2, 4 and 8 the one that predicts held-out counts best. How strongly a spot is pulled towards its
        surroundings is estimated in any case, by type.
    level
        Share of the types' true proportions, where they are present, that intervals are meant to hold. They have held
        less, and far less on real tissue: docs/celltypes.md.
    key_added
        Key of the proportions, and prefix of the others.
    seed
        Seed of all draws.

    Writes
    ------
    ``obsm["cell_type_proportions"]`` (DataFrame [n_obs, n_types], rows sum to 1; posterior means),
    ``obsm["cell_type_proportions_low"]`` and ``obsm["cell_type_proportions_high"]`` (the interval of a type if it is
    present; low is 0 unless the type is present with a probability above .95),
    ``obsm["cell_type_proportions_absent"]`` (probability that the type is absent), and the record. Spots without counts
    of the genes used get the prior of their surroundings. Where nuclei were counted and shares are those of cells,
    ``obsm["cell_type_counts"]`` too: nuclei times shares, the cells of each type to be expected in a spot; 0 where
    there are no nuclei, NaN where they are unknown; ``_low`` and ``_high`` as of the proportions (they know nothing of
    errors in counting).

    Returns
    -------
    The same as a frozen :class:`Deconvolution`, with the platform shifts.

    Raises
    ------
    InputError
        For a reference that does not fit (no shared genes, no labels, no counts; see the message), values of the
        section that are not counts, or settings out of range.

    Examples
    --------
    >>> import smeld as sm
    >>> spots = sm.datasets.simulate(200, 150, seed=100, image=False, n_cell_types=4, mean_counts=400)
    >>> cells = sm.datasets.simulate_reference(spots, 40, seed=100)
    >>> found = sm.tl.deconvolve(spots, cells)
    >>> list(found.proportions.columns)
    ['T1', 'T2', 'T3', 'T4']

    References
    ----------
    Genes that are summed without loss: sufficiency of Poisson sums. Platform shifts as random effects: Cable et al.,
    Nat. Biotechnol. 40 (2022) 517. Bayesian bootstrap: Rubin, Ann. Stat. 9 (1981) 130. Point mass at zero: Mitchell &
    Beauchamp, J. Am. Stat. Assoc. 83 (1988) 1023.
    """
    adata = _adapt.table(data)
    _check_settings(of, reach, level)
    counts = _counts(adata, layer)
    ref = _reference.checked(adata, reference, label, layer=reference_layer)
    target = _composition(composition, ref)
    order = _adapt.canonical_order(adata)
    cells, numbers = _cells(adata, n_cells), _nuclei(adata, nuclei, of)
    graph = _graph(adata, order, seed)
    cells = None if cells is None else cells[order]
    xy = _adapt.xy_um(adata)[order]
    inside = _Cells(cells, typeprofiles.unevenness(ref.counts, ref.label, len(ref.names)) if of == "cells" else None)
    if of == "counts":
        ref = replace(ref, counts=_alike(ref))
    found, model = _fitted(counts[order], ref, xy, graph, target, inside, reach, level, seed)
    share, low, high, absent = _tables(adata, ref.names, found, order)
    for suffix, frame in (("", share), (LOW, low), (HIGH, high), (ABSENT, absent)):
        adata.obsm[key_added + suffix] = frame
    counted = _cell_counts(adata, key_added, numbers, share, low, high)
    params = {
        "of": of,
        "composition": composition if isinstance(composition, str) else "given",
        "level": level,
        "reach": found.reach,
        "reach_from": "given" if reach is not None else "held-out counts",
        "concentration": [f"{c:.3g}" for c in found.prior.concentration],
        "cells_a_spot": "given" if cells is not None else float(found.prior.n_cells[0]),
        "cells_uneven": "not used" if inside.uneven is None else [f"{v:.3g}" for v in np.sqrt(inside.uneven)],
        "platform_sd": model.width,
        "n_genes_used": len(model.genes),
        "n_groups": model.sketch.n_groups,
        "information_kept": model.sketch.kept,
        **_reference.facts(ref),
    }
    inputs = {"layer": layer or "X", "graph": _keys.SME_WEIGHTS, "n_cells": n_cells}
    inputs["nuclei"] = nuclei if numbers is not None else None
    _keys.record(adata, key_added, function="sm.tl.deconvolve", params=params, seed=seed, inputs=inputs)
    return Deconvolution(share, low, high, absent, _platform(adata, model), counted)


@dataclass(frozen=True)
class _Cells:
    """Of spots: ``number`` of cells in each [n_obs] where it is known; of types: how ``uneven`` cells' contents are
    [n_types] where shares of cells are asked for."""

    number: Float | None
    uneven: Float | None


def _check_settings(of: str, reach: int | None, level: float) -> None:
    if of not in ("cells", "counts"):
        raise _check.unknown("meaning of proportions", of, ("cells", "counts"))
    if reach is not None and (isinstance(reach, bool) or not isinstance(reach, int | np.integer) or reach < 0):
        raise _check.problem("reach must be a whole number of hops, 0 or more", found=repr(reach))
    if not 0.5 <= level < 1:
        raise _check.problem("level must lie between 0.5 and 1", found=str(level), cure="give level=0.9")


def _counts(adata: Any, layer: str | None) -> sparse.csr_matrix:
    counts = _adapt.counts(adata, layer)
    if not _adapt.are_counts(counts):
        where = f"layers[{layer!r}]" if layer else "X"
        cure = "give raw counts, and name their layer with layer= if they are not in X"
        raise _check.problem("deconvolution needs counts", found=f"values in {where} that are not whole", cure=cure)
    return counts


def _cells(adata: Any, column: str | None) -> Float | None:
    """Number of cells of each spot; where it is missing the median of the others."""
    if column is None:
        return None
    _check.require(adata.obs, column, "obs", "name the column with the number of cells in each spot, or leave it out")
    values = _numbers(adata, column, "leave n_cells= out")
    values = np.where(np.isfinite(values), values, np.nanmedian(values))
    return np.asarray(np.clip(values, 1.0, spotmodel.MOST_CELLS))


def _numbers(adata: Any, column: str, cure: str) -> Float:
    """Numbers of cells by spot, NaN where they are missing."""
    import pandas as pd

    values = pd.to_numeric(adata.obs[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(values)
    if not known.any() or (values[known] < 0).any():
        found = "no number at all" if not known.any() else f"smallest value {values[known].min():g}"
        raise _check.problem(f"obs[{column!r}] must hold numbers of cells", found=found, cure=cure)
    return np.where(known, values, np.nan)


def _nuclei(adata: Any, column: str | None, of: str) -> Float | None:
    """Nuclei by spot, NaN where unknown. None where they were not counted, and for shares of counts: how many cells
    make them is what the user said that the reference does not tell."""
    if column is None or of == "counts" or (column == _keys.N_NUCLEI and column not in adata.obs):
        return None
    _check.require(adata.obs, column, "obs", "run sm.morph.nuclei(adata), or give nuclei=None")
    return _numbers(adata, column, "give nuclei=None")


def _cell_counts(
    adata: Any, key: str, numbers: Float | None, share: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame
) -> pd.DataFrame | None:
    """Writes the expected cells of each type and their interval; what an earlier call left goes where there are none.
    The interval of types that are likely absent begins at 0, as that of their shares."""
    name = counts_key(key)
    made = None
    for suffix, frame in (("", share), (LOW, low), (HIGH, high)):
        adata.obsm.pop(name + suffix, None)
        if numbers is not None:
            adata.obsm[name + suffix] = frame.mul(numbers, axis=0).astype(np.float32)
            made = adata.obsm[name] if made is None else made
    return made


def counts_key(key: str) -> str:
    """The key of numbers of cells beside that of proportions."""
    return key.removesuffix(SHARES) + COUNTS


def _graph(adata: Any, order: Int, seed: int) -> sparse.csr_matrix:
    """The S x M x E weights, spots in canonical order; made where they are not there."""
    if _keys.SME_WEIGHTS not in adata.obsp:
        from smeld.fusion import fuse

        fuse(adata, seed=seed)
    weights = sparse.csr_matrix(sparse.csr_matrix(adata.obsp[_keys.SME_WEIGHTS])[order][:, order])
    weights.setdiag(0)
    weights.eliminate_zeros()
    weights.sort_indices()
    return weights


def _fitted(
    counts: sparse.csr_matrix,
    ref: _reference.Reference,
    xy: Float,
    graph: sparse.csr_matrix,
    composition: Float | None,
    cells: _Cells,
    reach: int | None,
    level: float,
    seed: int,
) -> tuple[spotmodel.Fitted, spotmodel.Model]:
    """The posterior of all spots, which are in canonical order."""
    patch = evidence.blocks(xy, N_PATCHES)
    model_seed, choice_seed = np.random.SeedSequence(seed).spawn(2)
    if composition is not None:
        scale = spotmodel.type_scales(counts, ref.genes, ref.counts, ref.label, composition)
        ref = replace(ref, counts=_scaled(ref, scale))
    model = spotmodel.prepare(counts, ref.genes, ref.counts, ref.label, patch, seed=model_seed)
    start = model.patches[patch].astype(np.float32)
    if reach is None:
        some = _some(xy)
        reach, _ = spotmodel.choose_reach(
            counts[some],
            model,
            spotmodel.surroundings(sparse.csr_matrix(graph[some][:, some])),
            start[some],
            n_cells=None if cells.number is None else cells.number[some],
            seed=choice_seed,
        )
    around = spotmodel.surroundings(graph)
    grouped = model.sketch.counts(counts, model.genes)
    made = spotmodel.fit(
        grouped, model, around, start, reach, n_cells=cells.number, uneven=cells.uneven, level=level, seed=seed
    )
    return made, model


def _alike(ref: _reference.Reference) -> sparse.csr_matrix:
    """Reference counts with the same total in every type: its profile weighs as much as another's."""
    total = np.bincount(ref.label, np.asarray(ref.counts.sum(axis=1)).ravel()) / np.bincount(ref.label)
    return _scaled(ref, total.mean() / np.maximum(total, 1e-12))


def _scaled(ref: _reference.Reference, scale: Float) -> sparse.csr_matrix:
    """Reference counts, each type's times its ``scale``."""
    return sparse.csr_matrix(sparse.diags(scale[ref.label]) @ ref.counts)


def _composition(given: Composition, ref: _reference.Reference) -> Float | None:
    """Shares by type of the reference; None where they are to be estimated."""
    if isinstance(given, str):
        if given not in ("estimate", "reference"):
            raise _check.unknown("composition", given, ("estimate", "reference"))
        number = np.bincount(ref.label, minlength=len(ref.names))
        return None if given == "estimate" else np.asarray(number / number.sum())
    shares = np.array([float(given.get(name, np.nan)) for name in ref.names])
    if not (np.isfinite(shares).all() and (shares > 0).all()):
        missing = [name for name, share in zip(ref.names, shares) if not share > 0]
        raise _check.problem(
            "composition must give every type of the reference a share above 0",
            found=f"none for {_check.listed(missing)}",
            cure="give a dict with a share for each, or leave out of the reference the types that are not there",
        )
    return np.asarray(shares / shares.sum())


def _some(xy: Float) -> Int:
    """Spots that settings are chosen on: whole compact blocks, evenly taken, so that neighbours stay together."""
    if len(xy) <= CHOICE_SPOTS:
        return np.arange(len(xy))
    block = evidence.blocks(xy, 8 * int(np.ceil(len(xy) / CHOICE_SPOTS)))
    n_blocks = int(block.max()) + 1
    wanted = max(1, int(CHOICE_SPOTS / len(xy) * n_blocks))
    taken = np.linspace(0, n_blocks - 1, wanted).astype(int)
    return np.flatnonzero(np.isin(block, taken))


def _tables(adata: Any, names: list[str], found: spotmodel.Fitted, order: Int) -> tuple[pd.DataFrame, ...]:
    """Proportions, low, high, absent; in the table's own order of spots."""
    import pandas as pd

    q = found.posterior
    made = []
    for values in (q.mean, q.low, np.maximum(q.high, q.low), 1 - q.present):
        placed = np.empty(values.shape, dtype=np.float32)
        placed[order] = np.clip(values, 0, 1)
        made.append(pd.DataFrame(placed, index=adata.obs_names, columns=names))
    return tuple(made)


def _platform(adata: Any, model: spotmodel.Model) -> pd.Series:
    import pandas as pd

    return pd.Series(model.log_shift, index=adata.var_names[model.genes], name="log_shift")
