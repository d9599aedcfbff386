"""What cell types are tested with: a single-cell reference of a simulated section, and sections of niches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check, _keys
from smeld.datasets import _expression, _genes, _simulate, _tissue
from smeld.datasets._plan import MAX_DOMAINS, Plan, _at_least, _whole, plan
from smeld.kernels.draws import negative_binomial_rows
from smeld.kernels.fields import GridField, gaussian_field

if TYPE_CHECKING:
    from anndata import AnnData

Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

PROFILE, DOMAIN_EFFECT = "truth_type_profile", "truth_domain_effect"
#: cells of types that a mapping does not name
_CELLS = 200
#: default depth of a reference cell
_COUNTS_PER_GENE = 1.5
#: what of a reference is drawn; two-part keys are the sections' own
_SHIFT_KEY, _CELLS_KEY = 1_000_000, 1_000_001
#: share of the cells that the types of all niches have together
_SHARED = 0.3


def simulate_reference(
    section: AnnData,
    cells_per_type: int | Mapping[str, int] = _CELLS,
    *,
    seed: int = 0,
    platform_sd: float = 1.0,
    mean_counts: float | None = None,
    library_sd: float = 0.5,
    withheld: Collection[str] = (),
) -> AnnData:
    """Simulate the dissociated cells of a simulated section, measured on another platform.

    The mean count of gene g in a cell of type t from domain d is its library size times the type's profile in the
    section, the domain's effect, and exp(shift of g). Cells come from the domains in the proportions in which the
    section has their type; what genes follow in space (gradients, smooth fields, ligands) is averaged out. Counts are
    negative binomial with the section's dispersions.

    Parameters
    ----------
    section
        What ``simulate`` or ``simulate_niches`` gave, spots or cells; or a part of its spots and genes.
    cells_per_type
        Number of cells of each type, or a mapping from type to number; types that it does not name have 200.
    seed
        All randomness of the reference; independent of the section's. Each type has its own random numbers: other
        numbers of cells of one type, or withholding it, leave the others' cells as they are.
    platform_sd
        Standard deviation of the natural logarithm of each gene's factor between the platforms; 0: none.
    mean_counts
        Mean total count of a cell, all types counting alike; default 1.5 a gene.
    library_sd
        Standard deviation of the log library size of cells.
    withheld
        Names of types that the reference lacks.

    Returns
    -------
    AnnData with ``X`` CSR float32 counts [n_cells, n_genes], ``obs["cell_type"]`` (categorical; cells lie type by
    type), ``obs["truth_size_factor"]``, ``obs["truth_domain"]`` where the section has domains, and
    ``var["truth_platform_shift"]``, the natural logarithm of each gene's factor.

    Raises
    ------
    InputError
        If the section was not simulated, a type is unknown, none is left, or numbers are out of range.

    Examples
    --------
    Hard mixtures: pairs of similar subtypes, few counts, another platform, a type that the reference lacks.

    >>> import smeld as sm
    >>> spots = sm.datasets.simulate(
    ...     300, 500, n_cell_types=10, n_subtype_pairs=2, cell_type_effect=2.0, mean_counts=600, image=False
    ... )
    >>> reference = sm.datasets.simulate_reference(spots, 50, withheld=["T9"])
    >>> reference.shape, "T9" in set(reference.obs["cell_type"])
    ((450, 500), False)
    >>> spots.obsm["truth_proportions"].shape
    (300, 10)

    References
    ----------
    Factors by gene between platforms, about log-normal: Cable et al., Nature Biotechnology 40 (2022) 517.
    """
    _check.require(section.varm, PROFILE, "varm", "simulate the section with sm.datasets.simulate")
    names = [str(name) for name in section.varm[PROFILE].columns]
    number = _cells_by_type(names, cells_per_type, withheld)
    _at_least("platform_sd", platform_sd, 0.0, 10.0)
    _at_least("library_sd", library_sd, 0.0, 10.0)
    mean_counts = _COUNTS_PER_GENE * section.n_vars if mean_counts is None else mean_counts
    _at_least("mean_counts", mean_counts, 1.0)
    seed = _whole("seed", seed, 0)
    shift = platform_sd * _rng(seed, _SHIFT_KEY).standard_normal(section.n_vars)
    origin, domain_fold, domains = _origins(section, names)
    profile = section.varm[PROFILE].to_numpy().T * np.exp(shift)
    profile *= mean_counts / np.einsum("tg,td,dg->t", profile, origin, domain_fold).mean()
    drawn = [
        _type(_rng(seed, _CELLS_KEY, t), number[t], library_sd, (profile[t], origin[t], domain_fold), section)
        for t in range(len(names))
    ]
    obs = pd.DataFrame({"cell_type": np.repeat(names, number)}, index=_cell_names(names, number))
    obs["cell_type"] = pd.Categorical(obs["cell_type"], [names[t] for t in np.flatnonzero(number)])
    if domains:
        obs["truth_domain"] = pd.Categorical.from_codes(np.concatenate([domain for _, domain, _ in drawn]), domains)
    obs["truth_size_factor"] = np.concatenate([size for _, _, size in drawn])
    x = sparse.vstack([counts for counts, _, _ in drawn], format="csr", dtype=np.float32)
    var = pd.DataFrame({"truth_platform_shift": shift}, index=section.var_names.copy())
    adata = _simulate._table(sparse.csr_matrix(x), obs, var)
    settings = {"platform_sd": platform_sd, "mean_counts": mean_counts, "library_sd": library_sd, "withheld": withheld}
    settings["cells_per_type"] = dict(zip(names, number.tolist(), strict=True))
    _keys.record(adata, "simulate", function="smeld.datasets.simulate_reference", params=settings, seed=seed)
    return adata


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _cells_by_type(
    names: list[str], cells_per_type: int | Mapping[str, int], withheld: Collection[str]
) -> NDArray[np.intp]:
    """Number of cells of each type."""
    given = cells_per_type if isinstance(cells_per_type, Mapping) else dict.fromkeys(names, cells_per_type)
    withheld = {withheld} if isinstance(withheld, str) else set(withheld)
    for name in [*given, *sorted(withheld)]:
        if name not in names:
            raise _check.unknown("cell type", name, names)
    number = [0 if name in withheld else _whole("cells_per_type", given.get(name, _CELLS), 0) for name in names]
    if not any(number):
        raise _check.problem(
            "no cell type is left", found=f"withheld: {_check.listed(withheld)}", cure="withhold fewer"
        )
    return np.array(number, dtype=np.intp)


def _origins(section: AnnData, names: list[str]) -> tuple[Doubles, Doubles, list[str]]:
    """(share of a type's cells by domain [n_types, n_domains], fold changes [n_domains, n_genes], names of domains)."""
    if DOMAIN_EFFECT not in section.varm:
        return np.ones((len(names), 1)), np.ones((1, section.n_vars)), []
    effect = section.varm[DOMAIN_EFFECT]
    area = section.obs["truth_domain"].value_counts().reindex(effect.columns, fill_value=0).to_numpy(dtype=np.float64)
    joint = section.uns["truth_mixtures"].loc[effect.columns, names].to_numpy().T * area
    return joint / joint.sum(axis=1, keepdims=True), np.exp(effect.to_numpy().T), list(effect.columns)


def _type(
    rng: np.random.Generator, n: int, library_sd: float, law: tuple[Doubles, Doubles, Doubles], section: AnnData
) -> tuple[sparse.csr_matrix, Ints, Doubles]:
    """(counts, domains, library sizes) of ``n`` cells of a type: its profile, its domains' shares, their effects."""
    profile, origin, domain_fold = law
    domain = rng.choice(len(origin), n, p=origin).astype(np.int32)
    size = np.exp(library_sd * rng.standard_normal(n) - library_sd**2 / 2)
    n_genes = len(profile)
    rows = max(1, _expression._BLOCK // n_genes)
    parts = [
        negative_binomial_rows(
            rng,
            size=size[start : start + rows],
            group=domain[start : start + rows],
            shares=np.ones((len(size[start : start + rows]), 1)),
            covariates=np.zeros((len(size[start : start + rows]), 0), dtype=np.float32),
            group_mean=domain_fold,
            share_fold=profile[None],
            column=np.full(n_genes, -1, dtype=np.int32),
            load=np.zeros(n_genes),
            dispersion=section.var["truth_dispersion"].to_numpy(),
        )
        for start in range(0, max(n, 1), rows)
    ]
    return _expression._assembled(parts, (n, n_genes)), domain, size


def _cell_names(names: list[str], number: NDArray[np.intp]) -> list[str]:
    width = len(str(number.max()))
    return [f"{name}_{k + 1:0{width}d}" for name, n in zip(names, number, strict=True) for k in range(n)]


# ------------------------------------------------------------------------------------------------------ niches


def simulate_niches(
    n_obs: int = 4000,
    n_genes: int = 300,
    *,
    seed: int = 0,
    n_niches: int = 3,
    n_cell_types: int = 8,
    n_shared: int = 1,
    contrast: float = 0.7,
    niche_shares: Collection[float] | None = None,
    field_um: float = 120.0,
    image: bool = False,
    image_information: float = 1.0,
    mean_counts: float | None = None,
    dispersion: float = 0.5,
    cell_type_effect: float = 2.0,
    library_sd: float = 0.4,
    section: int = 0,
    batch_effect: float = 0.0,
    n_jobs: int | None = None,
) -> AnnData:
    """Simulate a section of cells with niches: a cell's expression tells its type and nothing of its niche.

    Niches are patches where one of ``n_niches`` smooth fields is the largest; each has its own mixture of types. The
    first ``n_shared`` types have the same share in all niches and the same expression: their states can be told by
    their surroundings alone. No gene follows niches, gradients or fields.

    Parameters
    ----------
    n_obs, n_genes
        Number of cells (at least 10 a niche) and of genes (at least 20).
    seed
        All randomness; the same bytes on any number of threads.
    n_niches
        Number of niches, 2..15.
    n_cell_types, n_shared
        Number of types, and how many of them, T1, T2, ..., are at home in all niches: they have 30 % of the cells of
        each. The others are dealt in turn to the niches, at least one to each.
    contrast
        0..1: the share of a niche's other cells that is of its own types; the rest is of all types alike. At 0 niches
        do not differ, at 1 they share no types but the first.
    niche_shares
        Share of the cells in each niche, [n_niches]; default: alike. Sections with other shares make up groups that
        differ.
    field_um
        Correlation length of the fields, um: patches are about three times as wide.
    image, image_information
        Whether there is an H&E-like picture, and how much its histology follows the niches, 0..1.
    mean_counts, dispersion, cell_type_effect, library_sd
        As in ``simulate``: mean total count of a cell (default 0.6 a gene), mean over genes of phi, mean log fold
        change of a marker in its type, and standard deviation of the log library size.
    section, batch_effect
        Further sections of the same organ: same genes and mixtures, other patches, cells and noise; standard deviation
        of the log fold change of each gene in sections other than 0.
    n_jobs
        Threads; default all, 8 at most. Does not change the result.

    Returns
    -------
    AnnData as ``simulate`` gives for cells (``X``, ``obsm["spatial_um"]``, ...), with the truth:

    ================================ =================================================================
    ``obs["truth_niche"]``           N1..NK, categorical: the niche in which the cell lies
    ``obs["truth_cell_type"]``       T1.., categorical
    ``obs["truth_state"]``           type and niche ("T1:N2") for the types of all niches, the type for others
    ``obs["truth_size_factor"]``     library size, mean about 1
    ``obs["section"]``               number of the section
    ``uns["truth_mixtures"]``        DataFrame [n_niches, n_cell_types]: share of types in niches
    ``varm["truth_type_effect"]``    DataFrame [n_genes, n_cell_types]: log fold changes
    ``varm["truth_type_profile"]``   DataFrame [n_genes, n_cell_types]: mean count of a cell of each type
    ================================ =================================================================

    Raises
    ------
    InputError
        For numbers out of range, or fewer types than niches need.

    Examples
    --------
    >>> import smeld as sm
    >>> cells = sm.datasets.simulate_niches(600, 60, n_niches=2, n_cell_types=5)
    >>> sorted(cells.obs.loc[cells.obs["truth_cell_type"] == "T1", "truth_state"].unique())
    ['T1:N1', 'T1:N2']

    References
    ----------
    Smooth fields: Gaussian-filtered white noise. Counts: the gamma-Poisson model.
    """
    _whole("n_niches", n_niches, 2, MAX_DOMAINS)
    made = plan(
        n_obs=n_obs, n_genes=n_genes, seed=seed, section=section, layout="cells", tissue="layered", image=image,
        image_information=image_information, n_domains=n_niches, n_cell_types=n_cell_types, n_pairs=0, n_downstream=0,
        mean_counts=mean_counts, dispersion=dispersion, domain_effect=0.0, cell_type_effect=cell_type_effect,
        library_sd=library_sd, batch_effect=batch_effect, field_um=field_um, n_jobs=n_jobs,
    )  # fmt: skip
    mixtures = _niche_mixtures(made, n_shared, contrast)
    layered, xy_um, index = _tissue.build(made)
    patches = _patches(made, layered, xy_um, _shares(niche_shares, made.n_domains))
    place = patches.at(xy_um)
    cells = _expression.cell_types(made, place.domain, mixtures)
    genes = _without_space(_genes.build(made, layered.shape.branches, layered.kinship()))
    size = _expression.library_sizes(made, xy_um)
    x = _expression.counts(made, genes, cells, domain=place.domain, size=size, follow={})
    obs = _niche_obs(_simulate._obs(made, patches, place, cells, size, index), n_shared)
    adata = _simulate._table(x, obs, _simulate._var(genes))
    types = _simulate._named("T", made.n_cell_types)
    adata.uns["truth_mixtures"] = pd.DataFrame(mixtures, index=_simulate._named("N", made.n_domains), columns=types)
    profiles = _expression.type_profiles(made, genes, cells, place.domain)
    adata.varm["truth_type_effect"] = pd.DataFrame(genes.type_effect.T, index=genes.name, columns=types)
    adata.varm[PROFILE] = pd.DataFrame(profiles.T, index=genes.name, columns=types)
    _simulate._add_space(adata, made, patches, xy_um)
    settings = {name: value for name, value in vars(made).items() if name not in {"seed", "n_jobs", "tissue"}}
    settings |= {"n_shared": n_shared, "contrast": contrast, "niche_shares": niche_shares}
    _keys.record(adata, "simulate", function="smeld.datasets.simulate_niches", params=settings, seed=made.seed)
    return adata


def _niche_mixtures(made: Plan, n_shared: int, contrast: float) -> Doubles:
    """Share of each type in each niche [n_niches, n_cell_types]."""
    _at_least("contrast", contrast, 0.0, 1.0)
    _whole("n_shared", n_shared, 1)
    others = made.n_cell_types - n_shared
    if others < made.n_domains:
        found = f"{made.n_cell_types} types, of which {n_shared} in all niches, for {made.n_domains} niches"
        cure = f"n_cell_types={made.n_domains + n_shared} or more"
        raise _check.problem("every niche needs a type of its own", found=found, cure=cure)
    own = np.arange(others) % made.n_domains == np.arange(made.n_domains)[:, None]
    rest = contrast * own / own.sum(axis=1, keepdims=True) + (1 - contrast) / others
    shared = np.full((made.n_domains, n_shared), _SHARED / n_shared)
    return np.concatenate([shared, (1 - _SHARED) * rest], axis=1)


def _shares(given: Collection[float] | None, n: int) -> Doubles:
    """Share of the cells in each niche, of sum 1."""
    shares = np.full(n, 1.0 / n) if given is None else np.asarray(list(given), dtype=np.float64)
    if len(shares) != n or not (np.isfinite(shares).all() and (shares >= 0.01).all()):
        found = f"niche_shares={given!r}"
        raise _check.problem(f"niche_shares must be {n} numbers of at least 0.01", found=found, cure="one a niche")
    return np.asarray(shares / shares.sum())


def _patches(made: Plan, layered: _tissue.Tissue, xy_um: Doubles, shares: Doubles) -> _tissue.Tissue:
    """The section with niches for domains: that whose field, raised until it has its share of cells, is the largest."""
    fields = [
        gaussian_field(layered.bounds, made.field_um, np.random.default_rng(seed))
        for seed in made.seeds("niches").spawn(made.n_domains)
    ]

    def values(z: Doubles) -> Doubles:
        return _read(fields, z * layered.side_um + layered.centre_um)

    raised = _raised(values(layered.relative(xy_um)), shares)

    def locate(z: Doubles) -> tuple[Doubles, Ints, Ints]:
        niche = (values(z) + raised).argmax(axis=1).astype(np.int32)
        return np.zeros(len(z)), np.zeros(len(z), dtype=np.int32), niche

    return replace(layered, shape=_tissue.Shape(locate, ("trunk",), (-1,) * made.n_domains))


def _read(fields: list[GridField], xy_um: Doubles) -> Doubles:
    return np.stack([field.at(xy_um).astype(np.float64) for field in fields], axis=1)


def _raised(values: Doubles, shares: Doubles) -> Doubles:
    """What to add to each column [n, k] so that it is the largest in its share of the rows."""
    raised = np.zeros(values.shape[1])
    for k in range(200):
        met = np.bincount((values + raised).argmax(axis=1), minlength=len(raised)) / len(values)
        raised += (0.5 if k < 100 else 0.1) * np.log(shares / np.maximum(met, 1e-3))
    return raised


def _without_space(genes: _genes.Genes) -> _genes.Genes:
    """The genes, of which none follows anything but cell types."""
    kept = np.isin(genes.role, ["cell_type", "mitochondrial"])
    return replace(
        genes,
        role=np.where(kept, genes.role, "noise").astype(object),
        target=np.where(kept, genes.target, "").astype(object),
        covariate=[""] * len(genes.name),
        load=np.zeros(len(genes.name)),
    )


def _niche_obs(obs: pd.DataFrame, n_shared: int) -> pd.DataFrame:
    niche = obs["truth_domain"].cat.rename_categories(lambda name: f"N{name[1:]}")
    out = obs[["section", "truth_cell_type", "truth_size_factor"]].assign(truth_niche=niche)
    kind = out["truth_cell_type"]
    shared = (kind.cat.codes < n_shared).to_numpy()
    state = np.where(shared, kind.astype(str) + ":" + niche.astype(str), kind.astype(str))
    return out.assign(truth_state=pd.Categorical(state))
