"""Environments of peers: built on demand with plain pip under .bench-envs/, kept between runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import _measure

#: seconds that building one environment may take
LIMIT_S = 1800


@dataclass(frozen=True)
class Env:
    """``python`` its minor version; ``bare`` packages installed without what they require."""

    python: str
    packages: tuple[str, ...]
    bare: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """``python`` of the environment, or None with the reason."""

    python: Path | None
    reason: str = ""


#: torch is pinned because other versions bring gigabytes of libraries for graphics cards
TORCH = "torch==2.13.0"
SCANPY = "scanpy==1.11.5"
ENVS = {
    "scanpy": Env("3.11", (SCANPY, "igraph", "leidenalg", "spatialleiden==0.4.0", "squidpy==1.8.2")),
    "cellcharter": Env("3.11", ("cellcharter==0.3.7", TORCH)),
    "spagcn": Env("3.11", ("SpaGCN==1.2.7", TORCH, SCANPY, "setuptools<81")),  # it imports pkg_resources
    "graphst": Env("3.11", ("GraphST==1.1.1", TORCH, SCANPY, "POT", "scikit-misc", "tqdm")),
    "liana": Env("3.11", ("liana==1.10.0", SCANPY)),
    "tangram": Env("3.11", ("tangram-sc", TORCH, SCANPY)),
    "scvi": Env("3.11", ("scvi-tools==1.4.2", TORCH, SCANPY)),
    "rctd": Env("3.11", ("rctd-py==0.4.0", TORCH, SCANPY)),
    "flashdeconv": Env("3.11", ("flashdeconv==0.2.0", SCANPY)),
    "cell2location": Env("3.11", ("cell2location==0.1.5", "pyro-ppl==1.9.1", TORCH, SCANPY)),  # 1.9.2 lacks a name
    # stLearn 1.4.1 asks for Python 3.12 and torch; torch only runs its CNN, which is not measured here
    "stlearn": Env(
        "3.12",
        (
            "anndata>=0.12", "bokeh>=3.7,<4", "click>=8.2,<9", "igraph>=1", "leidenalg>=0.11", "numba>=0.58.1",
            "numpy>=2.4", "pillow>=12,<13", "scanpy>=1.12", "scikit-image>=0.22", "pandas>=2.3", "imageio>=2.37,<3",
            "scipy>=1.17,<2", "scikit-learn>=1.8,<2", "spatialdata>=0.7", "spatialdata-io>=0.6",
            "spatialdata-plot>=0.3", "geopandas>=1,<2", "shapely>=2,<3", "dask>=2024.11.2",
        ),
        bare=("stlearn==1.4.1",),
    ),
}  # fmt: skip


@cache
def ready(name: str) -> Ready:
    """The environment, built if it is not there; a failed build is removed and reported."""
    env, folder = ENVS[name], _measure.ENVS / name
    done, python = folder / ".done", folder / "bin" / "python"
    if python.exists() and done.exists() and done.read_text() == repr(env):
        return Ready(python)
    base = find_python(env.python)
    if base is None:
        return Ready(None, f"Python {env.python} was not found (set SMELD_PY{env.python.replace('.', '')})")
    shutil.rmtree(folder, ignore_errors=True)
    print(f"  building the environment {name}", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    steps = [[str(base), "-m", "venv", str(folder)], [*pip, *env.packages]]
    if env.bare:
        steps.append([*pip, "--no-deps", *env.bare])
    for step in steps:
        reason = _failure(step)
        if reason:
            shutil.rmtree(folder, ignore_errors=True)
            return Ready(None, f"could not be installed: {reason}")
    done.write_text(repr(env))
    return Ready(python)


def _failure(step: list[str]) -> str:
    """Runs a step; the last line of its complaint, or "" if it went well."""
    try:
        done = subprocess.run(step, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"took more than {LIMIT_S} s"
    except OSError as error:
        return str(error)
    return _measure.last_line(done.stderr) or f"exit code {done.returncode}" if done.returncode else ""


def find_python(minor: str) -> Path | None:
    """A Python of this minor version that runs: SMELD_PY311 or SMELD_PY312, this one, the path, pyenv's."""
    named = os.environ.get(f"SMELD_PY{minor.replace('.', '')}")
    if named:
        candidates = [Path(named)]
    else:
        candidates = [Path(sys.executable).resolve()]
        on_path = shutil.which(f"python{minor}")
        candidates += [Path(on_path)] if on_path else []
        pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        candidates += sorted(pyenv.glob(f"{minor}*/bin/python{minor}"), reverse=True)
    return next((c for c in candidates if _is(c, minor)), None)


def _is(python: Path, minor: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and found.stdout.strip() == minor
