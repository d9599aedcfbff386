"""Small sections with known truth, written as Slide-seq, Curio, Stereo-seq, GeoMx, protein imaging and DBiT-seq do."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.io import mmwrite

GENES = [f"Gene{g}" for g in range(6)]
#: two names of an image's coordinates, then of what an imaging platform measures
SHAPES = ("MajorAxisLength", "Eccentricity")


@dataclass(frozen=True)
class Truth:
    """``counts`` [n, 6] and ``um`` [n, 2] of cells by ``names``."""

    names: list[str]
    counts: np.ndarray
    um: np.ndarray

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.counts, index=self.names, columns=GENES)

    def permuted(self, seed: int = 1) -> Truth:
        order = np.random.default_rng(seed).permutation(len(self.names))
        return Truth([self.names[i] for i in order], self.counts[order], self.um[order])


def barcode(i: int) -> str:
    return "".join("ACGT"[(i * 7 + 5 >> (2 * k)) % 4] for k in range(14))


def truth(n_side: int = 9, *, apart: float = 10.0, seed: int = 0) -> Truth:
    """Hexagonally packed, ``apart`` um from middle to middle, as beads that touch."""
    rng = np.random.default_rng(seed)
    row, col = (a.ravel() for a in np.mgrid[:n_side, :n_side])
    um = np.column_stack([col + (row % 2) / 2, row * np.sqrt(3) / 2]) * apart + 40.0
    counts = rng.poisson(1.5, (len(row), len(GENES)))
    counts[:, 0] += 1
    return Truth([barcode(i) for i in range(len(row))], counts, um + rng.normal(0, apart / 1000, um.shape))


def written(path: Path, text: str) -> None:
    """Text, gzipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text)


def csv(path: Path, frame: pd.DataFrame, **options: object) -> None:
    written(path, frame.to_csv(**options))  # type: ignore[call-overload]


def slideseq(folder: Path, sec: Truth, *, layout: str = "puck", um_per_px: float = 0.65) -> Path:
    """``layout``: puck (2019), tools (digital_expression and barcode_xy), matched (lines without names), or mtx."""
    places = pd.DataFrame(sec.um / um_per_px, index=sec.names, columns=["xcoord", "ycoord"])
    shuffled = places.sample(frac=1, random_state=3)
    genes = sec.frame().T
    if layout == "puck":
        csv(folder / "MappedDGEForR.csv", genes, index_label="Row")
        csv(folder / "BeadLocationsForR.csv", shuffled, index_label="barcodes")
    elif layout == "mtx":
        stem = "Puck_1.matched.digital_expression"
        _mtx(folder, f"{stem}_matrix.mtx", sec, f"{stem}_barcodes.tsv", f"{stem}_features.tsv", ids=True)
        csv(folder / "barcode_matching/Puck_1_barcode_xy.txt.gz", shuffled, header=False, sep="\t")
    else:
        csv(folder / "Puck_1.digital_expression.txt.gz", genes, index_label="GENE", sep="\t")
        if layout == "tools":
            csv(folder / "Puck_1_barcode_xy.txt", shuffled, header=False, sep="\t")
        else:
            lines = shuffled.assign(mismatches=0)[["mismatches", "xcoord", "ycoord"]]
            csv(folder / "Puck_1_matched_bead_locations.txt", lines, header=False, index=False, sep="\t")
            written(folder / "Puck_1_matched_bead_barcodes.txt", "\n".join(shuffled.index) + "\n")
    return folder


def curio(folder: Path, sec: Truth, *, um_per_unit: float = 0.73) -> Path:
    _mtx(folder, "s_MoleculesPerMatchedBead.mtx", sec, "s_barcodes.tsv", "s_genes.tsv")
    places = pd.DataFrame(sec.um / um_per_unit, index=sec.names, columns=["x", "y"]).sample(frac=1, random_state=3)
    csv(folder / "s_MatchedBeadLocation.csv", places)
    csv(folder / "s_Metrics.csv", pd.DataFrame({"Metric": ["beads"], "Value": [len(sec.names)]}), index=False)
    lines = "".join(f"{name}\t{i % 3}\n" for i, name in enumerate(sec.names))
    written(folder / "s_cluster_assignment.txt", lines)
    return folder


def _mtx(folder: Path, matrix: str, sec: Truth, barcodes: str, genes: str, *, ids: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mmwrite(folder / matrix, sparse.coo_matrix(sec.counts.T))
    written(folder / barcodes, "\n".join(sec.names) + "\n")
    written(folder / genes, "".join(f"ENS{i}\t{g}\n" if ids else f"{g}\n" for i, g in enumerate(GENES)))


def dnb(sec: Truth, seed: int = 0) -> pd.DataFrame:
    """Molecules on DNB, 500 nm apart, around their cells: cell, gene, x, y, count; each DNB at most once a gene."""
    rng = np.random.default_rng(seed)
    cell, gene = np.nonzero(sec.counts)
    rows = []
    for c, g in zip(cell, gene):
        x, y = np.round(sec.um[c] * 2).astype(int) + rng.integers(-3, 4, 2)
        rows.append((c, g, x, y, sec.counts[c, g]))
    frame = pd.DataFrame(rows, columns=["cell", "gene", "x", "y", "count"])
    return frame.sort_values(["gene", "x", "y"], kind="stable").reset_index(drop=True)


def gef(path: Path, sec: Truth, *, version: int = 2, bins: tuple[int, ...] = (1, 50), indices: bool = False) -> Path:
    """A bin ``.gef``: versions before 4 have one column of genes' names; ``indices``: bins are numbered."""
    path.parent.mkdir(parents=True, exist_ok=True)
    molecules = dnb(sec)
    with h5py.File(path, "w") as file:
        file.attrs["version"] = np.array([version], dtype=np.uint32)
        for size in bins:
            binned = molecules.assign(x=molecules.x // size, y=molecules.y // size)
            binned = binned.groupby(["gene", "x", "y"], as_index=False)["count"].sum()
            group = file.create_group(f"geneExp/bin{size}")
            scale = 1 if indices else size
            values = np.zeros(len(binned), dtype=[("x", "<i4"), ("y", "<i4"), ("count", "u1")])
            values["x"], values["y"], values["count"] = binned.x * scale, binned.y * scale, binned["count"]
            expression = group.create_dataset("expression", data=values)
            expression.attrs["resolution"] = np.array([500], dtype=np.uint32)
            group.create_dataset("exon", data=np.zeros(len(binned), dtype="u1"))
            n = np.bincount(binned.gene, minlength=len(GENES))
            group.create_dataset("gene", data=_gene_table(n, version))
    return path


def _gene_table(n: np.ndarray, version: int) -> np.ndarray:
    named = [("geneID", "S64"), ("geneName", "S64")] if version >= 4 else [("gene", "S64")]
    table = np.zeros(len(GENES), dtype=[*named, ("offset", "<u4"), ("count", "<u4")])
    table["geneName" if version >= 4 else "gene"] = GENES
    if version >= 4:
        table["geneID"] = [f"ENS{i}" for i in range(len(GENES))]
    table["offset"], table["count"] = np.cumsum(n) - n, n
    return table


def cellbin(path: Path, sec: Truth, *, version: int = 2) -> Path:
    """Cells with outlines, eight corners 3 um around, ended by 32767."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n = len(sec.names)
    row, gene = np.nonzero(sec.counts)
    exp = np.zeros(len(row), dtype=[("geneID", "<u4"), ("count", "<u2")])
    exp["geneID"], exp["count"] = gene, sec.counts[row, gene]
    fields = [(k, "<u4") for k in ("id", "offset")] + [("x", "<i4"), ("y", "<i4")]
    cell = np.zeros(n, dtype=fields + [(k, "<u2") for k in ("geneCount", "expCount", "dnbCount", "area")])
    size = (sec.counts > 0).sum(axis=1)
    cell["id"], cell["geneCount"], cell["offset"] = np.arange(n) + 100, size, np.cumsum(size) - size
    cell["x"], cell["y"] = np.round(sec.um * 2).astype(int).T
    cell["expCount"], cell["dnbCount"], cell["area"] = sec.counts.sum(axis=1), size, 80
    border = np.full((n, 32, 2), 32767, dtype="<i2")
    angle = np.arange(8) * np.pi / 4
    border[:, :8] = np.round(np.column_stack([np.cos(angle), np.sin(angle)]) * 6)
    with h5py.File(path, "w") as file:
        file.attrs["version"] = np.array([version], dtype=np.uint32)
        file.attrs["resolution"] = np.array([500], dtype=np.uint32)
        group = file.create_group("cellBin")
        genes = np.zeros(len(GENES), dtype=[("geneName", "S64")] + ([("geneID", "S64")] if version >= 4 else []))
        genes["geneName"] = GENES
        for name, data in (("cell", cell), ("cellExp", exp), ("cellBorder", border), ("gene", genes)):
            group.create_dataset(name, data=data)
    return path


def gem(path: Path, sec: Truth, *, version: str = "0.1", cells: bool = False, offset: tuple[int, int] = (0, 0)) -> Path:
    """Version 0.2 has the genes' identifiers and names; ``cells``: the cell of every molecule; ``offset`` is taken off
    x and y, and said in the header."""
    molecules = dnb(sec).sample(frac=1, random_state=2)
    frame = pd.DataFrame({"geneID": [f"ENS{g}" if version == "0.2" else GENES[g] for g in molecules.gene]})
    if version == "0.2":
        frame["geneName"] = [GENES[g] for g in molecules.gene]
    frame["x"], frame["y"], frame["MIDCount"] = (molecules[c].to_numpy() for c in ("x", "y", "count"))
    frame[["x", "y"]] -= offset
    if cells:
        frame["CellID"] = molecules.cell.to_numpy()
    head = f"#FileFormat=GEMv{version}\n#BinType=Bin\n#BinSize=1\n#OffsetX={offset[0]}\n#OffsetY={offset[1]}\n"
    written(path, head + frame.to_csv(index=False, sep="\t"))
    return path


def geomx(folder: Path, sec: Truth, *, ending: str = "csv", scans: int = 1) -> Path:
    n = len(sec.names)
    segments = pd.DataFrame({
        "SlideName": [f"slide {i % scans}" for i in range(n)], "ScanLabel": [f"scan {i % scans}" for i in range(n)],
        "ROILabel": [f"{i + 1:03d}" for i in range(n)], "SegmentLabel": "Full ROI", "SegmentDisplayName": sec.names,
        "AOISurfaceArea": 31_000.5, "AOINucleiCount": 200, "ROICoordinateX": sec.um[:, 0] * 2.5,
        "ROICoordinateY": sec.um[:, 1] * 2.5,
    }).sample(frac=1, random_state=3)  # fmt: skip
    targets = sec.frame().T
    targets.loc["NegProbe-WTX"] = np.arange(n) % 5
    sep = "," if ending.startswith("csv") else "\t"
    csv(folder / f"Export_TargetCountMatrix.{ending}", targets, index_label="TargetName", sep=sep)
    csv(folder / f"Export_SegmentProperties.{ending}", segments, index=False, sep=sep)
    return folder


def intensities(sec: Truth) -> pd.DataFrame:
    return pd.DataFrame(sec.counts + 0.25, columns=GENES)


def mcmicro(folder: Path, sec: Truth, *, samples: tuple[str, ...] = ("exemplar",)) -> Path:
    for sample in samples:
        csv(folder / f"quantification/{sample}--unmicst_cell.csv", mcmicro_table(sec), index=False)
    return folder


def mcmicro_table(sec: Truth) -> pd.DataFrame:
    table = pd.DataFrame({"CellID": np.arange(len(sec.names)) + 1}).join(intensities(sec))
    table["X_centroid"], table["Y_centroid"] = sec.um.T / 0.65
    table["Area"], table["MajorAxisLength"], table["Eccentricity"] = 120, 13.5, 0.4
    return table


def codex_processor(path: Path, sec: Truth) -> Path:
    """As the CODEX processor writes: ``cyc001_ch002:Marker``; background that was taken off may be below 0."""
    table = pd.DataFrame({"cell_id:cell_id": np.arange(len(sec.names)) + 1, "tile_num:tile_num": 1})
    table["x:x"], table["y:y"] = sec.um.T
    table["z:z"], table["size:size"] = 0, 300
    markers = intensities(sec)
    markers.iloc[0, 0] = -2.0
    csv(path, table.join(markers.add_prefix("cyc001_ch002:")), index=False)
    return path


def qupath(path: Path, sec: Truth, *, images: tuple[str, ...] = ("a.tif",)) -> Path:
    tables = []
    for image in images:
        table = pd.DataFrame({"Image": image, "Object ID": [f"{image}-{n}" for n in sec.names]})
        table["Centroid X µm"], table["Centroid Y µm"] = sec.um.T
        tables.append(table.join(intensities(sec)))
    csv(path, pd.concat(tables), index=False)
    return path


def steinbock(
    folder: Path, sec: Truth, *, images: tuple[str, ...] = ("roi_1",), axis: str = "axis_major_length"
) -> Path:
    number = np.arange(len(sec.names)) + 1
    shapes = pd.DataFrame({"Object": number, "area": 60.0, "centroid-0": sec.um[:, 1], "centroid-1": sec.um[:, 0]})
    shapes[axis] = 9.0
    for image in images:
        csv(
            folder / f"intensities/{image}.csv", intensities(sec).assign(Object=number)[["Object", *GENES]], index=False
        )
        csv(folder / f"regionprops/{image}.csv", shapes.sample(frac=1, random_state=3), index=False)
    return folder


def dbit(folder: Path, *, transposed: bool = False, n: int = 10, seed: int = 0) -> pd.DataFrame:
    """Returns the genes' counts by spot; proteins P0, P1 are the first two genes plus one."""
    rng = np.random.default_rng(seed)
    names = [f"{x}x{y}" for x in range(1, n + 1) for y in range(1, n + 1)]
    frame = pd.DataFrame(rng.poisson(2.0, (n * n, len(GENES))) + 1, index=names, columns=GENES)
    table = frame.assign(unmapped=9).sample(frac=1, random_state=3)
    csv(folder / "GSM1_tonsil_25um_RNA.tsv.gz", table.T if transposed else table, sep="\t", index_label="X")
    protein = (frame.iloc[:, :2] + 1).set_axis(["P0", "P1"], axis=1)
    csv(folder / "GSM1_tonsil_25um_protein.tsv.gz", protein, sep="\t", index_label="X")
    return frame


#: by platform: writes a small section under the folder, and returns what is to be read
WRITERS: dict[str, Callable[[Path], Path]] = {
    "slideseq": lambda p: slideseq(p / "d", truth()),
    "stereoseq": lambda p: (cellbin(p / "d/outs/feature_expression/A1.cellbin.gef", truth()), p / "d")[1],
    "stereoseq_file": lambda p: gef(p / "A1.tissue.gef", truth()),
    "geomx": lambda p: geomx(p / "d", truth()),
    "codex": lambda p: steinbock(p / "d", truth()),
    "codex_file": lambda p: codex_processor(p / "reg001_compensated.csv", truth()),
    "dbit": lambda p: (dbit(p / "d"), p / "d")[1],
}
