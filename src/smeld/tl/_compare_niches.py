"""Composition and niches compared between two groups of sections, with the section as the unit of replication."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from smeld import _adapt, _check, _keys
from smeld.kernels import niches as kernel
from smeld.tl import _composition, _niches

if TYPE_CHECKING:
    import pandas as pd

Float = NDArray[np.float64]

#: sections of a group below which a comparison is said to rest on few
FEW_SECTIONS = 3
#: cells of a section in a niche, below which the section says nothing of the niche's types
LEAST_IN_NICHE = 20
COLUMNS = ["kind", "part", "share_first", "share_second", "difference", "low", "high", "pvalue", "qvalue"]
COLUMNS += ["n_first", "n_second"]


@dataclass(frozen=True)
class NicheComparison:
    """``table``, a row a part; ``proportions`` [n_sections, n_parts] of types and niches; ``groups``, the names of the
    first and second group."""

    table: pd.DataFrame
    proportions: pd.DataFrame
    groups: tuple[str, str]


@dataclass(frozen=True)
class _Section:
    """One section: name, group, and numbers of cells by niche and type [n_niches, n_types] (one row without niches)."""

    name: str
    group: str
    number: Float


def compare_niches(
    data: Any,
    condition: str,
    *,
    groups: str = _keys.CELL_TYPE,
    niche: str | None = _niches.NICHE,
    batch_key: str | None = None,
    pair: tuple[str, str] | None = None,
    test: Literal["welch", "permutation"] = "welch",
    key_added: str = "niche_comparison",
    seed: int = 0,
) -> NicheComparison:
    """Compare types, niches, and the types within niches between two groups of sections.

    A section counts once, however many cells it has: cells of one section are no replicates. Numbers of cells (+ .5)
    become log-ratios to the median part of the section, so that one type that grows does not make all others shrink,
    and Welch's t compares their means; Benjamini-Hochberg over the parts of each kind. Proportions tell of
    ratios alone: where most parts change, those that do not may seem to.

    Parameters
    ----------
    data
        AnnData or SpatialData with ``batch_key``, or a list (or mapping by name) of sections. Niches must have been
        found in all sections together (``sm.tl.niches`` with ``batch_key``), else their names mean nothing across
        them, and types alone are compared.
    condition
        Column of ``obs`` that names the group; one value a section.
    groups
        Column of ``obs`` with types, or the table ``obsm["<groups>_proportions"]``.
    niche
        Column of niches; None compares types alone.
    batch_key
        Column of ``obs`` that names each cell's section, where ``data`` is one table.
    pair
        First and second group, where there are more than two; differences are second less first.
    test
        ``"permutation"``: p is the share of all ways to part the sections (20,000 draws of more) whose Welch t is as
        large. Exact where groups do not differ, but never below 1 in their number: with three sections a group, .1.
    key_added
        Key in ``uns``; nothing is written for a list.
    seed
        Seed of the draws.

    Writes
    ------
    ``uns["niche_comparison"]``, a row a part: ``kind`` ("type", "niche", "type in niche"), ``part`` ("T1", "N2",
    "N2:T1"), ``share_first`` and ``share_second`` (means over sections), ``difference`` of log-ratios with its 95 %
    interval ``low`` to ``high``, ``pvalue``, ``qvalue``, and the sections of either group that have the part's niche.
    Groups of one section have no p (NaN), and of two a warning.

    Returns
    -------
    The table with the proportions, as a frozen :class:`NicheComparison`.

    Raises
    ------
    InputError
        If columns are missing, a section lies in two groups, or there are not two groups.

    Examples
    --------
    >>> import smeld as sm
    >>> shares = [(0.6, 0.4)] * 3 + [(0.3, 0.7)] * 3
    >>> made = [
    ...     sm.datasets.simulate_niches(
    ...         400, 30, section=s, n_niches=2, n_cell_types=5, niche_shares=shares[s], field_um=40
    ...     )
    ...     for s in range(6)
    ... ]
    >>> for s, cells in enumerate(made):
    ...     cells.obs["treated"] = "yes" if s > 2 else "no"
    >>> found = sm.tl.compare_niches(made, "treated", groups="truth_cell_type", niche=None)
    >>> found.groups, len(found.table)
    (('no', 'yes'), 5)

    References
    ----------
    Log-ratios: Aitchison, The Statistical Analysis of Compositional Data (1986). The section as the unit: Squair et
    al., Nature Communications 12 (2021) 5692.
    """
    import pandas as pd

    if test not in ("welch", "permutation"):
        raise _check.unknown("test", test, ("welch", "permutation"))
    sections, types, niche_names = _sections(data, condition, groups, niche, batch_key)
    names = _pair(sections, pair)
    kept = [s for s in sections if s.group in names]
    second = np.array([s.group == names[1] for s in kept])
    holder = None if (isinstance(data, Mapping) and not hasattr(data, "tables")) or isinstance(data, Sequence) else data
    adata = None if holder is None else _adapt.table(holder)
    _say_few(adata, names, second, test)
    parts = [
        _compared(kind, part_names, number, second, (test == "permutation", seed))
        for kind, part_names, number in _kinds(kept, types, niche_names)
    ]
    table = pd.concat(parts, ignore_index=True)
    shares = {kind: _shares(number) for kind, _, number in _kinds(kept, types, niche_names) if kind != "type in niche"}
    columns = types + (niche_names if "niche" in shares else [])
    proportions = pd.DataFrame(np.hstack(list(shares.values())), index=[s.name for s in kept], columns=columns)
    proportions.insert(0, condition, [s.group for s in kept])
    if adata is not None:
        adata.uns[key_added] = table
        params = {"first": names[0], "second": names[1], "test": test, "n_sections": len(kept)}
        inputs = {"condition": condition, "groups": groups, "niche": niche, "batch_key": batch_key}
        _keys.record(adata, key_added, function="sm.tl.compare_niches", params=params, seed=seed, inputs=inputs)
    return NicheComparison(table, proportions, names)


def _sections(
    data: Any, condition: str, groups: str, niche: str | None, batch_key: str | None
) -> tuple[list[_Section], list[str], list[str]]:
    """Numbers of cells by section; names of types and of niches (none where niches are not common to all)."""
    tables, common = _tables(data, batch_key, niche)
    found: list[tuple[str, str, pd.DataFrame]] = []
    for name, adata in tables:
        found += _counted(name, adata, condition, groups, niche if common else None, batch_key)
    types = list(dict.fromkeys(t for _, _, frame in found for t in frame.columns))
    niche_names = list(dict.fromkeys(n for _, _, frame in found for n in frame.index))
    made = [
        _Section(name, group, frame.reindex(index=niche_names, columns=types, fill_value=0.0).to_numpy())
        for name, group, frame in found
    ]
    return made, types, niche_names if common and niche is not None else []


def _tables(data: Any, batch_key: str | None, niche: str | None) -> tuple[list[tuple[str, Any]], bool]:
    """(name and table of each section given apart, or one table with all; whether niches are common to all)."""
    given: list[tuple[str, Any]]
    if isinstance(data, Mapping) and not hasattr(data, "tables"):
        given = [(str(name), _adapt.table(d)) for name, d in data.items()]
    elif isinstance(data, Sequence):
        given = [(str(i), _adapt.table(d)) for i, d in enumerate(data)]
    else:
        if batch_key is None:
            raise _check.problem(
                "sections are compared", found="one table and no batch_key",
                cure="name the column that holds the section of each cell, or give a list of sections",
            )  # fmt: skip
        return [("", _adapt.table(data))], True
    alone = [
        str(adata.uns.get(_keys.RECORD, {}).get(niche, {}).get("inputs", {}).get("batch_key", "")) == "none"
        for _, adata in given
    ]
    if niche is not None and any(alone) and len(given) > 1:
        _check.warn(
            "niches were found in each section by itself, and their names mean nothing across sections: types alone "
            "are compared. Run sm.tl.niches on all sections in one table, with batch_key."
        )
        return given, False
    return given, True


def _counted(
    name: str, adata: Any, condition: str, groups: str, niche: str | None, batch_key: str | None
) -> list[tuple[str, str, pd.DataFrame]]:
    """(section, group, numbers by niche and type) of the sections in a table."""
    import pandas as pd

    _check.require(adata.obs, condition, "obs", "name the column that holds the group of each section")
    membership, types = _composition._membership(adata, groups, soft=groups + _niches.PROPORTIONS_SUFFIX in adata.obsm)
    section, section_names = _adapt.sections(adata, batch_key)
    group, group_names = _adapt.numbered(adata.obs[condition])
    of_niche, niche_names = np.zeros(adata.n_obs, dtype=np.intp), [""]
    if niche is not None:
        _check.require(adata.obs, niche, "obs", "run sm.tl.niches(adata) first, or pass niche=None")
        of_niche, niche_names = _adapt.numbered(adata.obs[niche])
    out = []
    for s, title in enumerate(section_names):
        here = section == s
        its = np.unique(group[here])
        if len(its) != 1 or its[0] < 0:
            said = _check.listed([group_names[g] if g >= 0 else "none" for g in its])
            raise _check.problem(
                f"a section must lie in one group of obs[{condition!r}]", found=f"section {title or name!r}: {said}",
                cure="give every cell of a section the same value",
            )  # fmt: skip
        number = np.stack([membership[here & (of_niche == k)].sum(axis=0) for k in range(len(niche_names))])
        label = title if not name else (f"{name}:{title}" if title else name)
        out.append((label, group_names[its[0]], pd.DataFrame(number, index=niche_names, columns=types)))
    return out


def _pair(sections: list[_Section], pair: tuple[str, str] | None) -> tuple[str, str]:
    names = sorted({s.group for s in sections})
    if pair is None:
        if len(names) != 2:
            raise _check.problem(
                "two groups of sections are compared", found=f"{len(names)}: {_check.listed(names)}",
                cure="name two with pair=(first, second)" if len(names) > 2 else "give sections of both groups",
            )  # fmt: skip
        return names[0], names[1]
    asked = [str(p) for p in pair]
    for name in asked:
        if name not in names:
            raise _check.unknown("group", name, names)
    if len(asked) != 2 or asked[0] == asked[1]:
        raise _check.problem("pair must name two groups", found=_check.listed(asked))
    return asked[0], asked[1]


def _say_few(adata: Any, names: tuple[str, str], second: NDArray[np.bool_], test: str) -> None:
    """Warn where sections are too few for a test, or for much of one."""
    size = (int((~second).sum()), int(second.sum()))
    said = " and ".join(f"{n} of {name!r}" for n, name in zip(size, names))
    if min(size) < 2:
        _check.warn(f"too few sections for a test: {said}; two of each are the least, and p is NaN.", adata)
    elif min(size) < FEW_SECTIONS:
        _check.warn(f"few sections: {said}; how far sections of a group differ is hardly known.", adata)
    if test == "permutation" and min(size) >= 2 and kernel.least_pvalue(*size) > 0.05:
        _check.warn(f"permuting sections cannot give p below {kernel.least_pvalue(*size):.2g}: {said}.", adata)


def _kinds(
    sections: list[_Section], types: list[str], niche_names: list[str]
) -> Iterator[tuple[str, list[str], Float]]:
    """(kind, names of parts, numbers [n_sections, n_parts]); NaN where a section says nothing of a niche."""
    number = np.stack([s.number for s in sections])
    yield "type", types, number.sum(axis=1)
    if len(niche_names) < 2:
        return
    yield "niche", niche_names, number.sum(axis=2)
    for k, name in enumerate(niche_names):
        inside = number[:, k].copy()
        inside[inside.sum(axis=1) < LEAST_IN_NICHE] = np.nan
        yield "type in niche", [f"{name}:{t}" for t in types], inside


def _shares(number: Float) -> Float:
    total = number.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(number, total, out=np.zeros_like(number), where=total > 0))


def _compared(
    kind: str, names: list[str], number: Float, second: NDArray[np.bool_], how: tuple[bool, int]
) -> pd.DataFrame:
    """The rows of one composition."""
    import pandas as pd

    there = np.isfinite(number).all(axis=1)
    number, second = number[there], second[there]
    share, nothing = _shares(number), np.full(len(names), np.nan)
    found = kernel.compared(kernel.log_ratios(number), second, permute=how[0], seed=how[1])
    qvalue, known = nothing.copy(), np.isfinite(found.pvalue)
    if known.any():
        qvalue[known] = stats.false_discovery_control(found.pvalue[known])
    means = [share[g].mean(axis=0) if g.any() else nothing for g in (~second, second)]
    values = [kind, names, *means, found.difference, found.low, found.high, found.pvalue, qvalue]
    return pd.DataFrame(dict(zip(COLUMNS, [*values, int((~second).sum()), int(second.sum())])))
