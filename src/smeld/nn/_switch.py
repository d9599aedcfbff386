"""``sm.device``: which device the heavy kernels run on. Loads torch only where a GPU may be had or is asked for."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType

from smeld import _check, _keys
from smeld.kernels import _backend
from smeld.nn._extra import available, require

#: torch's code on the CPU: to compare with, and for tests
TORCH_CPU = "torch:cpu"
#: what a GPU's driver shows on Linux: Nvidia's, on a Jetson, under Windows, and AMD's
DRIVERS = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg", "/dev/kfd")


class Device:
    """The device chosen by ``sm.device``; as a context manager, what was chosen before comes back at the end."""

    def __init__(self, name: str, before: str | None) -> None:
        self.name, self._before = name, before

    def __repr__(self) -> str:
        return f"smeld.device({self.name!r})"

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _backend.switch.asked = self._before


def device(name: str = "auto") -> Device:
    """Choose where neighbours, smoothing and correlograms are computed: from now on, or within a ``with`` block.

    Results agree with those of the CPU within a tolerance that ``docs/gpu.md`` states. Networks
    follow it too, unless their own parameter ``device`` says otherwise.

    Parameters
    ----------
    name
        ``"auto"``: the environment variable ``SMELD_DEVICE``, else a CUDA GPU where torch finds one and the section has
        at least 50,000 rows, else the CPU. ``"cpu"``: never a GPU. ``"cuda"``, ``"cuda:1"``: that one, whatever the
        size. ``"torch:cpu"``: the GPU's code on the CPU, to compare. Holds for the whole process, all its threads.

    Writes
    ------
    Nothing by itself. Tasks name the device in their record where it is not the CPU.

    Returns
    -------
    Device
        A context manager: what was chosen before comes back at the end of the block.

    Raises
    ------
    InputError
        If torch or the device is not there, or the device has no double precision (``"mps"``).

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> with sm.device("cpu"):
    ...     shape = sm.fuse(adata).embedding.shape
    >>> shape[0]
    400
    """
    if name not in ("auto", "cpu"):
        functions(name)  # says now what is wrong
    before, _backend.switch.asked = _backend.switch.asked, name if name != "auto" else None
    return Device(name, before)


def functions(name: str) -> _backend.Found | None:
    """What runs on device ``name``: its name and kernels; None for the CPU's own kernels."""
    if name == "cpu" or (name == "auto" and not (_may_have_gpu() and available("torch"))):
        return None
    if name.split(":")[0] == "mps":
        raise _check.problem(
            "device 'mps' has no double precision, which these kernels need",
            cure="leave it out; networks take device='mps' by themselves",
        )
    if name != "auto":
        require(f"device {name!r}", "torch", instead=f"sm.device('cpu') or {_backend.VARIABLE}=cpu")
    return _ready(name)


def _used(function: str) -> dict[str, str]:
    """The device that computed what ``function`` records, where it was not the CPU."""
    used = _backend.switch.taken(function)
    return {} if used is None else {"device": used}


_keys.ALSO.append(_used)


@cache
def _ready(name: str) -> _backend.Found | None:
    from smeld.nn import _accelerate

    if name == "auto":
        return _accelerate.on("cuda:0") if _accelerate.has_cuda() else None
    return _accelerate.on(name)


@cache
def _may_have_gpu() -> bool:
    """False where torch can find none anyway: loading it takes two seconds and 200 MB."""
    try:
        build = version("torch")
    except PackageNotFoundError:
        return False
    if build.endswith("+cpu") or sys.platform == "darwin":
        return False
    return sys.platform != "linux" or any(Path(node).exists() for node in DRIVERS)
