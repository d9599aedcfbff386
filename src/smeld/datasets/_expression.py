"""From tissue and genes to counts: cell types, library sizes, covariates, interactions, sampling."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from smeld.datasets._genes import N_PROGRAMS, Genes
from smeld.datasets._plan import SECRETED_UM, Plan
from smeld.datasets._tissue import Place
from smeld.kernels import fields
from smeld.kernels.draws import negative_binomial_rows

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

#: share of the log library size's variance that is smooth over the tissue
_SMOOTH_LIBRARY = 0.4
#: share of a ligand's (log) variance that is smooth; the rest differs from cell to cell
_SMOOTH_LIGAND = 0.6
#: share of a receptor's (log) variance that the ligand's signal explains
_SIGNAL = 0.7
#: how steeply the answer downstream rises with the (log) receptor, whose variance is 1
_GATE = 2.0
#: how evenly a spot draws from its domain's mixture: larger is more even (Dirichlet concentration)
_SPOT_CONCENTRATION = 8.0
#: values in one block of counts: 16 MB of uniforms
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Cells:
    """The cell types of n observations."""

    cell_type: Ints  # [n], of the cell, or of most of the spot's cells
    shares: Doubles  # [n, n_cell_types]
    n_cells: Ints
    mixtures: Doubles  # [n_domains, n_cell_types]


def cell_types(plan: Plan, domain: Ints, mixtures: Doubles | None = None) -> Cells:
    """Each domain has its own mixture; cells draw their types from it independently: types are scattered.

    A spot draws its own mixture around the domain's (Dirichlet), then a handful of cells from it. ``mixtures``
    [n_domains, n_cell_types] are drawn where none are given.
    """
    mixtures = _mixtures(plan) if mixtures is None else mixtures
    rng, n = plan.rng("types"), len(domain)
    if plan.layout.cells == 1.0:
        drawn = (rng.random(n)[:, None] > np.cumsum(mixtures, axis=1)[domain, :-1]).sum(axis=1).astype(np.int32)
        shares = np.zeros((n, plan.n_cell_types))
        shares[np.arange(n), drawn] = 1.0
        return Cells(drawn, shares, np.ones(n, dtype=np.int32), mixtures)
    own = rng.standard_gamma(_SPOT_CONCENTRATION * mixtures[domain] + 1e-3)
    n_cells = 1 + rng.poisson(plan.layout.cells - 1, n)
    types = rng.multinomial(n_cells, own / own.sum(axis=1, keepdims=True))
    return Cells(types.argmax(axis=1).astype(np.int32), types / n_cells[:, None], n_cells.astype(np.int32), mixtures)


def _mixtures(plan: Plan) -> Doubles:
    """Share of each type in each domain: most is common to all domains, the rest the domain's own."""
    rng = plan.rng("mixtures")
    common = rng.dirichlet(np.full(plan.n_cell_types, 2.0))
    own = rng.dirichlet(np.full(plan.n_cell_types, 0.4), plan.n_domains)
    return np.asarray(0.6 * common + 0.4 * own)


def library_sizes(plan: Plan, xy_um: Doubles) -> Doubles:
    """Log-normal size factors [n] of mean 1, partly smooth over the tissue."""
    smooth_seed, own_seed = plan.seeds("library").spawn(2)
    smooth = fields.fields_at(xy_um, plan.field_um, [smooth_seed])[:, 0]
    own = np.random.default_rng(own_seed).standard_normal(len(xy_um))
    log = np.sqrt(_SMOOTH_LIBRARY) * smooth + np.sqrt(1 - _SMOOTH_LIBRARY) * own
    return np.asarray(np.exp(plan.library_sd * log - plan.library_sd**2 / 2))


# ------------------------------------------------------------------------------------------------- covariates


def covariates(plan: Plan, xy_um: Doubles, place: Place, branches: tuple[str, ...]) -> dict[str, Floats]:
    """All that genes follow beside domains and cell types, by name; each [n], standardised, computed once."""
    out = _trajectories(plan, place, branches)
    own_seed, *smooth_seeds = plan.seeds("programs").spawn(N_PROGRAMS + 2)
    smooth = fields.fields_at(xy_um, plan.field_um, smooth_seeds, n_jobs=plan.n_jobs)
    out |= {f"smooth:P{k + 1}": smooth[:, k] for k in range(N_PROGRAMS)}
    own = np.random.default_rng(own_seed).standard_normal(len(xy_um), dtype=np.float32)
    out["mitochondrial"] = np.asarray(np.sqrt(0.25) * smooth[:, -1] + np.sqrt(0.75) * own, dtype=np.float32)
    return out | _interactions(plan, xy_um)


def _trajectories(plan: Plan, place: Place, branches: tuple[str, ...]) -> dict[str, Floats]:
    t = place.pseudotime
    shapes = {"rising": t, "falling": 1 - t, "transient": np.exp(-((t - 0.5) ** 2) / 0.08)}
    if plan.tissue == "branched":
        shapes |= {name: t * (place.branch == k) for k, name in enumerate(branches) if k > 0}
    return {f"trajectory:{name}": _standard(values) for name, values in shapes.items()}


def _standard(values: Doubles | Floats) -> Floats:
    values = np.asarray(values, dtype=np.float64)
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9), dtype=np.float32)


def pair_table(plan: Plan) -> pd.DataFrame:
    """The pairs: first those that interact, then as many decoys; contact and secreted in turn."""
    n = plan.n_pairs
    effect = {"effect": np.asarray(["downstream"] * 2 * n, dtype=object)} if plan.n_downstream else {}
    contact = np.arange(2 * n) % 2 == 0
    return pd.DataFrame(
        {
            "ligand": [f"LIG{k + 1}" for k in range(n)] + [f"DECL{k + 1}" for k in range(n)],
            "receptor": [f"REC{k + 1}" for k in range(n)] + [f"DECR{k + 1}" for k in range(n)],
            "interacting": np.arange(2 * n) < n,
            "kind": np.where(contact, "contact", "secreted").astype(object),
            "range_um": np.where(contact, plan.layout.contact_um, SECRETED_UM),
            **effect,
        },
        index=[f"pair{k + 1}" for k in range(2 * n)],
    )


def _interactions(plan: Plan, xy_um: Doubles) -> dict[str, Floats]:
    """Ligands, and receptors raised where cells within range express the ligand.

    A decoy's receptor answers in the same way to a phantom, an independent ligand that no gene reports: each
    gene of a decoy has the law of its interacting twin, and the two are independent. With genes downstream, all
    receptors answer to phantoms, and the genes downstream of a pair to its ligand where its receptor is; those of a
    decoy to a second phantom where its receptor is.
    """
    table = pair_table(plan)
    if table.empty:
        return {}
    within = plan.layout.contact_um * 1.01
    neighbours = fields.nearest(xy_um, within, n_jobs=plan.n_jobs)
    seeds = plan.seeds("pairs").spawn(len(table))

    def one(k: int) -> dict[str, Floats]:
        ligand_seed, phantom_seed, receptor_seed, second_seed = seeds[k].spawn(4)
        ligand, interacting = _ligand(plan, xy_um, ligand_seed), bool(table["interacting"].iloc[k])
        answers = interacting and not plan.n_downstream
        sender = ligand if answers else _ligand(plan, xy_um, phantom_seed)
        signal = _signal(plan, xy_um, neighbours, sender, kind=table["kind"].iloc[k])
        own = np.random.default_rng(receptor_seed).standard_normal(len(xy_um), dtype=np.float32)
        receptor = np.float32(np.sqrt(_SIGNAL)) * signal + np.float32(np.sqrt(1 - _SIGNAL)) * own
        made = {f"ligand:{k}": ligand, f"receptor:{k}": receptor}
        if plan.n_downstream:
            arriving = ligand if interacting else _ligand(plan, xy_um, second_seed)
            signal = _signal(plan, xy_um, neighbours, arriving, kind=table["kind"].iloc[k])
            made[f"response:{k}"] = _standard(signal / (1 + np.exp(-_GATE * receptor)))
        return made

    with ThreadPoolExecutor(plan.n_jobs) as pool:
        drawn = list(pool.map(one, range(len(table))))
    return {name: values for made in drawn for name, values in made.items()}


def _ligand(plan: Plan, xy_um: Doubles, seed: np.random.SeedSequence) -> Floats:
    """Log activity of a ligand, variance 1: a smooth field and a part that differs from cell to cell."""
    smooth_seed, own_seed = seed.spawn(2)
    smooth = fields.fields_at(xy_um, plan.field_um, [smooth_seed])[:, 0]
    own = np.random.default_rng(own_seed).standard_normal(len(xy_um), dtype=np.float32)
    return np.asarray(np.sqrt(_SMOOTH_LIGAND) * smooth + np.sqrt(1 - _SMOOTH_LIGAND) * own, dtype=np.float32)


def _signal(plan: Plan, xy_um: Doubles, neighbours: Ints, sender: Floats, *, kind: str) -> Floats:
    """Log of the ligand that reaches each observation, standardised.

    Contact: the mean over those that touch, and over the spot itself where it holds several cells. Secreted:
    a Gaussian mean with half the range as its standard deviation, 86 % of its weight within the range.
    """
    amount = np.exp(sender)
    if kind == "contact":
        mean = fields.neighbour_mean(amount, neighbours, own=plan.layout.cells > 1)
    else:
        mean = fields.local_mean(amount, xy_um, SECRETED_UM / 2)
    return _standard(np.log(mean))


# ----------------------------------------------------------------------------------------------------- counts


def counts(
    plan: Plan, genes: Genes, cells: Cells, *, domain: Ints, size: Doubles, follow: dict[str, Floats]
) -> sparse.csr_matrix:
    """Negative-binomial counts, CSR float32 [n_obs, n_genes]; drawn in blocks, each with its own seed.

    log mean = log size + log gene mean + domain effect + log(mixture of type effects) + load * covariate.
    """
    used = sorted({name for name in genes.covariate if name})
    column = np.array([used.index(name) if name else -1 for name in genes.covariate], dtype=np.int32)
    base = np.exp(_centred_log_means(plan, genes, cells, domain) + _batch(plan))
    common = {
        "group_mean": base * np.exp(genes.domain_effect),
        "share_fold": np.exp(genes.type_effect),
        "column": column,
        "load": genes.load,
        "dispersion": genes.dispersion,
    }
    rows = max(1, _BLOCK // plan.n_genes)
    edges = [*range(0, plan.n_obs, rows), plan.n_obs]
    seeds = plan.seeds("counts").spawn(len(edges) - 1)

    def block(k: int) -> tuple[Floats, Ints, NDArray[np.int64]]:
        part = slice(edges[k], edges[k + 1])
        return negative_binomial_rows(
            np.random.default_rng(seeds[k]),
            size=size[part],
            group=domain[part],
            shares=cells.shares[part],
            covariates=_stacked(follow, used, part),
            **common,
        )

    with ThreadPoolExecutor(plan.n_jobs) as pool:
        parts = list(pool.map(block, range(len(seeds))))
    return _assembled(parts, (plan.n_obs, plan.n_genes))


def _stacked(follow: dict[str, Floats], used: list[str], part: slice) -> Floats:
    if not used:
        return np.zeros((part.stop - part.start, 0), dtype=np.float32)
    return np.stack([follow[name][part] for name in used], axis=1)


def _centred_log_means(plan: Plan, genes: Genes, cells: Cells, domain: Ints) -> Doubles:
    """Gene means corrected for what the effects add, so that a gene's mean over the section is kept."""
    share = np.bincount(domain, minlength=plan.n_domains) / len(domain)
    domain_fold = share @ np.exp(genes.domain_effect)
    type_fold = cells.shares.mean(axis=0) @ np.exp(genes.type_effect)
    return np.asarray(genes.log_mean - np.log(domain_fold * type_fold) - genes.load**2 / 2)


def type_profiles(plan: Plan, genes: Genes, cells: Cells, domain: Ints) -> Doubles:
    """Mean count of an observation wholly of one type before its domain's effect, [n_cell_types, n_genes]."""
    common = _centred_log_means(plan, genes, cells, domain) + genes.load**2 / 2 + _batch(plan)
    return np.asarray(np.exp(common + genes.type_effect))


def _batch(plan: Plan) -> Doubles:
    """Log fold change of each gene in this section; section 0 is the reference and has none."""
    sd = plan.batch_effect if plan.section > 0 else 0.0
    return plan.rng("batch").normal(0.0, 1.0, plan.n_genes) * sd


def _assembled(parts: list[tuple[Floats, Ints, NDArray[np.int64]]], shape: tuple[int, int]) -> sparse.csr_matrix:
    """The blocks as one CSR matrix. Values first, then columns: only one of them is held twice."""
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([nnz for _, _, nnz in parts]))])
    if indptr[-1] < np.iinfo(np.int32).max:
        indptr = indptr.astype(np.int32)
    columns = [indices for _, indices, _ in parts]
    data = np.concatenate([values for values, _, _ in parts])
    parts.clear()
    indices = np.concatenate(columns)
    columns.clear()
    matrix = sparse.csr_matrix(shape, dtype=np.float32)
    matrix.data, matrix.indices, matrix.indptr = data, indices.astype(indptr.dtype, copy=False), indptr
    return matrix
