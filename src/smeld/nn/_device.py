"""Where a network runs, and the same answer every time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from smeld import _check
from smeld.kernels import _backend


def resolve(device: str = "auto") -> torch.device:
    """The device: "auto" is what ``sm.device`` or ``SMELD_DEVICE`` chose, else CUDA where there is one, then MPS, then
    the CPU; or a name as torch knows it.

    Raises ``InputError`` for a device that is not there.
    """
    present = ["cpu"]
    if torch.backends.mps.is_available():
        present.insert(0, "mps")
    if torch.cuda.is_available():
        present = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + present
    if device == "auto":
        device = _backend.switch.name().removeprefix("torch:")
    if device == "auto":
        return torch.device(present[0])
    try:
        asked = torch.device(device)
    except RuntimeError:
        raise _check.problem(f"unknown device {device!r}", found=f"devices {_check.listed(present)}") from None
    if not any(name == str(asked) or name.split(":")[0] == str(asked) for name in present):
        raise _check.problem(
            f"device {device!r} is not there",
            found=f"devices {_check.listed(present)}",
            cure="leave device out, or name one of these",
        )
    return asked


def seed_of(*parts: int) -> int:
    """One number of 63 bits from several: a seed of its own for each epoch, member or part of a run."""
    high, low = np.random.SeedSequence([int(p) for p in parts]).generate_state(2, np.uint32)
    return (int(high) << 31) ^ int(low)


@contextmanager
def seeded(*parts: int) -> Iterator[None]:
    """torch draws from a seed made of ``parts`` within the block, and only kernels that repeat are used.

    The caller's random state and settings come back afterwards.
    """
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed_of(*parts))
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch computes in one thread within the block: sums over several have other last bits with other numbers of
    them, and training makes these into other results."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
