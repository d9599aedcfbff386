"""Denoised expression as a posterior, with intervals: where the graph VAE and the deterministic prior expect a rate,
how far held-out counts say that both are off, and the spot's own count.

The model. Counts are x_ig ~ Poisson(lambda_ig), lambda_ig ~ Gamma of mean mu_ig = N_i s_ig and squared coefficient of
variation about d_g + c v_ig: s blends the decoder's shares with those of the deterministic prior, v is the variance of
log s over draws of the VAE's posterior, d_g the gene's dispersion about s. A fifth of the counts is hidden from this
and from the network's training: how they differ from what the others predict gives d_g (by moments, shrunk towards that
of all genes, so that a rare gene has no interval of width 0), and their Poisson likelihood the blend, a factor of d and
c; last, by their negative-binomial likelihood, a factor of the posterior's variance, for a spot's count is in s too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from smeld.kernels import denoise as kernel
from smeld.kernels import split
from smeld.kernels._threads import one_thread
from smeld.tl import _denoise_network as network
from smeld.tl._denoise_network import How, Network, Section

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Float32 = NDArray[np.float32]
Index = NDArray[np.intp]

#: the decoder's share of the prior; factor of the genes' dispersion; factor of the VAE's own variance
BLENDS, OWN, SPREAD = (
    (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    (0.3, 0.4, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0),
    (0.0, 1.0, 3.0, 10.0),
)
#: factors of the posterior's variance
WIDTHS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2.0, 2.5, 3.0)
#: spots and genes whose hidden counts choose, and spots that a gene's dispersion is taken from
MOST_SPOTS, MOST_GENES, MOST_FOR_DISPERSION = 600, 1000, 2000
#: share of the counts that is not hidden
SEEN = 0.8
#: bounds of a dispersion
LEAST, MOST = 1e-4, 10.0
BLOCK = 512


class View:
    """What some counts, all or half of them, say of the rates."""

    def __init__(self, section: Section, counts: sparse.csr_matrix, size: Float, made: Network | None) -> None:
        self.counts, self.size, self.network, self.settings = counts, size, made, section.settings
        gene = kernel.gene_moments(counts, size)
        q = section.scores(counts, size)
        self.made = kernel.prior(counts, size, gene, q, ridge=section.settings.ridge)
        self.place = np.full(counts.shape[1], -1, dtype=np.intp)
        if made is not None:
            self.rates = made.rates(counts)
            self.place[made.genes] = made.columns
            inside = np.asarray(counts[:, made.genes].sum(axis=1, dtype=np.float64)).ravel()
            self.inside = np.divide(inside, size, out=np.zeros_like(size), where=size > 0)
            self.ratio = self._ratio(made)

    def _ratio(self, made: Network) -> Float32:
        """What the decoder gives a gene over the whole section is put right: a saved model knows another one."""
        expected = np.zeros(made.model.shape.n_genes)
        for rows in _blocks(len(self.size)):
            expected += (self.size * self.inside)[rows] @ self.rates.share(rows)
        seen = np.asarray(self.counts[:, made.genes].sum(axis=0, dtype=np.float64)).ravel()
        ratio = np.zeros(len(expected))
        ratio[made.columns] = (seen + 1) / (expected[made.columns] + 1)
        return ratio.astype(np.float32)

    def share(self, rows: Index, genes: Index) -> Float32:
        """Of the deterministic prior, [n_rows, n_genes], never 0."""
        with one_thread():
            rate = self.made.left[rows] @ self.made.right[:, genes]
        mean = self.made.share[genes].astype(np.float32)
        return np.asarray((1 - kernel.MIX) * np.maximum(rate, kernel.FLOOR * mean) + kernel.MIX * mean, np.float32)

    def deterministic(self, rows: Index, genes: Index) -> Float32:
        """Expected counts of ``method="sme"``."""
        own = self.settings.own * kernel.own_dispersion(self.counts, self.size, self.made)
        return kernel.expected(
            self.counts, self.size, self.made, own, trust=self.settings.trust, genes=genes, rows=rows
        )

    def learned(self, rows: Index, genes: Index) -> tuple[Float32, Float32]:
        """(the decoder's share, variance of its logarithm); elsewhere the deterministic one, and 0."""
        share = self.share(rows, genes)
        variance = np.zeros_like(share)
        here = np.flatnonzero(self.place[genes] >= 0)
        if self.network is not None and len(here):
            at = self.place[genes[here]]
            found = self.rates.share(rows) * self.ratio
            found *= (self.inside[rows] / np.maximum(found.sum(axis=1), 1e-12)).astype(np.float32)[:, None]
            mean = self.made.share[genes[here]].astype(np.float32)
            share[:, here] = (1 - kernel.MIX) * found[:, at] + kernel.MIX * mean
            variance[:, here] = self.rates.variance(rows)[:, at]
        return share, variance


@dataclass(frozen=True)
class Fit:
    """What hidden counts chose: ``blend``, ``own`` (in ``dispersion`` [n_genes] already), ``spread``, and ``width``,
    factor of the posterior's variance; ``scores`` the table of errors."""

    blend: float
    own: float
    spread: float
    width: float
    dispersion: Float
    scores: pd.DataFrame


@dataclass(frozen=True)
class Estimate:
    """``values`` by suffix of their key: the mean, and bounds (None without ``interval``), float32 [n_obs, n_genes] in
    the table's order; the fit; epochs that were trained."""

    values: dict[str, Float32 | None]
    fit: Fit
    epochs: int

    @property
    def facts(self) -> dict[str, float]:
        """For the record."""
        fit = self.fit
        chosen = {"blend": fit.blend, "spread": fit.spread, "dispersion": fit.own, "width": fit.width}
        return {**chosen, "epochs": self.epochs}


def estimate(
    section: Section,
    adata: Any,
    how: How,
    *,
    graph: sparse.csr_matrix,
    xy_um: Float,
    columns: Index,
    place: Index,
    seed: int,
    mean: Float32 | None = None,
) -> Estimate:
    """The posterior of the genes ``columns``; row k goes to row ``place[k]``. ``graph`` the fusion's weights as they
    are. Bounds are about ``mean`` [n_obs, n_columns] if that is given, in the table's order."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 5]))
    one, rest = split.thin(section.counts, SEEN, np.zeros(section.counts.shape[1]), rng)
    made = None
    if how.method == "vae":
        network.require()
        if how.model is not None:
            made = network.load(how.model, section, list(adata.var_names), graph, xy_um, seed=seed, **how.options)
        else:
            batch = network.batches(adata, place)
            made = network.train(section, one, xy_um, batch, seed=seed, **how.options)
    size = np.asarray(one.sum(axis=1, dtype=np.float64)).ravel()
    fit = fitted(View(section, one, size, made), rest)
    values = _values(section, View(section, section.counts, section.size, made), fit, how, columns, place, mean)
    return Estimate(values, fit, made.epochs if made is not None else 0)


def _values(
    section: Section, view: View, fit: Fit, how: How, columns: Index, place: Index, given: Float32 | None
) -> dict[str, Float32 | None]:
    """Mean and bounds, block by block."""
    out = np.empty((len(section.size), len(columns)), dtype=np.float32)
    low, high = (None, None) if how.interval is None else (np.empty_like(out), np.empty_like(out))
    for rows in _blocks(len(section.size)):
        share, variance = _blended(view, rows, columns, fit.blend)
        spread = spreads(fit.dispersion[columns], share, view.made.share[columns], fit.spread * variance)
        x = section.counts[rows][:, columns].toarray()
        value, form = posterior(section.size[rows, None] * share, x, spread)
        if given is not None:
            value = given[place[rows]].astype(np.float64)
        out[place[rows]] = value
        if how.interval is not None and low is not None and high is not None:
            low[place[rows]] = value * quantile((1 - how.interval) / 2, form / fit.width)
            high[place[rows]] = value * quantile((1 + how.interval) / 2, form / fit.width)
    return {"": out, "_low": low, "_high": high}


def spreads(dispersion: Float, share: Float, mean: Float, more: Float) -> Float:
    """Squared coefficient of variation of a rate about ``share``: the gene's, larger where the share is below the
    section's ``mean`` (a prior of nearly 0 must not overrule a count, as in the deterministic estimate), and more."""
    mixed = 1 - kernel.OWN_MIX + kernel.OWN_MIX * mean / np.maximum(share, 1e-12)
    return np.clip(dispersion * mixed + more, LEAST, MOST)


def posterior(mu: Float, x: Float, spread: Float) -> tuple[Float, Float]:
    """(mean, shape) of the gamma posterior: shape 1/spread + x and rate 1/(spread mu) + 1."""
    form = 1 / spread + x
    return np.asarray(form * mu / (1 / spread + mu)), np.asarray(form)


@cache
def _quantiles(p: float) -> tuple[Float, Float]:
    """(logarithms of shapes, logarithms of the quantile over the mean)."""
    at = np.linspace(np.log(1e-2), np.log(1e7), 6000)
    forms = np.exp(at)
    return at, np.log(np.maximum(special.gammaincinv(forms, p), 1e-300) / forms)


def quantile(p: float, shape: Float) -> Float:
    """Quantile of a gamma variable over its mean, from a table in the logarithm of its shape."""
    return np.asarray(np.exp(np.interp(np.log(shape), *_quantiles(p))))


def _blocks(n: int) -> list[Index]:
    return [np.arange(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def _blended(view: View, rows: Index, genes: Index, blend: float) -> tuple[Float, Float]:
    share = view.share(rows, genes).astype(np.float64)
    if not blend:
        return share, np.zeros_like(share)
    learned, variance = view.learned(rows, genes)
    return share + blend * (learned - share), blend**2 * variance.astype(np.float64)


def _some(n: int, most: int) -> Index:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


# --------------------------------------------------------------------------------------------- what hidden counts say


def fitted(view: View, rest: sparse.csr_matrix) -> Fit:
    """The settings under which the counts of ``view`` predict the hidden ones, ``rest``, best."""
    rows = _some(len(view.size), MOST_SPOTS)
    inside, outside = np.flatnonzero(view.place >= 0), np.flatnonzero(view.place < 0)
    few = [part[_some(len(part), MOST_GENES // 2 if len(inside) and len(outside) else MOST_GENES)]
           for part in (inside, outside) if len(part)]  # fmt: skip
    genes = np.sort(np.concatenate(few))
    share = view.share(rows, genes).astype(np.float64)
    learned, drawn = view.learned(rows, genes)
    variance = drawn.astype(np.float64)
    other = np.asarray(rest.sum(axis=1, dtype=np.float64)).ravel()
    hidden, seen = (m[rows][:, genes].toarray().astype(np.float64) for m in (rest, view.counts))
    size, later = np.maximum(view.size[rows, None], 1.0), other[rows, None]
    mean_share = view.made.share[genes]

    def likelihood(blend: float, dispersion: Float, spread: float) -> float:
        mu = size * (share + blend * (learned - share))
        given = spreads(dispersion, mu / size, mean_share, spread * blend**2 * variance)
        expected = np.maximum(posterior(mu, seen, given)[0] * _over(later, size), 1e-12)
        return float((special.xlogy(hidden, expected) - expected).sum())

    def by_blend(blend: float) -> float:
        mean = later * (share + blend * (learned - share))
        return likelihood(blend, dispersions(*_moments(hidden, mean)), 0.0)

    blend = max(BLENDS, key=by_blend) if view.network is not None else 0.0
    every = _hidden_dispersion(view, rest, other, blend)
    tried = [(own, spread) for own in OWN for spread in (SPREAD if blend else (0.0,))]
    own, spread = max(tried, key=lambda t: likelihood(blend, t[0] * every[genes], t[1]))
    mu = size * (share + blend * (learned - share))
    given = spreads(own * every[genes], mu / size, mean_share, spread * blend**2 * variance)
    value, form = posterior(mu, seen, given)
    values = {"smeld": view.deterministic(rows, genes).astype(np.float64), "vae": value}
    # intervals are about what is written
    expected = values["vae" if view.network is not None else "smeld"] * _over(later, size)
    width = widening(hidden, expected, 1 / form)
    scores = _errors(view, rows, genes, values, hidden, later)
    return Fit(blend, own, spread, width, own * every, scores)


def _over(a: Float, b: Float) -> Float:
    return np.asarray(a / np.where(b > 0, b, np.inf))


def widening(hidden: Float, mean: Float, dispersion: Float) -> float:
    """The largest factor of ``dispersion`` that hidden counts do not speak against: its likelihood is within a standard
    error (over spots) of the best. Fewer than all counts were hidden, and the graph was made of all of them: what errs
    is the interval that is too narrow."""
    found = np.array([negative_binomial(hidden, mean, w * dispersion).sum(axis=1) for w in WIDTHS])
    lost = found[found.sum(axis=1).argmax()] - found
    allowed = lost.std(axis=1) * np.sqrt(lost.shape[1])
    return float(WIDTHS[int(np.flatnonzero(lost.sum(axis=1) <= allowed).max())])


def negative_binomial(x: Float, mean: Float, dispersion: Float) -> Float:
    """Log likelihood of counts whose variance is mean + dispersion mean^2."""
    mean, k = np.maximum(mean, 1e-12), 1 / np.maximum(dispersion, 1e-8)
    found = special.gammaln(x + k) - special.gammaln(k) - special.gammaln(x + 1)
    return np.asarray(found - k * np.log1p(mean / k) + x * (np.log(mean) - np.log(k + mean)))


def _moments(hidden: Float, mean: Float) -> tuple[Float, Float, Float]:
    """By gene: excess of squared differences over Poisson's, the sum of squared means, the excess' variance."""
    excess, square = (hidden - mean) ** 2 - hidden, mean**2
    seen = excess.sum(axis=0) / np.maximum(square.sum(axis=0), 1e-300)
    error = np.maximum(((excess - seen * square) ** 2).sum(axis=0), (2 * square + mean).sum(axis=0))
    return excess.sum(axis=0), square.sum(axis=0), error


def dispersions(excess: Float, square: Float, error: Float) -> Float:
    """Of every gene, shrunk towards the mean of all genes as far as it is not known better."""
    square = np.maximum(square, 1e-300)
    found, variance = excess / square, np.maximum(error, 1e-300) / square**2
    between = 0.0
    for _ in range(5):
        weight = 1 / (variance + between + 1e-12)
        middle = float((weight * found).sum() / weight.sum())
        between = max(0.0, float((weight * ((found - middle) ** 2 - variance)).sum() / weight.sum()))
    return np.clip((between * found + variance * middle) / np.maximum(between + variance, 1e-300), LEAST, MOST)


def _hidden_dispersion(view: View, rest: sparse.csr_matrix, other: Float, blend: float) -> Float:
    """Of all genes, from blocks of some spots."""
    rows, genes = _some(len(view.size), MOST_FOR_DISPERSION), np.arange(rest.shape[1])
    total = np.zeros((3, rest.shape[1]))
    for start in range(0, len(rows), BLOCK):
        some = rows[start : start + BLOCK]
        share, _ = _blended(view, some, genes, blend)
        total += np.array(_moments(rest[some].toarray().astype(np.float64), other[some, None] * share))
    return dispersions(*total)


def _errors(
    view: View, rows: Index, genes: Index, values: dict[str, Float], hidden: Float, later: Float
) -> pd.DataFrame:
    """Deviance per hidden count and squared error of hidden log-normalised values, as ``choice.errors`` has them."""
    import pandas as pd

    size, mean = view.size[rows, None], view.made.share[genes]
    measured = view.counts[rows][:, genes].toarray().astype(np.float64)
    target = float(np.median(later))
    wanted = np.log1p(target * _over(hidden, later))

    def both(given: Float) -> tuple[float, float]:
        expected = _over(later, size) * given
        floored = np.maximum(expected, 0.02 * later * mean)
        terms = special.xlogy(hidden, hidden) - special.xlogy(hidden, np.maximum(floored, 1e-300)) - hidden + expected
        log = (wanted - np.log1p(target * _over(given, size))) ** 2
        return 2 * float(terms.sum()) / max(float(hidden.sum()), 1e-12), float(log.mean())

    found = {"section mean": size * mean, "measured": measured, **values}
    table = pd.DataFrame({name: both(given) for name, given in found.items()}, index=["deviance", "log_error"]).T
    return table.rename_axis("method")
