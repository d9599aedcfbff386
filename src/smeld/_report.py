"""``sm.report``: one HTML file with everything inside, made from stored results alone."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from smeld import __version__, _adapt, _check, _keys
from smeld import _report_facts as facts
from smeld import _report_pairs as pairs
from smeld import _report_sure as sure
from smeld import _report_trajectory as trajectory
from smeld import _report_types as types

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.figure import Figure

#: what the page may load: pictures and styles that are part of it, and nothing else
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
#: genes that a dot plot on a page has room for
MOST_GENES = 60
#: dots per inch of figures and of the pixel parts of vector figures
DPI = 150.0


def report(
    adata: AnnData,
    path: str | Path,
    *,
    title: str | None = None,
    key: str = _keys.DOMAIN,
    library_id: str | None = None,
) -> Path:
    """Write what is stored in ``adata`` as one self-contained HTML file.

    Nothing is computed: what was not stored is named as not computed. The file loads nothing from anywhere (a
    content security policy forbids it), holds no script, and has no date, so that the same data give the same
    bytes.

    Parameters
    ----------
    adata
        AnnData, or SpatialData with one table, as the other functions left it.
    path
        The file to write, usually ``.html``; it is replaced as a whole or left alone.
    title
        Heading; None takes the section's name.
    key
        Labels to report: ``obs[key]``, ``obs[f"{key}_confidence"]``, ``obsm[f"{key}_prob"]``,
        ``uns[f"{key}_markers"]``.
    library_id
        Section in ``uns["spatial"]``; needed only where several are stored.

    Returns
    -------
    The path.

    Raises
    ------
    InputError
        ``adata`` is neither AnnData nor SpatialData, or ``path`` cannot be written.

    Examples
    --------
    >>> import smeld as sm, pathlib, tempfile
    >>> adata = sm.datasets.simulate(n_obs=200, n_genes=50, seed=0)
    >>> sm.report(adata, pathlib.Path(tempfile.mkdtemp()) / "report.html").name
    'report.html'
    """
    return write_report(adata, path, title=title, key=key, library_id=library_id)


def write_report(
    adata: AnnData,
    path: str | Path,
    *,
    title: str | None = None,
    key: str = _keys.DOMAIN,
    library_id: str | None = None,
    figures: Path | None = None,
) -> Path:
    """:func:`report`, with those of its pictures that ``save_figures`` of the same section has just left in
    ``figures``: a million spots take long to draw."""
    from smeld.io._write import replacing

    table = _adapt.table(adata)
    page = _render(_content(table, title=title, key=key, library_id=library_id, drawn=figures))
    with replacing(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return Path(path)


def save_figures(
    adata: AnnData, folder: str | Path, *, key: str = _keys.DOMAIN, library_id: str | None = None
) -> list[Path]:
    """Write the figures whose results are stored, each as .svg (text stays text) and .png (150 dpi).

    The folder is made where it is missing. Returned are the files written, in the order of the report: some
    of ``section``, ``domains``, ``confidence``, ``quality_control``, ``embedding``, ``markers``, and those of
    ligand-receptor pairs, of cell types and of trajectories.
    """
    from smeld.io._write import replacing
    from smeld.pl import style
    from smeld.pl._save import render

    table, folder = _adapt.table(adata), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in _FIGURES.items():
        if name == "section_and_domains":
            continue
        try:
            with style():
                figure = draw(table, key, library_id)
        except _check.InputError:
            continue  # not computed: the report says so
        for kind in ("svg", "png"):
            path = folder / f"{name}.{kind}"
            content = render(figure, kind, dpi=DPI)
            with replacing(path) as temporary:
                temporary.write_bytes(content)
            written.append(path)
    return written


# -- figures: drawn without pyplot, so that nothing is displayed and no figure stays open --------------------


def _map(adata: AnnData, library_id: str | None, beside: float) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    from smeld.pl import _canvas

    figure = Figure(figsize=_canvas.size_in(adata, library_id, beside=beside), layout="compressed")
    return figure, figure.subplots()


def _section(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl

    if _adapt.image(adata, library_id, preview=True) is None:
        raise _check.problem("no image is stored", cure="read the section together with its image")
    figure, ax = _map(adata, library_id, 0.2)
    pl.section(adata, ax=ax, library_id=library_id)
    return figure


def _domains(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl

    figure, ax = _map(adata, library_id, 1.4)
    pl.domains(adata, key, ax=ax, library_id=library_id)
    return figure


def _section_and_domains(adata: AnnData, key: str, library_id: str | None) -> Figure:
    """The stained section and its domains at one scale, side by side (wide sections: one above the other)."""
    from matplotlib.figure import Figure

    from smeld import pl
    from smeld.pl import _canvas

    if _adapt.image(adata, library_id, preview=True) is None:
        return _domains(adata, key, library_id)
    width, height = _canvas.size_in(adata, library_id, beside=0.0)
    stacked = width > 2 * height
    size = (width + 1.4, 2 * height) if stacked else (2 * width + 1.4, height)
    figure = Figure(figsize=size, layout="compressed")
    left, right = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    pl.section(adata, ax=left, library_id=library_id)
    pl.domains(adata, key, ax=right, library_id=library_id)
    return figure


def _confidence(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from smeld import pl

    figure, ax = _map(adata, library_id, 1.0)
    pl.confidence(adata, key, ax=ax, library_id=library_id)
    return figure


def _quality_control(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl
    from smeld.pl import distributions

    size, widths = distributions.layout(adata, len(distributions.measures(adata)), library_id)
    figure = Figure(figsize=size, layout="compressed")
    axes = figure.subplots(1, len(widths), width_ratios=widths)
    pl.quality_control(adata, axes=axes, library_id=library_id)
    return figure


def _embedding(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl

    figure = Figure(figsize=(5.6, 4.2), layout="compressed")
    pl.embedding(adata, key, ax=figure.subplots())
    return figure


def _markers(adata: AnnData, key: str, library_id: str | None) -> Figure:
    from matplotlib.figure import Figure

    from smeld import pl
    from smeld.pl import dots

    table = dots.marker_table(adata, key)
    n_domains = table["domain"].nunique()
    n = int(np.clip(MOST_GENES // max(n_domains, 1), 1, 5))
    size = dots.size_in(n_domains, dots.top(table, n)["gene"].nunique())
    figure = Figure(figsize=size, layout="compressed")
    pl.markers(adata, n=n, key=key, ax=figure.subplots())
    return figure


_Draw = Callable[["AnnData", str, "str | None"], "Figure"]
_FIGURES: dict[str, _Draw] = {
    "section": _section,
    "domains": _domains,
    "section_and_domains": _section_and_domains,
    "confidence": _confidence,
    "quality_control": _quality_control,
    "embedding": _embedding,
    "markers": _markers,
    **sure.FIGURES,
    **pairs.FIGURES,
    **types.FIGURES,
    **trajectory.FIGURES,
}


# -- the page ------------------------------------------------------------------------------------------------

#: sections of the main job: heading in a sentence, and the figure without which there is nothing to say
_MAIN = {
    "quality": ("quality control", "quality_control"),
    "domains": ("domains", "section_and_domains"),
    "sure": ("how sure they are", "confidence"),
    "embedding": ("embedding", "embedding"),
    "markers": ("marker genes", "markers"),
}


def _picture(adata: AnnData, name: str, key: str, library_id: str | None, drawn: Path | None) -> dict[str, str]:
    """The figure as a data URI, or why there is none; what was ``drawn`` is taken from there."""
    from smeld.pl import style
    from smeld.pl._save import render

    if drawn is not None and (there := drawn / f"{name}.svg").is_file():
        return {"uri": _uri(there.read_bytes())}
    try:
        with style():
            svg = render(_FIGURES[name](adata, key, library_id), "svg", dpi=DPI)
    except _check.InputError as missing:
        return {"missing": str(missing)}
    return {"uri": _uri(svg)}


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")


def _content(
    adata: AnnData, *, title: str | None, key: str, library_id: str | None, drawn: Path | None
) -> dict[str, Any]:
    """Everything the template shows."""
    from smeld.pl import _canvas

    noun = _canvas.noun(adata, library_id)
    found = _adapt.library(adata, library_id)
    rows = facts.domains(adata, key) if key in adata.obs.columns else None
    shown: tuple[str, ...] = ("section_and_domains", "confidence", "quality_control", "embedding", "markers")
    scored, spread = sure.content(adata), sure.network(adata)
    shown += ("reliability", "risk_coverage") if scored else ()
    shown += ("embedding_spread",) if spread else ()
    stored = pairs.content(adata)
    shown += tuple(pairs.FIGURES) if stored else ()
    ordered = trajectory.content(adata, noun)
    shown += tuple(trajectory.FIGURES) if ordered else ()
    typed = types.content(adata, noun)
    shown += types.shown(adata, typed)
    figures = {name: _picture(adata, name, key, library_id, drawn) for name in shown}
    others = [words for words, found in (("cell types", typed), ("pairs", stored), ("an order", ordered)) if found]
    return {
        "title": title if title is not None else (f"Section {found[0]}" if found else "Spatial section"),
        "policy": POLICY,
        "version": __version__,
        "noun": noun,
        "key": key,
        "headline": facts.headline(adata, key, noun, rows, others),
        "left_out": _left_out(adata, figures) if rows is None and others else {},
        "warnings": _keys.kept_warnings(adata),
        "read": facts.read(adata, noun, library_id),
        "quality": facts.quality(adata, noun),
        "domains": rows,
        "choice": facts.choice(adata, key),
        "selection": facts.table(adata.uns.get(f"{key}_selection")),
        "sure": facts.sureness(adata, key, noun),
        "calibrations": scored,
        "spread": spread,
        "has_prob": f"{key}{_keys.PROB_SUFFIX}" in adata.obsm,
        "has_pieces": f"{key}_pieces" in adata.uns,
        "has_image": _adapt.image(adata, library_id, preview=True) is not None,
        "figures": figures,
        "markers": facts.markers(adata, key) if "uri" in figures["markers"] else [],
        "marker_columns": _marker_columns(adata, key),
        "morphology": list(facts.morphology(adata)),
        "no_morphology": facts.no_morphology(adata, library_id),
        "evidence": facts.table(adata.uns.get("fusion_evidence")),
        "modalities": facts.modalities(adata, noun),
        "interactions": stored,
        "types": typed,
        "trajectory": ordered,
        "steps": facts.steps(adata),
        "versions": facts.versions(),
    }


def _left_out(adata: AnnData, figures: dict[str, dict[str, str]]) -> dict[str, str]:
    """Sections of the main job that a report of something else does without: identifier and heading."""
    missing = {
        section: heading
        for section, (heading, name) in _MAIN.items()
        if "missing" in figures[name] and f"{name}_spread" not in figures
    }
    return missing if "fusion_evidence" in adata.uns else {**missing, "evidence": "what each modality adds"}


def _marker_columns(adata: AnnData, key: str) -> list[str]:
    names = ["gene", "score", "log2 fold change", "in domain"]
    columns = getattr(adata.uns.get(f"{key}_markers"), "columns", ())
    return names + [label for c, label in (("pct_out", "elsewhere"), ("qvalue", "q-value")) if c in columns]


def _printable(value: Any) -> Any:
    """Names come from files: what is invisible or reverses the writing is shown as a mark of its own."""
    # Markup is what the template's own macros made, out of parts that came through here already
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(c if c.isprintable() else "\ufffd" for c in value)


def _render(content: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_printable, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("smeld").joinpath("_report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(content)
