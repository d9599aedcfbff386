"""Other tools, each in a Python environment of its own, on the same sections and under the same protocol."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _measure
import _scores
from _datasets import SECTIONS

from peers import _envs

#: sections on which every peer is measured; the quick ones are measured on all real sections
FIRST = ("dlpfc_151673", "dlpfc_151674")
LIMIT_S = 3600


@dataclass(frozen=True)
class Peer:
    """``seeds`` at most that many (None: as many as asked); ``note`` how it was run."""

    name: str
    script: str
    env: str
    note: str
    seeds: int | None = None
    sections: tuple[str, ...] | None = FIRST
    options: tuple[str, ...] = field(default=())


PEERS = (
    Peer(
        "scanpy Leiden",
        "peer_leiden.py",
        "scanpy",
        "expression only; resolution searched for K",
        sections=None,
    ),
    Peer(
        "squidpy joint graph",
        "peer_leiden.py",
        "scanpy",
        "Leiden on .8 expression + .2 spatial graph; resolution searched for K",
        sections=None,
        options=("--joint",),
    ),
    Peer(
        "SpatialLeiden",
        "peer_spatialleiden.py",
        "scanpy",
        "two layers, its own search for both resolutions",
        seeds=5,
    ),
    Peer(
        "stLearn, S x E",
        "peer_stlearn.py",
        "stlearn",
        "SME with weights_matrix_pd_gd, KMeans",
        seeds=5,
    ),
    Peer(
        "stLearn, S",
        "peer_stlearn.py",
        "stlearn",
        "SME with physical_distance, KMeans",
        seeds=5,
        options=("--weights", "physical_distance"),
    ),
    Peer(
        "stLearn, S x M x E, random CNN",
        "peer_stlearn.py",
        "stlearn",
        "SME with weights_matrix_all on random features, for its ResNet weights are a download; KMeans",
        seeds=5,
        options=("--weights", "weights_matrix_all"),
    ),
    Peer(
        "CellCharter",
        "peer_cellcharter.py",
        "cellcharter",
        "PCA in place of scVI, 4 layers, its mixture",
        seeds=10,
    ),
    Peer("SpaGCN", "peer_spagcn.py", "spagcn", "without histology, refined as its guide does", seeds=3),
    Peer(
        "GraphST",
        "peer_graphst.py",
        "graphst",
        "600 epochs on CPU; tied mixture (mclust's EEE model without R), refined with radius 50",
        seeds=2,
    ),
)


def measure(names: list[str], *, seeds: int, only: str = "") -> dict[str, list[dict[str, Any]]]:
    """ARI over seeds, median time of a run, peak memory; or why there is no figure."""
    rows: list[dict[str, Any]] = []
    versions: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        inputs = _inputs(names, Path(folder))
        for peer in PEERS:
            if only not in peer.name:
                continue
            env = _envs.ready(peer.env)
            for section, (path, k, truth) in inputs.items():
                if peer.sections is not None and section not in peer.sections:
                    continue
                print(f"  {peer.name}: {section}", file=sys.stderr, flush=True)
                row = _one(peer, env, path, k=k, truth=truth, seeds=min(seeds, peer.seeds or seeds))
                versions[peer.name] = row.pop("versions", versions.get(peer.name, {}))
                rows.append({"section": section, "method": peer.name, **row})
    installed = [
        {"method": name, "versions": ", ".join(f"{k} {v}" for k, v in found.items()) or "-"}
        for name, found in versions.items()
    ]
    notes = [{"method": p.name, "how": p.note} for p in PEERS if only in p.name]
    return {"peers": rows, "peer_versions": installed, "peer_notes": notes}


def merged(
    old: dict[str, list[dict[str, Any]]], new: dict[str, list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    """New rows in place of old ones of the same tool and section; the others stay."""
    found = {}
    for key, rows in new.items():
        done = {(r["method"], r.get("section")) for r in rows}
        kept = [r for r in old.get(key, []) if (r["method"], r.get("section")) not in done]
        found[key] = sorted([*kept, *rows], key=lambda r: [p.name for p in PEERS].index(r["method"]))
    return found


def _inputs(names: list[str], folder: Path) -> dict[str, tuple[Path, int, list[str]]]:
    """Each section as an npz, written by a child so that this process stays small; K; labels ("" unscored)."""
    found = {}
    for name in names:
        if SECTIONS[name].absent:
            continue
        path = folder / f"{name}.npz"
        facts, _ = _measure.run_json("_write_section.py", [name, str(path)], folder)
        found[name] = (path, facts["k"], facts["truth"])
    return found


def _one(peer: Peer, env: _envs.Ready, path: Path, *, k: int, truth: list[str], seeds: int) -> dict[str, Any]:
    if env.python is None:
        return {"note": f"not measured: {env.reason}"}
    out = path.with_suffix(".out.json")
    script = str(_measure.HERE / "peers" / peer.script)
    command = [str(env.python), script, "--input", str(path), "--k", str(k), "--out", str(out)]
    command += ["--seeds", str(seeds), *peer.options]
    try:
        run = _measure.run(command, path.parent, threads=1, timeout=LIMIT_S)
    except _measure.Failed as error:
        return {"note": f"failed: {error}"}
    found = json.loads(out.read_text())
    keep = [i for i, label in enumerate(truth) if label]
    wanted = [truth[i] for i in keep]
    aris = [_scores.ari(wanted, [r["labels"][i] for i in keep]) for r in found["runs"]]
    numbers = {len(set(r["labels"])) for r in found["runs"]}
    note = "" if numbers == {k} else f"found {', '.join(map(str, sorted(numbers)))} domains, {k} were asked"
    return {
        "seeds": len(aris),
        **_scores.summary(aris),
        "seconds": _scores.summary([r["seconds"] for r in found["runs"]])["median"],
        "peak MB": run.peak_mb,
        "note": note,
        "versions": found["versions"],
    }
