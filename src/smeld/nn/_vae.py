"""A graph variational autoencoder of counts: what the deterministic smooth leaves over, learned and with its error.

The model. Counts of a spot are negative binomial around N_i softmax(f(z_i) + section effect), N the library size. The
prior of z is the deterministic smooth m of the fusion plus a Gaussian field on its graph, precision (I + alpha L) /
sigma_k^2: what is learned beyond m must be as smooth as the tissue unless counts insist. sigma_k is not a setting: the
value that fits the field best is used (empirical Bayes). The posterior is a normal per spot and component whose mean
and spread a graph attention encoder gives (Kipf & Welling 2016; Brody et al. 2022; Lopez et al. 2018).

Training is by count splitting (Neufeld et al. 2024): at every step the encoder sees a random part of the counts and is
scored on the rest, so that it cannot learn to repeat noise.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn
from torch.nn import functional

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, in the import
    from torch_geometric.nn import GATv2Conv

#: standardised residuals are cut here
MOST_RESIDUAL = 10.0
#: variance of the field before the first epoch, in units of the embedding's
FIRST_VARIANCE = 0.1
#: bounds of the logarithm of a posterior standard deviation, in units of the embedding's standard deviation
LEAST_LOG_SD, MOST_LOG_SD = -6.0, 1.0


@dataclass(frozen=True)
class Shape:
    """Sizes of the network: genes, components of the prior mean and further ones, sections; ``hidden`` units,
    attention ``heads``, ``steps`` of plain averaging over neighbours before ``layers`` of attention."""

    n_genes: int
    n_prior: int
    n_extra: int
    n_sections: int = 1
    hidden: int = 128
    heads: int = 4
    steps: int = 4
    layers: int = 1

    @property
    def n_latent(self) -> int:
        return self.n_prior + self.n_extra

    @property
    def hops(self) -> int:
        """Neighbours of neighbours that a spot's posterior depends on: the halo of a tile."""
        return self.steps + self.layers


@dataclass(frozen=True)
class Piece:
    """Spots and edges that one pass sees, as tensors: ``core`` bool [n] marks spots that count, others are halo.

    ``average`` CSR [n, n] averages over neighbours; ``edge_index`` [2, n_edges] and ``edge_weight`` [n_edges, 1] (log)
    with each spot its own neighbour; ``pairs`` [2, n_pairs], ``pair_weight`` [n_pairs] the edges counted once, of which
    at least the first end is in the core; ``degree`` [n, 1]; ``rows`` numbers of the spots in the section.
    """

    rows: NDArray[np.intp]
    core: torch.Tensor
    average: torch.Tensor
    edge_index: torch.Tensor
    edge_weight: torch.Tensor
    pairs: torch.Tensor
    pair_weight: torch.Tensor
    degree: torch.Tensor
    prior: torch.Tensor
    section: torch.Tensor


class GraphVAE(nn.Module):
    """Encoder, decoder and their constants; see the module's text for the model."""

    share: torch.Tensor
    scale: torch.Tensor
    #: of the field, by component; and the roughness that the next one is made of
    variance: torch.Tensor
    rough: torch.Tensor

    def __init__(self, shape: Shape, share: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        """``share`` [n_genes] of all counts; ``scale`` [n_genes] the standard deviation of a count over sqrt(N)."""
        super().__init__()
        self.shape = shape
        self.register_buffer("share", torch.as_tensor(share, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.register_buffer("variance", torch.full((shape.n_latent,), FIRST_VARIANCE))
        self.register_buffer("rough", torch.zeros(shape.n_latent))
        h, d = shape.hidden, shape.n_latent
        self.read = nn.Linear(shape.n_genes, h, bias=False)
        self.mix = nn.Linear(h * (shape.steps + 1) + shape.n_prior, h)
        self.norm = nn.LayerNorm(h)
        self.attend = nn.ModuleList(
            GATv2Conv(h, h // shape.heads, heads=shape.heads, edge_dim=1, add_self_loops=False)
            for _ in range(shape.layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(h) for _ in range(shape.layers))
        self.mean, self.log_sd = nn.Linear(h, d), nn.Linear(h, d)
        self.bend, self.out = nn.Linear(d, h), nn.Linear(h, shape.n_genes)
        self.straight = nn.Linear(d, shape.n_genes, bias=False)
        self.section = nn.Embedding(shape.n_sections, shape.n_genes)
        self.log_theta = nn.Parameter(torch.ones(shape.n_genes))
        self._start()

    def _start(self) -> None:
        """The posterior starts at the prior's mean, the decoder at the section's mean profile."""
        nn.init.normal_(self.mean.weight, std=1e-3)
        nn.init.zeros_(self.mean.bias)
        nn.init.zeros_(self.log_sd.weight)
        nn.init.constant_(self.log_sd.bias, -2.0)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.normal_(self.straight.weight, std=0.03)
        nn.init.zeros_(self.section.weight)
        with torch.no_grad():
            self.out.bias.copy_(torch.log(self.share))

    def residuals(self, counts: torch.Tensor) -> torch.Tensor:
        """Standardised differences of counts [n, n_genes] from the mean profile at each spot's library size."""
        size = counts.sum(1, keepdim=True)
        x = (counts - size * self.share) / (self.scale * size.clamp(min=1.0).sqrt())
        return x.clamp(-MOST_RESIDUAL, MOST_RESIDUAL) * (4.0 / self.shape.n_genes**0.5)

    def encode(self, counts: torch.Tensor, piece: Piece) -> tuple[torch.Tensor, torch.Tensor]:
        """(difference of the posterior's mean from the prior's, log standard deviation), [n, n_latent] each."""
        parts = [self.read(self.residuals(counts))]
        for _ in range(self.shape.steps):
            parts.append(piece.average @ parts[-1])
        x = functional.elu(self.norm(self.mix(torch.cat([*parts, piece.prior[:, : self.shape.n_prior]], dim=1))))
        for layer, norm in zip(self.attend, self.norms):
            x = x + functional.elu(norm(layer(x, piece.edge_index, piece.edge_weight)))
        return self.mean(x), self.log_sd(x).clamp(LEAST_LOG_SD, MOST_LOG_SD)

    def decode(self, z: torch.Tensor, section: torch.Tensor | None = None) -> torch.Tensor:
        """Logarithm of the expected share of each gene, [n, n_genes]; without ``section``, of the mean section."""
        logits = self.out(functional.elu(self.bend(z))) + self.straight(z)
        return torch.log_softmax(logits if section is None else logits + self.section(section), dim=1)


def negative_binomial(x: torch.Tensor, log_mean: torch.Tensor, log_theta: torch.Tensor) -> torch.Tensor:
    """Log likelihood of counts, summed over genes [n]; variance = mean + mean^2 / theta.

    Terms with gamma functions are 0 where the count is 0, and are computed elsewhere only.
    """
    theta = torch.exp(log_theta)
    log_total = torch.log(theta + torch.exp(log_mean))
    value = (theta * (log_theta - log_total)).sum(1)
    row, gene = torch.nonzero(x, as_tuple=True)
    seen, th = x[row, gene], theta[gene]
    term = seen * (log_mean[row, gene] - log_total[row, gene])
    term = term + torch.lgamma(seen + th) - torch.lgamma(th) - torch.lgamma(seen + 1.0)
    return value.index_add(0, row, term)


def roughness(delta: torch.Tensor, log_sd: torch.Tensor, piece: Piece, alpha: float) -> tuple[torch.Tensor, ...]:
    """Of a piece's core: (expected quadratic form of the field [n_latent], sum of log standard deviations)."""
    core = piece.core[:, None].to(delta.dtype)
    own = core * (delta**2 + torch.exp(2 * log_sd) * (1.0 + alpha * piece.degree))
    between = piece.pair_weight[:, None] * (delta[piece.pairs[0]] - delta[piece.pairs[1]]) ** 2
    return own.sum(0) + alpha * between.sum(0), (core * log_sd).sum()


def divergence(rough: torch.Tensor, log_sd: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """A piece's share of the Kullback-Leibler divergence from the field of ``variance`` [n_latent]; less a constant."""
    return (rough / (2 * variance)).sum() - log_sd


def averaging(weights: sparse.csr_matrix) -> sparse.csr_matrix:
    """Rows of ``weights`` scaled to sum to 1; spots without neighbours average over nothing."""
    total = np.asarray(weights.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sparse.csr_matrix(sparse.diags(scale) @ weights)
