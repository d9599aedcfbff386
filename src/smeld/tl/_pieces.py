"""Connected pieces of domains (or any labels), with their sizes; and what label statistics fetch from a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import graph as spatial
from smeld.kernels import pieces as kernel

if TYPE_CHECKING:
    import pandas as pd

Int = NDArray[np.intp]


@dataclass(frozen=True)
class Pieces:
    """``labels`` by spot ("3.1" is the largest piece of domain 3), the ``table`` of pieces, ``n_pieces`` in it, and
    ``n_left_out``: labelled spots in pieces smaller than ``min_spots``."""

    labels: pd.Series
    table: pd.DataFrame
    n_pieces: int
    n_left_out: int


def pieces(
    data: Any,
    groups: str = _keys.DOMAIN,
    *,
    min_spots: int = 1,
    batch_key: str | None = None,
    key_added: str | None = None,
) -> Pieces:
    """Divide each domain into its connected pieces, and measure them in micrometres. Works in place.

    Two spots lie in one piece if spatial neighbours of their own label join them. A domain of several tumour nests
    becomes one piece a nest.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, with ``obsm["spatial_um"]``.
    groups
        Column of ``obs`` with labels, read as strings. Missing and empty labels lie in no piece.
    min_spots
        Smaller pieces are left out of the table, and their spots have no piece (NaN). The numbers of the others do
        not change, for pieces are numbered by size. 1, the default, keeps all.
    batch_key
        Column of ``obs`` that names each spot's section; pieces never join two sections. None: one section.
    key_added
        Column that is written; ``"<groups>_piece"`` by default. The table's key is that name with an "s".

    The neighbours are those of ``sm.fuse`` where they are stored (``obsp["spatial_distances"]``), else its default:
    one ring of a lattice, or the 10 nearest neighbours. With ``batch_key`` they are sought within each section.

    Writes
    ------
    ``obs["domain_piece"]`` (categorical, "3.1": domain 3, its largest piece; of equal ones that with the first
    identifier), ``uns["domain_pieces"]``: the table, a row a piece in that order, with

    ============================ ====================================================================
    ``piece``, ``label``         name of the piece, and its label
    ``section``                  where ``batch_key`` is given
    ``n_spots``                  number of spots
    ``area_um2``                 ``n_spots`` times the area of a spot: a lattice's cell; elsewhere the median over the
                                 piece of pi r^2 / (k - 1/3), r the distance to the 6th neighbour (k = 6), whatever
                                 its label. Cells at the tissue's edge see half of a disk, so that a piece only a few
                                 cells wide along the edge comes out up to twice as large
    ``equivalent_diameter_um``   diameter of the circle of that area
    ``x_um``, ``y_um``           mean position
    ``extent_um``                largest distance between two of its spots' centres
    ============================ ====================================================================

    Returns
    -------
    The same as a frozen :class:`Pieces`.

    Raises
    ------
    InputError
        If the labels, positions or sections are missing, or ``min_spots`` is below 1.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=60, tissue="nested", image=False)
    >>> found = sm.tl.pieces(adata, "truth_domain", min_spots=5)
    >>> found.table["piece"].iloc[0]
    'D1.1'

    References
    ----------
    Connected components of the graph restricted to edges that join like labels. Density by the k-th neighbour:
    Thompson, Ecology 37 (1956) 391.
    """
    adata = _adapt.table(data)
    if isinstance(min_spots, bool) or not isinstance(min_spots, int | np.integer) or min_spots < 1:
        raise _check.problem("min_spots must be a whole number of at least 1", found=repr(min_spots))
    found = labelled(adata, groups, batch_key)
    rank = kernel.connected_pieces(found.label, found.graph)
    area = np.empty(len(rank))
    for s in range(len(found.sections)):
        here = found.section == s
        area[here] = kernel.spot_areas(found.xy_um[here])
    measured = kernel.measure(found.label, rank, found.xy_um, area)
    table = _table(measured, found, min_spots, batch_key is not None)
    labels = _column(rank, found, table["piece"].tolist())
    key = key_added or f"{groups}_piece"
    adata.obs[key] = labels
    adata.uns[f"{key}s"] = table
    if table.empty:
        _check.warn(f"no piece of obs[{groups!r}] has {min_spots} spots or more.", adata)
    params = {"min_spots": min_spots, "graph": found.kind, "n_pieces": len(table)}
    inputs = {"groups": groups, "batch_key": batch_key}
    _keys.record(adata, key, function="sm.tl.pieces", params=params, inputs=inputs)
    left_out = int((found.label >= 0).sum() - table["n_spots"].sum())
    return Pieces(adata.obs[key], table, len(table), left_out)


def _table(made: kernel.Pieces, found: Labelled, min_spots: int, several: bool) -> pd.DataFrame:
    import pandas as pd

    keep = made.n_spots >= min_spots
    label = [found.names[i] for i in made.label[keep]]
    columns: dict[str, Any] = {"piece": [f"{n}.{r + 1}" for n, r in zip(label, made.rank[keep])], "label": label}
    if several:
        columns["section"] = [found.sections[s] for s in found.section[made.first[keep]]]
    columns |= {
        "n_spots": made.n_spots[keep],
        "area_um2": made.area_um2[keep],
        "equivalent_diameter_um": made.diameter_um[keep],
        "x_um": made.centroid_um[keep, 0],
        "y_um": made.centroid_um[keep, 1],
        "extent_um": made.extent_um[keep],
    }
    return pd.DataFrame(columns)


def _column(rank: Int, found: Labelled, names: list[str]) -> Any:
    """The categorical column, in the order of the table's rows; categories are the pieces of the table."""
    import pandas as pd

    of_spot = [f"{found.names[k]}.{r + 1}" if k >= 0 else None for k, r in zip(found.label, rank)]
    column = np.empty(len(rank), dtype=object)
    column[found.order] = of_spot
    return pd.Categorical(column, categories=names)


@dataclass(frozen=True)
class Labelled:
    """Labels on a spatial graph, spots in the canonical ``order``: label ``names`` and their numbers (-1: missing),
    ``sections`` and their numbers, positions, neighbours within sections and how they were found."""

    order: Int
    label: Int
    names: list[str]
    section: Int
    sections: list[str]
    xy_um: NDArray[np.float64]
    graph: sparse.csr_matrix
    kind: str


def labelled(adata: Any, groups: str, batch_key: str | None) -> Labelled:
    """Fetch labels, sections, positions and neighbours; with the errors that help where one is missing."""
    _check.require(adata.obs, groups, "obs", "run sm.tl.domains(adata) first, or name a column of labels")
    order = _adapt.canonical_order(adata)
    label, names = _adapt.numbered(adata.obs[groups])
    if not names:
        raise _check.problem(f"obs[{groups!r}] holds no labels", found=f"{len(label)} missing values")
    section, sections = _adapt.sections(adata, batch_key)
    xy = _adapt.xy_um(adata)[order]
    graph, kind = _neighbours(adata, order, xy, section[order])
    return Labelled(order, label[order], names, section[order], sections, xy, graph, kind)


def _neighbours(adata: Any, order: Int, xy_um: NDArray[np.float64], section: Int) -> tuple[sparse.csr_matrix, str]:
    """The stored graph if smeld made it for these positions and sections, else the default one of each section."""
    stored = adata.obsp.get(_keys.DISTANCES)
    if stored is not None and _keys.DISTANCES in adata.uns.get(_keys.RECORD, {}):
        distances = sparse.csr_matrix(sparse.csr_matrix(stored)[order][:, order])
        if _adapt.within_sections(distances, xy_um, section):
            return spatial.from_distances(distances, xy_um).connectivities, "stored"
    made = spatial.sectioned_graph(xy_um, section)
    return made.connectivities, made.kind
