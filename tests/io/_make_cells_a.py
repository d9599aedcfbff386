"""Small Visium HD and Xenium sections with known truth, written as 10x Genomics' software writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import _make
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse

UM_PER_PX = 0.2738242950835738
GENES = [f"GENE{g}" for g in range(8)]
IDS = [f"ENSG{g:011d}" for g in range(8)]


# ---- Visium HD ----


@dataclass(frozen=True)
class Bins:
    """Bins of one size: ``um`` their true centres, ``xy`` those in pixels, ``counts`` [n, n_genes]."""

    side: int
    barcodes: list[str]
    row: np.ndarray
    col: np.ndarray
    xy: np.ndarray
    um: np.ndarray
    counts: np.ndarray


def bins(side: int, *, n: int = 96, angle: float = 0.03, seed: int = 0) -> Bins:
    """A square of ``n`` um in bins of ``side`` um; the counts of large bins are the sums of the small ones in them."""
    per = n // 2
    fine = np.random.default_rng(seed).poisson(0.3, (per, per, len(GENES)))
    fine[..., 0] += np.arange(per)[:, None] < per // 2
    k = side // 2
    counts = fine.reshape(per // k, k, per // k, k, -1).sum(axis=(1, 3))
    row, col = (a.ravel() for a in np.mgrid[: per // k, : per // k])
    um = (np.column_stack([col, row]) + 0.5) * side
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    xy = um @ turn.T / UM_PER_PX + 100.0
    names = [f"s_{side:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, col)]
    return Bins(side, names, row, col, xy, um, counts.reshape(len(row), -1))


def _factors(folder: Path, side: int | None, **changed: object) -> None:
    factors: dict[str, object] = {
        "microns_per_pixel": UM_PER_PX,
        "regist_target_img_scalef": 0.5,
        "tissue_hires_scalef": 0.5,
        "tissue_lowres_scalef": 0.1,
        "fiducial_diameter_fullres": 1205.0,
    }
    if side is not None:
        factors |= {"bin_size_um": float(side), "spot_diameter_fullres": side / UM_PER_PX}
    (folder / "scalefactors_json.json").write_text(json.dumps(factors | changed))


def square(folder: Path, side: int, *, order: np.ndarray | None = None, kind: str = "filtered_h5", **changed) -> Bins:
    """Write ``square_00Xum``: bins beyond 72 um to the right lie off the tissue; a filtered matrix lacks them."""
    found = bins(side)
    in_tissue = (found.um[:, 0] < 72).astype(int)
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    frame = pd.DataFrame(
        {
            "barcode": found.barcodes,
            "in_tissue": in_tissue,
            "array_row": found.row,
            "array_col": found.col,
            "pxl_row_in_fullres": found.xy[:, 1],
            "pxl_col_in_fullres": found.xy[:, 0],
        }
    )
    (frame if order is None else frame.iloc[order]).to_parquet(spatial / "tissue_positions.parquet", index=False)
    _factors(spatial, side, **changed)
    for key, scale in (("hires", 0.5), ("lowres", 0.1)):
        width = int(520 * scale)
        Image.fromarray(_make.picture((width, width))).save(spatial / f"tissue_{key}_image.png")
    as_visium = _make.Section(found.barcodes, GENES, found.counts, found.row, found.col, found.xy, UM_PER_PX, in_tissue)
    _make.write_matrix(folder, as_visium, kind=kind)
    return found


@dataclass(frozen=True)
class HDCells:
    """Segmented cells: octagons of radius ``r_um`` at ``um``."""

    names: list[str]
    um: np.ndarray
    r_um: np.ndarray
    counts: np.ndarray


def _octagon(centre: np.ndarray, radius: float) -> list[list[float]]:
    turn = np.arange(9) * np.pi / 4
    return [[float(x), float(y)] for x, y in centre + radius * np.column_stack([np.cos(turn), np.sin(turn)])]


def segmented(folder: Path, *, seed: int = 0, reverse: bool = False) -> HDCells:
    """Write ``segmented_outputs``; cell 5 has no counts, and the outlines lie in another order than the counts."""
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() * 10.0 + 10 for a in np.mgrid[:6, :5])
    um = np.column_stack([x, y]) + rng.uniform(-1, 1, (30, 2))
    cells = HDCells(
        [f"cellid_{i + 1:09d}-1" for i in range(30)], um, rng.uniform(3, 4.5, 30), rng.poisson(3, (30, len(GENES)))
    )
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    _factors(spatial, None)
    Image.fromarray(_make.picture((260, 260))).save(spatial / "tissue_hires_image.png")
    order = range(30) if reverse else range(29, -1, -1)
    for stem, share in (("cell", 1.0), ("nucleus", 0.5)):
        features = [
            {
                "type": "Feature",
                "geometry": {
                    "type": "Polygon",
                    "coordinates": [_octagon(um[i] / UM_PER_PX, share * cells.r_um[i] / UM_PER_PX)],
                },
                "properties": {"cell_id": i + 1},
            }
            for i in order
        ]
        text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1 if reverse else None)
        (folder / f"{stem}_segmentations.geojson").write_text(text)
    keep = [i for i in range(30) if i != 4]
    _make.write_h5(
        folder / "filtered_feature_cell_matrix.h5", cells.counts[keep], barcodes=[cells.names[i] for i in keep],
        genes=GENES, ids=IDS, types=["Gene Expression"] * len(GENES),
    )  # fmt: skip
    return cells


def visium_hd(folder: Path, *, version: int = 4) -> Path:
    """Space Ranger's ``outs``: three sizes of bins, from version 4 on also cells."""
    for side in (2, 8, 16):
        square(folder / f"binned_outputs/square_{side:03d}um", side)
    (folder / "feature_slice.h5").write_bytes(b"not read")
    (folder / "spatial").mkdir()
    if version >= 4:
        segmented(folder / "segmented_outputs")
    return folder


# ---- Xenium ----

PIXEL_UM = 0.2125
XENIUM_TYPES = ["Gene Expression"] * 6 + ["Negative Control Probe", "Unassigned Codeword"]
XENIUM_GENES = [*GENES[:6], "NegControlProbe_00001", "UnassignedCodeword_0001"]
_ZARR_TYPES = {"Gene Expression": "gene"}


@dataclass(frozen=True)
class XeniumCells:
    """Cells at ``um``; outlines are octagons of radius ``r_um``, nuclei half as wide."""

    names: list[str]
    um: np.ndarray
    r_um: np.ndarray
    counts: np.ndarray

    @property
    def area(self) -> np.ndarray:
        return 2 * np.sqrt(2) * self.r_um**2


def xenium_cells(*, numbered: bool = False, seed: int = 0) -> XeniumCells:
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() * 12.0 + 12 for a in np.mgrid[:7, :6])
    n = len(x)
    counts = rng.poisson(2.0, (n, len(XENIUM_GENES)))
    counts[:, 0] += 1  # no empty cell
    names = [str(i + 1) for i in range(n)] if numbered else [xenium_name(3_000_000_000 + 977 * i, 1) for i in range(n)]
    return XeniumCells(names, np.column_stack([x, y]) + rng.uniform(-2, 2, (n, 2)), rng.uniform(3, 5, n), counts)


def xenium_name(prefix: int, suffix: int) -> str:
    """10x's way: eight hexadecimal digits, 0 to f written a to p, and the suffix."""
    return f"{prefix:08x}".translate(str.maketrans("0123456789abcdef", "abcdefghijklmnop")) + f"-{suffix}"


def _outlines(cells: XeniumCells, share: float) -> pd.DataFrame:
    rings = [_octagon(c, share * r) for c, r in zip(cells.um, cells.r_um)]
    xy = np.concatenate(rings)
    names = np.repeat(cells.names, [len(r) for r in rings])
    return pd.DataFrame({"cell_id": names, "vertex_x": xy[:, 0], "vertex_y": xy[:, 1]})


def _cells_table(cells: XeniumCells, version: int) -> pd.DataFrame:
    frame = pd.DataFrame(
        {
            "cell_id": cells.names,
            "x_centroid": cells.um[:, 0],
            "y_centroid": cells.um[:, 1],
            "transcript_counts": cells.counts[:, :6].sum(axis=1),
            "total_counts": cells.counts.sum(axis=1),
            "cell_area": cells.area,
            "nucleus_area": cells.area / 4,
        }
    )
    if version >= 2:
        frame["segmentation_method"] = "Segmented by nucleus expansion of 5.0um"
        frame["nucleus_count"] = 1
    return frame


def _write(frame: pd.DataFrame, path: Path, *, as_bytes: bool = False) -> None:
    if path.suffix == ".parquet":
        if as_bytes:
            frame = frame.assign(cell_id=[c.encode() for c in frame["cell_id"]])
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)


def xenium(
    folder: Path, *, version: int = 2, order: np.ndarray | None = None, image: bool = True, zarr_only: bool = False
) -> XeniumCells:
    """Write what Xenium Onboard Analysis writes. 1: numbers for cells, csv alone; 2: names, parquet, several nuclei;
    4: proteins, channels with names. ``zarr_only``: as Xenium Explorer needs it."""
    folder.mkdir(parents=True)
    cells = xenium_cells(numbered=version == 1)
    facts = {
        "run_name": "r",
        "num_cells": len(cells.names),
        "pixel_size": PIXEL_UM,
        "analysis_sw_version": f"xenium-{version}.0.2",
    }
    (folder / "experiment.xenium").write_text(json.dumps(facts))
    if image:
        _fluorescence(folder, version)
    if zarr_only:
        _zarr_files(folder, cells, version)
        return cells
    _matrix(folder, cells, version)
    table = _cells_table(cells, version)
    table = table if order is None else table.iloc[order]
    for ending in ("csv.gz",) if version == 1 else ("parquet",) if version >= 4 else ("csv.gz", "parquet"):
        _write(table, folder / f"cells.{ending}", as_bytes=version == 2)
        for stem, share in (("cell", 1.0), ("nucleus", 0.5)):
            frame = _outlines(cells, share)
            if version >= 2:
                frame["label_id"] = pd.factorize(frame["cell_id"])[0] + 1
            if stem == "nucleus" and version >= 2:  # the first cell has a second nucleus
                more = frame[:9].assign(label_id=len(cells.names) + 1, vertex_x=lambda f: f["vertex_x"] + 50)
                frame = pd.concat([frame, more])
            _write(frame, folder / f"{stem}_boundaries.{ending}", as_bytes=True)
    return cells


def _matrix(folder: Path, cells: XeniumCells, version: int) -> None:
    counts, genes, types = cells.counts, list(XENIUM_GENES), list(XENIUM_TYPES)
    if version >= 4:
        counts = np.column_stack([counts, np.linspace(0.5, 90.5, len(counts))])
        genes, types = [*genes, "CD45"], [*types, "Protein Expression"]
    ids = [f"ENSG{i:011d}" for i in range(len(genes))]
    _make.write_h5(
        folder / "cell_feature_matrix.h5", counts, barcodes=cells.names, genes=genes, ids=ids, types=types
    )  # fmt: skip


def _fluorescence(folder: Path, version: int) -> None:
    import tifffile

    pixels = np.random.default_rng(0).integers(0, 4000, (560, 480)).astype(np.uint16)
    names = {1: "morphology_focus.ome.tif", 2: "morphology_focus/morphology_focus_0000.ome.tif"}
    path = folder / names.get(version, "morphology_focus/ch0000_dapi.ome.tif")
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(path, pixels, tile=(256, 256), metadata={"axes": "YX"})


def _zarr_files(folder: Path, cells: XeniumCells, version: int) -> None:
    import zarr

    n = len(cells.names)
    own = np.arange(1, n + 1, dtype=np.uint32)
    pairs = np.column_stack([3_000_000_000 + 977 * np.arange(n), np.ones(n)]).astype(np.uint32)
    ids = own if version == 1 else pairs
    shapes = [_outlines(cells, share)[["vertex_x", "vertex_y"]].to_numpy().reshape(n, -1) for share in (0.5, 1.0)]
    padded = [np.pad(s, ((0, 0), (0, 4)), constant_values=np.nan).astype(np.float32) for s in shapes]
    store = zarr.storage.ZipStore(str(folder / "cells.zarr.zip"), mode="w")
    root = zarr.create_group(store, zarr_format=2)
    summary = np.column_stack([cells.um, cells.area, cells.um, cells.area / 4, np.full(n, 3.0), np.ones(n)])
    names = ("cell_centroid_x", "cell_centroid_y", "cell_area", "nucleus_centroid_x", "nucleus_centroid_y")
    facts = {"column_names": [*names, "nucleus_area", "z_level", "nucleus_count"]} if version > 1 else {}
    root.create_array("cell_summary", data=summary[:, : 7 if version == 1 else 8], attributes=facts)
    root.create_array("cell_id", data=ids)
    if version == 1:
        root.create_array("polygon_vertices", data=np.stack(padded))
        root.create_array("polygon_num_vertices", data=np.full((2, n), 9, dtype=np.int32))
    else:
        order = np.random.default_rng(1).permutation(n)
        for k in range(2):
            group = root.create_group(f"polygon_sets/{k}")
            group.create_array("cell_index", data=order.astype(np.uint32))
            group.create_array("num_vertices", data=np.full(n, 9, dtype=np.int32))
            group.create_array("vertices", data=padded[k][order])
    store.close()
    by_feature = sparse.csr_matrix(np.vstack([cells.counts.T, cells.counts.sum(axis=1)]))
    store = zarr.storage.ZipStore(str(folder / "cell_feature_matrix.zarr.zip"), mode="w")
    kinds = [_ZARR_TYPES.get(t, t.lower().replace(" ", "_")) for t in XENIUM_TYPES]
    facts = {
        "feature_ids": [*IDS, "Total"],
        "feature_keys": [*XENIUM_GENES, "Total"],
        "feature_types": [*kinds, "aggregate_gene"],
    }
    group = zarr.create_group(store, zarr_format=2).create_group("cell_features", attributes=facts)
    for key in ("data", "indices", "indptr"):
        group.create_array(key, data=getattr(by_feature, key).astype(np.uint32))
    if version > 1:
        group.create_array("cell_id", data=ids)
    store.close()


def transcripts(path: Path, cells: XeniumCells, *, seed: int = 0) -> None:
    """The table that gives ``cells.counts``, and as many transcripts of low quality or in no cell."""
    cell, gene = np.nonzero(cells.counts)
    times = cells.counts[cell, gene]
    frame = pd.DataFrame(
        {
            "cell_id": np.repeat(np.asarray(cells.names)[cell], times),
            "feature_name": np.repeat(np.asarray(XENIUM_GENES)[gene], times),
            "qv": 20.0,
        }
    )
    none = "-1" if cells.names[0] == "1" else "UNASSIGNED"
    frame = pd.concat([frame, frame.assign(qv=19.9), frame.assign(cell_id=none)])
    _write(frame.sample(frac=1, random_state=seed), path)


def registered(folder: Path) -> np.ndarray:
    """Write an H&E scan, turned by a quarter and half as fine as the section's image, with a dark square at 30, 40 um
    and its alignment; returns the matrix, from pixels of the scan to those of the section."""
    import tifffile

    matrix = np.array([[0.0, 2.0, 0.0], [-2.0, 0.0, 560.0], [0.0, 0.0, 1.0]])
    pixels = np.full((240, 280, 3), 230, dtype=np.uint8)
    x, y = (np.linalg.inv(matrix) @ [30 / PIXEL_UM, 40 / PIXEL_UM, 1])[:2].round().astype(int)
    pixels[y - 4 : y + 5, x - 4 : x + 5] = 20
    tifffile.imwrite(folder / "S_he_image.ome.tif", pixels, tile=(64, 64), photometric="rgb")
    np.savetxt(folder / "S_he_imagealignment.csv", matrix, delimiter=",")
    return matrix


WRITERS: dict[str, Callable[[Path], Path]] = {
    "visium_hd": lambda folder: visium_hd(folder / "d"),
    "xenium": lambda folder: (xenium(folder / "d"), folder / "d")[1],
}
