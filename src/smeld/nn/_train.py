"""The training loop of every network: progress, early stopping, resumption, and never a NaN unsaid."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smeld import _check
from smeld._progress import track
from smeld.nn import _device, _store

KIND = "training"
#: after a value that is not finite: back to the best weights with half the learning rate, this often
RETRIES = 3


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: at most ``epochs``, until the held-out score has not improved by ``least`` (relative) for
    ``patience`` epochs. ``clip`` bounds the norm of the gradient. ``folder``: where the state is kept, to go on from
    after an interruption; None: nowhere."""

    epochs: int = 200
    patience: int = 20
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    clip: float = 5.0
    least: float = 1e-4
    folder: Path | None = None
    save_every: int = 5


class History:
    """By epoch, the mean training ``loss`` and the ``held_out`` score (lower is better); ``best`` epoch, from 0;
    ``halvings`` of the learning rate; ``finished`` if it stopped before the last epoch. It grows as training goes on.
    """

    def __init__(self) -> None:
        self.loss: list[float] = []
        self.held_out: list[float] = []
        self.best, self.halvings, self.finished = -1, 0, False


def fit(
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    loss: Callable[[Any], torch.Tensor],
    held_out: Callable[[], float],
    schedule: Schedule,
    *,
    seed: int,
    what: str,
) -> History:
    """Train ``model`` in place with Adam; its weights are those of the best held-out score at the end.

    ``batches(epoch)`` yields what ``loss`` takes; ``held_out()`` is the score that decides. All that is random is drawn
    from ``seed`` and the epoch's number, so that a run that goes on from ``schedule.folder`` ends where an
    uninterrupted one does. A loss that is not finite takes the model back to its best weights with half the learning
    rate; after three times it is an ``InputError``.
    """
    optimizer = torch.optim.Adam(
        model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, foreach=False
    )
    history = History()
    best = copy.deepcopy(model.state_dict())
    start = 0
    if schedule.folder is not None and (schedule.folder / _store.WEIGHTS).is_file():
        start, best = _resume(schedule.folder, model, optimizer, history, seed=seed)
    for epoch in track(range(start, schedule.epochs), what, schedule.epochs - start):
        if history.finished:
            break
        with _device.seeded(seed, epoch):
            mean = _epoch(model, batches(epoch), loss, optimizer, schedule.clip)
            score = held_out() if mean is not None else float("nan")
        if mean is None or score != score or abs(score) == float("inf"):
            _step_back(model, best, optimizer, history, what)
            continue
        history.loss.append(mean)
        history.held_out.append(score)
        before = history.held_out[history.best] if history.best >= 0 else float("inf")
        if score < before - schedule.least * abs(before) or history.best < 0:
            history.best, best = len(history.held_out) - 1, copy.deepcopy(model.state_dict())
        history.finished = len(history.held_out) - 1 - history.best >= schedule.patience
        if schedule.folder is not None and (epoch % schedule.save_every == 0 or history.finished):
            _keep(schedule.folder, model, best, optimizer, history, epoch, seed=seed)
    model.load_state_dict(best)
    return history


def _epoch(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Callable[[Any], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    clip: float,
) -> float | None:
    """Mean loss of the epoch; None where a loss or a gradient is not finite (the weights are then as they were)."""
    model.train()
    total, count = 0.0, 0
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        value = loss(batch)
        value.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
        if not (torch.isfinite(value) and torch.isfinite(norm)):
            return None
        optimizer.step()
        total, count = total + float(value.detach()), count + 1
    return total / max(count, 1)


def _step_back(
    model: nn.Module, best: dict[str, Any], optimizer: torch.optim.Optimizer, history: History, what: str
) -> None:
    history.halvings += 1
    if history.halvings > RETRIES:
        raise _check.problem(
            f"{what}: training does not converge",
            found=f"values that are not finite, {history.halvings} times, each with half the learning rate",
            cure="look at the counts for extreme values, or give a lower learning_rate",
        )
    model.load_state_dict(best)
    optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] /= 2


def _keep(
    folder: Path,
    model: nn.Module,
    best: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    history: History,
    epoch: int,
    *,
    seed: int,
) -> None:
    state = {f"now.{k}": v for k, v in model.state_dict().items()} | {f"best.{k}": v for k, v in best.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        state |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
    config = {
        "epoch": epoch,
        "seed": seed,
        "learning_rate": optimizer.param_groups[0]["lr"],
        "history": {k: getattr(history, k) for k in ("loss", "held_out", "best", "halvings", "finished")},
    }
    _store.save(folder, KIND, config, state)


def _resume(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: History, *, seed: int
) -> tuple[int, dict[str, torch.Tensor]]:
    """The epoch to go on with, and the best weights so far; a state of another model or seed is refused."""
    config, state = _store.load(folder, KIND)

    def part(name: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}

    now, best = part("now."), part("best.")
    own = {k: v.shape for k, v in model.state_dict().items()}
    if config["seed"] != seed or own != {k: v.shape for k, v in now.items()}:
        raise _check.problem(
            f"{folder.name} holds the state of another training",
            found=f"seed {config['seed']}, {len(now)} tensors",
            cure="give another folder, or remove this one",
        )
    model.load_state_dict(now)
    device = next(model.parameters()).device
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in part("adam.").items():
        number, _, key = name.partition(".")
        moments.setdefault(int(number), {})[key] = value.to("cpu" if key == "step" else device)
    saved = optimizer.state_dict()
    optimizer.load_state_dict({"state": moments, "param_groups": saved["param_groups"]})
    for group in optimizer.param_groups:
        group["lr"] = config["learning_rate"]
    for key, value in config["history"].items():
        setattr(history, key, value)
    return int(config["epoch"]) + 1, {k: v.to(device) for k, v in best.items()}
