"""Messages of the graph model: what they are untrained, and that training finds who speaks to whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial import cKDTree

torch = pytest.importorskip("torch", reason="needs smeld[deep]")

from smeld.nn import _device, _gnn  # noqa: E402

N, PAIRS, GENES = 900, 6, 40


@dataclass(frozen=True)
class Drawn:
    """A section in which cells of state 1 answer, each pair by three genes of its own, to senders of state -1."""

    at: Any
    ligand: Any
    y: Any
    moves: Any
    parts: list[np.ndarray]
    weights: sparse.csr_matrix


def drawn(seed: int = 0) -> Drawn:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 30, (N, 2))
    near = cKDTree(xy).query(xy, k=7)[1][:, 1:]
    weights = sparse.csr_matrix((np.full(6 * N, 1 / 6), (np.repeat(np.arange(N), 6), near.ravel())), (N, N))
    state = rng.choice([-1.0, 1.0], N)
    ligand, receptor = rng.normal(size=(N, PAIRS)), rng.gamma(2.0, 0.5, (N, PAIRS))
    answer = (weights @ (ligand * (state < 0)[:, None])) * receptor * (state > 0)[:, None]
    y = rng.normal(size=(N, GENES))
    y[:, : 3 * PAIRS] += np.repeat(answer / answer.std(axis=0), 3, axis=1) * 0.6
    known = np.linalg.qr(np.c_[np.ones(N), state])[0]
    own = receptor - known @ (known.T @ receptor)
    at = _gnn.Section(
        tensor(state[:, None]), torch.as_tensor(np.repeat(np.arange(N), 6)), torch.as_tensor(near.ravel()),
        tensor(np.full(6 * N, 1 / 6)), tensor(receptor), tensor(weights @ receptor), tensor(known),
        tensor(own / np.linalg.norm(own, axis=0)),
    )  # fmt: skip
    moves = torch.as_tensor(np.stack([rng.permutation(N) for _ in range(12)]))
    part = (xy[:, 0] // 2.5).astype(int) % 3
    return Drawn(at, tensor(ligand), tensor(y / y.std(axis=0)), moves, [part == k for k in range(3)], weights)


def tensor(values: np.ndarray) -> Any:
    return torch.as_tensor(np.asarray(values, dtype=np.float32))


def test_untrained_it_is_the_bilinear_model() -> None:
    made = drawn()
    found = _gnn.Messages(1)(made.at, made.ligand).detach().numpy()
    receptor = (made.at.receptor + made.at.around).numpy().astype(float)
    message = receptor * (made.weights @ made.ligand.numpy().astype(float))
    known, own = made.at.known.numpy().astype(float), made.at.own.numpy().astype(float)
    for p in range(PAIRS):  # least squares on what is known and on the pair's own receptor
        design = np.c_[known, own[:, p]]
        rest = message[:, p] - design @ np.linalg.lstsq(design, message[:, p], rcond=None)[0]
        assert found[:, p] == pytest.approx(rest, abs=1e-4)


def test_gains_are_those_of_slopes_fitted_elsewhere() -> None:
    made = drawn()
    message = _gnn.Messages(1)(made.at, made.ligand).detach()
    fit, score = (torch.as_tensor(np.flatnonzero(p)) for p in made.parts[:2])
    found = _gnn.gains(message, made.y, fit, score).numpy()
    m, y = message.numpy().astype(float), made.y.numpy().astype(float)
    expected = np.zeros(PAIRS)
    for p in range(PAIRS):
        a, b = m[made.parts[0], p], m[made.parts[1], p]
        for g in range(GENES):
            slope = a @ y[made.parts[0], g] / (a @ a)
            slope *= max(1 - _gnn.SHRINK_TRAINING / (slope**2 * (a @ a)), 0.0)
            mine = y[made.parts[1], g]
            expected[p] += mine @ mine - ((mine - slope * b) ** 2).sum()
    assert found == pytest.approx(expected, rel=1e-3, abs=0.05)


def test_moved_senders_take_their_ligand_and_state_along() -> None:
    made = drawn()
    with torch.no_grad():
        model = _gnn.Messages(1)
        model.sender.weight.normal_(generator=torch.Generator().manual_seed(1))
        found = model.attention(made.at, made.moves[0]).numpy()
        asks, says = torch.tanh(model.code(made.at.state)).numpy(), model.sender(made.at.state).numpy()
    near, move = made.at.by.numpy().reshape(N, 6), made.moves[0].numpy()
    for i in range(0, N, 50):
        score = (asks[i] * says[move[near[i]]]).sum(axis=1) / np.sqrt(_gnn.WIDTH)
        expected = np.exp(_gnn.FURTHEST * np.tanh(score))
        assert found.reshape(N, 6)[i] == pytest.approx(expected / expected.sum(), rel=1e-4)


def test_training_finds_who_sends_and_who_answers() -> None:
    made = drawn()
    model = _gnn.trained(made.at, made.ligand, made.y, made.moves, parts=made.parts, seed=0, epochs=20)
    bilinear = _gnn.trained(made.at, made.ligand, made.y, made.moves, parts=made.parts, seed=0, epochs=0)
    fresh = drawn(1)  # another section of the same rule
    fit, score = torch.as_tensor(np.arange(0, N, 2)), torch.as_tensor(np.arange(1, N, 2))
    with torch.no_grad():
        gain = [float(_gnn.gains(m(fresh.at, fresh.ligand), fresh.y, fit, score).sum()) for m in (model, bilinear)]
        state, share = fresh.at.state[:, 0], model.attention(fresh.at)
        gate = model.gate(fresh.at) / (fresh.at.receptor + fresh.at.around)
    assert gain[0] > 1.3 * gain[1] > 0
    assert gate[state > 0].mean() > 1.5 * gate[state < 0].mean()
    answers = state[fresh.at.to] > 0
    senders = state[fresh.at.by] < 0
    assert share[answers & senders].mean() > 1.5 * share[answers & ~senders].mean()


def test_the_same_seed_gives_the_same_bits() -> None:
    made = drawn()
    with _device.one_thread():
        one, two = (
            _gnn.trained(made.at, made.ligand, made.y, made.moves, parts=made.parts, seed=3, epochs=5) for _ in "ab"
        )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_where_there_is_nothing_to_learn_it_stays_bilinear() -> None:
    made = drawn()
    noise = tensor(np.random.default_rng(5).normal(size=(N, GENES)))
    model = _gnn.trained(made.at, made.ligand, noise, made.moves, parts=made.parts, seed=0, epochs=20)
    with torch.no_grad():
        found, plain = (m(made.at, made.ligand) for m in (model, _gnn.Messages(1)))
    assert torch.allclose(found, plain)
