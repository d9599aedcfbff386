"""Are labels regions or scattered types? Join counts and assortativity on the spatial graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld.kernels import contiguity as kernel
from smeld.tl._pieces import labelled

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["domain", "cell_type"]

#: assortativity from which labels are regions: between the annotated regions and the cell types that it was measured on
THRESHOLD = 0.5


@dataclass(frozen=True)
class Contiguity:
    """``recommended`` mode, ``certain`` if the assortativity lies two standard errors from the threshold, the ``table``
    by label, and the figures of all labels together: ``assortativity`` and its ``se``, the share of edges that join
    like labels (``same_share``) and that share at random (``expected_share``), ``zscore``, ``pvalue``."""

    recommended: Kind
    certain: bool
    table: pd.DataFrame
    assortativity: float
    se: float
    same_share: float
    expected_share: float
    zscore: float
    pvalue: float
    n_spots: int
    n_edges: int


def contiguity(
    data: Any,
    groups: str = _keys.DOMAIN,
    *,
    batch_key: str | None = None,
    key_added: str | None = None,
) -> Contiguity:
    """Measure how contiguous labels are, and say whether they are regions or scattered cell types.

    Regions gain from smoothing over space and scattered types lose by it, so that the two ask for different analyses.
    The assortativity of a label is (o - e) / (1 - e): o the share of its spots' neighbours that carry it too, e that
    share if labels were dealt out at random. 1: only like beside like, 0: no better than chance. Tissue is never
    random, so that the p-value hardly ever speaks against contiguity; the assortativity decides.

    Labels are taken for regions from an assortativity of 0.5, halfway from chance to certainty. Measured: annotated
    regions 0.57 to 0.95 (cortical layers 0.88, STARmap domains 0.88 and 0.90, breast cancer regions on Visium 0.86 to
    0.95, on legacy arrays of some 300 spots 0.57 to 0.76), cell types 0.10 to 0.23 (MERFISH hypothalamus, STARmap
    cortex) and 0.48 (seqFISH embryo, whose types are organs for a good part); smoothing made clusters agree less with
    each of these cell types. Simulated domains of 1,000 to 8,000 spots (6 or 7 domains) 0.50 to 0.97, types below 0.1.
    The figure hangs on how many spots wide a region is: drawing a fifth of the cells at random lowers STARmap's domains
    to 0.77, and regions two or three spots wide (300 spots in 12 nested domains: 0.15) look scattered. Near 0.5
    (``certain`` is False) labels are between the two. Labels found by smoothing over space, as those of
    ``sm.tl.domains``, are contiguous by construction: ask this of labels from elsewhere, or of clusters without space.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, with ``obsm["spatial_um"]``.
    groups
        Column of ``obs`` with labels, read as strings. Missing and empty labels are left out.
    batch_key
        Column of ``obs`` that names each spot's section: neighbours are sought, and chance is reckoned, within
        sections. None: one section.
    key_added
        Key in ``uns``; ``"<groups>_contiguity"`` by default.

    The neighbours are those of ``sm.fuse`` where they are stored (``obsp["spatial_distances"]``), else its default:
    one ring of a lattice, or the 10 nearest neighbours.

    Writes
    ------
    ``uns["domain_contiguity"]``, a row a label: ``label``, ``n_spots``, ``same_label_edges`` (edges that join two
    spots of the label), ``expected`` (their mean if labels are permuted within sections), ``assortativity``, ``se``
    (jackknife over 32 compact blocks; NaN for labels in one block), ``zscore`` (by the exact variance under
    permutation), ``pvalue`` (one-sided: more than by chance; Poisson where fewer than 5 are expected), ``kind``
    ("domain" or "cell_type" by the same threshold, "unknown" for labels of one spot or without neighbours). The
    figures of all labels together lie in ``uns["smeld"]["domain_contiguity"]["params"]``.

    Returns
    -------
    The same as a frozen :class:`Contiguity`.

    Raises
    ------
    InputError
        If labels, positions or sections are missing, all labels are the same, or no labelled spots are neighbours.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=1000, n_genes=60, image=False)
    >>> sm.tl.contiguity(adata, "truth_domain").recommended
    'domain'
    >>> sm.tl.contiguity(adata, "truth_cell_type").recommended
    'cell_type'

    References
    ----------
    Join counts and their moments: Cliff and Ord, Spatial Processes (1981), chapter 2. Assortativity: Newman, Phys.
    Rev. E 67 (2003) 026126.
    """
    adata = _adapt.table(data)
    found = labelled(adata, groups, batch_key)
    if len(found.names) < 2:
        raise _check.problem(
            "contiguity needs at least two labels", found=f"only {found.names[0]!r} in obs[{groups!r}]"
        )
    joins = kernel.join_counts(found.label, found.graph, section=found.section)
    if joins.edges[-1] == 0:
        raise _check.problem(
            f"no two spots with labels in obs[{groups!r}] are neighbours",
            found=f"{joins.n_spots[-1]} labelled spots",
            cure="label more of the section",
        )
    value, se = kernel.assortativity(found.label, found.graph, found.xy_um, section=found.section)
    table = _table(found.names, joins, value, se)
    made = _result(table, joins, float(value[-1]), float(se[-1]))
    key = key_added or f"{groups}_contiguity"
    adata.uns[key] = table
    facts = {n: v for n, v in vars(made).items() if n != "table"}
    params = {"threshold": THRESHOLD, "graph": found.kind, **facts}
    inputs = {"groups": groups, "batch_key": batch_key}
    _keys.record(adata, key, function="sm.tl.contiguity", params=params, inputs=inputs)
    return made


def _kind(value: float) -> Kind:
    return "domain" if value >= THRESHOLD else "cell_type"


def _table(names: list[str], joins: kernel.Joins, value: NDArray[np.float64], se: NDArray[np.float64]) -> pd.DataFrame:
    import pandas as pd

    each = slice(len(names))
    return pd.DataFrame(
        {
            "label": names,
            "n_spots": joins.n_spots[each],
            "same_label_edges": joins.observed[each].astype(np.int64),
            "expected": joins.expected[each],
            "assortativity": value[each],
            "se": se[each],
            "zscore": joins.zscore[each],
            "pvalue": joins.pvalue[each],
            "kind": ["unknown" if np.isnan(v) else _kind(v) for v in value[each]],
        }
    )


def _result(table: pd.DataFrame, joins: kernel.Joins, value: float, se: float) -> Contiguity:
    edges = float(joins.edges[-1])
    return Contiguity(
        recommended=_kind(value),
        certain=bool(abs(value - THRESHOLD) > 2 * se),
        table=table,
        assortativity=value,
        se=se,
        same_share=float(joins.observed[-1]) / edges,
        expected_share=float(joins.expected[-1]) / edges,
        zscore=float(joins.zscore[-1]),
        pvalue=float(joins.pvalue[-1]),
        n_spots=int(joins.n_spots[-1]),
        n_edges=int(edges),
    )
