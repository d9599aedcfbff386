"""What the report says and draws of how sure results are: confidence against a user's labels, and the spread of an
embedding that has one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from smeld import _check, _keys
from smeld import _report_facts as facts

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

#: mean distance of what is stated from what comes true, up to which confidence says what it means
CLOSE = 0.1
#: share of what a perfect ranking gains, below which confidence ranks nothing
LEAST_GAIN = 0.05
#: more calibrations are stored in the file, but not drawn
MOST = 3
CURE = "run sm.tl.calibration(adata, truth)"
_ASKED = {
    "label": "As the chance that a spot bears its label",
    "pair": "As the chance that two spots share a label",
}

# -- confidence against labels


def calibrations(adata: AnnData) -> list[str]:
    """Keys in ``uns`` of what ``sm.tl.calibration`` left."""
    made = [key for key, entry in facts.records(adata) if entry["function"] == "sm.tl.calibration"]
    keys = dict.fromkeys([f"{_keys.DOMAIN}_calibration", *made])
    return [key for key in keys if len(_summary(adata, key))]


def _summary(adata: AnnData, key: str) -> pd.DataFrame:
    return _part(adata, key, "summary", "question")


def _part(adata: AnnData, key: str, name: str, column: str) -> pd.DataFrame:
    stored = adata.uns.get(key)
    table = stored.get(name) if isinstance(stored, Mapping) else None
    return table if isinstance(table, pd.DataFrame) and column in table else pd.DataFrame()


def content(adata: AnnData) -> list[dict[str, Any]]:
    """Of each calibration what was scored, verdicts in words, and its tables; empty without any."""
    return [
        {
            "title": _scored(adata, key),
            "lines": [*_verdicts(adata, key), *_ranking(adata, key), *_matched(adata, key)],
            "summary": facts.table(_figures(_summary(adata, key))),
            "matching": facts.table(_part(adata, key, "matching", "class")),
        }
        for key in calibrations(adata)[:MOST]
    ]


def _scored(adata: AnnData, key: str) -> str:
    entry = dict(facts.records(adata)).get(key, {"inputs": {}, "params": {}})
    inputs, params = entry["inputs"], entry["params"]
    name = facts.plain(inputs.get("key", key.removesuffix("_calibration")))
    truth = f" against {facts.plain(inputs['truth'])}" if "truth" in inputs else ""
    count = f", {int(params['n_scored']):,} spots" if "n_scored" in params else ""
    return f"{name}{truth}{count}"


def _figures(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary turned round: a column a question, and only what was measured."""
    turned = summary.set_index(summary["question"].astype(str)).drop(columns="question").T.dropna(how="all")
    turned = turned.astype(object).where(turned.notna(), "")
    if "n" in turned.index:
        turned.loc["n"] = [f"{int(n):,}" for n in turned.loc["n"]]
    turned.index.name, turned.columns.name = "measure", None
    return turned


def _verdicts(adata: AnnData, key: str) -> list[str]:
    """Of each question whether the confidence is worth its name."""
    bins = _part(adata, key, "reliability", "question")
    lines = []
    for row in _summary(adata, key).to_dict("records"):
        question = str(row["question"])
        mine = bins[bins["question"].astype(str) == question] if len(bins) else bins
        if question == "interval":
            lines.append(_of_intervals(row))
        elif question in _ASKED:
            lines.append(_of_chances(question, row, mine))
    return lines


def _of_chances(question: str, row: Mapping[str, Any], bins: pd.DataFrame) -> str:
    score, constant, error = (float(row[name]) for name in ("brier", "brier_constant", "ece"))
    better = score < constant
    verdict = "is not worth its name"
    if better:
        verdict = "is worth its name" if error <= CLOSE else "tells more from less, but its numbers are off"
    than = "better than" if better else "no better than"
    return (
        f"{_ASKED[question]}, the confidence {verdict}: off by {100 * error:.0f} % on average{_leaning(bins)}; it "
        f"scores {than} one number for all (Brier score {score:.3f}, that one {constant:.3f})."
    )


def _leaning(bins: pd.DataFrame) -> str:
    """Whether more was stated than came true, and in how many tenths beyond doubt."""
    if not {"n", "stated", "observed", "observed_low", "observed_high"} <= set(bins) or not bins["n"].sum():
        return ""
    stated, observed = (float(np.average(bins[c], weights=bins["n"])) for c in ("stated", "observed"))
    side = "too sure" if stated > observed else "not sure enough"
    outside = int(((bins["stated"] < bins["observed_low"]) | (bins["stated"] > bins["observed_high"])).sum())
    return (
        f" ({100 * stated:.0f} % stated, {100 * observed:.0f} % come true: {side}, beyond doubt in {outside} of "
        f"{len(bins)} tenths)"
    )


def _of_intervals(row: Mapping[str, Any]) -> str:
    level, held = float(row["stated"]), float(row["coverage"])
    low, high = float(row["coverage_low"]), float(row["coverage_high"])
    verdict = "are worth their name" if low <= level <= high else "are too narrow" if held < level else "are too wide"
    return (
        f"Intervals {verdict}: {100 * level:.0f} % of spots ought to have the truth in theirs, {100 * held:.0f} % do "
        f"(90 % range {100 * low:.0f} to {100 * high:.0f} %)."
    )


def _ranking(adata: AnnData, key: str) -> list[str]:
    """Whether the confident are right more often."""
    lines = []
    for row in _summary(adata, key).to_dict("records"):
        what = "distance" if str(row["question"]) == "interval" else "error"
        values = [
            float(row.get(c, np.nan)) for c in (what, f"{what}_confident_half", "aurc", "aurc_best", "aurc_random")
        ]
        if not np.isfinite(values).all():
            continue
        every, half, area, best, chance = values
        gained = (chance - area) / (chance - best) if chance > best else 0.0
        ranks = "does not rank spots" if gained < LEAST_GAIN else "ranks spots"
        unit = ("", 3, 1) if what == "distance" else (" %", 0, 100)
        parts = [f"{unit[2] * value:.{unit[1]}f}{unit[0]}" for value in (half, every)]
        noun = "The mean distance from the truth" if what == "distance" else "The share that is wrong"
        lines.append(
            f"{noun} is {parts[0]} in the surer half, {parts[1]} in all: confidence {ranks} ({100 * gained:.0f} % of "
            "what one that knows the truth would gain)."
        )
    return lines


def _matched(adata: AnnData, key: str) -> list[str]:
    if not len(_part(adata, key, "matching", "class")):
        return []
    if "pair" in set(_summary(adata, key)["question"].astype(str)):  # asked where names say nothing
        return ["Classes were matched to labels one to one, so that most spots agree: a little too kind."]
    return ["Classes were compared with labels by name."]


def _drawn(plot: str, size: tuple[float, float]) -> Callable[..., Figure]:
    """A figure with one panel a calibration."""

    def draw(adata: AnnData, key: str, library_id: str | None) -> Figure:
        from matplotlib.figure import Figure

        from smeld import pl

        keys = calibrations(adata)[:MOST]
        if not keys:
            raise _check.problem("no calibration is stored", cure=CURE)
        figure = Figure(figsize=(size[0], size[1] * len(keys)), layout="compressed")
        for name, ax in zip(keys, np.atleast_1d(figure.subplots(len(keys), 1))):
            title = None if len(keys) == 1 else _scored(adata, name).partition(",")[0]
            getattr(pl, plot)(adata, key=name, ax=ax, title=title)
        return figure

    return draw


# -- the spread of an embedding


def spread_key(adata: AnnData) -> str | None:
    """The embedding with a posterior spread: that which domains were drawn from, else the first."""
    found = [
        key.removeprefix(_keys.SD_PREFIX)
        for key in sorted(map(str, adata.obsm))
        if key.startswith(_keys.SD_PREFIX) and key.removeprefix(_keys.SD_PREFIX) in adata.obsm
    ]
    used = str(dict(facts.records(adata)).get(_keys.DOMAIN, {"inputs": {}})["inputs"].get("use_rep", ""))
    return used if used in found else next(iter(found), None)


def relative_spread(adata: AnnData, key: str) -> np.ndarray[Any, Any]:
    """Mean posterior standard deviation over components, float64 [n_obs], in units of the components' own spread."""
    sd = np.asarray(adata.obsm[_keys.SD_PREFIX + key], dtype=np.float64)
    scale = float(np.asarray(adata.obsm[key], dtype=np.float64).std(axis=0).mean())
    return np.asarray(sd.mean(axis=1) / (scale if scale > 0 else 1.0))


def network(adata: AnnData) -> list[str]:
    """What trained the embedding with a spread, in words."""
    key = spread_key(adata)
    if key is None:
        return []
    params = dict(facts.records(adata)).get(key, {"params": {}})["params"]
    middle = float(np.median(relative_spread(adata, key)))
    lines = [f"{key} has a posterior: at the median, its standard deviation is {middle:.2f} of the embedding's."]
    if "epochs" in params:
        basis = {"profiles": "components of smoothed profiles", "components": "the deterministic fusion"}
        prior = basis.get(str(params.get("basis")), "")
        lines.append(f"Trained for {int(params['epochs'])} epochs{f' around {prior}' if prior else ''}.")
    if int(params.get("n_members", 1)) > 1:
        between = float(params.get("ensemble_sd", np.nan))
        lines.append(
            f"Mean of {int(params['n_members'])} networks, whose spread about it ({between:.2f} of the embedding's) "
            "is part of that standard deviation."
        )
    return lines


def _spread(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld.pl import _canvas, maps
    from smeld.pl.trajectory_maps import WIDTHS

    rep = spread_key(adata)
    if rep is None:
        cure = "run sm.fuse(adata, 'vae')"
        raise _check.problem("no embedding with a posterior standard deviation is stored", cure=cure)
    values = relative_spread(adata, rep)
    low, high = np.quantile(values, [0.01, 0.99])
    limits = (float(low), float(high)) if high > low else None
    figure = Figure(figsize=_canvas.size_in(adata, library_id, beside=1.0), layout="compressed")
    maps.continuous(
        adata,
        values,
        ax=figure.subplots(),
        image=False,
        library_id=library_id,
        title="Where the embedding is sure",
        label="sd, share of spread",
        limits=limits,
        colors=WIDTHS,
    )
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {
    "embedding_spread": _spread,
    "reliability": _drawn("reliability", (6.4, 4.6)),
    "risk_coverage": _drawn("risk_coverage", (5.6, 3.8)),
}
