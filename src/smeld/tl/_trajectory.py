"""Order of the cells from a root, in expression and in space at once, with intervals, a tree of groups and fates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csgraph

from smeld import _adapt, _check, _keys
from smeld._progress import track
from smeld.kernels import lineage, ordering, ordering_evidence
from smeld.kernels.ordering import Candidate
from smeld.kernels.ordering_evidence import Evidence, Points
from smeld.tl import _lineage
from smeld.tl import _trajectory_inputs as _inputs
from smeld.tl._domains import _keep_given
from smeld.tl._root import Root, Start
from smeld.tl._trajectory_inputs import Part, Section

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]

#: shares of steps in space that are looked at; 0 would leave parts of a section unreached. The last is space alone, and
#: beside it what takes its place where space alone does not join the section
SHARES, NEARLY_ALONE = (0.02, 0.25, 0.5, 0.75, 0.9, 1.0), 0.98
#: neighbours in expression, as shares of the points, and the fewest; and how strongly values are smoothed, in multiples
#: of what the fusion chose, which is best for domains and may smear a fold
NEIGHBORS, FEWEST, SMOOTHING = (1 / 32, 1 / 8), 10, (1.0, 1 / 3)
#: an interval reaches so many standard deviations of the bootstrap, of no less than this. The bootstrap does not know
#: how a true order differs from any that can be told from the data: its own quantiles cover 53 to 64 %. Set on
#: simulated sections other than those of docs/benchmarks.md
REACH, LEAST_SD = 2.5, 0.02


@dataclass(frozen=True)
class Trajectory:
    """``pseudotime``, ``low`` and ``high`` by cell (NaN where the root does not lead), ``root`` in words, ``evidence``
    by way of ordering, ``nodes`` and ``edges`` of the graph of groups, ``fates`` [n_obs, n_terminals], ``n_missing``
    cells without pseudotime, and ``expression_helps``: whether expression predicts what space alone does not (None
    with ``balance``)."""

    pseudotime: pd.Series
    low: pd.Series
    high: pd.Series
    root: str
    evidence: pd.DataFrame
    nodes: pd.DataFrame
    edges: pd.DataFrame
    fates: pd.DataFrame
    n_missing: int
    expression_helps: bool | None


def trajectory(
    data: Any,
    root: Root = "auto",
    *,
    groups: str = _keys.DOMAIN,
    within: str | None = None,
    balance: float | None = None,
    n_bootstraps: int = 40,
    use_rep: str | None = None,
    layer: str | None = None,
    batch_key: str | None = None,
    key_added: str | None = None,
    seed: int = 0,
) -> Trajectory:
    """Order cells from a root by how they change in expression and lie in space. Works in place.

    Random walks that step along the S x M x E graph or between cells alike in expression lead from the root to every
    cell. How large a share of steps goes along space, over how many neighbours in expression, and how strongly
    expression is smoothed is decided by expression itself: half of the section is hidden, the order found without it,
    and what the order says of the hidden half compared with its expression. Of shares of space that predict about as
    well the largest is taken, and space alone where expression adds nothing to it.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table. ``sm.fuse`` is run first if nothing is fused yet.
    root
        Where it begins: a label of ``groups``, a gene (the 5 % of cells with most of it), a cell, a list of cells, a
        boolean mask [n_obs], or ``"auto"``: the group whose cells express more genes than their library size explains.
        A name that could be two of these is refused; ``"label:X"``, ``"gene:X"`` and ``"cell:X"`` say which.
    groups
        Column of ``obs`` whose labels are the nodes of the graph (``sm.tl.domains`` or your own).
    within
        Label of ``groups``: only its cells are ordered (the local level). A ``root`` that is another label then means
        those of its cells that touch that one.
    balance
        Share of steps in space, 0..1 (no less than 0.02 is used); None: by the evidence.
    n_bootstraps
        Draws of spatial blocks for intervals and for the support of edges; at least 2.
    use_rep
        Key in ``obsm``; the fused embedding by default.
    layer
        Layer that holds the counts, for a ``root`` that is a gene or ``"auto"``; ``X`` by default.
    batch_key
        Column of ``obs`` with the section of every cell; steps in space never leave a section.
    key_added
        Prefix of what is written; ``"pseudotime"``, or ``"pseudotime_<label>"`` with ``within``.
    seed
        Seed of the hidden half and of the bootstrap.

    Writes
    ------
    ``obs["pseudotime"]`` in [0, 1] (ranks), ``obs["pseudotime_low"]``, ``obs["pseudotime_high"]`` (90 %),
    ``obs["pseudotime_branch"]``, ``obs["pseudotime_root"]`` (bool), ``obsm["pseudotime_fates"]`` (DataFrame
    [n_obs, n_terminals], chances), ``obsm["pseudotime_direction"]`` [n_obs, 2] (gradient, per um),
    ``uns["pseudotime_evidence"]``, ``uns["pseudotime_nodes"]``, ``uns["pseudotime_edges"]`` (tables),
    ``uns["pseudotime_potency"]`` with ``"auto"``, and for scanpy ``obs["dpt_pseudotime"]`` and ``uns["paga"]`` (with
    the default ``key_added``, unless they are there and not smeld's).

    Returns
    -------
    The same as a frozen :class:`Trajectory`.

    Raises
    ------
    InputError
        For a root that is not there, means two things or is the whole section; labels or positions that are missing.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, image=False, seed=1)
    >>> found = sm.tl.trajectory(adata, "D1", groups="truth_domain", n_bootstraps=4)
    >>> bool(adata.obs["pseudotime"].between(0, 1).all())
    True

    References
    ----------
    Pham et al. 2023, doi:10.1038/s41467-023-43120-6 (pseudo-time-space); Haghverdi et al. 2016, doi:10.1038/nmeth.3971;
    von Luxburg, Radl & Hein, JMLR 15 (2014) 1751.
    """
    adata = _adapt.table(data)
    _check_settings(adata, groups, within, balance, n_bootstraps)
    key = key_added or (_keys.PSEUDOTIME if within is None else f"{_keys.PSEUDOTIME}_{within.replace('/', '_')}")
    _keep_given(adata, key)
    section = _inputs.section(adata, use_rep, batch_key, seed)
    chosen = _inputs.within(adata, section, groups, within)
    begins = _inputs.begin(adata, root, groups, within, section, layer)
    part = _inputs.part(section, chosen, begins)
    seeds = np.random.SeedSequence(seed).spawn(2)
    candidates = _candidates(balance, part.points)
    evidence = ordering_evidence.weigh(part.points, candidates, np.random.default_rng(seeds[0]))
    orders = part.points.orders(part.points.size, candidates)
    made = _lineage.Tree(adata, groups, part.rows, part.made, part.points, section.weights_of(part.rows))
    point_order = ordering.ranks(evidence.weight @ orders, part.points.size)
    draws = _bootstrapped(part, candidates, evidence, n_bootstraps, np.random.default_rng(seeds[1]))
    order = ordering.ranks(part.back @ (evidence.weight @ orders), np.ones(len(part.rows)))
    spread = _spread(part, draws, order)
    table = _evidence_table(candidates, evidence)
    helps = None if balance is not None else evidence.helps
    tree = made.grown(point_order, draws)
    _warn(adata, section, part, groups, helps)
    _write(adata, key, part, section, order, spread, tree, table, begins)
    _record(adata, key, begins, part, evidence, candidates, seed, locals())
    return Trajectory(
        adata.obs[key],
        adata.obs[f"{key}_low"],
        adata.obs[f"{key}_high"],
        begins.words,
        table,
        tree.nodes,
        tree.edges,
        adata.obsm[f"{key}_fates"],
        int(adata.obs[key].isna().sum()),
        helps,
    )


def _check_settings(adata: Any, groups: str, within: str | None, balance: float | None, n_bootstraps: int) -> None:
    _check.require(adata.obs, groups, "obs", "run sm.tl.domains(adata) first, or name a column of labels with groups=")
    if balance is not None and not 0 <= balance <= 1:
        raise _check.problem("balance is the share of steps in space, 0 to 1", found=str(balance))
    if not isinstance(n_bootstraps, int | np.integer) or n_bootstraps < 2:
        raise _check.problem("n_bootstraps must be a whole number of at least 2", found=str(n_bootstraps))
    if not _adapt.numbered(adata.obs[groups])[1]:
        raise _check.problem(f"obs[{groups!r}] holds no labels", cure="name a column of labels with groups=")
    if within is not None:
        names = _adapt.numbered(adata.obs[groups])[1]
        if within not in names:
            raise _check.unknown("label", within, names)


def _candidates(balance: float | None, points: Points) -> list[Candidate]:
    """All ways to order. By space alone neighbours in expression do not matter."""
    joined = csgraph.connected_components(points.space, directed=False)[0] == 1
    most = SHARES[-1] if joined else NEARLY_ALONE
    shares = [min(s, most) for s in SHARES] if balance is None else [float(np.clip(balance, SHARES[0], most))]
    near = sorted({max(FEWEST, round(share * len(points.size))) for share in NEIGHBORS})
    mixed = [Candidate(k, s, a) for s in shares if s < most for k in near for a in SMOOTHING]
    return mixed + [Candidate(near[0], s) for s in shares if s == most]


def _bootstrapped(
    part: Part, candidates: list[Candidate], evidence: Evidence, n: int, rng: np.random.Generator
) -> Float:
    """Orders of the points, ranks, from ``n`` draws of blocks; each by a candidate drawn as far as it may be right."""
    found = []
    for _ in track(range(n), "bootstrap"):
        chosen = candidates[int(rng.choice(len(candidates), p=evidence.doubt))]
        found.append(part.points.orders(ordering_evidence.drawn(part.points, rng), [chosen])[0])
    return np.stack(found)


def _spread(part: Part, draws: Float, order: Float) -> Float:
    """Root mean squared difference of the draws from the order, by cell."""
    total = np.zeros(len(order))
    for draw in draws:
        total += (ordering.ranks(part.back @ draw, np.ones(len(order))) - order) ** 2
    return np.asarray(np.sqrt(total / len(draws)))


# ------------------------------------------------------------------------------------------------- what is written


def _evidence_table(candidates: list[Candidate], evidence: Evidence) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {
            "n_neighbors": [c.n_neighbors for c in candidates],
            "space_share": [c.space for c in candidates],
            "smoothing": [c.smoothing for c in candidates],
            "predicted": evidence.predicted,
            "gain_over_space": evidence.predicted - evidence.predicted[evidence.space],
            "standard_error": evidence.error,
            "weight": evidence.weight,
        }
    )


def _warn(adata: Any, section: Section, part: Part, groups: str, helps: bool | None) -> None:
    if len(part.lost):
        label, names = _adapt.numbered(adata.obs[groups])
        which = label[section.order[part.lost]]
        counts = [f"{int((which == k).sum())} of {name}" for k, name in enumerate(names) if (which == k).any()]
        _check.warn(
            f"{len(part.lost)} cells are joined to the root neither in space nor in expression and have no pseudotime "
            f"(NaN): {_check.listed(counts)}.",
            adata,
            stacklevel=4,
        )
    if helps is False:
        _check.warn(
            "expression predicts hidden cells hardly better than distance along the tissue does: the order goes by "
            "space, and says little that the root and the section's shape do not.",
            adata,
            stacklevel=4,
        )


def _write(
    adata: Any,
    key: str,
    part: Part,
    section: Section,
    order: Float,
    spread: Float,
    tree: _lineage.Grown,
    table: pd.DataFrame,
    begins: Start,
) -> None:
    import pandas as pd

    at, n = section.order[part.rows], adata.n_obs
    reach = REACH * np.sqrt(spread**2 + LEAST_SD**2)
    for name, values in {key: order, f"{key}_low": order - reach, f"{key}_high": order + reach}.items():
        column = np.full(n, np.nan)
        column[at] = np.clip(values, 0.0, 1.0)
        adata.obs[name] = column
    root = np.zeros(n, dtype=bool)
    root[section.order] = begins.cells
    adata.obs[f"{key}_root"] = root
    branch = np.full(n, None, dtype=object)
    branch[at] = tree.branch
    adata.obs[f"{key}_branch"] = pd.Categorical(branch, categories=tree.branch_names)
    fates = np.full((n, tree.fates.shape[1]), np.nan)
    fates[at] = _extended(part, tree.fates)
    adata.obsm[f"{key}_fates"] = pd.DataFrame(fates, index=adata.obs_names, columns=tree.terminals)
    direction = np.zeros((n, 2))
    direction[at] = lineage.slopes(section.weights_of(part.rows), section.xy_um[part.rows], order)
    adata.obsm[f"{key}_direction"] = direction
    adata.uns[f"{key}_evidence"] = table
    adata.uns[f"{key}_nodes"], adata.uns[f"{key}_edges"] = tree.nodes, tree.edges
    adata.uns.pop(f"{key}_potency", None)
    if begins.potency is not None:
        adata.uns[f"{key}_potency"] = begins.potency
    if key == _keys.PSEUDOTIME:
        _lineage.for_scanpy(adata, tree)


def _extended(part: Part, fates: Float) -> Float:
    """Chances of the cells from those of points, where some are known."""
    found = np.asarray(part.back @ np.where(np.isfinite(fates), fates, 0.0))
    total = found.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(found, total, out=np.full_like(found, np.nan), where=total > 0))


def _record(
    adata: Any,
    key: str,
    begins: Start,
    part: Part,
    evidence: Evidence,
    candidates: list[Candidate],
    seed: int,
    asked: dict[str, Any],
) -> None:
    best = candidates[int(evidence.weight.argmax())]
    params = {
        "root": begins.words,
        "n_root": int(begins.cells.sum()),
        "n_points": len(part.made.at),
        "space_share": float(sum(w * c.space for w, c in zip(evidence.weight, candidates))),
        "best": f"{best.n_neighbors} neighbours, {best.space:g} of steps in space, smoothing x {best.smoothing:.2g}",
        "gain_of_expression": evidence.gain[0],
        "gain_standard_error": evidence.gain[1],
        **{name: asked[name] for name in ("balance", "n_bootstraps", "within", "helps")},
    }
    inputs = {name: asked[name] for name in ("groups", "use_rep", "layer", "batch_key")}
    _keys.record(adata, key, function="sm.tl.trajectory", params=params, seed=seed, inputs=inputs)
