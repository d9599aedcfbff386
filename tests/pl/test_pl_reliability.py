"""Reliability diagrams and risk-coverage curves show what is stored."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import smeld as sm
import stored_section
from smeld.pl._save import render


@pytest.fixture(scope="module")
def scored():
    adata = stored_section.make()
    rng = np.random.default_rng(0)
    wrong = rng.random(adata.n_obs) < 0.3
    label = adata.obs["domain"].astype(str).to_numpy()
    adata.obs["mine"] = np.where(wrong, rng.permutation(label), label)
    sm.tl.calibration(adata, "mine", match=True)
    x = adata.obsm["spatial_um"][:, 0]
    order = x.argsort(kind="stable").argsort() / (adata.n_obs - 1)
    adata.obs["pseudotime"] = order
    adata.obs["pseudotime_low"], adata.obs["pseudotime_high"] = order - 0.05, order + 0.05
    adata.obs["time"] = order + rng.normal(0, 0.05, adata.n_obs)
    sm.tl.calibration(adata, "time", key="pseudotime")
    return adata


def axes():
    with sm.pl.style():
        return Figure(figsize=(6, 4.4), layout="compressed").subplots()


def lines(ax) -> dict[str, np.ndarray]:
    return {line.get_label().split(" (")[0]: line.get_xydata() for line in ax.get_lines()}


def test_reliability_shows_every_bin_its_range_and_how_often(scored) -> None:
    ax = sm.pl.reliability(scored, ax=axes())
    table = scored.uns["domain_calibration"]["reliability"]
    drawn = lines(ax)
    for question, words in (("label", "is the label right?"), ("pair", "do two share a label?")):
        part = table[table["question"] == question]
        assert drawn[words] == pytest.approx(part[["stated", "observed"]].to_numpy())
    ranges = np.concatenate([[s[:, 1] for s in c.get_segments()] for c in ax.collections])
    assert ranges == pytest.approx(table[["observed_low", "observed_high"]].to_numpy())
    assert drawn["as stated"].tolist() == [[0, 0], [1, 1]]
    (below,) = ax.child_axes
    heights = np.array([p.get_height() for p in below.patches])
    n = table["n"] / table.groupby("question")["n"].transform("sum")
    assert heights == pytest.approx(n.to_numpy())
    ece = scored.uns["domain_calibration"]["summary"]["ece"][0]
    assert any(f"ECE {ece:.2f}" in t.get_text() for t in ax.get_legend().get_texts())
    assert render(ax.figure, "png")[:4] == b"\x89PNG"


def test_intervals_are_shown_by_tenth_against_what_ought_to_be(scored) -> None:
    ax = sm.pl.reliability(scored, key="pseudotime_calibration", ax=axes(), title="mine $x$")
    table = scored.uns["pseudotime_calibration"]["reliability"]
    assert lines(ax)["truth lies within"][:, 1] == pytest.approx(table["observed"].to_numpy())
    assert set(lines(ax)["as many ought to"][:, 1]) == {0.9}
    assert ax.get_title(loc="left") == r"mine \$x\$"
    assert "distance" in sm.pl.risk_coverage(scored, key="pseudotime_calibration", ax=axes()).get_ylabel()


def test_risk_lies_between_the_best_and_what_no_knowledge_gives(scored) -> None:
    ax = sm.pl.risk_coverage(scored, ax=axes(), title="")
    table = scored.uns["domain_calibration"]["risk_coverage"]
    drawn = lines(ax)
    for words, column in (("as stated", "risk"), ("best possible", "risk_best"), ("no knowledge", "risk_random")):
        assert drawn[words] == pytest.approx(table[["coverage", column]].to_numpy())
    assert ax.get_title(loc="left") == ""


@pytest.mark.parametrize("plot", [sm.pl.reliability, sm.pl.risk_coverage])
def test_without_tables_it_says_what_to_run(plot) -> None:
    adata = stored_section.make()
    with pytest.raises(sm.InputError, match=r"domain_calibration(.|\n)*sm\.tl\.calibration"):
        plot(adata, ax=axes())
    adata.uns["domain_calibration"] = {}
    with pytest.raises(sm.InputError, match="nothing to show"):
        plot(adata, ax=axes())
