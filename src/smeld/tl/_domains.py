"""Tissue domains, or cell types, with soft membership: a consensus of tied-covariance mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld._progress import track
from smeld.fusion import _types, _variants
from smeld.fusion._variants import Variant
from smeld.kernels import consensus, mixture

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]
Mode = Literal["domain", "cell_type"]

MAX_DOMAINS = 15
#: of the fall of BIC, that the chosen number of domains must reach; set on simulated sections (truth 6 or 7: 6 to 8)
SHARE_OF_DROP = 0.85
#: numbers whose stability lies this close to the best are as stable
STABILITY_SLACK = 0.03
#: starts of the mixture on each variant of the embedding, how many of them (by likelihood) enter the consensus, and
#: count splits; chosen by accuracy and calibration on the sections of docs/benchmarks.md, which says so
N_STARTS, KEPT_STARTS, N_SPLITS = 8, 4, 2


@dataclass(frozen=True)
class Domains:
    """``labels`` by spot ("1" is the largest domain), ``prob`` [n_obs, n_domains], ``n_domains``, ``stability`` (mean
    adjusted Rand index between two members of the consensus), and ``selection``: the criteria by number of domains,
    where the number was chosen."""

    labels: pd.Series
    prob: pd.DataFrame
    n_domains: int
    stability: float
    selection: pd.DataFrame | None


def domains(
    data: Any,
    n_domains: int | None = None,
    *,
    mode: Mode = "domain",
    batch_key: str | None = None,
    use_rep: str | None = None,
    max_domains: int = MAX_DOMAINS,
    n_starts: int = N_STARTS,
    n_splits: int = N_SPLITS,
    unsure: float | None = None,
    key_added: str | None = None,
    seed: int = 0,
) -> Domains:
    """Divide the section into domains. Works in place; runs ``sm.fuse`` first if nothing is fused yet.

    Gaussian mixtures with one shared covariance are fitted, each from ``n_starts`` starts, to the embedding as it is
    stored, smoothed half and twice as strongly, and made again from ``n_splits`` thinned tables of counts; the best
    four of each are aligned to the one that agrees best with all and averaged. Spots on which they differ get low
    confidence. Of an embedding that smeld did not make, the starts alone are averaged.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table.
    n_domains
        Number of domains. None: of the numbers up to ``max_domains`` near the fewest that reach 85 % of the fall of
        BIC (Schwarz 1978) the most stable one; the degrees of freedom of the smoother stand for the number of spots,
        for smoothed spots are not independent.
    mode
        ``"domain"``: contiguous regions, from the fused embedding. ``"cell_type"``: scattered types, from components
        of the most variable genes, neither chosen for space nor smoothed over it. ``sm.tl.contiguity`` says which of
        the two labels are.
    batch_key
        Column of ``obs`` that names each spot's section: domains are shared by all sections, their positions never
        mixed and their offsets removed (see ``sm.fuse``, which is run if the section has not been fused in this way).
    use_rep
        Key in ``obsm``; the fused embedding (or, for cell types, ``"X_types"``, made here) by default.
    max_domains
        Largest number looked at when ``n_domains`` is not given.
    n_starts
        Starts of the mixture on each variant.
    n_splits
        Count splits; 0 for none. Sections of more than 20,000 spots are not split: there the starts see different
        samples of the spots.
    unsure
        Spots whose confidence lies below this are marked in ``obs["domain_unsure"]``; None marks none.
    key_added
        Prefix of what is written; ``"domain"``, or ``"cell_type"`` in that mode.
    seed
        Seed of starts and splits.

    Writes
    ------
    ``obs["domain"]`` (categorical, "1" the largest), ``obs["domain_confidence"]`` in [0, 1] (the membership of the
    spot in its domain), ``obsm["domain_prob"]`` (DataFrame [n_obs, n_domains]), ``obs["domain_unsure"]`` on request,
    ``uns["domain_selection"]`` when the number was chosen here; for cell types ``obsm["X_types"]``. A column of that
    name which smeld did not make is kept as ``obs["domain_given"]``.

    Raises
    ------
    InputError
        For more domains than spots, an unknown mode, or a representation or section column that is not there.

    Examples
    --------
    >>> import smeld as sm
    >>> adata = sm.datasets.simulate(n_obs=400, n_genes=100, seed=0)
    >>> found = sm.tl.domains(adata, 4)
    >>> list(found.prob.columns)
    ['1', '2', '3', '4']
    """
    import pandas as pd

    adata = _adapt.table(data)
    _check_settings(adata, n_domains, mode, max_domains=max_domains, n_starts=n_starts, n_splits=n_splits)
    if unsure is not None and not 0 <= unsure <= 1:
        raise _check.problem("unsure must lie between 0 and 1", found=str(unsure))
    _adapt.sections(adata, batch_key)
    key = key_added or mode
    _keep_given(adata, key)
    rep = _representation(adata, use_rep, mode, batch_key, seed)
    adata.uns.pop(f"{key}_selection", None)  # of an earlier run
    seed_k, seed_fit, seed_split = np.random.SeedSequence(seed).spawn(3)
    wide = rep.startswith(_keys.FUSED_PREFIX)
    variants = _variants.variants(adata, rep, n_splits=n_splits, scales=wide, seed=seed_split)
    chosen, selection = n_domains, None
    if chosen is None:
        largest = min(max_domains, max(2, adata.n_obs // 3))
        selection = _selection(_unscaled(variants, wide), largest, _effective(adata, rep), seed_k)
        chosen = most_stable(selection)
        adata.uns[f"{key}_selection"] = selection
    order = _adapt.canonical_order(adata)
    found, stability = _membership(variants, adata.n_obs, chosen, n_starts, seed_fit)
    prob = np.empty((adata.n_obs, chosen))
    prob[order] = _by_size(found)
    names = [str(k + 1) for k in range(chosen)]
    frame = pd.DataFrame(prob, index=adata.obs_names, columns=names)
    confidence = prob.max(axis=1)
    adata.obs[key] = pd.Categorical.from_codes(prob.argmax(axis=1), categories=names)
    adata.obs[key + _keys.CONFIDENCE_SUFFIX] = confidence
    adata.obsm[key + _keys.PROB_SUFFIX] = frame
    adata.obs.drop(columns=f"{key}_unsure", errors="ignore", inplace=True)
    if unsure is not None:
        adata.obs[f"{key}_unsure"] = confidence < unsure
    how = "given" if n_domains is not None else "most stable of those near 85 % of the fall of BIC"
    params = {
        "n_domains": chosen,
        "n_domains_from": how,
        "mode": mode,
        "n_starts": n_starts,
        "n_variants": len(variants),
        "stability": stability,
        "unsure": unsure,
    }
    inputs = {"use_rep": rep, "batch_key": batch_key}
    _keys.record(adata, key, function="sm.tl.domains", params=params, seed=seed, inputs=inputs)
    return Domains(adata.obs[key], frame, chosen, stability, selection)


def _check_settings(adata: Any, n_domains: int | None, mode: str, **numbers: int) -> None:
    _check_number(n_domains, adata.n_obs)
    if mode not in ("domain", "cell_type"):
        raise _check.unknown("mode", mode, ("domain", "cell_type"))
    for name, value in numbers.items():
        least = 0 if name == "n_splits" else 1
        if value < least:
            raise _check.problem(f"{name} must be at least {least}", found=str(value))


def _representation(adata: Any, use_rep: str | None, mode: Mode, batch_key: str | None, seed: int) -> str:
    rep = use_rep or _made(adata, mode, batch_key, seed)
    _check.require(adata.obsm, rep, "obsm", "name an existing representation, or run sm.fuse(adata)")
    if not np.isfinite(np.asarray(adata.obsm[rep], dtype=np.float64)).all():
        raise _check.problem(f"obsm[{rep!r}] must be finite", found="NaN or infinite values", cure="make it again")
    return rep


def _made(adata: Any, mode: Mode, batch_key: str | None, seed: int) -> str:
    """The fused embedding, made if it is not there or was made for other sections; its components for cell types."""
    from smeld.fusion import fuse

    fused: list[str] = [key for key in adata.obsm if key.startswith(_keys.FUSED_PREFIX)]
    record = adata.uns.get(_keys.RECORD, {})
    if batch_key is not None:
        fused = [k for k in fused if record.get(k, {}).get("inputs", {}).get("batch_key") == batch_key]
    if not fused:
        fuse(adata, batch_key=batch_key, seed=seed)
        fused = [_keys.FUSED_PREFIX + "sme"]
    return _types.components(adata, fused[-1], seed) if mode == "cell_type" else fused[-1]


def _keep_given(adata: Any, key: str) -> None:
    """A column of that name which the user brought is kept under another."""
    if key in adata.obs and key not in adata.uns.get(_keys.RECORD, {}):
        adata.obs[f"{key}_given"] = adata.obs[key]
        _check.warn(f"obs[{key!r}] was there before: it is kept as obs['{key}_given'].", adata, stacklevel=4)


def _check_number(n_domains: int | None, n_obs: int) -> None:
    if n_domains is None:
        return
    if isinstance(n_domains, bool) or not isinstance(n_domains, int | np.integer):
        raise _check.problem("the number of domains must be a whole number", found=repr(n_domains))
    if n_domains < 1:
        raise _check.problem(
            "the number of domains must be at least 1", found=str(n_domains), cure="give n_domains >= 1"
        )
    if n_domains > n_obs:
        raise _check.problem(
            "there are fewer spots than domains",
            found=f"{n_obs} spots, {n_domains} domains",
            cure=f"ask for at most {n_obs} domains",
        )


def _membership(
    variants: Sequence[Variant], n: int, k: int, n_starts: int, seed: np.random.SeedSequence
) -> tuple[Float, float]:
    """(mean membership [n_obs, k], stability) over the best starts of every variant.

    The members are compared on a sample where there are many spots, and summed one by one: never all held at once.
    """
    if k == 1:
        return np.ones((n, 1)), 1.0
    sample_seed, *seeds = seed.spawn(1 + len(variants))
    kept = min(n_starts, KEPT_STARTS if len(variants) > 1 else max(1, n_starts // 2))
    rows = _sample(n, sample_seed)
    fitted, members = [], []
    for made, s in zip(variants, seeds):
        x = made()
        models = mixture.fit(x, k, seed=s, n_starts=n_starts)[:kept]
        fitted.append(models)
        members += [model.predict_proba(x[rows]) for model in models]
    agreed = consensus.consensus(members)
    if len(rows) == n:
        return agreed.prob, agreed.stability
    total, columns = np.zeros((n, k)), iter(agreed.order)
    for made, models in zip(variants, fitted):
        x = made()
        for model in models:
            total += model.predict_proba(x)[:, next(columns)]
    total /= len(members)
    return total, agreed.stability


def _sample(n: int, seed: np.random.SeedSequence) -> NDArray[np.intp]:
    """Numbers of all spots, or of some of many."""
    if n <= mixture.MAX_START_SAMPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, mixture.MAX_START_SAMPLE, replace=False))


def _by_size(prob: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns in order of domain size, largest first; equal sizes by total membership."""
    size = np.bincount(prob.argmax(axis=1), minlength=prob.shape[1])
    return prob[:, np.lexsort((-prob.sum(axis=0), -size))]


def _effective(adata: Any, rep: str) -> float:
    """Independent spots behind a representation: what the fusion recorded, else all of them."""
    recorded = adata.uns.get(_keys.RECORD, {}).get(rep, {}).get("params", {})
    return float(recorded.get("n_effective", adata.n_obs))


def fewest(selection: pd.DataFrame) -> int:
    """The smallest number that reaches ``SHARE_OF_DROP`` of the fall of BIC from one domain to its lowest.

    Tissue has structure within structure, and BIC goes on falling a little long after the domains a reader would draw.
    """
    bic = selection["bic"]
    enough = bic <= bic.iloc[0] - SHARE_OF_DROP * (bic.iloc[0] - bic.min())
    return int(selection.loc[enough, "n_domains"].min())


def most_stable(selection: pd.DataFrame) -> int:
    """Of the fewest domains that reach ``SHARE_OF_DROP`` of the fall of BIC, one less and one more, the most stable;
    of equals the one nearest to the fewest."""
    start = fewest(selection)
    near = selection[(selection["n_domains"] - start).abs() <= 1]
    near = near[near["n_domains"] > 1] if start > 1 else near[near["n_domains"] == 1]
    good = near[near["stability"] >= near["stability"].max() - STABILITY_SLACK]
    distance = (good["n_domains"] - start).abs()
    return int(good.loc[distance.idxmin(), "n_domains"])


def _unscaled(variants: Sequence[Variant], scales: bool) -> list[Variant]:
    """The stored embedding and those of its kind from split counts: what the number of domains is judged on."""
    n_scales = len(_variants.SCALES) if scales and len(variants) > 1 else 1
    return [variants[0], *variants[n_scales + n_scales // 2 :: n_scales]]


def _selection(
    variants: Sequence[Variant], largest: int, n_effective: float, seed: np.random.SeedSequence
) -> pd.DataFrame:
    """BIC of the best fit to the stored embedding, and how far fits to all variants agree, by number of domains."""
    import pandas as pd

    rows, embeddings = [], [made() for made in variants]
    sample = _sample(len(embeddings[0]), seed)
    for k, s in track(list(zip(range(1, largest + 1), seed.spawn(largest))), "number of domains"):
        models = [mixture.fit(x, k, seed=c, n_starts=5) for x, c in zip(embeddings, s.spawn(len(embeddings)))]
        members = [m.predict_proba(x[sample]) for x, fits in zip(embeddings, models) for m in fits[:2]]
        stability = 1.0 if k == 1 else consensus.consensus(members).stability
        rows.append((k, mixture.bic(models[0][0], n_effective), stability))
    return pd.DataFrame(rows, columns=["n_domains", "bic", "stability"])
