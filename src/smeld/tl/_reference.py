"""A single-cell reference, checked against the section that it is to explain: genes, labels, counts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Int = NDArray[np.intp]

#: a type with fewer cells than this has a profile that is mostly noise
FEW_CELLS = 10
#: with fewer shared genes than this types are hardly told apart, unless the panels are as small themselves
FEW_GENES, NEARLY_ALL = 20, 0.9
#: where less than this share of the smaller panel is shared, the names may be of two kinds
FEW_SHARED = 0.1
#: what names the reference's layer, of the functions and on the command line
LAYER = "reference_layer= (--reference-layer)"
_ENSEMBL = re.compile(r"ENS[A-Z]{0,6}G\d{6,}(\.\d+)?$")


@dataclass(frozen=True)
class Reference:
    """A reference that fits the section.

    ``counts`` CSR float32 [n_cells, n_genes] of the shared genes in the section's order, at least one count a cell;
    ``genes`` their numbers in ``adata.var_names`` [n_genes]; ``label`` the type of each cell [n_cells], a number in
    ``names`` (in the order of the column's categories: sorted, unless the user ordered them); ``few``: names of types
    with fewer than ``FEW_CELLS`` cells; numbers of genes on either side before matching.
    """

    counts: sparse.csr_matrix
    genes: Int
    label: Int
    names: list[str]
    few: list[str]
    n_genes_section: int = 0
    n_genes_reference: int = 0


def checked(adata: AnnData, reference: Any, label: str = "cell_type", *, layer: str | None = None) -> Reference:
    """The part of a reference that can explain a section: shared genes and labelled cells, as counts.

    Parameters
    ----------
    adata
        The section; its ``var_names`` are what the reference is matched to, by exact spelling.
    reference
        AnnData with counts (or SpatialData with one table), or a DataFrame with a row a cell, the column ``label`` and
        a column a gene; further columns are left out.
    label
        Column of the reference that names each cell's type. Cells without a label are dropped.
    layer
        Layer of the reference that holds the counts; None: ``X``.

    Returns
    -------
    A frozen :class:`Reference`. Warnings, kept in ``adata.uns["smeld"]``: cells dropped, types of few cells, names of
    genes that occur twice (the first is taken), few shared genes.

    Raises
    ------
    InputError
        If the column, the layer or labels are missing, there is one label only or one cell a label, genes are not
        shared, or values are negative, not finite or no counts.
    """
    table = _as_table(reference, label)
    code, names = _labels(table, label)
    section = _names(adata.var_names)
    theirs, column = _genes_of(table, label, section)
    in_section, in_reference = _shared(adata, table, section, theirs)
    if len(in_section) < FEW_SHARED * min(len(section), len(theirs)):
        _check.warn(
            f"only {len(in_section)} genes are shared, of {len(section)} in the section and {len(theirs)} in the "
            f"reference: {_why(adata, table, section, theirs)[0]}.",
            adata,
        )
    _say_repeated(adata, section, theirs)
    counts = _counts(table, np.flatnonzero(code >= 0), column[in_reference], layer)
    counts, number = _with_counts(adata, counts, code[code >= 0])
    if (n_missing := int((code < 0).sum())) > 0:
        _check.warn(f"{n_missing} of {len(code)} reference cells have no {label!r} and are left out.", adata)
    return Reference(counts, in_section, *_types(adata, number, names, label), len(section), len(theirs))


def facts(reference: Reference) -> dict[str, Any]:
    """What was matched, for the record: numbers of genes (shared, and on either side), of cells, and the types."""
    return {
        "n_genes": len(reference.genes),
        "n_genes_section": reference.n_genes_section,
        "n_genes_reference": reference.n_genes_reference,
        "n_cells": len(reference.label),
        "types": reference.names,
    }


# ------------------------------------------------------------------------------------------------------ labels


def _as_table(reference: Any, label: str) -> Any:
    """The reference as AnnData or DataFrame, with the column ``label``."""
    import pandas as pd

    if isinstance(reference, pd.DataFrame):
        columns, where = list(reference.columns), "reference"
    else:
        try:
            reference = _adapt.table(reference)
        except _check.InputError as error:
            raise _check.problem(
                "the reference must be an AnnData or a DataFrame with a row a cell",
                found=type(reference).__name__,
                cure="read it first: anndata.read_h5ad(path), or pandas.read_csv(path, index_col=0)",
            ) from error
        columns, where = list(reference.obs.columns), "reference.obs"
    _check.require(columns, label, where, "name the column with the cell types: label=")
    if columns.count(label) > 1:
        found = f"{columns.count(label)} columns {label!r}"
        raise _check.problem("the reference's labels are ambiguous", found=found, cure="rename the others")
    return reference


def _labels(table: Any, label: str) -> tuple[Int, list[str]]:
    """(number of each cell's type, -1 where missing; names of the types), at least two of them."""
    column = table[label] if not hasattr(table, "obs") else table.obs[label]
    code, names = _adapt.numbered(column)
    if len(names) < 2:
        found = f"{names[0]!r} only" if names else f"no value in any of {len(code)} cells"
        cure = "give a column that names at least two types: label="
        raise _check.problem(f"the reference's {label!r} tells no cell types apart", found=found, cure=cure)
    return code, names


def _types(adata: AnnData, number: Int, names: list[str], label: str) -> tuple[Int, list[str], list[str]]:
    """(number, names, names of those with few cells) of the types that are left; few cells are warned of."""
    size = np.bincount(number, minlength=len(names))
    left = np.flatnonzero(size)
    if len(left) < 2:
        found = f"only {_check.listed(names[k] for k in left)} has counts in the shared genes"
        raise _check.problem("the reference tells no cell types apart", found=found, cure="give more shared genes")
    if size.max() < 2:
        found = f"one cell of each of {len(left)} types in {label!r}"
        cure = "give a reference with at least ten cells a type, and the column with its types: label="
        raise _check.problem("one reference cell a type says nothing of its variation", found=found, cure=cure)
    few = [names[k] for k in left if size[k] < FEW_CELLS]
    if few:
        listed = _check.listed(f"{names[k]} ({size[k]})" for k in left if size[k] < FEW_CELLS)
        _check.warn(f"types with fewer than {FEW_CELLS} reference cells are unreliable: {listed}.", adata)
    renumbered = np.cumsum(size > 0) - 1
    return renumbered[number].astype(np.intp), [names[k] for k in left], few


# ------------------------------------------------------------------------------------------------------- genes


def _names(names: Any) -> pd.Index:
    import pandas as pd

    return pd.Index([str(name) for name in names], dtype=object)


def _genes_of(table: Any, label: str, section: pd.Index) -> tuple[pd.Index, Int]:
    """(names, columns) of the reference's genes; in a table, all columns that hold numbers or have a gene's name."""
    if hasattr(table, "var_names"):
        return _names(table.var_names), np.arange(table.n_vars)
    names = _names(table.columns)
    numeric = np.array([dtype.kind in "biuf" for dtype in table.dtypes])
    column = np.flatnonzero((numeric | names.isin(section)) & (np.asarray(table.columns) != label))
    return names[column], column


def _shared(adata: AnnData, table: Any, section: pd.Index, theirs: pd.Index) -> tuple[Int, Int]:
    """Numbers of the shared genes in the section (ascending) and in the reference; of equal names the first."""
    first = ~section.duplicated()
    at = theirs[~theirs.duplicated()].get_indexer(section)
    shared = np.flatnonzero(first & (at >= 0))
    smaller = min(len(section), len(theirs))
    if len(shared) == 0 or (len(shared) < FEW_GENES and len(shared) <= NEARLY_ALL * smaller):
        what = "share no genes" if len(shared) == 0 else f"share {len(shared)} genes, which is too few"
        ours, others = (_check.listed(names, 3) for names in (section, theirs))
        why, cure = _why(adata, table, section, theirs)
        found = f"{ours} in the section; {others} in the reference; {why}"
        raise _check.problem(f"the section and the reference {what}", found=found, cure=cure)
    return shared.astype(np.intp), np.flatnonzero(~theirs.duplicated())[at[shared]].astype(np.intp)


def _why(adata: AnnData, table: Any, section: pd.Index, theirs: pd.Index) -> tuple[str, str]:
    """(why names may not match, the cure)."""
    n = len(section.intersection(theirs))
    for name, side, other in (("adata", adata, theirs), ("reference", table, section)):
        column = _column_that_fits(side, other, more_than=2 * n)
        if column:
            return f"{name}.var[{column!r}] fits", f"{name}.var_names = {name}.var[{column!r}]"
    ids = [bool(np.mean([bool(_ENSEMBL.match(n)) for n in names[:1000]]) > 0.5) for names in (section, theirs)]
    if ids[0] != ids[1]:
        first, second = ("section", "reference") if ids[0] else ("reference", "section")
        why = f"names of the {first} look like Ensembl ids, those of the {second} like symbols"
        return why, "give both sides the same kind of names (var_names)"
    short = section.str.split(".").str[0].intersection(theirs.str.split(".").str[0])
    if all(ids) and len(short) > n:
        cure = 'drop the versions on both sides: var_names = var_names.str.split(".").str[0]'
        return "they match up to the version after the dot", cure
    alike = section.str.upper().intersection(theirs.str.upper())
    if len(alike) > n:
        cure = "is the reference of the same species? if so, spell both alike: var_names = var_names.str.upper()"
        return f"{len(alike)} match up to upper and lower case", cure
    return "the names do not resemble each other", "give a reference that measured the section's genes (var_names)"


def _column_that_fits(side: Any, other: pd.Index, more_than: int) -> str | None:
    """The column of ``var`` that holds at least half of the other side's names (or is half of them), if any does."""
    import pandas as pd

    table = pd.DataFrame() if isinstance(side, pd.DataFrame) else side.var  # of a table, var would be its variance
    for column in table:
        if table[column].dtype.kind not in "biufcmM":
            own = _names(table[column].dropna().unique())
            n = len(other.intersection(own))
            if n > more_than and 2 * n >= min(len(own), len(other)):
                return str(column)
    return None


def _say_repeated(adata: AnnData, section: pd.Index, theirs: pd.Index) -> None:
    for who, names in (("section", section), ("reference", theirs)):
        repeated = names[names.duplicated()].unique()
        if len(repeated):
            _check.warn(
                f"genes occur more than once in the {who}, the first is taken: {_check.listed(repeated, 3)}.", adata
            )


# ------------------------------------------------------------------------------------------------------ counts


def _counts(table: Any, rows: Int, columns: Int, layer: str | None) -> sparse.csr_matrix:
    """Counts of the labelled cells in the shared genes, CSR float32, canonical."""
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        if layer is not None:
            raise _check.problem("a table has no layers", found=f"reference_layer={layer!r}", cure=f"leave {LAYER} out")
        counts = sparse.csr_matrix(_numbers(table.iloc[rows, columns]))
    else:
        if layer is not None:
            _check.require(table.layers, layer, "reference.layers", "name the layer that holds counts, or leave it out")
        part = table[rows, columns]
        x = part.X if layer is None else part.layers[layer]
        if x is None:
            cure = f"give the counts in X, or name their layer: {LAYER}"
            raise _check.problem("the reference has no matrix X", cure=cure)
        counts = sparse.csr_matrix(x, dtype=np.float32, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    try:
        _adapt.check_counts(counts)
    except _check.InputError as error:
        raise _check.problem(_of_the_reference(error)) from error
    if not _adapt.are_counts(counts):
        raise _not_counts(table, counts, layer)
    return counts


def _numbers(part: pd.DataFrame) -> NDArray[np.float32]:
    try:
        return np.asarray(part.to_numpy(dtype=np.float32, na_value=np.nan))
    except (TypeError, ValueError) as error:
        names = [name for name, dtype in zip(part.columns, part.dtypes, strict=True) if dtype.kind not in "biuf"]
        found = f"something else in {_check.listed(names, 3)}"
        raise _check.problem("the reference's genes must hold numbers", found=found, cure="give raw counts") from error


def _of_the_reference(error: _check.InputError) -> str:
    return f"in the reference, {error}"


def _not_counts(table: Any, counts: sparse.csr_matrix, layer: str | None) -> _check.InputError:
    """The error for normalised values, which names the layers that hold counts, if any do."""
    worst = float(counts.data[np.mod(counts.data, 1) != 0][0])
    kind = "logarithms" if _adapt.look_logged(counts) else "values"
    layers = [name for name in getattr(table, "layers", {}) if name != layer and _holds_counts(table.layers[name])]
    raw = getattr(table, "raw", None)
    cure = f"give raw counts, in X or in the layer named by {LAYER}"
    if layers:
        cure = f"the layer {layers[0]!r} holds counts: {LAYER}"
    elif raw is not None and _holds_counts(raw.X):
        cure = "reference.raw.to_adata() holds counts"
    return _check.problem("the reference must hold counts", found=f"normalised {kind} such as {worst:g}", cure=cure)


def _holds_counts(x: Any) -> bool:
    return _adapt.are_counts(sparse.csr_matrix(x[:200]))


def _with_counts(adata: AnnData, counts: sparse.csr_matrix, number: Int) -> tuple[sparse.csr_matrix, Int]:
    """The cells that have counts in the shared genes; the others are warned of."""
    has = np.diff(counts.indptr) > 0
    if not has.all():
        n = int((~has).sum())
        _check.warn(f"{n} reference cells have no counts in the shared genes and are left out.", adata)
    return (counts if has.all() else counts[has]), number[has]
