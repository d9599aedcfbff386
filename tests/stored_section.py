"""A small section with every stored result that plots and report read, made by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from smeld import _keys

PITCH_UM = 100.0
SPOT_UM = 55.0
#: names that break careless code: markup, mathematics, a legend's own mark, direction marks, NUL, length
HOSTILE = [
    "<script>alert(1)</script>",
    r"$\frac$",
    "_hidden",
    "\u202egpj.exe\u202c",
    "nul\x00line\nbreak",
    '"><img src=x onerror=alert(2)>',
    "x" * 500,
    r"\$50$ {{7*7}} &amp;",
]


def make(
    *,
    rows: int = 12,
    columns: int = 14,
    n_domains: int = 4,
    image: bool = True,
    um_per_unit: float = 0.5,
    image_scale: float = 0.1,
    seed: int = 0,
) -> AnnData:
    """A hexagonal lattice whose left quarter is domain 1, and so on; gene ``g<k>`` is high in domain k."""
    rng = np.random.default_rng(seed)
    row, column = (a.ravel() for a in np.mgrid[0:rows, 0:columns])
    xy_um = np.column_stack([(column + 0.5 * (row % 2)) * PITCH_UM, row * PITCH_UM * np.sqrt(3) / 2]) + 150.0
    domain = (column * n_domains // columns).astype(int)
    counts = rng.poisson(2.0, (len(row), 5 * n_domains)).astype(np.float32)
    for k in range(n_domains):
        counts[domain == k, k] += rng.poisson(8, int((domain == k).sum()))
    adata = AnnData(sparse.csr_matrix(counts))
    adata.obs_names = [f"spot{i:04d}" for i in range(len(row))]
    adata.var_names = [f"g{i}" for i in range(counts.shape[1])]
    adata.obsm["spatial"] = xy_um / um_per_unit
    adata.obsm["spatial_um"] = xy_um
    names = [str(k + 1) for k in range(n_domains)]
    adata.obs["domain"] = pd.Categorical.from_codes(domain, names)
    prob = rng.dirichlet(np.ones(n_domains), len(row)) * 0.4
    prob[np.arange(len(row)), domain] += 0.6
    adata.obsm["domain_prob"] = pd.DataFrame(prob, index=adata.obs_names, columns=names)
    adata.obs["domain_confidence"] = prob[np.arange(len(row)), domain]
    adata.obs["total_counts"] = counts.sum(axis=1)
    adata.obs["n_genes_by_counts"] = (counts > 0).sum(axis=1)
    adata.obsm["fused_sme"] = rng.normal(size=(len(row), 6)) + domain[:, None]
    adata.obsm["X_pca"] = rng.normal(size=(len(row), 6))
    adata.uns["domain_markers"] = _markers(counts, domain, names, list(adata.var_names))
    _add_image(adata, image, um_per_unit, image_scale)
    _keys.record(adata, "fused_sme", function="sm.fuse", params={"alpha": 3.0, "method": "sme"}, seed=0)
    _keys.keep_warning(adata, "counts are not whole numbers")
    return adata


def _markers(counts: np.ndarray, domain: np.ndarray, names: list[str], genes: list[str]) -> pd.DataFrame:
    rows = []
    for k, name in enumerate(names):
        inside, outside = counts[domain == k], counts[domain != k] if len(names) > 1 else counts
        change = np.log2((inside.mean(0) + 0.1) / (outside.mean(0) + 0.1))
        for g in np.argsort(-change, kind="stable"):
            rows.append((name, genes[g], 10 * change[g], change[g], 0.01, 0.02, *_shares(inside, outside, g)))
    columns = ["domain", "gene", "score", "log2_fold_change", "pvalue", "qvalue", "pct_in", "pct_out"]
    return pd.DataFrame(rows, columns=columns)


def _shares(inside: np.ndarray, outside: np.ndarray, g: int) -> tuple[float, float]:
    return float((inside[:, g] > 3).mean()), float((outside[:, g] > 3).mean())


def _add_image(adata: AnnData, image: bool, um_per_unit: float, scale: float) -> None:
    high = adata.obsm["spatial"].max(axis=0) * scale + 200 * scale / um_per_unit
    ramp = np.linspace(120, 240, int(high[0]), dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (int(high[1]), 1))] * 3, axis=2)
    pixels[..., 1] -= 60
    metadata = {"platform": "visium", "um_per_unit": um_per_unit, "spot_diameter_um": SPOT_UM}
    adata.uns["spatial"] = {
        "slice": {
            "images": {"hires": pixels} if image else {},
            "scalefactors": {"tissue_hires_scalef": scale},
            "metadata": metadata,
        }
    }


def hostile() -> AnnData:
    """The section with hostile names for domains, genes, spots, section, columns, settings and warnings."""
    adata = make(n_domains=4)
    named = dict(zip(["1", "2", "3", "4"], HOSTILE, strict=False))
    adata.obs["domain"] = adata.obs["domain"].cat.rename_categories(named)
    adata.obsm["domain_prob"].columns = HOSTILE[:4]
    genes = {f"g{i}": HOSTILE[i % len(HOSTILE)] + (str(i) if i >= len(HOSTILE) else "") for i in range(adata.n_vars)}
    table = adata.uns["domain_markers"]
    adata.uns["domain_markers"] = table.assign(domain=table["domain"].map(named), gene=table["gene"].map(genes))
    adata.var_names = [genes[g] for g in adata.var_names]
    adata.obs_names = [HOSTILE[i] if i < len(HOSTILE) else f"s{i}" for i in range(adata.n_obs)]
    adata.obsm["domain_prob"].index = adata.obs_names
    adata.uns["spatial"] = {HOSTILE[5]: adata.uns["spatial"]["slice"]}
    adata.uns["spatial"][HOSTILE[5]]["metadata"]["platform"] = HOSTILE[0]
    adata.obsm["morph_<b>x</b>"] = pd.DataFrame(
        np.zeros((adata.n_obs, len(HOSTILE))), index=adata.obs_names, columns=HOSTILE
    )
    adata.uns["fusion_evidence"] = pd.DataFrame({HOSTILE[0]: HOSTILE, "gain": np.arange(len(HOSTILE)) / 7})
    _keys.record(adata, HOSTILE[0], function=HOSTILE[5], params=dict.fromkeys(HOSTILE, HOSTILE[0]), seed=1)
    for name in HOSTILE:
        _keys.keep_warning(adata, name)
    return adata
