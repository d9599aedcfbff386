"""Is the confidence worth its name from one section to the next? Fitted on one, predicted and scored on the other."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import _measure
import _scores
import numpy as np
from _datasets import SECTIONS, scored, true_number

PAIRS = (("dlpfc_151673", "dlpfc_151674"), ("dlpfc_151674", "dlpfc_151673"))


def predicted(fitted: Any, other: Any, k: int, seed: int) -> np.ndarray:
    """Memberships of ``other`` [n_obs, k] by the mixtures of ``fitted``'s domains, on the genes that both have.

    ``other`` is projected on the first one's components, centred and smoothed along its own neighbours; the consensus
    over scales and starts has the column order that it got on the first section.
    """
    import smeld as sm
    from smeld.fusion import _variants
    from smeld.kernels import consensus, expression, mixture, smooth

    fusion = sm.fuse(fitted, seed=seed)
    alpha = fusion.facts["alpha"]
    used = np.flatnonzero(np.abs(fitted.varm["PCs"]).sum(axis=1) > 0)
    scaled = expression.scale_columns(expression.log_normalise(other.X.tocsr())[:, used])
    base = np.asarray(scaled @ fitted.varm["PCs"][used])
    base = base - base.mean(axis=0) + fitted.obsm["X_pca"].mean(axis=0)
    weights = sm.fuse(other, seed=seed).weights
    members, predictions = [], []
    for scale, s in zip(_variants.SCALES, np.random.SeedSequence(seed).spawn(len(_variants.SCALES))):
        own = smooth.smooth(fusion.weights, fitted.obsm["X_pca"], alpha * scale)
        there = smooth.smooth(weights, base, alpha * scale)
        for model in mixture.fit(own, k, seed=s, n_starts=8)[:4]:
            members.append(model.predict_proba(own))
            predictions.append(model.predict_proba(there))
    order = consensus.consensus(members).order
    return np.asarray(sum(p[:, o] for p, o in zip(predictions, order)) / len(members))


def measure_pair(first: str, second: str, seeds: int) -> list[dict[str, Any]]:
    """Scores of every seed, in this process."""
    warnings.simplefilter("ignore")
    fitted, other = SECTIONS[first].read(), SECTIONS[second].read()
    common = fitted.var_names.intersection(other.var_names)
    fitted, other = fitted[:, common].copy(), other[:, common].copy()
    keep, k = scored(other), true_number(fitted)
    truth = other.obs["truth"].astype(str).to_numpy()[keep]
    runs = []
    for seed in range(seeds):
        prob = predicted(fitted.copy(), other.copy(), k, seed)[keep]
        found = prob.argmax(axis=1)
        reliability = _scores.comembership(truth, prob)
        runs.append(
            {
                "ari": _scores.ari(truth, found),
                "calibration_error": reliability.calibration_error,
                "brier": reliability.brier,
                **_scores.risk_coverage(truth, found, prob.max(axis=1)),
            }
        )
    return runs


def measure(*, seeds: int) -> list[dict[str, Any]]:
    rows = []
    for first, second in PAIRS:
        if SECTIONS[first].absent or SECTIONS[second].absent:
            continue
        with tempfile.TemporaryDirectory() as folder:
            arguments = [first, second, "--seeds", str(seeds)]
            runs, _ = _measure.run_json("across.py", arguments, Path(folder), threads=1, timeout=3600)
        mean = {key: _scores.summary([r[key] for r in runs])["mean"] for key in runs[0]}
        rows.append(
            {
                "fitted on": first,
                "predicted": second,
                "seeds": len(runs),
                "ARI": mean["ari"],
                "calibration error": mean["calibration_error"],
                "Brier": mean["brier"],
                "Brier of a constant": 0.25,
                "error": mean["error"],
                "error, confident half": mean["error_confident_half"],
                "ratio": mean["error_confident_half"] / mean["error"],
            }
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    json.dump(measure_pair(options.first, options.second, options.seeds), sys.stdout)


if __name__ == "__main__":
    main()
