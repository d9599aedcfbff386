"""What a run is expected to cost: sizes, the fit, limits that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import command_line
import smeld
from smeld import _estimate, pipeline
from smeld._estimate import Size

Capture = pytest.CaptureFixture[str]
GOOD = pipeline.configure(path="x.h5ad")

#: measured main jobs: spots, genes, counts that are not zero, megapixels, evidence; seconds of one core, 10^6 bytes
#: (simulated cells, simulate's seed 100, `smeld run` on a busy machine; and DLPFC 151673 of docs/benchmarks.md)
MEASURED: list[tuple[int, int, int, float, bool, float, float]] = [
    (1000, 2000, 633_059, 0.0, True, 29.3, 527),
    (4000, 500, 585_758, 0.0, True, 47.0, 508),
    (10_000, 300, 885_039, 0.0, True, 90.6, 549),
    (3639, 33_538, 7_300_000, 4.0, True, 27.4, 826),
]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimate") / "section.h5ad"
    command_line.h5ad(path)
    return path


@pytest.mark.parametrize("image", [True, False])
def test_the_head_of_a_file_says_what_reading_it_says(tmp_path: Path, image: bool) -> None:
    adata = smeld.datasets.simulate(200, 20, seed=100, image=image)
    smeld.write(adata, tmp_path / "s.h5ad")
    config = pipeline.configure(path=str(tmp_path / "s.h5ad"))
    head = _estimate.size_of(config)
    # a region makes it read the file
    read = _estimate.size_of(pipeline.configure(path=config.path, region_um=(-1e9, -1e9, 1e9, 1e9)))
    assert head == read == Size(200, 20, int(adata.X.nnz), head.megapixels)
    assert (head.megapixels > 0) == image


def test_of_a_region_the_part_counts(section: Path) -> None:
    part = _estimate.size_of(pipeline.configure(path=str(section), region_um=(0, 0, 250, 500)))
    assert 15 < part.n_obs < 45


sizes = st.builds(
    lambda n, g, share, mp: Size(n, g, int(n * g * share), mp),
    st.integers(1, 10**7), st.integers(1, 40_000), st.floats(0, 1), st.floats(0, 500),
)  # fmt: skip


@given(sizes, st.booleans(), st.integers(1, 10))
def test_more_never_costs_less(size: Size, evidence: bool, times: int) -> None:
    config = GOOD.model_copy(update={"evidence": evidence})
    larger = Size(size.n_obs * times, size.n_genes, size.nnz * times, size.megapixels * times)
    one, other = (_estimate.estimate(s, config) for s in (size, larger))
    slack = 1 + 1e-9
    assert 0 < one.seconds <= other.seconds * slack and 0 < one.peak_bytes <= other.peak_bytes * slack
    without = _estimate.estimate(size, GOOD.model_copy(update={"evidence": False, "encoder": "none"}))
    assert without.seconds <= one.seconds * slack and without.peak_bytes <= one.peak_bytes * slack


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row[0]}x{row[1]}")
def test_the_stated_error_holds_on_measured_runs(row: Any) -> None:
    *size, evidence, seconds, peak_mb = row
    found = _estimate.estimate(Size(*size), GOOD.model_copy(update={"evidence": evidence}))
    assert 1 / _estimate.FACTOR_SECONDS <= found.seconds / seconds <= _estimate.FACTOR_SECONDS
    assert 1 / _estimate.FACTOR_BYTES <= found.peak_bytes / 1e6 / peak_mb <= _estimate.FACTOR_BYTES


def test_parts_without_an_estimate_are_named() -> None:
    config = pipeline.configure(path="x", method="vae", trajectory=True)
    size = Size(1000, 100, 10_000)
    found = _estimate.estimate(size, config)
    assert found.without == ("method vae", "trajectory")
    assert "without method vae, trajectory" in _estimate.sentence(size, found)
    assert _estimate.estimate(size, GOOD).without == ()


def test_pairs_that_are_here_count(tmp_path: Path) -> None:
    """From the head of a file or store as from the section itself; only where they are tested."""
    adata = smeld.datasets.simulate(80, 20, seed=100, image=False)
    adata.var_names = ["CXCL12", "CXCR4", "CCL19", "CCR7", *[f"G{i}" for i in range(16)]]
    smeld.write(adata, tmp_path / "s.h5ad")
    smeld.write(adata, tmp_path / "s.zarr")
    tested = [pipeline.configure(path=str(tmp_path / f"s.{kind}"), interactions=True) for kind in ("h5ad", "zarr")]
    sizes = [_estimate.size_of(config) for config in tested] + [_estimate.size_in_memory(adata, tested[0])]
    assert len({size.pairs for size in sizes}) == 1 and sizes[0].pairs[:2] == (2, 2)
    assert _estimate.size_of(pipeline.configure(path=tested[0].path)).pairs == (0, 0, 0)
    with_pairs, without = (_estimate.estimate(sizes[0], c) for c in (tested[0], GOOD))
    assert with_pairs.seconds > without.seconds and with_pairs.peak_bytes > without.peak_bytes


# -- limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "expected"), [("8GB", 8e9), ("500 mb", 5e8), ("2.5G", 2.5e9), ("1GiB", 2.0**30)])
def test_sizes_of_memory(text: str, expected: float) -> None:
    assert _estimate.memory_bytes(text) == expected


@pytest.mark.parametrize("text", ["8", "much", "-1GB", "0GB", "8 GB GB", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(smeld.InputError, match="8GB or 500MB"):
        _estimate.memory_bytes(text)


def test_over_the_limit_is_refused_before_the_work_with_what_to_do(
    section: Path, tmp_path: Path, capsys: Capture
) -> None:
    called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--memory", "100MB")
    assert called.code == 2 and "reading" not in called.err and not (tmp_path / "out").exists()
    for said in ("0.1 GB are allowed", "60 spots x 15 genes", "--region-um", "--resolution", "--no-evidence"):
        assert said in called.error
    assert "--encoder none" not in called.error, "there is no image"
    arguments = ("--no-evidence", "--region-um", "0", "0", "500", "500")
    called = command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--memory", "100MB", *arguments)
    assert "cure: more --memory" in called.error
    assert "--no-evidence" not in called.error and "--region-um" not in called.error, "that was done already"


def test_within_the_limit_it_runs(
    section: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def run(config: Any, out: Path, **_: Any) -> None:
        seen.append(out)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", run)
    command_line.call(capsys, "run", section, "--out", tmp_path / "out", "--memory", "64GB")
    assert seen == [tmp_path / "out"]


def test_a_dry_run_says_what_to_expect_and_does_nothing(section: Path, tmp_path: Path, capsys: Capture) -> None:
    called = command_line.call(capsys, "run", section, "--dry-run")
    assert called.code == 0 and called.out.startswith("section.h5ad: 60 spots x 15 genes: about ")
    assert " of one core" in called.out and "GB of memory" in called.out
    (tmp_path / "bad.h5ad").write_text("no")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"sample,path\nA,{section}\nB,bad.h5ad\n")
    called = command_line.call(capsys, "run", sheet, "--out", tmp_path / "out", "--dry-run")
    assert called.code == 2 and not (tmp_path / "out").exists()
    lines = called.out.splitlines()
    assert lines[0].startswith("A: 60 spots") and lines[1].startswith("B: bad.h5ad cannot be read")


# -- what was used -------------------------------------------------------------------------------------------


def test_the_peak_is_that_of_the_block() -> None:
    """A large array counts while it is measured, and no longer for the next."""
    with _estimate.peak() as first:
        np.ones(300_000_000, np.uint8).sum()
        large = first()
    with _estimate.peak() as second:
        np.ones(1000).sum()
        small = second()
    assert large > 300
    if _estimate._begin_anew():
        assert small < large - 200
