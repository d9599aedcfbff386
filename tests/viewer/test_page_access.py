"""Who cannot use a mouse, or cannot see well: keys reach everything, names and contrast are right."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import _page_live
import _viewer_live
import pytest

import chrome_pipe

AXE = "axe_core_python"  # holds axe.min.js


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    place = _page_live.stored(tmp_path_factory.mktemp("access"))
    folder = tmp_path_factory.mktemp("browser")
    with _page_live.a_browser(folder) as browser, _viewer_live.running(place, annotate="annotation") as client:
        yield _page_live.opened(browser, client)


def test_tab_and_arrow_keys_reach_every_control(page):
    """With Tab alone, and arrow keys inside of lists: each button, field and list item that can be seen."""
    page.click("#tab-0")
    page.wait("document.querySelectorAll('#table-rows .go').length > 3")
    page.evaluate("""(() => { window.reached = new Set();
      document.addEventListener("focusin", (e) => reached.add(e.target));
      document.querySelector(".skip").focus(); })()""")
    for _ in range(90):
        page.key("Tab")
        kind = page.evaluate("document.activeElement.closest('#toolbar,#columns,#legend-list,#tabs,#table-rows')?.id")
        if kind:
            page.evaluate(
                "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'Home', bubbles: true}))"
            )
            most = page.evaluate(f"document.querySelectorAll('#{kind} button, #{kind} [role=option]').length")
            for _ in range(min(most, 40) - 1):
                page.key("ArrowDown")
        if page.evaluate("document.activeElement === document.body"):
            break
    missed = page.evaluate("""[...document.querySelectorAll("button, input, select, [role=option], [role=application]")]
      .filter((e) => e.checkVisibility() && !e.disabled && !reached.has(e) && !e.closest("#table-rows")
        && !(e.type === "radio" && !e.checked)).map((e) => e.outerHTML.slice(0, 120))""")
    assert missed == [], "\n".join(missed)
    assert page.evaluate("[...document.querySelectorAll('#table-rows .go')].slice(0, 20).every((e) => reached.has(e))")
    page.click("#drawer-close")


def test_what_has_the_focus_can_be_seen(page):
    page.evaluate("document.activeElement.blur()")
    for _ in range(25):
        page.key("Tab")
        drawn = page.evaluate("""(() => { const s = getComputedStyle(document.activeElement);
          return document.activeElement === document.body || document.activeElement.id === "maps" ||
            (s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2); })()""")
        assert drawn, page.evaluate("document.activeElement.outerHTML.slice(0, 200)")


def test_keys_move_the_map(page):
    page.evaluate("document.querySelector('.pane.section').focus()")
    page.key("0")
    before = page.evaluate("({...smeld.app.panes[0].view()})")
    page.key("ArrowLeft")
    page.key("+")
    after = page.evaluate("({...smeld.app.panes[0].view()})")
    assert after["scale"] > before["scale"] and after["x"] != before["x"]
    page.key("0")
    page.wait(f"Math.abs(smeld.app.panes[0].scale - {before['scale']}) < 1e-12")


def test_help_opens_by_a_key_and_closes(page):
    page.key("?")
    page.wait("document.getElementById('help').open")
    page.key("Escape")
    page.wait("!document.getElementById('help').open")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, scheme):
    if find_spec(AXE) is None:
        pytest.skip("axe-core-python is not installed (pip install axe-core-python)")
    import importlib

    folder = Path(importlib.import_module(AXE).__file__).parent
    script = next(folder.rglob("axe.min.js")).read_text(encoding="utf-8")
    page.media(prefers_color_scheme=scheme)
    for ready in (
        "smeld.app.ready",
        "document.getElementById('tab-0').click() || true",
        "document.getElementById('help').showModal() || true",
    ):
        page.wait(ready)
        page.evaluate("new Promise((d) => setTimeout(d, 150))")
        page.evaluate(f"(() => {{ {script} }})(); window.axe !== undefined")
        found = page.evaluate("""axe.run(document, {resultTypes: ["violations"]}).then((r) => r.violations.map((v) =>
          `${v.impact} ${v.id}: ` + v.nodes.map((n) => n.html.slice(0, 160) + n.failureSummary).join(" | ")))""")
        assert found == [], "\n".join(found)
    page.key("Escape")
    page.click("#drawer-close")


def test_less_motion_where_it_is_asked_for(page):
    page.media(prefers_reduced_motion="reduce")
    moving = "getComputedStyle(document.getElementById('busy'), '::after').animationName"
    page.evaluate("document.getElementById('busy').hidden = false")
    assert page.evaluate(moving) == "none"
    page.media(prefers_reduced_motion="no-preference")
    assert page.evaluate(moving) == "run"
    page.evaluate("document.getElementById('busy').hidden = true")
    assert isinstance(page, chrome_pipe.Page)
