"""Ligand-receptor pairs that lie together more than chance, tissue's own smoothness allowed for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _adapt, _check, _keys, _progress
from smeld.kernels import localp, pairtest, rows, surrogates
from smeld.lr import LRResult, _resource, lr_stats
from smeld.lr._resource import JOIN
from smeld.tl import _links, _lr_inputs, _self_check
from smeld.tl._links import Radius

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Local = Literal["significant", "none"]
Bases = dict[tuple[str, ...], Float | None]

COLUMNS = ["ligand", "receptor", "range", "effect", "zscore", "pvalue", "qvalue", "n_spots_significant"]
#: false discovery rate of pairs, and on average over the selected pairs of their spots
FDR = 0.05
#: partners seen in fewer spots are not tested: stLearn's default
MIN_SPOTS = 20
#: significant pairs whose score is stored for every spot, most significant first
MOST_SCORED = 200
#: memory that is said beforehand, gigabytes; regions of fewer spots have no correlogram of their own
SAID_GB, FEWEST_IN_REGION = 2.0, 100


@dataclass(frozen=True)
class Interactions:
    """``table`` a row a pair, most significant first; ``lambda_surrogate`` the median chi-square of pairs made
    independent over the expected one (1: calibrated; NaN: not looked at), ``lambda_decoy`` that of pairs of genes that
    are in no pair but as abundant and as smooth (above 1 where genes share what tissue is made of); ``n_missing`` pairs
    with a gene that the section lacks, ``n_rare`` pairs with a partner seen in too few spots, ``n_same`` pairs that
    share a gene: these are not tested (a gene always lies beside itself); ``adjusted`` what was regressed out."""

    table: pd.DataFrame
    lambda_surrogate: float
    lambda_decoy: float
    n_missing: int
    n_rare: int
    n_same: int
    adjusted: tuple[str, ...]


def interactions(
    data: Any,
    pairs: Any = None,
    *,
    statistic: str = "spatial",
    radius_um: Radius = None,
    within_spot: bool = False,
    barrier: str | None = None,
    adjust: Sequence[str] | Literal["auto"] | None = "auto",
    correlograms_by: str | None = None,
    batch_key: str | None = None,
    organism: str = "auto",
    local: Local = "significant",
    decoys: bool = True,
    min_spots: int = MIN_SPOTS,
    layer: str | None = None,
    key_added: str = _keys.INTERACTIONS,
    seed: int = 0,
) -> Interactions:
    """Test which ligand-receptor pairs lie together, receptor beside ligand. Works in place.

    For every pair the receptor of a spot is multiplied with the mean ligand of its neighbours. Tissue is smooth: two
    genes that have nothing to do with each other overlap in patches, and tests that take spots for exchangeable call a
    third of such pairs interacting. The default compares with independent fields as smooth as these two, and leaves
    out what the two share within a spot.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    pairs
        DataFrame or list with ligand and receptor in two columns (``range`` is kept), subunits of a complex joined by
        ``+``; None for ``sm.lr.pairs()``. A complex counts as its scarcest subunit.
    statistic
        A name in ``sm.lr.lr_stats``: ``"spatial"`` (calibrated); ``"gnn"``, whether other genes of the receiving cell
        answer to the pair (needs ``smeld[deep]``); or, to see what other tools say, ``"matched"`` (stLearn),
        ``"moran"``, ``"cosine"``, ``"product"``.
    radius_um
        Neighbours are all spots within this distance, micrometres. None: one ring of a lattice, else the 10 nearest.
        ``"range"``: secreted ligands reach 150 um, fading as a Gaussian of half of that, others their neighbours; or
        radii by range, as in ``{"secreted": 200, "contact": 20}``.
    within_spot
        Ligand in the spot itself counts as one neighbour more: for spots that hold many cells. What cells and
        measurement share within a spot then counts as well.
    barrier
        ``"sme"``: links are weakened where the S x M x E weights of ``sm.fuse`` say that tissue changes, cut below a
        twentieth; longer links by the most open way. Or a key of ``obsp`` with weights of your own.
    adjust
        What is regressed out of both partners first: ``"library"`` (log of the counts of a spot) and columns of ``obs``
        (``"domain"``, ``"cell_type"``); pairs then must lie together beyond what these explain. ``"auto"``: nothing,
        the library, or library and ``obs["domain"]`` - the first with which the test holds on pairs made independent
        on purpose (lambda from 0.9 to 1.1, give or take two standard errors). ``"spatial"`` only.
    correlograms_by
        Column of ``obs`` (``"domain"``): smoothness is measured within each of its values, where tissue is coarse in
        one part and fine in another; the sections of ``batch_key`` by default. ``"spatial"`` only.
    batch_key
        Column of ``obs`` with the section of each spot: links stay within sections, their means are taken off.
    organism
        Whose pairs ``pairs=None`` means: ``"human"``, ``"mouse"`` or ``"auto"``, those of which more are here.
    local
        ``"significant"``: also the spots where significant pairs lie together; ``"none"``.
    decoys
        Also test pairs of genes that are in no pair, for ``lambda_decoy`` (``"spatial"`` only).
    min_spots
        Partners seen in fewer spots are not tested.
    layer
        Layer that holds the counts; ``X`` by default.
    key_added
        Key in ``uns`` and prefix in ``obsm``.
    seed
        Seed of surrogates, decoys and statistics that permute.

    Writes
    ------
    ``uns["interactions"]`` (the table: ``ligand``, ``receptor``, ``range``, ``effect``, ``zscore``, one-sided
    ``pvalue``, ``qvalue`` of Benjamini & Hochberg, ``n_spots_significant``); ``uns["interactions_qq"]`` (p-values of
    pairs, surrogates and decoys against those expected); ``obsm["interactions_score"]`` CSR [n_obs, k], receptor times
    ligand around it for the table's first k rows, the significant pairs, at most 200;
    ``obsm["interactions_local"]`` CSR [n_obs, n_significant], the same in the spots that are significant (FDR over
    selected pairs by Benjamini & Bogomolov 2014), 0 elsewhere; neighbours in ``obsp`` where there were none. With
    ``"gnn"`` also ``uns["interactions_gnn"]``: ``ligand``, ``receptor``, ``sender`` and ``receiver`` (labels of
    ``obs["cell_type"]``, else ``obs["domain"]``), ``gain`` (adding up to the pair's ``effect``) and the best predicted
    ``genes``.

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
    adjust = () if adjust is None else adjust
    _check_choices(statistic, local, organism, adjust, correlograms_by, seed)
    order = _adapt.canonical_order(adata)
    asked = None if pairs is None else _resource.checked(pairs)
    spelled, n_asked, present = _lr_inputs.matched(asked, adata, organism)
    outside = _lr_inputs.outside(asked if asked is not None else _resource.everything(), adata.var_names)
    background = bool(lr_stats[statistic].facts.get("background"))
    wanted, outside = _lr_inputs.looked_at(adata, present, outside, background)
    values = _lr_inputs.expressed(adata, layer, order, wanted)
    genes, units = _lr_inputs.units(values.genes, present, adata.var_names)
    # the pairs' genes are in ``genes`` now: of a million cells a second copy of them is most of a gigabyte
    values = replace(values, genes=rows.only_columns(values.genes, outside))
    index = np.array([[units[a], units[b]] for a, b in zip(present["ligand"], present["receptor"])], dtype=np.intp)
    apart = np.array(
        [not set(a.split(JOIN)) & set(b.split(JOIN)) for a, b in zip(present["ligand"], present["receptor"])]
    )
    kept = (np.diff(genes.indptr) >= min_spots)[index].all(axis=1) & apart
    index, tested = index[kept], present[kept].reset_index(drop=True)
    section = _adapt.sections(adata, batch_key)[0][order]
    part = _lr_inputs.regions(adata, correlograms_by or batch_key, order, FEWEST_IN_REGION)
    xy = _lr_inputs.apart(_adapt.xy_um(adata)[order], section)
    reach = _links.links(
        xy, section, radius_um=radius_um, within_spot=within_spot, barrier=_links.barrier(adata, barrier, order)
    )
    if statistic == "spatial":
        _say_memory(pairtest.gigabytes(adata.n_obs, len(np.unique(index[:, 1]))))
    task = _Task(statistic, genes, xy, section, part, seed)
    bases = {
        c: _lr_inputs.basis(adata, c, values.library, order, section) for c in _candidates(adata, adjust, statistic)
    }
    more = _lr_inputs.more(adata, lr_stats[statistic].facts, values, order, outside)
    where = tested["range"].map(reach.__getitem__).tolist() if len(tested) else []
    found, adjusted = task.calibrated(index, where, bases, more.options) if len(index) else (None, ())
    fake = None
    if found is not None and decoys and statistic == "spatial":
        fake = task.decoys(index, reach["unknown"], bases[adjusted], values.genes, outside)
    table = _table(tested, found)
    lambda_ = surrogates.inflation(found.surrogates) if found is not None and found.surrogates is not None else np.nan
    lambda_decoy = float("nan") if fake is None else surrogates.inflation(fake)
    _self_check.say(found.surrogates if found else None, statistic == "spatial" and found is not None, adata)
    rank = np.lexsort((table["receptor"], table["ligand"], -table["zscore"], table["pvalue"]))
    table = table.iloc[rank].reset_index(drop=True)
    for kind in ("local", "score"):
        adata.obsm.pop(f"{key_added}_{kind}", None)
    if key_added == _keys.INTERACTIONS:
        adata.uns.pop(_keys.CELLTYPE_INTERACTIONS, None)  # it was made of other pairs
    if local == "significant":
        number, calls, score = _local(genes, index[rank], [where[i] for i in rank], table, found, rank)
        table["n_spots_significant"] = number
        for kind, values in (("local", calls), ("score", score)):
            if values.shape[1]:
                adata.obsm[f"{key_added}_{kind}"] = values[np.argsort(order)].tocsr()
    _links.store(adata, xy, section, order)
    adata.uns[key_added] = table
    _lr_inputs.store_by_type(adata, key_added, found, tested, more.types, adata.var_names[outside])
    sets = {"pairs": table["pvalue"].to_numpy(), "surrogates": found.surrogates if found else None, "decoys": fake}
    adata.uns[f"{key_added}_qq"] = _self_check.curves(sets)
    n_missing, n_same, n_rare = n_asked - len(present), int((~apart).sum()), int((apart & ~kept).sum())
    params = {
        "statistic": statistic, "radius_um": radius_um, "within_spot": within_spot, "barrier": barrier,
        "adjust": list(adjusted), "correlograms_by": correlograms_by, "local": local, "min_spots": min_spots,
        "lambda_surrogate": lambda_, "lambda_holds": not _self_check.off(found.surrogates if found else None),
        "lambda_decoy": lambda_decoy, "n_tested": len(table), "n_missing": n_missing,
        "n_rare": n_rare, "n_same": n_same, "fdr": FDR,
    }  # fmt: skip
    inputs = {
        "layer": layer or "X", "pairs": "smeld" if asked is None else "given", "names": spelled, "batch_key": batch_key,
    }  # fmt: skip
    _keys.record(adata, key_added, function="sm.tl.interactions", params=params, seed=seed, inputs=inputs)
    return Interactions(table, lambda_, lambda_decoy, n_missing, n_rare, n_same, adjusted)


def _check_choices(
    statistic: str, local: str, organism: str, adjust: Sequence[str] | str, correlograms_by: str | None, seed: int
) -> None:
    if not (isinstance(seed, int | np.integer) and seed >= 0):
        raise _check.problem("seed must be a whole number of at least 0", found=f"{seed!r}")
    if statistic not in lr_stats:
        raise _check.unknown("interaction statistic", statistic, lr_stats)
    if local not in ("significant", "none"):
        raise _check.unknown("local", local, ("significant", "none"))
    if organism not in ("auto", *_resource.ORGANISMS):
        raise _check.unknown("organism", organism, ("auto", *_resource.ORGANISMS))
    if statistic != "spatial" and (adjust not in ("auto", ()) or correlograms_by is not None):
        raise _check.problem(
            "only statistic='spatial' adjusts and measures smoothness",
            found=f"statistic={statistic!r}",
            cure="leave adjust and correlograms_by out",
        )


@dataclass(frozen=True)
class _Task:
    """What all tests of one call share."""

    statistic: str
    genes: sparse.csc_matrix
    xy: Float
    section: NDArray[np.intp]
    part: NDArray[np.intp] | None
    seed: int
    #: what takes long and depends on neighbours alone, by these
    made: dict[int, pairtest.Section] = field(default_factory=dict)

    def calibrated(
        self,
        index: NDArray[np.intp],
        where: list[sparse.csr_matrix],
        bases: Bases,
        more: Mapping[str, Any],
    ) -> tuple[LRResult, tuple[str, ...]]:
        """The first of ``bases`` with which the test holds on surrogates, or the one with which it holds best;
        ``where`` the averages over neighbours of every pair."""
        tried: dict[tuple[str, ...], LRResult] = {}
        for name, basis in bases.items():
            tried[name] = self._by_reach(index, where, basis, more)
            if not _self_check.off(tried[name].surrogates):
                return tried[name], name
        best = min(tried, key=lambda name: _self_check.off(tried[name].surrogates))
        return tried[best], best

    def _by_reach(
        self,
        index: NDArray[np.intp],
        where: list[sparse.csr_matrix],
        basis: Float | None,
        more: Mapping[str, Any],
    ) -> LRResult:
        """Pairs of one reach are tested together."""
        groups: dict[int, list[int]] = {}
        for i, weights in enumerate(where):
            groups.setdefault(id(weights), []).append(i)
        parts = [(rows, self._test(index[rows], where[rows[0]], basis, more)) for rows in groups.values()]
        if len(parts) == 1:
            return parts[0][1]
        back = np.argsort(np.concatenate([rows for rows, _ in parts]))
        results = [r for _, r in parts]
        effect, z, p = (np.concatenate([getattr(r, n) for r in results])[back] for n in ("effect", "zscore", "pvalue"))
        null = [r.surrogates for r in results if r.surrogates is not None and r.surrogates.size]
        turns = min((len(p) for p in null), default=0)
        calls = [r.local for r in results if r.local is not None]
        merged = LRResult(
            effect,
            z,
            p,
            surrogates=np.concatenate([p[:turns] for p in null], axis=1) if null else None,
            local=sparse.csr_matrix(sparse.hstack(calls, format="csc")[:, back]) if calls else None,
        )
        return _lr_inputs.joined(merged, parts)

    def _test(
        self,
        index: NDArray[np.intp],
        weights: sparse.csr_matrix,
        basis: Float | None,
        more: Mapping[str, Any],
        **options: Any,
    ) -> LRResult:
        card = lr_stats[self.statistic]
        if self.statistic == "spatial":
            if id(weights) not in self.made:
                self.made[id(weights)] = pairtest.section(self.xy, weights, self.part)
            options |= {"basis": basis, "part": self.part, "section": self.section if self.section.any() else None}
            options["made"] = self.made[id(weights)]
        elif card.facts.get("state"):
            options["section"] = self.section
        return card.func(self.genes, index, weights, self.xy, seed=self.seed, **options, **more)

    def decoys(
        self,
        index: NDArray[np.intp],
        weights: sparse.csr_matrix,
        basis: Float | None,
        everything: sparse.csc_matrix,
        outside: NDArray[np.intp],
    ) -> Float | None:
        """p-values of pairs of genes that are in no pair."""
        made = _self_check.decoys(self.genes, index, everything, outside, weights, self.seed)
        if made is None:
            return None
        fake = replace(self, genes=made[0])
        return np.asarray(fake._test(made[1], weights, basis, {}, surrogates=False).pvalue)


def _candidates(adata: Any, adjust: Sequence[str] | Literal["auto"], statistic: str) -> tuple[tuple[str, ...], ...]:
    """What may be regressed out, simplest first."""
    if adjust != "auto":
        return ((adjust,) if isinstance(adjust, str) else tuple(adjust),)
    if statistic != "spatial":
        return ((),)
    domain = (("library", _keys.DOMAIN),) if _keys.DOMAIN in adata.obs else ()
    return ((), ("library",), *domain)


def _table(tested: pd.DataFrame, found: LRResult | None) -> pd.DataFrame:
    table = tested[["ligand", "receptor", "range"]].copy()
    for name in ("effect", "zscore", "pvalue"):
        table[name] = getattr(found, name) if found is not None else np.zeros(0)
    table["qvalue"] = localp.adjusted(table["pvalue"].to_numpy())
    table["n_spots_significant"] = 0
    return table[COLUMNS]


def _local(
    genes: sparse.csc_matrix,
    index: NDArray[np.intp],
    where: list[sparse.csr_matrix],
    table: pd.DataFrame,
    found: LRResult | None,
    rank: NDArray[np.intp],
) -> tuple[NDArray[np.int64], sparse.csr_matrix, sparse.csr_matrix]:
    """Significant spots of the R significant pairs of m (the table's first rows), BH over spots at FDR R / m, or by the
    statistic's own rule; and the score in every spot."""
    n_selected, m = int((table["qvalue"] <= FDR).sum()), max(len(table), 1)
    number, calls, scores = np.zeros(len(table), dtype=np.int64), [], []
    given = None if found is None or found.local is None else found.local.tocsc()
    for i in range(len(table) if given is not None else n_selected):
        if i < n_selected:
            around = np.asarray(where[i] @ genes[:, [index[i, 0]]].toarray()).ravel()
            own = genes[:, [index[i, 1]]].toarray().ravel()
            score = own * around
            if i < MOST_SCORED:
                scores.append(sparse.csc_matrix(score[:, None]))
        if given is not None:
            called = given[:, [rank[i]]]
        else:
            q = localp.adjusted(localp.product_pvalues(own, around))
            called = sparse.csc_matrix(np.where(q <= FDR * n_selected / m, score, 0.0)[:, None])
        number[i] = int((called.data > 0).sum())
        if i < n_selected:
            calls.append(called)
    empty = sparse.csr_matrix((genes.shape[0], 0))
    both = (sparse.csr_matrix(sparse.hstack(c, format="csr")) if c else empty for c in (calls, scores))
    return number, *both


def _say_memory(needed: float) -> None:
    """Refuse what would not fit; say what takes much."""
    there = _progress.available_gb()
    if there is not None and needed > there:
        raise _check.problem(
            f"testing these pairs needs about {needed:.1f} GB of memory",
            found=f"{there:.1f} GB to be had",
            cure="give fewer pairs at a time with pairs=, or one section at a time",
        )
    if needed > SAID_GB:
        _progress.tell(f"testing these pairs takes about {needed:.1f} GB of memory")
