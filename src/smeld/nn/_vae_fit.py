"""Training of the graph VAE on a section, and its posterior over all spots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import split
from smeld.nn import _device, _train
from smeld.nn._pieces import Section, tiles
from smeld.nn._vae import GraphVAE, Piece, Shape, divergence, negative_binomial, roughness

Float = NDArray[np.float64]

#: share of the counts that training never sees, for the score that stops it
HELD_OUT = 0.1
#: share of the counts that the encoder sees at a step, drawn evenly between these; the rest is what it is scored on
LEAST_SEEN, MOST_SEEN = 0.5, 0.9
#: epochs over which the divergence gains its full weight, lest the posterior collapses before the decoder has learned
WARM_UP = 30
#: spots of a tile, and spots that the held-out score is computed on
TILE, MOST_SCORED = 4096, 2000
#: tiles of an epoch, drawn anew each time: a network learns from so many spots what it learns from all
MOST_TILES = 3
#: smallest variance of the field
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class Inputs:
    """Arrays of one section, or of several: ``counts`` CSR [n, n_genes], ``weights`` CSR [n, n], ``prior`` float64
    [n, n_prior] the deterministic smooth with a largest standard deviation of 1, ``section`` int [n], ``xy_um``,
    ``alpha`` the strength of smoothing."""

    counts: sparse.csr_matrix
    weights: sparse.csr_matrix
    prior: Float
    section: NDArray[np.integer]
    xy_um: Float
    alpha: float


@dataclass(frozen=True)
class Posterior:
    """``delta`` [n, n_latent], the mean less the prior's; ``sd`` [n, n_latent]."""

    delta: Float
    sd: Float


def new_model(inputs: Inputs, n_extra: int, *, seed: int, **sizes: int) -> GraphVAE:
    """A network for these inputs, its weights drawn from ``seed``."""
    total = np.asarray(inputs.counts.sum(axis=0)).ravel() + 0.5
    share = total / total.sum()
    typical = float(np.asarray(inputs.counts.sum(axis=1)).mean())
    dispersion = np.minimum(split.local_dispersion(inputs.counts, inputs.weights), 5.0)
    shape = Shape(
        n_genes=len(share),
        n_prior=inputs.prior.shape[1],
        n_extra=n_extra,
        n_sections=int(inputs.section.max(initial=0)) + 1,
        **sizes,
    )
    with _device.seeded(seed, 0):
        return GraphVAE(shape, share, np.sqrt(share * (1 + dispersion * typical * share)))


class Trainer:
    """What a training needs besides the network: tiles, thinned counts, the variance of the field."""

    def __init__(self, model: GraphVAE, inputs: Inputs, device: torch.device, *, seed: int, tile: int = TILE) -> None:
        self.model, self.inputs, self.seed, self.device = model.to(device), inputs, seed, device
        self.none = np.zeros(inputs.counts.shape[1])
        rng = np.random.default_rng(_device.seed_of(seed, 1))
        self.train, self.held = split.thin(inputs.counts, 1 - HELD_OUT, self.none, rng)
        extra = np.zeros((len(inputs.prior), model.shape.n_extra))
        self.section = Section(inputs.weights, np.hstack([inputs.prior, extra]), inputs.section, device)
        self.tiles = tiles(inputs.xy_um, tile)
        # the roughness of an edge needs the posterior of both its ends: one hop more than the network reaches
        self.pieces = [self.section.piece(rows, model.shape.hops + 1) for rows in self.tiles]
        #: the tiles that the score looks at, all where there are few
        self.looked_at = np.sort(rng.permutation(len(self.tiles))[:MOST_TILES]) if self._many else self._all_tiles
        spots = np.sort(np.concatenate([self.tiles[i] for i in self.looked_at]))
        self.scored = np.sort(rng.choice(spots, min(len(spots), MOST_SCORED), replace=False))
        self.weight = 0.0

    @property
    def _all_tiles(self) -> NDArray[np.intp]:
        return np.arange(len(self.tiles))

    @property
    def _many(self) -> bool:
        return len(self.tiles) > MOST_TILES

    def _drawn(self, epoch: int) -> NDArray[np.intp]:
        """Tiles of an epoch; of few tiles all, whose order ``batches`` draws."""
        if not self._many:
            return self._all_tiles
        return np.random.default_rng(_device.seed_of(self.seed, 4, epoch)).permutation(len(self.tiles))[:MOST_TILES]

    def batches(self, epoch: int) -> Iterator[tuple[Piece, torch.Tensor, torch.Tensor, float]]:
        """(piece, counts that are seen, counts that are predicted, the share of these) of every tile."""
        self.weight = min(1.0, (epoch + 1) / WARM_UP)
        if epoch:
            n_before = sum(len(self.tiles[i]) for i in self._drawn(epoch - 1))
            self.model.variance.copy_((self.model.rough / n_before).clamp(min=LEAST_VARIANCE))
        self.model.rough.zero_()
        rng = np.random.default_rng(_device.seed_of(self.seed, 2, epoch))
        fraction = float(rng.uniform(LEAST_SEEN, MOST_SEEN))
        drawn = self._drawn(epoch)
        # of many tiles only the spots that are looked at are thinned
        rows = np.unique(np.concatenate([self.pieces[i].rows for i in drawn])) if self._many else None
        seen, rest = split.thin(self.train if rows is None else self.train[rows], fraction, self.none, rng)
        for i in rng.permutation(drawn):
            at = self.pieces[i].rows if rows is None else np.searchsorted(rows, self.pieces[i].rows)
            yield self.pieces[i], self._dense(seen, at), self._dense(rest, at), 1 - fraction

    def loss(self, batch: tuple[Piece, torch.Tensor, torch.Tensor, float]) -> torch.Tensor:
        """Negative evidence bound of a tile, per spot."""
        piece, seen, rest, share = batch
        delta, log_sd = self.model.encode(seen, piece)
        z = piece.prior + delta + torch.exp(log_sd) * torch.randn_like(delta)
        core = piece.core
        total = seen[core].sum(1, keepdim=True) + rest[core].sum(1, keepdim=True)
        log_mean = self.model.decode(z[core], piece.section[core]) + torch.log(total.clamp(min=1.0) * share)
        # dispersion is that of whole counts: theta of a part is the part's share of it
        theta = self.model.log_theta + float(np.log(share))
        likelihood = negative_binomial(rest[core], log_mean, theta).sum() / share
        rough, spread = roughness(delta, log_sd, piece, self.inputs.alpha)
        self.model.rough.add_(rough.detach())
        return (self.weight * divergence(rough, spread, self.model.variance) - likelihood) / core.sum()

    def score(self) -> float:
        """Poisson deviance, less a constant, per held-out count of some spots; lower is better."""
        delta, _ = self._encode(self.train, self.looked_at)
        self.model.eval()
        rows = self.scored
        with torch.no_grad():
            z = torch.as_tensor(self.section.prior[rows] + delta[rows], dtype=torch.float32, device=self.device)
            section = torch.as_tensor(self.section.section[rows], device=self.device)
            log_share = self.model.decode(z, section).cpu().numpy()
        held = self.held[rows].tocoo()
        counted = max(float(held.data.sum()), 1.0)
        # shares sum to 1 for every spot: the expected total is the library, whatever the model says
        return -float((held.data * log_share[held.row, held.col]).sum()) / counted

    def posterior(self) -> Posterior:
        """Of all spots, from all their counts."""
        delta, log_sd = self._encode(self.inputs.counts, self._all_tiles)
        return Posterior(delta.astype(np.float64), np.exp(log_sd.astype(np.float64)))

    def _encode(
        self, counts: sparse.csr_matrix, which: NDArray[np.intp]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of the spots of these tiles; others stay 0."""
        self.model.eval()
        shape = (counts.shape[0], self.model.shape.n_latent)
        delta, log_sd = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        with torch.no_grad():
            for rows, piece in ((self.tiles[i], self.pieces[i]) for i in which):
                found = self.model.encode(self._dense(counts, piece.rows), piece)
                core = piece.core.cpu().numpy()
                delta[rows], log_sd[rows] = (part.cpu().numpy()[core] for part in found)
        return delta, log_sd

    def _dense(self, counts: sparse.csr_matrix, rows: NDArray[np.intp]) -> torch.Tensor:
        return torch.as_tensor(counts[rows].toarray().astype(np.float32), device=self.device)


def train(
    model: GraphVAE,
    inputs: Inputs,
    schedule: _train.Schedule,
    *,
    seed: int,
    device: str = "auto",
    tile: int = TILE,
) -> tuple[Posterior, _train.History, Float]:
    """(posterior, course of the training, variance of the field [n_latent]); ``model`` is trained in place."""
    trainer = Trainer(model, inputs, _device.resolve(device), seed=seed, tile=tile)
    history = _train.fit(
        trainer.model,
        trainer.batches,
        trainer.loss,
        trainer.score,
        schedule,
        seed=seed,
        what="Graph VAE",
    )
    with _device.seeded(seed, 3):
        return trainer.posterior(), history, trainer.model.variance.cpu().numpy().astype(np.float64)


def schedule(epochs: int, learning_rate: float, patience: int, folder: str | Path | None) -> _train.Schedule:
    """The schedule of ``fuse``'s options."""
    made = _train.Schedule(epochs=epochs, learning_rate=learning_rate, patience=patience)
    return made if folder is None else replace(made, folder=Path(folder))
