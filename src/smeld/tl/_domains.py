"""Tissue domains with soft membership: a tied-covariance mixture on the fused embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smeld import _adapt, _check, _keys
from smeld._progress import track
from smeld.kernels import consensus, mixture

if TYPE_CHECKING:
    import pandas as pd

MAX_DOMAINS = 15
#: of the fall of BIC, that the chosen number of domains must reach; set on simulated sections (truth 6 or 7: 6 to 8)
SHARE_OF_DROP = 0.85
N_STARTS = 40


@dataclass(frozen=True)
class Domains:
    """``labels`` by spot ("1" is the largest domain), ``prob`` [n_obs, n_domains], ``n_domains``, and ``selection``:
    the criterion by number of domains, where the number was chosen."""

    labels: pd.Series
    prob: pd.DataFrame
    n_domains: int
    selection: pd.DataFrame | None


def domains(
    data: Any,
    n_domains: int | None = None,
    *,
    use_rep: str | None = None,
    max_domains: int = MAX_DOMAINS,
    n_starts: int = N_STARTS,
    key_added: str = _keys.DOMAIN,
    seed: int = 0,
) -> Domains:
    """Divide the section into domains. Works in place; runs ``sm.fuse`` first if nothing is fused yet.

    A Gaussian mixture with one shared covariance is fitted from ``n_starts`` starts; the memberships of the best
    quarter (by likelihood) are aligned and averaged, so that spots on which good fits disagree get low confidence.

    Parameters
    ----------
    data
        AnnData or SpatialData with one table.
    n_domains
        Number of domains. None: the smallest, up to ``max_domains``, that reaches 85 % of the fall of BIC (Schwarz
        1978) from one domain to its lowest; the degrees of freedom of the smoother stand for the number of spots,
        for smoothed spots are not independent.
    use_rep
        Key in ``obsm``; the fused embedding by default.
    max_domains
        Largest number looked at when ``n_domains`` is not given.
    n_starts
        Starts of the mixture.
    key_added
        Prefix of what is written.
    seed
        Seed of the starts.

    Writes
    ------
    ``obs["domain"]`` (categorical, "1" the largest), ``obs["domain_confidence"]`` in [0, 1] (the membership of the
    spot in its domain), ``obsm["domain_prob"]`` (DataFrame [n_obs, n_domains]), ``uns["domain_selection"]`` when the
    number was chosen here.

    Raises
    ------
    InputError
        For more domains than spots, or a representation that is not there.

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
    rep = _representation(adata, use_rep, seed)
    x = np.asarray(adata.obsm[rep], dtype=np.float64)
    if not np.isfinite(x).all():
        raise _check.problem(f"obsm[{rep!r}] must be finite", found="NaN or infinite values", cure="make it again")
    _check_number(n_domains, adata.n_obs)
    for name, value in (("max_domains", max_domains), ("n_starts", n_starts)):
        if value < 1:
            raise _check.problem(f"{name} must be at least 1", found=str(value))
    adata.uns.pop(f"{key_added}_selection", None)  # of an earlier run
    order = _adapt.canonical_order(adata)
    seed_k, seed_fit = np.random.SeedSequence(seed).spawn(2)
    chosen, selection = n_domains, None
    if chosen is None:
        selection = _selection(x[order], min(max_domains, max(2, adata.n_obs // 3)), _effective(adata, rep), seed_k)
        chosen = fewest(selection)
        adata.uns[f"{key_added}_selection"] = selection
    prob = np.empty((adata.n_obs, chosen))
    prob[order] = _by_size(_membership(x[order], chosen, n_starts, seed_fit))
    names = [str(k + 1) for k in range(chosen)]
    frame = pd.DataFrame(prob, index=adata.obs_names, columns=names)
    labels = pd.Categorical.from_codes(prob.argmax(axis=1), categories=names)
    adata.obs[key_added] = labels
    adata.obs[key_added + _keys.CONFIDENCE_SUFFIX] = prob.max(axis=1)
    adata.obsm[key_added + _keys.PROB_SUFFIX] = frame
    how = "given" if n_domains is not None else "fewest that reach 85 % of the fall of BIC"
    params = {"n_domains": chosen, "n_domains_from": how, "n_starts": n_starts}
    _keys.record(adata, key_added, function="sm.tl.domains", params=params, seed=seed, inputs={"use_rep": rep})
    return Domains(adata.obs[key_added], frame, chosen, selection)


def _representation(adata: Any, use_rep: str | None, seed: int) -> str:
    if use_rep is not None:
        _check.require(adata.obsm, use_rep, "obsm", "name an existing representation, or run sm.fuse(adata)")
        return use_rep
    fused: list[str] = [key for key in adata.obsm if key.startswith(_keys.FUSED_PREFIX)]
    if not fused:
        from smeld.fusion import fuse

        fuse(adata, seed=seed)
        return _keys.FUSED_PREFIX + "sme"
    return fused[-1]


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


def _membership(x: NDArray[np.float64], k: int, n_starts: int, seed: np.random.SeedSequence) -> NDArray[np.float64]:
    if k == 1:
        return np.ones((len(x), 1))
    models = mixture.fit(x, k, seed=seed, n_starts=n_starts)
    best = models[: max(1, n_starts // 4)]
    return consensus.consensus([model.predict_proba(x) for model in best])


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


def _selection(x: NDArray[np.float64], largest: int, n_effective: float, seed: np.random.SeedSequence) -> pd.DataFrame:
    import pandas as pd

    ks = range(1, largest + 1)
    tasks = track(list(zip(ks, seed.spawn(largest))), "number of domains")
    models = [mixture.fit(x, k, seed=s, n_starts=10)[0] for k, s in tasks]
    return pd.DataFrame({"n_domains": list(ks), "bic": [mixture.bic(m, n_effective) for m in models]})
