"""The main job as a whole: what it writes, that files agree, that it can be repeated to the last bit."""

from __future__ import annotations

import os
import string
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import sparse

import command_line
import smeld as sm
from smeld import pipeline
from smeld._check import InputError

Capture = pytest.CaptureFixture[str]
FIGURES = ("confidence", "domains", "embedding", "markers", "quality_control", "section")
#: tables that are there only where the run made what they hold
OPTIONAL = {"tables/fusion_evidence.csv", "tables/domain_selection.csv"}
N_OBS, N_GENES = 240, 80


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated section with an image."""
    path = tmp_path_factory.mktemp("sim") / "section.h5ad"
    sm.write(sm.datasets.simulate(N_OBS, N_GENES, seed=1), path)
    return path


@pytest.fixture(scope="module")
def done(section: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.RunResult:
    """One real run, figures and all, K chosen from the data."""
    config = pipeline.configure(path=str(section), seed=3)
    return pipeline.run(config, tmp_path_factory.mktemp("run") / "out")


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    command_line.skip_pictures(monkeypatch)


def quick(path: Path, out: Path, **settings: Any) -> pipeline.RunResult:
    return pipeline.run(pipeline.configure(path=str(path), **{"n_domains": 3, **settings}), out)


def record(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))


# -- what is written -----------------------------------------------------------------------------------------


def test_exactly_the_files_that_are_promised(done: pipeline.RunResult) -> None:
    files = {name for name, kind in command_line.tree(done.folder).items() if kind != "folder"}
    figures = {f"figures/{name}.{kind}" for name in FIGURES for kind in ("png", "svg")}
    tables = {"tables/spots.csv", "tables/domains.csv", "tables/domain_pieces.csv", "tables/markers.csv"}
    wanted = {"result.h5ad", "report.html", "run.toml"} | tables | figures
    assert wanted <= files
    assert files - wanted <= OPTIONAL
    assert [p.name for p in done.folder.parent.iterdir()] == ["out"], "nothing beside it"
    assert done.report == done.folder / "report.html"


def test_the_result_is_an_ordinary_h5ad(done: pipeline.RunResult, section: Path) -> None:
    """Plain anndata and scanpy read it, and smeld did not touch the counts."""
    adata = anndata.read_h5ad(done.folder / "result.h5ad")
    given = anndata.read_h5ad(section)[adata.obs_names]
    assert (adata.X != given.X).nnz == 0
    assert isinstance(adata.X, sparse.csr_matrix)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.obsm["spatial"], given.obsm["spatial"])
    for slot, keys in {
        "obs": ("domain", "domain_confidence", "total_counts", "n_genes_by_counts"),
        "obsm": ("spatial", "spatial_um", "morph_texture", "fused_sme", "domain_prob", "X_pca"),
        "obsp": ("spatial_connectivities", "spatial_distances", "sme_weights"),
        "uns": ("domain_markers", "spatial", "smeld"),
    }.items():
        assert set(keys) <= set(getattr(adata, slot)), slot
    for key in ("read", "quality_control", "morph_texture", "fused_sme", "domain", "domain_markers"):
        assert set(adata.uns["smeld"][key]) == {"function", "params", "seed", "version", "inputs"}, key
    assert int(adata.uns["smeld"]["domain"]["seed"]) == 3
    import scanpy as sc

    work = sc.read_h5ad(done.folder / "result.h5ad")
    sc.pp.normalize_total(work)
    sc.pp.log1p(work)
    sc.tl.rank_genes_groups(work, "domain")
    again = sm.read(done.folder / "result.h5ad")
    assert again.n_obs == adata.n_obs


def test_domains_are_consistent(done: pipeline.RunResult) -> None:
    adata = anndata.read_h5ad(done.folder / "result.h5ad")
    prob = adata.obsm["domain_prob"]
    np.testing.assert_allclose(prob.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(prob.max(axis=1), adata.obs["domain_confidence"], atol=1e-12)
    assert (prob.idxmax(axis=1) == adata.obs["domain"].astype(str)).all()
    sizes = adata.obs["domain"].value_counts()[list(prob.columns)]
    assert sizes.is_monotonic_decreasing, '"1" is the largest'
    assert [str(k + 1) for k in range(prob.shape[1])] == list(prob.columns)


def test_tables_agree_with_the_h5ad(done: pipeline.RunResult) -> None:
    adata = anndata.read_h5ad(done.folder / "result.h5ad")
    spots = pd.read_csv(done.folder / "tables/spots.csv", dtype={"spot": str, "domain": str})
    assert list(spots["spot"]) == list(adata.obs_names)
    assert list(spots["domain"]) == list(adata.obs["domain"].astype(str))
    close: dict[str, Any] = {"rtol": 1e-5}
    np.testing.assert_allclose(spots[["x_um", "y_um"]], adata.obsm["spatial_um"], **close)
    for column in ("domain_confidence", "total_counts", "n_genes_by_counts"):
        np.testing.assert_allclose(spots[column], adata.obs[column], **close)
    domains = pd.read_csv(done.folder / "tables/domains.csv", dtype={"domain": str}).set_index("domain")
    grouped = adata.obs.groupby("domain", observed=True)
    assert domains["n_spots"].to_dict() == grouped.size().to_dict()
    means = grouped["domain_confidence"].mean()
    np.testing.assert_allclose(domains["mean_confidence"], means[domains.index], **close)
    markers = pd.read_csv(done.folder / "tables/markers.csv", dtype={"domain": str, "gene": str})
    stored = adata.uns["domain_markers"]
    assert list(markers.columns) == list(stored.columns)
    assert list(markers["gene"]) == list(stored["gene"].astype(str))
    numbers = [c for c in markers if c not in ("domain", "gene")]
    np.testing.assert_allclose(markers[numbers], stored[numbers].astype(float), rtol=1e-5)


def test_markers_are_higher_inside(done: pipeline.RunResult) -> None:
    """The best marker of a domain, looked up in the counts by hand."""
    adata = anndata.read_h5ad(done.folder / "result.h5ad")
    best = adata.uns["domain_markers"].groupby("domain", observed=True).first()
    share = sparse.diags(1 / adata.obs["total_counts"].to_numpy()) @ adata.X
    for domain, row in best.iterrows():
        inside = (adata.obs["domain"].astype(str) == domain).to_numpy()
        values = np.asarray(share[:, adata.var_names.get_loc(row["gene"])].todense()).ravel()
        assert values[inside].mean() > values[~inside].mean()


def test_run_toml(done: pipeline.RunResult, section: Path) -> None:
    run = record(done.folder)
    assert run["config"]["path"] == str(section)
    assert run["config"]["seed"] == 3
    assert pipeline.configure(**run["config"]) == pipeline.configure(path=str(section), seed=3)
    assert run["inputs"] == {"section.h5ad": pipeline.file_hash(section)}
    assert run["versions"]["smeld"] == sm.__version__
    assert run["versions"]["numpy"] == np.__version__
    assert run["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert run["run"]["seconds"] > 0
    files = command_line.tree(done.folder)
    hashes = {name: f"sha256:{found}" for name, found in files.items() if found != "folder"}
    del hashes["run.toml"]
    assert run["results"] == hashes


def test_inputs_of_a_folder(tmp_path: Path) -> None:
    """Every file of the section counts; hidden ones and earlier results in it do not."""
    folder = command_line.visium(tmp_path / "section")
    names = {n for n, kind in command_line.tree(folder).items() if kind != "folder"}
    command_line.old_result(folder / "results")
    (folder / ".DS_Store").write_text("x")
    other = tmp_path / "other.png"
    other.write_bytes(b"x")
    hashes = pipeline.input_hashes(pipeline.configure(path=str(folder), image=str(other)))
    assert set(hashes) == names | {"--image"}
    assert hashes["--image"] == pipeline.file_hash(other)


def test_weights_that_are_given_are_inputs(tmp_path: Path) -> None:
    """They decide the features: of a folder what is read of it, and a single file as it is."""
    command_line.h5ad(tmp_path / "section.h5ad")
    weights = tmp_path / "model"
    weights.mkdir()
    for name in ("model.safetensors", "config.json", "README.md"):
        (weights / name).write_text(name)
    settings: dict[str, Any] = {"path": str(tmp_path / "section.h5ad"), "encoder": "resnet50"}
    hashes = pipeline.input_hashes(pipeline.configure(**settings, weights=str(weights)))
    assert set(hashes) == {"section.h5ad", "--weights/model.safetensors", "--weights/config.json"}
    one = weights / "README.md"
    hashes = pipeline.input_hashes(pipeline.configure(**settings, weights=str(one)))
    assert hashes["--weights"] == pipeline.file_hash(one)


@pytest.mark.usefixtures("without_pictures")
def test_the_graph_vae_from_the_command_line(
    section: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("torch", "torch_geometric"):
        pytest.importorskip(package, reason="needs smeld[deep]")
    from smeld.nn import _vae_fit

    whole = _vae_fit.schedule
    monkeypatch.setattr(_vae_fit, "schedule", lambda epochs, *rest: whole(4, *rest))
    options = ("--method", "vae", "--device", "cpu", "--encoder", "none", "--n-domains", "3", "--no-evidence")
    called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", *options)
    assert called.code == 0, called.err
    assert "expression (vae)" in called.err
    adata = anndata.read_h5ad(tmp_path / "out" / "result.h5ad")
    params = adata.uns["smeld"]["fused_vae"]["params"]
    assert params["device"] == "cpu" and int(params["epochs"]) == 4
    assert adata.obsm["fused_vae"].shape == adata.obsm["sd_fused_vae"].shape
    assert str(adata.uns["smeld"]["domain"]["inputs"]["use_rep"]) == "fused_vae"
    written = record(tmp_path / "out")
    assert written["config"]["device"] == "cpu" and written["versions"]["torch"] != "absent"


# -- repeated ------------------------------------------------------------------------------------------------


def test_replay_is_byte_identical(done: pipeline.RunResult, tmp_path: Path, capsys: Capture) -> None:
    """Every file, figures and report too; by its run.toml and by its folder."""
    called = command_line.call(capsys, "replay", done.folder / "run.toml", "--out", tmp_path / "again")
    assert called.code == 0, called.err
    assert "identical" in called.err
    assert "differs" not in called.err
    first, again = command_line.tree(done.folder), command_line.tree(tmp_path / "again")
    del first["run.toml"], again["run.toml"]
    assert again == first
    assert record(tmp_path / "again")["results"] == record(done.folder)["results"]


@pytest.mark.usefixtures("without_pictures")
class TestReplay:
    @pytest.fixture
    def out(self, tmp_path: Path) -> Path:
        command_line.h5ad(tmp_path / "section.h5ad")
        return quick(tmp_path / "section.h5ad", tmp_path / "out").folder

    def test_beside_the_first_by_default(self, out: Path, capsys: Capture) -> None:
        called = command_line.call(capsys, "replay", out)
        assert called.code == 0, called.err
        assert (out.parent / "out-replay" / "result.h5ad").is_file()
        assert called.out.strip().endswith("out-replay/report.html")

    def test_from_another_folder(
        self, out: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """A relative path in the first call does not bind the replay to where one stands."""
        monkeypatch.chdir(tmp_path)
        quick(Path("section.h5ad"), Path("relative"))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert command_line.call(capsys, "replay", "../relative").code == 0

    def test_changed_input_is_said(self, out: Path, capsys: Capture) -> None:
        path = out.parent / "section.h5ad"
        adata = anndata.read_h5ad(path)
        adata.X[:, 0] += 50
        adata.write_h5ad(path)
        called = command_line.call(capsys, "replay", out)
        assert called.code == 1
        assert "smeld: input differs: section.h5ad" in called.err
        assert "smeld: result differs: result.h5ad" in called.err
        assert "identical" not in called.err

    def test_an_added_input_is_said(self, tmp_path: Path, capsys: Capture) -> None:
        folder = command_line.visium(tmp_path / "section")
        out = quick(folder, tmp_path / "first").folder
        (folder / "note.txt").write_text("new")
        called = command_line.call(capsys, "replay", out)
        assert called.code == 0, "the results are the same"
        assert "input differs: note.txt: absent -> sha256:" in called.err
        assert "identical" in called.err

    def test_changed_version_is_said(self, out: Path, capsys: Capture) -> None:
        path = out / "run.toml"
        text = path.read_text()
        assert f'"{np.__version__}"' in text
        path.write_text(text.replace(f'"{np.__version__}"', '"1.0.0"'))
        called = command_line.call(capsys, "replay", path)
        assert called.code == 0
        assert f"smeld: version differs: numpy: 1.0.0 -> {np.__version__}" in called.err
        assert "identical" in called.err

    def test_changed_result_is_said(self, out: Path, capsys: Capture) -> None:
        path = out / "run.toml"
        found = record(out)["results"]["tables/spots.csv"]
        path.write_text(path.read_text().replace(found, "sha256:0"))
        called = command_line.call(capsys, "replay", path)
        assert called.code == 1
        assert "smeld: result differs: tables/spots.csv" in called.err

    def test_another_seed_is_another_result(self, out: Path, tmp_path: Path) -> None:
        other = quick(tmp_path / "section.h5ad", tmp_path / "other", seed=7).folder
        first, second = record(out)["results"], record(other)["results"]
        assert first["result.h5ad"] != second["result.h5ad"]

    def test_a_moved_section_is_one_line(self, out: Path, capsys: Capture) -> None:
        (out.parent / "section.h5ad").rename(out.parent / "moved.h5ad")
        called = command_line.call(capsys, "replay", out, "-q")
        assert called.code == 2
        assert "section.h5ad does not exist" in called.error
        assert not (out.parent / "out-replay").exists()


BROKEN_TOML = {
    "not there": None,
    "not TOML": "[config\n",
    "not text": b"\xff\xfe\x00",
    "empty": "",
    "a list": "[[config]]\n[versions]\n[inputs]\n[results]\n",
    "no results": '[config]\npath = "x"\n[versions]\n[inputs]\n',
    "unknown setting": '[config]\npath = "x"\nn_domain = 3\n[versions]\n[inputs]\n[results]\n',
    "setting of another kind": '[config]\npath = "x"\nseed = "one"\n[versions]\n[inputs]\n[results]\n',
    "no path": "[config]\n[versions]\n[inputs]\n[results]\n",
    "a folder": "folder",
}


@pytest.mark.parametrize("name", BROKEN_TOML)
def test_malformed_run_toml(tmp_path: Path, capsys: Capture, name: str) -> None:
    content, path = BROKEN_TOML[name], tmp_path / "run.toml"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    called = command_line.call(capsys, "replay", path, "--out", tmp_path / "out", "-q")
    assert called.code == 2, called.err
    assert called.err.count("\n") == 1
    assert "cure:" in called.error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_same_whatever_the_number_of_threads(section: Path, tmp_path: Path) -> None:
    """One and two threads of BLAS and numba, and other hash seeds: the same files, byte for byte."""
    results = []
    for n in ("1", "2"):
        names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR")
        environment = {**os.environ, **{f"{name}_NUM_THREADS": n for name in names}, "PYTHONHASHSEED": n}
        command = [sys.executable, "-m", "smeld", "run", str(section), "--out", str(tmp_path / n)]
        subprocess.run([*command, "--n-domains", "4", "-q"], env=environment, check=True, timeout=120)
        results.append(record(tmp_path / n)["results"])
    assert results[0] == results[1]


@pytest.mark.filterwarnings("ignore::smeld._check.SmeldWarning")
def test_order_of_spots_changes_the_order_of_labels_only(section: Path) -> None:
    straight = sm.read(section)
    order = np.random.default_rng(0).permutation(straight.n_obs)
    shuffled = straight[order].copy()
    config = pipeline.configure(path=str(section), n_domains=4)
    for adata in (straight, shuffled):
        pipeline.analyse(adata, config)
    back = shuffled[straight.obs_names]
    assert list(back.obs["domain"].astype(str)) == list(straight.obs["domain"].astype(str))
    np.testing.assert_array_equal(back.obs["domain_confidence"], straight.obs["domain_confidence"])
    np.testing.assert_array_equal(back.obsm["fused_sme"], straight.obsm["fused_sme"])
    np.testing.assert_array_equal(back.obsm["morph_texture"], straight.obsm["morph_texture"])
    # scanpy adds up spots in the order of the table, so its statistics agree to rounding
    for name in ("score", "pvalue", "log2_fold_change"):
        np.testing.assert_allclose(
            np.sort(shuffled.uns["domain_markers"][name]),
            np.sort(straight.uns["domain_markers"][name]),
            rtol=1e-3,
            atol=1e-6,
        )


@pytest.mark.usefixtures("without_pictures")
def test_a_rerun_replaces_the_old_result_as_a_whole(tmp_path: Path) -> None:
    path = command_line.visium(tmp_path / "section")
    out = tmp_path / "out"
    command_line.old_result(out)
    (out / "tables" / "gone.csv").write_text("of an earlier version")
    quick(path, out)
    first = command_line.tree(out)
    assert "tables/gone.csv" not in first
    assert (out / "result.h5ad").read_bytes()[:4] == b"\x89HDF"
    quick(path, out, n_domains=2)
    second = command_line.tree(out)
    assert set(second) == set(first)
    assert second["result.h5ad"] != first["result.h5ad"]


@pytest.mark.usefixtures("without_pictures")
def test_a_link_to_the_results_stays_a_link(tmp_path: Path) -> None:
    command_line.h5ad(tmp_path / "section.h5ad")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk", target_is_directory=True)
    quick(tmp_path / "section.h5ad", tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "result.h5ad").is_file()


@pytest.mark.usefixtures("without_pictures")
def test_results_inside_the_section(tmp_path: Path) -> None:
    """Twice into a folder of the section itself: the first result is no input of the second."""
    folder = command_line.visium(tmp_path / "section")
    first = record(quick(folder, folder / "smeld").folder)
    second = record(quick(folder, folder / "smeld").folder)
    assert first["inputs"] == second["inputs"]
    assert first["results"] == second["results"]


def test_foreign_files_are_refused_before_reading(tmp_path: Path) -> None:
    command_line.old_result(tmp_path / "out")
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    before = command_line.tree(tmp_path / "out")
    with pytest.raises(InputError, match=r"did not write.*thesis\.tex"):
        pipeline.run(pipeline.configure(path=str(tmp_path / "no-such-section")), tmp_path / "out")
    assert command_line.tree(tmp_path / "out") == before


@pytest.mark.usefixtures("without_pictures")
class TestOnItsOwnResult:
    """A result.h5ad is a section too; what is stored in it decides nothing that this run was told."""

    @pytest.fixture
    def stored(self, tmp_path: Path) -> Path:
        out = quick(command_line.visium(tmp_path / "section"), tmp_path / "first", n_domains=2).folder
        return out / "result.h5ad"

    def test_again(self, stored: Path, tmp_path: Path) -> None:
        again = quick(stored, tmp_path / "out", n_domains=2).adata
        first = anndata.read_h5ad(stored)
        assert list(again.obs["domain"]) == list(first.obs["domain"])
        np.testing.assert_array_equal(again.obsm["fused_sme"], first.obsm["fused_sme"])

    def test_without_the_stored_morphology(self, stored: Path, tmp_path: Path) -> None:
        adata = quick(stored, tmp_path / "out", encoder="none").adata
        assert adata.uns["smeld"]["fused_sme"]["inputs"]["morphology"] == "none"

    def test_stored_embeddings_do_not_confuse_it(self, stored: Path, tmp_path: Path) -> None:
        adata = anndata.read_h5ad(stored)
        adata.obsm["morph_other"] = adata.obsm["morph_texture"] * 0
        adata.obsm["fused_zzz"] = adata.obsm["fused_sme"] * 0
        adata.write_h5ad(stored)
        again = quick(stored, tmp_path / "out").adata
        assert again.uns["smeld"]["fused_sme"]["inputs"]["morphology"] == "morph_texture"
        assert again.uns["smeld"]["domain"]["inputs"]["use_rep"] == "fused_sme"

    def test_in_another_unit(self, stored: Path, tmp_path: Path) -> None:
        adata = quick(stored, tmp_path / "out", um_per_unit=5.0).adata
        edges = sparse.coo_matrix(adata.obsp["spatial_distances"])
        xy = adata.obsm["spatial_um"]
        length = np.linalg.norm(xy[edges.row] - xy[edges.col], axis=1)
        np.testing.assert_allclose(edges.data, length)

    def test_it_is_not_written_over(self, stored: Path) -> None:
        before = command_line.tree(stored.parent)
        with pytest.raises(InputError, match=r"input lies in the output folder.*result\.h5ad.*--out"):
            quick(stored, stored.parent)
        assert command_line.tree(stored.parent) == before


# -- names that spreadsheets and TOML would misread ----------------------------------------------------------

FORMULA = ("=", "+", "-", "@", "\t", "\r")
HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x","y")', "-", "a,b", 'q"q', "two\nlines", "=é"]


@pytest.mark.usefixtures("without_pictures")
def test_names_are_no_formulas_in_the_tables(tmp_path: Path) -> None:
    """A name that begins as a formula does gets one apostrophe in front; without it, it is the name."""
    path = tmp_path / "section.h5ad"
    adata = command_line.h5ad(path)
    adata.obs_names = [*HOSTILE, *adata.obs_names[len(HOSTILE) :]]
    adata.var_names = [*HOSTILE, *adata.var_names[len(HOSTILE) :]]
    adata.write_h5ad(path)
    out = quick(path, tmp_path / "out").folder
    stored = anndata.read_h5ad(out / "result.h5ad")
    assert list(stored.obs_names) == list(adata.obs_names), "the h5ad keeps the names as they are"
    spots = pd.read_csv(out / "tables/spots.csv", dtype=str, keep_default_na=False)
    markers = pd.read_csv(out / "tables/markers.csv", dtype=str, keep_default_na=False)
    assert not spots["spot"].str.startswith(FORMULA).any()
    assert not markers["gene"].str.startswith(FORMULA).any()
    shown = {name: f"'{name}" if name.startswith(FORMULA) else name for name in HOSTILE}
    assert list(spots["spot"][: len(HOSTILE)]) == list(shown.values())
    assert set(markers["gene"]) == {shown.get(g, g) for g in stored.uns["domain_markers"]["gene"]}
    assert pd.to_numeric(spots["x_um"]).notna().all(), "numbers stay numbers"


@given(st.lists(st.text(max_size=12), min_size=1, max_size=8))
def test_no_text_begins_a_formula(names: list[str]) -> None:
    table = pd.DataFrame({"name": pd.Series(names, dtype=object), "n": -np.arange(len(names))})
    safe = pipeline.safe_csv(table)
    assert not any(name.startswith(FORMULA) for name in safe["name"])
    assert list(safe["n"]) == list(table["n"])
    assert list(table["name"]) == names, "the table itself is left alone"
    for name, shown in zip(names, safe["name"]):
        kept = name.replace("\x00", "")
        assert shown in (kept, "'" + kept)


SCALARS = st.one_of(st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False), st.text(string.printable))


@given(
    st.dictionaries(
        st.text(string.ascii_lowercase + "_-", min_size=1, max_size=8),
        st.dictionaries(st.text(min_size=1), SCALARS, max_size=5),
        max_size=4,
    )
)
@example({"a": {"\x7f": "\x7f", "\U0001f9ec": "\U0001f9ec", '"': "\\", "\x85": "\u2028\r\n\t\x00"}})
@example({"a": {"big": 2**80, "small": 1e-300, "high": float("inf"), "low": float("-inf"), "whole": 1e22}})
def test_toml_reads_back(sections: dict[str, dict[str, Any]]) -> None:
    again = tomllib.loads(pipeline.to_toml(sections))
    assert again == sections
    for name, content in sections.items():
        for key, value in content.items():
            assert type(again[name][key]) is type(value)


@given(st.text(st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF), min_size=1, max_size=3))
def test_names_that_are_no_unicode_can_be_written(name: str) -> None:
    """File names may hold bytes of another encoding, which Python shows as lone surrogates."""
    text = pipeline.to_toml({"inputs": {name: "sha256:0"}})
    assert len(tomllib.loads(text.encode("utf-8").decode())["inputs"]) == 1


@pytest.mark.usefixtures("without_pictures")
def test_a_path_with_any_characters(tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "Schnitt \U0001f9ec 'q\" [x] ü"
    folder.mkdir()
    command_line.h5ad(folder / "a b.h5ad")
    out = tmp_path / "Ergebnis \U0001f9ec"
    called = command_line.call(capsys, "run", folder / "a b.h5ad", "--out", out, "--n-domains", "2", "-q")
    assert called.code == 0, called.err
    assert record(out)["config"]["path"] == str(folder / "a b.h5ad")
    assert command_line.call(capsys, "replay", out, "-q").code == 0


def test_a_long_run_says_beforehand_what_to_expect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = tmp_path / "s.h5ad"
    sm.write(sm.datasets.simulate(200, 50, image=False, seed=100), section)
    for longest, told in ((0.0, True), (1e9, False)):
        monkeypatch.setattr(pipeline, "LONG_SECONDS", longest)
        said: list[str] = []
        with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
            patch.setattr(pipeline, "analyse", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            pipeline.run(pipeline.configure(path=str(section)), tmp_path / "out", say=said.append)
        assert any("200 spots x 50 genes: about" in line and "of memory" in line for line in said) is told
