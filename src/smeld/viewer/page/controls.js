/* Toolbar, sliders, keys that work everywhere, help, and the line at the bottom. */
"use strict";
(() => {
  const smeld = window.smeld;
  const { $ } = smeld;
  const app = smeld.app;
  const TOOLS = ["pan", "lasso", "polygon", "brush"];

  const tools = () => {
    for (const name of TOOLS) $(`tool-${name}`).addEventListener("click", () => smeld.tools.set(name));
    smeld.on("tool", (tool) => {
      for (const name of TOOLS) $(`tool-${name}`).setAttribute("aria-checked", String(name === tool));
      document.body.dataset.tool = tool;
      $("brush-line").hidden = tool !== "brush";
      smeld.status({
        pan: "Drag to move, wheel to zoom", lasso: "Draw around cells; Shift adds, Alt takes away",
        polygon: "Click the corners; double click, Enter on the first corner or Space closes", brush: "Paint over cells; [ and ] change the size",
      }[tool]);
    });
    smeld.on("brush", () => {
      $("brush").value = String(Math.round(smeld.tools.brush));
      app.redraw();
    });
    $("brush").addEventListener("input", (e) => smeld.tools.setBrush(Number(e.target.value)));
    smeld.roving($("toolbar"), "button")();
  };

  const history = () => {
    $("undo").addEventListener("click", () => smeld.history.undo());
    $("redo").addEventListener("click", () => smeld.history.redo());
    smeld.on("history", () => {
      // aria-disabled: a button that is pressed must not lose the focus
      $("undo").setAttribute("aria-disabled", String(!smeld.history.done.length));
      $("redo").setAttribute("aria-disabled", String(!smeld.history.undone.length));
    });
    smeld.on("selected", () => {
      const n = smeld.selection.total();
      $("selected").textContent = n ? `${smeld.count(n)} selected` : "";
      $("deselect").hidden = !n;
      if (app.state.notebook && window.parent !== window) {
        for (const s of app.shown()) window.parent.postMessage({ smeld: "selection", section: s.k, rows: smeld.selection.rows(s) }, "*");
      }
    });
    $("deselect").addEventListener("click", () => smeld.selection.clear());
  };

  const slider = (id, key, f) => $(id).addEventListener("input", (e) => {
    app[key] = Number(e.target.value);
    f();
  });
  const layers = () => {
    slider("size", "size", () => app.redraw());
    slider("opacity", "opacity", () => document.documentElement.style.setProperty("--points", String(app.opacity)));
    slider("tissue", "tissue", () => {
      document.documentElement.style.setProperty("--tissue", String(app.tissue));
      app.redraw();
    });
    $("outlines").addEventListener("change", (e) => {
      app.outlines = e.target.checked;
      app.panes.forEach(outlines);
      app.redraw();
    });
    smeld.on("settled", outlines);
    $("palette").addEventListener("change", (e) => {
      app.palette = e.target.value;
      smeld.paint.recolour();
    });
    $("palette-categories").addEventListener("change", (e) => {
      app.categories = e.target.value;
      smeld.paint.recolour();
    });
  };
  const outlines = async (pane) => {
    const s = pane.section;
    if (!app.outlines || !s.outlines || pane.kind !== "section") return;
    const sides = [-pane.x, -pane.y, pane.width - pane.x, pane.height - pane.y].map((v) => (v / pane.scale).toFixed(2));
    try {
      s.outlined = smeld.unpack(await smeld.transport.get(`api/${s.k}/outlines/${sides.join("_")}.bin`));
      if (s.outlined.header.complete === false) smeld.status("Zoom in to see outlines of cells");
      app.redraw();
    } catch (error) {
      smeld.failed("Outlines could not be read", error);
    }
  };

  const hovering = () => smeld.on("hover", (pane, row) => {
    app.panes.forEach((p) => p.section === pane.section && smeld.overlay.draw(p));
    const s = pane.section, section = app.panes.find((p) => p.section === s && p.kind === "section"), value = smeld.paint.current && smeld.paint.of(s, row);
    if (row < 0 || !section || value === undefined) $("hover").textContent = "";
    else {
      const [x, y] = [s.xy[2 * row] + s.bounds_um[0], s.xy[2 * row + 1] + s.bounds_um[1]];
      $("hover").replaceChildren(`${smeld.unit()} ${smeld.count(row + 1)} \u00b7 ${Math.round(x)}, ${Math.round(y)} \u00b5m \u00b7 `, smeld.bdi(smeld.paint.title(smeld.paint.current)), " ", smeld.el("b", {}, smeld.bdi(value)));
    }
  });

  const acts = {
    v: () => smeld.tools.set("pan"), l: () => smeld.tools.set("lasso"), p: () => smeld.tools.set("polygon"), b: () => smeld.tools.set("brush"),
    "/": () => $("search").focus(), "?": () => $("help").showModal(), m: () => app.panes[0] && app.panes[0].root.focus(),
    e: () => toggleSide(), "0": () => app.panes.forEach((p) => p.fit()), Escape: () => smeld.tools.cancel(),
  };
  const keys = () => addEventListener("keydown", (e) => {
    const typing = e.target.matches("input:not([type=range],[type=checkbox],[type=radio],[type=color]), select, textarea");
    const ctrl = e.ctrlKey || e.metaKey;
    if ($("help").open || typing) return;
    if (ctrl && e.key.toLowerCase() === "z") smeld.history[e.shiftKey ? "redo" : "undo"]();
    else if (ctrl && e.key.toLowerCase() === "y") smeld.history.redo();
    else if (ctrl || e.altKey || !acts[e.key] || e.defaultPrevented) return;
    else acts[e.key]();
    e.preventDefault();
  });
  const toggleSide = () => {
    app.sideOn = !app.sideOn;
    app.side();
  };

  /** A notebook's frame may set the selection. */
  const notebook = () => addEventListener("message", (e) => {
    if (!app.state.notebook || e.source !== window.parent || window.parent === window || !e.data || e.data.smeld !== "select") return;
    const s = app.sections[Number(e.data.section) || 0];
    if (s && s.xy && e.data.rows && typeof e.data.rows.length === "number") smeld.selection.fromRows(s, e.data.rows);
  });

  smeld.controls = {
    start() {
      app.sideOn = innerWidth >= 1100;
      for (const part of [tools, history, layers, hovering, keys, notebook]) part();
      $("fit").addEventListener("click", () => app.panes.forEach((p) => p.fit()));
      $("png").addEventListener("click", () => smeld.picture.png());
      $("svg").addEventListener("click", () => smeld.picture.svg());
      $("help-open").addEventListener("click", () => $("help").showModal());
      $("help-close").addEventListener("click", () => $("help").close());
      $("embedding-toggle").addEventListener("click", toggleSide);
      $("embedding-name").addEventListener("change", () => app.side());
    },
  };
  smeld.app.begin();
})();
