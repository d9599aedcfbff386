"""Whether stated confidence comes true, by a user's own labels or order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.kernels import consensus, evidence, ordering
from smeld.kernels import reliability as kernel

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: bins of probability
N_BINS = 10
#: the share of intervals that ought to hold the truth
LEVEL = 0.9
#: pairs of like label that are looked at, and as many of unlike label
N_PAIRS = 50_000
#: spatial blocks of a section: few, for errors reach over the borders of small ones
N_BLOCKS = 16
#: points of a stored curve
N_POINTS = 200


@dataclass(frozen=True)
class Calibration:
    """Tables: ``reliability`` (a row a bin), ``risk_coverage`` (a row a point), ``summary`` (a row a question);
    ``matching``, the true label of each class (None for intervals); spots scored, and left out for want of a label
    or a forecast."""

    reliability: pd.DataFrame
    risk_coverage: pd.DataFrame
    summary: pd.DataFrame
    matching: pd.DataFrame | None
    n_scored: int
    n_left_out: int


def calibration(
    data: Any,
    truth: str,
    *,
    key: str = _keys.DOMAIN,
    match: bool | None = None,
    batch_key: str | None = None,
    key_added: str | None = None,
    seed: int = 0,
) -> Calibration:
    """Score stated confidence against labels, or intervals against an order, that you know. Works in place.

    Memberships answer one or two questions. ``label``: is the spot's most probable class its true label, as often as
    stated? ``pair``: do two spots share a label, as often as ``sm.tl.same_domain`` states (where the names of classes
    are arbitrary; pairs balanced between like and unlike)? Intervals answer a third, ``interval``: does the truth lie
    within, in 90 % of spots? Neighbouring spots err together, so that the ranges of what was observed come from
    spatial blocks.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table.
    truth
        Column of ``obs`` with your labels, or with numbers that order the spots where ``key`` has intervals. Spots
        without a value are left out.
    key
        What is scored: the prefix of memberships (``obsm["<key>_prob"]``) or, where there are none, of an order with
        intervals (``obs["<key>"]``, ``"<key>_low"``, ``"<key>_high"``, as by ``sm.tl.trajectory``).
    match
        True: classes are matched to labels one to one, so that most spots agree. False: by name. None: matched if
        ``sm.tl.domains`` named them, or if no name is a label's.
    batch_key
        Column of ``obs`` that names each spot's section; blocks never join two sections.
    key_added
        Key in ``uns`` that is written; ``"<key>_calibration"`` by default.
    seed
        Seed of the sample of pairs.

    Writes
    ------
    ``uns["domain_calibration"]``, a dictionary of tables:

    ================== ==========================================================================================
    ``reliability``    by ``question`` and ``bin`` (tenths of the probability from ``low`` to ``high``): ``n``, mean
                       ``stated``, ``observed``, its 90 % range ``observed_low`` to ``observed_high``, and the
                       independent witnesses ``n_effective`` it is worth. Of intervals: by tenth of the order
    ``risk_coverage``  of the most confident share ``coverage`` the error ``risk``; ``risk_best`` for a confidence that
                       knows the truth, ``risk_random`` for one that knows nothing. Of intervals: mean distance from
                       the truth, narrowest first
    ``summary``        by ``question``: ``n``, calibration error with bins of equal width (``ece``) and of equal mass
                       (``ece_mass``), Brier score with that of the best constant and its parts ``brier_reliability``
                       and ``brier_resolution``, ``error``, error of the most confident half, area under the curve
                       (``aurc``) with the best and the random one; of classes also the Brier score over all of them.
                       Of intervals: ``coverage`` and its range, ``mean_width``, ``spearman``
    ``matching``       each ``class``, its ``label`` ("none" without one), and in how many spots they agree
    ================== ==========================================================================================

    Returns
    -------
    The same as a frozen :class:`Calibration`.

    Raises
    ------
    InputError
        If ``truth`` or the forecasts are missing, no spot has both, or all spots have one label.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> found = sm.tl.domains(adata, 4)
    >>> sm.tl.calibration(adata, "truth_domain").summary["question"].tolist()
    ['label', 'pair']

    References
    ----------
    Calibration error: Naeini, Cooper & Hauskrecht, AAAI (2015). Brier score: Murphy, J. Appl. Meteorol. 12 (1973) 595.
    Risk and coverage: Geifman & El-Yaniv, NeurIPS (2017). Matching: Kuhn, Naval Res. Logist. Q. 2 (1955) 83.
    """
    adata = _adapt.table(data)
    cure = "name the column with your own labels"
    _check.require(adata.obs, truth, "obs", cure)
    if truth == key:
        raise _check.problem("truth must be another column than what is scored", found=repr(truth), cure=cure)
    section, _ = _adapt.sections(adata, batch_key)
    by_label = key + _keys.PROB_SUFFIX in adata.obsm
    if by_label:
        scored = _of_labels(adata, truth, key, match, section, seed)
    else:
        scored = _of_intervals(adata, truth, key, section)
    _write(adata, key_added or f"{key}_calibration", scored)
    params = {"n_scored": scored.n_scored, "n_left_out": scored.n_left_out, "n_bins": N_BINS}
    inputs = {"truth": truth, "key": key, "batch_key": batch_key, "match": match}
    name = key_added or f"{key}_calibration"
    _keys.record(adata, name, function="sm.tl.calibration", params=params, seed=seed, inputs=inputs)
    return scored


def _write(adata: Any, name: str, scored: Calibration) -> None:
    tables = {part: getattr(scored, part) for part in ("reliability", "risk_coverage", "summary", "matching")}
    adata.uns[name] = {part: table for part, table in tables.items() if table is not None}
    if scored.n_left_out:
        words = "have no label or no forecast and are left out"
        _check.warn(f"{scored.n_left_out} of {adata.n_obs} spots {words}.", adata, stacklevel=4)


# -------------------------------------------------------------------------------------------------------- memberships


def _of_labels(adata: Any, truth: str, key: str, match: bool | None, section: Int, seed: int) -> Calibration:
    import pandas as pd

    order = _adapt.canonical_order(adata)
    prob, names = _memberships(adata, key + _keys.PROB_SUFFIX)
    label, labels = _adapt.numbered(adata.obs[truth])
    rows = order[(label[order] >= 0) & ~np.isnan(prob[order]).any(axis=1)]
    _check_labels(truth, labels, label, rows)
    if match is None:
        match = _arbitrary(adata, key) or not set(names) & set(labels)
    prob, label = prob[rows], label[rows]
    found = prob.argmax(axis=1)
    of_class = _matched(label, found, labels, names, match)
    block = _blocks(adata, rows, section)
    confidence, hit = prob[np.arange(len(rows)), found], (of_class[found] == label).astype(np.float64)
    parts = [_question("label", confidence, hit, block[:, None])]
    parts[0][1].update(_over_classes(prob, label, of_class, len(labels)))
    if match and _can_pair(label):
        parts.append(_pairs(prob, label, block, seed))
    _warn_unknown(adata, match, labels, names)
    agree = np.bincount(found, hit, minlength=len(names)).astype(np.int64)
    said = [labels[c] if c >= 0 else "none" for c in of_class]
    return Calibration(
        pd.concat([table for table, _ in parts], ignore_index=True),
        _curve("label", confidence, 1 - hit),
        pd.DataFrame([row for _, row in parts]),
        pd.DataFrame({"class": names, "label": said, "n_class": np.bincount(found, minlength=len(names)),
                      "n_agree": agree}),
        len(rows),
        adata.n_obs - len(rows),
    )  # fmt: skip


def _memberships(adata: Any, name: str) -> tuple[Float, list[str]]:
    """Memberships [n_obs, n_classes] and the names of the classes; rows may be missing as a whole."""
    stored = adata.obsm[name]
    prob = np.asarray(stored, dtype=np.float64)
    names = [str(c) for c in getattr(stored, "columns", range(1, prob.shape[1] + 1))]
    known = prob[~np.isnan(prob).any(axis=1)]
    total = known.sum(axis=1)
    if (known < -1e-6).any() or (np.abs(total - 1) > 1e-3).any():
        found = f"sums of rows from {total.min():g} to {total.max():g}"
        raise _check.problem(f"obsm[{name!r}] must hold probabilities that sum to 1 by spot", found=found)
    return prob, names


def _check_labels(truth: str, labels: list[str], label: Int, rows: Int) -> None:
    if not len(rows):
        found = f"{int((label >= 0).sum())} labels, none of them where a membership is"
        raise _check.problem(f"obs[{truth!r}] labels no spot with a forecast", found=found, cure="label some spots")
    if len(np.unique(label[rows])) < 2:
        cure = "label spots of at least two kinds: with one there is nothing to tell apart"
        raise _check.problem(f"obs[{truth!r}] holds a single label", found=labels[label[rows[0]]], cure=cure)


def _arbitrary(adata: Any, key: str) -> bool:
    """Whether the classes are numbers that ``sm.tl.domains`` gave; that "1" is a label, too, then means nothing."""
    made: Any = adata.uns.get(_keys.RECORD, {}).get(key, {})
    return bool(made.get("function") == "sm.tl.domains")


def _matched(label: Int, found: Int, labels: list[str], names: list[str], match: bool) -> Int:
    """True label of each class, -1 without one."""
    if match:
        return kernel.match(label, found, len(labels), len(names))
    return np.array([labels.index(name) if name in labels else -1 for name in names], dtype=np.intp)


def _warn_unknown(adata: Any, match: bool, labels: list[str], names: list[str]) -> None:
    unknown = [] if match else [name for name in labels if name not in names]
    if unknown:
        words = f"no class has the name of {_check.listed(unknown, 4)}: their spots count as wrong."
        _check.warn(words, adata, stacklevel=5)


def _over_classes(prob: Float, label: Int, of_class: Int, n_labels: int) -> dict[str, float]:
    """Brier score over labels and the classes without one, and that of the labels' own shares as a constant."""
    known = np.flatnonzero(of_class >= 0)
    named = np.zeros((len(prob), n_labels))
    named[:, of_class[known]] = prob[:, known]
    whole = np.column_stack([named, prob[:, of_class < 0]])
    share = np.bincount(label, minlength=n_labels) / len(label)
    return {
        "brier_classes": kernel.brier_classes(whole, label),
        "brier_classes_constant": 1.0 - float((share**2).sum()),
    }


def _can_pair(label: Int) -> bool:
    return bool((np.bincount(label) > 1).any())


def _pairs(prob: Float, label: Int, block: Int, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The question of pairs, on as many pairs of like as of unlike label."""
    like, unlike = kernel.balanced_pairs(label, N_PAIRS, np.random.default_rng(seed))
    pairs = np.concatenate([like, unlike])
    stated = consensus.same_domain(prob[pairs[:, 0]], prob[pairs[:, 1]], base=consensus.base_rate(prob))
    hit = np.repeat([1.0, 0.0], N_PAIRS)
    ends = block[pairs]
    ends[ends[:, 0] == ends[:, 1], 1] = -1  # a block counts once
    return _question("pair", stated, hit, ends)


def _question(name: str, stated: Float, hit: Float, block: Int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """(table of bins, row of the summary) of one question."""
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    index = kernel.equal_width(stated, N_BINS)
    table = _bins(name, kernel.binned(stated, hit, index, N_BINS), edges, kernel.interval(hit, index, block, N_BINS))
    parts = kernel.brier(stated, hit, n_bins=N_BINS)
    row = {
        "question": name,
        "n": len(hit),
        "ece": kernel.calibration_error(stated, hit, n_bins=N_BINS),
        "ece_mass": kernel.calibration_error(stated, hit, n_bins=N_BINS, mass=True),
        "brier": parts.score,
        "brier_constant": parts.uncertainty,
        "brier_reliability": parts.reliability,
        "brier_resolution": parts.resolution,
    }
    if name == "label":
        row |= _risks("error", stated, 1 - hit)
    return table, row


def _risks(what: str, confidence: Float, loss: Float) -> dict[str, float]:
    curve = kernel.risk_coverage(confidence, loss)
    return {
        what: float(loss.mean()),
        f"{what}_confident_half": float(curve[max(1, len(loss) // 2) - 1]),
        "aurc": float(curve.mean()),
        "aurc_best": float(kernel.best_risk(loss).mean()),
        "aurc_random": float(loss.mean()),
    }


def _bins(name: str, made: kernel.Bins, edges: Float, spread: kernel.Interval) -> pd.DataFrame:
    import pandas as pd

    used = made.n > 0
    columns = {
        "bin": np.arange(len(made.n)),
        "low": edges[:-1],
        "high": edges[1:],
        "n": made.n,
        "stated": made.stated,
        "observed": made.observed,
        "observed_low": spread.low,
        "observed_high": spread.high,
        "n_effective": spread.n_effective,
    }
    table = pd.DataFrame({k: v[used] for k, v in columns.items()})
    table.insert(0, "question", name)
    return table


def _curve(name: str, confidence: Float, loss: Float) -> pd.DataFrame:
    """Risk against coverage at ``N_POINTS`` even points, or at every spot of fewer."""
    import pandas as pd

    n = len(loss)
    at = np.unique(np.ceil(np.linspace(1, n, min(n, N_POINTS))).astype(int)) - 1
    columns = {
        "coverage": (at + 1) / n,
        "risk": kernel.risk_coverage(confidence, loss)[at],
        "risk_best": kernel.best_risk(loss)[at],
        "risk_random": np.full(len(at), loss.mean()),
    }
    return pd.DataFrame({"question": name, **columns})


def _blocks(adata: Any, rows: Int, section: Int) -> Int:
    """Spatial block of every scored spot; without positions each spot stands for itself."""
    if _keys.SPATIAL_UM not in adata.obsm:
        return np.arange(len(rows), dtype=np.intp)
    xy, of = _adapt.xy_um(adata)[rows], section[rows]
    block, first = np.zeros(len(rows), dtype=np.intp), 0
    for s in np.unique(of):
        here = np.flatnonzero(of == s)
        block[here] = first + evidence.blocks(xy[here], N_BLOCKS)
        first = int(block[here].max()) + 1
    return block


# ---------------------------------------------------------------------------------------------------------- intervals


def _of_intervals(adata: Any, truth: str, key: str, section: Int) -> Calibration:
    import pandas as pd

    columns = [key, f"{key}_low", f"{key}_high"]
    if not set(columns) <= set(adata.obs):
        found = f"obsm has {_check.listed(adata.obsm)}"
        cure = "run sm.tl.domains(adata) or sm.tl.trajectory(adata) first, or name what is scored with key="
        missing = f"neither obsm['{key}{_keys.PROB_SUFFIX}'] nor obs['{key}_low'] and obs['{key}_high'] is there"
        raise _check.problem(missing, found=found, cure=cure)
    known = pd.to_numeric(adata.obs[truth].astype(object), errors="coerce").to_numpy(dtype=np.float64)
    value, low, high = (adata.obs[c].to_numpy(dtype=np.float64) for c in columns)
    order = _adapt.canonical_order(adata)
    rows = order[np.isfinite(np.stack([known, value, low, high])).all(axis=0)[order]]
    if not len(rows) or np.ptp(known[rows]) == 0:
        found = f"{len(rows)} spots with numbers, {len(np.unique(known[rows]))} different"
        raise _check.problem(f"obs[{truth!r}] orders no spots", found=found, cure="name a column of numbers")
    value, low, high = value[rows], low[rows], high[rows]
    right = ordering.ranks(known[rows], np.ones(len(rows)))
    block = _blocks(adata, rows, section)[:, None]
    held = ((low <= right) & (right <= high)).astype(np.float64)
    edges = np.linspace(0.0, 1.0, N_BINS + 1)
    index = kernel.equal_width(value, N_BINS)
    table = _bins("interval", kernel.binned(np.full(len(rows), LEVEL), held, index, N_BINS), edges,
                  kernel.interval(held, index, block, N_BINS))  # fmt: skip
    table["stated"] = LEVEL  # the mean of many is not quite it
    loss = np.abs(value - right)
    whole = kernel.interval(held, np.zeros(len(rows), dtype=np.intp), block, 1)
    row = {"question": "interval", "n": len(rows), "stated": LEVEL, "coverage": float(held.mean()),
           "coverage_low": float(whole.low[0]), "coverage_high": float(whole.high[0]),
           "mean_width": float((high - low).mean()), "spearman": _spearman(value, right),
           **_risks("distance", low - high, loss)}  # fmt: skip
    curve = _curve("interval", low - high, loss)
    return Calibration(table, curve, pd.DataFrame([row]), None, len(rows), adata.n_obs - len(rows))


def _spearman(a: Float, b: Float) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)
