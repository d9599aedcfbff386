"""Small networks of random weights in the forms that real ones come in, and a section to use them on."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sections import he_image, spots

from smeld.morph import Options, TileSpec, encoders
from smeld.nn import _encoder_libraries, _encoder_weights

HEIGHT, WIDTH = 200, 240
IMAGE = he_image(HEIGHT, WIDTH)
XY = spots(10, HEIGHT, WIDTH, margin=40)
SCALING = {"image_mean": [0.7, 0.55, 0.68], "image_std": [0.2, 0.25, 0.18]}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, no weights of this machine's user."""
    from huggingface_hub import constants

    def refuse(*args: object, **keywords: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv(_encoder_weights.FOLDER_VARIABLE, raising=False)
    monkeypatch.delenv(_encoder_weights.DOWNLOAD_VARIABLE, raising=False)


def hf_folder(folder: Path, kind: str = "vit") -> Path:
    """A small network of transformers with its image processor."""
    library = _encoder_libraries.transformers()
    torch.manual_seed(0)
    size = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    if kind == "vit":
        model = library.ViTModel(library.ViTConfig(intermediate_size=32, **size), add_pooling_layer=False)
    elif kind == "registers":
        model = library.Dinov2WithRegistersModel(library.Dinov2WithRegistersConfig(num_register_tokens=3, **size))
    else:
        model = library.ResNetModel(
            library.ResNetConfig(embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1], layer_type="basic")
        )
    model.eval().save_pretrained(folder)
    library.ViTImageProcessor(size={"height": 32, "width": 32}, **SCALING).save_pretrained(folder)
    return folder


def timm_folder(folder: Path, name: str = "vit_small_patch8_224", **arguments: object) -> Path:
    """A network of timm as the hub holds it, with a classifier, which is not used."""
    timm = _encoder_libraries.timm()
    torch.manual_seed(1)
    model = timm.create_model(name, pretrained=False, num_classes=7, **arguments)
    folder.mkdir(parents=True)
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    known = {
        "mean": SCALING["image_mean"],
        "std": SCALING["image_std"],
        "classifier": model.pretrained_cfg["classifier"],
    }
    side = arguments.get("img_size", 224)
    config = {"architecture": name, "model_args": arguments, "pretrained_cfg": {**known, "input_size": [3, side, side]}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def tiles(n: int, px: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def encode(name: str, px: int, made: np.ndarray, **options: object) -> np.ndarray:
    return encoders[name](TileSpec(px, 0.5, device="cpu", options=Options(**options)))(made)  # type: ignore[arg-type]
