"""What all encoders with pretrained weights share: their card's facts become a network, run on the tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smeld import _check, nn
from smeld.morph._encoders import Encoder, Options, TileSpec, encoders, slug

#: the resolution of nearly all that was trained on histology (20x); for networks that say nothing of it
UM_PER_PX = 0.5
INSTEAD = "use encoder 'texture', which needs no torch"


def prepare(name: str, options: Options) -> dict[str, Any]:
    """Raises where torch or the weights of card ``name`` are missing; gives the side of its tiles if not fixed."""
    facts = encoders[name].facts
    nn.require(f"encoder {name!r}", "torch", "safetensors", "transformers", "timm", instead=INSTEAD)
    folder = _folder(name, options)
    if facts.get("tile_px"):
        return {}
    from smeld.nn import _encoder

    return {"tile_px": _encoder.tile_px(folder, architecture(name)), "um_per_px": UM_PER_PX}


def encoder(spec: TileSpec, name: str) -> Encoder:
    """The encoder of the card ``name`` for tiles as in ``spec``."""
    facts = encoders[name].facts
    prepare(name, spec.options)
    from smeld.nn import _encoder

    scaling = _encoder.Scaling(facts["mean"], facts["std"]) if "mean" in facts else None
    recipe = _encoder.Recipe(architecture(name), facts.get("arguments"), str(facts.get("pool", "own")), scaling)
    return of_network(_encoder.load(_folder(name, spec.options), recipe), spec, name, facts)


def of_network(network: Any, spec: TileSpec, name: str, facts: Mapping[str, Any]) -> Encoder:
    """An ``Encoder`` that runs ``network`` (``smeld.nn._encoder.Network``)."""
    from smeld.nn import _encoder

    runner = _encoder.Runner(network, spec.device, autocast=spec.options.autocast)
    if facts.get("dim") not in (None, runner.dim):
        raise _check.problem(
            f"the weights are not those of encoder {name!r}",
            found=f"{runner.dim} features, its card says {facts['dim']}",
            cure="give the folder as it lies on the hub",
        )
    names = tuple(f"{slug(name)}_{i}" for i in range(runner.dim))
    return Encoder(runner, names, fingerprint=runner.fingerprint)


def architecture(name: str) -> str:
    """timm's name of the network: a card's own, or what follows ``timm:``."""
    return name.removeprefix("timm:") if name.startswith("timm:") else str(encoders[name].facts.get("architecture", ""))


def _folder(name: str, options: Options) -> Path:
    from smeld.nn import _encoder_weights

    facts = encoders[name].facts
    if name.startswith("hf:"):
        rest = name.removeprefix("hf:")
        local = Path(rest).expanduser()
        given = options.weights or (local if local.is_dir() or rest.startswith((".", "/", "~")) else None)
        source = _encoder_weights.Source(slug(name), rest)
        return _encoder_weights.locate(source, given, download=options.download)
    repo, terms = str(facts.get("repo", "")), str(facts["license"])
    if name.startswith("timm:"):
        from smeld.nn import _encoder

        repo, terms = _encoder.repository(architecture(name))
    source = _encoder_weights.Source(slug(name), repo, terms, bool(facts["gated"]))
    return _encoder_weights.locate(source, options.weights, download=options.download)
