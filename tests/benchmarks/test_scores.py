"""The scores of benchmarks/_scores.py against scikit-learn and against counting by hand."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"benchmark{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


scores = _load("_scores")
table = _load("_table")

labelled = st.integers(2, 40).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2))


@given(labelled)
def test_ari_is_scikit_learns(pair: tuple[list[int], list[int]]) -> None:
    truth, found = pair
    assert scores.ari(truth, found) == pytest.approx(adjusted_rand_score(truth, found), abs=1e-12)


@given(labelled)
def test_matching_is_the_best_of_all_one_to_one_matchings(pair: tuple[list[int], list[int]]) -> None:
    truth, found = (np.array(v) for v in pair)
    hits = int((~scores.errors(truth, found)).sum())
    labels = np.unique(found)
    choices = itertools.permutations([*np.unique(truth), *[-1] * len(labels)], len(labels))
    best = max(sum(int(((found == f) & (truth == t)).sum()) for f, t in zip(labels, c)) for c in choices)
    assert hits == best


@given(labelled)
def test_recall_and_error_count_the_same_spots(pair: tuple[list[int], list[int]]) -> None:
    truth, found = (np.array(v).astype(str) for v in pair)
    recall = scores.recall(truth, found)
    assert set(recall) == set(truth)
    right = sum(value * (truth == name).sum() for name, value in recall.items())
    assert right == pytest.approx((~scores.errors(truth, found)).sum())


def test_recall_shows_a_label_that_was_missed() -> None:
    truth = ["a"] * 6 + ["b"] * 4 + ["c"] * 2
    found = ["1"] * 6 + ["2"] * 6
    assert scores.recall(truth, found) == {"a": 1.0, "b": 1.0, "c": 0.0}
    assert scores.recall(truth, ["1"] * 6 + ["2"] * 4 + ["3"] * 2)["c"] == 1.0


def _by_hand(truth: np.ndarray, prob: np.ndarray) -> tuple[float, float]:
    pairs = list(itertools.combinations(range(len(truth)), 2))
    p = np.array([min(float(prob[i] @ prob[j]), 1.0) for i, j in pairs])
    same = np.array([truth[i] == truth[j] for i, j in pairs])
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    brier = float((weight * (p - same) ** 2).sum())
    error = 0.0
    for b in range(10):
        inside = np.minimum((p * 10).astype(int), 9) == b
        if inside.any():
            w = weight[inside]
            gap = (w * p[inside]).sum() / w.sum() - (w * same[inside]).sum() / w.sum()
            error += float(w.sum() * abs(gap))
    return error, brier


def test_comembership_is_what_counting_pairs_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 57)
    prob = rng.dirichlet(np.full(4, 0.4), 57)
    error, brier = _by_hand(truth, prob)
    for block in (7, 57, 1000):  # blocks of rows must not matter
        monkeypatch.setattr(scores, "_BLOCK", block)
        found = scores.comembership(truth, prob, carry=False)
        assert found.calibration_error == pytest.approx(error)
        assert found.brier == pytest.approx(brier)
        assert sum(b["weight"] for b in found.bins) == pytest.approx(1.0)


def test_carried_odds_are_bayes_rule_for_half_of_the_pairs() -> None:
    """Of pairs stated at p, taking the two kinds in equal number leaves the share p / base against (1 - p) / rest."""
    p, base = np.linspace(0.01, 0.99, 25), 0.2
    together, apart = p / base, (1 - p) / (1 - base)
    assert scores.carried(p, base) == pytest.approx(together / (together + apart))
    assert scores.carried(p, 0.5) == pytest.approx(p)


def test_the_base_rate_is_the_mean_over_all_pairs() -> None:
    prob = np.random.default_rng(1).dirichlet(np.full(3, 0.5), 23)
    pairs = [float(prob[i] @ prob[j]) for i, j in itertools.combinations(range(23), 2)]
    assert scores.base_rate(prob) == pytest.approx(np.mean(pairs))


def test_comembership_of_the_truth_and_of_a_constant() -> None:
    truth = np.repeat([0, 1, 2], 20)
    perfect = scores.comembership(truth, np.eye(3)[truth])
    assert (perfect.calibration_error, perfect.brier) == (0.0, 0.0)
    half = scores.comembership(truth, np.full((60, 2), 0.5))
    assert half.calibration_error == pytest.approx(0.0)
    assert half.brier == pytest.approx(half.brier_constant)
    wrong = scores.comembership(truth, np.eye(3)[np.tile([0, 1, 2], 20)])
    assert wrong.brier > half.brier


def test_comembership_without_two_labels_has_no_figure() -> None:
    assert np.isnan(scores.comembership([1, 1, 1], np.ones((3, 1))).brier)


def test_risk_coverage_looks_at_the_confident_half() -> None:
    truth = np.array(list("aaaabbbb"))
    found = np.array(list("aaabbbba"))
    sure = np.array([9, 8, 7, 1, 9, 8, 7, 1])
    got = scores.risk_coverage(truth, found, sure)
    assert got == {"error": 0.25, "error_confident_half": 0.0, "ratio": 0.0}
    assert scores.risk_coverage(truth, found, -sure)["error_confident_half"] == 0.5
    assert np.isnan(scores.risk_coverage(truth, truth, sure)["ratio"])


def test_summary_names_the_tail() -> None:
    got = scores.summary(np.arange(101.0))
    assert got == {"mean": 50.0, "median": 50.0, "p5": 5.0, "worst": 0.0}


def test_table_keeps_the_columns_of_every_row() -> None:
    text = table.markdown([{"name": "a|b", "ari": 0.61234}, {"name": "c", "note": None, "ari": float("nan")}])
    lines = text.splitlines()
    assert lines[0] == "| name | ari | note |"
    assert lines[2] == "| a/b | 0.612 | - |"
    assert lines[3] == "| c | - | - |"
