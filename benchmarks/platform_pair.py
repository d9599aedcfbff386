"""Do two platforms draw the same domains? The same breast cancer block in Visium and in Xenium, in one frame.

Each platform is divided by itself. A spot's label by Xenium is the domain that most cells under it have. What agreement
is worth is said by two other figures: that with one section mirrored (two smooth maps of no common cause), and that of
Visium with itself by another seed.

    python benchmarks/platform_pair.py --figure docs/img/platform_pair.png
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _scores
import lr_platforms
import numpy as np
import pandas as pd
from sklearn.metrics import normalized_mutual_info_score

#: numbers of domains: chosen by each section for itself, and given
NUMBERS: tuple[int | None, ...] = (None, 8)
#: spots with fewer cells under them say nothing
MIN_CELLS = 3
SEED = 0
#: the column with Xenium's domains of Visium's spots; the legend of the figure has its name
UNDER = "domains of both"
#: as the docs show it
FIGURE_IN, FIGURE_DPI = (11.0, 3.4), 110.0


@dataclass(frozen=True)
class Pair:
    """``spots`` Visium and ``cells`` Xenium, fused; ``under`` the spot of every cell, -1 where it lies under none."""

    spots: Any
    cells: Any
    under: np.ndarray


def measure() -> dict[str, list[dict[str, Any]]]:
    """Agreement over spots, by number of domains, with cells, with their counts pooled, and with another seed."""
    import smeld as sm

    warnings.simplefilter("ignore")
    pair = read()
    pooled = lr_platforms.pool(pair.spots, pair.cells, _nearest(pair.spots, pair.cells))
    pooled = pooled[np.flatnonzero(pooled.X.sum(axis=1))].copy()
    sm.fuse(pooled, seed=SEED)
    again = pair.spots.copy()
    sm.fuse(again, seed=SEED + 1)
    rows = []
    for number in NUMBERS:
        divide(pair, number)
        sm.tl.domains(pooled, number, seed=SEED)
        sm.tl.domains(again, number, seed=SEED + 1)
        first = pair.spots.obs["domain"].astype(str)
        others = {
            "Xenium: most cells under the spot": majority(pair),
            "Xenium: counts pooled under the spot": pooled.obs["domain"].astype(str),
            "Visium, another seed": again.obs["domain"].astype(str),
        }
        where = pd.DataFrame(pair.spots.obsm["spatial_um"], index=pair.spots.obs_names)
        said = "by the data" if number is None else str(number)
        rows += [_row(said, name, first, other, where, pair.cells) for name, other in others.items()]
    return {"platform_pair": rows}


def read() -> Pair:
    """Both platforms in micrometres, each fused for itself."""
    import smeld as sm

    spots, cells = lr_platforms.read()
    for adata in (spots, cells):
        sm.fuse(adata, seed=SEED)
    return Pair(spots, cells, _nearest(spots, cells)["spot"].fillna(-1).astype(int).to_numpy())


def _nearest(spots: Any, cells: Any) -> pd.DataFrame:
    """By cell the number of the spot it lies under, NaN where it lies under none."""
    found = lr_platforms.nearest_spot(spots, cells)
    return found.where(found["um"] <= lr_platforms.SPOT_UM / 2)


def divide(pair: Pair, n_domains: int | None) -> None:
    """Domains of both, each for itself."""
    import smeld as sm

    for adata in (pair.spots, pair.cells):
        sm.tl.domains(adata, n_domains, seed=SEED)


def majority(pair: Pair) -> pd.Series:
    """By spot the domain that most cells under it have (ties: the first in order of the names)."""
    under = pair.under >= 0
    table = pd.crosstab(pair.under[under], pair.cells.obs["domain"].astype(str).to_numpy()[under])
    table = table[table.sum(axis=1) >= MIN_CELLS]
    return pd.Series(table.idxmax(axis=1).to_numpy(), index=pair.spots.obs_names[table.index])


def _row(
    number: str, compared: str, first: pd.Series, other: pd.Series, where: pd.DataFrame, cells: Any
) -> dict[str, Any]:
    names = [name for name in first.index if name in set(other.index)]
    a, b = first[names].to_numpy(), other[names].to_numpy()
    mirrored = [_scores.ari(a[turned], b) for turned in lr_platforms._mirrors(where.loc[names].to_numpy())]
    return {
        "number of domains": number,
        "Visium": first.nunique(),
        "compared with": compared,
        "its domains": int(cells.obs["domain"].nunique()) if "most cells" in compared else other.nunique(),
        "spots": len(names),
        "ARI": _scores.ari(a, b),
        "NMI": float(normalized_mutual_info_score(a, b)),
        "spots whose domains correspond": float(np.mean(a == corresponding(a, b))),
        "ARI, mirrored": float(np.max(mirrored)),
    }


def corresponding(first: Iterable[str], other: Iterable[str]) -> np.ndarray:
    """``other`` in the words of ``first``: one domain to at most one, so that most spots agree."""
    first, other = np.asarray(list(first), dtype=object), np.asarray(list(other), dtype=object)
    to = _scores.match(first, other)
    return np.asarray([to.get(name, f"{name}, other") for name in other], dtype=object)


def figure(path: Path, n_domains: int | None = 8) -> Path:
    """Domains of both platforms, and of the cells under the spots, in one frame and with the same colours."""
    from matplotlib.figure import Figure

    import smeld as sm

    warnings.simplefilter("ignore")
    pair = read()
    divide(pair, n_domains)
    under = majority(pair)
    to = _scores.match(pair.spots.obs.loc[under.index, "domain"].astype(str), under)
    _named_alike(pair, under, to)
    drawn = Figure(figsize=FIGURE_IN)
    axes = drawn.subplots(1, 3, sharex=True, sharey=True)
    shown = (
        (pair.spots, "domain", f"Visium: {pair.spots.n_obs:,} spots"),
        (pair.cells, "domain", f"Xenium: {pair.cells.n_obs:,} cells"),
        (pair.spots, UNDER, "Visium's spots, by most cells under them"),
    )
    for ax, (adata, key, title) in zip(axes, shown):
        sm.pl.domains(adata, key, ax=ax, legend=ax is axes[2], title=title)
    both = np.vstack([pair.spots.obsm["spatial_um"], pair.cells.obsm["spatial_um"]])
    low, high = both.min(axis=0) - 100, both.max(axis=0) + 100
    axes[0].set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
    path.parent.mkdir(parents=True, exist_ok=True)
    return sm.pl.save(drawn, path, dpi=FIGURE_DPI)


def _named_alike(pair: Pair, under: pd.Series, to: dict[str, str]) -> None:
    """Xenium's domains get the names and colours of those of Visium they correspond to; the others are new."""
    import smeld as sm

    names = list(pair.spots.obs["domain"].cat.categories.astype(str))
    old = pair.cells.obs["domain"].astype(str)
    new = {name: to.get(name, f"Xenium {name}") for name in sorted(set(old))}
    names += [name for name in new.values() if name not in names]
    pair.cells.obs["domain"] = pd.Categorical(old.map(new), categories=names)
    pair.spots.obs["domain"] = pd.Categorical(pair.spots.obs["domain"].astype(str), categories=names)
    pair.spots.obs[UNDER] = pd.Categorical(
        [new.get(under.get(name, ""), np.nan) for name in pair.spots.obs_names], categories=names
    )
    for adata, key in ((pair.spots, "domain"), (pair.cells, "domain"), (pair.spots, UNDER)):
        adata.uns[f"{key}_colors"] = sm.pl.palette(len(names))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, required=True, help="the PNG to write")
    figure(parser.parse_args().figure)
