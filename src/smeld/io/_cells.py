"""What readers of cells and bins share: counts joined with positions by identifier, features that are no genes kept
apart, outlines of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from smeld import _check, _keys
from smeld.io import _section

if TYPE_CHECKING:
    from anndata import AnnData

F64 = NDArray[np.float64]
EXPRESSION = "Gene Expression"
#: cells of the right section agree in their numbers of molecules by .9 and more, those of another by about 0
MIN_AGREEMENT = 0.5
MIN_COMPARED = 50
#: 10x Genomics' words for proteins: antibodies that are sequenced, or seen on Xenium from version 4 on
PROTEINS = ("Antibody Capture", "Protein Expression")


def assemble(
    counts: sparse.csr_matrix,
    counted: Sequence[str],
    genes: Sequence[str],
    placed: Sequence[str],
    xy: F64,
    *,
    um_per_unit: float,
    platform: str,
    library: str,
    unit: str = "cells",
    types: Sequence[str] | None = None,
    gene_ids: Sequence[str] | None = None,
    obs: Mapping[str, ArrayLike] | None = None,
    diameter_um: float | None = None,
    files: tuple[str, str] = ("", ""),
    notes: Sequence[str] = (),
) -> AnnData:
    """An AnnData of ``counts`` CSR [n_counted, n_features] and ``xy`` [n_placed, 2], joined by identifier.

    ``counted`` and ``placed`` name the rows of the two; ``obs`` columns [n_placed]. ``types`` [n_features]: features of
    other types than "Gene Expression" become tables in ``obsm``. ``unit`` is the word for a row in messages, ``files``
    name those of the counts and of the positions in them, ``notes`` the user hears too. None in common is an error;
    those that only one side has are left out, with a warning.
    """
    of_counts, of_places = (
        f"{side} ({file})" if file else side for side, file in zip(("the counts", "the positions"), files)
    )
    _section.refuse_repeated(counted, f"{unit} of {of_counts}")
    _section.refuse_repeated(placed, f"{unit} of {of_places}")
    rows = _section.joined(counted, placed)
    keep = rows >= 0
    if not keep.any():
        raise _check.problem(
            f"{unit} of {of_counts} and of {of_places} do not match",
            found=f"none of {len(rows)} in common, such as {next(iter(counted), '?')} and {next(iter(placed), '?')}",
            cure="give both files of the same section",
        )
    at = rows[keep]
    _refuse_unplaced(np.asarray(xy, dtype=np.float64)[at], f"{unit} of {of_places}")
    kinds = np.asarray([EXPRESSION] * len(genes) if types is None else list(types), dtype=str)
    is_gene = kinds == EXPRESSION
    if not is_gene.any():
        raise _check.problem(
            "the matrix holds no gene expression", found=f"features: {_check.listed(sorted(set(kinds)))}"
        )
    kept = sparse.csr_matrix(counts[keep], dtype=np.float32)
    adata = _section.assemble(
        sparse.csr_matrix(kept[:, is_gene]),
        np.asarray(xy, dtype=np.float64)[at],
        um_per_unit=um_per_unit,
        spots=[name for name, k in zip(counted, keep) if k],
        genes=[g for g, k in zip(genes, is_gene) if k],
        gene_ids=None if gene_ids is None else [g for g, k in zip(gene_ids, is_gene) if k],
        obs={name: np.asarray(column)[at] for name, column in (obs or {}).items()},
    )
    add_features(adata, kept, list(genes), kinds)
    _section.add_library(adata, library, platform=platform, um_per_unit=um_per_unit, spot_um=diameter_um)
    for note in notes:
        _check.warn(note, adata)
    _warn_left_out(adata, unit, n_counted=int((~keep).sum()), n_placed=len(placed) - len(at))
    return adata


def _refuse_unplaced(xy: F64, what: str) -> None:
    bad = int((~np.isfinite(xy).all(axis=1)).sum())
    if bad:
        raise _check.problem(
            f"coordinates must be finite for all {what}",
            found=f"{bad} of {len(xy)} NaN, empty or infinite",
            cure="mend or remove those rows",
        )


def refuse_foreign(adata: AnnData, column: str, *, where: str) -> None:
    """Refuse cells whose ``obs[column]``, the number of molecules that their table brings, is not that of the counts:
    identifiers such as 1, 2, 3 fit those of any other section."""
    from scipy.stats import rankdata

    if column not in adata.obs:
        return
    said = np.asarray(adata.obs[column], dtype=np.float64)
    known = np.isfinite(said)
    found = np.asarray(adata.X.sum(axis=1), dtype=np.float64).ravel()
    if known.sum() < MIN_COMPARED or not np.ptp(said[known]) or not np.ptp(found[known]):
        return
    agreement = float(np.corrcoef(rankdata(said[known]), rankdata(found[known]))[0, 1])
    if agreement < MIN_AGREEMENT:
        raise _check.problem(
            f"the cells of {where} are those of another section than the counts",
            found=f"{column} there and the sums of the counts agree by {agreement:.2f} (rank correlation)",
            cure="give both files of the same section",
        )


def _warn_left_out(adata: AnnData, unit: str, *, n_counted: int, n_placed: int) -> None:
    if n_counted:
        _check.warn(f"{n_counted} {unit} with counts have no position: they were left out", adata)
    if n_placed:
        _check.warn(f"{n_placed} {unit} with a position have no counts: they were left out", adata)


def add_features(adata: AnnData, counts: sparse.csr_matrix, names: Sequence[str], types: NDArray[np.str_]) -> None:
    """Features that are no genes become labelled tables in ``obsm`` ("protein" for antibodies)."""
    import pandas as pd

    for kind in sorted(set(types.tolist()) - {EXPRESSION}):
        columns = np.flatnonzero(types == kind)
        key = "protein" if kind in PROTEINS else _section.library_name(kind.lower().replace(" ", "_"))
        part = counts[:, columns]
        if part.data.size and not (np.isfinite(part.data).all() and part.data.min() >= 0):
            raise _check.problem(
                f"counts of features of type {kind!r} must be finite and not negative",
                found=f"smallest value {np.min(part.data):g}",
                cure="copy the file again",
            )
        labels, n_repeated = _section.unique_genes(pd.Index([names[int(i)] for i in columns], dtype=object))
        _section.warn_repeated(adata, n_repeated)
        adata.obsm[key] = pd.DataFrame(part.toarray(), index=adata.obs_names, columns=labels)
        _check.warn(f"{len(columns)} features of type {kind!r} are kept in obsm[{key!r}], apart from the genes", adata)


def add_outlines(adata: AnnData, names: NDArray[np.str_], xy_um: F64, *, key: str = _keys.OUTLINES) -> None:
    """Outlines of cells into ``uns[key]``: ``xy_um`` float32 [n_vertices, 2] in the order of ``obs_names``, and
    ``start`` int64 [n_obs + 1], the first vertex of each cell (none where two neighbours in it are equal).

    ``names`` [n_vertices] is the cell of every vertex of ``xy_um`` [n_vertices, 2], those of a cell in their order.
    """
    cells = _section.joined(names.tolist(), adata.obs_names.tolist()) if len(names) else np.zeros(0, dtype=np.intp)
    known = cells >= 0
    if not known.any():
        _check.warn("the outlines are of other cells than the counts: they were left out", adata)
        return
    warn_pieces(adata, (pieces := first_pieces(cells))[1])
    with np.errstate(over="ignore"):
        xy = np.asarray(xy_um, dtype=np.float32)
    finite = np.isfinite(xy).all(axis=1)
    if n_bad := int((known & ~finite).sum()):
        _check.warn(f"{n_bad} vertices of outlines are NaN, empty or infinite: they were left out", adata)
    known &= pieces[0] & finite
    order = np.argsort(cells[known], kind="stable")
    n_vertices = np.bincount(cells[known], minlength=adata.n_obs)
    adata.uns[key] = {
        "xy_um": xy[known][order],
        "start": np.concatenate([[0], np.cumsum(n_vertices)]).astype(np.int64),
    }


def first_pieces(cells: NDArray[np.intp]) -> tuple[NDArray[np.bool_], int]:
    """(the vertices [n] that belong to the first piece of their cell, number of cells with further ones): ``cells`` [n]
    numbers the cell of every vertex, those of a piece follow one another."""
    starts = np.concatenate([[True], cells[1:] != cells[:-1]])
    owner = cells[starts]
    _, first, n_pieces = np.unique(owner, return_index=True, return_counts=True)
    is_first = np.zeros(len(owner), dtype=bool)
    is_first[first] = True
    return is_first[np.cumsum(starts) - 1], int((n_pieces[np.unique(owner) >= 0] > 1).sum())


def warn_pieces(adata: AnnData, n_cells: int) -> None:
    if n_cells:
        _check.warn(f"{n_cells} cells have outlines in several pieces: the first one was taken", adata)


def keep_outlines(adata: AnnData, key: str, kept: NDArray[np.bool_]) -> None:
    """Outlines of the cells that are ``kept`` [n_obs before] alone."""
    start, xy = (np.asarray(adata.uns[key][name]) for name in ("start", "xy_um"))
    size = np.diff(start)
    adata.uns[key] = {
        "xy_um": xy[np.repeat(kept, size)],
        "start": np.concatenate([[0], np.cumsum(size[kept])]).astype(np.int64),
    }


def centroids(names: NDArray[np.str_], xy: F64) -> tuple[list[str], F64, F64]:
    """(names of the cells in order of appearance, centroids [n, 2], areas [n]) of outlines, by the shoelace formula;
    outlines without an area get the mean of their vertices."""
    import pandas as pd

    code, cells = pd.factorize(names)
    n = len(cells)
    size = np.bincount(code, minlength=n)
    order = np.argsort(code, kind="stable")
    code, xy = code[order], xy[order]
    mean = np.column_stack([np.bincount(code, xy[:, k], n) / size for k in range(2)])
    local = xy - mean[code]  # large coordinates would cost digits
    following = np.arange(1, len(code) + 1)
    last = np.cumsum(size) - 1
    following[last] = last - size + 1
    cross = local[:, 0] * local[following, 1] - local[following, 0] * local[:, 1]
    area = np.bincount(code, cross, n) / 2
    moment = np.column_stack([np.bincount(code, (local[:, k] + local[following, k]) * cross, n) for k in range(2)])
    safe = np.where(np.abs(area) > 1e-12, 6 * area, np.inf)
    return [str(c) for c in cells], mean + moment / safe[:, None], np.abs(area)
