"""Two sections of one block brought to one frame by their genes alone.

The breast block's Visium and Xenium tables share a frame only roughly: the genes that both measure agree best where one
of them is stretched by a twelfth, moved by half a spot and bent a little. Labels have no say in it, and genes that had
none agree better, too: mean correlation .22 and .26 before, .29 and .33 after (``python benchmarks/_registration.py``).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize, sparse

Float = NDArray[np.float64]

#: pixels of the images of genes, and the width that they are blurred by: about the reach of a spot
PIXEL_UM, BLUR_UM = 10.0, 30.0
#: terms of a shift (um), of a stretch (um by mm) and of a bend (um by mm^2), each in x and y
N_LINEAR, N_TERMS = 6, 12
#: the search: size of its first steps, most steps
STEP, MOST_STEPS = 40.0, 1000
#: spots with less than this part of the counts of the tenth emptiest see no tissue of the other section
LEAST_SEEN = 0.3


class Images:
    """Counts of every gene, blurred, wherever they are asked for."""

    def __init__(self, counts: sparse.csr_matrix, xy_um: Float) -> None:
        margin = 10 * BLUR_UM
        self._low = xy_um.min(axis=0) - margin
        shape = np.ceil((xy_um.max(axis=0) + margin - self._low) / PIXEL_UM).astype(int)
        at = np.ravel_multi_index(((xy_um - self._low) / PIXEL_UM).astype(int).T, shape)
        member = sparse.csr_matrix((np.ones(len(at)), (at, np.arange(len(at)))), shape=(shape.prod(), len(at)))
        summed = (member @ counts).toarray().reshape(*shape, -1)
        self._images = [ndimage.gaussian_filter(summed[..., g], BLUR_UM / PIXEL_UM) for g in range(summed.shape[2])]

    def __call__(self, xy_um: Float) -> Float:
        """[n, n_genes]."""
        at = ((xy_um - self._low) / PIXEL_UM - 0.5).T
        return np.stack([ndimage.map_coordinates(image, at, order=1, mode="nearest") for image in self._images], axis=1)


class Agreement:
    """Mean correlation over genes of spots' counts with the other section's at the places that ``by`` takes them to."""

    def __init__(self, spots: Any, cells: Any, genes: list[str]) -> None:
        total = np.asarray(spots.X.sum(axis=1))
        self._counts = np.log1p(1e4 * spots[:, genes].X.toarray() / np.maximum(total, 1))
        self._xy = np.asarray(spots.obsm["spatial_um"], dtype=float)
        self._seen = Images(sparse.csr_matrix(cells[:, genes].X, dtype=float), cells.obsm["spatial_um"])

    def __call__(self, by: Float) -> float:
        seen = self._seen(moved(self._xy, by, self._xy.mean(axis=0)))
        total = seen.sum(axis=1, keepdims=True)
        on = total[:, 0] > LEAST_SEEN * np.quantile(total, 0.1)
        one, two = self._counts[on], np.log1p(1e3 * seen / np.maximum(total, 1e-9))[on]
        one, two = one - one.mean(axis=0), two - two.mean(axis=0)
        return float(((one * two).sum(axis=0) / np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0) + 1e-12)).mean())

    def best(self) -> Float:
        """Terms of the map under which genes agree best, [N_TERMS]: the linear ones first."""
        by = np.zeros(N_TERMS)
        for n in (N_LINEAR, N_TERMS, N_TERMS):
            by[:n] = self._search(by[:n])
        return by

    def _search(self, start: Float) -> Float:
        rest = np.zeros(N_TERMS - len(start))
        corners = start + np.vstack([np.zeros(len(start)), STEP * np.eye(len(start))])
        options = {"initial_simplex": corners, "maxfev": MOST_STEPS, "xatol": 0.5, "fatol": 1e-6, "adaptive": True}
        done = optimize.minimize(lambda by: -self(np.r_[by, rest]), start, method="Nelder-Mead", options=options)
        return np.asarray(done.x)


def moved(xy_um: Float, by: Float, about: Float) -> Float:
    x, y = away = (xy_um - about).T / 1e3
    linear, bend = by[2:N_LINEAR].reshape(2, 2), by[N_LINEAR:].reshape(3, 2)
    return np.asarray(xy_um + by[:2] + away.T @ linear.T + np.stack([x * x, x * y, y * y], axis=1) @ bend)


def registered(spots: Any, cells: Any) -> Float:
    """Positions of the cells in the frame of the spots, um [n_cells, 2]."""
    by, about = Agreement(spots, cells, shared(spots, cells)).best(), spots.obsm["spatial_um"].mean(axis=0)
    there = here = np.asarray(cells.obsm["spatial_um"], dtype=float)
    for _ in range(30):  # the map is all but the identity: its inverse is soon found
        here = here - (moved(here, by, about) - there)
    return here


def shared(spots: Any, cells: Any) -> list[str]:
    return [g for g in cells.var_names if g in set(spots.var_names)]


def main() -> None:
    """Halves of the genes: what one finds, and how far the other agrees before and after."""
    import lr_platforms

    spots, cells = lr_platforms.as_given()
    genes = np.random.default_rng(0).permutation(shared(spots, cells))
    halves, rows = [Agreement(spots, cells, sorted(part)) for part in (genes[::2], genes[1::2])], []
    for one, two in (halves, halves[::-1]):
        by = one.best()
        rows.append({"by": by.round(1).tolist(), "other half before": two(np.zeros(N_TERMS)), "after": two(by)})
    json.dump(rows, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
