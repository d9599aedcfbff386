"""What tests of ligand-receptor pairs read of a section: pairs that are there, units, links, what is regressed out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import expression, rows
from smeld.lr import LRResult, _resource
from smeld.lr._resource import JOIN

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: whole numbers of more values than this are numbers, not labels
MOST_LABELS = 50
#: genes in no pair, evenly spread over the table, among which decoys are sought
MOST_OUTSIDE = 3_000


def matched(asked: pd.DataFrame | None, adata: Any, organism: str) -> tuple[str, int, pd.DataFrame]:
    """(how genes were named, pairs looked for, pairs whose genes are all here); ``asked`` None for smeld's own.

    Of smeld's own, human and mouse pairs are looked for (``organism`` "auto"), and those of which more are here taken;
    only where there are none by capitalisation, as for rat genes, which is said.
    """
    here = set(adata.var_names)
    if asked is not None:
        tables = {"as given": asked}
    elif organism == "auto":
        tables = {name: _resource.pairs(name) for name in _resource.ORGANISMS}
    else:
        tables = {organism: _resource.pairs(organism)}
    found = {name: _complete(table, here) for name, table in tables.items()}
    best = max(found, key=lambda name: len(found[name]))
    if asked is None and not len(found[best]):
        tables[best] = _capitalised(tables[best])
        found[best] = _complete(tables[best], here)
        if len(found[best]):
            _check.warn(
                "the genes are neither human nor mouse genes: human pairs were matched by capitalisation, which misses "
                "orthologs of other names. Give pairs= for a table of your own.",
                adata,
                stacklevel=4,
            )
            return "capitalised", len(tables[best]), found[best]
    if not len(found[best]):
        raise _check.problem(
            "no pair has both partners in this section",
            found=f"genes such as {_check.listed(adata.var_names, 5)}; pairs such as "
            f"{_check.listed((f'{a}-{b}' for a, b in zip(tables[best]['ligand'], tables[best]['receptor'])), 3)}",
            cure="give pairs= with this section's gene names (gene symbols in adata.var_names)",
        )
    return best, len(tables[best]), found[best]


def _complete(pairs: pd.DataFrame, here: set[str]) -> pd.DataFrame:
    whole = [
        all(g in here for name in pair for g in name.split(JOIN)) for pair in zip(pairs["ligand"], pairs["receptor"])
    ]
    return pairs[whole].reset_index(drop=True)


def _capitalised(pairs: pd.DataFrame) -> pd.DataFrame:
    made = pairs.copy()
    for column in ("ligand", "receptor"):
        made[column] = [JOIN.join(g.capitalize() for g in name.split(JOIN)) for name in pairs[column]]
    return made


@dataclass(frozen=True)
class Expression:
    """Log-normalised values CSC [n_obs, n_genes], float32, spots in canonical order, and the counts of every spot."""

    genes: sparse.csc_matrix
    library: Float


def expressed(
    adata: Any, layer: str | None, order: NDArray[np.intp], wanted: NDArray[np.intp] | None = None
) -> Expression:
    """Values that look like logarithms already are taken as they are. Columns of genes that are not ``wanted``
    (numbers; None: all) are left empty."""
    counts = _adapt.rows(adata, layer, order)
    library = rows.row_sums(counts)
    logged = counts if _adapt.look_logged(counts) else expression.log_rows(counts)
    seen = rows.column_sums(counts)[0]
    return Expression(rows.to_columns(logged, seen, np.arange(counts.shape[1]) if wanted is None else wanted), library)


def looked_at(
    adata: Any, pairs: pd.DataFrame, outside: NDArray[np.intp], background: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(numbers of the genes whose values are needed, those of ``outside`` among them).

    Genes in no pair serve as decoys, which are sought among a few thousand as well as among all; ``background`` keeps
    all of them.
    """
    taken = {g for column in ("ligand", "receptor") for name in pairs[column] for g in name.split(JOIN)}
    if not background and len(outside) > MOST_OUTSIDE:
        outside = outside[np.linspace(0, len(outside) - 1, MOST_OUTSIDE).astype(np.intp)]
    inside = np.flatnonzero(adata.var_names.isin(taken))
    return np.union1d(inside, outside), outside


def outside(asked: pd.DataFrame, names: Any) -> NDArray[np.intp]:
    """Numbers of the genes that are in none of the pairs ``asked`` for."""
    taken = {g for column in ("ligand", "receptor") for name in asked[column] for g in name.split(JOIN)}
    return np.array([i for i, name in enumerate(names) if name not in taken], dtype=np.intp)


def units(genes: sparse.csc_matrix, pairs: pd.DataFrame, names: Any) -> tuple[sparse.csc_matrix, dict[str, int]]:
    """A column for every gene or complex (its scarcest subunit, spot by spot), and where it stands."""
    column = {name: i for i, name in reversed(list(enumerate(names)))}  # of equal names the first
    units: dict[str, int] = {}
    made: list[sparse.csc_matrix] = []
    for name in sorted({*pairs["ligand"], *pairs["receptor"]}):
        parts = [genes[:, [column[g]]] for g in name.split(JOIN)]
        unit = parts[0]
        for part in parts[1:]:
            unit = unit.minimum(part)
        units[name] = len(made)
        made.append(unit)
    out = sparse.csc_matrix(sparse.hstack(made, format="csc"))
    out.eliminate_zeros()
    return out, units


def basis(
    adata: Any,
    adjust: Sequence[str],
    library: Float,
    order: NDArray[np.intp],
    section: NDArray[np.intp],
) -> Float | None:
    """Orthonormal columns that span what is regressed out, the mean of every ``section`` included; None for one mean
    alone."""
    if not adjust and not section.any():
        return None
    columns = [_indicators(section)]
    for name in adjust:
        if name == "library":
            columns.append(np.log1p(library).reshape(-1, 1))
            continue
        _check.require(adata.obs, name, "obs", "name a column of obs, or 'library'")
        columns.append(_covariate(adata, name, order))
    left, singular, _ = np.linalg.svd(np.hstack(columns), full_matrices=False)
    return np.asarray(left[:, singular > singular.max() * 1e-8])


def _covariate(adata: Any, name: str, order: NDArray[np.intp]) -> Float:
    """Columns of a label, one a value, or the numbers themselves, missing ones at their mean."""
    column = adata.obs[name]
    if column.dtype.kind == "f" or (column.dtype.kind in "iu" and column.nunique() > MOST_LABELS):
        values = np.asarray(column, dtype=np.float64)[order]
        known = np.isfinite(values)
        if not known.any():
            raise _check.problem(f"obs[{name!r}] holds no number", cure="regress out another column")
        values = np.where(known, values, values[known].mean())
        spread = values.std()
        return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0)).reshape(-1, 1)
    label, names = _adapt.numbered(column)
    if len(names) > max(MOST_LABELS, adata.n_obs / 10):
        raise _check.problem(
            f"obs[{name!r}] has too many values to regress out",
            found=f"{len(names)} values for {adata.n_obs} spots",
            cure="name a column of groups, or of numbers",
        )
    return _indicators(label[order])


def _indicators(label: NDArray[np.intp]) -> Float:
    return np.asarray(label[:, None] == np.arange(int(label.max(initial=0)) + 1), dtype=np.float64)


def apart(xy: Float, section: NDArray[np.intp]) -> Float:
    """Positions with the sections laid side by side, far enough apart that none reaches another."""
    out, right = xy.copy(), 0.0
    for s in range(int(section.max(initial=0)) + 1):
        rows = section == s
        out[rows] -= xy[rows].min(axis=0)
        out[rows, 0] += right
        right = float(out[rows, 0].max()) + 2.0 * float(np.ptp(out[rows], axis=0).max()) + 1.0
    return out


def regions(adata: Any, column: str | None, order: NDArray[np.intp], fewest: int) -> NDArray[np.intp] | None:
    """Regions whose correlograms are kept apart: the values of a column of obs, those of few spots as one."""
    if column is None:
        return None
    _check.require(adata.obs, column, "obs", "name a column of obs, as 'domain' after sm.tl.domains(adata)")
    label = _adapt.numbered(adata.obs[column])[0][order]
    size = np.bincount(label + 1, minlength=2)
    large = np.flatnonzero(size[1:] >= fewest)
    number = np.full(len(size), len(large))
    number[large + 1] = np.arange(len(large))
    made = number[label + 1]
    return np.unique(made, return_inverse=True)[1].astype(np.intp)


@dataclass(frozen=True)
class More:
    """What some statistics are also given: ``options`` by name, and the names of the ``types`` among them."""

    options: Mapping[str, Any] = field(default_factory=dict)
    types: tuple[str, ...] = ("all",)


def more(
    adata: Any, facts: Mapping[str, Any], values: Expression, order: NDArray[np.intp], outside: NDArray[np.intp]
) -> More:
    """What a statistic's card asks for: ``background`` the genes in no pair; ``state`` of each spot (log of the counts,
    then labels) and its ``types``: the cell types in obs, else the domains. A spot without a label is of no type."""
    options: dict[str, Any] = {"background": values.genes[:, outside]} if facts.get("background") else {}
    if not facts.get("state"):
        return More(options)
    labels = {name: _adapt.numbered(adata.obs[name]) for name in (_keys.CELL_TYPE, _keys.DOMAIN) if name in adata.obs}
    columns = [label[order][:, None] == np.arange(len(names)) for label, names in labels.values()]
    options["state"] = np.hstack([np.log1p(values.library)[:, None], *columns]).astype(np.float64)
    if not labels:
        return More(options)
    options["types"] = columns[0].astype(np.float64)
    return More(options, tuple(str(name) for name in next(iter(labels.values()))[1]))


def joined(merged: LRResult, parts: Sequence[tuple[list[int], LRResult]]) -> LRResult:
    """Results of several parts of the pairs as one, with what only this statistic knows."""
    join = getattr(parts[0][1], "joined", None)
    out: LRResult = merged if join is None else join(merged, parts)
    return out


def store_by_type(
    adata: Any, key: str, found: LRResult | None, pairs: pd.DataFrame, types: Sequence[str], genes: Sequence[str]
) -> None:
    """``uns[key + "_gnn"]``, the effect by sender and receiver where the statistic knows it; else none stays there."""
    made = getattr(found, "table", None)
    adata.uns.pop(f"{key}_gnn", None)
    if made is not None:
        adata.uns[f"{key}_gnn"] = made(pairs, types, genes)
