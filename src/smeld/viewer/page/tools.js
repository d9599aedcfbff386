/* Pointer and keys over a pane: moving about, drawing shapes, hovering. */
"use strict";
(() => {
  const smeld = window.smeld;
  const held = new Map(); // pointers that are down -> where they were
  const STEP = 40;
  const listen = (pane) => {
    const { root } = pane;
    root.addEventListener("pointerdown", (e) => down(pane, e));
    root.addEventListener("pointermove", (e) => move(pane, e));
    root.addEventListener("pointerup", (e) => up(pane, e));
    root.addEventListener("pointercancel", (e) => {
      held.delete(e.pointerId);
      tools.cancel();
    });
    root.addEventListener("pointerleave", () => {
      if (tools.cursor && !tools.cursor.keyboard) tools.cursor = null;
      hover(pane, -1);
    });
    root.addEventListener("dblclick", (e) => {
      if (tools.tool === "polygon" && tools.drawing) tools.finish();
      else if (tools.tool === "pan" && e.target === pane.over) pane.zoom(2, ...inPane(pane, e));
    });
    root.addEventListener("wheel", (e) => {
      e.preventDefault();
      pane.zoom(Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0018)), ...inPane(pane, e));
      settle(pane);
    }, { passive: false });
    root.addEventListener("keydown", (e) => key(pane, e));
    root.addEventListener("focus", () => smeld.say("active", pane));
  };

  const inPane = (pane, e) => {
    const box = pane.root.getBoundingClientRect();
    return [(e.clientX - box.left) * pane.ratio, (e.clientY - box.top) * pane.ratio];
  };
  const settle = (pane) => {
    clearTimeout(pane.settling);
    pane.settling = setTimeout(() => {
      pane.changed(false);
      smeld.say("settled", pane);
    }, 160);
  };

  const down = (pane, e) => {
    if (e.target.closest("button")) return;
    pane.root.focus({ preventScroll: true });
    pane.root.setPointerCapture(e.pointerId);
    held.set(e.pointerId, inPane(pane, e));
    const place = pane.toData(e.clientX, e.clientY), panning = tools.tool === "pan" || e.button === 1 || held.size > 1;
    if (panning) {
      pane.root.classList.add("moving");
      return;
    }
    if (tools.tool === "polygon") addVertex(pane, place);
    else tools.drawing = { pane, kind: tools.tool, points: [place], how: howOf(e), moved: true };
    pane.changed(pane.moving);
  };

  /** Shift adds to what is selected, alt takes away. */
  const howOf = (e) => (e.altKey ? "take" : e.shiftKey ? "add" : "new");

  const addVertex = (pane, place) => {
    const now = tools.drawing;
    if (now && now.pane === pane && now.kind === "polygon") {
      const [a, b] = [pane.toCanvas(now.points[0]), pane.toCanvas(place)];
      if (Math.hypot(...[0, 1].map((i) => pane.toCanvas(now.points.at(-1))[i] - b[i])) < 2) return; // the second of two clicks
      if (now.points.length > 2 && Math.hypot(a[0] - b[0], a[1] - b[1]) < 9 * pane.ratio) tools.finish();
      else now.points.push(place);
    } else tools.drawing = { pane, kind: "polygon", points: [place], how: "new" };
    pane.changed(pane.moving);
  };

  const move = (pane, e) => {
    const was = held.get(e.pointerId), at = inPane(pane, e), place = pane.toData(e.clientX, e.clientY);
    if (was && pane.root.classList.contains("moving")) {
      if (held.size === 2) pinch(pane, e.pointerId, was, at);
      else pane.pan(Math.round(at[0] - was[0]), Math.round(at[1] - was[1]));
      held.set(e.pointerId, at);
      return;
    }
    const now = tools.drawing;
    if (now && now.pane === pane) {
      if (now.kind === "polygon") now.ahead = place;
      else if (was && far(pane, now.points.at(-1), place)) now.points.push(place);
      if (howOf(e) !== "new") now.how = howOf(e);
    }
    tools.cursor = tools.tool === "pan" ? null : { pane, place, keyboard: false };
    if (now || tools.tool === "brush") pane.changed(pane.moving);
    if (!was) ask(pane, place);
  };
  const far = (pane, a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) * pane.scale > 2 * pane.ratio;

  const pinch = (pane, id, was, at) => {
    const other = [...held].find(([k]) => k !== id)[1];
    pane.zoom(Math.hypot(at[0] - other[0], at[1] - other[1]) / Math.max(1, Math.hypot(was[0] - other[0], was[1] - other[1])), ...other);
  };

  const up = (pane, e) => {
    held.delete(e.pointerId);
    if (pane.root.classList.contains("moving")) {
      if (!held.size) pane.root.classList.remove("moving");
      settle(pane);
    } else if (tools.drawing && tools.drawing.kind !== "polygon") tools.finish();
  };

  /* -------------------------------------------------- hovering */

  let asking = false;
  const ask = async (pane, [x, y]) => {
    if (asking || !smeld.app.ready) return;
    asking = true;
    const reach = Math.max(pane.radius(), 7 * pane.ratio) / pane.scale;
    const { row } = await smeld.engine.ask({ what: "hover", cloud: pane.cloud, x, y, reach });
    asking = false;
    hover(pane, row);
  };
  const hover = (pane, row) => {
    if (pane.section.hovered === row) return;
    pane.section.hovered = row;
    smeld.say("hover", pane, row);
  };

  /* -------------------------------------------------- keys */

  const key = (pane, e) => {
    if (e.target !== pane.root || e.ctrlKey || e.metaKey) return;
    const step = (e.shiftKey ? 4 : 1) * STEP * pane.ratio;
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[e.key];
    const acts = {
      "+": () => pane.zoom(1.3), "=": () => pane.zoom(1.3), "-": () => pane.zoom(1 / 1.3), "0": () => pane.fit(),
      Backspace: () => takeBack(pane), Enter: () => mark(pane, e), " ": () => tools.finish(), Escape: () => escape(),
      "[": () => tools.setBrush(tools.brush / 1.25), "]": () => tools.setBrush(tools.brush * 1.25),
    };
    if (way && tools.tool !== "pan") moveCursor(pane, way, e.shiftKey ? STEP : 8);
    else if (way) pane.pan(-way[0] * step, -way[1] * step);
    else if (acts[e.key]) acts[e.key]();
    else return;
    e.preventDefault();
    settle(pane);
  };

  const middle = (pane) => [(pane.width / 2 - pane.x) / pane.scale, (pane.height / 2 - pane.y) / pane.scale];
  const moveCursor = (pane, [dx, dy], pixels) => {
    const at = tools.cursor && tools.cursor.pane === pane ? tools.cursor.place : middle(pane), by = (pixels * pane.ratio) / pane.scale;
    const place = [at[0] + dx * by, at[1] + dy * by];
    tools.cursor = { pane, place, keyboard: true };
    if (tools.drawing && tools.drawing.pane === pane) tools.drawing.ahead = place;
    pane.changed(false);
    ask(pane, place);
  };
  /** Enter: a corner of a polygon or lasso, a dab of the brush. */
  const mark = (pane, e) => {
    if (tools.tool === "pan") return;
    const place = tools.cursor && tools.cursor.pane === pane ? tools.cursor.place : middle(pane);
    tools.cursor = { pane, place, keyboard: true };
    if (tools.tool === "brush") {
      tools.drawing = { pane, kind: "brush", points: [place], how: e.shiftKey ? "add" : "new" };
      tools.finish();
      return;
    }
    addVertex(pane, place);
    if (tools.drawing) smeld.status(`Corner ${tools.drawing.points.length} set. Space closes the shape, Escape drops it.`);
  };
  const takeBack = (pane) => {
    if (tools.drawing && tools.drawing.kind === "polygon" && tools.drawing.points.length > 1) tools.drawing.points.pop();
    else tools.cancel();
    pane.changed(false);
  };
  const escape = () => {
    if (tools.drawing) tools.cancel();
    else smeld.selection.clear();
  };

  const tools = smeld.tools = {
    tool: "pan", brush: 18, drawing: null, cursor: null, listen,
    set(tool) {
      tools.cancel();
      tools.tool = tool;
      tools.cursor = null;
      smeld.say("tool", tool);
    },
    setBrush(pixels) {
      tools.brush = smeld.clamp(pixels, 3, 200);
      smeld.say("brush");
    },
    cancel() {
      const was = tools.drawing;
      tools.drawing = null;
      if (was) was.pane.changed(false);
    },
    /** The shape being drawn is whole: what lies inside is selected, or given the active category. */
    async finish() {
      const now = tools.drawing;
      tools.drawing = null;
      if (!now) return;
      now.pane.changed(false);
      if (now.kind !== "brush" && now.points.length < 3) return;
      const rings = now.kind === "brush" ? smeld.strokeOutline(now.points, (tools.brush * now.pane.ratio) / now.pane.scale) : [now.points];
      const started = performance.now();
      const { mask, total } = await smeld.engine.ask({ what: "shape", cloud: now.pane.cloud, rings, shown: true });
      smeld.probe.lassoMs = performance.now() - started;
      smeld.say("drawn", { pane: now.pane, kind: now.kind, rings, mask, total, how: now.how });
    },
  };
})();
