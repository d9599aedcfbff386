"""Is the extra ``smeld[deep]`` there? Asked before any module that needs it is imported."""

from __future__ import annotations

from importlib.util import find_spec

from smeld import _check

#: import name -> name on the package index
PACKAGES = {
    "torch": "torch",
    "torch_geometric": "torch-geometric",
    "safetensors": "safetensors",
    "transformers": "transformers",
    "timm": "timm",
}


def available(*packages: str) -> bool:
    """True if all of these can be imported; all of the extra where none is named."""
    return all(find_spec(name) is not None for name in packages or PACKAGES)


def require(what: str, *packages: str, instead: str = "") -> None:
    """Raise ``InputError`` unless ``packages`` are installed.

    ``what`` is what the user asked for; ``instead`` what works without the extra, for the message.
    """
    missing = [PACKAGES[name] for name in packages if not available(name)]
    if missing:
        raise _check.problem(
            f"{what} needs the extra smeld[deep]",
            found=f"no {_check.listed(missing)}",
            cure="pip install 'smeld[deep]'" + (f", or {instead}" if instead else ""),
        )
