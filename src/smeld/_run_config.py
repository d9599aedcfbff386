"""The settings of the main job, and what is refused before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smeld import _check, fusion, io, morph, nn
from smeld._image import MAX_MEGAPIXELS
from smeld.nn._extra import PACKAGES

NO_ENCODER = "none"
#: settings that name a file or a folder
PATHS = ("path", "image", "image_alignment", "weights", "encoder_cache")
#: devices as they are named on the command line
DEVICES = r"^(auto|cpu|mps|cuda(:\d+)?)$"


class RunConfig(BaseModel):
    """Everything that decides a run's result. Unknown names are refused; so are values out of range."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    platform: str = "auto"
    n_domains: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    image: str | None = None
    image_scale: float | None = Field(None, gt=0)
    um_per_unit: float | None = Field(None, gt=0)
    max_megapixels: float = Field(MAX_MEGAPIXELS, gt=0)
    image_alignment: str | None = None
    resolution: str | None = None
    table: str | None = None
    outlines: bool = False
    region_um: tuple[float, float, float, float] | None = None
    min_counts: float = Field(1.0, ge=0)
    encoder: str = "texture"
    weights: str | None = None
    download: bool = False
    encoder_cache: str | None = None
    method: str = "sme"
    device: str = Field("auto", pattern=DEVICES)
    evidence: bool = True
    interactions: bool = False
    trajectory: bool = False
    root: str = "auto"


def configure(**settings: Any) -> RunConfig:
    """A checked configuration; settings out of range and unknown plug-ins raise InputError.

    Paths are made absolute, so that a replay from another folder finds the same section.
    """
    try:
        config = RunConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise _check.problem(
            f"setting {name!r} is not valid: {first['msg']}",
            found=str(first.get("input"))[:80],
            cure="see smeld run --help",
        ) from error
    paths = {name: str(Path(getattr(config, name)).expanduser().absolute()) for name in PATHS if getattr(config, name)}
    config = config.model_copy(update=paths)
    if config.encoder != NO_ENCODER:
        morph.encoders[config.encoder]
    fusion.fusions[config.method]
    if config.platform != "auto":
        io.platforms[config.platform]
    if config.weights is not None and not takes_weights(config.encoder):
        raise _check.problem(
            f"encoder {config.encoder!r} takes no weights",
            found=f"--weights {Path(config.weights).name}",
            cure="leave --weights out, or name another with --encoder (smeld encoders lists them)",
        )
    return config


def takes_weights(encoder: str) -> bool:
    """Whether there are weights to be had for it: not where features are computed, or learnt from the section."""
    facts = {} if encoder == NO_ENCODER else morph.encoders[encoder].facts
    return "prepare" in facts and not facts.get("random", False)


def encoder_options(config: RunConfig) -> dict[str, Any]:
    """The arguments of ``sm.morph.embed`` that the configuration sets."""
    return {
        "device": config.device,
        "weights": config.weights,
        "download": config.download,
        "cache": config.encoder_cache,
        "seed": config.seed,
    }


def fusion_options(config: RunConfig) -> dict[str, Any]:
    """The options of ``sm.fuse`` that the configuration sets, where the method has them."""
    options: dict[str, Any] = {} if config.evidence else {"evidence": False}  # not every method has any
    # a method without networks runs on the processor, whatever is asked for
    return options | (
        {"device": config.device} if "torch" in fusion.fusions[config.method].facts.get("needs", ()) else {}
    )


def prepare(config: RunConfig) -> None:
    """Raises before any work is done where packages or weights are not to be had; fetches weights where that was
    allowed."""
    needs = [name for name in fusion.fusions[config.method].facts.get("needs", ()) if name in PACKAGES]
    nn.require(f"method {config.method!r}", *needs, instead="use --method sme")
    if config.encoder == NO_ENCODER:
        return
    ready = morph.encoders[config.encoder].facts.get("prepare")
    if ready is not None:
        weights = None if config.weights is None else Path(config.weights)
        ready(config.encoder, morph.Options(weights, config.download))


def refuse_own_input(folder: Path, config: RunConfig) -> None:
    """A result that is read must not be replaced by what is made of it: it could not be made again."""
    for name in PATHS:
        given = getattr(config, name)
        if given and Path(given).resolve().is_relative_to(folder.resolve()):
            what = "the encoder's cache" if name == "encoder_cache" else "the input"
            raise _check.problem(
                f"{what} lies in the output folder, which would be replaced",
                found=Path(given).name,
                cure="give another folder with --out",
            )
