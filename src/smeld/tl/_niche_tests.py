"""Types split into states by their niche, with tests, and what lies beside and differs within each state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from smeld import _adapt, _check, _keys
from smeld._progress import track
from smeld.kernels import alongpath, expression, pairtest
from smeld.kernels import niches as kernel
from smeld.tl import _niches

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Int = NDArray[np.intp]
Bool = NDArray[np.bool_]

#: a niche holds a state of a type if this many of the type's cells lie there, and this share of them
LEAST_CELLS, LEAST_SHARE = 20, 0.05
STATES = ["cell_type", "n_cells", "n_states", "states", "pvalue", "qvalue", "split"]
NEIGHBORS = ["cell_type", "state", "neighbor", "share", "share_elsewhere", "log2_ratio", "effect", "pvalue", "qvalue"]
GENES = ["cell_type", "state", "gene", "mean", "mean_elsewhere", "effect", "zscore", "pvalue", "qvalue", "spill"]


@dataclass(frozen=True)
class NicheStates:
    """``labels`` by cell ("T1:N2", or the type alone where it is not split); ``table``, a row a type; ``neighbors`` and
    ``genes`` that differ between states."""

    labels: pd.Series
    table: pd.DataFrame
    neighbors: pd.DataFrame
    genes: pd.DataFrame


@dataclass(frozen=True)
class _Type:
    """One type: its number, name, the numbers of the ``cells`` in ``niches`` that hold a state, and which of these
    every cell is in (int [n_cells], into ``niches``)."""

    number: int
    name: str
    cells: Int
    niches: Int
    state: Int


def niche_states(
    data: Any,
    niche: str = _niches.NICHE,
    *,
    layer: str | None = None,
    genes: bool = True,
    n_genes: int = 50,
    fdr: float = 0.05,
    key_added: str = "niche_state",
    seed: int = 0,
) -> NicheStates:
    """Split types into states by the niche their cells lie in, where that is more than chance. Works in place.

    Any map can be cut in parts that differ. So the niches are made again without the type itself and one other at a
    time (of more than 12: a sixth of them), and that other, which had no say, must follow them among the cells around
    the type that is split. It is regressed on niche membership beside a smooth field whose strength and range are its
    own (``kernels.alongpath``): null is that every type keeps patches of its own, as smooth as they are, which have
    nothing to do with one another. One p a type by Benjamini and Yekutieli, Benjamini-Hochberg over types. Four types
    are needed, and niches that differ in a single type are not believed in. Cells fill space: where one type is dense
    others are few, though nothing binds them. That is not taken off, and weighs more the more cells there are; how
    often types are split by chance has not been measured for this combination: p is a ranking (docs/celltypes.md).

    Genes are tested in the type's own cells, regressed on niche membership in the same way. Membership comes from the
    labels of neighbours, not from the cell's own counts, which enter once: they made the cell's type. If labels were
    smoothed over space, or a type's clusters follow niches already, genes are tested on what they made, and p is too
    small. Transcripts of neighbours that were assigned to the cell make genes differ, too: see ``spill``.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table, after ``sm.tl.niches`` on a column of labels.
    niche
        Prefix of the niches, as ``key_added`` of ``sm.tl.niches``; surroundings are as they were there.
    layer
        Layer that holds the counts; ``X`` by default.
    genes
        Whether genes are tested.
    n_genes
        Genes kept for each state, those of lowest p.
    fdr
        False discovery rate at which types are split.
    key_added
        Column of ``obs`` and prefix in ``uns``.
    seed
        Seed of the niches that are made again.

    Writes
    ------
    ``obs["niche_state"]`` (categorical), and in ``uns``:

    - ``niche_states``, a row a type: ``cell_type``, ``n_cells``, ``n_states`` (niches with 20 of its cells or more, and
      5 % of them), ``states``, ``pvalue``, ``qvalue`` (NaN where there is one state), ``split``;
    - ``niche_state_neighbors``, a row a neighbouring type of a state of a split type: ``share`` among the neighbours of
      the state's cells, ``share_elsewhere`` among those of the type's other states, ``log2_ratio``, ``effect``
      (correlation with membership in niches made without it), ``pvalue``, ``qvalue`` (over the table);
    - ``niche_state_genes``: ``mean`` of log-normalised counts in the state, ``mean_elsewhere``, ``effect``, ``zscore``,
      ``pvalue``, ``qvalue`` (over all genes and states tested), and ``spill``: cells of other types around have more of
      the gene than the cell itself and differ in the same direction, so that misassigned transcripts may be it all.

    Returns
    -------
    The same as a frozen :class:`NicheStates`.

    Raises
    ------
    InputError
        If there are no niches, or they were made of proportions: spots hold several types.

    Examples
    --------
    >>> import smeld as sm
    >>> cells = sm.datasets.simulate_niches(1500, 40, seed=0)
    >>> found = sm.tl.niches(cells, "truth_cell_type", n_niches=3)
    >>> states = sm.tl.niche_states(cells, genes=False)
    >>> bool(states.table.set_index("cell_type").loc["T1", "split"])
    True

    References
    ----------
    Combination of p: Benjamini and Yekutieli, Annals of Statistics 29 (2001) 1165.
    Restricted likelihood: Patterson and Thompson, Biometrika 58 (1971) 545.
    """
    import pandas as pd

    adata = _adapt.table(data)
    if not 0 < fdr <= 1:
        raise _check.problem("fdr must lie above 0 and up to 1", found=str(fdr))
    made, prob, niche_names, groups = _inputs(adata, niche)
    types = _types(made, prob)
    pvalue, tests = _tested(made, prob, types, seed)
    table = _state_table(made, types, niche_names, pvalue, fdr)
    split = [t for t in types if table["split"].iloc[t.number]]
    labels = np.empty(len(made.order), dtype=object)
    labels[made.order] = _labels(made, prob, split, niche_names)
    neighbors = _neighbors(made, split, tests, niche_names)
    found = pd.DataFrame(columns=GENES)
    if genes and split:
        found = _genes(adata, made, prob, split, niche_names, (layer, n_genes))
    adata.obs[key_added] = pd.Categorical(labels)
    for suffix, value in (("s", table), ("_neighbors", neighbors), ("_genes", found)):
        adata.uns[key_added + suffix] = value
    params = {"fdr": fdr, "n_split": len(split), "n_genes": n_genes if genes else 0}
    inputs = {"niche": niche, "groups": groups, "layer": layer}
    _keys.record(adata, key_added, function="sm.tl.niche_states", params=params, seed=seed, inputs=inputs)
    return NicheStates(adata.obs[key_added], table, neighbors, found)


def _inputs(adata: Any, niche: str) -> tuple[_niches.Around, Float, list[str], str]:
    """Surroundings as ``sm.tl.niches`` saw them, membership in canonical order, names of niches, column of types."""
    record = adata.uns.get(_keys.RECORD, {}).get(niche, {})
    key = niche + _keys.PROB_SUFFIX
    if record.get("function") != "sm.tl.niches" or key not in adata.obsm:
        raise _check.problem(
            "there are no niches", found=f"obsm has {_check.listed(adata.obsm)}", cure="run sm.tl.niches(adata) first"
        )
    groups, batch_key = str(record["inputs"]["groups"]), str(record["inputs"]["batch_key"])
    if groups + _niches.PROPORTIONS_SUFFIX in adata.obsm:
        raise _check.problem(
            "states need one type a cell", found="proportions of types by spot",
            cure="run sm.tl.niches on a column of labels without proportions beside it",
        )  # fmt: skip
    radius = record["params"]["radius_um"]
    made = _niches.around(
        adata,
        groups,
        radius_um=None if str(radius) == "none" else float(radius),
        n_neighbors=int(record["params"]["n_neighbors"]),
        batch_key=None if batch_key == "none" else batch_key,
        key_added=niche,
    )
    table = adata.obsm[key]
    return made, _adapt.ordered(table, made.order), [str(c) for c in table.columns], groups


def _types(made: _niches.Around, prob: Float) -> list[_Type]:
    """Every type with the niches that hold a state of it."""
    nearest, out = prob.argmax(axis=1), []
    for number, name in enumerate(made.names):
        cells = np.flatnonzero(made.membership[:, number] > 0)
        size = np.bincount(nearest[cells], minlength=prob.shape[1])
        held = np.flatnonzero(size >= max(LEAST_CELLS, LEAST_SHARE * len(cells)))
        within = cells[np.isin(nearest[cells], held)]
        out.append(_Type(number, name, within, held, np.searchsorted(held, nearest[within])))
    return out


def _tested(
    made: _niches.Around, prob: Float, types: list[_Type], seed: int
) -> tuple[Float, dict[int, kernel.Together]]:
    """(p by type, NaN for those in one niche; tests of its neighbours by number of the type)."""
    pvalue = np.full(len(types), np.nan)
    tests: dict[int, kernel.Together] = {}
    several = [t for t in types if len(t.niches) > 1]
    if not several:
        return pvalue, tests
    seed_halves, *seeds = np.random.SeedSequence(seed).spawn(1 + len(several))
    around = kernel.seen(made.operator, made.membership, np.random.default_rng(seed_halves))
    labelled = made.membership.any(axis=1)
    for kind, child in track(list(zip(several, seeds)), "types and their surroundings"):
        near = np.zeros(len(prob))
        near[kind.cells] = 1.0
        rows = np.flatnonzero((made.graph @ near > 0) & labelled & (made.membership[:, kind.number] == 0))
        asked = np.flatnonzero(made.membership[rows].sum(axis=0) >= LEAST_CELLS)
        this = kernel.Kind(kind.number, rows, asked, prob[rows][:, kind.niches])
        found = kernel.together(made.xy_um, made.membership, around, this, section=made.section, seed=child)
        tests[kind.number], pvalue[kind.number] = found, kernel.combined(found.pvalue)
    return pvalue, tests


def _adjusted(pvalue: Float) -> Float:
    """Benjamini-Hochberg over the p-values that are known."""
    out, known = np.full(len(pvalue), np.nan), np.isfinite(pvalue)
    out[known] = stats.false_discovery_control(pvalue[known]) if known.any() else 0.0
    return out


def _state_table(
    made: _niches.Around, types: list[_Type], niche_names: list[str], pvalue: Float, fdr: float
) -> pd.DataFrame:
    import pandas as pd

    qvalue = _adjusted(pvalue)
    size = made.membership.sum(axis=0).astype(np.intp)
    names = [",".join(niche_names[c] for c in t.niches) for t in types]
    columns = [made.names, size, [len(t.niches) for t in types], names, pvalue, qvalue, qvalue <= fdr]
    return pd.DataFrame(dict(zip(STATES, columns)))


def _labels(made: _niches.Around, prob: Float, split: list[_Type], niche_names: list[str]) -> list[str | None]:
    """The state of every cell: of split types the likeliest of the niches that hold one."""
    known = made.membership.sum(axis=1) > 0
    labels = [made.names[t] if k else None for t, k in zip(made.membership.argmax(axis=1), known)]
    for kind in split:
        for i in np.flatnonzero(made.membership[:, kind.number] > 0):
            labels[i] = f"{kind.name}:{niche_names[kind.niches[prob[i, kind.niches].argmax()]]}"
    return labels


def _neighbors(
    made: _niches.Around, split: list[_Type], tests: Mapping[int, kernel.Together], niche_names: list[str]
) -> pd.DataFrame:
    """How often other types lie beside the cells of each state."""
    import pandas as pd

    rows = []
    for kind in split:
        beside = np.asarray(made.graph[kind.cells] @ made.membership)
        beside[:, kind.number] = 0.0
        number = np.stack([beside[kind.state == s].sum(axis=0) for s in range(len(kind.niches))])
        for s, c in enumerate(kind.niches):
            here, there = number[s], number.sum(axis=0) - number[s]
            share, elsewhere = here / max(here.sum(), 1.0), there / max(there.sum(), 1.0)
            ratio = np.log2((here + 0.5) / (here.sum() + 1) / ((there + 0.5) / (there.sum() + 1)))
            found = tests[kind.number]
            for u in np.flatnonzero(np.isfinite(found.pvalue)):
                values = (share[u], elsewhere[u], ratio[u], found.effect[u, s], found.of_niche[u, s])
                rows.append((kind.name, f"{kind.name}:{niche_names[c]}", made.names[u], *values))
    table = pd.DataFrame(rows, columns=NEIGHBORS[:-1])
    table["qvalue"] = _adjusted(table["pvalue"].to_numpy(dtype=np.float64))
    return table


def _genes(
    adata: Any, made: _niches.Around, prob: Float, split: list[_Type], niche_names: list[str],
    settings: tuple[str | None, int],
) -> pd.DataFrame:  # fmt: skip
    """Genes of each state, against the type's other states."""
    import pandas as pd

    layer, n_genes = settings
    counts = _adapt.counts(adata, layer)[made.order]
    logged = counts if _adapt.look_logged(counts) else expression.log_normalise(counts)
    logged = sparse.csr_matrix(logged, dtype=np.float64)
    parts = []
    for kind in track(split, "genes of states"):
        own = sparse.csc_matrix(logged[kind.cells])
        columns = np.flatnonzero(np.diff(own.indptr) >= LEAST_CELLS)
        covariates = [prob[kind.cells, c] for c in kind.niches]
        fields = pairtest.Genes(sparse.csc_matrix(own[:, columns]))
        found = alongpath.test(
            made.xy_um[kind.cells], fields, len(columns), covariates, section=made.section[kind.cells]
        )
        for s, c in enumerate(kind.niches):
            here, there, spill = _means(made, logged, kind, s)
            values = [here[columns], there[columns], found.effect[s], found.zscore[s], found.pvalue[s], np.nan]
            names = [kind.name, f"{kind.name}:{niche_names[c]}", adata.var_names[columns].astype(str)]
            parts.append(pd.DataFrame(dict(zip(GENES, [*names, *values, spill[columns]]))))
    table = pd.concat(parts, ignore_index=True)
    table["qvalue"] = _adjusted(table["pvalue"].to_numpy())
    table = table.sort_values(["pvalue"], kind="stable")
    table["rank"] = table.groupby("state", sort=False).cumcount()
    table = table[table["rank"] < n_genes].drop(columns="rank")
    return table.sort_values(["state", "pvalue"], kind="stable", ignore_index=True)


def _means(made: _niches.Around, logged: sparse.csr_matrix, kind: _Type, s: int) -> tuple[Float, Float, Bool]:
    """(mean of genes in the state, in the type's other states, whether neighbours' transcripts may make the
    difference)."""
    others = made.membership[:, kind.number] == 0
    own, around = [], []
    for cells in (kind.cells[kind.state == s], kind.cells[kind.state != s]):
        own.append(np.asarray(logged[cells].mean(axis=0)).ravel())
        weight = np.asarray(made.graph[cells].sum(axis=0)).ravel() * others
        around.append((logged.T @ weight) / max(float(weight.sum()), 1.0))
    up, up_around = own[0] > own[1], around[0] > around[1]
    more = np.where(up, around[0] > own[0], around[1] > own[1])
    return own[0], own[1], np.asarray((up == up_around) & more)
