"""Where a trajectory begins: cells, a label, a marker gene, or what the transcriptome itself suggests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check
from smeld.kernels import expression, smooth
from smeld.kernels.ordering_evidence import splines

if TYPE_CHECKING:
    import pandas as pd

#: what ``root`` may be: see ``sm.tl.trajectory``
Root = str | Sequence[str] | Sequence[bool] | NDArray[np.bool_]
KINDS = ("label", "gene", "cell")
#: share of cells that are the root where a gene is: those that have most of it, smoothed over their neighbours
OF_GENE = 0.05
#: strength of that smoothing
ALPHA = 4.0
#: groups whose potency differs by less, in standard deviations, are as potent
CLOSE = 0.25


@dataclass(frozen=True)
class Start:
    """``cells`` bool [n_obs]; what they are, in words; and for ``"auto"`` the potency of every group."""

    cells: NDArray[np.bool_]
    words: str
    potency: pd.DataFrame | None = None


def start(
    adata: Any, root: Root, groups: str, weights: sparse.csr_matrix, layer: str | None, order: NDArray[np.intp]
) -> Start:
    """The cells that ``root`` asks for, in ``order``, as are ``weights``; a name that could mean two things is refused,
    with both named."""
    if not isinstance(root, str):
        return _cells(adata, root, order)
    kind, _, name = root.partition(":")
    if kind not in KINDS or not name:
        kind, name = _meant(adata, root, groups), root
    if kind == "label":
        label, names = _adapt.numbered(adata.obs[groups]) if groups in adata.obs else (np.empty(0), [])
        if name not in names:
            raise _check.unknown("label", name, names)
        return Start(np.asarray(label[order] == names.index(name)), f"{name} of obs[{groups!r}]")
    if kind == "gene":
        return _gene(adata, name, weights, layer, order)
    if kind == "cell":
        return _cells(adata, [name], order)
    return _auto(adata, groups, weights, layer, order)


def _meant(adata: Any, root: str, groups: str) -> str:
    found = []
    if groups in adata.obs and root in _adapt.numbered(adata.obs[groups])[1]:
        found.append(("label", f"a label of obs[{groups!r}]"))
    if root in adata.var_names:
        found.append(("gene", "a gene"))
    if root in adata.obs_names:
        found.append(("cell", "a cell"))
    if root == "auto":
        found.append(("auto", "the choice by potency"))
    if len(found) > 1:
        said = [f'root="{kind}:{root}"' for kind, _ in found if kind in KINDS]
        raise _check.problem(
            f"root {root!r} could mean two things",
            found=" and ".join(words for _, words in found),
            cure=f"say which: {' or '.join(said)}",
        )
    if not found:
        labels = _adapt.numbered(adata.obs[groups])[1] if groups in adata.obs else []
        raise _check.problem(
            f"root {root!r} is neither a label of obs[{groups!r}], nor a gene, nor a cell",
            found=f"labels {_check.listed(labels)}; genes such as {_check.listed(adata.var_names, 3)}",
            cure='name one of them, give a list of cells, or root="auto"',
        )
    return found[0][0]


def _cells(adata: Any, root: Any, order: NDArray[np.intp]) -> Start:
    """A list of identifiers, or a mask."""
    values = np.asarray(root)
    if values.dtype == bool:
        if values.shape != (adata.n_obs,):
            raise _check.problem(
                "a mask of the root needs a value for every cell",
                found=f"{values.size} values, {adata.n_obs} cells",
                cure="give a boolean array as long as adata.obs",
            )
        cells = values
    else:
        names = [str(v) for v in values.ravel()]
        unknown = [name for name in names if name not in adata.obs_names]
        if unknown:
            raise _check.problem(
                "cells of the root are not here",
                found=_check.listed(unknown, 5),
                cure="give identifiers of adata.obs_names, or a boolean mask",
            )
        cells = np.asarray(adata.obs_names.isin(names))
    if not cells.any():
        raise _check.problem("the root holds no cell", cure="name at least one")
    count = int(cells.sum())
    return Start(cells[order], f"{count} cells given" if count > 1 else f"the cell {adata.obs_names[cells][0]}")


def _logged(adata: Any, layer: str | None) -> sparse.csr_matrix:
    counts = _adapt.counts(adata, layer)
    return counts.astype(np.float64) if _adapt.look_logged(counts) else expression.log_normalise(counts)


def _gene(adata: Any, name: str, weights: sparse.csr_matrix, layer: str | None, order: NDArray[np.intp]) -> Start:
    if name not in adata.var_names:
        raise _check.unknown("gene", name, list(adata.var_names[:2000]))
    column = int(np.flatnonzero(adata.var_names == name)[0])
    values = _logged(adata, layer)[:, [column]].toarray()[order, 0]
    level = smooth.smooth(weights, values, ALPHA)
    if not values.max() > values.min():
        raise _check.problem(f"gene {name} does not vary in this section", cure="choose another root")
    most = np.argsort(-level, kind="stable")[: max(3, round(OF_GENE * len(level)))]
    cells = np.zeros(len(level), dtype=bool)
    cells[most] = True
    return Start(cells, f"the {OF_GENE:.0%} of cells with most {name}, smoothed over their neighbours")


def _auto(adata: Any, groups: str, weights: sparse.csr_matrix, layer: str | None, order: NDArray[np.intp]) -> Start:
    """The group whose cells express more genes than their library size explains (Gulati et al. 2020 for the idea)."""
    import pandas as pd

    _check.require(adata.obs, groups, "obs", 'run sm.tl.domains(adata) first: root="auto" chooses one of its groups')
    counts = _adapt.counts(adata, layer)[order]
    if not _adapt.are_counts(counts):
        _check.warn(
            "the values are no counts: library sizes, which the choice of a root by potency leans on, are not those of "
            "the cells. Name a root, or the counts with layer=.",
            adata,
            stacklevel=6,
        )
    n_genes = np.diff(counts.indptr).astype(np.float64)
    library = np.log1p(np.asarray(counts.sum(axis=1), dtype=np.float64).ravel())
    rank = np.argsort(np.argsort(library, kind="stable"), kind="stable") / max(len(library) - 1, 1)
    design = splines(rank, 6)
    score = n_genes - design @ np.linalg.lstsq(design, n_genes, rcond=None)[0]
    if not np.ptp(score) > 1e-9 * max(float(n_genes.max()), 1.0):
        raise _check.problem(
            'root="auto" finds nothing to choose by', found="cells that all express as many genes", cure="name a root"
        )
    score = smooth.smooth(weights, score, ALPHA)
    score = (score - score.mean()) / max(float(score.std()), 1e-12)
    label, names = _adapt.numbered(adata.obs[groups])
    label = label[order]
    table = pd.DataFrame(
        [(name, int((label == k).sum()), float(score[label == k].mean())) for k, name in enumerate(names)],
        columns=["group", "n_cells", "potency"],
    ).sort_values("potency", ascending=False, ignore_index=True)
    best = str(table["group"].iloc[0])
    margin = float(table["potency"].iloc[0] - table["potency"].iloc[1]) if len(table) > 1 else np.inf
    if margin < CLOSE:
        _check.warn(
            f"{best} was chosen as root for potency, but {table['group'].iloc[1]} lies within {margin:.2f} standard "
            "deviations of it: name the root if you know it.",
            adata,
            stacklevel=6,
        )
    words = (
        f"{best} of obs[{groups!r}], chosen for potency: its cells express more genes than their library size explains "
        f"(score {table['potency'].iloc[0]:.2f}, {margin:.2f} above the next)"
    )
    return Start(np.asarray(label == names.index(best)), words, table)
