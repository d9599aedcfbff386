"""Which cell types speak to which by which pair: directed, against labels that lie in as large patches elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import edgefields, localp
from smeld.lr import _resource
from smeld.tl import _links, _lr_inputs
from smeld.tl._deconvolve import PROPORTIONS

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: types and partners in fewer cells are not tested, as in sm.tl.interactions
MIN_CELLS = 20


@dataclass(frozen=True)
class CelltypeInteractions:
    """``table`` a row a pair, sender and receiver, most significant first; ``n_groups`` types and ``n_pairs`` pairs
    that were tested. Not tested: ``n_missing`` pairs with a gene that the section lacks, ``n_rare`` pairs with a
    partner seen in too few cells, ``n_small`` types of too few cells, ``n_apart`` ordered pairs of the other types that
    nowhere are neighbours."""

    table: pd.DataFrame
    n_groups: int
    n_pairs: int
    n_missing: int
    n_rare: int
    n_small: int
    n_apart: int


def celltype_interactions(
    data: Any,
    groups: str = _keys.CELL_TYPE,
    *,
    pairs: Any = None,
    radius_um: float | None = None,
    within_spot: bool | None = None,
    min_cells: int = MIN_CELLS,
    layer: str | None = None,
    key: str = _keys.INTERACTIONS,
    key_added: str = _keys.CELLTYPE_INTERACTIONS,
) -> CelltypeInteractions:
    """Test which cell types send and receive each ligand-receptor pair, neighbour to neighbour. Works in place.

    For sender A and receiver B, the ligand of cells of type A is multiplied with the receptor of their neighbours of
    type B, and summed up. Expected is the sum if labels had nothing to do with the pair. Cells of a type lie together
    and genes vary smoothly, so that labels overlap with a pair's places in patches: permuting labels would call far
    too many significant. Here both keep their clustering, and only their places are independent.

    Tested is whether ligand in A beside receptor in B is more than what any two neighbours have. It is so if the pair
    is raised where A meets B, but also if the ligand marks A and the receptor is everywhere: "A sends", to each type
    that it meets. And it is so for a pair of a region in which A and B happen to lie: the test does not know why labels
    and expression go together. Not tested is whether A's cells have more ligand beside B than elsewhere, nor whether
    the pair lies together beyond its types, as ``sm.tl.interactions(adata, adjust=["library", "cell_type"])`` asks.
    Labels made from the very genes of a pair go with them by construction: leave these out of the reference that
    proportions are estimated by (docs/celltypes.md says what it makes). A gradient over the whole section that
    labels and genes share makes rows significant too.

    Of independent labels and genes 5.4 in a hundred rows pass at 5 % (at most 6.0 by the ranges of both) and 1.0 at
    1 %, with the default neighbours. With 46 neighbours 7 pass, with 100 up to 9, where genes change from cell to cell:
    keep ``radius_um`` near the range over which expression varies. Time grows with the square of that number.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table: one section.
    groups
        Column of ``obs`` with labels (missing ones: in no type), or key of ``obsm`` with a DataFrame of proportions,
        a column a type: ``"cell_type"`` after ``sm.tl.annotate`` ("unknown" is a type like others),
        ``"cell_type_proportions"`` after ``sm.tl.deconvolve``. A spot then counts for each type by its share, so that
        sums are expected ones; pass ``within_spot=True`` there, as its cells are neighbours.
    pairs
        None: the pairs in ``uns[key]``; or a DataFrame or list with ligand and receptor, as ``sm.tl.interactions``
        takes. Genes are named as in the section.
    radius_um
        Neighbours are all cells within this distance, micrometres. None: as ``sm.tl.interactions`` was run (barriers
        are left out); without its record, or where reach differs by range, one ring of a lattice, else the 10 nearest.
    within_spot
        The spot itself counts as one neighbour more: for spots that hold many cells. None: as ``radius_um``.
    min_cells
        Types with fewer cells (proportions: the sum) and partners seen in fewer cells are left out.
    layer
        Layer that holds the counts; ``X`` by default.
    key
        Key in ``uns`` where ``sm.tl.interactions`` wrote.
    key_added
        Key in ``uns``.

    Writes
    ------
    ``uns["celltype_interactions"]``: ``pair`` ("LIGAND_RECEPTOR"), ``ligand``, ``receptor``, ``sender``, ``receiver``,
    ``observed`` and ``expected`` sums, ``zscore``, one-sided ``pvalue`` (more than expected), ``qvalue`` of Benjamini &
    Hochberg over all rows; most significant first.

    Raises
    ------
    InputError
        If there are no pairs, labels or positions, no pair has both partners here, or there is but one type.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=1000, n_genes=60, image=False)
    >>> pair = (adata.var_names[0], adata.var_names[1])
    >>> found = sm.tl.celltype_interactions(adata, "truth_cell_type", pairs=[pair])
    >>> len(found.table) <= found.n_groups**2
    True

    References
    ----------
    Variance of a sum of products of independent fields: Clifford, Richardson & Hemon, Biometrics 45 (1989) 123.
    """
    adata = _adapt.table(data)
    order = _adapt.canonical_order(adata)
    asked = _asked(adata, pairs, key)
    _one_section(adata, key)
    radius_um, within_spot = _neighbourhood(adata, key, radius_um, within_spot)
    types, names = _types(adata, groups)
    large = types.sum(axis=0) >= min_cells
    if not large.any():
        raise _check.problem(
            f"no type in {groups!r} has {min_cells} cells",
            found=f"{len(names)} types, the largest with {types.sum(axis=0).max():g}",
            cure="lower min_cells",
        )
    *_, present = _lr_inputs.matched(asked, adata, "auto")
    wanted = _lr_inputs.looked_at(adata, present, np.empty(0, dtype=np.intp), False)[0]
    values = _lr_inputs.expressed(adata, layer, order, wanted)
    genes, units = _lr_inputs.units(values.genes, present, adata.var_names)
    index = np.array([[units[a], units[b]] for a, b in zip(present["ligand"], present["receptor"])], dtype=np.intp)
    seen = (np.diff(genes.indptr) >= min_cells)[index].all(axis=1)
    xy = _adapt.xy_um(adata)[order]
    one = np.zeros(len(xy), dtype=np.intp)  # a single section
    weights = _links.links(xy, one, radius_um=radius_um, within_spot=within_spot, barrier=None)["unknown"]
    tested = edgefields.by_types(genes, index[seen], weights, xy, np.ascontiguousarray(types[order][:, large]))
    kept = [name for name, is_large in zip(names, large) if is_large]
    if not len(tested.senders):
        raise _nothing_to_test(kept, groups, weights)
    table = _table(present[seen].reset_index(drop=True), kept, tested)
    found = CelltypeInteractions(
        table=table,
        n_groups=len(kept),
        n_pairs=int(seen.sum()),
        n_missing=len(asked) - len(present),
        n_rare=int((~seen).sum()),
        n_small=len(names) - len(kept),
        n_apart=len(kept) ** 2 - len(tested.senders),
    )
    adata.uns[key_added] = table
    facts = {n: v for n, v in vars(found).items() if n != "table"}
    params = {"groups": groups, "radius_um": radius_um, "within_spot": within_spot, "min_cells": min_cells, **facts}
    inputs = {"layer": layer or "X", "pairs": f"uns[{key!r}]" if pairs is None else "given"}
    _keys.record(adata, key_added, function="sm.tl.celltype_interactions", params=params, inputs=inputs)
    return found


def _asked(adata: Any, pairs: Any, key: str) -> pd.DataFrame:
    if pairs is not None:
        return _resource.checked(pairs)
    cure = "run sm.tl.interactions(adata) first, or give pairs="
    _check.require(adata.uns, key, "uns", cure)
    stored = adata.uns[key]
    if not {"ligand", "receptor"} <= set(getattr(stored, "columns", ())) or not len(stored):
        raise _check.problem(f"uns[{key!r}] holds no pairs", found=f"a {type(stored).__name__}", cure=cure)
    return _resource.checked(stored[["ligand", "receptor"]])


def _recorded(adata: Any, key: str, part: str) -> dict[str, Any]:
    """What ``sm.tl.interactions`` noted; nothing where its table is gone."""
    record = adata.uns.get(_keys.RECORD, {}).get(key, {}) if key in adata.uns else {}
    return dict(record.get(part, {}))


def _one_section(adata: Any, key: str) -> None:
    batch_key = str(_recorded(adata, key, "inputs").get("batch_key", "none"))
    if batch_key in adata.obs and adata.obs[batch_key].nunique() > 1:
        raise _check.problem(
            "one section is needed: neighbours would be sought across sections",
            found=f"{adata.obs[batch_key].nunique()} sections in obs[{batch_key!r}], as sm.tl.interactions was told",
            cure=f"take one: adata[adata.obs[{batch_key!r}] == name].copy()",
        )


def sending_groups(adata: Any) -> str | None:
    """Who sends and receives: cell types, else their proportions, else domains; None where none tells spots apart."""
    if _tells_apart(adata, _keys.CELL_TYPE):
        return _keys.CELL_TYPE
    if getattr(adata.obsm.get(PROPORTIONS), "shape", (0, 0))[1] > 1 and hasattr(adata.obsm[PROPORTIONS], "columns"):
        return PROPORTIONS
    return _keys.DOMAIN if _tells_apart(adata, _keys.DOMAIN) else None


def _tells_apart(adata: Any, column: str) -> bool:
    return column in adata.obs and adata.obs[column].nunique() > 1


def _neighbourhood(
    adata: Any, key: str, radius_um: float | None, within_spot: bool | None
) -> tuple[float | None, bool]:
    """What was given, else what the record of ``key`` says, else the default graph."""
    params = _recorded(adata, key, "params")
    if radius_um is None and params.get("radius_um", "none") != "none":
        stored = params["radius_um"]
        if isinstance(stored, int | float | np.number):
            radius_um = float(stored)
        else:
            _check.warn(
                f"the pairs in uns[{key!r}] reach differently far by range; for cell types the nearest neighbours are "
                "taken. Give radius_um= (micrometres) for another distance.",
                adata,
                stacklevel=4,
            )
    return radius_um, bool(params.get("within_spot", False)) if within_spot is None else within_spot


def _types(adata: Any, groups: str) -> tuple[Float, list[str]]:
    """Types by cell [n_obs, n_types] and their names: labels as 0 and 1, or proportions."""
    if groups in adata.obs:
        label, names = _adapt.numbered(adata.obs[groups])
        if not names:
            raise _check.problem(f"obs[{groups!r}] holds no labels", found="missing values only", cure="name another")
        return (label[:, None] == np.arange(len(names))).astype(np.float64), names
    if groups not in adata.obsm:
        raise _check.problem(
            f"there is neither obs[{groups!r}] nor obsm[{groups!r}]",
            found=f"obs has {_check.listed(adata.obs)}; obsm has {_check.listed(adata.obsm)}",
            cure="name the column that holds the cells' types",
        )
    return _proportions(adata.obsm[groups], groups)


def _proportions(frame: Any, groups: str) -> tuple[Float, list[str]]:
    import pandas as pd

    if not isinstance(frame, pd.DataFrame) or not frame.shape[1]:
        raise _check.problem(
            f"obsm[{groups!r}] must be a DataFrame of proportions, a column a type",
            found=type(frame).__name__,
            cure=f"adata.obsm[{groups!r}] = pd.DataFrame(values, index=adata.obs_names, columns=names)",
        )
    names = [str(name) for name in frame.columns]
    values = np.nan_to_num(frame.to_numpy(dtype=np.float64), nan=0.0)
    if len(set(names)) < len(names):
        raise _check.problem(
            f"the columns of obsm[{groups!r}] must have names of their own", found=_check.listed(names)
        )
    if values.min(initial=0.0) < 0 or not np.isfinite(values).all():
        found = f"values from {values.min():g} to {values.max():g}"
        raise _check.problem(
            f"proportions in obsm[{groups!r}] must be 0 or more", found=found, cure="divide by the sum"
        )
    return values, names


def _nothing_to_test(names: list[str], groups: str, weights: sparse.csr_matrix) -> _check.InputError:
    if not weights.nnz:
        return _check.problem("no cell has a neighbour", found="an empty graph", cure="give a larger radius_um")
    return _check.problem(
        f"there is nothing to test: {groups!r} does not tell cells apart, what is observed is what is expected",
        found=f"{len(names)} type ({_check.listed(names, 3)}) of enough cells",
        cure="give labels of two types and more, or lower min_cells",
    )


def _table(pairs: pd.DataFrame, names: list[str], tested: edgefields.ByTypes) -> pd.DataFrame:
    import pandas as pd

    n_pairs, n_types = tested.observed.shape
    label = np.asarray(names, dtype=object)
    ligand, receptor = (pairs[c].to_numpy(dtype=object).repeat(n_types) for c in ("ligand", "receptor"))
    table = pd.DataFrame(
        {
            "pair": [f"{a}_{b}" for a, b in zip(ligand, receptor)],
            "ligand": ligand,
            "receptor": receptor,
            "sender": np.tile(label[tested.senders], n_pairs),
            "receiver": np.tile(label[tested.receivers], n_pairs),
            **{c: getattr(tested, c).ravel() for c in ("observed", "expected", "zscore", "pvalue")},
        }
    )
    table["qvalue"] = localp.adjusted(table["pvalue"].to_numpy())
    # what is equal but for rounding keeps an order of its own
    names_last = [table[c] for c in ("receiver", "sender", "receptor", "ligand")]
    rank = np.lexsort((*names_last, -table["zscore"].round(9), table["pvalue"]))
    return table.iloc[rank].reset_index(drop=True)
