"""What the main job will cost: expected time and peak memory from the size of a section, and a limit that is kept."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from smeld import _adapt, _check, fusion, io
from smeld._run_config import NO_ENCODER, RunConfig

#: evidence looks at no more spots than this, and seconds grow slowly from there on
EVIDENCE_SPOTS = 20_000
#: fusion takes 3,000 genes at most; the one section measured that has more costs what this many would
GENES = 2_000
#: seconds of one processor core, by term of :func:`terms`; how they were found, and how far they are off: docs/scale.md
SECONDS: Mapping[str, float] = MappingProxyType(
    {
        **{"one": 18.0, "spots": 1e-4, "looked_at": 5.5e-3, "counts": 1e-7, "evidence": 1.5e-6, "megapixels": 0.05},
        **{"maps": 1.2e-6, "links": 1.1e-6},
    }
)
#: bytes of resident memory, by term
BYTES: Mapping[str, float] = MappingProxyType(
    {
        **{"one": 4.0e8, "spots": 1.6e3, "counts": 8.5, "evidence": 49.0, "megapixels": 3e6},
        **{"receptors": 11.0, "tested": 8.5},
    }
)
#: the same where the counts stay on disk
BYTES_BACKED: Mapping[str, float] = MappingProxyType({**BYTES, "one": 5.0e8, "counts": 0.0})
#: bytes for every count of a table that is read whole
READ_WHOLE = 16.0
#: platforms whose files are opened in place; of the others the counts are read once before they are put away
IN_PLACE = (".h5ad", ".zarr")
#: how far off a measured run may be, as a factor: what was seen, rounded up (docs/scale.md)
FACTOR_SECONDS, FACTOR_BYTES = 2.2, 1.2

#: maps of receptors and ligands that are turned, and of decoys, of large sections; genes among which decoys are sought,
#: at most; and pairs of types of cells
TURNED, DECOYS, DECOY_GENES, OF_TYPES = 128, 200, 3_000, 100

_UNITS = {"": 1, "k": 3, "m": 6, "g": 9, "t": 12}
_MEMORY = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgt])(i?)b?\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Size:
    """Spots, genes, counts that are not zero, pixels of the image (millions; 0 without one); and of the
    ligand-receptor pairs whose genes are here (ligands, receptors, pairs)."""

    n_obs: int
    n_genes: int
    nnz: int
    megapixels: float = 0.0
    pairs: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Estimate:
    """Expected seconds of one core and peak resident memory; ``without``: parts of the run that are not counted in."""

    seconds: float
    peak_bytes: float
    without: tuple[str, ...] = ()


def estimate(size: Size, config: RunConfig, *, backed: bool = False) -> Estimate:
    """The expected cost of ``smeld run`` with this configuration.

    Parameters
    ----------
    size
        Of the section, from :func:`size_of`.
    config
        What is to be run: evidence, an image and an encoder cost more.
    backed
        Whether the counts stay on disk.

    Returns
    -------
    Estimate
        Seconds of one core (there is little in the main job that several share) and bytes.

    Examples
    --------
    >>> from smeld._run_config import RunConfig
    >>> small, large = (estimate(Size(n, 300, 60 * n), RunConfig(path="x")) for n in (3_000, 300_000))
    >>> small.seconds < large.seconds and small.peak_bytes < large.peak_bytes
    True
    """
    found = terms(size, config)
    seconds = sum(SECONDS.get(name, 0.0) * value for name, value in found.items())
    needed = BYTES_BACKED if backed else BYTES
    peak_bytes = sum(needed.get(name, 0.0) * value for name, value in found.items())
    if backed and Path(config.path).suffix not in IN_PLACE:
        peak_bytes = max(peak_bytes, BYTES["one"] + READ_WHOLE * found["counts"])
    return Estimate(seconds, peak_bytes, _not_measured(config))


def terms(size: Size, config: RunConfig) -> dict[str, float]:
    """What the cost is a sum of, each times its coefficient."""
    looked_at = min(size.n_obs, EVIDENCE_SPOTS)
    return {
        "one": 1.0,
        "spots": float(size.n_obs),
        "counts": float(size.nnz),
        "looked_at": float(looked_at),
        "evidence": float(looked_at * min(size.n_genes, GENES) * config.evidence),
        "megapixels": size.megapixels * (config.encoder != NO_ENCODER),
        **_of_pairs(size, config),
    }


def _of_pairs(size: Size, config: RunConfig) -> dict[str, float]:
    """Maps that are transformed (each ligand's and receptor's, those of turned copies and of decoys), fields on links
    (pairs, and pairs of some ten types), and maps that are kept, each by spot; counts of genes in pairs or decoys."""
    ligands, receptors, pairs = size.pairs
    if not (config.interactions and pairs):
        return {}
    maps = ligands + receptors + TURNED + min(DECOYS, 2 * pairs)
    return {
        "maps": float(size.n_obs * maps),
        "links": float(size.n_obs * (pairs + OF_TYPES)),
        "receptors": float(size.n_obs * receptors),
        "tested": size.nnz * min(1.0, (ligands + receptors + DECOY_GENES) / size.n_genes),
    }


def _not_measured(config: RunConfig) -> tuple[str, ...]:
    parts = []
    if config.method != "sme":
        parts.append(f"method {config.method}")
    if config.encoder not in (NO_ENCODER, "texture"):
        parts.append(f"encoder {config.encoder}")
    return (*parts, *(("trajectory",) if config.trajectory else ()))


# -- the size of a section -----------------------------------------------------------------------------------


def size_of(config: RunConfig) -> Size:
    """The size of the section of a configuration: from a file's own head where that tells, else by reading it.

    Parameters
    ----------
    config
        Which section, and which part of it.

    Raises
    ------
    InputError
        For what ``sm.read`` refuses.
    """
    path = Path(config.path)
    if config.region_um is None and path.suffix in IN_PLACE and config.image is None:
        found = _size_of_file(path, config.interactions)
        if found is not None:
            return found
    options = config.model_dump(include=set(READ))
    adata = _adapt.table(io.read(path, config.platform, **options))
    return size_in_memory(adata, config)


def size_in_memory(adata: Any, config: RunConfig) -> Size:
    """The size of a section that was read; its counts are gone through if they are on disk."""
    image = _adapt.image(adata)
    nnz = getattr(adata.X, "nnz", None)
    nnz = sum(block.nnz for _, block in _adapt.rows(adata).blocks()) if nnz is None else int(nnz)
    pixels = 0.0 if image is None else image.shape[0] * image.shape[1] / 1e6
    return Size(adata.n_obs, adata.n_vars, nnz, pixels, _pairs(adata.var_names) if config.interactions else (0, 0, 0))


def _pairs(names: Any) -> tuple[int, int, int]:
    """Ligands, receptors and pairs of smeld's own table whose genes are among ``names``."""
    import pandas as pd
    from anndata import AnnData

    from smeld.tl import _lr_inputs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the organism: the run itself says so
        try:
            found = _lr_inputs.matched(None, AnnData(var=pd.DataFrame(index=pd.Index(names, dtype=str))), "auto")[2]
        except _check.InputError:
            return 0, 0, 0
    return found["ligand"].nunique(), found["receptor"].nunique(), len(found)


#: settings that ``sm.read`` takes
READ = (
    *("image", "image_scale", "um_per_unit", "max_megapixels", "image_alignment"),
    *("resolution", "table", "outlines", "region_um"),
)


def shape_of_h5ad(path: Path) -> tuple[int, int]:
    """Spots and genes of a .h5ad, without reading it."""
    import h5py

    with h5py.File(path, "r") as file:
        return _shape(file["X"])


def _shape(x: Any) -> tuple[int, int]:
    n_obs, n_genes = x.attrs.get("shape", getattr(x, "shape", None))
    return int(n_obs), int(n_genes)


def _size_of_file(path: Path, interactions: bool) -> Size | None:
    """From the head of a .h5ad or a zarr store. None where it is not laid out as usual: reading it will say why."""
    try:
        with _opened(path) as file:
            x = file["X"]
            n_obs, n_genes = _shape(x)
            nnz = int(x["data"].shape[0]) if "shape" in x.attrs else n_obs * n_genes
            pairs = _pairs(_names(file["var"])) if interactions else (0, 0, 0)
            return Size(n_obs, n_genes, nnz, _megapixels(file), pairs)
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        return None


def _opened(path: Path) -> Any:
    """An h5ad file or a zarr store, to be used with ``with``."""
    if path.is_file():
        import h5py

        return h5py.File(path, "r")
    import zarr

    return nullcontext(zarr.open_group(str(path), mode="r"))


def _names(var: Any) -> Any:
    """The names of a stored table's rows."""
    from anndata.io import read_elem

    return read_elem(var[str(var.attrs["_index"])])


def _megapixels(file: Any) -> float:
    """Of the largest stored image."""
    if "uns/spatial" not in file:
        return 0.0
    shapes = [
        image.shape
        for library in file["uns/spatial"].values()
        for image in (library["images"].values() if "images" in library else ())
    ]
    return max((shape[0] * shape[1] / 1e6 for shape in shapes), default=0.0)


# -- limits --------------------------------------------------------------------------------------------------


def memory_bytes(text: str) -> int:
    """Bytes of a size such as 8GB (10^9 each) or 8GiB (2^30 each).

    >>> memory_bytes("8GB"), memory_bytes("1.5 MiB")
    (8000000000, 1572864)
    """
    match = _MEMORY.match(text)
    if match is None or float(match[1]) == 0:
        raise _check.problem(f"memory {text!r} is no size", cure="give a number and a unit, such as 8GB or 500MB")
    power = _UNITS[match[2].lower()]
    return int(float(match[1]) * (1024 ** (power // 3) if match[3] else 10**power))


@dataclass(frozen=True)
class Fit:
    """How a section fits into the memory that is allowed: what it is expected to need, and whether its counts must stay
    on disk for that."""

    peak_bytes: float
    backed: bool


def fit(config: RunConfig, limit_bytes: int) -> Fit:
    """The quickest way to run it within ``limit_bytes``; raises InputError, with what to do, where there is none."""
    size = size_of(config)
    expected = estimate(size, config)
    if expected.peak_bytes <= limit_bytes:
        return Fit(expected.peak_bytes, backed=False)
    lazy = estimate(size, config, backed=True) if _can_stay_on_disk(config) else expected
    if lazy.peak_bytes > limit_bytes:
        raise _check.problem(
            f"{gigabytes(lazy.peak_bytes)} of memory are expected, {gigabytes(limit_bytes)} are allowed",
            found=f"{size.n_obs:,} spots x {size.n_genes:,} genes, {size.nnz:,} counts that are not zero",
            cure=cure(size, config),
        )
    return Fit(lazy.peak_bytes, backed=True)


def _can_stay_on_disk(config: RunConfig) -> bool:
    """Whether all that is asked for goes through the counts by blocks, and dask is there."""
    streams = fusion.fusions[config.method].facts.get("streams", False)
    return bool(streams and not config.trajectory and find_spec("dask") is not None)


def cure(size: Size, config: RunConfig) -> str:
    """What makes a run smaller, as far as this one has not done it yet."""
    ways = ["more --memory" if config.region_um else "a part of the section with --region-um"]
    if config.resolution in (None, "2um", "8um", "bin20") and config.platform in ("auto", "visium_hd", "stereoseq"):
        ways.append("coarser bins with --resolution, where the platform has them")
    if config.evidence:
        ways.append("--no-evidence")
    if size.megapixels > 0 and config.encoder != NO_ENCODER:
        ways.append("--encoder none")
    return ", or ".join(ways)


def sentence(size: Size, expected: Estimate) -> str:
    """An estimate as a line for people."""
    low, high = expected.seconds / FACTOR_SECONDS, expected.seconds * FACTOR_SECONDS
    line = (
        f"{size.n_obs:,} spots x {size.n_genes:,} genes: about {duration(expected.seconds)} of one core"
        f" ({duration(low)} to {duration(high)}), about {gigabytes(expected.peak_bytes)}"
        f" of memory (up to {gigabytes(expected.peak_bytes * FACTOR_BYTES)})"
    )
    return line + (f"; without {_check.listed(expected.without)}" if expected.without else "")


def gigabytes(n_bytes: float) -> str:
    """10^9 bytes each.

    >>> gigabytes(1.26e9)
    '1.3 GB'
    """
    return f"{n_bytes / 1e9:.1f} GB"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(42), duration(300), duration(9000)
    ('42 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# -- what was used -------------------------------------------------------------------------------------------


@contextmanager
def peak() -> Iterator[Callable[[], float]]:
    """Gives a function that says the most memory that this process held since the block began, 10^6 bytes.

    Where the system cannot begin anew (other than Linux) it is the most since the process began.
    """
    begun = _begin_anew()
    yield lambda: _high_water(begun)


def _begin_anew() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _high_water(begun: bool) -> float:
    if begun:
        with Path("/proc/self/status").open(encoding="ascii", errors="replace") as lines:
            found = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
        if found is not None:
            return round(int(found) * 1024 / 1e6, 1)
    if sys.platform == "win32":
        return float("nan")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)
