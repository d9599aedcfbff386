"""What figures of pairs read: a checked table, the pair that is meant, its values in the spots, its expression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from smeld import _check, _keys
from smeld.lr._resource import JOIN
from smeld.pl import _canvas, maps
from smeld.pl._text import shown

if TYPE_CHECKING:
    from anndata import AnnData

Float = NDArray[np.float64]
#: (ligand, receptor), "LIGAND_RECEPTOR", or its row in the table, counted from 0
Pair: TypeAlias = tuple[str, str] | str | int

#: false discovery rate up to which a result counts as found
FDR = 0.05
#: characters of a partner's name in a title or beside a row
MOST_PARTNER = 18


def stored_table(adata: AnnData, key: str, columns: Iterable[str], cure: str, *, empty: str = "no row") -> pd.DataFrame:
    """``uns[key]``, which must be a table with these columns and at least a row."""
    _check.require(adata.uns, key, "uns", cure)
    rows = adata.uns[key]
    lacking = [c for c in columns if c not in getattr(rows, "columns", ())]
    if lacking or not len(rows):
        found = f"no column {_check.listed(lacking)}" if lacking else empty
        raise _check.problem(f"uns[{key!r}] has nothing to show", found=found, cure=cure)
    table: pd.DataFrame = rows
    return table


def pair_table(adata: AnnData, key: str, columns: Iterable[str] = ("ligand", "receptor", "qvalue")) -> pd.DataFrame:
    """The table of ``sm.tl.interactions``."""
    return stored_table(adata, key, columns, "run sm.tl.interactions(adata)", empty="no pair was tested")


def row_of(rows: pd.DataFrame, pair: Pair | None, where: str) -> int:
    """Place in ``rows`` of the pair that is meant; None is the first."""
    if pair is None:
        return 0
    if isinstance(pair, int | np.integer) and not isinstance(pair, bool):
        if 0 <= pair < len(rows):
            return int(pair)
        raise _check.problem(
            f"there is no row {pair}", found=f"rows 0 to {len(rows) - 1} in {where}", cure="name one of them"
        )
    ligands, receptors = rows["ligand"].astype(str).to_numpy(), rows["receptor"].astype(str).to_numpy()
    if isinstance(pair, str):
        hit = np.flatnonzero([f"{a}_{b}" == pair for a, b in zip(ligands, receptors)])
        turned = np.flatnonzero([f"{b}_{a}" == pair for a, b in zip(ligands, receptors)])
    else:
        ligand, receptor = two_names(pair)
        hit = np.flatnonzero((ligands == ligand) & (receptors == receptor))
        turned = np.flatnonzero((ligands == receptor) & (receptors == ligand))
        pair = f"{ligand}_{receptor}"
    if hit.size:
        return int(hit[0])
    if turned.size:
        first = int(turned[0])
        raise _check.problem(
            f"{where} has no pair {pair[:80]!r}",
            found="the two the other way round",
            cure=f"ligand first: ({ligands[first]!r}, {receptors[first]!r})",
        )
    raise _check.unknown("pair", pair, [f"{a}_{b}" for a, b in zip(ligands, receptors)])


def two_names(pair: Any) -> tuple[str, str]:
    """(ligand, receptor) as text."""
    if isinstance(pair, tuple | list) and len(pair) == 2:
        return str(pair[0]), str(pair[1])
    raise _check.problem(
        "a pair is (ligand, receptor), 'LIGAND_RECEPTOR' or the number of a row",
        found=f"{type(pair).__name__} {str(pair)[:40]!r}",
        cure="give one of the three",
    )


def names_of(adata: AnnData, pair: Pair | None, key: str) -> tuple[str, str]:
    """(ligand, receptor); two names are taken as they are, all else is looked up in the table."""
    if pair is not None and not isinstance(pair, str | int | np.integer):
        return two_names(pair)
    rows = pair_table(adata, key)
    row = rows.iloc[row_of(rows, pair, f"uns[{key!r}]")]
    return str(row["ligand"]), str(row["receptor"])


def joined(ligand: object, receptor: object, most: int = MOST_PARTNER) -> str:
    """The pair as it is written in a figure, already escaped."""
    return f"{shown(ligand, most=most)} – {shown(receptor, most=most)}"


def local_values(adata: AnnData, row: int, key: str) -> tuple[Float, NDArray[np.bool_]]:
    """(score of a row's pair in every spot, float64 [n_obs], NaN where it is 0; the spots where it is significant).

    Results without scores have the score in significant spots alone.
    """
    pair = adata.uns[key].iloc[row]
    said, q = f"{pair['ligand']}_{pair['receptor']}", float(pair["qvalue"])
    local, score = (_column(adata, f"{key}_{kind}", row) for kind in ("local", "score"))
    if local is None and score is None:
        kept = max(_kept(adata, f"{key}_{kind}") for kind in ("local", "score"))
        if q > FDR:
            found = f"q = {q:.2g}: they are kept for significant pairs only (q <= {FDR:g}), here {kept}"
            raise _check.problem(f"{said} has no values in single spots", found=found, cure="name a significant pair")
        made = parameters(adata, key).get("local")
        raise _check.problem(
            f"obsm[{key + '_local'!r}] has no values of {said} in single spots",
            found=f"it was made with local={made!r}"
            if made
            else f"{kept} of {len(adata.uns[key])} pairs have such values",
            cure="run sm.tl.interactions(adata, local='significant')",
        )
    values = score if score is not None else np.asarray(local)
    return np.where(values > 0, values, np.nan), np.zeros(len(values), dtype=bool) if local is None else local > 0


def _kept(adata: AnnData, name: str) -> int:
    return int(adata.obsm[name].shape[1]) if name in adata.obsm else 0


def _column(adata: AnnData, name: str, row: int) -> Float | None:
    if row >= _kept(adata, name):
        return None
    stored = adata.obsm[name]
    column = sparse.csr_matrix(np.asarray(stored) if not sparse.issparse(stored) else stored)[:, [row]]
    return np.asarray(column.toarray(), dtype=np.float64).ravel()


def parameters(adata: AnnData, key: str) -> Mapping[str, Any]:
    """What ``uns["smeld"][key]["params"]`` says; empty where nothing is recorded."""
    entry = adata.uns.get(_keys.RECORD, {}).get(key, {})
    found = entry.get("params", {}) if isinstance(entry, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


def expression(adata: AnnData, name: str, layer: str | None) -> tuple[Float, str]:
    """Values of a gene, or of a complex its scarcest subunit, as :func:`gene` shows them; and their name."""
    parts = [maps._column(adata, gene, layer) for gene in name.split(JOIN)]
    values = np.min(parts, axis=0)
    label = "counts" if layer is None else shown(layer)
    if not values.size or np.nanmin(values) >= 0:
        return np.log1p(values), f"log(1 + {label})"
    return values, label


def noun_of(adata: AnnData, n: int) -> str:
    """ "1 spot", "3 cells"."""
    return f"{n:,} {_canvas.noun(adata)}{'' if n == 1 else 's'}"
