"""``simulate``: a tissue section with known truth, as ``sm.read`` would give it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from smeld import _keys
from smeld.datasets import _expression, _genes, _histology, _tissue
from smeld.datasets._plan import SPOT_UM, Plan, plan

if TYPE_CHECKING:
    from anndata import AnnData

LIBRARY = "simulated"


def simulate(
    n_obs: int = 4000,
    n_genes: int = 1000,
    *,
    seed: int = 0,
    layout: Literal["lattice", "cells"] = "lattice",
    tissue: Literal["layered", "nested", "branched", "folded"] = "layered",
    image: bool = True,
    image_information: float = 1.0,
    n_domains: int | None = None,
    n_cell_types: int = 8,
    n_pairs: int | None = None,
    n_downstream: int = 0,
    mean_counts: float | None = None,
    dispersion: float = 0.5,
    domain_effect: float = 0.45,
    cell_type_effect: float = 1.0,
    library_sd: float = 0.4,
    field_um: float | None = None,
    section: int = 0,
    batch_effect: float = 0.0,
    n_subtype_pairs: int = 0,
    n_subtype_genes: int = 3,
    n_jobs: int | None = None,
) -> AnnData:
    """Simulate a tissue section with known truth: domains, cell types, counts, interactions, an H&E picture.

    Counts are negative binomial; the log mean of gene g at observation i is the sum of the log library size,
    the gene's log mean, the effect of the domain, the log of the mixture of cell-type effects, and for genes
    that follow a covariate (gradient, smooth field, ligand, signal) its load times the covariate.

    Parameters
    ----------
    n_obs, n_genes
        Number of spots or cells (at least 10 a domain) and of genes (at least 20).
    seed
        All randomness. The same seed gives the same bytes on any number of threads, and the parts are
        independent: changing ``image_information`` leaves the counts as they are.
    layout
        "lattice": 10x Visium, hexagonal, 100 um between centres, 55 um spots of about 7 cells each; "cells":
        one observation a cell, about 2,800 a square millimetre.
    tissue
        "layered": bands of unequal thickness, as in cortex; "nested": rings around tumour nests in stroma;
        "branched": the limbs of a tree that grows from a root; "folded": a band in two or three folds that touch,
        so that early and late lie side by side.
    image
        False leaves the picture out; the coordinates stay what they are.
    image_information
        0..1, how much the picture's histology follows the domains; at 0 it follows an independent map.
    n_domains
        Number of domains, 2..15; default 6 (nested), 7 (others).
    n_cell_types
        Number of cell types, scattered: every domain holds most of them, in its own proportions.
    n_pairs
        Number of interacting ligand-receptor pairs, and again as many decoys; default 10, fewer below 400
        genes. A pair and its decoy take 4 genes; half of all genes at most.
    n_downstream
        Genes downstream of each pair and each decoy. Above 0 the effect of a pair is on these alone: ligand and
        receptor know nothing of each other, and genes downstream change, up or down, where the ligand is expressed
        within range and the cell has the receptor. They count towards the genes that a pair takes.
    mean_counts
        Mean total count of an observation; default 1.5 a gene on the lattice, 0.6 a gene for cells (an
        imaging panel): depths at which PCA with KMeans finds about a third of the structure. Gene means are
        log-normal with standard deviation 1.1.
    dispersion
        Mean over genes of phi in variance = mean + phi mean^2 (theta = 1 / phi); 0 gives Poisson counts. The
        default is theta = 2.
    domain_effect, cell_type_effect
        Mean log fold change of a marker in its domain, or in its cell type. 0 leaves no marker of it.
    library_sd
        Standard deviation of the log library size; 40 % of its variance is smooth over the tissue.
    field_um
        Correlation length l of the smooth fields, um: correlation exp(-d^2 / (2 l^2)) at distance d. Default
        300 on the lattice, 100 for cells.
    section
        0 is the reference; other numbers give further sections of the same organ: same domains but for small
        shifts of their borders, same genes and mixtures, other cells, noise and picture.
    batch_effect
        Standard deviation of the log fold change of each gene in sections other than 0.
    n_subtype_pairs, n_subtype_genes
        The first ``n_subtype_pairs`` pairs of cell types, T1 and T2, T3 and T4, ..., are subtypes: each has the markers
        of both, but for ``n_subtype_genes`` of either, which stay that one's own.
    n_jobs
        Threads; default all, 8 at most. Does not change the result.

    Returns
    -------
    AnnData with ``X`` CSR float32 counts, ``obsm["spatial"]`` (pixels of the picture),
    ``obsm["spatial_um"]``, on the lattice ``obs`` in_tissue, array_row, array_col,
    ``uns["spatial"]["simulated"]``, and the truth:

    ================================ =================================================================
    ``obs["truth_domain"]``          D1..DK, categorical
    ``obs["truth_cell_type"]``       T1..: the cell's type; on the lattice that of most of its cells
    ``obs["truth_n_cells"]``         number of cells in the spot (1 for cells)
    ``obs["truth_pseudotime"]``      0..1: depth (layered), core to stroma (nested), along tree or band
    ``obs["truth_branch"]``          "trunk" (layered, folded); nearest nest; main limb of the tree
    ``obs["truth_size_factor"]``     library size, mean about 1
    ``obs["section"]``               number of the section
    ``obsm["truth_proportions"]``    lattice: share of each type among the spot's cells, DataFrame
    ``var["truth_role"]``            marker, cell_type, trajectory, smooth, ligand, receptor, decoy,
                                     downstream, mitochondrial, noise
    ``var["truth_target"]``          domain, type, trajectory, programme or pair of the gene, or "none"
    ``var["truth_trajectory"]``      rising, falling, transient, the branch along which it rises, none
    ``var["truth_dispersion"]``      phi of the gene
    ``var["truth_mean"]``            mean count over the section (about)
    ``varm["truth_domain_effect"]``  DataFrame [n_genes, n_domains]: log fold changes
    ``varm["truth_type_effect"]``    DataFrame [n_genes, n_cell_types]: log fold changes
    ``varm["truth_type_profile"]``   DataFrame [n_genes, n_cell_types]: mean count of an observation wholly of
                                     a type, before its domain's effect (at size factor 1)
    ``uns["truth_pairs"]``           DataFrame: ligand, receptor, interacting, kind (contact,
                                     secreted), range_um; effect ("downstream") with n_downstream
    ``uns["truth_mixtures"]``        DataFrame [n_domains, n_cell_types]: share of types in domains
    ``uns["truth_domain_tree"]``     DataFrame: domain, parent ("none" for the root)
    ================================ =================================================================

    "smooth" genes follow one of six smooth fields that know nothing of domains. The receptor of an
    interacting pair is raised where the ligand is expressed within ``range_um``; that of a decoy answers in
    the same way to a phantom ligand independent of all genes, so both members are as smooth as an interacting
    pair's. With ``n_downstream`` genes downstream follow signal / (1 + exp(-2 receptor)), both standardised logs; those
    of a decoy (role decoy, too) take the signal of a phantom.

    Raises
    ------
    InputError
        For an unknown layout or tissue, numbers out of range, too few observations for the domains, or too few
        markers for the subtypes.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=300, n_genes=60, tissue="nested", image=False)
    >>> adata.shape, adata.obs["truth_domain"].nunique()
    ((300, 60), 6)

    References
    ----------
    Smooth fields: Gaussian-filtered white noise. Counts: the gamma-Poisson model. Stains: Ruifrok and
    Johnston, Anal. Quant. Cytol. Histol. 23 (2001) 291.
    """
    made = plan(**locals())
    section_map, xy_um, index = _tissue.build(made)
    place = section_map.at(xy_um)
    genes = _genes.build(made, section_map.shape.branches, section_map.kinship())
    cells = _expression.cell_types(made, place.domain)
    size = _expression.library_sizes(made, xy_um)
    follow = _expression.covariates(made, xy_um, place, section_map.shape.branches)
    x = _expression.counts(made, genes, cells, domain=place.domain, size=size, follow=follow)
    follow.clear()
    adata = _table(x, _obs(made, section_map, place, cells, size, index), _var(genes))
    _add_truth(adata, made, section_map, genes, cells, _expression.type_profiles(made, genes, cells, place.domain))
    _add_space(adata, made, section_map, xy_um)
    settings = {name: value for name, value in vars(made).items() if name not in {"seed", "n_jobs"}}
    _keys.record(adata, "simulate", function="smeld.datasets.simulate", params=settings, seed=made.seed)
    return adata


def _table(x: Any, obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    from anndata import AnnData

    return AnnData(x, obs=obs, var=var)


def _category(codes: NDArray[np.integer], names: list[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, names)


def _named(prefix: str, n: int) -> list[str]:
    return [f"{prefix}{k + 1}" for k in range(n)]


def _obs(
    made: Plan,
    section: _tissue.Tissue,
    place: _tissue.Place,
    cells: _expression.Cells,
    size: NDArray[np.float64],
    index: NDArray[np.int32],
) -> pd.DataFrame:
    kind = "spot" if made.layout_name == "lattice" else "cell"
    width = len(str(made.n_obs))
    obs = pd.DataFrame(index=[f"{kind}{i + 1:0{width}d}" for i in range(made.n_obs)])
    if made.layout_name == "lattice":
        obs["in_tissue"] = 1
        obs["array_row"], obs["array_col"] = index.T
    obs["section"] = pd.Categorical([str(made.section)] * made.n_obs)
    obs["truth_domain"] = _category(place.domain, _named("D", made.n_domains))
    obs["truth_cell_type"] = _category(cells.cell_type, _named("T", made.n_cell_types))
    obs["truth_n_cells"] = cells.n_cells
    obs["truth_pseudotime"] = place.pseudotime
    obs["truth_branch"] = _category(place.branch, list(section.shape.branches))
    obs["truth_size_factor"] = size
    return obs


def _var(genes: _genes.Genes) -> pd.DataFrame:
    trajectory = np.where(genes.role == "trajectory", genes.target, "none")
    return pd.DataFrame(
        {
            "truth_role": pd.Categorical(genes.role),
            "truth_target": np.where(genes.target == "", "none", genes.target),
            "truth_trajectory": pd.Categorical(trajectory),
            "truth_dispersion": genes.dispersion,
            "truth_mean": np.exp(genes.log_mean),
        },
        index=genes.name,
    )


def _add_truth(
    adata: AnnData,
    made: Plan,
    section: _tissue.Tissue,
    genes: _genes.Genes,
    cells: _expression.Cells,
    profiles: NDArray[np.float64],
) -> None:
    domains, types = _named("D", made.n_domains), _named("T", made.n_cell_types)
    adata.uns["truth_pairs"] = _expression.pair_table(made)
    adata.uns["truth_mixtures"] = pd.DataFrame(cells.mixtures, index=domains, columns=types)
    adata.uns["truth_domain_tree"] = pd.DataFrame(
        {"domain": domains, "parent": ["none" if p < 0 else domains[p] for p in section.shape.parents]},
        dtype=object,
    )
    adata.varm["truth_domain_effect"] = pd.DataFrame(genes.domain_effect.T, index=genes.name, columns=domains)
    adata.varm["truth_type_effect"] = pd.DataFrame(genes.type_effect.T, index=genes.name, columns=types)
    adata.varm["truth_type_profile"] = pd.DataFrame(profiles.T, index=genes.name, columns=types)
    if made.layout_name == "lattice":
        adata.obsm["truth_proportions"] = pd.DataFrame(cells.shares, index=adata.obs_names, columns=types)


def _add_space(adata: AnnData, made: Plan, section: _tissue.Tissue, xy_um: NDArray[np.float64]) -> None:
    """Coordinates, and ``uns["spatial"]`` in scanpy's form; its pixels are those of the hires picture."""
    px = _histology.um_per_px(made, section.bounds)
    adata.obsm[_keys.SPATIAL] = xy_um / px
    adata.obsm[_keys.SPATIAL_UM] = xy_um
    diameter = SPOT_UM if made.layout_name == "lattice" else 10.0
    images: dict[str, NDArray[np.uint8]] = {}
    scales = {"spot_diameter_fullres": diameter / px, "fiducial_diameter_fullres": diameter / px * 1.6}
    if made.image:
        picture = _histology.render(made, section, xy_um)
        images = {"hires": picture.hires, "lowres": picture.lowres}
        scales |= {"tissue_hires_scalef": 1.0, "tissue_lowres_scalef": picture.lowres_scale}
    adata.uns[_keys.IMAGES] = {
        LIBRARY: {
            "images": images,
            "scalefactors": scales,
            "metadata": {
                _keys.META_PLATFORM: "simulated" if made.layout_name == "lattice" else "simulated cells",
                _keys.META_UM_PER_UNIT: px,
                _keys.META_SPOT_UM: diameter,
            },
        }
    }
