"""What the report says and draws of cell types: labels, proportions, niches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from smeld import _check, _keys
from smeld import _report_facts as facts
from smeld._report_trajectory import _figure, _grid

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

#: what is looked for, by the function that makes it; the key that is usual comes first
USUAL = {
    "sm.tl.annotate": _keys.CELL_TYPE,
    "sm.tl.deconvolve": "cell_type_proportions",
    "sm.tl.niches": "niche",
    "sm.tl.niche_states": "niche_state",
}
SET_SUFFIX = "_set"
#: a type is taken for present, or for absent, above this probability
SURE = 0.95
#: words of the warning that names types of few reference cells
FEW = "reference cells are unreliable"
MOST_STATES = 25


def content(adata: AnnData, noun: str) -> dict[str, Any] | None:
    """Lines and tables of labels, proportions and niches, each None where it is not stored; None without any."""
    parts = {
        "labels": _labels(adata, noun),
        "proportions": _proportions(adata, noun),
        "niches": _niches(adata, noun),
    }
    return parts if any(part is not None for part in parts.values()) else None


def shown(adata: AnnData, parts: dict[str, Any] | None) -> tuple[str, ...]:
    """Names of the figures that the parts of :func:`content` have."""
    if parts is None:
        return ()
    names: tuple[str, ...] = ()
    if parts["labels"] is not None:
        names += ("cell_types", "cell_type_confidence")
        names += ("cell_type_confusion",) if parts["labels"]["truth"] else ()
    if parts["proportions"] is not None:
        names += ("proportions", "proportion_pies", "proportions_width", "proportions_absent")
    return names + (("niches", "niche_heatmap") if parts["niches"] is not None else ())


def stored_key(adata: AnnData, function: str) -> str | None:
    """The key that a function left its results under; None where they are not there."""
    made = [key for key, entry in facts.records(adata) if entry["function"] == function]
    there = [key for key in made if key in adata.obs.columns or key in adata.obsm]
    return min(there, key=lambda key: key != USUAL[function], default=None)


def _entry(adata: AnnData, key: str) -> dict[str, Any]:
    return dict(dict(facts.records(adata))[key])


def _frame(store: Any, name: str) -> pd.DataFrame:
    stored = store.get(name)
    return stored if isinstance(stored, pd.DataFrame) else pd.DataFrame()


# -- in words


def _matched(adata: AnnData, params: dict[str, Any]) -> list[str]:
    """What was matched with the reference."""
    if "n_cells" not in params:
        types = np.atleast_1d(np.asarray(params.get("types", []), dtype=object))
        return [f"By marker genes: {int(params.get('n_genes', 0)):,} genes for {len(types)} types, no reference."]
    shared, ours, theirs = (int(params.get(f"n_genes{end}", 0)) for end in ("", "_section", "_reference"))
    n_types = np.asarray(params.get("types", [])).size
    lines = [
        f"Reference: {int(params['n_cells']):,} cells of {n_types} types; {shared:,} genes are shared, of {ours:,} in "
        f"the section and {theirs:,} in the reference."
    ]
    few = [message for message in _keys.kept_warnings(adata) if FEW in message]
    lines += [f"Read with care: {message}" for message in few]
    return lines


def _platform(params: dict[str, Any]) -> list[str]:
    sd = float(params.get("platform_sd", np.nan))
    if not np.isfinite(sd):
        return []
    return [
        f"Section and reference measure genes unlike each other: the logarithm of their ratio has a standard deviation "
        f"of {sd:.2f} over genes, which was estimated and taken into account."
    ]


def _labels(adata: AnnData, noun: str) -> dict[str, Any] | None:
    key = stored_key(adata, "sm.tl.annotate")
    if key is None:
        return None
    params = _entry(adata, key)["params"]
    lines = [*_matched(adata, params), *_platform(params), *_prior(params, noun)]
    member = _frame(adata.obsm, key + SET_SUFFIX)
    lines += _set_lines(adata, member, key, float(params.get("level", 0.9)), noun)
    table = facts.table(_label_table(adata, key, member, noun))
    return {"key": key, "lines": lines, "table": table, "truth": _truth(adata, key)}


def _prior(params: dict[str, Any], noun: str) -> list[str]:
    """Whether surroundings had a say."""
    if "spatial_gain" not in params:
        return []
    if bool(params.get("spatial", False)):
        return [f"The types of surrounding {noun}s were a prior."]
    return [f"The types of surrounding {noun}s had no say: this was asked for, or they did not pass the tests for it."]


def _set_lines(adata: AnnData, member: pd.DataFrame, key: str, level: float, noun: str) -> list[str]:
    label = adata.obs[key].astype(str).to_numpy()
    unknown = float((label == _keys.UNKNOWN).mean())
    lines = [f"{facts.percent(unknown)} of the {noun}s are likeliest of a type that the reference lacks (“unknown”)."]
    if member.empty:
        return lines
    size = member.to_numpy(dtype=bool).sum(axis=1)
    one, more = (facts.percent(float(share)) for share in ((size == 1).mean(), (size > 1).mean()))
    return [
        *lines,
        f"Sets of types, meant to hold the true one for {facts.percent(level)} of the {noun}s: one type for "
        f"{one}, more for {more}; {size.mean():.2f} on average. "
        "Where labels of section and reference are not of one hand they hold it less often.",
    ]


def _label_table(adata: AnnData, key: str, member: pd.DataFrame, noun: str) -> pd.DataFrame:
    """A row a type: cells, share, confidence, and how many of them have no other type in their set."""
    label = adata.obs[key].astype(str).to_numpy()
    sure = adata.obs.get(key + _keys.CONFIDENCE_SUFFIX)
    single = None if member.empty else member.to_numpy(dtype=bool).sum(axis=1) == 1
    rows = []
    for name in pd.unique(np.asarray([*_names(adata, key)], dtype=object)):
        here = label == name
        row = {"type": name, f"{noun}s": int(here.sum()), "share": facts.percent(float(here.mean()))}
        if sure is not None:
            row["median confidence"] = _median(sure.to_numpy(dtype=np.float64)[here])
        if single is not None:
            row["set of one type"] = facts.percent(float(single[here].mean())) if here.any() else "-"
        rows.append(row)
    return pd.DataFrame(rows)


def _names(adata: AnnData, key: str) -> list[str]:
    from smeld.pl import _colors

    return _colors.categories(adata, key).names


def _median(values: NDArray[np.float64]) -> str:
    values = values[np.isfinite(values)]
    return f"{np.median(values):.2f}" if values.size else "-"


def _proportions(adata: AnnData, noun: str) -> dict[str, Any] | None:
    key = stored_key(adata, "sm.tl.deconvolve")
    shares = _frame(adata.obsm, key) if key is not None else pd.DataFrame()
    if key is None or shares.empty:
        return None
    params = _entry(adata, key)["params"]
    table = _share_table(adata, key, shares, noun)
    level = facts.percent(float(params.get("level", 0.9)))
    what = "counts" if str(params.get("of")) == "counts" else "cells"
    lines = [
        *_matched(adata, params),
        *_platform(params),
        f"Shares are of {what}. Intervals are meant to hold {level} of the shares of types that are present; they do "
        "not know of types that differ between section and reference, and on real tissue they have held far less.",
    ]
    number = params.get("cells_a_spot")
    if isinstance(number, float | np.floating):
        lines.append(
            f"A {noun} is taken to hold {float(number):.1f} cells (estimated); the fewer, the likelier absences."
        )
    lines += _nuclei(adata, key, noun)
    return {"key": key, "lines": lines, "table": facts.table(table)}


def _nuclei(adata: AnnData, key: str, noun: str) -> list[str]:
    """How many nuclei were counted, where numbers of cells by type were made of them."""
    column = _entry(adata, key)["inputs"].get("nuclei")
    if column not in adata.obs.columns:
        return []
    number = adata.obs[column].to_numpy(dtype=np.float64, na_value=np.nan)
    known = number[np.isfinite(number)]
    if not known.size:
        return []
    low, middle, high = np.percentile(known, [5, 50, 95])
    unseen = f"; unknown for {len(number) - known.size:,} {noun}s" if known.size < len(number) else ""
    return [
        f"Nuclei counted under a {noun}: {middle:.0f} in the median, {low:.0f} to {high:.0f} in 90 % of the {noun}s, "
        f"{known.sum():,.0f} in all{unseen}. Shares times nuclei are the cells of each type to be expected. Nuclei "
        "that lie over each other are counted too few."
    ]


def _share_table(adata: AnnData, key: str, shares: pd.DataFrame, noun: str) -> pd.DataFrame:
    """A row a type: mean share, in how many spots it is surely present and surely absent, width of its intervals."""
    low, high, absent = (_frame(adata.obsm, key + end) for end in ("_low", "_high", "_absent"))
    rows = []
    for name in shares.columns:
        row = {"type": str(name), "mean share": f"{100 * float(shares[name].mean()):.1f} %"}
        if name in absent:
            gone = absent[name].to_numpy(dtype=np.float64)
            row[f"{noun}s that surely have it"] = facts.percent(float((gone < 1 - SURE).mean()))
            row[f"{noun}s that surely lack it"] = facts.percent(float((gone > SURE).mean()))
        if name in low and name in high:
            row["median width of the interval"] = _median((high[name] - low[name]).to_numpy(dtype=np.float64))
        rows.append(row)
    return pd.DataFrame(rows)


def _niches(adata: AnnData, noun: str) -> dict[str, Any] | None:
    key = stored_key(adata, "sm.tl.niches")
    if key is None or f"{key}_composition" not in adata.uns:
        return None
    entry = _entry(adata, key)
    params = entry["params"]
    n = int(params.get("n_niches", adata.obs[key].nunique()))
    morphology = int(params.get("n_morphology", 0))
    chosen = facts.plain(params.get("n_niches_from", "not recorded"))
    stable = float(params.get("stability", np.nan))
    lines = [
        f"{n} niche{'' if n == 1 else 's'} (number: {chosen}): places whose {noun}s "
        f"have like surroundings, by {facts.plain(entry['inputs'].get('groups', 'types'))}"
        + (f" and {morphology} components of morphology." if morphology else "."),
        f"A single one: as far as types tell, all {noun}s have like surroundings."
        if n == 1
        else f"Members of the consensus agree at an adjusted Rand index of {stable:.2f}.",
    ]
    states = _states(adata)
    return {
        "key": key,
        "lines": lines + (_state_lines(states) if states is not None else []),
        "states": facts.table(_rounded(states.head(MOST_STATES))) if states is not None and len(states) else None,
    }


def _states(adata: AnnData) -> pd.DataFrame | None:
    key = stored_key(adata, "sm.tl.niche_states")
    table = pd.DataFrame() if key is None else _frame(adata.uns, f"{key}s")
    if not {"cell_type", "pvalue", "qvalue", "split"} <= set(table):
        return None
    return table.sort_values("pvalue", kind="stable")


def _state_lines(states: pd.DataFrame) -> list[str]:
    split = states[states["split"].astype(bool)]
    if split.empty:
        return ["No type is split into states: none follows its surroundings by more than chance."]
    names = _check.listed(split["cell_type"].astype(str))
    return [
        f"Split into states by niche: {names}. How often that happens by chance "
        "has not been measured: read p as a ranking, and look at the map."
    ]


def _rounded(states: pd.DataFrame) -> pd.DataFrame:
    made = states.copy()
    for column in ("pvalue", "qvalue"):
        made[column] = ["not tested" if not np.isfinite(v) else f"{v:.2g}" for v in made[column].astype(float)]
    return made.assign(split=np.where(states["split"].astype(bool), "yes", "no"))


# -- figures


def _key(adata: AnnData, function: str) -> str:
    key = stored_key(adata, function)
    if key is None:
        raise _check.problem("no cell types are stored", found=_check.listed(adata.obsm), cure=f"run {function}(adata)")
    return key


def _map(adata: AnnData, library_id: str | None, beside: float) -> tuple[Figure, Any]:
    from smeld.pl import _canvas

    figure = _figure(_canvas.size_in(adata, library_id, beside=beside))
    return figure, figure.subplots()


def _type_map(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl

    found = _key(adata, "sm.tl.annotate")
    figure, ax = _map(adata, library_id, 1.5)
    pl.domains(adata, found, ax=ax, title="Cell types", library_id=library_id)
    return figure


def _type_confidence(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl

    found = _key(adata, "sm.tl.annotate")
    figure, ax = _map(adata, library_id, 1.0)
    pl.confidence(adata, found, ax=ax, title="Confidence of cell types", library_id=library_id)
    return figure


def _truth(adata: AnnData, key: str) -> str | None:
    """The labels that types were held against by ``sm.tl.calibration``."""
    said = [e["inputs"] for _, e in facts.records(adata) if e["function"] == "sm.tl.calibration"]
    return next((str(i.get("truth")) for i in said if i.get("key") == key and i.get("truth") in adata.obs), None)


def _confusion(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl.given_types import counted, size_in

    found = _key(adata, "sm.tl.annotate")
    truth = _truth(adata, found)
    if truth is None:
        cure = f'run sm.tl.calibration(adata, "my_labels", key={found!r})'
        raise _check.problem("types were held against no labels", found="no record of it", cure=cure)
    figure = _figure(size_in(counted(adata, truth, found, None)))
    pl.confusion(adata, truth, found, ax=figure.subplots())
    return figure


def _shares(show: str) -> Callable[[Any, str, str | None], Any]:
    def draw(adata: AnnData, key: str, library_id: str | None) -> Figure:
        from smeld import pl
        from smeld.pl import type_shares

        found = _key(adata, "sm.tl.deconvolve")
        names = type_shares.chosen(type_shares.stored_proportions(adata, found), None, type_shares.MOST_MAPS)
        size, shape = type_shares.layout(adata, len(names), library_id)
        figure = _figure(size)
        axes = _grid(figure, shape, len(names))
        pl.proportions(adata, names, show=show, key=found, axes=axes, library_id=library_id)
        return figure

    return draw


def _pies(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl import type_shares

    found = _key(adata, "sm.tl.deconvolve")
    figure = _figure(type_shares.pie_size_in(adata, library_id=library_id))
    pl.proportions(adata, kind="pie", key=found, axes=figure.subplots(), library_id=library_id)
    return figure


def _niche_map(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl

    found = _key(adata, "sm.tl.niches")
    figure, ax = _map(adata, library_id, 1.4)
    pl.domains(adata, found, ax=ax, title="Niches", library_id=library_id)
    return figure


def _niche_heat(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl
    from smeld.pl.niche_types import size_in

    found = _key(adata, "sm.tl.niches")
    figure = _figure(size_in(adata, found))
    pl.niche_heatmap(adata, found, ax=figure.subplots())
    return figure


#: figures by file name, in the order of the report
FIGURES: dict[str, Callable[[Any, str, str | None], Any]] = {
    "cell_types": _type_map,
    "cell_type_confidence": _type_confidence,
    "cell_type_confusion": _confusion,
    "proportions": _shares("share"),
    "proportions_width": _shares("width"),
    "proportions_absent": _shares("absent"),
    "proportion_pies": _pies,
    "niches": _niche_map,
    "niche_heatmap": _niche_heat,
}
