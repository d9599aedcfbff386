"""What a run was made of and what came out, on disk: hashes, versions, and ``run.toml``."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smeld import _check

if TYPE_CHECKING:
    from smeld._run_config import RunConfig

RUN = "run.toml"
#: what every zarr store has at its root
ZARR_MARKS = ("zarr.json", ".zgroup")
#: packages whose version can change a result
VERSIONED = (
    "numpy",
    "scipy",
    "pandas",
    "numba",
    "scikit-learn",
    "scikit-image",
    "anndata",
    "scanpy",
    "pillow",
    "tifffile",
    "torch",
    "torch-geometric",
    "timm",
    "transformers",
)
#: by-products of Space Ranger that no reader opens and that may have tens of gigabytes: not hashed
NOT_INPUT = (".bam", ".bai", ".csi", ".cloupe", ".fastq.gz", "molecule_info.h5")
#: what of an encoder's folder decides its features
WEIGHTS = ("*.safetensors", "*.json")


def file_hash(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    with path.open("rb") as handle:
        return "sha256:" + hashlib.file_digest(handle, "sha256").hexdigest()


def input_hashes(config: RunConfig) -> dict[str, str]:
    """Hashes of the files a section consists of, by path relative to it; hidden files and smeld's results left out."""
    root = Path(config.path).expanduser().resolve()
    found = {root.name: root} if root.is_file() else {}
    if root.is_dir():
        found = {p.relative_to(root).as_posix(): p for p in _section_files(root)}
    if config.image:
        found["--image"] = Path(config.image).expanduser().resolve()
    if config.image_alignment:
        found["--image-alignment"] = Path(config.image_alignment).expanduser().resolve()
    if config.weights:
        found |= _weight_files(Path(config.weights))
    return {name: file_hash(path) for name, path in sorted(found.items())}


def _weight_files(given: Path) -> dict[str, Path]:
    """The file of weights, or those of the folder that count."""
    if not given.is_dir():
        return {"--weights": given}
    return {f"--weights/{p.name}": p for pattern in WEIGHTS for p in given.glob(pattern)}


def _section_files(root: Path, depth: int = 3) -> list[Path]:
    """Files down to ``depth`` levels, of zarr stores all; a folder with a run.toml is an earlier result, not input."""
    if any((root / name).is_file() for name in ZARR_MARKS):
        return sorted(p for p in root.rglob("*") if p.is_file())
    files: list[Path] = []
    for entry in sorted(root.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_file():
            if not entry.name.endswith(NOT_INPUT):
                files.append(entry)
        elif entry.is_dir() and depth > 1 and not (entry / RUN).is_file():
            files.extend(_section_files(entry, depth - 1))
    return files


def versions() -> dict[str, str]:
    """Versions of smeld, Python and the packages that can change a result."""
    import platform

    from smeld import __version__

    found = {"smeld": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of scalars as TOML. JSON's strings and finite numbers are TOML's too."""
    lines = ["# What made these results."]
    if "config" in sections:
        lines[0] += " Repeat the run with: smeld replay run.toml"
    for name, content in sections.items():
        lines += ["", f"[{name}]"]
        lines += [f"{_toml_value(key)} = {_toml_value(value)}" for key, value in content.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        # file names may hold bytes that are no Unicode
        value = value.encode("utf-8", "backslashreplace").decode()
    # not ASCII only: JSON writes an emoji as two escapes, which TOML refuses. DEL is the reverse
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def load_run(path: Path) -> dict[str, Any]:
    """The record of a run, checked for its parts."""
    cure = "give the run.toml that smeld run wrote"
    if not path.is_file():
        raise _check.problem(f"{path} is missing", cure=cure)
    try:
        record = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _check.problem(f"{path.name} is not TOML", found=str(error)[:120], cure=cure) from error
    for section in ("config", "versions", "inputs", "results"):
        if not isinstance(record.get(section), dict):
            raise _check.problem(f"{path.name} has no [{section}]", found=_check.listed(record), cure=cure)
    return record


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names whose value differs or that only one side has, each with both values."""
    lines = []
    for name in sorted({*before, *after}):
        old, new = before.get(name, "absent"), after.get(name, "absent")
        if old != new:
            lines.append(
                name if str(old).startswith("sha256:") and str(new).startswith("sha256:") else f"{name}: {old} -> {new}"
            )
    return lines
