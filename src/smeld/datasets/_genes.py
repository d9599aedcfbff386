"""What each gene is and does: its role, mean, dispersion, and its one effect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smeld import _check
from smeld.datasets._plan import Plan

Doubles = NDArray[np.float64]

#: the thirteen mitochondrial protein genes, so that quality control finds what it looks for
MITOCHONDRIAL = ["ND1", "ND2", "CO1", "CO2", "ATP8", "ATP6", "CO3", "ND3", "ND4L", "ND4", "ND5", "ND6", "CYB"]
#: share of all genes by role; what is left after these and the pairs is noise
_SHARES = {"mitochondrial": 0.013, "marker": 0.12, "cell_type": 0.12, "trajectory": 0.06, "smooth": 0.10}
#: share of the counts that mitochondrial genes get
_MITOCHONDRIAL_COUNTS = 0.06
#: log-scale spread of gene means (a panel's or a whole transcriptome's expressed genes) and of dispersions
_MEAN_SD, _DISPERSION_SD = 1.1, 0.4
#: a marker's effect in domains next to its own, relative to its own
_NEXT_DOMAIN = 0.35
#: log effects of one standard deviation of the covariate
_LOADS = {
    "trajectory": 0.45,
    "smooth": 0.45,
    "ligand": 0.7,
    "receptor": 0.7,
    "decoy": 0.7,
    "downstream": 0.7,
    "mitochondrial": 0.3,
}
TRAJECTORY_SHAPES = ("rising", "falling", "transient")
N_PROGRAMS = 6  # smooth nuisance fields that the "smooth" genes share


@dataclass(frozen=True)
class Genes:
    """All genes. ``covariate`` names the column of the covariates that a gene follows ("" for none)."""

    name: list[str]
    role: NDArray[np.object_]
    target: NDArray[np.object_]  # the domain, cell type, trajectory shape, programme or pair it belongs to
    covariate: list[str]
    load: Doubles  # [n_genes], log fold change of one unit of the covariate
    log_mean: Doubles  # [n_genes], log of the mean count before effects
    dispersion: Doubles  # [n_genes], variance = mean + dispersion mean^2
    domain_effect: Doubles  # [n_domains, n_genes], log fold change
    type_effect: Doubles  # [n_cell_types, n_genes], log fold change

    def of(self, role: str) -> NDArray[np.intp]:
        """Indices of the genes of one role."""
        return np.flatnonzero(self.role == role)


def build(plan: Plan, branches: tuple[str, ...], kinship: NDArray[np.bool_]) -> Genes:
    """Draw all genes; sections of one seed share them but for ``batch_effect``."""
    rng = plan.rng("genes")
    rows = _cast(plan, branches)
    role = np.array([row[1] for row in rows], dtype=object)
    target = np.array([row[2] for row in rows], dtype=object)
    either_way = (role == "smooth") | np.array([row[3].startswith("response") for row in rows])
    sign = np.where(either_way, rng.choice([-1.0, 1.0], len(rows)), 1.0)
    load = np.array([_LOADS.get(r, 0.0) for r in role]) * sign * rng.uniform(0.7, 1.3, len(rows))
    load[[row[3] == "" for row in rows]] = 0.0
    return Genes(
        name=[row[0] for row in rows],
        role=role,
        target=target,
        covariate=[row[3] for row in rows],
        load=load,
        log_mean=_log_means(plan, role, rng),
        dispersion=plan.dispersion * rng.lognormal(-(_DISPERSION_SD**2) / 2, _DISPERSION_SD, len(rows)),
        domain_effect=_domain_effect(plan, role, target, kinship, rng),
        type_effect=_type_effect(plan, role, target, rng),
    )


Row = tuple[str, str, str, str]  # name, role, target, covariate


def _cast(plan: Plan, branches: tuple[str, ...]) -> list[Row]:
    """Who plays what: (name, role, target, covariate) of each gene, role by role."""
    n = {role: max(2, round(share * plan.n_genes)) for role, share in _SHARES.items()}
    rows: list[Row] = [(f"MT-{g}", "mitochondrial", "", "mitochondrial") for g in MITOCHONDRIAL[: n["mitochondrial"]]]
    rows += _numbered("DOM", "marker", plan.n_domains, n["marker"], "D")
    rows += _numbered("TYPE", "cell_type", plan.n_cell_types, n["cell_type"], "T")
    shapes = [*TRAJECTORY_SHAPES, *(branches[1:] if plan.tissue == "branched" else ())]
    for k in range(n["trajectory"]):
        shape = shapes[k % len(shapes)]
        rows.append((f"TRAJ{k + 1}", "trajectory", shape, f"trajectory:{shape}"))
    for k in range(n["smooth"]):
        rows.append((f"SMOOTH{k + 1}", "smooth", f"P{k % N_PROGRAMS + 1}", f"smooth:P{k % N_PROGRAMS + 1}"))
    for k in range(plan.n_pairs):
        rows.append((f"LIG{k + 1}", "ligand", f"pair{k + 1}", f"ligand:{k}"))
        rows.append((f"REC{k + 1}", "receptor", f"pair{k + 1}", f"receptor:{k}"))
    for k in range(plan.n_pairs, 2 * plan.n_pairs):
        rows.append((f"DECL{k + 1 - plan.n_pairs}", "decoy", f"pair{k + 1}", f"ligand:{k}"))
        rows.append((f"DECR{k + 1 - plan.n_pairs}", "decoy", f"pair{k + 1}", f"receptor:{k}"))
    for k in range(2 * plan.n_pairs if plan.n_downstream else 0):
        rows += _downstream(plan, k)
    rest = plan.n_genes - len(rows)
    rows += [(f"GENE{k + 1}", "noise", "", "") for k in range(rest)]
    return rows[: plan.n_genes]


def _downstream(plan: Plan, k: int) -> list[Row]:
    """Genes that answer to pair k where it meets, or for a decoy to a ligand that no gene reports."""
    decoy = k >= plan.n_pairs
    name, role = (f"DECDOWN{k + 1 - plan.n_pairs}", "decoy") if decoy else (f"DOWN{k + 1}", "downstream")
    return [(f"{name}_{j + 1}", role, f"pair{k + 1}", f"response:{k}") for j in range(plan.n_downstream)]


def _numbered(prefix: str, role: str, n_groups: int, n_genes: int, group: str) -> list[Row]:
    """Marker genes dealt in turn to groups 1..n_groups: DOM1_1, DOM2_1, ..."""
    return [
        (f"{prefix}{k % n_groups + 1}_{k // n_groups + 1}", role, f"{group}{k % n_groups + 1}", "")
        for k in range(n_genes)
    ]


def _log_means(plan: Plan, role: NDArray[np.object_], rng: np.random.Generator) -> Doubles:
    """Log-normal gene means whose sum is ``mean_counts``, with a fixed share for mitochondrial genes."""
    mean = rng.lognormal(0.0, _MEAN_SD, len(role))
    mt = role == "mitochondrial"
    # effects are looked for in genes that can be seen: informative genes are not drawn from the lowest fifth
    informative = ~mt & (role != "noise")
    mean[informative] = np.maximum(mean[informative], np.exp(-0.84 * _MEAN_SD))
    mean[mt] *= _MITOCHONDRIAL_COUNTS / mean[mt].sum()
    mean[~mt] *= (1 - _MITOCHONDRIAL_COUNTS) / mean[~mt].sum()
    return np.log(plan.mean_counts * mean)


def _domain_effect(
    plan: Plan,
    role: NDArray[np.object_],
    target: NDArray[np.object_],
    kinship: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Doubles:
    """Markers are raised in their domain and, less, in those next to it, as in real tissue."""
    near = np.eye(plan.n_domains) + _NEXT_DOMAIN * kinship
    out = np.zeros((plan.n_domains, len(role)))
    for g in np.flatnonzero(role == "marker"):
        fold = plan.domain_effect * rng.gamma(4.0, 0.25)
        out[:, g] = fold * near[int(target[g][1:]) - 1]
    return out


def _type_effect(
    plan: Plan, role: NDArray[np.object_], target: NDArray[np.object_], rng: np.random.Generator
) -> Doubles:
    out = np.zeros((plan.n_cell_types, len(role)))
    for g in np.flatnonzero(role == "cell_type"):
        out[int(target[g][1:]) - 1, g] = plan.cell_type_effect * rng.gamma(4.0, 0.25)
    for k in range(plan.n_subtype_pairs):
        first, second = (np.flatnonzero(target == f"T{t + 1}") for t in (2 * k, 2 * k + 1))
        _make_alike(out[2 * k : 2 * k + 2], first, second, plan.n_subtype_genes)
    return out


def _make_alike(effect: Doubles, first: NDArray[np.intp], second: NDArray[np.intp], n_own: int) -> None:
    """Give two types [2, n_genes] each other's markers, but for ``n_own`` that stay each one's own; in place."""
    if n_own > min(len(first), len(second)):
        found = f"n_subtype_genes={n_own}, {min(len(first), len(second))} markers a cell type"
        cure = "lower n_subtype_genes= or n_cell_types=, or raise n_genes="
        raise _check.problem("too few markers to tell subtypes apart", found=found, cure=cure)
    effect[0, second[n_own:]] = effect[1, second[n_own:]]
    effect[1, first[n_own:]] = effect[0, first[n_own:]]
