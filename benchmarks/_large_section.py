"""A section of any size, written block by block: nothing of its size is held, so that ten million cells can be made.

Domains are those of a simulated section of 50,000 cells, enlarged. A cell's type is that of one of the simulated cells
nearest to it, drawn at random, so that types stay mixed as finely as there: enlarged patches of one type would be what
a method finds. Its counts are drawn anew.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

BASE, BLOCK = 50_000, 50_000
#: simulated cells of which one lends its type
MIXED = 20
#: values of a block, which is drawn dense
MOST_VALUES = 25_000_000


def write(n_obs: int, n_genes: int, folder: Path, *, mean_counts: float | None = None, seed: int = 0) -> None:
    """An AnnData as zarr, ``obs["truth_domain"]`` beside positions and counts; cells at the base's density."""
    import anndata as ad
    import pandas as pd
    import zarr

    import smeld as sm

    warnings.simplefilter("ignore")
    given = {} if mean_counts is None else {"mean_counts": mean_counts}
    base = sm.datasets.simulate(min(BASE, n_obs), n_genes, layout="cells", image=False, seed=seed, **given)
    rates, kind = _profiles(base)
    side = np.ptp(base.obsm["spatial_um"], axis=0).max() * np.sqrt(n_obs / base.n_obs)
    shrink = np.sqrt(n_obs / base.n_obs)
    tree = cKDTree(base.obsm["spatial_um"] - base.obsm["spatial_um"].min(axis=0))
    rng = np.random.default_rng(seed)
    group = zarr.open_group(str(folder), mode="w")
    names = [f"c{i:09d}" for i in range(n_obs)]
    symbols = gene_names(n_genes)
    xy, of = np.empty((n_obs, 2)), np.empty(n_obs, dtype=np.int32)
    stored = _Csr(group, n_genes)
    block = min(BLOCK, MOST_VALUES // n_genes)
    for start in range(0, n_obs, block):
        stop = min(start + block, n_obs)
        xy[start:stop] = rng.uniform(0, side, (stop - start, 2))
        around = tree.query(xy[start:stop] / shrink, k=MIXED)[1]
        of[start:stop] = around[:, 0]
        own = around[np.arange(stop - start), rng.integers(0, MIXED, stop - start)]
        library = rng.lognormal(0.0, 0.4, stop - start)[:, None]
        stored.append(rng.poisson(rates[kind[own]] * library).astype(np.float32))
    stored.finish(n_obs)
    domain = base.obs["truth_domain"].astype("category")
    obs = pd.DataFrame(
        {"truth_domain": pd.Categorical.from_codes(domain.cat.codes.to_numpy()[of], domain.cat.categories)}, index=names
    )
    obsm = {"spatial": xy, "spatial_um": xy}
    elements: dict[str, Any] = {"obs": obs, "var": pd.DataFrame(index=symbols), "obsm": obsm, "uns": {}}
    for name, element in elements.items():
        ad.io.write_elem(group, name, element)
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


def write_bins(side: int, n_genes: int, folder: Path, *, mean_counts: float = 150.0, seed: int = 0) -> None:
    """Space Ranger's ``binned_outputs`` of ``side`` x ``side`` bins of 8 um, without an image at full resolution."""
    import json

    import h5py
    import pandas as pd
    from PIL import Image

    import smeld as sm

    warnings.simplefilter("ignore")
    base = sm.datasets.simulate(20_000, n_genes, layout="cells", image=False, seed=seed)
    rates, kind = _profiles(base)
    xy = base.obsm["spatial_um"] - base.obsm["spatial_um"].min(axis=0)
    row, col = (a.ravel() for a in np.mgrid[:side, :side])
    at = np.column_stack([col, row]) * (xy.max(axis=0) / side)
    of = kind[cKDTree(xy).query(at)[1]]
    rng = np.random.default_rng(seed)
    total = 1 + rng.poisson(mean_counts * rng.lognormal(0.0, 0.4, side**2))
    gene = np.empty(total.sum(), dtype=np.int32)
    bin_of = np.repeat(np.arange(side**2), total)
    for k in range(len(rates)):
        mine = of[bin_of] == k
        share = np.cumsum(rates[k]) / rates[k].sum()
        gene[mine] = np.minimum(np.searchsorted(share, rng.random(int(mine.sum()))), n_genes - 1)
    counts = sparse.coo_matrix((np.ones(len(gene), dtype=np.int32), (bin_of, gene)), shape=(side**2, n_genes)).tocsr()
    place = folder / "binned_outputs" / "square_008um"
    spatial = place / "spatial"
    spatial.mkdir(parents=True)
    barcodes = [f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, col)]
    um_per_px = 0.5
    frame = pd.DataFrame({"barcode": barcodes, "in_tissue": 1, "array_row": row, "array_col": col})
    frame["pxl_row_in_fullres"], frame["pxl_col_in_fullres"] = (v * 8.0 / um_per_px for v in (row, col))
    frame.to_parquet(spatial / "tissue_positions.parquet", index=False)
    factors = {
        "spot_diameter_fullres": 8 / um_per_px, "bin_size_um": 8.0, "microns_per_pixel": um_per_px,
        "regist_target_img_scalef": 0.1, "tissue_lowres_scalef": 0.01, "tissue_hires_scalef": 0.1,
        "fiducial_diameter_fullres": 100.0,
    }  # fmt: skip
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    shade = (np.asarray(of.reshape(side, side), dtype=np.float64) / max(int(of.max()), 1) * 120 + 100).astype(np.uint8)
    picture = Image.fromarray(np.stack([shade, shade // 2, shade], axis=-1))
    for name, scale in (("hires", 0.1), ("lowres", 0.01)):
        size = int(side * 8 / um_per_px * scale)
        picture.resize((size, size)).save(spatial / f"tissue_{name}_image.png")
    with h5py.File(place / "filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.asarray(barcodes, dtype="S")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(counts, part)
        group["shape"] = np.asarray(counts.shape[::-1], dtype=np.int32)
        features = group.create_group("features")
        names = [str(n) for n in base.var_names]
        described = {
            "id": names,
            "name": names,
            "feature_type": ["Gene Expression"] * n_genes,
            "genome": ["g"] * n_genes,
        }
        for name, values in described.items():
            features[name] = np.asarray(values, dtype="S")


def _profiles(base: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean counts of every kind of cell (domain and type) and every cell's kind."""
    names = base.obs["truth_domain"].astype(str) + ":" + base.obs["truth_cell_type"].astype(str)
    kinds = names.astype("category").cat.codes.to_numpy()
    counts = base.X.tocsr()
    return np.stack([np.asarray(counts[kinds == k].mean(axis=0)).ravel() for k in range(kinds.max() + 1)]), kinds


def gene_names(n_genes: int) -> list[str]:
    """Symbols of ligands and receptors first, so that pairs can be tested."""
    import smeld as sm

    pairs = sm.lr.pairs()
    known = [g for a, b in zip(pairs["ligand"], pairs["receptor"]) for name in (a, b) for g in name.split("+")]
    names = list(dict.fromkeys(known))[: n_genes // 2]
    return [*names, *(f"GENE{i:05d}" for i in range(n_genes - len(names)))]


class _Csr:
    """A CSR matrix in a store, appended to."""

    def __init__(self, group: Any, n_genes: int) -> None:
        self.made = group.create_group("X")
        self.n_genes, self.ends = n_genes, [np.zeros(1, dtype=np.int64)]
        types = {"data": np.float32, "indices": np.int32}
        self.arrays = {
            name: self.made.create_array(name, shape=(0,), dtype=dtype, chunks=(2**18,))
            for name, dtype in types.items()
        }

    def append(self, dense: np.ndarray) -> None:
        rows, columns = np.nonzero(dense)
        last = int(self.ends[-1][-1])
        values = {"data": dense[rows, columns], "indices": columns.astype(np.int32)}
        for name, array in self.arrays.items():
            array.resize((last + len(columns),))
            array[last:] = values[name]
        self.ends.append(last + np.cumsum(np.bincount(rows, minlength=len(dense))))

    def finish(self, n_obs: int) -> None:
        indptr = np.concatenate(self.ends)
        self.arrays["indptr"] = self.made.create_array("indptr", shape=indptr.shape, dtype=np.int64, chunks=(2**18,))
        self.arrays["indptr"][:] = indptr
        for array in self.arrays.values():
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        shape = [n_obs, self.n_genes]
        self.made.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cells", type=int)
    parser.add_argument("genes", type=int)
    parser.add_argument("--mean-counts", type=float)
    parser.add_argument("--bins", action="store_true", help="bins of 8 um, as many as CELLS, in a square")
    options = parser.parse_args(argv)
    if options.bins:
        write_bins(round(options.cells**0.5), options.genes, options.folder)
        return
    write(options.cells, options.genes, options.folder, mean_counts=options.mean_counts)


if __name__ == "__main__":
    main()
