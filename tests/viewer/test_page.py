"""The viewer's page in a real browser: it opens, colours, filters, selects, undoes; names are inert."""

from __future__ import annotations

import json

import _page_live
import _viewer_live
import numpy as np
import pytest

import chrome_pipe

SELECTED = "Array.from(smeld.selection.rows(smeld.app.sections[0]))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with _page_live.a_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def adata():
    return _viewer_live.section()


@pytest.fixture(scope="module")
def client(tmp_path_factory, adata):
    with _viewer_live.running(_page_live.stored(tmp_path_factory.mktemp("one"), adata.copy())) as found:
        yield found


@pytest.fixture(scope="module")
def page(browser, client):
    return _page_live.opened(browser, client)


def test_it_opens_without_error_and_asks_nobody_else(page, client, adata):
    page.wait("smeld.app.panes.length === 2")
    assert page.evaluate("document.getElementById('veil').hidden")
    assert page.evaluate("smeld.app.active.n_obs") == adata.n_obs
    assert page.evaluate("smeld.paint.current.name") == "domain"
    assert page.evaluate("document.querySelector('.pane .bar .length').textContent").endswith("µm")
    _page_live.quiet(page, f"http://127.0.0.1:{client.port}")


def test_the_picture_is_that_of_every_cell_by_hand(page, adata):
    """Small squares and the right colour: an oracle in numpy, cell by cell, at three sizes."""
    page.evaluate("smeld.paint.set({type: 'column', name: 'domain'})")
    xy = adata.obsm["spatial_um"] - adata.obsm["spatial_um"].min(axis=0)
    colours = page.evaluate(
        "Array.from(smeld.colours.ofCategories(smeld.paint.categories.map((c) => c.colour))).slice(2)"
    )
    for side in (1, 2, 3):
        got = page.evaluate(f"""(async () => {{
          const view = {{scale: 0.11, x: 7, y: 9, radius: {side / 2}}};
          const {{pixels}} = await smeld.engine.ask({{what: "picture", cloud: "0:xy", view, width: 200, height: 160}});
          return Array.from(pixels); }})()""")
        expected = np.zeros((160, 200), dtype=np.uint32)
        for (x, y), code in zip(xy.astype(np.float32).astype(np.float64), adata.obs["domain"].cat.codes, strict=True):
            left, up = (int(np.floor(v * 0.11 + at + 0.5 - side / 2)) for v, at in ((x, 7), (y, 9)))
            expected[max(up, 0) : up + side, max(left, 0) : left + side] = colours[code]
        assert (np.asarray(got, dtype=np.uint32).reshape(160, 200) == expected).all()


def test_panning_draws_what_a_new_frame_would(page):
    """The last frame moved and filled up is the same, pixel by pixel, as one drawn anew."""
    found = page.evaluate("""(async () => {
      const pane = smeld.app.panes[0], wait = (list, n) => new Promise((done) => { const look = () =>
        smeld.probe[list].length > n ? done() : setTimeout(look, 5); look(); });
      const shown = async () => { const c = new OffscreenCanvas(pane.width, pane.height), x = c.getContext("2d");
        await new Promise((d) => requestAnimationFrame(() => requestAnimationFrame(d)));
        x.drawImage(pane.points, 0, 0);
        return new Uint32Array(x.getImageData(0, 0, pane.width, pane.height).data.buffer); };
      pane.fit(); pane.zoom(2.5);
      await wait("frames", smeld.probe.frames.length);
      const before = smeld.probe.pans.length;
      pane.pan(37, -21);
      await wait("pans", before);
      const moved = await shown(), again = (await smeld.picture.pixels(pane)).getContext("2d");
      const fresh = new Uint32Array(again.getImageData(0, 0, pane.width, pane.height).data.buffer);
      let other = 0, drawn = 0;
      for (let i = 0; i < fresh.length; i++) { if (moved[i] !== fresh[i]) other++; if (fresh[i]) drawn++; }
      pane.fit();
      return [other, drawn]; })()""")
    assert found[0] == 0 and found[1] > 1000


def test_colour_by_a_gene_found_by_its_name(page, adata):
    page.click("#search")
    page.type("g3")
    page.wait("!document.getElementById('found').hidden")
    page.key("Enter")
    page.wait("smeld.paint.current.type === 'gene'")
    assert page.evaluate("smeld.paint.current.name") == "g3"
    got = page.evaluate("Array.from(smeld.paint.values(smeld.app.active).values)")
    np.testing.assert_allclose(got, adata[:, "g3"].X.toarray().ravel(), rtol=1e-6)
    assert page.evaluate("document.getElementById('legend-title').textContent") == "g3"


def test_a_scale_can_be_set_and_selects(page, adata):
    page.evaluate("smeld.paint.set({type: 'gene', name: 'g3'})")
    page.evaluate("document.getElementById('scale-lo').select()")
    page.click("#scale-lo")
    page.key("a", chrome_pipe.CTRL)
    page.type("4.5")
    page.key("Enter")
    page.wait("smeld.paint.lo === 4.5")
    page.click("#legend-above")
    page.wait("smeld.probe.selected > 0")
    assert page.evaluate(SELECTED) == np.flatnonzero(adata[:, "g3"].X.toarray().ravel() > 4.5).tolist()
    page.click("#hide-low")
    page.click("#tool-lasso")
    page.drag(_page_live.ring(page, 0.45))  # what is hidden is not selected by what is drawn
    page.wait("smeld.history.done.at(-1).label === 'selection'")
    assert set(page.evaluate(SELECTED)) <= set(np.flatnonzero(adata[:, "g3"].X.toarray().ravel() > 4.5).tolist())
    page.click("#hide-low")
    page.click("#scale-natural")
    assert page.evaluate("smeld.paint.lo") == 0
    page.evaluate("smeld.selection.clear()")
    page.click("#tool-pan")


def test_a_pair_from_two_names_and_from_the_table(page, adata):
    page.click("#search")
    page.type("g0 g1")
    page.wait("document.querySelector('#found .kind')?.textContent === 'pair'")
    page.key("Enter")
    page.wait("smeld.paint.current.type === 'pair'")
    got = page.evaluate("Array.from(smeld.paint.values(smeld.app.active).values)")
    np.testing.assert_allclose(got, adata.obsm["interactions_score"][:, 0].toarray().ravel(), rtol=1e-6)


def test_what_is_no_stored_score_is_said(page, adata):
    note = "document.getElementById('legend-note').textContent"
    page.evaluate("smeld.paint.set({type: 'pair', ligand: 'g0', receptor: 'g1'})")
    assert page.evaluate(note) == ""
    page.evaluate("smeld.paint.set({type: 'pair', ligand: 'g4', receptor: 'g5'})")
    assert "no test" in page.evaluate(note)
    page.evaluate("smeld.paint.set({type: 'column', name: 'pseudotime'})")
    missing = int(adata.obs["pseudotime"].isna().sum())
    assert page.evaluate(note) == f"{missing} without a value (grey)"
    assert page.evaluate("document.getElementById('facts').textContent").startswith(f"{adata.n_obs} spots")


def test_points_over_tissue_have_a_rim(page):
    """H&E is pink, and so is a category: without a rim its spots would not be seen."""
    page.evaluate("smeld.paint.set({type: 'column', name: 'domain'})")
    ring = """(async (rim) => { const pane = smeld.app.panes[0], scale = 0.4, x = 40, y = 40;
      const view = {scale, x, y, radius: 9, rim}, [px, py] = [0, 1].map((i) => Math.round(pane.xy[i] * scale + 40));
      const {pixels} = await smeld.engine.ask({what: "picture", cloud: "0:xy", view, width: 200, height: 160});
      return [pixels[py * 200 + px], pixels[py * 200 + px + 10], pixels[py * 200 + px + 14]]; })"""
    middle, edge, outside = page.evaluate(ring + "(2)")
    assert edge & 0xFFFFFF == 0xFFFFFF and edge >> 24 > 150, "white, all but opaque"
    assert page.evaluate(ring + "(0)") == [middle, 0, 0] and middle >> 24 == 255 and outside == 0
    rim = "smeld.app.panes[0].view().rim"
    assert page.evaluate(rim) > 0
    page.evaluate("smeld.app.tissue = 0")
    assert page.evaluate(rim) == 0, "no tissue, no rim"
    page.evaluate("smeld.app.tissue = 0.85")


def test_a_row_of_a_table_shows_its_gene(page):
    page.click("#tab-0")
    page.wait("document.querySelectorAll('#table-rows tr').length > 3")
    wanted = page.evaluate("document.querySelector('#table-rows tr:nth-child(2) .go').textContent")
    page.click("#table-rows tr:nth-child(2) .go")
    page.wait(f"smeld.paint.current.type === 'gene' && smeld.paint.current.name === {wanted!r}")
    page.click("#table-query")
    page.type("g1")
    page.wait("[...document.querySelectorAll('#table-rows .go')].every((b) => b.textContent.includes('g1'))")
    page.click("#drawer-close")


def test_the_legend_filters(page, adata):
    page.evaluate("smeld.paint.set({type: 'column', name: 'domain'})")
    page.wait("document.querySelectorAll('#legend-list .entry').length === 4")
    page.click("#legend-list li:nth-child(2) .entry")
    assert page.evaluate("[...smeld.paint.hidden]") == ["2"]
    page.click("#legend-select")
    page.wait("smeld.probe.selected > 0")
    assert page.evaluate(SELECTED) == np.flatnonzero(adata.obs["domain"] != "2").tolist()
    page.click("#legend-list li:nth-child(3) .entry", modifiers=chrome_pipe.SHIFT)
    shown = page.evaluate("smeld.paint.categories.filter((c) => !smeld.paint.hidden.has(c.name)).map((c) => c.name)")
    assert shown == ["3"]
    page.click("#legend-all")
    assert page.evaluate("smeld.paint.hidden.size") == 0
    page.evaluate("smeld.selection.clear()")


def test_lasso_selects_what_lies_inside_and_undo_takes_it_back(page, adata):
    xy = adata.obsm["spatial_um"] - adata.obsm["spatial_um"].min(axis=0)
    places = _page_live.ring(page)
    expected = _page_live.expected_rows(page, places, xy)
    assert 10 < len(expected) < adata.n_obs
    page.click("#tool-lasso")
    page.drag(places)
    page.wait(f"smeld.probe.selected === {len(expected)}")
    assert page.evaluate(SELECTED) == expected.tolist()
    page.key("z", chrome_pipe.CTRL)
    page.wait("smeld.probe.selected === 0")
    page.key("z", chrome_pipe.CTRL | chrome_pipe.SHIFT)
    page.wait(f"smeld.probe.selected === {len(expected)}")
    page.key("Escape")
    page.wait("smeld.probe.selected === 0")
    page.click("#tool-pan")


def test_selection_is_shared_with_the_embedding(page):
    page.click("#tool-lasso")
    page.drag(_page_live.ring(page, 0.2, ".pane.embedding"))
    page.wait("smeld.probe.selected > 0")
    page.evaluate("smeld.selection.clear()")
    page.click("#tool-pan")


def test_arrows_and_outlines_are_drawn(page):
    inked = """(() => { const c = smeld.app.panes[0].over; const d = c.getContext('2d')
      .getImageData(0, 0, c.width, c.height).data; let n = 0;
      for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n; })()"""
    assert page.evaluate(inked) == 0
    page.click("#links label:first-child input")
    page.wait(f"{inked} > 200")
    near = page.evaluate(inked)
    page.evaluate("smeld.app.panes[0].zoom(0.25)")
    page.wait(f"0 < {inked} && {inked} < {near / 1.5}")  # from afar there are fewer, as large
    page.evaluate("smeld.app.panes[0].fit()")
    page.click("#links label:first-child input")
    page.wait(f"{inked} === 0")
    page.click("#outlines")
    page.wait(f"{inked} > 200")
    page.click("#outlines")


def test_sections_side_by_side(browser, tmp_path):
    with _viewer_live.running(_page_live.stored(tmp_path, _page_live.two_sections())) as client:
        page = _page_live.opened(browser, client)
        assert page.evaluate("smeld.app.sections.map((s) => s.name)") == ["A", "B"]
        page.click("#sections li:nth-child(2) .entry")
        page.wait("smeld.app.active.name === 'B' && smeld.app.panes.filter((p) => p.kind === 'section').length === 1")
        page.click("#sections li:nth-child(1) input")
        page.wait("smeld.app.panes.filter((p) => p.kind === 'section').length === 2")
        scales = "new Set(smeld.app.panes.filter((p) => p.kind === 'section').map((p) => p.scale)).size"
        assert page.evaluate(scales) == 1, "sizes can be compared"
        page.size(1000, 700)
        page.wait("smeld.app.panes[0].width < 400")
        page.wait(f"{scales} === 1")
        page.size(1400, 900)
        page.wait("smeld.app.panes[0].width > 350")
        page.wait("document.getElementById('legend-apart').hidden")  # domains of one file are one set
        page.evaluate("smeld.paint.set({type: 'gene', name: 'g2'})")
        both = page.evaluate("smeld.app.shown().map((s) => Math.max(...smeld.paint.values(s).values))")
        assert 0 < page.evaluate("smeld.paint.hi") <= max(both)  # one scale for both
        assert page.evaluate("document.querySelectorAll('.pane.section').length") == 2
        page.click("#sections li:nth-child(1) input")
        page.wait("smeld.app.panes.filter((p) => p.kind === 'section').length === 1")
        _page_live.quiet(page, f"http://127.0.0.1:{client.port}")
        page.call("Page.close")


def test_hostile_names_are_inert(browser, tmp_path):
    with _viewer_live.running(_page_live.stored(tmp_path, _page_live.hostile())) as client:
        page = _page_live.opened(browser, client)
        page.evaluate("window.alert = () => { window.fired = true; }")
        for j in range(page.evaluate("smeld.app.active.tables.length")):
            page.click(f"#tab-{j}")
            page.wait("document.querySelectorAll('#table-rows td').length > 0")
        for name in page.evaluate("smeld.app.active.columns.map((c) => c.name)")[:12]:
            page.evaluate(f"smeld.paint.set({{type: 'column', name: {json.dumps(name)}}})")
        page.click("#search")
        page.type("<")
        page.wait("!document.getElementById('found').hidden")
        text = page.evaluate("smeld.picture.makeSvg()")
        page.wait("smeld.app.panes.length === 2")
        assert page.evaluate("window.fired") is None
        assert page.evaluate("document.querySelectorAll('main script, aside script, #drawer script, img').length") == 0
        assert page.evaluate("document.querySelectorAll('[onerror],[onload],[onclick]').length") == 0
        assert "<script" not in text and "\u202e" not in text and "\x00" not in text
        assert "\u202e" not in page.evaluate("document.title + document.getElementById('status').textContent")
        _page_live.quiet(page, f"http://127.0.0.1:{client.port}")
        page.call("Page.close")
