"""Domains against known regions, over seeds, with one default configuration and the true number of domains.

From the shell, to judge a change:

    python benchmarks/domains.py --seeds 3 --json
    python benchmarks/domains.py --seeds 3 --sections dlpfc_151673,her2st_A1
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import _measure
import _scores
import _table
from _datasets import SECTIONS, Section, scored, true_number

SEEDS = 20


def measure_section(section: Section, *, seeds: int, image: bool) -> dict[str, Any]:
    """Everything about one section, in this process: divisions over seeds, scored against its labels."""

    warnings.simplefilter("ignore")
    whole, embed_seconds = _prepared(section, seed=0, image=image)
    runs = []
    for seed in range(seeds):
        if section.path is None and seed:  # the simulator can give a section of its own to each seed
            whole, _ = _prepared(section, seed=seed, image=image)
        runs.append(_one_seed(whole, seed))
    return {
        "section": section.name,
        "group": section.group,
        "image": image,
        "n_obs": int(whole.n_obs),
        "n_scored": int(scored(whole).sum()),
        "n_domains": true_number(whole),
        "embed_seconds": embed_seconds,
        "runs": runs,
    }


def _prepared(section: Section, *, seed: int, image: bool) -> tuple[Any, float]:
    """The section, with features of its image if asked for, and the seconds those took."""
    import smeld as sm

    adata = section.read(seed)
    started = time.perf_counter()
    if image:
        sm.morph.embed(adata, quiet=True)
    return adata, time.perf_counter() - started


def _one_seed(whole: Any, seed: int) -> dict[str, Any]:
    import smeld as sm

    adata = whole.copy()
    started = time.perf_counter()
    fusion = sm.fuse(adata, seed=seed)
    fused = time.perf_counter()
    sm.tl.domains(adata, true_number(whole), seed=seed)
    seconds = {"fuse_seconds": fused - started, "domains_seconds": time.perf_counter() - fused}
    weights = {k: v for k, v in fusion.facts.items() if isinstance(v, int | float)}
    return {"seed": seed, **_scored(adata), **seconds, "weights": weights}


def _scored(adata: Any) -> dict[str, Any]:
    """What the division and its confidence are worth on the labelled spots."""
    keep = scored(adata)
    truth, found = (adata.obs[c].astype(str).to_numpy()[keep] for c in ("truth", "domain"))
    prob = adata.obsm["domain_prob"].to_numpy()[keep]
    reliability = _scores.comembership(truth, prob)
    return {
        **_scores.score(truth, found),
        **_scores.risk_coverage(truth, found, adata.obs["domain_confidence"].to_numpy()[keep]),
        "calibration_error": reliability.calibration_error,
        "calibration_error_plain": _scores.comembership(truth, prob, carry=False).calibration_error,
        "brier": reliability.brier,
        "bins": reliability.bins,
    }


def measure(names: list[str], *, seeds: int, images: tuple[bool, ...] = (True, False)) -> list[dict[str, Any]]:
    """Each section, with and without its image, in a process of its own; absent sections say so."""
    jobs = []
    for name in names:
        section = SECTIONS[name]
        # on simulated sections `simulated_image` compares with and without
        wanted = images if section.path is not None else images[:1]
        jobs += [(section, image) for image in (wanted if section.has_image else (False,))]
    # a child has one thread: as many run at a time as there are cores
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(lambda job: _in_child(job[0], seeds=seeds, image=job[1]), jobs))


def _in_child(section: Section, *, seeds: int, image: bool) -> dict[str, Any]:
    base = {"section": section.name, "group": section.group, "image": image}
    if section.absent:
        return {**base, "failed": "the section is not here"}
    arguments = ["--one", section.name, "--seeds", str(seeds), *([] if image else ["--no-image"])]
    with tempfile.TemporaryDirectory() as folder:
        try:
            found, run = _measure.run_json("domains.py", arguments, Path(folder), threads=1, timeout=3600)
        except _measure.Failed as error:
            return {**base, "failed": str(error)}
    return {**found, "peak_mb": run.peak_mb}


def rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """ARI, time and memory."""
    return [_ari_row(r) if "failed" not in r else _failed_row(r) for r in results]


def _failed_row(result: dict[str, Any]) -> dict[str, Any]:
    return {
        "section": result["section"],
        "image": result["image"],
        "note": f"not measured: {result['failed']}",
    }


def _ari_row(result: dict[str, Any]) -> dict[str, Any]:
    runs = result["runs"]
    missed = sorted({name for run in runs for name, value in run["recall"].items() if value == 0})
    return {
        "section": result["section"],
        "image": result["image"],
        "spots": result["n_obs"],
        "scored": result["n_scored"],
        "domains": result["n_domains"],
        "seeds": len(runs),
        **_scores.summary([run["ari"] for run in runs]),
        "labels missed": ", ".join(missed) or "none",
        "seconds": _scores.summary([r["fuse_seconds"] + r["domains_seconds"] for r in runs])["median"]
        + result["embed_seconds"],
        "peak MB": result["peak_mb"],
        "image weight": _scores.summary([r["weights"].get("gamma", float("nan")) for r in runs])["mean"],
    }


def recall_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean recall of each annotated label; in how many of the runs it was missed altogether."""
    found = []
    for result in (r for r in results if "failed" not in r):
        runs = result["runs"]
        for label in runs[0]["recall"]:
            values = [run["recall"][label] for run in runs]
            summary = _scores.summary(values)
            found.append(
                {
                    "section": result["section"],
                    "image": result["image"],
                    "label": label,
                    "mean recall": summary["mean"],
                    "worst": summary["worst"],
                    "runs with recall 0": sum(v == 0 for v in values),
                }
            )
    return found


def calibration_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds of what the membership probabilities are worth."""
    found = []
    for result in (r for r in results if "failed" not in r):
        mean = {
            k: _scores.summary([run[k] for run in result["runs"]])["mean"]
            for k in ("calibration_error", "calibration_error_plain", "brier", "error", "error_confident_half")
        }
        found.append(
            {
                "section": result["section"],
                "image": result["image"],
                "calibration error": mean["calibration_error"],
                "with the base rate of the tissue": mean["calibration_error_plain"],
                "Brier": mean["brier"],
                "Brier of a constant": 0.25,
                "error": mean["error"],
                "error, confident half": mean["error_confident_half"],
                "ratio": mean["error_confident_half"] / mean["error"] if mean["error"] else float("nan"),
            }
        )
    return found


def reliability_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Share of pairs that lie together in truth, by tenth of the probability stated, mean over seeds."""
    found = []
    for result in (r for r in results if "failed" not in r):
        row: dict[str, Any] = {"section": result["section"], "image": result["image"]}
        for tenth in range(10):
            inside = [b for run in result["runs"] for b in run["bins"] if min(int(b["probability"] * 10), 9) == tenth]
            weight = sum(b["weight"] for b in inside)
            name = f"{tenth / 10:.1f}-{(tenth + 1) / 10:.1f}"
            row[name] = sum(b["weight"] * b["together"] for b in inside) / weight if weight else None
        found.append(row)
    return found


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds 0 .. SEEDS-1 [20]")
    parser.add_argument("--sections", default="all", help="names with commas between, or real, or all [all]")
    parser.add_argument("--no-image", action="store_true", help="only without the image")
    parser.add_argument("--image", action="store_true", help="with the image where there is one, only")
    parser.add_argument("--json", action="store_true", help="everything as JSON instead of tables")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def chosen(text: str) -> list[str]:
    """Names of sections from ``--sections``."""
    if text == "all":
        return list(SECTIONS)
    if text == "real":
        return [name for name, s in SECTIONS.items() if s.path is not None]
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        raise SystemExit(f"no section {', '.join(unknown)}; there are: {', '.join(SECTIONS)}")
    return names


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    if options.one:
        section = SECTIONS[options.one]
        image = section.has_image and not options.no_image
        json.dump(measure_section(section, seeds=options.seeds, image=image), sys.stdout)
        return
    images = (False,) if options.no_image else (True,) if options.image else (True, False)
    results = []
    for name in chosen(options.sections):
        results += measure([name], seeds=options.seeds, images=images)
        print(f"{name} done", file=sys.stderr)
    if options.json:
        json.dump(results, sys.stdout, indent=1)
        return
    for table in (rows(results), calibration_rows(results)):
        print(_table.markdown(table))


if __name__ == "__main__":
    main()
