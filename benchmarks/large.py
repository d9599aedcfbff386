"""Sections that laptops give up on: the whole main job, and ten million cells with counts on disk."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _measure
import _scores

SCRIPT = str(_measure.HERE / "large.py")
MAKE = str(_measure.HERE / "_large_section.py")


@dataclass(frozen=True)
class Section:
    """What is made, and how ``smeld run`` is called on it; ``command`` None: a script fuses and divides it on disk."""

    name: str
    make: tuple[str, ...]
    command: tuple[str, ...] | None


SECTIONS = (
    Section("1,000,000 cells x 500 genes, with interactions", ("1000000", "500"), ("--interactions",)),
    Section("the same within --memory 3GB", ("1000000", "500"), ("--interactions", "--memory", "3GB")),
    Section("100,000 cells x 18,000 genes", ("100000", "18000", "--mean-counts", "2000"), ("--interactions",)),
    Section(
        "the same within --memory 3GB",
        ("100000", "18000", "--mean-counts", "2000"),
        ("--interactions", "--memory", "3GB"),
    ),
    Section("400,000 bins of 8 um x 18,000 genes (simulated Visium HD)", ("400000", "18000", "--bins"), ()),
    Section("10,000,000 cells x 500 genes, neighbours, fusion, domains, on disk", ("10000000", "500"), None),
)


def measure(*, slow: bool = False) -> list[dict[str, Any]]:
    """One row a section; sections are made once and kept for the next row that needs them."""
    if not slow:
        return [{"section": s.name, "note": "not measured: asked for with --slow"} for s in SECTIONS]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for section in SECTIONS:
            rows.append(_one(section, Path(folder)))
    return rows


def _one(section: Section, folder: Path) -> dict[str, Any]:
    place = folder / "_".join(section.make).replace("--", "")
    place = place if "--bins" in section.make else place.with_suffix(".zarr")
    try:
        if not place.exists():
            _measure.run([sys.executable, MAKE, str(place), *section.make], folder, timeout=7200)
        return {"section": section.name, **measured(place, section, folder)}
    except _measure.Failed as error:
        return {"section": section.name, "note": f"failed: {error}"}


def measured(place: Path, section: Section, folder: Path) -> dict[str, Any]:
    """Seconds, peak memory and agreement with the truth of a section that is there."""
    if section.command is None:
        done = _measure.run([sys.executable, SCRIPT, str(place)], folder, timeout=7200)
        return {"minutes": done.seconds / 60, "peak MB": done.peak_mb, "ARI": json.loads(done.stdout)["ari"]}
    out = folder / "out"
    smeld = str(Path(sys.executable).with_name("smeld"))
    done = _measure.run([smeld, "run", str(place), "--out", str(out), *section.command], folder, timeout=7200)
    return {"minutes": done.seconds / 60, "peak MB": done.peak_mb, "ARI": _agreement(out)}


def _agreement(out: Path) -> float | None:
    """With the simulated domains, where the section brought them."""
    import anndata

    adata = anndata.read_h5ad(out / "result.h5ad", backed="r")
    if "truth_domain" not in adata.obs:
        return None
    return _scores.ari(adata.obs["truth_domain"].astype(str).to_numpy(), adata.obs["domain"].astype(str).to_numpy())


def fuse_and_divide(path: Path) -> dict[str, Any]:
    """What a script does with counts on disk."""
    import smeld as sm

    warnings.simplefilter("ignore")
    adata = sm.read(path, backed=True)
    truth = adata.obs["truth_domain"].astype(str).to_numpy()
    sm.tl.quality_control(adata)
    sm.fuse(adata)
    sm.tl.domains(adata, len(set(truth)))
    return {"ari": _scores.ari(truth, adata.obs["domain"].astype(str).to_numpy())}


if __name__ == "__main__":
    json.dump(fuse_and_divide(Path(sys.argv[1])), sys.stdout)
