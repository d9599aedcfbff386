"""Every registered encoder keeps the contract; a new one needs no edit here.

Encoders whose weights are not on this machine are not run: they are tested with made-up weights in
``test_deep_encoders.py``.
"""

from __future__ import annotations

import numpy as np
import pytest

from smeld import InputError
from smeld.kernels import stain
from smeld.morph import Encoder, Options, Section, TileSpec, encoders

NAMES = sorted(encoders)


def tile_px(name: str) -> int:
    return int(encoders[name].facts["tile_px"] or 45)


def some_tiles(px: int) -> np.ndarray:
    made = np.random.default_rng(0).integers(0, 256, (5, px, px, 3), dtype=np.uint8)
    made[3] = 255
    made[4] = 0
    return made


def spec_for(name: str) -> TileSpec:
    """The tiles an encoder was made for; 45 pixels of 1 um for those that take any resolution."""
    tiles = some_tiles(tile_px(name))
    section = Section(np.full(3, 255, dtype=np.uint8), stain.colour_counts(tiles))
    um_per_px = encoders[name].facts["um_per_px"] or 1.0
    return TileSpec(tile_px(name), um_per_px, device="cpu", section=section, sample=lambda n: tiles[:n])


def runnable(name: str):
    prepare = encoders[name].facts.get("prepare")
    if prepare is not None:
        try:
            prepare(name, Options())
        except InputError as error:
            pytest.skip(str(error))
    return encoders[name](spec_for(name))


@pytest.fixture(scope="module")
def random_tiles() -> dict[int, np.ndarray]:
    return {px: some_tiles(px) for px in {tile_px(name) for name in NAMES}}


def test_the_folder_was_found():
    assert {"texture", "self", "phikon_v2"} <= set(NAMES)


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
    tiles = random_tiles[tile_px(name)]
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
    tiles = random_tiles[tile_px(name)]
    whole = encode(tiles)
    # neural encoders may round differently in batches of another size
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_array_equal(whole, encode(tiles))
    np.testing.assert_allclose(np.concatenate([encode(tiles[i : i + 1]) for i in range(len(tiles))]), whole, **close)
    np.testing.assert_allclose(encode(np.ascontiguousarray(tiles[::-1]))[::-1], whole, **close)
    np.testing.assert_allclose(encoders[name](spec_for(name))(tiles), whole, **close)
