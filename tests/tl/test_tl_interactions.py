"""Ligand-receptor pairs on a section: from the user's side."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import smeld as sm

SIDE = 30
N = SIDE**2


def section(seed: int = 0, *, names: tuple[str, ...] = ("LIG", "REC", "SUB", "NOISE", "RARE", "OTHER")) -> ad.AnnData:
    """LIG, REC and SUB rise in the same patches, NOISE and OTHER everywhere, RARE in five spots."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    patch = 2.0 * ((x // 4 + 2 * (y // 4)) % 5 == 0).ravel()
    rates = np.c_[np.tile(patch + 0.2, (3, 1)).T, np.full(N, 1.0), np.zeros(N), np.full(N, 0.8)]
    counts = rng.poisson(rates)
    counts[:5, 4] = 1
    filler = rng.poisson(2.0, (N, 20))  # so that the library does not hang on the patches
    x_all = sparse.csr_matrix(np.hstack([counts, filler]).astype(np.float32))
    var = pd.DataFrame(index=[*names, *(f"G{i}" for i in range(20))])
    made = ad.AnnData(x_all, var=var, obs=pd.DataFrame(index=[f"s{i}" for i in range(N)]))
    made.obsm["spatial"] = 100.0 * np.c_[x.ravel(), y.ravel()].astype(float)
    made.obsm["spatial_um"] = made.obsm["spatial"].copy()
    return made


PAIRS = [("LIG", "REC"), ("NOISE", "OTHER"), ("LIG", "REC+SUB"), ("LIG", "REC+ABSENT"), ("RARE", "REC"), ("LIG", "LIG")]


def test_what_lies_together_is_found_and_the_rest_accounted_for() -> None:
    adata = section()
    found = sm.tl.interactions(adata, PAIRS)
    table = found.table.set_index(["ligand", "receptor"])
    assert set(table.index) == {("LIG", "REC"), ("NOISE", "OTHER"), ("LIG", "REC+SUB")}
    assert (found.n_missing, found.n_rare, found.n_same) == (1, 1, 1)
    assert (table.loc[["LIG"], "qvalue"] < 1e-4).all()
    assert table.loc[("NOISE", "OTHER"), "qvalue"] > 0.05
    assert adata.uns["interactions"] is found.table
    assert found.table["pvalue"].is_monotonic_increasing
    record = adata.uns["smeld"]["interactions"]
    assert record["params"]["lambda_surrogate"] == found.lambda_surrogate


def test_local_calls_lie_where_both_partners_are_rare_and_together() -> None:
    """Where both are common, a spot that has both is no surprise, however sure it is that the pair lies together."""
    adata = section()
    y, x = np.divmod(np.arange(N), SIDE)
    patch = (y // 4 == 3) & (x // 4 == 4)
    counts = adata.X.toarray()
    counts[:, :2] = np.random.default_rng(1).poisson(np.where(patch, 9.0, 0.05)[:, None], (N, 2))
    adata.X = sparse.csr_matrix(counts)
    table = sm.tl.interactions(adata, PAIRS[:2], adjust=()).table
    local = adata.obsm["interactions_local"]
    assert sparse.issparse(local) and local.shape == (N, 1)
    marked = local.toarray()[:, 0] > 0
    assert marked.sum() == table["n_spots_significant"].iloc[0] >= 10
    assert patch[marked].mean() > 0.9
    sm.tl.interactions(adata, PAIRS[:2], local="none")
    assert "interactions_local" not in adata.obsm


def test_permuting_the_spots_permutes_the_result() -> None:
    one = section()
    order = np.random.default_rng(1).permutation(N)
    other = one[order].copy()
    a, b = (sm.tl.interactions(s, PAIRS).table for s in (one, other))
    pd.testing.assert_frame_equal(a, b)
    assert (one.obsm["interactions_local"][order] != other.obsm["interactions_local"]).nnz == 0


@pytest.mark.parametrize("form", ["dense", "csc", "float64", "unsorted"])
def test_the_form_of_the_matrix_does_not_matter(form: str) -> None:
    plain, other = section(), section()
    x = other.X
    other.X = {"dense": x.toarray, "csc": x.tocsc, "float64": lambda: x.astype(np.float64)}.get(form, x.copy)()
    a, b = (sm.tl.interactions(s, PAIRS).table for s in (plain, other))
    pd.testing.assert_frame_equal(a, b, rtol=1e-6)


def test_results_can_be_stored(tmp_path: Path) -> None:
    adata = section()
    sm.tl.interactions(adata, PAIRS)
    sm.write(adata, tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.uns["interactions"], adata.uns["interactions"], check_dtype=False)


def test_a_radius_in_micrometres_and_within_the_spot() -> None:
    near = sm.tl.interactions(section(), PAIRS[:1], radius_um=110.0).table
    wide = sm.tl.interactions(section(), PAIRS[:1], radius_um=350.0).table
    inside = sm.tl.interactions(section(), PAIRS[:1], within_spot=True).table
    assert near["effect"].iloc[0] > wide["effect"].iloc[0] > 0
    assert inside["zscore"].iloc[0] > 5


def test_what_is_regressed_out_no_longer_makes_pairs_significant() -> None:
    adata = section()
    y, x = np.divmod(np.arange(N), SIDE)
    adata.obs["patch"] = np.where((x // 4 + 2 * (y // 4)) % 5 == 0, "in", "out")
    found = sm.tl.interactions(adata, PAIRS[:2], adjust=["library", "patch"])
    assert found.adjusted == ("library", "patch")
    assert (found.table["qvalue"] > 0.01).all()


def test_human_and_mouse_pairs_are_known_and_others_by_capitalisation() -> None:
    human = section(names=("CXCL12", "CXCR4", "SUB", "NOISE", "RARE", "OTHER"))
    assert sm.tl.interactions(human).table["receptor"].tolist() == ["CXCR4"]
    mouse = section(names=("Ccl21a", "Ccr7", "Sub", "Noise", "Rare", "Other"))
    found = sm.tl.interactions(mouse)
    assert found.table["ligand"].tolist() == ["Ccl21a"]
    assert mouse.uns["smeld"]["interactions"]["inputs"]["names"] == "mouse"
    with pytest.raises(sm.InputError, match="no pair"):
        sm.tl.interactions(mouse, organism="human", pairs=[("CCL21", "CCR7")])
    rat = section(names=("Ccl21", "Ccr7", "Sub", "Noise", "Rare", "Other"))
    with pytest.warns(sm.SmeldWarning, match="capitalisation"):
        assert sm.tl.interactions(rat, organism="human").table["ligand"].tolist() == ["Ccl21"]


def test_the_section_checks_itself() -> None:
    adata = sm.datasets.simulate(900, 200, seed=1, image=False)
    names = adata.var_names
    found = sm.tl.interactions(adata, [(names[i], names[i + 1]) for i in range(0, 40, 2)], adjust=())
    assert 0.5 < found.lambda_surrogate < 1.6 and np.isfinite(found.lambda_decoy)
    curves = adata.uns["interactions_qq"]
    assert set(curves["set"]) == {"pairs", "surrogates", "decoys"}
    again = sm.tl.interactions(adata, [(names[0], names[1])], decoys=False)
    assert np.isnan(again.lambda_decoy) and "decoys" not in set(adata.uns["interactions_qq"]["set"])


def test_a_panel_of_which_every_gene_is_in_a_pair() -> None:
    adata = sm.datasets.simulate(900, 300, seed=0, layout="cells", image=False)
    pairs = list(zip(adata.var_names[:150], adata.var_names[150:]))
    found = sm.tl.interactions(adata, pairs, min_spots=1)
    assert len(found.table) == 150 and np.isnan(found.lambda_decoy) and np.isfinite(found.lambda_surrogate)
    with pytest.raises(sm.InputError, match="needs no background"):
        sm.tl.interactions(adata, pairs, statistic="matched")


def test_sections_in_one_table_are_kept_apart() -> None:
    """Two sections on the same coordinates, ligand in one and receptor in the other: nothing lies together."""
    one, other = section(0), section(1)
    x, y = one.X.toarray(), other.X.toarray()
    x[:, 0], x[:, 1] = 5 * x[:, 0], 0
    y[:, 0], y[:, 1] = 0, 5 * y[:, 1]
    one.X, other.X = sparse.csr_matrix(x), sparse.csr_matrix(y)
    both = ad.concat({"a": one, "b": other}, label="section", index_unique="-")
    apart = sm.tl.interactions(both, PAIRS[:2], batch_key="section", adjust=(), decoys=False).table
    assert apart.set_index("ligand").loc["LIG", "effect"] == pytest.approx(0.0, abs=0.02)
    assert both.uns["smeld"]["interactions"]["inputs"]["batch_key"] == "section"
    alone = section(0)
    copies = ad.concat({"a": alone, "b": section(0)}, label="section", index_unique="-")
    twice = sm.tl.interactions(copies, PAIRS[:1], batch_key="section", adjust=(), decoys=False).table
    once = sm.tl.interactions(alone, PAIRS[:1], adjust=(), decoys=False).table
    assert twice["effect"].iloc[0] == pytest.approx(once["effect"].iloc[0], abs=2e-3)
    assert twice["zscore"].iloc[0] == pytest.approx(np.sqrt(2) * once["zscore"].iloc[0], rel=0.1)


def test_smoothness_by_region_and_reach_by_range() -> None:
    adata = section()
    adata.obs["half"] = np.where(np.arange(N) % SIDE < 15, "left", "right")
    whole = sm.tl.interactions(adata, PAIRS[:2], adjust=(), decoys=False).table.set_index("ligand")
    halves = sm.tl.interactions(adata, PAIRS[:2], adjust=(), correlograms_by="half", decoys=False).table
    assert halves.set_index("ligand")["zscore"].to_numpy() == pytest.approx(
        whole["zscore"].to_numpy(), rel=0.3, abs=0.5
    )
    pairs = pd.DataFrame({"ligand": ["LIG", "SUB"], "receptor": ["REC", "REC"], "range": ["secreted", "contact"]})
    near = sm.tl.interactions(adata, pairs, adjust=(), decoys=False).table.set_index("ligand")
    ranged = sm.tl.interactions(adata, pairs, radius_um={"secreted": 300.0}, adjust=(), decoys=False).table
    ranged = ranged.set_index("ligand")
    assert ranged.loc["SUB", "effect"] == pytest.approx(near.loc["SUB", "effect"], rel=1e-9)
    assert ranged.loc["LIG", "effect"] != near.loc["LIG", "effect"]


def test_scores_are_kept_in_every_spot_for_significant_pairs() -> None:
    adata = section()
    table = sm.tl.interactions(adata, PAIRS, adjust=(), decoys=False).table
    score, local = adata.obsm["interactions_score"], adata.obsm["interactions_local"]
    assert score.shape == local.shape == (N, int((table["qvalue"] <= 0.05).sum()))
    called = local.toarray() > 0
    assert (score.toarray()[called] == local.toarray()[called]).all()
    assert (score > 0).sum() > called.sum()


def test_numbers_are_regressed_out_as_numbers_and_too_many_labels_refused() -> None:
    adata = section()
    rng = np.random.default_rng(0)
    adata.obs["depth"] = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.obs["some"] = np.where(np.arange(N) < 5, np.nan, rng.normal(size=N))
    plain = sm.tl.interactions(adata, PAIRS[:2], adjust=(), decoys=False).table
    found = sm.tl.interactions(adata, PAIRS[:2], adjust=["depth", "some"], decoys=False).table
    assert found["zscore"].to_numpy() == pytest.approx(plain["zscore"].to_numpy(), abs=1.5)
    adata.obs["name"] = [f"s{i}" for i in range(N)]
    with pytest.raises(sm.InputError, match="too many values"):
        sm.tl.interactions(adata, PAIRS[:2], adjust=["name"])


def test_odd_tables_of_pairs() -> None:
    adata = section()
    frame = pd.DataFrame(
        [["LIG", "REC", "Secreted"], [" LIG ", "REC + SUB", ""], [None, "REC", "contact"], ["NOISE", "OTHER", None]],
        columns=["ligand", "receptor", "range"],
    )
    table = sm.tl.interactions(adata, frame, decoys=False).table.set_index("receptor")
    assert table["range"].to_dict() == {"REC": "secreted", "REC+SUB": "unknown", "OTHER": "unknown"}
    for wrong in (("LIG", "REC"), ["LIG_REC"]):
        with pytest.raises(sm.InputError, match=r"\(ligand, receptor\) each"):
            sm.tl.interactions(adata, wrong)
    assert len(sm.tl.interactions(adata, PAIRS[:1], radius_um=np.float32(110), adjust=None, decoys=False).table) == 1
    for options, said in (({"radius_um": [50]}, "micrometres"), ({"seed": -1}, "seed")):
        with pytest.raises(sm.InputError, match=said):
            sm.tl.interactions(adata, PAIRS[:1], **options)


def test_a_new_test_of_pairs_takes_away_what_was_made_of_the_old() -> None:
    adata = section()
    adata.obs["cell_type"] = np.where(np.arange(N) % 2, "a", "b")
    sm.tl.interactions(adata, PAIRS[:2], decoys=False)
    sm.tl.celltype_interactions(adata)
    sm.tl.interactions(adata, PAIRS[:1], decoys=False)
    assert "celltype_interactions" not in adata.uns


def test_memory_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from smeld import _progress

    monkeypatch.setattr(_progress, "available_gb", lambda: 0.1)
    with pytest.raises(sm.InputError, match=r"needs about .* GB .*fewer pairs"):
        sm.tl.interactions(section(), PAIRS)


def test_cells_without_neighbours_and_spots_without_counts() -> None:
    adata = section()
    adata.obsm["spatial_um"][:2] = [[9e4, 9e4], [-9e4, 9e4]]
    adata.X = sparse.csr_matrix(sparse.diags((np.arange(N) != 5).astype(np.float32)) @ adata.X)
    table = sm.tl.interactions(adata, PAIRS, radius_um=110.0).table
    assert np.isfinite(table[["effect", "zscore", "pvalue"]].to_numpy()).all()


@pytest.mark.parametrize("n", [2, 3, 12])
def test_very_small_sections(n: int) -> None:
    found = sm.tl.interactions(section()[:n].copy(), PAIRS[:2], min_spots=1)
    assert found.table["pvalue"].between(0, 1).all()


def test_nothing_testable_is_an_empty_table() -> None:
    adata = section()
    found = sm.tl.interactions(adata, [("RARE", "REC")])
    assert len(found.table) == 0 and found.n_rare == 1 and np.isnan(found.lambda_surrogate)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pairs": [("A", "B")]}, "no pair has both partners"),
        ({"pairs": [("LIG",)]}, "two columns"),
        ({"pairs": PAIRS, "local": "all"}, "local"),
        ({"pairs": PAIRS, "adjust": ["nowhere"]}, "nowhere"),
        ({"pairs": PAIRS, "statistic": "moran", "adjust": ["library"]}, "only statistic='spatial'"),
        ({"pairs": PAIRS, "radius_um": -1.0}, "radius"),
    ],
)
def test_errors_help_and_lose_nothing(options: dict, said: str) -> None:
    adata = section()
    before = set(adata.uns) | set(adata.obsm)
    with pytest.raises(sm.InputError, match=said):
        sm.tl.interactions(adata, **options)
    assert set(adata.uns) | set(adata.obsm) == before


def test_negative_values_are_refused() -> None:
    adata = section()
    adata.X = adata.X - sparse.csr_matrix(np.full(adata.shape, 5.0))
    with pytest.raises(sm.InputError, match="negative"):
        sm.tl.interactions(adata, PAIRS)
