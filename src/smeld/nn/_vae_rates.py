"""What the graph VAE thinks of a section's rates: the share of every gene in a spot's counts, and how sure it is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from smeld.nn import _device, _vae_fit
from smeld.nn._vae import GraphVAE

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: draws of a spot's posterior
N_DRAWS = 8
#: spots that are decoded at a time
BLOCK = 512


class Rates:
    """Shares of the decoder's genes, [n_rows, n_genes], from one posterior of all spots.

    ``inputs`` holds the counts that the encoder sees and the prior's mean made of them; they may be thinner than those
    that the model was trained on. Draws of a spot do not depend on which other spots are asked for.
    """

    def __init__(
        self, model: GraphVAE, inputs: _vae_fit.Inputs, *, seed: int, device: str = "auto", tile: int = _vae_fit.TILE
    ) -> None:
        self.model, self.device = model, _device.resolve(device)
        with _device.one_thread(), _device.seeded(seed, 3):
            found = _vae_fit.Trainer(model, inputs, self.device, seed=seed, tile=tile).posterior()
        extra = np.zeros((len(inputs.prior), model.shape.n_extra))
        self.mean, self.sd = np.hstack([inputs.prior, extra]) + found.delta, found.sd
        self.section = inputs.section
        rng = np.random.default_rng(_device.seed_of(seed, 4))
        self.noise = rng.standard_normal((N_DRAWS, *self.mean.shape), dtype=np.float32)

    def share(self, rows: NDArray[np.intp]) -> Float32:
        """At the posterior's mean."""
        return self._decode(rows, self.mean[rows])

    def variance(self, rows: NDArray[np.intp]) -> Float32:
        """Of the share's logarithm, over draws of the posterior."""
        total = np.zeros((len(rows), self.model.shape.n_genes), dtype=np.float32)
        middle = np.log(self.share(rows))
        for noise in self.noise:
            total += (np.log(self._decode(rows, self.mean[rows] + self.sd[rows] * noise[rows])) - middle) ** 2
        return np.asarray(total / N_DRAWS)

    def _decode(self, rows: NDArray[np.intp], z: Float) -> Float32:
        out = np.empty((len(rows), self.model.shape.n_genes), dtype=np.float32)
        self.model.eval()
        with _device.one_thread(), torch.no_grad():
            for start in range(0, len(rows), BLOCK):
                part = slice(start, start + BLOCK)
                section = torch.as_tensor(np.asarray(self.section[rows[part]], dtype=np.int64), device=self.device)
                some = torch.as_tensor(z[part], dtype=torch.float32, device=self.device)
                out[part] = torch.exp(self.model.decode(some, section)).cpu().numpy()
        return np.maximum(out, np.float32(1e-12))


def trained(
    inputs: _vae_fit.Inputs,
    *,
    seed: int,
    epochs: int = 120,
    learning_rate: float = 5e-3,
    patience: int = 15,
    folder: str | None = None,
    device: str = "auto",
    tile: int = _vae_fit.TILE,
) -> tuple[GraphVAE, int]:
    """(a network trained on these counts, number of epochs); the options are those of ``sm.fuse(method="vae")``."""
    model = _vae_fit.new_model(inputs, 0, seed=seed)
    schedule = _vae_fit.schedule(epochs, learning_rate, patience, folder)
    with _device.one_thread():
        _, history, _ = _vae_fit.train(model, inputs, schedule, seed=seed, device=device, tile=tile)
    return model, len(history.held_out)


def without_sections(model: GraphVAE) -> None:
    """Every section gets the mean of those that the model was trained on, in place."""
    with torch.no_grad():
        model.section.weight.copy_(model.section.weight.mean(0, keepdim=True).expand_as(model.section.weight))
