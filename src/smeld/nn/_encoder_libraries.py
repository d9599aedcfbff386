"""timm and transformers, imported so that a torchvision whose compiled part does not fit this torch is no obstacle.

Both import torchvision for image transforms and, in passing, its operators for object detection. Where those were
built for another torch, the import fails with "operator torchvision::nms does not exist", though nothing here uses
them. They are then left unregistered.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch


def timm() -> ModuleType:
    """The package timm, ready for use."""
    _torchvision()
    return importlib.import_module("timm")


def transformers() -> ModuleType:
    """The package transformers, ready for use, without its progress bars and advice."""
    _torchvision()
    package = importlib.import_module("transformers")
    package.logging.set_verbosity_error()
    package.logging.disable_progress_bar()
    return package


def _torchvision() -> None:
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return  # transformers does without; timm says that it is missing
    except RuntimeError:
        with _no_operators_of("torchvision"):
            importlib.import_module("torchvision")


@contextmanager
def _no_operators_of(package: str) -> Iterator[None]:
    """Within the block, what is registered for operators of ``package`` is ignored."""
    before = torch.library.register_fake

    def register(operator: Any, *args: Any, **keywords: Any) -> Any:
        if isinstance(operator, str) and operator.startswith(f"{package}::"):
            return _unchanged
        return before(operator, *args, **keywords)

    torch.library.register_fake = register
    try:
        yield
    finally:
        torch.library.register_fake = before


def _unchanged(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
