"""Orders along simulated tissues against their truth, beside scanpy's DPT, stLearn's PSTS and plain distance.

A case is a tissue of its own seed: linear (``layered``), branched or folded, sparse or dense, at two depths of counts,
some as single cells, some with twice the dispersion. The root of ``sm.tl.trajectory`` is the found domain that holds
most of the earliest 5 %; peers, and plain distance, start from the earliest cell itself, and stLearn is given the true
domains. Labels enter in no other way.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _measure
import numpy as np
import pandas as pd
from peers import _envs
from scipy.stats import kendalltau, rankdata

TISSUES = {"linear": "layered", "branched": "branched", "folded": "folded"}
N_GENES, N_DOMAINS, N_SHUFFLED = 600, 7, 4
PEERS = {"DPT": ("scanpy", "peer_dpt.py", False), "PSTS": ("stlearn", "peer_stlearn_psts.py", True)}


@dataclass(frozen=True)
class Case:
    """A tissue and how it is seen."""

    tissue: str
    seed: int

    @property
    def options(self) -> dict[str, Any]:
        """Sparse or dense, shallow or deep by turns; the last two of ten are cells, and of twice the dispersion."""
        cells, dense, shallow = self.seed % 10 >= 8, bool(self.seed & 1), bool(self.seed & 2)
        n_obs = 3000 if cells else (4000 if dense else 1500)
        depth = (360.0 if cells else 900.0) * (0.4 if shallow else 1.0)
        return {
            "n_obs": n_obs,
            "n_genes": N_GENES,
            "seed": self.seed,
            "tissue": TISSUES[self.tissue],
            "layout": "cells" if cells else "lattice",
            "mean_counts": depth,
            "dispersion": 1.0 if self.seed % 10 in (4, 7, 9) else 0.5,
            "image": False,
        }


def tau(order: np.ndarray, truth: np.ndarray) -> float:
    known = np.isfinite(order)
    return float(kendalltau(order[known], truth[known])[0])


def root_label(adata: Any, truth: np.ndarray) -> str:
    first = np.argsort(truth)[: max(10, len(truth) // 20)]
    return str(adata.obs["domain"].iloc[first].astype(str).mode().iloc[0])


def _edges(nodes: pd.DataFrame) -> list[tuple[str, str]]:
    grown = nodes[(nodes["level"] == "group") & (nodes["parent"] != "none")]
    return list(zip(grown["parent"], grown["node"]))


def _f1(found: list[tuple[str, str]], adata: Any) -> float:
    """Directed edges against the true tree; two that join the same pair of true domains are one right and one wrong."""
    tree = adata.uns["truth_domain_tree"]
    true = {(p, d) for d, p in zip(tree["domain"], tree["parent"]) if p != "none"}
    return 2 * len(set(found) & true) / max(len(true) + len(found), 1)


def _shuffled(adata: Any, root: np.ndarray) -> dict[str, Any]:
    """The same positions and root, expression dealt out at random."""
    import smeld as sm

    other = adata[:, :].copy()
    other.X = adata.X[np.random.default_rng(0).permutation(adata.n_obs)]
    for store in (other.obsm, other.obsp, other.varm):
        for key in [k for k in store if not k.startswith(("spatial", "truth")) or k.startswith("spatial_conn")]:
            del store[key]
    other.obsp.clear()
    other.uns.pop("smeld", None)
    sm.fuse(other)
    found = sm.tl.trajectory(other, root, groups="truth_domain")
    truth = other.obs["truth_pseudotime"].to_numpy()
    xy = other.obsm["spatial_um"]
    away = np.min(np.linalg.norm(xy[:, None] - xy[root][None], axis=2), axis=1)
    return {
        "shuffled": tau(found.pseudotime.to_numpy(), truth),
        "distance from the same root": tau(away, truth),
        "said to help": float(found.expression_helps),
    }


def one(case: Case, folder: Path) -> dict[str, Any]:
    """Figures of one case; the section is written for peers."""
    import smeld as sm

    warnings.simplefilter("ignore")
    adata = sm.datasets.simulate(**case.options)
    truth = adata.obs["truth_pseudotime"].to_numpy()
    name = f"{case.tissue}_{case.seed}"
    adata.write_h5ad(folder / f"{name}.h5ad")
    first = int(np.argmin(truth))
    (folder / f"{name}.root").write_text(str(adata.obs_names[first]))
    sm.fuse(adata)
    sm.tl.domains(adata, N_DOMAINS)
    label = root_label(adata, truth)
    found = sm.tl.trajectory(adata, f"label:{label}")
    order, scaled = found.pseudotime.to_numpy(), (rankdata(truth) - 0.5) / len(truth)
    inside = (scaled >= found.low.to_numpy()) & (scaled <= found.high.to_numpy())
    xy = adata.obsm["spatial_um"]
    called = pd.crosstab(adata.obs["domain"].astype(str), adata.obs["truth_domain"].astype(str)).idxmax(axis=1)
    ours = [(called[a], called[b]) for a, b in _edges(found.nodes)]
    root = (adata.obs["domain"].astype(str) == label).to_numpy()
    row: dict[str, Any] = {
        "case": name,
        "tissue": case.tissue,
        "tau": tau(order, truth),
        "distance": tau(np.linalg.norm(xy - xy[first], axis=1), truth),
        "coverage": float(inside.mean()),
        "width": float((found.high - found.low).mean()),
        "expression helps": float(found.expression_helps),
        "F1, found domains": _f1(ours, adata),
    }
    given = sm.tl.trajectory(adata, f"label:{_true_root(adata)}", groups="truth_domain", key_added="given")
    row["F1, true domains"] = _f1(_edges(given.nodes), adata)
    if case.seed < N_SHUFFLED:
        row |= _shuffled(adata, root)
    return row


def _true_root(adata: Any) -> str:
    tree = adata.uns["truth_domain_tree"]
    return str(tree.loc[tree["parent"] == "none", "domain"].iloc[0])


def _peer(tool: str, folder: Path, rows: list[dict[str, Any]]) -> None:
    """Kendall's tau of a peer on every section, NaN where it failed."""
    env_name, script, grouped = PEERS[tool]
    env = _envs.ready(env_name)
    for row in rows:
        if env.python is None:
            row[tool] = float("nan")
            continue
        path, out = folder / f"{row['case']}.h5ad", folder / f"{row['case']}.{tool}.json"
        given = [str(path), "--root", (folder / f"{row['case']}.root").read_text(), "--out", str(out)]
        given += ["--groups", "truth_domain"] if grouped else []
        try:
            script_path = str(_measure.HERE / "peers" / script)
            _measure.run([str(env.python), script_path, *given], folder, timeout=900)
            found = json.loads(out.read_text())
            order = np.array([np.nan if v is None else v for v in found["pseudotime"]], dtype=float)
            row[tool] = tau(order, _truth(path))
        except _measure.Failed:
            row[tool] = float("nan")


def _truth(path: Path) -> np.ndarray:
    import anndata as ad

    return ad.read_h5ad(path, backed="r").obs["truth_pseudotime"].to_numpy()


def measure(*, runs: int = 10, with_peers: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Seeds 0 .. ``runs`` - 1 of each tissue."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tissue in TISSUES:
            rows += [one(Case(tissue, seed), folder) for seed in range(runs)]
        for tool in PEERS if with_peers else ():
            _peer(tool, folder, rows)
    table = pd.DataFrame(rows)
    summary = []
    for tissue, part in table.groupby("tissue", sort=False):
        numbers = part.drop(columns=["case", "tissue"]).astype(float)
        lowest = {"lowest tau": float(part["tau"].min())}
        summary.append({"tissue": tissue, "cases": len(part), **numbers.mean().to_dict(), **lowest})
    return {"trajectory": summary, "trajectory_cases": table.to_dict("records")}


if __name__ == "__main__":
    print(json.dumps(measure(runs=1, with_peers=False), indent=1))
