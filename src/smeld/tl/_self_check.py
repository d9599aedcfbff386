"""How far a test of pairs can be believed on this section: decoys, and p-values against those expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: pairs that decoys are made of, on sections of more than ``LARGE`` spots the second number; fewer genes outside pairs
#: than this make none
N_DECOYS, N_DECOYS_OF_LARGE, LARGE, FEWEST_GENES = 300, 100, 20_000, 50
#: genes of like abundance among which the one of likest smoothness is taken
N_ALIKE = 10
#: genes that are smoothed together
BLOCK = 64
#: points of a curve of p-values
N_POINTS = 200


def decoys(
    genes: sparse.csc_matrix,
    pairs: NDArray[np.intp],
    everything: sparse.csc_matrix,
    outside: NDArray[np.intp],
    weights: sparse.csr_matrix,
    seed: int,
) -> tuple[sparse.csc_matrix, NDArray[np.intp]] | None:
    """Pairs of genes that are in no pair, alike in mean, share of spots and smoothness to the genes of real pairs:
    (genes, pairs of their columns). None where too few genes are left.

    ``everything`` [n_obs, n_genes] holds all genes, ``outside`` the numbers of those that are in no pair. Smoothness is
    the correlation with the neighbours and with their neighbours (two points of the correlogram).
    """
    seen = outside[np.diff(everything.indptr)[outside] > 0]
    if len(seen) < FEWEST_GENES:
        return None
    rng = np.random.default_rng(seed)
    most = N_DECOYS if genes.shape[0] <= LARGE else N_DECOYS_OF_LARGE
    chosen = pairs if len(pairs) <= most else pairs[np.sort(rng.choice(len(pairs), most, replace=False))]
    used, at = np.unique(chosen, return_inverse=True)
    like, own = _abundance(everything)[seen], _abundance(genes[:, used])
    scale = np.maximum(like.std(axis=0), 1e-12)
    apart = (((own[:, None] - like[None]) / scale) ** 2).sum(axis=-1)
    near = np.argsort(apart, axis=1, kind="stable")[:, :N_ALIKE]
    candidates, where = np.unique(near, return_inverse=True)
    smooth = _smoothness(everything, seen[candidates], weights)[where.reshape(near.shape)]
    off = ((smooth - _smoothness(genes, used, weights)[:, None]) ** 2).sum(axis=-1)
    best = near[np.arange(len(used)), np.argmin(off, axis=1)]
    made = best[at.reshape(chosen.shape)]
    made = made[made[:, 0] != made[:, 1]]
    taken, at = np.unique(made, return_inverse=True)
    return (everything[:, seen[taken]], at.reshape(made.shape)) if len(made) else None


def _abundance(genes: sparse.csc_matrix) -> Float:
    """Logarithm of the mean, and share of spots where a gene is seen, [n_genes, 2]."""
    mean = np.asarray(genes.mean(axis=0)).ravel()
    return np.stack([np.log(mean + 1e-6), np.diff(genes.indptr) / genes.shape[0]], axis=1)


def _smoothness(genes: sparse.csc_matrix, columns: NDArray[np.intp], weights: sparse.csr_matrix) -> Float:
    """Correlation with the mean of the neighbours, and with that of theirs, [n_columns, 2]."""
    out = np.zeros((len(columns), 2))
    for start in range(0, len(columns), BLOCK):
        x = genes[:, columns[start : start + BLOCK]].toarray()
        x -= x.mean(axis=0)
        square = (x**2).sum(axis=0)
        around = x
        for k in range(2):
            around = np.asarray(weights @ around)
            product = (x * around).sum(axis=0)
            out[start : start + BLOCK, k] = np.divide(product, square, out=np.zeros(len(square)), where=square > 0)
    return out


def curves(pvalues: dict[str, Float | None]) -> pd.DataFrame:
    """-log10 of p-values against those expected of as many independent tests, by ``set``, at most 200 points each,
    the smallest p-values all among them."""
    import pandas as pd

    parts = []
    for name, p in pvalues.items():
        if p is None or not len(p):
            continue
        ordered = np.sort(p)
        rank = np.unique(np.rint(np.geomspace(1, len(ordered), N_POINTS)).astype(np.intp)) - 1
        parts.append(
            pd.DataFrame(
                {
                    "set": name,
                    "expected": -np.log10((rank + 0.5) / len(ordered)),
                    "observed": -np.log10(np.maximum(ordered[rank], 1e-300)),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["set", "expected", "observed"])
