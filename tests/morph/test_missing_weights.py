"""What a user reads where weights, devices or folders are not what they should be; never a look at the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sections import section

import smeld as sm
from smeld.morph import encoders

torch = pytest.importorskip("torch", reason="needs smeld[deep]")

from safetensors.torch import save_file  # noqa: E402
from small_networks import IMAGE, SCALING, XY, encode, hf_folder, offline, tiles, timm_folder  # noqa: E402, F401

from smeld.nn import _encoder_weights  # noqa: E402

pytestmark = pytest.mark.usefixtures("offline")


PRETRAINED = [name for name in encoders if "repo" in encoders[name].facts]


@pytest.mark.parametrize("name", PRETRAINED)
def test_missing_weights_are_one_line_that_says_how_to_get_them(name):
    adata = section(IMAGE, XY, um_per_px=0.5)
    with pytest.raises(sm.InputError) as caught:
        sm.morph.embed(adata, name)
    message, facts = str(caught.value), encoders[name].facts
    assert "\n" not in message and facts["repo"] in message and facts["license"] in message
    assert ("hf auth login" in message) == facts["gated"]
    for word in ("download=True", "SMELD_DOWNLOAD=1", "weights=", "'texture' and 'self' need no weights"):
        assert word in message
    assert not adata.obsm.keys() - {"spatial", "spatial_um"}


def test_a_download_that_fails_says_why(monkeypatch):
    import huggingface_hub

    def fail(repo: str, **keywords: object) -> str:
        assert not keywords["local_files_only"] and "*.bin" not in keywords["allow_patterns"]
        raise OSError("401 for this repository")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    for options in ({"download": True}, {}):
        if not options:
            monkeypatch.setenv(_encoder_weights.DOWNLOAD_VARIABLE, "1")
        with pytest.raises(sm.InputError, match=r"401 for this repository.*hf auth login"):
            sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), "virchow2", **options)


def empty(folder: Path) -> None:
    folder.mkdir()


def pickled(folder: Path) -> None:
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")


def torn(folder: Path) -> None:
    hf_folder(folder)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:200])


def without_config(folder: Path) -> None:
    hf_folder(folder)
    (folder / "config.json").unlink()


def broken_config(folder: Path) -> None:
    hf_folder(folder)
    (folder / "config.json").write_text("{")


def other_weights(folder: Path) -> None:
    hf_folder(folder)
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})


def other_timm_weights(folder: Path) -> None:
    timm_folder(folder, img_size=32, depth=1, embed_dim=24, num_heads=2)
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")


def with_code(folder: Path) -> None:
    hf_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "made_up", "auto_map": {"AutoModel": "modeling.Model", "AutoConfig": "modeling.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('code of a repository was run')")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "is no folder; found: nothing there"),
        (empty, "no .safetensors"),
        (pickled, "only pickled weights, which smeld does not open.*convert them once"),
        (torn, "do not fit their network"),
        (without_config, "no config.json that says which network it is"),
        (broken_config, "config.json in model cannot be read"),
        (other_weights, "missing or of another shape"),
        (other_timm_weights, "missing or of another shape.*left over: a"),
        (with_code, "do not fit their network"),
    ],
)
def test_folders_that_are_not_what_they_should_be(tmp_path, make, message):
    make(tmp_path / "model")
    with pytest.raises(sm.InputError, match=message) as caught:
        sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), f"hf:{tmp_path / 'model'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:resnet9999", {}, "timm knows no network 'resnet9999'"),
        ("timm:resnet18", {}, "hub: timm/resnet18"),
        ("hf:nobody/nothing", {}, "nothing of nobody/nothing in the hub's cache"),
        ("hub:x", {}, "unknown encoder 'hub:x'.*hf:\\.\\.\\."),
        ("hf:", {}, "unknown encoder"),
    ],
)
def test_names_that_lead_nowhere(name, options, message):
    with pytest.raises(sm.InputError, match=message):
        sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), name, **options)


def test_a_device_that_is_not_there(tmp_path):
    folder = hf_folder(tmp_path / "model")
    with pytest.raises(sm.InputError, match="device 'cuda:77' is not there"):
        sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), f"hf:{folder}", device="cuda:77")


def test_a_cache_that_is_a_file(tmp_path):
    folder = hf_folder(tmp_path / "model")
    (tmp_path / "file").write_text("x")
    with pytest.raises(sm.InputError, match="cache file is no folder"):
        sm.morph.embed(section(IMAGE, XY, um_per_px=0.5), f"hf:{folder}", cache=tmp_path / "file")


def test_families_are_looked_up_and_stand_in_no_list():
    assert encoders.families == ["hf", "timm"] and not any(":" in name for name in encoders)
    assert "timm:resnet18" in encoders and "hf:" not in encoders and "tim:resnet18" not in encoders
    assert encoders["timm:resnet18"].name == "timm:resnet18" and len(encoders["hf:a/b"].summary) > 20
    with pytest.raises(ValueError, match="twice"):
        encoders.add_family("timm")(lambda name: lambda spec: lambda made: made)  # type: ignore[arg-type,return-value]
