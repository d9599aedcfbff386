"""Small sections with known truth, written as Space Ranger, legacy ST, h5ad and tables are."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

HEADER = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"


@dataclass(frozen=True)
class Section:
    """A hexagonal section: ``um`` are the true positions, ``xy`` the pixels, all rows in one order."""

    barcodes: list[str]
    genes: list[str]
    counts: np.ndarray
    row: np.ndarray
    col: np.ndarray
    xy: np.ndarray
    um_per_px: float
    in_tissue: np.ndarray
    factors: dict[str, Any] = field(default_factory=dict)

    @property
    def um(self) -> np.ndarray:
        return np.column_stack([self.col * 50.0, self.row * 100.0 * np.sqrt(3) / 2])

    def permuted(self, order: np.ndarray) -> Section:
        picked = {k: getattr(self, k)[order] for k in ("counts", "row", "col", "xy", "in_tissue")}
        return replace(self, barcodes=[self.barcodes[i] for i in order], **picked)


def barcode(i: int) -> str:
    return "".join("ACGT"[(i >> (2 * k)) % 4] for k in range(16)) + "-1"


def section(
    n_rows: int = 8,
    n_cols: int = 7,
    *,
    um_per_px: float = 0.5,
    angle: float = 0.0,
    shift: tuple[float, float] = (300.0, 250.0),
    flip: bool = False,
    seed: int = 0,
    off_tissue: int = 6,
) -> Section:
    """Every second lattice place, as on Visium; the last ``off_tissue`` spots lie beside the tissue."""
    rng = np.random.default_rng(seed)
    row, k = (a.ravel() for a in np.mgrid[:n_rows, :n_cols])
    col = 2 * k + row % 2
    um = np.column_stack([col * 50.0, row * 100.0 * np.sqrt(3) / 2])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        turn = turn @ np.array([[0.0, 1.0], [1.0, 0.0]])
    xy = um @ turn.T / um_per_px
    xy = xy - xy.min(axis=0) + np.asarray(shift)
    n = len(row)
    in_tissue = np.ones(n, dtype=int)
    in_tissue[n - off_tissue :] = 0
    counts = rng.poisson(2.0, (n, 12))
    counts[:, 0] += 1  # no empty spot
    return Section(
        [barcode(i * 7 + 3) for i in range(n)],
        [f"GENE{g}" for g in range(12)],
        counts,
        row,
        col,
        xy,
        um_per_px,
        in_tissue,
    )


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3], pinkish noise; ``size`` is (width, height)."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal([210, 170, 200], 20, (size[1], size[0], 3)), 0, 255).astype(np.uint8)


def spaceranger(
    folder: Path,
    sec: Section,
    *,
    version: int = 2,
    positions: str | None = None,
    header: bool | None = None,
    matrix: str = "filtered_h5",
    images: tuple[str, ...] = ("hires", "lowres"),
    types: list[str] | None = None,
    position_order: np.ndarray | None = None,
) -> Path:
    """Write a Space Ranger folder. ``matrix``: filtered_h5, filtered_mtx, raw_h5, raw_mtx, or none."""
    spatial = folder / "spatial"
    spatial.mkdir(parents=True)
    positions = positions or ("tissue_positions_list.csv" if version == 1 else "tissue_positions.csv")
    write_positions(
        spatial / positions,
        sec if position_order is None else sec.permuted(position_order),
        header=(version > 1) if header is None else header,
    )
    extent = sec.xy.max(axis=0) + 300.0
    scales = {"hires": 200 / extent.max(), "lowres": 60 / extent.max()}
    factors = {f"tissue_{k}_scalef": v for k, v in scales.items()} | {
        "spot_diameter_fullres": 65 / sec.um_per_px,
        "fiducial_diameter_fullres": 105 / sec.um_per_px,
    }
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors | sec.factors))
    for key in images:
        width, height = (int(np.ceil(e * scales[key])) for e in extent)
        Image.fromarray(picture((width, height))).save(spatial / f"tissue_{key}_image.png")
    if matrix != "none":
        write_matrix(folder, sec, kind=matrix, types=types)
    return folder


def write_positions(path: Path, sec: Section, *, header: bool) -> None:
    frame = pd.DataFrame(
        {
            "barcode": sec.barcodes,
            "in_tissue": sec.in_tissue,
            "array_row": sec.row,
            "array_col": sec.col,
            "pxl_row_in_fullres": sec.xy[:, 1],
            "pxl_col_in_fullres": sec.xy[:, 0],
        }
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, header=header)


def write_matrix(folder: Path, sec: Section, *, kind: str = "filtered_h5", types: list[str] | None = None) -> None:
    where, form = kind.split("_")
    keep = sec.in_tissue == 1 if where == "filtered" else np.ones(len(sec.barcodes), dtype=bool)
    barcodes = [b for b, k in zip(sec.barcodes, keep) if k]
    types = types or ["Gene Expression"] * len(sec.genes)
    ids = [f"ENSG{i:011d}" for i in range(len(sec.genes))]
    if form == "h5":
        write_h5(
            folder / f"{where}_feature_bc_matrix.h5",
            sec.counts[keep],
            barcodes=barcodes,
            genes=sec.genes,
            ids=ids,
            types=types,
        )
        return
    inner = folder / f"{where}_feature_bc_matrix"
    inner.mkdir()
    plain = inner / "matrix.mtx"
    mmwrite(plain, sparse.coo_matrix(sec.counts[keep].T), field="integer")
    (inner / "matrix.mtx.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    (inner / "barcodes.tsv.gz").write_bytes(gzip.compress("\n".join(barcodes).encode()))
    lines = ["\t".join(row) for row in zip(ids, sec.genes, types)]
    (inner / "features.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def write_h5(
    path: Path, counts: Any, *, barcodes: list[str], genes: list[str], ids: list[str], types: list[str]
) -> None:
    matrix = sparse.csr_matrix(counts)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.asarray(barcodes, dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
        group["shape"] = np.asarray(matrix.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        for name, values in (
            ("id", ids),
            ("name", genes),
            ("feature_type", types),
            ("genome", ["g"] * len(ids)),
        ):
            features[name] = np.asarray(values, dtype="S")


def legacy(
    folder: Path,
    *,
    sample: str = "S1",
    n: int = 6,
    um_per_px: float = 2.0,
    image_size: tuple[int, int] | None = (1000, 900),
    labels: bool = True,
    without_counts: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Write a legacy ST folder of n x n spots; returns the selection, indexed by spot name."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    y, x = (a.ravel() + 5 for a in np.mgrid[:n, :n])
    frame = pd.DataFrame({"x": x, "y": y, "new_x": x + 0.01, "new_y": y - 0.02})
    frame["pixel_x"] = (x - 4) * 200.0 / um_per_px / 1.0
    frame["pixel_y"] = (y - 4) * 200.0 / um_per_px + 50
    frame["selected"] = 1
    frame.index = [f"{a}x{b}" for a, b in zip(x, y)]
    frame.sample(frac=1, random_state=seed).to_csv(folder / f"{sample}_selection.tsv", sep="\t", index=False)
    spots = frame.index[: len(frame) - without_counts]
    counts = pd.DataFrame(rng.poisson(3, (len(spots), 8)) + 1, index=spots, columns=[f"G{k}" for k in range(8)])
    counts.to_csv(folder / f"{sample}.tsv.gz", sep="\t")
    text = ""
    if labels:
        table = pd.DataFrame(
            {
                "Row.names": range(len(x)),
                "x": x + 0.02,
                "y": y - 0.04,
                "label": np.where(x < 8, "left", "right"),
            }
        )
        text = table.iloc[:-2].to_csv(sep="\t", index=False)
    (folder / f"{sample}_labeled_coordinates.tsv").write_text(text)
    if image_size is not None:
        Image.fromarray(picture(image_size)).save(folder / f"{sample}_HE.png")
    return frame


def tables(
    folder: Path, *, transposed: bool = False, header: bool = True, ending: str = "csv", seed: int = 0
) -> pd.DataFrame:
    """Write counts.* and coordinates.* in different orders; returns the counts with x, y, indexed by cell."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    cells = [f"cell{i}" for i in range(30)]
    counts = pd.DataFrame(rng.poisson(3, (30, 5)) + 1, index=cells, columns=list("ABCDE"))
    places = pd.DataFrame(
        {"x": rng.uniform(0, 500, 30), "y": rng.uniform(0, 400, 30), "kind": ["k", "m"] * 15}, index=cells
    )
    separator = "\t" if ending.startswith("tsv") else ","
    (counts.T if transposed else counts).to_csv(folder / f"counts.{ending}", sep=separator)
    shown = places.sample(frac=1, random_state=seed)
    (shown if header else shown[["x", "y"]]).to_csv(
        folder / f"coordinates.{ending}", sep=separator, header=header, index_label="id"
    )
    return counts.join(places)
