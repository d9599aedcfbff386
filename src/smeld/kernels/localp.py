"""Where do two fields lie together? Local scores against the product of two independent fields, and their control."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import fftconvolve

Float = NDArray[np.float64]

#: bins of the logarithm, over the range of the data
BINS = 4096


def product_pvalues(first: Float, second: Float) -> Float:
    """P(A B >= a_i b_i) by spot, A and B drawn independently from ``first`` and ``second`` (both >= 0) [n_obs].

    The logarithms' histograms are convolved: time does not grow with the square of the number of spots. Values are
    rounded up by the null and down by the spot, at most two bins, so that p is not too small. At least 1 / n_obs^2.
    """
    n = len(first)
    score = first * second
    out = np.ones(n)
    positive = score > 0
    if not positive.any():
        return out
    logs = [np.log(x[x > 0]) for x in (first, second)]
    low = [float(x.min()) for x in logs]
    width = max(float(np.ptp(logs[0])), float(np.ptp(logs[1])), 1e-9) / (BINS - 1)
    counts = [np.bincount(np.floor((x - m) / width).astype(np.intp), minlength=BINS) for x, m in zip(logs, low)]
    both = np.maximum(np.rint(fftconvolve(counts[0].astype(float), counts[1].astype(float))), 0.0)
    at_least = np.cumsum(both[::-1])[::-1]  # pairs whose bins sum to at least this
    at = np.floor((np.log(score[positive]) - sum(low)) / width).astype(np.intp) - 2
    out[positive] = np.minimum(at_least[np.clip(at, 0, len(at_least) - 1)] / n**2, 1.0)
    return np.maximum(out, 1.0 / n**2)


def adjusted(pvalue: Float) -> Float:
    """q-values of Benjamini & Hochberg 1995."""
    from scipy.stats import false_discovery_control

    return np.asarray(false_discovery_control(pvalue)) if len(pvalue) else pvalue.copy()
