"""Cell types from a single-cell reference, or from lists of marker genes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import celltypes, evidence, labelmarkers, smooth
from smeld.kernels.graph import sectioned_graph
from smeld.tl import _reference
from smeld.tl._domains import _keep_given

if TYPE_CHECKING:
    import pandas as pd

Int = NDArray[np.intp]

SET_SUFFIX = "_set"
#: columns of a table of markers, in small letters with _ for whatever else
TYPE_NAMES = ("type", "cell_type", "celltype", "cell_name", "cluster", "group", "domain")
GENE_NAMES = ("gene", "genes", "gene_symbol", "official_gene_symbol", "symbol", "marker", "names")
#: spatial blocks for the standard error of what surroundings add
N_BLOCKS = 64
#: share of unknown cells from which the reference itself is in doubt
MUCH_UNKNOWN = 0.3
#: fewer cells of a section than this say nothing of their surroundings
FEWEST_CELLS = 64


@dataclass(frozen=True)
class Annotation:
    """``labels``, ``confidence`` by cell; ``prob`` and ``sets`` (DataFrames, a column a type and "unknown"); the
    ``level`` of the sets; ``facts``, what was estimated, by section."""

    labels: pd.Series
    confidence: pd.Series
    prob: pd.DataFrame
    sets: pd.DataFrame
    level: float
    facts: dict[str, dict[str, Any]]


def annotate(
    data: Any,
    reference: Any = None,
    label: str = _keys.CELL_TYPE,
    *,
    markers: Mapping[str, Any] | Any = None,
    spatial: bool | Literal["auto"] = "auto",
    unknown: bool = True,
    level: float = 0.9,
    layer: str | None = None,
    reference_layer: str | None = None,
    batch_key: str | None = None,
    key_added: str = _keys.CELL_TYPE,
    seed: int = 0,
) -> Annotation:
    """Name the type of every cell, with a probability and a set of types that may be it. Works in place.

    From a reference: counts are negative binomial around the reference's profiles, each gene multiplied by a factor
    of the section's platform that is estimated from the section. Reference cells are then measured again as the
    section would have measured them (thinned or added to, by these factors and the section's depths), scored by
    models that have not seen them, and what they show calibrates probabilities and sets.

    What that assumes: the platform acts on genes, nearly alike in all types (what types differ in is estimated and
    drawn anew for the replicas); cells of a type vary in the reference as they do in the section; its labels are
    right. Where the two disagree (another condition, labels of another hand) sets cover less than they state:
    ``sm.tl.calibration(adata, "my_labels", key="cell_type")`` measures it.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table: a section of single cells (for spots see ``sm.tl.deconvolve``), raw
        counts.
    reference
        AnnData of single cells with raw counts, or a DataFrame with a row a cell, the column ``label`` and a column a
        gene. None: give ``markers``.
    label
        Column of the reference with its cell types.
    markers
        In place of a reference: genes by type, ``{"T cell": ["CD3D", "CD3E"], ...}``, or a DataFrame with a column a
        type that lists genes, or with the columns ``type`` and ``gene`` (or ``cell_type``, ``cluster``, ``group``,
        ``marker``, ``symbol``, ``names`` and the like, as scanpy, PanglaoDB and CellMarker have them). Cells with
        nobody's markers are "unknown"; types none of whose markers were measured are left out with a warning.
    spatial
        Whether the types of surrounding cells are a prior. "auto": if they predict the cells' own counts, if reference
        cells put in the same places gain as much from them (else neighbours have more in common than their types), and
        if sets become smaller; see ``facts``. True always, False never.
    unknown
        Whether cells may be of a type that the reference lacks.
    level
        Nominal coverage of the sets, 0.5 to 0.99.
    layer, reference_layer
        Layers that hold the counts; ``X`` by default.
    batch_key
        Column of ``obs`` that names each cell's section: each is annotated by itself.
    key_added
        Column of ``obs`` that is written, and prefix of the other keys.
    seed
        Seed of the replicas.

    Writes
    ------
    ``obs["cell_type"]`` (categorical; "unknown" where that is likeliest), ``obs["cell_type_confidence"]`` (its
    probability), ``obsm["cell_type_prob"]`` (DataFrame, a column a type and "unknown", rows sum to 1),
    ``obsm["cell_type_set"]`` (bool DataFrame, the same columns: every type that the cell may be of, meant to hold the
    true one in ``level`` of cells, and for each type in no less than ``level`` - 0.01; docs/celltypes.md says how
    far they do on real sections, where the reference's labels are of another hand), the record
    ``uns["smeld"]["cell_type"]``.

    Returns
    -------
    The same as a frozen :class:`Annotation`.

    Raises
    ------
    InputError
        If neither or both of ``reference`` and ``markers`` are given, counts are no counts, genes are not shared,
        labels are missing or all alike, positions are missing while ``spatial=True``, or a setting is out of range.

    Examples
    --------
    >>> import smeld as sm
    >>> cells = sm.datasets.simulate(400, 100, layout="cells", image=False, cell_type_effect=2.0, n_cell_types=4)
    >>> reference = sm.datasets.simulate_reference(cells, 50)
    >>> found = sm.tl.annotate(cells, reference)
    >>> float((found.labels.astype(str) == cells.obs["truth_cell_type"].astype(str)).mean()) > 0.6
    True

    References
    ----------
    Platform effects by gene: Cable et al., Nature Biotechnology 40 (2022) 517. Shrinkage of profiles: Stephens,
    Biostatistics 18 (2017) 275. Conformal sets: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World
    (2005); Sadinle, Lei & Wasserman, J. Am. Stat. Assoc. 114 (2019) 223. Markers: Zhang et al., Nature Methods 16
    (2019) 1007.
    """
    adata = _adapt.table(data)
    _check_settings(reference, markers, spatial, level, key_added)
    counts = _counts(adata, layer)
    section, names = _adapt.sections(adata, batch_key)
    order = _adapt.canonical_order(adata)
    use = (
        _from_markers(adata, markers)
        if reference is None
        else _from_reference(adata, reference, label, reference_layer)
    )
    types = use.names
    prob, member = np.zeros((adata.n_obs, len(types) + 1)), np.zeros((adata.n_obs, len(types) + 1), dtype=bool)
    facts: dict[str, dict[str, Any]] = {}
    for s, name in enumerate(names):
        rows = order[section[order] == s]
        places = _places(adata, rows, spatial)
        made = use.label(counts[rows], places, level=level, unknown=unknown, seed=seed)
        prob[rows], member[rows], facts[name] = made.prob, made.sets, made.facts
    _keep_given(adata, key_added)
    return _written(adata, prob, member, use, facts, _params(locals()))


def _params(given: dict[str, Any]) -> dict[str, Any]:
    names = ("label", "spatial", "unknown", "level", "layer", "reference_layer", "batch_key", "key_added", "seed")
    return {name: given[name] for name in names}


def _check_settings(reference: Any, markers: Any, spatial: Any, level: Any, key_added: str) -> None:
    if (reference is None) == (markers is None):
        found = "neither" if reference is None else "both"
        raise _check.problem("give a reference or markers", found=found, cure="sm.tl.annotate(adata, reference)")
    if spatial not in (True, False, "auto"):
        raise _check.unknown("spatial", spatial, ("auto", "True", "False"))
    if isinstance(level, bool) or not isinstance(level, float | int) or not 0.5 <= level <= 0.99:
        raise _check.problem("level must lie between 0.5 and 0.99", found=repr(level)[:80], cure="leave it at 0.9")
    if not key_added or "/" in key_added:
        raise _check.problem(f"key_added cannot be {key_added!r}", cure="give another name")


def _counts(adata: Any, layer: str | None) -> sparse.csr_matrix:
    counts = _adapt.counts(adata, layer)
    if not _adapt.are_counts(counts):
        worst = float(counts.data[np.mod(counts.data, 1) != 0][0])
        raise _check.problem(
            "the section must hold counts",
            found=f"values such as {worst:g}",
            cure="give raw counts, in X or in the layer named by layer= (--layer)",
        )
    counts.sum_duplicates()
    counts.eliminate_zeros()
    empty = int((np.diff(counts.indptr) == 0).sum())
    if empty:
        _check.warn(f"{empty} cells have no counts: their type is a guess from their surroundings.", adata)
    return counts


def _places(adata: Any, rows: Int, spatial: bool | str) -> celltypes.Places | None:
    """The graph of some cells: the stored S x M x E weights, unless expression had a say in them. That neighbours be
    alike is what is asked here, and counts that made an edge could not judge it."""
    if spatial is False or (spatial == "auto" and (len(rows) < FEWEST_CELLS or _keys.SPATIAL_UM not in adata.obsm)):
        return None
    xy = _adapt.xy_um(adata)[rows]
    if len(rows) < 3:
        raise _check.problem("too few cells to have surroundings", found=f"{len(rows)}", cure="pass spatial=False")
    if _keys.SME_WEIGHTS in adata.obsp and not _knows_expression(adata):
        weights = sparse.csr_matrix(adata.obsp[_keys.SME_WEIGHTS], dtype=np.float64)[rows][:, rows]
        weights.sort_indices()
    else:
        weights = _in_space(xy)
    return celltypes.Places(weights, evidence.blocks(xy, N_BLOCKS), spatial is True)


def _knows_expression(adata: Any) -> bool:
    """True unless a record says that expression has no part in the stored weights."""
    made = [r["params"] for k, r in adata.uns.get(_keys.RECORD, {}).items() if k.startswith(_keys.FUSED_PREFIX)]
    return not made or any(float(p.get("eta", 1.0)) > 0 for p in made)


def _in_space(xy: NDArray[np.float64]) -> sparse.csr_matrix:
    try:
        graph = sectioned_graph(xy, np.zeros(len(xy), dtype=np.intp))
    except ValueError as error:
        raise _check.problem(str(error)) from error
    return smooth.sme_weights(graph.distances, sigma_um=max(float(np.median(graph.distances.data)), 1e-9))


# ------------------------------------------------------------------------------------------------- what labels cells


@dataclass(frozen=True)
class _Labeller:
    """``names`` of types, ``label(counts, places, ...)``, and ``facts`` for the record."""

    names: list[str]
    label: Any
    facts: dict[str, Any]


def _from_reference(adata: Any, reference: Any, label: str, layer: str | None) -> _Labeller:
    ref = _reference.checked(adata, reference, label, layer=layer)
    if _keys.UNKNOWN in ref.names:
        cure = "rename it, or leave its cells out of the reference"
        raise _check.problem("the reference has a type called 'unknown'", found=_check.listed(ref.names), cure=cure)

    def made(counts: sparse.csr_matrix, places: celltypes.Places | None, **settings: Any) -> celltypes.Labels:
        part = sparse.csr_matrix(counts[:, ref.genes])
        genes = celltypes.informative(ref.counts, ref.label, len(ref.names), part)
        theirs = ref.counts if len(genes) == part.shape[1] else ref.counts[:, genes]
        ours = part if len(genes) == part.shape[1] else part[:, genes]
        return celltypes.transfer(ours, theirs, ref.label, len(ref.names), places=places, **settings)

    return _Labeller(ref.names, made, _reference.facts(ref))


def _from_markers(adata: Any, markers: Any) -> _Labeller:
    listed = _listed(markers)
    number = {str(name): i for i, name in reversed(list(enumerate(adata.var_names)))}
    names = list(listed)
    table = np.zeros((len(names), adata.n_vars), dtype=bool)
    missing = []
    for k, name in enumerate(names):
        here = [number[g] for g in listed[name] if g in number]
        missing += [g for g in listed[name] if g not in number]
        table[k, here] = True
    known: NDArray[np.bool_] = np.asarray(table.any(axis=1))
    without = [name for name, any_of in zip(names, known) if not any_of]
    if without and known.sum() < 2:
        raise _check.problem(
            f"no marker of {_check.listed(without, 3)} was measured",
            found=f"genes such as {_check.listed(adata.var_names, 3)}",
            cure="spell genes as adata.var_names does",
        )
    if without:
        _check.warn(f"types of which no marker was measured are left out: {_check.listed(without, 6)}.", adata)
        names, table = [name for name in names if name not in without], table[known]
    if missing:
        _check.warn(f"markers that were not measured are left out: {_check.listed(missing, 6)}.", adata)
    same = [a for i, a in enumerate(names) for j in range(i) if (table[i] == table[j]).all()]
    if same:
        raise _check.problem("two types have the same markers", found=_check.listed(same, 3), cure="join them")

    def made(counts: sparse.csr_matrix, places: celltypes.Places | None, **settings: Any) -> celltypes.Labels:
        return labelmarkers.transfer(counts, table, places=places, **settings)

    return _Labeller(names, made, {"n_genes": int(table.any(axis=0).sum()), "types": names})


def _listed(markers: Any) -> dict[str, list[str]]:
    """Genes by type, from any of the forms."""
    import pandas as pd

    if isinstance(markers, pd.DataFrame):
        named = {re.sub(r"[^a-z]+", "_", str(c).lower()).strip("_"): c for c in reversed(markers.columns)}
        of_type, of_gene = (next((named[c] for c in known if c in named), None) for known in (TYPE_NAMES, GENE_NAMES))
        if of_type is not None and of_gene is not None:
            pairs = markers[[of_type, of_gene]].dropna().astype(str)
            markers = {str(t): list(part[of_gene]) for t, part in pairs.groupby(of_type, sort=True)}
        else:
            markers = {str(c): list(markers[c].dropna().astype(str)) for c in markers.columns}
    if not isinstance(markers, Mapping) or any(isinstance(g, str) for g in markers.values()):
        raise _check.problem(
            "markers must list genes by type",
            found=repr(markers)[:80],
            cure='markers={"T cell": ["CD3D", "CD3E"], "B cell": ["MS4A1"]}',
        )
    out = {str(t): list(dict.fromkeys(str(g) for g in genes)) for t, genes in markers.items()}
    if len(out) < 2 or _keys.UNKNOWN in out:
        found = _check.listed(out)
        raise _check.problem("markers of at least two types are needed, none called 'unknown'", found=found)
    return out


# ---------------------------------------------------------------------------------------------------------- written


def _written(
    adata: Any,
    prob: NDArray[np.float64],
    member: NDArray[np.bool_],
    use: _Labeller,
    facts: dict[str, dict[str, Any]],
    params: dict[str, Any],
) -> Annotation:
    import pandas as pd

    key = params["key_added"]
    names = [*use.names, _keys.UNKNOWN]
    unknown = float((prob.argmax(axis=1) == len(use.names)).mean())
    if unknown > MUCH_UNKNOWN:
        _check.warn(
            f"{unknown:.0%} of the cells are of none of the types given: main types of this tissue may be missing, or "
            "be in other states than those given. --no-unknown (unknown=False) gives every cell the likeliest of them.",
            adata,
        )
    frame = pd.DataFrame(prob, index=adata.obs_names, columns=names)
    sets = pd.DataFrame(member, index=adata.obs_names, columns=names)
    adata.obs[key] = pd.Categorical.from_codes(prob.argmax(axis=1), categories=names)
    adata.obs[key + _keys.CONFIDENCE_SUFFIX] = prob.max(axis=1)
    adata.obsm[key + _keys.PROB_SUFFIX] = frame
    adata.obsm[key + SET_SUFFIX] = sets
    found = facts if len(facts) > 1 else next(iter(facts.values()))
    settings = {k: v for k, v in params.items() if k not in ("seed", "key_added", "batch_key", "layer")}
    inputs = {"layer": params["layer"] or "X", "batch_key": params["batch_key"]}
    made = {**settings, **use.facts, **found}
    _keys.record(adata, key, function="sm.tl.annotate", params=made, seed=params["seed"], inputs=inputs)
    return Annotation(adata.obs[key], adata.obs[key + _keys.CONFIDENCE_SUFFIX], frame, sets, params["level"], facts)
