"""A network on disk: ``model.safetensors``, and ``model.json`` for people to read. No pickle anywhere."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from smeld import __version__, _check

WEIGHTS, CONFIG = "model.safetensors", "model.json"


def save(folder: str | Path, kind: str, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> Path:
    """Write both files; ``config`` must be JSON. What counts is the copy of it inside the weights' file, which is
    replaced as a whole, so that an interruption leaves the model of before or the new one, never a mixture."""
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with tempfile.TemporaryDirectory(dir=where, prefix=".saving-") as name:
        made = Path(name)
        text = json.dumps({"kind": kind, "smeld": __version__, **config}, indent=1, allow_nan=False)
        save_file(tensors, made / WEIGHTS, metadata={CONFIG: text})
        (made / CONFIG).write_text(text + "\n", encoding="utf-8")
        for part in (WEIGHTS, CONFIG):
            (made / part).replace(where / part)
    return where


def load(folder: str | Path, kind: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """(config, tensors on the CPU); ``InputError`` where a file is missing, broken or of another kind."""
    where = Path(folder)
    if not (where / WEIGHTS).is_file():
        raise _check.problem(
            f"no saved model in {where.name}: {WEIGHTS} is missing",
            found=_check.listed(sorted(p.name for p in where.iterdir())) if where.is_dir() else "no such folder",
            cure="give the folder that a model was saved to",
        )
    try:
        with safe_open(where / WEIGHTS, framework="pt") as stored:
            config = json.loads((stored.metadata() or {}).get(CONFIG, "null"))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (it is no dict)
    except (ValueError, SafetensorError) as error:
        raise _check.problem(f"the model in {where.name} cannot be read", found=str(error)[:200]) from error
    if not isinstance(config, dict) or config.get("kind") != kind:
        found = config.get("kind") if isinstance(config, dict) else type(config).__name__
        raise _check.problem(f"{where.name} holds no model of kind {kind!r}", found=f"kind {found!r}")
    return config, tensors
