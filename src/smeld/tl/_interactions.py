"""Ligand-receptor pairs that lie together more than chance, tissue's own smoothness allowed for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys
from smeld.kernels import expression, localp
from smeld.lr import LRResult, _resource, lr_stats
from smeld.lr._resource import JOIN
from smeld.tl import _lr_inputs

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Local = Literal["significant", "none"]

COLUMNS = ["ligand", "receptor", "range", "effect", "zscore", "pvalue", "qvalue", "n_spots_significant"]
#: false discovery rate of pairs, and on average over the selected pairs of their spots
FDR = 0.05
#: partners seen in fewer spots are not tested: stLearn's default
MIN_SPOTS = 20
#: the range that lambda must lie in
LAMBDA = (0.9, 1.1)


@dataclass(frozen=True)
class Interactions:
    """``table`` a row a pair, most significant first; ``lambda_surrogate`` the median chi-square of pairs made
    independent over the expected one (1: calibrated; NaN: not looked at); ``n_missing`` pairs with a gene that the
    section lacks, ``n_rare`` pairs with a partner seen in too few spots, ``n_same`` pairs that share a gene: these are
    not tested (a gene always lies beside itself); ``adjusted`` what was regressed out."""

    table: pd.DataFrame
    lambda_surrogate: float
    n_missing: int
    n_rare: int
    n_same: int
    adjusted: tuple[str, ...]


def interactions(
    data: Any,
    pairs: Any = None,
    *,
    statistic: str = "spatial",
    radius_um: float | None = None,
    within_spot: bool = False,
    adjust: Sequence[str] | Literal["auto"] = "auto",
    local: Local = "significant",
    min_spots: int = MIN_SPOTS,
    layer: str | None = None,
    key_added: str = _keys.INTERACTIONS,
    seed: int = 0,
) -> Interactions:
    """Test which ligand-receptor pairs lie together, receptor beside ligand. Works in place.

    For every pair the receptor of a spot is multiplied with the mean ligand of its neighbours. Tissue is smooth: two
    genes that have nothing to do with each other overlap in patches, and tests that take spots for exchangeable call a
    third of such pairs interacting. The default compares with independent fields as smooth as these two.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table: one section.
    pairs
        DataFrame or list with ligand and receptor in two columns (``range`` is kept), subunits of a complex joined by
        ``+``; None for ``sm.lr.pairs()``, human. A complex counts as its scarcest subunit.
    statistic
        A name in ``sm.lr.lr_stats``: ``"spatial"`` (calibrated), or, to see what other tools say, ``"moran"``,
        ``"cosine"``, ``"product"``.
    radius_um
        Neighbours are all spots within this distance, micrometres. None: one ring of a lattice, else the 10 nearest.
    within_spot
        Ligand in the spot itself counts as one neighbour more: for spots that hold many cells.
    adjust
        What is regressed out of both partners first: ``"library"`` (log of the counts of a spot) and columns of ``obs``
        (``"domain"``, ``"cell_type"``); pairs then must lie together beyond what these explain. ``"auto"``: nothing,
        the library, or library and ``obs["domain"]`` - the first with which pairs made independent on purpose pass no
        more often than they should (lambda from 0.9 to 1.1). ``"spatial"`` only.
    local
        ``"significant"``: also the spots where significant pairs lie together; ``"none"``.
    min_spots
        Partners seen in fewer spots are not tested.
    layer
        Layer that holds the counts; ``X`` by default.
    key_added
        Key in ``uns`` and prefix in ``obsm``.
    seed
        Seed of surrogates and of statistics that permute.

    Writes
    ------
    ``uns["interactions"]`` (the table: ``ligand``, ``receptor``, ``range``, ``effect``, ``zscore``, one-sided
    ``pvalue``, ``qvalue`` of Benjamini & Hochberg, ``n_spots_significant``); ``obsm["interactions_local"]`` CSR
    [n_obs, n_significant], receptor times ligand around it in the spots that are significant (FDR over selected pairs
    by Benjamini & Bogomolov 2014), its columns the table's first rows.

    Raises
    ------
    InputError
        If no pair has both partners here, or a name is not known.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> found = sm.tl.interactions(adata, [(adata.var_names[0], adata.var_names[1])])
    >>> len(found.table)
    1
    """
    adata = _adapt.table(data)
    if statistic not in lr_stats:
        raise _check.unknown("interaction statistic", statistic, lr_stats)
    if local not in ("significant", "none"):
        raise _check.unknown("local", local, ("significant", "none"))
    if statistic != "spatial" and adjust not in ("auto", ()):
        raise _check.problem(
            "only statistic='spatial' adjusts", found=f"statistic={statistic!r}", cure="leave adjust out"
        )
    order = _adapt.canonical_order(adata)
    asked = _resource.pairs() if pairs is None else _resource.checked(pairs)
    spelled, present = _lr_inputs.matched(asked, adata, default=pairs is None)
    counts = _adapt.counts(adata, layer)[order]
    logged = counts.astype(np.float64) if _adapt.look_logged(counts) else expression.log_normalise(counts)
    genes, units = _lr_inputs.units(logged.tocsc(), present, adata.var_names)
    seen = np.diff(genes.indptr) >= min_spots
    index = np.array([[units[a], units[b]] for a, b in zip(present["ligand"], present["receptor"])], dtype=np.intp)
    apart = np.array(
        [not set(a.split(JOIN)) & set(b.split(JOIN)) for a, b in zip(present["ligand"], present["receptor"])]
    )
    kept = seen[index].all(axis=1) & apart
    xy = _adapt.xy_um(adata)[order]
    weights = _lr_inputs.averages(xy, radius_um, within_spot)
    index, tested = index[kept], present[kept].reset_index(drop=True)
    bases = {c: _lr_inputs.basis(adata, c, counts, order) for c in _candidates(adata, adjust, statistic)}
    found, adjusted = _calibrated(statistic, genes, index, weights, xy, bases, seed) if len(index) else (None, ())
    table = _table(tested, found)
    lambda_ = float("nan") if found is None or found.lambda_surrogate is None else found.lambda_surrogate
    _say_lambda(lambda_, adata)
    rank = np.lexsort((table["receptor"], table["ligand"], -table["zscore"], table["pvalue"]))
    table, index = table.iloc[rank].reset_index(drop=True), index[rank]
    adata.obsm.pop(f"{key_added}_local", None)
    if local == "significant":
        table["n_spots_significant"], where = _local(genes, index, weights, table)
        if where.shape[1]:
            adata.obsm[f"{key_added}_local"] = where[np.argsort(order)].tocsr()
    adata.uns[key_added] = table
    n_missing, n_same = len(asked) - len(present), int((~apart).sum())
    n_rare = int((apart & ~kept).sum())
    params = {
        "statistic": statistic, "radius_um": radius_um, "within_spot": within_spot, "adjust": list(adjusted),
        "local": local, "min_spots": min_spots, "lambda_surrogate": lambda_, "n_tested": len(table),
        "n_missing": n_missing, "n_rare": n_rare, "n_same": n_same, "fdr": FDR,
    }  # fmt: skip
    inputs = {"layer": layer or "X", "pairs": "smeld human" if pairs is None else "given", "spelling": spelled}
    _keys.record(adata, key_added, function="sm.tl.interactions", params=params, seed=seed, inputs=inputs)
    return Interactions(table, lambda_, n_missing, n_rare, n_same, adjusted)


def _candidates(adata: Any, adjust: Sequence[str] | Literal["auto"], statistic: str) -> tuple[tuple[str, ...], ...]:
    """What may be regressed out, simplest first."""
    if adjust != "auto":
        return ((adjust,) if isinstance(adjust, str) else tuple(adjust),)
    if statistic != "spatial":
        return ((),)
    domain = (("library", _keys.DOMAIN),) if _keys.DOMAIN in adata.obs else ()
    return ((), ("library",), *domain)


def _calibrated(
    statistic: str,
    genes: sparse.csc_matrix,
    index: NDArray[np.intp],
    weights: sparse.csr_matrix,
    xy: Float,
    bases: dict[tuple[str, ...], Float | None],
    seed: int,
) -> tuple[LRResult, tuple[str, ...]]:
    """The first of ``bases`` with which the test holds on surrogates, or the one with which it holds best."""
    tried: dict[tuple[str, ...], LRResult] = {}
    for name, basis in bases.items():
        options = {} if basis is None else {"basis": basis}
        tried[name] = lr_stats[statistic].func(genes, index, weights, xy, seed=seed, **options)
        lambda_ = tried[name].lambda_surrogate
        if lambda_ is None or LAMBDA[0] <= lambda_ <= LAMBDA[1]:
            return tried[name], name
    best = min(tried, key=lambda name: _off(tried[name].lambda_surrogate))
    return tried[best], best


def _off(lambda_: float | None) -> float:
    """How far lambda lies from 1, as a factor."""
    return np.inf if not lambda_ or not np.isfinite(lambda_) else float(abs(np.log(lambda_)))


def _table(tested: pd.DataFrame, found: Any) -> pd.DataFrame:
    table = tested[["ligand", "receptor", "range"]].copy()
    for name in ("effect", "zscore", "pvalue"):
        table[name] = getattr(found, name) if found is not None else np.zeros(0)
    table["qvalue"] = localp.adjusted(table["pvalue"].to_numpy())
    table["n_spots_significant"] = 0
    return table[COLUMNS]


def _local(
    genes: sparse.csc_matrix, index: NDArray[np.intp], weights: sparse.csr_matrix, table: pd.DataFrame
) -> tuple[NDArray[np.int64], sparse.csr_matrix]:
    """Significant spots of the R significant pairs of m (the table's first rows): BH over spots at FDR R / m."""
    n_selected, m = int((table["qvalue"] <= FDR).sum()), max(len(table), 1)
    number, columns = np.zeros(len(table), dtype=np.int64), []
    for i in range(n_selected):
        ligand, receptor = index[i]
        around = np.asarray(weights @ genes[:, [ligand]].toarray()).ravel()
        own = genes[:, [receptor]].toarray().ravel()
        q = localp.adjusted(localp.product_pvalues(own, around))
        value = np.where(q <= FDR * n_selected / m, own * around, 0.0)
        number[i] = int((value > 0).sum())
        columns.append(sparse.csr_matrix(value[:, None]))
    empty = sparse.csr_matrix((genes.shape[0], 0))
    return number, sparse.csr_matrix(sparse.hstack(columns, format="csr")) if columns else empty


def _say_lambda(value: float, adata: Any) -> None:
    if np.isfinite(value) and not LAMBDA[0] <= value <= LAMBDA[1]:
        too = "too many" if value > 1 else "too few"
        _check.warn(
            f"pairs made independent on purpose are called interacting {too} times here (lambda {value:.2f}, expected "
            "0.9 to 1.1): expression changes over the section as a whole. Regress out what divides it, as in "
            "sm.tl.domains(adata); sm.tl.interactions(adata, adjust=['library', 'domain']).",
            adata,
            stacklevel=4,
        )
