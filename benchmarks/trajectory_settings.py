"""How far the order moves when a constant of ``sm.tl.trajectory`` is half or half again as large.

The sections are those of ``trajectory``. Each constant is set alone; what is not small is the user's to know.
"""

from __future__ import annotations

import warnings
from typing import Any
from unittest import mock

import pandas as pd
import trajectory

#: seeds of each tissue: sparse and dense, shallow and deep
SEEDS = (0, 1, 2, 3)
FACTORS = (0.5, 1.5)


def _settings() -> dict[str, list[tuple[Any, str]]]:
    """What is read as, and the constants behind it."""
    from smeld.kernels import ordering, ordering_evidence
    from smeld.tl import _trajectory, _trajectory_inputs

    evidence = ordering_evidence
    return {
        "neighbours in expression": [(_trajectory, "NEIGHBORS")],
        "smoothing of the expression graph": [(_trajectory, "SMOOTHING")],
        "steps of the walk": [(ordering, "STEPS"), (ordering, "STEPS_ALONE")],
        "points that stand for cells": [(_trajectory_inputs, "N_POINTS")],
        "blocks of tissue": [(_trajectory_inputs, "N_BLOCKS")],
        "fall of the evidence": [(evidence, "FALL")],
        "slack of the evidence": [(evidence, "SLACK")],
        "standard errors of the evidence": [(evidence, "FAINT"), (evidence, "CLEAR")],
    }


def _scaled(value: Any, factor: float) -> Any:
    if isinstance(value, tuple):
        return tuple(factor * v for v in value)
    return round(factor * value) if isinstance(value, int) else factor * value


def measure() -> dict[str, list[dict[str, Any]]]:
    """Largest and mean change of Kendall's tau with the truth, by tissue and setting."""
    import smeld as sm

    warnings.simplefilter("ignore")
    rows = []
    for tissue in trajectory.TISSUES:
        for seed in SEEDS:
            adata = sm.datasets.simulate(**trajectory.Case(tissue, seed).options)
            truth = adata.obs["truth_pseudotime"].to_numpy()
            sm.fuse(adata)
            sm.tl.domains(adata, trajectory.N_DOMAINS)
            label = f"label:{trajectory.root_label(adata, truth)}"

            def order(adata: Any = adata, label: str = label, truth: Any = truth) -> float:
                found = sm.tl.trajectory(adata, label, n_bootstraps=2)
                return trajectory.tau(found.pseudotime.to_numpy(), truth)

            usual = order()
            for name, constants in _settings().items():
                for factor in FACTORS:
                    changed = [
                        mock.patch.object(where, key, _scaled(getattr(where, key), factor)) for where, key in constants
                    ]
                    for change in changed:
                        change.start()
                    moved = order() - usual
                    for change in changed:
                        change.stop()
                    rows.append({"tissue": tissue, "seed": seed, "setting": name, "factor": factor, "moved": moved})
    table = pd.DataFrame(rows)
    table["far"] = table["moved"].abs()
    summary = []
    for name, part in table.groupby("setting", sort=False):
        row: dict[str, Any] = {"setting": name, "runs": len(part), "moved by .05 or less": (part["far"] <= 0.05).mean()}
        for tissue, of in part.groupby("tissue", sort=False):
            row |= {f"{tissue}, mean": of["far"].mean(), f"{tissue}, most": of["far"].max()}
        summary.append(row)
    return {"trajectory_settings": summary}
