"""The training loop: it learns, stops, resumes to the same end, and never yields a NaN unsaid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smeld as sm

torch = pytest.importorskip("torch", reason="needs smeld[deep]")
pytest.importorskip("safetensors", reason="needs smeld[deep]")

from smeld.nn import _device, _store, _train  # noqa: E402


def problem(seed: int = 0) -> tuple[Any, Any, Any]:
    draws = np.random.default_rng(seed)
    x = torch.tensor(draws.normal(size=(200, 5)), dtype=torch.float32)
    y = x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])[:, None]
    with _device.seeded(seed):
        model = torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1)
        )
    return model, x, y


def train(schedule: _train.Schedule, seed: int = 0, poison: int | None = None) -> tuple[Any, _train.History]:
    model, x, y = problem()

    def batches(epoch: int) -> Any:
        yield from torch.randperm(150).split(50)

    seen = []

    def loss(part: Any) -> Any:
        seen.append(part)
        value = torch.nn.functional.mse_loss(model(x[part]), y[part])
        return value * float("nan") if poison is not None and len(seen) >= poison else value

    def held_out() -> float:
        model.eval()
        with torch.no_grad():
            return float(torch.nn.functional.mse_loss(model(x[150:]), y[150:]))

    return model, _train.fit(model, batches, loss, held_out, schedule, seed=seed, what="test")


def weights(model: Any) -> Any:
    return torch.cat([p.detach().ravel() for p in model.parameters()]).numpy()


def test_it_learns_and_ends_with_the_best_weights() -> None:
    model, history = train(_train.Schedule(epochs=60, learning_rate=0.02))
    assert min(history.held_out) == history.held_out[history.best] < 0.2 * history.held_out[0]
    _, x, y = problem()
    model.eval()
    with torch.no_grad():
        score = float(torch.nn.functional.mse_loss(model(x[150:]), y[150:]))
    assert score == pytest.approx(history.held_out[history.best])


def test_it_stops_when_nothing_improves() -> None:
    _, history = train(_train.Schedule(epochs=500, patience=3, learning_rate=0.05))
    assert history.finished and len(history.held_out) == history.best + 4 < 500


def test_the_same_seed_gives_the_same_bits_and_leaves_the_callers_draws_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, _ = train(_train.Schedule(epochs=5))
    assert torch.equal(torch.rand(3), expected)
    two, _ = train(_train.Schedule(epochs=5))
    other, _ = train(_train.Schedule(epochs=5), seed=1)
    assert np.array_equal(weights(one), weights(two))
    assert not np.array_equal(weights(one), weights(other))


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, expected = train(_train.Schedule(epochs=12))
    train(_train.Schedule(epochs=7, folder=tmp_path, save_every=3))
    resumed, history = train(_train.Schedule(epochs=12, folder=tmp_path, save_every=3))
    assert np.array_equal(weights(resumed), weights(whole))
    assert history.held_out == expected.held_out
    with pytest.raises(sm.InputError, match="another training"):
        train(_train.Schedule(epochs=12, folder=tmp_path), seed=1)


def test_values_that_are_not_finite_are_never_silent() -> None:
    with pytest.raises(sm.InputError, match="does not converge"):
        train(_train.Schedule(epochs=20), poison=4)


def test_one_bad_epoch_is_got_over() -> None:
    model, x, y = problem()
    calls = []

    def loss(part: Any) -> Any:
        calls.append(part)
        value = torch.nn.functional.mse_loss(model(x), y)
        return value * float("nan") if len(calls) == 3 else value

    history = _train.fit(
        model, lambda epoch: [0], loss, lambda: float(len(calls)), _train.Schedule(epochs=6), seed=0, what="t"
    )
    assert history.halvings == 1 and len(history.loss) == 5 and np.isfinite(weights(model)).all()


def test_a_saved_model_comes_back_and_bad_ones_are_refused(tmp_path: Path) -> None:
    state = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.int64)}
    _store.save(tmp_path / "m", "test", {"dim": 3}, state)
    config, found = _store.load(tmp_path / "m", "test")
    assert config["dim"] == 3 and all(torch.equal(found[k], v) for k, v in state.items())
    with pytest.raises(sm.InputError, match="no model of kind"):
        _store.load(tmp_path / "m", "other")
    with pytest.raises(sm.InputError, match="missing"):
        _store.load(tmp_path / "nothing", "test")
    whole = (tmp_path / "m" / _store.WEIGHTS).read_bytes()
    (tmp_path / "m" / _store.WEIGHTS).write_bytes(whole[:40])
    with pytest.raises(sm.InputError, match="cannot be read"):
        _store.load(tmp_path / "m", "test")


def test_devices() -> None:
    assert _device.resolve("cpu").type == "cpu"
    assert _device.resolve("auto").type in ("cpu", "cuda", "mps")
    for name in ("abacus", "cuda:77"):
        with pytest.raises(sm.InputError, match="device"):
            _device.resolve(name)


def test_seeds_of_several_parts_differ() -> None:
    seeds = {_device.seed_of(a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
