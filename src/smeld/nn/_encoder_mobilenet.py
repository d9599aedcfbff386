"""MobileNet v1 (Howard et al. 2017) from an ``.npz`` of its weights under Keras's names; float32, no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from smeld import _check
from smeld.nn._encoder import Network, Scaling

#: blocks of the network, and those that halve the resolution
N_BLOCKS, HALVING = 13, (2, 4, 6, 12)
#: what Keras adds to a variance
BN_EPSILON = 1e-3
#: pixels 0..255 become -1..1
SCALING = Scaling((1.0,) * 3, (1.0,) * 3, 1 / 127.5)
PX = 224
Arrays = Mapping[str, NDArray[np.float32]]


class _Layer(nn.Module):
    """Convolution, the batch norm it was trained with as a scale and a shift, and ReLU6."""

    def __init__(self, weights: Arrays, name: str, *, stride: int, kernel: str) -> None:
        super().__init__()
        spread = np.sqrt(weights[f"{name}_bn/moving_variance"].astype(np.float64) + BN_EPSILON)
        gain = weights[f"{name}_bn/gamma"] / spread
        shift = weights[f"{name}_bn/beta"] - weights[f"{name}_bn/moving_mean"] * gain
        values = weights[f"{name}/{kernel}"].astype(np.float64)
        depthwise = kernel == "depthwise_kernel"
        # Keras: height, width, in, out (depthwise: height, width, channels, 1); torch: out, in, height, width
        values = values.transpose(2, 3, 0, 1) if depthwise else values.transpose(3, 2, 0, 1)
        self.weight = nn.Parameter(torch.from_numpy((values * gain[:, None, None, None]).astype(np.float32)))
        self.bias = nn.Parameter(torch.from_numpy(shift.astype(np.float32)))
        self.stride, self.groups = stride, len(gain) if depthwise else 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.weight.shape[-1] == 3:  # TensorFlow's padding: at stride 2 of an even side only below and right
            x = functional.pad(x, (0, 1, 0, 1) if self.stride == 2 else (1, 1, 1, 1))
        return functional.relu6(functional.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups))


class MobileNetV1(nn.Module):
    """[n, 3, 224, 224] in -1..1 -> [n, channels]: the mean of the last map, before the classifier."""

    def __init__(self, weights: Arrays) -> None:
        super().__init__()
        layers = [_Layer(weights, "conv1", stride=2, kernel="kernel")]
        for i in range(1, N_BLOCKS + 1):
            stride = 2 if i in HALVING else 1
            layers.append(_Layer(weights, f"conv_dw_{i}", stride=stride, kernel="depthwise_kernel"))
            layers.append(_Layer(weights, f"conv_pw_{i}", stride=1, kernel="kernel"))
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.layers(pixels).mean(dim=(2, 3))


def load(path: Path) -> Network:
    """The network whose weights lie in the ``.npz`` file ``path``, or in the one such file of that folder."""
    file = _file(path)
    try:
        with np.load(file, allow_pickle=False) as stored:
            weights = {name: np.asarray(stored[name], dtype=np.float32) for name in stored.files}
        module = MobileNetV1(weights)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise _check.problem(
            f"{file.name} holds no weights of MobileNet v1",
            found=f"{type(error).__name__}: {str(error)[:120]}",
            cure="give an .npz of float32 arrays under Keras's names (conv1/kernel, conv_dw_1/depthwise_kernel, ...)",
        ) from error
    return Network(module.eval().requires_grad_(False), SCALING, PX)


def _file(path: Path) -> Path:
    found = sorted(path.glob("*.npz")) if path.is_dir() else [path] if path.is_file() else []
    if len(found) != 1:
        raise _check.problem(
            f"one .npz of MobileNet v1 is needed, {path.name} has {len(found) or 'none'}",
            found=_check.listed(p.name for p in found) if path.exists() else "nothing there",
            cure="give the file as weights=",
        )
    return found[0]
