"""Import, and the main job from the command line, as a user meets them."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import _measure
import _scores
from _datasets import FOLDER

IMPORTS = {
    "python -c pass": "pass",
    "import smeld": "import smeld",
    "import scanpy": "import scanpy",
    "import smeld, every public name": "import smeld; [getattr(smeld, name) for name in smeld.__all__]",
}
JOBS: dict[str, tuple[str | None, list[str]]] = {
    "smeld run, DLPFC 151673": ("visium_dlpfc_151673", ["--n-domains", "7"]),
    "smeld run, her2st A1": ("her2st/A1", ["--image-scale", "0.2876"]),
    "smeld demo (4,000 spots)": (None, []),
}


def measure_import(*, repeats: int = 5) -> list[dict[str, Any]]:
    """Fresh interpreters, in turn; the first round only fills the file cache."""
    found: dict[str, list[_measure.Run]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            for name, code in IMPORTS.items():
                found[name].append(_measure.run([sys.executable, "-c", code], Path(folder)))
    median = {name: _scores.summary([r.seconds for r in runs[1:]])["median"] for name, runs in found.items()}
    return [
        {
            "command": name,
            "seconds": median[name],
            "peak MB": max(r.peak_mb for r in runs),
            "times import smeld": median[name] / median["import smeld"],
            "repeats": repeats,
        }
        for name, runs in found.items()
    ]


def measure_main_job() -> list[dict[str, Any]]:
    """``smeld run`` and ``smeld demo`` with the default number of threads, results written and thrown away."""
    smeld = str(Path(sys.executable).with_name("smeld"))
    return [_job(smeld, name, place, options) for name, (place, options) in JOBS.items()]


def _job(smeld: str, name: str, place: str | None, options: list[str]) -> dict[str, Any]:
    if place is not None and not (FOLDER / place).exists():
        return {"job": name, "note": "not measured: the section is not here"}
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", str(Path(folder) / "results")]
        command = [smeld, "demo", *out] if place is None else [smeld, "run", str(FOLDER / place), *options, *out]
        try:
            first = _measure.run(command, Path(folder), timeout=1200)
        except _measure.Failed as error:
            return {"job": name, "note": f"failed: {error}"}
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    return {"job": name, "seconds": first.seconds, "peak MB": first.peak_mb, "results, MB": size / 1e6}
