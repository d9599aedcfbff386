"""What points can be coloured by: columns of obs, proportions and fates, scores of pairs; how all that is described."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smeld import _keys
from smeld._palette import of_labels, palette
from smeld.viewer import _stored
from smeld.viewer._source import Section

Array = NDArray[Any]

#: what a column belongs to, by its name; the first that fits
GROUPS = (
    ("annotations", r"annotation"),
    ("confidence", r".*(_confidence|_unsure|_low|_high)$"),
    ("domains", r"(domain|niche)"),
    ("cell types", r"cell_?type"),
    ("pseudotime", r"(pseudotime|dpt_pseudotime)"),
    ("quality", r"(total_counts|n_genes|n_counts|pct_counts|low_counts|log1p_)"),
)
#: tables in obsm whose columns are values of cells, by the end of their names
FRAMES = {"_proportions": "cell types", "_fates": "pseudotime"}
#: columns of one table that are offered
MOST_OF_A_FRAME = 60
#: scores of pairs are offered while their table has at most so many entries: their range has to be known
MOST_SCORES, MOST_PAIRS = 20_000_000, 60
#: first of these, else the first column of labels
DEFAULTS = (_keys.DOMAIN, _keys.CELL_TYPE, "niche")
#: colours, after which they come again: still lighter ones could not be seen on a light page
MOST_COLORS = 48
#: embeddings come in this order
EMBEDDINGS = (r"X_umap", r"X_tsne", r"fused_", r"X_pca$", r"X_", r"morph_")


@dataclass(frozen=True)
class Shown:
    """A column by which points can be coloured: ``read`` gives labels or numbers of the section's spots."""

    name: str
    group: str
    read: Callable[[], _stored.Labels | Array]
    colors: str | None = None


def group_of(name: str) -> str:
    """What a column of obs belongs to."""
    found = next((group for group, pattern in GROUPS if re.match(pattern, name)), None)
    if found == "confidence" and name.startswith(_keys.PSEUDOTIME):
        return "pseudotime"
    return found or "other"


def shown(section: Section) -> list[Shown]:
    """All columns of a section, those of obs first."""
    return [*_of_obs(section), *_of_frames(section), *_of_pairs(section)]


def _of_obs(section: Section) -> list[Shown]:
    obs = section.file.root["obs"]

    def reader(name: str) -> Callable[[], Any]:
        return lambda: section.taken(_stored.shown_column(obs, name))

    usable = [name for name in _stored.columns(obs) if _may_be_shown(obs[name])]
    return [Shown(name, group_of(name), reader(name), name) for name in usable]


def _may_be_shown(node: Any) -> bool:
    """False for what is text of many rows, or no column: what is in it is looked at later."""
    if _stored.is_group(node):
        return True
    return node.dtype.kind in "biuf" or node.shape[0] <= _stored.MOST_TEXT_ROWS


def _of_frames(section: Section) -> list[Shown]:
    obsm, found = section.file.root["obsm"], []

    def reader(frame: Any, name: str) -> Callable[[], Any]:
        return lambda: section.taken(_stored.shown_column(frame, name))

    for key in obsm:
        group = next((g for end, g in FRAMES.items() if key.endswith(end)), None)
        if group is not None and _stored.is_frame(obsm[key]):
            names = _stored.columns(obsm[key])[:MOST_OF_A_FRAME]
            end = "fate" if group == "pseudotime" else "share"
            found += [Shown(f"{end} of {name}", group, reader(obsm[key], name)) for name in names]
    return found


def _of_pairs(section: Section) -> list[Shown]:
    key = _keys.INTERACTIONS
    score = scores(section)
    table = _stored.at(section.file.root, "uns", key)
    if score is None or table is None or score["data"].shape[0] > MOST_SCORES:
        return []
    ligands, receptors = (_stored.words(table[name]) for name in ("ligand", "receptor"))
    n = min(int(score.attrs["shape"][1]), len(ligands), MOST_PAIRS)

    def reader(row: int) -> Callable[[], Any]:
        return lambda: section.taken(score_column(score, row))

    return [Shown(f"{ligands[i]}–{receptors[i]} score", "interactions", reader(i)) for i in range(n)]


def scores(section: Section) -> Any:
    """The stored scores of pairs in spots, CSR [n_obs, k], None without any."""
    obsm = section.file.root["obsm"]
    for kind in ("score", "local"):
        node = _stored.at(obsm, f"{_keys.INTERACTIONS}_{kind}")
        if node is not None and _stored.encoding(node) == "csr_matrix":
            return node
    return None


def score_column(node: Any, row: int) -> NDArray[np.float32]:
    """A pair's score in every spot of the file."""
    indptr, indices = np.asarray(node["indptr"][()]), np.asarray(node["indices"][()])
    here = np.flatnonzero(indices == row)
    out = np.zeros(len(indptr) - 1, dtype=np.float32)
    out[np.searchsorted(indptr, here, side="right") - 1] = np.asarray(node["data"][()])[here]
    return out


def described(section: Section) -> tuple[list[Shown], list[dict[str, Any]]]:
    """(columns that can be shown, what the page is told of each)."""
    kept, said = [], []
    for column in shown(section):
        found = _read(column)
        if found is None:
            continue
        kept.append(column)
        facts = _labels(section, column, found) if isinstance(found, _stored.Labels) else _numbers(found)
        said.append({"name": column.name, "group": column.group, **facts})
    return kept, said


def _read(column: Shown) -> _stored.Labels | Array | None:
    """The column, None where it holds what nobody can show: the others are still there."""
    try:
        return column.read()
    except (KeyError, ValueError, TypeError, AttributeError, OSError):
        return None


def _labels(section: Section, column: Shown, found: _stored.Labels) -> dict[str, Any]:
    n = len(found.names)
    counts = np.bincount(found.codes[found.codes >= 0], minlength=n)
    missing = int((found.codes < 0).sum())
    colors = _colors(section, column.colors, found.names)
    return {"kind": "category", "categories": found.names, "colors": colors, "n": counts.tolist(), "missing": missing}


def _numbers(found: Array) -> dict[str, Any]:
    finite = np.isfinite(found)
    inside = found if finite.all() else found[finite]
    limits = [float(inside.min()), float(inside.max())] if len(inside) else [0.0, 0.0]
    return {"kind": "number", "range": limits, "missing": int((~finite).sum())}


def _colors(section: Section, key: str | None, names: list[str]) -> list[str]:
    """Colours that are stored and fit, else the palette."""
    node = None if key is None else _stored.at(section.file.root, "uns", f"{key}_colors")
    stored = [] if node is None or _stored.is_group(node) or node.shape == () else _stored.text(node)
    n = len(names)
    if len(stored) >= n and all(re.fullmatch(r"#[0-9A-Fa-f]{6}([0-9A-Fa-f]{2})?", c) for c in stored):
        return [c[:7].upper() for c in stored[:n]]
    return of_labels(names) if n <= MOST_COLORS else list(islice(cycle(palette(MOST_COLORS)), n))


def default(said: list[dict[str, Any]]) -> str | None:
    """The column that is shown first."""
    names = {column["name"]: column["kind"] for column in said}
    first = [name for name in DEFAULTS if name in names]
    labels = [name for name, kind in names.items() if kind == "category"]
    return next(iter([*first, *labels, *names]), None)


def embeddings(section: Section) -> list[str]:
    """Arrays in obsm of which the first two columns are shown."""
    obsm = section.file.root["obsm"]
    usable = [k for k in obsm if not _stored.is_group(obsm[k]) and obsm[k].ndim == 2 and obsm[k].shape[1] >= 2]
    return [key for pattern in EMBEDDINGS for key in usable if re.match(pattern, key) and _first(key) == pattern]


def _first(key: str) -> str:
    return next(pattern for pattern in EMBEDDINGS if re.match(pattern, key))


def embedding(section: Section, key: str) -> NDArray[np.float32]:
    """The first two columns, float32 [n_obs, 2]."""
    return np.asarray(section.taken(section.file.root["obsm"][key][:, :2]), dtype=np.float32)
