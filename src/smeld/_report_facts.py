"""What a report says in words and tables, read from stored results; only counts and medians are new."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from smeld import _adapt, _check, _keys

if TYPE_CHECKING:
    from anndata import AnnData

#: one line of a two-column table
Row = tuple[str, str]
#: a spot counts as surely assigned above this confidence
SURE = 0.9
#: characters of one parameter or name that are shown
MOST = 300
#: rows of a stored table that are shown
MOST_ROWS = 60
#: genes listed for each domain
MOST_MARKERS = 10
PACKAGES = (
    *("smeld", "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "numba", "anndata", "scanpy"),
    *("matplotlib", "torch"),
)
_PLATFORMS = {
    "visium": "10x Visium",
    "legacy_st": "legacy Spatial Transcriptomics",
    "h5ad": "an h5ad file",
    "tables": "tables of counts and coordinates",
}


def plain(value: Any) -> str:
    """A stored value on one line."""
    if isinstance(value, Mapping):
        text = ", ".join(f"{k} = {plain(v)}" for k, v in value.items())
    elif isinstance(value, np.ndarray | list | tuple):
        text = ", ".join(plain(v) for v in np.asarray(value, dtype=object).ravel())
    elif isinstance(value, float | np.floating):
        text = f"{float(value):.6g}"
    else:
        text = str(value)
    return text if len(text) <= MOST else text[: MOST - 1] + "…"


def percent(share: float) -> str:
    """A share (0..1) in whole percent, but never "0 %" or "100 %" for what is neither."""
    whole = round(100 * share)
    if whole == 0 and share > 0:
        return "under 1 %"
    if whole == 100 and share < 1:
        return "over 99 %"
    return f"{whole} %"


def read(adata: AnnData, noun: str, library_id: str | None) -> list[Row]:
    """What was read."""
    found = _adapt.library(adata, library_id)
    meta = _adapt.metadata(adata, library_id)
    rows: list[Row] = []
    if found:
        rows.append(("Section", found[0]))
    name = str(meta.get(_keys.META_PLATFORM, "not recorded"))
    rows.append(("Platform", _PLATFORMS.get(name, name)))
    rows += [("Source", source) for source in _sources(adata)]
    rows.append((f"{noun.capitalize()}s", f"{adata.n_obs:,}"))
    rows.append(("Genes", f"{adata.n_vars:,}"))
    if _keys.SPATIAL_UM in adata.obsm:
        width, height = np.ptp(_adapt.xy_um(adata), axis=0)
        rows.append(("Extent", f"{width:,.0f} × {height:,.0f} µm"))
    if _keys.META_UM_PER_UNIT in meta:
        rows.append(("Micrometres per unit of the coordinates", f"{float(meta[_keys.META_UM_PER_UNIT]):.4g}"))
    if _keys.META_SPOT_UM in meta:
        rows.append((f"Diameter of a {noun}", f"{float(meta[_keys.META_SPOT_UM]):.4g} µm"))
    rows.append(("Image", image(adata, library_id)))
    return rows


def _sources(adata: AnnData) -> Iterator[str]:
    """Names of the files or folders that the records say were read."""
    for _, entry in records(adata):
        if entry["function"].rpartition(".")[2] == "read" and "path" in entry["inputs"]:
            yield _worded("path", entry["inputs"]["path"])


def _worded(name: str, value: Any) -> str:
    """A setting on one line; of a path the last part alone, for the rest may name a person or a machine."""
    text = plain(value)
    if name in ("path", "image"):
        return text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return text


def image(adata: AnnData, library_id: str | None) -> str:
    """Size and resolution of the finest image, in words."""
    try:
        picture, note = _adapt.image(adata, library_id), ""
    except _check.InputError:
        # the file was readable when the section was read; the stored preview still stands for it
        picture = _adapt.image(adata, library_id, preview=True)
        note = "; the finer image file cannot be read now"
    if picture is None:
        return "none"
    height, width = picture.shape
    fine = f", {picture.um_per_px:.3g} µm per pixel" if np.isfinite(picture.um_per_px) else ""
    return f"{width:,} × {height:,} pixels{fine}{note}"


def quality(adata: AnnData, noun: str) -> list[Row]:
    """Medians of the quality measures."""
    names = {
        "total_counts": f"Counts per {noun}, median",
        "n_genes_by_counts": f"Genes per {noun}, median",
        "pct_counts_mt": "Mitochondrial counts, median",
    }
    rows = []
    for column, label in names.items():
        if column in adata.obs.columns:
            values = np.asarray(adata.obs[column], dtype=np.float64)
            low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95])
            unit, digits = (" %", 1) if column == "pct_counts_mt" else ("", 0)
            span = f"90 % lie between {low:,.{digits}f} and {high:,.{digits}f}"
            rows.append((label, f"{middle:,.{digits}f}{unit} ({span})"))
    if "total_counts" in adata.obs.columns:
        empty = int((np.asarray(adata.obs["total_counts"]) == 0).sum())
        rows.append((f"{noun.capitalize()}s without counts", f"{empty:,}"))
    if "low_counts" in adata.obs.columns:
        low = int(np.asarray(adata.obs["low_counts"], dtype=bool).sum())
        rows.append((f"{noun.capitalize()}s with unusually low counts (kept)", f"{low:,}"))
    return rows


def choice(adata: AnnData, key: str) -> str | None:
    """How the number of domains came about, if that is recorded."""
    for name, entry in records(adata):
        if name == key and "n_domains_from" in entry["params"]:
            return plain(entry["params"]["n_domains_from"])
    return None


def domains(adata: AnnData, key: str) -> list[dict[str, Any]]:
    """One row for each domain: name, colour, size, and how sure its spots are."""
    from matplotlib.colors import to_hex

    from smeld.pl import _colors

    found = _colors.categories(adata, key)
    confidence = adata.obs.get(f"{key}{_keys.CONFIDENCE_SUFFIX}")
    values = None if confidence is None else np.asarray(confidence, dtype=np.float64)
    rows = []
    for code in found.used:
        chosen = found.codes == code
        sure = np.nan if values is None else float((values[chosen] > SURE).mean())
        rows.append(
            {
                "name": found.names[code],
                "color": to_hex(found.colors[code]),
                "n": f"{int(chosen.sum()):,}",
                "share": percent(float(chosen.mean())),
                "median": "" if values is None else f"{np.nanmedian(values[chosen]):.2f}",
                "pieces": _pieces(adata, key, found.names[code]),
                "sure": "" if values is None else percent(sure),
                "sure_share": sure,
                "other": _runner_up(adata, key, found.names[code], chosen),
            }
        )
    return rows


def _pieces(adata: AnnData, key: str, name: str) -> str:
    """Number of connected pieces of a domain, and the size of its largest in micrometres."""
    table = adata.uns.get(f"{key}_pieces")
    if not isinstance(table, pd.DataFrame) or "label" not in table:
        return ""
    mine = table[table["label"].astype(str) == name]
    if mine.empty:
        return ""
    return f"{len(mine):,} (largest {mine['extent_um'].max():,.0f} µm)"


def _runner_up(adata: AnnData, key: str, name: str, chosen: Any) -> str:
    """The other domain that the spots of this one lean to most, if it has 1 % of their probability."""
    table = adata.obsm.get(f"{key}{_keys.PROB_SUFFIX}")
    if not isinstance(table, pd.DataFrame):
        return ""
    means = table.loc[np.asarray(chosen)].mean(axis=0)
    means.index = means.index.astype(str)
    means = means.drop(index=name, errors="ignore").sort_values(ascending=False, kind="stable")
    if means.empty or not means.iloc[0] >= 0.01:
        return "none"
    return f"{means.index[0]} ({percent(float(means.iloc[0]))})"


def sureness(adata: AnnData, key: str, noun: str) -> str | None:
    """The share of surely assigned spots as a sentence."""
    column = f"{key}{_keys.CONFIDENCE_SUFFIX}"
    if column not in adata.obs.columns:
        return None
    values = np.asarray(adata.obs[column], dtype=np.float64)
    share = float((values > SURE).mean())
    return f"{percent(share)} of the {noun}s are assigned with a confidence above {SURE:g}".capitalize()


def headline(
    adata: AnnData, key: str, noun: str, rows: list[dict[str, Any]] | None, others: Sequence[str] = ()
) -> list[str]:
    """The report in a few sentences; ``others``: what it has besides domains."""
    size = f"{adata.n_obs:,} {noun}s"
    if rows is None:
        besides = f": {' and '.join(others)}" if others else ""
        lines = [f"{size} and {adata.n_vars:,} genes{besides}; domains were not computed."]
    else:
        names = f"{len(rows)} domain" + ("s" if len(rows) != 1 else "")
        lines = [f"{size}, {names}; {adata.n_vars:,} genes."]
        sure = sureness(adata, key, noun)
        if sure:
            least = min(rows, key=lambda row: float(row["sure_share"]), default=None)
            differ = least is not None and least["sure_share"] < max(row["sure_share"] for row in rows)
            tail = f"; least sure is domain {least['name']} ({least['sure']})" if least and differ else ""
            lines.append(f"{sure}{tail}." if len(rows) > 1 else "With a single domain, confidence says nothing.")
    found = list(morphology(adata))
    if found:
        n_features = sum(len(names) for _, names in found)
        lines.append(f"Morphology: {n_features:,} features were taken from the image.")
    else:
        lines.append("Morphology was absent: the result rests on expression and space alone.")
    return lines


def morphology(adata: AnnData) -> Iterator[tuple[str, list[str]]]:
    """(encoder, names of its features) for every stored set of morphology features."""
    for key in sorted(adata.obsm):
        if key.startswith(_keys.MORPH_PREFIX):
            stored = adata.obsm[key]
            if isinstance(stored, pd.DataFrame):
                names = [str(c) for c in stored.columns]
            else:
                names = [f"{i + 1}" for i in range(stored.shape[1])]
            yield key.removeprefix(_keys.MORPH_PREFIX), names


def no_morphology(adata: AnnData, library_id: str | None) -> str:
    """Why there are no morphology features."""
    if _adapt.image(adata, library_id, preview=True) is None:
        return "Absent: no image is stored with this section, so the tissue's look took no part."
    return "Absent: an image is stored, but no features were taken from it (sm.morph.embed was not run)."


def records(adata: AnnData) -> list[tuple[str, dict[str, Any]]]:
    """(key, record) of every step kept in ``uns["smeld"]``, by key."""
    store = adata.uns.get(_keys.RECORD, {})
    kept = [(str(k), dict(v)) for k, v in store.items() if isinstance(v, Mapping) and "function" in v]
    for _, entry in kept:
        entry["function"] = str(entry["function"])
        for part in ("params", "inputs"):
            entry[part] = entry[part] if isinstance(entry.get(part), Mapping) else {}
    return sorted(kept, key=lambda pair: pair[0])


def steps(adata: AnnData) -> list[dict[str, Any]]:
    """The records, worded."""
    return [
        {
            "key": key,
            "function": entry["function"],
            "version": plain(entry.get("version", "")),
            "seed": plain(entry.get("seed", "none")),
            "params": [(str(k), _worded(str(k), v)) for k, v in sorted(entry["params"].items())],
            "inputs": [(str(k), _worded(str(k), v)) for k, v in sorted(entry["inputs"].items())],
        }
        for key, entry in records(adata)
    ]


def table(stored: Any) -> dict[str, Any] | None:
    """A stored DataFrame as column names and rows of text."""
    if not isinstance(stored, pd.DataFrame) or stored.empty:
        return None
    cut = stored.head(MOST_ROWS)
    named = not isinstance(cut.index, pd.RangeIndex) and not all(str(i).isdigit() for i in cut.index)
    rows = [[_short(v) for v in row] for row in cut.itertuples(index=named, name=None)]
    return {
        "columns": ([str(cut.index.name or "")] if named else []) + [str(c) for c in cut.columns],
        "rows": rows,
        "hidden": len(stored) - len(cut),
    }


def _short(value: Any) -> str:
    """Figures of a table to four digits: the file beside the report holds them all."""
    return f"{value:.4g}" if isinstance(value, float | np.floating) and np.isfinite(value) else plain(value)


def modalities(adata: AnnData, noun: str) -> list[str]:
    """What ``uns["fusion_evidence"]`` says of each modality, in words."""
    stored = adata.uns.get("fusion_evidence")
    if not isinstance(stored, pd.DataFrame) or not {"what", "setting", "score", "gain", "gain_se", "chosen"} <= set(
        stored
    ):
        return []
    rows = {str(row.what): row for row in stored.itertuples(index=False)}
    lines = []
    if "space" in rows:
        share = round(100 * float(rows["space"].score))
        lines.append(f"Space: a {noun}'s surroundings predict {share} % of its variation in counts not seen.")
    if "morphology" in rows:
        row, kept = rows["morphology"], bool(rows["morphology"].chosen)
        what = (
            f"adds to that ({_gain(row)}): similar tissue counts more"
            if kept
            else f"adds nothing to that ({_gain(row)})"
        )
        lines.append(f"Morphology, as a weight of neighbours, {what}.")
    if "morphology alone" in rows:
        row = rows["morphology alone"]
        what = "knows the regions that expression shows: its components help to define domains"
        if not row.chosen:
            what = "is no good enough witness of the regions that expression shows: it does not define domains"
        lines.append(f"Morphology by itself ({plain(row.setting)}) {what}.")
    if "expression" in rows:
        row = rows["expression"]
        what = "smooths less across borders of expression" if row.chosen else "gets no say"
        lines.append(f"Expression, as a weight of neighbours, {what} ({_gain(row)}).")
    return lines


def _gain(row: Any) -> str:
    return f"{100 * float(row.gain):+.1f} %, standard error {100 * float(row.gain_se):.1f}"


def markers(adata: AnnData, key: str) -> list[dict[str, Any]]:
    """For each domain its best genes, worded."""
    from smeld.pl import dots

    chosen = dots.top(dots.marker_table(adata, key), MOST_MARKERS)
    scale = 1.0 if chosen.empty or dots.in_percent(chosen) else 100.0
    optional = [c for c in ("pct_out", "qvalue") if c in chosen.columns]
    found = []
    for domain, rows in chosen.groupby("domain", sort=False):
        lines = []
        for row in rows.to_dict("records"):
            line = [row["gene"], f"{row['score']:.1f}", f"{row['log2_fold_change']:.2f}"]
            line.append(f"{row['pct_in'] * scale:.0f} %")
            line += [f"{row[c] * scale:.0f} %" if c == "pct_out" else f"{row[c]:.2g}" for c in optional]
            lines.append(line)
        found.append({"domain": domain, "genes": [line[0] for line in lines[:5]], "rows": lines})
    return found


def versions() -> list[Row]:
    """Versions of Python and of the packages that take part, where installed."""
    rows: list[Row] = [("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            rows.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return rows
