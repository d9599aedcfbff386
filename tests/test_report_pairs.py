"""What the report says of pairs: in words, with figures, and of results that are old, empty or partial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import smeld as sm
from smeld import _report_pairs


@pytest.fixture(scope="module")
def section():
    adata = sm.datasets.simulate(900, 120, seed=3, image=False)
    names = adata.var_names
    rng = np.random.default_rng(0)
    x, y = adata.obsm["spatial_um"].T // 350
    counts = adata.X.toarray()
    counts[:, :2] = rng.poisson(0.2 + 4.0 * ((x + 2 * y) % 5 == 0)[:, None], (adata.n_obs, 2))  # lie together
    adata.X = counts
    sm.tl.interactions(adata, [(names[i], names[i + 1]) for i in range(0, 60, 2)], adjust=())
    sm.tl.celltype_interactions(adata, "truth_domain")
    return adata


def test_words_tables_and_figures(section, tmp_path: Path) -> None:
    said = _report_pairs.content(section)
    assert said is not None
    text = " ".join(said["lines"])
    assert "pairs lie together more than chance" in text
    assert "made independent on purpose" in text and "are in no pair" in text
    assert said["table"]["columns"][:2] == ["ligand", "receptor"]
    assert said["types"]["lines"][0].endswith("groups: truth_domain.")
    for name, draw in _report_pairs.FIGURES.items():
        assert draw(section, "domain", None).axes, name
    page = sm.report(section, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Who sends to whom" in page and page.count("<figure>") >= 7


def test_what_is_not_there_is_said(section, tmp_path: Path) -> None:
    assert _report_pairs.content(sm.datasets.simulate(100, 20, seed=0, image=False)) is None
    bare = section.copy()
    for key in ("interactions_score", "interactions_local"):
        bare.obsm.pop(key, None)
    for key in ("interactions_qq", "celltype_interactions"):
        bare.uns.pop(key, None)
    page = sm.report(bare, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "no pair has scores in single spots" in page and "Who sends to whom" not in page
    bare.uns["interactions"] = bare.uns["interactions"].head(0)
    assert "0 of 0 pairs" in sm.report(bare, tmp_path / "e.html").read_text(encoding="utf-8")


def test_a_lambda_out_of_range_is_a_warning_in_words(section) -> None:
    other = section.copy()
    other.uns["smeld"]["interactions"]["params"] |= {"lambda_surrogate": 1.8, "lambda_holds": False}
    assert any("does not hold" in line for line in _report_pairs.content(other)["lines"])


def test_the_pair_that_is_drawn_is_seen_in_more_than_a_handful_of_spots(section) -> None:
    other = section.copy()
    n = other.n_obs
    score = np.zeros((n, 2))
    score[:3, 0], score[:100, 1] = 1.0, 1.0
    other.obsm["interactions_score"] = score
    other.obsm.pop("interactions_local", None)
    other.uns["interactions"] = pd.DataFrame(
        {
            "ligand": ["A", "B"],
            "receptor": ["C", "D"],
            "range": "unknown",
            "qvalue": 0.01,
            "n_spots_significant": [1, 0],
        }
    )
    assert _report_pairs._telling(other) == 1 and _report_pairs._best(other, 2) == [0, 1]
