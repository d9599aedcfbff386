"""Where the weights of an encoder lie: a folder that was named, one of a collection, the hub's cache; never the network
unless it was asked for. Only ``.safetensors`` are read: files of pickled Python (``.bin``, ``.pth``) can run code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smeld import _check

#: folder with one folder of weights per encoder
FOLDER_VARIABLE = "SMELD_WEIGHTS"
#: set to 1: weights that are missing may be fetched
DOWNLOAD_VARIABLE = "SMELD_DOWNLOAD"
#: what of a repository is of use
WANTED = ("*.json", "*.safetensors")
WITHOUT = "'texture' and 'self' need no weights"


@dataclass(frozen=True)
class Source:
    """Whose weights: the encoder's ``name``, the hub's ``repo``, and what stands between it and a user."""

    name: str
    repo: str
    license: str = ""
    gated: bool = False

    @property
    def terms(self) -> str:
        known = f", licence {self.license}" if self.license else ""
        return f"{self.repo}{known}{', gated' if self.gated else ''}"


def locate(source: Source, given: Path | None, *, download: bool) -> Path:
    """The folder with the weights of ``source``, or an ``InputError`` that says how to get them."""
    if given is not None:
        return _checked(given, source)
    collection = os.environ.get(FOLDER_VARIABLE)
    if collection and (Path(collection).expanduser() / source.name).is_dir():
        return _checked(Path(collection).expanduser() / source.name, source)
    return _checked(
        _from_hub(source, download=download or os.environ.get(DOWNLOAD_VARIABLE, "") in ("1", "true")), source
    )


def _from_hub(source: Source, *, download: bool) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.repo, allow_patterns=list(WANTED), local_files_only=not download))
    except Exception as error:  # of many kinds, from several packages; all mean: not to be had
        found = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}" if download else _where(source)
        raise _missing(source, found) from error


def _where(source: Source) -> str:
    collection = os.environ.get(FOLDER_VARIABLE)
    place = f"no {source.name} in ${FOLDER_VARIABLE}" if collection else f"${FOLDER_VARIABLE} not set"
    return f"{place}, and nothing of {source.repo} in the hub's cache"


def _missing(source: Source, found: str) -> _check.InputError:
    login = "accept its conditions on the hub, log in with `hf auth login`, then " if source.gated else ""
    return _check.problem(
        f"the weights of encoder {source.name!r} are not here (hub: {source.terms})",
        found=found,
        cure=f"{login}download=True or {DOWNLOAD_VARIABLE}=1, or weights=FOLDER with config.json and "
        f"model.safetensors; {WITHOUT}",
    )


def _checked(folder: Path, source: Source) -> Path:
    """``folder``, if it holds weights that can be read safely."""
    if not folder.is_dir():
        raise _check.problem(
            f"weights of encoder {source.name!r}: {folder.name} is no folder",
            found="a file" if folder.exists() else "nothing there",
            cure=f"give the folder that holds config.json and model.safetensors of {source.repo}",
        )
    if not weight_files(folder):
        names = sorted(p.name for p in folder.iterdir())
        pickled = [n for n in names if n.endswith((".bin", ".pth", ".pt", ".ckpt"))]
        advice = (
            "convert them once, on a machine where you trust the file (docs/morphology.md shows how)"
            if pickled
            else f"put model.safetensors of {source.repo} there"
        )
        raise _check.problem(
            f"weights of encoder {source.name!r}: no .safetensors in {folder.name}"
            + (", only pickled weights, which smeld does not open" if pickled else ""),
            found=_check.listed(names),
            cure=f"{advice}; {WITHOUT}",
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The folder's weights: the one whole file, or all parts of it."""
    whole = folder / "model.safetensors"
    return [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))


def configuration(folder: Path) -> dict[str, Any]:
    """``config.json`` of the folder; empty where there is none."""
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _check.problem(f"config.json in {folder.name} cannot be read", found=str(error)[:120]) from error
    return found if isinstance(found, dict) else {}
