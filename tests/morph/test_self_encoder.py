"""``self``: learns from the section, the same for the same seed, hardly changed by turning or staining the section."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from sections import E, H, he_image, section, spots

import smeld as sm
from smeld.morph import Section, TileSpec, _plan, encoders, self_supervised

torch = pytest.importorskip("torch", reason="needs smeld[deep]")

from smeld.nn import _self  # noqa: E402

Plan = _self.Plan

HEIGHT, WIDTH = 360, 420
IMAGE = he_image(HEIGHT, WIDTH)
XY = spots(30, HEIGHT, WIDTH, margin=60)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Little training: enough to see what is asked here."""
    patch.setattr(self_supervised, "MOST", 72)
    patch.setattr(_self, "EPOCH", 72)
    patch.setattr(_self, "BATCH", 36)
    patch.setattr(_self, "Plan", lambda epochs=3: Plan(epochs))


def embedded(image: np.ndarray = IMAGE, xy: np.ndarray = XY, **options: object) -> pd.DataFrame:
    return sm.morph.embed(section(image, xy), "self", quiet=True, **options).features


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return embedded()


def far(a: pd.DataFrame, b: pd.DataFrame) -> float:
    """Distance of two sets of features, in shares of the distance between different spots of the first."""
    x, y = a.to_numpy(), b.to_numpy()
    between = np.linalg.norm(x - x.mean(axis=0), axis=1).mean()
    return float(np.linalg.norm(x - y, axis=1).mean() / between)


def test_same_seed_same_bits_whatever_the_threads(features):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        again = embedded()
    finally:
        torch.set_num_threads(before)
    pd.testing.assert_frame_equal(again, features, check_exact=True)
    assert far(features, embedded(seed=1)) > 0.3


def test_permuting_spots_permutes_features(features):
    order = np.random.default_rng(0).permutation(len(XY))
    again = sm.morph.embed(section(IMAGE, XY)[order].copy(), "self", quiet=True).features
    np.testing.assert_allclose(again, features.iloc[order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_the_section_hardly_changes_features(features, turns):
    image, xy = IMAGE, XY
    for _ in range(turns):
        xy = np.stack([xy[:, 1], image.shape[1] - 1 - xy[:, 0]], axis=1)
        image = np.rot90(image)
    assert far(features, embedded(image, xy)) < 0.1


def test_training_makes_features_of_tissue_and_not_of_staining():
    """Against the same network before training: staining counts for less, the density of nuclei for no less."""
    rng = np.random.default_rng(100)
    maps = np.zeros((96, 2, 48, 48), dtype=np.float32)
    dense = np.arange(len(maps)) % 2
    for tile, many in zip(maps, dense):
        at = rng.integers(0, 48, (17 if many else 7, 2))
        tile[0, at[:, 0], at[:, 1]] = 20
        tile[0] = ndimage.gaussian_filter(tile[0], 1.5)
        tile[1] = 0.4 + 0.1 * ndimage.gaussian_filter(rng.normal(size=(48, 48)), 4) * 8
    restained = maps * rng.uniform(0.75, 1.25, (len(maps), 2, 1, 1)).astype(np.float32)
    learnt = _self.train(maps, seed=100, device="cpu", plan=Plan(epochs=12))
    with torch.random.fork_rng():
        torch.manual_seed(100)
        before = _self.Tissue(2).eval()
    moved, told = {}, {}
    for name, model in (("learnt", learnt), ("before", before)):
        x, y = _self.features(model, maps), _self.features(model, restained)
        spread = x.std(axis=0) + 1e-6
        moved[name] = np.linalg.norm((x - y) / spread, axis=1).mean()
        gap = (x[dense == 1].mean(axis=0) - x[dense == 0].mean(axis=0)) / (x[dense == 1].std(axis=0) + 1e-6)
        told[name] = np.sort(np.abs(gap))[-16:].mean()
    assert moved["learnt"] < 0.8 * moved["before"]
    assert told["learnt"] > 0.8 * told["before"] and told["learnt"] > 1.5


def test_loss_against_numpy():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 9, 5))
    loss = 25 * np.mean([(x - y) ** 2 for x, y in zip(a.ravel(), b.ravel())])
    for z in (a, b):
        cov = np.cov(z.T)
        loss += 25 / 2 * np.mean([max(0.0, 1 - np.sqrt(v + 1e-4)) for v in np.diag(cov)])
        loss += sum(cov[i, j] ** 2 for i in range(5) for j in range(5) if i != j) / 5
    assert float(_self.vicreg(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("side", [6, 7])
def test_tiles_of_a_turned_section_are_set_upright_alike(side):
    rng = np.random.default_rng(3)
    tile, xy = rng.integers(0, 256, (1, side, side, 3), dtype=np.uint8), rng.random((9, 2))
    found, views = set(), set()
    for number in range(8):
        view, at = tile, xy
        for _ in range(number % 4):
            view, at = np.rot90(view, axes=(1, 2)), np.stack([at[:, 1], 1 - at[:, 0]], axis=1)
        if number >= 4:
            view, at = view[:, :, ::-1], np.stack([1 - at[:, 0], at[:, 1]], axis=1)
        views.add(np.ascontiguousarray(view).tobytes())
        found.add(_plan.upright(view, _plan.lies(at)).tobytes())
    assert len(views) == 8 and len(found) == 1 and found <= views


def test_features_are_the_mean_over_the_eight_views():
    torch.manual_seed(0)
    model = _self.Tissue(2).eval().requires_grad_(False)
    maps = np.random.default_rng(4).random((3, 2, 20, 20)).astype(np.float32)
    found = _self.features(model, maps)
    for number in range(8):
        view = _self.turned(torch.from_numpy(maps), number).contiguous().numpy()
        np.testing.assert_allclose(_self.features(model, view), found, rtol=1e-5, atol=1e-6)
    one = np.mean([model(_self.turned(torch.from_numpy(maps[:1]), n)).numpy() for n in range(8)], axis=0)
    np.testing.assert_allclose(found[:1], one, rtol=1e-5, atol=1e-6)


def test_an_interrupted_training_goes_on(tmp_path, features, monkeypatch):
    steps = []
    loss = _self.vicreg

    def counted(a, b):
        steps.append(1)
        if len(steps) == stop:
            raise KeyboardInterrupt
        return loss(a, b)

    monkeypatch.setattr(_self, "vicreg", counted)
    stop = 10**6
    embedded()
    whole, stop = len(steps), len(steps) - 1
    steps.clear()
    with pytest.raises(KeyboardInterrupt):
        embedded(cache=tmp_path)
    stop = 10**6
    steps.clear()
    pd.testing.assert_frame_equal(embedded(cache=tmp_path), features, check_exact=True)
    assert len(steps) < whole
    steps.clear()
    pd.testing.assert_frame_equal(embedded(cache=tmp_path), features, check_exact=True)


def test_the_sample_is_spread_evenly_and_filled_up_between_neighbours():
    xy = np.stack(np.meshgrid(np.arange(5.0) * 40 + 60, np.arange(4.0) * 40 + 60), axis=-1).reshape(-1, 2)
    between = _plan.between_neighbours(xy)
    assert len(between) == (4 * 4) + (5 * 3) + (4 * 3), "sides of squares, and their middles once"
    distance = np.linalg.norm(between[:, None] - xy, axis=2).min(axis=1)
    assert set(np.round(distance, 6)) == {20.0, np.round(20 * np.sqrt(2), 6)}
    assert len(_plan.between_neighbours(xy[:1])) == 0
    np.testing.assert_array_equal(_plan.evenly(np.arange(10.0), 4), [0, 2, 5, 7])
    adata = section(IMAGE, xy)
    facts = dict(encoders["self"].facts)
    image = sm._adapt.image(adata)
    cut = _plan.plan(image, [60.0], facts, device="cpu", brightfield=True)[0]
    order = np.arange(len(xy))[::-1]
    assert len(_plan.sampler(cut, xy, order)(7)) == 7 and len(_plan.sampler(cut, xy, order)(1000)) == 20 + 43


def test_it_needs_a_section():
    with pytest.raises(sm.InputError, match="learns from a section"):
        encoders["self"](TileSpec(64, 1.75))
    few = TileSpec(
        64, 1.75, section=Section(np.full(3, 255, np.uint8), np.zeros(64**3, np.int64)),
        sample=lambda n: np.zeros((2, 64, 64, 3), np.uint8),
    )  # fmt: skip
    with pytest.raises(sm.InputError, match="needs at least 4 tiles; found: 2"):
        encoders["self"](few)


def test_one_colour_gives_finite_features():
    image = np.full((300, 300, 3), (245 * 10 ** -(0.3 * H + 0.4 * E)).round(), dtype=np.uint8)
    found = embedded(image, spots(8, 300, 300, margin=70)).to_numpy()
    assert np.isfinite(found).all() and np.ptp(found, axis=0).max() < 1e-4
