"""Cell types of cells from a reference: accuracy, calibration and label sets under a platform shift.

Simulated sections of cells (300 genes, similar subtypes, the reference on another platform: log-normal factors by gene
of sd 1), with and without a type withheld, and in niches; STARmap, one section as the reference of the other; the
seqFISH embryo, one half of its cells as the reference of the other half (drawn at random, and left against right).
Labels of the section serve scoring only.

Baselines get the same genes and counts: *nearest centroid*, the largest correlation of log-normalised counts with the
types' means; *logistic regression* of scikit-learn on log-normalised counts, as they are and with every gene
standardised on each side, its penalty chosen by cross-validation in the reference; its sets are split-conformal on
reference cells, which is what one has without a model of the shift. smeld is run without and with its spatial prior.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _measure
import numpy as np
from _datasets import FOLDER
from numpy.typing import NDArray
from scipy import sparse

F64 = NDArray[np.float64]
LEVEL = 0.9
#: types with less than this share of the cells are not scored by themselves
LEAST_SHARE = 0.02
N_CELLS, N_GENES, N_TYPES = 3000, 300, 10
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Case:
    """A section, its reference, and the true types (of which the reference may lack some)."""

    adata: Any
    reference: Any
    truth: NDArray[np.str_]


@dataclass(frozen=True)
class Said:
    """What a method says: the label, its probability, and sets (a column a type of ``names``)."""

    label: NDArray[np.str_]
    confidence: F64
    sets: NDArray[np.bool_]
    names: list[str]


# ------------------------------------------------------------------------------------------------------------ cases


def simulated(seed: int, *, effect: float, withheld: bool) -> Case:
    import smeld as sm

    adata = sm.datasets.simulate(
        N_CELLS,
        N_GENES,
        seed=seed,
        layout="cells",
        image=False,
        n_cell_types=N_TYPES,
        n_subtype_pairs=2,
        cell_type_effect=effect,
    )
    truth = adata.obs["truth_cell_type"].astype(str).to_numpy()
    missing = [sorted(set(truth))[seed % N_TYPES]] if withheld else []
    reference = sm.datasets.simulate_reference(adata, 200, seed=seed, withheld=missing)
    return Case(adata, reference, truth)


def niches(seed: int) -> Case:
    """Faint types that live in three niches, most of them in one: here neighbours tell something."""
    import smeld as sm

    adata = sm.datasets.simulate_niches(N_CELLS, N_GENES, seed=seed, n_cell_types=N_TYPES, cell_type_effect=1.0)
    truth = adata.obs["truth_cell_type"].astype(str).to_numpy()
    return Case(adata, sm.datasets.simulate_reference(adata, 200, seed=seed), truth)


def starmap(seed: int) -> Case:
    """Section BZ5 for BZ9 (even seeds), or the other way round."""
    import anndata

    paths = [FOLDER / f"starmap_mpfc/{day}_control.h5ad" for day in ("20180417_BZ5", "20180419_BZ9")]
    reference, adata = (anndata.read_h5ad(p) for p in (paths if seed % 2 == 0 else paths[::-1]))
    adata.obsm["spatial_um"] = adata.obs[["x", "y"]].to_numpy(float)
    return Case(adata, reference, adata.obs.pop("cell_type").astype(str).to_numpy())


def embryo(seed: int, *, sides: bool) -> Case:
    """Half of the cells; types with fewer than 20 cells, and those of low quality, are left out."""
    import anndata

    adata = anndata.read_h5ad(FOLDER / "seqfish_embryo/embryo1_20pct.h5ad")
    adata.X = _counts(sparse.csr_matrix(adata.X, dtype=float))
    adata.obs["cell_type"] = adata.obs.pop("celltype").astype(str)
    number = adata.obs["cell_type"].value_counts()
    keep = adata.obs["cell_type"].isin(number.index[number >= 20]) & (adata.obs["cell_type"] != "Low quality")
    adata = adata[keep.to_numpy()].copy()
    adata.obsm["spatial_um"] = np.asarray(adata.obsm["spatial"], dtype=float)
    x = adata.obsm["spatial_um"][:, 0]
    first = np.random.default_rng(seed).random(len(x)) < 0.5 if not sides else (x < np.median(x)) == (seed % 2 == 0)
    reference, section = adata[first].copy(), adata[~first].copy()
    return Case(section, reference, section.obs.pop("cell_type").astype(str).to_numpy())


def _counts(logged: sparse.csr_matrix) -> sparse.csr_matrix:
    """Counts from log(1 + count * factor of the cell): the smallest value of a cell stands for 1."""
    for i in range(logged.shape[0]):
        own = slice(logged.indptr[i], logged.indptr[i + 1])
        value = np.expm1(logged.data[own])
        logged.data[own] = np.rint(value / value.min()) if len(value) else value
    return sparse.csr_matrix(logged, dtype=np.float32)


CASES: dict[str, Callable[[int], Case]] = {
    "simulated, faint types": lambda seed: simulated(seed, effect=1.0, withheld=False),
    "simulated, clear types": lambda seed: simulated(seed, effect=2.0, withheld=False),
    "simulated, faint, one withheld": lambda seed: simulated(seed, effect=1.0, withheld=True),
    "simulated, clear, one withheld": lambda seed: simulated(seed, effect=2.0, withheld=True),
    "simulated niches, faint types": niches,
    "STARmap, other section": starmap,
    "seqFISH embryo, half of the cells": lambda seed: embryo(seed, sides=False),
    "seqFISH embryo, other side": lambda seed: embryo(seed, sides=True),
}
#: of real cases there are not more: two directions, a few halves
MOST_SEEDS = {"STARmap, other section": 2, "seqFISH embryo, half of the cells": 3, "seqFISH embryo, other side": 2}


# ---------------------------------------------------------------------------------------------------------- methods


def logged(counts: Any) -> F64:
    dense = np.asarray(sparse.csr_matrix(counts, dtype=float).toarray())
    return np.asarray(np.log1p(dense / np.maximum(dense.sum(axis=1, keepdims=True), 1) * 100))


def standardised(x: F64) -> F64:
    return np.asarray((x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6))


def centroid(case: Case) -> Said:
    """No probabilities: the correlation stands for the confidence, the label alone for the set."""
    theirs, ours = logged(case.reference.X), logged(case.adata.X)
    own = case.reference.obs["cell_type"].astype(str).to_numpy()
    names = sorted(set(own))
    means = np.stack([theirs[own == name].mean(axis=0) for name in names])
    similar = np.corrcoef(ours, means)[: len(ours), len(ours) :]
    best = np.nan_to_num(similar).argmax(axis=1)
    return Said(np.array(names)[best], np.full(len(best), np.nan), np.eye(len(names), dtype=bool)[best], names)


def regression(case: Case, scale: Callable[[F64], F64]) -> Said:
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV

    theirs, ours = scale(logged(case.reference.X)), scale(logged(case.adata.X))
    own = case.reference.obs["cell_type"].astype(str).to_numpy()
    half = np.random.default_rng(0).random(len(own)) < 0.5
    chosen = LogisticRegressionCV(Cs=np.geomspace(1e-3, 1, 4), cv=3, max_iter=300).fit(theirs[half], own[half])
    model = LogisticRegression(C=float(np.ravel(chosen.C_)[0]), max_iter=300).fit(theirs[half], own[half])
    names = list(model.classes_)
    rest = ~half & np.isin(own, names)
    prob, number = model.predict_proba(theirs[rest]), np.searchsorted(names, own[rest])
    score = np.sort(prob[np.arange(len(number)), number])
    least = score[max(int(np.floor((1 - LEVEL) * (len(score) + 1))) - 1, 0)]
    model = LogisticRegression(C=model.C, max_iter=300).fit(theirs, own)
    prob = model.predict_proba(ours)
    sets = prob >= least
    sets[np.arange(len(prob)), prob.argmax(axis=1)] = True
    return Said(np.array(model.classes_)[prob.argmax(axis=1)], prob.max(axis=1), sets, list(model.classes_))


def smeld(case: Case, spatial: Any) -> Said:
    import smeld as sm

    made = sm.tl.annotate(case.adata.copy(), case.reference, spatial=spatial, level=LEVEL)
    label = made.labels.astype(str).to_numpy()
    return Said(label, made.confidence.to_numpy(), made.sets.to_numpy(), list(made.sets.columns))


METHODS: dict[str, Callable[[Case], Said]] = {
    "nearest centroid": centroid,
    "logistic regression": lambda case: regression(case, lambda x: x),
    "logistic regression, standardised": lambda case: regression(case, standardised),
    "sm.tl.annotate, no spatial prior": lambda case: smeld(case, False),
    "sm.tl.annotate": lambda case: smeld(case, "auto"),
}


# ----------------------------------------------------------------------------------------------------------- scores


def score(case: Case, said: Said) -> dict[str, float]:
    """Of cells whose type the reference has; and of the others, the share that is unknown or has a larger set."""
    from smeld.kernels.reliability import calibration_error

    has = np.isin(case.truth, case.reference.obs["cell_type"].astype(str).unique())
    number = np.array([said.names.index(t) if t in said.names else -1 for t in case.truth])
    held = said.sets[np.arange(len(number)), np.maximum(number, 0)] & (number >= 0)
    hit, size = said.label == case.truth, said.sets.sum(axis=1)
    share = {t: (case.truth[has] == t).mean() for t in set(case.truth[has])}
    by_type = [held[has & (case.truth == t)].mean() for t, s in share.items() if s > LEAST_SHARE]
    known = not np.isnan(said.confidence).any()
    return {
        "accuracy": float(hit[has].mean()),
        "ece": calibration_error(said.confidence[has], hit[has].astype(float)) if known else np.nan,
        "coverage": float(held[has].mean()),
        "least": float(min(by_type)),
        "types_below": float(np.mean(np.array(by_type) < 0.8)),
        "size": float(size[has].mean()),
        "said_unknown": float((said.label[has] == UNKNOWN).mean()),
        "withheld": float(((said.label == UNKNOWN) | (size > 1))[~has].mean()) if not has.all() else np.nan,
        "withheld_unknown": float((said.label == UNKNOWN)[~has].mean()) if not has.all() else np.nan,
    }


def measure_case(name: str, seed: int, only: str = "") -> list[dict[str, Any]]:
    warnings.simplefilter("ignore")
    case = CASES[name](seed)
    found = []
    for method, run in METHODS.items():
        if only in method:
            started = time.perf_counter()
            said = run(case)
            seconds = time.perf_counter() - started
            found.append({"case": name, "method": method, "seed": seed, "seconds": seconds, **score(case, said)})
    return found


def rows_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds."""
    rows = []
    for case, method in dict.fromkeys((f["case"], f["method"]) for f in found):
        mine = [f for f in found if (f["case"], f["method"]) == (case, method)]

        def mean(key: str, mine: list[dict[str, Any]] = mine) -> float | str:
            values = [f[key] for f in mine if f[key] is not None and np.isfinite(f[key])]
            return float(np.mean(values)) if values else ""

        rows.append(
            {
                "case": case,
                "method": method,
                "seeds": len(mine),
                "accuracy": mean("accuracy"),
                "calibration error": mean("ece"),
                "cover": mean("coverage"),
                "cover of the least type": mean("least"),
                "types below .8": mean("types_below"),
                "size of sets": mean("size"),
                "known called unknown": mean("said_unknown"),
                "withheld: unknown or larger set": mean("withheld"),
                "withheld: unknown": mean("withheld_unknown"),
                "seconds": mean("seconds"),
            }
        )
    return rows


def measure(*, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """All cases and methods, each case and seed in a process of its own on one thread."""
    found: list[dict[str, Any]] = []
    for name in CASES:
        if name in MOST_SEEDS and not (FOLDER / "starmap_mpfc").exists():
            continue
        for seed in range(min(seeds, MOST_SEEDS.get(name, seeds))):
            with tempfile.TemporaryDirectory() as folder:
                arguments = ["--one", name, "--seed", str(seed)]
                made, _ = _measure.run_json("annotate.py", arguments, Path(folder), threads=1, timeout=1800)
            found += made
    return {"annotate": rows_of(found)}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", required=True, help="name of the case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="methods with this in their name")
    options = parser.parse_args(argv)
    found = measure_case(options.one, options.seed, options.only)
    finite = [{k: (None if isinstance(v, float) and np.isnan(v) else v) for k, v in f.items()} for f in found]
    json.dump(finite, sys.stdout)


if __name__ == "__main__":
    main()
