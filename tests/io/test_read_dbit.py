"""DBiT-seq and spatial CITE-seq: orientation, proteins, the pitch, and what is refused."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import _make_cells_c as make
import numpy as np
import pytest

import smeld as sm
from smeld import _adapt, _keys
from smeld._check import InputError, SmeldWarning

RNA, PROTEIN = "GSM1_tonsil_25um_RNA.tsv.gz", "GSM1_tonsil_25um_protein.tsv.gz"


def quiet(path: Path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmeldWarning)
        return sm.read(path, **options)


@pytest.mark.parametrize("transposed", [False, True])
def test_genes_proteins_and_places(tmp_path: Path, transposed: bool) -> None:
    truth = make.dbit(tmp_path / "d", transposed=transposed)
    adata = quiet(tmp_path / "d")
    assert adata.var_names.tolist() == make.GENES  # what was not mapped is no gene
    assert np.array_equal(adata.X.toarray(), truth.loc[adata.obs_names])
    assert np.array_equal(adata.obsm["protein"]["P1"], truth.loc[adata.obs_names, "Gene1"] + 1)
    place = dict(zip(adata.obs_names, adata.obsm["spatial_um"]))
    assert np.array_equal(place["4x7"] - place["3x7"], [50, 0])  # channels of 25 um, 25 um apart
    assert np.array_equal(place["3x8"] - place["3x7"], [0, 50])


def test_the_pitch_is_said_or_asked_for(tmp_path: Path) -> None:
    make.dbit(tmp_path / "d")
    with pytest.warns(SmeldWarning, match="25um in GSM1_tonsil_25um_RNA.tsv.gz is taken for the width of a channel"):
        sm.read(tmp_path / "d")
    assert _adapt.metadata(quiet(tmp_path / "d", um_per_unit=20))[_keys.META_UM_PER_UNIT] == 20
    (tmp_path / "d" / RNA).rename(tmp_path / "d/GSM1_RNA.tsv.gz")
    with pytest.warns(SmeldWarning, match="unit of the coordinates is not known.*from spot to spot"):
        sm.read(tmp_path / "d")


def change(name: str, edit: Callable[[str], str]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        text = gzip.decompress((folder / name).read_bytes()).decode()
        (folder / name).write_bytes(gzip.compress(edit(text).encode()))

    return spoil


def test_spots_without_proteins_are_said(tmp_path: Path) -> None:
    make.dbit(tmp_path / "d")
    change(PROTEIN, lambda t: "\n".join(t.splitlines()[:-3]))(tmp_path / "d")
    with pytest.warns(SmeldWarning, match="3 spots have no proteins"):
        adata = sm.read(tmp_path / "d")
    assert adata.obsm["protein"].isna().all(axis=1).sum() == 3


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "genes renamed": (lambda p: (p / RNA).rename(p / "tonsil.tsv.gz"), r"table of genes not found: .*tonsil.tsv"),
    "truncated": (lambda p: (p / RNA).write_bytes((p / RNA).read_bytes()[:200]), "RNA.tsv.gz cannot be read.*copy"),
    "cut short": (change(RNA, lambda t: t[: len(t) - 8]), "RNA.tsv.gz cannot be read.*row .* has"),
    "barcodes for spots": (
        change(RNA, lambda t: t.replace("x", "_")), "must be named by their channels, such as 12x34; found: .*_"
    ),
    "one spot named otherwise": (change(RNA, lambda t: t.replace("\n3x7\t", "\nspot\t")), "12x34; found: 'spot'"),
    "a spot twice": (change(RNA, lambda t: t.replace("\n3x7\t", "\n3x8\t")), "must be unique.*1 repeated: 3x8"),
    "proteins of another section": (
        change(PROTEIN, lambda t: t.rstrip().replace("\n", "\n9")), "spots of the genes and of .* do not match"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    make.dbit(tmp_path / "d", n=8)
    spoil, words = REFUSED[name]
    spoil(tmp_path / "d")
    with pytest.raises(InputError, match=words):
        quiet(tmp_path / "d", platform="dbit")
