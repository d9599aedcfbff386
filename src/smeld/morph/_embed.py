"""``embed``: image tiles in, one named row of features per spot out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smeld import _adapt, _check, _image, _keys, _progress
from smeld._registry import Card
from smeld.kernels import _share, tiles
from smeld.morph._encoders import Encode, Encoder, Factory, Options, TileSpec, encoders, slug
from smeld.morph._plan import Cut, check_positions, find_image, overview, plan, sampler, section_colours, sides_um
from smeld.morph._stream import ahead, kept

if TYPE_CHECKING:
    from anndata import AnnData

#: tiles of which less than this lies inside the image get the section's median features
MIN_COVERAGE = 0.5


@dataclass(frozen=True)
class Morphology:
    """What ``embed`` made: ``features`` [n_obs, n_features] as in ``obsm[key]``, and from which tiles.

    One ``tile_um``, ``um_per_px`` and ``left_out`` for each size of tile, the surroundings last.
    """

    key: str
    encoder: str
    features: pd.DataFrame
    tile_um: tuple[float, ...]
    um_per_px: tuple[float, ...]
    left_out: tuple[str, ...]


def embed(
    data: Any,
    encoder: str = "texture",
    *,
    tile_um: float | Sequence[float] | None = None,
    key_added: str | None = None,
    batch_size: int | None = None,
    library_id: str | None = None,
    device: str = "auto",
    weights: str | Path | None = None,
    download: bool = False,
    cache: str | Path | None = None,
    autocast: bool = False,
    seed: int = 0,
    quiet: bool = False,
) -> Morphology:
    """Describe the tissue around each spot or cell by features of its image tile.

    Parameters
    ----------
    data
        AnnData (or SpatialData with one table) with ``obsm["spatial"]`` and an image, as ``sm.read`` returns
        it.
    encoder
        Name of an encoder, see ``sm.morph.encoders``; also ``"timm:NAME"`` and ``"hf:REPOSITORY"`` or
        ``"hf:FOLDER"``. Default "texture": named H&E features, no weights. All others are networks and need
        ``smeld[deep]``; "self" learns from this section's tiles and needs no weights either.
    tile_um
        Side of the square tiles in micrometres; several sides give features of the surroundings too. Default:
        what the encoder was made for; for encoders that take any resolution, twice the spot's diameter
        (within 50 to 200 um, 100 um where it is unknown), and for "texture" also 3 times that. Our choice: on
        Visium such tiles touch without gaps.
    key_added
        Key in ``obsm``. Default ``"morph_<encoder>"``, with ``_`` for what is no letter and no digit.
    batch_size
        Tiles held at a time; results do not depend on it. Default: about 2 megapixels.
    library_id
        The section in ``uns["spatial"]``, where there are several.
    device
        Handed to the encoder; "auto" lets it choose: CUDA where there is one, then MPS, then the CPU.
    weights
        Folder (for "mobilenet_v1" also a file) of a network's weights. Default: ``$SMELD_WEIGHTS/<encoder>``,
        then the hub's cache on this machine.
    download
        Whether weights that are missing may be fetched from the hub (also: ``SMELD_DOWNLOAD=1``). Without it
        the network is never used.
    cache
        Folder in which a network's finished batches are kept (``.npy``), so that the same call after an
        interruption goes on where it stopped. Default: nothing is kept.
    autocast
        Half precision within the network on CUDA and MPS, bfloat16 on the CPU. Default: float32, the same
        features everywhere to within rounding.
    seed
        Of what "self" draws; other encoders draw nothing.
    quiet
        No progress bar.

    Returns
    -------
    Morphology
        Frozen; ``features`` is the stored table.

    Writes
    ------
    ``obsm[key_added]``: DataFrame float32 [n_obs, n_features], index ``obs_names``, every value finite;
    columns of the surroundings begin with ``context<side>um_``. ``uns["smeld"][key_added]``: parameters, tile
    and pixel sizes, what the resolution left out.

    Notes
    -----
    The image is reduced (never magnified) to the encoder's pixel size by averaging blocks, so nothing
    aliases. What lies outside the image, and what is blacked out in it, is filled with the colour of the
    empty slide. A spot with less than half of its tile inside the image gets the median of the others, with a
    warning. Turning or moving image and spots together, their order and their unit change nothing.

    Raises
    ------
    InputError
        No image; unknown encoder; unknown size of a pixel; most spots outside the image; a bad ``tile_um``;
        weights that are not here, with how to get them; ``smeld[deep]`` not installed.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> morphology = sm.morph.embed(adata)
    >>> "haematoxylin_mean" in morphology.features
    True
    """
    card = encoders[encoder]
    adata = _adapt.table(data)
    image = find_image(data, library_id)
    xy_px = _adapt.xy_px(data, image)
    check_positions(image, xy_px)
    if batch_size is not None and batch_size < 1:
        raise _check.problem("batch_size must be at least 1", found=f"{batch_size}", cure="leave it out")
    options = Options(_path(weights), download, autocast, int(seed), _path(cache))
    facts = dict(card.facts)
    if "prepare" in facts:
        facts |= facts["prepare"](card.name, options)
    sides = sides_um(facts, tile_um, _adapt.metadata(data, library_id))
    # an image that is black where the spots are is no brightfield image with blackened surroundings
    seen = overview(image, tiles.MAX_COUNTED)
    brightfield = tiles.void_fraction(seen, seen.reduced(xy_px)) <= 0.5
    cuts = plan(image, sides, facts, device=device, brightfield=brightfield)
    _warn_about_image(adata, image, cuts[0], brightfield=brightfield, made_for=facts.get("um_per_px"))
    order = _adapt.canonical_order(data)
    with _progress.silenced(quiet):
        section = section_colours(cuts[0], xy_px, order)
        specs = [replace(cut.spec, section=section, options=options, sample=sampler(cut, xy_px, order)) for cut in cuts]
        parts = [_run(card, replace(cut, spec=spec), xy_px, batch_size) for cut, spec in zip(cuts, specs)]
    features = pd.concat([part.set_index(adata.obs_names) for part, _ in parts], axis=1)
    _replace_unseen(adata, features, cuts, xy_px)
    result = Morphology(
        key=key_added or _keys.MORPH_PREFIX + slug(encoder),
        encoder=encoder,
        features=features,
        tile_um=tuple(cut.spec.tile_um for cut in cuts),
        um_per_px=tuple(cut.spec.um_per_px for cut in cuts),
        left_out=tuple(left_out for _, left_out in parts),
    )
    _say_left_out(adata, result)
    adata.obsm[result.key] = features
    _record(adata, result, image, sides, options)
    return result


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given).expanduser()


def _run(card: Card[Factory], cut: Cut, xy_px: NDArray[np.float64], batch_size: int | None) -> tuple[pd.DataFrame, str]:
    """(features with names, what was left out) of one size of tile."""
    made = card(cut.spec)
    size = batch_size or cut.batch_size
    what = f"Morphology, tiles of {cut.spec.tile_um:.0f} um"
    with _share.workers() as share:
        done = _here(made, cut, xy_px, size) if _stays(card, made, share) else _shared(card, cut, xy_px, size, share)
        blocks = list(_progress.track(done, what, -(-len(xy_px) // size)))
    values = np.concatenate(blocks).astype(np.float32, copy=False)
    names = getattr(made, "names", ()) or tuple(f"{slug(card.name)}_{i}" for i in range(values.shape[1]))
    if values.shape != (len(xy_px), len(names)) or not np.isfinite(values).all():
        raise RuntimeError(f"encoder {card.name!r} broke its contract: finite features [{len(xy_px)}, {len(names)}]")
    columns = [cut.prefix + name for name in names]
    return pd.DataFrame(values, columns=columns), getattr(made, "left_out", "")


def _stays(card: Card[Factory], made: Encode | Encoder, share: _share.Share) -> bool:
    """Whether tiles are encoded here: also where the encoder learnt from the section, so that there is one of it; and
    networks, which use all of this machine's processors anyway, unless the workers have others."""
    return share.here or bool(card.facts.get("random")) or (_slow(made) and not share.remote)


def _slow(made: Encode | Encoder) -> bool:
    return isinstance(made, Encoder) and made.fingerprint is not None


def _keeping(made: Encode | Encoder, options: Options) -> Encode:
    """The encoder, with finished batches kept if that was asked for."""
    if isinstance(made, Encoder) and made.fingerprint is not None and options.cache is not None:
        return kept(made, options.cache, made.fingerprint)
    return made


def _here(made: Encode | Encoder, cut: Cut, xy_px: NDArray[np.float64], size: int) -> Iterator[NDArray[np.float32]]:
    encode = _keeping(made, cut.spec.options)
    stream = tiles.batches(cut.level, xy_px, cut.side_px, out_px=cut.spec.tile_px, batch_size=size)
    for _, batch in ahead(stream) if _slow(made) else stream:
        yield encode(batch)


@dataclass(frozen=True)
class _Job:
    """What a worker needs for its batches; ``level`` None where it gets tiles, not the rows of ``xy_px``."""

    factory: Factory
    spec: TileSpec
    level: tiles.Level | None
    side_px: int
    xy_px: NDArray[np.float64]


def _shared(
    card: Card[Factory], cut: Cut, xy_px: NDArray[np.float64], size: int, share: _share.Share
) -> Iterator[NDArray[np.float32]]:
    """Workers cut their tiles themselves from an image that is an array; of a file that is read window by window they
    are given the tiles."""
    level = cut.level if isinstance(getattr(cut.level.source, "array", None), np.ndarray) else None
    job = _Job(card.func, replace(cut.spec, sample=_no_sample), level, cut.side_px, xy_px)
    if level is not None:
        rows = [slice(first, min(first + size, len(xy_px))) for first in range(0, len(xy_px), size)]
        return share.each(_encoding, job, rows)
    stream = tiles.batches(cut.level, xy_px, cut.side_px, out_px=cut.spec.tile_px, batch_size=size)
    return share.each(_encoding, replace(job, xy_px=xy_px[:0]), (batch for _, batch in stream))


def _encoding(job: _Job) -> Callable[[Any], NDArray[np.float32]]:
    """Features of a batch: of tiles, or of the tiles around rows of ``xy_px``."""
    encode = _keeping(job.factory(job.spec), job.spec.options)

    def work(item: Any) -> NDArray[np.float32]:
        if job.level is not None:
            item = tiles.resized(tiles.cut(job.level, job.xy_px[item], job.side_px), job.spec.tile_px)
        return encode(item)

    return work


def _no_sample(n: int) -> NDArray[np.uint8]:
    raise _check.problem(
        "this encoder learns from the section, which workers do not see",
        cure="state random=True on its card, so that it stays in one process",
    )


def _replace_unseen(adata: AnnData, features: pd.DataFrame, cuts: list[Cut], xy_px: NDArray[np.float64]) -> None:
    """Tiles that are mostly outside the image take the median of the others, with a warning."""
    for cut in cuts:
        unseen = tiles.coverage(cut.level, xy_px, cut.side_px) < MIN_COVERAGE
        if not unseen.any():
            continue
        later = tuple(other.prefix for other in cuts if other.prefix)
        own = [c for c in features if (c.startswith(cut.prefix) if cut.prefix else not c.startswith(later))]
        if not unseen.all():
            features.loc[unseen, own] = features.loc[~unseen, own].median(axis=0).to_numpy()
        _check.warn(
            f"{int(unseen.sum())} of {len(unseen)} spots have less than half of their "
            f"{cut.spec.tile_um:.0f} um tile inside the image: it gets the median morphology of the others",
            adata,
            stacklevel=4,
        )


def _warn_about_image(
    adata: AnnData, image: _image.Image, cut: Cut, *, brightfield: bool, made_for: float | None
) -> None:
    if not brightfield:
        _check.warn(
            "the image is nearly black at most spots: encoders expect brightfield (H&E), not fluorescence",
            adata,
        )
    if made_for and image.um_per_px > 2 * cut.spec.um_per_px:
        _check.warn(
            f"the image has {image.um_per_px:.2g} um per pixel, the encoder was made for {made_for:g}: "
            "its features are those of a blurred image",
            adata,
            stacklevel=4,
        )


def _say_left_out(adata: AnnData, result: Morphology) -> None:
    if result.left_out[0]:
        _check.warn(
            f"tiles of {result.tile_um[0]:.0f} um with pixels of {result.um_per_px[0]:.2g} um cannot show "
            f"{result.left_out[0]}: these features are left out",
            adata,
            stacklevel=4,
        )


def _record(adata: AnnData, result: Morphology, image: _image.Image, sides: list[float], options: Options) -> None:
    card = encoders[result.encoder]
    _keys.record(
        adata,
        result.key,
        function="smeld.morph.embed",
        params={
            "encoder": result.encoder,
            "license": card.facts.get("license"),
            "tile_um": [f"{v:g}" for v in sides],
            "tile_um_used": [f"{v:.4g}" for v in result.tile_um],
            "um_per_px_used": [f"{v:.4g}" for v in result.um_per_px],
            "left_out": [v or "nothing" for v in result.left_out],
        },
        seed=options.seed if card.facts.get("random") else None,
        inputs={"image_shape": f"{image.shape[0]} x {image.shape[1]}", "image_um_per_px": image.um_per_px},
    )
