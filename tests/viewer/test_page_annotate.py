"""Annotating in a real browser: what is drawn is saved, found again, undone; by keys as well as by pointer."""

from __future__ import annotations

import json

import _page_live
import _viewer_live
import anndata
import numpy as np
import pytest

import chrome_pipe

SAVED = "smeld.annotate.of(smeld.app.active).saved && !smeld.annotate.of(smeld.app.active).saving"
LABELLED = "[...smeld.annotate.of(smeld.app.active).labels].flatMap((l, i) => (l ? [i] : []))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with _page_live.a_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def place(tmp_path):
    return _page_live.stored(tmp_path, _viewer_live.section(image=False))


def category(page: chrome_pipe.Page, name: str) -> None:
    page.click("#category-name")
    page.type(name)
    page.key("Enter")
    page.wait(f"smeld.annotate.of(smeld.app.active).categories.some((c) => c.name === {json.dumps(name)})")


def test_lasso_saved_and_reopened(browser, place):
    xy = anndata.read_h5ad(place).obsm["spatial_um"]
    with _viewer_live.running(place, annotate="annotation", author="Ada") as client:
        page = _page_live.opened(browser, client)
        category(page, "tumour")
        page.click("#tool-lasso")
        places = _page_live.ring(page)
        expected = _page_live.expected_rows(page, places, xy - xy.min(axis=0)).tolist()
        page.drag(places)
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 1 && {SAVED}")
        assert page.evaluate(LABELLED) == expected
        assert client.json("/api/0/annotations.json")["shapes"][0]["author"] == "Ada"
        page.call("Page.close")
    stored = anndata.read_h5ad(place)
    assert np.flatnonzero(stored.obs["annotation"] == "tumour").tolist() == expected
    shape = json.loads(stored.uns["annotations"]["geojson"])["features"][0]
    ring = np.asarray(shape["geometry"]["coordinates"][0])
    assert (ring.min(axis=0) > xy.min(axis=0)).all() and (ring.max(axis=0) < xy.max(axis=0)).all()  # micrometres
    with _viewer_live.running(place, annotate="annotation") as client:
        page = _page_live.opened(browser, client)
        assert page.evaluate(LABELLED) == expected
        assert page.evaluate("smeld.annotate.shapes(smeld.app.active).length") == 1
        _page_live.quiet(page, f"http://127.0.0.1:{client.port}")
        page.call("Page.close")


def test_undo_and_redo_reach_the_server(browser, place):
    with _viewer_live.running(place, annotate="annotation") as client:
        page = _page_live.opened(browser, client)
        category(page, "a")
        page.click("#tool-brush")
        places = _page_live.ring(page, 0.2)
        page.drag(places[:12])
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 1 && {SAVED}")
        first = client.json("/api/0/annotations.json")
        assert first["shapes"][0]["kind"] == "brush" and len(page.evaluate(LABELLED)) > 0
        page.click("#undo")
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 0 && {SAVED}")
        assert client.json("/api/0/annotations.json")["shapes"] == []
        assert page.evaluate(LABELLED) == []
        page.click("#redo")
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 1 && {SAVED}")
        assert client.json("/api/0/annotations.json")["cells"] == first["cells"]
        page.call("Page.close")


def test_polygon_by_keys_alone(browser, place):
    """L for the lasso; arrow keys move the cursor, Enter sets corners, Space closes; the legend selects with S."""
    with _viewer_live.running(place, annotate="annotation") as client:
        page = _page_live.opened(browser, client)
        page.evaluate("document.getElementById('category-name').focus()")
        page.type("by keys")
        page.key("Enter")
        page.evaluate("document.activeElement.blur()")
        page.key("p")
        page.key("m")
        for way, times in (("ArrowRight", 3), ("ArrowDown", 3), ("ArrowLeft", 3)):
            page.key("Enter")
            for _ in range(times):
                page.key(way, chrome_pipe.SHIFT)
        page.key("Enter")
        page.key(" ")
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 1 && {SAVED}")
        shape = client.json("/api/0/annotations.json")["shapes"][0]
        assert shape["kind"] == "polygon" and len(shape["rings_um"][0]) == 4
        drawn = page.evaluate(LABELLED)
        assert drawn
        page.evaluate("document.querySelector('#legend-list .entry').focus()")
        page.key("s")
        page.wait("smeld.probe.selected > 0")
        page.evaluate("document.getElementById('assign').focus()")
        page.key("Enter")
        page.wait(SAVED)
        first = np.flatnonzero(anndata.read_h5ad(place).obs["domain"] == "1")
        assert page.evaluate(LABELLED) == sorted({*drawn, *first.tolist()})
        page.call("Page.close")


def test_two_pages_do_not_overwrite_each_other(browser, place):
    theirs = {"revision": 0, "categories": [{"name": "theirs", "color": "#0072B2"}], "shapes": [], "cells": {}}
    with _viewer_live.running(place, annotate="annotation") as client:
        page = _page_live.opened(browser, client)
        assert client.ask("PUT", "/api/0/annotations.json", json.dumps(theirs).encode()).status == 200
        category(page, "mine")
        page.wait("!document.getElementById('keep-mine').hidden")
        assert [c["name"] for c in client.json("/api/0/annotations.json")["categories"]] == ["theirs"]
        page.click("#keep-mine")
        page.wait(SAVED)
        assert [c["name"] for c in client.json("/api/0/annotations.json")["categories"]] == ["mine"]
        page.call("Page.close")


def test_geojson_out_and_in(browser, place, tmp_path):
    with _viewer_live.running(place, annotate="annotation") as client:
        page = _page_live.opened(browser, client)
        category(page, "tumour")
        page.click("#tool-lasso")
        page.drag(_page_live.ring(page))
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 1 && {SAVED}")
        labelled = page.evaluate(LABELLED)
        given = client.ask("GET", "/api/0/annotations.geojson").body.decode()
        (bin_,) = page.evaluate(
            "[...document.querySelectorAll('#categories .square:last-child')].map((b) => b.ariaLabel)"
        )
        assert bin_ == "Delete tumour"
        page.click("#categories .square:last-child")
        page.wait(f"smeld.annotate.shapes(smeld.app.active).length === 0 && {SAVED}")
        assert page.evaluate(LABELLED) == []
        page.evaluate(f"""(() => {{ const field = document.getElementById("import-file"), files = new DataTransfer();
          files.items.add(new File([{json.dumps(given)}], "shapes.geojson"));
          field.files = files.files; field.dispatchEvent(new Event("change")); }})()""")
        page.wait("smeld.annotate.shapes(smeld.app.active).length === 1")
        assert page.evaluate(LABELLED) == labelled
        _page_live.quiet(page, f"http://127.0.0.1:{client.port}")
        page.call("Page.close")


@pytest.fixture(scope="module")
def looking(browser, tmp_path_factory):
    """A page of a viewer that only reads."""
    place = _page_live.stored(tmp_path_factory.mktemp("read"), _viewer_live.section(image=False))
    with _viewer_live.running(place) as client:
        yield _page_live.opened(browser, client)


def test_without_annotate_there_is_no_way_to(looking):
    assert looking.evaluate("document.getElementById('annotate').hidden")


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_the_outline_of_a_stroke_holds_what_lies_near_it(looking, seed):
    """Against the distance to the line, computed here; strokes that cross themselves included."""
    rng = np.random.default_rng(seed)
    line = np.cumsum(rng.normal(size=(30, 2)), axis=0)
    points = rng.uniform(line.min(0) - 2, line.max(0) + 2, (4000, 2))
    rings = looking.evaluate(f"smeld.strokeOutline({line.tolist()}, 0.7)")
    inside = np.zeros(len(points), dtype=bool)
    for ring in rings:
        start, end = np.asarray(ring), np.roll(np.asarray(ring), -1, axis=0)
        for (ax, ay), (bx, by) in zip(start, end, strict=True):
            if ay != by:
                across = (ay > points[:, 1]) != (by > points[:, 1])
                inside ^= across & (points[:, 0] < (bx - ax) * (points[:, 1] - ay) / (by - ay) + ax)
    a, b = line[:-1, None], line[1:, None]
    t = np.clip(((points - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1), 0, 1)[..., None]
    away = np.linalg.norm(points - a - t * (b - a), axis=-1).min(axis=0)
    clear = np.abs(away - 0.7) > 0.06  # the grid's step is a fifth of the radius
    assert (inside == (away < 0.7))[clear].all()
