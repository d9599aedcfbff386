"""Xenium's ``.zarr.zip`` files, for sections of which only what Xenium Explorer reads was kept.

Layout: 10x Genomics, "Overview of Xenium Zarr Output Files" (Xenium Onboard Analysis 1.0 to 4.0).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.io import _chunks
from smeld.io._cells import EXPRESSION
from smeld.io._matrix10x import Matrix10x

F64 = NDArray[np.float64]

#: places of outlines in ``polygon_sets`` (version 2 on) and on the first axis of ``polygon_vertices`` (version 1)
NUCLEUS, CELL = 0, 1
#: columns of ``cell_summary``, where the file does not name them
_SUMMARY = (
    "cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x", "nucleus_centroid_y", "nucleus_area",
    "z_level", "nucleus_count",
)  # fmt: skip
_NIBBLES = np.frombuffer(b"abcdefghijklmnop", dtype=np.uint8)


def cell_names(ids: NDArray[Any]) -> list[str]:
    """Names of cells: numbers in version 1.0; later pairs [n, 2] of uint32, of which the first is written in the
    letters a to p for the digits 0 to f, eight of them, and the second follows after a hyphen."""
    if ids.ndim == 1:
        return [str(int(i)) for i in ids]
    digits = (ids[:, :1].astype(np.uint32) >> np.arange(28, -1, -4, dtype=np.uint32)) & np.uint32(15)
    letters = np.ascontiguousarray(_NIBBLES[digits]).view("S8").ravel().astype(str)
    return [f"{word}-{int(suffix)}" for word, suffix in zip(letters.tolist(), ids[:, 1])]


def cells(path: Path) -> tuple[list[str], dict[str, F64]]:
    """(names of the cells, columns of ``cell_summary``) of ``cells.zarr.zip``."""
    with _opened(path) as root:
        summary = np.asarray(root["cell_summary"][...], dtype=np.float64)
        _refuse_zeros((summary == 0).all(axis=1), "cells without a place and an area")
        named = root["cell_summary"].attrs.get("column_names", _SUMMARY[: summary.shape[1]])
        names = cell_names(_chunks.whole(root["cell_id"]))
        if len(names) != len(summary):
            raise ValueError(f"{len(names)} names of {len(summary)} cells")
    return names, {str(name): summary[:, k] for k, name in enumerate(named)}


def matrix(path: Path, cells_path: Path | None) -> Matrix10x:
    """The counts of ``cell_feature_matrix.zarr.zip``, a row of ``indptr`` a feature.

    Its columns are the cells of ``cell_id`` here or, in files without, in ``cells.zarr.zip``.
    """
    with _opened(path) as root:
        group = root["cell_features"]
        facts = dict(group.attrs)
        ids, names, kinds = (np.asarray(facts[f"feature_{key}"], dtype=str) for key in ("ids", "keys", "types"))
        parts = [_chunks.whole(group[key]) for key in ("data", "indices", "indptr")]
        own = _chunks.whole(group["cell_id"]) if "cell_id" in group else None
        if own is None and cells_path is None:
            raise ValueError("no cell_id, and no cells.zarr.zip beside it")
        barcodes = cell_names(own) if own is not None else cells(cells_path)[0]  # type: ignore[arg-type]
        by_feature = sparse.csr_matrix(
            (parts[0].astype(np.float32), parts[1].astype(np.int64), parts[2].astype(np.int64)),
            shape=(len(names), len(barcodes)),
        )
        by_feature.check_format(full_check=True)
        if not _chunks.is_whole(by_feature):
            raise ValueError("entries that come twice, or rows that do not end: files of it are missing")
        kept = kinds != "aggregate_gene"  # sums over other features
    counts = sparse.csr_matrix(by_feature[kept].T)
    counts.sum_duplicates()
    types = np.asarray([EXPRESSION if k == "gene" else k.replace("_", " ").title() for k in kinds[kept]], dtype=str)
    return Matrix10x(counts, np.asarray(barcodes, dtype=str), ids[kept], names[kept], types)


def outlines(path: Path, which: int) -> tuple[NDArray[Any], F64]:
    """(cell of each vertex, vertices [n, 2] in micrometres) of ``cells.zarr.zip``; ``which`` is NUCLEUS or CELL."""
    with _opened(path) as root:
        names = np.asarray(cell_names(_chunks.whole(root["cell_id"])), dtype=object)
        if "polygon_sets" in root:
            part = root[f"polygon_sets/{which}"]
            owner, size, flat = (np.asarray(part[k][...]) for k in ("cell_index", "num_vertices", "vertices"))
        else:
            size, flat = (np.asarray(root[k][which]) for k in ("polygon_num_vertices", "polygon_vertices"))
            owner = np.arange(len(size))
        vertices = flat.reshape(len(size), -1, 2).astype(np.float64)
        used = np.arange(vertices.shape[1]) < size[:, None]
        # nobody writes a chunk of zeros alone, and outlines are filled up with zeros: two vertices at 0, 0 tell
        nothing = (vertices == 0).all(axis=2) & used
        _refuse_zeros((nothing[:, 1:] & nothing[:, :-1]).any(axis=1), "outlines without a place")
        return np.repeat(names[owner.astype(np.intp)], used.sum(axis=1)), vertices[used]


def _refuse_zeros(bad: NDArray[np.bool_], what: str) -> None:
    if bad.any():
        raise ValueError(f"{int(bad.sum())} {what}: files of it are missing")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The root group of a zarr store, a zip file or a folder; whatever goes wrong is one line for the user."""
    try:
        import zarr
    except ImportError:
        raise _check.problem(
            f"{path.name} needs the package zarr", cure="pip install zarr (or smeld[spatialdata])"
        ) from None
    try:
        if path.is_dir():
            yield zarr.open_group(str(path), mode="r")
            return
        store = zarr.storage.ZipStore(str(path), mode="r")
        try:
            yield zarr.open_group(store, mode="r")
        finally:
            store.close()
    except _check.InputError:
        raise
    except Exception as error:  # zarr, its codecs and zipfile raise many kinds; all mean: not the layout known
        raise _check.problem(
            f"{path.name} cannot be read as Xenium's zarr",
            found=f"{type(error).__name__}: {str(error)[:100]}",
            cure="copy the file again (it may be truncated), or add cells.csv.gz and cell_feature_matrix.h5",
        ) from error
