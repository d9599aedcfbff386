"""``mobilenet_v1`` against a forward pass in plain numpy, on weights made up here and on the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sections import he_image, section, spots

import smeld as sm
from smeld.morph import Options, TileSpec, encoders

torch = pytest.importorskip("torch", reason="needs smeld[deep]")

Weights = dict[str, NDArray[np.float32]]
HALVING = (2, 4, 6, 12)


def widths(first: int) -> list[tuple[int, int]]:
    """(channels in, channels out) of the 13 blocks, whose first layer has ``first``."""
    out = [2 * first, 4 * first, 4 * first, 8 * first, 8 * first, *[16 * first] * 6, 32 * first, 32 * first]
    return list(zip([first, *out[:-1]], out))


def made_up(path: Path, first: int = 2) -> Path:
    rng = np.random.default_rng(0)
    weights: Weights = {}

    def layer(name: str, kernel: str, shape: tuple[int, ...], n: int) -> None:
        weights[f"{name}/{kernel}"] = rng.normal(0, 1 / np.sqrt(np.prod(shape[:3])), shape).astype(np.float32)
        for part, low, high in (
            ("gamma", 0.5, 2),
            ("beta", -1, 1),
            ("moving_mean", -1, 1),
            ("moving_variance", 0.1, 2),
        ):
            weights[f"{name}_bn/{part}"] = rng.uniform(low, high, n).astype(np.float32)

    layer("conv1", "kernel", (3, 3, 3, first), first)
    for i, (n_in, n_out) in enumerate(widths(first), start=1):
        layer(f"conv_dw_{i}", "depthwise_kernel", (3, 3, n_in, 1), n_in)
        layer(f"conv_pw_{i}", "kernel", (1, 1, n_in, n_out), n_out)
    np.savez(path, **weights)
    return path


def slow(weights: Weights, tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Features of one tile, as Keras defines the layers; float64, height x width x channels throughout."""

    def normed(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        gamma, beta, mean, variance = (
            weights[f"{name}_bn/{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return np.clip((x - mean) / np.sqrt(variance + 1e-3) * gamma + beta, 0, 6)

    def shifted(x: NDArray[np.float64], stride: int) -> NDArray[np.float64]:
        """[height out, width out, channels, 3, 3]: what each place of the result looks at."""
        before = 0 if stride == 2 else 1
        x = np.pad(x, ((before, 1), (before, 1), (0, 0)))
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::stride, ::stride]

    x = tile.astype(np.float64) / 127.5 - 1
    x = normed(np.einsum("hwcij,ijco->hwo", shifted(x, 2), weights["conv1/kernel"], optimize=True), "conv1")
    for i in range(1, 14):
        kernel = weights[f"conv_dw_{i}/depthwise_kernel"][..., 0]
        x = np.einsum("hwcij,ijc->hwc", shifted(x, 2 if i in HALVING else 1), kernel)
        x = normed(x, f"conv_dw_{i}")
        x = normed(x @ weights[f"conv_pw_{i}/kernel"][0, 0].astype(np.float64), f"conv_pw_{i}")
    return x.mean(axis=(0, 1))


def some_tiles(n: int) -> NDArray[np.uint8]:
    """Noise and tissue."""
    noise = np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    tissue = [he_image(224, 224, um_per_px=0.5, seed=i) for i in range(n - 1)]
    return np.concatenate([noise, np.stack(tissue)])


def check(path: Path, n_tiles: int, n_features: int) -> None:
    with np.load(path, allow_pickle=False) as stored:
        weights = {name: stored[name] for name in stored.files}
    tiles = some_tiles(n_tiles)
    found = encoders["mobilenet_v1"](TileSpec(224, 0.5, device="cpu", options=Options(weights=path)))(tiles)
    assert found.shape == (n_tiles, n_features)
    expected = np.stack([slow(weights, tile) for tile in tiles])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


def test_against_numpy(tmp_path):
    check(made_up(tmp_path / "small.npz"), 3, 64)


def test_the_real_weights_against_numpy(shared_data):
    check(shared_data / "mobilenet_v1" / "mobilenet_v1_0.75_224.npz", 3, 768)


def test_embed_finds_the_file(tmp_path, monkeypatch):
    image, xy = he_image(), spots(6, 240, 240, margin=70)
    file = made_up(tmp_path / "small.npz")
    named = sm.morph.embed(section(image, xy), "mobilenet_v1", weights=file, quiet=True)
    assert named.tile_um == (112.0,) and named.features.shape == (6, 64)
    (tmp_path / "all" / "mobilenet_v1").mkdir(parents=True)
    file.rename(tmp_path / "all" / "mobilenet_v1" / "any.npz")
    monkeypatch.setenv("SMELD_WEIGHTS", str(tmp_path / "all"))
    again = sm.morph.embed(section(image, xy), "mobilenet_v1", quiet=True)
    assert np.array_equal(named.features, again.features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda p: None,
            "weights of encoder 'mobilenet_v1' are not here; found: no a.npz.*weights=.*'texture' and 'self'",
        ),
        (lambda p: p.write_bytes(b"no archive"), "a.npz holds no weights of MobileNet v1"),
        (
            lambda p: p.write_bytes(b"PK\x03\x04" + bytes(100)),
            "a.npz holds no weights of MobileNet v1; found: BadZipFile",
        ),
        (lambda p: np.savez(p, other=np.zeros(3)), "a.npz holds no weights of MobileNet v1; found: KeyError"),
        (lambda p: np.savez(p, conv1=np.array({"a": 1}, dtype=object)), "a.npz holds no weights"),
        (lambda p: p.mkdir(), "one .npz of MobileNet v1 is needed, a.npz has none"),
    ],
)
def test_bad_files_are_refused(tmp_path, make, message):
    path = tmp_path / "a.npz"
    make(path)
    with pytest.raises(sm.InputError, match=message) as caught:
        sm.morph.embed(section(he_image(), spots(4, 240, 240)), "mobilenet_v1", weights=path)
    assert "\n" not in str(caught.value)
