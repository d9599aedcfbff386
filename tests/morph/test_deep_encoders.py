"""Encoders with pretrained weights, on small networks of random weights in the forms that real ones come in: the same
files, the same loading, the libraries' own processors as oracles. Nothing here touches the network."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sections import section

import smeld as sm
from smeld.morph import _stream, encoders

torch = pytest.importorskip("torch", reason="needs smeld[deep]")

from small_networks import IMAGE, SCALING, XY, encode, hf_folder, offline, tiles, timm_folder  # noqa: E402, F401

from smeld.nn import _encoder, _encoder_libraries, _encoder_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("offline")


# -- against the libraries' own processors -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vit", "registers", "resnet"])
def test_a_folder_of_transformers_against_its_own_processor(tmp_path, kind):
    folder = hf_folder(tmp_path / "model", kind)
    library = _encoder_libraries.transformers()
    model = library.AutoModel.from_pretrained(folder).eval()
    processor = library.AutoImageProcessor.from_pretrained(folder)
    made = tiles(5, 32)
    for tile, got in zip(made, encode(f"hf:{folder}", 32, made)):
        with torch.no_grad():
            hidden = model(**processor(images=tile, return_tensors="pt")).last_hidden_state[0]
        expected = hidden.mean(dim=(1, 2)) if kind == "resnet" else hidden[0]
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", ["normalised", "only rescaled", "raw"])
def test_scaling_is_the_processors_own(tmp_path, channels):
    folder = hf_folder(tmp_path / "model")
    library = _encoder_libraries.transformers()
    how = {
        "normalised": {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}},
        "only rescaled": {"size": {"height": 32, "width": 32}, "do_normalize": False, "rescale_factor": 1 / 128},
        "raw": {"size": {"height": 32, "width": 32}, "do_normalize": False, "do_rescale": False},
    }[channels]
    kind = library.BitImageProcessor if channels == "normalised" else library.ViTImageProcessor
    kind(**SCALING, **how).save_pretrained(folder)
    processor = library.AutoImageProcessor.from_pretrained(folder)
    network = _encoder.load(folder, _encoder.Recipe())
    made = tiles(3, 32)
    got = network.scaling(torch.from_numpy(made).permute(0, 3, 1, 2)).numpy()
    expected = np.stack([processor(images=t, return_tensors="np", do_resize=False)["pixel_values"][0] for t in made])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert network.px == _encoder.tile_px(folder) == 32


def test_a_folder_of_timm_against_its_own_transform(tmp_path):
    from PIL import Image

    folder = timm_folder(tmp_path / "model", img_size=32, depth=1, embed_dim=24, num_heads=2)
    timm = _encoder_libraries.timm()
    model = timm.create_model("vit_small_patch8_224", num_classes=7, img_size=32, depth=1, embed_dim=24, num_heads=2)
    model.load_state_dict(_encoder.load_file(folder / "model.safetensors"))
    model.reset_classifier(0)
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    transform = timm.data.create_transform(
        input_size=config["input_size"], mean=config["mean"], std=config["std"], crop_pct=1.0, interpolation="bicubic"
    )
    made = tiles(5, 32)
    got = encode(f"hf:{folder}", 32, made)  # a folder of timm is known by its configuration
    for tile, features in zip(made, got):
        with torch.no_grad():
            expected = model.eval()(transform(Image.fromarray(tile))[None])[0]
        np.testing.assert_allclose(features, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(encode("timm:vit_small_patch8_224", 32, made, weights=folder), got)


def test_class_token_beside_the_mean_of_patches_leaves_registers_out(tmp_path):
    made = tiles(3, 32)
    pixels = torch.from_numpy(made).permute(0, 3, 1, 2)
    recipe = _encoder.Recipe(pool="cls+mean")
    for folder, own in ((hf_folder(tmp_path / "hf", "registers"), 3), (tmp_path / "timm", 4)):
        if own == 4:
            timm_folder(folder, "vit_giant_patch14_reg4_dinov2", img_size=28, depth=1, embed_dim=24, num_heads=2)
        network = _encoder.load(folder, recipe)
        x = network.scaling(pixels[..., : network.px, : network.px])
        inner = network.module.model
        with torch.no_grad():
            tokens = inner.forward_features(x) if own == 4 else inner(pixel_values=x).last_hidden_state
            got = network.module(x).numpy()
        for row, one in zip(got, tokens.numpy()):
            expected = np.concatenate([one[0], one[1 + own :].mean(axis=0)])
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)


PARAMETERS = {"resnet50": 23.5, "lunit_vit_s8": 21.7, "h_optimus_0": 1134.8, "uni2_h": 681.4, "virchow2": 631.2}


@pytest.mark.parametrize("name", PARAMETERS)
def test_recipes_make_networks_of_the_published_size(name):
    """Millions of parameters (without classifier) and features, of networks that are never filled."""
    facts = encoders[name].facts
    arguments = {k: _encoder._layer(v) for k, v in facts.get("arguments", {}).items()}
    with torch.device("meta"):
        model = _encoder_libraries.timm().create_model(facts["architecture"], num_classes=0, **arguments).eval()
        whole = _encoder._TimmTokens(model, mean=True) if facts.get("pool") == "cls+mean" else model
        assert whole(torch.zeros(1, 3, facts["tile_px"], facts["tile_px"])).shape == (1, facts["dim"])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], abs=0.06)


# -- in embed ------------------------------------------------------------------------------------------------


def test_embed_with_a_local_folder(tmp_path):
    folder = hf_folder(tmp_path / "my-model.v2")
    adata = section(IMAGE, XY, um_per_px=0.5)
    result = sm.morph.embed(adata, f"hf:{folder}", quiet=True)
    assert result.key == "morph_hf_my_model_v2", "keys do not depend on where the folder lies"
    assert list(result.features)[:2] == ["hf_my_model_v2_0", "hf_my_model_v2_1"]
    assert (result.tile_um, result.um_per_px) == ((16.0,), (0.5,)), "32 pixels of 0.5 um"
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), f"hf:{folder}", batch_size=3, quiet=True)
    np.testing.assert_allclose(again.features, result.features, rtol=1e-4, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(XY))
    turned = sm.morph.embed(section(IMAGE, XY, um_per_px=0.5)[order].copy(), f"hf:{folder}", quiet=True).features
    np.testing.assert_allclose(turned, result.features.iloc[order], rtol=1e-4, atol=1e-5)


def test_a_card_finds_its_weights_and_uses_its_own_scaling(tmp_path, monkeypatch):
    timm_folder(tmp_path / "all" / "lunit_vit_s8", depth=1)
    monkeypatch.setenv(_encoder_weights.FOLDER_VARIABLE, str(tmp_path / "all"))
    made = tiles(2, 224)
    got = encode("lunit_vit_s8", 224, made)
    network = _encoder.load(tmp_path / "all" / "lunit_vit_s8", _encoder.Recipe())
    facts = encoders["lunit_vit_s8"].facts
    x = (made.transpose(0, 3, 1, 2) / 255 - np.reshape(facts["mean"], (3, 1, 1))) / np.reshape(facts["std"], (3, 1, 1))
    with torch.no_grad():
        expected = network.module(torch.from_numpy(x.astype(np.float32)))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)
    with pytest.raises(sm.InputError, match="384 features, its card says 2048"):
        encode("resnet50", 224, made, weights=tmp_path / "all" / "lunit_vit_s8")


def test_the_hubs_cache_is_looked_into(tmp_path):
    repo = tmp_path / "hub" / "models--someone--small"
    hf_folder(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    made = tiles(2, 32)
    got = encode("hf:someone/small", 32, made)
    assert np.array_equal(got, encode(f"hf:{repo / 'snapshots' / 'abc'}", 32, made))
    key = sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), "hf:someone/small", quiet=True).key
    assert key == "morph_hf_someone_small"


def test_tiles_come_from_a_pyramid_at_the_encoders_resolution(tmp_path):
    import tifffile

    from smeld import _image

    fine = np.repeat(np.repeat(IMAGE, 3, axis=0), 3, axis=1)
    path = tmp_path / "scan.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(fine, subifds=1, tile=(64, 64), photometric="rgb")
        file.write(IMAGE, subfiletype=1, tile=(64, 64), photometric="rgb")  # reduced to the encoder's .5 um
    adata = section(fine, XY * 3 + 1, um_per_px=1 / 6)
    folder = hf_folder(tmp_path / "model")
    inside = sm.morph.embed(adata, f"hf:{folder}", quiet=True).features
    opened = _image.open_image(path, scale=1.0, um_per_px=1 / 6)
    from_file = section(fine, XY * 3 + 1, um_per_px=1 / 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smeld._adapt.image", lambda *a, **k: opened)
        found = sm.morph.embed(from_file, f"hf:{folder}", quiet=True).features
    np.testing.assert_allclose(found, inside, rtol=0.05, atol=0.05)  # from the stored reduced copy
    coarse = sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), f"hf:{folder}", quiet=True).features
    np.testing.assert_allclose(coarse, inside, rtol=0.05, atol=0.05)


def test_an_interrupted_embedding_goes_on(tmp_path, monkeypatch):
    folder, cache = hf_folder(tmp_path / "model"), tmp_path / "cache"
    name = f"hf:{folder}"
    seen: list[int] = []
    run = _encoder.Runner.__call__

    def counted(self, made):
        seen.append(len(made))
        if len(seen) == 3:
            raise KeyboardInterrupt
        return run(self, made)

    options = {"batch_size": 3, "cache": cache, "quiet": True}
    whole = sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), name, batch_size=3, quiet=True).features
    monkeypatch.setattr(_encoder.Runner, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), name, **options)
    assert len(list(cache.glob("*.npy"))) == 2 and not list(cache.glob(".saving*"))
    broken = sorted(cache.glob("*.npy"))[0]
    broken.write_bytes(broken.read_bytes()[:40])
    found = sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), name, **options).features
    assert len(seen) == 3 + 3, "one batch was kept, the broken one and two others were made"
    assert np.array_equal(found, whole)
    sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), name, **options)
    assert len(seen) == 6
    other = IMAGE.copy()
    other[60:, 60:] //= 2
    assert not np.array_equal(sm.morph.embed(section(other, XY, um_per_px=0.5), name, **options).features, whole)


def test_reading_ahead_keeps_order_and_errors():
    assert list(_stream.ahead(iter(range(50)))) == list(range(50))

    def failing():
        yield 1
        raise OSError("the disk is gone")

    found = _stream.ahead(failing())
    assert next(found) == 1
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    made: list[int] = []
    endless = _stream.ahead(made.append(i) or i for i in range(10**9))
    assert next(endless) == 0
    endless.close()
    assert len(made) <= 3


def test_half_precision_is_close_and_has_a_key_of_its_own(tmp_path):
    network = _encoder.load(hf_folder(tmp_path / "model"), _encoder.Recipe())
    full, half = _encoder.Runner(network, "cpu"), _encoder.Runner(network, "cpu", autocast=True)
    made = tiles(4, 32)
    assert np.abs(full(made) - half(made)).max() < 0.05 * np.abs(full(made)).max()
    assert full.fingerprint() != half.fingerprint()
