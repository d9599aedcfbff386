"""What the report says and draws of ligand-receptor pairs."""

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

#: rows of the tables, pairs in the ranking, maps side by side, pairs among which the one that is drawn is chosen
MOST_ROWS, MOST_RANKED, MOST_MAPS, MOST_CONSIDERED = 25, 20, 3, 20
#: spots that a drawn pair is seen in at least, and share of spots at most
FEW_SPOTS, MUCH = 20, 0.3
#: rows and columns of the heat map of types
HEAT_PAIRS, HEAT_LINKS = 16, 20


def content(adata: AnnData) -> dict[str, Any] | None:
    """The most significant pairs, and in words what was tested and whether the test holds here; None without any."""
    stored = adata.uns.get(_keys.INTERACTIONS)
    if not isinstance(stored, pd.DataFrame) or not {"ligand", "receptor", "qvalue"} <= set(stored):
        return None
    entry = dict(facts.records(adata)).get(_keys.INTERACTIONS, {"params": {}})["params"]
    fdr = float(entry.get("fdr", 0.05))
    found = int((stored["qvalue"] <= fdr).sum())
    lines = [
        f"{found:,} of {len(stored):,} pairs lie together more than chance, at a false discovery rate of "
        f"{facts.plain(fdr)}.",
        *_unlike(entry),
        *_not_tested(entry),
        *_settings(entry),
        *_holds(entry),
    ]
    return {
        "lines": lines,
        "table": facts.table(stored.head(MOST_ROWS)) if len(stored) else None,
        "types": _types(adata),
        "figures": [name for name in FIGURES if name.startswith("interaction")] if len(stored) else [],
    }


def _unlike(entry: Any) -> list[str]:
    name = str(entry.get("statistic", "spatial"))
    if name == "spatial":
        return []
    return [f"Statistic: {name}, for comparison with other tools: unrelated smooth genes pass it far too often."]


def _not_tested(entry: Any) -> list[str]:
    left = [(entry.get(k, 0), what) for k, what in (
        ("n_missing", "have a gene that the section lacks"),
        ("n_rare", "have a partner in too few spots"),
        ("n_same", "share a gene"),
    )]  # fmt: skip
    said = ", ".join(f"{int(n):,} {what}" for n, what in left if n)
    return [f"Not tested: {said}."] if said else []


def _settings(entry: Any) -> list[str]:
    adjusted = [str(name) for name in np.atleast_1d(entry.get("adjust", [])) if str(name) != "none"]
    lines = [f"Regressed out of both partners: {', '.join(adjusted)}."] if adjusted else []
    if str(entry.get("barrier", "none")) != "none":
        lines.append(f"Links are weakened where tissue changes ({entry['barrier']}).")
    return lines


def _holds(entry: Any) -> list[str]:
    lines = []
    value = float(entry.get("lambda_surrogate", np.nan))
    if np.isfinite(value):
        holds = "the test holds here"
        if not entry.get("lambda_holds", 0.9 <= value <= 1.1):
            holds = "the test does not hold here: take its p-values with care"
        elif not 0.9 <= value <= 1.1:
            holds = "outside by no more than two standard errors"
        lines.append(f"Pairs made independent on purpose: lambda {value:.2f} (expected 0.9 to 1.1): {holds}.")
    value = float(entry.get("lambda_decoy", np.nan))
    if np.isfinite(value):
        lines.append(
            f"Genes that are in no pair, but as abundant and as smooth: lambda {value:.2f}. Above 1, genes lie "
            "together because tissue is made of parts, whether they interact or not."
        )
    return lines


def _types(adata: AnnData) -> dict[str, Any] | None:
    """Who sends to whom."""
    stored = adata.uns.get(_keys.CELLTYPE_INTERACTIONS)
    if not isinstance(stored, pd.DataFrame) or not {"sender", "receiver", "qvalue"} <= set(stored) or stored.empty:
        return None
    entry = dict(facts.records(adata)).get(_keys.CELLTYPE_INTERACTIONS, {"params": {}})["params"]
    found = int((stored["qvalue"] <= 0.05).sum())
    groups = facts.plain(entry.get("groups", _keys.CELL_TYPE))
    line = f"{found:,} of {len(stored):,} combinations of pair, sender and receiver exceed chance; groups: {groups}."
    shown = stored[["pair", "sender", "receiver", "observed", "expected", "zscore", "qvalue"]]
    return {"lines": [line], "table": facts.table(shown.head(MOST_ROWS))}


# -- figures


def _best(adata: AnnData, n: int) -> list[int]:
    """Rows of the table with scores, those with significant spots first, a ligand no more than once."""
    rows = adata.uns[_keys.INTERACTIONS]
    kept = max(
        adata.obsm[k].shape[1] if (k := f"{_keys.INTERACTIONS}_{kind}") in adata.obsm else 0
        for kind in ("score", "local")
    )
    head = rows.head(kept).reset_index(drop=True)
    called = head["n_spots_significant"].to_numpy() > 0 if "n_spots_significant" in head else np.zeros(len(head), bool)
    order = np.argsort(~called, kind="stable")
    first = [i for k, i in enumerate(order) if head["ligand"][i] not in set(head["ligand"][order[:k]])]
    if not first:
        raise _check.problem("no pair has scores in single spots", cure="run sm.tl.interactions(adata)")
    return [int(i) for i in first[:n]]


def _telling(adata: AnnData) -> int:
    """The first of the best rows that is seen neither in a handful of spots nor nearly everywhere, else the best."""
    rows = _best(adata, MOST_CONSIDERED)
    name = next(k for kind in ("score", "local") if (k := f"{_keys.INTERACTIONS}_{kind}") in adata.obsm)
    seen = np.asarray((adata.obsm[name] > 0).sum(axis=0)).ravel()
    well = [i for i in rows if i < len(seen) and FEW_SPOTS <= seen[i] <= MUCH * adata.n_obs]
    return (well or rows)[0]


def _ranked(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl

    n = min(MOST_RANKED, len(adata.uns[_keys.INTERACTIONS])) if _keys.INTERACTIONS in adata.uns else 1
    figure = Figure(figsize=(6.6, 0.9 + 0.24 * n), layout="compressed")
    pl.interactions(adata, n=MOST_RANKED, ax=figure.subplots())
    return figure


def _maps(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl
    from smeld.pl import _canvas

    _check.require(adata.uns, _keys.INTERACTIONS, "uns", "run sm.tl.interactions(adata)")
    rows = _best(adata, MOST_MAPS)
    width, height = _canvas.size_in(adata, library_id, beside=1.0)
    figure = Figure(figsize=(width * len(rows), height), layout="compressed")
    for ax, row in zip(np.atleast_1d(figure.subplots(1, len(rows))), rows):
        pl.interaction_map(adata, row, ax=ax, library_id=library_id)
    return figure


def _one(draw: Callable[..., Any], beside: float) -> Callable[[AnnData, str, str | None], Figure]:
    """A figure of the best pair alone."""

    def figure_of(adata: AnnData, key: str, library_id: str | None) -> Figure:
        from matplotlib.figure import Figure

        from smeld.pl import _canvas

        _check.require(adata.uns, _keys.INTERACTIONS, "uns", "run sm.tl.interactions(adata)")
        row = _telling(adata)
        figure = Figure(figsize=_canvas.size_in(adata, library_id, beside=beside), layout="compressed")
        draw(adata, row, ax=figure.subplots(), library_id=library_id)
        return figure

    return figure_of


def _colocation(adata: AnnData, row: int, **options: Any) -> None:
    from smeld import pl

    pl.colocation(adata, row, **options)


def _arrows(adata: AnnData, row: int, **options: Any) -> None:
    from smeld import pl

    pl.interaction_arrows(adata, row, **options)


def _qq(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl

    figure = Figure(figsize=(5.2, 4.2), layout="compressed")
    pl.qq(adata, ax=figure.subplots())
    return figure


def _network(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl
    from smeld.pl import _canvas

    figure = Figure(figsize=_canvas.size_in(adata, library_id, beside=1.1), layout="compressed")
    pl.celltype_network(adata, ax=figure.subplots(), library_id=library_id)
    return figure


def _heatmap(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl
    from smeld.pl import celltype_pairs

    figure = Figure(figsize=celltype_pairs.size_in(HEAT_PAIRS, HEAT_LINKS), layout="compressed")
    pl.celltype_heatmap(adata, n_pairs=HEAT_PAIRS, n_links=HEAT_LINKS, ax=figure.subplots())
    return figure


#: figures by file name, in the order of the report
FIGURES: dict[str, Callable[[Any, str, str | None], Any]] = {
    "interactions": _ranked,
    "interaction_maps": _maps,
    "interaction_colocation": _one(_colocation, 1.6),
    "interaction_arrows": _one(_arrows, 1.6),
    "interactions_qq": _qq,
    "celltype_network": _network,
    "celltype_heatmap": _heatmap,
}
