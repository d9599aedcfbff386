"""Figures of docs/celltypes.md, on simulated sections: types against the truth, proportions beside it, pies, niches;
and of the breast block, where ``../shared/data`` has it.

python benchmarks/celltype_figures.py docs/img
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from _datasets import FOLDER

SEED = 0
#: width of the pictures, pixels: small, for they lie in the repository
WIDTH = 900


def cells() -> Any:
    """2,500 cells of eight types, one of them not in the reference."""
    import smeld as sm

    adata = sm.datasets.simulate(
        2500, 400, layout="cells", seed=SEED, image=False, n_cell_types=8, n_subtype_pairs=2, cell_type_effect=2.0
    )
    sm.tl.annotate(adata, sm.datasets.simulate_reference(adata, 100, seed=SEED, withheld=["T7"]))
    return adata


def spots() -> Any:
    """800 spots of six types."""
    import smeld as sm

    adata = sm.datasets.simulate(800, 400, seed=SEED, n_cell_types=6, cell_type_effect=2.0, mean_counts=1000)
    sm.tl.deconvolve(adata, sm.datasets.simulate_reference(adata, 100, seed=SEED))
    adata.obsm["truth"] = adata.obsm["truth_proportions"].rename(columns=lambda name: f"{name}, truth")
    return adata


def niches() -> Any:
    """4,000 cells in three niches."""
    import smeld as sm

    adata = sm.datasets.simulate_niches(4000, 100, seed=SEED)
    sm.tl.niches(adata, "truth_cell_type", seed=SEED)
    return adata


def breast(n_types: int) -> tuple[Any, list[str], list[float]]:
    """The breast block's Visium spots, each half with the other's Xenium cells as the reference; its types whose
    shares vary most, and how far the two maps of each correlate."""
    import deconvolve
    import numpy as np
    import pandas as pd

    import smeld as sm

    parts = []
    for half in (0, 1):
        spots, reference, truth, scored = deconvolve.breast(half)
        found = sm.tl.deconvolve(spots, reference, composition="reference", seed=SEED).proportions
        parts.append((found.reindex(columns=truth.columns, fill_value=0.0)[scored], truth[scored]))
    found, known = (pd.concat(part) for part in zip(*parts, strict=True))
    spots = spots[found.index].copy()
    spots.obsm["cell_type_proportions"] = found
    spots.obsm["truth"] = known.rename(columns=lambda name: f"{name}, Xenium")
    names = list(known.var().sort_values(ascending=False).index[:n_types])
    return spots, names, [float(np.corrcoef(found[name], known[name])[0, 1]) for name in names]


def _save(figure: Any, path: Path) -> None:
    from PIL import Image

    figure.savefig(path, dpi=WIDTH / figure.get_size_inches()[0])
    # few colours: nothing that is seen is lost, and the file has a third of the size
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the pictures are written")
    folder: Path = parser.parse_args().folder
    warnings.simplefilter("ignore")

    from matplotlib.figure import Figure

    import smeld as sm

    with sm.pl.style():
        adata = cells()
        figure = Figure(figsize=(10.5, 4.2), layout="compressed")
        left, right = figure.subplots(1, 2)
        sm.pl.domains(adata, "cell_type", ax=left, title="Cell types")
        sm.pl.confusion(adata, "truth_cell_type", ax=right)
        _save(figure, folder / "celltypes_annotate.png")

        adata = spots()
        figure = Figure(figsize=(10.5, 6.2), layout="compressed")
        names = list(adata.obsm["cell_type_proportions"].columns[:3])
        above, below = figure.subplots(2, 3)
        sm.pl.proportions(adata, names, axes=above)
        sm.pl.proportions(adata, [f"{name}, truth" for name in names], key="truth", axes=below)
        _save(figure, folder / "celltypes_proportions.png")

        figure = Figure(figsize=(7.5, 5.2), layout="compressed")
        sm.pl.proportions(adata, kind="pie", axes=figure.subplots())
        _save(figure, folder / "celltypes_pies.png")

        if (FOLDER / "breast_visium_xenium_pair").exists():
            adata, names, agree = breast(4)
            figure = Figure(figsize=(12, 5.2), layout="compressed")
            maps = figure.subplots(2, len(names))
            sm.pl.proportions(adata, names, axes=maps[0], vmax=1)
            sm.pl.proportions(adata, [f"{name}, Xenium" for name in names], key="truth", axes=maps[1], vmax=1)
            for ax, name, r in zip(maps[0], names, agree, strict=True):
                ax.set_title(f"{name}, Visium (r = {r:.2f})", loc="left")
            _save(figure, folder / "celltypes_breast.png")

        adata = niches()
        figure = Figure(figsize=(10.5, 3.6), layout="compressed")
        left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.3))
        sm.pl.domains(adata, "niche", ax=left, title="Niches")
        sm.pl.niche_heatmap(adata, show="enrichment", ax=right)
        _save(figure, folder / "celltypes_niches.png")


if __name__ == "__main__":
    main()
