"""Sections with known domains: how each is read, which labels count, and the true number of domains."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

FOLDER = Path(os.environ.get("SMELD_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
#: labels that are no region
UNSCORED = {"", "nan", "na", "none", "undetermined", "unannotated"}
N_OBS, N_GENES = 2500, 1000


@dataclass(frozen=True)
class Section:
    """``truth(adata)`` gives a label a spot, "" where none is known: such spots are divided but not scored."""

    name: str
    group: str
    path: str | None
    truth: Callable[[Any], pd.Series]
    has_image: bool
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def location(self) -> Path | None:
        return None if self.path is None else FOLDER / self.path

    @property
    def absent(self) -> bool:
        return self.location is not None and not self.location.exists()

    def read(self, seed: int = 0) -> Any:
        """AnnData as ``sm.read`` gives it, or the simulator's section of this seed, with ``obs["truth"]``."""
        import smeld as sm

        if self.location is None:
            adata = sm.datasets.simulate(**self.options, seed=seed)
        else:
            adata = sm.read(self.location, **self.options)
        labels = self.truth(adata).astype(object).where(lambda s: s.notna(), "").astype(str)
        adata.obs["truth"] = ["" if v.strip().lower() in UNSCORED else v for v in labels]
        return adata


def scored(adata: Any) -> np.ndarray:
    """Spots with a known label."""
    return np.asarray(adata.obs["truth"].astype(str) != "")


def true_number(adata: Any) -> int:
    return int(adata.obs["truth"][scored(adata)].nunique())


def _column(name: str) -> Callable[[Any], pd.Series]:
    return lambda adata: adata.obs[name]


def _layers(path: str) -> Callable[[Any], pd.Series]:
    def read(adata: Any) -> pd.Series:
        table = pd.read_csv(FOLDER / path / "truth.tsv", sep="\t", index_col=0)
        return table["layer"].reindex(adata.obs_names)

    return read


def _sections() -> dict[str, Section]:
    found = []
    for number in ("151673", "151674"):
        path = f"visium_dlpfc_{number}"
        found.append(Section(f"dlpfc_{number}", "cortex", path, _layers(path), True))
    found.append(
        Section(
            "breast_block_a",
            "breast",
            "visium_breast_blockA/blockA_s1_3000genes.h5ad",
            _column("fine_annot_type"),
            True,
        )
    )
    for number, day in (("bz5", "20180417_BZ5"), ("bz9", "20180419_BZ9")):
        path = f"starmap_mpfc/{day}_control.h5ad"
        found.append(Section(f"starmap_{number}", "starmap", path, _column("domain"), False))
    for name in ("A1", "B1", "D1", "G2"):
        # A1's picture was reduced to 2,000 of 6,954 pixels
        options = {"image_scale": 2000 / 6954} if name == "A1" else {}
        found.append(Section(f"her2st_{name}", "her2st", f"her2st/{name}", _column("label"), name == "A1", options))
    for tissue in ("layered", "nested", "branched"):
        for layout in ("lattice", "cells"):
            options = {"n_obs": N_OBS, "n_genes": N_GENES, "tissue": tissue, "layout": layout}
            found.append(
                Section(f"sim_{tissue}_{layout}", "simulated", None, _column("truth_domain"), True, dict(options))
            )
    return {s.name: s for s in found}


SECTIONS = _sections()
REAL = [name for name, s in SECTIONS.items() if s.path is not None]


def write_npz(adata: Any, path: Path) -> None:
    """What peers get: counts (CSR), gene and spot names, positions; readable by any numpy."""
    x = adata.X.tocsr()
    np.savez(
        path,
        data=x.data.astype(np.float32),
        indices=x.indices.astype(np.int32),
        indptr=x.indptr.astype(np.int64),
        shape=np.asarray(x.shape),
        genes=np.asarray(adata.var_names, dtype="U"),
        spots=np.asarray(adata.obs_names, dtype="U"),
        xy=np.asarray(adata.obsm["spatial"], dtype=float),
        xy_um=np.asarray(adata.obsm["spatial_um"], dtype=float),
        array=np.column_stack([adata.obs[c] for c in ("array_row", "array_col")]).astype(float)
        if "array_row" in adata.obs
        else np.zeros((0, 2)),
    )
