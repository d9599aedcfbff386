"""Several sections in one embedding: what sets sections apart, but not the groups within them, is taken out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from smeld.kernels import mixture

Float = NDArray[np.float64]

#: groups of the mixture that stands for what the sections hold; it need not be the number of domains
N_GROUPS = 10
N_ROUNDS = 10
#: rounds end when no offset moves by more than this share of the embedding's standard deviation
TOLERANCE = 1e-3


def offsets(x: Float, section: NDArray[np.integer], *, seed: np.random.SeedSequence) -> Float:
    """Shift of each section in the embedding ``x`` [n_obs, d], float64 [n_sections, d].

    The model is x_i = mean of i's group + offset of i's section + noise. Plain centring of the sections would take
    away what differs because they hold more of one group; here the groups' shares are free: a mixture with one shared
    covariance (``kernels.mixture``) is fitted to the shifted data, each section's offset is the mean of what its
    groups leave unexplained, and so on. Subtracting the offsets leaves the mean over all spots where it was.
    """
    n_sections = int(section.max()) + 1
    size = np.maximum(np.bincount(section, minlength=n_sections), 1)[:, None].astype(np.float64)
    total = _by_section(x, section, n_sections) / size - x.mean(axis=0)
    scale = np.maximum(x.std(axis=0), 1e-12)
    k = min(N_GROUPS, max(2, len(x) // 30))
    for child in seed.spawn(N_ROUNDS):
        shifted = x - total[section]
        model = mixture.fit(shifted, k, seed=child, n_starts=3)[0]
        unexplained = shifted - model.predict_proba(shifted) @ model.means
        step = _by_section(unexplained, section, n_sections) / size
        total = total + step
        if (np.abs(step) / scale).max() < TOLERANCE:
            break
    share = size / len(x)
    return np.asarray(total - (share * total).sum(axis=0))


def _by_section(x: Float, section: NDArray[np.integer], n_sections: int) -> Float:
    out = np.zeros((n_sections, x.shape[1]))
    np.add.at(out, section, x)
    return out
