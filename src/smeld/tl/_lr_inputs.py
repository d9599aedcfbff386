"""What tests of ligand-receptor pairs read of a section: pairs that are there, units, links, what is regressed out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check
from smeld.kernels.graph import spatial_graph
from smeld.lr._resource import JOIN

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]


def matched(asked: pd.DataFrame, adata: Any, *, default: bool) -> tuple[str, pd.DataFrame]:
    """Pairs whose genes are all here; of the human table with mouse genes, by capitalisation, which is said."""
    here = set(adata.var_names)

    def complete(frame: pd.DataFrame) -> pd.DataFrame:
        whole = [
            all(g in here for name in pair for g in name.split(JOIN))
            for pair in zip(frame["ligand"], frame["receptor"])
        ]
        return frame[whole].reset_index(drop=True)

    found, spelled = complete(asked), "as given"
    if default and not len(found):
        title = asked.copy()
        for column in ("ligand", "receptor"):
            title[column] = [JOIN.join(g.capitalize() for g in n.split(JOIN)) for n in asked[column]]
        found, spelled = complete(title), "capitalised"
        if len(found):
            _check.warn(
                "the genes look like mouse genes: the human pairs were matched by capitalisation, which misses "
                "orthologs of other names. Give pairs= for a table of your own.",
                adata,
                stacklevel=4,
            )
    if not len(found):
        raise _check.problem(
            "no pair has both partners in this section",
            found=f"genes such as {_check.listed(adata.var_names, 5)}; pairs such as "
            f"{_check.listed((f'{a}-{b}' for a, b in zip(asked['ligand'], asked['receptor'])), 3)}",
            cure="give pairs= with this section's gene names (gene symbols in adata.var_names)",
        )
    return spelled, found


def units(genes: sparse.csc_matrix, pairs: pd.DataFrame, names: Any) -> tuple[sparse.csc_matrix, dict[str, int]]:
    """A column for every gene or complex (its scarcest subunit, spot by spot), and where it stands."""
    column = {name: i for i, name in reversed(list(enumerate(names)))}  # of equal names the first
    units: dict[str, int] = {}
    made: list[sparse.csc_matrix] = []
    for name in sorted({*pairs["ligand"], *pairs["receptor"]}):
        parts = [genes[:, [column[g]]] for g in name.split(JOIN)]
        unit = parts[0]
        for part in parts[1:]:
            unit = unit.minimum(part)
        units[name] = len(made)
        made.append(unit)
    out = sparse.csc_matrix(sparse.hstack(made, format="csc"))
    out.eliminate_zeros()
    return out, units


def averages(xy: Float, radius_um: float | None, within_spot: bool) -> sparse.csr_matrix:
    """Row i averages over the neighbours of spot i; rows of spots without neighbours are empty."""
    try:
        graph = spatial_graph(xy) if radius_um is None else spatial_graph(xy, kind="radius", radius_um=radius_um)
    except ValueError as error:
        raise _check.problem(str(error)) from error
    edges = graph.connectivities
    if within_spot:
        edges = sparse.csr_matrix(edges + sparse.identity(len(xy), format="csr"))
    degree = np.asarray(edges.sum(axis=1)).ravel()
    inverse = np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)
    made = sparse.csr_matrix(sparse.diags(inverse) @ edges)
    made.sort_indices()  # or else the first operation that sorts them would change the order of later sums
    return made


def basis(adata: Any, adjust: Sequence[str], counts: sparse.csr_matrix, order: NDArray[np.intp]) -> Float | None:
    """Orthonormal columns that span what is regressed out, the mean included; None for the mean alone."""
    if not adjust:
        return None
    columns = [np.ones((adata.n_obs, 1))]
    for name in adjust:
        if name == "library":
            columns.append(np.log1p(np.asarray(counts.sum(axis=1), dtype=np.float64)).reshape(-1, 1))
            continue
        _check.require(adata.obs, name, "obs", "name a column of obs, or 'library'")
        label, names = _adapt.numbered(adata.obs[name])
        columns.append((label[order][:, None] == np.arange(len(names))).astype(np.float64))
    left, singular, _ = np.linalg.svd(np.hstack(columns), full_matrices=False)
    return np.asarray(left[:, singular > singular.max() * 1e-8])
