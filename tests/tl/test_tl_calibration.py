"""Scoring stated confidence against labels: what is counted, how classes get names, what is left out and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import smeld as sm
from smeld.kernels import consensus


def made(seed: int = 100, side: int = 40, k: int = 4, *, sharpened: float = 1.0, names: Any = None) -> AnnData:
    """A square of spots whose labels are drawn from smooth memberships; those stated are ``sharpened``."""
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() / side for a in np.mgrid[0:side, 0:side])
    centre = rng.random((k, 2))
    score = -8 * ((x[:, None] - centre[:, 0]) ** 2 + (y[:, None] - centre[:, 1]) ** 2)
    true = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    stated = true**sharpened / (true**sharpened).sum(axis=1, keepdims=True)
    label = (true.cumsum(axis=1) < rng.random((len(x), 1))).sum(axis=1)
    adata = AnnData(sparse.csr_matrix((len(x), 2), dtype=np.float32))
    adata.obs_names = [f"s{i}" for i in rng.permutation(len(x))]
    adata.obsm["spatial_um"] = np.column_stack([x, y]) * side * 100.0
    columns = list(names or [f"L{i + 1}" for i in range(k)])
    adata.obsm["domain_prob"] = pd.DataFrame(stated, index=adata.obs_names, columns=columns)
    adata.obs["mine"] = pd.Categorical.from_codes(label, [f"L{i + 1}" for i in range(k)])
    return adata


def row(found: Any, question: str) -> pd.Series:
    return found.summary.set_index("question").loc[question]


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_labels_drawn_as_stated_are_calibrated_and_sharpened_ones_are_not(seed: int) -> None:
    good, bad = (sm.tl.calibration(made(seed, sharpened=s), "mine", match=True) for s in (1.0, 4.0))
    assert row(good, "label")["ece"] < 0.045  # of 1,600 spots
    assert row(good, "pair")["ece"] < 0.04
    assert row(bad, "label")["ece"] > 0.2
    assert row(bad, "label")["brier_reliability"] > 10 * row(good, "label")["brier_reliability"]
    assert row(bad, "label")["brier_classes"] > row(good, "label")["brier_classes"]
    assert row(good, "label")["brier"] < row(good, "label")["brier_constant"]
    top = bad.reliability[(bad.reliability["question"] == "label") & (bad.reliability["low"] > 0.6)]
    assert (top["observed_high"] < top["stated"]).all()


def test_ranges_of_calibrated_forecasts_hold_what_was_stated() -> None:
    """90 % of them ought to; those of pairs, which share spots, too."""
    tables = pd.concat([sm.tl.calibration(made(s), "mine", match=True).reliability for s in range(120, 130)])
    inside = tables["stated"].between(tables["observed_low"], tables["observed_high"])
    for question in ("label", "pair"):
        assert 0.8 <= inside[tables["question"] == question].mean() <= 0.99


def test_figures_are_those_counted_by_hand() -> None:
    adata = made(103)
    found = sm.tl.calibration(adata, "mine")
    prob, mine = adata.obsm["domain_prob"], adata.obs["mine"].astype(str).to_numpy()
    right = (prob.idxmax(axis=1).to_numpy() == mine).astype(float)
    confidence = prob.max(axis=1).to_numpy()
    one = row(found, "label")
    assert found.summary["question"].tolist() == ["label"]  # names agree: no class is arbitrary
    assert one["error"] == pytest.approx(1 - right.mean())
    assert one["brier"] == pytest.approx(((confidence - right) ** 2).mean())
    half = np.argsort(-confidence, kind="stable")[:800]
    assert one["error_confident_half"] == pytest.approx(1 - right[half].mean())
    wrong = 1 - right[np.argsort(-confidence, kind="stable")]
    assert one["aurc"] == pytest.approx((wrong.cumsum() / np.arange(1, 1601)).mean())
    y = pd.get_dummies(adata.obs["mine"]).to_numpy().astype(float)
    assert one["brier_classes"] == pytest.approx(((prob.to_numpy() - y) ** 2).sum(axis=1).mean())
    assert one["brier_classes_constant"] == pytest.approx(((y.mean(axis=0) - y) ** 2).sum(axis=1).mean())
    curve = found.risk_coverage
    assert curve["risk"].iloc[-1] == pytest.approx(one["error"]) and curve["coverage"].iloc[-1] == 1
    assert (curve["risk"] >= curve["risk_best"] - 1e-12).all()


def test_pairs_are_those_of_all_pairs() -> None:
    """The sample stands for all pairs, weighted so that half lie together."""
    adata = made(104, side=20)
    found = row(sm.tl.calibration(adata, "mine", match=True), "pair")
    prob, label = adata.obsm["domain_prob"].to_numpy(), adata.obs["mine"].cat.codes.to_numpy()
    i, j = np.triu_indices(len(prob), 1)
    stated = consensus.same_domain(prob[i], prob[j], base=consensus.base_rate(prob))
    same = label[i] == label[j]
    whole = 0.5 * ((1 - stated[same]) ** 2).mean() + 0.5 * (stated[~same] ** 2).mean()
    assert found["brier"] == pytest.approx(whole, abs=0.003)
    assert found["brier_constant"] == 0.25


def test_classes_with_other_names_are_matched() -> None:
    adata = made(105, names=["1", "2", "3", "4"])
    found = sm.tl.calibration(adata, "mine")
    assert dict(zip(found.matching["class"], found.matching["label"])) == {str(i): f"L{i}" for i in range(1, 5)}
    named = row(sm.tl.calibration(made(105), "mine"), "label")
    assert row(found, "label")["brier_classes"] == pytest.approx(named["brier_classes"])
    assert found.summary["question"].tolist() == ["label", "pair"]


def test_numbers_that_domains_gave_mean_nothing_to_labels_that_are_numbers() -> None:
    adata = made(106, names=["2", "1", "4", "3"])
    adata.obs["mine"] = adata.obs["mine"].cat.rename_categories(["1", "2", "3", "4"])
    by_name = sm.tl.calibration(adata, "mine")
    adata.uns["smeld"]["domain"] = {"function": "sm.tl.domains"}
    matched = sm.tl.calibration(adata, "mine")
    assert matched.matching["label"].tolist() == ["1", "2", "3", "4"]
    assert row(matched, "label")["error"] < 0.7 * row(by_name, "label")["error"]
    assert row(sm.tl.calibration(adata, "mine", match=False), "label")["error"] == row(by_name, "label")["error"]


def test_more_classes_than_labels_and_fewer() -> None:
    adata = made(107)
    adata.obs["two"] = adata.obs["mine"].astype(str).replace({"L1": "a", "L2": "a", "L3": "b", "L4": "b"})
    found = sm.tl.calibration(adata, "two")
    assert sorted(found.matching["label"]) == ["a", "b", "none", "none"]
    assert found.matching["n_agree"].sum() == round(1600 * (1 - row(found, "label")["error"]))
    adata.obs["mine"] = adata.obs["mine"].cat.rename_categories({"L4": "other"})
    with pytest.warns(sm.SmeldWarning, match="other"):
        by_name = sm.tl.calibration(adata, "mine")
    assert by_name.matching["label"].tolist() == ["L1", "L2", "L3", "none"]


def test_the_order_of_spots_does_not_matter_and_it_is_stored(tmp_path: Path) -> None:
    adata = made(108)
    other = adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()
    first, second = (sm.tl.calibration(a, "mine", match=True) for a in (adata, other))
    for part in ("reliability", "risk_coverage", "summary", "matching"):
        pd.testing.assert_frame_equal(getattr(first, part), getattr(second, part))
    adata.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad").uns["domain_calibration"]
    assert back["summary"]["ece"].tolist() == first.summary["ece"].tolist()
    assert set(back) == {"reliability", "risk_coverage", "summary", "matching"}


def test_spots_without_a_label_are_left_out() -> None:
    adata = made(109)
    part = adata[::2].copy()
    kept = adata.obs_names[::2]
    adata.obs["mine"] = adata.obs["mine"].where(adata.obs_names.isin(kept))
    with pytest.warns(sm.SmeldWarning, match="800 of 1600 spots"):
        found = sm.tl.calibration(adata, "mine", match=True, key_added="check")
    assert (found.n_scored, found.n_left_out) == (800, 800)
    assert "check" in adata.uns and "domain_calibration" not in adata.uns
    pd.testing.assert_frame_equal(found.summary, sm.tl.calibration(part, "mine", match=True).summary)


# -- intervals


def order(seed: int, reach: float, n: int = 1600) -> AnnData:
    adata = made(seed)
    rng = np.random.default_rng(seed)
    true = rng.permutation(n) / (n - 1)
    value = np.clip(true + rng.normal(0, 0.08, n), 0, 1)
    adata.obs["time"] = 3.0 + 20.0 * true**2  # any scale: ranks count
    adata.obs["pseudotime"] = value
    adata.obs["pseudotime_low"] = np.clip(value - reach * 0.08, 0, 1)
    adata.obs["pseudotime_high"] = np.clip(value + reach * 0.08, 0, 1)
    return adata


@pytest.mark.parametrize(("reach", "covered"), [(1.645, 0.9), (0.674, 0.5)])
def test_intervals_are_counted(reach: float, covered: float) -> None:
    adata = order(110, reach)
    found = sm.tl.calibration(adata, "time", key="pseudotime")
    one = row(found, "interval")
    assert one["coverage"] == pytest.approx(covered, abs=0.05)  # intervals cut at 0 and 1 hold more
    assert (one["coverage_low"] <= 0.9 <= one["coverage_high"]) == (covered == 0.9)
    assert one["spearman"] > 0.9
    true = adata.obs["time"].rank() - 1
    inside = (true / 1599).between(adata.obs["pseudotime_low"], adata.obs["pseudotime_high"])
    assert one["coverage"] == pytest.approx(inside.mean())
    tenth = found.reliability.set_index("bin")
    here = (adata.obs["pseudotime"] * 10).astype(int) == 4
    assert tenth.loc[4, "observed"] == pytest.approx(inside[here].mean())
    assert tenth.loc[4, "n"] == here.sum()
    assert set(adata.uns["pseudotime_calibration"]) == {"reliability", "risk_coverage", "summary"}


# -- bad input


def test_bad_input_says_what_is_missing() -> None:
    adata = made(111)
    adata.obs["one"], adata.obs["none"] = "same", np.nan
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("nowhere", {}, "nowhere"),
        ("one", {}, "single label(.|\n)*same"),
        ("none", {}, "labels no spot"),
        ("mine", {"key": "region"}, r"region_prob(.|\n)*sm\.tl\.domains"),
        ("mine", {"key": "mine"}, "another column"),
    ]
    for truth, options, message in cases:
        with pytest.raises(sm.InputError, match=message):
            sm.tl.calibration(adata, truth, **options)
    adata.obsm["domain_prob"] *= 2
    with pytest.raises(sm.InputError, match="sum to 1"):
        sm.tl.calibration(adata, "mine")
    intervals = order(112, 1.0)
    with pytest.raises(sm.InputError, match="orders no spots"):
        sm.tl.calibration(intervals, "mine", key="pseudotime")


def test_without_positions_spots_stand_for_themselves() -> None:
    adata = made(113)
    with_blocks = sm.tl.calibration(adata, "mine").reliability
    del adata.obsm["spatial_um"]
    alone = sm.tl.calibration(adata, "mine").reliability
    assert alone["n_effective"].tolist() == alone["n"].tolist()
    assert alone["observed"].tolist() == with_blocks["observed"].tolist()
