"""Between the image and a slow encoder: tiles are read ahead, and finished batches are kept."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from smeld import _check
from smeld.morph._encoders import Encode

T = TypeVar("T")


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield ``items`` in their order; the next one is made in a thread while the last one is worked on."""
    iterator = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="smeld-tiles") as reader:
        coming = reader.submit(next, iterator, None)
        while (item := coming.result()) is not None:
            coming = reader.submit(next, iterator, None)
            yield item


def kept(encode: Encode, folder: Path, fingerprint: Callable[[], str]) -> Encode:
    """``encode`` that keeps each batch of features in ``folder`` as ``<key>.npy``, and looks there first.

    The key is a hash of the tiles themselves and of the encoder's fingerprint, so that nothing stale is ever found:
    another image, other spots, other weights have other keys. A file that cannot be read is made again.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cure = "give a folder that can be written"
        raise _check.problem(f"cache {folder.name} is no folder", found=str(error)[:120], cure=cure) from error
    start = hashlib.sha256(fingerprint().encode())

    def encode_or_find(tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        key = start.copy()
        key.update(str(tiles.shape).encode())
        key.update(np.ascontiguousarray(tiles).data)
        path = folder / f"{key.hexdigest()}.npy"
        found = _read(path, len(tiles))
        if found is not None:
            return found
        made = np.asarray(encode(tiles), dtype=np.float32)
        _write(path, made)
        return made

    return encode_or_find


def _read(path: Path, n_tiles: int) -> NDArray[np.float32] | None:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    good = found.dtype == np.float32 and found.ndim == 2 and len(found) == n_tiles
    return found if good else None


def _write(path: Path, values: NDArray[np.float32]) -> None:
    """The whole file or none: written beside its place, then moved there."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".saving-", suffix=".npy", delete=False) as file:
        part = Path(file.name)
        try:
            np.save(file, values, allow_pickle=False)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    part.replace(path)
