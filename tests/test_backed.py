"""Sections whose counts stay on disk: the same results, the same errors, and no more memory than is said."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import smeld as sm
from smeld import _adapt, _backed
from smeld.fusion import _variants
from smeld.io import _on_disk
from smeld.kernels import rows

array = pytest.importorskip("dask.array", reason="needs smeld[cluster]")


def table(n: int, g: int, seed: int) -> sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix((rng.poisson(1.0, (n, g)) * (rng.random((n, g)) < 0.5)).astype(np.float32))


def lazy_blocks(x: sparse.csr_matrix, size: int):
    return array.from_array(x, chunks=(size, x.shape[1]), asarray=False)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 70), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_rows_sorted_on_disk_are_those_sorted_in_memory(n: int, g: int, size: int, width: int, seed: int) -> None:
    x = table(n, g, seed)
    order = np.random.default_rng(seed).permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_backed, "_bucket_width", lambda stored: width)
        made = _backed.rows_of(lazy_blocks(x, size), order)
    np.testing.assert_array_equal(made.whole().toarray(), x[order].toarray())
    some = np.sort(np.random.default_rng(seed + 1).choice(n, max(1, n // 3), replace=False))
    np.testing.assert_array_equal(made.take(some).toarray(), x[order[some]].toarray())
    start, stop = sorted((seed % (n + 1), n // 2))
    np.testing.assert_array_equal(made.fetch(start, stop).toarray(), x[order[start:stop]].toarray())


def test_the_sorted_copy_goes_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backed.tempfile, "tempdir", str(tmp_path))
    made = _backed.rows_of(lazy_blocks(table(50, 4, 0), 7), np.arange(50)[::-1])
    assert list(tmp_path.iterdir())
    del made
    assert not list(tmp_path.iterdir())


def stored(tmp_path: Path, *, n_obs: int = 400, shuffled: bool = True) -> Path:
    adata = sm.datasets.simulate(n_obs, 80, layout="cells", image=False, seed=101)
    if shuffled:
        adata = adata[np.random.default_rng(0).permutation(n_obs)].copy()
    sm.write(adata, tmp_path / "section.h5ad")
    sm.write(adata, tmp_path / "section.zarr")
    return tmp_path / "section"


@given(st.integers(1, 70), st.integers(0, 99), st.booleans())
@settings(max_examples=3, deadline=None)
def test_an_analysis_on_disk_has_the_bits_of_one_in_memory(size: int, seed: int, shuffled: bool) -> None:
    """Whatever the blocks and the order of the spots; every other task: tests/test_every_input.py."""
    adata = sm.datasets.simulate(150, 50, layout="cells", image=False, seed=100 + seed % 3)
    if shuffled:
        adata = adata[np.random.default_rng(seed).permutation(150)].copy()
    lazy = adata.copy()
    lazy.X = lazy_blocks(adata.X, size)
    pairs = [(adata.var_names[i], adata.var_names[i + 1]) for i in range(0, 12, 2)]
    found = []
    for section in (adata, lazy):
        sm.tl.quality_control(section, min_counts=30)
        sm.fuse(section)
        sm.tl.domains(section, 3, n_starts=2, n_splits=1)
        markers, tested = sm.tl.markers(section), sm.tl.interactions(section, pairs, min_spots=5).table
        found.append((section.obs, section.var, section.obsm["fused_sme"], section.varm["PCs"], markers, tested))
    for one, other in zip(*found):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one.equals(other)


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_files_are_opened_in_place_and_written_back(tmp_path: Path, suffix: str) -> None:
    path = stored(tmp_path).with_suffix(suffix)
    plain, lazy = sm.read(path), sm.read(path, backed=True)
    assert _backed.is_backed(lazy.X)
    for adata in (plain, lazy):
        sm.tl.quality_control(adata, min_counts=20)
        sm.fuse(adata, evidence=False)
        sm.tl.domains(adata, 3, n_starts=1, n_splits=0)
    assert np.array_equal(plain.obsm["fused_sme"], lazy.obsm["fused_sme"])
    assert plain.obs["domain"].equals(lazy.obs["domain"])
    for name in (f"result{suffix}",):
        sm.write(lazy, tmp_path / name)
        again = sm.read(tmp_path / name)
        assert (again.X != plain.X).nnz == 0
        assert again.obs["domain"].astype(str).equals(plain.obs["domain"].astype(str))


def test_other_platforms_are_put_away(tmp_path: Path) -> None:
    adata = sm.datasets.simulate(200, 50, image=False, seed=101)
    folder = tmp_path / "section"
    folder.mkdir()
    frame = adata.to_df().astype(int)
    frame.index.name = "cell"
    frame.to_csv(folder / "counts.csv")
    xy = adata.obs[[]].copy()
    xy[["x", "y"]] = adata.obsm["spatial_um"]
    xy.to_csv(folder / "coordinates.csv", index_label="cell")
    plain = sm.read(folder, um_per_unit=1.0)
    lazy = sm.read(folder, um_per_unit=1.0, backed=tmp_path / "counts.zarr")
    assert _backed.is_backed(lazy.X)
    assert (_adapt.counts(lazy) != plain.X).nnz == 0
    with pytest.raises(sm.InputError, match=r"counts\.zarr exists already"):
        sm.read(folder, um_per_unit=1.0, backed=tmp_path / "counts.zarr")
    temporary = sm.read(folder, um_per_unit=1.0, backed=True)
    assert (_adapt.counts(temporary) != plain.X).nnz == 0


def test_a_temporary_store_lives_as_long_as_what_reads_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backed.tempfile, "tempdir", str(tmp_path))
    adata = sm.datasets.simulate(200, 50, image=False, seed=101)
    whole = adata.copy()
    _on_disk.put_away(whole, None)
    part = whole[10:40].copy()
    del whole
    gc.collect()
    assert (_adapt.counts(part) != adata.X[10:40]).nnz == 0
    del part
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_region_stays_on_disk(tmp_path: Path) -> None:
    path = stored(tmp_path).with_suffix(".zarr")
    region = (150.0, 150.0, 350.0, 320.0)
    plain, lazy = sm.read(path, region_um=region), sm.read(path, region_um=region, backed=True)
    assert _backed.is_backed(lazy.X) and lazy.n_obs == plain.n_obs < 400
    assert (_adapt.counts(lazy) != plain.X).nnz == 0


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_nothing_else_of_a_file_is_lost(tmp_path: Path, suffix: str) -> None:
    adata = sm.datasets.simulate(200, 50, image=False, seed=101)
    adata.raw = adata[:, :20].copy()
    adata.layers["twice"] = adata.X * 2
    adata.obsp["near"] = sparse.eye(200, format="csr")
    path = tmp_path / f"all{suffix}"
    (adata.write_h5ad if suffix == ".h5ad" else adata.write_zarr)(path)
    plain, lazy = sm.read(path), sm.read(path, backed=True)
    for part in ("layers", "obsm", "varm", "obsp", "uns"):
        assert set(getattr(lazy, part)) == set(getattr(plain, part))
    assert (_adapt.counts(lazy, "twice") != plain.layers["twice"]).nnz == 0
    assert (sparse.csr_matrix(lazy.raw.X) != sparse.csr_matrix(plain.raw.X)).nnz == 0
    assert list(lazy.raw.var_names) == list(plain.raw.var_names)
    assert lazy.obs.equals(plain.obs)


def test_columns_on_disk_are_read_and_put_away(tmp_path: Path) -> None:
    adata = sm.datasets.simulate(200, 50, image=False, seed=101)
    by_columns = adata.copy()
    by_columns.X = sparse.csc_matrix(adata.X)
    sm.write(by_columns, tmp_path / "columns.h5ad")
    lazy = sm.read(tmp_path / "columns.h5ad", backed=True)
    assert _backed.is_backed(lazy.X)
    assert (_adapt.counts(lazy) != adata.X).nnz == 0


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "finite"), (-1.0, "cannot be negative"), (np.inf, "finite"), (0.0, "nothing but zeros")],
)
def test_impossible_counts_are_refused(tmp_path: Path, value: float, words: str) -> None:
    adata = sm.datasets.simulate(200, 50, image=False, seed=101)
    x = adata.X.toarray() * (value != 0.0)
    x[50, 3] = value
    adata.X = sparse.csr_matrix(x)
    adata.write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(sm.InputError, match=words):
        sm.read(tmp_path / "bad.h5ad", backed=True)


@pytest.mark.parametrize(("values", "words"), [(0, "missing"), (1, "come twice"), (99, "beyond the last gene")])
def test_missing_and_damaged_chunks_are_refused(tmp_path: Path, values: int, words: str) -> None:
    """A chunk of a zarr store that is not there reads as zeros."""
    import zarr

    path = stored(tmp_path).with_suffix(".zarr")
    indices = zarr.open_group(str(path), mode="r+")["X"]["indices"]
    indices[: None if values == 0 else 40] = values
    with pytest.raises(sm.InputError, match=words):
        sm.read(path, backed=True)


def test_backed_is_a_word_that_means_something(tmp_path: Path) -> None:
    with pytest.raises(sm.InputError, match="backed must be"):
        sm.read(tmp_path, backed=3)  # type: ignore[arg-type]


def test_large_sections_are_never_taken_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limits beyond which sections count as large lowered."""
    path = stored(tmp_path).with_suffix(".zarr")
    lazy = sm.read(path, backed=True)

    def refused(*_: object) -> None:
        raise MemoryError("the counts were taken into memory")

    monkeypatch.setattr(_variants, "MOST_SPLIT", 100)
    monkeypatch.setattr(_backed, "in_memory_matrix", refused)
    monkeypatch.setattr(rows.Rows, "whole", refused)
    sm.tl.quality_control(lazy)
    sm.fuse(lazy)
    sm.tl.domains(lazy, 3, n_starts=2)
    sm.tl.pieces(lazy)
    sm.tl.markers(lazy)
    pairs = [(lazy.var_names[i], lazy.var_names[i + 1]) for i in range(0, 12, 2)]
    sm.tl.interactions(lazy, pairs, min_spots=5)
    with pytest.raises(MemoryError):
        sm.tl.denoise(lazy)
    sm.write(lazy, tmp_path / "result.h5ad")


MEASURED = """
import resource, sys, warnings
warnings.simplefilter("ignore")
import smeld as sm
sm.fuse(sm.datasets.simulate(300, 50, image=False))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
adata = sm.read(sys.argv[1], backed=sys.argv[2] == "disk")
sm.tl.quality_control(adata)
sm.fuse(adata, evidence=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_counts(tmp_path: Path) -> None:
    """30,000 cells with 27 million counts, 220 MB of them: on disk they take none of it."""
    rng = np.random.default_rng(0)
    adata = sm.datasets.simulate(30_000, 40, layout="cells", image=False, seed=101)
    wide = sparse.random(30_000, 3_000, density=0.3, format="csr", dtype=np.float32, random_state=1)
    wide.data = rng.integers(1, 5, wide.nnz).astype(np.float32)
    import anndata

    large = anndata.AnnData(wide, obs=adata.obs[[]], obsm={"spatial": adata.obsm["spatial_um"]})
    large.write_zarr(tmp_path / "large.zarr")
    del adata, wide, large
    grown = {}
    for where in ("memory", "disk"):
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, str(tmp_path / "large.zarr"), where],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        grown[where] = float(done.stdout)
    assert grown["disk"] < grown["memory"] - 150, grown
