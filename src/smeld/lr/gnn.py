"""Do the genes of a cell that has the receptor answer to the ligand of its neighbours? A graph network's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats
from scipy.spatial import cKDTree

from smeld import _check, _progress, nn
from smeld.kernels import crosscov, expression
from smeld.kernels._threads import one_thread
from smeld.kernels.surrogates import REACH
from smeld.lr._statistic import LRResult, lr_stats

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Ints = NDArray[np.intp]

#: copies of the section with the senders moved elsewhere, for the null; and others for training
N_MOVES, N_TRAINING = 199, 24
#: a p-value read off a distribution fitted to that many copies is not believed below this
LEAST_P = 1e-6
#: share of the section's sides by which a copy is shifted at most
SHIFT = 0.25
#: genes that are predicted, the most variable of those in no pair; of as many spots at least
MOST_GENES, MIN_SPOTS = 1000, 20
#: genes outside all pairs without which nothing can be predicted
FEWEST_GENES = 20
#: components of expression that count as the cell's own state, at most one for so many genes: of a small panel they
#: would take away what a few genes have in common, the answer to a pair among it; and waves along each side
N_COMPONENTS, GENES_A_COMPONENT, N_WAVES = 20, 30, 3
#: blocks along each side of a section, left out one by one
BLOCKS = 3
#: genes named by pair
N_NAMED = 5


@dataclass(frozen=True)
class Predicted(LRResult):
    """Also, for every pair, ``by_type`` [n_pairs, n_types, n_types] the effect by type of sender and of receiver
    (adding up to ``effect``), and its best predicted genes: their numbers in ``background`` [n_pairs, 5] (-1: none) and
    the share of each one's variance [n_pairs, 5]."""

    by_type: Float | None = None
    best: Ints | None = None
    explained: Float | None = None

    @staticmethod
    def joined(merged: LRResult, parts: Sequence[tuple[list[int], Predicted]]) -> Predicted:
        """Results of the pairs numbered in each part as one; ``merged`` what all statistics have."""
        back = np.argsort(np.concatenate([rows for rows, _ in parts]))
        by_type, best, explained = (
            np.concatenate([getattr(r, name) for _, r in parts])[back] for name in ("by_type", "best", "explained")
        )
        return Predicted(merged.effect, merged.zscore, merged.pvalue, by_type=by_type, best=best, explained=explained)

    def table(self, pairs: pd.DataFrame, types: Sequence[str], genes: Sequence[str]) -> pd.DataFrame:
        """A row a pair, sender and receiver, largest effect first; ``genes`` the names of the background."""
        import pandas as pd

        if self.by_type is None or self.best is None:
            raise _check.problem("these results hold no table by type", cure="run statistic='gnn' again")
        n, k = self.by_type.shape[:2]
        named = [" ".join(genes[g] for g in row if g >= 0) for row in self.best]
        label = np.asarray(types, dtype=object)
        made = pd.DataFrame(
            {
                "ligand": np.repeat(pairs["ligand"].to_numpy(dtype=object), k * k),
                "receptor": np.repeat(pairs["receptor"].to_numpy(dtype=object), k * k),
                "sender": np.tile(np.repeat(label, k), n),
                "receiver": np.tile(label, n * k),
                "gain": self.by_type.ravel(),
                "genes": np.repeat(np.asarray(named, dtype=object), k * k),
            }
        )
        rank = np.lexsort((*(made[c] for c in ("receiver", "sender", "receptor", "ligand")), -made["gain"].round(9)))
        return made.iloc[rank].reset_index(drop=True)


@lr_stats.add("gnn", cite="cf. Fischer et al. 2023 (NCEM), doi:10.1038/s41587-022-01467-z", background=True, state=True)
def gnn(
    genes: sparse.csc_matrix,
    pairs: Ints,
    weights: sparse.csr_matrix,
    xy_um: Float,
    *,
    background: sparse.csc_matrix,
    state: Float | None = None,
    types: Float | None = None,
    section: Ints | None = None,
    network: bool = True,
    seed: int = 0,
) -> Predicted:
    """Genes of the receiving cell, predicted from the ligand around it where it has the receptor, in blocks left out.

    The genes in no pair are what is predicted: at most 1,000, the most variable. First what a cell's own state and its
    place say is regressed out: ``state`` [n_obs, k] (log of the library first, then labels), up to 20 components of
    these genes, three waves along each side of the section, and the receptor itself. What is left is predicted by one
    message a pair, the ligand of the neighbours times the receptor of the cell and around it, passed through a small
    network that all pairs share (``nn/_gnn.py``) where that predicts clearly better in blocks it did not learn from;
    without ``network`` always the product as it is.

    ``effect`` is the sum over genes of the share of their variance that is predicted in blocks of the section that the
    slopes were not fitted to. The null has the senders (ligands and types) turned, mirrored and shifted about the
    section, so that they are as smooth as they were: ``zscore`` by mean and spread of 199 such copies, ``pvalue`` by a
    gamma distribution of their first three moments, not below 1e-6. Pairs share a network, so that a pair's p depends a
    little on the others.

    ``types`` [n_obs, n_types] shares of cell types, for the effect by sender and receiver; ``section`` int [n_obs].

    Raises
    ------
    InputError
        Without torch, or if fewer than 20 genes outside all pairs are seen here.
    """
    nn.require("statistic='gnn'", "torch", instead="use statistic='spatial'")
    from smeld.nn import _device

    types = np.ones((len(xy_um), 1)) if types is None else types
    made = _Task.of(genes, np.unique(pairs, axis=0), weights, xy_um, background, state, types, section)
    with one_thread(), _device.one_thread():
        messages = made.messages(network, seed)
        gain = made.gains(messages.right)
        null = np.stack([made.gains(m) for m in messages.moved()])
        by_type, best, explained = made.details(messages)
    z, p = _judged(gain, null)
    back = np.unique(pairs, axis=0, return_inverse=True)[1].ravel()
    scale = len(xy_um)
    return Predicted(
        (gain / scale)[back], z[back], p[back], by_type=by_type[back], best=best[back], explained=explained[back]
    )


def _judged(gain: Float, null: Float) -> tuple[Float, Float]:
    """(z, one-sided p) of gains [q] beside those of copies [n_moves, q]: gamma distributions of the copies' mean,
    spread and skewness (Pearson's type III), for gains are sums of squares."""
    mean, sd = null.mean(axis=0), null.std(axis=0)
    varies = sd > 1e-9 * np.maximum(np.abs(null).max(axis=0), 1.0)
    z = np.divide(gain - mean, sd, out=np.zeros_like(gain), where=varies)
    skew = np.where(varies, stats.skew(null / np.where(varies, sd, 1.0), axis=0), 0.0)
    p = stats.pearson3.sf(z, np.clip(np.nan_to_num(skew), 0.05, 4.0))
    return z, np.where(varies, np.clip(p, LEAST_P, 1.0), 1.0)


def moved(xy_um: Float, n: int, rng: np.random.Generator, section: Ints | None = None) -> Ints:
    """``n`` copies of the section turned (every other one mirrored) and shifted: for every spot the one whose values it
    gets, int [n, n_obs]. What comes to lie outside is mirrored at the outline. Each ``section`` by itself."""
    out = np.empty((n, len(xy_um)), dtype=np.intp)
    parts = [np.arange(len(xy_um))] if section is None else [np.flatnonzero(section == s) for s in np.unique(section)]
    pieces = [(rows, cKDTree(xy_um[rows]), REACH * crosscov.spacing(xy_um[rows])) for rows in parts]
    for i, angle in enumerate(rng.uniform(np.pi / 6, 2 * np.pi - np.pi / 6, n)):
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, -s], [s, c]]) @ np.diag([1.0 - 2.0 * (i % 2), 1.0])
        shift = rng.uniform(-SHIFT, SHIFT, 2)
        for rows, tree, reach in pieces:
            out[i, rows] = rows[_landed(tree, turn, shift, reach)]
    return out


def _landed(tree: cKDTree, turn: Float, shift: Float, reach: float) -> Ints:
    low, high = np.quantile(tree.data, [0.01, 0.99], axis=0)  # a stray spot does not move the middle
    middle = (low + high) / 2
    at = (tree.data - middle) @ turn.T + middle + shift * (high - low)
    distance, nearest = tree.query(at)
    for _ in range(3):  # a corner may need it twice
        outside = distance > reach
        at[outside] = 2 * tree.data[nearest[outside]] - at[outside]
        distance[outside], nearest[outside] = tree.query(at[outside])
    return np.asarray(nearest, dtype=np.intp)


def _blocks(xy_um: Float, section: Ints | None) -> Ints:
    """Block of every spot, row by row of a square; each section is cut by itself."""
    out = np.zeros(len(xy_um), dtype=np.intp)
    for s in [None] if section is None else np.unique(section):
        rows = np.arange(len(xy_um)) if s is None else np.flatnonzero(section == s)
        rank = np.argsort(np.argsort(xy_um[rows], axis=0, kind="stable"), axis=0, kind="stable")
        row, column = (rank * BLOCKS // len(rows)).T
        out[rows] = row * BLOCKS + column
    return out


def _parts(block: Ints, half: int) -> list[NDArray[np.bool_]]:
    """Cells of one half (the fields of a chequered board) in three: two to learn in, one that says when to stop."""
    mine = [b for b in range(BLOCKS**2) if (b // BLOCKS + b % BLOCKS) % 2 == half]
    return [np.isin(block, mine[k::3]) for k in range(3)]


@dataclass(frozen=True)
class _Messages:
    """The messages [n_obs, q] of the section as it is (``right``); of copies; and by type of sender."""

    right: Float
    task: _Task
    models: list[Any]
    at: Any
    moves: Ints

    def moved(self) -> Iterator[Float]:
        for move in _progress.track(self.moves, "copies of the section", len(self.moves)):
            yield self.task.passed(self.models, self.at, self.task.ligand, move)


@dataclass(frozen=True)
class _Task:
    """Arrays of a section: ``y`` [n, n_genes] of variance 1 and which columns of the background these are, ``ligand``
    and ``receptor`` [n, q], ``known`` orthonormal [n, k], ``state`` standardised, ``block`` of each cell."""

    y: NDArray[np.float32]
    column: Ints
    ligand: Float
    receptor: Float
    known: Float
    state: Float
    types: Float
    weights: sparse.csr_matrix
    xy: Float
    block: Ints
    section: Ints | None

    @classmethod
    def of(
        cls,
        genes: sparse.csc_matrix,
        pairs: Ints,
        weights: sparse.csr_matrix,
        xy: Float,
        background: sparse.csc_matrix,
        state: Float | None,
        types: Float,
        section: Ints | None,
    ) -> _Task:
        own = np.hstack([np.ones((len(xy), 1)), *([] if state is None else [state]), types])
        column = _predicted(background)
        chosen = sparse.csr_matrix(background[:, column], dtype=np.float64)
        with one_thread():
            n_parts = min(N_COMPONENTS, max(len(column) // GENES_A_COMPONENT, 1), len(xy) - 1)
            parts = expression.scaled_pca(chosen, n_parts, seed=0)[0]
            known = _orthonormal(np.hstack([own, parts, _waves(xy, section)]))
            y = _beyond(known, chosen.toarray())
            # in place before they are moved: what counting has to do with it must not differ between right and moved
            ligand = _beyond(_orthonormal(own[:, :1] if state is None else own[:, :2]), genes[:, pairs[:, 0]].toarray())
        spread = y.std(axis=0)
        kept = spread > 1e-3
        receptor = genes[:, pairs[:, 1]].toarray().astype(np.float64)
        return cls(
            np.asarray(y[:, kept] / spread[kept], dtype=np.float32),
            column[kept],
            _of_spread_one(ligand),
            receptor / np.maximum(receptor.mean(axis=0), 1e-12),
            known,
            _of_spread_one(np.hstack([own[:, 1:], parts]) - np.hstack([own[:, 1:], parts]).mean(axis=0)),
            types,
            weights,
            xy,
            _blocks(xy, section),
            section,
        )

    def messages(self, network: bool, seed: int) -> _Messages:
        """Of a network for each half of the section, trained in the other half."""
        from smeld.nn import _gnn

        around, rest = np.asarray(self.weights @ self.receptor), _beyond(self.known, self.receptor)
        length = np.sqrt((rest**2).sum(axis=0))
        own = np.divide(rest, length, out=np.zeros_like(rest), where=length > 1e-6)
        at = _gnn.section(self.state, self.weights, self.receptor, around=around, known=self.known, own=own)
        rng = np.random.default_rng(seed)
        moves, training = (moved(self.xy, n, rng, self.section) for n in (N_MOVES, N_TRAINING))
        learnt_from = [_gnn.tensor(v) for v in (self.ligand, self.y, training)]
        models = [
            _gnn.trained(at, *learnt_from, parts=_parts(self.block, 1 - half), seed=seed, epochs=None if network else 0)
            for half in (0, 1)
        ]
        return _Messages(self.passed(models, at, self.ligand), self, models, at, moves)

    def passed(self, models: list[Any], at: Any, ligand: Float, move: Ints | None = None) -> Float:
        """Messages [n, q], each half of the section by the network trained in the other."""
        from smeld.nn import _gnn

        half = (self.block // BLOCKS + self.block % BLOCKS) % 2
        both = [_gnn.passed(model, at, ligand, move) for model in models]
        return np.asarray(np.where(half[:, None] == 0, both[0], both[1]), dtype=np.float64)

    def folds(self, message: Float) -> Iterator[tuple[Ints, Float, Float, Float]]:
        """By block: its cells, slopes [q, n_genes] from all other cells, products [q, n_genes] and power [q] in it."""
        from smeld.nn import _gnn

        single = message.astype(np.float32)
        cells = [np.flatnonzero(self.block == b) for b in range(BLOCKS**2)]
        products = [(single[c].T @ self.y[c]).astype(np.float64) for c in cells]
        powers = [(message[c] ** 2).sum(axis=0) for c in cells]
        product, power = np.sum(products, axis=0), np.sum(powers, axis=0)
        least = _gnn.SHRINK * _excess(product**2 / np.maximum(power, 1e-6)[:, None])[:, None]
        for c, inside, strength in zip(cells, products, powers):
            rest = np.maximum(power - strength, 1e-6)[:, None]
            slope = (product - inside) / rest
            slope *= np.maximum(1 - least / np.maximum(slope**2 * rest, 1e-6), 0.0)
            yield c, slope, inside, strength

    def gains(self, message: Float) -> Float:
        """Squared error taken off in blocks left out, [q]."""
        out = np.zeros(message.shape[1])
        for _, slope, product, power in self.folds(message):
            out += (2 * slope * product - slope**2 * power[:, None]).sum(axis=1)
        return out

    def details(self, messages: _Messages) -> tuple[Float, Ints, Float]:
        """Gain over n by pair, sender and receiver; the best genes of each pair and how much of each is predicted."""
        n, q = messages.right.shape
        parts = [self.passed(messages.models, messages.at, self.ligand * share[:, None]) for share in self.types.T]
        by_type, by_gene = np.zeros((q, len(parts), len(parts))), np.zeros((q, self.y.shape[1]))
        for cells, slope, product, power in self.folds(messages.right):
            by_gene += 2 * slope * product - slope**2 * power[:, None]
            pull = 2 * self.y[cells] @ slope.T - messages.right[cells] * (slope**2).sum(axis=1)
            for s, part in enumerate(parts):
                by_type[:, s] += (pull * part[cells]).T @ self.types[cells]
        best = np.argsort(-by_gene, axis=1, kind="stable")[:, :N_NAMED]
        value = np.take_along_axis(by_gene, best, axis=1) / n
        return by_type / n, np.where(value > 0, self.column[best], -1), np.maximum(value, 0.0)


def _excess(square: Float) -> Float:
    """How much larger the chi-squares [q, n_genes] of most genes are than those of cells that know nothing of each
    other, [q], at least 1: two smooth maps agree by chance."""
    return np.asarray(np.maximum(np.median(square, axis=1) / stats.chi2.median(1), 1.0))


def _predicted(background: sparse.csc_matrix) -> Ints:
    """Columns of the genes that are predicted: the most variable that enough cells have."""
    seen = np.flatnonzero(np.diff(background.indptr) >= MIN_SPOTS)
    if len(seen) < FEWEST_GENES:
        raise _check.problem(
            f"statistic='gnn' predicts genes that are in no pair and needs {FEWEST_GENES} of them",
            found=f"{len(seen)} genes outside the pairs in {MIN_SPOTS} spots or more",
            cure="statistic='spatial' needs no background",
        )
    sd = expression.mean_and_sd(sparse.csr_matrix(background[:, seen], dtype=np.float64))[1]
    return np.sort(seen[np.argsort(-sd, kind="stable")[:MOST_GENES]]).astype(np.intp)


def _waves(xy: Float, section: Ints | None) -> Float:
    """Products of cosines along both sides, the longest; one set for each section."""
    part = np.zeros(len(xy), dtype=np.intp) if section is None else section
    out = []
    for s in np.unique(part):
        here = xy[part == s]
        at = (here - here.min(axis=0)) / np.maximum(np.ptp(here, axis=0), 1e-9)
        x, y = (np.cos(np.pi * np.arange(N_WAVES) * at[:, [k]]) for k in (0, 1))
        wave = np.zeros((len(xy), N_WAVES**2))
        wave[part == s] = (x[:, :, None] * y[:, None, :]).reshape(len(here), -1)
        out.append(wave)
    return np.hstack(out)


def _orthonormal(columns: Float) -> Float:
    length = np.linalg.norm(columns, axis=0)
    left, singular, _ = np.linalg.svd(columns[:, length > 0] / length[length > 0], full_matrices=False)
    return np.asarray(left[:, singular > singular.max() * 1e-6])


def _beyond(basis: Float, values: Float) -> Float:
    return np.asarray(values - basis @ (basis.T @ values))


def _of_spread_one(values: Float) -> Float:
    spread = values.std(axis=0)
    return np.asarray(values / np.where(spread > 1e-9, spread, 1.0))
