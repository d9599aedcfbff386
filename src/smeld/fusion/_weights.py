"""Fusion weights from the data: each is kept only if it predicts held-out counts better, and the evidence is stated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from smeld.kernels import evidence, expression, shared, smooth
from smeld.kernels.graph import SpatialGraph
from smeld.kernels.rows import Rows

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: strengths looked at, in units of the mean degree
ALPHAS = tuple(0.25 * 2**i for i in range(8))
POWERS = (0.5, 1.0, 2.0)
BANDWIDTHS = (0.5, 1.0, 2.0)
#: Domains are larger than what predicts a spot best: the strongest smoothing that keeps this share of the best score,
KEPT_SHARE = 0.95
#: but no stronger than 1.5 per neighbour of a hexagonal lattice, where regions of a few spots still survive.
#: It is also the fixed default, inside the range (1.5 to 6 per neighbour) over which results on cortex hardly change.
STRONGEST = 9.0
#: the say of morphology where no evidence is asked for: similar tissue counts more, none is cut off
GAMMA = 0.5
#: a modality is let in where its gain is this many standard errors (over spatial blocks) above 0: one-sided 5 %
MIN_Z = 1.645
#: components of morphology that may join the embedding; they do where morphology is at least half as good a witness of
#: the regions as an independent half of the counts
MORPHOLOGY, WITNESS = (3, 5, 8), 0.5
N_SPLITS, N_BLOCKS = 3, 32
#: genes, those of highest Moran's I, on which weights are judged: more take longer and say the same
JUDGED_GENES = 1_000
#: larger sections are judged on compact pieces with about this many spots in all
MOST_SPOTS = 20_000

COLUMNS = ["what", "setting", "score", "se", "gain", "gain_se", "chosen"]


@dataclass(frozen=True)
class Weights:
    """``alpha`` smoothing strength; ``alpha_best`` the one that predicts held-out counts best (for denoising);
    ``sigma_um`` bandwidth; ``gamma`` and ``eta`` the say of morphology and expression in an edge; ``n_morphology``
    components of morphology in the embedding."""

    alpha: float
    alpha_best: float
    sigma_um: float
    gamma: float = 0.0
    eta: float = 0.0
    n_morphology: int = 0


@dataclass(frozen=True)
class Given:
    """What the user fixed; None is left to the data."""

    alpha: float | None = None
    sigma_um: float | None = None
    gamma: float | None = None
    eta: float | None = None
    n_morphology: int | None = None

    @property
    def all(self) -> bool:
        """True if nothing is left to choose."""
        return None not in (self.alpha, self.sigma_um, self.gamma, self.eta, self.n_morphology)


def neighbour_distance(graph: SpatialGraph) -> float:
    """Median length of the edges, the unit of bandwidths."""
    return float(np.median(graph.distances.data)) if graph.distances.nnz else 1.0


def fixed(given: Given, graph: SpatialGraph, *, morphology: bool) -> Weights:
    """Weights without evidence: what was given, else the defaults."""
    alpha = STRONGEST if given.alpha is None else given.alpha
    sigma = neighbour_distance(graph) if given.sigma_um is None else given.sigma_um
    gamma = GAMMA if given.gamma is None else given.gamma
    n_morphology = (given.n_morphology or 0) if morphology else 0
    return Weights(alpha, alpha, sigma, gamma if morphology else 0.0, given.eta or 0.0, n_morphology)


@dataclass(frozen=True)
class Witness:
    """``n_components`` of morphology: the share of held-out variance that they predict by themselves in regions not
    seen, and their ``agreement`` with expression beside that of expression with itself (looked at only where the first
    is significant)."""

    n_components: int
    transfer: evidence.Score
    agreement: tuple[float, float] = (0.0, 0.0)

    @property
    def transfers(self) -> bool:
        """True if the share is significantly above 0."""
        gain, se = self.transfer.gain_over(evidence.Score(np.zeros_like(self.transfer.by_block)))
        return gain > MIN_Z * max(se, 1e-12)

    @property
    def good(self) -> bool:
        """True if morphology is witness enough to help define regions."""
        return self.agreement[1] > 0 and self.agreement[0] >= WITNESS * self.agreement[1]


class Judge:
    """Scores weights on one section's count splits. A score is the share of the held-out variance that the
    surroundings of a spot predict; nothing known of them scores 0."""

    def __init__(
        self,
        counts: Rows,
        morphology: Float | None,
        graph: SpatialGraph,
        *,
        batch: NDArray[np.integer] | None = None,
        seed: int,
        n_genes: int,
        n_components: int,
    ) -> None:
        rows = _sample(graph)
        distances = sparse.csr_matrix(graph.distances[rows][:, rows])
        connectivities = sparse.csr_matrix(graph.connectivities[rows][:, rows])
        self.distances = distances
        self.connected = np.diff(distances.indptr) > 0
        self.trials = evidence.trials(
            counts.take(rows),
            connectivities,
            n_splits=N_SPLITS,
            n_genes=min(n_genes, JUDGED_GENES),
            n_components=n_components,
            seed=np.random.SeedSequence(seed),
        )
        if batch is not None:
            self.trials = [evidence.within_sections(t, batch[rows]) for t in self.trials]
        self.features = np.zeros((len(rows), 0)) if morphology is None else morphology[rows]
        self.seed = seed
        self.block = evidence.blocks(graph.xy_um[rows], N_BLOCKS)
        self.similar_m = None if morphology is None else smooth.edge_similarity(morphology[rows], distances)
        self._similar_e: dict[float, list[Float]] = {}

    def score(self, weights: Weights) -> evidence.Score:
        """Predicted share of the held-out variance."""
        if weights.eta > 0:
            similar_e = self._expression(weights.sigma_um)
            predictions = [self._left_out(weights, t.scores, similar) for t, similar in zip(self.trials, similar_e)]
        else:  # one smoother for all trials
            together = self._left_out(weights, np.hstack([t.scores for t in self.trials]), None)
            ends = np.cumsum([t.scores.shape[1] for t in self.trials])[:-1]
            predictions = np.split(together, ends, axis=1)
        return evidence.score(predictions, self.trials, self.block)

    def _left_out(self, weights: Weights, scores: Float, similar_e: Float | None) -> Float:
        operator = evidence.smoother(self._edges(weights, similar_e), weights.alpha)
        return evidence.left_out(operator, scores, connected=self.connected)

    def _edges(self, weights: Weights, similar_e: Float | None) -> sparse.csr_matrix:
        return smooth.sme_weights(
            self.distances,
            sigma_um=weights.sigma_um,
            morphology=self.similar_m,
            expression=similar_e,
            gamma=weights.gamma,
            eta=weights.eta,
        )

    def witness(self, sigma_um: float, numbers: tuple[int, ...]) -> Witness:
        """What components of morphology, smoothed in space alone, say by themselves; of ``numbers`` the one that agrees
        best with expression among those that predict held-out counts in regions not seen."""
        edges = smooth.sme_weights(self.distances, sigma_um=sigma_um)
        everything = shared.components(edges, self.features, STRONGEST, max(numbers))
        tried = [Witness(q, shared.transfer(everything[:, :q], self.trials, self.block)) for q in numbers]
        able = [w for w in tried if w.transfers]
        if not able or not everything.shape[1]:
            return max(tried, key=lambda w: w.transfer.mean)
        seed = np.random.SeedSequence(self.seed)
        regions = shared.regions(self.trials[:2], edges, STRONGEST, seed=seed)
        scored = [
            replace(w, agreement=shared.agreement(everything[:, : w.n_components], regions, seed=seed)) for w in able
        ]
        return max(scored, key=lambda w: w.agreement[0])

    def _expression(self, sigma_um: float) -> list[Float]:
        """Similarity of what surrounds the ends, without the ends: a spot must not choose its neighbours by the values
        that are to be predicted from them."""
        if sigma_um not in self._similar_e:
            edges = smooth.sme_weights(self.distances, sigma_um=sigma_um)
            around = [smooth.surroundings(edges, t.scores) for t in self.trials]
            self._similar_e[sigma_um] = [smooth.edge_similarity(a, self.distances) for a in around]
        return self._similar_e[sigma_um]


def _sample(graph: SpatialGraph) -> NDArray[np.intp]:
    """All spots, or compact pieces spread over a large section."""
    n = len(graph.xy_um)
    if n <= MOST_SPOTS:
        return np.arange(n)
    pieces = evidence.blocks(graph.xy_um, 2 ** int(np.ceil(np.log2(n / 1000))))
    take = max(1, round(MOST_SPOTS / (n / (pieces.max() + 1))))
    chosen = np.linspace(0, pieces.max(), take).round().astype(int)
    return np.flatnonzero(np.isin(pieces, chosen))


def choose(judge: Judge, given: Given, graph: SpatialGraph, *, morphology: bool) -> tuple[Weights, pd.DataFrame]:
    """Weights by coordinate search, and the table of what each modality adds.

    First the strength with space alone, then bandwidth, morphology and expression in the edges, each left alone unless
    its best setting gains significantly; last morphology's components in the embedding.
    """
    start = Weights(1.0, 1.0, given.sigma_um or neighbour_distance(graph))
    strengths = ALPHAS if given.alpha is None else (given.alpha,)
    scored = {alpha: judge.score(replace(start, alpha=alpha)) for alpha in strengths}
    best = max(scored, key=lambda alpha: scored[alpha].mean)
    nothing = evidence.Score(np.zeros_like(scored[best].by_block))
    weights, current = replace(start, alpha=best, alpha_best=best), scored[best]
    rows = [_row("space", f"alpha {best:g}", current, nothing, True)]
    steps: list[tuple[str, str, float | None, Iterable[float]]] = [
        ("bandwidth", "sigma_um", given.sigma_um, (s * weights.sigma_um for s in BANDWIDTHS if s != 1)),
        ("morphology", "gamma", given.gamma, POWERS if morphology else ()),
        ("expression", "eta", given.eta, POWERS),
    ]
    for what, name, fixed_value, settings in steps:
        weights, current, row = _step(judge, weights, current, what, name, fixed_value, list(settings))
        rows += [row] if row else []
    if morphology:
        weights, row = _components(judge, weights, given.n_morphology)
        rows += [row] if row else []
    if given.alpha is None:
        weights = replace(weights, alpha=_domain_strength(judge, weights))
        rows.append(_row("used for domains", f"alpha {weights.alpha:g}", judge.score(weights), nothing, True))
    return weights, _table(rows)


def _step(
    judge: Judge,
    weights: Weights,
    current: evidence.Score,
    what: str,
    name: str,
    fixed_value: float | None,
    settings: list[float],
) -> tuple[Weights, evidence.Score, dict[str, object] | None]:
    """One coordinate: the best setting if it gains enough, or the user's.

    Scores within ``1 - KEPT_SHARE`` of each other count as equal when the strength is chosen for regions; what merely
    shapes the smoothing must gain more than that. A modality must only gain significantly.
    """
    settings = settings if fixed_value is None else [fixed_value] if fixed_value > 0 and name != "sigma_um" else []
    if not settings:
        return weights, current, None
    changes: list[dict[str, Any]] = [{name: value} for value in settings]
    tried = [replace(weights, **change) for change in changes]
    scores = [judge.score(t) for t in tried]
    i = int(np.argmax([s.mean for s in scores]))
    gain, se = scores[i].gain_over(current)
    least = 0.0 if name == "gamma" else (1 - KEPT_SHARE) * current.mean
    take = fixed_value is not None or gain > max(MIN_Z * se, least, 1e-12)
    row = _row(what, f"{name} {settings[i]:g}", scores[i], current, take)
    return (tried[i], scores[i], row) if take else (weights, current, row)


def _components(judge: Judge, weights: Weights, given: int | None) -> tuple[Weights, dict[str, object] | None]:
    """Components of morphology in the embedding, if it is witness enough of the regions that expression shows."""
    most = max(len(judge.features) // expression.SPOTS_PER_COMPONENT, 1)
    numbers = tuple(q for q in MORPHOLOGY if q <= most) if given is None else (max(given, 1),)
    if not numbers:
        return weights, None
    witness = judge.witness(weights.sigma_um, numbers)
    n = given if given is not None else witness.n_components if witness.good else 0
    setting = f"{witness.n_components} components"
    if witness.agreement[1] > 0:
        setting += f", agreement {witness.agreement[0]:.2f} (expression with itself {witness.agreement[1]:.2f})"
    nothing = evidence.Score(np.zeros_like(witness.transfer.by_block))
    return replace(weights, n_morphology=n), _row("morphology alone", setting, witness.transfer, nothing, n > 0)


def _domain_strength(judge: Judge, weights: Weights) -> float:
    """The strongest smoothing, up to ``STRONGEST``, that keeps ``KEPT_SHARE`` of the best score."""
    stronger: Callable[[float], bool] = lambda alpha: alpha > weights.alpha_best  # noqa: E731
    best = judge.score(weights).mean
    chosen = weights.alpha_best
    for alpha in sorted({*filter(stronger, (a for a in ALPHAS if a < STRONGEST)), STRONGEST}):
        if alpha <= chosen or judge.score(replace(weights, alpha=alpha)).mean < KEPT_SHARE * best:
            break
        chosen = alpha
    return min(chosen, STRONGEST)


def _row(
    what: str, setting: str, score: evidence.Score, before: evidence.Score | None, chosen: bool
) -> dict[str, object]:
    gain, gain_se = score.gain_over(before) if before is not None else (np.nan, np.nan)
    se = float(score.by_block.std(ddof=1) / np.sqrt(len(score.by_block)))
    return dict(zip(COLUMNS, (what, setting, score.mean, se, gain, gain_se, chosen), strict=True))


def _table(rows: list[dict[str, object]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=COLUMNS)
