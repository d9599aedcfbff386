"""Genes that change along an order of cells, or between two of its branches; no count is used for the order that a gene
is tested against and for the gene as well."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import lineage
from smeld.tl import _split_order, _transition_tests
from smeld.tl._split_order import Half, Stored

if TYPE_CHECKING:
    import pandas as pd

Int = NDArray[np.intp]

#: genes seen in fewer of the cells are not tested; fewer cells are no path
MIN_CELLS, FEWEST = 20, 20
#: larger sections are split once
MOST_SPLIT = 50_000
#: orders from half the counts that agree less with the stored one (Spearman) are warned of
AGREES = 0.7


@dataclass(frozen=True)
class TransitionGenes:
    """``table`` a row a gene, most significant first; ``groups`` whose cells were taken (on the way to the first
    branch and to the second, where two were compared; none named for all), ``n_cells`` of them, ``n_rare`` genes seen
    in too few; ``agreement`` the lowest Spearman correlation of an order from half the counts with the stored one, NaN
    where nothing was split."""

    table: pd.DataFrame
    groups: tuple[tuple[str, ...], ...]
    n_cells: int
    n_rare: int
    agreement: float


def transition_genes(
    data: Any,
    *,
    path: str | Sequence[str] | None = None,
    branch: tuple[str, str] | None = None,
    key: str = _keys.PSEUDOTIME,
    genes: Sequence[str] | None = None,
    min_cells: int = MIN_CELLS,
    n_splits: int = 2,
    adjust: Sequence[str] = ("library",),
    layer: str | None = None,
    batch_key: str | None = None,
    key_added: str | None = None,
    seed: int = 0,
) -> TransitionGenes:
    """Test which genes change along a pseudotime, or differ between two branches of it. Works in place.

    Pseudotime and genes are both smooth in space, so that half of all genes go with a pseudotime that they have nothing
    to do with, if cells are taken for independent. Here a gene is compared with fields as smooth as it is
    (``kernels.alongpath``), for a trend and for any smooth course. And a gene must not confirm an order that it made:
    counts are split into two independent halves, pseudotime is made again from the one and genes are tested on the
    other, then the other way round, ``n_splits`` times. That takes care of noise. What really varies in the section,
    and pulled the order off the true one, goes with the order all the same.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, after ``sm.tl.trajectory``.
    path
        A node of the tree, often a terminal: the cells of the groups from the root to it; or the names of groups.
        None: all cells with pseudotime.
    branch
        Two nodes of the tree: genes that differ between the cells beyond the parting of the two ways, at the same
        pseudotime, in level or in trend; and whether they follow it on either, from the parting on.
    key
        Column of ``obs`` with the order, the ``key_added`` of ``sm.tl.trajectory``.
    genes
        Names of the genes to test; all by default.
    min_cells
        Genes seen in fewer of the cells are not tested.
    n_splits
        Splits of the counts, two tests each; one in sections of more than 50,000 cells.
    adjust
        What is regressed out first: ``"library"`` (log of the counts of a cell) and columns of ``obs``.
    layer
        Layer that holds the counts; ``X`` by default.
    batch_key
        Column of ``obs`` with the section of every cell; that of the trajectory by default.
    key_added
        Key in ``uns``; ``"transition_genes"`` by default.
    seed
        Seed of the splits.

    Writes
    ------
    ``uns["transition_genes"]``, the table: ``gene``; ``effect``, the mean correlation with pseudotime; ``zscore`` with
    its sign; ``pvalue`` two-sided, all halves combined (Cauchy), ``qvalue`` (Benjamini-Hochberg); ``shape`` of the
    course (``rises``, ``falls``, ``peaks``, ``dips``); ``peak``, the pseudotime of its maximum; ``n_effective``, how
    many independent cells the gene is worth. With ``branch``, ``effect`` to ``qvalue`` and ``n_effective`` are of the
    difference (above 0: more in the first), ``pattern`` says ``shared``, ``private to X``, ``private to Y``,
    ``opposite``, ``neither`` or ``undecided`` (see ``sm.tl.compare_transitions``), and ``effect_first`` to
    ``n_effective_second`` are the tests along the two branches.

    Returns
    -------
    A frozen :class:`TransitionGenes`.

    Raises
    ------
    InputError
        For a path that is not in the tree, branches that do not part, too few cells, or no gene to test.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, image=False, seed=1)
    >>> found = sm.tl.trajectory(adata, "D1", groups="truth_domain", n_bootstraps=4)
    >>> table = sm.tl.transition_genes(adata, n_splits=1).table
    >>> list(table.columns)[:3]
    ['gene', 'effect', 'zscore']

    References
    ----------
    Neufeld et al. 2024 (thinning); Liu & Xie 2020, doi:10.1080/01621459.2018.1554485 (Cauchy combination).
    """
    adata = _adapt.table(data)
    found = _split_order.stored(adata, key)
    groups, cells = _chosen(adata, found, path, branch)
    counts, layer = _counts(adata, found, layer)
    rows = np.unique(np.concatenate(cells))
    tested, n_rare = _tested(adata, counts[rows], genes, min_cells)
    batch_key = batch_key or found.input("batch_key")
    section = _adapt.sections(adata, batch_key)[0][found.order]
    adjusted = (adjust,) if isinstance(adjust, str) else tuple(adjust)
    task = _transition_tests.Task(adata, found.order, section, adjusted, tested, cells)
    halves, n_splits = _halves(adata, found, counts, n_splits, seed)
    tests, agreement = task.over(halves, max(2 * n_splits, 1), found.time)
    _say_agreement(adata, agreement)
    table = task.table(tests, branch)
    key_added = key_added or _keys.TRANSITION_GENES
    adata.uns[key_added] = table
    params = {
        "path": groups[0] if branch is None else "none", "branch": branch, "key": key, "min_cells": min_cells,
        "n_splits": n_splits, "adjust": adjusted, "n_cells": len(rows), "n_tested": len(tested), "n_rare": n_rare,
        "agreement": agreement,
    }  # fmt: skip
    inputs = {"layer": layer or "X", "batch_key": batch_key, "groups": found.input("groups")}
    _keys.record(adata, key_added, function="sm.tl.transition_genes", params=params, seed=seed, inputs=inputs)
    return TransitionGenes(table, groups, len(rows), n_rare, agreement)


# -------------------------------------------------------------------------------------------------- cells and genes


def _chosen(
    adata: Any, found: Stored, path: str | Sequence[str] | None, branch: tuple[str, str] | None
) -> tuple[tuple[tuple[str, ...], ...], list[Int]]:
    """Names of groups, and canonical numbers of their cells: of the path, or of the ways to the two branches."""
    known = np.isfinite(found.time)
    groups: tuple[tuple[str, ...], ...]
    if branch is not None:
        groups = _parted(adata, found, path, branch)
    elif path is not None:
        groups = (_way(adata, found, path) if isinstance(path, str) else tuple(str(name) for name in path),)
    else:
        return ((),), [_enough(np.flatnonzero(known), "all that have a pseudotime")]
    column = found.input("groups") or _keys.DOMAIN
    _check.require(adata.obs, column, "obs", "bring back the groups of sm.tl.trajectory, or run it again")
    label, names = _adapt.numbered(adata.obs[column])
    for name in (name for part in groups for name in part if name not in names):
        raise _check.unknown(f"label of obs[{column!r}]", name, names)
    inside = [np.isin(label[found.order], [names.index(n) for n in part]) & known for part in groups]
    return groups, [_enough(np.flatnonzero(i), " - ".join(part)) for i, part in zip(inside, groups)]


def _enough(rows: Int, what: str) -> Int:
    if len(rows) < FEWEST:
        raise _check.problem(
            "too few cells to test genes along", found=f"{len(rows)} ({what})", cure=f"give at least {FEWEST}"
        )
    return rows


def _way(adata: Any, found: Stored, name: str) -> tuple[str, ...]:
    """Groups from the root of the tree to a node."""
    table_key = f"{found.key}_nodes"
    _check.require(adata.uns, table_key, "uns", "run sm.tl.trajectory(adata, root) first, or name groups in a list")
    nodes = adata.uns[table_key]
    nodes = nodes[nodes["level"] == "group"]
    names = [str(n) for n in nodes["node"]]
    if name not in names:
        raise _check.unknown("node of the tree", name, names)
    parent = np.array([names.index(p) if p in names else -1 for p in nodes["parent"].astype(str)], dtype=np.intp)
    way = lineage.path_to(parent, names.index(name))
    if not bool(nodes["root"].iloc[way[0]]):
        raise _check.problem(
            f"no way leads from the root to {name}", found=f"it begins at {names[way[0]]}", cure="give a list of groups"
        )
    return tuple(names[k] for k in way)


def _parted(adata: Any, found: Stored, path: Any, branch: tuple[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Groups on the two ways, which must part."""
    if path is not None or isinstance(branch, str) or len(branch) != 2:
        raise _check.problem(
            "two branches are compared, without a path", found=f"path={path!r}, branch={branch!r}",
            cure='give branch=("X", "Y")',
        )  # fmt: skip
    first, second = (_way(adata, found, str(name)) for name in branch)
    if set(first) <= set(second) or set(second) <= set(first):
        raise _check.problem(
            "the two ways do not part", found=f"{' - '.join(first)} and {' - '.join(second)}",
            cure="name nodes on different branches",
        )  # fmt: skip
    return first, second


def _counts(adata: Any, found: Stored, layer: str | None) -> tuple[sparse.csr_matrix, str | None]:
    """Counts in canonical order (what is drawn must not depend on how they are stored), and their layer: the one that
    was fused unless another is asked for."""
    made = adata.uns.get(_keys.RECORD, {})
    rep = found.input("use_rep") or next((k for k in reversed(made) if k.startswith(_keys.FUSED_PREFIX)), "")
    fused = str(made.get(rep, {}).get("inputs", {}).get("layer", "X"))
    layer = layer or (fused if fused in adata.layers else None)
    counts = _adapt.counts(adata, layer)[found.order]
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts, layer


def _tested(adata: Any, counts: sparse.csr_matrix, genes: Sequence[str] | None, min_cells: int) -> tuple[Int, int]:
    """Numbers of the genes that are tested, and how many are too rare for it."""
    column = {name: i for i, name in reversed(list(enumerate(adata.var_names)))}  # of equal names the first
    asked = list(range(adata.n_vars)) if genes is None else []
    for name in [genes] if isinstance(genes, str) else genes or []:
        if name not in column:
            raise _check.unknown("gene", name, column)
        asked.append(column[name])
    chosen = np.unique(np.array(asked, dtype=np.intp))
    seen = np.bincount(counts.indices, minlength=adata.n_vars)[chosen]
    kept = chosen[seen >= max(min_cells, 1)]
    if not len(kept):
        raise _check.problem(
            "no gene to test", found=f"{len(chosen)} genes, none in {min_cells} cells", cure="lower min_cells"
        )
    return kept, len(chosen) - len(kept)


def _halves(
    adata: Any, found: Stored, counts: sparse.csr_matrix, n_splits: int, seed: int
) -> tuple[Iterable[Half], int]:
    """Orders and genes from different halves of the counts, and the number of splits; 0 where they cannot be had."""
    if n_splits < 1:
        raise _check.problem("n_splits must be at least 1", found=str(n_splits))
    made = _split_order.splitter(adata, found, counts)
    if made is not None:
        n_splits = 1 if adata.n_obs > MOST_SPLIT else n_splits
        return made.halves(n_splits, seed), n_splits
    _check.warn(
        f"obs[{found.key!r}] cannot be made again from half the counts (that takes whole counts, the loadings of "
        "sm.fuse and an order of sm.tl.trajectory): genes are tested against the order as it is, and one that made it "
        "may confirm it.",
        adata,
        stacklevel=4,
    )
    return [_split_order.whole(found.time, counts, logged=_adapt.look_logged(counts))], 0


def _say_agreement(adata: Any, agreement: float) -> None:
    if agreement < AGREES:
        _check.warn(
            f"orders from half the counts agree little with the stored one (Spearman {agreement:.2f}): genes were "
            "tested against those, and p-values are worth no more than they are.",
            adata,
            stacklevel=4,
        )
