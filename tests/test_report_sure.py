"""What the report says of confidence against labels, and of an embedding with a posterior spread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import smeld as sm
import stored_section
from smeld import _keys, _report
from smeld import _report_sure as sure


@pytest.fixture
def only_these(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other figures of the page have tests of their own."""
    real = _report._picture

    def picture(adata: Any, name: str, *rest: Any) -> dict[str, str]:
        return real(adata, name, *rest) if name in sure.FIGURES else {"uri": "data:,"}

    monkeypatch.setattr(_report, "_picture", picture)
    monkeypatch.setattr(_report, "DPI", 30.0)


def labelled(truthful: bool) -> Any:
    """A section whose labels are drawn from the stated memberships, or have nothing to do with them."""
    adata = stored_section.make(rows=30, columns=30, image=False)
    rng = np.random.default_rng(5)
    prob = rng.dirichlet(np.full(4, 0.3), adata.n_obs)
    names = list(adata.obsm["domain_prob"].columns)
    adata.obsm["domain_prob"] = pd.DataFrame(prob, index=adata.obs_names, columns=names)
    adata.obs["domain"] = pd.Categorical.from_codes(prob.argmax(axis=1), names)
    drawn = (prob.cumsum(axis=1) > rng.uniform(size=(adata.n_obs, 1))).argmax(axis=1)
    if not truthful:
        drawn = rng.integers(0, 4, adata.n_obs)
    adata.obs["mine"] = np.array(names)[drawn]
    return adata


def lines(adata: Any) -> str:
    found = sure.content(adata)
    assert len(found) == 1
    return "\n".join(found[0]["lines"])


def test_confidence_that_comes_true_is_worth_its_name() -> None:
    adata = labelled(truthful=True)
    found = sm.tl.calibration(adata, "mine")
    row = found.summary.iloc[0]
    text = lines(adata)
    assert f"bears its label, the confidence is worth its name: off by {100 * row['ece']:.0f} % on average" in text
    assert f"scores better than one number for all (Brier score {row['brier']:.3f}" in text
    assert "confidence ranks spots" in text and f"{100 * row['error']:.0f} % in all" in text
    assert "compared with labels by name" in text and "matched" not in text
    assert sure.content(adata)[0]["title"] == "domain against mine, 900 spots"


def test_confidence_without_truth_is_not_worth_its_name_and_too_sure() -> None:
    adata = labelled(truthful=False)
    found = sm.tl.calibration(adata, "mine", match=True)
    assert set(found.summary["question"]) == {"label", "pair"}
    first, second = sure.content(adata)[0]["lines"][:2]
    for said in (first, second):
        assert "the confidence is not worth its name" in said and "scores no better than one number for all" in said
    assert "too sure, beyond doubt in" in first and "two spots share a label" in second
    assert "matched to labels one to one" in lines(adata)
    assert "confidence does not rank spots" in lines(adata)


def test_a_better_score_with_numbers_that_are_off_is_said_as_such() -> None:
    adata = labelled(truthful=True)
    sm.tl.calibration(adata, "mine")
    adata.uns["domain_calibration"]["summary"].loc[0, "ece"] = 0.2
    assert "tells more from less, but its numbers are off: off by 20 %" in lines(adata)


@pytest.mark.parametrize(
    ("wide", "said"), [(0.05, "are too narrow"), (0.45, "are worth their name"), (1.0, "are too wide")]
)
def test_intervals(wide: float, said: str) -> None:
    adata = stored_section.make(rows=30, columns=30, image=False)
    rng = np.random.default_rng(0)
    rank = (rng.permutation(adata.n_obs) + 0.5) / adata.n_obs
    adata.obs["mine"] = rank
    near = rank + rng.uniform(-0.5, 0.5, adata.n_obs)
    adata.obs["pseudotime"] = np.clip(near, 0, 1)
    adata.obs["pseudotime_low"], adata.obs["pseudotime_high"] = near - wide, near + wide
    sm.tl.calibration(adata, "mine", key="pseudotime")
    assert f"Intervals {said}: 90 % of spots ought to have the truth in theirs" in lines(adata)


@pytest.mark.usefixtures("only_these")
def test_the_page_has_what_is_stored_and_nothing_else(tmp_path: Path) -> None:
    adata = labelled(truthful=True)
    page = sm.report(adata, tmp_path / "bare.html").read_text(encoding="utf-8")
    assert 'id="reliability"' not in page and "Where the embedding is sure" not in page
    for name, draw in sure.FIGURES.items():
        with pytest.raises(sm.InputError):
            draw(adata, "domain", None)
        assert name
    sm.tl.calibration(adata, "mine")
    adata.obsm["sd_fused_sme"] = np.abs(adata.obsm["fused_sme"]) / 10
    sm.write(adata, tmp_path / "r.h5ad")
    stored = sm.read(tmp_path / "r.h5ad", "h5ad")
    page = sm.report(stored, tmp_path / "r.html").read_text(encoding="utf-8")
    section = page[page.index('<section id="reliability"') : page.index('<section id="markers"')]
    assert 'href="#reliability"' in page and section.count("<figure>") == 4 and "Not computed" not in section
    assert "the confidence is worth its name" in section and "fused_sme has a posterior" in section
    assert set(sure.FIGURES) <= set(_report._FIGURES), "they are saved as files, too"


def test_several_calibrations_have_a_panel_each() -> None:
    adata = labelled(truthful=True)
    sm.tl.calibration(adata, "mine")
    sm.tl.calibration(adata, "mine", match=True, key_added="again")
    assert sure.calibrations(adata) == ["domain_calibration", "again"]
    figure = sure.FIGURES["risk_coverage"](adata, "domain", None)
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["domain against mine"] * 2


def test_the_spread_is_relative_to_the_embedding_and_says_what_trained_it() -> None:
    adata = labelled(truthful=True)
    adata.obsm["fused_vae"] = 3.0 * adata.obsm["fused_sme"]
    sd = np.full_like(adata.obsm["fused_vae"], 0.5)
    adata.obsm["sd_fused_vae"] = sd
    params = {"epochs": 40, "basis": "profiles", "n_members": 3, "ensemble_sd": 0.123, "method": "vae"}
    _keys.record(adata, "fused_vae", function="sm.fuse", params=params, seed=0)
    assert sure.spread_key(adata) == "fused_vae"
    wanted = 0.5 / adata.obsm["fused_vae"].std(axis=0).mean()
    np.testing.assert_allclose(sure.relative_spread(adata, "fused_vae"), wanted)
    text = " ".join(sure.network(adata))
    assert f"{wanted:.2f} of the embedding's" in text and "40 epochs around components of smoothed profiles" in text
    assert "Mean of 3 networks, whose spread about it (0.12 of" in text
    adata.obsm["other"], adata.obsm["sd_other"] = sd, sd
    assert sure.spread_key(adata) == "fused_vae", "the first by name"
    _keys.record(adata, "domain", function="sm.tl.domains", params={}, inputs={"use_rep": "other"})
    assert sure.spread_key(adata) == "other"
