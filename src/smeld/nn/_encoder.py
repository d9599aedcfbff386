"""Pretrained networks as encoders of tiles: built from a folder of weights, pixels scaled as they were trained, run in
batches on the CPU, CUDA or MPS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from smeld import _check
from smeld.nn import _device, _encoder_libraries
from smeld.nn._encoder_weights import configuration, weight_files

#: what networks trained on ImageNet expect, where nothing else is said
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: tiles that a processor works on at a time: the maps between layers of more do not fit its cache
TILES_ON_CPU = 8


@dataclass(frozen=True)
class Scaling:
    """Pixels 0..255 become (pixel * factor - mean) / std, channel by channel."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    factor: float = 1 / 255

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 [n, 3, H, W] of uint8 [n, 3, H, W], on the same device and in the same order in memory."""
        shape = (1, -1, 1, 1)
        mean, std = (torch.tensor(v, device=pixels.device).view(shape) for v in (self.mean, self.std))
        return (pixels.to(torch.float32) * self.factor - mean) / std


@dataclass(frozen=True)
class Network:
    """``module``: float32 [n, 3, px, px] -> [n, dim], in evaluation mode; ``scaling`` of its input."""

    module: nn.Module
    scaling: Scaling
    px: int


@dataclass(frozen=True)
class Recipe:
    """What a card knows of a network beyond its folder.

    ``architecture``: timm's name for it, where ``config.json`` may be missing; ``arguments``: further arguments of
    timm's constructor, names of timm's and torch's layers as text; ``pool``: "own" (as the network pools), "cls" or
    "cls+mean" (the class token beside the mean of the patches); ``scaling``: where it differs from the folder's.
    """

    architecture: str = ""
    arguments: Mapping[str, Any] | None = None
    pool: str = "own"
    scaling: Scaling | None = None


def load(folder: Path, recipe: Recipe) -> Network:
    """The network of a folder: timm's if its configuration names an ``architecture``, else one of transformers."""
    config = configuration(folder)
    with _device.seeded(0):  # weights are drawn before they are read
        if recipe.architecture or "architecture" in config:
            module, scaling, px = _of_timm(folder, config, recipe)
        else:
            module, scaling, px = _of_transformers(folder, config, recipe)
    return Network(module.eval().requires_grad_(False), recipe.scaling or scaling, px)


# -- timm ----------------------------------------------------------------------------------------------------


class _TimmTokens(nn.Module):
    """The class token of a vision transformer, and the mean of its patch tokens where asked for."""

    def __init__(self, model: nn.Module, *, mean: bool) -> None:
        super().__init__()
        self.model, self.mean = model, mean

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return _tokens(self.model.forward_features(pixels), int(self.model.num_prefix_tokens), mean=self.mean)


def _tokens(tokens: torch.Tensor, n_prefix: int, *, mean: bool) -> torch.Tensor:
    """[n, dim] or [n, 2 dim] of [n, 1 + registers + patches, dim]: register tokens take no part."""
    if not mean:
        return tokens[:, 0]
    return torch.cat([tokens[:, 0], tokens[:, n_prefix:].mean(dim=1)], dim=1)


def _of_timm(folder: Path, config: Mapping[str, Any], recipe: Recipe) -> tuple[nn.Module, Scaling, int]:
    timm = _encoder_libraries.timm()
    name = str(config.get("architecture") or recipe.architecture)
    arguments = {**config.get("model_args", {}), **{k: _layer(v) for k, v in (recipe.arguments or {}).items()}}
    arguments.pop("num_classes", None)
    try:
        model = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except (RuntimeError, TypeError) as error:
        raise _unfit(folder, f"timm cannot build {name!r}: {error}") from error
    known = {**model.pretrained_cfg, **(config.get("pretrained_cfg") or config)}
    _fill(model, _state(folder), folder, classifier=known.get("classifier"))
    scaling = Scaling(tuple(known.get("mean") or IMAGENET_MEAN), tuple(known.get("std") or IMAGENET_STD))
    module = model if recipe.pool == "own" else _TimmTokens(model, mean=recipe.pool == "cls+mean")
    return module, scaling, int(known.get("input_size", (3, 224, 224))[-1])


def _layer(value: Any) -> Any:
    """A layer named as text, ``timm.layers.SwiGLUPacked`` or ``torch.nn.SiLU``; other values as they are."""
    if not isinstance(value, str):
        return value
    packages = {"timm.layers.": _encoder_libraries.timm().layers, "torch.nn.": nn}
    for prefix, package in packages.items():
        if value.startswith(prefix):
            return getattr(package, value.removeprefix(prefix))
    return value


def _state(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for path in weight_files(folder):
        try:
            state |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise _unfit(folder, f"{path.name}: {error}") from error
    return state


def _fill(model: nn.Module, state: dict[str, torch.Tensor], folder: Path, *, classifier: Any) -> None:
    """Every weight of the network from ``state``; what is left over may only be the classifier, which is not used."""
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier or ())
    own = model.state_dict()
    missing = [k for k in own if k not in state or state[k].shape != own[k].shape]
    over = [k for k in state if k not in own and not k.startswith((*(f"{h}." for h in heads), "head.", "fc."))]
    if missing or over:
        raise _unfit(
            folder, f"missing or of another shape: {_check.listed(missing, 3)}; left over: {_check.listed(over, 3)}"
        )
    model.load_state_dict({k: state[k] for k in own})


def _unfit(folder: Path, found: str) -> _check.InputError:
    return _check.problem(
        f"the weights in {folder.name} do not fit their network",
        found=found[:300],
        cure="give the folder as it lies on the hub, config.json included",
    )


# -- transformers --------------------------------------------------------------------------------------------


class _HubModel(nn.Module):
    """What a model of transformers says of a whole picture, one row each."""

    def __init__(self, model: nn.Module, *, pool: str, trained_pooler: bool) -> None:
        super().__init__()
        self.model, self.pool, self.trained_pooler = model, pool, trained_pooler
        has_class = any("cls_token" in name for name, _ in model.named_parameters())
        self.n_prefix = int(has_class) + int(getattr(model.config, "num_register_tokens", 0) or 0)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        out = self.model(pixel_values=pixels)
        hidden = out.last_hidden_state
        if hidden.ndim == 4:  # a map of features, [n, dim, height, width]
            return hidden.mean(dim=(2, 3))
        if self.n_prefix:
            return _tokens(hidden, self.n_prefix, mean=self.pool == "cls+mean")
        pooled = getattr(out, "pooler_output", None) if self.trained_pooler else None
        return hidden.mean(dim=1) if pooled is None else pooled.flatten(1)


def _of_transformers(folder: Path, config: Mapping[str, Any], recipe: Recipe) -> tuple[nn.Module, Scaling, int]:
    if "model_type" not in config:
        raise _unfit(folder, "no config.json that says which network it is" if not config else "no model_type")
    library = _encoder_libraries.transformers()
    try:
        model, notes = library.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise _unfit(folder, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    model = getattr(model, "vision_model", model)  # the half that looks, of models for pictures and text
    missing = [str(k) for k in notes["missing_keys"]]
    needed = [k for k in missing if "pooler" not in k and "mask_token" not in k]
    if needed or notes["mismatched_keys"]:
        raise _unfit(folder, f"missing or of another shape: {_check.listed([*needed, *notes['mismatched_keys']], 3)}")
    scaling, px = _processor(folder, library)
    trained_pooler = not any("pooler" in k for k in missing)
    return (
        _HubModel(model, pool=recipe.pool, trained_pooler=trained_pooler),
        scaling,
        px or _square(config.get("image_size")),
    )


def _processor(folder: Path, library: Any) -> tuple[Scaling, int]:
    """(scaling, side of the input in pixels) as the model's own image processor has them; ImageNet's without one."""
    if not (folder / "preprocessor_config.json").is_file():
        return Scaling(), 0
    try:
        own = library.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise _unfit(folder, f"preprocessor_config.json: {str(error).strip().splitlines()[0]}") from error
    factor = float(own.rescale_factor) if own.do_rescale else 1.0
    plain = ((0.0,) * 3, (1.0,) * 3)
    mean, std = (tuple(own.image_mean), tuple(own.image_std)) if own.do_normalize else plain
    crop = getattr(own, "crop_size", None) if getattr(own, "do_center_crop", False) else None
    return Scaling(mean, std, factor), _square(crop or own.size)


def _square(size: Any) -> int:
    """Side in pixels of a size given as a number, a pair, or by names; 224 where nothing is known."""
    if isinstance(size, int | float):
        return int(size)
    if isinstance(size, list | tuple):
        return int(size[0])
    values = size if isinstance(size, Mapping) else vars(size) if size is not None else {}
    return int(next((values[k] for k in ("height", "shortest_edge") if values.get(k)), 224))


def tile_px(folder: Path, architecture: str = "") -> int:
    """Side of the tiles that the network of a folder takes, in pixels; its weights are not read."""
    config = configuration(folder)
    if "architecture" in config or architecture:
        known = config.get("pretrained_cfg") or config
        if "input_size" not in known:
            known = _encoder_libraries.timm().models.get_pretrained_cfg(architecture).to_dict()
        return int(known["input_size"][-1])
    side = _processor(folder, _encoder_libraries.transformers())[1]
    return side or _square(config.get("image_size"))


def repository(name: str) -> tuple[str, str]:
    """(the hub's repository, licence) of the weights that timm knows under ``name``."""
    library = _encoder_libraries.timm()
    try:
        known = library.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        near = library.list_models(f"{name.split('.')[0][:6]}*", pretrained=True)
        raise _check.problem(
            f"timm knows no network {name!r}",
            found=f"{error} {_check.listed(near, 6)}",
            cure="choose one of timm.list_models(pretrained=True)",
        ) from error
    return str(known.hf_hub_id or f"timm/{name}"), str(known.license or "")


# -- running -------------------------------------------------------------------------------------------------


class Runner:
    """uint8 tiles [n, px, px, 3] in, float32 features [n, dim] out. ``autocast``: half precision inside."""

    def __init__(self, network: Network, device: str = "auto", *, autocast: bool = False) -> None:
        self.device = _device.resolve(device)
        self.network, self.autocast = network, autocast
        self.module = network.module.to(self.device, memory_format=torch.channels_last)
        self.dim = int(self._run(np.full((1, network.px, network.px, 3), 255, dtype=np.uint8)).shape[1])

    def __call__(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = TILES_ON_CPU if self.device.type == "cpu" else max(len(tiles), 1)
        rows = [self._run(tiles[i : i + size]) for i in range(0, len(tiles), size)]
        return np.concatenate(rows) if rows else np.empty((0, self.dim), dtype=np.float32)

    def _run(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(np.require(tiles, requirements=["C", "W"])).permute(0, 3, 1, 2)
        exact = torch.backends.cudnn.flags(deterministic=True, allow_tf32=False)
        with torch.inference_mode(), exact, self._precision():
            features = self.module(self.network.scaling(pixels.to(self.device)))
        return np.ascontiguousarray(features.float().cpu().numpy(), dtype=np.float32)

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.autocast:
            return nullcontext()
        half = torch.bfloat16 if self.device.type == "cpu" else torch.float16
        precision: AbstractContextManager[Any] = torch.autocast(self.device.type, dtype=half)
        return precision

    def fingerprint(self) -> str:
        """A hash of the weights, the scaling and how the network is run."""
        scaling = self.network.scaling
        return fingerprint(self.module, type(self.module).__name__, scaling, self.device.type, self.autocast)


def fingerprint(module: nn.Module, *facts: object) -> str:
    """A hash of a network's weights and of what else its features depend on."""
    found = hashlib.sha256(repr(facts).encode())
    for name, value in sorted(module.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


#: how a card's network is made
Loader = Callable[[Path], Network]
