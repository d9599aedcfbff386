"""What lies around each cell: the shares of cell types, or domains, in its neighbourhood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels.graph import sectioned_graph

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Composition:
    """``table`` [n_obs, n_labels], shares that sum to 1 (NaN without labelled neighbours); ``n_neighbors`` int
    [n_obs], the labelled ones; ``key`` in ``obsm``."""

    table: pd.DataFrame
    n_neighbors: NDArray[np.intp]
    key: str


def neighborhood_composition(
    data: Any,
    groups: str = _keys.CELL_TYPE,
    *,
    radius_um: float | None = None,
    n_neighbors: int = 10,
    include_self: bool = False,
    soft: bool = False,
    batch_key: str | None = None,
    key_added: str = "neighborhood_composition",
) -> Composition:
    """The share of every label among the neighbours of each cell, spot or bin. Works in place.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, with ``obsm["spatial_um"]``.
    groups
        Column of ``obs`` with labels, read as strings. Cells without a label are no neighbours, but get a row.
    radius_um
        Neighbours are all others this near. None: one ring of a lattice, or the ``n_neighbors`` nearest (made
        symmetric) where there is none.
    n_neighbors
        Number of neighbours where no radius is given; 10 as in ``sm.fuse``.
    include_self
        The cell itself counts too.
    soft
        Labels are the probabilities or proportions in ``obsm["<groups>_prob"]`` or ``obsm["<groups>_proportions"]``,
        if there are any, in place of the likeliest label.
    batch_key
        Column of ``obs`` that names each cell's section: neighbours are sought within sections.
    key_added
        Key in ``obsm``, and prefix in ``obs``.

    Writes
    ------
    ``obsm["neighborhood_composition"]`` (DataFrame [n_obs, n_labels], rows sum to 1, NaN where there are no labelled
    neighbours), ``obs["neighborhood_composition_n"]`` (labelled neighbours).

    Returns
    -------
    The same as a frozen :class:`Composition`.

    Raises
    ------
    InputError
        If labels, positions or sections are missing, or no cell has a labelled neighbour.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=40, image=False)
    >>> made = sm.tl.neighborhood_composition(adata, "truth_cell_type", radius_um=150)
    >>> bool(abs(made.table.sum(axis=1) - 1).max() < 1e-9)
    True
    """
    import pandas as pd

    adata = _adapt.table(data)
    _check_settings(radius_um, n_neighbors, key_added)
    membership, names = _membership(adata, groups, soft=soft)
    section, _ = _adapt.sections(adata, batch_key)
    xy = _adapt.xy_um(adata)
    settings: dict[str, Any] = {"kind": "auto", "n_neighbors": int(n_neighbors)}
    if radius_um is not None:
        settings = {"kind": "radius", "radius_um": radius_um}
    try:
        edges = sectioned_graph(xy, section, **settings).connectivities
    except ValueError as error:
        raise _check.problem(str(error)) from error
    if include_self:
        edges = sparse.csr_matrix(edges + sparse.eye(adata.n_obs, format="csr"))
    around = np.asarray(edges @ membership)
    labelled = (membership.sum(axis=1) > 0).astype(np.float64)
    number = np.rint(np.asarray(edges @ labelled)).astype(np.intp)
    if not number.any():
        raise _check.problem(
            "no cell has a labelled neighbour",
            found="one labelled cell" if labelled.sum() == 1 else f"none within {radius_um} um",
            cure="give a larger radius_um",
        )
    total = around.sum(axis=1, keepdims=True)
    shares = np.divide(around, total, out=np.full_like(around, np.nan), where=total > 0)
    table = pd.DataFrame(shares, index=adata.obs_names, columns=names)
    adata.obsm[key_added] = table
    adata.obs[f"{key_added}_n"] = number
    params = {"groups": groups, "radius_um": radius_um, "n_neighbors": n_neighbors, "include_self": include_self}
    inputs = {"batch_key": batch_key, "soft": soft}
    _keys.record(adata, key_added, function="sm.tl.neighborhood_composition", params=params, inputs=inputs)
    return Composition(table, number, key_added)


def _check_settings(radius_um: Any, n_neighbors: Any, key_added: str) -> None:
    """Refuse numbers that are none, and a key that holds what others rely on."""
    if radius_um is not None and not (_is_number(radius_um) and radius_um > 0):
        raise _check.problem(
            "radius_um must be a positive number", found=repr(radius_um)[:80], cure="give micrometres, such as 50"
        )
    if not (_is_number(n_neighbors) and int(n_neighbors) == n_neighbors and n_neighbors >= 1):
        raise _check.problem(
            "n_neighbors must be a whole number of 1 or more", found=repr(n_neighbors)[:80], cure="give one, such as 10"
        )
    taken = key_added in (_keys.SPATIAL, _keys.SPATIAL_UM)
    if taken or not key_added or "/" in key_added:
        raise _check.problem(
            f"key_added cannot be {key_added!r}",
            found="a key of positions" if taken else "a name that cannot be written",
            cure="give another name",
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_) and math.isfinite(float(value))


def _membership(adata: Any, groups: str, *, soft: bool) -> tuple[Float, list[str]]:
    """Membership [n_obs, n_labels], rows sum to 1 or, without a label, to 0; names of the labels."""
    if soft:
        for key in (groups + _keys.PROB_SUFFIX, f"{groups}_proportions"):
            if key in adata.obsm and hasattr(adata.obsm[key], "columns"):
                table = adata.obsm[key]
                values = np.nan_to_num(np.asarray(table, dtype=np.float64))
                if values.min(initial=0.0) < 0:
                    raise _check.problem(
                        f"obsm[{key!r}] must hold probabilities or proportions",
                        found=f"smallest value {values.min():g}",
                        cure="store values of 0 and more, or pass soft=False",
                    )
                total = values.sum(axis=1, keepdims=True)
                return values / np.where(total > 0, total, 1.0), [str(c) for c in table.columns]
        raise _check.problem(
            f"no probabilities of {groups!r} are stored",
            found=f"obsm has {_check.listed(adata.obsm)}",
            cure="pass soft=False, or run what makes them",
        )
    _check.require(adata.obs, groups, "obs", "name the column that holds the labels")
    number, names = _adapt.numbered(adata.obs[groups])
    if not names:
        raise _check.problem(
            f"obs[{groups!r}] holds no label", found="missing and empty values only", cure="name another column"
        )
    member = np.zeros((adata.n_obs, len(names)))
    known = np.flatnonzero(number >= 0)
    member[known, number[known]] = 1.0
    return member, names
