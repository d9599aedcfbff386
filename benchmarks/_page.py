"""docs/benchmarks.md: made of the stored figures, never by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import _measure
import _table

NOTES = _measure.HERE / "notes.md"
VERSIONED = ("smeld", "numpy", "scipy", "numba", "scikit-learn", "scanpy", "anndata")

HEAD = """# Benchmarks

This page is written by `make bench` (`benchmarks/run.py`) from `benchmarks.json` beside it; do not edit it. Each
part carries the date, command, machine and versions it was measured with. Labels are used only to score and for the
true number of domains; all spots are in training; one configuration, the default, for all sections; seeds 0, 1, 2
and so on. Seconds are wall time, peak MB the largest resident memory of the process in 10^6 bytes. Accuracy tables
were made with one numerical thread, the others with the default.
"""

#: key of a table -> its heading, and how to read it
TABLES: dict[str, tuple[str, str]] = {
    "import": (
        "Import",
        "Fresh interpreters in turn, median of the repeats; smeld loads its parts on first use, so the "
        "last row loads all its public names.",
    ),
    "main_job": (
        "The main job",
        "From the command line to the written report, interpreter start and compiled code's loading "
        "included, in one process.",
    ),
    "domains": (
        "Domains",
        "Adjusted Rand index over seeds (p5: 5th percentile); `labels missed`: annotated labels whose "
        "matched domain shared no spot with them in at least one run; seconds: image features, fusion "
        "and domains, median; `image weight`: mean of the exponent gamma that fusion used.",
    ),
    "recall": (
        "Recall of each annotated label",
        "Share of a label's spots inside the one domain matched to it (one to one, Hungarian method), "
        "mean and worst over seeds.",
    ),
    "calibration": (
        "Is the confidence worth its name?",
        'Co-membership p_ij = sum_k p_ik p_jk against "same label", pairs that belong together and apart'
        " weighing one half each. p_ij is stated for pairs as they come in the tissue, of which few lie together: its "
        "odds are carried over to pairs of which half do (`sm.tl.same_domain(..., balanced=True)`; the base rate is "
        "the memberships' own, no truth enters); the next column is the error without that. Calibration error "
        "(10 bins) and Brier score should be low, the Brier score below a constant's; error after one-to-one matching,"
        " overall and of the half with the highest `domain_confidence`, and their ratio. Means over seeds.",
    ),
    "across": (
        "Reliability from one section to the next",
        "Mixtures fitted on one section, memberships predicted on the other from the first one's components, scored "
        "against the other's layers; pairs balanced and carried over as above. Means over seeds.",
    ),
    "reliability": (
        "Reliability of co-membership",
        "Each column is a tenth of the stated probability, its value the share of such pairs that share "
        "a label (same weights): the closer to the column's own range, the better; - where no pair fell.",
    ),
    "denoise": (
        "Denoised expression on held-out counts",
        "Half of the counts predicts the other half; at most 3 seeds. `binomial`: a spot's own expression is signal "
        "(the default); `beta-binomial`: what neighbours do not share is noise (noise='overdispersed'). Variant, share "
        "of the section's mean and reading are chosen for each method on an inner split. SME is a re-implementation. "
        "The method was developed on these sections.",
    ),
    "simple_methods": (
        "Simpler methods",
        "The same protocol; 30 principal components of scanpy's recipe with 2,000 genes, implemented in "
        "`simple_methods.py`; seconds hold PCA and method.",
    ),
    "her2st": (
        "her2st: smeld beside the best single simpler method",
        "Mean ARI over seeds of each section, and their mean; the bar is the best single method's mean + .02.",
    ),
    "simulated_image": (
        "What an image adds, simulator",
        "ARI with the image less ARI without; tissues and layouts in turn, one seed a run; the last "
        "column should be near 1 where the image tells nothing.",
    ),
    "peers": (
        "Other tools",
        "Each in an environment of its own, in one process with one thread, on the counts and positions "
        "smeld gets; seconds of one run, median.",
    ),
    "peer_notes": (
        "How the other tools were run",
        "The settings that differ from their defaults, and what could not be as in their guides.",
    ),
    "peer_versions": (
        "Versions of the other tools",
        "As installed from the package index.",
    ),
    "sme_normalise": (
        "stLearn's SME normalisation, side by side",
        "One run, one thread each: `first` with compilation, `seconds` the median of three more; neither"
        " holds image work. stLearn had random features in place of its CNN's, whose weights are a "
        "download: the time does not depend on them.",
    ),
    "interactions": (
        "Ligand-receptor pairs: false positives, power, time",
        "Share of pairs with a one-sided p below .05 and .01: false positives where the field correlation is 0, power "
        "elsewhere. `mean`: stationary, or drifting over the section, or with levels by domain; these two with a plane "
        "or the domains regressed out by `spatial`. Seconds of the test and its surrogates alone.",
    ),
    "lr_local": (
        "Ligand-receptor pairs: independent pairs called in single spots",
        "Pairs of the same generator, tested as a user would; significant spots after Benjamini & Bogomolov.",
    ),
    "lr_real": (
        "Ligand-receptor pairs: does the test hold on real sections?",
        "Lambda: median chi-square over the expected one; on surrogates (a receptor's map turned about the section) it "
        "should be 1; on decoys (genes in no pair, as abundant and as smooth) it tells how far genes lie together "
        "because tissue is made of parts. Seconds with both.",
    ),
    "lr_platforms": (
        "Ligand-receptor pairs: one breast cancer in Visium and Xenium",
        "Pairs tested on both platforms, significant on each and on both, and how z-scores agree over pairs; beside "
        "real pairs those with partners exchanged and random genes of the panel.",
    ),
    "celltype_interactions": (
        "Cell types that send and receive: false positives, power, time",
        "Labels made of smooth fields of a given range, pairs independent of them (`gain` 0), or the ligand raised in "
        "senders beside receivers, or in all senders and the receptor in all receivers.",
    ),
    "matched": (
        "stLearn's ligand-receptor test: `matched` beside stLearn",
        "The same values, pairs and neighbours, two threads each; seconds a pair: smeld's of a run of 300 pairs with "
        "all that it prepares, stLearn's without what it prepares. p by spot, not adjusted, where the score exceeds 0.",
    ),
    "lr_peers": (
        "Ligand-receptor pairs beside LIANA+",
        "DLPFC 151673, the same pairs, one thread each, all but `first` warm; the ratio is seconds over those of "
        "smeld's `spatial` without decoys, by wall clock and by processor time.",
    ),
    "annotate": (
        "Cell types from a reference",
        "`sm.tl.annotate` without and with the prior from the graph, beside nearest centroid and logistic regression. "
        "Cover: share of cells whose set has the truth, at a nominal .90; set: mean size; unknown: of cells whose type "
        "was withheld, the share called unknown or given a larger set.",
    ),
    "deconvolve": (
        "Proportions of cell types, hard simulated mixtures",
        "A dozen types, three pairs of them nearly alike, platform shift of sd 1. Cover: of intervals at "
        "a nominal .90, where a type is present; zeros held: intervals of absent types that have 0; of NNLS: the error "
        "as a share of that of non-negative least squares; width at the first's cover: of intervals of one width about "
        "NNLS' estimate that would hold as much as the first method's. Peers in environments of their own, first seed.",
    ),
    "deconvolve_real": (
        "Proportions of cell types, real cells",
        "Pooled seqFISH+ cells, six folds, drawn five times. Breast tissue, reference from the Xenium cells of the "
        "other half: Xenium cells pooled under Visium's spots, as they are and with genes thinned by log-normal "
        "factors (sd 1, three draws); and Visium itself, the Xenium cells under its spots as truth, registered by "
        "genes. Regression that sees the truth learns other spots' true compositions. Told: the reference's "
        "composition, and the number of cells in each spot.",
    ),
    "deconvolve_speed": ("Proportions of cell types, speed", "Twenty types, 2,000 genes; two processor cores."),
    "niche_states": (
        "Types divided by their surroundings",
        "Adjusted Rand index of `sm.tl.niche_states` and of expression alone with the simulated states.",
    ),
    "niche_nulls": (
        "Types that are not divided",
        "Sections whose expression varies smoothly without regard to niches: share of tests that pass.",
    ),
    "niche_genes": ("Genes of states", "Genes that differ between states of a type: found and false."),
    "niche_groups": (
        "Niches between groups of sections",
        "Sections a group, change of one niche's share (1: none) and share of runs that pass at .05.",
    ),
    "niche_speed": ("Niches, speed", "100,000 cells of twenty types."),
    "viewer": (
        "Viewer",
        "One million cells in headless Chromium; milliseconds from the request to the drawn frame; drawing: what the "
        "worker itself took.",
    ),
    "large": (
        "Large sections",
        "The whole main job (`smeld run`: reading to report), or the script said; minutes of wall time and the largest "
        "resident memory of the process, reading included. Sections are those of `benchmarks/_large_section.py`: "
        "148 counts above zero a cell of 500 genes. ARI with the simulated domains; the number of domains is chosen by "
        "the data but for the script.",
    ),
    "lr_scale": (
        "Ligand-receptor pairs at scale",
        "Simulated cells with the genes of smeld's own pairs; `spatial` with surrogates and local calls; memory of the "
        "whole process with the section loaded.",
    ),
    "encoder_rate": (
        "Tiles a second through ResNet50",
        "224-pixel tiles, random weights, on the CPU: batched, one by one, and by stLearn's own loop, beside what the "
        "machine does in matrix products at 8.2 GFLOP a tile.",
    ),
    "encoder_learning": (
        "The section's own CNN",
        "Seconds of `self` on so many tiles.",
    ),
    "encoder_added": (
        "What an encoder adds to domains, her2st A1",
        "ARI over seeds with the default fusion (`let in`: in how many runs evidence gave morphology a say), with "
        "fixed weights, and of domains by features alone.",
    ),
    "gnn": (
        "Pairs that act on genes downstream",
        "Simulated pairs whose ligand and receptor know nothing of each other but change genes of the receiving cell, "
        "and as many decoys; area under the precision-recall curve, mean and worst of the sections; share of pairs and "
        "decoys with p < .05; `smooth ligands`: a gene of a shared programme in a ligand's place, nothing interacting.",
    ),
    "platform_pair": (
        "Domains: one breast cancer in Visium and Xenium",
        "Each platform divided by itself; agreement over Visium's spots, beside that with one section mirrored and of "
        "Visium with another seed.",
    ),
    "gpu": (
        "GPU",
        "The kernels that a GPU takes over, copies to it and back included, best of three; `difference` as a share of "
        "the largest value. Without a GPU the CPU's seconds alone.",
    ),
    "denoise_vae": (
        "Denoised expression: graph VAE, deterministic, scVI",
        "Log likelihood per held-out count (half of the counts), DLPFC's 2,000 most variable genes and simulated "
        "sections: negative binomial with dispersions fitted to the given half for each method, and Poisson.",
    ),
    "denoise_cover": (
        "Cover of 90 % intervals of denoised expression",
        "Simulated sections: share of the rates that counts were drawn from, and of their means, inside.",
    ),
    "vae": (
        "The graph VAE beside the deterministic fusion",
        "ARI of domains over seeds (of small panels: over draws of genes), as in Domains; seconds of fusion alone, "
        "with the deterministic one in it, on one thread.",
    ),
    "trajectory": (
        "Orders along simulated tissues",
        "Kendall's tau with the true order, mean of the cases: `tau` of `sm.tl.trajectory` from the found domain that "
        "holds most of the earliest 5 %; plain distance, scanpy's DPT and stLearn's PSTS (given the true domains) from "
        "the earliest cell. Coverage and width of the 90 % intervals against the rank-scaled truth. F1 of the directed "
        "edges between groups. `shuffled`: expression dealt out at random among the cells, of the first four cases.",
    ),
    "trajectory_cases": (
        "The same, case by case",
        "Settings of a case follow from its seed (`benchmarks/trajectory.py`).",
    ),
    "trajectory_real": (
        "Orders on cortex",
        "From the found domain richest in white matter; Spearman's correlation with depth, WM = 0 to L1 = 6.",
    ),
    "trajectory_settings": (
        "Orders when a setting is half or half again as large",
        "Change of Kendall's tau with the truth, each constant alone times .5 and 1.5, four cases of each tissue as "
        "above (seeds 0 to 3): mean and largest absolute change; share of the 24 runs that move by .05 or less.",
    ),
    "transition_genes": (
        "Genes along a trajectory",
        "Share of genes without part in development (noise and smooth fields) with p <= .05; found: share with q <= "
        ".05 of those that take part; FDR: false among all false and true that are called, markers aside, mean of the "
        "sections and pooled.",
    ),
    "trajectory_scale": (
        "Trajectories at scale",
        "Simulated cells, fused beforehand; 40 bootstraps; memory of the whole process with the section loaded.",
    ),
    "scale": (
        "Scale",
        "Simulated cells without a picture; fusion and domains with the true number of domains, after "
        "one small warm-up; memory of the whole process with the section loaded.",
    ),
}


def store(path: Path, stored: dict[str, Any]) -> None:
    """Write the figures so that a stop half way leaves the old ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp-json")
    beside.write_text(json.dumps(_finite(stored), indent=1) + "\n")
    beside.replace(path)


def _finite(value: Any) -> Any:
    """JSON knows no NaN; figures are kept to six digits."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def write(out: Path, stored: dict[str, Any], *, order: list[str]) -> None:
    parts = [HEAD]
    for name in order:
        if name in stored:
            parts.append(_part(name, stored[name]))
    extra = _her2st(stored)
    if extra:
        parts.append(_section("her2st", extra))
    parts.append("## Short of the bar\n\n" + _notes())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(parts).rstrip() + "\n")


def _notes() -> str:
    return NOTES.read_text().strip() + "\n" if NOTES.exists() else "Nothing noted.\n"


def _part(name: str, entry: dict[str, Any]) -> str:
    tables = [_section(key, rows) for key, rows in entry["tables"].items()]
    versions = ", ".join(f"{k} {v}" for k, v in entry["versions"].items())
    stamp = (
        f"*{name}: {entry['date']}, `{entry['command']}`, {entry['seconds']:.0f} s; {entry['machine']}; {versions}.*\n"
    )
    return "\n".join([*tables, stamp])


def _section(key: str, rows: list[dict[str, Any]]) -> str:
    title, how = TABLES.get(key, (key, ""))
    return f"## {title}\n\n{how}\n\n{_table.markdown(rows)}"


def _her2st(stored: dict[str, Any]) -> list[dict[str, Any]]:
    """smeld, simpler methods and Leiden side by side, from the stored tables."""
    if not {"domains", "simple_methods"} <= stored.keys():
        return []
    found: dict[str, dict[str, float]] = {}
    for row in stored["domains"]["tables"]["domains"]:
        if "mean" in row:
            name = "smeld, with image" if row["image"] else "smeld, genes alone"
            found.setdefault(name, {})[row["section"]] = row["mean"]
            if not row["image"]:
                found.setdefault("smeld, image where there is one", {}).setdefault(row["section"], row["mean"])
            else:
                found.setdefault("smeld, image where there is one", {})[row["section"]] = row["mean"]
    others = [*stored["simple_methods"]["tables"]["simple_methods"]]
    others += [r for r in stored.get("peers", {"tables": {"peers": []}})["tables"]["peers"] if "Leiden" in r["method"]]
    for row in others:
        if "mean" in row:
            found.setdefault(row["method"], {})[row["section"]] = row["mean"]
    names = [f"her2st_{s}" for s in ("A1", "B1", "D1", "G2")]
    rows = []
    for method, by_section in found.items():
        if all(name in by_section for name in names):
            values = {name: by_section[name] for name in names}
            rows.append({"method": method, **values, "mean": sum(values.values()) / len(values)})
    return sorted(rows, key=lambda r: -r["mean"])
