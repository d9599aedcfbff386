"""The page as files, opened from the disk in a real browser; and in a notebook's frame."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import _page_live
import _viewer_live
import numpy as np
import pytest

import chrome_pipe
import smeld as sm
import stored_section
from smeld import io
from smeld.viewer import _export, _notebook, _wire
from smeld.viewer._answers import Answers
from smeld.viewer._source import open_result


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "result.h5ad"
    io.write(_viewer_live.section(), path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with _page_live.a_browser(tmp_path_factory.mktemp("browser")) as made:
        yield made


def held_in(folder: Path) -> dict[str, bytes]:
    """Addresses and their content, from the scripts of a folder."""
    found = {}
    for path in (folder / "data").iterdir():
        match = re.fullmatch(r'smeld\.arrived\("([^"]+)", "([^"]*)"\);\n', path.read_text())
        assert match is not None
        assert path.name == match[1].replace("/", "_") + ".js"
        found[match[1]] = base64.b64decode(match[2])
    return found


# -- what goes along -----------------------------------------------------------------------------------------


def test_a_folder_holds_what_the_server_gives(result: Path, tmp_path: Path) -> None:
    page = _export.export(result, tmp_path / "out", _export.Choice(genes=("g7", "g0", "g1"), single=False))
    assert page == tmp_path / "out" / "index.html"
    held, answers = held_in(tmp_path / "out"), Answers(open_result(result))
    assert json.loads(held["api/state.json"])["static"] is True
    genes = json.loads(held["api/0/genes.json"])["names"]
    assert genes == ["g0", "g1", "g7"]
    names = open_result(result).files[0].genes.names
    for i, name in enumerate(genes):
        answer = answers.get(f"0/gene/{names.index(name)}.bin")
        assert answer is not None and held[f"api/0/gene/{i}.bin"] == answer.body
    answer = answers.get("0/pair/0/1.bin")
    assert answer is not None and held["api/0/pair/0/1.bin"] == answer.body
    assert [a for a in held if "/pair/" in a] == ["api/0/pair/0/1.bin"], "g2 and g3 are no part"
    said = json.loads(held["api/0/section.json"])
    for j, _ in enumerate(said["columns"]):
        answer = answers.get(f"0/column/{j}.bin")
        assert answer is not None and held[f"api/0/column/{j}.bin"] == answer.body
    assert {f"api/0/table/{j}.json" for j in range(len(said["tables"]))} <= set(held)
    for level, size in enumerate(said["image"]["levels"]):
        tiles = [a for a in held if a.startswith(f"api/0/tile/{level}/")]
        assert len(tiles) == -(-size["width"] // 256) * -(-size["height"] // 256)
    with pytest.raises(sm.InputError, match="did you mean"):
        _export.export(result, tmp_path / "none", _export.Choice(genes=("G7",)))
    assert not (tmp_path / "none").exists()


def test_genes_of_pairs_and_markers_of_every_domain_go_along(result: Path) -> None:
    view = Answers(open_result(result)).views[0]
    names = view.section.file.genes.names
    chosen = [names[g] for g in _export._chosen(view, _export.Choice())]
    assert {"g0", "g1", "g2", "g3"} <= set(chosen)
    first = [names[g] for g in _export._chosen(view, _export.Choice(top=4))]
    assert first == ["g0", "g1", "g2", "g3"], "the best of each domain"


def test_a_large_image_is_cut_to_coarser_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_export, "IMAGE_PX", 300)
    adata = stored_section.make()
    y, x = np.mgrid[0:700, 0:1000]
    adata.uns["spatial"]["slice"]["images"]["hires"] = np.stack([x / 4, y / 4, 0 * x], axis=2).astype(np.uint8)
    _export.export(adata, tmp_path / "out", _export.Choice(single=False))
    image = json.loads(held_in(tmp_path / "out")["api/0/section.json"])["image"]
    assert [(level["width"], level["height"]) for level in image["levels"]] == [(250, 175)]
    whole = json.loads(answers.body) if (answers := Answers(open_result(adata)).get("0/section.json")) else {}
    assert np.allclose(np.array(image["um_to_px"]) * 4, whole["image"]["um_to_px"])


def test_one_file_or_a_folder(result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _export.export(result, tmp_path / "small") == tmp_path / "small.html"
    assert _export.export(result, tmp_path / "named.html") == tmp_path / "named.html"
    monkeypatch.setattr(_export, "SINGLE", 10)
    assert _export.export(result, tmp_path / "large") == tmp_path / "large" / "index.html"
    assert _export.export(result, tmp_path / "one.html", _export.Choice(single=True)) == tmp_path / "one.html"
    monkeypatch.setattr(_export, "MOST_SINGLE", 20)
    for out, choice in (("a", _export.Choice(single=True)), ("b.html", _export.Choice())):
        with pytest.raises(sm.InputError, match="too large for a single file"):
            _export.export(result, tmp_path / out, choice)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("mine")
    with pytest.raises(sm.InputError, match="not one of smeld's"):
        _export.export(result, tmp_path / "theirs")
    again = _export.export(result, tmp_path / "large", _export.Choice(top=1))
    assert len([a for a in held_in(again.parent) if "/gene/" in a]) == 1, "a folder of ours is replaced as a whole"


def test_the_same_result_gives_the_same_bytes(result: Path, tmp_path: Path) -> None:
    one, two = (_export.export(result, tmp_path / f"{i}.html").read_bytes() for i in (1, 2))
    assert one == two


# -- in a browser, from the disk -----------------------------------------------------------------------------


def shown(page: chrome_pipe.Page) -> None:
    """The picture is there, a gene that went along can be shown, and nothing was asked of a network."""
    page.wait("smeld.probe.ready")
    page.evaluate("smeld.paint.set({type: 'gene', name: 'g0'})")
    page.wait("smeld.paint.current && smeld.paint.current.name === 'g0'")
    page.evaluate("smeld.paint.set({type: 'pair', ligand: 'g0', receptor: 'g1'})")
    page.wait("smeld.paint.current && smeld.paint.current.type === 'pair'")
    assert page.console == [] and page.evaluate("smeld.probe.errors") == []
    assert [r for r in page.requests if not r.startswith(("file:", "blob:", "data:"))] == []


def test_a_folder_opens_from_the_disk(browser: Any, result: Path, tmp_path: Path) -> None:
    written = _export.export(result, tmp_path / "out", _export.Choice(single=False))
    page = browser.page(written.as_uri())
    shown(page)


def test_a_single_file_opens_from_the_disk_alone(browser: Any, result: Path, tmp_path: Path) -> None:
    written = _export.export(result, tmp_path / "one.html")
    page = browser.page(written.as_uri())
    shown(page)
    assert [r for r in page.requests if r.startswith("file:")] == [written.as_uri()]


def test_hostile_names_are_inert_in_an_export(browser: Any, tmp_path: Path) -> None:
    written = _export.export(_page_live.hostile(), tmp_path / "one.html")
    text = written.read_text(encoding="utf-8")
    assert "<script>alert(1)</script>" not in text and "\x00" not in text
    page = browser.page(written.as_uri())
    page.wait("smeld.probe.ready")
    assert page.evaluate("document.querySelectorAll('img[src=x], [onerror]').length") == 0
    assert page.console == []


def test_other_scripts_do_not_run_in_an_export(browser: Any, result: Path, tmp_path: Path) -> None:
    """Someone who changes the file can do what he likes; text that found its way into it cannot."""
    written = _export.export(result, tmp_path / "one.html")
    text = written.read_text(encoding="utf-8")
    written.write_text(text.replace("</body>", "<script>window.ran = 1</script><img src=x onerror='ran=2'></body>"))
    page = browser.page(written.as_uri())
    page.wait("smeld.probe.ready")
    assert page.evaluate("window.ran") is None


# -- in a notebook -------------------------------------------------------------------------------------------

STUB = """<!doctype html><title>notebook</title><div id="cell" style="width:1200px"></div>
<script type="application/json" id="held">%s</script>"""
#: what a notebook does: a model whose changes are heard, and the widget's own script
RUN = """(async () => {
  const held = JSON.parse(document.getElementById("held").textContent), listeners = [];
  window.model = {
    get: (name) => held[name], saved: 0,
    set: (name, value) => {
      held[name] = value;
      listeners.filter(([n]) => n === `change:${name}`).forEach(([, f]) => f());
    },
    save_changes: () => { window.model.saved += 1; },
    on: (name, f) => listeners.push([name, f]), off: (name, f) => {},
  };
  const widget = await import("data:text/javascript;base64,%s");
  window.stop = widget.default.render({ model: window.model, el: document.getElementById("cell") });
})()"""


def test_a_selection_travels_between_page_and_python(browser: Any, result: Path, tmp_path: Path) -> None:
    pytest.importorskip("anywidget", reason="needs smeld[notebook]")
    widget = sm_view(result)
    assert widget.selection == [] and len(widget.selected) == 0 and not widget.selected_mask.any()
    widget.selection = [4, 2, 2]
    assert widget.selection == [2, 4] and widget.picked == {"0": [2, 4]}
    assert list(widget.selected) == ["spot0002", "spot0004"] and np.flatnonzero(widget.selected_mask).tolist() == [2, 4]
    held = {"page": widget.page, "height_px": 600, "picked": widget.picked}
    (tmp_path / "notebook.html").write_text(STUB % json.dumps(held).replace("<", "\\u003c"), encoding="utf-8")
    page = browser.page((tmp_path / "notebook.html").as_uri())
    page.evaluate(RUN % base64.b64encode(_notebook.ESM.encode()).decode())
    page.wait("model.saved >= 1", 40)
    assert page.evaluate("model.get('picked')") == {"0": [2, 4]}, "what Python selected came to the page and back"
    page.evaluate("model.set('picked', {0: [7, 8, 9]})")
    page.wait("model.saved >= 2")
    # another frame of the notebook says the same, and is not heard
    page.evaluate("window.postMessage({smeld: 'selection', section: 0, rows: [1]}, '*')")
    page.evaluate("new Promise((done) => setTimeout(done, 200))")
    told = page.evaluate("model.get('picked')")
    assert told == {"0": [7, 8, 9]}
    assert page.evaluate("document.querySelector('iframe').contentDocument") is None, "the frame is another origin"
    page.evaluate("stop()")
    assert page.evaluate("document.querySelectorAll('iframe').length") == 0
    widget.set_state({"picked": told})  # as the notebook does
    assert widget.selection == [7, 8, 9]


def sm_view(data: Any, **options: Any) -> Any:
    return _notebook.view(data, **options)


def test_rows_of_sections_are_rows_of_the_table() -> None:
    pytest.importorskip("anywidget", reason="needs smeld[notebook]")
    both = _page_live.two_sections()
    both = both[np.random.default_rng(0).permutation(both.n_obs)].copy()
    widget = sm_view(both, genes=["g0"])
    widget.set_state({"picked": {"1": [0, 1]}})
    in_b = np.flatnonzero((both.obs["sample"] == "B").to_numpy())
    assert widget.selection == in_b[:2].tolist()
    assert list(widget.selected) == list(both.obs_names[in_b[:2]])
    widget.selection = []
    assert widget.picked == {"0": [], "1": []}
    with pytest.raises(sm.InputError, match="no such row"):
        widget.selection = [both.n_obs]


def test_what_a_notebook_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    adata = stored_section.make(image=False)
    monkeypatch.setattr(_export, "MOST_SINGLE", 20)
    if _notebook.find_spec("anywidget") is not None:
        with pytest.raises(sm.InputError, match="smeld view"):
            sm_view(adata)
    monkeypatch.setattr(_notebook, "find_spec", lambda name: None)
    with pytest.raises(sm.InputError, match="pip install anywidget"):
        sm_view(adata)


def test_the_packed_state_says_it_is_static(result: Path) -> None:
    held = dict(_export.contents(Answers(open_result(result)), _export.Choice(top=1), title="t", single=True))
    assert next(iter(held)) == "api/state.json"
    assert _wire.unpack(held["api/0/xy.bin"])[1]["values"].shape[1] == 2
