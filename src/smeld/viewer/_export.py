"""The page as files that open without a server: a folder, or a single file for small sections.

From ``file://`` a browser fetches nothing, so that data comes as scripts, each of which hands over one address of the
viewer. Addresses are those of the server (:mod:`smeld.viewer._answers`); genes and pairs that are left out lose their
numbers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smeld import __version__, _check, _keys
from smeld.viewer import _server, _stored, _wire
from smeld.viewer._answers import JSON, Answer, Answers, View
from smeld.viewer._source import open_result

#: sections of at most so many cells become one file unless told otherwise; more never do
SINGLE, MOST_SINGLE = 20_000, 200_000
#: genes, and pairs, of an export that names none
MOST_GENES, MOST_PAIRS = 200, 100
#: genes that are sought one by one
FEW = 8
#: the image's long side in an export, pixels: in a folder, in a single file
IMAGE_PX, IMAGE_PX_SINGLE = 8_192, 2_048
#: what a folder of ours holds
MARKER, WRITTEN = "index.html", ("page/*", "data/*.js")

_SCRIPT = re.compile(r'<script\b[^>]*\bsrc="page/([A-Za-z0-9_.-]+)"[^>]*>\s*</script>')
_STYLE = re.compile(r'<link\b[^>]*\bhref="page/([A-Za-z0-9_.-]+\.css)"[^>]*>')
_ICON = re.compile(r'href="page/([A-Za-z0-9_.-]+\.(?:svg|png|ico))"')
_BASE_CSP = "img-src {}blob: data:; worker-src blob:; base-uri 'none'; form-action 'none'; object-src 'none'"


@dataclass(frozen=True)
class Choice:
    """What goes into an export: ``genes`` by name, or the ``top`` markers, or both left to smeld; one file or a folder
    (None: by the number of cells)."""

    genes: tuple[str, ...] | None = None
    top: int | None = None
    single: bool | None = None


def export(given: Any, out: Path, choice: Choice = Choice(), *, say: Any = lambda message: None) -> Path:
    """Write the page and its data; the path of the page that is to be opened."""
    from smeld.io._safe import replacing, replacing_folder

    result = open_result(given, say=say)
    try:
        single = _single(result, choice, out)
        say("collecting what the page needs")
        held = contents(Answers(result), choice, title=result.title, single=single)
        if single:
            target = out if out.suffix.lower() in (".html", ".htm") else out.with_name(out.name + ".html")
            with replacing(target) as temporary:
                temporary.write_text(single_page(dict(held)), encoding="utf-8")
            return target
        with replacing_folder(out, known=WRITTEN, marker=MARKER) as folder:
            _write_folder(folder, held)
        return out / MARKER
    finally:
        result.close()


def _single(result: Any, choice: Choice, out: Path) -> bool:
    n = sum(section.n_obs for section in result.sections)
    if choice.single and n > MOST_SINGLE:
        found = f"{n:,} cells, at most {MOST_SINGLE:,}"
        raise _check.problem("the section is too large for a single file", found=found, cure="leave --single out")
    named = out.suffix.lower() in (".html", ".htm")
    if named and n > MOST_SINGLE:
        raise _check.problem("the section is too large for a single file", found=out.name, cure="name a folder")
    return bool(choice.single) or named if choice.single is not None or named else n <= SINGLE


# -- data ----------------------------------------------------------------------------------------------------


def contents(
    answers: Answers, choice: Choice, *, title: str, single: bool, **facts: Any
) -> Iterator[tuple[str, bytes]]:
    """(address, bytes) of all that the page will ask for."""
    names = [view.section.name for view in answers.views]
    state = {"ready": True, "static": True, "saying": "", "error": None, "version": __version__, "title": title,
             "annotate": False, "sections": names, "indexed": 1,
             "apart": len(answers.result.files) > 1, **facts}  # fmt: skip
    yield "api/state.json", _wire.to_json(state)
    longest = IMAGE_PX_SINGLE if single else IMAGE_PX
    for k, view in enumerate(answers.views):
        for address, answer in _of_section(answers, k, view, choice, longest):
            yield f"api/{k}/{address}", answer.body


def _of_section(answers: Answers, k: int, view: View, choice: Choice, longest: int) -> Iterator[tuple[str, Answer]]:
    about = view.described()
    chosen = _chosen(view, choice)
    names = view.section.file.genes.names
    about |= {"n_genes": len(chosen), "genes": len(chosen), "outlines": False}
    first = _coarse(about, longest)
    yield "section.json", Answer(_wire.to_json(about), JSON)
    also = view.genes().get("also")
    listed = {"names": [names[g] for g in chosen], **({"also": [also[g] for g in chosen]} if also else {})}
    yield "genes.json", Answer(_wire.to_json(listed), JSON)
    if len(chosen) > FEW:
        view.section.file.genes.build()  # once, rather than seek each gene in the whole table
    number = {names[g]: place for place, g in enumerate(chosen)}
    asked = {f"gene/{place}.bin": f"gene/{g}.bin" for place, g in enumerate(chosen)}
    for pair in _pairs(view, number):
        here, there = [number[name] for name in pair], [names.index(name) for name in pair]
        asked[f"pair/{here[0]}/{here[1]}.bin"] = f"pair/{there[0]}/{there[1]}.bin"
    asked |= {place: place for place in ["xy.bin", *_numbered(about)]}
    asked |= _tiles_of(about, first)
    for address, source in asked.items():
        answer = answers.get(f"{k}/{source}")
        if answer is not None:
            yield address, answer


def _numbered(about: dict[str, Any]) -> list[str]:
    """Addresses of all that a section lists."""
    kinds = {
        "columns": "column/{}.bin",
        "embeddings": "embedding/{}.bin",
        "tables": "table/{}.json",
        "links": "links/{}.bin",
    }
    return [place.format(i) for what, place in kinds.items() for i in range(len(about[what]))]


def _coarse(about: dict[str, Any], longest: int) -> int:
    """Leave out the levels of the image that are larger than this; the first level that stays."""
    image = about["image"]
    if image is None:
        return 0
    levels = image["levels"]
    first = next(
        (i for i, level in enumerate(levels) if max(level["width"], level["height"]) <= longest), len(levels) - 1
    )
    matrix = [[value / 2**first for value in row] for row in image["um_to_px"]]
    about["image"] = {**image, **levels[first], "levels": levels[first:], "um_to_px": matrix}
    return first


def _tiles_of(about: dict[str, Any], first: int) -> dict[str, str]:
    """Tiles by their number in the export, and the tile of the server that each is."""
    image, found = about["image"], {}
    for i, level in enumerate(() if image is None else image["levels"]):
        for row in range(-(-level["height"] // image["tile"])):
            for column in range(-(-level["width"] // image["tile"])):
                found[f"tile/{i}/{column}_{row}.jpg"] = f"tile/{i + first}/{column}_{row}.jpg"
    return found


# -- genes ---------------------------------------------------------------------------------------------------


def _chosen(view: View, choice: Choice) -> list[int]:
    """Numbers of the genes that go along, in the table's order."""
    genes = view.section.file.genes
    place = {name: i for i, name in enumerate(genes.names)}
    if choice.genes is not None:
        for name in choice.genes:
            if name not in place:
                raise _check.unknown("gene", name, list(place))
        return sorted(place[name] for name in dict.fromkeys(choice.genes))
    most = MOST_GENES if choice.top is None else choice.top
    root = view.section.file.root
    wanted = [name for pair in _tested(root)[: most // 4] for name in pair] if choice.top is None else []
    wanted += _markers(root, most)
    usable = [name for name in dict.fromkeys(wanted) if name in place] or genes.names
    return sorted(place[name] for name in usable[: min(most, genes.n_genes)])


def _tested(root: Any) -> list[tuple[str, str]]:
    """Pairs of the table, in its order: the best come first."""
    table = _stored.at(root, "uns", _keys.INTERACTIONS)
    if table is None or not {"ligand", "receptor"} <= set(_stored.columns(table)):
        return []
    return list(zip(_stored.words(table["ligand"]), _stored.words(table["receptor"]), strict=True))


def _pairs(view: View, number: dict[str, int]) -> list[tuple[str, str]]:
    known = [pair for pair in _tested(view.section.file.root) if pair[0] in number and pair[1] in number]
    return list(dict.fromkeys(known))[:MOST_PAIRS]


def _markers(root: Any, most: int) -> list[str]:
    """Genes of the tables that have some: the first of each domain, then the second of each, and so on."""
    found: list[str] = []
    for key in (_keys.MARKERS, _keys.TRANSITION_GENES):
        table = _stored.at(root, "uns", key)
        names = [] if table is None else _stored.columns(table)
        if "gene" not in names:
            continue
        genes = _stored.words(table["gene"])
        groups = _stored.words(table["domain"]) if "domain" in names else [""] * len(genes)
        seen: dict[str, int] = {}
        ranked = []
        for gene, group in zip(genes, groups, strict=True):
            seen[group] = seen.get(group, -1) + 1
            ranked.append((seen[group], gene))
        found += [gene for _, gene in sorted(ranked, key=lambda item: item[0])][:most]
    return found


# -- pages ---------------------------------------------------------------------------------------------------


def _page() -> tuple[str, dict[str, Path]]:
    files = _server.page_files()
    if "index.html" not in files:
        raise _check.problem("the page is missing", found="an incomplete installation", cure="install smeld again")
    return files["index.html"].read_text(encoding="utf-8"), files


def _write_folder(folder: Path, held: Iterator[tuple[str, bytes]]) -> None:
    html, files = _page()
    (folder / "page").mkdir()
    (folder / "data").mkdir()
    for name, path in files.items():
        if name != "index.html":
            (folder / "page" / name).write_bytes(path.read_bytes())
    for address, body in held:
        said = base64.b64encode(body).decode()
        script = f'smeld.arrived("{address}", "{said}");\n'
        (folder / "data" / f"{address.replace('/', '_')}.js").write_text(script, encoding="ascii")
    own = "script-src 'self' file:; style-src 'self' file:; " + _BASE_CSP.format("'self' file: ")
    (folder / MARKER).write_text(_with_worker(html, files, f"default-src 'none'; {own}"), encoding="utf-8")


def _with_worker(html: str, files: dict[str, Path], csp: str) -> str:
    """The page with its policy at the top, and the worker's text before the first script."""
    worker = files["worker.js"].read_text(encoding="utf-8") if "worker.js" in files else ""
    inert = f'<script type="text/plain" id="worker">{_inside(worker)}</script>\n'
    meta = f'<meta http-equiv="Content-Security-Policy" content="{csp}">'
    html = re.sub(r"(<head\b[^>]*>)", lambda head: f"{head[1]}\n{meta}", html, count=1)
    return re.sub(r"<script\b", lambda tag: inert + tag[0], html, count=1)


def single_page(held: dict[str, bytes]) -> str:
    """The whole page as one text, data included; its policy lets these scripts run and no other."""
    html, files = _page()
    hashes: dict[str, list[str]] = {"script": [], "style": []}

    def inline(tag: str, content: str) -> str:
        hashes[tag].append(f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")
        return f"<{tag}>{content}</{tag}>"

    said = {address: base64.b64encode(body).decode() for address, body in held.items()}
    data = inline("script", f"window.smeld={{single:true,held:{_wire.to_json(said).decode()}}};")
    html = _STYLE.sub(lambda m: inline("style", files[m[1]].read_text(encoding="utf-8")), html)
    html = _ICON.sub(lambda m: f'href="{_data_address(files[m[1]])}"', html)
    scripts = [m[1] for m in _SCRIPT.finditer(html)]
    code = "".join(inline("script", _inside(files[name].read_text(encoding="utf-8"))) + "\n" for name in scripts)
    # in the place of the last one, at the end of the body: scripts that were deferred find the page as they expect it
    html = re.sub(r"</body>", lambda end: data + "\n" + code + end[0], _SCRIPT.sub("", html), count=1)
    rules = {f"{kind}-src": " ".join(found) or "'none'" for kind, found in hashes.items()}
    csp = "; ".join(["default-src 'none'", *(f"{k} {v}" for k, v in rules.items()), _BASE_CSP.format("")])
    return _with_worker(html, files, csp)


def _inside(script: str) -> str:
    """A script that can stand in a page: nothing in it ends it early."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _data_address(path: Path) -> str:
    media = _server.MEDIA[path.suffix]
    return f"data:{media};base64,{base64.b64encode(path.read_bytes()).decode()}"
