"""A small CNN that learns what a section's tissue looks like from the section's own tiles, with no labels.

VICReg (Bardes, Ponce & LeCun 2022): two views of a tile are to have the same features, each feature is to vary over
tiles, and no two features are to say the same. The views differ in what shall not count: place within the tile,
orientation, strength of either stain (Tellez et al. 2019), sharpness, noise. Input are the stains' densities, so that
a change of staining is a factor and an offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from smeld.nn import _device
from smeld.nn._train import Schedule, fit

Float32 = NDArray[np.float32]

#: features, and the width of the space in which views are compared
DIM, WIDE = 128, 256
#: share of a tile's side that a view shows
CROP = 0.75
#: tiles of a batch; an epoch shows at least so many, but each at most so often; one tile of this many is held out
BATCH, EPOCH, PASSES, HELD_OUT = 128, 2048, 4, 10
#: weights of the three terms (the paper's), and the spread that each feature is to have
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
SPREAD, SMALL = 1.0, 1e-4
#: strength of either stain is multiplied by 1 +- and shifted by +-; standard deviation of the noise
STAIN_FACTOR, STAIN_SHIFT, NOISE = 0.3, 0.08, 0.03
#: the eight turns and mirror images of a square
VIEWS = tuple((turns, flip) for flip in (False, True) for turns in range(4))
ENCODED = 256


@dataclass(frozen=True)
class Plan:
    """How long to train."""

    epochs: int = 12
    patience: int = 4
    learning_rate: float = 2e-3


class Tissue(nn.Module):
    """float32 [n, channels, H, W] -> [n, 128]; ``compare`` gives the space in which views are compared."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        sides = [(channels, 32, 5, 2), (32, 64, 3, 2), (64, 128, 3, 2), (128, DIM, 3, 2)]
        layers: list[nn.Module] = []
        for n_in, n_out, kernel, stride in sides:
            layers += [
                nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            ]
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(DIM, WIDE), nn.BatchNorm1d(WIDE), nn.ReLU(), nn.Linear(WIDE, WIDE))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.trunk(x.contiguous(memory_format=torch.channels_last)).mean(dim=(2, 3))

    def compare(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self(x))


def turned(x: torch.Tensor, view: int) -> torch.Tensor:
    """One of the eight turns and mirror images of maps [..., H, W]."""
    turns, flip = VIEWS[view]
    x = torch.rot90(x, turns, (-2, -1))
    return x.flip(-1) if flip else x


def view(x: torch.Tensor) -> torch.Tensor:
    """A random view of each tile: crop, turn or mirror image, staining, sharpness, noise."""
    n, channels, side, _ = x.shape
    crop = max(1, round(side * CROP))
    top, left = torch.randint(0, side - crop + 1, (2, n)).tolist()
    cut = torch.stack([tile[:, a : a + crop, b : b + crop] for tile, a, b in zip(x, top, left)])
    which = torch.randint(0, len(VIEWS), (n,))
    for number in range(1, len(VIEWS)):
        rows = torch.nonzero(which == number).flatten()
        cut[rows] = turned(cut[rows], number)
    factor = 1 + STAIN_FACTOR * (2 * torch.rand(n, channels, 1, 1) - 1)
    shift = STAIN_SHIFT * (2 * torch.rand(n, channels, 1, 1) - 1)
    blurred = functional.avg_pool2d(cut, 3, 1, 1, count_include_pad=False)
    cut = torch.lerp(cut, blurred, torch.rand(n, 1, 1, 1))
    return cut * factor + shift + NOISE * torch.randn(cut.shape)


def vicreg(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The loss of two views' features, [n, width] each."""
    loss = INVARIANCE * functional.mse_loss(a, b)
    for z in (a, b):
        z = z - z.mean(dim=0)
        spread = torch.sqrt(z.var(dim=0) + SMALL)
        shared = (z.T @ z) / max(len(z) - 1, 1)
        off = shared.square().sum() - shared.diagonal().square().sum()
        loss = loss + VARIANCE / 2 * functional.relu(SPREAD - spread).mean() + COVARIANCE * off / z.shape[1]
    return loss


def train(
    maps: Float32, *, seed: int, device: str = "auto", plan: Plan | None = None, folder: Path | None = None
) -> Tissue:
    """The network that has learnt from tiles float32 [n, channels, H, W]; the same for the same tiles and seed.

    ``folder``: where training keeps its state, to go on from after an interruption.
    """
    plan = plan or Plan()
    place = _device.resolve(device)
    tiles = torch.from_numpy(np.ascontiguousarray(maps))
    held = torch.arange(len(tiles)) % HELD_OUT == HELD_OUT - 1
    if int(held.sum()) < 2:  # too few to hold any out: the score is that of the tiles themselves
        held[:] = True
    learn, check = tiles[~held] if not bool(held.all()) else tiles, tiles[held]
    with _device.seeded(seed):
        model: Tissue = Tissue(tiles.shape[1]).to(place, memory_format=torch.channels_last)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        a, b = view(batch), view(batch)
        both = model.compare(torch.cat([a, b]).to(place))
        return vicreg(*both.chunk(2))

    def batches(_: int) -> Iterator[torch.Tensor]:
        for _ in range(min(PASSES, max(1, -(-EPOCH // len(learn))))):
            order = torch.randperm(len(learn))
            for rows in order.split(BATCH):
                if len(rows) >= min(BATCH // 2, len(learn)):
                    yield learn[rows]

    def held_out() -> float:
        model.eval()
        with torch.no_grad(), _device.seeded(seed, 1 << 20):
            return float(np.mean([float(loss(part)) for part in check.split(BATCH * 4)]))

    schedule = Schedule(
        epochs=plan.epochs, patience=plan.patience, learning_rate=plan.learning_rate, weight_decay=1e-6, folder=folder
    )
    with _device.one_thread():
        fit(model, batches, loss, held_out, schedule, seed=seed, what="Learning the tissue's look")
    model.eval().requires_grad_(False)
    return model


def features(model: Tissue, maps: Float32) -> Float32:
    """float32 [n, 128]: the mean over the eight views of each tile, which turning the section only reorders."""
    place = next(model.parameters()).device
    rows = []
    with torch.inference_mode():
        for part in torch.from_numpy(np.ascontiguousarray(maps)).split(ENCODED):
            part = part.to(place)
            rows.append(sum(model(turned(part, number)) for number in range(len(VIEWS))) / len(VIEWS))
    return torch.cat(rows).cpu().numpy() if rows else np.empty((0, DIM), dtype=np.float32)
