"""The viewer on a million cells in headless Chromium: first picture, frames, panning, lasso, requests, errors."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import _measure

sys.path.insert(0, str(_measure.ROOT / "tests"))
import chrome_pipe

MAKE = str(_measure.HERE / "_viewer_section.py")
N = 1_000_000
#: what is asked of each row at most, in the unit of the row
BARS = {
    "first picture, viewer ready": 4.0,
    "first picture, viewer just started": 4.0,
    "full frame, domains": 50.0,
    "full frame, gene": 50.0,
    "full frame, embedding": 50.0,
    "panning": 17.0,
    "lasso, 200 vertices, round": 150.0,
    "lasso, 200 vertices, star": 150.0,
    "requests off the origin": 0,
    "console errors": 0,
}

#: run in the page: draws frames one after another, from the question to the drawn frame
SERIES = """async (kind, count, change) => {
  const pane = smeld.app.panes.find((p) => p.kind === kind), took = [];
  const drawn = () => smeld.probe.frames.length + smeld.probe.pans.length + smeld.probe.rough.length;
  for (let i = 0; i < count; i++) {
    const before = drawn(), start = performance.now();
    change(pane, i);
    while (drawn() === before) await new Promise((d) => setTimeout(d, 0));
    took.push(performance.now() - start);
  }
  return {took, frames: smeld.probe.frames.slice(-count)};
}"""
FULL = "(p, i) => { p.scale *= 1 + 1e-7 * (i % 2 ? 1 : -1); p.changed(false); }"
#: pans on every animation frame and takes the time between two frames that were drawn
PAN = """new Promise((done) => {
  const pane = smeld.app.panes[0], at = [], start = smeld.probe.pans.length;
  let i = 0;
  smeld.engine.onDrawn(pane.id, () => { at.push(performance.now()); });
  const step = () => { pane.pan(i % 60 < 30 ? 3 : -3, i % 60 < 30 ? 2 : -2);
    if (++i < 180) requestAnimationFrame(step);
    else setTimeout(() => done({
      gaps: at.slice(1).map((t, k) => t - at[k]), drawing: smeld.probe.pans.slice(start)}), 300); };
  step(); })"""
LASSO = """async (depth) => {
  const pane = smeld.app.panes[0], [x0, y0, x1, y1] = pane.bounds, r = (x1 - x0) * 0.45, points = [];
  for (let i = 0; i < 200; i++) { const a = i / 100 * Math.PI, q = r * (i % 2 ? 1 - depth : 1);
    points.push([(x0 + x1) / 2 + q * Math.cos(a), (y0 + y1) / 2 + q * Math.sin(a)]); }
  const took = [];
  for (let k = 0; k < 7; k++) { smeld.tools.drawing = {pane, kind: "lasso", points: points.slice(), how: "new"};
    await smeld.tools.finish(); took.push(smeld.probe.lassoMs);
    await new Promise((d) => setTimeout(d, 400)); } // until what was selected is drawn
  return {took, selected: smeld.probe.selected};
}"""


def measure(*, n: int = N) -> list[dict[str, Any]]:
    """One row a bar: median and 95th percentile where there are many."""
    if chrome_pipe.find_browser() is None:
        return [{"what": name, "note": "no Chromium is installed"} for name in BARS]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "section.h5ad"
        _measure.run([sys.executable, MAKE, str(place), str(n)], Path(folder), timeout=1800)
        try:
            return _rows(place, Path(folder), n)
        except chrome_pipe.PageError as error:
            return [{"what": "the viewer", "note": f"failed: {_measure.without_paths(str(error))[:200]}"}]


@contextmanager
def served(place: Path) -> Iterator[str]:
    """The address of a viewer in a process of its own, as soon as it has printed it."""
    command = [sys.executable, "-m", "smeld.viewer", str(place)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    try:
        yield str(server.stdout.readline()).strip() if server.stdout else ""
    finally:
        server.terminate()
        server.wait(timeout=60)


def _rows(place: Path, folder: Path, n: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with served(place) as url, chrome_pipe.Browser(folder) as browser:
        origin = url.split("/?")[0]
        cold = browser.page(url)
        cold.wait("smeld.probe.ready", 120)
        found.append(_one("first picture, viewer just started", "s", [_first(cold)]))
        time.sleep(5)  # genes are being turned over: not what is measured here
        page = browser.page(url)
        cold.call("Page.close")
        page.wait("smeld.probe.ready", 120)
        found.append(_one("first picture, viewer ready", "s", [_first(page)]))
        page.wait("smeld.app.state.indexed === 1 && smeld.app.panes.length === 2", 300)
        found += _drawing(page)
        off = [r for r in page.requests if not r.startswith((origin, "data:", "blob:"))]
        found.append(_one("requests off the origin", "", [len(off)]))
        found.append(_one("console errors", "", [len(page.console) + len(page.evaluate("smeld.probe.errors"))]))
    return [{"cells": n, **row} for row in found]


def _first(page: chrome_pipe.Page) -> float:
    return float(page.evaluate("smeld.probe.firstPictureMs")) / 1000


def _drawing(page: chrome_pipe.Page) -> list[dict[str, Any]]:
    rows = []
    frames = page.evaluate(f"({SERIES})('section', 25, {FULL})", 120)
    rows.append(_one("full frame, domains", "ms", frames["took"], frames["frames"]))
    pans = page.evaluate(PAN, 120)
    rows.append(_one("panning", "ms", pans["gaps"], pans["drawing"]))
    zoom = "(p, i) => { p.zoom(i < 12 ? 1.06 : 1 / 1.06); }"
    frames = page.evaluate(f"({SERIES})('section', 24, {zoom})", 120)
    rows.append(_one("zooming, as many points as the time allows", "ms", frames["took"]))
    page.evaluate("smeld.app.panes[0].fit()")
    frames = page.evaluate(f"({SERIES})('embedding', 25, {FULL})", 120)
    rows.append(_one("full frame, embedding", "ms", frames["took"], frames["frames"]))
    started = time.perf_counter()
    page.evaluate("smeld.paint.set({type: 'gene', name: 'gene7'})")
    rows.append({"what": "colour by a gene", "unit": "ms", "median": 1000 * (time.perf_counter() - started)})
    frames = page.evaluate(f"({SERIES})('section', 25, {FULL})", 120)
    rows.append(_one("full frame, gene", "ms", frames["took"], frames["frames"]))
    for name, depth in (("round", 0.05), ("star", 0.9)):
        rows.append(_one(f"lasso, 200 vertices, {name}", "ms", page.evaluate(f"({LASSO})({depth})", 120)["took"]))
    return rows


def _one(what: str, unit: str, values: list[float], drawing: list[float] | None = None) -> dict[str, Any]:
    """Median and 95th percentile, the bar, and whether it is met; ``drawing``: what the worker itself took."""
    ordered = sorted(values)
    row: dict[str, Any] = {"what": what, "unit": unit, "median": statistics.median(ordered)}
    if len(values) > 1:
        row["p95"] = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    if drawing:
        row["drawing"] = statistics.median(drawing)
    return {**row, "at most": BARS[what], "met": row["median"] <= BARS[what]} if what in BARS else row


if __name__ == "__main__":
    json.dump(measure(n=int(sys.argv[1]) if len(sys.argv) > 1 else N), sys.stdout, indent=1)
