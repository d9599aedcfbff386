"""The image's say on the simulator: ARI with the image less ARI without, when it tells all or nothing."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import _measure
import _scores
from _datasets import scored

RUNS = 40
N_OBS, N_GENES = 2000, 500
TISSUES = ("layered", "nested", "branched")


def measure_runs(information: float, runs: int) -> list[dict[str, Any]]:
    """Runs take tissues and layouts in turn; run r has the seed r."""
    warnings.simplefilter("ignore")
    return [_one(information, run) for run in range(runs)]


def _one(information: float, run: int) -> dict[str, Any]:
    import smeld as sm

    layout = "lattice" if (run // len(TISSUES)) % 2 == 0 else "cells"
    tissue = TISSUES[run % len(TISSUES)]
    adata = sm.datasets.simulate(N_OBS, N_GENES, seed=run, layout=layout, tissue=tissue, image_information=information)
    adata.obs["truth"] = adata.obs["truth_domain"].astype(str)
    sm.morph.embed(adata, quiet=True)
    alone, _ = _ari(adata, morphology=None)
    with_image, weight = _ari(adata, morphology="auto")
    return {"tissue": tissue, "layout": layout, "alone": alone, "with_image": with_image, "weight": weight}


def _ari(whole: Any, *, morphology: str | None) -> tuple[float, float]:
    import smeld as sm

    adata = whole.copy()
    fusion = sm.fuse(adata, morphology=morphology)
    sm.tl.domains(adata, int(adata.obs["truth"].nunique()))
    keep = scored(adata)
    ari = _scores.ari(adata.obs["truth"][keep], adata.obs["domain"].astype(str)[keep])
    return ari, float(fusion.facts["gamma"] + fusion.facts["n_morphology"])


def measure(*, runs: int = RUNS) -> list[dict[str, Any]]:
    rows = []
    for information, name in ((1.0, "fully informative"), (0.0, "not at all")):
        with tempfile.TemporaryDirectory() as folder:
            arguments = [str(information), "--runs", str(runs)]
            found, _ = _measure.run_json("simulated_image.py", arguments, Path(folder), threads=1, timeout=3600)
        gains = [f["with_image"] - f["alone"] for f in found]
        summary = _scores.summary(gains)
        rows.append(
            {
                "image": name,
                "runs": len(found),
                "ARI, genes alone": _scores.summary([f["alone"] for f in found])["mean"],
                "ARI, with image": _scores.summary([f["with_image"] for f in found])["mean"],
                "gain, mean": summary["mean"],
                "gain, 5th percentile": summary["p5"],
                "gain, worst": summary["worst"],
                "share of runs with morphology weight 0": sum(f["weight"] == 0 for f in found) / len(found),
            }
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("information", type=float)
    parser.add_argument("--runs", type=int, default=6)
    options = parser.parse_args(argv)
    json.dump(measure_runs(options.information, options.runs), sys.stdout)


if __name__ == "__main__":
    main()
