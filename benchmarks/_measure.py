"""Run a command in a fresh process and measure wall time and peak memory; facts about this machine."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVS = Path(os.environ.get("SMELD_BENCH_ENVS", ROOT / ".bench-envs"))

#: The kernel counts the memory of the process that forks into its child's peak until the child has replaced itself,
#: so a small process, not this one, starts what is measured. The child's children count once they have ended.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[2:])
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
unit = 1 if sys.platform == "darwin" else 1024
facts = {"seconds": seconds, "peak_bytes": usage.ru_maxrss * unit, "code": os.waitstatus_to_exitcode(status)}
open(sys.argv[1], "w").write(json.dumps(facts))
"""


@dataclass(frozen=True)
class Run:
    """``seconds`` of wall time, ``peak_mb`` the largest resident memory of one process (10^6 bytes), output."""

    seconds: float
    peak_mb: float
    stdout: str
    stderr: str


class Failed(RuntimeError):
    """A measured command that did not end well; the message is its last line."""


def run(command: list[str], scratch: Path, *, threads: int | None = None, timeout: float | None = None) -> Run:
    """Run ``command``; ``threads`` limits the numerical libraries' threads (None: their default)."""
    facts_file = scratch / "facts.json"
    facts_file.unlink(missing_ok=True)
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(facts_file), *command]
    process = subprocess.Popen(
        launcher,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(threads),
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        os.killpg(process.pid, 9)
        process.communicate()
        raise Failed(f"stopped after {timeout:.0f} s") from error
    if not facts_file.exists():
        raise Failed(last_line(err) or "the command could not be started")
    facts = json.loads(facts_file.read_text())
    if facts["code"]:
        raise Failed(f"exit code {facts['code']}: {last_line(err)}")
    return Run(facts["seconds"], facts["peak_bytes"] / 1e6, out, err)


def run_json(script: str, arguments: list[str], scratch: Path, **options: Any) -> tuple[Any, Run]:
    """Run one of the scripts of this folder in this Python; what it printed, as JSON."""
    done = run([sys.executable, str(HERE / script), *arguments], scratch, **options)
    return json.loads(done.stdout), done


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return without_paths(lines[-1])[:300] if lines else ""


def without_paths(text: str) -> str:
    """Folders of this machine taken out of a message."""
    for folder in (str(ENVS), str(ROOT), str(Path.home()), str(ROOT.parent)):
        text = text.replace(folder + "/", "")
    return text


def environment(threads: int | None) -> dict[str, str]:
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    if threads is not None:
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB"):
            env[f"{name}_NUM_THREADS" if name != "VECLIB" else "VECLIB_MAXIMUM_THREADS"] = str(threads)
    return env


def machine() -> str:
    """Cores, memory, system: nothing that names the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB memory, {platform.system()} {platform.machine()}"


def revision() -> str:
    """The commit of this repository, with "+" where files differ from it; "" without git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=7", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions(*packages: str) -> dict[str, str]:
    found = {"commit": revision() or "unknown", "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
