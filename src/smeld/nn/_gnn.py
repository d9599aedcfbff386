"""Messages from neighbours: what of a pair's ligand arrives at a cell that has the receptor. One small network for all
pairs of a section, trained to predict genes of the receiving cell in blocks of the section left out.

The message of pair p to cell i is gate(receptor_ip, state_i) sum_j attention_ij ligand_jp, j its neighbours. Gate and
attention are the same functions for every pair and begin as the bilinear model: receptor of the cell and around it
times the mean ligand. How genes answer is no part of the network: slopes are fitted in closed form in some blocks and
scored in others, and what is trained is that score, less the same score with the senders moved elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import nn

from smeld.nn import _device, _train

Float = NDArray[np.float64]

#: units of the state's code, and hidden units of the gate
WIDTH = 8
#: how far gate and attention may go from the bilinear model, in logarithms
FURTHEST = 2.0
#: a slope counts for 1 - SHRINK / chi-square of what it is fitted to, or not at all; in training, where parts are small
#: and chance would be learnt from hundreds of genes, about twice the logarithm of their number
SHRINK, SHRINK_TRAINING = 4.0, 13.0
#: standard errors over pairs by which a network must be better than the bilinear model where it did not learn
BETTER = 2.0
#: gains are compared by asinh(gain / SCALE): a pair of large effect is not all that matters
SCALE = 10.0
#: moved copies of the section that the stopping score is compared with
N_COMPARED = 6
SCHEDULE = _train.Schedule(epochs=60, patience=8, learning_rate=0.01, weight_decay=1e-3)


@dataclass(frozen=True)
class Section:
    """What is known of n cells and q pairs: ``state`` [n, d] standardised, links (``to``, ``by``, ``weight``)
    [n_links], rows of each receiver adding up to 1, ``receptor`` and ``around`` [n, q] the receptor in a cell and the
    mean of its neighbours', of mean 1, ``known`` [n, k] orthonormal, ``own`` [n, q] the receptor beyond it, of length 1
    or 0: messages count beyond these two."""

    state: torch.Tensor
    to: torch.Tensor
    by: torch.Tensor
    weight: torch.Tensor
    receptor: torch.Tensor
    around: torch.Tensor
    known: torch.Tensor
    own: torch.Tensor


def tensor(values: NDArray[np.generic]) -> torch.Tensor:
    """Whole numbers as they are, others in single precision."""
    whole = np.issubdtype(values.dtype, np.integer)
    return torch.as_tensor(np.ascontiguousarray(values, dtype=np.int64 if whole else np.float32))


def section(
    state: Float, weights: sparse.csr_matrix, receptor: Float, *, around: Float, known: Float, own: Float
) -> Section:
    """The section of these arrays; row i of ``weights`` averages over the neighbours of cell i."""
    links = sparse.coo_matrix(weights)
    return Section(
        *(tensor(v) for v in (state, links.row, links.col, links.data, receptor, around, known, own)),
    )


class Messages(nn.Module):
    """Gate and attention. Untrained it is the bilinear model."""

    def __init__(self, n_state: int) -> None:
        super().__init__()
        self.code = nn.Linear(n_state, WIDTH)
        self.sender = nn.Linear(n_state, WIDTH)
        self.hidden = nn.Linear(WIDTH + 2, WIDTH)
        self.open = nn.Linear(WIDTH, 1)
        for layer in (self.sender, self.open):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def gate(self, at: Section) -> torch.Tensor:
        """How open every cell is to every pair, [n, q]; 0 where neither it nor its neighbours have the receptor."""
        code = torch.tanh(self.code(at.state))[:, None, :].expand(-1, at.receptor.shape[1], -1)
        seen = torch.stack([torch.log1p(at.receptor), torch.log1p(at.around)], dim=2)
        raised = self.open(torch.tanh(self.hidden(torch.cat([code, seen], dim=2))))[:, :, 0]
        return (at.receptor + at.around) * torch.exp(FURTHEST * torch.tanh(raised))

    def attention(self, at: Section, moved: torch.Tensor | None = None) -> torch.Tensor:
        """Weight of every link [n_links], 1 in sum over a receiver's links; states of senders ``moved`` there."""
        asks = torch.tanh(self.code(at.state))
        says = self.sender(at.state if moved is None else at.state[moved])
        score = (asks[at.to] * says[at.by]).sum(dim=1) / WIDTH**0.5
        raw = at.weight * torch.exp(FURTHEST * torch.tanh(score))
        total = torch.zeros(len(at.state), dtype=raw.dtype).index_add(0, at.to, raw)
        return raw / total.clamp_min(1e-12)[at.to]

    def forward(self, at: Section, ligand: torch.Tensor, moved: torch.Tensor | None = None) -> torch.Tensor:
        """Messages [n, q] beyond what is known of the receiver; ``ligand`` [n, q] is taken from ``moved`` [n]."""
        sent = ligand if moved is None else ligand[moved]
        return beyond(at, self.gate(at) * arriving(at, self.attention(at, moved), sent))


def arriving(at: Section, attention: torch.Tensor, sent: torch.Tensor) -> torch.Tensor:
    """Mean of what the neighbours send, [n, q]."""
    return torch.zeros_like(sent).index_add(0, at.to, attention[:, None] * sent[at.by])


def beyond(at: Section, message: torch.Tensor) -> torch.Tensor:
    """Less what a regression on the cell's own state and receptor explains of it."""
    rest = message - at.known @ (at.known.T @ message)
    return rest - at.own * (at.own * rest).sum(dim=0)


def gains(message: torch.Tensor, y: torch.Tensor, fit: torch.Tensor, score: torch.Tensor) -> torch.Tensor:
    """In training: squared error that each message [n, q] takes off ``y`` [n, n_genes] (variance 1) in the cells
    ``score``, with slopes from the cells ``fit``, [q]."""
    power = (message[fit] ** 2).sum(dim=0).clamp_min(1e-6)[:, None]
    slope = message[fit].T @ y[fit] / power
    slope = slope * torch.relu(1 - SHRINK_TRAINING / (slope**2 * power).clamp_min(1e-6))
    tested = message[score]
    return (2 * slope * (tested.T @ y[score]) - slope**2 * (tested**2).sum(dim=0)[:, None]).sum(dim=1)


def trained(
    at: Section,
    ligand: torch.Tensor,
    y: torch.Tensor,
    moves: torch.Tensor,
    *,
    parts: Sequence[NDArray[np.bool_]],
    seed: int,
    epochs: int | None = None,
) -> Messages:
    """A network that learnt in two ``parts`` of the section (slopes in one, scored in the other, and the other way
    round) and stopped by the third; the bilinear one where it is not clearly better there. ``moves`` int
    [n_moves, n]. ``epochs`` at most; 0: the bilinear model."""
    first, second, third = (torch.as_tensor(np.flatnonzero(part)) for part in parts)
    with _device.seeded(seed):
        model = Messages(at.state.shape[1])
    both = torch.cat([first, second])

    def gained(message: torch.Tensor) -> torch.Tensor:
        return gains(message, y, first, second) + gains(message, y, second, first)

    def loss(move: torch.Tensor) -> torch.Tensor:
        return _contrast(gained(model(at, ligand)), gained(model(at, ligand, move))).mean()

    def stopping() -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            right = gains(model(at, ligand), y, both, third)
            wrong = [gains(model(at, ligand, m), y, both, third) for m in moves[:N_COMPARED]]
            return torch.stack([_contrast(right, w) for w in wrong]).mean(dim=0)

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        for k in torch.randint(len(moves), (2,)).tolist():
            yield moves[k]

    untrained, before = {k: v.clone() for k, v in model.state_dict().items()}, stopping()
    schedule = SCHEDULE if epochs is None else replace(SCHEDULE, epochs=epochs)
    _train.fit(model, batches, loss, lambda: float(stopping().mean()), schedule, seed=seed, what="messages")
    better = before - stopping()
    if not better.mean() > BETTER * better.std(correction=0) / len(better) ** 0.5:
        model.load_state_dict(untrained)
    model.eval()
    return model


def passed(model: Messages, at: Section, ligand: Float, moved: NDArray[np.intp] | None = None) -> NDArray[np.float32]:
    """Messages [n, q] of a trained network, as an array."""
    with torch.no_grad():
        out: NDArray[np.float32] = model(at, tensor(ligand), None if moved is None else tensor(moved)).numpy()
    return out


def _contrast(right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """By pair, what moved senders gain less what those in place do. What moved ones lose does not count: that is easily
    made."""
    return torch.asinh(torch.relu(wrong) / SCALE) - torch.asinh(right / SCALE)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch sums in an order that does not depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
