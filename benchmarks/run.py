"""Measure, store the figures, write the page: ``python benchmarks/run.py --out docs/benchmarks.md``.

``--only NAME,...`` measures some of them and keeps the others with the dates they were measured on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import _measure
import _page
import across
import annotate
import celltype_interactions
import deconvolve
import denoise
import denoise_vae
import domains
import encoders
import gnn
import gpu
import interactions
import large
import lr_peers
import lr_platforms
import lr_real
import lr_scale
import main_job
import matched
import niches
import peers
import platform_pair
import scale
import simple_methods
import simulated_image
import sme_normalise
import trajectory
import trajectory_real
import trajectory_scale
import trajectory_settings
import transition_genes
import vae
from _datasets import REAL

import viewer

#: what a measure returns: tables by key, each a list of rows
Tables = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Asked:
    """The options that measures look at."""

    seeds: int
    slow: bool
    sections: list[str]
    peer: str = ""


def _domains(asked: Asked) -> Tables:
    results = domains.measure(asked.sections, seeds=asked.seeds)
    return {
        "domains": domains.rows(results),
        "recall": domains.recall_rows(results),
        "calibration": domains.calibration_rows(results),
        "reliability": domains.reliability_rows(results),
    }


MEASURES: dict[str, Callable[[Asked], Tables]] = {
    "import": lambda asked: {"import": main_job.measure_import()},
    "main_job": lambda asked: {"main_job": main_job.measure_main_job()},
    "domains": _domains,
    "across": lambda asked: {"across": across.measure(seeds=asked.seeds)},
    "denoise": lambda asked: denoise.measure([s for s in asked.sections if s in REAL], seeds=asked.seeds),
    "denoise_vae": lambda asked: denoise_vae.measure(seeds=asked.seeds),
    "simple_methods": lambda asked: simple_methods.measure([s for s in asked.sections if s in REAL], seeds=asked.seeds),
    "simulated_image": lambda asked: {"simulated_image": simulated_image.measure(runs=2 * asked.seeds)},
    "peers": lambda asked: peers.measure([s for s in asked.sections if s in REAL], seeds=asked.seeds, only=asked.peer),
    "sme_normalise": lambda asked: {"sme_normalise": sme_normalise.measure()},
    "interactions": lambda asked: interactions.measure(pairs=100 * asked.seeds),
    "matched": lambda asked: matched.measure(),
    "celltype_interactions": lambda asked: celltype_interactions.measure(runs=asked.seeds),
    "lr_real": lambda asked: lr_real.measure(),
    "lr_platforms": lambda asked: lr_platforms.measure(),
    "platform_pair": lambda asked: platform_pair.measure(),
    "lr_peers": lambda asked: lr_peers.measure(),
    "lr_scale": lambda asked: lr_scale.measure(slow=asked.slow),
    "encoders": lambda asked: encoders.measure(seeds=5),
    "gnn": lambda asked: gnn.measure(seeds=min(10, asked.seeds)),
    "gpu": lambda asked: {"gpu": gpu.measure(slow=asked.slow)},
    "trajectory": lambda asked: trajectory.measure(runs=10),
    "trajectory_real": lambda asked: trajectory_real.measure(),
    "trajectory_settings": lambda asked: trajectory_settings.measure(),
    "transition_genes": lambda asked: transition_genes.measure(),
    "trajectory_scale": lambda asked: trajectory_scale.measure(slow=asked.slow),
    "vae": lambda asked: vae.measure(seeds=asked.seeds),
    "annotate": lambda asked: annotate.measure(seeds=min(5, asked.seeds)),
    "deconvolve": lambda asked: (
        deconvolve.measure(seeds=min(3, asked.seeds))
        | ({"deconvolve_speed": deconvolve.measure_speed((100_000, 1_000_000))} if asked.slow else {})
    ),
    "niches": lambda asked: niches.measure(seeds=asked.seeds, slow=asked.slow),
    "viewer": lambda asked: {"viewer": viewer.measure()},
    "scale": lambda asked: {"scale": scale.measure(slow=asked.slow)},
    "large": lambda asked: {"large": large.measure(slow=asked.slow)},
}


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks.md"), help="the page to write")
    parser.add_argument("--only", default="", help=f"names with commas between, of {', '.join(MEASURES)}")
    parser.add_argument("--seeds", type=int, default=domains.SEEDS, help="seeds 0 .. SEEDS-1 [20]")
    parser.add_argument("--sections", default="all", help="sections of `domains`, `simple_methods` and `peers` [all]")
    parser.add_argument("--peer", default="", help="only the peers with this in their name; the others' rows stay")
    parser.add_argument("--slow", action="store_true", help="also what takes many minutes (1M cells)")
    parser.add_argument("--page-only", action="store_true", help="write the page again from stored figures")
    return parser.parse_args(argv)


def _names(only: str) -> list[str]:
    names = [n.strip() for n in only.split(",") if n.strip()] or list(MEASURES)
    unknown = [n for n in names if n not in MEASURES]
    if unknown:
        raise SystemExit(f"no measure {', '.join(unknown)}; there are: {', '.join(MEASURES)}")
    return names


def _command(argv: list[str], out: Path) -> str:
    """What was typed, but for the folder of the page: it may lie anywhere."""
    words = [word.replace(str(out), f"docs/{out.name}") for word in argv]
    return _measure.without_paths(" ".join(["python", "benchmarks/run.py", *words]))


def main(argv: list[str] | None = None) -> None:
    options = _options(argv)
    store = options.out.with_suffix(".json")
    stored: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    asked = Asked(options.seeds, options.slow, domains.chosen(options.sections), options.peer)
    for name in [] if options.page_only else _names(options.only):
        started = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        tables = MEASURES[name](asked)
        if name == "peers" and name in stored:
            tables = peers.merged(stored[name]["tables"], tables)
        stored[name] = {
            "tables": tables,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "seconds": time.perf_counter() - started,
            "command": _command(sys.argv[1:] if argv is None else argv, options.out),
            "machine": _measure.machine(),
            "versions": _measure.versions(*_page.VERSIONED),
        }
        _page.store(store, stored)
        _page.write(options.out, stored, order=list(MEASURES))
        print(f"{name}: {stored[name]['seconds']:.0f} s", file=sys.stderr, flush=True)
    _page.write(options.out, stored, order=list(MEASURES))


if __name__ == "__main__":
    main()
