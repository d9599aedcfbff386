"""Parts of the main job that a section may be unfit for: it has its other results all the same, and a warning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smeld import _check, _keys, tl
from smeld.tl._celltype_interactions import sending_groups

if TYPE_CHECKING:
    from anndata import AnnData

#: tables in ``uns`` that these parts leave, in the order they are written
TABLES = (
    _keys.INTERACTIONS,
    _keys.CELLTYPE_INTERACTIONS,
    *(f"{_keys.PSEUDOTIME}_{name}" for name in ("evidence", "nodes", "edges", "potency")),
    _keys.TRANSITION_GENES,
)


def interactions(adata: AnnData, seed: int) -> None:
    """Ligand-receptor pairs, and who sends to whom."""
    try:
        tl.interactions(adata, seed=seed)
        if (groups := sending_groups(adata)) and len(adata.uns[_keys.INTERACTIONS]):
            tl.celltype_interactions(adata, groups)
    except _check.InputError as error:
        _check.warn(f"ligand-receptor pairs were not all tested: {error}", adata)


def trajectory(adata: AnnData, root: str, seed: int) -> None:
    """Pseudotime from ``root``, and the genes that follow it."""
    try:
        tl.trajectory(adata, root, seed=seed)
        tl.transition_genes(adata, seed=seed)
    except _check.InputError as error:
        _check.warn(f"the trajectory is not complete: {error}", adata)
