"""Small sections of cells with known truth, as CosMx, MERSCOPE, MERFISH, seqFISH, STARmap and osmFISH deliver them."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import tifffile

#: micrometres per pixel of the commercial CosMx instrument
COSMX_UM = 0.120280945
GENES = [f"Gene{k}" for k in range(8)]


def truth(n: int = 40, seed: int = 0) -> pd.DataFrame:
    """Counts of GENES, and true x, y in micrometres, of n cells."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.poisson(2.0, (n, len(GENES))), columns=GENES)
    frame[GENES[0]] += 1
    frame["x"], frame["y"] = np.round(rng.uniform(20, 380, (2, n)), 3)
    return frame


def permuted(frame: pd.DataFrame, seed: int | None) -> pd.DataFrame:
    return frame if seed is None else frame.sample(frac=1, random_state=seed)


def truncate(path: Path, share: float = 0.5) -> None:
    """Cut a file: a copy that was broken off."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def square(x: float, y: float, half: float) -> np.ndarray:
    return np.array([[x - half, y - half], [x + half, y - half], [x + half, y + half], [x - half, y + half]])


def cosmx(
    folder: Path, *, version: str = "atomx", order: int | None = None, zipped: bool | None = None
) -> pd.DataFrame:
    """Two fields of view with cell numbers that begin anew; returns the truth by name of the cell.

    atomx: 1.3, y of global pixels upwards; legacy: rows of cell 0, no outlines, frames in pixels only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    new = version == "atomx"
    cells = truth()
    cells["fov"] = np.where(cells["x"] < 200, 1, 2)
    cells["cell_ID"] = cells.groupby("fov").cumcount() + 1
    cells["cell"] = [f"c_1_{f}_{c}" for f, c in zip(cells["fov"], cells["cell_ID"])]
    px, py = cells["x"] / COSMX_UM, cells["y"] / COSMX_UM
    rng = np.random.default_rng(1)
    controls = ["Negative1", "Negative2", "SystemControl1"] if new else ["NegPrb1", "NegPrb2"]
    counts = cells[["fov", "cell_ID", *GENES]].assign(**{c: rng.poisson(0.3, len(cells)) for c in controls})
    if not new:
        outside = counts.groupby("fov", as_index=False).first().assign(cell_ID=0)
        counts = pd.concat([outside, counts])
    meta = pd.DataFrame(
        {"fov": cells["fov"], "cell_ID": cells["cell_ID"], "Area": 2500, "CenterX_local_px": px % 1600,
         "CenterY_local_px": 10, "CenterX_global_px": px, "CenterY_global_px": py, "Mean.DAPI": 5 + cells["fov"]}
    )  # fmt: skip
    frames = pd.DataFrame({"FOV" if new else "fov": [1, 2], "x_global_px": [0, 1663], "y_global_px": [4256, 4256]})
    if new:
        meta = meta.assign(**{"Area.um2": 2500 * COSMX_UM**2, "cell": cells["cell"], "slide_ID": 1})
        frames = frames.assign(x_global_mm=frames["x_global_px"] * COSMX_UM / 1000, y_global_mm=0.5)
        corners = [square(x, y, 25) for x, y in zip(px, py)]
        polygons = pd.DataFrame(np.concatenate(corners), columns=["x_global_px", "y_global_px"])
        polygons.insert(0, "fov", np.repeat(cells["fov"], 4).to_numpy())
        polygons.insert(1, "cellID", np.repeat(cells["cell_ID"], 4).to_numpy())
    end = ".csv.gz" if (new if zipped is None else zipped) else ".csv"
    permuted(counts, order).to_csv(folder / f"S1_exprMat_file{end}", index=False)
    permuted(meta, None if order is None else order + 1).to_csv(folder / f"S1_metadata_file{end}", index=False)
    frames.to_csv(folder / f"S1_fov_positions_file{end}", index=False)
    if new:
        polygons.to_csv(folder / f"S1-polygons{end}", index=False)
    named = cells["cell"] if new else [f"{f}_{c}" for f, c in zip(cells["fov"], cells["cell_ID"])]
    return cells.set_index(pd.Index(list(named)))


def wkb(ring: np.ndarray, *, order: str = "<") -> bytes:
    closed = np.concatenate([ring, ring[:1]])
    head = struct.pack(order + "BIII", 1 if order == "<" else 0, 3, 1, len(closed))
    return head + closed.astype(order + "f8").tobytes()


def merscope(folder: Path, *, version: str = "parquet", order: int | None = None, image: bool = True) -> pd.DataFrame:
    """A region 5 mm from the slide's corner; outlines of seven planes, the middle one 6 um wide."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = truth()
    cells["x"] += 5000
    cells.index = pd.Index([str(112824700230101249 + 3 * i) for i in range(len(cells))])
    rng = np.random.default_rng(1)
    counts = cells[GENES].assign(**{f"Blank-{k}": rng.poisson(0.2, len(cells)) for k in (1, 2, 3)})
    meta = pd.DataFrame(
        {"fov": 7, "volume": 500.0, "center_x": cells["x"], "center_y": cells["y"], "DAPI_raw": 3.5}, index=cells.index
    )
    new = version == "parquet"  # before, the column of identifiers had no name
    permuted(counts, order).to_csv(folder / "cell_by_gene.csv", index_label="cell" if new else "")
    meta = permuted(meta, None if order is None else order + 1)
    meta.to_csv(folder / "cell_metadata.csv", index_label="EntityID" if new else "")
    rings = {
        (name, z): square(x, y, 3.0 if z == 3 else 4.0)
        for name, x, y in cells[["x", "y"]].itertuples()
        for z in range(7)
    }
    if new:
        rows = [{"EntityID": int(n), "ZIndex": z, "Type": "cell", "Geometry": wkb(r)} for (n, z), r in rings.items()]
        pd.DataFrame(rows).to_parquet(folder / "cell_boundaries.parquet")
    else:
        (folder / "cell_boundaries").mkdir()
        with h5py.File(folder / "cell_boundaries/feature_data_0.hdf5", "w") as file:
            for (name, z), ring in rings.items():
                file[f"featuredata/{name}/zIndex_{z}/p_0/coordinates"] = np.concatenate([ring, ring[:1]])[None]
    if image:
        (folder / "images").mkdir(exist_ok=True)
        for z in (2, 3, 4):
            tifffile.imwrite(folder / f"images/mosaic_DAPI_z{z}.tif", mosaic(cells[["x", "y"]].to_numpy(), z))
        tifffile.imwrite(folder / "images/mosaic_Anti-Rat_z3.tif", np.zeros((800, 800), dtype=np.uint8))
        text = f"2 0 {-2 * 5000 + 10}\n0 2 20\n0 0 1\n"
        (folder / "images/micron_to_mosaic_pixel_transform.csv").write_text(text)
    return cells


def mosaic(xy: np.ndarray, z: int) -> np.ndarray:
    """uint16 [840, 820]: bright squares where cells lie, by x_px = 2 x - 9990 and y_px = 2 y + 20."""
    pixels = np.full((840, 820), 100 * z, dtype=np.uint16)
    for x, y in np.round(xy * 2 + [-9990, 20]).astype(int):
        pixels[y - 4 : y + 5, x - 4 : x + 5] = 40_000
    return pixels


def merfish(folder: Path, *, sections: int = 1, order: int | None = None) -> pd.DataFrame:
    """Moffitt et al.'s table; sections are two animals at two planes each where there are four."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for k in range(sections):
        part = truth(seed=k)
        part.index = pd.Index([f"uuid-{k}-{i}" for i in range(len(part))])
        parts.append(part.assign(Animal_ID=1 + k // 2, Bregma=[0.26, -0.04][k % 2]))
    cells = pd.concat(parts)
    table = cells[["Animal_ID"]].assign(
        Animal_sex="Female", Bregma=cells["Bregma"], Centroid_X=cells["x"], Centroid_Y=cells["y"],
        Cell_class=np.where(cells["x"] < 200, "Inhibitory", "Excitatory"), Neuron_cluster_ID="",
    )  # fmt: skip
    table = table.join(cells[GENES] / 2.0).assign(Blank_1=0.5, Fos=np.where(cells["Animal_ID"] == 1, np.nan, 1.0))
    permuted(table, order).to_csv(folder / "moffitt_merfish_cells.csv", index_label="Cell_ID")
    return cells


def seqfish(
    folder: Path, *, version: int = 1, order: int | None = None, sections: int = 1, ome: bool = True
) -> pd.DataFrame:
    """Spatial Genomics' tables: version 1 numbers sections, version 2 names regions; a pixel is .25 um."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(1, sections + 1):
        cells = truth(seed=k)
        cells.index = pd.Index([str(i + 1) for i in range(len(cells))])
        places = pd.DataFrame(
            {"label": cells.index, "area": 800, "center_x": cells["x"] * 4, "center_y": cells["y"] * 4}
        )
        name = "Run_{}_section" + str(k) if version == 1 else "Roi" + str(k) + "_{}"
        counts_name = name.format("CxG" if version == 1 else "CellxGene")
        permuted(cells[GENES], order).to_csv(folder / f"{counts_name}.csv")
        permuted(places, order).to_csv(folder / f"{name.format('CellCoordinates')}.csv", index=False)
        if ome:
            meta = {"PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "axes": "YX"}
            pixels = np.full((1600, 1600), 200, dtype=np.uint8)
            tifffile.imwrite(folder / f"{name.format('DAPI')}.ome.tiff", pixels, ome=True, metadata=meta)
    return cells


def embryo(folder: Path, *, cells_in_rows: bool = False) -> pd.DataFrame:
    """Lohoff et al.'s counts and metadata, as csv: two embryos."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = truth()
    cells.index = pd.Index([f"embryo{1 + i % 2}_Pos0_cell{i}_z2" for i in range(len(cells))])
    meta = pd.DataFrame(
        {"uniqueID": cells.index, "embryo": [f"embryo{1 + i % 2}" for i in range(len(cells))], "z": 2,
         "x_global_affine": cells["x"].to_numpy(), "y_global_affine": cells["y"].to_numpy(),
         "celltype_mapped_refined": "Gut tube"}
    )  # fmt: skip
    meta.sample(frac=1, random_state=0).to_csv(folder / "metadata.csv", index=False)
    counts = cells[GENES]
    (counts if cells_in_rows else counts.T).to_csv(folder / "counts.csv")
    return cells


def starmap(folder: Path, *, places: str = "centroids") -> pd.DataFrame:
    """The release of 2018: tables without names; ``places``: centroids or labels."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = truth(16 if places == "labels" else 40)
    cells.index = pd.Index([f"cell_{i + 1}" for i in range(len(cells))])
    cells[GENES].to_csv(folder / "cell_barcode_count.csv", header=False, index=False)
    names = pd.DataFrame({"i": range(len(GENES)), "colours": "1234", "gene": GENES})
    names.to_csv(folder / "cell_barcode_names.csv", header=False, index=False)
    (folder / "genes.csv").write_text("".join(f"{g},ACGT\n" for g in reversed(GENES)))
    if places == "centroids":
        cells[["y", "x"]].to_csv(folder / "centroids.tsv", sep="\t", header=False, index=False)
        return cells
    labels = np.zeros((400, 400), dtype=np.int32)
    for k in range(len(cells)):  # 40 x 40 pixels each; label 3 is debris
        top, left = 50 + 80 * (k // 4), 10 + 90 * (k % 4)
        labels[top : top + 40, left : left + 40] = k + 1 if k < 2 else k + 2
        cells.loc[f"cell_{k + 1}", ["x", "y"]] = [left + 19.5, top + 19.5]
    labels[0:5, 0:5] = 3
    np.savez(folder / "labels.npz", labels=labels)
    return cells


def starmap_plus(folder: Path, *, order: int | None = None) -> pd.DataFrame:
    """A well of STARmap PLUS: genes x cells, positions in voxels of .194 um."""
    folder.mkdir(parents=True, exist_ok=True)
    cells = truth()
    cells.index = pd.Index([f"well05_{i}" for i in range(len(cells))])
    permuted(cells[GENES], order).T.to_csv(folder / "well05raw_expression_pd.csv", index_label="GENE")
    meta = pd.DataFrame(
        {
            "NAME": cells.index,
            "X": cells["x"] / 0.194,
            "Y": cells["y"] / 0.194,
            "Z": 3.0,
            "Main_molecular_cell_type": "N",
        }
    )
    types = pd.DataFrame([["TYPE", "numeric", "numeric", "numeric", "group"]], columns=meta.columns)
    pd.concat([types, permuted(meta, order)]).to_csv(folder / "well05_spatial.csv", index=False)
    return cells


def osmfish(folder: Path, *, order: int | None = None) -> pd.DataFrame:
    folder.mkdir(parents=True, exist_ok=True)
    cells = truth()
    cells.index = pd.Index([str(700 + i) for i in range(len(cells))])
    shown = permuted(cells, order)
    with h5py.File(folder / "cortex.loom", "w") as file:
        file["matrix"] = shown[GENES].to_numpy(dtype=np.float64).T
        file["row_attrs/Gene"] = np.asarray(GENES, dtype="S")
        file["col_attrs/CellID"] = shown.index.astype(int).to_numpy()
        file["col_attrs/X"], file["col_attrs/Y"] = shown["x"].to_numpy(), shown["y"].to_numpy()
        file["col_attrs/ClusterName"] = np.asarray(["Astro"] * len(shown), dtype="S")
        file["col_attrs/_tSNE"] = np.zeros((len(shown), 2))
    return cells


def gunzip_in_place(path: Path) -> Path:
    plain = path.with_suffix("")
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    return plain


def manifest(folder: Path, bbox: list[float]) -> None:
    """In place of the transform: the manifest alone says where the mosaics lie."""
    (folder / "images/micron_to_mosaic_pixel_transform.csv").unlink()
    facts = {"microns_per_pixel": 0.108, "bbox_microns": bbox}
    (folder / "images/manifest.json").write_text(json.dumps(facts))


def _folder(write: Callable[[Path], pd.DataFrame]) -> Callable[[Path], Path]:
    def written(path: Path) -> Path:
        write(path / "d")
        return path / "d"

    return written


#: platform -> writes a small section under a folder and returns the path to read
WRITERS: dict[str, Callable[[Path], Path]] = {
    "cosmx": _folder(cosmx),
    "merscope": _folder(merscope),
    "merfish": lambda path: (merfish(path / "d"), path / "d/moffitt_merfish_cells.csv")[1],
    "seqfish": _folder(seqfish),
    "starmap": _folder(starmap),
    "osmfish": lambda path: (osmfish(path / "d"), path / "d/cortex.loom")[1],
}
