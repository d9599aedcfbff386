"""How far a test of pairs can be believed on this section: decoys, and p-values against those expected."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check
from smeld.kernels import surrogates as turned
from smeld.kernels._threads import workers

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: pairs that decoys are made of, on sections of more than ``LARGE`` spots the second number; fewer genes outside pairs
#: than this make none
N_DECOYS, N_DECOYS_OF_LARGE, LARGE, FEWEST_GENES = 300, 100, 20_000, 50
#: genes of like abundance among which the one of likest smoothness is taken
N_ALIKE = 10
#: genes that are smoothed together
BLOCK = 16
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

    def of_block(start: int) -> Float:
        x = genes[:, columns[start : start + BLOCK]].toarray()
        x -= x.mean(axis=0)
        square = (x**2).sum(axis=0)
        around, out = x, np.zeros((len(square), 2))
        for k in range(2):
            around = np.asarray(weights @ around)
            product = (x * around).sum(axis=0)
            out[:, k] = np.divide(product, square, out=out[:, k], where=square > 0)
        return out

    with ThreadPoolExecutor(workers()) as pool:
        return np.concatenate([np.zeros((0, 2)), *pool.map(of_block, range(0, len(columns), BLOCK))])


#: lambda must lie here, give or take two of its standard errors
LAMBDA = (0.9, 1.1)
#: receptors and ligands on which lambda is judged at all
FEWEST_MAPS = 5


def off(surrogates: Float | None) -> float:
    """How far lambda lies outside ``LAMBDA`` beyond two standard errors, as a logarithm; 0 within, and unjudged."""
    if surrogates is None or surrogates.size < 2 * FEWEST_MAPS**2 or surrogates.shape[1] < FEWEST_MAPS**2:
        return 0.0
    value, error = turned.inflation(surrogates), turned.standard_error(surrogates)
    if not np.isfinite(value) or value <= 0:
        return 0.0
    error = 2 * error if np.isfinite(error) else 0.0
    return float(
        max(np.log((value - error) / LAMBDA[1]) if value > error else 0.0, np.log(LAMBDA[0] / (value + error)), 0.0)
    )


def say(surrogates: Float | None, asked: bool, adata: Any) -> None:
    """Warn where the test does not hold on surrogates, or could not be looked at though it was ``asked``."""
    value = np.nan if surrogates is None else turned.inflation(surrogates)
    if asked and not np.isfinite(value):
        _check.warn(
            "the test could not be checked here: no map could be turned about the section so that a quarter of it "
            "still lies on tissue. Its p-values stand unchecked.",
            adata,
            stacklevel=5,
        )
    if surrogates is None or not off(surrogates):
        return
    share = float((surrogates[np.isfinite(surrogates)] < 0.05).mean())
    advice = (
        "Regress out what divides it, as in sm.tl.domains(adata); sm.tl.interactions(adata, adjust=['library', "
        "'domain']), or measure smoothness by region, correlograms_by='domain'."
    )
    if value < 1 or share < 0.05:
        advice = "The p-values are on the safe side."
    _check.warn(
        f"on pairs made independent on purpose the test does not hold as it should (lambda {value:.2f}, expected 0.9 "
        f"to 1.1; {100 * share:.1f} % of them have p < .05). {advice}",
        adata,
        stacklevel=5,
    )


def curves(pvalues: dict[str, Float | None]) -> pd.DataFrame:
    """-log10 of p-values against those expected of as many independent tests, by ``set``, at most 200 points each,
    the smallest p-values all among them."""
    import pandas as pd

    parts = []
    for name, p in pvalues.items():
        ordered = np.sort(p[np.isfinite(p)]) if p is not None else np.zeros(0)
        if not len(ordered):
            continue
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
