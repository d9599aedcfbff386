"""What the report says and draws of an order of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from smeld import _check, _keys
from smeld import _report_facts as facts

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

#: rows of the table of genes, genes drawn one by one, maps of single domains side by side
MOST_ROWS, MOST_COURSES, MOST_LOCAL = 25, 8, 3
#: genes in the heat map
MOST_RANKED = 30
#: q up to which a gene counts as found
FDR = 0.05
CURE = "run sm.tl.trajectory(adata, root)"


def orders(adata: AnnData) -> list[str]:
    """Keys of the orders that are stored: that of the whole section first."""
    made = [key for key, entry in facts.records(adata) if entry["function"] == "sm.tl.trajectory"]
    known = [key for key in dict.fromkeys([_keys.PSEUDOTIME, *made]) if f"{key}_nodes" in adata.uns]
    return sorted((key for key in known if key in adata.obs.columns), key=lambda key: _within(adata, key) is not None)


def content(adata: AnnData, noun: str) -> dict[str, Any] | None:
    """What the root is, what speaks for the order, tables of the tree and of genes; None without an order."""
    keys = orders(adata)
    if not keys:
        return None
    key = keys[0]
    nodes, edges = (_table(adata, f"{key}_{what}") for what in ("nodes", "edges"))
    groups = nodes[nodes["level"].astype(str) == "group"] if "level" in nodes else nodes
    return {
        "lines": [
            *_begins(adata, key, noun),
            *_speaks(adata, key, noun),
            *_sure(adata, key, noun),
            *_tree(groups, edges, _params(adata, key)),
            *_ends(adata, key, noun),
            *_genes(adata),
        ],
        "is_tree": len(groups) > 1,
        "nodes": facts.table(nodes),
        "edges": facts.table(edges),
        "genes": facts.table(_stored_genes(adata).head(MOST_ROWS)),
        "local": [str(_within(adata, k)) for k in _local(adata)],
    }


def _table(adata: AnnData, name: str) -> pd.DataFrame:
    stored = adata.uns.get(name)
    return stored if isinstance(stored, pd.DataFrame) else pd.DataFrame()


def _params(adata: AnnData, key: str) -> dict[str, Any]:
    return dict(dict(facts.records(adata)).get(key, {"params": {}})["params"])


def _within(adata: AnnData, key: str) -> str | None:
    """The one group whose cells were ordered; None for the whole section."""
    said = str(_params(adata, key).get("within", "none"))
    return None if said == "none" else said


def _local(adata: AnnData) -> list[str]:
    """Orders within one group, but the one that stands for the whole section where there is none of that."""
    return [key for key in orders(adata)[1:] if _within(adata, key) is not None]


# -- in words


def _begins(adata: AnnData, key: str, noun: str) -> list[str]:
    params = _params(adata, key)
    where = _within(adata, key)
    lines = [] if where is None else [f"Only {noun}s of {where} are ordered."]
    if "root" in params:
        n = int(params.get("n_root", 0))
        size = f" ({n:,} {noun}{'' if n == 1 else 's'})" if n else ""
        lines.append(f"Root: {facts.plain(params['root'])}{size}.")
    lost = int((~np.isfinite(np.asarray(adata.obs[key], dtype=np.float64))).sum())
    if lost and where is None:
        lines.append(f"{lost:,} {noun}s are joined to the root neither in space nor in expression, and not ordered.")
    return lines


def _speaks(adata: AnnData, key: str, noun: str) -> list[str]:
    """What speaks for the order: how well it predicts expression that was hidden from it."""
    params = _params(adata, key)
    gain, error = (float(params.get(k, np.nan)) for k in ("gain_of_expression", "gain_standard_error"))
    if str(params.get("balance", "none")) != "none":
        share = facts.percent(float(params["balance"]))
        return [f"The share of steps in space was given ({share}), so whether expression helps was not weighed."]
    if not np.isfinite(gain) or "helps" not in params:
        return []
    measured = f"{100 * gain:+.1f} % of the variation, standard error {100 * error:.1f}"
    if not bool(params["helps"]):
        return [
            f"Expression adds nothing: orders that use it predict expression of hidden {noun}s no better than distance "
            f"along the tissue does ({measured}; two standard errors would be asked for). The order goes by space "
            "alone and says nothing that the root and the section's shape do not."
        ]
    table = _table(adata, f"{key}_evidence")
    best = f"{100 * float(table['predicted'].max()):.1f} % of its variation, " if "predicted" in table else ""
    lines = [
        f"Expression helps: the order tells the expression of {noun}s that were hidden from it, {best}and more "
        f"than the best order by space alone ({measured}). That it is an order in time does not follow."
    ]
    if "space_share" in params:
        lines.append(
            f"Of the steps, {facts.percent(float(params['space_share']))} go along space, the others between {noun}s "
            "alike in expression (the mean over the ways to order that predict about as well as the best)."
        )
    return lines


def _sure(adata: AnnData, key: str, noun: str) -> list[str]:
    if not {f"{key}_low", f"{key}_high"} <= set(adata.obs.columns):
        return []
    width = np.asarray(adata.obs[f"{key}_high"] - adata.obs[f"{key}_low"], dtype=np.float64)
    width = width[np.isfinite(width)]
    if not width.size:
        return []
    return [
        f"The 90 % interval of a {noun} is {np.median(width):.2f} wide (median; 1 would be the whole order), and wider "
        f"than 0.5 for {facts.percent(float((width > 0.5).mean()))} of them."
    ]


def _tree(groups: pd.DataFrame, edges: pd.DataFrame, params: dict[str, Any]) -> list[str]:
    """The least sure edge of the tree."""
    if not {"level", "from", "to", "support", "in_tree"} <= set(edges):
        return []
    mine = edges[(edges["level"].astype(str) == "group") & edges["in_tree"].astype(bool)]
    if mine.empty:
        return ["There is one group alone: no tree."] if len(groups) == 1 else []
    least = mine.sort_values("support", kind="stable").iloc[0]
    n = f" of {int(params['n_bootstraps'])}" if "n_bootstraps" in params else ""
    said = f"the least sure is {least['from']} → {least['to']} ({facts.percent(float(least['support']))}{n} bootstraps)"
    return [f"Tree of groups: {len(mine)} edge{'' if len(mine) == 1 else 's'}; {said}."]


def _ends(adata: AnnData, key: str, noun: str) -> list[str]:
    stored = adata.obsm.get(f"{key}_fates")
    if not isinstance(stored, pd.DataFrame) or not stored.shape[1]:
        return []
    chances = stored.to_numpy(dtype=np.float64)
    known = np.isfinite(chances).all(axis=1)
    likely = chances[known].argmax(axis=1)
    sure = chances[known].max(axis=1) > facts.SURE
    if stored.shape[1] == 1:
        return [f"It ends in {stored.columns[0]}."]
    parts = [
        f"{name} ({int((sure & (likely == i)).sum()):,} {noun}s with a chance above {facts.SURE:g})"
        for i, name in enumerate(stored.columns)
    ]
    return [f"It ends in {_check.listed(parts)}; {int((~sure).sum()):,} {noun}s are undecided."]


def _stored_genes(adata: AnnData) -> pd.DataFrame:
    return _table(adata, _keys.TRANSITION_GENES)


def _genes(adata: AnnData) -> list[str]:
    rows = _stored_genes(adata)
    if not {"gene", "qvalue"} <= set(rows):
        return []
    found = int(rows.loc[rows["qvalue"] <= FDR, "gene"].nunique())
    path, branch = _asked(adata)
    what = "change along it" if path is None else f"change along it, in {_check.listed(path)}"
    if branch is not None:
        what = f"differ between the branches to {' and '.join(branch)}"
    return [f"{found:,} of {rows['gene'].nunique():,} genes {what}, at a false discovery rate of {FDR:g}."]


def _asked(adata: AnnData) -> tuple[list[str] | None, list[str] | None]:
    """(groups of the path, ends of the two branches) along which genes were tested."""
    params = _params(adata, _keys.TRANSITION_GENES)
    path, branch = (
        None if isinstance(said := params.get(name, "none"), str) else [str(v) for v in said]
        for name in ("path", "branch")
    )
    return path, branch


# -- figures


def _key(adata: AnnData) -> str:
    keys = orders(adata)
    if not keys:
        raise _check.problem("no order of cells is stored", found=_check.listed(adata.uns), cure=CURE)
    return keys[0]


def _tested(adata: AnnData) -> str:
    """The order along which genes were tested."""
    key = str(_params(adata, _keys.TRANSITION_GENES).get("key", "none"))
    return key if key in orders(adata) else _key(adata)


def _figure(size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="compressed")


def _map(adata: AnnData, key: str, library_id: str | None) -> Figure:
    return _mapped(adata, [_key(adata)], library_id)


def _unsure(adata: AnnData, key: str, library_id: str | None) -> Figure:
    return _mapped(adata, [_key(adata)], library_id, uncertainty=True, arrows=False)


def _locals(adata: AnnData, key: str, library_id: str | None) -> Figure:
    keys = _local(adata)[:MOST_LOCAL]
    if not keys:
        raise _check.problem("no group was ordered by itself", found=_check.listed(orders(adata)), cure=CURE)
    return _mapped(adata, keys, library_id)


def _mapped(adata: AnnData, keys: list[str], library_id: str | None, **options: Any) -> Figure:
    """Maps side by side, of single groups on their part of the section."""
    from smeld import pl
    from smeld.pl import _canvas

    width, height = _canvas.size_in(adata, library_id, beside=1.0)
    figure = _figure((width * len(keys), height))
    for ax, order in zip(np.atleast_1d(figure.subplots(1, len(keys))), keys):
        label = _within(adata, order)
        if label is None:
            pl.pseudotime(adata, order, ax=ax, library_id=library_id, **options)
        else:
            pl.local_pseudotime(adata, label, key=order, ax=ax, library_id=library_id, **options)
    return figure


def _alone(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl.trajectory_tree import size_in, stored_tree

    order = _key(adata)
    figure = _figure(size_in(stored_tree(adata, order, "group")[0]))
    pl.trajectory_tree(adata, order, ax=figure.subplots())
    return figure


def _on_section(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl import _canvas

    figure = _figure(_canvas.size_in(adata, library_id, beside=1.7))
    pl.trajectory_tree(adata, _key(adata), on_section=True, ax=figure.subplots(), library_id=library_id)
    return figure


def _fates(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl import trajectory_maps

    order = _key(adata)
    n = trajectory_maps.stored_fates(adata, order).shape[1]
    size, shape = trajectory_maps.fates_layout(adata, n, library_id)
    figure = _figure(size)
    pl.fates(adata, order, axes=_grid(figure, shape, n), library_id=library_id)
    return figure


def _grid(figure: Figure, shape: tuple[int, int], n: int) -> Any:
    """The first ``n`` axes of a grid; the others are taken away."""
    made = np.asarray(figure.subplots(*shape, squeeze=False), dtype=object).ravel()
    for ax in made[n:]:
        ax.remove()
    return made[:n]


def _heat(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl.gene_courses import order_size_in, transition_table

    order, path = _tested(adata), _asked(adata)[0]
    n = transition_table(adata)["gene"].nunique()
    figure = _figure(order_size_in(min(n, MOST_RANKED)))
    pl.gene_order(adata, key=order, n_genes=MOST_RANKED, path=path, ax=figure.subplots())
    return figure


def _curves(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl.gene_courses import courses_layout, transition_table

    order, (path, branch) = _tested(adata), _asked(adata)
    genes = list(transition_table(adata)["gene"].drop_duplicates().head(MOST_COURSES))
    size, shape = courses_layout(len(genes))
    figure = _figure(size)
    pl.gene_courses(adata, genes, order, path=path, branch=branch, axes=_grid(figure, shape, len(genes)))
    return figure


#: figures by file name, in the order of the report
FIGURES: dict[str, Callable[[Any, str, str | None], Any]] = {
    "trajectory": _map,
    "trajectory_uncertainty": _unsure,
    "trajectory_tree": _alone,
    "trajectory_on_section": _on_section,
    "trajectory_fates": _fates,
    "trajectory_local": _locals,
    "gene_order": _heat,
    "gene_courses": _curves,
}
