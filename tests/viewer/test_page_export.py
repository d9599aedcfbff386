"""Exported pages opened from files; pictures; the notebook's frame; the other renderer: in a real browser."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import _page_live
import _viewer_live
import numpy as np
import pytest

from smeld.viewer import _export

DRAWN = """(async () => { const p = smeld.app.panes[0];
  const d = (await smeld.picture.pixels(p)).getContext("2d").getImageData(0, 0, p.width, p.height).data;
  let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n; })()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with _page_live.a_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def adata():
    return _viewer_live.section()


@pytest.fixture(scope="module", params=[True, False], ids=["one file", "folder"])
def exported(request, browser, tmp_path_factory, adata):
    out = tmp_path_factory.mktemp("export") / "page"
    made = _export.export(adata, out, _export.Choice(genes=("g1", "g3"), single=request.param))
    page = browser.page(Path(made).as_uri())
    page.wait("smeld.probe.ready")
    yield page, out.parent
    page.call("Page.close")


def test_an_export_opens_from_a_file(exported, adata):
    page, folder = exported
    page.wait("smeld.app.panes.length === 2")
    assert page.evaluate("smeld.app.active.n_obs") == adata.n_obs
    assert page.evaluate(DRAWN) > 1000
    assert page.console == [] and page.evaluate("smeld.probe.errors") == []
    assert [r for r in page.requests if not r.startswith((folder.as_uri(), "data:", "blob:"))] == []


def test_an_export_colours_by_its_genes_and_says_which_it_lacks(exported, adata):
    page, _ = exported
    page.evaluate("smeld.paint.set({type: 'gene', name: 'g3'})")
    got = page.evaluate("Array.from(smeld.paint.values(smeld.app.active).values)")
    np.testing.assert_allclose(got, adata[:, "g3"].X.toarray().ravel(), rtol=1e-6)
    page.evaluate("smeld.paint.set({type: 'gene', name: 'g2'})")
    assert "not in this section" in page.evaluate("document.getElementById('status').textContent")


def test_an_export_is_annotated_for_oneself(exported, adata):
    page, folder = exported
    page.click("#category-name")
    page.type("mine")
    page.key("Enter")
    page.click("#tool-lasso")
    page.drag(_page_live.ring(page))
    page.wait("smeld.annotate.shapes(smeld.app.active).length === 1")
    saved = page.download("#export-shapes", folder)
    assert saved.suffix == ".geojson"
    shape = json.loads(saved.read_text(encoding="utf-8"))["features"][0]
    ring = np.asarray(shape["geometry"]["coordinates"][0])
    xy = adata.obsm["spatial_um"]
    assert shape["properties"]["classification"]["name"] == "mine"
    assert (ring.min(axis=0) > xy.min(axis=0)).all() and (ring.max(axis=0) < xy.max(axis=0)).all()
    page.click("#undo")


def test_svg_has_a_circle_a_cell_and_names_as_text(exported, adata):
    page, _ = exported
    page.evaluate("smeld.paint.set({type: 'column', name: 'domain'})")
    page.evaluate("smeld.app.panes[0].fit()")
    root = ET.fromstring(page.evaluate("smeld.picture.makeSvg()"))
    names = {"s": "http://www.w3.org/2000/svg"}
    assert len(root.findall(".//s:circle", names)) == adata.n_obs
    said = [t.text for t in root.findall(".//s:text", names)]
    assert {"domain", "1", "2", "3", "4"} <= set(said) and any("µm" in str(t) for t in said)


def test_png_is_saved(exported):
    page, folder = exported
    saved = page.download("#png", folder)
    assert saved.suffix == ".png" and saved.read_bytes()[:4] == b"\x89PNG"


def test_the_notebooks_frame_tells_and_takes_the_selection(browser, tmp_path, adata):
    """In a frame without an origin of its own, as the notebook's: what is selected inside comes out, and back."""
    from smeld.viewer._answers import Answers
    from smeld.viewer._source import open_result

    held = _export.contents(
        Answers(open_result(adata)), _export.Choice(single=True), title="t", single=True, notebook=True
    )
    inner = _export.single_page(dict(held))
    outer = tmp_path / "outer.html"
    outer.write_text(
        "<!doctype html><meta charset=utf-8><script>addEventListener('message', (e) => { window.told = e.data; })"
        "</script><iframe id=f sandbox='allow-scripts allow-downloads' style='width:1100px;height:700px'></iframe>"
        "<script>f.srcdoc = " + json.dumps(inner).replace("<", "\\u003c") + "</script>",
        encoding="utf-8",
    )
    page = browser.page(outer.as_uri())
    page.evaluate("""new Promise((done) => { const ask = () => {
      f.contentWindow.postMessage({smeld: "select", section: 0, rows: Uint32Array.from([3, 5, 8])}, "*");
      window.told ? done() : setTimeout(ask, 100); }; ask(); })""")
    assert page.evaluate("[window.told.smeld, window.told.section, ...window.told.rows]") == ["selection", 0, 3, 5, 8]
    assert page.console == []
    page.call("Page.close")


def test_webgl_draws_the_same_picture(tmp_path, adata):
    """Under a software renderer, forced by the address: squares pixel by pixel, discs but for their edges."""
    flags = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
    place = _page_live.stored(tmp_path, adata.copy())
    with _page_live.a_browser(tmp_path, *flags) as browser, _viewer_live.running(place) as client:
        page = browser.page()
        page.goto(f"http://127.0.0.1:{client.port}/?token={_viewer_live.TOKEN}")
        if not page.evaluate("Boolean(document.createElement('canvas').getContext('webgl2'))"):
            pytest.skip("this browser has no WebGL2, not even in software")
        page.goto(f"http://127.0.0.1:{client.port}/?renderer=webgl2")
        page.wait("smeld.probe.ready")
        assert page.evaluate("smeld.renderer") == "webgl2"
        page.evaluate("smeld.paint.set({type: 'gene', name: 'g0'})")
        page.wait("smeld.app.panes[0].gl.n > 0")
        for radius, most in ((0.5, 0.0), (1.0, 0.001), (1.5, 0.001), (6.3, 0.02)):
            other, drawn = page.evaluate(f"""(async () => {{
              const pane = smeld.app.panes[0], view = {{...pane.view(), radius: {radius}}};
              await pane.reload(); pane.gl.draw(view);
              const {{width, height, cloud}} = pane, x = new OffscreenCanvas(width, height).getContext("2d");
              x.drawImage(pane.points, 0, 0);
              const gl = x.getImageData(0, 0, width, height).data;
              const {{pixels}} = await smeld.engine.ask({{what: "picture", cloud, view, width, height}});
              const cpu = new Uint8Array(pixels.buffer); let other = 0, drawn = 0;
              for (let i = 0; i < cpu.length; i += 4) {{ if (cpu[i + 3] || gl[i + 3]) drawn++;
                if ([0, 1, 2, 3].some((k) => Math.abs(cpu[i + k] - gl[i + k]) > 40)) other++; }}
              return [other, drawn]; }})()""")
            assert drawn > 100 and other <= most * drawn + 1, (radius, other, drawn)
        _page_live.quiet(page, f"http://127.0.0.1:{client.port}")
