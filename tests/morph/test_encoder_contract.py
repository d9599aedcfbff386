"""Every registered encoder keeps the contract; a new one needs no edit here.

Encoders whose card says ``gated`` are not run: their weights need an account.
"""

from __future__ import annotations

import numpy as np
import pytest

from smeld.morph import Encoder, TileSpec, encoders

NAMES = sorted(encoders)


def spec_for(name: str) -> TileSpec:
    """The tiles an encoder was made for; 45 pixels of 1 um for those that take any resolution."""
    facts = encoders[name].facts
    return TileSpec(facts["tile_px"] or 45, facts["um_per_px"] or 1.0, device="cpu")


def runnable(name: str):
    if encoders[name].facts["gated"]:
        pytest.skip(f"the weights of {name} need an account")
    return encoders[name](spec_for(name))


@pytest.fixture(scope="module")
def random_tiles() -> dict[int, np.ndarray]:
    rng = np.random.default_rng(0)

    def tiles(px: int) -> np.ndarray:
        made = rng.integers(0, 256, (5, px, px, 3), dtype=np.uint8)
        made[3] = 255
        made[4] = 0
        return made

    return {spec_for(name).tile_px: tiles(spec_for(name).tile_px) for name in NAMES}


def test_the_folder_was_found():
    assert "texture" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card(name):
    card = encoders[name]
    facts = card.facts
    assert isinstance(facts["license"], str) and facts["license"]
    assert isinstance(facts["gated"], bool)
    assert (facts["um_per_px"] is None) == (facts["tile_px"] is None)
    if facts["um_per_px"] is not None:
        assert facts["um_per_px"] > 0 and facts["tile_px"] >= 3
    assert facts["dim"] is None or facts["dim"] > 0
    context = facts.get("context", (1.0,))
    assert context[0] == 1.0 and list(context) == sorted(set(context))
    assert card.summary, "a docstring whose first line says what it is"


@pytest.mark.parametrize("name", NAMES)
def test_features(name, random_tiles):
    encode = runnable(name)
    tiles = random_tiles[spec_for(name).tile_px]
    kept = tiles.copy()
    features = encode(tiles)
    assert np.array_equal(tiles, kept), "tiles are left as they were"
    assert features.dtype == np.float32 and features.ndim == 2 and len(features) == len(tiles)
    assert np.isfinite(features).all(), "random, white and black tiles alike"
    dim = encoders[name].facts["dim"]
    assert dim is None or features.shape[1] == dim
    if isinstance(encode, Encoder):
        assert len(encode.names) == len(set(encode.names)) == features.shape[1]
    assert np.ptp(features, axis=0).max() > 0, "different tiles differ"
    assert encode(tiles[:0]).shape == (0, features.shape[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_tiles_features_depend_on_that_tile_alone(name, random_tiles):
    encode = runnable(name)
    tiles = random_tiles[spec_for(name).tile_px]
    whole = encode(tiles)
    # neural encoders may round differently in batches of another size
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_array_equal(whole, encode(tiles))
    np.testing.assert_allclose(np.concatenate([encode(tiles[i : i + 1]) for i in range(len(tiles))]), whole, **close)
    np.testing.assert_allclose(encode(np.ascontiguousarray(tiles[::-1]))[::-1], whole, **close)
    np.testing.assert_allclose(encoders[name](spec_for(name))(tiles), whole, **close)
