/* The page's side of the worker: questions, answers, and how long frames took. */
"use strict";
(() => {
  const smeld = window.smeld;
  const waiting = new Map(), drawn = new Map();
  let worker = null, asked = 0;
  smeld.probe = {
    frames: [], pans: [], rough: [], gaps: [], lassoMs: null, firstPictureMs: null,
    get ready() { return Boolean(smeld.app && smeld.app.ready); },
    get selected() { return smeld.selection ? smeld.selection.total() : 0; },
    get errors() { return smeld.errors; },
  };

  const keep = (list, value) => {
    list.push(value);
    if (list.length > 1000) list.splice(0, 500);
  };
  const timed = (m) => {
    keep(smeld.probe[{ full: "frames", pan: "pans", rough: "rough" }[m.kind]], m.ms);
    if (m.asked) keep(smeld.probe.gaps, performance.now() - m.asked);
  };
  const hear = (event) => {
    const m = event.data;
    if (m.what === "answer") {
      waiting.get(m.ask)(m);
      waiting.delete(m.ask);
    } else if (m.what === "drawn") {
      timed(m);
      if (drawn.has(m.pane)) drawn.get(m.pane)(m);
    }
  };

  smeld.engine = {
    start() {
      worker = smeld.transport.worker();
      worker.onmessage = hear;
      worker.onerror = (e) => smeld.failed("The drawing worker stopped", e.message || "it could not be started");
    },
    tell: (m, move = []) => worker.postMessage(m, move),
    ask: (m, move = []) => new Promise((done) => {
      m.ask = ++asked;
      waiting.set(m.ask, done);
      worker.postMessage(m, move);
    }),
    timed,
    /** f(message) for every frame of a pane; null: nobody listens any more. */
    onDrawn: (pane, f) => (f ? drawn.set(pane, f) : drawn.delete(pane)),
  };

  /** "cpu", or "webgl2" where a real graphics card is there (or ?renderer=webgl2 says so). */
  smeld.renderer = (() => {
    const wish = new URLSearchParams(location.search).get("renderer");
    if (wish === "cpu" || wish === "webgl2") return wish;
    try {
      const gl = document.createElement("canvas").getContext("webgl2");
      const info = gl && gl.getExtension("WEBGL_debug_renderer_info");
      const name = gl ? gl.getParameter(info ? info.UNMASKED_RENDERER_WEBGL : gl.RENDERER) : "";
      if (gl && gl.getExtension("WEBGL_lose_context")) gl.getExtension("WEBGL_lose_context").loseContext();
      return name && !/swiftshader|llvmpipe|softpipe|basic render|software/i.test(name) ? "webgl2" : "cpu";
    } catch {
      return "cpu";
    }
  })();
})();
