"""Denoised expression on the held-out half of the counts: smeld beside measured counts, plain smoothing and SME.

Each section's counts are split in halves; every method gets the same training half and predicts the other. Two splits:
*binomial*, after which a spot's own expression is the same in both halves (denoise's default), and *beta-binomial* with
each gene's dispersion among neighbours, after which what is the spot's alone is noise (``noise="overdispersed"``).

Scores: Poisson deviance per held-out count at the spot's own held-out library size, and mean squared error of held-out
log-normalised values. Every method's profile is mixed with the section's mean profile, so that no zero decides; its
share, how a profile is read as a log-normalised value (its logarithm, or the expected one under Poisson counts), and
which of a method's variants is used are chosen for each method and score on an inner split (four fifths) of the
training half. No labels anywhere. SME normalisation is written here again from stLearn's description: neighbours within
2 or 3 lattice pitches (18 or 30; among cells the 18 or 30 nearest), weighed by correlation of 50 principal components,
times cosine of image features where there is an image; the mean of the 3 strongest, averaged with the spot's own.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _measure
import numpy as np
from _datasets import REAL, SECTIONS, Section
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree
from scipy.stats import poisson

F32, F64 = NDArray[np.float32], NDArray[np.float64]
SHARES_DEVIANCE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHARES_LOG = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
READINGS = ("logarithm", "expected")
INNER = 0.8
#: spots that shares, readings and variants are chosen on
MOST_INNER = 600
MOST_SEEDS = 3
LEAST_IN_SPOT, LEAST_IN_GENE = 20, 10


@dataclass(frozen=True)
class Half:
    """Training counts as AnnData (positions, image features), the graph, the section's mean profile."""

    adata: Any
    graph: Any
    counts: sparse.csr_matrix
    size: F64
    mean: F64


def half(counts: sparse.csr_matrix, like: Any, graph: Any) -> Half:
    adata = like.copy()
    adata.X = sparse.csr_matrix(counts, dtype=np.float32)
    total = np.asarray(counts.sum(axis=0)).ravel() + 0.5
    return Half(adata, graph, counts, np.asarray(counts.sum(axis=1)).ravel(), total / total.sum())


def profile(values: Any) -> F32:
    """Rows that sum to 1."""
    dense = np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=np.float32)
    total = dense.sum(axis=1, keepdims=True)
    return np.divide(dense, total, out=np.zeros_like(dense), where=total > 0)


# --------------------------------------------------------------------------------------------------------- methods


def measured(h: Half) -> Iterator[Callable[[], F32]]:
    yield lambda: profile(h.counts)


def section_mean(h: Half) -> Iterator[Callable[[], F32]]:
    yield lambda: np.repeat(h.mean[None].astype(np.float32), len(h.size), axis=0)


def plain_smoothing(h: Half) -> Iterator[Callable[[], F32]]:
    """Spot and neighbours averaged, once to four times, as profiles or as counts; and a Laplacian of strength 1."""
    from smeld.kernels.graph import row_normalise
    from smeld.kernels.smooth import smooth

    near = row_normalise(h.graph.connectivities + sparse.identity(len(h.size), format="csr"))
    profiles = sparse.csr_matrix(sparse.diags(1 / np.maximum(h.size, 1)) @ h.counts)
    for start, times in ((profiles, 1), (h.counts, 1), (h.counts, 2), (h.counts, 4)):
        yield lambda start=start, times=times: profile(functools.reduce(lambda y, _: near @ y, range(times), start))
    weights = h.graph.connectivities * (len(h.size) / h.graph.connectivities.sum())
    yield lambda: profile(np.maximum(smooth(weights, profiles.toarray(), 1.0, tolerance=1e-4), 0))


def sme(h: Half) -> Iterator[Callable[[], F32]]:
    """stLearn's normalisation: disks of 18 or 30 neighbours, averages of log-normalised values or of profiles."""
    from smeld.kernels.expression import log_normalise, pca

    logged = log_normalise(h.counts)
    scores = _unit(_centred(pca(logged, min(50, min(logged.shape) - 1), seed=0)[0]))
    image = [np.asarray(h.adata.obsm[k], dtype=float) for k in h.adata.obsm if k.startswith("morph_")]
    features = _unit(image[0]) if image else None
    profiles = sparse.csr_matrix(sparse.diags(1 / np.maximum(h.size, 1)) @ h.counts)
    for n_near in (18, 30):
        weights = _strongest(h, n_near, scores, features)
        has = np.asarray(weights.sum(axis=1)).ravel() > 0
        own = sparse.diags(np.where(has, 0.5, 1.0))
        yield lambda w=weights, o=own: profile(np.expm1((o @ (logged + w @ logged)).toarray()))
        yield lambda w=weights, o=own: profile(o @ (profiles + w @ profiles))


def _centred(x: F64) -> F64:
    return x - x.mean(axis=1, keepdims=True)


def _unit(x: F64) -> F64:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))


def _strongest(h: Half, n_near: int, scores: F64, features: F64 | None) -> sparse.csr_matrix:
    """The 3 strongest neighbours of each spot, their weights summing to 1."""
    xy, pitch = h.graph.xy_um, h.graph.pitch_um
    tree = cKDTree(xy)
    if pitch:
        near = tree.query_ball_point(xy, pitch * (2.3 if n_near == 18 else 2.9))
    else:
        near = tree.query(xy, k=n_near + 1)[1]
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    for i, found in enumerate(near):
        others = np.array([j for j in found if j != i], dtype=int)
        weight = scores[others] @ scores[i]
        if features is not None:
            weight = weight * (features[others] @ features[i])
        best = [k for k in np.argsort(-weight, kind="stable")[:3] if weight[k] > 0]
        rows += [i] * len(best)
        columns += list(others[best])
        values += list(weight[best] / weight[best].sum()) if best else []
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(xy), len(xy)))


def smeld(h: Half, noise: str) -> Iterator[Callable[[], F32]]:
    """``sm.tl.denoise`` with its defaults, the fusion made from the training half too."""

    def run() -> F32:
        import smeld as sm

        adata = h.adata.copy()
        sm.tl.denoise(adata, noise=noise)
        return profile(adata.layers["sme"])

    yield run


def methods(noise: str) -> dict[str, Callable[[Half], Iterator[Callable[[], F32]]]]:
    return {
        "measured counts": measured,
        "section mean": section_mean,
        "plain smoothing": plain_smoothing,
        "SME (as stLearn)": sme,
        "sm.tl.denoise": functools.partial(smeld, noise=noise),
    }


# ---------------------------------------------------------------------------------------------------------- scores


def mixed(rates: F32, mean: F64, share: float) -> F32:
    return np.asarray((1 - share) * rates + share * mean, dtype=np.float32)


def deviance(rates: F32, mean: F64, rest: sparse.csr_matrix, share: float) -> float:
    """Poisson deviance per count at the held-out library sizes."""
    size = np.asarray(rest.sum(axis=1)).ravel()
    row = np.repeat(np.arange(rest.shape[0]), np.diff(rest.indptr))
    expected = ((1 - share) * rates[row, rest.indices].astype(float) + share * mean[rest.indices]) * size[row]
    return float(2 * (rest.data * np.log(rest.data / expected)).sum() / rest.data.sum())


def log_error(rates: F32, rest: sparse.csr_matrix, target: float, reading: str) -> float:
    """Mean squared error of log(1 + counts / library size * target)."""
    size = np.asarray(rest.sum(axis=1)).ravel()
    total = 0.0
    for i in range(rest.shape[0]):
        seen = np.zeros(rest.shape[1])
        some = slice(rest.indptr[i], rest.indptr[i + 1])
        seen[rest.indices[some]] = np.log1p(rest.data[some] / size[i] * target)
        if reading == "logarithm":
            guess = np.log1p(rates[i].astype(float) * target)
        else:
            guess = _expected_log(rates[i].astype(float) * size[i], target / size[i])
        total += float(((seen - guess) ** 2).sum())
    return total / (rest.shape[0] * rest.shape[1])


_MEANS = np.concatenate([[0.0], np.geomspace(1e-3, 60, 160)])
_CHANCE = poisson.pmf(np.arange(130)[None], _MEANS[:, None])


def _expected_log(mean: F64, scale: float) -> F64:
    """E log(1 + scale x) of Poisson counts x, from a table."""
    table = _CHANCE @ np.log1p(np.arange(130) * scale)
    return np.asarray(np.where(mean > _MEANS[-1], np.log1p(scale * mean), np.interp(mean, _MEANS, table)))


def choose(h: Half, rest: sparse.csr_matrix, variants: list[Callable[[], F32]]) -> dict[str, tuple[Any, ...]]:
    """For each score the (variant, share, reading) with the lowest error on the inner split's smaller part."""
    rows = np.unique(np.linspace(0, len(h.size) - 1, MOST_INNER).astype(int))
    rows = rows[np.asarray(rest.sum(axis=1)).ravel()[rows] > 0]
    part, target = rest[rows], float(np.median(np.asarray(rest.sum(axis=1))))
    best: dict[str, tuple[float, tuple[Any, ...]]] = {}
    for v, variant in enumerate(variants):
        rates = variant()[rows]
        tried = [("deviance", deviance(rates, h.mean, part, s), (v, s, "")) for s in SHARES_DEVIANCE]
        for s in SHARES_LOG:
            given = mixed(rates, h.mean, s)
            tried += [("log_error", log_error(given, part, target, r), (v, s, r)) for r in READINGS]
        for name, error, how in tried:
            if name not in best or error < best[name][0]:
                best[name] = (error, how)
    return {name: how for name, (_, how) in best.items()}


def measure_split(adata: Any, graph: Any, dispersion: F64, noise: str, seed: int) -> list[dict[str, Any]]:
    """Errors of every method on one split."""
    from smeld.kernels import split

    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(adata.X, dtype=float)
    train, rest = split.thin(counts, 0.5, dispersion, rng)
    # beta-binomial halves of a count of dispersion phi have dispersion 2 phi; the inner split knows its parts'
    inner_train, inner_rest = split.thin(train, INNER, 2 * dispersion, rng)
    whole, inner = half(train, adata, graph), half(inner_train, adata, graph)
    seen = np.flatnonzero((np.asarray(rest.sum(axis=1)).ravel() > 0) & (whole.size > 0))
    target = float(np.median(np.asarray(rest.sum(axis=1))))
    rows = []
    for name, method in methods(noise).items():
        started = time.perf_counter()
        how = choose(inner, inner_rest, list(method(inner)))
        variants, made = list(method(whole)), {}
        for v in {h[0] for h in how.values()}:
            made[v] = variants[v]()[seen]
        v, share, _ = how["deviance"]
        row: dict[str, Any] = {"split": noise, "method": name, "seed": seed}
        row["deviance"] = deviance(made[v], whole.mean, rest[seen], share)
        v, share, reading = how["log_error"]
        row["log_error"] = log_error(mixed(made[v], whole.mean, share), rest[seen], target, reading)
        rows.append({**row, "how": str(how), "seconds": time.perf_counter() - started})
    return rows


def measure_section(section: Section, seeds: int) -> list[dict[str, Any]]:
    import smeld as sm
    from smeld.kernels import split
    from smeld.kernels.graph import spatial_graph

    warnings.simplefilter("ignore")
    adata = section.read()
    if section.has_image:
        sm.morph.embed(adata, quiet=True)
    counts = sparse.csr_matrix(adata.X)
    spots = np.asarray(counts.sum(axis=1)).ravel() >= LEAST_IN_SPOT
    genes = np.asarray(counts.sum(axis=0)).ravel() >= LEAST_IN_GENE
    adata = adata[spots, genes].copy()
    graph = spatial_graph(np.asarray(adata.obsm["spatial_um"], dtype=float))
    local = split.local_dispersion(sparse.csr_matrix(adata.X, dtype=float), graph.connectivities)
    found = []
    for seed in range(min(seeds, MOST_SEEDS)):
        for noise, dispersion in (("poisson", np.zeros_like(local)), ("overdispersed", local)):
            found += measure_split(adata, graph, dispersion, noise, seed)
    return found


def rows_of(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, with the ratio to the measured counts."""
    keys = dict.fromkeys((f["split"], f["method"]) for f in found)
    means = {
        key: {e: float(np.mean([f[e] for f in found if (f["split"], f["method"]) == key])) for e in ERRORS}
        for key in keys
    }
    rows = []
    for (noise, method), mean in means.items():
        raw = means[noise, "measured counts"]
        rows.append(
            {
                "section": name,
                "split": "binomial" if noise == "poisson" else "beta-binomial",
                "method": method,
                "seeds": len({f["seed"] for f in found}),
                "deviance per count": mean["deviance"],
                "of measured": mean["deviance"] / raw["deviance"],
                "squared log error": mean["log_error"],
                "of measured's": mean["log_error"] / raw["log_error"],
            }
        )
    return rows


ERRORS = ("deviance", "log_error")


def measure(names: list[str], *, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Both errors by section, split and method."""
    rows: list[dict[str, Any]] = []
    for name in names:
        if name not in REAL or SECTIONS[name].absent:
            continue
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--one", name, "--seeds", str(seeds)]
            found, _ = _measure.run_json("denoise.py", arguments, Path(folder), threads=1, timeout=3600)
        rows += rows_of(name, found)
    return {"denoise": rows}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", required=True, help="name of the section")
    parser.add_argument("--seeds", type=int, default=MOST_SEEDS)
    options = parser.parse_args(argv)
    json.dump(measure_section(SECTIONS[options.one], options.seeds), sys.stdout)


if __name__ == "__main__":
    main()
